//! Asking the node on behalf of one command, and what its failures are called in RESP.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::sync::oneshot;

use super::reply::{ErrorReply, TOO_LONG};
use crate::server::Backend;
use crate::server::seen::{Place, Seen};
use crate::types::{ConsistencyLevel, Failure, NamespaceId, OpId, Operation, Outcome, Refusal, Request, Response};

/// How the requests of one command are to be carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Levels {
    pub read: ConsistencyLevel,
    pub write: ConsistencyLevel,
    pub timeout: Duration,
    /// The client's name for the write.
    pub op_id: Option<OpId>,
}

impl Levels {
    /// Whether a read at these might miss what this connection has written or read.
    pub fn are_weak(&self) -> bool {
        let strong = |level| matches!(level, ConsistencyLevel::Quorum | ConsistencyLevel::All);
        !strong(self.read) || !strong(self.write)
    }
}

/// What a connection has written and read; there is none as long as quorums see it anyway.
pub(super) type Tracker = Arc<Mutex<Seen>>;

/// Looks into it.
pub(super) fn look(tracker: &Tracker) -> MutexGuard<'_, Seen> {
    tracker.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether a request can have changed anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    Read,
    Write,
}

/// A request that did not succeed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum AskError {
    /// The node says why.
    Failed(Failure),
    /// The node stopped before it answered: a write may still take effect.
    Stopped,
}

/// An answer to come.
pub(super) struct Answer {
    receiver: oneshot::Receiver<Outcome>,
    /// Where it is noted.
    noted: Option<(Tracker, Place)>,
}

impl From<oneshot::Receiver<Outcome>> for Answer {
    fn from(receiver: oneshot::Receiver<Outcome>) -> Answer {
        Answer { receiver, noted: None }
    }
}

impl Answer {
    /// Begins a request.
    pub fn to(
        backend: &dyn Backend,
        levels: &Levels,
        tracker: Option<&Tracker>,
        access: Access,
        operation: Operation,
    ) -> Answer {
        let (consistency, op_id) = match access {
            Access::Read => (levels.read, None),
            Access::Write => (levels.write, levels.op_id),
        };
        let mut request = Request { timeout: Some(levels.timeout), op_id, ..Request::new(operation, consistency) };
        let noted = tracker.and_then(|tracker| {
            let place = Place::of(&backend.map(), &request.operation, consistency)?;
            look(tracker).guard(&mut request, place);
            Some((Arc::clone(tracker), place))
        });
        Answer { receiver: backend.submit(request), noted }
    }

    /// Waits for it.
    pub async fn settle(mut self) -> Result<Response, AskError> {
        std::future::poll_fn(|context| self.poll_settled(context)).await
    }

    /// What has become of it, if it is there.
    pub fn poll_settled(&mut self, context: &mut Context<'_>) -> Poll<Result<Response, AskError>> {
        // It is mostly there already, and then needs no waker.
        let outcome = match self.receiver.try_recv() {
            Ok(outcome) => Ok(outcome),
            Err(oneshot::error::TryRecvError::Closed) => return Poll::Ready(Err(AskError::Stopped)),
            Err(oneshot::error::TryRecvError::Empty) => match Pin::new(&mut self.receiver).poll(context) {
                Poll::Ready(outcome) => outcome,
                Poll::Pending => return Poll::Pending,
            },
        };
        Poll::Ready(match outcome {
            Ok(Ok(response)) => {
                if let Some((tracker, place)) = &self.noted {
                    look(tracker).note(*place, &response);
                }
                Ok(response)
            }
            Ok(Err(failure)) => Err(AskError::Failed(failure)),
            Err(_) => Err(AskError::Stopped),
        })
    }
}

/// Asks for commands that need more than one request; owned by their futures.
#[derive(Clone)]
pub(super) struct Asker {
    pub backend: Arc<dyn Backend>,
    pub levels: Levels,
    pub tracker: Option<Tracker>,
    /// The namespace of the connection.
    pub namespace: NamespaceId,
}

impl Asker {
    /// Begins a request now.
    pub fn submit(&self, access: Access, operation: Operation) -> Answer {
        Answer::to(&*self.backend, &self.levels, self.tracker.as_ref(), access, operation)
    }

    /// Begins a request and waits for its answer.
    pub async fn ask(&self, access: Access, operation: Operation) -> Result<Response, AskError> {
        self.submit(access, operation).settle().await
    }

    /// The reply for a failed request.
    pub fn error(&self, access: Access, error: &AskError) -> ErrorReply {
        error_reply(access, self.levels, error)
    }
}

/// The answers of many requests, in order, of which at most `width` are under way.
pub(super) struct FanOut<I> {
    asker: Asker,
    access: Access,
    operations: I,
    waiting: VecDeque<Answer>,
    width: usize,
}

