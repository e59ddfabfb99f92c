//! What a dynamic model has to beat: the best static depth, and leaving by chance.

use serde::{Deserialize, Serialize};

use super::policy::Measured;
use super::samples::{Costs, Samples};

/// The model cut after one exit, that exit's head for everyone, no rule.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FixedDepth {
    /// Index of the exit; the number of exits for the plain model.
    pub exit: usize,
    /// Its name.
    pub name: String,
    /// Fraction of correct answers.
    pub accuracy: f64,
    /// Multiply-accumulates per sample.
    pub macs: f64,
    /// The same as a fraction of the plain model's.
    pub macs_ratio: f64,
}

/// As many samples leave at each exit as in the dynamic model, but chosen at random.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Random {
    /// Expected fraction of correct answers, computed exactly.
    pub accuracy: f64,
    /// Fraction of the plain model's multiply-accumulates: the dynamic model's.
    pub macs_ratio: f64,
}

/// The rivals, measured on the same rows as the dynamic model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rivals {
    /// The most accurate depth that executes no more than the dynamic model.
    pub fixed_depth: Option<FixedDepth>,
    /// Random decisions with the same histogram.
    pub random: Random,
    /// Every depth, the plain model last.
    pub depths: Vec<FixedDepth>,
}

/// Whether the dynamic model is worth having.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "verdict", rename_all = "kebab-case")]
pub enum Verdict {
    /// It saves work inside the allowed drop, and no rival does as well.
    Pays,
    /// It does not.
    DoesNotPay {
        /// Why, for a reader.
        reason: String,
    },
}

impl Verdict {
    /// Whether it pays.
    pub fn pays(&self) -> bool {
        matches!(self, Self::Pays)
    }
}

/// Every depth on `rows`, the plain model last.
pub fn depths(samples: &Samples, costs: &Costs, rows: &[usize]) -> Vec<FixedDepth> {
    let accuracy = |correct: &[bool]| rows.iter().filter(|&&r| correct[r]).count() as f64 / rows.len().max(1) as f64;
    let depth = |exit: usize, name: &str, correct: &[bool], macs: f64| FixedDepth {
        exit,
        name: name.to_owned(),
        accuracy: accuracy(correct),
        macs,
        macs_ratio: macs / costs.plain(),
    };
    let exits = samples.exits.iter().zip(&samples.correct).enumerate();
    let mut all: Vec<FixedDepth> =
        exits.map(|(k, (name, correct))| depth(k, name, correct, costs.backbone(k) + costs.head[k] as f64)).collect();
    all.push(depth(all.len(), "full depth", &samples.plain_correct, costs.plain()));
    all
}

/// The most accurate of `depths` that costs at most `most`; of equally accurate ones the cheaper.
/// `point` gives a depth's accuracy and cost.
pub fn best_depth<D>(depths: &[D], most: f64, point: impl Fn(&D) -> (f64, f64)) -> Option<&D> {
    let better = |a: &&D, b: &&D| {
        let (a, b) = (point(a), point(b));
        a.0.total_cmp(&b.0).then(b.1.total_cmp(&a.1))
    };
    depths.iter().filter(|d| point(d).1 <= most).max_by(better)
}

/// The expected accuracy if `histogram` samples, chosen at random, leave at depths of these accuracies.
pub fn random_accuracy(histogram: &[u64], accuracies: impl IntoIterator<Item = f64>) -> f64 {
    let samples = histogram.iter().sum::<u64>().max(1) as f64;
    histogram.iter().zip(accuracies).map(|(n, accuracy)| *n as f64 / samples * accuracy).sum()
}

/// The rivals of a dynamic model that did `dynamic`, given all depths on the same rows.
pub fn rivals(dynamic: &Measured, depths: Vec<FixedDepth>) -> Rivals {
    let histogram: Vec<u64> = dynamic.exit_histogram.iter().map(|n| *n as u64).collect();
    Rivals {
        fixed_depth: best_depth(&depths, dynamic.macs, |d| (d.accuracy, d.macs)).cloned(),
        random: Random {
            accuracy: random_accuracy(&histogram, depths.iter().map(|d| d.accuracy)),
            macs_ratio: dynamic.macs_ratio,
        },
        depths,
    }
}

/// Judges `dynamic` against doing nothing and against its rivals.
pub fn verdict(dynamic: &Measured, rivals: &Rivals) -> Verdict {
    let percent = |x: f64| format!("{:.1} %", 100.0 * x);
    let reason = if dynamic.macs_ratio >= 1.0 {
        format!("with exits {} of the plain model's work is executed, so nothing is saved", percent(dynamic.macs_ratio))
    } else if let Some(d) = rivals.fixed_depth.as_ref().filter(|d| d.accuracy >= dynamic.accuracy) {
        let work = if d.macs < dynamic.macs { "at fewer MACs" } else { "at the same MACs" };
        format!(
            "exit after {} for everyone is as accurate {work} ({} correct at {} of the work; \
             with exits {} at {})",
            d.name,
            percent(d.accuracy),
            percent(d.macs_ratio),
            percent(dynamic.accuracy),
            percent(dynamic.macs_ratio)
        )
    } else if rivals.random.accuracy >= dynamic.accuracy {
        format!(
            "random decisions with the same histogram are as accurate ({} correct; with exits {})",
            percent(rivals.random.accuracy),
            percent(dynamic.accuracy)
        )
    } else {
        return Verdict::Pays;
    };
    Verdict::DoesNotPay { reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_depth_is_affordable_and_of_equals_the_cheaper() {
        let depths = [(0.7, 0.2), (0.8, 0.4), (0.8, 0.5), (0.9, 0.9)];
        let best = |most: f64| best_depth(&depths, most, |d| *d);
        assert_eq!(best(1.0), Some(&(0.9, 0.9)));
        assert_eq!(best(0.6), Some(&(0.8, 0.4)));
        assert_eq!(best(0.2), Some(&(0.7, 0.2)));
        assert_eq!(best(0.1), None);
    }
}
