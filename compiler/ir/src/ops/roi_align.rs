//! `RoiAlign`: boxes of images, sampled on a grid of their own and pooled to one size.
//!
//! Specification: <https://onnx.ai/onnx/operators/onnx__RoiAlign.html>. Sizes are computed in f32 (of f64 operands in
//! f64): the number of samples jumps where a size is a whole number, so that one more bit would be another grid.

use super::eval_context::{Eval, Evaluated};
use super::infer_context::{Infer, Inferred};
use super::{Facts, elementwise};
use crate::dim::Dim;
use crate::types::{DType, Type};

/// Results are not larger than this along an axis, and no box takes more samples along one.
const MAX_SIZE: i64 = 1 << 20;

/// All boxes together take no more samples of a channel: what their corners ask for is not to run for ever.
const MAX_SAMPLES: i64 = 1 << 26;

/// The attributes of `RoiAlign`.
pub(super) struct Attributes {
    pub(super) output: [i64; 2],
    pub(super) sampling_ratio: i64,
    pub(super) spatial_scale: f32,
    pub(super) max: bool,
    pub(super) half_pixel: bool,
}

/// `RoiAlign`: images `[n, c, h, w]`, boxes `[r, 4]` and the image of each `[r]`.
pub(super) fn infer(cx: &mut Infer, of: &Attributes) -> Inferred {
    cx.expect_float(0)?;
    cx.expect_same_dtype(0, 1)?;
    cx.expect_dtype(2, &[DType::I64])?;
    cx.expect_rank(0, 4)?;
    cx.expect_rank(1, 2)?;
    cx.expect_rank(2, 1)?;
    let (x, boxes, images) = (cx.ty(0), cx.ty(1), cx.ty(2));
    cx.unify(&boxes.dims[1], &Dim::from(4), || "the numbers of a box".into())?;
    let count = cx.unify(&boxes.dims[0], &images.dims[0], || "the numbers of boxes and of their images".into())?;
    let sizes = of.output;
    cx.require(sizes.iter().all(|n| (1..=MAX_SIZE).contains(n)), || {
        format!("the result's height and width must be 1 to {MAX_SIZE}, found {sizes:?}")
    })?;
    let ratio = of.sampling_ratio;
    cx.require((0..=MAX_SIZE).contains(&ratio), || format!("`sampling_ratio` must be 0 to {MAX_SIZE}, found {ratio}"))?;
    let dims = [count, x.dims[1].clone()].into_iter().chain(sizes.map(Dim::from));
    Ok(Facts::of(Type::new(x.dtype, dims)))
}

/// `RoiAlign`. A box whose corners are not finite has NaN as its result.
pub(super) fn eval(cx: &Eval, of: &Attributes) -> Evaluated {
    let (x, boxes, images) = (cx.floats(0), cx.floats(1), cx.integers(2)?);
    let [count, channels, height, width] = *cx.from(0) else { return Err(cx.fail("operand 0 must have 4 dims")) };
    let round = if cx.dtype() == DType::F64 { |x| x } else { |x| f64::from(x as f32) };
    let (mut out, mut samples) = (Vec::with_capacity(cx.len()), 0.0);
    for (corners, image) in boxes.chunks_exact(4).zip(images) {
        let image = usize::try_from(image).ok().filter(|i| *i < count);
        let image =
            image.ok_or_else(|| cx.fail(format!("a box is of an image that does not exist: there are {count}")))?;
        let image = &x[x.len() / count * image..][..x.len() / count];
        let rows = Axis::new(of, [corners[1], corners[3]], of.output[0], round);
        let columns = Axis::new(of, [corners[0], corners[2]], of.output[1], round);
        if !rows.is_finite() || !columns.is_finite() {
            out.resize(out.len() + cx.len() / (boxes.len() / 4), f64::NAN);
            continue;
        }
        samples += rows.samples() * columns.samples();
        if rows.samples().max(columns.samples()) > MAX_SIZE as f64 || samples > MAX_SAMPLES as f64 {
            let most = format!("at most {MAX_SIZE} along an axis and {MAX_SAMPLES} in all are taken");
            return Err(cx.fail(format!("the boxes are too large for their samples: {most}")));
        }
        let (rows, columns) = (rows.bins(height), columns.bins(width));
        for channel in 0..channels {
            let plane = &image[image.len() / channels * channel..];
            for row in &rows {
                out.extend(columns.iter().map(|column| of.pooled(plane, width, row, column)));
            }
        }
    }
    cx.finish_floats(out)
}

