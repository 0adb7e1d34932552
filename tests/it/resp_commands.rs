//! Commands one after the other: `resp_commands.txt`, and what a table cannot say.

use dogsled::server::resp::{RespOptions, Transactions};
use dogsled::types::{ConsistencyLevel, Failure, Operation, Refusal};

use crate::resp_fake::{Fake, Fate};
use crate::resp_harness::{Reply, Server};

/// Words of a line, with `"…"` for blanks and `\xHH`, `\r`, `\n` anywhere.
fn words(line: &str) -> Vec<Vec<u8>> {
    let (mut words, mut word, mut quoted, mut open) = (Vec::new(), Vec::new(), false, false);
    let mut rest = line.bytes();
    while let Some(byte) = rest.next() {
        match byte {
            b'"' => (quoted, open) = (!quoted, true),
            b' ' if !quoted => {
                words.push(std::mem::take(&mut word));
                open = false;
            }
            b'\\' => match rest.next() {
                Some(b'r') => word.push(b'\r'),
                Some(b'n') => word.push(b'\n'),
                Some(b'x') => {
                    let digits = [rest.next().expect("a digit"), rest.next().expect("another")];
                    let digits = std::str::from_utf8(&digits).expect("digits");
                    word.push(u8::from_str_radix(digits, 16).expect("hexadecimal"));
                }
                other => panic!("\\{other:?} in {line}"),
            },
            byte => word.push(byte),
        }
    }
    if open || !word.is_empty() {
        words.push(word);
    }
    words
}

fn options(title: &str) -> RespOptions {
    let mut options = RespOptions::default();
    match title.split_once(" | ").map(|(_, option)| option) {
        Some("pipeline") => options.transactions = Transactions::Pipeline,
        Some("flush") => options.allow_flush = true,
        Some("password") => options.password = Some("secret".into()),
        Some(other) => panic!("{other} is no option"),
        None => {}
    }
    options
}

#[test]
fn every_line_of_the_table_holds_in_both_protocols() {
    let table = include_str!("resp_commands.txt");
    let (mut cases, mut lines) = (0, 0);
    for case in table.split("\n== ").skip(1) {
        let (title, body) = case.split_once('\n').expect("a case has lines");
        for resp in ['2', '3'] {
            let fake = Fake::new();
            let server = Server::start(fake, options(title));
            let mut client = server.connect();
            if resp == '3' && !title.contains(" | password") {
                client.run("HELLO 3");
            }
            let mut command = "";
            for line in body.lines().filter(|line| !line.is_empty()) {
                let (mark, rest) = line.split_once(' ').expect("a line has a mark");
                let expected = match mark {
                    ">" => {
                        command = rest;
                        client.send(&crate::resp_harness::encode(&words(rest)));
                        continue;
                    }
                    "<" => rest,
                    "<2" | "<3" if mark.ends_with(resp) => rest,
                    "<2" | "<3" => continue,
                    other => panic!("{other} is no mark"),
                };
                let reply = client.try_reply().map_or("closed".to_owned(), |reply| reply.to_string());
                let holds = match expected.strip_suffix('…') {
                    Some(beginning) => reply.starts_with(beginning),
                    None => reply == expected,
                };
                assert!(holds, "{title}, RESP{resp}: {command}\nexpected {expected}\n     got {reply}");
                lines += 1;
            }
            cases += 1;
        }
    }
    assert!(cases >= 40 && lines >= 600, "the table was read: {cases} cases, {lines} replies");
}

#[test]
fn levels_and_timeouts_reach_the_node_by_their_precedence() {
    let fake = Fake::new();
    let server = Server::start(fake.clone(), RespOptions::default());
    let mut client = server.connect();
    fake.log();
    let cases = [
        ("GET k", ConsistencyLevel::Quorum, 500),
        ("SET k v", ConsistencyLevel::Quorum, 500),
        ("KV.WITH read=all timeout=77 GET k", ConsistencyLevel::All, 77),
        ("CLIENT CONSISTENCY read=two write=three", ConsistencyLevel::One, 0),
        ("GET k", ConsistencyLevel::Two, 500),
        ("MGET k", ConsistencyLevel::Two, 500),
        ("SET k v", ConsistencyLevel::Three, 500),
        ("MSET k v", ConsistencyLevel::Three, 500),
        ("EXPIRE k 10", ConsistencyLevel::Three, 500),
        ("KV.WITH write=one SET k v", ConsistencyLevel::One, 500),
        ("READONLY", ConsistencyLevel::One, 0),
        ("GET k", ConsistencyLevel::One, 500),
        ("SET k v", ConsistencyLevel::Three, 500),
        ("KV.WITH read=all STRLEN k", ConsistencyLevel::All, 500),
        ("READWRITE", ConsistencyLevel::One, 0),
        ("TTL k", ConsistencyLevel::Two, 500),
    ];
    for (command, level, timeout_ms) in cases {
        assert!(!client.run(command).starts_with('-'), "{command}");
        let requests = fake.logged();
        assert_eq!(requests.is_empty(), timeout_ms == 0, "{command}");
        for request in requests {
            let timeout = request.timeout.expect("it is always given").as_millis();
            assert_eq!((request.consistency, timeout), (level, timeout_ms), "{command}");
        }
    }
    // What a KV.WITH said is over with its command.
    assert_eq!(client.run("CLIENT CONSISTENCY"), "\"read=two write=three\"");
}

