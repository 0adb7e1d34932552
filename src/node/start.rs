//! Starting and stopping a node.
//!
//! Order of a start: the map and the store must be there and sound before the network
//! is touched, so that a node which cannot serve never greets its peers. Order of a stop:
//! requests first, then the store's queue, then the network.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::thread::JoinHandle;

use arc_swap::ArcSwap;
use tokio::sync::{mpsc, watch};

use crate::ambient;
use crate::protocol::membership::MembershipTimes;
use crate::protocol::{Node, NodeSettings, StorageTicket};
use crate::storage::sled::{SledOptions, SledStorage};
use crate::storage::{self, Committer, Readers, Storage, StorageError, incarnation};
use crate::transport::Transport;
use crate::transport::quic::{QuicOptions, QuicSettings, QuicTransport};
use crate::types::{Actor, ClusterMap, Incarnation, NodeId, PartitionCount, PeerMemory, limits};

use super::event_loop::{Ended, EventLoop, Store, peers_of};
use super::handle::{Mail, NodeHandle, Shared, View};
use super::inbox::{Inbox, StoreEvent};
use super::map_file;
use super::members::MembersStatus;
use super::options::{NodeOptions, StartError};

/// Why a node has stopped.
#[derive(Debug, thiserror::Error)]
pub enum StopReason {
    /// It was asked to.
    #[error("asked to stop")]
    Asked,
    /// Its store failed; what was acknowledged is safe, what was not is in doubt.
    #[error("the store failed, and the node with it: {0}")]
    StorageFailed(#[source] StorageError),
    /// A newer map could not be kept.
    #[error("the cluster map could not be written: {0}")]
    MapFailed(#[source] map_file::MapFileError),
    /// Its store knows less than a peer remembers of it: it was put back to an earlier state,
    /// emptied, or belongs to another life of the node. It must not serve: what it has
    /// acknowledged would vanish, and what was deleted would come back.
    #[error(
        "{by} remembers store {:032x} of this node in life {} up to commit {}, and this store knows less: it was \
         emptied or put back to an earlier state. Nothing was served from it. Bring back the newest data directory, \
         or remove this node from the cluster and let the machine join empty under a new id",
        .remembered.store.0, .remembered.incarnation, .remembered.commit
    )]
    Fenced {
        /// Which peer.
        by: NodeId,
        /// What it remembers.
        remembered: PeerMemory,
    },
    /// The event loop panicked: a mistake of ours.
    #[error("the event loop panicked; see the log")]
    Panicked,
}

/// A node that runs.
pub struct RunningNode {
    /// What front ends hold.
    pub handle: NodeHandle,
    ended: JoinHandle<StopReason>,
}

impl RunningNode {
    /// Whether it has stopped.
    pub fn has_stopped(&self) -> bool {
        self.ended.is_finished()
    }

    /// Why it stopped; blocks until it has.
    pub fn join(self) -> StopReason {
        drop(self.handle);
        self.ended.join().unwrap_or(StopReason::Panicked)
    }
}

/// Starts a node; it listens for its peers when this returns.
///
/// # Errors
/// [`StartError`]: nothing is left running.
pub fn start(options: &NodeOptions) -> Result<RunningNode, StartError> {
    let map_path = options.data_directory.join("cluster.map");
    std::fs::create_dir_all(&options.data_directory).map_err(|source| StorageError::File {
        path: options.data_directory.clone(),
        action: "create the data directory",
        source,
    })?;
    let map = load_map(options, &map_path)?;
    if !map.members.contains_key(&options.id) {
        return Err(StartError::NotAMember { id: options.id, map_file: options.map_file.clone() });
    }
    let members = map.members.len();
    if let Some(k_list) = options.k_list.filter(|k_list| *k_list >= members) {
        return Err(StartError::KListTooLarge { k_list, members });
    }
    let storage = Arc::new(SledStorage::open(&SledOptions {
        directory: options.data_directory.join("store"),
        cache_bytes: options.cache_bytes,
        partitions: map.partitions,
    })?);
    let incarnation = incarnation::advance(&options.data_directory)?;
    launch(options, map, map_path, storage, incarnation)
}

/// The newest map that is known: the one given, or the one kept from an earlier life.
fn load_map(options: &NodeOptions, map_path: &Path) -> Result<ClusterMap, StartError> {
    let given = map_file::read(&options.map_file)?;
    let map = if map_path.exists() {
        let kept = map_file::read(map_path)?;
        if kept.cluster != given.cluster {
            let (found, expected) = (kept.cluster, given.cluster);
            return Err(StartError::OtherCluster { directory: options.data_directory.clone(), found, expected });
        }
        if kept.epoch >= given.epoch {
            return Ok(kept);
        }
        given
    } else {
        given
    };
    map_file::write(map_path, &map)?;
    Ok(map)
}

