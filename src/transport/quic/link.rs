//! One connection at work: a task that writes, one that reads, one for datagrams.
//!
//! Invariants: frames are delivered in the order of the stream, in batches; the reader
//! waits for room among the events before it reads on, so that what a peer can make
//! this node hold is bounded by the flow-control window and one frame; a frame that is
//! too long ends the connection before anything is held for it.
//!
//! An empty frame is the transport's own: with it the acceptor asks the dialler for a
//! new connection, because the acceptor's certificate has changed.

use std::sync::Arc;

use bytes::Bytes;
use quinn::{Connection, ReadError, RecvStream, SendStream, VarInt, WriteError};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::Shared;
use super::codes;
use super::handshake::Meeting;
use super::outbox::Take;
use super::peer::Slot;
use crate::transport::TransportEvent;
use crate::transport::counters::Counters;
use crate::types::{Incarnation, Moment, limits};
use crate::wire::FrameReader;

/// Pieces of the stream taken up at once; each is a packet's content at most.
const CHUNKS: usize = 32;
/// Frames in one event, at most, so that an event of tiny frames stays small.
const EVENT_FRAMES: usize = 1_024;

pub(super) struct Link {
    pub(super) connection: Connection,
    pub(super) incarnation: Incarnation,
    pub(super) since: Moment,
    /// The peer has ended its stream in good order.
    pub(super) ended: bool,
    reader: JoinHandle<ReadEnd>,
    writer: JoinHandle<Option<SendStream>>,
    datagrams: JoinHandle<()>,
}

/// Why nothing more is read.
#[derive(Debug)]
pub(super) enum ReadEnd {
    /// The peer ended the stream in good order.
    Finished,
    /// The connection is gone.
    Lost(String),
    /// The peer broke the protocol.
    Violation(VarInt, String),
    /// Nobody wants the events any more.
    NoReceiver,
}

impl Link {
    pub(super) fn start(shared: &Arc<Shared>, slot: &Arc<Slot>, number: u64, now: Moment, meeting: Meeting) -> Link {
        let Meeting { connection, send, receive, hello, .. } = meeting;
        let reader = tokio::spawn(read(shared.clone(), slot.clone(), receive));
        let writer = tokio::spawn(write(shared.clone(), slot.clone(), number, connection.clone(), send));
        let datagrams = tokio::spawn(read_datagrams(shared.clone(), slot.clone(), connection.clone()));
        let incarnation = hello.incarnation;
        Link { connection, incarnation, since: now, ended: false, reader, writer, datagrams }
    }

    /// Until the peer's stream ends. Not to be called again after that.
    pub(super) async fn read_end(&mut self) -> ReadEnd {
        match (&mut self.reader).await {
            Ok(end) => end,
            Err(error) => ReadEnd::Lost(format!("the reader failed: {error}")),
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
        }
    }
}

async fn read(shared: Arc<Shared>, slot: Arc<Slot>, mut receive: RecvStream) -> ReadEnd {
    let mut chunks: [Bytes; CHUNKS] = std::array::from_fn(|_| Bytes::new());
    let mut reader = FrameReader::new(limits::MAX_FRAME_BYTES);
    loop {
        let count = match receive.read_chunks(&mut chunks).await {
            Ok(Some(count)) => count,
            Ok(None) if reader.is_empty() => return ReadEnd::Finished,
            Ok(None) => return ReadEnd::Violation(codes::BROKEN_STREAM, "the stream ended within a frame".into()),
            Err(ReadError::ConnectionLost(error)) => return ReadEnd::Lost(error.to_string()),
            Err(error) => return ReadEnd::Violation(codes::BROKEN_STREAM, error.to_string()),
        };
        let mut bytes = 0;
        for chunk in &mut chunks[..count] {
            bytes += chunk.len() as u64;
            reader.feed(chunk);
            *chunk = Bytes::new();
        }
        Counters::add(&shared.counters.bytes_received, bytes);
        loop {
            let (frames, error) = next_frames(&mut reader, &slot);
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

/// What has arrived whole, up to the size of an event, and what is wrong with the next.
fn next_frames(reader: &mut FrameReader, slot: &Slot) -> (Vec<Bytes>, Option<String>) {
    let mut frames = Vec::new();
    while frames.len() < EVENT_FRAMES {
        match reader.next_frame() {
            Ok(Some(frame)) if frame.is_empty() => slot.renewal_asked(),
            Ok(Some(frame)) => frames.push(frame),
            Ok(None) => return (frames, None),
            Err(error) => return (frames, Some(error.to_string())),
        }
    }
    (frames, None)
}

async fn read_datagrams(shared: Arc<Shared>, slot: Arc<Slot>, connection: Connection) {
    // An error here is one of the connection; the reader sees it too and says it.
    while let Ok(content) = connection.read_datagram().await {
        if content.len() > limits::MAX_DATAGRAM_BYTES {
            Counters::add(&shared.counters.datagrams_dropped, 1);
            continue;
        }
        let event = TransportEvent::Datagram { peer: slot.peer, content };
        match shared.events.try_send(event) {
            Ok(()) => Counters::add(&shared.counters.datagrams_received, 1),
            // Datagrams are news that ages: better lost than late.
            Err(mpsc::error::TrySendError::Full(_)) => Counters::add(&shared.counters.datagrams_dropped, 1),
            Err(mpsc::error::TrySendError::Closed(_)) => return,
        }
    }
}
