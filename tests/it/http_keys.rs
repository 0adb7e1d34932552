//! Keys, the cluster and metrics over HTTP.

use dogsled::server::http::{HttpOptions, json};
use dogsled::types::{ConsistencyLevel, Failure, Refusal};

use crate::http_harness::Server;
use crate::resp_fake::{Fake, Fate};

fn start() -> (std::sync::Arc<Fake>, Server) {
    let fake = Fake::new();
    let server = Server::start(fake.clone(), HttpOptions::default());
    (fake, server)
}

const KEY: &str = "/v1/ns/default/keys/k";

#[test]
fn a_value_is_written_read_described_and_deleted() {
    let (_, server) = start();
    server.get(KEY).problem(404, "not-found");
    assert_eq!(server.request("HEAD", KEY, &[], b"").status, 404);
    let written = server.put(KEY, b"value \x00\xff");
    assert_eq!((written.status, written.header("dogsled-acknowledged")), (204, "2"));
    let etag = written.header("etag").to_owned();
    assert!(etag.starts_with('"') && etag.ends_with('"') && etag.len() > 10, "{etag}");

    let read = server.get(KEY);
    assert_eq!((read.status, &read.body[..]), (200, &b"value \x00\xff"[..]));
    assert_eq!(read.header("etag"), etag);
    assert_eq!(read.header("content-type"), "application/octet-stream");
    assert_eq!(read.header("x-content-type-options"), "nosniff");
    let head = server.request("HEAD", KEY, &[], b"");
    assert_eq!((head.status, head.header("content-length"), head.header("etag")), (200, "8", &*etag));

    let again = server.put(KEY, b"");
    assert_ne!(again.header("etag"), etag);
    let empty = server.get(KEY);
    assert_eq!((empty.status, empty.body.len()), (200, 0));

    let deleted = server.request("DELETE", KEY, &[], b"");
    assert_eq!((deleted.status, deleted.header("dogsled-acknowledged")), (204, "2"));
    server.get(KEY).problem(404, "not-found");
    assert_eq!(server.request("DELETE", KEY, &[], b"").status, 204, "deleting nothing is no error");
}

#[test]
fn keys_may_be_any_bytes() {
    let (_, server) = start();
    let paths = ["a%2Fb", "%00%ff%0d%0a", "a+b", "a%20b", "%25", "%2e%2e", "a//b/", "ключ", "a%3Fb%23c"];
    for (number, path) in paths.iter().enumerate() {
        let path = format!("/v1/ns/default/keys/{path}");
        assert_eq!(server.put(&path, number.to_string().as_bytes()).status, 204, "{path}");
    }
    for (number, path) in paths.iter().enumerate() {
        let path = format!("/v1/ns/default/keys/{path}");
        assert_eq!(server.get(&path).body, number.to_string().as_bytes(), "{path}");
    }
    assert_eq!(server.get("/v1/ns/default/keys/a/b").body, b"0", "a slash may stand as it is");
    let page: json::Page = serde_json::from_slice(&server.get("/v1/ns/default/keys").body).expect("a page");
    let mut keys: Vec<Vec<u8>> = page.keys.iter().map(|entry| entry.key.decode().expect("bytes")).collect();
    keys.sort();
    let mut expected: Vec<&[u8]> =
        vec![b"a/b", b"\0\xff\r\n", b"a+b", b"a b", b"%", b"..", b"a//b/", "ключ".as_bytes(), b"a?b#c"];
    expected.sort();
    assert_eq!(keys, expected);
}

#[test]
fn json_where_it_is_asked_for() {
    let (_, server) = start();
    let written = server.put(&format!("{KEY}?format=json&ttl=100"), b"value");
    let shape: json::Written = serde_json::from_slice(&written.body).expect("the shape");
    assert_eq!((written.status, shape.acknowledged, shape.namespace.as_str()), (200, 2, "default"));
    assert_eq!(format!("\"{}\"", shape.version.etag), written.header("etag"));
    let read = server.get(&format!("{KEY}?format=json"));
    let value: json::Value = serde_json::from_slice(&read.body).expect("the shape");
    assert_eq!((value.key.text.as_deref(), value.value.text.as_deref()), (Some("k"), Some("value")));
    let at: u64 = read.header("dogsled-expires-at").parse().expect("a number");
    assert_eq!(value.expires_at_ms, Some(at));
    let in_s = (at - dogsled::ambient::wall().0) / 1000;
    assert!((90..=100).contains(&in_s), "{in_s}");
    assert_eq!(read.json()["version"]["node"], "n1");

    server.put(KEY, b"\xff");
    let value: json::Value =
        serde_json::from_slice(&server.get(&format!("{KEY}?format=json")).body).expect("the shape");
    assert_eq!((value.value.base64.as_deref(), value.value.text), (Some("/w=="), None));
    let deleted = server.request("DELETE", &format!("{KEY}?format=json"), &[], b"");
    let _: json::Written = serde_json::from_slice(&deleted.body).expect("the shape");
}

