//! Rumours of one node, its neighbours played by hand.

use super::*;
use crate::types::Epoch;

const NOW: Moment = Moment(1_000_000);
const RUMOUR: Rumour = Rumour::Epoch(Epoch(7));

fn node(number: u32) -> NodeId {
    NodeId::new(number).expect("not zero")
}

fn id(origin: u32, number: u64) -> RumourId {
    RumourId { origin: node(origin), incarnation: Incarnation(1), number }
}

fn after(ms: u64) -> Moment {
    NOW.plus(Duration::from_millis(ms))
}

fn pushed(origin: u32, number: u64, hops: u8) -> Gossip {
    Gossip::Rumour { id: id(origin, number), hops, rumour: RUMOUR }
}

/// Node 1 with its neighbours.
struct Bench {
    broadcast: Broadcast,
    counters: MembershipCounters,
    active: BTreeSet<NodeId>,
}

impl Bench {
    fn new(eager: &[u32], lazy: &[u32]) -> Bench {
        let mut broadcast = Broadcast::new(node(1), Incarnation(4));
        let active: BTreeSet<NodeId> = eager.iter().chain(lazy).copied().map(node).collect();
        active.iter().for_each(|peer| broadcast.add(*peer));
        let mut bench = Bench { broadcast, counters: MembershipCounters::default(), active };
        for peer in lazy {
            assert_eq!(bench.hear(NOW, *peer, Gossip::Prune), (vec![], None));
        }
        bench
    }

    fn check(&self) {
        self.broadcast.check_invariants(&self.active);
    }

    fn begin(&mut self, now: Moment) -> Vec<Sent> {
        let mut out = Vec::new();
        self.broadcast.begin(now, RUMOUR, &mut out);
        self.check();
        out
    }

    fn hear(&mut self, now: Moment, from: u32, gossip: Gossip) -> (Vec<Sent>, Option<(RumourId, Rumour)>) {
        let mut out = Vec::new();
        let heard = self.broadcast.hear(now, node(from), gossip, &mut self.counters, &mut out);
        self.check();
        (out, heard)
    }

    fn tick(&mut self, now: Moment) -> Vec<Sent> {
        let mut out = Vec::new();
        self.broadcast.tick(now, &mut self.counters, &mut out);
        self.check();
        out
    }

    fn eager(&self) -> Vec<u32> {
        self.broadcast.eager.iter().map(|peer| peer.number()).collect()
    }
}

#[test]
fn what_begins_here_goes_to_eager_peers_at_once_and_is_announced_to_the_others() {
    let mut bench = Bench::new(&[2, 3], &[4, 5]);
    let own = |number| RumourId { origin: node(1), incarnation: Incarnation(4), number };
    let push = |to, number| (node(to), Gossip::Rumour { id: own(number), hops: 1, rumour: RUMOUR });
    assert_eq!(bench.begin(NOW), [push(2, 0), push(3, 0)]);
    assert_eq!(bench.begin(after(20)), [push(2, 1), push(3, 1)]);
    assert_eq!(bench.broadcast.next_timeout(), after(50));
    assert_eq!(bench.tick(after(49)), []);
    let have = |to| (node(to), Gossip::Have { ids: vec![own(0), own(1)] });
    assert_eq!(bench.tick(after(50)), [have(4), have(5)]);
    assert_eq!(bench.tick(after(60)), []);
}

