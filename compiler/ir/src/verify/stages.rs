//! Invariants 4 to 6 and 9 to 12: the interface, types, dims, and what each stage adds.

use std::collections::{BTreeSet, HashSet};

use super::scope::input_symbols;
use super::{Found, Stage};
use crate::attr::AttrValue;
use crate::dim::{Atom, Dim, Symbol};
use crate::entity::{NodeId, RegionId};
use crate::graph::Graph;
use crate::op::Op;
use crate::ops::{self, Facts, InferError};

/// Invariant 5.
pub(super) fn check_interface(found: &mut Found<'_>) {
    let graph = found.graph;
    let (outputs, names) = (graph.outputs().len(), graph.output_names().len());
    if outputs != names {
        found.report(5, None, format!("expected one name per output, found {names} for {outputs}"));
    }
    for (i, v) in graph.inputs().iter().enumerate() {
        if graph.value(*v).name.is_none() {
            found.report(5, None, format!("input {i} has no name"));
        }
    }
    let inputs = graph.inputs().iter().filter_map(|v| graph.value(*v).name.as_deref());
    check_unique(found, "inputs", inputs);
    check_unique(found, "outputs", graph.output_names().iter().map(|n| &**n));
}

fn check_unique<'n>(found: &mut Found<'_>, what: &str, names: impl Iterator<Item = &'n str>) {
    let mut seen = HashSet::new();
    for name in names.filter(|n| !seen.insert(*n)) {
        found.report(5, None, format!("two {what} have the name {name:?}"));
    }
}

/// Invariants 4, 6, and from 9 on those that `stage` has. The structure must be sound.
pub(super) fn check_nodes(found: &mut Found<'_>, stage: Stage) {
    let known = input_symbols(found.graph);
    let inputs = found.graph.inputs().iter().flat_map(|v| &found.graph.ty(*v).dims).cloned().collect::<Vec<_>>();
    for (a, b) in found.graph.assumptions() {
        if !(within_limit(a) && within_limit(b)) {
            found.report(6, None, format!("the assumption {a} == {b} goes beyond {}", Dim::LIMIT));
        }
    }
    check_region(found, Graph::ROOT, &known, stage);
    if stage >= Stage::Dynamic {
        check_exits(found);
        check_gates(found);
    }
    if stage >= Stage::Lowerable {
        let alone: BTreeSet<_> = inputs.iter().filter_map(Dim::as_symbol).collect();
        for symbol in known.iter().filter(|s| !alone.contains(s)) {
            found.report(12, None, format!("no input has {symbol} by itself as a dim, so a run cannot bind it"));
        }
    }
}

fn check_region(found: &mut Found<'_>, region: RegionId, outer: &BTreeSet<Symbol>, stage: Stage) {
    let graph = found.graph;
    let mut known = outer.clone();
    known.extend(graph.region(region).rows.iter().chain(&graph.region(region).length).cloned());
    let params = graph.region(region).params.iter().flat_map(|v| &graph.ty(*v).dims);
    check_sizes(found, graph.region(region).owner, params, &known);
    for id in &graph.region(region).nodes {
        let node = graph.node(*id);
        if stage >= Stage::Typed && matches!(node.op, Op::Shape { .. }) {
            found.report(9, Some(*id), "sizes must be symbolic here; simplify the graph first");
        }
        check_inference(found, *id);
        let results = node.outputs.iter().flat_map(|v| &graph.ty(*v).dims);
        check_sizes(found, Some(*id), results, &known);
        check_attributes(found, *id, &known);
        for inner in &node.regions {
            check_region(found, *inner, &known, stage);
        }
        known.extend(node.op.late_symbol().cloned());
    }
}

fn fresh_types(graph: &Graph, id: NodeId) -> Result<Vec<Facts>, InferError> {
    let node = graph.node(id);
    if node.op.is_control() {
        return ops::control::infer(graph, &node.op, &node.inputs, &node.regions);
    }
    let facts: Vec<Facts> = node.inputs.iter().map(|v| Facts::from_value(graph.value(*v))).collect();
    Ok(ops::infer(&node.op, &facts)?.outputs)
}

fn check_inference(found: &mut Found<'_>, id: NodeId) {
    let graph = found.graph;
    let fresh = match fresh_types(graph, id) {
        Ok(fresh) => fresh,
        Err(e) => return found.report(4, Some(id), e.to_string()),
    };
    let outputs = &graph.node(id).outputs;
    if fresh.len() != outputs.len() {
        return found.report(4, Some(id), format!("inference gives {} results, found {}", fresh.len(), outputs.len()));
    }
    for (f, v) in fresh.iter().zip(outputs).filter(|(f, v)| f.ty != *graph.ty(**v)) {
        let message =
            format!("inference gives {} the type {}, found {}", found.printer().value(*v), f.ty, graph.ty(*v));
        found.report(4, Some(id), message);
    }
}

