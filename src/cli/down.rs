//! `dogsled down`: stops the nodes that `dogsled up` has started.

use std::path::PathBuf;

use clap::Args;
use rustix::process::Signal;
use serde::Serialize;

use super::exit::{Exit, Told};
use super::output::{OutputArgs, Show, tell};
use super::processes::{Processes, STOP_TIMEOUT, Stopped, wait_until};
use super::up::told;
use crate::types::NodeId;

/// `dogsled down`
#[derive(Args, Debug)]
pub struct DownArgs {
    /// Directory of the cluster
    #[arg(long, default_value = "data/local")]
    dir: PathBuf,
    #[command(flatten)]
    output: OutputArgs,
}

/// What became of the nodes, in the order in which they were stopped.
#[derive(Serialize)]
struct Ended {
    dir: PathBuf,
    nodes: Vec<EndedNode>,
}

#[derive(Serialize)]
struct EndedNode {
    node: NodeId,
    stopped: Stopped,
}

impl Show for Ended {
    /// Nothing: people were told of each node when it had stopped.
    fn text(&self) -> String {
        String::new()
    }
}

pub(super) fn run(args: &DownArgs) -> anyhow::Result<Exit> {
    let dir = &args.dir;
    if !dir.is_dir() {
        return Err(Told(format!("{}: no such directory; name that of a cluster with --dir", dir.display())).into());
    }
    let processes = Processes::read(dir)?;
    let running = processes.running();
    // An `up` in the foreground stops its nodes itself; it is only asked to.
    if let Some(supervisor) = &processes.supervisor
        && supervisor.signal(Signal::TERM)?
    {
        let at_most = STOP_TIMEOUT * u32::try_from(2 * processes.nodes.len() + 1).unwrap_or(u32::MAX);
        wait_until(at_most, || !supervisor.is_running());
    }
    let mut nodes = Vec::new();
    processes.stop(STOP_TIMEOUT, |node, stopped| {
        // Those that the supervisor has stopped were running when this began.
        let by_supervisor = running.contains(&node) && stopped == Stopped::Gone;
        let stopped = if by_supervisor { Stopped::Ended } else { stopped };
        tell(&told(node, stopped));
        nodes.push(EndedNode { node, stopped });
    })?;
    if processes.nodes.is_empty() {
        tell(&format!("no cluster is running in {}", dir.display()));
    }
    Processes::remove(dir)?;
    args.output.print(&Ended { dir: dir.clone(), nodes })?;
    Ok(Exit::Done)
}
