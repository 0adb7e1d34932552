//! A client's own name for a write, so that sending it again is harmless.
//!
//! Invariant: what a replica has noted for an op-id it never notes otherwise; so once a
//! majority of a key's replicas has noted the same, that is what the op-id stands for.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::{Key, Version};

/// 128 bits that a client has drawn for one write.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct OpId(pub [u8; 16]);

/// The text is no op-id.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not an op-id: write 1 to 32 hexadecimal digits, or a UUID")]
pub struct InvalidOpId(pub String);

impl fmt::Display for OpId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for OpId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for OpId {
    type Err = InvalidOpId;

    fn from_str(text: &str) -> Result<OpId, InvalidOpId> {
        let invalid = || InvalidOpId(text.chars().take(64).collect());
        let digits: String = match text.len() {
            36 if text.is_ascii() => text.split('-').collect(),
            _ => text.to_owned(),
        };
        let plain = !digits.is_empty() && digits.len() <= 32 && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        if !plain {
            return Err(invalid());
        }
        let number = u128::from_str_radix(&digits, 16).map_err(|_| invalid())?;
        Ok(OpId(number.to_be_bytes()))
    }
}

/// What a replica has noted for an op-id: the first that it was asked to note.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Claim {
    /// It stands for this version of this key.
    Write {
        /// Which key.
        key: Key,
        /// The version; it carries the op-id's only stamp.
        version: Version,
    },
    /// It stands for nothing, for ever: a write that carries it is refused.
    Fenced,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn op_ids_read_back_and_uuids_are_taken() {
        let id: OpId = "550e8400-e29b-41d4-a716-446655440000".parse().expect("a UUID");
        assert_eq!(id.to_string(), "550e8400e29b41d4a716446655440000");
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!("2a".parse::<OpId>().expect("short").0[15], 42);
        for bad in ["", "x", "+1", "550e8400-e29b-41d4-a716-44665544000g", &"1".repeat(33)] {
            assert!(bad.parse::<OpId>().is_err(), "{bad:?}");
        }
    }
}
