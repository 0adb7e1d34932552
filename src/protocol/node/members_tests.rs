//! Connections on demand, and what gossip changes for requests.

use super::super::tests::{NEVER, after, client, meet, settle, started_as};
use super::*;
use crate::protocol::io::Input;
use crate::protocol::request::fixture::{START, key, map, node, settings};
use crate::types::{
    ConsistencyLevel, Epoch, Failure, Incarnation, Key, Life, NamespaceId, Operation, Outcome, Refusal, Timestamp,
    Token,
};
use crate::wire::{Envelope, Gossip, ReplicaRequest, Rumour, RumourId};

fn nodes(numbers: impl IntoIterator<Item = u32>) -> BTreeSet<NodeId> {
    numbers.into_iter().map(node).collect()
}

/// Node 6, which shares the first of four partitions with 4 and 5; the others belong to 1, 2 and 3.
fn stranger() -> Node {
    let mut map = map(6, 3);
    map.assignment.0[0] = vec![node(4), node(5), node(6)];
    let mut settings = settings();
    settings.actor.node = node(6);
    settings.k_list = 1;
    Node::new(NEVER, map, settings)
}

/// Everything that the machine wants done.
fn raw(machine: &mut Node, ms: u64, input: Input) -> Vec<Action> {
    let mut actions = Vec::new();
    machine.handle(after(ms), input, &mut actions);
    machine.check_invariants();
    actions
}

/// A key of the partitions of 1, 2 and 3, or of the first one.
fn key_of(machine: &Node, first: bool) -> Key {
    let own = |key: &Key| machine.map.replicas_of(key).contains(&node(6));
    (0..100).map(|number| key(&format!("k{number}"))).find(|key| own(key) == first).expect("there are some")
}

fn get(machine: &Node, first: bool, timeout: Option<Duration>) -> Input {
    let operation = Operation::Get { key: key_of(machine, first) };
    client(Request { timeout, ..Request::new(operation, ConsistencyLevel::Quorum) })
}

fn kept(actions: &[Action]) -> Vec<&BTreeSet<NodeId>> {
    let kept = actions.iter().filter_map(|action| match action {
        Action::KeepConnected(nodes) => Some(nodes),
        _ => None,
    });
    kept.collect()
}

fn outcome(actions: &[Action]) -> Option<&Outcome> {
    actions.iter().find_map(|action| match action {
        Action::Reply { outcome, .. } => Some(outcome),
        _ => None,
    })
}

/// Whom a client's request is sent to.
fn asked(actions: &[Action]) -> Vec<NodeId> {
    let of_a_client = |request: &ReplicaRequest| {
        matches!(request, ReplicaRequest::Read { .. } | ReplicaRequest::Digest { .. } | ReplicaRequest::Forward { .. })
    };
    let sent = actions.iter().filter_map(|action| match action {
        Action::Send { to, envelope: Envelope { message: Message::Request { request, .. }, .. } } => {
            of_a_client(request).then_some(to)
        }
        _ => None,
    });
    sent.flatten().copied().collect()
}

fn not_gossip(actions: Vec<Action>) -> Vec<Action> {
    let keep = |action: &Action| !matches!(action, Action::KeepConnected(_) | Action::MemberChanged(_));
    actions.into_iter().filter(keep).collect()
}

/// A connection to a peer stands, and then both have met; what is wanted before and after that.
fn connect_slowly(machine: &mut Node, number: u32, ms: u64) -> (Vec<Action>, Vec<Action>) {
    let up = raw(machine, ms, Input::PeerUp { peer: node(number), incarnation: Incarnation(1) });
    let before = settle(machine, after(ms), not_gossip(up));
    let met = raw(machine, ms, meet(number, 10));
    (before, settle(machine, after(ms), not_gossip(met)))
}

fn unreachable(number: u32) -> Input {
    Input::Unreachable { peer: node(number) }
}

fn gossip(from: u32, gossip: Gossip) -> Input {
    let message = Message::Gossip(gossip);
    Input::Message { from: node(from), envelope: Envelope { epoch: Epoch(1), clock: Timestamp::default(), message } }
}

fn rumour(origin: u32, number: u64, rumour: Rumour) -> Input {
    let id = RumourId { origin: node(origin), incarnation: Incarnation(1), number };
    gossip(origin, Gossip::Rumour { id, hops: 1, rumour })
}

