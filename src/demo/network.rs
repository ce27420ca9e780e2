//! Cascade-correlation (Fahlman and Lebiere, 1990): train the output, and when it learns no more, train a pool of candidates
//! to correlate with the error that is left; freeze the best as a hidden unit that every later unit sees.
//!
//! Frozen units never change, so their values are computed once a pattern and kept: an epoch costs one product per weight.

/// Inputs of the two-spirals problem.
pub const INPUTS: usize = 2;

/// Bias and inputs stand in front of the hidden units in every row of features.
const FIRST_HIDDEN: usize = 1 + INPUTS;

/// Keeps the slope of a saturated unit above zero (Fahlman's "sigmoid prime offset"), so that it can still turn around.
const PRIME_OFFSET: f64 = 0.05;

/// Loss and accuracy of the network.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[allow(missing_docs, reason = "self-explanatory")]
pub struct Score {
    pub train_loss: f64,
    pub train_accuracy: f64,
    pub val_loss: f64,
    pub val_accuracy: f64,
}

/// A growing network.
#[derive(Debug)]
pub struct Network {
    train: Patterns,
    validation: Patterns,
    hidden: Vec<Vec<f64>>,
    output: Weights,
    candidates: Vec<Weights>,
    best_candidate: usize,
    random: u64,
}

#[derive(Debug)]
struct Patterns {
    /// One row a pattern: bias, inputs, hidden units.
    features: Vec<Vec<f64>>,
    targets: Vec<f64>,
    /// Errors of the output.
    errors: Vec<f64>,
}

/// Weights of one unit, and the Rprop state of each.
#[derive(Clone, Debug)]
struct Weights {
    values: Vec<f64>,
    steps: Vec<f64>,
    slopes: Vec<f64>,
}

/// The two intertwined spirals: 97 points on each. `shift` moves along the spiral, for validation points.
pub fn two_spirals(shift: f64) -> impl Iterator<Item = ([f64; INPUTS], f64)> {
    (0..97).flat_map(move |n| {
        let at = f64::from(n) + shift;
        let (angle, radius) = (at * std::f64::consts::PI / 16.0, (104.0 - at) / 104.0);
        let point = [radius * angle.sin(), radius * angle.cos()];
        [(point, 1.0), (point.map(|x| -x), -1.0)]
    })
}

impl Network {
    /// A network without hidden units. The same seed learns in the same way.
    pub fn new(seed: u64) -> Self {
        let mut network = Self {
            train: Patterns::new(two_spirals(0.0)),
            validation: Patterns::new(two_spirals(0.5)),
            hidden: Vec::new(),
            output: Weights::new(Vec::new()),
            candidates: Vec::new(),
            best_candidate: 0,
            random: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
        };
        network.output = network.random_weights(FIRST_HIDDEN, 0.1);
        network
    }

    /// One epoch of the output unit.
    pub fn output_epoch(&mut self) -> Score {
        let mut slopes = vec![0.0; self.output.values.len()];
        let (train_loss, train_accuracy) = self.train.measure(&self.output.values, |row, error, value| {
            let delta = error * (1.0 - value * value + PRIME_OFFSET);
            slopes.iter_mut().zip(row).for_each(|(slope, x)| *slope += delta * x);
        });
        let (val_loss, val_accuracy) = self.validation.measure(&self.output.values, |_, _, _| {});
        self.output.descend(&slopes);
        Score { train_loss, train_accuracy, val_loss, val_accuracy }
    }

    /// Begins a pool of candidates with random weights.
    pub fn begin_candidates(&mut self, pool: usize) {
        let inputs = FIRST_HIDDEN + self.hidden.len();
        self.candidates = (0..pool.max(1)).map(|_| self.random_weights(inputs, 1.0)).collect();
    }

    /// One epoch of all candidates; returns the best correlation with the error that is left, 0 to 1.
    pub fn candidate_epoch(&mut self) -> f64 {
        let errors = &self.train.errors;
        let count = errors.len() as f64;
        let mean_error = errors.iter().sum::<f64>() / count;
        let error_power: f64 = errors.iter().map(|error| (error - mean_error).powi(2)).sum();
        let mut best = (0, 0.0);
        let mut values = vec![0.0; errors.len()];
        for (index, candidate) in self.candidates.iter_mut().enumerate() {
            for (value, row) in values.iter_mut().zip(&self.train.features) {
                *value = dot(&candidate.values, row).tanh();
            }
            let mean = values.iter().sum::<f64>() / count;
            let power: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
            let covariance: f64 = values.iter().zip(errors).map(|(value, error)| value * (error - mean_error)).sum();
            let correlation = covariance.abs() / (power * error_power).sqrt().max(1e-12);
            if correlation > best.1 {
                best = (index, correlation);
            }
            // Up the slope of |covariance|: `descend` goes down, hence the sign.
            let mut slopes = vec![0.0; candidate.values.len()];
            for ((value, error), row) in values.iter().zip(errors).zip(&self.train.features) {
                let delta = -covariance.signum() * (error - mean_error) * (1.0 - value * value);
                slopes.iter_mut().zip(row).for_each(|(slope, x)| *slope += delta * x);
            }
            candidate.descend(&slopes);
        }
        self.best_candidate = best.0;
        best.1
    }

