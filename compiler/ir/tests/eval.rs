//! The reference evaluator: control flow, sizes from inputs, failures that name their place; and
//! the cost of nodes.

use eec_ir::eval::{evaluate, evaluate_values, run};
use eec_ir::text::parse;
use eec_ir::{Dim, Graph, Tensor, cost};

fn graph(text: &str) -> Graph {
    let mut constant = |c: &eec_ir::text::ConstRef| {
        let count: usize = c.dims.iter().product();
        Tensor::new(&c.dims, (0..count).map(|i| i as f32).collect()).ok()
    };
    parse(text, &mut constant).unwrap_or_else(|e| panic!("{e}"))
}

fn f32s(dims: &[usize], data: &[f32]) -> Tensor {
    Tensor::new(dims, data.to_vec()).expect("as many elements as the dims ask for")
}

fn i64s(data: &[i64]) -> Tensor {
    Tensor::vector(data.to_vec())
}

fn failure(graph: &Graph, inputs: &[Tensor]) -> String {
    evaluate(graph, inputs).expect_err("an error").to_string()
}

/// Rows above zero are negated, the others divided by `%d`.
const ROUTED: &str = r#"graph @g(%x: i64[n, 2], %d: i64[n]) -> (%y: i64[n, 2], %from: i64[n]) {
  %first: i64[n] = ReduceMax{axes=[1], keepdims=0}(%x)
  %m: bool[n] = Greater(%first, 0)
  %y: i64[n, 2], %from: i64[n] = Route{exit=0}(%m; %x, %d)
    then ^1[r0](%1: i64[r0, 2], %2: i64[r0]) {
      %3: i64[r0, 2] = Neg(%1) @"negated"
      yield %3, %2
    }
    else ^2[r1](%4: i64[r1, 2], %5: i64[r1]) {
      %6: i64[r1, 1] = Reshape{dims=[r1, 1]}(%5)
      %7: i64[r1, 2] = Div(%4, %6) @"divided"
      %8: i64[r1] = Range{start=0, limit=r1, delta=1}()
      yield %7, %8
    }
  return %y, %from
}
"#;

fn rows(data: &[i64]) -> Tensor {
    Tensor::new(&[data.len() / 2, 2], data.to_vec()).expect("pairs")
}

#[test]
fn route_compacts_rows_and_merges_them_in_order() {
    let g = graph(ROUTED);
    let x = rows(&[5, 1, -8, -6, 0, 7, -9, -3]);
    let outputs = evaluate(&g, &[x, i64s(&[10, 2, 30, 3])]).expect("a run");
    assert_eq!(outputs, [rows(&[-5, -1, -4, -3, 0, -7, -3, -1]), i64s(&[10, 0, 30, 1])]);
}

#[test]
fn a_region_without_rows_does_not_run() {
    let g = graph(ROUTED);
    // The division by zero would fail if the second region ran.
    let all_first = run(&g, &[rows(&[1, 2, 3, 4]), i64s(&[0, 0])]).expect("a run");
    let value_of = |name: &str| {
        let named = |n: &&eec_ir::NodeId| g.node(**n).origin.source.as_deref() == Some(name);
        g.nodes_in_order().iter().find(named).map(|n| g.node(*n).outputs[0]).expect("a node")
    };
    assert_eq!(all_first.value(value_of("divided")), None);
    assert_eq!(all_first.value(value_of("negated")), Some(&rows(&[-1, -2, -3, -4])));
    let sizes = ["n", "r0", "r1"].map(|s| all_first.size(&Dim::symbol(s)));
    assert_eq!(sizes, [Some(2), Some(2), Some(0)]);
    let missing = evaluate_values(&g, &[rows(&[1, 2]), i64s(&[0])], &[value_of("divided")]);
    assert!(missing.expect_err("an error").to_string().contains("was not computed"));
    let none = evaluate(&g, &[rows(&[]), i64s(&[])]).expect("a run without rows");
    assert_eq!(none, [rows(&[]), i64s(&[])]);
}

#[test]
fn if_runs_one_region() {
    let g = graph(
        r#"graph @g(%x: i64[n], %c: bool[1]) -> (%y: i64[n]) {
  %y: i64[n] = If(%c)
    then ^1() {
      %1: i64[n] = Div(%x, 0)
      yield %1
    }
    else ^2() {
      %2: i64[n] = Mul(%x, %x)
      yield %2
    }
  return %y
}
"#,
    );
    let condition = |c: u8| Tensor::new(&[1], vec![c]).expect("a bool");
    assert_eq!(evaluate(&g, &[i64s(&[3, -4]), condition(0)]), Ok(vec![i64s(&[9, 16])]));
    let divided = failure(&g, &[i64s(&[3, -4]), condition(1)]);
    assert!(divided.starts_with("Div ") && divided.ends_with("integer division by zero"), "{divided}");
}

#[test]
fn inputs_are_checked() {
    let g = graph(ROUTED);
    assert_eq!(failure(&g, &[rows(&[1, 2])]), "expected 2 inputs, found 1");
    let floats = failure(&g, &[rows(&[1, 2]), f32s(&[1], &[0.5])]);
    assert_eq!(floats, "input `d`: expected i64[n], found f32[1]");
    let longer = failure(&g, &[rows(&[1, 2]), i64s(&[1, 2, 3])]);
    assert_eq!(longer, "input `d`: expected dims [n] where n = 1, found [3]: dim 0 must be 1");
}

#[test]
fn assumptions_are_checked_before_anything_runs() {
    let g = graph("graph @g(%a: i64[n], %b: i64[m]) -> (%y: i64[n]) {\n  %y = Add(%a, %b)\n  return %y\n}\n");
    assert_eq!(evaluate(&g, &[i64s(&[1, 2]), i64s(&[3, 4])]), Ok(vec![i64s(&[4, 6])]));
    // Broadcasting one row would hide that the sizes differ.
    let refused = failure(&g, &[i64s(&[1]), i64s(&[3, 4])]);
    assert_eq!(refused, "the model needs m = n, but the inputs make them 2 and 1");
}

#[test]
fn failures_name_their_node() {
    let g = graph(ROUTED);
    let refused = failure(&g, &[rows(&[-1, -2]), i64s(&[0])]);
    assert_eq!(refused, "Div (divided): integer division by zero");
}

#[test]
fn products_are_counted() {
    let g = graph(
        r#"graph @g(%x: f32[n, 6, 8, 9], %h: f32[n, s, 16]) -> (%y: f32[n, 4, 4, 9], %z: f32[n, s, 5], %e: f32[7, 5]) {
  %c = const f32[4, 3, 3, 1] #00
  %y = Conv{group=2, strides=[2, 1], dilations=[1, 1], pads=[1, 0, 0, 0]}(%x, %c)
  %1 = Relu(%h)
  %w = const f32[16, 5] #01
  %z = MatMul(%1, %w)
  %a = const f32[16, 7] #02
  %e = Gemm{trans_a=1}(%a, %w)
  return %y, %z, %e
}
"#,
    );
    let macs: Vec<String> = g.nodes_in_order().iter().map(|n| cost::macs(&g, *n).to_string()).collect();
    // Each of 4·4·9 results sums 3·3·1 products; each of s·5 sums 16; each of 7·5 sums 16.
    assert_eq!(macs, ["1296*n", "0", "80*n*s", "560"]);
    assert_eq!(cost::parameters(&g), 4 * 3 * 3 + 16 * 5 + 16 * 7);
}
