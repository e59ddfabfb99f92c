//! The graph: one arena of values, nodes, regions and constants, edited through a few mutators.
//!
//! Every value has a type from the moment it exists, because [`Graph::append`] infers it. The root
//! region's parameters are the graph's inputs, its yields the outputs. A region sees the values of
//! the regions around it. Nodes of a region are in execution order: definitions before uses.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use crate::constant::ConstPool;
use crate::dim::{Dim, Symbol};
use crate::entity::{ConstId, NodeId, RegionId, ValueId};
use crate::op::Op;
use crate::ops::{self, Facts, InferError};
use crate::tensor::Tensor;
use crate::types::Type;

/// Where a value comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Def {
    /// The result `1` of node `0`.
    Node(NodeId, usize),
    /// Parameter `1` of region `0`; for the root region a graph input.
    Param(RegionId, usize),
    /// A pooled constant.
    Const(ConstId),
}

/// A value: its definition, its type and what is known of its contents.
#[derive(Clone, Debug)]
pub struct Value {
    /// Where it comes from.
    pub def: Def,
    /// Its type.
    pub ty: Type,
    /// The elements of a small integer or boolean tensor as sizes, if they are known.
    pub contents: Option<Vec<Dim>>,
    /// A name for people; inputs and outputs have one.
    pub name: Option<Arc<str>>,
}

/// Which source node a node stands for, and which pass made it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Origin {
    /// The path of the node in the source model.
    pub source: Option<Arc<str>>,
    /// The pass that inserted it; `None` for nodes of the source model.
    pub pass: Option<Arc<str>>,
}

impl Origin {
    /// A node of the source model.
    pub fn source(path: &str) -> Self {
        Origin { source: Some(path.into()), pass: None }
    }

    /// A node that `pass` inserts for what stands at `path`.
    pub fn pass(pass: &str, path: &str) -> Self {
        Origin { source: Some(path.into()), pass: Some(pass.into()) }
    }
}

/// A node: one operator applied to values.
#[derive(Clone, Debug)]
pub struct Node {
    /// The operator.
    pub op: Op,
    /// Operands.
    pub inputs: Vec<ValueId>,
    /// Results.
    pub outputs: Vec<ValueId>,
    /// The regions that a control operator owns.
    pub regions: Vec<RegionId>,
    /// The region it stands in.
    pub parent: RegionId,
    /// Provenance.
    pub origin: Origin,
}

/// A region: parameters, nodes in execution order, and the values it yields.
#[derive(Clone, Debug, Default)]
pub struct Region {
    /// Parameters.
    pub params: Vec<ValueId>,
    /// Nodes in execution order.
    pub nodes: Vec<NodeId>,
    /// The values it yields to its owner; the root's are the graph's outputs.
    pub yields: Vec<ValueId>,
    /// The node that owns it; `None` for the root, and for a region not attached yet.
    pub owner: Option<NodeId>,
    /// The symbol that stands for its number of rows, for a region of a `Route`.
    pub rows: Option<Symbol>,
    /// For the `join` of a `Route`: the symbol that stands where `then` and `else` yield different sizes.
    pub length: Option<Symbol>,
}

/// A graph.
///
/// ```
/// use eec_ir::{DType, Dim, Graph, Op, Origin, Tensor, Type, eval};
///
/// let mut graph = Graph::new("double");
/// let x = graph.add_input("x", Type::new(DType::F32, [Dim::symbol("n")]));
/// let two = graph.constant(Tensor::scalar(2.0f32));
/// let y = graph.append1(Graph::ROOT, Op::Mul {}, &[x, two], Origin::source("mul"))?;
/// graph.set_outputs(vec![("y".into(), y)]);
/// let outputs = eval::evaluate(&graph, &[Tensor::vector(vec![1.0f32, 1.5])])?;
/// assert_eq!(outputs[0], Tensor::vector(vec![2.0f32, 3.0]));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Graph {
    /// The model's name.
    pub name: String,
    values: Vec<Value>,
    nodes: Vec<Node>,
    regions: Vec<Region>,
    constants: ConstPool,
    constant_values: HashMap<ConstId, ValueId>,
    output_names: Vec<Arc<str>>,
    assumptions: Vec<(Dim, Dim)>,
    symbols: BTreeSet<Symbol>,
}

/// Contents with larger expressions than this are not kept, so that no chain of products of sizes
/// grows without bound.
const MAX_KNOWN_PARTS: usize = 200;

