//! A store in one process that answers as a node does: what the front ends are tested against.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use dogsled::ambient;
use dogsled::node::{NodeStatus, PeerStatus, Sample, SampleKind};
use dogsled::server::Backend;
use dogsled::types::{
    Actor, Assignment, ClusterId, ClusterMap, Counter, Dot, Epoch, Expiry, Failure, HybridClock, Incarnation, Key,
    Member, Namespace, NamespaceId, NodeId, Operation, Outcome, PartitionCount, ReadReply, Request, Response,
    ScanEntry, ScanPage, Stamp, Summary, Timestamp, Token, WallTime, WriteReply, Zone, limits,
};
use tokio::sync::oneshot;

struct Stored {
    value: Bytes,
    stamp: Stamp,
    expires_at: Option<WallTime>,
}

impl Stored {
    fn is_live(&self) -> bool {
        self.expires_at.is_none_or(|at| at > ambient::wall())
    }

    fn summary(&self) -> Summary {
        Summary { stamp: self.stamp, expires_at: self.expires_at, value_bytes: Some(self.value.len() as u32) }
    }

    fn read(&self) -> ReadReply {
        ReadReply { value: self.value.clone(), stamp: self.stamp, expires_at: self.expires_at }
    }
}

/// Decides how a request fails, if it does.
type Fault = Box<dyn Fn(&Request) -> Option<Fate> + Send>;

/// What becomes of a request instead of its answer.
pub enum Fate {
    Fails(Failure),
    /// The node stops: nobody answers any more.
    Stops,
}

/// When requests are answered.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    AtOnce,
    /// When the test says so.
    Held,
    /// Together with those of the same few hundred microseconds, as a group commit does it.
    Grouped,
}

struct State {
    entries: BTreeMap<(NamespaceId, Token, Bytes), Stored>,
    clock: HybridClock,
    counter: u64,
    mode: Mode,
    held: VecDeque<(Request, oneshot::Sender<Outcome>)>,
    log: Vec<Request>,
    logging: bool,
    fault: Option<Fault>,
    /// How many replicas acknowledge a write before its answer, and in the end.
    acknowledged: u8,
    confirmed: u8,
    ready: bool,
}

/// The store.
pub struct Fake {
    state: Mutex<State>,
    arrived: Condvar,
    map: Arc<ClusterMap>,
    max_value_bytes: usize,
}

fn node(number: u32) -> NodeId {
    NodeId::new(number).expect("above zero")
}

fn map() -> ClusterMap {
    let members = (1..=3).map(|number| {
        let peer_address = SocketAddr::from(([127, 0, 0, 1], 9378 + number as u16));
        let zone = Zone(format!("z{number}"));
        (node(number), Member { id: node(number), peer_address, zone, weight: 1 })
    });
    let spaces = [(0, "default"), (1, "other")];
    let namespaces = spaces.map(|(id, name)| (NamespaceId(id), Namespace { id: NamespaceId(id), name: name.into() }));
    let partitions = PartitionCount::new(16).expect("a power of two");
    let assignment =
        partitions.all().map(|partition| (0..3).map(|place| node((u32::from(partition.0) + place) % 3 + 1)).collect());
    ClusterMap {
        cluster: ClusterId([7; 16]),
        epoch: Epoch(1),
        partitions,
        replication_factor: 3,
        members: members.collect(),
        namespaces: namespaces.into_iter().collect(),
        assignment: Assignment(assignment.collect()),
    }
}

impl Fake {
    pub fn new() -> Arc<Fake> {
        Fake::with_max_value(limits::DEFAULT_MAX_VALUE_BYTES)
    }

    pub fn with_max_value(max_value_bytes: usize) -> Arc<Fake> {
        let state = State {
            entries: BTreeMap::new(),
            clock: HybridClock::new(Timestamp::default(), Duration::from_millis(500)),
            counter: 0,
            mode: Mode::AtOnce,
            held: VecDeque::new(),
            log: Vec::new(),
            logging: false,
            fault: None,
            acknowledged: 2,
            confirmed: 3,
            ready: true,
        };
        Arc::new(Fake { state: Mutex::new(state), arrived: Condvar::new(), map: Arc::new(map()), max_value_bytes })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no test panics while it holds this")
    }

