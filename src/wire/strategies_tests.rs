//! Arbitrary messages, for the property tests of this layer.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use super::*;
use crate::types::{
    Actor, Assignment, CausalContext, Claim, ClusterId, ClusterMap, CommitNumber, ConsistencyLevel, Content, Counter,
    Coverage, Digest, Dot, Epoch, Expiry, Failure, Health, Incarnation, Key, KeyHistory, Life, Load, LocalHistory,
    LogPosition, Member, MergePolicy, Namespace, NamespaceId, NodeId, OpId, Operation, Outcome, Partition,
    PartitionCount, PathEvent, PathStep, PeerMemory, Pulled, PulledItem, ReadReply, Record, Refusal, ReplicaHistory,
    Request, RequestPath, Response, ScanEntry, ScanPage, Sibling, Siblings, Stamp, Stamped, StoreId, Summary,
    Timestamp, Token, Version, VersionVector, WallTime, WriteReply, Zone, limits,
};

fn node() -> impl Strategy<Value = NodeId> {
    (1..=u32::MAX).prop_map(|number| NodeId::new(number).expect("not zero"))
}

fn bytes(most: usize) -> impl Strategy<Value = Bytes> {
    vec(any::<u8>(), 0..most).prop_map(Bytes::from)
}

fn namespace() -> impl Strategy<Value = NamespaceId> {
    any::<u16>().prop_map(NamespaceId)
}

fn key() -> impl Strategy<Value = Key> {
    (namespace(), vec(any::<u8>(), 1..100)).prop_map(|(namespace, bytes)| Key::new(namespace, bytes).expect("a key"))
}

fn token() -> impl Strategy<Value = Token> {
    any::<u64>().prop_map(Token)
}

fn partition() -> impl Strategy<Value = Partition> {
    any::<u16>().prop_map(Partition)
}

fn actor() -> impl Strategy<Value = Actor> {
    (node(), any::<u64>()).prop_map(|(node, incarnation)| Actor { node, incarnation: Incarnation(incarnation) })
}

fn dot() -> impl Strategy<Value = Dot> {
    (actor(), 1..u64::MAX - 1).prop_map(|(actor, counter)| Dot { actor, counter: Counter(counter) })
}

fn timestamp() -> impl Strategy<Value = Timestamp> {
    any::<u64>().prop_map(Timestamp)
}

fn stamp() -> impl Strategy<Value = Stamp> {
    (timestamp(), dot()).prop_map(|(timestamp, dot)| Stamp { timestamp, dot })
}

fn vector() -> impl Strategy<Value = VersionVector> {
    let ranges = vec((1..1_000u64, 0..20u64), 1..6);
    let near_the_end = (1..u64::MAX - 1).prop_map(|from| vec![(from, u64::MAX - 2 - from)]);
    vec((actor(), prop_oneof![9 => ranges, 1 => near_the_end]), 0..4).prop_map(|actors| {
        let mut vector = VersionVector::default();
        for (actor, ranges) in actors {
            for (from, more) in ranges {
                vector.insert_range(actor, Counter(from), Counter(from + more));
            }
        }
        vector
    })
}

fn causal_context() -> impl Strategy<Value = CausalContext> {
    vec(stamp(), 0..4).prop_map(|stamps| {
        let mut context = CausalContext::default();
        stamps.into_iter().for_each(|stamp| context.insert_stamp(stamp));
        context
    })
}

fn wall() -> impl Strategy<Value = Option<WallTime>> {
    option::of(any::<u64>().prop_map(WallTime))
}

fn version() -> impl Strategy<Value = Version> {
    let content = prop_oneof![bytes(300).prop_map(Content::Value), Just(Content::Tombstone)];
    (stamp(), wall(), content).prop_map(|(stamp, expires_at, content)| Version { stamp, expires_at, content })
}

fn summary() -> impl Strategy<Value = Summary> {
    (stamp(), wall(), option::of(any::<u32>())).prop_map(|(stamp, expires_at, value_bytes)| Summary {
        stamp,
        expires_at,
        value_bytes,
    })
}

fn record_of<V: Stamped + Clone + std::fmt::Debug + 'static>(
    version: impl Strategy<Value = V> + Clone + 'static,
) -> impl Strategy<Value = Record<V>> {
    let siblings = (vec(version.clone(), 0..5), causal_context())
        .prop_map(|(versions, context)| Record::Siblings(Siblings::new(versions, context)));
    prop_oneof![version.prop_map(Record::Last), siblings]
}

