//! What was asked, answered, issued and applied, as far as the checks need it.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::types::{CausalContext, Content, Dot, Expiry, Key, Moment, NamespaceId, NodeId, Partition, Stamp, Version};

use super::named::Named;
use super::operation::{Floors, Kind, Operation};
use super::siblings::SiblingKey;
use super::steps::Issuer;

/// What is checked. Each is one promise of DESIGN section 12.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Check {
    /// An acknowledged write is still there at the end.
    NothingLost,
    /// A read sees what was acknowledged before it began; a write wins over that.
    RealTimeOrder,
    /// What is acknowledged is on as many disks as is said.
    AcknowledgedIsDurable,
    /// What was refused was not applied; answers are of the right kind.
    RefusedIsNotApplied,
    /// Only what was written to a key is read from it, and nothing that has expired.
    NothingFromNowhere,
    /// What a client has seen in its session, or has written, it sees again.
    SessionsHold,
    /// Writes with one op-id are one write, and what is fenced is never applied.
    OpIdsAreOnce,
    /// Coordinators let no more concurrent values come into being than there may be.
    SiblingsAreBounded,
    /// No dot names two mutations, and only its actor issues it; the timestamps that a node
    /// gives do not go back.
    DotsAreUnique,
    /// What a disk covers it covers after a crash, and its records show it.
    CoverageIsDurable,
    /// The machine's own assertions.
    Invariants,
    /// Once the faults are over, every request succeeds, and nothing is left hanging.
    Liveness,
    /// In the end all replicas hold the same.
    Converged,
    /// In the end every tombstone that every replica has is let go of.
    Collected,
}

/// A promise was broken.
#[derive(Clone, Debug)]
pub struct Violation {
    /// Which.
    pub check: Check,
    /// How far into the simulation, in microseconds.
    pub at_us: u64,
    /// What was seen.
    pub what: String,
    pub(super) key: Option<usize>,
}

/// What became of a value that a client wrote.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Written {
    pub(super) refused: bool,
    pub(super) applied: bool,
}

/// One key.
#[derive(Debug)]
pub(super) struct KeyHistory {
    pub(super) key: Key,
    pub(super) floors: Floors,
    /// Every version that any node has sent out or appended.
    pub(super) issued: BTreeMap<Stamp, Version>,
    /// Every value that a client has written; no two writes share one.
    pub(super) written: BTreeMap<Bytes, Written>,
    /// The same under the rules for concurrent values, if the key keeps them.
    pub(super) siblings: Option<SiblingKey>,
    /// Up to where all of its namespace was deleted, for certain.
    pub(super) truncated: Option<Stamp>,
}

/// The whole run.
pub(super) struct History {
    pub(super) keys: Vec<KeyHistory>,
    /// Who took each dot; no key: a truncation.
    pub(super) dots: BTreeMap<(Partition, Dot), (Option<usize>, Version)>,
    /// The writes that carry an op-id.
    pub(super) named: Vec<Named>,
    /// Which of them a version was proposed for.
    pub(super) claimed: BTreeMap<Stamp, usize>,
    /// The timestamps that each node has given.
    pub(super) issuers: BTreeMap<NodeId, Issuer>,
    pub(super) violations: Vec<Violation>,
    /// What happened, for people; only kept when a run is repeated because it failed.
    log: Option<Vec<(Moment, Option<usize>, String)>>,
}

/// Lines of a log that are printed, at most.
const LOG_LINES: usize = 120;

impl History {
    pub(super) fn new(keys: Vec<Key>, with_log: bool) -> History {
        let keys = keys.into_iter().map(|key| KeyHistory {
            siblings: (key.namespace() != NamespaceId::DEFAULT).then(SiblingKey::default),
            key,
            floors: Floors::default(),
            issued: BTreeMap::new(),
            written: BTreeMap::new(),
            truncated: None,
        });
        History {
            keys: keys.collect(),
            dots: BTreeMap::new(),
            named: Vec::new(),
            claimed: BTreeMap::new(),
            issuers: BTreeMap::new(),
            violations: Vec::new(),
            log: with_log.then(Vec::new),
        }
    }

