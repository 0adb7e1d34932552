//! The views of one node, and of a few that talk with each other.

#[path = "view_walks_tests.rs"]
mod walks;

use super::*;
use crate::types::Incarnation;

const NOW: Moment = Moment(1_000_000);

fn node(number: u32) -> NodeId {
    NodeId::new(number).expect("not zero")
}

fn nodes(numbers: impl IntoIterator<Item = u32>) -> Vec<NodeId> {
    numbers.into_iter().map(node).collect()
}

fn ms(time: u64) -> Duration {
    Duration::from_millis(time)
}

fn nobody(_: NodeId) -> bool {
    false
}

fn send(to: u32, gossip: Gossip) -> ViewAction {
    ViewAction::Send { to: node(to), gossip }
}

fn reply(to: u32, accepted: bool) -> ViewAction {
    send(to, Gossip::NeighborReply { accepted })
}

/// Members 1 to `members`, the member `n` in the zone that `zone` says.
fn roster(members: u32, zone: impl Fn(u32) -> u16) -> Arc<Roster> {
    Arc::new(Roster::new((1..=members).map(|number| (node(number), zone(number)))))
}

/// Node 1 among others, asked step by step.
struct Bench {
    now: Moment,
    view: View,
}

impl Bench {
    fn of(me: u32, roster: Arc<Roster>, k_list: usize, seed: u64) -> Bench {
        let settings = MembershipSettings {
            me: node(me),
            incarnation: Incarnation(1),
            k_list,
            seed,
            times: MembershipTimes::default(),
        };
        let mut view = View::new(NOW, &settings, roster);
        // Shuffles are what some tests look at; the others they would disturb.
        view.shuffle_at = Moment(u64::MAX);
        Bench { now: NOW, view }
    }

    /// Among `members` of one zone.
    fn new(members: u32, k_list: usize) -> Bench {
        Bench::of(1, roster(members, |_| 0), k_list, 1)
    }

    /// The same with these neighbours.
    fn with(members: u32, k_list: usize, active: impl IntoIterator<Item = u32>) -> Bench {
        let mut bench = Bench::new(members, k_list);
        active.into_iter().for_each(|peer| drop(bench.add(peer)));
        bench
    }

    fn add(&mut self, peer: u32) -> Vec<ViewAction> {
        let mut out = Vec::new();
        self.view.add(self.now, node(peer), &mut out);
        self.view.check_invariants();
        out
    }

    fn hear(&mut self, from: u32, gossip: Gossip) -> Vec<ViewAction> {
        let mut out = Vec::new();
        self.view.hear(self.now, node(from), gossip, &nobody, &mut out);
        self.view.check_invariants();
        out
    }

    fn lose(&mut self, peer: u32) -> Vec<ViewAction> {
        let mut out = Vec::new();
        self.view.lose(self.now, node(peer), &mut out);
        self.view.check_invariants();
        out
    }

    fn tick(&mut self) -> Vec<ViewAction> {
        let mut out = Vec::new();
        self.view.tick(self.now, &nobody, &mut out);
        self.view.check_invariants();
        out
    }

    /// Lets time pass to the next thing that is due.
    fn next(&mut self) -> Vec<ViewAction> {
        self.now = self.now.max(self.view.next_timeout());
        self.tick()
    }

    /// Whom it asks, and with which words.
    fn asks(&mut self) -> Vec<(u32, Gossip)> {
        self.tick().into_iter().map(asked).collect()
    }

    fn active(&self) -> Vec<u32> {
        self.view.active().iter().map(|peer| peer.number()).collect()
    }

    fn passive(&self) -> BTreeSet<u32> {
        self.view.passive().iter().map(|peer| peer.number()).collect()
    }

    fn keep_in_mind(&mut self, peers: impl IntoIterator<Item = u32>) {
        for peer in peers {
            assert!(self.view.keep_in_mind(node(peer), &[]), "{peer} is known or there is no room");
        }
    }
}

fn asked(action: ViewAction) -> (u32, Gossip) {
    match action {
        ViewAction::Send { to, gossip } => (to.number(), gossip),
        other => panic!("expected a wish, got {other:?}"),
    }
}

