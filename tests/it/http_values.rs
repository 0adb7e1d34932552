//! Contexts, sessions, op-ids, explanations and namespaces over HTTP.

use dogsled::node::map_file;
use dogsled::server::Backend;
use dogsled::server::http::{HttpOptions, json};
use dogsled::types::{ConsistencyLevel, Failure, Refusal, limits};

use crate::http_harness::{Response, Server};
use crate::resp_fake::{Fake, Fate};

fn start() -> (std::sync::Arc<Fake>, Server) {
    let fake = Fake::new();
    let server = Server::start(fake.clone(), HttpOptions::default());
    (fake, server)
}

const KEY: &str = "/v1/ns/default/keys/k";
const BOTH: &str = "/v1/ns/both/keys/k";

fn value(response: &Response) -> json::Value {
    serde_json::from_slice(&response.body).expect("the shape")
}

#[test]
fn concurrent_values_are_choices_and_their_context_replaces_them() {
    let (_, server) = start();
    let written = server.put(BOTH, b"one");
    assert_eq!((written.status, written.header("etag")), (204, ""), "only a read tells what was seen");
    let read = server.get(BOTH);
    assert_eq!((read.status, &read.body[..]), (200, &b"one"[..]));
    let seen = read.header("etag").to_owned();

    assert_eq!(server.request("PUT", BOTH, &[("Dogsled-Context", &seen)], b"two").status, 204);
    assert_eq!(server.request("PUT", &format!("{BOTH}?ttl=99"), &[("Dogsled-Context", &seen)], b"\xff").status, 204);
    let choices = server.get(BOTH);
    assert_eq!((choices.status, choices.header("content-type")), (300, "application/json"));
    let shape = value(&choices);
    assert_eq!((shape.value.base64.as_deref(), shape.siblings.len()), (Some("/w=="), 1));
    assert!(shape.expires_at_ms.is_some() && shape.siblings[0].expires_at_ms.is_none());
    assert_eq!(shape.siblings[0].value.text.as_deref(), Some("two"));
    assert_ne!(shape.version, shape.siblings[0].version);
    let both = shape.context.expect("there is a context");
    assert_eq!(choices.header("etag"), format!("\"{both}\""));
    let head = server.request("HEAD", BOTH, &[], b"");
    assert_eq!((head.status, head.header("etag")), (300, choices.header("etag")));
    let known = server.request("GET", BOTH, &[("If-None-Match", choices.header("etag"))], b"");
    assert_eq!(known.status, 304);
    let page: json::Page = serde_json::from_slice(&server.get("/v1/ns/both/keys").body).expect("a page");
    assert_eq!(page.keys.len(), 1);

    assert_eq!(server.request("PUT", BOTH, &[("Dogsled-Context", &both)], b"merged").status, 204);
    assert_eq!(server.get(BOTH).body, b"merged");
    assert_eq!(value(&server.get(&format!("{BOTH}?format=json"))).siblings, []);
    // What has seen less deletes less; without a context what a read sees is deleted.
    assert_eq!(server.request("DELETE", BOTH, &[("Dogsled-Context", &both)], b"").status, 204);
    assert_eq!(server.get(BOTH).status, 200);
    assert_eq!(server.request("DELETE", BOTH, &[], b"").status, 204);
    server.get(BOTH).problem(404, "not-found");
    server.request("DELETE", BOTH, &[], b"").problem(404, "not-found");
}

#[test]
fn contexts_are_for_namespaces_that_keep_siblings() {
    let (_, server) = start();
    server.put(BOTH, b"v");
    let context = server.get(BOTH).header("etag").to_owned();
    let refused = server.request("PUT", KEY, &[("Dogsled-Context", &context)], b"v");
    assert!(refused.problem(400, "bad-request").contains("siblings"));
    let etag = server.put(KEY, b"v").header("etag").to_owned();
    let refused = server.request("PUT", BOTH, &[("Dogsled-Context", &etag)], b"v");
    assert!(refused.problem(400, "bad-request").contains("the context token is damaged"));
}

