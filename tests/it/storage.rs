//! What every store must do, the model in memory and the one on disk alike.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use dogsled::storage::memory::MemoryStorage;
use dogsled::storage::sled::{SledOptions, SledStorage};
use dogsled::storage::{Storage, StorageError, incarnation};
use dogsled::types::{
    Actor, Applied, CommitNumber, Content, Counter, Dot, Incarnation, Key, Mutation, NamespaceId, NodeId, Partition,
    PartitionCount, Record, ScanRange, Stamp, StoreId, Summary, Timestamp, Token, Version, VersionVector, WallTime,
    limits,
};

pub const PARTITIONS: PartitionCount = PartitionCount::new(8).expect("a power of two");

pub fn options(directory: &Path) -> SledOptions {
    SledOptions { directory: directory.to_owned(), cache_bytes: 16 * 1024 * 1024, partitions: PARTITIONS }
}

pub fn open(directory: &Path) -> SledStorage {
    SledStorage::open(&options(directory)).expect("the store opens")
}

pub fn key(bytes: impl Into<Bytes>) -> Key {
    key_in(NamespaceId::DEFAULT, bytes)
}

fn key_in(namespace: NamespaceId, bytes: impl Into<Bytes>) -> Key {
    Key::new(namespace, bytes).expect("a valid key")
}

pub fn stamp(number: u64) -> Stamp {
    let actor = Actor { node: NodeId::new(3).expect("not zero"), incarnation: Incarnation(7) };
    Stamp { timestamp: Timestamp(number), dot: Dot { actor, counter: Counter(number) } }
}

pub fn partition(key: &Key) -> Partition {
    PARTITIONS.partition_of(key.token())
}

pub fn put(key: &Key, number: u64, value: impl Into<Bytes>) -> Mutation {
    let version = Version { stamp: stamp(number), expires_at: None, content: Content::Value(value.into()) };
    last(key, version)
}

/// A mutation under `lww`.
pub fn last(key: &Key, version: Version) -> Mutation {
    Mutation::Record { partition: partition(key), key: key.clone(), record: Record::Last(version) }
}

pub fn delete(key: &Key, number: u64) -> Mutation {
    let version = Version { stamp: stamp(number), expires_at: None, content: Content::Tombstone };
    last(key, version)
}

fn truncate(partition: Partition, number: u64) -> Mutation {
    Mutation::Truncate { partition, namespace: NamespaceId::DEFAULT, stamp: stamp(number) }
}

fn version_of(mutation: &Mutation) -> Version {
    match mutation {
        Mutation::Record { record: Record::Last(version), .. } => version.clone(),
        _ => panic!("only records have versions"),
    }
}

fn apply(storage: &dyn Storage, group: &[Mutation]) -> Vec<Applied> {
    storage.apply(group, Timestamp(0)).expect("the store works")
}

fn read(storage: &dyn Storage, key: &Key) -> Option<Version> {
    let held = storage.read(partition(key), key).expect("the store works");
    let head = storage.head(partition(key), key).expect("the store works");
    assert_eq!(held.what.as_ref().map(Record::digest), head.what, "head and read agree");
    assert_eq!(held.durable, head.durable, "head and read agree");
    held.what.map(|record| match record {
        Record::Last(version) => version,
        Record::Siblings(_) => panic!("nobody wrote siblings"),
    })
}

/// What is shown of a record that was truncated.
fn truncated(number: u64) -> Option<Version> {
    Some(Version::of_truncation(stamp(number)))
}

fn tombstone(number: u64) -> Option<Version> {
    Some(Version { stamp: stamp(number), expires_at: None, content: Content::Tombstone })
}

fn scan_all(storage: &dyn Storage, partition: Partition, limit: u32) -> Vec<(Bytes, Summary)> {
    let mut from = PARTITIONS.first_token(partition);
    let mut entries = Vec::new();
    loop {
        let range = ScanRange { partition, namespace: NamespaceId::DEFAULT, from, limit };
        let page = storage.scan(range).expect("the store works");
        entries.extend(
            page.entries.into_iter().map(|entry| (entry.key, *entry.digest.newest().expect("it has versions"))),
        );
        match page.next {
            Some(next) => {
                assert!(next > from, "a scan goes on");
                from = next;
            }
            None => return entries,
        }
    }
}