#[test]
fn levels_and_timeouts_reach_the_node() {
    let (fake, server) = start();
    fake.log();
    let cases = [
        ("", ConsistencyLevel::Quorum, 500),
        ("?consistency=one", ConsistencyLevel::One, 500),
        ("?consistency=ALL&timeout=250ms", ConsistencyLevel::All, 250),
        ("?timeout=2", ConsistencyLevel::Quorum, 2000),
    ];
    for (query, level, timeout_ms) in cases {
        for method in ["GET", "HEAD", "PUT", "DELETE"] {
            server.request(method, &format!("{KEY}{query}"), &[], b"");
            let requests = fake.logged();
            let [request] = &requests[..] else { panic!("{requests:?}") };
            let timeout = request.timeout.expect("it is always given").as_millis();
            assert_eq!((request.consistency, timeout), (level, timeout_ms), "{method} {query}");
        }
    }
}

#[test]
fn what_is_wrong_is_said_and_nothing_is_done() {
    let (fake, server) = start();
    for query in
        ["?consistancy=one", "?consistency=serial", "?ttl=0", "?ttl=-1", "?timeout=0", "?timeout=99", "?format=xml"]
    {
        server.put(&format!("{KEY}{query}"), b"v").problem(400, "bad-request");
    }
    server.put(&format!("{KEY}?ttl=9999999999999999"), b"v").problem(400, "bad-request");
    server.put("/v1/ns/default/keys/%zz", b"v").problem(400, "bad-request");
    server.put("/v1/ns/nosuch/keys/k", b"v").problem(404, "not-found");
    server.put("/v1/ns/default/keys/", b"v").problem(404, "not-found");
    server.get("/v1/nothing").problem(404, "not-found");
    server.request("POST", KEY, &[], b"v").problem(405, "method-not-allowed");
    for name in ["If-Match", "If-None-Match"] {
        let refused = server.request("PUT", KEY, &[(name, "\"x\"")], b"v");
        assert!(refused.problem(501, "not-offered").contains("SERIAL"));
        server.request("DELETE", KEY, &[(name, "*")], b"").problem(501, "not-offered");
    }
    server.request("GET", KEY, &[("If-Match", "\"x\"")], b"").problem(501, "not-offered");
    assert_eq!(fake.live(), 0);
}

#[test]
fn a_target_may_be_as_long_as_it_can() {
    let (_, server) = start();
    let path = format!("/v1/ns/default/keys/{}", "%ff".repeat(21_000));
    assert_eq!(server.put(&path, b"v").status, 204);
    assert_eq!(server.get(&path).body, b"v");
    let longer = format!("/v1/ns/default/keys/{}", "%ff".repeat(22_000));
    assert_eq!(server.put(&longer, b"v").status, 414);
}

#[test]
fn a_known_version_is_not_sent_again() {
    let (_, server) = start();
    let etag = server.put(KEY, b"v").header("etag").to_owned();
    for tags in [&*etag, "*", &format!("\"other\", {etag}"), &format!("W/{etag}")] {
        let response = server.request("GET", KEY, &[("If-None-Match", tags)], b"");
        assert_eq!((response.status, response.header("etag")), (304, &*etag), "{tags}");
        assert_eq!(server.request("HEAD", KEY, &[("If-None-Match", tags)], b"").status, 304);
    }
    assert_eq!(server.request("GET", KEY, &[("If-None-Match", "\"other\"")], b"").status, 200);
}