fn record() -> impl Strategy<Value = Record> {
    record_of(version().boxed())
}

fn digest() -> impl Strategy<Value = Digest> {
    record_of(summary().boxed())
}

fn op() -> impl Strategy<Value = OpId> {
    any::<[u8; 16]>().prop_map(OpId)
}

fn commit() -> impl Strategy<Value = CommitNumber> {
    any::<u64>().prop_map(CommitNumber)
}

fn claim() -> impl Strategy<Value = Claim> {
    prop_oneof![(key(), version()).prop_map(|(key, version)| Claim::Write { key, version }), Just(Claim::Fenced)]
}

fn store() -> impl Strategy<Value = StoreId> {
    any::<u128>().prop_map(StoreId)
}

fn memory() -> impl Strategy<Value = PeerMemory> {
    (any::<u64>(), store(), commit()).prop_map(|(incarnation, store, commit)| PeerMemory {
        incarnation: Incarnation(incarnation),
        store,
        commit,
    })
}

fn coverage() -> impl Strategy<Value = Coverage> {
    (partition(), vector(), timestamp()).prop_map(|(partition, vector, horizon)| Coverage {
        partition,
        vector,
        horizon,
    })
}

fn pulled() -> impl Strategy<Value = Pulled> {
    let item = prop_oneof![
        (vec(stamp(), 0..5), key(), option::of(record())).prop_map(|(dots, key, record)| PulledItem::Record {
            dots,
            key,
            record
        }),
        (namespace(), stamp()).prop_map(|(namespace, stamp)| PulledItem::Truncation { namespace, stamp }),
    ];
    (vec(item, 0..5), vector()).prop_map(|(items, lost)| Pulled { items, lost })
}

fn local_history() -> impl Strategy<Value = LocalHistory> {
    let position = (commit(), stamp()).prop_map(|(commit, stamp)| LogPosition { commit, stamp });
    (option::of(digest()), vec(position, 0..5), any::<bool>(), coverage(), commit())
        .prop_map(|(digest, log, more, coverage, commit)| LocalHistory { digest, log, more, coverage, commit })
}

fn key_history() -> impl Strategy<Value = KeyHistory> {
    let replica = (node(), option::of(local_history())).prop_map(|(node, known)| ReplicaHistory { node, known });
    (partition(), token(), any::<u64>(), vec(replica, 0..4))
        .prop_map(|(partition, token, epoch, replicas)| KeyHistory { partition, token, epoch: Epoch(epoch), replicas })
}

fn path() -> impl Strategy<Value = RequestPath> {
    let event = prop_oneof![
        Just(PathEvent::AskedValue),
        Just(PathEvent::AskedVersions),
        Just(PathEvent::SentWrite),
        Just(PathEvent::Repaired),
        Just(PathEvent::AskedClaim),
        Just(PathEvent::Asked),
        option::of(stamp()).prop_map(PathEvent::Answered),
        Just(PathEvent::Durable),
        stamp().prop_map(PathEvent::Superseded),
        ".{0,20}".prop_map(PathEvent::Failed),
        Just(PathEvent::Late),
    ];
    let step = (any::<u64>(), node(), event).prop_map(|(after_us, node, event)| PathStep { after_us, node, event });
    (node(), any::<u64>(), partition(), vec(node(), 0..=7), any::<u8>(), vec(step, 0..10)).prop_map(
        |(coordinator, epoch, partition, replicas, needed, steps)| RequestPath {
            coordinator,
            epoch: Epoch(epoch),
            partition,
            replicas,
            needed,
            steps,
        },
    )
}

fn duration() -> impl Strategy<Value = Duration> {
    (any::<u64>(), 0..1_000_000_000u32).prop_map(|(seconds, nanos)| Duration::new(seconds, nanos))
}

fn expiry() -> impl Strategy<Value = Expiry> {
    prop_oneof![Just(Expiry::Never), any::<u64>().prop_map(|at| Expiry::At(WallTime(at))), Just(Expiry::Keep)]
}

