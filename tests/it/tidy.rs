//! The style that a machine can check. Each rule is a function from a file's path and
//! content to problems, and is itself tested on small bad inputs.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Which layers each layer may name, beside itself.
const ARROWS: [(&str, &[&str]); 13] = [
    ("types", &[]),
    ("wire", &["types"]),
    ("ambient", &["types"]),
    ("protocol", &["types", "wire"]),
    ("storage", &["types", "ambient"]),
    ("transport", &["types", "wire", "ambient"]),
    ("node", &["types", "wire", "ambient", "protocol", "storage", "transport"]),
    ("server", &["types", "ambient", "node"]),
    ("client", &["types", "ambient"]),
    ("config", &["types", "ambient"]),
    ("sim", &["types", "wire", "protocol", "storage"]),
    ("bench", &["types", "ambient", "client"]),
    ("cli", &["types", "ambient", "protocol", "transport", "node", "server", "client", "config", "sim", "bench"]),
];

/// Layers that one seed must be able to replay.
const PURE: [&str; 4] = ["types", "wire", "protocol", "sim"];

/// What they must not name, and why.
const IMPURE: [(&str, &str); 14] = [
    ("tokio", "a machine has no runtime"),
    ("Instant", "time comes in"),
    ("SystemTime", "time comes in"),
    ("OsRng", "chance comes in"),
    ("rand::rng", "chance comes in"),
    ("rand::random", "chance comes in"),
    ("thread_rng", "chance comes in"),
    ("HashMap", "its order differs from run to run"),
    ("HashSet", "its order differs from run to run"),
    ("async", "a machine does not wait"),
    ("await", "a machine does not wait"),
    ("crate::ambient", "it is the door to the real clock"),
    ("std::thread", "a machine has no thread"),
    ("std::env", "what a machine is told comes in"),
];

const MAX_LINES: usize = 600;

/// A file of the project: its path from the top, and its content.
struct Source {
    path: String,
    text: String,
}

impl Source {
    fn layer(&self) -> Option<&str> {
        let inside = self.path.strip_prefix("src/")?;
        Some(inside.split(['/', '.']).next().expect("a split has a first part"))
    }

    fn is_test(&self) -> bool {
        self.path.starts_with("tests/") || self.path.starts_with("benches/") || self.path.ends_with("_tests.rs")
    }
}

/// The code of a file: comments and the contents of literals are blanks, lines stay lines.
fn code_of(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut code = String::with_capacity(text.len());
    let mut at = 0;
    let blank = |code: &mut String, char: char| code.push(if char == '\n' { '\n' } else { ' ' });
    while at < chars.len() {
        let rest = &chars[at..];
        let length = match rest {
            ['/', '/', ..] => rest.iter().position(|char| *char == '\n').unwrap_or(rest.len()),
            ['/', '*', ..] => block_comment(rest),
            ['"', ..] => string(rest),
            ['r', '"' | '#', ..] if !is_word(at.checked_sub(1).map(|before| chars[before])) => raw_string(rest),
            ['\'', '\\', ..] => rest.iter().skip(3).position(|char| *char == '\'').map_or(rest.len(), |end| end + 4),
            ['\'', _, '\'', ..] => 3,
            _ => 0,
        };
        if length == 0 {
            code.push(chars[at]);
            at += 1;
        } else {
            rest[..length].iter().for_each(|char| blank(&mut code, *char));
            at += length;
        }
    }
    code
}

fn block_comment(rest: &[char]) -> usize {
    let mut depth = 0usize;
    let mut at = 0;
    while at < rest.len() {
        match &rest[at..] {
            ['/', '*', ..] => (depth, at) = (depth + 1, at + 2),
            ['*', '/', ..] => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            return at;
        }
    }
    rest.len()
}

fn string(rest: &[char]) -> usize {
    let mut at = 1;
    while at < rest.len() && rest[at] != '"' {
        at += if rest[at] == '\\' { 2 } else { 1 };
    }
    (at + 1).min(rest.len())
}

