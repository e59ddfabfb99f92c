//! Fits a head at each candidate on captured features, and asks heads about rows that they did not see.

use eec_ir::Tensor;
use eec_passes::exit_heads::{self, Head, HeadInput, Signal};

use super::Compile;
use super::work::{FOLDS, Work, names, pass_error, run};
use crate::Error;
use crate::capture::Column;
use crate::dataset::Dataset;
use crate::fit::{self, Features, FitOptions, FitStats, L2, Targets};

/// Features at candidates.
#[derive(Clone, Copy)]
pub(super) struct Taps<'a> {
    pub(super) blocks: &'a [usize],
    /// One per block.
    pub(super) columns: &'a [Column],
}

/// The heads of all candidates.
pub(super) struct Heads {
    /// What the model gets.
    pub(super) all: Vec<Head>,
    /// Heads that saw all fitting rows but these, for an honest look at these: thresholds are tuned
    /// on them. Empty for heads that are not fitted.
    folds: Vec<(Vec<usize>, Vec<Head>)>,
    /// As they were fitted; empty for heads that are not.
    pub(super) fitted: Vec<fit::Head>,
    pub(super) stats: Vec<FitStats>,
}

impl Heads {
    /// The same head everywhere, which is not fitted.
    pub(super) fn unfitted(head: Head, count: usize) -> Heads {
        Heads { all: vec![head; count], folds: Vec::new(), fitted: Vec::new(), stats: Vec::new() }
    }

    /// Fits every candidate's head on `rows`, and once more per fold without the fold's rows.
    pub(super) fn fit(
        work: &Work,
        taps: Taps<'_>,
        targets: &[Targets<'_>],
        rows: &[usize],
        options: FitOptions,
    ) -> Result<Heads, Error> {
        let folds = folds(rows);
        let mut heads = Heads {
            all: Vec::new(),
            folds: folds.iter().map(|(out, _)| (out.clone(), Vec::new())).collect(),
            fitted: Vec::new(),
            stats: Vec::new(),
        };
        let progress = work.options.progress;
        progress.begin("fitting heads", taps.blocks.len());
        for ((name, column), targets) in names(taps.blocks.iter().copied()).iter().zip(taps.columns).zip(targets) {
            let count = column.floats.len() / column.width.max(1);
            let features = Features { candidate: name, rows: count, width: column.width, values: &column.floats };
            let fitted = fit::fit_head(&features, targets, rows, &options)?;
            let same_penalty = FitOptions { l2: L2::Fixed(fitted.stats.l2), ..options };
            for ((_, heads), (_, inside)) in heads.folds.iter_mut().zip(&folds) {
                heads.push(graph_head(&fit::fit_head(&features, targets, inside, &same_penalty)?.head)?);
            }
            heads.all.push(graph_head(&fitted.head)?);
            heads.fitted.push(fitted.head);
            heads.stats.push(fitted.stats);
            progress.advance(1);
        }
        progress.end();
        Ok(heads)
    }

    /// What the heads say on all of `count` rows, each by a head that did not see the row.
    pub(super) fn judge(
        &self,
        work: &Work,
        taps: Taps<'_>,
        count: usize,
        classes: usize,
        signal: Signal,
    ) -> Result<Vec<Judged>, Error> {
        let all: Vec<usize> = (0..count).collect();
        let mut judged = judge(work.options, taps, &all, &self.all, classes, signal)?;
        for (rows, heads) in &self.folds {
            let fold = judge(work.options, taps, rows, heads, classes, signal)?;
            for (whole, part) in judged.iter_mut().zip(&fold) {
                whole.overwrite(rows, part);
            }
        }
        Ok(judged)
    }
}

/// What `heads` say on `rows`, computed by the nodes that the dynamic model will run.
pub(super) fn judge(
    options: &Compile,
    taps: Taps<'_>,
    rows: &[usize],
    heads: &[Head],
    classes: usize,
    signal: Signal,
) -> Result<Vec<Judged>, Error> {
    let places = taps.blocks.iter().zip(heads);
    let inputs: Vec<HeadInput> = places
        .map(|(b, h)| if h.takes_feature() { HeadInput::Fitted(*b, h) } else { HeadInput::Logits(*b, classes) })
        .collect();
    let graph = exit_heads::head_graph(&inputs, signal).map_err(pass_error("exit-heads"))?;
    let arrays: Result<Vec<_>, Error> = taps.columns.iter().map(|c| Ok((c.name.clone(), c.select(rows)?))).collect();
    let data = Dataset { name: "features".into(), inputs: arrays?, labels: None, rows: rows.len() };
    let captured = run(options, &graph, &data, "judging heads")?;
    let judged = |block: &usize| {
        Ok(Judged {
            confidence: captured.column(&format!("confidence.{block}"))?.floats.clone(),
            class: captured.column(&format!("class.{block}"))?.ints.clone(),
        })
    };
    taps.blocks.iter().map(judged).collect()
}

/// What one head says, per row.
pub(super) struct Judged {
    pub(super) confidence: Vec<f32>,
    pub(super) class: Vec<i64>,
}

impl Judged {
    /// Takes the answers at `rows` from `part`, which has only these.
    fn overwrite(&mut self, rows: &[usize], part: &Judged) {
        for ((row, confidence), class) in rows.iter().zip(&part.confidence).zip(&part.class) {
            self.confidence[*row] = *confidence;
            self.class[*row] = *class;
        }
    }
}

/// The rows of each fold, and the rows outside it.
fn folds(rows: &[usize]) -> Vec<(Vec<usize>, Vec<usize>)> {
    let part = |k: usize| {
        let inside = |i: &usize| i % FOLDS == k;
        let (out, kept): (Vec<usize>, Vec<usize>) = (0..rows.len()).partition(inside);
        let pick = |at: Vec<usize>| at.into_iter().map(|i| rows[i]).collect();
        (pick(out), pick(kept))
    };
    (0..FOLDS).map(part).collect()
}

/// A fitted head as the pass takes it.
pub(super) fn graph_head(head: &fit::Head) -> Result<Head, Error> {
    let (weight, bias) = dense(&head.output)?;
    Ok(match &head.hidden {
        None => Head::Linear { weight, bias },
        Some((hidden, function)) => {
            let (hidden_weight, hidden_bias) = dense(hidden)?;
            Head::Mlp { hidden_weight, hidden_bias, activation: activation(*function), weight, bias }
        }
    })
}

/// The weight and the bias of a fitted layer.
pub(super) fn dense(layer: &fit::Dense) -> Result<(Tensor, Tensor), Error> {
    let weight = Tensor::new(&[layer.inputs, layer.outputs], layer.weight.clone()).map_err(Error::request)?;
    Ok((weight, Tensor::vector(layer.bias.clone())))
}

/// A fitted module's function as passes name it.
pub(super) fn activation(function: fit::Activation) -> exit_heads::Activation {
    match function {
        fit::Activation::Relu => exit_heads::Activation::Relu,
        fit::Activation::GeluTanh => exit_heads::Activation::GeluTanh,
    }
}
