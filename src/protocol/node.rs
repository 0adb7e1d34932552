//! The machine of one node: it joins the protocols and only routes.
//!
//! A client's request becomes a [`Coordination`] under a number; its questions go to
//! peers as messages and to this node's own store as orders, and the answers of both
//! come back to it alike. A peer's request becomes an order to the store, answered when
//! that is done ([`replica`]). Maps with a higher epoch are fetched and lived by.
//!
//! Invariants ([`Node::check_invariants`]): every request under way has one timer, no
//! later than its deadline; every order to the store has someone who waits for it.

mod replica;
mod epochs;
mod meeting;
mod sync;
mod locks;
mod ceiling;
mod explain;
mod members;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use crate::types::limits;
use crate::types::{
    ClusterMap, Failure, HybridClock, Incarnation, Load, Moment, NodeId, Now, Outcome, Refusal, Request, SeededBug,
    Timestamp,
};
use crate::wire::{Envelope, Message, ReplicaRequest, ReplicaResponse, RequestId};

use super::LONGEST_TIMEOUT;
use super::clock_watch::ClockWatch;
use super::io::{Action, Input, NodeSettings, RequestToken, StorageTicket};
use super::membership::{Membership, MembershipAction, MembershipInput, MembershipSettings, Roster};
use super::peers::PeerTable;
use super::repair::Repair;
use super::request::{Answer, Context, Coordination, DotCounters, Effect};

/// What a node has counted since it started.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct NodeCounters {
    /// Clients' requests that were coordinated here, forwarded ones included.
    pub coordinated: u64,
    /// Peers' requests that were served here as a replica.
    pub served: u64,
    /// Requests refused because too much was under way.
    pub overloaded: u64,
    /// Questions asked of a further replica because one was late.
    pub late_replicas: u64,
    /// Messages refused because their clock was too far ahead.
    pub clock_skew: u64,
    /// Requests refused because of their epoch.
    pub wrong_epoch: u64,
    /// Replicas that were sent by a read what they lacked.
    pub read_repairs: u64,
    /// Mutations that were fetched from peers because they were missing here.
    pub pulled: u64,
    /// Mutations that peers cover and know nothing of any more, although they were missing here.
    pub pulled_lost: u64,
    /// Mutations turned away because they were older than what was collected.
    pub behind: u64,
    /// Writes refused because this node's clock could not be trusted.
    pub clock_unsure: u64,
    /// Connections of peers whose stores knew less than is remembered of them.
    pub fenced_peers: u64,
}

/// The machine of one node.
#[derive(Debug)]
pub struct Node {
    map: ClusterMap,
    settings: NodeSettings,
    clock: HybridClock,
    watch: ClockWatch,
    /// Up to where timestamps may be given: so much is durable.
    ceiling: Timestamp,
    held: ceiling::Held,
    dots: DotCounters,
    peers: PeerTable,
    meetings: meeting::Meetings,
    /// Whether a peer remembers more of this node than its store knows.
    fenced: bool,
    /// Writes of peers that were refused lately.
    refused: replica::RecentMessages,
    /// Writes of peers that were taken lately.
    taken: replica::TakenWrites,
    /// Writes that peers have handed on to this node lately.
    forwarded: replica::RecentMessages,
    repair: Repair,
    apart: sync::Apart,
    locks: locks::Locks,
    next_number: u64,
    active: BTreeMap<u64, Active>,
    timers: BTreeSet<(Moment, u64)>,
    /// Orders to the store, and who waits for them.
    orders: BTreeMap<StorageTicket, replica::Served>,
    next_ticket: u64,
    epochs: epochs::Epochs,
    membership: Membership,
    /// Kept empty between steps.
    gossiped: Vec<MembershipAction>,
    links: members::Links,
    load: Load,
    counters: NodeCounters,
    /// Kept empty between steps, so that a step does not take memory anew.
    effects: Vec<Effect>,
}

