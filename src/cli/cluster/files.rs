//! What a cluster looks like on disk, and how it comes to be.
//!
//! ```text
//! DIR/n1/node.toml      the node's configuration
//! DIR/n1/cluster.map    the cluster map it begins with
//! DIR/n1/data/          its data, once it has run
//! DIR/n1/log/           its log (SERVER_HOME is DIR/n1)
//! CERTS/ca.pem, ca.key  the cluster's authority
//! CERTS/n1.pem, n1.key  the node's certificate
//! ```
//!
//! Invariant: a directory either holds a whole cluster or none: the nodes are written into
//! a directory beside it, which then takes its name in one step; if anything fails, all that
//! was made goes again.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Component, Path, PathBuf};

use toml::Value;

use super::certificates::{self, tls_files};
use super::undo::Undo;
use super::{Plan, PlannedNode};
use crate::ambient;
use crate::cli::exit::Told;
use crate::node::map_file;
use crate::protocol::ring;
use crate::types::{ClusterId, ClusterMap, Epoch, Member, Namespace, NodeId, Zone};

const CONFIG_NAME: &str = "node.toml";
const MAP_NAME: &str = "cluster.map";

/// Where the files of a cluster are.
#[derive(Clone, Debug)]
pub(in crate::cli) struct Layout {
    pub(in crate::cli) dir: PathBuf,
    pub(in crate::cli) certs: PathBuf,
}

impl Layout {
    /// The places of `dogsled up`: `data/NAME` has its certificates in `certs/NAME`, so that
    /// data and keys lie apart; any other directory has them inside.
    pub(in crate::cli) fn of_up(dir: PathBuf, certs: Option<PathBuf>) -> Layout {
        let beside = || {
            let (parent, name) = (dir.parent()?, dir.file_name()?);
            (parent.file_name()? == "data").then(|| parent.with_file_name("certs").join(name))
        };
        let certs = certs.or_else(beside).unwrap_or_else(|| dir.join("certs"));
        Layout { dir, certs }
    }

    /// The folder of a node, which is its `SERVER_HOME`.
    pub(in crate::cli) fn home(&self, node: NodeId) -> PathBuf {
        self.dir.join(node.to_string())
    }

    /// The configuration of a node.
    pub(in crate::cli) fn config(&self, node: NodeId) -> PathBuf {
        self.home(node).join(CONFIG_NAME)
    }

    /// The nodes of the cluster that is there, in their order; none if there is no cluster.
    pub(in crate::cli) fn nodes(&self) -> io::Result<Vec<NodeId>> {
        let entries = match fs::read_dir(&self.dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let mut nodes = Vec::new();
        for entry in entries {
            let id = entry?.file_name().to_str().and_then(|name| name.parse::<NodeId>().ok());
            nodes.extend(id.filter(|id| self.config(*id).is_file()));
        }
        nodes.sort_unstable();
        Ok(nodes)
    }
}

/// Makes the files of a cluster.
///
/// # Errors
/// One message; whatever was made is gone again.
pub(in crate::cli) fn create(plan: &Plan) -> anyhow::Result<()> {
    let Layout { dir, certs } = &plan.layout;
    refuse_used(dir)?;
    let map = cluster_map(plan)?;
    map.validate()?;

    let mut undo = Undo::default();
    let cannot = |error: io::Error| cannot_write(dir, &error);
    let parent = dir.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    undo.create_dir_all(parent).map_err(cannot)?;
    let name = dir.file_name().ok_or_else(|| Told(format!("{}: not the name of a directory", dir.display())))?;
    let draft = parent.join(format!(".{}.new{}", name.to_string_lossy(), std::process::id()));
    undo.create_dir_all(&draft).map_err(cannot)?;

    // Certificates that lie inside the cluster's directory come to be with it.
    let inside = certs.strip_prefix(dir).ok();
    let certs_now = inside.map_or_else(|| certs.clone(), |inside| draft.join(inside));
    certificates::create(&certs_now, plan.nodes.iter().map(|node| node.id), &mut undo)?;
    let certs_from_node = match inside {
        Some(inside) => Path::new("..").join(inside),
        None => relative(&absolute(dir)?.join("n"), &absolute(certs)?),
    };
    for node in &plan.nodes {
        let home = draft.join(node.id.to_string());
        undo.create_dir_all(&home).map_err(cannot)?;
        let (map_path, config_path) = (home.join(MAP_NAME), home.join(CONFIG_NAME));
        undo.note(&map_path);
        map_file::write(&map_path, &map)?;
        undo.note(&config_path);
        write_synced(&config_path, &config_text(plan, *node, &certs_from_node)).map_err(cannot)?;
        File::open(&home).and_then(|home| home.sync_all()).map_err(cannot)?;
    }
    fs::rename(&draft, dir).map_err(cannot)?;
    undo.keep();
    File::open(parent).and_then(|parent| parent.sync_all()).map_err(cannot)?;
    Ok(())
}

fn write_synced(path: &Path, text: &str) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

/// What the user is told about a directory that cannot be used.
pub(in crate::cli) fn cannot_write(path: &Path, error: &io::Error) -> Told {
    Told(format!("{}: cannot be written: {error}; choose a directory that you may write to", path.display()))
}

fn refuse_used(dir: &Path) -> anyhow::Result<()> {
    let mut entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries.map_err(|error| cannot_write(dir, &error))?,
    };
    match entries.next() {
        None => Ok(()),
        Some(_) => Err(Told(format!("{} is not empty; choose another directory, or remove it", dir.display())).into()),
    }
}

