//! A scan: one page of the live keys of a partition, as R replicas together know them.
//!
//! Invariant: a key that was acknowledged at W, with R + W > RF, and not deleted since,
//! is in the page if its token lies between where the page begins and `next`. Each key
//! comes once.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::types::{
    Digest, Failure, NamespaceId, NodeId, Partition, Refusal, Response, ScanEntry, ScanPage, Token, limits,
};
use crate::wire::{ReplicaRequest, ReplicaResponse};

use super::context::{Answer, Context, Effect, count};

/// One scan under way.
#[derive(Clone, Debug)]
pub struct Scan {
    namespace: NamespaceId,
    from: Token,
    limit: u32,
    partition: Partition,
    needed: usize,
    phase: u8,
    unasked: Vec<NodeId>,
    asked: Vec<NodeId>,
    answered: usize,
    found: BTreeMap<(Token, Bytes), Digest>,
    /// All replicas that answered returned everything below this; none: to the end.
    horizon: Option<Token>,
}

impl Scan {
    /// A page of a partition.
    pub(super) fn new(namespace: NamespaceId, from: Token, limit: u32, partition: Partition, needed: usize) -> Scan {
        Scan {
            namespace,
            from,
            limit: limit.clamp(1, limits::SCAN_PAGE_ENTRIES),
            partition,
            needed,
            phase: 0,
            unasked: Vec::new(),
            asked: Vec::new(),
            answered: 0,
            found: BTreeMap::new(),
            horizon: None,
        }
    }

    /// Asks R replicas.
    pub(super) fn start(&mut self, context: &mut Context<'_>) {
        let mut replicas = context.map.assignment.replicas(self.partition).to_vec();
        replicas.retain(|replica| context.is_reachable(*replica));
        context.peers.sort_by_promise(context.now.moment, context.me(), &mut replicas);
        replicas.reverse();
        self.unasked = replicas;
        self.asked.clear();
        self.answered = 0;
        self.found.clear();
        self.horizon = None;
        self.ask_further(context);
    }

    /// Begins anew under a new map.
    pub(super) fn replan(&mut self, context: &mut Context<'_>) {
        self.phase = self.phase.wrapping_add(1);
        self.start(context);
    }

    fn ask_further(&mut self, context: &mut Context<'_>) {
        let mut to = Vec::new();
        while self.answered + self.asked.len() < self.needed {
            let Some(replica) = self.unasked.pop() else {
                let alive = count(self.answered + self.asked.len());
                return context.refuse(Refusal::TooFewReplicas { alive, needed: count(self.needed) });
            };
            self.asked.push(replica);
            to.push(replica);
        }
        let (partition, namespace, from, limit) = (self.partition, self.namespace, self.from, self.limit);
        context.ask(to, self.phase, ReplicaRequest::Scan { partition, namespace, from, limit });
    }

    /// The phase it is in.
    pub(super) fn phase(&self) -> u8 {
        self.phase
    }

    /// Takes an answer.
    pub(super) fn answer(&mut self, from: NodeId, phase: u8, answer: Answer, context: &mut Context<'_>) {
        let Some(position) = self.asked.iter().position(|node| *node == from) else { return };
        if phase != self.phase {
            return;
        }
        self.asked.swap_remove(position);
        let Answer::Response(ReplicaResponse::Page { entries, next }) = answer else {
            return self.ask_further(context);
        };
        self.answered += 1;
        self.horizon = match (self.horizon, next) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        for ScanEntry { key, digest } in entries {
            let place = (Token::of_key(&key), key);
            let known = match self.found.remove(&place) {
                Some(known) => known.merge(digest),
                None => digest,
            };
            self.found.insert(place, known);
        }
        if self.answered == self.needed {
            context.effects.push(Effect::Finish(Ok(Response::Page(self.page(context)))));
        }
    }

    fn page(&mut self, context: &Context<'_>) -> ScanPage {
        let horizon = self.horizon;
        let found = std::mem::take(&mut self.found);
        let live = found.into_iter().filter(|((token, _), digest)| {
            horizon.is_none_or(|horizon| *token < horizon) && digest.has_live(context.now.wall)
        });
        let entries = live.map(|((_, key), digest)| ScanEntry { key, digest }).collect();
        let next = horizon.or_else(|| context.map.partitions.last_token(self.partition).next());
        ScanPage { entries, next }
    }

    /// The time is over.
    pub(super) fn time_out(&self) -> Failure {
        Failure::TimedOut { answered: count(self.answered), needed: count(self.needed) }
    }
}
