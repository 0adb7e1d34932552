//! The node as a whole: complete lists of actions, so that a side effect nobody asked
//! for fails too. What its parts do is in the tests beside them.

use super::*;
use crate::protocol::io::{LocalRead, LocalReadResult};
use crate::protocol::request::fixture::{START, key, map, node, settings, stamp, value};
use crate::types::{
    Applied, CausalContext, CommitNumber, ConsistencyLevel, Content, Epoch, Expiry, Incarnation, Key, Mutation,
    Operation, PathEvent, Record, Response, StoreId, Timestamp, Version, VersionVector, WallTime,
};

/// When membership begins: it is not what these tests look at.
pub(super) const NEVER: Moment = Moment(1 << 60);

/// What the machine wants done, its gossip left out.
pub(super) fn step_at(machine: &mut Node, now: Now, input: Input) -> Vec<Action> {
    let mut actions = Vec::new();
    machine.handle(now, input, &mut actions);
    machine.check_invariants();
    actions.retain(|action| !is_gossip(action));
    actions
}

fn is_gossip(action: &Action) -> bool {
    match action {
        Action::Send { envelope, .. } => matches!(envelope.message, Message::Gossip(_)),
        Action::SendDatagram { .. } | Action::KeepConnected(_) | Action::MemberChanged(_) => true,
        _ => false,
    }
}

pub(super) fn step(machine: &mut Node, input: Input) -> Vec<Action> {
    step_at(machine, START, input)
}

/// So many milliseconds after the start, by both clocks.
pub(super) fn after(ms: u64) -> Now {
    Now { moment: START.moment.plus(Duration::from_millis(ms)), wall: WallTime(START.wall.0 + ms) }
}

pub(super) fn from_peer(number: u32, epoch: u64, message: Message) -> Input {
    Input::Message {
        from: node(number),
        envelope: Envelope { epoch: Epoch(epoch), clock: Timestamp::default(), message },
    }
}

pub(super) fn request(number: u32, epoch: u64, request: ReplicaRequest) -> Input {
    from_peer(number, epoch, Message::Request { id: RequestId(77), request })
}

pub(super) fn response(number: u32, id: RequestId, response: ReplicaResponse) -> Input {
    from_peer(number, 1, Message::Response { id, response })
}

/// The first words of a peer whose store is called by its number.
pub(super) fn meet(number: u32, commit: u64) -> Input {
    let store = StoreId(u128::from(number));
    request(number, 1, ReplicaRequest::Meet { store, commit: CommitNumber(commit) })
}

/// Does what the machine asks for to meet its peers, to raise its ceiling and to look at a
/// store in which nothing is; what else it asked for is left.
pub(super) fn settle(machine: &mut Node, now: Now, actions: Vec<Action>) -> Vec<Action> {
    let mut left = Vec::new();
    let mut open: std::collections::VecDeque<Action> = actions.into();
    while let Some(action) = open.pop_front() {
        let input = match &action {
            Action::Append { ticket, mutation: Mutation::Barrier | Mutation::Remember { .. } } => {
                Input::Committed { ticket: *ticket, applied: Applied::Stored }
            }
            Action::Fetch { ticket, read: LocalRead::Coverage { .. } } => {
                let result = LocalReadResult::Coverage { commit: CommitNumber(10), changed: Vec::new() };
                Input::Fetched { ticket: *ticket, result }
            }
            Action::Send { to, envelope: Envelope { message: Message::Request { id, request }, .. } } => {
                if !matches!(request, ReplicaRequest::Meet { .. } | ReplicaRequest::Coverage { .. }) {
                    left.push(action);
                    continue;
                }
                response(to[0].number(), *id, ReplicaResponse::Met { wall: now.wall })
            }
            _ => {
                left.push(action);
                continue;
            }
        };
        open.extend(step_at(machine, now, input));
    }
    left
}

