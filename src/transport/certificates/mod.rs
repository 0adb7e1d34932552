//! The cluster's certificate authority and what it signs.
//!
//! Problem: both ends of a connection must know which node, of which cluster, is at the
//! other end. Invariant: the role is in the name. A node's certificate carries exactly
//! the DNS name `n7.node.dogsled`, a client's `alice.client.dogsled`; what checks one
//! role never accepts a name of another, so a client's certificate opens no node port.
//! Source: DESIGN section 10; RFC 5280 sections 4.2.1.6 and 4.2.1.12.
//!
//! Keys are ECDSA P-256. The authority's subject is derived from its public key, so
//! that authorities of different clusters never share a name and a foreign certificate
//! is reported as one of an unknown authority.

mod files;

use std::path::PathBuf;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use time::OffsetDateTime;

use crate::types::{NodeId, WallTime};

pub use files::{CertificateError, Identity};
pub(crate) use files::{create_private, crypto_provider, read_bounded};

const NODE_SUFFIX: &str = ".node.dogsled";
const CLIENT_SUFFIX: &str = ".client.dogsled";

/// The name in a node's certificate.
pub fn node_name(node: NodeId) -> String {
    format!("{node}{NODE_SUFFIX}")
}

/// The node that a certificate's name stands for; none for any other role or spelling.
pub fn node_of_name(name: &str) -> Option<NodeId> {
    let node: NodeId = name.strip_suffix(NODE_SUFFIX)?.parse().ok()?;
    (node_name(node) == name).then_some(node)
}

/// The name in a client's certificate.
pub fn client_name(client: &str) -> String {
    format!("{client}{CLIENT_SUFFIX}")
}

/// The three files that a node proves its identity with.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TlsFiles {
    /// Certificates of the authorities that are trusted, PEM.
    pub ca: PathBuf,
    /// The node's certificate, followed by intermediate ones if there are any, PEM.
    pub certificate: PathBuf,
    /// The key of the node's certificate, PEM (PKCS #8).
    pub key: PathBuf,
}

/// From when until when a certificate is good.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Validity {
    /// Not before.
    pub from: WallTime,
    /// Not after.
    pub until: WallTime,
}

impl Validity {
    /// From an hour before `now`, so that clocks may differ, for so many days.
    pub fn days(now: WallTime, days: u64) -> Validity {
        let hour_ms = 3_600_000;
        let until = now.0.saturating_add(days.saturating_mul(24 * hour_ms));
        Validity { from: WallTime(now.0.saturating_sub(hour_ms)), until: WallTime(until) }
    }

    fn write_to(self, params: &mut CertificateParams) -> Result<(), CertificateError> {
        let date = |wall: WallTime| {
            OffsetDateTime::from_unix_timestamp(i64::try_from(wall.0 / 1000).unwrap_or(i64::MAX))
                .map_err(|error| CertificateError::Generate(format!("the validity has no date: {error}")))
        };
        params.not_before = date(self.from)?;
        params.not_after = date(self.until)?;
        Ok(())
    }
}

/// A certificate and its key, not yet written anywhere.
pub struct Issued {
    certificate_pem: String,
    key_pem: String,
}

impl Issued {
    /// The certificate, PEM.
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// The private key, PEM.
    pub fn key_pem(&self) -> &str {
        &self.key_pem
    }
}

/// A cluster's certificate authority with its private key.
pub struct Authority {
    own: Issued,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// A new authority with a key of its own.
    ///
    /// # Errors
    /// [`CertificateError::Generate`]; nothing was written.
    pub fn create(validity: Validity) -> Result<Authority, CertificateError> {
        let key = generate_key()?;
        let mut params = authority_params(&key);
        validity.write_to(&mut params)?;
        let certificate_pem = params.self_signed(&key).map_err(generate)?.pem();
        Ok(Authority {
            own: Issued { certificate_pem, key_pem: key.serialize_pem() },
            issuer: Issuer::new(params, key),
        })
    }

    /// The authority in these two texts, as [`Authority::write`] wrote them.
    fn from_pem(certificate_pem: String, key_pem: String) -> Result<Authority, rcgen::Error> {
        let key = KeyPair::from_pem(&key_pem)?;
        // The subject follows from the key, so nothing has to be parsed out of the certificate.
        let params = authority_params(&key);
        Ok(Authority { own: Issued { certificate_pem, key_pem }, issuer: Issuer::new(params, key) })
    }

    /// Its certificate, PEM: what the members of the cluster trust.
    pub fn certificate_pem(&self) -> &str {
        &self.own.certificate_pem
    }

    /// A certificate for a node, good at both ends of a connection between nodes.
    ///
    /// # Errors
    /// [`CertificateError::Generate`]; nothing was written.
    pub fn issue_node(&self, node: NodeId, validity: Validity) -> Result<Issued, CertificateError> {
        let usages = [ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        self.issue(node_name(node), &usages, validity)
    }

    /// A certificate for a client; nodes do not take it for one of theirs.
    ///
    /// # Errors
    /// [`CertificateError::Generate`] if the name cannot stand in a certificate; nothing
    /// was written.
    pub fn issue_client(&self, client: &str, validity: Validity) -> Result<Issued, CertificateError> {
        self.issue(client_name(client), &[ExtendedKeyUsagePurpose::ClientAuth], validity)
    }

    fn issue(
        &self,
        name: String,
        usages: &[ExtendedKeyUsagePurpose],
        validity: Validity,
    ) -> Result<Issued, CertificateError> {
        let key = generate_key()?;
        let mut params = CertificateParams::new([name.clone()]).map_err(generate)?;
        params.distinguished_name = subject(&name);
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = usages.to_vec();
        params.use_authority_key_identifier_extension = true;
        validity.write_to(&mut params)?;
        let certificate_pem = params.signed_by(&key, &self.issuer).map_err(generate)?.pem();
        Ok(Issued { certificate_pem, key_pem: key.serialize_pem() })
    }
}

fn authority_params(key: &KeyPair) -> CertificateParams {
    let mut params = CertificateParams::default();
    let fingerprint: String = params.key_identifier(key).iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    params.distinguished_name = subject(&format!("Dogsled cluster CA {fingerprint}"));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn subject(common_name: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::OrganizationName, "Dogsled");
    name.push(DnType::CommonName, common_name);
    name
}

fn generate_key() -> Result<KeyPair, CertificateError> {
    KeyPair::generate().map_err(generate)
}

fn generate(error: rcgen::Error) -> CertificateError {
    CertificateError::Generate(error.to_string())
}

#[cfg(test)]
#[path = "certificates_tests.rs"]
mod tests;
