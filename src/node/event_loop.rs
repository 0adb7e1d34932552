//! The event loop: takes what happened, lets the machine decide, does what it says.
//!
//! Problem: thousands of small events a second from four sources must be handled one
//! after the other by one owner, without a wake-up or a system call for each.
//! So each turn takes all that has gathered (up to a bound), and the frames that a turn
//! sends to a peer leave together, because the network's tasks run on this thread and
//! only get to write once the turn is over.
//!
//! Invariant: actions are carried out in the order in which the machine gave them.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot, watch};

use crate::ambient;
use crate::protocol::membership::MemberChange;
use crate::protocol::{Action, Input, LocalRead, LocalReadResult, Node, RequestToken, StorageTicket};
use crate::storage::{Committer, Held, ReadAnswer, ReadOrder, Readers, StorageError, StoreStatistics};
use crate::transport::{Peer, SendError, Transport, TransportEvent};
use crate::types::{ClusterMap, Failure, Health, Moment, Mutation, NodeId, Now, Outcome, PeerMemory, Refusal};
use crate::wire::{self, Datagram, DecodeError, Envelope, Message, ReplicaResponse};

use super::handle::{Mail, Shared, View};
use super::inbox::{Inbox, StoreEvent};
use super::map_file;
use super::members::MembersStatus;

/// Events taken from one source in one turn, at most, so that none starves the others.
const TURN: usize = 512;
/// How often what others see is renewed at least.
const VIEW_EVERY: Duration = Duration::from_millis(250);
/// How long requests under way may take once the node was asked to stop.
const GRACE: Duration = Duration::from_secs(2);

/// The store, as the event loop gives orders to it.
pub(super) struct Store {
    pub(super) committer: Committer<StorageTicket>,
    pub(super) readers: Readers<StorageTicket>,
    pub(super) inbox: Arc<Inbox<StoreEvent>>,
}

/// Everything the loop owns.
pub(super) struct EventLoop {
    pub(super) node: Node,
    pub(super) store: Store,
    pub(super) transport: Arc<dyn Transport>,
    pub(super) mailbox: mpsc::Receiver<Mail>,
    pub(super) events: mpsc::Receiver<TransportEvent>,
    pub(super) stop: watch::Receiver<bool>,
    pub(super) shared: Arc<Shared>,
    /// The epoch that the transport announces in its greetings.
    pub(super) epoch: Arc<AtomicU64>,
    pub(super) map_path: std::path::PathBuf,
}

/// Why the loop ended.
#[derive(Debug)]
pub(super) enum Ended {
    /// It was asked to.
    Asked,
    /// The store failed. Nothing was acknowledged since.
    StorageFailed(StorageError),
    /// A newer map could not be made durable.
    MapFailed(map_file::MapFileError),
    /// A peer remembers more of this node than its store knows.
    Fenced { by: NodeId, remembered: PeerMemory },
}

/// The state of the loop that is not the machine's.
struct Turn {
    waiting: HashMap<u64, oneshot::Sender<Outcome>>,
    next_token: u64,
    actions: Vec<Action>,
    /// Inputs that carrying out actions has brought about.
    echoes: Vec<Input>,
    view_due: Moment,
    ended: Option<Ended>,
    /// Datagrams that made no sense.
    datagrams_ignored: u64,
    /// Gossip of kinds that this version does not know.
    gossip_ignored: u64,
}

