//! `dogsled namespace`: which namespaces there are, and changing them.
//!
//! Problem: nodes do not agree on new maps while they run yet, so a change is written into
//! the map files of all nodes of a cluster directory, and takes effect when they are restarted.
//! Invariants: what will be written is shown first; every file ends with the same map, which
//! is one epoch above the newest that any of the nodes has, or as it was. A change that broke
//! off half way is completed by the same command.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand, ValueEnum};
use serde::Serialize;

use super::cluster::Layout;
use super::exit::{Exit, Told};
use super::output::{OutputArgs, Show, confirm, lines, table, tell};
use super::server::ServerArgs;
use crate::config;
use crate::node::map_file::{self, ChangeError};
use crate::server::http::json;
use crate::types::{ClusterMap, MergePolicy, Namespace};

/// `dogsled namespace …`
#[derive(Args, Debug)]
pub struct NamespaceArgs {
    #[command(subcommand)]
    command: NamespaceCommand,
}

#[derive(Subcommand, Debug)]
enum NamespaceCommand {
    /// Show the namespaces, as a running node or the files of a cluster have them
    List(ListArgs),
    /// Write a further namespace into the map files of all nodes
    Create(CreateArgs),
    /// Take a namespace and all its keys out of the map files of all nodes
    Remove(RemoveArgs),
}

#[derive(Args, Debug)]
struct ListArgs {
    /// Look into the files of this cluster directory instead of asking a node
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    #[command(flatten)]
    server: ServerArgs,
    #[command(flatten)]
    output: OutputArgs,
}

/// Which of two concurrent values is kept.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug, ValueEnum)]
pub enum Policy {
    /// The one that was written last
    #[default]
    Lww,
    /// Both, until a write that has seen them replaces them
    Siblings,
}

#[derive(Args, Debug)]
struct ChangeArgs {
    /// The name of the namespace
    name: String,
    /// Directory of the cluster
    #[arg(long, value_name = "DIR", default_value = "data/local")]
    dir: PathBuf,
    /// Do it without asking
    #[arg(short, long)]
    yes: bool,
    #[command(flatten)]
    output: OutputArgs,
}

#[derive(Args, Debug)]
struct CreateArgs {
    /// Which of two concurrent values is kept; it cannot be changed later
    #[arg(long, value_enum, default_value_t)]
    policy: Policy,
    #[command(flatten)]
    change: ChangeArgs,
}

#[derive(Args, Debug)]
struct RemoveArgs {
    #[command(flatten)]
    change: ChangeArgs,
}

impl From<Policy> for MergePolicy {
    fn from(policy: Policy) -> MergePolicy {
        match policy {
            Policy::Lww => MergePolicy::Lww,
            Policy::Siblings => MergePolicy::Siblings,
        }
    }
}

/// A namespace that a new cluster is to have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewNamespace {
    pub(super) name: String,
    pub(super) policy: MergePolicy,
}

impl NewNamespace {
    /// `NAME` or `NAME:POLICY`.
    pub(super) fn parse(text: &str) -> Result<NewNamespace, String> {
        let (name, policy) = text.split_once(':').unwrap_or((text, "lww"));
        Namespace::check_name(name)?;
        let policy = Policy::from_str(policy, false)
            .map_err(|_| format!("'{policy}' is no policy: use lww or siblings, as in {name}:siblings"))?;
        Ok(NewNamespace { name: name.to_owned(), policy: policy.into() })
    }
}

pub(super) fn run(args: &NamespaceArgs) -> anyhow::Result<Exit> {
    match &args.command {
        NamespaceCommand::List(args) => list(args),
        NamespaceCommand::Create(args) => {
            let (name, policy) = (&args.change.name, MergePolicy::from(args.policy));
            Namespace::check_name(name).map_err(Told)?;
            change(&args.change, "create", |map| match there(map, name) {
                None => Ok(Some(map.with_namespace(name, policy).map_err(|error| Told(error.0))?)),
                Some(there) if there.policy == policy => Ok(None),
                Some(_) => Err(Told(format!(
                    "there is a namespace '{name}' with another policy, which cannot be changed; choose another name"
                ))),
            })
        }
        NamespaceCommand::Remove(args) => {
            let name = &args.change.name;
            change(&args.change, "remove", |map| match there(map, name) {
                None => Ok(None),
                Some(_) => Ok(Some(map.without_namespace(name).map_err(|error| Told(error.0))?)),
            })
        }
    }
}

fn there<'a>(map: &'a ClusterMap, name: &str) -> Option<&'a Namespace> {
    map.namespaces.values().find(|namespace| namespace.name == name)
}

fn list(args: &ListArgs) -> anyhow::Result<Exit> {
    let namespaces = match &args.dir {
        None => args.server.client()?.read_json("/v1/namespaces")?,
        Some(dir) => {
            let newest = Files::of(dir)?.newest;
            json::Namespaces::new(&newest, &newest)
        }
    };
    args.output.print(&namespaces)?;
    Ok(Exit::Done)
}

/// The map files of a cluster directory.
struct Files {
    paths: Vec<PathBuf>,
    /// The newest map that any of the nodes has.
    newest: ClusterMap,
}

