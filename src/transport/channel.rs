//! A network in memory, for tests of what stands on a transport.
//!
//! It keeps the promises of [`Transport`] and no others, as the suite shows that runs on
//! it and on QUIC. Two nodes are connected when each lists the other, both run, and
//! nobody has cut them apart. Deliveries run as tasks on the tokio runtime within which
//! the nodes were started.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::runtime::Handle;
use tokio::sync::{Notify, mpsc};

use super::{Peer, SendError, Transport, TransportEvent};
use crate::types::{Incarnation, NodeId, limits};

/// Frames in one event, at most.
const EVENT_FRAMES: usize = 1_024;

/// The lower id first.
type Pair = (NodeId, NodeId);

/// The network between nodes of one test.
#[derive(Clone, Default)]
pub struct ChannelNetwork {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    nodes: BTreeMap<NodeId, Running>,
    cuts: BTreeSet<Pair>,
    links: BTreeMap<Pair, Arc<Link>>,
}

struct Running {
    incarnation: Incarnation,
    events: mpsc::Sender<TransportEvent>,
    peers: BTreeSet<NodeId>,
    runtime: Handle,
}

/// A connection: what travels to the lower node, and what travels to the higher one.
struct Link {
    lives: [Incarnation; 2],
    pipes: [Pipe; 2],
}

struct Pipe {
    to: mpsc::Sender<TransportEvent>,
    queue: Mutex<Queue>,
    ready: Notify,
}

#[derive(Default)]
struct Queue {
    frames: VecDeque<Bytes>,
    bytes: usize,
    /// Counted until the receiver has taken them.
    under_way: (usize, usize),
    closed: bool,
    /// The receiver has been told of the connection.
    up: bool,
}

impl ChannelNetwork {
    /// A network without nodes.
    pub fn new() -> ChannelNetwork {
        ChannelNetwork::default()
    }

    /// Starts a node; one of the same name must have been dropped before.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn start(
        &self,
        node: NodeId,
        incarnation: Incarnation,
        events: mpsc::Sender<TransportEvent>,
    ) -> Arc<ChannelTransport> {
        let running = Running { incarnation, events, peers: BTreeSet::new(), runtime: Handle::current() };
        self.lock().nodes.insert(node, running);
        Arc::new(ChannelTransport { network: self.clone(), node, incarnation })
    }

    /// Cuts two nodes apart, or lets them meet again.
    pub fn set_cut(&self, one: NodeId, other: NodeId, cut: bool) {
        let mut state = self.lock();
        let pair = pair(one, other);
        if cut {
            state.cuts.insert(pair)
        } else {
            state.cuts.remove(&pair)
        };
        self.settle(&mut state);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Connects who should be connected, and parts who should not.
    fn settle(&self, state: &mut State) {
        for (pair, link) in &state.links {
            if state.willing(*pair) != Some(link.lives) {
                link.close();
            }
        }
        let nodes: Vec<NodeId> = state.nodes.keys().copied().collect();
        for (index, low) in nodes.iter().enumerate() {
            for high in &nodes[index + 1..] {
                let pair = (*low, *high);
                if let (Some(lives), false) = (state.willing(pair), state.links.contains_key(&pair)) {
                    self.connect(state, pair, lives);
                }
            }
        }
    }

    fn connect(&self, state: &mut State, (low, high): Pair, lives: [Incarnation; 2]) {
        let pipe =
            |to: NodeId| Pipe { to: state.nodes[&to].events.clone(), queue: Mutex::default(), ready: Notify::new() };
        let link = Arc::new(Link { lives, pipes: [pipe(low), pipe(high)] });
        let runtime = state.nodes[&low].runtime.clone();
        state.links.insert((low, high), link.clone());
        let network = self.clone();
        runtime.spawn(async move {
            tokio::join!(link.pipes[0].deliver(high, lives[1]), link.pipes[1].deliver(low, lives[0]));
            let mut state = network.lock();
            state.links.remove(&(low, high));
            network.settle(&mut state);
        });
    }
}

impl State {
    /// The lives in which both want to be connected, if they do.
    fn willing(&self, pair: Pair) -> Option<[Incarnation; 2]> {
        let (low, high) = (self.nodes.get(&pair.0)?, self.nodes.get(&pair.1)?);
        let mutual = low.peers.contains(&pair.1) && high.peers.contains(&pair.0);
        (mutual && !self.cuts.contains(&pair)).then_some([low.incarnation, high.incarnation])
    }
}

fn pair(one: NodeId, other: NodeId) -> Pair {
    (one.min(other), one.max(other))
}

