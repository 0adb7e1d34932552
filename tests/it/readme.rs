//! The session of the README: its commands are run, and what they print is compared.
//!
//! The cluster runs on free ports in a directory of its own; ports and process numbers are
//! translated both ways. Numbers that differ from run to run (process numbers, ids, times)
//! match each other; everything else must be the same, line by line.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use dogsled::ambient::moment;

use crate::process::cluster::{PATIENCE, dogsled, free_ports, run_to_end, told};

/// The first ports in the README: RESP, HTTP, QUIC.
const PORTS: [u16; 3] = [7379, 8379, 9379];

/// A command and the lines that it prints.
struct Step {
    command: String,
    expected: Vec<String>,
}

fn session() -> Vec<Step> {
    let readme = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).expect("the README");
    let begin = readme.find("<!-- session: begin").expect("the session begins");
    let end = readme.find("<!-- session: end").expect("the session ends");
    let mut steps: Vec<Step> = Vec::new();
    let mut in_block = false;
    for line in readme[begin..end].lines() {
        if line.starts_with("```") {
            in_block = line == "```console";
        } else if !in_block {
        } else if let Some(command) = line.strip_prefix("$ ") {
            steps.push(Step { command: command.to_owned(), expected: Vec::new() });
        } else {
            steps.last_mut().expect("a command stands before its output").expected.push(line.to_owned());
        }
    }
    steps
}

/// The words of a text, line by line, without lines that are empty. Punctuation stands alone,
/// so that the numbers between it do too.
fn words(text: &str) -> Vec<Vec<String>> {
    let spaced = |line: &str| {
        let mut spaced = String::new();
        for char in line.chars() {
            if ":,()/".contains(char) {
                spaced.extend([' ', char, ' ']);
            } else {
                spaced.push(char);
            }
        }
        spaced.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    text.lines().map(spaced).filter(|line| !line.is_empty()).collect()
}

fn is_number(word: &str) -> bool {
    word.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') || (word.len() == 32 && is_hexadecimal(word))
}

fn is_hexadecimal(word: &str) -> bool {
    word.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Numbers of the README by what they are in this run.
struct Translation {
    ports: Vec<(u16, u16)>,
    numbers: BTreeMap<String, String>,
}

impl Translation {
    fn new(first: (u16, u16, u16)) -> Translation {
        let ports = PORTS.into_iter().zip([first.0, first.1, first.2]);
        let ports = ports.flat_map(|(written, real)| (0..3).map(move |index| (written + index, real + index)));
        Translation { ports: ports.collect(), numbers: BTreeMap::new() }
    }

    fn is_port(&self, word: &str) -> bool {
        word.parse().is_ok_and(|port: u16| self.ports.iter().any(|(written, _)| *written == port))
    }

    /// A command as it is run here.
    fn to_real(&self, command: &str) -> String {
        let mut real = command.to_owned();
        for (written, port) in &self.ports {
            real = real.replace(&format!(":{written}"), &format!(":{port}"));
            real = real.replace(&format!("-p {written}"), &format!("-p {port}"));
        }
        let words = real.split(' ').map(|word| self.numbers.get(word).map_or(word, String::as_str));
        let mut real = words.collect::<Vec<_>>().join(" ");
        if real.starts_with("dogsled up") {
            let first = |index: usize| self.ports[index * 3].1;
            real += &format!(" --resp-port {} --http-port {} --peer-port {}", first(0), first(1), first(2));
        }
        real
    }

    /// What was printed here, with the ports of the README.
    fn to_written(&self, output: &str) -> String {
        let mut written = output.to_owned();
        for (port, real) in &self.ports {
            written = written.replace(&format!(":{real}"), &format!(":{port}"));
            written = written.replace(&format!("-p {real}"), &format!("-p {port}"));
        }
        // Where the usual port is used, the program leaves out which node to ask.
        written.replace(" --server http://127.0.0.1:8379", "")
    }

    /// Whether the two say the same; learns the numbers that stand for each other.
    fn same(&mut self, expected: &str, found: &str) -> bool {
        let (expected, found) = (words(expected), words(found));
        let mut learned = Vec::new();
        let same = expected.len() == found.len()
            && expected.iter().zip(&found).all(|(expected, found)| {
                expected.len() == found.len()
                    && expected.iter().zip(found).all(|(expected, found)| {
                        let differ = is_number(expected) && is_number(found) && !self.is_port(expected);
                        if differ {
                            learned.push((expected.clone(), found.clone()));
                        }
                        differ || expected == found
                    })
            });
        if same {
            // Small numbers count things; only large ones name something.
            self.numbers.extend(learned.into_iter().filter(|(expected, _)| expected.len() > 3));
        }
        same
    }
}

fn is_installed(program: &str) -> bool {
    let found = Command::new("sh").args(["-c", &format!("command -v {program}")]).stdout(Stdio::null()).status();
    found.is_ok_and(|status| status.success())
}

/// Stops what the session leaves running if it fails.
struct Down<'a>(&'a Path);

impl Drop for Down<'_> {
    fn drop(&mut self) {
        if self.0.join("data/local").is_dir() {
            let mut down = dogsled();
            down.args(["down"]).current_dir(self.0);
            run_to_end(down);
        }
    }
}

