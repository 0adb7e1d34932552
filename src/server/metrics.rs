//! What the front ends count, and the page that shows it with what lies below.
//!
//! Commands are counted in plain atomics by their place in the table: a look-up by label
//! would cost more than many a command.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric, MetricEncoder};
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use super::resp::command_names;
use crate::node::{Sample, SampleKind};

/// Upper ends of the latency buckets, in microseconds: from a local read to a missed timeout.
const BUCKETS_US: [u64; 14] =
    [50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000, 200_000, 500_000, 1_000_000];

/// How a command ended, by the first word of its reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ended {
    Ok,
    /// Refused or timed out, and certainly without effect.
    NotApplied,
    InDoubt,
    /// Any other error.
    Error,
}

const ENDINGS: [(Ended, &str); 4] =
    [(Ended::Ok, "ok"), (Ended::NotApplied, "not_applied"), (Ended::InDoubt, "in_doubt"), (Ended::Error, "error")];

impl Ended {
    fn of(reply: &[u8]) -> Ended {
        let Some(error) = reply.strip_prefix(b"-") else { return Ended::Ok };
        let not_applied: [&[u8]; 4] = [b"NOREPLICAS", b"CLUSTERDOWN", b"TRYAGAIN", b"MISCONF"];
        if error.starts_with(b"INDOUBT") {
            Ended::InDoubt
        } else if not_applied.iter().any(|prefix| error.starts_with(prefix)) {
            Ended::NotApplied
        } else {
            Ended::Error
        }
    }
}

#[derive(Default)]
struct CommandCounters {
    ended: [AtomicU64; ENDINGS.len()],
    micros: AtomicU64,
    buckets: [AtomicU64; BUCKETS_US.len() + 1],
}

/// The labels of an HTTP request.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct HttpLabels {
    route: &'static str,
    method: String,
    status: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RouteLabels {
    route: &'static str,
}

/// What the front ends of one node count.
pub struct ServerMetrics {
    commands: Box<[CommandCounters]>,
    /// Commands that are in no table, and replies to no command.
    other: CommandCounters,
    connections: AtomicI64,
    opened: AtomicU64,
    refused: AtomicU64,
    protocol_errors: AtomicU64,
    deadlines: AtomicU64,
    http_connections: AtomicI64,
    http_opened: AtomicU64,
    http_refused: AtomicU64,
    http_requests: Family<HttpLabels, Counter>,
    http_latency: Family<RouteLabels, Histogram>,
    /// What CONFIG RESETSTAT set the figures of INFO back to.
    reset_at: [AtomicU64; 2],
}

impl fmt::Debug for ServerMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerMetrics").field("connections", &self.connections).finish_non_exhaustive()
    }
}

impl Default for ServerMetrics {
    fn default() -> ServerMetrics {
        ServerMetrics::new()
    }
}

fn latency_histogram() -> Histogram {
    Histogram::new(BUCKETS_US.iter().map(|micros| *micros as f64 / 1e6))
}

impl ServerMetrics {
    /// Everything at zero.
    pub fn new() -> ServerMetrics {
        ServerMetrics {
            commands: command_names().map(|_| CommandCounters::default()).collect(),
            other: CommandCounters::default(),
            connections: AtomicI64::new(0),
            opened: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            protocol_errors: AtomicU64::new(0),
            deadlines: AtomicU64::new(0),
            http_connections: AtomicI64::new(0),
            http_opened: AtomicU64::new(0),
            http_refused: AtomicU64::new(0),
            http_requests: Family::default(),
            http_latency: Family::new_with_constructor(latency_histogram),
            reset_at: Default::default(),
        }
    }

