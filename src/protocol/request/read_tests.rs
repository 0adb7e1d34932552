//! Reads, as a table: what the replicas know, and what is asked, mended and answered.

use crate::protocol::request::fixture::{
    START, World, actor, cart_key, deadline, key, node, record, refused, stamp, value, words_of_write,
};
use crate::types::{
    CausalContext, ConsistencyLevel, Content, Counter, Dot, Failure, Key, Operation, Outcome, Record, Refusal, Request,
    Response, Siblings, Version, VersionVector, WallTime,
};
use crate::wire::{ReplicaRequest, ReplicaResponse};

use super::super::{Answer, Effect};

/// `kind level | replicas | unreachable | steps | outcome`. A step is `node:what`: `v5` is the
/// value of 5 ms after the start, `d5` its digest, `t5`/`dt5` a tombstone with and without
/// content, `none`/`dnone` nothing, `x5`/`dx5` an expired value; a `~` behind it says that the
/// replica lacks something that the session has seen. `stored`, `superseded`, `refused`,
/// `unsent`, `lost` answer a repair too. `wait` passes 20 ms, `slow` 80 ms, `time` the
/// deadline; `[…]` is all that must have been asked so far.
const CASES: &str = "
get quorum | 3 | -   | [read@1+digest@2] 1:v5 2:d5              | v5
get quorum | 3 | -   | [read@1+digest@2] 2:d5 1:v5              | v5
get quorum | 3 | -   | 1:none 2:dnone [read@1+digest@2]         | none
get quorum | 3 | -   | 1:none                                   | waiting
get quorum | 3 | -   | 1:v5 2:lost 3:refused                    | failed
get quorum | 3 | -   | 1:v5 2:lost 3:lost                       | not applied
get quorum | 3 | -   | wait [read@1+digest@2,read@3] 3:v5 2:d5  | v5
get quorum | 3 | -   | 1:v5 wait [read@1+digest@2,digest@3] 3:d5 | v5
get quorum | 3 | -   | 1:v5 time                                | timed out 1/2
get quorum | 3 | 3   | 1:v5 2:lost                              | not applied
get quorum | 3 | 2   | [read@1+digest@3] 1:v5 3:d5              | v5
get quorum | 3 | 2,3 |                                          | not applied
get one    | 3 | 2,3 | [read@1] 1:v5                            | v5
get one    | 3 | -   | 1:none                                   | none
get one    | 3 | -   | 1:lost [read@1,read@2] 2:v5              | v5
get all    | 3 | -   | [read@1+digest@2,3] 1:v5 2:d5            | waiting
get all    | 3 | -   | 1:v5 2:d5 3:lost                         | failed
";

/// A quorum read mends the stale replicas among those that it was answered by, and only then
/// answers.
const BLOCKING_REPAIR: &str = "
get quorum | 3 | -   | 1:v5 2:dnone [read@1+digest@2,apply@2]   | waiting
get quorum | 3 | -   | 1:v5 2:dnone 2:stored                    | v5
get quorum | 3 | -   | 1:v5 2:dnone 2:superseded                | v5
get quorum | 3 | -   | 1:v5 2:d3 [read@1+digest@2,apply@2]      | waiting
get quorum | 3 | -   | 1:v5 2:d9 [read@1+digest@2,read@2] 2:v9 [read@1+digest@2,read@2,apply@1] | waiting
get quorum | 3 | -   | 1:v5 2:d9 2:v9 1:stored                  | v9
get quorum | 3 | -   | 1:none 2:d9 2:v9 1:stored                | v9
get quorum | 3 | -   | 1:v5 2:dt9 [read@1+digest@2,apply@1]     | waiting
get quorum | 3 | -   | 1:v5 2:dt9 1:stored                      | none
get quorum | 3 | -   | 1:none 2:dt9 [read@1+digest@2,apply@1]   | waiting
get quorum | 3 | -   | 1:none 2:dt9 1:stored                    | none
get quorum | 3 | -   | 1:t5 2:d9 2:v9 1:stored                  | v9
get quorum | 3 | -   | 1:t9 2:d5 [read@1+digest@2,apply@2] 2:stored | none
get quorum | 3 | -   | 1:v5 2:dx9 2:x9 1:stored                 | none
get quorum | 3 | -   | 1:v5 2:d9 2:v12 1:stored                 | v12
get quorum | 3 | -   | 1:v5 2:d9 2:v7 [read@1+digest@2,read@2,digest@3] 3:d5 | v5
get quorum | 3 | -   | 1:v5 2:d9 2:none 3:d7 3:v7 [read@1+digest@2,read@2,digest@3,read@3,apply@1] 1:stored | v7
get quorum | 3 | -   | 1:v5 2:d9 2:lost 3:d5                    | v5
get quorum | 3 | -   | 1:v5 2:d9 2:lost 3:d9 3:v9 1:stored      | v9
get quorum | 3 | -   | 1:v5 2:lost [read@1+digest@2,digest@3] 3:dnone 3:stored | v5
get quorum | 3 | -   | 1:lost [read@1+digest@2,read@3] 2:dnone 3:v5 2:stored | v5
get quorum | 3 | -   | wait 3:v5 2:dnone [read@1+digest@2,read@3,apply@2] 2:stored | v5
get quorum | 3 | -   | 1:v5 wait 3:d9 3:v9 2:d5 [read@1+digest@2,digest@3,read@3,apply@1,apply@2] 2:stored | v9
get quorum | 5 | -   | [read@1+digest@2,3] 1:v5 2:d7 3:d9 3:v9 1:stored | waiting
get quorum | 5 | -   | 1:v5 2:d7 3:d9 3:v9 1:stored 2:stored    | v9
get all    | 3 | -   | 1:v5 2:d5 3:d9 3:v9 [read@1+digest@2,3,read@3,apply@1,2] 1:stored | waiting
get all    | 3 | -   | 1:v5 2:d5 3:d9 3:v9 1:stored 2:stored    | v9
";

