//! Which rule imports which ONNX operator.

use eec_ir::{Op, ValueId};

use super::super::error::{NodeResult, Refusal, refuse};
use super::node::Cx;
use super::recurrent::Cell;
use super::{
    activation, attention, contrib, contrib_attention, contrib_grouped, einsum, elementwise, loss, normalise, pad,
    pool, quantise, rearrange, recurrent, reduce, resize, sample, selected, shape, signal, slice, transposed_conv,
    vectorise, vision, weight_only,
};

/// Appends what an ONNX node stands for and returns its results.
type Rule = fn(&mut Cx) -> NodeResult<Vec<ValueId>>;

/// Every operator that is imported, but for those that own graphs.
const RULES: &[(&str, Rule)] = &[
    ("Abs", same),
    ("Acos", same),
    ("Acosh", same),
    ("Add", same),
    ("AffineGrid", sample::affine_grid),
    ("And", same),
    ("ArgMax", reduce::arg_max),
    ("ArgMin", reduce::arg_min),
    ("Asin", same),
    ("Asinh", same),
    ("Atan", same),
    ("Atanh", same),
    ("Attention", attention::attention),
    ("AveragePool", pool::average_pool),
    ("BatchNormalization", normalise::batch_normalization),
    ("BitCast", activation::bit_cast),
    ("BitShift", activation::bit_shift),
    ("BitwiseAnd", same),
    ("BitwiseNot", same),
    ("BitwiseOr", same),
    ("BitwiseXor", same),
    ("BlackmanWindow", |cx| signal::window_function(cx, &[0.42, -0.5, 0.08])),
    ("Cast", elementwise::cast),
    ("CastLike", elementwise::cast_like),
    ("CausalConvWithState", transposed_conv::causal_conv),
    ("Ceil", same),
    ("Celu", |cx| activation::of_one(cx, activation::celu)),
    ("CenterCropPad", rearrange::center_crop_pad),
    ("Clip", elementwise::clip),
    ("Col2Im", transposed_conv::col2im),
    ("Compress", selected::compress),
    ("Concat", same),
    ("Constant", shape::constant),
    ("ConstantOfShape", shape::constant_of_shape),
    ("Conv", pool::conv),
    ("ConvInteger", quantise::conv_integer),
    ("ConvTranspose", transposed_conv::conv_transpose),
    ("Cos", same),
    ("Cosh", same),
    ("CumProd", |cx| reduce::running(cx, |axis, exclusive, reverse| Op::CumProd { axis, exclusive, reverse })),
    ("CumSum", |cx| reduce::running(cx, |axis, exclusive, reverse| Op::CumSum { axis, exclusive, reverse })),
    ("DFT", signal::dft),
    ("DeformConv", vision::deform_conv),
    ("DepthToSpace", rearrange::depth_to_space),
    ("DequantizeLinear", quantise::dequantize_linear),
    ("Det", same),
    ("Div", same),
    ("Dropout", elementwise::dropout),
    ("DynamicQuantizeLinear", quantise::dynamic_quantize_linear),
    ("Einsum", einsum::einsum),
    ("Elu", |cx| activation::of_one(cx, activation::elu)),
    ("Equal", same),
    ("Erf", same),
    ("Exp", same),
    ("Expand", shape::expand),
    ("EyeLike", rearrange::eye_like),
    ("Flatten", shape::flatten),
    ("Floor", same),
    ("GRU", |cx| recurrent::recurrent(cx, Cell::Gru)),
    ("Gather", same),
    ("GatherElements", same),
    ("GatherND", same),
    ("Gelu", elementwise::gelu),
    ("Gemm", normalise::gemm),
    ("GlobalAveragePool", |cx| reduce::global(cx, |axes| Op::ReduceMean { axes, keepdims: true })),
    ("GlobalLpPool", transposed_conv::global_lp_pool),
    ("GlobalMaxPool", |cx| reduce::global(cx, |axes| Op::ReduceMax { axes, keepdims: true })),
    ("Greater", same),
    ("GreaterOrEqual", same),
    ("GridSample", sample::grid_sample),
    ("GroupNormalization", normalise::group_normalization),
    ("HammingWindow", |cx| signal::window_function(cx, &[25.0 / 46.0, -21.0 / 46.0])),
    ("HannWindow", |cx| signal::window_function(cx, &[0.5, -0.5])),
    ("HardSigmoid", |cx| activation::of_one(cx, activation::hard_sigmoid)),
    ("HardSwish", |cx| activation::of_one(cx, activation::hard_swish)),
    ("Hardmax", activation::hardmax),
    ("Identity", elementwise::identity),
    ("InstanceNormalization", normalise::instance_normalization),
    ("IsInf", activation::is_inf),
    ("IsNaN", same),
    ("LRN", normalise::lrn),
    ("LSTM", |cx| recurrent::recurrent(cx, Cell::Lstm)),
    ("LayerNormalization", normalise::layer_normalization),
    ("LeakyRelu", |cx| activation::of_one(cx, activation::leaky_relu)),
    ("Less", same),
    ("LessOrEqual", same),
    ("LinearAttention", recurrent::linear_attention),
    ("Log", same),
    ("LogSoftmax", |cx| normalise::softmax(cx, |axis| Op::LogSoftmax { axis })),
    ("LpNormalization", reduce::lp_normalization),
    ("LpPool", transposed_conv::lp_pool),
    ("MatMul", same),
    ("MatMulInteger", quantise::matmul_integer),
    ("Max", |cx| elementwise::chain(cx, &Op::Max {})),
    ("MaxPool", pool::max_pool),
    ("MaxUnpool", transposed_conv::max_unpool),
    ("Mean", activation::mean),
    ("MeanVarianceNormalization", normalise::mean_variance_normalization),
    ("MelWeightMatrix", signal::mel_weights),
    ("Min", |cx| elementwise::chain(cx, &Op::Min {})),
    ("Mish", |cx| activation::of_one(cx, activation::mish)),
    ("Mod", elementwise::modulo),
    ("Mul", same),
    ("Neg", same),
    ("NegativeLogLikelihoodLoss", loss::negative_log_likelihood),
    ("NonMaxSuppression", selected::non_max_suppression),
    ("NonZero", selected::non_zero),
    ("Not", same),
    ("OneHot", rearrange::one_hot),
    ("OptionalGetElement", elementwise::identity),
    ("OptionalHasElement", elementwise::has_element),
    ("Or", same),
    ("PRelu", activation::prelu),
    ("Pad", pad::pad),
    ("Pow", elementwise::pow),
    ("QLinearConv", quantise::qlinear_conv),
    ("QLinearMatMul", quantise::qlinear_matmul),
    ("QuantizeLinear", quantise::quantize_linear),
    ("RMSNormalization", normalise::rms_normalization),
    ("RNN", |cx| recurrent::recurrent(cx, Cell::Rnn)),
    ("Range", shape::range),
    ("Reciprocal", same),
    ("ReduceL1", reduce::l1),
    ("ReduceL2", reduce::l2),
    ("ReduceLogSum", reduce::log_sum),
    ("ReduceLogSumExp", reduce::log_sum_exp),
    ("ReduceMax", |cx| reduce::reduce(cx, 18, |axes, keepdims| Op::ReduceMax { axes, keepdims })),
    ("ReduceMean", |cx| reduce::reduce(cx, 18, |axes, keepdims| Op::ReduceMean { axes, keepdims })),
    ("ReduceMin", |cx| reduce::reduce(cx, 18, |axes, keepdims| Op::ReduceMin { axes, keepdims })),
    ("ReduceProd", |cx| reduce::reduce(cx, 18, |axes, keepdims| Op::ReduceProd { axes, keepdims })),
    ("ReduceSum", |cx| reduce::reduce(cx, 13, |axes, keepdims| Op::ReduceSum { axes, keepdims })),
    ("ReduceSumSquare", reduce::sum_square),
    ("Relu", same),
    ("Reshape", shape::reshape),
    ("Resize", resize::resize),
    ("ReverseSequence", rearrange::reverse_sequence),
    ("RoiAlign", vision::roi_align),
    ("RotaryEmbedding", attention::rotary_embedding),
    ("Round", same),
    ("STFT", signal::stft),
    ("Scatter", rearrange::scatter_elements),
    ("ScatterElements", rearrange::scatter_elements),
    ("ScatterND", rearrange::scatter_nd),
    ("Selu", |cx| activation::of_one(cx, activation::selu)),
    ("Shape", same),
    ("Shrink", |cx| activation::of_one(cx, activation::shrink)),
    ("Sigmoid", same),
    ("Sign", same),
    ("Sin", same),
    ("Sinh", same),
    ("Size", shape::size),
    ("Slice", slice::slice),
    ("Softmax", |cx| normalise::softmax(cx, |axis| Op::Softmax { axis })),
    ("SoftmaxCrossEntropyLoss", loss::softmax_cross_entropy),
    ("Softplus", |cx| activation::of_one(cx, activation::softplus)),
    ("Softsign", |cx| activation::of_one(cx, activation::softsign)),
    ("SpaceToDepth", rearrange::space_to_depth),
    ("Split", slice::split),
    ("Sqrt", same),
    ("Squeeze", shape::squeeze),
    ("Sub", same),
    ("Sum", |cx| elementwise::chain(cx, &Op::Add {})),
    ("SwiGLU", activation::swiglu),
    ("Swish", |cx| activation::of_one(cx, activation::swish)),
    ("Tan", same),
    ("Tanh", same),
    ("TensorScatter", rearrange::tensor_scatter),
    ("TfIdfVectorizer", vectorise::tf_idf_vectorizer),
    ("ThresholdedRelu", |cx| activation::of_one(cx, activation::thresholded_relu)),
    ("Tile", rearrange::tile),
    ("TopK", reduce::top_k),
    ("Transpose", shape::transpose),
    ("Trilu", rearrange::trilu),
    ("Unique", selected::unique),
    ("Unsqueeze", shape::unsqueeze),
    ("Upsample", resize::upsample),
    ("Where", same),
    ("Xor", activation::xor),
];

