//! Fourier transforms, window functions and mel weights: products with constant matrices, or constants.
//!
//! Specification: <https://onnx.ai/onnx/operators/onnx__DFT.html> and its neighbours.

use std::f64::consts::PI;

use eec_ir::minifloat::Overflow;
use eec_ir::{DType, Dim, Op, Tensor, ValueId};

use super::super::error::{NodeResult, Refusal, refuse};
use super::node::{Cx, Results, axis_index};
use super::rearrange::known_type;

/// Longer transforms are refused, as their matrices would be large.
const LONGEST: i64 = 1 << 13;

/// What a transform does along its axis.
struct Transform {
    axis: usize,
    length: i64,
    inverse: bool,
    onesided: bool,
}

pub(super) fn dft(cx: &mut Cx) -> Results {
    let x = cx.input(0)?;
    let rank = cx.rank(x);
    let axis = match cx.int("axis")? {
        Some(axis) => axis,
        None if cx.opset < 20 => 1,
        None => cx.const_int(2, "axis")?.unwrap_or(-2),
    };
    let axis = axis_index(axis, rank)?;
    let (inverse, onesided) = (cx.flag("inverse", false)?, cx.flag("onesided", false)?);
    let size = cx.fixed_dim(x, axis)?;
    let default = if inverse && onesided { 2 * (size - 1) } else { size };
    let length = cx.const_int(1, "length")?.unwrap_or(default);
    Ok(vec![transformed(cx, x, &Transform { axis, length, inverse, onesided })?])
}

/// The real and imaginary parts (the last dim, of 1 or 2) as tensors without it; `None` for zeros.
fn parts(cx: &mut Cx, x: ValueId) -> NodeResult<(ValueId, Option<ValueId>)> {
    let rank = cx.rank(x);
    let dims = cx.dims(x);
    let component = |cx: &mut Cx, i: i64| {
        let part = cx.part(x, rank - 1, [i.into(), (i + 1).into()], 1)?;
        cx.reshape(part, dims[..rank - 1].to_vec())
    };
    match dims.last().and_then(Dim::as_const) {
        Some(1) => Ok((component(cx, 0)?, None)),
        Some(2) => Ok((component(cx, 0)?, Some(component(cx, 1)?))),
        _ => refuse(format!("the last dim of {} must be 1 or 2", cx.ty(x))),
    }
}

fn transformed(cx: &mut Cx, x: ValueId, transform: &Transform) -> NodeResult<ValueId> {
    let Transform { axis, length, inverse, onesided } = *transform;
    if !(1..=LONGEST).contains(&length) || axis + 1 >= cx.rank(x) {
        return refuse(format!("no transform of length {length} along axis {axis} of {}", cx.ty(x)));
    }
    let (real, imaginary) = parts(cx, x)?;
    let last = cx.rank(real) - 1;
    let mut order: Vec<usize> = (0..=last).collect();
    order.swap(axis, last);
    let half = length / 2 + 1;
    let (rows, columns) = match (inverse, onesided) {
        (false, false) | (true, false) => (length, length),
        (false, true) => (length, half),
        (true, true) => (half, length),
    };
    let real = fitted(cx, real, &order, rows)?;
    let imaginary = imaginary.map(|x| fitted(cx, x, &order, rows)).transpose()?;
    let angle = |i: i64, j: i64| 2.0 * PI * (i * j % length) as f64 / length as f64;
    // The inverse of half a spectrum counts the other half, which mirrors it.
    let weight = |i: i64| match (inverse, onesided) {
        (false, _) => 1.0,
        (true, false) => 1.0 / length as f64,
        (true, true) if i == 0 || 2 * i == length => 1.0 / length as f64,
        (true, true) => 2.0 / length as f64,
    };
    let sign = if inverse { 1.0 } else { -1.0 };
    let cos = matrix(cx, real, rows, columns, |i, j| weight(i) * angle(i, j).cos())?;
    let sin = matrix(cx, real, rows, columns, |i, j| sign * weight(i) * angle(i, j).sin())?;
    let product = |cx: &mut Cx, x, m| cx.emit(Op::MATMUL, &[x, m]);
    let (mut y_real, mut y_imaginary) = (product(cx, real, cos)?, product(cx, real, sin)?);
    if let Some(imaginary) = imaginary {
        let (crossed, straight) = (product(cx, imaginary, sin)?, product(cx, imaginary, cos)?);
        (y_real, y_imaginary) = (cx.sub(y_real, crossed)?, cx.add(y_imaginary, straight)?);
    }
    let results = if inverse && onesided { vec![y_real] } else { vec![y_real, y_imaginary] };
    joined(cx, &results, &order)
}

/// The axis moved to the end, cut or filled with zeros to `size`.
fn fitted(cx: &mut Cx, x: ValueId, order: &[usize], size: i64) -> NodeResult<ValueId> {
    let x = cx.transposed(x, order)?;
    let last = cx.rank(x) - 1;
    let found = cx.fixed_dim(x, last)?;
    if found > size {
        return cx.part(x, last, [0.into(), size.into()], 1);
    }
    if found == size {
        return Ok(x);
    }
    let mut pads = vec![Dim::from(0); 2 * (last + 1)];
    pads[2 * last + 1] = (size - found).into();
    cx.unary(Op::Pad { pads }, x)
}

fn matrix(cx: &mut Cx, like: ValueId, rows: i64, columns: i64, f: impl Fn(i64, i64) -> f64) -> NodeResult<ValueId> {
    cx.may_compute(rows.saturating_mul(columns))?;
    let data: Vec<f64> = (0..rows).flat_map(|i| (0..columns).map(move |j| (i, j))).map(|(i, j)| f(i, j)).collect();
    let dtype = cx.ty(like).dtype;
    let tensor = Tensor::from_f64s(dtype, &[rows as usize, columns as usize], &data, Overflow::Special)?;
    Ok(cx.constant(tensor))
}

