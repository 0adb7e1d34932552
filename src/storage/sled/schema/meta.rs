//! What the store notes of itself.

use crate::types::{
    CommitNumber, Incarnation, NamespaceId, NodeId, Partition, PartitionCount, PeerMemory, Stamp, StoreId, Timestamp,
    limits,
};

use super::{Fields, RecordKeyParts, StorageError, Tree, begin, put_stamp, put_varint, seal, unseal, unseal_any};

const SCHEMA_VERSION: u32 = 2;

/// Under which key of `meta` the format lies.
pub(in super::super) const FORMAT_KEY: &[u8] = b"format";
/// Under which key of `meta` the last group's entry lies.
pub(in super::super) const COMMIT_KEY: &[u8] = b"commit";
/// Under which key of `meta` the last change of chunks lies.
pub(in super::super) const UNFINISHED_KEY: &[u8] = b"unfinished";
/// Under which key of `meta` the self-test writes.
pub(in super::super) const PROBE_KEY: &[u8] = b"probe";
/// With what the keys of truncations in `meta` begin.
pub(in super::super) const TRUNCATION_PREFIX: &[u8] = b"t\0";

/// With what the keys of peers in `meta` begin.
pub(in super::super) const PEER_PREFIX: &[u8] = b"p\0";

/// Writes which schema this is, for how many partitions, and the store's name.
pub(in super::super) fn encode_format(out: &mut Vec<u8>, partitions: PartitionCount, store: StoreId) {
    begin(out);
    out.extend_from_slice(&SCHEMA_VERSION.to_be_bytes());
    out.extend_from_slice(&partitions.get().to_be_bytes());
    out.extend_from_slice(&store.0.to_be_bytes());
    seal(Tree::Meta, FORMAT_KEY, &[], out);
}

/// For how many partitions the store was made and its name, or in words why it cannot be used.
pub(in super::super) fn decode_format(
    stored: &[u8],
) -> Result<Result<(PartitionCount, StoreId), String>, StorageError> {
    // Of whichever schema: the number comes before all that may differ.
    let mut fields = unseal_any(Tree::Meta, FORMAT_KEY, &[], stored)?;
    let corrupt = || Tree::Meta.corrupt(FORMAT_KEY, "not a format");
    let version = fields.u32().ok_or_else(corrupt)?;
    if version != SCHEMA_VERSION {
        return Ok(Err(format!("the store has format {version}, this version of dogsled reads {SCHEMA_VERSION}")));
    }
    let partitions = fields.u32().and_then(PartitionCount::new).ok_or_else(corrupt)?;
    let store = fields.array().map(u128::from_be_bytes).map(StoreId).ok_or_else(corrupt)?;
    fields.end().ok_or_else(corrupt)?;
    Ok(Ok((partitions, store)))
}

/// What is written last in every group.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(in super::super) struct CommitEntry {
    pub(in super::super) commit: CommitNumber,
    pub(in super::super) clock: Timestamp,
    /// About how many live keys there were.
    pub(in super::super) live_keys: u64,
}

impl CommitEntry {
    pub(in super::super) fn encode(&self, out: &mut Vec<u8>) {
        begin(out);
        for number in [self.commit.0, self.clock.0, self.live_keys] {
            out.extend_from_slice(&number.to_be_bytes());
        }
        seal(Tree::Meta, COMMIT_KEY, &[], out);
    }

    pub(in super::super) fn decode(stored: &[u8]) -> Result<CommitEntry, StorageError> {
        let mut fields = unseal(Tree::Meta, COMMIT_KEY, &[], stored)?;
        let mut entry = || {
            let (commit, clock, live_keys) = (fields.u64()?, fields.u64()?, fields.u64()?);
            fields.end()?;
            Some(CommitEntry { commit: CommitNumber(commit), clock: Timestamp(clock), live_keys })
        };
        entry().ok_or_else(|| Tree::Meta.corrupt(COMMIT_KEY, "not a commit entry"))
    }
}

/// The key of a truncation in `meta`.
pub(in super::super) fn truncation_key(partition: Partition, namespace: NamespaceId) -> [u8; 6] {
    let [p0, p1] = partition.0.to_be_bytes();
    let [n0, n1] = namespace.0.to_be_bytes();
    [TRUNCATION_PREFIX[0], TRUNCATION_PREFIX[1], p0, p1, n0, n1]
}