fn raw_string(rest: &[char]) -> usize {
    let hashes = rest[1..].iter().take_while(|char| **char == '#').count();
    if rest.get(1 + hashes) != Some(&'"') {
        return 0;
    }
    let end: Vec<char> = std::iter::once('"').chain(std::iter::repeat_n('#', hashes)).collect();
    let begin = hashes + 2;
    let inner = rest[begin..].windows(end.len()).position(|window| window == end.as_slice());
    inner.map_or(rest.len(), |inner| begin + inner + end.len())
}

fn is_word(char: Option<char>) -> bool {
    char.is_some_and(|char| char.is_alphanumeric() || char == '_')
}

/// Where a word or path stands in code, not as a part of a longer word; as line numbers.
fn lines_with(code: &str, word: &str) -> Vec<usize> {
    code.match_indices(word)
        .filter(|(at, _)| !is_word(code[..*at].chars().next_back()) && !is_word(code[at + word.len()..].chars().next()))
        .map(|(at, _)| line_of(code, at))
        .collect()
}

fn line_of(code: &str, at: usize) -> usize {
    code[..at].matches('\n').count() + 1
}

/// The code without its inline module of tests.
fn without_tests(code: &str) -> &str {
    let inline = code.match_indices("#[cfg(test)]").find(|(at, _)| {
        let after = code[*at + "#[cfg(test)]".len()..].trim_start();
        after.starts_with("mod ") && after.find('{').is_some_and(|brace| !after[..brace].contains(';'))
    });
    inline.map_or(code, |(at, _)| &code[..at])
}

/// The parts of the crate that code names, with their lines: after `crate::` and its braces,
/// and after as many `super::` as lead out of the layer.
fn named_layers(code: &str, path: &str) -> Vec<(String, usize)> {
    let mut named = Vec::new();
    for (at, _) in code.match_indices("crate::") {
        if !is_word(code[..at].chars().next_back()) {
            let parts = first_segments(&code[at + "crate::".len()..]);
            named.extend(parts.into_iter().map(|part| (part, line_of(code, at))));
        }
    }
    let depth = path.trim_end_matches("/mod.rs").matches('/').count();
    let climb = "super::".repeat(depth);
    for (at, _) in code.match_indices(&climb).filter(|_| depth > 0) {
        let parts = first_segments(code[at..].trim_start_matches("super::"));
        let known = parts.into_iter().filter(|part| ARROWS.iter().any(|(layer, _)| layer == part));
        named.extend(known.map(|part| (part, line_of(code, at))));
    }
    named
}

/// The first name of a path, or of each path in a group.
fn first_segments(path: &str) -> Vec<String> {
    let word = |text: &str| text.chars().take_while(|char| is_word(Some(*char)) || *char == '*').collect::<String>();
    let Some(group) = path.strip_prefix('{') else { return vec![word(path)] };
    let mut segments = Vec::new();
    let (mut depth, mut begin) = (0, 0);
    for (at, char) in group.char_indices() {
        match char {
            '{' => depth += 1,
            ',' | '}' if depth == 0 => {
                segments.push(word(group[begin..at].trim()));
                begin = at + 1;
                if char == '}' {
                    break;
                }
            }
            '}' => depth -= 1,
            _ => {}
        }
    }
    segments.retain(|segment| !segment.is_empty());
    segments
}

fn arrows(source: &Source) -> Vec<String> {
    let Some(layer) = source.layer().filter(|layer| *layer != "lib" && *layer != "main") else { return Vec::new() };
    let Some((_, allowed)) = ARROWS.iter().find(|(name, _)| *name == layer) else {
        return vec![format!("{}: the layer {layer} is not in the list of tests/it/tidy.rs", source.path)];
    };
    let code = code_of(&source.text);
    let mut problems: Vec<_> = named_layers(&code, &source.path)
        .into_iter()
        .filter(|(named, _)| named != layer && !allowed.contains(&named.as_str()))
        .map(|(named, line)| format!("{}:{line}: {layer} must not name {named}", source.path))
        .collect();
    // Of the stores the simulator knows only the model, and the trait that it has.
    if layer == "sim" {
        for part in ["storage::sled", "storage::Committer", "storage::Readers"] {
            let lines = lines_with(&code, part).into_iter();
            problems.extend(lines.map(|line| format!("{}:{line}: sim must not name {part}", source.path)));
        }
    }
    problems
}

