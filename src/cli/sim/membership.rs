//! `dogsled sim membership`: who is alive, among thousands.

use clap::builder::PossibleValuesParser;
use clap::builder::TypedValueParser;

use crate::ambient;
use crate::cli::exit::Exit;
use crate::cli::output::{OutputArgs, Show, lines, table, tell};
use crate::sim::membership::{self, Comparison, Detector, MembershipOptions, MembershipReport, Scenario};

/// What stands for every scenario.
const ALL: &str = "all";

/// `dogsled sim membership`
#[derive(clap::Args, Debug)]
pub struct MembershipArgs {
    /// How many nodes; with --compare, several sizes may be given
    #[arg(long, value_name = "N", default_value = "50", value_delimiter = ',',
        value_parser = clap::value_parser!(u32).range(2..=20_000))]
    nodes: Vec<u32>,
    /// What everything is drawn from; the same seed gives the same run
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// K: how many peers a node knows at most; fewer where there are not so many others
    #[arg(long, value_name = "K", default_value_t = 24, value_parser = clap::value_parser!(u16).range(1..=256))]
    k_list: u16,
    /// What is done to the cluster
    #[arg(long, value_name = "NAME", default_value = "steady", value_parser = scenarios())]
    scenario: String,
    /// What finds out who is alive: the project's own, or a baseline
    #[arg(long, value_name = "NAME", default_value = "dogsled", value_parser = detectors())]
    detector: Detector,
    /// How long scenarios that last, last; each has its own time if not given
    #[arg(long, value_name = "M", value_parser = minutes)]
    minutes: Option<f64>,
    /// How many deaths, returns and broadcasts are measured, one after the other
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=1_000))]
    rounds: u16,
    /// Print a table of all detectors on the same seed: cost, detection time, false verdicts
    #[arg(long)]
    compare: bool,
    #[command(flatten)]
    output: OutputArgs,
}

fn scenarios() -> PossibleValuesParser {
    PossibleValuesParser::new(Scenario::ALL.iter().map(|scenario| scenario.name()).chain([ALL]))
}

fn detectors() -> impl TypedValueParser<Value = Detector> {
    PossibleValuesParser::new(Detector::ALL.iter().map(|detector| detector.name()))
        .try_map(|name| name.parse::<Detector>())
}

fn minutes(text: &str) -> Result<f64, String> {
    let minutes: f64 = text.parse().map_err(|_| "not a number of minutes".to_owned())?;
    (0.1..=1_440.0).contains(&minutes).then_some(minutes).ok_or("from 0.1 to 1440".into())
}

pub(super) fn run(args: &MembershipArgs) -> anyhow::Result<Exit> {
    let sizes: Vec<usize> = args.nodes.iter().map(|nodes| *nodes as usize).collect();
    let mut clock = ambient::moment;
    let options = |nodes: usize| MembershipOptions {
        k_list: args.k_list.into(),
        detector: args.detector,
        minutes: args.minutes,
        rounds: args.rounds.into(),
        // The machines check themselves at each step where that is cheap.
        check_every: if nodes <= 50 { 1 } else { 101 },
        ..MembershipOptions::new(nodes, args.seed)
    };
    if args.compare {
        args.output.print(&membership::compare(options(sizes[0]), &sizes, &mut clock))?;
        return Ok(Exit::Done);
    }
    let [nodes] = sizes[..] else {
        return Err(crate::cli::exit::Told("several sizes need --compare".into()).into());
    };
    let played: Vec<Scenario> = match args.scenario.parse() {
        Ok(scenario) => vec![scenario],
        Err(_) => Scenario::ALL.to_vec(),
    };
    let report = membership::run(options(nodes), &played, &mut clock);
    args.output.print(&report)?;
    report.broken().iter().for_each(|line| tell(line));
    Ok(if report.kept() { Exit::Done } else { Exit::Error })
}

impl Show for MembershipReport {
    fn text(&self) -> String {
        format!("{self}\n")
    }
}

impl Show for Comparison {
    fn text(&self) -> String {
        let mut rows = table(&Comparison::COLUMNS);
        for row in &self.rows {
            rows.add_row(row.cells());
        }
        format!("seed {}, K = {} for dogsled\n\n{}", self.seed, self.k_list, lines(&rows))
    }
}
