//! Lowering: Graph to [`Program`].
//!
//! Reshapes, transposes, slices and broadcasts become views; elementwise chains with one consumer
//! become part of their consumer's loop, or the epilogue of the product or convolution that they follow;
//! matrix products, convolutions and pooling keep their own forms; `If`, `Route` and `Loop` become steps over
//! blocks. One file per kind: `view` (addressing), `fuse` (loop expressions), `rows` (reductions), `linear`
//! (products, convolutions, pooling), `epilogue` (what follows a product or convolution), `attention`,
//! `movement` (reshapes to pads), `order` (which values have their channels last), `host` (what has no form), `control` (blocks), `join` (what follows both blocks of a `Route`).

mod attention;
mod control;
mod epilogue;
mod fuse;
mod host;
mod join;
mod linear;
mod movement;
mod order;
mod rows;
mod view;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use eec_ir::program::{Block, Buffer, Constant, Form, Gate, Kernel, Port, Program, Source, Step};
use eec_ir::verify::{Stage, Verified};
use eec_ir::{BufferId, ConstId, DType, Dim, Graph, KernelId, NodeId, Op, Precision, RegionId, Symbol, ValueId};

use fuse::LoopBuilder;
pub use host::host_nodes;
use order::{Border, Orders};
use view::Shown;

/// Why a graph could not be lowered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}{reason}", .node.as_deref().map(|n| format!("{n}: ")).unwrap_or_default())]
pub struct LowerError {
    /// The node's path and operator.
    pub node: Option<String>,
    /// What stands in the way.
    pub reason: String,
}

impl LowerError {
    fn new(reason: impl Into<String>) -> Self {
        LowerError { node: None, reason: reason.into() }
    }

    /// A broken invariant of lowering itself.
    fn internal(reason: impl Into<String>) -> Self {
        LowerError::new(format!("internal error: {}", reason.into()))
    }

    fn at(self, node: String) -> Self {
        LowerError { node: self.node.or(Some(node)), ..self }
    }
}

/// What people call a graph's decisions, by their numbers.
#[derive(Clone, Copy, Debug, Default)]
pub struct Names<'a> {
    /// One per exit.
    pub exits: &'a [String],
    /// Gates; one without a name here has that of the node's source.
    pub gates: &'a [String],
}

/// Lowers a graph that was verified as [`Stage::Lowerable`]. Exits and gates are numbered as `If` and
/// `Route` say; `names` are for people.
///
/// # Errors
///
/// What no kernel form can express, with the node; a token of an earlier stage.
pub fn lower(verified: Verified<'_>, names: Names<'_>) -> Result<Program, LowerError> {
    if verified.stage() != Stage::Lowerable {
        return Err(LowerError::new(format!("expected a graph verified as lowerable, found {:?}", verified.stage())));
    }
    let graph = verified.graph();
    let mut lowering = Lowering::new(graph);
    lowering.program.gates = gates(graph, names.gates);
    lowering.program.exits = names.exits.iter().map(|name| eec_ir::program::Exit { name: name.clone() }).collect();
    lowering.inputs();
    lowering.program.blocks.push(Block::default());
    let (steps, yields) = lowering.region(Graph::ROOT, Border::RowMajor)?;
    lowering.program.blocks[0].steps = steps;
    lowering.outputs(&yields);
    match lowering.unchecked.first() {
        Some((a, b)) => Err(LowerError::new(format!("the sizes {a} and {b}, which data decides, cannot be compared"))),
        None => Ok(lowering.program),
    }
}

/// The gates of a verified graph, which are numbered without holes.
fn gates(graph: &Graph, names: &[String]) -> Vec<Gate> {
    let gate = |id: NodeId| Some((graph.node(id).op.gate()?, id));
    let numbered: BTreeMap<i64, NodeId> = graph.nodes_in_order().into_iter().filter_map(gate).collect();
    let name = |(k, id): (usize, NodeId)| {
        let source = graph.node(id).origin.source.as_deref().filter(|s| !s.is_empty());
        names.get(k).cloned().unwrap_or_else(|| source.map_or_else(|| graph.describe(id), str::to_string))
    };
    numbered.into_values().enumerate().map(|gate| Gate { name: name(gate) }).collect()
}

