//! What the detector suspects, whom it judges, and what clears a peer.

use super::*;

#[test]
fn suspicion_shrinks_with_confirmations() {
    // Lifeguard's formula, with three confirmations for the least: 7.5 − 6·ln(c+1)/ln 4.
    let expected = [7_500, 4_500, 2_745, 1_500, 1_500];
    let mut bench = Bench::usual(3);
    bench.relays = Relays::Nack;
    bench.until_suspect();
    let lasts = |bench: &Bench| bench.suspicion().until.since(bench.suspicion().since).as_millis();
    assert_eq!(lasts(&bench), expected[0]);
    for (confirmed, expected) in expected.into_iter().enumerate().skip(1) {
        bench.question(BEGUN, Some(10 + confirmed as u32), false);
        assert_eq!(lasts(&bench), expected, "{confirmed} confirmations");
        // The same word again is no further one.
        bench.question(BEGUN, Some(10 + confirmed as u32), false);
        assert_eq!(lasts(&bench), expected, "{confirmed} confirmations, one twice");
    }
    // Doubts of others are no confirmations.
    let mut bench = Bench::usual(3);
    bench.until_suspect();
    bench.question(BEGUN, None, true);
    assert_eq!(lasts(&bench), 7_500);
}

#[test]
fn fewer_observers_are_enough_where_there_are_fewer() {
    // Members, and how long a suspicion lasts by the confirmations.
    let cases: [(usize, &[u128]); 4] =
        [(2, &[3_000, 3_000]), (3, &[7_500, 1_500]), (4, &[7_500, 3_714, 1_500]), (5, &[7_500, 4_500, 2_745, 1_500])];
    for (members, expected) in cases {
        let peers: Vec<u32> = (2..members as u32).chain([SUBJECT]).collect();
        let mut bench = Bench::new(&peers, members, 4);
        bench.until_suspect();
        // Where nobody can say that it failed, a failure makes this node sicker, and more patient.
        let patience = u128::from(bench.detector.ill_health()) + 1;
        assert_eq!(patience, if members == 2 { 3 } else { 1 });
        let since = bench.suspicion().since;
        for (confirmed, expected) in expected.iter().enumerate() {
            if confirmed > 0 {
                bench.question(BEGUN, Some(10 + confirmed as u32), false);
            }
            let lasts = bench.suspicion().until.since(since).as_millis();
            assert_eq!(lasts, *expected * patience, "{members} members, {confirmed} confirmations");
        }
    }
}

#[test]
fn a_confirmed_suspect_that_stays_silent_is_down_after_the_least_time() {
    let mut bench = Bench::usual(5);
    let since = bench.until_suspect();
    for accuser in [11, 12, 13] {
        bench.question(BEGUN, Some(accuser), true);
    }
    bench.wanted.clear();
    bench.run(ms(1_499));
    assert!(bench.story(since).iter().all(|(_, what)| !"SAD".contains(*what)), "{:?}", bench.story(since));
    bench.run(ms(1));
    assert_eq!(bench.story(since).last(), Some(&(1_500, 'D')));
    assert_eq!((bench.detector.health(node(SUBJECT)), bench.counters.verdicts_down), (None, 1));
    bench.wanted.clear();
    bench.run(ms(10_000));
    assert_eq!(bench.story(since), [], "who was judged is not watched any more");
}

#[test]
fn an_answer_ends_a_suspicion() {
    let mut bench = Bench::usual(8);
    bench.until_suspect();
    let id = bench.until_pinged();
    let judged = DetectorAction::Judged { peer: node(SUBJECT), life: BEGUN, health: Health::Alive };
    assert_eq!(bench.ack(SUBJECT, id, BEGUN), [judged]);
    assert_eq!(bench.counters.suspicions_refuted, 1);
    assert_eq!(bench.detector.strikes(node(SUBJECT)), 1, "two failed, one did not");
    // It is looked at again soon, until all strikes are taken back; then it is not called out of turn.
    bench.subject_answers = true;
    bench.only_the_subject();
    bench.wanted.clear();
    let began = bench.now;
    bench.run(ms(500));
    assert_eq!(bench.story(began), [(500, 'P'), (500, 'R'), (500, 'R'), (500, 'R')]);
    assert_eq!(bench.detector.strikes(node(SUBJECT)), 0);
    assert_eq!(bench.detector.watched[&node(SUBJECT)].probe_at, None);
}

