//! What can be set, and what of it makes sense.

use std::fmt;
use std::num::NonZeroU64;
use std::str::FromStr;
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::operation::Kind;
use crate::client::resp::Target;
use crate::types::limits;

/// Bytes that one connection may have under way, at most.
const IN_FLIGHT_BYTES: u64 = 64 * 1024 * 1024;

/// Load on one or more servers of the Redis protocol, and a report of what they made of it.
#[derive(Args, Clone, Debug)]
pub struct BenchArgs {
    /// A server, as redis://host:port or redis://user:password@host:port. Repeat for several nodes; connections are spread over them
    #[arg(long = "target", value_name = "URL", default_value = "redis://127.0.0.1:7379")]
    pub targets: Vec<Target>,
    /// Connections in all
    #[arg(short, long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub connections: u32,
    /// Operations that each connection keeps under way
    #[arg(short = 'P', long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub pipeline: u32,
    /// Threads of the generator; one is enough for most servers
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=256))]
    pub threads: u32,
    /// How long to measure, as 10s, 500ms or 2m
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = duration, conflicts_with = "requests")]
    pub time: Duration,
    /// How many operations to measure, in place of --time
    #[arg(short = 'n', long, value_name = "N")]
    pub requests: Option<NonZeroU64>,
    /// How long to run before measuring
    #[arg(long, value_name = "DURATION", default_value = "2s", value_parser = duration)]
    pub warmup: Duration,
    /// What to do, with weights: put, get, del, insert (put of a new key), rmw (get, then put)
    #[arg(long, value_name = "KIND=WEIGHT,...", default_value = "put=50,get=50", conflicts_with = "workload")]
    pub mix: Mix,
    /// A mix and distribution of YCSB: a (half updates), b (5 % updates), c (reads), d (reads of the latest), f (read-modify-write)
    #[arg(long, value_enum)]
    pub workload: Option<Workload>,
    /// How many keys there are
    #[arg(short, long, default_value = "100000", value_name = "N")]
    pub keys: NonZeroU64,
    /// What every key begins with
    #[arg(long, default_value = "key:", value_name = "TEXT")]
    pub key_prefix: String,
    /// Bytes of a value
    #[arg(short = 'd', long, default_value_t = 100, value_name = "BYTES",
          value_parser = clap::value_parser!(u32).range(1..=limits::MAX_VALUE_BYTES as i64))]
    pub value_size: u32,
    /// How keys are chosen [default: uniform, or the workload's]
    #[arg(long, value_enum)]
    pub distribution: Option<Distribution>,
    /// Open loop: operations a second in all; latency then counts from when an operation was due
    #[arg(long, value_name = "PER_SECOND")]
    pub rate: Option<NonZeroU64>,
    /// Send WAIT for this many replicas after each write, as part of it
    #[arg(long, value_name = "REPLICAS")]
    pub wait: Option<u8>,
    /// How long WAIT may take
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = duration)]
    pub wait_timeout: Duration,
    /// How long to wait for any reply before the connection is given up
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = duration)]
    pub timeout: Duration,
    /// Choose the same keys and operations as an earlier run
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// Write every key once before the warm-up
    #[arg(long)]
    pub load: bool,
    /// Processes whose CPU time is reported per operation
    #[arg(long, value_name = "PID,...", value_delimiter = ',')]
    pub server_pids: Vec<u32>,
    /// How to print the report
    #[arg(short, long, value_enum, default_value_t)]
    pub output: OutputFormat,
}

impl BenchArgs {
    /// The weights of the operations.
    pub fn effective_mix(&self) -> Mix {
        self.workload.map_or_else(|| self.mix.clone(), Workload::mix)
    }

    /// How keys are chosen.
    pub fn effective_distribution(&self) -> Distribution {
        let of_workload = self.workload.map_or(Distribution::Uniform, Workload::distribution);
        self.distribution.unwrap_or(of_workload)
    }

    /// What cannot be meant, as sentences; empty if all is well.
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if self.threads > self.connections {
            problems.push(format!("--threads {} needs at least as many --connections", self.threads));
        }
        if u64::from(self.pipeline) * u64::from(self.value_size) > IN_FLIGHT_BYTES {
            problems.push(format!("--pipeline times --value-size is above {IN_FLIGHT_BYTES} bytes a connection"));
        }
        if self.requests.is_none() && self.time.is_zero() {
            problems.push("--time must be longer than zero".to_owned());
        }
        if self.timeout.is_zero() {
            problems.push("--timeout must be longer than zero".to_owned());
        }
        if self.wait.is_some() && self.wait_timeout.is_zero() {
            problems.push("--wait-timeout must be longer than zero: to WAIT, zero means for ever".to_owned());
        }
        if self.wait.is_some() && self.wait_timeout >= self.timeout {
            problems.push("--timeout must be longer than --wait-timeout".to_owned());
        }
        if self.key_prefix.len() > 1_024 {
            problems.push("--key-prefix is longer than 1024 bytes".to_owned());
        }
        if self.keys.get() > super::operation::MAX_KEYS {
            problems.push(format!("--keys is above {}", super::operation::MAX_KEYS));
        }
        problems
    }
}

