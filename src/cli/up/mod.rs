//! `dogsled up`: a secure cluster on this machine, from nothing.
//!
//! Invariant: what can be refused is refused before anything is written or started; when
//! this command ends with an error, nothing that it started is left running.

mod ports;
mod start;
mod summary;

use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use anyhow::Context;
use clap::Args;

use super::cluster::{self, Layout, Plan, ShapeArgs};
use super::exit::{Exit, Told};
use super::output::{OutputArgs, count, tell};
use super::processes::{LOOK_EVERY, Lock, Processes, STOP_TIMEOUT, Stopped};
use crate::config::{self, NodeConfig};
use crate::node::map_file;
use crate::types::NodeId;
use start::Cluster;

/// How long a cluster may take until every node is ready.
const READY_TIMEOUT: Duration = Duration::from_secs(120);

/// `dogsled up`
#[derive(Args, Debug)]
pub struct UpArgs {
    /// Number of nodes of a new cluster [default: 3]
    #[arg(long, value_parser = cluster::node_count())]
    nodes: Option<u32>,
    /// Directory of the cluster; one that is there is started again with its data
    #[arg(long, default_value = "data/local")]
    dir: PathBuf,
    /// Directory of a new cluster's certificates [default: certs/NAME for data/NAME, else DIR/certs]
    #[arg(long, value_name = "DIR")]
    certs: Option<PathBuf>,
    /// Leave the nodes running and return; `dogsled down` stops them
    #[arg(short, long)]
    detach: bool,
    #[command(flatten)]
    shape: ShapeArgs,
    #[command(flatten)]
    output: OutputArgs,
}

/// A node that is to be started.
struct Node {
    id: NodeId,
    home: PathBuf,
    config_file: PathBuf,
    config: NodeConfig,
}

pub(super) fn run(args: &UpArgs) -> anyhow::Result<Exit> {
    let signals = await_signals()?;
    let layout = Layout::of_up(args.dir.clone(), args.certs.clone());
    let there = layout.nodes().map_err(|error| cluster::cannot_write(&args.dir, &error))?;
    if there.is_empty() {
        let plan = Plan::new(layout.clone(), args.nodes.unwrap_or(3), &args.shape, true)?;
        ports::check(&ports::planned(&plan))?;
        cluster::create(&plan)?;
        tell(&format!("made a cluster of {} in {}", count(plan.nodes.len(), "node"), args.dir.display()));
    }
    let nodes = load(&layout)?;
    refuse_another_shape(args, &nodes)?;
    let lock = lock(&args.dir)?;
    refuse_running(&args.dir)?;
    ports::check(&ports::configured(&nodes))?;

    let mut cluster = Cluster::start(&args.dir, &nodes, !args.detach)?;
    cluster.await_ready(READY_TIMEOUT, &signals)?;
    drop(lock);
    args.output.print(&summary::Summary::new(&args.dir, &cluster, &nodes))?;
    if args.detach {
        cluster.leave_running();
        return Ok(Exit::Done);
    }
    tell("Ctrl-C stops the cluster.");
    let exit = watch(&mut cluster, &signals);
    cluster.stop();
    Ok(exit)
}

/// Waits for a signal; tells of each node that ends meanwhile.
fn watch(cluster: &mut Cluster, signals: &Receiver<()>) -> Exit {
    loop {
        match signals.recv_timeout(LOOK_EVERY) {
            Err(RecvTimeoutError::Timeout) => {}
            Ok(()) | Err(RecvTimeoutError::Disconnected) => return Exit::Done,
        }
        for (node, how) in cluster.ended() {
            tell(&format!("{node} has ended ({how}); its log is in {}", cluster.log_of(node).display()));
        }
        if cluster.running() == 0 {
            tell("no node is running any more");
            return Exit::Error;
        }
    }
}

/// The signals that end this program: Ctrl-C, SIGTERM, SIGHUP.
pub(super) fn await_signals() -> anyhow::Result<Receiver<()>> {
    let (sender, receiver) = channel();
    ctrlc::set_handler(move || {
        // Nobody listens any more when the program is about to end anyway.
        let _ = sender.send(());
    })
    .context("signals cannot be handled")?;
    Ok(receiver)
}

