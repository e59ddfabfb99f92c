//! Compares a compiled model with its plain form on data: quality, what decided how often, executed
//! work, wall time, and the static and random rivals.

mod decode;
mod rivals;
mod times;

use eec_passes::structure::{self, Structure};
use eec_runtime::Session;
use serde::Serialize;

use crate::Error;
use crate::calibrate::gates::Quality as PerRow;
use crate::dataset::Dataset;
use crate::model::{Form, Model, run_options};
use crate::progress::Progress;
use crate::quality::{self, Runs, Scored, Truth};

pub use rivals::{Rival, Rivals};

use decode::Decoder;
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
    /// How often each gate took effect.
    pub gates: Vec<GateUse>,
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
    /// Whether the data has labels.
    pub labels: bool,
    /// The plain model.
    pub plain: Quality,
    /// The model that decides; absent if nothing was inserted.
    pub dynamic: Option<DynamicQuality>,
    /// The rivals; absent if nothing was inserted.
    pub rivals: Option<Rivals>,
}

/// How to evaluate.
pub struct Evaluate<'a> {
    /// Threads; all cores if absent.
    pub threads: Option<usize>,
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
    let mut plain = model.session(Form::Plain, run_options(options.threads))?;
    let truth = Truth::new(data, &mut plain, structure.main_output, per_token, runs)?;
    let job = Job { model, structure, data, truth, runs };
    let scored = job.score(&mut plain, "plain model")?;
    let mut out = Evaluation {
        samples: data.rows,
        labels: data.labels.is_some(),
        plain: quality_of(&scored),
        dynamic: None,
        rivals: None,
    };
    if model.dynamic.is_none() {
        job.time(&mut [&mut plain], &mut [&mut out.plain])?;
        return Ok(out);
    }
    let mut session = model.session(Form::Dynamic, run_options(options.threads))?;
    let run = job.score(&mut session, "dynamic model")?;
    let mut quality = quality_of(&run);
    let macs_ratio = quality.macs / out.plain.macs;
    out.rivals = Some(job.rivals(&mut session, &scored, &run, macs_ratio)?);
    job.time(&mut [&mut plain, &mut session], &mut [&mut out.plain, &mut quality])?;
    let names = |list: Vec<&str>| list.into_iter().map(String::from).collect::<Vec<String>>();
    let gates = names(session.gates()).into_iter().zip(&run.gate_rows);
    out.dynamic = Some(DynamicQuality {
        macs_ratio,
        time_ratio: quality.batch1_ms / out.plain.batch1_ms,
        time_ratio_batch32: quality.batch32_ms / out.plain.batch32_ms,
        token_time_ratio: quality.token_ms.zip(out.plain.token_ms).map(|(dynamic, plain)| dynamic / plain),
        exit_histogram: run.exit_rows.clone(),
        exits: names(session.exits()),
        gates: gates.map(|(name, rows)| GateUse { name, rows: *rows }).collect(),
        quality,
    });
    Ok(out)
}

impl Job<'_> {
    fn score(&self, session: &mut Session, stage: &str) -> Result<Scored, Error> {
        quality::score(self.data, session, &self.truth, self.runs, stage)
    }

    /// Times all forms, interleaved.
    fn time(&self, sessions: &mut [&mut Session], qualities: &mut [&mut Quality]) -> Result<(), Error> {
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

fn quality_of(scored: &Scored) -> Quality {
    let mean = scored.quality.mean();
    let (accuracy, loss) = match scored.quality {
        PerRow::Correct(_) => (Some(mean), None),
        PerRow::Loss(_) => (None, Some(mean)),
    };
    Quality { accuracy, loss, macs: scored.macs_per_row(), ..Quality::default() }
}
