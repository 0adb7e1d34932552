//! Nothing that was deleted comes back, on the model and on disk: not by a duplicate, not
//! by a late write, not by an answer that was asked for before, not by starting anew.

use bytes::Bytes;
use dogsled::storage::Storage;
use dogsled::storage::memory::MemoryStorage;
use dogsled::storage::sled::SledStorage;
use dogsled::types::{
    Applied, CausalContext, CommitNumber, Content, Key, Mutation, NamespaceId, NodeId, Partition, Pulled, PulledItem,
    Record, Siblings, Stamp, StoreId, Timestamp, Version, VersionVector, WallTime, limits::CHECKPOINT_RANGES,
};

use super::storage::{PARTITIONS, delete, key, last, open, partition, put, stamp};

/// A store that can be left and opened again.
pub enum Store {
    Memory(MemoryStorage),
    Sled(tempfile::TempDir, Option<SledStorage>),
}

impl Store {
    pub fn all() -> [Store; 2] {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let sled = open(directory.path());
        [Store::Memory(MemoryStorage::new(PARTITIONS, StoreId(1))), Store::Sled(directory, Some(sled))]
    }

    pub fn get(&self) -> &dyn Storage {
        match self {
            Store::Memory(memory) => memory,
            Store::Sled(_, sled) => sled.as_ref().expect("it is open"),
        }
    }

    pub fn reopen(&mut self) {
        match self {
            Store::Memory(memory) => memory.crash(usize::MAX),
            Store::Sled(directory, sled) => {
                drop(sled.take());
                *sled = Some(open(directory.path()));
            }
        }
    }

    pub fn apply(&self, mutation: Mutation) -> Applied {
        let mut applied = self.get().apply(&[mutation], Timestamp(0)).expect("the store works");
        applied.pop().expect("one answer to one mutation")
    }

    /// The same, and durable.
    pub fn commit(&self, mutation: Mutation) -> Applied {
        let applied = self.apply(mutation);
        self.get().sync().expect("the store works");
        applied
    }

    fn collect(&self, partition: Partition, stable: &[u64], expired_before: u64) {
        let stable = dots(stable);
        let expired_before = WallTime(expired_before);
        self.apply(Mutation::Collect { partition, stable, expired_before, witnesses: Vec::new() });
    }

    fn read(&self, key: &Key) -> Option<Record> {
        self.get().read(partition(key), key).expect("the store works").what
    }

    fn horizon(&self, partition: Partition) -> Timestamp {
        let (_, coverages) = self.get().coverage(CommitNumber(0));
        coverages.iter().find(|coverage| coverage.partition == partition).map_or(Timestamp(0), |it| it.horizon)
    }
}

fn dots(numbers: &[u64]) -> VersionVector {
    numbers.iter().map(|number| stamp(*number).dot).collect()
}

fn version(number: u64, value: Option<&'static str>) -> Version {
    let content = value.map_or(Content::Tombstone, |value| Content::Value(Bytes::from_static(value.as_bytes())));
    Version { stamp: stamp(number), expires_at: None, content }
}

/// A stamp of another actor than the others'.
fn by(node: u32, number: u64) -> Stamp {
    let Stamp { timestamp, mut dot } = stamp(number);
    dot.actor.node = NodeId::new(node).expect("not zero");
    Stamp { timestamp, dot }
}

fn absorb(key: &Key, numbers: &[u64], record: Option<Record>, horizon: Timestamp) -> Mutation {
    let dots = numbers.iter().map(|number| stamp(*number)).collect();
    let pulled =
        Pulled { items: vec![PulledItem::Record { dots, key: key.clone(), record }], lost: VersionVector::empty() };
    Mutation::Absorb { partition: partition(key), pulled, horizon }
}

