//! Softmax, normalisations and `Gemm`.

use eec_ir::{Dim, Op, Precision, Tensor, ValueId};

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

/// `LayerNormalization`; its other results are the mean and the inverse deviation of each row.
pub(super) fn layer_normalization(cx: &mut Cx) -> NodeResult<Vec<ValueId>> {
    let axis = cx.axis(-1)?;
    let epsilon = cx.float("epsilon")?.unwrap_or(1e-5);
    cx.int("stash_type")?;
    let mut inputs = cx.all_inputs()?;
    let (x, own) = cx.widened(inputs[0])?;
    for value in &mut inputs {
        *value = cx.widened(*value)?.0;
    }
    let y = cx.emit(Op::LayerNormalization { axis: axis as i64, epsilon }, &inputs)?;
    let mut results = vec![cx.cast(y, own)?];
    if cx.output_count() > 1 {
        let axes: Vec<i64> = (axis..cx.rank(x)).map(|a| a as i64).collect();
        let (mean, centred) = centred(cx, x, axes.clone())?;
        results.extend([mean, inverse_deviation(cx, centred, axes, epsilon)?]);
    }
    Ok(results)
}

/// The mean over axes, and the operand less it.
fn centred(cx: &mut Cx, x: ValueId, axes: Vec<i64>) -> NodeResult<(ValueId, ValueId)> {
    let mean = cx.mean(x, axes)?;
    Ok((mean, cx.sub(x, mean)?))
}

/// `1/sqrt(mean(x²) + epsilon)`.
pub(super) fn inverse_deviation(cx: &mut Cx, x: ValueId, axes: Vec<i64>, epsilon: f32) -> NodeResult<ValueId> {
    let square = cx.square(x)?;
    let variance = cx.mean(square, axes)?;
    let sum = cx.plus(variance, epsilon.into())?;
    let root = cx.unary(Op::Sqrt {}, sum)?;
    cx.unary(Op::Reciprocal {}, root)
}

/// `x / sqrt(mean(x²) + epsilon) · scale` over the dims from `axis` on.
pub(super) fn rms_normalization(cx: &mut Cx) -> NodeResult<Vec<ValueId>> {
    let axis = cx.axis(-1)?;
    let epsilon = cx.float("epsilon")?.unwrap_or(1e-5);
    cx.int("stash_type")?;
    let (x, scale) = (cx.input(0)?, cx.input(1)?);
    let axes = (axis..cx.rank(x)).map(|a| a as i64).collect();
    let (y, factor) = rms_normalized(cx, x, scale, axes, epsilon)?;
    Ok(vec![y, factor])
}

/// `x / sqrt(mean(x²) + epsilon) · scale` over axes, and the factor that does it.
pub(super) fn rms_normalized(
    cx: &mut Cx,
    x: ValueId,
    scale: ValueId,
    axes: Vec<i64>,
    epsilon: f32,
) -> NodeResult<(ValueId, ValueId)> {
    let (x, own) = cx.widened(x)?;
    let factor = inverse_deviation(cx, x, axes, epsilon)?;
    let normal = cx.mul(x, factor)?;
    let normal = cx.cast(normal, own)?;
    let dtype = cx.ty(scale).dtype;
    let normal = cx.cast(normal, dtype)?;
    Ok((cx.mul(normal, scale)?, factor))
}

/// Layer normalisation over the last dim, computed in f32 where the operand is a shorter float.
pub(super) fn layer_normalized(
    cx: &mut Cx,
    x: ValueId,
    scale: ValueId,
    bias: Option<ValueId>,
    epsilon: f32,
) -> NodeResult<ValueId> {
    let (x, own) = cx.widened(x)?;
    let mut inputs = vec![x];
    for value in [Some(scale), bias].into_iter().flatten() {
        inputs.push(cx.widened(value)?.0);
    }
    let y = cx.emit(Op::LayerNormalization { axis: -1, epsilon }, &inputs)?;
    cx.cast(y, own)
}

/// Normalises over `axes`, without scale and bias.
fn normal(cx: &mut Cx, x: ValueId, axes: Vec<i64>, epsilon: f32) -> NodeResult<ValueId> {
    let (_, centred) = centred(cx, x, axes.clone())?;
    let factor = inverse_deviation(cx, centred, axes, epsilon)?;
    cx.mul(centred, factor)
}

/// `x·scale + bias`, with one of each per channel.
fn per_channel(cx: &mut Cx, x: ValueId, scale: ValueId, bias: ValueId) -> NodeResult<ValueId> {
    let rank = cx.rank(x);
    let (scale, bias) = (cx.along(scale, 1, rank)?, cx.along(bias, 1, rank)?);
    let scaled = cx.mul(x, scale)?;
    cx.add(scaled, bias)
}