#[derive(Debug)]
struct Active {
    origin: Origin,
    began: Moment,
    wake_at: Moment,
    coordination: Coordination,
    /// The way it takes, if that is to be told.
    path: Option<explain::Path>,
}

/// Who waits for the outcome.
#[derive(Clone, Copy, Debug)]
enum Origin {
    Client(RequestToken),
    Peer(NodeId, RequestId),
}

impl Node {
    /// A machine that lives by this map, knowing no peer yet.
    pub fn new(now: Moment, map: ClusterMap, mut settings: NodeSettings) -> Node {
        if SeededBug::DotReused.is_planted() {
            settings.actor.incarnation = Incarnation(1);
        }
        // An answer to an earlier life may still come over a new connection, so no two
        // lives share numbers: consecutive ones begin far apart (Fibonacci hashing).
        let far_apart = settings.actor.incarnation.0.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 9;
        let me = settings.actor.node;
        let membership = MembershipSettings {
            me,
            incarnation: settings.actor.incarnation,
            k_list: settings.k_list,
            seed: settings.seed,
            times: settings.membership,
        };
        Node {
            membership: Membership::new(now, membership, Arc::new(Roster::of(&map))),
            gossiped: Vec::new(),
            links: members::Links::new(&map, me),
            load: Load::default(),
            clock: HybridClock::new(settings.recovered_clock, settings.max_clock_skew),
            watch: ClockWatch::new(settings.max_clock_skew),
            ceiling: Timestamp::default(),
            held: ceiling::Held::default(),
            map,
            dots: DotCounters::default(),
            peers: PeerTable::default(),
            meetings: meeting::Meetings::new(settings.remembered.clone()),
            refused: replica::RecentMessages::default(),
            taken: replica::TakenWrites::default(),
            forwarded: replica::RecentMessages::default(),
            fenced: false,
            repair: Repair::new(settings.recovered_commit),
            apart: sync::Apart::new(far_apart),
            locks: locks::Locks::default(),
            next_number: far_apart,
            active: BTreeMap::new(),
            timers: BTreeSet::new(),
            orders: BTreeMap::new(),
            next_ticket: 0,
            epochs: epochs::Epochs::default(),
            counters: NodeCounters::default(),
            effects: Vec::new(),
            settings,
        }
    }

    /// Takes in what happened and appends what must be done, in order.
    pub fn handle(&mut self, now: Now, input: Input, actions: &mut Vec<Action>) {
        match input {
            Input::Request { token, request } => {
                let timeout = request.timeout.unwrap_or(self.settings.request_timeout);
                self.begin(now, Origin::Client(token), request, timeout, actions);
            }
            Input::Message { from, envelope } => self.hear(now, from, envelope, actions),
            Input::PeerUp { peer, incarnation } => {
                // What an earlier life was asked, it will not answer. A new connection to the
                // same life changes nothing: its answers still come.
                if self.peers.incarnation(peer).is_some_and(|earlier| earlier != incarnation) {
                    self.lose_peer(now, peer, actions);
                }
                self.peers.up(peer, incarnation);
                self.meetings.begin_anew(peer);
                self.reachable(peer);
                self.greet(now, peer, actions);
                self.gossip(now, MembershipInput::LinkUp { peer, incarnation }, actions);
            }
            Input::PeerDown { peer, parted } => {
                self.peers.down(peer);
                self.lose_peer(now, peer, actions);
                self.gossip(now, MembershipInput::LinkDown { peer, parted }, actions);
            }
            Input::Unreachable { peer } => self.unreachable(now, peer, actions),
            Input::Datagram { from, datagram } => {
                self.notice_epoch(now, from, datagram.epoch, actions);
                self.gossip(now, MembershipInput::Probe { from, probe: datagram.probe }, actions);
            }
            Input::Committed { ticket, applied } => self.committed(now, ticket, applied, actions),
            Input::Fetched { ticket, result } => self.fetched(now, ticket, result, actions),
            Input::StorageRefused { ticket } => self.storage_refused(now, ticket, actions),
            Input::SendFailed { to, envelope } => {
                if let Message::Request { id, .. } = envelope.message {
                    if sync::is_apart(id) && id != epochs::FETCH {
                        return self.apart_not_sent(id);
                    }
                    if id == epochs::FETCH {
                        // Whoever speaks next under a newer epoch is asked for its map.
                        self.epochs.lost(to);
                    }
                    self.answered(now, id, to, Answer::NotSent, actions);
                }
            }
            Input::Tick => self.tick(now, actions),
        }
    }

