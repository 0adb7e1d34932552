//! A store in one process that answers as a node does: what the front ends are tested against.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use dogsled::ambient;
use dogsled::node::{MemberStatus, MembersStatus, NodeStatus, PeerStatus, Relation, Sample, SampleKind};
use dogsled::server::Backend;
use dogsled::types::{
    Actor, Assignment, CausalContext, ClusterId, ClusterMap, CommitNumber, Counter, Coverage, Dot, Epoch, Expiry,
    Failure, Health, HybridClock, Incarnation, Key, KeyHistory, Life, Load, LocalHistory, LogPosition, Member,
    MergePolicy, Namespace, NamespaceId, NodeId, OpId, Operation, Outcome, PartitionCount, PathEvent, PathStep,
    ReadReply, Record, Refusal, ReplicaHistory, Request, RequestPath, Response, ScanEntry, ScanPage, Sibling, Stamp,
    Summary, Timestamp, Token, WallTime, WriteReply, Zone, limits,
};
use tokio::sync::oneshot;

#[derive(Clone)]
struct Stored {
    value: Bytes,
    stamp: Stamp,
    expires_at: Option<WallTime>,
}

/// What is held of a key: one value, or several where siblings are kept.
#[derive(Default)]
struct Entry {
    /// Oldest first.
    values: Vec<Stored>,
    /// Empty where the last write wins.
    context: CausalContext,
}

impl Entry {
    fn newest(&self) -> Option<&Stored> {
        self.values.iter().rev().find(|stored| stored.is_live())
    }

    fn read(&self) -> Option<ReadReply> {
        let mut live: Vec<_> = self.values.iter().rev().filter(|stored| stored.is_live()).cloned().collect();
        if live.is_empty() {
            return None;
        }
        let Stored { value, stamp, expires_at } = live.remove(0);
        let sibling = |Stored { value, stamp, expires_at }| Sibling { value, stamp, expires_at };
        let siblings = live.into_iter().map(sibling).collect();
        Some(ReadReply { value, stamp, expires_at, siblings, context: self.context.clone() })
    }
}

impl Stored {
    fn is_live(&self) -> bool {
        self.expires_at.is_none_or(|at| at > ambient::wall())
    }

    fn summary(&self) -> Summary {
        Summary { stamp: self.stamp, expires_at: self.expires_at, value_bytes: Some(self.value.len() as u32) }
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
    entries: BTreeMap<(NamespaceId, Token, Bytes), Entry>,
    /// What the op-ids that were seen stand for; none for one that was fenced.
    operations: BTreeMap<OpId, Option<WriteReply>>,
    map: Arc<ClusterMap>,
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
    let spaces = [(0, "default", MergePolicy::Lww), (1, "other", MergePolicy::Lww), (2, "both", MergePolicy::Siblings)];
    let namespaces = spaces.map(|(id, name, policy)| {
        let id = NamespaceId(id);
        (id, Namespace { id, name: name.into(), policy })
    });
    let partitions = PartitionCount::new(16).expect("a power of two");
    let assignment =
        partitions.all().map(|partition| (0..3).map(|place| node((u32::from(partition.0) + place) % 3 + 1)).collect());
    ClusterMap {
        cluster: ClusterId([7; 16]),
        epoch: Epoch(1),
        partitions,
        replication_factor: 3,
        members: members.collect(),
        next_namespace: 3,
        namespaces: namespaces.into_iter().collect(),
        assignment: Assignment(assignment.collect()),
    }
}

impl Fake {
    pub fn new() -> Arc<Fake> {
        Fake::with_max_value(limits::DEFAULT_MAX_VALUE_BYTES)
    }

