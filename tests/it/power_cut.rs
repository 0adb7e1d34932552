//! Power cuts: a file system in a file, shut down under a store that is being written.
//!
//! `EXT4_IOC_SHUTDOWN` without flushing the journal is what a power cut is to the file
//! system: whatever was not synced is gone. Each cycle starts a process that commits
//! groups and prints what was acknowledged, cuts the power at a random moment, mounts
//! the file system again, and demands an exact prefix of the mutations that holds every
//! acknowledged one. Some stores are new, some live on from cycle to cycle and grow old.
//! What a new store writes beyond its first segment is the hardest to keep: sled's own
//! `flush` puts those bytes on the disk too, but not the file system's note of where.
//!
//! `DOGSLED_POWER_CUT_CYCLES` sets how many (5), `DOGSLED_POWER_CUT_SEED` replays one run.
//! Needs root and a kernel with loop devices and ext4; says so where it is skipped.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel, sync_channel};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use dogsled::storage::sled::SledStorage;
use dogsled::storage::{Committer, Storage};
use dogsled::types::limits::{SCAN_PAGE_ENTRIES, SLED_SEGMENT_BYTES};
use dogsled::types::{CommitNumber, Content, Coverage, Key, Mutation, NamespaceId, Record, ScanRange, Timestamp};
use rand::rngs::SmallRng;
use rand::{Rng, RngCore, SeedableRng};

use super::storage::{PARTITIONS, key, open, partition, put, stamp};

/// So many that hardly one is written twice, and the file only grows.
const MANY_KEYS: u64 = 1_000_000;
/// So few that sled soon writes over what they have left behind.
const FEW_KEYS: u64 = 48;
const CHILD_DIRECTORY: &str = "DOGSLED_POWER_CUT_CHILD_DIRECTORY";
const CHILD_BEGIN: &str = "DOGSLED_POWER_CUT_CHILD_BEGIN";
const CHILD_IN_FLIGHT: &str = "DOGSLED_POWER_CUT_CHILD_IN_FLIGHT";
const CHILD_KEYS: &str = "DOGSLED_POWER_CUT_CHILD_KEYS";

/// The mutation with a number, on one of so many keys: whoever asks gets the same.
fn mutation(number: u64, keys: u64) -> (Key, Mutation) {
    let (key, mut chance) = written_to(number, keys);
    let length = match chance.random_range(0..20) {
        0..12 => chance.random_range(1..500),
        12..17 => chance.random_range(500..66_000),
        17..19 => chance.random_range(60_000..400_000),
        _ => chance.random_range(400_000..=1024 * 1024),
    };
    let mut value = vec![0; length];
    chance.fill_bytes(&mut value);
    let mutation = put(&key, number, value);
    (key, mutation)
}

/// Its key, and chance to draw the rest from.
fn written_to(number: u64, keys: u64) -> (Key, SmallRng) {
    let mut chance = SmallRng::seed_from_u64(number);
    (key(format!("key{}", chance.random_range(0..keys))), chance)
}

/// Not a test: the process that writes until its disk is gone.
#[test]
#[ignore = "the power cut test runs it in a process of its own"]
fn child_that_writes() {
    let Ok(directory) = std::env::var(CHILD_DIRECTORY) else { return };
    let number_of = |name: &str| std::env::var(name).expect("it is set too").parse::<u64>().expect("a number");
    let (begin, keys) = (number_of(CHILD_BEGIN), number_of(CHILD_KEYS));
    say("opening");
    let storage = match SledStorage::open(&super::storage::options(Path::new(&directory))) {
        Ok(storage) => storage,
        Err(error) => {
            say(&format!("failed {error}"));
            std::process::exit(3);
        }
    };
    say("ready");
    let (in_flight, done) = sync_channel(number_of(CHILD_IN_FLIGHT) as usize);
    let on_committed = Box::new(move |group: Vec<(u64, _)>| {
        let (last, _) = group.last().expect("groups are not empty");
        say(&format!("durable {last}"));
        for _ in group {
            done.recv().expect("a place was taken for each");
        }
    });
    let on_failure = Box::new(|_| std::process::exit(3));
    let committer = Committer::start(Arc::new(storage), Arc::default(), on_committed, on_failure);
    let committer = committer.expect("there are threads");
    for number in begin.. {
        in_flight.send(()).expect("the committer lives");
        if committer.submit(number, mutation(number, keys).1, Timestamp(number)).is_err() {
            break;
        }
    }
}

