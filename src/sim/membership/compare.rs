//! The project's detector beside the baselines, on the same seeds.

use serde::Serialize;

use crate::types::Moment;

use super::report::{ScenarioReport, brief};
use super::{Detector, MembershipOptions, Scenario, run};

/// Detectors side by side.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Comparison {
    /// What everything was drawn from.
    pub seed: u64,
    /// How many peers a node of the project's detector knows at most.
    pub k_list: usize,
    /// A detector at a size.
    pub rows: Vec<ComparisonRow>,
}

/// A detector at a size; costs are means of a node in a quiet minute.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct ComparisonRow {
    /// How many nodes.
    pub nodes: usize,
    /// Which detector.
    pub detector: String,
    /// Datagrams that a node sends a second.
    pub datagrams: f64,
    /// Bytes that a node sends a second, keep-alives left out.
    pub bytes: f64,
    /// Peers that it is connected with, or would have to be.
    pub connections: f64,
    /// Entries of liveness state.
    pub state: f64,
    /// When an observer has a verdict of a dead one, in seconds: half of them.
    pub verdict_p50: f64,
    /// 99 of 100.
    pub verdict_p99: f64,
    /// When a node has the news: 99 of 100.
    pub news_p99: f64,
    /// False verdicts, cluster-wide, in 1,000 node-hours with 20 % loss.
    pub loss_false_cluster: f64,
    /// The same, of a node's own.
    pub loss_false_own: f64,
    /// False verdicts, of either kind, while a tenth of the nodes stood still.
    pub pause_false: f64,
    /// False verdicts on others, of either kind, around one node that loses 80 %.
    pub sick_false: f64,
}

/// Plays the same scenarios with each detector at each size.
pub fn compare(options: MembershipOptions, sizes: &[usize], clock: &mut dyn FnMut() -> Moment) -> Comparison {
    let mut rows = Vec::new();
    for nodes in sizes {
        for detector in Detector::ALL {
            let options = MembershipOptions { nodes: *nodes, detector: *detector, ..options };
            rows.push(row(options, clock));
        }
    }
    Comparison { seed: options.seed, k_list: options.k_list, rows }
}

fn row(options: MembershipOptions, clock: &mut dyn FnMut() -> Moment) -> ComparisonRow {
    let mut play = |scenario: Scenario| run(options, &[scenario], clock).scenarios.remove(0);
    let of = |report: &ScenarioReport, name: &str| report.figure(name).unwrap_or(f64::NAN);
    let steady = play(Scenario::Steady);
    let crash = play(Scenario::Crash);
    let loss = play(Scenario::Loss);
    let accused = |report: &ScenarioReport| {
        of(report, "false verdicts, cluster-wide") + of(report, "false verdicts, a node's own")
    };
    ComparisonRow {
        nodes: options.nodes,
        detector: options.detector.name().into(),
        datagrams: of(&steady, "datagrams a second, mean"),
        bytes: of(&steady, "bytes a second, mean"),
        connections: of(&steady, "connections, mean"),
        state: of(&steady, "entries of liveness state, mean"),
        verdict_p50: of(&crash, "any verdict of an observer, p50, s"),
        verdict_p99: of(&crash, "any verdict of an observer, p99, s"),
        news_p99: of(&crash, "the news to every node, p99, s"),
        loss_false_cluster: of(&loss, "false in 1,000 node-hours, cluster-wide"),
        loss_false_own: of(&loss, "false in 1,000 node-hours, of a node's own"),
        pause_false: accused(&play(Scenario::Pause)),
        sick_false: accused(&play(Scenario::Sick)),
    }
}

impl Comparison {
    /// The columns, for people.
    pub const COLUMNS: [&str; 13] = [
        "NODES",
        "DETECTOR",
        "DATAGRAMS/S",
        "BYTES/S",
        "CONNECTIONS",
        "STATE",
        "VERDICT P50",
        "VERDICT P99",
        "NEWS P99",
        "FALSE DOWN, LOSS",
        "FALSE OWN, LOSS",
        "FALSE, PAUSE",
        "FALSE, SICK",
    ];
}

impl ComparisonRow {
    /// The cells under [`Comparison::COLUMNS`].
    pub fn cells(&self) -> [String; 13] {
        let seconds = |value: f64| format!("{value:.2} s");
        [
            self.nodes.to_string(),
            self.detector.clone(),
            format!("{:.1}", self.datagrams),
            format!("{:.0}", self.bytes),
            format!("{:.1}", self.connections),
            format!("{:.0}", self.state),
            seconds(self.verdict_p50),
            seconds(self.verdict_p99),
            seconds(self.news_p99),
            brief(self.loss_false_cluster.round()),
            brief(self.loss_false_own.round()),
            brief(self.pause_false),
            brief(self.sick_false),
        ]
    }
}