impl EventLoop {
    /// Runs until asked to stop or the store fails.
    pub(super) async fn run(mut self) -> (Ended, Store) {
        let mut turn = Turn {
            waiting: HashMap::new(),
            next_token: 0,
            actions: Vec::new(),
            echoes: Vec::new(),
            view_due: Moment::default(),
            ended: None,
            datagrams_ignored: 0,
            gossip_ignored: 0,
        };
        let mut mail = Vec::with_capacity(TURN);
        let mut events = Vec::with_capacity(TURN);
        let mut store_events = Vec::new();
        let mut stop_by: Option<Moment> = None;
        self.renew_view(&mut turn, ambient::now());
        loop {
            let now = ambient::now();
            if let Some(by) = stop_by
                && (turn.waiting.is_empty() || by <= now.moment)
            {
                turn.ended.get_or_insert(Ended::Asked);
            }
            if let Some(ended) = turn.ended.take() {
                return (ended, self.store);
            }
            let wake_at = self.node.next_timeout().unwrap_or(turn.view_due).min(turn.view_due);
            let wake_at = stop_by.map_or(wake_at, |by| by.min(wake_at));
            let pause = wake_at.since(now.moment);
            tokio::select! {
                biased;
                _ = self.stop.changed(), if stop_by.is_none() => {
                    stop_by = Some(ambient::moment().plus(GRACE));
                }
                () = self.store.inbox.arrival() => {}
                _ = self.events.recv_many(&mut events, TURN) => {}
                received = self.mailbox.recv_many(&mut mail, TURN) => {
                    if received == 0 {
                        // Every handle is gone: nobody can ask for anything any more.
                        stop_by.get_or_insert(ambient::moment());
                    }
                }
                () = tokio::time::sleep(pause) => {}
            }
            let now = ambient::now();
            self.store.inbox.take(&mut store_events);
            for event in store_events.drain(..) {
                self.take_store_event(&mut turn, now, event);
            }
            while events.len() < TURN
                && let Ok(event) = self.events.try_recv()
            {
                events.push(event);
            }
            for event in events.drain(..) {
                self.take_network_event(&mut turn, now, event);
            }
            while mail.len() < TURN
                && let Ok(letter) = self.mailbox.try_recv()
            {
                mail.push(letter);
            }
            for letter in mail.drain(..) {
                self.take_mail(&mut turn, now, letter, stop_by.is_some());
            }
            if self.node.next_timeout().is_some_and(|at| at <= now.moment) {
                self.feed(&mut turn, now, Input::Tick);
            }
            if turn.view_due <= now.moment {
                self.renew_view(&mut turn, now);
            }
            // The network's tasks share this thread; they write what this turn has queued.
            tokio::task::yield_now().await;
        }
    }

    fn take_mail(&mut self, turn: &mut Turn, now: Now, mail: Mail, stopping: bool) {
        if stopping {
            // Whoever asked may have gone; then nobody is left to tell.
            let _ = mail.reply.send(Err(Failure::NotApplied(Refusal::ShuttingDown)));
            return;
        }
        let token = turn.next_token;
        turn.next_token += 1;
        turn.waiting.insert(token, mail.reply);
        self.feed(turn, now, Input::Request { token: RequestToken(token), request: mail.request });
    }

    fn take_store_event(&mut self, turn: &mut Turn, now: Now, event: StoreEvent) {
        match event {
            StoreEvent::Committed { ticket, applied } => self.feed(turn, now, Input::Committed { ticket, applied }),
            StoreEvent::Fetched { ticket, answer } => {
                let result = match answer {
                    ReadAnswer::Value { record: Held { what, durable }, behind } => {
                        LocalReadResult::Value { record: what, durable, behind }
                    }
                    ReadAnswer::Head { digest: Held { what, durable }, behind } => {
                        LocalReadResult::Head { digest: what, durable, behind }
                    }
                    ReadAnswer::Scan(found) => LocalReadResult::Scan(found),
                    ReadAnswer::Statistics(StoreStatistics { live_keys, disk_bytes, .. }) => {
                        LocalReadResult::Statistics(wire::Statistics { live_keys, disk_bytes })
                    }
                    ReadAnswer::Coverage { commit, changed } => LocalReadResult::Coverage { commit, changed },
                    ReadAnswer::Pull(pulled) => LocalReadResult::Pulled(pulled),
                    ReadAnswer::History(history) => LocalReadResult::History(history),
                };
                self.feed(turn, now, Input::Fetched { ticket, result });
            }
            StoreEvent::Failed(error) => {
                turn.ended.get_or_insert(Ended::StorageFailed(error));
            }
        }
    }