/// The count may go on in the background, and has no event to wait for.
pub fn await_live_keys(storage: &dyn Storage, expected: u64) {
    for _ in 0..10_000 {
        if storage.live_keys() == expected {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    assert_eq!(storage.live_keys(), expected, "the count never became exact");
}

/// Runs a case on every store there is.
fn on_each(case: impl Fn(&dyn Storage)) {
    case(&MemoryStorage::new(PARTITIONS, StoreId(1)));
    let directory = tempfile::tempdir().expect("a temporary directory");
    case(&open(directory.path()));
}

#[test]
fn the_highest_stamp_wins_in_any_order_and_twice_is_once() {
    on_each(|storage| {
        let key = key("k");
        let (old, new) = (put(&key, 1, "old"), put(&key, 2, "new"));
        assert_eq!(read(storage, &key), None);
        assert_eq!(apply(storage, std::slice::from_ref(&new)), [Applied::Stored]);
        assert_eq!(
            apply(storage, &[old.clone(), new.clone()]),
            [Applied::Superseded { by: stamp(2) }, Applied::Stored]
        );
        assert_eq!(read(storage, &key), Some(version_of(&new)));
        assert_eq!(apply(storage, &[delete(&key, 3), new]), [Applied::Stored, Applied::Superseded { by: stamp(3) }]);
        assert_eq!(read(storage, &key), tombstone(3));
        assert_eq!(apply(storage, &[old]), [Applied::Superseded { by: stamp(3) }]);
    });
}

#[test]
fn within_a_group_the_order_counts() {
    on_each(|storage| {
        let key = key("k");
        let group = [put(&key, 5, "five"), put(&key, 4, "four"), put(&key, 6, "six"), truncate(partition(&key), 5)];
        assert_eq!(
            apply(storage, &group),
            [Applied::Stored, Applied::Superseded { by: stamp(5) }, Applied::Stored, Applied::Stored]
        );
        assert_eq!(read(storage, &key), Some(version_of(&group[2])));
    });
}

#[test]
fn values_keys_and_expiry_of_all_lengths_come_back() {
    let chunk = limits::VALUE_CHUNK_BYTES;
    let lengths = [0, 1, chunk - 1, chunk, chunk + 1, 3 * chunk, 3 * chunk + 5, limits::DEFAULT_MAX_VALUE_BYTES];
    let keys = [1, 22, 23, 2_048, 2_049, 5_000, limits::MAX_KEY_BYTES];
    on_each(|storage| {
        let mut number = 0;
        let mut expected = Vec::new();
        for key_bytes in keys {
            for value_bytes in lengths {
                number += 1;
                // Long keys that begin alike must not be taken for each other.
                let mut bytes = vec![b'k'; key_bytes];
                bytes[key_bytes - 1] = number as u8;
                let key = key(bytes);
                let mut mutation = put(&key, number, vec![number as u8; value_bytes]);
                if let Mutation::Record { record: Record::Last(version), .. } = &mut mutation {
                    version.expires_at = (number % 2 == 0).then_some(WallTime(u64::MAX - number));
                }
                apply(storage, std::slice::from_ref(&mutation));
                expected.push((key, version_of(&mutation)));
            }
        }
        storage.sync().expect("the store works");
        for (key, version) in &expected {
            assert_eq!(read(storage, key).as_ref(), Some(version), "a key of {} bytes", key.bytes().len());
        }
        assert_eq!(storage.live_keys(), expected.len() as u64);
        let largest = key(vec![b'v'; 3]);
        apply(storage, &[put(&largest, 1_000, vec![9; limits::MAX_VALUE_BYTES])]);
        assert_eq!(read(storage, &largest).map(|version| version.summary().value_bytes), Some(Some(16 * 1024 * 1024)));
    });
}

#[test]
fn namespaces_are_apart() {
    on_each(|storage| {
        let (zero, one) = (key_in(NamespaceId(0), "k"), key_in(NamespaceId(1), "k"));
        apply(storage, &[put(&zero, 1, "zero"), put(&one, 2, "one")]);
        assert_eq!(read(storage, &zero), Some(version_of(&put(&zero, 1, "zero"))));
        assert_eq!(read(storage, &one), Some(version_of(&put(&one, 2, "one"))));
        assert_eq!(scan_all(storage, partition(&zero), 100).len(), 1);
        apply(storage, &[truncate(partition(&zero), 9)]);
        assert_eq!(read(storage, &zero), truncated(9));
        assert_eq!(read(storage, &one), Some(version_of(&put(&one, 2, "one"))));
        assert_eq!(storage.live_keys(), 1);
    });
}

#[test]
fn a_truncation_covers_what_is_not_newer() {
    on_each(|storage| {
        let keys = [key("{t}a"), key("{t}b"), key("{t}c"), key("{t}d")];
        let partition = partition(&keys[0]);
        let group = [put(&keys[0], 1, "a"), put(&keys[1], 5, "b"), delete(&keys[2], 2), truncate(partition, 4)];
        apply(storage, &group);
        assert_eq!(read(storage, &keys[0]), truncated(4), "covered");
        assert_eq!(read(storage, &keys[1]), Some(version_of(&group[1])), "newer");
        assert_eq!(read(storage, &keys[2]), truncated(4), "a covered tombstone is as new as the truncation");
        assert_eq!(read(storage, &keys[3]), None, "there was no record");
        assert_eq!(
            apply(storage, &[put(&keys[0], 3, "late"), put(&keys[3], 4, "equal"), put(&keys[1], 2, "old")]),
            [
                Applied::Superseded { by: stamp(4) },
                Applied::Superseded { by: stamp(4) },
                Applied::Superseded { by: stamp(5) },
            ]
        );
        assert_eq!(read(storage, &keys[3]), None);
        assert_eq!(
            apply(storage, &[truncate(partition, 3), truncate(partition, 4), truncate(partition, 6)]),
            [Applied::Superseded { by: stamp(4) }, Applied::Stored, Applied::Stored]
        );
        assert_eq!(read(storage, &keys[1]), truncated(6));
        let scanned = scan_all(storage, partition, 1);
        let covered = Version::of_truncation(stamp(6)).summary();
        assert_eq!(scanned, [("{t}a".into(), covered), ("{t}b".into(), covered), ("{t}c".into(), covered)]);
        assert_eq!(apply(storage, &[put(&keys[0], 7, "again")]), [Applied::Stored]);
        assert_eq!(read(storage, &keys[0]), Some(version_of(&put(&keys[0], 7, "again"))));
        await_live_keys(storage, 1);
    });
}

#[test]
fn scans_go_by_token_and_never_cut_between_keys_of_one() {
    on_each(|storage| {
        let mut expected = Vec::new();
        let mut number = 0;
        let mut names: Vec<Vec<u8>> = (0..200).map(|index| format!("key{index}").into_bytes()).collect();
        names.extend((0..20).map(|index| format!("{{tag}}{index}").into_bytes()));
        // Long keys under one token, whose stored order is not that of their bytes.
        names.extend((0..20u8).map(|index| {
            let mut long = b"{tag}".to_vec();
            long.resize(3_000, b'x');
            long.push(index);
            long
        }));
        for name in names {
            number += 1;
            let key = key(name);
            apply(storage, &[put(&key, number, "value")]);
            expected.push((partition(&key), key.token(), key.bytes().clone()));
        }
        expected.sort();
        for limit in [0, 1, 7, 10_000, u32::MAX] {
            let mut found = Vec::new();
            for partition in PARTITIONS.all() {
                for (bytes, _) in scan_all(storage, partition, limit) {
                    found.push((partition, Token::of_key(&bytes), bytes));
                }
            }
            assert_eq!(found, expected, "limit {limit}");
        }
        let tagged = key("{tag}0");
        let (partition, from) = (partition(&tagged), tagged.token());
        let range = ScanRange { partition, namespace: NamespaceId::DEFAULT, from, limit: 1 };
        let page = storage.scan(range).expect("the store works");
        assert_eq!(page.entries.len(), 40, "all keys of the tag come together");
        assert!(page.next.is_none_or(|next| next > from));
    });
}

#[test]
fn groups_are_numbered_and_the_clock_is_kept() {
    on_each(|storage| {
        assert_eq!(storage.recovered().commit, CommitNumber(0));
        assert_eq!(storage.recovered().clock, Timestamp(0));
        for number in 1..4 {
            storage.apply(&[put(&key("k"), number, "v")], Timestamp(number * 10)).expect("the store works");
            assert_eq!(storage.sync().expect("the store works"), CommitNumber(number));
        }
    });
}

#[test]
fn the_model_loses_what_was_not_synced_but_a_prefix() {
    let keys: Vec<Key> = (0..4).map(|index| key(format!("k{index}"))).collect();
    for keep in 0..=9 {
        let storage = MemoryStorage::new(PARTITIONS, StoreId(1));
        apply(&storage, &[put(&keys[0], 1, "durable"), truncate(partition(&keys[1]), 21)]);
        storage.sync().expect("the store works");
        let group = [put(&keys[0], 22, "a"), put(&keys[1], 23, "b"), delete(&keys[0], 24)];
        storage.apply(&group, Timestamp(7)).expect("the store works");
        storage.apply(&[truncate(partition(&keys[0]), 25), put(&keys[2], 26, "c")], Timestamp(8)).expect("it works");
        assert_eq!(storage.unsynced(), 9, "five mutations, two log entries and two commit entries");
        storage.crash(keep);
        assert_eq!(storage.unsynced(), 0);
        let expected = match keep {
            0 | 1 => Some(version_of(&put(&keys[0], 1, "durable"))),
            2 | 3 => Some(version_of(&group[0])),
            4..=6 => tombstone(24),
            _ => truncated(25),
        };
        assert_eq!(read(&storage, &keys[0]), expected, "keeping {keep}");
        assert_eq!(read(&storage, &keys[1]).is_some(), keep >= 3, "keeping {keep}");
        assert_eq!(read(&storage, &keys[2]).is_some(), keep >= 8, "keeping {keep}");
        // A group of which the log entry is there is a group, however little of it is left.
        let (commit, clock) = match keep {
            0 => (1, 0),
            1 => (2, 0),
            2..=4 => (2, 20 + keep as u64),
            5 | 6 => (2 + keep as u64 - 5, 7),
            7 | 8 => (3, 18 + keep as u64),
            _ => (3, 8),
        };
        assert_eq!(storage.recovered().commit, CommitNumber(commit), "keeping {keep}");
        assert_eq!(storage.recovered().clock, Timestamp(clock), "keeping {keep}");
        let reflected = match keep {
            0 | 1 => [false; 5],
            2 => [true, false, false, false, false],
            3 => [true, true, false, false, false],
            4..=6 => [true, true, true, false, false],
            7 => [true, true, true, true, false],
            _ => [true; 5],
        };
        let places = [&keys[0], &keys[1], &keys[0], &keys[0], &keys[2]];
        for ((number, key), expected) in (22..).zip(places).zip(reflected) {
            let dots = [stamp(number).dot].into_iter().collect();
            assert_eq!(storage.covers(partition(key), &dots), expected, "keeping {keep}: mutation {number}");
        }
    }
}

#[test]
fn a_store_on_disk_is_found_as_it_was_left() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let (small, large) = (key("small"), key("large"));
    let apart = |key: &Key| ![partition(&small), partition(&large)].contains(&partition(key));
    let gone = (0..).map(|index| key(format!("gone{index}"))).find(apart).expect("there is one");
    let value = Bytes::from((0..300_000u32).map(|index| (index % 251) as u8).collect::<Vec<u8>>());
    for life in 1..=3u64 {
        let before = life - 1;
        let storage = open(directory.path());
        assert_eq!(incarnation::advance(directory.path()).expect("it is counted"), Incarnation(life));
        assert_eq!(storage.recovered().commit, CommitNumber(before * 2));
        assert_eq!(storage.recovered().clock, Timestamp(before * 100));
        if before > 0 {
            assert_eq!(read(&storage, &small), Some(version_of(&put(&small, before, "small"))));
            assert_eq!(read(&storage, &large), Some(version_of(&put(&large, before + 100, value.clone()))));
            assert_eq!(read(&storage, &gone), truncated(before * 10));
        }
        let group = [
            put(&small, life, "small"),
            put(&large, life + 100, value.clone()),
            put(&gone, life * 10 - 1, "gone"),
            truncate(partition(&gone), life * 10),
        ];
        storage.apply(&group, Timestamp(life * 100)).expect("the store works");
        storage.sync().expect("the store works");
        assert!(storage.disk_bytes() > 300_000);
        // A group that nobody synced is made durable when the store is closed in good order.
        storage.apply(&[], Timestamp(0)).expect("the store works");
    }
}

#[test]
fn a_store_that_was_made_anew_has_another_name() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let name = || open(directory.path()).recovered().store;
    let first = name();
    assert_eq!(name(), first);
    std::fs::remove_dir_all(directory.path()).expect("it can be removed");
    assert_ne!(name(), first);
}

