use std::collections::{BTreeMap, BTreeSet};

use clap::Parser;

use super::*;
use crate::client::resp::{Reply, ReplyLimits, ReplyParser};

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    bench: BenchArgs,
}

fn operations(line: &str, writer: u32, run: u32) -> Operations {
    let args = Line::parse_from(std::iter::once("bench").chain(line.split_whitespace())).bench;
    let chooser = KeyChooser::new(args.effective_distribution(), args.keys.get());
    Operations::new(&args, &args.effective_mix(), chooser, 42, run, writer)
}

/// Commands are arrays of bulk strings, which the reply parser can read too.
fn commands(out: &BytesMut) -> Vec<Vec<String>> {
    let mut parser = ReplyParser::new(ReplyLimits::default());
    parser.feed(out);
    let mut commands = Vec::new();
    while let Some(Reply::Array(items)) = parser.next_reply().unwrap() {
        commands.push(items.iter().map(|item| String::from_utf8(item.as_bytes().unwrap().to_vec()).unwrap()).collect());
    }
    assert_eq!(parser.buffered(), 0);
    commands
}

#[test]
fn commands_carry_the_key_and_a_value_of_the_right_size() {
    for size in [1, 5, 12, 24, 25, 100, 1_000] {
        let mut operations =
            operations(&format!("--value-size {size} --key-prefix k/ --wait 2 --wait-timeout 50ms"), 3, 9);
        let mut out = BytesMut::new();
        assert_eq!(operations.write(Kind::Put, 123_456, &mut out), 2);
        assert_eq!(operations.write(Kind::Get, 7, &mut out), 1);
        assert_eq!(operations.write(Kind::Delete, 999_999_999_999, &mut out), 2);
        assert_eq!(operations.write(Kind::ReadModifyWrite, 0, &mut out), 1);
        let commands = commands(&out);
        assert_eq!(commands[0][..2], ["SET", "k/000000123456"]);
        assert_eq!(commands[0][2].len(), size);
        assert_eq!(commands[1], ["WAIT", "2", "50"]);
        assert_eq!(commands[2], ["GET", "k/000000000007"]);
        assert_eq!(commands[3], ["DEL", "k/999999999999"]);
        assert_eq!(commands[4], ["WAIT", "2", "50"]);
        assert_eq!(commands[5], ["GET", "k/000000000000"]);
    }
}

#[test]
fn every_value_differs() {
    let mut values = BTreeSet::new();
    for (writer, run) in [(0, 1), (1, 1), (0, 2)] {
        let mut operations = operations("--value-size 24", writer, run);
        for _ in 0..2_000 {
            let mut out = BytesMut::new();
            operations.write_value(5, &mut out);
            assert!(values.insert(commands(&out)[0][2].clone()));
        }
    }
    let mut operations = operations("--value-size 1", 0, 1);
    let mut last = String::new();
    for _ in 0..100 {
        let mut out = BytesMut::new();
        operations.write_value(5, &mut out);
        let value = commands(&out)[0][2].clone();
        assert_ne!(value, last);
        last = value;
    }
}

#[test]
fn the_mix_is_kept_and_a_seed_repeats_it() {
    let mut first = operations("--mix put=20,get=70,del=10", 1, 1);
    let mut again = operations("--mix put=20,get=70,del=10", 1, 2);
    let mut other = operations("--mix put=20,get=70,del=10", 2, 1);
    let mut seen: BTreeMap<Kind, u32> = BTreeMap::new();
    let mut same = 0;
    for _ in 0..10_000 {
        let (kind, key) = first.choose();
        assert_eq!((kind, key), again.choose());
        same += u32::from((kind, key) == other.choose());
        *seen.entry(kind).or_default() += 1;
    }
    assert!(same < 100);
    assert!(seen[&Kind::Put].abs_diff(2_000) < 250 && seen[&Kind::Get].abs_diff(7_000) < 250, "{seen:?}");
    assert_eq!(seen.len(), 3);
}
