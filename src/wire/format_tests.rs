//! The bytes of one message of each kind, as fixtures: who changes the format by
//! accident fails here, and who changes it on purpose raises the protocol's version.

use std::collections::BTreeMap;
use std::time::Duration;

use super::*;
use crate::types::{
    Actor, Assignment, ClusterId, ClusterMap, ConsistencyLevel, Content, Counter, Dot, Epoch, Expiry, Failure,
    Incarnation, Key, Member, Namespace, NamespaceId, NodeId, Operation, Partition, PartitionCount, ReadReply, Refusal,
    Request, Response, ScanEntry, ScanPage, Stamp, Summary, Timestamp, Token, Version, WallTime, WriteReply, Zone,
};

fn key() -> Key {
    Key::new(NamespaceId(2), &b"key"[..]).expect("a key")
}

fn node(number: u32) -> NodeId {
    NodeId::new(number).expect("not zero")
}

fn stamp() -> Stamp {
    let actor = Actor { node: node(7), incarnation: Incarnation(3) };
    Stamp { timestamp: Timestamp(1_000_000), dot: Dot { actor, counter: Counter(300) } }
}

fn version() -> Version {
    Version { stamp: stamp(), expires_at: Some(WallTime(99)), content: Content::Value("value".into()) }
}

fn summary() -> Summary {
    Summary { stamp: stamp(), expires_at: None, value_bytes: Some(5) }
}

fn entries() -> Vec<ScanEntry> {
    vec![ScanEntry { key: "key".into(), summary: summary() }]
}

fn map() -> ClusterMap {
    let member = Member {
        id: node(1),
        peer_address: "127.0.0.1:9379".parse().expect("an address"),
        zone: Zone("a".into()),
        weight: 2,
    };
    let namespace = Namespace { id: NamespaceId::DEFAULT, name: "default".into() };
    ClusterMap {
        cluster: ClusterId([0xab; 16]),
        epoch: Epoch(4),
        partitions: PartitionCount::new(2).expect("a power of two"),
        replication_factor: 1,
        members: BTreeMap::from([(member.id, member)]),
        namespaces: BTreeMap::from([(namespace.id, namespace)]),
        assignment: Assignment(vec![vec![node(1)], vec![node(1)]]),
    }
}

fn forward(operation: Operation) -> ReplicaRequest {
    let timeout = Some(Duration::from_millis(1_500));
    let request = Request { operation, consistency: ConsistencyLevel::Quorum, timeout };
    ReplicaRequest::Forward { request, remaining: Duration::from_millis(20) }
}

fn done(response: Response) -> ReplicaResponse {
    ReplicaResponse::Outcome(Ok(response))
}

/// Each request, its kind, and its body.
fn requests() -> Vec<(ReplicaRequest, u8, &'static str)> {
    let (partition, namespace, from) = (Partition(300), NamespaceId(2), Token(1 << 40));
    let value = bytes::Bytes::from("value");
    vec![
        (ReplicaRequest::Apply { key: key(), version: version() }, 16, "02036b6579c0843d0703ac020163000576616c7565"),
        (ReplicaRequest::Truncate { partition, namespace, stamp: stamp() }, 17, "ac0202c0843d0703ac02"),
        (ReplicaRequest::Read { key: key() }, 18, "02036b6579"),
        (ReplicaRequest::Digest { key: key() }, 19, "02036b6579"),
        (ReplicaRequest::Scan { partition, namespace, from, limit: 1_000 }, 20, "ac0202808080808020e807"),
        (ReplicaRequest::Statistics, 21, ""),
        (forward(Operation::Get { key: key() }), 22, "0002036b657903010180cab5ee010080dac409"),
        (forward(Operation::Head { key: key() }), 22, "0102036b657903010180cab5ee010080dac409"),
        (
            forward(Operation::Put { key: key(), value, expiry: Expiry::At(WallTime(99)) }),
            22,
            "0202036b65790576616c7565016303010180cab5ee010080dac409",
        ),
        (forward(Operation::Delete { key: key() }), 22, "0302036b657903010180cab5ee010080dac409"),
        (
            forward(Operation::SetExpiry { key: key(), expiry: Expiry::Keep }),
            22,
            "0402036b65790203010180cab5ee010080dac409",
        ),
        (forward(Operation::Scan { namespace, from, limit: 10 }), 22, "05028080808080200a03010180cab5ee010080dac409"),
        (
            forward(Operation::Confirm { key: key(), stamp: stamp(), replicas: 2 }),
            22,
            "0602036b6579c0843d0703ac020203010180cab5ee010080dac409",
        ),
        (forward(Operation::Truncate { namespace, at: from }), 22, "070280808080802003010180cab5ee010080dac409"),
        (forward(Operation::Count { namespace }), 22, "080203010180cab5ee010080dac409"),
        (ReplicaRequest::FetchMap, 23, ""),
    ]
}

