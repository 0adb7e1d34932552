//! Input that is wrong, endless, slow or too much.

use std::io::Read;
use std::time::Duration;

use dogsled::server::resp::RespOptions;
use dogsled::types::limits;

use crate::resp_fake::Fake;
use crate::resp_harness::{Reply, Server, encode};

fn start(options: RespOptions) -> Server {
    Server::start(Fake::new(), options)
}

#[test]
fn bytes_that_are_no_command_get_an_error_and_the_end() {
    let server = start(RespOptions::default());
    let inline = vec![b'x'; limits::RESP_INLINE_BYTES];
    let cases: Vec<(Vec<u8>, &str)> = vec![
        (b"*1000000000\r\n".to_vec(), "invalid multibulk length"),
        (b"*1048577\r\n".to_vec(), "invalid multibulk length"),
        (b"*99999999999999999999\r\n".to_vec(), "invalid multibulk length"),
        (b"*x\r\n".to_vec(), "invalid multibulk length"),
        (b"*\r\n".to_vec(), "invalid multibulk length"),
        (b"*+1\r\n".to_vec(), "invalid multibulk length"),
        (b"*01\r\n".to_vec(), "invalid multibulk length"),
        (b"*1\n".to_vec(), "invalid multibulk length"),
        (b"*00000000000000000000000000000000000000000".to_vec(), "too big mbulk count string"),
        (b"*1\r\nGET\r\n".to_vec(), "expected '$', got 'G'"),
        (b"*1\r\n\xff".to_vec(), "expected '$', got '\\xff'"),
        (b"*1\r\n\r\n".to_vec(), "expected '$', got '\\r'"),
        (b"*1\r\n$-5\r\n".to_vec(), "invalid bulk length"),
        (b"*1\r\n$-1\r\n".to_vec(), "invalid bulk length"),
        (b"*1\r\n$x\r\n".to_vec(), "invalid bulk length"),
        (b"*1\r\n$4294967296\r\n".to_vec(), "invalid bulk length"),
        (b"*1\r\n$16842753\r\n".to_vec(), "invalid bulk length"),
        (b"*1\r\n$00000000000000000000000000000000000000000".to_vec(), "too big bulk count string"),
        (b"*1\r\n$4\r\nPING__".to_vec(), "expected CRLF after a bulk string"),
        (inline, "too big inline request"),
        (b"SET \"a\r\n".to_vec(), "unbalanced quotes in request"),
        (b"SET 'a'b\r\n".to_vec(), "unbalanced quotes in request"),
    ];
    for (bytes, text) in cases {
        let shown = bytes[..bytes.len().min(40)].escape_ascii().to_string();
        let mut client = server.connect();
        client.send(b"PING\r\n");
        client.send(&bytes);
        let rest = client.rest();
        let expected = format!("+PONG\r\n-ERR Protocol error: {text}\r\n");
        assert_eq!(rest.escape_ascii().to_string(), expected.as_bytes().escape_ascii().to_string(), "{shown}");
    }
    assert_eq!(server.connect().run("PING"), "+PONG");
}

#[test]
fn what_redis_skips_in_silence_is_skipped() {
    let server = start(RespOptions::default());
    let mut client = server.connect();
    client.send(b"\r\n\n  \r\n*0\r\n*-5\r\n*-1\r\nPING\r\n");
    assert_eq!(client.reply().to_string(), "+PONG");
    client.assert_quiet_until("that was all");
}

#[test]
fn inline_commands_are_for_people() {
    let server = start(RespOptions::default());
    let mut client = server.connect();
    client.send(b"set \"my key\" 'it\\'s \\x41'\nget \"my\\x20key\"\r\n");
    assert_eq!(client.reply().to_string(), "+OK");
    assert_eq!(client.reply(), Reply::Bulk(b"it's \\x41".to_vec()));
}

#[test]
fn http_on_this_port_is_cut_off_without_a_word() {
    let server = start(RespOptions::default());
    for request in ["POST / HTTP/1.1\r\nHost: x\r\n\r\nSET a b\r\n", "GET / HTTP/1.1\r\nHost: x\r\n\r\nSET a b\r\n"] {
        let mut client = server.connect();
        client.send(request.as_bytes());
        let rest = client.rest();
        assert!(!rest.windows(3).any(|three| three == b"+OK"), "{}", rest.escape_ascii());
    }
    assert_eq!(server.connect().run("EXISTS a"), ":0");
}

#[test]
fn before_the_password_only_little_is_listened_to() {
    let server = start(RespOptions { password: Some("secret".into()), ..RespOptions::default() });
    let mut client = server.connect();
    client.send(b"*11\r\n");
    assert_eq!(client.rest(), b"-ERR Protocol error: unauthenticated multibulk length\r\n");
    let mut client = server.connect();
    client.send(b"*2\r\n$4\r\nAUTH\r\n$16385\r\n");
    assert_eq!(client.rest(), b"-ERR Protocol error: unauthenticated bulk length\r\n");
    let mut client = server.connect();
    client.send(b"*1000000000\r\n");
    assert_eq!(client.rest(), b"-ERR Protocol error: invalid multibulk length\r\n");
    // And not for long.
    let short = RespOptions {
        password: Some("secret".into()),
        command_deadline: Duration::from_millis(100),
        ..RespOptions::default()
    };
    let impatient = start(short);
    let mut silent = impatient.connect();
    let mut known = impatient.connect();
    assert_eq!(known.run("AUTH secret"), "+OK");
    assert_eq!(silent.rest(), b"");
    assert_eq!(known.run("PING"), "+PONG");
    // In one go: the limits are those of the moment at which each command is read.
    let mut client = server.connect();
    let many: Vec<String> = ["DEL".to_owned()].into_iter().chain((0..20).map(|number| number.to_string())).collect();
    client.send(&[encode(&["AUTH", "secret"]), encode(&many)].concat());
    assert_eq!(client.reply().to_string(), "+OK");
    assert_eq!(client.reply().to_string(), ":0");
}

