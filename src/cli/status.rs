//! `dogsled status`: the cluster, as one node sees it.

use clap::Args;

use super::exit::Exit;
use super::output::{OutputArgs, Show, count, lines, table};
use super::server::ServerArgs;
use crate::server::http::json;
use crate::types::Health;

/// `dogsled status`
#[derive(Args, Debug)]
pub struct StatusArgs {
    #[command(flatten)]
    server: ServerArgs,
    #[command(flatten)]
    output: OutputArgs,
}

pub(super) fn run(args: &StatusArgs) -> anyhow::Result<Exit> {
    let cluster: json::Cluster = args.server.client()?.read_json("/v1/cluster")?;
    args.output.print(&cluster)?;
    Ok(if is_healthy(&cluster) { Exit::Done } else { Exit::Unhealthy })
}

/// Whether every member is there, none is held for down, and every partition has its quorum.
fn is_healthy(cluster: &json::Cluster) -> bool {
    let is_there = |member: &json::Member| member.reachable && member.health != Health::Down;
    cluster.node.ready && cluster.members.iter().all(is_there)
}

impl Show for json::Cluster {
    fn text(&self) -> String {
        let there = self.members.iter().filter(|member| member.reachable).count();
        let mut text = format!(
            "{}: {there} of {} reachable from {}, {} without a quorum\n\n",
            if is_healthy(self) { "healthy" } else { "not healthy" },
            count(self.members.len(), "node"),
            self.node.id,
            count(self.node.partitions_without_quorum as usize, "partition"),
        );
        let mut rows = table(&["NODE", "STATE", "HEALTH", "LIFE", "PEER ADDRESS", "ZONE"]);
        for member in &self.members {
            let state = match (member.this_node, member.connected, member.reachable) {
                (true, ..) => "asked",
                (false, true, _) => "reachable",
                // No connection is kept with a member that this node has nothing to do with.
                (false, false, true) => "idle",
                (false, false, false) => "unreachable",
            };
            rows.add_row([
                member.id.to_string(),
                state.to_owned(),
                member.health.to_string(),
                member.incarnation.map_or_else(|| "-".into(), |life| life.to_string()),
                member.peer_address.to_string(),
                member.zone.clone(),
            ]);
        }
        text += &lines(&rows);
        text += &format!(
            "\ncluster {}, epoch {}, {}, {} each\n",
            self.cluster,
            self.epoch,
            count(self.partitions as usize, "partition"),
            count(self.replication_factor.into(), "replica"),
        );
        text += &format!(
            "{} {}: up {}, about {}, {} on disk\n",
            self.node.id,
            self.node.version,
            duration(self.node.uptime_s),
            count(usize::try_from(self.node.live_keys).unwrap_or(usize::MAX), "live key"),
            bytes(self.node.disk_bytes),
        );
        text
    }
}

/// The two largest units of a time.
fn duration(seconds: u64) -> String {
    match (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60, seconds % 60) {
        (0, 0, 0, seconds) => format!("{seconds} s"),
        (0, 0, minutes, seconds) => format!("{minutes} min {seconds} s"),
        (0, hours, minutes, _) => format!("{hours} h {minutes} min"),
        (days, hours, _, _) => format!("{days} d {hours} h"),
    }
}

/// A number of bytes in the largest unit of which there is at least one.
fn bytes(bytes: u64) -> String {
    let units = [(1u64 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    match units.into_iter().find(|(size, _)| bytes >= *size) {
        Some((size, unit)) => format!("{:.1} {unit}", bytes as f64 / size as f64),
        None => format!("{bytes} B"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::http::json::NodeName;
    use crate::types::NodeId;

    fn cluster(connected: [bool; 3], without_quorum: u32) -> json::Cluster {
        let held = connected.map(|connected| if connected { Health::Alive } else { Health::Down });
        held_for(connected, held, without_quorum)
    }

    fn held_for(connected: [bool; 3], held: [Health; 3], without_quorum: u32) -> json::Cluster {
        let id = |number: usize| NodeId::new(number as u32).expect("above zero");
        let member = |(index, connected): (usize, bool)| json::Member {
            id: NodeName(id(index + 1)),
            peer_address: ([127, 0, 0, 1], 9379 + index as u16).into(),
            zone: "local".into(),
            weight: 1,
            this_node: index == 0,
            connected,
            // What is not connected and not held for down is not needed.
            reachable: connected || held[index] != Health::Down,
            health: held[index],
            incarnation: connected.then_some(7),
        };
        json::Cluster {
            cluster: "00".repeat(16),
            epoch: 1,
            partitions: 256,
            replication_factor: 3,
            namespaces: Vec::new(),
            node: json::Node {
                id: NodeName(id(1)),
                incarnation: 7,
                version: "0.1.0".into(),
                ready: without_quorum == 0,
                partitions_without_quorum: without_quorum,
                live_keys: 1,
                disk_bytes: 3 << 19,
                uptime_s: 62,
            },
            members: connected.into_iter().enumerate().map(member).collect(),
        }
    }

    #[test]
    fn a_cluster_is_healthy_only_as_a_whole() {
        assert!(is_healthy(&cluster([true, true, true], 0)));
        assert!(!is_healthy(&cluster([true, true, false], 0)));
        assert!(!is_healthy(&cluster([true, true, true], 3)));
        let held = [Health::Alive, Health::Suspect, Health::Alive];
        assert!(is_healthy(&held_for([true, true, false], held, 0)), "who needs no connection is none the worse");
        let held = [Health::Alive, Health::Alive, Health::Down];
        assert!(!is_healthy(&held_for([true, true, true], held, 0)), "gossip holds it for down, connected or not");
    }

    #[test]
    fn the_text_says_what_people_need() {
        let expected = "\
not healthy: 2 of 3 nodes reachable from n1, 0 partitions without a quorum

NODE   STATE         HEALTH   LIFE   PEER ADDRESS     ZONE
n1     asked         alive    7      127.0.0.1:9379   local
n2     unreachable   down     -      127.0.0.1:9380   local
n3     reachable     alive    7      127.0.0.1:9381   local

cluster 00000000000000000000000000000000, epoch 1, 256 partitions, 3 replicas each
n1 0.1.0: up 1 min 2 s, about 1 live key, 1.5 MiB on disk
";
        assert_eq!(cluster([true, false, true], 0).text(), expected);
    }

    #[test]
    fn numbers_have_units() {
        for (seconds, text) in [(0, "0 s"), (3_599, "59 min 59 s"), (3_600, "1 h 0 min"), (90_000, "1 d 1 h")] {
            assert_eq!(duration(seconds), text);
        }
        for (number, text) in [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (5 << 40, "5.0 TiB")] {
            assert_eq!(bytes(number), text);
        }
    }
}
