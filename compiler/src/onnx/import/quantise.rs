//! Quantisation, and products of quantised operands, in terms of conversions and products of wide types.
//!
//! Specification: <https://onnx.ai/onnx/operators/onnx__QuantizeLinear.html> and its neighbours.

use eec_ir::{DType, Dim, Op, ValueId};

use super::super::error::{NodeResult, Refusal, refuse};
use super::node::{Cx, Results, axis_index};
use super::pool;
use super::rearrange::known_type;

/// How a scale or zero point lies over an operand: the attributes `axis` and `block_size`.
#[derive(Clone, Copy)]
struct Layout {
    axis: i64,
    block: i64,
}

impl Layout {
    fn read(cx: &mut Cx) -> NodeResult<Layout> {
        Ok(Layout { axis: cx.int("axis")?.unwrap_or(1), block: cx.int("block_size")?.unwrap_or(0) })
    }

    /// `parameter` in a form that broadcasts to `x`: one for all, one per index of the axis, or one per
    /// block along it.
    fn spread(self, cx: &mut Cx, parameter: ValueId, x: ValueId) -> NodeResult<ValueId> {
        let (rank, own) = (cx.rank(x), cx.dims(parameter));
        if own.is_empty() || (own.len() == 1 && own[0] == Dim::from(1) && self.block == 0) {
            return cx.reshape(parameter, Vec::new());
        }
        let axis = axis_index(self.axis, rank)?;
        if self.block == 0 {
            return if own.len() == 1 { cx.along(parameter, axis, rank) } else { Ok(parameter) };
        }
        if own.len() != rank {
            return refuse(format!("blocks of {} do not fit {}", cx.ty(parameter), cx.ty(x)));
        }
        let (mut split, mut merged) = (own.clone(), own);
        split.insert(axis + 1, 1.into());
        let parameter = cx.reshape(parameter, split.clone())?;
        split[axis + 1] = self.block.into();
        let parameter = cx.expanded(parameter, split)?;
        merged[axis] = &merged[axis] * &self.block.into();
        let parameter = cx.reshape(parameter, merged)?;
        let size = cx.dims(x)[axis].clone();
        cx.part(parameter, axis, [0.into(), size], 1)
    }
}

/// `x / scale`, rounded, plus the zero point, in the range of `to`.
fn quantised(
    cx: &mut Cx,
    x: ValueId,
    scale: ValueId,
    zero: Option<ValueId>,
    to: DType,
    saturate: bool,
) -> NodeResult<ValueId> {
    let quotient = cx.div(x, scale)?;
    let Some((least, largest)) = to.integer_range() else {
        let special = !saturate && to.bits() == 8;
        return if special { cx.unary(Op::CastUnsaturated { to }, quotient) } else { cx.cast(quotient, to) };
    };
    let mut rounded = cx.unary(Op::Round {}, quotient)?;
    if let Some(zero) = zero {
        let wide = cx.ty(rounded).dtype;
        let zero = cx.cast(zero, wide)?;
        rounded = cx.add(rounded, zero)?;
    }
    let inside = cx.clipped(rounded, least as f64, largest as f64)?;
    cx.cast(inside, to)
}

pub(super) fn quantize_linear(cx: &mut Cx) -> Results {
    let (x, scale) = (cx.input(0)?, cx.input(1)?);
    let (layout, saturate) = (Layout::read(cx)?, cx.flag("saturate", true)?);
    let listed = cx.int("output_dtype")?.filter(|d| *d != 0).map(known_type).transpose()?;
    cx.int("precision")?;
    let to = match (cx.optional(2), listed) {
        (Some(zero), _) => cx.ty(zero).dtype,
        (None, listed) => listed.unwrap_or(DType::U8),
    };
    let (x, _) = cx.widened(x)?;
    let x = if cx.ty(x).dtype.is_int() { cx.cast(x, DType::F32)? } else { x };
    let dtype = cx.ty(x).dtype;
    let scale = layout.spread(cx, scale, x)?;
    let scale = cx.cast(scale, dtype)?;
    let zero = cx.optional(2).map(|zero| layout.spread(cx, zero, x)).transpose()?;
    Ok(vec![quantised(cx, x, scale, zero, to, saturate)?])
}

