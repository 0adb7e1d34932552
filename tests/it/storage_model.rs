//! The store on disk against the model in memory, over random sequences of orders.
//!
//! What a dot wrote follows from the dot, so that no two mutations share one; everything
//! else is drawn: which dots arrive, when, how often and with which context, what is
//! collected, and what another replica answers to a pull. The two must answer alike and
//! hold the same, before and after they are opened again.

use bytes::Bytes;
use dogsled::storage::Storage;
use dogsled::storage::memory::MemoryStorage;
use dogsled::storage::sled::SledStorage;
use dogsled::types::{
    Actor, CausalContext, Claim, CommitNumber, Content, Counter, Dot, Incarnation, Key, Mutation, NamespaceId, NodeId,
    OpId, Partition, PeerMemory, Pulled, PulledItem, Record, ScanRange, Siblings, Stamp, StoreId, Timestamp, Version,
    VersionVector, WallTime, limits,
};
use proptest::prelude::*;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::storage::{PARTITIONS, await_live_keys, open};

const LWW: NamespaceId = NamespaceId(0);
const SIBLINGS: NamespaceId = NamespaceId(1);
const ACTORS: u32 = 3;
const COUNTERS: u64 = 24;
/// So few that dots meet.
const USED: u16 = 2;

#[derive(Clone, Debug)]
enum Order {
    Group(Vec<Part>),
    PeerGroup(Vec<Part>),
    Sync,
    Reopen,
    Scan { partition: Partition, namespace: NamespaceId, limit: u32 },
    Pull { partition: Partition, wanted: VersionVector },
    Coverage { since: CommitNumber },
}

/// A mutation, or how it is made when its turn comes.
#[derive(Clone, Debug)]
enum Part {
    Dot { partition: Partition, dot: Dot, with: Vec<u64>, known: Vec<Dot> },
    Absorb { partition: Partition, wanted: VersionVector, stale: bool },
    Plain(Mutation),
}

fn used_partitions() -> impl Iterator<Item = Partition> {
    (0..USED).map(Partition)
}

fn keys(partition: Partition, namespace: NamespaceId) -> Vec<Key> {
    let here = |key: &Key| PARTITIONS.partition_of(key.token()) == partition;
    let named = |name: String| Key::new(namespace, name).expect("a valid key");
    let short = (0..).map(|index| named(format!("key{index}"))).filter(here).take(3);
    let tag = (0..).map(|index| format!("{{tag{index}}}")).find(|tag| here(&named(tag.clone()))).expect("there is one");
    let long = ["a", "b"].map(|end| named(format!("{tag}{}{end}", "l".repeat(2_500))));
    short.chain((0..2).map(|index| named(format!("{tag}{index}")))).chain(long).collect()
}

fn actor(number: u32) -> Actor {
    Actor { node: NodeId::new(number + 1).expect("not zero"), incarnation: Incarnation(u64::from(number) * 300) }
}

/// What a dot wrote: a version of a key, or the end of a namespace.
enum Written {
    Version(Key, Version),
    Truncation(NamespaceId, Stamp),
}

fn written(partition: Partition, dot: Dot) -> Written {
    let seed = u64::from(partition.0) << 40 | u64::from(dot.actor.node.number()) << 20 | dot.counter.0;
    let mut chance = SmallRng::seed_from_u64(seed);
    let timestamp = Timestamp(dot.counter.0 * 10 + chance.random_range(0..40));
    let stamp = Stamp { timestamp, dot };
    let namespace = if chance.random_bool(0.5) { LWW } else { SIBLINGS };
    if chance.random_bool(0.04) {
        return Written::Truncation(namespace, stamp);
    }
    let keys = keys(partition, namespace);
    let key = keys[chance.random_range(0..keys.len())].clone();
    let chunk = limits::VALUE_CHUNK_BYTES;
    let length = match chance.random_range(0..12) {
        0 => chunk + chance.random_range(0..3),
        1 => 2 * chunk + 1,
        2 => 12_000,
        _ => chance.random_range(0..300),
    };
    let content = match chance.random_bool(0.3) {
        true => Content::Tombstone,
        false => Content::Value(Bytes::from(vec![dot.counter.0 as u8; length])),
    };
    let expires_at = chance.random_bool(0.3).then(|| WallTime(chance.random_range(1..60)));
    Written::Version(key, Version { stamp, expires_at, content })
}

