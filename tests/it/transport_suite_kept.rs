//! The part of the suite about which connections stand: kept by one end or both, closed
//! when idle, dialled by both ends at once, lost, and never made.

use std::time::Duration;

use bytes::Bytes;
use dogsled::ambient;
use dogsled::transport::{SendError, TransportEvent};
use dogsled::types::Incarnation;
use rand::Rng;

use super::{Fabric, Running, numbered};
use crate::transport::{Inbox, keep_all, node};

/// Long against whatever else happens in a test, short for whoever waits for it.
const IDLE: Duration = Duration::from_millis(300);

suite! {
    members_that_nobody_keeps_are_not_connected,
    a_connection_that_one_end_keeps_serves_both,
    a_kept_connection_outlives_silence,
    a_connection_that_nobody_keeps_closes_when_idle,
    the_end_that_keeps_an_idle_connection_dials_again,
    traffic_holds_a_connection_that_nobody_keeps,
    closing_as_idle_loses_nothing,
    dials_that_cross_come_to_one_connection,
    a_peer_that_cannot_be_reached_is_said_to_be_so_until_it_can,
    a_kept_node_is_dialled_once_it_is_a_member,
    parting_is_told_from_loss,
    a_flood_of_datagrams_does_not_keep_frames_out,
}

/// Nodes 1 to `count` that list each other.
async fn members(fabric: &mut Fabric, count: u32) -> Vec<Running> {
    let mut nodes = Vec::new();
    for number in 1..=count {
        nodes.push(fabric.start(node(number), 1, 1_024).await);
    }
    for running in &nodes {
        running.transport.set_peers((1..=count).map(|number| fabric.peer(node(number))).collect());
    }
    nodes
}

async fn two_members(fabric: &mut Fabric) -> [Running; 2] {
    members(fabric, 2).await.try_into().ok().expect("two nodes")
}

/// Frames and datagrams go both ways.
async fn assert_connected(one: &mut Running, other: &mut Running) {
    let [mut from, mut to] = [one, other];
    for _ in 0..2 {
        let (sender, receiver) = (from.inbox.node, to.inbox.node);
        from.transport.send(receiver, Bytes::from_static(b"frame")).expect("connected");
        assert_eq!(to.inbox.frames(sender, 1).await, ["frame"]);
        from.transport.send_datagram(receiver, Bytes::from_static(b"datagram")).expect("connected");
        assert_eq!(to.inbox.datagram(sender).await, "datagram");
        std::mem::swap(&mut from, &mut to);
    }
}

fn assert_not_connected(one: &Running, other: &Running) {
    for (from, to) in [(one, other), (other, one)] {
        let frame = Bytes::from_static(b"x");
        assert_eq!(from.transport.send(to.inbox.node, frame.clone()), Err(SendError::NotConnected));
        assert_eq!(from.transport.send_datagram(to.inbox.node, frame), Err(SendError::NotConnected));
    }
}

async fn members_that_nobody_keeps_are_not_connected(mut fabric: Fabric) {
    let mut nodes = members(&mut fabric, 3).await;
    nodes[2].keep([1, 2]);
    for number in [1, 2] {
        nodes[2].inbox.up(node(number)).await;
        nodes[number as usize - 1].inbox.up(node(3)).await;
    }
    assert_not_connected(&nodes[0], &nodes[1]);
}

async fn a_connection_that_one_end_keeps_serves_both(mut fabric: Fabric) {
    let [mut one, mut two] = two_members(&mut fabric).await;
    one.keep([2]);
    one.inbox.up(node(2)).await;
    two.inbox.up(node(1)).await;
    assert_connected(&mut one, &mut two).await;
    one.transport.disconnect(node(2), "now the other way round");
    one.keep([]);
    one.inbox.down(node(2)).await;
    two.inbox.down(node(1)).await;
    two.keep([1]);
    one.inbox.up(node(2)).await;
    two.inbox.up(node(1)).await;
    assert_connected(&mut one, &mut two).await;
}

