//! A few nodes on a network that does what it is told.

#[path = "membership_alone_tests.rs"]
mod alone;

use std::collections::{BTreeMap, VecDeque};

use super::*;
use crate::types::{Epoch, Incarnation};

const DELAY: Duration = Duration::from_millis(1);

fn node(number: u32) -> NodeId {
    NodeId::new(number).expect("not zero")
}

struct Host {
    machine: Option<Membership>,
    incarnation: u64,
    linked: BTreeSet<NodeId>,
    wanted: BTreeSet<NodeId>,
}

/// Nodes 1 to N, in one zone each three.
struct Cluster {
    now: Moment,
    k_list: usize,
    roster: Arc<Roster>,
    hosts: BTreeMap<NodeId, Host>,
    due: BTreeMap<(Moment, u64), (NodeId, MembershipInput)>,
    number: u64,
    /// Attempts to connect that are under way and will fail.
    dialing: BTreeSet<(NodeId, NodeId)>,
    /// Pairs that cannot talk.
    cuts: BTreeSet<(NodeId, NodeId)>,
    changes: Vec<(Moment, NodeId, MemberChange)>,
    epochs: BTreeSet<NodeId>,
}

impl Cluster {
    fn new(nodes: u32, k_list: usize) -> Cluster {
        let roster = Arc::new(Roster::new((1..=nodes).map(|number| (node(number), (number % 3) as u16))));
        let mut cluster = Cluster {
            now: Moment(1),
            k_list,
            roster,
            hosts: BTreeMap::new(),
            due: BTreeMap::new(),
            number: 0,
            dialing: BTreeSet::new(),
            cuts: BTreeSet::new(),
            changes: Vec::new(),
            epochs: BTreeSet::new(),
        };
        (1..=nodes).for_each(|number| cluster.start(node(number)));
        cluster
    }

    fn start(&mut self, id: NodeId) {
        let incarnation = self.hosts.get(&id).map_or(1, |host| host.incarnation + 1);
        let settings = MembershipSettings {
            me: id,
            incarnation: Incarnation(incarnation),
            k_list: self.k_list,
            seed: u64::from(id.number()) * 1_000 + incarnation,
            times: MembershipTimes::default(),
        };
        let machine = Membership::new(self.now, settings, self.roster.clone());
        let host = Host { machine: Some(machine), incarnation, linked: BTreeSet::new(), wanted: BTreeSet::new() };
        self.hosts.insert(id, host);
    }

    fn kill(&mut self, id: NodeId) {
        let host = self.hosts.get_mut(&id).expect("it exists");
        host.machine = None;
        for peer in std::mem::take(&mut host.linked) {
            self.unlink(peer, id);
        }
    }

    fn unlink(&mut self, at: NodeId, peer: NodeId) {
        if self.hosts.get_mut(&at).expect("it exists").linked.remove(&peer) {
            self.post(Duration::from_millis(500), at, MembershipInput::LinkDown { peer, parted: false });
        }
    }

    fn cut(&mut self, one: NodeId, other: NodeId) {
        self.cuts.extend([(one, other), (other, one)]);
        self.unlink(one, other);
        self.unlink(other, one);
    }

    fn post(&mut self, delay: Duration, to: NodeId, input: MembershipInput) {
        self.number += 1;
        self.due.insert((self.now.plus(delay), self.number), (to, input));
    }

    fn alive(&self, id: NodeId) -> bool {
        self.hosts[&id].machine.is_some()
    }

    fn step(&mut self, id: NodeId, input: MembershipInput) {
        let now = self.now;
        if let MembershipInput::Unreachable { peer } = input {
            self.dialing.remove(&(id, peer));
        }
        let Some(machine) = self.hosts.get_mut(&id).and_then(|host| host.machine.as_mut()) else { return };
        let mut actions = Vec::new();
        machine.handle(now, input, &mut actions);
        machine.check_invariants();
        for action in actions {
            match action {
                MembershipAction::Gossip { to, gossip } => {
                    if self.hosts[&id].linked.contains(&to) {
                        self.post(DELAY, to, MembershipInput::Gossip { from: id, gossip });
                    }
                }
                MembershipAction::Probe { to, probe } => {
                    if self.hosts[&id].linked.contains(&to) {
                        self.post(DELAY, to, MembershipInput::Probe { from: id, probe });
                    }
                }
                MembershipAction::Links(wanted) => {
                    self.hosts.get_mut(&id).expect("it exists").wanted = wanted;
                }
                MembershipAction::EpochHeard { .. } => {
                    self.epochs.insert(id);
                }
                MembershipAction::Changed(change) => self.changes.push((now, id, change)),
            }
        }
    }

