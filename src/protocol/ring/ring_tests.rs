//! Placement over many clusters: sizes, zones, weights, sequences of joins and leaves.

use proptest::prelude::*;

use super::*;
use crate::types::{Partition, Zone};

type Members = BTreeMap<NodeId, Member>;

fn id(number: u32) -> NodeId {
    NodeId::new(number).expect("not zero")
}

fn member(number: u32, zone: &str, weight: u32) -> (NodeId, Member) {
    let peer_address = "127.0.0.1:9379".parse().expect("an address");
    (id(number), Member { id: id(number), peer_address, zone: Zone(zone.to_owned()), weight })
}

/// Members 1 to `count` in `zones` zones by turns, all of weight 1.
fn uniform(count: u32, zones: u32) -> Members {
    (1..=count).map(|number| member(number, &format!("z{}", number % zones.max(1)), 1)).collect()
}

fn q(partitions: u32) -> PartitionCount {
    PartitionCount::new(partitions).expect("a power of two")
}

fn loads(assignment: &Assignment, members: &Members) -> BTreeMap<NodeId, u32> {
    let mut loads: BTreeMap<NodeId, u32> = members.keys().map(|id| (*id, 0)).collect();
    assignment.0.iter().flatten().for_each(|id| *loads.get_mut(id).expect("only members hold copies") += 1);
    loads
}

/// The least number of copies that some zone must hold: 1 if there are enough zones.
fn zone_limit(members: &Members, copies: usize) -> usize {
    let mut sizes: BTreeMap<&Zone, usize> = BTreeMap::new();
    members.values().for_each(|member| *sizes.entry(&member.zone).or_default() += 1);
    let mut limit = 1;
    while sizes.values().map(|size| limit.min(*size)).sum::<usize>() < copies {
        limit += 1;
    }
    limit
}

/// What holds for every assignment, found out without the code under test.
fn check(assignment: &Assignment, members: &Members, rf: u8, partitions: PartitionCount) {
    assert_eq!(assignment.0.len(), partitions.get() as usize);
    let copies = members.len().min(usize::from(rf));
    let limit = zone_limit(members, copies);
    for replicas in &assignment.0 {
        let distinct: BTreeSet<_> = replicas.iter().collect();
        assert_eq!((replicas.len(), distinct.len()), (copies, copies), "{replicas:?}");
        for id in replicas {
            let together = replicas.iter().filter(|other| members[other].zone == members[id].zone).count();
            assert!(together <= limit, "{together} of {replicas:?} share a zone, {limit} may");
        }
    }
    let bounds = bounds(members, rf, partitions);
    for (id, load) in loads(assignment, members) {
        assert!(bounds[&id].contains(&load), "{id} holds {load}, not {:?}", bounds[&id]);
    }
    let mut primaries: BTreeMap<NodeId, u32> = BTreeMap::new();
    assignment.0.iter().for_each(|replicas| *primaries.entry(replicas[0]).or_default() += 1);
    for (id, load) in loads(assignment, members) {
        let led = primaries.get(&id).copied().unwrap_or(0);
        assert!(led <= load.div_ceil(copies as u32), "{id} is primary of {led} of its {load}");
    }
}

/// The bound of the contract where neither zones nor weights limit a share.
fn plain_bound(members: &Members, node: NodeId, rf: u8, partitions: PartitionCount) -> u32 {
    let weight: u32 = members.values().map(|member| member.weight).sum();
    let copies = members.len().min(usize::from(rf)) as f64;
    let mean = copies * f64::from(partitions.get()) * f64::from(members[&node].weight) / f64::from(weight);
    ((mean - 1e-9).ceil()).max((mean * 1.05 + 1e-9).floor()) as u32
}

#[test]
fn no_node_is_over_its_bound_from_3_to_50_nodes() {
    for partitions in [64, 256] {
        for count in 3..=50 {
            for zones in [1, 3, count] {
                let members = uniform(count, zones);
                let assignment = place(None, &members, 3, q(partitions));
                check(&assignment, &members, 3, q(partitions));
                let loads = loads(&assignment, &members);
                let mean = f64::from(3 * partitions) / f64::from(count);
                let even = zones == 1 || count % zones == 0;
                for (id, load) in &loads {
                    assert!(!even || *load <= plain_bound(&members, *id, 3, q(partitions)));
                    assert!(!even || f64::from(*load) > mean - 1.0, "{id} holds {load}, the mean is {mean}");
                }
            }
        }
    }
}

