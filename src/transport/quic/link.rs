//! One connection at work: a task that writes, one that reads, one for datagrams.
//!
//! Invariants: frames are delivered in the order of the stream, in batches; the reader
//! waits for room among the events before it reads on, so that what a peer can make
//! this node hold is bounded by the flow-control window and one frame; a frame that is
//! too long ends the connection before anything is held for it.
//!
//! An empty frame is the transport's own: with it the acceptor asks the dialler for a
//! new connection, because the acceptor's certificate has changed; and as the last one of
//! a stream it is a leave: this end wants the connection to end, and it is not replaced.

use std::sync::Arc;

use bytes::Bytes;
use quinn::{Connection, ConnectionError, ReadError, RecvStream, SendStream, StoppedError, VarInt, WriteError};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::Shared;
use super::codes;
use super::handshake::Meeting;
use super::outbox::Take;
use super::slot::Slot;
use crate::transport::TransportEvent;
use crate::transport::counters::{Counters, InUse};
use crate::types::{Incarnation, Moment, limits};
use crate::wire::FrameReader;

/// Pieces of the stream taken up at once; each is a packet's content at most.
const CHUNKS: usize = 32;
/// A leave: an empty frame.
const LEAVE: [u8; 4] = 0u32.to_le_bytes();
/// Frames in one event, at most, so that an event of tiny frames stays small.
const EVENT_FRAMES: usize = 1_024;

pub(super) struct Link {
    pub(super) connection: Connection,
    pub(super) incarnation: Incarnation,
    pub(super) since: Moment,
    /// This end has dialled.
    pub(super) dialled: bool,
    /// The peer has ended its stream in good order.
    pub(super) ended: bool,
    reader: JoinHandle<ReadEnd>,
    writer: JoinHandle<Option<SendStream>>,
    datagrams: JoinHandle<()>,
    _in_use: InUse,
}

/// Why nothing more is read.
#[derive(Debug)]
pub(super) enum ReadEnd {
    /// The peer ended the stream in good order.
    Finished,
    /// It has also taken leave: there will be no other connection in the place of this one.
    Left,
    /// The connection is gone.
    Lost {
        /// Why.
        reason: String,
        /// The peer has closed it in good order.
        parted: bool,
    },
    /// The peer broke the protocol.
    Violation(VarInt, String),
    /// Nobody wants the events any more.
    NoReceiver,
}

/// How far both ends got in parting.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Parted {
    /// All that was sent has reached the peer, and all that the peer sent has been passed on.
    Whole,
    /// That, too; but the peer has not taken leave, so it renews what this end has left.
    Renewing,
    /// Something may have been lost.
    Broken,
}

impl ReadEnd {
    pub(super) fn lost(error: &ConnectionError) -> ReadEnd {
        ReadEnd::Lost { reason: error.to_string(), parted: codes::is_parting(error) }
    }
}

impl Link {
    pub(super) fn start(
        shared: &Arc<Shared>,
        slot: &Arc<Slot>,
        number: u64,
        now: Moment,
        dialled: bool,
        meeting: Meeting,
    ) -> Link {
        let Meeting { connection, send, receive, hello, .. } = meeting;
        let reader = tokio::spawn(read(shared.clone(), slot.clone(), receive, dialled));
        let writer = tokio::spawn(write(shared.clone(), slot.clone(), number, connection.clone(), send));
        let datagrams = tokio::spawn(read_datagrams(shared.clone(), slot.clone(), connection.clone()));
        let incarnation = hello.incarnation;
        let _in_use = shared.counters.in_use(!dialled);
        Link { connection, incarnation, since: now, dialled, ended: false, reader, writer, datagrams, _in_use }
    }

    /// Until the peer's stream ends. Not to be called again after that.
    pub(super) async fn read_end(&mut self) -> ReadEnd {
        match (&mut self.reader).await {
            Ok(end) => end,
            Err(error) => ReadEnd::Lost { reason: format!("the reader failed: {error}"), parted: false },
        }
    }

    /// After the outbox was told to close: until all that was sent has reached the peer and
    /// all that the peer sends has been passed on. `left` says that the latter is so already.
    pub(super) async fn part(&mut self, left: bool) -> Parted {
        let written = async {
            let Some(send) = (&mut self.writer).await.ok().flatten() else { return false };
            match send.stopped().await {
                Ok(stopped) => stopped.is_none(),
                // The peer closes in good order only once it has read everything.
                Err(StoppedError::ConnectionLost(error)) => codes::is_parting(&error),
                Err(StoppedError::ZeroRttRejected) => false,
            }
        };
        let read = async {
            match (left, &mut self.reader) {
                (true, _) => Parted::Whole,
                (false, reader) => match reader.await {
                    Ok(ReadEnd::Left) => Parted::Whole,
                    Ok(ReadEnd::Finished) => Parted::Renewing,
                    _ => Parted::Broken,
                },
            }
        };
        match tokio::join!(written, read) {
            (true, read) => read,
            (false, _) => Parted::Broken,
        }
    }

    /// Until the writer has ended the stream: after it was told to by way of the outbox.
    pub(super) async fn write_end(&mut self) -> Option<SendStream> {
        (&mut self.writer).await.ok().flatten()
    }

    /// Stops its tasks; none delivers anything after this.
    pub(super) async fn stop(mut self, code: VarInt, reason: &str) {
        self.connection.close(code, reason.as_bytes());
        self.datagrams.abort();
        let _ = (&mut self.datagrams).await;
        for handle in [self.reader.abort_handle(), self.writer.abort_handle()] {
            handle.abort();
        }
        if !self.reader.is_finished() {
            let _ = (&mut self.reader).await;
        }
        if !self.writer.is_finished() {
            let _ = (&mut self.writer).await;
        }
    }