#[test]
fn the_session_of_the_readme_runs_as_it_is_written() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let _down = Down(folder.path());
    let first = free_ports(3);
    let mut translation = Translation::new(first);
    let programs = Path::new(env!("CARGO_BIN_EXE_dogsled")).parent().expect("a folder");
    let path = format!("{}:{}", programs.display(), std::env::var("PATH").unwrap_or_default());
    let steps = session();
    assert!(steps.len() > 10, "the session is not where it is looked for");
    for step in steps {
        let program = step.command.split(' ').next().expect("a command has a first word");
        if !is_installed(program) && program != "dogsled" {
            eprintln!("skipped, because {program} is not installed: {}", step.command);
            // What the next commands read is written all the same.
            if let Some(set) = step.command.split_once(" SET ") {
                let mut put = dogsled();
                put.args(["put"]).args(set.1.split(' ')).env("DOGSLED_SERVER", format!("http://127.0.0.1:{}", first.1));
                assert!(run_to_end(put).status.success());
            }
            continue;
        }
        let expected = step.expected.join("\n");
        let end = moment().plus(PATIENCE);
        loop {
            // Only the environment of the tests, as the program's own command has it.
            let mut command = Command::new("sh");
            for (name, value) in dogsled().get_envs() {
                assert!(value.is_none());
                command.env_remove(name);
            }
            command.args(["-c", &format!("exec 2>&1; {}", translation.to_real(&step.command))]).stdin(Stdio::null());
            command.env("PATH", &path).env("DOGSLED_SERVER", format!("http://127.0.0.1:{}", first.1));
            command.current_dir(folder.path());
            let output = run_to_end(command);
            let found = translation.to_written(&told(&output));
            if translation.same(&expected, &found) {
                break;
            }
            // A cluster notices after a moment that a node is gone, and asking again does no harm.
            let may_change = ["dogsled status", "dogsled get", "dogsled put", "dogsled key", "curl"];
            let again = may_change.iter().any(|beginning| step.command.starts_with(beginning)) && moment() < end;
            assert!(again, "$ {}\nthe README says:\n{expected}\nfound:\n{found}", step.command);
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

#[test]
fn the_comparison_has_teeth() {
    let mut translation = Translation::new((20_000, 20_003, 20_006));
    assert!(translation.same("n1  4204  127.0.0.1:7379\n\nup 4 s", "n1 17 127.0.0.1:7379\nup 12 s"));
    assert_eq!(translation.to_real("kill -9 4204"), "kill -9 17");
    assert_eq!(translation.to_real("redis-cli -p 7381 get 7381"), "redis-cli -p 20002 get 7381");
    assert_eq!(translation.to_written("http://127.0.0.1:20004/x"), "http://127.0.0.1:8380/x");
    for (expected, found) in
        [("world", "word"), ("a\nb", "a"), ("127.0.0.1:7379", "127.0.0.1:7380"), ("1 key", "one key")]
    {
        assert!(!translation.same(expected, found), "{expected} / {found}");
    }
}
