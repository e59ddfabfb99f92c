//! Activations and other functions of single elements, in terms of a few.
//!
//! Specification: <https://onnx.ai/onnx/operators/>; each function's formula is the one given there.

use eec_ir::{DType, Op, ValueId};

use super::super::error::{NodeResult, refuse};
use super::node::{Cx, Results, axis_index};

/// A function of one operand, computed in f32 where the operand is a shorter float.
pub(super) fn of_one(cx: &mut Cx, f: fn(&mut Cx, ValueId) -> NodeResult<ValueId>) -> Results {
    let x = cx.input(0)?;
    let (x, own) = cx.widened(x)?;
    let y = f(cx, x)?;
    Ok(vec![cx.cast(y, own)?])
}

/// `x` where it is at least 0, else `below`.
pub(super) fn where_negative(cx: &mut Cx, x: ValueId, below: ValueId) -> NodeResult<ValueId> {
    let zero = cx.number(x, 0.0)?;
    let negative = cx.emit(Op::Less {}, &[x, zero])?;
    cx.choose(negative, below, x)
}

/// `alpha·(e^x - 1)` below 0.
pub(super) fn elu(cx: &mut Cx, x: ValueId) -> NodeResult<ValueId> {
    let alpha = cx.float_or("alpha", 1.0)?;
    let below = exponential(cx, x, alpha, 1.0)?;
    where_negative(cx, x, below)
}

/// `alpha·(e^(x/by) - 1)`.
pub(super) fn exponential(cx: &mut Cx, x: ValueId, alpha: f64, by: f64) -> NodeResult<ValueId> {
    let by = cx.number(x, by)?;
    let scaled = cx.div(x, by)?;
    let exp = cx.unary(Op::Exp {}, scaled)?;
    let less = cx.plus(exp, -1.0)?;
    cx.times(less, alpha)
}

pub(super) fn selu(cx: &mut Cx, x: ValueId) -> NodeResult<ValueId> {
    let (alpha, gamma) = (cx.float_or("alpha", 1.673_263_2)?, cx.float_or("gamma", 1.050_701)?);
    let below = exponential(cx, x, alpha, 1.0)?;
    let y = where_negative(cx, x, below)?;
    cx.times(y, gamma)
}

/// `max(0, x) + min(0, alpha·(e^(x/alpha) - 1))`.
pub(super) fn celu(cx: &mut Cx, x: ValueId) -> NodeResult<ValueId> {
    let alpha = cx.float_or("alpha", 1.0)?;
    let below = exponential(cx, x, alpha, alpha)?;
    let (low, high) = (cx.at_most(below, 0.0)?, cx.at_least(x, 0.0)?);
    cx.add(high, low)
}

pub(super) fn leaky_relu(cx: &mut Cx, x: ValueId) -> NodeResult<ValueId> {
    let alpha = cx.float_or("alpha", 0.01)?;
    leaky(cx, x, alpha)
}

/// `alpha·x` below 0.
pub(super) fn leaky(cx: &mut Cx, x: ValueId, alpha: f64) -> NodeResult<ValueId> {
    let below = cx.times(x, alpha)?;
    where_negative(cx, x, below)
}

/// A slope per element, which broadcasts to the operand alone.
pub(super) fn prelu(cx: &mut Cx) -> Results {
    let (x, mut slope) = (cx.input(0)?, cx.input(1)?);
    if cx.opset < 7 && cx.rank(slope) == 1 && cx.rank(x) > 2 {
        // One per channel.
        slope = cx.along(slope, 1, cx.rank(x))?;
    }
    let below = cx.mul(x, slope)?;
    if cx.ty(below).dims != cx.ty(x).dims {
        return refuse("the slope does not broadcast to the operand");
    }
    Ok(vec![where_negative(cx, x, below)?])
}

pub(super) fn hard_sigmoid(cx: &mut Cx, x: ValueId) -> NodeResult<ValueId> {
    let (alpha, beta) = (cx.float_or("alpha", 0.2)?, cx.float_or("beta", 0.5)?);
    ramp(cx, x, alpha, beta)
}