fn says_down(origin: u32, subject: u32) -> Input {
    let life = Life::begun(Incarnation(1));
    let opinion = Rumour::Opinion { subject: node(subject), life, health: Health::Down };
    rumour(origin, u64::from(subject), opinion)
}

/// Two observers say that somebody is down, and that stands.
fn make_down(machine: &mut Node, subject: u32, observers: [u32; 2], ms: u64) -> Vec<Action> {
    for observer in observers {
        raw(machine, ms, says_down(observer, subject));
    }
    raw(machine, ms + 400, Input::Tick)
}

#[test]
fn a_request_waits_for_a_connection_and_begins_when_a_replica_may_be_asked() {
    let mut machine = stranger();
    let request = get(&machine, false, None);
    assert_eq!(raw(&mut machine, 0, request), [Action::KeepConnected(nodes(1..=5))]);
    assert_eq!((machine.requests_under_way(), machine.links.waiting()), (0, 1));
    let (before, met) = connect_slowly(&mut machine, 2, 10);
    assert_eq!(asked(&before), [], "it is not known yet whether it may be asked");
    assert_eq!(asked(&met), [node(2)]);
    assert_eq!((machine.requests_under_way(), machine.links.waiting()), (1, 0));
    // From now on nobody waits.
    let request = get(&machine, false, None);
    let actions = raw(&mut machine, 20, request);
    assert_eq!((asked(&actions), kept(&actions)), (vec![node(2)], vec![]));
}

#[test]
fn a_request_begins_when_nobody_can_be_reached() {
    let mut machine = stranger();
    let request = get(&machine, false, None);
    raw(&mut machine, 0, request);
    for number in [3, 1] {
        assert_eq!(raw(&mut machine, 10, unreachable(number)), [], "another one may answer");
    }
    // One that nobody waits for, either.
    assert_eq!(raw(&mut machine, 10, unreachable(4)), []);
    let actions = raw(&mut machine, 10, unreachable(2));
    let refused = |actions: &[Action]| {
        matches!(outcome(actions), Some(Err(Failure::NotApplied(Refusal::TooFewReplicas { alive: 0, .. }))))
    };
    assert!(refused(&actions), "{actions:?}");
    // So it stays for a while: the next one does not wait ...
    for (ms, waits) in [(20, false), (5_009, false), (5_010, true)] {
        raw(&mut machine, ms, Input::Tick);
        let request = get(&machine, false, None);
        let actions = raw(&mut machine, ms, request);
        assert_eq!((refused(&actions), machine.links.waiting()), (!waits, usize::from(waits)), "{ms} ms: {actions:?}");
    }
    // ... unless there is a connection after all.
    let mut machine = stranger();
    for number in [1, 2, 3] {
        raw(&mut machine, 0, unreachable(number));
    }
    raw(&mut machine, 10, Input::PeerUp { peer: node(3), incarnation: Incarnation(1) });
    let request = get(&machine, false, None);
    raw(&mut machine, 20, request);
    assert_eq!(machine.links.waiting(), 1);
}

#[test]
fn a_request_waits_no_longer_than_a_second_and_no_longer_than_it_may() {
    for (timeout, waits) in [(None, 500), (Some(200), 200), (Some(1_500), 1_000), (Some(30_000), 1_000)] {
        let mut machine = stranger();
        let request = get(&machine, false, timeout.map(Duration::from_millis));
        raw(&mut machine, 0, request);
        assert_eq!(machine.links.next_timeout(), after(waits).moment, "{timeout:?}");
        assert_eq!(outcome(&raw(&mut machine, waits - 1, Input::Tick)), None, "{timeout:?}");
        assert_eq!(machine.links.waiting(), 1);
        let actions = raw(&mut machine, waits, Input::Tick);
        assert!(matches!(outcome(&actions), Some(Err(_))), "{timeout:?}: {actions:?}");
        assert_eq!(machine.links.waiting(), 0);
    }
}

#[test]
fn own_partitions_and_partners_are_not_waited_for() {
    let mut machine = stranger();
    let request = get(&machine, true, None);
    let actions = raw(&mut machine, 0, request);
    assert!(matches!(outcome(&actions), Some(Err(Failure::NotApplied(Refusal::TooFewReplicas { .. })))), "{actions:?}");
    assert_eq!(machine.links.waiting(), 0);
}