    fn connect(&mut self) {
        let ids: Vec<NodeId> = self.hosts.keys().copied().collect();
        for id in ids.iter().copied().filter(|id| self.alive(*id)).collect::<Vec<_>>() {
            let missing: Vec<NodeId> = self.hosts[&id].wanted.difference(&self.hosts[&id].linked).copied().collect();
            for peer in missing {
                if self.alive(peer) && !self.cuts.contains(&(id, peer)) {
                    for (one, other) in [(id, peer), (peer, id)] {
                        let incarnation = Incarnation(self.hosts[&other].incarnation);
                        self.hosts.get_mut(&one).expect("it exists").linked.insert(other);
                        self.post(DELAY, one, MembershipInput::LinkUp { peer: other, incarnation });
                    }
                } else if self.dialing.insert((id, peer)) {
                    self.post(Duration::from_secs(1), id, MembershipInput::Unreachable { peer });
                }
            }
        }
    }

    fn run(&mut self, time: Duration) {
        let end = self.now.plus(time);
        while self.now < end {
            self.now = self.now.plus(Duration::from_millis(1));
            while let Some(entry) = self.due.first_entry().filter(|entry| entry.key().0 <= self.now) {
                let (to, input) = entry.remove();
                self.step(to, input);
            }
            let ids: Vec<NodeId> = self.hosts.keys().copied().collect();
            for id in ids {
                let due = self.hosts[&id].machine.as_ref().is_some_and(|machine| machine.next_timeout() <= self.now);
                if due {
                    self.step(id, MembershipInput::Tick);
                }
            }
            if self.now.0 % 10_000 < 1_000 {
                self.connect();
            }
        }
    }

    fn machine(&self, id: NodeId) -> &Membership {
        self.hosts[&id].machine.as_ref().expect("it runs")
    }

    fn living(&self) -> Vec<NodeId> {
        self.hosts.keys().copied().filter(|id| self.alive(*id)).collect()
    }

    /// Whether all that live are one overlay of symmetric links.
    fn is_whole(&self) -> bool {
        let living = self.living();
        let mut reached: BTreeSet<NodeId> = living.first().copied().into_iter().collect();
        let mut next: VecDeque<NodeId> = reached.iter().copied().collect();
        while let Some(at) = next.pop_front() {
            for peer in self.machine(at).active() {
                if self.alive(peer) && self.machine(peer).active().any(|node| node == at) && reached.insert(peer) {
                    next.push_back(peer);
                }
            }
        }
        reached.len() == living.len()
    }

    fn held_down(&self, subject: NodeId) -> usize {
        let others = self.living().into_iter().filter(|id| *id != subject);
        others.filter(|id| self.machine(*id).health(subject) == Health::Down).count()
    }
}

#[test]
fn twelve_nodes_with_five_peers_each_become_one_overlay() {
    let mut cluster = Cluster::new(12, 5);
    cluster.run(Duration::from_secs(30));
    assert!(cluster.is_whole());
    for id in cluster.living() {
        let machine = cluster.machine(id);
        let (active, passive) = (machine.active().count(), machine.passive().count());
        assert!(active + passive <= 5, "{id}: {active} + {passive}");
        assert!(active >= 3, "{id} has {active} neighbours");
    }
    assert_eq!(cluster.changes, [], "nothing was wrong");
}

#[test]
fn three_nodes_watch_each_other() {
    let mut cluster = Cluster::new(3, 24);
    cluster.run(Duration::from_secs(5));
    for id in cluster.living() {
        assert_eq!((cluster.machine(id).active().count(), cluster.machine(id).k_list()), (2, 2));
    }
    cluster.kill(node(2));
    cluster.run(Duration::from_secs(6));
    assert_eq!(cluster.held_down(node(2)), 2);
    assert_eq!(cluster.machine(node(1)).health(node(3)), Health::Alive);
}

