//! Merging against an oracle that knows what happened.
//!
//! A few actors write to one key the way request coordinators do: each builds on its own
//! record, which it may have merged with others' before, replaces what a client has seen
//! somewhere and sometime earlier, and adds a dot. Beside each record goes the set of the
//! dots that it knows of and the set of those that it knows to be replaced. Whatever
//! records are merged, in whatever order, the sets' unions must come out.
//!
//! `DOGSLED_MERGE_CASES=1000000 cargo test --lib merges_agree` runs a million cases (100,000
//! unless told), `DOGSLED_MERGE_SEED` replays a run. Both are read when this is compiled,
//! because nothing in this layer looks around at run time.

use rand::rngs::SmallRng;
use rand::seq::{IndexedRandom, SliceRandom};
use rand::{Rng, SeedableRng};

use crate::types::{Actor, Content, Counter, Incarnation, NodeId, Timestamp};

use super::*;

/// Dots are numbered in the order in which they are issued, so that sets are bits.
type Dots = u64;

/// A record, and what really happened to it.
#[derive(Clone, Debug)]
struct State {
    record: Digest,
    known: Dots,
    replaced: Dots,
}

struct World {
    chance: SmallRng,
    stamps: Vec<Stamp>,
    /// The record of each actor, as it is now.
    actors: Vec<(Actor, u64, Option<State>)>,
    /// All that anybody ever held.
    past: Vec<State>,
}

impl World {
    fn new(seed: u64) -> World {
        let mut chance = SmallRng::seed_from_u64(seed);
        let count = chance.random_range(1..=5);
        // Two lives of one node are two actors.
        let actor = |number: u32| Actor {
            node: NodeId::new(1 + number / 2).expect("not zero"),
            incarnation: Incarnation(u64::from(number % 2)),
        };
        let actors = (0..count).map(|number| (actor(number), 0, None)).collect();
        World { chance, stamps: Vec::new(), actors, past: Vec::new() }
    }

    /// An actor takes in some of what was ever held, as messages bring it.
    fn receive(&mut self, index: usize) {
        let Some(received) = self.past.choose(&mut self.chance).cloned() else { return };
        let (_, _, state) = &mut self.actors[index];
        let merged = match state.take() {
            None => received,
            Some(own) => State {
                record: own.record.merge(received.record),
                known: own.known | received.known,
                replaced: own.replaced | received.replaced,
            },
        };
        *state = Some(merged.clone());
        self.past.push(merged);
    }

    /// An actor issues a version, for a client that has seen something or nothing.
    fn write(&mut self, index: usize) {
        let seen = match self.chance.random_bool(0.6) {
            true => self.past.choose(&mut self.chance).cloned(),
            false => None,
        };
        let bit = 1 << self.stamps.len();
        let (actor, counter, state) = &mut self.actors[index];
        // It writes to other keys of the partition too.
        *counter += self.chance.random_range(1..4);
        let dot = Dot { actor: *actor, counter: Counter(*counter) };
        let stamp = Stamp { timestamp: Timestamp(self.chance.random_range(0..50)), dot };
        self.stamps.push(stamp);
        let (mut versions, mut context) = match &state {
            Some(State { record: Record::Siblings(siblings), .. }) => siblings.clone().into_parts(),
            _ => (Vec::new(), CausalContext::default()),
        };
        if let Some(State { record: Record::Siblings(seen), .. }) = &seen {
            versions.retain(|version| !seen.context().covers(version.stamp.dot));
            context.join(seen.context());
        }
        let value_bytes = self.chance.random_bool(0.7).then_some(8);
        versions.push(Summary { stamp, expires_at: None, value_bytes });
        let seen = seen.map_or(0, |seen| seen.known);
        let (known, replaced) = state.as_ref().map_or((0, 0), |own| (own.known, own.replaced));
        let record = Record::Siblings(Siblings::new(versions, context));
        let after = State { record, known: known | seen | bit, replaced: replaced | seen };
        *state = Some(after.clone());
        self.past.push(after);
    }

