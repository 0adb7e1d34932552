//! What only QUIC can show: peers that die without a word, addresses that lead nowhere,
//! and new certificates at the wrong moment.

use std::net::UdpSocket;
use std::time::Duration;

use bytes::Bytes;
use dogsled::ambient;
use dogsled::transport::quic::QuicSettings;
use dogsled::transport::{Peer, SendError, Transport, TransportEvent};
use dogsled::types::Incarnation;
use rand::Rng;
use tokio::sync::Barrier;

use crate::transport::{Certificates, QuicNode, assert_undisturbed, dial, keep_all, node};

/// A process that dies says nothing. Without the persisted reset key the other would hear
/// of it only after the idle timeout, which is made longer here than the test waits; unless
/// the peer dials in its next life.
#[test]
fn a_peer_that_was_killed_is_noticed_when_it_is_back() {
    for (staying, dying) in [(1, 2), (2, 1)] {
        for (staying_keeps, back_keeps) in [(true, true), (true, false), (false, true)] {
            kill_and_restart(staying, dying, staying_keeps, back_keeps);
        }
    }
}

fn kill_and_restart(stays: u32, dies: u32, staying_keeps: bool, back_keeps: bool) {
    let certificates = Certificates::new();
    let settings = QuicSettings {
        idle_timeout: Duration::from_secs(600),
        keep_alive: Duration::from_millis(100),
        ..QuicSettings::default()
    };
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let staying_runtime = runtime();
    let mut options = certificates.options(node(stays), 1);
    options.settings = settings.clone();
    let mut staying = staying_runtime.block_on(async { QuicNode::start(options) });
    let mut options = certificates.options(node(dies), 1);
    options.settings = settings;
    let first_life = runtime();
    let mut dying = first_life.block_on(async { QuicNode::start(options.clone()) });
    options.listen = dying.address();
    if staying_keeps {
        keep_all(&*staying.transport, vec![dying.peer()]);
        dying.transport.set_peers(vec![staying.peer()]);
    } else {
        staying.transport.set_peers(vec![dying.peer()]);
        keep_all(&*dying.transport, vec![staying.peer()]);
    }
    // Neither runtime may rest before both are up: what one end has to say is still to be sent.
    let both = Barrier::new(2);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            first_life.block_on(async {
                dying.inbox.up(node(stays)).await;
                both.wait().await;
            });
        });
        staying_runtime.block_on(async {
            staying.inbox.up(node(dies)).await;
            both.wait().await;
        });
    });
    // Its tasks vanish between two polls, and the socket with them: no farewell is sent.
    let address = staying.peer();
    drop(first_life);
    drop(dying);

    options.incarnation = Incarnation(2);
    staying_runtime.block_on(async {
        let mut back = QuicNode::restart(options, 64).await;
        back.transport.set_peers(vec![address]);
        if back_keeps {
            keep_all(&*back.transport, vec![address]);
        }
        assert!(!staying.inbox.down(node(dies)).await, "it was lost");
        assert_eq!(staying.inbox.up(node(dies)).await, Incarnation(2));
        back.inbox.up(node(stays)).await;
        assert_eq!(staying.inbox.downs, 1);
        staying.inbox.forget();
        assert_undisturbed(&mut staying, &mut back).await;
    });
}

/// The node with the lower id holds the other's dial back while it dials itself, but only
/// as long as there is hope.
#[tokio::test]
async fn an_address_that_leads_nowhere_does_not_keep_out_who_dials_from_there() {
    let certificates = Certificates::new();
    // It is there and says nothing.
    let silent = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    for (misled, right) in [(1, 2), (2, 1)] {
        let mut misled = QuicNode::start(certificates.options(node(misled), 1));
        let mut right = QuicNode::start(certificates.options(node(right), 1));
        let nowhere = Peer { id: right.id(), address: silent.local_addr().expect("an address") };
        keep_all(&*misled.transport, vec![nowhere]);
        keep_all(&*right.transport, vec![misled.peer()]);
        misled.inbox.up(right.id()).await;
        right.inbox.up(misled.id()).await;
        assert_undisturbed(&mut misled, &mut right).await;
        assert_eq!(right.inbox.unreachable, 0, "it was held back for too long");
        assert_eq!(misled.counters().refused_total(), 0);
    }
}

