use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream as StdStream};
use std::thread::JoinHandle;

use super::*;
use crate::client::resp::Fate;

const LIMIT: Duration = Duration::from_secs(20);

/// A server of one connection that does what the test says.
fn server(serve: impl FnOnce(StdStream) + Send + 'static) -> (Target, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let thread = std::thread::spawn(move || serve(listener.accept().unwrap().0));
    (Target::new("127.0.0.1", port), thread)
}

#[test]
fn a_pipeline_larger_than_the_sockets_does_not_come_to_a_halt() {
    // The server answers as it reads, with more than it read, and never buffers: if the client
    // wrote everything before it read anything, both would wait for ever.
    let (target, thread) = server(|mut stream| {
        let mut buffer = [0_u8; 64 * 1024];
        let reply = [b"$2000\r\n".as_slice(), &[b'x'; 2_000], b"\r\n"].concat();
        while let Ok(read @ 1..) = stream.read(&mut buffer) {
            let commands = buffer[..read].iter().filter(|byte| **byte == b'*').count();
            stream.write_all(&reply.repeat(commands)).unwrap();
        }
    });
    let mut pipeline = Pipeline::new();
    for _ in 0..20_000 {
        pipeline.push(&[vec![b'y'; 1_000]]);
    }
    let mut connection = BlockingConnection::connect(&target, LIMIT).unwrap();
    let mut answered = 0;
    connection
        .exchange(&pipeline, |reply| {
            assert_eq!(reply.as_bytes().unwrap().len(), 2_000);
            answered += 1;
        })
        .unwrap();
    assert_eq!(answered, 20_000);
    drop(connection);
    thread.join().unwrap();
}

#[test]
fn credentials_go_first_and_a_refusal_is_an_error_of_the_connect() {
    let (mut target, thread) = server(|mut stream| {
        let mut buffer = [0_u8; 512];
        let read = stream.read(&mut buffer).unwrap();
        assert_eq!(&buffer[..read], b"*3\r\n$4\r\nAUTH\r\n$1\r\nu\r\n$6\r\nsecret\r\n");
        stream.write_all(b"-WRONGPASS invalid username-password pair or user is disabled.\r\n").unwrap();
    });
    target.credentials =
        Some(crate::client::resp::Credentials { user: Some("u".to_owned()), password: "secret".to_owned() });
    let error = BlockingConnection::connect(&target, LIMIT).unwrap_err();
    assert_eq!((error.prefix(), error.fate()), (Some("WRONGPASS"), Fate::NotApplied));
    thread.join().unwrap();
}

#[test]
fn errors_say_whether_the_command_may_have_been_applied() {
    let (target, thread) = server(|mut stream| {
        let mut buffer = [0_u8; 512];
        for reply in ["-NOREPLICAS Not enough good replicas to write.\r\n", "-INDOUBT 1 of 2\r\n"] {
            assert!(stream.read(&mut buffer).unwrap() > 0);
            // News that answers no command is passed over.
            stream.write_all(format!(">2\r\n+invalidate\r\n_\r\n{reply}").as_bytes()).unwrap();
        }
        assert!(stream.read(&mut buffer).unwrap() > 0);
    });
    let mut connection = BlockingConnection::connect(&target, LIMIT).unwrap();
    let mut set = || connection.call(&["SET", "k", "v"]).unwrap_err();
    let (refused, in_doubt, closed) = (set(), set(), set());
    assert_eq!((refused.prefix(), refused.fate()), (Some("NOREPLICAS"), Fate::NotApplied));
    assert_eq!((in_doubt.prefix(), in_doubt.fate()), (Some("INDOUBT"), Fate::InDoubt));
    assert!(matches!(closed, ClientError::Closed), "{closed}");
    assert_eq!(closed.fate(), Fate::InDoubt);
    thread.join().unwrap();
    let refused = BlockingConnection::connect(&target, LIMIT).unwrap_err();
    assert!(matches!(refused, ClientError::Connect { .. }));
    assert_eq!(refused.fate(), Fate::NotApplied);
}

#[test]
fn a_silent_server_is_given_up() {
    let (target, thread) = server(|mut stream| {
        let mut buffer = Vec::new();
        stream.read_to_end(&mut buffer).unwrap();
        assert_eq!(buffer, b"*1\r\n$4\r\nPING\r\n");
    });
    let mut connection = BlockingConnection::connect(&target, Duration::from_millis(30)).unwrap();
    let error = connection.call(&["PING"]).unwrap_err();
    assert!(matches!(error, ClientError::TimedOut(_)), "{error}");
    drop(connection);
    thread.join().unwrap();
}
