//! What the tests of requests share: a small map, a context, and cases as text.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::protocol::ClockWatch;
use crate::protocol::io::NodeSettings;
use crate::protocol::membership::MembershipTimes;
use crate::protocol::peers::PeerTable;
use crate::types::{
    Actor, Assignment, ClusterId, ClusterMap, CommitNumber, Content, Counter, Dot, Epoch, Failure, HybridClock,
    Incarnation, Key, Member, MergePolicy, Moment, Namespace, NamespaceId, NodeId, Now, Outcome, PartitionCount,
    Record, Refusal, Response, Stamp, StoreId, Timestamp, Version, WallTime, Zone,
};
use crate::wire::{ReplicaRequest, ReplicaResponse};

use super::{Answer, Context, Coordination, DotCounters, Effect};

pub(crate) fn node(number: u32) -> NodeId {
    NodeId::new(number).expect("not zero")
}

/// A namespace that keeps concurrent values.
pub(crate) const CART: NamespaceId = NamespaceId(1);

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
    let default = Namespace::default_namespace();
    let cart = Namespace { id: CART, name: "cart".into(), policy: MergePolicy::Siblings };
    ClusterMap {
        cluster: ClusterId([7; 16]),
        epoch: Epoch(1),
        partitions,
        replication_factor: u8::try_from(replicas).expect("small"),
        members: (1..=nodes).map(|number| (node(number), member(number))).collect(),
        next_namespace: 2,
        namespaces: BTreeMap::from([(default.id, default), (cart.id, cart)]),
        assignment: Assignment(vec![owners; 4]),
    }
}

pub(crate) fn settings() -> NodeSettings {
    NodeSettings {
        k_list: crate::types::limits::DEFAULT_K_LIST,
        membership: MembershipTimes::default(),
        seed: 1,
        actor: Actor { node: node(1), incarnation: Incarnation(1) },
        request_timeout: Duration::from_millis(500),
        max_clock_skew: Duration::from_millis(500),
        hedge_after: Duration::from_millis(20),
        max_value_bytes: 1024,
        op_id_horizon: Duration::from_secs(60),
        sync_interval: Duration::from_secs(1),
        collect_interval: Duration::from_secs(5),
        store: StoreId(1),
        recovered_commit: CommitNumber(10),
        recovered_clock: Timestamp::default(),
        remembered: BTreeMap::new(),
    }
}

pub(crate) fn key(name: &str) -> Key {
    Key::new(NamespaceId::DEFAULT, name.to_owned()).expect("a key")
}

/// The time at which tests begin.
pub(crate) const START: Now = Now { moment: Moment(1_000_000), wall: WallTime(1_000_000) };

/// A key whose concurrent values are all kept.
pub(crate) fn cart_key(name: &str) -> Key {
    Key::new(CART, name.to_owned()).expect("a key")
}

/// A stamp of node 9, `ms` milliseconds after [`START`]; no two have the same dot.
pub(crate) fn stamp(ms: i64) -> Stamp {
    let wall = WallTime(START.wall.0.checked_add_signed(ms).expect("in range"));
    let counter = Counter(10_000u64.checked_add_signed(ms).expect("in range"));
    let dot = Dot { actor: actor(9), counter };
    Stamp { timestamp: Timestamp::at(wall), dot }
}

/// A node's first life.
pub(crate) fn actor(number: u32) -> Actor {
    Actor { node: node(number), incarnation: Incarnation(1) }
}

/// A version of `ms` milliseconds after [`START`].
pub(crate) fn value(ms: i64, text: &str) -> Version {
    Version { stamp: stamp(ms), expires_at: None, content: Content::Value(text.to_owned().into()) }
}

/// What a replica answers to a read of a record.
pub(crate) fn record(record: Option<Record>) -> Answer {
    Answer::Response(ReplicaResponse::Record { record, behind: false })
}

/// What a replica answers if it did nothing.
pub(crate) fn refused(refusal: Refusal) -> Answer {
    Answer::Response(ReplicaResponse::Refused(refusal))
}

/// When the requests of these tests end.
pub(crate) fn deadline() -> Moment {
    START.moment.plus(Duration::from_millis(500))
}

/// A node's surroundings.
pub(crate) struct World {
    pub(crate) map: ClusterMap,
    pub(crate) settings: NodeSettings,
    pub(crate) peers: PeerTable,
    pub(crate) clock: HybridClock,
    pub(crate) watch: ClockWatch,
    pub(crate) ceiling: Timestamp,
    pub(crate) dots: DotCounters,
    pub(crate) now: Now,
    pub(crate) effects: Vec<Effect>,
    /// How many effects [`World::asked`] has told of.
    told: usize,
}

