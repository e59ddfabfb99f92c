//! Chooses among gated models that were run on the data: the least work whose loss of quality stays
//! inside what the user allows. Gates act on each other, so every policy is measured by running
//! it, not predicted from one table as exits are. Knows arrays only.
//!
//! Policies that no other beats on the *tune* rows are put in order from cautious to bold; on the
//! *verify* rows they are tested in that order until one fails (Learn then Test, Angelopoulos et
//! al., arXiv 2110.01052). For answers that are right or wrong the test is that of exits; for
//! losses it is Student's t-test on the differences between rows, which holds where their mean is
//! near normal.

use serde::{Deserialize, Serialize};

use super::bound::DropTest;
use super::samples::{MIN_ROWS, Reference, Split};
use super::student;
use super::{CalibrateError, Goal, Verdict};

/// Standard errors added to a drop to predict whether it passes; this only ranks policies.
const PREDICTED: f64 = 1.3;

/// How gates decide.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Family {
    /// The same FFNs never run.
    Static,
    /// A token skips FFNs after one that changed it little.
    Cosine,
    /// A fitted gate per FFN.
    Learned,
    /// Chance, as often per FFN as in the policy it is compared with.
    Random,
}

impl Family {
    /// In words.
    pub fn words(self) -> &'static str {
        match self {
            Family::Static => "static",
            Family::Cosine => "cosine",
            Family::Learned => "learned",
            Family::Random => "random",
        }
    }
}

/// Quality per row.
#[derive(Clone, Debug, PartialEq)]
pub enum Quality {
    /// Whether the answer is right.
    Correct(Vec<bool>),
    /// The mean loss in nats, lower is better.
    Loss(Vec<f64>),
}

impl Quality {
    /// The mean over all rows: of right answers, or of losses.
    pub fn mean(&self) -> f64 {
        mean(self, &(0..len(self)).collect::<Vec<_>>())
    }
}

/// A policy that was run on all rows.
#[derive(Clone, Debug, PartialEq)]
pub struct Trial {
    /// How it decides.
    pub family: Family,
    /// For a reader: "learned, 25 % of FFNs skipped".
    pub name: String,
    /// Quality per row.
    pub quality: Quality,
    /// Mean multiply-accumulates per row, gates counted.
    pub macs: f64,
    /// Share of the FFNs (of all blocks) that were skipped, over tokens.
    pub skipped: f64,
}

/// What a policy does on a set of rows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// Mean accuracy, or mean loss in nats.
    pub quality: f64,
    /// What it loses: accuracy as a fraction, or loss relative to the plain model's; negative for a gain.
    pub drop: f64,
}

/// One policy with its measurements.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Tried {
    /// How it decides.
    pub family: Family,
    /// For a reader.
    pub name: String,
    /// Executed ÷ plain multiply-accumulates on all rows.
    pub macs_ratio: f64,
    /// Share of FFNs skipped.
    pub skipped: f64,
    /// On the rows it was tuned on.
    pub tune: Measured,
    /// On the others.
    pub verify: Measured,
    /// The p-value of "it drops more than allowed"; absent where the walk did not get.
    pub p_value: Option<f64>,
    /// Whether the walk passed it.
    pub passed: bool,
}

/// The result of a calibration of gates.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GateOutcome {
    /// Whether quality is a loss.
    pub is_loss: bool,
    /// The plain model on the verify rows.
    pub plain: Measured,
    /// The position in `tried` of the policy to build; absent for the plain model.
    pub chosen: Option<usize>,
    /// Whether it pays, or why nothing does.
    pub verdict: Verdict,
    /// The best static set at no more work than the policy judged.
    pub best_static: Option<usize>,
    /// Chance with the same histogram as the policy judged.
    pub random: Option<Tried>,
    /// All policies, as they were given.
    pub tried: Vec<Tried>,
    /// What was allowed.
    pub max_drop: f64,
    /// The confidence of the bound.
    pub confidence: f64,
}

/// The plain model and the policies, measured.
pub struct Contest<'a> {
    plain: &'a Trial,
    split: &'a Split,
    goal: &'a Goal,
    /// The policies, in the order given.
    pub tried: Vec<Tried>,
    /// The position of the cheapest that passed, if any did.
    pub best: Option<usize>,
}