/// A repair that does not come about is made up for by a further replica.
const FAILED_REPAIR: &str = "
get quorum | 3 | -   | 1:v5 2:dnone 2:refused [read@1+digest@2,apply@2,digest@3] 3:d5 | v5
get quorum | 3 | -   | 1:v5 2:dnone 2:unsent 3:d5               | v5
get quorum | 3 | -   | 1:v5 2:dnone 2:lost 3:d5                 | v5
get quorum | 3 | -   | 1:v5 2:dnone 2:lost 3:d9                 | v5
get quorum | 3 | -   | 1:v5 2:dnone 2:refused 3:d3 [read@1+digest@2,apply@2,digest@3,apply@3] | waiting
get quorum | 3 | -   | 1:v5 2:dnone 2:refused 3:d3 3:stored     | v5
get quorum | 3 | -   | 1:v5 2:dnone 2:lost 3:dnone 3:lost       | not applied
get quorum | 3 | -   | 1:v5 2:dnone 2:lost 3:lost               | not applied
get quorum | 3 | -   | 1:v5 2:dnone 2:lost 3:refused            | failed
get quorum | 3 | -   | 1:v5 2:dnone wait [read@1+digest@2,apply@2] | waiting
get quorum | 3 | -   | 1:v5 2:dnone slow [read@1+digest@2,apply@2,digest@3] 3:d5 | v5
get quorum | 3 | -   | 1:v5 2:dnone slow 2:stored               | v5
get quorum | 3 | -   | 1:v5 2:dnone slow 3:dnone [read@1+digest@2,apply@2,digest@3,apply@3] 2:stored | v5
get quorum | 3 | -   | 1:v5 2:dnone time                        | timed out 1/2
get quorum | 3 | -   | 1:v5 2:dnone 2:d9                        | waiting
get all    | 3 | -   | 1:v5 2:d5 3:dnone 3:refused              | failed
";

/// Below a quorum those that lack something are sent it and not waited for.
const BACKGROUND_REPAIR: &str = "
get two    | 5 | -   | 1:v5 2:dnone [read@1+digest@2,apply@2]   | v5
get two    | 5 | -   | 1:none 2:d9 2:v9 [read@1+digest@2,read@2,apply@1] | v9
get one    | 3 | -   | wait [read@1,read@2] 2:v9                | v9
get two    | 5 | -   | 1:none wait [read@1+digest@2,digest@3] 3:d9 3:v9 [read@1+digest@2,digest@3,read@3,apply@1] | v9
head two   | 5 | -   | 1:d5 2:dnone [digest@1,2,read@1] 1:v5 [digest@1,2,read@1,apply@2] | h5
";

