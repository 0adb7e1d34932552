//! Contexts, sessions and op-ids over RESP.

use dogsled::server::resp::RespOptions;
use dogsled::types::{ConsistencyLevel, Failure, Operation, Refusal, limits};

use crate::resp_fake::{Fake, Fate};
use crate::resp_harness::{Client, Reply, Server};

fn start() -> (std::sync::Arc<Fake>, Server) {
    let fake = Fake::new();
    let server = Server::start(fake.clone(), RespOptions::default());
    (fake, server)
}

/// The values and the context of a key.
fn values(client: &mut Client, key: &str) -> (Vec<String>, Option<String>) {
    let Reply::Array(parts) = client.call(&["KV.GET", key]) else { panic!("no map") };
    let [_, Reply::Array(values), _, context, _, Reply::Array(ttl)] = &parts[..] else { panic!("{parts:?}") };
    assert_eq!(values.len(), ttl.len());
    let text = |reply: &Reply| match reply {
        Reply::Bulk(bytes) => Some(String::from_utf8(bytes.clone()).expect("text")),
        _ => None,
    };
    (values.iter().filter_map(text).collect(), text(context))
}

#[test]
fn a_write_replaces_what_its_context_has_seen_and_nothing_else() {
    let (_, server) = start();
    let (mut one, mut two) = (server.connect(), server.connect());
    for client in [&mut one, &mut two] {
        assert_eq!(client.run("KV.NAMESPACE both"), "+OK");
    }
    one.run("KV.PUT k first");
    let (found, seen) = values(&mut one, "k");
    let seen = seen.expect("there is a context");
    assert_eq!(found, ["first"]);
    assert_eq!(two.call(&["KV.PUT", "k", "of two", "CONTEXT", &seen]).to_string(), "+OK");
    assert_eq!(one.call(&["KV.PUT", "k", "of one", "CONTEXT", &seen, "PX", "90000"]).to_string(), "+OK");
    let (found, both) = values(&mut one, "k");
    assert_eq!(found, ["of one", "of two"], "neither had seen the other");
    let both = both.expect("there is a context");
    assert_eq!(one.call(&["KV.PUT", "k", "merged", "CONTEXT", &both]).to_string(), "+OK");
    assert_eq!(values(&mut two, "k").0, ["merged"]);
    // What has seen less deletes less.
    assert_eq!(two.call(&["KV.DEL", "k", "CONTEXT", &both]).to_string(), "+OK");
    assert_eq!(values(&mut two, "k").0, ["merged"]);
    assert_eq!(two.run("KV.DEL k"), "+OK");
    assert_eq!(values(&mut two, "k"), (vec![], None));
}

#[test]
fn tokens_that_were_changed_are_refused_and_change_nothing() {
    let (fake, server) = start();
    let mut client = server.connect();
    client.run("KV.NAMESPACE both");
    client.run("SET k v");
    let token = values(&mut client, "k").1.expect("there is a context");
    fake.log();
    for cut in 0..token.len() {
        let refused = client.call(&["KV.PUT", "k", "w", "CONTEXT", &token[..cut]]).to_string();
        assert!(refused.starts_with("-ERR the context token "), "{cut}: {refused}");
        let refused = client.call(&["KV.DEL", "k", "CONTEXT", &token[..cut]]).to_string();
        assert!(refused.starts_with("-ERR the context token "), "{cut}: {refused}");
    }
    let huge = "A".repeat(limits::TOKEN_BYTES + 1);
    let refused = client.call(&["KV.PUT", "k", "w", "CONTEXT", &huge]).to_string();
    assert_eq!(refused, "-ERR the context token is longer than any that is given out");
    let refused = client.call(&[&b"KV.PUT"[..], b"k", b"w", b"CONTEXT", b"\x00\xff\r\n"]).to_string();
    assert_eq!(refused, "-ERR the context token is damaged: hand it back as it was given, or read anew");
    let long = "f".repeat(100_000);
    assert!(client.call(&["KV.RESOLVE", "k", &long]).to_string().starts_with("-ERR 'fff"));
    assert!(client.call(&["KV.WITH", &format!("opid={long}"), "SET", "k", "v"]).to_string().starts_with("-ERR 'fff"));
    assert!(fake.logged().is_empty(), "none of it reached the node");
}

