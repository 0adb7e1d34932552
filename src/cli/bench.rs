//! `dogsled bench`: load on any server of the Redis protocol.

use super::exit::Exit;
use super::output::{Format, OutputArgs, Show};
use crate::bench::{self, BenchArgs, BenchReport, OutputFormat};

pub(super) fn run(args: &BenchArgs) -> anyhow::Result<Exit> {
    let report = bench::run(args)?;
    let output = match args.output {
        OutputFormat::Table => Format::Table,
        OutputFormat::Json => Format::Json,
    };
    OutputArgs { output }.print(&report)?;
    Ok(Exit::Done)
}

impl Show for BenchReport {
    fn text(&self) -> String {
        format!("{self}\n")
    }
}
