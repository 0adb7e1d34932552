//! Records, and the pieces of values that are too long for one.

use std::borrow::Cow;

use crate::types::{
    CausalContext, Content, Dot, Key, NamespaceId, Partition, Record, Siblings, Stamp, Stamped, Summary, Timestamp,
    Token, Version, WallTime, limits,
};

use super::{Fields, StorageError, Tree, begin, put_dot, put_stamp, put_varint, seal, unseal};

/// Keys up to this length are stored as they are.
pub(in super::super) const PLAIN_KEY_BYTES: usize = 2 * 1024;
/// How long the digest of a long key is.
pub(in super::super) const DIGEST_BYTES: usize = 32;
/// How long partition, token and namespace are.
pub(in super::super) const RECORD_PREFIX_BYTES: usize = 12;
/// Bytes of values that lie in one record with siblings, at most.
const SIBLINGS_INLINE_BYTES: usize = 32 * 1024;
/// How long a version without its value is, at most, and a dot of the context.
const HEAD_BYTES: usize = 48;
const DOT_BYTES: usize = 25;
/// sled splits an index page above 256 items; merges may leave it somewhat above.
const SLED_INDEX_ITEMS: usize = 512;

const _: () = {
    assert!(SLED_INDEX_ITEMS * (RECORD_PREFIX_BYTES + PLAIN_KEY_BYTES + 256) < limits::SLED_SEGMENT_BYTES / 4);
    // A leaf of records that hold the longest keys, or values of the longest inline length.
    assert!(
        2 * limits::SLED_LEAF_ITEMS * (limits::VALUE_CHUNK_BYTES + PLAIN_KEY_BYTES + 512)
            < limits::SLED_SEGMENT_BYTES / 4
    );
    // A leaf of records with as many siblings as there may be, written by as many actors.
    assert!(
        limits::SLED_LEAF_ITEMS
            * (SIBLINGS_INLINE_BYTES
                + HEAD_BYTES * limits::RECORD_VERSIONS
                + DOT_BYTES * limits::CONTEXT_ACTORS
                + limits::MAX_KEY_BYTES
                + PLAIN_KEY_BYTES)
            < limits::SLED_SEGMENT_BYTES / 4
    );
    assert!(limits::MAX_KEY_BYTES <= limits::VALUE_CHUNK_BYTES);
};

const FLAG_EXPIRES: u8 = 1;
const FLAG_LONG_KEY: u8 = 2;
const FLAG_INLINE: u8 = 4;
const FLAG_CHUNKED: u8 = 8;
const FLAG_SIBLINGS: u8 = 16;
const ALL_FLAGS: u8 = 31;

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
pub(in super::super) struct StoredRecord<'a> {
    /// The whole key, if the record's key does not hold it.
    pub(in super::super) long_key: Option<&'a [u8]>,
    pub(in super::super) record: Record<Cell<'a>>,
}

/// A version, as it is stored.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in super::super) struct Cell<'a> {
    pub(in super::super) stamp: Stamp,
    pub(in super::super) expires_at: Option<WallTime>,
    pub(in super::super) body: Body<'a>,
}

/// The value of a version, or where it is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in super::super) enum Body<'a> {
    Tombstone,
    Inline(Cow<'a, [u8]>),
    /// In pieces, in the tree of chunks; this many bytes in all.
    Chunked(usize),
}

impl Stamped for Cell<'_> {
    fn stamp(&self) -> Stamp {
        self.stamp
    }
}

impl<'a> Cell<'a> {
    /// A version as it was given, its value inline.
    pub(in super::super) fn of(version: &'a Version) -> Cell<'a> {
        let body = match &version.content {
            Content::Value(value) => Body::Inline(Cow::Borrowed(value)),
            Content::Tombstone => Body::Tombstone,
        };
        Cell { stamp: version.stamp, expires_at: version.expires_at, body }
    }

    pub(in super::super) fn of_truncation(stamp: Stamp) -> Cell<'a> {
        Cell { stamp, expires_at: Some(WallTime(0)), body: Body::Tombstone }
    }

    pub(in super::super) fn is_value(&self) -> bool {
        self.body != Body::Tombstone
    }

