//! QUIC between nodes: quinn, TLS 1.3 at both ends, at most one connection a peer.
//!
//! Reading order: `options` what it is told; `tls`, `handshake` and `accept` who is let
//! in; `crossing` what comes of two that dial each other at once; `slot` and `peer` which
//! connection is in use; `ending` how one ends; `link` and `outbox` how frames travel.
//!
//! Everything runs on the tokio runtime within which [`QuicTransport::start`] was
//! called, a current-thread one where speed matters (EVIDENCE, QUIC); sending is
//! possible from any thread.

mod options;
mod reset_key;
mod codes;
mod tls;
mod crossing;
mod handshake;
mod outbox;
mod link;
mod slot;
mod peer;
mod ending;
mod accept;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use quinn::{Endpoint, SendDatagramError, TokioRuntime};
use rustls::pki_types::CertificateDer;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::certificates::{CertificateError, Identity};
use super::counters::{Counters, CountersSnapshot};
use super::{Peer, SendError, Transport, TransportEvent};
use crate::ambient;
use crate::types::{Moment, NodeId, limits};
use codes::Failed;
use peer::Actor;
use reset_key::ResetKey;
use slot::{End, Slot};
use tls::{Fingerprint, Peers, TlsConfigs};

pub use options::{QuicOptions, QuicSettings};

/// Bytes that the kernel is asked to hold for the socket in either direction.
const SOCKET_BUFFER_BYTES: usize = 4 * 1024 * 1024;
/// How long before its end a certificate is spoken of.
const EXPIRY_WARNING: Duration = Duration::from_secs(7 * 86_400);
/// How often.
const EXPIRY_CHECK: Duration = Duration::from_secs(3_600);

