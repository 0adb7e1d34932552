//! CLIENT: names, lists and stops connections, and sets the levels of this one.

use crate::ambient;
use crate::server::resp::clients::{Client, Stop};
use crate::server::resp::decode::integer;
use crate::server::resp::dispatch::{level, printable, read_level};
use crate::server::resp::reply::{ErrorReply, SYNTAX, Writer};
use crate::server::resp::session::{Begun, Call, Handled, Replies};
use crate::server::resp::table::TABLE;

use super::{takes, unknown_subcommand};

/// The longest name of a client or library.
const NAME_BYTES: usize = 512;

pub fn client(call: &mut Call<'_>, writer: &mut Writer<'_>) -> Handled {
    match call.word(1).as_slice() {
        b"setinfo" => setinfo(call, writer)?,
        b"setname" => {
            takes(call, "setname", 3)?;
            call.session.client.names().name = valid_name(call.args.at(2))?;
            writer.ok();
        }
        b"getname" => {
            takes(call, "getname", 2)?;
            match call.session.client.names().name.as_str() {
                "" => writer.null(),
                name => writer.bulk(name.as_bytes()),
            }
        }
        b"id" => {
            takes(call, "id", 2)?;
            writer.integer(i64::try_from(call.session.client.id).unwrap_or(i64::MAX));
        }
        b"info" => {
            takes(call, "info", 2)?;
            let line = describe(&call.session.client);
            writer.verbatim(&format!("{line}\n"));
        }
        b"list" => list(call, writer)?,
        b"kill" => kill(call, writer)?,
        b"no-evict" => on_or_off(call, "no-evict", writer)?,
        b"no-touch" => on_or_off(call, "no-touch", writer)?,
        b"reply" => reply(call, writer)?,
        b"unpause" => {
            takes(call, "unpause", 2)?;
            writer.ok();
        }
        b"consistency" => consistency(call, writer)?,
        b"help" => help(writer),
        _ => return Err(unknown_subcommand(call)),
    }
    Ok(Begun::Replied)
}

fn help(writer: &mut Writer<'_>) {
    let lines = [
        "CLIENT <subcommand> [<arg> ...]. Subcommands are:",
        "CONSISTENCY [read=LEVEL] [write=LEVEL] -- the levels of this connection: one, two, three, quorum, all; writes also any",
        "GETNAME, ID, INFO, SETNAME <name>, SETINFO <LIB-NAME|LIB-VER> <value>",
        "KILL <ip:port> | KILL <option> <value> ...; options: ADDR, LADDR, ID, USER, SKIPME, MAXAGE",
        "LIST [TYPE NORMAL] [ID <id> ...], NO-EVICT ON|OFF, NO-TOUCH ON|OFF, REPLY ON|OFF|SKIP, UNPAUSE",
    ];
    writer.array(lines.len());
    lines.iter().for_each(|line| writer.simple(line));
}

/// A name without blanks and line ends, which would break CLIENT LIST.
pub(super) fn valid_name(name: &[u8]) -> Result<String, ErrorReply> {
    printable_name(name).ok_or_else(|| "ERR Client names cannot contain spaces, newlines or special characters.".into())
}

fn printable_name(name: &[u8]) -> Option<String> {
    let printable = name.len() <= NAME_BYTES && name.iter().all(|byte| (b'!'..=b'~').contains(byte));
    printable.then(|| String::from_utf8_lossy(name).into_owned())
}

fn setinfo(call: &mut Call<'_>, writer: &mut Writer<'_>) -> Result<(), ErrorReply> {
    takes(call, "setinfo", 4)?;
    let option = call.word(2);
    let value = printable_name(call.args.at(3)).ok_or_else(|| {
        let option = printable(&option);
        format!("ERR {option} cannot contain spaces, newlines or special characters.")
    })?;
    match option.as_slice() {
        b"lib-name" => call.session.client.names().library = value,
        b"lib-ver" => call.session.client.names().library_version = value,
        _ => return Err(format!("ERR Unrecognized option '{}'", printable(call.args.at(2))).into()),
    }
    writer.ok();
    Ok(())
}

fn describe(client: &Client) -> String {
    let command = client.last_command.load(std::sync::atomic::Ordering::Relaxed);
    let command = usize::try_from(command).ok().and_then(|index| TABLE.get(index)).map_or("NULL", |spec| spec.name);
    client.describe(ambient::moment(), command)
}

fn list(call: &mut Call<'_>, writer: &mut Writer<'_>) -> Result<(), ErrorReply> {
    let mut ids = None;
    match (call.word(2).as_slice(), call.args.len()) {
        (_, 2) => {}
        (b"type", 4) => match call.word(3).as_slice() {
            b"normal" => {}
            b"master" | b"replica" | b"slave" | b"pubsub" => ids = Some(Vec::new()),
            _ => return Err(format!("ERR Unknown client type '{}'", printable(call.args.at(3))).into()),
        },
        (b"id", 4..) => {
            let numbers = call.args.skip(3).iter().map(|id| integer(id).and_then(|id| u64::try_from(id).ok()));
            ids = Some(numbers.collect::<Option<Vec<u64>>>().ok_or("ERR Invalid client ID")?);
        }
        _ => return Err(SYNTAX.into()),
    }
    let mut lines = String::new();
    for client in call.shared.clients.all() {
        if ids.as_ref().is_none_or(|ids| ids.contains(&client.id)) {
            lines.push_str(&describe(&client));
            lines.push('\n');
        }
    }
    writer.verbatim(&lines);
    Ok(())
}