    fn take_network_event(&mut self, turn: &mut Turn, now: Now, event: TransportEvent) {
        match event {
            TransportEvent::Up { peer, incarnation } => {
                tracing::info!(%peer, incarnation = incarnation.0, "peer is connected");
                self.feed(turn, now, Input::PeerUp { peer, incarnation });
                self.renew_view(turn, now);
            }
            TransportEvent::Down { peer, parted } => {
                if parted {
                    tracing::info!(%peer, "peer is disconnected in good order");
                } else {
                    tracing::warn!(%peer, "peer is disconnected");
                }
                self.feed(turn, now, Input::PeerDown { peer, parted });
                self.renew_view(turn, now);
            }
            TransportEvent::Frames { peer, frames } => {
                for frame in frames {
                    self.take_frame(turn, now, peer, &frame);
                }
            }
            TransportEvent::Unreachable { peer } => {
                tracing::debug!(%peer, "cannot be reached now");
                self.feed(turn, now, Input::Unreachable { peer });
            }
            TransportEvent::Datagram { peer, content } => match Datagram::decode(&content) {
                Ok(datagram) => self.feed(turn, now, Input::Datagram { from: peer, datagram }),
                Err(error) => {
                    tracing::debug!(%peer, %error, "ignored a datagram");
                    turn.datagrams_ignored += 1;
                }
            },
        }
    }

    fn take_frame(&mut self, turn: &mut Turn, now: Now, peer: NodeId, frame: &Bytes) {
        match wire::decode(frame) {
            Ok(envelope) => self.feed(turn, now, Input::Message { from: peer, envelope }),
            Err(DecodeError::UnknownRequest { kind, id }) => {
                tracing::info!(%peer, kind, "answered an unknown kind of request as unsupported");
                let response = Message::Response { id, response: ReplicaResponse::Unsupported };
                let envelope =
                    Envelope { epoch: self.node.map().epoch, clock: self.node.clock_seen(), message: response };
                self.send(turn, vec![peer], envelope);
            }
            Err(DecodeError::UnknownGossip(kind)) => {
                tracing::info!(%peer, kind, "ignored an unknown kind of gossip");
                turn.gossip_ignored += 1;
            }
            Err(error) => {
                tracing::warn!(%peer, %error, "a frame makes no sense; closing the connection");
                self.transport.disconnect(peer, "malformed frame");
            }
        }
    }

    /// Lets the machine take one input and does what it says.
    fn feed(&mut self, turn: &mut Turn, now: Now, input: Input) {
        let mut actions = std::mem::take(&mut turn.actions);
        self.node.handle(now, input, &mut actions);
        self.carry_out(turn, &mut actions);
        while let Some(echo) = turn.echoes.pop() {
            self.node.handle(now, echo, &mut actions);
            self.carry_out(turn, &mut actions);
        }
        turn.actions = actions;
    }

    fn carry_out(&mut self, turn: &mut Turn, actions: &mut Vec<Action>) {
        for action in actions.drain(..) {
            match action {
                Action::Send { to, envelope } => self.send(turn, to, envelope),
                Action::Append { ticket, mutation } => self.append(turn, ticket, mutation),
                Action::Fetch { ticket, read } => self.fetch(turn, ticket, read),
                Action::Reply { token, outcome } => {
                    if let Some(reply) = turn.waiting.remove(&token.0) {
                        // A client that has gone does not hear its answer.
                        let _ = reply.send(outcome);
                    }
                }
                Action::SendDatagram { to, datagram } => {
                    // Lost, as datagrams may be, if there is no connection or no room.
                    let _ = self.transport.send_datagram(to, datagram.encode().into());
                }
                Action::KeepConnected(members) => self.transport.keep(members),
                Action::MemberChanged(change) => tell_change(change),
                Action::InstallMap(map) => self.install(turn, map),
                Action::Fence { by, remembered } => {
                    turn.ended.get_or_insert(Ended::Fenced { by, remembered });
                }
            }
        }
    }

