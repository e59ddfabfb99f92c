//! How good a model's answers are, per row: right or wrong where it scores classes per row, the mean
//! next-token loss where it scores classes per token. Scores are judged batch by batch and not kept.

use eec_ir::{Graph, Symbol};
use eec_passes::structure::Structure;
use eec_runtime::{Control, Counters, Runner, Session};

use crate::Error;
use crate::calibrate::gates::Quality;
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
    /// The position of the output that is judged.
    main_output: usize,
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
    /// Rows that left, per exit; the last counts those that ran to the end.
    pub exit_rows: Vec<u64>,
    /// Rows that each gate let skip.
    pub gate_rows: Vec<u64>,
}

impl Scored {
    /// Mean multiply-accumulates per row.
    pub fn macs_per_row(&self) -> f64 {
        self.macs as f64 / self.quality.rows().max(1) as f64
    }
}

/// How to run.
#[derive(Clone, Copy)]
pub struct Runs<'a> {
    /// Threads; all cores if absent.
    pub threads: Option<usize>,
    /// Told about long work.
    pub progress: &'a dyn Progress,
    /// Rows per run.
    pub batch: usize,
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
    /// The labels of the data; without, what the plain model answers in its output `main_output`.
    pub fn new(
        data: &Dataset,
        plain: &mut dyn Runner,
        main_output: usize,
        per_token: bool,
        runs: Runs<'_>,
    ) -> Result<Truth, Error> {
        let mut truth = Truth { classes: Vec::new(), per_row: 0, main_output, per_token };
        truth.classes = match &data.labels {
            Some(labels) => labels.clone(),
            None => truth.answers(data, plain, runs)?,
        };
        truth.per_row = truth.classes.len() / data.rows.max(1);
        Ok(truth)
    }

    fn answers(&self, data: &Dataset, session: &mut dyn Runner, runs: Runs<'_>) -> Result<Vec<i64>, Error> {
        let pass = Pass { data, runs, stage: "plain model", control: Control::Auto, output: self.main_output };
        let mut out = Vec::new();
        pass.run(session, &mut |_, scores, classes| {
            out.extend(scores.chunks(classes).map(|row| argmax(row) as i64));
        })?;
        Ok(out)
    }

    /// Share of `answers`, one per row, that are right.
    pub fn accuracy(&self, answers: &[i64]) -> f64 {
        let right = answers.iter().zip(&self.classes).filter(|(a, t)| a == t).count();
        right as f64 / self.classes.len().max(1) as f64
    }

    /// The same for a model whose main output is its first.
    pub fn of_first_output(self) -> Truth {
        Truth { main_output: 0, ..self }
    }
}

/// Runs all rows and judges the first output; also what was executed.
pub fn score(
    data: &Dataset,
    session: &mut dyn Runner,
    truth: &Truth,
    runs: Runs<'_>,
    stage: &str,
) -> Result<Scored, Error> {
    score_under(data, session, truth, runs, stage, Control::Auto)
}

/// The same with decisions as `control` says.
pub fn score_under(
    data: &Dataset,
    session: &mut dyn Runner,
    truth: &Truth,
    runs: Runs<'_>,
    stage: &str,
    control: Control,
) -> Result<Scored, Error> {
    let pass = Pass { data, runs, stage, control, output: truth.main_output };
    let (mut losses, mut correct) = (Vec::new(), Vec::new());
    let mut misfit = None;
    let counted = pass.run(session, &mut |from, scores, classes| {
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
    let Counted { macs, exit_rows, gate_rows } = counted;
    Ok(Scored { quality, losses, macs, exit_rows, gate_rows })
}

/// Tokens per row: the dims of the blocks' values between the batch and the width.
pub fn tokens(graph: &Graph, structure: &Structure, data: &Dataset) -> usize {
    let dims = structure.blocks.first().map_or(&[][..], |b| &graph.ty(b.input).dims);
    let inner = dims.get(1..dims.len().saturating_sub(1)).unwrap_or_default();
    let size = |symbol: &Symbol| {
        let places = graph.inputs().iter().zip(&data.inputs);
        let mut sizes = places.flat_map(|(v, (_, t))| graph.ty(*v).dims.iter().zip(t.dims()));
        sizes.find(|(d, _)| d.as_symbol() == Some(symbol)).map(|(_, n)| *n as i64)
    };
    inner.iter().map(|d| d.eval(&size).and_then(|n| usize::try_from(n).ok()).unwrap_or(1)).product()
}

/// One pass over the data.
struct Pass<'a> {
    data: &'a Dataset,
    runs: Runs<'a>,
    stage: &'a str,
    control: Control,
    /// The position of the output that is read.
    output: usize,
}

/// What a pass executed.
#[derive(Default)]
struct Counted {
    macs: u64,
    exit_rows: Vec<u64>,
    gate_rows: Vec<u64>,
}

impl Counted {
    fn add(&mut self, counters: &Counters, rows: u64) {
        self.macs += counters.macs;
        let left: u64 = counters.exit_rows.iter().sum();
        let exits = counters.exit_rows.iter().copied().chain([rows.saturating_sub(left)]);
        add(&mut self.exit_rows, exits);
        add(&mut self.gate_rows, counters.gate_rows.iter().copied());
    }
}

fn add(sums: &mut Vec<u64>, more: impl Iterator<Item = u64>) {
    for (i, n) in more.enumerate() {
        if i == sums.len() {
            sums.push(0);
        }
        sums[i] += n;
    }
}

impl Pass<'_> {
    /// Gives every batch's scores, with the batch's first row and the number of classes.
    fn run(&self, session: &mut dyn Runner, take: &mut dyn FnMut(usize, &[f32], usize)) -> Result<Counted, Error> {
        let mut counted = Counted::default();
        self.runs.progress.begin(self.stage, self.data.rows);
        for from in (0..self.data.rows).step_by(self.runs.batch) {
            let to = (from + self.runs.batch).min(self.data.rows);
            let run = session.run(&self.data.batch(from, to), self.control)?;
            let output = run.outputs.get(self.output);
            let scores = output.and_then(|(_, t)| Some((t.elements::<f32>()?, *t.dims().last()?)));
            let (scores, classes) =
                scores.ok_or_else(|| Error::request("the model's main output is not a float per class"))?;
            take(from, &scores, classes.max(1));
            counted.add(&run.counters, (to - from) as u64);
            self.runs.progress.advance(to - from);
        }
        self.runs.progress.end();
        Ok(counted)
    }
}

/// The cross-entropy of scores with a class, in nats.
pub fn cross_entropy(scores: &[f32], class: usize) -> f64 {
    let most = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = scores.iter().map(|s| f64::from(s - most).exp()).sum();
    sum.ln() - f64::from(scores.get(class).copied().unwrap_or(f32::NEG_INFINITY) - most)
}