/// A connection to a peer stands, and both have met.
pub(super) fn connect(machine: &mut Node, number: u32, incarnation: u64) {
    let up = Input::PeerUp { peer: node(number), incarnation: Incarnation(incarnation) };
    let greeting = step(machine, up);
    assert_eq!(settle(machine, START, greeting), []);
    let met = step(machine, meet(number, 10));
    let left = settle(machine, START, met);
    assert_eq!(response_to(&left), &ReplicaResponse::Met { wall: START.wall });
    assert!(machine.peers().is_connected(node(number)));
}

/// Node `me`, connected to all others that are in the map.
pub(super) fn started_as(me: u32, nodes: u32, replicas: u32) -> Node {
    let mut settings = settings();
    settings.actor.node = node(me);
    let mut machine = Node::new(NEVER, map(nodes, replicas), settings);
    for number in (1..=nodes).filter(|number| *number != me) {
        connect(&mut machine, number, 1);
    }
    machine
}

pub(super) fn started(nodes: u32, replicas: u32) -> Node {
    started_as(1, nodes, replicas)
}

pub(super) fn client(request: Request) -> Input {
    Input::Request { token: RequestToken(5), request }
}

pub(super) fn put_of(key: Key) -> Request {
    let operation = Operation::Put { key, value: "v".into(), expiry: Expiry::Never, context: CausalContext::default() };
    Request::new(operation, ConsistencyLevel::Quorum)
}

pub(super) fn put(name: &str) -> Input {
    client(put_of(key(name)))
}

/// A client's write, once the ceiling is high enough for it.
pub(super) fn begin(machine: &mut Node, input: Input) -> Vec<Action> {
    let actions = step(machine, input);
    settle(machine, START, actions)
}

pub(super) fn response_to(actions: &[Action]) -> &ReplicaResponse {
    match actions {
        [Action::Send { envelope: Envelope { message: Message::Response { response, .. }, .. }, .. }] => response,
        other => panic!("expected one response, got {other:?}"),
    }
}

/// The order to the own store, if that is all.
pub(super) fn appended(actions: &[Action]) -> (StorageTicket, Mutation) {
    match actions {
        [Action::Append { ticket, mutation }] => (*ticket, mutation.clone()),
        other => panic!("expected one order, got {other:?}"),
    }
}

pub(super) fn committed(machine: &mut Node, ticket: StorageTicket) -> Vec<Action> {
    step(machine, Input::Committed { ticket, applied: Applied::Stored })
}

pub(super) fn failed(failure: Failure) -> Action {
    Action::Reply { token: RequestToken(5), outcome: Err(failure) }
}

pub(super) fn apply(version: Version) -> ReplicaRequest {
    ReplicaRequest::Apply { key: key("k"), record: Record::Last(version) }
}

fn tombstone(stamp: crate::types::Stamp) -> Version {
    Version { stamp, expires_at: None, content: Content::Tombstone }
}

#[test]
fn a_write_goes_to_the_own_store_and_to_every_replica_and_ends_with_the_second() {
    let mut machine = started(3, 3);
    let actions = begin(&mut machine, put("k"));
    let [Action::Send { to, envelope }, Action::Append { ticket, mutation }] = &actions[..] else {
        panic!("{actions:?}")
    };
    assert_eq!(to, &[node(2), node(3)]);
    let Message::Request { id, request: ReplicaRequest::Apply { record, .. } } = &envelope.message else {
        panic!("{envelope:?}")
    };
    let Mutation::Record { record: own, .. } = mutation else { panic!("{mutation:?}") };
    assert_eq!(record, own);
    let Record::Last(version) = record else { panic!("{record:?}") };
    assert_eq!(envelope.clock, version.stamp.timestamp, "the message carries the clock that gave the stamp");
    let (ticket, id, stamp) = (*ticket, *id, version.stamp);
    assert_eq!(step(&mut machine, Input::Committed { ticket, applied: Applied::Stored }), []);
    let stored = Message::Response { id, response: ReplicaResponse::Stored };
    let reply = crate::types::WriteReply { stamp, acknowledged: 2 };
    let expected = Action::Reply { token: RequestToken(5), outcome: Ok(Response::Written(reply)) };
    assert_eq!(step(&mut machine, from_peer(3, 1, stored.clone())), [expected]);
    assert_eq!(step(&mut machine, from_peer(2, 1, stored)), [], "a third answer changes nothing");
    assert_eq!(machine.requests_under_way(), 0);
}

