//! Whose turn it is to be collected, and what is remembered of those on whose word that rests.

use std::collections::{BTreeMap, BTreeSet};

use super::super::tests::{NEVER, after, connect, meet, settle, step_at};
use super::tests::{collected, coverage, report, round};
use super::*;
use crate::protocol::io::Input;
use crate::protocol::request::fixture::{map, node, settings};
use crate::types::{Assignment, Incarnation, PartitionCount, PeerMemory};

/// Node 1 of three, which are the replicas of so many partitions.
fn started(partitions: u32) -> Node {
    let mut map = map(3, 3);
    map.partitions = PartitionCount::new(partitions).expect("a power of two");
    map.assignment = Assignment(vec![vec![node(1), node(2), node(3)]; partitions as usize]);
    let mut machine = Node::new(NEVER, map, settings());
    for number in [2, 3] {
        connect(&mut machine, number, 1);
    }
    machine
}

/// All three come to cover the first so many dots of node 1 in these partitions; then there
/// is a round. What is collected in it.
fn round_in_which_all_cover(machine: &mut Node, now: Now, partitions: &[u16], dots: u64, commit: u64) -> Vec<Action> {
    let covered = || partitions.iter().map(|partition| coverage(*partition, &[(1, 1, dots)])).collect::<Vec<_>>();
    for number in [2, 3] {
        report(machine, now, number, commit, covered());
    }
    let (_, actions) = round(machine, now, commit, covered());
    settle(machine, now, actions)
}

fn partitions_of(actions: &[Action]) -> Vec<u16> {
    collected(actions).into_iter().map(|(partition, ..)| partition).collect()
}

#[test]
fn no_partition_starves_while_the_first_ones_always_have_something_to_collect() {
    let mut machine = started(256);
    let all: Vec<u16> = (0..200).collect();
    let actions = round_in_which_all_cover(&mut machine, after(6_000), &all, 1, 20);
    let first = partitions_of(&actions);
    assert_eq!(first, (0..64).collect::<Vec<u16>>(), "so many at once");
    // Where much is left, the next collection does not wait for its interval.
    let mut had_a_turn: BTreeSet<u16> = first.iter().copied().collect();
    for number in 1..4 {
        let actions =
            round_in_which_all_cover(&mut machine, after(6_000 + number * 1_000), &first, 1 + number, 20 + number);
        let now = partitions_of(&actions);
        assert!(now.len() <= 64, "{now:?}");
        had_a_turn.extend(now);
    }
    assert_eq!(had_a_turn, all.into_iter().collect());
}

/// What is ordered to be remembered, in the order in which that is done.
fn to_be_remembered(actions: &[Action]) -> Vec<(NodeId, PeerMemory)> {
    let orders = actions.iter().flat_map(|action| match action {
        Action::Append { mutation: Mutation::Remember { node, memory }, .. } => vec![(*node, *memory)],
        Action::Append { mutation: Mutation::Collect { witnesses, .. }, .. } => witnesses.clone(),
        _ => Vec::new(),
    });
    orders.collect()
}

#[test]
fn what_is_remembered_of_a_peer_never_goes_back_with_the_collection_of_a_quiet_partition() {
    let mut machine = started(4);
    let mut orders = Vec::new();
    let actions = round_in_which_all_cover(&mut machine, after(6_000), &[0, 1], 1, 20);
    assert_eq!(partitions_of(&actions), [0, 1]);
    orders.extend(to_be_remembered(&actions));
    // Partition 0 is written to; nobody reports anything of partition 1 any more, but it is
    // looked at for what has expired. A report that was on its way for long comes late.
    for number in [2, 3] {
        report(&mut machine, after(10_000), number, 60, Vec::new());
    }
    let actions = round_in_which_all_cover(&mut machine, after(11_000), &[0], 2, 30);
    assert_eq!(partitions_of(&actions), [0, 1]);
    let commits: Vec<u64> = to_be_remembered(&actions).iter().map(|(_, memory)| memory.commit.0).collect();
    assert_eq!(commits, [60; 4], "as much as is known by now");
    orders.extend(to_be_remembered(&actions));
    // A new life, which the store has no room to remember at first.
    let up = Input::PeerUp { peer: node(2), incarnation: Incarnation(2) };
    step_at(&mut machine, after(12_000), up);
    let actions = step_at(&mut machine, after(12_000), meet(2, 70));
    let [_, Action::Append { ticket, mutation: Mutation::Remember { .. } }] = actions[..] else {
        panic!("{actions:?}")
    };
    step_at(&mut machine, after(12_000), Input::StorageRefused { ticket });
    report(&mut machine, after(15_900), 3, 80, vec![coverage(1, &[(1, 1, 1)])]);
    let (_, actions) = round(&mut machine, after(16_000), 40, Vec::new());
    orders.extend(to_be_remembered(&actions));
    let mut newest: BTreeMap<NodeId, PeerMemory> = BTreeMap::new();
    for (peer, memory) in orders {
        if let Some(before) = newest.insert(peer, memory) {
            let is_more = memory.incarnation >= before.incarnation && memory.commit >= before.commit;
            assert!(is_more && memory.store == before.store, "{peer}: {before:?}, and then {memory:?}");
        }
    }
    assert_eq!((newest[&node(2)].incarnation, newest[&node(2)].commit), (Incarnation(2), CommitNumber(70)));
    assert_eq!((newest[&node(3)].incarnation, newest[&node(3)].commit), (Incarnation(1), CommitNumber(80)));
}
