//! Timestamps: none above what is durable, none under a clock that cannot be trusted.

use super::super::tests::{
    NEVER, after, appended, client, committed, connect, failed, put, put_of, request, response_to, settle, started,
    started_as, step, step_at,
};
use super::*;
use crate::protocol::io::{Input, RequestToken};
use crate::protocol::request::fixture::{START, key, map, node, settings};
use crate::types::{Incarnation, Record, Timestamp, WallTime};
use crate::wire::{Message, ReplicaRequest, ReplicaResponse};

/// The timestamps that were given in these actions.
fn given(actions: &[Action]) -> Vec<Timestamp> {
    let stamps = actions.iter().filter_map(|action| match action {
        Action::Append { mutation: Mutation::Record { record: Record::Last(version), .. }, .. } => {
            Some(version.stamp.timestamp)
        }
        _ => None,
    });
    stamps.collect()
}

#[test]
fn the_first_write_waits_for_a_commit_that_raises_the_ceiling() {
    let mut machine = started(3, 3);
    let (ticket, mutation) = appended(&step(&mut machine, put("k")));
    assert_eq!(mutation, Mutation::Barrier);
    let kept = machine.clock();
    assert_eq!(step(&mut machine, put("l")), [], "one commit is enough for all that wait");
    let actions = committed(&mut machine, ticket);
    let stamps = given(&actions);
    assert_eq!(stamps.len(), 2, "{actions:?}");
    assert!(stamps.iter().all(|stamp| *stamp <= kept), "{stamps:?} above {kept:?}");
    // While writes come nobody waits any more.
    let actions = step(&mut machine, put("m"));
    assert_eq!(given(&actions).len(), 1, "{actions:?}");
}

#[test]
fn after_a_pause_a_write_waits_again() {
    let mut machine = started(3, 3);
    let actions = step(&mut machine, put("k"));
    settle(&mut machine, START, actions);
    let (_, mutation) = appended(&step_at(&mut machine, after(400), put("k")));
    assert_eq!(mutation, Mutation::Barrier);
}

#[test]
fn each_commit_raises_the_ceiling() {
    let mut machine = started(3, 3);
    let actions = step(&mut machine, put("k"));
    let mut left = settle(&mut machine, START, actions);
    for ms in (50..1_000).step_by(50) {
        let ticket = left.iter().find_map(|action| match action {
            Action::Append { ticket, .. } => Some(*ticket),
            _ => None,
        });
        let ticket = ticket.expect("an order to the store");
        step_at(&mut machine, after(ms), Input::Committed { ticket, applied: crate::types::Applied::Stored });
        left = step_at(&mut machine, after(ms), put("k"));
        assert_eq!(given(&left).len(), 1, "at {ms} ms: {left:?}");
    }
}

#[test]
fn reads_wait_for_nothing() {
    let mut machine = started(3, 3);
    let get = crate::types::Operation::Get { key: key("k") };
    let actions = step(&mut machine, client(Request::new(get, crate::types::ConsistencyLevel::One)));
    assert!(matches!(actions[..], [Action::Fetch { .. }]), "{actions:?}");
}

#[test]
fn a_write_that_waits_ends_with_its_time_or_when_the_store_has_no_room() {
    let overloaded = || failed(Failure::NotApplied(Refusal::Overloaded));
    let mut machine = started(3, 3);
    step(&mut machine, put("k"));
    assert_eq!(machine.next_timeout(), Some(after(500).moment));
    assert_eq!(step_at(&mut machine, after(500), Input::Tick), [overloaded()]);

    let mut machine = started(3, 3);
    let (ticket, _) = appended(&step(&mut machine, put("k")));
    assert_eq!(step(&mut machine, Input::StorageRefused { ticket }), [overloaded()]);
    // The next one asks anew.
    appended(&step(&mut machine, put("k")));

    let mut machine = started(3, 3);
    let (ticket, _) = appended(&step(&mut machine, put("k")));
    let late = Input::Committed { ticket, applied: crate::types::Applied::Stored };
    assert_eq!(step_at(&mut machine, after(501), late), [overloaded()], "it has waited for too long");
}

