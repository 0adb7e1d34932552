use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use tracing::Dispatch;
use tracing::dispatcher::with_default;

use super::files::DailyFile;
use super::*;
use crate::types::{Moment, Now, WallTime};

const DAY: u64 = 24 * 3600 * 1000;
/// 2026-01-31T23:59:59.999Z.
const LATE: u64 = 1_769_903_999_999;

fn late() -> Now {
    Now { moment: Moment(0), wall: WallTime(LATE) }
}

fn settings(directory: &Path, level: Level) -> LogSettings {
    LogSettings { directory: directory.to_owned(), level, server_id: "7".into(), per_process: false, keep_days: 3 }
}

/// The content of every file by its name.
fn files(directory: &Path) -> BTreeMap<String, String> {
    fs::read_dir(directory)
        .expect("the directory is there")
        .map(|entry| {
            let entry = entry.expect("an entry");
            (entry.file_name().into_string().expect("a plain name"), fs::read_to_string(entry.path()).expect("text"))
        })
        .collect()
}

fn on_thread(name: Option<&str>, dispatch: &Dispatch, body: impl FnOnce() + Send + 'static) {
    let dispatch = dispatch.clone();
    let builder = std::thread::Builder::new();
    let builder = match name {
        Some(name) => builder.name(name.into()),
        None => builder,
    };
    builder.spawn(move || with_default(&dispatch, body)).expect("a thread").join().expect("it ends well");
}

