//! The detector alone, among peers that answer or do not.

#[path = "detector_suspicion_tests.rs"]
mod suspicion;

use super::*;
use crate::types::{Incarnation, Load};

const ME: Life = Life { incarnation: Incarnation(1), refutation: 0 };
const BEGUN: Life = Life { incarnation: Incarnation(5), refutation: 0 };
/// Whom most of these tests are about.
const SUBJECT: u32 = 9;

fn node(number: u32) -> NodeId {
    NodeId::new(number).expect("not zero")
}

fn ms(time: u64) -> Duration {
    Duration::from_millis(time)
}

/// What others do with what they get.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Relays {
    Silent,
    Nack,
    Ack,
}

/// A detector that watches the peers 2 to 5 and the subject. All but the subject answer at once.
struct Bench {
    now: Moment,
    detector: Detector,
    counters: MembershipCounters,
    relays: Relays,
    subject_answers: bool,
    /// What it wanted, and when.
    wanted: Vec<(Moment, DetectorAction)>,
}

impl Bench {
    fn new(peers: &[u32], members: usize, seed: u64) -> Bench {
        let settings = MembershipSettings {
            me: node(1),
            incarnation: ME.incarnation,
            k_list: 24,
            seed,
            times: MembershipTimes::default(),
        };
        let now = Moment(1_000_000);
        let mut detector = Detector::new(now, &settings, members);
        peers.iter().for_each(|peer| detector.watch(now, node(*peer), BEGUN));
        let (counters, wanted) = (MembershipCounters::default(), Vec::new());
        Bench { now, detector, counters, relays: Relays::Nack, subject_answers: false, wanted }
    }

    fn usual(seed: u64) -> Bench {
        Bench::new(&[2, 3, 4, 5, SUBJECT], 10, seed)
    }

    fn hear(&mut self, from: u32, probe: Probe) -> Vec<DetectorAction> {
        let mut out = Vec::new();
        self.detector.hear(self.now, node(from), probe, ME, &mut self.counters, &mut out);
        self.detector.check_invariants();
        self.wanted.extend(out.iter().map(|action| (self.now, *action)));
        out
    }

    fn ack(&mut self, from: u32, id: ProbeId, life: Life) -> Vec<DetectorAction> {
        self.hear(from, Probe::Ack { id, life, load: Load::Normal, neighbor: true })
    }

    fn tick(&mut self) -> Vec<DetectorAction> {
        let mut out = Vec::new();
        self.detector.tick(self.now, ME, &mut self.counters, &mut out);
        self.detector.check_invariants();
        self.wanted.extend(out.iter().map(|action| (self.now, *action)));
        out
    }

    /// Lets time pass up to a moment, with answers as they are set.
    fn run_to(&mut self, end: Moment) {
        while self.detector.next_timeout() <= end {
            let next = self.detector.next_timeout();
            self.now = self.now.max(next);
            for action in self.tick() {
                self.others_answer(action);
            }
        }
        self.now = end;
    }

    fn others_answer(&mut self, action: DetectorAction) {
        let DetectorAction::Send { to, probe } = action else { return };
        match probe {
            Probe::Ping { id, .. } if to != node(SUBJECT) || self.subject_answers => {
                self.ack(to.number(), id, BEGUN);
            }
            Probe::PingFor { id, subject, .. } => match self.relays {
                Relays::Silent => {}
                Relays::Nack => drop(self.hear(to.number(), Probe::NackFor { id, subject })),
                Relays::Ack => drop(self.hear(to.number(), Probe::AckFor { id, subject, life: BEGUN })),
            },
            _ => {}
        }
    }

    fn run(&mut self, time: Duration) {
        self.run_to(self.now.plus(time));
    }

    /// Lets time pass until the subject is pinged; that ping's name, and what was wanted so far is forgotten.
    fn until_pinged(&mut self) -> ProbeId {
        self.wanted.clear();
        let end = self.now.plus(ms(30_000));
        while self.now < end {
            self.now = self.now.max(self.detector.next_timeout());
            let mut found = None;
            for action in self.tick() {
                match action {
                    DetectorAction::Send { to, probe: Probe::Ping { id, .. } } if to == node(SUBJECT) => {
                        found = Some(id);
                    }
                    DetectorAction::Send { probe: Probe::PingFor { .. }, .. } => {}
                    other => self.others_answer(other),
                }
            }
            if let Some(id) = found {
                self.wanted.clear();
                return id;
            }
        }
        panic!("it is not pinged");
    }

