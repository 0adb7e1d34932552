//! What the store's threads leave for the event loop.
//!
//! It needs no bound of its own: every item answers an order that was admitted to a
//! bounded queue, and is taken out before more orders are given.

use std::sync::{Mutex, PoisonError};

use tokio::sync::Notify;

use crate::storage::StorageError;

/// A box that any thread may drop things into and one task empties.
#[derive(Debug)]
pub(super) struct Inbox<T> {
    items: Mutex<Vec<T>>,
    arrived: Notify,
}

impl<T> Inbox<T> {
    pub(super) fn new() -> Inbox<T> {
        Inbox { items: Mutex::new(Vec::new()), arrived: Notify::new() }
    }

    /// Leaves items; wakes the event loop if the box was empty.
    pub(super) fn put(&self, items: impl IntoIterator<Item = T>) {
        let mut held = self.items.lock().unwrap_or_else(PoisonError::into_inner);
        let was_empty = held.is_empty();
        held.extend(items);
        let wake = was_empty && !held.is_empty();
        drop(held);
        if wake {
            self.arrived.notify_one();
        }
    }

    /// Waits until there may be something.
    pub(super) async fn arrival(&self) {
        self.arrived.notified().await;
    }

    /// Takes all there is, leaving the emptied `out` for the next.
    pub(super) fn take(&self, out: &mut Vec<T>) {
        debug_assert!(out.is_empty(), "what was taken before was not dealt with");
        std::mem::swap(&mut *self.items.lock().unwrap_or_else(PoisonError::into_inner), out);
    }
}

/// What the store's threads say.
#[derive(Debug)]
pub(super) enum StoreEvent {
    Committed { ticket: crate::protocol::StorageTicket, applied: crate::types::Applied },
    Fetched { ticket: crate::protocol::StorageTicket, answer: crate::storage::ReadAnswer },
    Failed(StorageError),
}
