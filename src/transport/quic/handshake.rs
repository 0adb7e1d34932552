//! How two nodes come to believe each other.
//!
//! The dialler connects by name, so TLS has checked the acceptor's certificate; the
//! acceptor's TLS has checked that the dialler is a member. Then each sends a [`Hello`]
//! as the first frame of the one stream, the dialler first, and compares the other's
//! with the certificate, the cluster and what it knows. Only then does the connection
//! count: QUIC alone tells a dialler that it is connected even if its certificate is
//! about to be refused (EVIDENCE, QUIC).
//!
//! When the acceptor has read a greeting, the dialler has already accepted the acceptor's
//! certificate (TLS 1.3 lets it speak only then). The dialler's last word is its
//! confirmation, a frame of one byte: it has taken the connection, as the only one or as
//! the successor of the one that stands. Before that the acceptor uses it for nothing, so
//! a dial that is given up halfway, because another one crossed it (see `crossing`),
//! leaves no trace.
//!
//! Invariant: whoever is refused leaves no state behind, is told why, and is counted.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use quinn::{Connection, ConnectionError, Incoming, ReadError, ReadExactError, RecvStream, SendStream, WriteError};
use rustls::pki_types::CertificateDer;
use tokio::time::timeout;

use super::Shared;
use super::codes::{self, Failed};
use super::crossing::{Attempt, Greeting};
use super::slot::Slot;
use super::tls::node_of_certificate;
use crate::transport::counters::HandshakeRefusal;
use crate::types::{Epoch, NodeId};
use crate::wire::{Hello, HelloError, write_frame};

/// A dialler's confirmation: it has no other connection to this node.
const ONLY: [u8; 5] = [1, 0, 0, 0, 0];
/// A dialler's confirmation: what it had dialled before still stands, and is renewed by this.
const RENEWS: [u8; 5] = [1, 0, 0, 0, 1];

/// A connection on which both ends have greeted, and which its dialler has confirmed.
pub(super) struct Meeting {
    pub(super) connection: Connection,
    pub(super) send: SendStream,
    pub(super) receive: RecvStream,
    pub(super) hello: Hello,
    /// Which certificates of this node it was made with.
    pub(super) generation: u64,
    /// Its dialler renews by it the connection that stands.
    pub(super) renews: bool,
    /// It was accepted, and that is under way until it is taken.
    pub(super) greeting: Option<Greeting>,
}

/// Connects to a peer, once. If this is dropped halfway, the peer has seen nothing.
pub(super) async fn dial(shared: &Shared, slot: &Slot, attempt: Attempt) -> Result<Meeting, Failed> {
    let settings = &shared.options.settings;
    let generation = shared.generation.load(Ordering::Acquire);
    let config = quinn::ClientConfig::clone(&shared.client.load());
    let mut connecting = shared
        .endpoint
        .connect_with(config, slot.address(), &slot.name)
        .map_err(|error| Failed::Gone(error.to_string()))?;
    match timeout(settings.answer_timeout, connecting.handshake_data()).await {
        Ok(Ok(_)) => {}
        Ok(Err(error)) => return Err(Failed::of(&error)),
        Err(_) => return Err(Failed::Gone("no answer".into())),
    }
    let greeting = async {
        let connection = connecting.await.map_err(|error| Failed::of(&error))?;
        let greeted = greet_acceptor(shared, slot, &connection).await;
        let (send, receive, hello, renews) = close_if_refused(&connection, greeted)?;
        attempt.succeed();
        Ok(Meeting { connection, send, receive, hello, generation, renews, greeting: None })
    };
    bounded(settings.handshake_timeout, greeting).await
}

/// Hears out somebody who wants to connect.
pub(super) async fn accept(shared: &Shared, incoming: Incoming) -> Result<(Arc<Slot>, Meeting), Failed> {
    let generation = shared.generation.load(Ordering::Acquire);
    let greeting = async {
        let connection = incoming.await.map_err(|error| Failed::of(&error))?;
        let greeted = greet_dialler(shared, &connection).await;
        let (slot, greeting, (send, receive, hello, renews)) = close_if_refused(&connection, greeted)?;
        Ok((slot, Meeting { connection, send, receive, hello, generation, renews, greeting: Some(greeting) }))
    };
    bounded(shared.options.settings.handshake_timeout, greeting).await
}

