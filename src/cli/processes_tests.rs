use std::process::{Child, Command, Stdio};

use super::*;

fn shell(script: &str) -> (Child, Process) {
    let mut command = Command::new("sh");
    let child = command.args(["-c", script]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("a shell");
    let process = Process::of(child.id()).expect("it runs");
    (child, process)
}

/// Waits until the script has said that it is set up.
fn await_line(child: &mut Child) {
    use std::io::{BufRead, BufReader};
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().expect("it is piped")).read_line(&mut line).expect("a line");
    assert_eq!(line, "ready\n");
}

#[test]
fn a_process_ends_when_asked_and_is_killed_when_it_does_not() {
    let (mut willing, process) = shell("trap 'exit 0' TERM; echo ready; while :; do sleep 0.01; done");
    await_line(&mut willing);
    let process = Process { program: program_of(willing.id()).expect("it runs"), ..process };
    assert!(process.is_running());
    assert_eq!(process.stop(Duration::from_secs(30)).expect("it is stopped"), Stopped::Ended);
    // It waits for its parent, which is this test: that is not running.
    assert!(!process.is_running());
    assert_eq!(process.stop(Duration::from_secs(30)).expect("nothing to do"), Stopped::Gone);
    willing.wait().expect("it has ended");

    let (mut stubborn, process) = shell("trap '' TERM; echo ready; while :; do sleep 0.01; done");
    await_line(&mut stubborn);
    let process = Process { program: program_of(stubborn.id()).expect("it runs"), ..process };
    assert_eq!(process.stop(Duration::from_millis(200)).expect("it is stopped"), Stopped::Killed);
    assert!(!process.is_running());
    stubborn.wait().expect("it has ended");
}

#[test]
fn another_process_of_the_same_number_is_left_alone() {
    let (mut child, process) = shell("echo ready; read line");
    await_line(&mut child);
    let process = Process { program: program_of(child.id()).expect("it runs"), ..process };
    for other in [
        Process { start_time: process.start_time + 1, ..process.clone() },
        Process { program: "/usr/bin/other".into(), ..process.clone() },
        Process { pid: u32::MAX, ..process.clone() },
        Process { pid: 0, ..process.clone() },
    ] {
        assert!(!other.is_running());
        assert_eq!(other.stop(Duration::ZERO).expect("nothing to do"), Stopped::Gone);
    }
    assert!(process.is_running());
    child.kill().expect("it is ours");
    child.wait().expect("it has ended");
}

#[test]
fn what_was_written_down_is_found_again() {
    let folder = tempfile::tempdir().expect("a directory");
    assert_eq!(Processes::read(folder.path()).expect("nothing is there"), Processes::default());
    let this = Process::of(std::process::id()).expect("it runs");
    let gone = Process { start_time: 1, ..this.clone() };
    let id = |number| NodeId::new(number).expect("above zero");
    let nodes = vec![NodeProcess { node: id(1), process: this.clone() }, NodeProcess { node: id(2), process: gone }];
    let processes = Processes { supervisor: Some(this), nodes };
    processes.write(folder.path()).expect("it is written");
    assert_eq!(Processes::read(folder.path()).expect("it is read"), processes);
    assert_eq!(processes.running(), [id(1)]);
    fs::write(folder.path().join(FILE_NAME), "{").expect("a file");
    let error = Processes::read(folder.path()).expect_err("it is cut").to_string();
    assert!(error.contains("processes.json: not a list of processes"), "{error}");
    Processes::remove(folder.path()).expect("it is removed");
    Processes::remove(folder.path()).expect("nothing to do");
}

#[test]
fn one_at_a_time_starts_a_cluster() {
    let folder = tempfile::tempdir().expect("a directory");
    let first = Lock::take(folder.path()).expect("it can be locked");
    assert!(first.is_some());
    assert!(Lock::take(folder.path()).expect("it can be asked").is_none());
    drop(first);
    assert!(Lock::take(folder.path()).expect("it can be locked").is_some());
}