fn request() -> impl Strategy<Value = Request> {
    let operation = prop_oneof![
        key().prop_map(|key| Operation::Get { key }),
        key().prop_map(|key| Operation::Head { key }),
        (key(), bytes(300), expiry(), causal_context()).prop_map(|(key, value, expiry, context)| Operation::Put {
            key,
            value,
            expiry,
            context
        }),
        (key(), causal_context()).prop_map(|(key, context)| Operation::Delete { key, context }),
        (key(), op()).prop_map(|(key, op)| Operation::Resolve { key, op }),
        key().prop_map(|key| Operation::History { key }),
        (key(), expiry()).prop_map(|(key, expiry)| Operation::SetExpiry { key, expiry }),
        (namespace(), token(), any::<u32>()).prop_map(|(namespace, from, limit)| Operation::Scan {
            namespace,
            from,
            limit
        }),
        (key(), stamp(), any::<u8>()).prop_map(|(key, stamp, replicas)| Operation::Confirm { key, stamp, replicas }),
        (namespace(), token()).prop_map(|(namespace, at)| Operation::Truncate { namespace, at }),
        namespace().prop_map(|namespace| Operation::Count { namespace }),
    ];
    let level = prop::sample::select(&ConsistencyLevel::ALL_LEVELS[..]);
    (operation, level, option::of(duration()), option::of(op()), vector(), any::<bool>()).prop_map(
        |(operation, consistency, timeout, op_id, session, explain)| Request {
            operation,
            consistency,
            timeout,
            op_id,
            session,
            explain,
        },
    )
}

fn replica_request() -> impl Strategy<Value = ReplicaRequest> {
    prop_oneof![
        (key(), record()).prop_map(|(key, record)| ReplicaRequest::Apply { key, record }),
        (partition(), namespace(), stamp()).prop_map(|(partition, namespace, stamp)| ReplicaRequest::Truncate {
            partition,
            namespace,
            stamp
        }),
        (key(), vector()).prop_map(|(key, after)| ReplicaRequest::Read { key, after }),
        (key(), vector()).prop_map(|(key, after)| ReplicaRequest::Digest { key, after }),
        (key(), stamp()).prop_map(|(key, stamp)| ReplicaRequest::Confirm { key, stamp }),
        (store(), commit()).prop_map(|(store, commit)| ReplicaRequest::Meet { store, commit }),
        memory().prop_map(|remembered| ReplicaRequest::Fence { remembered }),
        (commit(), vec(coverage(), 0..5)).prop_map(|(commit, changed)| ReplicaRequest::Coverage { commit, changed }),
        (partition(), vector()).prop_map(|(partition, wanted)| ReplicaRequest::Pull { partition, wanted }),
        (partition(), op(), claim(), any::<u64>()).prop_map(|(partition, op, claim, until)| ReplicaRequest::Claim {
            partition,
            op,
            claim,
            until: WallTime(until)
        }),
        key().prop_map(|key| ReplicaRequest::History { key }),
        (partition(), namespace(), token(), any::<u32>())
            .prop_map(|(partition, namespace, from, limit)| ReplicaRequest::Scan { partition, namespace, from, limit }),
        Just(ReplicaRequest::Statistics),
        (request(), duration()).prop_map(|(request, remaining)| ReplicaRequest::Forward { request, remaining }),
        Just(ReplicaRequest::FetchMap),
    ]
}

fn entries() -> impl Strategy<Value = Vec<ScanEntry>> {
    vec((bytes(50), digest()).prop_map(|(key, digest)| ScanEntry { key, digest }), 0..10)
}

fn refusal() -> impl Strategy<Value = Refusal> {
    prop_oneof![
        (any::<u8>(), any::<u8>()).prop_map(|(alive, needed)| Refusal::TooFewReplicas { alive, needed }),
        Just(Refusal::Overloaded),
        Just(Refusal::ShuttingDown),
        (any::<u64>(), any::<u64>()).prop_map(|(bytes, limit)| Refusal::ValueTooLong { bytes, limit }),
        option::of(any::<i64>()).prop_map(|offset_ms| Refusal::ClockUnsure { offset_ms }),
        timestamp().prop_map(|horizon| Refusal::Behind { horizon }),
        any::<u64>().prop_map(|count| Refusal::TooManySiblings { count }),
        Just(Refusal::Fenced),
        Just(Refusal::OpIdReused),
        ".{0,40}".prop_map(Refusal::NodeFenced),
        Just(Refusal::UnknownNamespace),
        any::<u64>().prop_map(|ahead_ms| Refusal::ClockSkew { ahead_ms }),
        any::<u64>().prop_map(|newest| Refusal::WrongEpoch { newest: Epoch(newest) }),
        ".{0,40}".prop_map(Refusal::Invalid),
    ]
}

