//! What a node says of the members: its views, and what is held of whom.

use crate::protocol::Node;
use crate::protocol::membership::MembershipCounters;
use crate::types::{Health, Life, Load, NodeId, Now};

/// Who is alive, as one node sees it.
#[derive(Clone, Debug, Default, serde::Serialize, serde::Deserialize)]
pub struct MembersStatus {
    /// Whose view this is; none before the node has begun.
    pub node: Option<NodeId>,
    /// Its own life.
    pub life: Life,
    /// How ill it thinks it is itself: 0 is well, 8 is worst.
    pub ill_health: u32,
    /// K: how many peers it may know, which is never more than there are others.
    pub k_list: usize,
    /// How many of them it may watch.
    pub active_most: usize,
    /// Peers that it knows now: never more than `k_list`.
    pub known: usize,
    /// Every member of the map, itself left out.
    pub members: Vec<MemberStatus>,
    /// What it has counted.
    #[serde(skip)]
    pub counters: MembershipCounters,
    /// Datagrams that made no sense, ignored.
    pub datagrams_ignored: u64,
    /// Gossip of kinds that this version does not know, ignored.
    pub gossip_ignored: u64,
}

/// Where a member stands in a node's views.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Relation {
    /// Watched and talked with.
    Active,
    /// Known, as a spare part.
    Passive,
    /// A member like others.
    Other,
}

impl Relation {
    /// For people.
    pub fn name(self) -> &'static str {
        match self {
            Relation::Active => "active",
            Relation::Passive => "passive",
            Relation::Other => "other",
        }
    }
}

/// A member as a node sees it.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub struct MemberStatus {
    /// Its name.
    pub id: NodeId,
    /// Its failure domain.
    pub zone: String,
    /// Where it stands in the node's views.
    pub relation: Relation,
    /// What is held of it: down if a majority of its observers says so.
    pub health: Health,
    /// What the node itself thinks of it, if it watches it or did.
    pub own: Option<Health>,
    /// How many observers hold it for alive, suspect, down, as far as they spoke lately.
    pub observers: [usize; 3],
    /// Its life, as far as it is known here.
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

impl MembersStatus {
    pub(super) fn of(node: &Node, now: Now) -> MembersStatus {
        let membership = node.membership();
        let (active, passive): (Vec<NodeId>, Vec<NodeId>) =
            (membership.active().collect(), membership.passive().collect());
        let others = node.map().members.values().filter(|member| member.id != membership.me());
        let members = others.map(|member| {
            let id = member.id;
            let score = node.peers().score(now.moment, id);
            let micros = |time: std::time::Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
            MemberStatus {
                id,
                zone: member.zone.0.clone(),
                relation: match () {
                    () if active.contains(&id) => Relation::Active,
                    () if passive.contains(&id) => Relation::Passive,
                    () => Relation::Other,
                },
                health: membership.health(id),
                own: membership.own_opinion(id),
                observers: membership.tally(id),
                // Of a life that gossip has said nothing about, the greeting has told.
                life: membership.life_of(id).or_else(|| node.peers().incarnation(id).map(Life::begun)),
                connected: node.peers().is_connected(id),
                load: membership.load_of(id),
                round_trip_us: membership.round_trip(id).map(micros),
                strikes: membership.strikes(id),
                p95_us: score.p95.map(micros),
                missed_of_1000: score.missed_of_1000,
                slow: score.slow,
            }
        });
        MembersStatus {
            node: Some(membership.me()),
            life: membership.life(),
            ill_health: membership.ill_health(),
            k_list: membership.k_list(),
            active_most: membership.active_capacity(),
            known: active.len() + passive.len(),
            members: members.collect(),
            counters: membership.counters(),
            datagrams_ignored: 0,
            gossip_ignored: 0,
        }
    }

    /// How many of the others stand so in this node's views.
    pub fn related(&self, relation: Relation) -> usize {
        self.members.iter().filter(|member| member.relation == relation).count()
    }

    /// How many of the others are held for this.
    pub fn held(&self, health: Health) -> usize {
        self.members.iter().filter(|member| member.health == health).count()
    }

    /// Everything that membership has counted since the node began: name, meaning, count.
    /// The names are those of the metrics, and JSON has them too.
    pub fn counts(&self) -> [(&'static str, &'static str, u64); 16] {
        let counted = &self.counters;
        [
            ("membership_probes_sent", "pings sent on this node's own behalf", counted.probes),
            (
                "membership_probes_failed",
                "pings that neither the peer nor a helper answered for",
                counted.probes_failed,
            ),
            ("membership_indirect_probes", "pings that other nodes were asked for", counted.indirect_probes),
            ("membership_suspicions_raised", "suspicions that this node raised itself", counted.suspicions),
            (
                "membership_suspicions_refuted",
                "suspicions of this node that turned out false",
                counted.suspicions_refuted,
            ),
            ("membership_verdicts_down", "verdicts of this node that a peer is down", counted.verdicts_down),
            ("membership_refutations", "times this node had to refute what was said of itself", counted.refutations),
            ("membership_view_changes", "peers that came into the active view or left it", counted.view_changes),
            ("membership_rumours_begun", "rumours that this node began", counted.rumours_begun),
            ("membership_rumours_heard", "rumours heard for the first time", counted.rumours_heard),
            ("membership_rumours_repeated", "rumours heard again", counted.rumours_repeated),
            (
                "membership_rumours_grafted",
                "rumours that had to be asked for because the tree did not bring them",
                counted.rumours_grafted,
            ),
            ("membership_stalls", "times this node noticed that it had stood still", counted.stalls),
            (
                "membership_messages_ignored",
                "messages ignored because they named no member or contradicted themselves",
                counted.ignored,
            ),
            ("membership_datagrams_ignored", "datagrams ignored because they made no sense", self.datagrams_ignored),
            (
                "membership_gossip_ignored",
                "gossip ignored because its kind is not known to this version",
                self.gossip_ignored,
            ),
        ]
    }
}
