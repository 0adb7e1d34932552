use std::sync::mpsc::{Receiver, Sender, channel};

use bytes::Bytes;

use crate::storage::StoreStatistics;
use crate::storage::memory::MemoryStorage;
use crate::storage::{Held, ReadAnswer, ReadOrder, Readers, Recovered};
use crate::types::{
    Actor, CommitNumber, Content, Counter, Coverage, Digest, Dot, Incarnation, Key, LocalHistory, NamespaceId, NodeId,
    Partition, PartitionCount, Pulled, Record, ScanRange, ScanResult, Stamp, StoreId, Version, VersionVector,
};

use super::*;

const PARTITIONS: PartitionCount = PartitionCount::new(1).expect("a power of two");

/// A store whose syncs wait for a word from the test, which may be to fail.
struct Gated {
    memory: MemoryStorage,
    applying: Sender<usize>,
    verdicts: Mutex<Receiver<Verdict>>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Verdict {
    Sync,
    Fail,
    Panic,
}

impl Storage for Gated {
    fn apply(&self, group: &[Mutation], clock: Timestamp) -> Result<Vec<Applied>, StorageError> {
        self.applying.send(group.len()).expect("the test listens");
        self.memory.apply(group, clock)
    }

    fn sync(&self) -> Result<CommitNumber, StorageError> {
        match self.verdicts.lock().expect("not poisoned").recv().expect("the test speaks") {
            Verdict::Sync => self.memory.sync(),
            Verdict::Fail => Err(StorageError::Engine("EIO".to_owned())),
            Verdict::Panic => panic!("as sled does"),
        }
    }

    fn read(&self, partition: Partition, key: &Key) -> Result<Held<Record>, StorageError> {
        self.memory.read(partition, key)
    }

    fn head(&self, _: Partition, _: &Key) -> Result<Held<Digest>, StorageError> {
        Err(StorageError::Engine("EIO".to_owned()))
    }

    fn scan(&self, range: ScanRange) -> Result<ScanResult, StorageError> {
        self.memory.scan(range)
    }

    fn covers(&self, partition: Partition, dots: &VersionVector) -> bool {
        self.memory.covers(partition, dots)
    }

    fn coverage(&self, since: CommitNumber) -> (CommitNumber, Vec<Coverage>) {
        self.memory.coverage(since)
    }

    fn pull(&self, partition: Partition, wanted: &VersionVector) -> Result<Pulled, StorageError> {
        self.memory.pull(partition, wanted)
    }

    fn history(&self, partition: Partition, key: &Key) -> Result<LocalHistory, StorageError> {
        self.memory.history(partition, key)
    }

    fn discarded(&self) -> u64 {
        self.memory.discarded()
    }

    fn log_length(&self) -> u64 {
        self.memory.log_length()
    }

    fn live_keys(&self) -> u64 {
        self.memory.live_keys()
    }

    fn disk_bytes(&self) -> u64 {
        self.memory.disk_bytes()
    }

