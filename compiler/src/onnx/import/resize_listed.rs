//! `Resize` along an axis of constant sizes: positions and weights are constants.
//!
//! Cubic weights: Keys 1981.

use eec_ir::minifloat::Overflow;
use eec_ir::{Op, Tensor, ValueId};

use super::super::error::{NodeResult, refuse};
use super::node::Cx;
use super::resize::{self, MIDDLE, Options, Tap, combined};

/// Larger axes are refused, as their tables of positions would be.
const LARGEST: i64 = 1 << 20;

/// One axis, whose sizes are constant.
struct Axis {
    from: i64,
    to: i64,
    scale: f32,
    /// The result's size before it is cut off, which is what corners are aligned of.
    target: f32,
    roi: [f64; 2],
}

/// The elements that make one result: positions, some perhaps outside, and weights.
struct Taps {
    first: i64,
    weights: Vec<f64>,
    /// The result is the extrapolation value instead.
    outside: bool,
}

/// The operand with one axis resized.
pub(super) fn resized(
    cx: &mut Cx,
    x: ValueId,
    axis: &resize::Axis,
    [from, to]: [i64; 2],
    options: &Options,
) -> NodeResult<ValueId> {
    if from < 1 || !(0..=LARGEST).contains(&to) {
        return refuse(format!("a dim of {from} cannot become one of {to}"));
    }
    let given = axis.scale.map(|scale| scale as f32);
    let scale = given.unwrap_or(to as f32 / from as f32);
    let target = given.map_or(to as f32, |scale| scale * from as f32);
    let sizes = Axis { from, to, scale, target, roi: axis.roi };
    let taps = (0..to).map(|i| taps(&sizes, i, options)).collect::<NodeResult<Vec<Taps>>>()?;
    let (wide, own) = cx.widened(x)?;
    let count = taps.iter().map(|t| t.weights.len()).max().unwrap_or(0);
    let mut terms = Vec::with_capacity(count);
    for tap in 0..count {
        let position = |t: &Taps| (t.first + tap as i64).clamp(0, from - 1);
        let weights: Vec<f64> = taps.iter().map(|t| t.weights.get(tap).copied().unwrap_or(0.0)).collect();
        if weights.iter().all(|w| *w == 0.0) {
            continue;
        }
        let positions = cx.integers(taps.iter().map(position).collect());
        let whole = weights.iter().all(|w| *w == 1.0);
        let weights = if whole { None } else { Some(column(cx, wide, &weights, axis.axis)?) };
        terms.push(Tap { positions, weights });
    }
    let mut y = combined(cx, wide, axis.axis, terms)?;
    if taps.iter().any(|t| t.outside) {
        let outside = Tensor::new(&[taps.len()], taps.iter().map(|t| u8::from(t.outside)).collect())?;
        let (outside, rank) = (cx.constant(outside), cx.rank(x));
        let outside = cx.along(outside, axis.axis, rank)?;
        let value = cx.number(y, options.extrapolation)?;
        y = cx.choose(outside, value, y)?;
    }
    if own.is_int() {
        y = cx.unary(Op::Round {}, y)?;
    }
    cx.cast(y, own)
}

/// Constants of the type of `like` along one of its axes.
fn column(cx: &mut Cx, like: ValueId, values: &[f64], axis: usize) -> NodeResult<ValueId> {
    let mut dims = vec![1; cx.rank(like)];
    dims[axis] = values.len();
    let dtype = cx.ty(like).dtype;
    let tensor = Tensor::from_f64s(dtype, &dims, values, Overflow::Special)?;
    Ok(cx.constant(tensor))
}

