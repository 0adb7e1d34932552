//! A real partition: two nodes and three in two network namespaces, and the cable between
//! them pulled out and put back. Needs root; prints that it is skipped otherwise.

use std::fs;
use std::time::Duration;

use dogsled::ambient::moment;
use dogsled::node::map_file;
use dogsled::server::http::json::{Members, Where};
use dogsled::types::{Health, NodeId};

use super::cluster::{Cluster, Node, PATIENCE, told};
use super::namespaces::Cable;

/// How many of the five nodes are on the first side.
const FIRST: usize = 2;
const NODES: usize = 5;
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// For how long is watched that nothing happens.
const QUIET: Duration = Duration::from_secs(3);

fn id(index: usize) -> NodeId {
    NodeId::new(index as u32 + 1).expect("above zero")
}

fn side_of(index: usize) -> usize {
    usize::from(index >= FIRST)
}

/// Puts the nodes into the two namespaces, and their addresses into their maps.
fn move_apart(cluster: &mut Cluster, cable: &Cable) {
    for (index, node) in cluster.nodes.iter_mut().enumerate() {
        let path = node.home.join("cluster.map");
        let mut map = map_file::read(&path).expect("a map");
        for (other, member) in map.members.values_mut().enumerate() {
            let ip = cable.address(side_of(other)).parse().expect("an address");
            member.peer_address.set_ip(ip);
        }
        map_file::write(&path, &map).expect("the map is written");
        let config = fs::read_to_string(node.config()).expect("a configuration");
        let listen = |ip: &str| format!("peer = \"{ip}:{}\"", node.peer);
        let (before, after) = (listen("127.0.0.1"), listen(&cable.address(side_of(index))));
        assert!(config.contains(&before), "{config}");
        fs::write(node.config(), config.replace(&before, &after)).expect("the configuration is written");
        node.namespace = Some(cable.side(side_of(index)));
    }
}

/// Asks one node in its namespace; none if it does not answer.
fn members(cluster: &Cluster, index: usize) -> Option<Members> {
    let output = cluster.nodes[index].ask(&["members", "--output", "json"]);
    serde_json::from_slice(&output.stdout).ok()
}

/// Who may hold whom for down, or does.
type Whom = fn(usize, usize) -> bool;

fn nobody(_: usize, _: usize) -> bool {
    false
}

fn the_other_side(viewer: usize, subject: usize) -> bool {
    side_of(viewer) != side_of(subject)
}

/// Looks at all views once; whether everybody holds for down exactly whom it should. Nobody
/// may hold somebody for down who is not accusable.
fn is_right(cluster: &Cluster, is_down: Whom, is_accusable: Whom) -> bool {
    let mut right = true;
    for viewer in 0..NODES {
        let Some(view) = members(cluster, viewer) else {
            right = false;
            continue;
        };
        for subject in (0..NODES).filter(|subject| *subject != viewer) {
            let seen = view.members.iter().find(|member| member.id.0 == id(subject)).expect("a member");
            let accused = seen.health == Health::Down;
            assert!(!accused || is_accusable(viewer, subject), "n{} holds {} for down: {seen:?}", viewer + 1, seen.id);
            let wanted = if is_down(viewer, subject) { Health::Down } else { Health::Alive };
            // Requests go by connections, so those must be gone, too.
            right &= seen.health == wanted && seen.connected == (wanted == Health::Alive);
        }
    }
    right
}

fn await_right(cluster: &Cluster, what: &str, is_down: Whom, is_accusable: Whom) {
    let begin = moment();
    while !is_right(cluster, is_down, is_accusable) {
        assert!(moment().since(begin) < PATIENCE, "not so in time: {what}");
        std::thread::sleep(LOOK_EVERY);
    }
    eprintln!("after {} ms: {what}", moment().since(begin).as_millis());
}

/// Asks until it succeeds.
fn insist(cluster: &Cluster, index: usize, arguments: &[&str]) -> String {
    let end = moment().plus(PATIENCE);
    loop {
        let output = cluster.nodes[index].ask(arguments);
        if output.status.success() {
            return String::from_utf8(output.stdout).expect("text");
        }
        assert!(moment() < end, "{arguments:?}: {}", told(&output));
        std::thread::sleep(LOOK_EVERY);
    }
}

/// A key with most of its replicas on the second side.
fn key_of_the_majority(cluster: &Cluster) -> String {
    let keys = (0..1_000).map(|number| format!("key-{number}"));
    keys.into_iter()
        .find(|key| {
            let told = insist(cluster, 0, &["key", "where", key, "--output", "json"]);
            let place: Where = serde_json::from_str(&told).expect("JSON");
            let here = place.replicas.iter().filter(|replica| replica.node.0.number() as usize > FIRST);
            place.replicas.len() == 3 && here.count() == 2
        })
        .expect("there is one among a thousand")
}

#[test]
fn two_sides_of_a_partition_hold_each_other_for_down_and_find_each_other_again() {
    let cable = match Cable::lay() {
        Ok(cable) => cable,
        Err(reason) => {
            eprintln!("skipped, because there can be no network namespaces here: {reason}");
            return;
        }
    };
    // Made after the cable, so that its nodes are gone before the namespaces are.
    let mut cluster = Cluster::create(NODES as u16);
    move_apart(&mut cluster, &cable);
    cluster.nodes.iter_mut().for_each(Node::spawn);
    await_right(&cluster, "all is well at first", nobody, nobody);
    let key = key_of_the_majority(&cluster);
    insist(&cluster, 0, &["put", &key, "before", "--consistency", "all"]);

    cable.cut();
    await_right(&cluster, "both sides hold the other for down", the_other_side, the_other_side);
    for index in 0..NODES {
        let status = cluster.nodes[index].ask(&["status"]);
        assert_eq!(status.status.code(), Some(2), "{}", told(&status));
    }
    // The side with most replicas of the key goes on, the other knows that it cannot.
    insist(&cluster, 3, &["put", &key, "during"]);
    for index in FIRST..NODES {
        assert_eq!(insist(&cluster, index, &["get", &key]), "during");
    }
    for index in 0..FIRST {
        let read = cluster.nodes[index].ask(&["get", &key]);
        assert_eq!(read.status.code(), Some(1), "{}", told(&read));
        let write = cluster.nodes[index].ask(&["put", &key, "never"]);
        assert_eq!(write.status.code(), Some(1), "{}", told(&write));
    }

    cable.mend();
    await_right(&cluster, "both sides have found each other", nobody, the_other_side);
    for index in 0..NODES {
        assert_eq!(insist(&cluster, index, &["get", &key]), "during");
    }
    // And so it stays.
    let end = moment().plus(QUIET);
    while moment() < end {
        is_right(&cluster, nobody, nobody);
        std::thread::sleep(LOOK_EVERY);
    }
    await_right(&cluster, "nobody is accused any more", nobody, nobody);
    assert!(cluster.nodes.iter_mut().all(Node::is_running));
}
