//! Keys, as clients name them.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{NamespaceId, Token, limits};

/// A key within its namespace: from 1 byte to [`limits::MAX_KEY_BYTES`].
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize)]
pub struct Key {
    namespace: NamespaceId,
    bytes: Bytes,
}

/// These bytes cannot be a key. Nothing was sent to any replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// No bytes at all.
    #[error("key is empty")]
    Empty,
    /// More bytes than the limit.
    #[error("key is too long (max 64KiB)")]
    TooLong,
}

impl Key {
    /// A key of these bytes.
    ///
    /// # Errors
    /// [`KeyError`] if there are none or too many.
    pub fn new(namespace: NamespaceId, bytes: impl Into<Bytes>) -> Result<Key, KeyError> {
        let bytes = bytes.into();
        match bytes.len() {
            0 => Err(KeyError::Empty),
            length if length > limits::MAX_KEY_BYTES => Err(KeyError::TooLong),
            _ => Ok(Key { namespace, bytes }),
        }
    }

    /// The namespace it lies in.
    pub fn namespace(&self) -> NamespaceId {
        self.namespace
    }

    /// Its bytes.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// Its place on the ring.
    pub fn token(&self) -> Token {
        Token::of_key(&self.bytes)
    }
}

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Key, D::Error> {
        let (namespace, bytes) = <(NamespaceId, Bytes)>::deserialize(deserializer)?;
        Key::new(namespace, bytes).map_err(serde::de::Error::custom)
    }
}
