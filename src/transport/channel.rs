//! A network in memory, for tests of what stands on a transport.
//!
//! It keeps the promises of [`Transport`] and no others, as the suite shows that runs on
//! it and on QUIC. Two nodes come to be connected when each lists the other, at least one
//! keeps the other, both run, and nobody has cut them apart. Deliveries run as tasks on
//! the tokio runtime within which the nodes were started.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::runtime::Handle;
use tokio::sync::{Notify, mpsc};
use tokio::time::sleep;

use super::{Peer, SendError, Transport, TransportEvent};
use crate::ambient;
use crate::types::{Incarnation, Moment, NodeId, limits};

/// Frames in one event, at most.
const EVENT_FRAMES: usize = 1_024;
/// So often within `idle_close` it is looked whether anything travels.
const LOOKS: u32 = 8;
/// No two looks are closer than that, whatever `idle_close` is.
const LOOK_MIN: Duration = Duration::from_millis(1);

/// The lower id first.
type Pair = (NodeId, NodeId);

/// Times of the network, as the QUIC transport has them.
#[derive(Clone, Copy, Debug)]
pub struct ChannelSettings {
    /// A connection that an end does not keep is closed once nothing has travelled on it
    /// for so long (it may take a quarter more). Default: 30 s.
    pub idle_close: Duration,
    /// The first wait after a failed attempt to connect; it doubles. Default: 10 ms.
    pub retry_min: Duration,
    /// The longest wait after a failed attempt. Default: 500 ms.
    pub retry_max: Duration,
}

impl Default for ChannelSettings {
    fn default() -> ChannelSettings {
        ChannelSettings {
            idle_close: Duration::from_secs(30),
            retry_min: Duration::from_millis(10),
            retry_max: Duration::from_millis(500),
        }
    }
}

/// The network between nodes of one test.
#[derive(Clone, Default)]
pub struct ChannelNetwork {
    settings: ChannelSettings,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    nodes: BTreeMap<NodeId, Running>,
    cuts: BTreeSet<Pair>,
    links: BTreeMap<Pair, Arc<Link>>,
    /// Who tries in vain to reach whom.
    calls: BTreeSet<Call>,
}

struct Running {
    incarnation: Incarnation,
    events: mpsc::Sender<TransportEvent>,
    peers: BTreeSet<NodeId>,
    kept: BTreeSet<NodeId>,
    runtime: Handle,
}

/// A node in one of its lives that keeps a peer without being connected with it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Call {
    from: NodeId,
    life: Incarnation,
    to: NodeId,
}

/// A connection: what travels to the lower node, and what travels to the higher one.
struct Link {
    lives: [Incarnation; 2],
    pipes: [Pipe; 2],
    /// Something has travelled since somebody looked.
    traffic: AtomicBool,
    /// Since when nothing has, and the end (the lower, the higher) does not keep the other.
    quiet_since: Mutex<[Moment; 2]>,
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
    closed: Option<Close>,
    /// The receiver has been told of the connection.
    up: bool,
}

/// How a connection ends.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Close {
    /// As idle: what waits is delivered.
    Idle,
    /// An end stops, or does not list the other any more.
    Unwanted,
    Lost,
}

impl ChannelNetwork {
    /// A network without nodes.
    pub fn new() -> ChannelNetwork {
        ChannelNetwork::default()
    }