    /// Nobody else is pinged from now on.
    fn only_the_subject(&mut self) {
        self.detector.turn_at = Moment(u64::MAX);
        for (_, watched) in self.detector.watched.iter_mut().filter(|(peer, _)| **peer != node(SUBJECT)) {
            watched.probe_at = None;
        }
    }

    /// Lets time pass until the subject is suspect.
    fn until_suspect(&mut self) -> Moment {
        let end = self.now.plus(ms(30_000));
        while self.detector.health(node(SUBJECT)) == Some(Health::Alive) && self.now < end {
            self.run_to(self.now.max(self.detector.next_timeout()));
        }
        assert_eq!(self.detector.health(node(SUBJECT)), Some(Health::Suspect));
        self.now
    }

    /// What concerned the subject, in milliseconds from a moment: P ping, R ping through
    /// others, and what was judged.
    fn story(&self, since: Moment) -> Vec<(u64, char)> {
        let about = |action: &DetectorAction| match action {
            DetectorAction::Send { to, probe: Probe::Ping { .. } } if *to == node(SUBJECT) => Some('P'),
            DetectorAction::Send { probe: Probe::PingFor { subject, .. }, .. } if *subject == node(SUBJECT) => {
                Some('R')
            }
            DetectorAction::Judged { peer, health, .. } => {
                assert_eq!(*peer, node(SUBJECT), "somebody else is judged");
                Some(match health {
                    Health::Alive => 'A',
                    Health::Suspect => 'S',
                    Health::Down => 'D',
                })
            }
            DetectorAction::Send { .. } => None,
        };
        let told = self.wanted.iter().filter_map(|(at, action)| Some((*at, about(action)?)));
        told.map(|(at, what)| (at.since(since).as_millis() as u64, what)).collect()
    }

    fn suspicion(&self) -> &Suspicion {
        self.detector.watched[&node(SUBJECT)].suspected.as_ref().expect("it is suspect")
    }

    fn question(&mut self, life: Life, accuser: Option<u32>, tell: bool) {
        self.detector.questioned(self.now, node(SUBJECT), life, accuser.map(node), tell);
        self.detector.check_invariants();
    }
}

#[test]
fn peers_that_answer_are_pinged_in_turn_and_nothing_is_said_of_them() {
    let mut bench = Bench::usual(1);
    bench.subject_answers = true;
    bench.run(ms(1_000));
    bench.wanted.clear();
    bench.run(ms(25_000));
    let mut pinged: Vec<u32> = Vec::new();
    for (_, action) in &bench.wanted {
        match action {
            DetectorAction::Send { to, probe: Probe::Ping { life: ME, accused: None, neighbor: true, .. } } => {
                pinged.push(to.number());
            }
            other => panic!("nobody asked for {other:?}"),
        }
    }
    assert_eq!(pinged.len(), 50, "one every 500 ms");
    for peer in [2, 3, 4, 5, SUBJECT] {
        let times = pinged.iter().filter(|to| **to == peer).count();
        assert!((9..=11).contains(&times), "{peer} was pinged {times} times");
    }
    let counters = bench.counters;
    assert_eq!((counters.probes_failed, counters.indirect_probes, counters.suspicions), (0, 0, 0));
    assert_eq!((bench.detector.ill_health(), bench.detector.entries()), (0, 5), "nothing is left under way");
}

