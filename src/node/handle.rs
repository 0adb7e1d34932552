//! What the front ends hold of a node.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::{mpsc, oneshot, watch};

use crate::ambient;
use crate::protocol::NodeCounters;
use crate::types::{ClusterMap, Epoch, Failure, Incarnation, Moment, NodeId, Operation, Outcome, Refusal, Request};
use crate::{storage, transport};

use super::members::MembersStatus;
use super::samples::{self, Sample};

/// A client's request on its way to the event loop.
#[derive(Debug)]
pub(super) struct Mail {
    pub(super) request: Request,
    pub(super) reply: oneshot::Sender<Outcome>,
}

/// What the event loop lets others see.
pub(super) struct Shared {
    pub(super) id: NodeId,
    pub(super) incarnation: Incarnation,
    pub(super) began: Moment,
    pub(super) max_value_bytes: usize,
    pub(super) map: ArcSwap<ClusterMap>,
    pub(super) view: Mutex<View>,
    pub(super) storage: Arc<dyn storage::Storage>,
    pub(super) storage_counters: Arc<storage::Counters>,
    pub(super) transport_counters: Arc<transport::Counters>,
}

/// What changes from step to step.
#[derive(Clone, Debug, Default)]
pub(super) struct View {
    pub(super) peers: Vec<(NodeId, bool, Option<Incarnation>)>,
    pub(super) partitions_without_quorum: u32,
    pub(super) requests_under_way: usize,
    pub(super) counters: NodeCounters,
    pub(super) members: MembersStatus,
    pub(super) datagrams_ignored: u64,
    pub(super) gossip_ignored: u64,
}

impl View {
    pub(super) fn members(&self) -> MembersStatus {
        let (datagrams_ignored, gossip_ignored) = (self.datagrams_ignored, self.gossip_ignored);
        MembersStatus { datagrams_ignored, gossip_ignored, ..self.members.clone() }
    }
}

/// A way to ask a running node; cheap to clone.
#[derive(Clone)]
pub struct NodeHandle {
    pub(super) shared: Arc<Shared>,
    pub(super) mailbox: mpsc::Sender<Mail>,
    pub(super) stop: watch::Sender<bool>,
}

/// What a node says of itself.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub struct NodeStatus {
    /// Its name.
    pub id: NodeId,
    /// Which of its lives this is.
    pub incarnation: Incarnation,
    /// The epoch of its map.
    pub epoch: Epoch,
    /// The version of the program.
    pub version: String,
    /// Whether a quorum of every partition is reachable from here.
    pub ready: bool,
    /// Partitions of which this node reaches no quorum.
    pub partitions_without_quorum: u32,
    /// About how many live keys this node holds.
    pub live_keys: u64,
    /// Bytes on disk.
    pub disk_bytes: u64,
    /// Seconds since this life began.
    pub uptime_s: u64,
    /// The other members as this node sees them.
    pub peers: Vec<PeerStatus>,
}

/// A member as another node sees it.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub struct PeerStatus {
    /// Its name.
    pub id: NodeId,
    /// Where peers reach it.
    pub address: std::net::SocketAddr,
    /// Whether there is a connection to it now.
    pub connected: bool,
    /// The life it is in, if it was met.
    pub incarnation: Option<Incarnation>,
}

impl NodeHandle {
    /// Hands a request to the node now; the answer comes later. Requests of one caller
    /// are begun in the order of these calls. If the mailbox is full, the answer is
    /// `NotApplied(Overloaded)` and already there. A receiver that errors means that the
    /// node has stopped: in doubt for writes.
    pub fn submit(&self, request: Request) -> oneshot::Receiver<Outcome> {
        let (reply, answer) = oneshot::channel();
        if let Err(refused) = self.mailbox.try_send(Mail { request, reply }) {
            let (mail, refusal) = match refused {
                mpsc::error::TrySendError::Full(mail) => (mail, Refusal::Overloaded),
                mpsc::error::TrySendError::Closed(mail) => (mail, Refusal::ShuttingDown),
            };
            // The receiver is still here; if its owner drops it, nobody is left to tell.
            let _ = mail.reply.send(Err(Failure::NotApplied(refusal)));
        }
        answer
    }

    /// Hands a request to the node and waits for the answer.
    pub async fn request(&self, request: Request) -> Outcome {
        let stopped = stopped_failure(&request.operation);
        self.submit(request).await.unwrap_or(Err(stopped))
    }

    /// What the node says of itself.
    pub fn status(&self) -> NodeStatus {
        let map = self.map();
        let view = self.shared.view.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let peers = view.peers.iter().filter_map(|(id, connected, incarnation)| {
            let address = map.members.get(id)?.peer_address;
            Some(PeerStatus { id: *id, address, connected: *connected, incarnation: *incarnation })
        });
        NodeStatus {
            id: self.shared.id,
            incarnation: self.shared.incarnation,
            epoch: map.epoch,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            ready: view.partitions_without_quorum == 0,
            partitions_without_quorum: view.partitions_without_quorum,
            live_keys: self.shared.storage.live_keys(),
            disk_bytes: self.shared.storage.disk_bytes(),
            uptime_s: self.uptime().as_secs(),
            peers: peers.collect(),
        }
    }

    /// Who is alive, as this node sees it.
    pub fn members(&self) -> MembersStatus {
        self.shared.view.lock().unwrap_or_else(PoisonError::into_inner).members()
    }

    fn uptime(&self) -> Duration {
        ambient::moment().since(self.shared.began)
    }

    /// The map it lives by.
    pub fn map(&self) -> Arc<ClusterMap> {
        self.shared.map.load_full()
    }

    /// The longest value it takes, in bytes.
    pub fn max_value_bytes(&self) -> usize {
        self.shared.max_value_bytes
    }

    /// Everything that is measured below the front ends.
    pub fn samples(&self) -> Vec<Sample> {
        let view = self.shared.view.lock().unwrap_or_else(PoisonError::into_inner).clone();
        samples::collect(&self.status(), &view, &self.shared)
    }

    /// Asks the node to stop: requests under way are finished, new ones refused.
    pub fn stop(&self) {
        self.stop.send_replace(true);
    }
}

/// How a request ends if the node is gone before it answered.
fn stopped_failure(operation: &Operation) -> Failure {
    if operation.writes() {
        Failure::InDoubt { acknowledged: 0, needed: 1 }
    } else {
        Failure::NotApplied(Refusal::ShuttingDown)
    }
}
