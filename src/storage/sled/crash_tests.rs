//! A group that is cut after any of sled's operations, against the model cut the same way.

use std::fs;
use std::path::Path;

use bytes::Bytes;

use crate::storage::memory::MemoryStorage;
use crate::types::{
    Actor, CausalContext, Claim, Content, Counter, Dot, Incarnation, NodeId, OpId, PeerMemory, Siblings, StoreId,
    Version, WallTime, limits,
};

use super::write::OPERATIONS_LEFT;
use super::*;

const PARTITIONS: PartitionCount = PartitionCount::new(1).expect("a power of two");
const P: Partition = Partition(0);
const LARGE: usize = limits::VALUE_CHUNK_BYTES + 9;

fn open(directory: &Path) -> SledStorage {
    let cache_bytes = 4 * 1024 * 1024;
    let options = SledOptions { directory: directory.to_owned(), cache_bytes, partitions: PARTITIONS };
    SledStorage::open(&options).expect("it opens")
}

fn dot(counter: u64) -> Dot {
    let actor = Actor { node: NodeId::new(1).expect("not zero"), incarnation: Incarnation(1) };
    Dot { actor, counter: Counter(counter) }
}

fn stamp(number: u64) -> Stamp {
    Stamp { timestamp: Timestamp(number * 10), dot: dot(number) }
}

fn dots(numbers: impl IntoIterator<Item = u64>) -> VersionVector {
    numbers.into_iter().map(dot).collect()
}

fn key(name: &str) -> Key {
    let namespace = NamespaceId(u16::from(name.starts_with('s')));
    Key::new(namespace, name.to_owned()).expect("a valid key")
}

fn version(number: u64, bytes: Option<usize>) -> Version {
    let content = match bytes {
        Some(bytes) => Content::Value(Bytes::from(vec![number as u8; bytes])),
        None => Content::Tombstone,
    };
    Version { stamp: stamp(number), expires_at: None, content }
}

fn last(name: &str, version: Version) -> Mutation {
    Mutation::Record { partition: P, key: key(name), record: Record::Last(version) }
}

fn put(name: &str, number: u64, bytes: usize) -> Mutation {
    last(name, version(number, Some(bytes)))
}

fn siblings(name: &str, versions: Vec<Version>, known: &[u64]) -> Mutation {
    let context: CausalContext = known.iter().map(|number| dot(*number)).collect();
    Mutation::Record { partition: P, key: key(name), record: Record::Siblings(Siblings::new(versions, context)) }
}

fn expiring(number: u64, at: u64) -> Version {
    Version { expires_at: Some(WallTime(at)), ..version(number, Some(20)) }
}

fn claim(op: u8, until: u64, bytes: usize) -> Mutation {
    let claim = Claim::Write { key: key("claimed"), version: version(90, Some(bytes)) };
    Mutation::Claim { partition: P, op: OpId([op; 16]), claim, until: WallTime(until) }
}

fn collect(stable: VersionVector, expired_before: u64, commit: u64) -> Mutation {
    let memory = PeerMemory { incarnation: Incarnation(1), store: StoreId(2), commit: CommitNumber(commit) };
    let witnesses = vec![(NodeId::new(2).expect("not zero"), memory)];
    Mutation::Collect { partition: P, stable, expired_before: WallTime(expired_before), witnesses }
}

const NAMES: [&str; 9] = ["a", "b", "c", "d", "e", "f", "s1", "s2", "s3"];

/// What is there before the group that is cut.
fn before() -> Vec<Vec<Mutation>> {
    vec![
        vec![put("a", 1, 10), put("b", 2, LARGE), last("c", expiring(3, 50))],
        vec![last("d", version(4, None)), siblings("s1", vec![version(5, Some(10))], &[]), claim(1, 40, 10)],
        vec![siblings("s2", vec![version(6, Some(LARGE)), version(7, Some(5))], &[]), put("f", 9, 10)],
        vec![siblings("s3", vec![version(8, None)], &[])],
        vec![last("f", version(10, None))],
    ]
}

/// One of every kind, so that each operation is the last one in turn.
fn groups() -> Vec<Vec<Mutation>> {
    let pulled = Pulled {
        items: vec![
            crate::types::PulledItem::Record {
                dots: vec![stamp(30), stamp(31)],
                key: key("e"),
                record: Some(Record::Last(version(31, Some(3)))),
            },
            crate::types::PulledItem::Truncation { namespace: NamespaceId(1), stamp: stamp(5) },
        ],
        lost: VersionVector::empty(),
    };
    let absorb = Mutation::Absorb { partition: P, pulled, horizon: Timestamp(0) };
    vec![
        vec![
            put("b", 20, LARGE),
            put("b", 21, 3),
            put("a", 22, 2 * LARGE),
            siblings("s2", vec![version(23, Some(2 * LARGE))], &[6]),
            siblings("s1", (40..80).map(|number| version(number, Some(3_000))).collect(), &[]),
            put("a", 19, 1),
            claim(2, 90, 2 * LARGE),
        ],
        vec![
            Mutation::Truncate { partition: P, namespace: NamespaceId(0), stamp: stamp(3) },
            last("e", expiring(24, 60)),
            absorb,
            collect(dots(1..=10), 55, 77),
            put("d", 25, 10),
            put("f", 26, LARGE),
            claim(1, 80, 10),
        ],
        vec![collect(dots(2..=9), 20, 5), collect(dots(1..=10), 100, 6), put("c", 27, 7)],
    ]
}

