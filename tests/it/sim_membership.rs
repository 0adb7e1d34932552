//! Simulated membership: small clusters in every scenario, on seeds that stay and on seeds
//! that nobody has run before. The large ones stand in docs/membership-figures.md.

use dogsled::sim::membership::{self, Detector, MembershipOptions, MembershipReport, Scenario};
use dogsled::types::Moment;

/// Seeds that stay.
const FIXED: [u64; 2] = [1, 2];

/// How many fresh seeds a plain run draws for each scenario. `DOGSLED_MEMBERSHIP_SEEDS=n`
/// asks for n.
const FRESH: u64 = 1;

/// A run with few rounds and short times; the same promises hold.
fn small(nodes: usize, seed: u64) -> MembershipOptions {
    MembershipOptions { rounds: 2, minutes: Some(1.0), ..MembershipOptions::new(nodes, seed) }
}

fn must_keep(options: MembershipOptions, scenario: Scenario) -> MembershipReport {
    println!("{}", options.command(scenario.name()));
    let report = membership::run(options, &[scenario], &mut || Moment(0));
    assert!(report.kept(), "\n{report}\n\n{}", report.broken().join("\n"));
    report
}

fn fixed_and_fresh() -> Vec<u64> {
    let fresh = std::env::var("DOGSLED_MEMBERSHIP_SEEDS").ok().and_then(|text| text.parse().ok()).unwrap_or(FRESH);
    let first = u64::from(u32::from_le_bytes(dogsled::ambient::seed()));
    FIXED.into_iter().chain(first..first + fresh).collect()
}

#[test]
fn ten_nodes_keep_every_promise() {
    for seed in fixed_and_fresh() {
        for scenario in Scenario::ALL {
            must_keep(small(10, seed), *scenario);
        }
    }
}

#[test]
fn fifty_nodes_keep_every_promise() {
    // One seed for each scenario: all of them differ from run to run.
    let seeds = fixed_and_fresh();
    for (at, scenario) in Scenario::ALL.iter().enumerate() {
        // Ten nodes check themselves at every step; here that is most of the time.
        must_keep(MembershipOptions { check_every: 10, ..small(50, seeds[at % seeds.len()]) }, *scenario);
    }
}

#[test]
fn a_list_of_five_is_enough_for_twelve() {
    for scenario in [Scenario::Steady, Scenario::Crash, Scenario::Pause] {
        must_keep(MembershipOptions { k_list: 5, ..small(12, 1) }, scenario);
    }
}

#[test]
fn a_run_repeats_itself() {
    let run = || must_keep(small(20, 4), Scenario::Pause);
    assert_eq!(run(), run());
}

#[test]
fn checking_changes_nothing() {
    let run = |check_every| must_keep(MembershipOptions { check_every, ..small(20, 4) }, Scenario::Crash);
    assert_eq!(run(1), run(1_000));
}

#[test]
fn the_baselines_are_compared_on_the_same_seeds() {
    let options = MembershipOptions { rounds: 1, minutes: Some(0.5), ..MembershipOptions::new(10, 1) };
    let comparison = membership::compare(options, &[10], &mut || Moment(0));
    let detectors: Vec<&str> = comparison.rows.iter().map(|row| row.detector.as_str()).collect();
    assert_eq!(detectors, Detector::ALL.iter().map(|detector| detector.name()).collect::<Vec<_>>());
    for row in &comparison.rows {
        assert!(row.datagrams > 0.0 && row.verdict_p99 > 0.0 && row.news_p99 < 10.0, "{row:?}");
    }
}