    pub fn with_max_value(max_value_bytes: usize) -> Arc<Fake> {
        let map = Arc::new(map());
        let state = State {
            entries: BTreeMap::new(),
            operations: BTreeMap::new(),
            map: Arc::clone(&map),
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
        Arc::new(Fake { state: Mutex::new(state), arrived: Condvar::new(), map, max_value_bytes })
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
        self.lock().entries.values().filter(|entry| entry.newest().is_some()).count()
    }
}

impl State {
    fn answer(&mut self, request: Request, sender: oneshot::Sender<Outcome>) {
        let outcome = match self.fault.as_ref().and_then(|fault| fault(&request)) {
            Some(Fate::Stops) => return,
            Some(Fate::Fails(failure)) => Err(failure),
            None => self.carry_out(request),
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
        self.entries.get(&State::place(key))?.newest()
    }

    fn read(&self, key: &Key) -> Option<ReadReply> {
        self.entries.get(&State::place(key))?.read()
    }

    fn keeps_siblings(&self, key: &Key) -> bool {
        self.map.policy(key.namespace()) == MergePolicy::Siblings
    }

    fn carry_out(&mut self, request: Request) -> Outcome {
        let Request { operation, op_id, explain, .. } = request;
        let refuse = |refusal| Err(Failure::NotApplied(refusal));
        if let Operation::Put { key, context, .. } | Operation::Delete { key, context } = &operation
            && !context.is_empty()
            && !self.keeps_siblings(key)
        {
            return refuse(Refusal::Invalid("a context goes with a namespace that keeps siblings".into()));
        }
        let key = operation.key().cloned();
        let response = match (op_id.and_then(|op| self.operations.get(&op)), &operation) {
            (Some(Some(first)), _) => Response::Written(*first),
            (Some(None), _) => return refuse(Refusal::Fenced),
            (None, Operation::Resolve { op, .. }) => match self.operations.entry(*op).or_insert(None) {
                Some(first) => Response::Written(*first),
                None => return refuse(Refusal::Fenced),
            },
            (None, _) => self.apply(operation),
        };
        if let (Some(op), Response::Written(reply)) = (op_id, &response) {
            self.operations.insert(op, Some(*reply));
        }
        let Some(key) = key.filter(|_| explain) else { return Ok(response) };
        let partition = self.map.partition_of(&key);
        let replicas = self.map.assignment.replicas(partition).to_vec();
        let step = |after_us, number, event| PathStep { after_us, node: node(number), event };
        let steps = vec![
            step(1, 1, PathEvent::AskedValue),
            step(2, 2, PathEvent::AskedVersions),
            step(30, 2, PathEvent::Failed("it has gone".into())),
            step(40, 2, PathEvent::Late),
            step(50, 3, PathEvent::Answered(None)),
            step(60, 3, PathEvent::Repaired),
        ];
        let path = RequestPath { coordinator: node(1), epoch: Epoch(1), partition, replicas, needed: 2, steps };
        Ok(Response::Explained(Box::new(response), path))
    }

    fn write(&mut self, key: &Key, value: Option<(Bytes, Option<WallTime>)>, seen: &CausalContext) -> Response {
        let stamp = self.stamp();
        let siblings = self.keeps_siblings(key);
        let entry = self.entries.entry(State::place(key)).or_default();
        entry.values.retain(|stored| siblings && !seen.covers(stored.stamp.dot));
        if siblings {
            entry.context.join(seen);
            entry.context.insert(stamp.dot);
        }
        entry.values.extend(value.map(|(value, expires_at)| Stored { value, stamp, expires_at }));
        if entry.values.is_empty() {
            self.entries.remove(&State::place(key));
        }
        Response::Written(WriteReply { stamp, acknowledged: self.acknowledged })
    }

    fn history(&self, key: &Key) -> KeyHistory {
        let partition = self.map.partition_of(key);
        let digest = self.find(key).map(|stored| Record::Last(stored.summary()));
        let stamp = self.find(key).map(|stored| stored.stamp);
        let known = || LocalHistory {
            digest: digest.clone(),
            log: stamp.iter().map(|stamp| LogPosition { commit: CommitNumber(5), stamp: *stamp }).collect(),
            more: true,
            coverage: Coverage {
                partition,
                vector: stamp.iter().map(|stamp| stamp.dot).collect(),
                horizon: Timestamp::default(),
            },
            commit: CommitNumber(9),
        };
        let replicas = self.map.assignment.replicas(partition).iter();
        let replicas = replicas.map(|id| ReplicaHistory { node: *id, known: (*id != node(3)).then(known) });
        KeyHistory { partition, token: key.token(), epoch: Epoch(1), replicas: replicas.collect() }
    }

    fn apply(&mut self, operation: Operation) -> Response {
        let partitions = PartitionCount::new(16).expect("a power of two");
        match operation {
            Operation::Get { key } => Response::Read(self.read(&key)),
            Operation::Head { key } => Response::Head(self.find(&key).map(Stored::summary)),
            Operation::History { key } => Response::History(self.history(&key)),
            Operation::Resolve { .. } => unreachable!("it was answered before"),
            Operation::Put { key, value, expiry, context } => {
                let expires_at = match expiry {
                    Expiry::Never => None,
                    Expiry::At(at) => Some(at),
                    Expiry::Keep => self.find(&key).and_then(|stored| stored.expires_at),
                };
                self.write(&key, Some((value, expires_at)), &context)
            }
            Operation::Delete { key, context } => self.write(&key, None, &context),
            Operation::SetExpiry { key, expiry } => {
                let found = self.read(&key);
                let stamp = self.stamp();
                if found.is_some() {
                    let entry = self.entries.get_mut(&State::place(&key)).expect("it was just found");
                    let stored = entry.values.last_mut().expect("it was just found");
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
                for ((space, token, key), entry) in all {
                    if *space != namespace || *token > last {
                        break;
                    }
                    if entries.len() >= limit as usize && previous != Some(*token) {
                        next = Some(*token);
                        break;
                    }
                    if let Some(stored) = entry.newest() {
                        entries.push(ScanEntry { key: key.clone(), digest: Record::Last(stored.summary()) });
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
                Response::Count(own.filter(|(_, entry)| entry.newest().is_some()).count() as u64)
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

    fn members(&self) -> MembersStatus {
        let member = |number: u32, relation, health, connected: bool| MemberStatus {
            id: node(number),
            zone: "local".into(),
            relation,
            health,
            own: (relation == Relation::Active).then_some(health),
            observers: if health == Health::Down { [0, 1, 2] } else { [0; 3] },
            life: connected.then(|| Life::begun(Incarnation(9))),
            connected,
            load: Load::Normal,
            round_trip_us: connected.then_some(300),
            strikes: 0,
            p95_us: connected.then_some(700),
            missed_of_1000: 0,
            slow: false,
        };
        let counters = dogsled::protocol::membership::MembershipCounters { probes: 21, ..Default::default() };
        MembersStatus {
            node: Some(node(1)),
            life: Life::begun(Incarnation(4)),
            ill_health: 1,
            k_list: 2,
            active_most: 1,
            known: 1,
            members: vec![
                member(2, Relation::Active, Health::Alive, true),
                member(3, Relation::Other, Health::Down, false),
            ],
            counters,
            datagrams_ignored: 5,
            gossip_ignored: 6,
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
