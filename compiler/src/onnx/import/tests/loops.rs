//! Loops and branches that cannot be, and what is said of them.

use super::*;

/// A graph attribute with inputs.
fn body(node: Vec<NodeProto>, inputs: &[&str], outputs: &[&str]) -> AttributeProto {
    let infos = |names: &[&str]| {
        let info = |name: &&str| ValueInfoProto { name: (*name).into(), r#type: None };
        names.iter().map(info).collect()
    };
    let graph = GraphProto { node, input: infos(inputs), output: infos(outputs), ..GraphProto::default() };
    AttributeProto { g: Some(graph), ..attribute("body", attribute_type::GRAPH) }
}

/// How many elements of `x` are positive, as `count`, and whether there is one, as `some`.
fn of_data() -> Vec<NodeProto> {
    vec![
        node("Relu", &["x"], &["p"], vec![]),
        node("Sign", &["p"], &["s"], vec![]),
        node("ReduceSum", &["s"], &["f"], vec![int("keepdims", 0)]),
        node("Cast", &["f"], &["count"], vec![int("to", 7)]),
        node("Cast", &["f"], &["some"], vec![int("to", 9)]),
    ]
}

fn looped(operands: &[&str], body: AttributeProto) -> String {
    let mut nodes = of_data();
    nodes.push(node("Loop", operands, &["y"], vec![body]));
    refusal(nodes, 17)
}

#[test]
fn a_loop_that_only_data_ends_carries_what_keeps_its_shape() {
    let step = || vec![node("Neg", &["v"], &["w"], vec![]), node("Identity", &["c"], &["d"], vec![])];
    assert_eq!(looped(&["count", "", "x"], body(step(), &["i", "c", "v"], &["d", "w"])), "");
    let grows =
        vec![node("Concat", &["v", "v"], &["w"], vec![int("axis", 1)]), node("Identity", &["c"], &["d"], vec![])];
    let refused = looped(&["count", "", "x"], body(grows, &["i", "c", "v"], &["d", "w"]));
    assert!(
        refused.contains("node `the Loop` (Loop) / body: a step makes f32[n, 6, 2] of the f32[n, 3, 2]"),
        "{refused}"
    );
    let stacked = vec![node("Neg", &["x"], &["w"], vec![]), node("Identity", &["c"], &["d"], vec![])];
    let rows = looped(&["count", ""], body(stacked, &["i", "c"], &["d", "w"]));
    assert!(rows.contains("how often it runs depends on data, and so do the sizes of its results"), "{rows}");
    let no_truth = vec![node("Neg", &["v"], &["w"], vec![])];
    let refused = looped(&["count", "", "x"], body(no_truth, &["i", "c", "v"], &["v", "w"]));
    assert!(refused.contains("the condition is f32[n, 3, 2], not one truth value"), "{refused}");
}

#[test]
fn branches_that_data_chooses_give_the_same_shapes() {
    let mut nodes = of_data();
    let then = branch("then_branch", vec![node("Neg", &["x"], &["a"], vec![])], "a");
    let wide = vec![node("Concat", &["x", "x"], &["b"], vec![int("axis", 2)])];
    nodes.push(node("If", &["some"], &["y"], vec![then, branch("else_branch", wide, "b")]));
    let refused = refusal(nodes, 17);
    assert!(refused.contains("result 0 is f32[n, 3, 2] in one branch and f32[n, 3, 4] in the other"), "{refused}");
}
