//! The codes that connections are closed with, and what an error of quinn's means.

use quinn::{ConnectionError, VarInt};

use crate::transport::counters::HandshakeRefusal;

/// This node is stopping.
pub(super) const SHUTDOWN: VarInt = VarInt::from_u32(1);
/// A newer connection took the place of this one, on which something may have been lost.
pub(super) const REPLACED: VarInt = VarInt::from_u32(2);
/// The peer is no member any more.
pub(super) const REMOVED: VarInt = VarInt::from_u32(3);
/// The layer above asked for it.
pub(super) const DISCONNECTED: VarInt = VarInt::from_u32(4);
/// A frame announces more bytes than are allowed.
pub(super) const FRAME_TOO_LONG: VarInt = VarInt::from_u32(5);
/// The stream ended within a frame, was reset, or was refused.
pub(super) const BROKEN_STREAM: VarInt = VarInt::from_u32(6);
/// Nothing has travelled for long enough; both ends have all that was sent.
pub(super) const PARTED: VarInt = VarInt::from_u32(7);
/// The dialler was reached from here at the same time, and that connection stands.
pub(super) const CROSSED: VarInt = VarInt::from_u32(8);
/// Whoever began this handshake does not want the connection any more.
pub(super) const ABANDONED: VarInt = VarInt::from_u32(9);
/// Given up as lost: what should have come did not come in time.
pub(super) const LOST: VarInt = VarInt::from_u32(10);
/// Another connection has taken the place of this one, which was read to the end.
pub(super) const RENEWED: VarInt = VarInt::from_u32(11);
/// A refused greeting has a code from here on.
const REFUSED: u32 = 16;

/// TLS alerts, as they come in QUIC's crypto errors (RFC 9001 section 4.8, RFC 8446 section 6).
const CRYPTO_ERROR: u64 = 0x100;
const BAD_CERTIFICATE: u64 = 0x2a;
const UNSUPPORTED_CERTIFICATE: u64 = 0x2b;
const CERTIFICATE_EXPIRED: u64 = 0x2d;
const UNKNOWN_CA: u64 = 0x30;
const ACCESS_DENIED: u64 = 0x31;
const DECRYPT_ERROR: u64 = 0x33;
const CERTIFICATE_REQUIRED: u64 = 0x74;
const NO_APPLICATION_PROTOCOL: u64 = 0x78;

/// The code of a refused greeting.
pub(super) fn refused(reason: HandshakeRefusal) -> VarInt {
    VarInt::from_u32(REFUSED + reason as u32)
}

/// Whether the other end has closed a connection in good order.
pub(super) fn is_parting(error: &ConnectionError) -> bool {
    let orderly = [SHUTDOWN, REMOVED, PARTED, RENEWED];
    matches!(error, ConnectionError::ApplicationClosed(close) if orderly.contains(&close.error_code))
}

fn reason_of_close(code: VarInt) -> Option<HandshakeRefusal> {
    let index = usize::try_from(code.into_inner().checked_sub(u64::from(REFUSED))?).ok()?;
    HandshakeRefusal::ALL.get(index).copied()
}

fn reason_of_crypto(code: u64) -> HandshakeRefusal {
    match code.wrapping_sub(CRYPTO_ERROR) {
        // A signature that does not fit is an authority's key that is not the one trusted.
        UNKNOWN_CA | DECRYPT_ERROR => HandshakeRefusal::WrongAuthority,
        CERTIFICATE_REQUIRED => HandshakeRefusal::NoCertificate,
        CERTIFICATE_EXPIRED => HandshakeRefusal::Expired,
        BAD_CERTIFICATE | UNSUPPORTED_CERTIFICATE => HandshakeRefusal::WrongName,
        ACCESS_DENIED => HandshakeRefusal::NotMember,
        NO_APPLICATION_PROTOCOL => HandshakeRefusal::WrongVersion,
        _ => HandshakeRefusal::Protocol,
    }
}

/// How a handshake that failed is to be seen from this end.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Failed {
    /// This node refused the other.
    Refused(HandshakeRefusal, String),
    /// The other node refused this one.
    ByPeer(HandshakeRefusal, String),
    /// The other node went away, or nobody was there.
    Gone(String),
    /// The two dialled each other at once, and the other dial is the one that counts.
    Crossed,
}

impl Failed {
    /// What a connection's end during its handshake means.
    pub(super) fn of(error: &ConnectionError) -> Failed {
        let text = error.to_string();
        match error {
            ConnectionError::TransportError(own) => Failed::Refused(reason_of_crypto(own.code.into()), text),
            ConnectionError::ConnectionClosed(theirs) => {
                let code = u64::from(theirs.error_code);
                if (CRYPTO_ERROR..CRYPTO_ERROR + 0x100).contains(&code) {
                    Failed::ByPeer(reason_of_crypto(code), text)
                } else {
                    Failed::Gone(text)
                }
            }
            ConnectionError::ApplicationClosed(theirs) if theirs.error_code == CROSSED => Failed::Crossed,
            ConnectionError::ApplicationClosed(theirs) => match reason_of_close(theirs.error_code) {
                Some(reason) => Failed::ByPeer(reason, text),
                None => Failed::Gone(text),
            },
            ConnectionError::VersionMismatch => Failed::Refused(HandshakeRefusal::WrongVersion, text),
            ConnectionError::CidsExhausted => Failed::Refused(HandshakeRefusal::Overloaded, text),
            ConnectionError::Reset | ConnectionError::TimedOut | ConnectionError::LocallyClosed => Failed::Gone(text),
        }
    }
}