/// Either end takes up new certificates at any time, while nobody keeps the connection and
/// it closes when idle, and is dialled from one end or the other: nothing is ever lost.
#[tokio::test]
async fn new_certificates_cross_dials_and_partings() {
    let certificates = Certificates::new();
    let start = |number| {
        let mut options = certificates.options(node(number), 1);
        let idle_close = Duration::from_millis(15);
        let retry_max = Duration::from_millis(20);
        options.settings = QuicSettings { idle_close, retry_max, ..QuicSettings::default() };
        QuicNode::start(options)
    };
    let mut ends = [start(1), start(2)];
    let peers = [ends[1].peer(), ends[0].peer()];
    for (end, peer) in ends.iter().zip(peers) {
        end.transport.set_peers(vec![peer]);
    }
    let mut chance = ambient::seeded();
    let mut sent = [0u32; 2];
    let mut arrived = [0u32; 2];
    for round in 0..400 {
        // Now and then long enough for a connection to be idle.
        let quiet = round % 4 == 3;
        for (at, end) in ends.iter().enumerate() {
            match chance.random_range(0..10) {
                0 => end.transport.keep([peers[at].id].into()),
                1..=3 => end.transport.keep([].into()),
                4 => end.transport.reload_certificates().expect("good files"),
                _ => {}
            }
            match end.transport.send(peers[at].id, Bytes::copy_from_slice(&sent[at].to_le_bytes())) {
                Ok(()) => sent[at] += 1,
                Err(SendError::NotConnected) => {}
                Err(error) => panic!("{error}"),
            }
        }
        let most = if quiet { 40_000 } else { 6_000 };
        tokio::time::sleep(Duration::from_micros(chance.random_range(0..most))).await;
        for (at, end) in ends.iter_mut().enumerate() {
            while let Some(event) = end.inbox.try_next() {
                take(event, &mut arrived[at]);
            }
        }
    }
    for (end, peer) in ends.iter().zip(peers) {
        end.transport.keep([peer.id].into());
    }
    for (at, end) in ends.iter_mut().enumerate() {
        while arrived[at] < sent[1 - at] {
            take(end.inbox.next().await, &mut arrived[at]);
        }
    }
    for end in &ends {
        let counters = end.counters();
        assert_eq!((counters.refused_total(), counters.violations), (0, 0), "{counters:?}");
        assert!(counters.connections_renewed >= 3 && counters.connections_parted >= 3, "{counters:?}");
    }
}

fn take(event: TransportEvent, arrived: &mut u32) {
    match event {
        TransportEvent::Frames { frames, .. } => {
            for frame in frames {
                assert_eq!(frame[..], arrived.to_le_bytes(), "out of order, or lost");
                *arrived += 1;
            }
        }
        TransportEvent::Down { parted, .. } => assert!(parted, "a connection was lost"),
        TransportEvent::Up { .. } => {}
        other => panic!("{other:?}"),
    }
}

/// The acceptor breaks the old connection off after it was read to the end here, and before
/// the dialler has read the acceptor's end of it. What then waits at the dialler is dropped,
/// and the acceptor must hear of that, too.
#[tokio::test]
async fn a_renewal_that_fails_at_one_end_fails_at_both() {
    let certificates = Certificates::new();
    let start = |number, capacity| {
        let mut options = certificates.options(node(number), 1);
        options.settings = QuicSettings { retry_max: Duration::from_millis(10), ..QuicSettings::default() };
        QuicNode::try_start(options, capacity).expect("a transport")
    };
    // The acceptor reads no events, so its end of the old connection does not come.
    let (mut dialler, mut acceptor) = (start(1, 1_024), start(2, 2));
    dial(&mut dialler, &mut acceptor).await;
    let mut sent = 0u32;
    let send = async |sent: &mut u32, count: u32| {
        for _ in 0..count {
            dialler.transport.send(node(2), Bytes::copy_from_slice(&sent.to_le_bytes())).expect("connected");
            *sent += 1;
            // An event for each frame.
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    send(&mut sent, 20).await;
    dialler.transport.reload_certificates().expect("good files");
    // Long enough for the renewal to begin: it cannot end.
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(dialler.counters().connections_renewed, 0);
    send(&mut sent, 20).await;
    acceptor.transport.disconnect(node(1), "in the midst of it");
    let (mut up, mut next) = (true, Some(0));
    while next != Some(sent) {
        match acceptor.inbox.next().await {
            TransportEvent::Up { .. } => {
                up = true;
                // Whatever was to come may have gone; the last one is sent anew.
                sent += 1;
                let last = Bytes::copy_from_slice(&(sent - 1).to_le_bytes());
                if dialler.transport.send(node(2), last).is_err() {
                    sent -= 1;
                }
            }
            TransportEvent::Down { .. } => (up, next) = (false, None),
            TransportEvent::Frames { frames, .. } => {
                assert!(up);
                for frame in frames {
                    let number = u32::from_le_bytes(frame[..].try_into().expect("four bytes"));
                    assert_eq!(next.unwrap_or(number), number, "a frame was left out, and nobody was told");
                    next = Some(number + 1);
                }
            }
            other => panic!("{other:?}"),
        }
    }
}

/// Who moves is dialled where it is now, if it was dialled at all.
#[tokio::test]
async fn a_new_address_renews_what_was_dialled() {
    let certificates = Certificates::new();
    for (dials, accepts) in [(1, 2), (2, 1)] {
        let mut dialler = QuicNode::start(certificates.options(node(dials), 1));
        let mut acceptor = QuicNode::start(certificates.options(node(accepts), 1));
        dial(&mut dialler, &mut acceptor).await;
        // Both see another address for the other; only the dialler does something about it.
        let silent = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        let elsewhere = silent.local_addr().expect("an address");
        acceptor.transport.set_peers(vec![Peer { id: node(dials), address: elsewhere }]);
        dialler.transport.set_peers(vec![Peer { id: node(accepts), address: elsewhere }]);
        dialler.counted("failed renewal", |counters| counters.dials_failed > 0).await;
        assert_undisturbed(&mut dialler, &mut acceptor).await;
        assert_eq!(dialler.inbox.unreachable, 0, "the connection stands");
        dialler.transport.set_peers(vec![acceptor.peer()]);
        dialler.inbox.up(node(accepts)).await;
        acceptor.inbox.up(node(dials)).await;
        assert_undisturbed(&mut dialler, &mut acceptor).await;
        assert_eq!((dialler.counters().dials_failed > 0, acceptor.counters().dials_failed), (true, 0));
    }
}
