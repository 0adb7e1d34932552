//! One machine alone, its peers played by hand.

#[path = "membership_strangers_tests.rs"]
mod strangers;

use super::*;
use crate::wire::{ProbeId, RumourId};

const BEGUN: Life = Life { incarnation: Incarnation(1), refutation: 0 };

fn ms(time: u64) -> Duration {
    Duration::from_millis(time)
}

fn life(refutation: u32) -> Life {
    Life { refutation, ..BEGUN }
}

/// Node 1 with the neighbours 2 to 5, which answer unless they are silent.
struct Alone {
    now: Moment,
    machine: Membership,
    silent: BTreeSet<NodeId>,
    number: u64,
    /// What it wanted while time passed.
    wanted: Vec<MembershipAction>,
}

impl Alone {
    fn of(me: u32, members: u32) -> Alone {
        let settings = MembershipSettings {
            me: node(me),
            incarnation: BEGUN.incarnation,
            k_list: 24,
            seed: u64::from(me),
            times: MembershipTimes::default(),
        };
        let now = Moment(1_000_000);
        let roster = Arc::new(Roster::new((1..=members).map(|number| (node(number), 0))));
        let machine = Membership::new(now, settings, roster);
        Alone { now, machine, silent: BTreeSet::new(), number: 0, wanted: Vec::new() }
    }

    fn new() -> Alone {
        let mut alone = Alone::of(1, 12);
        for number in 2..=5 {
            alone.link(number);
            alone.gossip(number, Gossip::Join);
        }
        assert_eq!(alone.machine.active().count(), 4);
        alone.run(ms(1_500));
        assert_eq!(alone.machine.counters().refutations, 0);
        alone
    }

    fn step(&mut self, input: MembershipInput) -> Vec<MembershipAction> {
        let mut actions = Vec::new();
        self.machine.handle(self.now, input, &mut actions);
        self.machine.check_invariants();
        actions
    }

    fn link(&mut self, number: u32) -> Vec<MembershipAction> {
        self.step(MembershipInput::LinkUp { peer: node(number), incarnation: BEGUN.incarnation })
    }

    fn gossip(&mut self, from: u32, gossip: Gossip) -> Vec<MembershipAction> {
        self.step(MembershipInput::Gossip { from: node(from), gossip })
    }

    fn probe(&mut self, from: u32, probe: Probe) -> Vec<MembershipAction> {
        self.step(MembershipInput::Probe { from: node(from), probe })
    }

    /// A rumour, brought by the neighbour 2.
    fn rumour(&mut self, origin: u32, rumour: Rumour) -> Vec<MembershipAction> {
        self.number += 1;
        let id = RumourId { origin: node(origin), incarnation: Incarnation(1), number: self.number };
        self.gossip(2, Gossip::Rumour { id, hops: 1, rumour })
    }

    fn opinion(&mut self, observer: u32, subject: u32, refutation: u32, health: Health) -> Vec<MembershipAction> {
        self.rumour(observer, Rumour::Opinion { subject: node(subject), life: life(refutation), health })
    }

    /// Lets time pass; who is pinged answers.
    fn run(&mut self, time: Duration) {
        let end = self.now.plus(time);
        while self.machine.next_timeout() <= end {
            self.now = self.now.max(self.machine.next_timeout());
            for action in self.step(MembershipInput::Tick) {
                match action {
                    MembershipAction::Probe { to, probe: Probe::Ping { id, .. } } if !self.silent.contains(&to) => {
                        let probe = Probe::Ack { id, life: BEGUN, load: Load::Normal, neighbor: true };
                        let more = self.probe(to.number(), probe);
                        self.wanted.extend(more);
                    }
                    MembershipAction::Probe { to, probe: Probe::PingFor { id, subject, .. } } => {
                        self.probe(to.number(), Probe::NackFor { id, subject });
                    }
                    other => self.wanted.push(other),
                }
            }
        }
        self.now = end;
    }

    fn take(&mut self) -> Vec<MembershipAction> {
        std::mem::take(&mut self.wanted)
    }

