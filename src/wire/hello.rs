//! The first frame in either direction of a connection: who speaks, and in which version.

use serde::{Deserialize, Serialize};

use crate::types::{ClusterId, Epoch, Incarnation, NodeId};

/// The version of the protocol that this build speaks.
pub const PROTOCOL_VERSION: u8 = 3;

/// What stands before the postcard body, so that other protocols are told apart.
const MAGIC: [u8; 4] = *b"DSLD";

/// What a node says of itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Hello {
    /// The cluster it belongs to.
    pub cluster: ClusterId,
    /// Its name; the certificate must say the same.
    pub node: NodeId,
    /// Which of its lives this is.
    pub incarnation: Incarnation,
    /// The epoch of its map.
    pub epoch: Epoch,
}

/// The first frame is no greeting that can be answered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HelloError {
    /// Some other protocol.
    #[error("the peer does not speak Dogsled's protocol")]
    NotDogsled,
    /// A version that this build does not speak.
    #[error("the peer speaks protocol version {0}, this node {PROTOCOL_VERSION}")]
    Version(u8),
    /// The rest makes no sense.
    #[error("malformed greeting: {0}")]
    Malformed(String),
}

impl Hello {
    /// The longest greeting, in bytes.
    pub const MAX_BYTES: usize = 128;

    /// Its bytes, without the length of the frame.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        out.push(PROTOCOL_VERSION);
        postcard::to_extend(self, out).expect("our own types serialize into memory")
    }

    /// The greeting in these bytes.
    ///
    /// # Errors
    /// [`HelloError`] if they are something else.
    pub fn decode(bytes: &[u8]) -> Result<Hello, HelloError> {
        let body = bytes.strip_prefix(&MAGIC).ok_or(HelloError::NotDogsled)?;
        let (version, body) = body.split_first().ok_or(HelloError::NotDogsled)?;
        if *version != PROTOCOL_VERSION {
            return Err(HelloError::Version(*version));
        }
        match postcard::take_from_bytes(body) {
            Ok((hello, [])) => Ok(hello),
            Ok((_, rest)) => Err(HelloError::Malformed(format!("{} trailing bytes", rest.len()))),
            Err(error) => Err(HelloError::Malformed(error.to_string())),
        }
    }
}

#[cfg(test)]
#[path = "hello_tests.rs"]
mod tests;
