//! Limits of an import, and functions.

use super::super::super::proto::FunctionProto;
use super::super::{ImportOptions, Limits, import_bytes_with};
use super::*;

/// What the model with these nodes makes of tight limits.
fn refusal_under(nodes: Vec<NodeProto>, limits: Limits) -> String {
    let options = ImportOptions { limits, ..ImportOptions::default() };
    let model = ModelProto {
        ir_version: 4,
        graph: Some(graph(nodes, vec![], &["y"])),
        opset_import: vec![OperatorSetIdProto { domain: String::new(), version: 20 }],
        ..ModelProto::default()
    };
    import_bytes_with(&model.encode_to_vec(), "m", None, &options).err().map(|e| e.to_string()).unwrap_or_default()
}

/// A loop of `count` steps, each of them three nodes of which one makes none, that gives `y`.
fn counted(count: i64) -> Vec<NodeProto> {
    repeated(count, ["Neg", "Exp"])
}

/// A loop of `count` steps of two nodes and an `Identity`.
fn repeated(count: i64, ops: [&str; 2]) -> Vec<NodeProto> {
    let input = |name: &str| ValueInfoProto { name: name.into(), r#type: None };
    let body = GraphProto {
        node: vec![
            node(ops[0], &["v"], &["h"], vec![]),
            node(ops[1], &["h"], &["w"], vec![]),
            node("Identity", &["c"], &["d"], vec![]),
        ],
        input: ["i", "c", "v"].map(input).to_vec(),
        output: ["d", "w"].map(input).to_vec(),
        ..GraphProto::default()
    };
    let body = AttributeProto { g: Some(body), ..attribute("body", attribute_type::GRAPH) };
    vec![
        node("Constant", &[], &["m"], vec![int("value_int", count)]),
        node("Loop", &["m", "", "x"], &["y"], vec![body]),
    ]
}

#[test]
fn what_a_file_may_ask_for_is_bounded() -> Outcome {
    let limits = Limits { nodes: 26, steps: 8, depth: 2, constant_bytes: 100, ..Limits::default() };
    assert_eq!(refusal_under(counted(8), limits), "");
    // Beyond the limit they are counted while the model runs; so many would not end.
    assert_eq!(refusal_under(counted(9), limits), "");
    let steps = refusal_under(counted(1 << 30), limits);
    assert_eq!(steps, "m: node `the Loop` (Loop) / body: takes more steps than the limit `steps`, 8");
    let nodes = refusal_under(counted(8), Limits { nodes: 9, ..limits });
    assert!(nodes.contains("more nodes than the limit `nodes`, 9"), "{nodes}");
    let forever = refusal_under(counted(i64::MAX), Limits { nodes: 9, steps: usize::MAX, ..limits });
    assert!(forever.contains("the limit `nodes`, 9"), "{forever}");
    let idle = refusal_under(repeated(8, ["Identity"; 2]), Limits { nodes: 9, ..limits });
    assert!(idle.contains("more nodes than the limit `nodes`, 9"), "{idle}");
    let size = node("Constant", &[], &["n"], vec![int("value_int", 1 << 20)]);
    let window = node("HannWindow", &["n"], &["y"], vec![]);
    let bytes = refusal_under(vec![size, window], limits);
    assert!(bytes.contains("more bytes than the limit `constant-bytes`, 100"), "{bytes}");
    let rank = refusal_under(vec![node("Neg", &["x"], &["y"], vec![])], Limits { rank: 2, ..limits });
    assert_eq!(rank, "m: input `x` has more dims than the limit `rank`, 2");

    let flag = node("ReduceMax", &["x"], &["r"], vec![int("keepdims", 0)]);
    let test = node("Cast", &["r"], &["flag"], vec![int("to", 9)]);
    let mut inner = vec![node("Neg", &["x"], &["t"], vec![])];
    for _ in 0..3 {
        let other = branch("else_branch", vec![node("Abs", &["x"], &["e"], vec![])], "e");
        inner = vec![node("If", &["flag"], &["t"], vec![branch("then_branch", inner, "t"), other])];
    }
    let nested = [flag, test].into_iter().chain(inner).chain([node("Exp", &["t"], &["y"], vec![])]).collect::<Vec<_>>();
    let depth = refusal_under(nested.clone(), limits);
    assert!(depth.contains("deeper than the limit `depth`, 2"), "{depth}");
    assert_eq!(refusal_under(nested, Limits { depth: 3, ..limits }), "");
    Ok(())
}

#[test]
fn functions_that_call_themselves_or_are_called_wrongly_are_refused() {
    let function = |name: &str, node: Vec<NodeProto>| FunctionProto {
        name: name.into(),
        domain: "own".into(),
        input: vec!["a".into()],
        output: vec!["b".into()],
        node,
        opset_import: vec![OperatorSetIdProto { domain: String::new(), version: 17 }],
        ..FunctionProto::default()
    };
    let call = |name: &str, inputs: &[&str], output: &str| NodeProto {
        domain: "own".into(),
        ..node(name, inputs, &[output], vec![])
    };
    let refused = |nodes: Vec<NodeProto>, functions: Vec<FunctionProto>| {
        let opset_import = vec![OperatorSetIdProto { domain: String::new(), version: 17 }];
        let graph = Some(graph(nodes, vec![], &["y"]));
        let model = ModelProto { ir_version: 8, graph, opset_import, functions, ..ModelProto::default() };
        let read = import_bytes(&model.encode_to_vec(), "m", None);
        read.err().map(|e| e.to_string()).unwrap_or_default()
    };
    let plain = || function("f", vec![node("Neg", &["a"], &["b"], vec![])]);
    assert_eq!(refused(vec![call("f", &["x"], "y")], vec![plain()]), "");
    let itself = function("f", vec![call("f", &["a"], "b")]);
    let endless = refused(vec![call("f", &["x"], "y")], vec![itself]);
    assert!(endless.contains("nested deeper than the limit `depth`, 24"), "{endless}");
    let two = refused(vec![call("f", &["x", "x"], "y")], vec![plain()]);
    assert_eq!(two, "m: node `the f` (f): 2 operands for 1 parameters");
    let outer = function("f", vec![node("Neg", &["x"], &["b"], vec![])]);
    let outside = refused(vec![call("f", &["x"], "y")], vec![outer]);
    assert!(outside.contains("`x` is used before it is defined"), "{outside}");
    assert!(refused(vec![call("f", &["x"], "y")], vec![plain(), plain()]).contains("`f` is defined twice"));
    assert_eq!(refused(vec![call("g", &["x"], "y")], vec![plain()]), "m: unsupported operators: own.g (×1)");
    let unknown = function("f", vec![node("Nag", &["a"], &["b"], vec![])]);
    assert_eq!(refused(vec![call("f", &["x"], "y")], vec![unknown]), "m: unsupported operators: Nag (×1)");
}
