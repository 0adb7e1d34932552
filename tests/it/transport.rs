//! What the tests of the transport share: certificates, nodes, and waiting for events.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use dogsled::ambient;
use dogsled::transport::certificates::{Authority, Issued, TlsFiles, Validity};
use dogsled::transport::quic::{QuicOptions, QuicSettings, QuicTransport, TransportError};
use dogsled::transport::{CountersSnapshot, HandshakeRefusal, Peer, Transport, TransportEvent};
use dogsled::types::{ClusterId, Epoch, Incarnation, NodeId};
use dogsled::wire::{Hello, write_frame};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, SignatureScheme};
use tempfile::TempDir;
use tokio::sync::mpsc;

/// Nothing here takes long; a test that waits for so long hangs.
const HANG: Duration = Duration::from_secs(60);

pub fn node(number: u32) -> NodeId {
    NodeId::new(number).expect("not zero")
}

pub fn cluster() -> ClusterId {
    ClusterId([7; 16])
}

pub fn valid() -> Validity {
    Validity::days(ambient::wall(), 30)
}

/// What arrives at a node.
pub struct Inbox {
    pub node: NodeId,
    events: mpsc::Receiver<TransportEvent>,
    /// Frames that arrived while something else was awaited.
    frames: BTreeMap<NodeId, Vec<Bytes>>,
    /// How often a connection went down.
    pub downs: usize,
    /// How often it was lost.
    pub lost: usize,
    /// How often a connection came up.
    pub ups: usize,
    /// How often a peer could not be reached.
    pub unreachable: usize,
}

impl Inbox {
    pub fn new(node: NodeId, capacity: usize) -> (mpsc::Sender<TransportEvent>, Inbox) {
        let (sender, events) = mpsc::channel(capacity);
        (sender, Inbox { node, events, frames: BTreeMap::new(), downs: 0, lost: 0, ups: 0, unreachable: 0 })
    }

    pub async fn next(&mut self) -> TransportEvent {
        let event = tokio::time::timeout(HANG, self.events.recv()).await;
        let event = event.unwrap_or_else(|_| panic!("{} hears nothing", self.node)).expect("the transport lives");
        self.note(&event);
        event
    }

    /// What has arrived already, if anything.
    pub fn try_next(&mut self) -> Option<TransportEvent> {
        let event = self.events.try_recv().ok()?;
        self.note(&event);
        Some(event)
    }

    fn note(&mut self, event: &TransportEvent) {
        match event {
            TransportEvent::Up { .. } => self.ups += 1,
            TransportEvent::Down { parted, .. } => {
                self.downs += 1;
                self.lost += usize::from(!parted);
            }
            TransportEvent::Unreachable { .. } => self.unreachable += 1,
            TransportEvent::Frames { peer, frames } => {
                assert!(!frames.is_empty(), "an event without frames");
                self.frames.entry(*peer).or_default().extend_from_slice(frames);
            }
            TransportEvent::Datagram { .. } => {}
        }
    }

    /// Drops the frames that were kept.
    pub fn forget_frames(&mut self) {
        self.frames.clear();
    }

    /// Drops the frames, and counts anew.
    pub fn forget(&mut self) {
        self.frames.clear();
        (self.ups, self.downs, self.lost, self.unreachable) = (0, 0, 0, 0);
    }

    /// Until `peer` is up; in which life.
    pub async fn up(&mut self, from: NodeId) -> Incarnation {
        loop {
            match self.next().await {
                TransportEvent::Up { peer, incarnation } if peer == from => return incarnation,
                _ => {}
            }
        }
    }

    /// Until `peer` is down; whether in good order.
    pub async fn down(&mut self, from: NodeId) -> bool {
        loop {
            match self.next().await {
                TransportEvent::Down { peer, parted } if peer == from => return parted,
                _ => {}
            }
        }
    }

    /// The next so many frames of this peer.
    pub async fn frames(&mut self, from: NodeId, count: usize) -> Vec<Bytes> {
        loop {
            let waiting = self.frames.entry(from).or_default();
            if waiting.len() >= count {
                return waiting.drain(..count).collect();
            }
            self.next().await;
        }
    }

    pub async fn datagram(&mut self, from: NodeId) -> Bytes {
        loop {
            match self.next().await {
                TransportEvent::Datagram { peer, content } if peer == from => return content,
                _ => {}
            }
        }
    }
}

/// A cluster's certificates in a directory.
pub struct Certificates {
    pub directory: TempDir,
    pub authority: Authority,
}

