//! Waiting until enough replicas durably hold a version: the `WAIT` of Redis.
//!
//! It asks the replicas again and again, a little later each time, because a replica
//! does not report by itself.

use std::time::Duration;

use crate::types::{Key, Moment, NodeId, Response, Stamp};
use crate::wire::{ReplicaRequest, ReplicaResponse};

use super::context::{Answer, Context, count};

const FIRST_PAUSE: Duration = Duration::from_millis(2);
const LONGEST_PAUSE: Duration = Duration::from_millis(50);

/// One confirmation under way.
#[derive(Clone, Debug)]
pub struct Confirm {
    key: Key,
    stamp: Stamp,
    wanted: u8,
    phase: u8,
    holders: Vec<NodeId>,
    pause: Duration,
    ask_again_at: Option<Moment>,
}

impl Confirm {
    /// Waits for `wanted` replicas.
    pub(super) fn new(key: Key, stamp: Stamp, wanted: u8) -> Confirm {
        Confirm { key, stamp, wanted, phase: 0, holders: Vec::new(), pause: FIRST_PAUSE, ask_again_at: None }
    }

    /// Asks the replicas that were not heard to hold it yet.
    pub(super) fn start(&mut self, context: &mut Context<'_>) {
        let replicas = context.map.replicas_of(&self.key).to_vec();
        let wanted = usize::from(self.wanted).min(replicas.len());
        self.holders.retain(|holder| replicas.contains(holder));
        if self.holders.len() >= wanted {
            return self.finish(context);
        }
        let open = |replica: &NodeId| !self.holders.contains(replica) && context.is_reachable(*replica);
        let to: Vec<NodeId> = replicas.into_iter().filter(open).collect();
        self.ask_again_at = Some(context.now.moment.plus(self.pause));
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        context.ask(to, self.phase, ReplicaRequest::Confirm { key: self.key.clone(), stamp: self.stamp });
    }

    /// Takes an answer; one to an earlier question is as good.
    pub(super) fn answer(&mut self, from: NodeId, answer: Answer, context: &mut Context<'_>) {
        if answer != Answer::Response(ReplicaResponse::Stored) || self.holders.contains(&from) {
            return;
        }
        self.holders.push(from);
        let replicas = context.map.replicas_of(&self.key);
        if self.holders.len() >= usize::from(self.wanted).min(replicas.len()) {
            self.finish(context);
        }
    }

    /// Asks again if it is time to.
    pub(super) fn wake(&mut self, context: &mut Context<'_>) {
        if self.ask_again_at.is_some_and(|at| at <= context.now.moment) {
            self.start(context);
        }
    }

    /// When [`Confirm::wake`] is due.
    pub(super) fn next_timeout(&self) -> Option<Moment> {
        self.ask_again_at
    }

    /// Answers with what is known, at the latest when the time is over.
    pub(super) fn finish(&self, context: &mut Context<'_>) {
        context.finish(Ok(Response::Confirmed(count(self.holders.len()))));
    }
}