/// Which connections CLIENT KILL means.
#[derive(Default)]
struct Filter<'a> {
    address: Option<&'a [u8]>,
    local: Option<&'a [u8]>,
    id: Option<u64>,
    max_age_s: Option<u64>,
    /// For users and types that nobody here has.
    nobody: bool,
}

impl Filter<'_> {
    fn holds(&self, client: &Client) -> bool {
        let age = || ambient::moment().since(client.since).as_secs();
        !self.nobody
            && self.address.is_none_or(|address| client.address.to_string().as_bytes() == address)
            && self.local.is_none_or(|local| client.local.to_string().as_bytes() == local)
            && self.id.is_none_or(|id| client.id == id)
            && self.max_age_s.is_none_or(|most| age() >= most)
    }
}

fn kill(call: &mut Call<'_>, writer: &mut Writer<'_>) -> Result<(), ErrorReply> {
    takes(call, "kill", -3)?;
    let args = call.args;
    let own = call.session.client.id;
    if args.len() == 3 {
        let filter = Filter { address: Some(args.at(2)), ..Filter::default() };
        let found = call.shared.clients.all().into_iter().find(|client| filter.holds(client));
        found.ok_or("ERR No such client")?.stop(Stop::Killed);
        writer.ok();
        return Ok(());
    }
    let mut filter = Filter::default();
    let mut skip_me = true;
    let mut at = 2;
    while at < args.len() {
        let value = args.get(at + 1).ok_or(SYNTAX)?;
        let positive = || integer(value).and_then(|number| u64::try_from(number).ok()).filter(|number| *number > 0);
        match args.at(at).to_ascii_lowercase().as_slice() {
            b"id" => filter.id = Some(positive().ok_or("ERR client-id should be greater than 0")?),
            b"addr" => filter.address = Some(value),
            b"laddr" => filter.local = Some(value),
            b"maxage" => filter.max_age_s = Some(positive().ok_or("ERR maxage should be greater than 0")?),
            b"user" => filter.nobody |= value != b"default",
            b"type" => filter.nobody |= !value.eq_ignore_ascii_case(b"normal"),
            b"skipme" if value.eq_ignore_ascii_case(b"yes") => skip_me = true,
            b"skipme" if value.eq_ignore_ascii_case(b"no") => skip_me = false,
            _ => return Err(SYNTAX.into()),
        }
        at += 2;
    }
    let mut killed = 0;
    for client in call.shared.clients.all() {
        if filter.holds(&client) && !(skip_me && client.id == own) {
            client.stop(Stop::Killed);
            killed += 1;
        }
    }
    writer.integer(killed);
    Ok(())
}

/// Options about eviction and access times, of which there are none here.
fn on_or_off(call: &Call<'_>, name: &str, writer: &mut Writer<'_>) -> Result<(), ErrorReply> {
    takes(call, name, 3)?;
    match call.word(2).as_slice() {
        b"on" | b"off" => writer.ok(),
        _ => return Err(SYNTAX.into()),
    }
    Ok(())
}

fn reply(call: &mut Call<'_>, writer: &mut Writer<'_>) -> Result<(), ErrorReply> {
    takes(call, "reply", 3)?;
    match call.word(2).as_slice() {
        b"on" => {
            call.session.replies = Replies::On;
            writer.ok();
        }
        b"off" => call.session.replies = Replies::Off,
        b"skip" if call.session.replies == Replies::On => call.session.replies = Replies::SkipNext,
        b"skip" => {}
        _ => return Err(SYNTAX.into()),
    }
    Ok(())
}

fn consistency(call: &mut Call<'_>, writer: &mut Writer<'_>) -> Result<(), ErrorReply> {
    let (mut read, mut write) = (None, None);
    for arg in call.args.skip(2).iter() {
        let equals = memchr::memchr(b'=', arg).ok_or(SYNTAX)?;
        let value = &arg[equals + 1..];
        match arg[..equals].to_ascii_lowercase().as_slice() {
            b"read" => read = Some(read_level(value)?),
            b"write" => write = Some(level(value)?),
            _ => return Err(SYNTAX.into()),
        }
    }
    if call.args.len() == 2 {
        let levels = call.session.levels(call.shared.options.request_timeout);
        writer.bulk(format!("read={} write={}", levels.read, levels.write).as_bytes());
        return Ok(());
    }
    if read.is_some() {
        call.session.read = read;
        // The word that was spoken last holds.
        call.session.readonly = false;
    }
    call.session.write = write.or(call.session.write);
    writer.ok();
    Ok(())
}
