//! `dogsled up` and `dogsled down`, as a user has them.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::{TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use crate::process::cluster::{dogsled, free_ports, run_to_end, told};

/// A directory to be in, and ports to use. Dropped, it stops what runs there.
struct Place {
    folder: TempDir,
    ports: (u16, u16, u16),
}

impl Place {
    fn new() -> Place {
        Place { folder: tempfile::tempdir().expect("a temporary directory"), ports: free_ports(3) }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = dogsled();
        command.current_dir(self.folder.path()).args(arguments);
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        run_to_end(self.command(arguments))
    }

    fn up(&self, arguments: &[&str]) -> Command {
        let (resp, http, peer) = self.ports;
        let mut command = self.command(&["up", "--partitions", "16"]);
        command.args(["--resp-port", &resp.to_string(), "--http-port", &http.to_string()]);
        command.args(["--peer-port", &peer.to_string()]).args(arguments);
        command
    }

    /// The running cluster, as `up --detach -o json` tells it.
    fn start(&self) -> Value {
        let output = run_to_end(self.up(&["--detach", "-o", "json"]));
        assert_eq!(output.status.code(), Some(0), "{}", told(&output));
        serde_json::from_slice(&output.stdout).expect("JSON")
    }

    /// A command that asks the first node.
    fn ask(&self, arguments: &[&str]) -> Output {
        let mut command = self.command(arguments);
        command.env("DOGSLED_SERVER", format!("http://127.0.0.1:{}", self.ports.1));
        run_to_end(command)
    }

    fn path(&self, path: &str) -> PathBuf {
        self.folder.path().join(path)
    }

    /// Every path below the place.
    fn everything(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        let mut open = vec![self.folder.path().to_owned()];
        while let Some(folder) = open.pop() {
            for entry in fs::read_dir(folder).expect("a folder").flatten() {
                if entry.path().is_dir() {
                    open.push(entry.path());
                }
                found.push(entry.path());
            }
        }
        found.sort();
        found
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.path("data/local").is_dir() {
            self.run(&["down"]);
        }
    }
}

fn pids(cluster: &Value) -> Vec<u32> {
    let nodes = cluster["nodes"].as_array().expect("nodes");
    nodes.iter().map(|node| node["pid"].as_u64().expect("a pid").try_into().expect("a pid")).collect()
}

fn runs(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with('Z'))
}

fn signal(pid: u32, signal: Signal) {
    let pid = Pid::from_raw(pid.try_into().expect("a pid")).expect("above zero");
    kill_process(pid, signal).expect("the process takes a signal");
}

/// Nothing holds the ports of a place.
fn assert_free(place: &Place) {
    let (resp, http, peer) = place.ports;
    for index in 0..3 {
        TcpListener::bind(("127.0.0.1", resp + index)).expect("the RESP port is free");
        TcpListener::bind(("127.0.0.1", http + index)).expect("the HTTP port is free");
        UdpSocket::bind(("127.0.0.1", peer + index)).expect("the QUIC port is free");
    }
}

#[test]
fn a_cluster_comes_from_nothing_goes_and_comes_again_with_its_data() {
    let place = Place::new();
    let first = place.start();
    assert_eq!(first["nodes"].as_array().map(Vec::len), Some(3));
    assert_eq!(first["try"].as_array().map(Vec::len), Some(3));
    for key in ["ca.key", "n1.key", "n2.key", "n3.key"] {
        use std::os::unix::fs::PermissionsExt;
        let mode = fs::metadata(place.path("certs/local").join(key)).expect("a key").permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{key}");
    }
    assert_eq!(place.ask(&["put", "hello", "world"]).status.code(), Some(0));

    let again = place.run(&["up"]);
    assert_eq!(again.status.code(), Some(1));
    assert!(told(&again).contains("running already (n1, n2, n3)"), "{}", told(&again));
    assert!(pids(&first).into_iter().all(runs), "the refused start did no harm");

    let down = place.run(&["down"]);
    assert_eq!(told(&down), "n3 stopped\nn2 stopped\nn1 stopped\n");
    assert!(!pids(&first).into_iter().any(runs));
    assert_free(&place);
    let nothing = place.run(&["down"]);
    assert_eq!((nothing.status.code(), told(&nothing).as_str()), (Some(0), "no cluster is running in data/local\n"));

    let empty: Value = serde_json::from_slice(&place.run(&["down", "-o", "json"]).stdout).expect("JSON");
    assert_eq!(empty["nodes"], Value::Array(Vec::new()));

    let second = place.start();
    assert_ne!(pids(&first), pids(&second));
    let read = place.ask(&["get", "hello"]);
    assert_eq!(read.stdout, b"world", "{}", told(&read));
}