    /// Everything that it knows, what it has counted left out.
    fn knowledge(&mut self) -> String {
        let counters = std::mem::take(&mut self.machine.counters.ignored);
        let known = format!("{:?}", self.machine);
        self.machine.counters.ignored = counters;
        known
    }
}

/// The rumours that node 1 begins, each once.
fn begun(actions: &[MembershipAction]) -> Vec<Rumour> {
    let mut begun = BTreeMap::new();
    for action in actions {
        if let MembershipAction::Gossip { gossip: Gossip::Rumour { id, hops: 1, rumour }, .. } = action
            && id.origin == node(1)
        {
            begun.insert(*id, *rumour);
        }
    }
    begun.into_values().collect()
}

fn changes(actions: &[MembershipAction]) -> Vec<MemberChange> {
    let changes = actions.iter().filter_map(|action| match action {
        MembershipAction::Changed(change) => Some(*change),
        _ => None,
    });
    changes.collect()
}

fn cluster(member: u32, refutation: u32, health: Health) -> MemberChange {
    MemberChange::Cluster { member: node(member), life: life(refutation), health }
}

fn own(member: u32, refutation: u32, health: Health) -> MemberChange {
    MemberChange::Own { member: node(member), life: life(refutation), health }
}

fn standing(down: Vec<(NodeId, Life)>, alive: Vec<(NodeId, Life)>, refutation: u32) -> Gossip {
    Gossip::Standing { life: life(refutation), load: Load::Normal, down, alive }
}

fn tell(to: u32, gossip: Gossip) -> MembershipAction {
    MembershipAction::Gossip { to: node(to), gossip }
}

fn standings(actions: &[MembershipAction]) -> usize {
    let is_standing =
        |action: &&MembershipAction| matches!(action, MembershipAction::Gossip { gossip: Gossip::Standing { .. }, .. });
    actions.iter().filter(is_standing).count()
}

#[test]
fn a_stall_is_noticed_once_however_much_has_piled_up() {
    // How long the node stands still, and whether it notices, and whether it speaks up.
    for (stood, stalls, refutations) in [(999, 0, 0), (1_400, 1, 0), (1_600, 1, 1), (60_000, 1, 1)] {
        let mut alone = Alone::new();
        alone.now = alone.machine.next_timeout().plus(ms(stood));
        for _ in 0..100 {
            alone.gossip(3, Gossip::Have { ids: Vec::new() });
            alone.probe(4, Probe::NackFor { id: ProbeId(7), subject: node(5) });
            alone.now = alone.now.plus(Duration::from_micros(1));
        }
        alone.step(MembershipInput::Tick);
        let counters = alone.machine.counters();
        assert_eq!((counters.stalls, counters.refutations), (stalls, refutations), "after {stood} ms");
        assert_eq!(alone.machine.life(), life(refutations as u32));
        assert!(stalls == 0 || alone.machine.ill_health() >= 8, "it accuses nobody in a hurry");
    }
}

#[test]
fn an_accusation_is_refuted_in_a_later_life() {
    let cases = [
        (Rumour::Opinion { subject: node(1), life: BEGUN, health: Health::Suspect }, Some(1)),
        (Rumour::Opinion { subject: node(1), life: BEGUN, health: Health::Down }, Some(1)),
        (Rumour::Opinion { subject: node(1), life: BEGUN, health: Health::Alive }, None),
        (Rumour::Doubt { subject: node(1), life: BEGUN }, Some(1)),
        (Rumour::Doubt { subject: node(1), life: life(7) }, Some(8)),
    ];
    for (rumour, expected) in cases {
        let mut alone = Alone::new();
        let actions = alone.rumour(9, rumour);
        let refuted = expected.map(|refutation| Rumour::Alive(life(refutation)));
        assert_eq!(begun(&actions), refuted.into_iter().collect::<Vec<_>>(), "{rumour:?}");
        assert_eq!(alone.machine.life(), life(expected.unwrap_or(0)));
        assert_eq!(alone.machine.ill_health(), u32::from(expected.is_some()), "perhaps it is not well");
    }
    // A start that was not: somebody else, or a disk put back.
    let mut alone = Alone::new();
    let later = Life::begun(Incarnation(2));
    assert_eq!(begun(&alone.rumour(9, Rumour::Doubt { subject: node(1), life: later })), []);
    assert_eq!((alone.machine.life(), alone.machine.counters().ignored), (BEGUN, 1));
}

