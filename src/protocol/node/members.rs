//! Membership, as this node lives it: gossip in and out, and which connections there are.
//!
//! Problem: a node talks with a handful of neighbours all the time, with those it shares
//! partitions with every second, and with anybody else when a request needs it.
//! Invariant: what is connected is what somebody wants: the active view and its contacts,
//! the replicas of this node's partitions, and whom a request waits for. A request that
//! needs a connection waits for it no longer than [`CONNECT_WAIT`], and is then begun with
//! what there is.
//!
//! What gossip says of a member is a hint: it changes whom a request asks first, never
//! whom it may ask. What a request needs to know, its own connections tell.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use crate::protocol::io::Action;
use crate::protocol::membership::{MemberChange, MembershipAction, MembershipInput, Roster};
use crate::types::{ClusterMap, Health, Load, Moment, NodeId, Now, Operation, Request, limits};
use crate::wire::{Datagram, Message};

use super::{Node, Origin};

/// How long a request waits for connections that it needs.
const CONNECT_WAIT: Duration = Duration::from_secs(1);
/// How long a connection that a request has asked for is wanted.
const WANTED_FOR: Duration = Duration::from_secs(10);
/// For how long a node that could not be connected with is not waited for again.
const UNREACHABLE_FOR: Duration = Duration::from_secs(5);

/// Which connections are wanted, and who waits for them.
#[derive(Debug, Default)]
pub(super) struct Links {
    /// Members that share a partition with this node.
    partners: BTreeSet<NodeId>,
    /// Members that a request has asked for, and until when.
    wanted: BTreeMap<NodeId, Moment>,
    /// Members that could not be connected with, and until when that is believed.
    unreachable: BTreeMap<NodeId, Moment>,
    waiting: Vec<Waiting>,
    told: Option<BTreeSet<NodeId>>,
}

#[derive(Debug)]
struct Waiting {
    origin: Origin,
    request: Request,
    deadline: Moment,
    until: Moment,
    missing: BTreeSet<NodeId>,
    /// Whether one of the missing is enough.
    any: bool,
}

impl Links {
    pub(super) fn new(map: &ClusterMap, me: NodeId) -> Links {
        Links { partners: partners(map, me), ..Links::default() }
    }

    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    pub(super) fn next_timeout(&self) -> Moment {
        let waiting = self.waiting.iter().map(|waiting| waiting.until).min();
        let wanted = self.wanted.values().copied().min();
        [waiting, wanted].into_iter().flatten().min().unwrap_or(Moment(u64::MAX))
    }
}

/// Who shares a partition with a node.
fn partners(map: &ClusterMap, me: NodeId) -> BTreeSet<NodeId> {
    let shared = map.assignment.0.iter().filter(|replicas| replicas.contains(&me));
    shared.flatten().copied().filter(|node| *node != me).collect()
}

impl Node {
    /// Membership takes in what happened.
    pub(super) fn gossip(&mut self, now: Now, input: MembershipInput, actions: &mut Vec<Action>) {
        let mut wanted = std::mem::take(&mut self.gossiped);
        self.membership.handle(now.moment, input, &mut wanted);
        self.carry_out_gossip(now, &mut wanted, actions);
        self.gossiped = wanted;
    }

    fn carry_out_gossip(&mut self, now: Now, wanted: &mut Vec<MembershipAction>, actions: &mut Vec<Action>) {
        for action in wanted.drain(..) {
            match action {
                MembershipAction::Gossip { to, gossip } => {
                    let envelope = self.envelope(Message::Gossip(gossip));
                    actions.push(Action::Send { to: vec![to], envelope });
                }
                MembershipAction::Probe { to, probe } => {
                    let datagram = Datagram { epoch: self.map.epoch, probe };
                    actions.push(Action::SendDatagram { to, datagram });
                }
                MembershipAction::Links(_) => self.tell_links(actions),
                MembershipAction::EpochHeard { epoch, from } => self.notice_epoch(now, from, epoch, actions),
                MembershipAction::Changed(change) => {
                    let (MemberChange::Own { member, .. } | MemberChange::Cluster { member, .. }) = change;
                    self.peers.hint(member, self.membership.health(member) != Health::Alive);
                    actions.push(Action::MemberChanged(change));
                }
            }
        }
    }

    /// Tells the driver which connections to keep, if that has changed.
    fn tell_links(&mut self, actions: &mut Vec<Action>) {
        let mut links = self.membership.links().clone();
        links.extend(&self.links.partners);
        links.extend(self.links.wanted.keys());
        links.retain(|node| self.map.members.contains_key(node));
        if self.links.told.as_ref() != Some(&links) {
            self.links.told = Some(links.clone());
            actions.push(Action::KeepConnected(links));
        }
    }

    /// The map has changed.
    pub(super) fn members_changed(&mut self, now: Now, actions: &mut Vec<Action>) {
        self.links.partners = partners(&self.map, self.settings.actor.node);
        let mut wanted = std::mem::take(&mut self.gossiped);
        self.membership.set_roster(now.moment, Arc::new(Roster::of(&self.map)), &mut wanted);
        self.membership.handle(now.moment, MembershipInput::Epoch(self.map.epoch), &mut wanted);
        self.carry_out_gossip(now, &mut wanted, actions);
        self.gossiped = wanted;
        self.tell_links(actions);
    }