fn lock(dir: &Path) -> anyhow::Result<Lock> {
    Lock::take(dir)?
        .ok_or_else(|| Told(format!("another `dogsled up` is just starting the cluster in {}", dir.display())).into())
}

/// A cluster is shaped once; asking for another shape must not pass in silence.
fn refuse_another_shape(args: &UpArgs, nodes: &[Node]) -> anyhow::Result<()> {
    let Some(first) = nodes.first() else { return Ok(()) };
    let map = map_file::read(&first.config.cluster.map)?;
    let (shape, usual) = (&args.shape, ShapeArgs::default());
    let listen = &first.config.listen;
    let count = u32::try_from(nodes.len()).unwrap_or(u32::MAX);
    // Flag, what is asked, what it would be unless asked, what is there.
    let asked: [(&str, u32, u32, u32); 6] = [
        ("--nodes", args.nodes.unwrap_or(count), count, count),
        ("--partitions", shape.partitions, usual.partitions, map.partitions.get()),
        ("--rf", shape.rf.into(), usual.rf.into(), map.replication_factor.into()),
        ("--resp-port", shape.resp_port.get().into(), usual.resp_port.get().into(), listen.resp.port().into()),
        ("--http-port", shape.http_port.get().into(), usual.http_port.get().into(), listen.http.port().into()),
        ("--peer-port", shape.peer_port.get().into(), usual.peer_port.get().into(), listen.peer.port().into()),
    ];
    let problems: Vec<_> = asked
        .into_iter()
        .filter(|(_, asked, usual, there)| asked != usual && asked != there)
        .map(|(flag, asked, _, there)| format!("{flag} {asked}: the cluster in {} has {there}", args.dir.display()))
        .collect();
    let namespaces = shape.namespaces.iter().filter(|wanted| {
        let there = map.namespaces.values().find(|there| there.name == wanted.name);
        there.is_none_or(|there| there.policy != wanted.policy)
    });
    let missing = namespaces.map(|wanted| {
        let dir = args.dir.display();
        format!("--namespace {}: the cluster in {dir} has no such (see `dogsled namespace create`)", wanted.name)
    });
    let problems: Vec<_> = problems.into_iter().chain(missing).collect();
    if problems.is_empty() {
        return Ok(());
    }
    Err(Told(format!("{}; leave it out, or choose another --dir", problems.join("\n"))).into())
}

fn refuse_running(dir: &Path) -> anyhow::Result<()> {
    let running = Processes::read(dir)?.running();
    if running.is_empty() {
        return Ok(());
    }
    let names: Vec<_> = running.iter().map(NodeId::to_string).collect();
    Err(Told(format!(
        "the cluster in {} is running already ({}); stop it with `dogsled down --dir {}`",
        dir.display(),
        names.join(", "),
        dir.display()
    ))
    .into())
}

/// The configurations of all nodes, as the nodes themselves will read them.
fn load(layout: &Layout) -> anyhow::Result<Vec<Node>> {
    let environment = super::environment();
    layout
        .nodes()?
        .into_iter()
        .map(|id| {
            let config_file = layout.config(id);
            let config = config::load(&config_file, environment.clone(), [])?;
            if config.node.id != id {
                return Err(Told(format!(
                    "{}: node.id: it says {}, but this is the folder of {id}; put the right file there",
                    config_file.display(),
                    config.node.id
                ))
                .into());
            }
            Ok(Node { id, home: std::path::absolute(layout.home(id))?, config_file, config })
        })
        .collect()
}

/// What a stop came to, for people.
pub(super) fn told(node: NodeId, stopped: Stopped) -> String {
    match stopped {
        Stopped::Gone => format!("{node} was not running"),
        Stopped::Ended => format!("{node} stopped"),
        Stopped::Killed => format!("{node} did not stop within {} s and was killed", STOP_TIMEOUT.as_secs()),
    }
}