    fn run(&mut self) {
        for _ in 0..self.chance.random_range(3..25) {
            let index = self.chance.random_range(0..self.actors.len());
            if self.chance.random_bool(0.5) { self.write(index) } else { self.receive(index) }
        }
    }

    /// What must be held by one who knows this.
    fn expected(&self, known: Dots, replaced: Dots) -> (Vec<Dot>, CausalContext) {
        let of = |set: Dots| self.stamps.iter().enumerate().filter(move |(bit, _)| set >> bit & 1 == 1);
        let mut alive: Vec<Dot> = of(known & !replaced).map(|(_, stamp)| stamp.dot).collect();
        alive.sort();
        (alive, of(known).map(|(_, stamp)| *stamp).collect())
    }

    fn check(&self, record: &Digest, known: Dots, replaced: Dots) {
        let Record::Siblings(siblings) = record else { panic!("nobody wrote anything else") };
        let (alive, context) = self.expected(known, replaced);
        let found: Vec<Dot> = siblings.versions().iter().map(|version| version.stamp.dot).collect();
        assert_eq!(found, alive);
        assert_eq!(*siblings.context(), context);
    }

    /// One case: some of all there ever was, merged in two orders.
    fn case(&mut self) {
        let count = self.chance.random_range(2..=4);
        let one = |_| self.past.choose(&mut self.chance).expect("something was written").clone();
        let mut some: Vec<State> = (0..count).map(one).collect();
        let (known, replaced) =
            some.iter().fold((0, 0), |(known, replaced), state| (known | state.known, replaced | state.replaced));
        let forward = merge_all(some.iter().map(|state| state.record.clone()));
        self.check(&forward, known, replaced);
        some.shuffle(&mut self.chance);
        // Another tree: the halves first, and one of them twice.
        let (one, other) = some.split_at(some.len() / 2);
        let one = merge_all(one.iter().map(|state| state.record.clone()));
        let other = merge_all(other.iter().map(|state| state.record.clone()));
        let agrees = one.dominates(&other) == (one.clone().merge(other.clone()) == one);
        assert!(agrees, "{one:?} against {other:?}");
        let again = one.clone();
        let tree = other.merge(one).merge(again);
        assert_eq!(tree, forward);
        assert!(some.iter().all(|state| tree.dominates(&state.record)));
    }
}

fn merge_all(records: impl Iterator<Item = Digest>) -> Digest {
    records.reduce(Record::merge).expect("there is one")
}

fn number(told: Option<&str>) -> Option<u64> {
    told.map(|text| text.parse().expect("a number"))
}

fn cases() -> u64 {
    number(option_env!("DOGSLED_MERGE_CASES")).unwrap_or(100_000)
}

#[test]
fn merges_agree_with_what_happened_in_any_order() {
    const CASES_OF_A_WORLD: u64 = 40;
    let seed = number(option_env!("DOGSLED_MERGE_SEED")).unwrap_or(1);
    let cases = cases();
    let mut siblings = [0u64; 4];
    for world in 0..cases.div_ceil(CASES_OF_A_WORLD) {
        let seed = seed.wrapping_add(world);
        let run = std::panic::catch_unwind(|| {
            let mut world = World::new(seed);
            world.run();
            if world.past.is_empty() {
                world.write(0);
            }
            for state in &world.past {
                world.check(&state.record, state.known, state.replaced);
            }
            for _ in 0..CASES_OF_A_WORLD {
                world.case();
            }
            world.past.iter().map(|state| state.record.versions().len()).max().unwrap_or(0)
        });
        let most = run.unwrap_or_else(|_| panic!("DOGSLED_MERGE_SEED={seed} DOGSLED_MERGE_CASES=1 replays it"));
        siblings[most.min(3)] += 1;
    }
    eprintln!("{cases} cases; worlds with 0, 1, 2 and more siblings: {siblings:?}");
    assert!(siblings[3] > siblings.iter().sum::<u64>() / 4, "there was something to merge");
}

