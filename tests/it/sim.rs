//! Simulated clusters: seeds that once mattered, and seeds that nobody has run before.

use std::time::Duration;

use dogsled::sim::{self, SimOptions, SimReport};

/// Seeds that do much of everything, or that have failed once; they stay.
const REGRESSIONS: [u64; 5] = [1, 2, 3, 4, 1141];

/// How many fresh seeds a plain run draws. `DOGSLED_SIM_SEEDS=n` asks for n.
const FRESH: u64 = 6;

fn must_pass(options: SimOptions) -> SimReport {
    println!("{}", options.command());
    sim::run(options).unwrap_or_else(|failure| panic!("\n{failure}\n"))
}

#[test]
fn seeds_that_once_failed_pass() {
    for seed in REGRESSIONS {
        must_pass(SimOptions { time: Duration::from_secs(5), ..SimOptions::new(seed) });
    }
}

#[test]
fn fresh_seeds_pass() {
    let seeds = std::env::var("DOGSLED_SIM_SEEDS").ok().and_then(|text| text.parse().ok()).unwrap_or(FRESH);
    let first = u64::from(u32::from_le_bytes(dogsled::ambient::seed()));
    let seconds = std::env::var("DOGSLED_SIM_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(5);
    for seed in first..first + seeds {
        println!("{}", must_pass(SimOptions { time: Duration::from_secs(seconds), ..SimOptions::new(seed) }));
    }
}

#[test]
fn a_run_repeats_itself() {
    let options = SimOptions { time: Duration::from_secs(3), ..SimOptions::new(5) };
    assert_eq!(must_pass(options), must_pass(options));
}

#[test]
fn a_larger_cluster_runs() {
    let options = SimOptions { seed: 11, nodes: Some(25), time: Duration::from_secs(2) };
    assert_eq!(must_pass(options).nodes, 25);
}
