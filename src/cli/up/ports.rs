//! Whether the ports of a cluster are free, before anything is written or started.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};

use super::Node;
use crate::cli::cluster::Plan;
use crate::cli::exit::Told;
use crate::types::NodeId;

/// What a port is for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Use {
    Resp,
    Http,
    Peer,
}

impl Use {
    fn name(self) -> &'static str {
        match self {
            Use::Resp => "RESP",
            Use::Http => "HTTP",
            Use::Peer => "QUIC",
        }
    }

    fn key(self) -> &'static str {
        match self {
            Use::Resp => "resp",
            Use::Http => "http",
            Use::Peer => "peer",
        }
    }
}

/// One address that one node needs, and how the user can choose another.
pub(super) struct Need {
    node: NodeId,
    used: Use,
    address: SocketAddr,
    remedy: String,
}

/// What a new cluster needs.
pub(super) fn planned(plan: &Plan) -> Vec<Need> {
    let needs = plan.nodes.iter().flat_map(|node| {
        [(Use::Resp, node.resp_port), (Use::Http, node.http_port), (Use::Peer, node.peer_port)].map(|(used, port)| {
            Need {
                node: node.id,
                used,
                address: (Ipv4Addr::LOCALHOST, port).into(),
                remedy: format!("stop what uses it, or choose others with --{}-port", used.key()),
            }
        })
    });
    needs.collect()
}

/// What the nodes of a cluster that is there need.
pub(super) fn configured(nodes: &[Node]) -> Vec<Need> {
    let needs = nodes.iter().flat_map(|node| {
        let listen = &node.config.listen;
        [(Use::Resp, listen.resp), (Use::Http, listen.http), (Use::Peer, listen.peer)].map(|(used, address)| Need {
            node: node.id,
            used,
            address,
            remedy: format!("stop what uses it, or change listen.{} in {}", used.key(), node.config_file.display()),
        })
    });
    needs.collect()
}

/// Binds each address for a moment.
///
/// # Errors
/// One message that names every address that is taken.
pub(super) fn check(needs: &[Need]) -> anyhow::Result<()> {
    let mut problems = Vec::new();
    let mut seen: BTreeMap<(bool, SocketAddr), &Need> = BTreeMap::new();
    for need in needs {
        if let Some(other) = seen.insert((need.used == Use::Peer, need.address), need) {
            problems.push(format!("{need} is that of {} too; {}", other.node, need.remedy));
        } else if let Err(error) = bind(need) {
            let what = if error.kind() == io::ErrorKind::AddrInUse { "is in use".into() } else { format!("{error}") };
            problems.push(format!("{need} {what}; {}", need.remedy));
        }
    }
    if problems.is_empty() { Ok(()) } else { Err(Told(problems.join("\n")).into()) }
}

fn bind(need: &Need) -> io::Result<()> {
    match need.used {
        Use::Peer => UdpSocket::bind(need.address).map(drop),
        Use::Resp | Use::Http => TcpListener::bind(need.address).map(drop),
    }
}

impl fmt::Display for Need {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} port {} of {}", self.used.name(), self.address, self.node)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn need(node: u32, used: Use, address: SocketAddr) -> Need {
        Need { node: NodeId::new(node).expect("above zero"), used, address, remedy: "choose another".into() }
    }

    #[test]
    fn every_port_that_is_taken_is_told_at_once() {
        let tcp = TcpListener::bind("127.0.0.1:0").expect("a port");
        let udp = UdpSocket::bind("127.0.0.1:0").expect("a port");
        let (tcp_address, udp_address) = (tcp.local_addr().expect("bound"), udp.local_addr().expect("bound"));
        let free: SocketAddr = ([127, 0, 0, 1], 0).into();
        let error = check(&[
            need(1, Use::Resp, tcp_address),
            need(2, Use::Peer, udp_address),
            need(2, Use::Http, free),
            need(3, Use::Http, free),
        ]);
        let error = error.expect_err("taken").to_string();
        let expected = [
            format!("RESP port {tcp_address} of n1 is in use; choose another"),
            format!("QUIC port {udp_address} of n2 is in use; choose another"),
            format!("HTTP port {free} of n3 is that of n2 too; choose another"),
        ];
        assert_eq!(error.lines().collect::<Vec<_>>(), expected);
        // TCP and UDP do not meet.
        check(&[need(1, Use::Http, free), need(1, Use::Peer, free)]).expect("free");
    }
}
