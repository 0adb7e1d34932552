//! The report: one value, printed as a table or as JSON.

use std::collections::BTreeMap;
use std::fmt;

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use hdrhistogram::Histogram;
use serde::Serialize;

use super::args::BenchArgs;
use super::measure::Measurements;

/// What was run, and what came of it. Latencies are in microseconds.
#[derive(Clone, Debug, Serialize)]
pub struct BenchReport {
    /// The servers.
    pub targets: Vec<String>,
    /// Weights of the operations.
    pub mix: String,
    /// How keys were chosen.
    pub distribution: String,
    /// How many keys there were at first.
    pub keys: u64,
    /// Bytes of a value.
    pub value_bytes: u32,
    /// Connections in all.
    pub connections: u32,
    /// Operations that each connection kept under way.
    pub pipeline: u32,
    /// Threads of the generator.
    pub threads: u32,
    /// Operations a second that were asked for; none in a closed loop.
    pub rate: Option<u64>,
    /// Replicas that each write waited for.
    pub wait: Option<u8>,
    /// What chooses the same keys and operations again.
    pub seed: u64,
    /// How the keys were loaded, if they were.
    pub load: Option<LoadReport>,
    /// How long was measured.
    pub seconds: f64,
    /// Operations that succeeded.
    pub operations: u64,
    /// The same, a second.
    pub operations_per_second: f64,
    /// Each kind of operation.
    pub kinds: Vec<KindReport>,
    /// Operations that failed, by the server's error code, or `TIMEOUT`, `DISCONNECTED` or `PROTOCOL`.
    pub errors: BTreeMap<String, u64>,
    /// Reads that found nothing.
    pub misses: u64,
    /// Writes of which WAIT reported fewer replicas than asked for.
    pub under_replicated: u64,
    /// Operations of an open loop that were due but never began: the server is slower than the rate.
    pub never_begun: u64,
    /// Connections that broke and were made again.
    pub reconnects: u64,
    /// Connections that could not be made again.
    pub lost_connections: u64,
    /// CPU time of this generator for each operation.
    pub client_cpu_us_per_operation: f64,
    /// CPU time of the servers, if their processes were named and lived on.
    pub server_cpu: Option<ServerCpu>,
}

/// How the keys were loaded.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct LoadReport {
    /// How many.
    pub keys: u64,
    /// How long that took.
    pub seconds: f64,
    /// How many a second.
    pub keys_per_second: f64,
}

/// One kind of operation.
#[derive(Clone, Debug, Serialize)]
pub struct KindReport {
    /// Its name in `--mix`.
    pub kind: String,
    /// How many succeeded.
    pub operations: u64,
    /// How many a second.
    pub operations_per_second: f64,
    /// How long they took.
    pub latency_us: Latency,
}

/// Latencies in microseconds.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Latency {
    /// The mean.
    pub mean: f64,
    /// Half of them were faster.
    pub p50: u64,
    /// 90 % were faster.
    pub p90: u64,
    /// 99 % were faster.
    pub p99: u64,
    /// 99.9 % were faster.
    pub p999: u64,
    /// The longest.
    pub max: u64,
}

/// CPU time of server processes.
#[derive(Clone, Debug, Serialize)]
pub struct ServerCpu {
    /// Over all of them, for each operation that was answered.
    pub us_per_operation: f64,
    /// Each of them.
    pub processes: Vec<ProcessCpu>,
}

/// CPU time of one process.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct ProcessCpu {
    /// Which one.
    pub pid: u32,
    /// User and system time, in microseconds.
    pub cpu_us: u64,
}

impl ServerCpu {
    pub(super) fn new(spent: impl Iterator<Item = (u32, u64)>) -> ServerCpu {
        let processes = spent.map(|(pid, cpu_us)| ProcessCpu { pid, cpu_us }).collect();
        ServerCpu { us_per_operation: 0.0, processes }
    }
}

impl Latency {
    fn of(histogram: &Histogram<u64>) -> Latency {
        Latency {
            mean: histogram.mean(),
            p50: histogram.value_at_quantile(0.5),
            p90: histogram.value_at_quantile(0.9),
            p99: histogram.value_at_quantile(0.99),
            p999: histogram.value_at_quantile(0.999),
            max: histogram.max(),
        }
    }
}

