//! Records, and the pieces of values that are too long for one.

use crate::types::{Content, Key, NamespaceId, Partition, Stamp, Summary, Token, Version, WallTime, limits};

use super::{Fields, StorageError, Tree, begin, put_stamp, put_varint, seal, unseal};

/// Keys up to this length are stored as they are.
pub(in super::super) const PLAIN_KEY_BYTES: usize = 2 * 1024;
/// How long the digest of a long key is.
pub(super) const DIGEST_BYTES: usize = 32;
/// How long partition, token and namespace are.
pub(in super::super) const RECORD_PREFIX_BYTES: usize = 12;
/// sled splits an index page above 256 items; merges may leave it somewhat above.
const SLED_INDEX_ITEMS: usize = 512;

const _: () = {
    assert!(SLED_INDEX_ITEMS * (RECORD_PREFIX_BYTES + PLAIN_KEY_BYTES + 256) < limits::SLED_SEGMENT_BYTES / 4);
    // A leaf of records that hold the longest keys, or values of the longest inline length.
    assert!(
        2 * limits::SLED_LEAF_ITEMS * (limits::VALUE_CHUNK_BYTES + PLAIN_KEY_BYTES + 512)
            < limits::SLED_SEGMENT_BYTES / 4
    );
    assert!(limits::MAX_KEY_BYTES <= limits::VALUE_CHUNK_BYTES);
};

const FLAG_EXPIRES: u8 = 1;
const FLAG_LONG_KEY: u8 = 2;
const FLAG_INLINE: u8 = 4;
const FLAG_CHUNKED: u8 = 8;
const ALL_FLAGS: u8 = 15;

/// Writes the key of a record.
pub(in super::super) fn record_key(out: &mut Vec<u8>, partition: Partition, key: &Key) {
    out.clear();
    out.extend_from_slice(&partition.0.to_be_bytes());
    out.extend_from_slice(&key.token().0.to_be_bytes());
    out.extend_from_slice(&key.namespace().0.to_be_bytes());
    let bytes = key.bytes();
    if is_long(bytes) {
        // Longer than any plain key, so the two kinds cannot meet.
        out.extend_from_slice(&bytes[..PLAIN_KEY_BYTES]);
        out.extend_from_slice(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes).as_ref());
    } else {
        out.extend_from_slice(bytes);
    }
}

fn is_long(key: &[u8]) -> bool {
    key.len() > PLAIN_KEY_BYTES
}

/// The parts of a record's key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in super::super) struct RecordKeyParts<'a> {
    pub(in super::super) partition: Partition,
    pub(in super::super) token: Token,
    pub(in super::super) namespace: NamespaceId,
    /// The client's key, or the beginning of a long one and its digest.
    pub(in super::super) rest: &'a [u8],
}

impl<'a> RecordKeyParts<'a> {
    pub(in super::super) fn decode(record_key: &'a [u8]) -> Result<RecordKeyParts<'a>, StorageError> {
        let mut fields = Fields(record_key);
        let mut parts = || {
            let (partition, token, namespace) = (fields.u16()?, fields.u64()?, fields.u16()?);
            let rest = fields.0;
            let fits = !rest.is_empty() && (!is_long(rest) || rest.len() == PLAIN_KEY_BYTES + DIGEST_BYTES);
            fits.then_some(RecordKeyParts {
                partition: Partition(partition),
                token: Token(token),
                namespace: NamespaceId(namespace),
                rest,
            })
        };
        parts().ok_or_else(|| Tree::Records.corrupt(record_key, "not a record's key"))
    }
}

/// Where the records of a partition from a token on begin.
pub(in super::super) fn first_record_key(partition: Partition, from: Token) -> [u8; 10] {
    let mut key = [0; 10];
    key[..2].copy_from_slice(&partition.0.to_be_bytes());
    key[2..].copy_from_slice(&from.0.to_be_bytes());
    key
}

/// What lies under a record's key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in super::super) struct Record<'a> {
    pub(in super::super) stamp: Stamp,
    pub(in super::super) expires_at: Option<WallTime>,
    /// The whole key, if the record's key does not hold it.
    pub(in super::super) long_key: Option<&'a [u8]>,
    pub(in super::super) body: Body<'a>,
}

/// The value of a record, or where it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in super::super) enum Body<'a> {
    Tombstone,
    Inline(&'a [u8]),
    /// In pieces, in the tree of chunks; this many bytes in all.
    Chunked(usize),
}

/// Whether a value is too long to lie in the record itself.
pub(in super::super) fn is_chunked(key: &Key, value_bytes: usize) -> bool {
    let key_bytes = if is_long(key.bytes()) { key.bytes().len() } else { 0 };
    key_bytes + value_bytes > limits::VALUE_CHUNK_BYTES
}

