//! What `dogsled up` prints when the cluster is ready.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::Node;
use super::start::Cluster;
use crate::cli::output::{Show, lines, table};
use crate::types::NodeId;

/// The running nodes, and what to do with them.
#[derive(Serialize)]
pub(super) struct Summary {
    dir: PathBuf,
    nodes: Vec<RunningNode>,
    #[serde(rename = "try")]
    examples: Vec<String>,
}

#[derive(Serialize)]
struct RunningNode {
    node: NodeId,
    pid: u32,
    resp: SocketAddr,
    http: SocketAddr,
    quic: SocketAddr,
}

impl Summary {
    pub(super) fn new(dir: &Path, cluster: &Cluster, nodes: &[Node]) -> Summary {
        let running = nodes.iter().map(|node| RunningNode {
            node: node.id,
            pid: cluster.pid_of(node.id),
            resp: node.config.listen.resp,
            http: node.config.listen.http,
            quic: node.config.listen.peer,
        });
        let running: Vec<_> = running.collect();
        let examples = running.first().map(examples).unwrap_or_default();
        Summary { dir: dir.to_owned(), nodes: running, examples }
    }
}

fn examples(first: &RunningNode) -> Vec<String> {
    let server = format!("http://{}", first.http);
    let get = if server == crate::cli::server::DEFAULT_SERVER {
        format!("{} get hello", own_name())
    } else {
        format!("{} get hello --server {server}", own_name())
    };
    let host = match first.resp.ip() {
        ip if ip == std::net::Ipv4Addr::LOCALHOST => String::new(),
        ip => format!("-h {ip} "),
    };
    vec![
        format!("redis-cli {host}-p {} SET hello world", first.resp.port()),
        format!("curl {server}/v1/ns/default/keys/hello"),
        get,
    ]
}

/// How this program is called from here: by its name alone where the shell finds it.
fn own_name() -> String {
    let own = std::env::current_exe().unwrap_or_default();
    let name = own.file_name().unwrap_or_default();
    let path = std::env::var_os("PATH").unwrap_or_default();
    if std::env::split_paths(&path).any(|folder| folder.join(name).canonicalize().is_ok_and(|found| found == own)) {
        return name.to_string_lossy().into_owned();
    }
    let here = std::env::current_dir().unwrap_or_default();
    own.strip_prefix(here).unwrap_or(&own).display().to_string()
}

impl Show for Summary {
    fn text(&self) -> String {
        let mut rows = table(&["NODE", "PID", "RESP", "HTTP", "QUIC"]);
        for node in &self.nodes {
            rows.add_row([
                node.node.to_string(),
                node.pid.to_string(),
                node.resp.to_string(),
                node.http.to_string(),
                node.quic.to_string(),
            ]);
        }
        let mut text = format!("{}\nTry:\n", lines(&rows));
        self.examples.iter().for_each(|line| text += &format!("  {line}\n"));
        text
    }
}
