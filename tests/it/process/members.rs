//! Twelve processes, each of which knows at most five others: they are one cluster, and
//! who is killed, stands still, or comes back is reported right by everybody.
//!
//! All views are looked at all the time. Whoever is held for down must be somebody to whom
//! something was done; the bound of five holds in every view that was ever seen.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use dogsled::ambient::moment;
use dogsled::client::http::{ClientError, HttpClient};
use dogsled::node::Relation;
use dogsled::server::http::json::{Members, NodeName, Ring, Value, Written};
use dogsled::types::{Health, NodeId};

use super::cluster::{Cluster, Node, PATIENCE};
use crate::http_harness;

const NODES: u16 = 12;
const K: usize = 5;
/// How long a node stands still.
const PAUSE: Duration = Duration::from_secs(10);
/// For how long is watched that nothing happens.
const QUIET: Duration = Duration::from_secs(3);
/// How long one answer may take before it is asked for again.
const ANSWER: Duration = Duration::from_secs(5);
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Twelve at once, in little memory.
const CONFIG: &str = "[gossip]\nk_list = 5\n[storage]\ncache_bytes = 4194304\n";

/// The views of one round, by node.
type Views = BTreeMap<NodeId, Members>;

/// Looks at all nodes, again and again.
struct Watch {
    clients: BTreeMap<NodeId, HttpClient>,
    /// Who cannot answer.
    silent: BTreeSet<NodeId>,
    /// Who may be held for down.
    accused: BTreeSet<NodeId>,
    /// Who was ever held for down by whom.
    down: BTreeSet<(NodeId, NodeId)>,
    seen: usize,
}

fn id(index: u16) -> NodeId {
    NodeId::new(u32::from(index) + 1).expect("above zero")
}

impl Watch {
    fn new(nodes: &[Node]) -> Watch {
        let client = |node: &Node| HttpClient::with_timeout(&node.http_address(), None, ANSWER).expect("an address");
        let clients = (0..).zip(nodes).map(|(index, node)| (id(index), client(node))).collect();
        let (silent, accused, down) = Default::default();
        Watch { clients, silent, accused, down, seen: 0 }
    }

    /// Asks everybody who can answer, and checks every answer.
    fn look(&mut self) -> Views {
        let mut views = Views::new();
        for (node, client) in self.clients.iter().filter(|(node, _)| !self.silent.contains(node)) {
            // One that is just being started does not answer yet.
            let Ok(members) = client.read_json::<Members>("/v1/members") else { continue };
            assert_eq!(members.node, NodeName(*node));
            let related = |relation| members.members.iter().filter(|member| member.relation == relation).count();
            let (active, passive) = (related(Relation::Active), related(Relation::Passive));
            assert_eq!((members.active, members.known, members.k_list), (active, active + passive, K), "{members:?}");
            assert!(members.known <= K && active <= members.active_most, "{node} knows too many: {members:?}");
            assert_eq!(members.members.len(), usize::from(NODES) - 1, "{members:?}");
            for member in members.members.iter().filter(|member| member.health == Health::Down) {
                let subject = member.id.0;
                assert!(self.accused.contains(&subject), "{node} holds {subject} for down: {members:?}");
                self.down.insert((*node, subject));
            }
            self.seen += 1;
            views.insert(*node, members);
        }
        views
    }

    /// Looks until all who can answer did, and it is so.
    fn until(&mut self, what: &str, is_so: impl Fn(&Views) -> bool) -> Views {
        let begin = moment();
        let end = begin.plus(PATIENCE);
        loop {
            let views = self.look();
            if views.len() + self.silent.len() == self.clients.len() && is_so(&views) {
                eprintln!("after {} ms: {what}", moment().since(begin).as_millis());
                return views;
            }
            assert!(moment() < end, "not so in time: {what}; {views:#?}");
            std::thread::sleep(LOOK_EVERY);
        }
    }

