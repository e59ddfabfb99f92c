//! How good a model's answers are, per row: right or wrong where it scores classes per row, the mean
//! next-token loss where it scores classes per token. Scores are judged batch by batch and not kept.

use eec_ir::{Graph, Tensor};
use eec_passes::structure::Structure;
use eec_runtime::{Control, Session};

use crate::Error;
use crate::calibrate::gates::Quality;
use crate::capture::BATCH;
use crate::dataset::Dataset;
use crate::fit::argmax;
use crate::lower::Names;
use crate::model::{lowered, run_options, session_of};
use crate::progress::Progress;

/// What answers are compared with.
#[derive(Clone, Debug)]
pub struct Truth {
    /// The class per row or token; negative where a token does not count.
    classes: Vec<i64>,
    /// Classes per row.
    per_row: usize,
    /// Whether tokens are scored.
    pub per_token: bool,
}

/// What a pass over the data gives.
#[derive(Clone, Debug)]
pub struct Scored {
    /// Per row.
    pub quality: Quality,
    /// The loss of every token (of every row, where rows are scored), in nats; 0 where a token does not
    /// count.
    pub losses: Vec<f32>,
    /// Multiply-accumulates executed.
    pub macs: u64,
    /// Rows that each gate let skip.
    pub gate_rows: Vec<u64>,
}

impl Scored {
    /// Mean multiply-accumulates per row.
    pub fn macs_per_row(&self) -> f64 {
        let rows = match &self.quality {
            Quality::Correct(rows) => rows.len(),
            Quality::Loss(rows) => rows.len(),
        };
        self.macs as f64 / rows.max(1) as f64
    }
}

/// How to run.
#[derive(Clone, Copy)]
pub struct Runs<'a> {
    /// Threads; all cores if absent.
    pub threads: Option<usize>,
    /// Told about long work.
    pub progress: &'a dyn Progress,
}

/// Whether a model's main output scores classes per row or per token; an error for other outputs.
pub fn scores_tokens(graph: &Graph, structure: &Structure) -> Result<bool, Error> {
    let ty = graph.ty(structure.output);
    match ty.rank() {
        2 => Ok(false),
        3 => Ok(true),
        _ => Err(Error::request(format!(
            "expected scores per class, [batch, classes] or [batch, tokens, classes], found {ty}"
        ))),
    }
}

/// The graph with its main output alone.
pub fn main_output_only(graph: &Graph, main_output: usize) -> Graph {
    let mut graph = graph.clone();
    let main = graph.output_names().iter().zip(graph.outputs()).nth(main_output);
    let kept = main.map(|(name, v)| (name.to_string(), *v)).into_iter().collect();
    graph.set_outputs(kept);
    graph.remove_dead();
    graph
}

/// A session of a graph, all cores or as many threads as the runs say.
pub fn session(graph: &Graph, runs: Runs<'_>) -> Result<Session, Error> {
    session_of(lowered(graph, Names::default())?, graph, run_options(runs.threads))
}

impl Truth {
    /// The labels of the data; without, the answers of the plain model.
    pub fn new(data: &Dataset, plain: &mut Session, per_token: bool, runs: Runs<'_>) -> Result<Truth, Error> {
        let classes = match &data.labels {
            Some(labels) => labels.clone(),
            None => answers(data, plain, runs)?,
        };
        Ok(Truth { per_row: classes.len() / data.rows.max(1), classes, per_token })
    }
}

fn answers(data: &Dataset, session: &mut Session, runs: Runs<'_>) -> Result<Vec<i64>, Error> {
    let mut out = Vec::new();
    for_batches(data, session, runs, "plain model", &mut |_, scores, classes| {
        out.extend(scores.chunks(classes).map(|row| argmax(row) as i64));
    })?;
    Ok(out)
}

/// Runs all rows and judges the first output; also what was executed.
pub fn score(
    data: &Dataset,
    session: &mut Session,
    truth: &Truth,
    runs: Runs<'_>,
    stage: &str,
) -> Result<Scored, Error> {
    let (mut losses, mut correct) = (Vec::new(), Vec::new());
    let mut misfit = None;
    let (macs, gate_rows) = for_batches(data, session, runs, stage, &mut |from, scores, classes| {
        for (i, row) in scores.chunks(classes).enumerate() {
            let Some(class) = truth.classes.get(from * truth.per_row + i) else {
                misfit = Some(i);
                return;
            };
            correct.push(argmax(row) as i64 == *class);
            losses.push(usize::try_from(*class).map_or(0.0, |class| cross_entropy(row, class) as f32));
        }
    })?;
    if misfit.is_some() || losses.len() != truth.classes.len() {
        let (labels, scores) = (truth.classes.len(), losses.len());
        return Err(Error::request(format!("{}: {labels} labels for {scores} answers", data.name)));
    }
    let quality = if truth.per_token {
        let counted = |row: &[f32], classes: &[i64]| {
            let counted = classes.iter().filter(|c| **c >= 0).count();
            row.iter().map(|l| f64::from(*l)).sum::<f64>() / counted.max(1) as f64
        };
        let rows = losses.chunks(truth.per_row.max(1)).zip(truth.classes.chunks(truth.per_row.max(1)));
        Quality::Loss(rows.map(|(l, c)| counted(l, c)).collect())
    } else {
        Quality::Correct(correct)
    };
    Ok(Scored { quality, losses, macs, gate_rows })
}

/// Gives the first output of every batch, with the batch's first row and the number of classes.
fn for_batches(
    data: &Dataset,
    session: &mut Session,
    runs: Runs<'_>,
    stage: &str,
    take: &mut dyn FnMut(usize, &[f32], usize),
) -> Result<(u64, Vec<u64>), Error> {
    let (mut macs, mut gate_rows) = (0, vec![0; session.gates().len()]);
    runs.progress.begin(stage, data.rows);
    for from in (0..data.rows).step_by(BATCH) {
        let to = (from + BATCH).min(data.rows);
        let run = session.run(&data.batch(from, to), Control::Auto)?;
        let scores = run.outputs.first().and_then(|(_, t)| Some((t, t.elements::<f32>()?, *t.dims().last()?)));
        let (_, scores, classes): (&Tensor, _, usize) =
            scores.ok_or_else(|| Error::request("the model's main output is not a float per class"))?;
        take(from, &scores, classes.max(1));
        macs += run.counters.macs;
        gate_rows.iter_mut().zip(&run.counters.gate_rows).for_each(|(sum, n)| *sum += n);
        runs.progress.advance(to - from);
    }
    runs.progress.end();
    Ok((macs, gate_rows))
}

/// The cross-entropy of scores with a class, in nats.
pub fn cross_entropy(scores: &[f32], class: usize) -> f64 {
    let most = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = scores.iter().map(|s| f64::from(s - most).exp()).sum();
    sum.ln() - f64::from(scores.get(class).copied().unwrap_or(f32::NEG_INFINITY) - most)
}
