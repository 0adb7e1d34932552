//! `dogsled cluster`: the files of a cluster.

mod certificates;
mod files;
mod undo;

use std::num::NonZeroU16;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde::Serialize;

use super::exit::{Exit, Told};
use super::namespace::NewNamespace;
use super::output::{OutputArgs, Show, count};
use crate::types::{NodeId, PartitionCount, limits};

pub(super) use files::{Layout, cannot_write, create};

/// `dogsled cluster …`
#[derive(Args, Debug)]
pub struct ClusterArgs {
    #[command(subcommand)]
    command: ClusterCommand,
}

#[derive(Subcommand, Debug)]
enum ClusterCommand {
    /// Write the files of a new cluster: certificates, one configuration per node, the cluster map
    Create(CreateArgs),
}

/// What a new cluster is like; `dogsled up` takes the same.
#[derive(Args, Clone, Debug)]
pub struct ShapeArgs {
    /// Number of partitions, a power of two; it cannot be changed later
    #[arg(long, value_name = "Q", default_value_t = ShapeArgs::default().partitions, value_parser = partitions)]
    pub partitions: u32,
    /// Replicas of each partition, where there are enough nodes
    #[arg(long, value_name = "RF", default_value_t = ShapeArgs::default().rf,
          value_parser = clap::value_parser!(u8).range(1..=i64::from(limits::MAX_REPLICATION_FACTOR)))]
    pub rf: u8,
    /// A further namespace, and whether the last write wins (lww, the default) or concurrent
    /// values are all kept (siblings); may be given several times
    #[arg(long = "namespace", value_name = "NAME[:POLICY]", value_parser = NewNamespace::parse)]
    pub namespaces: Vec<NewNamespace>,
    /// RESP port of the first node; each further node has the next one
    #[arg(long, value_name = "PORT", default_value_t = ShapeArgs::default().resp_port)]
    pub resp_port: NonZeroU16,
    /// HTTP port of the first node
    #[arg(long, value_name = "PORT", default_value_t = ShapeArgs::default().http_port)]
    pub http_port: NonZeroU16,
    /// Port of the first node for its peers (QUIC, UDP)
    #[arg(long, value_name = "PORT", default_value_t = ShapeArgs::default().peer_port)]
    pub peer_port: NonZeroU16,
}

#[derive(Args, Debug)]
struct CreateArgs {
    /// Directory of the cluster; it must be empty or not there yet
    #[arg(long)]
    dir: PathBuf,
    /// Number of nodes
    #[arg(long, default_value_t = 3, value_parser = node_count())]
    nodes: u32,
    /// Directory of the certificates [default: DIR/certs]
    #[arg(long, value_name = "DIR")]
    certs: Option<PathBuf>,
    #[command(flatten)]
    shape: ShapeArgs,
    #[command(flatten)]
    output: OutputArgs,
}

/// The nodes of one machine: more would share ports with the next kind (7379, 8379, 9379).
pub(super) fn node_count() -> clap::builder::RangedI64ValueParser<u32> {
    clap::value_parser!(u32).range(1..=64)
}

impl Default for ShapeArgs {
    fn default() -> ShapeArgs {
        let port = |number| NonZeroU16::new(number).expect("the ports are above zero");
        ShapeArgs {
            partitions: limits::DEFAULT_PARTITIONS,
            rf: limits::DEFAULT_REPLICATION_FACTOR,
            namespaces: Vec::new(),
            resp_port: port(7379),
            http_port: port(8379),
            peer_port: port(9379),
        }
    }
}

fn partitions(text: &str) -> Result<u32, String> {
    let most = limits::MAX_PARTITIONS;
    text.parse()
        .ok()
        .filter(|count| PartitionCount::new(*count).is_some())
        .ok_or_else(|| format!("it must be a power of two from 1 to {most}"))
}

/// A cluster that is to be made.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) layout: Layout,
    pub(super) nodes: Vec<PlannedNode>,
    pub(super) partitions: PartitionCount,
    pub(super) replication_factor: u8,
    pub(super) namespaces: Vec<NewNamespace>,
    pub(super) allow_flush: bool,
}

/// One node of it, on the loopback.
#[derive(Clone, Copy, Debug)]
pub(super) struct PlannedNode {
    pub(super) id: NodeId,
    pub(super) resp_port: u16,
    pub(super) http_port: u16,
    pub(super) peer_port: u16,
}

impl Plan {
    /// # Errors
    /// If ports run out or two nodes would share one.
    pub(super) fn new(layout: Layout, nodes: u32, shape: &ShapeArgs, allow_flush: bool) -> anyhow::Result<Plan> {
        let port = |first: NonZeroU16, flag: &str, index: u32| {
            u16::try_from(u32::from(first.get()) + index)
                .map_err(|_| Told(format!("{flag} {first}: {nodes} ports from there on end above 65535")))
        };
        let nodes = (0..nodes)
            .map(|index| {
                Ok(PlannedNode {
                    id: NodeId::new(index + 1).expect("numbers from one are above zero"),
                    resp_port: port(shape.resp_port, "--resp-port", index)?,
                    http_port: port(shape.http_port, "--http-port", index)?,
                    peer_port: port(shape.peer_port, "--peer-port", index)?,
                })
            })
            .collect::<Result<Vec<_>, Told>>()?;
        // Peers speak UDP, so only the two kinds of client ports can meet.
        if let Some(both) = nodes.iter().find(|a| nodes.iter().any(|b| a.resp_port == b.http_port)) {
            return Err(Told(format!(
                "port {} would be a RESP and an HTTP port; choose others with --resp-port or --http-port",
                both.resp_port
            ))
            .into());
        }
        let partitions = PartitionCount::new(shape.partitions).expect("the argument was checked when it was parsed");
        let namespaces = shape.namespaces.clone();
        Ok(Plan { layout, nodes, partitions, replication_factor: shape.rf, namespaces, allow_flush })
    }
}

/// What `cluster create` has made.
#[derive(Serialize)]
struct Created {
    dir: PathBuf,
    certs: PathBuf,
    nodes: Vec<CreatedNode>,
}

#[derive(Serialize)]
struct CreatedNode {
    node: NodeId,
    config: PathBuf,
}

impl Show for Created {
    fn text(&self) -> String {
        let mut text = format!(
            "{} in {}, certificates in {}\nStart each node with:\n",
            count(self.nodes.len(), "node"),
            self.dir.display(),
            self.certs.display()
        );
        for node in &self.nodes {
            let home = node.config.parent().unwrap_or(Path::new(".")).display();
            text += &format!("  SERVER_HOME={home} dogsled node --config {}\n", node.config.display());
        }
        text + "or all of them on this machine with:\n" + &format!("  dogsled up --dir {}\n", self.dir.display())
    }
}

pub(super) fn run(args: ClusterArgs) -> anyhow::Result<Exit> {
    let ClusterCommand::Create(args) = args.command;
    let certs = args.certs.unwrap_or_else(|| args.dir.join("certs"));
    let plan = Plan::new(Layout { dir: args.dir, certs }, args.nodes, &args.shape, false)?;
    create(&plan)?;
    let nodes = plan.nodes.iter().map(|node| CreatedNode { node: node.id, config: plan.layout.config(node.id) });
    args.output.print(&Created {
        nodes: nodes.collect(),
        dir: plan.layout.dir.clone(),
        certs: plan.layout.certs.clone(),
    })?;
    Ok(Exit::Done)
}
