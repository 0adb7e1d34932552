//! Keys with all their concurrent values, causal contexts and op-ids: KV.GET, KV.PUT,
//! KV.DEL, KV.RESOLVE.
//!
//! In a namespace that keeps siblings a write replaces exactly what its context has seen.
//! A deletion without a context deletes what a read sees: a deletion that has seen nothing
//! would delete nothing. Where the last write wins there are no contexts, and these
//! commands are SET, GET and DEL under other names.

use super::super::ask::{Access, AskError};
use super::super::dispatch::op_id;
use super::super::finish::Finish;
use super::super::reply::{ErrorReply, SYNTAX, Writer};
use super::super::session::{Call, Handled, LastWrite, Steps, Written};
use super::strings::end;
use crate::server::token;
use crate::types::{CausalContext, Expiry, Failure, Key, Operation, Refusal, Response, limits};

pub fn get(call: &mut Call<'_>, _: &mut Writer<'_>) -> Handled {
    call.ask(Access::Read, Operation::Get { key: call.key(1)? }, Finish::Everything)
}

pub fn put(call: &mut Call<'_>, _: &mut Writer<'_>) -> Handled {
    let (mut context, mut expiry) = (None, None);
    for place in (3..call.args.len()).step_by(2) {
        if place + 1 == call.args.len() {
            return Err(SYNTAX.into());
        }
        let word = call.word(place);
        let again = match word.as_slice() {
            b"context" => context.replace(context_at(call, place + 1)?).is_some(),
            b"ex" | b"px" | b"exat" | b"pxat" => expiry.replace(end(call, &word, place + 1)?).is_some(),
            _ => true,
        };
        if again {
            return Err(SYNTAX.into());
        }
    }
    let (context, expiry) = (context.unwrap_or_default(), expiry.unwrap_or(Expiry::Never));
    let (key, value) = (call.key(1)?, call.value(2)?);
    let operation = Operation::Put { key: key.clone(), value, expiry, context };
    call.ask(Access::Write, operation, Finish::Stored(key))
}

fn context_at(call: &Call<'_>, place: usize) -> Result<CausalContext, ErrorReply> {
    token::context(call.args.at(place)).map_err(|error| format!("ERR {error}").into())
}

pub fn del(call: &mut Call<'_>, _: &mut Writer<'_>) -> Handled {
    let context = match (call.args.len(), call.word(2).as_slice()) {
        (2, _) => None,
        (4, b"context") => Some(context_at(call, 3)?),
        _ => return Err(SYNTAX.into()),
    };
    let key = call.key(1)?;
    if context.is_some() || !call.keeps_siblings() {
        let operation = Operation::Delete { key: key.clone(), context: context.unwrap_or_default() };
        return call.ask(Access::Write, operation, Finish::Stored(key));
    }
    call.work(move |mut steps| async move {
        if let Some(context) = seen(&steps, &key).await? {
            delete(&mut steps, key, context).await?;
        }
        steps.writer().ok();
        Ok(steps)
    })
}

/// What a read sees of a key that has siblings; none if there is no value.
pub(super) async fn seen(steps: &Steps, key: &Key) -> Result<Option<CausalContext>, ErrorReply> {
    match steps.asker.ask(Access::Read, Operation::Get { key: key.clone() }).await {
        Ok(Response::Read(found)) => Ok(found.map(|reply| reply.context)),
        Ok(_) => Err("ERR internal error: the answer does not fit the request".into()),
        Err(error) => Err(steps.asker.error(Access::Read, &error)),
    }
}

/// Deletes what a context has seen.
pub(super) async fn delete(steps: &mut Steps, key: Key, context: CausalContext) -> Result<(), ErrorReply> {
    let operation = Operation::Delete { key: key.clone(), context };
    let deleted = steps.asker.ask(Access::Write, operation).await;
    if let Response::Written(reply) = deleted.map_err(|error| steps.asker.error(Access::Write, &error))? {
        let (stamp, acknowledged) = (reply.stamp, reply.acknowledged);
        steps.wrote = Some(LastWrite::One(Written { key, stamp, acknowledged }));
    }
    Ok(())
}

pub fn resolve(call: &mut Call<'_>, _: &mut Writer<'_>) -> Handled {
    let (key, op) = (call.key(1)?, op_id(call.args.at(2))?);
    call.work(move |mut steps| async move {
        match steps.asker.ask(Access::Write, Operation::Resolve { key: key.clone(), op }).await {
            Ok(Response::Written(reply)) => {
                let (stamp, acknowledged) = (reply.stamp, reply.acknowledged);
                steps.wrote = Some(LastWrite::One(Written { key, stamp, acknowledged }));
                let mut writer = steps.writer();
                writer.map(3);
                writer.bulk(b"outcome");
                writer.bulk(b"applied");
                writer.bulk(b"version");
                writer.bulk(token::version(&stamp).as_bytes());
                writer.bulk(b"acknowledged");
                writer.integer(i64::from(acknowledged));
            }
            Ok(_) => return Err("ERR internal error: the answer does not fit the request".into()),
            Err(AskError::Failed(Failure::NotApplied(Refusal::Fenced))) => {
                let mut writer = steps.writer();
                writer.map(1);
                writer.bulk(b"outcome");
                writer.bulk(b"not-applied");
            }
            Err(error) => return Err(steps.asker.error(Access::Write, &error)),
        }
        Ok(steps)
    })
}

/// Gets with all their values that one command has under way at once.
pub(super) fn values_at_once(max_value_bytes: usize) -> usize {
    (limits::RESP_READ_BYTES / max_value_bytes.max(1) / 4).clamp(1, super::strings::FAN_OUT)
}
