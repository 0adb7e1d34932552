//! What the tests of requests share: a small map, a context, and cases as text.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::protocol::io::NodeSettings;
use crate::protocol::peers::PeerTable;
use crate::types::{
    Actor, Assignment, ClusterId, ClusterMap, Counter, Dot, Epoch, HybridClock, Incarnation, Key, Member, Moment,
    Namespace, NamespaceId, NodeId, Now, Outcome, PartitionCount, Stamp, Timestamp, WallTime, Zone,
};
use crate::wire::ReplicaRequest;

use super::{Context, DotCounters, Effect};

pub(crate) fn node(number: u32) -> NodeId {
    NodeId::new(number).expect("not zero")
}

/// A map of `nodes` members whose partitions all belong to the first `replicas` of them.
pub(crate) fn map(nodes: u32, replicas: u32) -> ClusterMap {
    let member = |number: u32| Member {
        id: node(number),
        peer_address: format!("127.0.0.1:{number}").parse().expect("an address"),
        zone: Zone("a".into()),
        weight: 1,
    };
    let partitions = PartitionCount::new(4).expect("a power of two");
    let owners: Vec<NodeId> = (1..=replicas).map(node).collect();
    let default = Namespace { id: NamespaceId::DEFAULT, name: "default".into() };
    ClusterMap {
        cluster: ClusterId([7; 16]),
        epoch: Epoch(1),
        partitions,
        replication_factor: u8::try_from(replicas).expect("small"),
        members: (1..=nodes).map(|number| (node(number), member(number))).collect(),
        namespaces: BTreeMap::from([(default.id, default)]),
        assignment: Assignment(vec![owners; 4]),
    }
}

pub(crate) fn settings() -> NodeSettings {
    NodeSettings {
        actor: Actor { node: node(1), incarnation: Incarnation(1) },
        request_timeout: Duration::from_millis(500),
        max_clock_skew: Duration::from_millis(500),
        hedge_after: Duration::from_millis(20),
        max_value_bytes: 1024,
        recovered_clock: Timestamp::default(),
    }
}

pub(crate) fn key(name: &str) -> Key {
    Key::new(NamespaceId::DEFAULT, name.to_owned()).expect("a key")
}

/// The time at which tests begin.
pub(crate) const START: Now = Now { moment: Moment(1_000_000), wall: WallTime(1_000_000) };

/// A stamp of node 9, `ms` milliseconds after [`START`].
pub(crate) fn stamp(ms: i64) -> Stamp {
    let wall = WallTime(START.wall.0.checked_add_signed(ms).expect("in range"));
    let dot = Dot { actor: Actor { node: node(9), incarnation: Incarnation(1) }, counter: Counter(1) };
    Stamp { timestamp: Timestamp::at(wall), dot }
}

/// A node's surroundings.
pub(crate) struct World {
    pub(crate) map: ClusterMap,
    pub(crate) settings: NodeSettings,
    pub(crate) peers: PeerTable,
    pub(crate) clock: HybridClock,
    pub(crate) dots: DotCounters,
    pub(crate) now: Now,
    pub(crate) effects: Vec<Effect>,
}

impl World {
    /// Node 1 of `nodes`, connected to all but the `unreachable`.
    pub(crate) fn new(nodes: u32, replicas: u32, unreachable: &[u32]) -> World {
        let mut peers = PeerTable::default();
        for number in (2..=nodes).filter(|number| !unreachable.contains(number)) {
            peers.up(node(number), Incarnation(1));
        }
        let settings = settings();
        World {
            map: map(nodes, replicas),
            clock: HybridClock::new(Timestamp::default(), settings.max_clock_skew),
            settings,
            peers,
            dots: DotCounters::default(),
            now: START,
            effects: Vec::new(),
        }
    }

    pub(crate) fn run<T>(&mut self, step: impl FnOnce(&mut Context<'_>) -> T) -> T {
        let mut context = Context {
            now: self.now,
            map: &self.map,
            settings: &self.settings,
            peers: &self.peers,
            clock: &mut self.clock,
            dots: &mut self.dots,
            effects: &mut self.effects,
        };
        step(&mut context)
    }

    /// What has been asked since the last call, as `kind@node node`.
    pub(crate) fn asked(&mut self) -> Vec<String> {
        let mut asked = Vec::new();
        self.effects.retain(|effect| {
            let Effect::Ask { to, request, .. } = effect else { return true };
            let kind = match request {
                ReplicaRequest::Apply { .. } => "apply",
                ReplicaRequest::Read { .. } => "read",
                ReplicaRequest::Digest { .. } => "digest",
                ReplicaRequest::Forward { .. } => "forward",
                _ => "other",
            };
            let to: Vec<String> = to.iter().map(|id| id.number().to_string()).collect();
            asked.push(format!("{kind}@{}", to.join(",")));
            false
        });
        asked
    }

    /// The outcome, if there is one.
    pub(crate) fn outcome(&self) -> Option<&Outcome> {
        let finishes: Vec<&Outcome> = self
            .effects
            .iter()
            .filter_map(|effect| match effect {
                Effect::Finish(outcome) => Some(outcome),
                _ => None,
            })
            .collect();
        assert!(finishes.len() <= 1, "a request ended twice: {finishes:?}");
        finishes.first().copied()
    }
}
