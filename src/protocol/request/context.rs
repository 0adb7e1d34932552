//! What a request sees of its node, and how it makes itself heard.

use std::time::Duration;

use crate::protocol::io::NodeSettings;
use crate::protocol::peers::PeerTable;
use crate::types::{
    ClusterMap, Counter, Dot, Failure, HybridClock, Moment, NodeId, Now, Outcome, Partition, Refusal, Stamp, Timestamp,
};
use crate::wire::{ReplicaRequest, ReplicaResponse};

/// What a request wants done.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Effect {
    /// Ask these replicas; this node may be among them.
    Ask {
        /// Whom.
        to: Vec<NodeId>,
        /// Comes back with the answer, so that late answers to earlier questions are told apart.
        phase: u8,
        /// What.
        request: ReplicaRequest,
    },
    /// A replica was asked and its answer is late.
    Late(NodeId),
    /// The answer for the client; the request is over.
    Finish(Outcome),
}

/// What came of asking a replica.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Answer {
    /// It answered.
    Response(ReplicaResponse),
    /// It certainly never saw the question.
    NotSent,
    /// The connection is gone; it may have seen the question.
    Lost,
}

/// The numbers that this actor's dots have reached, per partition.
#[derive(Clone, Debug, Default)]
pub struct DotCounters(Vec<Counter>);

impl DotCounters {
    /// The next number in a partition. No number is given twice.
    pub fn next(&mut self, partition: Partition) -> Counter {
        let index = usize::from(partition.0);
        if self.0.len() <= index {
            self.0.resize(index + 1, Counter(0));
        }
        self.0[index] = self.0[index].next();
        self.0[index]
    }
}

/// What a request sees of its node during one step.
pub struct Context<'a> {
    /// The time.
    pub now: Now,
    /// The map of the newest epoch known.
    pub map: &'a ClusterMap,
    /// The node's settings.
    pub settings: &'a NodeSettings,
    /// What is known of the peers.
    pub peers: &'a PeerTable,
    /// The node's clock.
    pub clock: &'a mut HybridClock,
    /// The node's dots.
    pub dots: &'a mut DotCounters,
    /// What the request wants done.
    pub effects: &'a mut Vec<Effect>,
}

impl Context<'_> {
    /// This node.
    pub fn me(&self) -> NodeId {
        self.settings.actor.node
    }

    /// Whether a node can be asked at all.
    pub fn is_reachable(&self, node: NodeId) -> bool {
        node == self.me() || self.peers.is_connected(node)
    }

    /// How many of these nodes can be asked.
    pub fn reachable(&self, nodes: &[NodeId]) -> usize {
        nodes.iter().filter(|node| self.is_reachable(**node)).count()
    }

    /// Asks replicas.
    pub fn ask(&mut self, to: Vec<NodeId>, phase: u8, request: ReplicaRequest) {
        if !to.is_empty() {
            self.effects.push(Effect::Ask { to, phase, request });
        }
    }

    /// Answers the client.
    pub fn finish(&mut self, outcome: Outcome) {
        self.effects.push(Effect::Finish(outcome));
    }

    /// Answers the client that nothing was done.
    pub fn refuse(&mut self, refusal: Refusal) {
        self.finish(Err(Failure::NotApplied(refusal)));
    }

    /// A stamp above everything that this node has given or seen.
    pub fn new_stamp(&mut self, partition: Partition) -> Stamp {
        let timestamp = self.clock.tick(self.now.wall);
        self.stamp_at(partition, timestamp)
    }

    /// A stamp at a given time, under a new dot.
    pub fn stamp_at(&mut self, partition: Partition, timestamp: Timestamp) -> Stamp {
        let dot = Dot { actor: self.settings.actor, counter: self.dots.next(partition) };
        Stamp { timestamp, dot }
    }

    /// When an answer of this replica counts as late.
    pub fn late_at(&self, replica: NodeId) -> Moment {
        self.now.moment.plus(self.late_after(replica))
    }

    fn late_after(&self, replica: NodeId) -> Duration {
        self.peers.p95(replica, self.settings.hedge_after)
    }
}

/// The number of replicas as messages carry it.
pub(super) fn count(number: usize) -> u8 {
    u8::try_from(number).unwrap_or(u8::MAX)
}
