//! Compares a compiled model with its plain form on data: quality, what decided how often, executed
//! work, wall time, and the static and random rivals.

mod decode;
mod rivals;
mod times;

use eec_passes::structure::{self, Structure};
use eec_runtime::Runner;
use serde::Serialize;

use crate::Error;
use crate::backend::Backend;
use crate::calibrate::Verdict;
use crate::calibrate::gates::Quality as PerRow;
use crate::dataset::Dataset;
use crate::model::{Form, Model};
use crate::progress::Progress;
use crate::quality::{self, Runs, Scored, Truth};

pub use rivals::{Mix, Part, Rival, Rivals};

use decode::Decoder;
use rivals::Forms;
use times::{Times, time_forms};

/// Quality and cost of one form.
#[derive(Clone, PartialEq, Debug, Default, Serialize)]
pub struct Quality {
    /// Share of correct answers; without labels, of answers equal to the plain model's. Absent for a
    /// model that scores tokens.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub accuracy: Option<f64>,
    /// Mean loss per token in nats, averaged over rows, for a model that scores tokens.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub loss: Option<f64>,
    /// Mean multiply-accumulates executed per sample.
    pub macs: f64,
    /// Mean wall time of one sample alone, in milliseconds.
    pub batch1_ms: f64,
    /// Mean wall time of a batch of [`crate::capture::BATCH`], in milliseconds.
    pub batch32_ms: f64,
    /// Mean wall time of one token, in milliseconds, when a model with state decodes one token a run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_ms: Option<f64>,
}

/// The model that decides.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct DynamicQuality {
    /// Quality and cost.
    #[serde(flatten)]
    pub quality: Quality,
    /// Executed ÷ plain multiply-accumulates, declined heads and gates counted.
    pub macs_ratio: f64,
    /// Wall time ÷ plain wall time, one sample at a time.
    pub time_ratio: f64,
    /// Wall time ÷ plain wall time, [`crate::capture::BATCH`] samples at a time.
    pub time_ratio_batch32: f64,
    /// Wall time ÷ plain wall time, one token at a time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_time_ratio: Option<f64>,
    /// Samples that left, per exit; the last ran to the end.
    pub exit_histogram: Vec<u64>,
    /// The exits' names.
    pub exits: Vec<String>,
    /// The mean number of the block after which samples left; who ran to the end counts as leaving after
    /// the last. Absent without exits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mean_exit: Option<f64>,
    /// How often each gate took effect, those of FFNs before those of visual tokens.
    pub gates: Vec<GateUse>,
    /// Samples whose visual tokens left, per gate; the last kept them to their own end. Empty if no gate
    /// decides on visual tokens.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub token_exit_histogram: Vec<u64>,
    /// The mean number of the block after which visual tokens left; who kept them counts as losing them
    /// after the last. Absent without token exits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mean_token_exit: Option<f64>,
}

/// How often a gate took effect.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct GateUse {
    /// Its name.
    pub name: String,
    /// Rows (samples, or tokens for an FFN's gate that decides per token) for which it skipped or shortened
    /// work.
    pub rows: u64,
}

/// An evaluation.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Evaluation {
    /// Samples.
    pub samples: usize,
    /// Blocks of the plain model.
    pub blocks: usize,
    /// Whether the data has labels.
    pub labels: bool,
    /// The plain model.
    pub plain: Quality,
    /// The float32 model that it was made from; absent unless it was given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub float32: Option<Quality>,
    /// The model that decides; absent if nothing was inserted.
    pub dynamic: Option<DynamicQuality>,
    /// The rivals; absent if nothing was inserted.
    pub rivals: Option<Rivals>,
    /// Whether deciding per input is better than all rivals at equal work; absent if nothing decides.
    pub verdict: Option<Verdict>,
}