#[test]
fn what_needs_everybody_waits_for_everybody() {
    let scan = || {
        let operation = Operation::Scan { namespace: NamespaceId::DEFAULT, from: Token(0), limit: 10 };
        client(Request::new(operation, ConsistencyLevel::One))
    };
    let mut machine = stranger();
    raw(&mut machine, 0, scan());
    assert_eq!(machine.links.waiting[0].missing, nodes(1..=3), "partners are always wanted");
    connect_slowly(&mut machine, 1, 10);
    assert_eq!(machine.links.waiting(), 1, "one of them is not enough");
    raw(&mut machine, 20, unreachable(2));
    assert_eq!(machine.links.waiting(), 1);
    connect_slowly(&mut machine, 3, 30);
    assert_eq!(machine.links.waiting(), 0);
}

#[test]
fn what_is_kept_connected_is_what_somebody_wants() {
    let mut machine = stranger();
    assert_eq!(kept(&raw(&mut machine, 0, Input::Tick)), [&nodes(4..=5)], "the partners");
    assert_eq!(kept(&raw(&mut machine, 1, Input::Tick)), [] as [&BTreeSet<NodeId>; 0], "it is told once");
    // Neighbours.
    raw(&mut machine, 10, Input::PeerUp { peer: node(1), incarnation: Incarnation(1) });
    let actions = raw(&mut machine, 10, gossip(1, Gossip::Join));
    assert_eq!(kept(&actions), [&nodes([1, 4, 5])]);
    // Whom a request needs, for ten seconds.
    let request = get(&machine, false, None);
    assert_eq!(kept(&raw(&mut machine, 20, request)), [&nodes(1..=5)]);
    raw(&mut machine, 520, Input::Tick);
    assert_eq!(kept(&raw(&mut machine, 10_019, Input::Tick)), [] as [&BTreeSet<NodeId>; 0]);
    assert_eq!(kept(&raw(&mut machine, 10_020, Input::Tick)), [&nodes([1, 4, 5])]);
    // A neighbour that parts.
    let actions = raw(&mut machine, 10_030, gossip(1, Gossip::Disconnect));
    assert_eq!(kept(&actions), [&nodes(4..=5)]);
}

#[test]
fn who_leaves_the_map_is_not_kept_connected() {
    let mut machine = stranger();
    raw(&mut machine, 0, Input::Tick);
    machine.map.members.remove(&node(4));
    let mut actions = Vec::new();
    machine.members_changed(after(1), &mut actions);
    assert_eq!(kept(&actions), [&nodes([5])]);
    assert_eq!(machine.membership.health(node(4)), Health::Alive);
}

#[test]
fn hints_change_the_order_and_nothing_else() {
    let order = |machine: &Node, ms| {
        let mut order = [node(2), node(3)];
        machine.peers.sort_by_promise(after(ms).moment, node(1), &mut order);
        order
    };
    let read = || client(Request::new(Operation::Get { key: key("k") }, ConsistencyLevel::One));
    let mut machine = started_as(1, 5, 3);
    let usual = order(&machine, 0);
    let (first, second) = (usual[0].number(), usual[1].number());
    let changed = make_down(&mut machine, first, [4, 5], 0);
    let member = node(first);
    let down = MemberChange::Cluster { member, life: Life::begun(Incarnation(1)), health: Health::Down };
    assert!(changed.contains(&Action::MemberChanged(down)), "{changed:?}");
    assert_eq!(order(&machine, 400), [node(second), node(first)]);
    assert!(machine.can_reach(node(first)) && machine.peers.is_connected(node(first)));
    // Where it is needed it is asked all the same.
    let quorum = |machine: &mut Node, ms| {
        let request = client(Request::new(Operation::Get { key: key("k") }, ConsistencyLevel::All));
        asked(&raw(machine, ms, request)).into_iter().collect::<BTreeSet<NodeId>>()
    };
    assert_eq!(quorum(&mut machine, 410), nodes([2, 3]));
    raw(&mut machine, 420, Input::PeerDown { peer: node(second), parted: false });
    raw(&mut machine, 420, read());
    assert!(machine.can_reach(node(first)));
    // A refutation takes the hint back.
    let alive = rumour(first, 100, Rumour::Alive(Life::begun(Incarnation(1)).refuted()));
    let actions = raw(&mut machine, 500, alive);
    assert!(actions.iter().any(|action| matches!(action, Action::MemberChanged(_))), "{actions:?}");
    assert_eq!(order(&machine, 500), usual);
}