    /// The length of a value that lies in chunks.
    pub(in super::super) fn chunked(&self) -> Option<usize> {
        if let Body::Chunked(bytes) = self.body { Some(bytes) } else { None }
    }

    pub(in super::super) fn summary(&self) -> Summary {
        let value_bytes = match &self.body {
            Body::Tombstone => None,
            Body::Inline(value) => Some(value.len()),
            Body::Chunked(length) => Some(*length),
        };
        let value_bytes = value_bytes.map(|bytes| u32::try_from(bytes).expect("values are far below 4 GiB"));
        Summary { stamp: self.stamp, expires_at: self.expires_at, value_bytes }
    }

    /// The same with bytes of its own.
    pub(in super::super) fn into_owned(self) -> Cell<'static> {
        let body = match self.body {
            Body::Tombstone => Body::Tombstone,
            Body::Inline(value) => Body::Inline(Cow::Owned(value.into_owned())),
            Body::Chunked(bytes) => Body::Chunked(bytes),
        };
        Cell { stamp: self.stamp, expires_at: self.expires_at, body }
    }
}

/// A record of other versions, one for one.
pub(in super::super) fn map_record<V: Stamped, W: Stamped>(record: Record<V>, map: impl FnMut(V) -> W) -> Record<W> {
    let mut map = map;
    match record {
        Record::Last(version) => Record::Last(map(version)),
        Record::Siblings(siblings) => {
            let (versions, context) = siblings.into_parts();
            Record::Siblings(Siblings::new(versions.into_iter().map(map).collect(), context))
        }
    }
}

/// Above which length the values of a record lie in chunks. Siblings share the room, so
/// that a leaf of records with very many of them stays in sled's log.
pub(in super::super) fn inline_limit<V: Stamped>(key: &[u8], record: &Record<V>) -> usize {
    let key_bytes = if is_long(key) { key.len() } else { 0 };
    match record {
        Record::Last(_) => limits::VALUE_CHUNK_BYTES - key_bytes,
        Record::Siblings(siblings) => SIBLINGS_INLINE_BYTES / siblings.versions().len().max(1),
    }
}

/// The client's key, if a record's key does not hold it.
pub(in super::super) fn long_key(key: &[u8]) -> Option<&[u8]> {
    is_long(key).then_some(key)
}

/// Writes a record to lie under `record_key`; the pieces of chunked values are not part of it.
pub(in super::super) fn encode_record(
    out: &mut Vec<u8>,
    record_key: &[u8],
    long_key: Option<&[u8]>,
    record: &Record<Cell<'_>>,
) {
    begin(out);
    let long = if long_key.is_some() { FLAG_LONG_KEY } else { 0 };
    let put_long_key = |out: &mut Vec<u8>| {
        if let Some(key) = long_key {
            put_varint(out, key.len() as u64);
            out.extend_from_slice(key);
        }
    };
    match record {
        Record::Last(cell) => {
            out.push(long | flags(cell));
            put_head(out, cell);
            put_long_key(out);
            match &cell.body {
                Body::Tombstone => {}
                Body::Inline(value) => out.extend_from_slice(value),
                Body::Chunked(bytes) => put_varint(out, *bytes as u64),
            }
        }
        Record::Siblings(siblings) => {
            out.push(long | FLAG_SIBLINGS);
            put_long_key(out);
            out.extend_from_slice(&siblings.context().newest().0.to_be_bytes());
            let context: Vec<Dot> = siblings.context().entries().collect();
            put_varint(out, context.len() as u64);
            context.iter().for_each(|dot| put_dot(out, dot));
            for cell in siblings.versions() {
                out.push(flags(cell));
                put_head(out, cell);
                match &cell.body {
                    Body::Tombstone => {}
                    Body::Inline(value) => {
                        put_varint(out, value.len() as u64);
                        out.extend_from_slice(value);
                    }
                    Body::Chunked(bytes) => put_varint(out, *bytes as u64),
                }
            }
        }
    }
    seal(Tree::Records, record_key, &[], out);
}

fn flags(cell: &Cell<'_>) -> u8 {
    let expires = if cell.expires_at.is_some() { FLAG_EXPIRES } else { 0 };
    expires
        | match cell.body {
            Body::Tombstone => 0,
            Body::Inline(_) => FLAG_INLINE,
            Body::Chunked(_) => FLAG_CHUNKED,
        }
}