impl<'a> Contest<'a> {
    /// Measures and tests `trials`; `families` may be chosen, the others only compared with.
    ///
    /// # Errors
    ///
    /// Rows of different numbers or kinds, fewer than [`MIN_ROWS`] rows in a part.
    pub fn new(
        plain: &'a Trial,
        trials: &[Trial],
        families: &[Family],
        split: &'a Split,
        goal: &'a Goal,
    ) -> Result<Contest<'a>, CalibrateError> {
        check(plain, trials, split)?;
        let mut contest = Contest { plain, split, goal, tried: Vec::new(), best: None };
        contest.tried = trials.iter().map(|t| contest.measure(t)).collect();
        let order = contest.order(trials, families);
        contest.walk(&order, trials);
        let passed = (0..trials.len()).filter(|i| contest.tried[*i].passed);
        contest.best = passed.min_by(|a, b| contest.tried[*a].macs_ratio.total_cmp(&contest.tried[*b].macs_ratio));
        Ok(contest)
    }

    /// A policy's measurements.
    pub fn measure(&self, trial: &Trial) -> Tried {
        Tried {
            family: trial.family,
            name: trial.name.clone(),
            macs_ratio: trial.macs / self.plain.macs.max(1.0),
            skipped: trial.skipped,
            tune: compare(self.plain, trial, &self.split.tune),
            verify: compare(self.plain, trial, &self.split.verify),
            p_value: None,
            passed: false,
        }
    }

    /// The policies that may be chosen and that no other beats on the tune rows, cautious ones first.
    fn order(&self, trials: &[Trial], families: &[Family]) -> Vec<usize> {
        let predicted =
            |i: usize| self.tried[i].tune.drop + PREDICTED * standard_error(self.plain, &trials[i], &self.split.tune);
        let mut order: Vec<usize> = (0..trials.len())
            .filter(|i| families.contains(&trials[*i].family) && self.tried[*i].macs_ratio < 1.0)
            .collect();
        order.sort_by(|a, b| predicted(*a).total_cmp(&predicted(*b)));
        let mut least = f64::INFINITY;
        order.retain(|i| {
            let cheaper = self.tried[*i].macs_ratio < least;
            least = least.min(self.tried[*i].macs_ratio);
            cheaper
        });
        order
    }

    fn walk(&mut self, order: &[usize], trials: &[Trial]) {
        for i in order {
            let p = p_value(self.plain, &trials[*i], &self.split.verify, self.goal);
            self.tried[*i].p_value = Some(p);
            self.tried[*i].passed = p <= 1.0 - self.goal.confidence;
            if !self.tried[*i].passed {
                return;
            }
        }
    }

    /// The best static set on the tune rows at no more work than policy `i`.
    pub fn best_static(&self, i: usize) -> Option<usize> {
        let limit = self.tried[i].macs_ratio + 1e-9;
        let sets = (0..self.tried.len())
            .filter(|s| *s != i && self.tried[*s].family == Family::Static && self.tried[*s].macs_ratio <= limit);
        sets.min_by(|a, b| self.tried[*a].tune.drop.total_cmp(&self.tried[*b].tune.drop))
    }

    /// The verdict on policy `judged` (the plain model if absent), whose random rival is `random`.
    pub fn outcome(self, judged: Option<usize>, random: Option<Tried>) -> GateOutcome {
        let best_static = judged.and_then(|i| self.best_static(i));
        let verdict = self.verdict(judged, best_static, random.as_ref());
        let rows = &self.split.verify;
        GateOutcome {
            is_loss: matches!(self.plain.quality, Quality::Loss(_)),
            plain: Measured { quality: mean(&self.plain.quality, rows), drop: 0.0 },
            chosen: judged.filter(|_| verdict.pays()),
            verdict,
            best_static,
            random,
            tried: self.tried,
            max_drop: self.goal.max_drop,
            confidence: self.goal.confidence,
        }
    }

    fn verdict(&self, judged: Option<usize>, best_static: Option<usize>, random: Option<&Tried>) -> Verdict {
        let Some(judged) = judged.map(|i| &self.tried[i]) else {
            let allowed = 100.0 * self.goal.max_drop;
            return Verdict::DoesNotPay {
                reason: format!(
                    "nothing that skips FFNs keeps the drop within {allowed:.2} % at {:.0} % confidence on {} verify \
                     rows",
                    100.0 * self.goal.confidence,
                    self.split.verify.len()
                ),
            };
        };
        if judged.family == Family::Static {
            return Verdict::Pays;
        }
        let as_good = |rival: &Tried| rival.verify.drop <= judged.verify.drop;
        let (drop, work) = (100.0 * judged.verify.drop, 100.0 * judged.macs_ratio);
        if let Some(rival) = best_static.map(|i| &self.tried[i]).filter(|r| as_good(r)) {
            return Verdict::DoesNotPay {
                reason: format!(
                    "adaptivity does not pay here: {} loses {:.2} % at {:.1} % of the work, deciding per token {drop:.2} \
                     % at {work:.1} %",
                    rival.name,
                    100.0 * rival.verify.drop,
                    100.0 * rival.macs_ratio
                ),
            };
        }
        if let Some(rival) = random.filter(|r| as_good(r)) {
            return Verdict::DoesNotPay {
                reason: format!(
                    "random decisions with the same histogram lose {:.2} %, deciding per token {drop:.2} %",
                    100.0 * rival.verify.drop
                ),
            };
        }
        Verdict::Pays
    }
}