#[test]
fn a_connection_at_quorum_keeps_no_session() {
    let (fake, server) = start();
    let mut client = server.connect();
    fake.log();
    for command in ["SET k v", "GET k", "MGET k l", "DEL k", "TTL k"] {
        client.run(command);
    }
    assert!(fake.logged().iter().all(|request| request.session.is_empty()));
    assert!(client.run("CLIENT INFO").contains(" namespace=default session=none"));
}

#[test]
fn reads_below_quorum_name_what_the_connection_has_written_and_read() {
    let (fake, server) = start();
    let (mut client, mut other) = (server.connect(), server.connect());
    other.run("SET read v");
    // Acknowledged by two of three: a read at ONE might still ask the third.
    assert_eq!(client.run("SET k v"), "+OK");
    assert_eq!(client.run("READONLY"), "+OK");
    fake.log();
    assert_eq!(client.run("GET k"), "\"v\"");
    let [first] = &fake.logged()[..] else { panic!("one request") };
    assert_eq!((first.consistency, first.session.count()), (ConsistencyLevel::One, 1), "what it wrote before");
    // Whoever reads something has seen it.
    client.run("GET read");
    client.run("STRLEN read");
    client.run("MGET read");
    let named: Vec<u64> = fake.logged().iter().map(|request| request.session.count()).collect();
    assert_eq!(named, [0, 1, 1]);
    fake.acknowledge(1, 1);
    client.run("KV.WITH write=one SET k w");
    fake.logged();
    client.run("KV.WITH read=quorum GET k");
    let [quorum] = &fake.logged()[..] else { panic!("one request") };
    assert_eq!(quorum.session.count(), 2, "a quorum may miss what one replica has");
    // What every replica has needs no name.
    fake.acknowledge(3, 3);
    client.run("SET everywhere v");
    fake.logged();
    client.run("KV.GET nothing-else-here");
    assert!(client.run("CLIENT INFO").contains(" session=kept"));
    assert!(other.run("CLIENT LIST").contains(" session=none"));
    client.run("RESET");
    fake.logged();
    client.run("READONLY");
    client.run("GET k");
    assert!(fake.logged()[0].session.is_empty(), "RESET begins anew");
}

#[test]
fn a_session_that_has_seen_much_asks_for_more_and_not_for_less() {
    let (fake, server) = start();
    let mut client = server.connect();
    fake.acknowledge(1, 1);
    client.run("CLIENT CONSISTENCY read=one write=one");
    // Other connections write between, so that no two dots of this one lie beside each other.
    let mut other = server.connect();
    for number in 0..limits::SESSION_RANGES + 100 {
        client.call(&["SET", &format!("k{number}"), "v"]);
        other.run("SET between v");
    }
    fake.log();
    client.run("GET k1");
    let [request] = &fake.logged()[..] else { panic!("one request") };
    assert_eq!(request.consistency, ConsistencyLevel::One);
    let (dots, ranges) = (request.session.count(), request.session.ranges());
    assert!(ranges < 64 && dots > 64, "{dots} in {ranges} ranges: what lies between is named too");
    assert!(client.run("CLIENT INFO").contains(" session=kept"));
}

#[test]
fn resolving_says_when_it_does_not_know() {
    let (fake, server) = start();
    let mut client = server.connect();
    fake.fault(|request| {
        let resolves = matches!(request.operation, Operation::Resolve { .. });
        resolves.then_some(Fate::Fails(Failure::InDoubt { acknowledged: 0, needed: 2 }))
    });
    let doubt = client.run("KV.RESOLVE k 1");
    assert_eq!(doubt, "-INDOUBT 0 of 2 acknowledgements within 500ms; the write may still take effect");
    fake.fault(|_| Some(Fate::Fails(Failure::NotApplied(Refusal::OpIdReused))));
    assert_eq!(client.run("KV.WITH opid=1 SET k v"), "-ERR the op-id was used for another write");
    assert_eq!(client.run("KV.RESOLVE k 1"), "-ERR the op-id was used for another write");
    fake.fault(|_| Some(Fate::Fails(Failure::NotApplied(Refusal::TooManySiblings { count: 32 }))));
    assert!(client.run("SET k v").starts_with("-ERR the key has 32 concurrent values"));
}
