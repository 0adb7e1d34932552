//! A cluster of real processes: made, started, killed and watched.
//!
//! Dropped, it kills every process that it started; if the test failed, it prints what
//! the nodes said.

use std::fmt;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::Duration;

use dogsled::ambient::{moment, seeded};
use dogsled::client::resp::{BlockingConnection, ClientError, Fate, Reply, ServerError, Target};
use rand::Rng;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// How long anything may take before the test is given up. No test depends on speed:
/// this only ends one that hangs. Far above the half minute for which a virtual machine
/// has been seen to stand still.
pub const PATIENCE: Duration = Duration::from_secs(180);
/// How long a request may take in tests that do not take "in doubt" for an answer.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// How often to look where nothing can be awaited.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// Below the range from which the kernel takes ports by itself.
const PORTS: std::ops::Range<u16> = 10_000..30_000;
/// How much of each file of a node is shown when a test fails.
const SHOWN_BYTES: usize = 6_000;

/// The program under test, with an environment that holds none of its settings.
pub fn dogsled() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dogsled"));
    for (name, _) in std::env::vars_os() {
        let ours = name.to_string_lossy();
        if ours.starts_with("DOGSLED_") || ours.starts_with("SERVER_") || ours == "PROCESS_LOGGER" {
            command.env_remove(&name);
        }
    }
    command.stdin(Stdio::null());
    command
}

/// The same inside of a network namespace.
pub fn dogsled_in(namespace: &str) -> Command {
    let outside = dogsled();
    let mut command = Command::new("ip");
    command.args(["netns", "exec", namespace]).arg(outside.get_program());
    for (name, value) in outside.get_envs() {
        assert!(value.is_none(), "variables are only taken away");
        command.env_remove(name);
    }
    command.stdin(Stdio::null());
    command
}

/// The nodes of one test, in the order of their numbers. Node 0 is `n1`.
pub struct Cluster {
    pub nodes: Vec<Node>,
    dir: TempDir,
}

/// One node: its files, its ports and, while it runs, its process.
pub struct Node {
    pub home: PathBuf,
    pub resp: u16,
    pub http: u16,
    pub peer: u16,
    /// The network namespace that it runs in, if it is not the one of the test.
    pub namespace: Option<String>,
    child: Option<Child>,
}

impl Cluster {
    /// Only the files.
    pub fn create(nodes: u16) -> Cluster {
        Cluster::create_with(nodes, &[])
    }

    /// Only the files, with further arguments for the command that makes them.
    pub fn create_with(nodes: u16, arguments: &[&str]) -> Cluster {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let home = dir.path().join("cluster");
        let (resp, http, peer) = free_ports(nodes);
        let made = dogsled()
            .args(["cluster", "create", "--nodes", &nodes.to_string(), "--partitions", "16", "--dir"])
            .arg(&home)
            .args(["--resp-port", &resp.to_string(), "--http-port", &http.to_string()])
            .args(["--peer-port", &peer.to_string()])
            .args(arguments)
            .output()
            .expect("the program runs");
        assert!(made.status.success(), "cluster create failed: {}", told(&made));
        let node = |index: u16| Node {
            home: home.join(format!("n{}", index + 1)),
            resp: resp + index,
            http: http + index,
            peer: peer + index,
            namespace: None,
            child: None,
        };
        let cluster = Cluster { nodes: (0..nodes).map(node).collect(), dir };
        assert!(cluster.nodes.iter().all(|node| node.config().is_file()), "a node.toml is missing below {home:?}");
        cluster
    }

    /// A running cluster whose requests have all the time that they need: on a busy machine
    /// the default of half a second leaves writes in doubt, which is right, and not what a
    /// test of something else wants to see.
    pub fn start(nodes: u16) -> Cluster {
        Cluster::start_with(nodes, &[])
    }

    /// The same, with further arguments for the command that makes its files.
    pub fn start_with(nodes: u16, arguments: &[&str]) -> Cluster {
        let mut cluster = Cluster::create_with(nodes, arguments);
        cluster.start_all();
        cluster
    }

    /// Gives requests all the time that they need, and starts every node.
    pub fn start_all(&mut self) {
        for node in &self.nodes {
            let mut config = File::options().append(true).open(node.config()).expect("the configuration is there");
            let timeout = REQUEST_TIMEOUT.as_millis();
            write!(config, "\n[requests]\ntimeout_ms = {timeout}\n").expect("the configuration can be written");
        }
        self.run();
    }

    /// Stops every node and starts it again, until all are ready.
    pub fn restart_all(&mut self) {
        self.nodes.iter_mut().for_each(|node| assert!(node.terminate().success(), "{node:?}"));
        self.run();
    }

