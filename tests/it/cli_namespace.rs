//! Namespaces, siblings, op-ids and histories by the command line, on real clusters.

use std::process::Output;

use serde_json::{Value, json};

use crate::process::cluster::{Cluster, Node, dogsled, run_to_end, told};

fn ask(node: &Node, arguments: &[&str]) -> Output {
    let mut command = dogsled();
    command.args(arguments).env("DOGSLED_SERVER", format!("http://127.0.0.1:{}", node.http));
    run_to_end(command)
}

fn json_of(output: &Output) -> Value {
    assert_eq!(output.status.code(), Some(0), "{}", told(output));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

fn done(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(0), "{}", told(output));
    String::from_utf8(output.stdout.clone()).expect("text")
}

/// The command on the cluster's directory.
fn namespace(cluster: &Cluster, arguments: &[&str]) -> Output {
    let mut command = dogsled();
    command.arg("namespace").args(arguments).arg("--dir").arg(cluster.dir().join("cluster"));
    run_to_end(command)
}

#[test]
fn siblings_are_kept_shown_and_replaced() {
    let cluster = Cluster::start_with(3, &["--namespace", "both:siblings"]);
    cluster.await_whole();
    let [first, second, third] = &cluster.nodes[..] else { panic!("three nodes") };
    let both = |node: &Node, arguments: &[&str]| ask(node, &[arguments, &["--namespace", "both"]].concat());

    done(&both(first, &["put", "k", "one"]));
    let seen = json_of(&both(second, &["get", "k", "-o", "json"]))["context"].as_str().expect("a context").to_owned();
    done(&both(second, &["put", "k", "two", "--context", &seen]));
    done(&both(third, &["put", "k", "three", "--context", &seen]));

    let shown = done(&both(first, &["get", "k"]));
    assert!(shown.starts_with("k holds 2 values that were written at the same time:\n"), "{shown}");
    assert!(shown.contains("\ntwo ") && shown.contains("\nthree "), "{shown}");
    let choices = json_of(&both(first, &["get", "k", "-o", "json"]));
    assert_eq!(choices["siblings"].as_array().map(Vec::len), Some(1), "{choices}");
    let context = choices["context"].as_str().expect("a context");
    assert!(shown.contains(&format!("--context {context}\n")), "{shown}");

    // The same over RESP, with the same token.
    let mut resp = crate::resp_harness::Client::connect(([127, 0, 0, 1], second.resp).into());
    assert_eq!(resp.run("KV.NAMESPACE both"), "+OK");
    assert_eq!(resp.run("GET k"), format!("\"{}\"", choices["value"]["text"].as_str().expect("text")));
    let all = resp.run("KV.GET k");
    assert!(all.contains("\"two\"") && all.contains("\"three\"") && all.contains(context), "{all}");
    assert_eq!(resp.call(&["KV.PUT", "k", "merged", "CONTEXT", context]).to_string(), "+OK");
    assert_eq!(done(&both(third, &["get", "k"])), "merged");

    let damaged = both(first, &["put", "k", "x", "--context", &context[..context.len() - 1]]);
    assert_eq!(damaged.status.code(), Some(1));
    assert!(told(&damaged).contains("the context token is damaged"), "{}", told(&damaged));
    done(&both(first, &["del", "k"]));
    assert_eq!(both(second, &["get", "k"]).status.code(), Some(1), "nothing is left");
    assert_eq!(resp.run("EXISTS k"), ":0");
}

#[test]
fn a_write_with_an_op_id_is_known_on_any_node() {
    let cluster = Cluster::start_with(3, &[]);
    cluster.await_whole();
    let [first, second, third] = &cluster.nodes[..] else { panic!("three nodes") };
    let op = "550e8400-e29b-41d4-a716-446655440000";
    let written = json_of(&ask(first, &["put", "k", "v", "--op-id", op, "-o", "json"]));
    done(&ask(second, &["put", "k", "later"]));
    let again = json_of(&ask(third, &["put", "k", "v", "--op-id", op, "-o", "json"]));
    assert_eq!(again["version"], written["version"], "the first outcome");
    assert_eq!(done(&ask(first, &["get", "k"])), "later");

    let resolved = json_of(&ask(second, &["key", "resolve", "k", op, "-o", "json"]));
    assert_eq!((&resolved["outcome"], &resolved["version"]), (&json!("applied"), &written["version"]));
    let never = done(&ask(second, &["key", "resolve", "k", "42"]));
    assert_eq!(never, "not applied, and it never will be: a write with this op-id is refused\n");
    let fenced = ask(third, &["put", "k", "v", "--op-id", "42"]);
    assert_eq!(fenced.status.code(), Some(1));
    assert_eq!(told(&fenced), "dogsled: the op-id was resolved as not applied; use a new one\n");
    let reused = ask(first, &["put", "k", "another", "--op-id", op]);
    assert_eq!((reused.status.code(), told(&reused).contains("used for another write")), (Some(1), true));
    assert_eq!(ask(first, &["key", "resolve", "k", "nonsense"]).status.code(), Some(1));

    // Over RESP too, and on a node that has not heard of it before.
    let mut resp = crate::resp_harness::Client::connect(([127, 0, 0, 1], third.resp).into());
    assert_eq!(resp.run("KV.WITH opid=43 SET l v"), "+OK");
    assert!(resp.run("KV.RESOLVE l 43").starts_with("[\"outcome\" \"applied\" "));
    assert_eq!(resp.run("KV.WITH opid=42 SET k v"), "-ERR the op-id was resolved as not applied; use a new one");
}