impl Certificates {
    pub fn new() -> Certificates {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let authority = Authority::create(valid()).expect("an authority");
        let (certificate, key) = (directory.path().join("ca.pem"), directory.path().join("ca.key"));
        authority.write(&certificate, &key).expect("files");
        Certificates { directory, authority }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The files of a node, made when first asked for.
    pub fn of_node(&self, node: NodeId) -> TlsFiles {
        let files = self.files(&node.to_string());
        if !files.certificate.exists() {
            let issued = self.authority.issue_node(node, valid()).expect("a certificate");
            issued.write(&files.certificate, &files.key).expect("files");
        }
        files
    }

    pub fn write(&self, name: &str, issued: &Issued) -> TlsFiles {
        let files = self.files(name);
        issued.write(&files.certificate, &files.key).expect("files");
        files
    }

    fn files(&self, name: &str) -> TlsFiles {
        TlsFiles {
            ca: self.path("ca.pem"),
            certificate: self.path(&format!("{name}.pem")),
            key: self.path(&format!("{name}.key")),
        }
    }

    pub fn options(&self, node: NodeId, incarnation: u64) -> QuicOptions {
        QuicOptions {
            listen: "127.0.0.1:0".parse().expect("an address"),
            cluster: cluster(),
            node,
            incarnation: Incarnation(incarnation),
            epoch: Arc::new(AtomicU64::new(1)),
            tls: self.of_node(node),
            reset_key: self.path(&format!("{node}.reset")),
            settings: QuicSettings::default(),
        }
    }
}

/// A running node on QUIC.
pub struct QuicNode {
    pub transport: Arc<QuicTransport>,
    pub inbox: Inbox,
}

impl QuicNode {
    pub fn start(options: QuicOptions) -> QuicNode {
        QuicNode::try_start(options, 1_024).expect("a transport")
    }

    pub fn try_start(options: QuicOptions, capacity: usize) -> Result<QuicNode, TransportError> {
        let (sender, inbox) = Inbox::new(options.node, capacity);
        Ok(QuicNode { transport: QuicTransport::start(options, sender)?, inbox })
    }

    /// Starts a node on a port that its former life may not have let go of yet.
    pub async fn restart(options: QuicOptions, capacity: usize) -> QuicNode {
        let started = tokio::time::timeout(HANG, async {
            loop {
                match QuicNode::try_start(options.clone(), capacity) {
                    Err(TransportError::Bind { .. }) => tokio::task::yield_now().await,
                    started => break started.expect("a transport"),
                }
            }
        });
        started.await.expect("the port does not become free")
    }

    pub fn id(&self) -> NodeId {
        self.inbox.node
    }

    pub fn peer(&self) -> Peer {
        Peer { id: self.id(), address: self.address() }
    }

    pub fn address(&self) -> SocketAddr {
        self.transport.local_address()
    }

    pub fn counters(&self) -> CountersSnapshot {
        self.transport.counters()
    }