/// `max(0, min(1, alpha·x + beta))`.
pub(super) fn ramp(cx: &mut Cx, x: ValueId, alpha: f64, beta: f64) -> NodeResult<ValueId> {
    let scaled = cx.times(x, alpha)?;
    let shifted = cx.plus(scaled, beta)?;
    cx.clipped(shifted, 0.0, 1.0)
}

pub(super) fn hard_swish(cx: &mut Cx, x: ValueId) -> NodeResult<ValueId> {
    let gate = ramp(cx, x, 1.0 / 6.0, 0.5)?;
    cx.mul(x, gate)
}

pub(super) fn softplus(cx: &mut Cx, x: ValueId) -> NodeResult<ValueId> {
    log_one_plus_exp(cx, x)
}

/// `max(x, 0) + log(1 + z)` with `z = e^-|x|`. For small `z`, where `1 + z` rounds, the logarithm is
/// corrected by `z / ((1 + z) - 1)` (Goldberg 1991, theorem 4).
fn log_one_plus_exp(cx: &mut Cx, x: ValueId) -> NodeResult<ValueId> {
    let size = cx.unary(Op::Abs {}, x)?;
    let negative = cx.unary(Op::Neg {}, size)?;
    let z = cx.unary(Op::Exp {}, negative)?;
    let sum = cx.plus(z, 1.0)?;
    let log = cx.unary(Op::Log {}, sum)?;
    let rest = cx.plus(sum, -1.0)?;
    let factor = cx.div(z, rest)?;
    let corrected = cx.mul(log, factor)?;
    let one = cx.number(x, 1.0)?;
    let vanished = cx.emit(Op::Equal {}, &[sum, one])?;
    let log = cx.choose(vanished, z, corrected)?;
    let above = cx.at_least(x, 0.0)?;
    cx.add(above, log)
}

pub(super) fn softsign(cx: &mut Cx, x: ValueId) -> NodeResult<ValueId> {
    let size = cx.unary(Op::Abs {}, x)?;
    let sum = cx.plus(size, 1.0)?;
    cx.div(x, sum)
}

pub(super) fn mish(cx: &mut Cx, x: ValueId) -> NodeResult<ValueId> {
    let soft = log_one_plus_exp(cx, x)?;
    let gate = cx.unary(Op::Tanh {}, soft)?;
    cx.mul(x, gate)
}

/// `x·sigmoid(alpha·x)`.
pub(super) fn swished(cx: &mut Cx, x: ValueId, alpha: f64) -> NodeResult<ValueId> {
    let scaled = if alpha == 1.0 { x } else { cx.times(x, alpha)? };
    let gate = cx.unary(Op::Sigmoid {}, scaled)?;
    cx.mul(x, gate)
}

pub(super) fn swish(cx: &mut Cx, x: ValueId) -> NodeResult<ValueId> {
    let alpha = cx.float_or("alpha", 1.0)?;
    swished(cx, x, alpha)
}

/// `swish(a)·b`.
pub(super) fn swiglu(cx: &mut Cx) -> Results {
    let (a, b, alpha) = (cx.input(0)?, cx.input(1)?, cx.float_or("alpha", 1.0)?);
    let gate = swished(cx, a, alpha)?;
    Ok(vec![cx.mul(gate, b)?])
}

pub(super) fn thresholded_relu(cx: &mut Cx, x: ValueId) -> NodeResult<ValueId> {
    let alpha = cx.float_or("alpha", 1.0)?;
    thresholded(cx, x, alpha)
}

/// 0 up to `alpha`.
pub(super) fn thresholded(cx: &mut Cx, x: ValueId, alpha: f64) -> NodeResult<ValueId> {
    let (limit, zero) = (cx.number(x, alpha)?, cx.number(x, 0.0)?);
    let above = cx.emit(Op::Greater {}, &[x, limit])?;
    cx.choose(above, x, zero)
}

