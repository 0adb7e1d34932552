use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::types::{Incarnation, NodeId};

fn dot(node: u32, counter: u64) -> Dot {
    let node = NodeId::new(node).expect("not zero");
    Dot { actor: Actor { node, incarnation: Incarnation(1) }, counter: Counter(counter) }
}

fn dots() -> impl Strategy<Value = BTreeSet<Dot>> {
    prop::collection::btree_set((1u32..4, 1u64..24).prop_map(|(node, counter)| dot(node, counter)), 0..40)
}

fn vector(dots: &BTreeSet<Dot>) -> VersionVector {
    dots.iter().copied().collect()
}

fn set(vector: &VersionVector) -> BTreeSet<Dot> {
    vector.dots().collect()
}

proptest! {
    #[test]
    fn a_vector_is_the_set_of_its_dots(one in dots(), other in dots(), order in any::<prop::sample::Index>()) {
        let (a, b) = (vector(&one), vector(&other));
        prop_assert_eq!(set(&a), one.clone());
        prop_assert_eq!(a.count(), one.len() as u64);
        prop_assert_eq!(set(&a.minus(&b)), &one - &other);
        prop_assert_eq!(set(&a.common(&b)), &one & &other);
        prop_assert_eq!(a.covers_all(&b), one.is_superset(&other));
        let mut joined = a.clone();
        joined.join(&b);
        prop_assert_eq!(set(&joined), &one | &other);
        // In whatever order dots come, the same vector comes of them.
        let mut rotated: Vec<Dot> = one.iter().copied().collect();
        if !rotated.is_empty() {
            let at = order.index(rotated.len());
            rotated.rotate_left(at);
        }
        prop_assert_eq!(rotated.into_iter().collect::<VersionVector>(), a.clone());
        let stored = postcard::to_stdvec(&a).expect("it serializes");
        prop_assert_eq!(postcard::from_bytes::<VersionVector>(&stored).expect("it reads back"), a);
    }
}

#[test]
fn the_contiguous_counter_stops_at_the_first_gap() {
    let mut vector: VersionVector = [dot(1, 1), dot(1, 2), dot(1, 4), dot(2, 3)].into_iter().collect();
    let of = |vector: &VersionVector, node| {
        let counters = vector.counters(dot(node, 1).actor).expect("it is there");
        (counters.contiguous().0, counters.highest().0)
    };
    assert_eq!((of(&vector, 1), of(&vector, 2)), ((2, 4), (0, 3)));
    assert!(vector.insert(dot(1, 3)) && !vector.insert(dot(1, 3)));
    assert_eq!(of(&vector, 1), (4, 4));
    assert_eq!(vector.ranges(), 2);
}

#[test]
fn ranges_that_lie_are_refused() {
    let actor = dot(1, 1).actor;
    for ranges in [vec![(0u64, 3u64)], vec![(2, 1)], vec![(1, 3), (4, 5)], vec![(5, 6), (1, 2)], vec![(1, u64::MAX)]] {
        let bytes = postcard::to_stdvec(&BTreeMap::from([(actor, ranges.clone())])).expect("it serializes");
        assert!(postcard::from_bytes::<VersionVector>(&bytes).is_err(), "{ranges:?}");
    }
}

#[test]
fn a_context_knows_all_that_its_actors_wrote_before() {
    let context: CausalContext = [dot(1, 5), dot(2, 2)].into_iter().collect();
    assert!(context.covers(dot(1, 1)) && context.covers(dot(1, 5)));
    assert!(!context.covers(dot(1, 6)) && !context.covers(dot(3, 1)));
    let mut more = context.clone();
    more.insert(dot(1, 7));
    assert!(more.covers_all(&context) && !context.covers_all(&more));
}
