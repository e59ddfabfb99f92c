//! `parse(print(graph))` prints the same and verifies, for random graphs built through the API.

mod random_graph;

use eec_ir::text::{parse, pool_resolver};
use eec_ir::verify::{Stage, verify};
use eec_ir::{Graph, Op};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use random_graph::{Step, build};

fn steps() -> impl Strategy<Value = Vec<Step>> {
    prop::collection::vec(any::<Step>(), 0..40)
}

fn reparsed(graph: &Graph, text: &str) -> Graph {
    parse(text, &mut pool_resolver(graph.constants())).unwrap_or_else(|e| panic!("{e}\n{text}"))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn text_round_trips(steps in steps()) {
        let graph = build(&steps);
        let text = graph.to_string();
        let again = reparsed(&graph, &text);
        prop_assert_eq!(again.to_string(), text.clone());
        prop_assert_eq!(again.assumptions(), graph.assumptions());
        prop_assert_eq!(again.output_names(), graph.output_names());
        for (a, b) in again.nodes_in_order().into_iter().zip(graph.nodes_in_order()) {
            prop_assert_eq!(&again.node(a).op, &graph.node(b).op);
            prop_assert_eq!(&again.node(a).origin, &graph.node(b).origin);
        }
        for g in [&graph, &again] {
            prop_assert!(verify(g, Stage::Typed).is_ok(), "{}\n{}", verify(g, Stage::Typed).unwrap_err(), text);
        }
    }

    #[test]
    fn damaged_text_is_an_error_or_a_graph(
        steps in steps(),
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<char>(), 0..4u8), 1..6),
    ) {
        let graph = build(&steps);
        let mut text: Vec<char> = graph.to_string().chars().collect();
        for (at, c, kind) in edits {
            let at = at.index(text.len());
            let near = text[(at * 7 + 3) % text.len()];
            match kind {
                0 => { text.remove(at); }
                1 => text.insert(at, near),
                2 => text[at] = near,
                _ => text.insert(at, c),
            }
        }
        check_any_text(&graph, &text.into_iter().collect::<String>());
    }

    #[test]
    fn lines_in_any_order_are_an_error_or_a_graph(steps in steps(), seed in any::<u64>()) {
        let graph = build(&steps);
        let text = graph.to_string();
        let mut lines: Vec<&str> = text.lines().collect();
        let (a, b) = (seed as usize % lines.len(), (seed >> 32) as usize % lines.len());
        lines.swap(a, b);
        check_any_text(&graph, &lines.join("\n"));
    }

    #[test]
    fn noise_is_an_error(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let noise = String::from_utf8_lossy(&bytes);
        prop_assert!(parse(&noise, &mut |_| None).is_err());
        let inside = format!("graph @g(%x: f32[n]) -> (%x: f32[n]) {{\n  {noise}\n  return %x\n}}");
        let _ = parse(&inside, &mut |_| None);
    }
}

/// Whatever `text` is, parsing and verifying end without a panic, and what parses prints and parses.
fn check_any_text(graph: &Graph, text: &str) {
    if let Ok(parsed) = parse(text, &mut pool_resolver(graph.constants())) {
        let _ = verify(&parsed, Stage::Lowerable);
        let printed = parsed.to_string();
        assert_eq!(reparsed(graph, &printed).to_string(), printed, "from\n{text}");
    }
}

#[test]
fn random_graphs_hold_what_the_tests_are_about() {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let mut counts = std::collections::BTreeMap::new();
    for _ in 0..300 {
        let tree = steps().new_tree(&mut runner).expect("steps have no filter");
        let graph = build(&tree.current());
        for node in graph.nodes_in_order() {
            let node = graph.node(node);
            *counts.entry(node.op.name()).or_insert(0) += 1;
            let nested = graph.region(node.parent).owner.is_some_and(|o| matches!(graph.node(o).op, Op::Route { .. }));
            if nested && node.op.is_control() {
                *counts.entry("control in Route").or_insert(0) += 1;
            }
        }
    }
    for expected in [
        "Add",
        "Softmax",
        "MatMul",
        "Reshape",
        "Transpose",
        "ReduceMax",
        "Concat",
        "Slice",
        "Gemm",
        "Greater",
        "If",
        "Route",
        "Loop",
        "control in Route",
    ] {
        assert!(counts.get(expected).is_some_and(|n| *n >= 10), "{expected} is too rare: {counts:?}");
    }
}
