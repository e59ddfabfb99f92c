//! Which rule imports which ONNX operator.

use eec_ir::{Op, ValueId};

use super::super::error::{NodeResult, Refusal};
use super::node::Cx;
use super::{elementwise, normalise, pool, reduce, shape, slice};

/// Appends what an ONNX node stands for and returns its results.
type Rule = fn(&mut Cx) -> NodeResult<Vec<ValueId>>;

/// Operators whose name, operands and attributes are the same in the IR.
const SAME: &[&str] = &[
    "Neg",
    "Abs",
    "Sqrt",
    "Reciprocal",
    "Exp",
    "Log",
    "Sin",
    "Cos",
    "Tanh",
    "Erf",
    "Sigmoid",
    "Relu",
    "Not",
    "IsNaN",
    "Add",
    "Sub",
    "Mul",
    "Div",
    "And",
    "Or",
    "Equal",
    "Less",
    "LessOrEqual",
    "Greater",
    "GreaterOrEqual",
    "Where",
    "MatMul",
    "Concat",
    "Gather",
    "GatherElements",
    "GatherND",
    "Shape",
];

/// Whether there is a rule for ONNX's own operator `op_type`.
pub(crate) fn is_supported(op_type: &str) -> bool {
    op_type == "If" || SAME.contains(&op_type) || special(op_type).is_some()
}

/// Runs the rule of `op_type`; what it leaves unread of the node is refused.
pub(super) fn apply(op_type: &str, cx: &mut Cx) -> NodeResult<Vec<ValueId>> {
    let results = match special(op_type) {
        Some(rule) => rule(cx)?,
        None => same(op_type, cx)?,
    };
    cx.nothing_left()?;
    Ok(results)
}

fn same(op_type: &str, cx: &mut Cx) -> NodeResult<Vec<ValueId>> {
    let op = Op::from_attributes(op_type, &cx.generic_attributes()?).map_err(|e| Refusal::new(e.to_string()))?;
    let inputs = cx.all_inputs()?;
    Ok(vec![cx.emit(op, &inputs)?])
}

fn special(op_type: &str) -> Option<Rule> {
    let rule: Rule = match op_type {
        "Constant" => shape::constant,
        "ConstantOfShape" => shape::constant_of_shape,
        "Reshape" => shape::reshape,
        "Flatten" => shape::flatten,
        "Squeeze" => shape::squeeze,
        "Unsqueeze" => shape::unsqueeze,
        "Expand" => shape::expand,
        "Range" => shape::range,
        "Size" => shape::size,
        "Transpose" => shape::transpose,
        "Slice" => slice::slice,
        "Split" => slice::split,
        "Pad" => slice::pad,
        "Identity" => elementwise::identity,
        "Dropout" => elementwise::dropout,
        "Cast" => elementwise::cast,
        "CastLike" => elementwise::cast_like,
        "Clip" => elementwise::clip,
        "Gelu" => elementwise::gelu,
        "Pow" => elementwise::pow,
        "Mod" => elementwise::modulo,
        "Max" => |cx| elementwise::chain(cx, &Op::Max {}),
        "Min" => |cx| elementwise::chain(cx, &Op::Min {}),
        "Sum" => |cx| elementwise::chain(cx, &Op::Add {}),
        "Gemm" => normalise::gemm,
        "BatchNormalization" => normalise::batch_normalization,
        "LayerNormalization" => normalise::layer_normalization,
        "Softmax" => |cx| normalise::softmax(cx, |axis| Op::Softmax { axis }),
        "LogSoftmax" => |cx| normalise::softmax(cx, |axis| Op::LogSoftmax { axis }),
        "ReduceSum" => |cx| reduce::reduce(cx, 13, |axes, keepdims| Op::ReduceSum { axes, keepdims }),
        "ReduceMean" => |cx| reduce::reduce(cx, 18, |axes, keepdims| Op::ReduceMean { axes, keepdims }),
        "ReduceMax" => |cx| reduce::reduce(cx, 18, |axes, keepdims| Op::ReduceMax { axes, keepdims }),
        "ReduceMin" => |cx| reduce::reduce(cx, 18, |axes, keepdims| Op::ReduceMin { axes, keepdims }),
        "GlobalAveragePool" => |cx| reduce::global(cx, |axes| Op::ReduceMean { axes, keepdims: true }),
        "GlobalMaxPool" => |cx| reduce::global(cx, |axes| Op::ReduceMax { axes, keepdims: true }),
        "ArgMax" => reduce::arg_max,
        "CumSum" => reduce::cum_sum,
        "Conv" => pool::conv,
        "MaxPool" => pool::max_pool,
        "AveragePool" => pool::average_pool,
        _ => return None,
    };
    Some(rule)
}