/// Writes a truncation.
pub(in super::super) fn encode_truncation(out: &mut Vec<u8>, key: &[u8], stamp: &Stamp) {
    begin(out);
    put_stamp(out, stamp);
    seal(Tree::Meta, key, &[], out);
}

/// What is truncated, and up to where.
pub(in super::super) fn decode_truncation(
    key: &[u8],
    stored: &[u8],
) -> Result<(Partition, NamespaceId, Stamp), StorageError> {
    let mut fields = unseal(Tree::Meta, key, &[], stored)?;
    let mut truncation = || {
        let mut place = Fields(key.strip_prefix(TRUNCATION_PREFIX)?);
        let (partition, namespace) = (Partition(place.u16()?), NamespaceId(place.u16()?));
        place.end()?;
        let stamp = fields.stamp()?;
        fields.end()?;
        Some((partition, namespace, stamp))
    };
    truncation().ok_or_else(|| Tree::Meta.corrupt(key, "not a truncation"))
}

/// The key of a peer in `meta`.
pub(in super::super) fn peer_key(node: NodeId) -> [u8; 6] {
    let [n0, n1, n2, n3] = node.number().to_be_bytes();
    [PEER_PREFIX[0], PEER_PREFIX[1], n0, n1, n2, n3]
}

/// Writes what is remembered of a peer.
pub(in super::super) fn encode_peer(out: &mut Vec<u8>, key: &[u8], memory: &PeerMemory) {
    begin(out);
    out.extend_from_slice(&memory.incarnation.0.to_be_bytes());
    out.extend_from_slice(&memory.store.0.to_be_bytes());
    out.extend_from_slice(&memory.commit.0.to_be_bytes());
    seal(Tree::Meta, key, &[], out);
}

/// Which peer, and what is remembered of it.
pub(in super::super) fn decode_peer(key: &[u8], stored: &[u8]) -> Result<(NodeId, PeerMemory), StorageError> {
    let mut fields = unseal(Tree::Meta, key, &[], stored)?;
    let mut peer = || {
        let mut name = Fields(key.strip_prefix(PEER_PREFIX)?);
        let node = NodeId::new(name.u32()?)?;
        name.end()?;
        let incarnation = Incarnation(fields.u64()?);
        let store = StoreId(fields.array().map(u128::from_be_bytes)?);
        let commit = CommitNumber(fields.u64()?);
        fields.end()?;
        Some((node, PeerMemory { incarnation, store, commit }))
    };
    peer().ok_or_else(|| Tree::Meta.corrupt(key, "not a peer"))
}

/// A change of chunks that a crash may have cut in the middle: sled keeps a prefix of
/// the operations, so only the last one can be unfinished.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in super::super) struct Unfinished {
    pub(in super::super) record_key: Vec<u8>,
    /// Versions whose chunks are there or not, with their values' lengths: those that
    /// the record holds in chunks keep them, the others lose them.
    pub(in super::super) versions: Vec<(Stamp, usize)>,
}

impl Unfinished {
    pub(in super::super) fn encode(&self, out: &mut Vec<u8>) {
        begin(out);
        put_varint(out, self.record_key.len() as u64);
        out.extend_from_slice(&self.record_key);
        for (stamp, length) in &self.versions {
            put_stamp(out, stamp);
            put_varint(out, *length as u64);
        }
        seal(Tree::Meta, UNFINISHED_KEY, &[], out);
    }

    pub(in super::super) fn decode(stored: &[u8]) -> Result<Unfinished, StorageError> {
        let mut fields = unseal(Tree::Meta, UNFINISHED_KEY, &[], stored)?;
        let mut unfinished = || {
            let length = usize::try_from(fields.varint()?).ok()?;
            let record_key = fields.take(length)?.to_vec();
            RecordKeyParts::decode(&record_key).ok()?;
            let mut versions = Vec::new();
            while !fields.0.is_empty() {
                let stamp = fields.stamp()?;
                let length = usize::try_from(fields.varint()?).ok()?;
                versions.push((stamp, if length <= limits::MAX_VALUE_BYTES { length } else { return None }));
            }
            Some(Unfinished { record_key, versions })
        };
        unfinished().ok_or_else(|| Tree::Meta.corrupt(UNFINISHED_KEY, "not a change of chunks"))
    }
}

/// Writes the self-test's mark.
pub(in super::super) fn encode_probe(out: &mut Vec<u8>, mark: &[u8]) {
    begin(out);
    out.extend_from_slice(mark);
    seal(Tree::Meta, PROBE_KEY, &[], out);
}
