use super::*;

const NOW: Moment = Moment(1);

fn node(number: u32) -> NodeId {
    NodeId::new(number).expect("not zero")
}

fn met(numbers: std::ops::RangeInclusive<u32>) -> PeerTable {
    let mut peers = PeerTable::default();
    numbers.for_each(|number| peers.up(node(number), Incarnation(1)));
    peers
}

fn order(peers: &PeerTable, now: Moment, numbers: &[u32]) -> Vec<u32> {
    let mut order: Vec<NodeId> = numbers.iter().map(|number| node(*number)).collect();
    peers.sort_by_promise(now, node(1), &mut order);
    order.into_iter().map(NodeId::number).collect()
}

#[test]
fn the_estimate_settles_near_the_95th_percentile() {
    let mut peers = met(1..=1);
    for round in 0..20_000u64 {
        // 1 to 100 ms, evenly: the 95th percentile is 95 ms.
        peers.answered(NOW, node(1), Duration::from_millis(round * 37 % 100 + 1));
    }
    let p95 = peers.late_after(NOW, node(1), Duration::ZERO).as_millis();
    assert!((80..=100).contains(&p95), "p95 was estimated as {p95} ms");
}

#[test]
fn late_and_slow_replicas_are_asked_last() {
    let mut peers = met(1..=4);
    peers.answered(NOW, node(2), Duration::from_millis(3));
    peers.answered(NOW, node(3), Duration::from_millis(1));
    peers.missed(NOW, node(4));
    assert_eq!(order(&peers, NOW, &[2, 4, 3, 1]), [1, 3, 2, 4]);
    peers.answered(NOW, node(4), Duration::ZERO);
    assert_eq!(order(&peers, NOW, &[2, 4, 3, 1]), [1, 4, 3, 2]);
}

#[test]
fn what_gossip_doubts_is_asked_last_and_still_asked() {
    let mut peers = met(1..=3);
    peers.hint(node(2), true);
    peers.missed(NOW, node(3));
    assert_eq!(order(&peers, NOW, &[2, 3, 1]), [1, 3, 2]);
    peers.hint(node(2), false);
    assert_eq!(order(&peers, NOW, &[2, 3, 1]), [1, 2, 3]);
}

#[test]
fn a_slow_replica_is_hedged_earlier_than_its_own_p95() {
    let mut peers = met(2..=4);
    for _ in 0..200 {
        peers.answered(NOW, node(2), Duration::from_millis(4));
        peers.answered(NOW, node(3), Duration::from_millis(4));
        peers.answered(NOW, node(4), Duration::from_millis(300));
    }
    let after = |number| peers.late_after(NOW, node(number), Duration::ZERO).as_millis();
    assert!(after(2) <= 8 && after(4) <= 8, "{} and {} ms", after(2), after(4));
    assert!(peers.score(NOW, node(4)).slow && !peers.score(NOW, node(2)).slow);
    assert_eq!(order(&peers, NOW, &[4, 3, 2]), [3, 2, 4]);
    // After a while it is given another chance.
    let later = NOW.plus(STALE);
    assert_eq!(order(&peers, later, &[4, 3, 2]), [4, 3, 2]);
}

#[test]
fn a_replica_that_misses_many_answers_is_slow_though_it_is_fast() {
    let mut peers = met(2..=3);
    for round in 0..100 {
        peers.answered(NOW, node(2), Duration::from_millis(1));
        peers.answered(NOW, node(3), Duration::from_millis(1));
        if round % 2 == 0 {
            peers.missed(NOW, node(3));
            peers.answered(NOW, node(3), Duration::from_millis(1));
        }
    }
    assert!(peers.score(NOW, node(3)).missed_of_1000 >= 300, "{:?}", peers.score(NOW, node(3)));
    assert_eq!(order(&peers, NOW, &[3, 2]), [2, 3]);
    // A new life begins with a clean slate.
    peers.up(node(3), Incarnation(2));
    assert_eq!(order(&peers, NOW, &[3, 2]), [3, 2]);
}

#[test]
fn a_peer_that_was_never_met_is_not_connected() {
    let mut peers = PeerTable::default();
    assert!(!peers.is_connected(node(1)));
    peers.down(node(1));
    peers.up(node(1), Incarnation(3));
    assert!(peers.is_linked(node(1)) && !peers.is_connected(node(1)));
    peers.admit(node(1));
    assert!(peers.is_connected(node(1)));
    peers.down(node(1));
    assert!(!peers.is_connected(node(1)));
    assert_eq!(peers.incarnation(node(1)), Some(Incarnation(3)));
}