    /// Waits until every node takes a write that every replica has, which needs all of them.
    pub fn await_whole(&self) {
        let end = moment().plus(PATIENCE);
        for node in &self.nodes {
            let mut client = node.connect();
            while client.call(&["KV.WITH", "write=all", "SET", "whole", "yes"]).is_err() {
                assert!(moment() < end, "not whole in time: {node:?}");
                std::thread::sleep(LOOK_EVERY);
            }
        }
    }

    /// The same, with more of a configuration.
    pub fn start_configured(config: &str, nodes: u16) -> Cluster {
        let mut cluster = Cluster::create_configured(config, nodes);
        cluster.run();
        cluster
    }

    /// Only the files, with more of a configuration, and all the time for requests that they need.
    pub fn create_configured(config: &str, nodes: u16) -> Cluster {
        let cluster = Cluster::create(nodes);
        for node in &cluster.nodes {
            let mut file = File::options().append(true).open(node.config()).expect("the configuration is there");
            let timeout = REQUEST_TIMEOUT.as_millis();
            write!(file, "\n{config}\n[requests]\ntimeout_ms = {timeout}\n").expect("it can be written");
        }
        cluster
    }

    /// A running cluster as it comes, for tests that take every outcome of a request.
    pub fn start_with_defaults(nodes: u16) -> Cluster {
        let mut cluster = Cluster::create(nodes);
        cluster.run();
        cluster
    }

    fn run(&mut self) {
        self.nodes.iter_mut().for_each(Node::spawn);
        self.await_ready();
    }

    /// Waits until every node that was started is ready.
    pub fn await_ready(&mut self) {
        self.nodes.iter_mut().filter(|node| node.child.is_some()).for_each(Node::await_ready);
    }

    /// Where the cluster's directory stands.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for node in &self.nodes {
                eprintln!("{node:?}");
            }
        }
        self.nodes.iter_mut().for_each(Node::kill);
    }
}

impl Node {
    pub fn config(&self) -> PathBuf {
        self.home.join("node.toml")
    }

    /// The command that runs this node.
    pub fn command(&self) -> Command {
        let mut command = self.program();
        command.arg("node").arg("--config").arg(self.config()).env("SERVER_HOME", &self.home);
        command
    }

    /// Runs a command of the command line that asks this node, where it can be asked.
    pub fn ask(&self, arguments: &[&str]) -> Output {
        let mut command = self.program();
        // It ends by itself: its own exchanges with the node have a timeout.
        command.args(arguments).env("DOGSLED_SERVER", self.http_address()).output().expect("the program runs")
    }

    fn program(&self) -> Command {
        self.namespace.as_deref().map_or_else(dogsled, dogsled_in)
    }

    /// As commands and HTTP clients name it.
    pub fn http_address(&self) -> String {
        format!("http://127.0.0.1:{}", self.http)
    }

    /// Starts the process; it may not be ready for a while.
    pub fn spawn(&mut self) {
        self.spawn_with(|_| {});
    }

    /// The same, with changes to the command.
    pub fn spawn_with(&mut self, change: impl FnOnce(&mut Command)) {
        assert!(self.child.is_none(), "the node runs already");
        let output = File::options().create(true).append(true).open(self.output_file()).expect("a file for its output");
        let mut command = self.command();
        change(&mut command);
        command.stdout(output.try_clone().expect("the same file again")).stderr(output);
        self.child = Some(command.spawn().expect("the program runs"));
    }

    /// Runs a node that is expected to end by itself, and returns what it said.
    pub fn run_to_end(&self) -> Output {
        run_to_end(self.command())
    }

    /// Waits until the node says that it is ready.
    pub fn await_ready(&mut self) {
        let end = moment().plus(PATIENCE);
        while self.readiness() != Some(200) {
            let child = self.child.as_mut().expect("the node was started");
            if let Some(status) = child.try_wait().expect("the process can be looked at") {
                self.child = None;
                panic!("the node ended with {status} before it was ready: {self:?}");
            }
            assert!(moment() < end, "not ready in time");
            std::thread::sleep(LOOK_EVERY);
        }
    }