#[test]
fn there_are_always_fewer_peers_than_members() {
    // Members, K, and how large the views are.
    let cases = [
        (1, 24, (0, 0)),
        (2, 1, (1, 0)),
        (2, 2, (1, 0)),
        (2, 5, (1, 0)),
        (2, 24, (1, 0)),
        (3, 1, (1, 0)),
        (3, 2, (2, 0)),
        (3, 5, (2, 0)),
        (3, 24, (2, 0)),
        (5, 1, (1, 0)),
        (5, 2, (2, 0)),
        (5, 5, (4, 0)),
        (5, 24, (4, 0)),
        (10, 1, (1, 0)),
        (10, 2, (2, 0)),
        (10, 5, (4, 1)),
        (10, 24, (4, 5)),
        (25, 1, (1, 0)),
        (25, 2, (2, 0)),
        (25, 5, (4, 1)),
        (25, 24, (8, 16)),
        (5_000, 1, (1, 0)),
        (5_000, 2, (2, 0)),
        (5_000, 5, (4, 1)),
        (5_000, 24, (8, 16)),
    ];
    for (members, k_list, expected) in cases {
        let view = Bench::new(members, k_list).view;
        assert_eq!((view.sizes.active, view.sizes.passive), expected, "{members} members, K = {k_list}");
        assert!(view.capacity() < members as usize && view.capacity() <= k_list);
        assert_eq!(view.active_capacity(), expected.0);
    }
}

#[test]
fn quotas_of_zones_are_lowered_where_they_cannot_be_kept() {
    // Members of the own zone and of all others, K, and the quotas inside and outside.
    let cases = [
        ("everybody is at home", 10, 0, 24, [1, 0]),
        ("nobody is at home", 1, 9, 24, [0, 1]),
        ("three zones of four", 4, 8, 24, [1, 1]),
        ("three zones of ten", 10, 20, 24, [2, 2]),
        ("two zones of two", 2, 2, 24, [0, 1]),
        ("one stranger among many", 49, 1, 24, [2, 0]),
        ("a stranger among few", 4, 1, 24, [1, 0]),
        ("few strangers", 40, 10, 24, [2, 1]),
        ("half of them", 25, 25, 24, [2, 2]),
        ("two members", 1, 1, 24, [0, 0]),
        ("room for one", 5, 5, 1, [0, 0]),
        ("room for two", 5, 5, 2, [0, 1]),
    ];
    for (what, at_home, away, k_list, expected) in cases {
        let members = roster(at_home + away, |number| u16::from(number > at_home) * (1 + (number % 2) as u16));
        let sizes = Bench::of(1, members, k_list, 1).view.sizes;
        assert_eq!(sizes.quota, expected, "{what}");
        assert!(sizes.quota.iter().sum::<usize>() <= sizes.active.max(1), "{what}: {sizes:?}");
        assert!(sizes.quota[0] < at_home as usize && sizes.quota[1] <= away as usize, "{what}: {sizes:?}");
    }
}

#[test]
fn quotas_can_be_returned() {
    // What the others want in another zone must fit into that zone's views, in every mix of two zones.
    for at_home in 1..60u32 {
        for away in 1..60u32 {
            let members = roster(at_home + away, |number| u16::from(number > at_home));
            let home = Bench::of(1, members.clone(), 24, 1).view.sizes;
            let other = Bench::of(at_home + 1, members, 24, 1).view.sizes;
            let wanted = at_home as usize * home.quota[1];
            assert!(wanted <= away as usize * other.active, "{at_home} want {wanted} of {away}");
        }
    }
}

#[test]
fn quotas_are_kept_when_somebody_has_to_go() {
    // Zone 0 has the members 1 to 10, the zones 1 and 2 have the others.
    let zone = |number: u32| if number <= 10 { 0 } else { 1 + (number % 2) as u16 };
    let mut seen: BTreeSet<[usize; 2]> = BTreeSet::new();
    for seed in 0..20 {
        let mut bench = Bench::of(1, roster(30, zone), 24, seed);
        assert_eq!((bench.view.sizes.active, bench.view.sizes.quota), (8, [2, 2]));
        for peer in [2, 3, 4, 5, 11, 12, 13, 14] {
            bench.hear(peer, Gossip::Neighbor { urgent: true });
        }
        for step in 0..300 {
            // Now most newcomers are of one zone, now of the other.
            let range = if step / 30 % 2 == 0 { 2..=12 } else { 9..=30 };
            let newcomer = bench.view.chance().random_range(range);
            let known = bench.view.active().contains(&node(newcomer));
            let actions = bench.hear(newcomer, Gossip::Neighbor { urgent: true });
            assert!(bench.view.active().contains(&node(newcomer)));
            let counts = bench.view.counts();
            assert!(counts[0] >= 2 && counts[1] >= 2, "{counts:?} after step {step}, seed {seed}");
            assert_eq!(actions.len(), if known { 1 } else { 4 }, "{actions:?}");
            seen.insert(counts);
        }
    }
    assert!(seen.contains(&[2, 6]) && seen.contains(&[6, 2]), "the quotas were put to the test: {seen:?}");
}

