//! Writes, as a table: what the replicas answer, and what the client must be told.

use crate::protocol::request::fixture::{START, World, deadline, key, node, record, stamp, value, words_of_write};
use crate::types::{
    CausalContext, ConsistencyLevel, Expiry, Failure, NamespaceId, NodeId, Operation, Record, Refusal, Request,
    Response, Timestamp, Token, Version, WallTime,
};
use crate::wire::{ReplicaRequest, ReplicaResponse};

use super::super::{Answer, Coordination, Effect};

/// `level | replicas | unreachable | answers | outcome`. An answer is `node:word`, where
/// `old` is "superseded by something older than now" (an earlier clock), `new` is by
/// something 100 ms ahead, `far` by something too far ahead. `|time` lets the deadline pass.
const CASES: &str = "
quorum | 3 | -   | 1:stored 2:stored               | applied 2
quorum | 3 | -   | 2:stored 3:stored               | applied 2
quorum | 3 | -   | 1:stored                        | waiting
quorum | 3 | -   | 1:stored time                   | in doubt 1/2
quorum | 3 | -   | time                            | in doubt 0/2
quorum | 3 | -   | 2:refused 3:refused             | waiting
quorum | 3 | -   | 2:refused 3:refused time        | in doubt 0/2
quorum | 3 | -   | 2:refused 3:refused 1:stored    | in doubt 1/2
quorum | 3 | -   | 1:refused 2:refused 3:refused   | not applied: Overloaded
quorum | 3 | -   | 1:refused 2:unsent              | waiting
quorum | 3 | -   | 1:refused 2:unsent 3:unsent     | not applied: Overloaded
quorum | 3 | -   | 1:refused 2:lost                | in doubt 0/2
quorum | 3 | -   | 1:stored 2:lost 3:lost          | in doubt 1/2
quorum | 3 | -   | 1:stored 2:lost 3:stored        | applied 2
quorum | 3 | 3   | 1:stored 2:stored               | applied 2
quorum | 3 | 3   | 1:stored 2:refused              | in doubt 1/2
quorum | 3 | 2,3 |                                 | not applied: 1 of 2
one    | 3 | 2,3 | 1:stored                        | applied 1
one    | 3 | 2,3 | 1:refused                       | not applied: Overloaded
one    | 3 | -   | 3:stored                        | applied 1
two    | 3 | -   | 3:stored 1:stored               | applied 2
three  | 3 | -   | 3:stored 1:stored               | waiting
three  | 3 | 2   |                                 | not applied: 2 of 3
three  | 2 | -   |                                 | not applied: 2 of 3
all    | 3 | -   | 1:stored 2:stored 3:stored      | applied 3
all    | 3 | -   | 1:stored 2:stored 3:refused     | in doubt 2/3
all    | 5 | -   | 1:stored 2:stored 3:stored 4:stored | waiting
quorum | 5 | -   | 1:stored 2:stored 3:stored      | applied 3
quorum | 5 | 4,5 | 1:stored 2:stored 3:stored      | applied 3
quorum | 5 | 3,4,5 |                               | not applied: 2 of 3
quorum | 1 | -   | 1:stored                        | applied 1
quorum | 3 | -   | 1:behind 2:stored 3:stored      | applied 2
quorum | 3 | -   | 1:behind 2:behind               | waiting
quorum | 3 | -   | 1:behind 2:behind 3:behind      | not applied: Behind
quorum | 3 | -   | 1:behind 2:behind 3:stored      | in doubt 1/2
quorum | 3 | -   | 1:behind 2:behind 3:lost        | in doubt 0/2
quorum | 3 | -   | 1:new 2:refused 3:refused       | in doubt 0/2
quorum | 3 | -   | 1:refused 2:refused 3:new       | in doubt 0/2
quorum | 3 | -   | 1:new 2:refused time            | in doubt 0/2
quorum | 3 | -   | 1:new 2:lost 3:refused          | in doubt 0/2
quorum | 3 | -   | 1:far 2:far                     | in doubt 0/2
quorum | 3 | -   | 1:stored 1:stored               | waiting
quorum | 3 | -   | 9:stored 1:stored               | waiting
";

