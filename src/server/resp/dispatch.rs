//! From the arguments of a command to its beginning.
//!
//! The order of the checks is Redis's: name, arity, password, MULTI.

use std::fmt::Write;
use std::time::Duration;

use super::ask::Levels;
use super::decode::Args;
use super::options::Transactions;
use super::reply::{ErrorReply, Writer};
use super::session::{Call, Handled, Session, Transaction};
use super::table::{IMMEDIATE, NO_AUTH, NO_MULTI, OP_ID, Spec, find};
use super::{RespOptions, Shared};
use crate::types::{WallTime, limits};

/// Bytes of names and arguments that an error repeats.
const REPEATED_BYTES: usize = 128;
/// The longest timeout that KV.WITH takes.
const LONGEST_TIMEOUT: Duration = Duration::from_secs(60);

/// A command that may run.
pub(super) struct Resolved<'a> {
    /// Its place in the table.
    pub index: usize,
    pub spec: &'static Spec,
    /// Its own arguments, without a KV.WITH before them.
    pub args: Args<'a>,
    pub levels: Levels,
}

/// What is to be done with a command.
pub(super) enum Verdict<'a> {
    /// It runs, once the window admits it.
    Run(Resolved<'a>),
    /// It was put aside by MULTI.
    Queued,
    /// It does not run.
    Refused(ErrorReply),
}

/// Looks at a command without running it; may mark or fill the session's transaction.
pub(super) fn judge<'a>(args: Args<'a>, session: &mut Session, options: &RespOptions) -> Verdict<'a> {
    let resolved = resolve(args, session, options).and_then(|resolved| {
        if !session.authenticated && !resolved.spec.is(NO_AUTH) {
            return Err("NOAUTH Authentication required.".into());
        }
        Ok(resolved)
    });
    let Some(transaction) = &mut session.transaction else {
        return match resolved {
            Ok(resolved) => Verdict::Run(resolved),
            Err(error) => Verdict::Refused(error),
        };
    };
    match resolved {
        Ok(resolved) if resolved.spec.is(IMMEDIATE) => Verdict::Run(resolved),
        Ok(resolved) => match enqueue(transaction, &resolved, args, options) {
            Ok(()) => {
                session.show();
                Verdict::Queued
            }
            Err(error) => {
                transaction.broken = true;
                Verdict::Refused(error)
            }
        },
        Err(error) => {
            transaction.broken = true;
            Verdict::Refused(error)
        }
    }
}

fn enqueue(
    transaction: &mut Transaction,
    resolved: &Resolved<'_>,
    args: Args<'_>,
    options: &RespOptions,
) -> Result<(), ErrorReply> {
    if resolved.spec.is(NO_MULTI) {
        return Err("ERR Command not allowed inside a transaction".into());
    }
    if transaction.queued >= limits::RESP_TRANSACTION_COMMANDS {
        let most = limits::RESP_TRANSACTION_COMMANDS;
        return Err(format!("ERR a transaction takes at most {most} commands").into());
    }
    transaction.queued += 1;
    // What EXEC will refuse anyway need not be kept.
    if options.transactions == Transactions::Pipeline && !transaction.broken {
        let owned = args.to_owned();
        transaction.bytes += owned.weight();
        if transaction.bytes > limits::RESP_TRANSACTION_BYTES {
            transaction.commands.clear();
            let most = limits::RESP_TRANSACTION_BYTES;
            return Err(format!("ERR a transaction takes at most {most} bytes").into());
        }
        transaction.commands.push_back(owned);
    }
    Ok(())
}

fn resolve<'a>(args: Args<'a>, session: &Session, options: &RespOptions) -> Result<Resolved<'a>, ErrorReply> {
    let mut levels = session.levels(options.request_timeout);
    let (mut index, mut spec) = look_up(args)?;
    let mut args = args;
    if spec.name == "kv.with" {
        args = with(args.skip(1), &mut levels)?;
        (index, spec) = look_up(args)?;
        if spec.name == "kv.with" {
            return Err("ERR KV.WITH cannot be nested".into());
        }
        if levels.op_id.is_some() && !spec.is(OP_ID) {
            return Err("ERR an op-id goes with SET, SETEX, PSETEX, KV.PUT or KV.DEL".into());
        }
    }
    Ok(Resolved { index, spec, args, levels })
}

