//! A request for a key of which this node is no replica: handed, in one hop, to one that is.
//!
//! Invariant: a write is handed on a second time only if the first replica certainly
//! never saw it or refused it; a read may be.

use crate::types::{Failure, Moment, NodeId, Refusal, Request};
use crate::wire::{ReplicaRequest, ReplicaResponse};

use super::context::{Answer, Context, Effect};

/// One request that was handed on.
#[derive(Clone, Debug)]
pub struct Forward {
    request: Request,
    deadline: Moment,
    candidates: Vec<NodeId>,
    asked: Option<NodeId>,
    late_at: Option<Moment>,
    refusal: Option<Refusal>,
    /// Replicas that were passed over because they were late, and may still answer.
    open: Vec<NodeId>,
}

impl Forward {
    /// Hands a request to the best of these replicas.
    pub(super) fn new(request: Request, deadline: Moment, replicas: &[NodeId]) -> Forward {
        Forward {
            request,
            deadline,
            candidates: replicas.to_vec(),
            asked: None,
            late_at: None,
            refusal: None,
            open: Vec::new(),
        }
    }

    /// Chooses and asks.
    pub(super) fn start(&mut self, context: &mut Context<'_>) {
        self.candidates.retain(|replica| context.is_reachable(*replica));
        context.peers.sort_by_promise(context.now.moment, context.me(), &mut self.candidates);
        self.candidates.reverse();
        self.ask_next(context);
    }

    fn ask_next(&mut self, context: &mut Context<'_>) {
        let Some(replica) = self.candidates.pop() else {
            self.asked = None;
            if !self.open.is_empty() {
                return;
            }
            let none = Refusal::TooFewReplicas { alive: 0, needed: 1 };
            return context.refuse(self.refusal.clone().unwrap_or(none));
        };
        self.asked = Some(replica);
        // The replica itself may have to wait for a hedge; twice that is late.
        let late_at = context
            .now
            .moment
            .plus(context.peers.late_after(context.now.moment, replica, context.settings.hedge_after) * 2);
        self.late_at = (!self.request.operation.writes()).then_some(late_at);
        let remaining = self.deadline.since(context.now.moment);
        let request = ReplicaRequest::Forward { request: self.request.clone(), remaining };
        context.ask(vec![replica], 0, request);
    }

    /// Takes an answer. For a read any of those asked may give it.
    pub(super) fn answer(&mut self, from: NodeId, answer: Answer, context: &mut Context<'_>) {
        let current = self.asked == Some(from);
        let was_open = self.open.iter().position(|replica| *replica == from).map(|at| self.open.swap_remove(at));
        match answer {
            Answer::Response(ReplicaResponse::Outcome(outcome)) => context.finish(outcome),
            // The last of those that were late has failed, and nobody else is left.
            _ if was_open.is_some() && self.asked.is_none() => self.ask_next(context),
            _ if !current => {}
            Answer::Response(ReplicaResponse::Refused(refusal)) => {
                self.refusal = Some(refusal);
                self.ask_next(context);
            }
            Answer::Response(ReplicaResponse::Unsupported) | Answer::NotSent => self.ask_next(context),
            Answer::Response(_) | Answer::Lost if self.request.operation.writes() => context.finish(Err(self.doubt())),
            Answer::Response(_) | Answer::Lost => self.ask_next(context),
        }
    }

    /// Asks a further replica if the first is late and asking twice is harmless.
    pub(super) fn wake(&mut self, context: &mut Context<'_>) {
        if self.late_at.is_some_and(|at| at <= context.now.moment) {
            self.late_at = None;
            if let Some(late) = self.asked {
                context.effects.push(Effect::Late(late));
            }
            if !self.candidates.is_empty() {
                self.open.extend(self.asked);
                self.ask_next(context);
            }
        }
    }

    /// When [`Forward::wake`] is due.
    pub(super) fn next_timeout(&self) -> Option<Moment> {
        self.late_at
    }

    /// The time is over.
    pub(super) fn time_out(&self) -> Failure {
        if self.request.operation.writes() { self.doubt() } else { Failure::TimedOut { answered: 0, needed: 1 } }
    }

    fn doubt(&self) -> Failure {
        Failure::InDoubt { acknowledged: 0, needed: 1 }
    }
}
