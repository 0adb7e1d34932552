//! Packets are lost: everywhere, around one node, in one direction.

use super::super::member::{HostIndex, Member};
use super::super::stage::Stage;
use super::{PATIENCE, told};

/// False verdicts in 1,000 node-hours under loss: fewer than this.
const FALSE_IN_1000_NODE_HOURS: f64 = 1.0;
/// Suspicions of sound nodes that one sick node may raise in a minute: it was seen to raise 4
/// to 29, and 91 with local health planted off. A detector without
/// it suspects most peers that it probes.
const SUSPICIONS_OF_THE_SICK_A_MINUTE: f64 = 45.0;
/// A node that is cut off in one direction is down to all by then, in seconds.
const CUT_OFF_WITHIN: f64 = 20.0;

/// A fifth of everything is lost, everywhere.
pub(super) fn everywhere<M: Member>(stage: &mut Stage<M>) {
    stage.join();
    let minutes = stage.options.minutes.unwrap_or(10.0);
    stage.world.weather.lose_everywhere(0.2);
    stage.world.watch_links();
    let mark = stage.mark();
    stage.pass(minutes * 60.0);
    stage.costs(&mark);
    let falsely = stage.world.watch.falsely.clone();
    let node_hours = stage.world.hosts.len() as f64 * minutes / 60.0;
    stage.figure("node-hours", node_hours);
    let rate = |count: u64| count as f64 * 1_000.0 / node_hours;
    for (name, count) in
        [("cluster-wide", falsely.cluster), ("of a node's own", falsely.own), ("suspicions", falsely.suspicions)]
    {
        stage.figure(&format!("false in 1,000 node-hours, {name}"), rate(count));
    }
    for (name, count) in [("DOWN", falsely.cluster), ("verdict of its own", falsely.own)] {
        let first = falsely.told.first().map_or(String::new(), |first| format!("; {first}"));
        let seen = format!("{count} in {node_hours:.1} node-hours, {:.2} in 1,000{first}", rate(count));
        let promise = format!("fewer than one false {name} in 1,000 node-hours");
        stage.promise(&promise, rate(count) < FALSE_IN_1000_NODE_HOURS, seen);
    }
    stage.broadcasts(false);
    stage.world.weather.lose_everywhere(0.0);
    stage.pass(30.0);
    stage.views();
}

fn disturb<M: Member>(stage: &mut Stage<M>, host: HostIndex, leaving: f64, entering: f64) {
    stage.world.watch.falls_sick(host);
    stage.world.weather.lose_of(host, leaving, entering);
    stage.world.watch_links();
}

fn calm<M: Member>(stage: &mut Stage<M>, host: HostIndex) {
    stage.world.weather.lose_of(host, 0.0, 0.0);
    stage.world.watch.recovers(host, stage.world.now);
}

/// One node loses most of what it sends and of what is sent to it.
pub(super) fn sick<M: Member>(stage: &mut Stage<M>) {
    stage.join();
    let minutes = stage.options.minutes.unwrap_or(3.0);
    let subject = stage.pick_live();
    disturb(stage, subject, 0.8, 0.8);
    let majority = stage.live().len() / 2;
    let judged = stage.wait(minutes * 60.0, |world| world.watch.holders(subject) > majority);
    stage.pass((minutes * 60.0 - judged.unwrap_or(minutes * 60.0)).max(0.0));
    stage.figure("the sick node is down to most after, s", judged.unwrap_or(f64::NAN));
    stage.promise("the sick node is judged", judged.is_some(), told(judged, minutes * 60.0));
    let suspicions = stage.world.watch.suspicions_by_the_sick as f64 / minutes;
    stage.figure("suspicions by the sick node a minute", suspicions);
    let kept = suspicions <= SUSPICIONS_OF_THE_SICK_A_MINUTE;
    let seen = format!("{suspicions:.1}, at most {SUSPICIONS_OF_THE_SICK_A_MINUTE}");
    stage.promise("the sick node holds back its accusations", kept, seen);
    calm(stage, subject);
    returned(stage, "the sick node");
    stage.nobody_accused("nobody else is judged");
}

/// Nothing that one node sends arrives; then nothing arrives at another.
pub(super) fn one_way<M: Member>(stage: &mut Stage<M>) {
    stage.join();
    for (name, leaving, entering) in [("the mute node", 1.0, 0.0), ("the deaf node", 0.0, 1.0)] {
        let subject = stage.pick_live();
        disturb(stage, subject, leaving, entering);
        let others = stage.live().len() - 1;
        let judged = stage.wait(CUT_OFF_WITHIN, |world| {
            world.watch.holders(subject) - usize::from(world.watch.holds_down(subject, subject)) >= others
        });
        stage.pass(60.0 - judged.unwrap_or(CUT_OFF_WITHIN));
        stage.figure(&format!("{name} is down to all after, s"), judged.unwrap_or(f64::NAN));
        stage.promise(&format!("{name} is judged by all"), judged.is_some(), told(judged, CUT_OFF_WITHIN));
        calm(stage, subject);
        returned(stage, name);
        stage.pass(15.0);
    }
    stage.nobody_accused("nobody else is judged");
}

fn returned<M: Member>(stage: &mut Stage<M>, name: &str) {
    let took = stage.all_alive_to_all(PATIENCE);
    stage.figure(&format!("all are alive to all after {name} is well again, s"), took.unwrap_or(f64::NAN));
    stage.promise(&format!("{name} is alive to all again"), took.is_some(), told(took, PATIENCE));
}
