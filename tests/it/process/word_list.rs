//! Real input: a list of words, loaded through one node while another one is killed.

use std::sync::mpsc::{Receiver, Sender, channel};

use dogsled::ambient::moment;
use dogsled::client::resp::{BlockingConnection, Fate, Pipeline, Reply};

use super::cluster::{Cluster, Node, PATIENCE};

/// A cut of Debian's `wamerican`: every 21st word.
const WORDS: &str = include_str!("../../data/words.txt");
const BATCH: usize = 32;

/// What the loader has come to.
#[derive(Debug, PartialEq)]
enum Progress {
    Half,
    ThreeQuarters,
}

#[test]
fn every_word_is_read_back_from_the_other_nodes_after_one_was_killed_in_the_middle_of_the_load() {
    let words: Vec<&str> = WORDS.lines().collect();
    assert!(words.len() > 4_900 && words.iter().any(|word| !word.is_ascii()));
    let mut cluster = Cluster::start_with_defaults(3);
    let connection = cluster.nodes[0].connect();
    let (report, progress) = channel();
    let (permit, permission) = channel();
    std::thread::scope(|scope| {
        let loader = scope.spawn({
            let words = &words;
            move || load(connection, words, &report, &permission)
        });
        // Killed while writes are under way, and the load goes on.
        assert_eq!(progress.recv_timeout(PATIENCE), Ok(Progress::Half));
        cluster.nodes[1].kill();
        // From here on the load waits, so that a part of it certainly runs without the node …
        assert_eq!(progress.recv_timeout(PATIENCE), Ok(Progress::ThreeQuarters));
        // … and another part while the node starts again.
        cluster.nodes[1].spawn();
        permit.send(()).expect("the loader waits for this");
        loader.join().expect("every word was acknowledged in the end");
    });
    cluster.await_ready();
    for node in &cluster.nodes[1..] {
        read_back(node, &words);
    }
}

/// Writes each word with the number of its line until it is acknowledged.
fn load(mut connection: BlockingConnection, words: &[&str], report: &Sender<Progress>, permission: &Receiver<()>) {
    let mut waiting: Vec<(usize, &str)> = words.iter().copied().enumerate().rev().collect();
    let mut acknowledged = 0;
    let mut reported = 0;
    let end = moment().plus(PATIENCE);
    while !waiting.is_empty() {
        assert!(moment() < end, "{} words were never acknowledged", waiting.len());
        let batch = waiting.split_off(waiting.len().saturating_sub(BATCH));
        let mut pipeline = Pipeline::new();
        for (line, word) in &batch {
            pipeline.push(&["SET", *word, &(line + 1).to_string()]);
        }
        let replies = connection.pipeline(&pipeline).expect("this node stays up");
        for (entry, reply) in batch.into_iter().zip(replies) {
            match reply {
                Reply::Error(error) => {
                    // Repeating the same value is safe whatever became of it; any other error is a bug.
                    let expected = error.fate() == Fate::NotApplied || error.prefix() == "INDOUBT";
                    assert!(expected, "SET {}: {error}", entry.1);
                    waiting.push(entry);
                }
                reply => {
                    assert!(reply.is_ok(), "SET {}: {reply:?}", entry.1);
                    acknowledged += 1;
                }
            }
        }
        if reported == 0 && acknowledged >= words.len() / 2 {
            reported = 1;
            report.send(Progress::Half).expect("the test listens");
        }
        if reported == 1 && acknowledged >= words.len() * 3 / 4 {
            reported = 2;
            report.send(Progress::ThreeQuarters).expect("the test listens");
            permission.recv_timeout(PATIENCE).expect("the test starts the node again");
        }
    }
}

fn read_back(node: &Node, words: &[&str]) {
    let mut connection = node.connect();
    for (first, batch) in words.chunks(BATCH).enumerate() {
        let mut pipeline = Pipeline::new();
        batch.iter().for_each(|word| {
            pipeline.push(&["GET", *word]);
        });
        let end = moment().plus(PATIENCE);
        loop {
            let replies = connection.pipeline(&pipeline).expect("the node answers");
            // A node that has just come back may ask for patience; it may not answer wrongly.
            if replies.iter().any(|reply| matches!(reply, Reply::Error(error) if error.fate() == Fate::NotApplied)) {
                assert!(moment() < end, "reads fail for ever: {replies:?}");
                continue;
            }
            for (offset, (word, reply)) in batch.iter().zip(replies).enumerate() {
                let line = (first * BATCH + offset + 1).to_string();
                assert_eq!(reply.as_bytes(), Some(line.as_bytes()), "{word} from {}: {reply:?}", node.home.display());
            }
            break;
        }
    }
}