async fn bounded<T>(limit: Duration, handshake: impl Future<Output = Result<T, Failed>>) -> Result<T, Failed> {
    match timeout(limit, handshake).await {
        Ok(result) => result,
        Err(_) => Err(refuse(HandshakeRefusal::Timeout, format!("the handshake took longer than {limit:?}"))),
    }
}

type Greeted = (SendStream, RecvStream, Hello, bool);

async fn greet_acceptor(shared: &Shared, slot: &Slot, connection: &Connection) -> Result<Greeted, Failed> {
    let named = certified_node(connection)?;
    let (mut send, mut receive) = connection.open_bi().await.map_err(|error| Failed::of(&error))?;
    let greeting = async {
        write_hello(shared, &mut send).await?;
        let hello = read_hello(&mut receive).await?;
        check(shared, &hello, named)?;
        slot.check_life(&hello, None)?;
        slot.crossing.until_no_greeting().await;
        // The actor runs this, so what it sees here stands until it takes the new one.
        let renews = slot.connection.load().is_some() && hello.incarnation == slot.known().newest;
        write(&mut send, if renews { &RENEWS } else { &ONLY }).await?;
        Ok::<_, Failed>((hello, renews))
    };
    let (hello, renews) = or_abandon(connection, greeting).await?;
    Ok((send, receive, hello, renews))
}

async fn greet_dialler(shared: &Shared, connection: &Connection) -> Result<(Arc<Slot>, Greeting, Greeted), Failed> {
    let named = certified_node(connection)?;
    let not_member = || refuse(HandshakeRefusal::NotMember, format!("{named} is not a member"));
    let slot = shared.peers.load().get(&named).cloned().ok_or_else(not_member)?;
    let (mut send, mut receive) = connection.accept_bi().await.map_err(|error| Failed::of(&error))?;
    let greeted = async {
        let hello = read_hello(&mut receive).await?;
        check(shared, &hello, named)?;
        let greeting = tokio::select! {
            biased;
            error = connection.closed() => return Err(Failed::of(&error)),
            greeting = slot.crossing.greet() => greeting.ok_or(Failed::Crossed)?,
        };
        slot.check_life(&hello, Some(connection.remote_address()))?;
        write_hello(shared, &mut send).await?;
        let mut confirmation = [0; ONLY.len()];
        read_exact(&mut receive, &mut confirmation).await?;
        let renews = match confirmation {
            ONLY => false,
            RENEWS => true,
            _ => return Err(malformed("something else than the confirmation follows the greeting".into())),
        };
        Ok::<_, Failed>((greeting, hello, renews))
    };
    let (greeting, hello, renews) = or_abandon(connection, greeted).await?;
    Ok((slot, greeting, (send, receive, hello, renews)))
}

/// A handshake whose connection is closed if it is dropped before its end, and before its
/// streams are: a stream that ends within a greeting would look like a mistake of this node's.
async fn or_abandon<T>(connection: &Connection, handshake: impl Future<Output = T>) -> T {
    struct Abandon<'a>(Option<&'a Connection>);

    impl Drop for Abandon<'_> {
        fn drop(&mut self) {
            if let Some(connection) = self.0 {
                connection.close(codes::ABANDONED, b"given up");
            }
        }
    }

    let mut abandon = Abandon(Some(connection));
    let result = handshake.await;
    abandon.0 = None;
    result
}

