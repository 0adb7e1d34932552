//! How the answer to a command of one request becomes its reply.

use super::decode::integer;
use super::reply::{ErrorReply, Writer};
use super::session::{LastWrite, Written};
use crate::server::token;
use crate::types::{ConsistencyLevel, Key, ReadReply, Response, Summary, WallTime};

/// What TTL and its relatives report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TimeLeft {
    /// TTL.
    Seconds,
    /// PTTL.
    Milliseconds,
    /// EXPIRETIME.
    AtSecond,
    /// PEXPIRETIME.
    AtMillisecond,
}

/// What is still to be done once the answer is there.
#[derive(Debug)]
pub(super) enum Finish {
    /// `+OK` for a value that was written.
    Stored(Key),
    /// The value.
    Value,
    /// The value, whose end was changed.
    ValueChanged,
    /// A part of the value.
    Range {
        /// First byte, from the end if negative.
        start: i64,
        /// Last byte, likewise.
        end: i64,
    },
    /// The length of the value.
    Length,
    /// The kind of the value.
    Kind,
    /// When the value ends.
    Left(TimeLeft),
    /// 1 if there is a value, else 0.
    Present,
    /// 1 if there was a value whose end was changed, else 0.
    Changed,
    /// What the value takes, with its key of so many bytes.
    Usage(usize),
    /// How the value is kept.
    Encoding,
    /// A number of keys.
    Count,
    /// All values, their context, and when each ends.
    Everything,
}

/// The node answered with something that is no answer to what it was asked.
fn mismatch() -> ErrorReply {
    "ERR internal error: the answer does not fit the request".into()
}

fn head(response: Response, now: WallTime) -> Result<Option<Summary>, ErrorReply> {
    match response {
        Response::Head(summary) => Ok(summary.filter(|summary| summary.is_live(now))),
        _ => Err(mismatch()),
    }
}

fn read(response: Response) -> Result<Option<ReadReply>, ErrorReply> {
    match response {
        Response::Read(reply) => Ok(reply),
        _ => Err(mismatch()),
    }
}

impl Finish {
    /// Writes the reply and notes what WAIT has to know.
    pub fn write(
        self,
        response: Response,
        now: WallTime,
        write_level: ConsistencyLevel,
        replicas: &dyn Fn() -> usize,
        writer: &mut Writer<'_>,
        last_write: &mut LastWrite,
    ) -> Result<(), ErrorReply> {
        let at_least = || {
            let replicas = replicas();
            let required = write_level.required(replicas).min(replicas);
            LastWrite::AtLeast(u8::try_from(required).unwrap_or(u8::MAX))
        };
        match self {
            Finish::Stored(key) => {
                let Response::Written(reply) = response else { return Err(mismatch()) };
                let (stamp, acknowledged) = (reply.stamp, reply.acknowledged);
                *last_write = LastWrite::One(Written { key, stamp, acknowledged });
                writer.ok();
            }
            Finish::Value => match read(response)? {
                Some(reply) => writer.bulk(&reply.value),
                None => writer.null(),
            },
            Finish::ValueChanged => match read(response)? {
                Some(reply) => {
                    *last_write = at_least();
                    writer.bulk(&reply.value);
                }
                None => writer.null(),
            },
            Finish::Range { start, end } => match read(response)? {
                Some(reply) => writer.bulk(part(&reply.value, start, end)),
                None => writer.bulk(b""),
            },
            Finish::Length => {
                let bytes = head(response, now)?.and_then(|summary| summary.value_bytes).unwrap_or(0);
                writer.integer(i64::from(bytes));
            }
            Finish::Kind => writer.simple(if head(response, now)?.is_some() { "string" } else { "none" }),
            Finish::Left(unit) => writer.integer(time_left(head(response, now)?, unit, now)),
            Finish::Present => writer.integer(i64::from(head(response, now)?.is_some())),
            Finish::Changed => {
                let found = read(response)?.is_some();
                if found {
                    *last_write = at_least();
                }
                writer.integer(i64::from(found));
            }
            Finish::Usage(key_bytes) => match head(response, now)? {
                Some(summary) => writer.integer(usage(key_bytes, &summary)),
                None => writer.null(),
            },
            Finish::Encoding => match head(response, now)? {
                Some(_) => writer.bulk(b"raw"),
                None => writer.null(),
            },
            Finish::Count => {
                let Response::Count(keys) = response else { return Err(mismatch()) };
                writer.integer(i64::try_from(keys).unwrap_or(i64::MAX));
            }
            Finish::Everything => everything(read(response)?.as_ref(), now, writer),
        }
        Ok(())
    }
}

