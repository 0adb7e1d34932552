//! What is sent: commands made ready once, and filled in for each operation.

use std::fmt;

use bytes::BytesMut;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::args::{BenchArgs, Mix};
use super::keys::KeyChooser;
use crate::client::resp::encode_command;

/// Digits of a key's number.
const KEY_DIGITS: usize = 12;
/// How many keys the digits can name, less room for inserts.
pub(super) const MAX_KEYS: u64 = 100_000_000_000;
/// Characters at the start of a value that change from one to the next.
const STAMP_CHARS: usize = 24;

/// A kind of operation.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Kind {
    /// SET of an existing key.
    Put,
    /// GET.
    Get,
    /// DEL.
    Delete,
    /// SET of a new key.
    Insert,
    /// GET, and SET once it is answered; not atomic.
    ReadModifyWrite,
}

impl Kind {
    pub(super) const ALL: [Kind; 5] = [Kind::Put, Kind::Get, Kind::Delete, Kind::Insert, Kind::ReadModifyWrite];

    pub(super) fn name(self) -> &'static str {
        match self {
            Kind::Put => "put",
            Kind::Get => "get",
            Kind::Delete => "del",
            Kind::Insert => "insert",
            Kind::ReadModifyWrite => "rmw",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A command with a hole for the key, and one for the stamp of a value.
#[derive(Clone, Debug)]
struct Template {
    bytes: Vec<u8>,
    key_at: usize,
    stamp: Option<std::ops::Range<usize>>,
}

/// Makes the operations of one connection.
#[derive(Debug)]
pub(super) struct Operations {
    rng: SmallRng,
    kinds: Vec<(Kind, u32)>,
    total_weight: u32,
    chooser: KeyChooser,
    set: Template,
    get: Template,
    delete: Template,
    written: u64,
    /// Replies that a write gets: its own, and WAIT's.
    replies_per_write: u8,
}

impl Operations {
    /// For connection number `writer`. `run` differs from run to run: it keeps values apart
    /// that two runs of one seed write.
    pub(super) fn new(
        args: &BenchArgs,
        mix: &Mix,
        chooser: KeyChooser,
        seed: u64,
        run: u32,
        writer: u32,
    ) -> Operations {
        let mut rng = SmallRng::seed_from_u64(seed ^ u64::from(writer).wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let key = format!("{}{}", args.key_prefix, "0".repeat(KEY_DIGITS));
        let mut value: Vec<u8> =
            (0..args.value_size).map(|_| b"abcdefghijklmnopqrstuvwxyz012345"[rng.random_range(0..32)]).collect();
        let stamp = digits(u64::from(writer), 16, 4) + &digits(u64::from(run), 16, 8);
        for (at, digit) in (12..STAMP_CHARS).zip(stamp.bytes()) {
            if let Some(place) = value.get_mut(at) {
                *place = digit;
            }
        }
        let wait: Option<Vec<String>> = args
            .wait
            .map(|replicas| vec!["WAIT".to_owned(), replicas.to_string(), args.wait_timeout.as_millis().to_string()]);
        let total_weight = mix.weights().iter().map(|(_, weight)| *weight).sum();
        Operations {
            rng,
            kinds: mix.weights().to_vec(),
            total_weight,
            chooser,
            set: template(&[b"SET", key.as_bytes(), &value], wait.as_deref()),
            get: template(&[b"GET", key.as_bytes()], None),
            delete: template(&[b"DEL", key.as_bytes()], wait.as_deref()),
            written: 0,
            replies_per_write: 1 + u8::from(wait.is_some()),
        }
    }

    /// Chooses what comes next.
    pub(super) fn choose(&mut self) -> (Kind, u64) {
        let kind = match self.kinds.as_slice() {
            [(only, _)] => *only,
            kinds => {
                let mut point = self.rng.random_range(0..self.total_weight);
                let chosen = kinds.iter().find(|(_, weight)| match point.checked_sub(*weight) {
                    Some(rest) => {
                        point = rest;
                        false
                    }
                    None => true,
                });
                chosen.expect("the point lies below the sum of the weights").0
            }
        };
        let key = if kind == Kind::Insert { self.chooser.fresh() } else { self.chooser.existing(&mut self.rng) };
        (kind, key)
    }

    /// Appends the first command of an operation; returns how many replies it gets.
    pub(super) fn write(&mut self, kind: Kind, key: u64, out: &mut BytesMut) -> u8 {
        match kind {
            Kind::Get | Kind::ReadModifyWrite => {
                fill(&mut self.get, key, 0, out);
                1
            }
            Kind::Delete => {
                fill(&mut self.delete, key, 0, out);
                self.replies_per_write
            }
            Kind::Put | Kind::Insert => self.write_value(key, out),
        }
    }

    /// Appends a SET of a value that was never written before.
    pub(super) fn write_value(&mut self, key: u64, out: &mut BytesMut) -> u8 {
        self.written += 1;
        fill(&mut self.set, key, self.written, out);
        self.replies_per_write
    }
}

fn template(command: &[&[u8]], follow: Option<&[String]>) -> Template {
    let mut bytes = BytesMut::new();
    encode_command(&mut bytes, command);
    // The key and the value are the last arguments, each behind its length and before a line end.
    let last = command.last().expect("a command has a name").len();
    let last_at = bytes.len() - 2 - last;
    let (key_end, stamp) = match command {
        [_, key, value] => {
            let header = format!("\r\n${}\r\n", value.len()).len();
            debug_assert!(key.len() >= KEY_DIGITS);
            (last_at - header, Some(last_at..last_at + value.len().min(12)))
        }
        _ => (bytes.len() - 2, None),
    };
    if let Some(follow) = follow {
        encode_command(&mut bytes, follow);
    }
    Template { bytes: bytes.to_vec(), key_at: key_end - KEY_DIGITS, stamp }
}

fn fill(template: &mut Template, key: u64, stamp: u64, out: &mut BytesMut) {
    let mut rest = key;
    for place in template.bytes[template.key_at..template.key_at + KEY_DIGITS].iter_mut().rev() {
        *place = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    if let Some(stamp_at) = &template.stamp {
        // The lowest digit comes first, so that even a value of one byte changes each time.
        let mut rest = stamp;
        for place in &mut template.bytes[stamp_at.clone()] {
            *place = b"0123456789abcdefghijklmnopqrstuv"[(rest % 32) as usize];
            rest /= 32;
        }
    }
    out.extend_from_slice(&template.bytes);
}

fn digits(number: u64, radix: u64, count: usize) -> String {
    let mut rest = number;
    (0..count)
        .map(|_| {
            let digit = char::from_digit((rest % radix) as u32, radix as u32).expect("a remainder is a digit");
            rest /= radix;
            digit
        })
        .collect()
}

#[cfg(test)]
#[path = "operation_tests.rs"]
mod tests;
