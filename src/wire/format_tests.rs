//! The bytes of one message of each kind, as fixtures: who changes the format by
//! accident fails here, and who changes it on purpose raises the protocol's version.

use std::collections::BTreeMap;
use std::time::Duration;

use super::*;
use crate::types::{
    Actor, Assignment, CausalContext, Claim, ClusterId, ClusterMap, CommitNumber, ConsistencyLevel, Content, Counter,
    Coverage, Digest, Dot, Epoch, Expiry, Failure, Incarnation, Key, KeyHistory, LocalHistory, LogPosition, Member,
    MergePolicy, Namespace, NamespaceId, NodeId, OpId, Operation, Partition, PartitionCount, PathEvent, PathStep,
    PeerMemory, Pulled, PulledItem, ReadReply, Record, Refusal, ReplicaHistory, Request, RequestPath, Response,
    ScanEntry, ScanPage, Sibling, Siblings, Stamp, StoreId, Summary, Timestamp, Token, Version, VersionVector,
    WallTime, WriteReply, Zone,
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
    vec![ScanEntry { key: "key".into(), digest: Record::Last(summary()) }]
}

fn causal_context() -> CausalContext {
    let mut context = CausalContext::default();
    context.insert_stamp(stamp());
    context
}

/// Two siblings and a context that knows a third.
fn siblings() -> Record {
    let other = Stamp { timestamp: Timestamp(5), dot: Dot { actor: actor(8), counter: Counter(2) } };
    let tombstone = Version { stamp: other, expires_at: None, content: Content::Tombstone };
    let known = CausalContext::from_iter([Dot { actor: actor(9), counter: Counter(1) }]);
    Record::Siblings(Siblings::new(vec![version(), tombstone], known))
}

fn actor(number: u32) -> Actor {
    Actor { node: node(number), incarnation: Incarnation(3) }
}

/// A vector with a gap.
fn vector() -> VersionVector {
    let mut vector = VersionVector::default();
    vector.insert_range(actor(7), Counter(1), Counter(300));
    vector.insert_range(actor(7), Counter(302), Counter(302));
    vector
}

fn coverage() -> Coverage {
    Coverage { partition: Partition(300), vector: vector(), horizon: Timestamp(7) }
}

fn claim() -> Claim {
    Claim::Write { key: key(), version: version() }
}

fn memory() -> PeerMemory {
    PeerMemory { incarnation: Incarnation(3), store: StoreId(1 << 64), commit: CommitNumber(300) }
}

fn history() -> LocalHistory {
    let log = vec![LogPosition { commit: CommitNumber(4), stamp: stamp() }];
    let digest: Option<Digest> = Some(siblings().digest());
    LocalHistory { digest, log, more: true, coverage: coverage(), commit: CommitNumber(5) }
}

fn map() -> ClusterMap {
    let member = Member {
        id: node(1),
        peer_address: "127.0.0.1:9379".parse().expect("an address"),
        zone: Zone("a".into()),
        weight: 2,
    };
    let namespace = Namespace { id: NamespaceId::DEFAULT, name: "default".into(), policy: MergePolicy::Siblings };
    ClusterMap {
        cluster: ClusterId([0xab; 16]),
        epoch: Epoch(4),
        partitions: PartitionCount::new(2).expect("a power of two"),
        replication_factor: 1,
        members: BTreeMap::from([(member.id, member)]),
        next_namespace: 3,
        namespaces: BTreeMap::from([(namespace.id, namespace)]),
        assignment: Assignment(vec![vec![node(1)], vec![node(1)]]),
    }
}

fn forward(operation: Operation) -> ReplicaRequest {
    let timeout = Some(Duration::from_millis(1_500));
    let request = Request { timeout, ..Request::new(operation, ConsistencyLevel::Quorum) };
    ReplicaRequest::Forward { request, remaining: Duration::from_millis(20) }
}

fn done(response: Response) -> ReplicaResponse {
    ReplicaResponse::Outcome(Ok(response))
}

