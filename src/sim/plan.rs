//! Everything about a run that is drawn from its seed before it begins.
//!
//! Each kind of fault is present in some runs and absent in others: a run in which
//! everything breaks all the time hides what goes wrong between two rare events.

use std::fmt;
use std::time::Duration;

use rand::Rng;

use crate::types::PartitionCount;

use super::SimOptions;
use super::schedule::Schedule;

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// The weather of a run.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) nodes: usize,
    pub(super) replication_factor: u8,
    pub(super) partitions: PartitionCount,
    pub(super) zones: usize,

    pub(super) clients: usize,
    pub(super) keys: usize,
    pub(super) think: Duration,
    pub(super) value_bytes: usize,
    pub(super) reads: f64,
    pub(super) expiring: f64,
    /// Levels other than QUORUM are used too.
    pub(super) mixed_levels: bool,

    pub(super) request_timeout: Duration,
    pub(super) hedge_after: Duration,

    pub(super) latency: Duration,
    pub(super) jitter: Duration,
    pub(super) idle_timeout: Duration,
    pub(super) sync: Duration,
    /// How often a sync takes a hundred times as long.
    pub(super) stalls: f64,
    /// How often a bounded queue turns something away.
    pub(super) refusals: f64,

    /// The furthest that a clock stands from the true time.
    pub(super) clock_error: Duration,
    pub(super) drift_ppm: i64,
    /// Clocks jump further than `max_clock_skew`.
    pub(super) wild_clocks: bool,

    pub(super) faults: FaultRates,
}

/// The mean time between two faults of a kind, if there are any.
#[derive(Clone, Debug)]
pub(super) struct FaultRates {
    pub(super) crash: Option<Duration>,
    pub(super) power_cut: Option<Duration>,
    pub(super) reset: Option<Duration>,
    pub(super) partition: Option<Duration>,
    pub(super) one_way: Option<Duration>,
    pub(super) pause: Option<Duration>,
    pub(super) clock: Option<Duration>,
    pub(super) new_map: Option<Duration>,
}

impl Plan {
    pub(super) fn draw(options: &SimOptions, schedule: &mut Schedule) -> Plan {
        let rng = &mut schedule.rng;
        let drawn = *[3usize, 3, 3, 4, 5, 5, 6, 7].get(rng.random_range(0..8usize)).expect("one of eight");
        let nodes = options.nodes.unwrap_or(drawn).max(1);
        let replication_factor = *[3u8, 3, 3, 3, 3, 5, 2, 1].get(rng.random_range(0..8usize)).expect("one of eight");
        let partitions = PartitionCount::new(1 << rng.random_range(0..=5u32)).expect("a small power of two");
        let zones = rng.random_range(1..=3usize);
        let keys = rng.random_range(1..=12usize);
        let mean = |rng: &mut rand_chacha::ChaCha8Rng, probability: f64, least: u64, most: u64| {
            let present = rng.random_bool(probability);
            let mean = ms(rng.random_range(least..=most));
            present.then_some(mean)
        };
        let wild_clocks = rng.random_bool(0.15);
        Plan {
            nodes,
            replication_factor,
            partitions,
            zones,
            clients: rng.random_range(2..=12),
            keys,
            think: ms(rng.random_range(1..=60)),
            value_bytes: rng.random_range(16..=600),
            reads: rng.random_range(0.3..0.7),
            expiring: if rng.random_bool(0.4) { 0.15 } else { 0.0 },
            mixed_levels: rng.random_bool(0.5),
            request_timeout: ms(rng.random_range(200..=1_500)),
            hedge_after: ms(rng.random_range(3..=30)),
            latency: Duration::from_micros(rng.random_range(50..=5_000)),
            jitter: Duration::from_micros(rng.random_range(10..=5_000)),
            idle_timeout: ms(rng.random_range(300..=3_000)),
            sync: Duration::from_micros(rng.random_range(100..=8_000)),
            stalls: if rng.random_bool(0.4) { 0.01 } else { 0.0 },
            refusals: *[0.0, 0.0, 0.0, 0.005, 0.05].get(rng.random_range(0..5usize)).expect("one of five"),
            clock_error: ms(rng.random_range(0..=240)),
            drift_ppm: rng.random_range(0..=200),
            wild_clocks,
            faults: FaultRates {
                crash: mean(rng, 0.7, 500, 4_000),
                power_cut: mean(rng, 0.2, 3_000, 9_000),
                reset: mean(rng, 0.6, 100, 2_000),
                partition: mean(rng, 0.5, 1_000, 5_000),
                one_way: mean(rng, 0.4, 1_000, 5_000),
                pause: mean(rng, 0.4, 500, 4_000),
                clock: mean(rng, if wild_clocks { 1.0 } else { 0.5 }, 300, 3_000),
                new_map: mean(rng, 0.3, 500, 5_000),
            },
        }
    }

    /// How far a clock may be from the true time, whatever happens in this run.
    pub(super) fn furthest_clock(&self) -> Duration {
        // Between two settings of a clock it drifts; see `faults`.
        let wild = if self.wild_clocks { WILD_JUMP } else { Duration::ZERO };
        self.clock_error + wild + ms(5)
    }
}

/// How far clocks jump where they jump further than allowed.
pub(super) const WILD_JUMP: Duration = ms(2_500);

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Plan { nodes, replication_factor, partitions, zones, clients, keys, .. } = self;
        let partitions = partitions.get();
        writeln!(f, "  cluster: nodes {nodes}, RF {replication_factor}, partitions {partitions}, zones {zones}")?;
        writeln!(
            f,
            "  clients: {clients} over {keys} keys, think {:?}, values to {} bytes, {:.0} % reads, {:.0} % expiring, {}",
            self.think,
            self.value_bytes,
            self.reads * 100.0,
            self.expiring * 100.0,
            if self.mixed_levels { "all levels" } else { "QUORUM only" },
        )?;
        writeln!(f, "  timing: request timeout {:?}, hedge after {:?}", self.request_timeout, self.hedge_after)?;
        writeln!(
            f,
            "  network: latency {:?} + {:?}, idle timeout {:?}; disk: sync {:?}, {:.1} % stall; {:.1} % refused",
            self.latency,
            self.jitter,
            self.idle_timeout,
            self.sync,
            self.stalls * 100.0,
            self.refusals * 100.0,
        )?;
        writeln!(
            f,
            "  clocks: within {:?}, drift {} ppm{}",
            self.clock_error,
            self.drift_ppm,
            if self.wild_clocks { ", jumps beyond what is allowed" } else { "" },
        )?;
        write!(f, "  faults, mean time between two:")?;
        let rates = &self.faults;
        for (name, rate) in [
            ("crash", rates.crash),
            ("power cut", rates.power_cut),
            ("reset", rates.reset),
            ("partition", rates.partition),
            ("one-way", rates.one_way),
            ("pause", rates.pause),
            ("clock", rates.clock),
            ("new map", rates.new_map),
        ] {
            if let Some(rate) = rate {
                write!(f, " {name} {rate:?}")?;
            }
        }
        Ok(())
    }
}