#[test]
fn a_view_of_one_zone_makes_room_for_another() {
    let zone = |number: u32| u16::from(number > 20);
    for (neighbors, wanted, expected) in [(2..=9, 21..=40, [6, 2]), (21..=28, 2..=20, [2, 6])] {
        let mut bench = Bench::of(1, roster(40, zone), 24, 3);
        neighbors.clone().for_each(|peer| drop(bench.add(peer)));
        // It is full, and yet short of somebody, until there are two.
        for round in 0.. {
            let asked = bench.asks();
            if asked.is_empty() {
                break;
            }
            let [(asked, Gossip::Neighbor { urgent: true })] = asked[..] else { panic!("{asked:?}") };
            assert!(wanted.contains(&asked) && round < 10, "{asked} in round {round}");
            let actions = bench.hear(asked, Gossip::NeighborReply { accepted: true });
            let [ViewAction::Send { to, gossip: Gossip::Disconnect }, ViewAction::Dropped(gone), added] = &actions[..]
            else {
                panic!("{actions:?}")
            };
            assert!(to == gone && *added == ViewAction::Added(node(asked)));
        }
        assert_eq!(bench.view.counts(), expected);
    }
}

#[test]
fn where_nobody_of_the_other_zone_can_be_had_somebody_is_better_than_nobody() {
    let zone = |number: u32| u16::from(number > 10);
    let mut bench = Bench::of(1, roster(20, zone), 12, 4);
    let is_down = |peer: NodeId| peer.number() > 10;
    let mut out = Vec::new();
    bench.view.tick(NOW, &is_down, &mut out);
    let asked: Vec<u32> = out.into_iter().map(|action| asked(action).0).collect();
    assert_eq!(asked.len(), 4);
    assert!(asked.iter().all(|peer| (2..=10).contains(peer)), "{asked:?}");
}

#[test]
fn a_newcomer_joins_through_some_member() {
    let mut bench = Bench::new(10, 24);
    let asked = bench.asks();
    assert_eq!(asked.len(), ASKED_AT_ONCE);
    assert!(asked.iter().all(|(_, gossip)| *gossip == Gossip::Join), "{asked:?}");
    let contact = asked[0].0;
    let actions = bench.hear(contact, Gossip::NeighborReply { accepted: true });
    assert_eq!(actions, [ViewAction::Added(node(contact))]);
}

#[test]
fn a_joiner_is_admitted_and_walks_on_through_the_others() {
    let mut bench = Bench::with(10, 24, [2, 3]);
    let walk = |to| send(to, Gossip::ForwardJoin { joiner: node(9), hops: 6 });
    assert_eq!(bench.hear(9, Gossip::Join), [ViewAction::Added(node(9)), reply(9, true), walk(2), walk(3)]);
    // Even a full view admits it.
    let mut bench = Bench::with(10, 24, [2, 3, 4, 5]);
    let actions = bench.hear(9, Gossip::Join);
    let [ViewAction::Send { gossip: Gossip::Disconnect, .. }, ViewAction::Dropped(gone), rest @ ..] = &actions[..]
    else {
        panic!("{actions:?}")
    };
    let others = bench.active().into_iter().filter(|peer| *peer != 9);
    let expected: Vec<ViewAction> =
        [ViewAction::Added(node(9)), reply(9, true)].into_iter().chain(others.map(walk)).collect();
    assert_eq!(rest, &expected[..]);
    assert!(bench.passive().contains(&gone.number()), "whoever had to go lives");
}

