//! Who the dynamic model must beat at equal work: fixed choices for all inputs, mixed by chance to the
//! same work, and chance with the same histogram. For each mechanism that the model has, the plain model
//! with its static form is run.

use eec_ir::Graph;
use eec_passes::ffn_gates::{self, FfnGates, Rule};
use eec_passes::token_exits;
use eec_runtime::{Control, Runner};
use serde::Serialize;

use super::{Job, Quality};
use crate::Error;
use crate::calibrate::gates::Quality as PerRow;
use crate::calibrate::{Choice, Verdict, best_mixture, random_accuracy};
use crate::compile::{Chance, candidate_classes, fixed_token_exit};
use crate::dataset::Dataset;
use crate::display;
use crate::model::{TokenPlaces, simplified};
use crate::quality::{self, Scored};
use crate::report::Mechanism;

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

/// The best that fixed choices can do at the dynamic model's work: each input takes one of two, by chance
/// ([`best_mixture`]).
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Mix {
    /// The expected quality and work.
    #[serde(flatten)]
    pub whole: Rival,
    /// Two choices, or one that is as good at no more work.
    pub parts: Vec<Part>,
}

/// A fixed choice in a mix.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Part {
    /// The fraction of inputs that take it.
    pub share: f64,
    /// It alone.
    #[serde(flatten)]
    pub choice: Rival,
}

/// The rivals of each mechanism that the model has; alone, not combined.
#[derive(Clone, PartialEq, Debug, Default, Serialize)]
pub struct Rivals {
    /// Models that leave at one candidate for everyone, and the plain one; absent if every one costs more.
    /// Heads that calibration fitted are judged at all candidates, kept or not; `final` and `file` heads
    /// only at the model's own exits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fixed_depth: Option<Mix>,
    /// Models whose visual tokens leave after one block for all, and the plain one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fixed_tokens: Option<Mix>,
    /// Models in which a set of FFNs never runs, and the plain one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub static_ffns: Option<Mix>,
    /// Random decisions with the same histogram. For exits and token exits the expected quality, for FFN
    /// gates that of one draw.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub random: Option<Rival>,
}

impl Rival {
    fn new(name: String, scored: &Scored, macs_ratio: f64) -> Rival {
        let Quality { accuracy, loss, .. } = super::quality_of(scored);
        Rival { name, accuracy, loss, macs_ratio }
    }

    fn worth(&self) -> f64 {
        worth(self.accuracy, self.loss)
    }
}

/// Quality as a number of which more is better.
fn worth(accuracy: Option<f64>, loss: Option<f64>) -> f64 {
    accuracy.or(loss.map(|l| -l)).unwrap_or(f64::NEG_INFINITY)
}

impl Mix {
    /// The best mixture of `all` and the plain model at no more than the dynamic model's work; `None` if
    /// every one costs more.
    fn of(mechanism: Mechanism, mut all: Vec<Rival>, forms: Forms) -> Option<Mix> {
        all.push(Rival::new("plain".into(), forms.plain, 1.0));
        let choices: Vec<Choice> = all.iter().map(|r| Choice { work: r.macs_ratio, quality: r.worth() }).collect();
        let best = best_mixture(&choices, forms.macs_ratio())?;
        let parts: Vec<Part> =
            best.shares.iter().map(|s| Part { share: s.share, choice: all[s.choice].clone() }).collect();
        let whole = match &parts[..] {
            [one] => one.choice.clone(),
            _ => {
                let (accuracy, loss) = match forms.plain.quality {
                    PerRow::Correct(_) => (Some(best.quality), None),
                    PerRow::Loss(_) => (None, Some(-best.quality)),
                };
                Rival { name: mechanism.mixed().into(), accuracy, loss, macs_ratio: best.work }
            }
        };
        Some(Mix { whole, parts })
    }
}

impl Rivals {
    /// Whether the dynamic model is better than all rivals.
    pub(super) fn verdict(&self, dynamic: &Quality) -> Verdict {
        let mixes = [&self.fixed_depth, &self.fixed_tokens, &self.static_ffns];
        let all = mixes.into_iter().flatten().map(|m| &m.whole).chain(&self.random);
        let best = all.max_by(|a, b| a.worth().total_cmp(&b.worth()));
        match best.filter(|r| r.worth() >= worth(dynamic.accuracy, dynamic.loss)) {
            None => Verdict::Pays,
            Some(rival) => Verdict::DoesNotPay {
                reason: format!(
                    "{} gives {}, deciding per input {}",
                    rival.name,
                    display::quality(rival.accuracy, rival.loss),
                    display::quality(dynamic.accuracy, dynamic.loss)
                ),
            },
        }
    }
}

