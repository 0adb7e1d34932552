//! `dogsled node`: runs one node until it is told to stop.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::Context;
use clap::Args;

use super::exit::Exit;
use super::serve::serve;
use super::up::await_signals;
use crate::ambient;
use crate::config::logging::{self, LogSettings};
use crate::config::{self, Override, parse_set};

/// `dogsled node`
#[derive(Args, Debug)]
pub struct NodeArgs {
    /// Configuration of the node (TOML); see docs/configuration.md
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Override a key of the configuration; may be repeated
    #[arg(long, value_name = "SECTION.KEY=VALUE", value_parser = parse_set)]
    set: Vec<Override>,
    /// Listen for RESP clients here (listen.resp)
    #[arg(long, value_name = "ADDRESS")]
    resp: Option<SocketAddr>,
    /// Listen for HTTP clients here (listen.http)
    #[arg(long, value_name = "ADDRESS")]
    http: Option<SocketAddr>,
    /// Listen for other nodes here (listen.peer)
    #[arg(long, value_name = "ADDRESS")]
    peer: Option<SocketAddr>,
    /// Keep the data here (node.data_dir)
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
}

impl NodeArgs {
    fn overrides(&self) -> Vec<Override> {
        let flag = |key: &str, flag: &str, text: Option<String>| {
            text.map(|text| Override { key: key.to_owned(), text, from: flag.to_owned() })
        };
        let address = |address: Option<SocketAddr>| address.map(|address| address.to_string());
        let directory = self.data_dir.as_ref().map(|path| path.to_string_lossy().into_owned());
        let flags = [
            flag("listen.resp", "--resp", address(self.resp)),
            flag("listen.http", "--http", address(self.http)),
            flag("listen.peer", "--peer", address(self.peer)),
            flag("node.data_dir", "--data-dir", directory),
        ];
        self.set.iter().cloned().chain(flags.into_iter().flatten()).collect()
    }
}

pub(super) fn run(args: NodeArgs) -> anyhow::Result<Exit> {
    let signals = await_signals()?;
    let config = config::load(&args.config, super::environment(), args.overrides())?;
    let variable = |name: &str| std::env::var(name).ok();
    let settings = LogSettings::from_environment(variable, config.node.id, config.log.keep_days.get())?;
    std::fs::create_dir_all(&config.node.data_dir).with_context(|| {
        let directory = config.node.data_dir.display();
        format!("node.data_dir: {directory}: cannot be made; choose a directory that you may write to")
    })?;
    let log = logging::start(&settings, ambient::now)?;
    let result = serve(&config, &signals);
    if let Err(error) = &result {
        tracing::error!(target: logging::FATAL, node = %config.node.id, "{error:#}");
    }
    drop(log);
    result
}
