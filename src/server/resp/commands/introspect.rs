//! COMMAND: what there is, for libraries that route by it and shells that help with it.

use super::super::glob;
use super::super::reply::{ErrorReply, SYNTAX, Writer};
use super::super::session::{Begun, Call, Handled};
use super::super::table::{self, ADMIN, DANGEROUS, FAST, FLAG_NAMES, READONLY, Spec, WRITE};
use super::{takes, unknown_subcommand};

pub fn command(call: &mut Call<'_>, writer: &mut Writer<'_>) -> Handled {
    if call.args.len() == 1 {
        infos(writer);
        return Ok(Begun::Replied);
    }
    match call.word(1).as_slice() {
        b"count" => {
            takes(call, "count", 2)?;
            writer.integer(table::listed().count() as i64);
        }
        b"info" if call.args.len() == 2 => infos(writer),
        b"info" => {
            let names = call.args.skip(2);
            writer.array(names.len());
            for name in names.iter() {
                match find_listed(name) {
                    Some(spec) => info(writer, spec),
                    None => writer.null(),
                }
            }
        }
        b"docs" => docs(call, writer),
        b"list" => list(call, writer)?,
        b"getkeys" => getkeys(call, writer)?,
        b"help" => {
            let lines = [
                "COMMAND",
                "COMMAND COUNT",
                "COMMAND DOCS [<name> ...]",
                "COMMAND GETKEYS <command>",
                "COMMAND INFO [<name> ...]",
                "COMMAND LIST [FILTERBY PATTERN|ACLCAT|MODULE <value>]",
            ];
            writer.array(lines.len());
            lines.iter().for_each(|line| writer.simple(line));
        }
        _ => return Err(unknown_subcommand(call)),
    }
    Ok(Begun::Replied)
}

fn find_listed(name: &[u8]) -> Option<&'static Spec> {
    table::find(name).map(|(_, spec)| spec).filter(|spec| !spec.is(table::HIDDEN))
}

fn infos(writer: &mut Writer<'_>) {
    writer.array(table::listed().count());
    table::listed().for_each(|spec| info(writer, spec));
}

/// The ten fields of Redis 7; the last three, which only refine the others, are empty.
fn info(writer: &mut Writer<'_>, spec: &Spec) {
    writer.array(10);
    writer.bulk(spec.name.as_bytes());
    writer.integer(spec.arity as i64);
    let flags = FLAG_NAMES.iter().filter(|(flag, _)| spec.is(*flag));
    writer.set(flags.clone().count());
    flags.for_each(|(_, name)| writer.simple(name));
    writer.integer(spec.keys.first as i64);
    writer.integer(spec.keys.last as i64);
    writer.integer(spec.keys.step as i64);
    let categories = categories(spec);
    writer.set(categories.len());
    categories.iter().for_each(|category| writer.simple(&format!("@{category}")));
    (0..3).for_each(|_| writer.array(0));
}

/// The ACL categories of Redis that a command belongs to.
fn categories(spec: &Spec) -> Vec<&'static str> {
    let group = match spec.group {
        "generic" if spec.keys.first > 0 || spec.is(WRITE) || spec.is(READONLY) => Some("keyspace"),
        "string" => Some("string"),
        "connection" | "cluster" if spec.name != "cluster" => Some("connection"),
        "transactions" => Some("transaction"),
        _ => None,
    };
    let by_flag = [(READONLY, "read"), (WRITE, "write"), (ADMIN, "admin"), (DANGEROUS, "dangerous")];
    let mut categories: Vec<&str> = group.into_iter().collect();
    categories.extend(by_flag.iter().filter(|(flag, _)| spec.is(*flag)).map(|(_, name)| *name));
    categories.push(if spec.is(FAST) { "fast" } else { "slow" });
    categories
}

fn docs(call: &Call<'_>, writer: &mut Writer<'_>) {
    let named = call.args.skip(2);
    let specs: Vec<&Spec> = match named.is_empty() {
        true => table::listed().collect(),
        false => named.iter().filter_map(find_listed).collect(),
    };
    writer.map(specs.len());
    for spec in specs {
        writer.bulk(spec.name.as_bytes());
        writer.map(3);
        for (name, value) in [("summary", spec.summary), ("since", spec.since), ("group", spec.group)] {
            writer.bulk(name.as_bytes());
            writer.bulk(value.as_bytes());
        }
    }
}

fn list(call: &Call<'_>, writer: &mut Writer<'_>) -> Result<(), ErrorReply> {
    let keep: Box<dyn Fn(&Spec) -> bool> = match call.args.len() {
        2 => Box::new(|_| true),
        5 if call.word(2) == b"filterby" => {
            let value = call.word(4);
            match call.word(3).as_slice() {
                b"pattern" => Box::new(move |spec| glob::matches(&value, spec.name.as_bytes())),
                b"aclcat" => Box::new(move |spec| categories(spec).iter().any(|name| name.as_bytes() == value)),
                b"module" => Box::new(|_| false),
                _ => return Err(SYNTAX.into()),
            }
        }
        _ => return Err(SYNTAX.into()),
    };
    let names: Vec<&str> = table::listed().filter(|spec| keep(spec)).map(|spec| spec.name).collect();
    writer.array(names.len());
    names.iter().for_each(|name| writer.bulk(name.as_bytes()));
    Ok(())
}

fn getkeys(call: &Call<'_>, writer: &mut Writer<'_>) -> Result<(), ErrorReply> {
    takes(call, "getkeys", -4)?;
    let command = call.args.skip(2);
    let spec = find_listed(command.at(0)).ok_or("ERR Invalid command specified")?;
    if spec.keys.first == 0 {
        return Err("ERR The command has no key arguments".into());
    }
    if !spec.takes(command.len()) {
        return Err("ERR Invalid number of arguments specified for command".into());
    }
    let places = spec.keys.of(command.len());
    writer.array(places.clone().count());
    places.for_each(|place| writer.bulk(command.at(place)));
    Ok(())
}