#[test]
fn tokens_that_were_changed_are_refused_by_name() {
    let (fake, server) = start();
    server.put(BOTH, b"v");
    let context = server.get(BOTH).header("etag").trim_matches('"').to_owned();
    let begun = server.request("GET", BOTH, &[("Dogsled-Session", "")], b"");
    let session = begun.header("dogsled-session").to_owned();
    assert!(!session.is_empty());
    fake.log();
    let mut client = server.connect();
    for (name, token, word) in [("Dogsled-Context", &context, "context"), ("Dogsled-Session", &session, "session")] {
        let changed = token.replace(token.chars().nth(9).expect("it is longer"), "~");
        let mut bad: Vec<String> = (1..token.len()).map(|cut| token[..cut].to_owned()).collect();
        bad.extend([changed, format!("{token}A"), "A".repeat(60_000)]);
        for bad in bad {
            let refused = client.request("PUT", BOTH, &[(name, &bad)], b"w");
            let detail = refused.problem(400, "bad-request");
            assert!(detail.contains(&format!("the {word} token ")), "{detail}");
        }
        let other = if word == "context" { &session } else { &context };
        let refused = client.request("PUT", BOTH, &[(name, other)], b"w").problem(400, "bad-request");
        assert!(refused.contains("a token of another kind"), "{refused}");
        let twice = client.request("PUT", BOTH, &[(name, token), (name, token)], b"w");
        assert!(twice.problem(400, "bad-request").contains("given twice"));
    }
    let huge = "A".repeat(limits::HTTP_HEAD_BYTES);
    assert!(server.request("PUT", BOTH, &[("Dogsled-Context", &huge)], b"w").status >= 400);
    assert!(fake.logged().is_empty(), "none of it reached the node");
}

#[test]
fn a_session_sees_what_it_wrote_and_read_at_any_level() {
    let (fake, server) = start();
    fake.log();
    let written = server.request("PUT", KEY, &[("Dogsled-Session", "")], b"v");
    let session = written.header("dogsled-session").to_owned();
    let read = server.request("GET", &format!("{KEY}?consistency=one"), &[("Dogsled-Session", &session)], b"");
    assert_eq!(read.status, 200);
    let again = read.header("dogsled-session").to_owned();
    let absent = server.request("GET", "/v1/ns/default/keys/nothing", &[("Dogsled-Session", &again)], b"");
    assert_eq!((absent.status, absent.header("dogsled-session")), (404, &*again), "it is given back with errors too");
    let requests = fake.logged();
    assert_eq!(requests[1].session.count(), 1);
    assert_eq!(requests[1].consistency, ConsistencyLevel::One);
    let without = server.get(KEY);
    assert_eq!(without.header("dogsled-session"), "");
    assert!(fake.logged().iter().all(|request| request.session.is_empty()));
    fake.acknowledge(3, 3);
    let everywhere = server.request("PUT", KEY, &[("Dogsled-Session", "")], b"w");
    let empty = server.request("GET", "/v1/ns/default/keys/nothing", &[("Dogsled-Session", "")], b"");
    assert_eq!(everywhere.header("dogsled-session"), empty.header("dogsled-session"), "every replica has it");
}

#[test]
fn a_write_with_an_op_id_is_applied_once_and_can_be_resolved() {
    let (fake, server) = start();
    let id = [("Idempotency-Key", "550e8400-e29b-41d4-a716-446655440000")];
    let first = server.request("PUT", KEY, &id, b"first");
    server.put(KEY, b"second");
    let again =
        server.request("PUT", KEY, &[("Idempotency-Key", "\"550e8400-e29b-41d4-a716-446655440000\"")], b"first");
    assert_eq!((again.status, again.header("etag")), (204, first.header("etag")));
    assert_eq!(server.get(KEY).body, b"second");

    let resolve = format!("{KEY}/resolve");
    let resolved = server.request("POST", &resolve, &id, b"");
    let shape: json::Resolved = serde_json::from_slice(&resolved.body).expect("the shape");
    assert_eq!((resolved.status, &*shape.outcome, shape.acknowledged), (200, "applied", Some(2)));
    let resolved = server.request("POST", &resolve, &[("Idempotency-Key", "1")], b"");
    assert_eq!(resolved.json(), serde_json::json!({"outcome": "not-applied"}));
    server.request("PUT", KEY, &[("Idempotency-Key", "1")], b"v").problem(409, "op-id-fenced");
    assert!(server.request("POST", &resolve, &[], b"").problem(400, "bad-request").contains("idempotency-key"));
    for bad in ["", "x", "\"1", &"1".repeat(33)] {
        server.request("PUT", KEY, &[("Idempotency-Key", bad)], b"v").problem(400, "bad-request");
        server.request("POST", &resolve, &[("Idempotency-Key", bad)], b"").problem(400, "bad-request");
    }
    server.request("GET", KEY, &id, b"").problem(400, "bad-request");
    fake.fault(|_| Some(Fate::Fails(Failure::InDoubt { acknowledged: 1, needed: 2 })));
    server.request("POST", &resolve, &id, b"").problem(504, "in-doubt");
}