#[test]
fn a_suspect_and_whoever_is_asked_are_told_of_the_accusation() {
    let mut bench = Bench::usual(10);
    bench.until_suspect();
    bench.wanted.clear();
    bench.run(ms(1_500));
    let mut told = [0, 0];
    for (_, action) in &bench.wanted {
        match action {
            DetectorAction::Send { to, probe: Probe::Ping { accused, .. } } if *to == node(SUBJECT) => {
                assert_eq!(*accused, Some(BEGUN));
                told[0] += 1;
            }
            DetectorAction::Send { probe: Probe::Ping { accused, .. }, .. } => assert_eq!(*accused, None),
            DetectorAction::Send { probe: Probe::PingFor { accused, .. }, .. } => {
                assert_eq!(*accused, Some(BEGUN));
                told[1] += 1;
            }
            _ => {}
        }
    }
    assert!(told[0] >= 3 && told[1] >= 6, "{told:?}");
}

#[test]
fn suspects_are_not_asked_to_look_at_others() {
    let mut bench = Bench::new(&[2, SUBJECT], 10, 11);
    let suspicion = Suspicion { since: bench.now, confirmed_by: BTreeSet::new(), until: bench.now.plus(ms(7_500)) };
    bench.until_pinged();
    bench.only_the_subject();
    let other = bench.detector.watched.get_mut(&node(2)).expect("it is watched");
    other.suspected = Some(suspicion);
    other.probe_at = Some(bench.now.plus(ms(400)));
    let began = bench.now;
    bench.run(ms(300));
    assert_eq!(bench.story(began), []);
}

#[test]
fn a_later_life_ends_a_suspicion_and_an_earlier_one_does_not() {
    let cases = [
        (Life { incarnation: Incarnation(4), refutation: 7 }, false, 2),
        (BEGUN, false, 2),
        (BEGUN.refuted(), true, 2),
        (Life::begun(Incarnation(6)), true, 0),
    ];
    for (life, refutes, strikes) in cases {
        let mut bench = Bench::usual(12);
        bench.until_suspect();
        let mut out = Vec::new();
        bench.detector.refuted(bench.now, node(SUBJECT), life, &mut out);
        bench.detector.check_invariants();
        let judged = DetectorAction::Judged { peer: node(SUBJECT), life, health: Health::Alive };
        assert_eq!(out, if refutes { vec![judged] } else { vec![] }, "{life}");
        assert_eq!(bench.detector.accused(node(SUBJECT)), (!refutes).then_some(BEGUN));
        assert_eq!(bench.detector.strikes(node(SUBJECT)), strikes, "only a restart begins with none");
    }
}

#[test]
fn strikes_judge_a_peer_that_keeps_refuting() {
    for seed in 0..20 {
        let mut bench = Bench::usual(seed);
        bench.until_pinged();
        let (began, mut life) = (bench.now, BEGUN);
        while bench.detector.health(node(SUBJECT)).is_some() && bench.now < began.plus(ms(60_000)) {
            bench.run_to(bench.now.max(bench.detector.next_timeout()));
            if bench.detector.health(node(SUBJECT)) == Some(Health::Suspect) {
                life = life.refuted();
                let mut out = Vec::new();
                bench.detector.refuted(bench.now, node(SUBJECT), life, &mut out);
                bench.detector.check_invariants();
                assert_eq!(out.len(), 1);
            }
        }
        let took = bench.now.since(began);
        assert_eq!(bench.story(began).last().map(|(_, what)| *what), Some('D'), "seed {seed}");
        assert!(took >= ms(3_500) && took <= ms(10_000), "seed {seed}: judged after {took:?}");
        assert!(life.refutation >= 5, "it refuted {} times", life.refutation);
    }
}

#[test]
fn one_answer_in_two_never_judges() {
    let mut bench = Bench::usual(14);
    for _ in 0..50 {
        let id = bench.until_pinged();
        bench.run(ms(600));
        bench.ack(SUBJECT, id, BEGUN);
        let id = bench.until_pinged();
        bench.ack(SUBJECT, id, BEGUN);
        assert!(bench.detector.strikes(node(SUBJECT)) <= 3);
    }
    assert_eq!(bench.counters.verdicts_down, 0);
}

