//! Writes under an op-id, as a table: what the replicas have noted, and what it comes to.

use crate::protocol::request::fixture::{START, World, deadline, key, node, refused, value, words_of_write};
use crate::types::{
    CausalContext, Claim, ConsistencyLevel, Content, Expiry, Key, OpId, Operation, Record, Refusal, Request, Response,
    Timestamp, WallTime, limits,
};
use crate::wire::{ReplicaRequest, ReplicaResponse};

use super::super::{Answer, Coordination, Effect};

const OP: OpId = OpId([7; 16]);

fn put(level: ConsistencyLevel) -> Request {
    let (value, context) = ("v".into(), CausalContext::default());
    let operation = Operation::Put { key: key("k"), value, expiry: Expiry::Never, context };
    Request { op_id: Some(OP), ..Request::new(operation, level) }
}

fn resolve() -> Request {
    Request::new(Operation::Resolve { key: key("k"), op: OP }, ConsistencyLevel::Quorum)
}

/// What was asked to be noted.
fn claimed(world: &World) -> (Claim, WallTime) {
    let found = world.effects.iter().rev().find_map(|effect| match effect {
        Effect::Ask { request: ReplicaRequest::Claim { claim, until, op, .. }, .. } => {
            assert_eq!(*op, OP);
            Some((claim.clone(), *until))
        }
        _ => None,
    });
    found.unwrap_or_else(|| panic!("nothing was claimed: {:?}", world.effects))
}

/// A write under an op-id whose read is over and that has asked for claims.
fn claiming(world: &mut World, request: Request) -> Coordination {
    let mut write = world.begin(request).expect("under way");
    assert!(world.asked()[0].starts_with("digest@1"), "it reads first");
    let nothing = || Answer::Response(ReplicaResponse::Digest { digest: None, behind: false });
    for from in 1..=3 {
        world.answer_phase(&mut write, from, 0, nothing());
    }
    write
}

/// Claims by name: `mine` is what was asked for, `old` and `older` stand for earlier attempts
/// with other stamps, `other` for another write, `fence` for none.
fn claim(world: &World, word: &str) -> Claim {
    let attempt = |ms: i64, text: &str, key: Key| Claim::Write { key, version: value(ms, text) };
    match word {
        "mine" => claimed(world).0,
        "old" => attempt(-5, "v", key("k")),
        "older" => attempt(-50, "v", key("k")),
        "other" => attempt(-5, "w", key("k")),
        "elsewhere" => attempt(-5, "v", key("l")),
        "fence" => Claim::Fenced,
        _ => panic!("unknown claim {word}"),
    }
}

fn feed(world: &mut World, write: &mut Coordination, step: &str) {
    let (from, word) = step.split_once(':').expect("a node and a word");
    let answer = match word {
        "lost" => Answer::Lost,
        "unsent" => Answer::NotSent,
        "refused" => refused(Refusal::Overloaded),
        "stored" => Answer::Response(ReplicaResponse::Stored),
        claim_of => Answer::Response(ReplicaResponse::Noted(claim(world, claim_of))),
    };
    world.answer(write, from.parse().expect("a number"), answer);
}

/// `replicas | unreachable | answers to the claims | what is written then, or the outcome`.
const CASES: &str = "
3 | - | 1:mine                     | waiting
3 | - | 1:mine 2:mine              | writes mine
3 | - | 1:mine 2:old               | waiting
3 | - | 1:mine 2:old 3:old         | writes old
3 | - | 1:old 2:old                | writes old
3 | - | 1:old 2:mine 3:older       | writes older
3 | - | 1:older 2:old 3:mine       | writes older
3 | - | 1:mine 2:old 3:lost        | in doubt 0/2
3 | 3 | 1:mine 2:old               | in doubt 0/2
3 | 3 | 1:mine 2:mine              | writes mine
3 | - | 1:mine 2:lost 3:mine       | writes mine
3 | - | 1:mine 2:lost 3:refused    | in doubt 0/2
3 | - | 1:refused 2:unsent 3:refused | not applied: 0 of 2
3 | - | 1:refused 2:lost 3:refused | in doubt 0/2
3 | - | 1:fence 2:fence            | not applied: Fenced
3 | - | 1:mine 2:fence 3:fence     | not applied: Fenced
3 | - | 1:fence 2:mine 3:old       | writes old
3 | - | 1:fence 2:mine 3:lost      | in doubt 0/2
3 | - | 1:other 2:other            | not applied: OpIdReused
3 | - | 1:elsewhere 2:elsewhere    | not applied: OpIdReused
3 | - | 1:mine 1:mine              | waiting
3 | - | 1:mine 9:mine              | waiting
5 | - | 1:mine 2:mine              | waiting
5 | - | 1:mine 2:mine 3:mine       | writes mine
5 | - | 1:mine 2:mine 3:old 4:old 5:older | writes old
";