/// How to evaluate.
pub struct Evaluate<'a> {
    /// What runs the model.
    pub backend: &'a Backend,
    /// Threads for what the CPU runs besides; all cores if absent.
    pub threads: Option<usize>,
    /// The float32 model that it was made from, to compare with.
    pub float32: Option<&'a Model>,
    /// Told about long work.
    pub progress: &'a dyn Progress,
}

/// A model under evaluation.
struct Job<'a> {
    model: &'a Model,
    structure: Structure,
    data: &'a Dataset,
    truth: Truth,
    runs: Runs<'a>,
}

/// Runs both forms over the data.
///
/// # Errors
///
/// A model whose main output is no score per class, labels of another number than answers, and what
/// fails on the way.
pub fn evaluate(model: &Model, data: &Dataset, options: &Evaluate) -> Result<Evaluation, Error> {
    let structure = structure::analyse(&model.plain).map_err(Error::request)?;
    let per_token = quality::scores_tokens(&model.plain, &structure)?;
    let batch = model.recipe.ffn_skip.batch();
    let runs = Runs { threads: options.threads, progress: options.progress, batch };
    let mut plain = model.runner(Form::Plain, options.backend)?;
    let float32 = options.float32.map(|model| model.runner(Form::Plain, options.backend));
    let mut float32 = float32.transpose()?;
    let judge = float32.as_mut().unwrap_or(&mut plain);
    let truth = Truth::new(data, &mut **judge, structure.main_output, per_token, runs)?;
    let job = Job { model, structure, data, truth, runs };
    let scored = job.score(&mut *plain, "plain model")?;
    let mut out = Evaluation {
        samples: data.rows,
        blocks: job.structure.blocks.len(),
        labels: data.labels.is_some(),
        plain: quality_of(&scored),
        float32: float32.as_mut().map(|s| job.score(&mut **s, "float32 model")).transpose()?.map(|s| quality_of(&s)),
        dynamic: None,
        rivals: None,
        verdict: None,
    };
    if model.dynamic.is_none() {
        job.time(
            &mut in_order(&mut plain, None, &mut float32),
            &mut [&mut out.plain].into_iter().chain(&mut out.float32).collect::<Vec<_>>(),
        )?;
        return Ok(out);
    }
    let mut session = model.runner(Form::Dynamic, options.backend)?;
    let run = job.score(&mut *session, "dynamic model")?;
    let mut quality = quality_of(&run);
    let rivals = job.rivals(&mut *session, Forms { plain: &scored, dynamic: &run })?;
    job.time(
        &mut in_order(&mut plain, Some(&mut session), &mut float32),
        &mut [&mut out.plain, &mut quality].into_iter().chain(&mut out.float32).collect::<Vec<_>>(),
    )?;
    let decides = !session.exits().is_empty() || !session.gates().is_empty();
    out.verdict = decides.then(|| rivals.verdict(&quality));
    out.rivals = Some(rivals);
    out.dynamic = Some(job.dynamic(&*session, &run, quality, &out.plain));
    Ok(out)
}

/// The forms that are timed, in the order of their qualities.
fn in_order<'r>(
    plain: &'r mut Box<dyn Runner>,
    dynamic: Option<&'r mut Box<dyn Runner>>,
    float32: &'r mut Option<Box<dyn Runner>>,
) -> Vec<&'r mut dyn Runner> {
    let forms = std::iter::once(plain).chain(dynamic).chain(float32);
    forms.map(|form| -> &mut dyn Runner { &mut **form }).collect()
}

