//! Reads, as a table: what the replicas know, and what is asked and answered.

use crate::protocol::request::fixture::{START, World, key, node, stamp};
use crate::types::{
    ConsistencyLevel, Content, Failure, Moment, Operation, Outcome, Request, Response, Version, WallTime,
};
use crate::wire::ReplicaResponse;

use super::super::{Answer, Coordination};

/// `level | replicas | unreachable | steps | outcome`. A step is `node:what`: `v5` is the
/// value of 5 ms after the start, `d5` its digest, `t5`/`dt5` a tombstone with and without
/// content, `none`/`dnone` nothing, `x5`/`dx5` an expired value. `wait` passes 20 ms,
/// `time` the deadline; `[…]` is what must have been asked since.
const CASES: &str = "
quorum | 3 | -   | [read@1+digest@2] 1:v5 2:d5              | v5
quorum | 3 | -   | [read@1+digest@2] 2:d5 1:v5              | v5
quorum | 3 | -   | 1:v5 2:dnone                             | v5
quorum | 3 | -   | 1:none 2:dnone                           | none
quorum | 3 | -   | 1:none                                   | waiting
quorum | 3 | -   | 1:v5 2:d9 [read@1+digest@2,read@2] 2:v9  | v9
quorum | 3 | -   | 1:none 2:d9 2:v9                         | v9
quorum | 3 | -   | 1:v5 2:dt9                               | none
quorum | 3 | -   | 1:t5 2:d9 2:v9                           | v9
quorum | 3 | -   | 1:t9 2:d5                                | none
quorum | 3 | -   | 1:v5 2:dx9 2:x9                          | none
quorum | 3 | -   | 1:v5 2:d9 2:v12                          | v12
quorum | 3 | -   | 1:v5 2:d9 2:v7 [read@1+digest@2,read@2,digest@3] 3:d5 | v7
quorum | 3 | -   | 1:v5 2:d9 2:lost 3:d5                    | v5
quorum | 3 | -   | 1:v5 2:d9 2:lost 3:d9 3:v9               | v9
quorum | 3 | -   | 1:v5 2:lost [read@1+digest@2,digest@3] 3:dnone | v5
quorum | 3 | -   | 1:lost [read@1+digest@2,read@3] 2:dnone 3:v5   | v5
quorum | 3 | -   | 1:v5 2:lost 3:refused                    | failed
quorum | 3 | -   | 1:v5 2:lost 3:lost                       | not applied
quorum | 3 | -   | wait [read@1+digest@2,read@3] 3:v5 2:dnone     | v5
quorum | 3 | -   | 1:v5 wait [read@1+digest@2,digest@3] 3:d5      | v5
quorum | 3 | -   | 1:v5 wait 3:d9 2:d5 3:v9                 | v9
quorum | 3 | -   | 1:v5 time                                | timed out 1/2
quorum | 3 | 3   | 1:v5 2:lost                              | not applied
quorum | 3 | 2   | [read@1+digest@3] 1:v5 3:d5              | v5
quorum | 3 | 2,3 |                                          | not applied
one    | 3 | 2,3 | [read@1] 1:v5                            | v5
one    | 3 | -   | 1:none                                   | none
one    | 3 | -   | 1:lost [read@1,read@2] 2:v5              | v5
all    | 3 | -   | [read@1+digest@2,3] 1:v5 2:d5            | waiting
all    | 3 | -   | 1:v5 2:d5 3:d9 3:v9                      | v9
all    | 3 | -   | 1:v5 2:d5 3:lost                         | failed
quorum | 5 | -   | [read@1+digest@2,3] 1:v5 2:d7 3:d9 3:v9  | v9
";

fn version(word: &str) -> Option<Version> {
    if word == "none" {
        return None;
    }
    let (kind, ms) = word.split_at(1);
    let expires_at = (kind == "x").then_some(WallTime(1));
    let content = if kind == "t" { Content::Tombstone } else { Content::Value(word.to_owned().into()) };
    Some(Version { stamp: stamp(ms.parse().expect("milliseconds")), expires_at, content })
}

