//! WAIT: how durable is what I wrote?

use std::time::Duration;

use super::super::ask::{Access, Asker, FanOut};
use super::super::finish::wait_timeout;
use super::super::reply::Writer;
use super::super::session::{Begun, Call, Handled, LastWrite, Written};
use super::strings::FAN_OUT;
use crate::ambient;
use crate::types::{Failure, Moment, Operation, Response};

/// How long one request may wait; longer waits ask again, so that none is held for ever.
const ONE_REQUEST: Duration = Duration::from_secs(10);
/// Between two tries where the node refuses at once, for want of replicas for example.
const PAUSE: Duration = Duration::from_millis(50);

/// The number of replicas that durably hold this connection's last write, all of them
/// counted. It waits until there are as many as asked for (or as there can be), or until
/// the time is over; a time of zero is as long as it takes.
pub fn wait(call: &mut Call<'_>, writer: &mut Writer<'_>) -> Handled {
    let asked = call.integer(1)?;
    let timeout_ms = wait_timeout(call.args.at(2))?;
    let there_are = call.shared.backend.map().replication_factor;
    let wanted = u8::try_from(asked.clamp(0, i64::from(there_are))).unwrap_or(there_are);
    let writes = match &call.session.last_write {
        LastWrite::None => {
            // Every replica holds all of nothing.
            writer.integer(i64::from(there_are));
            return Ok(Begun::Replied);
        }
        LastWrite::AtLeast(replicas) => {
            writer.integer(i64::from(*replicas));
            return Ok(Begun::Replied);
        }
        LastWrite::One(written) => std::slice::from_ref(written),
        LastWrite::Many(writes) => writes.as_slice(),
    };
    let known = writes.iter().map(|written| written.acknowledged).min().unwrap_or(there_are);
    if known >= wanted {
        writer.integer(i64::from(known));
        return Ok(Begun::Replied);
    }
    let writes = writes.to_vec();
    let until = (timeout_ms > 0).then(|| ambient::moment().plus(Duration::from_millis(timeout_ms)));
    call.work(move |mut steps| async move {
        let mut known = known;
        loop {
            let now = ambient::moment();
            let left = until.map_or(ONE_REQUEST, |until| until.since(now).min(ONE_REQUEST));
            if left.is_zero() {
                break;
            }
            let mut asker = steps.asker.clone();
            asker.levels.timeout = left;
            known = confirm(&asker, &writes, wanted).await.max(known);
            if known >= wanted || until.is_some_and(|until| until <= ambient::moment()) {
                break;
            }
            pause(until, now).await;
        }
        steps.writer().integer(i64::from(known));
        steps.wrote = Some(LastWrite::remembered(writes, known));
        Ok(steps)
    })
}

/// Waits a little if the requests since `began` were answered before they could wait themselves.
async fn pause(until: Option<Moment>, began: Moment) {
    let now = ambient::moment();
    let left = until.map_or(PAUSE, |until| until.since(now).min(PAUSE));
    if now.since(began) < PAUSE {
        tokio::time::sleep(left).await;
    }
}

/// How many replicas hold every one of the writes, as far as can be said.
async fn confirm(asker: &Asker, writes: &[Written], replicas: u8) -> u8 {
    let operations = writes.iter().cloned().map(move |written| Operation::Confirm {
        key: written.key,
        stamp: written.stamp,
        replicas,
    });
    let mut answers = FanOut::new(asker, Access::Write, FAN_OUT, operations);
    let mut fewest = u8::MAX;
    for written in writes {
        let Some(answer) = answers.next().await else { break };
        let held = match answer {
            Ok(Response::Confirmed(held)) => held,
            Err(super::super::ask::AskError::Failed(Failure::TimedOut { answered, .. })) => answered,
            Err(super::super::ask::AskError::Failed(Failure::InDoubt { acknowledged, .. })) => acknowledged,
            Ok(_) | Err(_) => 0,
        };
        // What was acknowledged stays so.
        fewest = fewest.min(held.max(written.acknowledged));
    }
    fewest
}

impl LastWrite {
    /// The same writes, of which more is known now.
    fn remembered(mut writes: Vec<Written>, known: u8) -> LastWrite {
        for written in &mut writes {
            written.acknowledged = written.acknowledged.max(known);
        }
        match <[Written; 1]>::try_from(writes) {
            Ok([written]) => LastWrite::One(written),
            Err(writes) => LastWrite::Many(writes),
        }
    }
}
