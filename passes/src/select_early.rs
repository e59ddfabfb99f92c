//! Rows that nobody reads are not computed: where only a part of a result is read, that part alone is made.
//!
//! `Slice(f(x)) = f(Slice(x))` for every operator `f` that computes each index of the sliced axis by itself.
//! In an encoder that is read at one token this leaves one row of the last block's FFN and of its queries,
//! and of every exit's norm. The values of that row stay the same to the last bit, since kernels compute a
//! row alike whatever rows stand beside it.

use std::collections::BTreeSet;

use eec_ir::graph::Node;
use eec_ir::{Dim, Graph, NodeId, Op, Symbol, ValueId, elementwise_broadcast, elementwise_unary};

use crate::pass::{Changed, Context, Pass, PassError};
use crate::rows::normal;
use crate::simplify::merge;

/// The pass.
#[derive(Clone, Copy, Debug, Default)]
pub struct SelectEarly;

impl SelectEarly {
    /// Its name.
    pub const NAME: &'static str = "select-early";
    /// How many operators a part moves up at most. A block of a transformer has some thirty; a limit keeps long
    /// chains from taking a time that grows with their square.
    const MAX_ROUNDS: usize = 128;
}

impl Pass for SelectEarly {
    fn name(&self) -> &'static str {
        SelectEarly::NAME
    }

    fn keeps_origin(&self) -> bool {
        true
    }

    fn run(&self, graph: &mut Graph, _cx: &mut Context) -> Result<Changed, PassError> {
        let mut changed = false;
        // Every round moves parts one operator up; what several operands read alike is one part then.
        for _ in 0..SelectEarly::MAX_ROUNDS {
            if !round(graph)? {
                break;
            }
            merge::apply(graph)?;
            graph.remove_dead();
            changed = true;
        }
        Ok(changed.into())
    }
}

/// A part of a value along one axis.
#[derive(Clone, Debug)]
struct Part {
    axis: usize,
    start: Dim,
    end: Dim,
    step: i64,
    /// Its elements along the axis.
    len: Dim,
}

impl Part {
    /// What a node reads of its first operand, if that is less than all of it along one axis.
    fn of(graph: &Graph, id: NodeId, lengths: &BTreeSet<Symbol>) -> Option<Part> {
        let node = graph.node(id);
        let from = graph.ty(*node.inputs.first()?);
        let part = match &node.op {
            Op::Slice { axes, starts, ends, steps } => {
                let ([axis], [start], [end], [step]) = (&axes[..], &starts[..], &ends[..], &steps[..]) else {
                    return None;
                };
                let axis = normal(*axis, from.rank()).ok()?;
                let len = graph.ty(node.outputs[0]).dims[axis].clone();
                Part { axis, start: start.clone(), end: end.clone(), step: *step, len }
            }
            Op::Gather { axis } => Part::at_index(graph, node, normal(*axis, from.rank()).ok()?, lengths)?,
            _ => return None,
        };
        let whole = &from.dims[part.axis];
        (part.len != *whole && whole.as_const() != Some(1)).then_some(part)
    }

    /// What a node gathers at one known index of an axis, if that may be assumed to exist.
    fn at_index(graph: &Graph, node: &Node, axis: usize, lengths: &BTreeSet<Symbol>) -> Option<Part> {
        let size = &graph.ty(node.inputs[0]).dims[axis];
        let index = graph.value(node.inputs[1]);
        let (Some([at]), 0) = (index.contents.as_deref(), index.ty.rank()) else { return None };
        let from_end = (&Dim::from(-1) - at).is_at_least(0);
        let start = if from_end { at + size } else { at.clone() };
        let end = &start + &Dim::from(1);
        // What is assumed of a join's length is checked for both of its values.
        let checked = node.parent == Graph::ROOT || lengths.iter().any(|l| size.mentions(l));
        let inside = (from_end || at.is_at_least(0)) && (checked || is_known(graph, &start, &end, size));
        // What is surely outside is an error when it runs.
        let outside = (&end - size).is_at_least(1) || (&Dim::default() - &start).is_at_least(1);
        (inside && !outside).then_some(Part { axis, start, end, step: 1, len: Dim::from(1) })
    }

