//! Commands sent without waiting: order, conflicts, bounds.

use std::sync::Arc;
use std::time::Duration;

use dogsled::server::resp::{RespOptions, Transactions};
use dogsled::types::{Operation, Request, limits};

use crate::resp_fake::Fake;
use crate::resp_harness::{Client, Reply, Server, encode};

fn start() -> (Arc<Fake>, Server, Client) {
    let fake = Fake::new();
    let server = Server::start(fake.clone(), RespOptions::default());
    let client = server.connect();
    (fake, server, client)
}

fn send(client: &mut Client, commands: &[&str]) {
    let bytes: Vec<u8> = commands.iter().flat_map(|command| encode(&command.split(' ').collect::<Vec<_>>())).collect();
    client.send(&bytes);
}

/// What a request is about, briefly.
fn brief(request: &Request) -> String {
    match &request.operation {
        Operation::Get { key } => format!("get {}", key.bytes().escape_ascii()),
        Operation::Head { key } => format!("head {}", key.bytes().escape_ascii()),
        Operation::Put { key, value, .. } => format!("put {} {}", key.bytes().escape_ascii(), value.escape_ascii()),
        Operation::Delete { key, .. } => format!("delete {}", key.bytes().escape_ascii()),
        other => format!("{other:?}"),
    }
}

fn held(fake: &Fake, count: usize) -> Vec<String> {
    fake.wait_for_held(count).iter().map(brief).collect()
}

fn replies(client: &mut Client, count: usize) -> Vec<String> {
    (0..count).map(|_| client.reply().to_string()).collect()
}

#[test]
fn commands_on_different_keys_run_together_and_are_answered_in_order() {
    let (fake, _server, mut client) = start();
    fake.hold();
    send(&mut client, &["SET a 1", "SET b 2", "GET c", "PING", "SET d 4"]);
    assert_eq!(held(&fake, 4), ["put a 1", "put b 2", "get c", "put d 4"]);
    // The last is answered first, and its reply waits.
    fake.release(3);
    fake.release(1);
    fake.release(1);
    fake.release(0);
    assert_eq!(replies(&mut client, 5), ["+OK", "+OK", "null", "+PONG", "+OK"]);
}

#[test]
fn a_command_waits_for_those_before_it_that_share_a_key() {
    let cases: [(&[&str], &[&str]); 10] = [
        (&["SET a 1", "SET a 2"], &["put a 1"]),
        (&["SET a 1", "GET a"], &["put a 1"]),
        (&["GET a", "SET a 1"], &["get a"]),
        (&["GET a", "GET a"], &["get a", "get a"]),
        (&["SET a 1", "SET b 2", "GET b", "SET c 3"], &["put a 1", "put b 2"]),
        (&["MSET a 1 b 2", "GET b"], &["put b 2", "put a 1"]),
        (&["GET b", "MSET a 1 b 2"], &["get b"]),
        (&["GET b", "MGET a b"], &["get b", "get a", "get b"]),
        (&["KV.WITH write=one SET a 1", "KV.WITH read=one GET a"], &["put a 1"]),
        (&["OBJECT ENCODING a", "SET a 1"], &["head a"]),
    ];
    for (commands, expected) in cases {
        let (fake, _server, mut client) = start();
        fake.hold();
        send(&mut client, commands);
        assert_eq!(held(&fake, expected.len()), expected, "{commands:?}");
        // Another connection is served meanwhile; by then the first had its chance to do more.
        let mut other = _server.connect();
        assert_eq!(other.run("PING"), "+PONG");
        assert_eq!(fake.held(), expected.len(), "{commands:?}: a command did not wait");
        fake.release_all();
        for _ in commands {
            client.reply();
        }
    }
}