    /// A network without nodes, with times of its own.
    pub fn with_settings(settings: ChannelSettings) -> ChannelNetwork {
        ChannelNetwork { settings, ..ChannelNetwork::default() }
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
        let (peers, kept) = (BTreeSet::new(), BTreeSet::new());
        let running = Running { incarnation, events, peers, kept, runtime: Handle::current() };
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

    /// Connects who should be connected, parts who should not be, and lets those try who
    /// cannot be connected now.
    fn settle(&self, state: &mut State) {
        for (pair, link) in &state.links {
            if state.willing(*pair) != Some(link.lives) {
                link.close(if state.cuts.contains(pair) { Close::Lost } else { Close::Unwanted });
            }
        }
        let wanted: Vec<Call> = state.wanted().collect();
        for call in wanted {
            let pair = pair(call.from, call.to);
            if state.links.contains_key(&pair) {
                continue;
            }
            if let Some(lives) = state.willing(pair) {
                self.connect(state, pair, lives);
            } else if state.calls.insert(call) {
                let runtime = state.nodes[&call.from].runtime.clone();
                runtime.spawn(self.clone().call(call));
            }
        }
    }

    fn connect(&self, state: &mut State, (low, high): Pair, lives: [Incarnation; 2]) {
        let pipe =
            |to: NodeId| Pipe { to: state.nodes[&to].events.clone(), queue: Mutex::default(), ready: Notify::new() };
        let link = Arc::new(Link {
            lives,
            pipes: [pipe(low), pipe(high)],
            traffic: AtomicBool::new(false),
            quiet_since: Mutex::new([ambient::moment(); 2]),
        });
        let runtime = state.nodes[&low].runtime.clone();
        state.links.insert((low, high), link.clone());
        let network = self.clone();
        runtime.spawn(async move {
            let delivered = async {
                tokio::join!(link.pipes[0].deliver(high, lives[1]), link.pipes[1].deliver(low, lives[0]));
            };
            tokio::select! {
                () = delivered => {}
                () = network.close_when_idle((low, high), &link) => {}
            }
            let mut state = network.lock();
            state.links.remove(&(low, high));
            network.settle(&mut state);
        });
    }

    /// Never ends; the connection does.
    async fn close_when_idle(&self, pair: Pair, link: &Link) {
        let idle_close = self.settings.idle_close;
        loop {
            sleep((idle_close / LOOKS).max(LOOK_MIN)).await;
            let state = self.lock();
            let now = ambient::moment();
            let busy = link.is_busy();
            let mut quiet_since = link.quiet_since.lock().unwrap_or_else(PoisonError::into_inner);
            for (since, (from, to)) in quiet_since.iter_mut().zip([pair, (pair.1, pair.0)]) {
                if busy || state.nodes.get(&from).is_some_and(|node| node.kept.contains(&to)) {
                    *since = now;
                }
                if now.since(*since) >= idle_close {
                    link.close(Close::Idle);
                }
            }
        }
    }

    /// Says that a peer cannot be reached, until it can be or is not wanted any more.
    async fn call(self, call: Call) {
        let mut wait = self.settings.retry_min;
        let events = self.lock().nodes.get(&call.from).map(|node| node.events.clone());
        loop {
            // With the room in hand nothing can come between the look and the event.
            let room = match &events {
                Some(events) => events.reserve().await.ok(),
                None => None,
            };
            {
                let mut state = self.lock();
                let in_vain =
                    state.wanted().any(|wanted| wanted == call) && !state.links.contains_key(&pair(call.from, call.to));
                match room {
                    Some(room) if in_vain => room.send(TransportEvent::Unreachable { peer: call.to }),
                    _ => {
                        state.calls.remove(&call);
                        return;
                    }
                }
            }
            sleep(wait).await;
            wait = (wait * 2).min(self.settings.retry_max);
        }
    }
}

impl State {
    /// The lives in which both may be connected, if they may.
    fn willing(&self, pair: Pair) -> Option<[Incarnation; 2]> {
        let (low, high) = (self.nodes.get(&pair.0)?, self.nodes.get(&pair.1)?);
        let mutual = low.peers.contains(&pair.1) && high.peers.contains(&pair.0);
        (mutual && !self.cuts.contains(&pair)).then_some([low.incarnation, high.incarnation])
    }

    /// Who wants to be connected with whom.
    fn wanted(&self) -> impl Iterator<Item = Call> {
        self.nodes.iter().flat_map(|(from, node)| {
            let life = node.incarnation;
            node.kept.intersection(&node.peers).map(move |to| Call { from: *from, life, to: *to })
        })
    }
}

fn pair(one: NodeId, other: NodeId) -> Pair {
    (one.min(other), one.max(other))
}

impl Link {
    fn close(&self, how: Close) {
        for pipe in &self.pipes {
            let mut queue = pipe.lock();
            // What is parted from in good order may still be lost.
            if queue.closed.is_none_or(|before| before == Close::Idle) {
                queue.closed = Some(how);
            }
            drop(queue);
            pipe.ready.notify_one();
        }
    }

