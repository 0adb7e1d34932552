//! Shuffles and their ways, and whatever else may be said to a view.

use std::collections::VecDeque;

use super::*;
use crate::types::{Life, Load};

#[test]
fn a_shuffle_takes_some_of_both_views_along() {
    let mut bench = Bench::with(60, 24, 2..=9);
    bench.keep_in_mind(20..=35);
    bench.view.shuffle_at = NOW;
    let actions = bench.tick();
    let [ViewAction::Send { to, gossip: Gossip::Shuffle { hops: 5, path, nodes: taken } }] = &actions[..] else {
        panic!("{actions:?}")
    };
    assert!(bench.active().contains(&to.number()) && *path == [node(1)]);
    let (first, rest) = taken.split_first().expect("itself at least");
    let active = rest.iter().filter(|peer| bench.view.active().contains(peer)).count();
    let passive = rest.iter().filter(|peer| bench.view.passive().contains(peer)).count();
    assert_eq!((*first, active, passive), (node(1), SHUFFLED_ACTIVE, SHUFFLED_PASSIVE));
    assert!(!rest.contains(to) && rest.iter().collect::<BTreeSet<_>>().len() == rest.len());
    let pause = bench.view.next_timeout().since(NOW);
    assert!(pause >= ms(7_500) && pause <= ms(12_500), "{pause:?}");
    // Alone there is nobody to shuffle with.
    let mut bench = Bench::new(1, 24);
    bench.view.shuffle_at = NOW;
    assert_eq!(bench.tick(), []);
}

#[test]
fn a_walk_goes_on_to_whom_it_has_not_met() {
    let walk = |hops, path: &[u32]| Gossip::Shuffle { hops, path: nodes(path.iter().copied()), nodes: nodes([20, 21]) };
    let back = |to, path: &[u32]| send(to, Gossip::ShuffleReply { path: nodes(path.iter().copied()), nodes: vec![] });
    // Neighbours, who brings it, what, and what is done.
    type Case<'a> = (&'a str, &'a [u32], u32, Gossip, Vec<ViewAction>);
    let cases: [Case<'_>; 7] = [
        ("it goes on", &[2, 3], 2, walk(5, &[2]), vec![send(3, walk(4, &[2, 1]))]),
        ("its end", &[2, 3], 2, walk(0, &[2]), vec![back(2, &[])]),
        ("its end, further out", &[2, 3], 2, walk(0, &[7, 2]), vec![back(2, &[7])]),
        ("all were met", &[2, 3], 2, walk(5, &[3, 2]), vec![back(2, &[3])]),
        ("a long way", &[2, 3], 2, walk(5, &[5, 6, 7, 8, 9, 10, 2]), vec![back(2, &[5, 6, 7, 8, 9, 10])]),
        (
            "the longest way on",
            &[2, 3],
            2,
            walk(5, &[6, 7, 8, 9, 10, 2]),
            vec![send(3, walk(4, &[6, 7, 8, 9, 10, 2, 1]))],
        ),
        ("it would never end", &[2, 3], 2, walk(255, &[2]), vec![send(3, walk(5, &[2, 1]))]),
    ];
    for (what, active, from, gossip, expected) in cases {
        let ends = matches!(expected[0], ViewAction::Send { gossip: Gossip::ShuffleReply { .. }, .. });
        let mut bench = Bench::with(60, 24, active.iter().copied());
        assert_eq!(bench.hear(from, gossip), expected, "{what}");
        assert_eq!(bench.passive(), if ends { [20, 21].into() } else { BTreeSet::new() }, "{what}");
    }
}

#[test]
fn malformed_ways_are_ignored() {
    let walk = |path: &[u32]| Gossip::Shuffle { hops: 0, path: nodes(path.iter().copied()), nodes: nodes([20, 21]) };
    let back = |path: &[u32]| Gossip::ShuffleReply { path: nodes(path.iter().copied()), nodes: nodes([20, 21]) };
    let cases = [
        ("from nowhere", walk(&[])),
        ("through somebody else", walk(&[2, 3])),
        ("through this node", walk(&[1, 2])),
        ("back from this node", walk(&[2, 1])),
        ("back to somebody who is no neighbour", back(&[7])),
        ("back to somebody who is no neighbour, from afar", back(&[2, 7])),
        ("back to this node, which it has left", back(&[1])),
        ("back to a stranger", back(&[99])),
    ];
    for (what, gossip) in cases {
        let mut bench = Bench::with(60, 24, [2, 3]);
        let before = format!("{:?}", bench.view);
        assert_eq!(bench.hear(2, gossip), [], "{what}");
        assert_eq!(format!("{:?}", bench.view), before, "{what}");
    }
}

