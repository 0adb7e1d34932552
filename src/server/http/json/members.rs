//! Who is alive as one node sees it, as `GET /v1/members` answers.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::NodeName;
use crate::node::{MemberStatus, MembersStatus, NodeStatus, Relation};
use crate::types::{ClusterMap, Health, Life, Load, NodeId};

/// The members as the answering node sees them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Members {
    /// The cluster's id, 32 hexadecimal digits.
    pub cluster: String,
    /// The epoch of the map that names the members.
    pub epoch: u64,
    /// The answering node.
    pub node: NodeName,
    /// Its life.
    pub life: Life,
    /// How ill it thinks it is itself: 0 is well, 8 is worst.
    pub ill_health: u32,
    /// How many peers it may know and watch: its K, but no more than there are others.
    pub k_list: usize,
    /// Peers that it knows: both its views together.
    pub known: usize,
    /// How many peers it may watch.
    pub active_most: usize,
    /// Peers that it watches: its active view.
    pub active: usize,
    /// All other members.
    pub members: Vec<MemberSeen>,
    /// What it has counted since its life began.
    pub counters: BTreeMap<String, u64>,
}

/// A member as the answering node sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberSeen {
    /// Its name.
    pub id: NodeName,
    /// Its failure domain.
    pub zone: String,
    /// Where it stands in the node's views.
    pub relation: Relation,
    /// What is held of it: down if a majority of its observers say so.
    pub health: Health,
    /// What the node itself thinks of it, if it watches it or did lately.
    pub own: Option<Health>,
    /// Its observers, as far as they spoke lately.
    pub observers: Observers,
    /// Its life, if it is known here.
    pub life: Option<Life>,
    /// Whether there is a connection over which it may be asked.
    pub connected: bool,
    /// How busy it says it is.
    pub load: Load,
    /// The usual time from a probe to its answer, in microseconds.
    pub round_trip_us: Option<u64>,
    /// Probes that have failed lately, less those that have not.
    pub strikes: u32,
    /// The 95th percentile of the times of its answers to reads, in microseconds.
    pub p95_us: Option<u64>,
    /// How many of a thousand answers to reads were missed lately.
    pub missed_of_1000: u32,
    /// Whether reads ask it last because it is slow.
    pub slow: bool,
}

/// How many observers hold a member for what.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Observers {
    /// For alive.
    pub alive: usize,
    /// For suspect.
    pub suspect: usize,
    /// For down.
    pub down: usize,
}

impl Members {
    /// What a node says of the members.
    pub fn new(map: &ClusterMap, node: NodeId, status: &MembersStatus) -> Members {
        let counters = status.counts().into_iter().map(|(name, _, count)| {
            let name = name.strip_prefix("membership_").unwrap_or(name);
            (name.to_owned(), count)
        });
        Members {
            cluster: map.cluster.to_string(),
            epoch: map.epoch.0,
            node: NodeName(node),
            life: status.life,
            ill_health: status.ill_health,
            k_list: status.k_list,
            known: status.known,
            active_most: status.active_most,
            active: status.related(Relation::Active),
            members: status.members.iter().map(MemberSeen::from).collect(),
            counters: counters.collect(),
        }
    }
}

impl From<&MemberStatus> for MemberSeen {
    fn from(member: &MemberStatus) -> MemberSeen {
        let [alive, suspect, down] = member.observers;
        MemberSeen {
            id: NodeName(member.id),
            zone: member.zone.clone(),
            relation: member.relation,
            health: member.health,
            own: member.own,
            observers: Observers { alive, suspect, down },
            life: member.life,
            connected: member.connected,
            load: member.load,
            round_trip_us: member.round_trip_us,
            strikes: member.strikes,
            p95_us: member.p95_us,
            missed_of_1000: member.missed_of_1000,
            slow: member.slow,
        }
    }
}

/// What is known of one member, for the pages that say more of it than its health.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Standing {
    pub health: Health,
    pub connected: bool,
    /// Connected, or not in need of it: no connection is kept with members that share no
    /// partition with a node and that it does not watch.
    pub reachable: bool,
}

/// How all members stand as the answering node sees them, itself included.
pub(super) fn standings(map: &ClusterMap, status: &NodeStatus, members: &MembersStatus) -> BTreeMap<NodeId, Standing> {
    let shared = map.assignment.0.iter().filter(|replicas| replicas.contains(&status.id));
    let partners: BTreeSet<NodeId> = shared.flatten().copied().collect();
    let all = map.members.keys().map(|id| {
        let this_node = *id == status.id;
        let seen = members.members.iter().find(|member| member.id == *id);
        let health = seen.map_or(Health::Alive, |member| member.health);
        let connected = this_node || status.peers.iter().any(|peer| peer.id == *id && peer.connected);
        let is_kept = partners.contains(id) || seen.is_some_and(|member| member.relation == Relation::Active);
        let reachable = connected || (!is_kept && health != Health::Down);
        (*id, Standing { health, connected, reachable })
    });
    all.collect()
}
