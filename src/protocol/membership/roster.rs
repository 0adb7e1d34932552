//! Who is a member, and where: what the cluster map says, and no more than membership needs.

use std::collections::BTreeMap;

use rand::Rng;

use crate::types::{ClusterMap, NodeId};

/// The members and their zones. It costs memory for each, but no traffic; whoever
/// simulates thousands of nodes shares one among them.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Roster {
    zones: BTreeMap<NodeId, u16>,
    ids: Vec<NodeId>,
    sizes: Vec<usize>,
}

impl Roster {
    /// These members in these zones, numbered from zero.
    pub fn new(members: impl IntoIterator<Item = (NodeId, u16)>) -> Roster {
        let zones: BTreeMap<NodeId, u16> = members.into_iter().collect();
        let ids = zones.keys().copied().collect();
        let zone_count = zones.values().max().map_or(0, |zone| usize::from(*zone) + 1);
        let mut sizes = vec![0; zone_count];
        zones.values().for_each(|zone| sizes[usize::from(*zone)] += 1);
        Roster { zones, ids, sizes }
    }

    /// The members of a map.
    pub fn of(map: &ClusterMap) -> Roster {
        let mut numbers = BTreeMap::new();
        Roster::new(map.members.values().map(|member| {
            let next = u16::try_from(numbers.len()).expect("there are fewer zones than members, and few of those");
            (member.id, *numbers.entry(&member.zone).or_insert(next))
        }))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// Whether a node is a member.
    pub fn contains(&self, node: NodeId) -> bool {
        self.zones.contains_key(&node)
    }

    /// All of them, in the order of their numbers.
    pub fn members(&self) -> &[NodeId] {
        &self.ids
    }

    /// The zone of a member.
    pub fn zone(&self, node: NodeId) -> Option<u16> {
        self.zones.get(&node).copied()
    }

    /// How many members a zone has.
    pub fn zone_size(&self, zone: u16) -> usize {
        self.sizes.get(usize::from(zone)).copied().unwrap_or(0)
    }

    /// Some member that is fit, if a few draws find one.
    pub(crate) fn draw(&self, chance: &mut impl Rng, fit: impl Fn(NodeId) -> bool) -> Option<NodeId> {
        if self.ids.len() <= 64 {
            let fitting: Vec<NodeId> = self.ids.iter().copied().filter(|node| fit(*node)).collect();
            return (!fitting.is_empty()).then(|| fitting[chance.random_range(0..fitting.len())]);
        }
        (0..64).map(|_| self.ids[chance.random_range(0..self.ids.len())]).find(|node| fit(*node))
    }
}
