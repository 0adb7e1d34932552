//! What waits to be written to one peer.
//!
//! Problem: a write costs far more than a frame (26 µs of CPU for one frame at a time,
//! 1.4 µs at 64; EVIDENCE, QUIC), so frames are laid end to end as they come and leave
//! in one write. Invariants: at most [`limits::PEER_QUEUE_FRAMES`] frames and
//! [`limits::PEER_QUEUE_BYTES`] bytes wait or are being written; a writer is woken once
//! for any number of frames; frames that were queued for one connection and not written
//! go over to the connection that renews it, and vanish with a connection that is lost.

use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::{BufMut, Bytes, BytesMut};
use tokio::sync::Notify;

use crate::transport::SendError;
use crate::types::limits;

/// Frames from this length on are passed on as they are; copying shorter ones is cheaper.
const COPY_BELOW_BYTES: usize = 16 * 1024;
/// Short frames are laid end to end in pieces of this size.
const PIECE_BYTES: usize = 32 * 1024;
/// What a frame counts on top of its content.
const PREFIX_BYTES: usize = 4;

pub(super) struct Outbox {
    queue: Mutex<Queue>,
    ready: Notify,
}

#[derive(Default)]
struct Queue {
    /// The connection whose writer may take from here; none if there is no connection.
    owner: Option<u64>,
    /// What is complete, in order; the tail comes after it.
    pieces: Vec<Bytes>,
    tail: BytesMut,
    waiting: Amount,
    being_written: Amount,
    /// The writer has seen an empty queue and sleeps until it is woken.
    asleep: bool,
    /// Nothing more comes: the writer takes its leave once the queue is empty.
    closing: bool,
}

/// Frames and bytes.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(super) struct Amount {
    pub(super) frames: usize,
    pub(super) bytes: usize,
}

/// What the writer of a connection is to do.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Take {
    /// Write the pieces, then ask again.
    Write(Amount),
    /// Sleep until woken.
    Wait,
    /// End the stream: what waits is for another connection, or lost.
    Finish,
    /// Take leave, then end the stream: nothing more will come on this or another one.
    Leave,
}

impl Outbox {
    pub(super) fn new() -> Outbox {
        Outbox { queue: Mutex::default(), ready: Notify::new() }
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        // Nothing panics between the changes that belong together.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues a frame.
    pub(super) fn push(&self, frame: Bytes) -> Result<(), SendError> {
        let mut queue = self.lock();
        if queue.owner.is_none() || queue.closing {
            return Err(SendError::NotConnected);
        }
        let frames = queue.waiting.frames + queue.being_written.frames + 1;
        let bytes = queue.waiting.bytes + queue.being_written.bytes + PREFIX_BYTES + frame.len();
        if frames > limits::PEER_QUEUE_FRAMES || bytes > limits::PEER_QUEUE_BYTES {
            return Err(SendError::QueueFull);
        }
        queue.waiting.frames += 1;
        queue.waiting.bytes += PREFIX_BYTES + frame.len();
        queue.append(frame);
        if std::mem::take(&mut queue.asleep) {
            drop(queue);
            self.ready.notify_one();
        }
        Ok(())
    }

    /// Moves everything that waits into `pieces` for the writer of this connection.
    pub(super) fn take(&self, connection: u64, pieces: &mut Vec<Bytes>) -> Take {
        let mut queue = self.lock();
        queue.being_written = Amount::default();
        if queue.owner != Some(connection) {
            return Take::Finish;
        }
        if queue.waiting.frames == 0 {
            if queue.closing {
                return Take::Leave;
            }
            queue.asleep = true;
            return Take::Wait;
        }
        queue.seal();
        pieces.clear();
        std::mem::swap(&mut queue.pieces, pieces);
        queue.being_written = std::mem::take(&mut queue.waiting);
        Take::Write(queue.being_written)
    }

    /// Until there may be something to do.
    pub(super) async fn ready(&self) {
        self.ready.notified().await;
    }

    /// Hands the queue to this connection. The writer of the former one ends its stream
    /// after what it is writing.
    pub(super) fn assign(&self, connection: u64) {
        let mut queue = self.lock();
        queue.owner = Some(connection);
        queue.closing = false;
        self.wake(queue);
    }

    /// Forgets what waits: the connection is lost. Sends are refused from here on.
    pub(super) fn clear(&self) {
        let mut queue = self.lock();
        *queue = Queue::default();
        self.wake(queue);
    }

    /// Lets what waits be written, then ends the stream. Sends are refused from here on
    /// until there is another connection.
    pub(super) fn close(&self) {
        let mut queue = self.lock();
        queue.closing = true;
        self.wake(queue);
    }

    /// Nothing waits or is being written.
    pub(super) fn is_empty(&self) -> bool {
        let queue = self.lock();
        queue.waiting.frames == 0 && queue.being_written.frames == 0
    }

    fn wake(&self, mut queue: MutexGuard<'_, Queue>) {
        queue.asleep = false;
        drop(queue);
        self.ready.notify_one();
    }
}

impl Queue {
    fn append(&mut self, frame: Bytes) {
        let length = u32::try_from(frame.len()).expect("frames are shorter than 4 GiB");
        let copied = if frame.len() < COPY_BELOW_BYTES { frame.len() } else { 0 };
        if self.tail.capacity() - self.tail.len() < PREFIX_BYTES + copied {
            self.seal();
            self.tail = BytesMut::with_capacity(PIECE_BYTES);
        }
        self.tail.put_u32_le(length);
        if copied == frame.len() {
            self.tail.put_slice(&frame);
        } else {
            self.seal();
            self.pieces.push(frame);
        }
    }

    fn seal(&mut self) {
        if !self.tail.is_empty() {
            let piece = self.tail.split().freeze();
            self.pieces.push(piece);
        }
    }
}

#[cfg(test)]
#[path = "outbox_tests.rs"]
mod tests;
