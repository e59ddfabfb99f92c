//! Fits a narrow module to a map between vectors, such as that of an FFN, by least squares: of low
//! rank in closed form, or an MLP by L-BFGS.

use serde::{Deserialize, Serialize};

use super::head::{Activation, Dense};
use super::inputs::{Features, check_finite, check_length};
use super::loss::Squares;
use super::low_rank::{LowRank, Moments};
use super::matmul::{Matrix, Real};
use super::objective::{Shape, dense};
use super::standardise::Standardiser;
use super::train::{L2_GRID, MIN_ROWS_FOR_CHOICE, SMALL_DATA_L2, hold_out, train};
use super::{FitError, FitOptions, MIN_ROWS};

/// The form of a narrow module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Narrow {
    /// Values between the two layers, from 1 to the width of the input.
    pub rank: usize,
    /// The function between them; `None` makes the module linear.
    pub activation: Option<Activation>,
}

/// Two dense layers through a narrow middle.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Bottleneck {
    /// From the input, `[inputs, rank]`.
    pub down: Dense,
    /// The function in the middle; `None` makes the module a linear map of low rank.
    pub activation: Option<Activation>,
    /// To the output, `[rank, outputs]`.
    pub up: Dense,
}

/// Fits a module to `targets`, row-major `[rows, outputs]`, on all rows of `features`: the least mean
/// squared error with a penalty on the weights, which is chosen on held-out rows drawn by `seed`.
///
/// # Errors
///
/// Inputs of the wrong length, values that are not finite, fewer than [`MIN_ROWS`] rows, a rank out of
/// range.
///
/// ```
/// use eec::fit::{Features, Narrow, fit_bottleneck};
///
/// // 50 rows of 3 values, of which the targets are twice the first.
/// let x: Vec<f32> = (0..150).map(|i| (i as f32 * 0.7).sin()).collect();
/// let y: Vec<f32> = x.chunks(3).map(|row| 2.0 * row[0]).collect();
/// let features = Features { candidate: "FFN 0", rows: 50, width: 3, values: &x };
/// let module = fit_bottleneck(&features, &y, 1, Narrow { rank: 1, activation: None }, 0)?;
/// assert_eq!((module.down.outputs, module.up.outputs), (1, 1));
/// # Ok::<(), eec::fit::FitError>(())
/// ```
pub fn fit_bottleneck(
    features: &Features<'_>,
    targets: &[f32],
    outputs: usize,
    form: Narrow,
    seed: u64,
) -> Result<Bottleneck, FitError> {
    check(features, targets, outputs, form)?;
    let (width, rank) = (features.width, form.rank);
    let rows: Vec<usize> = (0..features.rows).collect();
    let inputs = Standardiser::measure(features.values, width, &rows);
    let centred = Centred::measure(targets, outputs);
    let found = match form.activation {
        None => linear(&inputs.apply(features.values, &rows), &centred.apply(targets), rank, seed),
        Some(activation) => {
            let shape = Shape { inputs: width, hidden: Some((rank, activation)), outputs };
            let loss = Squares { targets: centred.apply(targets) };
            let options = FitOptions { seed, ..FitOptions::default() };
            train(shape, &inputs.apply(features.values, &rows), &loss, &options).map(|t| t.minimum.parameters)
        }
    };
    let candidate = || features.candidate.to_owned();
    let found = found.map_err(|reason| FitError::Optimiser { candidate: candidate(), reason })?;
    let (down, up) = found.split_at((width + 1) * rank);
    let mut module = Bottleneck {
        down: dense(down, width, rank, Some(&inputs)),
        activation: form.activation,
        up: dense(up, rank, outputs, None),
    };
    centred.restore(&mut module.up);
    Ok(module)
}

