//! Nonsense from a peer whose certificate is good, and from strangers: a typed end of
//! the connection, counted, in bounded memory, and no other connection is disturbed.
//!
//! What stands inside a frame is the business of `wire` (see its property tests); the
//! transport passes it on as it is.

use std::net::UdpSocket;
use std::time::Duration;

use dogsled::ambient;
use dogsled::transport::{HandshakeRefusal, Peer, Transport};
use dogsled::types::limits;
use dogsled::wire::{Hello, PROTOCOL_VERSION};
use rand::Rng;

use crate::transport::{
    Certificates, Intruder, Log, QuicNode, Stream, assert_undisturbed, connect, greeting, hello, node,
};

const FRAME_TOO_LONG: u64 = 5;
const BROKEN_STREAM: u64 = 6;
const LOST: u64 = 10;

struct Scene {
    certificates: Certificates,
    target: QuicNode,
    friend: QuicNode,
    log: Log,
}

impl Scene {
    async fn set() -> Scene {
        let log = Log::capture();
        let certificates = Certificates::new();
        let mut target = QuicNode::start(certificates.options(node(5), 1));
        let mut friend = QuicNode::start(certificates.options(node(6), 1));
        connect(&mut target, &mut friend).await;
        let absent = Peer { id: node(1), address: "127.0.0.1:1".parse().expect("an address") };
        target.transport.set_peers(vec![absent, friend.peer()]);
        Scene { certificates, target, friend, log }
    }

    /// A member by its certificate, a vandal otherwise.
    fn vandal(&self) -> Intruder {
        Intruder::new(Some(&self.certificates.of_node(node(1))))
    }

    async fn met(&mut self) -> Stream {
        let stream = self.vandal().greet(&self.target, node(1)).await;
        self.target.inbox.up(node(1)).await;
        stream
    }

    async fn ends(&mut self, stream: &Stream, code: u64) {
        assert_eq!(stream.closed_with().await, code);
        self.target.inbox.down(node(1)).await;
        self.target.inbox.downs = 0;
        assert_eq!(self.target.counters().violations, 1);
        self.log.assert_says(&["WARN", "the peer broke the protocol", "peer=n1"]);
        assert_undisturbed(&mut self.target, &mut self.friend).await;
    }

    async fn refuses_greeting(&mut self, bytes: &[u8], reason: HandshakeRefusal) {
        let mut stream = self.vandal().begin(&self.target, bytes).await;
        let _ = stream.send.finish();
        self.target.refused(reason).await;
        assert_eq!(stream.closed_with().await, 16 + reason as u64);
        assert_eq!(self.target.counters().refused_total(), 1);
        assert_eq!(self.target.counters().connections_opened, 1, "only the friend was let in");
        self.log.assert_says(&["WARN", "refused a connection", reason.name()]);
        assert_undisturbed(&mut self.target, &mut self.friend).await;
    }
}

#[tokio::test]
async fn a_frame_that_is_too_long_ends_the_connection_before_it_is_read() {
    let mut scene = Scene::set().await;
    let mut stream = scene.met().await;
    let mut bytes = greeting(b"a good frame first");
    bytes.extend_from_slice(&(limits::MAX_FRAME_BYTES as u32 + 1).to_le_bytes());
    stream.send.write_all(&bytes).await.expect("bytes under way");
    scene.ends(&stream, FRAME_TOO_LONG).await;
    assert_eq!(scene.target.inbox.frames(node(1), 1).await, ["a good frame first"]);
}

#[tokio::test]
async fn a_frame_that_is_cut_short_ends_the_connection() {
    let mut scene = Scene::set().await;
    let mut stream = scene.met().await;
    // It announces the most that is allowed, and brings five bytes.
    let mut bytes = (limits::MAX_FRAME_BYTES as u32).to_le_bytes().to_vec();
    bytes.extend_from_slice(b"short");
    stream.send.write_all(&bytes).await.expect("bytes under way");
    stream.send.finish().expect("an open stream");
    scene.ends(&stream, BROKEN_STREAM).await;
}

#[tokio::test]
async fn a_stream_that_is_reset_ends_the_connection() {
    let mut scene = Scene::set().await;
    let mut stream = scene.met().await;
    stream.send.reset(quinn::VarInt::from_u32(9)).expect("an open stream");
    scene.ends(&stream, BROKEN_STREAM).await;
}

#[tokio::test]
async fn a_second_stream_is_never_granted() {
    let mut scene = Scene::set().await;
    let stream = scene.met().await;
    let waits = Duration::from_millis(200);
    assert!(tokio::time::timeout(waits, stream.connection.open_bi()).await.is_err(), "a second stream was granted");
    assert!(tokio::time::timeout(waits, stream.connection.open_uni()).await.is_err(), "a one-way stream was granted");
    assert_undisturbed(&mut scene.target, &mut scene.friend).await;
}

#[tokio::test]
async fn greetings_of_other_versions_and_protocols_are_refused() {
    let good = hello(node(1)).encode();
    let mut newer = good.clone();
    newer[4] = PROTOCOL_VERSION + 1;
    let mut other = good.clone();
    other[0] = b'H';
    for bytes in [newer, other] {
        Scene::set().await.refuses_greeting(&greeting(&bytes), HandshakeRefusal::WrongVersion).await;
    }
}

