//! Keys: `dogsled get`, `put`, `del`, and `key where`, `resolve`, `history`, `explain`.

mod history;

use std::ffi::OsString;
use std::io::{IsTerminal, Read};
use std::os::unix::ffi::OsStrExt;

use anyhow::Context;
use clap::{Args, Subcommand};

use super::exit::{Exit, Told};
use super::output::{Format, OutputArgs, Show, count, lines, table, write_out};
use super::server::ServerArgs;
use crate::client::http::{ClientError, KeyReply, encode_segment};
use crate::server::http::json;
use crate::types::{ConsistencyLevel, OpId, limits};

/// What a write has seen.
const CONTEXT: &str = "dogsled-context";
/// The name of a write.
const OP_ID: &str = "idempotency-key";

/// Which key, and how it is to be read or written.
#[derive(Args, Debug)]
struct AccessArgs {
    /// The key
    key: OsString,
    /// Its namespace
    #[arg(short, long, default_value = "default")]
    namespace: String,
    /// How many replicas must have spoken: one, two, three, quorum or all, and any for writes
    /// [default: that of the node]
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
        self.path_with("", further)
    }

    /// The path of something below the key.
    fn path_below(&self, below: &str) -> String {
        self.path_with(below, &[])
    }

    fn path_with(&self, below: &str, further: &[(&str, Option<&str>)]) -> String {
        let level = self.consistency.map(|level| level.to_string());
        let own = [("consistency", level.as_deref()), ("timeout", self.timeout.as_deref())];
        let given = own.iter().chain(further).filter_map(|(name, value)| Some((name, (*value)?)));
        let query: Vec<_> = given.map(|(name, value)| format!("{name}={}", encode_segment(value.as_bytes()))).collect();
        let path = format!(
            "/v1/ns/{}/keys/{}{below}",
            encode_segment(self.namespace.as_bytes()),
            encode_segment(self.key.as_bytes())
        );
        if query.is_empty() { path } else { format!("{path}?{}", query.join("&")) }
    }
}

/// What a write says of itself.
#[derive(Args, Debug)]
struct WriteArgs {
    /// What it has seen, where siblings are kept: the context that `dogsled get` shows
    #[arg(long, value_name = "TOKEN")]
    context: Option<String>,
    /// A name for this write, up to 32 hexadecimal digits or a UUID: sent again with it, it is
    /// applied once, and `dogsled key resolve` tells what became of it
    #[arg(long, value_name = "ID")]
    op_id: Option<OpId>,
}

impl WriteArgs {
    fn headers<'a>(&'a self, op_id: Option<&'a str>) -> Vec<(&'a str, &'a str)> {
        let context = self.context.as_deref().map(|context| (CONTEXT, context));
        context.into_iter().chain(op_id.map(|op| (OP_ID, op))).collect()
    }

    /// A write in doubt that has a name can be asked about.
    fn with_remedy(&self, error: ClientError, access: &AccessArgs) -> ClientError {
        match (error, self.op_id) {
            (ClientError::InDoubt(text), Some(op)) => {
                let key = access.key.to_string_lossy();
                ClientError::InDoubt(format!("{text}; `dogsled key resolve {key} {op}` tells what became of it"))
            }
            (error, _) => error,
        }
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
    #[command(flatten)]
    write: WriteArgs,
}