/// Each request, its kind, and its body.
fn requests() -> Vec<(ReplicaRequest, u8, &'static str)> {
    let (partition, namespace, from) = (Partition(300), NamespaceId(2), Token(1 << 40));
    let (op, until, value) = (OpId([0xcd; 16]), WallTime(99), bytes::Bytes::from("value"));
    let put = |context| Operation::Put { key: key(), value: value.clone(), expiry: Expiry::At(WallTime(99)), context };
    let mut finer = Request::new(put(CausalContext::default()), ConsistencyLevel::One);
    finer.op_id = Some(op);
    finer.session = vector();
    finer.explain = true;
    let last = Record::Last(version());
    vec![
        (ReplicaRequest::Apply { key: key(), record: last }, 16, "02036b657900c0843d0703ac020163000576616c7565"),
        (
            ReplicaRequest::Apply { key: key(), record: siblings() },
            16,
            "02036b65790102c0843d0703ac020163000576616c7565050803020001030703ac02080302090301c0843d",
        ),
        (ReplicaRequest::Truncate { partition, namespace, stamp: stamp() }, 17, "ac0202c0843d0703ac02"),
        (ReplicaRequest::Read { key: key(), after: VersionVector::default() }, 18, "02036b657900"),
        (ReplicaRequest::Digest { key: key(), after: vector() }, 19, "02036b65790107030201ac02ae02ae02"),
        (ReplicaRequest::Scan { partition, namespace, from, limit: 1_000 }, 20, "ac0202808080808020e807"),
        (ReplicaRequest::Statistics, 21, ""),
        (forward(Operation::Get { key: key() }), 22, "0002036b657904010180cab5ee010000000080dac409"),
        (forward(Operation::Head { key: key() }), 22, "0102036b657904010180cab5ee010000000080dac409"),
        (
            forward(put(causal_context())),
            22,
            "0202036b65790576616c75650163010703ac02c0843d04010180cab5ee010000000080dac409",
        ),
        (
            forward(Operation::Delete { key: key(), context: CausalContext::default() }),
            22,
            "0302036b6579000004010180cab5ee010000000080dac409",
        ),
        (
            forward(Operation::SetExpiry { key: key(), expiry: Expiry::Keep }),
            22,
            "0402036b65790204010180cab5ee010000000080dac409",
        ),
        (
            forward(Operation::Scan { namespace, from, limit: 10 }),
            22,
            "05028080808080200a04010180cab5ee010000000080dac409",
        ),
        (
            forward(Operation::Confirm { key: key(), stamp: stamp(), replicas: 2 }),
            22,
            "0602036b6579c0843d0703ac020204010180cab5ee010000000080dac409",
        ),
        (forward(Operation::Truncate { namespace, at: from }), 22, "070280808080802004010180cab5ee010000000080dac409"),
        (forward(Operation::Count { namespace }), 22, "080204010180cab5ee010000000080dac409"),
        (
            forward(Operation::Resolve { key: key(), op }),
            22,
            "0902036b6579cdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcd04010180cab5ee010000000080dac409",
        ),
        (forward(Operation::History { key: key() }), 22, "0a02036b657904010180cab5ee010000000080dac409"),
        (
            ReplicaRequest::Forward { request: finer, remaining: Duration::from_millis(20) },
            22,
            "0202036b65790576616c756501630000010001cdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcd0107030201ac02ae02ae020100\
            80dac409",
        ),
        (ReplicaRequest::FetchMap, 23, ""),
        (ReplicaRequest::Confirm { key: key(), stamp: stamp() }, 24, "02036b6579c0843d0703ac02"),
        (ReplicaRequest::Meet { store: StoreId(1 << 64), commit: CommitNumber(300) }, 25, "80808080808080808002ac02"),
        (ReplicaRequest::Fence { remembered: memory() }, 26, "0380808080808080808002ac02"),
        (
            ReplicaRequest::Coverage { commit: CommitNumber(300), changed: vec![coverage()] },
            27,
            "ac0201ac020107030201ac02ae02ae0207",
        ),
        (ReplicaRequest::Pull { partition, wanted: vector() }, 28, "ac020107030201ac02ae02ae02"),
        (
            ReplicaRequest::Claim { partition, op, claim: claim(), until },
            29,
            "ac02cdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcd0002036b6579c0843d0703ac020163000576616c756563",
        ),
        (
            ReplicaRequest::Claim { partition, op, claim: Claim::Fenced, until },
            29,
            "ac02cdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcd0163",
        ),
        (ReplicaRequest::History { key: key() }, 30, "02036b6579"),
    ]
}