fn outcome() -> impl Strategy<Value = Outcome> {
    let sibling =
        (bytes(50), stamp(), wall()).prop_map(|(value, stamp, expires_at)| Sibling { value, stamp, expires_at });
    let read = (bytes(300), stamp(), wall(), vec(sibling, 0..4), causal_context()).prop_map(
        |(value, stamp, expires_at, siblings, context)| ReadReply { value, stamp, expires_at, siblings, context },
    );
    let response = prop_oneof![
        option::of(read).prop_map(Response::Read),
        option::of(summary()).prop_map(Response::Head),
        (stamp(), any::<u8>()).prop_map(|(stamp, acknowledged)| Response::Written(WriteReply { stamp, acknowledged })),
        (entries(), option::of(token())).prop_map(|(entries, next)| Response::Page(ScanPage { entries, next })),
        any::<u8>().prop_map(Response::Confirmed),
        any::<u64>().prop_map(Response::Count),
        key_history().prop_map(Response::History),
    ];
    let response = (response, option::of(path())).prop_map(|(response, path)| match path {
        Some(path) => Response::Explained(Box::new(response), path),
        None => response,
    });
    let failure = prop_oneof![
        refusal().prop_map(Failure::NotApplied),
        (any::<u8>(), any::<u8>()).prop_map(|(acknowledged, needed)| Failure::InDoubt { acknowledged, needed }),
        (any::<u8>(), any::<u8>()).prop_map(|(answered, needed)| Failure::TimedOut { answered, needed }),
    ];
    prop_oneof![response.prop_map(Ok), failure.prop_map(Err)]
}

pub(super) fn map() -> impl Strategy<Value = ClusterMap> {
    let member = (node(), any::<SocketAddr>(), ".{0,10}", any::<u32>()).prop_map(|(id, peer_address, zone, weight)| {
        // Scope and flow are not carried; an address of a member has none.
        let peer_address = SocketAddr::new(peer_address.ip(), peer_address.port());
        (id, Member { id, peer_address, zone: Zone(zone), weight })
    });
    let policy = prop_oneof![Just(MergePolicy::Lww), Just(MergePolicy::Siblings)];
    let namespaces =
        vec((namespace(), ".{0,10}", policy).prop_map(|(id, name, policy)| (id, Namespace { id, name, policy })), 0..5);
    let assignment = vec(vec(node(), 0..=7), 0..20).prop_map(Assignment);
    (any::<[u8; 16]>(), any::<u64>(), 0..=16u32, any::<(u8, u16)>(), vec(member, 0..10), namespaces, assignment)
        .prop_map(|(cluster, epoch, power, (replication_factor, next_namespace), members, namespaces, assignment)| {
            ClusterMap {
                cluster: ClusterId(cluster),
                epoch: Epoch(epoch),
                partitions: PartitionCount::new(1 << power).expect("a power of two"),
                replication_factor,
                members: BTreeMap::from_iter(members),
                next_namespace,
                namespaces: BTreeMap::from_iter(namespaces),
                assignment,
            }
        })
}

fn replica_response() -> impl Strategy<Value = ReplicaResponse> {
    prop_oneof![
        Just(ReplicaResponse::Stored),
        stamp().prop_map(|by| ReplicaResponse::Superseded { by }),
        (option::of(record()), any::<bool>()).prop_map(|(record, behind)| ReplicaResponse::Record { record, behind }),
        (option::of(digest()), any::<bool>()).prop_map(|(digest, behind)| ReplicaResponse::Digest { digest, behind }),
        any::<u64>().prop_map(|wall| ReplicaResponse::Met { wall: WallTime(wall) }),
        pulled().prop_map(ReplicaResponse::Pulled),
        claim().prop_map(ReplicaResponse::Noted),
        local_history().prop_map(ReplicaResponse::History),
        (entries(), option::of(token())).prop_map(|(entries, next)| ReplicaResponse::Page { entries, next }),
        (any::<u64>(), any::<u64>())
            .prop_map(|(live_keys, disk_bytes)| ReplicaResponse::Statistics(Statistics { live_keys, disk_bytes })),
        outcome().prop_map(ReplicaResponse::Outcome),
        map().prop_map(ReplicaResponse::Map),
        refusal().prop_map(ReplicaResponse::Refused),
        Just(ReplicaResponse::Unsupported),
    ]
}

