//! Living by the newest cluster map.
//!
//! Invariant: the epoch of the map never goes back; a map is taken only if it is of the
//! same cluster and does not contradict itself. A question for a map that is not answered
//! in the time of a request is asked anew of whoever speaks next: no lost message can
//! leave a node behind while it hears from others.

use crate::protocol::io::Action;
use crate::types::{Epoch, Moment, NodeId, Now};
use crate::wire::{Message, ReplicaRequest, ReplicaResponse, RequestId};

use super::Node;

/// The name under which maps are fetched: no other question has it.
pub(super) const FETCH: RequestId = RequestId(u64::MAX);

/// What is known of epochs above the own.
#[derive(Debug, Default)]
pub(super) struct Epochs {
    /// Whom a newer map was asked of, and until when others are not.
    fetching: Option<(NodeId, Moment)>,
}

impl Epochs {
    /// The question to this peer may never be answered.
    pub(super) fn lost(&mut self, peer: NodeId) {
        if self.fetching.is_some_and(|(node, _)| node == peer) {
            self.fetching = None;
        }
    }
}

impl Node {
    /// A peer has spoken under some epoch: fetches its map if that is newer.
    pub(super) fn notice_epoch(&mut self, now: Now, from: NodeId, epoch: Epoch, actions: &mut Vec<Action>) {
        let waiting = self.epochs.fetching.is_some_and(|(_, until)| now.moment < until);
        if epoch <= self.map.epoch || waiting {
            return;
        }
        self.epochs.fetching = Some((from, now.moment.plus(self.settings.request_timeout)));
        let envelope = self.envelope(Message::Request { id: FETCH, request: ReplicaRequest::FetchMap });
        actions.push(Action::Send { to: vec![from], envelope });
    }

    /// The answer to a fetch has come.
    pub(super) fn take_map(&mut self, now: Now, from: NodeId, response: ReplicaResponse, actions: &mut Vec<Action>) {
        if self.epochs.fetching.is_none_or(|(node, _)| node != from) {
            return;
        }
        self.epochs.fetching = None;
        let ReplicaResponse::Map(map) = response else { return };
        let acceptable = map.cluster == self.map.cluster && map.epoch > self.map.epoch && map.validate().is_ok();
        if !acceptable || map.partitions != self.map.partitions {
            return;
        }
        self.map = map.clone();
        actions.push(Action::InstallMap(map));
        self.members_changed(now, actions);
        let numbers: Vec<u64> = self.active.keys().copied().collect();
        for number in numbers {
            self.step(now, number, actions, |coordination, context| coordination.replan(context));
        }
    }
}

#[cfg(test)]
#[path = "epochs_tests.rs"]
mod tests;