fn purity(source: &Source) -> Vec<String> {
    if !source.layer().is_some_and(|layer| PURE.contains(&layer)) {
        return Vec::new();
    }
    let code = code_of(&source.text);
    let mut problems = Vec::new();
    for (word, why) in IMPURE {
        let lines = lines_with(&code, word).into_iter();
        problems.extend(lines.map(|line| format!("{}:{line}: `{word}`: {why}", source.path)));
    }
    problems
}

fn length(source: &Source) -> Vec<String> {
    let lines = source.text.lines().count();
    if lines > MAX_LINES { vec![format!("{}: {lines} lines; at most {MAX_LINES}", source.path)] } else { Vec::new() }
}

fn unfinished(source: &Source) -> Vec<String> {
    let code = code_of(&source.text);
    let mut problems = Vec::new();
    for word in ["todo!", "unimplemented!", "dbg!"] {
        let found = code.match_indices(word).filter(|(at, _)| !is_word(code[..*at].chars().next_back()));
        problems.extend(found.map(|(at, _)| format!("{}:{}: {word}", source.path, line_of(&code, at))));
    }
    problems
}

fn careless(source: &Source) -> Vec<String> {
    if source.is_test() {
        return Vec::new();
    }
    let code = code_of(&source.text);
    let code = without_tests(&code);
    let mut problems = Vec::new();
    for (word, why) in [
        (".unwrap()", "say in `expect` why it cannot fail, or return an error"),
        ("process::exit", "how the program ends is decided in cli::exit, after what is under way was finished"),
        ("println!", "it panics when its output is closed; the command line has cli::output"),
        ("unbounded_channel", "every queue has a bound"),
        ("unbounded()", "every queue has a bound"),
    ] {
        let found = code.match_indices(word);
        problems.extend(found.map(|(at, _)| format!("{}:{}: `{word}`: {why}", source.path, line_of(code, at))));
    }
    if !source.path.starts_with("src/cli/") && source.path != "src/main.rs" {
        let lines = lines_with(code, "anyhow").into_iter();
        problems.extend(lines.map(|line| format!("{}:{line}: anyhow is for cli and main only", source.path)));
    }
    problems
}

fn headed(source: &Source) -> Vec<String> {
    if source.is_test() || source.text.starts_with("//!") {
        return Vec::new();
    }
    vec![format!("{}: it does not begin with what it is for (//!)", source.path)]
}

/// The top of the project.
fn top() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every Rust file of the project.
fn sources() -> Vec<Source> {
    let mut open: Vec<PathBuf> = ["src", "tests", "benches"].map(|folder| top().join(folder)).into();
    let mut sources = Vec::new();
    while let Some(folder) = open.pop() {
        let Ok(entries) = fs::read_dir(&folder) else { continue };
        for path in entries.map(|entry| entry.expect("the folder can be read").path()) {
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).expect("it is text");
                let path = path.strip_prefix(top()).expect("it is below").display().to_string();
                sources.push(Source { path, text });
            }
        }
    }
    assert!(sources.len() > 50, "the files are not where they are looked for");
    sources.sort_by(|a, b| a.path.cmp(&b.path));
    sources
}

fn check(rule: fn(&Source) -> Vec<String>) {
    let problems: Vec<_> = sources().iter().flat_map(rule).collect();
    assert!(problems.is_empty(), "{} problems:\n{}", problems.len(), problems.join("\n"));
}

#[test]
fn a_layer_names_only_layers_to_its_left() {
    check(arrows);
}

#[test]
fn what_a_seed_replays_has_no_clock_chance_or_runtime() {
    check(purity);
}

#[test]
fn no_file_is_longer_than_600_lines() {
    check(length);
}

#[test]
fn nothing_is_left_unfinished() {
    check(unfinished);
}

#[test]
fn nothing_is_careless() {
    check(careless);
}

#[test]
fn every_file_says_what_it_is_for() {
    check(headed);
}

#[test]
fn the_arrows_have_no_circle() {
    let arrows: BTreeMap<_, _> = ARROWS.into_iter().collect();
    let mut reached: Vec<&str> = Vec::new();
    while reached.len() < arrows.len() {
        let next = arrows
            .iter()
            .find(|(layer, named)| !reached.contains(layer) && named.iter().all(|layer| reached.contains(layer)));
        reached.push(next.expect("the layers that are left name each other").0);
    }
}

