//! Certificates and keys on disk.
//!
//! Invariants: a private key is readable by its owner only from the moment its file
//! exists; a file that exists is never overwritten except by [`Issued::replace`], and
//! then as a whole; what is read is bounded and checked before it is used.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::sign::CertifiedKey;
use rustls::{CertificateError as Verdict, RootCertStore};

use super::{Authority, Issued, TlsFiles, node_name};
use crate::types::{NodeId, WallTime};

/// The longest file of certificates or keys that is read, in bytes.
const MAX_FILE_BYTES: u64 = 256 * 1024;

/// Certificates could not be made, written or used. What the file system held before is
/// as it was, except that a file written earlier in the same call may remain.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// No certificate could be made of what was given.
    #[error("cannot make a certificate: {0}")]
    Generate(String),
    /// The file is there already.
    #[error(
        "{} exists already and is not overwritten; move it away, or use the certificates that are there",
        path.display()
    )]
    Exists {
        /// Which file.
        path: PathBuf,
    },
    /// The file could not be written.
    #[error("cannot write {}: {source}; check that the directory exists and may be written to", path.display())]
    Write {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file could not be read.
    #[error("cannot read {}: {source}; check the path in the configuration and who may read it", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is not what it should be.
    #[error("{} holds no {expected} in PEM form: {reason}; put the right file there", path.display())]
    Malformed {
        /// Which file.
        path: PathBuf,
        /// What was looked for.
        expected: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// Certificate and key do not belong together.
    #[error(
        "the key in {} does not belong to the certificate in {}; put both files of the same issue there",
        key.display(), certificate.display()
    )]
    KeyMismatch {
        /// The file with the certificate.
        certificate: PathBuf,
        /// The file with the key.
        key: PathBuf,
    },
    /// The own certificate is past its end.
    #[error("the certificate in {} has expired; issue a new one for {name} and put it there", path.display())]
    Expired {
        /// The file with the certificate.
        path: PathBuf,
        /// The name that it must carry.
        name: String,
    },
    /// The own certificate is not good yet.
    #[error("the certificate in {} is not valid yet; check this machine's clock", path.display())]
    NotYetValid {
        /// The file with the certificate.
        path: PathBuf,
    },
    /// The own certificate carries another name.
    #[error("the certificate in {} is not one for {name}; put the certificate of this node there", path.display())]
    WrongName {
        /// The file with the certificate.
        path: PathBuf,
        /// The name that it must carry.
        name: String,
    },
    /// The own certificate would be refused by every peer.
    #[error(
        "the certificate in {} is not accepted under the CA in {}: {reason}; issue it with this cluster's CA",
        certificate.display(), ca.display()
    )]
    NotTrusted {
        /// The file with the certificate.
        certificate: PathBuf,
        /// The file with the authorities.
        ca: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

impl Issued {
    /// Writes key (mode 0600) and certificate to files that must not exist yet.
    ///
    /// # Errors
    /// [`CertificateError::Exists`] or [`CertificateError::Write`]. If the second file
    /// could not be written, the first was removed again.
    pub fn write(&self, certificate: &Path, key: &Path) -> Result<(), CertificateError> {
        if fs::symlink_metadata(certificate).is_ok() {
            return Err(CertificateError::Exists { path: certificate.to_owned() });
        }
        create_private(key, self.key_pem.as_bytes())?;
        create(certificate, self.certificate_pem.as_bytes(), 0o644).inspect_err(|_| {
            // The key was made in this very call and is of no use without its certificate.
            let _ = fs::remove_file(key);
        })
    }

    /// Puts key and certificate in the place of older ones, each file as a whole: what a
    /// rotation does. A running node takes them up by itself.
    ///
    /// # Errors
    /// [`CertificateError::Write`]: each file is either the old or the new one.
    pub fn replace(&self, certificate: &Path, key: &Path) -> Result<(), CertificateError> {
        replace(key, self.key_pem.as_bytes(), 0o600)?;
        replace(certificate, self.certificate_pem.as_bytes(), 0o644)
    }
}

impl Authority {
    /// Writes the authority's key (mode 0600) and certificate to files that must not exist yet.
    ///
    /// # Errors
    /// As [`Issued::write`].
    pub fn write(&self, certificate: &Path, key: &Path) -> Result<(), CertificateError> {
        self.own.write(certificate, key)
    }

    /// Reads an authority that [`Authority::write`] wrote.
    ///
    /// # Errors
    /// [`CertificateError`] if a file cannot be read, or the two do not belong together.
    pub fn load(certificate: &Path, key: &Path) -> Result<Authority, CertificateError> {
        let malformed = |path: &Path, expected, reason: String| CertificateError::Malformed {
            path: path.to_owned(),
            expected,
            reason,
        };
        let text = |path: &Path, expected| {
            String::from_utf8(read_bounded(path)?).map_err(|error| malformed(path, expected, error.to_string()))
        };
        let key_pem = text(key, "private key")?;
        let certificate_pem = text(certificate, "certificate")?;
        let chain = read_certificates(certificate)?;
        let authority = Authority::from_pem(certificate_pem, key_pem)
            .map_err(|error| malformed(key, "private key", error.to_string()))?;
        let key_der = PrivateKeyDer::from_pem_slice(authority.own.key_pem.as_bytes())
            .map_err(|error| malformed(key, "private key", error.to_string()))?;
        certified_key(chain, key_der, &crypto_provider(), certificate, key)?;
        Ok(authority)
    }
}

/// What a node's [`TlsFiles`] hold, checked.
pub struct Identity {
    /// The authorities that are trusted.
    pub roots: Arc<RootCertStore>,
    /// The node's certificates, its own first.
    pub chain: Vec<CertificateDer<'static>>,
    /// The key of the first certificate.
    pub key: PrivateKeyDer<'static>,
}

impl Identity {
    /// Reads the files and checks that this node's peers will accept them at this time.
    ///
    /// # Errors
    /// [`CertificateError`] with the file and the remedy.
    pub fn load(files: &TlsFiles, node: NodeId, now: WallTime) -> Result<Identity, CertificateError> {
        let provider = crypto_provider();
        let mut roots = RootCertStore::empty();
        for certificate in read_certificates(&files.ca)? {
            roots.add(certificate).map_err(|error| CertificateError::Malformed {
                path: files.ca.clone(),
                expected: "CA certificate",
                reason: error.to_string(),
            })?;
        }
        let roots = Arc::new(roots);
        let chain = read_certificates(&files.certificate)?;
        let key = PrivateKeyDer::from_pem_slice(&read_bounded(&files.key)?).map_err(|error| {
            CertificateError::Malformed { path: files.key.clone(), expected: "private key", reason: error.to_string() }
        })?;
        certified_key(chain.clone(), key.clone_key(), &provider, &files.certificate, &files.key)?;
        check_own(files, &roots, &chain, node, now, provider)?;
        Ok(Identity { roots, chain, key })
    }
}

/// The one provider of cryptography; X25519MLKEM768 comes first in it.
pub(crate) fn crypto_provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

fn certified_key(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    provider: &CryptoProvider,
    certificate_path: &Path,
    key_path: &Path,
) -> Result<CertifiedKey, CertificateError> {
    CertifiedKey::from_der(chain, key, provider).map_err(|error| match error {
        rustls::Error::InconsistentKeys(_) => {
            CertificateError::KeyMismatch { certificate: certificate_path.to_owned(), key: key_path.to_owned() }
        }
        rustls::Error::InvalidCertificate(_) => CertificateError::Malformed {
            path: certificate_path.to_owned(),
            expected: "certificate",
            reason: error.to_string(),
        },
        _ => CertificateError::Malformed {
            path: key_path.to_owned(),
            expected: "usable private key",
            reason: error.to_string(),
        },
    })
}

fn check_own(
    files: &TlsFiles,
    roots: &Arc<RootCertStore>,
    chain: &[CertificateDer<'static>],
    node: NodeId,
    now: WallTime,
    provider: Arc<CryptoProvider>,
) -> Result<(), CertificateError> {
    let name = node_name(node);
    let not_trusted = |reason: String| CertificateError::NotTrusted {
        certificate: files.certificate.clone(),
        ca: files.ca.clone(),
        reason,
    };
    let verifier = WebPkiServerVerifier::builder_with_provider(roots.clone(), provider)
        .build()
        .map_err(|error| not_trusted(error.to_string()))?;
    let (own, intermediates) = chain.split_first().expect("reading certificates gives at least one");
    let server_name = ServerName::try_from(name.clone()).expect("a node's name is a DNS name");
    let time = UnixTime::since_unix_epoch(Duration::from_millis(now.0));
    match verifier.verify_server_cert(own, intermediates, &server_name, &[], time) {
        Ok(_) => Ok(()),
        Err(rustls::Error::InvalidCertificate(Verdict::Expired | Verdict::ExpiredContext { .. })) => {
            Err(CertificateError::Expired { path: files.certificate.clone(), name })
        }
        Err(rustls::Error::InvalidCertificate(Verdict::NotValidYet | Verdict::NotValidYetContext { .. })) => {
            Err(CertificateError::NotYetValid { path: files.certificate.clone() })
        }
        Err(rustls::Error::InvalidCertificate(Verdict::NotValidForName | Verdict::NotValidForNameContext { .. })) => {
            Err(CertificateError::WrongName { path: files.certificate.clone(), name })
        }
        Err(error) => Err(not_trusted(error.to_string())),
    }
}

fn read_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, CertificateError> {
    let malformed =
        |reason: String| CertificateError::Malformed { path: path.to_owned(), expected: "certificate", reason };
    let content = read_bounded(path)?;
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(&content)
        .collect::<Result<_, _>>()
        .map_err(|error| malformed(error.to_string()))?;
    if certificates.is_empty() { Err(malformed("no section 'CERTIFICATE' in it".into())) } else { Ok(certificates) }
}

/// The content of a small file.
pub(crate) fn read_bounded(path: &Path) -> Result<Vec<u8>, CertificateError> {
    let failed = |source| CertificateError::Read { path: path.to_owned(), source };
    let mut content = Vec::new();
    File::open(path).map_err(failed)?.take(MAX_FILE_BYTES + 1).read_to_end(&mut content).map_err(failed)?;
    if content.len() as u64 > MAX_FILE_BYTES {
        return Err(failed(io::Error::other(format!("it is longer than {MAX_FILE_BYTES} bytes"))));
    }
    Ok(content)
}

/// Writes a new file that only its owner may read; durable when this returns.
pub(crate) fn create_private(path: &Path, content: &[u8]) -> Result<(), CertificateError> {
    create(path, content, 0o600)
}

/// The file comes to be under its name with all its content, or not at all.
fn create(path: &Path, content: &[u8], mode: u32) -> Result<(), CertificateError> {
    let failed = |source: io::Error| match source.kind() {
        io::ErrorKind::AlreadyExists => CertificateError::Exists { path: path.to_owned() },
        _ => CertificateError::Write { path: path.to_owned(), source },
    };
    let draft = write_draft(path, content, mode).map_err(failed)?;
    // A link, unlike a rename, fails if there is something under the name.
    let linked = fs::hard_link(&draft, path);
    let _ = fs::remove_file(&draft);
    linked.map_err(failed)?;
    sync_directory(path).map_err(failed)
}

fn replace(path: &Path, content: &[u8], mode: u32) -> Result<(), CertificateError> {
    let failed = |source| CertificateError::Write { path: path.to_owned(), source };
    let draft = write_draft(path, content, mode).map_err(failed)?;
    fs::rename(&draft, path).map_err(|source| {
        let _ = fs::remove_file(&draft);
        failed(source)
    })?;
    sync_directory(path).map_err(failed)
}

fn write_draft(path: &Path, content: &[u8], mode: u32) -> io::Result<PathBuf> {
    let mut name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?.to_owned();
    name.push(format!(".draft{}", std::process::id()));
    let draft = path.with_file_name(name);
    // Left by a process of the same number that died here; nobody else uses the name.
    let _ = fs::remove_file(&draft);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&draft)?;
    let written = file.write_all(content).and_then(|()| file.sync_all());
    if let Err(error) = written {
        let _ = fs::remove_file(&draft);
        return Err(error);
    }
    Ok(draft)
}

fn sync_directory(path: &Path) -> io::Result<()> {
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    File::open(directory)?.sync_all()
}
