//! The processes of the nodes: started, awaited, stopped.

use std::fs;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use anyhow::Context;
use indicatif::{ProgressBar, ProgressStyle};

use super::{Node, told};
use crate::ambient;
use crate::cli::exit::Told;
use crate::cli::output::tell;
use crate::cli::processes::{LOOK_EVERY, NodeProcess, Process, Processes, STOP_TIMEOUT};
use crate::client::http::HttpClient;
use crate::server::http::json;
use crate::types::NodeId;

/// What a node prints, beside its log: why it did not start, and panics.
const OUTPUT_NAME: &str = "output.log";
/// How much of it is shown when a node does not start.
const SHOWN_LINES: usize = 10;
const SHOWN_BYTES: u64 = 16 * 1024;
/// How long to wait for more than a quorum: until every node reaches every other.
const WHOLE_TIMEOUT: Duration = Duration::from_secs(10);

/// The nodes that this process has started. Dropped, it stops them.
pub(super) struct Cluster {
    dir: PathBuf,
    nodes: Vec<Started>,
    written: Processes,
    left: bool,
}

struct Started {
    id: NodeId,
    home: PathBuf,
    client: HttpClient,
    child: Child,
    ended: Option<ExitStatus>,
    ready: bool,
}

impl Started {
    /// Whether it says that it does not reach every other node yet.
    fn misses_others(&self) -> bool {
        let cluster = self.client.read_json::<json::Cluster>("/v1/cluster");
        cluster.is_ok_and(|cluster| cluster.members.iter().any(|member| !member.reachable))
    }
}

impl Cluster {
    /// Starts a process for each node and writes it down.
    ///
    /// # Errors
    /// If one cannot be started; those before it are stopped again.
    pub(super) fn start(dir: &Path, nodes: &[Node], supervised: bool) -> anyhow::Result<Cluster> {
        let supervisor = supervised.then(|| Process::of(std::process::id())).transpose()?;
        let written = Processes { supervisor, nodes: Vec::new() };
        let mut cluster = Cluster { dir: dir.to_owned(), nodes: Vec::new(), written, left: false };
        for node in nodes {
            cluster.spawn(node).with_context(|| format!("{} cannot be started", node.id))?;
        }
        Ok(cluster)
    }

    fn spawn(&mut self, node: &Node) -> anyhow::Result<()> {
        let password = node.config.clients.password.as_ref().map(|password| password.0.as_str());
        let client = HttpClient::new(&format!("http://{}", node.config.listen.http), password)?;
        let output = fs::File::create(node.home.join(OUTPUT_NAME))?;
        let child = Command::new(std::env::current_exe()?)
            .args(["node", "--config"])
            .arg(std::path::absolute(&node.config_file)?)
            .env("SERVER_HOME", &node.home)
            .env("SERVER_ID", node.id.number().to_string())
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            // Ctrl-C reaches this process alone, which then stops the nodes in their order.
            .process_group(0)
            .spawn()?;
        let pid = child.id();
        let home = node.home.clone();
        self.nodes.push(Started { id: node.id, home, client, child, ended: None, ready: false });
        self.written.nodes.push(NodeProcess { node: node.id, process: Process::of(pid)? });
        self.written.write(&self.dir)
    }

