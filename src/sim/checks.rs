//! The promises, as code that looks at each answer, each mutation and each message.

use bytes::Bytes;

use crate::types::{
    Actor, Applied, Content, Expiry, Failure, Key, Moment, Mutation, NamespaceId, Outcome, Partition, PulledItem,
    ReadReply, Refusal, Response, Stamp, Summary, Version, WallTime, WriteReply,
};

use super::history::{Check, History, brief, brief_operation, brief_stamp, brief_value};
use super::operation::{Floors, Kind, Operation, Stage};
use super::siblings::Answer;

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
    /// How many of them have on disk what was acknowledged or confirmed, or something newer.
    pub(super) holding: usize,
    /// How many replicas are not asked for that, because their disk went back in time.
    pub(super) gone: usize,
}

impl Circumstances {
    /// Whether what ends then has ended by some clock.
    pub(super) fn may_have_ended(&self, expires_at: Option<WallTime>) -> bool {
        expires_at.is_some_and(|end| end.0 <= self.answered_at.0 + self.clock_error_ms)
    }

    /// Whether what ends then had ended by every clock before the question was asked.
    pub(super) fn has_ended(&self, expires_at: Option<WallTime>) -> bool {
        expires_at.is_some_and(|end| end.0 + self.clock_error_ms < self.asked_at.0)
    }
}

/// What a read has shown of a key.
pub(super) struct Seen<'a> {
    pub(super) stamp: Stamp,
    pub(super) expires_at: Option<WallTime>,
    pub(super) bytes: u32,
    pub(super) value: Option<&'a Bytes>,
}

impl Seen<'_> {
    pub(super) fn summary(summary: &Summary) -> Seen<'static> {
        let Summary { stamp, expires_at, value_bytes } = *summary;
        Seen { stamp, expires_at, bytes: value_bytes.unwrap_or(u32::MAX), value: None }
    }
}

impl History {
    /// A node sends versions out to be kept, or appends them.
    pub(super) fn issued(&mut self, now: Moment, by: Actor, partition: Partition, key: &Key, versions: &[Version]) {
        let Some(index) = self.index_of(key) else {
            let what = format!("{} writes to a key that no client has named", by.node);
            return self.violated(Check::NothingFromNowhere, now, None, what);
        };
        let is_new = |version: &&Version| !self.keys[index].issued.contains_key(&version.stamp);
        let new: Vec<&Version> = versions.iter().filter(is_new).collect();
        for version in versions {
            self.take_dot(now, by, partition, Some(index), version);
            self.recorded(now, by, version);
        }
        for version in &new {
            self.keys[index].issued.insert(version.stamp, (*version).clone());
            self.note(Some(index), now, || format!("{} issues {}", by.node, brief(version)));
            if let Content::Value(value) = &version.content
                && !self.keys[index].written.contains_key(value)
            {
                let what = format!("{} was never written to key {index}", brief_value(value));
                self.violated(Check::NothingFromNowhere, now, Some(index), what);
            }
        }
        if !new.is_empty() {
            self.siblings_issued(now, index, &new, versions.len());
        }
    }

    /// A version carries a dot: nothing else may, and only its actor may have given it.
    pub(super) fn take_dot(
        &mut self,
        now: Moment,
        by: Actor,
        partition: Partition,
        index: Option<usize>,
        version: &Version,
    ) {
        let dot = version.stamp.dot;
        match self.dots.get(&(partition, dot)) {
            Some((known_index, known)) => {
                // A read mends what a truncation has deleted by a tombstone under its dot.
                let same_key = *known_index == index || known_index.is_none() && !version.is_value();
                if !same_key || known != version {
                    let what = format!("one dot names {} and {}", brief(known), brief(version));
                    self.violated(Check::DotsAreUnique, now, index, what);
                }
            }
            None => {
                self.dots.insert((partition, dot), (index, version.clone()));
                if dot.actor != by {
                    let what = format!("{by:?} issued {}", brief(version));
                    self.violated(Check::DotsAreUnique, now, index, what);
                }
                self.timed(now, index, version);
            }
        }
    }