/// Each response and its body.
fn responses() -> Vec<(ReplicaResponse, &'static str)> {
    let read = ReadReply { value: "value".into(), stamp: stamp(), expires_at: Some(WallTime(99)) };
    let page = ScanPage { entries: entries(), next: Some(Token(1)) };
    let statistics = Statistics { live_keys: 300, disk_bytes: 70_000 };
    vec![
        (ReplicaResponse::Stored, "00"),
        (ReplicaResponse::Superseded { by: stamp() }, "01c0843d0703ac02"),
        (ReplicaResponse::Version(Some(version())), "0201c0843d0703ac020163000576616c7565"),
        (ReplicaResponse::Version(None), "0200"),
        (ReplicaResponse::Digest(Some(summary())), "0301c0843d0703ac02000105"),
        (ReplicaResponse::Page { entries: entries(), next: None }, "0401036b6579c0843d0703ac0200010500"),
        (ReplicaResponse::Statistics(statistics), "05ac02f0a204"),
        (done(Response::Read(Some(read))), "060000010576616c7565c0843d0703ac020163"),
        (done(Response::Head(None)), "06000100"),
        (done(Response::Written(WriteReply { stamp: stamp(), acknowledged: 2 })), "060002c0843d0703ac0202"),
        (done(Response::Page(page)), "06000301036b6579c0843d0703ac020001050101"),
        (done(Response::Confirmed(3)), "06000403"),
        (done(Response::Count(300)), "060005ac02"),
        (ReplicaResponse::failed(Failure::NotApplied(Refusal::TooFewReplicas { alive: 1, needed: 2 })), "060100000102"),
        (ReplicaResponse::failed(Failure::InDoubt { acknowledged: 1, needed: 2 }), "0601010102"),
        (ReplicaResponse::failed(Failure::TimedOut { answered: 1, needed: 2 }), "0601020102"),
        (
            ReplicaResponse::Map(map()),
            "07abababababababababababababababab040201010101007f000001a3490161020100000764656661756c740201010101",
        ),
        (ReplicaResponse::Refused(Refusal::Overloaded), "0801"),
        (ReplicaResponse::Refused(Refusal::ShuttingDown), "0802"),
        (ReplicaResponse::Refused(Refusal::ValueTooLong { bytes: 300, limit: 200 }), "0803ac02c801"),
        (ReplicaResponse::Refused(Refusal::UnknownNamespace), "0804"),
        (ReplicaResponse::Refused(Refusal::ClockSkew { ahead_ms: 600 }), "0805d804"),
        (ReplicaResponse::Refused(Refusal::WrongEpoch { newest: Epoch(5) }), "080605"),
        (ReplicaResponse::Refused(Refusal::Invalid("no".into())), "0807026e6f"),
        (ReplicaResponse::Unsupported, "09"),
    ]
}

fn assert_bytes(message: Message, kind: u8, body: &str) {
    let envelope = Envelope { epoch: Epoch(4), clock: Timestamp(0x0102_0304_0506_0708), message };
    let header = "2a0000000000000004000000000000000807060504030201";
    let expected = format!("{kind:02x}{header}{body}");
    let bytes = encode(&envelope);
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(hex, expected, "the format of {envelope:?} has changed");
    assert_eq!(decode(&bytes), Ok(envelope));
}

#[test]
fn the_bytes_of_requests_stay_what_they_are() {
    for (request, kind, body) in requests() {
        assert_bytes(Message::Request { id: RequestId(42), request }, kind, body);
    }
}

#[test]
fn the_bytes_of_responses_stay_what_they_are() {
    for (response, body) in responses() {
        assert_bytes(Message::Response { id: RequestId(42), response }, 128, body);
    }
}

#[test]
fn a_frame_is_its_length_and_its_content() {
    let mut out = Vec::new();
    write_frame(&mut out, b"content");
    assert_eq!(out, b"\x07\x00\x00\x00content");
}