/// The mutation that brings a dot: with siblings of these counters, and this context.
fn mutation(partition: Partition, dot: Dot, with: &[u64], known: &[Dot]) -> Mutation {
    let (key, version) = match written(partition, dot) {
        Written::Truncation(namespace, stamp) => return Mutation::Truncate { partition, namespace, stamp },
        Written::Version(key, version) => (key, version),
    };
    if key.namespace() == LWW {
        return Mutation::Record { partition, key, record: Record::Last(version) };
    }
    let others = with
        .iter()
        .flat_map(|counter| (0..ACTORS).map(|number| Dot { actor: actor(number), counter: Counter(*counter) }));
    let others = others.filter_map(|dot| match written(partition, dot) {
        Written::Version(its_key, version) if its_key == key => Some(version),
        _ => None,
    });
    let versions = std::iter::once(version.clone()).chain(others).collect();
    let context: CausalContext = known.iter().copied().collect();
    Mutation::Record { partition, key, record: Record::Siblings(Siblings::new(versions, context)) }
}

fn partitions() -> impl Strategy<Value = Partition> {
    (0..USED).prop_map(Partition)
}

fn dots() -> impl Strategy<Value = Dot> {
    (0..ACTORS, 1..=COUNTERS).prop_map(|(number, counter)| Dot { actor: actor(number), counter: Counter(counter) })
}

/// Nearly all dots, or a few.
fn vectors() -> impl Strategy<Value = VersionVector> {
    let up_to = proptest::collection::vec(0..=COUNTERS, ACTORS as usize).prop_map(|highest| {
        let each = highest.into_iter().zip(0..).flat_map(|(highest, number)| {
            (1..=highest).map(move |counter| Dot { actor: actor(number), counter: Counter(counter) })
        });
        each.collect::<VersionVector>()
    });
    prop_oneof![2 => up_to, 1 => proptest::collection::vec(dots(), 0..10).prop_map(VersionVector::from_iter)]
}

fn claims() -> impl Strategy<Value = Mutation> {
    (partitions(), dots(), 0..4u8, 0..70u64, any::<bool>(), 0..5usize).prop_map(
        |(partition, dot, op, until, fenced, huge)| {
            let claim = match written(partition, dot) {
                Written::Version(key, mut version) if !fenced => {
                    if huge == 0 && version.is_value() {
                        version.content = Content::Value(vec![op; 3 * limits::VALUE_CHUNK_BYTES].into());
                    }
                    Claim::Write { key, version }
                }
                _ => Claim::Fenced,
            };
            Mutation::Claim { partition, op: OpId([op; 16]), claim, until: WallTime(until) }
        },
    )
}

fn memories() -> impl Strategy<Value = (NodeId, PeerMemory)> {
    (1..4u32, any::<u64>(), any::<u128>(), any::<u64>()).prop_map(|(node, incarnation, store, commit)| {
        let memory =
            PeerMemory { incarnation: Incarnation(incarnation), store: StoreId(store), commit: CommitNumber(commit) };
        (NodeId::new(node).expect("not zero"), memory)
    })
}

fn parts() -> impl Strategy<Value = Part> {
    let dot =
        (partitions(), dots(), proptest::collection::vec(1..=COUNTERS, 0..6), proptest::collection::vec(dots(), 0..4));
    let dot = dot.prop_map(|(partition, dot, with, known)| Part::Dot { partition, dot, with, known });
    let absorb = (partitions(), vectors(), proptest::bool::weighted(0.1))
        .prop_map(|(partition, wanted, stale)| Part::Absorb { partition, wanted, stale });
    let collect = (partitions(), vectors(), 0..70u64, proptest::collection::vec(memories(), 0..2)).prop_map(
        |(partition, stable, expired_before, witnesses)| {
            let expired_before = WallTime(if expired_before == 69 { u64::MAX } else { expired_before });
            Part::Plain(Mutation::Collect { partition, stable, expired_before, witnesses })
        },
    );
    prop_oneof![
        20 => dot,
        2 => absorb,
        2 => collect,
        2 => claims().prop_map(Part::Plain),
        1 => memories().prop_map(|(node, memory)| Part::Plain(Mutation::Remember { node, memory })),
        1 => Just(Part::Plain(Mutation::Barrier)),
    ]
}

fn orders() -> impl Strategy<Value = Order> {
    let scan = (0..PARTITIONS.get() as u16, 0..2u16, 0..5u32).prop_map(|(partition, namespace, limit)| Order::Scan {
        partition: Partition(partition),
        namespace: NamespaceId(namespace),
        limit,
    });
    prop_oneof![
        10 => proptest::collection::vec(parts(), 0..8).prop_map(Order::Group),
        4 => proptest::collection::vec(parts(), 0..12).prop_map(Order::PeerGroup),
        5 => Just(Order::Sync),
        1 => Just(Order::Reopen),
        1 => scan,
        2 => (partitions(), vectors()).prop_map(|(partition, wanted)| Order::Pull { partition, wanted }),
        1 => (0..20u64).prop_map(|since| Order::Coverage { since: CommitNumber(since) }),
    ]
}