    /// A node deletes all of a namespace in a partition: for each key that is as if it was deleted.
    pub(super) fn truncates(
        &mut self,
        now: Moment,
        by: Actor,
        partition: Partition,
        namespace: NamespaceId,
        stamp: Stamp,
        keys: &[usize],
    ) {
        let version = Version::of_truncation(stamp);
        if self.dots.contains_key(&(partition, stamp.dot)) {
            return self.take_dot(now, by, partition, None, &version);
        }
        self.note(None, now, || format!("{} truncates {namespace:?} at {}", by.node, brief_stamp(stamp)));
        self.take_dot(now, by, partition, None, &version);
        for key in keys {
            let known = &mut self.keys[*key];
            known.issued.insert(stamp, version.clone());
            if let Some(siblings) = &mut known.siblings {
                siblings.truncating(stamp);
            }
        }
    }

    /// A store has applied a mutation.
    pub(super) fn applied(&mut self, now: Moment, by: Actor, mutation: &Mutation, applied: &Applied) {
        match mutation {
            Mutation::Record { key, record, .. } => {
                let Some(index) = self.index_of(key) else { return };
                for version in record.versions() {
                    self.applied_one(now, by, index, version, applied);
                }
            }
            Mutation::Absorb { pulled, .. } => {
                for item in &pulled.items {
                    let PulledItem::Record { key, record: Some(record), .. } = item else { continue };
                    let Some(index) = self.index_of(key) else { continue };
                    for version in record.versions() {
                        self.applied_one(now, by, index, version, applied);
                    }
                }
            }
            Mutation::Collect { partition, stable, .. } => {
                self.note(None, now, || format!("{} collects in partition {}: {stable:?}", by.node, partition.0));
            }
            Mutation::Claim { op, .. } => self.noted(now, by, *op, applied),
            _ => {}
        }
    }

