//! Compares a compiled model with its plain form on labelled data: quality, where samples leave,
//! executed work, wall time, and the two rivals.

use std::time::Instant;

use eec_ir::DType;
use eec_runtime::{Control, Session};
use serde::Serialize;

use crate::Error;
use crate::calibrate::{best_depth, random_accuracy};
use crate::capture::{BATCH, Captured, capture};
use crate::compile::candidate_classes;
use crate::dataset::Dataset;
use crate::fit::argmax;
use crate::model::{Form, Model, run_options};
use crate::progress::Progress;

/// Quality and cost of one form.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Quality {
    /// Share of correct answers; without labels, of answers equal to the plain model's.
    pub accuracy: f64,
    /// Mean multiply-accumulates executed per sample.
    pub macs: f64,
    /// Mean wall time of one sample alone, in milliseconds.
    pub batch1_ms: f64,
    /// Mean wall time of a batch of [`BATCH`], in milliseconds.
    pub batch32_ms: f64,
}

/// The model with exits.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct DynamicQuality {
    /// Quality and cost.
    #[serde(flatten)]
    pub quality: Quality,
    /// Executed ÷ plain multiply-accumulates, declined heads counted.
    pub macs_ratio: f64,
    /// Wall time ÷ plain wall time, one sample at a time.
    pub time_ratio: f64,
    /// Wall time ÷ plain wall time, [`BATCH`] samples at a time.
    pub time_ratio_batch32: f64,
    /// Samples that left, per exit; the last ran to the end.
    pub exit_histogram: Vec<u64>,
    /// The exits' names.
    pub exits: Vec<String>,
}

/// A static alternative.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Rival {
    /// What it is.
    pub name: String,
    /// Its accuracy.
    pub accuracy: f64,
    /// Its executed ÷ plain multiply-accumulates.
    pub macs_ratio: f64,
}

/// Who the dynamic model must beat.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Rivals {
    /// The most accurate model that leaves at one candidate for everyone at no more work; absent if every
    /// one costs more. Heads that calibration fitted are judged at all candidates, kept or not; `final`
    /// and `file` heads only at the model's own exits.
    pub fixed_depth: Option<Rival>,
    /// Random decisions with the same histogram: the expected accuracy.
    pub random: Rival,
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
    /// The model with exits; absent if it has none.
    pub dynamic: Option<DynamicQuality>,
    /// The rivals; absent if there are no exits.
    pub rivals: Option<Rivals>,
}

/// How to evaluate.
pub struct Evaluate<'a> {
    /// Threads; all cores if absent.
    pub threads: Option<usize>,
    /// Told about long work.
    pub progress: &'a dyn Progress,
}

/// Runs both forms over the data.
pub fn evaluate(model: &Model, data: &Dataset, options: &Evaluate) -> Result<Evaluation, Error> {
    check_output(model)?;
    let mut plain_session = model.session(Form::Plain, run_options(options.threads))?;
    let plain_run = capture(&mut plain_session, data, BATCH, Control::Auto, "plain model", options.progress)?;
    let answers = answers(&plain_run)?;
    let truth = data.labels.clone().unwrap_or_else(|| answers.clone());
    let mut out = Evaluation {
        samples: data.rows,
        labels: data.labels.is_some(),
        plain: quality(&answers, &truth, plain_run.macs, Times::default()),
        dynamic: None,
        rivals: None,
    };
    let Some(dynamic) = &model.dynamic else {
        out.plain.set_times(&time_forms(&mut [&mut plain_session], data, options.progress)?[0]);
        return Ok(out);
    };
    let mut session = model.session(Form::Dynamic, run_options(options.threads))?;
    let depths = depths(model, &mut session, data, &truth, options)?;
    let run = capture(&mut session, data, BATCH, Control::Auto, "dynamic model", options.progress)?;
    let times = time_forms(&mut [&mut plain_session, &mut session], data, options.progress)?;
    out.plain.set_times(&times[0]);
    let exits = dynamic.exits.clone();
    let quality = quality(&self::answers(&run)?, &truth, run.macs, times[1]);
    let macs_ratio = quality.macs / out.plain.macs;
    out.rivals = Some(depths.rivals(&run, out.plain.accuracy, macs_ratio));
    out.dynamic = Some(DynamicQuality {
        macs_ratio,
        time_ratio: times[1].one / times[0].one,
        time_ratio_batch32: times[1].many / times[0].many,
        exit_histogram: run.exit_rows.clone(),
        exits,
        quality,
    });
    Ok(out)
}

/// Answers are read from a score per row and class.
fn check_output(model: &Model) -> Result<(), Error> {
    let graph = &model.plain;
    let first = graph.output_names().first().zip(graph.outputs().first());
    let Some((name, output)) = first else { return Err(Error::request("the model has no output")) };
    let ty = graph.ty(*output);
    if ty.dtype == DType::F32 && ty.rank() == 2 {
        return Ok(());
    }
    Err(Error::request(format!(
        "expected a score per class as the first output, f32[batch, classes], found `{name}`: {ty}"
    )))
}

impl Quality {
    fn set_times(&mut self, times: &Times) {
        self.batch1_ms = times.one;
        self.batch32_ms = times.many;
    }
}

fn quality(answers: &[i64], truth: &[i64], macs: u64, times: Times) -> Quality {
    let n = truth.len().max(1) as f64;
    Quality { accuracy: accuracy(answers, truth), macs: macs as f64 / n, batch1_ms: times.one, batch32_ms: times.many }
}