#[test]
fn a_replica_answers_only_once_it_is_durable() {
    let cases = [
        (Applied::Stored, ReplicaResponse::Stored),
        (Applied::Superseded { by: stamp(3) }, ReplicaResponse::Superseded { by: stamp(3) }),
        (
            Applied::Behind { horizon: Timestamp(9) },
            ReplicaResponse::Refused(Refusal::Behind { horizon: Timestamp(9) }),
        ),
        (Applied::Noted(Box::new(crate::types::Claim::Fenced)), ReplicaResponse::Noted(crate::types::Claim::Fenced)),
    ];
    for (applied, expected) in cases {
        let mut machine = started(3, 3);
        let actions = step(&mut machine, request(2, 1, apply(tombstone(stamp(0)))));
        let (ticket, _) = appended(&actions);
        let actions = step(&mut machine, Input::Committed { ticket, applied });
        assert_eq!(response_to(&actions), &expected);
    }
}

#[test]
fn what_was_read_and_is_not_durable_waits_for_a_barrier() {
    let read = |with_values: bool| {
        let after = VersionVector::default();
        match with_values {
            true => ReplicaRequest::Read { key: key("k"), after },
            false => ReplicaRequest::Digest { key: key("k"), after },
        }
    };
    let held = Record::Last(value(0, "v"));
    let record = |durable| LocalReadResult::Value { record: Some(held.clone()), durable, behind: true };
    let digest = |durable| LocalReadResult::Head { digest: Some(held.digest()), durable, behind: true };
    let cases = [
        (true, record(true), record(false), ReplicaResponse::Record { record: Some(held.clone()), behind: true }),
        (false, digest(true), digest(false), ReplicaResponse::Digest { digest: Some(held.digest()), behind: true }),
    ];
    for (with_values, durable, not_durable, expected) in cases {
        let mut machine = started(3, 3);
        let actions = step(&mut machine, request(2, 1, read(with_values)));
        let [Action::Fetch { ticket, .. }] = actions[..] else { panic!("{actions:?}") };
        let actions = step(&mut machine, Input::Fetched { ticket, result: durable });
        assert_eq!(response_to(&actions), &expected);

        let actions = step(&mut machine, request(2, 1, read(with_values)));
        let [Action::Fetch { ticket, .. }] = actions[..] else { panic!("{actions:?}") };
        let actions = step(&mut machine, Input::Fetched { ticket, result: not_durable });
        let (ticket, barrier) = appended(&actions);
        assert_eq!(barrier, Mutation::Barrier);
        let actions = committed(&mut machine, ticket);
        assert_eq!(response_to(&actions), &expected);
    }
}

