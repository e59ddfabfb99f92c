//! Fused operators of the domain `com.microsoft`, in terms of what they fuse; lowering fuses them again.
//!
//! Specification: <https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md>.

use eec_ir::{DType, Dim, Op, Precision, ValueId};

use super::super::error::{NodeResult, refuse};
use super::node::{Cx, Results};
use super::normalise::{inverse_deviation, layer_normalized, rms_normalized};
use super::pool;

/// What the skipped normalisations and embeddings add to the variance if they say nothing else.
const EPSILON: f32 = 1e-12;

/// `alpha · A·B`, each perhaps transposed, in its last two dims or (`transBatch`) with its first dim as rows.
pub(super) fn fused_matmul(cx: &mut Cx) -> Results {
    let alpha = cx.float_or("alpha", 1.0)?;
    let mut operands = [cx.input(0)?, cx.input(1)?];
    for (x, [matrix, batch]) in operands.iter_mut().zip([["transA", "transBatchA"], ["transB", "transBatchB"]]) {
        let (matrix, batch) = (cx.flag(matrix, false)?, cx.flag(batch, false)?);
        let rank = cx.rank(*x);
        if rank < 2 {
            continue;
        }
        let mut order: Vec<usize> = (0..rank).collect();
        if batch {
            order[..rank - 1].rotate_left(1);
        }
        if matrix {
            order.swap(rank - 2, rank - 1);
        }
        *x = cx.transposed(*x, &order)?;
    }
    let y = cx.emit(Op::MATMUL, &operands)?;
    Ok(vec![if alpha == 1.0 { y } else { cx.times(y, alpha)? }])
}

/// `x + bias` if operand `i` is given, else `x`.
pub(super) fn biased(cx: &mut Cx, x: ValueId, i: usize) -> NodeResult<ValueId> {
    cx.optional(i).map_or(Ok(x), |bias| cx.add(x, bias))
}

/// The tanh approximation, after a bias if there is one.
pub(super) fn fast_gelu(cx: &mut Cx) -> Results {
    let x = cx.input(0)?;
    let x = biased(cx, x, 1)?;
    Ok(vec![cx.unary(Op::Gelu { tanh: true }, x)?])
}

pub(super) fn bias_gelu(cx: &mut Cx) -> Results {
    let (x, bias) = (cx.input(0)?, cx.input(1)?);
    let sum = cx.add(x, bias)?;
    Ok(vec![cx.unary(Op::Gelu { tanh: false }, sum)?])
}

/// `x·sigmoid(alpha·x)`.
pub(super) fn quick_gelu(cx: &mut Cx) -> Results {
    let (x, alpha) = (cx.input(0)?, cx.float_or("alpha", 1.702)?);
    let (x, own) = cx.widened(x)?;
    let y = super::activation::swished(cx, x, alpha)?;
    Ok(vec![cx.cast(y, own)?])
}

/// The operand, what skips to it and the bias `i` summed.
fn skipped_sum(cx: &mut Cx, i: usize) -> NodeResult<ValueId> {
    let (x, skip) = (cx.input(0)?, cx.input(1)?);
    let sum = cx.add(x, skip)?;
    if cx.ty(sum).dims != cx.ty(x).dims {
        return refuse(format!("{} does not broadcast to {}", cx.ty(skip), cx.ty(x)));
    }
    biased(cx, sum, i)
}

/// Results: the normal form, mean and inverse deviation of each row, and the sum.
pub(super) fn skip_layer_normalization(cx: &mut Cx) -> Results {
    let epsilon = cx.float("epsilon")?.unwrap_or(EPSILON);
    let sum = skipped_sum(cx, 4)?;
    let (scale, bias) = (cx.input(2)?, cx.optional(3));
    let y = layer_normalized(cx, sum, scale, bias, epsilon)?;
    if cx.output_count() < 2 {
        return Ok(vec![y]);
    }
    let (x, own) = cx.widened(sum)?;
    let mean = cx.mean(x, vec![-1])?;
    let centred = cx.sub(x, mean)?;
    let factor = inverse_deviation(cx, centred, vec![-1], epsilon)?;
    Ok(vec![y, cx.cast(mean, own)?, cx.cast(factor, own)?, sum])
}

/// As above, without mean and bias.
pub(super) fn skip_rms_normalization(cx: &mut Cx) -> Results {
    let epsilon = cx.float("epsilon")?.unwrap_or(EPSILON);
    let sum = skipped_sum(cx, 3)?;
    let scale = cx.input(2)?;
    let (y, factor) = rms_normalized(cx, sum, scale, vec![-1], epsilon)?;
    if cx.asks_for(1) {
        return refuse("its second result, the mean, is not computed");
    }
    // Nothing reads the second.
    Ok(vec![y, factor, factor, sum])
}

