//! Nodes come back: one at a time, or all the time.

use crate::types::Moment;

use super::super::member::{HostIndex, Member};
use super::super::overlay::Overlay;
use super::super::samples::Samples;
use super::super::stage::Stage;
use super::deaths::observers_of;
use super::{PATIENCE, told};

/// A returned node is noticed by those that watched it by then, at p99, in seconds.
const NOTICED_WITHIN: f64 = 1.0;
/// And by everybody, as any broadcast is, in seconds.
const KNOWN_WITHIN: f64 = 2.0;
/// For at most so long a node is gone, in microseconds.
const GONE_US: u64 = 8_000_000;

/// A node that was down to all comes back.
pub(super) fn restart<M: Member>(stage: &mut Stage<M>) {
    stage.join();
    let (mut observers_know, mut all_know, mut unaware) = (Samples::default(), Samples::default(), 0);
    for _ in 0..stage.options.rounds {
        let subject = stage.pick_live();
        let observers = observers_of(stage, subject);
        stage.world.crash(subject);
        let others = stage.live();
        stage.wait(PATIENCE, |world| world.watch.holders(subject) == others.len());
        stage.pass(5.0);
        let held: Vec<HostIndex> =
            others.iter().copied().filter(|host| stage.world.watch.holds_down(*host, subject)).collect();
        stage.world.watch.follow(subject, stage.world.now);
        stage.world.start(subject);
        stage.all_alive_to_all(PATIENCE);
        let watch = &stage.world.watch;
        let track = watch.track.as_ref().expect("it is followed");
        for host in held {
            match track.alive[host as usize].filter(|_| !watch.holds_down(host, subject)) {
                Some(at) => {
                    let took = at.since(track.since).as_secs_f64();
                    all_know.push(took);
                    if observers.contains(&host) {
                        observers_know.push(took);
                    }
                }
                None => unaware += 1,
            }
        }
        stage.pass(10.0);
    }
    stage.spread("alive again to those that watched it", "s", &observers_know);
    stage.spread("alive again to all", "s", &all_know);
    for (name, samples, most) in [
        ("a returned node is noticed by its observers within 1 s at p99", &observers_know, NOTICED_WITHIN),
        ("a returned node is known to all within 2 s at p99", &all_know, KNOWN_WITHIN),
    ] {
        let seen = format!("p99 {:.2} s, max {:.2} s, {unaware} never", samples.percentile(0.99), samples.max());
        stage.promise(name, unaware == 0 && samples.percentile(0.99) <= most, seen);
    }
    stage.nobody_accused("nobody else is accused");
}

/// Nodes die and come back all the time.
pub(super) fn churn<M: Member>(stage: &mut Stage<M>) {
    stage.join();
    let count = stage.world.hosts.len();
    let minutes = stage.options.minutes.unwrap_or(3.0);
    let end = stage.world.now.0 + (minutes * 60e6) as u64;
    // Each node once in two minutes, as it comes.
    let pause = 120_000_000 / count as u64;
    let mut gone: Vec<(u64, HostIndex)> = Vec::new();
    let (mut next, mut restarts) = (stage.world.now.0, 0);
    loop {
        let back = gone.iter().copied().min();
        match back {
            Some((at, host)) if at <= next || next >= end => {
                stage.world.run_until(Moment(at));
                gone.retain(|(_, other)| *other != host);
                stage.world.start(host);
            }
            _ if next >= end => break,
            _ => {
                stage.world.run_until(Moment(next));
                if gone.len() < (count / 5).max(1) {
                    let host = stage.pick_live();
                    stage.world.crash(host);
                    gone.push((next + 100_000 + stage.world.weather.within(GONE_US), host));
                    restarts += 1;
                }
                next += 1 + stage.world.weather.within(2 * pause);
            }
        }
    }
    stage.figure("restarts", f64::from(restarts));
    let whole = stage.wait(PATIENCE, |world| Overlay::of(world).is_whole());
    stage.figure("whole after the last start, s", whole.unwrap_or(f64::NAN));
    stage.promise("the overlay is whole again", whole.is_some(), told(whole, PATIENCE));
    let alive = stage.all_alive_to_all(PATIENCE);
    stage.figure("all are alive to all after the last start, s", alive.unwrap_or(f64::NAN));
    stage.promise("all are alive to all", alive.is_some(), told(alive, PATIENCE));
    stage.nobody_accused("nobody that runs is accused");
    stage.broadcasts(true);
    stage.pass(60.0);
    stage.views();
}