impl Files {
    fn of(dir: &Path) -> anyhow::Result<Files> {
        let layout = Layout::of_up(dir.to_owned(), None);
        let nodes = layout.nodes().map_err(|error| Told(format!("{}: cannot be read: {error}", dir.display())))?;
        let environment = super::environment();
        let (mut paths, mut newest) = (Vec::new(), None::<(ClusterMap, PathBuf)>);
        for id in nodes {
            let config = config::load(&layout.config(id), environment.clone(), [])?;
            let kept = config.node.data_dir.join("cluster.map");
            let kept = kept.exists().then_some(kept);
            for path in std::iter::once(config.cluster.map.clone()).chain(kept) {
                let map = map_file::read(&path)?;
                newest = Some(match newest {
                    None => (map, path),
                    Some((newest, other)) => newer((newest, other), (map, path))?,
                });
            }
            paths.push(config.cluster.map);
        }
        let Some((newest, _)) = newest else {
            return Err(Told(format!("there is no cluster in {}; name its directory with --dir", dir.display())).into());
        };
        paths.dedup();
        Ok(Files { paths, newest })
    }
}

fn newer(one: (ClusterMap, PathBuf), other: (ClusterMap, PathBuf)) -> anyhow::Result<(ClusterMap, PathBuf)> {
    let both = || format!("{} and {}", one.1.display(), other.1.display());
    if one.0.cluster != other.0.cluster {
        return Err(Told(format!("{} are of two clusters; put the right files there", both())).into());
    }
    if one.0.epoch == other.0.epoch && one.0 != other.0 {
        let epoch = one.0.epoch.0;
        return Err(Told(format!(
            "{} differ and are both of epoch {epoch}; copy the right one over the other",
            both()
        ))
        .into());
    }
    Ok(if other.0.epoch > one.0.epoch { other } else { one })
}

/// What was written, and when it takes effect.
#[derive(Serialize)]
struct Changed {
    namespace: String,
    epoch: u64,
    takes_effect: &'static str,
    files: Vec<PathBuf>,
}

fn change(
    args: &ChangeArgs,
    verb: &str,
    how: impl Fn(&ClusterMap) -> Result<Option<ClusterMap>, Told>,
) -> anyhow::Result<Exit> {
    let files = Files::of(&args.dir)?;
    let before = &files.newest;
    let after = how(before)?;
    let target = after.as_ref().unwrap_or(before);
    let mut behind = Vec::new();
    for path in &files.paths {
        if map_file::read(path)? != *target {
            behind.push(path.clone());
        }
    }
    if after.is_none() && behind.is_empty() {
        let state = if verb == "create" { "is there already" } else { "is not there" };
        return Err(Told(format!("the namespace '{}' {state} in {}", args.name, args.dir.display())).into());
    }
    tell(&plan(args, before, target, &behind));
    if !args.yes && !confirm("Write this?")? {
        tell("nothing was changed");
        return Ok(Exit::Error);
    }
    for path in &behind {
        let changed =
            map_file::change(path, |there| match there.epoch <= before.epoch && there.cluster == before.cluster {
                true => Ok(target.clone()),
                false => Err(Told(format!("{}: somebody else has changed it meanwhile; try again", path.display()))),
            });
        changed.map_err(|error| match error {
            ChangeError::Refused(told) => anyhow::Error::from(told),
            ChangeError::File(error) => error.into(),
        })?;
    }
    args.output.print(&Changed {
        namespace: args.name.clone(),
        epoch: target.epoch.0,
        takes_effect: "restart",
        files: behind,
    })?;
    Ok(Exit::Done)
}

fn plan(args: &ChangeArgs, before: &ClusterMap, after: &ClusterMap, files: &[PathBuf]) -> String {
    let mut text = format!("cluster {}, epoch {} becomes {}\n", before.cluster, before.epoch.0, after.epoch.0);
    let named = |namespace: &Namespace| format!("namespace '{}' ({})", namespace.name, word(namespace.policy));
    for namespace in after.namespaces.values().filter(|one| !before.namespaces.contains_key(&one.id)) {
        text += &format!("  + {}\n", named(namespace));
    }
    for namespace in before.namespaces.values().filter(|one| !after.namespaces.contains_key(&one.id)) {
        text += &format!("  - {}, with all its keys\n", named(namespace));
    }
    if before.epoch == after.epoch {
        text += &format!("  namespace '{}' is as wanted; only some files are behind\n", args.name);
    }
    let files: Vec<_> = files.iter().map(|path| format!("  {}", path.display())).collect();
    text + "in these files:\n" + &files.join("\n")
}

fn word(policy: MergePolicy) -> &'static str {
    match policy {
        MergePolicy::Lww => "lww",
        MergePolicy::Siblings => "siblings",
    }
}

impl Show for Changed {
    fn text(&self) -> String {
        format!(
            "written to {} as epoch {}; restart the nodes, with `dogsled down` and `dogsled up` for example\n",
            super::output::count(self.files.len(), "map file"),
            self.epoch
        )
    }
}

impl Show for json::Namespaces {
    fn text(&self) -> String {
        let mut rows = table(&["NAME", "ID", "POLICY", "STATE"]);
        for state in &self.namespaces {
            let what = match (state.in_use, state.after_restart) {
                (true, true) => "in use",
                (false, _) => "after a restart",
                (true, false) => "until a restart",
            };
            let namespace = &state.namespace;
            rows.add_row([&*namespace.name, &*namespace.id.to_string(), word(namespace.policy), what]);
        }
        let mut text = lines(&rows);
        if self.epoch_after_restart > self.epoch {
            let (now, then) = (self.epoch, self.epoch_after_restart);
            text += &format!("\nepoch {now}; restart the nodes for epoch {then}\n");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_is_a_name_with_or_without_its_policy() {
        let parsed = |text: &str| NewNamespace::parse(text).map(|new| (new.name, new.policy));
        assert_eq!(parsed("carts"), Ok(("carts".into(), MergePolicy::Lww)));
        assert_eq!(parsed("carts:siblings"), Ok(("carts".into(), MergePolicy::Siblings)));
        for bad in ["", ":lww", "Carts", "carts:", "carts:both", "a b"] {
            assert!(parsed(bad).is_err(), "{bad}");
        }
    }
}
