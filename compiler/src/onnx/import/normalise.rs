//! Softmax, normalisations and `Gemm`.

use eec_ir::{Dim, Op, Tensor, ValueId};

use super::super::error::{NodeResult, Refusal, refuse};
use super::node::{Cx, axis_index};

/// Softmax along one axis. Before opset 13 it ran over all dims from `axis` on, taken as one.
pub(super) fn softmax(cx: &mut Cx, op: fn(i64) -> Op) -> NodeResult<Vec<ValueId>> {
    let x = cx.input(0)?;
    let from = cx.dims(x);
    let listed = cx.int("axis")?;
    if cx.opset >= 13 {
        return Ok(vec![cx.emit(op(listed.unwrap_or(-1)), &[x])?]);
    }
    let axis = axis_index(listed.unwrap_or(1), from.len())?;
    if axis + 1 == from.len() {
        return Ok(vec![cx.emit(op(-1), &[x])?]);
    }
    let matrix = cx.reshape(x, vec![Dim::product(&from[..axis]), Dim::product(&from[axis..])])?;
    let result = cx.emit(op(-1), &[matrix])?;
    Ok(vec![cx.reshape(result, from)?])
}

/// `LayerNormalization` with its first result only.
pub(super) fn layer_normalization(cx: &mut Cx) -> NodeResult<Vec<ValueId>> {
    let axis = cx.int("axis")?.unwrap_or(-1);
    let epsilon = cx.float("epsilon")?.unwrap_or(1e-5);
    cx.int("stash_type")?;
    let inputs = cx.all_inputs()?;
    Ok(vec![cx.emit(Op::LayerNormalization { axis, epsilon }, &inputs)?])
}

/// `Gemm`.
pub(super) fn gemm(cx: &mut Cx) -> NodeResult<Vec<ValueId>> {
    let alpha = cx.float("alpha")?.unwrap_or(1.0);
    let beta = cx.float("beta")?.unwrap_or(1.0);
    let (trans_a, trans_b) = (cx.flag("transA", false)?, cx.flag("transB", false)?);
    let inputs = cx.all_inputs()?;
    Ok(vec![cx.emit(Op::Gemm { alpha, beta, trans_a, trans_b }, &inputs)?])
}

/// `BatchNormalization` at inference: one factor and one summand per channel.
pub(super) fn batch_normalization(cx: &mut Cx) -> NodeResult<Vec<ValueId>> {
    let x = cx.input(0)?;
    let epsilon = cx.float("epsilon")?.unwrap_or(1e-5);
    cx.float("momentum")?;
    if cx.flag("training_mode", false)? || !cx.flag("spatial", true)? {
        return refuse("only the inference form over channels is supported");
    }
    if cx.rank(x) < 2 {
        return refuse(format!("needs a tensor with channels, found {}", cx.ty(x)));
    }
    let parameter = |i| channel_values(cx, i);
    let (scale, bias, mean, variance) = (parameter(1)?, parameter(2)?, parameter(3)?, parameter(4)?);
    let channels = scale.len();
    if [bias.len(), mean.len(), variance.len()] != [channels; 3] {
        return refuse("scale, bias, mean and variance differ in length");
    }
    let factor: Vec<f32> = scale.iter().zip(&variance).map(|(s, v)| s / (v + epsilon).sqrt()).collect();
    let summand = bias.iter().zip(&mean).zip(&factor).map(|((b, m), f)| b - m * f).collect();
    let mut dims = vec![1; cx.rank(x) - 1];
    dims[0] = channels;
    let factor = cx.constant(Tensor::new(&dims, factor)?);
    let summand = cx.constant(Tensor::new(&dims, summand)?);
    let scaled = cx.emit(Op::Mul {}, &[x, factor])?;
    Ok(vec![cx.emit(Op::Add {}, &[scaled, summand])?])
}

fn channel_values(cx: &Cx, i: usize) -> NodeResult<Vec<f32>> {
    let tensor = cx.constant_of(cx.input(i)?);
    let values = tensor.and_then(|t| t.elements::<f32>()).map(|v| v.into_owned());
    values.ok_or_else(|| Refusal::new(format!("operand {i} must be a constant of f32")))
}
