//! How a connection ends: replaced by another, parted from in good order, or lost.
//!
//! Parting. Whoever wants the connection to end lets what waits be written, takes leave
//! and ends its stream (see `link`). The other does the same as soon as it has read that.
//! Either closes the connection once its own stream has reached the other end and it has
//! read the other's to the end: then nothing that was accepted for sending is lost.
//!
//! If the dialler is about to renew the connection that the acceptor leaves, the renewal
//! goes first: all has been said on the old connection, and both go over to the new one.
//!
//! Invariant: of a connection of which `Up` was reported, `Down` is reported once, after
//! its last frame; unless another takes its place in the same life with nothing lost, or
//! this node stops.

use std::sync::Arc;
use std::time::Duration;

use quinn::{ConnectionError, VarInt};
use tokio::time::timeout;

use super::codes;
use super::handshake::Meeting;
use super::link::{Link, Parted, ReadEnd};
use super::peer::{Actor, Unheard};
use super::slot::End;
use crate::ambient;
use crate::transport::TransportEvent;
use crate::transport::counters::Counters;

/// A connection that lived for less does not reset the wait before the next attempt.
const STABLE_AFTER: Duration = Duration::from_secs(1);

impl Actor {
    /// Lets the old connection deliver what is on it, for a new one that takes its place.
    /// Gives it back if that failed.
    pub(super) async fn drain(&mut self, mut old: Link, successor: u64) -> Option<Link> {
        let limit = self.shared.options.settings.drain_timeout;
        let dialled = old.dialled;
        let drained = timeout(limit, async {
            if dialled {
                self.slot.outbox.assign(successor);
                let Some(send) = old.write_end().await else { return false };
                match old.read_end().await {
                    ReadEnd::Finished => true,
                    // The acceptor has not waited to read everything; see `succeed`.
                    ReadEnd::Left => matches!(send.stopped().await, Ok(None)),
                    _ => false,
                }
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
        self.retire(old);
        None
    }

    /// Lets go of a connection on which all has been said.
    fn retire(&self, old: Link) {
        Counters::add(&self.shared.counters.connections_renewed, 1);
        let dialled = old.dialled;
        let connection = old.retire();
        if dialled {
            connection.close(codes::RENEWED, b"renewed");
        } else {
            // The dialler closes it when it has read everything.
            let limit = self.shared.options.settings.drain_timeout;
            tokio::spawn(async move {
                let _ = timeout(limit, connection.closed()).await;
                connection.close(codes::LOST, b"renewed, and not read to the end in time");
            });
        }
    }

    /// The peer's stream has ended, in one way or another.
    pub(super) async fn ended(&mut self, end: ReadEnd) -> Result<(), Unheard> {
        let Some(mut link) = self.link.take() else { return Ok(()) };
        match end {
            ReadEnd::Finished if !link.dialled && !link.ended => {
                // The dialler is about to go over to a new connection.
                link.ended = true;
                self.link = Some(link);
                Ok(())
            }
            ReadEnd::Finished => self.lose(link, codes::LOST, "the peer ended the stream", false).await,
            ReadEnd::Left => self.part(link, true).await,
            ReadEnd::Lost { reason, parted } => self.lose(link, codes::LOST, &reason, parted).await,
            ReadEnd::Violation(code, reason) => {
                Counters::add(&self.shared.counters.violations, 1);
                tracing::warn!(peer = %self.slot.peer, %reason, "the peer broke the protocol; its connection is closed");
                self.lose(link, code, &reason, false).await
            }
            ReadEnd::NoReceiver => {
                self.link = Some(link);
                Err(Unheard)
            }
        }
    }

    /// Ends a connection in good order: because nothing travels on it, or (`left`) because
    /// the peer has taken leave.
    pub(super) async fn part(&mut self, mut link: Link, left: bool) -> Result<(), Unheard> {
        self.slot.outbox.close();
        self.slot.connection.store(None);
        let limit = self.shared.options.settings.drain_timeout;
        let parted = timeout(limit, link.part(left)).await.unwrap_or(Parted::Broken);
        if parted == Parted::Renewing && !link.dialled {
            return self.succeed(link).await;
        }
        let whole = parted == Parted::Whole;
        match link.connection.close_reason() {
            _ if whole => self.lose(link, codes::PARTED, "nothing travels", true).await?,
            // A peer that stops does not wait to be sent everything. If it has closed late, a
            // reset may have covered what it said.
            Some(error) => {
                let orderly = codes::is_parting(&error) || (left && error == ConnectionError::Reset);
                self.lose(link, codes::LOST, &error.to_string(), orderly).await?;
            }
            None => self.lose(link, codes::LOST, "it could not be parted from in time", false).await?,
        }
        if whole {
            // It ended because it was not used. If it is wanted, it is wanted now.
            self.loss_wait = Duration::ZERO;
            self.not_before = ambient::moment();
        }
        Ok(())
    }

    /// Goes over to the connection by which the peer renews the one that this end has left.
    async fn succeed(&mut self, old: Link) -> Result<(), Unheard> {
        let limit = self.shared.options.settings.drain_timeout;
        let renews = |next: &Meeting| {
            next.renews && next.hello.incarnation == old.incarnation && next.connection.close_reason().is_none()
        };
        match timeout(limit, self.meetings.recv()).await {
            Ok(Some(next)) if renews(&next) => {
                self.retire(old);
                self.take(next).await
            }
            Ok(Some(next)) => {
                self.lose(old, codes::LOST, "the peer has dialled anew", true).await?;
                self.met(next).await
            }
            Ok(None) | Err(_) => self.lose(old, codes::LOST, "its successor did not come", false).await,
        }
    }

    /// Ends a connection that no other takes the place of; in good order (`parted`) or not.
    pub(super) async fn lose(&mut self, link: Link, code: VarInt, reason: &str, parted: bool) -> Result<(), Unheard> {
        let settings = &self.shared.options.settings;
        let now = ambient::moment();
        self.loss_wait = match now.since(link.since) {
            lived if lived >= STABLE_AFTER => Duration::ZERO,
            _ => (self.loss_wait * 2).clamp(settings.retry_min, settings.retry_max),
        };
        self.not_before = now.plus(self.loss_wait);
        self.slot.connection.store(None);
        self.slot.outbox.clear();
        self.slot.known().connected_from = None;
        link.stop(code, reason).await;
        self.forget_renewal().await;
        let counters: &Arc<Counters> = &self.shared.counters;
        Counters::add(if parted { &counters.connections_parted } else { &counters.connections_lost }, 1);
        tracing::info!(peer = %self.slot.peer, reason, parted, "disconnected");
        self.emit(TransportEvent::Down { peer: self.slot.peer, parted }).await
    }

    /// The peer is removed, this node stops, or nobody listens.
    pub(super) async fn finish(mut self) {
        let order = self.orders.borrow().end;
        let Some(mut link) = self.link.take() else { return self.slot.outbox.clear() };
        match order {
            Some(End::Remove) => {
                let _ = self.lose(link, codes::REMOVED, "no member any more", true).await;
            }
            None | Some(End::ShutDown) => {
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
}