/// Each rule, on what it must find and on what it must let pass.
#[test]
fn the_rules_have_teeth() {
    let found = |rule: fn(&Source) -> Vec<String>, path: &str, text: &str| {
        rule(&Source { path: path.into(), text: text.into() }).len()
    };
    for (path, text, expected) in [
        ("src/types/a.rs", "use crate::ambient::now;", 1),
        ("src/types/a.rs", "use crate::types::Key; // crate::node", 0),
        ("src/server/a.rs", "use crate::{types::{Key, Epoch}, node::NodeHandle};", 0),
        ("src/server/a.rs", "use crate::{types::{Key, Epoch}, storage::Storage};", 1),
        ("src/protocol/a.rs", "fn f() -> crate::transport::Peer { crate::storage::x() }", 2),
        ("src/protocol/ring/a.rs", "use super::super::super::node::X;", 1),
        ("src/protocol/mod.rs", "use super::node::X;", 1),
        ("src/protocol/ring/a.rs", "use super::super::node::X;", 0),
        ("src/protocol/mod.rs", "use self::node::X; mod node;", 0),
        ("src/types/a.rs", "use crate::*;", 1),
        ("src/sim/a.rs", "use crate::storage::{memory::M, Storage}; use crate::storage::sled::S;", 1),
        ("src/elsewhere/a.rs", "", 1),
        ("src/cli/a.rs", "pub(in crate::cli) fn f() {} pub(crate) fn g() {}", 0),
        ("src/lib.rs", "pub use crate::node::X;", 0),
    ] {
        assert_eq!(found(arrows, path, text), expected, "{path}: {text}");
    }
    for (path, text, expected) in [
        ("src/protocol/a.rs", "use std::collections::HashMap;", 1),
        ("src/protocol/a.rs", "/// Not a HashMap.\nlet s = \"HashMap\"; let r = r#\"HashMap\"#; MyHashMap;", 0),
        ("src/node/a.rs", "use std::collections::HashMap;", 0),
        ("src/sim/a.rs", "async fn f() { x.await }", 2),
        ("src/types/a.rs", "let t = std::time::Instant::now();", 1),
        ("src/wire/a.rs", "/* Instant /* nested */ Instant */ let c = '\"'; let i = Instant; // \"", 1),
        ("src/wire/a.rs", "let quote = '\\''; let t: &'static str = \"tokio\"; tokio::spawn(x);", 1),
        ("src/sim/a.rs", "rand::rng(); rand::random::<u8>(); rand::rngs::SmallRng::seed_from_u64(1);", 2),
    ] {
        assert_eq!(found(purity, path, text), expected, "{path}: {text}");
    }
    assert_eq!(found(length, "src/a.rs", &"x\n".repeat(600)), 0);
    assert_eq!(found(length, "src/a.rs", &"x\n".repeat(601)), 1);
    assert_eq!(found(unfinished, "src/a.rs", "todo!(); /* todo!() */ unimplemented!(\"\"); dbg!(x); my_todo!()"), 3);
    assert_eq!(found(careless, "src/a.rs", "x.unwrap(); y.unwrap_or(1); // .unwrap()"), 1);
    assert_eq!(found(careless, "src/a.rs", "x.lock();\n#[cfg(test)]\nmod tests { y.unwrap(); }"), 0);
    assert_eq!(found(careless, "src/a.rs", "#[cfg(test)]\n#[path = \"t.rs\"]\nmod tests;\nfn f() { y.unwrap(); }"), 1);
    assert_eq!(found(careless, "src/a.rs", "fn f() { println!(); eprintln!(\"\"); writeln!(out); }"), 2);
    assert_eq!(found(careless, "src/a_tests.rs", "x.unwrap(); println!()"), 0);
    assert_eq!(
        found(careless, "src/node/a.rs", "fn f() -> anyhow::Result<()> { tokio::sync::mpsc::unbounded_channel() }"),
        2
    );
    assert_eq!(found(careless, "src/cli/a.rs", "fn f() -> anyhow::Result<()> {}"), 0);
    assert_eq!(found(headed, "src/a.rs", "use x;"), 1);
    assert_eq!(found(headed, "src/a.rs", "//! What it is for."), 0);
}
