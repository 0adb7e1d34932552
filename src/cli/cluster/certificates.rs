//! The certificates of a new cluster: those that are there and good are kept.

use std::path::Path;

use super::files::cannot_write;
use super::undo::Undo;
use crate::ambient;
use crate::transport::certificates::{Authority, Identity, TlsFiles, Validity};
use crate::types::NodeId;

/// How long the authority of a cluster is good, in days.
const AUTHORITY_DAYS: u64 = 3650;
/// How long the certificate of a node is good, in days.
const NODE_DAYS: u64 = 825;

/// Where the files of a node's identity are, below the directory of the certificates.
pub(super) fn tls_files(certs: &Path, node: NodeId) -> TlsFiles {
    TlsFiles {
        ca: certs.join("ca.pem"),
        certificate: certs.join(format!("{node}.pem")),
        key: certs.join(format!("{node}.key")),
    }
}

/// Makes the authority and a certificate for each node, as far as they are missing: a
/// cluster whose data was removed keeps its authority.
pub(super) fn create(certs: &Path, nodes: impl Iterator<Item = NodeId>, undo: &mut Undo) -> anyhow::Result<()> {
    undo.create_dir_all(certs).map_err(|error| cannot_write(certs, &error))?;
    let now = ambient::wall();
    let (ca, ca_key) = (certs.join("ca.pem"), certs.join("ca.key"));
    let authority = if ca.exists() {
        Authority::load(&ca, &ca_key)?
    } else {
        let authority = Authority::create(Validity::days(now, AUTHORITY_DAYS))?;
        undo.note(&ca);
        undo.note(&ca_key);
        authority.write(&ca, &ca_key)?;
        authority
    };
    for node in nodes {
        let files = tls_files(certs, node);
        if Identity::load(&files, node, now).is_ok() {
            continue;
        }
        let issued = authority.issue_node(node, Validity::days(now, NODE_DAYS))?;
        undo.note(&files.certificate);
        undo.note(&files.key);
        issued.replace(&files.certificate, &files.key)?;
    }
    Ok(())
}