/// The transport was not started; nothing listens.
#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    /// The certificates, the CA or the keys cannot be used.
    #[error(transparent)]
    Certificates(#[from] CertificateError),
    /// The port cannot be listened on.
    #[error("cannot listen on UDP {address}: {source}; is another process using the port?")]
    Bind {
        /// The address asked for.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// Not called within a tokio runtime.
    #[error("the QUIC transport needs a tokio runtime to run on")]
    NoRuntime,
}

/// What all tasks of a transport share.
struct Shared {
    options: QuicOptions,
    endpoint: Endpoint,
    events: mpsc::Sender<TransportEvent>,
    counters: Arc<Counters>,
    peers: Arc<Peers>,
    client: ArcSwap<quinn::ClientConfig>,
    /// Grows with each change of certificates.
    generation: AtomicU64,
}

impl Shared {
    fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    fn note_failure(&self, failed: &Failed) {
        match failed {
            Failed::Refused(reason, _) => self.counters.refuse(*reason),
            Failed::ByPeer(..) => Counters::add(&self.counters.refused_by_peer, 1),
            Failed::Gone(_) | Failed::Crossed => {}
        }
    }

    /// Established connections outlive a certificate, new ones do not come to be.
    fn warn_of_expiry(&self) {
        let options = &self.options;
        let Some(then) = ambient::wall().checked_plus(EXPIRY_WARNING) else { return };
        if let Err(CertificateError::Expired { path, name }) = Identity::load(&options.tls, options.node, then) {
            let days = EXPIRY_WARNING.as_secs() / 86_400;
            tracing::warn!("the certificate of {name} in {} expires within {days} days: renew it", path.display());
        }
    }

    fn reload_certificates(&self) -> Result<(), CertificateError> {
        let options = &self.options;
        let loaded = TlsConfigs::load(&options.tls, options.node, &options.settings, &self.peers);
        let configs = loaded.inspect_err(|error| {
            Counters::add(&self.counters.certificate_reload_failures, 1);
            tracing::warn!("the new certificates cannot be used, the old ones stay: {error}");
        })?;
        self.endpoint.set_server_config(Some(configs.server));
        self.client.store(Arc::new(configs.client));
        self.generation.fetch_add(1, Ordering::Release);
        Counters::add(&self.counters.certificate_reloads, 1);
        tracing::info!("new certificates are in use");
        self.peers.load().values().for_each(|slot| slot.renew.notify_one());
        Ok(())
    }
}

/// Connections between one node and its peers.
///
/// Dropping it ends all connections at once; [`QuicTransport::close`] first sends what waits.
pub struct QuicTransport {
    shared: Arc<Shared>,
    runtime: Handle,
    tasks: Mutex<Tasks>,
}

#[derive(Default)]
struct Tasks {
    /// Accepting, and looking at the certificate files.
    service: Vec<JoinHandle<()>>,
    /// One for each peer.
    actors: BTreeMap<NodeId, JoinHandle<()>>,
    /// Those of former peers, until they have ended.
    leaving: Vec<(NodeId, JoinHandle<()>)>,
    /// To whom connections are kept, if they are peers.
    kept: BTreeSet<NodeId>,
    /// No peer is added any more.
    closed: bool,
}

impl QuicTransport {
    /// Listens, and reports to `events`. There are no peers until [`Transport::set_peers`].
    ///
    /// # Errors
    /// [`TransportError`], which says what to do; nothing listens then.
    pub fn start(
        options: QuicOptions,
        events: mpsc::Sender<TransportEvent>,
    ) -> Result<Arc<QuicTransport>, TransportError> {
        let runtime = Handle::try_current().map_err(|_| TransportError::NoRuntime)?;
        let peers = Arc::new(Peers::default());
        let seen = Fingerprint::of(&options.tls);
        let configs = TlsConfigs::load(&options.tls, options.node, &options.settings, &peers)?;
        let mut endpoint_config = ResetKey::load_or_create(&options.reset_key)?.endpoint_config();
        endpoint_config
            .max_udp_payload_size(options.settings.max_udp_payload())
            .expect("the size is within what UDP allows");
        let bind = |source| TransportError::Bind { address: options.listen, source };
        let socket = UdpSocket::bind(options.listen).map_err(bind)?;
        enlarge_buffers(&socket);
        let endpoint =
            Endpoint::new(endpoint_config, Some(configs.server), socket, Arc::new(TokioRuntime)).map_err(bind)?;
        let shared = Arc::new(Shared {
            options,
            endpoint,
            events,
            counters: Arc::default(),
            peers,
            client: ArcSwap::from_pointee(configs.client),
            generation: AtomicU64::new(0),
        });
        let service = vec![
            runtime.spawn(accept::accept_all(shared.clone())),
            runtime.spawn(watch_certificates(shared.clone(), seen)),
        ];
        let tasks = Mutex::new(Tasks { service, ..Tasks::default() });
        Ok(Arc::new(QuicTransport { shared, runtime, tasks }))
    }

    /// Where it listens.
    ///
    /// # Panics
    /// If the operating system has forgotten the socket.
    pub fn local_address(&self) -> SocketAddr {
        self.shared.endpoint.local_addr().expect("a bound socket has an address")
    }

    /// The certificate that a connected peer has shown (DER), and none if there is no
    /// connection to it now.
    pub fn peer_certificate(&self, peer: NodeId) -> Option<CertificateDer<'static>> {
        let connection = self.shared.peers.load().get(&peer)?.connection.load_full()?;
        let chain = connection.peer_identity()?.downcast::<Vec<CertificateDer<'static>>>().ok()?;
        chain.into_iter().next()
    }

    /// What was counted since the start.
    pub fn counters(&self) -> CountersSnapshot {
        self.shared.counters.snapshot()
    }

    /// The counters themselves, for whoever reads them often.
    pub fn shared_counters(&self) -> Arc<Counters> {
        self.shared.counters.clone()
    }

    /// Reads the certificate files again and uses them for every connection from here on;
    /// present ones are renewed one by one without losing a frame. This happens by itself,
    /// too, soon after the files have changed.
    ///
    /// # Errors
    /// [`CertificateError`]; the former certificates stay in use.
    pub fn reload_certificates(&self) -> Result<(), CertificateError> {
        self.shared.reload_certificates()
    }

    /// Sends what waits, tells the peers, and stops listening.
    pub async fn close(&self) {
        let limit = self.shared.options.settings.drain_timeout;
        let ended = Tasks { closed: true, ..Tasks::default() };
        let Tasks { service, actors, leaving, .. } = std::mem::replace(&mut *self.tasks(), ended);
        service.iter().for_each(JoinHandle::abort);
        let peers = self.shared.peers.swap(Arc::default());
        peers.values().for_each(|slot| slot.end(End::ShutDown));
        let actors: Vec<_> = actors.into_values().chain(leaving.into_iter().map(|(_, task)| task)).collect();
        let aborts: Vec<_> = actors.iter().map(JoinHandle::abort_handle).collect();
        let ended = timeout(limit + Duration::from_millis(500), async {
            for actor in actors {
                let _ = actor.await;
            }
        });
        if ended.await.is_err() {
            // An actor that waits for room among events that nobody reads.
            aborts.iter().for_each(tokio::task::AbortHandle::abort);
        }
        self.shared.endpoint.close(codes::SHUTDOWN, b"the node stops");
        let _ = timeout(Duration::from_millis(500), self.shared.endpoint.wait_idle()).await;
    }

    fn tasks(&self) -> std::sync::MutexGuard<'_, Tasks> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Transport for QuicTransport {
    fn send(&self, to: NodeId, frame: Bytes) -> Result<(), SendError> {
        // The empty frame belongs to the transport (see `link`); no message is empty.
        if frame.is_empty() || frame.len() > limits::MAX_FRAME_BYTES {
            return Err(SendError::TooLong);
        }
        let peers = self.shared.peers.load();
        let slot = peers.get(&to).ok_or(SendError::NotConnected)?;
        slot.outbox.push(frame).inspect_err(|error| {
            if *error == SendError::QueueFull {
                Counters::add(&self.shared.counters.queue_full, 1);
            }
        })?;
        slot.note_traffic();
        Ok(())
    }

    fn send_datagram(&self, to: NodeId, content: Bytes) -> Result<(), SendError> {
        let sent = self.try_datagram(to, content);
        let counters = &self.shared.counters;
        Counters::add(if sent.is_ok() { &counters.datagrams_sent } else { &counters.datagrams_refused }, 1);
        sent
    }

    fn disconnect(&self, peer: NodeId, reason: &str) {
        let peers = self.shared.peers.load();
        let Some(connection) = peers.get(&peer).and_then(|slot| slot.connection.load_full()) else { return };
        Counters::add(&self.shared.counters.violations, 1);
        tracing::warn!(%peer, reason, "the connection is closed on request");
        connection.close(codes::DISCONNECTED, reason.as_bytes());
    }

    fn set_peers(&self, peers: Vec<Peer>) {
        let mut tasks = self.tasks();
        if tasks.closed {
            return;
        }
        tasks.leaving.retain(|(_, task)| !task.is_finished());
        let mut before = BTreeMap::clone(&self.shared.peers.load());
        let mut after = BTreeMap::new();
        for peer in peers.into_iter().filter(|peer| peer.id != self.shared.options.node) {
            if after.contains_key(&peer.id) {
                continue;
            }
            let slot = before.remove(&peer.id).inspect(|slot| slot.set_address(peer.address));
            let slot = slot.unwrap_or_else(|| self.add_peer(&mut tasks, peer));
            after.insert(peer.id, slot);
        }
        self.shared.peers.store(Arc::new(after));
        for (id, slot) in before {
            slot.end(End::Remove);
            let actor = tasks.actors.remove(&id).map(|task| (id, task));
            tasks.leaving.extend(actor);
        }
    }

    fn keep(&self, peers: BTreeSet<NodeId>) {
        let mut tasks = self.tasks();
        self.shared.peers.load().values().for_each(|slot| slot.keep(peers.contains(&slot.peer)));
        tasks.kept = peers;
    }
}

