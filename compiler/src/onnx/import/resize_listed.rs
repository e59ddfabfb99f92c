//! `Resize` along an axis of constant sizes: positions and weights are constants.

use eec_ir::minifloat::Overflow;
use eec_ir::{Tensor, ValueId};

use super::super::error::{NodeResult, refuse};
use super::node::Cx;
use super::resize::{Axis, Coordinates, MIDDLE, Mode, Nearest, Options, Tap, combined};
use super::sample::cubic;

/// Larger axes are refused, as their tables of positions would be.
const LARGEST: i64 = 1 << 20;

/// The sizes of an axis, and the factor between them.
struct Sizes {
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
    axis: &Axis,
    [from, to]: [i64; 2],
    options: &Options,
) -> NodeResult<ValueId> {
    if from < 1 || !(0..=LARGEST).contains(&to) {
        return refuse(format!("a dim of {from} cannot become one of {to}"));
    }
    let given = axis.scale.map(|scale| scale as f32);
    let scale = given.unwrap_or(to as f32 / from as f32);
    let target = given.map_or(to as f32, |scale| scale * from as f32);
    let sizes = Sizes { from, to, scale, target, roi: axis.roi };
    let taps = (0..to).map(|i| taps(&sizes, i, options)).collect::<Vec<Taps>>();
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
fn source(axis: &Sizes, i: i64, coordinates: Coordinates) -> (f64, bool) {
    let (from, i, to) = (axis.from as f32, i as f32, axis.target);
    let middle = (i + 0.5) / axis.scale;
    let at = match coordinates {
        Coordinates::HalfPixel => middle - 0.5,
        Coordinates::HalfPixelSymmetric => from * 0.5 * (1.0 - axis.to as f32 / (axis.scale * from)) + middle - 0.5,
        Coordinates::PytorchHalfPixel if axis.to == 1 => 0.0,
        Coordinates::PytorchHalfPixel => middle - 0.5,
        Coordinates::Asymmetric => i / axis.scale,
        Coordinates::AlignCorners if to == 1.0 => 0.0,
        Coordinates::AlignCorners => i * (from - 1.0) / (to - 1.0),
        Coordinates::CropAndResize => {
            let [start, end] = axis.roi.map(|share| share as f32);
            let length = (end - start) * (from - 1.0);
            let at = start * (from - 1.0) + if to == 1.0 { length / 2.0 } else { i * length / (to - 1.0) };
            return (at.into(), at < 0.0 || at > from - 1.0);
        }
    };
    (at.into(), false)
}

fn taps(axis: &Sizes, i: i64, options: &Options) -> Taps {
    let (at, outside) = source(axis, i, options.coordinates);
    // The element to the left is preferred: a whole position is the end of an interval.
    let whole = at == at.floor();
    let ratio = if whole { 1.0 } else { at - at.floor() };
    let left = at.floor() as i64 - i64::from(whole);
    let narrowed = if options.antialias { f64::from(axis.scale.min(1.0)) } else { 1.0 };
    let (reach, mut weights) = match options.mode {
        Mode::Nearest => (0, nearest(ratio, whole, options.nearest)),
        Mode::Linear => kernel(ratio, narrowed, 1.0, |x| (1.0 - x.abs()).max(0.0)),
        Mode::Cubic => kernel(ratio, narrowed, 2.0, |x| cubic_weight(x, options.cubic_a)),
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
    Taps { first, weights, outside }
}

/// The weights of the elements to the left and to the right.
fn nearest(ratio: f64, whole: bool, mode: Nearest) -> Vec<f64> {
    let right = match mode {
        Nearest::PreferLeft => ratio > 0.5 + MIDDLE,
        Nearest::PreferRight => ratio >= 0.5 - MIDDLE,
        Nearest::Left => whole,
        Nearest::Right => true,
    };
    if right { vec![0.0, 1.0] } else { vec![1.0, 0.0] }
}

/// Elements before the left one, and the weights of all from there on, by a function that is 0 beyond
/// `radius` and is stretched where the result is smaller.
fn kernel(ratio: f64, scale: f64, radius: f64, f: impl Fn(f64) -> f64) -> (i64, Vec<f64>) {
    let first = (-radius / scale).floor() as i64 + 1;
    let weights: Vec<f64> = (first..2 - first).map(|i| f(scale * (i as f64 - ratio))).collect();
    let sum: f64 = if scale < 1.0 { weights.iter().sum() } else { 1.0 };
    (-first, weights.into_iter().map(|w| w / sum).collect())
}

fn cubic_weight(x: f64, a: f64) -> f64 {
    let x = x.abs();
    let [near, far] = cubic(a);
    let polynomial = match x {
        _ if x <= 1.0 => near,
        _ if x < 2.0 => far,
        _ => return 0.0,
    };
    polynomial.into_iter().fold(0.0, |sum, coefficient| sum * x + coefficient)
}