impl Link {
    fn close(&self) {
        for pipe in &self.pipes {
            pipe.lock().closed = true;
            pipe.ready.notify_one();
        }
    }
}

impl Pipe {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, frame: Bytes) -> Result<(), SendError> {
        let mut queue = self.lock();
        if queue.closed {
            return Err(SendError::NotConnected);
        }
        let frames = queue.frames.len() + queue.under_way.0 + 1;
        let bytes = queue.bytes + queue.under_way.1 + 4 + frame.len();
        if frames > limits::PEER_QUEUE_FRAMES || bytes > limits::PEER_QUEUE_BYTES {
            return Err(SendError::QueueFull);
        }
        queue.bytes += 4 + frame.len();
        queue.frames.push_back(frame);
        drop(queue);
        self.ready.notify_one();
        Ok(())
    }

    fn push_datagram(&self, from: NodeId, content: Bytes) -> Result<(), SendError> {
        let queue = self.lock();
        if queue.closed {
            return Err(SendError::NotConnected);
        }
        if queue.up {
            // Lost if there is no room, as datagrams may be.
            let _ = self.to.try_send(TransportEvent::Datagram { peer: from, content });
        }
        Ok(())
    }

    /// Hands over what comes, from `Up` to `Down`.
    async fn deliver(&self, from: NodeId, incarnation: Incarnation) {
        if self.to.send(TransportEvent::Up { peer: from, incarnation }).await.is_err() {
            self.lock().closed = true;
            return;
        }
        self.lock().up = true;
        while let Some(frames) = self.next().await {
            if self.to.send(TransportEvent::Frames { peer: from, frames }).await.is_err() {
                self.lock().closed = true;
                return;
            }
        }
        let _ = self.to.send(TransportEvent::Down { peer: from }).await;
    }

    async fn next(&self) -> Option<Vec<Bytes>> {
        loop {
            {
                let mut queue = self.lock();
                queue.under_way = (0, 0);
                if queue.closed {
                    queue.up = false;
                    return None;
                }
                if !queue.frames.is_empty() {
                    let count = queue.frames.len().min(EVENT_FRAMES);
                    let frames: Vec<Bytes> = queue.frames.drain(..count).collect();
                    let bytes = frames.iter().map(|frame| 4 + frame.len()).sum();
                    queue.bytes -= bytes;
                    queue.under_way = (count, bytes);
                    return Some(frames);
                }
            }
            self.ready.notified().await;
        }
    }
}

/// One node's end of a [`ChannelNetwork`]. Dropping it stops the node at once.
pub struct ChannelTransport {
    network: ChannelNetwork,
    node: NodeId,
    incarnation: Incarnation,
}

impl ChannelTransport {
    fn with_pipe<T>(&self, to: NodeId, act: impl FnOnce(&Pipe) -> Result<T, SendError>) -> Result<T, SendError> {
        let link = self.network.lock().links.get(&pair(self.node, to)).cloned().ok_or(SendError::NotConnected)?;
        act(&link.pipes[usize::from(to > self.node)])
    }
}

impl Transport for ChannelTransport {
    fn send(&self, to: NodeId, frame: Bytes) -> Result<(), SendError> {
        if frame.is_empty() || frame.len() > limits::MAX_FRAME_BYTES {
            return Err(SendError::TooLong);
        }
        self.with_pipe(to, |pipe| pipe.push(frame))
    }

    fn send_datagram(&self, to: NodeId, content: Bytes) -> Result<(), SendError> {
        if content.len() > limits::MAX_DATAGRAM_BYTES {
            return Err(SendError::TooLong);
        }
        self.with_pipe(to, |pipe| pipe.push_datagram(self.node, content))
    }

    fn disconnect(&self, peer: NodeId, _reason: &str) {
        // It comes to stand again once both ends have seen it go.
        let link = self.network.lock().links.get(&pair(self.node, peer)).cloned();
        if let Some(link) = link {
            link.close();
        }
    }

    fn set_peers(&self, peers: Vec<Peer>) {
        let mut state = self.network.lock();
        let own = self.node;
        if let Some(node) = state.nodes.get_mut(&own).filter(|node| node.incarnation == self.incarnation) {
            node.peers = peers.into_iter().map(|peer| peer.id).filter(|id| *id != own).collect();
        }
        self.network.settle(&mut state);
    }
}

impl Drop for ChannelTransport {
    fn drop(&mut self) {
        let mut state = self.network.lock();
        if state.nodes.get(&self.node).is_some_and(|node| node.incarnation == self.incarnation) {
            state.nodes.remove(&self.node);
        }
        self.network.settle(&mut state);
    }
}
