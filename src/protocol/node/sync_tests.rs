//! Log sync and collection, as one node carries them out.

use super::super::tests::{
    NEVER, after, appended, begin, meet, put, request, response, response_to, settle, started, step_at,
};
use super::*;
use crate::protocol::io::{Input, LocalReadResult, StorageTicket};
use crate::protocol::request::fixture::{START, actor, key, map, node, settings, value};
use crate::types::{Actor, Applied, Counter, Dot, Incarnation, PeerMemory, Record, Stamp, StoreId, VersionVector};
use crate::wire::Envelope;

/// What was seen: nodes with the first and the last counter of a range.
pub(in super::super) fn vector(ranges: &[(u32, u64, u64)]) -> VersionVector {
    let mut vector = VersionVector::default();
    for (number, from, to) in ranges {
        vector.insert_range(actor(*number), Counter(*from), Counter(*to));
    }
    vector
}

pub(in super::super) fn coverage(partition: u16, ranges: &[(u32, u64, u64)]) -> Coverage {
    Coverage { partition: Partition(partition), vector: vector(ranges), horizon: Timestamp::default() }
}

/// The next round: the machine looks at its own store and finds this.
pub(in super::super) fn round(
    machine: &mut Node,
    now: Now,
    commit: u64,
    changed: Vec<Coverage>,
) -> (CommitNumber, Vec<Action>) {
    let mut actions = step_at(machine, now, Input::Tick);
    let at = actions.iter().position(|action| matches!(action, Action::Fetch { .. })).expect("it looks at its store");
    let Action::Fetch { ticket, read: LocalRead::Coverage { since } } = actions.remove(at) else {
        panic!("{actions:?}")
    };
    let result = LocalReadResult::Coverage { commit: CommitNumber(commit), changed };
    actions.extend(step_at(machine, now, Input::Fetched { ticket, result }));
    (since, actions)
}

/// What a peer is told, and under which name.
pub(in super::super) fn told(actions: &[Action], number: u32) -> Option<(RequestId, u64, Vec<u16>)> {
    actions.iter().find_map(|action| match action {
        Action::Send {
            to,
            envelope: Envelope { message: Message::Request { id, request: ReplicaRequest::Coverage { commit, changed } }, .. },
        } if to == &[node(number)] => {
            Some((*id, commit.0, changed.iter().map(|coverage| coverage.partition.0).collect()))
        }
        _ => None,
    })
}

/// What is pulled, and from whom.
fn pulls(actions: &[Action]) -> Vec<(u32, RequestId, u16, VersionVector)> {
    let pulls = actions.iter().filter_map(|action| match action {
        Action::Send {
            to,
            envelope:
                Envelope { message: Message::Request { id, request: ReplicaRequest::Pull { partition, wanted } }, .. },
        } => Some((to[0].number(), *id, partition.0, wanted.clone())),
        _ => None,
    });
    pulls.collect()
}

pub(in super::super) type Collected = (u16, VersionVector, Vec<(NodeId, PeerMemory)>);

pub(in super::super) fn collected(actions: &[Action]) -> Vec<Collected> {
    let collections = actions.iter().filter_map(|action| match action {
        Action::Append { mutation: Mutation::Collect { partition, stable, witnesses, .. }, .. } => {
            Some((partition.0, stable.clone(), witnesses.clone()))
        }
        _ => None,
    });
    collections.collect()
}

fn hear(machine: &mut Node, now: Now, id: RequestId, number: u32) {
    step_at(machine, now, response(number, id, ReplicaResponse::Met { wall: now.wall }));
}

/// A peer reports what it covers.
pub(in super::super) fn report(machine: &mut Node, now: Now, number: u32, commit: u64, changed: Vec<Coverage>) {
    let report = ReplicaRequest::Coverage { commit: CommitNumber(commit), changed };
    let actions = step_at(machine, now, request(number, 1, report));
    assert_eq!(response_to(&actions), &ReplicaResponse::Met { wall: now.wall });
}

