//! The store on disk against the model in memory, over random sequences of orders.

use bytes::Bytes;
use dogsled::storage::Storage;
use dogsled::storage::memory::MemoryStorage;
use dogsled::storage::sled::SledStorage;
use dogsled::types::{Content, Key, Mutation, NamespaceId, Partition, ScanRange, Timestamp, Version, WallTime, limits};
use proptest::prelude::*;

use super::storage::{PARTITIONS, await_live_keys, open, partition, stamp};

#[derive(Clone, Debug)]
enum Order {
    Group(Vec<Mutation>),
    Sync,
    Reopen,
    Scan { partition: Partition, namespace: NamespaceId, limit: u32 },
}

fn keys() -> Vec<Key> {
    let mut names: Vec<Vec<u8>> = (0..10).map(|index| format!("key{index}").into_bytes()).collect();
    names.extend((0..4).map(|index| format!("{{tag}}{index}").into_bytes()));
    names.extend([b'a', b'b'].map(|last| [vec![b'l'; 2_500], vec![last]].concat()));
    let in_namespaces = names.iter().flat_map(|name| [0, 1].map(|namespace| (NamespaceId(namespace), name.clone())));
    in_namespaces.map(|(namespace, name)| Key::new(namespace, name).expect("a valid key")).collect()
}

fn value() -> impl Strategy<Value = Content> {
    let chunk = limits::VALUE_CHUNK_BYTES;
    let length = prop_oneof![8 => 0..200usize, 1 => (chunk - 3)..(chunk + 3), 1 => (2 * chunk - 1)..(3 * chunk)];
    prop_oneof![
        1 => Just(Content::Tombstone),
        4 => (length, any::<u8>()).prop_map(|(length, byte)| Content::Value(Bytes::from(vec![byte; length]))),
    ]
}

fn mutation() -> impl Strategy<Value = Mutation> {
    let keys = keys();
    let record = (0..keys.len(), 1..60u64, value(), proptest::option::of(1..99u64)).prop_map(
        move |(index, number, content, expires_at)| {
            let key = keys[index].clone();
            // No two mutations share a stamp, so the stamp decides everything else.
            let stamp = stamp(number * 100 + index as u64);
            let expires_at = expires_at.map(WallTime);
            Mutation::Record { partition: partition(&key), key, version: Version { stamp, expires_at, content } }
        },
    );
    let truncation = (0..PARTITIONS.get() as u16, 0..2u16, 1..60u64).prop_map(|(partition, namespace, number)| {
        let (partition, namespace) = (Partition(partition), NamespaceId(namespace));
        Mutation::Truncate { partition, namespace, stamp: stamp(number * 100 + 99) }
    });
    prop_oneof![9 => record, 1 => truncation]
}

fn order() -> impl Strategy<Value = Order> {
    let scan = (0..PARTITIONS.get() as u16, 0..2u16, 0..5u32).prop_map(|(partition, namespace, limit)| Order::Scan {
        partition: Partition(partition),
        namespace: NamespaceId(namespace),
        limit,
    });
    prop_oneof![
        10 => proptest::collection::vec(mutation(), 0..8).prop_map(Order::Group),
        3 => Just(Order::Sync),
        1 => Just(Order::Reopen),
        3 => scan,
    ]
}

/// Two orders with one stamp but different content cannot happen, so the second goes.
fn with_unique_stamps(orders: Vec<Order>) -> Vec<Order> {
    let mut seen: Vec<Mutation> = Vec::new();
    let stamp_of = |mutation: &Mutation| match mutation {
        Mutation::Record { version, .. } => Some(version.stamp),
        Mutation::Truncate { stamp, .. } => Some(*stamp),
        Mutation::Barrier => None,
    };
    let mut keep = |mutation: &Mutation| {
        let clash = seen.iter().any(|other| stamp_of(other) == stamp_of(mutation) && other != mutation);
        seen.push(mutation.clone());
        !clash || matches!(mutation, Mutation::Truncate { .. } | Mutation::Barrier)
    };
    let mut orders = orders;
    for order in &mut orders {
        if let Order::Group(group) = order {
            group.retain(&mut keep);
        }
    }
    orders
}

fn assert_same(memory: &MemoryStorage, sled: &SledStorage) {
    for key in keys() {
        let partition = partition(&key);
        let expected = memory.read(partition, &key).expect("memory works");
        assert_eq!(sled.read(partition, &key).expect("the store works"), expected);
        let summary = expected.as_ref().map(Version::summary);
        assert_eq!(sled.head(partition, &key).expect("the store works"), summary);
        assert_eq!(memory.head(partition, &key).expect("memory works"), summary);
    }
    for partition in PARTITIONS.all() {
        for namespace in [NamespaceId(0), NamespaceId(1)] {
            let from = PARTITIONS.first_token(partition);
            let range = ScanRange { partition, namespace, from, limit: 1_000 };
            assert_eq!(sled.scan(range).expect("the store works"), memory.scan(range).expect("memory works"));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, max_shrink_iters: 200, ..ProptestConfig::default() })]

    #[test]
    fn the_store_on_disk_does_what_the_model_does(orders in proptest::collection::vec(order(), 1..40)) {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let memory = MemoryStorage::new(PARTITIONS);
        let mut sled = open(directory.path());
        let mut clock = 0;
        for order in with_unique_stamps(orders) {
            match order {
                Order::Group(group) => {
                    clock += 3;
                    let expected = memory.apply(&group, Timestamp(clock)).expect("memory works");
                    let applied = sled.apply(&group, Timestamp(clock)).expect("the store works");
                    prop_assert_eq!(applied, expected);
                }
                Order::Sync => {
                    let expected = memory.sync().expect("memory works");
                    prop_assert_eq!(sled.sync().expect("the store works"), expected);
                }
                Order::Reopen => {
                    drop(sled);
                    sled = open(directory.path());
                    memory.crash(usize::MAX);
                    prop_assert_eq!(sled.recovered(), memory.recovered());
                    assert_same(&memory, &sled);
                }
                Order::Scan { partition, namespace, limit } => {
                    let mut from = Some(PARTITIONS.first_token(partition));
                    while let Some(begin) = from {
                        let range = ScanRange { partition, namespace, from: begin, limit };
                        let expected = memory.scan(range).expect("memory works");
                        from = expected.next;
                        prop_assert_eq!(sled.scan(range).expect("the store works"), expected);
                    }
                }
            }
        }
        assert_same(&memory, &sled);
        await_live_keys(&sled, memory.live_keys());
        drop(sled);
        let sled = open(directory.path());
        assert_same(&memory, &sled);
        await_live_keys(&sled, memory.live_keys());
    }
}
