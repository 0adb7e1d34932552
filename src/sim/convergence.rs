//! The end of a run: do all replicas hold the same, and was what is deleted let go of?

use std::collections::BTreeMap;

use crate::storage::Storage;
use crate::types::{Key, NodeId, Partition, Record, Stamp, Version, WallTime};

use super::clock::true_wall;
use super::history::{Check, brief};
use super::world::World;

/// How long before the end a value must have expired to have been let go of everywhere.
const EXPIRED_LONG_AGO_MS: u64 = 4_000;

impl World {
    /// Compares all replicas of each partition.
    pub(super) fn check_convergence(&mut self) {
        let now = true_wall(self.schedule.now);
        let mut held: BTreeMap<NodeId, BTreeMap<(Partition, Key), Record>> = BTreeMap::new();
        for host in self.hosts.iter().filter(|host| !host.fenced) {
            let records = host.storage.records().into_iter().map(|(at, key, record)| ((at, key), record));
            held.insert(host.id, records.collect());
        }
        let everybody = self.hosts.iter().all(|host| !host.fenced);
        let map = self.hosts[0].map.clone();
        let mut found = Vec::new();
        for (index, known) in self.history.keys.iter().enumerate() {
            let place = (map.partition_of(&known.key), known.key.clone());
            let replicas = map.replicas_of(&known.key).iter().filter_map(|node| Some((*node, held.get(node)?)));
            let views: Vec<(NodeId, Option<&Record>)> =
                replicas.map(|(node, records)| (node, records.get(&place))).collect();
            let truncation = |node: NodeId| {
                let host = self.hosts.iter().find(|host| host.id == node).expect("replicas are members");
                host.storage.truncation(place.0, known.key.namespace())
            };
            let live = |(node, record): &(NodeId, Option<&Record>)| {
                let truncation = truncation(*node);
                record.map(|record| lasting(record, truncation, now))
            };
            if let Some((first, others)) = views.split_first() {
                for other in others {
                    let (one, two) = (live(first).unwrap_or_default(), live(other).unwrap_or_default());
                    if one != two {
                        let what = format!("{} holds {:?}, {} holds {:?}", first.0, told(&one), other.0, told(&two));
                        found.push((Check::Converged, index, what));
                    }
                }
            }
            for (node, record) in views.into_iter().filter(|_| everybody) {
                let dead = |version: &&Version| {
                    let expired = version.expires_at.is_some_and(|at| at.0 + EXPIRED_LONG_AGO_MS < now.0);
                    !version.is_value() || expired
                };
                if let Some(version) = record.and_then(|record| record.versions().iter().find(dead)) {
                    let what = format!("{node} still holds {} at {}", brief(version), now.0);
                    found.push((Check::Collected, index, what));
                }
            }
        }
        for (check, index, what) in found {
            self.history.violated(check, self.schedule.now, Some(index), what);
        }
        for host in self.hosts.iter().filter(|_| everybody) {
            let left = host.storage.log_length();
            if left > 0 {
                let what = format!("{} still logs {left} mutations", host.id);
                self.history.violated(Check::Collected, self.schedule.now, None, what);
            }
        }
    }
}

/// The values that have not ended.
fn lasting(record: &Record, truncation: Option<Stamp>, now: WallTime) -> Vec<Version> {
    let lasts = |version: &&Version| {
        let expired = version.expires_at.is_some_and(|at| at <= now);
        version.is_value() && !expired && truncation < Some(version.stamp)
    };
    record.versions().iter().filter(lasts).cloned().collect()
}

fn told(versions: &[Version]) -> Vec<String> {
    versions.iter().map(brief).collect()
}
