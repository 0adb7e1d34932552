//! The machine of [`crate::protocol::membership`], as a member of the simulated world.

use std::collections::BTreeSet;

use crate::protocol::membership::{
    MemberChange, Membership, MembershipAction, MembershipCounters, MembershipInput, MembershipSettings,
    MembershipTimes,
};
use crate::types::{Epoch, Health, Moment, NodeId, Timestamp};
use crate::wire::{self, Datagram, Envelope, Gossip, Message, Probe};

use super::member::{HostIndex, Input, InputOf, Member, Output, OutputOf, Setup, host_of, node_of};

/// HyParView, SWIM with Lifeguard, Plumtree.
pub(super) struct Machine {
    machine: Membership,
    actions: Vec<MembershipAction>,
    k_list: usize,
}

impl Member for Machine {
    type Datagram = Probe;
    type Frame = Gossip;

    const LINKED: bool = true;
    const BROADCASTS: bool = true;

    fn start(now: Moment, setup: &Setup) -> Machine {
        let settings = MembershipSettings {
            me: node_of(setup.me),
            incarnation: setup.incarnation,
            k_list: setup.k_list,
            seed: setup.seed,
            times: MembershipTimes::default(),
        };
        let machine = Membership::new(now, settings, setup.roster.clone());
        Machine { machine, actions: Vec::new(), k_list: setup.k_list }
    }

    fn handle(&mut self, now: Moment, input: InputOf<Machine>, outputs: &mut Vec<OutputOf<Machine>>) {
        let input = match input {
            Input::Datagram { from, datagram } => MembershipInput::Probe { from: node_of(from), probe: datagram },
            Input::Frame { from, frame } => MembershipInput::Gossip { from: node_of(from), gossip: frame },
            Input::LinkUp { peer, incarnation } => MembershipInput::LinkUp { peer: node_of(peer), incarnation },
            Input::LinkDown { peer, parted } => MembershipInput::LinkDown { peer: node_of(peer), parted },
            Input::Unreachable { peer } => MembershipInput::Unreachable { peer: node_of(peer) },
            Input::Epoch(epoch) => MembershipInput::Epoch(epoch),
            Input::Tick => MembershipInput::Tick,
        };
        self.machine.handle(now, input, &mut self.actions);
        outputs.extend(self.actions.drain(..).map(|action| match action {
            MembershipAction::Gossip { to, gossip } => Output::Frame { to: host_of(to), frame: gossip },
            MembershipAction::Probe { to, probe } => Output::Datagram { to: host_of(to), datagram: probe },
            MembershipAction::Links(wanted) => Output::Links(hosts_of(&wanted)),
            MembershipAction::EpochHeard { epoch, .. } => Output::EpochHeard(epoch),
            MembershipAction::Changed(MemberChange::Own { member, life, health }) => {
                Output::Own { member: host_of(member), life, health }
            }
            MembershipAction::Changed(MemberChange::Cluster { member, life, health }) => {
                Output::Cluster { member: host_of(member), life, health }
            }
        }));
    }

    fn next_timeout(&self) -> Moment {
        self.machine.next_timeout()
    }

    fn datagram_bytes(datagram: &Probe) -> usize {
        Datagram { epoch: Epoch(1), probe: *datagram }.encode().len()
    }

    fn measured(frame: Gossip) -> (Gossip, usize) {
        let envelope = Envelope { epoch: Epoch(1), clock: Timestamp::default(), message: Message::Gossip(frame) };
        // The length that goes before each frame takes four bytes.
        let bytes = wire::encode(&envelope).len() + 4;
        let Message::Gossip(frame) = envelope.message else { unreachable!("it was put in above") };
        (frame, bytes)
    }

    fn spreads(frame: &Gossip) -> bool {
        matches!(frame, Gossip::Rumour { .. } | Gossip::Have { .. } | Gossip::Graft { .. } | Gossip::Prune)
    }

    fn active(&self) -> impl Iterator<Item = HostIndex> + '_ {
        self.machine.active().map(host_of)
    }

    fn passive(&self) -> impl Iterator<Item = HostIndex> + '_ {
        self.machine.passive().map(host_of)
    }

    fn capacity(&self) -> (usize, usize) {
        (self.machine.active_capacity(), self.k_list)
    }

    fn holds_down(&self, member: HostIndex) -> bool {
        self.machine.health(node_of(member)) == Health::Down
    }

    fn counters(&self) -> MembershipCounters {
        self.machine.counters()
    }

    fn state_entries(&self) -> usize {
        self.machine.state_entries()
    }

    fn check_invariants(&self) {
        self.machine.check_invariants();
    }
}

fn hosts_of(nodes: &BTreeSet<NodeId>) -> Vec<HostIndex> {
    nodes.iter().copied().map(host_of).collect()
}