/// Answers to a read, and to a question for the history of a key.
fn read_reply() -> ReadReply {
    let sibling = Sibling { value: "other".into(), stamp: stamp(), expires_at: None };
    let (value, expires_at) = ("value".into(), Some(WallTime(99)));
    ReadReply { value, stamp: stamp(), expires_at, siblings: vec![sibling], context: causal_context() }
}

fn key_history() -> KeyHistory {
    let replicas =
        vec![ReplicaHistory { node: node(7), known: Some(history()) }, ReplicaHistory { node: node(8), known: None }];
    KeyHistory { partition: Partition(300), token: Token(1 << 40), epoch: Epoch(4), replicas }
}

fn path() -> RequestPath {
    let events = [
        PathEvent::AskedValue,
        PathEvent::AskedVersions,
        PathEvent::SentWrite,
        PathEvent::Repaired,
        PathEvent::AskedClaim,
        PathEvent::Asked,
        PathEvent::Answered(Some(stamp())),
        PathEvent::Durable,
        PathEvent::Superseded(stamp()),
        PathEvent::Failed("no".into()),
        PathEvent::Late,
    ];
    let steps = events.into_iter().map(|event| PathStep { after_us: 300, node: node(8), event });
    RequestPath {
        coordinator: node(7),
        epoch: Epoch(4),
        partition: Partition(300),
        replicas: vec![node(7), node(8)],
        needed: 2,
        steps: steps.collect(),
    }
}

fn pulled() -> Pulled {
    let items = vec![
        PulledItem::Record { dots: vec![stamp()], key: key(), record: Some(siblings()) },
        PulledItem::Record { dots: vec![], key: key(), record: None },
        PulledItem::Truncation { namespace: NamespaceId(2), stamp: stamp() },
    ];
    Pulled { items, lost: vector() }
}

