//! One write at a time for a key with siblings: whose turn it is, and when.

use super::super::tests::{after, begin, client, committed, put_of, started, step, step_at};
use super::*;
use crate::protocol::io::{Input, LocalRead, LocalReadResult, RequestToken, StorageTicket};
use crate::protocol::request::fixture::cart_key;
use crate::types::{Applied, Content, Failure, Mutation, Operation, Record, Refusal, Request};

/// A write of the key by a client of this name, which is what it writes.
fn put(name: u64) -> Input {
    let mut request = put_of(cart_key("k"));
    if let Operation::Put { value, .. } = &mut request.operation {
        *value = name.to_string().into();
    }
    Input::Request { token: RequestToken(name), request }
}

/// A machine that has no need to wait for a ceiling.
fn machine() -> Node {
    let mut machine = started(3, 3);
    begin(&mut machine, client(put_of(crate::protocol::request::fixture::key("other"))));
    machine
}

/// The read of the own record that a write begins with, if that is all.
fn reading(actions: &[Action]) -> StorageTicket {
    match actions {
        [Action::Fetch { ticket, read: LocalRead::Value { key, .. } }] if *key == cart_key("k") => *ticket,
        other => panic!("expected a read of the own record, got {other:?}"),
    }
}

fn found(machine: &mut Node, ticket: StorageTicket, record: Option<Record>) -> Vec<Action> {
    let result = LocalReadResult::Value { record, durable: true, behind: false };
    step(machine, Input::Fetched { ticket, result })
}

/// The order to the own store, if that is all.
fn storing(actions: &[Action]) -> (StorageTicket, Record) {
    match actions {
        [Action::Append { ticket, mutation: Mutation::Record { record, .. } }] => (*ticket, record.clone()),
        other => panic!("expected an order to the own store, got {other:?}"),
    }
}

fn replies(actions: &[Action]) -> Vec<(u64, bool)> {
    let replies = actions.iter().filter_map(|action| match action {
        Action::Reply { token, outcome } => Some((token.0, matches!(outcome, Err(Failure::NotApplied(_))))),
        _ => None,
    });
    replies.collect()
}

fn without_replies(actions: Vec<Action>) -> Vec<Action> {
    actions.into_iter().filter(|action| !matches!(action, Action::Reply { .. } | Action::Send { .. })).collect()
}

#[test]
fn who_comes_first_is_first_and_each_builds_on_the_one_before() {
    let mut machine = machine();
    let mut ticket = reading(&step(&mut machine, put(1)));
    assert_eq!(step(&mut machine, put(2)), []);
    assert_eq!(step(&mut machine, put(3)), []);
    let mut present = None;
    for round in 1..=3 {
        let (order, record) = storing(&found(&mut machine, ticket, present));
        assert_eq!(record.versions().len(), round);
        let counters: Vec<u64> = record.versions().iter().map(|version| version.stamp.dot.counter.0).collect();
        assert!(counters.is_sorted(), "their dots are in the order in which they came");
        let newest = record.newest().map(|version| version.content.clone());
        assert_eq!(newest, Some(Content::Value(round.to_string().into())), "whose turn it is");
        let actions = committed(&mut machine, order);
        let sent = actions.iter().any(|action| matches!(action, Action::Send { .. }));
        assert!(sent, "now the others get it: {actions:?}");
        if round < 3 {
            ticket = reading(&without_replies(actions));
        }
        present = Some(record);
    }
    assert_eq!(machine.requests_under_way(), 4, "they wait for the others");
}

#[test]
fn other_keys_do_not_wait() {
    let mut machine = machine();
    reading(&step(&mut machine, put(1)));
    let request: Request = put_of(cart_key("l"));
    let actions = step(&mut machine, Input::Request { token: RequestToken(2), request });
    assert!(matches!(actions[..], [Action::Fetch { read: LocalRead::Value { .. }, .. }]), "{actions:?}");
}

#[test]
fn a_request_that_ends_lets_go_of_the_lock() {
    let mut machine = machine();
    let first = reading(&step(&mut machine, put(1)));
    step_at(&mut machine, after(10), put(2));
    let actions = step_at(&mut machine, after(500), Input::Tick);
    assert!(replies(&actions).contains(&(1, true)), "{actions:?}");
    let second = reading(&without_replies(actions));
    // What the first had asked its store for changes nothing any more.
    assert_eq!(found(&mut machine, first, None), []);
    storing(&found(&mut machine, second, None));
}

#[test]
fn who_ends_while_waiting_is_passed_over() {
    let mut machine = machine();
    let first = reading(&step_at(&mut machine, after(20), put(1)));
    let mut soon = put_of(cart_key("k"));
    soon.timeout = Some(std::time::Duration::from_millis(30));
    step_at(&mut machine, after(20), Input::Request { token: RequestToken(2), request: soon });
    step_at(&mut machine, after(20), put(3));
    let actions = step_at(&mut machine, after(50), Input::Tick);
    assert_eq!(replies(&actions), [(2, true)]);
    let (order, _) = storing(&found(&mut machine, first, None));
    reading(&without_replies(committed(&mut machine, order)));
}

