//! The commands that ask a node: what they print, and how they end.

use std::io::Write;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use dogsled::ambient::moment;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::process::cluster::{Cluster, Node, PATIENCE, dogsled, run_to_end, told};

fn ask(node: &Node, arguments: &[&str]) -> Output {
    run_to_end(asking(node, arguments))
}

fn asking(node: &Node, arguments: &[&str]) -> Command {
    let mut command = dogsled();
    command.args(arguments).env("DOGSLED_SERVER", format!("http://127.0.0.1:{}", node.http));
    command
}

/// A running cluster in which every node reaches every other, not only a quorum.
fn start_whole(nodes: u16) -> Cluster {
    let cluster = Cluster::start(nodes);
    for node in &cluster.nodes {
        await_status(node, 0);
    }
    cluster
}

/// Waits until `status` ends with this code.
fn await_status(node: &Node, code: i32) -> Output {
    let end = moment().plus(PATIENCE);
    loop {
        let status = ask(node, &["status"]);
        if status.status.code() == Some(code) {
            return status;
        }
        assert!(moment() < end, "not {code} in time: {}", told(&status));
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn json_of(output: &Output) -> Value {
    assert_eq!(output.status.code(), Some(0), "{}", told(output));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

#[test]
fn keys_are_written_read_and_deleted_on_any_node() {
    let cluster = start_whole(3);
    let [first, second, third] = &cluster.nodes[..] else { panic!("three nodes") };

    let put = ask(first, &["put", "a key/ä", "a value\nof two lines"]);
    assert_eq!(put.status.code(), Some(0), "{}", told(&put));
    assert!(told(&put).starts_with("applied: on the disks of "), "{}", told(&put));
    assert_eq!(ask(second, &["get", "a key/ä"]).stdout, b"a value\nof two lines", "bytes as they are");
    let value = json_of(&ask(third, &["get", "a key/ä", "-o", "json", "--consistency", "all"]));
    assert_eq!(
        (&value["key"], &value["value"]),
        (&json!({"text": "a key/ä"}), &json!({"text": "a value\nof two lines"}))
    );

    let written = json_of(&ask(second, &["put", "short", "lived", "--ttl", "3600", "-o", "json"]));
    assert_eq!(written["key"], json!({"text": "short"}));

    let deleted = ask(third, &["del", "a key/ä"]);
    assert!(told(&deleted).starts_with("applied: "), "{}", told(&deleted));
    let absent = ask(first, &["get", "a key/ä"]);
    assert_eq!(absent.status.code(), Some(1));
    assert_eq!(told(&absent), "dogsled: there is no key \"a key/ä\" in namespace \"default\"\n");
    assert!(absent.stdout.is_empty());
}

#[test]
fn a_value_of_any_bytes_comes_from_stdin() {
    let cluster = Cluster::start(1);
    let node = &cluster.nodes[0];
    let bytes: Vec<u8> = (0..=255).cycle().take(300_000).collect();
    let mut put = asking(node, &["put", "binary", "-"]);
    let mut child = put.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().expect("the program runs");
    child.stdin.take().expect("a pipe").write_all(&bytes).expect("it is taken");
    assert!(child.wait().expect("it ends").success());
    let got = asking(node, &["get", "binary"]).output().expect("the program runs");
    assert!(got.stdout == bytes, "{} bytes came back", got.stdout.len());
}

#[test]
fn the_cluster_the_ring_and_the_places_of_keys_are_shown() {
    let cluster = start_whole(3);
    let node = &cluster.nodes[0];

    let status = json_of(&ask(node, &["status", "-o", "json"]));
    assert_eq!((&status["epoch"], &status["partitions"]), (&json!(1), &json!(16)));
    assert_eq!(status["members"].as_array().map(Vec::len), Some(3));
    let text = told(&ask(node, &["status"]));
    assert!(text.starts_with("healthy: 3 of 3 nodes reachable from n1, 0 partitions without a quorum\n"), "{text}");

    let ring = json_of(&ask(node, &["ring", "show", "-o", "json"]));
    assert_eq!(ring["assignment"].as_array().map(Vec::len), Some(16));
    let short = told(&ask(node, &["ring", "show"]));
    let long = told(&ask(node, &["ring", "show", "--partitions"]));
    assert!(short.starts_with("epoch 1, 16 partitions, 3 replicas each\n"), "{short}");
    assert_eq!(long.lines().count(), short.lines().count() + 18, "{long}");

    // Every node says the same about where a key lives.
    let places: Vec<_> =
        cluster.nodes.iter().map(|node| json_of(&ask(node, &["key", "where", "x", "-o", "json"]))).collect();
    let replicas = |place: &Value| -> Vec<Value> {
        place["replicas"].as_array().expect("replicas").iter().map(|replica| replica["node"].clone()).collect()
    };
    assert_eq!(replicas(&places[0]).len(), 3);
    assert!(places.iter().all(|place| place["token"] == places[0]["token"] && replicas(place) == replicas(&places[0])));
    assert_eq!(
        ring["assignment"][places[0]["partition"].as_u64().expect("a number") as usize],
        json!(replicas(&places[0]))
    );
    let text = told(&ask(node, &["key", "where", "x"]));
    assert!(text.contains("primary") && text.contains("REACHABLE"), "{text}");
}

#[test]
fn exit_codes_tell_an_error_from_ill_health_and_doubt() {
    let mut cluster = start_whole(3);
    // 1: what is not understood, and who is not there.
    for arguments in
        [&["gett", "x"][..], &["get"], &["get", "x", "--consistency", "most"], &["put", "x", "y", "--ttl", "soon"]]
    {
        let refused = ask(&cluster.nodes[0], arguments);
        assert_eq!(refused.status.code(), Some(1), "{arguments:?}: {}", told(&refused));
        assert!(refused.stdout.is_empty() && !refused.stderr.is_empty(), "{arguments:?}");
    }
    let mut nobody = asking(&cluster.nodes[0], &["get", "x", "--server", "http://127.0.0.1:1"]);
    let nobody = nobody.output().expect("the program runs");
    assert_eq!(nobody.status.code(), Some(1));
    assert!(told(&nobody).starts_with("dogsled: no node answers at http://127.0.0.1:1: "), "{}", told(&nobody));
    assert_eq!(ask(&cluster.nodes[0], &["--help"]).status.code(), Some(0));
    assert_eq!(ask(&cluster.nodes[0], &["--version"]).status.code(), Some(0));

    // 3: two of three replicas stand still, so nobody knows what becomes of a write.
    let stopped: Vec<_> = cluster.nodes[1..]
        .iter()
        .map(|node| Pid::from_raw(node.pid().try_into().expect("a pid")).expect("a pid"))
        .collect();
    stopped.iter().for_each(|pid| kill_process(*pid, Signal::STOP).expect("it takes a signal"));
    let doubt = ask(&cluster.nodes[0], &["put", "x", "y"]);
    stopped.iter().for_each(|pid| kill_process(*pid, Signal::CONT).expect("it takes a signal"));
    assert_eq!(doubt.status.code(), Some(3), "{}", told(&doubt));
    assert!(told(&doubt).contains("1 of 2 acknowledgements"), "{}", told(&doubt));

    // 2: a node is gone; the rest goes on. It is noticed at the latest when its connection has been idle too long.
    cluster.nodes[1].kill();
    let unhealthy = await_status(&cluster.nodes[0], 2);
    assert!(told(&unhealthy).starts_with("not healthy: "), "{}", told(&unhealthy));
}

#[test]
fn a_closed_output_is_taken_quietly() {
    let cluster = Cluster::start(1);
    let node = &cluster.nodes[0];
    let mut command = asking(node, &["ring", "show", "--partitions", "-o", "json"]);
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let ended = command.stdout(writer).stderr(Stdio::piped()).spawn().expect("the program runs").wait_with_output();
    let ended = ended.expect("it ends");
    assert_eq!((ended.status.code(), told(&ended).as_str()), (Some(0), ""));
}