/// A thread's name, and what it logs.
type Thread = (Option<&'static str>, fn());

fn log_of(settings: &LogSettings, threads: &[Thread]) -> BTreeMap<String, String> {
    let (subscriber, guard) = subscriber(settings, late).expect("the log begins");
    let dispatch = Dispatch::new(subscriber);
    for (name, body) in threads {
        on_thread(*name, &dispatch, *body);
    }
    drop(guard);
    files(&settings.directory)
}

#[test]
fn each_thread_has_its_file_and_its_lines() {
    let home = tempfile::tempdir().expect("a directory");
    let settings = settings(home.path(), Level::Info);
    let found = log_of(
        &settings,
        &[
            (Some("committer"), || tracing::warn!(disk = "sda", "slow")),
            (Some("net/1"), || tracing::info!(target: "dogsled::transport", "up")),
            (None, || tracing::info!(target: "dogsled", "nameless")),
            (Some("two words"), || tracing::info!(target: "dogsled", "named")),
            (Some("replica9-committer"), || tracing::info!(target: "dogsled", "emulated")),
        ],
    );
    let line = |text: &str| format!("2026-01-31T23:59:59.999Z {text}\n");
    assert_eq!(
        found["replica7-committer.log"],
        line("WARN  committer dogsled::config::logging::tests: slow disk=\"sda\"")
    );
    assert_eq!(found["replica7-net_1.log"], line("INFO  net/1 dogsled::transport: up"));
    assert_eq!(found["replica7-two_words.log"], line("INFO  two_words dogsled: named"));
    assert_eq!(found["replica7-other.log"], line("INFO  - dogsled: nameless"));
    assert_eq!(found["replica9-committer.log"], line("INFO  replica9-committer dogsled: emulated"));
}

#[test]
fn a_process_logger_has_one_file() {
    let home = tempfile::tempdir().expect("a directory");
    let settings = LogSettings { per_process: true, ..settings(home.path(), Level::Info) };
    let found = log_of(&settings, &[(Some("a"), || tracing::warn!("one")), (Some("b"), || tracing::warn!("two"))]);
    assert_eq!(found.keys().collect::<Vec<_>>(), ["replica7.log"]);
    assert_eq!(found["replica7.log"].lines().count(), 2);
}

fn one_of_each() {
    tracing::error!(target: FATAL, "fatal");
    tracing::error!(target: "dogsled::x", "error");
    tracing::warn!(target: "dogsled::x", "warn");
    tracing::info!(target: "dogsled::x", "info");
    tracing::debug!(target: "dogsled::x", "debug");
    tracing::trace!(target: "dogsled::x", "trace");
    tracing::error!(target: "library", "lib-error");
    tracing::warn!(target: "library", "lib-warn");
    tracing::info!(target: "library", "lib-info");
    tracing::debug!(target: "library", "lib-debug");
    tracing::trace!(target: "library", "lib-trace");
}

#[test]
fn each_level_keeps_what_it_says() {
    let cases = [
        ("off", ""),
        ("FATAL", "fatal"),
        ("Error", "fatal error lib-error"),
        ("warn", "fatal error warn lib-error lib-warn"),
        ("INFO", "fatal error warn info lib-error lib-warn"),
        ("debug", "fatal error warn info debug lib-error lib-warn lib-info"),
        ("trace", "fatal error warn info debug trace lib-error lib-warn lib-info"),
        ("all", "fatal error warn info debug trace lib-error lib-warn lib-info lib-debug lib-trace"),
    ];
    for (level, expected) in cases {
        let home = tempfile::tempdir().expect("a directory");
        let settings = settings(home.path(), level.parse().expect("a level"));
        let found = log_of(&settings, &[(Some("t"), one_of_each)]);
        let text = found.get("replica7-t.log").cloned().unwrap_or_default();
        let kept: Vec<_> = text.lines().filter_map(|line| line.rsplit(' ').next()).collect();
        assert_eq!(kept.join(" "), expected, "{level}");
    }
    let unknown = "LOUD".parse::<Level>().expect_err("no level").to_string();
    assert_eq!(unknown, "'LOUD' is no level: use OFF, FATAL, ERROR, WARN, INFO, DEBUG, TRACE or ALL");
}

#[test]
fn a_fatal_line_is_in_its_file_before_the_call_returns() {
    let home = tempfile::tempdir().expect("a directory");
    let (subscriber, guard) = subscriber(&settings(home.path(), Level::Info), late).expect("the log begins");
    let dispatch = Dispatch::new(subscriber);
    let path = home.path().join("replica7-t.log");
    on_thread(Some("t"), &dispatch, move || {
        tracing::info!(target: "dogsled", "before");
        tracing::error!(target: FATAL, "the disk is gone");
        let text = fs::read_to_string(path).expect("the file is there");
        assert!(text.ends_with("FATAL t dogsled::config::logging::tests: the disk is gone\n"), "{text}");
    });
    drop(guard);
}

#[test]
fn no_line_that_was_logged_before_the_end_is_missing() {
    let home = tempfile::tempdir().expect("a directory");
    let found = log_of(
        &settings(home.path(), Level::Info),
        &[(Some("t"), || {
            for number in 0..3000 {
                tracing::info!(target: "dogsled", number);
            }
        })],
    );
    let text = &found["replica7-t.log"];
    let dropped: usize = text
        .lines()
        .filter_map(|line| line.split(": ").nth(1)?.strip_suffix(" lines dropped")?.parse::<usize>().ok())
        .sum();
    assert_eq!(text.lines().filter(|line| line.contains("number=")).count() + dropped, 3000);
}

#[test]
fn what_a_client_sent_does_not_look_like_a_line() {
    let home = tempfile::tempdir().expect("a directory");
    let found = log_of(
        &settings(home.path(), Level::Info),
        &[(Some("t"), || {
            tracing::info!(target: "dogsled", "key {}", "a\n2026 FATAL\u{1b}[2J");
            tracing::info!(target: "dogsled", "{}", "ä".repeat(100_000));
        })],
    );
    let lines: Vec<_> = found["replica7-t.log"].lines().collect();
    assert_eq!(lines.len(), 2);
    assert!(lines[0].ends_with(r"key a\n2026 FATAL\x1b[2J"), "{}", lines[0]);
    assert!(lines[1].ends_with("ää … (cut)") && lines[1].len() < 9000);
}

#[test]
fn a_day_ends_a_file_and_old_files_go() {
    static NOW: AtomicU64 = AtomicU64::new(LATE);
    let home = tempfile::tempdir().expect("a directory");
    let wall = || WallTime(NOW.load(Ordering::Relaxed));
    for old in ["r.2026-01-29.log", "r.2026-01-28.log", "r.2026-01-30.log", "r.x.log", "r1.2020-01-01.log"] {
        fs::write(home.path().join(old), old).expect("an old file");
    }
    let mut file = DailyFile::open(home.path(), "r", 3, wall()).expect("it opens");
    file.write(b"saturday\n", wall()).expect("it writes");
    NOW.store(LATE + 1, Ordering::Relaxed);
    file.write(b"sunday\n", wall()).expect("it writes");
    NOW.store(LATE - DAY, Ordering::Relaxed);
    file.write(b"the clock went back\n", wall()).expect("it writes");
    file.flush().expect("it flushes");
    let found = files(home.path());
    let names: Vec<_> = found.keys().map(String::as_str).collect();
    assert_eq!(names, ["r.2026-01-30.log", "r.2026-01-31.log", "r.log", "r.x.log", "r1.2020-01-01.log"]);
    assert_eq!(found["r.2026-01-31.log"], "saturday\n");
    assert_eq!(found["r.log"], "sunday\nthe clock went back\n");
}

#[test]
fn the_file_of_an_earlier_day_is_put_away_at_the_start_and_never_written_over() {
    let home = tempfile::tempdir().expect("a directory");
    let now = crate::ambient::wall();
    fs::write(home.path().join("r.log"), "before\n").expect("an earlier file");
    let mut file = DailyFile::open(home.path(), "r", 30, WallTime(now.0 + DAY)).expect("it opens");
    file.write(b"after\n", WallTime(now.0 + DAY)).expect("it writes");
    file.flush().expect("it flushes");
    let found = files(home.path());
    assert_eq!(found.len(), 2);
    assert_eq!(found["r.log"], "after\n");
    assert!(found.values().any(|text| text == "before\n"));
}

#[test]
fn the_environment_decides() {
    let node = NodeId::new(3).expect("a node");
    let from = |pairs: &[(&str, &str)]| {
        let pairs: BTreeMap<String, String> =
            pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        LogSettings::from_environment(|name| pairs.get(name).cloned(), node, 14).map_err(|error| error.to_string())
    };
    let plain = from(&[("SERVER_HOME", "/srv/a")]).expect("enough");
    assert_eq!(
        plain,
        LogSettings {
            directory: "/srv/a/log".into(),
            level: Level::Info,
            server_id: "3".into(),
            per_process: false,
            keep_days: 14
        }
    );
    let all = from(&[
        ("SERVER_HOME", "/srv/a"),
        ("SERVER_LOG_LEVEL", "all"),
        ("SERVER_ID", "east-4"),
        ("PROCESS_LOGGER", ""),
    ]);
    let all = all.expect("all is well");
    assert_eq!((all.level, all.server_id.as_str(), all.per_process), (Level::All, "east-4", true));
    for (pairs, beginning) in [
        (vec![], "SERVER_HOME is not set"),
        (vec![("SERVER_HOME", "")], "SERVER_HOME is not set"),
        (vec![("SERVER_HOME", "/a"), ("SERVER_LOG_LEVEL", "LOUD")], "SERVER_LOG_LEVEL: 'LOUD' is no level"),
        (vec![("SERVER_HOME", "/a"), ("SERVER_ID", "../x")], "SERVER_ID: '../x'"),
    ] {
        let message = from(&pairs).expect_err("refused");
        assert!(message.starts_with(beginning), "{message}");
    }
}

#[test]
fn a_directory_that_cannot_be_made_is_named() {
    let home = tempfile::tempdir().expect("a directory");
    let blocked = home.path().join("file");
    fs::write(&blocked, "").expect("a file");
    let error = sink::start(&settings(&blocked.join("log"), Level::Info), late).err().expect("refused").to_string();
    assert!(error.starts_with("SERVER_HOME: ") && error.contains("file/log"), "{error}");
}