#[test]
fn a_store_that_is_open_is_locked() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let storage = open(directory.path());
    let second = SledStorage::open(&options(directory.path()));
    assert!(matches!(second, Err(StorageError::Locked(path)) if path == directory.path()));
    apply(&storage, &[put(&key("k"), 1, "still works")]);
    drop(storage);
    open(directory.path());
}

#[test]
fn a_store_of_another_number_of_partitions_is_refused_and_left_alone() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    apply(&open(directory.path()), &[put(&key("k"), 1, "v")]);
    let other =
        SledOptions { partitions: PartitionCount::new(16).expect("a power of two"), ..options(directory.path()) };
    let error = SledStorage::open(&other).expect_err("the number differs");
    assert!(matches!(error, StorageError::Incompatible { .. }));
    assert!(error.to_string().contains("8 partitions") && error.to_string().contains("16"), "{error}");
    assert!(read(&open(directory.path()), &key("k")).is_some());
}

#[test]
fn a_directory_that_cannot_be_used_is_named() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let file = directory.path().join("file");
    std::fs::write(&file, "in the way").expect("it can be written");
    for path in [file.clone(), file.join("below")] {
        let error = SledStorage::open(&options(&path)).expect_err("a file is in the way");
        assert!(matches!(&error, StorageError::File { .. }), "{error}");
        assert!(error.to_string().contains(&file.display().to_string()), "{error}");
    }
}

