//! What each operator means: type inference and reference evaluation, one file per family.

pub mod control;
pub mod join;

mod conv;
mod deform_conv;
mod elementwise;
mod eval_context;
mod gather;
mod index;
mod infer_context;
mod linear;
mod movement;
mod pool;
mod reduce;
mod roi_align;
mod scatter;
mod select;
mod selected;
mod sizes;
mod window;

#[cfg(test)]
mod tests;

use std::cmp::Ordering;

pub(crate) use self::eval_context::element_count;
use self::eval_context::{Eval, Evaluated};
use self::infer_context::{Infer, Inferred};
use self::window::Windows;
use crate::dim::{Dim, Symbol};
use crate::graph::Value;
use crate::op::Op;
use crate::tensor::Tensor;
use crate::types::Type;

/// What inference knows of a value: its type and, for small integer tensors, its elements.
#[derive(Clone, PartialEq, Debug)]
pub struct Facts {
    /// Type.
    pub ty: Type,
    /// The elements in row-major order as sizes (`Bool`: 0 or 1), if known; at most
    /// [`Facts::MAX_CONTENTS`] of them.
    pub contents: Option<Vec<Dim>>,
}

impl Facts {
    /// Tensors with more elements are data, not shape arithmetic.
    pub const MAX_CONTENTS: usize = 64;

    /// A type of which nothing more is known.
    pub fn of(ty: Type) -> Self {
        Facts { ty, contents: None }
    }

    /// What is known of a value.
    pub fn from_value(value: &Value) -> Self {
        Facts { ty: value.ty.clone(), contents: value.contents.clone() }
    }
}

/// The outcome of inference.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Inference {
    /// One per result.
    pub outputs: Vec<Facts>,
    /// Pairs of sizes that must be equal at run time, which their expressions do not show.
    pub assumptions: Vec<(Dim, Dim)>,
}

/// Why operands do not fit an operator: what was expected and what was found.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{op}: {reason}")]
pub struct InferError {
    /// Operator.
    pub op: &'static str,
    /// Expected and found.
    pub reason: String,
}

impl InferError {
    /// An error of `op`.
    pub fn new(op: &Op, reason: impl Into<String>) -> Self {
        InferError { op: op.name(), reason: reason.into() }
    }
}

/// Why an operator could not be evaluated on given tensors.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{op}: {reason}")]
pub struct EvalError {
    /// Operator.
    pub op: &'static str,
    /// What went wrong.
    pub reason: String,
}

/// Values of symbols during an evaluation.
pub type DimEnv<'a> = dyn Fn(&Symbol) -> Option<i64> + 'a;

/// The result types of a non-control operator.
pub fn infer(op: &Op, inputs: &[Facts]) -> Result<Inference, InferError> {
    let mut cx = Infer::new(op, inputs)?;
    let outputs = match op {
        Op::TopK { axis, k, largest: _ } => select::infer_top_k(&mut cx, *axis, k)?,
        Op::NonZero {} => selected::infer_non_zero(&cx),
        Op::Unique { axis, sorted: _ } => selected::infer_unique(&cx, *axis)?,
        Op::NonMaxSuppression { most, .. } => selected::infer_boxes(&mut cx, *most)?,
        _ => vec![infer_result(&mut cx, op)?],
    };
    Ok(Inference { outputs, assumptions: cx.into_assumptions() })
}

/// The results of a non-control operator on tensors, straight from its definition.
///
/// `env` gives the values of the symbols in its attributes. Operands are checked by inference.
pub fn eval(op: &Op, inputs: &[Tensor], env: &DimEnv) -> Result<Vec<Tensor>, EvalError> {
    let op = eval_context::resolve(op, env)?;
    let facts: Vec<Facts> = inputs.iter().map(|t| Facts::of(t.ty())).collect();
    let inference = infer(&op, &facts).map_err(|e| EvalError { op: e.op, reason: e.reason })?;
    let evaluated = inference.outputs.iter().enumerate().map(|(i, result)| {
        let cx = Eval::new(&op, inputs, i, result)?;
        if cx.is_empty() { cx.finish_integers(Vec::new()) } else { eval_result(&cx, &op, inputs) }
    });
    evaluated.collect()
}