#[test]
fn each_peer_is_told_what_is_new_to_it() {
    let mut machine = started(4, 3);
    let (since, actions) = round(&mut machine, after(1_000), 11, vec![coverage(0, &[(1, 1, 3)])]);
    assert_eq!(since, CommitNumber(10), "it has looked when it met the first peer");
    let (two, commit, partitions) = told(&actions, 2).expect("node 2 is told");
    assert_eq!((commit, partitions), (11, vec![0]));
    assert_eq!(told(&actions, 3).expect("node 3 is told").2, [0]);
    assert_eq!(told(&actions, 4).expect("node 4 is told").2, Vec::<u16>::new(), "it is no replica");
    hear(&mut machine, after(1_010), two, 2);

    let (since, actions) = round(&mut machine, after(2_000), 12, vec![coverage(1, &[(1, 1, 1)])]);
    assert_eq!(since, CommitNumber(11));
    let (two, commit, partitions) = told(&actions, 2).expect("node 2 is told");
    assert_eq!((commit, partitions), (12, vec![1]));
    assert_eq!(told(&actions, 3), None, "it has not answered the last one");
    hear(&mut machine, after(2_010), two, 2);

    // Node 3's answer does not come any more.
    let (_, actions) = round(&mut machine, after(3_000), 12, Vec::new());
    assert_eq!(told(&actions, 3).expect("node 3 is told again").2, [0, 1]);
    assert_eq!(told(&actions, 2).expect("node 2 is told the number of the group").2, Vec::<u16>::new());
}

#[test]
fn a_peer_that_comes_back_is_told_everything() {
    let mut machine = started(3, 3);
    let (_, actions) = round(&mut machine, after(1_000), 11, vec![coverage(0, &[(1, 1, 3)])]);
    let (two, ..) = told(&actions, 2).expect("node 2 is told");
    hear(&mut machine, after(1_010), two, 2);
    step_at(&mut machine, after(1_020), Input::PeerDown { peer: node(2), parted: false });
    step_at(&mut machine, after(1_030), Input::PeerUp { peer: node(2), incarnation: Incarnation(1) });
    let actions = step_at(&mut machine, after(1_040), meet(2, 10));
    let [_, Action::Fetch { ticket, read: LocalRead::Coverage { since } }] = actions[..] else { panic!("{actions:?}") };
    assert_eq!(since, CommitNumber(11));
    let result = LocalReadResult::Coverage { commit: CommitNumber(11), changed: Vec::new() };
    let actions = step_at(&mut machine, after(1_040), Input::Fetched { ticket, result });
    assert_eq!(told(&actions, 2).expect("node 2 is told").2, [0]);
}

#[test]
fn a_report_that_was_not_sent_is_sent_with_the_next_round() {
    let mut machine = started(3, 3);
    let (_, actions) = round(&mut machine, after(1_000), 11, vec![coverage(0, &[(1, 1, 3)])]);
    for action in &actions {
        if let Action::Send { to, envelope } = action {
            step_at(&mut machine, after(1_000), Input::SendFailed { to: to[0], envelope: envelope.clone() });
        }
    }
    let (_, actions) = round(&mut machine, after(2_000), 11, Vec::new());
    assert_eq!(told(&actions, 2).expect("node 2 is told").2, [0]);
    assert_eq!(told(&actions, 3).expect("node 3 is told").2, [0]);
}

fn stamp_of(actor: Actor, counter: u64, ms: i64) -> Stamp {
    let dot = Dot { actor, counter: Counter(counter) };
    Stamp { dot, ..value(ms, "").stamp }
}

/// An answer to a pull of the first dot of node 2, written so many milliseconds after the start.
fn pulled(ms: i64) -> Pulled {
    let stamp = stamp_of(actor(2), 1, ms);
    let record = Some(Record::Last(crate::types::Version { stamp, ..value(ms, "v") }));
    let items = vec![PulledItem::Record { dots: vec![stamp], key: key("k"), record }];
    Pulled { items, lost: vector(&[(2, 2, 2)]) }
}

/// The order to absorb something, if there is one.
fn absorbing(actions: &[Action]) -> Option<(StorageTicket, Mutation)> {
    actions.iter().find_map(|action| match action {
        Action::Append { ticket, mutation: mutation @ Mutation::Absorb { .. } } => Some((*ticket, mutation.clone())),
        _ => None,
    })
}

