//! One host: its process, its connections, what it has sent.

use crate::types::Incarnation;

use super::member::{HostIndex, Member};
use super::world::Event;

/// What a host's sockets hold while its process stands still, in bytes.
const BACKLOG_BYTES: usize = 64 * 1024;
/// Frames that wait in its connections, at most: more would be held back by flow control.
const BACKLOG_EVENTS: usize = 16 * 1024;

/// Whether the process runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Running {
    Up,
    Paused,
    Dead,
}

/// What a host has sent since the world began.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Traffic {
    pub(super) datagrams: u64,
    pub(super) frames: u64,
    /// Frames that were part of a broadcast.
    pub(super) spreading: u64,
    /// All bytes, with what carries them.
    pub(super) bytes: u64,
}

/// An attempt to connect, or the pause before the next.
#[derive(Clone, Copy, Debug)]
pub(super) struct Dial {
    /// Which it is: what was begun for one that is given up means nothing to the next.
    number: u32,
    pub(super) peer: HostIndex,
    pub(super) backoff: u64,
}

pub(super) struct Host<M: Member> {
    pub(super) member: Option<M>,
    pub(super) running: Running,
    pub(super) incarnation: Incarnation,
    /// Grows when the process dies, stops, or goes on: timers of before are void.
    pub(super) stamp: u32,
    /// When its next tick is scheduled.
    pub(super) tick_at: u64,
    /// Which of those that were scheduled that is; the others are void.
    pub(super) tick_number: u32,
    pub(super) links: Vec<(HostIndex, u32)>,
    /// In ascending order.
    pub(super) wanted: Vec<HostIndex>,
    pub(super) dials: Vec<Dial>,
    dials_begun: u32,
    pub(super) traffic: Traffic,
    pub(super) backlog: Vec<Event<M::Datagram, M::Frame>>,
    backlog_bytes: usize,
    /// Ticks at this moment: a member that asks for one again and again stands still.
    ticks: (u64, u32),
}

impl<M: Member> Host<M> {
    pub(super) fn new() -> Host<M> {
        Host {
            member: None,
            running: Running::Dead,
            incarnation: Incarnation(0),
            stamp: 0,
            tick_at: u64::MAX,
            tick_number: 0,
            links: Vec::new(),
            wanted: Vec::new(),
            dials: Vec::new(),
            dials_begun: 0,
            traffic: Traffic::default(),
            backlog: Vec::new(),
            backlog_bytes: 0,
            ticks: (0, 0),
        }
    }

    /// It dies, stops or goes on: no timer of before means anything.
    pub(super) fn turn(&mut self, running: Running) {
        self.running = running;
        (self.stamp, self.tick_at, self.tick_number) = (self.stamp + 1, u64::MAX, self.tick_number + 1);
    }

    pub(super) fn is_up(&self) -> bool {
        self.running == Running::Up
    }

    pub(super) fn begin_dial(&mut self, peer: HostIndex) -> u32 {
        self.dials_begun += 1;
        self.dials.push(Dial { number: self.dials_begun, peer, backoff: 0 });
        self.dials_begun
    }

    pub(super) fn dial(&mut self, number: u32) -> Option<&mut Dial> {
        self.dials.iter_mut().find(|dial| dial.number == number)
    }

    pub(super) fn wants(&self, peer: HostIndex) -> bool {
        self.wanted.binary_search(&peer).is_ok()
    }

    pub(super) fn link_to(&self, peer: HostIndex) -> Option<u32> {
        self.links.iter().find(|(other, _)| *other == peer).map(|(_, slot)| *slot)
    }

    pub(super) fn forget_link(&mut self, slot: u32) {
        self.links.retain(|(_, other)| *other != slot);
    }

    /// Keeps what has come while the process stands still; datagrams only as the socket holds them.
    pub(super) fn keep(&mut self, event: Event<M::Datagram, M::Frame>) {
        if let Event::Datagram { datagram, .. } = &event {
            let bytes = M::datagram_bytes(datagram);
            if self.backlog_bytes + bytes > BACKLOG_BYTES {
                return;
            }
            self.backlog_bytes += bytes;
        }
        if self.backlog.len() < BACKLOG_EVENTS {
            self.backlog.push(event);
        }
    }

    pub(super) fn take_backlog(&mut self) -> Vec<Event<M::Datagram, M::Frame>> {
        self.backlog_bytes = 0;
        std::mem::take(&mut self.backlog)
    }

    /// # Panics
    /// If the member has asked for a tick too often without time passing.
    pub(super) fn count_tick(&mut self, now: u64) {
        self.ticks = if self.ticks.0 == now { (now, self.ticks.1 + 1) } else { (now, 1) };
        assert!(self.ticks.1 < 1_000, "a member asks for one tick after the other, and no time passes");
    }
}
