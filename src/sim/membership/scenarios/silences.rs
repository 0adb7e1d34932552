//! Nodes stand still, or one half does not hear the other.

use crate::types::Moment;

use super::super::member::{HostIndex, Member};
use super::super::overlay::Overlay;
use super::super::stage::Stage;
use super::{PATIENCE, told};

/// How long a node stands still.
const PAUSE_US: u64 = 20_000_000;
/// Pauses begin at random within this time.
const PAUSES_BEGIN_US: u64 = 10_000_000;
/// Rounds of pauses.
const ROUNDS: usize = 3;
/// How long the two sides do not hear each other, in seconds.
const SPLIT: f64 = 30.0;
/// After the healing all are alive to all by then, in seconds. The issue asks for the time
/// only; this is a bound on what could be called healed.
const HEALED_WITHIN: f64 = 60.0;

/// A tenth of the nodes stand still for 20 seconds, at random.
pub(super) fn pause<M: Member>(stage: &mut Stage<M>) {
    stage.join();
    let (mut slowest, mut stuck) = (0.0_f64, 0);
    for _ in 0..ROUNDS.min(stage.options.rounds) {
        let count = (stage.world.hosts.len() / 10).max(1);
        let begun = stage.world.now.0;
        let paused = stage.pick_some(count);
        let mut turns: Vec<(u64, HostIndex, bool)> = Vec::new();
        for host in paused {
            let at = begun + stage.world.weather.within(PAUSES_BEGIN_US);
            turns.extend([(at, host, true), (at + PAUSE_US, host, false)]);
        }
        turns.sort_unstable();
        for (at, host, stop) in turns {
            stage.world.run_until(Moment(at));
            if stop {
                stage.world.watch.falls_sick(host);
                stage.world.pause(host);
            } else {
                stage.world.watch.recovers(host, stage.world.now);
                stage.world.resume(host);
            }
        }
        let took = stage.all_alive_to_all(PATIENCE);
        slowest = slowest.max(took.unwrap_or(PATIENCE));
        stuck += usize::from(took.is_none());
        stage.pass(20.0);
    }
    stage.figure("all are alive to all after the last goes on, max, s", slowest);
    let seen = format!("after {slowest:.2} s at most, not at all in {stuck} rounds");
    stage.promise("who stood still is alive to all again within 20 s", stuck == 0, seen);
    stage.nobody_accused("no healthy node is ever down to a healthy one");
    stage.broadcasts(true);
    stage.views();
}

/// Two sides that do not hear each other, and their healing.
pub(super) fn partition<M: Member>(stage: &mut Stage<M>) {
    stage.join();
    let count = stage.world.hosts.len();
    let one_side = stage.pick_some(count / 2);
    let mut sides = vec![0; count];
    one_side.iter().for_each(|host| sides[*host as usize] = 1);
    for host in 0..count as HostIndex {
        stage.world.watch.falls_sick(host);
    }
    stage.world.weather.split(sides.clone());
    stage.world.watch_links();
    stage.pass(SPLIT);
    let (mut across, mut within, mut pairs) = (0, 0, 0);
    for by in 0..count {
        for of in 0..count {
            let holds = usize::from(stage.world.watch.holds_down(by as HostIndex, of as HostIndex));
            if sides[by] == sides[of] {
                within += holds;
            } else {
                (across, pairs) = (across + holds, pairs + 1);
            }
        }
    }
    stage.figure(
        "of the other side, held for down when it heals, share",
        f64::from(across as u32) / f64::from(pairs.max(1)),
    );
    stage.promise("nobody on the same side is held for down", within == 0, format!("{within} are"));
    stage.world.weather.split(vec![0; count]);
    for host in 0..count as HostIndex {
        stage.world.watch.recovers(host, stage.world.now);
    }
    let begun = stage.world.now;
    let alive = stage.all_alive_to_all(HEALED_WITHIN);
    let whole = stage.wait(HEALED_WITHIN, |world| Overlay::of(world).is_whole());
    let whole = whole.map(|_| stage.world.now.since(begun).as_secs_f64());
    stage.figure("all are alive to all after the healing, s", alive.unwrap_or(f64::NAN));
    stage.figure("the overlay is whole after the healing, s", whole.unwrap_or(f64::NAN));
    stage.promise("all know that all are alive", alive.is_some(), told(alive, HEALED_WITHIN));
    stage.promise("the overlay is one again", whole.is_some(), told(whole, HEALED_WITHIN));
    stage.pass(10.0);
    let stays = stage.all_alive_to_all(0.0).is_some() && stage.overlay().is_whole();
    stage.promise("and it stays so", stays || alive.is_none(), if stays { "yes".into() } else { "no".into() });
    stage.broadcasts(true);
}