/// Operators that draw their results by chance.
const RANDOM: &[&str] =
    &["Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"];

/// Why an operator will not be imported, if it is one of those.
pub(crate) fn refusal(domain: &str, op_type: &str) -> Option<&'static str> {
    let random = domain.is_empty() && RANDOM.contains(&op_type);
    random.then_some("results are random: of a compiled model they follow from its inputs")
}

/// The domain of the operators that ONNX Runtime's optimiser and exporters for it write.
pub(super) const MICROSOFT: &str = "com.microsoft";

/// Those operators, by name.
const CONTRIB: &[(&str, Rule)] = &[
    ("Attention", contrib_attention::attention),
    ("BiasGelu", contrib::bias_gelu),
    ("EmbedLayerNormalization", contrib::embed_layer_normalization),
    ("FastGelu", contrib::fast_gelu),
    ("FusedConv", contrib::fused_conv),
    ("FusedGemm", contrib::fused_gemm),
    ("FusedMatMul", contrib::fused_matmul),
    ("Gelu", elementwise::gelu),
    ("GroupQueryAttention", contrib_grouped::group_query_attention),
    ("MatMulNBits", weight_only::matmul_n_bits),
    ("MultiHeadAttention", contrib_attention::multi_head_attention),
    ("QuickGelu", contrib::quick_gelu),
    ("RotaryEmbedding", contrib_attention::rotary_embedding),
    ("SimplifiedLayerNormalization", normalise::rms_normalization),
    ("SkipLayerNormalization", contrib::skip_layer_normalization),
    ("SkipSimplifiedLayerNormalization", contrib::skip_rms_normalization),
];