#[test]
fn confirming_waits_for_a_barrier_too() {
    let mut machine = started(3, 3);
    let confirm = ReplicaRequest::Confirm { key: key("k"), stamp: stamp(0) };
    let actions = step(&mut machine, request(2, 1, confirm.clone()));
    let [Action::Fetch { ticket, read: LocalRead::Head { .. } }] = actions[..] else { panic!("{actions:?}") };
    let digest = Some(Record::Last(tombstone(stamp(0)).summary()));
    let result = LocalReadResult::Head { digest, durable: false, behind: false };
    let actions = step(&mut machine, Input::Fetched { ticket, result });
    let (ticket, barrier) = appended(&actions);
    assert_eq!(barrier, Mutation::Barrier);
    let actions = committed(&mut machine, ticket);
    assert_eq!(response_to(&actions), &ReplicaResponse::Stored);

    let actions = step(&mut machine, request(2, 1, confirm.clone()));
    let [Action::Fetch { ticket, .. }] = actions[..] else { panic!("{actions:?}") };
    let result = LocalReadResult::Head { digest: None, durable: true, behind: true };
    let actions = step(&mut machine, Input::Fetched { ticket, result });
    assert_eq!(response_to(&actions), &ReplicaResponse::Digest { digest: None, behind: true });

    // It was there and was let go of: the log still knows it.
    let actions = step(&mut machine, request(2, 1, confirm));
    let [Action::Fetch { ticket, .. }] = actions[..] else { panic!("{actions:?}") };
    let result = LocalReadResult::Head { digest: None, durable: true, behind: false };
    let (ticket, barrier) = appended(&step(&mut machine, Input::Fetched { ticket, result }));
    assert_eq!(barrier, Mutation::Barrier);
    let actions = committed(&mut machine, ticket);
    assert_eq!(response_to(&actions), &ReplicaResponse::Stored);
}

#[test]
fn a_copy_of_a_write_that_was_refused_is_not_carried_out() {
    let mut machine = started(3, 3);
    let copy = request(2, 1, apply(tombstone(stamp(0))));
    let (ticket, _) = appended(&step(&mut machine, copy.clone()));
    let actions = step(&mut machine, Input::StorageRefused { ticket });
    let overloaded = ReplicaResponse::Refused(Refusal::Overloaded);
    assert_eq!(response_to(&actions), &overloaded);
    // There is room now, but its sender has said that nothing was done.
    let again = step(&mut machine, copy);
    assert_eq!(response_to(&again), &overloaded);
    // The same goes for one that was refused for its epoch.
    let other = |epoch| {
        let (id, request) = (RequestId(78), apply(tombstone(stamp(0))));
        from_peer(2, epoch, Message::Request { id, request })
    };
    let actions = step(&mut machine, other(0));
    assert!(matches!(response_to(&actions), ReplicaResponse::Refused(Refusal::WrongEpoch { .. })));
    let actions = step(&mut machine, other(1));
    assert_eq!(response_to(&actions), &overloaded);
    // Another peer's message may have the same number.
    appended(&step(&mut machine, request(3, 1, apply(tombstone(stamp(0))))));
}

#[test]
fn a_copy_of_a_write_that_was_taken_is_not_refused() {
    let mut machine = started(3, 3);
    let copy = |epoch| {
        let (id, request) = (RequestId(78), apply(tombstone(stamp(0))));
        from_peer(2, epoch, Message::Request { id, request })
    };
    appended(&step(&mut machine, copy(1)));
    // A refusal that overtakes the answer to the first one would deny what was done.
    assert_eq!(step(&mut machine, copy(0)), []);
}

#[test]
fn a_copy_of_a_forwarded_write_is_not_carried_out() {
    let mut machine = started(4, 3);
    let forward = |request: Request| ReplicaRequest::Forward { request, remaining: Duration::from_millis(100) };
    let first = begin(&mut machine, request(4, 1, forward(put_of(key("k")))));
    assert!(matches!(first[..], [Action::Send { .. }, Action::Append { .. }]), "{first:?}");
    assert_eq!(begin(&mut machine, request(4, 1, forward(put_of(key("k"))))), []);
    assert_eq!(machine.requests_under_way(), 1);
    // A read may be answered twice.
    let get = || forward(Request::new(Operation::Get { key: key("k") }, ConsistencyLevel::One));
    for number in [2, 3] {
        assert_ne!(begin(&mut machine, request(4, 1, get())), []);
        assert_eq!(machine.requests_under_way(), number);
    }
}

