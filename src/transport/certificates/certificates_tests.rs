use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use tempfile::TempDir;

use super::*;
use crate::ambient;

fn node(number: u32) -> NodeId {
    NodeId::new(number).expect("not zero")
}

fn month() -> Validity {
    Validity::days(ambient::wall(), 30)
}

struct Directory(TempDir);

impl Directory {
    fn new() -> Directory {
        Directory(tempfile::tempdir().expect("a temporary directory"))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// The files of n7 under an authority, all good.
    fn files(&self) -> (Authority, TlsFiles) {
        let authority = Authority::create(month()).expect("an authority");
        let files = TlsFiles { ca: self.path("ca.pem"), certificate: self.path("n7.pem"), key: self.path("n7.key") };
        authority.write(&files.ca, &self.path("ca.key")).expect("files");
        authority.issue_node(node(7), month()).expect("issued").write(&files.certificate, &files.key).expect("files");
        (authority, files)
    }
}

fn load(files: &TlsFiles) -> Result<Identity, CertificateError> {
    Identity::load(files, node(7), ambient::wall())
}

/// The error says which file, and what to do.
fn assert_error(result: Result<Identity, CertificateError>, file: &Path, remedy: &str) {
    let text = result.err().expect("an error").to_string();
    assert!(text.contains(&file.display().to_string()) && text.contains(remedy), "{text}");
}

#[test]
fn names_of_nodes_are_told_from_all_others() {
    assert_eq!(node_name(node(7)), "n7.node.dogsled");
    assert_eq!(node_of_name("n7.node.dogsled"), Some(node(7)));
    let others = [
        "7.node.dogsled",
        "n07.node.dogsled",
        "n0.node.dogsled",
        "N7.node.dogsled",
        "n7.client.dogsled",
        "alice.client.dogsled",
        "n7.node.dogsled.example",
        "n7.node.dogsled.",
        "x.n7.node.dogsled",
        ".node.dogsled",
        "n7",
        "",
        "*.node.dogsled",
    ];
    for other in others {
        assert_eq!(node_of_name(other), None, "{other}");
    }
    assert_eq!(node_of_name(&client_name("n7")), None);
}

#[test]
fn what_was_written_is_accepted() {
    let directory = Directory::new();
    let (_, files) = directory.files();
    let identity = load(&files).expect("good files");
    assert_eq!((identity.chain.len(), identity.roots.len()), (1, 1));
}

#[test]
fn private_keys_are_for_their_owner_only() {
    let directory = Directory::new();
    let (authority, files) = directory.files();
    let mode = |path: &Path| fs::metadata(path).expect("a file").permissions().mode() & 0o777;
    assert_eq!((mode(&files.key), mode(&directory.path("ca.key"))), (0o600, 0o600));
    let issued = authority.issue_node(node(7), month()).expect("issued");
    issued.replace(&files.certificate, &files.key).expect("files");
    assert_eq!(mode(&files.key), 0o600);
    assert_eq!(fs::read_to_string(&files.key).expect("a key"), issued.key_pem());
    load(&files).expect("good files");
    let left: Vec<_> = fs::read_dir(directory.0.path()).expect("a directory").collect();
    assert_eq!(left.len(), 4, "drafts were left behind: {left:?}");
}

#[test]
fn nothing_that_exists_is_overwritten() {
    let directory = Directory::new();
    let (authority, files) = directory.files();
    let before = [&files.certificate, &files.key].map(|path| fs::read(path).expect("a file"));
    let issued = authority.issue_node(node(7), month()).expect("issued");
    for (certificate, key) in [
        (files.certificate.clone(), files.key.clone()),
        (directory.path("new.pem"), files.key.clone()),
        (files.certificate.clone(), directory.path("new.key")),
    ] {
        let error = issued.write(&certificate, &key).expect_err("a file is there");
        assert!(matches!(error, CertificateError::Exists { .. }), "{error}");
    }
    assert_eq!([&files.certificate, &files.key].map(|path| fs::read(path).expect("a file")), before);
    assert!(!directory.path("new.pem").exists() && !directory.path("new.key").exists(), "half written");
}

#[test]
fn an_authority_that_was_written_signs_again() {
    let directory = Directory::new();
    let (_, files) = directory.files();
    let authority = Authority::load(&files.ca, &directory.path("ca.key")).expect("an authority");
    let later = TlsFiles { certificate: directory.path("l.pem"), key: directory.path("l.key"), ..files.clone() };
    let issued = authority.issue_node(node(7), month()).expect("issued");
    issued.write(&later.certificate, &later.key).expect("files");
    load(&later).expect("signed by the same authority");
    let mismatch = Authority::load(&files.ca, &files.key).err().expect("not its key");
    assert!(matches!(mismatch, CertificateError::KeyMismatch { .. }), "{mismatch}");
}

#[test]
fn files_that_cannot_be_used_are_named_with_the_remedy() {
    let directory = Directory::new();
    let (authority, files) = directory.files();
    let with = |name: &str, content: &str| {
        let path = directory.path(name);
        fs::write(&path, content).expect("a file");
        path
    };
    let missing = directory.path("missing.pem");
    assert_error(load(&TlsFiles { ca: missing.clone(), ..files.clone() }), &missing, "check the path");
    let garbage = with("garbage.pem", "not PEM at all");
    assert_error(load(&TlsFiles { ca: garbage.clone(), ..files.clone() }), &garbage, "put the right file");
    assert_error(load(&TlsFiles { certificate: garbage.clone(), ..files.clone() }), &garbage, "put the right file");
    assert_error(load(&TlsFiles { key: garbage.clone(), ..files.clone() }), &garbage, "put the right file");
    let broken = with("broken.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    assert_error(load(&TlsFiles { certificate: broken.clone(), ..files.clone() }), &broken, "put the right file");
    let long = with("long.pem", &"x".repeat(300_000));
    assert_error(load(&TlsFiles { ca: long.clone(), ..files.clone() }), &long, "longer than");
    let other = authority.issue_node(node(7), month()).expect("issued");
    let key = with("other.key", other.key_pem());
    assert_error(load(&TlsFiles { key: key.clone(), ..files.clone() }), &key, "of the same issue");
}

#[test]
fn an_own_certificate_that_peers_would_refuse_is_an_error_at_once() {
    let directory = Directory::new();
    let (authority, files) = directory.files();
    let with = |name: &str, issued: Issued| {
        let own = TlsFiles {
            certificate: directory.path(name),
            key: directory.path(&format!("{name}.key")),
            ..files.clone()
        };
        issued.write(&own.certificate, &own.key).expect("files");
        own
    };
    let now = ambient::wall();
    let past = Validity { from: WallTime(now.0 - 20_000), until: WallTime(now.0 - 10_000) };
    let old = with("old.pem", authority.issue_node(node(7), past).expect("issued"));
    assert_error(load(&old), &old.certificate, "issue a new one for n7.node.dogsled");
    let future = Validity { from: WallTime(now.0 + 3_600_000), until: WallTime(now.0 + 7_200_000) };
    let early = with("early.pem", authority.issue_node(node(7), future).expect("issued"));
    assert_error(load(&early), &early.certificate, "check this machine's clock");
    let other = with("n8.pem", authority.issue_node(node(8), month()).expect("issued"));
    assert_error(load(&other), &other.certificate, "put the certificate of this node");
    let foreign = Authority::create(month()).expect("an authority");
    let stranger = with("stranger.pem", foreign.issue_node(node(7), month()).expect("issued"));
    assert_error(load(&stranger), &stranger.certificate, "issue it with this cluster's CA");
    let client = with("client.pem", authority.issue_client("n7", month()).expect("issued"));
    assert!(load(&client).is_err(), "a client's certificate was taken for a node's");
}
