//! The world: hosts, the network between them, clients, and what happens to them all.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use rand::Rng;

use crate::protocol::membership::MembershipTimes;
use crate::protocol::{Action, Input, LocalRead, LocalReadResult, Node, NodeSettings, StorageTicket, ring};
use crate::storage::memory::DiskImage;
use crate::storage::{Storage, StorageError};
use crate::types::{
    Actor, ClusterId, ClusterMap, Epoch, Key, Member, MergePolicy, Moment, Mutation, Namespace, NamespaceId, NodeId,
    Outcome, Zone, limits,
};
use crate::wire::{self, Datagram, Envelope, Message, ReplicaRequest, Statistics};

use super::clients::{Client, Seen};
use super::history::{Check, History};
use super::host::{Host, Letter, keys_of};
use super::network::Network;
use super::operation::Stage;
use super::plan::Plan;
use super::report::SimReport;
use super::schedule::{Event, HostEvent, HostIndex, Schedule};
use super::trace::Trace;
use super::{MAX_CLOCK_SKEW, SimOptions};

/// How long requests are made after the faults are over and mended.
const LIVE: Duration = Duration::from_secs(2);
/// How long the end takes at least.
const REST: Duration = Duration::from_secs(4);
/// For how long op-ids are recognised.
const OP_ID_HORIZON: Duration = Duration::from_secs(120);
/// The namespace whose keys keep concurrent values.
const SIBLINGS: NamespaceId = NamespaceId(1);

pub(super) struct World {
    pub(super) plan: Plan,
    /// The plan as it was drawn, for people.
    pub(super) drawn: String,
    pub(super) schedule: Schedule,
    pub(super) network: Network,
    pub(super) hosts: Vec<Host>,
    pub(super) clients: Vec<Client>,
    pub(super) history: History,
    pub(super) report: SimReport,
    pub(super) healed: bool,
    pub(super) stage: Stage,
    /// How many replicas a key has.
    pub(super) replicas: usize,
    pub(super) newest_epoch: Epoch,
    pub(super) next_operation: u64,
    /// Writes with op-ids that are to be sent again.
    pub(super) open_named: Vec<usize>,
    /// What a disk held some time ago, to be put back.
    pub(super) image: Option<(HostIndex, DiskImage)>,
    /// Whose disk went back in time.
    pub(super) went_back: Option<HostIndex>,
    /// When the run is over.
    end: Moment,
    trace: Trace,
}

fn first_map(plan: &Plan, seed: u64) -> ClusterMap {
    let member = |index: usize| {
        let id = NodeId::new(u32::try_from(index + 1).expect("there are few hosts")).expect("numbers begin at 1");
        let zone = Zone(format!("z{}", index % plan.zones));
        (id, Member { id, peer_address: ([127, 0, 0, 1], 9379).into(), zone, weight: 1 })
    };
    let members: BTreeMap<NodeId, Member> = (0..plan.nodes).map(member).collect();
    let assignment = ring::place(None, &members, plan.replication_factor, plan.partitions);
    let default = Namespace::default_namespace();
    let siblings = Namespace { id: SIBLINGS, name: "siblings".into(), policy: MergePolicy::Siblings };
    let mut cluster = [0; 16];
    cluster[..8].copy_from_slice(&seed.to_le_bytes());
    ClusterMap {
        cluster: ClusterId(cluster),
        epoch: Epoch(1),
        partitions: plan.partitions,
        replication_factor: plan.replication_factor,
        members,
        next_namespace: 2,
        namespaces: [(default.id, default), (SIBLINGS, siblings)].into(),
        assignment,
    }
}

