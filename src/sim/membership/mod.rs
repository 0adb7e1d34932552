//! Membership at scale: thousands of nodes in one thread, from one seed.
//!
//! Problem: what gossip promises, it promises for many nodes and for losses that no test on
//! one machine has: that its cost does not grow with the cluster, that deaths are noticed
//! fast, and that the living are not accused.
//!
//! How: the machine of [`crate::protocol::membership`], unchanged, runs on every host of a
//! simulated network with connections as QUIC gives them (`links`, `faults`), next to two
//! baselines: everybody pings everybody (`full_mesh`), and SWIM as in its paper
//! (`plain_swim`). A scenario does something to the cluster, measures, and checks what was
//! promised ([`Promise`]). Verdicts are judged from outside (`watch`): one is false if it
//! falls on a node to which nothing was done.
//!
//! Invariant: the same options give the same run, event for event. After each `check_every`
//! steps the machine's invariants hold, and it knows no more than K peers.
//!
//! Left out: bandwidth and queues (latency does not grow with load), clocks that drift,
//! what an adversary could send.

mod queue;
mod samples;
mod member;
mod machine;
mod full_mesh;
mod plain_swim;
mod weather;
mod links;
mod host;
mod world;
mod faults;
mod watch;
mod overlay;
mod stage;
mod scenarios;
mod report;
mod compare;

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::str::FromStr;

use crate::types::{Moment, limits};

pub use compare::{Comparison, ComparisonRow, compare};
pub use report::{Figure, MembershipReport, Promise, ScenarioReport};

use full_mesh::FullMesh;
use machine::Machine;
use member::Member;
use plain_swim::PlainSwim;
use stage::Stage;

macro_rules! named {
    ($(#[doc = $all:literal])+ $kind:ident { $($(#[doc = $doc:literal])+ $name:ident $text:literal,)+ }) => {
        $(#[doc = $all])+
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub enum $kind { $($(#[doc = $doc])+ $name,)+ }

        impl $kind {
            /// All of them.
            pub const ALL: &[$kind] = &[$($kind::$name,)+];

            /// What it is called.
            pub fn name(self) -> &'static str {
                match self { $($kind::$name => $text,)+ }
            }
        }

        impl fmt::Display for $kind {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.name())
            }
        }

        impl FromStr for $kind {
            type Err = String;

            fn from_str(text: &str) -> Result<$kind, String> {
                let found = $kind::ALL.iter().copied().find(|one| one.name() == text);
                let names = || $kind::ALL.iter().map(|one| one.name()).collect::<Vec<_>>().join(", ");
                found.ok_or_else(|| format!("none of {}", names()))
            }
        }
    };
}

named! {
    /// What finds out who is alive.
    Detector {
        /// The machine of this project.
        Dogsled "dogsled",
        /// Everybody pings everybody.
        FullMesh "full-mesh",
        /// SWIM without Lifeguard.
        PlainSwim "plain-swim",
    }
}

named! {
    /// What is done to the cluster.
    Scenario {
        /// Nothing.
        Steady "steady",
        /// One node dies and comes back, then the next.
        Crash "crash",
        /// Half of all die at once.
        Half "half",
        /// A zone is lost at once.
        Zone "zone",
        /// A fifth of all packets is lost.
        Loss "loss",
        /// One node loses 80 % both ways.
        Sick "sick",
        /// One node is mute, then another is deaf.
        OneWay "one-way",
        /// A tenth of the nodes stand still.
        Pause "pause",
        /// Two sides do not hear each other.
        Partition "partition",
        /// Nodes are restarted all the time.
        Churn "churn",
        /// A node that was dead comes back.
        Restart "restart",
    }
}

/// What a run is told.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct MembershipOptions {
    /// How many nodes; two or more.
    pub nodes: usize,
    /// What everything is drawn from.
    pub seed: u64,
    /// K: how many peers a node knows at most.
    pub k_list: usize,
    /// What finds out who is alive.
    pub detector: Detector,
    /// For how long scenarios that last, last; each has its own time if none.
    pub minutes: Option<f64>,
    /// How many deaths, restarts, broadcasts are measured, one after the other.
    pub rounds: usize,
    /// Invariants are checked at every so many steps. It does not change what happens.
    pub check_every: u64,
}

impl MembershipOptions {
    /// A run of the project's own machine with its default K.
    pub fn new(nodes: usize, seed: u64) -> MembershipOptions {
        MembershipOptions {
            nodes,
            seed,
            k_list: limits::DEFAULT_K_LIST,
            detector: Detector::Dogsled,
            minutes: None,
            rounds: 20,
            check_every: 1,
        }
    }

    /// The command that plays a scenario with these options.
    pub fn command(&self, scenario: &str) -> String {
        let MembershipOptions { nodes, seed, k_list, detector, minutes, rounds, .. } = self;
        let minutes = minutes.map_or(String::new(), |minutes| format!(" --minutes {minutes}"));
        format!(
            "dogsled sim membership --nodes {nodes} --seed {seed} --k-list {k_list} --scenario {scenario} \
             --detector {detector} --rounds {rounds}{minutes}"
        )
    }
}

/// Plays scenarios one after the other, each in a world of its own.
///
/// `clock` is asked for the real time, to tell the speed; nothing else depends on it.
pub fn run(options: MembershipOptions, scenarios: &[Scenario], clock: &mut dyn FnMut() -> Moment) -> MembershipReport {
    MembershipReport {
        detector: options.detector.name().into(),
        nodes: options.nodes,
        seed: options.seed,
        k_list: options.k_list.min(options.nodes - 1),
        scenarios: scenarios
            .iter()
            .map(|scenario| {
                let begun = clock();
                let mut report = match options.detector {
                    Detector::Dogsled => play::<Machine>(options, *scenario),
                    Detector::FullMesh => play::<FullMesh>(options, *scenario),
                    Detector::PlainSwim => play::<PlainSwim>(options, *scenario),
                };
                report.real_seconds = clock().since(begun).as_secs_f64();
                report
            })
            .collect(),
    }
}

/// Plays one scenario to its end, or up to a failed assertion.
fn play<M: Member>(options: MembershipOptions, scenario: Scenario) -> ScenarioReport {
    let mut stage = Stage::<M>::new(options);
    let ended = catch_unwind(AssertUnwindSafe(|| scenarios::play(scenario, &mut stage)));
    if let Err(panic) = ended {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default();
        let at = stage::seconds(stage.world.now);
        stage.promise("invariants hold", false, format!("{at:.3} s: {text}"));
    }
    ScenarioReport {
        scenario: scenario.name().into(),
        simulated_seconds: stage.simulated_seconds(),
        events: stage.events(),
        figures: stage.figures,
        checks: stage.promises,
        real_seconds: 0.0,
        replay: options.command(scenario.name()),
    }
}

#[cfg(test)]
#[path = "membership_tests.rs"]
mod tests;