fn infer_result(cx: &mut Infer, op: &Op) -> Inferred {
    match op {
        Op::Neg {} => elementwise::infer_number(cx, elementwise::known_neg),
        Op::Abs {} => elementwise::infer_number(cx, elementwise::known_abs),
        Op::Relu {} => elementwise::infer_number(cx, |x| Some(x.larger(&Dim::default()))),
        Op::Sqrt {} | Op::Reciprocal {} | Op::Exp {} | Op::Log {} | Op::Sin {} | Op::Cos {} => {
            elementwise::infer_float(cx)
        }
        Op::Tanh {} | Op::Erf {} | Op::Sigmoid {} | Op::Gelu { .. } => elementwise::infer_float(cx),
        Op::Floor {} | Op::Ceil {} | Op::Round {} | Op::Tan {} | Op::Asin {} | Op::Acos {} | Op::Atan {} => {
            elementwise::infer_float(cx)
        }
        Op::Sinh {} | Op::Cosh {} | Op::Asinh {} | Op::Acosh {} | Op::Atanh {} => elementwise::infer_float(cx),
        Op::Sign {} => elementwise::infer_number(cx, |_| None),
        Op::BitwiseNot {} => elementwise::infer_bits(cx),
        Op::BitShift { .. } | Op::BitwiseAnd {} | Op::BitwiseOr {} | Op::BitwiseXor {} => {
            elementwise::infer_bit_pairs(cx)
        }
        Op::Mod { .. } => elementwise::infer_arithmetic(cx, |_, _| None),
        Op::CastUnsaturated { to } => elementwise::infer_cast(cx, *to),
        Op::BitCast { to } => elementwise::infer_bit_cast(cx, *to),
        Op::Clip { min, max } => elementwise::infer_clip(cx, *min, *max),
        Op::Not {} => elementwise::infer_not(cx),
        Op::IsNaN {} => elementwise::infer_is_nan(cx),
        Op::Cast { to } => elementwise::infer_cast(cx, *to),
        Op::Add {} => elementwise::infer_arithmetic(cx, |a, b| Some(a + b)),
        Op::Sub {} => elementwise::infer_arithmetic(cx, |a, b| Some(a - b)),
        Op::Mul {} => elementwise::infer_arithmetic(cx, |a, b| Some(a * b)),
        Op::Div {} => elementwise::infer_arithmetic(cx, elementwise::known_div),
        Op::Max {} => elementwise::infer_arithmetic(cx, |a, b| Some(a.larger(b))),
        Op::Min {} => elementwise::infer_arithmetic(cx, |a, b| Some(a.smaller(b))),
        Op::Pow {} => elementwise::infer_pow(cx),
        Op::And {} => elementwise::infer_logic(cx, elementwise::known_and),
        Op::Or {} => elementwise::infer_logic(cx, elementwise::known_or),
        Op::Equal {} => elementwise::infer_equal(cx),
        Op::Less {} => elementwise::infer_order(cx, elementwise::known_less),
        Op::LessOrEqual {} => elementwise::infer_order(cx, elementwise::known_less_or_equal),
        Op::Greater {} => elementwise::infer_order(cx, |a, b| elementwise::known_less(b, a)),
        Op::GreaterOrEqual {} => elementwise::infer_order(cx, |a, b| elementwise::known_less_or_equal(b, a)),
        Op::Where {} => elementwise::infer_where(cx),
        Op::MatMul { weights } => linear::infer_matmul(cx, *weights),
        Op::Gemm { trans_a, trans_b, weights, .. } => linear::infer_gemm(cx, [*trans_a, *trans_b], *weights),
        Op::Conv { group, strides, dilations, pads } => {
            conv::infer(cx, conv::Attributes { group: *group, strides, dilations, pads })
        }
        Op::DeformConv { group, offset_group, strides, dilations, pads } => {
            let conv = conv::Attributes { group: *group, strides, dilations, pads };
            deform_conv::infer(cx, &deform_conv::Attributes { conv, offset_group: *offset_group })
        }
        Op::RoiAlign { output_height, output_width, sampling_ratio, spatial_scale, max, half_pixel } => {
            let output = [*output_height, *output_width];
            let (sampling_ratio, spatial_scale) = (*sampling_ratio, *spatial_scale);
            let (max, half_pixel) = (*max, *half_pixel);
            roi_align::infer(cx, &roi_align::Attributes { output, sampling_ratio, spatial_scale, max, half_pixel })
        }
        Op::Det {} => linear::infer_det(cx),
        Op::MaxPool { kernel, strides, dilations, pads, ceil_mode } => {
            pool::infer(cx, Windows { kernel, strides, dilations, pads, ceil_mode: *ceil_mode })
        }
        Op::AveragePool { kernel, strides, pads, ceil_mode, .. } => {
            let dilations = &vec![1; kernel.len()];
            pool::infer(cx, Windows { kernel, strides, dilations, pads, ceil_mode: *ceil_mode })
        }
        Op::Softmax { axis } | Op::LogSoftmax { axis } => reduce::infer_softmax(cx, *axis),
        Op::LayerNormalization { axis, epsilon: _ } => reduce::infer_layer_norm(cx, *axis),
        Op::ReduceSum { axes, keepdims } | Op::ReduceProd { axes, keepdims } | Op::ReduceMean { axes, keepdims } => {
            reduce::infer_reduce(cx, axes, *keepdims)
        }
        Op::ReduceMax { axes, keepdims } | Op::ReduceMin { axes, keepdims } => {
            reduce::infer_extreme(cx, axes, *keepdims)
        }
        Op::ArgMax { axis, keepdims } => reduce::infer_arg_max(cx, *axis, *keepdims),
        Op::CumSum { axis, .. } | Op::CumProd { axis, .. } => reduce::infer_cumsum(cx, *axis),
        Op::Reshape { dims } => movement::infer_reshape(cx, dims),
        Op::Transpose { perm } => movement::infer_transpose(cx, perm),
        Op::Expand { dims } => movement::infer_expand(cx, dims),
        Op::Concat { axis } => movement::infer_concat(cx, *axis),
        Op::Slice { axes, starts, ends, steps } => {
            movement::infer_slice(cx, movement::Slice { axes, starts, ends, steps })
        }
        Op::Gather { axis } => gather::infer_gather(cx, *axis),
        Op::GatherElements { axis } => gather::infer_elements(cx, *axis),
        Op::GatherND { batch_dims } => gather::infer_nd(cx, *batch_dims),
        Op::Pad { pads } => movement::infer_pad(cx, pads),
        Op::Shape { start, end } => sizes::infer_shape(cx, *start, *end),
        Op::Sizes { values } => sizes::infer_sizes(values),
        Op::Range { start, limit, delta } => sizes::infer_range(cx, start, limit, *delta),
        Op::ScatterElements { axis, .. } => scatter::infer_elements(cx, *axis),
        Op::ScatterND { .. } => scatter::infer_nd(cx),
        Op::LateSize { size, most } => sizes::infer_late(cx, size, most),
        Op::TopK { .. } | Op::NonZero {} | Op::Unique { .. } | Op::NonMaxSuppression { .. } => {
            Err(cx.refuse("it has several results"))
        }
        Op::If { .. } | Op::Route { .. } | Op::Loop { .. } => {
            Err(cx.refuse("a control operator's types follow from its regions"))
        }
    }
}