    /// The status of the node's answer to `/readyz`; none if it does not answer.
    pub fn readiness(&self) -> Option<u16> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, self.http));
        let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(2)).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
        stream.write_all(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.take(4_096).read_to_string(&mut answer).ok()?;
        answer.split(' ').nth(1)?.parse().ok()
    }

    /// kill -9, and waits until the process is gone. Nothing happens if it does not run.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            // It may have ended by itself.
            let _ = child.kill();
            child.wait().expect("the process can be awaited");
        }
    }

    /// Lets the process stand still.
    pub fn pause(&self) {
        self.signal(Signal::STOP);
    }

    /// Lets it go on.
    pub fn resume(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        let child = self.child.as_ref().expect("the node runs");
        kill_process(Pid::from_child(child), signal).expect("the process takes a signal");
    }

    /// Asks the node to stop, and waits until it has.
    pub fn terminate(&mut self) -> ExitStatus {
        let mut child = self.child.take().expect("the node runs");
        let pid = Pid::from_child(&child);
        kill_process(pid, Signal::TERM).expect("the process takes a signal");
        await_end(&mut child)
    }

    /// Whether the process has not ended.
    pub fn is_running(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| child.try_wait().expect("the process can be looked at").is_none())
    }

    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("the node runs").id()
    }

    pub fn target(&self) -> Target {
        Target::new("127.0.0.1", self.resp)
    }

    pub fn connect(&self) -> BlockingConnection {
        self.try_connect().expect("the node takes connections")
    }

    pub fn try_connect(&self) -> Result<BlockingConnection, ClientError> {
        BlockingConnection::connect(&self.target(), PATIENCE)
    }

    fn output_file(&self) -> PathBuf {
        self.home.join("test-output.log")
    }
}

/// What the node said, for a test that failed.
impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "== {} (RESP {}, HTTP {}, peers {})", self.home.display(), self.resp, self.http, self.peer)?;
        let logs = fs::read_dir(self.home.join("log")).into_iter().flatten().flatten().map(|entry| entry.path());
        for path in std::iter::once(self.output_file()).chain(logs) {
            let bytes = fs::read(&path).unwrap_or_default();
            let tail = &bytes[bytes.len().saturating_sub(SHOWN_BYTES)..];
            writeln!(f, "-- {}\n{}", path.display(), String::from_utf8_lossy(tail))?;
        }
        Ok(())
    }
}

/// Runs a command that ends by itself; kills it if it does not.
pub fn run_to_end(mut command: Command) -> Output {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program runs");
    let status = await_end(&mut child);
    // What a failing start prints fits into the pipes, so reading it afterwards cannot block it.
    let mut output = Output { status, stdout: Vec::new(), stderr: Vec::new() };
    child.stdout.take().expect("it is a pipe").read_to_end(&mut output.stdout).expect("the pipe can be read");
    child.stderr.take().expect("it is a pipe").read_to_end(&mut output.stderr).expect("the pipe can be read");
    output
}

/// Repeats a command that may be repeated until the cluster carries it out. If the machine
/// stands still for longer than a connection between nodes may be silent, refusals are the
/// right answer for a while, and no matter for a test of something else.
pub fn insist(connection: &mut BlockingConnection, command: &[&str]) -> Reply {
    let end = moment().plus(PATIENCE);
    loop {
        match connection.call(command) {
            Ok(reply) => return reply,
            Err(ClientError::Server(error)) if asks_for_patience(&error) && moment() < end => {
                std::thread::sleep(LOOK_EVERY);
            }
            Err(error) => panic!("{command:?}: {error}"),
        }
    }
}

/// Whether the cluster says that it cannot now, rather than that it will not.
fn asks_for_patience(error: &ServerError) -> bool {
    error.fate() == Fate::NotApplied || error.prefix() == "INDOUBT"
}

/// Both outputs of a command, for messages and for looking into.
pub fn told(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn await_end(child: &mut Child) -> ExitStatus {
    let end = moment().plus(PATIENCE);
    loop {
        if let Some(status) = child.try_wait().expect("the process can be looked at") {
            return status;
        }
        if moment() >= end {
            child.kill().expect("the process can be killed");
            child.wait().expect("the process can be awaited");
            panic!("the process did not end in time");
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

/// Where `count` ports each for RESP, HTTP and peers begin. Nothing holds them until the
/// nodes bind them, so they are drawn at random: two tests at once hardly draw the same.
pub fn free_ports(count: u16) -> (u16, u16, u16) {
    let mut rng = seeded();
    for _ in 0..1_000 {
        let first = rng.random_range(PORTS.start..PORTS.end - 3 * count);
        let (resp, http, peer) = (first, first + count, first + 2 * count);
        let tcp_free = (resp..peer).all(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok());
        let udp_free = (peer..peer + count).all(|port| UdpSocket::bind((Ipv4Addr::LOCALHOST, port)).is_ok());
        if tcp_free && udp_free {
            return (resp, http, peer);
        }
    }
    panic!("no free ports between {} and {}", PORTS.start, PORTS.end);
}