fn check(features: &Features<'_>, targets: &[f32], outputs: usize, form: Narrow) -> Result<(), FitError> {
    let Features { candidate, rows, width, values } = *features;
    if !(1..=width).contains(&form.rank) {
        let (option, range) = ("the rank of what takes its place", "from 1 to its width");
        return Err(FitError::Option { candidate: candidate.into(), option, range });
    }
    check_length(candidate, "features", values.len(), rows, width)?;
    check_length(candidate, "targets", targets.len(), rows, outputs)?;
    if rows < MIN_ROWS {
        return Err(FitError::TooFewRows { candidate: candidate.into(), needed: MIN_ROWS, found: rows });
    }
    let all: Vec<usize> = (0..rows).collect();
    check_finite(candidate, "feature", values, width, &all)?;
    check_finite(candidate, "target", targets, outputs, &all)
}

/// A linear map of low rank from `x` to `y`, as the parameters of two layers without biases. The penalty
/// is the one with the least error on held-out rows.
fn linear(x: &Matrix<f64>, y: &Matrix<f64>, rank: usize, seed: u64) -> Result<Vec<f64>, String> {
    let part = |rows: &[usize]| Moments::measure(&x.select(rows), &y.select(rows));
    let (fit_rows, held_rows) = hold_out(x.rows, seed);
    let (fit, held) = (part(&fit_rows), part(&held_rows));
    let map = |moments: &Moments, l2| {
        let map = moments.map(rank, l2, seed);
        map.ok_or_else(|| format!("the sums of products are not positive definite at the penalty {l2:.0e}"))
    };
    let l2 =
        if x.rows < MIN_ROWS_FOR_CHOICE { SMALL_DATA_L2 } else { choose_l2(|l2| Ok(held.error(&map(&fit, l2)?)))? };
    let LowRank { down, up } = map(&fit.join(&held), l2)?;
    Ok([down.values, vec![0.0; rank], up.values, vec![0.0; y.columns]].concat())
}

/// The penalty of the grid with the least error.
fn choose_l2(error: impl Fn(f64) -> Result<f64, String>) -> Result<f64, String> {
    let mut best = (f64::INFINITY, L2_GRID[0]);
    for l2 in L2_GRID {
        let error = error(l2)?;
        if error < best.0 {
            best = (error, l2);
        }
    }
    Ok(best.1)
}

/// Targets about their means, in units of their root mean square: one for all columns, since the error
/// of a large column counts for more.
struct Centred {
    mean: Vec<f64>,
    scale: f64,
}

impl Centred {
    fn measure(targets: &[f32], outputs: usize) -> Self {
        let rows = (targets.len() / outputs).max(1) as f64;
        let mut mean = vec![0.0; outputs];
        for row in targets.chunks_exact(outputs) {
            mean.iter_mut().zip(row).for_each(|(m, &v)| *m += f64::from(v) / rows);
        }
        let squares = targets.chunks_exact(outputs).flat_map(|row| row.iter().zip(&mean));
        let squares: f64 = squares.map(|(&v, m)| (f64::from(v) - m).powi(2)).sum();
        Self { mean, scale: (squares / targets.len().max(1) as f64).sqrt() }
    }

    fn apply<T: Real>(&self, targets: &[f32]) -> Matrix<T> {
        let inverse = if self.scale > 0.0 { 1.0 / self.scale } else { 0.0 };
        let columns = self.mean.len();
        let rows = targets.chunks_exact(columns);
        let values = rows.flat_map(|row| row.iter().zip(&self.mean));
        let values: Vec<T> = values.map(|(&v, m)| T::from_f64((f64::from(v) - m) * inverse)).collect();
        Matrix { rows: targets.len() / columns, columns, values }
    }

