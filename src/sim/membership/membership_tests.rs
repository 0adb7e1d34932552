//! The simulated network, with members that only note what happens to them; the baselines.

use std::cell::RefCell;
use std::time::Duration;

use crate::protocol::membership::MembershipCounters;
use crate::types::Moment;

use super::member::{HostIndex, Input, InputOf, Member, Output, OutputOf, Setup};
use super::world::World;
use super::*;

thread_local! {
    /// What has happened on this thread, to which host, when.
    static SEEN: RefCell<Vec<(u64, HostIndex, String)>> = const { RefCell::new(Vec::new()) };
}

/// A member that wants links as it is told in frames, and notes everything.
struct Recorder {
    me: HostIndex,
}

impl Member for Recorder {
    type Datagram = u32;
    type Frame = u32;
    const LINKED: bool = true;
    const BROADCASTS: bool = false;

    fn start(_now: Moment, setup: &Setup) -> Recorder {
        Recorder { me: setup.me }
    }

    fn handle(&mut self, now: Moment, input: InputOf<Recorder>, outputs: &mut Vec<OutputOf<Recorder>>) {
        // An epoch is how the tests speak to it: which links to want, or what to send.
        if let Input::Epoch(order) = input {
            match order.0 {
                0 => outputs.push(Output::Links(Vec::new())),
                1..100 => outputs.push(Output::Links(vec![order.0 as u32 - 1])),
                number => {
                    let (kind, to) = (number / 100, (number % 100) as u32);
                    outputs.push(match kind {
                        1 => Output::Datagram { to, datagram: 7 },
                        kind => Output::Frame { to, frame: kind as u32 },
                    });
                }
            }
            return;
        }
        let text = match input {
            Input::Datagram { from, .. } => format!("datagram from {from}"),
            Input::Frame { from, frame } => format!("frame {frame} from {from}"),
            Input::LinkUp { peer, incarnation } => format!("up {peer}.{incarnation}"),
            Input::LinkDown { peer, parted } => format!("down {peer}{}", if parted { " parted" } else { "" }),
            Input::Unreachable { peer } => format!("unreachable {peer}"),
            Input::Epoch(_) | Input::Tick => return,
        };
        SEEN.with_borrow_mut(|seen| seen.push((now.0, self.me, text)));
    }

    fn next_timeout(&self) -> Moment {
        Moment(u64::MAX)
    }
    fn datagram_bytes(_: &u32) -> usize {
        1_000
    }
    fn measured(frame: u32) -> (u32, usize) {
        (frame, 20)
    }
    fn spreads(_: &u32) -> bool {
        false
    }
    fn active(&self) -> impl Iterator<Item = HostIndex> + '_ {
        std::iter::empty()
    }
    fn passive(&self) -> impl Iterator<Item = HostIndex> + '_ {
        std::iter::empty()
    }
    fn capacity(&self) -> (usize, usize) {
        (1, 1)
    }
    fn holds_down(&self, _: HostIndex) -> bool {
        false
    }
    fn counters(&self) -> MembershipCounters {
        MembershipCounters::default()
    }
    fn state_entries(&self) -> usize {
        0
    }
    fn check_invariants(&self) {}
}

struct Scene {
    world: World<Recorder>,
}

impl Scene {
    /// Two hosts, of which the first wants the second; they have met.
    fn met() -> Scene {
        let mut scene = Scene { world: World::new(1, &[0, 0], 1, 1) };
        SEEN.with_borrow_mut(Vec::clear);
        (0..2).for_each(|host| scene.world.start(host));
        scene.order(0, 2);
        scene.pass(100);
        assert_eq!(scene.seen(), ["0: up 1.1", "1: up 0.1"]);
        scene
    }

    fn order(&mut self, host: HostIndex, order: u64) {
        self.world.tell(host, Input::Epoch(crate::types::Epoch(order)));
    }

    fn pass(&mut self, millis: u64) {
        let until = self.world.now.plus(Duration::from_millis(millis));
        self.world.run_until(until);
    }

    /// What has happened since it was looked at last.
    fn seen(&mut self) -> Vec<String> {
        let seen = SEEN.with_borrow_mut(std::mem::take);
        seen.into_iter().map(|(_, host, text)| format!("{host}: {text}")).collect()
    }
}

#[test]
fn frames_come_in_order_and_datagrams_come() {
    let mut scene = Scene::met();
    for kind in 2..50 {
        scene.order(0, kind * 100 + 1);
    }
    scene.order(1, 100);
    scene.pass(50);
    let mut expected: Vec<String> = (2..50).map(|kind| format!("1: frame {kind} from 0")).collect();
    let mut seen = scene.seen();
    seen.retain(|text| text != "0: datagram from 1");
    assert_eq!(seen, expected);
    // With loss they come in order all the same, later.
    scene.world.weather.lose_everywhere(0.5);
    scene.world.watch_links();
    for kind in 2..50 {
        scene.order(0, kind * 100 + 1);
    }
    scene.pass(5_000);
    assert_eq!(scene.seen(), expected);
    scene.world.weather.lose_everywhere(0.0);
    scene.order(0, 201);
    scene.pass(50);
    expected.truncate(1);
    assert_eq!(scene.seen(), expected);
}