#[test]
fn an_order_to_the_store_keeps_the_lock_until_it_is_answered() {
    for refused in [false, true] {
        let mut machine = machine();
        let first = reading(&step(&mut machine, put(1)));
        step_at(&mut machine, after(10), put(2));
        let (order, _) = storing(&found(&mut machine, first, None));
        let actions = step_at(&mut machine, after(505), Input::Tick);
        let doubt = |action: &Action| matches!(action, Action::Reply { outcome: Err(Failure::InDoubt { .. }), .. });
        assert!(actions.iter().any(doubt), "{actions:?}");
        let fetches = |action: &Action| matches!(action, Action::Fetch { read: LocalRead::Value { .. }, .. });
        assert!(!actions.iter().any(fetches), "the store may still change the key: {actions:?}");
        let answered = match refused {
            true => Input::StorageRefused { ticket: order },
            false => Input::Committed { ticket: order, applied: Applied::Stored },
        };
        reading(&step_at(&mut machine, after(506), answered));
    }
}

#[test]
fn what_the_store_refuses_is_not_applied_and_the_next_goes_on() {
    let mut machine = machine();
    let first = reading(&step(&mut machine, put(1)));
    step(&mut machine, put(2));
    let (order, _) = storing(&found(&mut machine, first, None));
    let actions = step(&mut machine, Input::StorageRefused { ticket: order });
    let expected = Err(Failure::NotApplied(Refusal::Overloaded));
    let told =
        |action: &Action| matches!(action, Action::Reply { token: RequestToken(1), outcome } if *outcome == expected);
    assert!(actions.iter().any(told), "{actions:?}");
    reading(&without_replies(actions));
}

#[test]
fn a_request_that_ends_touches_only_its_own_lock_and_the_next_in_line_is_granted() {
    let (key, other) = (cart_key("k"), cart_key("l"));
    let mut locks = Locks::default();
    assert!(locks.lock(key.clone(), 1));
    assert!(locks.lock(other.clone(), 11));
    for number in [2, 3, 4] {
        assert!(!locks.lock(key.clone(), number));
        assert!(!locks.lock(other.clone(), 10 + number));
    }
    // One in the middle of the line ends, and then the first.
    locks.over(3);
    assert!(locks.granted.is_empty(), "the lock is held as before");
    locks.over(1);
    assert_eq!(std::mem::take(&mut locks.granted), [2]);
    // A request that has handed its lock to the store ends before the store answers.
    locks.handed_on(&key, 2);
    locks.over(2);
    assert!(locks.granted.is_empty(), "the store has it");
    assert_eq!(locks.free(&key), Some(4));
    // Whose turn has come may end before it is told.
    locks.over(4);
    assert!(locks.granted.is_empty());
    assert!(locks.lock(key.clone(), 5), "it is free");
    locks.over(5);
    // The other key's line is as it was.
    for (holder, next) in [(11, Some(12)), (12, Some(13)), (13, Some(14)), (14, None)] {
        locks.over(holder);
        assert_eq!(std::mem::take(&mut locks.granted), next.into_iter().collect::<Vec<u64>>());
    }
    locks.over(99);
    assert!(locks.held.is_empty() && locks.of.is_empty(), "nothing is left behind: {locks:?}");
}

#[test]
fn several_that_end_at_once_leave_the_lock_to_the_first_that_is_left() {
    let mut machine = machine();
    let first = reading(&step(&mut machine, put(1)));
    step(&mut machine, put(2));
    step_at(&mut machine, after(10), put(3));
    step_at(&mut machine, after(10), put(4));
    let actions = step_at(&mut machine, after(500), Input::Tick);
    let mut ended = replies(&actions);
    ended.sort_unstable();
    assert_eq!(ended.iter().filter(|(number, _)| [1, 2].contains(number)).count(), 2, "{actions:?}");
    // The second may have begun to read in between; what it finds changes nothing.
    let reads = without_replies(actions);
    let Some(Action::Fetch { ticket, .. }) = reads.last() else { panic!("{reads:?}") };
    let last = *ticket;
    assert_eq!(found(&mut machine, first, None), []);
    let (order, record) = storing(&found(&mut machine, last, None));
    assert_eq!(record.newest().map(|version| version.content.clone()), Some(Content::Value("3".into())));
    let next = reading(&without_replies(committed(&mut machine, order)));
    let (_, record) = storing(&found(&mut machine, next, Some(record)));
    assert_eq!(record.newest().map(|version| version.content.clone()), Some(Content::Value("4".into())));
}
