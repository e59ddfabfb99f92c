//! One node in its ONNX form.

use eec_ir::graph::{Node, Origin};
use eec_ir::{DType, Dim, NodeId, Op, Precision, Tensor, ValueId};

use super::super::error::ExportError;
use super::super::proto::{AttributeProto, GraphProto, NodeProto, StringStringEntryProto, attribute_type};
use super::super::tensor::onnx_type;
use super::{Exporter, OPSET};

/// The pass that helper nodes are marked with.
const EXPORT: &str = "eec-export";

/// The metadata key under which a node carries the pass that inserted it.
const PASS_KEY: &str = "eec.pass";

/// ONNX's number of bfloat16.
const BFLOAT16: i64 = 16;

/// An ONNX operator with operands and attributes, about to become a node.
type Form = (&'static str, Vec<String>, Vec<AttributeProto>);

impl Exporter<'_> {
    /// Writes a node; its results get their names.
    pub(super) fn export_node(&mut self, id: NodeId) -> Result<(), ExportError> {
        let graph = self.graph;
        let node = graph.node(id);
        self.enter(node.op.name(), &node.origin);
        match &node.op {
            Op::If { .. } => self.export_if(node),
            Op::Route { .. } => self.export_route(node),
            Op::Loop { trips } => self.export_loop(node, trips),
            Op::LateSize { size, most } => self.export_late_size(node, size, most),
            Op::NonZero {} => self.export_non_zero(node),
            Op::Unique { axis, sorted } => self.export_unique(node, *axis, *sorted),
            Op::NonMaxSuppression { .. } => self.export_boxes(node),
            Op::Sizes { values } => {
                let name = self.sizes(values)?;
                self.alias(node.outputs[0], &name);
                Ok(())
            }
            _ => {
                let (op, inputs, attributes) = self.form(node)?;
                self.write_node(op, inputs, attributes, &node.origin, &node.outputs);
                Ok(())
            }
        }
    }

    /// Makes `value` another name of what is already called `name`; a result of the graph that has
    /// a name of its own gets it by a copy.
    pub(super) fn alias(&mut self, value: ValueId, name: &str) {
        match self.value_names.get(&value).cloned() {
            Some(own) => self.helper_as("Identity", &[name], Vec::new(), &own),
            None => self.note_value(value, name.to_string()),
        }
    }

    /// Appends a node of the source model or of a pass.
    pub(super) fn write_node(
        &mut self,
        op: &str,
        input: Vec<String>,
        attribute: Vec<AttributeProto>,
        origin: &Origin,
        results: &[ValueId],
    ) {
        self.write_node_and(op, input, attribute, origin, results, &[]);
    }

    /// Like [`Exporter::write_node`], with results after those of the graph that only the file has.
    pub(super) fn write_node_and(
        &mut self,
        op: &str,
        input: Vec<String>,
        attribute: Vec<AttributeProto>,
        origin: &Origin,
        results: &[ValueId],
        more: &[String],
    ) {
        let mut output = Vec::with_capacity(results.len());
        for value in results {
            let name = self.value_name(*value);
            self.note_value(*value, name.clone());
            output.push(name);
        }
        output.extend_from_slice(more);
        let current = self.current.clone();
        // The first node stands for the source node; what else came of it is in no source model.
        let extra = self.used_nodes.contains(&current).then_some(EXPORT);
        self.append(op, input, output, attribute, origin.pass.as_deref().or(extra), &current);
    }

    /// Appends one of the two `If`s of a `Route`.
    pub(super) fn write_if(
        &mut self,
        condition: &str,
        branches: Vec<AttributeProto>,
        node: &Node,
        output: Vec<String>,
    ) {
        let pass = node.origin.pass.as_deref().unwrap_or(EXPORT);
        let name = self.current.clone();
        self.append("If", vec![condition.to_string()], output, branches, Some(pass), &name);
    }

    /// Appends a node that only ONNX's form needs; returns its result's name.
    pub(super) fn helper(&mut self, op: &str, inputs: &[&str], attributes: Vec<AttributeProto>) -> String {
        let name = self.used_values.unique(&format!("{}/{op}", self.current));
        self.helper_as(op, inputs, attributes, &name);
        name
    }

    /// Like [`Exporter::helper`], for a node with several results.
    pub(super) fn helper_with_results<const N: usize>(
        &mut self,
        op: &str,
        inputs: &[&str],
        attributes: Vec<AttributeProto>,
    ) -> [String; N] {
        let names = [(); N].map(|()| self.used_values.unique(&format!("{}/{op}", self.current)));
        let inputs = inputs.iter().map(|i| (*i).to_string()).collect();
        let name = format!("{}/{op}", self.current);
        self.append(op, inputs, names.to_vec(), attributes, Some(EXPORT), &name);
        names
    }

    /// Like [`Exporter::helper`], with the name of the result given.
    pub(super) fn helper_as(&mut self, op: &str, inputs: &[&str], attributes: Vec<AttributeProto>, output: &str) {
        let inputs = inputs.iter().map(|i| (*i).to_string()).collect();
        let name = format!("{}/{op}", self.current);
        self.append(op, inputs, vec![output.to_string()], attributes, Some(EXPORT), &name);
    }

    fn append(
        &mut self,
        op: &str,
        input: Vec<String>,
        output: Vec<String>,
        attribute: Vec<AttributeProto>,
        pass: Option<&str>,
        name: &str,
    ) {
        let entry = |p: &str| StringStringEntryProto { key: PASS_KEY.into(), value: p.into() };
        let metadata_props = pass.map(entry).into_iter().collect();
        let name = self.used_nodes.unique(name);
        self.push_node(NodeProto {
            input,
            output,
            name,
            op_type: op.into(),
            attribute,
            metadata_props,
            ..NodeProto::default()
        });
    }

    fn form(&mut self, node: &Node) -> Result<Form, ExportError> {
        let op = node.op.name();
        let mut inputs: Vec<String> = node.inputs.iter().map(|v| self.value_name(*v)).collect();
        if node.op.weights() == Precision::Bf16 {
            // The weights are rounded already.
            let rounded = self.helper("Cast", &[&inputs[0]], vec![int("to", BFLOAT16)]);
            inputs[0] = self.helper("Cast", &[&rounded], vec![int("to", onnx_type(DType::F32).into())]);
        }
        let attributes = match &node.op {
            Op::Neg {} | Op::Abs {} | Op::Sqrt {} | Op::Reciprocal {} | Op::Exp {} | Op::Log {} => vec![],
            Op::Sin {} | Op::Cos {} | Op::Tanh {} | Op::Erf {} | Op::Sigmoid {} | Op::Relu {} => vec![],
            Op::Not {} | Op::IsNaN {} | Op::Where {} | Op::MatMul { .. } => vec![],
            Op::Add {} | Op::Sub {} | Op::Mul {} | Op::Div {} | Op::Pow {} | Op::Max {} | Op::Min {} => vec![],
            Op::And {} | Op::Or {} | Op::Equal {} | Op::Less {} | Op::LessOrEqual {} => vec![],
            Op::Greater {} | Op::GreaterOrEqual {} => vec![],
            Op::Floor {} | Op::Ceil {} | Op::Round {} | Op::Sign {} | Op::Tan {} | Op::Asin {} | Op::Acos {} => vec![],
            Op::Atan {} | Op::Sinh {} | Op::Cosh {} | Op::Asinh {} | Op::Acosh {} | Op::Atanh {} => vec![],
            Op::BitwiseNot {} | Op::Det {} => vec![],
            Op::BitwiseAnd {} | Op::BitwiseOr {} | Op::BitwiseXor {} => vec![],
            Op::Mod { fmod } => vec![int("fmod", i64::from(*fmod))],
            Op::BitShift { right } => vec![word("direction", if *right { "RIGHT" } else { "LEFT" })],
            Op::ScatterElements { axis, reduction } => vec![int("axis", *axis), word("reduction", reduction.word())],
            Op::ScatterND { reduction } => vec![word("reduction", reduction.word())],
            Op::TopK { axis, k, largest } => {
                inputs.push(self.sizes(std::slice::from_ref(k))?);
                vec![int("axis", *axis), int("largest", i64::from(*largest))]
            }
            Op::CastUnsaturated { to } => {
                return Ok(("Cast", inputs, vec![int("to", onnx_type(*to).into()), int("saturate", 0)]));
            }
            Op::Gelu { tanh } => vec![word("approximate", if *tanh { "tanh" } else { "none" })],
            Op::Cast { to } => vec![int("to", onnx_type(*to).into())],
            Op::Clip { min, max } => {
                let bound = |this: &mut Self, b: f32| {
                    if b.is_finite() { this.tensor_name(&Tensor::scalar(b)) } else { String::new() }
                };
                inputs.extend([bound(self, *min), bound(self, *max)]);
                vec![]
            }
            Op::Gemm { alpha, beta, trans_a, trans_b, .. } => vec![
                float("alpha", *alpha),
                float("beta", *beta),
                int("transA", i64::from(*trans_a)),
                int("transB", i64::from(*trans_b)),
            ],
            Op::Conv { .. } | Op::DeformConv { .. } | Op::MaxPool { .. } | Op::AveragePool { .. } => {
                window_attributes(&node.op)
            }
            Op::RoiAlign { output_height, output_width, sampling_ratio, spatial_scale, max, half_pixel } => {
                let coordinates = if *half_pixel { "half_pixel" } else { "output_half_pixel" };
                vec![
                    int("output_height", *output_height),
                    int("output_width", *output_width),
                    int("sampling_ratio", *sampling_ratio),
                    float("spatial_scale", *spatial_scale),
                    word("mode", if *max { "max" } else { "avg" }),
                    word("coordinate_transformation_mode", coordinates),
                ]
            }
            Op::Softmax { axis } | Op::LogSoftmax { axis } | Op::Concat { axis } => vec![int("axis", *axis)],
            Op::Gather { axis } | Op::GatherElements { axis } => vec![int("axis", *axis)],
            Op::GatherND { batch_dims } => vec![int("batch_dims", *batch_dims)],
            Op::LayerNormalization { axis, epsilon } => vec![int("axis", *axis), float("epsilon", *epsilon)],
            Op::ReduceSum { axes, keepdims }
            | Op::ReduceMean { axes, keepdims }
            | Op::ReduceProd { axes, keepdims }
            | Op::ReduceMax { axes, keepdims }
            | Op::ReduceMin { axes, keepdims } => {
                inputs.push(self.ints(axes.clone()));
                vec![int("keepdims", i64::from(*keepdims)), int("noop_with_empty_axes", 1)]
            }
            Op::ArgMax { axis, keepdims } => vec![int("axis", *axis), int("keepdims", i64::from(*keepdims))],
            Op::CumSum { axis, exclusive, reverse } => {
                inputs.push(self.tensor_name(&Tensor::scalar(*axis)));
                vec![int("exclusive", i64::from(*exclusive)), int("reverse", i64::from(*reverse))]
            }
            Op::Transpose { perm } => vec![ints("perm", perm.clone())],
            Op::Shape { start, end } if *end == i64::MAX => vec![int("start", *start)],
            Op::Shape { start, end } => vec![int("start", *start), int("end", *end)],
            Op::Reshape { dims } => {
                let from = self.graph.ty(node.inputs[0]).dims.clone();
                let (shape, allow_zero) = self.reshape_target(&from, dims)?;
                inputs.push(shape);
                if allow_zero { vec![int("allowzero", 1)] } else { vec![] }
            }
            Op::Expand { dims } => {
                let from = self.graph.ty(node.inputs[0]).dims.clone();
                inputs.push(self.expand_target(&from, dims)?);
                vec![]
            }
            Op::Slice { axes, starts, ends, steps } => {
                let from = self.graph.ty(node.inputs[0]).dims.clone();
                let (starts, ends) = slice_bounds(&from, axes, (starts, ends), steps);
                inputs.extend([self.sizes(&starts)?, self.sizes(&ends)?]);
                inputs.extend([self.ints(axes.clone()), self.ints(steps.clone())]);
                vec![]
            }
            Op::Pad { pads } => {
                let pads = self.sizes(pads)?;
                inputs.insert(1, pads);
                vec![]
            }
            Op::Range { start, limit, delta } => {
                inputs.extend([self.scalar_size(start)?, self.scalar_size(limit)?]);
                inputs.push(self.scalar_size(&(*delta).into())?);
                vec![]
            }
            Op::BitCast { .. } | Op::CumProd { .. } => {
                let reason = format!("opset {OPSET} has no {op}");
                return Err(ExportError::Node { node: self.current.clone(), reason });
            }
            Op::Sizes { .. }
            | Op::If { .. }
            | Op::Route { .. }
            | Op::Loop { .. }
            | Op::LateSize { .. }
            | Op::NonZero {}
            | Op::Unique { .. }
            | Op::NonMaxSuppression { .. } => {
                let reason = "has no form as a single ONNX node".to_string();
                return Err(ExportError::Node { node: self.current.clone(), reason });
            }
        };
        Ok((op, inputs, attributes))
    }

    /// The target shape of a `Reshape`, and whether its zeros are zeros. Dims that stay where they
    /// are are written as 0 and one other symbolic dim as -1, which spares computing them.
    fn reshape_target(&mut self, from: &[Dim], to: &[Dim]) -> Result<(String, bool), ExportError> {
        let mut target = Vec::with_capacity(to.len());
        let (mut open, mut kept) = (0, Vec::new());
        for (i, dim) in to.iter().enumerate() {
            target.push(match dim.as_const() {
                Some(c) => c,
                None if from.get(i) == Some(dim) => {
                    kept.push(dim);
                    0
                }
                None => {
                    open += 1;
                    -1
                }
            });
        }
        let no_zero = !to.iter().any(|d| d.as_const() == Some(0));
        // -1 cannot be resolved beside a dim that is 0 at run time, as a cache's length may be.
        if no_zero && (open == 0 || (open == 1 && kept.iter().all(|d| self.is_row_count(d)))) {
            return Ok((self.ints(target), false));
        }
        Ok((self.sizes(to)?, true))
    }

    /// Whether `dim` counts rows: the first dim of an input, or the rows of a branch that runs only
    /// if there are any.
    fn is_row_count(&self, dim: &Dim) -> bool {
        let graph = self.graph;
        graph.inputs().iter().any(|v| graph.ty(*v).dims.first() == Some(dim))
            || self.scopes.iter().any(|s| s.rows.is_some() && s.rows.as_ref() == dim.as_symbol())
    }

    /// The target shape of an `Expand`; dims that the operand already has are written as 1.
    fn expand_target(&mut self, from: &[Dim], to: &[Dim]) -> Result<String, ExportError> {
        let lead = to.len().saturating_sub(from.len());
        let has = |i: usize, d: &Dim| i >= lead && from.get(i - lead) == Some(d);
        let target: Vec<Dim> =
            to.iter().enumerate().map(|(i, d)| if has(i, d) { 1.into() } else { d.clone() }).collect();
        self.sizes(&target)
    }
}

