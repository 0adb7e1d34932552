//! How a node starts, stops, and refuses to start.

use std::fs;
use std::net::{TcpListener, UdpSocket};
use std::process::Output;

use super::cluster::{Cluster, Node, insist, run_to_end, told};

/// A start that fails says one thing, names what it is about, and ends with code 1.
fn assert_refused(output: &Output, named: &[&str]) {
    let told = told(output);
    assert_eq!(output.status.code(), Some(1), "{told}");
    let messages = told.lines().filter(|line| line.starts_with("dogsled: ")).count();
    assert_eq!(messages, 1, "not one message: {told}");
    assert!(!told.contains("panicked"), "{told}");
    for name in named {
        assert!(told.contains(name), "'{name}' is not named: {told}");
    }
}

fn edit_config(node: &Node, edit: impl FnOnce(String) -> String) {
    let text = fs::read_to_string(node.config()).unwrap();
    let edited = edit(text.clone());
    assert_ne!(text, edited, "the edit did not change anything");
    fs::write(node.config(), edited).unwrap();
}

#[test]
fn a_busy_port_is_named_and_nothing_stays_behind() {
    let cluster = Cluster::create(3);
    let node = &cluster.nodes[0];
    let busy_tcp = |port: u16| {
        let listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
        assert_refused(&node.run_to_end(), &[&port.to_string()]);
        drop(listener);
    };
    busy_tcp(node.resp);
    busy_tcp(node.http);
    let socket = UdpSocket::bind(("127.0.0.1", node.peer)).unwrap();
    assert_refused(&node.run_to_end(), &[&node.peer.to_string()]);
    drop(socket);
    // Nothing holds what it had bound before it gave up.
    for port in [node.resp, node.http] {
        TcpListener::bind(("127.0.0.1", port)).unwrap();
    }
    UdpSocket::bind(("127.0.0.1", node.peer)).unwrap();
}

#[test]
fn a_wrong_configuration_is_named_with_key_and_file() {
    let cluster = Cluster::create(1);
    let node = &cluster.nodes[0];
    let original = fs::read_to_string(node.config()).unwrap();
    let file = node.config().display().to_string();

    edit_config(node, |text| format!("{text}\n[storage]\ncache_bites = 1\n"));
    assert_refused(&node.run_to_end(), &["cache_bites", &file]);
    edit_config(node, |_| original.replace("[node]", "[node]\ncolour = \"red\""));
    assert_refused(&node.run_to_end(), &["colour", &file]);
    edit_config(node, |_| original.replace(&format!("127.0.0.1:{}", node.resp), "nowhere"));
    assert_refused(&node.run_to_end(), &["resp", "nowhere", &file]);
    edit_config(node, |_| "this is no TOML".to_owned());
    assert_refused(&node.run_to_end(), &[&file]);
    fs::remove_file(node.config()).unwrap();
    assert_refused(&node.run_to_end(), &[&file]);
}

#[test]
fn a_data_directory_that_cannot_be_one_is_named() {
    let cluster = Cluster::create(1);
    let node = &cluster.nodes[0];
    // A file in its place, because nothing is unwritable to root.
    let data = node.home.join("data");
    fs::write(&data, "in the way").unwrap();
    assert_refused(&node.run_to_end(), &[&data.display().to_string()]);
    assert_eq!(fs::read_to_string(&data).unwrap(), "in the way");
}

#[test]
fn a_node_without_server_home_says_what_to_set() {
    let cluster = Cluster::create(1);
    let mut command = cluster.nodes[0].command();
    command.env_remove("SERVER_HOME");
    assert_refused(&run_to_end(command), &["SERVER_HOME"]);
}

#[test]
fn a_cluster_map_that_is_garbage_or_gone_is_refused() {
    let cluster = Cluster::create(1);
    let node = &cluster.nodes[0];
    let path = node.home.join("cluster.map");
    let named = path.display().to_string();
    let good = fs::read(&path).unwrap();
    let mut flipped = good.clone();
    flipped[good.len() / 2] ^= 0x10;
    for bad in [b"garbage".to_vec(), Vec::new(), good[..good.len() - 1].to_vec(), flipped] {
        fs::write(&path, bad).unwrap();
        assert_refused(&node.run_to_end(), &[&named]);
    }
    fs::remove_file(&path).unwrap();
    assert_refused(&node.run_to_end(), &[&named]);
}

#[test]
fn a_directory_in_use_is_not_made_a_cluster_again() {
    let cluster = Cluster::create(1);
    let before = fs::read(cluster.nodes[0].config()).unwrap();
    let mut again = super::cluster::dogsled();
    again.args(["cluster", "create", "--dir"]).arg(cluster.dir().join("cluster"));
    assert_refused(&run_to_end(again), &["not empty"]);
    assert_eq!(fs::read(cluster.nodes[0].config()).unwrap(), before);
}

#[test]
fn a_node_without_a_quorum_never_says_that_it_is_ready() {
    /// The first answers matter most: a node must not be ready before it has looked.
    const STARTS: usize = 5;
    const ANSWERS: usize = 50;
    for _ in 0..STARTS {
        let mut cluster = Cluster::create(3);
        let node = &mut cluster.nodes[0];
        node.spawn();
        let mut answers = 0;
        while answers < ANSWERS {
            assert!(node.is_running(), "the node ended: {node:?}");
            if let Some(status) = node.readiness() {
                assert_eq!(status, 503, "answer {answers} of a node that has never met a peer");
                answers += 1;
            }
        }
    }
}

#[test]
fn sigterm_stops_cleanly_and_a_restart_finds_the_data() {
    let mut cluster = Cluster::start(3);
    let mut connection = cluster.nodes[0].connect();
    for key in 0..100 {
        let reply = insist(&mut connection, &["SET", &format!("stop:{key}"), &format!("value {key}")]);
        assert!(reply.is_ok());
    }
    // The connection stays open: a client that idles does not hold up the stop.
    for node in &mut cluster.nodes {
        let status = node.terminate();
        assert_eq!(status.code(), Some(0), "{status}");
    }
    drop(connection);
    cluster.nodes.iter_mut().for_each(Node::spawn);
    cluster.await_ready();
    for node in &cluster.nodes {
        let mut connection = node.connect();
        for key in 0..100 {
            let reply = insist(&mut connection, &["GET", &format!("stop:{key}")]);
            assert_eq!(reply.as_bytes(), Some(format!("value {key}").as_bytes()));
        }
    }
}
