//! Values: reading and writing them.

use std::collections::BTreeSet;

use super::super::ask::{Access, AskError, FanOut, WriteTally};
use super::super::dispatch::wrong_arity;
use super::super::finish::Finish;
use super::super::reply::{ErrorReply, NOT_AN_INTEGER, SYNTAX, Writer};
use super::super::session::{Call, Handled, LastWrite, Written, at};
use super::super::window::WIDTH;
use super::refused::not_offered;
use crate::types::{CausalContext, Expiry, Operation, Response, limits};

/// Requests of one command under way at once.
pub(super) const FAN_OUT: usize = WIDTH / 4;
/// Keys of one command that WAIT remembers; of more it only knows how many replicas all have.
const REMEMBERED: usize = 1_024;

pub fn get(call: &mut Call<'_>, _: &mut Writer<'_>) -> Handled {
    call.ask(Access::Read, Operation::Get { key: call.key(1)? }, Finish::Value)
}

pub fn strlen(call: &mut Call<'_>, _: &mut Writer<'_>) -> Handled {
    call.ask(Access::Read, Operation::Head { key: call.key(1)? }, Finish::Length)
}

pub fn getrange(call: &mut Call<'_>, _: &mut Writer<'_>) -> Handled {
    let (start, end) = (call.integer(2)?, call.integer(3)?);
    call.ask(Access::Read, Operation::Get { key: call.key(1)? }, Finish::Range { start, end })
}

pub fn set(call: &mut Call<'_>, _: &mut Writer<'_>) -> Handled {
    let expiry = match call.args.len() {
        3 => Expiry::Never,
        _ => end_of(call, 3, &Options::SET)?.unwrap_or(Expiry::Never),
    };
    put(call, 2, expiry)
}

pub fn setex(call: &mut Call<'_>, _: &mut Writer<'_>) -> Handled {
    let expiry = end(call, b"ex", 2)?;
    put(call, 3, expiry)
}

pub fn psetex(call: &mut Call<'_>, _: &mut Writer<'_>) -> Handled {
    let expiry = end(call, b"px", 2)?;
    put(call, 3, expiry)
}

fn put(call: &Call<'_>, value: usize, expiry: Expiry) -> Handled {
    let key = call.key(1)?;
    let operation =
        Operation::Put { key: key.clone(), value: call.value(value)?, expiry, context: CausalContext::default() };
    call.ask(Access::Write, operation, Finish::Stored(key))
}

pub fn getex(call: &mut Call<'_>, _: &mut Writer<'_>) -> Handled {
    let expiry = end_of(call, 2, &Options::GETEX)?;
    let key = call.key(1)?;
    match expiry {
        None => call.ask(Access::Read, Operation::Get { key }, Finish::Value),
        Some(expiry) => call.ask(Access::Write, Operation::SetExpiry { key, expiry }, Finish::ValueChanged),
    }
}

/// Which options a command knows besides the times.
struct Options {
    /// Those that keep or remove an end: their word, and what it comes to.
    fixed: (&'static [u8], Expiry),
    /// Those that need SERIAL consistency.
    serial: &'static [&'static [u8]],
}

impl Options {
    const SET: Options = Options { fixed: (b"keepttl", Expiry::Keep), serial: &[b"nx", b"xx", b"get"] };
    const GETEX: Options = Options { fixed: (b"persist", Expiry::Never), serial: &[] };
}

/// The end that the options from a place on ask for, if they name one.
fn end_of(call: &Call<'_>, from: usize, options: &Options) -> Result<Option<Expiry>, ErrorReply> {
    let mut found = None;
    let mut serial = None;
    let mut place = from;
    while place < call.args.len() {
        let word = call.word(place);
        if options.serial.contains(&word.as_slice()) {
            serial = Some(word);
            place += 1;
            continue;
        }
        let (expiry, taken) = match word.as_slice() {
            b"ex" | b"px" | b"exat" | b"pxat" if place + 1 < call.args.len() => (end(call, &word, place + 1)?, 2),
            word if word == options.fixed.0 => (options.fixed.1, 1),
            _ => return Err(SYNTAX.into()),
        };
        if found.replace(expiry).is_some() {
            return Err(SYNTAX.into());
        }
        place += taken;
    }
    match serial {
        Some(word) => {
            let option = String::from_utf8_lossy(&word).to_ascii_uppercase();
            Err(not_offered(&format!("{} with {option}", call.spec.name.to_ascii_uppercase())))
        }
        None => Ok(found),
    }
}

