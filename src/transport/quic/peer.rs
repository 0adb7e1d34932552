//! One peer: the task that sees to its connection ([`Actor`]). What others reach is in
//! `slot`, how a connection ends in `ending`.
//!
//! A connection that is kept is dialled, and dialled again when it is gone, for ever, with
//! waits that double up to `retry_max`; one that the peer dials is taken whether it is kept
//! or not. Which of two that cross comes to stand is decided in `crossing`. One that is not
//! kept ends, in good order, when nothing has travelled on it for `idle_close`.
//!
//! Invariants: only the actor reports `Up`, `Down` and `Unreachable`, so they come in order
//! and around the frames of their connection; a connection is replaced by a newer one in
//! the same life of the peer without `Down` only if both streams of the old one were read
//! to their ends, so that nothing was lost and nothing overtakes; in every other case
//! `Down` comes between.
//!
//! Renewal (new certificates, a new address): whoever has dialled the connection connects
//! anew while the old connection works on. When the greetings are exchanged it ends its old
//! stream; the acceptor reads that to its end and ends its own; what waits is written to
//! the new one. If either fails in this, the new connection ends with the old one, so that
//! both ends report `Down`: otherwise one of them would go on without knowing that the
//! other has dropped what waited. An acceptor with new certificates asks for a renewal with
//! an empty frame.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use rand::Rng;
use tokio::sync::{mpsc, watch};
use tokio::time::{Sleep, sleep, timeout};

use super::Shared;
use super::codes::{self, Failed};
use super::handshake::{self, Meeting};
use super::link::{Link, ReadEnd};
use super::slot::{Known, Orders, Slot};
use crate::ambient;
use crate::transport::TransportEvent;
use crate::transport::counters::Counters;
use crate::types::{Moment, NodeId};

/// So often within `idle_close` it is looked whether anything travels.
const LOOKS: u32 = 8;
/// No two looks are closer than that, whatever `idle_close` is.
const LOOK_MIN: Duration = Duration::from_millis(1);

/// Sees to the connection to one peer.
pub(super) struct Actor {
    pub(super) shared: Arc<Shared>,
    pub(super) slot: Arc<Slot>,
    pub(super) meetings: mpsc::Receiver<Meeting>,
    pub(super) orders: watch::Receiver<Orders>,
    pub(super) link: Option<Link>,
    connections: u64,
    kept: bool,
    dialling: Dialling,
    /// The connection that was dialled is to be dialled anew.
    pub(super) renewal: bool,
    /// No attempt to connect begins earlier.
    pub(super) not_before: Moment,
    /// The wait after a connection that was soon lost.
    pub(super) loss_wait: Duration,
    /// The wait after the last failed attempt.
    failure_wait: Duration,
    /// Why the last attempt has failed, which was logged.
    said: Option<Failed>,
    /// Since when nothing has travelled and the connection was not kept.
    quiet_since: Moment,
}

/// How far the next connection is.
enum Dialling {
    /// None is wanted.
    No,
    /// Until the next attempt.
    Waiting(Pin<Box<Sleep>>),
    /// The peer's own attempt goes first (see `crossing`).
    HeldBack,
    Attempt(Pin<Box<dyn Future<Output = Result<Meeting, Failed>> + Send>>),
}

enum Step {
    Ordered,
    Ended(ReadEnd),
    Due,
    Dialled(Result<Meeting, Failed>),
    Met(Meeting),
    Renew,
    Moved,
    Crossing,
    Look,
}

/// Nobody listens to events any more: the actor ends.
pub(super) struct Unheard;

impl Actor {
    /// A peer's slot, and the actor that serves it, not started yet.
    pub(super) fn new(shared: &Arc<Shared>, peer: NodeId, address: std::net::SocketAddr) -> (Arc<Slot>, Actor) {
        let (slot, meetings, orders) = Slot::new(shared.options.node, peer, address);
        let actor = Actor {
            shared: shared.clone(),
            slot: slot.clone(),
            meetings,
            orders,
            link: None,
            connections: 0,
            kept: false,
            dialling: Dialling::No,
            renewal: false,
            not_before: Moment::default(),
            loss_wait: Duration::ZERO,
            failure_wait: Duration::ZERO,
            said: None,
            quiet_since: Moment::default(),
        };
        (slot, actor)
    }