    /// From now on requests wait until they are released.
    pub fn hold(&self) {
        self.lock().mode = Mode::Held;
    }

    /// Waits until so many requests are held, and says which.
    pub fn wait_for_held(&self, count: usize) -> Vec<Request> {
        let state = self.lock();
        let (state, timeout) = self
            .arrived
            .wait_timeout_while(state, Duration::from_secs(20), |state| state.held.len() < count)
            .expect("no test panics while it holds this");
        assert!(!timeout.timed_out(), "{} of {count} requests arrived", state.held.len());
        state.held.iter().map(|(request, _)| request.clone()).collect()
    }

    /// How many requests are held.
    pub fn held(&self) -> usize {
        self.lock().held.len()
    }

    /// Answers the held request of this place.
    pub fn release(&self, place: usize) {
        let mut state = self.lock();
        let (request, sender) = state.held.remove(place).expect("it is held");
        state.answer(request, sender);
    }

    /// Answers all that is held, and from now on at once.
    pub fn release_all(&self) {
        let mut state = self.lock();
        state.mode = Mode::AtOnce;
        while let Some((request, sender)) = state.held.pop_front() {
            state.answer(request, sender);
        }
    }

    /// Answers in groups from a thread of its own, each some time after its first request.
    pub fn group(self: &Arc<Self>, every: Duration) {
        self.lock().mode = Mode::Grouped;
        let fake = Arc::downgrade(self);
        std::thread::spawn(move || {
            while let Some(fake) = fake.upgrade() {
                std::thread::sleep(every);
                let mut state = fake.lock();
                while let Some((request, sender)) = state.held.pop_front() {
                    state.answer(request, sender);
                }
            }
        });
    }

    /// Lets some requests fail.
    pub fn fault(&self, fault: impl Fn(&Request) -> Option<Fate> + Send + 'static) {
        self.lock().fault = Some(Box::new(fault));
    }

    /// Lets none fail any more.
    pub fn no_fault(&self) {
        self.lock().fault = None;
    }

    /// Starts to write down requests.
    pub fn log(&self) {
        self.lock().logging = true;
    }

    /// What was written down since the last call.
    pub fn logged(&self) -> Vec<Request> {
        std::mem::take(&mut self.lock().log)
    }

    /// How many replicas have a write when it is answered, and how many when one waits.
    pub fn acknowledge(&self, acknowledged: u8, confirmed: u8) {
        let mut state = self.lock();
        (state.acknowledged, state.confirmed) = (acknowledged, confirmed);
    }

    pub fn set_ready(&self, ready: bool) {
        self.lock().ready = ready;
    }

    /// How many keys live.
    pub fn live(&self) -> usize {
        self.lock().entries.values().filter(|stored| stored.is_live()).count()
    }
}

impl State {
    fn answer(&mut self, request: Request, sender: oneshot::Sender<Outcome>) {
        let outcome = match self.fault.as_ref().and_then(|fault| fault(&request)) {
            Some(Fate::Stops) => return,
            Some(Fate::Fails(failure)) => Err(failure),
            None => Ok(self.apply(request.operation)),
        };
        // A connection that is gone does not listen.
        let _ = sender.send(outcome);
    }

    fn stamp(&mut self) -> Stamp {
        self.counter += 1;
        let actor = Actor { node: node(1), incarnation: Incarnation(4) };
        Stamp { timestamp: self.clock.tick(ambient::wall()), dot: Dot { actor, counter: Counter(self.counter) } }
    }

    fn place(key: &Key) -> (NamespaceId, Token, Bytes) {
        (key.namespace(), key.token(), key.bytes().clone())
    }

    fn find(&self, key: &Key) -> Option<&Stored> {
        self.entries.get(&State::place(key)).filter(|stored| stored.is_live())
    }

