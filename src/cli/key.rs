//! Keys: `dogsled get`, `put`, `del`, and `key where`.

use std::ffi::OsString;
use std::io::{IsTerminal, Read};
use std::os::unix::ffi::OsStrExt;

use anyhow::Context;
use clap::{Args, Subcommand};

use super::exit::{Exit, Told};
use super::output::{Format, OutputArgs, Show, count, lines, table, write_out};
use super::server::ServerArgs;
use crate::client::http::encode_segment;
use crate::server::http::json;
use crate::types::{ConsistencyLevel, limits};

/// Which key, and how it is to be read or written.
#[derive(Args, Debug)]
struct AccessArgs {
    /// The key
    key: OsString,
    /// Its namespace
    #[arg(short, long, default_value = "default")]
    namespace: String,
    /// How many replicas must have spoken: one, two, three, quorum or all [default: that of the node]
    #[arg(short, long, value_name = "LEVEL")]
    consistency: Option<ConsistencyLevel>,
    /// How long it may take, as 500ms or 2s [default: that of the node]
    #[arg(long, value_name = "TIME")]
    timeout: Option<String>,
    #[command(flatten)]
    server: ServerArgs,
    #[command(flatten)]
    output: OutputArgs,
}

impl AccessArgs {
    /// The path of the key, with what was asked for behind it.
    fn path(&self, further: &[(&str, Option<&str>)]) -> String {
        let level = self.consistency.map(|level| level.to_string());
        let own = [("consistency", level.as_deref()), ("timeout", self.timeout.as_deref())];
        let given = own.iter().chain(further).filter_map(|(name, value)| Some((name, (*value)?)));
        let query: Vec<_> = given.map(|(name, value)| format!("{name}={}", encode_segment(value.as_bytes()))).collect();
        let path = format!(
            "/v1/ns/{}/keys/{}",
            encode_segment(self.namespace.as_bytes()),
            encode_segment(self.key.as_bytes())
        );
        if query.is_empty() { path } else { format!("{path}?{}", query.join("&")) }
    }
}

/// `dogsled get`
#[derive(Args, Debug)]
pub struct GetArgs {
    #[command(flatten)]
    access: AccessArgs,
}

/// `dogsled put`
#[derive(Args, Debug)]
pub struct PutArgs {
    #[command(flatten)]
    access: AccessArgs,
    /// The value, or - to read it from stdin
    value: OsString,
    /// After what time the value ends, as 60s or 500ms
    #[arg(long, value_name = "TIME")]
    ttl: Option<String>,
}

/// `dogsled del`
#[derive(Args, Debug)]
pub struct DelArgs {
    #[command(flatten)]
    access: AccessArgs,
}

/// `dogsled key …`
#[derive(Args, Debug)]
pub struct KeyArgs {
    #[command(subcommand)]
    command: KeyCommand,
}

#[derive(Subcommand, Debug)]
enum KeyCommand {
    /// Show where a key lives: its token, its partition, its replicas
    Where(WhereArgs),
}

#[derive(Args, Debug)]
struct WhereArgs {
    /// The key
    key: OsString,
    /// Its namespace
    #[arg(short, long, default_value = "default")]
    namespace: String,
    #[command(flatten)]
    server: ServerArgs,
    #[command(flatten)]
    output: OutputArgs,
}

pub(super) fn get(args: &GetArgs) -> anyhow::Result<Exit> {
    let access = &args.access;
    let client = access.server.client()?;
    match access.output.output {
        Format::Table => {
            let mut value = client.read_bytes(&access.path(&[]))?;
            // What another program reads is the value and nothing else.
            if std::io::stdout().is_terminal() {
                value.push(b'\n');
            }
            write_out(&value)?;
        }
        Format::Json => {
            let value: json::Value = client.read_json(&access.path(&[("format", Some("json"))]))?;
            access.output.print(&value)?;
        }
    }
    Ok(Exit::Done)
}

pub(super) fn put(args: &PutArgs) -> anyhow::Result<Exit> {
    let access = &args.access;
    let client = access.server.client()?;
    let value = if args.value == "-" { read_value()? } else { args.value.as_bytes().to_vec() };
    let path = access.path(&[("ttl", args.ttl.as_deref()), ("format", Some("json"))]);
    let written: json::Written = client.put(&path, &value)?;
    access.output.print(&written)?;
    Ok(Exit::Done)
}

fn read_value() -> anyhow::Result<Vec<u8>> {
    let mut value = Vec::new();
    let limit = limits::MAX_VALUE_BYTES;
    std::io::stdin().lock().take(limit as u64 + 1).read_to_end(&mut value).context("stdin cannot be read")?;
    if value.len() > limit {
        return Err(
            Told(format!("the value on stdin is longer than {limit} bytes, the most that any node takes")).into()
        );
    }
    Ok(value)
}

pub(super) fn del(args: &DelArgs) -> anyhow::Result<Exit> {
    let access = &args.access;
    let written: json::Written = access.server.client()?.delete(&access.path(&[("format", Some("json"))]))?;
    access.output.print(&written)?;
    Ok(Exit::Done)
}

pub(super) fn run(args: &KeyArgs) -> anyhow::Result<Exit> {
    let KeyCommand::Where(args) = &args.command;
    let path =
        format!("/v1/where/{}/{}", encode_segment(args.namespace.as_bytes()), encode_segment(args.key.as_bytes()));
    let place: json::Where = args.server.client()?.read_json(&path)?;
    args.output.print(&place)?;
    Ok(Exit::Done)
}

/// The form in which bytes are shown to people.
fn shown(bytes: &json::Bytes) -> String {
    let bytes = bytes.decode().unwrap_or_default();
    String::from_utf8_lossy(&bytes).chars().map(|char| if char.is_control() { '\u{fffd}' } else { char }).collect()
}

impl Show for json::Value {
    fn text(&self) -> String {
        shown(&self.value) + "\n"
    }
}

impl Show for json::Written {
    fn text(&self) -> String {
        format!("applied: on the disks of {}\n", count(self.acknowledged.into(), "replica"))
    }
}

impl Show for json::Where {
    fn text(&self) -> String {
        let mut rows = table(&["NODE", "ROLE", "PEER ADDRESS", "REACHABLE"]);
        for (place, replica) in self.replicas.iter().enumerate() {
            rows.add_row([
                replica.node.to_string(),
                if place == 0 { "primary".into() } else { "replica".into() },
                replica.peer_address.map_or_else(|| "-".into(), |address| address.to_string()),
                if replica.connected { "yes".into() } else { "no".into() },
            ]);
        }
        format!(
            "{} is in partition {} (token {}, epoch {})\n\n{}",
            shown(&self.key),
            self.partition,
            self.token,
            self.epoch,
            lines(&rows)
        )
    }
}