#[test]
fn readers_beside_the_writer_see_what_is_covered_and_take_nothing_for_durable_too_early() {
    const LAST: u64 = 600;
    let directory = tempfile::tempdir().expect("a temporary directory");
    let storage = open(directory.path());
    let key = key("k");
    let partition = partition(&key);
    let sync_begun = AtomicU64::new(0);
    std::thread::scope(|scope| {
        let reader = || {
            let mut durable_reads = 0;
            for number in (1..=LAST).cycle() {
                let dots = VersionVector::from_iter([stamp(number).dot]);
                let covered = storage.covers(partition, &dots);
                let held = storage.read(partition, &key).expect("the store works");
                let shown = held.what.map_or(0, |record| record.newest_stamp().expect("it has a version").timestamp.0);
                assert!(!covered || shown >= number, "{number} is covered, and {shown} is shown");
                if held.durable {
                    durable_reads += 1;
                    assert!(shown <= sync_begun.load(Ordering::SeqCst), "{shown} is not synced");
                }
                // Entries come and go meanwhile.
                let pulled = storage.pull(partition, &dots).expect("the store works");
                assert!(!covered || !pulled.items.is_empty() || !pulled.lost.is_empty(), "{number} is covered");
                storage.history(partition, &key).expect("the store works");
                if shown == LAST && held.durable {
                    return durable_reads;
                }
            }
            durable_reads
        };
        let readers = [scope.spawn(reader), scope.spawn(reader)];
        for number in 1..=LAST {
            // Some in pieces, which go when the next one comes.
            let bytes = if number % 7 == 0 { limits::VALUE_CHUNK_BYTES * 2 } else { 10 };
            apply(&storage, &[put(&key, number, vec![number as u8; bytes])]);
            if number % 3 == 0 {
                sync_begun.store(number, Ordering::SeqCst);
                storage.sync().expect("the store works");
                let stable = (1..=number).map(|number| stamp(number).dot).collect();
                let expired_before = WallTime(0);
                let collect = Mutation::Collect { partition, stable, expired_before, witnesses: Vec::new() };
                apply(&storage, &[collect]);
            }
        }
        sync_begun.store(LAST, Ordering::SeqCst);
        storage.sync().expect("the store works");
        let durable_reads: u64 = readers.map(|reader| reader.join().expect("no reader fails")).into_iter().sum();
        assert!(durable_reads > 0);
    });
}
