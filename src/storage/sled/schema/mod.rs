//! The bytes that are stored: keys and values of each tree, and their checksums.
//!
//! Invariant: every stored value begins with a CRC32C over its tree, the key it is
//! stored under and all its bytes; so a flipped bit, and a value that turns up under
//! another key, are noticed before a single field is believed.
//!
//! | tree | key | value, after checksum and format |
//! | --- | --- | --- |
//! | `records` | partition ‖ token ‖ namespace ‖ key | `lww`: flags, stamp, expiry; long key; value or its length |
//! | | | siblings: flags; long key; context; each version: flags, stamp, expiry, value or its length |
//! | `chunks` | partition ‖ token ‖ stamp ‖ index | a piece of a value |
//! | `log` | commit ‖ piece | actors; each mutation: flags, actor, counter, timestamp, what it changed |
//! | `expiries` | partition ‖ expiry ‖ a record's key | nothing |
//! | `claims` | `c` ‖ partition ‖ op-id ‖ piece | what the op-id stands for |
//! | | `u` ‖ partition ‖ until ‖ op-id | nothing |
//! | `meta` | `format`, `commit`, `unfinished`, `probe` | see the encoders |
//! | | `t` ‖ partition ‖ namespace | up to which stamp it was truncated |
//! | | `v` ‖ partition ‖ actor, `h` ‖ partition | checkpoint: counters that were seen; horizon |
//! | | `p` ‖ node | what is remembered of a peer |
//!
//! Keys above `PLAIN_KEY_BYTES` are stored by their beginning and SHA-256: up to 256
//! of them stand in one index page of sled's, and a page above 4 MiB would become a file
//! that nothing syncs (EVIDENCE, sled). For the same reason the key of a chunk does not
//! hold the record's key; its checksum does.

mod record;
mod log_entry;
mod claim;
mod checkpoint;
mod meta;

use crate::types::{Actor, Counter, Dot, Incarnation, NodeId, Stamp, Timestamp};

use super::super::StorageError;

pub(super) use checkpoint::*;
pub(super) use claim::*;
pub(super) use log_entry::*;
pub(super) use meta::*;
pub(super) use record::*;

const FORMAT: u8 = 2;

/// A tree, as checksums and messages name it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Tree {
    Records,
    Chunks,
    Log,
    Expiries,
    Claims,
    Meta,
}

impl Tree {
    pub(super) fn name(self) -> &'static str {
        match self {
            Tree::Records => "records",
            Tree::Chunks => "chunks",
            Tree::Log => "log",
            Tree::Expiries => "expiries",
            Tree::Claims => "claims",
            Tree::Meta => "meta",
        }
    }

    pub(super) fn corrupt(self, key: &[u8], what: &str) -> StorageError {
        let shown = &key[..key.len().min(64)];
        let dots = if shown.len() < key.len() { "…" } else { "" };
        StorageError::Corrupt { tree: self.name(), what: format!("{what} at key {}{dots}", shown.escape_ascii()) }
    }
}

/// Makes room for the checksum and writes the format.
fn begin(out: &mut Vec<u8>) {
    out.clear();
    out.extend_from_slice(&[0, 0, 0, 0, FORMAT]);
}

/// Fills in the checksum; `owner` is what else the value belongs to.
fn seal(tree: Tree, key: &[u8], owner: &[u8], out: &mut [u8]) {
    let checksum = checksum(tree, key, owner, &out[4..]);
    out[..4].copy_from_slice(&checksum.to_le_bytes());
}

fn checksum(tree: Tree, key: &[u8], owner: &[u8], bytes: &[u8]) -> u32 {
    let of_tree = crc32c::crc32c(tree.name().as_bytes());
    let of_key = crc32c::crc32c_append(of_tree, key);
    crc32c::crc32c_append(crc32c::crc32c_append(of_key, owner), bytes)
}

/// What follows checksum and format, once both are right.
fn unseal<'a>(tree: Tree, key: &[u8], owner: &[u8], stored: &'a [u8]) -> Result<Fields<'a>, StorageError> {
    match stored.get(4) {
        Some(&FORMAT) | None => unseal_any(tree, key, owner, stored),
        Some(_) => Err(tree.corrupt(key, "unknown format")),
    }
}

/// The same of whichever format.
fn unseal_any<'a>(tree: Tree, key: &[u8], owner: &[u8], stored: &'a [u8]) -> Result<Fields<'a>, StorageError> {
    let Some((expected, bytes)) = stored.split_first_chunk::<4>() else {
        return Err(tree.corrupt(key, "value cut off"));
    };
    if checksum(tree, key, owner, bytes) != u32::from_le_bytes(*expected) {
        return Err(tree.corrupt(key, "checksum mismatch"));
    }
    match bytes.split_first() {
        Some((_, rest)) => Ok(Fields(rest)),
        None => Err(tree.corrupt(key, "value cut off")),
    }
}

/// Reads fields off the front of bytes; none once they run out.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*taken)
    }

    fn u8(&mut self) -> Option<u8> {
        self.array().map(|[byte]| byte)
    }

    fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_be_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_be_bytes)
    }

    /// Seven bits a byte, the lowest first.
    fn varint(&mut self) -> Option<u64> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.u8()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                return None;
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    fn actor(&mut self) -> Option<Actor> {
        let node = NodeId::new(u32::try_from(self.varint()?).ok()?)?;
        Some(Actor { node, incarnation: Incarnation(self.varint()?) })
    }

    fn dot(&mut self) -> Option<Dot> {
        Some(Dot { actor: self.actor()?, counter: Counter(self.varint()?) })
    }

    fn stamp(&mut self) -> Option<Stamp> {
        let timestamp = Timestamp(self.u64()?);
        Some(Stamp { timestamp, dot: self.dot()? })
    }

    fn end(&self) -> Option<()> {
        self.0.is_empty().then_some(())
    }
}

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn put_stamp(out: &mut Vec<u8>, stamp: &Stamp) {
    out.extend_from_slice(&stamp.timestamp.0.to_be_bytes());
    put_dot(out, &stamp.dot);
}

fn put_dot(out: &mut Vec<u8>, dot: &Dot) {
    put_actor(out, dot.actor);
    put_varint(out, dot.counter.0);
}

fn put_actor(out: &mut Vec<u8>, actor: Actor) {
    put_varint(out, u64::from(actor.node.number()));
    put_varint(out, actor.incarnation.0);
}

#[cfg(test)]
#[path = "schema_tests.rs"]
mod tests;
