//! Writes, as a table: what the replicas answer, and what the client must be told.

use crate::protocol::request::fixture::{START, World, key, stamp};
use crate::types::{
    ConsistencyLevel, Content, Expiry, Failure, Moment, NodeId, Operation, Outcome, Refusal, Request, Response,
    WallTime,
};
use crate::wire::ReplicaResponse;

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
quorum | 3 | -   | 1:refused 2:refused 3:refused   | not applied
quorum | 3 | -   | 1:refused 2:unsent              | waiting
quorum | 3 | -   | 1:refused 2:unsent 3:unsent     | not applied
quorum | 3 | -   | 1:refused 2:lost                | in doubt 0/2
quorum | 3 | -   | 1:stored 2:lost 3:lost          | in doubt 1/2
quorum | 3 | -   | 1:stored 2:lost 3:stored        | applied 2
quorum | 3 | 3   | 1:stored 2:stored               | applied 2
quorum | 3 | 3   | 1:stored 2:refused              | in doubt 1/2
quorum | 3 | 2,3 |                                 | not applied: 1 of 2
one    | 3 | 2,3 | 1:stored                        | applied 1
one    | 3 | 2,3 | 1:refused                       | not applied
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
quorum | 3 | -   | 1:stored 1:stored               | waiting
quorum | 3 | -   | 9:stored 1:stored               | waiting
";

fn answer(word: &str) -> Answer {
    let response = match word {
        "stored" => ReplicaResponse::Stored,
        "refused" => ReplicaResponse::Refused(Refusal::Overloaded),
        "new" => ReplicaResponse::Superseded { by: stamp(100) },
        "far" => ReplicaResponse::Superseded { by: stamp(700) },
        "unsent" => return Answer::NotSent,
        "lost" => return Answer::Lost,
        _ => panic!("unknown answer {word}"),
    };
    Answer::Response(response)
}

fn put(level: ConsistencyLevel) -> Request {
    let operation = Operation::Put { key: key("k"), value: "v".into(), expiry: Expiry::Never };
    Request { operation, consistency: level, timeout: None }
}

fn words_of(outcome: Option<&Outcome>) -> String {
    match outcome {
        None => "waiting".into(),
        Some(Ok(Response::Written(reply))) => format!("applied {}", reply.acknowledged),
        Some(Err(Failure::InDoubt { acknowledged, needed })) => format!("in doubt {acknowledged}/{needed}"),
        Some(Err(Failure::NotApplied(Refusal::TooFewReplicas { alive, needed }))) => {
            format!("not applied: {alive} of {needed}")
        }
        Some(Err(Failure::NotApplied(_))) => "not applied".into(),
        other => format!("{other:?}"),
    }
}

fn deadline() -> Moment {
    START.moment.plus(std::time::Duration::from_millis(500))
}

/// The phase of what was asked last.
fn phase(world: &World) -> u8 {
    let phases = world.effects.iter().filter_map(|effect| match effect {
        Effect::Ask { phase, .. } => Some(*phase),
        _ => None,
    });
    phases.last().unwrap_or(0)
}

fn feed(world: &mut World, write: &mut Coordination, phase: u8, from: &str, word: &str) {
    let from = NodeId::new(from.parse().expect("a number")).expect("not zero");
    world.run(|context| write.answer(from, phase, answer(word), context));
}

#[test]
fn what_a_client_is_told() {
    for line in CASES.lines().filter(|line| !line.is_empty()) {
        let columns: Vec<&str> = line.split('|').map(str::trim).collect();
        let [level, replicas, unreachable, answers, expected] = columns[..] else { panic!("five columns: {line}") };
        let unreachable: Vec<u32> = unreachable.split(',').filter_map(|number| number.parse().ok()).collect();
        let replicas: u32 = replicas.parse().expect("a number");
        let mut world = World::new(replicas, replicas, &unreachable);
        let request = put(level.parse().expect("a level"));
        let begun = world.run(|context| Coordination::begin(request, deadline(), false, context));
        let sent = phase(&world);
        if let Some(mut write) = begun {
            for step in answers.split_whitespace() {
                if world.outcome().is_some() {
                    break;
                }
                match step.split_once(':') {
                    Some((from, word)) => feed(&mut world, &mut write, sent, from, word),
                    None => {
                        world.now.moment = deadline();
                        world.run(|context| write.wake(context));
                    }
                }
            }
        }
        assert_eq!(words_of(world.outcome()), expected, "{line}");
    }
}

#[test]
fn a_refused_write_is_seen_by_nobody() {
    let mut world = World::new(3, 3, &[2, 3]);
    let begun = world.run(|context| Coordination::begin(put(ConsistencyLevel::Quorum), deadline(), false, context));
    assert!(begun.is_none());
    assert_eq!(world.asked(), Vec::<String>::new());
}

