//! What every replica knows of a key, for people: nothing is merged, nothing is mended.

use crate::types::{Key, KeyHistory, LocalHistory, NodeId, Partition, ReplicaHistory, Response};
use crate::wire::{ReplicaRequest, ReplicaResponse};

use super::context::{Answer, Context};

/// One question for a history under way.
#[derive(Clone, Debug)]
pub struct History {
    key: Key,
    partition: Partition,
    open: Vec<NodeId>,
    known: Vec<(NodeId, LocalHistory)>,
}

impl History {
    /// A question about a key.
    pub(super) fn new(key: Key, partition: Partition) -> History {
        History { key, partition, open: Vec::new(), known: Vec::new() }
    }

    /// Asks every replica that can be reached.
    pub(super) fn start(&mut self, context: &mut Context<'_>) {
        let replicas = context.map.assignment.replicas(self.partition).to_vec();
        self.open = replicas.into_iter().filter(|replica| context.is_reachable(*replica)).collect();
        if self.open.is_empty() {
            return self.finish(context);
        }
        context.ask(self.open.clone(), 0, ReplicaRequest::History { key: self.key.clone() });
    }

    /// Takes an answer.
    pub(super) fn answer(&mut self, from: NodeId, answer: Answer, context: &mut Context<'_>) {
        let Some(at) = self.open.iter().position(|node| *node == from) else { return };
        self.open.swap_remove(at);
        if let Answer::Response(ReplicaResponse::History(history)) = answer {
            self.known.push((from, history));
        }
        if self.open.is_empty() {
            self.finish(context);
        }
    }

    /// Answers with what is known, at the latest when the time is over.
    pub(super) fn finish(&mut self, context: &mut Context<'_>) {
        let replicas = context.map.assignment.replicas(self.partition).iter().map(|node| {
            let at = self.known.iter().position(|(other, _)| other == node);
            ReplicaHistory { node: *node, known: at.map(|at| self.known.swap_remove(at).1) }
        });
        let replicas = replicas.collect();
        let (epoch, token) = (context.map.epoch, self.key.token());
        context.finish(Ok(Response::History(KeyHistory { partition: self.partition, token, epoch, replicas })));
    }
}

#[cfg(test)]
#[path = "history_tests.rs"]
mod tests;