#[test]
fn failures_have_the_texts_that_clients_know() {
    let fake = Fake::new();
    let server = Server::start(fake.clone(), RespOptions::default());
    let mut client = server.connect();
    let mut case = |failure: Failure, command: &str, expected: &str| {
        fake.fault(move |_| Some(Fate::Fails(failure.clone())));
        assert_eq!(client.run(command), expected, "{command}");
        fake.no_fault();
        assert_eq!(client.run("PING"), "+PONG");
    };
    let few = Failure::NotApplied(Refusal::TooFewReplicas { alive: 1, needed: 2 });
    let doubt = Failure::InDoubt { acknowledged: 1, needed: 2 };
    let late = Failure::TimedOut { answered: 1, needed: 2 };
    let busy = Failure::NotApplied(Refusal::Overloaded);
    case(few.clone(), "SET k v", "-NOREPLICAS Not enough good replicas to write.");
    case(few.clone(), "MSET k v l w", "-NOREPLICAS Not enough good replicas to write.");
    case(few.clone(), "EXPIRE k 10", "-NOREPLICAS Not enough good replicas to write.");
    case(few.clone(), "GET k", "-CLUSTERDOWN not enough live replicas for read=quorum (1 of 2)");
    case(few.clone(), "MGET k l", "-CLUSTERDOWN not enough live replicas for read=quorum (1 of 2)");
    case(few.clone(), "KV.WITH read=two GET k", "-CLUSTERDOWN not enough live replicas for read=two (1 of 2)");
    // Nothing was deleted: the count before it failed.
    case(few, "DEL k", "-CLUSTERDOWN not enough live replicas for read=quorum (1 of 2)");
    let text = "-INDOUBT 1 of 2 acknowledgements within 500ms; the write may still take effect";
    case(doubt.clone(), "SET k v", text);
    case(doubt.clone(), "MSET k v l w", text);
    let text = "-INDOUBT 1 of 2 acknowledgements within 90ms; the write may still take effect";
    case(doubt, "KV.WITH timeout=90 SET k v", text);
    case(late.clone(), "GET k", "-TRYAGAIN read=quorum not reached within 500ms");
    case(late, "SCAN 0", "-TRYAGAIN read=quorum not reached within 500ms");
    case(busy.clone(), "SET k v", "-TRYAGAIN overloaded, not executed");
    case(busy.clone(), "GET k", "-TRYAGAIN overloaded, not executed");
    case(busy.clone(), "KEYS *", "-TRYAGAIN overloaded, not executed");
    case(busy, "DBSIZE", "-TRYAGAIN overloaded, not executed");
    case(Failure::NotApplied(Refusal::Invalid("bad\r\n-thing".into())), "SET k v", "-ERR bad  -thing");
    assert_eq!(fake.live(), 0);
}

#[test]
fn a_node_that_stops_leaves_writes_in_doubt_and_reads_undone() {
    let fake = Fake::new();
    let server = Server::start(fake.clone(), RespOptions::default());
    let mut client = server.connect();
    fake.fault(|_| Some(Fate::Stops));
    assert_eq!(client.run("SET k v"), "-INDOUBT the node stopped; the write may still take effect");
    assert_eq!(client.run("MSET k v l w"), "-INDOUBT the node stopped; the write may still take effect");
    assert_eq!(client.run("GET k"), "-TRYAGAIN the node stopped, not executed");
    assert_eq!(client.run("PING"), "+PONG");
}