#[test]
fn what_is_missing_is_pulled_absorbed_and_looked_at_again() {
    let mut machine = started(3, 3);
    report(&mut machine, after(900), 2, 20, vec![coverage(0, &[(2, 1, 2)])]);
    let own = Coverage { horizon: Timestamp(7), ..coverage(0, &[(1, 1, 1)]) };
    let (_, actions) = round(&mut machine, after(1_000), 11, vec![own]);
    let [(2, id, 0, wanted)] = &pulls(&actions)[..] else { panic!("{actions:?}") };
    assert_eq!(wanted, &vector(&[(2, 1, 2)]));

    let answer = pulled(-5);
    let actions = step_at(&mut machine, after(1_010), response(2, *id, ReplicaResponse::Pulled(answer.clone())));
    let (ticket, mutation) = appended(&actions);
    let (partition, horizon) = (Partition(0), Timestamp(7));
    assert_eq!(mutation, Mutation::Absorb { partition, pulled: answer, horizon });
    assert_eq!((machine.counters().pulled, machine.counters().pulled_lost), (1, 1));

    let actions = step_at(&mut machine, after(1_020), Input::Committed { ticket, applied: Applied::Stored });
    let [Action::Fetch { ticket, read: LocalRead::Coverage { .. } }] = actions[..] else { panic!("{actions:?}") };
    let changed = vec![coverage(0, &[(1, 1, 1), (2, 1, 1)])];
    let result = LocalReadResult::Coverage { commit: CommitNumber(12), changed };
    let actions = step_at(&mut machine, after(1_020), Input::Fetched { ticket, result });
    let [(2, _, 0, rest)] = &pulls(&actions)[..] else { panic!("{actions:?}") };
    assert_eq!(rest, &vector(&[(2, 2, 2)]), "the rest is asked for");
}

#[test]
fn a_partition_is_pulled_once_at_a_time_and_again_if_the_answer_is_lost() {
    let mut machine = started(3, 3);
    for number in [2, 3] {
        report(&mut machine, after(900), number, 20, vec![coverage(0, &[(2, 1, 2)])]);
    }
    let (_, actions) = round(&mut machine, after(1_000), 11, Vec::new());
    assert_eq!(pulls(&actions).len(), 1, "{actions:?}");
    let (_, actions) = round(&mut machine, after(2_000), 11, Vec::new());
    assert_eq!(pulls(&actions), [], "an answer may still come");
    // Request timeout and interval are over.
    let (_, actions) = round(&mut machine, after(3_000), 11, Vec::new());
    let [(2, late, ..)] = pulls(&actions)[..] else { panic!("{actions:?}") };
    // Its peer is gone: the other one is asked.
    step_at(&mut machine, after(3_010), Input::PeerDown { peer: node(2), parted: false });
    let (_, actions) = round(&mut machine, after(4_000), 11, Vec::new());
    let [(3, id, ..)] = pulls(&actions)[..] else { panic!("{actions:?}") };
    // A late answer, or one by somebody else, is not taken.
    for (number, id) in [(2, late), (2, id)] {
        let answer = response(number, id, ReplicaResponse::Pulled(pulled(-5)));
        assert_eq!(step_at(&mut machine, after(4_010), answer), []);
    }
    // Refused: the next round asks again.
    let refused = ReplicaResponse::Refused(crate::types::Refusal::Overloaded);
    assert_eq!(step_at(&mut machine, after(4_020), response(3, id, refused)), []);
    let (_, actions) = round(&mut machine, after(5_000), 11, Vec::new());
    assert_eq!(pulls(&actions).len(), 1);
}

#[test]
fn what_lies_too_far_in_the_future_is_not_absorbed() {
    for (ms, absorbed) in [(500, true), (2_000, false)] {
        let mut machine = started(3, 3);
        report(&mut machine, after(900), 2, 20, vec![coverage(0, &[(2, 1, 2)])]);
        let (_, actions) = round(&mut machine, after(1_000), 11, Vec::new());
        let [(_, id, ..)] = pulls(&actions)[..] else { panic!("{actions:?}") };
        let actions = step_at(&mut machine, after(1_000), response(2, id, ReplicaResponse::Pulled(pulled(ms))));
        assert_eq!(absorbing(&actions).is_some(), absorbed, "{ms}: {actions:?}");
        let (_, actions) = round(&mut machine, after(2_000), 11, Vec::new());
        assert_eq!(pulls(&actions).is_empty(), absorbed, "it is asked for again once it was not taken");
    }
}