#[test]
fn large_rings_are_balanced_too() {
    for (count, partitions) in [(50, 1024), (7, 4096), (50, 4096)] {
        let members = uniform(count, 1);
        let assignment = place(None, &members, 3, q(partitions));
        check(&assignment, &members, 3, q(partitions));
        let mut more = members.clone();
        more.extend([member(count + 1, "z0", 1)]);
        let next = place(Some(&assignment), &more, 3, q(partitions));
        check(&next, &more, 3, q(partitions));
        assert!(moves(&assignment, &next) * 10 <= 12 * least_moves(&assignment, &more, 3, q(partitions)));
    }
}

/// One change after another, from a fresh placement; each is checked and counted.
struct History {
    members: Members,
    assignment: Assignment,
    partitions: PartitionCount,
    worst_ratio: f64,
    worst_load: f64,
    least_load: f64,
}

impl History {
    fn new(members: Members, partitions: PartitionCount) -> History {
        let assignment = place(None, &members, 3, partitions);
        check(&assignment, &members, 3, partitions);
        History { members, assignment, partitions, worst_ratio: 0.0, worst_load: 0.0, least_load: f64::MAX }
    }

    fn change(&mut self, members: Members) {
        let next = place(Some(&self.assignment), &members, 3, self.partitions);
        check(&next, &members, 3, self.partitions);
        assert_eq!(next, place(Some(&self.assignment), &members, 3, self.partitions), "the same arguments");
        let least = least_moves(&self.assignment, &members, 3, self.partitions);
        let moved = moves(&self.assignment, &next);
        assert!(moved >= least && moved * 10 <= least * 12, "{moved} moves, {least} would do");
        if least > 0 {
            self.worst_ratio = self.worst_ratio.max(moved as f64 / least as f64);
        }
        let shares = Problem::new(&members, 3, self.partitions).shares();
        for (load, share) in loads(&next, &members).values().zip(shares) {
            self.worst_load = self.worst_load.max(f64::from(*load) / share.value());
            self.least_load = self.least_load.min(f64::from(*load) / share.value());
        }
        (self.members, self.assignment) = (members, next);
    }

    fn join(&mut self, number: u32, zone: &str, weight: u32) {
        let mut members = self.members.clone();
        members.extend([member(number, zone, weight)]);
        self.change(members);
    }

    fn leave(&mut self, number: u32) {
        let mut members = self.members.clone();
        members.remove(&id(number));
        self.change(members);
    }
}

#[test]
fn growing_to_50_and_shrinking_to_3_moves_little() {
    println!("zones  weights   worst moves/least   max load/share   min load/share");
    for (zones, weights) in [(1, false), (3, false), (5, true), (1, true)] {
        let weight = |number: u32| if weights { 1 + number % 4 } else { 1 };
        let zone = |number: u32| format!("z{}", number % zones);
        let members = (1..=3).map(|number| member(number, &zone(number), weight(number))).collect();
        let mut history = History::new(members, q(256));
        (4..=50).for_each(|number| history.join(number, &zone(number), weight(number)));
        // Not in the order in which they came.
        (1..=50).map(|step| 1 + step * 37 % 50).filter(|number| *number > 3).for_each(|number| history.leave(number));
        let weights = if weights { "1 to 4" } else { "1" };
        println!(
            "{zones:5}  {weights:7} {:19.3} {:16.3} {:16.3}",
            history.worst_ratio, history.worst_load, history.least_load
        );
    }
}

#[test]
fn a_leave_moves_only_what_the_node_held() {
    let members = uniform(10, 1);
    let before = place(None, &members, 3, q(256));
    let mut fewer = members.clone();
    fewer.remove(&id(4));
    let held = loads(&before, &members)[&id(4)] as usize;
    let after = place(Some(&before), &fewer, 3, q(256));
    assert_eq!(least_moves(&before, &fewer, 3, q(256)), held);
    assert_eq!(moves(&before, &after), held);
}