    fn send(&mut self, turn: &mut Turn, to: Vec<NodeId>, envelope: Envelope) {
        let frame = wire::encode(&envelope);
        for peer in to {
            if let Err(error) = self.transport.send(peer, frame.clone()) {
                if error != SendError::NotConnected {
                    tracing::debug!(%peer, %error, "a frame was not sent");
                }
                turn.echoes.push(Input::SendFailed { to: peer, envelope: envelope.clone() });
            }
        }
    }

    fn append(&mut self, turn: &mut Turn, ticket: StorageTicket, mutation: Mutation) {
        if self.store.committer.submit(ticket, mutation, self.node.clock()).is_err() {
            turn.echoes.push(Input::StorageRefused { ticket });
        }
    }

    fn fetch(&mut self, turn: &mut Turn, ticket: StorageTicket, read: LocalRead) {
        let order = match read {
            LocalRead::Value { key, after } => ReadOrder::Value { key, after },
            LocalRead::Head { key, after } => ReadOrder::Head { key, after },
            LocalRead::Scan(range) => ReadOrder::Scan(range),
            LocalRead::Statistics => ReadOrder::Statistics,
            LocalRead::Coverage { since } => ReadOrder::Coverage { since },
            LocalRead::Pull { partition, wanted } => ReadOrder::Pull { partition, wanted },
            LocalRead::History(key) => ReadOrder::History { key },
        };
        if self.store.readers.submit(ticket, order).is_err() {
            turn.echoes.push(Input::StorageRefused { ticket });
        }
    }

    fn install(&mut self, turn: &mut Turn, map: ClusterMap) {
        tracing::info!(epoch = map.epoch.0, "a newer cluster map arrived");
        if let Err(error) = map_file::write(&self.map_path, &map) {
            turn.ended.get_or_insert(Ended::MapFailed(error));
            return;
        }
        self.epoch.store(map.epoch.0, Ordering::Relaxed);
        self.transport.set_peers(peers_of(&map, self.shared.id));
        self.shared.map.store(Arc::new(map));
    }

    fn renew_view(&mut self, turn: &mut Turn, now: Now) {
        turn.view_due = now.moment.plus(VIEW_EVERY);
        let peers = self.node.peers();
        let others = self.node.map().members.keys().filter(|id| **id != self.shared.id);
        let view = View {
            peers: others.map(|id| (*id, peers.is_connected(*id), peers.incarnation(*id))).collect(),
            partitions_without_quorum: self.node.partitions_without_quorum(),
            requests_under_way: self.node.requests_under_way(),
            counters: self.node.counters(),
            members: MembersStatus::of(&self.node, now),
            datagrams_ignored: turn.datagrams_ignored,
            gossip_ignored: turn.gossip_ignored,
        };
        *self.shared.view.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = view;
    }
}

/// What people may want to know when it happens.
fn tell_change(change: MemberChange) {
    match change {
        MemberChange::Own { member, life, health } => {
            tracing::debug!(%member, %life, %health, "this node's opinion of a neighbour has changed");
        }
        MemberChange::Cluster { member, life, health: Health::Down } => {
            tracing::warn!(%member, %life, "a majority of its observers hold this member for down");
        }
        MemberChange::Cluster { member, life, .. } => tracing::info!(%member, %life, "this member is back"),
    }
}

/// Everybody in the map but this node.
pub(super) fn peers_of(map: &ClusterMap, me: NodeId) -> Vec<Peer> {
    let others = map.members.values().filter(|member| member.id != me);
    others.map(|member| Peer { id: member.id, address: member.peer_address }).collect()
}
