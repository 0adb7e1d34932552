//! The tokens that clients keep for us: causal contexts and sessions.
//!
//! Problem: a client hands back, perhaps after days and through proxies, what it was once
//! given. Bytes that were cut, changed or made up must be refused by name, never taken for
//! another context: that would replace a value that its client has not seen.
//! Form: Base64 (RFC 4648, section 5, without padding) of
//! `kind: u8 ‖ version: u8 ‖ content (postcard) ‖ CRC32C of all before it: u32 LE`.
//! Invariant: whatever is decoded was measured against [`limits::TOKEN_BYTES`] before.

use super::seen::Raised;
use crate::types::{CausalContext, ConsistencyLevel, Session, Stamp, limits};

/// What a token is of: one kind is never taken for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Kind {
    Context = b'c',
    Session = b's',
}

/// The version that is written; no other is read yet.
const VERSION: u8 = 1;
const HEADER_BYTES: usize = 2;
const CHECKSUM_BYTES: usize = 4;
/// In the flags of a session: something was seen that fewer than a quorum may hold.
const WEAK: u8 = 4;

/// A token that cannot be taken. Nothing was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum InvalidToken {
    #[error("the {0} token is damaged: hand it back as it was given, or read anew")]
    Damaged(&'static str),
    #[error("the {0} token is of another version of this program: read anew")]
    Version(&'static str),
    #[error("this is a token of another kind, and not a {0} token")]
    OtherKind(&'static str),
    #[error("the {0} token is longer than any that is given out")]
    TooLong(&'static str),
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Kind::Context => "context",
            Kind::Session => "session",
        }
    }

    fn wrap(self, content: &[u8]) -> String {
        let mut bytes = Vec::with_capacity(HEADER_BYTES + content.len() + CHECKSUM_BYTES);
        bytes.extend_from_slice(&[self as u8, VERSION]);
        bytes.extend_from_slice(content);
        let checksum = crc32c::crc32c(&bytes);
        bytes.extend_from_slice(&checksum.to_le_bytes());
        encode(&bytes)
    }

    fn unwrap(self, text: &[u8]) -> Result<Vec<u8>, InvalidToken> {
        if text.len() > limits::TOKEN_BYTES {
            return Err(InvalidToken::TooLong(self.name()));
        }
        let damaged = InvalidToken::Damaged(self.name());
        let mut bytes = decode(text).ok_or(damaged)?;
        let content_end = bytes.len().checked_sub(CHECKSUM_BYTES).filter(|end| *end >= HEADER_BYTES).ok_or(damaged)?;
        let checksum = bytes.split_off(content_end);
        if checksum != crc32c::crc32c(&bytes).to_le_bytes() {
            return Err(damaged);
        }
        match bytes[..HEADER_BYTES] {
            [kind, _] if kind != self as u8 => Err(InvalidToken::OtherKind(self.name())),
            [_, VERSION] => Ok(bytes.split_off(HEADER_BYTES)),
            _ => Err(InvalidToken::Version(self.name())),
        }
    }
}

/// A version of a key as text. Opaque: its form may change with any release.
pub(super) fn version(stamp: &Stamp) -> String {
    format!(
        "{:016x}{:08x}{:x}-{:x}",
        stamp.timestamp.0,
        stamp.dot.actor.node.number(),
        stamp.dot.actor.incarnation.0,
        stamp.dot.counter.0
    )
}

/// The token of a context.
pub(super) fn of_context(context: &CausalContext) -> String {
    Kind::Context.wrap(&postcard::to_stdvec(context).expect("our own types serialize into memory"))
}

/// The context of a token.
///
/// # Errors
/// [`InvalidToken`].
pub(super) fn context(text: &[u8]) -> Result<CausalContext, InvalidToken> {
    let bytes = Kind::Context.unwrap(text)?;
    match postcard::take_from_bytes(&bytes) {
        Ok((context, [])) => Ok(context),
        _ => Err(InvalidToken::Damaged(Kind::Context.name())),
    }
}

/// The token of a session, and of what its reads are raised to.
pub(super) fn of_session(session: &Session, raised: Raised) -> String {
    let level = match raised.level {
        None => 0,
        Some(ConsistencyLevel::All) => 2,
        Some(_) => 1,
    };
    let mut content = vec![level | if raised.weak { WEAK } else { 0 }];
    content.extend_from_slice(&session.encode());
    Kind::Session.wrap(&content)
}

/// The session of a token, and what its reads are raised to.
///
/// # Errors
/// [`InvalidToken`].
pub(super) fn session(text: &[u8]) -> Result<(Session, Raised), InvalidToken> {
    let damaged = InvalidToken::Damaged(Kind::Session.name());
    let bytes = Kind::Session.unwrap(text)?;
    let (flags, session) = bytes.split_first().ok_or(damaged)?;
    let level = match flags & !WEAK {
        0 => None,
        1 => Some(ConsistencyLevel::Quorum),
        2 => Some(ConsistencyLevel::All),
        _ => return Err(damaged),
    };
    let raised = Raised { level, weak: flags & WEAK != 0 };
    Ok((Session::decode(session).map_err(|_| damaged)?, raised))
}

const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

fn encode(bytes: &[u8]) -> String {
    let mut text = String::with_capacity((bytes.len() * 4).div_ceil(3));
    for chunk in bytes.chunks(3) {
        let group = chunk.iter().fold(0u32, |group, byte| (group << 8) | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for place in 0..=chunk.len() {
            text.push(char::from(DIGITS[(group >> (18 - 6 * place)) as usize & 63]));
        }
    }
    text
}

fn decode(text: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3 + 2);
    for chunk in text.chunks(4) {
        let mut group = 0u32;
        for digit in chunk {
            let value = match digit {
                b'A'..=b'Z' => digit - b'A',
                b'a'..=b'z' => digit - b'a' + 26,
                b'0'..=b'9' => digit - b'0' + 52,
                b'-' => 62,
                b'_' => 63,
                _ => return None,
            };
            group = (group << 6) | u32::from(value);
        }
        group <<= 6 * (4 - chunk.len());
        let whole = [(group >> 16) as u8, (group >> 8) as u8, group as u8];
        let held = chunk.len() - 1;
        // One digit alone is no byte, and bits that stand for nothing must be zero: else two
        // texts would be one token.
        if held == 0 || whole[held..].iter().any(|byte| *byte != 0) {
            return None;
        }
        bytes.extend_from_slice(&whole[..held]);
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{Actor, Counter, Dot, Incarnation, NodeId, Partition};

    fn dot(node: u32, counter: u64) -> Dot {
        let node = NodeId::new(node).expect("not zero");
        Dot { actor: Actor { node, incarnation: Incarnation(7) }, counter: Counter(counter) }
    }

    #[test]
    fn tokens_read_back_and_one_kind_is_not_another() {
        let seen: CausalContext = [dot(1, 5), dot(2, 900)].into_iter().collect();
        let token = of_context(&seen);
        assert!(token.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte)), "{token}");
        assert_eq!(context(token.as_bytes()), Ok(seen));
        assert_eq!(session(token.as_bytes()), Err(InvalidToken::OtherKind("session")));

        let mut seen = Session::default();
        seen.note(Partition(3), dot(1, 4)).expect("there is room");
        for level in [None, Some(ConsistencyLevel::Quorum), Some(ConsistencyLevel::All)] {
            let raised = Raised { level, weak: level.is_none() };
            let token = of_session(&seen, raised);
            assert_eq!(session(token.as_bytes()), Ok((seen.clone(), raised)));
            assert_eq!(context(token.as_bytes()), Err(InvalidToken::OtherKind("context")));
        }
    }

    #[test]
    fn whatever_was_changed_is_refused() {
        let token = of_context(&[dot(1, 5), dot(2, 900), dot(3, 1)].into_iter().collect()).into_bytes();
        for at in 0..token.len() {
            assert!(context(&token[..at]).is_err(), "cut at {at}");
            for other in [b'A', b'_', b'x', b'"', 0xff] {
                let mut changed = token.clone();
                changed[at] = other;
                assert!(changed == token || context(&changed).is_err(), "{other} at {at}");
            }
        }
        let longer = [&token[..], b"A"].concat();
        assert_eq!(context(&longer), Err(InvalidToken::Damaged("context")));
        assert_eq!(context(&vec![b'A'; limits::TOKEN_BYTES + 1]), Err(InvalidToken::TooLong("context")));
        // A checksum that fits does not make sense of nonsense.
        for content in [&b""[..], b"\xff\xff\xff\xff\x0f", b"\x01"] {
            let made_up = Kind::Context.wrap(content);
            assert_eq!(context(made_up.as_bytes()), Err(InvalidToken::Damaged("context")), "{content:?}");
            let made_up = Kind::Session.wrap(content);
            assert!(session(made_up.as_bytes()).is_err(), "{content:?}");
        }
    }
}