/// `values`, newest first; their `context`, or null where there is none; and in `ttl` for each
/// value the milliseconds that it has left, -1 for ever.
fn everything(found: Option<&ReadReply>, now: WallTime, writer: &mut Writer<'_>) {
    let siblings = found.map_or(&[][..], |reply| reply.siblings.as_slice());
    let count = siblings.len() + usize::from(found.is_some());
    writer.map(3);
    writer.bulk(b"values");
    writer.array(count);
    found.iter().for_each(|reply| writer.bulk(&reply.value));
    siblings.iter().for_each(|sibling| writer.bulk(&sibling.value));
    writer.bulk(b"context");
    match found.map(|reply| &reply.context).filter(|context| !context.is_empty()) {
        Some(context) => writer.bulk(token::of_context(context).as_bytes()),
        None => writer.null(),
    }
    writer.bulk(b"ttl");
    writer.array(count);
    let ends = found.iter().map(|reply| reply.expires_at).chain(siblings.iter().map(|sibling| sibling.expires_at));
    ends.for_each(|end| {
        let left = end.map(|end| i64::try_from(end.0.saturating_sub(now.0)).unwrap_or(i64::MAX));
        writer.integer(left.unwrap_or(-1));
    });
}

/// Stored bytes: key, value, and the 64 that a version's stamp, expiry and checksum take.
fn usage(key_bytes: usize, summary: &Summary) -> i64 {
    i64::try_from(key_bytes).unwrap_or(i64::MAX).saturating_add(i64::from(summary.value_bytes.unwrap_or(0)) + 64)
}

fn time_left(summary: Option<Summary>, unit: TimeLeft, now: WallTime) -> i64 {
    let Some(summary) = summary else { return -2 };
    let Some(at) = summary.expires_at else { return -1 };
    let milliseconds = match unit {
        TimeLeft::Seconds | TimeLeft::Milliseconds => at.0.saturating_sub(now.0),
        TimeLeft::AtSecond | TimeLeft::AtMillisecond => at.0,
    };
    let number = match unit {
        TimeLeft::Seconds | TimeLeft::AtSecond => milliseconds.saturating_add(500) / 1000,
        TimeLeft::Milliseconds | TimeLeft::AtMillisecond => milliseconds,
    };
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// The bytes from one place to another, both counted from the end if negative.
fn part(value: &[u8], start: i64, end: i64) -> &[u8] {
    let length = i64::try_from(value.len()).unwrap_or(i64::MAX);
    if start < 0 && end < 0 && start > end {
        return b"";
    }
    let place = |index: i64| if index < 0 { index.saturating_add(length).max(0) } else { index };
    let (start, end) = (place(start), place(end).min(length - 1));
    if start > end || length == 0 {
        return b"";
    }
    &value[start as usize..=end as usize]
}

/// A timeout in milliseconds, as WAIT takes it.
pub(super) fn wait_timeout(text: &[u8]) -> Result<u64, ErrorReply> {
    let number = integer(text).ok_or("ERR timeout is not an integer or out of range")?;
    u64::try_from(number).map_err(|_| "ERR timeout is negative".into())
}

/// Some version, for tests.
#[cfg(test)]
pub(super) fn test_stamp() -> crate::types::Stamp {
    let node = crate::types::NodeId::new(1).expect("not zero");
    let actor = crate::types::Actor { node, incarnation: Default::default() };
    let dot = crate::types::Dot { actor, counter: Default::default() };
    crate::types::Stamp { timestamp: Default::default(), dot }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_a_value_are_those_of_redis() {
        let cases: [(i64, i64, &str); 12] = [
            (0, -1, "This is a string"),
            (0, 3, "This"),
            (-3, -1, "ing"),
            (10, 100, "string"),
            (5, 4, ""),
            (-1, -3, ""),
            (-100, 0, "T"),
            (0, -100, "T"),
            (-100, -50, "T"),
            (16, 20, ""),
            (i64::MIN, i64::MAX, "This is a string"),
            (i64::MAX, i64::MIN, ""),
        ];
        for (start, end, expected) in cases {
            assert_eq!(part(b"This is a string", start, end), expected.as_bytes(), "{start} {end}");
        }
        assert_eq!(part(b"", 0, -1), b"");
    }

    #[test]
    fn time_left_is_rounded_as_redis_rounds_it() {
        use TimeLeft::{AtMillisecond, AtSecond, Milliseconds, Seconds};
        let stamp = test_stamp();
        let summary = |at: Option<u64>| Some(Summary { stamp, expires_at: at.map(WallTime), value_bytes: Some(1) });
        let now = WallTime(10_000);
        for unit in [Seconds, Milliseconds, AtSecond, AtMillisecond] {
            assert_eq!(time_left(None, unit, now), -2);
            assert_eq!(time_left(summary(None), unit, now), -1);
        }
        assert_eq!(time_left(summary(Some(11_499)), Seconds, now), 1);
        assert_eq!(time_left(summary(Some(11_500)), Seconds, now), 2);
        assert_eq!(time_left(summary(Some(11_499)), Milliseconds, now), 1_499);
        assert_eq!(time_left(summary(Some(11_499)), AtSecond, now), 11);
        assert_eq!(time_left(summary(Some(11_499)), AtMillisecond, now), 11_499);
        assert_eq!(time_left(summary(Some(u64::MAX)), AtMillisecond, now), i64::MAX);
    }
}