impl<I: Iterator<Item = Operation>> FanOut<I> {
    /// Nothing is asked before the first answer is awaited.
    pub fn new(asker: &Asker, access: Access, width: usize, operations: I) -> FanOut<I> {
        FanOut { asker: asker.clone(), access, operations, waiting: VecDeque::new(), width: width.max(1) }
    }

    /// The next answer, or none after the last.
    pub async fn next(&mut self) -> Option<Result<Response, AskError>> {
        while self.waiting.len() < self.width
            && let Some(operation) = self.operations.next()
        {
            self.waiting.push_back(self.asker.submit(self.access, operation));
        }
        Some(self.waiting.pop_front()?.settle().await)
    }
}

/// The text for a failure (CLIENTS.md, Errors). Clients retry TRYAGAIN and CLUSTERDOWN by
/// themselves, so these may only stand for what was certainly not applied.
pub(super) fn error_reply(access: Access, levels: Levels, error: &AskError) -> ErrorReply {
    let timeout_ms = levels.timeout.as_millis();
    let (side, level) = match access {
        Access::Read => ("read", levels.read),
        Access::Write => ("write", levels.write),
    };
    match (error, access) {
        (AskError::Stopped, Access::Write) => "INDOUBT the node stopped; the write may still take effect".into(),
        (AskError::Stopped, Access::Read) => "TRYAGAIN the node stopped, not executed".into(),
        (AskError::Failed(Failure::InDoubt { acknowledged, needed }), _) => format!(
            "INDOUBT {acknowledged} of {needed} acknowledgements within {timeout_ms}ms; the write may still take effect"
        )
        .into(),
        (AskError::Failed(Failure::TimedOut { .. }), _) => {
            format!("TRYAGAIN {side}={level} not reached within {timeout_ms}ms").into()
        }
        (AskError::Failed(Failure::NotApplied(refusal)), _) => refusal_reply(access, side, level, refusal),
    }
}

fn refusal_reply(access: Access, side: &str, level: ConsistencyLevel, refusal: &Refusal) -> ErrorReply {
    match refusal {
        Refusal::TooFewReplicas { alive, needed } => match access {
            Access::Write => "NOREPLICAS Not enough good replicas to write.".into(),
            Access::Read => {
                format!("CLUSTERDOWN not enough live replicas for {side}={level} ({alive} of {needed})").into()
            }
        },
        Refusal::Overloaded => "TRYAGAIN overloaded, not executed".into(),
        Refusal::ShuttingDown => "TRYAGAIN the node is shutting down, not executed".into(),
        Refusal::ValueTooLong { .. } => TOO_LONG.into(),
        Refusal::UnknownNamespace => "ERR unknown namespace".into(),
        Refusal::ClockSkew { .. } => format!("MISCONF {refusal}, not executed").into(),
        Refusal::WrongEpoch { .. } => format!("TRYAGAIN {refusal}, not executed").into(),
        // Certainly not applied, and another node or another try may fare better.
        Refusal::ClockUnsure { .. } | Refusal::Behind { .. } | Refusal::NodeFenced(_) => {
            format!("TRYAGAIN {refusal}, not executed").into()
        }
        Refusal::TooManySiblings { .. } | Refusal::Fenced | Refusal::OpIdReused => format!("ERR {refusal}").into(),
        Refusal::Invalid(text) => format!("ERR {text}").into(),
    }
}

/// Adds up how a command of several writes ended. One that took effect in part is in
/// doubt as a whole, whatever the others say of themselves.
#[derive(Default)]
pub(super) struct WriteTally {
    done: usize,
    refused: usize,
    first_refusal: Option<AskError>,
    doubt: Option<AskError>,
}

impl WriteTally {
    pub fn add<T>(&mut self, result: Result<T, AskError>) -> Option<T> {
        match result {
            Ok(value) => {
                self.done += 1;
                return Some(value);
            }
            Err(error @ AskError::Failed(Failure::NotApplied(_) | Failure::TimedOut { .. })) => {
                self.refused += 1;
                self.first_refusal.get_or_insert(error);
            }
            Err(error) => {
                self.doubt.get_or_insert(error);
            }
        }
        None
    }

    /// Whether this many writes were done, and no other was tried.
    pub fn all_done(&self, writes: usize) -> bool {
        self.doubt.is_none() && self.refused == 0 && self.done == writes
    }