    pub(super) async fn run(mut self) {
        let mut crossing = self.slot.crossing.subscribe();
        let look_every = (self.shared.options.settings.idle_close / LOOKS).max(LOOK_MIN);
        loop {
            let orders = *self.orders.borrow_and_update();
            if orders.end.is_some() {
                return self.finish().await;
            }
            if self.kept && !orders.keep {
                self.quiet_since = ambient::moment();
            }
            self.kept = orders.keep;
            self.arrange();
            let held_back = matches!(self.dialling, Dialling::HeldBack);
            let looks = self.link.is_some() && !self.kept;
            let step = tokio::select! {
                biased;
                // The sender is in the slot, which this holds.
                _ = self.orders.changed() => Step::Ordered,
                end = ending(&mut self.link, self.shared.options.settings.drain_timeout) => Step::Ended(end),
                step = dialled(&mut self.dialling) => step,
                Some(meeting) = self.meetings.recv() => Step::Met(meeting),
                () = self.slot.renew.notified() => Step::Renew,
                () = self.slot.moved.notified() => Step::Moved,
                _ = crossing.changed(), if held_back => Step::Crossing,
                () = sleep(look_every), if looks => Step::Look,
            };
            let done = match step {
                Step::Ordered | Step::Crossing => Ok(()),
                Step::Ended(end) => self.ended(end).await,
                Step::Due => {
                    self.attempt();
                    Ok(())
                }
                Step::Dialled(Ok(meeting)) | Step::Met(meeting) => self.met(meeting).await,
                Step::Dialled(Err(failed)) => self.failed(failed).await,
                Step::Renew => {
                    self.renew();
                    Ok(())
                }
                Step::Moved => {
                    if self.link.as_ref().is_some_and(|link| link.dialled) {
                        self.renew();
                    }
                    Ok(())
                }
                Step::Look => self.look().await,
            };
            if done.is_err() {
                return self.finish().await;
            }
        }
    }

    /// Dials if a connection is wanted and there is none, and does not otherwise.
    fn arrange(&mut self) {
        let wanted = if self.link.is_some() { self.renewal } else { self.kept };
        match self.dialling {
            // Whoever is dialled has seen nothing of an attempt that is dropped.
            _ if !wanted => self.dialling = Dialling::No,
            Dialling::No => {
                let wait = self.not_before.since(ambient::moment());
                self.dialling = Dialling::Waiting(Box::pin(sleep(wait)));
            }
            Dialling::HeldBack => self.attempt(),
            Dialling::Waiting(_) | Dialling::Attempt(_) => {}
        }
    }

    /// Begins an attempt, unless the peer's own is under way.
    fn attempt(&mut self) {
        let Some(attempt) = self.slot.crossing.attempt() else {
            self.dialling = Dialling::HeldBack;
            return;
        };
        let (shared, slot) = (self.shared.clone(), self.slot.clone());
        self.dialling = Dialling::Attempt(Box::pin(async move { handshake::dial(&shared, &slot, attempt).await }));
    }

    /// An attempt has come to nothing.
    async fn failed(&mut self, failed: Failed) -> Result<(), Unheard> {
        let settings = &self.shared.options.settings;
        // A peer that is just dialling can be reached, whatever became of this attempt: if the
        // peer was late in closing it, a reset may have covered what it said.
        let crossed = failed == Failed::Crossed || self.slot.crossing.is_greeting();
        let counters = &self.shared.counters;
        Counters::add(if crossed { &counters.dials_crossed } else { &counters.dials_failed }, 1);
        self.shared.note_failure(&failed);
        if self.said.as_ref() != Some(&failed) {
            log_failure(&self.slot, &failed);
            self.said = Some(failed);
        }
        self.failure_wait = (self.failure_wait * 2).clamp(settings.retry_min, settings.retry_max);
        let wait = self.failure_wait.mul_f64(ambient::seeded().random_range(0.5..1.0));
        self.not_before = ambient::moment().plus(wait);
        self.dialling = Dialling::No;
        if self.link.is_some() || crossed {
            return Ok(());
        }
        self.emit(TransportEvent::Unreachable { peer: self.slot.peer }).await
    }

    /// The connection is to be replaced without a gap; only who has dialled it can do so.
    fn renew(&mut self) {
        match &self.link {
            None => {}
            // A full queue is no place for requests; the connection is renewed some day anyway.
            Some(link) if !link.dialled => drop(self.slot.outbox.push(bytes::Bytes::new())),
            Some(_) if self.renewal => {}
            Some(_) => {
                self.renewal = true;
                // Not all peers of a node at once.
                let spread = ambient::seeded().random_range(0.0..1.0);
                let wait = self.shared.options.settings.retry_max.mul_f64(spread);
                self.not_before = ambient::moment().plus(wait);
            }
        }
    }

