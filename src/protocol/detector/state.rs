//! What the detector keeps of those that it watches, and of the probes that are under way.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::types::{Life, Moment, NodeId};
use crate::wire::ProbeId;

#[derive(Clone, Debug)]
pub(super) struct Watched {
    pub(super) life: Life,
    pub(super) suspected: Option<Suspicion>,
    pub(super) strikes: u32,
    /// When it is probed out of turn.
    pub(super) probe_at: Option<Moment>,
    /// Whether another observer accuses it.
    pub(super) accused: bool,
    /// Whether others wait for what is thought of it.
    pub(super) asked: bool,
    pub(super) round_trip: Option<Duration>,
    /// When a failed connection counted last.
    pub(super) not_reached_at: Option<Moment>,
}

#[derive(Clone, Debug)]
pub(super) struct Suspicion {
    pub(super) since: Moment,
    pub(super) confirmed_by: BTreeSet<NodeId>,
    pub(super) until: Moment,
}

/// A ping on the own behalf.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pinged {
    pub(super) peer: NodeId,
    pub(super) at: Moment,
    /// When others are asked, if they were not yet.
    pub(super) relays_at: Option<Moment>,
    pub(super) ends: Moment,
    pub(super) relays: u32,
    pub(super) nacks: u32,
    pub(super) failed: bool,
}

/// A ping on behalf of another.
#[derive(Clone, Copy, Debug)]
pub(super) struct Relayed {
    pub(super) asker: NodeId,
    pub(super) id: ProbeId,
    pub(super) subject: NodeId,
    pub(super) ends: Moment,
    pub(super) nacked: bool,
}
