//! Decoding what a client sends: RESP arrays of bulk strings, and inline commands.
//!
//! Problem: commands arrive in pieces, from clients that may lie about every length.
//! Invariants: the commands found do not depend on how the bytes were cut; no byte of an
//! argument is looked at twice; memory is taken for bytes that have arrived and for
//! nothing else (a place of 8 bytes for an argument of at least 5).
//! Source: the RESP specification, and Redis's `networking.c` for texts and oddities.

use bytes::Bytes;

use super::inline;
use crate::types::limits;

/// Longest line that holds a length: a sign and twenty digits, with room to spare.
const LENGTH_LINE_BYTES: usize = 32;
/// Places kept between commands; more are given back.
const KEPT_SPANS: usize = 1_024;

/// What a command may be at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DecodeLimits {
    /// Arguments, the name included.
    pub items: usize,
    /// Bytes of one argument.
    pub bulk_bytes: usize,
    /// Bytes of a command in all.
    pub command_bytes: usize,
    /// Whether these are the limits of a client that has not given its password.
    pub unauthenticated: bool,
}

impl DecodeLimits {
    /// For clients that may send commands.
    pub const AUTHENTICATED: DecodeLimits = DecodeLimits {
        items: limits::RESP_ARRAY_ITEMS,
        bulk_bytes: limits::RESP_BULK_BYTES,
        command_bytes: limits::RESP_COMMAND_BYTES,
        unauthenticated: false,
    };
    /// For clients that must give a password first.
    pub const UNAUTHENTICATED: DecodeLimits = DecodeLimits {
        items: limits::RESP_UNAUTHENTICATED_ITEMS,
        bulk_bytes: limits::RESP_UNAUTHENTICATED_BYTES,
        command_bytes: limits::RESP_COMMAND_BYTES,
        unauthenticated: true,
    };
}

/// Bytes that are no command. Nothing after them can be understood: the connection is closed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProtocolError {
    /// The number of arguments is no number or above the limit.
    #[error("Protocol error: invalid multibulk length")]
    ArrayLength,
    /// Too many arguments for a client that has not authenticated.
    #[error("Protocol error: unauthenticated multibulk length")]
    UnauthenticatedArrayLength,
    /// The length of an argument is no number, negative or above the limit.
    #[error("Protocol error: invalid bulk length")]
    BulkLength,
    /// Too long an argument for a client that has not authenticated.
    #[error("Protocol error: unauthenticated bulk length")]
    UnauthenticatedBulkLength,
    /// Something else where an argument should begin.
    #[error("Protocol error: expected '$', got '{}'", .0.escape_ascii())]
    NoBulk(u8),
    /// An argument that does not end where it said.
    #[error("Protocol error: expected CRLF after a bulk string")]
    BulkEnd,
    /// A line that should hold a number of arguments goes on and on.
    #[error("Protocol error: too big mbulk count string")]
    ArrayLine,
    /// A line that should hold the length of an argument goes on and on.
    #[error("Protocol error: too big bulk count string")]
    BulkLine,
    /// An inline command above [`limits::RESP_INLINE_BYTES`].
    #[error("Protocol error: too big inline request")]
    InlineLength,
    /// An inline command whose quotes do not match.
    #[error("Protocol error: unbalanced quotes in request")]
    Quotes,
    /// A command above [`DecodeLimits::command_bytes`].
    #[error("Protocol error: command is longer than {0} bytes")]
    CommandLength(usize),
}

/// Where an argument lies in its buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    pub start: u32,
    pub end: u32,
}

/// What the bytes at hand are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decoded {
    /// The beginning of a command (or nothing).
    Incomplete,
    /// Something to pass over in silence.
    Skip {
        /// How many bytes.
        bytes: usize,
    },
    /// A command.
    Command {
        /// How many bytes it takes.
        bytes: usize,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Start,
    Items { remaining: usize },
    Bulk { remaining: usize, length: usize },
    Complete,
}

/// Finds commands at the start of a buffer. The buffer may grow between calls; once
/// a command or skip was reported and its bytes dropped, [`Decoder::reset`] must follow.
#[derive(Debug)]
pub struct Decoder {
    state: State,
    /// First byte that was not looked at, from the start of the command.
    position: usize,
    spans: Vec<Span>,
    /// The unquoted arguments of an inline command, one after the other.
    unquoted: Option<Vec<u8>>,
}

impl Default for Decoder {
    fn default() -> Decoder {
        Decoder { state: State::Start, position: 0, spans: Vec::new(), unquoted: None }
    }
}

