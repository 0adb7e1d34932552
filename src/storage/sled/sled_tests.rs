use std::fs;
use std::path::Path;

use bytes::Bytes;

use crate::types::{Actor, Content, Counter, Dot, Incarnation, NodeId, Timestamp, Version, limits};

use super::schema::Unfinished;
use super::*;

const PARTITIONS: PartitionCount = PartitionCount::new(4).expect("a power of two");

fn open(directory: &Path) -> Result<SledStorage, StorageError> {
    let cache_bytes = 16 * 1024 * 1024;
    SledStorage::open(&SledOptions { directory: directory.to_owned(), cache_bytes, partitions: PARTITIONS })
}

fn stamp(number: u64) -> Stamp {
    let actor = Actor { node: NodeId::new(1).expect("not zero"), incarnation: Incarnation(1) };
    Stamp { timestamp: Timestamp(number), dot: Dot { actor, counter: Counter(number) } }
}

fn key(name: &str) -> Key {
    Key::new(NamespaceId::DEFAULT, name.to_owned()).expect("a valid key")
}

fn partition(key: &Key) -> Partition {
    PARTITIONS.partition_of(key.token())
}

fn put(key: &Key, number: u64, bytes: usize) -> Mutation {
    let content = Content::Value(Bytes::from(vec![number as u8; bytes]));
    let version = Version { stamp: stamp(number), expires_at: None, content };
    Mutation::Record { partition: partition(key), key: key.clone(), record: Record::Last(version) }
}

fn record_key(key: &Key) -> Vec<u8> {
    let mut bytes = Vec::new();
    schema::record_key(&mut bytes, partition(key), key);
    bytes
}

const LARGE: usize = 3 * limits::VALUE_CHUNK_BYTES + 1;

#[test]
fn what_is_damaged_in_any_tree_is_an_error_and_never_served() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let (small, large) = (key("small"), key("large"));
    let storage = open(directory.path()).expect("it opens");
    storage.apply(&[put(&small, 1, 100), put(&large, 2, LARGE)], Timestamp(1)).expect("it works");

    let damage = |tree: &::sled::Tree, key: &[u8]| {
        let good = tree.get(key).expect("sled works").expect("it is there");
        let mut bad = good.to_vec();
        *bad.last_mut().expect("not empty") ^= 0x40;
        tree.insert(key, bad).expect("sled works");
        good
    };
    let is_corrupt = |key: &Key| {
        let result = storage.read(partition(key), key);
        matches!(result, Err(StorageError::Corrupt { .. }))
    };
    let core = &storage.core;

    let good = damage(&core.records, &record_key(&small));
    assert!(is_corrupt(&small));
    assert!(storage.head(partition(&small), &small).is_err());
    let range = ScanRange {
        partition: partition(&small),
        namespace: NamespaceId::DEFAULT,
        from: PARTITIONS.first_token(partition(&small)),
        limit: 9,
    };
    assert!(storage.scan(range).is_err());
    core.records.insert(record_key(&small), good.clone()).expect("sled works");
    assert!(!is_corrupt(&small));

    // A whole record under another key.
    core.records.insert(record_key(&large), good).expect("sled works");
    assert!(is_corrupt(&large));
    storage.core.records.remove(record_key(&large)).expect("sled works");
    storage.apply(&[put(&large, 3, LARGE)], Timestamp(1)).expect("it works");
    assert!(!is_corrupt(&large));

    let chunk = schema::chunk_key(&record_key(&large), &stamp(3), 1);
    let good = damage(&core.chunks, &chunk);
    assert!(is_corrupt(&large));
    assert!(storage.head(partition(&large), &large).is_ok(), "a head reads no chunks");
    core.chunks.remove(chunk).expect("sled works");
    assert!(is_corrupt(&large), "a missing chunk");
    let other = schema::chunk_key(&record_key(&large), &stamp(3), 0);
    let first = core.chunks.get(other).expect("sled works").expect("it is there");
    core.chunks.insert(chunk, first).expect("sled works");
    assert!(is_corrupt(&large), "the right bytes in the wrong place");
    core.chunks.insert(chunk, good).expect("sled works");
    assert!(!is_corrupt(&large));

    // A damaged record stops the writer, who would have to compare with it.
    damage(&core.records, &record_key(&small));
    assert!(storage.apply(&[put(&small, 9, 1)], Timestamp(9)).is_err());
    assert!(storage.sync().is_err(), "and from then on nothing is durable");
}