#[test]
fn a_second_probe_asks_others_at_once_and_again_and_then_it_is_suspect() {
    for seed in 0..20 {
        let mut bench = Bench::usual(seed);
        let first = bench.until_pinged();
        let began = bench.now;
        bench.only_the_subject();
        bench.run(ms(1_000));
        let expected = [
            (200, 'R'),
            (200, 'R'),
            (200, 'R'),
            (500, 'P'),
            (500, 'R'),
            (500, 'R'),
            (500, 'R'),
            (700, 'P'),
            (700, 'R'),
            (700, 'R'),
            (700, 'R'),
            (1_000, 'S'),
        ];
        assert_eq!(bench.story(began), expected, "seed {seed}");
        // The repeated ping is of the same probe, and no relay is asked twice at once.
        let mut pings = Vec::new();
        let mut relays: BTreeMap<(Moment, ProbeId), BTreeSet<NodeId>> = BTreeMap::new();
        for (at, action) in &bench.wanted {
            match action {
                DetectorAction::Send { to, probe: Probe::Ping { id, .. } } if *to == node(SUBJECT) => pings.push(*id),
                DetectorAction::Send { to, probe: Probe::PingFor { id, accused: None, .. } } => {
                    assert!(relays.entry((*at, *id)).or_default().insert(*to) && *to != node(SUBJECT));
                }
                _ => {}
            }
        }
        assert!(pings.len() == 2 && pings[0] == pings[1] && pings[0] != first, "{pings:?} after {first:?}");
        assert_eq!(relays.len(), 3);
        assert_eq!((bench.counters.suspicions, bench.counters.indirect_probes), (1, 9));
    }
}

#[test]
fn one_failed_probe_is_enough_if_others_accuse() {
    for (accuser, expected) in [(None, Health::Alive), (Some(3), Health::Suspect)] {
        let mut bench = Bench::usual(2);
        bench.until_pinged();
        bench.question(BEGUN, accuser, false);
        bench.run(ms(500));
        assert_eq!(bench.detector.health(node(SUBJECT)), Some(expected), "accused by {accuser:?}");
        assert_eq!(bench.detector.strikes(node(SUBJECT)), 1);
    }
}

#[test]
fn an_answer_takes_back_what_others_have_said() {
    let mut bench = Bench::usual(2);
    bench.subject_answers = true;
    bench.question(BEGUN, Some(3), false);
    bench.run(ms(1));
    assert!(!bench.detector.watched[&node(SUBJECT)].accused);
    bench.subject_answers = false;
    bench.until_pinged();
    bench.run(ms(500));
    assert_eq!(bench.detector.health(node(SUBJECT)), Some(Health::Alive), "one failed probe is not enough again");
}

#[test]
fn an_accusation_of_an_earlier_life_means_nothing() {
    let mut bench = Bench::usual(2);
    bench.until_pinged();
    bench.question(Life { incarnation: Incarnation(4), refutation: 9 }, Some(3), true);
    bench.run(ms(500));
    assert_eq!(bench.detector.health(node(SUBJECT)), Some(Health::Alive));
}

#[test]
fn relays_that_say_that_they_failed_keep_this_node_well() {
    // How many of the three relays say so, and how ill this node thinks it is.
    for (nacks, ill) in [(3, 0), (2, 1), (0, 1)] {
        let mut bench = Bench::usual(6);
        bench.relays = Relays::Silent;
        let id = bench.until_pinged();
        bench.only_the_subject();
        bench.run(ms(200));
        for from in 2..2 + nacks {
            bench.hear(from, Probe::NackFor { id, subject: node(SUBJECT) });
        }
        bench.run(ms(300));
        assert_eq!(bench.detector.strikes(node(SUBJECT)), 1);
        assert_eq!(bench.detector.ill_health(), ill, "{nacks} of 3 relays said that they failed");
    }
    // Where nobody can be asked, a failure may be this node's own.
    let mut bench = Bench::new(&[SUBJECT], 2, 6);
    bench.until_pinged();
    bench.run(ms(500));
    assert_eq!(bench.detector.ill_health(), 1);
}

#[test]
fn nacks_of_other_probes_and_of_other_peers_do_not_count() {
    let mut bench = Bench::usual(6);
    bench.relays = Relays::Silent;
    let id = bench.until_pinged();
    bench.only_the_subject();
    // Before anybody was asked nobody can have failed.
    for _ in 0..3 {
        bench.hear(2, Probe::NackFor { id, subject: node(SUBJECT) });
    }
    bench.run(ms(200));
    for from in 2..5 {
        bench.hear(from, Probe::NackFor { id, subject: node(8) });
        bench.hear(from, Probe::NackFor { id: ProbeId(id.0.wrapping_sub(40)), subject: node(SUBJECT) });
    }
    bench.run(ms(300));
    assert_eq!(bench.detector.ill_health(), 1);
}

