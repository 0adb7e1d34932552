//! One suite for every implementation of [`Transport`]: what the simulator and the tests
//! of the node trust in the channels, QUIC must do as well.

macro_rules! suite {
    ($($test:ident,)*) => {
        mod channel {
            use super::Fabric;
            $(#[tokio::test] async fn $test() { super::$test(Fabric::channel()).await })*
        }
        mod quic {
            use super::Fabric;
            $(#[tokio::test] async fn $test() { super::$test(Fabric::quic()).await })*
        }
    };
}

#[path = "transport_suite_chaos.rs"]
mod chaos;
#[path = "transport_suite_kept.rs"]
mod kept;
#[path = "transport_suite_lives.rs"]
mod lives;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use dogsled::transport::channel::{ChannelNetwork, ChannelSettings};
use dogsled::transport::quic::{QuicSettings, QuicTransport};
use dogsled::transport::{Peer, SendError, Transport, TransportEvent};
use dogsled::types::{Incarnation, NodeId, limits};

use crate::transport::{Certificates, Inbox, QuicNode, keep_all, node};

enum Fabric {
    Channel(ChannelNetwork),
    Quic { certificates: Box<Certificates>, addresses: BTreeMap<NodeId, SocketAddr>, settings: QuicSettings },
}

struct Running {
    transport: Arc<dyn Transport>,
    inbox: Inbox,
    quic: Option<Arc<QuicTransport>>,
}

impl Fabric {
    fn channel() -> Fabric {
        Fabric::Channel(ChannelNetwork::new())
    }

    fn quic() -> Fabric {
        let certificates = Box::new(Certificates::new());
        Fabric::Quic { certificates, addresses: BTreeMap::new(), settings: QuicSettings::default() }
    }

    /// Has connections that are not kept closed after this time.
    fn close_idle_after(&mut self, time: Duration) {
        match self {
            Fabric::Channel(network) => {
                let settings = ChannelSettings { idle_close: time, ..ChannelSettings::default() };
                *network = ChannelNetwork::with_settings(settings);
            }
            Fabric::Quic { settings, .. } => settings.idle_close = time,
        }
    }

    /// Starts a node, where it ran before if it did.
    async fn start(&mut self, id: NodeId, incarnation: u64, capacity: usize) -> Running {
        match self {
            Fabric::Channel(network) => {
                let (sender, inbox) = Inbox::new(id, capacity);
                let transport = network.start(id, Incarnation(incarnation), sender);
                Running { transport, inbox, quic: None }
            }
            Fabric::Quic { certificates, addresses, settings } => {
                let mut options = certificates.options(id, incarnation);
                options.settings = settings.clone();
                options.listen = addresses.get(&id).copied().unwrap_or(options.listen);
                let started = QuicNode::restart(options, capacity).await;
                addresses.insert(id, started.address());
                let QuicNode { transport, inbox } = started;
                Running { transport: transport.clone(), inbox, quic: Some(transport) }
            }
        }
    }

    fn peer(&self, id: NodeId) -> Peer {
        let address = match self {
            Fabric::Channel(_) => "127.0.0.1:1".parse().expect("an address"),
            Fabric::Quic { addresses, .. } => addresses[&id],
        };
        Peer { id, address }
    }

    async fn pair(&mut self, capacity: usize) -> (Running, Running) {
        let mut one = self.start(node(1), 1, capacity).await;
        let mut two = self.start(node(2), 1, capacity).await;
        keep_all(&*one.transport, vec![self.peer(node(2))]);
        keep_all(&*two.transport, vec![self.peer(node(1))]);
        assert_eq!(one.inbox.up(node(2)).await, Incarnation(1));
        assert_eq!(two.inbox.up(node(1)).await, Incarnation(1));
        (one, two)
    }
}

impl Running {
    fn keep(&self, ids: impl IntoIterator<Item = u32>) {
        self.transport.keep(ids.into_iter().map(node).collect::<BTreeSet<_>>());
    }

    async fn stop(self) {
        if let Some(quic) = &self.quic {
            quic.close().await;
        }
    }
}

fn numbered(count: u32) -> Vec<Bytes> {
    (0..count).map(|number| Bytes::copy_from_slice(&number.to_le_bytes())).collect()
}

async fn frames_keep_their_order_both_ways(mut fabric: Fabric) {
    let (mut one, mut two) = fabric.pair(1_024).await;
    let frames = numbered(8_000);
    for (index, frame) in frames.iter().enumerate() {
        one.transport.send(node(2), frame.clone()).expect("room");
        two.transport.send(node(1), frame.clone()).expect("room");
        if index % 100 == 0 {
            tokio::task::yield_now().await;
        }
    }
    assert_eq!(two.inbox.frames(node(1), frames.len()).await, frames);
    assert_eq!(one.inbox.frames(node(2), frames.len()).await, frames);
}

async fn frames_of_every_length_arrive_whole(mut fabric: Fabric) {
    let (one, mut two) = fabric.pair(1_024).await;
    let lengths =
        [1, 3, 4, 5, 1_199, 1_200, 16_383, 16_384, 16_385, 32_763, 32_768, 1 << 20, limits::MAX_FRAME_BYTES, 7];
    let frames: Vec<Bytes> = lengths.iter().map(|&length| (0..length).map(|at| (at % 251) as u8).collect()).collect();
    for frame in &frames {
        one.transport.send(node(2), frame.clone()).expect("room");
    }
    let arrived = two.inbox.frames(node(1), frames.len()).await;
    for (sent, got) in frames.iter().zip(&arrived) {
        assert!(sent == got, "a frame of {} bytes arrived as one of {}", sent.len(), got.len());
    }
}

async fn what_cannot_be_sent_is_refused(mut fabric: Fabric) {
    let (one, _two) = fabric.pair(1_024).await;
    let too_long = Bytes::from(vec![0; limits::MAX_FRAME_BYTES + 1]);
    assert_eq!(one.transport.send(node(2), too_long), Err(SendError::TooLong));
    assert_eq!(one.transport.send(node(2), Bytes::new()), Err(SendError::TooLong));
    assert_eq!(one.transport.send(node(9), Bytes::from_static(b"x")), Err(SendError::NotConnected));
    assert_eq!(one.transport.send(node(1), Bytes::from_static(b"x")), Err(SendError::NotConnected));
    let too_long = Bytes::from(vec![0; limits::MAX_DATAGRAM_BYTES + 1]);
    assert_eq!(one.transport.send_datagram(node(2), too_long), Err(SendError::TooLong));
    assert_eq!(one.transport.send_datagram(node(9), Bytes::from_static(b"x")), Err(SendError::NotConnected));
}

async fn a_full_queue_refuses_and_loses_nothing_that_it_took(mut fabric: Fabric) {
    let (one, mut two) = fabric.pair(4).await;
    let content = Bytes::from(vec![1; 1_000]);
    let mut taken = 0u32;
    // Nobody reads at the other end, so the windows fill, then the queue.
    loop {
        let frame: Bytes = [&taken.to_le_bytes()[..], &content].concat().into();
        match one.transport.send(node(2), frame) {
            Ok(()) => taken += 1,
            Err(SendError::QueueFull) => break,
            Err(other) => panic!("{other}"),
        }
        if taken.is_multiple_of(64) {
            tokio::task::yield_now().await;
        }
        assert!(taken < 100_000, "the queue has no end");
    }
    assert!(taken as usize >= limits::PEER_QUEUE_FRAMES);
    let arrived = two.inbox.frames(node(1), taken as usize).await;
    for (number, frame) in arrived.iter().enumerate() {
        assert_eq!(frame[..4], (number as u32).to_le_bytes());
    }
    one.transport.send(node(2), Bytes::from_static(b"room again")).expect("room");
    assert_eq!(two.inbox.frames(node(1), 1).await, ["room again"]);
}

async fn a_peer_that_restarts_comes_back_in_its_next_life(mut fabric: Fabric) {
    // Once the node that dials restarts, once the one that is dialled.
    for (stays, restarts) in [(1, 2), (2, 1)] {
        let (one, two) = fabric.pair(1_024).await;
        let (mut staying, leaving) = if stays == 1 { (one, two) } else { (two, one) };
        leaving.stop().await;
        staying.inbox.down(node(restarts)).await;
        assert_eq!(staying.transport.send(node(restarts), Bytes::from_static(b"x")), Err(SendError::NotConnected));
        let mut back = fabric.start(node(restarts), 2, 1_024).await;
        keep_all(&*back.transport, vec![fabric.peer(node(stays))]);
        assert_eq!(staying.inbox.up(node(restarts)).await, Incarnation(2));
        assert_eq!(back.inbox.up(node(stays)).await, Incarnation(1));
        staying.transport.send(node(restarts), Bytes::from_static(b"welcome")).expect("connected");
        assert_eq!(back.inbox.frames(node(stays), 1).await, ["welcome"]);
        back.stop().await;
        staying.stop().await;
    }
}

async fn a_disconnected_peer_may_connect_again(mut fabric: Fabric) {
    let (mut one, mut two) = fabric.pair(1_024).await;
    for (from, to) in [(1, 2), (2, 1)] {
        let transport = if from == 1 { &one.transport } else { &two.transport };
        transport.disconnect(node(to), "a test of it");
        one.inbox.down(node(2)).await;
        two.inbox.down(node(1)).await;
        one.inbox.up(node(2)).await;
        two.inbox.up(node(1)).await;
    }
    one.transport.send(node(2), Bytes::from_static(b"again")).expect("connected");
    assert_eq!(two.inbox.frames(node(1), 1).await, ["again"]);
}

async fn a_removed_peer_is_parted_from_until_it_is_listed_again(mut fabric: Fabric) {
    let (mut one, mut two) = fabric.pair(1_024).await;
    for _ in 0..3 {
        one.transport.set_peers(vec![]);
        one.inbox.down(node(2)).await;
        two.inbox.down(node(1)).await;
        assert_eq!(one.transport.send(node(2), Bytes::from_static(b"x")), Err(SendError::NotConnected));
        one.transport.set_peers(vec![fabric.peer(node(2))]);
        one.inbox.up(node(2)).await;
        two.inbox.up(node(1)).await;
    }
    two.transport.send(node(1), Bytes::from_static(b"listed")).expect("connected");
    assert_eq!(one.inbox.frames(node(2), 1).await, ["listed"]);
}

async fn datagrams_arrive_as_they_are(mut fabric: Fabric) {
    let (mut one, mut two) = fabric.pair(1_024).await;
    let content = Bytes::from(vec![9; limits::MAX_DATAGRAM_BYTES]);
    one.transport.send_datagram(node(2), content.clone()).expect("room for one");
    two.transport.send_datagram(node(1), Bytes::new()).expect("room for one");
    assert_eq!(two.inbox.datagram(node(1)).await, content);
    assert_eq!(one.inbox.datagram(node(2)).await, Bytes::new());
}

async fn every_pair_of_many_nodes_is_connected(mut fabric: Fabric) {
    let ids: Vec<NodeId> = (1..=4).map(node).collect();
    let mut nodes = Vec::new();
    for id in &ids {
        nodes.push(fabric.start(*id, 5, 1_024).await);
    }
    // The own name among the peers is passed over.
    let peers: Vec<Peer> = ids.iter().map(|id| fabric.peer(*id)).collect();
    nodes.iter().for_each(|running| keep_all(&*running.transport, peers.clone()));
    for running in &mut nodes {
        let mut missing: Vec<NodeId> = ids.iter().copied().filter(|id| *id != running.inbox.node).collect();
        while !missing.is_empty() {
            match running.inbox.next().await {
                TransportEvent::Up { peer, .. } => missing.retain(|id| *id != peer),
                // Not all were told of each other at the same time.
                TransportEvent::Unreachable { .. } => {}
                other => panic!("{other:?}"),
            }
        }
    }
    for (from, running) in ids.iter().zip(&nodes) {
        for to in ids.iter().filter(|to| *to != from) {
            running.transport.send(*to, Bytes::from(from.to_string())).expect("connected");
        }
    }
    for running in &mut nodes {
        let own = running.inbox.node;
        for from in ids.iter().filter(|from| **from != own) {
            assert_eq!(running.inbox.frames(*from, 1).await, [from.to_string()]);
        }
    }
}

suite! {
    frames_keep_their_order_both_ways,
    frames_of_every_length_arrive_whole,
    what_cannot_be_sent_is_refused,
    a_full_queue_refuses_and_loses_nothing_that_it_took,
    a_peer_that_restarts_comes_back_in_its_next_life,
    a_disconnected_peer_may_connect_again,
    a_removed_peer_is_parted_from_until_it_is_listed_again,
    datagrams_arrive_as_they_are,
    every_pair_of_many_nodes_is_connected,
}