#[test]
fn a_damaged_entry_of_meta_stops_the_start() {
    for damaged in [schema::FORMAT_KEY, schema::COMMIT_KEY, schema::UNFINISHED_KEY, b"t\0\0\0\0\0".as_slice()] {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let storage = open(directory.path()).expect("it opens");
        let truncate = Mutation::Truncate { partition: Partition(0), namespace: NamespaceId(0), stamp: stamp(1) };
        storage.apply(&[put(&key("large"), 2, LARGE), truncate], Timestamp(1)).expect("it works");
        let mut bad = storage.core.meta.get(damaged).expect("sled works").expect("it is there").to_vec();
        bad[5] ^= 1;
        storage.core.meta.insert(damaged, bad).expect("sled works");
        storage.core.flush_and_sync().expect("it works");
        // Closing in good order writes no entry of its own.
        drop(storage);
        let error = open(directory.path()).expect_err("an entry is damaged");
        assert!(matches!(error, StorageError::Corrupt { tree: "meta", .. }), "{error}");
    }
}

#[test]
fn replaced_chunks_are_removed_and_half_written_ones_at_the_next_start() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let large = key("large");
    let storage = open(directory.path()).expect("it opens");
    for number in 1..5 {
        storage.apply(&[put(&large, number, LARGE)], Timestamp(1)).expect("it works");
        assert_eq!(storage.core.chunks.len(), 4, "only the newest version's");
    }
    storage.apply(&[put(&large, 5, 10)], Timestamp(1)).expect("it works");
    assert_eq!(storage.core.chunks.len(), 0);

    // As a crash between the chunks and their record leaves it, and one between the
    // record and the removal of the chunks that it replaced.
    storage.apply(&[put(&large, 6, LARGE)], Timestamp(1)).expect("it works");
    let bytes = record_key(&large);
    for (number, index) in [(7, 0), (7, 1), (5, 2)] {
        let place = schema::chunk_key(&bytes, &stamp(number), index);
        storage.core.chunks.insert(place, b"piece").expect("sled works");
    }
    let versions = vec![(stamp(7), LARGE), (stamp(6), LARGE), (stamp(5), LARGE)];
    let mut value = Vec::new();
    Unfinished { record_key: bytes, versions }.encode(&mut value);
    storage.core.meta.insert(schema::UNFINISHED_KEY, value).expect("sled works");
    assert_eq!(storage.core.chunks.len(), 7);
    drop(storage);
    let storage = open(directory.path()).expect("it opens");
    assert_eq!(storage.core.chunks.len(), 4);
    let held = storage.read(partition(&large), &large).expect("it works");
    assert_eq!(held.what.expect("it is there").value_bytes(), LARGE);
}

#[test]
fn what_a_kill_leaves_behind_does_not_hinder_the_next_start() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    fs::create_dir_all(directory.path().join("sled.new/blobs")).expect("it can be created");
    fs::write(directory.path().join("sled.new/conf"), "half a configurat").expect("it can be written");
    let storage = open(directory.path()).expect("a store that was never finished is made anew");
    storage.apply(&[put(&key("k"), 1, 10)], Timestamp(1)).expect("it works");
    drop(storage);
    // sled itself would take this for the newest snapshot, and refuse to open.
    let snapshot = directory.path().join("sled/snap.7FFFFFFFFFFFFFFF.generating");
    fs::write(&snapshot, "half a snapshot").expect("it can be written");
    let storage = open(directory.path()).expect("it opens");
    assert!(storage.read(partition(&key("k")), &key("k")).expect("it works").what.is_some());
    assert!(!snapshot.exists());
}

#[test]
fn files_for_large_values_stop_the_store() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let storage = open(directory.path()).expect("it opens");
    let blob = directory.path().join("sled/blobs/1");
    // The longest keys share a token, so that nothing tells them apart but their ends.
    for number in 0..700u32 {
        let name = format!("{{t}}{}{number:05}", "x".repeat(limits::MAX_KEY_BYTES - 20));
        storage.apply(&[put(&key(&name), u64::from(number) + 1, 10)], Timestamp(1)).expect("it works");
        if number % 50 == 49 {
            storage.sync().expect("it works");
            storage.core.check_for_blobs().expect("no files for large pages, even so");
        }
    }
    storage.apply(&[put(&key("large"), 1_000, LARGE)], Timestamp(1)).expect("it works");
    fs::write(&blob, "sled would have written this").expect("it can be written");
    assert!(matches!(storage.sync(), Err(StorageError::Engine(_))));
    assert!(storage.apply(&[], Timestamp(2)).is_err(), "and from then on nothing is durable");
    assert!(storage.sync().is_err());
}