#[test]
fn a_joiners_walk_goes_on_and_ends() {
    let wish = |joiner| vec![send(joiner, Gossip::Neighbor { urgent: false })];
    let walk = |to, hops| vec![send(to, Gossip::ForwardJoin { joiner: node(9), hops })];
    // Neighbours, the hops it comes with, what is done, and whether the joiner is kept in mind.
    type Case<'a> = (&'a str, &'a [u32], u8, Vec<ViewAction>, bool);
    let cases: [Case<'_>; 7] = [
        ("it goes on", &[2, 3], 6, walk(3, 5), false),
        ("halfway it is kept in mind", &[2, 3], PASSIVE_HOPS, walk(3, 2), true),
        ("it ends", &[2, 3], 0, wish(9), false),
        ("it cannot go on", &[2], 5, wish(9), false),
        ("it would go back to the joiner", &[2, 9], 5, vec![], false),
        ("it would never end", &[2, 3], 255, walk(3, 5), false),
        ("it ends at a neighbour", &[2, 9], 0, vec![], false),
    ];
    for (what, active, hops, expected, kept) in cases {
        let mut bench = Bench::with(10, 24, active.iter().copied());
        assert_eq!(bench.hear(2, Gossip::ForwardJoin { joiner: node(9), hops }), expected, "{what}");
        assert_eq!(bench.passive().contains(&9), kept, "{what}");
    }
    for joiner in [1, 99] {
        let mut bench = Bench::with(10, 24, [2]);
        assert_eq!(bench.hear(2, Gossip::ForwardJoin { joiner: node(joiner), hops: 0 }), [], "{joiner}");
        assert_eq!(bench.hear(2, Gossip::ForwardJoin { joiner: node(joiner), hops: 3 }), [], "{joiner}");
        assert!(bench.passive().is_empty());
    }
}

#[test]
fn a_wish_is_granted_where_there_is_room_or_need() {
    let added = |peer| ViewAction::Added(node(peer));
    let mut bench = Bench::with(10, 24, [2, 3, 4]);
    assert_eq!(bench.hear(5, Gossip::Neighbor { urgent: false }), [added(5), reply(5, true)]);
    assert_eq!(bench.hear(5, Gossip::Neighbor { urgent: false }), [reply(5, true)], "it is one");
    assert_eq!(bench.hear(6, Gossip::Neighbor { urgent: false }), [reply(6, false)], "it is full");
    let actions = bench.hear(6, Gossip::Neighbor { urgent: true });
    let [ViewAction::Send { to, gossip: Gossip::Disconnect }, ViewAction::Dropped(gone), ..] = actions[..] else {
        panic!("{actions:?}")
    };
    assert_eq!((to, &actions[2..]), (gone, &[added(6), reply(6, true)][..]));
}

#[test]
fn wishes_that_cross_are_granted() {
    let mut bench = Bench::with(10, 24, [2, 3, 4]);
    let wished = bench.asks()[0].0;
    let others: Vec<u32> = (5..=10).filter(|peer| *peer != wished).collect();
    bench.add(others[0]);
    let actions = bench.hear(wished, Gossip::Neighbor { urgent: false });
    assert_eq!(actions.last(), Some(&reply(wished, true)), "{actions:?}");
    assert!(bench.active().contains(&wished));
}

#[test]
fn consent_that_comes_too_late_is_taken_back() {
    let mut bench = Bench::with(10, 24, [2, 3, 4]);
    let wished = bench.asks()[0].0;
    let other = (5..=10).find(|peer| *peer != wished).expect("there are more");
    bench.add(other);
    let before = bench.active();
    let consent = Gossip::NeighborReply { accepted: true };
    assert_eq!(bench.hear(wished, consent.clone()), [send(wished, Gossip::Disconnect)]);
    assert_eq!(bench.hear(2, consent), [], "it is a neighbour anyway");
    assert_eq!(bench.active(), before);
    // Nobody asked for this answer, and it changes nothing.
    assert_eq!(bench.hear(other, Gossip::NeighborReply { accepted: false }), []);
    assert_eq!(bench.active(), before);
}

