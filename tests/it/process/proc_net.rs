//! The sockets of a process, from `/proc` (Linux).

use std::collections::BTreeSet;
use std::fs;
use std::net::Ipv4Addr;

/// One TCP socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TcpSocket {
    pub local_port: u16,
    pub remote_port: u16,
    pub listening: bool,
}

/// The sockets that a process holds.
#[derive(Clone, Debug, Default)]
pub struct Sockets {
    pub tcp: Vec<TcpSocket>,
    pub udp_ports: Vec<u16>,
}

/// Looks at a process.
pub fn sockets_of(pid: u32) -> Sockets {
    let inodes = socket_inodes(pid);
    let mut sockets = Sockets::default();
    for (table, tcp) in [("tcp", true), ("tcp6", true), ("udp", false), ("udp6", false)] {
        // A machine without IPv6 has no table for it.
        let text = fs::read_to_string(format!("/proc/{pid}/net/{table}")).unwrap_or_default();
        for line in text.lines().skip(1) {
            let entry = parse(line).unwrap_or_else(|| panic!("/proc/{pid}/net/{table} has an unknown format: {line}"));
            if !inodes.contains(&entry.inode) {
                continue;
            }
            if tcp {
                sockets.tcp.push(entry.socket);
            } else {
                sockets.udp_ports.push(entry.socket.local_port);
            }
        }
    }
    sockets
}

struct Entry {
    socket: TcpSocket,
    inode: u64,
}

/// `sl local_address rem_address st tx_queue:rx_queue tr:when retrnsmt uid timeout inode …`
fn parse(line: &str) -> Option<Entry> {
    /// The state of a listening TCP socket in the kernel's table.
    const LISTEN: &str = "0A";
    let fields: Vec<&str> = line.split_ascii_whitespace().collect();
    let port = |address: &str| u16::from_str_radix(address.rsplit_once(':')?.1, 16).ok();
    let socket = TcpSocket {
        local_port: port(fields.get(1)?)?,
        remote_port: port(fields.get(2)?)?,
        listening: *fields.get(3)? == LISTEN,
    };
    Some(Entry { socket, inode: fields.get(9)?.parse().ok()? })
}

fn socket_inodes(pid: u32) -> BTreeSet<u64> {
    let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).expect("the process runs and is ours");
    let links = descriptors.flatten().filter_map(|entry| fs::read_link(entry.path()).ok());
    let inode = |link: &str| link.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok();
    links.filter_map(|link| inode(&link.to_string_lossy())).collect()
}

#[test]
fn the_own_sockets_are_found() {
    let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let client = std::net::TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
    let udp = std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let sockets = sockets_of(std::process::id());
    assert!(sockets.tcp.contains(&TcpSocket { local_port: port, remote_port: 0, listening: true }));
    let out = TcpSocket { local_port: client.local_addr().unwrap().port(), remote_port: port, listening: false };
    assert!(sockets.tcp.contains(&out), "{sockets:?}");
    assert!(sockets.udp_ports.contains(&udp.local_addr().unwrap().port()));
}