/// The position in the operand of result `i`, as float32 has it, and whether it lies outside of it.
fn source(axis: &Axis, i: i64, coordinates: &str) -> NodeResult<(f64, bool)> {
    let (from, i, to) = (axis.from as f32, i as f32, axis.target);
    let middle = (i + 0.5) / axis.scale;
    let at = match coordinates {
        "half_pixel" => middle - 0.5,
        "half_pixel_symmetric" => from * 0.5 * (1.0 - axis.to as f32 / (axis.scale * from)) + middle - 0.5,
        "pytorch_half_pixel" if axis.to == 1 => 0.0,
        "pytorch_half_pixel" => middle - 0.5,
        "asymmetric" => i / axis.scale,
        "align_corners" if to == 1.0 => 0.0,
        "align_corners" => i * (from - 1.0) / (to - 1.0),
        "tf_crop_and_resize" => {
            let [start, end] = axis.roi.map(|share| share as f32);
            let length = (end - start) * (from - 1.0);
            let at = start * (from - 1.0) + if to == 1.0 { length / 2.0 } else { i * length / (to - 1.0) };
            return Ok((at.into(), at < 0.0 || at > from - 1.0));
        }
        other => return refuse(format!("`coordinate_transformation_mode` `{other}` is not known")),
    };
    Ok((at.into(), false))
}

fn taps(axis: &Axis, i: i64, options: &Options) -> NodeResult<Taps> {
    let (at, outside) = source(axis, i, &options.coordinates)?;
    // The element to the left is preferred: a whole position is the end of an interval.
    let whole = at == at.floor();
    let ratio = if whole { 1.0 } else { at - at.floor() };
    let left = at.floor() as i64 - i64::from(whole);
    let narrowed = if options.antialias { f64::from(axis.scale.min(1.0)) } else { 1.0 };
    let (reach, mut weights) = match options.mode.as_str() {
        "nearest" => (0, nearest(ratio, whole, &options.nearest)?),
        "linear" => kernel(ratio, narrowed, 1.0, |x| (1.0 - x.abs()).max(0.0)),
        "cubic" => kernel(ratio, narrowed, 2.0, |x| cubic(x, options.cubic_a)),
        other => return refuse(format!("mode `{other}` is not known")),
    };
    let first = left - reach;
    if options.exclude_outside {
        for (position, weight) in (first..).zip(&mut weights) {
            if !(0..axis.from).contains(&position) {
                *weight = 0.0;
            }
        }
        let sum: f64 = weights.iter().sum();
        weights.iter_mut().for_each(|w| *w /= if sum == 0.0 { 1.0 } else { sum });
    }
    Ok(Taps { first, weights, outside })
}

/// The weights of the elements to the left and to the right.
fn nearest(ratio: f64, whole: bool, mode: &str) -> NodeResult<Vec<f64>> {
    let right = whole
        || match mode {
            "round_prefer_floor" => ratio > 0.5 + MIDDLE,
            "round_prefer_ceil" => ratio >= 0.5 - MIDDLE,
            "floor" => false,
            "ceil" => true,
            other => return refuse(format!("`nearest_mode` `{other}` is not known")),
        };
    Ok(if right { vec![0.0, 1.0] } else { vec![1.0, 0.0] })
}

/// Elements before the left one, and the weights of all from there on, by a function that is 0 beyond
/// `radius` and is stretched where the result is smaller.
fn kernel(ratio: f64, scale: f64, radius: f64, f: impl Fn(f64) -> f64) -> (i64, Vec<f64>) {
    let first = (-radius / scale).floor() as i64 + 1;
    let weights: Vec<f64> = (first..2 - first).map(|i| f(scale * (i as f64 - ratio))).collect();
    let sum: f64 = if scale < 1.0 { weights.iter().sum() } else { 1.0 };
    (-first, weights.into_iter().map(|w| w / sum).collect())
}

fn cubic(x: f64, a: f64) -> f64 {
    let x = x.abs();
    match x {
        _ if x <= 1.0 => ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0,
        _ if x < 2.0 => ((a * x - 5.0 * a) * x + 8.0 * a) * x - 4.0 * a,
        _ => 0.0,
    }
}
