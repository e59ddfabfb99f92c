//! What a calibration is given: signals and correctness per exit and sample, costs, the split
//! into rows, and the checks after which indexing needs no further care.

use serde::{Deserialize, Serialize};

use super::CalibrateError;
use crate::fit::random::Random;

/// Fewest rows to tune on, and to verify on.
pub const MIN_ROWS: usize = 20;

/// What the exit rule looks at.
#[derive(Clone, Debug, PartialEq)]
pub enum Signal {
    /// `[exit][row]`, larger means surer: largest probability, margin, negative entropy, …
    /// A sample leaves at the first kept exit where `confidence > threshold`.
    Confidence(Vec<Vec<f32>>),
    /// A sample leaves at the first kept exit where that many kept heads in a row, this one
    /// included, name the same class (patience: Zhou et al., arXiv 2006.04152).
    Patience {
        /// `[exit][row]`, the class that each head names.
        class: Vec<Vec<u32>>,
        /// The numbers of heads in a row to try, 2 or more.
        patience: Vec<usize>,
    },
}

/// What `correct` was measured against.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reference {
    /// True labels: the plain model can be wrong and an exit can be right where it is.
    Labels,
    /// The class that the plain model names: it is always right.
    PlainModel,
}

/// Everything observed, exits in order of depth.
#[derive(Clone, Debug, PartialEq)]
pub struct Samples {
    /// The name of each candidate exit, as a reader knows it ("block 3").
    pub exits: Vec<String>,
    /// What the rule looks at.
    pub signal: Signal,
    /// `[exit][row]`: the head's class is the reference's.
    pub correct: Vec<Vec<bool>>,
    /// `[row]`: the plain model's class is the reference's.
    pub plain_correct: Vec<bool>,
    /// What `correct` was measured against.
    pub reference: Reference,
}

/// Multiply-accumulates per sample.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Costs {
    /// `[exit]`: the backbone from the exit before (or the input) to this one.
    pub segment: Vec<u64>,
    /// `[exit]`: the head with its rule. Paid by every sample that reaches it, if it is kept.
    pub head: Vec<u64>,
    /// The backbone after the last exit.
    pub tail: u64,
    /// `[exit]`: a model of its own that ends there, which need not keep what later blocks would read.
    pub alone: Vec<u64>,
}

impl Costs {
    /// Costs where a model of its own takes what the dynamic one takes up to an exit.
    pub fn of_parts(segment: Vec<u64>, head: Vec<u64>, tail: u64) -> Costs {
        let mut backbone = 0;
        let upto = segment.iter().zip(&head).map(|(segment, head)| {
            backbone += segment;
            backbone + head
        });
        Costs { alone: upto.collect(), segment, head, tail }
    }

    /// The plain model: all of the backbone and no head.
    pub fn plain(&self) -> f64 {
        self.segment.iter().map(|&s| s as f64).sum::<f64>() + self.tail as f64
    }

    /// The backbone up to and including exit `k`; the whole of it for `k` = number of exits.
    pub fn backbone(&self, k: usize) -> f64 {
        match self.segment.get(..=k) {
            Some(segments) => segments.iter().map(|&s| s as f64).sum(),
            None => self.plain(),
        }
    }
}

/// Disjoint rows to tune thresholds on and to verify them on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Split {
    /// Rows to search thresholds on.
    pub tune: Vec<usize>,
    /// Rows to bound the loss of quality on.
    pub verify: Vec<usize>,
}

impl Split {
    /// Shuffles `rows` by `seed` and gives `verify` of them (a fraction) to verify.
    pub fn random(rows: &[usize], verify: f64, seed: u64) -> Self {
        let mut order = rows.to_vec();
        Random::new(seed ^ 0xca11_b8a7).shuffle(&mut order);
        let count = (rows.len() as f64 * verify.clamp(0.0, 1.0)).round() as usize;
        let tune = order.split_off(count.min(rows.len()));
        Self { tune, verify: order }
    }
}

/// Checks all lengths, rows and values.
pub(crate) fn check(samples: &Samples, costs: &Costs, split: &Split) -> Result<(), CalibrateError> {
    let (exits, rows) = (samples.exits.len(), samples.plain_correct.len());
    if exits == 0 {
        return Err(CalibrateError::NoExits);
    }
    length("segment costs", costs.segment.len(), exits)?;
    length("head costs", costs.head.len(), exits)?;
    length("costs of fixed depths", costs.alone.len(), exits)?;
    if costs.plain() <= 0.0 {
        return Err(CalibrateError::Option { option: "the plain model's cost", range: "above 0" });
    }
    columns("correct", &samples.correct, &samples.exits, rows)?;
    check_signal(samples, rows)?;
    let wrong = samples.plain_correct.iter().position(|c| !c);
    if let (Reference::PlainModel, Some(row)) = (samples.reference, wrong) {
        return Err(CalibrateError::PlainWrong { row });
    }
    check_split(split, rows)
}

fn check_signal(samples: &Samples, rows: usize) -> Result<(), CalibrateError> {
    match &samples.signal {
        Signal::Confidence(confidence) => {
            columns("confidence", confidence, &samples.exits, rows)?;
            for (exit, column) in samples.exits.iter().zip(confidence) {
                if let Some(row) = column.iter().position(|c| !c.is_finite()) {
                    return Err(CalibrateError::NotFinite { exit: exit.clone(), row });
                }
            }
            Ok(())
        }
        Signal::Patience { class, patience } => {
            columns("class", class, &samples.exits, rows)?;
            if patience.is_empty() || patience.iter().any(|&p| p < 2) {
                return Err(CalibrateError::Option { option: "patience", range: "2 or more" });
            }
            Ok(())
        }
    }
}

fn check_split(split: &Split, rows: usize) -> Result<(), CalibrateError> {
    let mut seen = vec![false; rows];
    for (part, list) in [("tune", &split.tune), ("verify", &split.verify)] {
        if list.len() < MIN_ROWS {
            return Err(CalibrateError::TooFewRows { part, needed: MIN_ROWS, found: list.len() });
        }
        for &row in list {
            match seen.get_mut(row) {
                None => return Err(CalibrateError::RowOutOfRange { part, row, rows }),
                Some(true) => return Err(CalibrateError::RowTwice { row }),
                Some(seen) => *seen = true,
            }
        }
    }
    Ok(())
}

fn length(what: &str, found: usize, expected: usize) -> Result<(), CalibrateError> {
    if found == expected {
        return Ok(());
    }
    Err(CalibrateError::Length { what: what.into(), expected, found })
}

fn columns<T>(what: &str, columns: &[Vec<T>], exits: &[String], rows: usize) -> Result<(), CalibrateError> {
    length(what, columns.len(), exits.len())?;
    for (exit, column) in exits.iter().zip(columns) {
        length(&format!("exit '{exit}': {what}"), column.len(), rows)?;
    }
    Ok(())
}
