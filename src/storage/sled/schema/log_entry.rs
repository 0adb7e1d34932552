//! The log: one entry a group, which says for every dot what it changed.
//!
//! An entry lies in pieces of about 64 KiB, nearly always in one; all pieces are written
//! before any record of the group. In a piece, a dot names its actor by number, its
//! timestamp by the distance from the one before, and a key that is the one before only
//! by a flag; so a mutation takes some 12 bytes and its key.

use bytes::Bytes;

use crate::types::{Actor, CommitNumber, Counter, Dot, NamespaceId, Partition, Stamp, Timestamp, Token, limits};

use super::{
    DIGEST_BYTES, Fields, PLAIN_KEY_BYTES, RECORD_PREFIX_BYTES, RecordKeyParts, StorageError, Tree, begin, put_actor,
    put_varint, seal, unseal,
};

const ITEM_TOMBSTONE: u8 = 1;
const ITEM_NAMESPACE: u8 = 2;
const ITEM_LONG_KEY: u8 = 4;
const ITEM_SAME_KEY: u8 = 8;
const ITEM_SAME_PARTITION: u8 = 16;
const ITEM_FLAGS: u8 = 31;
/// How long a mutation without its key is, at most.
const ITEM_BYTES: usize = 64;

const _: () = assert!(
    2 * limits::SLED_LEAF_ITEMS
        * (limits::COMMIT_GROUP_LOG_BYTES + 2 * ITEM_BYTES + RECORD_PREFIX_BYTES + PLAIN_KEY_BYTES + DIGEST_BYTES)
        < limits::SLED_SEGMENT_BYTES / 4
);

/// One mutation in the log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in super::super) struct LogItem {
    pub(in super::super) partition: Partition,
    pub(in super::super) stamp: Stamp,
    pub(in super::super) tombstone: bool,
    pub(in super::super) target: Target,
}

/// What a mutation changed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in super::super) enum Target {
    /// The record under this key.
    Record(Bytes),
    /// A namespace was truncated.
    Namespace(NamespaceId),
}

/// The key of one piece of an entry.
pub(in super::super) fn log_key(commit: CommitNumber, piece: u16) -> [u8; 10] {
    let mut key = [0; 10];
    key[..8].copy_from_slice(&commit.0.to_be_bytes());
    key[8..].copy_from_slice(&piece.to_be_bytes());
    key
}

/// Which entry and which piece of it.
pub(in super::super) fn decode_log_key(key: &[u8]) -> Result<CommitNumber, StorageError> {
    let mut fields = Fields(key);
    let mut commit = || {
        let commit = CommitNumber(fields.u64()?);
        fields.u16()?;
        fields.end()?;
        Some(commit)
    };
    commit().ok_or_else(|| Tree::Log.corrupt(key, "not an entry's key"))
}

/// Writes an entry: its pieces, each with its key.
pub(in super::super) fn encode_log_entry(commit: CommitNumber, items: &[LogItem]) -> Vec<([u8; 10], Vec<u8>)> {
    let mut pieces = Vec::with_capacity(1);
    let mut rest = items;
    while !rest.is_empty() {
        let mut piece = Piece::default();
        let mut count = 0usize;
        for item in rest {
            if piece.body.len() + piece.actors.len() * ITEM_BYTES >= limits::COMMIT_GROUP_LOG_BYTES {
                break;
            }
            piece.put(item, count.checked_sub(1).map(|before| &rest[before]));
            count += 1;
        }
        let number = u16::try_from(pieces.len()).expect("an entry is far below 4 GiB");
        let key = log_key(commit, number);
        pieces.push((key, piece.seal(&key)));
        rest = &rest[count..];
    }
    pieces
}

#[derive(Default)]
struct Piece {
    actors: Vec<Actor>,
    body: Vec<u8>,
}

impl Piece {
    fn put(&mut self, item: &LogItem, before: Option<&LogItem>) {
        let out = &mut self.body;
        let flags_at = out.len();
        let mut flags = if item.tombstone { ITEM_TOMBSTONE } else { 0 };
        out.push(0);
        if before.is_some_and(|before| before.partition == item.partition) {
            flags |= ITEM_SAME_PARTITION;
        } else {
            put_varint(out, u64::from(item.partition.0));
        }
        let Stamp { timestamp, dot } = item.stamp;
        // The newest actors are the busiest.
        let place = self.actors.iter().rposition(|actor| *actor == dot.actor).unwrap_or_else(|| {
            self.actors.push(dot.actor);
            self.actors.len() - 1
        });
        put_varint(out, place as u64);
        put_varint(out, dot.counter.0);
        let base = before.map_or(Timestamp::default(), |before| before.stamp.timestamp);
        put_varint(out, zigzag(timestamp.0.wrapping_sub(base.0)));
        match &item.target {
            Target::Namespace(namespace) => {
                flags |= ITEM_NAMESPACE;
                put_varint(out, u64::from(namespace.0));
            }
            same if before.is_some_and(|before| before.target == *same) => flags |= ITEM_SAME_KEY,
            Target::Record(record_key) => {
                let parts = RecordKeyParts::decode(record_key).expect("it was made by this store");
                put_varint(out, u64::from(parts.namespace.0));
                if parts.rest.len() > PLAIN_KEY_BYTES {
                    flags |= ITEM_LONG_KEY;
                    // The token of a plain key follows from it.
                    out.extend_from_slice(&parts.token.0.to_be_bytes());
                } else {
                    put_varint(out, parts.rest.len() as u64);
                }
                out.extend_from_slice(parts.rest);
            }
        }
        self.body[flags_at] = flags;
    }

