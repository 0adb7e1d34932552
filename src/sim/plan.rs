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
    /// How many of the keys keep concurrent values.
    pub(super) sibling_keys: usize,
    /// How many writes carry an op-id.
    pub(super) op_ids: f64,
    /// How many clients have a session.
    pub(super) sessions: f64,
    /// How many questions are scans, and how many delete whole namespaces.
    pub(super) scans: f64,
    pub(super) truncations: f64,
    /// How many questions are to be explained.
    pub(super) explained: f64,

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
    /// How often a frame is lost, comes twice, or overtakes others.
    pub(super) loss: f64,
    pub(super) duplication: f64,
    pub(super) reordering: f64,

    pub(super) sync_interval: Duration,
    pub(super) collect_interval: Duration,

    /// The furthest that a clock stands from the true time.
    pub(super) clock_error: Duration,
    pub(super) drift_ppm: i64,
    /// Clocks jump further than `max_clock_skew`.
    pub(super) wild_clocks: bool,

    /// How many peers a node knows and watches at most.
    pub(super) k_list: usize,

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
    /// A disk is put back to what it was some time before: once in a run, at one host.
    pub(super) back_in_time: Option<Duration>,
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
            loss: *[0.0, 0.0, 0.01, 0.1].get(rng.random_range(0..4usize)).expect("one of four"),
            duplication: *[0.0, 0.0, 0.02, 0.2].get(rng.random_range(0..4usize)).expect("one of four"),
            reordering: *[0.0, 0.0, 0.05, 0.5].get(rng.random_range(0..4usize)).expect("one of four"),
            sync_interval: ms(rng.random_range(50..=1_000)),
            collect_interval: ms(rng.random_range(100..=2_000)),
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
                back_in_time: mean(rng, 0.25, 1_000, 8_000).filter(|_| nodes >= 3 && replication_factor >= 3),
            },
            sibling_keys: match rng.random_range(0..8u32) {
                0..=2 => 0,
                3 => keys,
                _ => rng.random_range(0..=keys),
            },
            op_ids: if rng.random_bool(0.5) { rng.random_range(0.1..0.8) } else { 0.0 },
            sessions: if rng.random_bool(0.4) { rng.random_range(0.2..1.0) } else { 0.0 },
            scans: if rng.random_bool(0.5) { 0.03 } else { 0.0 },
            truncations: if rng.random_bool(0.08) { 0.01 } else { 0.0 },
            k_list: rng.random_range(2..=8),
            explained: if rng.random_bool(0.5) { 0.05 } else { 0.0 },
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
pub(super) const WILD_JUMP: Duration = ms(3_600_000);

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
        writeln!(
            f,
            "  clients: {} keys with siblings, {:.0} % of writes with op-ids, {:.0} % of clients with sessions, {:.0} % scans{}",
            self.sibling_keys,
            self.op_ids * 100.0,
            self.sessions * 100.0,
            self.scans * 100.0,
            if self.truncations > 0.0 { ", truncations" } else { "" },
        )?;
        writeln!(f, "  timing: request timeout {:?}, hedge after {:?}", self.request_timeout, self.hedge_after)?;
        writeln!(
            f,
            "  network: {:.0} % lost, {:.0} % twice, {:.0} % out of order",
            self.loss * 100.0,
            self.duplication * 100.0,
            self.reordering * 100.0,
        )?;
        writeln!(f, "  membership: K {}", self.k_list)?;
        writeln!(f, "  upkeep: sync every {:?}, collection every {:?}", self.sync_interval, self.collect_interval)?;
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
            ("back in time", rates.back_in_time),
        ] {
            if let Some(rate) = rate {
                write!(f, " {name} {rate:?}")?;
            }
        }
        Ok(())
    }
}
