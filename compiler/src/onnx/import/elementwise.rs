//! Elementwise operators whose ONNX form differs from the IR's, and those that do nothing.

use eec_ir::{DType, Dim, Op, ValueId};

use super::super::error::{NodeResult, Refusal, refuse};
use super::super::tensor::{dtype, type_name};
use super::float_sizes;
use super::node::{Cx, axis_index};

/// `Identity`: its result is its operand.
pub(super) fn identity(cx: &mut Cx) -> NodeResult<Vec<ValueId>> {
    Ok(vec![cx.input(0)?])
}

/// The operands. Before opset 7 an attribute asked for broadcasting, perhaps to dims from `axis` of the first on.
pub(super) fn broadcast_operands(cx: &mut Cx) -> NodeResult<Vec<ValueId>> {
    let mut operands = cx.all_inputs()?;
    if cx.opset >= 7 || !cx.flag("broadcast", false)? {
        return Ok(operands);
    }
    let Some(axis) = cx.int("axis")? else { return Ok(operands) };
    let [x, other] = operands.as_mut_slice() else { return refuse("broadcasting needs two operands") };
    let (rank, mut dims) = (cx.rank(*x), cx.dims(*other));
    let room = axis_index(axis, rank)? + dims.len();
    if room > rank {
        return refuse(format!("{} does not fit {} from axis {axis} on", cx.ty(*other), cx.ty(*x)));
    }
    dims.resize(dims.len() + rank - room, 1.into());
    *other = cx.reshape(*other, dims)?;
    Ok(operands)
}

/// Whether a tensor is given; of optionals, which a model cannot hold here, it would depend on the run.
pub(super) fn has_element(cx: &mut Cx) -> NodeResult<Vec<ValueId>> {
    let given = cx.optional(0).is_some();
    Ok(vec![cx.scalar(DType::Bool, f64::from(u8::from(given)))?])
}

/// `Dropout` passes its operand on, except in training; its second result says that all is kept.
pub(super) fn dropout(cx: &mut Cx) -> NodeResult<Vec<ValueId>> {
    cx.float("ratio")?;
    cx.int("seed")?;
    // Before opset 7 an attribute said whether the model is being trained.
    let trained = if cx.opset < 7 { !cx.flag("is_test", false)? } else { cx.flag_operand(2, "training mode")? };
    if trained && cx.const_number(1, "ratio")? != Some(0.0) {
        return refuse("results are random: in training mode elements are dropped by chance");
    }
    let x = cx.input(0)?;
    if cx.output_count() < 2 {
        return Ok(vec![x]);
    }
    let (kept, dims) = (cx.scalar(DType::Bool, 1.0)?, cx.dims(x));
    Ok(vec![x, cx.expanded(kept, dims)?])
}

/// `Cast`.
pub(super) fn cast(cx: &mut Cx) -> NodeResult<Vec<ValueId>> {
    let saturate = cx.flag("saturate", true)?;
    if cx.word("round_mode")?.is_some_and(|mode| mode != "up") {
        return refuse("only rounding up is supported");
    }
    let number = cx.int("to")?.ok_or_else(|| Refusal::new("attribute `to` is missing"))?;
    let number = i32::try_from(number).unwrap_or(-1);
    let Some(to) = dtype(number) else {
        return refuse(format!("conversion to {} is not supported", type_name(number)));
    };
    let x = cx.input(0)?;
    if cx.ty(x).dtype.is_float()
        && matches!(to, DType::I32 | DType::I64)
        && let Some(values) = float_sizes::truncated(cx, x)
    {
        let dims = cx.dims(x);
        let sizes = cx.emit(Op::Sizes { values }, &[])?;
        let shaped = cx.reshape(sizes, dims)?;
        return Ok(vec![cx.cast(shaped, to)?]);
    }
    converted(cx, x, to, saturate)
}

/// `x` as another type; `saturate` matters for floats of 8 bits alone.
fn converted(cx: &mut Cx, x: ValueId, to: DType, saturate: bool) -> NodeResult<Vec<ValueId>> {
    let special = !saturate && to.is_float() && to.bits() == 8;
    Ok(vec![if special { cx.emit(Op::CastUnsaturated { to }, &[x])? } else { cx.cast(x, to)? }])
}

/// `CastLike`: conversion to the second operand's type.
pub(super) fn cast_like(cx: &mut Cx) -> NodeResult<Vec<ValueId>> {
    let saturate = cx.flag("saturate", true)?;
    let (x, like) = (cx.input(0)?, cx.input(1)?);
    let to = cx.ty(like).dtype;
    converted(cx, x, to, saturate)
}

