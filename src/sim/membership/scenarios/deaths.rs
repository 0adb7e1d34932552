//! Nodes die: one, half of all, a zone.

use super::super::member::{HostIndex, Member};
use super::super::overlay::Overlay;
use super::super::samples::Samples;
use super::super::stage::Stage;
use super::{NEWS_WITHIN, PATIENCE, told};

/// Of the survivors this share hangs together from the first moment on. One whose
/// neighbours have all died (with eight of them, one in 256) must be found again.
const TOGETHER_AT_ONCE: f64 = 0.95;
/// All of them by then, in seconds. One that is left alone among the dead tries those first,
/// for a second each: of ten nodes that were cut down to two, up to 24 s were seen.
const WHOLE_WITHIN: f64 = 30.0;
/// After so long, in seconds, passive views must have been filled with live nodes again.
const REFILLED_AFTER: f64 = 60.0;
/// To this share of what they could hold.
const REFILLED: f64 = 0.75;

/// Nodes that have one in their active view.
pub(super) fn observers_of<M: Member>(stage: &Stage<M>, subject: HostIndex) -> Vec<HostIndex> {
    let hosts = (0..).zip(&stage.world.hosts);
    let watches = |member: &M| member.active().any(|peer| peer == subject);
    hosts.filter(|(_, host)| host.member.as_ref().is_some_and(watches)).map(|(host, _)| host).collect()
}

/// One dies and comes back, then the next.
pub(super) fn crash<M: Member>(stage: &mut Stage<M>) {
    stage.join();
    let (mut own, mut verdicts, mut news) = (Samples::default(), Samples::default(), Samples::default());
    let (mut observed, mut silent, mut unaware, mut stuck) = (Samples::default(), 0, 0, 0);
    for _ in 0..stage.options.rounds {
        let subject = stage.pick_live();
        let observers = observers_of(stage, subject);
        observed.push(observers.len() as f64);
        stage.world.watch.follow(subject, stage.world.now);
        stage.world.crash(subject);
        let live = stage.live();
        stage.wait(PATIENCE, |world| {
            let track = world.watch.track.as_ref().expect("it is followed");
            let own = observers.iter().all(|host| track.own_down[*host as usize].is_some());
            own && live.iter().all(|host| track.down[*host as usize].is_some())
        });
        let track = stage.world.watch.track.as_ref().expect("it is followed");
        let after = |at: crate::types::Moment| at.since(track.since).as_secs_f64();
        for host in observers.iter().map(|host| *host as usize) {
            if let Some(at) = track.own_down[host] {
                own.push(after(at));
            }
            // Whoever has heard the judgement of all needs no verdict of its own.
            match track.own_down[host].into_iter().chain(track.down[host]).min() {
                Some(at) => verdicts.push(after(at)),
                None => silent += 1,
            }
        }
        for host in live.iter().map(|host| *host as usize) {
            match track.down[host] {
                Some(at) => news.push(after(at)),
                None => unaware += 1,
            }
        }
        stage.world.start(subject);
        stuck += usize::from(stage.all_alive_to_all(PATIENCE).is_none());
        stage.pass(5.0);
    }
    stage.figure("observers of the dead, mean", observed.mean());
    stage.spread("an observer's own verdict", "s", &own);
    stage.spread("any verdict of an observer", "s", &verdicts);
    stage.spread("the news to every node", "s", &news);
    stage.figure("observers without a verdict", silent as f64);
    stage.figure("nodes without the news", unaware as f64);
    let seen = format!("p99 {:.2} s, max {:.2} s, {silent} have none", verdicts.percentile(0.99), verdicts.max());
    let kept = silent == 0 && verdicts.percentile(0.99) <= NEWS_WITHIN;
    stage.promise("every observer has a verdict within 6 s at p99", kept, seen);
    let seen = format!("p99 {:.2} s, max {:.2} s, {unaware} have not", news.percentile(0.99), news.max());
    let kept = unaware == 0 && news.percentile(0.99) <= NEWS_WITHIN;
    stage.promise("every live node has the news within 6 s at p99", kept, seen);
    stage.promise("who has come back is alive to all", stuck == 0, format!("{stuck} were not within {PATIENCE} s"));
    stage.nobody_accused("nobody else is accused");
}

