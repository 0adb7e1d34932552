use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use super::*;
use crate::config::{Transactions, reference};
use crate::types::NodeId;

struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    /// A folder with everything that a configuration names.
    fn new() -> Place {
        let folder = tempfile::tempdir().expect("a directory");
        for file in ["ca.pem", "n1.pem", "n1.key", "cluster.map"] {
            fs::write(folder.path().join(file), "x").expect("a file");
        }
        let key = folder.path().join("n1.key");
        fs::set_permissions(key, fs::Permissions::from_mode(0o600)).expect("a mode");
        Place { folder }
    }

    fn load(&self, text: &str, environment: &[(&str, &str)], flags: &[&str]) -> Result<NodeConfig, ConfigError> {
        let file = self.folder.path().join("node.toml");
        fs::write(&file, text).expect("a file");
        let environment = environment.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned()));
        load(&file, environment, flags.iter().map(|flag| parse_set(flag).expect("a flag")))
    }

    /// What is said about it, without the folder.
    fn problems(&self, text: &str, environment: &[(&str, &str)], flags: &[&str]) -> Vec<String> {
        let folder = format!("{}/", self.folder.path().display());
        let error = self.load(text, environment, flags).expect_err("refused");
        error.problems.iter().map(|problem| problem.to_string().replace(&folder, "")).collect()
    }
}

const MINIMAL: &str = r#"
[node]
id = "n1"
data_dir = "store"
[tls]
ca = "ca.pem"
certificate = "n1.pem"
key = "n1.key"
[cluster]
map = "cluster.map"
"#;

#[test]
fn a_minimal_file_is_filled_with_defaults() {
    let place = Place::new();
    let config = place.load(MINIMAL, &[], &[]).expect("it is complete");
    assert_eq!(config.node.id, NodeId::new(1).expect("a node"));
    assert_eq!(config.node.data_dir, place.folder.path().join("store"));
    assert_eq!(config.listen.resp.to_string(), "127.0.0.1:7379");
    assert_eq!(config.requests.timeout, Duration::from_millis(500));
    assert_eq!(config.requests.max_value_bytes.get(), 1024 * 1024);
    assert!(!config.clients.allow_flush);
    assert_eq!(config.clients.password, None);
}

#[test]
fn flags_stand_above_variables_above_the_file() {
    let place = Place::new();
    let text = format!("{MINIMAL}\n[requests]\ntimeout_ms = 1\nhedge_after_ms = 2\nmax_clock_skew_ms = 3\n");
    let config = place
        .load(
            &text,
            &[
                ("DOGSLED_REQUESTS_TIMEOUT_MS", "10"),
                ("DOGSLED_REQUESTS_HEDGE_AFTER_MS", "20"),
                ("DOGSLED_CLIENTS_ALLOW_FLUSH", "true"),
                ("DOGSLED_CLIENTS_TRANSACTIONS", "pipeline"),
                ("DOGSLED_NODE_DATA_DIR", "elsewhere"),
                ("DOGSLED_SERVER", "http://127.0.0.1:1"),
                ("OTHER_NODE_ID", "n9"),
            ],
            &["requests.timeout_ms=100"],
        )
        .expect("all is well");
    assert_eq!(config.requests.timeout, Duration::from_millis(100));
    assert_eq!(config.requests.hedge_after, Duration::from_millis(20));
    assert_eq!(config.requests.max_clock_skew, Duration::from_millis(3));
    assert!(config.clients.allow_flush);
    assert_eq!(config.clients.transactions, Transactions::Pipeline);
    assert_eq!(config.node.data_dir, Path::new("elsewhere"), "a variable's path begins where the user stands");
}