/// `Clip`: with constant float bounds an operator of its own, otherwise `Max` and `Min`.
pub(super) fn clip(cx: &mut Cx) -> NodeResult<Vec<ValueId>> {
    let x = cx.input(0)?;
    if cx.opset < 11 {
        let min = cx.float("min")?.unwrap_or(f32::NEG_INFINITY);
        let max = cx.float("max")?.unwrap_or(f32::INFINITY);
        return Ok(vec![cx.emit(Op::Clip { min, max }, &[x])?]);
    }
    let bounds = [cx.optional(1), cx.optional(2)];
    let constant = |b: Option<ValueId>, default| match b {
        Some(v) => scalar_f32(cx, v),
        None => Some(default),
    };
    if cx.ty(x).dtype == DType::F32
        && let (Some(min), Some(max)) = (constant(bounds[0], f32::NEG_INFINITY), constant(bounds[1], f32::INFINITY))
    {
        return Ok(vec![cx.emit(Op::Clip { min, max }, &[x])?]);
    }
    let mut result = x;
    for (bound, op) in bounds.into_iter().zip([Op::Max {}, Op::Min {}]) {
        if let Some(bound) = bound {
            result = cx.emit(op, &[result, bound])?;
        }
    }
    Ok(vec![result])
}

/// The value of a constant that is one float.
fn scalar_f32(cx: &Cx, value: ValueId) -> Option<f32> {
    let elements = cx.constant_of(value)?.elements::<f32>()?;
    if elements.len() == 1 { elements.first().copied() } else { None }
}

/// `Gelu`, exact or with the tanh approximation.
pub(super) fn gelu(cx: &mut Cx) -> NodeResult<Vec<ValueId>> {
    let tanh = match cx.word("approximate")?.as_deref() {
        None | Some("none") => false,
        Some("tanh") => true,
        Some(other) => return refuse(format!("approximation `{other}` is not supported")),
    };
    let x = cx.input(0)?;
    Ok(vec![cx.emit(Op::Gelu { tanh }, &[x])?])
}

/// `Pow`, whose exponent may have another type than its base.
pub(super) fn pow(cx: &mut Cx) -> NodeResult<Vec<ValueId>> {
    let (base, exponent) = (cx.input(0)?, cx.input(1)?);
    let base_type = cx.ty(base).dtype;
    let float_power = base_type.is_int() && !cx.ty(exponent).dtype.is_int();
    let exponent = if float_power { exponent } else { cx.cast(exponent, base_type)? };
    Ok(vec![cx.emit(Op::Pow {}, &[base, exponent])?])
}

/// `Mod`; of sizes, it is one.
pub(super) fn modulo(cx: &mut Cx) -> NodeResult<Vec<ValueId>> {
    let (x, fmod) = (cx.input(0)?, cx.flag("fmod", false)?);
    let sizes = |i| cx.sizes(i, "operand").ok().flatten();
    match (sizes(0), sizes(1)) {
        (Some(a), Some(b)) if !fmod && cx.ty(x).dtype.is_int() => size_modulo(cx, x, &a, &b),
        _ => {
            let inputs = cx.all_inputs()?;
            Ok(vec![cx.emit(Op::Mod { fmod }, &inputs)?])
        }
    }
}

/// The remainder of sizes, with the divisor's sign.
fn size_modulo(cx: &mut Cx, x: ValueId, a: &[Dim], b: &[Dim]) -> NodeResult<Vec<ValueId>> {
    if a.len() != b.len() && b.len() != 1 {
        return refuse(format!("{} sizes cannot be divided by {}", a.len(), b.len()));
    }
    let remainder = |(a, b): (&Dim, &Dim)| a.floor_div(b).map(|q| a - &(&q * b));
    let values = a.iter().zip(b.iter().cycle()).map(remainder).collect::<Option<Vec<_>>>();
    let values = values.ok_or_else(|| Refusal::new("the divisor is 0"))?;
    let (dtype, dims) = (cx.ty(x).dtype, cx.dims(x));
    let vector = cx.emit(Op::Sizes { values }, &[])?;
    let shaped = cx.reshape(vector, dims)?;
    Ok(vec![cx.cast(shaped, dtype)?])
}

/// An operator over any number of operands, as a chain of the one over two.
pub(super) fn chain(cx: &mut Cx, op: &Op) -> NodeResult<Vec<ValueId>> {
    let operands = cx.all_inputs()?;
    let Some((first, rest)) = operands.split_first() else {
        return refuse("has no operands");
    };
    let mut result = *first;
    for operand in rest {
        result = cx.emit(op.clone(), &[result, *operand])?;
    }
    Ok(vec![result])
}
