//! `Resize` along an axis whose size, or the result's, is symbolic: a run computes positions and weights, as vectors of
//! float32, in the order of operations of the specification.

use eec_ir::{DType, Dim, Op, ValueId};

use super::super::error::{NodeResult, refuse};
use super::node::Cx;
use super::resize::{Axis, Coordinates, MIDDLE, Mode, Nearest, Options, Tap, combined};
use super::sample::cubic_weight;

/// The operand with one axis resized.
pub(super) fn resized(cx: &mut Cx, x: ValueId, axis: &Axis, options: &Options) -> NodeResult<ValueId> {
    check(axis, options)?;
    let (wide, own) = cx.widened(x)?;
    let at = source(cx, axis, options.coordinates)?;
    let last = size(cx, &(&axis.from - &Dim::from(1)))?;
    if options.mode == Mode::Nearest {
        let at = nearest(cx, at, options.nearest)?;
        let positions = inside(cx, at, last)?;
        let positions = cx.cast(positions, DType::I64)?;
        return combined(cx, x, axis.axis, vec![Tap { positions, weights: None }]);
    }
    let (rank, dtype) = (cx.rank(x), cx.ty(wide).dtype);
    let mut taps = Vec::new();
    for (position, weights) in interpolated(cx, at, last, options)? {
        let positions = inside(cx, position, last)?;
        let positions = cx.cast(positions, DType::I64)?;
        let weights = cx.cast(weights, dtype)?;
        taps.push(Tap { positions, weights: Some(cx.along(weights, axis.axis, rank)?) });
    }
    let y = combined(cx, wide, axis.axis, taps)?;
    cx.cast(y, own)
}

/// Refuses what only constant sizes allow.
fn check(axis: &Axis, options: &Options) -> NodeResult<()> {
    // Of an image that grows there is nothing to smooth.
    let smoothed = options.antialias && options.mode != Mode::Nearest && axis.scale.is_none_or(|scale| scale < 1.0);
    if smoothed { needs_constant("`antialias`", axis) } else { Ok(()) }
}

fn needs_constant<T>(what: &str, axis: &Axis) -> NodeResult<T> {
    refuse(format!(
        "{what} needs constant sizes, found {} and {}; `--fix-dim` makes them constants",
        axis.from, axis.to
    ))
}

/// A size as a float.
fn size(cx: &mut Cx, size: &Dim) -> NodeResult<ValueId> {
    let number = cx.number_of(size)?;
    cx.cast(number, DType::F32)
}

/// The position in the operand of every result.
fn source(cx: &mut Cx, axis: &Axis, coordinates: Coordinates) -> NodeResult<ValueId> {
    let index = cx.indices(&axis.to, 0, 1)?;
    let index = cx.cast(index, DType::F32)?;
    let (from, to) = (size(cx, &axis.from)?, size(cx, &axis.to)?);
    let scale = match axis.scale {
        Some(scale) => cx.scalar(DType::F32, scale)?,
        None => cx.div(to, from)?,
    };
    let middle = |cx: &mut Cx| {
        let middle = cx.plus(index, 0.5)?;
        cx.div(middle, scale)
    };
    match coordinates {
        Coordinates::HalfPixel => {
            let at = middle(cx)?;
            cx.plus(at, -0.5)
        }
        Coordinates::HalfPixelSymmetric => {
            let at = middle(cx)?;
            let centre = cx.times(from, 0.5)?;
            let target = cx.mul(scale, from)?;
            let covered = cx.div(to, target)?;
            let one = cx.number(covered, 1.0)?;
            let missing = cx.sub(one, covered)?;
            let offset = cx.mul(centre, missing)?;
            let at = cx.add(offset, at)?;
            cx.plus(at, -0.5)
        }
        Coordinates::PytorchHalfPixel => {
            let at = middle(cx)?;
            let at = cx.plus(at, -0.5)?;
            let (zero, one) = (cx.number(at, 0.0)?, cx.number(to, 1.0)?);
            let several = cx.emit(Op::Greater {}, &[to, one])?;
            cx.choose(several, at, zero)
        }
        Coordinates::Asymmetric => cx.div(index, scale),
        Coordinates::AlignCorners => {
            let target = if axis.scale.is_some() { cx.mul(scale, from)? } else { to };
            let (wide, steps) = (cx.plus(from, -1.0)?, cx.plus(target, -1.0)?);
            // The only result of one stands at 0, whatever that is divided by.
            let steps = cx.at_least(steps, f64::from(f32::EPSILON))?;
            let at = cx.mul(index, wide)?;
            cx.div(at, steps)
        }
        Coordinates::CropAndResize => needs_constant("`tf_crop_and_resize`", axis),
    }
}

/// Positions as whole ones.
fn nearest(cx: &mut Cx, at: ValueId, mode: Nearest) -> NodeResult<ValueId> {
    let left = cx.unary(Op::Floor {}, at)?;
    let (op, middle) = match mode {
        Nearest::PreferLeft => (Op::Greater {}, 0.5 + MIDDLE),
        Nearest::PreferRight => (Op::GreaterOrEqual {}, 0.5 - MIDDLE),
        Nearest::Left => return Ok(left),
        Nearest::Right => return cx.unary(Op::Ceil {}, at),
    };
    let ratio = cx.sub(at, left)?;
    let middle = cx.number(ratio, middle)?;
    let above = cx.emit(op, &[ratio, middle])?;
    let right = cx.plus(left, 1.0)?;
    cx.choose(above, right, left)
}

/// The nearest position that exists, up to `last`.
fn inside(cx: &mut Cx, at: ValueId, last: ValueId) -> NodeResult<ValueId> {
    let at = cx.at_least(at, 0.0)?;
    cx.emit(Op::Min {}, &[at, last])
}

/// Positions, some perhaps outside, and weights.
fn interpolated(cx: &mut Cx, at: ValueId, last: ValueId, options: &Options) -> NodeResult<Vec<(ValueId, ValueId)>> {
    let left = cx.unary(Op::Floor {}, at)?;
    let ratio = cx.sub(at, left)?;
    let mut taps = Vec::new();
    match options.mode {
        Mode::Nearest | Mode::Linear => {
            let one = cx.number(ratio, 1.0)?;
            taps.extend([(left, cx.sub(one, ratio)?), (cx.plus(left, 1.0)?, ratio)]);
        }
        Mode::Cubic => {
            for shift in [-1.0, 0.0, 1.0, 2.0] {
                taps.push((cx.plus(left, shift)?, cubic_weight(cx, ratio, shift, options.cubic_a)?));
            }
        }
    }
    if !options.exclude_outside {
        return Ok(taps);
    }
    for (position, weight) in &mut taps {
        let there = inside(cx, *position, last)?;
        let exists = cx.emit(Op::Equal {}, &[*position, there])?;
        let zero = cx.number(*weight, 0.0)?;
        *weight = cx.choose(exists, *weight, zero)?;
    }
    let mut sum = taps[0].1;
    for (_, weight) in &taps[1..] {
        sum = cx.add(sum, *weight)?;
    }
    for (_, weight) in &mut taps {
        *weight = cx.div(*weight, sum)?;
    }
    Ok(taps)
}
