//! `dogsled sim`: a whole cluster with faults in one thread, the same for the same seed.

mod membership;

use std::time::Duration;

use clap::Subcommand;

use super::exit::Exit;
use super::output::{OutputArgs, Show, tell};
use crate::sim::{self, SimOptions, SimReport};

/// `dogsled sim`
#[derive(clap::Args, Debug)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct SimArgs {
    #[command(subcommand)]
    part: Option<SimPart>,
    /// What everything is drawn from; the same seed gives the same run
    #[arg(long, value_name = "N", required = true)]
    seed: Option<u64>,
    /// Simulate this many nodes; drawn from the seed if not given
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=50))]
    nodes: Option<u16>,
    /// Let faults last for this many simulated seconds; healing comes on top
    #[arg(long, value_name = "S", default_value = "10", value_parser = seconds)]
    time: Duration,
    #[command(flatten)]
    output: OutputArgs,
}

#[derive(Subcommand, Debug)]
enum SimPart {
    /// Simulate the membership alone, at scale, and check what it promises
    Membership(membership::MembershipArgs),
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number of seconds".to_owned())?;
    let allowed = 0.001..=86_400.0;
    allowed.contains(&seconds).then(|| Duration::from_secs_f64(seconds)).ok_or("from 0.001 to 86400".into())
}

pub(super) fn run(args: &SimArgs) -> anyhow::Result<Exit> {
    if let Some(SimPart::Membership(args)) = &args.part {
        return membership::run(args);
    }
    let seed = args.seed.expect("clap requires it where there is no part");
    let options = SimOptions { seed, nodes: args.nodes.map(usize::from), time: args.time };
    match sim::run(options) {
        Ok(report) => {
            args.output.print(&report)?;
            Ok(Exit::Done)
        }
        Err(failure) => {
            tell(&failure.to_string());
            Ok(Exit::Error)
        }
    }
}

impl Show for SimReport {
    fn text(&self) -> String {
        format!("{self}\n")
    }
}