#[tokio::test]
async fn greetings_that_make_no_sense_are_refused() {
    let good = hello(node(1)).encode();
    let trailing = [&good[..], b"x"].concat();
    let cut = &good[..good.len() - 1];
    let lying = (Hello::MAX_BYTES as u32 + 1).to_le_bytes();
    let huge = u32::MAX.to_le_bytes();
    for bytes in
        [&greeting(&trailing)[..], &greeting(cut), &lying, &huge, &greeting(&good)[..9], b"GET / HTTP/1.1\r\n\r\n"]
    {
        Scene::set().await.refuses_greeting(bytes, HandshakeRefusal::MalformedHello).await;
    }
}

#[tokio::test]
async fn what_is_no_confirmation_is_refused() {
    let mut scene = Scene::set().await;
    let mut stream = scene.vandal().half_greet(&scene.target, node(1)).await;
    stream.send.write_all(&greeting(b"a frame")).await.expect("bytes under way");
    scene.target.refused(HandshakeRefusal::MalformedHello).await;
    assert_eq!(stream.closed_with().await, 16 + HandshakeRefusal::MalformedHello as u64);
    assert_eq!(scene.target.counters().connections_opened, 1, "only the friend was let in");
    assert_undisturbed(&mut scene.target, &mut scene.friend).await;
}

#[tokio::test]
async fn nothing_is_renewed_that_does_not_stand() {
    let mut scene = Scene::set().await;
    let mut stream = scene.vandal().half_greet(&scene.target, node(1)).await;
    stream.send.write_all(&greeting(&[1])).await.expect("bytes under way");
    assert_eq!(stream.closed_with().await, LOST);
    assert_eq!(scene.target.counters().connections_opened, 1, "only the friend was let in");
    assert_undisturbed(&mut scene.target, &mut scene.friend).await;
}

#[tokio::test]
async fn a_datagram_that_is_too_long_is_dropped_and_counted() {
    let mut scene = Scene::set().await;
    let stream = scene.met().await;
    for length in [limits::MAX_DATAGRAM_BYTES + 1, limits::MAX_DATAGRAM_BYTES] {
        stream.connection.send_datagram(vec![7; length].into()).expect("a packet has room for it");
    }
    // The second one, which is short enough, shows that the first has been seen.
    assert_eq!(scene.target.inbox.datagram(node(1)).await.len(), limits::MAX_DATAGRAM_BYTES);
    let counters = scene.target.counters();
    assert_eq!((counters.datagrams_oversize, counters.datagrams_received, counters.datagrams_dropped), (1, 1, 0));
    assert_undisturbed(&mut scene.target, &mut scene.friend).await;
}

/// An empty frame is the transport's own, and means nothing from who has dialled.
#[tokio::test]
async fn empty_frames_are_harmless() {
    let mut scene = Scene::set().await;
    let mut stream = scene.met().await;
    let mut bytes = vec![0; 4 * 10_000];
    bytes.extend_from_slice(&greeting(b"still there"));
    stream.send.write_all(&bytes).await.expect("bytes under way");
    assert_eq!(scene.target.inbox.frames(node(1), 1).await, ["still there"]);
    assert_eq!(scene.target.counters().violations, 0);
    assert_undisturbed(&mut scene.target, &mut scene.friend).await;
}

#[tokio::test]
async fn a_peer_that_floods_a_busy_node_is_held_back() {
    let certificates = Certificates::new();
    let mut target = QuicNode::try_start(certificates.options(node(5), 1), 2).expect("a transport");
    let absent = Peer { id: node(1), address: "127.0.0.1:1".parse().expect("an address") };
    target.transport.set_peers(vec![absent]);
    let vandal = Intruder::new(Some(&certificates.of_node(node(1))));
    let mut stream = vandal.greet(&target, node(1)).await;
    target.inbox.up(node(1)).await;
    // Nobody takes the events, so at some point nothing more is accepted.
    let frame = greeting(&[3; 1_000]);
    let mut accepted = 0;
    while let Ok(written) = tokio::time::timeout(Duration::from_millis(500), stream.send.write(&frame)).await {
        accepted += written.expect("a connection");
        assert!(accepted < 64 << 20, "the target takes in whatever comes");
    }
    // The vandal's own buffer of 10 MB, the window of 4 MiB, and what the events hold.
    assert!(accepted < 20 << 20, "{accepted} bytes were taken in");
    let whole = accepted / frame.len();
    assert_eq!(target.inbox.frames(node(1), whole).await.len(), whole);
}

#[tokio::test]
async fn datagrams_of_a_stranger_are_not_heard() {
    let mut scene = Scene::set().await;
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    let target = scene.target.address();
    let mut chance = ambient::seeded();
    let mut junk = [0u8; 1_500];
    for round in 0..5_000 {
        chance.fill(&mut junk[..]);
        let length = chance.random_range(0..=junk.len());
        // Half of it looks like the first packet of a connection at first sight.
        if round % 2 == 0 {
            junk[..5].copy_from_slice(&[0xc3, 0, 0, 0, 1]);
        }
        // A full socket buffer is as good as an arrival.
        let _ = socket.send_to(&junk[..length], target);
        if round % 50 == 0 {
            tokio::task::yield_now().await;
        }
    }
    assert_undisturbed(&mut scene.target, &mut scene.friend).await;
    assert_eq!(scene.target.counters().connections_opened, 1);
    assert_eq!(scene.target.counters().connections_lost, 0);
}