fn accuracy(answers: &[i64], truth: &[i64]) -> f64 {
    answers.iter().zip(truth).filter(|(a, t)| a == t).count() as f64 / truth.len().max(1) as f64
}

/// The class each row's first output names.
fn answers(run: &Captured) -> Result<Vec<i64>, Error> {
    let logits = run.columns.first().filter(|c| c.width > 0 && !c.floats.is_empty());
    let logits = logits.ok_or_else(|| Error::request("the model's first output is not a float per class"))?;
    Ok(logits.floats.chunks(logits.width).map(|row| argmax(row) as i64).collect())
}

/// Every place where all samples could leave, and which of them are the model's exits.
struct Depths {
    all: Vec<Rival>,
    kept: Vec<usize>,
}

/// Everyone leaving at each candidate, by the heads that calibration fitted; heads that are not
/// fitted are judged at the model's own exits, forced, where the heads before count as work too.
fn depths(
    model: &Model,
    session: &mut Session,
    data: &Dataset,
    truth: &[i64],
    options: &Evaluate,
) -> Result<Depths, Error> {
    if let (Some(candidates), Some(policy)) = (&model.candidates, &model.policy) {
        let classes = candidate_classes(model, candidates, data, options.threads, options.progress)?;
        let rival = |(k, class): (usize, &Vec<i64>)| Rival {
            name: format!("block {}", candidates.blocks[k]),
            accuracy: accuracy(class, truth),
            macs_ratio: (candidates.costs.backbone(k) + candidates.costs.head[k] as f64) / candidates.costs.plain(),
        };
        return Ok(Depths { all: classes.iter().enumerate().map(rival).collect(), kept: policy.kept() });
    }
    let names = session.exits().into_iter().map(String::from).collect::<Vec<_>>();
    let whole = session_macs(session, data, Control::Never, options)?.macs as f64;
    let mut all = Vec::with_capacity(names.len());
    for (k, name) in names.into_iter().enumerate() {
        let forced = session_macs(session, data, Control::Force(k), options)?;
        let accuracy = accuracy(&answers(&forced)?, truth);
        all.push(Rival { name, accuracy, macs_ratio: forced.macs as f64 / whole });
    }
    Ok(Depths { kept: (0..all.len()).collect(), all })
}

fn session_macs(
    session: &mut Session,
    data: &Dataset,
    control: Control,
    options: &Evaluate,
) -> Result<Captured, Error> {
    capture(session, data, BATCH, control, "every depth", options.progress)
}

impl Depths {
    /// The best fixed depth at no more work, and random decisions with the histogram of `run`, whose
    /// samples that stay reach `full` accuracy.
    fn rivals(self, run: &Captured, full: f64, macs_ratio: f64) -> Rivals {
        let at_exits = self.kept.iter().map(|k| self.all[*k].accuracy).chain(std::iter::once(full));
        let accuracy = random_accuracy(&run.exit_rows, at_exits);
        let best = best_depth(&self.all, macs_ratio, |d| (d.accuracy, d.macs_ratio));
        Rivals {
            fixed_depth: best.cloned(),
            random: Rival { name: "random, same histogram".into(), accuracy, macs_ratio },
        }
    }
}

/// Mean wall times in milliseconds.
#[derive(Clone, Copy, Debug, Default)]
struct Times {
    one: f64,
    many: f64,
}

/// Samples timed one at a time; spread over the data, so that easy and hard ones have their share.
const TIMED: usize = 256;
/// Batches timed.
const TIMED_BATCHES: usize = 12;

/// Times all forms on the same rows, interleaved, so that noise hits them alike. The time of one
/// sample is the mean over samples (a median would hide the hard ones) of the least of three runs.
fn time_forms(sessions: &mut [&mut Session], data: &Dataset, progress: &dyn Progress) -> Result<Vec<Times>, Error> {
    let singles = spread(data.rows, TIMED, 1);
    let batches = spread(data.rows, TIMED_BATCHES, BATCH.min(data.rows));
    progress.begin("timing", singles.len() + batches.len());
    let one = time_rows(sessions, data, &singles, 1, progress)?;
    let many = time_rows(sessions, data, &batches, BATCH.min(data.rows), progress)?;
    progress.end();
    Ok(one.into_iter().zip(many).map(|(one, many)| Times { one, many }).collect())
}

/// Up to `count` starts of `len` rows, evenly spread.
fn spread(rows: usize, count: usize, len: usize) -> Vec<usize> {
    let room = rows + 1 - len.min(rows);
    let count = count.min(room);
    (0..count).map(|i| i * room / count).collect()
}

fn time_rows(
    sessions: &mut [&mut Session],
    data: &Dataset,
    starts: &[usize],
    len: usize,
    progress: &dyn Progress,
) -> Result<Vec<f64>, Error> {
    const REPEATS: usize = 3;
    let mut sums = vec![0.0; sessions.len()];
    for start in starts {
        let inputs = data.batch(*start, start + len);
        let mut best = vec![f64::INFINITY; sessions.len()];
        for _ in 0..REPEATS {
            for (session, best) in sessions.iter_mut().zip(&mut best) {
                let clock = Instant::now();
                session.run(&inputs, Control::Auto)?;
                *best = best.min(clock.elapsed().as_secs_f64() * 1e3);
            }
        }
        sums.iter_mut().zip(&best).for_each(|(sum, b)| *sum += b);
        progress.advance(1);
    }
    Ok(sums.into_iter().map(|s| s / starts.len().max(1) as f64).collect())
}
