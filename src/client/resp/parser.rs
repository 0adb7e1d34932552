//! Cuts a stream of bytes into replies.
//!
//! Problem: a reply arrives in pieces of any size, nests, and names its own lengths.
//! Invariants: each byte is looked at once, however the pieces fall (the scan keeps its
//! place between calls); memory grows only with bytes that have arrived, never on the
//! word of a length; a reply above its bounds is refused when its header is read. After
//! an error the stream has lost its frame and the connection is of no further use.
//!
//! Source: the RESP specification of redis.io, versions 2 and 3.

use bytes::{Buf, Bytes, BytesMut};

use super::reply::{Reply, ServerError, error_prefix};
use crate::types::limits;

/// How large one reply may be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ReplyLimits {
    /// Bytes of a whole reply, headers included.
    pub bytes: usize,
    /// Bytes of one line (a status, an error, a number).
    pub line_bytes: usize,
    /// Items of a reply in all its levels.
    pub items: u64,
    /// How deep lists may nest.
    pub depth: usize,
}

impl Default for ReplyLimits {
    /// Enough for a full scan page or a handful of the largest values.
    fn default() -> ReplyLimits {
        ReplyLimits {
            bytes: 4 * limits::MAX_VALUE_BYTES,
            line_bytes: 64 * 1024,
            items: limits::RESP_ARRAY_ITEMS as u64,
            depth: 16,
        }
    }
}

/// Bytes that are no reply. The connection cannot be used any more.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ProtocolError {
    /// No reply begins with this byte.
    #[error("a reply cannot begin with byte 0x{0:02x}; is this a Redis-protocol port?")]
    UnknownType(u8),
    /// A length, number or boolean that is none.
    #[error("malformed {0}")]
    Malformed(&'static str),
    /// A reply exceeds its bound.
    #[error("a reply has more than {limit} {what}")]
    TooLarge {
        /// What there is too much of.
        what: &'static str,
        /// The bound.
        limit: u64,
    },
}

/// A whole reply that has not been decoded: for callers who only need its first bytes.
#[derive(Clone, Copy, Debug)]
pub struct RawReply<'a>(&'a [u8]);

impl<'a> RawReply<'a> {
    /// The byte that names its type.
    pub fn kind(self) -> u8 {
        self.0[0]
    }

    /// Whether it is an error.
    pub fn is_error(self) -> bool {
        matches!(self.kind(), b'-' | b'!')
    }

    /// Whether it is a null.
    pub fn is_null(self) -> bool {
        matches!(self.0, b"$-1\r\n" | b"*-1\r\n" | b"_\r\n")
    }

    /// The code of an error, `ERR` if it has none.
    pub fn error_prefix(self) -> &'a str {
        let text = match self.kind() {
            b'!' => self.0.splitn(2, |byte| *byte == b'\n').nth(1).unwrap_or_default(),
            _ => &self.0[1..],
        };
        let line = text.split(|byte| *byte == b'\r').next().unwrap_or_default();
        let code = error_prefix(line).map(|length| &line[..length]);
        code.and_then(|code| std::str::from_utf8(code).ok()).unwrap_or("ERR")
    }

    /// The number, if it is one.
    pub fn as_integer(self) -> Option<i64> {
        let line = self.0.strip_prefix(b":")?.strip_suffix(b"\r\n")?;
        number(line)
    }
}

/// Cuts replies out of bytes as they come.
#[derive(Debug)]
pub struct ReplyParser {
    limits: ReplyLimits,
    buffer: BytesMut,
    /// Where in the buffer the next header begins, or continues.
    at: usize,
    /// From where on the end of the line at `at` is still to be looked for.
    searched: usize,
    /// How many items are missing on each open level.
    open: Vec<u64>,
    /// Items of this reply that headers have announced so far.
    items: u64,
}

impl ReplyParser {
    /// A parser with these bounds.
    pub fn new(limits: ReplyLimits) -> ReplyParser {
        ReplyParser { limits, buffer: BytesMut::new(), at: 0, searched: 0, open: Vec::new(), items: 0 }
    }

    /// Takes bytes that have arrived.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The buffer to read into, with room for at least `bytes` more. Only append to it.
    pub fn space(&mut self, bytes: usize) -> &mut BytesMut {
        self.buffer.reserve(bytes);
        &mut self.buffer
    }

    /// Bytes that are kept for replies not yet taken.
    pub fn buffered(&self) -> usize {
        self.buffer.len()
    }