/// Normalises every channel of every sample.
pub(super) fn instance_normalization(cx: &mut Cx) -> NodeResult<Vec<ValueId>> {
    let x = cx.input(0)?;
    let epsilon = cx.float("epsilon")?.unwrap_or(1e-5);
    let axes = (2..cx.rank(x) as i64).collect();
    let normal = normal(cx, x, axes, epsilon)?;
    let (scale, bias) = (cx.input(1)?, cx.input(2)?);
    Ok(vec![per_channel(cx, normal, scale, bias)?])
}

/// Normalises groups of channels. Before opset 21 there is a scale per group, since then per channel.
pub(super) fn group_normalization(cx: &mut Cx) -> NodeResult<Vec<ValueId>> {
    let x = cx.input(0)?;
    let epsilon = cx.float("epsilon")?.unwrap_or(1e-5);
    cx.int("stash_type")?;
    let groups = cx.int("num_groups")?.ok_or_else(|| Refusal::new("attribute `num_groups` is missing"))?;
    let dims = cx.dims(x);
    let per_group = dims.get(1).and_then(|c| c.exact_div(&groups.into()));
    let per_group = per_group.ok_or_else(|| Refusal::new(format!("{} has no {groups} groups", cx.ty(x))))?;
    let (wide, own) = cx.widened(x)?;
    let grouped = [dims[0].clone(), groups.into(), per_group.clone()].into_iter().chain(dims[2..].iter().cloned());
    let grouped = cx.reshape(wide, grouped.collect())?;
    let axes = (2..cx.rank(grouped) as i64).collect();
    let y = normal(cx, grouped, axes, epsilon)?;
    let y = cx.reshape(y, dims.clone())?;
    let y = cx.cast(y, own)?;
    let mut affine = [cx.input(1)?, cx.input(2)?];
    for value in &mut affine {
        if cx.dims(*value) == [Dim::from(groups)] && dims[1] != Dim::from(groups) {
            let column = cx.along(*value, 0, 2)?;
            let spread = cx.expanded(column, vec![groups.into(), per_group.clone()])?;
            *value = cx.reshape(spread, vec![dims[1].clone()])?;
        }
    }
    Ok(vec![per_channel(cx, y, affine[0], affine[1])?])
}

/// `(x - mean) / sqrt(variance)` over axes.
pub(super) fn mean_variance_normalization(cx: &mut Cx) -> NodeResult<Vec<ValueId>> {
    let x = cx.input(0)?;
    let axes = cx.ints("axes")?.unwrap_or_else(|| vec![0, 2, 3]);
    let (_, centred) = centred(cx, x, axes.clone())?;
    let square = cx.square(centred)?;
    let variance = cx.mean(square, axes)?;
    let deviation = cx.unary(Op::Sqrt {}, variance)?;
    let divisor = cx.plus(deviation, 1e-9)?;
    Ok(vec![cx.div(centred, divisor)?])
}

/// `x / (bias + alpha/size · Σ x²)^beta` over neighbouring channels.
pub(super) fn lrn(cx: &mut Cx) -> NodeResult<Vec<ValueId>> {
    let x = cx.input(0)?;
    let (alpha, beta, bias) = (cx.float_or("alpha", 1e-4)?, cx.float_or("beta", 0.75)?, cx.float_or("bias", 1.0)?);
    let size = cx.int("size")?.filter(|s| (1..=1024).contains(s));
    let size = size.ok_or_else(|| Refusal::new("attribute `size` is missing or out of range"))?;
    let square = cx.square(x)?;
    let (rank, channels) = (cx.rank(x), cx.dims(x)[1].clone());
    let mut pads = vec![Dim::from(0); 2 * rank];
    (pads[1], pads[1 + rank]) = (((size - 1) / 2).into(), (size / 2).into());
    let padded = cx.unary(Op::Pad { pads }, square)?;
    let mut sum = None;
    for shift in 0..size {
        let part = cx.part(padded, 1, [shift.into(), &channels + &shift.into()], 1)?;
        sum = Some(match sum {
            Some(sum) => cx.add(sum, part)?,
            None => part,
        });
    }
    let scaled = cx.times(sum.unwrap_or(square), alpha / size as f64)?;
    let base = cx.plus(scaled, bias)?;
    let exponent = cx.number(x, beta)?;
    let divisor = cx.emit(Op::Pow {}, &[base, exponent])?;
    Ok(vec![cx.div(x, divisor)?])
}

/// `Gemm`.
pub(super) fn gemm(cx: &mut Cx) -> NodeResult<Vec<ValueId>> {
    let alpha = cx.float("alpha")?.unwrap_or(1.0);
    let beta = cx.float("beta")?.unwrap_or(1.0);
    let (trans_a, trans_b) = (cx.flag("transA", false)?, cx.flag("transB", false)?);
    if cx.opset < 7 {
        // It broadcasts as all later ones do.
        cx.flag("broadcast", false)?;
    }
    let inputs = cx.all_inputs()?;
    Ok(vec![cx.emit(Op::Gemm { alpha, beta, trans_a, trans_b, weights: Precision::F32 }, &inputs)?])
}