#[test]
fn refusals_that_stay_are_conflicts_and_others_may_be_tried_again() {
    let (fake, server) = start();
    let cases = [
        (Refusal::TooManySiblings { count: 32 }, 409, "too-many-siblings"),
        (Refusal::OpIdReused, 409, "op-id-reused"),
        (Refusal::Fenced, 409, "op-id-fenced"),
        (Refusal::ClockUnsure { offset_ms: None }, 503, "not-applied"),
        (Refusal::Behind { horizon: Default::default() }, 503, "not-applied"),
        (Refusal::NodeFenced("old".into()), 503, "not-applied"),
    ];
    for (refusal, status, word) in cases {
        fake.fault(move |_| Some(Fate::Fails(Failure::NotApplied(refusal.clone()))));
        let response = server.put(KEY, b"v");
        response.problem(status, word);
        assert_eq!(response.header("retry-after"), if status == 503 { "1" } else { "" }, "{word}");
    }
}

#[test]
fn the_way_of_a_request_is_told_where_it_is_asked_for() {
    let (_, server) = start();
    let written = server.put(&format!("{KEY}?explain=true"), b"v");
    let explained: json::Explained = serde_json::from_slice(&written.body).expect("the shape");
    assert_eq!(explained.written.expect("it wrote").acknowledged, 2);
    let read = server.get(&format!("{KEY}?explain=true&consistency=one"));
    let explained: json::Explained = serde_json::from_slice(&read.body).expect("the shape");
    assert_eq!(explained.value.expect("it is there").value.text.as_deref(), Some("v"));
    assert_eq!((explained.path.repaired, explained.path.hedges, explained.path.replicas.len()), (1, 1, 3));
    let events: Vec<_> = explained.path.steps.iter().map(|step| &*step.event).collect();
    assert_eq!(events, ["asked_value", "asked_versions", "failed", "late", "answered", "repaired"]);
    assert_eq!(explained.path.steps[2].reason.as_deref(), Some("it has gone"));
    let nothing = server.get("/v1/ns/default/keys/nothing?explain=true");
    assert_eq!((nothing.status, &nothing.json()["value"]), (200, &serde_json::Value::Null));
    server.get(&format!("{KEY}?explain=yes")).problem(400, "bad-request");
}

#[test]
fn the_history_of_a_key_is_that_of_each_replica() {
    let (_, server) = start();
    // A key may end in anything, so this is a path of its own.
    let stamp = server.put("/v1/ns/default/keys/a/history", b"value").header("etag").trim_matches('"').to_owned();
    let response = server.get("/v1/history/default/a/history");
    let history: json::History = serde_json::from_slice(&response.body).expect("the shape");
    assert_eq!((history.key.text.as_deref(), history.replicas.len()), (Some("a/history"), 3));
    for replica in &history.replicas {
        let silent = replica.node.to_string() == "n3";
        assert_eq!(replica.answered, !silent);
        if !silent {
            assert_eq!((&replica.versions[0].version.etag, replica.versions[0].value_bytes), (&stamp, Some(5)));
            assert_eq!((&replica.log[0].version.etag, replica.log[0].commit, replica.more), (&stamp, 5, true));
            let actor = &replica.coverage.as_ref().expect("it answered").actors[0];
            assert_eq!((actor.contiguous, actor.highest, actor.missing), (1, 1, 0));
        }
    }
    assert_eq!(server.get("/v1/history/default/nothing").status, 200);
    server.get("/v1/history/nosuch/k").problem(404, "not-found");
    server.get("/v1/history/default/k?consistency=one").problem(400, "bad-request");
}

