//! What goes into the machine of membership and what comes out of it.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::types::{Epoch, Health, Incarnation, Life, Load, NodeId};
use crate::wire::{Gossip, Probe};

/// What the machine is told once.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MembershipSettings {
    /// This node.
    pub me: NodeId,
    /// Which of its starts this is.
    pub incarnation: Incarnation,
    /// K: how many peers it knows and watches at most. Where there are fewer others, fewer.
    pub k_list: usize,
    /// What its choices are drawn from.
    pub seed: u64,
    /// The times of the detector and the views.
    pub times: MembershipTimes,
}

/// The times of the detector and the views.
///
/// All of the detector's grow with this node's own ill health (Lifeguard, section IV-A).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MembershipTimes {
    /// Every so often one peer is probed, each in its turn (DESIGN section 6: 500 ms). A
    /// probe has failed when nothing has come back for so long. Lower it to notice a
    /// death earlier, at the price of more datagrams.
    pub probe_interval: Duration,
    /// After so long without an answer others are asked to probe. Above the usual round trip.
    pub probe_timeout: Duration,
    /// How long a suspect has to refute when others confirm the suspicion. Raise it
    /// where machines pause.
    pub suspicion_least: Duration,
    /// How long it has when nobody does.
    pub suspicion_most: Duration,
    /// How often peers are exchanged with others (HyParView: 10 s).
    pub shuffle_interval: Duration,
    /// How long an answer to a wish for a neighbour is waited for.
    pub neighbor_timeout: Duration,
}

impl Default for MembershipTimes {
    fn default() -> MembershipTimes {
        MembershipTimes {
            probe_interval: Duration::from_millis(500),
            probe_timeout: Duration::from_millis(200),
            suspicion_least: Duration::from_millis(1_500),
            suspicion_most: Duration::from_millis(7_500),
            shuffle_interval: Duration::from_secs(10),
            neighbor_timeout: Duration::from_secs(1),
        }
    }
}

/// What happens to the machine.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum MembershipInput {
    /// A frame of gossip has come.
    Gossip {
        /// Who sent it.
        from: NodeId,
        /// What.
        gossip: Gossip,
    },
    /// A datagram has come.
    Probe {
        /// Who sent it.
        from: NodeId,
        /// What.
        probe: Probe,
    },
    /// A connection to a peer stands. Comes again when it was replaced.
    LinkUp {
        /// Who.
        peer: NodeId,
        /// In which of its starts.
        incarnation: Incarnation,
    },
    /// The connection to a peer is gone.
    LinkDown {
        /// Who.
        peer: NodeId,
        /// Whether it was closed in good order, so that nothing follows from it.
        parted: bool,
    },
    /// A peer that is wanted ([`MembershipAction::Links`]) could not be connected with.
    Unreachable {
        /// Who.
        peer: NodeId,
    },
    /// This node lives by the map of this epoch now: everybody should know.
    Epoch(Epoch),
    /// How busy this node is.
    Load(Load),
    /// Time has passed.
    Tick,
}

/// What the driver must do, in this order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum MembershipAction {
    /// Send a frame, over the connection that stands. Lost if there is none.
    Gossip {
        /// To whom.
        to: NodeId,
        /// What.
        gossip: Gossip,
    },
    /// Send a datagram over the connection that stands. Lost if there is none.
    Probe {
        /// To whom.
        to: NodeId,
        /// What.
        probe: Probe,
    },
    /// Keep connections to these peers, and make those that are missing. Others are not
    /// needed here any more; they may be closed when they have been idle for a while.
    Links(BTreeSet<NodeId>),
    /// There is a map of this epoch, and this neighbour has heard of it.
    EpochHeard {
        /// Which.
        epoch: Epoch,
        /// Who told.
        from: NodeId,
    },
    /// What is held of a member has changed.
    Changed(MemberChange),
}

/// A change in what is held of a member.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MemberChange {
    /// What this node itself thinks of a peer that it watches.
    Own {
        /// Of whom.
        member: NodeId,
        /// In which of its lives.
        life: Life,
        /// What.
        health: Health,
    },
    /// What the cluster thinks, by the majority of the observers that were heard.
    Cluster {
        /// Of whom.
        member: NodeId,
        /// In which of its lives.
        life: Life,
        /// Alive or down.
        health: Health,
    },
}

/// What a machine has counted since it started.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct MembershipCounters {
    /// Pings sent on its own behalf.
    pub probes: u64,
    /// Of those, the ones that nobody answered for.
    pub probes_failed: u64,
    /// Probes that others were asked for.
    pub indirect_probes: u64,
    /// Suspicions that it raised itself.
    pub suspicions: u64,
    /// Of those, the ones that turned out false.
    pub suspicions_refuted: u64,
    /// Verdicts of its own that a peer is down.
    pub verdicts_down: u64,
    /// Times that it had to refute what was said of itself.
    pub refutations: u64,
    /// Changes of the active view.
    pub view_changes: u64,
    /// Rumours that it began.
    pub rumours_begun: u64,
    /// Rumours heard for the first time.
    pub rumours_heard: u64,
    /// Rumours heard again.
    pub rumours_repeated: u64,
    /// Rumours that had to be asked for, because the tree did not bring them.
    pub rumours_grafted: u64,
    /// Messages of nodes that are not members, or that contradict themselves; ignored.
    pub ignored: u64,
    /// Times that this node noticed that it had stood still.
    pub stalls: u64,
}