#[test]
fn a_command_that_took_effect_in_part_is_in_doubt() {
    let fake = Fake::new();
    let server = Server::start(fake.clone(), RespOptions { allow_flush: true, ..RespOptions::default() });
    let mut client = server.connect();
    fake.fault(|request| match &request.operation {
        Operation::Put { key, .. } | Operation::Delete { key, .. } if &key.bytes()[..] == b"b" => {
            Some(Fate::Fails(Failure::NotApplied(Refusal::Overloaded)))
        }
        Operation::Truncate { at, .. } if at.0 == 0 => Some(Fate::Fails(Failure::NotApplied(Refusal::Overloaded))),
        _ => None,
    });
    assert_eq!(client.run("MSET a 1 b 2 c 3"), "-INDOUBT 2 of 3 writes were applied and the others were refused");
    assert_eq!(client.run("WAIT 3 0"), ":2", "nobody knows which of them WAIT should ask about");
    assert_eq!(client.run("DEL a b c"), "-INDOUBT 2 of 3 writes were applied and the others were refused");
    assert_eq!(client.run("FLUSHDB"), "-INDOUBT 15 of 16 writes were applied and the others were refused");
}

#[test]
fn del_writes_a_tombstone_even_where_it_finds_nothing() {
    let fake = Fake::new();
    let server = Server::start(fake.clone(), RespOptions::default());
    let mut client = server.connect();
    fake.log();
    assert_eq!(client.run("DEL k"), ":0");
    let operations: Vec<_> = fake.logged().into_iter().map(|request| request.operation).collect();
    assert!(matches!(operations[..], [Operation::Head { .. }, Operation::Delete { .. }]), "{operations:?}");
}

#[test]
fn scan_returns_every_key_once() {
    let fake = Fake::new();
    let server = Server::start(fake.clone(), RespOptions::default());
    let mut client = server.connect();
    for number in 0..1_000 {
        client.call(&["SET", &format!("key:{number}"), "v"]);
    }
    for count in ["1", "7", "100", "100000"] {
        let mut cursor = "0".to_owned();
        let mut keys = Vec::new();
        let mut calls = 0;
        loop {
            let Reply::Array(reply) = client.call(&["SCAN", &cursor, "COUNT", count]) else { panic!("no page") };
            let [Reply::Bulk(next), Reply::Array(page)] = &reply[..] else { panic!("{reply:?} is no page") };
            keys.extend(page.iter().map(Reply::to_string));
            cursor = String::from_utf8(next.clone()).expect("a number");
            calls += 1;
            assert!(calls <= 3_000, "the walk does not end");
            if cursor == "0" {
                break;
            }
        }
        assert_eq!(keys.len(), 1_000, "COUNT {count}");
        keys.sort();
        keys.dedup();
        assert_eq!(keys.len(), 1_000, "COUNT {count}: some came twice");
    }
    let Reply::Array(all) = client.call(&["KEYS", "key:*"]) else { panic!("no keys") };
    assert_eq!(all.len(), 1_000);
    assert!(matches!(client.call(&["RANDOMKEY"]), Reply::Bulk(_)));
}

#[test]
fn values_and_keys_at_their_limits() {
    let fake = Fake::with_max_value(100_000);
    let server = Server::start(fake, RespOptions::default());
    let mut client = server.connect();
    let value = vec![b'v'; 100_000];
    let key = vec![b'k'; 65_536];
    assert_eq!(client.call(&[b"SET", &key[..], &value[..]]).to_string(), "+OK");
    assert_eq!(client.call(&[b"GET", &key[..]]), Reply::Bulk(value.clone()));
    assert_eq!(client.call(&[b"MGET", &key[..], b"x", &key[..]]).to_string().len(), 200_012);
    let longer = vec![b'v'; 100_001];
    let too_long = "-ERR string exceeds maximum allowed size (proto-max-bulk-len)";
    assert_eq!(client.call(&[b"SET", &b"k"[..], &longer[..]]).to_string(), too_long);
    assert_eq!(client.call(&[b"MSET", &b"k"[..], b"v", b"l", &longer[..]]).to_string(), too_long);
    let longer_key = vec![b'k'; 65_537];
    assert_eq!(client.call(&[b"SET", &longer_key[..], b"v"]).to_string(), "-ERR key is too long (max 64KiB)");
    assert_eq!(client.run("CONFIG GET proto-max-bulk-len"), "[\"proto-max-bulk-len\" \"100000\"]");
    assert_eq!(client.run("EXISTS k l"), ":0");
}