    /// The slice of a value that has the axis at `axis`.
    fn slice(&self, axis: usize) -> Op {
        Op::Slice {
            axes: vec![axis as i64],
            starts: vec![self.start.clone()],
            ends: vec![self.end.clone()],
            steps: vec![self.step],
        }
    }

    /// The dims of the part.
    fn of_dims(&self, whole: &[Dim]) -> Vec<Dim> {
        let mut dims = whole.to_vec();
        dims[self.axis] = self.len.clone();
        dims
    }
}

/// Whether a part is inside of its axis as far as is known or assumed already: what is assumed for a region
/// holds for the whole graph, whether the region runs or not.
fn is_known(graph: &Graph, start: &Dim, end: &Dim, size: &Dim) -> bool {
    let at_most = |a: &Dim, b: &Dim| {
        let smaller = a.smaller(b);
        let says = |(x, y): &(Dim, Dim)| (x == a && *y == smaller) || (y == a && *x == smaller);
        smaller == *a || graph.assumptions().iter().any(says)
    };
    at_most(&Dim::default(), start) && at_most(end, size)
}

/// Moves the parts that are read of single operators up by one. Returns whether there were any.
fn round(graph: &mut Graph) -> Result<bool, PassError> {
    let uses = graph.uses();
    let mut yielded = vec![false; graph.value_count()];
    graph.outputs().iter().for_each(|v| yielded[v.index()] = true);
    let nodes = graph.nodes_in_order();
    let mut lengths = BTreeSet::new();
    for region in nodes.iter().flat_map(|id| &graph.node(*id).regions) {
        let region = graph.region(*region);
        region.yields.iter().for_each(|v| yielded[v.index()] = true);
        lengths.extend(region.length.clone());
    }
    let mut changed = false;
    for id in nodes {
        let Some(part) = Part::of(graph, id, &lengths) else { continue };
        let value = graph.node(id).inputs[0];
        // What this round made is for the next one.
        let Some(users) = uses.get(value.index()) else { continue };
        let alone = users.iter().all(|user| *user == id) && !yielded[value.index()];
        let Some(made) = graph.def_node(value).filter(|made| alone && is_beside(graph, *made, id)) else { continue };
        if let Some(axes) = operand_axes(graph, made, &part) {
            move_up(graph, id, made, &part, &axes)?;
            changed = true;
        }
    }
    Ok(changed)
}

/// Whether a node makes one value in the region of the other.
fn is_beside(graph: &Graph, made: NodeId, reader: NodeId) -> bool {
    graph.node(made).parent == graph.node(reader).parent && graph.node(made).outputs.len() == 1
}