/// Without values: they are fetched if somebody has to be sent them.
const HEAD: &str = "
head quorum | 3 | -  | [digest@1,2] 1:d5 2:d5                   | h5
head quorum | 3 | -  | 1:dnone 2:dnone                          | none
head quorum | 3 | -  | 1:d5 2:dnone [digest@1,2,read@1] 1:v5 [digest@1,2,read@1,apply@2] | waiting
head quorum | 3 | -  | 1:d5 2:dnone 1:v5 2:stored               | h5
head quorum | 3 | -  | 1:d5 2:d9 [digest@1,2,read@2] 2:v9 1:stored | h9
head quorum | 3 | -  | 1:dt5 2:dnone [digest@1,2,apply@2]       | waiting
head quorum | 3 | -  | 1:dt5 2:dnone 2:stored                   | none
head quorum | 3 | -  | 1:dx5 2:dx5                              | none
head one    | 3 | -  | [digest@1] 1:d5                          | h5
";

/// Within a session replicas are asked until one has had all that the session names.
const SESSION: &str = "
session one    | 3 | -   | [read@1] 1:v5                        | v5
session one    | 3 | -   | 1:v5~ [read@1,digest@2]              | waiting
session one    | 3 | -   | 1:v5~ 2:d5~ [read@1,digest@2,digest@3] | waiting
session one    | 3 | -   | 1:v5~ 2:d5~ 3:d5                     | v5
session one    | 3 | -   | 1:v5~ 2:d5~ 3:d5~                    | v5
session one    | 3 | -   | 1:v5~ 2:d9 [read@1,digest@2,read@2] 2:v9 [read@1,digest@2,read@2,apply@1] | v9
session one    | 3 | -   | 1:none~ 2:dnone~ 3:dnone~            | none
session one    | 3 | 2,3 | 1:v5~                                | not applied
session quorum | 3 | -   | 1:v5~ 2:d5                           | v5
session quorum | 3 | -   | 1:v5~ 2:d5~ [read@1+digest@2,digest@3] 3:d5 | v5
session quorum | 3 | -   | 1:v5~ 2:d5~ 3:lost                   | failed
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
    let (word, behind) = word.strip_suffix('~').map_or((word, false), |word| (word, true));
    Answer::Response(match word {
        "lost" => return Answer::Lost,
        "unsent" => return Answer::NotSent,
        "refused" => ReplicaResponse::Refused(Refusal::Overloaded),
        "stored" => ReplicaResponse::Stored,
        "superseded" => ReplicaResponse::Superseded { by: stamp(50) },
        digest if digest.starts_with('d') => {
            let digest = digest_of(digest).map(|version| Record::Last(version.summary()));
            ReplicaResponse::Digest { digest, behind }
        }
        value => ReplicaResponse::Record { record: version(value).map(Record::Last), behind },
    })
}

fn words_of(outcome: Option<&Outcome>) -> String {
    match outcome {
        Some(Ok(Response::Head(summary))) => {
            summary.map_or("none".into(), |summary| format!("h{}", summary.stamp.timestamp.wall().0 - START.wall.0))
        }
        Some(Err(Failure::TimedOut { answered, needed })) => format!("timed out {answered}/{needed}"),
        Some(Err(Failure::NotApplied(Refusal::TooFewReplicas { alive: 1, needed: 2 }))) => "not applied".into(),
        Some(Err(Failure::NotApplied(_))) => "failed".into(),
        other => words_of_write(other),
    }
}

fn seen() -> VersionVector {
    VersionVector::from_iter([Dot { actor: actor(7), counter: Counter(3) }])
}

fn request(words: &str, key: Key) -> Request {
    let (kind, level) = words.split_once(' ').expect("a kind and a level");
    let level = level.trim().parse().expect("a level");
    let mut request = Request::new(Operation::Get { key: key.clone() }, level);
    match kind {
        "head" => request.operation = Operation::Head { key },
        "session" => request.session = seen(),
        _ => {}
    }
    request
}

