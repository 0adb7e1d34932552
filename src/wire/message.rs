//! What peers say to each other once they have met.

use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::Gossip;
use crate::types::{
    Claim, ClusterMap, CommitNumber, Content, Coverage, Digest, Epoch, Failure, Key, LocalHistory, NamespaceId, OpId,
    Operation, Outcome, Partition, PeerMemory, Pulled, PulledItem, Record, Refusal, Request, Response, ScanEntry,
    Stamp, StoreId, Timestamp, Token, Version, VersionVector, WallTime, bounded_list, limits,
};

/// Names a request among those that its sender has under way.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RequestId(pub u64);

/// A message with what every message carries.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Envelope {
    /// The epoch of the map that the sender planned with.
    pub epoch: Epoch,
    /// The sender's hybrid clock.
    pub clock: Timestamp,
    /// The message.
    pub message: Message,
}

/// A request, or the answer to one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Message {
    /// To be answered under the same id.
    Request {
        /// The sender's name for it.
        id: RequestId,
        /// What is asked.
        request: ReplicaRequest,
    },
    /// The answer.
    Response {
        /// The name that the receiver gave it.
        id: RequestId,
        /// What is answered.
        response: ReplicaResponse,
    },
    /// Not to be answered.
    Gossip(Gossip),
}

/// What one node asks another.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ReplicaRequest {
    /// Merge this with what is held of a key, durably: a new write, or a repair.
    Apply {
        /// The key.
        key: Key,
        /// What is known of it.
        record: Record,
    },
    /// Delete what a namespace holds in a partition, up to and including `stamp`.
    Truncate {
        /// Where.
        partition: Partition,
        /// What.
        namespace: NamespaceId,
        /// Up to which version.
        stamp: Stamp,
    },
    /// The record of a key, once it is durable.
    Read {
        /// The key.
        key: Key,
        /// Mutations of the partition that the reader has seen.
        after: VersionVector,
    },
    /// The same without values.
    Digest {
        /// The key.
        key: Key,
        /// Mutations of the partition that the reader has seen.
        after: VersionVector,
    },
    /// Whether this version or a newer one is on this replica's disk.
    Confirm {
        /// The key.
        key: Key,
        /// The version.
        stamp: Stamp,
    },
    /// Keys of a partition in token order, tombstones included.
    Scan {
        /// Where.
        partition: Partition,
        /// What.
        namespace: NamespaceId,
        /// From which token on.
        from: Token,
        /// About how many.
        limit: u32,
    },
    /// What the store knows of itself.
    Statistics,
    /// Carry out a client's request as its request coordinator.
    Forward {
        /// The client's request.
        request: Request,
        /// How much time is left for it.
        remaining: Duration,
    },
    /// The newest cluster map.
    FetchMap,
    /// The first words over a new connection: which store the sender has. Whoever remembers
    /// more of it than it says answers with [`ReplicaRequest::Fence`].
    Meet {
        /// The sender's store.
        store: StoreId,
        /// The last group that is durable in it.
        commit: CommitNumber,
    },
    /// The receiver's store knows less than the sender remembers of it: it must not serve.
    Fence {
        /// What the sender remembers.
        remembered: PeerMemory,
    },
    /// What the sender durably covers of the partitions that both own, where that has changed.
    Coverage {
        /// The last group that is durable in the sender's store.
        commit: CommitNumber,
        /// What it covers.
        changed: Vec<Coverage>,
    },
    /// What these dots wrote, durably.
    Pull {
        /// Where.
        partition: Partition,
        /// Which dots.
        wanted: VersionVector,
    },
    /// Note durably what an op-id stands for, unless something is noted already.
    Claim {
        /// The partition of the key.
        partition: Partition,
        /// Which op-id.
        op: OpId,
        /// What to note.
        claim: Claim,
        /// When it may be forgotten.
        until: WallTime,
    },
    /// All that is known of a key, for people.
    History {
        /// The key.
        key: Key,
    },
}