impl Decoder {
    /// Looks at what is there.
    ///
    /// # Errors
    /// [`ProtocolError`]: nothing that follows can be decoded.
    pub fn decode(&mut self, input: &[u8], limits: &DecodeLimits) -> Result<Decoded, ProtocolError> {
        loop {
            match self.state {
                State::Complete => return Ok(Decoded::Command { bytes: self.position }),
                State::Start => match input.first() {
                    None => return Ok(Decoded::Incomplete),
                    Some(b'*') => match self.array_header(input, limits)? {
                        Some(found @ Decoded::Skip { .. }) => return Ok(found),
                        Some(_) => {}
                        None => return Ok(Decoded::Incomplete),
                    },
                    Some(_) => return self.inline(input),
                },
                State::Items { remaining: 0 } => self.state = State::Complete,
                State::Items { remaining } => {
                    if !self.bulk_header(input, remaining, limits)? {
                        return Ok(Decoded::Incomplete);
                    }
                }
                State::Bulk { remaining, length } => {
                    let end = self.position + length;
                    if input.len() < end + 2 {
                        return Ok(Decoded::Incomplete);
                    }
                    if &input[end..end + 2] != b"\r\n" {
                        return Err(ProtocolError::BulkEnd);
                    }
                    self.spans.push(span(self.position, end));
                    self.position = end + 2;
                    self.state = State::Items { remaining: remaining - 1 };
                }
            }
        }
    }

    /// The arguments of the command that was found, in the same input.
    pub fn args<'a>(&'a self, input: &'a [u8]) -> Args<'a> {
        Args { buffer: self.unquoted.as_deref().unwrap_or(input), spans: &self.spans, owner: None }
    }

    /// The same, of an input that can be kept without copying.
    pub fn args_of_owned<'a>(&'a self, input: &'a Bytes) -> Args<'a> {
        match &self.unquoted {
            Some(unquoted) => Args { buffer: unquoted, spans: &self.spans, owner: None },
            None => Args { buffer: input, spans: &self.spans, owner: Some(input) },
        }
    }

    /// Whether a command was found that was not dropped yet.
    pub fn is_complete(&self) -> bool {
        self.state == State::Complete
    }

    /// Begins anew at the next byte.
    pub fn reset(&mut self) {
        self.state = State::Start;
        self.position = 0;
        self.unquoted = None;
        if self.spans.capacity() > KEPT_SPANS {
            self.spans = Vec::new();
        } else {
            self.spans.clear();
        }
    }

    fn array_header(&mut self, input: &[u8], limits: &DecodeLimits) -> Result<Option<Decoded>, ProtocolError> {
        let Some((line, next)) = length_line(input, 1, ProtocolError::ArrayLine)? else { return Ok(None) };
        let items = line.and_then(integer).ok_or(ProtocolError::ArrayLength)?;
        if items <= 0 {
            return Ok(Some(Decoded::Skip { bytes: next }));
        }
        let items = usize::try_from(items).map_err(|_| ProtocolError::ArrayLength)?;
        if items > limits.items {
            // As Redis has it, a number beyond all limits is invalid for whoever sends it.
            return Err(if limits.unauthenticated && items <= limits::RESP_ARRAY_ITEMS {
                ProtocolError::UnauthenticatedArrayLength
            } else {
                ProtocolError::ArrayLength
            });
        }
        self.position = next;
        self.state = State::Items { remaining: items };
        Ok(Some(Decoded::Incomplete))
    }

    /// Whether the header of a bulk string was there in full.
    fn bulk_header(&mut self, input: &[u8], remaining: usize, limits: &DecodeLimits) -> Result<bool, ProtocolError> {
        match input.get(self.position) {
            None => return Ok(false),
            Some(b'$') => {}
            Some(other) => return Err(ProtocolError::NoBulk(*other)),
        }
        let Some((line, next)) = length_line(input, self.position + 1, ProtocolError::BulkLine)? else {
            return Ok(false);
        };
        let length = line.and_then(integer).and_then(|length| usize::try_from(length).ok());
        let length = length.ok_or(ProtocolError::BulkLength)?;
        if length > limits.bulk_bytes {
            return Err(if limits.unauthenticated && length <= limits::RESP_BULK_BYTES {
                ProtocolError::UnauthenticatedBulkLength
            } else {
                ProtocolError::BulkLength
            });
        }
        if next + length + 2 > limits.command_bytes {
            return Err(ProtocolError::CommandLength(limits.command_bytes));
        }
        self.position = next;
        self.state = State::Bulk { remaining, length };
        Ok(true)
    }