fn run(cases: &str) {
    for line in cases.lines().filter(|line| !line.is_empty()) {
        let columns: Vec<&str> = line.split('|').map(str::trim).collect();
        let [words, replicas, unreachable, steps, expected] = columns[..] else { panic!("five columns: {line}") };
        let unreachable: Vec<u32> = unreachable.split(',').filter_map(|number| number.parse().ok()).collect();
        let replicas: u32 = replicas.parse().expect("a number");
        let mut world = World::new(replicas, replicas, &unreachable);
        let Some(mut read) = world.begin(request(words, key("k"))) else {
            assert_eq!(words_of(world.outcome()), expected, "{line}");
            continue;
        };
        let mut asked = world.asked().join("+");
        for step in steps.split_whitespace() {
            if let Some(list) = step.strip_prefix('[') {
                assert_eq!(asked, list.trim_end_matches(']'), "{line}");
                continue;
            }
            assert!(world.outcome().is_none(), "it has ended before {step}: {line}");
            match step.split_once(':') {
                Some((from, word)) => {
                    let from = node(from.parse().expect("a number"));
                    world.run(|context| read.answer(from, 0, answer(word), context));
                }
                None => {
                    world.now.moment.0 += match step {
                        "wait" => 20_000,
                        "slow" => 80_000,
                        _ => 500_000,
                    };
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
fn what_is_asked_and_answered() {
    run(CASES);
}

#[test]
fn a_quorum_read_mends_before_it_answers() {
    run(BLOCKING_REPAIR);
}

#[test]
fn a_repair_that_fails_or_is_late_is_made_up_for() {
    run(FAILED_REPAIR);
}

#[test]
fn below_a_quorum_nobody_waits_for_a_repair() {
    run(BACKGROUND_REPAIR);
}

#[test]
fn a_read_without_values_fetches_what_it_must_send() {
    run(HEAD);
}

#[test]
fn a_session_sees_what_it_has_seen() {
    run(SESSION);
}

#[test]
fn what_the_session_has_seen_goes_with_every_question() {
    let mut world = World::new(3, 3, &[]);
    world.begin(request("session all", key("k"))).expect("under way");
    let afters: Vec<&VersionVector> = world
        .effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::Ask {
                request: ReplicaRequest::Read { after, .. } | ReplicaRequest::Digest { after, .. }, ..
            } => Some(after),
            _ => None,
        })
        .collect();
    assert_eq!(afters, [&seen(), &seen()]);
}

#[test]
fn what_is_sent_to_a_stale_replica_is_what_is_returned() {
    let mut world = World::new(3, 3, &[]);
    let mut read = world.begin(request("get quorum", key("k"))).expect("under way");
    for (from, word) in [(1, "v5"), (2, "dt9")] {
        world.run(|context| read.answer(node(from), 0, answer(word), context));
    }
    assert_eq!(world.sent_record(), Record::Last(version("t9").expect("a tombstone")));
    assert!(world.effects.contains(&Effect::Repairs(1)));
}

/// One version of an actor, and the context that goes with it.
fn sibling(number: u32, counter: u64, text: &str) -> Version {
    let mut version = value(i64::from(number), text);
    version.stamp.dot = Dot { actor: actor(number), counter: Counter(counter) };
    version
}

fn siblings(versions: &[Version]) -> Record {
    Record::Siblings(Siblings::new(versions.to_vec(), CausalContext::default()))
}

#[test]
fn siblings_of_several_replicas_come_together_and_are_sent_to_all_that_lack_some() {
    let (one, two) = (sibling(1, 1, "one"), sibling(2, 1, "two"));
    let mut world = World::new(3, 3, &[]);
    let mut read = world.begin(request("get quorum", cart_key("k"))).expect("under way");
    world.asked();
    world.answer(&mut read, 1, record(Some(siblings(std::slice::from_ref(&one)))));
    let digest = Some(siblings(std::slice::from_ref(&two)).digest());
    world.answer(&mut read, 2, Answer::Response(ReplicaResponse::Digest { digest, behind: false }));
    assert_eq!(world.asked(), ["read@2"], "neither has all");
    world.answer(&mut read, 2, record(Some(siblings(std::slice::from_ref(&two)))));
    assert_eq!(world.asked(), ["apply@1,2"]);
    assert_eq!(world.sent_record(), siblings(&[one.clone(), two.clone()]));
    world.answer(&mut read, 1, Answer::Response(ReplicaResponse::Stored));
    assert_eq!(world.outcome(), None);
    world.answer(&mut read, 2, Answer::Response(ReplicaResponse::Stored));
    let Some(Ok(Response::Read(Some(reply)))) = world.outcome() else { panic!("{:?}", world.outcome()) };
    assert_eq!((reply.value.as_ref(), reply.siblings.len()), (&b"two"[..], 1));
    assert_eq!((reply.siblings[0].value.as_ref(), reply.siblings[0].stamp), (&b"one"[..], one.stamp));
    assert!(reply.context.covers(one.stamp.dot) && reply.context.covers(two.stamp.dot));
    assert_eq!(reply.context.newest(), two.stamp.timestamp);
}

#[test]
fn a_sibling_that_somebody_has_replaced_stays_away() {
    // Node 2 knows node 1's first write and holds what has replaced it.
    let (old, new) = (sibling(1, 1, "old"), sibling(2, 1, "new"));
    let known = CausalContext::from_iter([old.stamp.dot]);
    let newer = Record::Siblings(Siblings::new(vec![new.clone()], known));
    let mut world = World::new(3, 3, &[]);
    let mut read = world.begin(request("get quorum", cart_key("k"))).expect("under way");
    world.answer(&mut read, 1, record(Some(siblings(std::slice::from_ref(&old)))));
    let digest = Some(newer.digest());
    world.answer(&mut read, 2, Answer::Response(ReplicaResponse::Digest { digest, behind: false }));
    world.answer(&mut read, 2, record(Some(newer.clone())));
    assert_eq!(world.sent_record(), newer);
    world.answer(&mut read, 1, Answer::Response(ReplicaResponse::Stored));
    let Some(Ok(Response::Read(Some(reply)))) = world.outcome() else { panic!("{:?}", world.outcome()) };
    assert_eq!((reply.value.as_ref(), reply.siblings.len()), (&b"new"[..], 0));
}

#[test]
fn an_answer_to_an_earlier_plan_counts_for_nothing() {
    let mut world = World::new(3, 3, &[]);
    let mut read = world.begin(request("get quorum", key("k"))).expect("under way");
    world.run(|context| read.replan(context));
    world.run(|context| read.answer(node(1), 0, answer("v5"), context));
    world.run(|context| read.answer(node(2), 0, answer("d5"), context));
    assert_eq!(words_of(world.outcome()), "waiting");
    world.run(|context| read.answer(node(1), 1, answer("v5"), context));
    world.run(|context| read.answer(node(2), 1, answer("d5"), context));
    assert_eq!(words_of(world.outcome()), "v5");
}

#[test]
fn a_repair_under_an_earlier_plan_counts_for_nothing() {
    let mut world = World::new(3, 3, &[]);
    let mut read = world.begin(request("get quorum", key("k"))).expect("under way");
    world.run(|context| read.answer(node(1), 0, answer("v5"), context));
    world.run(|context| read.answer(node(2), 0, answer("dnone"), context));
    world.run(|context| read.replan(context));
    world.run(|context| read.answer(node(2), 0, answer("stored"), context));
    world.run(|context| read.answer(node(1), 1, answer("v5"), context));
    assert_eq!(words_of(world.outcome()), "waiting");
    world.run(|context| read.answer(node(2), 1, answer("d5"), context));
    assert_eq!(words_of(world.outcome()), "v5");
}

#[test]
fn a_late_replica_is_asked_last_next_time() {
    let mut world = World::new(3, 3, &[]);
    world.peers.missed(world.now.moment, node(2));
    world.begin(request("get quorum", key("k"))).expect("under way");
    assert_eq!(world.asked(), ["read@1", "digest@3"]);
}

#[test]
fn what_is_no_read_of_this_cluster_is_refused() {
    let mut world = World::new(3, 3, &[]);
    assert!(world.begin(Request::new(Operation::Get { key: key("k") }, ConsistencyLevel::Any)).is_none());
    assert!(matches!(world.outcome(), Some(Err(Failure::NotApplied(Refusal::Invalid(_))))));
    let unknown = Key::new(crate::types::NamespaceId(9), &b"k"[..]).expect("a key");
    let mut world = World::new(3, 3, &[]);
    assert!(world.begin(Request::new(Operation::Get { key: unknown }, ConsistencyLevel::One)).is_none());
    assert_eq!(world.outcome(), Some(&Err(Failure::NotApplied(Refusal::UnknownNamespace))));
}

#[test]
fn a_read_that_waits_ends_at_its_deadline() {
    let mut world = World::new(3, 3, &[]);
    let mut read = world.begin(request("get all", key("k"))).expect("under way");
    world.answer(&mut read, 1, answer("v5"));
    world.answer(&mut read, 2, refused(Refusal::Overloaded));
    assert!(world.outcome().is_some(), "all cannot be met any more");
    assert!(read.next_timeout() <= deadline());
}
