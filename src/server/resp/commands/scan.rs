//! Walking over the keys, counting them, and deleting them all.

use std::collections::VecDeque;

use rand::Rng;

use super::super::ask::{Access, Asker, FanOut};
use super::super::decode::integer;
use super::super::dispatch::wrong_arity;
use super::super::finish::Finish;
use super::super::glob;
use super::super::reply::{ErrorReply, NOT_AN_INTEGER, SYNTAX, Writer};
use super::super::session::{Call, Handled};
use super::strings::{FAN_OUT, Writes, too_much};
use crate::ambient;
use crate::types::{Operation, PartitionCount, Response, ScanPage, Token, limits};

/// Keys that one page of SCAN looks at unless COUNT says otherwise.
const DEFAULT_COUNT: u32 = 10;
/// Partitions that one SCAN visits at most: an empty store is walked through in a few calls.
const PARTITIONS_A_CALL: usize = 32;
/// Partitions that KEYS and RANDOMKEY look at together.
const PARTITIONS_AT_ONCE: usize = 8;

pub fn dbsize(call: &mut Call<'_>, _: &mut Writer<'_>) -> Handled {
    call.ask(Access::Read, Operation::Count { namespace: call.session.namespace }, Finish::Count)
}

async fn page(asker: &Asker, from: Token, limit: u32) -> Result<ScanPage, ErrorReply> {
    let operation = Operation::Scan { namespace: asker.namespace, from, limit };
    match asker.ask(Access::Read, operation).await {
        Ok(Response::Page(page)) => Ok(page),
        Ok(_) => Err("ERR internal error: the answer does not fit the request".into()),
        Err(error) => Err(asker.error(Access::Read, &error)),
    }
}

/// The cursor is the next token. Token 0 needs no cursor: it can only be where a walk
/// begins, and 0 is what Redis calls both the beginning and the end.
pub fn scan(call: &mut Call<'_>, _: &mut Writer<'_>) -> Handled {
    let cursor = std::str::from_utf8(call.args.at(1)).ok().filter(|text| text.bytes().all(|b| b.is_ascii_digit()));
    let cursor: u64 = cursor.and_then(|text| text.parse().ok()).ok_or("ERR invalid cursor")?;
    let mut pattern = None;
    let mut count = DEFAULT_COUNT;
    let mut of_kind = true;
    if !call.args.len().is_multiple_of(2) {
        return Err(SYNTAX.into());
    }
    for place in (2..call.args.len()).step_by(2) {
        let value = call.args.at(place + 1);
        match call.word(place).as_slice() {
            b"match" => pattern = (value != b"*").then(|| call.args.keep(place + 1)),
            b"count" => {
                let number = integer(value).ok_or(NOT_AN_INTEGER)?;
                if number < 1 {
                    return Err(SYNTAX.into());
                }
                count = u32::try_from(number).unwrap_or(u32::MAX).min(limits::SCAN_PAGE_ENTRIES);
            }
            b"type" => of_kind = value.eq_ignore_ascii_case(b"string"),
            _ => return Err(SYNTAX.into()),
        }
    }
    call.work(move |mut steps| async move {
        let mut keys = Vec::new();
        let mut next = Some(Token(cursor));
        let mut looked_at = 0;
        for _ in 0..PARTITIONS_A_CALL {
            let Some(from) = next.filter(|_| looked_at < count as usize) else { break };
            let page = page(&steps.asker, from, count - looked_at as u32).await?;
            looked_at += page.entries.len();
            next = page.next;
            let wanted = page.entries.into_iter().map(|entry| entry.key);
            keys.extend(wanted.filter(|key| of_kind && pattern.as_ref().is_none_or(|p| glob::matches(p, key))));
        }
        let mut writer = steps.writer();
        writer.array(2);
        writer.bulk(next.map_or(0, |token| token.0).to_string().as_bytes());
        writer.array(keys.len());
        keys.iter().for_each(|key| writer.bulk(key));
        Ok(steps)
    })
}

