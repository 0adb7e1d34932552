//! Probes: small, in datagrams, lost without harm.
//!
//! A datagram is `version: u8 ‖ epoch ‖ probe` in postcard. Who sent it is known from the
//! connection on which it came, never from its content.

use serde::{Deserialize, Serialize};

use crate::types::{Epoch, Life, Load, NodeId, limits};

/// The version of the datagrams' format.
const VERSION: u8 = 1;

/// A probe with what every datagram carries.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Datagram {
    /// The epoch of the sender's map.
    pub epoch: Epoch,
    /// The probe.
    pub probe: Probe,
}

/// The name of a probe among those that its sender has under way.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ProbeId(pub u32);

/// What observers and the observed tell each other (SWIM, section 3.1; Lifeguard).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Probe {
    /// Answer with [`Probe::Ack`].
    Ping {
        /// The sender's name for it.
        id: ProbeId,
        /// The sender's life.
        life: Life,
        /// The receiver's life in which the sender holds it for suspect or down, if it does
        /// (Lifeguard's buddy system).
        accused: Option<Life>,
        /// Whether the sender has the receiver in its active view; if not it asks on
        /// behalf of another.
        neighbor: bool,
    },
    /// To a ping.
    Ack {
        /// The ping.
        id: ProbeId,
        /// The sender's life.
        life: Life,
        /// How busy it is.
        load: Load,
        /// Whether it has the receiver in its active view.
        neighbor: bool,
    },
    /// Ping the subject for the sender, and tell how it went.
    PingFor {
        /// The sender's name for it.
        id: ProbeId,
        /// Whom.
        subject: NodeId,
        /// The subject's life in which the sender holds it for suspect, if it does.
        accused: Option<Life>,
    },
    /// To [`Probe::PingFor`]: the subject has answered.
    AckFor {
        /// What was asked.
        id: ProbeId,
        /// Who.
        subject: NodeId,
        /// In which life.
        life: Life,
    },
    /// To [`Probe::PingFor`]: the subject has not answered, but the sender of this lives.
    NackFor {
        /// What was asked.
        id: ProbeId,
        /// Who.
        subject: NodeId,
    },
}

/// The bytes are no datagram of this version. Nothing follows from them.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DatagramError {
    /// Longer than a datagram may be.
    #[error("{0} bytes are too long for a datagram")]
    TooLong(usize),
    /// A version that this node does not speak.
    #[error("a datagram of version {0:?}")]
    Version(Option<u8>),
    /// Something else.
    #[error("malformed: {0}")]
    Malformed(String),
}

impl Datagram {
    /// Its bytes.
    pub fn encode(&self) -> Vec<u8> {
        postcard::to_extend(self, vec![VERSION]).expect("our own types serialize into memory")
    }

    /// The datagram in these bytes.
    ///
    /// # Errors
    /// [`DatagramError`] if they are anything else.
    pub fn decode(bytes: &[u8]) -> Result<Datagram, DatagramError> {
        if bytes.len() > limits::MAX_DATAGRAM_BYTES {
            return Err(DatagramError::TooLong(bytes.len()));
        }
        let Some((&VERSION, body)) = bytes.split_first() else {
            return Err(DatagramError::Version(bytes.first().copied()));
        };
        match postcard::take_from_bytes(body) {
            Ok((datagram, [])) => Ok(datagram),
            Ok((_, rest)) => Err(DatagramError::Malformed(format!("{} trailing bytes", rest.len()))),
            Err(error) => Err(DatagramError::Malformed(error.to_string())),
        }
    }
}

#[cfg(test)]
#[path = "datagram_tests.rs"]
mod tests;