    /// Does what is due.
    pub(super) fn tick_members(&mut self, now: Now, actions: &mut Vec<Action>) {
        let load = Load::of(self.active.len(), limits::REQUESTS_IN_FLIGHT);
        if std::mem::replace(&mut self.load, load) != load {
            self.gossip(now, MembershipInput::Load(load), actions);
        }
        if self.membership.next_timeout() <= now.moment {
            self.gossip(now, MembershipInput::Tick, actions);
        }
        let wanted = self.links.wanted.len();
        self.links.wanted.retain(|_, until| now.moment < *until);
        self.links.unreachable.retain(|_, until| now.moment < *until);
        if self.links.told.is_none() || self.links.wanted.len() < wanted {
            self.tell_links(actions);
        }
        self.begin_waiting(now, |waiting| waiting.until <= now.moment, actions);
    }

    /// A member that is wanted cannot be connected with.
    pub(super) fn unreachable(&mut self, now: Now, peer: NodeId, actions: &mut Vec<Action>) {
        self.links.unreachable.insert(peer, now.moment.plus(UNREACHABLE_FOR));
        self.gossip(now, MembershipInput::Unreachable { peer }, actions);
        self.links.waiting.iter_mut().for_each(|waiting| {
            waiting.missing.remove(&peer);
        });
        self.begin_waiting(now, |waiting| waiting.missing.is_empty(), actions);
    }

    /// A connection stands.
    pub(super) fn reachable(&mut self, peer: NodeId) {
        self.links.unreachable.remove(&peer);
    }

    /// A peer may be asked from now on.
    pub(super) fn may_be_asked(&mut self, now: Now, peer: NodeId, actions: &mut Vec<Action>) {
        self.begin_waiting(
            now,
            |waiting| {
                let waits_for_it = waiting.missing.remove(&peer);
                waiting.missing.is_empty() || (waits_for_it && waiting.any)
            },
            actions,
        );
    }

    fn begin_waiting(&mut self, now: Now, is_ready: impl FnMut(&mut Waiting) -> bool, actions: &mut Vec<Action>) {
        if self.links.waiting.is_empty() {
            return;
        }
        let ready: Vec<Waiting> = self.links.waiting.extract_if(.., is_ready).collect();
        for Waiting { origin, request, deadline, .. } in ready {
            self.begin_linked(now, origin, request, deadline, actions);
        }
    }

    /// Whom a request needs and this node has no connection with, as far as one can be hoped
    /// for; and whether one of them is enough.
    fn missing_links(&self, request: &Request) -> Option<(BTreeSet<NodeId>, bool)> {
        let replicas = match &request.operation {
            Operation::Scan { .. } | Operation::Count { .. } | Operation::History { .. } => {
                let missing: BTreeSet<NodeId> =
                    self.map.members.keys().copied().filter(|node| self.could_link(*node)).collect();
                return (!missing.is_empty()).then_some((missing, false));
            }
            Operation::Truncate { at, .. } => self.map.assignment.replicas(self.map.partitions.partition_of(*at)),
            other => self.map.replicas_of(other.key()?),
        };
        if replicas.iter().any(|node| *node == self.settings.actor.node || self.peers.is_connected(*node)) {
            return None;
        }
        let missing: BTreeSet<NodeId> = replicas.iter().copied().filter(|node| self.could_link(*node)).collect();
        (!missing.is_empty()).then_some((missing, true))
    }

    /// Whether there is no connection with a member, and nothing speaks against one.
    fn could_link(&self, node: NodeId) -> bool {
        let stranger = node != self.settings.actor.node && !self.peers.is_connected(node);
        // Partners are always wanted: where there is no connection, none can be had.
        stranger
            && !self.links.partners.contains(&node)
            && !self.links.unreachable.contains_key(&node)
            && self.membership.health(node) != Health::Down
    }

    /// Whether requests can hope to reach a member.
    pub(super) fn can_reach(&self, node: NodeId) -> bool {
        node == self.settings.actor.node || self.peers.is_connected(node) || self.could_link(node)
    }

    /// Begins a request, or lets it wait for the connections that it needs.
    pub(super) fn begin_with_links(
        &mut self,
        now: Now,
        origin: Origin,
        request: Request,
        deadline: Moment,
        actions: &mut Vec<Action>,
    ) {
        let Some((missing, any)) = self.missing_links(&request) else {
            return self.begin_linked(now, origin, request, deadline, actions);
        };
        let until = now.moment.plus(WANTED_FOR);
        missing.iter().for_each(|node| {
            self.links.wanted.insert(*node, until);
        });
        let until = deadline.min(now.moment.plus(CONNECT_WAIT));
        self.links.waiting.push(Waiting { origin, request, deadline, until, missing, any });
        self.tell_links(actions);
    }
}

#[cfg(test)]
#[path = "members_tests.rs"]
mod tests;
