//! `GridSample` and `AffineGrid`: interpolation at computed positions, in terms of gathers.
//!
//! Specification: <https://onnx.ai/onnx/operators/onnx__GridSample.html>,
//! <https://onnx.ai/onnx/operators/onnx__AffineGrid.html>; cubic weights: Keys 1981.

use eec_ir::minifloat::Overflow;
use eec_ir::{DType, Dim, Op, Tensor, ValueId};

use super::super::error::{NodeResult, Refusal, refuse};
use super::node::{Cx, Results};

/// What lies outside of an image.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Outside {
    Zeros,
    Border,
    Reflection,
}

/// The coordinates along one spatial axis, which has `size` elements.
#[derive(Clone, Copy)]
struct Axis {
    size: i64,
    align_corners: bool,
    outside: Outside,
}

/// One element that contributes: its position along an axis, its weight, and whether it is inside.
#[derive(Clone, Copy)]
struct Tap {
    position: ValueId,
    weight: Option<ValueId>,
    inside: Option<ValueId>,
}

pub(super) fn grid_sample(cx: &mut Cx) -> Results {
    let (x, grid) = (cx.input(0)?, cx.input(1)?);
    let mode = cx.word("mode")?.unwrap_or_else(|| "linear".into());
    let outside = match cx.word("padding_mode")?.as_deref() {
        None | Some("zeros") => Outside::Zeros,
        Some("border") => Outside::Border,
        Some("reflection") => Outside::Reflection,
        Some(other) => return refuse(format!("padding mode `{other}` is not known")),
    };
    let align_corners = cx.flag("align_corners", false)?;
    let rank = cx.rank(x);
    if !(3..=5).contains(&rank) || cx.rank(grid) != rank {
        return refuse(format!("a grid of {} does not fit {}", cx.ty(grid), cx.ty(x)));
    }
    let sizes = (2..rank).map(|a| cx.fixed_dim(x, a)).collect::<NodeResult<Vec<i64>>>()?;
    let (own, points) = (cx.dims(x), cx.dims(grid)[1..rank - 1].to_vec());
    let count = Dim::product(&points);
    let mut taps: Vec<Vec<Tap>> = Vec::with_capacity(sizes.len());
    for (i, size) in sizes.iter().enumerate() {
        // The last coordinate of a point is that of the first spatial axis.
        let last = (rank - 3 - i) as i64;
        let part = cx.part(grid, rank - 1, [last.into(), (last + 1).into()], 1)?;
        let line = cx.reshape(part, vec![own[0].clone(), 1.into(), count.clone()])?;
        let axis = Axis { size: *size, align_corners, outside };
        taps.push(axis_taps(cx, line, axis, &mode)?);
    }
    let flat = cx.reshape(x, vec![own[0].clone(), own[1].clone(), sizes.iter().product::<i64>().into()])?;
    let shape = vec![own[0].clone(), own[1].clone(), count];
    let y = combined(cx, flat, &taps, &sizes, &shape)?;
    Ok(vec![cx.reshape(y, own[..2].iter().cloned().chain(points).collect())?])
}

/// The taps of every point along one axis.
fn axis_taps(cx: &mut Cx, normal: ValueId, axis: Axis, mode: &str) -> NodeResult<Vec<Tap>> {
    let at = position(cx, normal, axis)?;
    match mode {
        "nearest" => {
            let at = cx.unary(Op::Round {}, at)?;
            let at = moved_inside(cx, at, axis)?;
            Ok(vec![tap(cx, at, 0.0, None, axis)?])
        }
        "linear" | "bilinear" => {
            let (left, ratio) = split(cx, at, axis)?;
            let negative = cx.unary(Op::Neg {}, ratio)?;
            let rest = cx.plus(negative, 1.0)?;
            Ok(vec![tap(cx, left, 0.0, Some(rest), axis)?, tap(cx, left, 1.0, Some(ratio), axis)?])
        }
        "cubic" | "bicubic" => {
            let (left, ratio) = split(cx, at, axis)?;
            let shifts = [-1.0, 0.0, 1.0, 2.0];
            let mut taps = Vec::with_capacity(4);
            for shift in shifts {
                let weight = cubic_weight(cx, ratio, shift, -0.75)?;
                taps.push(tap(cx, left, shift, Some(weight), axis)?);
            }
            Ok(taps)
        }
        other => refuse(format!("mode `{other}` is not known")),
    }
}