#[test]
fn a_collected_tombstone_keeps_out_duplicates_and_what_it_outranks() {
    for mut store in Store::all() {
        let key = key("k");
        let partition = partition(&key);
        store.commit(put(&key, 10, "value"));
        store.commit(delete(&key, 20));
        store.collect(partition, &[10, 20], 0);
        assert_eq!(store.read(&key), None, "the tombstone is gone");
        assert_eq!(store.get().log_length(), 0);
        for life in 0..2 {
            assert!(matches!(store.apply(put(&key, 10, "value")), Applied::Superseded { .. }), "life {life}");
            assert_eq!(store.apply(delete(&key, 20)), Applied::Stored);
            // Late and never seen here: nobody can tell whether it was deleted.
            let late = Applied::Behind { horizon: Timestamp(20) };
            assert_eq!(store.apply(put(&key, 15, "late")), late);
            assert_eq!(store.apply(delete(&key, 16)), late);
            assert_eq!(store.read(&key), None);
            assert!(!store.get().covers(partition, &dots(&[15])), "what was not done is not covered");
            store.reopen();
        }
        assert_eq!(store.commit(put(&key, 21, "new")), Applied::Stored);
        assert_eq!(store.read(&key), Some(Record::Last(version(21, Some("new")))));
        let unseen = dots(&[15, 16]);
        assert!(store.get().pull(partition, &unseen).expect("the store works").items.is_empty());
    }
}

#[test]
fn an_answer_from_before_a_collection_is_not_absorbed() {
    for store in Store::all() {
        let (first, second) = (key("{t}1"), key("{t}2"));
        let partition = partition(&first);
        store.commit(delete(&first, 30));
        store.collect(partition, &[30], 0);
        store.get().sync().expect("the store works");
        let asked_under = store.horizon(partition);
        assert_eq!(asked_under, Timestamp(30));

        // Another replica answers with a value; before that comes, its tombstone comes and
        // goes here, older than the horizon that is there already.
        store.commit(put(&second, 40, "so that there is a record"));
        store.commit(delete(&second, 41));
        store.collect(partition, &[40, 41], 0);
        let answer =
            |number| absorb(&second, &[number], Some(Record::Last(version(number, Some("dead")))), asked_under);
        assert!(matches!(store.apply(answer(39)), Applied::Behind { .. }));
        assert_eq!(store.read(&second), None);

        let asked_under = Timestamp(41);
        let absorbed = absorb(&second, &[50], Some(Record::Last(version(50, Some("new")))), asked_under);
        assert_eq!(store.apply(absorbed), Applied::Stored, "asked for under the present horizon");
        assert!(store.read(&second).is_some());
    }
}

#[test]
fn every_collection_that_removes_something_shows_in_the_horizon() {
    for store in Store::all() {
        let (first, second) = (key("{t}1"), key("{t}2"));
        let partition = partition(&first);
        store.commit(delete(&second, 20));
        store.commit(delete(&first, 30));
        store.collect(partition, &[30], 0);
        store.get().sync().expect("the store works");
        let before = store.horizon(partition);
        store.collect(partition, &[20, 30], 0);
        store.get().sync().expect("the store works");
        assert!(store.horizon(partition) > before, "although what went was older");
        let dead = absorb(&second, &[10], Some(Record::Last(version(10, Some("dead")))), before);
        assert!(matches!(store.apply(dead), Applied::Behind { .. }));
        assert_eq!(store.read(&second), None);
        let now = store.horizon(partition);
        store.collect(partition, &[20, 30], 0);
        store.get().sync().expect("the store works");
        assert_eq!(store.horizon(partition), now, "nothing was removed");
    }
}

#[test]
fn what_is_not_durable_here_is_not_collected_whatever_others_say() {
    for mut store in Store::all() {
        let key = key("k");
        let partition = partition(&key);
        store.apply(delete(&key, 20));
        store.collect(partition, &[20], u64::MAX);
        let tombstone = Some(Record::Last(version(20, None)));
        assert_eq!(store.read(&key), tombstone);
        assert_eq!(store.get().log_length(), 1);
        // In one group with what it would collect, too.
        let group = [
            delete(&key, 21),
            Mutation::Collect { partition, stable: dots(&[20, 21]), expired_before: WallTime(0), witnesses: vec![] },
        ];
        store.get().sync().expect("the store works");
        store.get().apply(&group, Timestamp(0)).expect("the store works");
        assert_eq!(store.read(&key), Some(Record::Last(version(21, None))));
        store.reopen();
        assert!(store.get().covers(partition, &dots(&[20, 21])));
    }
}