    /// Until a count is reached.
    pub async fn counted(&self, what: &str, reached: impl Fn(&CountersSnapshot) -> bool) {
        let polled = tokio::time::timeout(HANG, async {
            while !reached(&self.counters()) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
        polled.await.unwrap_or_else(|_| panic!("{}: no {what} in {:?}", self.id(), self.counters()));
    }

    pub async fn refused(&self, reason: HandshakeRefusal) {
        self.counted(reason.name(), |counters| counters.refused(reason) > 0).await;
    }
}

impl From<&QuicNode> for Peer {
    fn from(node: &QuicNode) -> Peer {
        node.peer()
    }
}

/// Lists these peers and keeps connections to all of them.
pub fn keep_all(transport: &dyn Transport, peers: Vec<Peer>) {
    transport.keep(peers.iter().map(|peer| peer.id).collect());
    transport.set_peers(peers);
}

/// Two connected nodes that both keep the connection.
pub async fn connect(one: &mut QuicNode, other: &mut QuicNode) {
    keep_all(&*other.transport, vec![one.peer()]);
    dial(one, other).await;
}

/// Two connected nodes, of which the first keeps the connection.
pub async fn dial(one: &mut QuicNode, other: &mut QuicNode) {
    other.transport.set_peers(vec![one.peer()]);
    one.transport.set_peers(vec![other.peer()]);
    one.transport.keep(BTreeSet::from([other.id()]));
    one.inbox.up(other.id()).await;
    other.inbox.up(one.id()).await;
}

/// Frames still go both ways, and nothing went down meanwhile.
pub async fn assert_undisturbed(one: &mut QuicNode, other: &mut QuicNode) {
    one.transport.send(other.id(), Bytes::from_static(b"there")).expect("connected");
    other.transport.send(one.id(), Bytes::from_static(b"and back")).expect("connected");
    assert_eq!(other.inbox.frames(one.id(), 1).await, ["there"]);
    assert_eq!(one.inbox.frames(other.id(), 1).await, ["and back"]);
    assert_eq!((one.inbox.downs, other.inbox.downs), (0, 0), "a connection between others was lost");
}

/// The log lines of this thread, from here on.
pub struct Log {
    written: Arc<Mutex<Vec<u8>>>,
    _guard: tracing::subscriber::DefaultGuard,
}

#[derive(Clone)]
struct Writer(Arc<Mutex<Vec<u8>>>);

impl Write for Writer {
    fn write(&mut self, line: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Log {
    pub fn capture() -> Log {
        let written = Arc::new(Mutex::new(Vec::new()));
        let writer = Writer(written.clone());
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(tracing::Level::WARN)
            .with_ansi(false)
            .with_writer(move || writer.clone())
            .finish();
        Log { written, _guard: tracing::subscriber::set_default(subscriber) }
    }

    pub fn assert_says(&self, parts: &[&str]) {
        let text = String::from_utf8(self.written.lock().unwrap().clone()).expect("UTF-8");
        let said = text.lines().any(|line| parts.iter().all(|part| line.contains(part)));
        assert!(said, "no line of the log has all of {parts:?}:\n{text}");
    }
}

/// A client of QUIC that keeps to no rule of Dogsled's: it trusts everybody and shows
/// what it is told to show.
pub struct Intruder {
    endpoint: quinn::Endpoint,
    config: quinn::ClientConfig,
}

impl Intruder {
    /// One that shows these certificates, or none.
    pub fn new(shows: Option<&TlsFiles>) -> Intruder {
        Intruder::with(shows, |_| {})
    }

    /// One with TLS settings of its own.
    pub fn with(shows: Option<&TlsFiles>, adjust: impl FnOnce(&mut rustls::ClientConfig)) -> Intruder {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = rustls::ClientConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("TLS 1.3")
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(TrustsAll(provider)));
        let mut tls = match shows {
            None => builder.with_no_client_auth(),
            Some(files) => {
                let pem = std::fs::read(&files.certificate).expect("a certificate");
                let chain = CertificateDer::pem_slice_iter(&pem).collect::<Result<_, _>>().expect("PEM");
                let key = PrivateKeyDer::from_pem_file(&files.key).expect("a key");
                builder.with_client_auth_cert(chain, key).expect("a usable key")
            }
        };
        tls.alpn_protocols = vec![b"dogsled/1".to_vec()];
        adjust(&mut tls);
        let crypto = quinn::crypto::rustls::QuicClientConfig::try_from(tls).expect("QUIC");
        let endpoint = quinn::Endpoint::client("127.0.0.1:0".parse().expect("an address")).expect("a socket");
        Intruder { endpoint, config: quinn::ClientConfig::new(Arc::new(crypto)) }
    }

    /// As far as QUIC itself is concerned, a connection.
    pub async fn connect(&self, to: impl Into<Peer>) -> Result<quinn::Connection, quinn::ConnectionError> {
        let to = to.into();
        let name = dogsled::transport::certificates::node_name(to.id);
        self.endpoint.connect_with(self.config.clone(), to.address, &name).expect("a name").await
    }

    /// Connects and begins the one stream with these bytes.
    pub async fn begin(&self, to: impl Into<Peer>, bytes: &[u8]) -> Stream {
        let connection = self.connect(to).await.expect("a connection");
        let (mut send, receive) = connection.open_bi().await.expect("a stream");
        send.write_all(bytes).await.expect("bytes under way");
        Stream { connection, send, receive }
    }

    /// Connects and greets as this node, properly.
    pub async fn greet(&self, to: impl Into<Peer>, as_node: NodeId) -> Stream {
        let mut stream = self.half_greet(to, as_node).await;
        stream.send.write_all(&greeting(&[0])).await.expect("a confirmation under way");
        stream
    }

    /// Connects and greets, and does not confirm.
    pub async fn half_greet(&self, to: impl Into<Peer>, as_node: NodeId) -> Stream {
        let to = to.into();
        let mut stream = self.begin(to, &greeting(&hello(as_node).encode())).await;
        let mut prefix = [0; 4];
        stream.receive.read_exact(&mut prefix).await.expect("a greeting in return");
        let mut content = vec![0; u32::from_le_bytes(prefix) as usize];
        stream.receive.read_exact(&mut content).await.expect("a greeting in return");
        assert_eq!(Hello::decode(&content).expect("a greeting").node, to.id);
        stream
    }
}

/// The one stream of a connection.
pub struct Stream {
    pub connection: quinn::Connection,
    pub send: quinn::SendStream,
    pub receive: quinn::RecvStream,
}

impl Stream {
    /// The code that the connection is closed with from the other end.
    pub async fn closed_with(&self) -> u64 {
        let closed = tokio::time::timeout(HANG, self.connection.closed()).await;
        match closed.expect("the connection is not closed") {
            quinn::ConnectionError::ApplicationClosed(close) => close.error_code.into_inner(),
            other => panic!("closed otherwise: {other}"),
        }
    }
}

pub fn hello(node: NodeId) -> Hello {
    Hello { cluster: cluster(), node, incarnation: Incarnation(1), epoch: Epoch(1) }
}

/// A frame of these bytes.
pub fn greeting(content: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    write_frame(&mut frame, content);
    frame
}

#[derive(Debug)]
struct TrustsAll(Arc<CryptoProvider>);

impl ServerCertVerifier for TrustsAll {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