#[test]
fn what_a_replica_must_not_take_is_refused() {
    let ahead = stamp(501);
    let long = Version { content: Content::Value(vec![0; 1025].into()), ..value(0, "") };
    let claim = |version: Version| ReplicaRequest::Claim {
        partition: crate::types::Partition(0),
        op: crate::types::OpId([1; 16]),
        claim: crate::types::Claim::Write { key: key("k"), version },
        until: WallTime(u64::MAX),
    };
    let longer = Version { content: Content::Value(vec![0; 65_537].into()), ..value(0, "") };
    let too_far = Refusal::ClockSkew { ahead_ms: 501 };
    let cases = [
        (apply(tombstone(ahead)), too_far.clone()),
        (apply(long), Refusal::ValueTooLong { bytes: 1025, limit: 1024 }),
        (claim(tombstone(ahead)), too_far.clone()),
        (claim(longer), Refusal::ValueTooLong { bytes: 65_537, limit: 65_536 }),
        (
            ReplicaRequest::Truncate {
                partition: crate::types::Partition(0),
                namespace: crate::types::NamespaceId::DEFAULT,
                stamp: ahead,
            },
            too_far,
        ),
    ];
    for (asked, refusal) in cases {
        let mut machine = started(3, 3);
        let actions = step(&mut machine, request(2, 1, asked.clone()));
        assert_eq!(response_to(&actions), &ReplicaResponse::Refused(refusal), "{asked:?}");
    }
    // What it is no replica of.
    let mut machine = started_as(4, 4, 3);
    let actions = step(&mut machine, request(2, 1, apply(tombstone(stamp(0)))));
    assert!(matches!(response_to(&actions), ReplicaResponse::Refused(Refusal::Invalid(_))));
}

#[test]
fn another_epoch_is_refused_and_a_newer_map_fetched_and_lived_by() {
    let mut machine = started(3, 3);
    let read = ReplicaRequest::Read { key: key("k"), after: VersionVector::default() };
    let mut old = map(3, 3);
    old.epoch = Epoch(3);
    let mut ahead = Node::new(NEVER, old, settings());
    connect(&mut ahead, 2, 1);
    let actions = step(&mut ahead, request(2, 2, read.clone()));
    assert_eq!(response_to(&actions), &ReplicaResponse::Refused(Refusal::WrongEpoch { newest: Epoch(3) }));

    let actions = step(&mut machine, request(2, 4, read));
    let [Action::Send { envelope: fetch, .. }, Action::Send { envelope: refusal, .. }] = &actions[..] else {
        panic!("{actions:?}")
    };
    assert!(matches!(fetch.message, Message::Request { id: epochs::FETCH, request: ReplicaRequest::FetchMap }));
    let refused = ReplicaResponse::Refused(Refusal::WrongEpoch { newest: Epoch(4) });
    assert_eq!(refusal.message, Message::Response { id: RequestId(77), response: refused });

    begin(&mut machine, put("k"));
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
    let message = Message::Request { id: RequestId(77), request: apply(tombstone(stamp(0))) };
    let clock = Timestamp::at(WallTime(START.wall.0 + 501));
    let input = Input::Message { from: node(2), envelope: Envelope { epoch: Epoch(1), clock, message } };
    let actions = step(&mut machine, input);
    assert_eq!(response_to(&actions), &ReplicaResponse::Refused(Refusal::ClockSkew { ahead_ms: 501 }));
    assert_eq!(machine.counters().clock_skew, 1);
}

