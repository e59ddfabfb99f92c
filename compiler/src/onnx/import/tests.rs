//! Forms of operators that the shared models do not use: older opsets, branches, declarations.

mod limits;
mod loops;
mod sizes;

use eec_ir::{DType, Graph, Tensor, Type};
use prost::Message;

use super::super::error::{ImportError, ImportErrorKind};
use super::super::proto::{
    AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto, ValueInfoProto, attribute_type,
};
use super::super::tensor::{encode, value_info};
use super::import_bytes;

type Outcome<T = ()> = Result<T, Box<dyn std::error::Error>>;

fn node(op: &str, inputs: &[&str], outputs: &[&str], attribute: Vec<AttributeProto>) -> NodeProto {
    let names = |list: &[&str]| list.iter().map(|n| (*n).to_string()).collect();
    NodeProto {
        op_type: op.into(),
        name: format!("the {op}"),
        input: names(inputs),
        output: names(outputs),
        attribute,
        ..NodeProto::default()
    }
}

fn attribute(name: &str, kind: i32) -> AttributeProto {
    AttributeProto { name: name.into(), r#type: kind, ..AttributeProto::default() }
}

fn int(name: &str, i: i64) -> AttributeProto {
    AttributeProto { i: Some(i), ..attribute(name, attribute_type::INT) }
}

fn ints(name: &str, values: &[i64]) -> AttributeProto {
    AttributeProto { ints: values.to_vec(), ..attribute(name, attribute_type::INTS) }
}

fn float(name: &str, f: f32) -> AttributeProto {
    AttributeProto { f: Some(f), ..attribute(name, attribute_type::FLOAT) }
}

fn word(name: &str, s: &str) -> AttributeProto {
    AttributeProto { s: Some(s.as_bytes().to_vec()), ..attribute(name, attribute_type::STRING) }
}

fn branch(name: &str, node: Vec<NodeProto>, result: &str) -> AttributeProto {
    let output = vec![ValueInfoProto { name: result.into(), r#type: None }];
    AttributeProto {
        g: Some(GraphProto { node, output, ..Default::default() }),
        ..attribute(name, attribute_type::GRAPH)
    }
}

/// A graph with the input `x: f32[n, 3, 2]`, these nodes, and the outputs named.
fn graph(nodes: Vec<NodeProto>, initializer: Vec<TensorProto>, outputs: &[&str]) -> GraphProto {
    let x = Type::new(DType::F32, [eec_ir::Dim::symbol("n"), 3.into(), 2.into()]);
    let output = outputs.iter().map(|o| ValueInfoProto { name: (*o).into(), r#type: None }).collect();
    GraphProto { node: nodes, initializer, input: vec![value_info("x", &x)], output, ..GraphProto::default() }
}

fn read(graph: GraphProto, opset: i64) -> Result<Graph, ImportError> {
    let opset_import = vec![OperatorSetIdProto { domain: "ai.onnx".into(), version: opset }];
    let model = ModelProto { ir_version: 4, graph: Some(graph), opset_import, ..ModelProto::default() };
    import_bytes(&model.encode_to_vec(), "m", None)
}

fn x() -> Outcome<Tensor> {
    Ok(Tensor::new(&[2, 3, 2], (0..12).map(|i| (i * i % 7) as f32 - 2.0).collect())?)
}

/// The outputs for `x` of a model with these nodes.
fn outputs(nodes: Vec<NodeProto>, opset: i64, names: &[&str]) -> Outcome<Vec<Tensor>> {
    let graph = read(graph(nodes, vec![], names), opset)?;
    Ok(eec_ir::eval::evaluate(&graph, &[x()?])?)
}

fn floats(tensor: &Tensor) -> Vec<f32> {
    tensor.elements::<f32>().map(|v| v.into_owned()).unwrap_or_default()
}

fn refusal(nodes: Vec<NodeProto>, opset: i64) -> String {
    read(graph(nodes, vec![], &["y"]), opset).err().map(|e| e.to_string()).unwrap_or_default()
}

#[test]
fn softmax_before_opset_13_runs_over_all_later_dims() -> Outcome {
    let nodes = |opset| outputs(vec![node("Softmax", &["x"], &["y"], vec![int("axis", 1)])], opset, &["y"]);
    let sums = |t: &Tensor, size: usize| floats(t).chunks(size).map(|c| c.iter().sum::<f32>()).collect::<Vec<_>>();
    let old = nodes(12)?;
    assert_eq!(old[0].dims(), [2, 3, 2]);
    assert!(sums(&old[0], 6).iter().all(|s| (s - 1.0).abs() < 1e-5));
    assert!(sums(&nodes(13)?[0], 6).iter().all(|s| (s - 2.0).abs() < 1e-5));
    Ok(())
}

#[test]
fn attributes_of_older_opsets_mean_what_operands_mean_today() -> Outcome {
    let slice =
        node("Slice", &["x"], &["s"], vec![ints("starts", &[-2, 0]), ints("ends", &[9, 1]), ints("axes", &[1, 2])]);
    let clip = node("Clip", &["s"], &["c"], vec![float("min", -1.0), float("max", 1.5)]);
    let pad = node("Pad", &["c"], &["p"], vec![ints("pads", &[0, 1, 0, 0, 0, 2]), float("value", 9.0)]);
    let sum = node("ReduceSum", &["p"], &["r"], vec![ints("axes", &[-1]), int("keepdims", 0)]);
    let grown = node("Unsqueeze", &["r"], &["u"], vec![ints("axes", &[0, 3])]);
    let same = node("Squeeze", &["u"], &["q"], vec![ints("axes", &[0, 3])]);
    let split = node("Split", &["q"], &["a", "b"], vec![int("axis", 1), ints("split", &[1, 2])]);
    let found = outputs(vec![slice, clip, pad, sum, grown, same, split], 8, &["a", "b"])?;
    // The first row of each sample is padding, three times 9; the others have 9 twice beside x[:, 1:, 0].
    assert_eq!(floats(&found[0]), [27.0, 27.0]);
    let inner: Vec<f32> = [2, 4, 8, 10].iter().map(|i| (((i * i) % 7) as f32 - 2.0).clamp(-1.0, 1.5) + 18.0).collect();
    assert_eq!((found[1].dims(), floats(&found[1])), (&[2, 2][..], inner));
    Ok(())
}

#[test]
fn a_known_condition_leaves_one_branch() -> Outcome {
    let rank = node("Shape", &["x"], &["shape"], vec![]);
    let size = node("Size", &["shape"], &["rank"], vec![]);
    let zero = node("Constant", &[], &["three"], vec![int("value_int", 3)]);
    let test = node("Equal", &["rank", "three"], &["is3"], vec![]);
    let then = branch("then_branch", vec![node("Neg", &["x"], &["t"], vec![])], "t");
    let bad = node("Gather", &["x", "x"], &["e"], vec![]);
    let choose = node("If", &["is3"], &["y"], vec![then, branch("else_branch", vec![bad], "e")]);
    let found = outputs(vec![rank, size, zero, test, choose], 17, &["y"])?;
    let negated: Vec<f32> = floats(&x()?).iter().map(|v| -v).collect();
    assert_eq!(floats(&found[0]), negated);
    Ok(())
}

#[test]
fn initializers_that_are_inputs_too_are_constants() -> Outcome {
    let w = Tensor::new(&[2], vec![3.0f32, -1.0])?;
    let mut proto = graph(vec![node("Mul", &["x", "w"], &["y"], vec![])], vec![encode(&w, "w")], &["y"]);
    proto.input.push(value_info("w", &w.ty()));
    let graph = read(proto, 9)?;
    assert_eq!(graph.inputs().len(), 1);
    assert_eq!(floats(&eec_ir::eval::evaluate(&graph, &[x()?])?[0])[..2], [-6.0, 1.0]);
    Ok(())
}

#[test]
fn what_cannot_be_known_or_is_contradicted_is_refused() {
    let shape = node("Cast", &["x"], &["i"], vec![int("to", 7)]);
    let flat = node("Reshape", &["i", "flat"], &["v"], vec![]);
    let one = node("Constant", &[], &["flat"], vec![ints("value_ints", &[-1])]);
    let late = node("Reshape", &["x", "v"], &["y"], vec![]);
    let message = refusal(vec![one, shape, flat, late], 13);
    assert_eq!(message, "m: node `the Reshape` (Reshape): the target shape depends on data");

    let early = refusal(vec![node("Neg", &["z"], &["y"], vec![])], 13);
    assert_eq!(early, "m: node `the Neg` (Neg): `z` is used before it is defined");
    let twice = refusal(vec![node("Neg", &["x"], &["y"], vec![]), node("Abs", &["x"], &["y"], vec![])], 13);
    assert_eq!(twice, "m: node `the Abs` (Abs): `y` is defined twice");
    let axes = refusal(vec![node("Squeeze", &["x"], &["y"], vec![ints("axes", &[1])])], 12);
    assert_eq!(axes, "m: node `the Squeeze` (Squeeze): dim 1 is 3, not 1");
    assert_eq!(refusal(vec![], 29), "m: the model uses opset 29; 6 to 28 are supported");

    let mut proto = graph(vec![node("Neg", &["x"], &["y"], vec![])], vec![], &[]);
    proto.output.push(value_info("y", &Type::new(DType::F32, [eec_ir::Dim::symbol("n"), 4.into(), 2.into()])));
    let error = read(proto, 13).err();
    assert!(error.as_ref().is_some_and(|e| matches!(e.kind(), ImportErrorKind::Contradiction { .. })));
    assert_eq!(error.and_then(|e| e.node_path().map(str::to_string)).as_deref(), Some("node `the Neg` (Neg)"));
}

#[test]
fn results_that_are_random_are_refused_as_such() {
    let random = refusal(vec![node("RandomNormalLike", &["x"], &["y"], vec![])], 22);
    let reason = "results are random: of a compiled model they follow from its inputs";
    assert_eq!(random, format!("m: unsupported operators: RandomNormalLike (×1; {reason})"));
    let training = node("Constant", &[], &["training"], vec![int("value_int", 1)]);
    let dropped = refusal(vec![training, node("Dropout", &["x", "", "training"], &["y"], vec![])], 22);
    assert!(dropped.contains("results are random: in training mode"), "{dropped}");
}

#[test]
fn operators_of_detection_in_wrong_forms_are_refused() {
    let flat = |name: &str| node("Constant", &[], &[name], vec![ints("value_ints", &[1])]);
    let roi_align = |attributes| vec![flat("i"), node("RoiAlign", &["x", "x", "i"], &["y"], attributes)];
    let at = "m: node `the RoiAlign` (RoiAlign)";
    let mode = refusal(roi_align(vec![word("mode", "sum")]), 16);
    assert_eq!(mode, format!("{at}: `mode` = `sum` is not known"));
    let rank = refusal(roi_align(vec![word("coordinate_transformation_mode", "half_pixel")]), 16);
    assert_eq!(rank, format!("{at}: RoiAlign: operand 0 must have 4 dims, found f32[n, 3, 2]"));
    let det = refusal(vec![node("Det", &["x"], &["y"], vec![])], 22);
    assert_eq!(det, "m: node `the Det` (Det): Det: the matrices of f32[n, 3, 2] are not square: 3 is not 2");
    let deform_conv = refusal(vec![node("DeformConv", &["x", "x", "x"], &["y"], vec![])], 22);
    assert!(deform_conv.starts_with("m: node `the DeformConv` (DeformConv): "), "{deform_conv}");
}

#[test]
fn errors_inside_branches_name_the_way_to_them() {
    let flag = node("Cast", &["x"], &["b"], vec![int("to", 9)]);
    let one = node("ReduceMax", &["x"], &["m"], vec![int("keepdims", 0)]);
    let test = node("Cast", &["m"], &["flag"], vec![int("to", 9)]);
    let bad = node("Gather", &["x", "x"], &["e"], vec![]);
    let then = branch("then_branch", vec![node("Neg", &["x"], &["t"], vec![])], "t");
    let choose = node("If", &["flag"], &["y"], vec![then, branch("else_branch", vec![bad], "e")]);
    let message = refusal(vec![flag, one, test, choose], 13);
    assert!(message.starts_with("m: node `the If` (If) / else branch / node `the Gather` (Gather): "), "{message}");
}

#[test]
fn errors_in_a_branch_or_between_branches_name_what_chooses() -> Outcome {
    let refused = |op: &str, operands: &[&str]| -> Outcome<String> {
        let then = branch("then_branch", vec![node("Neg", &["x"], &["t"], vec![])], "t");
        let other = branch("else_branch", vec![node(op, operands, &["e"], vec![])], "e");
        let mut proto = graph(vec![node("If", &["c"], &["y"], vec![then, other])], vec![], &["y"]);
        proto.input.push(value_info("c", &Tensor::scalar(1u8).ty()));
        Ok(read(proto, 17).err().map(|e| e.to_string()).unwrap_or_default())
    };
    let by = "by the inputs `c`, of which `--fix` makes constants";
    let inside = refused("Gather", &["x", "x"])?;
    assert!(
        inside.contains("node `the Gather` (Gather): ")
            && inside.ends_with(&format!("; in a branch that is chosen {by}")),
        "{inside}"
    );
    let between = refused("Shape", &["x"])?;
    assert!(
        between.contains("must have one element type") && between.ends_with(&format!("; decided {by}")),
        "{between}"
    );
    assert_eq!(refused("Exp", &["x"])?, "");
    let rows = node("Shape", &["x"], &["rows"], vec![int("start", 0), int("end", 1)]);
    let one = node("Constant", &[], &["one"], vec![ints("value_ints", &[1])]);
    let alone = node("Equal", &["rows", "one"], &["alone"], vec![]);
    let then = branch("then_branch", vec![node("Neg", &["x"], &["t"], vec![])], "t");
    let other = branch("else_branch", vec![node("Shape", &["x"], &["e"], vec![])], "e");
    let sized = refusal(vec![rows, one, alone, node("If", &["alone"], &["y"], vec![then, other])], 17);
    assert!(sized.ends_with("; decided by the sizes `n`, of which `--fix-dim` makes constants"), "{sized}");
    Ok(())
}