#[test]
fn late_answers_are_recognised_and_make_this_node_more_patient() {
    // After the end of the probe, in milliseconds, and whether the answer still counts.
    for (late, counts) in [(1, true), (4_900, true), (5_100, false)] {
        let mut bench = Bench::usual(15);
        let id = bench.until_pinged();
        bench.only_the_subject();
        bench.run(ms(500));
        assert_eq!((bench.detector.strikes(node(SUBJECT)), bench.detector.ill_health()), (1, 0));
        // Others keep it from being judged meanwhile.
        bench.relays = Relays::Ack;
        bench.run(ms(late));
        let before = (bench.detector.strikes(node(SUBJECT)), bench.detector.ill_health());
        bench.ack(SUBJECT, id, BEGUN);
        let after = (bench.detector.strikes(node(SUBJECT)), bench.detector.ill_health());
        let expected = if counts { (before.0.saturating_sub(1), before.1 + 1) } else { before };
        assert_eq!(after, expected, "{late} ms late");
    }
}

#[test]
fn a_late_answer_ends_a_suspicion() {
    let mut bench = Bench::usual(16);
    let id = bench.until_pinged();
    bench.only_the_subject();
    bench.until_suspect();
    let judged = DetectorAction::Judged { peer: node(SUBJECT), life: BEGUN, health: Health::Alive };
    assert_eq!(bench.ack(SUBJECT, id, BEGUN), [judged]);
    assert_eq!(bench.ack(SUBJECT, id, BEGUN), [], "once");
    assert_eq!(bench.detector.ill_health(), 1);
}

#[test]
fn nothing_follows_from_answers_that_could_not_come() {
    let mut bench = Bench::usual(19);
    bench.until_suspect();
    bench.hear(2, Probe::PingFor { id: ProbeId(1), subject: node(SUBJECT), accused: None });
    let (since, until) = (bench.suspicion().since, bench.suspicion().until);
    let (strikes, gap) = (bench.detector.strikes(node(SUBJECT)), ms(20_000));
    bench.now = bench.now.plus(gap);
    bench.detector.stalled(bench.now, gap);
    bench.detector.check_invariants();
    assert_eq!((bench.suspicion().since, bench.suspicion().until), (since.plus(gap), until.plus(gap)));
    assert_eq!((bench.detector.ill_health(), bench.detector.strikes(node(SUBJECT))), (WORST, strikes));
    bench.wanted.clear();
    let pinged: BTreeSet<NodeId> = bench
        .tick()
        .into_iter()
        .filter_map(|action| match action {
            DetectorAction::Send { to, probe: Probe::Ping { neighbor: true, .. } } => Some(to),
            DetectorAction::Send { probe: Probe::PingFor { .. }, .. } => None,
            other => panic!("nobody asked for {other:?}"),
        })
        .collect();
    assert_eq!(pinged, [2, 3, 4, 5, SUBJECT].map(node).into(), "all are looked at anew");
}

#[test]
fn who_is_not_watched_is_not_judged() {
    let mut bench = Bench::usual(24);
    bench.until_suspect();
    bench.detector.unwatch(node(SUBJECT));
    bench.detector.check_invariants();
    bench.wanted.clear();
    bench.question(BEGUN, Some(3), true);
    let mut out = Vec::new();
    bench.detector.refuted(bench.now, node(SUBJECT), BEGUN.refuted(), &mut out);
    bench.detector.look_at(bench.now, node(SUBJECT));
    bench.run(ms(10_000));
    assert_eq!((out, bench.story(bench.now)), (vec![], vec![]));
    // Watched anew it begins with a clean slate, and watching twice changes nothing.
    bench.detector.watch(bench.now, node(SUBJECT), BEGUN);
    bench.until_pinged();
    let before = format!("{:?}", bench.detector.watched[&node(SUBJECT)]);
    bench.detector.watch(bench.now, node(SUBJECT), BEGUN.refuted());
    assert_eq!(format!("{:?}", bench.detector.watched[&node(SUBJECT)]), before);
    assert_eq!(bench.detector.strikes(node(SUBJECT)), 0);
}