fn check_sizes<'d>(
    found: &mut Found<'_>,
    node: Option<NodeId>,
    dims: impl Iterator<Item = &'d Dim>,
    known: &BTreeSet<Symbol>,
) {
    for dim in dims {
        if dim.as_const().is_some_and(|d| d < 0) {
            found.report(6, node, format!("a dim must not be negative, found {dim}"));
        }
        check_dim(found, node, dim, known);
    }
}

fn check_dim(found: &mut Found<'_>, node: Option<NodeId>, dim: &Dim, known: &BTreeSet<Symbol>) {
    if !within_limit(dim) {
        found.report(6, node, format!("the size {dim} goes beyond {}", Dim::LIMIT));
    }
    let mut symbols = BTreeSet::new();
    dim.collect_symbols(&mut symbols);
    for symbol in symbols.difference(known) {
        found.report(
            6,
            node,
            format!(
                "the symbol {symbol} is neither an input's nor one that a region around it or a node before it gives"
            ),
        );
    }
}

fn check_attributes(found: &mut Found<'_>, id: NodeId, known: &BTreeSet<Symbol>) {
    let op = &found.graph.node(id).op;
    if let Op::LateSize { size, most } = op {
        if size.as_symbol().is_none() {
            found.report(7, Some(id), format!("the size that data decides must be a symbol, found {size}"));
        }
        return check_dim(found, Some(id), most, known);
    }
    for (_, value) in op.attributes() {
        match value {
            AttrValue::Dim(dim) => check_dim(found, Some(id), &dim, known),
            AttrValue::Dims(dims) => dims.iter().for_each(|d| check_dim(found, Some(id), d, known)),
            AttrValue::Int(_) | AttrValue::Float(_) | AttrValue::Ints(_) | AttrValue::Word(_) | AttrValue::DType(_) => {
            }
        }
    }
}

fn within_limit(dim: &Dim) -> bool {
    let atom = |a: &Atom| match a {
        Atom::Symbol(_) => true,
        Atom::FloorDiv(a, b) | Atom::Max(a, b) | Atom::Min(a, b) => within_limit(a) && within_limit(b),
    };
    dim.terms().iter().all(|t| t.coef.unsigned_abs() < Dim::LIMIT.unsigned_abs() && t.factors.iter().all(atom))
}

/// Invariant 10.
fn check_exits(found: &mut Found<'_>) {
    let graph = found.graph;
    let exit_of = |id: NodeId| graph.node(id).op.exit();
    let exits = graph.nodes_in_order().into_iter().filter_map(|id| Some((id, exit_of(id)?)));
    for (expected, (id, exit)) in exits.enumerate() {
        if usize::try_from(exit) != Ok(expected) {
            found.report(10, Some(id), format!("this is exit {expected} in execution order, found number {exit}"));
        }
        if graph.node(id).outputs.is_empty() {
            found.report(10, Some(id), "an exit must give a result");
        }
        if let Some(around) = loop_around(graph, id) {
            found.report(
                10,
                Some(id),
                format!("an exit inside of {}, which would ask it again", graph.describe(around)),
            );
        }
        let Some(then) = graph.node(id).regions.first() else { continue };
        graph.visit(*then, &mut |inner| {
            if exit_of(inner).is_some() {
                found.report(
                    10,
                    Some(inner),
                    format!("an exit inside the `then` region of exit {exit}, whose rows have left"),
                );
            }
        });
    }
}

/// The innermost `Loop` that a node stands in.
fn loop_around(graph: &Graph, id: NodeId) -> Option<NodeId> {
    let mut owner = graph.region(graph.node(id).parent).owner;
    while let Some(node) = owner.filter(|n| !matches!(graph.node(*n).op, Op::Loop { .. })) {
        owner = graph.region(graph.node(node).parent).owner;
    }
    owner
}

/// Invariant 11.
fn check_gates(found: &mut Found<'_>) {
    let graph = found.graph;
    let gates: Vec<(NodeId, i64)> =
        graph.nodes_in_order().into_iter().filter_map(|id| Some((id, graph.node(id).op.gate()?))).collect();
    let mut seen = HashSet::new();
    for (id, gate) in &gates {
        if graph.node(*id).op.exit().is_some() {
            found.report(11, Some(*id), "a node is an exit or a gate, not both");
        }
        if !usize::try_from(*gate).is_ok_and(|g| g < gates.len()) {
            let message =
                format!("gates are numbered without holes: expected a number below {}, found {gate}", gates.len());
            found.report(11, Some(*id), message);
        }
        if !seen.insert(*gate) {
            found.report(11, Some(*id), format!("two gates have the number {gate}"));
        }
    }
}
