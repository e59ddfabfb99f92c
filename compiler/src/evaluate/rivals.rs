//! Who the dynamic model must beat at equal work: one fixed choice for all, and chance with the same
//! histogram. For each mechanism that the model has, the plain model with its static form is run.

use eec_ir::Graph;
use eec_passes::ffn_gates::{self, FfnGates, Rule};
use eec_passes::token_exits;
use eec_runtime::{Control, Session};
use serde::Serialize;

use super::Job;
use crate::Error;
use crate::calibrate::gates::Quality as PerRow;
use crate::calibrate::{best_depth, random_accuracy};
use crate::compile::{Chance, candidate_classes, fixed_token_exit};
use crate::dataset::Dataset;
use crate::model::simplified;
use crate::quality::{self, Scored};

/// A static or random alternative.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Rival {
    /// What it is.
    pub name: String,
    /// Its accuracy, for a model that scores rows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub accuracy: Option<f64>,
    /// Its loss, for a model that scores tokens.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub loss: Option<f64>,
    /// Its executed ÷ plain multiply-accumulates.
    pub macs_ratio: f64,
}

/// The rivals of each mechanism that the model has; alone, not combined.
#[derive(Clone, PartialEq, Debug, Default, Serialize)]
pub struct Rivals {
    /// The most accurate model that leaves at one candidate for everyone at no more work; absent if every
    /// one costs more. Heads that calibration fitted are judged at all candidates, kept or not; `final`
    /// and `file` heads only at the model's own exits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fixed_depth: Option<Rival>,
    /// The best block after which visual tokens leave for all, at no more work.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fixed_tokens: Option<Rival>,
    /// The best set of FFNs that never run, at no more work.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub static_ffns: Option<Rival>,
    /// Random decisions with the same histogram. For exits and token exits the expected quality, for FFN
    /// gates that of one draw.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub random: Option<Rival>,
}

