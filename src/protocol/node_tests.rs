//! The node as a whole: complete lists of actions, so that a side effect nobody asked
//! for fails too.

use super::*;
use crate::protocol::io::LocalRead;
use crate::protocol::request::fixture::{START, key, map, node, settings, stamp};
use crate::types::{
    ConsistencyLevel, Content, Epoch, Expiry, Incarnation, Mutation, Operation, Response, Version, WallTime,
};

fn started(nodes: u32, replicas: u32) -> Node {
    let mut machine = Node::new(map(nodes, replicas), settings());
    let mut actions = Vec::new();
    for number in 2..=nodes {
        let up = Input::PeerUp { peer: node(number), incarnation: Incarnation(1) };
        machine.handle(START, up, &mut actions);
    }
    assert_eq!(actions, []);
    machine
}

fn step(machine: &mut Node, input: Input) -> Vec<Action> {
    let mut actions = Vec::new();
    machine.handle(START, input, &mut actions);
    machine.check_invariants();
    actions
}

fn from_peer(number: u32, epoch: u64, message: Message) -> Input {
    Input::Message {
        from: node(number),
        envelope: Envelope { epoch: Epoch(epoch), clock: Timestamp::default(), message },
    }
}

fn request(number: u32, epoch: u64, request: ReplicaRequest) -> Input {
    from_peer(number, epoch, Message::Request { id: RequestId(77), request })
}

fn put(name: &str) -> Input {
    let operation = Operation::Put { key: key(name), value: "v".into(), expiry: Expiry::Never };
    let request = Request { operation, consistency: ConsistencyLevel::Quorum, timeout: None };
    Input::Request { token: RequestToken(5), request }
}

fn response_to(actions: &[Action]) -> &ReplicaResponse {
    match actions {
        [Action::Send { envelope: Envelope { message: Message::Response { response, .. }, .. }, .. }] => response,
        other => panic!("expected one response, got {other:?}"),
    }
}

#[test]
fn a_write_goes_to_the_own_store_and_to_every_replica_and_ends_with_the_second() {
    let mut machine = started(3, 3);
    let actions = step(&mut machine, put("k"));
    let [Action::Send { to, envelope }, Action::Append { ticket, mutation }] = &actions[..] else {
        panic!("{actions:?}")
    };
    assert_eq!(to, &[node(2), node(3)]);
    let Message::Request { id, request: ReplicaRequest::Apply { version, .. } } = &envelope.message else {
        panic!("{envelope:?}")
    };
    let Mutation::Record { version: own, .. } = mutation else { panic!("{mutation:?}") };
    assert_eq!(version, own);
    assert_eq!(envelope.clock, version.stamp.timestamp, "the message carries the clock that gave the stamp");
    let (ticket, id, stamp) = (*ticket, *id, version.stamp);
    assert_eq!(step(&mut machine, Input::Committed { ticket, applied: Applied::Stored }), []);
    let stored = Message::Response { id, response: ReplicaResponse::Stored };
    let reply = crate::types::WriteReply { stamp, acknowledged: 2 };
    let expected = Action::Reply { token: RequestToken(5), outcome: Ok(Response::Written(reply)) };
    assert_eq!(step(&mut machine, from_peer(3, 1, stored.clone())), [expected]);
    assert_eq!(step(&mut machine, from_peer(2, 1, stored)), [], "a third answer changes nothing");
    assert_eq!(machine.next_timeout(), None);
}

#[test]
fn a_replica_answers_only_once_it_is_durable() {
    let mut machine = started(3, 3);
    let version = Version { stamp: stamp(0), expires_at: None, content: Content::Tombstone };
    let actions = step(&mut machine, request(2, 1, ReplicaRequest::Apply { key: key("k"), version }));
    let [Action::Append { ticket, .. }] = actions[..] else { panic!("{actions:?}") };
    let actions = step(&mut machine, Input::Committed { ticket, applied: Applied::Superseded { by: stamp(3) } });
    assert_eq!(response_to(&actions), &ReplicaResponse::Superseded { by: stamp(3) });
}

#[test]
fn confirming_waits_for_a_barrier() {
    let mut machine = started(3, 3);
    let confirm = ReplicaRequest::Confirm { key: key("k"), stamp: stamp(0) };
    let actions = step(&mut machine, request(2, 1, confirm.clone()));
    let [Action::Fetch { ticket, read: LocalRead::Head(_) }] = actions[..] else { panic!("{actions:?}") };
    let held = Version { stamp: stamp(0), expires_at: None, content: Content::Tombstone }.summary();
    let actions = step(&mut machine, Input::Fetched { ticket, result: LocalReadResult::Head(Some(held)) });
    let [Action::Append { ticket, mutation: Mutation::Barrier }] = actions[..] else { panic!("{actions:?}") };
    let actions = step(&mut machine, Input::Committed { ticket, applied: Applied::Stored });
    assert_eq!(response_to(&actions), &ReplicaResponse::Stored);

    let actions = step(&mut machine, request(2, 1, confirm));
    let [Action::Fetch { ticket, .. }] = actions[..] else { panic!("{actions:?}") };
    let actions = step(&mut machine, Input::Fetched { ticket, result: LocalReadResult::Head(None) });
    assert_eq!(response_to(&actions), &ReplicaResponse::Digest(None));
}

