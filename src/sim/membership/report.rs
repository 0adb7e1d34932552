//! What a run has measured, and which promises were kept: one value, for people and programs.

use std::fmt;

use serde::Serialize;

/// A run of one or more scenarios.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct MembershipReport {
    /// Which detector.
    pub detector: String,
    /// How many nodes.
    pub nodes: usize,
    /// What everything was drawn from.
    pub seed: u64,
    /// How many peers a node knows at most.
    pub k_list: usize,
    /// What was played.
    pub scenarios: Vec<ScenarioReport>,
}

/// One scenario.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct ScenarioReport {
    /// Its name.
    pub scenario: String,
    /// What was measured, in the order of the story.
    pub figures: Vec<Figure>,
    /// What was promised.
    pub checks: Vec<Promise>,
    /// How long it took in the simulation, in seconds.
    pub simulated_seconds: f64,
    /// Events.
    pub events: u64,
    /// How long it really took, in seconds; zero if nobody looked at a clock.
    pub real_seconds: f64,
    /// The command that does it again.
    pub replay: String,
}

/// Something measured.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Figure {
    /// What, with its unit at the end.
    pub name: String,
    /// How much.
    pub value: f64,
}

/// A promise, and whether it was kept.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Promise {
    /// Which.
    pub name: String,
    /// Whether it was kept.
    pub kept: bool,
    /// What was seen.
    pub seen: String,
}

impl ScenarioReport {
    /// A figure by its name.
    pub fn figure(&self, name: &str) -> Option<f64> {
        self.figures.iter().find(|figure| figure.name == name).map(|figure| figure.value)
    }

    /// What was not kept.
    pub fn broken(&self) -> impl Iterator<Item = &Promise> {
        self.checks.iter().filter(|promise| !promise.kept)
    }

    /// How much faster than the clock it went.
    pub fn speed(&self) -> Option<f64> {
        (self.real_seconds > 0.0).then(|| self.simulated_seconds / self.real_seconds)
    }
}

impl MembershipReport {
    /// Whether every promise was kept.
    pub fn kept(&self) -> bool {
        self.scenarios.iter().all(|scenario| scenario.broken().next().is_none())
    }

    /// What was not kept, and how to see it again: a line each.
    pub fn broken(&self) -> Vec<String> {
        let told = |scenario: &ScenarioReport| {
            let replay = scenario.replay.clone();
            let line = |promise: &Promise| format!("{}: {}; replay: {replay}", promise.name, promise.seen);
            scenario.broken().map(line).collect::<Vec<_>>()
        };
        self.scenarios.iter().flat_map(told).collect()
    }

    /// The report on a scenario.
    pub fn scenario(&self, name: &str) -> Option<&ScenarioReport> {
        self.scenarios.iter().find(|scenario| scenario.scenario == name)
    }
}

/// A number with as many digits as say something.
pub(super) fn brief(value: f64) -> String {
    match value.abs() {
        0.0 => "0".into(),
        whole if value.fract() == 0.0 && whole < 1e15 => format!("{value}"),
        small if small < 10.0 => format!("{value:.3}"),
        middle if middle < 1_000.0 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}

impl fmt::Display for MembershipReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let MembershipReport { detector, nodes, seed, k_list, scenarios } = self;
        write!(f, "{detector}, {nodes} nodes, K = {k_list}, seed {seed}")?;
        for scenario in scenarios {
            let speed = scenario.speed().map_or(String::new(), |speed| format!(", {} x real time", brief(speed)));
            let (seconds, events) = (scenario.simulated_seconds, scenario.events);
            write!(f, "\n\n{}: {seconds:.0} s simulated in {events} events{speed}", scenario.scenario)?;
            for figure in &scenario.figures {
                write!(f, "\n  {:<52} {:>12}", figure.name, brief(figure.value))?;
            }
            for Promise { name, kept, seen } in &scenario.checks {
                write!(f, "\n  {} {name}: {seen}", if *kept { "kept  " } else { "BROKEN" })?;
            }
        }
        Ok(())
    }
}