#[test]
fn what_has_expired_stays_away_once_it_was_collected() {
    for mut store in Store::all() {
        let key = key("k");
        let partition = partition(&key);
        let expiring = Version { expires_at: Some(WallTime(100)), ..version(20, Some("brief")) };
        store.commit(last(&key, expiring.clone()));
        store.collect(partition, &[], 100);
        assert!(store.read(&key).is_some(), "not everybody has it yet");
        store.collect(partition, &[20], 99);
        assert!(store.read(&key).is_some(), "not by every clock");
        store.reopen();
        store.collect(partition, &[20], 100);
        assert_eq!(store.read(&key), None);
        assert!(matches!(store.apply(last(&key, expiring.clone())), Applied::Superseded { .. }));
        assert!(matches!(store.apply(put(&key, 19, "late")), Applied::Behind { .. }));
        store.reopen();
        assert!(matches!(store.apply(last(&key, expiring)), Applied::Superseded { .. }));
        assert_eq!(store.read(&key), None);
    }
}

#[test]
fn siblings_that_were_collected_stay_away_as_long_as_any_other_is_there_and_after() {
    for mut store in Store::all() {
        let key = Key::new(NamespaceId(1), "k").expect("a valid key");
        let partition = partition(&key);
        let write = |versions: Vec<Version>, known: &[u64]| {
            let context: CausalContext = known.iter().map(|number| stamp(*number).dot).collect();
            let record = Record::Siblings(Siblings::new(versions, context));
            Mutation::Record { partition, key: key.clone(), record }
        };
        let stamps = |store: &Store| -> Vec<Stamp> {
            let record = store.read(&key);
            record.iter().flat_map(|record| record.versions().iter().map(|version| version.stamp)).collect()
        };
        // One actor writes all, so each of its dots knows those before.
        store.commit(write(vec![version(10, Some("a"))], &[]));
        store.commit(write(vec![version(20, None)], &[10]));
        assert_eq!(stamps(&store), [stamp(20)]);
        store.collect(partition, &[10, 20], 0);
        assert_eq!(store.read(&key), None, "nothing is left of it");
        for life in 0..2 {
            store.apply(write(vec![version(10, Some("a"))], &[]));
            assert_eq!(store.read(&key), None, "life {life}");
            let late = store.apply(write(vec![version(15, Some("late"))], &[10]));
            assert!(matches!(late, Applied::Behind { .. }), "life {life}");
            // Some of it is new, and some was let go of: only what is new is taken.
            store.reopen();
        }
        store.apply(write(vec![version(10, Some("a")), version(30, Some("new"))], &[]));
        assert_eq!(stamps(&store), [stamp(30)]);
        store.apply(write(vec![version(20, None)], &[10]));
        assert_eq!(stamps(&store), [stamp(30)], "a tombstone stays away as well");
    }
}

#[test]
fn a_sibling_that_was_deleted_does_not_come_back_beside_a_new_one() {
    for store in Store::all() {
        let key = Key::new(NamespaceId(1), "k").expect("a valid key");
        let partition = partition(&key);
        // Two actors: what one has written says nothing of what the other has.
        let write = |stamp: Stamp, value: Option<&'static str>, known: &[Stamp]| {
            let context: CausalContext = known.iter().map(|stamp| stamp.dot).collect();
            let version = Version { stamp, ..version(1, value) };
            let record = Record::Siblings(Siblings::new(vec![version], context));
            Mutation::Record { partition, key: key.clone(), record }
        };
        let (dead, tombstone, new, concurrent) = (by(1, 10), by(2, 20), by(2, 40), by(1, 41));
        // The tombstone comes before what it has deleted, and goes.
        store.commit(write(tombstone, None, &[dead]));
        let stable = VersionVector::from_iter([tombstone.dot]);
        let expired_before = WallTime(0);
        store.apply(Mutation::Collect { partition, stable, expired_before, witnesses: Vec::new() });
        assert_eq!(store.read(&key), None);
        store.commit(write(new, Some("new"), &[]));
        assert_eq!(store.apply(write(dead, Some("dead"), &[])), Applied::Behind { horizon: tombstone.timestamp });
        assert_eq!(store.read(&key).expect("it is there").versions().len(), 1);
        assert_eq!(store.apply(write(concurrent, Some("concurrent"), &[])), Applied::Stored);
        // What is known to be replaced needs no horizon.
        assert_eq!(store.apply(write(by(3, 50), Some("newest"), &[new, concurrent, by(4, 5)])), Applied::Stored);
        assert_eq!(store.apply(write(by(4, 5), Some("replaced"), &[])), Applied::Stored);
        assert_eq!(store.read(&key).expect("it is there").versions().len(), 1);
    }
}