    pub(super) fn index_of(&self, key: &Key) -> Option<usize> {
        self.keys.iter().position(|known| known.key == *key)
    }

    /// Writes a line about a key, or about the whole, if anybody is going to read it.
    pub(super) fn note(&mut self, key: Option<usize>, now: Moment, line: impl FnOnce() -> String) {
        if let Some(log) = &mut self.log {
            log.push((now, key, line()));
        }
    }

    /// A promise was broken. The first time is kept for each promise: what follows is mostly
    /// a consequence.
    pub(super) fn violated(&mut self, check: Check, now: Moment, key: Option<usize>, what: String) {
        self.note(key, now, || format!("!!! {check:?}: {what}"));
        if self.violations.iter().all(|known| known.check != check) {
            self.violations.push(Violation { check, at_us: now.0, what, key });
        }
    }

    /// The log of the key of the first violation up to that, and a little more.
    pub(super) fn told(&self) -> String {
        let (Some(log), Some(first)) = (&self.log, self.violations.first()) else { return String::new() };
        let concerns = |key: &Option<usize>| key.is_none() || first.key.is_none() || *key == first.key;
        let lines: Vec<_> = log.iter().filter(|(at, key, _)| at.0 <= first.at_us && concerns(key)).collect();
        let left_out = lines.len().saturating_sub(LOG_LINES);
        let mut told = match left_out {
            0 => String::new(),
            left_out => format!("  … {left_out} lines before\n"),
        };
        for (at, _, line) in &lines[left_out..] {
            told += &format!("  {:>12.6} {line}\n", at.0 as f64 / 1e6);
        }
        told
    }
}

/// A version, briefly.
pub(super) fn brief(version: &Version) -> String {
    let content = match &version.content {
        Content::Value(value) => brief_value(value),
        Content::Tombstone => "tombstone".into(),
    };
    let until = version.expires_at.map_or(String::new(), |at| format!(" until {}", at.0));
    format!("{content}{until} at {}", brief_stamp(version.stamp))
}

/// A value without what only makes it long.
pub(super) fn brief_value(value: &[u8]) -> String {
    let end = value.iter().position(|byte| *byte == b'.').unwrap_or(value.len());
    String::from_utf8_lossy(&value[..end]).into_owned()
}

/// What is asked.
pub(super) fn brief_operation(operation: &Operation) -> String {
    let replacing = |context: &CausalContext| match context.is_empty() {
        true => String::new(),
        false => format!(" knowing {}", brief_context(context)),
    };
    let kind = match &operation.kind {
        Kind::Get => "get".into(),
        Kind::Head => "head".into(),
        Kind::Put { value, expiry: Expiry::Never, context } => {
            format!("put {}{}", brief_value(value), replacing(context))
        }
        Kind::Put { value, expiry, context } => {
            format!("put {} with expiry {expiry:?}{}", brief_value(value), replacing(context))
        }
        Kind::Delete { context } => format!("delete{}", replacing(context)),
        Kind::SetExpiry { expiry } => format!("set expiry {expiry:?}"),
        Kind::Confirm { stamp, replicas } => format!("confirm {} on {replicas}", brief_stamp(*stamp)),
        Kind::Resolve => "resolve".into(),
        Kind::Scan { limit } => format!("scan {limit}"),
        Kind::Truncate => "truncate".into(),
        Kind::History => "history".into(),
    };
    let op = operation.op.map_or(String::new(), |op| format!(" as op {op}"));
    let session = match operation.session.is_empty() {
        true => String::new(),
        false => format!(" after {}", operation.session),
    };
    format!("#{} {kind}{op} at {}{session}", operation.number, operation.level)
}

/// A context, briefly.
pub(super) fn brief_context(context: &CausalContext) -> String {
    let each =
        context.entries().map(|Dot { actor, counter }| format!("{}.{}#{counter}", actor.node, actor.incarnation));
    each.collect::<Vec<_>>().join(" ")
}

pub(super) fn brief_stamp(stamp: Stamp) -> String {
    let Dot { actor, counter } = stamp.dot;
    format!("{:?}/{}.{}#{counter}", stamp.timestamp, actor.node, actor.incarnation)
}