#[test]
fn who_is_down_is_not_waited_for() {
    let mut machine = stranger();
    make_down(&mut machine, 1, [4, 5], 0);
    make_down(&mut machine, 2, [4, 5], 500);
    let request = get(&machine, false, None);
    raw(&mut machine, 1_000, request);
    assert_eq!(machine.links.waiting[0].missing, nodes([3]));
    make_down(&mut machine, 3, [4, 5], 1_100);
    let request = get(&machine, false, None);
    let actions = raw(&mut machine, 1_600, request);
    assert!(matches!(outcome(&actions), Some(Err(_))), "{actions:?}");
}

#[test]
fn partitions_without_a_quorum_are_those_that_nobody_can_hope_for() {
    let mut machine = stranger();
    assert_eq!(machine.partitions_without_quorum(), 1, "its partners are not connected");
    make_down(&mut machine, 1, [4, 5], 0);
    assert_eq!(machine.partitions_without_quorum(), 1);
    make_down(&mut machine, 2, [4, 5], 500);
    assert_eq!(machine.partitions_without_quorum(), 4);
    connect_slowly(&mut machine, 4, 1_000);
    assert_eq!(machine.partitions_without_quorum(), 3);
}

#[test]
fn requests_that_wait_are_bounded() {
    let mut machine = stranger();
    let request = get(&machine, false, None);
    let mut actions = Vec::new();
    for _ in 0..limits::REQUESTS_IN_FLIGHT {
        machine.handle(START, request.clone(), &mut actions);
    }
    assert_eq!((outcome(&actions), machine.links.waiting()), (None, limits::REQUESTS_IN_FLIGHT));
    let actions = raw(&mut machine, 0, request);
    assert_eq!(outcome(&actions), Some(&Err(Failure::NotApplied(Refusal::Overloaded))));
    assert_eq!(machine.counters().overloaded, 1);
}

#[test]
fn a_busy_node_says_so() {
    let mut machine = started_as(1, 5, 3);
    raw(&mut machine, 0, Input::PeerUp { peer: node(5), incarnation: Incarnation(1) });
    raw(&mut machine, 0, gossip(5, Gossip::Join));
    let read = client(Request::new(Operation::Get { key: key("k") }, ConsistencyLevel::Quorum));
    let mut actions = Vec::new();
    for _ in 0..limits::REQUESTS_IN_FLIGHT / 2 {
        machine.handle(START, read.clone(), &mut actions);
    }
    assert_eq!(machine.requests_under_way(), limits::REQUESTS_IN_FLIGHT / 2);
    let mut actions = Vec::new();
    machine.handle(after(1), Input::Tick, &mut actions);
    machine.handle(after(2), Input::Tick, &mut actions);
    let mut told: Vec<(&[NodeId], Load)> = Vec::new();
    for action in &actions {
        if let Action::Send { to, envelope } = action
            && let Message::Gossip(Gossip::Rumour { rumour: Rumour::Load(load), .. }) = envelope.message
        {
            told.push((to, load));
        }
    }
    assert_eq!(told, [(&[node(5)][..], Load::High)]);
}

#[test]
fn a_rumour_of_a_newer_map_makes_it_be_fetched_from_whoever_told() {
    let mut machine = started_as(1, 5, 3);
    let actions = raw(&mut machine, 0, rumour(3, 1, Rumour::Epoch(Epoch(2))));
    let fetches = actions.iter().any(|action| {
        let fetch = |envelope: &Envelope| {
            matches!(envelope.message, Message::Request { request: ReplicaRequest::FetchMap, .. })
        };
        matches!(action, Action::Send { to, envelope } if to[..] == [node(3)] && fetch(envelope))
    });
    assert!(fetches, "{actions:?}");
    assert_eq!(raw(&mut machine, 0, rumour(2, 1, Rumour::Epoch(Epoch(1)))), [], "that one it has");
}
