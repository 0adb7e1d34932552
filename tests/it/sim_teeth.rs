//! Bugs that are planted on purpose, and that the simulator must catch.
//!
//! Only with the build feature `seeded-bugs`:
//! `cargo test --features seeded-bugs --test it sim_teeth -- --nocapture` prints the table
//! that stands in docs/simulation.md.

use std::sync::Mutex;

use dogsled::sim::membership::{self, MembershipOptions, Scenario};
use dogsled::sim::{self, SimOptions};
use dogsled::types::{Moment, SeededBug};

/// A bug must be caught by one of so many seeds.
const SEEDS: u64 = 200;
/// One of the membership by one of so many.
const MEMBERSHIP_SEEDS: u64 = 5;

/// Bugs of the membership are hunted there, in the scenario that they spoil.
fn spoils(bug: SeededBug) -> Option<Scenario> {
    match bug {
        SeededBug::RefutationIgnored => Some(Scenario::Pause),
        SeededBug::LocalHealthOff => Some(Scenario::Sick),
        SeededBug::PassiveNotRefilled => Some(Scenario::Half),
        SeededBug::SuspicionNotConfirmed => Some(Scenario::Crash),
        SeededBug::ViewPastK => Some(Scenario::Steady),
        _ => None,
    }
}

/// Fifty nodes, as `sim_membership` runs them: without a bug every promise is kept.
fn hunt_in(bug: SeededBug, scenario: Scenario) -> Option<(u64, String)> {
    SeededBug::plant(Some(bug));
    let caught = (1..=MEMBERSHIP_SEEDS).find_map(|seed| {
        let options = MembershipOptions { rounds: 4, minutes: Some(1.0), ..MembershipOptions::new(50, seed) };
        let report = membership::run(options, &[scenario], &mut || Moment(0));
        println!("{bug}: {report}");
        let broken: Vec<String> =
            report.scenarios[0].broken().map(|promise| format!("{scenario}: {}", promise.name)).collect();
        (!broken.is_empty()).then(|| (seed, broken.join(", ")))
    });
    SeededBug::plant(None);
    caught
}

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
fn without_a_bug_the_scenarios_of_the_hunt_keep_every_promise() {
    for bug in SeededBug::ALL {
        let Some(scenario) = spoils(*bug) else { continue };
        let options = MembershipOptions { rounds: 4, minutes: Some(1.0), ..MembershipOptions::new(50, 1) };
        let report = membership::run(options, &[scenario], &mut || Moment(0));
        assert!(report.kept(), "{report}");
    }
}

/// What the scenarios of membership catch; the table stands in docs/membership.md.
#[test]
fn every_seeded_bug_of_the_membership_is_caught() {
    let missed: Vec<_> = SeededBug::ALL
        .iter()
        .filter(|bug| spoils(**bug).is_some_and(|scenario| hunt_in(**bug, scenario).is_none()))
        .map(|bug| bug.name())
        .collect();
    assert!(missed.is_empty(), "not caught: {missed:?}");
}

#[test]
fn every_seeded_bug_is_caught() {
    let waiting =
        Mutex::new(SeededBug::ALL.iter().copied().rev().filter(|bug| spoils(*bug).is_none()).collect::<Vec<_>>());
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