#[test]
fn a_cluster_is_made_with_the_namespaces_that_it_is_asked_for() {
    let place = Place::new();
    for bad in ["Carts", "carts:both", "default"] {
        let refused = run_to_end(place.up(&["--detach", "--namespace", bad]));
        assert_eq!(refused.status.code(), Some(1), "{}", told(&refused));
        assert!(!place.path("data/local").exists(), "{bad}: nothing was made");
    }
    let namespaces = ["--detach", "--namespace", "carts:siblings", "--namespace", "more"];
    assert_eq!(run_to_end(place.up(&namespaces)).status.code(), Some(0));
    let listed: Value = serde_json::from_slice(&place.ask(&["namespace", "list", "-o", "json"]).stdout).expect("JSON");
    let policies: Vec<_> = listed["namespaces"].as_array().expect("a list").iter().map(|one| &one["policy"]).collect();
    assert_eq!(policies, ["lww", "siblings", "lww"]);
    assert_eq!(listed["epoch"], 1, "they are there from the beginning");
    place.run(&["down"]);
    let refused = run_to_end(place.up(&["--detach", "--namespace", "another"]));
    assert_eq!(refused.status.code(), Some(1));
    assert!(
        told(&refused).contains("--namespace another: the cluster in data/local has no such"),
        "{}",
        told(&refused)
    );
}

#[test]
fn a_port_in_use_is_named_before_anything_is_written() {
    let place = Place::new();
    let (resp, _, peer) = place.ports;
    let tcp = TcpListener::bind(("127.0.0.1", resp + 1)).expect("a port");
    let udp = UdpSocket::bind(("127.0.0.1", peer + 2)).expect("a port");
    let refused = run_to_end(place.up(&["--detach"]));
    assert_eq!(refused.status.code(), Some(1));
    let expected = format!(
        "dogsled: RESP port 127.0.0.1:{} of n2 is in use; stop what uses it, or choose others with --resp-port\n\
         QUIC port 127.0.0.1:{} of n3 is in use; stop what uses it, or choose others with --peer-port\n",
        resp + 1,
        peer + 2
    );
    assert_eq!(told(&refused), expected);
    assert_eq!(place.everything(), Vec::<PathBuf>::new());
    drop((tcp, udp));
    place.start();
}

#[test]
fn a_node_that_does_not_start_stops_the_others_and_says_why() {
    let place = Place::new();
    let cluster = place.start();
    place.run(&["down"]);
    // Its certificate is another node's, which only the node itself can find out.
    fs::copy(place.path("certs/local/n1.pem"), place.path("certs/local/n3.pem")).expect("a file");
    let refused = run_to_end(place.up(&["--detach"]));
    assert_eq!(refused.status.code(), Some(1));
    let message = told(&refused);
    assert!(message.contains("dogsled: n3 did not start (exit status: 1):"), "{message}");
    assert!(message.contains("certs/local/n3.pem"), "the cause is shown: {message}");
    assert_free(&place);
    assert!(!pids(&cluster).into_iter().any(runs));
    assert!(!place.path("data/local/processes.json").exists());
}

#[test]
fn what_is_wrong_with_a_configuration_is_told_and_nothing_starts() {
    let place = Place::new();
    place.start();
    place.run(&["down"]);
    let before = place.everything();
    let config = place.path("data/local/n2/node.toml");
    let text = fs::read_to_string(&config).expect("a file");
    fs::write(&config, format!("{text}\n[request]\ntimeout_ms = 1\n[storage]\ncache = 1\n")).expect("a file");
    let refused = place.run(&["up"]);
    assert_eq!(refused.status.code(), Some(1));
    let message = told(&refused);
    assert!(message.starts_with("dogsled: 2 problems in the configuration:\n  data/local/n2/node.toml: "), "{message}");
    assert!(message.contains("did you mean 'requests'"), "{message}");
    assert_eq!(place.everything(), before);
    assert_free(&place);
    fs::write(&config, text).expect("a file");

    let another = place.run(&["up", "--nodes", "5"]);
    assert_eq!(another.status.code(), Some(1));
    assert!(told(&another).contains("--nodes 5: the cluster in data/local has 3"), "{}", told(&another));
}

