//! About how many live keys the cluster holds: every member's own estimate, by copies.

use crate::types::{NodeId, Response};
use crate::wire::{ReplicaRequest, ReplicaResponse};

use super::context::{Answer, Context};

/// One count under way.
#[derive(Clone, Debug, Default)]
pub struct Count {
    asked: Vec<NodeId>,
    answered: u64,
    copies: u64,
}

impl Count {
    /// Asks every member that can be reached.
    pub(super) fn start(&mut self, context: &mut Context<'_>) {
        let members = context.map.members.keys().copied();
        self.asked = members.filter(|member| context.is_reachable(*member)).collect();
        self.answered = 0;
        self.copies = 0;
        context.ask(self.asked.clone(), 0, ReplicaRequest::Statistics);
    }

    /// Takes an answer.
    pub(super) fn answer(&mut self, from: NodeId, answer: Answer, context: &mut Context<'_>) {
        let Some(position) = self.asked.iter().position(|node| *node == from) else { return };
        self.asked.swap_remove(position);
        if let Answer::Response(ReplicaResponse::Statistics(statistics)) = answer {
            self.answered += 1;
            self.copies += statistics.live_keys;
        }
        if self.asked.is_empty() {
            self.finish(context);
        }
    }

    /// Answers with what is known: those that did not answer are taken for average.
    pub(super) fn finish(&self, context: &mut Context<'_>) {
        let members = context.map.members.len() as u64;
        let copies_per_key = u64::from(context.map.replication_factor).min(members).max(1);
        let scaled = u128::from(self.copies) * u128::from(members) / u128::from(self.answered.max(1));
        let keys = scaled.div_ceil(u128::from(copies_per_key));
        context.finish(Ok(Response::Count(u64::try_from(keys).unwrap_or(u64::MAX))));
    }
}
