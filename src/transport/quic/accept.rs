//! Letting in those who dial, and saying who was turned away.
//!
//! Invariants: at most `max_handshakes` are heard out at once, each for at most
//! `handshake_timeout`; from half of that on a stranger must first prove that its
//! address is its own; however many are turned away, at most [`LOGGED_PER_SECOND`]
//! lines a second say so (all are counted).

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use quinn::Incoming;
use tokio::sync::Semaphore;

use super::Shared;
use super::codes::Failed;
use super::handshake;
use crate::ambient;
use crate::transport::counters::HandshakeRefusal;
use crate::types::Moment;

const LOGGED_PER_SECOND: u32 = 20;

/// Until the endpoint is closed.
pub(super) async fn accept_all(shared: Arc<Shared>) {
    let most = shared.options.settings.max_handshakes;
    let room = Arc::new(Semaphore::new(most));
    let log = Arc::new(Mutex::new(Limiter::default()));
    while let Some(incoming) = shared.endpoint.accept().await {
        if room.available_permits() <= most / 2 && !incoming.remote_address_validated() && incoming.may_retry() {
            // The error means that it has been asked for already, which was ruled out.
            let _ = incoming.retry();
            continue;
        }
        let Ok(permit) = room.clone().try_acquire_owned() else {
            shared.counters.refuse(HandshakeRefusal::Overloaded);
            incoming.refuse();
            continue;
        };
        let (shared, log) = (shared.clone(), log.clone());
        tokio::spawn(async move {
            hear(&shared, &log, incoming).await;
            drop(permit);
        });
    }
}

async fn hear(shared: &Shared, log: &Mutex<Limiter>, incoming: Incoming) {
    let address = incoming.remote_address();
    let failed = match handshake::accept(shared, incoming).await {
        Ok((slot, meeting)) => return slot.accepted(meeting).await,
        Err(failed) => failed,
    };
    shared.note_failure(&failed);
    let Some(unsaid) = log.lock().unwrap_or_else(PoisonError::into_inner).allows(ambient::moment()) else { return };
    if unsaid > 0 {
        tracing::warn!(unsaid, "more connections were turned away than are logged");
    }
    match failed {
        Failed::Refused(reason, text) => {
            tracing::warn!(%address, reason = reason.name(), "refused a connection: {text}");
        }
        Failed::ByPeer(reason, text) => {
            tracing::warn!(%address, reason = reason.name(), "a node that dialled refuses this node: {text}");
        }
        Failed::Crossed => tracing::debug!(%address, "a node that was reached from here dialled at the same time"),
        Failed::Gone(text) => tracing::debug!(%address, "a connection broke off before the greetings: {text}"),
    }
}

/// So many lines in any second.
#[derive(Default)]
struct Limiter {
    since: Moment,
    said: u32,
    unsaid: u64,
}

impl Limiter {
    /// Whether a line may be written now, and how many were not since the last one.
    fn allows(&mut self, now: Moment) -> Option<u64> {
        if now.since(self.since) >= Duration::from_secs(1) {
            self.since = now;
            self.said = 0;
        }
        if self.said >= LOGGED_PER_SECOND {
            self.unsaid += 1;
            return None;
        }
        self.said += 1;
        Some(std::mem::take(&mut self.unsaid))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_logged_in_part_and_the_rest_is_numbered() {
        let mut limiter = Limiter::default();
        let start = Moment(5_000_000);
        let said = (0..100).filter(|_| limiter.allows(start).is_some()).count();
        assert_eq!(said, LOGGED_PER_SECOND as usize);
        assert_eq!(limiter.allows(start.plus(Duration::from_secs(1))), Some(80));
        assert_eq!(limiter.allows(start.plus(Duration::from_secs(1))), Some(0));
    }
}
