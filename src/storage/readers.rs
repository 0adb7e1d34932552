//! Reads beside the node's event loop: one thread, a bounded queue, answers in batches.
//!
//! Problem: a read may wait for the disk, and the event loop must not.
//! Invariant: every read that was taken is answered once, in the order in which they
//! were taken, unless the store fails; then none is answered any more.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use crate::ambient;
use crate::types::{
    CommitNumber, Coverage, Digest, Key, LocalHistory, Partition, PartitionCount, Pulled, PulledItem, Record,
    ScanRange, ScanResult, VersionVector, limits,
};

use super::{Counters, Held, OnFailure, Refused, Storage, StorageError};

/// What is read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ReadOrder {
    /// A record with its values.
    Value {
        /// Which key.
        key: Key,
        /// What the reader has seen of the partition, and must not be shown less than.
        after: VersionVector,
    },
    /// A record without its values.
    Head {
        /// Which key.
        key: Key,
        /// As for [`ReadOrder::Value`].
        after: VersionVector,
    },
    /// Keys.
    Scan(ScanRange),
    /// What the store knows of itself.
    Statistics,
    /// What is durably covered.
    Coverage {
        /// Only partitions in which that has changed after this group.
        since: CommitNumber,
    },
    /// What these dots wrote.
    Pull {
        /// Where.
        partition: Partition,
        /// Which dots.
        wanted: VersionVector,
    },
    /// What is known of a key.
    History {
        /// Which key.
        key: Key,
    },
}

/// What was found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ReadAnswer {
    /// To [`ReadOrder::Value`].
    Value {
        /// What is held of the key.
        record: Held<Record>,
        /// Whether something is missing here of what the reader has seen before.
        behind: bool,
    },
    /// To [`ReadOrder::Head`].
    Head {
        /// What is held of the key.
        digest: Held<Digest>,
        /// As in [`ReadAnswer::Value`].
        behind: bool,
    },
    /// To [`ReadOrder::Scan`].
    Scan(ScanResult),
    /// To [`ReadOrder::Statistics`].
    Statistics(StoreStatistics),
    /// To [`ReadOrder::Coverage`].
    Coverage {
        /// The last group that is durable.
        commit: CommitNumber,
        /// The partitions in which something has changed.
        changed: Vec<Coverage>,
    },
    /// To [`ReadOrder::Pull`].
    Pull(Pulled),
    /// To [`ReadOrder::History`].
    History(LocalHistory),
}

/// What a store knows of itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StoreStatistics {
    /// About how many live keys it holds.
    pub live_keys: u64,
    /// How many bytes it takes on disk.
    pub disk_bytes: u64,
    /// How many mutations the log still has.
    pub log_length: u64,
    /// Versions that lost against a newer one without ever having been seen.
    pub discarded: u64,
}

/// Is told the answers, a batch at a time, on the reader's thread. While it runs nothing
/// is read, so one that blocks holds the reader back.
pub type OnAnswers<T> = Box<dyn FnMut(Vec<(T, ReadAnswer)>) + Send>;

/// A batch is handed over when it has this many answers, or that many bytes.
const BATCH_ANSWERS: usize = 128;
const BATCH_BYTES: usize = 1024 * 1024;

/// The way to read from a store. `T` is the caller's name for a read.
#[derive(Debug)]
pub struct Readers<T> {
    shared: Arc<Shared<T>>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared<T> {
    queue: Mutex<Queue<T>>,
    arrived: Condvar,
    counters: Arc<Counters>,
}

#[derive(Debug)]
struct Queue<T> {
    waiting: VecDeque<(T, ReadOrder)>,
    /// What waits and what is being read, together.
    count: usize,
    sleeping: bool,
    closed: bool,
}

impl<T: Send + 'static> Readers<T> {
    /// Starts the thread `reader`.
    ///
    /// # Errors
    /// [`StorageError::Engine`] if there is no thread to be had.
    pub fn start(
        storage: Arc<dyn Storage>,
        partitions: PartitionCount,
        counters: Arc<Counters>,
        mut on_answers: OnAnswers<T>,
        on_failure: OnFailure,
    ) -> Result<Readers<T>, StorageError> {
        let queue = Queue { waiting: VecDeque::new(), count: 0, sleeping: false, closed: false };
        let shared = Arc::new(Shared { queue: Mutex::new(queue), arrived: Condvar::new(), counters });
        let running = Arc::clone(&shared);
        let run = move || {
            let read = || running.read_until_closed(storage.as_ref(), partitions, &mut on_answers);
            let result = catch_unwind(AssertUnwindSafe(read));
            running.lock().closed = true;
            if let Err(error) = result.unwrap_or_else(|panic| Err(StorageError::panicked(panic.as_ref()))) {
                on_failure(error);
            }
        };
        let spawned = thread::Builder::new().name("reader".to_owned()).spawn(run);
        let thread = spawned.map_err(|error| StorageError::Engine(format!("no thread reader: {error}")))?;
        Ok(Readers { shared, thread: Some(thread) })
    }