impl World {
    pub(super) fn new(options: &SimOptions, with_log: bool) -> World {
        let mut schedule = Schedule::new(options.seed);
        let plan = Plan::draw(options, &mut schedule);
        let map = first_map(&plan, options.seed);
        map.validate().expect("the first map is valid");
        let key = |index: usize| {
            let namespace = if index < plan.sibling_keys { SIBLINGS } else { NamespaceId::DEFAULT };
            Key::new(namespace, Bytes::from(format!("key-{index}"))).expect("it is short")
        };
        let drift = plan.drift_ppm;
        let hosts =
            (0..plan.nodes).map(|index| Host::new(index, map.clone(), schedule.rng.random_range(-drift..=drift)));
        let hosts: Vec<Host> = hosts.collect();
        let client = |_| Client { session: schedule.chance(plan.sessions).then(Seen::default), ..Client::default() };
        let clients = (0..plan.clients).map(client).collect();
        let mut world = World {
            network: Network::new(&plan),
            hosts,
            clients,
            history: History::new((0..plan.keys).map(key).collect(), with_log),
            report: SimReport::new(options, plan.nodes),
            healed: false,
            stage: Stage::Faults,
            replicas: plan.nodes.min(usize::from(plan.replication_factor)),
            newest_epoch: map.epoch,
            next_operation: 0,
            open_named: Vec::new(),
            image: None,
            went_back: None,
            end: Moment(0),
            trace: Trace::new(),
            schedule,
            drawn: plan.to_string(),
            plan,
        };
        world.begin(options.time);
        world
    }

    fn begin(&mut self, time: Duration) {
        for host in 0..self.hosts.len() {
            self.set_clock(host, false);
            self.start(host);
        }
        for client in 0..self.clients.len() {
            let pause = self.schedule.around(self.plan.think);
            self.schedule.after(pause, Event::Ask { client });
        }
        self.unleash();
        // Connections have to be given up on both ends and made anew, requests of before to
        // end, and clocks that were ahead to be caught up with.
        let settling = self.plan.idle_timeout * 2
            + self.plan.request_timeout * 2
            + self.plan.sync_interval * 4
            + Duration::from_secs(2);
        self.schedule.after(time, Event::Heal);
        self.schedule.after(time + settling, Event::Live);
        self.schedule.after(time + settling + LIVE, Event::LastReads);
        let rest = REST + (self.plan.sync_interval + self.plan.collect_interval) * 8;
        self.schedule.after(time + settling + LIVE + rest, Event::End);
        self.end = self.schedule.now.plus(time + settling + LIVE + rest);
    }

