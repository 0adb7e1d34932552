//! A cluster in one thread, from one seed.
//!
//! Problem: faults that meet once in a million requests must be met on purpose, and a
//! failure must be repeatable to the last event.
//!
//! How: the machines of [`crate::protocol`] run unchanged on a model of everything that
//! surrounds a node: a network that delays, blocks and resets connections, disks that lose
//! what was not synced, clocks that drift and jump, processes that die, stand still and
//! come back. Clients write unique values and read them back. All of it, the options of a
//! run included, is drawn from the seed.
//!
//! First the faults, then the healing: while faults last only the safety promises are
//! checked; once they are over, every request must succeed, and at the end everything
//! acknowledged must be there. [`Check`] lists the promises.
//!
//! Invariant: the same options give the same run, event for event
//! ([`SimReport::trace`]).
//!
//! Source: the habits of TigerBeetle's VOPR and FoundationDB's simulation.
//!
//! Left out: torn or corrupt disks, changes of the ring, hostile peers; what a truncation
//! has deleted is only checked at the end.

mod schedule;
mod plan;
mod clock;
mod network;
mod host;
mod operation;
mod history;
mod checks;
mod convergence;
mod faults;
mod clients;
mod draw;
mod siblings;
mod named;
mod scans;
mod steps;
mod trace;
mod world;
mod report;
pub mod membership;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

pub use history::{Check, Violation};
pub use report::{SimFailure, SimReport};

use world::World;

/// How far ahead another's clock may be, as servers are configured by default.
const MAX_CLOCK_SKEW: Duration = Duration::from_millis(500);

/// What a run is told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SimOptions {
    /// What everything is drawn from.
    pub seed: u64,
    /// How many servers; drawn if none.
    pub nodes: Option<usize>,
    /// For how long there are faults, in simulated time. Healing and the last reads come
    /// on top.
    pub time: Duration,
}

impl SimOptions {
    /// A run of ten seconds of faults.
    pub fn new(seed: u64) -> SimOptions {
        SimOptions { seed, nodes: None, time: Duration::from_secs(10) }
    }

    /// The command that runs it.
    pub fn command(&self) -> String {
        let nodes = self.nodes.map_or(String::new(), |nodes| format!(" --nodes {nodes}"));
        format!("dogsled sim --seed {}{nodes} --time {}", self.seed, self.time.as_secs_f64())
    }
}

/// Simulates a cluster.
///
/// # Errors
/// [`SimFailure`] if a promise was broken, with what led to it.
pub fn run(options: SimOptions) -> Result<SimReport, Box<SimFailure>> {
    let mut world = World::new(&options, false);
    let ended = complete(&mut world);
    if ended.is_ok() && world.history.violations.is_empty() {
        return Ok(world.report);
    }
    // Once more, to tell what happened: a run that fails, fails again.
    let mut world = World::new(&options, true);
    if let Err(panicked) = complete(&mut world) {
        world.history.violated(Check::Invariants, world.schedule.now, None, panicked);
    }
    Err(Box::new(SimFailure {
        seed: options.seed,
        history: world.history.told(),
        options: world.drawn,
        violations: world.history.violations,
        replay: options.command(),
    }))
}

/// Runs a world to its end, or up to a failed assertion.
fn complete(world: &mut World) -> Result<(), String> {
    catch_unwind(AssertUnwindSafe(|| world.run())).map_err(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default()
    })
}

#[cfg(test)]
#[path = "sim_tests.rs"]
mod tests;