fn end_of(world: &World) -> String {
    match world.outcome() {
        None if matches!(world.effects.last(), Some(Effect::Ask { request: ReplicaRequest::Apply { .. }, .. })) => {
            let Record::Last(sent) = world.sent_record() else { panic!("a version") };
            let names = ["mine", "old", "older"];
            let same = |name: &&&str| matches!(claim(world, name), Claim::Write { version, .. } if version == sent);
            format!("writes {}", names.iter().find(same).expect("one of the claims"))
        }
        outcome => words_of_write(outcome),
    }
}

#[test]
fn what_an_op_id_comes_to() {
    for line in CASES.lines().filter(|line| !line.is_empty()) {
        let columns: Vec<&str> = line.split('|').map(str::trim).collect();
        let [replicas, unreachable, answers, expected] = columns[..] else { panic!("four columns: {line}") };
        let unreachable: Vec<u32> = unreachable.split(',').filter_map(|number| number.parse().ok()).collect();
        let replicas: u32 = replicas.parse().expect("a number");
        let mut world = World::new(replicas, replicas, &unreachable);
        let mut write = claiming(&mut world, put(ConsistencyLevel::Quorum));
        for step in answers.split_whitespace() {
            assert_eq!(end_of(&world), "waiting", "it has gone on before {step}: {line}");
            feed(&mut world, &mut write, step);
        }
        assert_eq!(end_of(&world), expected, "{line}");
    }
}

#[test]
fn resolving_fences_or_finds_the_write() {
    let cases = [
        ("1:fence 2:fence", "not applied: Fenced"),
        ("1:fence 2:older 3:older", "writes older"),
        ("1:fence 2:older 3:lost", "in doubt 0/2"),
        ("1:fence 2:older 3:fence", "not applied: Fenced"),
        ("1:fence 2:old 3:older", "writes older"),
        ("1:refused 2:refused 3:refused", "in doubt 0/2"),
    ];
    for (answers, expected) in cases {
        let mut world = World::new(3, 3, &[]);
        let mut request = world.begin(resolve()).expect("under way");
        assert_eq!(world.asked(), ["claim@1,2,3"]);
        assert_eq!(claimed(&world).0, Claim::Fenced);
        for step in answers.split_whitespace() {
            feed(&mut world, &mut request, step);
        }
        let end = if world.outcome().is_none() {
            let Record::Last(sent) = world.sent_record() else { panic!("a version") };
            assert_eq!(sent.stamp, value(-50, "v").stamp);
            "writes older".into()
        } else {
            words_of_write(world.outcome())
        };
        assert_eq!(end, expected, "{answers}");
    }
}

#[test]
fn what_is_decided_is_written_with_its_first_stamp_and_told_as_such() {
    let mut world = World::new(3, 3, &[]);
    let mut write = claiming(&mut world, put(ConsistencyLevel::Quorum));
    feed(&mut world, &mut write, "1:old");
    feed(&mut world, &mut write, "2:old");
    assert_eq!(world.asked(), ["claim@1,2,3", "apply@1,2,3"]);
    feed(&mut world, &mut write, "1:stored");
    feed(&mut world, &mut write, "3:stored");
    let Some(Ok(Response::Written(reply))) = world.outcome() else { panic!("{:?}", world.outcome()) };
    assert_eq!(reply.stamp, value(-5, "v").stamp, "a retry is told what the first was told");
}

#[test]
fn a_decided_write_that_is_refused_everywhere_is_in_doubt() {
    let mut world = World::new(3, 3, &[]);
    let mut write = claiming(&mut world, put(ConsistencyLevel::Quorum));
    for step in ["1:mine", "2:mine", "1:refused", "2:refused", "3:refused"] {
        assert_eq!(world.outcome(), None, "before {step}");
        feed(&mut world, &mut write, step);
        if world.outcome().is_some() {
            break;
        }
    }
    assert_eq!(words_of_write(world.outcome()), "in doubt 0/2", "somebody else may be writing it");
}

#[test]
fn what_was_there_lies_below_the_stamp_that_is_claimed() {
    let ahead = value(300, "old");
    let mut world = World::new(3, 3, &[]);
    let mut write = world.begin(put(ConsistencyLevel::Quorum)).expect("under way");
    let digest = || Some(Record::Last(ahead.summary()));
    for from in [1, 2] {
        world.answer_phase(
            &mut write,
            from,
            0,
            Answer::Response(ReplicaResponse::Digest { digest: digest(), behind: false }),
        );
    }
    let (claim, until) = claimed(&world);
    let Claim::Write { key: claimed_key, version } = claim else { panic!("a write") };
    assert_eq!((claimed_key, version.content), (key("k"), Content::Value("v".into())));
    assert!(version.stamp.timestamp > ahead.stamp.timestamp);
    assert_eq!(until, WallTime(START.wall.0 + 60_000));
}

