//! One peer: the part that others reach ([`Slot`]) and the task that keeps a
//! connection to it ([`Actor`]).
//!
//! Of two nodes the one with the lower id dials and the other accepts, so there is never
//! a choice between two connections. A dialler that has none tries for ever, with waits
//! that double up to `retry_max`.
//!
//! Invariants: only the actor reports `Up` and `Down`, so they come in order and around
//! the frames of their connection; a connection is replaced by a newer one in the same
//! life of the peer without `Down` only if both streams of the old one were read to
//! their ends, so that nothing was lost and nothing overtakes; in every other case
//! `Down` comes between.
//!
//! Renewal (new certificates, a new address): the dialler connects anew while the old
//! connection works on. When the greetings are exchanged it ends its old stream; the
//! acceptor reads that to its end and ends its own; what waits is written to the new
//! one. An acceptor with new certificates asks for this with an empty frame.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use quinn::{Connection, VarInt};
use rand::Rng;
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::{sleep, timeout};

use super::Shared;
use super::codes::{self, Failed};
use super::handshake::{self, Meeting};
use super::link::{Link, ReadEnd};
use super::outbox::Outbox;
use crate::ambient;
use crate::transport::TransportEvent;
use crate::transport::certificates::node_name;
use crate::transport::counters::Counters;
use crate::types::{Incarnation, NodeId};

/// A connection that lived for less does not reset the wait before the next attempt.
const STABLE_AFTER: Duration = Duration::from_secs(1);

/// What the rest of the transport holds of a peer.
pub(super) struct Slot {
    pub(super) peer: NodeId,
    /// The name in its certificate.
    pub(super) name: String,
    pub(super) outbox: Outbox,
    /// The connection in use, for datagrams and for ending it.
    pub(super) connection: ArcSwapOption<Connection>,
    dialled_from_here: bool,
    address: Mutex<SocketAddr>,
    known: Mutex<Known>,
    accepted: mpsc::Sender<Meeting>,
    renew: Notify,
    order: watch::Sender<Order>,
}

/// What is known of a peer's lives.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Known {
    /// The newest life that was met.
    pub(super) newest: Incarnation,
    /// Where it is connected from, if it dialled and is connected.
    pub(super) connected_from: Option<SocketAddr>,
}

/// What the actor is to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Order {
    Run,
    /// The peer is no member any more.
    Remove,
    /// This node stops: send what waits, then end.
    ShutDown,
}

impl Slot {
    /// A slot and the actor that serves it, not started yet.
    pub(super) fn new(shared: &Arc<Shared>, peer: NodeId, address: SocketAddr) -> (Arc<Slot>, Actor) {
        let (accepted, meetings) = mpsc::channel(4);
        let (order, orders) = watch::channel(Order::Run);
        let slot = Arc::new(Slot {
            peer,
            name: node_name(peer),
            outbox: Outbox::new(),
            connection: ArcSwapOption::empty(),
            dialled_from_here: shared.options.node < peer,
            address: Mutex::new(address),
            known: Mutex::default(),
            accepted,
            renew: Notify::new(),
            order,
        });
        let actor = Actor {
            shared: shared.clone(),
            slot: slot.clone(),
            meetings,
            orders,
            link: None,
            connections: 0,
            retry: Duration::ZERO,
        };
        (slot, actor)
    }

    pub(super) fn dialled_from_here(&self) -> bool {
        self.dialled_from_here
    }