fn life() -> impl Strategy<Value = Life> {
    (any::<u64>(), any::<u32>())
        .prop_map(|(incarnation, refutation)| Life { incarnation: Incarnation(incarnation), refutation })
}

fn load() -> impl Strategy<Value = Load> {
    prop::sample::select(&[Load::Normal, Load::High, Load::Full][..])
}

fn rumour_id() -> impl Strategy<Value = RumourId> {
    (actor(), any::<u64>()).prop_map(|(actor, number)| RumourId {
        origin: actor.node,
        incarnation: actor.incarnation,
        number,
    })
}

fn rumour() -> impl Strategy<Value = Rumour> {
    let health = prop::sample::select(&[Health::Alive, Health::Suspect, Health::Down][..]);
    prop_oneof![
        any::<u64>().prop_map(|epoch| Rumour::Epoch(Epoch(epoch))),
        (node(), life(), health).prop_map(|(subject, life, health)| Rumour::Opinion { subject, life, health }),
        (node(), life()).prop_map(|(subject, life)| Rumour::Doubt { subject, life }),
        life().prop_map(Rumour::Alive),
        load().prop_map(Rumour::Load),
    ]
}

/// Any gossip, its lists up to their longest.
pub(super) fn gossip() -> impl Strategy<Value = Gossip> {
    let path = || vec(node(), 0..=usize::from(limits::WALK_HOPS) + 1);
    let nodes = || vec(node(), 0..=limits::SHUFFLED_NODES);
    let lives = || vec((node(), life()), 0..=limits::STANDING_DOWN);
    prop_oneof![
        Just(Gossip::Join),
        (node(), any::<u8>()).prop_map(|(joiner, hops)| Gossip::ForwardJoin { joiner, hops }),
        any::<bool>().prop_map(|urgent| Gossip::Neighbor { urgent }),
        any::<bool>().prop_map(|accepted| Gossip::NeighborReply { accepted }),
        Just(Gossip::Disconnect),
        (any::<u8>(), path(), nodes()).prop_map(|(hops, path, nodes)| Gossip::Shuffle { hops, path, nodes }),
        (path(), nodes()).prop_map(|(path, nodes)| Gossip::ShuffleReply { path, nodes }),
        (rumour_id(), any::<u8>(), rumour()).prop_map(|(id, hops, rumour)| Gossip::Rumour { id, hops, rumour }),
        vec(rumour_id(), 0..=limits::RUMOURS_ANNOUNCED).prop_map(|ids| Gossip::Have { ids }),
        rumour_id().prop_map(|id| Gossip::Graft { id }),
        Just(Gossip::Prune),
        (life(), load(), lives(), lives()).prop_map(|(life, load, down, alive)| Gossip::Standing {
            life,
            load,
            down,
            alive
        }),
    ]
}

/// Any datagram.
pub(super) fn datagram() -> impl Strategy<Value = Datagram> {
    let id = || any::<u32>().prop_map(ProbeId);
    let accused = || option::of(life());
    let probe = prop_oneof![
        (id(), life(), accused(), any::<bool>()).prop_map(|(id, life, accused, neighbor)| Probe::Ping {
            id,
            life,
            accused,
            neighbor
        }),
        (id(), life(), load(), any::<bool>()).prop_map(|(id, life, load, neighbor)| Probe::Ack {
            id,
            life,
            load,
            neighbor
        }),
        (id(), node(), accused()).prop_map(|(id, subject, accused)| Probe::PingFor { id, subject, accused }),
        (id(), node(), life()).prop_map(|(id, subject, life)| Probe::AckFor { id, subject, life }),
        (id(), node()).prop_map(|(id, subject)| Probe::NackFor { id, subject }),
    ];
    (any::<u64>(), probe).prop_map(|(epoch, probe)| Datagram { epoch: Epoch(epoch), probe })
}

/// Any message.
pub(super) fn envelope() -> impl Strategy<Value = Envelope> {
    let message = prop_oneof![
        (any::<u64>(), replica_request()).prop_map(|(id, request)| Message::Request { id: RequestId(id), request }),
        (any::<u64>(), replica_response()).prop_map(|(id, response)| Message::Response { id: RequestId(id), response }),
        gossip().prop_map(Message::Gossip),
    ];
    (any::<u64>(), any::<u64>(), message).prop_map(|(epoch, clock, message)| Envelope {
        epoch: Epoch(epoch),
        clock: Timestamp(clock),
        message,
    })
}
