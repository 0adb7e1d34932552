//! Connections between hosts, as QUIC gives them.
//!
//! A connection stands at each end for itself: an end that has heard nothing for the idle
//! timeout gives it up and says nothing; the other learns of it by its own silence, or by
//! the stateless reset that answers what it sends next.
//!
//! Keep-alives are not simulated where nothing can be lost: a connection is only watched
//! while a loss, a pause, or a death makes a difference to it.

use super::member::HostIndex;

/// An end that hears nothing for so long gives the connection up, in microseconds.
pub(super) const IDLE_TIMEOUT_US: u64 = 3_000_000;
/// How often each end sends something just to be heard.
pub(super) const KEEP_ALIVE_US: u64 = 1_000_000;
/// A connection that neither end wants is closed when it was not used for so long.
pub(super) const UNUSED_US: u64 = 30_000_000;
/// A handshake that takes longer has failed.
pub(super) const HANDSHAKE_US: u64 = 1_000_000;
/// The longest pause before the next attempt to connect.
pub(super) const LONGEST_BACKOFF_US: u64 = 500_000;

/// Which connection, among those that had its place before.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct LinkName {
    pub(super) slot: u32,
    pub(super) generation: u32,
}

/// One connection.
#[derive(Clone, Debug)]
pub(super) struct Link {
    pub(super) generation: u32,
    pub(super) hosts: [HostIndex; 2],
    /// Whether it stands, to the knowledge of each end.
    pub(super) up: [bool; 2],
    /// When each end has heard from the other, while the connection is watched.
    pub(super) heard: [u64; 2],
    /// For how many seconds nobody has acknowledged what each end sends.
    pub(super) silent: [u8; 2],
    /// No frame reaches this end before.
    pub(super) arrival: [u64; 2],
    /// When a frame or a datagram was sent last.
    pub(super) used: u64,
    pub(super) watched: bool,
    pub(super) closing: bool,
}

impl Link {
    /// Which end a host is.
    pub(super) fn end_of(&self, host: HostIndex) -> usize {
        usize::from(self.hosts[1] == host)
    }
}

/// All connections.
#[derive(Default)]
pub(super) struct Links {
    links: Vec<Link>,
    free: Vec<u32>,
}

impl Links {
    /// A connection that stands at both ends.
    pub(super) fn open(&mut self, hosts: [HostIndex; 2], now: u64) -> LinkName {
        let slot = self.free.pop().unwrap_or_else(|| {
            let generation = 0;
            let (up, heard, silent, arrival) = ([false; 2], [0; 2], [0; 2], [0; 2]);
            self.links.push(Link {
                generation,
                hosts,
                up,
                heard,
                silent,
                arrival,
                used: 0,
                watched: false,
                closing: false,
            });
            u32::try_from(self.links.len() - 1).expect("there are far fewer connections")
        });
        let link = &mut self.links[slot as usize];
        link.generation += 1;
        (link.hosts, link.up, link.heard, link.silent) = (hosts, [true; 2], [now; 2], [0; 2]);
        (link.arrival, link.used, link.watched, link.closing) = ([now; 2], now, false, false);
        LinkName { slot, generation: link.generation }
    }

    /// A connection that stands at one end at least.
    pub(super) fn get(&mut self, name: LinkName) -> Option<&mut Link> {
        let link = &mut self.links[name.slot as usize];
        (link.generation == name.generation && (link.up[0] || link.up[1])).then_some(link)
    }

    /// The connection in a place that a host has noted.
    pub(super) fn at(&mut self, slot: u32) -> &mut Link {
        &mut self.links[slot as usize]
    }

    pub(super) fn name(&self, slot: u32) -> LinkName {
        LinkName { slot, generation: self.links[slot as usize].generation }
    }

    /// One end knows of it no more; true if the other does.
    pub(super) fn leave(&mut self, slot: u32, end: usize) -> bool {
        let link = &mut self.links[slot as usize];
        debug_assert!(link.up[end], "an end leaves once");
        link.up[end] = false;
        if !link.up[1 - end] {
            // What is under way to it finds another generation, or nobody.
            link.generation += 1;
            self.free.push(slot);
        }
        link.up[1 - end]
    }
}