    /// The error for the whole command, if any.
    pub fn verdict(&self, levels: Levels) -> Result<(), ErrorReply> {
        match (&self.doubt, &self.first_refusal) {
            (Some(doubt), _) => Err(error_reply(Access::Write, levels, doubt)),
            (None, Some(refusal)) if self.done == 0 => Err(error_reply(Access::Write, levels, refusal)),
            (None, Some(_)) => Err(format!(
                "INDOUBT {} of {} writes were applied and the others were refused",
                self.done,
                self.done + self.refused
            )
            .into()),
            (None, None) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Epoch;

    const LEVELS: Levels = Levels {
        read: ConsistencyLevel::Quorum,
        write: ConsistencyLevel::All,
        timeout: Duration::from_millis(500),
        op_id: None,
    };

    fn refused(refusal: Refusal) -> AskError {
        AskError::Failed(Failure::NotApplied(refusal))
    }

    #[test]
    fn every_failure_has_the_text_of_the_contract() {
        use Access::{Read, Write};
        let few = || refused(Refusal::TooFewReplicas { alive: 1, needed: 2 });
        let cases = [
            (Write, few(), "NOREPLICAS Not enough good replicas to write."),
            (Read, few(), "CLUSTERDOWN not enough live replicas for read=quorum (1 of 2)"),
            (
                Write,
                AskError::Failed(Failure::InDoubt { acknowledged: 1, needed: 2 }),
                "INDOUBT 1 of 2 acknowledgements within 500ms; the write may still take effect",
            ),
            (
                Read,
                AskError::Failed(Failure::TimedOut { answered: 1, needed: 2 }),
                "TRYAGAIN read=quorum not reached within 500ms",
            ),
            (Write, refused(Refusal::Overloaded), "TRYAGAIN overloaded, not executed"),
            (Read, refused(Refusal::ShuttingDown), "TRYAGAIN the node is shutting down, not executed"),
            (Write, refused(Refusal::ValueTooLong { bytes: 2, limit: 1 }), TOO_LONG),
            (Write, refused(Refusal::UnknownNamespace), "ERR unknown namespace"),
            (
                Write,
                refused(Refusal::ClockSkew { ahead_ms: 900 }),
                "MISCONF clocks differ by 900 ms, more than max_clock_skew; set them right (NTP), not executed",
            ),
            (
                Write,
                refused(Refusal::WrongEpoch { newest: Epoch(7) }),
                "TRYAGAIN the cluster map has moved on to epoch 7, not executed",
            ),
            (
                Write,
                refused(Refusal::ClockUnsure { offset_ms: Some(-700) }),
                "TRYAGAIN this node's clock is 700 ms behind most of its peers'; it takes no writes until the clocks \
                 agree (NTP), not executed",
            ),
            (
                Write,
                refused(Refusal::Behind { horizon: Default::default() }),
                "TRYAGAIN the write was on its way for too long; send it again, not executed",
            ),
            (
                Read,
                refused(Refusal::NodeFenced("its store went back".into())),
                "TRYAGAIN this node is fenced: its store went back, not executed",
            ),
            (
                Write,
                refused(Refusal::TooManySiblings { count: 32 }),
                "ERR the key has 32 concurrent values: read them and write with their context",
            ),
            (Write, refused(Refusal::Fenced), "ERR the op-id was resolved as not applied; use a new one"),
            (Write, refused(Refusal::OpIdReused), "ERR the op-id was used for another write"),
            (Read, refused(Refusal::Invalid("limit is zero".into())), "ERR limit is zero"),
            (Write, AskError::Stopped, "INDOUBT the node stopped; the write may still take effect"),
            (Read, AskError::Stopped, "TRYAGAIN the node stopped, not executed"),
        ];
        for (access, error, text) in cases {
            assert_eq!(error_reply(access, LEVELS, &error).0, text);
        }
    }

    #[test]
    fn writes_that_took_effect_in_part_are_never_called_refused() {
        let tally = |results: &[Result<(), AskError>]| {
            let mut tally = WriteTally::default();
            for result in results {
                tally.add(result.clone());
            }
            tally.verdict(LEVELS).map_err(|error| error.0.into_owned())
        };
        let busy = || Err(refused(Refusal::Overloaded));
        let doubt = || Err(AskError::Failed(Failure::InDoubt { acknowledged: 0, needed: 2 }));
        assert_eq!(tally(&[Ok(()), Ok(())]), Ok(()));
        assert_eq!(tally(&[busy(), busy()]), Err("TRYAGAIN overloaded, not executed".into()));
        assert_eq!(
            tally(&[Ok(()), busy(), Ok(())]),
            Err("INDOUBT 2 of 3 writes were applied and the others were refused".into())
        );
        let doubtful = tally(&[busy(), doubt()]).expect_err("in doubt");
        assert!(doubtful.starts_with("INDOUBT 0 of 2"), "{doubtful}");
    }
}