#[test]
fn a_store_without_room_absorbs_later() {
    let mut machine = started(3, 3);
    report(&mut machine, after(900), 2, 20, vec![coverage(0, &[(2, 1, 2)])]);
    let (_, actions) = round(&mut machine, after(1_000), 11, Vec::new());
    let [(_, id, ..)] = pulls(&actions)[..] else { panic!("{actions:?}") };
    let actions = step_at(&mut machine, after(1_000), response(2, id, ReplicaResponse::Pulled(pulled(-5))));
    let (ticket, _) = absorbing(&actions).expect("an order");
    let actions = step_at(&mut machine, after(1_000), Input::StorageRefused { ticket });
    assert_eq!(actions, [], "not at once, while the store is overloaded");
    let (_, actions) = round(&mut machine, after(2_000), 11, Vec::new());
    assert_eq!(pulls(&actions).len(), 1);
}

#[test]
fn a_pull_is_answered_once_what_it_tells_is_durable() {
    let mut machine = started(3, 3);
    let pull = ReplicaRequest::Pull { partition: Partition(0), wanted: vector(&[(1, 1, 1)]) };
    let actions = step_at(&mut machine, START, request(2, 1, pull));
    let [Action::Fetch { ticket, read: LocalRead::Pull { .. } }] = actions[..] else { panic!("{actions:?}") };
    let result = LocalReadResult::Pulled(pulled(-5));
    let (ticket, mutation) = appended(&step_at(&mut machine, START, Input::Fetched { ticket, result }));
    assert_eq!(mutation, Mutation::Barrier);
    let actions = step_at(&mut machine, START, Input::Committed { ticket, applied: Applied::Stored });
    assert_eq!(response_to(&actions), &ReplicaResponse::Pulled(pulled(-5)));
}

type Ranges = [(u32, u64, u64)];

/// What is collected after 6 s if this is what the node and its peers cover.
fn after_reports(own: &Ranges, reports: &[(u32, &Ranges)]) -> Vec<(u16, VersionVector)> {
    let mut machine = started(4, 3);
    for (number, ranges) in reports {
        report(&mut machine, after(5_900), *number, 20 + u64::from(*number), vec![coverage(0, ranges)]);
    }
    let (_, actions) = round(&mut machine, after(6_000), 11, vec![coverage(0, own)]);
    let found = collected(&actions);
    for (_, _, witnesses) in &found {
        let memory = |number: u32| PeerMemory {
            incarnation: Incarnation(1),
            store: StoreId(u128::from(number)),
            commit: CommitNumber(20 + u64::from(number)),
        };
        assert_eq!(witnesses, &[(node(2), memory(2)), (node(3), memory(3))], "on whose word it rests");
    }
    found.into_iter().map(|(partition, stable, _)| (partition, stable)).collect()
}

#[test]
fn only_what_every_replica_has_reported_is_let_go_of() {
    let (three, two): (&[_], &[_]) = (&[(1, 1, 3)], &[(1, 1, 2)]);
    assert_eq!(after_reports(three, &[(2, three), (3, three)]), [(0, vector(three))]);
    assert_eq!(after_reports(three, &[(2, three), (3, two)]), [(0, vector(two))]);
    let nothing: Vec<(u16, VersionVector)> = Vec::new();
    assert_eq!(after_reports(three, &[]), nothing);
    assert_eq!(after_reports(three, &[(2, three)]), nothing, "node 3 has not reported");
    assert_eq!(after_reports(three, &[(2, three), (4, three)]), nothing, "node 4 is no replica");
    // Somebody has something that is missing here.
    assert_eq!(after_reports(two, &[(2, three), (3, two)]), nothing);
    assert_eq!(after_reports(three, &[(2, three), (3, &[(1, 1, 3), (3, 1, 1)])]), nothing);
}

#[test]
fn what_was_let_go_of_is_not_let_go_of_again_with_every_round() {
    let mut machine = started(3, 3);
    for number in [2, 3] {
        report(&mut machine, after(5_900), number, 20, vec![coverage(0, &[(1, 1, 3)])]);
    }
    let (_, actions) = round(&mut machine, after(6_000), 11, vec![coverage(0, &[(1, 1, 3)])]);
    assert_eq!(collected(&actions).len(), 1);
    let (_, actions) = round(&mut machine, after(7_000), 11, Vec::new());
    assert_eq!(collected(&actions), [], "the interval is not over");
}