/// One whole line at once, so that a line that was begun was meant.
fn say(line: &str) {
    let mut stdout = std::io::stdout().lock();
    if stdout.write_all(format!("{line}\n").as_bytes()).and_then(|()| stdout.flush()).is_err() {
        std::process::exit(4);
    }
}

/// Runs a program; what it printed is the error.
fn run(program: &str, arguments: &[&str]) -> Result<(), String> {
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).output();
    let output = output.map_err(|error| format!("{program}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{program} {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim()))
}

/// An ext4 file system in a file, unmounted whatever happens.
struct Disk {
    image: PathBuf,
    mount_point: PathBuf,
    mounted: bool,
}

impl Disk {
    fn make(directory: &Path) -> Result<Disk, String> {
        const BYTES: u64 = 3 * 1024 * 1024 * 1024;
        let (image, mount_point) = (directory.join("image"), directory.join("mounted"));
        let file = File::create(&image).map_err(|error| error.to_string())?;
        file.set_len(BYTES).map_err(|error| error.to_string())?;
        fs::create_dir(&mount_point).map_err(|error| error.to_string())?;
        run("mkfs.ext4", &["-q", "-F", path(&image)])?;
        let mut disk = Disk { image, mount_point, mounted: false };
        disk.mount()?;
        Ok(disk)
    }

    fn mount(&mut self) -> Result<(), String> {
        run("mount", &["-o", "loop", path(&self.image), path(&self.mount_point)])?;
        self.mounted = true;
        Ok(())
    }

    /// Threads of a process that was just killed may hold files for a moment.
    fn unmount(&mut self) -> Result<(), String> {
        let mut result = Ok(());
        for _ in 0..500 {
            result = run("umount", &[path(&self.mount_point)]);
            if result.is_ok() {
                self.mounted = false;
                return result;
            }
            thread::sleep(Duration::from_millis(20));
        }
        result
    }

    /// Cuts the power.
    #[expect(unsafe_code, reason = "there is no safe way to this ioctl, and no other way to cut the power")]
    fn cut(&self) {
        const EXT4_IOC_SHUTDOWN: rustix::ioctl::Opcode = 0x8004_587d;
        const NO_LOG_FLUSH: u32 = 2;
        let root = File::open(&self.mount_point).expect("it is mounted");
        // SAFETY: this operation reads one 32-bit number.
        let result =
            unsafe { rustix::ioctl::ioctl(&root, rustix::ioctl::Setter::<EXT4_IOC_SHUTDOWN, u32>::new(NO_LOG_FLUSH)) };
        result.expect("ext4 can be shut down");
    }

    /// How long sled's file is.
    fn written(&self) -> u64 {
        fs::metadata(self.store().join("sled/db")).expect("the store was made").len()
    }

    fn store(&self) -> PathBuf {
        self.mount_point.join("store")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if self.mounted && self.unmount().is_err() {
            let _best_effort = run("umount", &["--lazy", path(&self.mount_point)]);
        }
    }
}

fn path(path: &Path) -> &str {
    path.to_str().expect("temporary directories have plain names")
}

/// The process that writes, killed whatever happens.
struct Writer {
    child: Child,
    lines: Receiver<String>,
}

impl Writer {
    fn start(disk: &Disk, begin: u64, in_flight: u64, keys: u64) -> Writer {
        let this_binary = std::env::current_exe().expect("this test runs from a file");
        let mut child = Command::new(this_binary)
            .args(["--exact", "power_cut::child_that_writes", "--ignored", "--nocapture"])
            .env(CHILD_DIRECTORY, disk.store())
            .env(CHILD_BEGIN, begin.to_string())
            .env(CHILD_IN_FLIGHT, in_flight.to_string())
            .env(CHILD_KEYS, keys.to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("this binary can be run");
        let stdout = BufReader::new(child.stdout.take().expect("it is piped"));
        let (sender, lines) = channel();
        thread::spawn(move || stdout.lines().map_while(Result::ok).all(|line| sender.send(line).is_ok()));
        Writer { child, lines }
    }

    /// Kills it and returns what it has said since.
    fn kill(mut self) -> Vec<String> {
        let _already_dead = self.child.kill();
        self.child.wait().expect("it was started");
        self.lines.iter().collect()
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let _already_dead = self.child.kill();
        let _waited_already = self.child.wait();
    }
}

/// The number of the last acknowledged mutation, if the line says so.
fn acknowledged(line: &str) -> Option<u64> {
    // The harness may have put words of its own in front.
    line.rsplit_once("durable ").map(|(_, number)| number.parse().expect("a number"))
}

/// The newest mutation of each key if there were `last` in all.
fn expected(last: u64, keys: u64) -> BTreeMap<Bytes, u64> {
    let key_of = |number| written_to(number, keys).0.bytes().clone();
    (1..=last).map(|number| (key_of(number), number)).collect()
}

/// Checks the store and returns how many mutations it holds.
fn check(disk: &Disk, last_acknowledged: u64, acknowledged_now: bool, keys: u64, seed: u64) -> u64 {
    let storage = open(&disk.store());
    let mut names = Vec::new();
    for partition in PARTITIONS.all() {
        let from = PARTITIONS.first_token(partition);
        let range = ScanRange { partition, namespace: NamespaceId::DEFAULT, from, limit: SCAN_PAGE_ENTRIES };
        let page = storage.scan(range).expect("every record is whole");
        assert_eq!(page.next, None, "there are not as many keys as that");
        names.extend(page.entries.into_iter().map(|entry| entry.key));
    }
    let mut found = BTreeMap::new();
    for name in names {
        let key = key(name.clone());
        let held = storage.read(partition(&key), &key).expect("every record is whole");
        let Some(Record::Last(version)) = held.what else { unreachable!("it was scanned") };
        let number = version.stamp.dot.counter.0;
        assert_eq!(version.stamp, stamp(number));
        let (its_key, written) = mutation(number, keys);
        assert_eq!(its_key, key);
        let Mutation::Record { record: Record::Last(written), .. } = written else { unreachable!("it is a record") };
        assert!(version == written, "mutation {number} has another content (seed {seed})");
        assert!(matches!(version.content, Content::Value(_)));
        found.insert(name, number);
    }
    let last = found.values().copied().max().unwrap_or(0);
    assert!(last >= last_acknowledged, "{last_acknowledged} was acknowledged, but only {last} survived (seed {seed})");
    // What survived of a group that was never acknowledged may lie above the clock.
    if acknowledged_now {
        let clock = storage.recovered().clock;
        assert!(clock >= Timestamp(last_acknowledged), "the clock went back to {clock:?} (seed {seed})");
    }
    assert_eq!(found, expected(last, keys), "not a prefix (seed {seed})");
    // What was seen is exactly what is there.
    let (_, coverages) = storage.coverage(CommitNumber(0));
    assert_eq!(coverages.iter().map(|it| it.vector.count()).sum::<u64>(), last, "other dots (seed {seed})");
    let newest = |coverage: &Coverage| coverage.vector.dots().map(|dot| dot.counter.0).max();
    assert_eq!(coverages.iter().filter_map(newest).max().unwrap_or(0), last, "other dots (seed {seed})");
    last
}

#[test]
fn every_acknowledged_group_survives_power_cuts() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: cutting the power needs root");
        return;
    }
    let directory = tempfile::tempdir().expect("a temporary directory");
    let mut disk = match Disk::make(directory.path()) {
        Ok(disk) => disk,
        Err(reason) => {
            eprintln!("SKIPPED: no file system to cut the power of: {reason}");
            return;
        }
    };
    let number_of = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().expect("a number"));
    let cycles = number_of("DOGSLED_POWER_CUT_CYCLES").unwrap_or(5);
    let seed = number_of("DOGSLED_POWER_CUT_SEED").unwrap_or_else(|| u64::from_le_bytes(dogsled::ambient::seed()));
    eprintln!("DOGSLED_POWER_CUT_SEED={seed}");
    let mut chance = SmallRng::seed_from_u64(seed);

    let (mut last, mut keys, mut groups) = (0, MANY_KEYS, 0);
    for cycle in 1..=cycles {
        let moment = match cycle % 6 {
            0 | 1 => Moment::Opening,
            2..=4 => Moment::Young,
            _ => Moment::Old,
        };
        if moment == Moment::Young {
            let _there_may_be_none = fs::remove_dir_all(disk.store());
            last = 0;
            keys = if cycle % 6 == 4 { FEW_KEYS } else { MANY_KEYS };
        }
        // Small groups follow each other fast, so that what happens to sync now and then
        // (sled's own thread, the kernel) has less time to save what was not synced.
        let in_flight = chance.random_range(1..if keys == MANY_KEYS { 8 } else { 256 });
        let writer = Writer::start(&disk, last + 1, in_flight, keys);
        let mut last_acknowledged = last;
        if moment == Moment::Opening {
            await_line(&writer, "opening");
            thread::sleep(Duration::from_millis(chance.random_range(0..250)));
        } else {
            await_line(&writer, "ready");
            let enough_mutations = last + chance.random_range(1..2_000);
            // The first segment is written to when a store is opened, and sled may write over
            // an old one once it has filled three.
            let enough_bytes = SLED_SEGMENT_BYTES + chance.random_range(0..SLED_SEGMENT_BYTES * 3 / 2);
            while match moment {
                Moment::Young => disk.written() < enough_bytes as u64,
                _ => last_acknowledged < enough_mutations,
            } {
                let line = writer.lines.recv().expect("it writes until it is killed");
                last_acknowledged = acknowledged(&line).unwrap_or(last_acknowledged);
                groups += 1;
            }
            thread::sleep(Duration::from_micros(chance.random_range(0..if in_flight < 8 { 500 } else { 20_000 })));
        }
        disk.cut();
        for line in writer.kill() {
            if let Some(number) = acknowledged(&line) {
                last_acknowledged = number;
                groups += 1;
            }
        }
        disk.unmount().expect("nothing holds it any more");
        disk.mount().expect("the file system recovers");
        last = check(&disk, last_acknowledged, last_acknowledged > last, keys, seed);
        eprintln!(
            "cycle {cycle}: {moment:?}, {keys} keys, {last_acknowledged} acknowledged, {last} found, {groups} groups so far"
        );
    }
}

/// When the power is cut.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Moment {
    /// While a store is made or opened.
    Opening,
    /// When a new store has begun its second segment, or a later one.
    Young,
    /// Some time after it was opened.
    Old,
}

fn await_line(writer: &Writer, word: &str) {
    loop {
        match writer.lines.recv_timeout(Duration::from_secs(60)) {
            Ok(line) if line.ends_with(word) => return,
            Ok(line) => assert!(!line.contains("failed"), "the store did not open: {line}"),
            Err(RecvTimeoutError::Timeout) => panic!("the writer says nothing"),
            Err(RecvTimeoutError::Disconnected) => panic!("the writer has died"),
        }
    }
}