#[test]
fn a_value_that_another_clock_wrote_too_far_ahead_is_not_written_over() {
    let ahead = value(700, "old");
    let mut world = World::new(3, 3, &[]);
    let mut write = world.begin(put(ConsistencyLevel::Quorum)).expect("under way");
    for from in [1, 2] {
        let digest = Some(Record::Last(ahead.summary()));
        world.answer_phase(&mut write, from, 0, Answer::Response(ReplicaResponse::Digest { digest, behind: false }));
    }
    assert_eq!(words_of_write(world.outcome()), "not applied: ClockSkew");
}

#[test]
fn at_level_one_a_majority_notes_it_all_the_same() {
    let mut world = World::new(3, 3, &[2, 3]);
    assert!(world.begin(put(ConsistencyLevel::One)).is_none(), "one replica cannot decide");
    assert_eq!(words_of_write(world.outcome()), "not applied: 1 of 2");
    let mut world = World::new(3, 3, &[]);
    let mut write = claiming(&mut world, put(ConsistencyLevel::One));
    feed(&mut world, &mut write, "1:mine");
    assert_eq!(end_of(&world), "waiting");
    feed(&mut world, &mut write, "3:mine");
    feed(&mut world, &mut write, "2:stored");
    assert_eq!(words_of_write(world.outcome()), "applied 1");
}

#[test]
fn the_time_is_over_while_claims_are_noted() {
    for (answers, expected) in
        [("", "in doubt 0/2"), ("1:mine", "in doubt 0/2"), ("1:refused 2:refused", "in doubt 0/2")]
    {
        let mut world = World::new(3, 3, &[]);
        let mut write = claiming(&mut world, put(ConsistencyLevel::Quorum));
        answers.split_whitespace().for_each(|step| feed(&mut world, &mut write, step));
        world.now.moment = deadline();
        world.run(|context| write.wake(context));
        assert_eq!(words_of_write(world.outcome()), expected, "{answers}");
    }
}

#[test]
fn a_peer_that_is_gone_may_have_noted_the_claim() {
    let mut world = World::new(3, 3, &[]);
    let mut write = claiming(&mut world, put(ConsistencyLevel::Quorum));
    for number in [2, 3] {
        world.run(|context| write.lose(node(number), context));
    }
    feed(&mut world, &mut write, "1:mine");
    assert_eq!(words_of_write(world.outcome()), "in doubt 0/2");
}

#[test]
fn a_deletion_may_carry_one_and_a_long_value_may_not() {
    let mut world = World::new(3, 3, &[]);
    let delete = Operation::Delete { key: key("k"), context: CausalContext::default() };
    claiming(&mut world, Request { op_id: Some(OP), ..Request::new(delete, ConsistencyLevel::Quorum) });
    let Claim::Write { version, .. } = claimed(&world).0 else { panic!("a write") };
    assert_eq!(version.content, Content::Tombstone);

    let mut world = World::new(3, 3, &[]);
    world.settings.max_value_bytes = limits::MAX_VALUE_BYTES;
    let long = vec![0; limits::OP_VALUE_BYTES + 1];
    let context = CausalContext::default();
    let operation = Operation::Put { key: key("k"), value: long.into(), expiry: Expiry::Never, context };
    assert!(world.begin(Request { op_id: Some(OP), ..Request::new(operation, ConsistencyLevel::Quorum) }).is_none());
    assert_eq!(words_of_write(world.outcome()), "not applied: ValueTooLong");
}

#[test]
fn it_may_keep_the_end_of_what_it_replaces() {
    let mut old = value(-5, "old");
    old.expires_at = Some(WallTime(START.wall.0 + 9_000));
    let mut world = World::new(1, 1, &[]);
    let (value, context) = ("v".into(), CausalContext::default());
    let operation = Operation::Put { key: key("k"), value, expiry: Expiry::Keep, context };
    let request = Request { op_id: Some(OP), ..Request::new(operation, ConsistencyLevel::Quorum) };
    let mut write = world.begin(request).expect("under way");
    let digest = Some(Record::Last(old.summary()));
    world.answer_phase(&mut write, 1, 0, Answer::Response(ReplicaResponse::Digest { digest, behind: false }));
    let Claim::Write { version, .. } = claimed(&world).0 else { panic!("a write") };
    assert_eq!(version.expires_at, old.expires_at);
}

#[test]
fn without_a_stamp_nothing_is_claimed() {
    for (raised, expected) in [(true, "waiting"), (false, "not applied: Overloaded")] {
        let mut world = World::new(3, 3, &[]);
        world.ceiling = Timestamp::default();
        let mut write = claiming(&mut world, put(ConsistencyLevel::Quorum));
        assert_eq!(world.asked(), ["raise"]);
        if raised {
            world.ceiling = Timestamp(u64::MAX);
            world.now.moment = write.next_timeout();
        } else {
            world.now.moment = deadline();
        }
        world.run(|context| write.wake(context));
        assert_eq!(world.asked() == ["claim@1,2,3"], raised);
        assert_eq!(words_of_write(world.outcome()), expected);
    }
}
