//! Trains dense layers on standardised features: chooses the penalty on held-out rows, then fits on all.

use super::loss::Loss;
use super::matmul::Matrix;
use super::objective::{Objective, Shape};
use super::optimise::{Limits, Minimum, minimise};
use super::random::Random;
use super::{FitOptions, HeadKind, L2};

/// Fewest rows of which a part is held out to choose the penalty; below, [`SMALL_DATA_L2`].
pub(super) const MIN_ROWS_FOR_CHOICE: usize = 80;
/// The penalty when there is too little data to choose one: the strong middle of the grid.
pub(super) const SMALL_DATA_L2: f64 = 1e-2;
/// Penalties tried, strongest first. Features have unit variance, so one grid suits all models.
pub(super) const L2_GRID: [f64; 5] = [1e-1, 3e-2, 1e-2, 1e-3, 1e-4];
/// The part of the rows that is held out to choose the penalty: one in this many.
const HELD_OUT: usize = 5;
/// Iterations per penalty while choosing; the final fit goes on from there.
const CHOICE_ITERATIONS: u64 = 30;
/// Default width of a hidden layer, if the features are not narrower.
const DEFAULT_WIDTH: usize = 64;

/// The layers that `kind` asks for.
pub(super) fn shape(inputs: usize, classes: usize, kind: HeadKind) -> Shape {
    let hidden = match kind {
        HeadKind::Linear => None,
        HeadKind::Mlp { width, activation } => Some((width.unwrap_or(inputs.min(DEFAULT_WIDTH)), activation)),
    };
    Shape { inputs, hidden, outputs: classes }
}

/// What [`train`] leaves.
pub(super) struct Trained {
    pub(super) minimum: Minimum,
    pub(super) l2: f64,
    pub(super) held_out_loss: Option<f64>,
    pub(super) first_loss: f64,
    pub(super) final_loss: f64,
    pub(super) evaluations: u64,
}

/// Chooses the penalty, then fits on all rows, going on from where the choice ended.
pub(super) fn train<L: Loss>(shape: Shape, x: &Matrix<f32>, loss: &L, options: &FitOptions) -> Result<Trained, String> {
    let start = shape.start(options.seed);
    let choice = match options.l2 {
        L2::Fixed(l2) => Choice { l2, loss: None, parameters: start.clone(), evaluations: 0 },
        L2::Chosen if x.rows < MIN_ROWS_FOR_CHOICE => {
            Choice { l2: SMALL_DATA_L2, loss: None, parameters: start.clone(), evaluations: 0 }
        }
        L2::Chosen => choose_l2(shape, x, loss, start.clone(), options.seed)?,
    };
    let objective = Objective::new(shape, x, loss.clone(), choice.l2);
    let first_loss = objective.data_loss(&start);
    let limits = Limits { iterations: options.max_iterations, gradient: 1e-4, change: 1e-6 };
    let minimum = minimise(&|p: &[f64]| objective.evaluate(p), choice.parameters, limits)?;
    Ok(Trained {
        l2: choice.l2,
        held_out_loss: choice.loss,
        first_loss,
        final_loss: objective.data_loss(&minimum.parameters),
        evaluations: choice.evaluations + minimum.evaluations,
        minimum,
    })
}

/// A penalty and the weights found with it.
struct Choice {
    l2: f64,
    loss: Option<f64>,
    parameters: Vec<f64>,
    evaluations: u64,
}

/// Walks the grid from the strongest penalty, each fit starting at the last one's end, until the
/// held-out loss rises.
fn choose_l2<L: Loss>(shape: Shape, x: &Matrix<f32>, loss: &L, start: Vec<f64>, seed: u64) -> Result<Choice, String> {
    let (fit_rows, held_rows) = hold_out(x.rows, seed);
    let mut objective = Objective::new(shape, &x.select(&fit_rows), loss.select(&fit_rows), 0.0);
    let held = Objective::new(shape, &x.select(&held_rows), loss.select(&held_rows), 0.0);
    let limits = Limits { iterations: CHOICE_ITERATIONS, gradient: 1e-3, change: 1e-5 };
    let mut best = Choice { l2: L2_GRID[0], loss: None, parameters: start, evaluations: 0 };
    for l2 in L2_GRID {
        objective.l2 = l2;
        let minimum = minimise(&|p: &[f64]| objective.evaluate(p), best.parameters.clone(), limits)?;
        best.evaluations += minimum.evaluations;
        let loss = held.data_loss(&minimum.parameters);
        if best.loss.is_some_and(|least| loss >= least) {
            break;
        }
        best = Choice { l2, loss: Some(loss), parameters: minimum.parameters, ..best };
    }
    Ok(best)
}

/// Splits `0..rows` into rows to fit and rows to hold out, both in ascending order.
pub(super) fn hold_out(rows: usize, seed: u64) -> (Vec<usize>, Vec<usize>) {
    let mut order: Vec<usize> = (0..rows).collect();
    Random::new(seed ^ 0x5eed).shuffle(&mut order);
    let (held, fit) = order.split_at_mut(rows / HELD_OUT);
    held.sort_unstable();
    fit.sort_unstable();
    (fit.to_vec(), held.to_vec())
}
