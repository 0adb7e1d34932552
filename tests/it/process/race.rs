//! Two clients race on the same keys at QUORUM while nodes are killed and come back: no
//! read goes back, and no acknowledged write is lost.
//!
//! The check is exact: every answer names its version, and versions are ordered. Whatever
//! was acknowledged or read before an operation began is a floor for what it may answer.
//!
//! `DOGSLED_RACE_SECONDS=120` races longer than the few seconds of every test run.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use dogsled::ambient::{moment, seed};
use dogsled::client::http::{ClientError, HttpClient};
use dogsled::server::http::json::{Value, Written};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::cluster::{Cluster, PATIENCE};

const KEYS: usize = 100;
const CLIENTS: u64 = 2;
const BETWEEN_KILLS: Duration = Duration::from_secs(5);

/// A version's place in the order of versions.
type Place = (u64, u64, u64, u64);

/// What is known of one key.
#[derive(Default)]
struct Known {
    floor: Place,
    /// What was written under each version, where that is known.
    values: BTreeMap<Place, String>,
    sent: Vec<String>,
}

/// The parts of an entity tag: timestamp, node, life and counter.
fn place(etag: &str) -> Place {
    let number = |text: &str| u64::from_str_radix(text, 16).expect("hexadecimal digits");
    let (first, counter) = etag.split_once('-').expect("two parts");
    (number(&first[..16]), number(&first[16..24]), number(&first[24..]), number(counter))
}

#[test]
fn two_racing_clients_never_see_less_than_before() {
    let seconds = std::env::var("DOGSLED_RACE_SECONDS").ok().map_or(12, |text| text.parse().expect("a number"));
    let seed = u64::from_le_bytes(seed());
    eprintln!("racing for {seconds} s, seed {seed}");
    let mut cluster = Cluster::start_with_defaults(3);
    let servers: Vec<String> = cluster.nodes.iter().map(|node| format!("http://127.0.0.1:{}", node.http)).collect();
    let keys: Vec<Mutex<Known>> = (0..KEYS).map(|_| Mutex::default()).collect();
    let (over, answers) = (AtomicBool::new(false), [const { AtomicU64::new(0) }; 3]);
    std::thread::scope(|scope| {
        let racers: Vec<_> = (0..CLIENTS)
            .map(|number| {
                let rng = SmallRng::seed_from_u64(seed ^ number);
                let mut racer = Racer { number, rng, servers: &servers, keys: &keys, answers: &answers, written: 0 };
                let over = &over;
                scope.spawn(move || {
                    while !over.load(Ordering::SeqCst) {
                        racer.step();
                    }
                })
            })
            .collect();
        let mut rng = SmallRng::seed_from_u64(seed);
        let end = moment().plus(Duration::from_secs(seconds));
        let mut kills = 0;
        while moment() < end && racers.iter().all(|racer| !racer.is_finished()) {
            // The pace of the kills is part of what is tested.
            std::thread::sleep(BETWEEN_KILLS.min(end.since(moment())));
            let victim = rng.random_range(0..3);
            cluster.nodes[victim].kill();
            cluster.nodes[victim].spawn();
            cluster.await_ready();
            kills += 1;
        }
        over.store(true, Ordering::SeqCst);
        for racer in racers {
            racer.join().expect("no client saw less than before");
        }
        eprintln!("{kills} kills");
    });
    let [written, read, refused] = answers.map(AtomicU64::into_inner);
    eprintln!("{written} writes acknowledged, {read} reads answered, {refused} operations refused or in doubt");
    assert!(written > 100 && read > 100, "there was hardly any load");
    for server in &servers {
        let client = HttpClient::new(server, None).expect("an address");
        for (number, known) in keys.iter().enumerate() {
            let known = known.lock().expect("no client has failed");
            let floor = known.floor;
            let found = read_until_answered(&client, number);
            check_read(&known, floor, number, found.as_ref());
        }
    }
}

fn read_until_answered(client: &HttpClient, number: usize) -> Option<Value> {
    let end = moment().plus(PATIENCE);
    loop {
        match read(client, number) {
            Ok(found) => return found,
            Err(error) => assert!(moment() < end, "key {number}: {error}"),
        }
    }
}

fn read(client: &HttpClient, number: usize) -> Result<Option<Value>, ClientError> {
    match client.read_json::<Value>(&format!("/v1/ns/default/keys/key-{number}?format=json&consistency=quorum")) {
        Ok(value) => Ok(Some(value)),
        Err(ClientError::Refused(text)) if text.contains("no such key") || text.contains("not found") => Ok(None),
        Err(error) => Err(error),
    }
}

fn check_read(known: &Known, floor: Place, number: usize, found: Option<&Value>) {
    let Some(value) = found else {
        assert_eq!(floor, Place::default(), "key {number} is gone");
        return;
    };
    let at = place(&value.version.etag);
    let text = value.value.text.clone().expect("we wrote text");
    assert!(at >= floor, "key {number} reads {text} at {at:?}, but {floor:?} was acknowledged or read before");
    let written = known.values.get(&at);
    assert!(written.is_none_or(|written| *written == text), "key {number} reads {text} at {at:?}, not {written:?}");
    assert!(known.sent.contains(&text), "key {number} reads {text}, which nobody wrote");
}

struct Racer<'a> {
    number: u64,
    rng: SmallRng,
    servers: &'a [String],
    keys: &'a [Mutex<Known>],
    /// Writes, reads, and what failed.
    answers: &'a [AtomicU64; 3],
    written: u64,
}

impl Racer<'_> {
    fn step(&mut self) {
        let server = &self.servers[self.rng.random_range(0..self.servers.len())];
        let client = HttpClient::new(server, None).expect("an address");
        for _ in 0..20 {
            let number = self.rng.random_range(0..KEYS);
            let floor = self.known(number).floor;
            let answered = match self.rng.random_bool(0.5) {
                true => self.write(&client, number, floor),
                false => self.read(&client, number, floor),
            };
            if !answered {
                self.answers[2].fetch_add(1, Ordering::Relaxed);
                return;
            }
        }
    }

    fn known(&self, number: usize) -> std::sync::MutexGuard<'_, Known> {
        self.keys[number].lock().expect("no client has failed")
    }

    fn write(&mut self, client: &HttpClient, number: usize, floor: Place) -> bool {
        self.written += 1;
        let value = format!("{}:{}", self.number, self.written);
        self.known(number).sent.push(value.clone());
        let path = format!("/v1/ns/default/keys/key-{number}?format=json&consistency=quorum");
        let written = match client.put::<Written>(&path, &[], value.as_bytes()) {
            Ok(written) => written,
            Err(error) => {
                eprintln!("{error}");
                return false;
            }
        };
        let at = place(&written.version.etag);
        assert!(at > floor, "{value} was written to key {number} at {at:?}, below {floor:?} from before");
        assert!(written.acknowledged >= 2, "{value} was acknowledged by {}", written.acknowledged);
        let mut known = self.known(number);
        known.floor = known.floor.max(at);
        assert!(known.values.insert(at, value).is_none_or(|other| other.is_empty()), "one version, two values");
        self.answers[0].fetch_add(1, Ordering::Relaxed);
        true
    }

    fn read(&mut self, client: &HttpClient, number: usize, floor: Place) -> bool {
        let Ok(found) = read(client, number) else { return false };
        let mut known = self.known(number);
        check_read(&known, floor, number, found.as_ref());
        if let Some(value) = found {
            known.floor = known.floor.max(place(&value.version.etag));
        }
        self.answers[1].fetch_add(1, Ordering::Relaxed);
        true
    }
}
