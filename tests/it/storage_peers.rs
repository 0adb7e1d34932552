//! What a store remembers of its node's peers, on the model and on disk.

use dogsled::types::{
    CommitNumber, Incarnation, Mutation, NodeId, Partition, PeerMemory, StoreId, Timestamp, VersionVector, WallTime,
};

use super::storage_deletes::Store;

fn node(number: u32) -> NodeId {
    NodeId::new(number).expect("not zero")
}

fn memory(incarnation: u64, store: u128, commit: u64) -> PeerMemory {
    PeerMemory { incarnation: Incarnation(incarnation), store: StoreId(store), commit: CommitNumber(commit) }
}

/// The two ways in which a store comes to remember something.
fn orders(peer: NodeId, memory: PeerMemory) -> [Mutation; 2] {
    let collect = Mutation::Collect {
        partition: Partition(0),
        stable: VersionVector::empty(),
        expired_before: WallTime(0),
        witnesses: vec![(peer, memory)],
    };
    [Mutation::Remember { node: peer, memory }, collect]
}

/// What is remembered of a peer after the store was opened again.
fn remembered(store: &mut Store, peer: NodeId) -> Option<PeerMemory> {
    store.get().sync().expect("the store works");
    store.reopen();
    store.get().recovered().peers.get(&peer).copied()
}

#[test]
fn what_is_remembered_of_a_peer_never_becomes_less() {
    for mut store in Store::all() {
        let peer = node(2);
        for which in [0, 1] {
            let newer = memory(3 + which as u64, 2, 50);
            let [remember, _] = orders(peer, newer);
            store.apply(remember);
            for older in [memory(3, 2, 49), memory(2, 2, 50), memory(1, 2, 1)] {
                store.apply(orders(peer, older)[which].clone());
                assert_eq!(remembered(&mut store, peer), Some(newer), "{older:?} by order {which}");
            }
            // In one group, too.
            let group = [orders(peer, newer)[which].clone(), orders(peer, memory(1, 2, 1))[which].clone()];
            store.get().apply(&group, Timestamp(0)).expect("the store works");
            assert_eq!(remembered(&mut store, peer), Some(newer));
        }
        // Either part may be newer.
        let [remember, _] = orders(peer, memory(9, 2, 10));
        store.apply(remember);
        assert_eq!(remembered(&mut store, peer), Some(memory(9, 2, 50)));
        let [_, collect] = orders(peer, memory(1, 2, 60));
        store.apply(collect);
        assert_eq!(remembered(&mut store, peer), Some(memory(9, 2, 60)));
        assert_eq!(remembered(&mut store, node(3)), None);
    }
}

#[test]
fn another_store_of_a_peer_is_remembered_as_it_is_said_to_be() {
    for mut store in Store::all() {
        let peer = node(2);
        for (which, other) in [(0, memory(1, 7, 3)), (1, memory(1, 8, 2))] {
            store.apply(orders(peer, other)[which].clone());
            assert_eq!(remembered(&mut store, peer), Some(other), "its lives and groups are counted anew");
        }
    }
}