#[test]
fn failures_say_whether_anything_was_applied() {
    let (fake, server) = start();
    let fail = |failure: Failure| fake.fault(move |_| Some(Fate::Fails(failure.clone())));
    fail(Failure::NotApplied(Refusal::TooFewReplicas { alive: 1, needed: 2 }));
    let response = server.put(KEY, b"v");
    response.problem(503, "not-applied");
    assert_eq!((response.header("retry-after"), &response.json()["alive"]), ("1", &1.into()));
    fail(Failure::NotApplied(Refusal::Overloaded));
    server.get(KEY).problem(503, "not-applied");
    fail(Failure::InDoubt { acknowledged: 1, needed: 2 });
    let response = server.put(KEY, b"v");
    let detail = response.problem(504, "in-doubt");
    assert!(detail.contains("may still take effect"), "{detail}");
    let json = response.json();
    assert_eq!((&json["acknowledged"], &json["needed"]), (&1.into(), &2.into()));
    assert_eq!(response.header("retry-after"), "", "a write in doubt must not be repeated blindly");
    fail(Failure::TimedOut { answered: 1, needed: 2 });
    let response = server.get(KEY);
    response.problem(503, "timed-out");
    assert_eq!(response.json()["answered"], 1);
    fail(Failure::NotApplied(Refusal::ValueTooLong { bytes: 9, limit: 8 }));
    assert_eq!(server.put(KEY, b"v").problem(413, "value-too-long"), "a value is at most 8 bytes long");
    fail(Failure::NotApplied(Refusal::UnknownNamespace));
    server.get(KEY).problem(404, "not-found");
    fake.fault(|_| Some(Fate::Stops));
    server.put(KEY, b"v").problem(504, "in-doubt");
    server.get(KEY).problem(503, "not-applied");
}

#[test]
fn namespaces_are_apart() {
    let (_, server) = start();
    server.put(KEY, b"1");
    server.put("/v1/ns/other/keys/k", b"2");
    assert_eq!(server.get(KEY).body, b"1");
    assert_eq!(server.get("/v1/ns/other/keys/k").body, b"2");
    let page: json::Page = serde_json::from_slice(&server.get("/v1/ns/other/keys").body).expect("a page");
    assert_eq!(page.keys.len(), 1);
}

#[test]
fn pages_hold_every_key_once() {
    let (_, server) = start();
    let mut client = server.connect();
    for number in 0..300 {
        client.request("PUT", &format!("/v1/ns/default/keys/a{number}"), &[], b"v");
        client.request("PUT", &format!("/v1/ns/default/keys/b{number}"), &[], b"v");
    }
    let (mut keys, mut cursor) = (Vec::new(), None::<String>);
    loop {
        let cursor_part = cursor.map_or(String::new(), |cursor| format!("&cursor={cursor}"));
        let response = client.request("GET", &format!("/v1/ns/default/keys?prefix=a&limit=7{cursor_part}"), &[], b"");
        let page: json::Page = serde_json::from_slice(&response.body).expect("a page");
        keys.extend(page.keys.into_iter().map(|entry| entry.key.text.expect("they are text")));
        cursor = page.cursor;
        if cursor.is_none() {
            break;
        }
    }
    keys.sort();
    let mut expected: Vec<String> = (0..300).map(|number| format!("a{number}")).collect();
    expected.sort();
    assert_eq!(keys, expected);
}

#[test]
fn the_cluster_and_its_ring() {
    let (_, server) = start();
    let cluster: json::Cluster = serde_json::from_slice(&server.get("/v1/cluster").body).expect("the shape");
    assert_eq!((cluster.partitions, cluster.replication_factor, cluster.members.len()), (16, 3, 3));
    let seen: Vec<_> = cluster.members.iter().map(|member| (member.this_node, member.connected)).collect();
    assert_eq!(seen, [(true, true), (false, true), (false, false)]);
    let held: Vec<_> = cluster.members.iter().map(|member| (member.reachable, member.health.name())).collect();
    assert_eq!(held, [(true, "alive"), (true, "alive"), (false, "down")]);
    assert_eq!((cluster.node.incarnation, cluster.members[1].incarnation), (4, Some(9)));
    let ring: json::Ring = serde_json::from_slice(&server.get("/v1/ring").body).expect("the shape");
    assert_eq!((ring.assignment.len(), ring.owned.len()), (16, 3));
    assert_eq!(ring.owned.iter().map(|owned| owned.primary).sum::<u32>(), 16);
    assert!(ring.owned.iter().all(|owned| owned.replica == 16 && owned.percent == 33));
    let place: json::Where = serde_json::from_slice(&server.get("/v1/where/default/a%2Fb").body).expect("the shape");
    assert_eq!(place.key.text.as_deref(), Some("a/b"));
    assert_eq!(place.token, dogsled::types::Token::of_key(b"a/b").0.to_string());
    let replicas: Vec<_> = place.replicas.iter().map(|replica| replica.node).collect();
    assert_eq!(replicas, ring.assignment[usize::from(place.partition)]);
    server.get("/v1/where/nosuch/k").problem(404, "not-found");
}