    /// Looks for as long as this.
    fn during(&mut self, time: Duration) {
        let end = moment().plus(time);
        while moment() < end {
            self.look();
            std::thread::sleep(LOOK_EVERY);
        }
    }

    /// Looks until everybody holds exactly these for down, nobody for suspect, and the active
    /// views of the living hang together.
    fn until_down(&mut self, what: &str, down: &[NodeId]) -> Views {
        let silent = self.silent.clone();
        self.until(what, |views| {
            let right = |members: &Members| {
                members.members.iter().all(|member| {
                    let wanted = if down.contains(&member.id.0) { Health::Down } else { Health::Alive };
                    // A node may think of itself what it wants.
                    member.health == wanted || silent.contains(&members.node.0)
                })
            };
            views.values().all(right) && is_connected(views)
        })
    }
}

/// Whether everybody in these views can be reached from everybody else by way of neighbours.
fn is_connected(views: &Views) -> bool {
    let mut reached: BTreeSet<NodeId> = views.keys().next().copied().into_iter().collect();
    loop {
        let is_linked = |one: &Members, other: NodeId| {
            one.members.iter().any(|member| member.id.0 == other && member.relation == Relation::Active)
        };
        let next = views.iter().find(|(node, members)| {
            let to_reached = || reached.iter().any(|other| is_linked(members, *other));
            let from_reached = || reached.iter().any(|other| is_linked(&views[other], **node));
            !reached.contains(node) && (to_reached() || from_reached())
        });
        match next {
            Some((node, _)) => reached.insert(*node),
            None => return reached.len() == views.len(),
        };
    }
}

/// The life in which everybody sees a node.
fn lives_of(views: &Views, node: NodeId) -> BTreeSet<(u64, u32)> {
    let seen = views.values().flat_map(|members| &members.members).filter(|member| member.id.0 == node);
    seen.filter_map(|member| member.life).map(|life| (life.incarnation.0, life.refutation)).collect()
}

#[test]
fn twelve_nodes_that_know_five_each_report_every_change_and_nothing_else() {
    let mut cluster = Cluster::create_configured(CONFIG, NODES);
    let mut watch = Watch::new(&cluster.nodes);
    cluster.nodes.iter_mut().for_each(Node::spawn);
    let (killed, paused) = (3, 8);
    watch.until_down("everybody is alive", &[]);
    is_one_ring(&watch);
    watch.during(QUIET);

    watch.accused.insert(id(killed));
    watch.silent.insert(id(killed));
    cluster.nodes[usize::from(killed)].kill();
    watch.until_down("the killed one is down for all", &[id(killed)]);
    let told = cluster.nodes[0].ask(&["members", "--all", "--output", "json"]);
    assert_eq!(told.status.code(), Some(2), "{told:?}");
    let views: serde_json::Value = serde_json::from_slice(&told.stdout).expect("JSON");
    assert_eq!(views["disputed"], serde_json::json!([]), "{views}");
    assert_eq!(cluster.nodes[0].ask(&["members"]).status.code(), Some(2));
    let metrics = http_harness::request(cluster.nodes[0].http, "GET", "/metrics", b"").body;
    let metrics = String::from_utf8(metrics).expect("text");
    for line in ["dogsled_members{health=\"down\"} 1.0", "dogsled_membership_k_list 5.0"] {
        assert!(metrics.lines().any(|found| found == line), "{line} is not in\n{metrics}");
    }
    assert_eq!(cluster.nodes[0].ask(&["status"]).status.code(), Some(2));

    watch.accused.insert(id(paused));
    watch.silent.insert(id(paused));
    let begin = moment();
    cluster.nodes[usize::from(paused)].pause();
    watch.until_down("the one that stands still is down for all", &[id(killed), id(paused)]);
    watch.during(PAUSE.saturating_sub(moment().since(begin)));
    cluster.nodes[usize::from(paused)].resume();
    watch.silent.remove(&id(paused));
    let views = watch.until_down("the one that stood still is back", &[id(killed)]);
    assert!(views[&id(paused)].life.refutation > 0, "it has refuted what was said of it: {views:#?}");
    assert!(lives_of(&views, id(paused)).iter().all(|(incarnation, _)| *incarnation == 1), "it was not restarted");
    watch.accused.remove(&id(paused));

    cluster.nodes[usize::from(killed)].spawn();
    watch.silent.remove(&id(killed));
    let views = watch.until_down("the killed one is back", &[]);
    assert!(lives_of(&views, id(killed)).iter().all(|(incarnation, _)| *incarnation == 2), "a new life: {views:#?}");
    watch.accused.clear();
    watch.during(QUIET);
    watch.until_down("all is as before", &[]);
    is_one_ring(&watch);
    assert!(cluster.nodes.iter_mut().all(Node::is_running));

    let down: BTreeSet<NodeId> = watch.down.iter().map(|(_, subject)| *subject).collect();
    assert_eq!(down, BTreeSet::from([id(killed), id(paused)]), "{:?}", watch.down);
    for (index, subject) in [(killed, id(killed)), (paused, id(paused))] {
        let by = watch.down.iter().filter(|(_, down)| *down == subject).count();
        // Whoever could: the one that stood still saw the killed one down, too.
        assert!(by >= usize::from(NODES) - 2, "only {by} held node {index} for down: {:?}", watch.down);
    }
    eprintln!("{} views looked at", watch.seen);
}

