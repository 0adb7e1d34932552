//! What every replica knows of a key.

use crate::protocol::request::fixture::{World, deadline, key, node, refused};
use crate::types::{
    CommitNumber, ConsistencyLevel, Coverage, KeyHistory, LocalHistory, Operation, Partition, Refusal, Request,
    Response, Timestamp, VersionVector,
};
use crate::wire::ReplicaResponse;

use super::super::{Answer, Coordination};

fn known(commit: u64) -> LocalHistory {
    let coverage =
        Coverage { partition: Partition(0), vector: VersionVector::default(), horizon: Timestamp::default() };
    LocalHistory { digest: None, log: Vec::new(), more: false, coverage, commit: CommitNumber(commit) }
}

fn begin(world: &mut World) -> Option<Coordination> {
    world.begin(Request::new(Operation::History { key: key("k") }, ConsistencyLevel::Quorum))
}

fn told(world: &World) -> Vec<(u32, Option<u64>)> {
    let Some(Ok(Response::History(KeyHistory { replicas, token, partition, .. }))) = world.outcome() else {
        panic!("{:?}", world.outcome())
    };
    assert_eq!((*token, *partition), (key("k").token(), world.map.partition_of(&key("k"))));
    let each =
        replicas.iter().map(|replica| (replica.node.number(), replica.known.as_ref().map(|known| known.commit.0)));
    each.collect()
}

fn answer(commit: u64) -> Answer {
    Answer::Response(ReplicaResponse::History(known(commit)))
}

#[test]
fn every_replica_is_asked_and_told_in_the_order_of_the_map() {
    let mut world = World::new(4, 3, &[]);
    let mut history = begin(&mut world).expect("under way");
    assert_eq!(world.asked(), ["history@1,2,3"]);
    world.answer(&mut history, 3, answer(30));
    world.answer(&mut history, 1, answer(10));
    world.answer(&mut history, 1, answer(11));
    assert_eq!(world.outcome(), None);
    world.answer(&mut history, 2, answer(20));
    assert_eq!(told(&world), [(1, Some(10)), (2, Some(20)), (3, Some(30))]);
}

#[test]
fn who_cannot_answer_is_told_as_such() {
    let mut world = World::new(3, 3, &[2]);
    let mut history = begin(&mut world).expect("under way");
    assert_eq!(world.asked(), ["history@1,3"]);
    world.answer(&mut history, 3, refused(Refusal::Overloaded));
    world.answer(&mut history, 1, answer(10));
    assert_eq!(told(&world), [(1, Some(10)), (2, None), (3, None)]);

    let mut world = World::new(3, 3, &[]);
    let mut history = begin(&mut world).expect("under way");
    world.answer(&mut history, 1, answer(10));
    world.run(|context| history.lose(node(2), context));
    world.now.moment = deadline();
    world.run(|context| history.wake(context));
    assert_eq!(told(&world), [(1, Some(10)), (2, None), (3, None)]);
}

#[test]
fn a_node_that_is_no_replica_can_ask_too() {
    let mut world = World::new(4, 3, &[]);
    world.settings.actor.node = node(4);
    world.peers.up(node(1), crate::types::Incarnation(1));
    world.peers.admit(node(1));
    begin(&mut world).expect("under way");
    assert_eq!(world.asked(), ["history@1,2,3"]);
}
