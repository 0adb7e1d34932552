//! What a request sees of its node, and how it makes itself heard.

use std::time::Duration;

use crate::protocol::ClockWatch;
use crate::protocol::io::NodeSettings;
use crate::protocol::peers::PeerTable;
use crate::types::{
    ClusterMap, Counter, Dot, Failure, HybridClock, Key, Moment, NodeId, Now, Outcome, Partition, Record, Refusal,
    SeededBug, Stamp, Timestamp,
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
    /// Merge a record with what this node's own store holds, under the key's lock, which
    /// is let go of once the store has answered.
    AppendLocked {
        /// Comes back with the answer.
        phase: u8,
        /// The key.
        key: Key,
        /// The record.
        record: Record,
    },
    /// Let nobody else of this node change this key from what it holds; the request is told
    /// when it is its turn ([`super::Coordination::granted`]).
    Lock(Key),
    /// Make it possible to give higher timestamps.
    RaiseCeiling,
    /// So many replicas are sent what they lacked.
    Repairs(u64),
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
    /// Whether that clock may be trusted.
    pub watch: &'a ClockWatch,
    /// Up to where timestamps may be given: a later life begins above it.
    pub ceiling: Timestamp,
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

    /// Replicas are sent what they lacked.
    pub fn read_repairs(&mut self, replicas: usize) {
        self.effects.push(Effect::Repairs(replicas as u64));
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
    ///
    /// # Errors
    /// [`Refusal::ClockUnsure`] if this node's clock must not stamp anything;
    /// [`Refusal::Overloaded`] if its store lags so far behind that a later life might
    /// give the same timestamp.
    pub fn new_stamp(&mut self, partition: Partition) -> Result<Stamp, Refusal> {
        self.watch.check(self.now, self.map.members.len() == 1)?;
        if SeededBug::WallClockOnly.is_planted() {
            return Ok(self.stamp_at(partition, Timestamp::at(self.now.wall)));
        }
        match self.clock.tick_below(self.now.wall, self.ceiling) {
            Some(timestamp) => Ok(self.stamp_at(partition, timestamp)),
            None => {
                self.effects.push(Effect::RaiseCeiling);
                Err(Refusal::Overloaded)
            }
        }
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
        self.peers.late_after(self.now.moment, replica, self.settings.hedge_after)
    }
}

/// The number of replicas as messages carry it.
pub(super) fn count(number: usize) -> u8 {
    u8::try_from(number).unwrap_or(u8::MAX)
}