/// Slice bounds in ONNX's notation: the end of a dim is the largest integer, the position before its
/// start the smallest, because -1 is its last element there.
fn slice_bounds(from: &[Dim], axes: &[i64], (starts, ends): (&[Dim], &[Dim]), steps: &[i64]) -> (Vec<Dim>, Vec<Dim>) {
    let dim = |axis: &i64| usize::try_from(*axis).ok().and_then(|a| from.get(a));
    let start = |(s, axis): (&Dim, &i64)| match dim(axis).map(|d| s - d).and_then(|back| back.as_const()) {
        Some(back) if back < 0 && s.as_const().is_none() => back.into(),
        _ => s.clone(),
    };
    let end = |((e, axis), step): ((&Dim, &i64), &i64)| match *step > 0 {
        true if dim(axis) == Some(e) => i64::MAX.into(),
        false if e.as_const() == Some(-1) => i64::MIN.into(),
        _ => e.clone(),
    };
    (starts.iter().zip(axes).map(start).collect(), ends.iter().zip(axes).zip(steps).map(end).collect())
}

fn window_attributes(op: &Op) -> Vec<AttributeProto> {
    let onnx_name = |name| match name {
        "kernel" => "kernel_shape",
        other => other,
    };
    let attribute = |(name, value)| match value {
        eec_ir::attr::AttrValue::Int(i) => Some(int(onnx_name(name), i)),
        eec_ir::attr::AttrValue::Ints(v) => Some(ints(onnx_name(name), v)),
        _ => None,
    };
    op.attributes().into_iter().filter_map(attribute).collect()
}