/// The node that the peer's certificate names. TLS has looked already; this does not
/// rely on the order in which it does things.
fn certified_node(connection: &Connection) -> Result<NodeId, Failed> {
    let chain =
        connection.peer_identity().and_then(|identity| identity.downcast::<Vec<CertificateDer<'static>>>().ok());
    let Some(own) = chain.as_deref().and_then(|chain| chain.first()) else {
        return Err(refuse(HandshakeRefusal::NoCertificate, "no certificate was shown".into()));
    };
    node_of_certificate(own)
        .ok_or_else(|| refuse(HandshakeRefusal::WrongName, "the certificate does not name one node".into()))
}

fn check(shared: &Shared, hello: &Hello, named: NodeId) -> Result<(), Failed> {
    if hello.cluster != shared.options.cluster {
        let reason = format!("{named} is of cluster {}, not {}", hello.cluster, shared.options.cluster);
        return Err(refuse(HandshakeRefusal::WrongCluster, reason));
    }
    if hello.node != named {
        let reason = format!("it says that it is {}, its certificate says {named}", hello.node);
        return Err(refuse(HandshakeRefusal::WrongName, reason));
    }
    Ok(())
}

async fn write_hello(shared: &Shared, send: &mut SendStream) -> Result<(), Failed> {
    let options = &shared.options;
    let epoch = Epoch(options.epoch.load(Ordering::Relaxed));
    let hello = Hello { cluster: options.cluster, node: options.node, incarnation: options.incarnation, epoch };
    let mut frame = Vec::with_capacity(Hello::MAX_BYTES);
    write_frame(&mut frame, &hello.encode());
    write(send, &frame).await
}

async fn write(send: &mut SendStream, bytes: &[u8]) -> Result<(), Failed> {
    send.write_all(bytes).await.map_err(|error| match error {
        WriteError::ConnectionLost(error) => Failed::of(&error),
        other => malformed(other.to_string()),
    })
}

async fn read_hello(receive: &mut RecvStream) -> Result<Hello, Failed> {
    let mut prefix = [0; 4];
    read_exact(receive, &mut prefix).await?;
    let length = u32::from_le_bytes(prefix) as usize;
    let mut content = [0; Hello::MAX_BYTES];
    let Some(content) = content.get_mut(..length) else {
        return Err(malformed(format!("a greeting of {length} bytes")));
    };
    read_exact(receive, content).await?;
    Hello::decode(content).map_err(|error| match error {
        HelloError::Version(_) | HelloError::NotDogsled => refuse(HandshakeRefusal::WrongVersion, error.to_string()),
        HelloError::Malformed(_) => malformed(error.to_string()),
    })
}

async fn read_exact(receive: &mut RecvStream, into: &mut [u8]) -> Result<(), Failed> {
    receive.read_exact(into).await.map_err(|error| match error {
        ReadExactError::ReadError(ReadError::ConnectionLost(error)) => Failed::of(&error),
        other => malformed(format!("the greeting broke off: {other}")),
    })
}

fn refuse(reason: HandshakeRefusal, text: String) -> Failed {
    Failed::Refused(reason, text)
}

fn malformed(text: String) -> Failed {
    refuse(HandshakeRefusal::MalformedHello, text)
}

/// Tells the peer why, so that its log says it too.
fn close_if_refused<T>(connection: &Connection, result: Result<T, Failed>) -> Result<T, Failed> {
    match &result {
        Err(Failed::Refused(reason, text)) => connection.close(codes::refused(*reason), text.as_bytes()),
        Err(Failed::Crossed) => connection.close(codes::CROSSED, b"reached from here at the same time"),
        Ok(_) | Err(Failed::ByPeer(..) | Failed::Gone(_)) => {}
    }
    result
}

impl Slot {
    /// Whether a peer in this life may connect (from this address, if it dialled).
    fn check_life(&self, hello: &Hello, from: Option<SocketAddr>) -> Result<(), Failed> {
        let known = self.known();
        if hello.incarnation < known.newest {
            let text = format!("{} is in life {}, but was seen in life {}", self.peer, hello.incarnation, known.newest);
            return Err(refuse(HandshakeRefusal::StaleIncarnation, text));
        }
        match (known.connected_from, from) {
            // A node dials from the port that it listens on, so two addresses are two nodes.
            (Some(there), Some(here)) if there != here && hello.incarnation == known.newest => {
                let text = format!("{} is connected from {there} and dials from {here}", self.peer);
                Err(refuse(HandshakeRefusal::DuplicateNode, text))
            }
            _ => Ok(()),
        }
    }
}

impl From<ConnectionError> for Failed {
    fn from(error: ConnectionError) -> Failed {
        Failed::of(&error)
    }
}