/// Makes the mutations of a group; what is absorbed comes from the peer.
fn resolve(parts: Vec<Part>, to: &MemoryStorage, peer: &MemoryStorage) -> Vec<Mutation> {
    let each = parts.into_iter().map(|part| match part {
        Part::Dot { partition, dot, with, known } => mutation(partition, dot, &with, &known),
        Part::Absorb { partition, wanted, stale } => {
            let pulled = peer.pull(partition, &wanted).expect("memory works");
            let (_, coverages) = to.coverage(CommitNumber(0));
            let coverage = coverages.iter().find(|coverage| coverage.partition == partition);
            let horizon = coverage.map_or(Timestamp(0), |coverage| coverage.horizon);
            Mutation::Absorb { partition, pulled, horizon: if stale { horizon.next() } else { horizon } }
        }
        Part::Plain(mutation) => mutation,
    });
    each.collect()
}

/// What a long key was is forgotten with its record.
fn without_long_keys(mut pulled: Pulled) -> Pulled {
    for item in &mut pulled.items {
        if let PulledItem::Record { key, record: None, .. } = item
            && key.bytes().len() > 2_048
        {
            *key = Key::new(key.namespace(), "long").expect("a valid key");
        }
    }
    pulled
}

fn assert_same(memory: &MemoryStorage, sled: &SledStorage) {
    for partition in used_partitions() {
        for key in [LWW, SIBLINGS].into_iter().flat_map(|namespace| keys(partition, namespace)) {
            let expected = memory.read(partition, &key).expect("memory works");
            assert_eq!(sled.read(partition, &key).expect("the store works"), expected);
            let digest = memory.head(partition, &key).expect("memory works");
            assert_eq!(digest.what, expected.what.as_ref().map(Record::digest));
            assert_eq!(sled.head(partition, &key).expect("the store works"), digest);
            let history = memory.history(partition, &key).expect("memory works");
            assert_eq!(sled.history(partition, &key).expect("the store works"), history);
        }
        for namespace in [LWW, SIBLINGS] {
            let from = PARTITIONS.first_token(partition);
            let range = ScanRange { partition, namespace, from, limit: 1_000 };
            assert_eq!(sled.scan(range).expect("the store works"), memory.scan(range).expect("memory works"));
        }
        let everything = (0..ACTORS).flat_map(|number| {
            (1..=COUNTERS).map(move |counter| Dot { actor: actor(number), counter: Counter(counter) })
        });
        for dot in everything.clone() {
            let dot = VersionVector::from_iter([dot]);
            assert_eq!(sled.covers(partition, &dot), memory.covers(partition, &dot));
        }
        let everything = VersionVector::from_iter(everything);
        let expected = memory.pull(partition, &everything).expect("memory works");
        let pulled = sled.pull(partition, &everything).expect("the store works");
        assert_eq!(without_long_keys(pulled), without_long_keys(expected));
    }
    assert_eq!(sled.coverage(CommitNumber(0)), memory.coverage(CommitNumber(0)));
    assert_eq!(sled.log_length(), memory.log_length());
    assert_eq!(sled.discarded(), memory.discarded());
}

fn cases() -> u32 {
    std::env::var("DOGSLED_MODEL_CASES").map_or(24, |text| text.parse().expect("a number"))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), max_shrink_iters: 300, ..ProptestConfig::default() })]

    /// `DOGSLED_MODEL_CASES` sets how many sequences (24).
    #[test]
    fn the_store_on_disk_does_what_the_model_does(orders in proptest::collection::vec(orders(), 1..60)) {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let mut sled = open(directory.path());
        let store = sled.recovered().store;
        let memory = MemoryStorage::new(PARTITIONS, store);
        let peer = MemoryStorage::new(PARTITIONS, StoreId(1));
        let mut clock = 0;
        for order in orders {
            match order {
                Order::Group(parts) => {
                    clock += 3;
                    let group = resolve(parts, &memory, &peer);
                    let expected = memory.apply(&group, Timestamp(clock)).expect("memory works");
                    let applied = sled.apply(&group, Timestamp(clock)).expect("the store works");
                    prop_assert_eq!(applied, expected);
                    assert_same(&memory, &sled);
                }
                Order::PeerGroup(parts) => {
                    let group = resolve(parts, &peer, &memory);
                    peer.apply(&group, Timestamp(clock)).expect("memory works");
                    peer.sync().expect("memory works");
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
                Order::Pull { partition, wanted } => {
                    let expected = memory.pull(partition, &wanted).expect("memory works");
                    let pulled = sled.pull(partition, &wanted).expect("the store works");
                    prop_assert_eq!(without_long_keys(pulled), without_long_keys(expected));
                }
                Order::Coverage { since } => prop_assert_eq!(sled.coverage(since), memory.coverage(since)),
            }
        }
        assert_same(&memory, &sled);
        await_live_keys(&sled, memory.live_keys());
        drop(sled);
        let sled = open(directory.path());
        memory.crash(usize::MAX);
        prop_assert_eq!(sled.recovered(), memory.recovered());
        assert_same(&memory, &sled);
        await_live_keys(&sled, memory.live_keys());
    }
}
