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

/// How many elements of `x` are positive, as `count`, whether there is one, as `some`, and a number that may be of any
/// size, as `any`.
fn of_data() -> Vec<NodeProto> {
    vec![
        node("Relu", &["x"], &["p"], vec![]),
        node("Sign", &["p"], &["s"], vec![]),
        node("ReduceSum", &["s"], &["f"], vec![int("keepdims", 0)]),
        node("Cast", &["f"], &["count"], vec![int("to", 7)]),
        node("Exp", &["f"], &["e"], vec![]),
        node("Cast", &["e"], &["any"], vec![int("to", 7)]),
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
    let widens = |parts: &[&str]| {
        let wide = node("Concat", parts, &["w"], vec![int("axis", 1)]);
        body(vec![wide, node("Identity", &["c"], &["d"], vec![])], &["i", "c", "v"], &["d", "w"])
    };
    // So many elements more in every step, of at most as many as `x` has.
    assert_eq!(looped(&["count", "", "x"], widens(&["v", "x"])), "");
    let refused = looped(&["count", "", "x"], widens(&["v", "v"]));
    assert!(
        refused.contains("node `the Loop` (Loop) / body: a step makes f32[n, 2*step0, 2] of the f32[n, step0, 2]"),
        "{refused}"
    );
    assert!(refused.contains("nothing tells how large that becomes"), "{refused}");
    let refused = looped(&["any", "", "x"], widens(&["v", "x"]));
    assert!(refused.contains("nothing tells how large that becomes"), "{refused}");
    let cast = vec![node("Cast", &["v"], &["w"], vec![int("to", 7)]), node("Identity", &["c"], &["d"], vec![])];
    let refused = looped(&["count", "", "x"], body(cast, &["i", "c", "v"], &["d", "w"]));
    assert!(refused.contains("element type and number of dims must stay as they are"), "{refused}");
    let stacked = || {
        let nodes = vec![node("Neg", &["x"], &["w"], vec![]), node("Identity", &["c"], &["d"], vec![])];
        body(nodes, &["i", "c"], &["d", "w"])
    };
    assert_eq!(looped(&["count", ""], stacked()), "");
    let rows = looped(&["any", ""], stacked());
    assert!(rows.contains("nothing tells how often at most"), "{rows}");
    let uneven = vec![node("NonZero", &["x"], &["w"], vec![]), node("Identity", &["c"], &["d"], vec![])];
    let rows = looped(&["count", ""], body(uneven, &["i", "c"], &["d", "w"]));
    assert!(rows.contains("whose size data decides in every step"), "{rows}");
    let no_truth = vec![node("Neg", &["v"], &["w"], vec![])];
    let refused = looped(&["count", "", "x"], body(no_truth, &["i", "c", "v"], &["v", "w"]));
    assert!(refused.contains("the condition is f32[n, 3, 2], not one truth value"), "{refused}");
}

#[test]
fn a_loop_without_steps_gives_no_rows_of_symbolic_dims() -> Outcome {
    let step = vec![node("Exp", &["v"], &["w"], vec![]), node("Identity", &["c"], &["d"], vec![])];
    let none = node("Constant", &[], &["none"], vec![int("value_int", 0)]);
    let step = body(step, &["i", "c", "v"], &["d", "v", "w"]);
    let given =
        outputs(vec![none, node("Loop", &["none", "", "x"], &["last", "rows"], vec![step])], 17, &["last", "rows"])?;
    assert_eq!((given[0].clone(), given[1].dims()), (x()?, &[0, 2, 3, 2][..]));
    Ok(())
}

#[test]
fn branches_that_data_chooses_give_tensors_of_one_kind() {
    let nodes = of_data();
    let then = branch("then_branch", vec![node("Neg", &["x"], &["a"], vec![])], "a");
    let chosen = |op: &str, attributes| {
        let other = branch("else_branch", vec![node(op, &["x"], &["b"], attributes)], "b");
        let mut nodes = nodes.clone();
        nodes.push(node("If", &["some"], &["y"], vec![then.clone(), other]));
        refusal(nodes, 17)
    };
    let refused = chosen("Flatten", vec![]);
    assert!(refused.contains("result 0 is f32[n, 3, 2] in one branch and f32[n, 6] in the other"), "{refused}");
    let refused = chosen("Cast", vec![int("to", 7)]);
    assert!(refused.contains("result 0 is f32[n, 3, 2] in one branch and i64[n, 3, 2] in the other"), "{refused}");
}
