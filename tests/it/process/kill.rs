//! kill -9 at random moments under load: every acknowledged write is there afterwards.
//!
//! `DOGSLED_KILL_CYCLES=100` runs more cycles than the ten of every test run, and
//! `DOGSLED_KILL_SEED` repeats the choices of an earlier run (not the moments: those
//! belong to the machine).

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex};

use dogsled::ambient::{moment, seed};
use dogsled::client::resp::{BlockingConnection, ClientError, Fate, Target};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::cluster::{Cluster, PATIENCE};
use super::history::{KeyHistory, let_the_clock_move_on};

const WRITERS: u64 = 8;
const KEYS_OF_A_WRITER: usize = 40;

/// Acknowledged writes, for whoever waits for some more of them.
#[derive(Default)]
struct Acknowledged {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    count: u64,
    /// A writer saw what it must not see.
    failed: bool,
}

impl Acknowledged {
    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.lock().unwrap());
        self.changed.notify_all();
    }

    fn now(&self) -> u64 {
        self.state.lock().unwrap().count
    }

    fn await_more(&self, more: u64) {
        let state = self.state.lock().unwrap();
        let goal = state.count + more;
        let waiting = |state: &mut State| state.count < goal && !state.failed;
        let (state, timeout) = self.changed.wait_timeout_while(state, PATIENCE, waiting).unwrap();
        let (count, failed) = (state.count, state.failed);
        drop(state);
        assert!(!failed, "a writer saw what it must not see");
        assert!(!timeout.timed_out(), "only {count} of {goal} writes were acknowledged");
    }
}

#[test]
fn no_acknowledged_write_is_lost_to_kill_9_under_load() {
    let cycles: u64 = from_environment("DOGSLED_KILL_CYCLES").unwrap_or(10);
    let seed = from_environment("DOGSLED_KILL_SEED").unwrap_or_else(|| u64::from_le_bytes(seed()));
    eprintln!("{cycles} cycles; DOGSLED_KILL_SEED={seed}");
    let mut rng = SmallRng::seed_from_u64(seed);
    let mut cluster = Cluster::start_with_defaults(3);
    let targets: Vec<Target> = cluster.nodes.iter().map(|node| node.target()).collect();
    let (acknowledged, over) = (Acknowledged::default(), AtomicBool::new(false));
    let histories: Vec<Vec<KeyHistory>> = std::thread::scope(|scope| {
        // Ends the writers even if an assertion below fails, so that the scope can be left.
        let _ends = EndOnDrop(&over);
        let writers: Vec<_> = (0..WRITERS)
            .map(|number| {
                let rng = SmallRng::seed_from_u64(seed ^ (number + 1));
                let mut writer = Writer { number, rng, targets: &targets, acknowledged: &acknowledged, over: &over };
                scope.spawn(move || writer.write())
            })
            .collect();
        for cycle in 0..cycles {
            acknowledged.await_more(rng.random_range(20..300));
            // Every third time all of them, so that nothing but the disks can remember.
            let victims = if cycle % 3 == 2 { vec![0, 1, 2] } else { vec![rng.random_range(0..3)] };
            victims.iter().for_each(|victim| cluster.nodes[*victim].kill());
            if victims.len() == 1 {
                // Two of three are a quorum: the load goes on.
                acknowledged.await_more(rng.random_range(1..100));
            }
            victims.iter().for_each(|victim| cluster.nodes[*victim].spawn());
            cluster.await_ready();
            assert!(cluster.nodes.iter_mut().all(|node| node.is_running()));
        }
        acknowledged.await_more(100);
        over.store(true, Ordering::SeqCst);
        writers.into_iter().map(|writer| writer.join().expect("no writer saw what it must not see")).collect()
    });
    eprintln!("{} writes acknowledged", acknowledged.now());
    for node in &cluster.nodes {
        let mut connection = node.connect();
        for (writer, histories) in histories.iter().enumerate() {
            for (key, history) in histories.iter().enumerate() {
                let key = key_name(writer as u64, key);
                let found = read(&mut connection, &key);
                assert!(history.allows(found.as_deref()), "{key} holds {found:?}, which {history:?} does not allow");
            }
        }
    }
}

/// Reads until it is answered; a refusal is no answer.
fn read(connection: &mut BlockingConnection, key: &str) -> Option<String> {
    let end = moment().plus(PATIENCE);
    loop {
        match connection.call(&["GET", key]) {
            Ok(reply) => {
                return reply.as_bytes().map(|bytes| String::from_utf8(bytes.to_vec()).expect("we wrote text"));
            }
            Err(ClientError::Server(error)) if error.fate() == Fate::NotApplied && moment() < end => {}
            Err(error) => panic!("GET {key}: {error}"),
        }
    }
}

struct EndOnDrop<'a>(&'a AtomicBool);

impl Drop for EndOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

impl Drop for Writer<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.acknowledged.change(|state| state.failed = true);
        }
    }
}

/// One client: writes its own keys, now and then reads one, and goes to another node
/// whenever its own is gone.
struct Writer<'a> {
    number: u64,
    rng: SmallRng,
    targets: &'a [Target],
    acknowledged: &'a Acknowledged,
    over: &'a AtomicBool,
}

impl Writer<'_> {
    fn write(&mut self) -> Vec<KeyHistory> {
        let mut histories = vec![KeyHistory::default(); KEYS_OF_A_WRITER];
        let mut connection = None;
        let mut written = 0_u64;
        while !self.over.load(Ordering::SeqCst) {
            let Some(open) = connection.as_mut() else {
                connection = self.connect();
                continue;
            };
            let key = self.rng.random_range(0..KEYS_OF_A_WRITER);
            let name = key_name(self.number, key);
            if self.rng.random_ratio(1, 4) {
                match open.call(&["GET", &name]) {
                    Ok(reply) => {
                        let found = reply.as_bytes().map(|bytes| String::from_utf8_lossy(bytes).into_owned());
                        let history = &histories[key];
                        assert!(history.allows(found.as_deref()), "{name} reads {found:?}, not {history:?}");
                    }
                    // Refused; the connection is good.
                    Err(ClientError::Server(_)) => {}
                    Err(_) => connection = None,
                }
                continue;
            }
            written += 1;
            let value = format!("{name}={written}");
            match open.call(&["SET", &name, &value]) {
                Ok(reply) => {
                    assert!(reply.is_ok(), "SET {name}: {reply:?}");
                    histories[key].acknowledged(value);
                    self.acknowledged.change(|state| state.count += 1);
                }
                Err(error) => {
                    if error.fate() == Fate::InDoubt {
                        histories[key].in_doubt(value);
                        let_the_clock_move_on();
                    }
                    if !matches!(error, ClientError::Server(_)) {
                        connection = None;
                    }
                }
            }
        }
        histories
    }

    fn connect(&mut self) -> Option<BlockingConnection> {
        let target = &self.targets[self.rng.random_range(0..self.targets.len())];
        let connection = BlockingConnection::connect(target, PATIENCE).ok();
        if connection.is_none() {
            // All nodes may be down: nothing to wait for but the next try.
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
        connection
    }
}

fn key_name(writer: u64, key: usize) -> String {
    format!("writer{writer}:key{key}")
}

fn from_environment(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} must be a number, not '{text}'")))
}