async fn a_kept_connection_outlives_silence(mut fabric: Fabric) {
    fabric.close_idle_after(IDLE);
    let mut nodes = members(&mut fabric, 3).await;
    for (from, to) in [(0, 2), (1, 1), (2, 1)] {
        nodes[from].keep([to]);
    }
    nodes[0].inbox.up(node(2)).await;
    nodes[1].inbox.up(node(1)).await;
    nodes[2].inbox.up(node(1)).await;
    // A third connection, which nobody keeps any more, shows that the time has passed.
    nodes[2].keep([]);
    assert!(nodes[2].inbox.down(node(1)).await);
    assert!(nodes[0].inbox.down(node(3)).await);
    assert_eq!((nodes[0].inbox.downs, nodes[1].inbox.downs), (1, 0));
    let [one, two, _] = &mut nodes[..] else { unreachable!("three nodes") };
    assert_connected(one, two).await;
}

async fn a_connection_that_nobody_keeps_closes_when_idle(mut fabric: Fabric) {
    fabric.close_idle_after(IDLE);
    let [mut one, mut two] = two_members(&mut fabric).await;
    for dialler in [1, 2, 1] {
        if dialler == 1 {
            one.keep([2])
        } else {
            two.keep([1])
        }
        one.inbox.up(node(2)).await;
        two.inbox.up(node(1)).await;
        assert_connected(&mut one, &mut two).await;
        one.keep([]);
        two.keep([]);
        assert!(one.inbox.down(node(2)).await, "one end says that it was lost");
        assert!(two.inbox.down(node(1)).await, "one end says that it was lost");
        assert_not_connected(&one, &two);
    }
    for running in [one, two] {
        let Some(quic) = running.quic else { continue };
        let counters = quic.counters();
        assert_eq!((counters.connections_opened, counters.connections_parted), (3, 3), "{counters:?}");
        assert_eq!((counters.standing_dialled, counters.standing_accepted), (0, 0), "{counters:?}");
        assert_eq!(counters.connections_lost, 0, "{counters:?}");
    }
}

async fn the_end_that_keeps_an_idle_connection_dials_again(mut fabric: Fabric) {
    fabric.close_idle_after(IDLE);
    let [mut one, mut two] = two_members(&mut fabric).await;
    for (keeper, other) in [(&mut one, 2), (&mut two, 1)] {
        keeper.keep([other]);
        keeper.inbox.up(node(other)).await;
        for _ in 0..2 {
            assert!(keeper.inbox.down(node(other)).await, "the one that keeps it says that it was lost");
            keeper.inbox.up(node(other)).await;
        }
        keeper.keep([]);
        assert!(keeper.inbox.down(node(other)).await);
    }
}