/// Writes a record to lie under `record_key`; a chunked value's pieces are not part of it.
pub(in super::super) fn encode_record(out: &mut Vec<u8>, record_key: &[u8], key: &Key, version: &Version) {
    begin(out);
    let flags_at = out.len();
    let mut flags = 0;
    out.push(0);
    put_stamp(out, &version.stamp);
    if let Some(at) = version.expires_at {
        flags |= FLAG_EXPIRES;
        put_varint(out, at.0);
    }
    if is_long(key.bytes()) {
        flags |= FLAG_LONG_KEY;
        put_varint(out, key.bytes().len() as u64);
        out.extend_from_slice(key.bytes());
    }
    match &version.content {
        Content::Tombstone => {}
        Content::Value(value) if is_chunked(key, value.len()) => {
            flags |= FLAG_CHUNKED;
            put_varint(out, value.len() as u64);
        }
        Content::Value(value) => {
            flags |= FLAG_INLINE;
            out.extend_from_slice(value);
        }
    }
    out[flags_at] = flags;
    seal(Tree::Records, record_key, &[], out);
}

impl<'a> Record<'a> {
    pub(in super::super) fn decode(record_key: &[u8], stored: &'a [u8]) -> Result<Record<'a>, StorageError> {
        let fields = unseal(Tree::Records, record_key, &[], stored)?;
        Record::fields(fields).ok_or_else(|| Tree::Records.corrupt(record_key, "not a record"))
    }

    fn fields(mut fields: Fields<'a>) -> Option<Record<'a>> {
        let flags = fields.u8()?;
        if flags & !ALL_FLAGS != 0 {
            return None;
        }
        let stamp = fields.stamp()?;
        let expires_at = if flags & FLAG_EXPIRES != 0 { Some(WallTime(fields.varint()?)) } else { None };
        let long_key = if flags & FLAG_LONG_KEY != 0 {
            let length = usize::try_from(fields.varint()?).ok()?;
            Some(fields.take(length)?)
        } else {
            None
        };
        let body = match flags & (FLAG_INLINE | FLAG_CHUNKED) {
            0 => Body::Tombstone,
            FLAG_INLINE => Body::Inline(std::mem::take(&mut fields.0)),
            FLAG_CHUNKED => {
                let length = usize::try_from(fields.varint()?).ok()?;
                Body::Chunked(if length <= limits::MAX_VALUE_BYTES { length } else { return None })
            }
            _ => return None,
        };
        fields.end()?;
        Some(Record { stamp, expires_at, long_key, body })
    }

    pub(in super::super) fn summary(&self) -> Summary {
        let value_bytes = match self.body {
            Body::Tombstone => None,
            Body::Inline(value) => Some(value.len()),
            Body::Chunked(length) => Some(length),
        };
        let value_bytes = value_bytes.map(|bytes| u32::try_from(bytes).expect("values are far below 4 GiB"));
        Summary { stamp: self.stamp, expires_at: self.expires_at, value_bytes }
    }
}

/// How many chunks a value of this length is stored in.
pub(in super::super) fn chunk_count(value_bytes: usize) -> u32 {
    u32::try_from(value_bytes.div_ceil(limits::VALUE_CHUNK_BYTES)).expect("values are far below 4 GiB")
}

/// The key of a chunk: no two mutations share a stamp, so it needs no record's key.
pub(in super::super) fn chunk_key(record_key: &[u8], stamp: &Stamp, index: u32) -> [u8; 42] {
    let mut key = [0; 42];
    key[..10].copy_from_slice(&record_key[..10]);
    key[10..18].copy_from_slice(&stamp.timestamp.0.to_be_bytes());
    key[18..22].copy_from_slice(&stamp.dot.actor.node.number().to_be_bytes());
    key[22..30].copy_from_slice(&stamp.dot.actor.incarnation.0.to_be_bytes());
    key[30..38].copy_from_slice(&stamp.dot.counter.0.to_be_bytes());
    key[38..].copy_from_slice(&index.to_be_bytes());
    key
}

/// Writes a chunk of the record under `record_key`.
pub(in super::super) fn encode_chunk(out: &mut Vec<u8>, chunk_key: &[u8], record_key: &[u8], piece: &[u8]) {
    begin(out);
    out.extend_from_slice(piece);
    seal(Tree::Chunks, chunk_key, record_key, out);
}

/// The piece of the value.
pub(in super::super) fn decode_chunk<'a>(
    chunk_key: &[u8],
    record_key: &[u8],
    stored: &'a [u8],
) -> Result<&'a [u8], StorageError> {
    unseal(Tree::Chunks, chunk_key, record_key, stored).map(|fields| fields.0)
}
