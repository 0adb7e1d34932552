use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;

use clap::Parser;

use super::*;
use crate::bench::report::KindReport;
use crate::client::resp::{Reply, ReplyLimits, ReplyParser, Target};

/// What a server of the tests does with a command.
enum Deed {
    Say(String),
    HangUp,
}

/// It is told which one of its name the command is, from 1.
type Behaviour = dyn Fn(&Store, usize, &[String]) -> Deed + Send + Sync;

/// What all connections of such a server share.
#[derive(Default)]
struct Store {
    values: Mutex<BTreeMap<String, String>>,
    /// Every command, in the order of arrival.
    commands: Mutex<Vec<Vec<String>>>,
}

impl Store {
    /// As a real server would.
    fn obey(&self, _nth: usize, command: &[String]) -> Deed {
        let mut values = self.values.lock().unwrap();
        Deed::Say(match (command[0].as_str(), command) {
            ("SET", [_, key, value]) => {
                values.insert(key.clone(), value.clone());
                "+OK\r\n".to_owned()
            }
            ("GET", [_, key]) => match values.get(key) {
                Some(value) => format!("${}\r\n{value}\r\n", value.len()),
                None => "$-1\r\n".to_owned(),
            },
            ("DEL", [_, key]) => format!(":{}\r\n", u8::from(values.remove(key).is_some())),
            ("WAIT", _) => ":1\r\n".to_owned(),
            _ => "-ERR unknown command\r\n".to_owned(),
        })
    }

    fn count(&self, name: &str) -> usize {
        self.commands.lock().unwrap().iter().filter(|command| command[0] == name).count()
    }
}

struct Server {
    port: u16,
    store: Arc<Store>,
    stopping: Arc<AtomicBool>,
}

impl Server {
    fn start(behaviour: impl Fn(&Store, usize, &[String]) -> Deed + Send + Sync + 'static) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (store, stopping) = (Arc::new(Store::default()), Arc::new(AtomicBool::new(false)));
        let (shared, stop, behaviour): (_, _, Arc<Behaviour>) = (store.clone(), stopping.clone(), Arc::new(behaviour));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if stop.load(Ordering::SeqCst) {
                    return;
                }
                let (store, behaviour) = (shared.clone(), behaviour.clone());
                std::thread::spawn(move || serve(stream.unwrap(), &store, &*behaviour));
            }
        });
        Server { port, store, stopping }
    }

    fn run(&self, line: &str) -> Result<BenchReport, BenchError> {
        run(&args(&format!("--target redis://127.0.0.1:{} --warmup 0s {line}", self.port)))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::SeqCst);
        // Wakes the listener, so that it sees this.
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

fn serve(mut stream: TcpStream, store: &Store, behaviour: &Behaviour) {
    // Replies are written one by one; Nagle's algorithm would hold the second one back.
    stream.set_nodelay(true).unwrap();
    let mut parser = ReplyParser::new(ReplyLimits::default());
    let mut buffer = [0_u8; 16 * 1024];
    while let Ok(read @ 1..) = stream.read(&mut buffer) {
        parser.feed(&buffer[..read]);
        // A command is an array of bulk strings, which the reply parser reads as well.
        while let Some(Reply::Array(items)) = parser.next_reply().unwrap() {
            let text = |item: &Reply| String::from_utf8(item.as_bytes().unwrap().to_vec()).unwrap();
            let command: Vec<String> = items.iter().map(text).collect();
            let nth = {
                let mut commands = store.commands.lock().unwrap();
                commands.push(command.clone());
                commands.iter().filter(|earlier| earlier[0] == command[0]).count()
            };
            match behaviour(store, nth, &command) {
                Deed::Say(reply) => stream.write_all(reply.as_bytes()).unwrap_or_default(),
                Deed::HangUp => return,
            }
        }
    }
}

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    bench: BenchArgs,
}

fn args(line: &str) -> BenchArgs {
    Line::parse_from(std::iter::once("bench").chain(line.split_whitespace())).bench
}

fn kind<'a>(report: &'a BenchReport, name: &str) -> &'a KindReport {
    report.kinds.iter().find(|kind| kind.kind == name).expect("this kind was run")
}

