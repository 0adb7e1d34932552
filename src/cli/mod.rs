//! The command line `dogsled`: noun, then verb.
//!
//! Results go to stdout, as a table or as JSON from the same value; news and errors go to
//! stderr. How the program ends is decided in [`exit`].

pub mod exit;
mod output;
mod processes;
mod cluster;
mod up;
mod down;
mod node;
mod serve;
mod server;
mod key;
mod namespace;
mod status;
mod members;
mod ring;
mod bench;
mod sim;

use std::ffi::OsString;

use clap::{CommandFactory, Parser, Subcommand};

use exit::Exit;

/// A durable, leaderless, self-healing key-value store
///
/// Exit codes: 0 done, 1 error, 2 the cluster is not healthy, 3 a write is in doubt.
#[derive(Parser, Debug)]
#[command(name = "dogsled", version, max_term_width = 100, subcommand_required = true, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Start a secure cluster on this machine; make it if it is not there
    Up(up::UpArgs),
    /// Stop the cluster that `dogsled up` has started
    Down(down::DownArgs),
    /// Run one node in the foreground
    Node(node::NodeArgs),
    /// Make the files of a cluster
    Cluster(cluster::ClusterArgs),
    /// Read a key
    Get(key::GetArgs),
    /// Write a key
    Put(key::PutArgs),
    /// Delete a key
    Del(key::DelArgs),
    /// Show where keys live, what replicas hold of them, and what became of writes
    Key(key::KeyArgs),
    /// Show, make and remove namespaces
    Namespace(namespace::NamespaceArgs),
    /// Show the nodes and whether all is well
    Status(status::StatusArgs),
    /// Show who is alive: what gossip holds of every member, and how each stands to a node
    Members(members::MembersArgs),
    /// Show who owns what
    Ring(ring::RingArgs),
    /// Put load on servers of the Redis protocol and measure what they make of it
    Bench(Box<crate::bench::BenchArgs>),
    /// Simulate a cluster with faults from one seed, and check what it promises
    Sim(sim::SimArgs),
}

/// Carries out a command line and says how the program ends.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> Exit {
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => return exit::of_arguments(&error),
    };
    exit::of(match cli.command {
        Command::Up(args) => up::run(&args),
        Command::Down(args) => down::run(&args),
        Command::Node(args) => node::run(args),
        Command::Cluster(args) => cluster::run(args),
        Command::Get(args) => key::get(&args),
        Command::Put(args) => key::put(&args),
        Command::Del(args) => key::del(&args),
        Command::Key(args) => key::run(&args),
        Command::Namespace(args) => namespace::run(&args),
        Command::Status(args) => status::run(&args),
        Command::Members(args) => members::run(&args),
        Command::Ring(args) => ring::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::Sim(args) => sim::run(&args),
    })
}

/// The whole command line, for its documentation.
pub fn command() -> clap::Command {
    Cli::command()
}

/// The environment as text; what is no text cannot be meant for this program.
fn environment() -> Vec<(String, String)> {
    let text = |text: OsString| text.into_string().ok();
    std::env::vars_os().filter_map(|(name, value)| Some((text(name)?, text(value)?))).collect()
}
