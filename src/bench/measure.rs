//! What one thread counts while it runs, and how the counts of all are added.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;

use super::operation::Kind;
use crate::types::Moment;

/// Different error codes that are counted apart; the rest is counted together.
const ERROR_CODES: usize = 64;
/// The longest latency that is told apart, in microseconds: an hour.
const LONGEST_US: u64 = 3_600_000_000;

/// Latencies by kind of operation, and everything that went another way.
#[derive(Clone, Debug, Default)]
pub(super) struct Measurements {
    latencies: BTreeMap<Kind, Histogram<u64>>,
    /// Operations that failed, by the server's error code or our own word for it.
    pub(super) errors: BTreeMap<String, u64>,
    /// Reads that found nothing.
    pub(super) misses: u64,
    /// Writes of which WAIT reported fewer replicas than asked for.
    pub(super) under_replicated: u64,
    /// Connections that broke and were made again.
    pub(super) reconnects: u64,
    /// Connections that could not be made again.
    pub(super) lost_connections: u64,
    /// Operations of an open loop that were due but never began.
    pub(super) never_begun: u64,
    /// When the last measured operation was answered.
    pub(super) last: Moment,
}

impl Measurements {
    pub(super) fn succeeded(&mut self, kind: Kind, begun: Moment, now: Moment) {
        let latency = u64::try_from(now.since(begun).as_micros()).unwrap_or(u64::MAX).clamp(1, LONGEST_US);
        let histogram = self.latencies.entry(kind).or_insert_with(new_histogram);
        histogram.record(latency).expect("the latency was clamped to the histogram's range");
        self.last = now;
    }

    pub(super) fn failed(&mut self, code: &str, now: Moment) {
        self.last = now;
        if let Some(count) = self.errors.get_mut(code) {
            *count += 1;
        } else {
            let code = if self.errors.len() < ERROR_CODES { code } else { "OTHER" };
            *self.errors.entry(code.to_owned()).or_default() += 1;
        }
    }

    pub(super) fn add(&mut self, other: &Measurements) {
        for (kind, histogram) in &other.latencies {
            let sum = self.latencies.entry(*kind).or_insert_with(new_histogram);
            sum.add(histogram).expect("all histograms have the same range");
        }
        for (code, count) in &other.errors {
            *self.errors.entry(code.clone()).or_default() += count;
        }
        self.misses += other.misses;
        self.under_replicated += other.under_replicated;
        self.reconnects += other.reconnects;
        self.lost_connections += other.lost_connections;
        self.never_begun += other.never_begun;
        self.last = self.last.max(other.last);
    }

    pub(super) fn latencies(&self) -> &BTreeMap<Kind, Histogram<u64>> {
        &self.latencies
    }

    /// Operations that succeeded.
    pub(super) fn operations(&self) -> u64 {
        self.latencies.values().map(Histogram::len).sum()
    }

    /// Operations that failed.
    pub(super) fn failures(&self) -> u64 {
        self.errors.values().sum()
    }
}

fn new_histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LONGEST_US, 3).expect("the bounds are a valid range")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_hold_what_their_parts_held() {
        let (mut one, mut two) = (Measurements::default(), Measurements::default());
        one.succeeded(Kind::Put, Moment(0), Moment(100));
        two.succeeded(Kind::Put, Moment(50), Moment(1_000_050));
        two.succeeded(Kind::Get, Moment(50), Moment(50));
        two.succeeded(Kind::Get, Moment(0), Moment(u64::MAX));
        one.failed("INDOUBT", Moment(7));
        two.failed("INDOUBT", Moment(7));
        two.failed("TIMEOUT", Moment(9));
        one.add(&two);
        assert_eq!((one.operations(), one.failures()), (4, 3));
        assert_eq!(one.errors["INDOUBT"], 2);
        assert_eq!(one.latencies()[&Kind::Put].min(), 100);
        assert!(one.latencies()[&Kind::Put].max().abs_diff(1_000_000) < 1_000);
        assert_eq!(one.latencies()[&Kind::Get].min(), 1);
    }

    #[test]
    fn a_server_cannot_make_the_table_of_errors_grow_without_end() {
        let mut measurements = Measurements::default();
        for number in 0..10_000 {
            measurements.failed(&format!("CODE{number}"), Moment(0));
        }
        assert!(measurements.errors.len() <= ERROR_CODES + 1);
        assert_eq!(measurements.failures(), 10_000);
    }
}