#[test]
fn unanswered_wishes_are_followed_by_the_next_at_once() {
    let mut bench = Bench::new(30, 24);
    let mut known: BTreeSet<u32> = BTreeSet::new();
    bench.keep_in_mind(2..=13);
    for round in 0..3u64 {
        assert_eq!(bench.now, NOW.plus(ms(1_000 * round)));
        let asked: BTreeSet<u32> = bench.asks().into_iter().map(|(to, _)| to).collect();
        assert_eq!(asked.len(), ASKED_AT_ONCE, "round {round}");
        assert!(known.is_disjoint(&asked), "whoever does not answer is of no use");
        known.extend(asked);
        assert_eq!(bench.passive().len(), 12 - 4 * round as usize);
        bench.now = bench.view.next_timeout();
    }
    // Even if somebody has refused meanwhile.
    let asked = bench.asks();
    assert_eq!(asked.len(), ASKED_AT_ONCE);
    for (peer, _) in &asked[..3] {
        bench.hear(*peer, Gossip::NeighborReply { accepted: false });
    }
    bench.view.pause = PAUSE_MOST;
    bench.hear(asked[0].0, Gossip::NeighborReply { accepted: false });
    bench.view.not_granted(bench.now);
    assert!(bench.view.fill_at > bench.now.plus(ms(5_000)));
    bench.now = bench.now.plus(ms(1_000));
    assert_eq!(bench.asks().len(), ASKED_AT_ONCE, "the one that did not answer is replaced, and so are the others");
}

#[test]
fn a_wish_to_somebody_unreachable_is_followed_by_the_next_at_once() {
    let mut bench = Bench::with(30, 24, 2..=8);
    let [(wished, _)] = bench.asks()[..] else { panic!("one is missing") };
    bench.view.fill_at = bench.now.plus(PAUSE_MOST);
    assert_eq!(bench.lose(wished), []);
    let asked = bench.asks();
    assert_eq!(asked.len(), 1);
    assert!(!bench.passive().contains(&wished));
}

#[test]
fn refused_wishes_are_followed_by_the_next_with_growing_pauses() {
    let mut bench = Bench::with(30, 24, 2..=8);
    let mut pauses: Vec<u128> = Vec::new();
    for _ in 0..10 {
        let asked = bench.tick();
        let [ViewAction::Send { to, gossip: Gossip::Neighbor { urgent: false } }] = asked[..] else {
            panic!("{asked:?}")
        };
        assert_eq!(bench.hear(to.number(), Gossip::NeighborReply { accepted: false }), []);
        assert!(bench.passive().contains(&to.number()), "whoever refuses lives");
        assert_eq!(bench.tick(), []);
        let due = bench.view.next_timeout();
        pauses.push(due.since(bench.now).as_millis());
        bench.now = due;
    }
    let least = [75, 150, 300, 600, 1_200, 2_400, 4_800, 7_500, 7_500, 7_500];
    let most = [125, 250, 500, 1_000, 2_000, 4_000, 8_000, 12_500, 12_500, 12_500];
    for (at, pause) in pauses.iter().enumerate() {
        assert!((least[at]..=most[at]).contains(pause), "pauses in ms: {pauses:?}");
    }
    // Once one is granted, the next shortage is mended as fast as ever.
    let (wished, _) = bench.asks().remove(0);
    bench.hear(wished, Gossip::NeighborReply { accepted: true });
    bench.lose(wished);
    assert_eq!(bench.asks().len(), 1);
}

#[test]
fn a_refusal_that_nobody_asked_for_changes_nothing() {
    let mut bench = Bench::with(30, 24, 2..=8);
    let before = format!("{:?}", bench.view);
    for peer in [2, 20] {
        assert_eq!(bench.hear(peer, Gossip::NeighborReply { accepted: false }), []);
    }
    assert_eq!(format!("{:?}", bench.view), before);
}

#[test]
fn who_parts_is_kept_in_mind_and_who_is_lost_is_not() {
    let mut bench = Bench::with(30, 24, 2..=9);
    assert_eq!(bench.hear(2, Gossip::Disconnect), [ViewAction::Dropped(node(2))]);
    assert_eq!(bench.hear(2, Gossip::Disconnect), []);
    assert_eq!(bench.lose(3), [ViewAction::Dropped(node(3))]);
    assert_eq!(bench.lose(3), []);
    assert_eq!((bench.active(), bench.passive()), (vec![4, 5, 6, 7, 8, 9], [2].into()));
    // Both are replaced at once, first from the spare parts.
    let asked = bench.asks();
    assert!(asked.len() == 2 && asked.iter().any(|(to, _)| *to == 2), "{asked:?}");
    bench.keep_in_mind([20]);
    bench.lose(20);
    assert_eq!(bench.passive(), [2].into());
}

