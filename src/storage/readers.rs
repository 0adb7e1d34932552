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
use crate::types::{Content, Key, PartitionCount, ScanRange, ScanResult, Summary, Version, limits};

use super::{Counters, OnFailure, Refused, Storage, StorageError};

/// What is read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ReadOrder {
    /// A version with its value.
    Value(Key),
    /// A version without its value.
    Head(Key),
    /// Keys.
    Scan(ScanRange),
    /// What the store knows of itself.
    Statistics,
}

/// What was found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ReadAnswer {
    /// To [`ReadOrder::Value`].
    Value(Option<Version>),
    /// To [`ReadOrder::Head`].
    Head(Option<Summary>),
    /// To [`ReadOrder::Scan`].
    Scan(ScanResult),
    /// To [`ReadOrder::Statistics`].
    Statistics(StoreStatistics),
}

/// What a store knows of itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StoreStatistics {
    /// About how many live keys it holds.
    pub live_keys: u64,
    /// How many bytes it takes on disk.
    pub disk_bytes: u64,
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
    Ok(match order {
        ReadOrder::Value(key) => ReadAnswer::Value(storage.read(partitions.partition_of(key.token()), &key)?),
        ReadOrder::Head(key) => ReadAnswer::Head(storage.head(partitions.partition_of(key.token()), &key)?),
        ReadOrder::Scan(range) => ReadAnswer::Scan(storage.scan(range)?),
        ReadOrder::Statistics => {
            ReadAnswer::Statistics(StoreStatistics { live_keys: storage.live_keys(), disk_bytes: storage.disk_bytes() })
        }
    })
}

/// About how many bytes an answer holds.
fn weight(answer: &ReadAnswer) -> usize {
    match answer {
        ReadAnswer::Value(Some(Version { content: Content::Value(value), .. })) => value.len(),
        ReadAnswer::Scan(result) => result.entries.iter().map(|entry| entry.key.len() + 64).sum(),
        _ => 0,
    }
}