fn look_up(args: Args<'_>) -> Result<(usize, &'static Spec), ErrorReply> {
    let (index, spec) = find(args.at(0)).ok_or_else(|| unknown(args))?;
    if !spec.takes(args.len()) {
        return Err(wrong_arity(spec.name));
    }
    Ok((index, spec))
}

/// Takes the options of KV.WITH and leaves the command.
fn with<'a>(args: Args<'a>, levels: &mut Levels) -> Result<Args<'a>, ErrorReply> {
    let mut taken = 0;
    for arg in args.iter() {
        let Some(equals) = memchr::memchr(b'=', arg) else { break };
        let (name, value) = (arg[..equals].to_ascii_lowercase(), &arg[equals + 1..]);
        match name.as_slice() {
            b"read" => levels.read = read_level(value)?,
            b"write" => levels.write = level(value)?,
            b"timeout" => {
                let timeout = super::decode::integer(value).and_then(|ms| u64::try_from(ms).ok());
                let timeout = timeout.map(Duration::from_millis);
                levels.timeout = timeout
                    .filter(|timeout| (Duration::from_millis(1)..=LONGEST_TIMEOUT).contains(timeout))
                    .ok_or("ERR KV.WITH timeout is not a number of milliseconds from 1 to 60000")?;
            }
            b"opid" => levels.op_id = Some(op_id(value)?),
            _ => return Err("ERR KV.WITH takes read=, write=, timeout= and opid= before the command".into()),
        }
        taken += 1;
    }
    let rest = args.skip(taken);
    if rest.is_empty() { Err(wrong_arity("kv.with")) } else { Ok(rest) }
}

/// A consistency level, as clients name it.
pub(super) fn level(text: &[u8]) -> Result<crate::types::ConsistencyLevel, ErrorReply> {
    let text = String::from_utf8_lossy(&text[..text.len().min(REPEATED_BYTES)]);
    text.parse().map_err(|error: crate::types::UnknownLevel| format!("ERR {error}").into())
}

/// The level of a read.
pub(super) fn read_level(text: &[u8]) -> Result<crate::types::ConsistencyLevel, ErrorReply> {
    match level(text)? {
        crate::types::ConsistencyLevel::Any => {
            Err("ERR the level 'any' is for writes; read at one, two, three, quorum or all".into())
        }
        level => Ok(level),
    }
}

/// An op-id, as clients write it.
pub(super) fn op_id(text: &[u8]) -> Result<crate::types::OpId, ErrorReply> {
    let text = printable(text);
    text.parse().map_err(|error: crate::types::InvalidOpId| format!("ERR {error}").into())
}

/// The text for a wrong number of arguments.
pub(super) fn wrong_arity(name: &str) -> ErrorReply {
    format!("ERR wrong number of arguments for '{name}' command").into()
}

/// The text for a command that there is not, in the exact form that clients probe for.
fn unknown(args: Args<'_>) -> ErrorReply {
    let name = printable(args.at(0));
    let mut text = format!("ERR unknown command '{name}', with args beginning with: ");
    let mut repeated = 0;
    for arg in args.skip(1).iter() {
        if repeated >= REPEATED_BYTES {
            break;
        }
        let arg = &arg[..arg.len().min(REPEATED_BYTES - repeated)];
        write!(text, "'{}' ", printable(arg)).expect("a string takes all");
        repeated += arg.len();
    }
    text.into()
}

/// Bytes as text that can stand in a line.
pub(super) fn printable(bytes: &[u8]) -> String {
    String::from_utf8_lossy(&bytes[..bytes.len().min(REPEATED_BYTES)]).replace(['\r', '\n', '\0'], " ")
}

/// Runs a command that was judged and admitted.
pub(super) fn begin(
    resolved: &Resolved<'_>,
    session: &mut Session,
    shared: &Shared,
    wall: WallTime,
    reply: &mut Vec<u8>,
) -> Handled {
    let resp3 = session.resp3;
    session.track(&resolved.levels, shared);
    let mut call = Call { spec: resolved.spec, args: resolved.args, session, shared, levels: resolved.levels, wall };
    let mut writer = Writer::new(reply, resp3);
    (resolved.spec.handler)(&mut call, &mut writer)
}