#[test]
fn a_write_behind_a_faster_clock_goes_out_once_more_above_it() {
    let mut world = World::new(3, 3, &[]);
    let mut write = world
        .run(|context| Coordination::begin(put(ConsistencyLevel::Quorum), deadline(), false, context))
        .expect("under way");
    let first = phase(&world);
    assert_eq!(world.asked(), ["apply@1,2,3"]);
    feed(&mut world, &mut write, first, "1", "stored");
    feed(&mut world, &mut write, first, "2", "new");
    assert_eq!(words_of(world.outcome()), "waiting");
    let second = phase(&world);
    assert_ne!(first, second);
    assert_eq!(world.asked(), ["apply@1,2,3"]);
    // A late answer to the first attempt says nothing about the second.
    feed(&mut world, &mut write, first, "3", "stored");
    feed(&mut world, &mut write, second, "1", "stored");
    assert_eq!(words_of(world.outcome()), "waiting");
    // What is newer than the second attempt was written at the same time: it has won.
    feed(&mut world, &mut write, second, "2", "new");
    let Some(Ok(Response::Written(reply))) = world.outcome() else { panic!("{:?}", world.outcome()) };
    assert!(reply.stamp > stamp(100), "the second attempt lies above what superseded the first");
}

#[test]
fn a_write_behind_a_clock_that_is_too_fast_is_refused_or_in_doubt() {
    for (first_answer, expected) in [("far", "not applied"), ("stored", "in doubt 1/2")] {
        let mut world = World::new(2, 2, &[]);
        let mut write = world
            .run(|context| Coordination::begin(put(ConsistencyLevel::Quorum), deadline(), false, context))
            .expect("under way");
        let sent = phase(&world);
        feed(&mut world, &mut write, sent, "1", first_answer);
        feed(&mut world, &mut write, sent, "2", "far");
        assert_eq!(words_of(world.outcome()), expected);
    }
}

#[test]
fn a_new_map_is_asked_with_the_same_stamp() {
    let mut world = World::new(5, 3, &[]);
    let mut write = world
        .run(|context| Coordination::begin(put(ConsistencyLevel::Quorum), deadline(), false, context))
        .expect("under way");
    let version_of = |world: &World| match world.effects.last() {
        Some(Effect::Ask { request: crate::wire::ReplicaRequest::Apply { version, .. }, to, .. }) => {
            (version.clone(), to.clone())
        }
        other => panic!("{other:?}"),
    };
    let (first, _) = version_of(&world);
    world.map.assignment.0 = vec![vec![3, 4, 5].into_iter().map(|n| NodeId::new(n).expect("not zero")).collect(); 4];
    world.run(|context| write.replan(context));
    let (second, to) = version_of(&world);
    assert_eq!(first, second);
    assert_eq!(to.len(), 3);
    let again = phase(&world);
    for from in ["4", "5"] {
        feed(&mut world, &mut write, again, from, "stored");
    }
    assert_eq!(words_of(world.outcome()), "applied 2");
}

#[test]
fn a_value_above_the_limit_is_refused() {
    let mut world = World::new(3, 3, &[]);
    let operation = Operation::Put { key: key("k"), value: vec![0; 1025].into(), expiry: Expiry::Never };
    let request = Request { operation, consistency: ConsistencyLevel::One, timeout: None };
    assert!(world.run(|context| Coordination::begin(request, deadline(), false, context)).is_none());
    let refusal = Refusal::ValueTooLong { bytes: 1025, limit: 1024 };
    assert_eq!(world.outcome(), Some(&Err(Failure::NotApplied(refusal))));
}

#[test]
fn another_expiry_takes_its_place_right_behind_the_version_it_changes() {
    let mut world = World::new(1, 1, &[]);
    let operation = Operation::SetExpiry { key: key("k"), expiry: Expiry::At(WallTime(5_000_000)) };
    let request = Request { operation, consistency: ConsistencyLevel::Quorum, timeout: None };
    let mut amend = world.run(|context| Coordination::begin(request, deadline(), false, context)).expect("under way");
    assert_eq!(world.asked(), ["read@1"]);
    let old = crate::types::Version { stamp: stamp(-5), expires_at: None, content: Content::Value("v".into()) };
    let found = Answer::Response(ReplicaResponse::Version(Some(old.clone())));
    world.run(|context| amend.answer(NodeId::new(1).expect("not zero"), 0, found, context));
    let Some(Effect::Ask { phase, request: crate::wire::ReplicaRequest::Apply { version, .. }, .. }) =
        world.effects.last().cloned()
    else {
        panic!("{:?}", world.effects)
    };
    assert_eq!(version.stamp.timestamp, old.stamp.timestamp.next());
    assert_eq!((version.expires_at, version.content), (Some(WallTime(5_000_000)), old.content));
    feed(&mut world, &mut amend, phase, "1", "stored");
    assert!(matches!(world.outcome(), Some(Ok(Response::Read(Some(reply)))) if reply.value == "v"));
}