/// What a node answers.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum ReplicaResponse {
    /// To Apply, Truncate and Confirm: it is on this replica's disk.
    Stored,
    /// To Apply and Truncate: something newer is on this replica's disk.
    Superseded {
        /// The newer version.
        by: Stamp,
    },
    /// To Read.
    Record {
        /// What is held.
        record: Option<Record>,
        /// Whether some of what the reader has seen is missing here.
        behind: bool,
    },
    /// To Digest, and to Confirm if what is asked for is not there.
    Digest {
        /// What is held.
        digest: Option<Digest>,
        /// Whether some of what the reader has seen is missing here.
        behind: bool,
    },
    /// To Scan: entries in token order, and from where on there may be more.
    Page {
        /// The entries.
        #[serde(deserialize_with = "bounded_list::<_, _, { limits::SCAN_PAGE_MOST_ENTRIES }>")]
        entries: Vec<ScanEntry>,
        /// All keys below this token were returned; none if the partition is at its end.
        next: Option<Token>,
    },
    /// To Statistics.
    Statistics(Statistics),
    /// To Meet and Coverage: taken in; and the time of day.
    Met {
        /// By the answering node's clock.
        wall: WallTime,
    },
    /// To Pull.
    Pulled(Pulled),
    /// To Claim: what is noted.
    Noted(Claim),
    /// To History.
    History(LocalHistory),
    /// To Forward.
    Outcome(Outcome),
    /// To FetchMap.
    Map(ClusterMap),
    /// To any: nothing was done, for this reason.
    Refused(Refusal),
    /// To a request of a kind that this node does not know: nothing was done.
    Unsupported,
}

impl ReplicaResponse {
    /// The answer to a forwarded request that failed.
    pub fn failed(failure: Failure) -> ReplicaResponse {
        ReplicaResponse::Outcome(Err(failure))
    }
}

/// What a store knows of itself.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Statistics {
    /// About how many live keys it holds, copies for others included.
    pub live_keys: u64,
    /// How many bytes it takes on disk.
    pub disk_bytes: u64,
}

/// The bytes after the length of a frame are not a message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Not even a kind and an id.
    #[error("a frame of {0} bytes is too short")]
    Short(usize),
    /// A request of a kind from the future; it can be answered as such.
    #[error("unknown request kind {kind}")]
    UnknownRequest {
        /// Its kind.
        kind: u8,
        /// Its name.
        id: RequestId,
    },
    /// Gossip of a kind from the future; it can be ignored.
    #[error("unknown gossip kind {0}")]
    UnknownGossip(u8),
    /// A kind that is neither request, response nor gossip.
    #[error("unknown frame kind {0}")]
    UnknownKind(u8),
    /// The body contradicts its kind.
    #[error("frame kind {kind}: {reason}")]
    Malformed {
        /// The kind.
        kind: u8,
        /// What is wrong.
        reason: String,
    },
}

/// Gossip has kinds from here up to `REQUESTS`, known or not.
const GOSSIP: u8 = 1;
/// Requests have kinds from here up to `RESPONSE`, known or not.
const REQUESTS: u8 = 16;
const APPLY: u8 = 16;
const TRUNCATE: u8 = 17;
const READ: u8 = 18;
const DIGEST: u8 = 19;
const SCAN: u8 = 20;
const STATISTICS: u8 = 21;
const FORWARD: u8 = 22;
const FETCH_MAP: u8 = 23;
const CONFIRM: u8 = 24;
const MEET: u8 = 25;
const FENCE: u8 = 26;
const COVERAGE: u8 = 27;
const PULL: u8 = 28;
const CLAIM: u8 = 29;
const HISTORY: u8 = 30;
const RESPONSE: u8 = 128;

/// Kind, id, epoch and clock: what stands before every body.
const HEADER_BYTES: usize = 1 + 8 + 8 + 8;