    /// When [`Input::Tick`] is due, if ever.
    pub fn next_timeout(&self) -> Option<Moment> {
        let round = self.round_due().min(self.held.first_deadline());
        let round = round.min(self.membership.next_timeout()).min(self.links.next_timeout());
        Some(self.timers.first().map_or(round, |(moment, _)| round.min(*moment)))
    }

    /// The map it lives by.
    pub fn map(&self) -> &ClusterMap {
        &self.map
    }

    /// What is to be kept with the next group commit: a timestamp above every one that it
    /// gives before the commit after that.
    pub fn clock(&self) -> Timestamp {
        self.clock.last().max(self.held.latest).plus(self.ceiling_lead())
    }

    /// The highest timestamp it gave or saw: what messages carry.
    pub fn clock_seen(&self) -> Timestamp {
        self.clock.last()
    }

    /// What it has seen of its peers.
    pub fn peers(&self) -> &PeerTable {
        &self.peers
    }

    /// Who is alive, as gossip has it.
    pub fn membership(&self) -> &Membership {
        &self.membership
    }

    /// What it has counted.
    pub fn counters(&self) -> NodeCounters {
        self.counters
    }

    /// How many requests are under way.
    pub fn requests_under_way(&self) -> usize {
        self.active.len()
    }

    /// How many partitions have no quorum of replicas that this node can reach.
    pub fn partitions_without_quorum(&self) -> u32 {
        let reachable = |node: &NodeId| self.can_reach(*node);
        let short = self.map.assignment.0.iter().filter(|replicas| {
            let alive = replicas.iter().filter(|node| reachable(node)).count();
            alive < replicas.len() / 2 + 1
        });
        u32::try_from(short.count()).expect("there are at most 65,536 partitions")
    }

    fn begin(&mut self, now: Now, origin: Origin, request: Request, timeout: Duration, actions: &mut Vec<Action>) {
        if self.fenced {
            let refusal = Refusal::NodeFenced("a peer remembers more of it than its store knows".into());
            return self.deliver(origin, Err(Failure::NotApplied(refusal)), actions);
        }
        if self.active.len() + self.held.len() + self.links.waiting() >= limits::REQUESTS_IN_FLIGHT {
            self.counters.overloaded += 1;
            let overloaded = Err(Failure::NotApplied(Refusal::Overloaded));
            return self.deliver(origin, overloaded, actions);
        }
        let deadline = now.moment.plus(timeout.min(LONGEST_TIMEOUT));
        self.begin_with_links(now, origin, request, deadline, actions);
    }

    /// Begins a request that has the connections that it needs, or cannot have them.
    fn begin_linked(
        &mut self,
        now: Now,
        origin: Origin,
        request: Request,
        deadline: Moment,
        actions: &mut Vec<Action>,
    ) {
        if request.operation.writes() && self.must_hold(now) {
            return self.hold(now, origin, request, deadline, actions);
        }
        self.begin_at_once(now, origin, request, deadline, actions);
    }

    fn begin_at_once(
        &mut self,
        now: Now,
        origin: Origin,
        request: Request,
        deadline: Moment,
        actions: &mut Vec<Action>,
    ) {
        self.counters.coordinated += 1;
        let number = self.next_number;
        self.next_number += 1;
        let forwarded = matches!(origin, Origin::Peer(..));
        let mut path = request.explain.then(|| explain::Path::new(now, &request, self));
        let begun = self.in_context(now, |context| Coordination::begin(request, deadline, forwarded, context));
        if let Some(coordination) = begun {
            if coordination.is_forwarded() {
                // Whoever coordinates it tells the way.
                path = None;
            }
            let wake_at = coordination.next_timeout();
            self.timers.insert((wake_at, number));
            self.active.insert(number, Active { origin, began: now.moment, wake_at, coordination, path });
        }
        self.carry_out(now, number, origin, actions);
    }

