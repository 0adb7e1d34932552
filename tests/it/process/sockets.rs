//! Nodes speak QUIC with each other and nothing else.

use super::cluster::{Cluster, insist};
use super::proc_net::sockets_of;

#[test]
fn there_is_no_tcp_between_nodes() {
    let cluster = Cluster::start(3);
    // Each node has just coordinated quorum writes, so each has spoken with the others.
    let mut clients: Vec<_> = cluster.nodes.iter().map(|node| node.connect()).collect();
    for (number, client) in clients.iter_mut().enumerate() {
        for key in 0..20 {
            assert!(insist(client, &["SET", &format!("sockets:{number}:{key}"), "value"]).is_ok());
        }
    }
    let of_nodes: Vec<u16> = cluster.nodes.iter().flat_map(|node| [node.resp, node.http, node.peer]).collect();
    for node in &cluster.nodes {
        let sockets = sockets_of(node.pid());
        let mut listening: Vec<u16> = sockets.tcp.iter().filter(|s| s.listening).map(|s| s.local_port).collect();
        listening.sort_unstable();
        assert_eq!(listening, [node.resp, node.http], "{sockets:?}");
        for socket in sockets.tcp.iter().filter(|socket| !socket.listening) {
            // Whatever is not listening was accepted from a client.
            assert!([node.resp, node.http].contains(&socket.local_port), "{socket:?}");
            assert!(!of_nodes.contains(&socket.remote_port), "{socket:?}");
        }
        assert!(sockets.tcp.iter().any(|socket| !socket.listening), "our own connection is not seen: {sockets:?}");
        assert!(sockets.udp_ports.contains(&node.peer), "{sockets:?}");
    }
}