    fn apply(&mut self, operation: Operation) -> Response {
        let partitions = PartitionCount::new(16).expect("a power of two");
        match operation {
            Operation::Get { key } => Response::Read(self.find(&key).map(Stored::read)),
            Operation::Head { key } => Response::Head(self.find(&key).map(Stored::summary)),
            Operation::Put { key, value, expiry } => {
                let stamp = self.stamp();
                let expires_at = match expiry {
                    Expiry::Never => None,
                    Expiry::At(at) => Some(at),
                    Expiry::Keep => self.find(&key).and_then(|stored| stored.expires_at),
                };
                self.entries.insert(State::place(&key), Stored { value, stamp, expires_at });
                Response::Written(WriteReply { stamp, acknowledged: self.acknowledged })
            }
            Operation::Delete { key } => {
                let stamp = self.stamp();
                self.entries.remove(&State::place(&key));
                Response::Written(WriteReply { stamp, acknowledged: self.acknowledged })
            }
            Operation::SetExpiry { key, expiry } => {
                let found = self.find(&key).map(Stored::read);
                let stamp = self.stamp();
                if found.is_some() {
                    let stored = self.entries.get_mut(&State::place(&key)).expect("it was just found");
                    stored.stamp = stamp;
                    match expiry {
                        Expiry::Never => stored.expires_at = None,
                        Expiry::At(at) => stored.expires_at = Some(at),
                        Expiry::Keep => {}
                    }
                }
                Response::Read(found)
            }
            Operation::Scan { namespace, from, limit } => {
                let partition = partitions.partition_of(from);
                let last = partitions.last_token(partition);
                let mut entries: Vec<ScanEntry> = Vec::new();
                let mut next = last.next();
                let mut previous = None;
                let all = self.entries.range((namespace, from, Bytes::new())..);
                for ((space, token, key), stored) in all {
                    if *space != namespace || *token > last {
                        break;
                    }
                    if entries.len() >= limit as usize && previous != Some(*token) {
                        next = Some(*token);
                        break;
                    }
                    if stored.is_live() {
                        entries.push(ScanEntry { key: key.clone(), summary: stored.summary() });
                    }
                    previous = Some(*token);
                }
                Response::Page(ScanPage { entries, next })
            }
            Operation::Confirm { replicas, .. } => {
                Response::Confirmed(self.confirmed.min(replicas.max(self.confirmed)))
            }
            Operation::Truncate { namespace, at } => {
                let partition = partitions.partition_of(at);
                self.entries
                    .retain(|(space, token, _), _| *space != namespace || partitions.partition_of(*token) != partition);
                let stamp = self.stamp();
                Response::Written(WriteReply { stamp, acknowledged: self.acknowledged })
            }
            Operation::Count { namespace } => {
                let own = self.entries.iter().filter(|((space, ..), _)| *space == namespace);
                Response::Count(own.filter(|(_, stored)| stored.is_live()).count() as u64)
            }
        }
    }
}

impl Backend for Fake {
    fn submit(&self, request: Request) -> oneshot::Receiver<Outcome> {
        let (sender, receiver) = oneshot::channel();
        let mut state = self.lock();
        if state.logging {
            state.log.push(request.clone());
        }
        if state.mode == Mode::AtOnce {
            state.answer(request, sender);
        } else {
            state.held.push_back((request, sender));
            self.arrived.notify_all();
        }
        receiver
    }

    fn status(&self) -> NodeStatus {
        let state = self.lock();
        let peers = [(2, true), (3, false)].map(|(number, connected)| PeerStatus {
            id: node(number),
            address: SocketAddr::from(([127, 0, 0, 1], 9378 + number as u16)),
            connected,
            incarnation: connected.then_some(Incarnation(9)),
        });
        NodeStatus {
            id: node(1),
            incarnation: Incarnation(4),
            epoch: Epoch(1),
            version: "0.1.0".to_owned(),
            ready: state.ready,
            partitions_without_quorum: if state.ready { 0 } else { 5 },
            live_keys: state.entries.len() as u64,
            disk_bytes: 4096,
            uptime_s: 12,
            peers: peers.to_vec(),
        }
    }

    fn map(&self) -> Arc<ClusterMap> {
        Arc::clone(&self.map)
    }

    fn max_value_bytes(&self) -> usize {
        self.max_value_bytes
    }

    fn samples(&self) -> Vec<Sample> {
        vec![Sample {
            name: "commits",
            help: "Group commits",
            kind: SampleKind::Counter,
            labels: Vec::new(),
            value: 3.0,
        }]
    }
}
