//! Which key comes next.
//!
//! The zipfian follows Hörmann and Derflinger, "Rejection-inversion to generate variates
//! from monotone discrete distributions" (1996): exact, and without YCSB's sum over all
//! keys at the start. Ranks are scattered by a bijection, so that hot keys do not stand
//! side by side and every key can be chosen, as hashing modulo n (YCSB) does not ensure.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rand::Rng;

use super::args::Distribution;

/// How skewed the zipfian is; YCSB's constant.
const THETA: f64 = 0.99;
/// A prime above any key count, so that multiplying by it modulo the count hits every key.
const SCATTER: u64 = 18_446_744_073_709_551_557;

/// Chooses keys by number. Clones share the count of keys, which inserts let grow.
#[derive(Clone, Debug)]
pub(super) struct KeyChooser {
    distribution: Distribution,
    zipf: Zipf,
    initial: u64,
    count: Arc<AtomicU64>,
}

impl KeyChooser {
    pub(super) fn new(distribution: Distribution, keys: u64) -> KeyChooser {
        KeyChooser { distribution, zipf: Zipf::new(keys, THETA), initial: keys, count: Arc::new(AtomicU64::new(keys)) }
    }

    /// A key that is, or will be, there.
    pub(super) fn existing(&self, rng: &mut impl Rng) -> u64 {
        match self.distribution {
            Distribution::Uniform => rng.random_range(0..self.initial),
            Distribution::Zipfian => scatter(self.zipf.rank(rng) - 1, self.initial),
            Distribution::Latest => self.count.load(Ordering::Relaxed) - self.zipf.rank(rng),
        }
    }

    /// A key that was never chosen before. It counts as there from now on, although its
    /// write is only beginning: a few reads of the latest keys miss.
    pub(super) fn fresh(&self) -> u64 {
        self.count.fetch_add(1, Ordering::Relaxed)
    }
}

fn scatter(rank: u64, keys: u64) -> u64 {
    let product = u128::from(rank) * u128::from(SCATTER);
    u64::try_from(product % u128::from(keys)).expect("a remainder is below its divisor")
}

/// Ranks from 1 to n, rank k with a probability in proportion to k^-theta.
#[derive(Clone, Debug)]
struct Zipf {
    n: f64,
    theta: f64,
    integral_first: f64,
    integral_last: f64,
    accept_below: f64,
}

impl Zipf {
    fn new(n: u64, theta: f64) -> Zipf {
        let mut zipf = Zipf { n: n as f64, theta, integral_first: 0.0, integral_last: 0.0, accept_below: 0.0 };
        zipf.integral_first = zipf.integral(1.5) - 1.0;
        zipf.integral_last = zipf.integral(zipf.n + 0.5);
        zipf.accept_below = 2.0 - zipf.integral_inverse(zipf.integral(2.5) - zipf.density(2.0));
        zipf
    }

    fn rank(&self, rng: &mut impl Rng) -> u64 {
        loop {
            let u = self.integral_last + rng.random::<f64>() * (self.integral_first - self.integral_last);
            let x = self.integral_inverse(u);
            let k = (x + 0.5).floor().clamp(1.0, self.n);
            if k - x <= self.accept_below || u >= self.integral(k + 0.5) - self.density(k) {
                return k as u64;
            }
        }
    }

    fn density(&self, x: f64) -> f64 {
        (-self.theta * x.ln()).exp()
    }

    /// The integral of the density from 1 to x, in a form that is stable near theta 1.
    fn integral(&self, x: f64) -> f64 {
        let log = x.ln();
        let t = (1.0 - self.theta) * log;
        (if t.abs() > 1e-8 { t.exp_m1() / t } else { 1.0 + t / 2.0 }) * log
    }

    fn integral_inverse(&self, x: f64) -> f64 {
        let t = (x * (1.0 - self.theta)).max(-1.0);
        ((if t.abs() > 1e-8 { t.ln_1p() / t } else { 1.0 - t / 2.0 }) * x).exp()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use rand::SeedableRng;
    use rand::rngs::SmallRng;

    use super::*;

    #[test]
    fn zipfian_ranks_come_as_often_as_the_formula_says() {
        const KEYS: u64 = 1_000;
        const DRAWS: u32 = 400_000;
        let zipf = Zipf::new(KEYS, THETA);
        let mut rng = SmallRng::seed_from_u64(7);
        let mut seen = vec![0_u32; KEYS as usize + 1];
        for _ in 0..DRAWS {
            seen[zipf.rank(&mut rng) as usize] += 1;
        }
        let total: f64 = (1..=KEYS).map(|k| (k as f64).powf(-THETA)).sum();
        for rank in [1_usize, 2, 3, 10, 100] {
            let expected = f64::from(DRAWS) * (rank as f64).powf(-THETA) / total;
            let off = (f64::from(seen[rank]) - expected).abs() / expected.sqrt();
            assert!(off < 5.0, "rank {rank}: {} drawn, {expected} expected", seen[rank]);
        }
        assert_eq!(seen[0], 0);
    }

    #[test]
    fn scattering_reaches_every_key_once() {
        for keys in [1, 2, 7, 1_000, 65_536] {
            let scattered: BTreeSet<u64> = (0..keys).map(|rank| scatter(rank, keys)).collect();
            assert_eq!(scattered.len() as u64, keys);
            assert!(scattered.last().is_some_and(|last| *last < keys));
        }
    }

    #[test]
    fn choices_stay_within_the_keys_and_inserts_make_new_ones() {
        let mut rng = SmallRng::seed_from_u64(1);
        for distribution in [Distribution::Uniform, Distribution::Zipfian, Distribution::Latest] {
            for keys in [1, 2, 50] {
                let chooser = KeyChooser::new(distribution, keys);
                assert!((0..1_000).all(|_| chooser.existing(&mut rng) < keys));
                assert_eq!((chooser.fresh(), chooser.clone().fresh()), (keys, keys + 1));
                assert!((0..1_000).all(|_| chooser.existing(&mut rng) < keys + 2));
            }
        }
        let chooser = KeyChooser::new(Distribution::Latest, 10);
        for _ in 0..1_000 {
            chooser.fresh();
        }
        let newest = (0..1_000).filter(|_| chooser.existing(&mut rng) >= 1_000).count();
        assert_eq!(newest, 1_000, "the newest ten of 1010 keys are all that a zipfian over ten can reach");
    }
}
