//! What is done to a cluster, and what is promised then. Bounds are those that
//! the membership was built by, unless a comment says otherwise.

mod quiet;
mod deaths;
mod losses;
mod silences;
mod returns;

use super::Scenario;
use super::member::Member;
use super::stage::Stage;

/// Every observer has a verdict, and every live node the news, by then, at p99, in seconds.
const NEWS_WITHIN: f64 = 6.0;
/// Longer is not waited for any news, in seconds.
const PATIENCE: f64 = 20.0;

/// Plays one scenario.
pub(super) fn play<M: Member>(scenario: Scenario, stage: &mut Stage<M>) {
    match scenario {
        Scenario::Steady => quiet::steady(stage),
        Scenario::Crash => deaths::crash(stage),
        Scenario::Half => deaths::half(stage),
        Scenario::Zone => deaths::zone(stage),
        Scenario::Loss => losses::everywhere(stage),
        Scenario::Sick => losses::sick(stage),
        Scenario::OneWay => losses::one_way(stage),
        Scenario::Pause => silences::pause(stage),
        Scenario::Partition => silences::partition(stage),
        Scenario::Churn => returns::churn(stage),
        Scenario::Restart => returns::restart(stage),
    }
    stage.told_and_held_agree();
    stage.figure("events a host in the busiest second", stage.world.busiest_second as f64);
}

/// `0.5 s`, or `not within 20 s`.
fn told(took: Option<f64>, most: f64) -> String {
    took.map_or_else(|| format!("not within {most} s"), |took| format!("after {took:.2} s"))
}
