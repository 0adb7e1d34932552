//! HTTP that is wrong, endless, slow or too much.

use std::time::Duration;

use dogsled::server::http::HttpOptions;

use crate::http_harness::Server;
use crate::resp_fake::Fake;

fn start(options: HttpOptions) -> (std::sync::Arc<Fake>, Server) {
    let fake = Fake::new();
    let server = Server::start(fake.clone(), options);
    (fake, server)
}

fn status_line(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).lines().next().unwrap_or_default().to_owned()
}

#[test]
fn a_second_request_cannot_be_smuggled_in_a_body() {
    let (fake, server) = start(HttpOptions::default());
    let inner = "PUT /v1/ns/default/keys/smuggled HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\n\r\nx";
    let heads = [
        "content-length: 5\r\ntransfer-encoding: chunked\r\n",
        "transfer-encoding: chunked\r\ncontent-length: 5\r\n",
        "content-length: 5\r\ncontent-length: 6\r\n",
        "transfer-encoding: chunked, identity\r\n",
        "transfer-encoding: xchunked\r\n",
        "content-length: +5\r\n",
        "content-length: 5, 6\r\n",
        "content-length: -1\r\n",
        "content-length: 0x5\r\n",
        "content-length : 5\r\n",
    ];
    for head in heads {
        let mut client = server.connect();
        client.send(format!("PUT /v1/ns/default/keys/k HTTP/1.1\r\nhost: x\r\n{head}\r\n0\r\n\r\n{inner}").as_bytes());
        let rest = client.rest();
        // Whatever the first request came to, the connection ends with it.
        let responses = rest.windows(9).filter(|nine| nine == b"HTTP/1.1 ").count();
        assert!(responses <= 1, "{head}: {}", rest.escape_ascii());
        assert_eq!(server.get("/v1/ns/default/keys/smuggled").status, 404, "{head}");
    }
    assert!(fake.live() <= 1);
}

#[test]
fn both_lengths_at_once_are_refused() {
    let (fake, server) = start(HttpOptions::default());
    for head in
        ["content-length: 5\r\ntransfer-encoding: chunked\r\n", "transfer-encoding: chunked\r\ncontent-length: 5\r\n"]
    {
        let mut client = server.connect();
        client.send(format!("PUT /v1/ns/default/keys/k HTTP/1.1\r\nhost: x\r\n{head}\r\n0\r\n\r\n").as_bytes());
        let rest = client.rest();
        assert!(!rest.is_empty(), "an answer, and then the end");
    }
    assert!(fake.live() <= 1);
}

#[test]
fn heads_are_bounded_in_bytes_fields_and_time() {
    let options = HttpOptions { head_deadline: Duration::from_millis(200), ..HttpOptions::default() };
    let (_, server) = start(options);
    let mut client = server.connect();
    let fields: String = (0..200).map(|number| format!("x-{number}: y\r\n")).collect();
    client.send(format!("GET /healthz HTTP/1.1\r\n{fields}\r\n").as_bytes());
    assert_eq!(status_line(&client.rest()), "HTTP/1.1 431 Request Header Fields Too Large");

    let mut client = server.connect();
    let mut sender = client.stream.try_clone().expect("a socket can be cloned");
    let writer = std::thread::spawn(move || {
        let line = format!("x: {}\r\n", "y".repeat(100_000));
        let _ = std::io::Write::write_all(&mut sender, b"GET /healthz HTTP/1.1\r\n");
        for _ in 0..100 {
            if std::io::Write::write_all(&mut sender, line.as_bytes()).is_err() {
                return;
            }
        }
    });
    let rest = client.rest();
    assert!(status_line(&rest).starts_with("HTTP/1.1 431") || rest.is_empty(), "{}", rest.escape_ascii());
    drop(client);
    writer.join().expect("the writer did not panic");

    for half in ["", "GET", "GET /healthz HTTP/1.1\r\nhost: x\r\n"] {
        let mut client = server.connect();
        client.send(half.as_bytes());
        let rest = client.rest();
        assert!(rest.is_empty() || status_line(&rest).starts_with("HTTP/1.1 408"), "{}", rest.escape_ascii());
    }
    // A connection that was used ends as well once it is silent.
    let mut client = server.connect();
    assert_eq!(client.request("GET", "/healthz", &[], b"").status, 200);
    assert_eq!(client.rest(), b"");

    for nonsense in ["\0\0\0\0", "GET\r\n\r\n", "GET / HTTP/9.9\r\n\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"] {
        let mut client = server.connect();
        client.send(nonsense.as_bytes());
        let rest = client.rest();
        assert!(rest.is_empty() || rest.starts_with(b"HTTP/1.1 4"), "{nonsense:?}: {}", rest.escape_ascii());
    }
    assert_eq!(server.get("/healthz").status, 200);
}

