//! When values end.

use super::super::ask::Access;
use super::super::dispatch::printable;
use super::super::finish::{Finish, TimeLeft};
use super::super::reply::{ErrorReply, Writer};
use super::super::session::{Call, Handled, LastWrite, at};
use super::keys::is_live;
use super::refused::not_offered;
use super::values;
use crate::types::{CausalContext, Expiry, Operation, Response};

pub fn expire(call: &mut Call<'_>, _: &mut Writer<'_>) -> Handled {
    set_end(call, 1000, true)
}

pub fn pexpire(call: &mut Call<'_>, _: &mut Writer<'_>) -> Handled {
    set_end(call, 1, true)
}

pub fn expireat(call: &mut Call<'_>, _: &mut Writer<'_>) -> Handled {
    set_end(call, 1000, false)
}

pub fn pexpireat(call: &mut Call<'_>, _: &mut Writer<'_>) -> Handled {
    set_end(call, 1, false)
}

fn set_end(call: &Call<'_>, unit_ms: i64, relative: bool) -> Handled {
    let number = call.integer(2)?;
    check_options(call)?;
    let invalid = || ErrorReply::from(format!("ERR invalid expire time in '{}' command", call.spec.name));
    let milliseconds = number.checked_mul(unit_ms).ok_or_else(invalid)?;
    let expiry = if relative { call.expiry_in(milliseconds).ok_or_else(invalid)? } else { at(milliseconds) };
    let key = call.key(1)?;
    match expiry {
        Expiry::At(end) if end <= call.wall => delete_if_there(call, key),
        expiry => call.ask(Access::Write, Operation::SetExpiry { key, expiry }, Finish::Changed),
    }
}

fn check_options(call: &Call<'_>) -> Result<(), ErrorReply> {
    let words: Vec<Vec<u8>> = (3..call.args.len()).map(|place| call.word(place)).collect();
    let has = |word: &[u8]| words.iter().any(|found| found == word);
    if let Some(place) = words.iter().position(|word| ![&b"nx"[..], b"xx", b"gt", b"lt"].contains(&word.as_slice())) {
        return Err(format!("ERR Unsupported option {}", printable(call.args.at(3 + place))).into());
    }
    if has(b"nx") && (has(b"xx") || has(b"gt") || has(b"lt")) {
        return Err("ERR NX and XX, GT or LT options at the same time are not compatible".into());
    }
    if has(b"gt") && has(b"lt") {
        return Err("ERR GT and LT options at the same time are not compatible".into());
    }
    match words.first() {
        Some(word) => {
            let option = String::from_utf8_lossy(word).to_ascii_uppercase();
            Err(not_offered(&format!("{} with {option}", call.spec.name.to_ascii_uppercase())))
        }
        None => Ok(()),
    }
}

/// A value that ended in the past is deleted.
fn delete_if_there(call: &Call<'_>, key: crate::types::Key) -> Handled {
    let siblings = call.keeps_siblings();
    call.work(move |mut steps| async move {
        let head = steps.asker.ask(Access::Read, Operation::Head { key: key.clone() }).await;
        let head = head.map_err(|error| steps.asker.error(Access::Read, &error))?;
        if !is_live(&head) {
            steps.writer().integer(0);
            return Ok(steps);
        }
        let context = match siblings {
            true => values::seen(&steps, &key).await?.unwrap_or_default(),
            false => CausalContext::default(),
        };
        values::delete(&mut steps, key, context).await?;
        steps.writer().integer(1);
        Ok(steps)
    })
}

/// Only a value that has an end is written anew.
pub fn persist(call: &mut Call<'_>, _: &mut Writer<'_>) -> Handled {
    let key = call.key(1)?;
    let replicas = usize::from(call.shared.backend.map().replication_factor);
    call.work(move |mut steps| async move {
        let head = steps.asker.ask(Access::Read, Operation::Head { key: key.clone() }).await;
        let head = head.map_err(|error| steps.asker.error(Access::Read, &error))?;
        let ends = is_live(&head) && matches!(&head, Response::Head(Some(summary)) if summary.expires_at.is_some());
        let mut changed = false;
        if ends {
            let set = steps.asker.ask(Access::Write, Operation::SetExpiry { key, expiry: Expiry::Never }).await;
            let set = set.map_err(|error| steps.asker.error(Access::Write, &error))?;
            changed = matches!(set, Response::Read(Some(_)));
        }
        if changed {
            let required = steps.asker.levels.write.required(replicas).min(replicas);
            steps.wrote = Some(LastWrite::AtLeast(u8::try_from(required).unwrap_or(u8::MAX)));
        }
        steps.writer().integer(i64::from(changed));
        Ok(steps)
    })
}

pub fn ttl(call: &mut Call<'_>, _: &mut Writer<'_>) -> Handled {
    left(call, TimeLeft::Seconds)
}

pub fn pttl(call: &mut Call<'_>, _: &mut Writer<'_>) -> Handled {
    left(call, TimeLeft::Milliseconds)
}

pub fn expiretime(call: &mut Call<'_>, _: &mut Writer<'_>) -> Handled {
    left(call, TimeLeft::AtSecond)
}

pub fn pexpiretime(call: &mut Call<'_>, _: &mut Writer<'_>) -> Handled {
    left(call, TimeLeft::AtMillisecond)
}

fn left(call: &Call<'_>, unit: TimeLeft) -> Handled {
    call.ask(Access::Read, Operation::Head { key: call.key(1)? }, Finish::Left(unit))
}