/// Why an edit was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EditError {
    /// The new value's type differs from the old one's.
    #[error("{new} of type {new_ty} cannot replace {old} of type {old_ty}")]
    TypeChange {
        /// Value to be replaced.
        old: ValueId,
        /// Its type.
        old_ty: String,
        /// Replacement.
        new: ValueId,
        /// Its type.
        new_ty: String,
    },
    /// The node's results are still used.
    #[error("{0} cannot be removed: its results are used")]
    InUse(NodeId),
}

impl Graph {
    /// The root region's id.
    pub const ROOT: RegionId = RegionId(0);

    /// An empty graph.
    pub fn new(name: &str) -> Self {
        Graph {
            name: name.to_string(),
            values: Vec::new(),
            nodes: Vec::new(),
            regions: vec![Region::default()],
            constants: ConstPool::default(),
            constant_values: HashMap::new(),
            output_names: Vec::new(),
            assumptions: Vec::new(),
            symbols: BTreeSet::new(),
        }
    }

    // Reading.

    /// A value.
    pub fn value(&self, id: ValueId) -> &Value {
        &self.values[id.index()]
    }

    /// A value's type.
    pub fn ty(&self, id: ValueId) -> &Type {
        &self.value(id).ty
    }

    /// A node.
    pub fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id.index()]
    }

    /// A region.
    pub fn region(&self, id: RegionId) -> &Region {
        &self.regions[id.index()]
    }

    /// The number of values ever made; ids are below it.
    pub fn value_count(&self) -> usize {
        self.values.len()
    }

    /// The number of nodes ever made; ids are below it, removed ones included.
    pub fn node_count(&self) -> usize {
        self.nodes.len()
    }

    /// The inputs.
    pub fn inputs(&self) -> &[ValueId] {
        &self.regions[0].params
    }

    /// The outputs.
    pub fn outputs(&self) -> &[ValueId] {
        &self.regions[0].yields
    }

    /// The outputs' names, one per output.
    pub fn output_names(&self) -> &[Arc<str>] {
        &self.output_names
    }

    /// The constants.
    pub fn constants(&self) -> &ConstPool {
        &self.constants
    }

    /// The tensor of a constant value.
    pub fn as_constant(&self, value: ValueId) -> Option<&Tensor> {
        match self.value(value).def {
            Def::Const(id) => Some(self.constants.tensor(id)),
            Def::Node(..) | Def::Param(..) => None,
        }
    }

    /// The node that defines a value.
    pub fn def_node(&self, value: ValueId) -> Option<NodeId> {
        match self.value(value).def {
            Def::Node(node, _) => Some(node),
            Def::Const(_) | Def::Param(..) => None,
        }
    }

    /// Pairs of sizes that inference took to be equal; checked when a run binds its input dims.
    pub fn assumptions(&self) -> &[(Dim, Dim)] {
        &self.assumptions
    }

    /// All live nodes, outer before inner, in execution order.
    pub fn nodes_in_order(&self) -> Vec<NodeId> {
        let mut out = Vec::new();
        self.visit(Graph::ROOT, &mut |n| out.push(n));
        out
    }

    /// Calls `f` for the nodes of `region` and of the regions inside it, in execution order.
    pub fn visit(&self, region: RegionId, f: &mut dyn FnMut(NodeId)) {
        for node in &self.region(region).nodes {
            f(*node);
            for inner in &self.node(*node).regions {
                self.visit(*inner, f);
            }
        }
    }

    /// For every value, the live nodes that take it as an operand (once per operand). Yields are
    /// not counted.
    pub fn uses(&self) -> Vec<Vec<NodeId>> {
        let mut uses = vec![Vec::new(); self.values.len()];
        self.visit(Graph::ROOT, &mut |n| {
            for v in &self.node(n).inputs {
                uses[v.index()].push(n);
            }
        });
        uses
    }

    /// A node's path for messages: its source name and operator.
    pub fn describe(&self, node: NodeId) -> String {
        let n = self.node(node);
        match &n.origin.source {
            Some(s) if !s.is_empty() => format!("{} ({s})", n.op),
            _ => format!("{} {node}", n.op),
        }
    }

    // Editing.

    fn new_value(&mut self, def: Def, facts: Facts) -> ValueId {
        let contents = facts.contents.filter(|c| c.iter().all(|d| d.parts() <= MAX_KNOWN_PARTS));
        self.values.push(Value { def, ty: facts.ty, contents, name: None });
        ValueId::new(self.values.len() - 1)
    }

    /// Adds a graph input.
    pub fn add_input(&mut self, name: &str, ty: Type) -> ValueId {
        let value = self.add_param(Graph::ROOT, ty);
        self.set_name(value, name);
        value
    }

    /// Adds a parameter to a region.
    pub fn add_param(&mut self, region: RegionId, ty: Type) -> ValueId {
        let index = self.region(region).params.len();
        ty.dims.iter().for_each(|d| d.collect_symbols(&mut self.symbols));
        let value = self.new_value(Def::Param(region, index), Facts::of(ty));
        self.regions[region.index()].params.push(value);
        value
    }

    /// The value of a constant; equal tensors give the same value.
    pub fn constant(&mut self, tensor: Tensor) -> ValueId {
        let facts = ops::constant_facts(&tensor);
        let id = self.constants.intern(tensor);
        if let Some(v) = self.constant_values.get(&id) {
            return *v;
        }
        let value = self.new_value(Def::Const(id), facts);
        self.constant_values.insert(id, value);
        value
    }

    /// Sets the name people see for a value.
    pub fn set_name(&mut self, value: ValueId, name: &str) {
        self.values[value.index()].name = Some(name.into());
    }

    /// Sets where a node comes from.
    pub fn set_origin(&mut self, node: NodeId, origin: Origin) {
        self.nodes[node.index()].origin = origin;
    }

    /// Appends a node to a region; its results' types are inferred.
    pub fn append(
        &mut self,
        region: RegionId,
        op: Op,
        inputs: &[ValueId],
        origin: Origin,
    ) -> Result<NodeId, InferError> {
        let facts: Vec<Facts> = inputs.iter().map(|v| Facts::from_value(self.value(*v))).collect();
        let inference = ops::infer(&op, &facts)?;
        if !inference.outputs.iter().all(|f| f.ty.is_manageable()) {
            return Err(InferError::new(&op, "the result has too many dims, or their expressions are too large"));
        }
        for (a, b) in inference.assumptions {
            self.assume_equal(a, b);
        }
        self.symbols.extend(op.late_symbol().cloned());
        Ok(self.push_node(region, op, inputs, Vec::new(), inference.outputs, origin))
    }

    /// Like [`Graph::append`], for an operator with one result, which is returned.
    pub fn append1(
        &mut self,
        region: RegionId,
        op: Op,
        inputs: &[ValueId],
        origin: Origin,
    ) -> Result<ValueId, InferError> {
        let node = self.append(region, op, inputs, origin)?;
        Ok(self.node(node).outputs[0])
    }

    /// Appends a control node that owns `regions`; results have the types that the regions yield.
    pub fn append_control(
        &mut self,
        region: RegionId,
        op: Op,
        inputs: &[ValueId],
        regions: Vec<RegionId>,
        origin: Origin,
    ) -> Result<NodeId, InferError> {
        let outputs = ops::control::infer(self, &op, inputs, &regions)?;
        let node = self.push_node(region, op, inputs, regions.clone(), outputs, origin);
        for r in regions {
            self.regions[r.index()].owner = Some(node);
        }
        Ok(node)
    }

    fn push_node(
        &mut self,
        parent: RegionId,
        op: Op,
        inputs: &[ValueId],
        regions: Vec<RegionId>,
        facts: Vec<Facts>,
        origin: Origin,
    ) -> NodeId {
        let id = NodeId::new(self.nodes.len());
        let outputs = facts.into_iter().enumerate().map(|(i, f)| self.new_value(Def::Node(id, i), f)).collect();
        self.nodes.push(Node { op, inputs: inputs.to_vec(), outputs, regions, parent, origin });
        self.regions[parent.index()].nodes.push(id);
        id
    }

    /// A new region, to be filled and then attached by [`Graph::append_control`]. `rows` is the
    /// symbol of its row count if it is to belong to a `Route`.
    pub fn new_region(&mut self, rows: Option<Symbol>) -> RegionId {
        self.new_join(rows, None)
    }

    /// A new region as [`Graph::new_region`] makes it, with a length symbol if it is to be the join
    /// of a `Route` whose other regions yield different sizes.
    pub fn new_join(&mut self, rows: Option<Symbol>, length: Option<Symbol>) -> RegionId {
        self.symbols.extend(rows.iter().chain(&length).cloned());
        self.regions.push(Region { rows, length, ..Region::default() });
        RegionId::new(self.regions.len() - 1)
    }

    /// A symbol that nothing uses yet: `prefix` and the first number that is free.
    pub fn fresh_symbol(&mut self, prefix: &str) -> Symbol {
        let mut number = 0u64;
        loop {
            let symbol = Symbol::new(&format!("{prefix}{number}"));
            if self.symbols.insert(symbol.clone()) {
                return symbol;
            }
            number += 1;
        }
    }

    /// Sets what a region yields.
    pub fn set_yields(&mut self, region: RegionId, yields: Vec<ValueId>) {
        self.regions[region.index()].yields = yields;
    }

    /// Sets the graph's outputs and their names.
    pub fn set_outputs(&mut self, outputs: Vec<(String, ValueId)>) {
        self.output_names = outputs.iter().map(|(n, _)| n.as_str().into()).collect();
        self.set_yields(Graph::ROOT, outputs.into_iter().map(|(_, v)| v).collect());
    }

    /// Notes that two sizes are taken to be equal.
    pub fn assume_equal(&mut self, a: Dim, b: Dim) {
        let pair = (a, b);
        if pair.0 != pair.1 && !self.assumptions.contains(&pair) {
            self.assumptions.push(pair);
        }
    }

    /// Forgets what was assumed for nodes that are not kept: all but the first `kept` pairs.
    pub fn forget_assumptions(&mut self, kept: usize) {
        self.assumptions.truncate(kept);
    }

    /// Makes every use of `old`, yields included, a use of `new`; the types must be equal.
    pub fn replace_uses(&mut self, old: ValueId, new: ValueId) -> Result<(), EditError> {
        if self.ty(old) != self.ty(new) {
            let (old_ty, new_ty) = (self.ty(old).to_string(), self.ty(new).to_string());
            return Err(EditError::TypeChange { old, old_ty, new, new_ty });
        }
        let swap = |v: &mut ValueId| {
            if *v == old {
                *v = new;
            }
        };
        self.nodes.iter_mut().flat_map(|n| &mut n.inputs).for_each(swap);
        self.regions.iter_mut().flat_map(|r| &mut r.yields).for_each(swap);
        Ok(())
    }

    /// Moves the node that was appended last in its region to stand before `at` in the same region.
    pub fn move_last_before(&mut self, at: NodeId) {
        let region = &mut self.regions[self.nodes[at.index()].parent.index()];
        if let (Some(to), Some(last)) = (region.nodes.iter().position(|n| *n == at), region.nodes.pop()) {
            region.nodes.insert(to, last);
        }
    }

    /// Removes nodes whose results nothing uses, in all regions; those that make sizes stay, for types and
    /// attributes may mention them. Returns how many.
    pub fn remove_dead(&mut self) -> usize {
        let mut live = vec![false; self.values.len()];
        let mut removed = 0;
        let late = self.late_symbols();
        self.mark_and_sweep(Graph::ROOT, &mut live, &mut removed);
        if removed > 0 && !late.is_empty() {
            let gone: Vec<Symbol> = late.difference(&self.late_symbols()).cloned().collect();
            let stands = |dim: &Dim| !gone.iter().any(|symbol| dim.mentions(symbol));
            self.assumptions.retain(|(a, b)| stands(a) && stands(b));
        }
        removed
    }

    /// The symbols that get their values from data while the graph runs.
    pub fn late_symbols(&self) -> BTreeSet<Symbol> {
        self.late_symbols_in(Graph::ROOT)
    }

    /// Those that get them in a region, or in the regions inside it.
    pub fn late_symbols_in(&self, region: RegionId) -> BTreeSet<Symbol> {
        let mut found = BTreeSet::new();
        self.visit(region, &mut |n| found.extend(self.node(n).op.late_symbol().cloned()));
        found
    }

    fn mark_and_sweep(&mut self, region: RegionId, live: &mut [bool], removed: &mut usize) {
        for v in &self.regions[region.index()].yields {
            live[v.index()] = true;
        }
        let nodes = std::mem::take(&mut self.regions[region.index()].nodes);
        let mut kept = Vec::with_capacity(nodes.len());
        for id in nodes.into_iter().rev() {
            let node = &self.nodes[id.index()];
            if node.op.late_symbol().is_none() && !node.outputs.iter().any(|v| live[v.index()]) {
                *removed += 1;
                continue;
            }
            node.inputs.iter().for_each(|v| live[v.index()] = true);
            for inner in node.regions.clone() {
                self.mark_and_sweep(inner, live, removed);
            }
            kept.push(id);
        }
        kept.reverse();
        self.regions[region.index()].nodes = kept;
    }
}