#[test]
fn who_is_no_replica_hands_the_request_on_in_one_hop() {
    let mut machine = started_as(4, 4, 3);
    let actions = begin(&mut machine, put("k"));
    let [Action::Send { to, envelope }] = &actions[..] else { panic!("{actions:?}") };
    assert_eq!(to, &[node(1)]);
    let Message::Request { id, request: ReplicaRequest::Forward { request: client, remaining } } = &envelope.message
    else {
        panic!("{envelope:?}")
    };
    assert_eq!(*remaining, Duration::from_millis(500));
    // A second hop is refused: the other's map was wrong.
    let forwarded = ReplicaRequest::Forward { request: client.clone(), remaining: *remaining };
    let again = begin(&mut machine, request(1, 1, forwarded));
    let refused = Err(Failure::NotApplied(Refusal::WrongEpoch { newest: Epoch(1) }));
    assert_eq!(response_to(&again), &ReplicaResponse::Outcome(refused));
    // If the replica goes away the write is in doubt, not tried elsewhere.
    let id = *id;
    let actions = step(&mut machine, Input::PeerDown { peer: node(1), parted: false });
    let doubt = Err(Failure::InDoubt { acknowledged: 0, needed: 1 });
    assert_eq!(actions, [Action::Reply { token: RequestToken(5), outcome: doubt }]);
    let late = Message::Response { id, response: ReplicaResponse::Outcome(Ok(Response::Count(0))) };
    assert_eq!(step(&mut machine, from_peer(1, 1, late)), []);
}

#[test]
fn a_deadline_answers_in_doubt_and_leaves_nothing_behind() {
    let mut machine = started(3, 3);
    begin(&mut machine, put("k"));
    let due = machine.next_timeout().expect("a deadline");
    assert_eq!(due, START.moment.plus(Duration::from_millis(500)));
    let actions = step_at(&mut machine, after(500), Input::Tick);
    assert_eq!(actions, [failed(Failure::InDoubt { acknowledged: 0, needed: 2 })]);
    assert_eq!(machine.requests_under_way(), 0);
}

#[test]
fn a_peer_in_a_new_life_has_forgotten_what_it_was_asked() {
    let mut machine = started(3, 3);
    let actions = begin(&mut machine, put("k"));
    let [_, Action::Append { ticket, .. }] = actions[..] else { panic!("{actions:?}") };
    committed(&mut machine, ticket);
    connect(&mut machine, 2, 1);
    let up = |number| Input::PeerUp { peer: node(number), incarnation: Incarnation(2) };
    let is_greeting = |action: &Action| matches!(action, Action::Send { .. });
    let actions = step(&mut machine, up(2));
    assert!(actions.len() == 1 && is_greeting(&actions[0]), "{actions:?}");
    let actions = step(&mut machine, up(3));
    assert_eq!(actions[0], failed(Failure::InDoubt { acknowledged: 1, needed: 2 }));
    assert!(actions.len() == 2 && is_greeting(&actions[1]), "{actions:?}");
}

#[test]
fn the_way_of_a_request_is_told_in_order() {
    let mut machine = started(3, 3);
    let get = Operation::Get { key: key("k") };
    let explained = Request { explain: true, ..Request::new(get, ConsistencyLevel::Quorum) };
    let actions = step(&mut machine, client(explained));
    let [Action::Fetch { ticket, .. }, Action::Send { envelope, .. }] = &actions[..] else { panic!("{actions:?}") };
    let Message::Request { id, .. } = envelope.message else { panic!("{envelope:?}") };
    let record = Some(Record::Last(value(5, "v")));
    let result = LocalReadResult::Value { record, durable: true, behind: false };
    assert_eq!(step_at(&mut machine, after(1), Input::Fetched { ticket: *ticket, result }), []);
    let nothing = ReplicaResponse::Digest { digest: None, behind: false };
    step_at(&mut machine, after(2), response(2, id, nothing));
    let late = Now { moment: machine.next_timeout().expect("a repair may be late"), wall: START.wall };
    step_at(&mut machine, late, Input::Tick);
    step_at(&mut machine, late, response(3, id, ReplicaResponse::Refused(Refusal::Overloaded)));
    let end = Now { moment: late.moment.plus(Duration::from_millis(1)), wall: START.wall };
    let newer = ReplicaResponse::Superseded { by: stamp(7) };
    let actions = step_at(&mut machine, end, response(2, id, newer));
    let [Action::Reply { outcome: Ok(Response::Explained(response, path)), .. }] = &actions[..] else {
        panic!("{actions:?}")
    };
    assert!(matches!(&**response, Response::Read(Some(reply)) if reply.value == "v"));
    assert_eq!((path.coordinator, path.epoch, path.needed), (node(1), Epoch(1), 2));
    assert_eq!(path.replicas, [node(1), node(2), node(3)]);
    assert_eq!(path.partition, machine.map().partition_of(&key("k")));
    let told: Vec<(u32, PathEvent)> = path.steps.iter().map(|step| (step.node.number(), step.event.clone())).collect();
    let expected = [
        (1, PathEvent::AskedValue),
        (2, PathEvent::AskedVersions),
        (1, PathEvent::Answered(Some(stamp(5)))),
        (2, PathEvent::Answered(None)),
        (2, PathEvent::SentWrite),
        (2, PathEvent::Late),
        (3, PathEvent::AskedVersions),
        (3, PathEvent::Failed("overloaded, not executed".into())),
        (2, PathEvent::Superseded(stamp(7))),
    ];
    assert_eq!(told, expected);
    assert_eq!(path.steps[2].after_us, 1_000);
    assert!(path.steps.windows(2).all(|pair| pair[0].after_us <= pair[1].after_us));
}