/// `x + bias` below `-lambd`, `x - bias` above `lambd`, 0 between.
pub(super) fn shrink(cx: &mut Cx, x: ValueId) -> NodeResult<ValueId> {
    let (lambda, bias) = (cx.float_or("lambd", 0.5)?, cx.float_or("bias", 0.0)?);
    let (low, high, zero) = (cx.number(x, -lambda)?, cx.number(x, lambda)?, cx.number(x, 0.0)?);
    let (raised, lowered) = (cx.plus(x, bias)?, cx.plus(x, -bias)?);
    let (below, above) = (cx.emit(Op::Less {}, &[x, low])?, cx.emit(Op::Greater {}, &[x, high])?);
    let inner = cx.choose(above, lowered, zero)?;
    cx.choose(below, raised, inner)
}

/// 1 at the first largest element along an axis, 0 elsewhere. Before opset 13 all dims from it on are one.
pub(super) fn hardmax(cx: &mut Cx) -> Results {
    let x = cx.input(0)?;
    let from = cx.dims(x);
    let axis = cx.int("axis")?.unwrap_or(if cx.opset >= 13 { -1 } else { 1 });
    let mut axis = axis_index(axis, from.len())?;
    let mut matrix = x;
    if cx.opset < 13 {
        let (rows, columns) = (eec_ir::Dim::product(&from[..axis]), eec_ir::Dim::product(&from[axis..]));
        matrix = cx.reshape(x, vec![rows, columns])?;
        axis = 1;
    }
    let best = cx.unary(Op::ArgMax { axis: axis as i64, keepdims: true }, matrix)?;
    let size = cx.dims(matrix)[axis].clone();
    let positions = cx.indices(&size, axis, cx.rank(matrix))?;
    let hit = cx.emit(Op::Equal {}, &[best, positions])?;
    let dtype = cx.ty(x).dtype;
    let ones = cx.cast(hit, dtype)?;
    Ok(vec![cx.reshape(ones, from)?])
}

/// Whether one of two truths holds, but not both.
pub(super) fn xor(cx: &mut Cx) -> Results {
    let (a, b) = (cx.input(0)?, cx.input(1)?);
    if cx.ty(a).dtype != DType::Bool {
        return refuse(format!("operand 0 must be bool, found {}", cx.ty(a)));
    }
    let equal = cx.emit(Op::Equal {}, &[a, b])?;
    Ok(vec![cx.unary(Op::Not {}, equal)?])
}

pub(super) fn is_inf(cx: &mut Cx) -> Results {
    let x = cx.input(0)?;
    let mut found = None;
    for (name, value) in [("detect_positive", f64::INFINITY), ("detect_negative", f64::NEG_INFINITY)] {
        if !cx.flag(name, true)? {
            continue;
        }
        let infinity = cx.number(x, value)?;
        let hit = cx.emit(Op::Equal {}, &[x, infinity])?;
        found = Some(match found {
            Some(other) => cx.emit(Op::Or {}, &[other, hit])?,
            None => hit,
        });
    }
    match found {
        Some(found) => Ok(vec![found]),
        // Nothing is asked for: no element is.
        None => {
            let different = cx.emit(Op::Less {}, &[x, x])?;
            Ok(vec![different])
        }
    }
}

pub(super) fn mean(cx: &mut Cx) -> Results {
    let operands = cx.all_inputs()?;
    let sum = super::elementwise::chain(cx, &Op::Add {})?[0];
    Ok(vec![cx.times(sum, 1.0 / operands.len() as f64)?])
}

pub(super) fn bit_shift(cx: &mut Cx) -> Results {
    let right = match cx.word("direction")?.as_deref() {
        Some("RIGHT") => true,
        Some("LEFT") => false,
        other => return refuse(format!("direction {other:?} is not known")),
    };
    let inputs = cx.all_inputs()?;
    Ok(vec![cx.emit(Op::BitShift { right }, &inputs)?])
}

pub(super) fn bit_cast(cx: &mut Cx) -> Results {
    let x = cx.input(0)?;
    let number = cx.int("to")?.and_then(|n| i32::try_from(n).ok()).unwrap_or(-1);
    match super::super::tensor::dtype(number) {
        Some(to) => Ok(vec![cx.unary(Op::BitCast { to }, x)?]),
        None => refuse(format!("conversion to {} is not supported", super::super::tensor::type_name(number))),
    }
}