/// The most nodes in one loop: more would spill registers, and nesting must stay shallow.
const MAX_DEFERRED: usize = 48;

struct Lowering<'g> {
    graph: &'g Graph,
    uses: Vec<Vec<NodeId>>,
    /// How values lie in memory where nothing else decides.
    orders: Orders,
    yielded: HashSet<ValueId>,
    program: Program,
    /// Where values that exist in memory are.
    places: HashMap<ValueId, Shown>,
    /// Elementwise results that their one consumer computes, with the number of nodes that makes.
    deferred: HashMap<ValueId, usize>,
    constants: HashMap<ConstId, BufferId>,
    /// Nodes whose results an earlier node has computed.
    done: HashSet<NodeId>,
    steps: Vec<Step>,
    /// Products and convolutions that wait for the map that reads them.
    waiting: HashMap<ValueId, epilogue::Waiting>,
    /// Attentions by the product with values that ends them.
    attentions: HashMap<NodeId, attention::Waiting>,
    /// The symbols that have values here.
    known: BTreeSet<Symbol>,
    /// Pairs of sizes that must be equal, of which data decides one; no step checks them yet.
    unchecked: Vec<(Dim, Dim)>,
    /// What the length symbols of the joins around stand for.
    lengths: HashMap<Symbol, [Dim; 2]>,
    /// The node being lowered, for kernel names.
    current: Option<NodeId>,
}

impl<'g> Lowering<'g> {
    fn new(graph: &'g Graph) -> Self {
        let mut yielded: HashSet<ValueId> = graph.outputs().iter().copied().collect();
        for node in graph.nodes_in_order() {
            for r in &graph.node(node).regions {
                yielded.extend(graph.region(*r).yields.iter().copied());
            }
        }
        let late = graph.late_symbols();
        let is_late = |dim: &Dim| late.iter().any(|symbol| dim.mentions(symbol));
        let (unchecked, assumptions) =
            graph.assumptions().iter().cloned().partition(|(a, b)| !late.is_empty() && (is_late(a) || is_late(b)));
        let program = Program { name: graph.name.clone(), assumptions, ..Program::default() };
        Lowering {
            graph,
            uses: graph.uses(),
            orders: Orders::of(graph),
            yielded,
            program,
            places: HashMap::new(),
            deferred: HashMap::new(),
            constants: HashMap::new(),
            done: HashSet::new(),
            steps: Vec::new(),
            waiting: HashMap::new(),
            attentions: HashMap::new(),
            known: BTreeSet::new(),
            unchecked,
            lengths: HashMap::new(),
            current: None,
        }
    }

    fn inputs(&mut self) {
        for (i, v) in self.graph.inputs().iter().enumerate() {
            let buffer = self.buffer_for(*v, Source::Input(i as u32));
            self.graph.ty(*v).dims.iter().for_each(|d| d.collect_symbols(&mut self.known));
            let name = self.graph.value(*v).name.as_deref().unwrap_or_default().to_string();
            self.program.inputs.push(self.port(name, *v, buffer));
        }
    }

    fn outputs(&mut self, yields: &[BufferId]) {
        for ((name, v), buffer) in self.graph.output_names().iter().zip(self.graph.outputs()).zip(yields) {
            let port = self.port(name.to_string(), *v, *buffer);
            self.program.outputs.push(port);
        }
    }

    fn port(&self, name: String, value: ValueId, buffer: BufferId) -> Port {
        let ty = self.graph.ty(value);
        Port { name, dtype: ty.dtype, dims: ty.dims.clone(), buffer }
    }

    // Buffers and places.

    fn buffer(&mut self, dtype: DType, len: Dim, source: Source) -> BufferId {
        self.program.buffers.push(Buffer { dtype, len, source });
        BufferId::new(self.program.buffers.len() - 1)
    }