fn digest_of(word: &str) -> Option<Version> {
    let rest = &word[1..];
    if rest.starts_with(|first: char| first.is_ascii_digit()) { version(&format!("v{rest}")) } else { version(rest) }
}

fn answer(word: &str) -> Answer {
    Answer::Response(match word {
        "lost" => return Answer::Lost,
        "refused" => ReplicaResponse::Refused(crate::types::Refusal::Overloaded),
        digest if digest.starts_with('d') => ReplicaResponse::Digest(digest_of(digest).as_ref().map(Version::summary)),
        value => ReplicaResponse::Version(version(value)),
    })
}

fn words_of(outcome: Option<&Outcome>) -> String {
    match outcome {
        None => "waiting".into(),
        Some(Ok(Response::Read(None))) => "none".into(),
        Some(Ok(Response::Read(Some(reply)))) => String::from_utf8_lossy(&reply.value).into_owned(),
        Some(Err(Failure::TimedOut { answered, needed })) => format!("timed out {answered}/{needed}"),
        Some(Err(Failure::NotApplied(crate::types::Refusal::TooFewReplicas { alive: 1, needed: 2 }))) => {
            "not applied".into()
        }
        Some(Err(Failure::NotApplied(_))) => "failed".into(),
        other => format!("{other:?}"),
    }
}

fn deadline() -> Moment {
    START.moment.plus(std::time::Duration::from_millis(500))
}

fn begin(world: &mut World, level: ConsistencyLevel) -> Option<Coordination> {
    let operation = Operation::Get { key: key("k") };
    let request = Request { operation, consistency: level, timeout: None };
    world.run(|context| Coordination::begin(request, deadline(), false, context))
}

#[test]
fn what_is_asked_and_answered() {
    for line in CASES.lines().filter(|line| !line.is_empty()) {
        let columns: Vec<&str> = line.split('|').map(str::trim).collect();
        let [level, replicas, unreachable, steps, expected] = columns[..] else { panic!("five columns: {line}") };
        let unreachable: Vec<u32> = unreachable.split(',').filter_map(|number| number.parse().ok()).collect();
        let replicas: u32 = replicas.parse().expect("a number");
        let mut world = World::new(replicas, replicas, &unreachable);
        let Some(mut read) = begin(&mut world, level.parse().expect("a level")) else {
            assert_eq!(words_of(world.outcome()), expected, "{line}");
            continue;
        };
        let mut asked = world.asked().join("+");
        for step in steps.split_whitespace() {
            if let Some(list) = step.strip_prefix('[') {
                assert_eq!(asked, list.trim_end_matches(']'), "{line}");
                continue;
            }
            match step.split_once(':') {
                Some((from, word)) => {
                    let from = node(from.parse().expect("a number"));
                    world.run(|context| read.answer(from, 0, answer(word), context));
                }
                None => {
                    let pause = if step == "wait" { 20_000 } else { 500_000 };
                    world.now.moment.0 += pause;
                    world.run(|context| read.wake(context));
                }
            }
            for more in world.asked() {
                asked = format!("{asked},{more}");
            }
        }
        assert_eq!(words_of(world.outcome()), expected, "{line}");
    }
}

#[test]
fn an_answer_to_an_earlier_plan_counts_for_nothing() {
    let mut world = World::new(3, 3, &[]);
    let mut read = begin(&mut world, ConsistencyLevel::Quorum).expect("under way");
    world.run(|context| read.replan(context));
    world.run(|context| read.answer(node(1), 0, answer("v5"), context));
    world.run(|context| read.answer(node(2), 0, answer("d5"), context));
    assert_eq!(words_of(world.outcome()), "waiting");
    world.run(|context| read.answer(node(1), 1, answer("v5"), context));
    world.run(|context| read.answer(node(2), 1, answer("d5"), context));
    assert_eq!(words_of(world.outcome()), "v5");
}

#[test]
fn a_late_replica_is_asked_last_next_time() {
    let mut world = World::new(3, 3, &[]);
    world.peers.missed(node(2));
    begin(&mut world, ConsistencyLevel::Quorum).expect("under way");
    assert_eq!(world.asked(), ["read@1", "digest@3"]);
}