#[test]
fn who_has_missed_a_refutation_is_told_again_once_a_second() {
    let mut alone = Alone::new();
    alone.rumour(9, Rumour::Doubt { subject: node(1), life: BEGUN });
    let again = [Rumour::Alive(life(1))];
    // In milliseconds since the one before, and whether it is said again.
    let cases = [(0, true), (1, false), (998, false), (1, true), (500, false), (500, true), (30_000, true)];
    for (at, (later, told)) in cases.into_iter().enumerate() {
        alone.run(ms(later));
        let actions = match at % 3 {
            0 => alone.opinion(9, 1, 0, Health::Suspect),
            1 => alone.opinion(8, 1, 0, Health::Down),
            _ => alone.rumour(7, Rumour::Doubt { subject: node(1), life: BEGUN }),
        };
        assert_eq!(begun(&actions), if told { &again[..] } else { &[] }, "case {at}");
    }
    assert_eq!((alone.machine.life(), alone.machine.counters().refutations), (life(1), 1), "it needs no later life");
}

#[test]
fn a_ping_that_accuses_is_answered_in_a_later_life() {
    let ping = |accused| Probe::Ping { id: ProbeId(7), life: BEGUN, accused, neighbor: true };
    let ack = |refutation| MembershipAction::Probe {
        to: node(2),
        probe: Probe::Ack { id: ProbeId(7), life: life(refutation), load: Load::Normal, neighbor: true },
    };
    let mut alone = Alone::new();
    assert_eq!(alone.probe(2, ping(None)), [ack(0)]);
    let actions = alone.probe(2, ping(Some(BEGUN)));
    assert_eq!((&actions[0], begun(&actions)), (&ack(1), vec![Rumour::Alive(life(1))]));
    assert_eq!(alone.probe(2, ping(Some(BEGUN))), [ack(1)], "that was another life");
}

#[test]
fn a_ping_makes_a_neighbour_where_there_is_room() {
    let ping = |neighbor| Probe::Ping { id: ProbeId(7), life: BEGUN, accused: None, neighbor };
    let is_ack = |action: &MembershipAction, expected| matches!(action, MembershipAction::Probe { probe: Probe::Ack { neighbor, .. }, .. } if *neighbor == expected);
    let mut alone = Alone::new();
    alone.link(9);
    let actions = alone.probe(9, ping(true));
    assert!(actions.len() == 1 && is_ack(&actions[0], false), "{actions:?}");
    alone.gossip(5, Gossip::Disconnect);
    assert!(is_ack(&alone.probe(9, ping(false))[0], false), "it asks for another");
    assert!(is_ack(&alone.probe(9, ping(true))[0], true));
    assert!(alone.machine.active().any(|peer| peer == node(9)));
}

#[test]
fn a_neighbour_that_says_twice_that_it_is_none_is_none() {
    let answer = |neighbor| Probe::Ack { id: ProbeId(7), life: BEGUN, load: Load::Normal, neighbor };
    for (said, stays) in [(vec![false], true), (vec![false, false], false), (vec![false, true, false], true)] {
        let mut alone = Alone::new();
        said.iter().for_each(|neighbor| drop(alone.probe(3, answer(*neighbor))));
        assert_eq!(alone.machine.active().any(|peer| peer == node(3)), stays, "{said:?}");
        assert_eq!(alone.machine.passive().any(|peer| peer == node(3)), !stays, "it lives");
    }
}