impl World {
    /// Node 1 of `nodes`, connected to all but the `unreachable`.
    pub(crate) fn new(nodes: u32, replicas: u32, unreachable: &[u32]) -> World {
        let mut peers = PeerTable::default();
        for number in (2..=nodes).filter(|number| !unreachable.contains(number)) {
            peers.up(node(number), Incarnation(1));
            peers.admit(node(number));
        }
        let settings = settings();
        let mut watch = ClockWatch::new(settings.max_clock_skew);
        watch.compared(node(2), START.moment, START.moment, START.wall);
        World {
            map: map(nodes, replicas),
            clock: HybridClock::new(Timestamp::default(), settings.max_clock_skew),
            settings,
            peers,
            watch,
            ceiling: Timestamp(u64::MAX),
            dots: DotCounters::default(),
            now: START,
            effects: Vec::new(),
            told: 0,
        }
    }

    pub(crate) fn run<T>(&mut self, step: impl FnOnce(&mut Context<'_>) -> T) -> T {
        let mut context = Context {
            now: self.now,
            map: &self.map,
            settings: &self.settings,
            peers: &self.peers,
            clock: &mut self.clock,
            watch: &self.watch,
            ceiling: self.ceiling,
            dots: &mut self.dots,
            effects: &mut self.effects,
        };
        step(&mut context)
    }

    /// Begins a request; none if it has ended at once.
    pub(crate) fn begin(&mut self, request: crate::types::Request) -> Option<Coordination> {
        self.run(|context| Coordination::begin(request, deadline(), false, context))
    }

    /// Answers what was asked last.
    pub(crate) fn answer(&mut self, request: &mut Coordination, from: u32, answer: Answer) {
        self.answer_phase(request, from, self.phase(), answer);
    }

    /// Answers what was asked in a given phase.
    pub(crate) fn answer_phase(&mut self, request: &mut Coordination, from: u32, phase: u8, answer: Answer) {
        self.run(|context| request.answer(node(from), phase, answer, context));
    }

    /// The phase of what was asked last.
    pub(crate) fn phase(&self) -> u8 {
        let phases = self.effects.iter().filter_map(|effect| match effect {
            Effect::Ask { phase, .. } | Effect::AppendLocked { phase, .. } => Some(*phase),
            _ => None,
        });
        phases.last().unwrap_or(0)
    }

    /// The record that was sent last, to others or to the own store.
    pub(crate) fn sent_record(&self) -> Record {
        let sent = self.effects.iter().rev().find_map(|effect| match effect {
            Effect::Ask { request: ReplicaRequest::Apply { record, .. }, .. } => Some(record.clone()),
            Effect::AppendLocked { record, .. } => Some(record.clone()),
            _ => None,
        });
        sent.unwrap_or_else(|| panic!("no record was sent: {:?}", self.effects))
    }

    /// What was wanted since the last call, as `kind@node,node`; `lock`, `append` and `raise`
    /// for the own store under a lock, and for a higher ceiling.
    pub(crate) fn asked(&mut self) -> Vec<String> {
        let new = &self.effects[self.told..];
        self.told = self.effects.len();
        new.iter().filter_map(words_of_effect).collect()
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

fn words_of_effect(effect: &Effect) -> Option<String> {
    let (to, request) = match effect {
        Effect::Ask { to, request, .. } => (to, request),
        Effect::Lock(_) => return Some("lock".into()),
        Effect::AppendLocked { .. } => return Some("append".into()),
        Effect::RaiseCeiling => return Some("raise".into()),
        Effect::Repairs(_) | Effect::Late(_) | Effect::Finish(_) => return None,
    };
    let kind = match request {
        ReplicaRequest::Apply { .. } => "apply",
        ReplicaRequest::Read { .. } => "read",
        ReplicaRequest::Digest { .. } => "digest",
        ReplicaRequest::Forward { .. } => "forward",
        ReplicaRequest::Truncate { .. } => "truncate",
        ReplicaRequest::Claim { .. } => "claim",
        ReplicaRequest::History { .. } => "history",
        _ => "other",
    };
    let to: Vec<String> = to.iter().map(|id| id.number().to_string()).collect();
    Some(format!("{kind}@{}", to.join(",")))
}

/// What a client is told of a write, in a few words.
pub(crate) fn words_of_write(outcome: Option<&Outcome>) -> String {
    match outcome {
        None => "waiting".into(),
        Some(Ok(Response::Written(reply))) => format!("applied {}", reply.acknowledged),
        Some(Ok(Response::Read(reply))) => {
            let value = reply.as_ref().map(|reply| String::from_utf8_lossy(&reply.value).into_owned());
            value.unwrap_or_else(|| "none".into())
        }
        Some(Err(Failure::InDoubt { acknowledged, needed })) => format!("in doubt {acknowledged}/{needed}"),
        Some(Err(Failure::NotApplied(Refusal::TooFewReplicas { alive, needed }))) => {
            format!("not applied: {alive} of {needed}")
        }
        Some(Err(Failure::NotApplied(refusal))) => {
            let name = format!("{refusal:?}");
            let name = name.split([' ', '(']).next().expect("a split has a first part");
            format!("not applied: {name}")
        }
        other => format!("{other:?}"),
    }
}
