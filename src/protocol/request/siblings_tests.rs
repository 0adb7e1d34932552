//! Writes where concurrent values are kept: the lock, the own record, the own store, then the others.

use crate::protocol::request::fixture::{
    START, World, actor, cart_key, deadline, node, record, refused, words_of_write,
};
use crate::types::{
    CausalContext, ConsistencyLevel, Content, Counter, Dot, Expiry, Incarnation, Operation, Record, Refusal, Request,
    Siblings, Stamp, Timestamp, Version, WallTime, limits,
};
use crate::wire::ReplicaResponse;

use super::super::{Answer, Coordination};

fn put(context: CausalContext) -> Request {
    let operation = Operation::Put { key: cart_key("k"), value: "new".into(), expiry: Expiry::Never, context };
    Request::new(operation, ConsistencyLevel::Quorum)
}

/// A write that holds the lock and has asked its own store.
fn reading(world: &mut World, request: Request) -> Coordination {
    let mut write = world.begin(request).expect("under way");
    assert_eq!(world.asked(), ["lock"]);
    world.run(|context| write.granted(context));
    assert_eq!(world.asked(), ["read@1"]);
    write
}

/// A version that an actor wrote before the start.
fn version(number: u32, counter: u64, ms: u64) -> Version {
    let dot = Dot { actor: actor(number), counter: Counter(counter) };
    let stamp = Stamp { timestamp: Timestamp::at(WallTime(START.wall.0 - 1_000 + ms)), dot };
    Version { stamp, expires_at: None, content: Content::Value("old".into()) }
}

fn held(versions: &[Version]) -> Record {
    Record::Siblings(Siblings::new(versions.to_vec(), CausalContext::default()))
}

fn knowing(versions: &[&Version]) -> CausalContext {
    let mut context = CausalContext::default();
    versions.iter().for_each(|version| context.insert_stamp(version.stamp));
    context
}

fn stored() -> Answer {
    Answer::Response(ReplicaResponse::Stored)
}

/// The values of the record that was sent, in the order of their dots.
fn sent(world: &World) -> Vec<(u32, u64)> {
    let record = world.sent_record();
    let dots = record.versions().iter().map(|version| version.stamp.dot);
    dots.map(|dot| (dot.actor.node.number(), dot.counter.0)).collect()
}

#[test]
fn the_lock_then_the_own_record_then_the_own_store_then_the_others() {
    let mut world = World::new(3, 3, &[]);
    let mut write = reading(&mut world, put(CausalContext::default()));
    world.answer(&mut write, 1, record(None));
    assert_eq!(world.asked(), ["append"]);
    let own = world.sent_record();
    // Others have nothing to say yet.
    world.answer(&mut write, 2, stored());
    assert_eq!(world.asked(), Vec::<String>::new());
    world.answer(&mut write, 1, stored());
    assert_eq!(world.asked(), ["apply@2,3"]);
    assert_eq!(world.sent_record(), own, "what the others get is what is stored here");
    assert_eq!(words_of_write(world.outcome()), "waiting");
    world.answer(&mut write, 3, stored());
    assert_eq!(words_of_write(world.outcome()), "applied 2");
}

#[test]
fn at_level_one_the_own_store_is_enough() {
    let mut world = World::new(3, 3, &[]);
    let mut request = put(CausalContext::default());
    request.consistency = ConsistencyLevel::One;
    let mut write = reading(&mut world, request);
    world.answer(&mut write, 1, record(None));
    world.answer(&mut write, 1, stored());
    assert_eq!(world.asked(), ["append", "apply@2,3"], "the others get it all the same");
    assert_eq!(words_of_write(world.outcome()), "applied 1");
}