fn eval_result(cx: &Eval, op: &Op, inputs: &[Tensor]) -> Evaluated {
    match op {
        Op::Neg {} => elementwise::eval_number(cx, |x| -x, i128::wrapping_neg),
        Op::Abs {} => elementwise::eval_number(cx, f64::abs, i128::wrapping_abs),
        Op::Relu {} => elementwise::eval_number(cx, |x| if x < 0.0 { 0.0 } else { x }, |x| x.max(0)),
        Op::Sqrt {} => elementwise::eval_float(cx, f64::sqrt),
        Op::Reciprocal {} => elementwise::eval_float(cx, f64::recip),
        Op::Exp {} => elementwise::eval_float(cx, f64::exp),
        Op::Log {} => elementwise::eval_float(cx, f64::ln),
        Op::Sin {} => elementwise::eval_float(cx, f64::sin),
        Op::Cos {} => elementwise::eval_float(cx, f64::cos),
        Op::Tanh {} => elementwise::eval_float(cx, f64::tanh),
        Op::Erf {} => elementwise::eval_float(cx, libm::erf),
        Op::Sigmoid {} => elementwise::eval_float(cx, |x| 1.0 / (1.0 + (-x).exp())),
        Op::Floor {} => elementwise::eval_float(cx, f64::floor),
        Op::Ceil {} => elementwise::eval_float(cx, f64::ceil),
        Op::Round {} => elementwise::eval_float(cx, f64::round_ties_even),
        Op::Sign {} => elementwise::eval_number(cx, elementwise::sign, i128::signum),
        Op::Tan {} => elementwise::eval_float(cx, f64::tan),
        Op::Asin {} => elementwise::eval_float(cx, f64::asin),
        Op::Acos {} => elementwise::eval_float(cx, f64::acos),
        Op::Atan {} => elementwise::eval_float(cx, f64::atan),
        Op::Sinh {} => elementwise::eval_float(cx, f64::sinh),
        Op::Cosh {} => elementwise::eval_float(cx, f64::cosh),
        Op::Asinh {} => elementwise::eval_float(cx, f64::asinh),
        Op::Acosh {} => elementwise::eval_float(cx, f64::acosh),
        Op::Atanh {} => elementwise::eval_float(cx, f64::atanh),
        Op::BitwiseNot {} => elementwise::eval_number(cx, |x| x, |x| !x),
        Op::Mod { fmod: false } => elementwise::eval_arithmetic(cx, elementwise::modulo, elementwise::integer_modulo),
        Op::Mod { fmod: true } => elementwise::eval_arithmetic(cx, |a, b| a % b, elementwise::integer_remainder),
        Op::BitShift { right } => elementwise::eval_shift(cx, *right),
        Op::BitwiseAnd {} => elementwise::eval_bits(cx, |a, b| a & b),
        Op::BitwiseOr {} => elementwise::eval_bits(cx, |a, b| a | b),
        Op::BitwiseXor {} => elementwise::eval_bits(cx, |a, b| a ^ b),
        Op::Gelu { tanh: false } => elementwise::eval_float(cx, elementwise::gelu),
        Op::Gelu { tanh: true } => elementwise::eval_float(cx, elementwise::gelu_tanh),
        Op::Clip { min, max } => elementwise::eval_clip(cx, *min, *max),
        Op::Not {} => elementwise::eval_not(cx),
        Op::IsNaN {} => elementwise::eval_is_nan(cx),
        Op::Cast { to: _ } => elementwise::eval_cast(cx, true),
        Op::CastUnsaturated { to: _ } => elementwise::eval_cast(cx, false),
        Op::BitCast { to: _ } => elementwise::eval_bit_cast(cx),
        Op::Add {} => elementwise::eval_arithmetic(cx, |a, b| a + b, |a, b| Some(a.wrapping_add(b))),
        Op::Sub {} => elementwise::eval_arithmetic(cx, |a, b| a - b, |a, b| Some(a.wrapping_sub(b))),
        Op::Mul {} => elementwise::eval_arithmetic(cx, |a, b| a * b, |a, b| Some(a.wrapping_mul(b))),
        Op::Div {} => elementwise::eval_arithmetic(cx, |a, b| a / b, elementwise::integer_quotient),
        Op::Max {} => elementwise::eval_arithmetic(cx, elementwise::larger, |a, b| Some(a.max(b))),
        Op::Min {} => elementwise::eval_arithmetic(cx, elementwise::smaller, |a, b| Some(a.min(b))),
        Op::Pow {} => elementwise::eval_pow(cx),
        Op::And {} => elementwise::eval_logic(cx, |a, b| a & b),
        Op::Or {} => elementwise::eval_logic(cx, |a, b| a | b),
        Op::Equal {} => elementwise::eval_comparison(cx, |o| o == Some(Ordering::Equal)),
        Op::Less {} => elementwise::eval_comparison(cx, |o| o == Some(Ordering::Less)),
        Op::LessOrEqual {} => elementwise::eval_comparison(cx, |o| o.is_some_and(Ordering::is_le)),
        Op::Greater {} => elementwise::eval_comparison(cx, |o| o == Some(Ordering::Greater)),
        Op::GreaterOrEqual {} => elementwise::eval_comparison(cx, |o| o.is_some_and(Ordering::is_ge)),
        Op::Where {} => elementwise::eval_where(cx),
        Op::MatMul { weights } => linear::eval_matmul(cx, *weights),
        Op::Gemm { alpha, beta, trans_a, trans_b, weights } => {
            linear::eval_gemm(cx, [*alpha, *beta], [*trans_a, *trans_b], *weights)
        }
        Op::Conv { group, strides, dilations, pads } => {
            conv::eval(cx, conv::Attributes { group: *group, strides, dilations, pads })
        }
        Op::DeformConv { group, offset_group, strides, dilations, pads } => {
            let conv = conv::Attributes { group: *group, strides, dilations, pads };
            deform_conv::eval(cx, &deform_conv::Attributes { conv, offset_group: *offset_group })
        }
        Op::RoiAlign { output_height, output_width, sampling_ratio, spatial_scale, max, half_pixel } => {
            let output = [*output_height, *output_width];
            let (sampling_ratio, spatial_scale) = (*sampling_ratio, *spatial_scale);
            let (max, half_pixel) = (*max, *half_pixel);
            roi_align::eval(cx, &roi_align::Attributes { output, sampling_ratio, spatial_scale, max, half_pixel })
        }
        Op::Det {} => linear::eval_det(cx),
        Op::MaxPool { kernel, strides, dilations, pads, ceil_mode } => {
            pool::eval_max(cx, Windows { kernel, strides, dilations, pads, ceil_mode: *ceil_mode })
        }
        Op::AveragePool { kernel, strides, pads, ceil_mode, count_include_pad } => {
            let dilations = &vec![1; kernel.len()];
            let windows = Windows { kernel, strides, dilations, pads, ceil_mode: *ceil_mode };
            pool::eval_average(cx, windows, *count_include_pad)
        }
        Op::Softmax { axis } => reduce::eval_softmax(cx, *axis),
        Op::LogSoftmax { axis } => reduce::eval_log_softmax(cx, *axis),
        Op::LayerNormalization { axis, epsilon } => reduce::eval_layer_norm(cx, *axis, *epsilon),
        Op::ReduceSum { axes, keepdims: _ } => reduce::eval_sum(cx, axes),
        Op::ReduceMean { axes, keepdims: _ } => reduce::eval_mean(cx, axes),
        Op::ReduceProd { axes, keepdims: _ } => reduce::eval_prod(cx, axes),
        Op::ReduceMax { axes, keepdims: _ } => reduce::eval_max(cx, axes),
        Op::ReduceMin { axes, keepdims: _ } => reduce::eval_min(cx, axes),
        Op::ArgMax { axis, keepdims: _ } => reduce::eval_arg_max(cx, *axis),
        Op::CumProd { axis, exclusive, reverse } => reduce::eval_cumprod(cx, *axis, *exclusive, *reverse),
        Op::TopK { axis, k: _, largest } => select::eval_top_k(cx, *axis, *largest),
        Op::ScatterElements { axis, reduction } => scatter::eval_elements(cx, *axis, *reduction),
        Op::ScatterND { reduction } => scatter::eval_nd(cx, *reduction),
        Op::CumSum { axis, exclusive, reverse } => reduce::eval_cumsum(cx, *axis, *exclusive, *reverse),
        Op::Reshape { dims: _ } => movement::eval_reshape(cx),
        Op::Transpose { perm } => movement::eval_transpose(cx, perm),
        Op::Expand { dims: _ } => movement::eval_expand(cx),
        Op::Concat { axis } => movement::eval_concat(cx, *axis, inputs),
        Op::Slice { axes, starts, ends, steps } => {
            movement::eval_slice(cx, movement::Slice { axes, starts, ends, steps })
        }
        Op::Gather { axis } => gather::eval_gather(cx, *axis),
        Op::GatherElements { axis } => gather::eval_elements(cx, *axis),
        Op::GatherND { batch_dims } => gather::eval_nd(cx, *batch_dims),
        Op::Pad { pads } => movement::eval_pad(cx, pads),
        Op::Shape { start, end } => sizes::eval_shape(cx, *start, *end),
        Op::Sizes { values } => sizes::eval_sizes(cx, values),
        Op::Range { start, limit: _, delta } => sizes::eval_range(cx, start, *delta),
        Op::NonZero {} => selected::eval_non_zero(cx),
        Op::Unique { axis, sorted } => selected::eval_unique(cx, *axis, *sorted),
        Op::NonMaxSuppression { most, overlap, above, centred } => selected::eval_boxes(
            cx,
            selected::Boxes { most: *most, overlap: *overlap, above: *above, centred: *centred },
        ),
        Op::If { .. } | Op::Route { .. } | Op::Loop { .. } | Op::LateSize { .. } => {
            Err(cx.fail("it steers the run, and is run by the evaluator"))
        }
    }
}

/// What is known of a constant.
pub fn constant_facts(tensor: &Tensor) -> Facts {
    let small = tensor.len() <= Facts::MAX_CONTENTS;
    let contents = tensor.to_i64s().filter(|_| small).map(|v| v.into_iter().map(Dim::from).collect());
    Facts { ty: tensor.ty(), contents }
}