/// Where the axis of a part is in each operand of the node that makes the whole, `None` for operands that are
/// read as a whole; nothing if the node does not compute each index by itself.
fn operand_axes(graph: &Graph, made: NodeId, part: &Part) -> Option<Vec<Option<usize>>> {
    let node = graph.node(made);
    let out = graph.ty(node.outputs[0]);
    let ty = |index: usize| node.inputs.get(index).map(|v| graph.ty(*v));
    let (axis, first) = (part.axis, ty(0)?);
    let alone = |axis: usize| {
        let mut axes = vec![None; node.inputs.len()];
        axes[0] = Some(axis);
        Some(axes)
    };
    let all = |axes: &[i64], f: &dyn Fn(usize) -> bool| {
        !axes.is_empty() && axes.iter().all(|a| normal(*a, first.rank()).is_ok_and(f))
    };
    let outside = |axes: &[i64]| all(axes, &|a| a != axis);
    let innermost =
        |axes: &[i64]| all(axes, &|a| a > axis) && axes.iter().any(|a| [-1, first.rank() as i64 - 1].contains(a));
    match &node.op {
        elementwise_unary!() | elementwise_broadcast!() => {
            let of = |v: &ValueId| {
                let operand = graph.ty(*v);
                let axis = (axis + operand.rank()).checked_sub(out.rank())?;
                (operand.dims[axis].as_const() != Some(1)).then_some(axis)
            };
            Some(node.inputs.iter().map(of).collect())
        }
        Op::MatMul { .. } => {
            let (a, b) = (first, ty(1)?);
            // A row of the result is a row of the left operand; the right one is shared by all rows.
            let is_row = a.rank() == out.rank() && b.rank() >= 2 && axis + 2 == out.rank();
            let shared = a.rank() == out.rank() && b.rank() == 2 && axis + 2 < out.rank();
            if is_row || shared { alone(axis) } else { None }
        }
        Op::Gemm { trans_a: false, .. } if axis == 0 && ty(2).is_none_or(|c| c.rank() == 1) => alone(0),
        Op::LayerNormalization { axis: inner, .. } => {
            if normal(*inner, first.rank()).is_ok_and(|inner| axis < inner) {
                alone(axis)
            } else {
                None
            }
        }
        // Sums along the innermost axis go the same way however many rows there are.
        Op::Softmax { axis: inner } | Op::LogSoftmax { axis: inner } if innermost(&[*inner]) => alone(axis),
        Op::ReduceSum { axes, keepdims: true } | Op::ReduceMean { axes, keepdims: true } if innermost(axes) => {
            alone(axis)
        }
        Op::ReduceMax { axes, keepdims: true } | Op::ReduceMin { axes, keepdims: true } if outside(axes) => alone(axis),
        Op::Transpose { perm } => alone(normal(*perm.get(axis)?, first.rank()).ok()?),
        // Of two parts the one of the earlier axis goes first, or they would change places for ever.
        Op::Slice { axes, .. } if all(axes, &|a| a > axis) => alone(axis),
        // The axis stays an axis of its own, behind the same ones.
        Op::Reshape { .. } => {
            let same = first.dims.get(..=axis).is_some_and(|dims| dims == &out.dims[..=axis]);
            if same { alone(axis) } else { None }
        }
        Op::Concat { axis: side } if normal(*side, out.rank()).is_ok_and(|side| side != axis) => {
            Some(vec![Some(axis); node.inputs.len()])
        }
        _ => None,
    }
}

/// Makes the part of `made` that `id` reads of parts of its operands.
fn move_up(graph: &mut Graph, id: NodeId, made: NodeId, part: &Part, axes: &[Option<usize>]) -> Result<(), PassError> {
    let (node, reader) = (graph.node(made).clone(), graph.node(id).clone());
    let failed = |graph: &Graph, e: &dyn std::fmt::Display| PassError::at(SelectEarly::NAME, graph, id, e);
    let insert = |graph: &mut Graph, op: Op, inputs: &[ValueId], of: &Node| {
        let value = graph.append1(reader.parent, op, inputs, of.origin.clone());
        let value = value.map_err(|e| failed(graph, &e))?;
        graph.move_last_before(id);
        Ok::<_, PassError>(value)
    };
    let mut inputs = node.inputs.clone();
    for (input, axis) in inputs.iter_mut().zip(axes) {
        if let Some(axis) = axis {
            *input = insert(graph, part.slice(*axis), &[*input], &reader)?;
        }
    }
    let op = match node.op.clone() {
        Op::Reshape { .. } => Op::Reshape { dims: part.of_dims(&graph.ty(node.outputs[0]).dims) },
        op => op,
    };
    let mut value = insert(graph, op, &inputs, &node)?;
    let old = reader.outputs[0];
    if graph.ty(value) != graph.ty(old) {
        let dims = graph.ty(old).dims.clone();
        value = insert(graph, Op::Reshape { dims }, &[value], &reader)?;
    }
    if let Some(name) = graph.value(old).name.clone() {
        graph.set_name(value, &name);
    }
    graph.replace_uses(old, value).map_err(|e| failed(graph, &e))
}
