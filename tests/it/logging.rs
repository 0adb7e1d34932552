//! The log of a real node.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Command;

use dogsled::ambient;
use dogsled::config::logging::{self, LogSettings};
use dogsled::types::NodeId;

use crate::process::cluster::{Cluster, Node, run_to_end, told};

/// The content of every file of a log by its name.
fn files(directory: &Path) -> BTreeMap<String, String> {
    fs::read_dir(directory)
        .expect("the log is there")
        .map(|entry| entry.expect("an entry").path())
        .map(|path| {
            let name = path.file_name().expect("a name").to_string_lossy().into_owned();
            (name, fs::read_to_string(path).expect("text"))
        })
        .collect()
}

/// Runs a node with these variables until it is up, and stops it.
fn run(node: &mut Node, variables: &[(&str, &str)]) {
    node.spawn_with(|command: &mut Command| {
        command.envs(variables.iter().copied());
    });
    node.await_ready();
    assert!(node.terminate().success());
}

#[test]
fn each_thread_has_its_file_unless_the_process_is_to_have_one() {
    let mut cluster = Cluster::create(1);
    let node = &mut cluster.nodes[0];
    let log = node.home.join("log");
    run(node, &[]);
    let found = files(&log);
    assert!(found.contains_key("replica1-main.log"), "{:?}", found.keys());
    assert!(found.keys().all(|name| name.starts_with("replica1-")), "{:?}", found.keys());
    let main = &found["replica1-main.log"];
    assert!(main.contains(" INFO  main dogsled::cli::serve: the node is up node=n1 "), "{main}");
    assert!(main.ends_with(" INFO  main dogsled::cli::serve: stopped\n"), "the last line is there: {main}");
    assert!(!main.contains(" DEBUG "), "{main}");

    fs::remove_dir_all(&log).expect("it was there");
    run(node, &[("PROCESS_LOGGER", "1"), ("SERVER_ID", "17"), ("SERVER_LOG_LEVEL", "all")]);
    let found = files(&log);
    assert_eq!(found.keys().collect::<Vec<_>>(), ["replica17.log"]);
    let text = &found["replica17.log"];
    assert!(text.lines().any(|line| line.contains(" TRACE ")), "all means the libraries too");
    let is_line = |line: &str| line.len() > 24 && line.as_bytes()[10] == b'T' && line.as_bytes()[23] == b'Z';
    assert!(text.lines().all(is_line));

    fs::remove_dir_all(&log).expect("it was there");
    run(node, &[("SERVER_LOG_LEVEL", "Off")]);
    assert!(files(&log).values().all(String::is_empty));
}

#[test]
fn a_wrong_variable_is_named_and_nothing_starts() {
    let cluster = Cluster::create(1);
    let node = &cluster.nodes[0];
    for (name, value, message) in [
        ("SERVER_HOME", "", "SERVER_HOME is not set"),
        ("SERVER_LOG_LEVEL", "LOUD", "SERVER_LOG_LEVEL: 'LOUD' is no level"),
        ("SERVER_ID", "a/b", "SERVER_ID: 'a/b' cannot be part of a file name"),
    ] {
        let mut command = node.command();
        command.env(name, value);
        let refused = run_to_end(command);
        assert_eq!(refused.status.code(), Some(1), "{name}");
        assert!(told(&refused).starts_with(&format!("dogsled: {message}")), "{}", told(&refused));
        assert!(!node.home.join("log").exists() && !node.home.join("data").exists(), "{name}");
    }
}

#[test]
fn what_ends_a_start_is_in_the_log_as_fatal() {
    let cluster = Cluster::create(1);
    let node = &cluster.nodes[0];
    fs::write(node.home.join("cluster.map"), "garbage").expect("a file");
    let refused = run_to_end(node.command());
    assert_eq!(refused.status.code(), Some(1));
    let main = &files(&node.home.join("log"))["replica1-main.log"];
    assert!(main.contains(" FATAL main dogsled::cli::node: ") && main.contains("cluster.map"), "{main}");
}

const CHILD_HOME: &str = "LOGGING_TEST_HOME";

/// Run by the test below in a process of its own, because a panic hook is the whole process's.
#[test]
#[ignore = "the test of panics runs it in a process of its own"]
fn child_that_panics() {
    let Ok(home) = std::env::var(CHILD_HOME) else { return };
    let variable = |name: &str| (name == "SERVER_HOME").then(|| home.clone());
    let node = NodeId::new(5).expect("above zero");
    let settings = LogSettings::from_environment(variable, node, 1).expect("settings");
    let _guard = logging::start(&settings, ambient::now).expect("a log");
    let thread = std::thread::Builder::new().name("committer".into());
    // The guard is not dropped before the process ends: what is in the file is there without it.
    let _ = thread.spawn(|| panic!("a mistake of ours")).expect("a thread").join();
    std::process::abort();
}

#[test]
fn a_panic_is_in_the_log_of_its_thread_even_if_the_process_is_aborted() {
    let home = tempfile::tempdir().expect("a directory");
    let mut command = Command::new(std::env::current_exe().expect("this program"));
    command.args(["--exact", "logging::child_that_panics", "--ignored"]).env(CHILD_HOME, home.path());
    let ended = run_to_end(command);
    assert_eq!(ended.status.signal(), Some(6), "{}", told(&ended));
    let text = &files(&home.path().join("log"))["replica5-committer.log"];
    let fatal = text.lines().find(|line| line.contains(" FATAL committer "));
    let fatal = fatal.unwrap_or_else(|| panic!("no fatal line: {text}"));
    assert!(fatal.contains("panic: a mistake of ours place=tests/it/logging.rs:"), "{fatal}");
}
