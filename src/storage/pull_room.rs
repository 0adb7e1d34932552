//! What the answer to one pull has room for.
//!
//! Problem: an answer that is longer than a frame is never sent, so whoever lacks what is
//! in it would ask for it for ever; and records differ by a factor of a million.
//! Invariant: an answer has one item at least if anything was found, and together its items
//! take no more than [`limits::PULL_BYTES`], unless there is only one. What is left out comes
//! with a later answer.

use crate::types::{Key, Record, limits};

/// A dot with its timestamp takes no more than this, and a range of counters no more either.
const DOT_BYTES: usize = 36;
/// What a version takes beside its value.
const VERSION_BYTES: usize = 64;
/// What an actor takes in what siblings know.
const ACTOR_BYTES: usize = 26;
/// What any item takes.
const ITEM_BYTES: usize = 64;
/// Room for dots beside a record that fills the answer alone.
const DOTS_OF_LARGE_BYTES: usize = 2 * 1024;

const _: () = {
    // The longest value, under the longest key, fits into a frame with what is said of it.
    let large = ITEM_BYTES + VERSION_BYTES + DOT_BYTES + DOTS_OF_LARGE_BYTES + 256;
    assert!(limits::MAX_VALUE_BYTES + limits::MAX_KEY_BYTES + large <= limits::MAX_FRAME_BYTES);
    // So do the dots of which nothing is known any more, beside a full answer.
    assert!(limits::PULL_BYTES + limits::PULL_DOTS * DOT_BYTES <= limits::MAX_FRAME_BYTES);
};

/// What is left of an answer's room.
#[derive(Debug)]
pub(super) struct PullRoom {
    taken: usize,
    limit: usize,
    /// Whether an item did not fit: then none is added any more.
    closed: bool,
}

impl PullRoom {
    /// Room for one answer.
    pub(super) fn new() -> PullRoom {
        PullRoom { taken: 0, limit: limits::PULL_BYTES, closed: false }
    }

    /// Whether further items are worth looking for.
    pub(super) fn is_closed(&self) -> bool {
        self.closed || self.taken >= self.limit
    }

    /// Whether a record fits with one of its dots; its room is taken then.
    pub(super) fn takes_record(&mut self, key: &Key, record: Option<&Record>) -> bool {
        let known = match record {
            Some(Record::Siblings(siblings)) => siblings.context().entries().count(),
            _ => 0,
        };
        let held = record.map_or(0, |record| record.value_bytes() + record.versions().len() * VERSION_BYTES);
        self.takes_item(DOT_BYTES + key.bytes().len() + held + known * ACTOR_BYTES)
    }

    /// Whether a truncation fits; its room is taken then.
    pub(super) fn takes_truncation(&mut self) -> bool {
        self.takes_item(DOT_BYTES)
    }

    fn takes_item(&mut self, bytes: usize) -> bool {
        let bytes = bytes + ITEM_BYTES;
        if self.taken == 0 {
            self.limit = self.limit.max(bytes + DOTS_OF_LARGE_BYTES);
        } else if self.is_closed() || self.taken + bytes > limits::PULL_BYTES {
            self.closed = true;
            return false;
        }
        self.taken += bytes;
        true
    }

    /// Whether one more dot of a record that was taken fits; its room is taken then.
    pub(super) fn takes_dot(&mut self) -> bool {
        let fits = self.taken + DOT_BYTES <= self.limit;
        if fits {
            self.taken += DOT_BYTES;
        }
        fits
    }

    /// Whether dots of which nothing is known any more fit too.
    pub(super) fn takes_lost(&self) -> bool {
        self.taken <= limits::PULL_BYTES
    }
}