/// All that can be seen of a store that was just opened.
fn state(storage: &dyn Storage) -> String {
    let mut seen = format!("{:?}\n{:?}\n", storage.recovered(), storage.coverage(CommitNumber(0)));
    for name in NAMES {
        let held = storage.read(P, &key(name)).expect("it can be read");
        let shown = held.what.map(|record| {
            let versions = record.versions().iter().map(Version::summary).collect::<Vec<_>>();
            let value_starts = record.versions().iter().map(|version| match &version.content {
                Content::Value(value) => value.first().copied(),
                Content::Tombstone => None,
            });
            (versions, value_starts.collect::<Vec<_>>(), record.digest())
        });
        seen += &format!("{name} {} {shown:?}\n", held.durable);
    }
    seen + &format!("{:?}\n", storage.pull(P, &dots(1..=100)).expect("it can be pulled"))
}

/// The pieces of values that are there are those that records name.
fn assert_no_piece_is_left_over(storage: &SledStorage) {
    let mut named = 0;
    for item in storage.core.records.iter() {
        let (key, stored) = item.expect("sled works");
        let record = schema::StoredRecord::decode(&key, &stored).expect("it is whole").record;
        let chunked = record.versions().iter().filter_map(schema::Cell::chunked);
        named += chunked.map(|bytes| schema::chunk_count(bytes) as usize).sum::<usize>();
    }
    assert_eq!(storage.core.chunks.len(), named);
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("it can be created");
    for entry in fs::read_dir(from).expect("it can be listed") {
        let path = entry.expect("it can be listed").path();
        let target = to.join(path.file_name().expect("it has a name"));
        if path.is_dir() {
            copy(&path, &target);
        } else {
            fs::copy(&path, &target).expect("it can be copied");
        }
    }
}

fn fill(storage: &dyn Storage) {
    for group in before() {
        storage.apply(&group, Timestamp(1_000)).expect("it works");
        storage.sync().expect("it works");
    }
}

/// The model after a crash that has left so many steps of a group, and whether that is all.
fn model(store: StoreId, group: &[Mutation], keep: usize) -> (MemoryStorage, bool) {
    let memory = MemoryStorage::new(PARTITIONS, store);
    fill(&memory);
    memory.apply(group, Timestamp(2_000)).expect("it works");
    let all = memory.unsynced() <= keep;
    memory.crash(keep);
    (memory, all)
}

#[test]
fn a_group_that_is_cut_anywhere_leaves_what_the_model_leaves() {
    let everything = collect(dots(1..=100), 1_000, 9);
    for group in groups() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let base = directory.path().join("base");
        let filled = open(&base);
        let store = filled.recovered().store;
        fill(&filled);
        drop(filled);
        let mut keep = 0;
        for operations in 0.. {
            let (live, cut) = (directory.path().join("live"), directory.path().join("cut"));
            copy(&base, &live);
            let storage = open(&live);
            OPERATIONS_LEFT.set(operations);
            let applied = storage.apply(&group, Timestamp(2_000));
            OPERATIONS_LEFT.set(usize::MAX);
            storage.core.flush_and_sync().expect("it works");
            copy(&live, &cut);
            drop(storage);

            let storage = open(&cut);
            let found = state(&storage);
            assert_no_piece_is_left_over(&storage);
            // The model writes some things at once for which sled takes several operations.
            let (memory, all) = loop {
                let (memory, all) = model(store, &group, keep);
                if state(&memory) == found {
                    break (memory, all);
                }
                let (expected, _) = model(store, &group, 0);
                assert!(
                    !all,
                    "after {operations} operations:\n{found}\nis nothing that the model knows, such as\n{}",
                    state(&expected)
                );
                keep += 1;
            };
            // What cannot be seen of the expiries and claims shows when they are collected.
            for storage in [&storage as &dyn Storage, &memory] {
                storage.apply(std::slice::from_ref(&everything), Timestamp(0)).expect("it works");
                storage.sync().expect("it works");
            }
            assert_eq!(storage.log_length(), memory.log_length());
            for name in NAMES {
                let expected = memory.read(P, &key(name)).expect("it works").what;
                assert_eq!(storage.read(P, &key(name)).expect("it works").what, expected, "after {operations}");
            }
            drop(storage);
            fs::remove_dir_all(&live).expect("it can be removed");
            fs::remove_dir_all(&cut).expect("it can be removed");
            if applied.is_ok() {
                assert!(all, "nothing of the whole group is missing");
                break;
            }
        }
    }
}
