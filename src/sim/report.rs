//! How a run ended.

use std::fmt;

use serde::Serialize;

use super::SimOptions;
use super::history::Violation;

/// A run in which every promise was kept.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct SimReport {
    /// What everything was drawn from.
    pub seed: u64,
    /// How many servers there were.
    pub nodes: usize,
    /// Questions that clients asked.
    pub operations: u64,
    /// Those that were answered with success.
    pub acknowledged: u64,
    /// Those that were certainly not carried out.
    pub refused: u64,
    /// Writes that were told to be in doubt.
    pub in_doubt: u64,
    /// Reads that took too long.
    pub timed_out: u64,
    /// Those of which the client never heard again.
    pub unanswered: u64,
    /// Servers that died, and came back.
    pub crashes: u64,
    /// Times at which all of them died together.
    pub power_cuts: u64,
    /// Connections that broke by themselves.
    pub resets: u64,
    /// Times at which some servers could not hear some others.
    pub partitions: u64,
    /// Servers that stood still for a while.
    pub pauses: u64,
    /// Clocks that were set.
    pub clock_jumps: u64,
    /// Cluster maps that came with a restart.
    pub new_maps: u64,
    /// Servers that learned that their disk went back in time.
    pub fenced: u64,
    /// Groups that the disks synced.
    pub commits: u64,
    /// Mutations in them.
    pub mutations: u64,
    /// Frames between servers.
    pub frames: u64,
    /// How long it took in the simulation, in milliseconds.
    pub simulated_ms: u64,
    /// Events.
    pub events: u64,
    /// A hash over all of them: the same seed gives the same hash.
    pub trace: String,
}

impl SimReport {
    pub(super) fn new(options: &SimOptions, nodes: usize) -> SimReport {
        SimReport {
            seed: options.seed,
            nodes,
            operations: 0,
            acknowledged: 0,
            refused: 0,
            in_doubt: 0,
            timed_out: 0,
            unanswered: 0,
            crashes: 0,
            power_cuts: 0,
            resets: 0,
            partitions: 0,
            pauses: 0,
            clock_jumps: 0,
            new_maps: 0,
            fenced: 0,
            commits: 0,
            mutations: 0,
            frames: 0,
            simulated_ms: 0,
            events: 0,
            trace: String::new(),
        }
    }
}

impl fmt::Display for SimReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "seed {}: every promise was kept", self.seed)?;
        writeln!(
            f,
            "  {} nodes, {:.1} s simulated in {} events, trace {}",
            self.nodes,
            self.simulated_ms as f64 / 1e3,
            self.events,
            self.trace
        )?;
        writeln!(
            f,
            "  {} operations: {} acknowledged, {} refused, {} in doubt, {} timed out, {} unanswered",
            self.operations, self.acknowledged, self.refused, self.in_doubt, self.timed_out, self.unanswered
        )?;
        writeln!(
            f,
            "  {} crashes, {} power cuts, {} resets, {} partitions, {} pauses, {} clocks set, {} new maps",
            self.crashes, self.power_cuts, self.resets, self.partitions, self.pauses, self.clock_jumps, self.new_maps
        )?;
        write!(f, "  {} frames; {} mutations in {} commits", self.frames, self.mutations, self.commits)
    }
}

/// A run in which a promise was broken.
#[derive(Clone, Debug)]
pub struct SimFailure {
    /// What everything was drawn from.
    pub seed: u64,
    /// What was broken: the first time for each promise, in the order of time.
    pub violations: Vec<Violation>,
    /// What was drawn.
    pub options: String,
    /// What happened to the key of the first violation, and around it.
    pub history: String,
    /// The command that does it again.
    pub replay: String,
}

impl fmt::Display for SimFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "seed {}: a promise was broken", self.seed)?;
        for Violation { check, at_us, what, .. } in &self.violations {
            writeln!(f, "  {:.6} s, {check:?}: {what}", *at_us as f64 / 1e6)?;
        }
        writeln!(f, "options drawn:\n{}", self.options)?;
        if !self.history.is_empty() {
            write!(f, "history:\n{}", self.history)?;
        }
        write!(f, "replay: {}", self.replay)
    }
}

impl std::error::Error for SimFailure {}