    /// The next whole reply, if it is there.
    ///
    /// # Errors
    /// The stream is not RESP or exceeds a bound; nothing after that means anything.
    pub fn next_reply(&mut self) -> Result<Option<Reply>, ProtocolError> {
        let Some(length) = self.scan()? else { return Ok(None) };
        let mut frame = self.take(length);
        decode(&mut frame).map(Some)
    }

    /// The next whole reply without decoding it, if it is there.
    ///
    /// # Errors
    /// As [`ReplyParser::next_reply`], but the contents of a well-framed reply are not checked.
    pub fn next_raw<R>(&mut self, look: impl FnOnce(RawReply<'_>) -> R) -> Result<Option<R>, ProtocolError> {
        let Some(length) = self.scan()? else { return Ok(None) };
        let seen = look(RawReply(&self.buffer[..length]));
        self.buffer.advance(length);
        self.restart();
        Ok(Some(seen))
    }

    fn take(&mut self, length: usize) -> Bytes {
        let frame = self.buffer.split_to(length).freeze();
        self.restart();
        frame
    }

    fn restart(&mut self) {
        (self.at, self.searched, self.items) = (0, 0, 0);
        self.open.clear();
    }

    /// Looks for the end of the reply that begins the buffer: its length once it is whole.
    fn scan(&mut self) -> Result<Option<usize>, ProtocolError> {
        loop {
            let Some((line_end, after_line)) = self.find_line()? else { return Ok(None) };
            let kind = self.buffer[self.at];
            let line = &self.buffer[self.at + 1..line_end];
            let (after, children) = match kind {
                b'+' | b'-' | b':' | b'_' | b',' | b'#' | b'(' => (after_line, 0),
                b'$' | b'!' | b'=' => match length(line, kind == b'$')? {
                    None => (after_line, 0),
                    Some(length) => {
                        let end = (after_line as u64).saturating_add(length).saturating_add(2);
                        if end > self.limits.bytes as u64 {
                            return Err(too_large("bytes", self.limits.bytes as u64));
                        }
                        let end = usize::try_from(end).expect("it is below a bound that is a usize");
                        if self.buffer.len() < end {
                            return Ok(None);
                        }
                        if &self.buffer[end - 2..end] != b"\r\n" {
                            return Err(ProtocolError::Malformed("end of a bulk string"));
                        }
                        (end, 0)
                    }
                },
                b'*' | b'~' | b'>' | b'%' | b'|' => {
                    let count = length(line, kind == b'*')?.unwrap_or(0);
                    let children = match kind {
                        b'%' => count.saturating_mul(2),
                        // The value that an attribute describes is one more of its items.
                        b'|' => count.saturating_mul(2).saturating_add(1),
                        _ => count,
                    };
                    self.items = self.items.saturating_add(children);
                    if self.items > self.limits.items {
                        return Err(too_large("items", self.limits.items));
                    }
                    if children > 0 && self.open.len() == self.limits.depth {
                        return Err(too_large("levels", self.limits.depth as u64));
                    }
                    (after_line, children)
                }
                other => return Err(ProtocolError::UnknownType(other)),
            };
            if after > self.limits.bytes {
                return Err(too_large("bytes", self.limits.bytes as u64));
            }
            (self.at, self.searched) = (after, after);
            if children > 0 {
                self.open.push(children);
            } else if self.close_item() {
                return Ok(Some(after));
            }
        }
    }

    /// One item is whole: true if that ends the reply.
    fn close_item(&mut self) -> bool {
        while let Some(missing) = self.open.last_mut() {
            *missing -= 1;
            if *missing > 0 {
                return false;
            }
            self.open.pop();
        }
        true
    }

    /// The end of the header's line, and where the next byte after it is.
    fn find_line(&mut self) -> Result<Option<(usize, usize)>, ProtocolError> {
        if let Some(kind) = self.buffer.get(self.at)
            && !b"+-:_,#($!=*~>%|".contains(kind)
        {
            // Not waiting for a line end: a peer that speaks something else may never send one.
            return Err(ProtocolError::UnknownType(*kind));
        }
        let from = self.searched.max(self.at);
        match memchr::memchr(b'\n', &self.buffer[from..]) {
            Some(offset) => {
                let newline = from + offset;
                if newline - self.at > self.limits.line_bytes {
                    return Err(too_large("bytes in a line", self.limits.line_bytes as u64));
                }
                if newline < self.at + 2 || self.buffer[newline - 1] != b'\r' {
                    return Err(ProtocolError::Malformed("line end"));
                }
                Ok(Some((newline - 1, newline + 1)))
            }
            None => {
                self.searched = self.buffer.len();
                if self.searched - self.at > self.limits.line_bytes {
                    return Err(too_large("bytes in a line", self.limits.line_bytes as u64));
                }
                Ok(None)
            }
        }
    }
}

/// Decodes the reply that `frame` begins with; the scan has seen that it is whole, and
/// has bounded its depth and its items.
fn decode(frame: &mut Bytes) -> Result<Reply, ProtocolError> {
    let end = memchr::memchr(b'\r', frame).ok_or(ProtocolError::Malformed("line end"))?;
    let mut line = frame.split_to(end);
    frame.advance(2);
    let kind = line.get_u8();
    Ok(match kind {
        b'+' => Reply::Simple(line),
        b'-' => Reply::Error(ServerError::new(String::from_utf8_lossy(&line))),
        b':' => Reply::Integer(number(&line).ok_or(ProtocolError::Malformed("integer"))?),
        b'_' => Reply::Null,
        b',' => Reply::Double(double(&line).ok_or(ProtocolError::Malformed("double"))?),
        b'#' => match line.as_ref() {
            b"t" => Reply::Boolean(true),
            b"f" => Reply::Boolean(false),
            _ => return Err(ProtocolError::Malformed("boolean")),
        },
        b'(' => Reply::BigNumber(line),
        b'$' | b'!' | b'=' => match length(&line, kind == b'$')? {
            None => Reply::Null,
            Some(length) => {
                let body = bulk(frame, length);
                match kind {
                    b'$' => Reply::Bulk(body),
                    b'!' => Reply::Error(ServerError::new(String::from_utf8_lossy(&body))),
                    _ => verbatim(body)?,
                }
            }
        },
        b'*' => match length(&line, true)? {
            None => Reply::Null,
            Some(count) => Reply::Array(items(frame, count)?),
        },
        b'~' => Reply::Set(items(frame, length(&line, false)?.unwrap_or(0))?),
        b'>' => Reply::Push(items(frame, length(&line, false)?.unwrap_or(0))?),
        b'%' => {
            let count = length(&line, false)?.unwrap_or(0);
            let mut pairs = Vec::with_capacity(backed(frame, count));
            for _ in 0..count {
                pairs.push((decode(frame)?, decode(frame)?));
            }
            Reply::Map(pairs)
        }
        b'|' => {
            // Attributes only describe the value behind them; this client has no use for them.
            for _ in 0..length(&line, false)?.unwrap_or(0) {
                decode(frame)?;
                decode(frame)?;
            }
            decode(frame)?
        }
        other => return Err(ProtocolError::UnknownType(other)),
    })
}

fn items(frame: &mut Bytes, count: u64) -> Result<Vec<Reply>, ProtocolError> {
    let mut items = Vec::with_capacity(backed(frame, count));
    for _ in 0..count {
        items.push(decode(frame)?);
    }
    Ok(items)
}

/// A capacity that the bytes at hand can fill: the shortest item has three.
fn backed(frame: &Bytes, count: u64) -> usize {
    usize::try_from(count).unwrap_or(usize::MAX).min(frame.len() / 3)
}

fn bulk(frame: &mut Bytes, length: u64) -> Bytes {
    let body = frame.split_to(usize::try_from(length).expect("the scan has seen this many bytes"));
    frame.advance(2);
    body
}

fn verbatim(mut body: Bytes) -> Result<Reply, ProtocolError> {
    match body.as_ref() {
        [a, b, c, b':', ..] => {
            let format = [*a, *b, *c];
            body.advance(4);
            Ok(Reply::Verbatim { format, text: body })
        }
        _ => Err(ProtocolError::Malformed("verbatim string")),
    }
}

/// A length; -1 is a null where RESP2 spells nulls so.
fn length(line: &[u8], nullable: bool) -> Result<Option<u64>, ProtocolError> {
    match number(line) {
        Some(-1) if nullable => Ok(None),
        Some(length) => u64::try_from(length).map(Some).map_err(|_| ProtocolError::Malformed("length")),
        None => Err(ProtocolError::Malformed("length")),
    }
}

fn number(line: &[u8]) -> Option<i64> {
    std::str::from_utf8(line).ok()?.parse().ok()
}

fn double(line: &[u8]) -> Option<f64> {
    std::str::from_utf8(line).ok()?.parse().ok()
}

fn too_large(what: &'static str, limit: u64) -> ProtocolError {
    ProtocolError::TooLarge { what, limit }
}

#[cfg(test)]
#[path = "parser_tests.rs"]
mod tests;