    /// Hands a read over.
    ///
    /// # Errors
    /// [`Refused`]: it will not be answered.
    pub fn submit(&self, ticket: T, order: ReadOrder) -> Result<(), Refused> {
        let mut queue = self.shared.lock();
        if queue.closed || queue.count >= limits::READ_QUEUE {
            let refused = if queue.closed { Refused::Closed } else { Refused::Full };
            drop(queue);
            self.shared.counters.read_refused();
            return Err(refused);
        }
        queue.waiting.push_back((ticket, order));
        queue.count += 1;
        self.shared.counters.read_queue(queue.count);
        let wake = std::mem::take(&mut queue.sleeping);
        drop(queue);
        if wake {
            self.shared.arrived.notify_one();
        }
        Ok(())
    }

    /// Takes nothing more and returns when all that was taken is answered.
    pub fn stop(mut self) {
        self.close();
    }
}

impl<T> Readers<T> {
    fn close(&mut self) {
        self.shared.lock().closed = true;
        self.shared.arrived.notify_one();
        if let Some(thread) = self.thread.take()
            && thread.thread().id() != thread::current().id()
        {
            thread.join().expect("the reader turns panics into failures");
        }
    }
}

impl<T> Drop for Readers<T> {
    fn drop(&mut self) {
        self.close();
    }
}

impl<T> Shared<T> {
    fn lock(&self) -> MutexGuard<'_, Queue<T>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read_until_closed(
        &self,
        storage: &dyn Storage,
        partitions: PartitionCount,
        on_answers: &mut OnAnswers<T>,
    ) -> Result<(), StorageError> {
        let mut orders = VecDeque::new();
        while self.take(&mut orders) {
            while !orders.is_empty() {
                let begun = ambient::moment();
                let mut answers = Vec::with_capacity(orders.len().min(BATCH_ANSWERS));
                let mut bytes = 0;
                while answers.len() < BATCH_ANSWERS
                    && bytes < BATCH_BYTES
                    && let Some((ticket, order)) = orders.pop_front()
                {
                    let answer = answer(storage, partitions, order)?;
                    bytes += weight(&answer);
                    answers.push((ticket, answer));
                }
                self.counters.reads(answers.len(), ambient::moment().since(begun));
                let mut queue = self.lock();
                queue.count -= answers.len();
                self.counters.read_queue(queue.count);
                drop(queue);
                on_answers(answers);
            }
        }
        Ok(())
    }

    /// Waits for orders and takes all; false once there are none and no more will come.
    fn take(&self, orders: &mut VecDeque<(T, ReadOrder)>) -> bool {
        let mut queue = self.lock();
        loop {
            if !queue.waiting.is_empty() {
                std::mem::swap(&mut queue.waiting, orders);
                return true;
            }
            if queue.closed {
                return false;
            }
            queue.sleeping = true;
            queue = self.arrived.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

fn answer(storage: &dyn Storage, partitions: PartitionCount, order: ReadOrder) -> Result<ReadAnswer, StorageError> {
    let partition_of = |key: &Key| partitions.partition_of(key.token());
    // Asked before the read: what is covered by then, the read shows.
    let behind = |partition, after: &VersionVector| !after.is_empty() && !storage.covers(partition, after);
    Ok(match order {
        ReadOrder::Value { key, after } => {
            let partition = partition_of(&key);
            let behind = behind(partition, &after);
            ReadAnswer::Value { record: storage.read(partition, &key)?, behind }
        }
        ReadOrder::Head { key, after } => {
            let partition = partition_of(&key);
            let behind = behind(partition, &after);
            ReadAnswer::Head { digest: storage.head(partition, &key)?, behind }
        }
        ReadOrder::Scan(range) => ReadAnswer::Scan(storage.scan(range)?),
        ReadOrder::Statistics => ReadAnswer::Statistics(StoreStatistics {
            live_keys: storage.live_keys(),
            disk_bytes: storage.disk_bytes(),
            log_length: storage.log_length(),
            discarded: storage.discarded(),
        }),
        ReadOrder::Coverage { since } => {
            let (commit, changed) = storage.coverage(since);
            ReadAnswer::Coverage { commit, changed }
        }
        ReadOrder::Pull { partition, wanted } => ReadAnswer::Pull(storage.pull(partition, &wanted)?),
        ReadOrder::History { key } => ReadAnswer::History(storage.history(partition_of(&key), &key)?),
    })
}

/// About how many bytes an answer holds.
fn weight(answer: &ReadAnswer) -> usize {
    match answer {
        ReadAnswer::Value { record: Held { what: Some(record), .. }, .. } => record.value_bytes(),
        ReadAnswer::Scan(result) => result.entries.iter().map(|entry| entry.key.len() + 64).sum(),
        ReadAnswer::Coverage { changed, .. } => changed.iter().map(|coverage| 32 * coverage.vector.ranges()).sum(),
        ReadAnswer::Pull(pulled) => {
            let bytes = |item: &PulledItem| match item {
                PulledItem::Record { key, record, .. } => {
                    128 + key.bytes().len() + record.as_ref().map_or(0, Record::value_bytes)
                }
                PulledItem::Truncation { .. } => 128,
            };
            pulled.items.iter().map(bytes).sum()
        }
        _ => 0,
    }
}