#[test]
fn what_a_sibling_knew_to_be_deleted_does_not_come_back_after_it_has_expired() {
    for mut store in Store::all() {
        let key = Key::new(NamespaceId(1), "k").expect("a valid key");
        let partition = partition(&key);
        let write = |stamp: Stamp, expires_at: Option<WallTime>, known: &[Stamp]| {
            let version = Version { stamp, expires_at, ..version(1, Some("v")) };
            let record = Record::Siblings(Siblings::new(vec![version], known.iter().copied().collect()));
            Mutation::Record { partition, key: key.clone(), record }
        };
        // Whoever sends it has merged it with a version that has deleted an older one and is gone.
        let (brief, dead) = (by(2, 20), by(1, 45));
        store.commit(write(brief, Some(WallTime(100)), &[dead]));
        let stable = VersionVector::from_iter([brief.dot]);
        let expired_before = WallTime(100);
        store.apply(Mutation::Collect { partition, stable, expired_before, witnesses: Vec::new() });
        assert_eq!(store.read(&key), None);
        for life in 0..2 {
            let late = store.apply(write(dead, None, &[]));
            assert_eq!(late, Applied::Behind { horizon: dead.timestamp }, "life {life}");
            assert_eq!(store.read(&key), None, "life {life}");
            store.reopen();
        }
        assert_eq!(store.apply(write(by(1, 46), None, &[])), Applied::Stored, "what nothing has deleted is taken");
    }
}

#[test]
fn an_actor_with_too_many_gaps_does_not_stop_the_collection_of_the_others() {
    for mut store in Store::all() {
        let (gappy, sound) = (key("{t}gappy"), key("{t}sound"));
        let partition = partition(&gappy);
        let last_number = 2 * CHECKPOINT_RANGES as u64 + 1;
        let delete_by = |key: &Key, stamp: Stamp| last(key, Version { stamp, ..version(1, None) });
        let mut group: Vec<Mutation> =
            (1..=last_number).step_by(2).map(|number| delete_by(&gappy, by(3, number))).collect();
        let of_others: Vec<Stamp> = vec![by(1, 7), by(1, 9), by(5, 11)];
        group.extend(of_others.iter().map(|stamp| delete_by(&sound, *stamp)));
        store.get().apply(&group, Timestamp(0)).expect("the store works");
        store.get().sync().expect("the store works");
        let of_gappy = (1..=last_number).map(|number| by(3, number));
        let stable: VersionVector = of_gappy.chain(of_others.clone()).map(|stamp| stamp.dot).collect();
        let collect =
            || Mutation::Collect { partition, stable: stable.clone(), expired_before: WallTime(0), witnesses: vec![] };
        store.commit(collect());
        assert_eq!(store.read(&sound), None, "it is collected beside the other");
        assert_eq!(store.read(&gappy), Some(Record::Last(Version { stamp: by(3, last_number), ..version(1, None) })));
        assert_eq!(store.get().log_length(), CHECKPOINT_RANGES as u64 + 1, "only the gaps are kept");
        store.reopen();
        let seen = |stamp: Stamp| store.get().covers(partition, &VersionVector::from_iter([stamp.dot]));
        assert!(of_others.iter().all(|stamp| seen(*stamp)), "the checkpoint has them");
        assert!(seen(by(3, 1)) && seen(by(3, last_number)) && !seen(by(3, 2)), "the log has them");
        // Once a gap has closed, the rest goes too.
        store.commit(delete_by(&gappy, by(3, 2)));
        store.commit(collect());
        store.commit(collect());
        assert_eq!((store.read(&gappy), store.get().log_length()), (None, 0));
    }
}