    fn recovered(&self) -> Recovered {
        self.memory.recovered()
    }
}

struct Fixture {
    /// Before the committer, so that a test that fails does not leave it waiting.
    verdict: Sender<Verdict>,
    committer: Committer<u64>,
    storage: Arc<Gated>,
    counters: Arc<Counters>,
    applying: Receiver<usize>,
    committed: Receiver<Vec<(u64, Applied)>>,
    failure: Receiver<StorageError>,
}

/// What comes next; a test that waits for ever says less than one that fails.
fn soon<T>(receiver: &Receiver<T>) -> T {
    receiver.recv_timeout(Duration::from_secs(30)).expect("it comes")
}

fn fixture() -> Fixture {
    fixture_looked_after(LOOK_EVERY)
}

fn fixture_looked_after(look_every: Duration) -> Fixture {
    let (applying_sender, applying) = channel();
    let (verdict, verdicts) = channel();
    let (committed_sender, committed) = channel();
    let (failure_sender, failure) = channel();
    let memory = MemoryStorage::new(PARTITIONS, StoreId(1));
    let storage = Arc::new(Gated { memory, applying: applying_sender, verdicts: Mutex::new(verdicts) });
    let counters = Arc::new(Counters::default());
    let committer = Committer::start_looked_after(
        Arc::clone(&storage) as Arc<dyn Storage>,
        Arc::clone(&counters),
        Box::new(move |group| committed_sender.send(group).expect("the test listens")),
        Box::new(move |error| failure_sender.send(error).expect("the test listens")),
        look_every,
    );
    let committer = committer.expect("there are threads");
    Fixture { verdict, committer, storage, counters, applying, committed, failure }
}

fn dot(number: u64) -> Dot {
    let actor = Actor { node: NodeId::new(1).expect("not zero"), incarnation: Incarnation(1) };
    Dot { actor, counter: Counter(number + 1) }
}

fn put(number: u64, bytes: usize) -> Mutation {
    put_at(format!("key{number}"), number, bytes)
}

fn put_at(key: impl Into<Bytes>, number: u64, bytes: usize) -> Mutation {
    let key = Key::new(NamespaceId::DEFAULT, key).expect("a valid key");
    let stamp = Stamp { timestamp: Timestamp(number), dot: dot(number) };
    let version = Version { stamp, expires_at: None, content: Content::Value(Bytes::from(vec![0; bytes])) };
    Mutation::Record { partition: Partition(0), key, record: Record::Last(version) }
}

impl Fixture {
    fn submit(&self, number: u64) {
        self.committer.submit(number, put(number, 10), Timestamp(number)).expect("there is room");
    }

    fn group(&self) -> usize {
        soon(&self.applying)
    }

    fn say(&self, verdict: Verdict) {
        self.verdict.send(verdict).expect("the store listens");
    }