fn check(plain: &Trial, trials: &[Trial], split: &Split) -> Result<(), CalibrateError> {
    let rows = len(&plain.quality);
    for trial in trials {
        if len(&trial.quality) != rows {
            let (what, found) = (trial.name.clone(), len(&trial.quality));
            return Err(CalibrateError::Length { what, expected: rows, found });
        }
    }
    for (part, list) in [("tune", &split.tune), ("verify", &split.verify)] {
        if list.len() < MIN_ROWS {
            return Err(CalibrateError::TooFewRows { part, needed: MIN_ROWS, found: list.len() });
        }
        if let Some(row) = list.iter().copied().find(|r| *r >= rows) {
            return Err(CalibrateError::RowOutOfRange { part, row, rows });
        }
    }
    Ok(())
}

fn len(quality: &Quality) -> usize {
    match quality {
        Quality::Correct(rows) => rows.len(),
        Quality::Loss(rows) => rows.len(),
    }
}

/// The value of a row: 1 or 0 for an answer, the loss.
fn value(quality: &Quality, row: usize) -> f64 {
    match quality {
        Quality::Correct(rows) => f64::from(u8::from(rows[row])),
        Quality::Loss(rows) => rows[row],
    }
}

fn mean(quality: &Quality, rows: &[usize]) -> f64 {
    rows.iter().map(|r| value(quality, *r)).sum::<f64>() / rows.len().max(1) as f64
}

fn compare(plain: &Trial, trial: &Trial, rows: &[usize]) -> Measured {
    let (before, after) = (mean(&plain.quality, rows), mean(&trial.quality, rows));
    let drop = match plain.quality {
        Quality::Correct(_) => before - after,
        Quality::Loss(_) => (after - before) / before.max(f64::MIN_POSITIVE),
    };
    Measured { quality: after, drop }
}

/// What each row adds to the drop.
fn differences(plain: &Trial, trial: &Trial, rows: &[usize]) -> Vec<f64> {
    let sign = match plain.quality {
        Quality::Correct(_) => -1.0,
        Quality::Loss(_) => 1.0,
    };
    rows.iter().map(|r| sign * (value(&trial.quality, *r) - value(&plain.quality, *r))).collect()
}

/// The standard error of the drop, in its own unit.
fn standard_error(plain: &Trial, trial: &Trial, rows: &[usize]) -> f64 {
    let unit = match plain.quality {
        Quality::Correct(_) => 1.0,
        Quality::Loss(_) => mean(&plain.quality, rows).max(f64::MIN_POSITIVE),
    };
    student::standard_error(&differences(plain, trial, rows)) / unit
}