/// `(x - zero) · scale`; integers are subtracted as i32.
fn dequantised(cx: &mut Cx, x: ValueId, scale: ValueId, zero: Option<ValueId>) -> NodeResult<ValueId> {
    let wide = if cx.ty(x).dtype.is_int() { DType::I32 } else { DType::F32 };
    let mut value = cx.cast(x, wide)?;
    if let Some(zero) = zero {
        let zero = cx.cast(zero, wide)?;
        value = cx.sub(value, zero)?;
    }
    let value = cx.cast(value, DType::F32)?;
    let scale = cx.cast(scale, DType::F32)?;
    cx.mul(value, scale)
}

pub(super) fn dequantize_linear(cx: &mut Cx) -> Results {
    let (x, scale) = (cx.input(0)?, cx.input(1)?);
    let layout = Layout::read(cx)?;
    let listed = cx.int("output_dtype")?.filter(|d| *d != 0).map(known_type).transpose()?;
    let to = listed.unwrap_or(cx.ty(scale).dtype);
    let scale = layout.spread(cx, scale, x)?;
    let zero = cx.optional(2).map(|zero| layout.spread(cx, zero, x)).transpose()?;
    let y = dequantised(cx, x, scale, zero)?;
    Ok(vec![cx.cast(y, to)?])
}

/// To u8, over the range of the operand and 0; also gives the scale and zero point.
pub(super) fn dynamic_quantize_linear(cx: &mut Cx) -> Results {
    let x = cx.input(0)?;
    let axes: Vec<i64> = (0..cx.rank(x) as i64).collect();
    let flat = if axes.is_empty() { cx.reshape(x, vec![1.into()])? } else { x };
    let axes = if axes.is_empty() { vec![0] } else { axes };
    let largest = cx.unary(Op::ReduceMax { axes: axes.clone(), keepdims: false }, flat)?;
    let least = cx.unary(Op::ReduceMin { axes, keepdims: false }, flat)?;
    let (largest, least) = (cx.at_least(largest, 0.0)?, cx.at_most(least, 0.0)?);
    let range = cx.sub(largest, least)?;
    let steps = cx.number(x, 255.0)?;
    let scale = cx.div(range, steps)?;
    let below = cx.unary(Op::Neg {}, least)?;
    let start = cx.div(below, scale)?;
    let start = cx.unary(Op::Round {}, start)?;
    let start = cx.clipped(start, 0.0, 255.0)?;
    let zero = cx.cast(start, DType::U8)?;
    Ok(vec![quantised(cx, x, scale, Some(zero), DType::U8, true)?, scale, zero])
}

/// Operand `i` as i32, less its zero point.
fn shifted(cx: &mut Cx, x: ValueId, zero: Option<ValueId>) -> NodeResult<ValueId> {
    let wide = cx.cast(x, DType::I32)?;
    match zero {
        None => Ok(wide),
        Some(zero) => {
            let zero = cx.cast(zero, DType::I32)?;
            cx.sub(wide, zero)
        }
    }
}

/// A zero point of a matrix's rows, which lies along the second last dim.
fn row_zero(cx: &mut Cx, x: ValueId, zero: Option<ValueId>) -> NodeResult<Option<ValueId>> {
    let Some(zero) = zero else { return Ok(None) };
    let per_row = cx.rank(zero) == 1 && cx.rank(x) >= 2 && cx.dims(zero)[0] != Dim::from(1);
    if per_row { cx.along(zero, 0, 2).map(Some) } else { Ok(Some(zero)) }
}

pub(super) fn matmul_integer(cx: &mut Cx) -> Results {
    let (a, b) = (cx.input(0)?, cx.input(1)?);
    let zero = cx.optional(2);
    let zero = row_zero(cx, a, zero)?;
    let a = shifted(cx, a, zero)?;
    let zero = cx.optional(3);
    let b = shifted(cx, b, zero)?;
    Ok(vec![cx.emit(Op::MATMUL, &[a, b])?])
}

