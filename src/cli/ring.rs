//! `dogsled ring`: who owns what.

use clap::{Args, Subcommand};
use serde::Serialize;

use super::exit::Exit;
use super::output::{OutputArgs, Show, count, lines, table};
use super::server::ServerArgs;
use crate::server::http::json;

/// `dogsled ring …`
#[derive(Args, Debug)]
pub struct RingArgs {
    #[command(subcommand)]
    command: RingCommand,
}

#[derive(Subcommand, Debug)]
enum RingCommand {
    /// Show how many partitions each node owns
    Show(ShowArgs),
}

#[derive(Args, Debug)]
struct ShowArgs {
    /// List the replicas of each partition too (JSON has them always)
    #[arg(long)]
    partitions: bool,
    #[command(flatten)]
    server: ServerArgs,
    #[command(flatten)]
    output: OutputArgs,
}

/// The ring, and whether people want every partition of it.
#[derive(Serialize)]
#[serde(transparent)]
struct Shown {
    ring: json::Ring,
    #[serde(skip)]
    partitions: bool,
}

pub(super) fn run(args: &RingArgs) -> anyhow::Result<Exit> {
    let RingCommand::Show(args) = &args.command;
    let ring: json::Ring = args.server.client()?.read_json("/v1/ring")?;
    args.output.print(&Shown { ring, partitions: args.partitions })?;
    Ok(Exit::Done)
}

impl Show for Shown {
    fn text(&self) -> String {
        let ring = &self.ring;
        let mut text = format!(
            "epoch {}, {}, {} each\n\n",
            ring.epoch,
            count(ring.partitions as usize, "partition"),
            count(ring.replication_factor.into(), "replica")
        );
        let mut rows = table(&["NODE", "PRIMARY OF", "REPLICA OF", "SHARE"]);
        for owned in &ring.owned {
            rows.add_row([
                owned.node.to_string(),
                owned.primary.to_string(),
                owned.replica.to_string(),
                format!("{} %", owned.percent),
            ]);
        }
        text += &lines(&rows);
        if self.partitions {
            let mut rows = table(&["PARTITION", "REPLICAS"]);
            for (partition, replicas) in ring.assignment.iter().enumerate() {
                let replicas: Vec<_> = replicas.iter().map(ToString::to_string).collect();
                rows.add_row([partition.to_string(), replicas.join(" ")]);
            }
            text += &format!("\n{}", lines(&rows));
        }
        text
    }
}