#[test]
fn a_death_is_heard_as_silence_and_who_comes_back_says_that_it_knows_nothing() {
    let mut scene = Scene::met();
    scene.world.crash(1);
    scene.pass(2_400);
    assert!(scene.seen().is_empty());
    // The idle timeout, then an attempt to connect that fails.
    scene.pass(2_000);
    assert_eq!(scene.seen(), ["0: down 1", "0: unreachable 1"]);
    scene.world.start(1);
    scene.pass(2_000);
    // One attempt more may have begun before.
    assert!(scene.seen().ends_with(&["0: up 1.2".into(), "1: up 0.1".into()]));
    scene.world.crash(1);
    scene.world.start(1);
    scene.order(0, 101);
    scene.pass(10);
    assert_eq!(scene.seen(), ["0: down 1", "0: up 1.3", "1: up 0.1"]);
}

#[test]
fn both_ends_of_a_cut_learn_by_silence_and_meet_again() {
    let mut scene = Scene::met();
    scene.world.weather.split(vec![0, 1]);
    scene.world.watch_links();
    scene.pass(3_100);
    let mut seen = scene.seen();
    seen.sort();
    assert_eq!(seen, ["0: down 1", "1: down 0"]);
    scene.pass(5_000);
    assert!(scene.seen().iter().all(|text| text == "0: unreachable 1"));
    scene.world.weather.split(vec![0, 0]);
    scene.pass(2_000);
    let seen = scene.seen();
    assert!(seen.ends_with(&["0: up 1.1".into(), "1: up 0.1".into()]), "{seen:?}");
}

#[test]
fn a_mute_host_is_given_up_first_by_the_other() {
    let mut scene = Scene::met();
    scene.world.weather.lose_of(0, 1.0, 0.0);
    scene.world.watch_links();
    scene.pass(3_100);
    assert_eq!(scene.seen(), ["1: down 0"]);
    scene.pass(3_100);
    assert_eq!(scene.seen()[0], "0: down 1");
}

#[test]
fn a_pause_keeps_what_its_sockets_hold() {
    let mut scene = Scene::met();
    scene.world.pause(1);
    for _ in 0..100 {
        scene.order(0, 101);
    }
    scene.order(0, 201);
    scene.pass(1_000);
    assert!(scene.seen().is_empty());
    scene.world.resume(1);
    let seen = scene.seen();
    // 64 KiB of datagrams, here of 1,000 bytes, and all frames.
    assert_eq!(seen.iter().filter(|text| *text == "1: datagram from 0").count(), 65);
    assert_eq!(seen.iter().filter(|text| *text == "1: frame 2 from 0").count(), 1);
    scene.pass(60_000);
    assert!(scene.seen().is_empty(), "a pause of a second breaks nothing");
    scene.world.pause(1);
    scene.pass(20_000);
    assert_eq!(scene.seen()[0], "0: down 1");
    scene.world.resume(1);
    assert_eq!(scene.seen(), ["1: down 0"]);
    scene.pass(2_000);
    assert_eq!(scene.seen().iter().filter(|text| text.contains("up")).count(), 2);
}

#[test]
fn a_link_that_nobody_wants_is_closed_once_it_is_idle() {
    let mut scene = Scene::met();
    scene.order(0, 0);
    scene.pass(20_000);
    scene.order(1, 100);
    scene.pass(20_000);
    assert_eq!(scene.seen(), ["0: datagram from 1"]);
    scene.pass(15_000);
    assert_eq!(scene.seen(), ["0: down 1 parted", "1: down 0 parted"]);
}

#[test]
fn a_link_bears_a_fifth_of_loss() {
    let mut scene = Scene::met();
    scene.world.weather.lose_everywhere(0.2);
    scene.world.watch_links();
    scene.pass(3_600_000);
    assert!(scene.seen().is_empty());
    scene.world.weather.lose_everywhere(0.9);
    scene.pass(600_000);
    assert!(!scene.seen().is_empty());
}

fn baseline(detector: Detector, nodes: usize, scenario: Scenario) -> ScenarioReport {
    let options = MembershipOptions { detector, rounds: 3, minutes: Some(1.0), ..MembershipOptions::new(nodes, 3) };
    println!("{}", options.command(scenario.name()));
    run(options, &[scenario], &mut || Moment(0)).scenarios.remove(0)
}

#[test]
fn the_baselines_find_the_dead_and_accuse_nobody_in_calm_weather() {
    for detector in [Detector::FullMesh, Detector::PlainSwim] {
        for scenario in [Scenario::Steady, Scenario::Crash, Scenario::Restart] {
            let report = baseline(detector, 10, scenario);
            let broken: Vec<_> = report.broken().filter(|promise| !promise.name.contains("within 1 s")).collect();
            assert!(broken.is_empty(), "{detector} {scenario}: {broken:?}");
        }
    }
}

#[test]
fn the_baselines_cost_what_they_are_known_for() {
    let mesh = |nodes| baseline(Detector::FullMesh, nodes, Scenario::Steady).figure("datagrams a second, mean");
    // A ping and an ack to each other, twice a second.
    for (nodes, expected) in [(5, 16.0), (20, 76.0)] {
        let datagrams = mesh(nodes).expect("it is measured");
        assert!((datagrams - expected).abs() < 1.0, "{nodes} nodes: {datagrams}");
    }
    let swim = baseline(Detector::PlainSwim, 20, Scenario::Steady).figure("datagrams a second, mean");
    assert!((swim.expect("it is measured") - 4.0).abs() < 0.1, "{swim:?}");
}

#[test]
fn a_run_repeats_itself() {
    let run = || baseline(Detector::PlainSwim, 10, Scenario::Loss);
    assert_eq!(run(), run());
}

#[test]
fn the_mesh_accuses_under_loss() {
    // The oracle of false verdicts has something to see.
    let report = baseline(Detector::FullMesh, 20, Scenario::Loss);
    assert!(report.figure("false in 1,000 node-hours, cluster-wide").expect("it is measured") > 1.0, "{report:?}");
}