#[test]
fn an_answer_goes_back_the_way_the_walk_came() {
    // A line of nodes, of which each knows the next one and the one before, and a spare part.
    let line: Vec<u32> = (1..=5).collect();
    let mut benches: BTreeMap<u32, Bench> = BTreeMap::new();
    for number in &line {
        let mut bench = Bench::of(*number, roster(60, |_| 0), 24, u64::from(*number));
        let around = [number.wrapping_sub(1), number + 1].into_iter().filter(|peer| line.contains(peer));
        around.for_each(|peer| drop(bench.add(peer)));
        bench.keep_in_mind([number + 30]);
        benches.insert(*number, bench);
    }
    let origin = benches.get_mut(&1).expect("it is there");
    origin.view.shuffle_at = NOW;
    let shuffle = origin.tick().into_iter().map(asked).find(|(_, gossip)| matches!(gossip, Gossip::Shuffle { .. }));
    let mut under_way: VecDeque<(u32, u32, Gossip)> = shuffle.into_iter().map(|(to, what)| (1, to, what)).collect();
    let mut steps = Vec::new();
    while let Some((from, to, gossip)) = under_way.pop_front() {
        steps.push((from, to, matches!(gossip, Gossip::ShuffleReply { .. })));
        let actions = benches.get_mut(&to).expect("only neighbours are sent to").hear(from, gossip);
        under_way.extend(actions.into_iter().map(asked).map(|(next, what)| (to, next, what)));
    }
    let there = [(1, 2, false), (2, 3, false), (3, 4, false), (4, 5, false)];
    let back = [(5, 4, true), (4, 3, true), (3, 2, true), (2, 1, true)];
    assert_eq!(steps, [there, back].concat());
    assert_eq!(benches[&5].passive(), [1, 31, 35].into(), "what was brought");
    assert_eq!(benches[&1].passive(), [31, 35].into(), "what came back");
    assert!((2..=4).all(|number| benches[&number].passive() == [number + 30].into()), "on the way nothing was kept");
}

#[test]
fn what_is_brought_takes_the_place_of_what_was_given() {
    let mut bench = Bench::with(60, 24, 2..=9);
    bench.keep_in_mind(20..=35);
    let given = nodes([20, 21, 22, 23]);
    // This node, a neighbour, somebody known, a stranger and somebody down are not taken.
    let brought = nodes([1, 2, 24, 99, 50, 40, 41, 42, 42]);
    bench.view.integrate(&brought, &given, &|peer| peer == node(50));
    bench.view.check_invariants();
    let passive = bench.passive();
    assert_eq!(passive.len(), 16);
    assert!([40, 41, 42].iter().all(|peer| passive.contains(peer)), "{passive:?}");
    assert!((24..=35).all(|peer| passive.contains(&peer)), "{passive:?}");
    // More than was given pushes others out, and there are never too many.
    bench.view.integrate(&nodes(40..=59), &[], &nobody);
    bench.view.check_invariants();
    assert_eq!(bench.passive().len(), 16);
}

/// Any gossip that may come, true or not, from members and about anybody.
fn some_gossip(chance: &mut SmallRng, members: u32) -> Gossip {
    let mut some = |most: usize| -> Vec<NodeId> {
        let length = chance.random_range(0..=most);
        (0..length).map(|_| node(chance.random_range(1..=members + 3))).collect()
    };
    let (path, nodes) = (some(7), some(16));
    let joiner = node(chance.random_range(1..=members + 3));
    let hops = [0, 1, 3, 6, 255][chance.random_range(0..5)];
    match chance.random_range(0..9) {
        0 => Gossip::Join,
        1 => Gossip::ForwardJoin { joiner, hops },
        2 | 3 => Gossip::Neighbor { urgent: chance.random_bool(0.5) },
        4 => Gossip::NeighborReply { accepted: chance.random_bool(0.7) },
        5 => Gossip::Disconnect,
        6 => Gossip::Shuffle { hops, path, nodes },
        7 => Gossip::ShuffleReply { path: Vec::new(), nodes },
        _ => Gossip::ShuffleReply { path, nodes },
    }
}

#[test]
fn whatever_is_said_the_views_keep_their_bounds() {
    for (members, zones) in [(2, 1), (3, 2), (5, 5), (10, 3), (25, 1), (25, 4), (5_000, 7)] {
        for k_list in [1, 2, 5, 24] {
            for seed in 0..5 {
                let mut bench = Bench::of(1, roster(members, |number| (number % zones) as u16), k_list, seed);
                bench.view.shuffle_at = NOW;
                let mut chance = SmallRng::seed_from_u64(seed);
                let mut neighbors: BTreeSet<NodeId> = BTreeSet::new();
                for _ in 0..300 {
                    let from = chance.random_range(2..=members);
                    let mut actions = match chance.random_range(0..10) {
                        0 => bench.lose(from),
                        1 => bench.next(),
                        _ => bench.hear(from, some_gossip(&mut chance, members)),
                    };
                    // Whatever it says has bounds, too, and the changes tell all there is to tell.
                    for action in actions.drain(..) {
                        match action {
                            ViewAction::Added(peer) => assert!(neighbors.insert(peer)),
                            ViewAction::Dropped(peer) => assert!(neighbors.remove(&peer)),
                            ViewAction::Send { to, gossip } => {
                                assert_ne!(to, node(1));
                                if let Gossip::Shuffle { hops, path, nodes } = gossip {
                                    assert!(hops < limits::WALK_HOPS && path.len() <= 7 && nodes.len() <= 16);
                                }
                            }
                        }
                    }
                    assert_eq!(&neighbors, bench.view.active());
                }
            }
        }
    }
}

#[test]
fn other_gossip_is_none_of_its_business() {
    let life = Life::begun(Incarnation(1));
    let standing = Gossip::Standing { life, load: Load::Normal, down: vec![], alive: vec![] };
    let mut bench = Bench::with(10, 24, [2]);
    for gossip in [standing, Gossip::Prune, Gossip::Have { ids: vec![] }] {
        assert_eq!(bench.hear(2, gossip), []);
    }
    assert_eq!(bench.active(), [2]);
}