fn put_head(out: &mut Vec<u8>, cell: &Cell<'_>) {
    put_stamp(out, &cell.stamp);
    if let Some(at) = cell.expires_at {
        put_varint(out, at.0);
    }
}

impl<'a> StoredRecord<'a> {
    pub(in super::super) fn decode(record_key: &[u8], stored: &'a [u8]) -> Result<StoredRecord<'a>, StorageError> {
        let fields = unseal(Tree::Records, record_key, &[], stored)?;
        StoredRecord::fields(fields).ok_or_else(|| Tree::Records.corrupt(record_key, "not a record"))
    }

    fn fields(mut fields: Fields<'a>) -> Option<StoredRecord<'a>> {
        let flags = fields.u8()?;
        if flags & !ALL_FLAGS != 0 {
            return None;
        }
        if flags & FLAG_SIBLINGS != 0 {
            let long_key = long_key_field(&mut fields, flags)?;
            let record = Record::Siblings(siblings_field(&mut fields, flags)?);
            return Some(StoredRecord { long_key, record });
        }
        let (stamp, expires_at) = head_field(&mut fields, flags)?;
        let long_key = long_key_field(&mut fields, flags)?;
        let body = match flags & (FLAG_INLINE | FLAG_CHUNKED) {
            0 => Body::Tombstone,
            FLAG_INLINE => Body::Inline(Cow::Borrowed(std::mem::take(&mut fields.0))),
            FLAG_CHUNKED => Body::Chunked(value_bytes_field(&mut fields)?),
            _ => return None,
        };
        fields.end()?;
        Some(StoredRecord { long_key, record: Record::Last(Cell { stamp, expires_at, body }) })
    }
}

fn head_field(fields: &mut Fields<'_>, flags: u8) -> Option<(Stamp, Option<WallTime>)> {
    let stamp = fields.stamp()?;
    let expires_at = if flags & FLAG_EXPIRES != 0 { Some(WallTime(fields.varint()?)) } else { None };
    Some((stamp, expires_at))
}

fn long_key_field<'a>(fields: &mut Fields<'a>, flags: u8) -> Option<Option<&'a [u8]>> {
    if flags & FLAG_LONG_KEY == 0 {
        return Some(None);
    }
    let length = usize::try_from(fields.varint()?).ok()?;
    Some(Some(fields.take(length)?))
}

fn value_bytes_field(fields: &mut Fields<'_>) -> Option<usize> {
    let length = usize::try_from(fields.varint()?).ok()?;
    (length <= limits::MAX_VALUE_BYTES).then_some(length)
}

/// The context, then versions to the end: each takes room in the stored bytes, which
/// bounds their number.
fn siblings_field<'a>(fields: &mut Fields<'a>, flags: u8) -> Option<Siblings<Cell<'a>>> {
    if flags & !(FLAG_SIBLINGS | FLAG_LONG_KEY) != 0 {
        return None;
    }
    let mut context = CausalContext::default();
    context.raise(Timestamp(fields.u64()?));
    for _ in 0..fields.varint()? {
        context.insert(fields.dot()?);
    }
    let mut versions: Vec<Cell<'a>> = Vec::new();
    while !fields.0.is_empty() {
        let flags = fields.u8()?;
        if flags & !(FLAG_EXPIRES | FLAG_INLINE | FLAG_CHUNKED) != 0 {
            return None;
        }
        let (stamp, expires_at) = head_field(fields, flags)?;
        let in_order = versions.last().is_none_or(|last| last.stamp.dot < stamp.dot);
        if !in_order || !context.covers(stamp.dot) {
            return None;
        }
        let body = match flags & (FLAG_INLINE | FLAG_CHUNKED) {
            0 => Body::Tombstone,
            FLAG_INLINE => {
                let length = value_bytes_field(fields)?;
                Body::Inline(Cow::Borrowed(fields.take(length)?))
            }
            FLAG_CHUNKED => Body::Chunked(value_bytes_field(fields)?),
            _ => return None,
        };
        versions.push(Cell { stamp, expires_at, body });
    }
    Some(Siblings::new(versions, context))
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