#[test]
fn every_problem_is_told_at_once_with_its_place_and_remedy() {
    let place = Place::new();
    let text = r#"
[node]
id = 7
data_dirr = "store"
[tls]
ca = "missing.pem"
certificate = "n1.pem"
key = "n1.key"
[cluster]
map = "cluster.map"
[request]
timeout_ms = 5
[requests]
timeout_ms = "soon"
"#;
    let problems = place.problems(
        text,
        &[("DOGSLED_STORAGE_CACHE", "1"), ("DOGSLED_STORAGE_CACHE_BYTES", "lots")],
        &["listen.resp=here", "nowhere=1"],
    );
    assert_eq!(
        problems,
        [
            "node.toml: node.data_dirr: unknown key; did you mean 'data_dir'? Else take it out",
            "node.toml: request: unknown section; did you mean 'requests'? Else take it out",
            "DOGSLED_STORAGE_CACHE: storage.cache: unknown key; take it out; known are cache_bytes",
            "--set nowhere: nowhere: unknown key; take it out; known are node, listen, tls, cluster, requests, sync, gossip, storage, clients, log",
            "node.toml: node.id: 7 is not the name of a node, as in \"n1\"; give the name of a node, as in \"n1\"",
            "node.toml: node.data_dir: missing; it must be a path (relative ones begin at the folder of the configuration file); set data_dir under [node], or DOGSLED_NODE_DATA_DIR",
            "--set listen.resp: listen.resp: \"here\" is not an address and a port, as in \"127.0.0.1:7379\" or \"[::1]:7379\"; give an address and a port, as in \"127.0.0.1:7379\" or \"[::1]:7379\"",
            "node.toml: requests.timeout_ms: \"soon\" is not a whole number of milliseconds; give a whole number of milliseconds",
            "DOGSLED_STORAGE_CACHE_BYTES: storage.cache_bytes: \"lots\" is not a whole number above zero; give a whole number above zero",
        ]
    );
}

#[test]
fn what_cannot_be_lived_by_is_told_at_once() {
    let place = Place::new();
    fs::remove_file(place.folder.path().join("cluster.map")).expect("it was there");
    let key = place.folder.path().join("n1.key");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).expect("a mode");
    let problems = place.problems(
        MINIMAL,
        &[("DOGSLED_REQUESTS_MAX_VALUE_BYTES", "99999999"), ("DOGSLED_LISTEN_HTTP", "0.0.0.0:8379")],
        &["requests.timeout_ms=0", "storage.cache_bytes=5", "log.keep_days=9999"],
    );
    assert_eq!(
        problems,
        [
            "--set requests.timeout_ms: requests.timeout_ms: 0 ms is not from 1 to 600000 ms; choose a number in that range",
            "DOGSLED_REQUESTS_MAX_VALUE_BYTES: requests.max_value_bytes: 99999999 is not from 1 to 16777216; choose a number in that range",
            "--set storage.cache_bytes: storage.cache_bytes: 5 is not from 1048576 to 1099511627776; choose a number in that range",
            "--set log.keep_days: log.keep_days: 9999 is not from 1 to 3650; choose a number in that range",
            "DOGSLED_LISTEN_HTTP: listen.http: 0.0.0.0:8379 is open to other machines, and no password is set; bind it to 127.0.0.1, or set clients.password (better: DOGSLED_CLIENTS_PASSWORD)",
            "node.toml: cluster.map: cluster.map: No such file or directory (os error 2); copy the one that `dogsled cluster create` made for this node",
            "node.toml: tls.key: n1.key: others may read it (mode 0644); chmod 600 n1.key",
        ]
    );
}

#[test]
fn a_password_opens_the_ports_and_is_never_shown() {
    let place = Place::new();
    let config = place
        .load(MINIMAL, &[("DOGSLED_CLIENTS_PASSWORD", "hunter2"), ("DOGSLED_LISTEN_RESP", "0.0.0.0:7379")], &[])
        .expect("a password is set");
    assert!(!format!("{config:?}").contains("hunter2"));
}

#[test]
fn a_file_that_is_none_is_told_with_its_line() {
    let place = Place::new();
    let problems = place.problems("[node]\nid = \n", &[], &[]);
    assert_eq!(problems.len(), 1);
    assert!(problems[0].starts_with("node.toml: line 2 is not TOML: "), "{}", problems[0]);
    let missing = load(Path::new("no/such.toml"), [], []).expect_err("no file").to_string();
    assert_eq!(
        missing,
        "no/such.toml: cannot be read: No such file or directory (os error 2); name a readable file with --config"
    );
    let long = "#".repeat(2 * 1024 * 1024);
    assert!(place.problems(&long, &[], &[])[0].contains("longer than 1048576 bytes"));
    let nested = format!("x = {}", "[".repeat(100_000));
    assert_eq!(place.problems(&nested, &[], &[]).len(), 1);
    assert_eq!(place.problems("node = 3\n", &[], &[]).iter().filter(|text| text.contains("[node]")).count(), 3);
}

#[test]
fn every_key_has_a_type_a_text_and_a_unit_where_it_needs_one() {
    for section in reference() {
        assert!(!section.doc.is_empty());
        for field in section.fields {
            assert!(field.doc.len() > 40, "{}.{} is not explained", section.name, field.key);
            assert_eq!(
                field.key.ends_with("_ms"),
                field.expected.contains("milliseconds"),
                "{}.{}: units stand last in names",
                section.name,
                field.key
            );
        }
    }
}
