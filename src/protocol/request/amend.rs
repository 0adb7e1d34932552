//! Changes that start from what is there: another expiry, or a write that keeps the old one.
//!
//! Invariant: an amended version takes its place directly after the version it was
//! derived from, so a value that was written in between, or is written at the same time
//! with a later timestamp, wins over it. Nothing acknowledged is lost to a change of expiry.

use bytes::Bytes;

use crate::types::{Content, Expiry, Failure, Key, Outcome, ReadReply, Response, Stamp, Version, WallTime};

use super::context::Context;
use super::read::Found;
use super::write::{Change, Write};

/// What to do with what was read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Amendment {
    /// Write this value and let it end when the old one would have.
    KeepExpiry(Bytes),
    /// Write the old value again, with another end.
    SetExpiry(Option<WallTime>),
}

/// What follows from what was read.
pub(super) enum Next {
    /// The answer.
    Finish(Outcome),
    /// A write; its outcome is the answer, or if a value is given, that is.
    Write(Box<Write>, Option<ReadReply>),
}

impl Amendment {
    /// What an operation on a key with an expiry amends, if anything.
    pub(super) fn of_put(value: &Bytes, expiry: Expiry) -> Option<Amendment> {
        (expiry == Expiry::Keep).then(|| Amendment::KeepExpiry(value.clone()))
    }

    /// Goes on from what was read.
    pub(super) fn proceed(&self, key: &Key, found: Found, needed: usize, context: &mut Context<'_>) -> Next {
        let partition = context.map.partition_of(key);
        match (self, found) {
            (_, Found::Failed(failure)) => Next::Finish(Err(not_applied(failure))),
            (Amendment::KeepExpiry(value), found) => {
                let summary = match found {
                    Found::Summary(summary) => summary,
                    Found::Version(version) => version.map(|version| version.summary()),
                    Found::Failed(_) => None,
                };
                let live = summary.filter(|summary| summary.is_live(context.now.wall));
                let expires_at = live.and_then(|summary| summary.expires_at);
                let change = Change::Record { key: key.clone(), content: Content::Value(value.clone()), expires_at };
                Next::Write(Box::new(Write::new(partition, change, needed, context)), None)
            }
            (Amendment::SetExpiry(expires_at), Found::Version(version)) => {
                let Some((value, stamp, old)) = live(version, context.now.wall) else {
                    return Next::Finish(Ok(Response::Read(None)));
                };
                let reply = ReadReply { value: value.clone(), stamp, expires_at: old };
                if old == *expires_at {
                    return Next::Finish(Ok(Response::Read(Some(reply))));
                }
                let change =
                    Change::Record { key: key.clone(), content: Content::Value(value), expires_at: *expires_at };
                let write = Write::after(partition, change, stamp, needed, context);
                Next::Write(Box::new(write), Some(reply))
            }
            (Amendment::SetExpiry(_), Found::Summary(_)) => unreachable!("its read asks for the value"),
        }
    }
}

fn live(version: Option<Version>, wall: WallTime) -> Option<(Bytes, Stamp, Option<WallTime>)> {
    let version = version?;
    let value = version.live_value(wall)?.clone();
    Some((value, version.stamp, version.expires_at))
}

/// The read of a change failed: nothing was written.
pub(super) fn not_applied(failure: Failure) -> Failure {
    match failure {
        Failure::TimedOut { answered, needed } => {
            Failure::NotApplied(crate::types::Refusal::TooFewReplicas { alive: answered, needed })
        }
        other => other,
    }
}
