//! What was seen of a partition when its oldest log entries were let go of.
//!
//! The counters of each actor lie apart, and the horizon too: counters only grow, so a
//! checkpoint that a crash has cut in the middle says nothing wrong, and an actor that
//! is gone for ever is written no more.

use crate::types::{Actor, Counter, Counters, Incarnation, NodeId, Partition, Timestamp, limits};

use super::{Fields, StorageError, Tree, begin, put_varint, seal, unseal};

/// With what the keys of an actor's counters in `meta` begin.
pub(in super::super) const COUNTERS_PREFIX: &[u8] = b"v\0";
/// With what the keys of horizons in `meta` begin.
pub(in super::super) const HORIZON_PREFIX: &[u8] = b"h\0";

const _: () = {
    // A leaf of them, each number as long as can be.
    assert!(2 * limits::SLED_LEAF_ITEMS * limits::CHECKPOINT_RANGES * 20 < limits::SLED_SEGMENT_BYTES / 4);
};

/// The key of an actor's counters in a partition.
pub(in super::super) fn counters_key(partition: Partition, actor: Actor) -> [u8; 16] {
    let mut key = [0; 16];
    key[..2].copy_from_slice(COUNTERS_PREFIX);
    key[2..4].copy_from_slice(&partition.0.to_be_bytes());
    key[4..8].copy_from_slice(&actor.node.number().to_be_bytes());
    key[8..].copy_from_slice(&actor.incarnation.0.to_be_bytes());
    key
}

/// Writes an actor's counters.
pub(in super::super) fn encode_counters(out: &mut Vec<u8>, key: &[u8], counters: &Counters) {
    begin(out);
    let mut end = 0;
    for (from, to) in counters.ranges() {
        put_varint(out, from - end);
        put_varint(out, to - from);
        end = *to;
    }
    seal(Tree::Meta, key, &[], out);
}

/// Whose counters, where, and their ranges.
pub(in super::super) type SeenCounters = (Partition, Actor, Vec<(Counter, Counter)>);

/// Reads an actor's counters.
pub(in super::super) fn decode_counters(key: &[u8], stored: &[u8]) -> Result<SeenCounters, StorageError> {
    let mut fields = unseal(Tree::Meta, key, &[], stored)?;
    let mut counters = || {
        let mut name = Fields(key.strip_prefix(COUNTERS_PREFIX)?);
        let (partition, node) = (Partition(name.u16()?), NodeId::new(name.u32()?)?);
        let actor = Actor { node, incarnation: Incarnation(name.u64()?) };
        name.end()?;
        let mut ranges = Vec::new();
        let mut end = 0u64;
        while !fields.0.is_empty() {
            let from = end.checked_add(fields.varint()?)?;
            let to = from.checked_add(fields.varint()?)?;
            if from <= end || to > u64::MAX - 2 || ranges.len() == limits::CHECKPOINT_RANGES {
                return None;
            }
            ranges.push((Counter(from), Counter(to)));
            end = to;
        }
        Some((partition, actor, ranges))
    };
    counters().ok_or_else(|| Tree::Meta.corrupt(key, "no counters"))
}

/// The key of a partition's horizon.
pub(in super::super) fn horizon_key(partition: Partition) -> [u8; 4] {
    let [p0, p1] = partition.0.to_be_bytes();
    [HORIZON_PREFIX[0], HORIZON_PREFIX[1], p0, p1]
}

/// Writes a partition's horizon.
pub(in super::super) fn encode_horizon(out: &mut Vec<u8>, key: &[u8], horizon: Timestamp) {
    begin(out);
    out.extend_from_slice(&horizon.0.to_be_bytes());
    seal(Tree::Meta, key, &[], out);
}

/// Reads a partition's horizon.
pub(in super::super) fn decode_horizon(key: &[u8], stored: &[u8]) -> Result<(Partition, Timestamp), StorageError> {
    let mut fields = unseal(Tree::Meta, key, &[], stored)?;
    let mut horizon = || {
        let mut name = Fields(key.strip_prefix(HORIZON_PREFIX)?);
        let partition = Partition(name.u16()?);
        name.end()?;
        let horizon = Timestamp(fields.u64()?);
        fields.end()?;
        Some((partition, horizon))
    };
    horizon().ok_or_else(|| Tree::Meta.corrupt(key, "not a horizon"))
}
