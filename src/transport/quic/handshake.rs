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
//! certificate (TLS 1.3 lets it speak only then), so both ends need one round trip.
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
use super::peer::Slot;
use super::tls::node_of_certificate;
use crate::transport::counters::HandshakeRefusal;
use crate::types::{Epoch, NodeId};
use crate::wire::{Hello, HelloError, write_frame};

/// A connection on which both ends have greeted.
pub(super) struct Meeting {
    pub(super) connection: Connection,
    pub(super) send: SendStream,
    pub(super) receive: RecvStream,
    pub(super) hello: Hello,
    /// Which certificates of this node it was made with.
    pub(super) generation: u64,
}

/// Connects to a peer, once.
pub(super) async fn dial(shared: &Shared, slot: &Slot) -> Result<Meeting, Failed> {
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
        let (send, receive, hello) = close_if_refused(&connection, greeted)?;
        Ok(Meeting { connection, send, receive, hello, generation })
    };
    bounded(settings.handshake_timeout, greeting).await
}

/// Hears out somebody who wants to connect.
pub(super) async fn accept(shared: &Shared, incoming: Incoming) -> Result<(Arc<Slot>, Meeting), Failed> {
    let generation = shared.generation.load(Ordering::Acquire);
    let greeting = async {
        let connection = incoming.await.map_err(|error| Failed::of(&error))?;
        let greeted = greet_dialler(shared, &connection).await;
        let (slot, (send, receive, hello)) = close_if_refused(&connection, greeted)?;
        Ok((slot, Meeting { connection, send, receive, hello, generation }))
    };
    bounded(shared.options.settings.handshake_timeout, greeting).await
}

async fn bounded<T>(limit: Duration, handshake: impl Future<Output = Result<T, Failed>>) -> Result<T, Failed> {
    match timeout(limit, handshake).await {
        Ok(result) => result,
        Err(_) => Err(refuse(HandshakeRefusal::Timeout, format!("the handshake took longer than {limit:?}"))),
    }
}

type Greeted = (SendStream, RecvStream, Hello);

async fn greet_acceptor(shared: &Shared, slot: &Slot, connection: &Connection) -> Result<Greeted, Failed> {
    let named = certified_node(connection)?;
    let (mut send, mut receive) = connection.open_bi().await.map_err(|error| Failed::of(&error))?;
    write_hello(shared, &mut send).await?;
    let hello = read_hello(&mut receive).await?;
    check(shared, &hello, named)?;
    slot.check_life(&hello, None)?;
    Ok((send, receive, hello))
}

async fn greet_dialler(shared: &Shared, connection: &Connection) -> Result<(Arc<Slot>, Greeted), Failed> {
    let named = certified_node(connection)?;
    let not_member = || refuse(HandshakeRefusal::NotMember, format!("{named} is not a member"));
    let slot = shared.peers.load().get(&named).cloned().ok_or_else(not_member)?;
    if slot.dialled_from_here() {
        return Err(refuse(HandshakeRefusal::Protocol, format!("{named} dials, but it is to be dialled")));
    }
    let (mut send, mut receive) = connection.accept_bi().await.map_err(|error| Failed::of(&error))?;
    let hello = read_hello(&mut receive).await?;
    check(shared, &hello, named)?;
    slot.check_life(&hello, Some(connection.remote_address()))?;
    write_hello(shared, &mut send).await?;
    Ok((slot, (send, receive, hello)))
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
    send.write_all(&frame).await.map_err(|error| match error {
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
    if let Err(Failed::Refused(reason, text)) = &result {
        connection.close(codes::refused(*reason), text.as_bytes());
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