    /// Something has travelled since this was asked last, or waits to.
    fn is_busy(&self) -> bool {
        let travelled = self.traffic.swap(false, Ordering::Relaxed);
        travelled || self.pipes.iter().any(|pipe| !pipe.is_empty())
    }
}

impl Pipe {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_empty(&self) -> bool {
        let queue = self.lock();
        queue.frames.is_empty() && queue.under_way.0 == 0
    }

    fn push(&self, frame: Bytes) -> Result<(), SendError> {
        let mut queue = self.lock();
        if queue.closed.is_some() {
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
        if queue.closed.is_some() {
            return Err(SendError::NotConnected);
        }
        // Half of the room among the events is not for datagrams.
        if queue.up && self.to.capacity() > self.to.max_capacity() / 2 {
            // Lost if there is no room, as datagrams may be.
            let _ = self.to.try_send(TransportEvent::Datagram { peer: from, content });
        }
        Ok(())
    }

    /// Hands over what comes, from `Up` to `Down`.
    async fn deliver(&self, from: NodeId, incarnation: Incarnation) {
        if self.to.send(TransportEvent::Up { peer: from, incarnation }).await.is_err() {
            self.lock().closed = Some(Close::Lost);
            return;
        }
        self.lock().up = true;
        let how = loop {
            match self.next().await {
                Ok(frames) => {
                    if self.to.send(TransportEvent::Frames { peer: from, frames }).await.is_err() {
                        self.lock().closed = Some(Close::Lost);
                        return;
                    }
                }
                Err(how) => break how,
            }
        };
        let _ = self.to.send(TransportEvent::Down { peer: from, parted: how != Close::Lost }).await;
    }

    async fn next(&self) -> Result<Vec<Bytes>, Close> {
        loop {
            {
                let mut queue = self.lock();
                queue.under_way = (0, 0);
                match queue.closed {
                    Some(how) if how != Close::Idle || queue.frames.is_empty() => {
                        queue.up = false;
                        return Err(how);
                    }
                    _ => {}
                }
                if !queue.frames.is_empty() {
                    let count = queue.frames.len().min(EVENT_FRAMES);
                    let frames: Vec<Bytes> = queue.frames.drain(..count).collect();
                    let bytes = frames.iter().map(|frame| 4 + frame.len()).sum();
                    queue.bytes -= bytes;
                    queue.under_way = (count, bytes);
                    return Ok(frames);
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
    fn with_pipe(&self, to: NodeId, act: impl FnOnce(&Pipe) -> Result<(), SendError>) -> Result<(), SendError> {
        let link = self.network.lock().links.get(&pair(self.node, to)).cloned().ok_or(SendError::NotConnected)?;
        act(&link.pipes[usize::from(to > self.node)])?;
        link.traffic.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Changes what this node wants, unless another life of it has begun.
    fn change(&self, state: &mut State, change: impl FnOnce(&mut Running)) {
        if let Some(node) = state.nodes.get_mut(&self.node).filter(|node| node.incarnation == self.incarnation) {
            change(node);
        }
        self.network.settle(state);
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
            link.close(Close::Lost);
        }
    }

    fn set_peers(&self, peers: Vec<Peer>) {
        let own = self.node;
        let peers = peers.into_iter().map(|peer| peer.id).filter(|id| *id != own).collect();
        self.change(&mut self.network.lock(), |node| node.peers = peers);
    }

    fn keep(&self, peers: BTreeSet<NodeId>) {
        let mut state = self.network.lock();
        let now = ambient::moment();
        for ((low, high), link) in &state.links {
            let ends = [*low, *high];
            if let Some(end) = ends.iter().position(|end| *end == self.node)
                && !peers.contains(&ends[1 - end])
                && state.nodes.get(&self.node).is_some_and(|node| node.kept.contains(&ends[1 - end]))
            {
                link.quiet_since.lock().unwrap_or_else(PoisonError::into_inner)[end] = now;
            }
        }
        self.change(&mut state, |node| node.kept = peers);
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
