//! The rules for keys that keep concurrent values, written out once more, from what
//! clients wrote and handed in and not from what the servers made of it.
//!
//! Problem: a value must stay until a write that knows it replaces it, and must then stay
//! away; a checker that merged records as the servers do would repeat their mistakes.
//! The rule: a context that a client has been given covers a version if it names a counter
//! of its actor that is as high. So a version may be missing once a write was begun whose
//! context covers it; and it must be missing once such a write was acknowledged, or a read
//! at a quorum has shown so, by so many replicas that the next read asks one of them.
//! Source: Preguiça et al., "Dotted Version Vectors", 2010, section 3.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use crate::types::{CausalContext, Dot, Moment, ReadReply, Stamp, Summary, Version, WallTime, WriteReply, limits};

use super::checks::Circumstances;
use super::history::{Check, History, brief, brief_context, brief_stamp};
use super::operation::{Kind, Operation, Stage};

/// One key that keeps concurrent values.
#[derive(Clone, Default, Debug)]
pub(super) struct SiblingKey {
    known: BTreeMap<Dot, Known>,
    /// Up to where somebody has begun to delete all of the namespace.
    truncated: Option<Stamp>,
}

/// One version of it.
#[derive(Clone, Debug)]
struct Known {
    version: Version,
    /// Whether a write was begun that may replace it.
    replaced: bool,
    /// Since when so many replicas are known to have it, or what replaced it.
    there: Since,
    /// Since when so many replicas are known to have what replaced it.
    gone: Since,
}

/// For 1, 2, … replicas the first moment at which they were known to have something.
#[derive(Clone, Copy, Default, Debug)]
struct Since([Option<Moment>; 8]);

impl Since {
    fn note(&mut self, replicas: usize, now: Moment) {
        self.0[replicas.min(7)].get_or_insert(now);
    }

    /// Whether whoever began at `begun` to ask so many that they share `sharing` − 1 of the
    /// replicas with all others has asked one of them.
    fn before(&self, sharing: usize, begun: Moment) -> bool {
        self.0.iter().skip(sharing).flatten().any(|since| *since < begun)
    }
}

/// What a read has shown of one version.
pub(super) struct Shown<'a> {
    pub(super) stamp: Stamp,
    pub(super) expires_at: Option<WallTime>,
    pub(super) value: Option<&'a Bytes>,
}

/// What a read has shown of the key.
pub(super) enum Answer<'a> {
    /// All versions that are live, and what is known.
    All(Vec<Shown<'a>>, Option<&'a CausalContext>),
    /// The newest that is live.
    Newest(Option<Shown<'a>>),
}

impl<'a> Answer<'a> {
    pub(super) fn read(reply: Option<&'a ReadReply>) -> Answer<'a> {
        let Some(reply) = reply else { return Answer::All(Vec::new(), None) };
        let first = Shown { stamp: reply.stamp, expires_at: reply.expires_at, value: Some(&reply.value) };
        let others = reply.siblings.iter().map(|sibling| Shown {
            stamp: sibling.stamp,
            expires_at: sibling.expires_at,
            value: Some(&sibling.value),
        });
        Answer::All([first].into_iter().chain(others).collect(), Some(&reply.context))
    }

    pub(super) fn head(summary: Option<&Summary>) -> Answer<'a> {
        Answer::Newest(summary.map(shown_summary))
    }
}

/// What a summary shows.
pub(super) fn shown_summary<'a>(summary: &Summary) -> Shown<'a> {
    Shown { stamp: summary.stamp, expires_at: summary.expires_at, value: None }
}

impl SiblingKey {
    /// A version was issued, together with so many others.
    fn issued(&mut self, version: &Version) {
        // Only a change of expiry writes a value again, in the place of the old one.
        for known in self.known.values_mut() {
            known.replaced |= version.is_value() && known.version.content == version.content;
        }
        let replaced = self.truncated >= Some(version.stamp);
        let known = Known { version: version.clone(), replaced, there: Since::default(), gone: Since::default() };
        self.known.insert(version.stamp.dot, known);
    }

    /// A write with this context begins.
    pub(super) fn began(&mut self, context: &CausalContext) {
        let covered = self.known.iter_mut().filter(|(dot, _)| covers(context, **dot));
        covered.for_each(|(_, known)| known.replaced = true);
    }

    /// All up to here is deleted from now on, perhaps not everywhere.
    pub(super) fn truncating(&mut self, stamp: Stamp) {
        self.truncated = self.truncated.max(Some(stamp));
        let covered = self.known.values_mut().filter(|known| known.version.stamp <= stamp);
        covered.for_each(|known| known.replaced = true);
    }

    /// Some copies are gone: in how many places each version, or what replaced it, still is.
    pub(super) fn recount(&mut self, now: Moment, holders: impl Fn(Dot) -> (usize, usize)) {
        for (dot, known) in &mut self.known {
            let (there, gone) = holders(*dot);
            for (since, left) in [(&mut known.there, there), (&mut known.gone, gone)] {
                let most = since.0.iter().rposition(Option::is_some).unwrap_or(0).min(left);
                *since = Since::default();
                if most > 0 {
                    since.note(most, now);
                }
            }
        }
    }

    /// Whether a version must be held by whoever covers it.
    pub(super) fn must_be_held(&self, dot: Dot, ended: impl Fn(&Version) -> bool) -> bool {
        let known = self.known.get(&dot);
        known.is_some_and(|known| known.version.is_value() && !known.replaced && !ended(&known.version))
    }
}

