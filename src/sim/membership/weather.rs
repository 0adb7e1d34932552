//! What gets through: the loss of each direction between two hosts, and how long it takes.

use rand::{Rng, RngCore};
use rand_chacha::ChaCha8Rng;

use super::member::HostIndex;

/// The shortest way, in microseconds.
const LATENCY_US: u64 = 500;
/// What is drawn on top, all alike.
const JITTER_US: u64 = 300;
/// One packet in so many is late by up to [`LATE_US`].
const ONE_LATE_IN: u32 = 100;
const LATE_US: u64 = 5_000;
/// The first retransmission; each further waits twice as long.
const RETRY_US: u64 = 30_000;
/// No retransmission waits longer.
const LONGEST_RETRY_US: u64 = 1_000_000;

/// The state of the network, and the one source of chance.
pub(super) struct Weather {
    pub(super) chance: ChaCha8Rng,
    /// Nothing is lost anywhere: most of the time there is nothing to draw.
    clear: bool,
    everywhere: f64,
    /// The loss of what each host sends, and of what is sent to it.
    leaving: Vec<f64>,
    entering: Vec<f64>,
    /// Hosts of different sides do not reach each other.
    side: Vec<u8>,
}

impl Weather {
    pub(super) fn new(chance: ChaCha8Rng, hosts: usize) -> Weather {
        Weather {
            chance,
            clear: true,
            everywhere: 0.0,
            leaving: vec![0.0; hosts],
            entering: vec![0.0; hosts],
            side: vec![0; hosts],
        }
    }

    fn look(&mut self) {
        let some = |losses: &[f64]| losses.iter().any(|loss| *loss > 0.0);
        let split = self.side.iter().any(|side| *side != self.side[0]);
        self.clear = self.everywhere == 0.0 && !some(&self.leaving) && !some(&self.entering) && !split;
    }

    pub(super) fn lose_everywhere(&mut self, loss: f64) {
        self.everywhere = loss;
        self.look();
    }

    pub(super) fn lose_of(&mut self, host: HostIndex, leaving: f64, entering: f64) {
        (self.leaving[host as usize], self.entering[host as usize]) = (leaving, entering);
        self.look();
    }

    pub(super) fn split(&mut self, side: Vec<u8>) {
        self.side = side;
        self.look();
    }

    /// The probability that a packet gets through.
    pub(super) fn passes(&self, from: HostIndex, to: HostIndex) -> f64 {
        let (from, to) = (from as usize, to as usize);
        if self.clear {
            return 1.0;
        }
        if self.side[from] != self.side[to] {
            return 0.0;
        }
        (1.0 - self.everywhere) * (1.0 - self.leaving[from]) * (1.0 - self.entering[to])
    }

    pub(super) fn draw(&mut self, probability: f64) -> bool {
        probability >= 1.0 || (probability > 0.0 && self.chance.random_bool(probability))
    }

    /// Whether a packet gets through.
    pub(super) fn arrives(&mut self, from: HostIndex, to: HostIndex) -> bool {
        let passes = self.passes(from, to);
        self.draw(passes)
    }

    /// How long a packet is under way, in microseconds.
    pub(super) fn travel(&mut self) -> u64 {
        let drawn = self.chance.next_u64();
        let is_late = ((drawn >> 32) as u32).is_multiple_of(ONE_LATE_IN);
        let late = if is_late { ((drawn >> 48) * LATE_US) >> 16 } else { 0 };
        LATENCY_US + (((drawn & 0xffff_ffff) * JITTER_US) >> 32) + late
    }

    /// How long it takes until a packet that is sent again until it arrives has arrived, and
    /// how often it was sent, up to its first acknowledgement; none if it takes too long.
    pub(super) fn reliably(&mut self, from: HostIndex, to: HostIndex, most: u64) -> Option<(u64, u64)> {
        let (there, back) = (self.passes(from, to), self.passes(to, from));
        let (mut waited, mut retry, mut sent) = (0, RETRY_US, 1);
        while !self.draw(there) {
            waited += retry;
            retry = (retry * 2).min(LONGEST_RETRY_US);
            sent += 1;
            if waited > most {
                return None;
            }
        }
        let arrived = waited + self.travel();
        // The sender goes on until it hears that it has arrived.
        while waited <= most && !self.draw(back) {
            loop {
                waited += retry;
                retry = (retry * 2).min(LONGEST_RETRY_US);
                sent += 1;
                if waited > most || self.draw(there) {
                    break;
                }
            }
        }
        Some((arrived, sent))
    }

    /// A time up to this, all alike.
    pub(super) fn within(&mut self, most: u64) -> u64 {
        self.chance.random_range(0..=most)
    }

    /// One of `0..count`.
    pub(super) fn pick(&mut self, count: usize) -> usize {
        self.chance.random_range(0..count)
    }
}

/// How often something is sent within a second when nobody acknowledges it, in the
/// `silent`th second: at 0, 30, 90, 210, 450 and 930 ms, then once a second.
pub(super) fn attempts(silent: u8) -> i32 {
    if silent == 0 { 6 } else { 1 }
}