    /// Makes a layer that gives such targets give the raw ones.
    fn restore(&self, layer: &mut Dense) {
        layer.weight.iter_mut().for_each(|w| *w = (f64::from(*w) * self.scale) as f32);
        for (b, mean) in layer.bias.iter_mut().zip(&self.mean) {
            *b = (f64::from(*b) * self.scale + mean) as f32;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::random::Random;
    use super::*;

    const WIDTH: usize = 6;

    /// Rows of shifted, unequally wide values, and what `map` makes of them.
    fn data(rows: usize, map: impl Fn(&[f32]) -> Vec<f32>) -> (Vec<f32>, Vec<f32>) {
        let mut random = Random::new(11);
        let column = |i: usize| (1.0 + i as f64, 10.0 * i as f64);
        let x: Vec<f32> = (0..rows * WIDTH)
            .map(|i| {
                let (wide, shift) = column(i % WIDTH);
                (random.normal() * wide + shift) as f32
            })
            .collect();
        let y = x.chunks(WIDTH).flat_map(map).collect();
        (x, y)
    }

    fn fit(x: &[f32], y: &[f32], rank: usize, activation: Option<Activation>) -> Result<Bottleneck, FitError> {
        let features = Features { candidate: "FFN 2", rows: x.len() / WIDTH, width: WIDTH, values: x };
        fit_bottleneck(&features, y, WIDTH, Narrow { rank, activation }, 0)
    }

    fn apply(module: &Bottleneck, x: &[f32]) -> Vec<f32> {
        let hidden = module.activation.map(|a| (module.down.clone(), a));
        match hidden {
            Some(_) => super::super::Head { hidden, output: module.up.clone() }.logits(x),
            None => {
                let layer = |l: &Dense, x: &[f32]| super::super::Head { hidden: None, output: l.clone() }.logits(x);
                layer(&module.up, &layer(&module.down, x))
            }
        }
    }

    /// The share of the targets' variance that the module leaves.
    fn left(module: &Bottleneck, x: &[f32], y: &[f32]) -> f64 {
        let centred = Centred::measure(y, WIDTH);
        let pairs = x.chunks(WIDTH).zip(y.chunks(WIDTH));
        let errors = pairs.flat_map(|(x, y)| apply(module, x).into_iter().zip(y.to_vec()));
        errors.map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>() / (y.len() as f64 * centred.scale.powi(2))
    }

    #[test]
    fn a_low_rank_map_is_learned_on_raw_features() {
        let map = |x: &[f32]| (0..WIDTH).map(|i| 3.0 + x[1] * i as f32 - 2.0 * x[4] * (i % 2) as f32).collect();
        for rows in [40, 300] {
            let (x, y) = data(rows, map);
            assert!(left(&fit(&x, &y, 2, None).unwrap(), &x, &y) < 1e-3, "{rows} rows");
            assert!(left(&fit(&x, &y, 1, None).unwrap(), &x, &y) > 1e-2, "{rows} rows");
        }
    }

    #[test]
    fn an_mlp_learns_what_no_linear_map_can() {
        let (x, y) = data(400, |x| (0..WIDTH).map(|i| (x[0] - 0.5).abs() * (1.0 + i as f32)).collect());
        assert!(left(&fit(&x, &y, 6, None).unwrap(), &x, &y) > 0.5);
        for activation in [Activation::Relu, Activation::GeluTanh] {
            assert!(left(&fit(&x, &y, 4, Some(activation)).unwrap(), &x, &y) < 0.05);
        }
    }

    #[test]
    fn targets_that_never_change_are_their_mean() {
        let (x, y) = data(100, |_| vec![0.25; WIDTH]);
        for activation in [None, Some(Activation::Relu)] {
            assert_eq!(apply(&fit(&x, &y, 2, activation).unwrap(), &x[..WIDTH]), [0.25; WIDTH]);
        }
    }

    #[test]
    fn bad_data_and_ranks_are_refused() {
        let (mut x, y) = data(100, |x| x.to_vec());
        for rank in [0, WIDTH + 1] {
            assert!(matches!(fit(&x, &y, rank, None), Err(FitError::Option { .. })));
        }
        assert!(matches!(fit(&x, &y[1..], 2, None), Err(FitError::Length { what: "targets", .. })));
        assert!(matches!(fit(&x[..WIDTH * 9], &y[..WIDTH * 9], 2, None), Err(FitError::TooFewRows { .. })));
        x[WIDTH * 3 + 1] = f32::NAN;
        assert!(matches!(fit(&x, &y, 2, None), Err(FitError::NotFinite { row: 3, column: 1, .. })));
    }
}