/// `dogsled del`
#[derive(Args, Debug)]
pub struct DelArgs {
    #[command(flatten)]
    access: AccessArgs,
    #[command(flatten)]
    write: WriteArgs,
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
    /// Find out what became of a write; if it was not applied, it never will be
    Resolve(ResolveArgs),
    /// Show what each replica holds of a key, and what its log knows of it
    History(HistoryArgs),
    /// Read a key, and show the way that the read takes beside what each replica holds
    Explain(ExplainArgs),
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

#[derive(Args, Debug)]
struct ResolveArgs {
    #[command(flatten)]
    access: AccessArgs,
    /// The op-id that the write carried
    op_id: OpId,
}

#[derive(Args, Debug)]
struct HistoryArgs {
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

#[derive(Args, Debug)]
struct ExplainArgs {
    #[command(flatten)]
    access: AccessArgs,
}

pub(super) fn get(args: &GetArgs) -> anyhow::Result<Exit> {
    let access = &args.access;
    let client = access.server.client()?;
    match access.output.output {
        Format::Table => {
            let mut value = match client.read_key(&access.path(&[]))? {
                KeyReply::Value(value) => value,
                KeyReply::Several(json) => {
                    let value: json::Value = client.understand(&json)?;
                    access.output.print(&value)?;
                    return Ok(Exit::Done);
                }
            };
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
    let op_id = args.write.op_id.map(|op| op.to_string());
    let written: Result<json::Written, _> = client.put(&path, &args.write.headers(op_id.as_deref()), &value);
    let written = written.map_err(|error| args.write.with_remedy(error, access))?;
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
    let path = access.path(&[("format", Some("json"))]);
    let op_id = args.write.op_id.map(|op| op.to_string());
    let client = access.server.client()?;
    let written: Result<json::Written, _> = client.delete(&path, &args.write.headers(op_id.as_deref()));
    let written = written.map_err(|error| args.write.with_remedy(error, access))?;
    access.output.print(&written)?;
    Ok(Exit::Done)
}

pub(super) fn run(args: &KeyArgs) -> anyhow::Result<Exit> {
    match &args.command {
        KeyCommand::Where(args) => show_place(args),
        KeyCommand::Resolve(args) => resolve(args),
        KeyCommand::History(args) => {
            let history = history::read(&args.server.client()?, &args.namespace, &args.key)?;
            args.output.print(&history)?;
            Ok(Exit::Done)
        }
        KeyCommand::Explain(ExplainArgs { access }) => {
            let client = access.server.client()?;
            // What the replicas held before the read: it mends some of them.
            let history = history::read(&client, &access.namespace, &access.key)?;
            let explained: json::Explained = client.read_json(&access.path(&[("explain", Some("true"))]))?;
            access.output.print(&history::Explanation { explained, history })?;
            Ok(Exit::Done)
        }
    }
}

fn resolve(args: &ResolveArgs) -> anyhow::Result<Exit> {
    let path = args.access.path_below("/resolve");
    let op_id = args.op_id.to_string();
    let resolved: json::Resolved = args.access.server.client()?.post(&path, &[(OP_ID, &op_id)])?;
    args.access.output.print(&resolved)?;
    Ok(Exit::Done)
}

fn show_place(args: &WhereArgs) -> anyhow::Result<Exit> {
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
        if self.siblings.is_empty() {
            return shown(&self.value) + "\n";
        }
        let mut rows = table(&["VALUE", "NODE", "WRITTEN (MS)", "ENDS (MS)"]);
        let own = (&self.value, &self.version, self.expires_at_ms);
        let others = self.siblings.iter().map(|sibling| (&sibling.value, &sibling.version, sibling.expires_at_ms));
        for (value, version, ends) in std::iter::once(own).chain(others) {
            let ends = ends.map_or_else(|| "-".to_owned(), |at| at.to_string());
            rows.add_row([short(&shown(value)), version.node.to_string(), version.written_at_ms.to_string(), ends]);
        }
        format!(
            "{} holds {} that were written at the same time:\n\n{}\nto replace them: --context {}\n",
            shown(&self.key),
            count(self.siblings.len() + 1, "value"),
            lines(&rows),
            self.context.as_deref().unwrap_or_default()
        )
    }
}

/// The beginning of a text that may be long.
fn short(text: &str) -> String {
    const LONGEST: usize = 60;
    if text.chars().count() <= LONGEST {
        return text.to_owned();
    }
    text.chars().take(LONGEST - 1).chain(['…']).collect()
}

impl Show for json::Resolved {
    fn text(&self) -> String {
        match (&self.version, self.acknowledged) {
            (Some(version), Some(acknowledged)) => {
                let replicas = count(acknowledged.into(), "replica");
                format!("applied: version {} is on the disks of {replicas}\n", version.etag)
            }
            _ => "not applied, and it never will be: a write with this op-id is refused\n".into(),
        }
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
                if replica.reachable { "yes".into() } else { "no".into() },
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
