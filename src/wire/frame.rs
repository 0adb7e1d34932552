//! Frames: how messages are told apart on a stream.

use bytes::{Buf, Bytes, BytesMut};

use crate::types::limits;

/// A frame announces more than is allowed. Nothing was read for it; the stream cannot go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a frame of {length} bytes is above the limit of {limit}")]
pub struct FrameError {
    /// The length announced.
    pub length: usize,
    /// The limit.
    pub limit: usize,
}

/// Appends a frame with this content.
///
/// # Panics
/// If the content is longer than a frame may be: the caller made it, and bounds it.
pub fn write_frame(out: &mut Vec<u8>, content: &[u8]) {
    assert!(content.len() <= limits::MAX_FRAME_BYTES, "a frame of {} bytes", content.len());
    out.extend_from_slice(&(content.len() as u32).to_le_bytes());
    out.extend_from_slice(content);
}

/// Cuts a stream of bytes, fed in pieces, into the contents of frames.
///
/// It holds what has arrived and nothing on credit: a length is only a limit to compare
/// with, never an amount to reserve.
#[derive(Debug)]
pub struct FrameReader {
    buffer: BytesMut,
    limit: usize,
}

impl FrameReader {
    /// A reader that takes frames of up to `limit` bytes.
    pub fn new(limit: usize) -> FrameReader {
        FrameReader { buffer: BytesMut::new(), limit: limit.min(limits::MAX_FRAME_BYTES) }
    }

    /// Takes in what has arrived.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// Whether everything that has arrived was handed out: a stream may end here.
    pub fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }

    /// The content of the next whole frame, if it has arrived.
    ///
    /// # Errors
    /// [`FrameError`] if the next frame is too long; the reader is of no further use.
    pub fn next_frame(&mut self) -> Result<Option<Bytes>, FrameError> {
        let Some(prefix) = self.buffer.first_chunk::<4>() else { return Ok(None) };
        let length = u32::from_le_bytes(*prefix) as usize;
        if length > self.limit {
            return Err(FrameError { length, limit: self.limit });
        }
        if self.buffer.len() - 4 < length {
            return Ok(None);
        }
        self.buffer.advance(4);
        Ok(Some(self.buffer.split_to(length).freeze()))
    }
}

#[cfg(test)]
#[path = "frame_tests.rs"]
mod tests;