/// The rule, written out again.
fn covers(context: &CausalContext, dot: Dot) -> bool {
    context.entries().any(|known| known.actor == dot.actor && known.counter >= dot.counter)
}

impl History {
    /// Versions were issued in one record; the first time that some of them were seen.
    pub(super) fn siblings_issued(&mut self, now: Moment, index: usize, new: &[&Version], together: usize) {
        let Some(siblings) = &mut self.keys[index].siblings else { return };
        new.iter().for_each(|version| siblings.issued(version));
        if together > limits::SIBLINGS {
            let what = format!("{} makes {together} concurrent versions", brief(new[0]));
            self.violated(Check::SiblingsAreBounded, now, Some(index), what);
        }
    }

    /// A read of a key with siblings was answered. `repairs`: if its level is a quorum, what
    /// it shows is on as many replicas by now.
    pub(super) fn read_siblings(
        &mut self,
        operation: &Operation,
        index: usize,
        answer: &Answer<'_>,
        repairs: bool,
        at: &Circumstances,
    ) {
        let mut wrong = Vec::new();
        let sharing = (at.replicas + 1).saturating_sub(operation.needed).max(1);
        let stale = if operation.stage == Stage::Last { Check::NothingLost } else { Check::RealTimeOrder };
        let quorum = repairs && operation.needed * 2 > at.replicas;
        let number = operation.number;
        let key = &mut self.keys[index];
        let siblings = key.siblings.as_mut().expect("it keeps siblings");
        let (shown, all, context) = match answer {
            Answer::All(shown, context) => (shown.iter().collect::<Vec<_>>(), true, *context),
            Answer::Newest(shown) => (shown.iter().collect(), false, None),
        };
        let may_have_ended = |version: &Version| at.may_have_ended(version.expires_at);
        let mut dots = BTreeSet::new();
        for Shown { stamp, expires_at, value } in &shown {
            let named = brief_stamp(*stamp);
            if !dots.insert(stamp.dot) {
                wrong.push((Check::NothingFromNowhere, format!("#{number} shows {named} twice")));
            }
            let known = siblings.known.get(&stamp.dot);
            let genuine = known.is_some_and(|Known { version, .. }| {
                let same_value = match (&version.content, value) {
                    (crate::types::Content::Value(written), Some(value)) => written == *value,
                    (crate::types::Content::Value(_), None) => true,
                    (crate::types::Content::Tombstone, _) => false,
                };
                version.stamp == *stamp && version.expires_at == *expires_at && same_value
            });
            if !genuine {
                wrong.push((Check::NothingFromNowhere, format!("#{number} shows at {named} what nobody wrote")));
            }
            if at.has_ended(*expires_at) {
                wrong.push((Check::NothingFromNowhere, format!("#{number} shows {named}, which had expired")));
            }
            if value.and_then(|value| key.written.get(value)).is_some_and(|written| written.refused) {
                wrong.push((Check::RefusedIsNotApplied, format!("#{number} shows {named}, which had been refused")));
            }
            if known.is_some_and(|known| known.gone.before(sharing, operation.begun)) {
                wrong.push((stale, format!("#{number} shows {named}, which had been replaced")));
            }
            if operation.stage == Stage::Last && key.truncated >= Some(*stamp) {
                wrong.push((stale, format!("#{number} shows {named}, which had been truncated")));
            }
        }
        let newest = shown.iter().map(|shown| shown.stamp).max();
        for (dot, known) in &siblings.known {
            let missing = match all {
                true => !dots.contains(dot),
                false => newest < Some(known.version.stamp),
            };
            if !missing || !known.version.is_value() || known.replaced || may_have_ended(&known.version) {
                continue;
            }
            let named = brief(&known.version);
            if known.there.before(sharing, operation.begun) {
                wrong.push((stale, format!("#{number} does not show {named}, which nothing has replaced")));
            }
            if operation.noted.iter().any(|noted| noted.dot == *dot) {
                let what = format!("#{number} does not show {named}, which its session has seen");
                wrong.push((Check::SessionsHold, what));
            }
            if let Some(context) = context.filter(|context| covers(context, *dot)) {
                let what =
                    format!("#{number} hands out {}, which covers {named} without showing it", brief_context(context));
                wrong.push((Check::NothingLost, what));
            }
        }
        if quorum && all {
            for (dot, known) in &mut siblings.known {
                if dots.contains(dot) {
                    known.there.note(operation.needed, at.now);
                } else if context.is_some_and(|context| covers(context, *dot)) && !may_have_ended(&known.version) {
                    known.gone.note(operation.needed, at.now);
                }
            }
        }
        for (check, what) in wrong {
            self.violated(check, at.now, Some(index), what);
        }
    }

    /// A write of a key with siblings was acknowledged.
    pub(super) fn wrote_sibling(&mut self, operation: &Operation, reply: WriteReply, at: &Circumstances) {
        let key = &mut self.keys[operation.key];
        let siblings = key.siblings.as_mut().expect("it keeps siblings");
        let acknowledged = usize::from(reply.acknowledged).max(operation.needed);
        let (Kind::Put { context, .. } | Kind::Delete { context }) = &operation.kind else { return };
        for (dot, known) in &mut siblings.known {
            if *dot == reply.stamp.dot {
                known.there.note(acknowledged, at.now);
            } else if covers(context, *dot) {
                known.gone.note(acknowledged, at.now);
            }
        }
    }
}