#[test]
fn an_answer_through_another_is_as_good_as_a_direct_one() {
    let mut bench = Bench::usual(7);
    bench.relays = Relays::Ack;
    let began = bench.now;
    bench.run(ms(20_000));
    assert!(bench.story(began).iter().all(|(_, what)| "PR".contains(*what)));
    assert_eq!((bench.counters.probes_failed, bench.counters.suspicions), (0, 0));
    assert_eq!(bench.detector.round_trip(node(SUBJECT)), None, "how far away it is, that does not say");
    assert_eq!(bench.detector.round_trip(node(2)), Some(Duration::ZERO));
}

#[test]
fn what_was_not_asked_is_not_believed() {
    let mut bench = Bench::usual(7);
    bench.relays = Relays::Silent;
    let id = bench.until_pinged();
    let (subject, life) = (node(SUBJECT), BEGUN);
    let other = ProbeId(id.0.wrapping_add(1_000));
    let cases = [
        ("an answer of another", 2, Probe::Ack { id, life, load: Load::Normal, neighbor: true }),
        ("an answer to nothing", SUBJECT, Probe::Ack { id: other, life, load: Load::Normal, neighbor: true }),
        ("an answer through others before any was asked", 2, Probe::AckFor { id, subject, life }),
        ("an answer for another", 2, Probe::AckFor { id, subject: node(3), life }),
        ("a question", 2, Probe::Ping { id, life, accused: None, neighbor: true }),
    ];
    for (what, from, probe) in cases {
        let before = format!("{:?}", bench.detector);
        assert_eq!(bench.hear(from, probe), [], "{what}");
        assert_eq!(format!("{:?}", bench.detector), before, "{what}");
    }
    assert_eq!(bench.ack(SUBJECT, id, life), []);
    assert!(!bench.detector.pinged.contains_key(&id));
}

#[test]
fn who_asks_is_told() {
    let mut bench = Bench::usual(9);
    bench.subject_answers = true;
    bench.run(ms(1_000));
    let judged = |health| DetectorAction::Judged { peer: node(SUBJECT), life: BEGUN, health };
    for (tell, expected) in [(true, vec![judged(Health::Alive)]), (false, vec![])] {
        bench.question(BEGUN, Some(2), tell);
        assert_eq!(bench.detector.next_timeout(), bench.now, "it is looked at at once");
        bench.wanted.clear();
        bench.run(ms(100));
        let judged: Vec<DetectorAction> = bench.wanted.iter().map(|(_, action)| *action).collect();
        let judged: Vec<_> =
            judged.into_iter().filter(|action| matches!(action, DetectorAction::Judged { .. })).collect();
        assert_eq!(judged, expected);
    }
}

#[test]
fn all_times_grow_with_ill_health() {
    for ill in [0u32, 1, 8] {
        let mut bench = Bench::usual(17);
        bench.until_pinged();
        bench.detector.unwatch(node(SUBJECT));
        bench.detector.watch(bench.now, node(SUBJECT), BEGUN);
        bench.detector.ill_health = ill;
        bench.detector.look_at(bench.now, node(SUBJECT));
        let began = bench.now;
        // The answers of the others would make it well again.
        bench.only_the_subject();
        bench.wanted.clear();
        bench.run(ms(1_000 * u64::from(ill + 1)));
        let scale = u64::from(ill + 1);
        let expected = [(0, 'P'), (200, 'R'), (500, 'P'), (500, 'R'), (700, 'P'), (700, 'R'), (1_000, 'S')];
        let mut story = bench.story(began);
        story.dedup();
        assert_eq!(story, expected.map(|(at, what)| (at * scale, what)), "ill health {ill}");
        let lasts = bench.suspicion().until.since(bench.suspicion().since);
        // A suspicion not quite so much: a side that is cut off must come to a verdict.
        assert_eq!(lasts, ms(7_500 * scale.min(u64::from(MOST_PATIENCE))));
    }
}

