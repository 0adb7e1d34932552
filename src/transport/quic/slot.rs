//! What the rest of the transport holds of a peer; its actor (see `peer`) does the work.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwapOption;
use quinn::Connection;
use tokio::sync::{Notify, mpsc, watch};

use super::crossing::Crossing;
use super::handshake::Meeting;
use super::outbox::Outbox;
use crate::transport::certificates::node_name;
use crate::types::{Incarnation, NodeId};

/// Connections that wait for the actor, at most; whoever accepts more waits with them.
const MEETINGS: usize = 4;

/// A peer, as tasks other than its actor see it.
pub(super) struct Slot {
    pub(super) peer: NodeId,
    /// The name in its certificate.
    pub(super) name: String,
    pub(super) outbox: Outbox,
    /// The connection in use, for datagrams and for ending it.
    pub(super) connection: ArcSwapOption<Connection>,
    pub(super) crossing: Arc<Crossing>,
    /// The connection is to be replaced without a gap: its certificates are not the newest.
    pub(super) renew: Notify,
    /// The same, because the peer has moved: only what was dialled leads to the old address.
    pub(super) moved: Notify,
    /// A frame or a datagram has travelled since somebody looked.
    traffic: AtomicBool,
    address: Mutex<SocketAddr>,
    known: Mutex<Known>,
    accepted: mpsc::Sender<Meeting>,
    orders: watch::Sender<Orders>,
}

/// What is known of a peer's lives.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Known {
    /// The newest life that was met.
    pub(super) newest: Incarnation,
    /// Where it is connected from, if it is.
    pub(super) connected_from: Option<SocketAddr>,
}

/// What the actor is to do.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(super) struct Orders {
    /// To see to it that a connection stands.
    pub(super) keep: bool,
    /// To end, and how.
    pub(super) end: Option<End>,
}

/// How an actor is to end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum End {
    /// The peer is no member any more.
    Remove,
    /// This node stops: send what waits, then end.
    ShutDown,
}

impl Slot {
    /// A slot, and where its actor gets connections from and what to do.
    pub(super) fn new(
        own: NodeId,
        peer: NodeId,
        address: SocketAddr,
    ) -> (Arc<Slot>, mpsc::Receiver<Meeting>, watch::Receiver<Orders>) {
        let (accepted, meetings) = mpsc::channel(MEETINGS);
        let (orders, receiver) = watch::channel(Orders::default());
        let slot = Arc::new(Slot {
            peer,
            name: node_name(peer),
            outbox: Outbox::new(),
            connection: ArcSwapOption::empty(),
            crossing: Crossing::new(own < peer),
            renew: Notify::new(),
            moved: Notify::new(),
            traffic: AtomicBool::new(false),
            address: Mutex::new(address),
            known: Mutex::default(),
            accepted,
            orders,
        });
        (slot, meetings, receiver)
    }

    pub(super) fn address(&self) -> SocketAddr {
        *self.address.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes note of where the peer is now.
    pub(super) fn set_address(&self, address: SocketAddr) {
        let before = std::mem::replace(&mut *self.address.lock().unwrap_or_else(PoisonError::into_inner), address);
        if before != address {
            self.moved.notify_one();
        }
    }

    pub(super) fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands over a connection that the peer dialled and confirmed.
    pub(super) async fn accepted(&self, meeting: Meeting) {
        // If the actor has ended, the connection is dropped and thereby closed.
        let _ = self.accepted.send(meeting).await;
    }

    /// A frame or a datagram has travelled.
    pub(super) fn note_traffic(&self) {
        // Written only if it changes: senders and readers on several cores share it.
        if !self.traffic.load(Ordering::Relaxed) {
            self.traffic.store(true, Ordering::Relaxed);
        }
    }

    /// Whether anything has travelled since this was asked last.
    pub(super) fn take_traffic(&self) -> bool {
        self.traffic.swap(false, Ordering::Relaxed)
    }

    pub(super) fn keep(&self, keep: bool) {
        self.orders.send_if_modified(|orders| std::mem::replace(&mut orders.keep, keep) != keep);
    }

    pub(super) fn end(&self, end: End) {
        self.orders.send_modify(|orders| orders.end = Some(end));
    }
}
