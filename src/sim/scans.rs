//! Questions about more than one key: scans, and the end of all keys of a namespace.

use crate::types::{Key, NamespaceId, Outcome, Partition, Response, ScanPage, Summary};

use super::checks::{Circumstances, Seen};
use super::history::Check;
use super::operation::{Kind, Operation};
use super::siblings::{Answer, shown_summary};
use super::world::World;

impl World {
    /// A client has its answer about more than one key.
    pub(super) fn answered_broadly(&mut self, operation: &Operation, outcome: &Outcome, at: &Circumstances) {
        match (&operation.kind, outcome) {
            (Kind::Scan { .. }, Ok(Response::Page(page))) => self.scanned(operation, page, at),
            (Kind::Truncate, Ok(Response::Written(reply))) => {
                let (partition, namespace) = self.place_of(operation.key);
                for key in self.keys_in(partition, namespace) {
                    let truncated = &mut self.history.keys[key].truncated;
                    *truncated = (*truncated).max(Some(reply.stamp));
                }
            }
            _ => {}
        }
    }

    fn place_of(&self, key: usize) -> (Partition, NamespaceId) {
        let key = &self.history.keys[key].key;
        (self.hosts[0].map.partition_of(key), key.namespace())
    }

    /// The keys that clients use there.
    pub(super) fn keys_in(&self, partition: Partition, namespace: NamespaceId) -> Vec<usize> {
        (0..self.history.keys.len()).filter(|key| self.place_of(*key) == (partition, namespace)).collect()
    }

    /// A page must show what a read of each of its keys would.
    fn scanned(&mut self, operation: &Operation, page: &ScanPage, at: &Circumstances) {
        let (partition, namespace) = self.place_of(operation.key);
        let mut open = page.entries.iter().collect::<Vec<_>>();
        for index in self.keys_in(partition, namespace) {
            let key = &self.history.keys[index].key;
            let entry = open.iter().position(|entry| entry.key == *key.bytes()).map(|at| open.swap_remove(at));
            let beyond = |key: &Key| {
                let partitions = self.plan.partitions;
                page.next.is_some_and(|next| partitions.partition_of(next) == partition && key.token() >= next)
            };
            if beyond(key) && entry.is_none() {
                continue;
            }
            let digest = entry.map(|entry| &entry.digest);
            let live = |summary: &&Summary| summary.value_bytes.is_some() && !at.has_ended(summary.expires_at);
            if self.history.keys[index].siblings.is_some() {
                let shown =
                    digest.iter().flat_map(|digest| digest.versions()).filter(live).map(shown_summary).collect();
                self.history.read_siblings(operation, index, &Answer::All(shown, None), false, at);
            } else {
                let newest = digest.and_then(|digest| digest.newest()).filter(live);
                let floors = &operation.all_floors[index];
                self.history.read(operation, (index, floors), newest.map(Seen::summary), false, at);
            }
        }
        if let Some(entry) = open.first() {
            let what = format!("#{} shows {:?}, which is no key there, or shows it twice", operation.number, entry.key);
            self.history.violated(Check::NothingFromNowhere, at.now, Some(operation.key), what);
        }
    }
}