async fn traffic_holds_a_connection_that_nobody_keeps(mut fabric: Fabric) {
    fabric.close_idle_after(Duration::from_secs(1));
    let [mut one, mut two] = two_members(&mut fabric).await;
    one.keep([2]);
    one.inbox.up(node(2)).await;
    two.inbox.up(node(1)).await;
    one.keep([]);
    // First frames alone, then datagrams alone, each for longer than the time.
    for datagrams in [false, true] {
        let began = ambient::moment();
        while ambient::moment().since(began) < Duration::from_millis(1_500) {
            if datagrams {
                one.transport.send_datagram(node(2), Bytes::from_static(b"probe")).expect("connected");
                two.inbox.datagram(node(1)).await;
            } else {
                one.transport.send(node(2), Bytes::from_static(b"request")).expect("connected");
                two.inbox.frames(node(1), 1).await;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    assert_eq!((one.inbox.downs, two.inbox.downs), (0, 0));
    assert!(one.inbox.down(node(2)).await);
    assert!(two.inbox.down(node(1)).await);
}

/// One end keeps, the other closes again and again, and both send at just about the time
/// at which it does: whatever was accepted for sending arrives, in order.
async fn closing_as_idle_loses_nothing(mut fabric: Fabric) {
    fabric.close_idle_after(Duration::from_millis(12));
    let [mut one, mut two] = two_members(&mut fabric).await;
    let mut chance = ambient::seeded();
    let mut closed = 0;
    for (keeper, other) in [(1, 2), (2, 1)] {
        let (kept, closing) = if keeper == 1 { (&mut one, &mut two) } else { (&mut two, &mut one) };
        kept.keep([other]);
        let mut sent = [0u32; 2];
        for _ in 0..150 {
            tokio::time::sleep(Duration::from_micros(chance.random_range(0..18_000))).await;
            for (number, from, to) in [(0, &*kept, other), (1, &*closing, keeper)] {
                for _ in 0..chance.random_range(1..20) {
                    match from.transport.send(node(to), Bytes::copy_from_slice(&sent[number].to_le_bytes())) {
                        Ok(()) => sent[number] += 1,
                        Err(SendError::NotConnected) => {}
                        Err(error) => panic!("{error}"),
                    }
                }
            }
        }
        kept.keep([]);
        assert!(sent[0] > 0 && sent[1] > 0);
        assert_eq!(closing.inbox.frames(node(keeper), sent[0] as usize).await, numbered(sent[0]));
        assert_eq!(kept.inbox.frames(node(other), sent[1] as usize).await, numbered(sent[1]));
        while !(idle(kept, other) && idle(closing, keeper)) {
            tokio::select! {
                event = kept.inbox.next() => assert_ne!(event, TransportEvent::Down { peer: node(other), parted: false }),
                event = closing.inbox.next() => assert_ne!(event, TransportEvent::Down { peer: node(keeper), parted: false }),
            }
        }
        closed += kept.inbox.downs;
    }
    assert!(closed > 10, "closed {closed} times only");
    for running in [one, two] {
        assert_eq!(running.inbox.lost, 0, "a connection was lost");
        assert_eq!(running.inbox.unreachable, 0, "a running peer was said to be unreachable");
    }
}

/// There is no connection, and `Down` was heard.
fn idle(running: &Running, peer: u32) -> bool {
    running.inbox.ups == running.inbox.downs
        && running.transport.send_datagram(node(peer), Bytes::new()) == Err(SendError::NotConnected)
}

/// Reads one event of either, sends at `Up`, and says which frames came.
async fn step(ends: &mut [Running; 2], arrived: &mut [Vec<Bytes>; 2], burst: &[Bytes]) {
    let [one, two] = ends;
    let (at, event) = tokio::select! {
        event = one.inbox.next() => (0, event),
        event = two.inbox.next() => (1, event),
    };
    match event {
        TransportEvent::Up { peer, .. } => {
            for frame in burst {
                ends[at].transport.send(peer, frame.clone()).expect("it is up");
            }
        }
        TransportEvent::Frames { frames, .. } => arrived[at].extend(frames),
        other => panic!("{other:?} while both dial"),
    }
}

async fn dials_that_cross_come_to_one_connection(mut fabric: Fabric) {
    let mut ends = two_members(&mut fabric).await;
    let peers = [fabric.peer(node(2)), fabric.peer(node(1))];
    let frames = numbered(40);
    let mut chance = ambient::seeded();
    for round in 0..200 {
        ends.iter().zip(peers).for_each(|(end, peer)| end.transport.set_peers(vec![peer]));
        // At once, or one a little later, at any point of the other's handshake.
        let (first, second) = if round % 2 == 0 { (0, 1) } else { (1, 0) };
        ends[first].keep([second as u32 + 1]);
        if round % 4 > 1 {
            tokio::time::sleep(Duration::from_micros(chance.random_range(0..8_000))).await;
        }
        ends[second].keep([first as u32 + 1]);
        ends.iter_mut().for_each(|end| end.inbox.forget());
        let mut arrived = [Vec::new(), Vec::new()];
        while arrived.iter().any(|frames| frames.len() < 20) {
            step(&mut ends, &mut arrived, &frames[..20]).await;
        }
        for (end, peer) in ends.iter().zip(peers) {
            frames[20..].iter().for_each(|frame| end.transport.send(peer.id, frame.clone()).expect("it stands"));
        }
        while arrived.iter().any(|frames| frames.len() < 40) {
            step(&mut ends, &mut arrived, &[]).await;
        }
        assert_eq!(arrived, [frames.clone(), frames.clone()]);
        for end in &ends {
            assert_eq!((end.inbox.ups, end.inbox.downs), (1, 0), "round {round}");
        }
        ends.iter().for_each(|end| end.keep([]));
        ends.iter().for_each(|end| end.transport.set_peers(vec![]));
        for (end, peer) in ends.iter_mut().zip(peers) {
            assert!(end.inbox.down(peer.id).await);
        }
    }
    let [one, two] = ends.map(|end| end.quic.map(|quic| quic.counters()));
    let (Some(one), Some(two)) = (one, two) else { return };
    assert_eq!((one.connections_opened, two.connections_opened), (200, 200));
    assert_eq!((one.connections_lost, two.connections_lost), (0, 0));
    assert_eq!((one.refused_total(), two.refused_total()), (0, 0));
    assert!(one.dials_crossed + two.dials_crossed >= 100, "hardly any dials crossed: {one:?} {two:?}");
}

async fn a_peer_that_cannot_be_reached_is_said_to_be_so_until_it_can(mut fabric: Fabric) {
    let [mut one, two] = two_members(&mut fabric).await;
    two.stop().await;
    one.keep([2]);
    for _ in 0..3 {
        assert_eq!(one.inbox.next().await, TransportEvent::Unreachable { peer: node(2) });
    }
    let mut back = fabric.start(node(2), 2, 1_024).await;
    back.transport.set_peers(vec![fabric.peer(node(1))]);
    assert_eq!(one.inbox.up(node(2)).await, Incarnation(2));
    back.inbox.up(node(1)).await;
    assert_connected(&mut one, &mut back).await;
    assert_eq!(back.inbox.unreachable, 0, "it has dialled nobody");
}

async fn a_kept_node_is_dialled_once_it_is_a_member(mut fabric: Fabric) {
    let mut one = fabric.start(node(1), 1, 1_024).await;
    let mut two = fabric.start(node(2), 1, 1_024).await;
    let mut three = fabric.start(node(3), 1, 1_024).await;
    one.keep([1, 2, 3]);
    two.transport.set_peers(vec![fabric.peer(node(1))]);
    three.transport.set_peers(vec![fabric.peer(node(1))]);
    one.transport.set_peers(vec![fabric.peer(node(3))]);
    assert_eq!(one.inbox.next().await, TransportEvent::Up { peer: node(3), incarnation: Incarnation(1) });
    three.inbox.up(node(1)).await;
    one.transport.set_peers(vec![fabric.peer(node(2)), fabric.peer(node(3))]);
    assert_eq!(one.inbox.next().await, TransportEvent::Up { peer: node(2), incarnation: Incarnation(1) });
    two.inbox.up(node(1)).await;
}

async fn parting_is_told_from_loss(mut fabric: Fabric) {
    let (mut one, mut two) = fabric.pair(1_024).await;
    let ends = async |one: &mut Inbox, two: &mut Inbox| (one.down(node(2)).await, two.down(node(1)).await);
    one.transport.disconnect(node(2), "a breach of the protocol");
    assert_eq!(ends(&mut one.inbox, &mut two.inbox).await, (false, false));
    one.inbox.up(node(2)).await;
    two.inbox.up(node(1)).await;
    two.transport.set_peers(vec![]);
    assert_eq!(ends(&mut one.inbox, &mut two.inbox).await, (true, true));
    keep_all(&*two.transport, vec![fabric.peer(node(1))]);
    one.inbox.up(node(2)).await;
    two.inbox.up(node(1)).await;
    if let Fabric::Channel(network) = &fabric {
        network.set_cut(node(1), node(2), true);
        assert_eq!(ends(&mut one.inbox, &mut two.inbox).await, (false, false));
        network.set_cut(node(1), node(2), false);
        one.inbox.up(node(2)).await;
        two.inbox.up(node(1)).await;
    }
    two.stop().await;
    assert!(one.inbox.down(node(2)).await);
}

async fn a_flood_of_datagrams_does_not_keep_frames_out(mut fabric: Fabric) {
    let capacity = 16;
    let (one, mut two) = fabric.pair(capacity).await;
    // Nobody reads at the other end meanwhile.
    for number in 0..2_000u32 {
        let _ = one.transport.send_datagram(node(2), Bytes::copy_from_slice(&number.to_le_bytes()));
        if number % 10 == 0 {
            tokio::task::yield_now().await;
        }
    }
    if let Some(quic) = &two.quic {
        while quic.counters().datagrams_dropped == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    // No task of the transport runs between these reads.
    let waiting = std::iter::from_fn(|| two.inbox.try_next()).count();
    assert!((1..=capacity / 2).contains(&waiting), "{waiting} datagrams took up the room for {capacity} events");
    one.transport.send(node(2), Bytes::from_static(b"through")).expect("connected");
    assert_eq!(two.inbox.frames(node(1), 1).await, ["through"]);
}
