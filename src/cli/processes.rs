//! The processes of a local cluster: written down when they start, found again later.
//!
//! Invariant: a signal goes only to a process that is certainly the one written down: same
//! number, same start time, same program, checked through a handle (pidfd) that cannot come
//! to mean another process in between.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};

use crate::ambient;
use crate::types::NodeId;

const FILE_NAME: &str = "processes.json";
const LOCK_NAME: &str = "processes.lock";
/// The longest list that is read, in bytes.
const MAX_FILE_BYTES: u64 = 1024 * 1024;
/// How long a process may take to end by itself before it is killed.
pub(super) const STOP_TIMEOUT: Duration = Duration::from_secs(15);
/// How often is looked whether something has happened that cannot be awaited.
pub(super) const LOOK_EVERY: Duration = Duration::from_millis(50);

/// A process, told apart from any other that may get its number later.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct Process {
    pub(super) pid: u32,
    /// Since the machine started, in its clock ticks.
    start_time: u64,
    program: PathBuf,
}

/// How a process that was told to stop has ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Stopped {
    /// It was not running any more.
    Gone,
    /// By itself.
    Ended,
    /// It took too long.
    Killed,
}

impl Process {
    /// The running process of this number.
    pub(super) fn of(pid: u32) -> io::Result<Process> {
        let (_, start_time) = state_and_start(pid)?;
        Ok(Process { pid, start_time, program: program_of(pid)? })
    }

    /// Whether it still runs. One that has ended and waits for its parent does not.
    pub(super) fn is_running(&self) -> bool {
        let same = state_and_start(self.pid)
            .is_ok_and(|(state, start_time)| start_time == self.start_time && !matches!(state, 'Z' | 'X'));
        same && program_of(self.pid).is_ok_and(|program| program == self.program)
    }

    /// Sends a signal if it still runs; says whether it does.
    pub(super) fn signal(&self, signal: Signal) -> io::Result<bool> {
        let Some(pid) = i32::try_from(self.pid).ok().and_then(Pid::from_raw) else { return Ok(false) };
        let handle = match pidfd_open(pid, PidfdFlags::empty()) {
            Err(rustix::io::Errno::SRCH) => return Ok(false),
            handle => handle?,
        };
        // Checked after the handle was opened: if it is the one written down, so is the handle.
        if !self.is_running() {
            return Ok(false);
        }
        match pidfd_send_signal(&handle, signal) {
            Err(rustix::io::Errno::SRCH) => Ok(false),
            result => Ok(result.map(|()| true)?),
        }
    }

    /// Asks it to end, waits, and kills it if that takes too long.
    pub(super) fn stop(&self, timeout: Duration) -> io::Result<Stopped> {
        if !self.signal(Signal::TERM)? {
            return Ok(Stopped::Gone);
        }
        if wait_until(timeout, || !self.is_running()) {
            return Ok(Stopped::Ended);
        }
        self.signal(Signal::KILL)?;
        wait_until(timeout, || !self.is_running());
        Ok(Stopped::Killed)
    }
}

/// Looks again and again; says whether it came to be in time.
pub(super) fn wait_until(timeout: Duration, mut is_so: impl FnMut() -> bool) -> bool {
    let end = ambient::moment().plus(timeout);
    loop {
        if is_so() {
            return true;
        }
        if ambient::moment() >= end {
            return false;
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

/// Fields 3 and 22 of `/proc/<pid>/stat`; the second field may hold anything but ends with
/// the last closing parenthesis.
fn state_and_start(pid: u32) -> io::Result<(char, u64)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let fields = || {
        let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
        let state = fields.next()?.chars().next()?;
        Some((state, fields.nth(18)?.parse().ok()?))
    };
    fields().ok_or_else(|| io::ErrorKind::InvalidData.into())
}

fn program_of(pid: u32) -> io::Result<PathBuf> {
    let path = fs::read_link(format!("/proc/{pid}/exe"))?;
    // A program that was built anew while it runs.
    Ok(match path.to_str().and_then(|text| text.strip_suffix(" (deleted)")) {
        Some(before) => before.into(),
        None => path,
    })
}

/// A node of the cluster and its process.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct NodeProcess {
    pub(super) node: NodeId,
    pub(super) process: Process,
}

/// All processes of a cluster.
#[derive(Clone, Default, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct Processes {
    /// The `dogsled up` that stays in the foreground, if there is one.
    pub(super) supervisor: Option<Process>,
    pub(super) nodes: Vec<NodeProcess>,
}

impl Processes {
    /// What was written down in a cluster's directory; nothing if nothing was.
    pub(super) fn read(dir: &Path) -> anyhow::Result<Processes> {
        let path = dir.join(FILE_NAME);
        let bytes = match fs::File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Processes::default()),
            file => read_bounded(file, &path)?,
        };
        serde_json::from_slice(&bytes).with_context(|| {
            format!("{}: not a list of processes; stop the nodes by hand and remove it", path.display())
        })
    }

    /// Writes it down, as a whole.
    pub(super) fn write(&self, dir: &Path) -> anyhow::Result<()> {
        let path = dir.join(FILE_NAME);
        let draft = dir.join(format!("{FILE_NAME}.new"));
        fs::write(&draft, serde_json::to_vec_pretty(self)?)
            .and_then(|()| fs::rename(&draft, &path))
            .with_context(|| format!("{}: cannot be written", path.display()))
    }

    /// Nothing runs any more.
    pub(super) fn remove(dir: &Path) -> io::Result<()> {
        match fs::remove_file(dir.join(FILE_NAME)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// The nodes that run now.
    pub(super) fn running(&self) -> Vec<NodeId> {
        self.nodes.iter().filter(|node| node.process.is_running()).map(|node| node.node).collect()
    }

    /// Stops the nodes, the last one first, each before the next; tells what each came to.
    /// One that cannot be stopped does not keep the others: the first error is returned last.
    pub(super) fn stop(&self, timeout: Duration, mut tell: impl FnMut(NodeId, Stopped)) -> io::Result<()> {
        let mut result = Ok(());
        for NodeProcess { node, process } in self.nodes.iter().rev() {
            match process.stop(timeout) {
                Ok(stopped) => tell(*node, stopped),
                Err(error) => result = result.and(Err(error)),
            }
        }
        result
    }
}

fn read_bounded(file: io::Result<fs::File>, path: &Path) -> anyhow::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.and_then(|file| io::Read::read_to_end(&mut io::Read::take(file, MAX_FILE_BYTES), &mut bytes))
        .with_context(|| format!("{}: cannot be read", path.display()))?;
    Ok(bytes)
}

/// Held while processes of a cluster are started; freed when dropped, however that happens.
pub(super) struct Lock {
    _file: fs::File,
}

impl Lock {
    /// None if another process starts this cluster just now.
    pub(super) fn take(dir: &Path) -> anyhow::Result<Option<Lock>> {
        let path = dir.join(LOCK_NAME);
        let file = fs::OpenOptions::new().write(true).create(true).truncate(false).open(&path);
        let file = file.with_context(|| {
            format!("{}: cannot be written; choose a directory that you may write to", path.display())
        })?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Lock { _file: file })),
            Err(fs::TryLockError::WouldBlock) => Ok(None),
            Err(fs::TryLockError::Error(error)) => {
                Err(error).with_context(|| format!("{}: cannot be locked", path.display()))
            }
        }
    }
}

#[cfg(test)]
#[path = "processes_tests.rs"]
mod tests;