#[test]
fn a_directory_that_cannot_be_used_is_named_and_left_as_it_was() {
    let place = Place::new();
    fs::write(place.path("data"), "in the way").expect("a file");
    let refused = run_to_end(place.up(&["--detach"]));
    assert_eq!(refused.status.code(), Some(1));
    assert!(told(&refused).contains("data"), "{}", told(&refused));
    assert_eq!(place.everything(), [place.path("data")]);

    fs::remove_file(place.path("data")).expect("it was there");
    fs::create_dir(place.path("mine")).expect("a directory");
    fs::write(place.path("mine/letter.txt"), "dear").expect("a file");
    let before = place.everything();
    let refused = run_to_end(place.up(&["--detach", "--dir", "mine"]));
    assert_eq!(refused.status.code(), Some(1));
    assert!(told(&refused).contains("mine is not empty"), "{}", told(&refused));
    assert_eq!(place.everything(), before);
}

/// `dogsled up` in the foreground, ready.
struct Foreground {
    child: Child,
    news: BufReader<std::process::ChildStderr>,
}

impl Foreground {
    fn start(place: &Place) -> (Foreground, Value) {
        let mut command = place.up(&["-o", "json"]);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program runs");
        let mut news = BufReader::new(child.stderr.take().expect("a pipe"));
        let mut line = String::new();
        while line != "Ctrl-C stops the cluster.\n" {
            line.clear();
            assert_ne!(news.read_line(&mut line).expect("a line"), 0, "it ended before it was ready");
        }
        // The summary is out before that line.
        let stdout = child.stdout.take().expect("a pipe");
        let summary = serde_json::Deserializer::from_reader(stdout).into_iter().next().expect("a value");
        (Foreground { child, news }, summary.expect("JSON"))
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.news.read_line(&mut line).expect("a line");
        line
    }

    /// What it says until its end, and its exit code.
    fn end(mut self) -> (String, Option<i32>) {
        let mut rest = String::new();
        self.news.read_to_string(&mut rest).expect("text");
        (rest, self.child.wait().expect("it ends").code())
    }
}

#[test]
fn ctrl_c_stops_all_nodes_in_order() {
    let place = Place::new();
    let (up, cluster) = Foreground::start(&place);
    signal(up.child.id(), Signal::INT);
    assert_eq!(up.end(), ("n3 stopped\nn2 stopped\nn1 stopped\n".into(), Some(0)));
    assert!(!pids(&cluster).into_iter().any(runs));
    assert_free(&place);
}

#[test]
fn a_node_that_dies_later_is_told_and_down_ends_the_rest() {
    let place = Place::new();
    let (mut up, cluster) = Foreground::start(&place);
    signal(pids(&cluster)[1], Signal::KILL);
    let line = up.line();
    assert!(line.starts_with("n2 has ended (signal: 9 (SIGKILL)); its log is in "), "{line}");
    assert!(place.ask(&["put", "hello", "world"]).status.success(), "a quorum goes on");
    let down = place.run(&["down"]);
    assert_eq!(down.status.code(), Some(0), "{}", told(&down));
    assert_eq!(up.end(), ("n3 stopped\nn2 was not running\nn1 stopped\n".into(), Some(0)));
    assert_free(&place);
}

#[test]
fn nodes_whose_up_was_killed_are_found_by_down() {
    let place = Place::new();
    let (mut up, cluster) = Foreground::start(&place);
    up.child.kill().expect("it is ours");
    up.child.wait().expect("it ends");
    assert!(pids(&cluster).into_iter().all(runs), "the nodes go on without it");
    assert_eq!(told(&place.run(&["down"])), "n3 stopped\nn2 stopped\nn1 stopped\n");
    assert!(!pids(&cluster).into_iter().any(runs));
}

#[test]
fn down_leaves_processes_alone_that_it_did_not_start() {
    let place = Place::new();
    let cluster = place.start();
    // The list names a process of this number that began at another time: this test itself.
    let list = place.path("data/local/processes.json");
    let text = fs::read_to_string(&list).expect("a file");
    let planted = text.replace(&pids(&cluster)[0].to_string(), &std::process::id().to_string());
    fs::write(&list, planted).expect("a file");
    assert_eq!(told(&place.run(&["down"])), "n3 stopped\nn2 stopped\nn1 was not running\n");
    fs::write(&list, text).expect("a file");
    assert_eq!(told(&place.run(&["down"])), "n3 was not running\nn2 was not running\nn1 stopped\n");
}

#[test]
fn nothing_of_a_cluster_lies_outside_its_directories() {
    let place = Place::new();
    place.start();
    let inside = |path: &Path| path.starts_with(place.path("data")) || path.starts_with(place.path("certs"));
    assert!(place.everything().iter().all(|path| inside(path)));
}