#[test]
fn a_context_replaces_what_it_covers_and_nothing_else() {
    let (one, two, three) = (version(7, 4, 1), version(8, 5, 2), version(9, 6, 3));
    let all = [one.clone(), two.clone(), three.clone()];
    let cases = [
        (CausalContext::default(), vec![(1, 1), (7, 4), (8, 5), (9, 6)]),
        (knowing(&[&two]), vec![(1, 1), (7, 4), (9, 6)]),
        (knowing(&[&one, &two, &three]), vec![(1, 1)]),
        // Of node 7 only an earlier write was seen.
        (knowing(&[&version(7, 3, 1)]), vec![(1, 1), (7, 4), (8, 5), (9, 6)]),
    ];
    for (context, expected) in cases {
        let mut world = World::new(3, 3, &[]);
        let mut write = reading(&mut world, put(context.clone()));
        world.answer(&mut write, 1, record(Some(held(&all))));
        assert_eq!(sent(&world), expected, "{context:?}");
        let Record::Siblings(siblings) = world.sent_record() else { panic!("siblings") };
        assert!(all.iter().all(|version| siblings.context().covers(version.stamp.dot)), "what was known stays known");
        assert!(siblings.context().covers_all(&context));
    }
}

#[test]
fn a_write_is_newer_than_all_that_it_knows_and_all_that_is_there() {
    let ahead = START.wall.0 + 400;
    let mut known = version(7, 1, 0);
    known.stamp.timestamp = Timestamp::at(WallTime(ahead));
    for (context, present) in [(knowing(&[&known]), None), (CausalContext::default(), Some(held(&[known])))] {
        let mut world = World::new(3, 3, &[]);
        let mut write = reading(&mut world, put(context));
        world.answer(&mut write, 1, record(present));
        let newest = world.sent_record().newest_stamp().expect("a version");
        assert_eq!(newest.dot.actor, actor(1));
        assert!(newest.timestamp > Timestamp::at(WallTime(ahead)));
    }
}

#[test]
fn a_context_from_the_far_future_is_refused() {
    let mut known = version(7, 1, 0);
    known.stamp.timestamp = Timestamp::at(WallTime(START.wall.0 + 501));
    let mut world = World::new(3, 3, &[]);
    let mut write = reading(&mut world, put(knowing(&[&known])));
    world.answer(&mut write, 1, record(None));
    assert_eq!(words_of_write(world.outcome()), "not applied: ClockSkew");
    assert_eq!(world.asked(), Vec::<String>::new());
}

#[test]
fn one_value_more_than_may_be_is_refused_before_anything_is_stored() {
    let versions: Vec<Version> = (1..=32).map(|counter| version(7, counter, counter)).collect();
    let cases = [
        (31, CausalContext::default(), "waiting"),
        (32, CausalContext::default(), "not applied: TooManySiblings"),
        (32, knowing(&[&versions[0]]), "waiting"),
        (32, knowing(&[&versions[31]]), "waiting"),
    ];
    for (number, context, expected) in cases {
        let mut world = World::new(3, 3, &[]);
        let mut write = reading(&mut world, put(context));
        world.answer(&mut write, 1, record(Some(held(&versions[..number]))));
        assert_eq!(words_of_write(world.outcome()), expected, "{number}");
        let appended: &[&str] = if expected == "waiting" { &["append"] } else { &[] };
        assert_eq!(world.asked(), appended);
    }
}

#[test]
fn one_writer_more_than_a_context_may_name_is_refused() {
    let lives = |number: usize| {
        let life = |index: usize| crate::types::Actor { node: node(7), incarnation: Incarnation(index as u64) };
        CausalContext::from_iter((0..number).map(|index| Dot { actor: life(index), counter: Counter(1) }))
    };
    for (number, expected) in
        [(limits::CONTEXT_ACTORS, "not applied: Invalid"), (limits::CONTEXT_ACTORS - 1, "waiting")]
    {
        let mut world = World::new(3, 3, &[]);
        let mut write = reading(&mut world, put(lives(number)));
        world.answer(&mut write, 1, record(None));
        assert_eq!(words_of_write(world.outcome()), expected, "{number}");
    }
    // Together with what is there already.
    let mut world = World::new(3, 3, &[]);
    let mut write = reading(&mut world, put(lives(limits::CONTEXT_ACTORS - 1)));
    world.answer(&mut write, 1, record(Some(held(&[version(9, 1, 1)]))));
    assert_eq!(words_of_write(world.outcome()), "not applied: Invalid");
}