#[test]
fn what_has_ended_is_measured_by_the_slowest_clock() {
    let mut machine = started(3, 3);
    for number in [2, 3] {
        report(&mut machine, after(5_900), number, 20, vec![coverage(0, &[(1, 1, 3)])]);
    }
    // Node 3's clock is 300 ms behind.
    let (_, actions) = round(&mut machine, after(6_000), 11, vec![coverage(0, &[(1, 1, 3)])]);
    let ended = |actions: &[Action]| {
        actions.iter().find_map(|action| match action {
            Action::Append { mutation: Mutation::Collect { expired_before, .. }, .. } => Some(expired_before.0),
            _ => None,
        })
    };
    let first = ended(&actions).expect("a collection");
    assert!((after(3_490).wall.0..=after(3_500).wall.0).contains(&first), "{first}");
    let (id, ..) = told(&actions, 3).expect("node 3 is told");
    step_at(&mut machine, after(6_000), response(3, id, ReplicaResponse::Met { wall: WallTime(after(5_700).wall.0) }));
    for number in [2, 3] {
        report(&mut machine, after(11_900), number, 21, vec![coverage(0, &[(1, 1, 4)])]);
    }
    let (_, actions) = round(&mut machine, after(12_000), 12, vec![coverage(0, &[(1, 1, 4)])]);
    let second = ended(&actions).expect("a collection");
    assert!((after(9_190).wall.0..=after(9_200).wall.0).contains(&second), "{second}");
}

#[test]
fn one_look_at_a_time() {
    let mut machine = started(3, 3);
    let actions = step_at(&mut machine, after(1_000), Input::Tick);
    let [Action::Fetch { ticket, .. }] = actions[..] else { panic!("{actions:?}") };
    assert_eq!(step_at(&mut machine, after(2_000), Input::Tick), []);
    assert_eq!(step_at(&mut machine, after(2_000), Input::StorageRefused { ticket }), []);
    let actions = step_at(&mut machine, after(3_000), Input::Tick);
    assert!(matches!(actions[..], [Action::Fetch { read: LocalRead::Coverage { .. }, .. }]), "{actions:?}");
}

#[test]
fn a_first_look_that_the_store_had_no_room_for_is_taken_again_from_the_beginning() {
    let mut machine = Node::new(NEVER, map(3, 3), settings());
    let up = Input::PeerUp { peer: node(2), incarnation: Incarnation(1) };
    let greeting = step_at(&mut machine, START, up);
    settle(&mut machine, START, greeting);
    let actions = step_at(&mut machine, START, meet(2, 10));
    let [_, Action::Append { ticket, mutation: Mutation::Remember { .. } }] = actions[..] else {
        panic!("{actions:?}")
    };
    let mut actions = step_at(&mut machine, START, Input::Committed { ticket, applied: Applied::Stored });
    for second in 1..=3 {
        let [Action::Fetch { ticket, read: LocalRead::Coverage { since } }] = actions[..] else {
            panic!("{actions:?}")
        };
        assert_eq!(since, CommitNumber(0), "what changed before this life began was never seen");
        assert_eq!(step_at(&mut machine, after(second * 1_000 - 1), Input::StorageRefused { ticket }), []);
        actions = step_at(&mut machine, after(second * 1_000), Input::Tick);
    }
    let [Action::Fetch { ticket, read: LocalRead::Coverage { since } }] = actions[..] else { panic!("{actions:?}") };
    assert_eq!(since, CommitNumber(0));
    let changed = vec![coverage(0, &[(1, 1, 3)])];
    let result = LocalReadResult::Coverage { commit: CommitNumber(10), changed };
    let actions = step_at(&mut machine, after(3_010), Input::Fetched { ticket, result });
    assert_eq!(told(&actions, 2).expect("node 2 is told").2, [0], "log sync goes on");
    let (since, _) = round(&mut machine, after(4_000), 11, Vec::new());
    assert_eq!(since, CommitNumber(10), "from now on only what is new");
}

#[test]
fn rounds_leave_requests_alone() {
    let mut machine = started(3, 3);
    let actions = begin(&mut machine, put("k"));
    assert_eq!(actions.len(), 2);
    let actions = step_at(&mut machine, after(400), Input::Tick);
    assert_eq!(settle(&mut machine, after(400), actions), []);
    assert_eq!(machine.requests_under_way(), 1);
}
