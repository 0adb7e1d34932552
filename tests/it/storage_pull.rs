//! Answers to pulls fit into a frame, whatever was written, and bring everything in the end.

use dogsled::types::{
    Actor, CausalContext, Content, Counter, Dot, Epoch, Incarnation, Key, Mutation, NamespaceId, NodeId, Partition,
    PulledItem, Record, Siblings, Stamp, Timestamp, Version, VersionVector, limits,
};
use dogsled::wire::{Envelope, Message, ReplicaResponse, RequestId, encode};

use super::storage::{key, partition};
use super::storage_deletes::Store;

/// Stamps as long as they become in practice: milliseconds since 1970 and a life of some years.
fn stamp(number: u64) -> Stamp {
    let actor = Actor { node: NodeId::new(200).expect("not zero"), incarnation: Incarnation(20_000) };
    let timestamp = Timestamp((1_800_000_000_000 << 16) + number);
    Stamp { timestamp, dot: Dot { actor, counter: Counter(1_000_000 + number) } }
}

fn put(key: &Key, number: u64, bytes: usize) -> Mutation {
    let content = Content::Value(vec![number as u8; bytes].into());
    let version = Version { stamp: stamp(number), expires_at: None, content };
    Mutation::Record { partition: partition(key), key: key.clone(), record: Record::Last(version) }
}

/// Pulls again and again what did not come; the length of the longest frame, and how many items
/// each answer had.
fn pull_all(store: &Store, partition: Partition, mut wanted: VersionVector) -> Vec<usize> {
    let mut items = Vec::new();
    while !wanted.is_empty() {
        let pulled = store.get().pull(partition, &wanted).expect("the store works");
        let brought: VersionVector = pulled.items.iter().flat_map(PulledItem::dots).collect();
        assert!(!brought.is_empty() && wanted.covers_all(&brought), "every answer brings something on");
        wanted = wanted.minus(&brought);
        items.push(pulled.items.len());
        let response = ReplicaResponse::Pulled(pulled);
        let message = Message::Response { id: RequestId(1), response };
        let frame = encode(&Envelope { epoch: Epoch(1), clock: Timestamp(1), message });
        assert!(frame.len() <= limits::MAX_FRAME_BYTES, "a frame of {} bytes", frame.len());
    }
    items
}

fn numbers(numbers: impl Iterator<Item = u64>) -> VersionVector {
    numbers.map(|number| stamp(number).dot).collect()
}

#[test]
fn values_near_the_limit_come_one_by_one() {
    const SHORT: usize = limits::PULL_BYTES - 1_000;
    for store in Store::all() {
        let key_of = |number: u64, bytes: usize| {
            let mut name = format!("{{t}}{number}").into_bytes();
            name.resize(bytes, b'x');
            key(name)
        };
        let sizes = [SHORT, limits::MAX_VALUE_BYTES, SHORT, SHORT, limits::MAX_VALUE_BYTES, limits::PULL_BYTES, 1, 1];
        for (number, bytes) in (1..).zip(sizes) {
            let key_bytes = if bytes == limits::MAX_VALUE_BYTES { limits::MAX_KEY_BYTES } else { 10 };
            store.commit(put(&key_of(number, key_bytes), number, bytes));
        }
        let partition = partition(&key_of(1, 10));
        let answers = pull_all(&store, partition, numbers(1..=sizes.len() as u64));
        assert_eq!(answers, [1, 1, 1, 1, 1, 1, 2], "no two that are more than one answer brings together");
    }
}

#[test]
fn a_long_value_that_was_written_often_comes_with_few_of_its_mutations() {
    for store in Store::all() {
        let key = key(vec![b'k'; limits::MAX_KEY_BYTES]);
        const OFTEN: u64 = 600;
        let mut group: Vec<Mutation> = (1..OFTEN).map(|number| put(&key, number, 1)).collect();
        group.push(put(&key, OFTEN, limits::MAX_VALUE_BYTES));
        store.get().apply(&group, Timestamp(0)).expect("the store works");
        pull_all(&store, partition(&key), numbers(1..=OFTEN));
    }
}

#[test]
fn what_siblings_know_counts_too() {
    const KEYS: u64 = 500;
    let actor = |number: u32| Actor {
        node: NodeId::new(1 + number % 300).expect("not zero"),
        incarnation: Incarnation(20_000 + u64::from(number)),
    };
    let long: CausalContext = (0..limits::CONTEXT_ACTORS as u32 - 1)
        .map(|number| Dot { actor: actor(number), counter: Counter(u64::from(u32::MAX)) })
        .collect();
    for store in Store::all() {
        let key_of = |number: u64| Key::new(NamespaceId(1), format!("{{t}}{number}")).expect("a valid key");
        let partition = partition(&key_of(1));
        for number in 1..=KEYS {
            let version = Version { stamp: stamp(number), expires_at: None, content: Content::Value("v".into()) };
            let record = Record::Siblings(Siblings::new(vec![version], long.clone()));
            store.apply(Mutation::Record { partition, key: key_of(number), record });
        }
        let answers = pull_all(&store, partition, numbers(1..=KEYS));
        assert_eq!(answers.iter().sum::<usize>(), KEYS as usize);
    }
}
