//! The views of many nodes side by side: for the hour when gossip disagrees.
//!
//! The map has the addresses that peers use, not those of HTTP. On one machine, and wherever
//! all nodes are configured alike, an HTTP port is as far from its peer port as at the node
//! that was asked; other nodes are named with `--ask`. Who answers says which node it is, of
//! which cluster, so a wrong guess is told as one and never taken for a view.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use serde::Serialize;

use crate::cli::exit::Told;
use crate::cli::output::{Show, count, lines, table};
use crate::cli::server::ServerArgs;
use crate::node::Relation;
use crate::server::http::json::{Cluster, MemberSeen, Members, NodeName};
use crate::types::{Health, NodeId};

/// How long one node may take to answer: one that hangs must not hide the others.
const PATIENCE: Duration = Duration::from_secs(5);
/// How many nodes are asked at the same time.
const AT_ONCE: usize = 32;

/// The views of all nodes that were asked.
#[derive(Serialize)]
pub(super) struct Views {
    views: Vec<View>,
    disputed: Vec<Disputed>,
}

/// What one node answered.
#[derive(Serialize)]
struct View {
    /// Whose it is, as far as that is known.
    node: Option<NodeName>,
    server: String,
    members: Option<Members>,
    error: Option<String>,
}

/// A member of whom the nodes hold different things.
#[derive(Serialize)]
struct Disputed {
    node: NodeName,
    alive: Vec<NodeName>,
    suspect: Vec<NodeName>,
    down: Vec<NodeName>,
}

/// A node to ask, and who should answer.
struct Target {
    node: Option<NodeId>,
    server: String,
}

/// Asks them all.
///
/// # Errors
/// If the first does not answer: it says who there is.
pub(super) fn ask(server: &ServerArgs, all: bool, further: &[String]) -> anyhow::Result<Views> {
    let cluster: Cluster = server.client()?.read_json("/v1/cluster")?;
    let mut targets = vec![Target { node: Some(cluster.node.id.0), server: server.address().to_owned() }];
    // Those that were named come first: a guess is not needed where an address was given.
    targets.extend(further.iter().map(|server| Target { node: None, server: server.clone() }));
    let mut views = ask_targets(server, &cluster.cluster, targets);
    if all {
        let known = |id: NodeName| views.iter().any(|view| view.members.is_some() && view.node == Some(id));
        let guessed = guess(server.address(), &cluster)?;
        let guessed = guessed.into_iter().filter(|target| target.node.is_some_and(|node| !known(NodeName(node))));
        let guessed = guessed.collect();
        views.extend(ask_targets(server, &cluster.cluster, guessed));
    }
    // A node may have been asked at two addresses: one answer of it is enough.
    views.sort_by_key(|view| (view.node.map(|node| node.0), view.members.is_none()));
    views.dedup_by(|later, earlier| later.node.is_some() && later.node == earlier.node);
    Ok(Views::of(views))
}

/// Where the other members should answer.
fn guess(server: &str, cluster: &Cluster) -> anyhow::Result<Vec<Target>> {
    let host = server.trim_end_matches('/').trim_start_matches("http://");
    let port = host.rsplit_once(':').map_or(Some(80), |(_, port)| port.parse::<u16>().ok());
    let port = port.ok_or_else(|| Told(format!("'{server}' has no port to guess the others' from: use --ask")))?;
    let asked = cluster.members.iter().find(|member| member.this_node);
    let offset = asked.map_or(0, |asked| i32::from(port) - i32::from(asked.peer_address.port()));
    let others = cluster.members.iter().filter(|member| !member.this_node);
    let targets = others.filter_map(|member| {
        let port = u16::try_from(i32::from(member.peer_address.port()) + offset).ok().filter(|port| *port > 0)?;
        let address = SocketAddr::new(member.peer_address.ip(), port);
        Some(Target { node: Some(member.id.0), server: format!("http://{address}") })
    });
    Ok(targets.collect())
}

fn ask_targets(server: &ServerArgs, cluster: &str, targets: Vec<Target>) -> Vec<View> {
    let mut views = Vec::with_capacity(targets.len());
    for some in targets.chunks(AT_ONCE) {
        std::thread::scope(|scope| {
            let asked: Vec<_> =
                some.iter().map(|target| scope.spawn(move || ask_one(server, cluster, target))).collect();
            views.extend(asked.into_iter().map(|view| view.join().expect("asking does not panic")));
        });
    }
    views
}