    /// A new dense buffer that holds `value`.
    fn buffer_for(&mut self, value: ValueId, source: Source) -> BufferId {
        let ty = self.graph.ty(value);
        let (dtype, len) = (ty.dtype, ty.elements());
        let buffer = self.buffer(dtype, len, source);
        self.places.insert(value, Shown::dense(buffer, &ty.dims));
        buffer
    }

    /// A new dense place for a node's result.
    fn fresh(&mut self, value: ValueId) -> Shown {
        let buffer = self.buffer_for(value, Source::Temp);
        Shown::dense(buffer, &self.graph.ty(value).dims)
    }

    /// Where `value` is; one that is deferred or waits is computed now, a constant gets its buffer.
    fn shown(&mut self, value: ValueId) -> Result<Shown, LowerError> {
        if let Some(place) = self.places.get(&value) {
            return Ok(place.clone());
        }
        if self.deferred.contains_key(&value) {
            return self.compute(value);
        }
        if let Some(waiting) = self.waiting.remove(&value) {
            return self.finish_sum(waiting, value, None);
        }
        if let (eec_ir::graph::Def::Const(id), ty) = (self.graph.value(value).def, self.graph.ty(value)) {
            let buffer = self.constant_buffer(id);
            return Ok(Shown::dense(buffer, &ty.dims));
        }
        Err(LowerError::internal(format!("{value} has no place")))
    }

    fn constant_buffer(&mut self, id: ConstId) -> BufferId {
        if let Some(buffer) = self.constants.get(&id) {
            return *buffer;
        }
        let (tensor, hash) = (self.graph.constants().tensor(id), self.graph.constants().hash(id));
        self.program.constants.push(Constant { hash, dtype: tensor.dtype(), dims: tensor.dims().to_vec() });
        let source = Source::Constant(self.program.constants.len() as u32 - 1);
        let buffer = self.buffer(tensor.dtype(), Dim::from(tensor.len() as i64), source);
        self.constants.insert(id, buffer);
        buffer
    }

    /// `value` as a whole dense buffer; a strided view is copied.
    fn dense(&mut self, value: ValueId) -> Result<BufferId, LowerError> {
        let shown = self.shown(value)?;
        let len = &self.program.buffer(shown.view.buffer).len;
        if shown.is_dense() && *len == Dim::product(&shown.dims) {
            return Ok(shown.view.buffer);
        }
        let to = self.copy(value, &shown);
        Ok(to.view.buffer)
    }

    /// Copies a view into a new dense buffer, which becomes the value's place.
    fn copy(&mut self, value: ValueId, from: &Shown) -> Shown {
        let to = self.fresh(value);
        self.copy_into(from, &to, &(0..from.dims.len()).collect::<Vec<_>>());
        to
    }

    /// Computes an elementwise value into a new buffer, perhaps together with the product or convolution
    /// that it is made of.
    fn compute(&mut self, value: ValueId) -> Result<Shown, LowerError> {
        self.deferred.remove(&value);
        let dims = &self.graph.ty(value).dims;
        let mut b = LoopBuilder::map_along(dims, &self.orders.axes(value, dims.len()));
        b.sum = self.sum_inside(value);
        let x = self.inlined(&mut b, value)?;
        if let Some(sum) = b.sum {
            return self.fuse_sum(sum, b, x, value);
        }
        let to = self.fresh_in_order(value);
        b.store(&to, x);
        self.emit(b.finish(), Dim::from(0));
        Ok(to)
    }

    /// What is lowered, for people.
    fn name(&self) -> String {
        let source = self.current.and_then(|n| self.graph.node(n).origin.source.as_deref());
        match (self.current, source) {
            (_, Some(source)) if !source.is_empty() => source.to_string(),
            (Some(node), _) => self.graph.describe(node),
            (None, _) => String::new(),
        }
    }

    /// Adds a kernel and the step that runs it.
    fn emit(&mut self, form: Form, macs: Dim) {
        let (origin, name) = (self.current.map(|n| &self.graph.node(n).origin), self.name());
        let pass = origin.and_then(|o| o.pass.as_deref()).unwrap_or_default().to_string();
        self.program.kernels.push(Kernel { name, pass, macs, form });
        self.steps.push(Step::Run(KernelId::new(self.program.kernels.len() - 1)));
    }

