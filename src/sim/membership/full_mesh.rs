//! A baseline: everybody pings everybody else, and judges by what it sees itself.
//!
//! Each interval every node pings all others; one that has answered nothing for three
//! intervals in a row is down, until something comes from it. Nothing is told to others,
//! so nobody can be accused by another; the price is N² datagrams an interval.

use std::time::Duration;

use crate::protocol::membership::MembershipCounters;
use crate::types::{Epoch, Health, Incarnation, Life, Load, Moment};
use crate::wire::{Datagram, Probe, ProbeId};

use super::member::{HostIndex, Input, InputOf, Member, Output, OutputOf, Setup};

const INTERVAL: Duration = Duration::from_millis(500);
/// Pings in a row that are missed before a peer is down.
const MISSES: u32 = 3;

#[derive(Clone, Copy, Default)]
struct Peer {
    incarnation: Incarnation,
    /// Rounds since it was heard.
    missed: u32,
    down: bool,
}

/// One node of the mesh.
pub(super) struct FullMesh {
    me: HostIndex,
    life: Life,
    peers: Vec<Peer>,
    round: u32,
    due: Moment,
    counters: MembershipCounters,
}

impl FullMesh {
    fn others(&self) -> impl Iterator<Item = HostIndex> + '_ {
        (0..self.peers.len() as u32).filter(|peer| *peer != self.me)
    }

    fn heard(&mut self, from: HostIndex, life: Life, outputs: &mut Vec<OutputOf<FullMesh>>) {
        let peer = &mut self.peers[from as usize];
        (peer.missed, peer.incarnation) = (0, life.incarnation);
        if std::mem::take(&mut peer.down) {
            judge(from, life.incarnation, Health::Alive, outputs);
        }
    }

    fn begin_round(&mut self, now: Moment, outputs: &mut Vec<OutputOf<FullMesh>>) {
        self.due = now.plus(INTERVAL);
        self.round += 1;
        for host in (0..self.peers.len() as u32).filter(|host| *host != self.me) {
            let peer = &mut self.peers[host as usize];
            // The ping of this round makes it one more; what came back took one away.
            if peer.missed >= MISSES && !peer.down {
                peer.down = true;
                self.counters.verdicts_down += 1;
                judge(host, peer.incarnation, Health::Down, outputs);
            }
            peer.missed = peer.missed.saturating_add(1);
            let ping = Probe::Ping { id: ProbeId(self.round), life: self.life, accused: None, neighbor: true };
            outputs.push(Output::Datagram { to: host, datagram: ping });
            self.counters.probes += 1;
        }
    }
}

/// Its own judgement is all that it has.
fn judge(member: HostIndex, incarnation: Incarnation, health: Health, outputs: &mut Vec<OutputOf<FullMesh>>) {
    let life = Life::begun(incarnation);
    outputs.push(Output::Own { member, life, health });
    outputs.push(Output::Cluster { member, life, health });
}

impl Member for FullMesh {
    type Datagram = Probe;
    type Frame = std::convert::Infallible;

    const LINKED: bool = false;
    const BROADCASTS: bool = false;

    fn start(now: Moment, setup: &Setup) -> FullMesh {
        // Rounds of different nodes begin at different times.
        let first = Duration::from_micros(setup.seed % 500_000);
        FullMesh {
            me: setup.me,
            life: Life::begun(setup.incarnation),
            peers: vec![Peer { incarnation: Incarnation(1), ..Peer::default() }; setup.roster.len()],
            round: 0,
            due: now.plus(first),
            counters: MembershipCounters::default(),
        }
    }

    fn handle(&mut self, now: Moment, input: InputOf<FullMesh>, outputs: &mut Vec<OutputOf<FullMesh>>) {
        match input {
            Input::Datagram { from, datagram: Probe::Ping { id, life, .. } } => {
                self.heard(from, life, outputs);
                let ack = Probe::Ack { id, life: self.life, load: Load::Normal, neighbor: true };
                outputs.push(Output::Datagram { to: from, datagram: ack });
            }
            Input::Datagram { from, datagram: Probe::Ack { life, .. } } => self.heard(from, life, outputs),
            Input::Tick if now >= self.due => self.begin_round(now, outputs),
            _ => {}
        }
    }

    fn next_timeout(&self) -> Moment {
        self.due
    }

    fn datagram_bytes(datagram: &Probe) -> usize {
        Datagram { epoch: Epoch(1), probe: *datagram }.encode().len()
    }

    fn measured(frame: Self::Frame) -> (Self::Frame, usize) {
        match frame {}
    }

    fn spreads(frame: &Self::Frame) -> bool {
        match *frame {}
    }

    fn active(&self) -> impl Iterator<Item = HostIndex> + '_ {
        self.others()
    }

    fn passive(&self) -> impl Iterator<Item = HostIndex> + '_ {
        std::iter::empty()
    }

    fn capacity(&self) -> (usize, usize) {
        (self.peers.len() - 1, self.peers.len() - 1)
    }

    fn holds_down(&self, member: HostIndex) -> bool {
        self.peers[member as usize].down
    }

    fn counters(&self) -> MembershipCounters {
        self.counters
    }

    fn state_entries(&self) -> usize {
        self.peers.len() - 1
    }

    fn check_invariants(&self) {
        assert!(self.peers.iter().all(|peer| !peer.down || peer.missed >= MISSES), "down although heard");
    }
}
