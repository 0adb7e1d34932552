//! TLS 1.3 between nodes: both ends show a certificate, and both look at the name in it.
//!
//! Invariants: the dialler accepts only the node that it dialled; the acceptor accepts
//! only a node that is a member now, and decides so inside the handshake, before any
//! state is kept; nothing is resumed, so that every connection is decided afresh (a
//! resumed session would skip the certificate check), and nothing is sent early.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;

use arc_swap::ArcSwap;
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{CertificateError as Verdict, DigitallySignedStruct, DistinguishedName, SignatureScheme};

use super::options::QuicSettings;
use super::slot::Slot;
use crate::ambient;
use crate::transport::certificates::{CertificateError, Identity, TlsFiles, crypto_provider, node_of_name};
use crate::types::NodeId;

/// What is agreed on instead of "h3" and the like.
const ALPN: &[u8] = b"dogsled/1";

/// The peers by id: the members that this node talks to.
pub(super) type Peers = ArcSwap<BTreeMap<NodeId, Arc<Slot>>>;

/// Both configurations, from one reading of the files.
pub(super) struct TlsConfigs {
    /// For dialling.
    pub client: quinn::ClientConfig,
    /// For accepting.
    pub server: quinn::ServerConfig,
}

impl TlsConfigs {
    pub(super) fn load(
        files: &TlsFiles,
        node: NodeId,
        settings: &QuicSettings,
        peers: &Arc<Peers>,
    ) -> Result<TlsConfigs, CertificateError> {
        let identity = Identity::load(files, node, ambient::wall())?;
        let provider = crypto_provider();
        let unusable = |reason: String| CertificateError::NotTrusted {
            certificate: files.certificate.clone(),
            ca: files.ca.clone(),
            reason,
        };
        let client = client_config(&identity, &provider, settings).map_err(unusable)?;
        let server = server_config(&identity, &provider, settings, peers.clone()).map_err(unusable)?;
        Ok(TlsConfigs { client, server })
    }
}

fn client_config(
    identity: &Identity,
    provider: &Arc<CryptoProvider>,
    settings: &QuicSettings,
) -> Result<quinn::ClientConfig, String> {
    let verifier = WebPkiServerVerifier::builder_with_provider(identity.roots.clone(), provider.clone())
        .build()
        .map_err(|error| error.to_string())?;
    let mut tls = rustls::ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| error.to_string())?
        .with_webpki_verifier(verifier)
        .with_client_auth_cert(identity.chain.clone(), identity.key.clone_key())
        .map_err(|error| error.to_string())?;
    tls.alpn_protocols = vec![ALPN.to_vec()];
    tls.enable_early_data = false;
    tls.resumption = Resumption::disabled();
    let crypto = QuicClientConfig::try_from(tls).map_err(|error| error.to_string())?;
    let mut config = quinn::ClientConfig::new(Arc::new(crypto));
    config.transport_config(Arc::new(settings.transport(0)));
    Ok(config)
}

fn server_config(
    identity: &Identity,
    provider: &Arc<CryptoProvider>,
    settings: &QuicSettings,
    peers: Arc<Peers>,
) -> Result<quinn::ServerConfig, String> {
    let authorities = WebPkiClientVerifier::builder_with_provider(identity.roots.clone(), provider.clone())
        .build()
        .map_err(|error| error.to_string())?;
    let mut tls = rustls::ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| error.to_string())?
        .with_client_cert_verifier(Arc::new(MemberVerifier { authorities, peers }))
        .with_single_cert(identity.chain.clone(), identity.key.clone_key())
        .map_err(|error| error.to_string())?;
    tls.alpn_protocols = vec![ALPN.to_vec()];
    tls.max_early_data_size = 0;
    tls.send_tls13_tickets = 0;
    tls.session_storage = Arc::new(NoServerSessionStorage {});
    let crypto = QuicServerConfig::try_from(tls).map_err(|error| error.to_string())?;
    let mut config = quinn::ServerConfig::with_crypto(Arc::new(crypto));
    config
        .transport_config(Arc::new(settings.transport(1)))
        .migration(false)
        .max_incoming(settings.max_handshakes)
        .incoming_buffer_size(64 * 1024)
        .incoming_buffer_size_total(4 * 1024 * 1024);
    Ok(config)
}

/// The node that a certificate names, if it names one and nothing else.
pub(super) fn node_of_certificate(certificate: &CertificateDer<'_>) -> Option<NodeId> {
    let certificate = webpki::EndEntityCert::try_from(certificate).ok()?;
    let mut names = certificate.valid_dns_names();
    match (names.next(), names.next()) {
        (Some(name), None) => node_of_name(name),
        _ => None,
    }
}

/// Accepts members of the cluster: chain and validity first, then name and membership.
struct MemberVerifier {
    authorities: Arc<dyn ClientCertVerifier>,
    peers: Arc<Peers>,
}

impl fmt::Debug for MemberVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemberVerifier").field("authorities", &self.authorities).finish_non_exhaustive()
    }
}

impl ClientCertVerifier for MemberVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        // Strangers need not learn whom this node trusts.
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let verified = self.authorities.verify_client_cert(end_entity, intermediates, now)?;
        let node = node_of_certificate(end_entity).ok_or(Verdict::NotValidForName)?;
        if self.peers.load().contains_key(&node) {
            Ok(verified)
        } else {
            Err(Verdict::ApplicationVerificationFailure.into())
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        self.authorities.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        self.authorities.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.authorities.supported_verify_schemes()
    }
}

/// What changes when a certificate file is written or replaced.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Fingerprint([Option<(u64, i64, i64, u64)>; 3]);

impl Fingerprint {
    pub(super) fn of(files: &TlsFiles) -> Fingerprint {
        Fingerprint([&files.ca, &files.certificate, &files.key].map(|path| {
            let data = fs::metadata(path).ok()?;
            Some((data.ino(), data.mtime(), data.mtime_nsec(), data.len()))
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_post_quantum_exchange_is_preferred_and_the_old_protocol_absent() {
        let provider = crypto_provider();
        assert_eq!(provider.kx_groups[0].name(), rustls::NamedGroup::X25519MLKEM768);
        assert!(provider.cipher_suites.iter().any(|suite| suite.tls13().is_some()));
    }
}
