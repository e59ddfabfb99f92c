//! The text form: a written example, what hand-written texts may leave out, and errors at their place.

use eec_ir::text::{ConstRef, node_line, parse, region_text};
use eec_ir::{DType, Graph, Op, Symbol, Tensor};

/// Constants of any hash: the elements count up from the length of the hash's text.
fn counting(c: &ConstRef) -> Option<Tensor> {
    let start = c.hash.len() as f32;
    let data = (0..c.dims.iter().product()).map(|i| start + i as f32 / 8.0).collect();
    (c.dtype == DType::F32).then(|| Tensor::new(&c.dims, data).ok())?
}

fn graph(text: &str) -> Graph {
    parse(text, &mut counting).unwrap_or_else(|e| panic!("{e}"))
}

/// The errors of a text as `line:column: message`.
fn errors(text: &str) -> Vec<String> {
    let errors = parse(text, &mut counting).expect_err("the text has an error").errors;
    errors.iter().map(|e| format!("{}:{}: {}", e.line, e.column, e.message)).collect()
}

/// A graph whose body is `body`, lines from 2, between an input `%x: f32[n, 4]` and `return %y`.
fn around(body: &str) -> String {
    format!("graph @g(%x: f32[n, 4], %m: bool[n]) -> (%y: f32[n, 4]) {{\n{body}\n  return %y\n}}\n")
}

