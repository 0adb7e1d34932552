//! Numbers, and what is said of them.

/// A few numbers, or many.
#[derive(Clone, Default, Debug)]
pub(super) struct Samples {
    values: Vec<f64>,
}

impl Samples {
    pub(super) fn push(&mut self, value: f64) {
        self.values.push(value);
    }

    pub(super) fn len(&self) -> usize {
        self.values.len()
    }

    pub(super) fn mean(&self) -> f64 {
        if self.values.is_empty() { 0.0 } else { self.values.iter().sum::<f64>() / self.values.len() as f64 }
    }

    /// The smallest number that so great a share of all does not exceed.
    pub(super) fn percentile(&self, share: f64) -> f64 {
        let mut sorted = self.values.clone();
        sorted.sort_by(f64::total_cmp);
        let rank = (share * sorted.len() as f64).ceil() as usize;
        sorted.get(rank.max(1) - 1).or(sorted.last()).copied().unwrap_or(0.0)
    }

    pub(super) fn max(&self) -> f64 {
        self.values.iter().copied().fold(0.0, f64::max)
    }

    pub(super) fn min(&self) -> f64 {
        self.values.iter().copied().reduce(f64::min).unwrap_or(0.0)
    }
}

impl FromIterator<f64> for Samples {
    fn from_iter<T: IntoIterator<Item = f64>>(values: T) -> Samples {
        Samples { values: values.into_iter().collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_one_of_the_numbers() {
        let samples: Samples = (1..=100).map(f64::from).collect();
        assert_eq!([0.5, 0.99, 1.0].map(|share| samples.percentile(share)), [50.0, 99.0, 100.0]);
        assert_eq!((samples.mean(), samples.min(), samples.max()), (50.5, 1.0, 100.0));
        assert_eq!(Samples::default().percentile(0.99), 0.0);
        let one: Samples = [7.0].into_iter().collect();
        assert_eq!(one.percentile(0.5), 7.0);
    }
}
