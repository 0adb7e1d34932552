//! Nonsense, lies and floods about the membership, over real QUIC, against running nodes:
//! from a member whose certificate is good, and from a node that is not in the map. It is
//! counted, and nothing follows from it: nobody is held for down, no view grows, and
//! requests go on.

use std::collections::BTreeMap;
use std::net::UdpSocket;
use std::time::Duration;

use bytes::Bytes;
use dogsled::ambient;
use dogsled::node::{MembersStatus, NodeOptions, Relation, RunningNode, StopReason, map_file};
use dogsled::protocol::ring;
use dogsled::transport::{HandshakeRefusal, Peer};
use dogsled::types::{
    CausalContext, ClusterMap, ConsistencyLevel, Epoch, Expiry, Health, Incarnation, Key, Life, Load, Member,
    Namespace, NamespaceId, NodeId, Operation, PartitionCount, Request, Response, Timestamp, Zone, limits,
};
use dogsled::wire::{self, Datagram, Envelope, Gossip, Message, Probe, ProbeId, Rumour, RumourId};
use rand::Rng;

use crate::transport::{Certificates, Intruder, Stream, cluster, greeting, hello, node};

/// Nothing here takes long; a test that waits for so long hangs.
const HANG: Duration = Duration::from_secs(60);
/// The nodes that run.
const RUNNING: u32 = 3;
/// The member that is a vandal. Behind its address nobody listens.
const VANDAL: u32 = 4;
/// A node with a good certificate that is not in the map.
const STRANGER: u32 = 9;
const DISCONNECTED: u64 = 4;

/// Three running nodes of a cluster of four.
struct Scene {
    certificates: Certificates,
    map: ClusterMap,
    nodes: BTreeMap<NodeId, RunningNode>,
    _silent: UdpSocket,
}

fn running() -> impl Iterator<Item = NodeId> {
    (1..=RUNNING).map(node)
}

impl Scene {
    fn set() -> Scene {
        let certificates = Certificates::new();
        let sockets: Vec<UdpSocket> = (1..=VANDAL).map(|_| UdpSocket::bind("127.0.0.1:0").expect("a port")).collect();
        let members: BTreeMap<NodeId, Member> = (1..)
            .zip(&sockets)
            .map(|(number, socket)| {
                let peer_address = socket.local_addr().expect("bound");
                let member = Member { id: node(number), peer_address, zone: Zone("a".into()), weight: 1 };
                (member.id, member)
            })
            .collect();
        // Only the vandal's port stays taken.
        let silent = sockets.into_iter().next_back().expect("four sockets");
        let partitions = PartitionCount::new(16).expect("a power of two");
        let default = Namespace::default_namespace();
        let map = ClusterMap {
            cluster: cluster(),
            epoch: Epoch(1),
            partitions,
            replication_factor: 3,
            assignment: ring::place(None, &members, 3, partitions),
            members,
            next_namespace: 1,
            namespaces: BTreeMap::from([(default.id, default)]),
        };
        map_file::write(&certificates.path("cluster.map"), &map).expect("the map is written");
        let mut scene = Scene { certificates, map, nodes: BTreeMap::new(), _silent: silent };
        for id in running() {
            let started = dogsled::node::start(&scene.options(id)).expect("the node starts");
            scene.nodes.insert(id, started);
        }
        scene.wait("everybody knows everybody", |members| {
            let others = members.members.iter().filter(|member| member.id != node(VANDAL));
            others.clone().count() == 2 && others.clone().all(|member| member.connected)
        });
        scene
    }

    fn options(&self, id: NodeId) -> NodeOptions {
        NodeOptions {
            id,
            data_directory: self.certificates.path(&format!("{id}-data")),
            map_file: self.certificates.path("cluster.map"),
            peer_listen: self.map.members[&id].peer_address,
            tls: self.certificates.of_node(id),
            request_timeout: Duration::from_secs(10),
            hedge_after: Duration::from_millis(50),
            max_clock_skew: Duration::from_millis(500),
            op_id_horizon: Duration::from_secs(60),
            sync_interval: Duration::from_millis(200),
            k_list: Some(2),
            collect_interval: Duration::from_millis(500),
            max_value_bytes: 1024 * 1024,
            cache_bytes: 4 * 1024 * 1024,
        }
    }

    fn peer(&self, id: NodeId) -> Peer {
        Peer { id, address: self.map.members[&id].peer_address }
    }

    /// The vandal, connected with a node under its own name.
    async fn vandal(&self, to: NodeId) -> Stream {
        let vandal = Intruder::new(Some(&self.certificates.of_node(node(VANDAL))));
        vandal.greet(self.peer(to), node(VANDAL)).await
    }

