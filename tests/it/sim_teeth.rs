//! Bugs that are planted on purpose, and that the simulator must catch.
//!
//! Only with the build feature `seeded-bugs`:
//! `cargo test --features seeded-bugs --test it sim_teeth -- --nocapture` prints the table
//! that stands in docs/simulation.md.

use std::sync::Mutex;

use dogsled::sim::{self, SimOptions};
use dogsled::types::SeededBug;

/// A bug must be caught by one of so many seeds.
const SEEDS: u64 = 200;

/// How many seeds it takes, and what the first broken promise is.
fn hunt(bug: SeededBug) -> Option<(u64, String)> {
    SeededBug::plant(Some(bug));
    let caught = (1..=SEEDS).find_map(|seed| {
        let failure = sim::run(SimOptions::new(seed)).err()?;
        let broken: Vec<String> = failure.violations.iter().map(|violation| format!("{:?}", violation.check)).collect();
        Some((seed, broken.join(", ")))
    });
    SeededBug::plant(None);
    caught
}

#[test]
fn every_seeded_bug_is_caught() {
    let waiting = Mutex::new(SeededBug::ALL.iter().copied().rev().collect::<Vec<_>>());
    let found = Mutex::new(Vec::new());
    // Two at a time: each simulation is one thread.
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let Some(bug) = waiting.lock().expect("no hunter fails").pop() else { return };
                    let caught = hunt(bug);
                    found.lock().expect("no hunter fails").push((bug, caught));
                }
            });
        }
    });
    let mut found = found.into_inner().expect("no hunter fails");
    found.sort_by_key(|(bug, _)| SeededBug::ALL.iter().position(|other| other == bug));
    println!("| bug | what it does | seeds | promises that broke |\n| --- | --- | --- | --- |");
    for (bug, caught) in &found {
        let (seeds, broken) = caught
            .as_ref()
            .map_or((format!("not in {SEEDS}"), "none"), |(seeds, broken)| (seeds.to_string(), broken.as_str()));
        println!("| `{bug}` | {} | {seeds} | {broken} |", bug.description());
    }
    let missed: Vec<_> = found.iter().filter(|(_, caught)| caught.is_none()).map(|(bug, _)| bug.name()).collect();
    assert!(missed.is_empty(), "not caught: {missed:?}");
}
