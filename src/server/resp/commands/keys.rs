//! Keys, whatever their values.

use std::collections::BTreeSet;

use super::super::ask::{Access, FanOut};
use super::super::finish::Finish;
use super::super::reply::{SYNTAX, Writer};
use super::super::session::{Call, Handled};
use super::strings::{FAN_OUT, Writes};
use super::values::values_at_once;
use super::{takes, unknown_subcommand};
use crate::ambient;
use crate::types::{CausalContext, Key, Operation, Response};

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
/// of an earlier write in doubt, which must not come up later. Where siblings are kept, what a
/// read sees is deleted, and a value that it does not see would stay in any case.
pub fn del(call: &mut Call<'_>, _: &mut Writer<'_>) -> Handled {
    let mut seen = BTreeSet::new();
    let mut keys: Vec<Key> = Vec::with_capacity(call.args.len() - 1);
    for place in 1..call.args.len() {
        if seen.insert(call.args.at(place)) {
            keys.push(call.key(place)?);
        }
    }
    if call.keeps_siblings() {
        return del_siblings(call, keys);
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
        let deletes = keys.into_iter().map(|key| Operation::Delete { key, context: CausalContext::default() });
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

fn del_siblings(call: &Call<'_>, keys: Vec<Key>) -> Handled {
    let width = values_at_once(call.shared.max_value_bytes);
    call.work(move |mut steps| async move {
        let gets = keys.clone().into_iter().map(|key| Operation::Get { key });
        let mut answers = FanOut::new(&steps.asker, Access::Read, width, gets);
        let mut found = Vec::new();
        let mut asked = keys.into_iter();
        while let Some(answer) = answers.next().await {
            let response = answer.map_err(|error| steps.asker.error(Access::Read, &error))?;
            if let (Response::Read(Some(reply)), Some(key)) = (response, asked.next()) {
                found.push((key, reply.context));
            }
        }
        let count = i64::try_from(found.len()).unwrap_or(i64::MAX);
        let mut named = found.iter().map(|(key, _)| key.clone()).collect::<Vec<_>>().into_iter();
        let deletes = found.into_iter().map(|(key, context)| Operation::Delete { key, context });
        let mut answers = FanOut::new(&steps.asker, Access::Write, FAN_OUT, deletes);
        let mut writes = Writes::default();
        while let Some(answer) = answers.next().await {
            writes.add(answer, named.next());
        }
        if count > 0 {
            steps.wrote = Some(writes.wrote());
        }
        match writes.tally.verdict(steps.asker.levels) {
            Ok(()) => steps.writer().integer(count),
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
