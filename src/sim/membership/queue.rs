//! Events in the order of their time.
//!
//! Invariant: two events of one moment happen in the order in which they were scheduled,
//! so that a run depends on its seed alone.
//!
//! The heap moves 16 bytes an event; what the events say lies still beside it.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::types::Moment;

/// Bits of a key that say where the event lies.
const SLOT_BITS: u32 = 24;

/// The events to come.
pub(super) struct Queue<E> {
    /// The time; then the number of the event, and its slot.
    heap: BinaryHeap<Reverse<(u64, u64)>>,
    slots: Vec<Option<E>>,
    free: Vec<u32>,
    scheduled: u64,
}

impl<E> Queue<E> {
    pub(super) fn new() -> Queue<E> {
        Queue { heap: BinaryHeap::new(), slots: Vec::new(), free: Vec::new(), scheduled: 0 }
    }

    /// # Panics
    /// If sixteen million events are waiting.
    pub(super) fn push(&mut self, at: Moment, event: E) {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            u32::try_from(self.slots.len() - 1).expect("far fewer events wait")
        });
        assert!(slot < 1 << SLOT_BITS, "too many events wait");
        self.slots[slot as usize] = Some(event);
        self.heap.push(Reverse((at.0, self.scheduled << SLOT_BITS | u64::from(slot))));
        self.scheduled += 1;
    }

    /// The next event, if it is due by then.
    pub(super) fn pop(&mut self, until: Moment) -> Option<(Moment, E)> {
        let Reverse((at, key)) = *self.heap.peek()?;
        if at > until.0 {
            return None;
        }
        self.heap.pop();
        let slot = key & ((1 << SLOT_BITS) - 1);
        let event = self.slots[slot as usize].take().expect("a key in the heap has its event");
        self.free.push(slot as u32);
        Some((Moment(at), event))
    }

    /// How many there have been, or will be.
    pub(super) fn scheduled(&self) -> u64 {
        self.scheduled
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_in_the_order_of_time_and_then_of_scheduling() {
        let mut queue = Queue::new();
        for (at, event) in [(5, 'c'), (1, 'a'), (5, 'd'), (2, 'b')] {
            queue.push(Moment(at), event);
        }
        assert_eq!(queue.pop(Moment(0)), None);
        let come: String = std::iter::from_fn(|| queue.pop(Moment(4))).map(|(_, event)| event).collect();
        assert_eq!(come, "ab");
        queue.push(Moment(5), 'e');
        let come: String = std::iter::from_fn(|| queue.pop(Moment(9))).map(|(_, event)| event).collect();
        assert_eq!(come, "cde");
        assert_eq!(queue.scheduled(), 5);
    }
}
