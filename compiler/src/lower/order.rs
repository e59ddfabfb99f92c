//! The order of axes in which values lie in memory: as they are written, or with the channels last.
//!
//! Convolutions and poolings write images whose channels are last. Whatever is of the same kind (a map of such
//! an image, a part of it, what a branch yields in its place) is laid out alike, so that nothing is turned
//! around between them. This is a preference, not a rule: a place says itself how it lies ([`Shown`]); only at
//! the borders of blocks must both sides agree, and there they do because one class has one order.

use eec_ir::graph::{Def, Node};
use eec_ir::program::Source;
use eec_ir::{BufferId, DType, Dim, Graph, NodeId, Op, ValueId};

use super::fuse::{self, LoopBuilder};
use super::view::{Shown, is_renamed};
use super::{LowerError, Lowering, host};

/// The orders of a graph's values.
pub(super) struct Orders {
    /// Per value, whether its channels are last.
    last: Vec<bool>,
}

impl Orders {
    pub(super) fn of(graph: &Graph) -> Orders {
        let mut classes = Classes { parents: (0..graph.value_count()).collect() };
        let mut images = Vec::new();
        for id in graph.nodes_in_order() {
            let node = graph.node(id);
            if makes_images(graph, id) {
                images.push(node.outputs[0]);
            }
            alike(graph, node, &mut classes);
        }
        let mut last = vec![false; graph.value_count()];
        for image in images {
            last[classes.find(image.index())] = true;
        }
        Orders { last: (0..graph.value_count()).map(|v| last[classes.find(v)]).collect() }
    }

    /// Whether the channels of a value are last.
    pub(super) fn is_last(&self, value: ValueId) -> bool {
        self.last[value.index()]
    }

    /// The axes of a value, from the outermost in memory to the innermost.
    pub(super) fn axes(&self, value: ValueId, rank: usize) -> Vec<usize> {
        if self.is_last(value) { channels_last(rank) } else { (0..rank).collect() }
    }
}

/// The axes of images with their channels last.
pub(super) fn channels_last(rank: usize) -> Vec<usize> {
    (0..rank).filter(|axis| *axis != 1).chain((rank > 1).then_some(1)).collect()
}

/// Whether a kernel writes the node's result with the channels last.
fn makes_images(graph: &Graph, id: NodeId) -> bool {
    let op = &graph.node(id).op;
    matches!(op, Op::Conv { .. } | Op::MaxPool { .. } | Op::AveragePool { .. }) && host::is_compiled(graph, id)
}

/// Sets of values with one order.
struct Classes {
    parents: Vec<usize>,
}

impl Classes {
    fn find(&mut self, mut value: usize) -> usize {
        while self.parents[value] != value {
            self.parents[value] = self.parents[self.parents[value]];
            value = self.parents[value];
        }
        value
    }

    fn unite(&mut self, a: ValueId, b: ValueId) {
        let (a, b) = (self.find(a.index()), self.find(b.index()));
        self.parents[a.max(b)] = a.min(b);
    }
}

/// Unites the values of a node that lie alike.
fn alike(graph: &Graph, node: &Node, classes: &mut Classes) {
    match &node.op {
        Op::If { .. } => {
            for region in &node.regions {
                unite_all(classes, &graph.region(*region).yields, &node.outputs);
            }
        }
        Op::Route { .. } => {
            let [then, other, join @ ..] = &node.regions[..] else { return };
            let results = join.first().map_or(&node.outputs, |join| {
                unite_all(classes, &graph.region(*join).yields, &node.outputs);
                &graph.region(*join).params
            });
            for region in [then, other] {
                unite_all(classes, &node.inputs[1..], &graph.region(*region).params);
                unite_all(classes, &graph.region(*region).yields, results);
            }
        }
        op if keeps_axes(op) || is_renaming(graph, node) => {
            let Some(result) = node.outputs.first() else { return };
            let same_rank = |v: &&ValueId| graph.ty(**v).rank() == graph.ty(*result).rank();
            let inside = |v: &&ValueId| match graph.value(**v).def {
                Def::Node(..) => true,
                Def::Param(region, _) => region != Graph::ROOT,
                Def::Const(_) => false,
            };
            node.inputs.iter().filter(same_rank).filter(inside).for_each(|v| classes.unite(*v, *result));
        }
        _ => {}
    }
}