/// Half of all die at once.
pub(super) fn half<M: Member>(stage: &mut Stage<M>) {
    stage.join();
    let count = stage.world.hosts.len() / 2;
    let dead = stage.pick_some(count);
    dead.iter().for_each(|host| stage.world.crash(*host));
    let at_once = stage.overlay().largest_part();
    stage.figure("survivors in the largest part at once, share", at_once);
    let seen = format!("{:.2} % of the survivors do", at_once * 100.0);
    // A handful of survivors may by chance have known only the dead.
    let survivors = stage.live().len();
    stage.promise("the overlay hangs together at once", survivors < 20 || at_once >= TOGETHER_AT_ONCE, seen);
    let whole = stage.wait(WHOLE_WITHIN, |world| Overlay::of(world).is_whole());
    stage.figure("whole again after, s", whole.unwrap_or(f64::NAN));
    stage.promise("it is whole again within 30 s", whole.is_some(), told(whole, WHOLE_WITHIN));
    let live = stage.live();
    let known =
        |world: &super::super::world::World<M>| dead.iter().all(|host| world.watch.holders(*host) == live.len());
    let all_known = stage.wait(PATIENCE, known);
    stage.figure(
        "all the dead are down to all survivors after, s",
        all_known.map_or(f64::NAN, |took| took + whole.unwrap_or(0.0)),
    );
    let held: usize = dead.iter().map(|host| stage.world.watch.holders(*host)).sum();
    stage.figure("of the dead, held for down, share", held as f64 / (dead.len() * live.len()).max(1) as f64);
    stage.broadcasts(true);
    stage.pass(REFILLED_AFTER);
    stage.views();
    if let Some(fill) = stage.passive_fill() {
        let seen = format!("{:.1} % of what they could hold lives", fill.mean() * 100.0);
        stage.promise("passive views are filled with live nodes again", fill.mean() >= REFILLED, seen);
    }
    let mark = stage.mark();
    stage.pass(30.0);
    stage.costs(&mark);
    stage.nobody_accused("no survivor is accused");
}

/// A zone is lost at once, large or small.
pub(super) fn zone<M: Member>(stage: &mut Stage<M>) {
    for (shares, lost) in [([90, 5, 5], 0), ([90, 5, 5], 1), ([50, 30, 20], 0), ([34, 33, 33], 2)] {
        let zones = zones_of(stage.options.nodes, shares);
        stage.renew(&zones);
        stage.join();
        let name = format!("{}/{}/{} without the zone of {} %", shares[0], shares[1], shares[2], shares[lost]);
        for host in (0..).zip(&zones).filter(|(_, zone)| usize::from(**zone) == lost).map(|(host, _)| host) {
            stage.world.crash(host);
        }
        let at_once = stage.overlay().largest_part();
        stage.figure(&format!("{name}: in the largest part at once, share"), at_once);
        let whole = stage.wait(WHOLE_WITHIN, |world| Overlay::of(world).is_whole());
        stage.figure(&format!("{name}: whole after, s"), whole.unwrap_or(f64::NAN));
        let seen = format!("{:.2} % at once, all {}", at_once * 100.0, told(whole, WHOLE_WITHIN));
        stage.promise(&format!("{name}: the rest is one overlay"), whole.is_some(), seen);
        stage.pass(PATIENCE);
        stage.nobody_accused(&format!("{name}: no survivor is accused"));
    }
}

/// Zones of these percentages, mixed among the node ids, each with a node at least.
fn zones_of(nodes: usize, shares: [usize; 3]) -> Vec<u16> {
    let small = [1, 2].map(|zone| (nodes * shares[zone] / 100).max(1));
    // A stride that shares no factor with the count visits everybody once.
    let stride = (nodes / 2 + 1..).find(|stride| gcd(*stride, nodes) == 1).expect("some number has no common factor");
    let mut zones = vec![0; nodes];
    for at in 0..small[0] + small[1] {
        zones[at * stride % nodes] = if at < small[0] { 1 } else { 2 };
    }
    zones
}

fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zones_have_their_sizes() {
        for (nodes, shares, sizes) in [
            (10, [90, 5, 5], [8, 1, 1]),
            (50, [90, 5, 5], [46, 2, 2]),
            (200, [50, 30, 20], [100, 60, 40]),
            (1_000, [34, 33, 33], [340, 330, 330]),
        ] {
            let zones = zones_of(nodes, shares);
            let found = [0, 1, 2].map(|zone| zones.iter().filter(|other| **other == zone).count());
            assert_eq!(found, sizes, "{nodes} nodes");
        }
    }
}