const ROUTED: &str = r#"graph @tiny(%x: f32[batch, 4], %ids: i64[batch, 2*seq+1]) -> (%logits: f32[batch, 3], %"exit index": i64[batch]) {
  assume seq == floordiv(batch, 2)
  %0: f32[batch, 4] = MatMul(%x, const f32[4, 4] #HASH)  @"block.0/fc"
  %p: f32[batch] = ReduceMax{axes=[-1], keepdims=0}(%0)  @"exit.0" by exit-heads
  %1: bool[batch] = Greater(%p, 0.9)  by "two words"
  %2: i64[batch] = ReduceMax{axes=[1], keepdims=0}(%ids)
  %logits: f32[batch, 3], %"exit index": i64[batch] = Route{exit=0}(%1; %0, %2)
    then ^1[r0](%3: f32[r0, 4], %4: i64[r0]) {
      %5: f32[r0, 3] = Slice{axes=[1], starts=[0], ends=[3], steps=[1]}(%3)
      yield %5, %4
    }
    else ^2[r1](%6: f32[r1, 4], %7: i64[r1]) {
      %8: f32[r1, 3] = Gemm{trans_b=1}(%6, const f32[3, 4] #HASH, const f32[3] {1.0, -2.5, inf})
      %9: i64[r1] = Add(%7, 1)
      yield %8, %9
    }
  return %logits, %"exit index"
}
"#;

#[test]
fn a_written_graph_prints_as_it_was_written() {
    let hash = |dims: &[usize]| {
        let c = ConstRef { dtype: DType::F32, dims: dims.to_vec(), hash: "77ab01".into() };
        eec_ir::ContentHash::of(&counting(&c).expect("an f32 constant")).to_string()
    };
    let printed = ROUTED.replacen("#HASH", &hash(&[4, 4]), 1).replacen("#HASH", &hash(&[3, 4]), 1);
    let graph = graph(&ROUTED.replace("#HASH", "#77ab01"));
    assert_eq!(graph.to_string(), printed);
    let route = graph.nodes_in_order().into_iter().find(|n| graph.node(*n).op.is_control()).expect("a Route");
    let line = "%logits: f32[batch, 3], %\"exit index\": i64[batch] = Route{exit=0}(%1; %0, %2)";
    assert_eq!(node_line(&graph, route), line);
    let then = region_text(&graph, graph.node(route).regions[0]);
    assert!(then.starts_with("^1[r0](%3: f32[r0, 4], %4: i64[r0]) {\n  %5:") && then.ends_with("\n}"), "{then}");
}

#[test]
fn hand_written_texts_may_leave_out_what_follows() {
    let short = around(
        "; a comment\n  %w = const f32[4, 4] #9f31c2 // another\n  %h = MatMul(%x, %w)\n  \
         %y = If(true)\n then { yield %h }\n else () {\n yield %x\n }",
    );
    let text = short.replace("then {", "then () {");
    let g = graph(&text);
    let ops: Vec<_> = g.nodes_in_order().iter().map(|n| g.node(*n).op.name()).collect();
    assert_eq!(ops, ["MatMul", "If"]);
    assert_eq!(g.constants().iter().count(), 2);
}

#[test]
fn the_symbols_of_a_text_are_never_handed_out_again() {
    let mut g = graph(&ROUTED.replace("#HASH", "#77ab01"));
    assert_eq!(g.fresh_symbol("r"), Symbol::new("r2"));
    assert_eq!(g.fresh_symbol("batch"), Symbol::new("batch0"));
}

#[test]
fn an_edit_renumbers_nothing_before_it() {
    let before = graph(&around("  %0 = Neg(%x)\n  %1 = Exp(%0)\n  %y = Abs(%1)")).to_string();
    let after = graph(&around("  %0 = Neg(%x)\n  %1 = Exp(%0)\n  %t = Relu(%1)\n  %2 = Sqrt(%1)\n  %y = Abs(%2)"));
    let (before, after) = (before.lines().take(3).collect::<Vec<_>>(), after.to_string());
    assert_eq!(before, after.lines().take(3).collect::<Vec<_>>());
}

#[test]
fn attributes_are_read_as_their_type() {
    let op = |text: &str| {
        let g = graph(&around(&format!("  %t = {text}\n  %y = Neg(%x)")));
        g.node(g.nodes_in_order()[0]).op.clone()
    };
    assert_eq!(op("ReduceMax{axes=[-1], keepdims=false}(%x)"), Op::ReduceMax { axes: vec![-1], keepdims: false });
    assert_eq!(op("Cast{to=i32}(%x)"), Op::Cast { to: DType::I32 });
    assert_eq!(op("Clip{max=6}(%x)"), Op::Clip { min: f32::NEG_INFINITY, max: 6.0 });
    assert_eq!(op("Clip{min=-inf, max=-1e-3}(%x)"), Op::Clip { min: f32::NEG_INFINITY, max: -1e-3 });
    let range = |limit: &str| op(&format!("Range{{start=0, limit={limit}}}()")).attributes()[1].1.to_string();
    assert_eq!(range("max(n, \"max\")*2-1"), "2*max(\"max\", n)-1");
    assert_eq!(range("floordiv(2*n+4, 2)"), "n+2");
    assert_eq!((range("inf"), range("true"), range("f32")), ("inf".into(), "true".into(), "f32".into()));
}

#[test]
fn errors_stand_at_their_place() {
    let one = |body: &str, expected: &str| assert_eq!(errors(&around(body)), [expected], "{body}");
    one("  %y = Relu(%z)", "2:13: %z is not defined above");
    one("  %y = Relu(%x %x)", "2:16: expected `,` or `)`, found `%x`");
    one("  %y = Relo(%x)", "2:8: unknown operator `Relo`");
    one("  %y = Relu{alpha=1}(%x)", "2:8: Relu has no attribute `alpha`");
    one("  %y = Softmax{axis=n}(%x)", "2:8: Softmax: attribute `axis` cannot be n");
    one("  %y = Add(%x)", "2:8: Add takes 2 operands, found 1");
    one("  %y: f32[n, 5] = Relu(%x)", "2:3: %y is declared as f32[n, 5], but its type is f32[n, 4]");
    one("  %y: f17[n, 4] = Relu(%x)", "2:7: expected an element type (f32, i64, i32, bool, …), found `f17`");
    one("  %y, %z = Relu(%x)", "2:12: Relu gives 1 results, the text names 2");
    one("  %x = Relu(%x)\n  %y = Neg(%x)", "2:3: %x is defined twice");
    one("  %y = Add(%x, const f32[2] {1.0})", "2:29: f32[2] needs 8 bytes, found 4");
    one("  %y = Add(%x, const f32[n] {1.0})", "2:22: a constant's dims must be numbers from 0, found f32[n]");
    one("  %y = Add(%x, const i64[2] #ab)", "2:29: expected the hash of a known constant of type i64[2], found `#ab`");
    one("  %y = Add(%x, const i32[1] {4294967296})", "2:30: expected a 32-bit integer, found 4294967296");
    one("  %y = Expand{dims=[floordiv(n, 0), 4]}(%x)", "2:21: division by zero");
    one("  %y = Relu(%x)  @\"open", "2:18: expected a closing `\"` on the same line");
    one("  %y = If(true)\n  then () { yield %x }", "4:3: expected `else`, found `return`");
    assert_eq!(errors(""), ["1:1: expected `graph`, found the end of the text"]);
    let trailing = around("  %y = Neg(%x)") + "graph";
    assert_eq!(errors(&trailing), ["5:1: expected the end of the text, found `graph`"]);
}

#[test]
fn an_error_shows_its_line_with_a_caret() {
    let error = parse(&around("\t%y = Relu(%z)"), &mut counting).expect_err("%z is not defined").to_string();
    assert_eq!(error, "2:12: %z is not defined above\n  | \t%y = Relu(%z)\n  | \t          ^");
}

#[test]
fn several_errors_are_reported_and_none_twice() {
    let body = "  %0 = Relu(%a)\n  %1 = Neg(%0)\n  %2 = Add(%x, )\n  %r = Route(%m; %x)\n    \
                then ^1[r0](%h: f32[r0, 4]) {\n      %b = Relo(%h)\n      yield %b\n    }\n    \
                else ^2[r1](%h2: f32[r1, 4]) {\n      yield %h\n    }\n  %y = Exp(%r)\n  %z = Abs(%q)";
    let expected = [
        "2:13: %a is not defined above",
        "4:16: expected an operand: a value, a number or `const`, found `)`",
        "7:12: unknown operator `Relo`",
        "11:13: %h is defined in a region that is not visible here",
        "14:12: %q is not defined above",
    ];
    assert_eq!(errors(&around(body)), expected);
}

#[test]
fn hostile_texts_are_refused_quickly() {
    let deep = format!("  %y = Expand{{dims=[{}n{}]}}(%x)", "max(1, ".repeat(100_000), ")".repeat(100_000));
    assert!(errors(&around(&deep))[0].contains("expressions may be nested 16 deep"));
    let nested = "  %y = If(true) then () {\n".repeat(100_000);
    assert!(errors(&around(&nested)).iter().any(|e| e.contains("regions may be nested 64 deep")));
    let factors = (0..40).map(|i| format!("max(a{i}+b{i}, 0)")).collect::<Vec<_>>().join("*");
    assert!(errors(&around(&format!("  %y = Expand{{dims=[{factors}]}}(%x)")))[0].contains("too large"));
    let dims = (0..40).map(|i| format!("a{i}+b{i}")).collect::<Vec<_>>().join(", ");
    let input = format!("graph @g(%x: f32[{dims}]) -> () {{\n  return\n}}");
    assert!(errors(&input)[0].contains("too large"));
    let squares: String = (1..200).map(|i| format!("  %{i} = Mul(%{}, %{})\n", i - 1, i - 1)).collect();
    let sizes = format!("  %0 = Sizes{{values=[n+k, k+1]}}()\n{squares}  %y = Neg(%x)");
    assert!(parse(&around(&sizes), &mut counting).is_ok());
    let halves: String = (1..5000).map(|i| format!("  %{i} = Div(%{}, 2)\n", i - 1)).collect();
    let sizes = format!("  %0 = Sizes{{values=[n]}}()\n{halves}  %y = Neg(%x)");
    assert!(parse(&around(&sizes), &mut counting).is_ok());
}

#[test]
fn the_documented_graph_is_what_prints() {
    let documented = include_str!("../src/lib.rs").lines().skip_while(|l| !l.starts_with("//! graph @tiny"));
    let lines = documented.take_while(|l| *l != "//! ```").map(|l| l.trim_start_matches("//!").get(1..).unwrap_or(""));
    let text = lines.collect::<Vec<_>>().join("\n") + "\n";
    let without_hashes = |text: &str| {
        let mut parts = text.split('#');
        let first = parts.next().unwrap_or("").to_string();
        parts.fold(first, |all, part| all + "#" + part.trim_start_matches(|c: char| c.is_ascii_hexdigit()))
    };
    assert_eq!(without_hashes(&graph(&text).to_string()), without_hashes(&text));
}