#[test]
fn a_command_that_is_not_finished_in_time_is_given_up() {
    let options = RespOptions { command_deadline: Duration::from_millis(150), ..RespOptions::default() };
    let metrics = options.metrics.clone();
    let server = start(options);
    let mut idle = server.connect();
    for half in [&b"*2\r\n$3\r\nGET\r\n$1000\r\nabc"[..], b"GET k", b"*", b"*3\r\n"] {
        let mut client = server.connect();
        client.send(half);
        assert_eq!(client.rest(), b"", "{}", half.escape_ascii());
    }
    // A byte now and then changes nothing.
    let mut slow = server.connect();
    let mut sender = slow.stream.try_clone().expect("a socket can be cloned");
    let writer = std::thread::spawn(move || {
        while std::io::Write::write_all(&mut sender, b"x").is_ok() {
            std::thread::sleep(Duration::from_millis(20));
        }
    });
    assert_eq!(slow.rest(), b"");
    drop(slow);
    writer.join().expect("the writer did not panic");
    // One that owes nothing may stay.
    assert_eq!(idle.run("PING"), "+PONG");
    drop(server);
    drop(metrics);
}

#[test]
fn silence_is_only_ended_where_the_configuration_says_so() {
    let options = RespOptions { idle_timeout: Some(Duration::from_millis(100)), ..RespOptions::default() };
    let server = start(options);
    let mut client = server.connect();
    assert_eq!(client.run("PING"), "+PONG");
    assert_eq!(client.rest(), b"");
}

#[test]
fn a_client_that_takes_no_replies_is_given_up() {
    let fake = Fake::new();
    let options = RespOptions { write_deadline: Duration::from_millis(200), ..RespOptions::default() };
    let server = Server::start(fake, options);
    let mut client = server.connect();
    let value = vec![b'v'; 1024 * 1024];
    client.call(&[b"SET", &b"big"[..], &value[..]]);
    client.send(&encode(&["GET", "big"]).repeat(200));
    // The server is alone once it has struck the stubborn one off.
    let mut other = server.connect();
    loop {
        let Reply::Bulk(list) = other.call(&["CLIENT", "LIST"]) else { panic!("no list") };
        if list.iter().filter(|byte| **byte == b'\n').count() == 1 {
            break;
        }
        std::thread::yield_now();
    }
    let mut taken = 0;
    let mut chunk = vec![0; 1024 * 1024];
    while let Ok(bytes @ 1..) = client.stream.read(&mut chunk) {
        taken += bytes;
    }
    assert!(taken < 200 * value.len(), "everything was sent after all");
}

#[test]
fn more_connections_than_allowed_are_told_so() {
    let options = RespOptions { max_connections: 2, ..RespOptions::default() };
    let server = start(options);
    let (mut one, mut two) = (server.connect(), server.connect());
    assert_eq!((one.run("PING"), two.run("PING")), ("+PONG".into(), "+PONG".into()));
    let mut three = server.connect();
    assert_eq!(three.rest(), b"-ERR max number of clients reached\r\n");
    drop(two);
    // Until the place is free again others are refused.
    loop {
        let mut four = server.connect();
        four.send(b"PING\r\n");
        match four.try_reply() {
            Some(Reply::Simple(pong)) => break assert_eq!(pong, "PONG"),
            Some(refusal) => assert_eq!(refusal.to_string(), "-ERR max number of clients reached"),
            None => {}
        }
    }
    assert_eq!(one.run("PING"), "+PONG");
}

#[test]
fn a_command_above_all_limits_is_refused_before_it_is_held() {
    let server = start(RespOptions::default());
    let mut client = server.connect();
    // Five arguments of 16 MiB; the fourth would exceed what one command may be.
    let mut sender = client.stream.try_clone().expect("a socket can be cloned");
    let writer = std::thread::spawn(move || {
        let _ = std::io::Write::write_all(&mut sender, b"*6\r\n$4\r\nMSET\r\n");
        let argument = [b"$16777216\r\n".to_vec(), vec![b'x'; 16_777_216], b"\r\n".to_vec()].concat();
        for _ in 0..5 {
            if std::io::Write::write_all(&mut sender, &argument).is_err() {
                return;
            }
        }
    });
    let rest = client.rest();
    assert_eq!(
        rest,
        format!("-ERR Protocol error: command is longer than {} bytes\r\n", limits::RESP_COMMAND_BYTES).as_bytes()
    );
    writer.join().expect("the writer did not panic");
}

#[test]
fn a_transaction_without_end_is_bounded() {
    let options = RespOptions { transactions: dogsled::server::resp::Transactions::Pipeline, ..RespOptions::default() };
    let server = start(options);
    let mut client = server.connect();
    let value = vec![b'v'; 1024 * 1024];
    client.run("MULTI");
    let mut refused = 0;
    for _ in 0..20 {
        let reply = client.call(&[b"SET", &b"k"[..], &value[..]]).to_string();
        refused += usize::from(reply.starts_with("-ERR a transaction takes at most"));
    }
    assert!(refused > 0);
    assert_eq!(client.run("EXEC"), "-EXECABORT Transaction discarded because of previous errors.");
    assert_eq!(client.run("EXISTS k"), ":0");
}