fn cluster_map(plan: &Plan) -> anyhow::Result<ClusterMap> {
    let member = |node: &PlannedNode| Member {
        id: node.id,
        peer_address: loopback(node.peer_port),
        // Nodes of one machine fail together, so they share a zone.
        zone: Zone("local".into()),
        weight: 1,
    };
    let members: BTreeMap<NodeId, Member> = plan.nodes.iter().map(|node| (node.id, member(node))).collect();
    let default = Namespace::default_namespace();
    let mut map = ClusterMap {
        next_namespace: default.id.0 + 1,
        cluster: ClusterId(ambient::seed()),
        epoch: Epoch(1),
        partitions: plan.partitions,
        replication_factor: plan.replication_factor,
        assignment: ring::place(None, &members, plan.replication_factor, plan.partitions),
        members,
        namespaces: BTreeMap::from([(default.id, default)]),
    };
    for namespace in &plan.namespaces {
        let further = map.with_namespace(&namespace.name, namespace.policy);
        map = further.map_err(|error| Told(format!("--namespace {}: {}", namespace.name, error.0)))?;
    }
    // They are there from the beginning.
    map.epoch = Epoch(1);
    Ok(map)
}

fn loopback(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

fn config_text(plan: &Plan, node: PlannedNode, certs: &Path) -> String {
    let tls = tls_files(certs, node.id);
    let path = |path: PathBuf| Value::String(path.to_string_lossy().into_owned());
    let text = |text: String| Value::String(text);
    let mut sections = vec![
        ("node", vec![("id", text(node.id.to_string())), ("data_dir", path("data".into()))]),
        (
            "listen",
            vec![
                ("resp", text(loopback(node.resp_port).to_string())),
                ("http", text(loopback(node.http_port).to_string())),
                ("peer", text(loopback(node.peer_port).to_string())),
            ],
        ),
        ("tls", vec![("ca", path(tls.ca)), ("certificate", path(tls.certificate)), ("key", path(tls.key))]),
        ("cluster", vec![("map", path(MAP_NAME.into()))]),
    ];
    if plan.allow_flush {
        sections.push(("clients", vec![("allow_flush", Value::Boolean(true))]));
    }
    let mut file = format!(
        "# Node {} of a Dogsled cluster. Every key is explained in docs/configuration.md; those that\n\
         # are not here have their defaults. Relative paths begin at the folder of this file.\n",
        node.id
    );
    for (section, keys) in sections {
        file += &format!("\n[{section}]\n");
        keys.iter().for_each(|(key, value)| file += &format!("{key} = {value}\n"));
    }
    file
}

/// A path without links, of which the last part need not be there yet.
fn absolute(path: &Path) -> anyhow::Result<PathBuf> {
    let path = std::path::absolute(path)?;
    match (path.parent(), path.file_name()) {
        (Some(parent), Some(name)) => Ok(fs::canonicalize(parent).unwrap_or_else(|_| parent.to_owned()).join(name)),
        _ => Ok(path),
    }
}

/// The way from one directory to another, so that a project can be moved as a whole.
fn relative(from: &Path, to: &Path) -> PathBuf {
    let shared = from.components().zip(to.components()).take_while(|(a, b)| a == b).count();
    let up = from.components().skip(shared).map(|_| Component::ParentDir);
    up.chain(to.components().skip(shared)).collect()
}

#[cfg(test)]
#[path = "files_tests.rs"]
mod tests;