/// The bytes of a message, without the length of the frame.
pub fn encode(envelope: &Envelope) -> Bytes {
    let mut out = Vec::with_capacity(128 + long_part(&envelope.message));
    let (kind, id) = match &envelope.message {
        Message::Request { id, request } => (request_kind(request), *id),
        Message::Response { id, .. } => (RESPONSE, *id),
        Message::Gossip(gossip) => (gossip.kind(), RequestId(0)),
    };
    out.push(kind);
    out.extend_from_slice(&id.0.to_le_bytes());
    out.extend_from_slice(&envelope.epoch.0.to_le_bytes());
    out.extend_from_slice(&envelope.clock.0.to_le_bytes());
    match &envelope.message {
        Message::Response { response, .. } => put(&mut out, response),
        Message::Gossip(gossip) => out = gossip.put(out),
        Message::Request { request, .. } => match request {
            ReplicaRequest::Apply { key, record } => put(&mut out, &(key, record)),
            ReplicaRequest::Truncate { partition, namespace, stamp } => put(&mut out, &(partition, namespace, stamp)),
            ReplicaRequest::Confirm { key, stamp } => put(&mut out, &(key, stamp)),
            ReplicaRequest::Read { key, after } | ReplicaRequest::Digest { key, after } => put(&mut out, &(key, after)),
            ReplicaRequest::Scan { partition, namespace, from, limit } => {
                put(&mut out, &(partition, namespace, from, limit));
            }
            ReplicaRequest::Forward { request, remaining } => put(&mut out, &(request, remaining)),
            ReplicaRequest::Meet { store, commit } => put(&mut out, &(store, commit)),
            ReplicaRequest::Fence { remembered } => put(&mut out, remembered),
            ReplicaRequest::Coverage { commit, changed } => put(&mut out, &(commit, changed)),
            ReplicaRequest::Pull { partition, wanted } => put(&mut out, &(partition, wanted)),
            ReplicaRequest::Claim { partition, op, claim, until } => put(&mut out, &(partition, op, claim, until)),
            ReplicaRequest::History { key } => put(&mut out, key),
            ReplicaRequest::Statistics | ReplicaRequest::FetchMap => {}
        },
    }
    Bytes::from(out)
}

/// How many bytes the keys and values of a message take: they are copied once then.
fn long_part(message: &Message) -> usize {
    match message {
        Message::Request { request, .. } => match request {
            ReplicaRequest::Apply { key, record } => key.bytes().len() + record.value_bytes(),
            ReplicaRequest::Claim { claim: Claim::Write { key, version }, .. } => key.bytes().len() + value(version),
            ReplicaRequest::Forward { request, .. } => match &request.operation {
                Operation::Put { key, value, .. } => key.bytes().len() + value.len(),
                _ => 0,
            },
            ReplicaRequest::Read { key, .. } | ReplicaRequest::Digest { key, .. } => key.bytes().len(),
            _ => 0,
        },
        Message::Response { response, .. } => match response {
            ReplicaResponse::Record { record: Some(record), .. } => record.value_bytes(),
            ReplicaResponse::Noted(Claim::Write { key, version }) => key.bytes().len() + value(version),
            ReplicaResponse::Pulled(pulled) => pulled.items.iter().map(pulled_bytes).sum(),
            ReplicaResponse::Outcome(Ok(Response::Read(Some(read)))) => read.value.len(),
            _ => 0,
        },
        Message::Gossip(_) => 0,
    }
}

fn value(version: &Version) -> usize {
    match &version.content {
        Content::Value(value) => value.len(),
        Content::Tombstone => 0,
    }
}

fn pulled_bytes(item: &PulledItem) -> usize {
    match item {
        PulledItem::Record { key, record, .. } => {
            64 + key.bytes().len() + record.as_ref().map_or(0, Record::value_bytes)
        }
        PulledItem::Truncation { .. } => 32,
    }
}

fn request_kind(request: &ReplicaRequest) -> u8 {
    match request {
        ReplicaRequest::Apply { .. } => APPLY,
        ReplicaRequest::Truncate { .. } => TRUNCATE,
        ReplicaRequest::Read { .. } => READ,
        ReplicaRequest::Digest { .. } => DIGEST,
        ReplicaRequest::Scan { .. } => SCAN,
        ReplicaRequest::Confirm { .. } => CONFIRM,
        ReplicaRequest::Statistics => STATISTICS,
        ReplicaRequest::Forward { .. } => FORWARD,
        ReplicaRequest::FetchMap => FETCH_MAP,
        ReplicaRequest::Meet { .. } => MEET,
        ReplicaRequest::Fence { .. } => FENCE,
        ReplicaRequest::Coverage { .. } => COVERAGE,
        ReplicaRequest::Pull { .. } => PULL,
        ReplicaRequest::Claim { .. } => CLAIM,
        ReplicaRequest::History { .. } => HISTORY,
    }
}

fn put<T: Serialize>(out: &mut Vec<u8>, value: &T) {
    let taken = std::mem::take(out);
    *out = postcard::to_extend(value, taken).expect("our own types serialize into memory");
}