#[test]
fn a_connection_reads_its_own_pipelined_writes() {
    let (fake, _server, mut client) = start();
    fake.group(Duration::from_micros(200));
    let mut commands = Vec::new();
    let mut expected = Vec::new();
    for round in 0..200 {
        let key = format!("k{}", round % 7);
        commands.push(format!("SET {key} {round}"));
        expected.push("+OK".to_owned());
        commands.push(format!("GET {key}"));
        expected.push(format!("\"{round}\""));
        if round % 10 == 0 {
            commands.push(format!("DEL {key} {key}"));
            expected.push(":1".to_owned());
            commands.push(format!("MGET {key} {key}"));
            expected.push("[null null]".to_owned());
        }
    }
    send(&mut client, &commands.iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!(replies(&mut client, expected.len()), expected);
}

#[test]
fn commands_that_run_alone_wait_for_all_and_let_none_pass() {
    for alone in ["SCAN 0", "DBSIZE", "KEYS *", "WAIT 3 1000"] {
        let (fake, server, mut client) = start();
        fake.hold();
        send(&mut client, &["SET a 1", alone, "SET b 2"]);
        assert_eq!(held(&fake, 1), ["put a 1"]);
        let mut other = server.connect();
        assert_eq!(other.run("PING"), "+PONG");
        assert_eq!(fake.held(), 1, "{alone} did not wait");
        fake.release(0);
        assert_eq!(client.reply().to_string(), "+OK");
        let then = fake.wait_for_held(1);
        assert!(!matches!(then[0].operation, Operation::Put { .. }), "{alone} was overtaken: {then:?}");
        fake.release_all();
        replies(&mut client, 2);
    }
}

#[test]
fn a_change_of_the_connection_applies_to_what_follows_it_only() {
    let (fake, _server, mut client) = start();
    fake.hold();
    send(&mut client, &["GET a", "HELLO 3", "GET a", "CLIENT CONSISTENCY read=one", "GET b"]);
    assert_eq!(held(&fake, 1), ["get a"]);
    fake.release(0);
    assert_eq!(client.reply(), Reply::Null);
    assert!(matches!(client.reply(), Reply::Map(_)));
    assert_eq!(held(&fake, 1), ["get a"]);
    fake.release(0);
    assert_eq!(client.reply(), Reply::Null);
    assert_eq!(client.reply().to_string(), "+OK");
    let last = fake.wait_for_held(1);
    assert_eq!(last[0].consistency.to_string(), "one");
    fake.release_all();
    client.reply();
}

#[test]
fn a_pipelined_transaction_gets_exactly_the_replies_that_clients_count_on() {
    // go-redis and redis-rs send this in one write and take the replies as they come.
    let (fake, _server, mut client) = start();
    send(&mut client, &["MULTI", "SET a 1", "GET a", "EXEC", "GET a"]);
    let got = replies(&mut client, 5);
    assert_eq!(got[..3], ["+OK", "+QUEUED", "+QUEUED"]);
    assert!(got[3].starts_with("-EXECABORT Transaction discarded: "), "{}", got[3]);
    assert_eq!(got[4], "null", "nothing may have run");
    assert_eq!(fake.live(), 0);
}

#[test]
fn a_transaction_as_a_pipeline_runs_in_order_within_its_place() {
    let fake = Fake::new();
    let options = RespOptions { transactions: Transactions::Pipeline, ..RespOptions::default() };
    let server = Server::start(fake.clone(), options);
    let mut client = server.connect();
    fake.hold();
    send(&mut client, &["SET z 0", "MULTI", "SET a 1", "GET a", "SET b 2", "EXEC", "SET a 3", "PING"]);
    assert_eq!(held(&fake, 1), ["put z 0"]);
    fake.release(0);
    assert_eq!(replies(&mut client, 5), ["+OK", "+OK", "+QUEUED", "+QUEUED", "+QUEUED"]);
    assert_eq!(held(&fake, 1), ["put a 1"]);
    fake.release_all();
    assert_eq!(replies(&mut client, 3), ["[+OK \"1\" +OK]", "+OK", "+PONG"]);
    assert_eq!(client.run("GET a"), "\"3\"");
}

#[test]
fn deletes_run_together_although_each_takes_two_steps() {
    let (fake, _server, mut client) = start();
    let keys: Vec<String> = (0..100).map(|number| format!("k{number}")).collect();
    for key in &keys {
        client.call(&["SET", key, "v"]);
    }
    fake.hold();
    let commands: Vec<String> = keys.iter().map(|key| format!("DEL {key}")).collect();
    send(&mut client, &commands.iter().map(String::as_str).collect::<Vec<_>>());
    assert!(fake.wait_for_held(100).iter().all(|request| matches!(request.operation, Operation::Head { .. })));
    // From the last on: none may wait for those before it.
    for place in (0..100).rev() {
        fake.release(place);
    }
    assert!(fake.wait_for_held(100).iter().all(|request| matches!(request.operation, Operation::Delete { .. })));
    fake.release_all();
    assert_eq!(replies(&mut client, 100), vec![":1"; 100]);
}

#[test]
fn what_is_under_way_is_bounded_and_goes_on_as_it_is_answered() {
    let (fake, server, mut client) = start();
    fake.hold();
    let mut sender = client.stream.try_clone().expect("a socket can be cloned");
    let all = 5_000;
    let writer = std::thread::spawn(move || {
        for number in 0..all {
            std::io::Write::write_all(&mut sender, &encode(&["SET", &format!("k{number}"), "v"])).expect("it reads");
        }
    });
    fake.wait_for_held(limits::RESP_PIPELINE);
    let mut other = server.connect();
    assert_eq!(other.run("PING"), "+PONG");
    assert_eq!(fake.held(), limits::RESP_PIPELINE);
    fake.release_all();
    assert_eq!(replies(&mut client, all), vec!["+OK"; all]);
    writer.join().expect("the writer did not panic");
    assert_eq!(fake.live(), all);
}

#[test]
fn large_values_are_read_a_few_at_a_time() {
    let (fake, server, mut client) = start();
    fake.hold();
    let count = limits::RESP_READ_BYTES / limits::DEFAULT_MAX_VALUE_BYTES;
    let commands: Vec<String> = (0..count * 3).map(|number| format!("GET k{number}")).collect();
    send(&mut client, &commands.iter().map(String::as_str).collect::<Vec<_>>());
    fake.wait_for_held(count);
    let mut other = server.connect();
    assert_eq!(other.run("PING"), "+PONG");
    assert_eq!(fake.held(), count, "so many of the largest values are all that may come in at once");
    fake.release_all();
    assert_eq!(replies(&mut client, count * 3), vec!["null"; count * 3]);
}

#[test]
fn a_client_that_reads_nothing_is_not_worked_for() {
    let (fake, server, mut client) = start();
    let value = vec![b'v'; 512 * 1024];
    client.call(&[b"SET", &b"big"[..], &value[..]]);
    fake.log();
    // 200 MB of replies, of which the sockets and the server hold a few.
    let commands = encode(&["GET", "big"]).repeat(400);
    client.send(&commands);
    let mut other = server.connect();
    let mut before = usize::MAX;
    let mut asked = 0;
    // It has stopped once two rounds of another client find nothing new.
    while before != asked {
        before = asked;
        for _ in 0..2_000 {
            other.run("PING");
        }
        asked += fake.logged().len();
    }
    assert!(asked < 200, "{asked} values were read for a client that takes none");
    for _ in 0..400 {
        assert!(matches!(client.reply(), Reply::Bulk(bytes) if bytes.len() == value.len()));
    }
}

#[test]
fn a_client_that_goes_away_in_mid_pipeline_harms_nobody() {
    let (fake, server, mut client) = start();
    fake.hold();
    send(&mut client, &["SET a 1", "DEL b", "SCAN 0", "SET c 1"]);
    fake.wait_for_held(2);
    drop(client);
    let mut other = server.connect();
    assert_eq!(other.run("PING"), "+PONG");
    fake.release_all();
    assert_eq!(other.run("GET a"), "\"1\"", "what was begun takes effect");
}

#[test]
fn what_was_sent_before_the_end_of_input_is_answered() {
    let (fake, _server, mut client) = start();
    fake.hold();
    send(&mut client, &["SET a 1", "GET a", "PING"]);
    client.stream.shutdown(std::net::Shutdown::Write).expect("it is connected");
    fake.wait_for_held(1);
    fake.release_all();
    assert_eq!(client.rest(), b"+OK\r\n$1\r\n1\r\n+PONG\r\n");
}

#[test]
fn a_server_that_stops_answers_what_it_has_begun() {
    let (fake, server, mut client) = start();
    fake.hold();
    send(&mut client, &["SET a 1", "SET b 2"]);
    fake.wait_for_held(2);
    server.begin_stop();
    // Once nobody is let in any more, all connections have been told.
    while std::net::TcpStream::connect(server.address).is_ok() {}
    fake.release(0);
    assert_eq!(client.reply().to_string(), "+OK");
    fake.release(0);
    assert_eq!(client.reply().to_string(), "+OK");
    assert_eq!(client.try_reply(), None);
}

#[test]
fn a_client_that_has_said_goodbye_can_still_be_stopped() {
    let (fake, server, mut client) = start();
    fake.hold();
    send(&mut client, &["SET a 1", "SET b 2"]);
    client.stream.shutdown(std::net::Shutdown::Write).expect("it is connected");
    fake.wait_for_held(2);
    server.begin_stop();
    while std::net::TcpStream::connect(server.address).is_ok() {}
    fake.release(0);
    assert_eq!(client.reply().to_string(), "+OK");
    fake.release(0);
    assert_eq!(client.rest(), b"+OK\r\n");
}

#[test]
fn a_hundred_thousand_writes_in_one_go() {
    // What `redis-cli --pipe` does, its closing words included.
    let (fake, _server, mut client) = start();
    fake.group(Duration::from_micros(500));
    let mut sender = client.stream.try_clone().expect("a socket can be cloned");
    let all = 100_000;
    let writer = std::thread::spawn(move || {
        let mut bytes = Vec::new();
        for number in 0..all {
            bytes.extend(encode(&["SET", &format!("word:{number}"), &number.to_string()]));
        }
        bytes.extend_from_slice(b"\r\n");
        bytes.extend(encode(&["ECHO", "enough"]));
        std::io::Write::write_all(&mut sender, &bytes).expect("it reads");
    });
    for _ in 0..all {
        assert_eq!(client.reply(), Reply::Simple("OK".into()));
    }
    assert_eq!(client.reply(), Reply::Bulk(b"enough".to_vec()));
    writer.join().expect("the writer did not panic");
    assert_eq!(fake.live(), all);
}