    fn applied_one(&mut self, now: Moment, by: Actor, index: usize, version: &Version, applied: &Applied) {
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
        let named = operation.op.filter(|_| operation.kind != Kind::Resolve);
        if let Some(op) = named {
            self.named[op].attempts += 1;
        }
        let fenced = named.is_some_and(|op| self.is_fenced(op));
        let key = &mut self.keys[operation.key];
        if let Kind::Put { value, .. } = &operation.kind {
            let written = key.written.entry(value.clone()).or_default();
            // What was refused once may be applied by another attempt.
            written.refused &= fenced;
        }
        if let (Some(siblings), Kind::Put { context, .. } | Kind::Delete { context }) =
            (&mut key.siblings, &operation.kind)
        {
            siblings.began(context);
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
        let index = operation.key;
        let siblings = self.keys[index].siblings.is_some();
        match (&operation.kind, outcome) {
            (_, Err(failure)) => self.failed(operation, failure, at),
            (Kind::Get | Kind::SetExpiry { .. }, Ok(Response::Read(reply))) if siblings => {
                // What is found below its level is only read by a change of expiry, not mended.
                self.read_siblings(operation, index, &Answer::read(reply.as_ref()), true, at);
            }
            (Kind::Head, Ok(Response::Head(summary))) if siblings => {
                self.read_siblings(operation, index, &Answer::head(summary.as_ref()), true, at);
            }
            (Kind::Get | Kind::SetExpiry { .. }, Ok(Response::Read(reply))) => {
                let seen = reply.as_ref().map(|ReadReply { value, stamp, expires_at, .. }| Seen {
                    stamp: *stamp,
                    expires_at: *expires_at,
                    bytes: u32::try_from(value.len()).expect("values are short"),
                    value: Some(value),
                });
                self.read(operation, (index, &operation.floors), seen, true, at);
            }
            (Kind::Head, Ok(Response::Head(summary))) => {
                let seen = summary.as_ref().map(Seen::summary);
                self.read(operation, (index, &operation.floors), seen, true, at);
            }
            (Kind::Put { .. } | Kind::Delete { .. } | Kind::Resolve, Ok(Response::Written(reply))) => {
                self.wrote(operation, *reply, at);
            }
            (Kind::Confirm { .. }, Ok(Response::Confirmed(replicas))) => {
                let holding = at.holding;
                if usize::from(*replicas) > holding {
                    let what = format!("{replicas} replicas confirmed what {holding} have on disk");
                    self.violated(Check::AcknowledgedIsDurable, at.now, Some(index), what);
                }
            }
            (Kind::History, Ok(Response::History(history))) => {
                let answered = history.replicas.iter().filter(|replica| replica.known.is_some()).count();
                let needed = if operation.stage == Stage::Faults { 0 } else { at.replicas - at.gone };
                if history.replicas.len() != at.replicas || answered < needed {
                    let what = format!("#{} tells of {answered} of {} replicas", operation.number, at.replicas);
                    self.violated(Check::Liveness, at.now, Some(index), what);
                }
            }
            // They are about more than one key: the world looks at them.
            (Kind::Scan { .. }, Ok(Response::Page(_))) | (Kind::Truncate, Ok(Response::Written(_))) => {}
            (_, Ok(other)) => {
                let what = format!("{} was answered by {other:?}", brief_operation(operation));
                self.violated(Check::RefusedIsNotApplied, at.now, Some(index), what);
            }
        }
    }

    /// What a read has shown of a key without siblings. `repairs`: if its level is a quorum,
    /// what it shows is on as many replicas by now.
    pub(super) fn read(
        &mut self,
        operation: &Operation,
        (key_index, floors): (usize, &Floors),
        seen: Option<Seen<'_>>,
        repairs: bool,
        at: &Circumstances,
    ) {
        let number = operation.number;
        let (key, index) = (&self.keys[key_index], Some(key_index));
        let floor = floors.met_by(operation.needed, at.replicas);
        let stale = if operation.stage == Stage::Last { Check::NothingLost } else { Check::RealTimeOrder };
        let quorum = repairs && operation.needed * 2 > at.replicas;
        let noted = operation.noted.iter().max().copied();
        let Some(seen) = seen else {
            let ended =
                |version: &Version| version.content == Content::Tombstone || at.may_have_ended(version.expires_at);
            let least = |floor: Stamp| key.issued.range(floor..).find(|(_, version)| ended(version));
            if let Some(noted) = noted.filter(|noted| least(*noted).is_none()) {
                let what = format!("#{number} found nothing, but its session has seen {}", brief_stamp(noted));
                self.violated(Check::SessionsHold, at.now, index, what);
                return;
            }
            let Some(floor) = floor else { return };
            match least(floor) {
                // The least that it can have seen. Nobody may see less from now on.
                Some((stamp, _)) if quorum => {
                    let stamp = *stamp;
                    self.keys[key_index].floors.raise(operation.needed, stamp);
                }
                Some(_) => {}
                None => {
                    let what = format!("#{number} found nothing, but {} was acknowledged", brief_stamp(floor));
                    self.violated(stale, at.now, index, what);
                }
            }
            return;
        };
        let stamp = brief_stamp(seen.stamp);
        let (truncated, refused) = (key.truncated, seen.value.and_then(|value| key.written.get(value)));
        let refused = refused.is_some_and(|written| written.refused);
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
        if at.has_ended(seen.expires_at) {
            let what = format!("#{number} read at {stamp} what had expired before");
            self.violated(Check::NothingFromNowhere, at.now, index, what);
        }
        if refused {
            let what = format!("#{number} read at {stamp} what had been refused");
            self.violated(Check::RefusedIsNotApplied, at.now, index, what);
        }
        if floor > Some(seen.stamp) {
            let floor = floor.map_or(String::new(), brief_stamp);
            let what = format!("#{number} read {stamp}, but {floor} was acknowledged or read before");
            self.violated(stale, at.now, index, what);
        }
        if operation.stage == Stage::Last && truncated >= Some(seen.stamp) {
            let what = format!("#{number} read {stamp}, which had been truncated");
            self.violated(stale, at.now, index, what);
        }
        if noted > Some(seen.stamp) {
            let noted = noted.map_or(String::new(), brief_stamp);
            let what = format!("#{number} read {stamp}, but its session has seen {noted}");
            self.violated(Check::SessionsHold, at.now, index, what);
        }
        if quorum {
            // Nobody may see less from now on.
            self.keys[key_index].floors.raise(operation.needed, seen.stamp);
        }
    }

    fn wrote(&mut self, operation: &Operation, reply: WriteReply, at: &Circumstances) {
        let WriteReply { stamp, acknowledged } = reply;
        let index = Some(operation.key);
        let (number, acknowledged) = (operation.number, usize::from(acknowledged));
        let holding = at.holding;
        if acknowledged < operation.needed || holding < acknowledged {
            let needed = operation.needed;
            let what = format!("#{number} needs {needed}, is told {acknowledged}, and is on {holding} disks");
            self.violated(Check::AcknowledgedIsDurable, at.now, index, what);
        }
        self.named_written(at.now, operation, reply);
        let named = operation.op.map(|op| &self.named[op]);
        let (content, end) = match named.map_or(&operation.kind, |named| &named.kind) {
            Kind::Put { value, expiry, .. } => (Content::Value(value.clone()), Some(*expiry)),
            _ => (Content::Tombstone, None),
        };
        let own = |version: &Version| {
            let right_end = match end {
                Some(Expiry::At(end)) => version.expires_at == Some(end),
                Some(Expiry::Never) | None => version.expires_at.is_none(),
                Some(Expiry::Keep) => true,
            };
            version.content == content && right_end
        };
        if !self.keys[operation.key].issued.get(&stamp).is_some_and(own) {
            let what = format!("#{number} was told a stamp, {}, that is not its own", brief_stamp(stamp));
            self.violated(Check::NothingFromNowhere, at.now, index, what);
        }
        if self.keys[operation.key].siblings.is_some() {
            return self.wrote_sibling(operation, reply, at);
        }
        // What one attempt has done stands for all of them.
        let floors = operation.op.map_or(&operation.floors, |op| &self.named[op].first_floors);
        let floor = floors.met_by(operation.needed, at.replicas);
        let unsure = operation.op.is_some_and(|op| self.is_unsure(op));
        // One that is sent again is told the stamp of its first time.
        if floor >= Some(stamp) && !unsure && operation.op.is_none() {
            let floor = floor.map_or(String::new(), brief_stamp);
            let what = format!("#{number} was written at {}, below {floor} from before", brief_stamp(stamp));
            self.violated(Check::RealTimeOrder, at.now, index, what);
        }
        self.keys[operation.key].floors.raise(acknowledged.max(operation.needed), stamp);
    }

    fn failed(&mut self, operation: &Operation, failure: &Failure, at: &Circumstances) {
        let index = Some(operation.key);
        let number = operation.number;
        let needed = match operation.kind {
            Kind::Confirm { replicas, .. } => operation.needed.max(usize::from(replicas)),
            _ => operation.needed,
        };
        let siblings = self.keys[operation.key].siblings.is_some();
        let excused = match failure {
            Failure::NotApplied(Refusal::TooManySiblings { .. }) => siblings,
            Failure::NotApplied(Refusal::Fenced) => operation.op.is_some(),
            // There are several values, so none is the one to be changed.
            Failure::NotApplied(Refusal::Invalid(_)) => siblings && matches!(operation.kind, Kind::SetExpiry { .. }),
            // Who knows what the replica that is gone has noted, or had of what a session has seen?
            _ => at.gone > 0 && (operation.op.is_some() || !operation.session.is_empty()),
        };
        if operation.stage != Stage::Faults && !excused && needed + at.gone <= at.replicas {
            let what = format!("{} failed: {failure}", brief_operation(operation));
            self.violated(Check::Liveness, at.now, index, what);
        }
        match failure {
            Failure::NotApplied(refusal) => {
                self.named_refused(at.now, operation, refusal);
                if operation.op.is_none() {
                    self.refuse_value(at.now, operation);
                }
            }
            Failure::InDoubt { .. } if !operation.kind.writes() => {
                let what = format!("#{number} reads and was told that it is in doubt");
                self.violated(Check::RefusedIsNotApplied, at.now, index, what);
            }
            Failure::TimedOut { .. }
                if operation.kind.writes() && !matches!(operation.kind, Kind::SetExpiry { .. }) =>
            {
                let what = format!("#{number} writes and was not told whether it is in doubt");
                self.violated(Check::RefusedIsNotApplied, at.now, index, what);
            }
            _ => {}
        }
    }
}