#[test]
fn a_new_life_begins_above_all_that_the_former_may_have_given() {
    let mut machine = started(3, 3);
    let mut highest = Timestamp::default();
    let mut kept = Timestamp::default();
    let actions = step(&mut machine, put("k"));
    kept = kept.max(machine.clock());
    let (ticket, _) = appended(&actions);
    highest = highest.max(given(&committed(&mut machine, ticket)).into_iter().max().expect("one was given"));
    // No further commit: until the ceiling is reached timestamps are given, then none.
    for ms in 1..400 {
        let actions = step_at(&mut machine, after(ms), put("k"));
        highest = given(&actions).into_iter().fold(highest, Timestamp::max);
    }
    assert!(highest <= kept && highest > Timestamp::at(WallTime(START.wall.0 + 50)), "{highest:?} {kept:?}");

    // The time of day of the whole cluster was put back by an hour.
    let earlier = Now { moment: START.moment, wall: WallTime(START.wall.0 - 900_000) };
    let mut settings = settings();
    settings.actor.incarnation = Incarnation(2);
    settings.recovered_clock = kept;
    let mut machine = Node::new(NEVER, map(1, 1), settings);
    let actions = step_at(&mut machine, earlier, put("k"));
    let (ticket, _) = appended(&actions);
    let done = Input::Committed { ticket, applied: crate::types::Applied::Stored };
    let stamps = given(&step_at(&mut machine, earlier, done));
    assert!(stamps.len() == 1 && stamps[0] > highest, "{stamps:?} not above {highest:?}");
}

/// What a machine answers to a write when its clock has jumped by an hour.
fn jumped() -> Now {
    Now { moment: START.moment, wall: WallTime(START.wall.0 + 3_600_000) }
}

#[test]
fn a_jump_of_the_own_clock_refuses_writes_at_once() {
    let mut machine = started(3, 3);
    let actions = step(&mut machine, put("k"));
    settle(&mut machine, START, actions);
    let before = machine.clock();
    let unsure = || Refusal::ClockUnsure { offset_ms: Some(3_600_000) };
    assert_eq!(step_at(&mut machine, jumped(), put("k")), [failed(Failure::NotApplied(unsure()))]);
    assert_eq!((machine.counters().clock_unsure, machine.clock()), (1, before), "the jump leaves no mark");
    // So are those that others hand on.
    let forward = ReplicaRequest::Forward { request: put_of(key("k")), remaining: Duration::from_millis(100) };
    let actions = step_at(&mut machine, jumped(), request(3, 1, forward));
    assert_eq!(response_to(&actions), &ReplicaResponse::failed(Failure::NotApplied(unsure())));
    // Reads are not, and once the clock is right again nor are writes.
    let get = crate::types::Operation::Get { key: key("k") };
    let actions = step_at(&mut machine, jumped(), client(Request::new(get, crate::types::ConsistencyLevel::One)));
    assert!(matches!(actions[..], [Action::Fetch { .. }]), "{actions:?}");
    let actions = step(&mut machine, put("k"));
    assert_eq!(given(&actions).len(), 1, "{actions:?}");
}

#[test]
fn a_clock_that_was_compared_with_nobody_stamps_nothing() {
    let mut machine = Node::new(NEVER, map(3, 3), settings());
    let unsure = Refusal::ClockUnsure { offset_ms: None };
    let write = Request { consistency: crate::types::ConsistencyLevel::One, ..put_of(key("k")) };
    assert_eq!(step(&mut machine, client(write)), [failed(Failure::NotApplied(unsure))]);
    // In a cluster of one there is nobody.
    let mut machine = Node::new(NEVER, map(1, 1), settings());
    appended(&step(&mut machine, put("k")));
}

#[test]
fn who_only_hands_a_write_on_does_not_need_a_clock() {
    let mut machine = started_as(4, 4, 3);
    let actions = step_at(&mut machine, jumped(), put("k"));
    let [Action::Send { to, envelope }] = &actions[..] else { panic!("{actions:?}") };
    assert_eq!(to, &[node(1)]);
    assert!(matches!(envelope.message, Message::Request { request: ReplicaRequest::Forward { .. }, .. }));
    assert!(envelope.clock < Timestamp::at(jumped().wall), "its clock is not spread");
}

#[test]
fn a_write_that_waits_is_counted_as_under_way() {
    let mut machine = started(3, 3);
    connect(&mut machine, 2, 1);
    for _ in 0..3 {
        let request = put_of(key("k"));
        step(&mut machine, Input::Request { token: RequestToken(9), request });
    }
    assert_eq!(machine.held.len(), 3);
}