    pub(super) fn address(&self) -> SocketAddr {
        *self.address.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes note of where the peer is now.
    pub(super) fn set_address(&self, address: SocketAddr) {
        let before = std::mem::replace(&mut *self.address.lock().unwrap_or_else(PoisonError::into_inner), address);
        if before != address && self.dialled_from_here {
            self.renew();
        }
    }

    pub(super) fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands over a connection that the peer dialled.
    pub(super) async fn accepted(&self, meeting: Meeting) {
        // If the actor has ended, the connection is dropped and thereby closed.
        let _ = self.accepted.send(meeting).await;
    }

    /// Has the connection replaced, without a gap.
    pub(super) fn renew(&self) {
        self.renew.notify_one();
    }

    /// The peer asks for a new connection; only the dialler can make one.
    pub(super) fn renewal_asked(&self) {
        if self.dialled_from_here {
            self.renew();
        }
    }

    pub(super) fn order(&self, order: Order) {
        self.order.send_replace(order);
    }
}

type Dialling = Pin<Box<dyn Future<Output = Meeting> + Send>>;

/// Keeps a connection to one peer.
pub(super) struct Actor {
    shared: Arc<Shared>,
    slot: Arc<Slot>,
    meetings: mpsc::Receiver<Meeting>,
    orders: watch::Receiver<Order>,
    link: Option<Link>,
    connections: u64,
    /// The wait before the next attempt to connect.
    retry: Duration,
}

enum Step {
    Ordered,
    Ended(ReadEnd),
    Met(Meeting),
    Renew,
}

/// Nobody listens to events any more: the actor ends.
struct Unheard;

impl Actor {
    pub(super) async fn run(mut self) {
        let mut dialling = self.slot.dialled_from_here.then(|| self.dial(Duration::ZERO));
        loop {
            let step = tokio::select! {
                biased;
                _ = self.orders.wait_for(|order| *order != Order::Run) => Step::Ordered,
                end = ending(&mut self.link, self.shared.options.settings.drain_timeout) => Step::Ended(end),
                meeting = dialled(&mut dialling) => Step::Met(meeting),
                Some(meeting) = self.meetings.recv() => Step::Met(meeting),
                () = self.slot.renew.notified() => Step::Renew,
            };
            let done = match step {
                Step::Ordered => return self.finish().await,
                Step::Ended(end) => self.ended(end).await,
                Step::Met(meeting) => {
                    dialling = None;
                    self.met(meeting).await
                }
                Step::Renew => {
                    if !self.slot.dialled_from_here {
                        if self.link.is_some() {
                            // A full queue is no place for requests; the dialler renews some day anyway.
                            let _ = self.slot.outbox.push(Bytes::new());
                        }
                    } else if dialling.is_none() && self.link.is_some() {
                        // Not all peers of a node at once.
                        let spread = ambient::seeded().random_range(0.0..1.0);
                        dialling = Some(self.dial(self.shared.options.settings.retry_max.mul_f64(spread)));
                    }
                    Ok(())
                }
            };
            if done.is_err() {
                return self.finish().await;
            }
            if self.slot.dialled_from_here && self.link.is_none() && dialling.is_none() {
                dialling = Some(self.dial(self.retry));
            }
        }
    }

    /// Tries for ever, after a first wait.
    fn dial(&self, first_wait: Duration) -> Dialling {
        let (shared, slot) = (self.shared.clone(), self.slot.clone());
        Box::pin(async move {
            let settings = &shared.options.settings;
            let mut chance = ambient::seeded();
            let mut wait = settings.retry_min;
            let mut said = None;
            sleep(first_wait).await;
            loop {
                let failed = match handshake::dial(&shared, &slot).await {
                    Ok(meeting) => return meeting,
                    Err(failed) => failed,
                };
                Counters::add(&shared.counters.dials_failed, 1);
                shared.note_failure(&failed);
                if said.as_ref() != Some(&failed) {
                    log_failure(&slot, &failed);
                    said = Some(failed);
                }
                sleep(wait.mul_f64(chance.random_range(0.5..1.0))).await;
                wait = (wait * 2).min(settings.retry_max);
            }
        })
    }

    /// A connection stands: it becomes the one in use.
    async fn met(&mut self, meeting: Meeting) -> Result<(), Unheard> {
        let incarnation = meeting.hello.incarnation;
        if incarnation < self.slot.known().newest {
            meeting.connection.close(codes::REPLACED, b"surpassed by a newer life");
            return Ok(());
        }
        let number = self.connections + 1;
        self.connections = number;
        if let Some(old) = self.link.take() {
            match self.drain(old, incarnation, number).await {
                None => Counters::add(&self.shared.counters.connections_renewed, 1),
                Some(old) => self.lose(old, codes::REPLACED, "a newer connection took its place").await?,
            }
        }
        let from = (!self.slot.dialled_from_here).then(|| meeting.connection.remote_address());
        *self.slot.known() = Known { newest: incarnation, connected_from: from };
        if meeting.generation != self.shared.generation() {
            self.slot.renew();
        }
        Counters::add(&self.shared.counters.connections_opened, 1);
        tracing::info!(peer = %self.slot.peer, address = %meeting.connection.remote_address(), %incarnation, "connected");
        self.slot.connection.store(Some(Arc::new(meeting.connection.clone())));
        self.slot.outbox.assign(number);
        self.emit(TransportEvent::Up { peer: self.slot.peer, incarnation }).await?;
        self.link = Some(Link::start(&self.shared, &self.slot, number, ambient::moment(), meeting));
        Ok(())
    }