/// A coordinate from -1 to 1 as a position.
fn position(cx: &mut Cx, normal: ValueId, axis: Axis) -> NodeResult<ValueId> {
    let size = axis.size as f64;
    let shifted = cx.plus(normal, 1.0)?;
    if axis.align_corners {
        return cx.times(shifted, (size - 1.0) / 2.0);
    }
    let scaled = cx.times(shifted, size)?;
    let centred = cx.plus(scaled, -1.0)?;
    cx.times(centred, 0.5)
}

/// The element to the left, and the distance from it.
fn split(cx: &mut Cx, at: ValueId, axis: Axis) -> NodeResult<(ValueId, ValueId)> {
    let at = moved_inside(cx, at, axis)?;
    let left = cx.unary(Op::Floor {}, at)?;
    let ratio = cx.sub(at, left)?;
    Ok((left, ratio))
}

/// A position beyond the borders, where the padding says so.
fn moved_inside(cx: &mut Cx, at: ValueId, axis: Axis) -> NodeResult<ValueId> {
    match axis.outside {
        Outside::Zeros => Ok(at),
        Outside::Border => cx.clipped(at, 0.0, (axis.size - 1) as f64),
        Outside::Reflection => reflected(cx, at, axis),
    }
}

/// `at`, reflected at the borders until it lies between them.
fn reflected(cx: &mut Cx, at: ValueId, axis: Axis) -> NodeResult<ValueId> {
    let (low, high) = match axis.align_corners {
        true => (0.0, (axis.size - 1) as f64),
        false => (-0.5, axis.size as f64 - 0.5),
    };
    if high <= low {
        return cx.times(at, 0.0);
    }
    let shifted = cx.plus(at, -low)?;
    let distance = cx.unary(Op::Abs {}, shifted)?;
    let periods = cx.times(distance, 1.0 / (high - low))?;
    let turns = cx.unary(Op::Floor {}, periods)?;
    let whole = cx.times(turns, high - low)?;
    let rest = cx.sub(distance, whole)?;
    let halves = cx.times(turns, 0.5)?;
    let floored = cx.unary(Op::Floor {}, halves)?;
    let even = cx.emit(Op::Equal {}, &[halves, floored])?;
    let back = cx.unary(Op::Neg {}, rest)?;
    let (forth, back) = (cx.plus(rest, low)?, cx.plus(back, high)?);
    cx.choose(even, forth, back)
}

/// The element `shift` to the right of a whole position.
fn tap(cx: &mut Cx, left: ValueId, shift: f64, weight: Option<ValueId>, axis: Axis) -> NodeResult<Tap> {
    let at = if shift == 0.0 { left } else { cx.plus(left, shift)? };
    let last = (axis.size - 1) as f64;
    let at = if axis.outside == Outside::Reflection { reflected(cx, at, axis)? } else { at };
    let position = cx.clipped(at, 0.0, last)?;
    let inside = match axis.outside {
        Outside::Zeros => Some(cx.emit(Op::Equal {}, &[at, position])?),
        Outside::Border | Outside::Reflection => None,
    };
    Ok(Tap { position, weight, inside })
}

/// The weights of elements by their distance, up to 1 and from there up to 2: polynomials, highest power first.
pub(super) fn cubic(a: f64) -> [[f64; 4]; 2] {
    [[a + 2.0, -(a + 3.0), 0.0, 1.0], [a, -5.0 * a, 8.0 * a, -4.0 * a]]
}

/// The weight of the element `shift` to the right of the left one, by a cubic that bends as `a` says.
pub(super) fn cubic_weight(cx: &mut Cx, ratio: ValueId, shift: f64, a: f64) -> NodeResult<ValueId> {
    let negative = cx.unary(Op::Neg {}, ratio)?;
    let distance = if shift <= 0.0 { cx.plus(ratio, -shift)? } else { cx.plus(negative, shift)? };
    let [near, far] = cubic(a);
    let polynomial = if shift == 0.0 || shift == 1.0 { near } else { far };
    let mut value = cx.times(distance, polynomial[0])?;
    for (i, coefficient) in polynomial[1..].iter().enumerate() {
        value = cx.plus(value, *coefficient)?;
        if i < 2 {
            value = cx.mul(value, distance)?;
        }
    }
    Ok(value)
}