    /// Runs a step of a request; what it wants done is left in `effects`.
    fn in_context<T>(&mut self, now: Now, step: impl FnOnce(&mut Context<'_>) -> T) -> T {
        let mut context = Context {
            now,
            map: &self.map,
            settings: &self.settings,
            peers: &self.peers,
            clock: &mut self.clock,
            watch: &self.watch,
            ceiling: self.ceiling,
            dots: &mut self.dots,
            effects: &mut self.effects,
        };
        step(&mut context)
    }

    /// Runs a step of a request that is under way.
    fn step(
        &mut self,
        now: Now,
        number: u64,
        actions: &mut Vec<Action>,
        step: impl FnOnce(&mut Coordination, &mut Context<'_>),
    ) {
        let Some(mut active) = self.active.remove(&number) else { return };
        self.in_context(now, |context| step(&mut active.coordination, context));
        let origin = active.origin;
        let wake_at = active.coordination.next_timeout();
        if wake_at != active.wake_at {
            self.timers.remove(&(active.wake_at, number));
            self.timers.insert((wake_at, number));
            active.wake_at = wake_at;
        }
        self.active.insert(number, active);
        self.carry_out(now, number, origin, actions);
    }

    /// Turns what a request wants into actions.
    fn carry_out(&mut self, now: Now, number: u64, origin: Origin, actions: &mut Vec<Action>) {
        let mut effects = std::mem::take(&mut self.effects);
        let mut granted = false;
        for effect in effects.drain(..) {
            match effect {
                Effect::Ask { to, phase, request } => self.ask(now, (number, phase), to, request, actions),
                Effect::AppendLocked { phase, key, record } => {
                    self.locks.handed_on(&key, number);
                    self.append_locked((number, phase), key, record, actions);
                }
                Effect::Lock(key) => granted = self.locks.lock(key, number),
                Effect::RaiseCeiling => self.raise_ceiling(actions),
                Effect::Repairs(replicas) => self.counters.read_repairs += replicas,
                Effect::Late(replica) => {
                    self.note_late(now, number, replica);
                    self.counters.late_replicas += 1;
                    self.peers.missed(now.moment, replica);
                }
                Effect::Finish(outcome) => self.finish(number, origin, outcome, actions),
            }
        }
        self.effects = effects;
        if granted {
            self.step(now, number, actions, |coordination, context| coordination.granted(context));
        }
        self.tell_granted(now, actions);
    }

    fn finish(&mut self, number: u64, origin: Origin, outcome: Outcome, actions: &mut Vec<Action>) {
        if matches!(outcome, Err(Failure::NotApplied(Refusal::ClockUnsure { .. }))) {
            self.counters.clock_unsure += 1;
        }
        let path = self.active.remove(&number).and_then(|active| {
            self.timers.remove(&(active.wake_at, number));
            active.path
        });
        self.locks.over(number);
        let outcome = match path {
            Some(path) => outcome.map(|response| path.explain(response)),
            None => outcome,
        };
        self.deliver(origin, outcome, actions);
    }

    fn ask(
        &mut self,
        now: Now,
        (number, phase): (u64, u8),
        to: Vec<NodeId>,
        request: ReplicaRequest,
        actions: &mut Vec<Action>,
    ) {
        self.note_asked(now, number, &to, &request);
        let me = self.settings.actor.node;
        let (own, others): (Vec<NodeId>, Vec<NodeId>) = to.into_iter().partition(|node| *node == me);
        if !others.is_empty() {
            let message = Message::Request { id: wire_id(number, phase), request: request.clone() };
            let envelope = self.envelope(message);
            actions.push(Action::Send { to: others, envelope });
        }
        if !own.is_empty() {
            self.ask_own_store(number, phase, request, actions);
        }
    }

    fn deliver(&mut self, origin: Origin, outcome: Outcome, actions: &mut Vec<Action>) {
        match origin {
            Origin::Client(token) => actions.push(Action::Reply { token, outcome }),
            Origin::Peer(peer, id) => self.respond(peer, id, ReplicaResponse::Outcome(outcome), actions),
        }
    }

    fn respond(&mut self, to: NodeId, id: RequestId, response: ReplicaResponse, actions: &mut Vec<Action>) {
        let envelope = self.envelope(Message::Response { id, response });
        actions.push(Action::Send { to: vec![to], envelope });
    }

    fn envelope(&self, message: Message) -> Envelope {
        Envelope { epoch: self.map.epoch, clock: self.clock.last(), message }
    }

    fn new_ticket(&mut self) -> StorageTicket {
        self.next_ticket += 1;
        StorageTicket(self.next_ticket)
    }

    /// A replica has answered, or will not.
    fn answered(&mut self, now: Now, id: RequestId, from: NodeId, answer: Answer, actions: &mut Vec<Action>) {
        let (number, phase) = request_of(id);
        // Only reads say how soon a peer answers; a write waits for its disk.
        let read = matches!(answer, Answer::Response(ReplicaResponse::Record { .. } | ReplicaResponse::Digest { .. }));
        match &answer {
            Answer::Response(response) => self.note_answer(now, number, from, response),
            Answer::NotSent | Answer::Lost => self.note_lost(now, number, from),
        }
        if let (Some(active), true) = (self.active.get(&number), read) {
            self.peers.answered(now.moment, from, now.moment.since(active.began));
        }
        self.step(now, number, actions, |coordination, context| coordination.answer(from, phase, answer, context));
    }

    /// Whatever this peer was asked may never be answered.
    fn lose_peer(&mut self, now: Now, peer: NodeId, actions: &mut Vec<Action>) {
        self.epochs.lost(peer);
        self.apart_lost(peer);
        let numbers: Vec<u64> = self.active.keys().copied().collect();
        for number in numbers {
            self.step(now, number, actions, |coordination, context| coordination.lose(peer, context));
        }
    }

    fn tick(&mut self, now: Now, actions: &mut Vec<Action>) {
        while let Some((moment, number)) = self.timers.first().copied()
            && moment <= now.moment
        {
            // A step that left its timer in the past would keep this loop for ever.
            self.step(now, number, actions, |coordination, context| coordination.wake(context));
            if self.timers.first() == Some(&(moment, number)) {
                unreachable!("request {number} did not move on at {moment:?}");
            }
        }
        self.expire_held(now, actions);
        self.tick_members(now, actions);
        if self.round_due() <= now.moment {
            self.begin_round(now, actions);
        }
    }

    /// # Panics
    /// If an invariant of the machine is broken. For the simulator, after each step.
    pub fn check_invariants(&self) {
        assert_eq!(self.timers.len(), self.active.len(), "each request has one timer");
        for (number, active) in &self.active {
            assert!(self.timers.contains(&(active.wake_at, *number)), "request {number} has lost its timer");
        }
        assert!(self.effects.is_empty(), "a step left something undone");
        assert!(self.active.len() <= limits::REQUESTS_IN_FLIGHT, "too many requests were begun");
        assert!(self.apart.len() <= 64 * limits::MAX_MEMBERS, "questions of its own pile up");
        self.membership.check_invariants();
        assert!(self.gossiped.is_empty(), "gossip was left undone");
        self.locks.check(|number| self.active.contains_key(&number));
    }
}

/// The name of a question on the wire: the request's number and the phase it is in.
fn wire_id(number: u64, phase: u8) -> RequestId {
    RequestId((number << 8) | u64::from(phase))
}

fn request_of(id: RequestId) -> (u64, u8) {
    (id.0 >> 8, (id.0 & 0xff) as u8)
}

#[cfg(test)]
#[path = "node_tests.rs"]
mod tests;