impl Job<'_> {
    fn score(&self, session: &mut dyn Runner, stage: &str) -> Result<Scored, Error> {
        quality::score(self.data, session, &self.truth, self.runs, stage)
    }

    /// What a run of the dynamic model decided and cost.
    fn dynamic(&self, session: &dyn Runner, run: &Scored, quality: Quality, plain: &Quality) -> DynamicQuality {
        let inserted = &self.model.inserted;
        let gates = session.gates().into_iter().zip(&run.gate_rows);
        let token_exit_histogram = self.token_exits(run);
        DynamicQuality {
            macs_ratio: quality.macs / plain.macs,
            time_ratio: quality.batch1_ms / plain.batch1_ms,
            time_ratio_batch32: quality.batch32_ms / plain.batch32_ms,
            token_time_ratio: quality.token_ms.zip(plain.token_ms).map(|(dynamic, plain)| dynamic / plain),
            exit_histogram: run.exit_rows.clone(),
            exits: session.exits().into_iter().map(String::from).collect(),
            mean_exit: self.mean_block(&run.exit_rows, &inserted.exits),
            gates: gates.map(|(name, rows)| GateUse { name: name.into(), rows: *rows }).collect(),
            mean_token_exit: self.mean_token_exit(&token_exit_histogram),
            token_exit_histogram,
            quality,
        }
    }

    /// Samples whose visual tokens left, per gate, then all others; empty if no gate decides.
    fn token_exits(&self, run: &Scored) -> Vec<u64> {
        let inserted = &self.model.inserted;
        let gates = inserted.tokens.as_ref().map_or(0, |t| t.gates().len());
        // Gates of passes come last.
        let end = run.gate_rows.len().saturating_sub(inserted.gates_of_passes);
        let left = &run.gate_rows[end.saturating_sub(gates)..end];
        let kept = (self.data.rows as u64).saturating_sub(left.iter().sum());
        if left.is_empty() { Vec::new() } else { left.iter().copied().chain([kept]).collect() }
    }

    fn mean_token_exit(&self, histogram: &[u64]) -> Option<f64> {
        let places = self.model.inserted.tokens.as_ref()?;
        match places.decides {
            true => self.mean_block(histogram, &places.exits),
            false => places.exits.first().map(|block| *block as f64),
        }
    }

    /// The mean of the blocks after which rows left, the rest after the model's last; `None` if there is no
    /// such block.
    fn mean_block(&self, rows: &[u64], blocks: &[usize]) -> Option<f64> {
        mean_block(rows, blocks, self.structure.blocks.len().checked_sub(1)?)
    }

    /// Times all forms, interleaved.
    fn time(&self, sessions: &mut [&mut dyn Runner], qualities: &mut [&mut Quality]) -> Result<(), Error> {
        let times = time_forms(sessions, self.data, self.runs.progress)?;
        let decoder = Decoder::of(&self.model.plain, &self.structure, self.data);
        let tokens = decoder.map(|d| d.time(sessions, self.data)).transpose()?;
        for (i, (quality, Times { one, many })) in qualities.iter_mut().zip(times).enumerate() {
            (quality.batch1_ms, quality.batch32_ms) = (one, many);
            quality.token_ms = tokens.as_ref().and_then(|t| t.get(i).copied());
        }
        Ok(())
    }
}

/// The mean of `blocks` weighted by `rows`, of which the last left after block `last`; `None` without
/// blocks, or if not all exits stand after one.
fn mean_block(rows: &[u64], blocks: &[usize], last: usize) -> Option<f64> {
    let weighted = rows.iter().zip(blocks.iter().chain([&last])).map(|(n, block)| *n as f64 * *block as f64);
    let all = rows.iter().sum::<u64>().max(1) as f64;
    (!blocks.is_empty() && rows.len() == blocks.len() + 1).then(|| weighted.sum::<f64>() / all)
}

fn quality_of(scored: &Scored) -> Quality {
    let mean = scored.quality.mean();
    let (accuracy, loss) = match scored.quality {
        PerRow::Correct(_) => (Some(mean), None),
        PerRow::Loss(_) => (None, Some(mean)),
    };
    Quality { accuracy, loss, macs: scored.macs_per_row(), ..Quality::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_stays_counts_as_leaving_after_the_last_block() {
        assert_eq!(mean_block(&[3, 0, 1], &[0, 4], 7), Some(1.75));
        assert_eq!(mean_block(&[4], &[], 7), None);
        assert_eq!(mean_block(&[3, 0, 1], &[0], 7), None);
        assert_eq!(mean_block(&[0, 0], &[2], 7), Some(0.0));
    }
}