#[test]
fn a_majority_of_observers_decides_after_a_while() {
    let mut alone = Alone::new();
    let actions = [alone.opinion(7, 9, 0, Health::Down), alone.opinion(8, 9, 0, Health::Down)].concat();
    assert_eq!((changes(&actions), alone.machine.tally(node(9))), (vec![], [0, 0, 2]));
    alone.run(ms(399));
    assert_eq!(changes(&alone.take()), []);
    alone.run(ms(1));
    assert_eq!(changes(&alone.take()), [cluster(9, 0, Health::Down)]);
    assert_eq!(alone.machine.down().collect::<Vec<_>>(), [(node(9), BEGUN)]);
    // Its own word is believed, and at once.
    let actions = alone.rumour(9, Rumour::Alive(life(1)));
    assert_eq!(changes(&actions), [cluster(9, 1, Health::Alive)]);
    // Whoever is held for alive by as many stays so.
    alone.opinion(7, 10, 0, Health::Down);
    alone.opinion(8, 10, 0, Health::Down);
    alone.run(ms(200));
    alone.opinion(6, 10, 0, Health::Alive);
    alone.opinion(11, 10, 0, Health::Alive);
    alone.run(ms(10_000));
    assert_eq!((changes(&alone.take()), alone.machine.health(node(10))), (vec![], Health::Suspect));
}

#[test]
fn an_older_doubt_says_nothing_of_a_later_life() {
    for (refuted, expected) in [(true, vec![]), (false, vec![cluster(9, 0, Health::Down)])] {
        let mut alone = Alone::new();
        if refuted {
            alone.rumour(9, Rumour::Alive(life(1)));
        }
        alone.run(ms(50_000));
        alone.take();
        alone.rumour(8, Rumour::Doubt { subject: node(9), life: BEGUN });
        alone.run(ms(5_000));
        assert_eq!(changes(&alone.take()), expected, "refuted: {refuted}");
    }
}

#[test]
fn who_holds_a_neighbour_for_down_is_contradicted() {
    for rumour in [
        Rumour::Doubt { subject: node(3), life: BEGUN },
        Rumour::Opinion { subject: node(3), life: BEGUN, health: Health::Down },
    ] {
        let mut alone = Alone::new();
        alone.take();
        alone.rumour(8, rumour);
        alone.run(ms(100));
        let said = Rumour::Opinion { subject: node(3), life: BEGUN, health: Health::Alive };
        assert_eq!(begun(&alone.take()), [said], "{rumour:?}");
        alone.run(ms(5_000));
        assert_eq!(changes(&alone.take()), []);
    }
    // Suspicion makes it look, and say nothing.
    let mut alone = Alone::new();
    alone.take();
    alone.opinion(8, 3, 0, Health::Suspect);
    alone.run(ms(400));
    assert_eq!((begun(&alone.take()), alone.machine.strikes(node(3))), (vec![], 0));
}

#[test]
fn who_tells_of_an_older_life_is_told_the_newer_one() {
    let mut alone = Alone::new();
    alone.rumour(9, Rumour::Alive(life(2)));
    let down = vec![(node(9), life(1)), (node(10), BEGUN)];
    let actions = alone.gossip(3, standing(down, vec![], 0));
    assert_eq!(actions, [tell(3, standing(vec![], vec![(node(9), life(2))], 0))]);
    alone.take();
    // Only what may be true is passed on as a doubt.
    alone.run(ms(400));
    assert_eq!(begun(&alone.take()), [Rumour::Doubt { subject: node(10), life: BEGUN }]);
    // The same life is no newer one: who holds it for down may be right.
    let actions = alone.gossip(4, standing(vec![(node(9), life(2))], vec![], 0));
    assert_eq!(actions, []);
}

#[test]
fn who_is_told_of_a_newer_life_believes_it() {
    let mut alone = Alone::new();
    for observer in [7, 8] {
        alone.opinion(observer, 9, 0, Health::Down);
    }
    alone.run(ms(400));
    alone.take();
    for (refutation, expected) in [(0, vec![]), (1, vec![cluster(9, 1, Health::Alive)]), (1, vec![])] {
        let alive = vec![(node(9), life(refutation)), (node(1), life(9)), (node(99), life(9))];
        assert_eq!(changes(&alone.gossip(3, standing(vec![], alive, 0))), expected);
    }
    assert_eq!(alone.machine.life(), BEGUN, "what others say of this node's life is not for them to say");
}

#[test]
fn a_peer_that_holds_this_node_for_down_is_answered_in_a_later_life() {
    let mut alone = Alone::new();
    let actions = alone.gossip(3, standing(vec![(node(1), BEGUN)], vec![], 0));
    assert_eq!(begun(&actions), [Rumour::Alive(life(1))]);
    assert!(actions.contains(&tell(3, standing(vec![], vec![], 1))), "{actions:?}");
    let actions = alone.gossip(3, standing(vec![(node(1), BEGUN)], vec![], 0));
    assert_eq!(actions, [tell(3, standing(vec![], vec![], 1))], "it was refuted already");
}

