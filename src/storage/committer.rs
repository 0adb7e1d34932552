//! Group commit: one thread that applies what has arrived, syncs once and acknowledges all.
//!
//! Problem: a sync costs a hundred times what applying a mutation does, so mutations
//! must share one, without waiting for a timer.
//! Invariant: a mutation is told as committed only after a sync that began after it was
//! applied; and once the store has failed, none is, ever again.
//! While one group syncs, the next gathers: the slower the disk, the larger the groups.
//! Left out: a retry. What was applied before a failed sync is in doubt, and a second
//! sync that succeeds proves nothing (the kernel has dropped the pages by then).

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::ambient;
use crate::types::{Applied, Mutation, Timestamp, limits};

use super::{Counters, Storage, StorageError};

/// Is told what is durable, a group at a time, on the committer's thread. While it runs
/// nothing is committed, so it should only hand over.
pub type OnCommitted<T> = Box<dyn FnMut(Vec<(T, Applied)>) + Send>;

/// Is told, once, why nothing more will be committed or read.
pub type OnFailure = Box<dyn FnOnce(StorageError) + Send>;

/// How often the committer is looked after, and how often in a row it may be found in
/// the same group before that counts as a failure. sled waits for ever if one of its own
/// threads has died, and a disk may never answer. Counted in looks, because a process
/// that was stopped for an hour has not been trying for an hour.
const LOOK_EVERY: Duration = Duration::from_secs(1);
const LOOKS_BEFORE_STALLED: u32 = 60;

/// A group costs the same however many are in it, so under load the next one is given
/// this long to gather (PostgreSQL's `commit_delay`); a sync takes several times as long.
const GATHER: Duration = Duration::from_micros(500);
/// What the group before must have had in it for that (PostgreSQL's `commit_siblings`):
/// a lone writer never waits.
const GATHER_SIBLINGS: usize = 4;

/// A mutation was not taken: it was not applied and never will be.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Refused {
    /// As much waits as may wait.
    #[error("the queue is full")]
    Full,
    /// The store has failed or is being closed.
    #[error("the store is closed")]
    Closed,
}

/// The only way to write to a store. `T` is the caller's name for a mutation.
#[derive(Debug)]
pub struct Committer<T> {
    shared: Arc<Shared<T>>,
    threads: Vec<JoinHandle<()>>,
}

struct Shared<T> {
    queue: Mutex<Queue<T>>,
    /// For the committer: something has come, or the end has.
    arrived: Condvar,
    /// For those who wait for the end, and for the look-out.
    ended: Condvar,
    counters: Arc<Counters>,
    on_failure: Mutex<Option<OnFailure>>,
    failed: AtomicBool,
    /// Odd while a group is being committed.
    progress: AtomicU64,
}

impl<T> std::fmt::Debug for Shared<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("failed", &self.failed).field("progress", &self.progress).finish_non_exhaustive()
    }
}

struct Queue<T> {
    waiting: Batch<T>,
    clock: Timestamp,
    /// What waits and what is being committed, together.
    count: usize,
    bytes: usize,
    sleeping: bool,
    closed: bool,
    ended: bool,
}

/// Mutations beside their names, so that a group can be handed on as it lies.
struct Batch<T> {
    tickets: Vec<T>,
    mutations: Vec<Mutation>,
}

impl<T> Default for Batch<T> {
    fn default() -> Batch<T> {
        Batch { tickets: Vec::new(), mutations: Vec::new() }
    }
}

