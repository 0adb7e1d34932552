//! Two nodes may dial each other at the same time; one connection comes of it.
//!
//! Problem: either end dials when it wants the connection, so two handshakes can be under
//! way between the same two nodes, and each end may see them end in another order. If
//! both connections stood for a moment, frames could overtake each other, or each end
//! could close the one that the other keeps.
//!
//! Rules. A greeting is what an acceptor does from its answer to a dialler's hello until
//! its actor has taken the connection; the dialler's confirmation is its last message.
//! 1. No attempt begins while a greeting is under way (both ends).
//! 2. The node with the lower id answers no hello while it attempts to connect itself.
//!    If the attempt succeeds the dialler is turned away as crossed; if it fails, the
//!    dialler is answered.
//! 3. No dialler confirms while a greeting is under way at its end.
//!
//! Invariant: at the node with the lower id attempt and greeting exclude each other
//! (`¬(attempt ∧ greetings > 0)`), so of two handshakes one is over there before it
//! answers or begins the other. Thus of two that cross, the one dialled by the lower id
//! stands if it can; only connections whose dialler has confirmed are used; and a second
//! connection that is confirmed while a first one stands is the later one: its dialler
//! has lost the first.

use std::sync::Arc;

use tokio::sync::watch;

/// What the actor and the tasks that greet agree on for one peer.
pub(super) struct Crossing {
    /// This node has the lower id of the two.
    lower: bool,
    state: watch::Sender<State>,
}

#[derive(Clone, Copy, Default, Debug)]
pub(super) struct State {
    attempt: bool,
    /// Attempts that have succeeded so far.
    succeeded: u64,
    greetings: usize,
}

/// An attempt to connect is under way until this is dropped.
pub(super) struct Attempt(Arc<Crossing>);

/// A greeting is under way until this is dropped.
pub(super) struct Greeting(Arc<Crossing>);

impl Crossing {
    pub(super) fn new(lower: bool) -> Arc<Crossing> {
        Arc::new(Crossing { lower, state: watch::Sender::default() })
    }

    /// Tells of every change.
    pub(super) fn subscribe(&self) -> watch::Receiver<State> {
        self.state.subscribe()
    }

    pub(super) fn is_greeting(&self) -> bool {
        self.state.borrow().greetings > 0
    }

    /// Leave to dial, unless a greeting is under way.
    pub(super) fn attempt(self: &Arc<Self>) -> Option<Attempt> {
        let begun = self.state.send_if_modified(|state| {
            let free = state.greetings == 0 && !state.attempt;
            state.attempt |= free;
            free
        });
        begun.then(|| Attempt(self.clone()))
    }

    /// Leave to answer a dialler, as soon as rule 2 allows it; none if the attempt that
    /// stood in the way has succeeded.
    pub(super) async fn greet(self: &Arc<Self>) -> Option<Greeting> {
        let mut changes = self.state.subscribe();
        let before = changes.borrow_and_update().succeeded;
        loop {
            let (mut crossed, mut begun) = (false, false);
            self.state.send_if_modified(|state| {
                crossed = state.succeeded != before;
                begun = !(crossed || self.lower && state.attempt);
                state.greetings += usize::from(begun);
                begun
            });
            if crossed || begun {
                return begun.then(|| Greeting(self.clone()));
            }
            // The sender is held by `self`.
            changes.changed().await.ok()?;
        }
    }

    /// Leave to confirm, by rule 3: until no greeting is under way.
    pub(super) async fn until_no_greeting(&self) {
        // The sender is held by `self`.
        let _ = self.state.subscribe().wait_for(|state| state.greetings == 0).await;
    }
}

impl Attempt {
    /// The connection is confirmed.
    pub(super) fn succeed(self) {
        self.0.state.send_modify(|state| state.succeeded += 1);
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        self.0.state.send_modify(|state| state.attempt = false);
    }
}

impl Drop for Greeting {
    fn drop(&mut self) {
        self.0.state.send_modify(|state| state.greetings -= 1);
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use super::*;

    fn poll<F: Future>(future: std::pin::Pin<&mut F>) -> Poll<F::Output> {
        future.poll(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn no_attempt_begins_while_a_greeting_is_under_way() {
        for lower in [true, false] {
            let crossing = Crossing::new(lower);
            let Poll::Ready(Some(greeting)) = poll(pin!(crossing.greet())) else { panic!("nothing is in the way") };
            assert!(crossing.attempt().is_none());
            drop(greeting);
            let attempt = crossing.attempt().expect("nothing is in the way");
            assert!(crossing.attempt().is_none(), "one at a time");
            drop(attempt);
            assert!(crossing.attempt().is_some());
        }
    }

    #[test]
    fn the_lower_id_answers_when_its_own_attempt_has_failed() {
        let crossing = Crossing::new(true);
        let attempt = crossing.attempt().expect("nothing is in the way");
        let mut greeting = pin!(crossing.greet());
        assert!(poll(greeting.as_mut()).is_pending());
        drop(attempt);
        assert!(matches!(poll(greeting), Poll::Ready(Some(_))));
    }

    #[test]
    fn the_lower_id_turns_away_whom_it_has_reached_itself() {
        let crossing = Crossing::new(true);
        let attempt = crossing.attempt().expect("nothing is in the way");
        let mut crossed = pin!(crossing.greet());
        assert!(poll(crossed.as_mut()).is_pending());
        attempt.succeed();
        assert!(matches!(poll(crossed), Poll::Ready(None)));
        assert!(matches!(poll(pin!(crossing.greet())), Poll::Ready(Some(_))), "a later one is heard");
    }

    #[test]
    fn the_higher_id_answers_at_once_and_confirms_late() {
        let crossing = Crossing::new(false);
        let attempt = crossing.attempt().expect("nothing is in the way");
        let Poll::Ready(Some(greeting)) = poll(pin!(crossing.greet())) else { panic!("the higher id answers") };
        let mut leave = pin!(crossing.until_no_greeting());
        assert!(poll(leave.as_mut()).is_pending());
        drop(greeting);
        assert!(poll(leave).is_ready());
        drop(attempt);
    }
}
