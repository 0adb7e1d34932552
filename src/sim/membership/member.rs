//! What a failure detector must offer to be simulated.
//!
//! Hosts are numbered from 0 here; the node id of a host is one higher.

use std::sync::Arc;

use crate::protocol::membership::{MembershipCounters, Roster};
use crate::types::{Epoch, Health, Incarnation, Life, Moment, NodeId};

/// A host by its place in the world.
pub(super) type HostIndex = u32;

/// The node of a host.
pub(super) fn node_of(host: HostIndex) -> NodeId {
    NodeId::new(host + 1).expect("one more than something is not zero")
}

/// The host of a node.
pub(super) fn host_of(node: NodeId) -> HostIndex {
    node.number() - 1
}

/// What a member is told when its process starts.
pub(super) struct Setup {
    pub(super) me: HostIndex,
    pub(super) incarnation: Incarnation,
    pub(super) k_list: usize,
    pub(super) seed: u64,
    pub(super) roster: Arc<Roster>,
}

/// What happens to a member.
#[derive(Debug)]
pub(super) enum Input<D, F> {
    Datagram { from: HostIndex, datagram: D },
    Frame { from: HostIndex, frame: F },
    LinkUp { peer: HostIndex, incarnation: Incarnation },
    LinkDown { peer: HostIndex, parted: bool },
    Unreachable { peer: HostIndex },
    Epoch(Epoch),
    Tick,
}

/// What a member wants done.
#[derive(Debug)]
pub(super) enum Output<D, F> {
    Datagram {
        to: HostIndex,
        datagram: D,
    },
    Frame {
        to: HostIndex,
        frame: F,
    },
    /// In ascending order.
    Links(Vec<HostIndex>),
    EpochHeard(Epoch),
    /// What it thinks itself of a peer.
    Own {
        member: HostIndex,
        life: Life,
        health: Health,
    },
    /// What it takes for the judgement of all.
    Cluster {
        member: HostIndex,
        life: Life,
        health: Health,
    },
}

/// What a member says to another in a datagram: its input and output speak of the same.
pub(super) type InputOf<M> = Input<<M as Member>::Datagram, <M as Member>::Frame>;
/// See [`InputOf`].
pub(super) type OutputOf<M> = Output<<M as Member>::Datagram, <M as Member>::Frame>;

/// A failure detector on one host.
pub(super) trait Member: Sized {
    type Datagram;
    type Frame;

    /// Whether it speaks over connections only. If not, datagrams go to anybody at any time.
    const LINKED: bool;
    /// Whether it spreads epochs.
    const BROADCASTS: bool;

    fn start(now: Moment, setup: &Setup) -> Self;
    fn handle(&mut self, now: Moment, input: InputOf<Self>, outputs: &mut Vec<OutputOf<Self>>);
    fn next_timeout(&self) -> Moment;

    /// The bytes of a datagram, without what carries it.
    fn datagram_bytes(datagram: &Self::Datagram) -> usize;
    /// A frame again, and its bytes, without what carries it.
    fn measured(frame: Self::Frame) -> (Self::Frame, usize);
    /// Whether a frame is part of a broadcast.
    fn spreads(frame: &Self::Frame) -> bool;

    /// Whom it watches.
    fn active(&self) -> impl Iterator<Item = HostIndex> + '_;
    /// Whom it could watch.
    fn passive(&self) -> impl Iterator<Item = HostIndex> + '_;
    /// Room in the active view, and in both.
    fn capacity(&self) -> (usize, usize);
    /// Whether it holds a member for down.
    fn holds_down(&self, member: HostIndex) -> bool;
    fn counters(&self) -> MembershipCounters;
    fn state_entries(&self) -> usize;
    /// # Panics
    /// If an invariant is broken.
    fn check_invariants(&self);
}