    /// Lets the old connection deliver what is on it. Gives it back if that failed.
    async fn drain(&mut self, mut old: Link, incarnation: Incarnation, successor: u64) -> Option<Link> {
        if old.incarnation != incarnation {
            return Some(old);
        }
        let dialler = self.slot.dialled_from_here;
        // The acceptor does not know whether the old connection is being renewed or is dead
        // at the other end without a word, and in that case the peer waits to be heard.
        let limit = self.shared.options.settings.drain_timeout / if dialler { 1 } else { 2 };
        let drained = timeout(limit, async {
            if dialler {
                self.slot.outbox.assign(successor);
                old.write_end().await.is_some() && matches!(old.read_end().await, ReadEnd::Finished)
            } else {
                (old.ended || matches!(old.read_end().await, ReadEnd::Finished)) && {
                    self.slot.outbox.assign(successor);
                    old.write_end().await.is_some()
                }
            }
        });
        if !drained.await.unwrap_or(false) {
            return Some(old);
        }
        let connection = old.retire();
        if dialler {
            connection.close(codes::REPLACED, b"renewed");
        } else {
            // The dialler closes it when it has read everything.
            let limit = self.shared.options.settings.drain_timeout;
            tokio::spawn(async move {
                let _ = timeout(limit, connection.closed()).await;
                connection.close(codes::REPLACED, b"renewed");
            });
        }
        None
    }

    /// The peer's stream has ended, in one way or another.
    async fn ended(&mut self, end: ReadEnd) -> Result<(), Unheard> {
        let Some(mut link) = self.link.take() else { return Ok(()) };
        match end {
            ReadEnd::Finished if !self.slot.dialled_from_here && !link.ended => {
                // The dialler is about to go over to a new connection, or to stop.
                link.ended = true;
                self.link = Some(link);
                Ok(())
            }
            ReadEnd::Finished => self.lose(link, codes::SHUTDOWN, "the peer ended the stream").await,
            ReadEnd::Lost(reason) => self.lose(link, codes::SHUTDOWN, &reason).await,
            ReadEnd::Violation(code, reason) => {
                Counters::add(&self.shared.counters.violations, 1);
                tracing::warn!(peer = %self.slot.peer, %reason, "the peer broke the protocol; its connection is closed");
                self.lose(link, code, &reason).await
            }
            ReadEnd::NoReceiver => {
                self.link = Some(link);
                Err(Unheard)
            }
        }
    }

    /// Ends a connection that no other takes the place of.
    async fn lose(&mut self, link: Link, code: VarInt, reason: &str) -> Result<(), Unheard> {
        let settings = &self.shared.options.settings;
        self.retry = match ambient::moment().since(link.since) {
            lived if lived >= STABLE_AFTER => Duration::ZERO,
            _ => (self.retry * 2).clamp(settings.retry_min, settings.retry_max),
        };
        self.slot.connection.store(None);
        self.slot.outbox.clear();
        self.slot.known().connected_from = None;
        link.stop(code, reason).await;
        Counters::add(&self.shared.counters.connections_lost, 1);
        tracing::info!(peer = %self.slot.peer, reason, "disconnected");
        self.emit(TransportEvent::Down { peer: self.slot.peer }).await
    }

    /// The peer is removed, this node stops, or nobody listens.
    async fn finish(mut self) {
        let order = *self.orders.borrow();
        let Some(mut link) = self.link.take() else { return self.slot.outbox.clear() };
        match order {
            Order::Remove => {
                let _ = self.lose(link, codes::REMOVED, "no member any more").await;
            }
            Order::Run | Order::ShutDown => {
                self.slot.outbox.close();
                // Written, ended and acknowledged: then nothing is lost by closing.
                let _ = timeout(self.shared.options.settings.drain_timeout, async {
                    if let Some(send) = link.write_end().await {
                        let _ = send.stopped().await;
                    }
                })
                .await;
                self.slot.connection.store(None);
                self.slot.outbox.clear();
                link.stop(codes::SHUTDOWN, "the node stops").await;
            }
        }
    }

    async fn emit(&self, event: TransportEvent) -> Result<(), Unheard> {
        self.shared.events.send(event).await.map_err(|_| Unheard)
    }
}

/// Until the peer's stream ends; if it has ended in good order, until the connection
/// does, or until the successor that this announced has not come in time.
async fn ending(link: &mut Option<Link>, limit: Duration) -> ReadEnd {
    match link {
        None => std::future::pending().await,
        Some(link) if link.ended => match timeout(limit, link.connection.closed()).await {
            Ok(error) => ReadEnd::Lost(error.to_string()),
            Err(_) => ReadEnd::Finished,
        },
        Some(link) => link.read_end().await,
    }
}

async fn dialled(dialling: &mut Option<Dialling>) -> Meeting {
    match dialling {
        Some(dialling) => dialling.await,
        None => std::future::pending().await,
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
    }
}