/// The end that a time at a place means in this unit.
pub(super) fn end(call: &Call<'_>, unit: &[u8], place: usize) -> Result<Expiry, ErrorReply> {
    let number = super::super::decode::integer(call.args.at(place)).ok_or(NOT_AN_INTEGER)?;
    let invalid = || ErrorReply::from(format!("ERR invalid expire time in '{}' command", call.spec.name));
    if number <= 0 {
        return Err(invalid());
    }
    let milliseconds = match unit {
        b"ex" | b"exat" => number.checked_mul(1000).ok_or_else(invalid)?,
        _ => number,
    };
    match unit {
        b"ex" | b"px" => call.expiry_in(milliseconds).ok_or_else(invalid),
        _ => Ok(at(milliseconds)),
    }
}

pub fn mget(call: &mut Call<'_>, _: &mut Writer<'_>) -> Handled {
    let keys = call.keys(1, 1)?;
    let width = (limits::RESP_READ_BYTES / call.shared.max_value_bytes.max(1)).clamp(16, FAN_OUT);
    call.work(move |mut steps| async move {
        let count = keys.len();
        let gets = keys.into_iter().map(|key| Operation::Get { key });
        let mut answers = FanOut::new(&steps.asker, Access::Read, width, gets);
        steps.writer().array(count);
        while let Some(answer) = answers.next().await {
            match answer {
                Ok(Response::Read(Some(reply))) => steps.writer().bulk(&reply.value),
                Ok(_) => steps.writer().null(),
                Err(error) => return Err(steps.asker.error(Access::Read, &error)),
            }
            if steps.reply.len() > limits::RESP_REPLY_BYTES {
                return Err(too_much());
            }
        }
        Ok(steps)
    })
}

/// A reply would take more memory than one client may have.
pub(super) fn too_much() -> ErrorReply {
    format!("ERR the reply would be longer than {} bytes; ask for less at once", limits::RESP_REPLY_BYTES).into()
}

pub fn mset(call: &mut Call<'_>, _: &mut Writer<'_>) -> Handled {
    if call.args.len().is_multiple_of(2) {
        return Err(wrong_arity("mset"));
    }
    let mut pairs = Vec::with_capacity(call.args.len() / 2);
    let mut seen = BTreeSet::new();
    // Of a key that is named twice the last value counts.
    for place in (1..call.args.len()).step_by(2).rev() {
        let key = call.key(place)?;
        let value = call.value(place + 1)?;
        if seen.insert(call.args.at(place)) {
            pairs.push((key, value));
        }
    }
    call.work(move |mut steps| async move {
        let mut keys = pairs.iter().map(|(key, _)| key.clone()).collect::<Vec<_>>().into_iter();
        let context = CausalContext::default();
        let puts = pairs.into_iter().map(move |(key, value)| {
            let (expiry, context) = (Expiry::Never, context.clone());
            Operation::Put { key, value, expiry, context }
        });
        let mut answers = FanOut::new(&steps.asker, Access::Write, FAN_OUT, puts);
        let mut writes = Writes::default();
        while let Some(answer) = answers.next().await {
            writes.add(answer, keys.next());
        }
        steps.wrote = Some(writes.wrote());
        match writes.tally.verdict(steps.asker.levels) {
            Ok(()) => steps.writer().ok(),
            Err(error) => steps.writer().error(&error),
        }
        Ok(steps)
    })
}

/// Gathers how the writes of one command ended.
#[derive(Default)]
pub(super) struct Writes {
    pub tally: WriteTally,
    written: Vec<Written>,
    fewest: Option<u8>,
}

impl Writes {
    pub fn add(&mut self, answer: Result<Response, AskError>, key: Option<crate::types::Key>) {
        if let Err(AskError::Failed(crate::types::Failure::InDoubt { acknowledged, .. })) = &answer {
            self.note(*acknowledged);
        }
        if let Some(Response::Written(reply)) = self.tally.add(answer) {
            self.note(reply.acknowledged);
            if let Some(key) = key.filter(|_| self.written.len() < REMEMBERED) {
                // The key may be a part of a large command, which must not live on with it.
                let bytes = bytes::Bytes::copy_from_slice(key.bytes());
                if let Ok(key) = crate::types::Key::new(key.namespace(), bytes) {
                    self.written.push(Written { key, stamp: reply.stamp, acknowledged: reply.acknowledged });
                }
            }
        }
    }

    fn note(&mut self, acknowledged: u8) {
        self.fewest = Some(self.fewest.map_or(acknowledged, |fewest| fewest.min(acknowledged)));
    }

    /// What WAIT may say of them.
    pub fn wrote(&mut self) -> LastWrite {
        if self.tally.all_done(self.written.len()) {
            LastWrite::Many(std::mem::take(&mut self.written))
        } else {
            LastWrite::AtLeast(self.fewest.unwrap_or(0))
        }
    }
}