#[test]
fn nothing_moves_when_nothing_changes() {
    for zones in [1, 3] {
        let members = uniform(9, zones);
        let before = place(None, &members, 3, q(256));
        assert_eq!(place(Some(&before), &members, 3, q(256)), before);
        assert_eq!(least_moves(&before, &members, 3, q(256)), 0);
    }
}

#[test]
fn degenerate_clusters_have_an_assignment() {
    let empty = place(None, &Members::new(), 3, q(8));
    assert_eq!(empty, Assignment(vec![Vec::new(); 8]));
    for count in 1..=3 {
        let members = uniform(count, 1);
        check(&place(None, &members, 3, q(8)), &members, 3, q(8));
        check(&place(Some(&empty), &members, 7, q(8)), &members, 7, q(8));
    }
    let one = uniform(1, 1);
    check(&place(None, &one, 3, q(1)), &one, 3, q(1));
    // A previous assignment of another world: unknown nodes, doubles, the wrong length.
    let strange = Assignment(vec![vec![id(9), id(1), id(1)], vec![]]);
    let members = uniform(5, 2);
    check(&place(Some(&strange), &members, 3, q(8)), &members, 3, q(8));
}

#[test]
fn a_third_zone_takes_a_copy_of_everything() {
    let mut members: Members = (1..=8).map(|number| member(number, &format!("z{}", number % 2), 1)).collect();
    let before = place(None, &members, 3, q(256));
    check(&before, &members, 3, q(256));
    members.extend([member(9, "z2", 1)]);
    let after = place(Some(&before), &members, 3, q(256));
    check(&after, &members, 3, q(256));
    assert_eq!(loads(&after, &members)[&id(9)], 256);
    assert_eq!(least_moves(&before, &members, 3, q(256)), 256);
}

/// Small rings in full: `members -> replicas of each partition`, members as `id:zone*weight`.
const CASES: &str = include_str!("ring_cases.txt");

#[test]
fn small_rings_are_as_written_down() {
    let mut previous = None;
    let mut wrong = String::new();
    for line in CASES.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
        let (given, expected) = line.split_once("->").expect("members -> assignment");
        let (fresh, given) = match given.trim().strip_prefix('+') {
            Some(rest) => (false, rest),
            None => (true, given),
        };
        let members: Members = given
            .split_whitespace()
            .map(|text| {
                let (number, rest) = text.split_once(':').expect("id:zone*weight");
                let (zone, weight) = rest.split_once('*').unwrap_or((rest, "1"));
                member(number.parse().expect("an id"), zone, weight.parse().expect("a weight"))
            })
            .collect();
        let assignment = place(if fresh { None } else { previous.as_ref() }, &members, 3, q(8));
        check(&assignment, &members, 3, q(8));
        let numbers =
            |replicas: &Vec<NodeId>| replicas.iter().map(|id| id.number().to_string()).collect::<Vec<_>>().join(",");
        let found = assignment.0.iter().map(numbers).collect::<Vec<_>>().join(" ");
        if found != expected.trim() {
            wrong += &format!("{} -> {found}\n", line.split("->").next().unwrap_or_default().trim());
        }
        previous = Some(assignment);
    }
    assert!(wrong.is_empty(), "these differ from the file:\n{wrong}");
}