/// The operands of a quantised product: a, its scale and zero point, b, its scale and zero point, and
/// those of the result.
pub(super) fn qlinear_matmul(cx: &mut Cx) -> Results {
    let operand = |i: usize| cx.input(i);
    let inputs = (0..8).map(operand).collect::<NodeResult<Vec<_>>>()?;
    let [a, a_scale, a_zero, b, b_scale, b_zero, y_scale, y_zero] = inputs[..] else {
        return refuse("needs 8 operands");
    };
    let a_zero = row_zero(cx, a, Some(a_zero))?;
    let (a, b) = (shifted(cx, a, a_zero)?, shifted(cx, b, Some(b_zero))?);
    let product = cx.emit(Op::MATMUL, &[a, b])?;
    let a_scale = row_zero(cx, a, Some(a_scale))?.unwrap_or(a_scale);
    requantised(cx, product, [a_scale, b_scale, y_scale], y_zero)
}

/// `sums · a_scale · b_scale / y_scale` as the result's type.
fn requantised(cx: &mut Cx, sums: ValueId, [a, b, y]: [ValueId; 3], zero: ValueId) -> Results {
    let to = cx.ty(zero).dtype;
    let [a, b, y] = [a, b, y].map(|scale| cx.cast(scale, DType::F32));
    let sums = cx.cast(sums, DType::F32)?;
    let scale = cx.mul(a?, b?)?;
    let real = cx.mul(sums, scale)?;
    Ok(vec![quantised(cx, real, y?, Some(zero), to, true)?])
}

pub(super) fn conv_integer(cx: &mut Cx) -> Results {
    let (x, w) = (cx.input(0)?, cx.input(1)?);
    let (x_zero, w_zero) = (cx.optional(2), cx.optional(3));
    let sums = integer_conv(cx, (x, x_zero), (w, w_zero), None)?;
    Ok(vec![cx.cast(sums, DType::I32)?])
}

/// A convolution of integers, whose sums f64 holds exactly.
fn integer_conv(
    cx: &mut Cx,
    (x, x_zero): (ValueId, Option<ValueId>),
    (w, w_zero): (ValueId, Option<ValueId>),
    bias: Option<ValueId>,
) -> NodeResult<ValueId> {
    let w_zero = match w_zero {
        Some(zero) if cx.rank(zero) == 1 && cx.dims(zero)[0] != Dim::from(1) => {
            let rank = cx.rank(w);
            Some(cx.along(zero, 0, rank)?)
        }
        Some(zero) => Some(cx.reshape(zero, Vec::new())?),
        None => None,
    };
    let (x, w) = (shifted(cx, x, x_zero)?, shifted(cx, w, w_zero)?);
    let mut operands = Vec::with_capacity(3);
    for value in [Some(x), Some(w), bias].into_iter().flatten() {
        operands.push(cx.cast(value, DType::F64)?);
    }
    pool::convolution(cx, &operands)
}

pub(super) fn qlinear_conv(cx: &mut Cx) -> Results {
    let operand = |i: usize| cx.input(i);
    let inputs = (0..8).map(operand).collect::<NodeResult<Vec<_>>>()?;
    let [x, x_scale, x_zero, w, w_scale, w_zero, y_scale, y_zero] = inputs[..] else {
        return refuse("needs 8 operands");
    };
    let bias = cx.optional(8);
    let sums = integer_conv(cx, (x, Some(x_zero)), (w, Some(w_zero)), bias)?;
    let rank = cx.rank(sums);
    let w_scale = match cx.rank(w_scale) {
        0 => w_scale,
        1 if cx.dims(w_scale)[0] == Dim::from(1) => cx.reshape(w_scale, Vec::new())?,
        1 => cx.along(w_scale, 1, rank)?,
        _ => return Err(Refusal::new("the weight's scale must be one number per channel")),
    };
    requantised(cx, sums, [x_scale, w_scale, y_scale], y_zero)
}