    /// Runs until the end.
    pub(super) fn run(&mut self) {
        while let Some(event) = self.schedule.next() {
            self.report.events += 1;
            self.trace.word(self.schedule.now.0);
            if let Event::End = event {
                break;
            }
            self.happen(event);
        }
        for host in 0..self.hosts.len() {
            let hanging = self.hosts[host].machine.as_ref().map_or(0, Node::requests_under_way);
            if hanging > 0 {
                let what = format!("{hanging} requests are left hanging on n{}", host + 1);
                self.history.violated(Check::Liveness, self.schedule.now, None, what);
            }
        }
        self.check_convergence();
        self.report.simulated_ms = self.schedule.now.0 / 1_000;
        self.report.frames = self.network.frames;
        self.trace.word(self.schedule.scheduled());
        self.report.trace = format!("{:016x}", self.trace.value());
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Frame { generation, from, to, frame } => {
                if self.network.receives(generation, from, to) {
                    self.trace.bytes(&frame);
                    let envelope = wire::decode(&frame).expect("what was encoded can be decoded");
                    let from = self.hosts[from].id;
                    self.deliver(to, Letter::Input(Input::Message { from, envelope }));
                }
            }
            Event::Datagram { generation, from, to, content } => {
                if self.network.receives(generation, from, to) {
                    self.trace.bytes(&content);
                    let datagram = Datagram::decode(&content).expect("what was encoded can be decoded");
                    let from = self.hosts[from].id;
                    self.deliver(to, Letter::Input(Input::Datagram { from, datagram }));
                }
            }
            Event::Unreachable { end, peer } => {
                let peer = self.hosts[peer].id;
                self.deliver(end, Letter::Input(Input::Unreachable { peer }));
            }
            Event::Dial { a, b } => {
                let (life_a, life_b) = (self.hosts[a].answering(), self.hosts[b].answering());
                self.network.dial(&mut self.schedule, (a, life_a), (b, life_b));
            }
            Event::Connected { generation, end, peer, incarnation } => {
                if self.network.connected(generation, end, peer) {
                    let peer = self.hosts[peer].id;
                    self.deliver(end, Letter::Input(Input::PeerUp { peer, incarnation }));
                }
            }
            Event::Disconnected { generation, end, peer } => {
                if self.network.disconnected(generation, end, peer) {
                    let peer = self.hosts[peer].id;
                    self.deliver(end, Letter::Input(Input::PeerDown { peer, parted: false }));
                }
            }
            Event::Silent { from, to, since } => self.network.silent(&mut self.schedule, from, to, since),
            Event::Host { host, life, what } => {
                if self.hosts[host].life == life {
                    self.deliver(host, Letter::Own(what));
                }
            }
            Event::Ask { client } => self.ask(client),
            Event::GiveUp { client, operation } => self.give_up(client, operation),
            Event::Fault(fault) => self.fault(fault),
            Event::Heal => self.heal(),
            Event::Live => self.stage = Stage::Live,
            Event::LastReads => self.last_reads(),
            Event::End => {}
        }
    }

    /// A process starts, in a new life.
    pub(super) fn start(&mut self, index: HostIndex) {
        let now = self.schedule.now;
        let host = &mut self.hosts[index];
        if host.fenced {
            return;
        }
        host.life += 1;
        host.incarnation = host.incarnation.next();
        host.clock.boot(now);
        let recovered = host.storage.recovered();
        let settings = NodeSettings {
            actor: Actor { node: host.id, incarnation: host.incarnation },
            request_timeout: self.plan.request_timeout,
            max_clock_skew: MAX_CLOCK_SKEW,
            hedge_after: self.plan.hedge_after,
            max_value_bytes: limits::DEFAULT_MAX_VALUE_BYTES,
            op_id_horizon: OP_ID_HORIZON,
            sync_interval: self.plan.sync_interval,
            collect_interval: self.plan.collect_interval,
            k_list: self.plan.k_list,
            membership: MembershipTimes::default(),
            seed: self.report.seed ^ host.incarnation.0.rotate_left(32) ^ index as u64,
            store: recovered.store,
            recovered_commit: recovered.commit,
            recovered_clock: recovered.clock,
            remembered: recovered.peers,
        };
        host.machine = Some(Node::new(host.clock.now(now).moment, host.map.clone(), settings));
        self.wind_timer(index);
        let host = &mut self.hosts[index];
        let incarnation = host.incarnation;
        self.history.note(None, now, || format!("n{} starts its life {incarnation}", index + 1));
    }

    /// A process dies, and its disk keeps what was synced and some of the rest.
    pub(super) fn crash(&mut self, index: HostIndex) {
        let covered = self.covered(index);
        let host = &mut self.hosts[index];
        let unsynced = host.storage.unsynced();
        let keep = self.schedule.rng.random_range(0..=unsynced);
        host.storage.crash(keep);
        // What is still there has reached the disk, told or not.
        host.note_durable(self.history.keys.iter().map(|known| &known.key));
        host.life += 1;
        host.machine = None;
        host.waiting = Vec::new();
        host.group = Vec::new();
        host.committing = false;
        host.paused = false;
        host.backlog = VecDeque::new();
        host.tick_at = None;
        self.history.note(None, self.schedule.now, || {
            format!("n{} dies; its disk keeps {keep} of {unsynced} unsynced steps", index + 1)
        });
        self.check_crash(index, &covered);
        self.network.host_died(&mut self.schedule, index);
        self.lose_answers(index);
    }

    /// The disk of a host that is down is put back to what it was.
    pub(super) fn put_back(&mut self, index: HostIndex, image: &DiskImage) {
        self.went_back = Some(index);
        let host = &mut self.hosts[index];
        host.storage.restore(image);
        host.durable.clear();
        host.durable_siblings.clear();
        host.note_durable(self.history.keys.iter().map(|known| &known.key));
        self.history.note(None, self.schedule.now, || format!("the disk of n{} goes back in time", index + 1));
        // What only this disk had of a quorum is not promised any more.
        for known in &mut self.history.keys {
            let replicas = self.hosts[0].map.replicas_of(&known.key);
            let replicas: Vec<&Host> = self.hosts.iter().filter(|host| replicas.contains(&host.id)).collect();
            let key = &known.key;
            known.floors.recount(|stamp| replicas.iter().filter(|host| host.durable.get(key) >= Some(&stamp)).count());
            let Some(siblings) = &mut known.siblings else { continue };
            siblings.recount(self.schedule.now, |dot| {
                let there = replicas.iter().filter(|host| host.knows(key, dot));
                let gone = there.clone().filter(|host| host.has_let_go(key, dot));
                (there.count(), gone.count())
            });
        }
        self.history.named_are_unsure();
        self.open_named.clear();
        for client in &mut self.clients {
            client.session = client.session.as_ref().map(|_| Seen::default());
            if let Some(asking) = &mut client.asking {
                asking.floors = Default::default();
                asking.all_floors.iter_mut().for_each(|floors| *floors = Default::default());
                asking.noted.clear();
            }
        }
    }

    /// A process that stood still takes in what has come meanwhile.
    pub(super) fn resume(&mut self, index: HostIndex) {
        if !std::mem::take(&mut self.hosts[index].paused) {
            return;
        }
        self.history.note(None, self.schedule.now, || format!("n{} goes on", index + 1));
        for letter in std::mem::take(&mut self.hosts[index].backlog) {
            self.deliver(index, letter);
        }
    }

    /// Something reaches a host.
    pub(super) fn deliver(&mut self, index: HostIndex, letter: Letter) {
        let host = &mut self.hosts[index];
        if host.machine.is_none() {
            return;
        }
        if host.paused {
            return host.backlog.push_back(letter);
        }
        match letter {
            Letter::Input(input) => self.feed(index, input),
            Letter::Own(HostEvent::Tick) => self.tick(index),
            Letter::Own(HostEvent::Commit) => self.commit(index),
            Letter::Own(HostEvent::Synced) => self.synced(index),
            Letter::Own(HostEvent::Fetch { ticket, read }) => {
                let result = self.fetch(index, read).expect("the model of a store does not fail");
                self.feed(index, Input::Fetched { ticket, result });
            }
        }
    }

    /// The machine takes an input and what it says is done, in its order.
    fn feed(&mut self, index: HostIndex, input: Input) {
        let mut inputs = VecDeque::from([input]);
        let mut actions = Vec::new();
        while let Some(input) = inputs.pop_front() {
            let host = &mut self.hosts[index];
            let now = host.clock.now(self.schedule.now);
            let Some(machine) = &mut host.machine else { return };
            machine.handle(now, input, &mut actions);
            machine.check_invariants();
            for action in actions.drain(..) {
                self.carry_out(index, action, &mut inputs);
            }
        }
        self.wind_timer(index);
    }

    fn carry_out(&mut self, index: HostIndex, action: Action, inputs: &mut VecDeque<Input>) {
        match action {
            Action::Send { to, envelope } => self.send(index, to, envelope, inputs),
            Action::Append { ticket, mutation } => {
                if self.refuses() {
                    return inputs.push_back(Input::StorageRefused { ticket });
                }
                self.observe_append(index, &mutation);
                let host = &mut self.hosts[index];
                host.waiting.push((ticket, mutation));
                if !std::mem::replace(&mut host.committing, true) {
                    self.later(index, Duration::from_micros(10), HostEvent::Commit);
                }
            }
            Action::Fetch { ticket, read } => {
                if self.refuses() {
                    return inputs.push_back(Input::StorageRefused { ticket });
                }
                let takes = self.schedule.around(Duration::from_micros(50));
                self.later(index, takes, HostEvent::Fetch { ticket, read });
            }
            Action::Reply { token, outcome } => {
                self.trace_outcome(token.0, &outcome);
                self.reply(token, &outcome);
            }
            Action::SendDatagram { to, datagram } => {
                let to = to.number() as usize - 1;
                self.network.send_datagram(&mut self.schedule, index, to, Bytes::from(datagram.encode()));
            }
            Action::KeepConnected(members) => {
                let wanted = members.iter().map(|peer| peer.number() as usize - 1).collect();
                self.network.keep(&mut self.schedule, index, wanted);
            }
            Action::MemberChanged(change) => {
                self.history.note(None, self.schedule.now, || format!("n{} hears {change:?}", index + 1));
            }
            Action::InstallMap(map) => {
                let (now, epoch) = (self.schedule.now, map.epoch);
                self.history.note(None, now, || format!("n{} lives by the map of epoch {epoch}", index + 1));
                self.hosts[index].map = map;
            }
            Action::Fence { by, remembered } => {
                let what = format!("n{} is fenced by {by}, which remembers {remembered:?}", index + 1);
                self.history.note(None, self.schedule.now, || what.clone());
                if self.went_back != Some(index) {
                    self.history.violated(Check::Liveness, self.schedule.now, None, what);
                }
                self.report.fenced += 1;
                self.hosts[index].fenced = true;
                self.crash(index);
            }
        }
    }

    fn refuses(&mut self) -> bool {
        self.plan.refusals > 0.0 && self.schedule.chance(self.plan.refusals)
    }

    fn later(&mut self, host: HostIndex, delay: Duration, what: HostEvent) {
        let life = self.hosts[host].life;
        self.schedule.after(delay, Event::Host { host, life, what });
    }

    fn trace_outcome(&mut self, token: u64, outcome: &Outcome) {
        self.trace.word(token);
        let bytes = postcard::to_stdvec(outcome).expect("our own types serialize into memory");
        self.trace.bytes(&bytes);
    }

    fn send(&mut self, index: HostIndex, to: Vec<NodeId>, envelope: Envelope, inputs: &mut VecDeque<Input>) {
        if let Message::Request { request, .. } = &envelope.message {
            let host = &self.hosts[index];
            let by = Actor { node: host.id, incarnation: host.incarnation };
            match request {
                ReplicaRequest::Apply { key, record } => {
                    let partition = host.map.partition_of(key);
                    self.history.issued(self.schedule.now, by, partition, key, record.versions());
                }
                ReplicaRequest::Claim { partition, op, claim, .. } => {
                    self.history.claims(self.schedule.now, by, *partition, (*op, claim));
                }
                ReplicaRequest::Truncate { partition, namespace, stamp } => {
                    let keys = self.keys_in(*partition, *namespace);
                    self.history.truncates(self.schedule.now, by, *partition, *namespace, *stamp, &keys);
                }
                ReplicaRequest::Coverage { changed, .. } => self.check_told(index, changed),
                _ => {}
            }
        }
        if let Message::Request { request: ReplicaRequest::FetchMap, .. } = &envelope.message {
            self.history.note(None, self.schedule.now, || format!("n{} asks {to:?} for a newer map", index + 1));
        }
        let frame = wire::encode(&envelope);
        for peer in to {
            let peer_index = peer.number() as usize - 1;
            assert_ne!(peer_index, index, "a node sends nothing to itself");
            if self.refuses() || !self.network.send(&mut self.schedule, index, peer_index, frame.clone()) {
                inputs.push_back(Input::SendFailed { to: peer, envelope: envelope.clone() });
            }
        }
    }

    fn observe_append(&mut self, index: HostIndex, mutation: &Mutation) {
        let host = &self.hosts[index];
        let by = Actor { node: host.id, incarnation: host.incarnation };
        match mutation {
            Mutation::Record { partition, key, record } => {
                self.history.issued(self.schedule.now, by, *partition, key, record.versions());
            }
            Mutation::Claim { partition, op, claim, .. } => {
                self.history.claims(self.schedule.now, by, *partition, (*op, claim));
            }
            Mutation::Truncate { partition, namespace, stamp } => {
                let keys = self.keys_in(*partition, *namespace);
                self.history.truncates(self.schedule.now, by, *partition, *namespace, *stamp, &keys);
            }
            _ => {}
        }
    }

    fn wind_timer(&mut self, index: HostIndex) {
        let host = &mut self.hosts[index];
        let Some(due) = host.machine.as_ref().and_then(Node::next_timeout) else { return };
        let when = host.clock.when(due, self.schedule.now);
        if host.tick_at.is_none_or(|at| when < at) {
            host.tick_at = Some(when);
            let life = host.life;
            self.schedule.at(when, Event::Host { host: index, life, what: HostEvent::Tick });
        }
    }

    fn tick(&mut self, index: HostIndex) {
        let host = &mut self.hosts[index];
        host.tick_at = None;
        let now = host.clock.now(self.schedule.now).moment;
        let due = host.machine.as_ref().and_then(Node::next_timeout).is_some_and(|due| due <= now);
        match due {
            true => self.feed(index, Input::Tick),
            false => self.wind_timer(index),
        }
    }

    /// The committer takes what is waiting, applies it, and begins to sync.
    fn commit(&mut self, index: HostIndex) {
        let stalled = self.plan.stalls > 0.0 && self.schedule.chance(self.plan.stalls);
        let takes = self.schedule.around(self.plan.sync) * if stalled { 100 } else { 1 };
        let now = self.schedule.now;
        let host = &mut self.hosts[index];
        let length = host.waiting.len().min(limits::COMMIT_GROUP_MUTATIONS);
        let (tickets, mutations): (Vec<StorageTicket>, Vec<Mutation>) = host.waiting.drain(..length).unzip();
        let clock = host.machine.as_ref().expect("it is alive").clock();
        let applied = host.storage.apply(&mutations, clock).expect("the model of a store does not fail");
        let by = Actor { node: host.id, incarnation: host.incarnation };
        for ((ticket, mutation), applied) in tickets.into_iter().zip(mutations).zip(applied) {
            self.history.applied(now, by, &mutation, &applied);
            host.group.push((ticket, mutation, applied));
        }
        self.report.commits += 1;
        self.report.mutations += length as u64;
        self.later(index, takes, HostEvent::Synced);
    }

    /// The group is on the disk.
    fn synced(&mut self, index: HostIndex) {
        let host = &mut self.hosts[index];
        host.storage.sync().expect("the model of a store does not fail");
        let group = std::mem::take(&mut host.group);
        for (_, mutation, _) in &group {
            host.note_durable(keys_of(mutation).into_iter());
        }
        host.committing = !host.waiting.is_empty();
        if host.committing {
            self.later(index, Duration::ZERO, HostEvent::Commit);
        }
        for (ticket, _, applied) in group {
            self.feed(index, Input::Committed { ticket, applied });
        }
    }

    fn fetch(&self, index: HostIndex, read: LocalRead) -> Result<LocalReadResult, StorageError> {
        let host = &self.hosts[index];
        let partition = |key: &Key| host.map.partition_of(key);
        Ok(match read {
            LocalRead::Value { key, after } => {
                let behind = !host.storage.covers(partition(&key), &after);
                let held = host.storage.read(partition(&key), &key)?;
                LocalReadResult::Value { record: held.what, durable: held.durable, behind }
            }
            LocalRead::Head { key, after } => {
                let behind = !host.storage.covers(partition(&key), &after);
                let held = host.storage.head(partition(&key), &key)?;
                LocalReadResult::Head { digest: held.what, durable: held.durable, behind }
            }
            LocalRead::Coverage { since } => {
                let (commit, changed) = host.storage.coverage(since);
                LocalReadResult::Coverage { commit, changed }
            }
            LocalRead::Pull { partition, wanted } => LocalReadResult::Pulled(host.storage.pull(partition, &wanted)?),
            LocalRead::History(key) => LocalReadResult::History(host.storage.history(partition(&key), &key)?),
            LocalRead::Scan(range) => LocalReadResult::Scan(host.storage.scan(range)?),
            LocalRead::Statistics => LocalReadResult::Statistics(Statistics {
                live_keys: host.storage.live_keys(),
                disk_bytes: host.storage.disk_bytes(),
            }),
        })
    }
}