#[test]
fn a_peer_is_told_how_things_stand_four_times_a_second_at_most() {
    let mut alone = Alone::new();
    for second in 0..5 {
        let mut told = 0;
        for _ in 0..50 {
            alone.run(ms(20));
            told += standings(&alone.gossip(3, standing(vec![(node(1), BEGUN)], vec![], 0)));
        }
        assert!((3..=5).contains(&told), "{told} times in second {second}");
    }
    // Others are told all the same.
    assert_eq!(standings(&alone.gossip(4, standing(vec![(node(1), BEGUN)], vec![], 0))), 1);
}

#[test]
fn two_that_hold_each_other_for_down_do_not_answer_for_ever() {
    // In a life that neither has: their records of their starts were lost, so neither can refute it.
    let lost = Life::begun(Incarnation(9));
    let mut pair = [Alone::of(1, 12), Alone::of(2, 12)];
    for alone in &mut pair {
        let other = 3 - alone.machine.me().number();
        for (number, observer) in [7, 8].into_iter().enumerate() {
            let id = RumourId { origin: node(observer), incarnation: Incarnation(1), number: number as u64 };
            let rumour = Rumour::Opinion { subject: node(other), life: lost, health: Health::Down };
            alone.gossip(observer, Gossip::Rumour { id, hops: 1, rumour });
        }
        alone.run(ms(500));
        assert_eq!(alone.machine.health(node(other)), Health::Down);
        alone.take();
    }
    let mut told = [0usize; 2];
    let mut under_way: VecDeque<(usize, MembershipAction)> = VecDeque::new();
    for (at, alone) in pair.iter_mut().enumerate() {
        under_way.extend(alone.link(2 - at as u32).into_iter().map(|action| (at, action)));
    }
    for _ in 0..3_000 {
        for _ in 0..under_way.len() {
            let Some((at, action)) = under_way.pop_front() else { break };
            let MembershipAction::Gossip { to, gossip } = action else { continue };
            if to == node(2 - at as u32) {
                told[at] += usize::from(matches!(gossip, Gossip::Standing { .. }));
                let answers = pair[1 - at].gossip(at as u32 + 1, gossip);
                under_way.extend(answers.into_iter().map(|action| (1 - at, action)));
            }
        }
        for (at, alone) in pair.iter_mut().enumerate() {
            alone.run(ms(1));
            under_way.extend(alone.take().into_iter().map(|action| (at, action)));
        }
    }
    assert!(told.iter().all(|told| (4..=16).contains(told)), "in three seconds they told each other {told:?} times");
}

#[test]
fn a_neighbour_that_falls_silent_is_suspect_and_then_down() {
    let mut alone = Alone::new();
    alone.silent.insert(node(3));
    alone.take();
    alone.run(ms(20_000));
    let actions = alone.take();
    let opinion = |health| Rumour::Opinion { subject: node(3), life: BEGUN, health };
    assert_eq!(changes(&actions), [own(3, 0, Health::Suspect), own(3, 0, Health::Down)]);
    assert_eq!(begun(&actions), [opinion(Health::Suspect), opinion(Health::Down)]);
    assert_eq!(alone.machine.health(node(3)), Health::Suspect, "one observer alone does not decide");
    assert!(alone.machine.active().chain(alone.machine.passive()).all(|peer| peer != node(3)));
    let counters = alone.machine.counters();
    assert_eq!((counters.suspicions, counters.verdicts_down, counters.suspicions_refuted), (1, 1, 0));
}

#[test]
fn what_is_clear_is_not_said_again() {
    let mut alone = Alone::new();
    alone.silent.insert(node(3));
    for observer in 6..10 {
        alone.opinion(observer, 3, 0, Health::Down);
    }
    alone.run(ms(10_000));
    let actions = alone.take();
    assert_eq!(begun(&actions), [], "four have said so");
    assert!(changes(&actions).contains(&own(3, 0, Health::Down)));
}