/// The components as a last dim, the axis moved back.
fn joined(cx: &mut Cx, components: &[ValueId], order: &[usize]) -> NodeResult<ValueId> {
    let mut columns = Vec::with_capacity(2);
    for component in components {
        let x = cx.transposed(*component, order)?;
        let mut dims = cx.dims(x);
        dims.push(1.into());
        columns.push(cx.reshape(x, dims)?);
    }
    match columns.as_slice() {
        [one] => Ok(*one),
        many => cx.emit(Op::Concat { axis: order.len() as i64 }, many),
    }
}

/// Transforms of windows that follow each other.
pub(super) fn stft(cx: &mut Cx) -> Results {
    let x = cx.input(0)?;
    let onesided = cx.flag("onesided", true)?;
    let (step, listed) = (cx.const_int(1, "frame step")?, cx.const_int(3, "frame length")?);
    let size = cx.fixed_dim(x, 1)?;
    let length = match (listed, cx.optional(2)) {
        (Some(length), _) => length,
        (None, Some(window)) => cx.fixed_dim(window, 0)?,
        (None, None) => size,
    };
    let step = step.filter(|s| *s > 0).ok_or_else(|| Refusal::new("the frame step must be positive"))?;
    if !(1..=size.min(LONGEST)).contains(&length) {
        return refuse(format!("frames of {length} do not fit {size} samples"));
    }
    let count = 1 + (size - length) / step;
    cx.may_compute(count.saturating_mul(length))?;
    let positions: Vec<i64> = (0..count).flat_map(|f| (0..length).map(move |i| f * step + i)).collect();
    let positions = cx.constant(Tensor::new(&[count as usize, length as usize], positions)?);
    let mut frames = cx.emit(Op::Gather { axis: 1 }, &[x, positions])?;
    if let Some(window) = cx.optional(2) {
        let window = cx.along(window, 2, 4)?;
        frames = cx.mul(frames, window)?;
    }
    Ok(vec![transformed(cx, frames, &Transform { axis: 2, length, inverse: false, onesided })?])
}

/// A constant vector or matrix in the type that `output_datatype` asks for.
fn output(cx: &mut Cx, dims: &[usize], data: &[f64]) -> Results {
    let to = cx.int("output_datatype")?.map_or(Ok(DType::F32), known_type)?;
    let tensor = match to.is_float() {
        true => Tensor::from_f64s(to, dims, data, Overflow::Special)?,
        false => Tensor::from_integers(to, dims, &data.iter().map(|x| *x as i128).collect::<Vec<_>>())?,
    };
    Ok(vec![cx.constant(tensor)])
}

/// `Σ coefficients[k]·cos(2πki/n)`.
pub(super) fn window_function(cx: &mut Cx, coefficients: &[f64]) -> Results {
    let size = cx.const_int(0, "window size")?;
    let size = size.filter(|s| (1..=1 << 24).contains(s)).ok_or_else(|| Refusal::new("the size is out of range"))?;
    let period = if cx.flag("periodic", true)? { size } else { size - 1 }.max(1) as f64;
    let value = |i: i64| {
        let term = |(k, c): (usize, &f64)| c * (2.0 * PI * (k as f64) * (i as f64) / period).cos();
        coefficients.iter().enumerate().map(term).sum::<f64>()
    };
    let data: Vec<f64> = (0..size).map(value).collect();
    output(cx, &[size as usize], &data)
}

/// Triangles over the bins of a spectrum, evenly spaced in mel.
pub(super) fn mel_weights(cx: &mut Cx) -> Results {
    let number =
        |cx: &Cx, i| cx.const_number(i, "operand")?.ok_or_else(|| Refusal::new(format!("operand {i} is missing")));
    let (bins, length, rate) = (number(cx, 0)?, number(cx, 1)?, number(cx, 2)?);
    let (low, high) = (number(cx, 3)?, number(cx, 4)?);
    if !(1.0..65536.0).contains(&bins) || !(1.0..1e7).contains(&length) || rate <= 0.0 {
        return refuse("the sizes are out of range");
    }
    let (bins, spectrum) = (bins as usize, length as usize / 2 + 1);
    let mel = |hertz: f64| 2595.0 * (1.0 + hertz / 700.0).log10();
    let step = (mel(high) - mel(low)) / (bins + 2) as f64;
    let hertz = |i: usize| 700.0 * (10f64.powf((i as f64 * step + mel(low)) / 2595.0) - 1.0);
    let edge = |i: usize| ((length + 1.0) * hertz(i) / rate).floor() as i64;
    cx.may_compute((spectrum * bins) as i64)?;
    let mut data = vec![0.0; spectrum * bins];
    let rows = spectrum as i64;
    for bin in 0..bins {
        let (left, centre, right) = (edge(bin), edge(bin + 1), edge(bin + 2));
        let mut set = |row: i64, value: f64| {
            if let Some(cell) =
                usize::try_from(row).ok().filter(|r| *r < spectrum).and_then(|r| data.get_mut(r * bins + bin))
            {
                *cell = value;
            }
        };
        if left == centre {
            set(centre, 1.0);
        }
        (left.max(0)..=centre.min(rows))
            .filter(|_| left < centre)
            .for_each(|j| set(j, (j - left) as f64 / (centre - left) as f64));
        (centre.max(0)..right.min(rows)).for_each(|j| set(j, (right - j) as f64 / (right - centre) as f64));
    }
    output(cx, &[spectrum, bins], &data)
}