    /// Waits until every node says that it is ready.
    ///
    /// # Errors
    /// If a node ends, time runs out, or a signal comes; all nodes are stopped then.
    pub(super) fn await_ready(&mut self, timeout: Duration, signals: &Receiver<()>) -> anyhow::Result<()> {
        let progress = progress(self.nodes.len());
        let end = ambient::moment().plus(timeout);
        let whole_by = ambient::moment().plus(WHOLE_TIMEOUT);
        loop {
            if let Some((node, how)) = self.ended().into_iter().next() {
                progress.finish_and_clear();
                let last_words = self.last_words(node);
                return Err(Told(format!("{node} did not start ({how}):\n{last_words}")).into());
            }
            let whole = ambient::moment() < whole_by;
            for node in self.nodes.iter_mut().filter(|node| !node.ready) {
                // A node that does not answer yet is not ready yet.
                node.ready = node.client.is_ready().unwrap_or(false) && !(whole && node.misses_others());
            }
            let waiting: Vec<_> =
                self.nodes.iter().filter(|node| !node.ready).map(|node| node.id.to_string()).collect();
            progress.set_position((self.nodes.len() - waiting.len()) as u64);
            if waiting.is_empty() {
                progress.finish_and_clear();
                return Ok(());
            }
            progress.set_message(format!("waiting for {}", waiting.join(", ")));
            if ambient::moment() >= end {
                progress.finish_and_clear();
                let logs: Vec<_> = self.nodes.iter().map(|node| node.home.join("log").display().to_string()).collect();
                return Err(Told(format!(
                    "{} not ready within {} s; see {}",
                    waiting.join(", "),
                    timeout.as_secs(),
                    logs.join(", ")
                ))
                .into());
            }
            if signals.recv_timeout(LOOK_EVERY) != Err(RecvTimeoutError::Timeout) {
                progress.finish_and_clear();
                return Err(Told("interrupted".into()).into());
            }
        }
    }

    /// The nodes that have ended since this was last asked, and how.
    pub(super) fn ended(&mut self) -> Vec<(NodeId, ExitStatus)> {
        let mut ended = Vec::new();
        for node in self.nodes.iter_mut().filter(|node| node.ended.is_none()) {
            if let Ok(Some(status)) = node.child.try_wait() {
                node.ended = Some(status);
                ended.push((node.id, status));
            }
        }
        ended
    }

    /// How many nodes have not ended.
    pub(super) fn running(&self) -> usize {
        self.nodes.iter().filter(|node| node.ended.is_none()).count()
    }

    /// Where a node writes its log.
    pub(super) fn log_of(&self, id: NodeId) -> PathBuf {
        self.nodes.iter().find(|node| node.id == id).map_or_else(PathBuf::new, |node| node.home.join("log"))
    }

    /// The number of a node's process.
    pub(super) fn pid_of(&self, id: NodeId) -> u32 {
        self.nodes.iter().find(|node| node.id == id).map_or(0, |node| node.child.id())
    }

    /// The nodes run on when this process ends.
    pub(super) fn leave_running(mut self) {
        self.left = true;
    }

    /// Stops all nodes, the last one first.
    pub(super) fn stop(self) {
        drop(self);
    }

    fn last_words(&self, id: NodeId) -> String {
        let path = match self.nodes.iter().find(|node| node.id == id) {
            Some(node) => node.home.join(OUTPUT_NAME),
            None => return String::new(),
        };
        let words = tail(&path).unwrap_or_default();
        if words.is_empty() { format!("  it said nothing; see {}", self.log_of(id).display()) } else { words }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if self.left {
            return;
        }
        let stopped = self.written.stop(STOP_TIMEOUT, |node, stopped| tell(&told(node, stopped)));
        for node in &mut self.nodes {
            // Takes in the ends of the processes; those that could not be stopped are not awaited.
            let _ = node.child.try_wait();
        }
        match stopped {
            Ok(()) => {
                // A list of processes that have all ended does no harm if it stays.
                let _ = Processes::remove(&self.dir);
            }
            Err(error) => tell(&format!("a node could not be stopped: {error}")),
        }
    }
}

/// The last lines of a file.
fn tail(path: &Path) -> std::io::Result<String> {
    let mut file = fs::File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(SHOWN_BYTES)))?;
    let mut bytes = Vec::new();
    file.take(SHOWN_BYTES).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<_> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    let shown = &lines[lines.len().saturating_sub(SHOWN_LINES)..];
    Ok(shown.iter().map(|line| format!("  {line}")).collect::<Vec<_>>().join("\n"))
}

/// Shown on a terminal only; it draws on stderr.
fn progress(nodes: usize) -> ProgressBar {
    let style = ProgressStyle::with_template("{spinner} {pos} of {len} nodes ready, {msg} ({elapsed})");
    let bar = ProgressBar::new(nodes as u64).with_style(style.expect("the template is well-formed"));
    bar.enable_steady_tick(Duration::from_millis(100));
    bar
}