fn ask_one(server: &ServerArgs, cluster: &str, target: &Target) -> View {
    let client = server.client_of(&target.server, PATIENCE);
    let answer =
        client.and_then(|client| client.read_json::<Members>("/v1/members")).map_err(|error| error.to_string());
    let answer = answer.and_then(|members| match target.node {
        _ if members.cluster != cluster => Err(format!("a node of another cluster, {}, answers", members.cluster)),
        Some(node) if node != members.node.0 => {
            Err(format!("{} answers there: give its address with --ask", members.node))
        }
        _ => Ok(members),
    });
    let (members, error) = match answer {
        Ok(members) => (Some(members), None),
        Err(error) => (None, Some(error)),
    };
    let node = members.as_ref().map(|members| members.node).or(target.node.map(NodeName));
    View { node, server: target.server.clone(), members, error }
}

impl Views {
    fn of(views: Vec<View>) -> Views {
        let mut held: BTreeMap<NodeId, [Vec<NodeName>; 3]> = BTreeMap::new();
        for members in views.iter().filter_map(|view| view.members.as_ref()) {
            for member in &members.members {
                held.entry(member.id.0).or_default()[member.health as usize].push(members.node);
            }
        }
        let disputed = held.into_iter().filter(|(_, held)| held.iter().filter(|some| !some.is_empty()).count() > 1);
        let disputed =
            disputed.map(|(node, [alive, suspect, down])| Disputed { node: NodeName(node), alive, suspect, down });
        Views { disputed: disputed.collect(), views }
    }

    /// Whether every node answered and none holds another for down.
    pub(super) fn is_healthy(&self) -> bool {
        self.views.iter().all(|view| {
            let members = view.members.as_ref();
            members.is_some_and(|members| members.members.iter().all(|member| member.health != Health::Down))
        })
    }

    /// Everybody who answered, was asked, or was seen.
    fn columns(&self) -> Vec<NodeId> {
        let seen = self.views.iter().filter_map(|view| view.members.as_ref());
        let seen = seen.flat_map(|members| members.members.iter().map(|member| member.id.0));
        let mut all: Vec<NodeId> = seen.chain(self.views.iter().filter_map(|view| Some(view.node?.0))).collect();
        all.sort_unstable();
        all.dedup();
        all
    }
}

impl Show for Views {
    fn text(&self) -> String {
        let answered = self.views.iter().filter(|view| view.members.is_some()).count();
        let mut text = format!("{answered} of {} answered\n\n", count(self.views.len(), "node"));
        let columns = self.columns();
        let head: Vec<String> = columns.iter().map(NodeId::to_string).collect();
        let head: Vec<&str> = std::iter::once("SEEN BY").chain(head.iter().map(String::as_str)).collect();
        let mut rows = table(&head);
        for view in &self.views {
            let name = view.node.map_or_else(|| "?".to_owned(), |node| node.to_string());
            let cells = columns.iter().map(|id| match &view.members {
                None => "?",
                Some(members) if members.node.0 == *id => "-",
                Some(members) => members.members.iter().find(|member| member.id.0 == *id).map_or("?", symbol),
            });
            rows.add_row(std::iter::once(name.as_str()).chain(cells));
        }
        text += &lines(&rows);
        text += "\na alive, s suspect, D down; * watched by the one who sees; ? not known\n";
        for disputed in &self.disputed {
            let held = [("alive", &disputed.alive), ("suspect", &disputed.suspect), ("down", &disputed.down)];
            let held = held.into_iter().filter(|(_, by)| !by.is_empty()).map(|(health, by)| {
                let by: Vec<String> = by.iter().map(NodeName::to_string).collect();
                format!("{health} for {}", by.join(" "))
            });
            text += &format!("{} is {}\n", disputed.node, held.collect::<Vec<_>>().join(", "));
        }
        for view in &self.views {
            if let Some(error) = &view.error {
                let name = view.node.map_or_else(|| view.server.clone(), |node| node.to_string());
                text += &format!("{name}: {error}\n");
            }
        }
        text
    }
}

fn symbol(member: &MemberSeen) -> &'static str {
    match (member.health, member.relation) {
        (Health::Alive, Relation::Active) => "a*",
        (Health::Alive, _) => "a",
        (Health::Suspect, Relation::Active) => "s*",
        (Health::Suspect, _) => "s",
        (Health::Down, Relation::Active) => "D*",
        (Health::Down, _) => "D",
    }
}

#[cfg(test)]
#[path = "all_tests.rs"]
mod tests;