impl<T: Send + 'static> Committer<T> {
    /// Starts the thread `committer`, and one that looks after it.
    ///
    /// # Errors
    /// [`StorageError::Engine`] if there is no thread to be had.
    pub fn start(
        storage: Arc<dyn Storage>,
        counters: Arc<Counters>,
        on_committed: OnCommitted<T>,
        on_failure: OnFailure,
    ) -> Result<Committer<T>, StorageError> {
        Committer::start_looked_after(storage, counters, on_committed, on_failure, LOOK_EVERY)
    }

    fn start_looked_after(
        storage: Arc<dyn Storage>,
        counters: Arc<Counters>,
        on_committed: OnCommitted<T>,
        on_failure: OnFailure,
        look_every: Duration,
    ) -> Result<Committer<T>, StorageError> {
        let shared = Arc::new(Shared {
            queue: Mutex::new(Queue {
                waiting: Batch::default(),
                clock: Timestamp::default(),
                count: 0,
                bytes: 0,
                sleeping: false,
                closed: false,
                ended: false,
            }),
            arrived: Condvar::new(),
            ended: Condvar::new(),
            counters,
            on_failure: Mutex::new(Some(on_failure)),
            failed: AtomicBool::new(false),
            progress: AtomicU64::new(0),
        });
        let mut committer = Committer { shared: Arc::clone(&shared), threads: Vec::with_capacity(2) };
        let running = Arc::clone(&shared);
        let run = move || running.run(storage.as_ref(), on_committed);
        committer.threads.push(spawn("committer", run)?);
        committer.threads.push(spawn("commit-watch", move || shared.look_out(look_every))?);
        Ok(committer)
    }

    /// Hands a mutation over; `clock` is the highest timestamp that this node has given
    /// or seen. Mutations are applied in the order of these calls.
    ///
    /// # Errors
    /// [`Refused`]: it was not applied and never will be.
    pub fn submit(&self, ticket: T, mutation: Mutation, clock: Timestamp) -> Result<(), Refused> {
        let weight = mutation.weight();
        let mut queue = self.shared.lock();
        let refused = if queue.closed {
            Some(Refused::Closed)
        } else if queue.count >= limits::COMMIT_QUEUE_MUTATIONS || queue.bytes + weight > limits::COMMIT_QUEUE_BYTES {
            Some(Refused::Full)
        } else {
            None
        };
        if let Some(refused) = refused {
            drop(queue);
            self.shared.counters.commit_refused();
            return Err(refused);
        }
        queue.waiting.tickets.push(ticket);
        queue.waiting.mutations.push(mutation);
        queue.clock = queue.clock.max(clock);
        queue.count += 1;
        queue.bytes += weight;
        self.shared.counters.commit_queue(queue.count);
        let wake = std::mem::take(&mut queue.sleeping);
        drop(queue);
        if wake {
            self.shared.arrived.notify_one();
        }
        Ok(())
    }

    /// Takes nothing more, commits what waits, and returns when that is durable and told
    /// (or when the store has failed).
    pub fn stop(mut self) {
        self.close();
    }
}

impl<T> Committer<T> {
    fn close(&mut self) {
        let threads = std::mem::take(&mut self.threads);
        let mut queue = self.shared.lock();
        queue.closed = true;
        self.shared.arrived.notify_one();
        if threads.iter().any(|thread| thread.thread().id() == thread::current().id()) {
            // Dropped from one of its own callbacks: it cannot wait for itself.
            return;
        }
        while !queue.ended && !self.shared.failed.load(Ordering::Acquire) {
            queue = self.shared.ended.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
        let ended = queue.ended;
        drop(queue);
        // One that hangs in the store is left behind.
        for thread in threads.into_iter().filter(|_| ended) {
            thread.join().expect("both threads turn panics into failures");
        }
    }
}

impl<T> Drop for Committer<T> {
    fn drop(&mut self) {
        if !self.threads.is_empty() {
            self.close();
        }
    }
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, StorageError> {
    let spawned = thread::Builder::new().name(name.to_owned()).spawn(run);
    spawned.map_err(|error| StorageError::Engine(format!("no thread {name}: {error}")))
}

impl<T> Shared<T> {
    fn lock(&self) -> MutexGuard<'_, Queue<T>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self, storage: &dyn Storage, mut on_committed: OnCommitted<T>) {
        let committed = catch_unwind(AssertUnwindSafe(|| self.commit_until_closed(storage, &mut on_committed)));
        if let Err(error) = committed.unwrap_or_else(|panic| Err(StorageError::panicked(panic.as_ref()))) {
            self.fail(error);
        }
        let mut queue = self.lock();
        queue.closed = true;
        queue.ended = true;
        drop(queue);
        self.ended.notify_all();
    }

