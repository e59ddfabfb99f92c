//! The view in Graphviz's language: a cluster per segment and region, an edge per use of a value.

use std::fmt::Write;

use eec_ir::graph::Def;
use eec_ir::{Graph, NodeId, RegionId, ValueId};

use super::{Item, View, title};
use crate::display::si;

/// The graph for `dot -Tsvg`.
pub fn dot(view: &View<'_>) -> String {
    let graph = view.graph;
    let mut text = format!("digraph {} {{\n", quoted(&graph.name));
    text.push_str("  compound=true;\n  node [shape=box, style=rounded, fontname=\"sans-serif\", fontsize=10];\n");
    for value in graph.inputs() {
        let _ = writeln!(text, "  v{} [shape=oval, label={}];", value.index(), quoted(&label_of(graph, *value)));
    }
    let mut clusters = 0;
    items(view, &view.items, 1, &mut clusters, &mut text);
    for id in graph.nodes_in_order() {
        let node = graph.node(id);
        node.inputs.iter().for_each(|v| edge(graph, *v, &format!("n{}", id.index()), &mut text));
        for region in &node.regions {
            yields(graph, *region, id, &mut text);
        }
    }
    for (i, (name, value)) in graph.output_names().iter().zip(graph.outputs()).enumerate() {
        let _ = writeln!(text, "  out{i} [shape=oval, label={}];", quoted(&format!("{name}\n{}", graph.ty(*value))));
        edge(graph, *value, &format!("out{i}"), &mut text);
    }
    text.push_str("}\n");
    text
}

fn items(view: &View<'_>, list: &[Item], depth: usize, clusters: &mut usize, text: &mut String) {
    let pad = "  ".repeat(depth);
    let mut open = |label: &str, text: &mut String| {
        let _ = writeln!(text, "{pad}subgraph cluster_{clusters} {{\n{pad}  label={};", quoted(label));
        *clusters += 1;
    };
    // Opened first, so that clusters are numbered from the outside in.
    for item in list {
        match item {
            Item::Segment(segment) => {
                let time = segment.us.map(|us| format!(", {us:.1} us")).unwrap_or_default();
                let macs = segment.macs.as_const().map_or_else(|| segment.macs.to_string(), |n| si(n as f64));
                open(&format!("{}: {macs} MACs{time}", segment.name), text);
                for id in &segment.nodes {
                    node(view.graph, *id, &pad, text);
                }
                let _ = writeln!(text, "{pad}}}");
            }
            Item::Decision(decision) => {
                let shape = format!("shape=diamond, label={}", quoted(&title(view, decision)));
                let _ = writeln!(text, "{pad}n{} [{shape}];", decision.node.index());
            }
        }
    }
    for item in list {
        let Item::Decision(decision) = item else { continue };
        let regions = &view.graph.node(decision.node).regions;
        for (branch, region) in decision.branches.iter().zip(regions) {
            let label = format!("{}, {}", title(view, decision), branch.role);
            let _ = writeln!(text, "{pad}subgraph cluster_{clusters} {{\n{pad}  label={};", quoted(&label));
            *clusters += 1;
            for value in &view.graph.region(*region).params {
                let name = quoted(&label_of(view.graph, *value));
                let _ = writeln!(text, "{pad}  v{} [shape=oval, label={name}];", value.index());
                let _ = writeln!(text, "{pad}  n{} -> v{} [style=dashed];", decision.node.index(), value.index());
            }
            items(view, &branch.items, depth + 1, clusters, text);
            let _ = writeln!(text, "{pad}}}");
        }
    }
}

fn node(graph: &Graph, id: NodeId, pad: &str, text: &mut String) {
    let node = graph.node(id);
    let types: Vec<String> = node.outputs.iter().map(|v| graph.ty(*v).to_string()).collect();
    let label = format!("{}\n{}", node.op.name(), types.join(", "));
    let tooltip = node.origin.source.as_deref().unwrap_or_default();
    let index = id.index();
    let _ = writeln!(text, "{pad}  n{index} [label={}, tooltip={}];", quoted(&label), quoted(tooltip));
}

/// What a region yields goes back to its owner.
fn yields(graph: &Graph, region: RegionId, owner: NodeId, text: &mut String) {
    for value in &graph.region(region).yields {
        if let Some(from) = source(graph, *value) {
            let _ = writeln!(text, "  {from} -> n{} [style=dashed, constraint=false];", owner.index());
        }
    }
}

fn edge(graph: &Graph, value: ValueId, to: &str, text: &mut String) {
    if let Some(from) = source(graph, value) {
        let _ = writeln!(text, "  {from} -> {to};");
    }
}

/// Where a value comes from; none for constants, which are not drawn.
fn source(graph: &Graph, value: ValueId) -> Option<String> {
    match graph.value(value).def {
        Def::Node(node, _) => Some(format!("n{}", node.index())),
        Def::Param(..) => Some(format!("v{}", value.index())),
        Def::Const(_) => None,
    }
}

fn label_of(graph: &Graph, value: ValueId) -> String {
    let name = graph.value(value).name.as_deref().map_or_else(|| value.to_string(), str::to_string);
    format!("{name}\n{}", graph.ty(value))
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n"))
}