/// Puts the report together. `cpu` is the generator's CPU time and the servers'.
pub(super) fn build(
    args: &BenchArgs,
    seed: u64,
    measured: &Measurements,
    seconds: f64,
    load: Option<LoadReport>,
    cpu: &(u64, Option<ServerCpu>),
) -> BenchReport {
    let per_second = |count: u64| if seconds > 0.0 { count as f64 / seconds } else { 0.0 };
    // What failed cost CPU time as well.
    let answered = measured.operations() + measured.failures();
    let per_operation = |micros: u64| if answered > 0 { micros as f64 / answered as f64 } else { 0.0 };
    let kinds = measured.latencies().iter().map(|(kind, histogram)| KindReport {
        kind: kind.to_string(),
        operations: histogram.len(),
        operations_per_second: per_second(histogram.len()),
        latency_us: Latency::of(histogram),
    });
    BenchReport {
        targets: args.targets.iter().map(ToString::to_string).collect(),
        mix: args.effective_mix().to_string(),
        distribution: args.effective_distribution().to_string(),
        keys: args.keys.get(),
        value_bytes: args.value_size,
        connections: args.connections,
        pipeline: args.pipeline,
        threads: args.threads,
        rate: args.rate.map(Into::into),
        wait: args.wait,
        seed,
        load,
        seconds,
        operations: measured.operations(),
        operations_per_second: per_second(measured.operations()),
        kinds: kinds.collect(),
        errors: measured.errors.clone(),
        misses: measured.misses,
        under_replicated: measured.under_replicated,
        never_begun: measured.never_begun,
        reconnects: measured.reconnects,
        lost_connections: measured.lost_connections,
        client_cpu_us_per_operation: per_operation(cpu.0),
        server_cpu: cpu.1.clone().map(|servers| ServerCpu {
            us_per_operation: per_operation(servers.processes.iter().map(|process| process.cpu_us).sum()),
            ..servers
        }),
    }
}

impl BenchReport {
    /// As JSON, on several lines.
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).expect("the report has only text keys and plain numbers")
    }
}

/// As a table for a person.
impl fmt::Display for BenchReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{}\n{} connections, pipeline {}, {} bytes a value, {} keys {}, mix {}, seed {}",
            self.targets.join(" "),
            self.connections,
            self.pipeline,
            self.value_bytes,
            self.keys,
            self.distribution,
            self.mix,
            self.seed
        )?;
        if let Some(load) = &self.load {
            writeln!(f, "loaded {} keys in {:.1} s ({:.0}/s)", load.keys, load.seconds, load.keys_per_second)?;
        }
        let mut table = Table::new();
        table.load_style(presets::UTF8_HORIZONTAL_ONLY).set_content_arrangement(ContentArrangement::Disabled);
        table.set_header(["kind", "operations", "per second", "mean µs", "p50", "p90", "p99", "p99.9", "max"]);
        for kind in &self.kinds {
            let latency = &kind.latency_us;
            table.add_row([
                kind.kind.clone(),
                kind.operations.to_string(),
                format!("{:.0}", kind.operations_per_second),
                format!("{:.0}", latency.mean),
                latency.p50.to_string(),
                latency.p90.to_string(),
                latency.p99.to_string(),
                latency.p999.to_string(),
                latency.max.to_string(),
            ]);
        }
        for column in table.column_iter_mut().skip(1) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        writeln!(f, "{table}")?;
        write!(f, "{} operations in {:.2} s: {:.0}/s", self.operations, self.seconds, self.operations_per_second)?;
        write!(f, "; CPU per operation: client {:.1} µs", self.client_cpu_us_per_operation)?;
        if let Some(servers) = &self.server_cpu {
            write!(f, ", servers {:.1} µs", servers.us_per_operation)?;
            let parts: Vec<String> =
                servers.processes.iter().map(|p| format!("{} {:.2} s", p.pid, p.cpu_us as f64 / 1e6)).collect();
            write!(f, " ({})", parts.join(", "))?;
        }
        for (code, count) in &self.errors {
            write!(f, "\nfailed with {code}: {count}")?;
        }
        let remarks = [
            (self.misses, "reads found nothing"),
            (self.under_replicated, "writes were acknowledged by fewer replicas than WAIT asked for"),
            (self.never_begun, "operations were due but never began: the rate is above what the server can do"),
            (self.reconnects, "connections broke and were made again"),
            (self.lost_connections, "connections broke and could not be made again"),
        ];
        for (count, what) in remarks.into_iter().filter(|(count, _)| *count > 0) {
            write!(f, "\n{count} {what}")?;
        }
        Ok(())
    }
}