#[test]
fn announcements_come_in_pages() {
    let mut bench = Bench::new(&[], &[2]);
    for number in 0..300 {
        bench.broadcast.take(NOW, id(3, number), 1, RUMOUR, None, &mut Vec::new());
    }
    let pages: Vec<usize> = bench
        .tick(after(50))
        .into_iter()
        .map(|sent| match sent {
            (to, Gossip::Have { ids }) if to == node(2) => ids.len(),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(pages, [128, 128, 44]);
}

#[test]
fn a_new_rumour_is_told_once_and_passed_on_but_not_back() {
    let mut bench = Bench::new(&[2, 3, 4], &[5]);
    let (sent, heard) = bench.hear(NOW, 3, pushed(9, 1, 4));
    assert_eq!(heard, Some((id(9, 1), RUMOUR)));
    assert_eq!(sent, [(node(2), pushed(9, 1, 5)), (node(4), pushed(9, 1, 5))]);
    assert_eq!(bench.tick(after(50)), [(node(5), Gossip::Have { ids: vec![id(9, 1)] })]);
    // The second way is pruned.
    assert_eq!(bench.hear(after(60), 2, pushed(9, 1, 7)), (vec![(node(2), Gossip::Prune)], None));
    assert_eq!(bench.eager(), [3, 4]);
    assert_eq!((bench.counters.rumours_heard, bench.counters.rumours_repeated), (1, 1));
    // The next one is only announced there.
    let (sent, _) = bench.hear(after(100), 3, pushed(9, 2, 4));
    assert_eq!(sent, [(node(4), pushed(9, 2, 5))]);
    let have = |to| (node(to), Gossip::Have { ids: vec![id(9, 2)] });
    assert_eq!(bench.tick(after(150)), [have(2), have(5)]);
}

#[test]
fn whoever_brings_news_is_eager_from_then_on() {
    let mut bench = Bench::new(&[2], &[5]);
    let (sent, heard) = bench.hear(NOW, 5, pushed(9, 1, 1));
    assert!(heard.is_some());
    assert_eq!((sent, bench.eager()), (vec![(node(2), pushed(9, 1, 2))], vec![2, 5]));
}

#[test]
fn an_own_rumour_that_comes_back_is_not_news() {
    let mut bench = Bench::new(&[2, 3], &[]);
    assert_eq!(bench.hear(NOW, 2, pushed(1, 99, 1)), (vec![(node(2), Gossip::Prune)], None));
    assert_eq!(bench.hear(NOW, 3, Gossip::Have { ids: vec![id(1, 98)] }), (vec![], None));
    assert_eq!(bench.broadcast.entries(), 0);
}

#[test]
fn who_is_no_neighbour_brings_news_and_changes_no_tree() {
    let mut bench = Bench::new(&[2], &[3]);
    let (sent, heard) = bench.hear(NOW, 8, pushed(9, 1, 1));
    assert_eq!((sent, heard), (vec![(node(2), pushed(9, 1, 2))], Some((id(9, 1), RUMOUR))));
    assert_eq!(bench.hear(NOW, 8, pushed(9, 1, 1)), (vec![], None));
    let entries = bench.broadcast.entries();
    for gossip in [Gossip::Have { ids: vec![id(9, 2)] }, Gossip::Graft { id: id(9, 1) }, Gossip::Prune] {
        assert_eq!(bench.hear(NOW, 8, gossip), (vec![], None));
    }
    assert_eq!((bench.eager(), bench.broadcast.entries()), (vec![2], entries));
}

#[test]
fn what_was_announced_and_does_not_come_is_asked_for_and_then_of_the_next() {
    let mut bench = Bench::new(&[2], &[3, 4, 5]);
    for (at, from) in [(0, 4), (10, 3), (20, 5)] {
        assert_eq!(bench.hear(after(at), from, Gossip::Have { ids: vec![id(9, 1)] }), (vec![], None));
    }
    let graft = |to| vec![(node(to), Gossip::Graft { id: id(9, 1) })];
    assert_eq!(bench.broadcast.next_timeout(), after(100));
    assert_eq!(bench.tick(after(99)), []);
    assert_eq!((bench.tick(after(100)), bench.eager()), (graft(4), vec![2, 4]));
    assert_eq!(bench.tick(after(199)), []);
    assert_eq!((bench.tick(after(200)), bench.eager()), (graft(3), vec![2, 3, 4]));
    assert_eq!(bench.tick(after(300)), graft(5));
    // Nobody else has it: then it is not waited for any more.
    assert_eq!((bench.tick(after(400)), bench.broadcast.entries()), (vec![], 0));
    assert_eq!((bench.counters.rumours_grafted, bench.broadcast.next_timeout()), (3, Moment(u64::MAX)));
}

#[test]
fn what_comes_is_not_asked_for() {
    let mut bench = Bench::new(&[2], &[3]);
    bench.hear(NOW, 3, Gossip::Have { ids: vec![id(9, 1)] });
    bench.hear(after(50), 2, pushed(9, 1, 1));
    // Nor is what is here already.
    bench.hear(after(60), 3, Gossip::Have { ids: vec![id(9, 1)] });
    bench.tick(after(100));
    assert_eq!((bench.tick(after(200)), bench.counters.rumours_grafted), (vec![], 0));
}

#[test]
fn a_source_that_is_lost_is_not_asked() {
    let mut bench = Bench::new(&[2], &[3, 4]);
    bench.hear(NOW, 3, Gossip::Have { ids: vec![id(9, 1), id(9, 2)] });
    bench.hear(NOW, 4, Gossip::Have { ids: vec![id(9, 2)] });
    bench.begin(NOW);
    bench.active.remove(&node(3));
    bench.broadcast.remove(node(3));
    bench.check();
    assert_eq!(bench.broadcast.missing.keys().copied().collect::<Vec<_>>(), [id(9, 2)]);
    let told: Vec<NodeId> = bench.tick(after(50)).into_iter().map(|(to, _)| to).collect();
    assert_eq!(told, [node(4)], "nothing is announced to it");
    assert_eq!(bench.tick(after(100)), [(node(4), Gossip::Graft { id: id(9, 2) })]);
}

#[test]
fn who_asks_gets_the_rumour_and_is_eager() {
    let mut bench = Bench::new(&[2], &[3]);
    bench.hear(NOW, 2, pushed(9, 1, 254));
    bench.hear(NOW, 2, pushed(9, 2, 6));
    assert_eq!(bench.hear(NOW, 3, Gossip::Graft { id: id(9, 2) }), (vec![(node(3), pushed(9, 2, 7))], None));
    assert_eq!(bench.eager(), [2, 3]);
    assert_eq!(bench.hear(NOW, 3, Gossip::Graft { id: id(9, 1) }), (vec![(node(3), pushed(9, 1, 255))], None));
    assert_eq!(bench.hear(NOW, 3, Gossip::Graft { id: id(9, 3) }), (vec![], None), "that is not here");
}

#[test]
fn pruned_peers_stay_pruned_until_they_ask_or_come_anew() {
    let mut bench = Bench::new(&[2, 3], &[]);
    for _ in 0..2 {
        assert_eq!(bench.hear(NOW, 3, Gossip::Prune), (vec![], None));
        assert_eq!(bench.eager(), [2]);
    }
    bench.broadcast.add(node(3));
    assert_eq!(bench.eager(), [2, 3]);
}

#[test]
fn a_rumour_that_has_come_far_goes_no_further() {
    // How far it has come, and whether it is passed on.
    for (hops, passed) in [(98, true), (99, true), (100, false), (101, false), (255, false)] {
        let mut bench = Bench::new(&[2, 3], &[4]);
        let (sent, heard) = bench.hear(NOW, 2, pushed(9, 1, hops));
        assert!(heard.is_some(), "it is news all the same");
        let expected = if passed { vec![(node(3), pushed(9, 1, hops + 1))] } else { vec![] };
        assert_eq!(sent, expected, "after {hops}");
        assert_eq!(bench.tick(after(50)).len(), usize::from(passed), "after {hops}");
        // It can still be asked for.
        let further = pushed(9, 1, hops.saturating_add(1));
        assert_eq!(bench.hear(NOW, 3, Gossip::Graft { id: id(9, 1) }).0, [(node(3), further)]);
    }
}

#[test]
fn rumours_are_forgotten_after_a_minute() {
    let mut bench = Bench::new(&[2, 3], &[]);
    bench.hear(NOW, 2, pushed(9, 1, 1));
    bench.hear(after(30_000), 2, pushed(9, 2, 1));
    assert_eq!(bench.broadcast.next_timeout(), after(60_000));
    bench.tick(after(59_999));
    assert_eq!(bench.hear(after(59_999), 3, pushed(9, 1, 2)).1, None);
    bench.tick(after(60_000));
    assert_eq!((bench.broadcast.entries(), bench.broadcast.next_timeout()), (1, after(90_000)));
    bench.tick(after(90_000));
    assert_eq!((bench.broadcast.entries(), bench.broadcast.next_timeout()), (0, Moment(u64::MAX)));
}

#[test]
fn what_is_kept_is_bounded_and_the_oldest_goes_first() {
    let most = limits::RUMOURS_KEPT as u64;
    let mut bench = Bench::new(&[2], &[]);
    for number in 0..most + 10 {
        let (mut out, gossip) = (Vec::new(), pushed(9, number, 1));
        let heard = bench.broadcast.hear(NOW, node(2), gossip, &mut bench.counters, &mut out);
        assert!(heard.is_some());
    }
    bench.check();
    assert_eq!(bench.broadcast.kept.len() as u64, most);
    assert_eq!(bench.hear(NOW, 2, pushed(9, 10, 1)).1, None, "it is known still");
    assert!(bench.hear(NOW, 2, pushed(9, 9, 1)).1.is_some(), "it is known no more");
}

#[test]
fn what_is_missing_and_who_has_it_is_bounded() {
    let most = limits::RUMOURS_KEPT as u64;
    let peers: Vec<u32> = (2..20).collect();
    let mut bench = Bench::new(&peers, &[]);
    for first in (0..most + 1_000).step_by(limits::RUMOURS_ANNOUNCED) {
        let ids = (first..first + limits::RUMOURS_ANNOUNCED as u64).map(|number| id(9, number)).collect();
        assert_eq!(bench.hear(NOW, 2, Gossip::Have { ids }), (vec![], None));
    }
    assert_eq!(bench.broadcast.missing.len() as u64, most);
    for peer in peers {
        bench.hear(NOW, peer, Gossip::Have { ids: vec![id(9, 0)] });
    }
    assert_eq!(bench.broadcast.missing[&id(9, 0)].sources.len(), SOURCES);
}

#[test]
fn what_is_to_be_announced_is_bounded() {
    let mut bench = Bench::new(&[2], &[3]);
    for number in 0..limits::RUMOURS_KEPT as u64 + 10 {
        bench.broadcast.take(NOW, id(9, number), 1, RUMOUR, None, &mut Vec::new());
    }
    assert_eq!(bench.broadcast.to_announce[&node(3)].len(), limits::RUMOURS_KEPT);
}
