//! The promises, as code that looks at each answer, each mutation and each message.

use crate::types::{
    Actor, Applied, Content, Failure, Key, Moment, Mutation, Outcome, Partition, ReadReply, Response, Stamp, Summary,
    Version, WallTime, WriteReply,
};
use bytes::Bytes;

use super::history::{Check, History, brief, brief_operation, brief_stamp, brief_value};
use super::operation::{Kind, Operation, Stage};

/// What the checks need to know about the moment of an answer.
pub(super) struct Circumstances {
    pub(super) now: Moment,
    /// The true time of day when the question was asked, and now.
    pub(super) asked_at: WallTime,
    pub(super) answered_at: WallTime,
    /// How far any clock is off at most, in milliseconds.
    pub(super) clock_error_ms: u64,
    /// How many replicas the key has.
    pub(super) replicas: usize,
    /// For each of them the newest version on its disk.
    pub(super) durable: Vec<Option<Stamp>>,
}

impl Circumstances {
    fn holding(&self, stamp: Stamp) -> usize {
        self.durable.iter().filter(|held| **held >= Some(stamp)).count()
    }
}

/// What a read has shown of a key.
struct Seen<'a> {
    stamp: Stamp,
    expires_at: Option<WallTime>,
    bytes: u32,
    value: Option<&'a Bytes>,
}

impl History {
    /// A node sends a version out or appends it.
    pub(super) fn issued(&mut self, now: Moment, by: Actor, partition: Partition, key: &Key, version: &Version) {
        let Some(index) = self.index_of(key) else {
            let what = format!("{} writes to a key that no client has named", by.node);
            return self.violated(Check::NothingFromNowhere, now, None, what);
        };
        let dot = version.stamp.dot;
        match self.dots.get(&(partition, dot)).copied() {
            Some((known_key, known)) => {
                let same = known_key == index
                    && known == version.stamp
                    && self.keys[index].issued.get(&known).is_some_and(|known| known == version);
                if !same {
                    let what = format!("{} names {} and {}", brief_stamp(known), known_key, brief(version));
                    self.violated(Check::DotsAreUnique, now, Some(index), what);
                }
            }
            None => {
                self.dots.insert((partition, dot), (index, version.stamp));
                self.keys[index].issued.insert(version.stamp, version.clone());
                self.note(Some(index), now, || format!("{} issues {}", by.node, brief(version)));
                if dot.actor != by {
                    let what = format!("{by:?} issued {}", brief(version));
                    self.violated(Check::DotsAreUnique, now, Some(index), what);
                }
                if let Content::Value(value) = &version.content
                    && !self.keys[index].written.contains_key(value)
                {
                    let what = format!("{} was never written to key {index}", brief_value(value));
                    self.violated(Check::NothingFromNowhere, now, Some(index), what);
                }
            }
        }
    }

    /// A store has applied a mutation.
    pub(super) fn applied(&mut self, now: Moment, by: Actor, mutation: &Mutation, applied: Applied) {
        let Mutation::Record { key, version, .. } = mutation else { return };
        let Some(index) = self.index_of(key) else { return };
        self.note(Some(index), now, || format!("{} applies {}: {applied:?}", by.node, brief(version)));
        if let (Content::Value(value), Applied::Stored) = (&version.content, applied) {
            let Some(written) = self.keys[index].written.get_mut(value) else { return };
            written.applied = true;
            if written.refused {
                let what = format!("{} was refused and then applied by {}", brief_value(value), by.node);
                self.violated(Check::RefusedIsNotApplied, now, Some(index), what);
            }
        }
    }

    /// A client asks.
    pub(super) fn began(&mut self, operation: &Operation) {
        if let Kind::Put { value, .. } = &operation.kind {
            self.keys[operation.key].written.insert(value.clone(), Default::default());
        }
        self.note(Some(operation.key), operation.begun, || {
            format!("{} of n{}", brief_operation(operation), operation.host + 1)
        });
    }

    /// A client has its answer.
    pub(super) fn answered(&mut self, operation: &Operation, outcome: &Outcome, at: &Circumstances) {
        self.note(Some(operation.key), at.now, || {
            let told = match outcome {
                Ok(Response::Read(Some(reply))) => {
                    format!("{} at {}", brief_value(&reply.value), brief_stamp(reply.stamp))
                }
                Ok(Response::Written(reply)) => {
                    format!("written at {} by {}", brief_stamp(reply.stamp), reply.acknowledged)
                }
                Ok(Response::Head(Some(summary))) => brief_stamp(summary.stamp),
                Ok(other) => format!("{other:?}"),
                Err(failure) => failure.to_string(),
            };
            format!("#{} is answered: {told}", operation.number)
        });
        match (&operation.kind, outcome) {
            (_, Err(failure)) => self.failed(operation, failure, at),
            (Kind::Get | Kind::SetExpiry { .. }, Ok(Response::Read(reply))) => {
                let seen = reply.as_ref().map(|ReadReply { value, stamp, expires_at }| Seen {
                    stamp: *stamp,
                    expires_at: *expires_at,
                    bytes: u32::try_from(value.len()).expect("values are short"),
                    value: Some(value),
                });
                self.read(operation, seen, at);
            }
            (Kind::Head, Ok(Response::Head(summary))) => {
                let seen = summary.map(|Summary { stamp, expires_at, value_bytes }| Seen {
                    stamp,
                    expires_at,
                    bytes: value_bytes.unwrap_or(u32::MAX),
                    value: None,
                });
                self.read(operation, seen, at);
            }
            (Kind::Put { .. } | Kind::Delete, Ok(Response::Written(reply))) => self.wrote(operation, *reply, at),
            (Kind::Confirm { stamp, .. }, Ok(Response::Confirmed(replicas))) => {
                let holding = at.holding(*stamp);
                if usize::from(*replicas) > holding {
                    let what = format!("{replicas} replicas confirmed what {holding} have on disk");
                    self.violated(Check::AcknowledgedIsDurable, at.now, Some(operation.key), what);
                }
            }
            (_, Ok(other)) => {
                let what = format!("{} was answered by {other:?}", brief_operation(operation));
                self.violated(Check::RefusedIsNotApplied, at.now, Some(operation.key), what);
            }
        }
    }