    fn seal(&self, key: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(16 + 12 * self.actors.len() + self.body.len());
        begin(&mut out);
        put_varint(&mut out, self.actors.len() as u64);
        self.actors.iter().for_each(|actor| put_actor(&mut out, *actor));
        out.extend_from_slice(&self.body);
        seal(Tree::Log, key, &[], &mut out);
        out
    }
}

fn zigzag(difference: u64) -> u64 {
    let signed = difference as i64;
    ((signed << 1) ^ (signed >> 63)) as u64
}

fn unzigzag(value: u64) -> u64 {
    (value >> 1) ^ (value & 1).wrapping_neg()
}

/// Goes through a piece of an entry without copying keys.
pub(in super::super) struct LogReader<'a> {
    key: Vec<u8>,
    actors: Vec<Actor>,
    fields: Fields<'a>,
    before: Option<LogItemRef<'a>>,
}

/// A mutation in the log, as it lies there.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct LogItemRef<'a> {
    pub(in super::super) partition: Partition,
    pub(in super::super) stamp: Stamp,
    pub(in super::super) tombstone: bool,
    target: TargetRef<'a>,
}

#[derive(Clone, Copy, Debug)]
enum TargetRef<'a> {
    Plain(NamespaceId, &'a [u8]),
    Long(NamespaceId, Token, &'a [u8]),
    Namespace(NamespaceId),
}

impl LogItemRef<'_> {
    /// What it changed.
    pub(in super::super) fn target(&self) -> Target {
        let record_key = |namespace: NamespaceId, token: Token, rest: &[u8]| {
            let mut key = Vec::with_capacity(RECORD_PREFIX_BYTES + rest.len());
            key.extend_from_slice(&self.partition.0.to_be_bytes());
            key.extend_from_slice(&token.0.to_be_bytes());
            key.extend_from_slice(&namespace.0.to_be_bytes());
            key.extend_from_slice(rest);
            Target::Record(key.into())
        };
        match self.target {
            TargetRef::Namespace(namespace) => Target::Namespace(namespace),
            TargetRef::Plain(namespace, rest) => record_key(namespace, Token::of_key(rest), rest),
            TargetRef::Long(namespace, token, rest) => record_key(namespace, token, rest),
        }
    }

    /// The same with bytes of its own.
    pub(in super::super) fn to_item(self) -> LogItem {
        LogItem { partition: self.partition, stamp: self.stamp, tombstone: self.tombstone, target: self.target() }
    }
}

impl<'a> LogReader<'a> {
    /// Begins to read a piece.
    pub(in super::super) fn new(key: &[u8], stored: &'a [u8]) -> Result<LogReader<'a>, StorageError> {
        let mut fields = unseal(Tree::Log, key, &[], stored)?;
        let mut actors = Vec::new();
        let mut table = || {
            // Each takes at least two bytes, so the stored bytes bound them.
            for _ in 0..fields.varint()? {
                actors.push(fields.actor()?);
            }
            Some(())
        };
        table().ok_or_else(|| Tree::Log.corrupt(key, "no actors"))?;
        Ok(LogReader { key: key.to_vec(), actors, fields, before: None })
    }

    fn item(&mut self) -> Option<LogItemRef<'a>> {
        let fields = &mut self.fields;
        let flags = fields.u8()?;
        if flags & !ITEM_FLAGS != 0 {
            return None;
        }
        let partition = match flags & ITEM_SAME_PARTITION {
            0 => Partition(u16::try_from(fields.varint()?).ok()?),
            _ => self.before?.partition,
        };
        let actor = *self.actors.get(usize::try_from(fields.varint()?).ok()?)?;
        let counter = Counter(fields.varint()?).0;
        if counter == 0 || counter > u64::MAX - 2 {
            return None;
        }
        let base = self.before.map_or(0, |before| before.stamp.timestamp.0);
        let timestamp = Timestamp(base.wrapping_add(unzigzag(fields.varint()?)));
        let target = match flags & (ITEM_NAMESPACE | ITEM_SAME_KEY | ITEM_LONG_KEY) {
            ITEM_NAMESPACE => TargetRef::Namespace(NamespaceId(u16::try_from(fields.varint()?).ok()?)),
            ITEM_SAME_KEY => self.before?.target,
            ITEM_LONG_KEY => {
                let namespace = NamespaceId(u16::try_from(fields.varint()?).ok()?);
                let token = Token(fields.u64()?);
                TargetRef::Long(namespace, token, fields.take(PLAIN_KEY_BYTES + DIGEST_BYTES)?)
            }
            0 => {
                let namespace = NamespaceId(u16::try_from(fields.varint()?).ok()?);
                let length = usize::try_from(fields.varint()?).ok()?;
                if length == 0 || length > PLAIN_KEY_BYTES {
                    return None;
                }
                TargetRef::Plain(namespace, fields.take(length)?)
            }
            _ => return None,
        };
        let stamp = Stamp { timestamp, dot: Dot { actor, counter: Counter(counter) } };
        let item = LogItemRef { partition, stamp, tombstone: flags & ITEM_TOMBSTONE != 0, target };
        self.before = Some(item);
        Some(item)
    }
}

impl<'a> Iterator for LogReader<'a> {
    type Item = Result<LogItemRef<'a>, StorageError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.fields.0.is_empty() {
            return None;
        }
        let item = self.item();
        if item.is_none() {
            // What follows cannot be read either.
            self.fields.0 = &[];
        }
        Some(item.ok_or_else(|| Tree::Log.corrupt(&self.key, "not a mutation")))
    }
}