#[test]
fn the_level_any_is_for_writes() {
    let (fake, server) = start();
    fake.log();
    assert_eq!(server.put(&format!("{KEY}?consistency=any"), b"v").status, 204);
    assert_eq!(fake.logged()[0].consistency, ConsistencyLevel::Any);
    assert!(server.get(&format!("{KEY}?consistency=any")).problem(400, "bad-request").contains("for writes"));
    server.get("/v1/ns/default/keys?consistency=any").problem(400, "bad-request");
    server.put(&format!("{BOTH}?consistency=any"), b"v");
    fake.logged();
    assert_eq!(server.request("DELETE", &format!("{BOTH}?consistency=any"), &[], b"").status, 204);
    let levels: Vec<_> = fake.logged().iter().map(|request| request.consistency).collect();
    assert_eq!(levels, [ConsistencyLevel::Quorum, ConsistencyLevel::Any], "what it read first was a read");
}

#[test]
fn namespaces_are_changed_in_the_map_file_and_in_use_after_a_restart() {
    let folder = tempfile::tempdir().expect("a directory");
    let path = folder.path().join("cluster.map");
    let fake = Fake::new();
    map_file::write(&path, &fake.map()).expect("it is written");
    let server = Server::start(fake.clone(), HttpOptions { map_file: Some(path.clone()), ..HttpOptions::default() });
    let names = |response: Response| -> Vec<String> {
        let all: json::Namespaces = serde_json::from_slice(&response.body).expect("the shape");
        let state = |one: &json::NamespaceState| format!("{} {} {}", one.namespace.name, one.in_use, one.after_restart);
        all.namespaces.iter().map(state).collect()
    };
    assert_eq!(names(server.get("/v1/namespaces")), ["default true true", "other true true", "both true true"]);

    let made = server.put("/v1/namespaces/carts", br#"{"policy": "siblings"}"#);
    assert_eq!(made.status, 202, "{}", made.body.escape_ascii());
    let expected = serde_json::json!({
        "namespace": {"id": 3, "name": "carts", "policy": "siblings"}, "epoch": 2, "takes_effect": "restart"
    });
    assert_eq!(made.json(), expected);
    let again = server.put("/v1/namespaces/carts", br#"{"policy": "siblings"}"#);
    assert_eq!((again.status, again.json()), (202, expected), "asking again changes nothing more");
    server.put("/v1/namespaces/carts", br#"{"policy": "lww"}"#).problem(409, "namespace-exists");
    let there = server.put("/v1/namespaces/other", br#"{"policy": "lww"}"#);
    assert_eq!((there.status, &there.json()["takes_effect"]), (200, &"now".into()));

    assert_eq!(server.request("DELETE", "/v1/namespaces/other", &[], b"").status, 202);
    server.request("DELETE", "/v1/namespaces/nosuch", &[], b"").problem(404, "not-found");
    server.request("DELETE", "/v1/namespaces/default", &[], b"").problem(409, "namespace");
    let now = ["default true true", "other true false", "both true true", "carts false true"];
    assert_eq!(names(server.get("/v1/namespaces")), now);
    assert_eq!(server.get("/v1/namespaces/carts").json()["after_restart"], true);
    server.get("/v1/namespaces/nosuch").problem(404, "not-found");
    // Nothing has changed for the running node.
    server.put("/v1/ns/carts/keys/k", b"v").problem(404, "not-found");
    assert_eq!(server.put("/v1/ns/other/keys/k", b"v").status, 204);
    let map = map_file::read(&path).expect("it is there");
    assert_eq!((map.epoch.0, map.namespace("other"), map.next_namespace), (3, None, 4));

    for (name, body) in [
        ("Carts", &br#"{"policy": "lww"}"#[..]),
        ("a%2Fb", br#"{"policy": "lww"}"#),
        ("%ff", br#"{"policy": "lww"}"#),
        ("new", b""),
        ("new", b"{}"),
        ("new", br#"{"policy": "both"}"#),
        ("new", br#"{"policy": "lww", "rf": 5}"#),
    ] {
        server.put(&format!("/v1/namespaces/{name}"), body).problem(400, "bad-request");
    }
    server.put("/v1/namespaces/new", &[b' '; 5_000]).problem(413, "value-too-long");
    assert_eq!(map_file::read(&path).expect("it is there"), map, "what was refused changed nothing");
}

#[test]
fn without_a_map_file_the_namespaces_stay_as_they_are() {
    let (_, server) = start();
    assert_eq!(server.get("/v1/namespaces").status, 200);
    server.put("/v1/namespaces/new", br#"{"policy": "lww"}"#).problem(501, "not-offered");
    server.request("DELETE", "/v1/namespaces/other", &[], b"").problem(501, "not-offered");
}