    /// A connection is confirmed: it becomes the one in use, if it may.
    pub(super) async fn met(&mut self, meeting: Meeting) -> Result<(), Unheard> {
        let incarnation = meeting.hello.incarnation;
        let dialled = meeting.greeting.is_none();
        if matches!(self.dialling, Dialling::Attempt(_)) && !dialled {
            Counters::add(&self.shared.counters.dials_crossed, 1);
        }
        // Whatever this node was dialling is not wanted any more.
        self.dialling = Dialling::No;
        if incarnation < self.slot.known().newest {
            meeting.connection.close(codes::REPLACED, b"surpassed by a newer life");
        }
        if let Some(error) = meeting.connection.close_reason() {
            // It has not outlived the wait for this actor; what stands, if anything, is better.
            return if dialled { self.failed(Failed::of(&error)).await } else { Ok(()) };
        }
        match self.link.take() {
            Some(old) if meeting.renews && old.dialled == dialled && old.incarnation == incarnation => {
                if let Some(old) = self.drain(old, self.connections + 1).await {
                    meeting.connection.close(codes::LOST, b"what it renews was lost");
                    let parted = old.connection.close_reason().is_some_and(|error| codes::is_parting(&error));
                    return self.lose(old, codes::LOST, "it could not be renewed", parted).await;
                }
            }
            // The peer knows nothing of the old one any more.
            Some(old) => self.lose(old, codes::REPLACED, "a newer connection took its place", false).await?,
            None => {}
        }
        if meeting.renews && self.slot.connection.load().is_none() {
            meeting.connection.close(codes::LOST, b"what it renews was lost");
            return Ok(());
        }
        self.take(meeting).await
    }

    /// Puts a connection to use; what was in use before is gone.
    pub(super) async fn take(&mut self, mut meeting: Meeting) -> Result<(), Unheard> {
        // Held until this connection is in use; see `crossing`.
        let greeting = meeting.greeting.take();
        let dialled = greeting.is_none();
        let incarnation = meeting.hello.incarnation;
        let number = self.connections + 1;
        self.connections = number;
        let from = meeting.connection.remote_address();
        *self.slot.known() = Known { newest: incarnation, connected_from: Some(from) };
        self.renewal = false;
        self.failure_wait = Duration::ZERO;
        self.said = None;
        if meeting.generation != self.shared.generation() {
            self.slot.renew.notify_one();
        }
        Counters::add(&self.shared.counters.connections_opened, 1);
        tracing::info!(peer = %self.slot.peer, address = %from, %incarnation, dialled, "connected");
        self.slot.connection.store(Some(Arc::new(meeting.connection.clone())));
        self.slot.outbox.assign(number);
        self.emit(TransportEvent::Up { peer: self.slot.peer, incarnation }).await?;
        self.quiet_since = ambient::moment();
        self.link = Some(Link::start(&self.shared, &self.slot, number, self.quiet_since, dialled, meeting));
        Ok(())
    }

    /// Ends a connection that is not kept and on which nothing travels.
    async fn look(&mut self) -> Result<(), Unheard> {
        let now = ambient::moment();
        // Somebody about to replace the connection wants it.
        let busy = self.slot.take_traffic() || !self.slot.outbox.is_empty() || self.slot.crossing.is_greeting();
        if busy {
            self.quiet_since = now;
        }
        if now.since(self.quiet_since) < self.shared.options.settings.idle_close {
            return Ok(());
        }
        match self.link.take() {
            // A successor was announced, or the end of the connection is on its way.
            Some(link) if link.ended => self.link = Some(link),
            Some(link) => return self.part(link, false).await,
            None => {}
        }
        Ok(())
    }

    /// A connection is gone, and with it whatever was to take its place without a gap.
    pub(super) async fn forget_renewal(&mut self) {
        self.renewal = false;
        if matches!(self.dialling, Dialling::Waiting(_)) {
            self.dialling = Dialling::No;
        }
        // The next connection is made with the newest certificates anyway.
        tokio::select! {
            biased;
            () = self.slot.renew.notified() => {}
            () = std::future::ready(()) => {}
        }
    }

    pub(super) async fn emit(&mut self, event: TransportEvent) -> Result<(), Unheard> {
        self.shared.events.send(event).await.map_err(|_| Unheard)
    }
}

/// Until the peer's stream ends; if it has ended in good order, until the connection
/// does, or until the successor that this announced has not come in time.
async fn ending(link: &mut Option<Link>, limit: Duration) -> ReadEnd {
    match link {
        None => std::future::pending().await,
        Some(link) if link.ended => match timeout(limit, link.connection.closed()).await {
            Ok(error) => ReadEnd::lost(&error),
            Err(_) => ReadEnd::Finished,
        },
        Some(link) => link.read_end().await,
    }
}

async fn dialled(dialling: &mut Dialling) -> Step {
    match dialling {
        Dialling::No | Dialling::HeldBack => std::future::pending().await,
        Dialling::Waiting(wait) => {
            wait.await;
            Step::Due
        }
        Dialling::Attempt(attempt) => Step::Dialled(attempt.await),
    }
}

fn log_failure(slot: &Slot, failed: &Failed) {
    let (peer, address) = (slot.peer, slot.address());
    match failed {
        Failed::Refused(reason, text) => {
            tracing::warn!(%peer, %address, reason = reason.name(), "refused the node that was dialled: {text}");
        }
        Failed::ByPeer(reason, text) => {
            tracing::warn!(%peer, %address, reason = reason.name(), "the peer refuses this node: {text}");
        }
        Failed::Gone(text) => tracing::info!(%peer, %address, "cannot connect yet: {text}"),
        Failed::Crossed => tracing::debug!(%peer, %address, "the peer has dialled at the same time"),
    }
}
