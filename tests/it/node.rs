//! Three nodes in one process, over real QUIC and real sled.

use std::collections::BTreeMap;
use std::net::{SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::time::Duration;

use dogsled::ambient;
use dogsled::node::{NodeHandle, NodeOptions, RunningNode, StopReason, map_file};
use dogsled::protocol::ring;
use dogsled::transport::certificates::{Authority, TlsFiles, Validity};
use dogsled::types::{
    CausalContext, ClusterId, ClusterMap, ConsistencyLevel, Epoch, Expiry, Failure, Key, Member, MergePolicy,
    Namespace, NamespaceId, NodeId, Operation, PartitionCount, Refusal, Request, Response, Stamp, Token, Zone,
};

/// The files of a cluster in a temporary directory, and the nodes that run.
struct Cluster {
    directory: tempfile::TempDir,
    map: ClusterMap,
    running: BTreeMap<NodeId, RunningNode>,
}

fn id(number: u32) -> NodeId {
    NodeId::new(number).expect("not zero")
}

/// Ports that were free a moment ago, all different.
fn free_ports(number: u32) -> Vec<SocketAddr> {
    let sockets: Vec<UdpSocket> = (0..number).map(|_| UdpSocket::bind("127.0.0.1:0").expect("a free port")).collect();
    sockets.iter().map(|socket| socket.local_addr().expect("bound")).collect()
}

impl Cluster {
    fn create(nodes: u32) -> Cluster {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let members: BTreeMap<NodeId, Member> = (1..=nodes)
            .zip(free_ports(nodes))
            .map(|(number, peer_address)| {
                let member = Member { id: id(number), peer_address, zone: Zone("a".into()), weight: 1 };
                (member.id, member)
            })
            .collect();
        let partitions = PartitionCount::new(16).expect("a power of two");
        let default = Namespace::default_namespace();
        let siblings = Namespace { id: NamespaceId(1), name: "both".into(), policy: MergePolicy::Siblings };
        let map = ClusterMap {
            cluster: ClusterId(ambient::seed()),
            epoch: Epoch(1),
            partitions,
            replication_factor: 3,
            assignment: ring::place(None, &members, 3, partitions),
            members,
            next_namespace: 2,
            namespaces: BTreeMap::from([(default.id, default), (siblings.id, siblings)]),
        };
        map_file::write(&directory.path().join("cluster.map"), &map).expect("the map is written");
        let validity = Validity::days(ambient::wall(), 1);
        let authority = Authority::create(validity).expect("an authority");
        authority.write(&directory.path().join("ca.pem"), &directory.path().join("ca.key")).expect("written");
        for node in map.members.keys() {
            let issued = authority.issue_node(*node, validity).expect("a certificate");
            let file = |end| directory.path().join(format!("{node}.{end}"));
            issued.write(&file("pem"), &file("key")).expect("written");
        }
        Cluster { directory, map, running: BTreeMap::new() }
    }

    fn options(&self, node: NodeId) -> NodeOptions {
        let file = |name: String| -> PathBuf { self.directory.path().join(name) };
        NodeOptions {
            id: node,
            data_directory: file(format!("{node}-data")),
            map_file: file("cluster.map".into()),
            peer_listen: self.map.members[&node].peer_address,
            tls: TlsFiles {
                ca: file("ca.pem".into()),
                certificate: file(format!("{node}.pem")),
                key: file(format!("{node}.key")),
            },
            request_timeout: Duration::from_secs(2),
            hedge_after: Duration::from_millis(50),
            max_clock_skew: Duration::from_millis(500),
            op_id_horizon: Duration::from_secs(60),
            sync_interval: Duration::from_millis(200),
            k_list: None,
            collect_interval: Duration::from_millis(500),
            max_value_bytes: 1024 * 1024,
            cache_bytes: 16 * 1024 * 1024,
        }
    }

    fn start(&mut self, number: u32) {
        let node = dogsled::node::start(&self.options(id(number))).expect("the node starts");
        self.running.insert(id(number), node);
    }

    fn start_all(nodes: u32) -> Cluster {
        let mut cluster = Cluster::create(nodes);
        (1..=nodes).for_each(|number| cluster.start(number));
        (1..=nodes).for_each(|number| cluster.await_peers(number, nodes as usize - 1));
        cluster
    }

    fn handle(&self, number: u32) -> &NodeHandle {
        &self.running[&id(number)].handle
    }

    /// Waits until a node sees this many peers.
    fn await_peers(&self, number: u32, peers: usize) {
        let patience = ambient::moment().plus(Duration::from_secs(20));
        loop {
            let status = self.handle(number).status();
            if status.peers.iter().filter(|peer| peer.connected).count() == peers {
                return;
            }
            assert!(ambient::moment() < patience, "node {number} never saw {peers} peers: {status:?}");
            std::thread::yield_now();
        }
    }

    fn stop(&mut self, number: u32) {
        let node = self.running.remove(&id(number)).expect("it runs");
        node.handle.stop();
        assert!(matches!(node.join(), StopReason::Asked));
    }

    fn ask(&self, number: u32, operation: Operation, level: ConsistencyLevel) -> Result<Response, Failure> {
        let request = Request::new(operation, level);
        self.handle(number).submit(request).blocking_recv().expect("the node answers")
    }

    fn put(&self, number: u32, name: &str, value: &str) -> Stamp {
        let (value, context) = (value.to_owned().into(), CausalContext::default());
        let operation = Operation::Put { key: key(name), value, expiry: Expiry::Never, context };
        match self.ask(number, operation, ConsistencyLevel::Quorum) {
            Ok(Response::Written(reply)) => reply.stamp,
            other => panic!("{name} was not written through node {number}: {other:?}"),
        }
    }

    fn get(&self, number: u32, name: &str) -> Option<String> {
        match self.ask(number, Operation::Get { key: key(name) }, ConsistencyLevel::Quorum) {
            Ok(Response::Read(reply)) => reply.map(|reply| String::from_utf8(reply.value.to_vec()).expect("text")),
            other => panic!("{name} was not read through node {number}: {other:?}"),
        }
    }

    /// Live keys of the whole ring.
    fn scan(&self, number: u32) -> Vec<String> {
        let (mut from, mut keys) = (Some(Token(0)), Vec::new());
        while let Some(token) = from {
            let operation = Operation::Scan { namespace: NamespaceId::DEFAULT, from: token, limit: 3 };
            match self.ask(number, operation, ConsistencyLevel::Quorum) {
                Ok(Response::Page(page)) => {
                    let names = page.entries.iter().map(|entry| String::from_utf8_lossy(&entry.key).into_owned());
                    keys.extend(names);
                    from = page.next;
                }
                other => panic!("the scan stopped at {token:?}: {other:?}"),
            }
        }
        keys.sort();
        keys
    }
}

fn key(name: &str) -> Key {
    Key::new(NamespaceId::DEFAULT, name.to_owned()).expect("a key")
}

#[test]
fn what_one_node_wrote_the_others_read_even_after_one_stopped_and_came_back() {
    let mut cluster = Cluster::start_all(3);
    for number in 0..100 {
        cluster.put(number % 3 + 1, &format!("key {number}"), &format!("value {number}"));
    }
    for number in 0..100 {
        for through in 1..=3 {
            assert_eq!(cluster.get(through, &format!("key {number}")), Some(format!("value {number}")));
        }
    }
    cluster.stop(2);
    cluster.await_peers(1, 1);
    cluster.put(1, "key 0", "changed");
    assert_eq!(cluster.get(3, "key 0"), Some("changed".into()));
    cluster.start(2);
    cluster.await_peers(2, 2);
    // Node 2 missed the change; a quorum did not.
    assert_eq!(cluster.get(2, "key 0"), Some("changed".into()));
    assert!(
        cluster
            .ask(2, Operation::Delete { key: key("key 1"), context: CausalContext::default() }, ConsistencyLevel::All)
            .is_ok()
    );
    assert_eq!(cluster.get(3, "key 1"), None);
    let mut expected: Vec<String> = (0..100).filter(|n| *n != 1).map(|n| format!("key {n}")).collect();
    expected.sort();
    assert_eq!(cluster.scan(1), expected);
}

#[test]
fn without_a_quorum_nothing_is_written_and_one_is_still_served() {
    let mut cluster = Cluster::start_all(3);
    cluster.put(1, "k", "v");
    cluster.stop(2);
    cluster.stop(3);
    cluster.await_peers(1, 0);
    let context = CausalContext::default();
    let put = Operation::Put { key: key("k"), value: "w".into(), expiry: Expiry::Never, context };
    let too_few = Err(Failure::NotApplied(Refusal::TooFewReplicas { alive: 1, needed: 2 }));
    assert_eq!(cluster.ask(1, put, ConsistencyLevel::Quorum), too_few);
    let get = Operation::Get { key: key("k") };
    assert_eq!(cluster.ask(1, get.clone(), ConsistencyLevel::Quorum), too_few);
    let Ok(Response::Read(Some(reply))) = cluster.ask(1, get, ConsistencyLevel::One) else { panic!("ONE is served") };
    assert_eq!(reply.value, "v", "a refused write was not applied");
    assert!(!cluster.handle(1).status().ready);
}

#[test]
fn any_node_serves_any_key_where_there_are_more_nodes_than_replicas() {
    let cluster = Cluster::start_all(5);
    for number in 0..50 {
        let stamp = cluster.put(number % 5 + 1, &format!("k{number}"), "v");
        let confirm = Operation::Confirm { key: key(&format!("k{number}")), stamp, replicas: 3 };
        assert_eq!(cluster.ask(number % 5 + 1, confirm, ConsistencyLevel::Quorum), Ok(Response::Confirmed(3)));
    }
    for through in 1..=5 {
        for number in 0..50 {
            assert_eq!(cluster.get(through, &format!("k{number}")), Some("v".into()));
        }
        assert_eq!(cluster.scan(through).len(), 50);
        let count = Operation::Count { namespace: NamespaceId::DEFAULT };
        assert_eq!(cluster.ask(through, count, ConsistencyLevel::Quorum), Ok(Response::Count(50)));
    }
    let partitions = cluster.map.partitions;
    for partition in partitions.all() {
        let operation = Operation::Truncate { namespace: NamespaceId::DEFAULT, at: partitions.first_token(partition) };
        assert!(cluster.ask(1, operation, ConsistencyLevel::Quorum).is_ok());
    }
    assert_eq!(cluster.scan(2), Vec::<String>::new());
    cluster.put(4, "k1", "again");
    assert_eq!(cluster.get(5, "k1"), Some("again".into()));
}