#[test]
fn records_with_as_many_siblings_as_there_may_be_make_no_files() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let storage = open(directory.path()).expect("it opens");
    let version = |key: u64, number: u64, bytes: usize| {
        let node = NodeId::new(u32::MAX - number as u32).expect("not zero");
        let incarnation = Incarnation(u64::MAX - key);
        let dot = Dot { actor: Actor { node, incarnation }, counter: Counter(u64::MAX - 9) };
        let stamp = Stamp { timestamp: Timestamp(u64::MAX), dot };
        Version { stamp, expires_at: None, content: Content::Value(vec![number as u8; bytes].into()) }
    };
    for number in 0..40 {
        let key = key(&format!("{{t}}{number}"));
        // Each value is short enough until the others come.
        for (begin, bytes) in [(0, 30_000), (1, 2_000), (9, 140)] {
            let end = if begin == 9 { limits::RECORD_VERSIONS as u64 } else { begin * 8 + 1 };
            let versions = (begin..end).map(|index| version(number, index, bytes)).collect();
            let record =
                Record::Siblings(crate::types::Siblings::new(versions, crate::types::CausalContext::default()));
            let mutation = Mutation::Record { partition: partition(&key), key: key.clone(), record };
            storage.apply(&[mutation], Timestamp(1)).expect("it works");
        }
        if number % 10 == 9 {
            storage.sync().expect("it works");
            storage.core.check_for_blobs().expect("no files for large pages");
        }
        let record = storage.read(partition(&key), &key).expect("it works").what.expect("it is there");
        assert_eq!(record.versions().len(), limits::RECORD_VERSIONS);
        assert_eq!(record.value_bytes(), 30_000 + 8 * 2_000 + (limits::RECORD_VERSIONS - 9) * 140);
        assert!(storage.core.records.get(record_key(&key)).expect("sled works").expect("there").len() < 80_000);
    }
    assert_eq!(storage.core.chunks.len(), 40 * 9);
}

#[test]
fn a_panic_in_the_engine_is_a_failure_for_good() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let storage = open(directory.path()).expect("it opens");
    let result: Result<(), _> = storage.core.guarded(|| panic!("as sled does on damaged files"));
    let error = result.expect_err("it panicked");
    assert!(error.to_string().contains("as sled does on damaged files"), "{error}");
    assert!(storage.apply(&[], Timestamp(1)).is_err());
    assert!(storage.sync().is_err());
    let error = storage.head(partition(&key("k")), &key("k")).expect_err("it has failed");
    assert!(error.to_string().contains("as sled does on damaged files"), "{error}");
}

#[test]
fn a_count_that_is_disturbed_is_taken_again() {
    let partitions = [Partition(0), Partition(1)];
    let tally = Tally::new(partitions.into_iter(), 7);
    assert_eq!(tally.total(), 7, "as it was stored");
    let namespace = NamespaceId(0);
    let mut scanned = Vec::new();
    let scan = |partition| {
        scanned.push(partition);
        match scanned.len() {
            1 => {
                // While the first partition is scanned, a key is added to it.
                tally.begin_group().replaced(partition, namespace, stamp(9), false, true);
                assert_eq!(tally.total(), 8);
            }
            3 => tally.stop(),
            _ => {}
        }
        let live = scanned.len() as u64;
        Ok(Some([(namespace, tally::Count { live, newest: stamp(9) })].into()))
    };
    tally.run(scan).expect("no scan failed");
    assert_eq!(scanned, [Partition(0), Partition(0), Partition(1)], "the first one twice");
    assert_eq!(tally.total(), 5, "what the second and the third scan found");
}

#[test]
fn a_count_that_is_disturbed_for_ever_holds_the_writers_up_in_the_end() {
    let tally = Tally::new([Partition(0)].into_iter(), 0);
    let mut scans = 0;
    std::thread::scope(|scope| {
        let scan = |partition| {
            scans += 1;
            if scans < 4 {
                tally.begin_group().replaced(partition, NamespaceId(0), stamp(9), false, true);
                return Ok(Some(tally::Counts::new()));
            }
            // Groups wait from here on, and so does whoever closes the store.
            scope.spawn(|| tally.stop());
            while !tally.is_stopped() {
                std::thread::yield_now();
            }
            Ok(Some([(NamespaceId(0), tally::Count { live: 3, newest: stamp(9) })].into()))
        };
        tally.run(scan).expect("no scan failed");
    });
    assert_eq!((scans, tally.total()), (4, 3));
}