/// Whether the axes of the result are those of the operands of its rank.
fn keeps_axes(op: &Op) -> bool {
    let moves = matches!(op, Op::Concat { .. } | Op::Slice { .. } | Op::Pad { .. } | Op::Gather { .. });
    moves || matches!(op, Op::MaxPool { .. } | Op::AveragePool { .. }) || fuse::is_pointwise(op)
}

/// Whether a reshape gives one of the dims another name.
fn is_renaming(graph: &Graph, node: &Node) -> bool {
    let dims = |v: &[ValueId]| v.first().map(|v| &graph.ty(*v).dims);
    let both = dims(&node.inputs).zip(dims(&node.outputs));
    matches!(node.op, Op::Reshape { .. }) && both.is_some_and(|(from, to)| is_renamed(from, to))
}

fn unite_all(classes: &mut Classes, a: &[ValueId], b: &[ValueId]) {
    a.iter().zip(b).for_each(|(a, b)| classes.unite(*a, *b));
}

/// How values lie where they enter a block or leave it.
#[derive(Clone, Copy)]
pub(super) enum Border {
    /// As they are written: what the caller of a program sees, and what a loop carries and stacks up.
    RowMajor,
    /// In the order of their class, which is the same on both sides.
    InOrder,
}

impl Lowering<'_> {
    /// The whole of a buffer that holds a value in its order.
    pub(super) fn in_order(&self, value: ValueId, buffer: BufferId) -> Shown {
        let dims = &self.graph.ty(value).dims;
        Shown::along(buffer, dims, &self.orders.axes(value, dims.len()))
    }

    /// A new place for a node's result, in its order.
    pub(super) fn fresh_in_order(&mut self, value: ValueId) -> Shown {
        let buffer = self.place_at_border(value, Border::InOrder, Source::Temp);
        self.in_order(value, buffer)
    }

    /// A new buffer for a value that crosses a border.
    pub(super) fn place_at_border(&mut self, value: ValueId, border: Border, source: Source) -> BufferId {
        let buffer = self.buffer_for(value, source);
        if let Border::InOrder = border {
            self.places.insert(value, self.in_order(value, buffer));
        }
        buffer
    }

    /// `value` as a whole buffer that may cross a border; what lies otherwise is copied.
    pub(super) fn at_border(&mut self, value: ValueId, border: Border) -> Result<BufferId, LowerError> {
        match border {
            Border::InOrder if self.orders.is_last(value) => {}
            Border::InOrder | Border::RowMajor => return self.dense(value),
        }
        let shown = self.shown(value)?;
        let len = &self.program.buffer(shown.view.buffer).len;
        if shown.is_same(&self.in_order(value, shown.view.buffer)) && *len == Dim::product(&shown.dims) {
            return Ok(shown.view.buffer);
        }
        let to = self.fresh_in_order(value);
        self.copy_into(&shown, &to, &self.orders.axes(value, shown.dims.len()));
        Ok(to.view.buffer)
    }

    /// Images as they are if their channels are neighbours, else a copy that has its channels last.
    pub(super) fn with_neighbouring_channels(&mut self, shown: Shown) -> Shown {
        if shown.view.strides.get(1).and_then(Dim::as_const) == Some(1) {
            return shown;
        }
        let axes = channels_last(shown.dims.len());
        let buffer = self.buffer(DType::F32, Dim::product(&shown.dims), Source::Temp);
        let to = Shown::along(buffer, &shown.dims, &axes);
        self.copy_into(&shown, &to, &axes);
        to
    }

    /// Copies a view, along its axes in the given order.
    pub(super) fn copy_into(&mut self, from: &Shown, to: &Shown, axes: &[usize]) {
        let mut b = LoopBuilder::map_along(&from.dims, axes);
        let x = b.load(from);
        b.store(to, x);
        self.emit(b.finish(), Dim::from(0));
    }
}
