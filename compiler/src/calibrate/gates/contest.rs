//! Measures policies on both parts of the rows, tests them in order, and compares one with its rivals.

use super::super::samples::MIN_ROWS;
use super::super::{CalibrateError, Goal, Verdict};
use super::measure::{compare, mean, p_value, standard_error};
use super::{Family, GateOutcome, Measured, Quality, Trial, Tried};

/// Standard errors added to a drop to predict whether it passes; this only ranks policies.
const PREDICTED: f64 = 1.3;

/// The plain model and the policies, measured.
pub struct Contest<'a> {
    plain: &'a Trial,
    goal: &'a Goal,
    /// The policies, in the order given.
    pub tried: Vec<Tried>,
    /// The position of the cheapest that passed, if any did.
    pub best: Option<usize>,
}

impl<'a> Contest<'a> {
    /// Measures `trials` and tests those at the positions `may`; the others are only compared with. What
    /// may be chosen and the order of tests must not depend on the verify rows.
    ///
    /// # Errors
    ///
    /// Parts of other numbers of rows than the plain model's, fewer than [`MIN_ROWS`] rows in a part.
    pub fn new(
        plain: &'a Trial,
        trials: &[Trial],
        may: &[usize],
        goal: &'a Goal,
    ) -> Result<Contest<'a>, CalibrateError> {
        check(plain, trials)?;
        let mut contest = Contest { plain, goal, tried: Vec::new(), best: None };
        contest.tried = trials.iter().map(|t| contest.measure(t)).collect();
        let order = contest.order(trials, may);
        contest.walk(&order, trials);
        // Each is cheaper on the tune rows than those before it.
        contest.best = order.into_iter().take_while(|i| contest.tried[*i].passed).last();
        Ok(contest)
    }

    /// A policy's measurements.
    pub fn measure(&self, trial: &Trial) -> Tried {
        Tried {
            family: trial.family,
            name: trial.name.clone(),
            macs_ratio: (trial.tune.macs + trial.verify.macs)
                / (self.plain.tune.macs + self.plain.verify.macs).max(1.0),
            skipped: trial.skipped(),
            tune: compare(&self.plain.tune.quality, &trial.tune.quality),
            verify: compare(&self.plain.verify.quality, &trial.verify.quality),
            p_value: None,
            passed: false,
        }
    }

    /// The policies that may be chosen and that no other beats, cautious ones first, by the tune rows alone.
    fn order(&self, trials: &[Trial], may: &[usize]) -> Vec<usize> {
        let error = |i: usize| standard_error(&self.plain.tune.quality, &trials[i].tune.quality);
        let predicted = |i: usize| self.tried[i].tune.drop + PREDICTED * error(i);
        let mut order: Vec<usize> = may.to_vec();
        order.sort_by(|a, b| predicted(*a).total_cmp(&predicted(*b)));
        let mut least = self.plain.tune.macs;
        order.retain(|i| {
            let cheaper = trials[*i].tune.macs < least;
            least = least.min(trials[*i].tune.macs);
            cheaper
        });
        order
    }

    fn walk(&mut self, order: &[usize], trials: &[Trial]) {
        for i in order {
            let p = p_value(&self.plain.verify.quality, &trials[*i].verify.quality, self.goal);
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
        GateOutcome {
            is_loss: matches!(self.plain.verify.quality, Quality::Loss(_)),
            plain: Measured { quality: mean(&self.plain.verify.quality), drop: 0.0 },
            chosen: judged.filter(|_| verdict.pays()),
            missed: None,
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
            return refused(format!("nothing that skips FFNs keeps the drop within {}", self.allowed()));
        };
        if judged.macs_ratio >= 1.0 {
            return refused("it saves no work".into());
        }
        if !judged.passed {
            return refused(format!("it was not shown to keep the drop within {}", self.allowed()));
        }
        if judged.family == Family::Static {
            return Verdict::Pays;
        }
        let as_good = |rival: &Tried| rival.verify.drop <= judged.verify.drop;
        let (drop, work) = (100.0 * judged.verify.drop, 100.0 * judged.macs_ratio);
        if let Some(rival) = best_static.map(|i| &self.tried[i]).filter(|r| as_good(r)) {
            return refused(format!(
                "{} loses {:.2} % at {:.1} % of the work, deciding per token {drop:.2} % at {work:.1} %",
                rival.name,
                100.0 * rival.verify.drop,
                100.0 * rival.macs_ratio
            ));
        }
        if let Some(rival) = random.filter(|r| as_good(r)) {
            return refused(format!(
                "random decisions with the same histogram lose {:.2} %, deciding per token {drop:.2} %",
                100.0 * rival.verify.drop
            ));
        }
        Verdict::Pays
    }

    /// What is tested, in words.
    fn allowed(&self) -> String {
        format!(
            "{:.2} % at {:.0} % confidence on {} verify rows",
            100.0 * self.goal.max_drop,
            100.0 * self.goal.confidence,
            self.plain.verify.quality.rows()
        )
    }
}

fn refused(reason: String) -> Verdict {
    Verdict::DoesNotPay { reason }
}

fn check(plain: &Trial, trials: &[Trial]) -> Result<(), CalibrateError> {
    let rows = |t: &Trial| [("tune", t.tune.quality.rows()), ("verify", t.verify.quality.rows())];
    for trial in trials {
        let other = rows(plain).into_iter().zip(rows(trial)).find(|(p, t)| p != t);
        if let Some(((_, expected), (_, found))) = other {
            return Err(CalibrateError::Length { what: trial.name.clone(), expected, found });
        }
    }
    match rows(plain).into_iter().find(|(_, found)| *found < MIN_ROWS) {
        Some((part, found)) => Err(CalibrateError::TooFewRows { part, needed: MIN_ROWS, found }),
        None => Ok(()),
    }
}