#[test]
fn the_history_of_a_key_shows_each_replica_and_a_read_is_explained() {
    let cluster = Cluster::start_with(3, &[]);
    cluster.await_whole();
    let node = &cluster.nodes[0];
    done(&ask(node, &["put", "k", "v", "--consistency", "all"]));
    let history = json_of(&ask(node, &["key", "history", "k", "-o", "json"]));
    let replicas = history["replicas"].as_array().expect("a list");
    assert_eq!(replicas.len(), 3);
    for replica in replicas {
        assert_eq!(replica["answered"], true, "{history}");
        assert_eq!(replica["versions"][0]["value_bytes"], 1, "{history}");
        assert_eq!(replica["versions"], replicas[0]["versions"], "all hold the same");
    }
    let text = done(&ask(node, &["key", "history", "k"]));
    assert!(text.starts_with("k is in partition ") && text.contains("1 byte"), "{text}");

    let explained = json_of(&ask(node, &["key", "explain", "k", "--consistency", "one", "-o", "json"]));
    assert_eq!(explained["explained"]["value"]["value"]["text"], "v");
    assert_eq!(explained["explained"]["path"]["needed"], 1);
    let steps = explained["explained"]["path"]["steps"].as_array().expect("a list");
    assert!(steps.iter().any(|step| step["event"] == "answered"), "{explained}");
    let text = done(&ask(node, &["key", "explain", "k"]));
    assert!(text.starts_with("found v (version ") && text.contains("\nbefore the read:\n"), "{text}");
    assert!(done(&ask(node, &["key", "explain", "nothing"])).starts_with("found nothing\n"));
}

#[test]
fn namespaces_are_changed_in_the_files_of_all_nodes() {
    let mut cluster = Cluster::create(3);
    let made = namespace(&cluster, &["create", "carts", "--policy", "siblings"]);
    assert_eq!(made.status.code(), Some(1), "nobody can be asked");
    assert!(
        told(&made).contains("+ namespace 'carts' (siblings)") && told(&made).contains("give --yes"),
        "{}",
        told(&made)
    );
    let made = namespace(&cluster, &["create", "carts", "--policy", "siblings", "--yes", "-o", "json"]);
    assert_eq!((&json_of(&made)["epoch"], json_of(&made)["files"].as_array().map(Vec::len)), (&json!(2), Some(3)));
    for again in [&["create", "carts", "--policy", "siblings", "--yes"][..], &["create", "carts", "--yes"]] {
        assert_eq!(namespace(&cluster, again).status.code(), Some(1));
    }
    assert_eq!(namespace(&cluster, &["create", "Carts", "--yes"]).status.code(), Some(1));
    assert_eq!(namespace(&cluster, &["remove", "default", "--yes"]).status.code(), Some(1));
    // A change that broke off half way is completed by the same command.
    let map = |node: &Node| node.home.join("cluster.map");
    done(&namespace(&cluster, &["create", "more", "--yes"]));
    let newest = std::fs::read(map(&cluster.nodes[0])).expect("a map");
    done(&namespace(&cluster, &["remove", "carts", "--yes"]));
    std::fs::write(map(&cluster.nodes[2]), newest).expect("it can be written");
    done(&namespace(&cluster, &["remove", "carts", "--yes"]));
    let listed = done(&namespace(&cluster, &["list"]));
    assert!(listed.contains("more") && !listed.contains("carts"), "{listed}");

    cluster.start_all();
    let node = &cluster.nodes[0];
    assert!(done(&ask(node, &["namespace", "list"])).lines().any(|line| line.starts_with("more ")));
    done(&ask(node, &["put", "k", "v", "--namespace", "more"]));
    // Over HTTP it is written down, and takes effect when the nodes are restarted.
    let made = crate::http_harness::request(node.http, "PUT", "/v1/namespaces/later", br#"{"policy":"siblings"}"#);
    assert_eq!((made.status, &made.json()["takes_effect"]), (202, &json!("restart")));
    assert!(done(&ask(node, &["namespace", "list"])).contains("after a restart"));
    assert_eq!(ask(node, &["put", "k", "v", "--namespace", "later"]).status.code(), Some(1));
    cluster.restart_all();
    for node in &cluster.nodes {
        done(&ask(node, &["put", "k", "v", "--namespace", "later"]));
    }
    assert_eq!(done(&ask(&cluster.nodes[2], &["get", "k", "--namespace", "more"])), "v");
}

#[test]
fn a_connection_at_one_reads_its_own_writes() {
    let cluster = Cluster::start_with(3, &[]);
    cluster.await_whole();
    let mut session = String::new();
    for number in 0..90 {
        // Written through one node and read through the next, at once: a session goes with its token.
        let path = "/v1/ns/default/keys/s?consistency=one";
        let (here, there) = (&cluster.nodes[number % 3], &cluster.nodes[(number + 1) % 3]);
        let body = number.to_string();
        session = crate::http_harness::put_in_session(here.http, path, &session, body.as_bytes());
        assert_eq!(crate::http_harness::get_in_session(there.http, path, &session), body.as_bytes());
    }
    for node in &cluster.nodes {
        let mut client = crate::resp_harness::Client::connect(([127, 0, 0, 1], node.resp).into());
        assert_eq!(client.run("CLIENT CONSISTENCY read=one write=one"), "+OK");
        for number in 0..300 {
            let key = format!("k{}", number % 7);
            assert_eq!(client.call(&["SET", &key, &number.to_string()]).to_string(), "+OK");
            assert_eq!(client.run(&format!("GET {key}")), format!("\"{number}\""));
        }
        assert!(client.run("CLIENT INFO").contains(" session="));
    }
}