#[test]
fn nobody_who_is_down_is_asked() {
    let mut bench = Bench::new(10, 24);
    bench.keep_in_mind([2, 3]);
    let is_down = |peer: NodeId| peer != node(7);
    let mut out = Vec::new();
    bench.view.tick(NOW, &is_down, &mut out);
    assert_eq!(out, [send(7, Gossip::Neighbor { urgent: true })]);
    // Then there is nobody left, which is no reason to look all the time.
    assert!(bench.view.next_timeout() > NOW.plus(ms(70)));
}

#[test]
fn who_is_wanted_is_asked_whether_there_is_room_or_not() {
    let mut bench = Bench::with(10, 24, [2, 3, 4, 5]);
    let mut want = |peer| {
        let mut out = Vec::new();
        bench.view.want(NOW, node(peer), &mut out);
        bench.view.check_invariants();
        out
    };
    assert_eq!(want(9), [send(9, Gossip::Neighbor { urgent: true })]);
    for (peer, what) in [(9, "it is asked already"), (2, "it is one"), (1, "that is this node"), (99, "no member")] {
        assert_eq!(want(peer), [], "{what}");
    }
    let asked = [6, 7, 8, 10].into_iter().filter(|peer| !want(*peer).is_empty()).count();
    assert_eq!(asked, ASKED_AT_ONCE - 1);
    let actions = bench.hear(9, Gossip::NeighborReply { accepted: true });
    assert!(matches!(actions[..], [_, ViewAction::Dropped(_), ViewAction::Added(_)]), "{actions:?}");
}

#[test]
fn who_thinks_it_is_a_neighbour_becomes_one_where_there_is_room() {
    let mut out = Vec::new();
    let mut bench = Bench::with(10, 24, [2, 3, 4]);
    assert!(bench.view.take_if_room(NOW, node(5), &mut out));
    assert!(bench.view.take_if_room(NOW, node(5), &mut out), "it is one");
    assert_eq!(out, [ViewAction::Added(node(5))]);
    assert!(!bench.view.take_if_room(NOW, node(6), &mut out));
    assert_eq!(out.len(), 1);
    assert_eq!((bench.add(1), bench.add(99)), (vec![], vec![]), "neither this node nor a stranger");
}

#[test]
fn members_that_leave_are_peers_no_more() {
    let mut bench = Bench::with(60, 24, 2..=9);
    bench.keep_in_mind(20..=35);
    let mut out = Vec::new();
    bench.view.want(NOW, node(40), &mut out);
    out.clear();
    // The members 5 to 9, 30 to 35 and 40 leave.
    let left = Roster::new((1..=29).filter(|number| !(5..=9).contains(number)).map(|number| (node(number), 0)));
    bench.view.set_roster(NOW, Arc::new(left), &mut out);
    bench.view.check_invariants();
    assert_eq!(out, nodes(5..=9).into_iter().map(ViewAction::Dropped).collect::<Vec<_>>());
    assert_eq!((bench.active(), bench.passive()), (vec![2, 3, 4], (20..=29).collect()));
    assert_eq!(bench.asks().len(), 4, "their places are filled at once");
    // So few are left that the views become smaller: one neighbour too many goes.
    let mut bench = Bench::with(60, 24, 2..=9);
    bench.keep_in_mind(20..=35);
    let mut out = Vec::new();
    bench.view.set_roster(NOW, roster(7, |_| 0), &mut out);
    bench.view.check_invariants();
    assert_eq!((bench.view.active().len(), bench.view.capacity()), (4, 6));
    assert!(out.contains(&ViewAction::Dropped(node(8))) && out.contains(&ViewAction::Dropped(node(9))));
    // This node itself may leave.
    let mut out = Vec::new();
    let others = Roster::new((2..=7).map(|number| (node(number), 0)));
    bench.view.set_roster(NOW, Arc::new(others), &mut out);
    bench.view.check_invariants();
}
