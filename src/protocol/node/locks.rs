//! One write at a time for a key with siblings.
//!
//! Invariant: a lock is held by a request, or by its order to the store; whoever waits for
//! it is under way. A request that ends lets go of what it holds, but an order to the store
//! keeps the lock until it is answered.

use std::collections::{BTreeMap, VecDeque};

use crate::protocol::io::Action;
use crate::types::{Key, Now, SeededBug};

use super::Node;

#[derive(Debug, PartialEq, Eq)]
enum Holder {
    Request(u64),
    Store,
}

/// The locks of one node.
#[derive(Debug, Default)]
pub(super) struct Locks {
    held: BTreeMap<Key, (Holder, VecDeque<u64>)>,
    /// Which lock a request holds or waits for.
    of: BTreeMap<u64, Key>,
    /// Whose turn has come by the end of another request.
    granted: Vec<u64>,
}

impl Locks {
    /// Takes a lock, or waits for it; whether it was taken.
    pub(super) fn lock(&mut self, key: Key, number: u64) -> bool {
        self.of.insert(number, key.clone());
        match self.held.get_mut(&key) {
            Some(_) if SeededBug::SiblingsNotSerialised.is_planted() => true,
            Some((_, waiting)) => {
                waiting.push_back(number);
                false
            }
            None => {
                self.held.insert(key, (Holder::Request(number), VecDeque::new()));
                true
            }
        }
    }

    /// The store has it now.
    pub(super) fn handed_on(&mut self, key: &Key, number: u64) {
        if let Some((holder, _)) = self.held.get_mut(key) {
            let by_holder = *holder == Holder::Request(number) || SeededBug::SiblingsNotSerialised.is_planted();
            debug_assert!(by_holder, "only its holder hands a lock on");
            *holder = Holder::Store;
        }
    }

    /// The store has answered; whose turn it is now.
    fn free(&mut self, key: &Key) -> Option<u64> {
        let (holder, waiting) = self.held.get_mut(key)?;
        match waiting.pop_front() {
            Some(next) => {
                *holder = Holder::Request(next);
                Some(next)
            }
            None => {
                self.held.remove(key);
                None
            }
        }
    }

    /// A request is over.
    pub(super) fn over(&mut self, number: u64) {
        let Some(key) = self.of.remove(&number) else { return };
        self.granted.retain(|granted| *granted != number);
        let Some((holder, waiting)) = self.held.get_mut(&key) else { return };
        waiting.retain(|waiting| *waiting != number);
        if *holder == Holder::Request(number) {
            let next = self.free(&key);
            self.granted.extend(next);
        }
    }

    /// # Panics
    /// If a lock is held by nobody who is under way.
    pub(super) fn check(&self, under_way: impl Fn(u64) -> bool) {
        for (holder, waiting) in self.held.values() {
            assert!(waiting.iter().all(|number| under_way(*number)), "one waits for a lock that has ended");
            if let Holder::Request(number) = holder {
                assert!(under_way(*number), "a lock is held by a request that has ended");
            }
        }
        assert!(self.granted.is_empty(), "somebody was not told that it is their turn");
    }
}

impl Node {
    /// The store has answered an order that held a lock.
    pub(super) fn unlock(&mut self, now: Now, key: &Key, actions: &mut Vec<Action>) {
        if let Some(next) = self.locks.free(key) {
            self.step(now, next, actions, |coordination, context| coordination.granted(context));
        }
    }

    /// Tells those whose turn has come because a request has ended.
    pub(super) fn tell_granted(&mut self, now: Now, actions: &mut Vec<Action>) {
        while let Some(number) = self.locks.granted.pop() {
            self.step(now, number, actions, |coordination, context| coordination.granted(context));
        }
    }
}

#[cfg(test)]
#[path = "locks_tests.rs"]
mod tests;
