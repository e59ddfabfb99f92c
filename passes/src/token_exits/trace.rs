//! Token alignment: which axes hold the token sequence in the values after a cut, what the operators
//! there become when the sequence has another length, and which values from before the cut must be
//! shortened with it (masks, positions, rope tables).
//!
//! The trace starts at a value `[batch, tokens, …]` and follows every node that depends on it. A
//! dim holds the sequence alone, or together with the batch before it (`[batch*tokens, 96]`).

use std::collections::{BTreeMap, HashMap};

use eec_ir::{Dim, Graph, NodeId, Op, Symbol, Type, ValueId};

use super::rules::Rule;
use super::span::Span;

/// An axis that holds the sequence.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Axis {
    /// The axis.
    pub(crate) axis: usize,
    /// Whether the batch shares the dim, before the sequence.
    pub(crate) with_batch: bool,
}

impl Axis {
    pub(super) fn alone(axis: usize) -> Axis {
        Axis { axis, with_batch: false }
    }

    pub(super) fn with_batch(axis: usize) -> Axis {
        Axis { axis, with_batch: true }
    }

    /// The same on another axis.
    pub(super) fn moved(self, axis: usize) -> Axis {
        Axis { axis, ..self }
    }
}

/// The axes of a value that hold the sequence, ascending.
pub(crate) type Axes = Vec<Axis>;

/// What the trace needs to know of the model.
#[derive(Clone, Copy)]
pub(crate) struct Source<'a> {
    pub(crate) graph: &'a Graph,
    /// The number of samples.
    pub(crate) batch: &'a Dim,
    pub(crate) span: &'a Span,
    /// What stands for the sequence's length in [`Trace::ops`].
    pub(crate) length: &'a Symbol,
}

impl Source<'_> {
    /// `dims` with the length as a symbol on these axes.
    pub(super) fn with_length(&self, dims: &[Dim], axes: &[Axis]) -> Vec<Dim> {
        let mut dims = dims.to_vec();
        for a in axes {
            let length = Dim::from(self.length.clone());
            dims[a.axis] = if a.with_batch { self.batch * &length } else { length };
        }
        dims
    }

    /// The size of a dim that holds the sequence.
    pub(super) fn size(&self, axis: Axis) -> Dim {
        if axis.with_batch { self.batch * &self.span.sequence } else { self.span.sequence.clone() }
    }
}

/// Where the sequence lies after a cut.
#[derive(Clone, Debug, Default)]
pub(crate) struct Trace {
    /// Operators in which the length stands as a symbol.
    pub(crate) ops: HashMap<NodeId, Op>,
    /// Values from before the cut that must be shortened, constants among them.
    pub(crate) demanded: BTreeMap<ValueId, Axes>,
    /// Values after the cut that hold the sequence, the cut itself included.
    places: HashMap<ValueId, Axes>,
}

impl Trace {
    /// Follows the sequence from `cut`; an error names the node where it cannot be followed.
    pub(crate) fn new(source: Source<'_>, cut: ValueId) -> Result<Trace, String> {
        let mut trace = Trace { places: HashMap::from([(cut, vec![Axis::alone(1)])]), ..Trace::default() };
        for id in &source.graph.region(Graph::ROOT).nodes {
            let node = source.graph.node(*id);
            if node.inputs.iter().any(|v| trace.places.contains_key(v)) {
                trace.node(source, *id).map_err(|reason| format!("{}: {reason}", source.graph.describe(*id)))?;
            }
        }
        Ok(trace)
    }

    /// The axes of `value` that hold the sequence.
    pub(crate) fn axes(&self, value: ValueId) -> &[Axis] {
        self.places.get(&value).or_else(|| self.demanded.get(&value)).map_or(&[], Vec::as_slice)
    }

    fn node(&mut self, source: Source<'_>, id: NodeId) -> Result<(), String> {
        let node = source.graph.node(id);
        let out = node.outputs.first().map(|v| source.graph.ty(*v)).ok_or("it has no result")?;
        let operands: Vec<(&Type, Option<Axes>)> =
            node.inputs.iter().map(|v| (source.graph.ty(*v), self.places.get(v).cloned())).collect();
        let indices = node.inputs.get(1).and_then(|v| source.graph.as_constant(*v));
        let mut rule = Rule { source, out, operands, indices, demands: Vec::new(), op: None };
        let axes = rule.apply(&node.op)?;
        let (demands, op) = (rule.demands, rule.op);
        for (operand, axes) in demands {
            self.demand(node.inputs[operand], axes)?;
        }
        if !axes.is_empty() {
            node.outputs.iter().for_each(|v| drop(self.places.insert(*v, axes.clone())));
        }
        self.ops.extend(op.map(|op| (id, op)));
        Ok(())
    }

    fn demand(&mut self, value: ValueId, axes: Axes) -> Result<(), String> {
        let known = self.demanded.entry(value).or_insert_with(|| axes.clone());
        if *known == axes { Ok(()) } else { Err(format!("operand {value} holds the sequence in two ways")) }
    }
}