/// The message in these bytes (a frame without its length).
///
/// # Errors
/// [`DecodeError`] if they are anything else, trailing bytes included.
pub fn decode(frame: &[u8]) -> Result<Envelope, DecodeError> {
    let Some((header, body)) = frame.split_at_checked(HEADER_BYTES) else {
        return Err(DecodeError::Short(frame.len()));
    };
    let kind = header[0];
    let word = |at: usize| u64::from_le_bytes(header[at..at + 8].try_into().expect("eight bytes"));
    let (id, epoch, clock) = (RequestId(word(1)), Epoch(word(9)), Timestamp(word(17)));
    let message = match kind {
        RESPONSE => Message::Response { id, response: take(kind, body)? },
        REQUESTS..RESPONSE => Message::Request { id, request: decode_request(kind, id, body)? },
        GOSSIP..REQUESTS => match Gossip::take(kind, body) {
            Some(taken) => Message::Gossip(taken.map_err(|reason| DecodeError::Malformed { kind, reason })?),
            None => return Err(DecodeError::UnknownGossip(kind)),
        },
        _ => return Err(DecodeError::UnknownKind(kind)),
    };
    Ok(Envelope { epoch, clock, message })
}

fn decode_request(kind: u8, id: RequestId, body: &[u8]) -> Result<ReplicaRequest, DecodeError> {
    Ok(match kind {
        APPLY => take(kind, body).map(|(key, record)| ReplicaRequest::Apply { key, record })?,
        TRUNCATE => take(kind, body).map(|(partition, namespace, stamp)| ReplicaRequest::Truncate {
            partition,
            namespace,
            stamp,
        })?,
        READ => take(kind, body).map(|(key, after)| ReplicaRequest::Read { key, after })?,
        DIGEST => take(kind, body).map(|(key, after)| ReplicaRequest::Digest { key, after })?,
        MEET => take(kind, body).map(|(store, commit)| ReplicaRequest::Meet { store, commit })?,
        FENCE => ReplicaRequest::Fence { remembered: take(kind, body)? },
        COVERAGE => {
            let (commit, changed) = take::<(CommitNumber, BoundedCoverage)>(kind, body)?;
            ReplicaRequest::Coverage { commit, changed: changed.0 }
        }
        PULL => take(kind, body).map(|(partition, wanted)| ReplicaRequest::Pull { partition, wanted })?,
        CLAIM => take(kind, body).map(|(partition, op, claim, until)| ReplicaRequest::Claim {
            partition,
            op,
            claim,
            until,
        })?,
        HISTORY => ReplicaRequest::History { key: take(kind, body)? },
        CONFIRM => take(kind, body).map(|(key, stamp)| ReplicaRequest::Confirm { key, stamp })?,
        SCAN => take(kind, body).map(|(partition, namespace, from, limit)| ReplicaRequest::Scan {
            partition,
            namespace,
            from,
            limit,
        })?,
        STATISTICS => take::<()>(kind, body).map(|()| ReplicaRequest::Statistics)?,
        FORWARD => take(kind, body).map(|(request, remaining)| ReplicaRequest::Forward { request, remaining })?,
        FETCH_MAP => take::<()>(kind, body).map(|()| ReplicaRequest::FetchMap)?,
        _ => return Err(DecodeError::UnknownRequest { kind, id }),
    })
}

/// As many as there may be partitions, with no room made for more than came.
struct BoundedCoverage(Vec<Coverage>);

impl<'de> Deserialize<'de> for BoundedCoverage {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<BoundedCoverage, D::Error> {
        bounded_list::<_, _, { limits::MAX_PARTITIONS as usize }>(deserializer).map(BoundedCoverage)
    }
}

fn take<'a, T: Deserialize<'a>>(kind: u8, body: &'a [u8]) -> Result<T, DecodeError> {
    let malformed = |reason: String| DecodeError::Malformed { kind, reason };
    match postcard::take_from_bytes(body) {
        Ok((value, [])) => Ok(value),
        Ok((_, rest)) => Err(malformed(format!("{} trailing bytes", rest.len()))),
        Err(error) => Err(malformed(error.to_string())),
    }
}

#[cfg(test)]
#[path = "message_tests.rs"]
mod tests;
