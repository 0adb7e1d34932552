//! Changes that start from what is there.

use crate::protocol::request::fixture::{
    START, World, actor, cart_key, key, record, refused, stamp, value, words_of_write,
};
use crate::types::{
    CausalContext, ConsistencyLevel, Content, Counter, Dot, Expiry, Key, Operation, Record, Refusal, Request, Siblings,
    Version, WallTime,
};
use crate::wire::ReplicaResponse;

use super::super::{Answer, Coordination};

const LATER: WallTime = WallTime(START.wall.0 + 9_000);

fn set_expiry(key: Key, expiry: Expiry) -> Request {
    Request::new(Operation::SetExpiry { key, expiry }, ConsistencyLevel::Quorum)
}

fn put_and_keep(key: Key) -> Request {
    let (value, context) = ("new".into(), CausalContext::default());
    Request::new(Operation::Put { key, value, expiry: Expiry::Keep, context }, ConsistencyLevel::Quorum)
}

fn begin(world: &mut World, request: Request) -> Coordination {
    world.begin(request).expect("under way")
}

fn stored() -> Answer {
    Answer::Response(ReplicaResponse::Stored)
}

fn ending(mut version: Version, at: WallTime) -> Version {
    version.expires_at = Some(at);
    version
}

fn sent(world: &World) -> Version {
    let Record::Last(version) = world.sent_record() else { panic!("one version") };
    version
}

#[test]
fn another_end_takes_its_place_right_behind_the_version_it_changes() {
    let mut world = World::new(1, 1, &[]);
    let old = value(-5, "v");
    let mut amend = begin(&mut world, set_expiry(key("k"), Expiry::At(LATER)));
    assert_eq!(world.asked(), ["read@1"]);
    world.answer(&mut amend, 1, record(Some(Record::Last(old.clone()))));
    let new = sent(&world);
    assert_eq!(new.stamp.timestamp, old.stamp.timestamp.next(), "a value that was written meanwhile wins");
    assert_eq!(new.stamp.dot.actor, actor(1));
    assert_eq!((new.expires_at, new.content), (Some(LATER), old.content));
    world.answer(&mut amend, 1, stored());
    assert_eq!(words_of_write(world.outcome()), "v");
}

#[test]
fn a_value_that_was_written_meanwhile_is_left_alone() {
    let mut world = World::new(1, 1, &[]);
    let mut amend = begin(&mut world, set_expiry(key("k"), Expiry::At(LATER)));
    world.answer(&mut amend, 1, record(Some(Record::Last(value(-5, "v")))));
    world.asked();
    world.answer(&mut amend, 1, Answer::Response(ReplicaResponse::Superseded { by: stamp(0) }));
    assert_eq!(world.asked(), Vec::<String>::new(), "it is not tried again above it");
    assert_eq!(words_of_write(world.outcome()), "v");
}

#[test]
fn where_there_is_nothing_to_change_nothing_is_written() {
    let tombstone = Version { content: Content::Tombstone, ..value(-5, "") };
    let same = ending(value(-5, "v"), LATER);
    let cases = [
        (None, "none"),
        (Some(tombstone), "none"),
        (Some(ending(value(-5, "v"), WallTime(START.wall.0 - 1))), "none"),
        (Some(same), "v"),
    ];
    for (found, expected) in cases {
        let mut world = World::new(1, 1, &[]);
        let mut amend = begin(&mut world, set_expiry(key("k"), Expiry::At(LATER)));
        world.answer(&mut amend, 1, record(found.map(Record::Last)));
        assert_eq!(words_of_write(world.outcome()), expected);
        assert_eq!(world.asked(), ["read@1"]);
    }
}

#[test]
fn a_read_that_fails_has_changed_nothing() {
    for request in [set_expiry(key("k"), Expiry::Never), put_and_keep(key("k"))] {
        let mut world = World::new(3, 3, &[]);
        let mut amend = begin(&mut world, request.clone());
        for from in 1..=3 {
            if world.outcome().is_none() {
                world.answer(&mut amend, from, refused(Refusal::Overloaded));
            }
        }
        assert_eq!(words_of_write(world.outcome()), "not applied: Overloaded");

        let mut world = World::new(3, 3, &[]);
        let mut amend = begin(&mut world, request);
        world.now.moment = crate::protocol::request::fixture::deadline();
        world.run(|context| amend.wake(context));
        assert_eq!(words_of_write(world.outcome()), "not applied: 0 of 2");
    }
}

#[test]
fn a_write_may_keep_the_end_of_what_it_replaces() {
    let cases = [
        (Some(ending(value(-5, "v"), LATER)), Some(LATER)),
        (Some(value(-5, "v")), None),
        // What has ended already ends nothing else.
        (Some(ending(value(-5, "v"), WallTime(START.wall.0 - 1))), None),
        (None, None),
    ];
    for (found, expected) in cases {
        let mut world = World::new(1, 1, &[]);
        let mut amend = begin(&mut world, put_and_keep(key("k")));
        assert_eq!(world.asked(), ["digest@1"]);
        let digest = found.as_ref().map(|version| Record::Last(version.summary()));
        world.answer(&mut amend, 1, Answer::Response(ReplicaResponse::Digest { digest, behind: false }));
        let new = sent(&world);
        assert_eq!((new.expires_at, &new.content), (expected, &Content::Value("new".into())));
        assert!(new.stamp.timestamp >= crate::types::Timestamp::at(START.wall), "a write like any other");
        world.answer(&mut amend, 1, stored());
        assert_eq!(words_of_write(world.outcome()), "applied 1");
    }
}

fn cart(values: &[(u32, &str)]) -> Record {
    let versions = values.iter().map(|(number, text)| {
        let mut version = value(i64::from(*number) - 100, text);
        version.stamp.dot = Dot { actor: actor(*number), counter: Counter(1) };
        version
    });
    Record::Siblings(Siblings::new(versions.collect(), CausalContext::default()))
}

#[test]
fn the_end_of_a_value_without_siblings_is_changed_under_its_lock() {
    let mut world = World::new(1, 1, &[]);
    let mut amend = begin(&mut world, set_expiry(cart_key("k"), Expiry::At(LATER)));
    world.answer(&mut amend, 1, record(Some(cart(&[(7, "v")]))));
    assert_eq!(world.asked(), ["read@1", "lock"]);
    world.run(|context| amend.granted(context));
    // Meanwhile somebody has added a value: it stays.
    world.answer(&mut amend, 1, record(Some(cart(&[(7, "v"), (8, "w")]))));
    assert_eq!(world.asked(), ["read@1", "append"]);
    let Record::Siblings(siblings) = world.sent_record() else { panic!("siblings") };
    let kept: Vec<(u32, Option<WallTime>)> =
        siblings.versions().iter().map(|version| (version.stamp.dot.actor.node.number(), version.expires_at)).collect();
    assert_eq!(kept, [(1, Some(LATER)), (8, None)]);
    world.answer(&mut amend, 1, stored());
    assert_eq!(words_of_write(world.outcome()), "v");
}

#[test]
fn the_end_of_several_values_at_once_is_not_changed() {
    let mut world = World::new(1, 1, &[]);
    let mut amend = begin(&mut world, set_expiry(cart_key("k"), Expiry::At(LATER)));
    world.answer(&mut amend, 1, record(Some(cart(&[(7, "v"), (8, "w")]))));
    assert_eq!(words_of_write(world.outcome()), "not applied: Invalid");
    assert_eq!(world.asked(), ["read@1"]);
}