/// Both forms on the same rows.
#[derive(Clone, Copy)]
pub(super) struct Forms<'a> {
    pub(super) plain: &'a Scored,
    pub(super) dynamic: &'a Scored,
}

impl Forms<'_> {
    /// Executed ÷ plain multiply-accumulates.
    fn macs_ratio(self) -> f64 {
        ratio(self.dynamic, self.plain)
    }
}

fn ratio(scored: &Scored, plain: &Scored) -> f64 {
    scored.macs as f64 / plain.macs.max(1) as f64
}

impl Job<'_> {
    /// The rivals at the dynamic model's work.
    pub(super) fn rivals(&self, session: &mut dyn Runner, forms: Forms) -> Result<Rivals, Error> {
        let mut rivals = Rivals::default();
        if !session.exits().is_empty() {
            self.of_exits(&mut rivals, session, forms)?;
        }
        if let Some(places) = &self.model.inserted.tokens {
            self.of_tokens(&mut rivals, places, forms)?;
        }
        if !self.model.inserted.static_ffns.is_empty() {
            self.of_ffns(&mut rivals, forms)?;
        }
        // Chance is only well defined for one mechanism at a time, and would decide in a model without the
        // edits, which is other work.
        let inserted = &self.model.inserted;
        let mechanisms = [!session.exits().is_empty(), inserted.decides_tokens(), inserted.decides_ffns()];
        if mechanisms.into_iter().filter(|m| *m).count() != 1 || !inserted.edits().is_empty() {
            rivals.random = None;
        }
        Ok(rivals)
    }

    fn of_exits(&self, rivals: &mut Rivals, session: &mut dyn Runner, forms: Forms) -> Result<(), Error> {
        let (all, kept) = self.depths(session, forms.plain)?;
        let at_exits = kept.iter().filter_map(|k| all.get(*k)?.accuracy).chain([forms.plain.quality.mean()]);
        let accuracy = random_accuracy(&forms.dynamic.exit_rows, at_exits);
        rivals.random = Some(random(accuracy, forms));
        rivals.fixed_depth = Mix::of(Mechanism::ExitHeads, all, forms);
        Ok(())
    }

    /// Everyone leaving at each candidate, by the heads that calibration fitted, and which candidates are
    /// the model's exits; heads that are not fitted are judged at the model's own exits, forced, where
    /// the heads before count as work too.
    fn depths(&self, session: &mut dyn Runner, plain: &Scored) -> Result<(Vec<Rival>, Vec<usize>), Error> {
        let name = |place: &str| Mechanism::ExitHeads.for_all(place);
        if let (Some(candidates), Some(policy)) = (&self.model.candidates, &self.model.policy) {
            let classes = candidate_classes(self.model, candidates, self.data, self.runs.threads, self.runs.progress)?;
            let rival = |(k, class): (usize, &Vec<i64>)| Rival {
                name: name(&format!("block {}", candidates.blocks[k])),
                accuracy: Some(self.truth.accuracy(class)),
                loss: None,
                macs_ratio: candidates.costs.alone[k] as f64 / candidates.costs.plain(),
            };
            return Ok((classes.iter().enumerate().map(rival).collect(), policy.kept()));
        }
        let names: Vec<String> = session.exits().into_iter().map(name).collect();
        let mut all = Vec::with_capacity(names.len());
        for (k, name) in names.into_iter().enumerate() {
            let forced = Control::Force(k);
            let at = quality::score_under(self.data, session, &self.truth, self.runs, "every depth", forced)?;
            all.push(Rival::new(name, &at, ratio(&at, plain)));
        }
        let kept = (0..all.len()).collect();
        Ok((all, kept))
    }

    /// Visual tokens leaving after each candidate for everyone.
    fn of_tokens(&self, rivals: &mut Rivals, places: &TokenPlaces, forms: Forms) -> Result<(), Error> {
        let (graph, structure) = (&self.model.plain, &self.structure);
        let mut all = Vec::with_capacity(places.candidates.len());
        for block in &places.candidates {
            let options = fixed_token_exit(graph, structure, places, *block)?;
            let edit = token_exits::apply_to(graph, structure, &options).map_err(Error::request)?;
            let name = Mechanism::TokenExits.for_all(&format!("block {block}"));
            all.push(self.run(self.data, &edit, forms.plain, name, "tokens at every depth")?);
        }
        let accuracy = |block: &usize| all.get(places.candidates.iter().position(|c| c == block)?)?.accuracy;
        let at_gates = places.gates().iter().filter_map(accuracy).chain([forms.plain.quality.mean()]);
        let accuracy = random_accuracy(&self.token_exits(forms.dynamic), at_gates);
        rivals.random = Some(random(accuracy, forms)).filter(|_| places.decides);
        rivals.fixed_tokens = Mix::of(Mechanism::TokenExits, all, forms);
        Ok(())
    }

    /// Sets of FFNs that never run, grown as calibration grew them, and chance per token.
    fn of_ffns(&self, rivals: &mut Rivals, forms: Forms) -> Result<(), Error> {
        let (graph, structure, inserted) = (&self.model.plain, &self.structure, &self.model.inserted);
        let granularity = self.model.recipe.ffn_skip.granularity;
        let mut all = Vec::new();
        for count in 1..=inserted.static_ffns.len() {
            let mut blocks = inserted.static_ffns[..count].to_vec();
            blocks.sort_unstable();
            let options = FfnGates { gates: inserted.replacements.gates_at(&blocks)?, rule: Rule::Static, granularity };
            let edit = ffn_gates::apply_to(graph, structure, &options).map_err(Error::request)?;
            let names: Vec<String> = blocks.iter().map(usize::to_string).collect();
            let name = Mechanism::FfnGates.for_all(&format!("the FFNs {}", names.join(", ")));
            all.push(self.run(self.data, &simplified(edit)?, forms.plain, name, "static sets")?);
        }
        rivals.static_ffns = Mix::of(Mechanism::FfnGates, all, forms);
        if !inserted.decides_ffns() {
            return Ok(());
        }
        let tokens = quality::tokens(graph, structure, self.data);
        let chance = Chance { rows: self.data.rows, tokens, granularity };
        let gates = inserted.replacements.gates_at(&inserted.gated_ffns)?;
        let options = FfnGates { gates, rule: Rule::Given, granularity };
        let gated = ffn_gates::apply_to(graph, structure, &options).map_err(Error::request)?;
        let data = chance.with_masks(self.data, &inserted.gated_ffns, &chance.shares(&forms.dynamic.gate_rows))?;
        rivals.random = Some(self.run(&data, &simplified(gated)?, forms.plain, RANDOM.into(), "random decisions")?);
        Ok(())
    }

    fn run(&self, data: &Dataset, graph: &Graph, plain: &Scored, name: String, stage: &str) -> Result<Rival, Error> {
        let only = quality::main_output_only(graph, self.structure.main_output);
        let mut session = quality::session(&only, self.runs)?;
        let truth = self.truth.clone().of_first_output();
        let scored = quality::score(data, &mut session, &truth, self.runs, stage)?;
        Ok(Rival::new(name, &scored, ratio(&scored, plain)))
    }
}

