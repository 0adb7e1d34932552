//! What op-ids stand for, and when what is stored may be forgotten.
//!
//! Entries that only say "then" lie in the order of time and hold nothing but a checksum.

use bytes::Bytes;

use crate::types::{Claim, Content, Key, NamespaceId, OpId, Partition, Version, WallTime, limits};

use super::{Fields, StorageError, Tree, begin, put_stamp, put_varint, seal, unseal};

const CLAIM: u8 = b'c';
const UNTIL: u8 = b'u';
const CLAIM_FENCED: u8 = 0;
const CLAIM_WRITE: u8 = 1;
const CLAIM_EXPIRES: u8 = 2;
const CLAIM_VALUE: u8 = 4;
/// Pieces of a claim, at most: the longest key and the longest value fit.
const CLAIM_PIECES: usize = (limits::MAX_VALUE_BYTES + limits::MAX_KEY_BYTES) / limits::VALUE_CHUNK_BYTES + 2;

/// The key of one piece of a claim.
pub(in super::super) fn claim_key(partition: Partition, op: OpId, piece: u16) -> [u8; 21] {
    let mut key = [CLAIM; 21];
    key[1..3].copy_from_slice(&partition.0.to_be_bytes());
    key[3..19].copy_from_slice(&op.0);
    key[19..].copy_from_slice(&piece.to_be_bytes());
    key
}

/// The bytes of a claim; they are stored in pieces.
pub(in super::super) fn claim_bytes(claim: &Claim, until: WallTime) -> Vec<u8> {
    let mut out = until.0.to_be_bytes().to_vec();
    let Claim::Write { key, version } = claim else {
        out.push(CLAIM_FENCED);
        return out;
    };
    let expires = if version.expires_at.is_some() { CLAIM_EXPIRES } else { 0 };
    let value = if version.is_value() { CLAIM_VALUE } else { 0 };
    out.push(CLAIM_WRITE | expires | value);
    out.extend_from_slice(&key.namespace().0.to_be_bytes());
    put_varint(&mut out, key.bytes().len() as u64);
    out.extend_from_slice(key.bytes());
    put_stamp(&mut out, &version.stamp);
    if let Some(at) = version.expires_at {
        put_varint(&mut out, at.0);
    }
    if let Content::Value(value) = &version.content {
        out.extend_from_slice(value);
    }
    out
}

/// What an op-id stands for and until when, from all its pieces.
pub(in super::super) fn claim_from_bytes(claim_key: &[u8], bytes: &[u8]) -> Result<(Claim, WallTime), StorageError> {
    claim_fields(Fields(bytes)).ok_or_else(|| Tree::Claims.corrupt(claim_key, "not a claim"))
}

fn claim_fields(mut fields: Fields<'_>) -> Option<(Claim, WallTime)> {
    let until = WallTime(fields.u64()?);
    let flags = fields.u8()?;
    if flags == CLAIM_FENCED {
        fields.end()?;
        return Some((Claim::Fenced, until));
    }
    if flags & CLAIM_WRITE == 0 || flags > (CLAIM_WRITE | CLAIM_EXPIRES | CLAIM_VALUE) {
        return None;
    }
    let namespace = NamespaceId(fields.u16()?);
    let length = usize::try_from(fields.varint()?).ok()?;
    let key = Key::new(namespace, Bytes::copy_from_slice(fields.take(length)?)).ok()?;
    let stamp = fields.stamp()?;
    let expires_at = if flags & CLAIM_EXPIRES != 0 { Some(WallTime(fields.varint()?)) } else { None };
    let content = match flags & CLAIM_VALUE {
        0 => Content::Tombstone,
        _ => Content::Value(Bytes::copy_from_slice(std::mem::take(&mut fields.0))),
    };
    fields.end()?;
    Some((Claim::Write { key, version: Version { stamp, expires_at, content } }, until))
}

/// How many pieces a claim of so many bytes has.
pub(in super::super) fn claim_pieces(bytes: usize) -> u16 {
    u16::try_from(bytes.div_ceil(limits::VALUE_CHUNK_BYTES)).expect("a claim is a key and a value")
}

/// Writes one piece of a claim, which says how many there are.
pub(in super::super) fn encode_claim_piece(out: &mut Vec<u8>, key: &[u8], pieces: u16, piece: &[u8]) {
    begin(out);
    out.extend_from_slice(&pieces.to_be_bytes());
    out.extend_from_slice(piece);
    seal(Tree::Claims, key, &[], out);
}

/// How many pieces there are, and what is in this one.
pub(in super::super) fn decode_claim_piece<'a>(key: &[u8], stored: &'a [u8]) -> Result<(u16, &'a [u8]), StorageError> {
    let mut fields = unseal(Tree::Claims, key, &[], stored)?;
    let pieces = fields.u16().filter(|pieces| (1..=CLAIM_PIECES).contains(&usize::from(*pieces)));
    let pieces = pieces.ok_or_else(|| Tree::Claims.corrupt(key, "not a piece of a claim"))?;
    Ok((pieces, fields.0))
}

/// The key that says when a claim may be forgotten.
pub(in super::super) fn until_key(partition: Partition, until: WallTime, op: OpId) -> [u8; 27] {
    let mut key = [UNTIL; 27];
    key[1..3].copy_from_slice(&partition.0.to_be_bytes());
    key[3..11].copy_from_slice(&until.0.to_be_bytes());
    key[11..].copy_from_slice(&op.0);
    key
}

/// Until when, and which claim it is about.
pub(in super::super) fn decode_until(key: &[u8], stored: &[u8]) -> Result<(WallTime, OpId), StorageError> {
    unseal(Tree::Claims, key, &[], stored)?;
    let mut fields = Fields(key);
    let mut end = || {
        fields.take(3)?;
        let end = (WallTime(fields.u64()?), OpId(fields.array()?));
        fields.end()?;
        Some(end)
    };
    end().ok_or_else(|| Tree::Claims.corrupt(key, "not a claim's end"))
}

/// Writes an entry that says all in its key.
pub(in super::super) fn encode_mark(out: &mut Vec<u8>, tree: Tree, key: &[u8]) {
    begin(out);
    seal(tree, key, &[], out);
}

/// The key of an expiry.
pub(in super::super) fn expiry_key(partition: Partition, at: WallTime, record_key: &[u8]) -> Vec<u8> {
    let mut key = Vec::with_capacity(10 + record_key.len());
    key.extend_from_slice(&partition.0.to_be_bytes());
    key.extend_from_slice(&at.0.to_be_bytes());
    key.extend_from_slice(record_key);
    key
}

/// When what expires, from the key of an expiry.
pub(in super::super) fn decode_expiry<'a>(key: &'a [u8], stored: &[u8]) -> Result<(WallTime, &'a [u8]), StorageError> {
    unseal(Tree::Expiries, key, &[], stored)?;
    let mut fields = Fields(key);
    let mut expiry = || {
        fields.u16()?;
        Some((WallTime(fields.u64()?), fields.0))
    };
    expiry().ok_or_else(|| Tree::Expiries.corrupt(key, "not an expiry"))
}