impl Job<'_> {
    /// The rivals at `macs_ratio` of the plain model's work.
    pub(super) fn rivals(
        &self,
        session: &mut Session,
        plain: &Scored,
        run: &Scored,
        macs_ratio: f64,
    ) -> Result<Rivals, Error> {
        let mut rivals = Rivals::default();
        if !session.exits().is_empty() {
            self.of_exits(&mut rivals, session, plain.quality.mean(), run, macs_ratio)?;
        }
        if self.model.inserted.tokens.is_some() {
            self.of_tokens(&mut rivals, plain, run, macs_ratio)?;
        }
        if !self.model.inserted.static_ffns.is_empty() {
            self.of_ffns(&mut rivals, plain, run, macs_ratio)?;
        }
        // Chance is only well defined for one mechanism at a time.
        let mechanisms = [!session.exits().is_empty(), self.decides_tokens(), self.model.inserted.decides_ffns()];
        if mechanisms.into_iter().filter(|m| *m).count() != 1 {
            rivals.random = None;
        }
        Ok(rivals)
    }

    fn decides_tokens(&self) -> bool {
        self.model.inserted.tokens.as_ref().is_some_and(|t| !t.gates.is_empty())
    }

    fn of_exits(
        &self,
        rivals: &mut Rivals,
        session: &mut Session,
        full: f64,
        run: &Scored,
        macs_ratio: f64,
    ) -> Result<(), Error> {
        let (all, kept) = self.depths(session)?;
        let at_exits = kept.iter().filter_map(|k| all.get(*k)?.accuracy).chain([full]);
        let accuracy = random_accuracy(&run.exit_rows, at_exits);
        rivals.fixed_depth = self.best(&all, macs_ratio);
        rivals.random = Some(random(Some(accuracy), None, macs_ratio));
        Ok(())
    }

    /// Everyone leaving at each candidate, by the heads that calibration fitted, and which candidates are
    /// the model's exits; heads that are not fitted are judged at the model's own exits, forced, where
    /// the heads before count as work too.
    fn depths(&self, session: &mut Session) -> Result<(Vec<Rival>, Vec<usize>), Error> {
        if let (Some(candidates), Some(policy)) = (&self.model.candidates, &self.model.policy) {
            let classes = candidate_classes(self.model, candidates, self.data, self.runs.threads, self.runs.progress)?;
            let rival = |(k, class): (usize, &Vec<i64>)| Rival {
                name: format!("block {}", candidates.blocks[k]),
                accuracy: Some(self.truth.accuracy(class)),
                loss: None,
                macs_ratio: (candidates.costs.backbone(k) + candidates.costs.head[k] as f64) / candidates.costs.plain(),
            };
            return Ok((classes.iter().enumerate().map(rival).collect(), policy.kept()));
        }
        let names: Vec<String> = session.exits().into_iter().map(String::from).collect();
        let forced = |control, session: &mut Session| {
            quality::score_under(self.data, session, &self.truth, self.runs, "every depth", control)
        };
        let whole = forced(Control::Never, session)?.macs as f64;
        let mut all = Vec::with_capacity(names.len());
        for (k, name) in names.into_iter().enumerate() {
            let at = forced(Control::Force(k), session)?;
            let (accuracy, macs_ratio) = (Some(at.quality.mean()), at.macs as f64 / whole);
            all.push(Rival { name, accuracy, loss: None, macs_ratio });
        }
        let kept = (0..all.len()).collect();
        Ok((all, kept))
    }

    /// Visual tokens leaving after each candidate for everyone.
    fn of_tokens(&self, rivals: &mut Rivals, plain: &Scored, run: &Scored, macs_ratio: f64) -> Result<(), Error> {
        let Some(places) = &self.model.inserted.tokens else { return Ok(()) };
        let (graph, structure) = (&self.model.plain, &self.structure);
        let mut all = Vec::with_capacity(places.candidates.len());
        for block in &places.candidates {
            let options = fixed_token_exit(graph, structure, places, *block)?;
            let edit = token_exits::apply_to(graph, structure, &options).map_err(Error::request)?;
            all.push(self.run(&edit, plain, format!("block {block}"), "tokens at every depth")?);
        }
        rivals.fixed_tokens = self.best(&all, macs_ratio);
        if places.gates.is_empty() {
            return Ok(());
        }
        let first = run.gate_rows.len().saturating_sub(places.gates.len());
        let taken: u64 = run.gate_rows[first..].iter().sum();
        let histogram: Vec<u64> =
            run.gate_rows[first..].iter().copied().chain([(self.data.rows as u64).saturating_sub(taken)]).collect();
        let accuracy = |block: &usize| {
            let at = places.candidates.iter().position(|c| c == block)?;
            all.get(at)?.accuracy
        };
        let at_gates: Vec<f64> = places.gates.iter().filter_map(accuracy).chain([plain.quality.mean()]).collect();
        rivals.random = Some(random(Some(random_accuracy(&histogram, at_gates)), None, macs_ratio));
        Ok(())
    }

    /// Sets of FFNs that never run, grown as calibration grew them, and chance per token.
    fn of_ffns(&self, rivals: &mut Rivals, plain: &Scored, run: &Scored, macs_ratio: f64) -> Result<(), Error> {
        let (graph, structure, inserted) = (&self.model.plain, &self.structure, &self.model.inserted);
        let granularity = self.model.recipe.ffn_skip.granularity;
        let mut all = Vec::new();
        for count in 1..=inserted.static_ffns.len() {
            let mut blocks = inserted.static_ffns[..count].to_vec();
            blocks.sort_unstable();
            let options = FfnGates { gates: inserted.replacements.gates_at(&blocks)?, rule: Rule::Static, granularity };
            let edit = ffn_gates::apply_to(graph, structure, &options).map_err(Error::request)?;
            let names: Vec<String> = blocks.iter().map(usize::to_string).collect();
            all.push(self.run(&simplified(edit)?, plain, format!("the FFNs {}", names.join(", ")), "static sets")?);
        }
        rivals.static_ffns = self.best(&all, macs_ratio);
        if !inserted.decides_ffns() {
            return Ok(());
        }
        let tokens = quality::tokens(graph, structure, self.data);
        let chance = Chance { rows: self.data.rows, tokens, granularity };
        let gates = inserted.replacements.gates_at(&inserted.gated_ffns)?;
        let options = FfnGates { gates, rule: Rule::Given, granularity };
        let gated = ffn_gates::apply_to(graph, structure, &options).map_err(Error::request)?;
        let data = chance.with_masks(self.data, &inserted.gated_ffns, &chance.shares(&run.gate_rows))?;
        let name = "random, same histogram".into();
        rivals.random = Some(self.run_on(&data, &simplified(gated)?, plain, name, "random decisions")?);
        Ok(())
    }

    fn run(&self, graph: &Graph, plain: &Scored, name: String, stage: &str) -> Result<Rival, Error> {
        self.run_on(self.data, graph, plain, name, stage)
    }

    fn run_on(&self, data: &Dataset, graph: &Graph, plain: &Scored, name: String, stage: &str) -> Result<Rival, Error> {
        let only = quality::main_output_only(graph, self.structure.main_output);
        let mut session = quality::session(&only, self.runs)?;
        let truth = self.truth.clone().of_first_output();
        let scored = quality::score(data, &mut session, &truth, self.runs, stage)?;
        let mean = scored.quality.mean();
        let (accuracy, loss) = match scored.quality {
            PerRow::Correct(_) => (Some(mean), None),
            PerRow::Loss(_) => (None, Some(mean)),
        };
        Ok(Rival { name, accuracy, loss, macs_ratio: scored.macs as f64 / plain.macs.max(1) as f64 })
    }

    /// The best of equal kinds at no more work.
    fn best(&self, all: &[Rival], macs_ratio: f64) -> Option<Rival> {
        let worth = |r: &Rival| r.accuracy.or(r.loss.map(|l| -l)).unwrap_or(f64::NEG_INFINITY);
        best_depth(all, macs_ratio + 1e-9, |r| (worth(r), r.macs_ratio)).cloned()
    }
}

fn random(accuracy: Option<f64>, loss: Option<f64>, macs_ratio: f64) -> Rival {
    Rival { name: "random, same histogram".into(), accuracy, loss, macs_ratio }
}