#[test]
fn every_key_is_loaded_and_every_operation_counted_once() {
    let server = Server::start(Store::obey);
    let line = "-c 5 -P 3 --threads 2 -k 500 -d 30 --load -n 3000 --mix put=50,get=50 --distribution zipfian --seed 1";
    let report = server.run(line).unwrap();
    assert_eq!((report.operations, report.misses, report.errors.len()), (3_000, 0, 0));
    assert_eq!(report.load.unwrap().keys, 500);
    let (puts, gets) = (kind(&report, "put").operations, kind(&report, "get").operations);
    assert_eq!((puts + gets, report.under_replicated), (3_000, 0));
    assert!(puts.abs_diff(1_500) < 200);
    assert_eq!(server.store.count("SET") as u64, 500 + puts);
    assert_eq!(server.store.count("GET") as u64, gets);
    assert_eq!(server.store.values.lock().unwrap().len(), 500);
    let commands = server.store.commands.lock().unwrap();
    let values: BTreeSet<&String> = commands.iter().filter(|c| c[0] == "SET").map(|c| &c[2]).collect();
    assert_eq!(values.len() as u64, 500 + puts, "every value that was written differs");
    let text = report.to_string();
    assert!(text.contains("3000 operations") && text.contains("seed 1"), "{text}");
    let json: serde_json::Value = serde_json::from_str(&report.to_json()).unwrap();
    assert_eq!(json["operations"], 3_000);
    assert!(json["kinds"][0]["latency_us"]["p99"].as_u64().unwrap() > 0);
}

#[test]
fn each_write_is_followed_by_wait_and_short_answers_are_counted() {
    let server = Server::start(|store, nth, command| match command[0].as_str() {
        "WAIT" if nth % 4 == 0 => Deed::Say(":0\r\n".to_owned()),
        _ => store.obey(nth, command),
    });
    let report = server.run("-c 3 -n 400 -k 10 --mix put=3,del=1 --wait 1 --wait-timeout 70ms").unwrap();
    assert_eq!((report.operations, report.under_replicated), (400, 100));
    let commands = server.store.commands.lock().unwrap();
    assert!(commands.iter().filter(|c| c[0] == "WAIT").all(|c| c[1..] == ["1", "70"]));
    assert_eq!(commands.len(), 800);
}

#[test]
fn failures_are_counted_by_the_code_of_the_server_and_are_no_latencies() {
    let server = Server::start(|store, nth, command| match command[0].as_str() {
        "SET" if nth % 5 == 0 => Deed::Say("-INDOUBT 1 of 2 acknowledgements\r\n".to_owned()),
        "GET" => Deed::Say(">2\r\n+news\r\n+nobody asked\r\n-wrong in lower case\r\n".to_owned()),
        _ => store.obey(nth, command),
    });
    let report = server.run("-c 2 -n 500 --mix put=1").unwrap();
    assert_eq!((report.operations, report.errors["INDOUBT"]), (400, 100));
    let report = server.run("-c 2 -P 4 -n 100 --mix get=1").unwrap();
    assert_eq!((report.operations, report.errors["ERR"]), (0, 100));
    let error = server.run("-c 2 -k 100 --load").unwrap_err();
    assert!(matches!(error, BenchError::Load { failed: 20, keys: 100, .. }), "{error}");
}

#[test]
fn a_read_modify_write_reads_and_then_writes_the_same_key() {
    let server = Server::start(Store::obey);
    let report = server.run("-c 1 -n 50 -k 1000 --mix rmw=1").unwrap();
    assert_eq!(kind(&report, "rmw").operations, 50);
    let commands = server.store.commands.lock().unwrap();
    for pair in commands.chunks(2) {
        assert_eq!((pair[0][0].as_str(), pair[1][0].as_str()), ("GET", "SET"));
        assert_eq!(pair[0][1], pair[1][1]);
    }
}

#[test]
fn reads_of_the_latest_follow_the_inserts() {
    let server = Server::start(Store::obey);
    let report = server.run("-c 1 -n 2000 -k 50 --load --workload d").unwrap();
    assert_eq!((report.operations, report.misses), (2_000, 0));
    let inserted = kind(&report, "insert").operations as usize;
    assert!(inserted > 50);
    assert_eq!(server.store.values.lock().unwrap().len(), 50 + inserted);
}