/// How often each kind of operation is chosen.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Mix {
    weights: Vec<(Kind, u32)>,
}

impl Mix {
    /// The kinds with their weights; the sum is above zero and fits `u32`.
    pub(super) fn weights(&self) -> &[(Kind, u32)] {
        &self.weights
    }
}

impl fmt::Display for Mix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts: Vec<String> = self.weights.iter().map(|(kind, weight)| format!("{kind}={weight}")).collect();
        f.write_str(&parts.join(","))
    }
}

impl FromStr for Mix {
    type Err = String;

    fn from_str(text: &str) -> Result<Mix, String> {
        let mut weights: Vec<(Kind, u32)> = Vec::new();
        for part in text.split(',') {
            let (name, weight) = part.split_once('=').unwrap_or((part, "1"));
            let kind = Kind::ALL.into_iter().find(|kind| kind.name() == name.trim()).ok_or_else(|| {
                let known: Vec<_> = Kind::ALL.iter().map(|kind| kind.name()).collect();
                format!("'{name}' is no kind of operation; there are {}", known.join(", "))
            })?;
            let weight = weight.trim().parse().map_err(|_| format!("'{weight}' is no weight (0 to 1000000)"))?;
            if weight > 1_000_000 {
                return Err(format!("the weight {weight} is above 1000000"));
            }
            if weights.iter().any(|(known, _)| *known == kind) {
                return Err(format!("'{name}' is there twice"));
            }
            weights.push((kind, weight));
        }
        weights.retain(|(_, weight)| *weight > 0);
        if weights.is_empty() { Err("every weight is zero".to_owned()) } else { Ok(Mix { weights }) }
    }
}

/// The core workloads of YCSB that the Redis protocol can express.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Workload {
    /// Half reads, half updates, zipfian.
    A,
    /// 95 % reads, 5 % updates, zipfian.
    B,
    /// Reads only, zipfian.
    C,
    /// 95 % reads of what was inserted last, 5 % inserts.
    D,
    /// Half reads, half read-modify-writes, zipfian.
    F,
}

impl Workload {
    fn mix(self) -> Mix {
        let weights = match self {
            Workload::A => vec![(Kind::Get, 50), (Kind::Put, 50)],
            Workload::B => vec![(Kind::Get, 95), (Kind::Put, 5)],
            Workload::C => vec![(Kind::Get, 100)],
            Workload::D => vec![(Kind::Get, 95), (Kind::Insert, 5)],
            Workload::F => vec![(Kind::Get, 50), (Kind::ReadModifyWrite, 50)],
        };
        Mix { weights }
    }

    fn distribution(self) -> Distribution {
        if self == Workload::D { Distribution::Latest } else { Distribution::Zipfian }
    }
}

/// How keys are chosen.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Distribution {
    /// Each as often as any other.
    Uniform,
    /// A few of them very often (theta 0.99), spread over all of the key space.
    Zipfian,
    /// The newest ones very often.
    Latest,
}

impl fmt::Display for Distribution {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.to_possible_value().as_ref().map_or("", |value| value.get_name()))
    }
}

/// How the report is printed.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, ValueEnum)]
pub enum OutputFormat {
    /// For a person.
    #[default]
    Table,
    /// For a program.
    Json,
}

/// A number with a unit: `250ms`, `10s`, `2m`, `1h`.
fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| format!("'{text}' is no duration; write 500ms, 10s, 2m or 1h"))?;
    let millis = match unit.trim() {
        "ms" => Some(number),
        "s" => number.checked_mul(1_000),
        "m" => number.checked_mul(60_000),
        "h" => number.checked_mul(3_600_000),
        "" => return Err(format!("'{text}' has no unit; write {text}ms, {text}s, {text}m or {text}h")),
        other => return Err(format!("'{other}' is no unit of time; there are ms, s, m and h")),
    };
    // A week is longer than anybody waits, and short enough that no sum of times overflows.
    millis
        .filter(|millis| *millis <= 7 * 24 * 3_600_000)
        .map(Duration::from_millis)
        .ok_or_else(|| "longer than a week".to_owned())
}

#[cfg(test)]
#[path = "args_tests.rs"]
mod tests;