    /// Freezes the best candidate as a hidden unit. The output starts with a weight against the error it explains.
    pub fn install(&mut self) {
        let mut candidates = std::mem::take(&mut self.candidates);
        if candidates.is_empty() {
            return;
        }
        let unit = candidates.swap_remove(self.best_candidate.min(candidates.len() - 1)).values;
        for patterns in [&mut self.train, &mut self.validation] {
            for row in &mut patterns.features {
                let value = dot(&unit, row).tanh();
                row.push(value);
            }
        }
        let covariance: f64 = (self.train.features.iter().zip(&self.train.errors))
            .map(|(row, error)| row.last().unwrap_or(&0.0) * error)
            .sum();
        let mut output = self.output.values.clone();
        output.push(-covariance.signum() * 0.1);
        self.output = Weights::new(output);
        self.hidden.push(unit);
    }

    /// Number of hidden units.
    pub fn hidden_units(&self) -> usize {
        self.hidden.len()
    }

    /// Number of weights.
    pub fn parameters(&self) -> usize {
        self.hidden.iter().map(Vec::len).sum::<usize>() + self.output.values.len()
    }

    /// Every connection: from, to and weight. Nodes are numbered bias, inputs, hidden units, output.
    pub fn connections(&self) -> impl Iterator<Item = (usize, usize, f64)> {
        let output = FIRST_HIDDEN + self.hidden.len();
        let units = self.hidden.iter().enumerate().map(|(index, unit)| (FIRST_HIDDEN + index, unit));
        units
            .chain([(output, &self.output.values)])
            .flat_map(|(to, weights)| weights.iter().enumerate().map(move |(from, weight)| (from, to, *weight)))
    }

    fn random_weights(&mut self, count: usize, scale: f64) -> Weights {
        let next = |random: &mut u64| {
            *random ^= *random << 13;
            *random ^= *random >> 7;
            *random ^= *random << 17;
            (*random >> 11) as f64 / (1u64 << 52) as f64 - 1.0
        };
        Weights::new((0..count).map(|_| scale * next(&mut self.random)).collect())
    }
}

impl Patterns {
    fn new(points: impl Iterator<Item = ([f64; INPUTS], f64)>) -> Self {
        let (features, targets): (Vec<_>, Vec<_>) = points.map(|([x, y], target)| (vec![1.0, x, y], target)).unzip();
        Self { features, errors: vec![0.0; targets.len()], targets }
    }

    /// Mean squared error and accuracy of an output with these weights; `each` sees row, error and value.
    fn measure(&mut self, weights: &[f64], mut each: impl FnMut(&[f64], f64, f64)) -> (f64, f64) {
        let (mut squares, mut right) = (0.0, 0u32);
        for ((row, target), kept) in self.features.iter().zip(&self.targets).zip(&mut self.errors) {
            let value = dot(weights, row).tanh();
            let error = value - target;
            *kept = error;
            squares += error * error;
            right += u32::from(value * target > 0.0);
            each(row, error, value);
        }
        let count = self.targets.len() as f64;
        (squares / count, f64::from(right) / count)
    }
}

impl Weights {
    fn new(values: Vec<f64>) -> Self {
        Self { steps: vec![0.02; values.len()], slopes: vec![0.0; values.len()], values }
    }

    /// One step of iRprop-: each weight has a step of its own, longer while its slope keeps its sign.
    fn descend(&mut self, slopes: &[f64]) {
        for (((value, step), last), slope) in
            self.values.iter_mut().zip(&mut self.steps).zip(&mut self.slopes).zip(slopes)
        {
            let agreement = *last * slope;
            *last = *slope;
            if agreement > 0.0 {
                *step = (*step * 1.2).min(2.0);
            } else if agreement < 0.0 {
                *step = (*step * 0.5).max(1e-6);
                *last = 0.0;
                continue;
            }
            if *slope != 0.0 {
                *value -= slope.signum() * *step;
            }
        }
    }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(x, y)| x * y).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grow(seed: u64, units: usize) -> Vec<Score> {
        let mut network = Network::new(seed);
        let mut scores = Vec::new();
        for unit in 0..=units {
            let mut last = Score::default();
            (0..80).for_each(|_| last = network.output_epoch());
            scores.push(last);
            if unit < units {
                network.begin_candidates(8);
                (0..80).for_each(|_| _ = network.candidate_epoch());
                network.install();
            }
        }
        scores
    }

    #[test]
    fn there_are_194_points_half_on_each_spiral() {
        let points: Vec<_> = two_spirals(0.0).collect();
        assert_eq!((points.len(), points.iter().filter(|(_, target)| *target > 0.0).count()), (194, 97));
    }

    #[test]
    fn it_learns_two_spirals_by_growing() {
        for seed in [1, 2, 3] {
            let scores = grow(seed, 16);
            let (first, last) = (scores[0], scores[scores.len() - 1]);
            assert!(first.train_accuracy < 0.7, "a line cannot part two spirals: {first:?}");
            assert!(last.train_loss < first.train_loss / 2.0, "seed {seed}: {first:?} to {last:?}");
            assert!(last.train_accuracy > 0.9 && last.val_accuracy > 0.8, "seed {seed}: {last:?}");
        }
    }

    #[test]
    fn every_connection_has_its_place() {
        let mut network = Network::new(7);
        for _ in 0..2 {
            network.output_epoch();
            network.begin_candidates(2);
            network.candidate_epoch();
            network.install();
        }
        let connections: Vec<_> = network.connections().collect();
        assert_eq!(connections.len(), network.parameters());
        assert_eq!(network.parameters(), 3 + 4 + 5, "each unit sees the bias, the inputs and all units before it");
        assert!(connections.iter().all(|(from, to, weight)| from < to && weight.is_finite()));
    }
}