#[test]
fn bodies_are_bounded_in_bytes_and_time() {
    let options = HttpOptions { body_deadline: Duration::from_millis(200), ..HttpOptions::default() };
    let fake = Fake::with_max_value(1_000);
    let server = Server::start(fake.clone(), options);
    assert_eq!(server.put("/v1/ns/default/keys/k", &[b'v'; 1_000]).status, 204);
    // Refused by what it says of itself, before the body is there.
    let mut client = server.connect();
    client.send(b"PUT /v1/ns/default/keys/l HTTP/1.1\r\nhost: x\r\ncontent-length: 1001\r\n\r\n");
    assert_eq!(client.response(false).problem(413, "value-too-long"), "a value is at most 1000 bytes long");
    // Refused by what it is, if it does not say.
    let mut client = server.connect();
    client.send(b"PUT /v1/ns/default/keys/l HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n");
    client.send(format!("3e9\r\n{}\r\n0\r\n\r\n", "v".repeat(1_001)).as_bytes());
    client.response(false).problem(413, "value-too-long");
    // Given up if it does not come.
    let mut client = server.connect();
    client.send(b"PUT /v1/ns/default/keys/l HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\nabc");
    client.response(false).problem(408, "too-slow");
    // Not half applied if it breaks off.
    let mut client = server.connect();
    client.send(b"PUT /v1/ns/default/keys/l HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\nabc");
    client.stream.shutdown(std::net::Shutdown::Write).expect("it is connected");
    client.rest();
    // In pieces it is as good as in one.
    let mut client = server.connect();
    client.send(b"PUT /v1/ns/default/keys/m HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n");
    client.send(b"3\r\nabc\r\n4\r\ndefg\r\n1\r\nh\r\n0\r\n\r\n");
    assert_eq!(client.response(false).status, 204);
    assert_eq!(server.get("/v1/ns/default/keys/m").body, b"abcdefgh");
    assert_eq!(server.get("/v1/ns/default/keys/l").status, 404);
    assert_eq!(fake.live(), 2);
}

#[test]
fn more_connections_than_allowed_are_told_so() {
    let (_, server) = start(HttpOptions { max_connections: 1, ..HttpOptions::default() });
    let mut one = server.connect();
    assert_eq!(one.request("GET", "/healthz", &[], b"").status, 200);
    let mut two = server.connect();
    let refused = two.response(false);
    refused.problem(503, "not-applied");
    assert_eq!(one.request("GET", "/healthz", &[], b"").status, 200);
}

#[test]
fn a_client_that_takes_no_response_is_given_up() {
    let (fake, server) = start(HttpOptions { write_deadline: Duration::from_millis(200), ..HttpOptions::default() });
    assert_eq!(server.put("/v1/ns/default/keys/k", &vec![b'v'; 1024 * 1024]).status, 204);
    let mut stubborn = server.connect();
    for _ in 0..50 {
        stubborn.send(b"GET /v1/ns/default/keys/k HTTP/1.1\r\nhost: x\r\n\r\n");
    }
    // The page counts the connection that asks for it; the stubborn one is gone in the end.
    loop {
        let page = String::from_utf8(server.get("/metrics").body).expect("text");
        if page.lines().any(|line| line == "dogsled_http_connections 1") {
            break;
        }
        std::thread::yield_now();
    }
    drop(fake);
}

#[test]
fn a_server_that_stops_answers_what_it_has_begun() {
    let (fake, server) = start(HttpOptions::default());
    fake.hold();
    let mut client = server.connect();
    client.send(b"PUT /v1/ns/default/keys/k HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\n\r\nv");
    fake.wait_for_held(1);
    server.begin_stop();
    fake.release_all();
    assert_eq!(client.response(false).status, 204);
    assert_eq!(client.rest(), b"");
}