    // Nodes.

    fn node(&mut self, id: NodeId) -> Result<(), LowerError> {
        if self.done.contains(&id) {
            return Ok(());
        }
        self.current = Some(id);
        let graph = self.graph;
        if !host::is_compiled(graph, id) {
            return self.host(id).map_err(|e| e.at(graph.describe(id)));
        }
        let (op, inputs) = (&graph.node(id).op, &graph.node(id).inputs);
        match op {
            Op::Neg {}
            | Op::Abs {}
            | Op::Sqrt {}
            | Op::Reciprocal {}
            | Op::Exp {}
            | Op::Log {}
            | Op::Sin {}
            | Op::Cos {} => self.elementwise(id),
            Op::Tanh {}
            | Op::Erf {}
            | Op::Sigmoid {}
            | Op::Relu {}
            | Op::Gelu { .. }
            | Op::Clip { .. }
            | Op::Not {} => self.elementwise(id),
            Op::IsNaN {}
            | Op::Cast { .. }
            | Op::Sub {}
            | Op::Mul {}
            | Op::Div {}
            | Op::Pow {}
            | Op::Max {}
            | Op::Min {} => self.elementwise(id),
            Op::And {}
            | Op::Or {}
            | Op::Equal {}
            | Op::Less {}
            | Op::LessOrEqual {}
            | Op::Greater {}
            | Op::GreaterOrEqual {} => self.elementwise(id),
            Op::Where {} | Op::GatherElements { .. } | Op::GatherND { .. } | Op::Range { .. } => self.elementwise(id),
            Op::Add {} => self.add(id),
            Op::Gather { axis } => self.gather_or_select(id, inputs, *axis),
            Op::MatMul { .. } => self.matmul(id),
            Op::Gemm { alpha, beta, trans_a, trans_b, .. } => self.gemm(id, [*alpha, *beta], [*trans_a, *trans_b]),
            Op::Conv { group, strides, dilations, pads } => self.conv(id, *group, strides, dilations, pads),
            Op::MaxPool { .. } | Op::AveragePool { .. } => self.pool(id),
            Op::Softmax { axis } => self.softmax(id, *axis, false),
            Op::LogSoftmax { axis } => self.softmax(id, *axis, true),
            Op::LayerNormalization { axis, epsilon } => self.layer_norm(id, *axis, *epsilon),
            Op::ReduceSum { axes, .. } => self.reduce(id, axes, rows::Kind::Sum),
            Op::ReduceMean { axes, .. } => self.reduce(id, axes, rows::Kind::Mean),
            Op::ReduceMax { axes, .. } => self.reduce(id, axes, rows::Kind::Max),
            Op::ReduceMin { axes, .. } => self.reduce(id, axes, rows::Kind::Min),
            Op::ArgMax { axis, .. } => self.reduce(id, &[*axis], rows::Kind::ArgMax),
            Op::CumSum { axis, exclusive, reverse } => self.cumsum(id, *axis, *exclusive, *reverse),
            Op::Reshape { dims } => self.reshape(id, dims),
            Op::Transpose { perm } => self.transpose(id, perm),
            Op::Expand { dims: _ } => self.expand(id),
            Op::Concat { axis } => self.concat(id, *axis),
            Op::Slice { axes, starts, steps, .. } => self.slice(id, axes, starts, steps),
            Op::Pad { pads } => self.pad(id, pads),
            Op::Shape { start, .. } => {
                self.sizes(id, &graph.ty(inputs[0]).dims[dim_index(*start, graph.ty(inputs[0]).rank())..])
            }
            Op::Sizes { values } => self.sizes(id, values),
            Op::Floor {} | Op::Ceil {} | Op::Round {} | Op::Sign {} => self.elementwise(id),
            Op::Tan {} | Op::Asin {} => self.host(id),
            Op::Acos {} | Op::Atan {} | Op::Sinh {} | Op::Cosh {} | Op::Asinh {} | Op::Acosh {} => self.host(id),
            Op::Atanh {} | Op::BitwiseNot {} | Op::CastUnsaturated { .. } => self.host(id),
            Op::BitCast { .. } | Op::Mod { .. } | Op::BitShift { .. } | Op::BitwiseAnd {} => self.host(id),
            Op::BitwiseOr {} | Op::BitwiseXor {} | Op::ReduceProd { .. } | Op::CumProd { .. } => self.host(id),
            Op::TopK { .. } | Op::ScatterElements { .. } | Op::ScatterND { .. } => self.host(id),
            Op::NonZero {} | Op::Unique { .. } | Op::NonMaxSuppression { .. } => self.host(id),
            Op::DeformConv { .. } | Op::RoiAlign { .. } | Op::Det {} => self.host(id),
            Op::LateSize { size, most } => self.late_size(id, size, most),
            Op::If { .. } => self.if_node(id),
            Op::Route { .. } => self.route_node(id),
            Op::Loop { trips } => self.loop_node(id, trips),
        }
        .map_err(|e| e.at(graph.describe(id)))
    }