#[test]
fn what_is_collected_is_never_forgotten_however_many_gaps_lie_above_it() {
    for mut store in Store::all() {
        let key = key("k");
        let partition = partition(&key);
        let last_number = 2 * CHECKPOINT_RANGES as u64 + 1;
        // Each group of its own, so that nothing else keeps their log entries.
        store.commit(delete(&key, 1));
        store.commit(delete(&key, 3));
        let group: Vec<Mutation> = (5..=last_number).step_by(2).map(|number| delete(&key, number)).collect();
        store.get().apply(&group, Timestamp(0)).expect("the store works");
        store.get().sync().expect("the store works");
        // The others have not reported the gaps yet, so what is stable has few ranges.
        store.collect(partition, &[1, 3], 0);
        store.get().sync().expect("the store works");
        let (_, before) = store.get().coverage(CommitNumber(0));
        store.reopen();
        let (_, after) = store.get().coverage(CommitNumber(0));
        assert!(after[0].vector == before[0].vector, "some was forgotten");
        assert!(store.get().covers(partition, &dots(&[1, 3, 5, last_number])));
    }
}

#[test]
fn nothing_is_collected_while_there_are_more_gaps_than_a_checkpoint_has_room_for() {
    for mut store in Store::all() {
        let key = key("k");
        let partition = partition(&key);
        let last = 2 * CHECKPOINT_RANGES as u64 + 1;
        let group: Vec<Mutation> = (1..=last).step_by(2).map(|number| delete(&key, number)).collect();
        store.get().apply(&group, Timestamp(0)).expect("the store works");
        store.get().sync().expect("the store works");
        let stable: Vec<u64> = (1..=last).collect();
        store.collect(partition, &stable, 0);
        assert_eq!(store.get().log_length(), CHECKPOINT_RANGES as u64 + 1);
        assert!(store.read(&key).is_some());
        store.commit(delete(&key, 2));
        store.collect(partition, &stable, 0);
        store.collect(partition, &stable, 0);
        assert_eq!(store.get().log_length(), 0);
        assert_eq!(store.read(&key), None);
        store.reopen();
        assert!(store.get().covers(partition, &dots(&[1, 2, 3, last])));
        assert!(!store.get().covers(partition, &dots(&[4])));
    }
}

#[test]
fn a_read_is_durable_only_once_all_that_it_shows_was_synced() {
    for mut store in Store::all() {
        let (key, other) = (key("{t}1"), key("{t}2"));
        let partition = partition(&key);
        let durable = |store: &Store, key: &Key| {
            let held = store.get().read(partition, key).expect("the store works");
            assert_eq!(store.get().head(partition, key).expect("the store works").durable, held.durable);
            held.durable
        };
        assert!(durable(&store, &key), "nothing is what is durable");
        store.apply(put(&key, 1, "v"));
        assert!(!durable(&store, &key) && durable(&store, &other));
        store.get().sync().expect("the store works");
        assert!(durable(&store, &key));
        let truncate = Mutation::Truncate { partition, namespace: NamespaceId::DEFAULT, stamp: stamp(2) };
        store.apply(truncate);
        assert!(!durable(&store, &key), "it shows a truncation that is not synced");
        store.reopen();
        assert!(durable(&store, &key));
        store.commit(delete(&other, 3));
        store.collect(partition, &[3], 0);
        assert!(!durable(&store, &other), "that there is nothing is not durable either");
        let (commit, coverages) = store.get().coverage(CommitNumber(0));
        assert_eq!(coverages[0].vector, dots(&[1, 2, 3]));
        assert_eq!(store.get().coverage(commit).1, []);
    }
}