/// Words, positions and segments embedded, summed and normalised. Results: the normal form, how many
/// tokens of each row the mask keeps, and the sum.
pub(super) fn embed_layer_normalization(cx: &mut Cx) -> Results {
    let epsilon = cx.float("epsilon")?.unwrap_or(EPSILON);
    cx.int("mask_index_type")?;
    let ids = cx.input(0)?;
    let dims = cx.dims(ids);
    let [batch, sequence] = dims.as_slice() else { return refuse(format!("needs rows of ids, found {}", cx.ty(ids))) };
    let look_up = |cx: &mut Cx, table: usize, ids: ValueId| {
        let table = cx.input(table)?;
        cx.emit(Op::Gather { axis: 0 }, &[table, ids])
    };
    let words = look_up(cx, 2, ids)?;
    let positions = match cx.optional(8) {
        Some(positions) => look_up(cx, 3, positions)?,
        None => {
            let table = cx.input(3)?;
            cx.part(table, 0, [0.into(), sequence.clone()], 1)?
        }
    };
    let mut sum = cx.add(words, positions)?;
    if let Some(segments) = cx.optional(1) {
        let segments = look_up(cx, 4, segments)?;
        sum = cx.add(sum, segments)?;
    }
    let (scale, bias) = (cx.input(5)?, cx.input(6)?);
    let y = layer_normalized(cx, sum, scale, Some(bias), epsilon)?;
    let kept = match cx.optional(7) {
        Some(mask) => cx.sum(mask, vec![1], false)?,
        None => {
            let zero = cx.scalar(DType::I32, 0.0)?;
            cx.expanded(zero, vec![batch.clone()])?
        }
    };
    Ok(vec![y, kept, sum])
}

/// A convolution, a summand if there is one, and an activation.
pub(super) fn fused_conv(cx: &mut Cx) -> Results {
    let operands: Vec<ValueId> = (0..3).filter_map(|i| cx.optional(i)).collect();
    let y = pool::convolution(cx, &operands)?;
    let y = biased(cx, y, 3)?;
    Ok(vec![activated(cx, y)?])
}

/// A `Gemm` and an activation.
pub(super) fn fused_gemm(cx: &mut Cx) -> Results {
    let (alpha, beta) = (cx.float("alpha")?.unwrap_or(1.0), cx.float("beta")?.unwrap_or(1.0));
    let (trans_a, trans_b) = (cx.flag("transA", false)?, cx.flag("transB", false)?);
    let inputs = cx.all_inputs()?;
    let y = cx.emit(Op::Gemm { alpha, beta, trans_a, trans_b, weights: Precision::F32 }, &inputs)?;
    Ok(vec![activated(cx, y)?])
}

/// What the attribute `activation` makes of `x`.
fn activated(cx: &mut Cx, x: ValueId) -> NodeResult<ValueId> {
    let name = cx.word("activation")?.unwrap_or_default();
    let mut parameters = cx.floats("activation_params")?.unwrap_or_default();
    for parameter in ["activation_alpha", "activation_beta", "activation_gamma"] {
        parameters.extend(cx.float(parameter)?);
    }
    let parameter = |i: usize, default: f64| parameters.get(i).map_or(default, |p| f64::from(*p));
    match name.as_str() {
        "" => Ok(x),
        "Relu" => cx.unary(Op::Relu {}, x),
        "Tanh" => cx.unary(Op::Tanh {}, x),
        "Sigmoid" => cx.unary(Op::Sigmoid {}, x),
        "LeakyRelu" => {
            let below = cx.times(x, parameter(0, 0.01))?;
            super::activation::where_negative(cx, x, below)
        }
        "Clip" => cx.clipped(x, parameter(0, f64::NEG_INFINITY), parameter(1, f64::INFINITY)),
        "HardSigmoid" => super::activation::ramp(cx, x, parameter(0, 0.2), parameter(1, 0.5)),
        other => refuse(format!("activation `{other}` is not supported")),
    }
}

/// Queries, keys or values `[batch, sequence, width]`, cut out of a wider tensor from `start` on.
pub(super) fn columns(cx: &mut Cx, x: ValueId, start: &Dim, width: &Dim) -> NodeResult<ValueId> {
    let last = cx.rank(x).saturating_sub(1);
    cx.part(x, last, [start.clone(), start + width], 1)
}
