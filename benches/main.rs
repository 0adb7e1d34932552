//! What durable writes cost: `cargo bench --bench main`.
//!
//! Groups of several sizes through the store on disk, to be compared with the figures
//! that the design rests on; then what reading the log back costs when the store is opened.
//! Rates depend on the disk; CPU per write hardly does.

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::channel;

use bytes::Bytes;
use dogsled::ambient;
use dogsled::storage::sled::{SledOptions, SledStorage};
use dogsled::storage::{Committer, Counters, Storage};
use dogsled::types::{
    Actor, Content, Counter, Dot, Incarnation, Key, Mutation, NamespaceId, NodeId, PartitionCount, Record, Stamp,
    Timestamp, Version,
};
use rand::rngs::SmallRng;
use rand::{Rng, RngCore, SeedableRng};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const PARTITIONS: PartitionCount = PartitionCount::new(256).expect("a power of two");
const KEYS: u64 = 100_000;
const VALUE_BYTES: usize = 130;
const SECONDS_EACH: u64 = 4;

fn main() {
    // Test runners start every target to see what is in it.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let directory = tempfile::Builder::new().prefix("dogsled-bench").tempdir().expect("a temporary directory");
    let storage = open(directory.path());
    let mut writes = Writes { chance: SmallRng::seed_from_u64(1), number: 0 };
    for first in (0..KEYS).step_by(1_000) {
        let group: Vec<_> = (first..first + 1_000).map(|index| writes.to(index)).collect();
        storage.apply(&group, Timestamp(0)).expect("the store works");
    }
    storage.sync().expect("the store works");
    println!("{KEYS} keys of 38 bytes, values of {VALUE_BYTES} bytes");

    for size in [1, 8, 32, 128] {
        let mut count = 0;
        let meter = Meter::start();
        while !meter.is_over() {
            let group: Vec<_> = (0..size).map(|_| writes.next()).collect();
            storage.apply(&group, Timestamp(0)).expect("the store works");
            storage.sync().expect("the store works");
            count += size;
        }
        meter.report(&format!("groups of {size}"), count);
    }

    let storage = Arc::new(storage);
    let key = |index: u64| key(index);
    let mut count = 0;
    let meter = Meter::start();
    while !meter.is_over() {
        for _ in 0..1_000 {
            let key = key(writes.chance.random_range(0..KEYS));
            let held = storage.read(PARTITIONS.partition_of(key.token()), &key).expect("the store works");
            assert!(held.what.is_some());
        }
        count += 1_000;
    }
    meter.report("reads", count);

    for in_flight in [8, 64, 256] {
        let counters = Arc::new(Counters::default());
        let (done, results) = channel();
        let on_committed = Box::new(move |group: Vec<_>| done.send(group.len()).expect("the bench listens"));
        let shared = Arc::clone(&storage) as Arc<dyn Storage>;
        let committer: Committer<u64> =
            Committer::start(shared, Arc::clone(&counters), on_committed, Box::new(|error| panic!("{error}")))
                .expect("there are threads");
        let mut count = 0;
        for _ in 0..in_flight {
            committer.submit(0, writes.next(), Timestamp(0)).expect("there is room");
        }
        let meter = Meter::start();
        while !meter.is_over() {
            let finished = results.recv().expect("the committer lives");
            for _ in 0..finished {
                committer.submit(0, writes.next(), Timestamp(0)).expect("there is room");
            }
            count += finished as u64;
        }
        meter.report(&format!("committer, {in_flight} in flight"), count);
        committer.stop();
        let seen = counters.snapshot();
        println!(
            "    groups of {:.1}, {:.0} µs to apply, {:.0} µs to sync",
            seen.mutations as f64 / seen.groups as f64,
            seen.apply_micros as f64 / seen.groups as f64,
            seen.sync_micros as f64 / seen.groups as f64,
        );
    }

    // Nothing was collected, so the log has every write since the store was made.
    let (logged, bytes) = (storage.log_length(), storage.disk_bytes());
    drop(Arc::into_inner(storage).expect("every committer has stopped"));
    let meter = Meter::start();
    let storage = open(directory.path());
    meter.report("mutations of the log read back at a start", logged);
    println!("    {logged} of them, {bytes} bytes on disk");
    assert_eq!(storage.log_length(), logged);
}

fn open(directory: &Path) -> SledStorage {
    let cache_bytes = 256 * 1024 * 1024;
    let options = SledOptions { directory: directory.to_owned(), cache_bytes, partitions: PARTITIONS };
    SledStorage::open(&options).expect("the store opens")
}

fn key(index: u64) -> Key {
    Key::new(NamespaceId::DEFAULT, format!("a-key-of-thirty-eight-bytes-{index:010}")).expect("a valid key")
}

/// Values that differ: sled does nothing for one that is already there.
struct Writes {
    chance: SmallRng,
    number: u64,
}

impl Writes {
    fn next(&mut self) -> Mutation {
        let index = self.chance.random_range(0..KEYS);
        self.to(index)
    }

    fn to(&mut self, index: u64) -> Mutation {
        self.number += 1;
        let mut value = vec![0; VALUE_BYTES];
        self.chance.fill_bytes(&mut value);
        let actor = Actor { node: NodeId::new(1).expect("not zero"), incarnation: Incarnation(1) };
        let stamp = Stamp { timestamp: Timestamp(self.number), dot: Dot { actor, counter: Counter(self.number) } };
        let key = key(index);
        let version = Version { stamp, expires_at: None, content: Content::Value(Bytes::from(value)) };
        let record = Record::Last(version);
        Mutation::Record { partition: PARTITIONS.partition_of(key.token()), key, record }
    }
}

/// Time and CPU time since it was started.
struct Meter {
    begun_micros: u64,
    cpu_micros: u64,
}

impl Meter {
    fn start() -> Meter {
        Meter { begun_micros: ambient::moment().0, cpu_micros: cpu_micros() }
    }

    fn is_over(&self) -> bool {
        ambient::moment().0 - self.begun_micros >= SECONDS_EACH * 1_000_000
    }

    fn report(&self, what: &str, count: u64) {
        let seconds = (ambient::moment().0 - self.begun_micros) as f64 / 1e6;
        let cpu = (cpu_micros() - self.cpu_micros) as f64 / count as f64;
        println!("{what}: {:.0}/s, {cpu:.1} µs of CPU each", count as f64 / seconds);
    }
}

/// User and system time of all threads, from `/proc/self/stat`, in steps of 10 ms.
fn cpu_micros() -> u64 {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("Linux tells");
    let (_, fields) = stat.rsplit_once(") ").expect("the name ends");
    let ticks = fields.split(' ').skip(11).take(2).map(|field| field.parse::<u64>().expect("a number"));
    ticks.sum::<u64>() * 10_000
}