#[test]
fn accusations_make_a_node_doubt_itself_and_answers_believe_in_itself() {
    let mut bench = Bench::usual(18);
    bench.subject_answers = true;
    for _ in 0..20 {
        bench.detector.was_accused();
    }
    assert_eq!(bench.detector.ill_health(), WORST);
    bench.run(ms(60_000));
    assert_eq!(bench.detector.ill_health(), 0);
}

#[test]
fn a_relay_pings_and_tells_how_it_went() {
    let asked = Probe::PingFor { id: ProbeId(77), subject: node(8), accused: Some(BEGUN) };
    let send = |to, probe| DetectorAction::Send { to: node(to), probe };
    let nack = send(3, Probe::NackFor { id: ProbeId(77), subject: node(8) });
    let ack_for = send(3, Probe::AckFor { id: ProbeId(77), subject: node(8), life: BEGUN.refuted() });
    let begin = || {
        let mut bench = Bench::new(&[], 10, 20);
        bench.detector.turn_at = Moment(u64::MAX);
        let actions = bench.hear(3, asked);
        let [DetectorAction::Send { to, probe: Probe::Ping { id, life, accused, neighbor } }] = actions[..] else {
            panic!("{actions:?}")
        };
        assert_eq!((to, life, accused, neighbor), (node(8), ME, Some(BEGUN), false));
        (bench, id)
    };
    // In time.
    let (mut bench, id) = begin();
    assert_eq!(bench.ack(7, id, BEGUN), [], "another's answer is none");
    assert_eq!(bench.ack(8, id, BEGUN.refuted()), [ack_for]);
    assert_eq!(bench.ack(8, id, BEGUN.refuted()), [], "once");
    assert_eq!(bench.detector.entries(), 0);
    // Not in time, and then after all: the asker hears both, well before its probe ends.
    let (mut bench, id) = begin();
    let began = bench.now;
    bench.run(ms(300));
    assert_eq!(bench.wanted[1..], [(began.plus(ms(240)), nack)]);
    assert_eq!(bench.ack(8, id, BEGUN.refuted()), [ack_for]);
    // Never.
    let (mut bench, id) = begin();
    bench.run(ms(5_240));
    assert_eq!(bench.wanted[1..], [(began.plus(ms(240)), nack)]);
    assert_eq!(bench.ack(8, id, BEGUN), []);
    assert_eq!(bench.detector.entries(), 0);
    assert_eq!(bench.counters.probes, 0, "these are not its own probes");
}

#[test]
fn pings_for_others_are_bounded() {
    let mut bench = Bench::new(&[], 10, 21);
    for number in 0..1_000 {
        let asked = Probe::PingFor { id: ProbeId(number), subject: node(8), accused: None };
        let expected = usize::from(number < RELAYED as u32);
        assert_eq!(bench.hear(3, asked).len(), expected, "the question {number}");
    }
    assert_eq!(bench.detector.entries(), RELAYED);
}

#[test]
fn names_of_probes_begin_anew_at_their_end() {
    let mut bench = Bench::usual(22);
    bench.detector.next_id = ProbeId(u32::MAX - 2);
    bench.subject_answers = true;
    bench.run(ms(10_000));
    assert!(bench.detector.next_id < ProbeId(100));
    assert_eq!(bench.counters.probes_failed, 0);
}

#[test]
fn the_time_to_an_answer_is_smoothed() {
    let mut bench = Bench::usual(23);
    let mut expected = None;
    for took in [40u64, 80, 0] {
        let id = bench.until_pinged();
        bench.now = bench.now.plus(ms(took));
        bench.ack(SUBJECT, id, BEGUN);
        let sample = ms(took);
        expected = Some(expected.map_or(sample, |known: Duration| (known * 7 + sample) / 8));
        assert_eq!(bench.detector.round_trip(node(SUBJECT)), expected);
    }
    assert_eq!(expected, Some(Duration::from_micros(39_375)));
}