#[test]
fn the_way_of_a_write_is_told_too() {
    let mut machine = started(3, 3);
    let actions = begin(&mut machine, client(Request { explain: true, ..put_of(key("k")) }));
    let [Action::Send { envelope, .. }, Action::Append { ticket, .. }] = &actions[..] else { panic!("{actions:?}") };
    let Message::Request { id, .. } = envelope.message else { panic!("{envelope:?}") };
    assert_eq!(committed(&mut machine, *ticket), []);
    let actions = step(&mut machine, response(3, id, ReplicaResponse::Stored));
    let [Action::Reply { outcome: Ok(Response::Explained(response, path)), .. }] = &actions[..] else {
        panic!("{actions:?}")
    };
    assert!(matches!(&**response, Response::Written(reply) if reply.acknowledged == 2));
    let told: Vec<(u32, PathEvent)> = path.steps.iter().map(|step| (step.node.number(), step.event.clone())).collect();
    let sent = [1, 2, 3].map(|number| (number, PathEvent::SentWrite));
    assert_eq!(told[..3], sent);
    assert_eq!(told[3..], [(1, PathEvent::Durable), (3, PathEvent::Durable)]);
}

#[test]
fn a_write_that_was_handed_on_is_explained_by_its_coordinator() {
    let mut machine = started_as(4, 4, 3);
    let actions = begin(&mut machine, client(Request { explain: true, ..put_of(key("k")) }));
    let [Action::Send { envelope, .. }] = &actions[..] else { panic!("{actions:?}") };
    let Message::Request { id, request: ReplicaRequest::Forward { request: handed, .. } } = &envelope.message else {
        panic!("{envelope:?}")
    };
    assert!(handed.explain);
    let outcome = Ok(Response::Count(7));
    let actions = step(&mut machine, response(1, *id, ReplicaResponse::Outcome(outcome.clone())));
    assert_eq!(actions, [Action::Reply { token: RequestToken(5), outcome }]);
}

#[test]
fn a_read_that_was_handed_on_twice_ends_only_when_nobody_is_left_to_answer() {
    for late_answers in [true, false] {
        let mut machine = started_as(4, 4, 2);
        let get = Operation::Get { key: key("k") };
        let actions = step(&mut machine, client(Request::new(get, ConsistencyLevel::Quorum)));
        let [Action::Send { to, envelope }] = &actions[..] else { panic!("{actions:?}") };
        assert_eq!(to, &[node(1)]);
        let Message::Request { id, .. } = envelope.message else { panic!("{envelope:?}") };
        let late = machine.next_timeout().expect("the first may be late");
        let mut actions = Vec::new();
        machine.handle(Now { moment: late, wall: START.wall }, Input::Tick, &mut actions);
        actions.retain(|action| !is_gossip(action));
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