/// The operators with graphs of their own, by domain and name.
const WITH_GRAPHS: [(&str, &str); 4] = [("", "If"), ("", "Loop"), ("", "Scan"), (PREVIEW, "FlexAttention")];

/// The domain of operators that ONNX tries out.
const PREVIEW: &str = "ai.onnx.preview";

/// Those of which at least a part is run by an evaluator, on the element types that they are for.
const HOST: &[&str] = &[
    "Acos",
    "Acosh",
    "Asin",
    "Asinh",
    "Atan",
    "Atanh",
    "BitCast",
    "BitShift",
    "BitwiseAnd",
    "BitwiseNot",
    "BitwiseOr",
    "BitwiseXor",
    "Col2Im",
    "ConvInteger",
    "Cosh",
    "CumProd",
    "DeformConv",
    "DequantizeLinear",
    "Det",
    "DynamicQuantizeLinear",
    "MatMulInteger",
    "MaxUnpool",
    "QLinearConv",
    "QLinearMatMul",
    "QuantizeLinear",
    "ReduceProd",
    "RoiAlign",
    "Scatter",
    "ScatterElements",
    "ScatterND",
    "Sinh",
    "Tan",
    "TensorScatter",
    "TopK",
];

/// Those of which some forms are run by an evaluator, and which.
const PARTLY: &[(&str, &str)] = &[
    ("Attention", "a softmax in f64"),
    ("AveragePool", "1-D and 3-D"),
    ("ConvTranspose", "3-D"),
    ("LpPool", "3-D"),
    ("MaxPool", "1-D and 3-D"),
    ("Mod", "of what are no sizes"),
    ("Pow", "of integers"),
    ("ReduceMax", "of truth values"),
    ("ReduceMin", "of truth values"),
];