#[test]
fn the_death_of_one_is_known_to_all_and_its_return_too() {
    let mut cluster = Cluster::new(12, 5);
    cluster.run(Duration::from_secs(30));
    cluster.kill(node(7));
    cluster.run(Duration::from_secs(6));
    assert_eq!(cluster.held_down(node(7)), 11);
    assert!(cluster.is_whole());
    let accused: BTreeSet<NodeId> = cluster
        .changes
        .iter()
        .map(|(_, _, change)| match change {
            MemberChange::Own { member, .. } | MemberChange::Cluster { member, .. } => *member,
        })
        .collect();
    assert_eq!(accused, [node(7)].into(), "nobody else was accused");
    cluster.run(Duration::from_secs(60));
    assert_eq!(cluster.held_down(node(7)), 11, "the dead stay known");
    cluster.start(node(7));
    cluster.run(Duration::from_secs(2));
    assert_eq!(cluster.held_down(node(7)), 0);
    cluster.run(Duration::from_secs(10));
    assert!(cluster.is_whole());
}

#[test]
fn two_sides_find_each_other_again() {
    let mut cluster = Cluster::new(12, 5);
    cluster.run(Duration::from_secs(30));
    for left in 1..=6 {
        for right in 7..=12 {
            cluster.cut(node(left), node(right));
        }
    }
    cluster.run(Duration::from_secs(30));
    for id in cluster.living() {
        let down = cluster.machine(id).down().count();
        assert_eq!(down, 6, "{id} holds {down} nodes for down");
    }
    cluster.cuts.clear();
    cluster.run(Duration::from_secs(15));
    for id in cluster.living() {
        assert_eq!(cluster.machine(id).down().collect::<Vec<_>>(), [], "{id} holds somebody for down");
    }
    assert!(cluster.is_whole());
}

#[test]
fn a_rumour_reaches_everybody_once() {
    let mut cluster = Cluster::new(50, 24);
    cluster.run(Duration::from_secs(20));
    cluster.step(node(9), MembershipInput::Epoch(Epoch(2)));
    cluster.run(Duration::from_secs(1));
    assert_eq!(cluster.epochs.len(), 49);
    assert!(cluster.is_whole());
}

/// Runs so many nodes with such a K for a while; nothing may go wrong, and no view be too large.
fn run_quietly(nodes: u32, k_list: usize, time: Duration) -> Cluster {
    let mut cluster = Cluster::new(nodes, k_list);
    cluster.run(time);
    for id in cluster.living() {
        let machine = cluster.machine(id);
        let known = machine.active().chain(machine.passive()).count();
        assert!(known <= k_list && known < nodes as usize, "{id} of {nodes} knows {known}, K = {k_list}");
        assert!(machine.active().count() <= machine.active_capacity());
    }
    assert_eq!(cluster.changes, [], "nothing was wrong with {nodes} nodes and K = {k_list}");
    cluster
}

#[test]
fn clusters_of_any_size_become_one_overlay() {
    for (nodes, k_list) in [(2, 1), (2, 24), (3, 2), (3, 24), (5, 5), (5, 24), (10, 5), (10, 24), (25, 5), (25, 24)] {
        let cluster = run_quietly(nodes, k_list, Duration::from_secs(20));
        assert!(cluster.is_whole(), "{nodes} nodes, K = {k_list}");
    }
}

#[test]
fn a_k_that_is_too_small_for_an_overlay_harms_nobody() {
    for (nodes, k_list) in [(1, 24), (3, 1), (5, 1), (5, 2), (10, 2)] {
        run_quietly(nodes, k_list, Duration::from_secs(10));
    }
}

#[test]
fn of_two_nodes_one_judges_the_other() {
    let mut cluster = Cluster::new(2, 24);
    cluster.run(Duration::from_secs(3));
    cluster.kill(node(2));
    cluster.run(Duration::from_secs(15));
    assert_eq!(cluster.held_down(node(2)), 1);
    cluster.start(node(2));
    cluster.run(Duration::from_secs(3));
    assert_eq!(cluster.held_down(node(2)), 0);
    assert!(cluster.is_whole());
}
