//! Three nodes that keep and drop each other, list and forget each other, break off and
//! restart, all at random, while frames flow: what is promised holds at every step, and in
//! the end everybody is connected.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use dogsled::ambient;
use dogsled::transport::{Peer, SendError, TransportEvent};
use dogsled::types::{Incarnation, NodeId};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::{Fabric, Running};
use crate::transport::{keep_all, node};

const NODES: u32 = 3;
const STEPS: usize = 600;

suite! {
    whatever_happens_frames_keep_their_order,
}

/// What a node has heard of one peer.
#[derive(Default)]
struct Heard {
    up: bool,
    life: Incarnation,
    /// The life of the sender in it, and the number.
    last: Option<(u64, u32)>,
    /// A frame has come since `Up`: the next one has the next number.
    contiguous: bool,
}

struct Actor {
    running: Running,
    life: u64,
    /// The number of the next frame to each peer.
    next: BTreeMap<NodeId, u32>,
    heard: BTreeMap<NodeId, Heard>,
    lost: usize,
    parted: usize,
}

impl Actor {
    async fn start(fabric: &mut Fabric, number: u32, life: u64) -> Actor {
        let running = fabric.start(node(number), life, 1_024).await;
        let (next, heard) = (BTreeMap::new(), BTreeMap::new());
        Actor { running, life, next, heard, lost: 0, parted: 0 }
    }

    fn send(&mut self, to: NodeId) -> bool {
        let number = self.next.entry(to).or_default();
        let frame = [&self.life.to_le_bytes()[..], &number.to_le_bytes()].concat();
        match self.running.transport.send(to, Bytes::from(frame)) {
            Ok(()) => *number += 1,
            Err(SendError::NotConnected) => return false,
            Err(error) => panic!("{error}"),
        }
        true
    }

    fn hear(&mut self, event: TransportEvent) {
        match event {
            TransportEvent::Up { peer, incarnation } => {
                let heard = self.heard.entry(peer).or_default();
                assert!(incarnation >= heard.life, "a surpassed life came up");
                (heard.up, heard.life) = (true, incarnation);
            }
            TransportEvent::Down { peer, parted } => {
                let heard = self.heard.entry(peer).or_default();
                assert!(heard.up, "down without up");
                (heard.up, heard.contiguous) = (false, false);
                *(if parted { &mut self.parted } else { &mut self.lost }) += 1;
            }
            TransportEvent::Unreachable { peer } => {
                assert!(!self.heard.entry(peer).or_default().up, "unreachable while connected");
            }
            TransportEvent::Datagram { peer, .. } => assert!(self.heard[&peer].up),
            TransportEvent::Frames { peer, frames } => {
                let heard = self.heard.get_mut(&peer).expect("up first");
                assert!(heard.up, "frames without a connection");
                for frame in frames {
                    let life = u64::from_le_bytes(frame[..8].try_into().expect("eight bytes"));
                    let number = u32::from_le_bytes(frame[8..].try_into().expect("four bytes"));
                    assert_eq!(life, heard.life.0, "a frame from another life");
                    if let Some((life_before, before)) = heard.last {
                        assert!((life, number) > (life_before, before), "a frame came twice, or late");
                        assert!(!heard.contiguous || number == before + 1, "a frame was left out");
                    }
                    (heard.last, heard.contiguous) = (Some((life, number)), true);
                }
            }
        }
    }
}

/// Anything that an owner of a transport, or chance, may do.
async fn act(fabric: &mut Fabric, actors: &mut Vec<Actor>, peers: &mut [Peer], chance: &mut SmallRng) {
    let at = chance.random_range(0..actors.len());
    let some = |chance: &mut SmallRng, share: f64| -> Vec<usize> {
        (0..NODES as usize).filter(|_| chance.random_bool(share)).collect()
    };
    let transport = &actors[at].running.transport;
    match chance.random_range(0..40) {
        0..16 => transport.keep(some(chance, 0.5).into_iter().map(|peer| peers[peer].id).collect()),
        16..20 => transport.keep([].into()),
        20..23 => transport.set_peers(some(chance, 0.7).into_iter().map(|peer| peers[peer]).collect()),
        23..30 => transport.set_peers(peers.to_vec()),
        30..32 => transport.disconnect(peers[chance.random_range(0..peers.len())].id, "chance"),
        32 => {
            let number = at as u32 + 1;
            let old = actors.remove(at);
            old.running.stop().await;
            let mut next = Actor::start(fabric, number, old.life + 1).await;
            (next.lost, next.parted) = (old.lost, old.parted);
            actors.insert(at, next);
            peers[at] = fabric.peer(node(number));
        }
        33 => {
            if let Some(quic) = &actors[at].running.quic {
                quic.reload_certificates().expect("good files");
            }
        }
        _ => {}
    }
}

async fn whatever_happens_frames_keep_their_order(mut fabric: Fabric) {
    fabric.close_idle_after(Duration::from_millis(15));
    let seed: u64 = ambient::seeded().random();
    println!("the seed of what is done (not of when it happens) is {seed}");
    let mut chance = SmallRng::seed_from_u64(seed);
    let mut actors = Vec::new();
    for number in 1..=NODES {
        actors.push(Actor::start(&mut fabric, number, 1).await);
    }
    let mut peers: Vec<Peer> = (1..=NODES).map(|number| fabric.peer(node(number))).collect();
    actors.iter().for_each(|actor| actor.running.transport.set_peers(peers.clone()));
    for _ in 0..STEPS {
        act(&mut fabric, &mut actors, &mut peers, &mut chance).await;
        for actor in &mut actors {
            for peer in &peers {
                (0..chance.random_range(0..10)).for_each(|_| _ = actor.send(peer.id));
            }
        }
        tokio::time::sleep(Duration::from_micros(chance.random_range(0..8_000))).await;
        for actor in &mut actors {
            while let Some(event) = actor.running.inbox.try_next() {
                actor.hear(event);
            }
        }
    }
    let (lost, parted) = actors.iter().fold((0, 0), |(lost, parted), actor| (lost + actor.lost, parted + actor.parted));
    assert!(lost > 3 && parted > 10, "hardly anything happened: {lost} losses, {parted} partings");
    // Then all is quiet, and everybody wants everybody.
    actors.iter().for_each(|actor| keep_all(&*actor.running.transport, peers.clone()));
    for at in 0..actors.len() {
        for peer in peers.iter().filter(|peer| peer.id != peers[at].id) {
            while !actors[at].heard.get(&peer.id).is_some_and(|heard| heard.up) || !actors[at].send(peer.id) {
                let event = actors[at].running.inbox.next().await;
                actors[at].hear(event);
            }
        }
    }
}
