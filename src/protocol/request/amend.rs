//! Changes that start from what is there: another expiry, a write that keeps the old one,
//! or a write with an op-id, whose only stamp must lie above all that was there.
//!
//! Invariant: an amended version takes its place directly after the version it was
//! derived from, so a value that was written in between, or is written at the same time
//! with a later timestamp, wins over it. Nothing acknowledged is lost to a change of expiry.

use crate::types::{
    CausalContext, Content, Expiry, Failure, Key, MergePolicy, OpId, Outcome, ReadReply, Record, Refusal, Response,
    Summary, WallTime,
};

use super::claim::OpWrite;
use super::context::Context;
use super::coordination::reply_of;
use super::read::Found;
use super::siblings::SiblingWrite;
use super::write::{Change, Stamping, Write};

/// What to do with what was read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Amendment {
    /// Write this and let it end when the old one would have.
    KeepExpiry { content: Content, context: CausalContext },
    /// Write the old value again, with another end.
    SetExpiry(Option<WallTime>),
    /// Write this under an op-id.
    UnderOpId { op: OpId, content: Content, expiry: Expiry },
}

/// What follows from what was read.
pub(super) enum Next {
    /// The answer.
    Finish(Outcome),
    /// A write; its outcome is the answer, or if a value is given, that is.
    Write(Box<Write>, Option<ReadReply>),
    /// A write of a further sibling.
    Sibling(Box<SiblingWrite>, Option<ReadReply>),
    /// A write under an op-id.
    Op(Box<OpWrite>),
}

impl Amendment {
    /// Goes on from what was read.
    pub(super) fn proceed(&self, key: &Key, found: Found, needed: usize, context: &mut Context<'_>) -> Next {
        let partition = context.map.partition_of(key);
        let siblings = context.map.policy(key.namespace()) == MergePolicy::Siblings;
        match (self, found) {
            (_, Found::Failed(failure)) => Next::Finish(Err(not_applied(failure))),
            (Amendment::KeepExpiry { content, context: seen }, found) => {
                let expires_at = kept_end(found, context.now.wall);
                if siblings {
                    let write =
                        SiblingWrite::new(key.clone(), partition, seen.clone(), content.clone(), expires_at, needed);
                    return Next::Sibling(Box::new(write), None);
                }
                let change = Change::Version { key: key.clone(), content: content.clone(), expires_at };
                Next::Write(Box::new(Write::new(partition, change, Stamping::New, needed)), None)
            }
            (Amendment::UnderOpId { op, content, expiry }, found) => {
                let newest = match &found {
                    Found::Record(record) => record.as_ref().and_then(Record::newest_stamp),
                    Found::Digest(digest) => digest.as_ref().and_then(Record::newest_stamp),
                    Found::Failed(_) => None,
                };
                if let Some(Err(skew)) = newest.map(|stamp| context.clock.observe(stamp.timestamp, context.now.wall)) {
                    let refusal = Refusal::ClockSkew { ahead_ms: skew.ahead_ms };
                    return Next::Finish(Err(Failure::NotApplied(refusal)));
                }
                let expires_at = match expiry {
                    Expiry::Never => None,
                    Expiry::At(wall) => Some(*wall),
                    Expiry::Keep => kept_end(found, context.now.wall),
                };
                let wanted = (content.clone(), expires_at);
                Next::Op(Box::new(OpWrite::new(*op, key.clone(), partition, wanted, needed)))
            }
            (Amendment::SetExpiry(expires_at), Found::Record(record)) => {
                let Some((reply, record)) =
                    record.and_then(|record| Some((reply_of(&record, context.now.wall)?, record)))
                else {
                    return Next::Finish(Ok(Response::Read(None)));
                };
                if reply.expires_at == *expires_at {
                    return Next::Finish(Ok(Response::Read(Some(reply))));
                }
                let content = Content::Value(reply.value.clone());
                if let Record::Siblings(held) = &record {
                    // It replaces the value that it was derived from, and no other.
                    let seen: CausalContext = match reply.siblings.is_empty() {
                        true => held.context().clone(),
                        false => {
                            return Next::Finish(Err(Failure::NotApplied(Refusal::Invalid(
                                "the key has concurrent values: write one with their context first".into(),
                            ))));
                        }
                    };
                    let write = SiblingWrite::new(key.clone(), partition, seen, content, *expires_at, needed);
                    return Next::Sibling(Box::new(write), Some(reply));
                }
                let change = Change::Version { key: key.clone(), content, expires_at: *expires_at };
                let write = Write::new(partition, change, Stamping::After(reply.stamp.timestamp), needed);
                Next::Write(Box::new(write), Some(reply))
            }
            (Amendment::SetExpiry(_), Found::Digest(_)) => unreachable!("its read asks for the values"),
        }
    }
}

/// When the newest value of what was found ends.
fn kept_end(found: Found, wall: WallTime) -> Option<WallTime> {
    let digest = match found {
        Found::Digest(digest) => digest,
        Found::Record(record) => record.map(|record| record.digest()),
        Found::Failed(_) => None,
    };
    let live: Option<Summary> = digest.and_then(|digest| digest.shown(wall)).filter(|summary| summary.is_live(wall));
    live.and_then(|summary| summary.expires_at)
}

/// The read of a change failed: nothing was written.
pub(super) fn not_applied(failure: Failure) -> Failure {
    match failure {
        Failure::TimedOut { answered, needed } => {
            Failure::NotApplied(Refusal::TooFewReplicas { alive: answered, needed })
        }
        other => other,
    }
}

#[cfg(test)]
#[path = "amend_tests.rs"]
mod tests;