#[test]
fn who_cannot_be_reached_is_judged_only_if_somebody_accuses_it() {
    let unreachable = |number| MembershipInput::Unreachable { peer: node(number) };
    let mut alone = Alone::new();
    assert_eq!(changes(&alone.step(unreachable(9))), []);
    alone.opinion(7, 9, 0, Health::Suspect);
    assert_eq!(changes(&alone.step(unreachable(9))), [], "suspicion is no accusation");
    alone.opinion(7, 9, 0, Health::Down);
    let actions = alone.step(unreachable(9));
    assert_eq!(changes(&actions), [own(9, 0, Health::Down)]);
    let opinion = Rumour::Opinion { subject: node(9), life: BEGUN, health: Health::Down };
    assert_eq!(begun(&actions), [opinion]);
    assert_eq!(alone.step(unreachable(9)), [], "it has said so");
    alone.run(ms(400));
    assert_eq!(changes(&alone.take()), [cluster(9, 0, Health::Down)]);
    // For a neighbour it is two strikes, once a second at most.
    assert_eq!(changes(&alone.step(unreachable(3))), [own(3, 0, Health::Suspect)]);
    assert_eq!(changes(&alone.step(unreachable(3))), []);
    assert!(alone.machine.active().any(|peer| peer == node(3)));
}

#[test]
fn who_comes_back_is_told_of_and_wanted() {
    let mut alone = Alone::new();
    for observer in [7, 8] {
        alone.opinion(observer, 9, 0, Health::Down);
    }
    alone.run(ms(500));
    alone.take();
    // A new connection to the same life is no refutation; it is told how things stand.
    let actions = alone.link(9);
    assert_eq!(actions, [tell(9, standing(vec![(node(9), BEGUN)], vec![], 0))]);
    let actions = alone.probe(9, Probe::Ping { id: ProbeId(7), life: life(1), accused: None, neighbor: false });
    assert_eq!(changes(&actions), [cluster(9, 1, Health::Alive)]);
    assert!(actions.contains(&tell(9, Gossip::Neighbor { urgent: true })), "{actions:?}");
    alone.run(ms(320));
    let back = Rumour::Opinion { subject: node(9), life: life(1), health: Health::Alive };
    assert!(begun(&alone.take()).contains(&back));
}

#[test]
fn who_has_spoken_for_itself_need_not_be_spoken_for() {
    let mut alone = Alone::new();
    for observer in [7, 8] {
        alone.opinion(observer, 9, 0, Health::Down);
    }
    alone.run(ms(500));
    alone.link(9);
    alone.probe(9, Probe::Ping { id: ProbeId(7), life: life(1), accused: None, neighbor: false });
    alone.rumour(9, Rumour::Alive(life(1)));
    alone.take();
    alone.run(ms(1_000));
    let back = Rumour::Opinion { subject: node(9), life: life(1), health: Health::Alive };
    assert!(!begun(&alone.take()).contains(&back));
}

#[test]
fn how_busy_a_node_is_is_told_every_ten_seconds_at_most() {
    let mut alone = Alone::new();
    let mut told: Vec<(u64, Load)> = Vec::new();
    let began = alone.now;
    for (second, load) in [(0, Load::High), (1, Load::Full), (2, Load::High), (3, Load::Full), (20, Load::Normal)] {
        alone.run(began.plus(ms(second * 1_000)).since(alone.now));
        alone.step(MembershipInput::Load(load));
        for _ in 0..150 {
            alone.take();
            alone.run(ms(1));
            for rumour in begun(&alone.take()) {
                let Rumour::Load(load) = rumour else { continue };
                told.push((second, load));
            }
        }
    }
    assert_eq!(told, [(0, Load::High), (20, Load::Normal)], "the one at 10 s falls between");
    // Of others it is known as they say.
    alone.rumour(9, Rumour::Load(Load::Full));
    assert_eq!((alone.machine.load_of(node(9)), alone.machine.load_of(node(8))), (Load::Full, Load::Normal));
    alone.rumour(9, Rumour::Load(Load::Normal));
    assert_eq!((alone.machine.load_of(node(9)), alone.machine.loads.len()), (Load::Normal, 0));
}
