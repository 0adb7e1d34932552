//! What was deleted while a replica was away stays deleted when it comes back, on all
//! replicas, after the tombstones are let go of.

use std::time::Duration;

use dogsled::ambient::moment;
use dogsled::client::http::HttpClient;
use dogsled::server::http::json::History;

use super::cluster::{Cluster, PATIENCE, insist};

const KEYS: usize = 50;
/// Longer than every timer of a node that is configured as below: the idle timeout of a
/// connection is the longest, with three seconds.
const ABSENCE: Duration = Duration::from_secs(6);

/// Asks every replica what it holds until the answer is as wanted.
fn await_history(client: &HttpClient, key: usize, what: &str, wanted: impl Fn(&History) -> bool) {
    let end = moment().plus(PATIENCE);
    loop {
        let found = client.read_json::<History>(&format!("/v1/history/default/key-{key}"));
        match found {
            Ok(history) if wanted(&history) => return,
            found => assert!(moment() < end, "key {key}: still not {what}: {found:?}"),
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_replica_that_comes_back_brings_nothing_deleted_back() {
    let mut cluster = Cluster::start_configured("[sync]\ninterval_ms = 100\ncollect_interval_ms = 200\n", 3);
    let client = HttpClient::new(&format!("http://127.0.0.1:{}", cluster.nodes[0].http), None).expect("an address");
    let mut connection = cluster.nodes[0].connect();
    for key in 0..KEYS {
        insist(&mut connection, &["SET", &format!("key-{key}"), "here"]);
    }
    for key in 0..KEYS {
        await_history(&client, key, "on all replicas", |history| {
            history.replicas.iter().all(|replica| replica.versions.len() == 1)
        });
    }
    cluster.nodes[2].kill();
    for key in 0..KEYS {
        insist(&mut connection, &["DEL", &format!("key-{key}")]);
    }
    std::thread::sleep(ABSENCE);
    // While one may not know of it, the others keep the mark of the deletion, whatever its age.
    for key in 0..KEYS {
        await_history(&client, key, "deleted on the two that are up", |history| {
            let up = history.replicas.iter().filter(|replica| replica.answered);
            let marks = up.filter(|replica| matches!(&replica.versions[..], [mark] if mark.value_bytes.is_none()));
            marks.count() == 2
        });
    }
    cluster.nodes[2].spawn();
    cluster.await_ready();
    for key in 0..KEYS {
        await_history(&client, key, "forgotten by all", |history| {
            history.replicas.iter().all(|replica| replica.answered && replica.versions.is_empty())
        });
    }
    for node in &cluster.nodes {
        let mut connection = node.connect();
        for read in ["READWRITE", "READONLY"] {
            insist(&mut connection, &[read]);
            for key in 0..KEYS {
                let found = insist(&mut connection, &["GET", &format!("key-{key}")]);
                assert!(found.as_bytes().is_none(), "key {key} came back on {}: {found:?}", node.http);
            }
        }
    }
    // A node that was stopped at rest and comes back has nothing to bring either.
    cluster.nodes[1].terminate();
    cluster.nodes[1].spawn();
    cluster.await_ready();
    let mut connection = cluster.nodes[1].connect();
    assert!(insist(&mut connection, &["GET", "key-0"]).as_bytes().is_none());
}

#[test]
fn an_emptied_node_is_fenced_under_its_old_name() {
    let mut cluster = Cluster::start(3);
    let mut connection = cluster.nodes[0].connect();
    insist(&mut connection, &["SET", "key", "value"]);
    assert!(cluster.nodes[2].terminate().success());
    let data = cluster.nodes[2].home.join("data");
    std::fs::remove_dir_all(&data).unwrap_or_else(|error| panic!("{}: {error}", data.display()));
    let output = cluster.nodes[2].run_to_end();
    let told = super::cluster::told(&output);
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(told.contains("emptied or put back"), "{told}");
    assert!(insist(&mut connection, &["GET", "key"]).as_bytes().is_some());
}