#[test]
fn another_epoch_is_refused_and_a_newer_map_fetched_and_lived_by() {
    let mut machine = started(3, 3);
    let read = ReplicaRequest::Read { key: key("k") };
    let mut old = map(3, 3);
    old.epoch = Epoch(3);
    let mut ahead = Node::new(old, settings());
    let actions = step(&mut ahead, request(2, 2, read.clone()));
    assert_eq!(response_to(&actions), &ReplicaResponse::Refused(Refusal::WrongEpoch { newest: Epoch(3) }));

    let actions = step(&mut machine, request(2, 4, read));
    let [Action::Send { envelope: fetch, .. }, Action::Send { envelope: refusal, .. }] = &actions[..] else {
        panic!("{actions:?}")
    };
    assert!(matches!(fetch.message, Message::Request { id: epochs::FETCH, request: ReplicaRequest::FetchMap }));
    let refused = ReplicaResponse::Refused(Refusal::WrongEpoch { newest: Epoch(4) });
    assert_eq!(refusal.message, Message::Response { id: RequestId(77), response: refused });

    step(&mut machine, put("k"));
    let mut newer = map(4, 3);
    newer.epoch = Epoch(4);
    newer.assignment.0.iter_mut().for_each(|replicas| *replicas = vec![node(1), node(2), node(4)]);
    let answer = Message::Response { id: epochs::FETCH, response: ReplicaResponse::Map(newer.clone()) };
    // From somebody who was not asked it is not taken.
    assert_eq!(step(&mut machine, from_peer(3, 4, answer.clone())), []);
    let actions = step(&mut machine, from_peer(2, 4, answer));
    let [Action::InstallMap(installed), Action::Send { to, envelope }, Action::Append { .. }] = &actions[..] else {
        panic!("{actions:?}")
    };
    assert_eq!(installed, &newer);
    // Node 4 is not connected yet: the write under way goes to those that are.
    assert_eq!((to, envelope.epoch), (&vec![node(2)], Epoch(4)));
}

#[test]
fn a_map_that_contradicts_itself_or_belongs_elsewhere_is_not_taken() {
    let mut broken = map(3, 3);
    broken.epoch = Epoch(9);
    broken.assignment.0.pop();
    let mut foreign = map(3, 3);
    foreign.epoch = Epoch(9);
    foreign.cluster = crate::types::ClusterId([1; 16]);
    for bad in [broken, foreign, map(3, 3)] {
        let mut machine = started(3, 3);
        step(&mut machine, request(2, 9, ReplicaRequest::Statistics));
        let answer = Message::Response { id: epochs::FETCH, response: ReplicaResponse::Map(bad) };
        assert_eq!(step(&mut machine, from_peer(2, 9, answer)), []);
        assert_eq!(machine.map().epoch, Epoch(1));
    }
}

#[test]
fn a_write_with_a_clock_far_ahead_is_refused() {
    let mut machine = started(3, 3);
    let version = Version { stamp: stamp(0), expires_at: None, content: Content::Tombstone };
    let message = Message::Request { id: RequestId(77), request: ReplicaRequest::Apply { key: key("k"), version } };
    let clock = Timestamp::at(WallTime(START.wall.0 + 501));
    let input = Input::Message { from: node(2), envelope: Envelope { epoch: Epoch(1), clock, message } };
    let actions = step(&mut machine, input);
    assert_eq!(response_to(&actions), &ReplicaResponse::Refused(Refusal::ClockSkew { ahead_ms: 501 }));
    assert_eq!(machine.counters().clock_skew, 1);
}

#[test]
fn who_is_no_replica_hands_the_request_on_in_one_hop() {
    let mut settings = settings();
    settings.actor.node = node(4);
    let mut machine = Node::new(map(4, 3), settings);
    for number in 1..=3 {
        step(&mut machine, Input::PeerUp { peer: node(number), incarnation: Incarnation(1) });
    }
    let actions = step(&mut machine, put("k"));
    let [Action::Send { to, envelope }] = &actions[..] else { panic!("{actions:?}") };
    assert_eq!(to, &[node(1)]);
    let Message::Request { id, request: ReplicaRequest::Forward { request: client, remaining } } = &envelope.message
    else {
        panic!("{envelope:?}")
    };
    assert_eq!(*remaining, Duration::from_millis(500));
    // A second hop is refused: the other's map was wrong.
    let forwarded = ReplicaRequest::Forward { request: client.clone(), remaining: *remaining };
    let again = step(&mut machine, request(1, 1, forwarded));
    let refused = Err(Failure::NotApplied(Refusal::WrongEpoch { newest: Epoch(1) }));
    assert_eq!(response_to(&again), &ReplicaResponse::Outcome(refused));
    // If the replica goes away the write is in doubt, not tried elsewhere.
    let id = *id;
    let actions = step(&mut machine, Input::PeerDown { peer: node(1) });
    let doubt = Err(Failure::InDoubt { acknowledged: 0, needed: 1 });
    assert_eq!(actions, [Action::Reply { token: RequestToken(5), outcome: doubt }]);
    let late = Message::Response { id, response: ReplicaResponse::Outcome(Ok(Response::Count(0))) };
    assert_eq!(step(&mut machine, from_peer(1, 1, late)), []);
}