/// The p-value of "the drop is above the allowed one".
fn p_value(plain: &Trial, trial: &Trial, rows: &[usize], goal: &Goal) -> f64 {
    match (&plain.quality, &trial.quality) {
        (Quality::Correct(before), Quality::Correct(after)) => {
            let count = |was: bool| rows.iter().filter(|r| before[**r] == was && after[**r] != was).count();
            let test = DropTest::new(Reference::Labels, 1.0 - goal.confidence, rows.len());
            test.p_value(count(true), count(false), goal.max_drop)
        }
        // The drop is relative, so the excess over the allowed one is a difference per row.
        _ => {
            let excess: Vec<f64> = rows
                .iter()
                .map(|r| value(&trial.quality, *r) - (1.0 + goal.max_drop) * value(&plain.quality, *r))
                .collect();
            student::p_value_of_negative_mean(&excess)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trial(family: Family, losses: impl Fn(usize) -> f64, macs: f64) -> Trial {
        let quality = Quality::Loss((0..80).map(losses).collect());
        Trial { family, name: family.words().into(), quality, macs, skipped: 0.25 }
    }

    fn plain_loss(row: usize) -> f64 {
        3.0 + (row % 7) as f64 * 0.1
    }

    fn split() -> Split {
        Split { tune: (0..40).collect(), verify: (40..80).collect() }
    }

    fn judged(trials: &[Trial], families: &[Family]) -> GateOutcome {
        let plain = trial(Family::Static, plain_loss, 100.0);
        let (split, goal) = (split(), Goal { max_drop: 0.01, confidence: 0.9 });
        let contest = Contest::new(&plain, trials, families, &split, &goal).unwrap();
        let best = contest.best;
        contest.outcome(best, None)
    }

    #[test]
    fn the_cheapest_policy_inside_the_drop_is_chosen() {
        let noise = |row: usize| ((row * 37) % 11) as f64 * 0.001;
        let good = trial(Family::Learned, |r| plain_loss(r) + noise(r), 80.0);
        let better = trial(Family::Learned, |r| plain_loss(r) + 0.01 + noise(r), 60.0);
        let bad = trial(Family::Learned, |r| plain_loss(r) + 0.2 + noise(r), 40.0);
        let outcome = judged(&[bad, good, better], &[Family::Learned]);
        assert_eq!(outcome.chosen, Some(2));
        assert!(!outcome.tried[0].passed && outcome.tried[0].p_value.is_some_and(|p| p > 0.5));
    }

    #[test]
    fn a_static_set_that_is_as_good_beats_deciding() {
        let learned = trial(Family::Learned, |r| plain_loss(r) + 0.01 + 0.002 * (r % 3) as f64, 60.0);
        let fixed = trial(Family::Static, |r| plain_loss(r) + 0.005 + 0.002 * (r % 3) as f64, 60.0);
        let only = judged(&[learned.clone(), fixed.clone()], &[Family::Learned]);
        assert_eq!((only.chosen, only.best_static), (None, Some(1)));
        assert!(matches!(&only.verdict, Verdict::DoesNotPay { reason } if reason.contains("adaptivity does not pay")));
        let both = judged(&[learned, fixed], &[Family::Learned, Family::Static]);
        assert_eq!(both.chosen, Some(1));
    }

    #[test]
    fn accuracy_uses_the_test_of_exits() {
        let correct = |wrong: usize| Quality::Correct((0..400).map(|r| r % 50 >= wrong).collect());
        let make =
            |family, wrong, macs| Trial { family, name: "t".into(), quality: correct(wrong), macs, skipped: 0.1 };
        let plain = make(Family::Static, 0, 100.0);
        let split = Split { tune: (0..200).collect(), verify: (200..400).collect() };
        let goal = Goal { max_drop: 0.05, confidence: 0.9 };
        let trials = [make(Family::Cosine, 1, 80.0), make(Family::Cosine, 5, 70.0)];
        let contest = Contest::new(&plain, &trials, &[Family::Cosine], &split, &goal).unwrap();
        assert_eq!(contest.best, Some(0));
        assert!((contest.tried[0].verify.drop - 0.02).abs() < 1e-12);
    }
}