fn answer(word: &str) -> Answer {
    let response = match word {
        "stored" => ReplicaResponse::Stored,
        "refused" => ReplicaResponse::Refused(Refusal::Overloaded),
        "new" => ReplicaResponse::Superseded { by: stamp(100) },
        "behind" => ReplicaResponse::Refused(Refusal::Behind { horizon: Timestamp(1) }),
        "far" => ReplicaResponse::Superseded { by: stamp(700) },
        "unsent" => return Answer::NotSent,
        "lost" => return Answer::Lost,
        _ => panic!("unknown answer {word}"),
    };
    Answer::Response(response)
}

fn put(level: ConsistencyLevel) -> Request {
    let (value, context) = ("v".into(), CausalContext::default());
    Request::new(Operation::Put { key: key("k"), value, expiry: Expiry::Never, context }, level)
}

fn begin(world: &mut World) -> Coordination {
    world.begin(put(ConsistencyLevel::Quorum)).expect("under way")
}

fn feed(world: &mut World, write: &mut Coordination, phase: u8, from: &str, word: &str) {
    let from = node(from.parse().expect("a number"));
    world.run(|context| write.answer(from, phase, answer(word), context));
}

/// The version that was sent last.
fn sent(world: &World) -> Version {
    match world.sent_record() {
        Record::Last(version) => version,
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_a_client_is_told() {
    for line in CASES.lines().filter(|line| !line.is_empty()) {
        let columns: Vec<&str> = line.split('|').map(str::trim).collect();
        let [level, replicas, unreachable, answers, expected] = columns[..] else { panic!("five columns: {line}") };
        let unreachable: Vec<u32> = unreachable.split(',').filter_map(|number| number.parse().ok()).collect();
        let replicas: u32 = replicas.parse().expect("a number");
        let mut world = World::new(replicas, replicas, &unreachable);
        if let Some(mut write) = world.begin(put(level.parse().expect("a level"))) {
            let sent = world.phase();
            for step in answers.split_whitespace() {
                assert!(world.outcome().is_none(), "it has ended before {step}: {line}");
                match step.split_once(':') {
                    Some((from, word)) => feed(&mut world, &mut write, sent, from, word),
                    None => {
                        world.now.moment = deadline();
                        world.run(|context| write.wake(context));
                    }
                }
            }
        }
        assert_eq!(words_of_write(world.outcome()), expected, "{line}");
    }
}

#[test]
fn a_refused_write_is_seen_by_nobody() {
    let mut world = World::new(3, 3, &[2, 3]);
    assert!(world.begin(put(ConsistencyLevel::Quorum)).is_none());
    assert_eq!(world.asked(), Vec::<String>::new());
}

#[test]
fn a_write_behind_a_faster_clock_goes_out_once_more_above_it() {
    let mut world = World::new(3, 3, &[]);
    let mut write = begin(&mut world);
    let first = world.phase();
    let first_sent = sent(&world);
    assert_eq!(world.asked(), ["apply@1,2,3"]);
    feed(&mut world, &mut write, first, "1", "stored");
    feed(&mut world, &mut write, first, "2", "new");
    assert_eq!(words_of_write(world.outcome()), "waiting");
    let second = world.phase();
    assert_ne!(first, second);
    assert_eq!(world.asked(), ["apply@1,2,3"]);
    let again = sent(&world);
    assert!(again.stamp > stamp(100), "the second attempt lies above what superseded the first");
    assert_ne!(again.stamp.dot, first_sent.stamp.dot, "no dot is used twice");
    // A late answer to the first attempt says nothing about the second.
    feed(&mut world, &mut write, first, "3", "stored");
    feed(&mut world, &mut write, second, "1", "stored");
    assert_eq!(words_of_write(world.outcome()), "waiting");
    // What is newer than the second attempt was written at the same time: it has won.
    feed(&mut world, &mut write, second, "2", "new");
    let Some(Ok(Response::Written(reply))) = world.outcome() else { panic!("{:?}", world.outcome()) };
    assert_eq!(reply.stamp, again.stamp);
}

#[test]
fn a_second_attempt_that_everybody_refuses_is_in_doubt() {
    let mut world = World::new(3, 3, &[]);
    let mut write = begin(&mut world);
    let first = world.phase();
    feed(&mut world, &mut write, first, "1", "new");
    feed(&mut world, &mut write, first, "2", "new");
    let second = world.phase();
    for from in ["1", "2"] {
        feed(&mut world, &mut write, second, from, "refused");
    }
    assert_eq!(words_of_write(world.outcome()), "in doubt 0/2", "the first may have come twice");
}

#[test]
fn a_write_behind_a_clock_that_is_too_fast_is_in_doubt() {
    for (first_answer, expected) in [("far", "in doubt 0/2"), ("stored", "in doubt 1/2")] {
        let mut world = World::new(2, 2, &[]);
        let mut write = begin(&mut world);
        let sent = world.phase();
        feed(&mut world, &mut write, sent, "1", first_answer);
        feed(&mut world, &mut write, sent, "2", "far");
        assert_eq!(words_of_write(world.outcome()), expected);
    }
}

#[test]
fn a_write_waits_for_a_higher_ceiling_before_anybody_sees_it() {
    let mut world = World::new(3, 3, &[]);
    world.ceiling = Timestamp::default();
    let mut write = begin(&mut world);
    assert_eq!(world.asked(), ["raise"]);
    assert!(write.next_timeout() < deadline());
    world.now.moment = write.next_timeout();
    world.run(|context| write.wake(context));
    assert_eq!(world.asked(), ["raise"], "it is still too low");
    world.ceiling = Timestamp::at(WallTime(START.wall.0 + 100));
    world.now.moment = write.next_timeout();
    world.run(|context| write.wake(context));
    assert_eq!(world.asked(), ["apply@1,2,3"]);
    assert!(sent(&world).stamp.timestamp <= world.ceiling);

    let mut world = World::new(3, 3, &[]);
    world.ceiling = Timestamp::default();
    let mut write = begin(&mut world);
    world.now.moment = deadline();
    world.run(|context| write.wake(context));
    assert_eq!(words_of_write(world.outcome()), "not applied: Overloaded");
}

#[test]
fn a_second_attempt_waits_for_a_higher_ceiling_too() {
    for (raised, expected) in [(true, "applied 2"), (false, "in doubt 1/2")] {
        let mut world = World::new(3, 3, &[]);
        world.ceiling = Timestamp::at(WallTime(START.wall.0 + 50));
        let mut write = begin(&mut world);
        let first = world.phase();
        world.asked();
        feed(&mut world, &mut write, first, "1", "stored");
        feed(&mut world, &mut write, first, "2", "new");
        assert_eq!(world.asked(), ["raise"]);
        feed(&mut world, &mut write, first, "3", "new");
        assert_eq!(world.asked(), Vec::<String>::new(), "a further answer does not ask again");
        if raised {
            world.ceiling = Timestamp::at(WallTime(START.wall.0 + 300));
            world.now.moment = write.next_timeout();
            world.run(|context| write.wake(context));
            assert!(sent(&world).stamp > stamp(100));
            let second = world.phase();
            feed(&mut world, &mut write, second, "1", "stored");
            feed(&mut world, &mut write, second, "2", "stored");
        } else {
            world.now.moment = deadline();
            world.run(|context| write.wake(context));
        }
        assert_eq!(words_of_write(world.outcome()), expected);
    }
}

#[test]
fn a_clock_that_cannot_be_trusted_stamps_nothing() {
    let mut world = World::new(3, 3, &[]);
    world.now.wall = WallTime(START.wall.0 + 3_600_000);
    assert!(world.begin(put(ConsistencyLevel::One)).is_none());
    let off = Refusal::ClockUnsure { offset_ms: Some(3_600_000) };
    assert_eq!(world.outcome(), Some(&Err(Failure::NotApplied(off))));
    assert_eq!(world.asked(), Vec::<String>::new());
    // A cluster of one has nobody to disagree with.
    let mut world = World::new(1, 1, &[]);
    world.now.wall = WallTime(START.wall.0 + 3_600_000);
    assert!(world.begin(put(ConsistencyLevel::One)).is_some());
}

#[test]
fn a_new_map_is_asked_with_the_same_stamp() {
    let mut world = World::new(5, 3, &[]);
    let mut write = begin(&mut world);
    let first = sent(&world);
    world.asked();
    world.map.assignment.0 = vec![vec![node(3), node(4), node(5)]; 4];
    world.run(|context| write.replan(context));
    assert_eq!(sent(&world), first);
    assert_eq!(world.asked(), ["apply@3,4,5"]);
    let again = world.phase();
    for from in ["4", "5"] {
        feed(&mut world, &mut write, again, from, "stored");
    }
    assert_eq!(words_of_write(world.outcome()), "applied 2");
}

#[test]
fn a_new_map_under_which_nobody_can_be_asked_leaves_a_write_in_doubt() {
    let mut world = World::new(5, 3, &[4, 5]);
    let mut write = begin(&mut world);
    let elsewhere: Vec<NodeId> = vec![node(4), node(5)];
    world.map.assignment.0 = vec![elsewhere; 4];
    world.run(|context| write.replan(context));
    assert_eq!(words_of_write(world.outcome()), "in doubt 0/2");
}

#[test]
fn a_truncation_is_a_write_like_any_other() {
    let mut world = World::new(3, 3, &[]);
    let operation = Operation::Truncate { namespace: NamespaceId::DEFAULT, at: Token(1 << 63) };
    let mut write = world.begin(Request::new(operation, ConsistencyLevel::Quorum)).expect("under way");
    let Some(Effect::Ask { request: ReplicaRequest::Truncate { partition, .. }, .. }) = world.effects.last() else {
        panic!("{:?}", world.effects)
    };
    assert_eq!(partition.0, 2);
    assert_eq!(world.asked(), ["truncate@1,2,3"]);
    let first = world.phase();
    feed(&mut world, &mut write, first, "1", "stored");
    feed(&mut world, &mut write, first, "3", "new");
    assert_eq!(world.asked(), ["truncate@1,2,3"], "it must lie above what is there");
    let second = world.phase();
    feed(&mut world, &mut write, second, "1", "stored");
    feed(&mut world, &mut write, second, "3", "stored");
    assert_eq!(words_of_write(world.outcome()), "applied 2");
}

#[test]
fn what_cannot_be_written_is_refused() {
    let context = CausalContext::from_iter([stamp(0).dot]);
    let put =
        |value: Vec<u8>, context| Operation::Put { key: key("k"), value: value.into(), expiry: Expiry::Never, context };
    let delete = Operation::Delete { key: key("k"), context: context.clone() };
    let mut named = Request::new(Operation::Get { key: key("k") }, ConsistencyLevel::One);
    named.op_id = Some(crate::types::OpId([1; 16]));
    let cases = [
        (
            Request::new(put(vec![0; 1025], CausalContext::default()), ConsistencyLevel::One),
            "not applied: ValueTooLong",
        ),
        (Request::new(put(vec![], context), ConsistencyLevel::One), "not applied: Invalid"),
        (Request::new(delete, ConsistencyLevel::One), "not applied: Invalid"),
        (named, "not applied: Invalid"),
    ];
    for (request, expected) in cases {
        let mut world = World::new(3, 3, &[]);
        assert!(world.begin(request).is_none());
        assert_eq!(words_of_write(world.outcome()), expected);
    }
}

#[test]
fn what_was_found_is_returned_only_if_the_write_of_it_succeeds() {
    for (word, expected) in [("stored", "v"), ("lost", "in doubt 0/1")] {
        let mut world = World::new(1, 1, &[]);
        let operation = Operation::SetExpiry { key: key("k"), expiry: Expiry::At(WallTime(5_000_000)) };
        let mut amend = world.begin(Request::new(operation, ConsistencyLevel::Quorum)).expect("under way");
        world.answer(&mut amend, 1, record(Some(Record::Last(value(-5, "v")))));
        let phase = world.phase();
        feed(&mut world, &mut amend, phase, "1", word);
        assert_eq!(words_of_write(world.outcome()), expected);
    }
}