fn attribute(name: &str, kind: i32) -> AttributeProto {
    AttributeProto { name: name.into(), r#type: kind, ..AttributeProto::default() }
}

/// An integer attribute.
pub(super) fn int(name: &str, value: i64) -> AttributeProto {
    AttributeProto { i: Some(value), ..attribute(name, attribute_type::INT) }
}

/// An attribute that is a list of integers.
fn ints(name: &str, values: Vec<i64>) -> AttributeProto {
    AttributeProto { ints: values, ..attribute(name, attribute_type::INTS) }
}

fn float(name: &str, value: f32) -> AttributeProto {
    AttributeProto { f: Some(value), ..attribute(name, attribute_type::FLOAT) }
}

fn word(name: &str, value: &str) -> AttributeProto {
    AttributeProto { s: Some(value.as_bytes().to_vec()), ..attribute(name, attribute_type::STRING) }
}

/// An attribute that is a tensor.
pub(super) fn tensor(name: &str, value: super::TensorProto) -> AttributeProto {
    AttributeProto { t: Some(value), ..attribute(name, attribute_type::TENSOR) }
}

/// An attribute that is a graph.
pub(super) fn subgraph(name: &str, value: GraphProto) -> AttributeProto {
    AttributeProto { g: Some(value), ..attribute(name, attribute_type::GRAPH) }
}