#[test]
fn a_deadline_answers_in_doubt_and_leaves_nothing_behind() {
    let mut machine = started(3, 3);
    step(&mut machine, put("k"));
    let due = machine.next_timeout().expect("a deadline");
    assert_eq!(due, START.moment.plus(Duration::from_millis(500)));
    let mut actions = Vec::new();
    machine.handle(Now { moment: due, wall: START.wall }, Input::Tick, &mut actions);
    let doubt = Err(Failure::InDoubt { acknowledged: 0, needed: 2 });
    assert_eq!(actions, [Action::Reply { token: RequestToken(5), outcome: doubt }]);
    assert_eq!((machine.requests_under_way(), machine.next_timeout()), (0, None));
}

#[test]
fn a_peer_in_a_new_life_has_forgotten_what_it_was_asked() {
    let mut machine = started(3, 3);
    let actions = step(&mut machine, put("k"));
    let [_, Action::Append { ticket, .. }] = actions[..] else { panic!("{actions:?}") };
    step(&mut machine, Input::Committed { ticket, applied: Applied::Stored });
    step(&mut machine, Input::PeerUp { peer: node(2), incarnation: Incarnation(1) });
    assert_eq!(step(&mut machine, Input::PeerUp { peer: node(2), incarnation: Incarnation(2) }), []);
    let doubt = Err(Failure::InDoubt { acknowledged: 1, needed: 2 });
    let actions = step(&mut machine, Input::PeerUp { peer: node(3), incarnation: Incarnation(2) });
    assert_eq!(actions, [Action::Reply { token: RequestToken(5), outcome: doubt }]);
}

#[test]
fn a_read_that_was_handed_on_twice_ends_only_when_nobody_is_left_to_answer() {
    for late_answers in [true, false] {
        let mut settings = settings();
        settings.actor.node = node(4);
        let mut machine = Node::new(map(4, 2), settings);
        for number in 1..=2 {
            step(&mut machine, Input::PeerUp { peer: node(number), incarnation: Incarnation(1) });
        }
        let get = Operation::Get { key: key("k") };
        let client = Request { operation: get, consistency: ConsistencyLevel::Quorum, timeout: None };
        let actions = step(&mut machine, Input::Request { token: RequestToken(5), request: client });
        let [Action::Send { to, envelope }] = &actions[..] else { panic!("{actions:?}") };
        assert_eq!(to, &[node(1)]);
        let Message::Request { id, .. } = envelope.message else { panic!("{envelope:?}") };
        let late = machine.next_timeout().expect("the first may be late");
        let mut actions = Vec::new();
        machine.handle(Now { moment: late, wall: START.wall }, Input::Tick, &mut actions);
        let [Action::Send { to, .. }] = &actions[..] else { panic!("{actions:?}") };
        assert_eq!(to, &[node(2)]);
        let refused = ReplicaResponse::Refused(Refusal::Overloaded);
        assert_eq!(step(&mut machine, from_peer(2, 1, Message::Response { id, response: refused.clone() })), []);
        let (response, outcome) = if late_answers {
            (ReplicaResponse::Outcome(Ok(Response::Read(None))), Ok(Response::Read(None)))
        } else {
            (refused, Err(Failure::NotApplied(Refusal::Overloaded)))
        };
        let actions = step(&mut machine, from_peer(1, 1, Message::Response { id, response }));
        assert_eq!(actions, [Action::Reply { token: RequestToken(5), outcome }]);
    }
}

#[test]
fn a_map_that_could_not_be_asked_for_is_asked_for_again() {
    let mut machine = started(3, 3);
    let ahead = request(2, 9, ReplicaRequest::Statistics);
    let actions = step(&mut machine, ahead.clone());
    let Some(Action::Send { envelope, .. }) = actions.first() else { panic!("{actions:?}") };
    step(&mut machine, Input::SendFailed { to: node(2), envelope: envelope.clone() });
    let again = step(&mut machine, ahead);
    let fetches = |action: &Action| {
        matches!(action, Action::Send { envelope, .. }
            if matches!(envelope.message, Message::Request { id: epochs::FETCH, .. }))
    };
    assert!(again.iter().any(fetches), "{again:?}");
    // While an answer may still come nobody else is asked; after that, whoever speaks next.
    let ahead = request(3, 9, ReplicaRequest::Statistics);
    let meanwhile = step(&mut machine, ahead.clone());
    assert!(!meanwhile.iter().any(fetches), "{meanwhile:?}");
    let later = Now { moment: START.moment.plus(Duration::from_millis(500)), wall: START.wall };
    let mut actions = Vec::new();
    machine.handle(later, ahead, &mut actions);
    assert!(actions.iter().any(fetches), "{actions:?}");
}