fn launch(
    options: &NodeOptions,
    map: ClusterMap,
    map_path: std::path::PathBuf,
    storage: Arc<SledStorage>,
    incarnation: Incarnation,
) -> Result<RunningNode, StartError> {
    let storage: Arc<dyn Storage> = storage;
    let recovered = storage.recovered();
    tracing::info!(
        node = %options.id, incarnation = incarnation.0, epoch = map.epoch.0, commit = recovered.commit.0,
        "the store is open"
    );
    let storage_counters = Arc::new(storage::Counters::default());
    let store = open_store(&storage, map.partitions, &storage_counters)?;
    let settings = NodeSettings {
        actor: Actor { node: options.id, incarnation },
        request_timeout: options.request_timeout,
        max_clock_skew: options.max_clock_skew,
        hedge_after: options.hedge_after,
        max_value_bytes: options.max_value_bytes.min(limits::MAX_VALUE_BYTES),
        op_id_horizon: options.op_id_horizon,
        sync_interval: options.sync_interval,
        collect_interval: options.collect_interval,
        k_list: options.k_list.unwrap_or(limits::DEFAULT_K_LIST),
        membership: MembershipTimes::default(),
        seed: u64::from_le_bytes(ambient::seed()),
        store: recovered.store,
        recovered_commit: recovered.commit,
        recovered_clock: recovered.clock,
        remembered: recovered.peers,
    };
    let (events_in, events) = mpsc::channel(limits::TRANSPORT_EVENTS);
    let (mailbox_in, mailbox) = mpsc::channel::<Mail>(limits::MAILBOX_REQUESTS);
    let (stop_in, stop) = watch::channel(false);
    let (ready_in, ready) = std::sync::mpsc::channel();
    let epoch = Arc::new(AtomicU64::new(map.epoch.0));
    let quic = QuicOptions {
        listen: options.peer_listen,
        cluster: map.cluster,
        node: options.id,
        incarnation,
        epoch: Arc::clone(&epoch),
        tls: options.tls.clone(),
        reset_key: options.data_directory.join("reset.key"),
        settings: QuicSettings::default(),
    };
    let id = options.id;
    let max_value_bytes = settings.max_value_bytes;
    let body = move || -> StopReason {
        let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime,
            Err(error) => {
                let _ = ready_in.send(Err(StartError::Thread(error)));
                return StopReason::Asked;
            }
        };
        runtime.block_on(async move {
            let transport = match QuicTransport::start(quic, events_in) {
                Ok(transport) => transport,
                Err(error) => {
                    let _ = ready_in.send(Err(StartError::Transport(error)));
                    return StopReason::Asked;
                }
            };
            transport.set_peers(peers_of(&map, id));
            let node = Node::new(ambient::moment(), map.clone(), settings);
            // Until it has met its peers, a node must not say that it is ready.
            let partitions_without_quorum = node.partitions_without_quorum();
            let members = MembersStatus::of(&node, ambient::now());
            let shared = Arc::new(Shared {
                id,
                incarnation,
                began: ambient::moment(),
                max_value_bytes,
                map: ArcSwap::from_pointee(map),
                view: std::sync::Mutex::new(View { partitions_without_quorum, members, ..View::default() }),
                storage: Arc::clone(&storage),
                storage_counters,
                transport_counters: transport.shared_counters(),
            });
            let _ = ready_in.send(Ok(Arc::clone(&shared)));
            let event_loop = EventLoop {
                node,
                store,
                transport: Arc::clone(&transport) as Arc<dyn Transport>,
                mailbox,
                events,
                stop,
                shared,
                epoch,
                map_path,
            };
            let (ended, store) = event_loop.run().await;
            let reason = settle(ended, store);
            transport.close().await;
            reason
        })
    };
    let ended = std::thread::Builder::new().name("node".into()).spawn(body).map_err(StartError::Thread)?;
    match ready.recv() {
        Ok(Ok(shared)) => Ok(RunningNode { handle: NodeHandle { shared, mailbox: mailbox_in, stop: stop_in }, ended }),
        Ok(Err(error)) => Err(error),
        Err(_) => Err(StartError::Thread(std::io::Error::other("the node's thread ended at once"))),
    }
}

/// Stops the store: what is queued is made durable, unless the store has failed.
fn settle(ended: Ended, store: Store) -> StopReason {
    store.readers.stop();
    match ended {
        Ended::StorageFailed(error) => StopReason::StorageFailed(error),
        Ended::MapFailed(error) => StopReason::MapFailed(error),
        Ended::Fenced { by, remembered } => StopReason::Fenced { by, remembered },
        Ended::Asked => {
            store.committer.stop();
            let mut last_words = Vec::new();
            store.inbox.take(&mut last_words);
            let failed = last_words.into_iter().find_map(|event| match event {
                StoreEvent::Failed(error) => Some(error),
                _ => None,
            });
            failed.map_or(StopReason::Asked, StopReason::StorageFailed)
        }
    }
}

fn open_store(
    storage: &Arc<dyn Storage>,
    partitions: PartitionCount,
    counters: &Arc<storage::Counters>,
) -> Result<Store, StartError> {
    let inbox = Arc::new(Inbox::new());
    let (committed, failed) = (Arc::clone(&inbox), Arc::clone(&inbox));
    let committer = Committer::start(
        Arc::clone(storage),
        Arc::clone(counters),
        Box::new(move |batch: Vec<(StorageTicket, _)>| {
            committed.put(batch.into_iter().map(|(ticket, applied)| StoreEvent::Committed { ticket, applied }));
        }),
        Box::new(move |error| failed.put([StoreEvent::Failed(error)])),
    )?;
    let (fetched, failed) = (Arc::clone(&inbox), Arc::clone(&inbox));
    let readers = Readers::start(
        Arc::clone(storage),
        partitions,
        Arc::clone(counters),
        Box::new(move |batch: Vec<(StorageTicket, _)>| {
            fetched.put(batch.into_iter().map(|(ticket, answer)| StoreEvent::Fetched { ticket, answer }));
        }),
        Box::new(move |error| failed.put([StoreEvent::Failed(error)])),
    )?;
    Ok(Store { committer, readers, inbox })
}
