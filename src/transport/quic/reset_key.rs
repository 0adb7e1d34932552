//! The key that outlives a process, so that its successor can end its connections.
//!
//! Problem: a restarted node gets packets of connections that it knows nothing of. With
//! the same keys for resets and for connection ids as before it can answer each with a
//! stateless reset that the peer believes, in 0.2 ms; otherwise the peer waits for the
//! idle timeout (EVIDENCE, QUIC; RFC 9000 section 10.3).

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::hmac;
use quinn::EndpointConfig;
use quinn_proto::HashedConnectionIdGenerator;

use crate::ambient;
use crate::transport::certificates::{CertificateError, create_private, read_bounded};

const KEY_BYTES: usize = 64;

/// The persisted key.
pub(super) struct ResetKey([u8; KEY_BYTES]);

impl ResetKey {
    /// The key in this file, or a new one, written there and synced.
    pub(super) fn load_or_create(path: &Path) -> Result<ResetKey, CertificateError> {
        match read_bounded(path) {
            Ok(content) => {
                <[u8; KEY_BYTES]>::try_from(content.as_slice()).map(ResetKey).map_err(|_| CertificateError::Malformed {
                    path: path.to_owned(),
                    expected: "stateless-reset key of 64 bytes",
                    reason: format!("it has {} bytes; remove it and a new one is made", content.len()),
                })
            }
            Err(CertificateError::Read { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
                let key: [u8; KEY_BYTES] = ambient::seed();
                create_private(path, &key)?;
                Ok(ResetKey(key))
            }
            Err(error) => Err(error),
        }
    }

    /// The configuration of an endpoint that uses it.
    pub(super) fn endpoint_config(&self) -> EndpointConfig {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &self.0);
        // Connection ids are recognised by a key of their own, which says nothing of this one.
        let tag = hmac::sign(&key, b"dogsled connection ids");
        let id_key = u64::from_le_bytes(tag.as_ref()[..8].try_into().expect("a tag has 32 bytes"));
        let mut config = EndpointConfig::new(Arc::new(key));
        config.cid_generator(move || Box::new(HashedConnectionIdGenerator::from_key(id_key)));
        // One restarted node answers all its peers at once; the default of 20 ms would make them queue.
        config.min_reset_interval(Duration::from_millis(1));
        config
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_key_stays_the_same_and_secret() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("reset.key");
        let first = ResetKey::load_or_create(&path).expect("a key");
        let again = ResetKey::load_or_create(&path).expect("a key");
        assert_eq!(first.0, again.0);
        assert_eq!(std::fs::metadata(&path).expect("a file").permissions().mode() & 0o777, 0o600);
        let other = ResetKey::load_or_create(&directory.path().join("other.key")).expect("a key");
        assert_ne!(first.0, other.0);
    }

    #[test]
    fn a_file_that_is_no_key_is_named() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("reset.key");
        std::fs::write(&path, "short").expect("a file");
        let error = ResetKey::load_or_create(&path).err().expect("an error").to_string();
        assert!(error.contains("reset.key") && error.contains("remove it"), "{error}");
    }
}