/// Everybody has the same ring, and what is written through one is read through another.
fn is_one_ring(watch: &Watch) {
    let rings: Vec<Ring> = watch.clients.values().map(|client| client.read_json("/v1/ring").expect("a ring")).collect();
    assert!(rings.iter().all(|ring| *ring == rings[0]), "not one ring");
    assert!(rings[0].owned.iter().all(|owned| owned.replica > 0), "{:?}", rings[0].owned);
    for (index, client) in (0..).zip(watch.clients.values()) {
        let path = format!("/v1/ns/default/keys/ring-{index}?format=json&consistency=quorum");
        insist(|| client.put::<Written>(&path, &[], b"one"));
        let other = &watch.clients[&id((index + 5) % NODES)];
        let value = insist(|| other.read_json::<Value>(&path));
        assert_eq!(value.value.text.as_deref(), Some("one"));
    }
}

/// Asks until it succeeds: a machine that stands still for a while is no matter here.
fn insist<T>(ask: impl Fn() -> Result<T, ClientError>) -> T {
    let end = moment().plus(PATIENCE);
    loop {
        match ask() {
            Ok(answer) => return answer,
            Err(error) => assert!(moment() < end, "{error}"),
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

#[test]
fn the_oracles_have_teeth() {
    let view = |node: u16, active: &[u16]| {
        let member = |index: u16| {
            let relation = if active.contains(&index) { "active" } else { "other" };
            serde_json::json!({"id": id(index), "zone": "z", "relation": relation, "health": "alive", "own": null,
                "observers": {"alive": 0, "suspect": 0, "down": 0}, "life": null, "connected": true, "load": "normal",
                "round_trip_us": null, "strikes": 0, "p95_us": null, "missed_of_1000": 0, "slow": false})
        };
        let others: Vec<_> = (0..4)
            .filter(|index| *index != node)
            .map(|index| {
                let mut member = member(index);
                member["id"] = serde_json::json!(id(index).to_string());
                member
            })
            .collect();
        let json = serde_json::json!({"cluster": "", "epoch": 1, "node": id(node).to_string(),
            "life": {"incarnation": 1, "refutation": 0}, "ill_health": 0, "k_list": 5, "known": active.len(),
            "active_most": 4, "active": active.len(), "members": others, "counters": {}});
        (id(node), serde_json::from_value::<Members>(json).expect("the shape"))
    };
    assert!(is_connected(&Views::from([view(0, &[1]), view(1, &[2]), view(2, &[]), view(3, &[0])])));
    assert!(!is_connected(&Views::from([view(0, &[1]), view(1, &[0]), view(2, &[3]), view(3, &[2])])));
}