const RANDOM: &str = "random, same histogram";

fn random(accuracy: f64, forms: Forms) -> Rival {
    Rival { name: RANDOM.into(), accuracy: Some(accuracy), loss: None, macs_ratio: forms.macs_ratio() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scored(quality: PerRow, macs: u64) -> Scored {
        Scored { quality, losses: Vec::new(), macs, exit_rows: Vec::new(), gate_rows: Vec::new() }
    }

    fn rival(name: &str, loss: f64, macs_ratio: f64) -> Rival {
        Rival { name: name.into(), accuracy: None, loss: Some(loss), macs_ratio }
    }

    #[test]
    fn fixed_choices_are_mixed_to_the_dynamic_models_work() {
        let plain = scored(PerRow::Loss(vec![1.0]), 100);
        let mix = |macs, all: &[Rival]| {
            let dynamic = scored(PerRow::Loss(vec![1.25]), macs);
            Mix::of(Mechanism::FfnGates, all.to_vec(), Forms { plain: &plain, dynamic: &dynamic })
        };
        let all = [rival("few", 2.0, 0.5), rival("many", 9.0, 0.6)];
        let mixed = mix(75, &all).unwrap();
        assert_eq!((mixed.whole.loss, mixed.whole.macs_ratio), (Some(1.5), 0.75));
        let parts: Vec<(&str, f64)> = mixed.parts.iter().map(|p| (p.choice.name.as_str(), p.share)).collect();
        assert_eq!(parts, [("few", 0.5), ("plain", 0.5)]);
        assert_eq!(mix(50, &all).unwrap().whole, all[0]);
        assert_eq!(mix(40, &all), None);
    }

    #[test]
    fn adaptivity_pays_if_no_rival_is_as_good() {
        let whole = rival("fixed", 1.5, 0.75);
        let rivals = Rivals {
            static_ffns: Some(Mix { whole, parts: Vec::new() }),
            random: Some(rival("random", 1.25, 0.75)),
            ..Rivals::default()
        };
        let verdict = |loss| rivals.verdict(&Quality { loss: Some(loss), ..Quality::default() });
        assert!(verdict(1.2).pays());
        let Verdict::DoesNotPay { reason } = verdict(1.25) else { panic!("random is as good") };
        assert_eq!(reason, "random gives 1.2500, deciding per input 1.2500");
        assert!(Rivals::default().verdict(&Quality::default()).pays());
    }
}