    pub(super) fn resp_connection_opened(&self) {
        self.connections.fetch_add(1, Ordering::Relaxed);
        self.opened.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn resp_connection_closed(&self) {
        self.connections.fetch_sub(1, Ordering::Relaxed);
    }

    pub(super) fn resp_connection_refused(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn resp_protocol_error(&self) {
        self.protocol_errors.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn resp_deadline_missed(&self) {
        self.deadlines.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a command by its place in the table (or none), its reply and its time.
    pub(super) fn resp_command(&self, command: usize, reply: &[u8], took: Duration) {
        let counters = self.commands.get(command).unwrap_or(&self.other);
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        counters.ended[Ended::of(reply) as usize].fetch_add(1, Ordering::Relaxed);
        counters.micros.fetch_add(micros, Ordering::Relaxed);
        let bucket = BUCKETS_US.partition_point(|end| *end < micros);
        counters.buckets[bucket].fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn http_connection_opened(&self) {
        self.http_connections.fetch_add(1, Ordering::Relaxed);
        self.http_opened.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn http_connection_closed(&self) {
        self.http_connections.fetch_sub(1, Ordering::Relaxed);
    }

    pub(super) fn http_connection_refused(&self) {
        self.http_refused.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn http_request(&self, route: &'static str, method: &str, status: u16, took: Duration) {
        // Methods are free text; a label for each would let a client fill the memory.
        let known = ["GET", "HEAD", "PUT", "DELETE"].contains(&method);
        let method = if known { method } else { "other" }.to_owned();
        self.http_requests.get_or_create(&HttpLabels { route, method, status }).inc();
        self.http_latency.get_or_create(&RouteLabels { route }).observe(took.as_secs_f64());
    }

    /// Commands and connections since the start or the last reset, for INFO.
    pub(super) fn totals(&self) -> (u64, u64) {
        let [commands, opened] = self.raw_totals();
        let base = |index: usize| self.reset_at[index].load(Ordering::Relaxed);
        (commands.saturating_sub(base(0)), opened.saturating_sub(base(1)))
    }

    /// Lets [`ServerMetrics::totals`] begin anew; what `/metrics` shows goes on.
    pub(super) fn reset_totals(&self) {
        for (base, now) in self.reset_at.iter().zip(self.raw_totals()) {
            base.store(now, Ordering::Relaxed);
        }
    }

    fn raw_totals(&self) -> [u64; 2] {
        let of =
            |counters: &CommandCounters| counters.ended.iter().map(|count| count.load(Ordering::Relaxed)).sum::<u64>();
        let commands = self.commands.iter().map(of).sum::<u64>() + of(&self.other);
        [commands, self.opened.load(Ordering::Relaxed)]
    }

    /// The page for `/metrics`, in the OpenMetrics text format.
    pub(super) fn page(self: &Arc<Self>, samples: Vec<Sample>) -> Result<String, fmt::Error> {
        let mut registry = Registry::with_prefix("dogsled");
        registry.register("http_requests", "HTTP requests by route, method and status", self.http_requests.clone());
        registry.register(
            "http_request_duration_seconds",
            "Time from the head of an HTTP request to its response",
            self.http_latency.clone(),
        );
        registry.register_collector(Box::new(Own(Arc::clone(self))));
        registry.register_collector(Box::new(Below(samples)));
        let mut page = String::new();
        prometheus_client::encoding::text::encode(&mut page, &registry)?;
        Ok(page)
    }
}

/// Shows the counters that are plain atomics.
#[derive(Debug)]
struct Own(Arc<ServerMetrics>);

impl Collector for Own {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let metrics = &self.0;
        let gauges = [
            ("resp_connections", "RESP connections now", &metrics.connections),
            ("http_connections", "HTTP connections now", &metrics.http_connections),
        ];
        for (name, help, value) in gauges {
            let gauge = ConstGauge::new(value.load(Ordering::Relaxed));
            gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)?;
        }
        let counters = [
            ("resp_connections_opened", "RESP connections accepted", &metrics.opened),
            ("resp_connections_refused", "RESP connections refused because there were too many", &metrics.refused),
            (
                "resp_protocol_errors",
                "RESP connections closed because of bytes that are no command",
                &metrics.protocol_errors,
            ),
            ("resp_deadlines_missed", "RESP connections closed because the client was too slow", &metrics.deadlines),
            ("http_connections_opened", "HTTP connections accepted", &metrics.http_opened),
            ("http_connections_refused", "HTTP connections refused because there were too many", &metrics.http_refused),
        ];
        for (name, help, value) in counters {
            let counter = ConstCounter::new(value.load(Ordering::Relaxed));
            counter.encode(encoder.encode_descriptor(name, help, None, counter.metric_type())?)?;
        }
        self.commands(&mut encoder)?;
        self.latencies(&mut encoder)
    }
}

impl Own {
    /// The commands that ever ran.
    fn seen(&self) -> impl Iterator<Item = (&'static str, &CommandCounters)> {
        let all = command_names().zip(&self.0.commands).chain([("other", &self.0.other)]);
        all.filter(|(_, counters)| counters.ended.iter().any(|count| count.load(Ordering::Relaxed) > 0))
    }

    fn commands(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let counter_type = ConstCounter::new(0u64).metric_type();
        let mut family =
            encoder.encode_descriptor("resp_commands", "RESP commands by name and result", None, counter_type)?;
        for (name, counters) in self.seen() {
            for (ended, result) in ENDINGS {
                let count = counters.ended[ended as usize].load(Ordering::Relaxed);
                if count > 0 {
                    let labels = [("command", name), ("result", result)];
                    let counter = ConstCounter::new(count);
                    counter.encode(family.encode_family(&labels)?)?;
                }
            }
        }
        Ok(())
    }

    fn latencies(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let help = "Time from a RESP command to its reply";
        let kind = latency_histogram().metric_type();
        let mut family = encoder.encode_descriptor("resp_command_duration_seconds", help, None, kind)?;
        for (name, counters) in self.seen() {
            let ends = BUCKETS_US.iter().map(|micros| *micros as f64 / 1e6).chain([f64::INFINITY]);
            let counts = counters.buckets.iter().map(|count| count.load(Ordering::Relaxed));
            let buckets: Vec<(f64, u64)> = ends.zip(counts).collect();
            let count = buckets.iter().map(|(_, count)| count).sum();
            let seconds = counters.micros.load(Ordering::Relaxed) as f64 / 1e6;
            let labels = [("command", name)];
            let mut metric = family.encode_family(&labels)?;
            metric.encode_histogram::<[(&str, &str); 0]>(seconds, count, &buckets, None)?;
        }
        Ok(())
    }
}

/// Shows what is measured below the front ends.
#[derive(Debug)]
struct Below(Vec<Sample>);

impl Collector for Below {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        // One description for all samples of a name, as the format demands.
        let mut by_name: BTreeMap<&str, Vec<&Sample>> = BTreeMap::new();
        for sample in &self.0 {
            by_name.entry(sample.name).or_default().push(sample);
        }
        for (name, samples) in by_name {
            let kind = samples[0].kind;
            let metric_type = match kind {
                SampleKind::Counter => ConstCounter::new(0.0).metric_type(),
                SampleKind::Gauge => ConstGauge::new(0.0).metric_type(),
            };
            let mut family = encoder.encode_descriptor(name, samples[0].help, None, metric_type)?;
            if let [Sample { labels, value, .. }] = samples[..]
                && labels.is_empty()
            {
                encode_value(kind, *value, family)?;
                continue;
            }
            for sample in samples {
                let labels: Vec<(&str, &str)> =
                    sample.labels.iter().map(|(name, value)| (*name, value.as_str())).collect();
                encode_value(kind, sample.value, family.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }
}

fn encode_value(kind: SampleKind, value: f64, encoder: MetricEncoder<'_>) -> Result<(), fmt::Error> {
    match kind {
        SampleKind::Counter => ConstCounter::new(value).encode(encoder),
        SampleKind::Gauge => ConstGauge::new(value).encode(encoder),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_is_open_metrics_with_each_name_described_once() {
        let metrics = Arc::new(ServerMetrics::new());
        metrics.resp_connection_opened();
        let set = command_names().position(|name| name == "set").expect("there is SET");
        metrics.resp_command(set, b"+OK\r\n", Duration::from_micros(150));
        metrics.resp_command(set, b"-INDOUBT 1 of 2\r\n", Duration::from_secs(3));
        metrics.resp_command(usize::MAX, b"-ERR unknown command\r\n", Duration::ZERO);
        metrics.http_request("keys", "BREW", 405, Duration::from_millis(1));
        let peer = |id: &str, value| Sample {
            name: "peer_connected",
            help: "Whether there is a connection",
            kind: SampleKind::Gauge,
            labels: vec![("peer", id.to_owned())],
            value,
        };
        let commits = Sample {
            name: "commits",
            help: "Group commits",
            kind: SampleKind::Counter,
            labels: Vec::new(),
            value: 7.0,
        };
        let page = metrics.page(vec![peer("n1", 1.0), commits, peer("n2", 0.0)]).expect("a string takes all");
        for line in [
            "dogsled_resp_connections 1",
            "dogsled_resp_connections_opened_total 1",
            "dogsled_resp_commands_total{command=\"set\",result=\"ok\"} 1",
            "dogsled_resp_commands_total{command=\"set\",result=\"in_doubt\"} 1",
            "dogsled_resp_commands_total{command=\"other\",result=\"error\"} 1",
            "dogsled_resp_command_duration_seconds_count{command=\"set\"} 2",
            "dogsled_resp_command_duration_seconds_bucket{le=\"0.0002\",command=\"set\"} 1",
            "dogsled_resp_command_duration_seconds_bucket{le=\"+Inf\",command=\"set\"} 2",
            "dogsled_http_requests_total{route=\"keys\",method=\"other\",status=\"405\"} 1",
            "dogsled_peer_connected{peer=\"n1\"} 1.0",
            "dogsled_peer_connected{peer=\"n2\"} 0.0",
            "dogsled_commits_total 7.0",
        ] {
            assert!(page.lines().any(|found| found == line), "{line} is not in\n{page}");
        }
        assert_eq!(page.matches("# TYPE dogsled_peer_connected ").count(), 1);
        assert!(page.ends_with("# EOF\n"));
    }

    #[test]
    fn resetting_the_figures_of_info_leaves_the_page_alone() {
        let metrics = Arc::new(ServerMetrics::new());
        metrics.resp_command(0, b"+OK\r\n", Duration::ZERO);
        metrics.reset_totals();
        metrics.resp_command(0, b"+OK\r\n", Duration::ZERO);
        assert_eq!(metrics.totals(), (1, 0));
        assert!(metrics.page(Vec::new()).expect("a string takes all").contains("result=\"ok\"} 2"));
    }
}
