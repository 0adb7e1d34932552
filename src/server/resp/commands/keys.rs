//! Keys, whatever their values.

use std::collections::BTreeSet;

use super::super::ask::{Access, FanOut};
use super::super::finish::Finish;
use super::super::reply::{SYNTAX, Writer};
use super::super::session::{Call, Handled};
use super::strings::{FAN_OUT, Writes};
use super::{takes, unknown_subcommand};
use crate::ambient;
use crate::types::{Key, Operation, Response};

pub fn exists(call: &mut Call<'_>, _: &mut Writer<'_>) -> Handled {
    if call.args.len() == 2 {
        return call.ask(Access::Read, Operation::Head { key: call.key(1)? }, Finish::Present);
    }
    let keys = call.keys(1, 1)?;
    call.work(move |mut steps| async move {
        let heads = keys.into_iter().map(|key| Operation::Head { key });
        let mut answers = FanOut::new(&steps.asker, Access::Read, FAN_OUT, heads);
        let mut found = 0;
        while let Some(answer) = answers.next().await {
            let response = answer.map_err(|error| steps.asker.error(Access::Read, &error))?;
            found += i64::from(is_live(&response));
        }
        steps.writer().integer(found);
        Ok(steps)
    })
}

/// Whether an answer to [`Operation::Head`] is a live value now.
pub(super) fn is_live(response: &Response) -> bool {
    matches!(response, Response::Head(Some(summary)) if summary.is_live(ambient::wall()))
}

pub fn kind(call: &mut Call<'_>, _: &mut Writer<'_>) -> Handled {
    call.ask(Access::Read, Operation::Head { key: call.key(1)? }, Finish::Kind)
}

/// DEL and UNLINK. A tombstone is written whether or not there is a value: there may be one
/// of an earlier write in doubt, which must not come up later.
pub fn del(call: &mut Call<'_>, _: &mut Writer<'_>) -> Handled {
    let mut seen = BTreeSet::new();
    let mut keys: Vec<Key> = Vec::with_capacity(call.args.len() - 1);
    for place in 1..call.args.len() {
        if seen.insert(call.args.at(place)) {
            keys.push(call.key(place)?);
        }
    }
    call.work(move |mut steps| async move {
        let heads = keys.clone().into_iter().map(|key| Operation::Head { key });
        let mut answers = FanOut::new(&steps.asker, Access::Read, FAN_OUT, heads);
        let mut found = 0;
        while let Some(answer) = answers.next().await {
            let response = answer.map_err(|error| steps.asker.error(Access::Read, &error))?;
            found += i64::from(is_live(&response));
        }
        let mut named = keys.clone().into_iter();
        let deletes = keys.into_iter().map(|key| Operation::Delete { key });
        let mut answers = FanOut::new(&steps.asker, Access::Write, FAN_OUT, deletes);
        let mut writes = Writes::default();
        while let Some(answer) = answers.next().await {
            writes.add(answer, named.next());
        }
        steps.wrote = Some(writes.wrote());
        match writes.tally.verdict(steps.asker.levels) {
            Ok(()) => steps.writer().integer(found),
            Err(error) => steps.writer().error(&error),
        }
        Ok(steps)
    })
}

pub fn object(call: &mut Call<'_>, writer: &mut Writer<'_>) -> Handled {
    match call.word(1).as_slice() {
        b"encoding" => {
            takes(call, "encoding", 3)?;
            call.ask(Access::Read, Operation::Head { key: call.key(2)? }, Finish::Encoding)
        }
        b"help" => {
            writer.array(1);
            writer.simple("OBJECT ENCODING <key>");
            Ok(super::super::session::Begun::Replied)
        }
        _ => Err(unknown_subcommand(call)),
    }
}

pub fn memory(call: &mut Call<'_>, writer: &mut Writer<'_>) -> Handled {
    match call.word(1).as_slice() {
        b"usage" => {
            takes(call, "usage", -3)?;
            // Values have no parts that could be sampled.
            if call.args.len() != 3 && !(call.args.len() == 5 && call.word(3) == b"samples") {
                return Err(SYNTAX.into());
            }
            let key = call.key(2)?;
            let finish = Finish::Usage(key.bytes().len());
            call.ask(Access::Read, Operation::Head { key }, finish)
        }
        b"help" => {
            writer.array(1);
            writer.simple("MEMORY USAGE <key> [SAMPLES <count>]");
            Ok(super::super::session::Begun::Replied)
        }
        _ => Err(unknown_subcommand(call)),
    }
}