/// `BatchNormalization`. With constants it is one factor and one summand per channel.
pub(super) fn batch_normalization(cx: &mut Cx) -> NodeResult<Vec<ValueId>> {
    let x = cx.input(0)?;
    let epsilon = cx.float("epsilon")?.unwrap_or(1e-5);
    let momentum = cx.float("momentum")?.unwrap_or(0.9);
    // Before opset 7, training was meant where no attribute said otherwise.
    let training = if cx.opset < 7 { !cx.flag("is_test", false)? } else { cx.flag("training_mode", false)? };
    if !cx.flag("spatial", true)? {
        return refuse("only the form over channels is supported");
    }
    if cx.rank(x) < 2 {
        return refuse(format!("needs a tensor with channels, found {}", cx.ty(x)));
    }
    if training {
        return trained_batch_normalization(cx, x, epsilon, momentum.into());
    }
    let parameters: Option<Vec<Vec<f32>>> = (1..5).map(|i| channel_values(cx, i)).collect();
    match parameters {
        Some(parameters) => constant_batch_normalization(cx, x, parameters, epsilon),
        None => {
            let (mean, variance) = (cx.input(3)?, cx.input(4)?);
            Ok(vec![scaled_batch(cx, x, mean, variance, epsilon)?])
        }
    }
}

fn constant_batch_normalization(
    cx: &mut Cx,
    x: ValueId,
    parameters: Vec<Vec<f32>>,
    epsilon: f32,
) -> NodeResult<Vec<ValueId>> {
    let [scale, bias, mean, variance] = parameters.as_slice() else { return refuse("needs 5 operands") };
    let channels = scale.len();
    if [bias.len(), mean.len(), variance.len()] != [channels; 3] {
        return refuse("scale, bias, mean and variance differ in length");
    }
    let factor: Vec<f32> = scale.iter().zip(variance).map(|(s, v)| s / (v + epsilon).sqrt()).collect();
    let summand = bias.iter().zip(mean).zip(&factor).map(|((b, m), f)| b - m * f).collect();
    let mut dims = vec![1; cx.rank(x) - 1];
    dims[0] = channels;
    let factor = cx.constant(Tensor::new(&dims, factor)?);
    let summand = cx.constant(Tensor::new(&dims, summand)?);
    let scaled = cx.emit(Op::Mul {}, &[x, factor])?;
    Ok(vec![cx.emit(Op::Add {}, &[scaled, summand])?])
}

/// With the statistics of the batch; the other results are the running ones.
fn trained_batch_normalization(cx: &mut Cx, x: ValueId, epsilon: f32, momentum: f64) -> NodeResult<Vec<ValueId>> {
    let axes: Vec<i64> = (0..cx.rank(x) as i64).filter(|a| *a != 1).collect();
    let (mean, centred) = centred(cx, x, axes.clone())?;
    let square = cx.square(centred)?;
    let variance = cx.mean(square, axes)?;
    let channels = vec![cx.dims(x)[1].clone()];
    let (mean, variance) = (cx.reshape(mean, channels.clone())?, cx.reshape(variance, channels)?);
    let mut results = vec![scaled_batch(cx, x, mean, variance, epsilon)?];
    for (running, current) in [(3, mean), (4, variance)] {
        let running = cx.input(running)?;
        let (kept, new) = (cx.times(running, momentum)?, cx.times(current, 1.0 - momentum)?);
        results.push(cx.add(kept, new)?);
    }
    Ok(results)
}

/// `(x - mean) / sqrt(variance + epsilon) · scale + bias`.
fn scaled_batch(cx: &mut Cx, x: ValueId, mean: ValueId, variance: ValueId, epsilon: f32) -> NodeResult<ValueId> {
    let rank = cx.rank(x);
    let (mean, variance) = (cx.along(mean, 1, rank)?, cx.along(variance, 1, rank)?);
    let sum = cx.plus(variance, epsilon.into())?;
    let deviation = cx.unary(Op::Sqrt {}, sum)?;
    let centred = cx.sub(x, mean)?;
    let normal = cx.div(centred, deviation)?;
    let (scale, bias) = (cx.input(1)?, cx.input(2)?);
    per_channel(cx, normal, scale, bias)
}

/// The values of a constant of f32.
fn channel_values(cx: &Cx, i: usize) -> Option<Vec<f32>> {
    cx.constant_of(cx.optional(i)?)?.elements::<f32>().map(|v| v.into_owned())
}