/// Walks over partitions, a few at a time, and hands over each page of keys until told to stop.
async fn walk(
    asker: &Asker,
    partitions: PartitionCount,
    first: usize,
    limit: u32,
    mut each: impl FnMut(ScanPage) -> Result<bool, ErrorReply>,
) -> Result<(), ErrorReply> {
    let all = partitions.get() as usize;
    let mut starts = (0..all).map(|step| {
        let index = u16::try_from((first + step) % all).expect("there are at most 65,536 partitions");
        partitions.first_token(crate::types::Partition(index))
    });
    let scan = |from| {
        let operation = Operation::Scan { namespace: asker.namespace, from, limit };
        (partitions.partition_of(from), asker.submit(Access::Read, operation))
    };
    let mut waiting: VecDeque<_> = starts.by_ref().take(PARTITIONS_AT_ONCE).map(scan).collect();
    while let Some((partition, answer)) = waiting.pop_front() {
        let page = match answer.settle().await {
            Ok(Response::Page(page)) => page,
            Ok(_) => return Err("ERR internal error: the answer does not fit the request".into()),
            Err(error) => return Err(asker.error(Access::Read, &error)),
        };
        match page.next.filter(|next| partitions.partition_of(*next) == partition) {
            Some(next) => waiting.push_front(scan(next)),
            None => waiting.extend(starts.next().map(scan)),
        }
        if !each(page)? {
            break;
        }
    }
    Ok(())
}

pub fn keys(call: &mut Call<'_>, _: &mut Writer<'_>) -> Handled {
    let pattern = call.args.keep(1);
    let partitions = call.shared.backend.map().partitions;
    call.work(move |mut steps| async move {
        let mut found = Vec::new();
        let mut bytes = 0;
        walk(&steps.asker, partitions, 0, limits::SCAN_PAGE_ENTRIES, |page| {
            for entry in page.entries {
                if glob::matches(&pattern, &entry.key) {
                    bytes += entry.key.len() + 16;
                    found.push(entry.key);
                }
            }
            if found.len() > limits::KEYS_COMMAND_LIMIT {
                let most = limits::KEYS_COMMAND_LIMIT;
                return Err(format!("ERR KEYS would return more than {most} keys; use SCAN").into());
            }
            if bytes > limits::RESP_REPLY_BYTES { Err(too_much()) } else { Ok(true) }
        })
        .await?;
        let mut writer = steps.writer();
        writer.array(found.len());
        found.iter().for_each(|key| writer.bulk(key));
        Ok(steps)
    })
}

pub fn randomkey(call: &mut Call<'_>, _: &mut Writer<'_>) -> Handled {
    let partitions = call.shared.backend.map().partitions;
    call.work(move |mut steps| async move {
        let mut chance = ambient::seeded();
        // First after some token, then in the partitions after its own.
        let somewhere = Token(chance.random());
        let mut found = page(&steps.asker, somewhere, 1).await?.entries.into_iter().next();
        if found.is_none() {
            let first = usize::from(partitions.partition_of(somewhere).0);
            walk(&steps.asker, partitions, first, 1, |page| {
                found = page.entries.into_iter().next();
                Ok(found.is_none())
            })
            .await?;
        }
        match found {
            Some(entry) => steps.writer().bulk(&entry.key),
            None => steps.writer().null(),
        }
        Ok(steps)
    })
}

/// FLUSHDB empties the namespace of the connection, FLUSHALL all of them.
pub fn flush(call: &mut Call<'_>, _: &mut Writer<'_>) -> Handled {
    let name = call.spec.name;
    match (call.args.len(), call.word(1).as_slice()) {
        (1, _) | (2, b"sync" | b"async") => {}
        (2, _) => return Err(SYNTAX.into()),
        _ => return Err(wrong_arity(name)),
    }
    if !call.shared.options.allow_flush {
        return Err(format!(
            "NOPERM this user has no permissions to run the '{name}' command: the configuration does not allow it"
        )
        .into());
    }
    let map = call.shared.backend.map();
    let partitions = map.partitions;
    let namespaces: Vec<_> = match name {
        "flushall" => map.namespaces.keys().copied().collect(),
        _ => vec![call.session.namespace],
    };
    call.work(move |mut steps| async move {
        let truncates = namespaces.into_iter().flat_map(|namespace| {
            partitions
                .all()
                .map(move |partition| Operation::Truncate { namespace, at: partitions.first_token(partition) })
        });
        let mut answers = FanOut::new(&steps.asker, Access::Write, FAN_OUT, truncates);
        let mut writes = Writes::default();
        while let Some(answer) = answers.next().await {
            writes.add(answer, None);
        }
        steps.wrote = Some(writes.wrote());
        match writes.tally.verdict(steps.asker.levels) {
            Ok(()) => steps.writer().ok(),
            Err(error) => steps.writer().error(&error),
        }
        Ok(steps)
    })
}