/// The least moves by another way: minimum-cost flow with Bellman-Ford over an explicit
/// graph, from nothing. Slow, and so only for small rings.
fn least_moves_by_flow(previous: &Assignment, members: &Members, rf: u8, partitions: PartitionCount) -> i64 {
    struct Arc {
        to: usize,
        room: i64,
        cost: i64,
    }
    const LOWER_BOUND: i64 = 1_000_000;
    let mut arcs: Vec<Arc> = Vec::new();
    let mut from: Vec<Vec<usize>> = Vec::new();
    let mut vertices = || {
        from.push(Vec::new());
        from.len() - 1
    };
    let (source, sink) = (vertices(), vertices());
    let mut edges: Vec<(usize, usize, i64, i64)> = Vec::new();
    let copies = members.len().min(usize::from(rf));
    let zones: BTreeSet<_> = members.values().map(|member| member.zone.clone()).collect();
    let limit = zone_limit(members, copies) as i64;
    let bounds = bounds(members, rf, partitions);
    let nodes: BTreeMap<NodeId, usize> = members.keys().map(|id| (*id, vertices())).collect();
    for (node, bound) in bounds {
        // What the lower bound demands is worth any number of moves.
        edges.push((nodes[&node], sink, i64::from(*bound.start()), -LOWER_BOUND));
        edges.push((nodes[&node], sink, i64::from(bound.end() - bound.start()), 0));
    }
    for partition in partitions.all() {
        let top = vertices();
        edges.push((source, top, copies as i64, 0));
        for zone in &zones {
            let within = vertices();
            edges.push((top, within, limit, 0));
            for member in members.values().filter(|member| member.zone == *zone) {
                let cost = i64::from(!previous.replicas(partition).contains(&member.id));
                edges.push((within, nodes[&member.id], 1, cost));
            }
        }
    }
    for (a, b, room, cost) in edges {
        from[a].push(arcs.len());
        arcs.push(Arc { to: b, room, cost });
        from[b].push(arcs.len());
        arcs.push(Arc { to: a, room: 0, cost: -cost });
    }
    let mut moves = 0;
    loop {
        let mut cost = vec![i64::MAX; from.len()];
        let mut via = vec![usize::MAX; from.len()];
        cost[source] = 0;
        let mut changed = true;
        while changed {
            changed = false;
            for vertex in 0..from.len() {
                for index in &from[vertex] {
                    let arc = &arcs[*index];
                    if arc.room > 0 && cost[vertex] < i64::MAX && cost[vertex] + arc.cost < cost[arc.to] {
                        cost[arc.to] = cost[vertex] + arc.cost;
                        via[arc.to] = *index;
                        changed = true;
                    }
                }
            }
        }
        if cost[sink] == i64::MAX {
            return moves;
        }
        moves += cost[sink].rem_euclid(LOWER_BOUND);
        let mut vertex = sink;
        while vertex != source {
            arcs[via[vertex]].room -= 1;
            arcs[via[vertex] ^ 1].room += 1;
            vertex = arcs[via[vertex] ^ 1].to;
        }
    }
}

fn cluster() -> impl Strategy<Value = Vec<(u32, u32)>> {
    (1u32..=6, 0u32..3).prop_flat_map(|(zones, heavy)| {
        prop::collection::vec((0..zones, prop_oneof![Just(1), 1u32..=1 + heavy * 4]), 3..14)
    })
}

fn members_of(nodes: &[(u32, u32)]) -> Members {
    (1u32..).zip(nodes).map(|(number, (zone, weight))| member(number, &format!("z{zone}"), *weight)).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_sequence_of_joins_and_leaves_keeps_the_promises(
        nodes in cluster(),
        steps in prop::collection::vec((any::<bool>(), any::<prop::sample::Index>(), 0u32..6, 1u32..=4), 1..8),
        bits in 6u32..=8,
    ) {
        let mut history = History::new(members_of(&nodes), q(1 << bits));
        let mut next = nodes.len() as u32 + 1;
        for (join, which, zone, weight) in steps {
            if join || history.members.len() <= 3 {
                history.join(next, &format!("z{zone}"), weight);
                next += 1;
            } else {
                let number = which.get(&history.members.keys().collect::<Vec<_>>()).number();
                history.leave(number);
            }
        }
    }

    #[test]
    fn the_least_moves_are_the_least(
        nodes in cluster(),
        after in cluster(),
        rf in 1u8..=5,
        rf_after in 1u8..=5,
    ) {
        // Any members to any other members: harder than what happens to a real cluster.
        let previous = place(None, &members_of(&nodes), rf, q(16));
        let members = members_of(&after);
        let least = least_moves(&previous, &members, rf_after, q(16));
        prop_assert_eq!(least as i64, least_moves_by_flow(&previous, &members, rf_after, q(16)));
        let next = place(Some(&previous), &members, rf_after, q(16));
        check(&next, &members, rf_after, q(16));
        prop_assert!(moves(&previous, &next) * 10 <= least * 12);
    }
}

#[test]
fn a_key_lies_on_the_replicas_of_its_partition() {
    let assignment = place(None, &uniform(5, 1), 3, q(256));
    assert_eq!(assignment.replicas(Partition(255)).len(), 3);
}
