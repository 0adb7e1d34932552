//! The `redis` crate as a client, unmodified.

use std::time::Duration;

use dogsled::server::resp::{RespOptions, Transactions};
use redis::{Commands, ConnectionInfo, IntoConnectionInfo};

use crate::resp_fake::Fake;
use crate::resp_harness::{PATIENCE, Server};

fn connect(server: &Server, user: &str, query: &str) -> redis::Connection {
    let url = format!("redis://{user}{}/{query}", server.address);
    let info: ConnectionInfo = url.into_connection_info().expect("a valid address");
    let connection = redis::Client::open(info).expect("a valid address").get_connection().expect("it listens");
    connection.set_read_timeout(Some(PATIENCE)).expect("timeouts can be set");
    connection
}

#[test]
fn redis_rs_reads_and_writes_in_both_protocols() {
    for query in ["", "?protocol=resp3"] {
        let server = Server::start(Fake::new(), RespOptions::default());
        let mut client = connect(&server, "", query);
        let nothing: Option<String> = client.get("k").expect("a reply");
        assert_eq!(nothing, None);
        let _: () = client.set("k", "v").expect("a reply");
        let _: () = client.set_ex("e", "v", 100).expect("a reply");
        let _: () = client.mset(&[("a", "1"), ("b", "2")]).expect("a reply");
        let values: Vec<Option<String>> = client.mget(&["a", "none", "b"]).expect("a reply");
        assert_eq!(values, [Some("1".into()), None, Some("2".into())]);
        assert_eq!(client.ttl::<_, i64>("e").expect("a reply"), 100);
        assert!(client.exists::<_, bool>("k").expect("a reply"));
        assert_eq!(client.strlen::<_, usize>("k").expect("a reply"), 1);
        assert!(client.expire::<_, bool>("k", 10).expect("a reply"));
        assert!(client.persist::<_, bool>("k").expect("a reply"));
        let mut keys: Vec<String> = client.scan().expect("an iterator").map(|key| key.expect("a key")).collect();
        keys.sort();
        assert_eq!(keys, ["a", "b", "e", "k"]);
        assert_eq!(client.del::<_, usize>(&["k", "none"]).expect("a reply"), 1);
        let error = client.incr::<_, _, i64>("n", 1).expect_err("not offered");
        assert!(error.to_string().contains("SERIAL"), "{error}");
    }
}

#[test]
fn redis_rs_gives_the_password() {
    for query in ["", "?protocol=resp3"] {
        let options = RespOptions { password: Some("secret".into()), ..RespOptions::default() };
        let server = Server::start(Fake::new(), options);
        let mut client = connect(&server, ":secret@", query);
        let _: () = client.set("k", "v").expect("a reply");
        let mut client = connect(&server, "default:secret@", query);
        assert_eq!(client.get::<_, String>("k").expect("a reply"), "v");
        let wrong = format!("redis://:wrong@{}/{query}", server.address);
        let refused = redis::Client::open(wrong).expect("a valid address").get_connection();
        assert!(refused.is_err());
    }
}

#[test]
fn redis_rs_pipelines_and_transactions() {
    let fake = Fake::new();
    fake.group(Duration::from_micros(200));
    let server = Server::start(fake, RespOptions::default());
    let mut client = connect(&server, "", "");
    let mut pipeline = redis::pipe();
    for number in 0..1_000 {
        pipeline.set(format!("k{number}"), number).ignore();
        pipeline.get(format!("k{number}"));
    }
    let values: Vec<i64> = pipeline.query(&mut client).expect("replies");
    assert_eq!(values, (0..1_000).collect::<Vec<_>>());
    // Refused at EXEC: an error, nothing applied, and the connection is still in step.
    let mut transaction = redis::pipe();
    transaction.atomic().set("t", 1).get("t");
    transaction.query::<Vec<redis::Value>>(&mut client).expect_err("transactions are refused");
    assert_eq!(client.get::<_, Option<i64>>("t").expect("a reply"), None);
}

#[test]
fn redis_rs_transactions_where_they_are_pipelines() {
    let options = RespOptions { transactions: Transactions::Pipeline, ..RespOptions::default() };
    let server = Server::start(Fake::new(), options);
    let mut client = connect(&server, "", "");
    let (stored, value): (String, i64) =
        redis::pipe().atomic().set("t", 1).get("t").query(&mut client).expect("replies");
    assert_eq!((stored.as_str(), value), ("OK", 1));
}

/// For trying tools by hand: `DOGSLED_TEST_RESP=127.0.0.1:7379 cargo test --test it -- --ignored by_hand`.
/// Serves until it is interrupted. `DOGSLED_TEST_PASSWORD` sets a password.
#[test]
#[ignore = "serves until it is interrupted"]
fn serve_a_fake_store_for_trying_tools_by_hand() {
    let address = std::env::var("DOGSLED_TEST_RESP").unwrap_or("127.0.0.1:7379".into());
    let fake = Fake::new();
    fake.group(Duration::from_micros(500));
    let options = RespOptions {
        allow_flush: true,
        password: std::env::var("DOGSLED_TEST_PASSWORD").ok(),
        ..RespOptions::default()
    };
    let metrics = options.metrics.clone();
    let server = Server::start_at(&address, fake.clone(), options);
    let options = dogsled::server::http::HttpOptions { metrics, ..Default::default() };
    let http = crate::http_harness::Server::start(fake, options);
    println!("RESP on {}, HTTP on {}", server.address, http.address);
    loop {
        std::thread::park();
    }
}