#[test]
fn the_members_and_how_they_stand() {
    let (_, server) = start();
    let answer = server.get("/v1/members");
    assert_eq!(answer.header("content-type"), "application/json");
    let json = answer.json();
    assert_eq!((&json["node"], &json["life"]["incarnation"], &json["k_list"]), (&"n1".into(), &4.into(), &2.into()));
    assert_eq!(json["counters"]["probes_sent"], 21);
    assert_eq!((&json["counters"]["datagrams_ignored"], &json["counters"]["gossip_ignored"]), (&5.into(), &6.into()));
    let members: json::Members = serde_json::from_slice(&answer.body).expect("the shape");
    assert_eq!((members.known, members.active, members.active_most, members.ill_health), (1, 1, 1, 1));
    let [watched, down] = &members.members[..] else { panic!("two others: {members:?}") };
    assert_eq!(
        (watched.id.to_string(), watched.relation.name(), watched.own),
        ("n2".into(), "active", Some(watched.health))
    );
    assert_eq!((down.id.to_string(), down.health.name(), down.observers.down), ("n3".into(), "down", 2));
    assert_eq!(server.request("PUT", "/v1/members", &[], b"").status, 405);
}

#[test]
fn health_readiness_and_metrics() {
    let (fake, server) = start();
    assert_eq!((server.get("/healthz").status, server.get("/readyz").status), (200, 200));
    fake.set_ready(false);
    assert_eq!(server.get("/healthz").status, 200);
    let detail = server.get("/readyz").problem(503, "not-ready");
    assert_eq!(detail, "5 of 16 partitions have no quorum from here");
    server.put(KEY, b"v");
    let metrics = server.get("/metrics");
    assert!(metrics.header("content-type").starts_with("application/openmetrics-text; version=1.0.0"));
    let page = String::from_utf8(metrics.body).expect("text");
    for line in [
        "dogsled_commits_total 3.0",
        "dogsled_http_requests_total{route=\"keys\",method=\"PUT\",status=\"204\"} 1",
        "dogsled_http_requests_total{route=\"readyz\",method=\"GET\",status=\"503\"} 1",
        "dogsled_http_connections 1",
    ] {
        assert!(page.lines().any(|found| found == line), "{line} is not in\n{page}");
    }
    assert!(page.ends_with("# EOF\n"));
}

#[test]
fn the_password_as_basic_or_bearer() {
    let options = HttpOptions { password: Some("open sesame".into()), ..HttpOptions::default() };
    let server = Server::start(Fake::new(), options);
    let authorize = |value: &str| server.request("GET", "/v1/cluster", &[("Authorization", value)], b"").status;
    let refused = server.get(KEY);
    refused.problem(401, "unauthorized");
    assert!(refused.header("www-authenticate").starts_with("Basic "));
    assert_eq!(server.get("/metrics").status, 401);
    assert_eq!(server.get("/nothing").status, 401);
    assert_eq!((server.get("/healthz").status, server.get("/readyz").status), (200, 200));
    // default:open sesame
    assert_eq!(authorize("Basic ZGVmYXVsdDpvcGVuIHNlc2FtZQ=="), 200);
    assert_eq!(authorize("basic ZGVmYXVsdDpvcGVuIHNlc2FtZQ"), 200);
    assert_eq!(authorize("Bearer open sesame"), 200);
    // default:wrong, other:open sesame, and what is nothing at all.
    for wrong in [
        "Basic ZGVmYXVsdDp3cm9uZw==",
        "Basic b3RoZXI6b3BlbiBzZXNhbWU=",
        "Basic !!!",
        "Bearer open",
        "Bearer",
        "open sesame",
        "",
    ] {
        assert_eq!(authorize(wrong), 401, "{wrong}");
    }
}
