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
    Actor, Assignment, ClusterId, ClusterMap, ConsistencyLevel, Content, Counter, Dot, Epoch, Expiry, Failure,
    Incarnation, Key, Member, Namespace, NamespaceId, NodeId, Operation, Outcome, Partition, PartitionCount, ReadReply,
    Refusal, Request, Response, ScanEntry, ScanPage, Stamp, Summary, Timestamp, Token, Version, WallTime, WriteReply,
    Zone,
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

fn stamp() -> impl Strategy<Value = Stamp> {
    (any::<u64>(), node(), any::<u64>(), any::<u64>()).prop_map(|(timestamp, node, incarnation, counter)| Stamp {
        timestamp: Timestamp(timestamp),
        dot: Dot { actor: Actor { node, incarnation: Incarnation(incarnation) }, counter: Counter(counter) },
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
        (key(), bytes(300), expiry()).prop_map(|(key, value, expiry)| Operation::Put { key, value, expiry }),
        key().prop_map(|key| Operation::Delete { key }),
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
    (operation, level, option::of(duration())).prop_map(|(operation, consistency, timeout)| Request {
        operation,
        consistency,
        timeout,
    })
}

fn replica_request() -> impl Strategy<Value = ReplicaRequest> {
    prop_oneof![
        (key(), version()).prop_map(|(key, version)| ReplicaRequest::Apply { key, version }),
        (partition(), namespace(), stamp()).prop_map(|(partition, namespace, stamp)| ReplicaRequest::Truncate {
            partition,
            namespace,
            stamp
        }),
        key().prop_map(|key| ReplicaRequest::Read { key }),
        key().prop_map(|key| ReplicaRequest::Digest { key }),
        (partition(), namespace(), token(), any::<u32>())
            .prop_map(|(partition, namespace, from, limit)| ReplicaRequest::Scan { partition, namespace, from, limit }),
        Just(ReplicaRequest::Statistics),
        (request(), duration()).prop_map(|(request, remaining)| ReplicaRequest::Forward { request, remaining }),
        Just(ReplicaRequest::FetchMap),
    ]
}

fn entries() -> impl Strategy<Value = Vec<ScanEntry>> {
    vec((bytes(50), summary()).prop_map(|(key, summary)| ScanEntry { key, summary }), 0..10)
}

fn refusal() -> impl Strategy<Value = Refusal> {
    prop_oneof![
        (any::<u8>(), any::<u8>()).prop_map(|(alive, needed)| Refusal::TooFewReplicas { alive, needed }),
        Just(Refusal::Overloaded),
        Just(Refusal::ShuttingDown),
        (any::<u64>(), any::<u64>()).prop_map(|(bytes, limit)| Refusal::ValueTooLong { bytes, limit }),
        Just(Refusal::UnknownNamespace),
        any::<u64>().prop_map(|ahead_ms| Refusal::ClockSkew { ahead_ms }),
        any::<u64>().prop_map(|newest| Refusal::WrongEpoch { newest: Epoch(newest) }),
        ".{0,40}".prop_map(Refusal::Invalid),
    ]
}

fn outcome() -> impl Strategy<Value = Outcome> {
    let read =
        (bytes(300), stamp(), wall()).prop_map(|(value, stamp, expires_at)| ReadReply { value, stamp, expires_at });
    let response = prop_oneof![
        option::of(read).prop_map(Response::Read),
        option::of(summary()).prop_map(Response::Head),
        (stamp(), any::<u8>()).prop_map(|(stamp, acknowledged)| Response::Written(WriteReply { stamp, acknowledged })),
        (entries(), option::of(token())).prop_map(|(entries, next)| Response::Page(ScanPage { entries, next })),
        any::<u8>().prop_map(Response::Confirmed),
        any::<u64>().prop_map(Response::Count),
    ];
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
    let namespaces = vec((namespace(), ".{0,10}").prop_map(|(id, name)| (id, Namespace { id, name })), 0..5);
    let assignment = vec(vec(node(), 0..=7), 0..20).prop_map(Assignment);
    (any::<[u8; 16]>(), any::<u64>(), 0..=16u32, any::<u8>(), vec(member, 0..10), namespaces, assignment).prop_map(
        |(cluster, epoch, power, replication_factor, members, namespaces, assignment)| ClusterMap {
            cluster: ClusterId(cluster),
            epoch: Epoch(epoch),
            partitions: PartitionCount::new(1 << power).expect("a power of two"),
            replication_factor,
            members: BTreeMap::from_iter(members),
            namespaces: BTreeMap::from_iter(namespaces),
            assignment,
        },
    )
}

fn replica_response() -> impl Strategy<Value = ReplicaResponse> {
    prop_oneof![
        Just(ReplicaResponse::Stored),
        stamp().prop_map(|by| ReplicaResponse::Superseded { by }),
        option::of(version()).prop_map(ReplicaResponse::Version),
        option::of(summary()).prop_map(ReplicaResponse::Digest),
        (entries(), option::of(token())).prop_map(|(entries, next)| ReplicaResponse::Page { entries, next }),
        (any::<u64>(), any::<u64>())
            .prop_map(|(live_keys, disk_bytes)| ReplicaResponse::Statistics(Statistics { live_keys, disk_bytes })),
        outcome().prop_map(ReplicaResponse::Outcome),
        map().prop_map(ReplicaResponse::Map),
        refusal().prop_map(ReplicaResponse::Refused),
        Just(ReplicaResponse::Unsupported),
    ]
}

/// Any message.
pub(super) fn envelope() -> impl Strategy<Value = Envelope> {
    let message = prop_oneof![
        (any::<u64>(), replica_request()).prop_map(|(id, request)| Message::Request { id: RequestId(id), request }),
        (any::<u64>(), replica_response()).prop_map(|(id, response)| Message::Response { id: RequestId(id), response }),
    ];
    (any::<u64>(), any::<u64>(), message).prop_map(|(epoch, clock, message)| Envelope {
        epoch: Epoch(epoch),
        clock: Timestamp(clock),
        message,
    })
}