impl QuicTransport {
    fn add_peer(&self, tasks: &mut Tasks, peer: Peer) -> Arc<Slot> {
        let (slot, actor) = Actor::new(&self.shared, peer.id, peer.address);
        slot.keep(tasks.kept.contains(&peer.id));
        // A peer that was removed and comes back is not `Up` before it was `Down`.
        let former: Vec<_> = tasks.leaving.extract_if(.., |(id, _)| *id == peer.id).collect();
        let task = self.runtime.spawn(async move {
            for (_, task) in former {
                let _ = task.await;
            }
            actor.run().await;
        });
        tasks.actors.insert(peer.id, task);
        slot
    }

    fn try_datagram(&self, to: NodeId, content: Bytes) -> Result<(), SendError> {
        if content.len() > limits::MAX_DATAGRAM_BYTES {
            return Err(SendError::TooLong);
        }
        let peers = self.shared.peers.load();
        let slot = peers.get(&to).ok_or(SendError::NotConnected)?;
        let connection = slot.connection.load_full().ok_or(SendError::NotConnected)?;
        // quinn would drop an older one to make room.
        if connection.datagram_send_buffer_space() < content.len() {
            return Err(SendError::QueueFull);
        }
        connection.send_datagram(content).map_err(|error| match error {
            SendDatagramError::TooLarge => SendError::TooLong,
            SendDatagramError::UnsupportedByPeer
            | SendDatagramError::Disabled
            | SendDatagramError::ConnectionLost(_) => SendError::NotConnected,
        })?;
        slot.note_traffic();
        Ok(())
    }
}

impl Drop for QuicTransport {
    fn drop(&mut self) {
        let tasks = std::mem::take(&mut *self.tasks());
        tasks.service.iter().for_each(JoinHandle::abort);
        tasks.actors.values().chain(tasks.leaving.iter().map(|(_, task)| task)).for_each(JoinHandle::abort);
        // A connection holds its TLS configuration, that the peers, and they their connections.
        let peers = self.shared.peers.swap(Arc::default());
        peers.values().for_each(|slot| slot.connection.store(None));
        self.shared.endpoint.close(codes::SHUTDOWN, b"the node stops");
    }
}

/// Asks for room for bursts; the kernel gives what it is allowed to.
fn enlarge_buffers(socket: &UdpSocket) {
    use rustix::net::sockopt;
    let _ = sockopt::set_socket_recv_buffer_size(socket, SOCKET_BUFFER_BYTES);
    let _ = sockopt::set_socket_send_buffer_size(socket, SOCKET_BUFFER_BYTES);
}

/// Takes up certificates that were written in the place of the present ones, and says
/// in time when that is due.
async fn watch_certificates(shared: Arc<Shared>, mut seen: Fingerprint) {
    let mut warned: Option<Moment> = None;
    loop {
        let now = ambient::moment();
        if warned.is_none_or(|at| now.since(at) >= EXPIRY_CHECK) {
            warned = Some(now);
            shared.warn_of_expiry();
        }
        tokio::time::sleep(shared.options.settings.certificate_check).await;
        let found = Fingerprint::of(&shared.options.tls);
        if found != seen {
            seen = found;
            warned = None;
            // What went wrong was logged and counted; the next change is the next try.
            let _ = shared.reload_certificates();
        }
    }
}