    fn inline(&mut self, input: &[u8]) -> Result<Decoded, ProtocolError> {
        let window = &input[..input.len().min(limits::RESP_INLINE_BYTES)];
        let Some(end) = memchr::memchr(b'\n', &window[self.position..]).map(|at| at + self.position) else {
            if input.len() >= limits::RESP_INLINE_BYTES {
                return Err(ProtocolError::InlineLength);
            }
            self.position = input.len();
            return Ok(Decoded::Incomplete);
        };
        let mut unquoted = Vec::new();
        inline::split(&input[..end], &mut unquoted, &mut self.spans).ok_or(ProtocolError::Quotes)?;
        if self.spans.is_empty() {
            return Ok(Decoded::Skip { bytes: end + 1 });
        }
        self.unquoted = Some(unquoted);
        self.position = end + 1;
        self.state = State::Complete;
        Ok(Decoded::Command { bytes: end + 1 })
    }
}

pub(super) fn span(start: usize, end: usize) -> Span {
    let place = |at| u32::try_from(at).expect("commands are far below 4 GiB");
    Span { start: place(start), end: place(end) }
}

/// A line without its end (none if it does not end as lines do), and where the next one
/// begins; nothing if the end has not arrived.
type Line<'a> = Option<(Option<&'a [u8]>, usize)>;

fn length_line(input: &[u8], from: usize, too_long: ProtocolError) -> Result<Line<'_>, ProtocolError> {
    let window = &input[from..input.len().min(from + LENGTH_LINE_BYTES)];
    match memchr::memchr(b'\n', window) {
        Some(at) => Ok(Some((window[..at].strip_suffix(b"\r"), from + at + 1))),
        None if window.len() == LENGTH_LINE_BYTES => Err(too_long),
        None => Ok(None),
    }
}

/// A decimal number as Redis takes it: no plus, no leading zeros, no spaces.
pub(super) fn integer(text: &[u8]) -> Option<i64> {
    let (negative, digits) = match text.strip_prefix(b"-") {
        Some(digits) => (true, digits),
        None => (false, text),
    };
    if digits == b"0" {
        return (!negative).then_some(0);
    }
    if digits.is_empty() || digits[0] == b'0' {
        return None;
    }
    let mut number: i64 = 0;
    for digit in digits {
        if !digit.is_ascii_digit() {
            return None;
        }
        // Counting below zero reaches the smallest number too.
        number = number.checked_mul(10)?.checked_sub(i64::from(digit - b'0'))?;
    }
    if negative { Some(number) } else { number.checked_neg() }
}

/// The arguments of one command, its name first.
#[derive(Clone, Copy, Debug)]
pub struct Args<'a> {
    buffer: &'a [u8],
    spans: &'a [Span],
    owner: Option<&'a Bytes>,
}

impl<'a> Args<'a> {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.spans.len()
    }

    /// Whether there are none; never so for what a decoder found.
    pub fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }

    /// An argument, if there is one of this number.
    pub fn get(&self, index: usize) -> Option<&'a [u8]> {
        self.spans.get(index).map(|span| &self.buffer[span.start as usize..span.end as usize])
    }

    /// An argument; empty if there is none. Arity is checked before handlers run.
    pub fn at(&self, index: usize) -> &'a [u8] {
        self.get(index).unwrap_or_default()
    }

    /// An argument to keep: a part of the input where that is owned, else a copy.
    pub fn keep(&self, index: usize) -> Bytes {
        let Some(span) = self.spans.get(index) else { return Bytes::new() };
        let range = span.start as usize..span.end as usize;
        match self.owner {
            Some(owner) => owner.slice(range),
            None => Bytes::copy_from_slice(&self.buffer[range]),
        }
    }

    /// The arguments from one on.
    pub fn skip(&self, count: usize) -> Args<'a> {
        Args { spans: self.spans.get(count..).unwrap_or_default(), ..*self }
    }

    /// All of them in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &'a [u8]> + use<'a> {
        let buffer = self.buffer;
        self.spans.iter().map(move |span| &buffer[span.start as usize..span.end as usize])
    }

    /// A command that outlives the input.
    pub(super) fn to_owned(self) -> OwnedArgs {
        let mut buffer = Vec::with_capacity(self.iter().map(<[u8]>::len).sum());
        let mut spans = Vec::with_capacity(self.len());
        for arg in self.iter() {
            spans.push(span(buffer.len(), buffer.len() + arg.len()));
            buffer.extend_from_slice(arg);
        }
        OwnedArgs { buffer: Bytes::from(buffer), spans: spans.into_boxed_slice() }
    }
}

/// A command that was put aside.
#[derive(Debug)]
pub(super) struct OwnedArgs {
    buffer: Bytes,
    spans: Box<[Span]>,
}

impl OwnedArgs {
    /// Its arguments.
    pub fn args(&self) -> Args<'_> {
        Args { buffer: &self.buffer, spans: &self.spans, owner: Some(&self.buffer) }
    }

    /// What it takes of memory, in bytes.
    pub fn weight(&self) -> usize {
        64 + self.buffer.len() + self.spans.len() * size_of::<Span>()
    }
}

#[cfg(test)]
#[path = "decode_tests.rs"]
mod tests;