    fn read(&mut self, operation: &Operation, seen: Option<Seen<'_>>, at: &Circumstances) {
        let number = operation.number;
        let (key, index) = (&self.keys[operation.key], Some(operation.key));
        let floor = operation.floors.met_by(operation.needed, at.replicas);
        let stale = if operation.stage == Stage::Last { Check::NothingLost } else { Check::RealTimeOrder };
        let Some(seen) = seen else {
            let ended = |version: &Version| {
                let expired = |end: WallTime| end.0 <= at.answered_at.0 + at.clock_error_ms;
                version.content == Content::Tombstone || version.expires_at.is_some_and(expired)
            };
            if let Some(floor) = floor
                && !key.issued.range(floor..).any(|(_, version)| ended(version))
            {
                let what = format!("#{number} found nothing, but {} was acknowledged", brief_stamp(floor));
                self.violated(stale, at.now, index, what);
            }
            return;
        };
        let stamp = brief_stamp(seen.stamp);
        let genuine = key.issued.get(&seen.stamp).is_some_and(|version| {
            let value = match &version.content {
                Content::Value(value) => value,
                Content::Tombstone => return false,
            };
            let same_value = seen.value.is_none_or(|seen| seen == value) && seen.bytes as usize == value.len();
            same_value && version.expires_at == seen.expires_at
        });
        if !genuine {
            let what = format!("#{number} read at {stamp} what nobody has written there");
            self.violated(Check::NothingFromNowhere, at.now, index, what);
        }
        let long_ended = |end: WallTime| end.0 + at.clock_error_ms < at.asked_at.0;
        if seen.expires_at.is_some_and(long_ended) {
            let what = format!("#{number} read at {stamp} what had expired before");
            self.violated(Check::NothingFromNowhere, at.now, index, what);
        }
        let refused = seen.value.and_then(|value| self.keys[operation.key].written.get(value));
        if refused.is_some_and(|written| written.refused) {
            let what = format!("#{number} read at {stamp} what had been refused");
            self.violated(Check::RefusedIsNotApplied, at.now, index, what);
        }
        if floor > Some(seen.stamp) {
            let floor = floor.map_or(String::new(), brief_stamp);
            let what = format!("#{number} read {stamp}, but {floor} was acknowledged before");
            self.violated(stale, at.now, index, what);
        }
    }

    fn wrote(&mut self, operation: &Operation, reply: WriteReply, at: &Circumstances) {
        let WriteReply { stamp, acknowledged } = reply;
        let index = Some(operation.key);
        let (number, acknowledged) = (operation.number, usize::from(acknowledged));
        let holding = at.holding(stamp);
        if acknowledged < operation.needed || holding < acknowledged {
            let needed = operation.needed;
            let what = format!("#{number} needs {needed}, is told {acknowledged}, and is on {holding} disks");
            self.violated(Check::AcknowledgedIsDurable, at.now, index, what);
        }
        let content = match &operation.kind {
            Kind::Put { value, .. } => Content::Value(value.clone()),
            _ => Content::Tombstone,
        };
        if self.keys[operation.key].issued.get(&stamp).is_none_or(|version| version.content != content) {
            let what = format!("#{number} was told a stamp, {}, that is not its own", brief_stamp(stamp));
            self.violated(Check::NothingFromNowhere, at.now, index, what);
        }
        let floor = operation.floors.met_by(operation.needed, at.replicas);
        if floor >= Some(stamp) {
            let floor = floor.map_or(String::new(), brief_stamp);
            let what = format!("#{number} was written at {}, below {floor} from before", brief_stamp(stamp));
            self.violated(Check::RealTimeOrder, at.now, index, what);
        }
        self.keys[operation.key].floors.raise(acknowledged.max(operation.needed), stamp);
    }

    fn failed(&mut self, operation: &Operation, failure: &Failure, at: &Circumstances) {
        let index = Some(operation.key);
        let number = operation.number;
        if operation.stage != Stage::Faults {
            let what = format!("{} failed: {failure}", brief_operation(operation));
            self.violated(Check::Liveness, at.now, index, what);
        }
        match (failure, &operation.kind) {
            (Failure::NotApplied(_), Kind::Put { value, .. }) => {
                let Some(written) = self.keys[operation.key].written.get_mut(value) else { return };
                written.refused = true;
                if written.applied {
                    let what = format!("#{number}, {}, was applied and then refused", brief_value(value));
                    self.violated(Check::RefusedIsNotApplied, at.now, index, what);
                }
            }
            (Failure::InDoubt { .. }, Kind::Get | Kind::Head | Kind::Confirm { .. }) => {
                let what = format!("#{number} reads and was told that it is in doubt");
                self.violated(Check::RefusedIsNotApplied, at.now, index, what);
            }
            (Failure::TimedOut { .. }, Kind::Put { .. } | Kind::Delete) => {
                let what = format!("#{number} writes and was not told whether it is in doubt");
                self.violated(Check::RefusedIsNotApplied, at.now, index, what);
            }
            _ => {}
        }
    }
}