    /// What a node says of the members, after it was checked.
    fn members(&self, id: NodeId) -> MembersStatus {
        let members = self.nodes[&id].handle.members();
        let known = members.related(Relation::Active) + members.related(Relation::Passive);
        assert_eq!(members.known, known, "{id} knows somebody who is no member: {members:?}");
        assert!(known <= members.k_list && members.k_list == 2, "{members:?}");
        for member in members.members.iter().filter(|member| member.id != node(VANDAL)) {
            assert_ne!(member.health, Health::Down, "{id} holds {} for down: {members:?}", member.id);
        }
        members
    }

    /// Looks at all nodes until it is so for each of them.
    fn wait(&self, what: &str, is_so: impl Fn(&MembersStatus) -> bool) {
        let end = ambient::moment().plus(HANG);
        for id in running() {
            while !is_so(&self.members(id)) {
                assert!(ambient::moment() < end, "{id}: not so in time: {what}: {:?}", self.members(id));
                std::thread::sleep(Duration::from_millis(10));
            }
        }
    }

    /// Looks at all nodes until it is so for one of them.
    async fn wait_one(&self, id: NodeId, what: &str, is_so: impl Fn(&MembersStatus) -> bool) -> MembersStatus {
        let end = ambient::moment().plus(HANG);
        loop {
            let all: Vec<MembersStatus> = running().map(|id| self.members(id)).collect();
            let members = &all[id.number() as usize - 1];
            if is_so(members) {
                return members.clone();
            }
            assert!(ambient::moment() < end, "{id}: not so in time: {what}: {members:?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// A count of the transport of a node.
    fn transport(&self, id: NodeId, name: &str, label: &str) -> u64 {
        let samples = self.nodes[&id].handle.samples();
        let found = samples.iter().find(|sample| sample.name == name && sample.labels.iter().any(|(_, l)| l == label));
        found.unwrap_or_else(|| panic!("no metric {name} {label}")).value as u64
    }

    /// Requests go on through every node, and all of them are connected.
    async fn goes_on(&self) {
        for id in running() {
            let handle = &self.nodes[&id].handle;
            let key = Key::new(NamespaceId::DEFAULT, format!("key {id}")).expect("a key");
            let (value, context) = (Bytes::from_static(b"value"), CausalContext::default());
            let put = Operation::Put { key: key.clone(), value, expiry: Expiry::Never, context };
            let written = handle.request(Request::new(put, ConsistencyLevel::Quorum)).await;
            assert!(matches!(written, Ok(Response::Written(_))), "{id}: {written:?}");
            let read = handle.request(Request::new(Operation::Get { key }, ConsistencyLevel::Quorum)).await;
            assert!(matches!(&read, Ok(Response::Read(Some(reply))) if reply.value == "value"), "{id}: {read:?}");
            // One peer is the vandal.
            let connected = handle.status().peers.into_iter().filter(|peer| peer.connected && peer.id != node(VANDAL));
            assert_eq!(connected.count(), 2);
        }
    }

    /// Everything goes on, and nobody is even suspected in the end.
    async fn ends_undisturbed(self) {
        self.goes_on().await;
        for id in running() {
            self.wait_one(id, "nobody is accused any more", |members| {
                let mut others = members.members.iter().filter(|member| member.id != node(VANDAL));
                others.all(|member| member.health == Health::Alive)
            })
            .await;
        }
        self.stop().await;
    }

    async fn stop(self) {
        let stopped = tokio::task::spawn_blocking(move || {
            for (_, running) in self.nodes {
                running.handle.stop();
                assert!(matches!(running.join(), StopReason::Asked));
            }
        });
        stopped.await.expect("the nodes stop in good order");
    }
}

fn datagram(probe: Probe) -> Vec<u8> {
    Datagram { epoch: Epoch(1), probe }.encode()
}

fn frame(gossip: Gossip) -> Vec<u8> {
    greeting(&wire::encode(&Envelope { epoch: Epoch(1), clock: Timestamp(0), message: Message::Gossip(gossip) }))
}

/// A frame of a kind, with this behind its header.
fn frame_of_kind(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut content = frame(Gossip::Join).split_off(4);
    content[0] = kind;
    content.extend_from_slice(body);
    greeting(&content)
}

fn rumour(origin: u32, number: u64, rumour: Rumour) -> Gossip {
    let id = RumourId { origin: node(origin), incarnation: Incarnation(1), number };
    Gossip::Rumour { id, hops: 0, rumour }
}

fn life(incarnation: u64, refutation: u32) -> Life {
    Life { incarnation: Incarnation(incarnation), refutation }
}

/// Half of it random, half of it almost right.
fn junk(chance: &mut impl Rng) -> Vec<u8> {
    let mut bytes = match chance.random_range(0..4) {
        0 => datagram(Probe::Ack { id: ProbeId(1), life: life(1, 0), load: Load::Normal, neighbor: true }),
        1 => datagram(Probe::PingFor { id: ProbeId(2), subject: node(2), accused: None }),
        _ => (0..chance.random_range(0..limits::MAX_DATAGRAM_BYTES)).map(|_| chance.random()).collect(),
    };
    match chance.random_range(0..3) {
        0 => bytes.push(chance.random()),
        1 => bytes.truncate(bytes.len() / 2),
        _ => bytes.insert(0, chance.random_range(2..=255)),
    }
    bytes
}

#[tokio::test]
async fn datagrams_that_make_no_sense_are_counted_and_nothing_follows() {
    let scene = tokio::task::spawn_blocking(Scene::set).await.expect("three nodes");
    let stream = scene.vandal(node(1)).await;
    let mut chance = ambient::seeded();
    let end = ambient::moment().plus(HANG);
    // Datagrams may be lost, so more are sent until enough have arrived.
    while scene.members(node(1)).datagrams_ignored < 1_000 {
        assert!(ambient::moment() < end, "{:?}", scene.members(node(1)));
        for _ in 0..50 {
            let _ = stream.connection.send_datagram(junk(&mut chance).into());
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // Longer than is allowed; the path's packets become large enough for it after a while.
    let oversize = || scene.transport(node(1), "transport_events", "datagrams_oversize");
    while oversize() < 10 {
        assert!(ambient::moment() < end, "{:?}", stream.connection.max_datagram_size());
        let _ = stream.connection.send_datagram(vec![1; limits::MAX_DATAGRAM_BYTES + 1].into());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(stream.connection.close_reason().is_none(), "datagrams end no connection");
    scene.ends_undisturbed().await;
}

#[tokio::test]
async fn forged_answers_to_probes_change_nothing() {
    let scene = tokio::task::spawn_blocking(Scene::set).await.expect("three nodes");
    let stream = scene.vandal(node(1)).await;
    let nobody = NodeId::new(77).expect("above zero");
    let later = life(7, 7);
    for number in 0..2_000 {
        let id = ProbeId(number);
        let (subject, load, neighbor) = (if number % 2 == 0 { node(2) } else { nobody }, Load::Full, number % 2 == 0);
        for probe in [
            Probe::Ack { id, life: later, load, neighbor },
            Probe::AckFor { id, subject: nobody, life: later },
            Probe::NackFor { id, subject },
            Probe::PingFor { id, subject, accused: None },
            // Ours is the first life, so this accuses nobody who could refute it.
            Probe::Ping { id, life: life(1, 0), accused: Some(life(9, 9)), neighbor },
        ] {
            let _ = stream.connection.send_datagram(datagram(probe).into());
        }
        if number % 20 == 0 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
    let members = scene.wait_one(node(1), "it has been heard", |members| members.counters.ignored > 0).await;
    assert_eq!(members.life.refutation, 0, "a life that is not its own is not refuted: {members:?}");
    scene.ends_undisturbed().await;
}

#[tokio::test]
async fn gossip_about_strangers_and_of_unknown_kinds_is_counted_and_nothing_follows() {
    let scene = tokio::task::spawn_blocking(Scene::set).await.expect("three nodes");
    let mut stream = scene.vandal(node(1)).await;
    for _ in 0..10 {
        for kind in 13..=15 {
            stream.send.write_all(&frame_of_kind(kind, b"from the future")).await.expect("bytes under way");
        }
    }
    scene.wait_one(node(1), "unknown kinds are counted", |members| members.gossip_ignored == 30).await;
    let before = scene.members(node(1)).counters.ignored;
    let nobody = |number: u32| node(100 + number);
    for number in 0..50 {
        let (subject, life) = (nobody(number), life(1, 0));
        let strangers: Vec<_> = (0..limits::STANDING_DOWN as u32).map(|number| (nobody(number), life)).collect();
        for gossip in [
            // About somebody who is no member, from a member, ...
            rumour(VANDAL, 1_000 + u64::from(number), Rumour::Opinion { subject, life, health: Health::Down }),
            rumour(VANDAL, 2_000 + u64::from(number), Rumour::Doubt { subject, life }),
            // ... and in the name of somebody who is none.
            rumour(100 + number, 1, Rumour::Alive(life)),
            rumour(100 + number, 2, Rumour::Epoch(Epoch(u64::MAX))),
            rumour(100 + number, 3, Rumour::Opinion { subject: node(2), life, health: Health::Down }),
            Gossip::ForwardJoin { joiner: nobody(number), hops: 255 },
            Gossip::Shuffle { hops: 255, path: vec![nobody(number)], nodes: (0..16).map(nobody).collect() },
            Gossip::ShuffleReply { path: vec![nobody(number); 7], nodes: (0..16).map(nobody).collect() },
            Gossip::Standing { life, load: Load::Normal, down: strangers.clone(), alive: strangers },
        ] {
            stream.send.write_all(&frame(gossip)).await.expect("bytes under way");
        }
    }
    // Each rumour in a stranger's name, and each opinion about one.
    scene.wait_one(node(1), "strangers are counted", |members| members.counters.ignored >= before + 200).await;
    assert!(stream.connection.close_reason().is_none(), "all of that was well-formed");
    scene.ends_undisturbed().await;
}

#[tokio::test]
async fn replayed_rumours_are_counted_and_one_liar_convinces_nobody() {
    let scene = tokio::task::spawn_blocking(Scene::set).await.expect("three nodes");
    let mut stream = scene.vandal(node(1)).await;
    let before = scene.members(node(1)).counters;
    // The first life of a fresh node.
    let lie = Rumour::Opinion { subject: node(2), life: life(1, 0), health: Health::Down };
    for _ in 0..500 {
        stream.send.write_all(&frame(rumour(VANDAL, 1, lie))).await.expect("bytes under way");
    }
    let replayed = |members: &MembersStatus| members.counters.rumours_repeated >= before.rumours_repeated + 499;
    scene.wait_one(node(1), "replays are counted", replayed).await;
    // Whoever is lied about hears of it by way of others, and refutes.
    let refuted = scene.wait_one(node(2), "the lie is refuted", |members| members.life.refutation > 0).await;
    scene.goes_on().await;
    // Lies about starts that never were cannot be refuted, and convince nobody either. They
    // are doubts until they are forgotten, which is not waited for.
    for number in 0..200 {
        let life = life(2 + number % 3, refuted.life.refutation + number as u32);
        let lie = Rumour::Opinion { subject: node(2 + number as u32 % 2), life, health: Health::Down };
        stream.send.write_all(&frame(rumour(VANDAL, 10 + number, lie))).await.expect("bytes under way");
    }
    let heard = |members: &MembersStatus| members.counters.rumours_heard >= before.rumours_heard + 201;
    scene.wait_one(node(1), "all lies were heard", heard).await;
    scene.goes_on().await;
    scene.stop().await;
}

#[tokio::test]
async fn malformed_gossip_ends_the_connection_of_who_sent_it_and_no_other() {
    let scene = tokio::task::spawn_blocking(Scene::set).await.expect("three nodes");
    let violations = || scene.transport(node(1), "transport_events", "violations");
    let before = violations();
    let bodies: [&[u8]; 4] = [b"", b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", &[0; 64], &[9; 1_000]];
    let mut ended = 0;
    for kind in [2, 6, 7, 8, 9, 12] {
        for body in bodies {
            let mut stream = scene.vandal(node(1)).await;
            stream.send.write_all(&frame_of_kind(kind, body)).await.expect("bytes under way");
            assert_eq!(stream.closed_with().await, DISCONNECTED, "kind {kind}: {}", body.escape_ascii());
            ended += 1;
        }
    }
    assert_eq!(violations() - before, ended);
    scene.ends_undisturbed().await;
}

#[tokio::test]
async fn a_node_that_is_not_in_the_map_is_not_heard_at_all() {
    let scene = tokio::task::spawn_blocking(Scene::set).await.expect("three nodes");
    let not_member = HandshakeRefusal::NotMember;
    let stranger = Intruder::new(Some(&scene.certificates.of_node(node(STRANGER))));
    let lie = Rumour::Opinion { subject: node(2), life: life(1, 0), health: Health::Down };
    for _ in 0..10 {
        // It speaks without waiting to be let in.
        let words = [greeting(&hello(node(STRANGER)).encode()), greeting(b""), frame(rumour(STRANGER, 1, lie))];
        // The refusal may come before or after QUIC calls the connection made.
        let Ok(connection) = stranger.connect(scene.peer(node(1))).await else { continue };
        if let Ok((mut send, _receive)) = connection.open_bi().await {
            let _ = send.write_all(&words.concat()).await;
        }
        for _ in 0..50 {
            let ping = Probe::Ping { id: ProbeId(1), life: life(1, 0), accused: Some(life(1, 0)), neighbor: true };
            let _ = connection.send_datagram(datagram(ping).into());
        }
        connection.closed().await;
    }
    // What was refused first may be counted a moment after the other end knows.
    let end = ambient::moment().plus(HANG);
    while scene.transport(node(1), "handshakes_refused", not_member.name()) < 10 && ambient::moment() < end {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(scene.transport(node(1), "handshakes_refused", not_member.name()), 10);
    let members = scene.members(node(1));
    assert_eq!((members.life.refutation, members.datagrams_ignored, members.gossip_ignored), (0, 0, 0), "{members:?}");
    scene.ends_undisturbed().await;
}