#[test]
fn wait_tells_what_replicas_hold_and_never_more() {
    let fake = Fake::new();
    let server = Server::start(fake.clone(), RespOptions::default());
    let mut client = server.connect();
    fake.acknowledge(2, 2);
    client.run("SET k v");
    fake.log();
    assert_eq!(client.run("WAIT 2 1000"), ":2");
    assert!(fake.logged().is_empty(), "two were known to have it");
    assert_eq!(client.run("WAIT 3 60"), ":2");
    assert!(fake.logged().iter().all(|request| matches!(request.operation, Operation::Confirm { replicas: 3, .. })));
    fake.acknowledge(2, 3);
    assert_eq!(client.run("WAIT 3 1000"), ":3");
    fake.logged();
    assert_eq!(client.run("WAIT 3 1000"), ":3");
    assert!(fake.logged().is_empty(), "what was confirmed once stays so");
    fake.fault(|_| Some(Fate::Fails(Failure::InDoubt { acknowledged: 1, needed: 2 })));
    client.run("SET k w");
    fake.no_fault();
    assert_eq!(client.run("WAIT 2 50"), ":1", "the last write is in doubt, whatever became of the one before it");
    client.run("SET k v");
    assert_eq!(client.run("WAIT 2 50"), ":2");
    fake.fault(|request| {
        let deletes = matches!(request.operation, Operation::Delete { .. });
        deletes.then_some(Fate::Fails(Failure::InDoubt { acknowledged: 1, needed: 2 }))
    });
    assert!(client.run("EXPIRE k -1").starts_with("-INDOUBT 1 of 2"));
    assert_eq!(client.run("WAIT 2 50"), ":0");
}

#[test]
fn info_has_what_clients_parse() {
    let fake = Fake::new();
    let server = Server::start(fake, RespOptions::default());
    let mut client = server.connect();
    client.run("SET k v");
    let Reply::Bulk(info) = client.call(&["INFO"]) else { panic!("no text") };
    let info = String::from_utf8(info).expect("text");
    for line in [
        "redis_version:7.2.4",
        "redis_mode:standalone",
        "role:master",
        "loading:0",
        "connected_clients:1",
        "cluster_enabled:0",
        "db0:keys=1,expires=0,avg_ttl=0",
        "total_commands_processed:1",
        "uptime_in_seconds:12",
        "node_id:n1",
        "members:3",
    ] {
        assert!(info.lines().any(|found| found == line), "{line} is not in\n{info}");
    }
    assert!(info.lines().any(|line| line.strip_prefix("used_memory:").is_some_and(|bytes| bytes != "0")));
    let Reply::Bulk(all) = client.call(&["INFO", "ALL"]) else { panic!("no text") };
    assert_eq!(all.iter().filter(|byte| **byte == b'#').count(), 9);
}

#[test]
fn clients_are_listed_and_killed() {
    let server = Server::start(Fake::new(), RespOptions::default());
    let (mut one, mut two) = (server.connect(), server.connect());
    one.run("CLIENT SETNAME one");
    two.run("CLIENT SETNAME two");
    let Reply::Bulk(list) = one.call(&["CLIENT", "LIST"]) else { panic!("no list") };
    let list = String::from_utf8(list).expect("text");
    assert_eq!(list.lines().count(), 2);
    assert!(list.contains("name=one ") && list.contains("name=two ") && list.contains("cmd=client "), "{list}");
    let two_address = two.stream.local_addr().expect("it is connected").to_string();
    assert_eq!(one.call(&["CLIENT", "KILL", "ADDR", &two_address]).to_string(), ":1");
    assert_eq!(two.try_reply(), None);
    // Killing oneself is only possible when asked for.
    assert_eq!(one.run("CLIENT KILL USER default"), ":0");
    let own = one.run("CLIENT ID").trim_start_matches(':').to_owned();
    one.send(&crate::resp_harness::encode(&["CLIENT", "KILL", "ID", &own, "SKIPME", "no"]));
    one.rest();
    assert_eq!(server.connect().run("PING"), "+PONG");
}

#[test]
fn replies_can_be_switched_off() {
    let server = Server::start(Fake::new(), RespOptions::default());
    let mut client = server.connect();
    for command in ["CLIENT REPLY OFF", "SET k 1", "GET k", "NOSUCH"] {
        client.send(&crate::resp_harness::encode(&command.split(' ').collect::<Vec<_>>()));
    }
    assert_eq!(client.run("CLIENT REPLY ON"), "+OK");
    assert_eq!(client.run("GET k"), "\"1\"");
    client.send(b"CLIENT REPLY SKIP\r\nSET k 2\r\n");
    assert_eq!(client.run("GET k"), "\"2\"");
}
