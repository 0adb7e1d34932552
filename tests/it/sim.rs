//! Simulated clusters: seeds that once mattered, and seeds that nobody has run before.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use dogsled::sim::{self, SimOptions, SimReport};

/// Seeds that do much of everything, or that have failed once; they stay.
const REGRESSIONS: [u64; 17] =
    [1, 2, 3, 4, 7, 39, 70, 88, 99, 105, 189, 1141, 1419, 5321, 41903, 2_085_379_084, 100_381];

/// How many fresh seeds a plain run draws. `DOGSLED_SIM_SEEDS=n` asks for n.
const FRESH: u64 = 30;

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
    println!("seeds {first} to {}, {seconds} s of faults each", first + seeds - 1);
    let next = AtomicU64::new(first);
    let simulated_ms = AtomicU64::new(0);
    let began = dogsled::ambient::moment();
    // A simulation is one thread.
    let threads = std::thread::available_parallelism().map_or(1, |threads| threads.get().min(8));
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= first + seeds {
                        return;
                    }
                    let time = Duration::from_secs(seconds);
                    let report = sim::run(SimOptions { time, ..SimOptions::new(seed) });
                    let report = report.unwrap_or_else(|failure| panic!("\n{failure}\n"));
                    simulated_ms.fetch_add(report.simulated_ms, Ordering::Relaxed);
                }
            });
        }
    });
    let took = dogsled::ambient::moment().since(began).as_secs_f64();
    let simulated = simulated_ms.into_inner() as f64 / 1e3;
    println!("{simulated:.0} s simulated in {took:.1} s on {threads} threads");
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
