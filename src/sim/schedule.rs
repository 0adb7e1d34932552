//! What happens next: events in the order of their time, and the one source of chance.
//!
//! Invariant: two events of the same moment happen in the order in which they were
//! scheduled, so a run depends on its seed alone.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::protocol::{LocalRead, StorageTicket};
use crate::types::{Incarnation, Moment};

use super::faults::Fault;

/// A server by its place in the world, from 0; its node id is one higher.
pub(super) type HostIndex = usize;

/// Something that is going to happen.
#[derive(Debug)]
pub(super) enum Event {
    /// A frame reaches its receiver, if its connection still stands.
    Frame { generation: u64, from: HostIndex, to: HostIndex, frame: Bytes },
    /// A datagram reaches its receiver, if its connection still stands.
    Datagram { generation: u64, from: HostIndex, to: HostIndex, content: Bytes },
    /// An end learns that it could not connect.
    Unreachable { end: HostIndex, peer: HostIndex },
    /// Two servers try to connect.
    Dial { a: HostIndex, b: HostIndex },
    /// An end learns that a connection stands.
    Connected { generation: u64, end: HostIndex, peer: HostIndex, incarnation: Incarnation },
    /// An end learns that a connection is gone.
    Disconnected { generation: u64, end: HostIndex, peer: HostIndex },
    /// A direction that was blocked at `since` has been silent for the idle timeout.
    Silent { from: HostIndex, to: HostIndex, since: Moment },
    /// A host of this life does something by itself.
    Host { host: HostIndex, life: u64, what: HostEvent },
    /// A client asks its next question.
    Ask { client: usize },
    /// A client has waited long enough for an answer.
    GiveUp { client: usize, operation: u64 },
    /// Something breaks, or is mended.
    Fault(Fault),
    /// The faults are over.
    Heal,
    /// What was broken has had time to recover: from here on every request must succeed.
    Live,
    /// The clients stop, and every key is read for the last time.
    LastReads,
    /// The run is over.
    End,
}

/// What a host does by itself.
#[derive(Debug)]
pub(super) enum HostEvent {
    /// The machine's timer is due.
    Tick,
    /// The committer takes what is waiting.
    Commit,
    /// The disk has synced the group.
    Synced,
    /// The store reads.
    Fetch { ticket: StorageTicket, read: LocalRead },
}

/// The events to come, the time, and chance.
pub(super) struct Schedule {
    pub(super) now: Moment,
    pub(super) rng: ChaCha8Rng,
    events: BTreeMap<(Moment, u64), Event>,
    next: u64,
}

impl Schedule {
    pub(super) fn new(seed: u64) -> Schedule {
        Schedule { now: Moment(0), rng: ChaCha8Rng::seed_from_u64(seed), events: BTreeMap::new(), next: 0 }
    }

    pub(super) fn at(&mut self, moment: Moment, event: Event) {
        self.events.insert((moment.max(self.now), self.next), event);
        self.next += 1;
    }

    pub(super) fn after(&mut self, delay: Duration, event: Event) {
        self.at(self.now.plus(delay), event);
    }

    /// The next event; the time is then its time.
    pub(super) fn next(&mut self) -> Option<Event> {
        let ((moment, _), event) = self.events.pop_first()?;
        self.now = moment;
        Some(event)
    }

    /// How many events there were or are going to be.
    pub(super) fn scheduled(&self) -> u64 {
        self.next
    }

    pub(super) fn chance(&mut self, probability: f64) -> bool {
        self.rng.random_bool(probability)
    }

    /// A duration between two others, all alike.
    pub(super) fn between(&mut self, least: Duration, most: Duration) -> Duration {
        let micros = |duration: Duration| u64::try_from(duration.as_micros()).expect("durations here are short");
        Duration::from_micros(self.rng.random_range(micros(least)..=micros(most).max(micros(least))))
    }

    /// A duration with this mean and a long tail, at most 20 times the mean.
    pub(super) fn around(&mut self, mean: Duration) -> Duration {
        let uniform: f64 = self.rng.random_range(1e-9..1.0);
        mean.mul_f64((-uniform.ln()).min(20.0))
    }

    /// One of `0..count`.
    pub(super) fn pick(&mut self, count: usize) -> usize {
        self.rng.random_range(0..count)
    }
}