#[test]
fn a_broken_connection_is_made_again_and_what_was_under_way_has_failed() {
    let server = Server::start(|store, nth, command| match command[0].as_str() {
        "GET" if nth == 100 => Deed::HangUp,
        _ => store.obey(nth, command),
    });
    let report = server.run("-c 1 -P 4 -n 300 --mix get=1").unwrap();
    assert_eq!((report.reconnects, report.lost_connections), (1, 0));
    let failed = report.errors["DISCONNECTED"];
    assert!((1..=4).contains(&failed));
    assert_eq!(report.operations + failed, 300);
}

#[test]
fn a_server_that_falls_silent_does_not_hold_up_the_end() {
    let server = Server::start(|store, nth, command| match nth {
        0..=10 => store.obey(nth, command),
        _ => Deed::Say(String::new()),
    });
    let report = server.run("-c 2 --time 200ms --timeout 60ms --mix get=1").unwrap();
    assert_eq!(report.operations, 10);
    assert!(report.errors["TIMEOUT"] >= 2, "{report}");
}

#[test]
fn an_open_loop_charges_a_stall_to_every_operation_that_was_due() {
    const STALL: Duration = Duration::from_millis(300);
    let server = Server::start(|store, nth, command| {
        if nth == 50 {
            std::thread::sleep(STALL);
        }
        store.obey(nth, command)
    });
    // One connection: whatever comes due in the stall waits. A closed loop would see one
    // slow operation of 400; here at least 200 were due 100 ms or more before its end.
    let report = server.run("-c 1 -n 400 --rate 1000 --mix get=1").unwrap();
    assert_eq!(report.operations, 400);
    let latency = kind(&report, "get").latency_us;
    assert!(latency.p50 >= 80_000 && latency.max >= 290_000, "{report}");
}

#[test]
fn an_open_loop_keeps_its_rate_and_says_what_it_could_not_begin() {
    let server = Server::start(Store::obey);
    let report = server.run("-c 8 --threads 2 --time 500ms --rate 400 --mix get=1,put=1").unwrap();
    assert_eq!(report.operations + report.never_begun, 200);
    let stuck = Server::start(|_, _, _| {
        std::thread::sleep(Duration::from_millis(20));
        Deed::Say("$-1\r\n".to_owned())
    });
    let report = stuck.run("-c 1 --time 300ms --rate 1000 --mix get=1").unwrap();
    assert!(report.never_begun > 200, "{report}");
    assert_eq!(report.misses, report.operations);
}

#[test]
fn connections_are_spread_over_the_targets() {
    let servers = [Server::start(Store::obey), Server::start(Store::obey), Server::start(Store::obey)];
    let targets: Vec<String> = servers.iter().map(|s| format!("--target redis://127.0.0.1:{}", s.port)).collect();
    run(&args(&format!("{} --warmup 0s -c 6 -n 300 --mix put=1", targets.join(" ")))).unwrap();
    assert!(servers.iter().all(|server| server.store.count("SET") > 0));
}

#[test]
fn a_run_that_cannot_be_is_refused_before_anything_is_sent() {
    let server = Server::start(Store::obey);
    assert!(matches!(server.run("--time 0s"), Err(BenchError::Settings { .. })));
    assert!(matches!(server.run("--server-pids 0"), Err(BenchError::Process { .. })));
    assert_eq!(server.store.commands.lock().unwrap().len(), 0);
    let nowhere = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let error = run(&args(&format!("--target redis://127.0.0.1:{nowhere}"))).unwrap_err();
    assert!(error.to_string().contains(&Target::new("127.0.0.1", nowhere).address()), "{error}");
}

#[test]
fn cpu_time_of_servers_is_reported_for_each_of_them() {
    let server = Server::start(Store::obey);
    let own = std::process::id();
    let report = server.run(&format!("-c 2 -n 200 --server-pids {own}")).unwrap();
    let cpu = report.server_cpu.unwrap();
    assert_eq!(cpu.processes.iter().map(|process| process.pid).collect::<Vec<_>>(), [own]);
    let (before, after) = (CpuTimes { own: 1, servers: vec![10, 20] }, CpuTimes { own: 4, servers: vec![15, 40] });
    let (own, servers) = used(&before, Some(&after), &[7, 8]);
    assert_eq!((own, servers.unwrap().processes.iter().map(|p| p.cpu_us).collect::<Vec<_>>()), (3, vec![5, 20]));
    assert!(used(&before, None, &[7, 8]).1.is_none());
}