    fn result(&self, id: NodeId) -> ValueId {
        self.graph.node(id).outputs[0]
    }

    fn input(&self, id: NodeId, index: usize) -> ValueId {
        self.graph.node(id).inputs[index]
    }

    /// Computes an elementwise node now, or leaves it to its one consumer.
    fn elementwise(&mut self, id: NodeId) -> Result<(), LowerError> {
        let node = self.graph.node(id);
        let value = node.outputs[0];
        let size = 1 + node.inputs.iter().filter_map(|v| self.deferred.get(v)).sum::<usize>();
        self.deferred.insert(value, size);
        if size >= MAX_DEFERRED || !self.can_wait(id) {
            self.compute(value)?;
        }
        Ok(())
    }

    /// The one node that reads `value`, if it stands in the same region and nothing else reads it.
    fn only_consumer(&self, value: ValueId, region: RegionId) -> Option<NodeId> {
        match self.uses[value.index()].as_slice() {
            [first, rest @ ..] if rest.iter().all(|n| n == first) && !self.yielded.contains(&value) => {
                (self.graph.node(*first).parent == region).then_some(*first)
            }
            _ => None,
        }
    }

    /// Whether the node's one consumer can compute it in its own loop without repeating work.
    fn can_wait(&self, id: NodeId) -> bool {
        let node = self.graph.node(id);
        let value = node.outputs[0];
        let Some(consumer) = self.only_consumer(value, node.parent) else { return false };
        let user = self.graph.node(consumer);
        let same_space = self.graph.ty(user.outputs[0]).dims == self.graph.ty(value).dims;
        let once = user.inputs.iter().filter(|v| **v == value).count() == 1;
        match &user.op {
            Op::Gather { .. } | Op::GatherElements { .. } | Op::GatherND { .. } => false,
            op if fuse::is_elementwise(op) => same_space,
            // Each occurrence is a loop of its own.
            Op::Concat { .. } => once,
            Op::Softmax { .. } | Op::LogSoftmax { .. } | Op::LayerNormalization { .. } => {
                self.is_cheap_tree(id) && user.inputs[0] == value
            }
            Op::ReduceSum { .. } | Op::ReduceMean { .. } | Op::ReduceMax { .. } | Op::ReduceMin { .. } => true,
            // Operands that are rounded are rounded after they are scaled.
            Op::MatMul { weights } => once && *weights != Precision::Bf16 && self.scale_of(id).is_some(),
            _ => false,
        }
    }
}

impl Lowering<'_> {
    /// Whether the node and all that was deferred into it are cheap to compute again.
    fn is_cheap_tree(&self, id: NodeId) -> bool {
        let node = self.graph.node(id);
        let deferred = node.inputs.iter().filter(|v| self.deferred.contains_key(v));
        fuse::is_cheap(&node.op) && deferred.filter_map(|v| self.graph.def_node(*v)).all(|n| self.is_cheap_tree(n))
    }
}

/// A dim position that may count from the end, clamped to `0..=rank`.
fn dim_index(index: i64, rank: usize) -> usize {
    let rank = rank as i64;
    (if index < 0 { index + rank } else { index }).clamp(0, rank) as usize
}