/// The weighted sum over all combinations of taps; `flat` is `[batch, channels, elements]`.
fn combined(cx: &mut Cx, flat: ValueId, taps: &[Vec<Tap>], sizes: &[i64], shape: &[Dim]) -> NodeResult<ValueId> {
    let mut corners: Vec<Tap> = Vec::new();
    for (axis, taps) in taps.iter().enumerate() {
        if axis == 0 {
            corners = taps.clone();
            continue;
        }
        let mut next = Vec::with_capacity(corners.len() * taps.len());
        for corner in &corners {
            for tap in taps {
                next.push(joined(cx, *corner, *tap, sizes[axis])?);
            }
        }
        corners = next;
    }
    let mut sum = None;
    for corner in corners {
        let at = cx.cast(corner.position, DType::I64)?;
        let at = cx.expanded(at, shape.to_vec())?;
        let mut term = cx.emit(Op::GatherElements { axis: 2 }, &[flat, at])?;
        if let Some(inside) = corner.inside {
            let zero = cx.number(term, 0.0)?;
            term = cx.choose(inside, term, zero)?;
        }
        if let Some(weight) = corner.weight {
            term = cx.mul(term, weight)?;
        }
        sum = Some(match sum {
            Some(sum) => cx.add(sum, term)?,
            None => term,
        });
    }
    sum.ok_or_else(|| Refusal::new("there are no axes to sample"))
}

/// A tap along the axes so far with one along the next, which has `size` elements.
fn joined(cx: &mut Cx, outer: Tap, inner: Tap, size: i64) -> NodeResult<Tap> {
    let base = cx.times(outer.position, size as f64)?;
    let position = cx.add(base, inner.position)?;
    let weight = match (outer.weight, inner.weight) {
        (Some(a), Some(b)) => Some(cx.mul(a, b)?),
        (a, b) => a.or(b),
    };
    let inside = match (outer.inside, inner.inside) {
        (Some(a), Some(b)) => Some(cx.emit(Op::And {}, &[a, b])?),
        (a, b) => a.or(b),
    };
    Ok(Tap { position, weight, inside })
}

/// The positions of an image's elements, turned and moved by a matrix per sample.
pub(super) fn affine_grid(cx: &mut Cx) -> Results {
    let theta = cx.input(0)?;
    let align_corners = cx.flag("align_corners", false)?;
    let size = cx.const_ints(1, "size")?.unwrap_or_default();
    let (Some(spatial), true) = (size.get(2..), (4..=5).contains(&size.len())) else {
        return refuse(format!("a size of {} dims is not supported", size.len()));
    };
    let count = spatial.iter().try_fold(1i64, |n, d| n.checked_mul(*d)).filter(|n| (1..=1 << 24).contains(n));
    let count = count.ok_or_else(|| Refusal::new(format!("an image of {spatial:?} is empty or too large")))?;
    let coordinate = |i: i64, size: i64| match align_corners {
        true if size > 1 => -1.0 + 2.0 * i as f64 / (size - 1) as f64,
        true => -1.0,
        false => (2 * i + 1) as f64 / size as f64 - 1.0,
    };
    let mut data = Vec::with_capacity(count as usize * (spatial.len() + 1));
    for element in 0..count {
        let mut rest = element;
        // The last spatial axis is the first coordinate.
        for size in spatial.iter().rev() {
            data.push(coordinate(rest % size, *size));
            rest /= size;
        }
        data.push(1.0);
    }
    let dtype = cx.ty(theta).dtype;
    let dims = [count as usize, spatial.len() + 1];
    let base = cx.constant(Tensor::from_f64s(dtype, &dims, &data, Overflow::Special)?);
    let turned = cx.transposed(theta, &[0, 2, 1])?;
    let grid = cx.emit(Op::MATMUL, &[base, turned])?;
    let lead = cx.dims(theta)[0].clone();
    let sizes = spatial.iter().map(|d| Dim::from(*d));
    let to = [lead].into_iter().chain(sizes).chain([(spatial.len() as i64).into()]).collect();
    Ok(vec![cx.reshape(grid, to)?])
}