    /// Gives the connection away without closing it; only its datagrams are no longer read.
    pub(super) fn retire(self) -> Connection {
        self.datagrams.abort();
        self.connection.clone()
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.reader.abort();
        self.writer.abort();
        self.datagrams.abort();
    }
}

async fn write(
    shared: Arc<Shared>,
    slot: Arc<Slot>,
    number: u64,
    connection: Connection,
    mut send: SendStream,
) -> Option<SendStream> {
    let mut pieces = Vec::new();
    loop {
        match slot.outbox.take(number, &mut pieces) {
            Take::Write(amount) => {
                match send.write_all_chunks(&mut pieces).await {
                    Ok(()) => {}
                    // The reader sees it too and says it.
                    Err(WriteError::ConnectionLost(_)) => return None,
                    Err(error) => {
                        Counters::add(&shared.counters.violations, 1);
                        connection.close(codes::BROKEN_STREAM, error.to_string().as_bytes());
                        return None;
                    }
                }
                Counters::add(&shared.counters.frames_sent, amount.frames as u64);
                Counters::add(&shared.counters.bytes_sent, amount.bytes as u64);
            }
            Take::Wait => slot.outbox.ready().await,
            Take::Finish => return send.finish().ok().map(|()| send),
            Take::Leave => {
                send.write_all(&LEAVE).await.ok()?;
                return send.finish().ok().map(|()| send);
            }
        }
    }
}

async fn read(shared: Arc<Shared>, slot: Arc<Slot>, mut receive: RecvStream, dialled: bool) -> ReadEnd {
    let mut chunks: [Bytes; CHUNKS] = std::array::from_fn(|_| Bytes::new());
    let mut reader = FrameReader::new(limits::MAX_FRAME_BYTES);
    let mut left = false;
    loop {
        let count = match receive.read_chunks(&mut chunks).await {
            Ok(Some(count)) => count,
            Ok(None) if reader.is_empty() && left => return ReadEnd::Left,
            Ok(None) if reader.is_empty() => return ReadEnd::Finished,
            Ok(None) => return ReadEnd::Violation(codes::BROKEN_STREAM, "the stream ended within a frame".into()),
            Err(ReadError::ConnectionLost(error)) => return ReadEnd::lost(&error),
            Err(error) => return ReadEnd::Violation(codes::BROKEN_STREAM, error.to_string()),
        };
        let mut bytes = 0;
        for chunk in &mut chunks[..count] {
            bytes += chunk.len() as u64;
            reader.feed(chunk);
            *chunk = Bytes::new();
        }
        Counters::add(&shared.counters.bytes_received, bytes);
        slot.note_traffic();
        loop {
            let Brought { frames, asked, error } = next_frames(&mut reader, &mut left);
            if asked && dialled {
                // If it was a leave, the end follows at once and nothing comes of this.
                slot.renew.notify_one();
            }
            let full = frames.len() >= EVENT_FRAMES;
            if !frames.is_empty() {
                Counters::add(&shared.counters.frames_received, frames.len() as u64);
                let event = TransportEvent::Frames { peer: slot.peer, frames };
                if shared.events.send(event).await.is_err() {
                    return ReadEnd::NoReceiver;
                }
            }
            match error {
                Some(error) => return ReadEnd::Violation(codes::FRAME_TOO_LONG, error),
                None if full => {}
                None => break,
            }
        }
    }
}

/// What a stream has brought.
#[derive(Default)]
struct Brought {
    frames: Vec<Bytes>,
    /// Frames of the transport's own were among it.
    asked: bool,
    /// What is wrong with the next frame.
    error: Option<String>,
}

/// What has arrived whole, up to the size of an event; `left` says whether the last frame
/// so far was the transport's own.
fn next_frames(reader: &mut FrameReader, left: &mut bool) -> Brought {
    let mut brought = Brought::default();
    while brought.frames.len() < EVENT_FRAMES {
        match reader.next_frame() {
            Ok(Some(frame)) => {
                *left = frame.is_empty();
                if *left {
                    brought.asked = true;
                } else {
                    brought.frames.push(frame);
                }
            }
            Ok(None) => break,
            Err(error) => {
                brought.error = Some(error.to_string());
                break;
            }
        }
    }
    brought
}

async fn read_datagrams(shared: Arc<Shared>, slot: Arc<Slot>, connection: Connection) {
    let (events, counters) = (&shared.events, &shared.counters);
    // An error here is one of the connection; the reader sees it too and says it.
    while let Ok(content) = connection.read_datagram().await {
        slot.note_traffic();
        if content.len() > limits::MAX_DATAGRAM_BYTES {
            Counters::add(&counters.datagrams_oversize, 1);
            continue;
        }
        // Datagrams are news that ages: better lost than late. Half of the room among the
        // events is not for them, so that no flood of them holds up frames or `Down`.
        let dropped = if events.capacity() > events.max_capacity() / 2 {
            match events.try_send(TransportEvent::Datagram { peer: slot.peer, content }) {
                Ok(()) => false,
                Err(mpsc::error::TrySendError::Full(_)) => true,
                Err(mpsc::error::TrySendError::Closed(_)) => return,
            }
        } else {
            true
        };
        Counters::add(if dropped { &counters.datagrams_dropped } else { &counters.datagrams_received }, 1);
        // One after the other with the readers of other peers, so that each gets its share of the room.
        tokio::task::yield_now().await;
    }
}
