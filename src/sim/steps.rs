//! What must hold of each host after each of its steps: its disk and its timestamps.

use crate::storage::Storage;
use crate::types::{
    CommitNumber, Coverage, Incarnation, Moment, Partition, Record, Stamp, Timestamp, Version, VersionVector,
};

use super::clock::true_wall;
use super::history::{Check, History, brief, brief_stamp};
use super::schedule::HostIndex;
use super::world::World;

/// The timestamps that one node has given.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Issuer {
    life: Incarnation,
    /// The highest of all lives before that.
    before: Timestamp,
    highest: Timestamp,
}

impl History {
    /// A node has given a timestamp to a version of a key.
    pub(super) fn timed(&mut self, now: Moment, index: Option<usize>, version: &Version) {
        let Stamp { timestamp, dot } = version.stamp;
        // A change of expiry takes its place directly after what it was derived from.
        let derived = index.is_some_and(|index| {
            let others = self.keys[index].issued.values();
            version.is_value()
                && others
                    .into_iter()
                    .any(|other| other.stamp.timestamp.next() == timestamp && other.content == version.content)
        });
        if derived {
            return;
        }
        let issuer = self.issuers.entry(dot.actor.node).or_default();
        if issuer.life < dot.actor.incarnation {
            issuer.life = dot.actor.incarnation;
            issuer.before = issuer.highest;
        }
        let before = issuer.before;
        issuer.highest = issuer.highest.max(timestamp);
        if timestamp <= before && issuer.life == dot.actor.incarnation {
            let what = format!("{} is not above {before:?} of an earlier life", brief_stamp(version.stamp));
            self.violated(Check::DotsAreUnique, now, index, what);
        }
    }
}

impl World {
    /// What a host has durably.
    pub(super) fn covered(&self, host: HostIndex) -> Vec<Coverage> {
        self.hosts[host].storage.coverage(CommitNumber(0)).1
    }

    /// What a host tells of its disk must be so.
    pub(super) fn check_told(&mut self, host: HostIndex, told: &[Coverage]) {
        let covered = self.covered(host);
        for Coverage { partition, vector, .. } in told {
            let missing = missing(vector, *partition, &covered);
            if !missing.is_empty() {
                let what = format!("n{} tells of {missing} in partition {}, not on its disk", host + 1, partition.0);
                self.history.violated(Check::CoverageIsDurable, self.schedule.now, None, what);
            }
        }
    }

    /// After a crash: what was durable must still be, and the records must show it.
    pub(super) fn check_crash(&mut self, host: HostIndex, before: &[Coverage]) {
        let after = self.covered(host);
        let now = self.schedule.now;
        for Coverage { partition, vector, horizon } in before {
            let missing = missing(vector, *partition, &after);
            let there = after.iter().find(|coverage| coverage.partition == *partition);
            if !missing.is_empty() || there.is_some_and(|there| there.horizon < *horizon) {
                let what = format!("the disk of n{} has lost {missing} of partition {}", host + 1, partition.0);
                self.history.violated(Check::CoverageIsDurable, now, None, what);
            }
        }
        let furthest = u64::try_from(self.plan.furthest_clock().as_millis()).expect("it is small");
        let latest = true_wall(now).0 + furthest;
        let ended = |version: &Version| version.expires_at.is_some_and(|at| at.0 <= latest);
        let mut found = Vec::new();
        for (index, known) in self.history.keys.iter().enumerate() {
            let partition = self.hosts[host].map.partition_of(&known.key);
            let Some(vector) = after.iter().find(|coverage| coverage.partition == partition) else { continue };
            let held = self.hosts[host].storage.read(partition, &known.key).expect("the model does not fail").what;
            let of_key = |version: &&Version| vector.vector.covers(version.stamp.dot);
            for version in known.issued.values().filter(of_key) {
                let shown = match (&held, &known.siblings) {
                    (held, Some(siblings)) => {
                        let holds = |record: &Record| record.versions().contains(version);
                        !siblings.must_be_held(version.stamp.dot, ended) || held.as_ref().is_some_and(holds)
                    }
                    (Some(record), None) => record.newest_stamp() >= Some(version.stamp),
                    // It was let go of, or so was what outranked it.
                    (None, None) => {
                        let mut newer = known.issued.range(version.stamp..).map(|(_, version)| version);
                        newer.any(|version| !version.is_value() || ended(version))
                    }
                };
                if !shown {
                    let held = held.as_ref().map(|record| record.versions().iter().map(brief).collect::<Vec<_>>());
                    let what = format!("n{} covers {}, but holds {held:?}", host + 1, brief(version));
                    found.push((index, what));
                }
            }
        }
        for (index, what) in found {
            self.history.violated(Check::CoverageIsDurable, now, Some(index), what);
        }
    }
}

fn missing(vector: &VersionVector, partition: Partition, covered: &[Coverage]) -> VersionVector {
    match covered.iter().find(|coverage| coverage.partition == partition) {
        Some(covered) => vector.minus(&covered.vector),
        None => vector.clone(),
    }
}