/// Those whose results are as long as data decides, found by an evaluator.
const LATE: &[&str] = &["Compress", "NonMaxSuppression", "NonZero", "Unique"];

/// The opsets whose forms of the operators are known here; of older ones those operators are that have not
/// changed since.
pub const OPSETS: std::ops::RangeInclusive<i64> = 6..=28;

/// Operators that have not changed since opset 1 but for their element types.
const UNCHANGED: &[&str] = &["Identity", "Not", "Shape", "Size", "Transpose"];

/// How the CPU runs an operator, on the element types that loops compute with if it is for those.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cpu {
    /// All of it is compiled.
    Compiled,
    /// It is compiled but for these forms.
    Partly(&'static str),
    /// At least a part of it is run by an evaluator.
    Host,
    /// It is run by an evaluator, and data decides how long its results are.
    Late,
}

/// An ONNX operator that can be imported.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Operator {
    /// Its domain; empty for ONNX's own.
    pub domain: &'static str,
    /// Its name.
    pub name: &'static str,
    /// How it runs.
    pub cpu: Cpu,
}

/// Every ONNX operator that can be imported, by domain and name.
pub fn operators() -> Vec<Operator> {
    let with_graphs = |own: bool| WITH_GRAPHS.into_iter().filter(move |(domain, _)| domain.is_empty() == own);
    let mut names: Vec<&str> = RULES.iter().map(|(name, _)| *name).collect();
    names.extend(with_graphs(true).map(|(_, name)| name));
    names.sort_unstable();
    let partly = |name: &str| PARTLY.iter().find(|(n, _)| *n == name).map(|(_, forms)| Cpu::Partly(forms));
    let rest = |name: &str| match (HOST.contains(&name), LATE.contains(&name)) {
        (true, _) => Cpu::Host,
        (false, true) => Cpu::Late,
        (false, false) => Cpu::Compiled,
    };
    let own = names.into_iter().map(|name| (name, partly(name).unwrap_or_else(|| rest(name))));
    let own = own.map(|(name, cpu)| Operator { domain: "", name, cpu });
    let compiled = |domain: &'static str, name: &'static str| Operator { domain, name, cpu: Cpu::Compiled };
    let contrib = CONTRIB.iter().map(|(name, _)| compiled(MICROSOFT, name));
    own.chain(contrib).chain(with_graphs(false).map(|(domain, name)| compiled(domain, name))).collect()
}

fn rule(domain: &str, op_type: &str) -> Option<Rule> {
    // ONNX Runtime's optimiser writes this one of its operators into ONNX's own domain.
    let table = match domain {
        "" if op_type == "SimplifiedLayerNormalization" => CONTRIB,
        "" => RULES,
        MICROSOFT => CONTRIB,
        _ => return None,
    };
    let at = table.binary_search_by_key(&op_type, |(name, _)| name).ok()?;
    Some(table[at].1)
}

/// Whether there is a rule for the operator `op_type` of `domain`.
pub(crate) fn is_supported(domain: &str, op_type: &str) -> bool {
    WITH_GRAPHS.contains(&(domain, op_type)) || rule(domain, op_type).is_some()
}

/// Runs the rule of `op_type`; what it leaves unread of the node is refused.
pub(super) fn apply(domain: &str, op_type: &str, cx: &mut Cx) -> NodeResult<Vec<ValueId>> {
    let rule = rule(domain, op_type).ok_or_else(|| Refusal::new("it is not supported"))?;
    let first = *OPSETS.start();
    if cx.opset < first && !UNCHANGED.contains(&op_type) {
        return refuse(format!("its form of opset {} is not supported, {first} and later are", cx.opset));
    }
    let results = rule(cx)?;
    cx.nothing_left()?;
    Ok(results)
}

/// An operator whose name, operands and attributes are the same in the IR.
fn same(cx: &mut Cx) -> NodeResult<Vec<ValueId>> {
    let inputs = elementwise::broadcast_operands(cx)?;
    let attributes = cx.generic_attributes()?;
    let op = Op::from_attributes(cx.op_type(), &attributes).map_err(|e| Refusal::new(e.to_string()))?;
    Ok(vec![cx.emit(op, &inputs)?])
}

#[cfg(test)]
mod tests {
    use super::{CONTRIB, RULES};

    #[test]
    fn rules_are_sorted_by_name() {
        for rules in [RULES, CONTRIB] {
            assert!(rules.is_sorted_by(|a, b| a.0 < b.0));
        }
    }
}