    fn tickets(&self) -> Vec<u64> {
        soon(&self.committed).into_iter().map(|(ticket, _)| ticket).collect()
    }
}

#[test]
fn nothing_is_told_before_the_sync_and_the_next_group_gathers_meanwhile() {
    let fixture = fixture();
    fixture.submit(1);
    assert_eq!(fixture.group(), 1);
    for number in 2..=50 {
        fixture.submit(number);
    }
    assert!(fixture.committed.try_recv().is_err(), "not synced yet");
    assert_eq!(fixture.counters.snapshot().commit_queue, 50);
    fixture.say(Verdict::Sync);
    assert_eq!(fixture.tickets(), [1]);
    assert_eq!(fixture.group(), 49, "all that came meanwhile, in one group");
    assert!(fixture.committed.try_recv().is_err(), "not synced yet");
    fixture.say(Verdict::Sync);
    assert_eq!(fixture.tickets(), (2..=50).collect::<Vec<_>>(), "in their order");
    let counters = fixture.counters.snapshot();
    assert_eq!((counters.groups, counters.mutations, counters.commit_queue), (2, 50, 0));
    assert!(counters.bytes > 0);
    fixture.committer.stop();
    assert_eq!(fixture.storage.memory.unsynced(), 0);
}

#[test]
fn groups_are_bounded_in_number_and_in_bytes_and_no_ticket_is_lost() {
    let fixture = fixture();
    fixture.submit(0);
    assert_eq!(fixture.group(), 1);
    let count = 2 * limits::COMMIT_GROUP_MUTATIONS as u64 + 5;
    for number in 1..=count {
        fixture.submit(number);
    }
    let megabyte = 1024 * 1024;
    for number in 1..=10 {
        let ticket = count + number;
        fixture.committer.submit(ticket, put(ticket, megabyte), Timestamp(ticket)).expect("there is room");
    }
    fixture.say(Verdict::Sync);
    assert_eq!(fixture.tickets(), [0]);
    let mut sizes = Vec::new();
    let mut tickets = Vec::new();
    while tickets.len() < count as usize + 10 {
        sizes.push(fixture.group());
        fixture.say(Verdict::Sync);
        tickets.extend(fixture.tickets());
    }
    assert_eq!(tickets, (1..=count + 10).collect::<Vec<_>>());
    let full = limits::COMMIT_GROUP_MUTATIONS;
    // The five that are left over and four large ones are just above the bytes of a group.
    assert_eq!(sizes, [full, full, 5 + 4, 4, 2]);
}

#[test]
fn groups_are_bounded_in_bytes_of_the_log() {
    let fixture = fixture();
    fixture.submit(0);
    assert_eq!(fixture.group(), 1);
    let count = 100;
    for number in 1..=count {
        let mutation = put_at(vec![number as u8; 2_000], number, 10);
        assert_eq!(mutation.log_bytes(), 2_040);
        fixture.committer.submit(number, mutation, Timestamp(number)).expect("there is room");
    }
    fixture.say(Verdict::Sync);
    assert_eq!(fixture.tickets(), [0]);
    let mut sizes = Vec::new();
    while sizes.iter().sum::<usize>() < count as usize {
        sizes.push(fixture.group());
        fixture.say(Verdict::Sync);
        fixture.tickets();
    }
    // The one that exceeds the bound is the last of its group.
    let full = limits::COMMIT_GROUP_LOG_BYTES / 2_040 + 1;
    assert_eq!(sizes, [full, full, full, count as usize - 3 * full]);
}

#[test]
fn a_full_queue_refuses_and_what_is_being_committed_counts() {
    let fixture = fixture();
    fixture.submit(0);
    fixture.group();
    for number in 1..limits::COMMIT_QUEUE_MUTATIONS as u64 {
        fixture.submit(number);
    }
    let one_more = || fixture.committer.submit(1_000_000, put(1_000_000, 10), Timestamp(0));
    assert_eq!(one_more(), Err(Refused::Full));
    assert_eq!(fixture.counters.snapshot().commit_refused, 1);
    fixture.say(Verdict::Sync);
    fixture.tickets();
    assert_eq!(one_more(), Ok(()));
    for _ in 0..limits::COMMIT_QUEUE_MUTATIONS {
        fixture.say(Verdict::Sync);
    }
    fixture.committer.stop();
    let told: usize = fixture.committed.iter().map(|group| group.len()).sum();
    assert_eq!(told, limits::COMMIT_QUEUE_MUTATIONS, "stopping commits what waits");
}

#[test]
fn the_queue_is_bounded_in_bytes() {
    let fixture = fixture();
    let bytes = limits::MAX_VALUE_BYTES;
    let mut taken = 0;
    while fixture.committer.submit(taken, put(taken, bytes), Timestamp(0)).is_ok() {
        taken += 1;
        assert!(taken as usize * bytes <= limits::COMMIT_QUEUE_BYTES);
    }
    assert_eq!(taken as usize, limits::COMMIT_QUEUE_BYTES / bytes - 1, "keys and overhead count as well");
    fixture.submit(99);
    for _ in 0..taken + 1 {
        fixture.say(Verdict::Sync);
    }
    fixture.committer.stop();
}

#[test]
fn after_a_failure_nothing_is_told_and_nothing_taken() {
    for verdict in [Verdict::Fail, Verdict::Panic] {
        let fixture = fixture();
        fixture.submit(1);
        fixture.group();
        fixture.submit(2);
        fixture.say(Verdict::Sync);
        assert_eq!(fixture.tickets(), [1]);
        fixture.group();
        fixture.submit(3);
        fixture.say(verdict);
        // A second sync would succeed, and must not be tried.
        fixture.say(Verdict::Sync);
        let error = soon(&fixture.failure);
        assert!(matches!(error, StorageError::Engine(_)), "{error}");
        assert_eq!(fixture.committer.submit(4, put(4, 1), Timestamp(4)), Err(Refused::Closed));
        fixture.committer.stop();
        assert_eq!(fixture.committed.iter().count(), 0, "neither 2, which failed, nor 3, which waited");
        assert!(fixture.applying.try_recv().is_err(), "3 was never applied");
        assert!(fixture.failure.recv().is_err(), "told once");
    }
}

#[test]
fn a_group_that_never_ends_is_a_failure_and_stopping_does_not_wait_for_it() {
    let fixture = fixture_looked_after(Duration::from_millis(1));
    fixture.submit(1);
    fixture.say(Verdict::Sync);
    assert_eq!(fixture.tickets(), [1]);
    fixture.group();
    fixture.submit(2);
    let error = soon(&fixture.failure);
    assert!(error.to_string().contains("has not been committed"), "{error}");
    assert_eq!(fixture.committer.submit(3, put(3, 1), Timestamp(3)), Err(Refused::Closed));
    let Fixture { committer, verdict, committed, .. } = fixture;
    committer.stop();
    // It ends after all, and nobody is told.
    verdict.send(Verdict::Sync).expect("the store listens");
    assert!(committed.recv().is_err());
}

#[test]
fn a_callback_that_panics_is_a_failure() {
    let (failed, failure) = channel();
    let storage: Arc<dyn Storage> = Arc::new(MemoryStorage::new(PARTITIONS, StoreId(1)));
    let committer = Committer::start(
        storage,
        Arc::default(),
        Box::new(|_: Vec<(u64, Applied)>| panic!("the node is gone")),
        Box::new(move |error| failed.send(error.to_string()).expect("the test listens")),
    )
    .expect("there are threads");
    committer.submit(1, put(1, 1), Timestamp(1)).expect("there is room");
    assert!(soon(&failure).contains("the node is gone"));
    assert_eq!(committer.submit(2, put(2, 1), Timestamp(1)), Err(Refused::Closed));
}

#[test]
fn the_clock_goes_with_the_group() {
    let fixture = fixture();
    fixture.submit(30);
    fixture.committer.submit(2, put(2, 1), Timestamp(20)).expect("there is room");
    fixture.say(Verdict::Sync);
    fixture.say(Verdict::Sync);
    let Fixture { committer, storage, .. } = fixture;
    committer.stop();
    storage.memory.crash(0);
    assert_eq!(storage.recovered().clock, Timestamp(30), "the highest of all");
}

#[test]
fn reads_are_answered_in_order_until_one_fails() {
    let fixture = fixture();
    fixture.submit(1);
    fixture.say(Verdict::Sync);
    fixture.tickets();
    let (answered, answers) = channel();
    let (failed, failure) = channel();
    let storage = Arc::clone(&fixture.storage) as Arc<dyn Storage>;
    let readers = Readers::start(
        storage,
        PARTITIONS,
        Arc::clone(&fixture.counters),
        Box::new(move |batch: Vec<(u64, ReadAnswer)>| {
            batch.into_iter().for_each(|one| answered.send(one).expect("heard"))
        }),
        Box::new(move |error| failed.send(error).expect("the test listens")),
    )
    .expect("there is a thread");
    let key = |name: &str| Key::new(NamespaceId::DEFAULT, name.to_owned()).expect("a valid key");
    let range = ScanRange {
        partition: Partition(0),
        namespace: NamespaceId::DEFAULT,
        from: PARTITIONS.first_token(Partition(0)),
        limit: 9,
    };
    let dots = |numbers: &[u64]| numbers.iter().map(|number| dot(*number)).collect::<VersionVector>();
    let value = |name: &str, after: &[u64]| ReadOrder::Value { key: key(name), after: dots(after) };
    let orders = [
        value("key1", &[]),
        value("none", &[1]),
        value("key1", &[1, 2]),
        ReadOrder::Scan(range),
        ReadOrder::Statistics,
        ReadOrder::Coverage { since: CommitNumber(0) },
        ReadOrder::Coverage { since: CommitNumber(1) },
        ReadOrder::Pull { partition: Partition(0), wanted: dots(&[1, 2]) },
        ReadOrder::History { key: key("key1") },
    ];
    let count = orders.len();
    for (ticket, order) in orders.into_iter().enumerate() {
        readers.submit(ticket as u64, order).expect("there is room");
    }
    let received: Vec<_> = answers.iter().take(count).enumerate().collect();
    assert!(received.iter().all(|(index, (ticket, _))| *index as u64 == *ticket), "in order");
    let received: Vec<_> = received.into_iter().map(|(_, (_, answer))| answer).collect();
    let Mutation::Record { record, .. } = put(1, 10) else { unreachable!("it is a record") };
    let held = |what: Option<Record>| Held { what, durable: true };
    assert_eq!(received[0], ReadAnswer::Value { record: held(Some(record.clone())), behind: false });
    assert_eq!(received[1], ReadAnswer::Value { record: held(None), behind: false });
    assert_eq!(received[2], ReadAnswer::Value { record: held(Some(record.clone())), behind: true });
    assert!(matches!(&received[3], ReadAnswer::Scan(result) if result.entries.len() == 1));
    let statistics = StoreStatistics { live_keys: 1, disk_bytes: 14, log_length: 1, discarded: 0 };
    assert_eq!(received[4], ReadAnswer::Statistics(statistics));
    let coverage = Coverage { partition: Partition(0), vector: dots(&[1]), horizon: Timestamp(0) };
    assert_eq!(received[5], ReadAnswer::Coverage { commit: CommitNumber(1), changed: vec![coverage] });
    assert_eq!(received[6], ReadAnswer::Coverage { commit: CommitNumber(1), changed: Vec::new() });
    assert!(matches!(&received[7], ReadAnswer::Pull(pulled) if pulled.items.len() == 1 && pulled.lost.is_empty()));
    assert!(matches!(&received[8], ReadAnswer::History(history) if history.digest == Some(record.digest())));
    assert_eq!(fixture.counters.snapshot().reads, count as u64);

    let head = ReadOrder::Head { key: key("key1"), after: VersionVector::empty() };
    readers.submit(99, head).expect("there is room");
    soon(&failure);
    assert_eq!(readers.submit(100, ReadOrder::Statistics), Err(Refused::Closed));
    readers.stop();
    assert_eq!(answers.iter().count(), 0);
    fixture.committer.stop();
}

#[test]
fn a_full_queue_of_reads_refuses_and_stopping_answers_what_waits() {
    let (begun_sender, begun) = channel();
    let (go, gate) = channel();
    let (answered, answers) = channel();
    let storage: Arc<dyn Storage> = Arc::new(MemoryStorage::new(PARTITIONS, StoreId(1)));
    let mut first = true;
    let readers = Readers::start(
        storage,
        PARTITIONS,
        Arc::default(),
        Box::new(move |batch: Vec<(usize, ReadAnswer)>| {
            if std::mem::take(&mut first) {
                begun_sender.send(()).expect("the test listens");
                gate.recv().expect("the test speaks");
            }
            batch.into_iter().for_each(|(ticket, _)| answered.send(ticket).expect("the test listens"));
        }),
        Box::new(|error| panic!("{error}")),
    )
    .expect("there is a thread");
    readers.submit(0, ReadOrder::Statistics).expect("there is room");
    soon(&begun);
    let mut taken = 1;
    while readers.submit(taken, ReadOrder::Statistics).is_ok() {
        taken += 1;
    }
    assert_eq!(taken, limits::READ_QUEUE + 1, "what was answered does not count");
    assert_eq!(readers.submit(0, ReadOrder::Statistics), Err(Refused::Full));
    go.send(()).expect("the reader lives");
    readers.stop();
    assert_eq!(answers.iter().collect::<Vec<_>>(), (0..taken).collect::<Vec<_>>());
}
