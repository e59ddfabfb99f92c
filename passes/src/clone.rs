//! Copies nodes of one graph into a region of another, with values mapped and the batch's symbol
//! replaced; types are inferred anew.

use std::collections::HashMap;

use eec_ir::graph::Def;
use eec_ir::ops::InferError;
use eec_ir::{Dim, Graph, NodeId, Op, Origin, RegionId, Symbol, ValueId};

/// For values of the source, their counterparts in the target.
pub type ValueMap = HashMap<ValueId, ValueId>;

/// What stands for a symbol in the copy.
#[derive(Clone, Debug)]
pub struct Substitution {
    /// The symbol in the source.
    pub from: Symbol,
    /// The size in the target.
    pub to: Dim,
}

impl Substitution {
    /// `dim` with the symbol replaced.
    pub fn apply(&self, dim: &Dim) -> Dim {
        dim.substitute(&|symbol| (*symbol == self.from).then(|| self.to.clone()))
    }

    /// `dim` with one symbol after the other replaced.
    pub fn apply_all(list: &[Substitution], dim: &Dim) -> Dim {
        list.iter().fold(dim.clone(), |dim, s| s.apply(&dim))
    }
}

/// What is different in the copy.
#[derive(Clone, Copy, Debug, Default)]
pub struct Changes<'a> {
    /// Sizes that are replaced, one after the other.
    pub sizes: &'a [Substitution],
    /// Nodes whose operator is another.
    pub ops: Option<&'a HashMap<NodeId, Op>>,
    /// The origin of all nodes, instead of their own.
    pub origin: Option<&'a Origin>,
}

impl Changes<'_> {
    fn dim(&self, dim: &Dim) -> Dim {
        Substitution::apply_all(self.sizes, dim)
    }
}

/// Why a copy failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CloneError {
    /// An operand has no counterpart.
    #[error("{node}: its operand {value} is not available here")]
    Unmapped {
        /// Node.
        node: String,
        /// Operand in the source.
        value: ValueId,
    },
    /// The copy does not type-check.
    #[error("{node}: {error}")]
    Infer {
        /// Node.
        node: String,
        /// Inference's reason.
        error: InferError,
    },
}

/// The counterpart of `value`: mapped, or a constant that is added to `target`.
pub fn counterpart(source: &Graph, target: &mut Graph, map: &mut ValueMap, value: ValueId) -> Option<ValueId> {
    if let Some(v) = map.get(&value) {
        return Some(*v);
    }
    let tensor = source.as_constant(value)?.clone();
    let new = target.constant(tensor);
    map.insert(value, new);
    Some(new)
}

/// Appends a copy of every node of `nodes`, which are in execution order, and maps its results.
pub fn clone_nodes(
    source: &Graph,
    nodes: &[NodeId],
    target: &mut Graph,
    region: RegionId,
    map: &mut ValueMap,
    changes: Changes<'_>,
) -> Result<(), CloneError> {
    let mut cloner = Cloner { source, target, map, changes };
    nodes.iter().try_for_each(|id| cloner.node(*id, region))
}

struct Cloner<'a> {
    source: &'a Graph,
    target: &'a mut Graph,
    map: &'a mut ValueMap,
    changes: Changes<'a>,
}

impl Cloner<'_> {
    fn node(&mut self, id: NodeId, region: RegionId) -> Result<(), CloneError> {
        let node = self.source.node(id);
        let describe = || self.source.describe(id);
        let infer = |error| CloneError::Infer { node: describe(), error };
        let mut inputs = Vec::with_capacity(node.inputs.len());
        for v in &node.inputs {
            let found = counterpart(self.source, self.target, self.map, *v);
            inputs.push(found.ok_or_else(|| CloneError::Unmapped { node: describe(), value: *v })?);
        }
        let mut op = self.changes.ops.and_then(|ops| ops.get(&id)).unwrap_or(&node.op).clone();
        op.map_dims(&mut |d| self.changes.dim(d));
        let origin = self.changes.origin.unwrap_or(&node.origin).clone();
        let new = if node.regions.is_empty() {
            self.target.append(region, op, &inputs, origin).map_err(infer)?
        } else {
            let regions = node.regions.iter().map(|r| self.region(*r, id)).collect::<Result<Vec<_>, _>>()?;
            self.target.append_control(region, op, &inputs, regions, origin).map_err(infer)?
        };
        let outputs = self.target.node(new).outputs.clone();
        for (old, new) in node.outputs.iter().zip(outputs) {
            if let Some(name) = &self.source.value(*old).name
                && region == Graph::ROOT
            {
                self.target.set_name(new, name);
            }
            self.map.insert(*old, new);
        }
        Ok(())
    }

    /// A copy of a control node's region, which keeps its own row symbol.
    fn region(&mut self, id: RegionId, owner: NodeId) -> Result<RegionId, CloneError> {
        let region = self.source.region(id);
        let new = self.target.new_join(region.rows.clone(), region.length.clone());
        for param in &region.params {
            let mut ty = self.source.ty(*param).clone();
            ty.dims.iter_mut().for_each(|d| *d = self.changes.dim(d));
            let value = self.target.add_param(new, ty);
            self.map.insert(*param, value);
        }
        region.nodes.iter().try_for_each(|n| self.node(*n, new))?;
        let mut yields = Vec::with_capacity(region.yields.len());
        for v in &region.yields {
            let found = counterpart(self.source, self.target, self.map, *v);
            yields.push(found.ok_or_else(|| CloneError::Unmapped { node: self.source.describe(owner), value: *v })?);
        }
        self.target.set_yields(new, yields);
        Ok(new)
    }
}

/// A graph with the inputs of `source` and nothing else, and the map of those inputs.
pub fn with_inputs(source: &Graph) -> (Graph, ValueMap) {
    let mut target = Graph::new(&source.name);
    let mut map = ValueMap::new();
    for input in source.inputs() {
        let value = source.value(*input);
        debug_assert!(matches!(value.def, Def::Param(..)));
        let name = value.name.as_deref().unwrap_or_default();
        map.insert(*input, target.add_input(name, value.ty.clone()));
    }
    (target, map)
}

/// A row symbol that no region of the model uses either.
pub(crate) fn fresh_rows(source: &Graph, target: &mut Graph) -> Symbol {
    fresh_symbol(source, target, "r")
}

/// A symbol that no region of the model uses either.
pub(crate) fn fresh_symbol(source: &Graph, target: &mut Graph, prefix: &str) -> Symbol {
    let carries = |node: &NodeId, symbol: &Symbol| {
        let regions = source.node(*node).regions.iter().map(|r| source.region(*r));
        regions.flat_map(|r| r.rows.iter().chain(&r.length)).any(|s| s == symbol)
    };
    let nodes = source.nodes_in_order();
    loop {
        let symbol = target.fresh_symbol(prefix);
        if !nodes.iter().any(|n| carries(n, &symbol)) {
            return symbol;
        }
    }
}
