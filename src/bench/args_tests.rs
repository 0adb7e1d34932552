use clap::{CommandFactory, Parser};

use super::*;

#[derive(Parser, Debug)]
struct Line {
    #[command(flatten)]
    bench: BenchArgs,
}

fn parse(line: &str) -> Result<BenchArgs, String> {
    let words = std::iter::once("bench").chain(line.split_whitespace());
    Line::try_parse_from(words).map(|line| line.bench).map_err(|error| error.to_string())
}

#[test]
fn the_command_line_is_well_formed() {
    Line::command().debug_assert();
    let args = parse("").unwrap();
    assert_eq!(args.targets, [Target::new("127.0.0.1", 7379)]);
    assert_eq!((args.connections, args.time, args.warmup), (64, Duration::from_secs(10), Duration::from_secs(2)));
    assert_eq!(args.effective_mix().to_string(), "put=50,get=50");
    assert_eq!(args.effective_distribution(), Distribution::Uniform);
    assert_eq!(args.problems(), Vec::<String>::new());
    let args = parse("--target redis://h:1 --target redis://i:2 --workload d --server-pids 1,2,3 -n 5").unwrap();
    assert_eq!(args.targets.len(), 2);
    assert_eq!(args.server_pids, [1, 2, 3]);
    assert_eq!(args.effective_distribution(), Distribution::Latest);
    assert_eq!(args.effective_mix().to_string(), "get=95,insert=5");
}

#[test]
fn what_cannot_be_meant_is_refused_with_the_reason() {
    let cases = [
        ("--target 127.0.0.1:7379", "has no 'redis://'"),
        ("--time 10", "has no unit"),
        ("--time 10y", "'y' is no unit"),
        ("--time s", "is no duration"),
        ("--time 1000h", "longer than a week"),
        ("--time 99999999999999999h", "longer than a week"),
        ("--mix fetch=1", "'fetch' is no kind"),
        ("--mix put=x", "'x' is no weight"),
        ("--mix put=2000000", "above 1000000"),
        ("--mix put=1,put=2", "twice"),
        ("--mix put=0", "every weight is zero"),
        ("--mix put=1 --workload a", "cannot be used with"),
        ("--time 1s --requests 5", "cannot be used with"),
        ("--workload e", "invalid value"),
        ("--keys 0", "invalid value"),
        ("--value-size 0", "0 is not in"),
        ("--connections 0", "0 is not in"),
    ];
    for (line, expected) in cases {
        let message = parse(line).unwrap_err();
        assert!(message.contains(expected), "{line}: {message}");
    }
}

#[test]
fn all_problems_are_listed_at_once() {
    let line = "--threads 5 --connections 2 --pipeline 1000 --value-size 1000000 --time 0s --wait 1 --wait-timeout 10s";
    let problems = parse(line).unwrap().problems();
    assert_eq!(problems.len(), 4, "{problems:?}");
    assert_eq!(parse("--wait 1 --wait-timeout 0s").unwrap().problems().len(), 1);
}