/// What a box spans along one axis of the image.
struct Axis {
    start: f64,
    /// The size of a bin.
    bin: f64,
    bins: i64,
    /// How many samples a bin takes.
    grid: f64,
    round: fn(f64) -> f64,
}

impl Axis {
    fn new(of: &Attributes, [from, to]: [f64; 2], bins: i64, round: fn(f64) -> f64) -> Axis {
        let shift = if of.half_pixel { 0.5 } else { 0.0 };
        let scaled = |corner: f64| round(round(corner * f64::from(of.spatial_scale)) - shift);
        let start = scaled(from);
        let length = round(scaled(to) - start);
        // Without the shift no box is smaller than an element.
        let length = if !of.half_pixel && length < 1.0 { 1.0 } else { length };
        let bin = round(length / bins as f64);
        let grid = if of.sampling_ratio > 0 { of.sampling_ratio as f64 } else { bin.ceil().max(0.0) };
        Axis { start, bin, bins, grid, round }
    }

    fn is_finite(&self) -> bool {
        self.start.is_finite() && self.bin.is_finite()
    }

    /// How many samples all bins take.
    fn samples(&self) -> f64 {
        self.grid * self.bins as f64
    }

    /// The samples of every bin in `size` elements.
    fn bins(&self, size: usize) -> Vec<Vec<Option<Sample>>> {
        let round = self.round;
        let at = |bin: i64, i: i64| {
            let first = round(self.start + round(bin as f64 * self.bin));
            round(first + round(round((i as f64 + 0.5) * self.bin) / self.grid))
        };
        let samples = |bin| (0..self.grid as i64).map(|i| Sample::new(at(bin, i), size)).collect();
        (0..self.bins).map(samples).collect()
    }
}

/// A position between two neighbours, the second of which has this share.
#[derive(Clone, Copy)]
struct Sample {
    low: usize,
    high: usize,
    share: f64,
}

impl Sample {
    /// The sample at a position in `size` elements; none if it is more than an element outside.
    fn new(at: f64, size: usize) -> Option<Sample> {
        let last = size.checked_sub(1)?;
        if !(-1.0..=size as f64).contains(&at) {
            return None;
        }
        let at = at.max(0.0);
        let low = at as usize;
        if low >= last {
            return Some(Sample { low: last, high: last, share: 0.0 });
        }
        Some(Sample { low, high: low + 1, share: at - low as f64 })
    }
}

impl Attributes {
    /// What the samples of a bin are pooled to: their mean, or the largest of their weighted neighbours.
    fn pooled(&self, plane: &[f64], width: usize, rows: &[Option<Sample>], columns: &[Option<Sample>]) -> f64 {
        let neighbours = |y: Sample, x: Sample| {
            let element = |row: usize, column: usize| plane[row * width + column];
            [
                (1.0 - y.share) * (1.0 - x.share) * element(y.low, x.low),
                (1.0 - y.share) * x.share * element(y.low, x.high),
                y.share * (1.0 - x.share) * element(y.high, x.low),
                y.share * x.share * element(y.high, x.high),
            ]
        };
        let samples = rows.iter().flat_map(|y| columns.iter().map(move |x| (*y).zip(*x)));
        let values = samples.map(|at| at.map_or([0.0; 4], |(y, x)| neighbours(y, x)));
        if self.max {
            return values.flatten().reduce(elementwise::larger).unwrap_or(0.0);
        }
        values.flatten().sum::<f64>() / (rows.len() * columns.len()).max(1) as f64
    }
}
