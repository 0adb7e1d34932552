//! What must change nothing: words of strangers, of nobody, and of old.

use super::*;

/// One of each that could come.
fn everything(life: Life, about: NodeId) -> (Vec<Gossip>, Vec<Probe>) {
    let id = RumourId { origin: about, incarnation: Incarnation(1), number: 70 };
    let probe = ProbeId(7);
    let gossip = vec![
        Gossip::Join,
        Gossip::ForwardJoin { joiner: node(9), hops: 0 },
        Gossip::Neighbor { urgent: true },
        Gossip::NeighborReply { accepted: true },
        Gossip::Disconnect,
        Gossip::Shuffle { hops: 0, path: vec![about], nodes: vec![node(9)] },
        Gossip::ShuffleReply { path: vec![], nodes: vec![node(9)] },
        Gossip::Rumour { id, hops: 1, rumour: Rumour::Doubt { subject: node(3), life } },
        Gossip::Have { ids: vec![id] },
        Gossip::Graft { id },
        Gossip::Prune,
        Gossip::Standing { life, load: Load::Full, down: vec![(node(1), life), (node(3), life)], alive: vec![] },
    ];
    let probes = vec![
        Probe::Ping { id: probe, life, accused: Some(life), neighbor: true },
        Probe::Ack { id: probe, life, load: Load::Full, neighbor: false },
        Probe::PingFor { id: probe, subject: node(3), accused: None },
        Probe::AckFor { id: probe, subject: node(3), life },
        Probe::NackFor { id: probe, subject: node(3) },
    ];
    (gossip, probes)
}

#[test]
fn whatever_comes_from_a_node_that_is_no_member_changes_nothing_and_is_counted() {
    let mut alone = Alone::new();
    let known = alone.knowledge();
    let mut ignored = 0;
    for from in [99, 1] {
        let (gossip, probes) = everything(life(7), node(from));
        let gossip = gossip.into_iter().map(|gossip| MembershipInput::Gossip { from: node(from), gossip });
        let probes = probes.into_iter().map(|probe| MembershipInput::Probe { from: node(from), probe });
        let up = MembershipInput::LinkUp { peer: node(from), incarnation: Incarnation(7) };
        for input in gossip.chain(probes).chain([up]) {
            ignored += 1;
            assert_eq!(alone.step(input.clone()), [], "{input:?}");
            assert_eq!(alone.machine.counters().ignored, ignored, "{input:?}");
            assert_eq!(alone.knowledge(), known, "{input:?}");
        }
    }
}

#[test]
fn what_members_say_of_strangers_is_not_believed() {
    let (stranger, probe) = (node(99), ProbeId(7));
    let mut alone = Alone::new();
    let probes = [
        Probe::PingFor { id: probe, subject: stranger, accused: None },
        Probe::PingFor { id: probe, subject: node(1), accused: None },
        Probe::AckFor { id: probe, subject: stranger, life: BEGUN },
        Probe::NackFor { id: probe, subject: stranger },
    ];
    let known = alone.knowledge();
    for said in probes {
        assert_eq!(alone.probe(3, said), [], "{said:?}");
        assert_eq!(alone.knowledge(), known, "{said:?}");
    }
    let about = |subject| standing(vec![(subject, BEGUN)], vec![(subject, life(1))], 0);
    assert_eq!(alone.gossip(3, about(stranger)), []);
    assert_eq!(alone.knowledge(), known);
    // Rumours are passed on, whoever they are about: others may know a newer map.
    for (origin, rumour) in [
        (99, Rumour::Alive(life(1))),
        (99, Rumour::Epoch(Epoch(7))),
        (8, Rumour::Opinion { subject: stranger, life: BEGUN, health: Health::Down }),
        (8, Rumour::Doubt { subject: stranger, life: BEGUN }),
    ] {
        let actions = alone.rumour(origin, rumour);
        let passed = |action: &MembershipAction| {
            matches!(action, MembershipAction::Gossip { gossip: Gossip::Rumour { hops: 2, .. }, .. })
        };
        assert!(actions.iter().all(passed), "{actions:?}");
        assert_eq!((alone.machine.verdicts.entries(), alone.machine.loads.len()), (0, 0), "{rumour:?}");
    }
    assert_eq!(alone.machine.counters().ignored, 4);
}

#[test]
fn an_answer_that_comes_again_changes_nothing() {
    let mut alone = Alone::new();
    let ping = |alone: &mut Alone| loop {
        alone.now = alone.now.max(alone.machine.next_timeout());
        let found = alone.step(MembershipInput::Tick).into_iter().find_map(|action| match action {
            MembershipAction::Probe { to, probe: Probe::Ping { id, .. } } => Some((to, id)),
            _ => None,
        });
        if let Some(found) = found {
            break found;
        }
    };
    let (to, id) = ping(&mut alone);
    let answer = Probe::Ack { id, life: BEGUN, load: Load::High, neighbor: true };
    alone.probe(to.number(), answer);
    let known = alone.knowledge();
    for _ in 0..3 {
        assert_eq!(alone.probe(to.number(), answer), []);
        assert_eq!(alone.knowledge(), known);
    }
    assert_eq!(alone.machine.load_of(to), Load::High);
}

#[test]
fn members_that_leave_are_forgotten() {
    let mut alone = Alone::new();
    for (observer, subject) in [(7, 9), (8, 9), (7, 10), (8, 10)] {
        alone.opinion(observer, subject, 0, Health::Down);
    }
    alone.run(ms(500));
    assert_eq!(alone.machine.down().count(), 2);
    let left = Roster::new((1..=12).filter(|number| ![3, 9].contains(number)).map(|number| (node(number), 0)));
    let mut actions = Vec::new();
    alone.machine.set_roster(alone.now, Arc::new(left), &mut actions);
    alone.machine.check_invariants();
    assert!(actions.contains(&MembershipAction::Links([2, 4, 5].map(node).into())), "{actions:?}");
    assert_eq!(alone.machine.down().collect::<Vec<_>>(), [(node(10), BEGUN)]);
    assert_eq!(alone.gossip(3, Gossip::Join), []);
}

#[test]
fn an_accusation_that_nobody_could_refute_ends_nothing() {
    let last = life(u32::MAX);
    let mut alone = Alone::new();
    assert_eq!(begun(&alone.rumour(9, Rumour::Doubt { subject: node(1), life: last })), []);
    assert_eq!(begun(&alone.opinion(9, 1, u32::MAX, Health::Down)), []);
    assert_eq!(standings(&alone.gossip(3, standing(vec![(node(1), last)], vec![], 0))), 1);
    let ping = Probe::Ping { id: ProbeId(7), life: BEGUN, accused: Some(last), neighbor: true };
    let ack = Probe::Ack { id: ProbeId(7), life: BEGUN, load: Load::Normal, neighbor: true };
    assert_eq!(alone.probe(2, ping), [MembershipAction::Probe { to: node(2), probe: ack }]);
    assert_eq!((alone.machine.life(), alone.machine.counters().ignored), (BEGUN, 4));
    // One below it leaves one life, and after that it stands still without harm.
    alone.opinion(9, 1, u32::MAX - 1, Health::Down);
    assert_eq!(alone.machine.life(), last);
    alone.opinion(9, 1, u32::MAX, Health::Down);
    alone.now = alone.now.plus(ms(60_000));
    alone.step(MembershipInput::Tick);
    assert_eq!(alone.machine.life(), last);
}