/// Each response and its body.
fn responses() -> Vec<(ReplicaResponse, &'static str)> {
    let page = ScanPage { entries: entries(), next: Some(Token(1)) };
    let statistics = Statistics { live_keys: 300, disk_bytes: 70_000 };
    let digest = Some(Record::Last(summary()));
    let horizon = Timestamp(300);
    vec![
        (ReplicaResponse::Stored, "00"),
        (ReplicaResponse::Superseded { by: stamp() }, "01c0843d0703ac02"),
        (
            ReplicaResponse::Record { record: Some(Record::Last(version())), behind: false },
            "020100c0843d0703ac020163000576616c756500",
        ),
        (
            ReplicaResponse::Record { record: Some(siblings()), behind: false },
            "02010102c0843d0703ac020163000576616c7565050803020001030703ac02080302090301c0843d00",
        ),
        (ReplicaResponse::Record { record: None, behind: true }, "020001"),
        (ReplicaResponse::Digest { digest, behind: false }, "030100c0843d0703ac0200010500"),
        (
            ReplicaResponse::Digest { digest: Some(siblings().digest()), behind: true },
            "03010102c0843d0703ac0201630105050803020000030703ac02080302090301c0843d01",
        ),
        (ReplicaResponse::Page { entries: entries(), next: None }, "0401036b657900c0843d0703ac0200010500"),
        (ReplicaResponse::Statistics(statistics), "05ac02f0a204"),
        (ReplicaResponse::Met { wall: WallTime(300) }, "06ac02"),
        (
            ReplicaResponse::Pulled(pulled()),
            "07030001c0843d0703ac0202036b6579010102c0843d0703ac020163000576616c7565050803020001030703ac020803\
            02090301c0843d000002036b6579000102c0843d0703ac020107030201ac02ae02ae02",
        ),
        (ReplicaResponse::Noted(claim()), "080002036b6579c0843d0703ac020163000576616c7565"),
        (ReplicaResponse::Noted(Claim::Fenced), "0801"),
        (
            ReplicaResponse::History(history()),
            "09010102c0843d0703ac0201630105050803020000030703ac02080302090301c0843d0104c0843d0703ac0201ac0201\
            07030201ac02ae02ae020705",
        ),
        (
            done(Response::Read(Some(read_reply()))),
            "0a0000010576616c7565c0843d0703ac02016301056f74686572c0843d0703ac0200010703ac02c0843d",
        ),
        (done(Response::Head(None)), "0a000100"),
        (done(Response::Written(WriteReply { stamp: stamp(), acknowledged: 2 })), "0a0002c0843d0703ac0202"),
        (done(Response::Page(page)), "0a000301036b657900c0843d0703ac020001050101"),
        (done(Response::Confirmed(3)), "0a000403"),
        (done(Response::Count(300)), "0a0005ac02"),
        (
            done(Response::History(key_history())),
            "0a0006ac0280808080802004020701010102c0843d0703ac0201630105050803020000030703ac02080302090301c084\
            3d0104c0843d0703ac0201ac020107030201ac02ae02ae0207050800",
        ),
        (
            done(Response::Explained(Box::new(Response::Count(300)), path())),
            "0a000705ac020704ac02020708020bac020800ac020801ac020802ac020803ac020804ac020805ac02080601c0843d07\
            03ac02ac020807ac020808c0843d0703ac02ac020809026e6fac02080a",
        ),
        (ReplicaResponse::failed(Failure::NotApplied(Refusal::TooFewReplicas { alive: 1, needed: 2 })), "0a0100000102"),
        (ReplicaResponse::failed(Failure::InDoubt { acknowledged: 1, needed: 2 }), "0a01010102"),
        (ReplicaResponse::failed(Failure::TimedOut { answered: 1, needed: 2 }), "0a01020102"),
        (
            ReplicaResponse::Map(map()),
            "0babababababababababababababababab040201010101007f000001a349016102030100000764656661756c74010201\
            010101",
        ),
        (ReplicaResponse::Refused(Refusal::Overloaded), "0c01"),
        (ReplicaResponse::Refused(Refusal::ShuttingDown), "0c02"),
        (ReplicaResponse::Refused(Refusal::ValueTooLong { bytes: 300, limit: 200 }), "0c03ac02c801"),
        (ReplicaResponse::Refused(Refusal::ClockUnsure { offset_ms: Some(-300) }), "0c0401d704"),
        (ReplicaResponse::Refused(Refusal::Behind { horizon }), "0c05ac02"),
        (ReplicaResponse::Refused(Refusal::TooManySiblings { count: 32 }), "0c0620"),
        (ReplicaResponse::Refused(Refusal::Fenced), "0c07"),
        (ReplicaResponse::Refused(Refusal::OpIdReused), "0c08"),
        (ReplicaResponse::Refused(Refusal::NodeFenced("no".into())), "0c09026e6f"),
        (ReplicaResponse::Refused(Refusal::UnknownNamespace), "0c0a"),
        (ReplicaResponse::Refused(Refusal::ClockSkew { ahead_ms: 600 }), "0c0bd804"),
        (ReplicaResponse::Refused(Refusal::WrongEpoch { newest: Epoch(5) }), "0c0c05"),
        (ReplicaResponse::Refused(Refusal::Invalid("no".into())), "0c0d026e6f"),
        (ReplicaResponse::Unsupported, "0d"),
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