    fn commit_until_closed(
        &self,
        storage: &dyn Storage,
        on_committed: &mut OnCommitted<T>,
    ) -> Result<(), StorageError> {
        let mut batch = Batch::default();
        let mut group_before = 0;
        while let Some(clock) = self.take(&mut batch, group_before) {
            group_before = batch.mutations.len();
            let mut mutations = batch.mutations.as_slice();
            let mut tickets = batch.tickets.drain(..);
            while !mutations.is_empty() {
                let (group, rest) = mutations.split_at(group_length(mutations));
                mutations = rest;
                self.progress.fetch_add(1, Ordering::Relaxed);
                let applied = self.commit(storage, group, clock)?;
                self.progress.fetch_add(1, Ordering::Relaxed);
                if self.failed.load(Ordering::Acquire) {
                    return Ok(());
                }
                // In this order, because `zip` asks its first side for one more than there is.
                let told = applied.into_iter().zip(tickets.by_ref());
                on_committed(told.map(|(applied, ticket)| (ticket, applied)).collect());
            }
            drop(tickets);
            batch.mutations.clear();
        }
        Ok(())
    }

    /// Waits for mutations and takes all; none once there are none and no more will come.
    fn take(&self, batch: &mut Batch<T>, group_before: usize) -> Option<Timestamp> {
        let mut queue = self.lock();
        let gathers = group_before >= GATHER_SIBLINGS && queue.waiting.mutations.len() < group_before;
        if gathers && !queue.closed {
            drop(queue);
            thread::sleep(GATHER);
            queue = self.lock();
        }
        loop {
            if self.failed.load(Ordering::Acquire) {
                return None;
            }
            if !queue.waiting.mutations.is_empty() {
                std::mem::swap(&mut queue.waiting, batch);
                return Some(queue.clock);
            }
            if queue.closed {
                return None;
            }
            queue.sleeping = true;
            queue = self.arrived.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn commit(
        &self,
        storage: &dyn Storage,
        group: &[Mutation],
        clock: Timestamp,
    ) -> Result<Vec<Applied>, StorageError> {
        let begun = ambient::moment();
        let applied = storage.apply(group, clock)?;
        assert_eq!(applied.len(), group.len(), "a store answers for every mutation");
        let between = ambient::moment();
        storage.sync()?;
        let ended = ambient::moment();
        let bytes = group.iter().map(Mutation::weight).sum();
        self.counters.group(group.len(), bytes, between.since(begun), ended.since(between));
        let mut queue = self.lock();
        queue.count -= group.len();
        queue.bytes -= bytes;
        self.counters.commit_queue(queue.count);
        Ok(applied)
    }

    /// From here on nothing is taken and nothing told.
    fn fail(&self, error: StorageError) {
        let mut queue = self.lock();
        queue.closed = true;
        self.failed.store(true, Ordering::Release);
        drop(queue);
        self.ended.notify_all();
        let on_failure = self.on_failure.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(on_failure) = on_failure {
            on_failure(error);
        }
    }

    /// Watches over the committer until it ends.
    fn look_out(&self, look_every: Duration) {
        let mut seen = 0;
        let mut looks = 0;
        let mut queue = self.lock();
        while !queue.ended {
            (queue, _) = self.ended.wait_timeout(queue, look_every).unwrap_or_else(PoisonError::into_inner);
            let progress = self.progress.load(Ordering::Relaxed);
            looks = if progress % 2 == 1 && progress == seen { looks + 1 } else { 0 };
            seen = progress;
            if looks >= LOOKS_BEFORE_STALLED {
                drop(queue);
                let time = look_every * LOOKS_BEFORE_STALLED;
                self.fail(StorageError::Engine(format!("a group has not been committed for {time:?}")));
                return;
            }
        }
    }
}

/// How many of these mutations make a group.
fn group_length(mutations: &[Mutation]) -> usize {
    let (mut bytes, mut log_bytes) = (0, 0);
    let fits = |mutation: &&Mutation| {
        let open = bytes <= limits::COMMIT_GROUP_BYTES && log_bytes <= limits::COMMIT_GROUP_LOG_BYTES;
        bytes += mutation.weight();
        log_bytes += mutation.log_bytes();
        open
    };
    mutations.iter().take(limits::COMMIT_GROUP_MUTATIONS).take_while(fits).count()
}

#[cfg(test)]
#[path = "committer_tests.rs"]
mod tests;