#[test]
fn a_million_states_of_one_value_merge_to_the_highest_stamp() {
    let mut chance = SmallRng::seed_from_u64(7);
    let actor = |node| Actor { node: NodeId::new(node).expect("not zero"), incarnation: Incarnation(1) };
    for _ in 0..cases() {
        let count = chance.random_range(1..6);
        let mut versions: Vec<Summary> = (0..count)
            .map(|_| {
                let dot = Dot { actor: actor(chance.random_range(1..4)), counter: Counter(chance.random_range(1..5)) };
                // The dot decides the rest, as it does where no dot is issued twice.
                let timestamp = Timestamp(dot.counter.0 / 2);
                let value_bytes = (dot.counter.0 > 2).then_some(1);
                Summary { stamp: Stamp { timestamp, dot }, expires_at: None, value_bytes }
            })
            .collect();
        let highest = *versions.iter().max_by_key(|version| version.stamp).expect("there is one");
        for _ in 0..2 {
            let merged = merge_all(versions.iter().copied().map(Record::Last));
            assert_eq!(merged, Record::Last(highest));
            assert!(versions.iter().all(|version| merged.dominates(&Record::Last(*version))));
            let first = Record::Last(versions[0]);
            assert_eq!(first.dominates(&merged), first == merged);
            versions.shuffle(&mut chance);
        }
    }
}

#[test]
fn a_record_and_its_digest_are_judged_alike() {
    let stamp = |counter| Stamp {
        timestamp: Timestamp(counter),
        dot: Dot {
            actor: Actor { node: NodeId::new(1).expect("not zero"), incarnation: Incarnation(1) },
            counter: Counter(counter),
        },
    };
    let version = |counter| Version { stamp: stamp(counter), expires_at: None, content: Content::Value("v".into()) };
    let context = |counter| [stamp(counter).dot].into_iter().collect::<CausalContext>();
    let old = Record::Siblings(Siblings::new(vec![version(1)], CausalContext::default()));
    let new = Record::Siblings(Siblings::new(vec![version(2)], context(1)));
    let deleted: Record = Record::Siblings(Siblings::new(Vec::new(), context(2)));
    for (one, other, expected) in [(&new, &old, true), (&old, &new, false), (&deleted, &new, true), (&new, &new, true)]
    {
        assert_eq!(one.dominates(other), expected);
        assert_eq!(one.digest().dominates(other), expected);
        assert_eq!(one.dominates(&other.digest()), expected);
        assert_eq!(one.clone().merge(other.clone()).digest(), one.digest().merge(other.digest()));
    }
    assert_eq!(deleted.newest(), None);
}

#[test]
fn siblings_that_contradict_their_context_are_not_read() {
    let dot = |counter| Dot {
        actor: Actor { node: NodeId::new(1).expect("not zero"), incarnation: Incarnation(1) },
        counter: Counter(counter),
    };
    let summary = |counter| {
        let stamp = Stamp { timestamp: Timestamp(1), dot: dot(counter) };
        Summary { stamp, expires_at: None, value_bytes: None }
    };
    let read = |versions: Vec<Summary>, context: CausalContext| {
        let bytes = postcard::to_stdvec(&(versions, context)).expect("it can be written");
        postcard::from_bytes::<Siblings<Summary>>(&bytes).is_ok()
    };
    let context: CausalContext = [dot(2)].into_iter().collect();
    assert!(read(vec![summary(1), summary(2)], context.clone()));
    assert!(read(Vec::new(), context.clone()));
    assert!(!read(vec![summary(2), summary(1)], context.clone()), "out of order");
    assert!(!read(vec![summary(2), summary(2)], context.clone()), "twice");
    assert!(!read(vec![summary(3)], context.clone()), "not in the context");
    let many = (1..=limits::RECORD_VERSIONS as u64 + 1).map(summary).collect();
    assert!(!read(many, [dot(1_000)].into_iter().collect()), "too many");
}