#[test]
fn what_its_own_store_has_refused_was_not_applied() {
    let unsent = || Answer::NotSent;
    let full = || refused(Refusal::Overloaded);
    for (answer, expected) in [(full(), "not applied: Overloaded"), (unsent(), "not applied: Overloaded")] {
        let mut world = World::new(3, 3, &[]);
        let mut write = reading(&mut world, put(CausalContext::default()));
        world.answer(&mut write, 1, answer.clone());
        assert_eq!(words_of_write(world.outcome()), expected, "while reading");
        let mut world = World::new(3, 3, &[]);
        let mut write = reading(&mut world, put(CausalContext::default()));
        world.answer(&mut write, 1, record(None));
        world.answer(&mut write, 1, answer);
        assert_eq!(words_of_write(world.outcome()), expected, "while storing");
        assert_eq!(world.asked(), ["append"], "nobody else has seen it");
    }
    let mut world = World::new(3, 3, &[]);
    let mut write = reading(&mut world, put(CausalContext::default()));
    world.answer(&mut write, 1, record(None));
    world.answer(&mut write, 1, refused(Refusal::Behind { horizon: Timestamp(1) }));
    assert_eq!(words_of_write(world.outcome()), "not applied: Behind");
}

#[test]
fn once_it_is_stored_here_a_bad_end_is_in_doubt() {
    let mut world = World::new(3, 3, &[]);
    let mut write = reading(&mut world, put(CausalContext::default()));
    world.answer(&mut write, 1, record(None));
    world.answer(&mut write, 1, stored());
    world.answer(&mut write, 2, refused(Refusal::Overloaded));
    world.answer(&mut write, 3, refused(Refusal::Overloaded));
    assert_eq!(words_of_write(world.outcome()), "in doubt 1/2");
}

#[test]
fn the_deadline_finds_it_nowhere_or_in_doubt() {
    for (steps, expected) in
        [(0, "not applied: Overloaded"), (1, "not applied: Overloaded"), (2, "in doubt 0/2"), (3, "in doubt 1/2")]
    {
        let mut world = World::new(3, 3, &[]);
        let mut write = world.begin(put(CausalContext::default())).expect("under way");
        if steps > 0 {
            world.run(|context| write.granted(context));
        }
        for answer in [record(None), stored()].into_iter().take(steps.max(1) - 1) {
            world.answer(&mut write, 1, answer);
        }
        world.now.moment = deadline();
        world.run(|context| write.wake(context));
        assert_eq!(words_of_write(world.outcome()), expected, "after {steps} steps");
    }
}

#[test]
fn a_level_that_cannot_be_met_is_refused_when_its_turn_comes() {
    let mut world = World::new(3, 3, &[2, 3]);
    let mut write = world.begin(put(CausalContext::default())).expect("it waits for its turn first");
    world.run(|context| write.granted(context));
    assert_eq!(words_of_write(world.outcome()), "not applied: 1 of 2");
}

#[test]
fn an_op_id_is_not_offered_here() {
    let mut request = put(CausalContext::default());
    request.op_id = Some(crate::types::OpId([1; 16]));
    let mut world = World::new(3, 3, &[]);
    assert!(world.begin(request).is_none());
    assert_eq!(words_of_write(world.outcome()), "not applied: Invalid");
}

#[test]
fn without_a_stamp_it_reads_again_under_its_lock() {
    let mut world = World::new(3, 3, &[]);
    world.ceiling = Timestamp::default();
    let mut write = reading(&mut world, put(CausalContext::default()));
    world.answer(&mut write, 1, record(None));
    assert_eq!(world.asked(), ["raise"]);
    world.ceiling = Timestamp(u64::MAX);
    world.now.moment = write.next_timeout();
    world.run(|context| write.wake(context));
    assert_eq!(world.asked(), ["read@1"]);
    world.answer(&mut write, 1, record(None));
    assert_eq!(world.asked(), ["append"]);
}
