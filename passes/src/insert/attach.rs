//! Copies parts of the model to where an exit needs them: rest segments, pooled features, heads.

use std::collections::HashMap;

use eec_ir::{Dim, Graph, NodeId, Op, Origin, RegionId, Symbol, Type, ValueId};

use super::{Emit, InsertError};
use crate::clone::{self, Changes, CloneError, Substitution, ValueMap};
use crate::exit_heads::Tap;
use crate::exit_heads::feature::{self, Pooling, feature};
use crate::exit_heads::head::{self, Head};
use crate::structure::{Batch, Structure, flow};

/// A place in the target: a region, what its values are called in the source, and its rows.
#[derive(Clone)]
pub(crate) struct Scope {
    pub(crate) region: RegionId,
    pub(crate) map: ValueMap,
    /// What stands for the batch here; `None` for the batch itself.
    pub(crate) rows: Option<Substitution>,
    /// What stands for the length of the sequence here, if it can change.
    pub(crate) length: Option<Substitution>,
}

impl Scope {
    /// The counterpart of a source value that must be here.
    pub(crate) fn get(&self, source: &Graph, value: ValueId, wanted_by: &str) -> Result<ValueId, InsertError> {
        let missing = || CloneError::Unmapped { node: format!("{wanted_by} of {}", source.name), value };
        Ok(self.map.get(&value).copied().ok_or_else(missing)?)
    }

    /// What stands for sizes of the source here.
    pub(crate) fn sizes(&self) -> Vec<Substitution> {
        self.rows.iter().chain(&self.length).cloned().collect()
    }

    /// The number of rows here.
    pub(crate) fn rows_dim(&self, structure: &Structure) -> Dim {
        self.rows.as_ref().map_or_else(|| structure.batch.dim(), |rows| rows.to.clone())
    }

    /// A type of the source in this scope.
    pub(crate) fn ty(&self, ty: &Type) -> Type {
        let sizes = self.sizes();
        Type::new(ty.dtype, ty.dims.iter().map(|d| Substitution::apply_all(&sizes, d)))
    }
}

/// A source model and the graph that gets copies of its parts.
pub(crate) struct Attach<'a> {
    pub(crate) source: &'a Graph,
    pub(crate) structure: &'a Structure,
    pub(crate) target: &'a mut Graph,
    pub(crate) pass: &'static str,
    /// Operators in which the length of the sequence stands as a symbol.
    pub(crate) ops: Option<&'a HashMap<NodeId, Op>>,
}

/// The scope of a graph's own clone: every value stands for itself.
pub(crate) fn whole(graph: &Graph) -> Scope {
    let map: ValueMap = (0..graph.value_count()).map(|i| (ValueId::new(i), ValueId::new(i))).collect();
    Scope { region: Graph::ROOT, map, rows: None, length: None }
}

impl Attach<'_> {
    /// An emitter for nodes at `path` in `region`.
    pub(crate) fn emit(&mut self, region: RegionId, path: &str) -> Emit<'_> {
        Emit::new(self.target, region, self.pass, path.to_string())
    }

    /// Copies source nodes into a scope. Row numbers among their indices are counted anew there.
    pub(crate) fn clone_into(
        &mut self,
        nodes: &[NodeId],
        scope: &mut Scope,
        origin: Option<&Origin>,
    ) -> Result<(), InsertError> {
        for node in nodes {
            let numbering = self.numbering(*node, scope);
            let mut map = if numbering.is_empty() { std::mem::take(&mut scope.map) } else { scope.map.clone() };
            let both: Vec<NodeId> = numbering.iter().chain([node]).copied().collect();
            let changes = Changes { sizes: &scope.sizes(), ops: self.ops, origin };
            clone::clone_nodes(self.source, &both, self.target, scope.region, &mut map, changes)?;
            if numbering.is_empty() {
                scope.map = map;
            } else {
                let outputs = &self.source.node(*node).outputs;
                scope.map.extend(outputs.iter().filter_map(|v| Some((*v, *map.get(v)?))));
            }
        }
        Ok(())
    }

    fn numbering(&self, node: NodeId, scope: &Scope) -> Vec<NodeId> {
        match (&self.structure.batch, &scope.rows) {
            (Batch::Symbolic(batch), Some(_)) => row_numbering(self.source, batch, node),
            (Batch::Symbolic(_), None) | (Batch::Fixed(_), _) => Vec::new(),
        }
    }

    /// The feature `[rows, width]` at the exit after `block`, and its width.
    pub(crate) fn feature(&mut self, scope: &Scope, block: usize, path: &str) -> Result<(ValueId, usize), InsertError> {
        let plan = feature(self.source, self.structure, block)?;
        let x = scope.get(self.source, self.structure.blocks[block].output, path)?;
        let value = match &plan.pooling {
            Pooling::None => x,
            Pooling::Mean { axes } => feature::mean(&mut self.emit(scope.region, path), axes, x)?,
            Pooling::Own { nodes, value } => self.tail(scope, x, nodes, *value, path)?,
        };
        Ok((value, plan.width))
    }

    /// A part of the tail, up to `value`, applied to `x` in the place of the tail's input.
    fn tail(
        &mut self,
        scope: &Scope,
        x: ValueId,
        nodes: &[NodeId],
        value: ValueId,
        path: &str,
    ) -> Result<ValueId, InsertError> {
        let mut inner = scope.clone();
        inner.map.insert(self.structure.tail_input(), x);
        let origin = self.emit(scope.region, path).origin("tail");
        self.clone_into(nodes, &mut inner, Some(&origin))?;
        inner.get(self.source, value, path)
    }

    /// What `tap` reads.
    pub(crate) fn tap(&mut self, scope: &Scope, tap: &Tap) -> Result<ValueId, InsertError> {
        match tap {
            Tap::Feature(block) => Ok(self.feature(scope, *block, &tap.output())?.0),
            Tap::Logits(block, head) => self.logits(scope, *block, head, &tap.output()),
        }
    }

    /// The same copies under the name of another pass.
    pub(crate) fn named(&mut self, pass: &'static str) -> Attach<'_> {
        Attach { source: self.source, structure: self.structure, target: self.target, pass, ops: self.ops }
    }

    /// The logits of `head` at the exit after `block`.
    pub(crate) fn logits(
        &mut self,
        scope: &Scope,
        block: usize,
        head: &Head,
        path: &str,
    ) -> Result<ValueId, InsertError> {
        let misfit = |reason| InsertError::Head { head: head.name(), block, reason };
        let count = self.structure.blocks.len();
        let at = self.structure.blocks.get(block).ok_or(InsertError::NoBlock { block, count })?;
        let logits = match head {
            Head::Linear { .. } | Head::Mlp { .. } => {
                let (x, width) = self.feature(scope, block, path)?;
                if head.width() != Some(width) {
                    return Err(misfit(format!("the feature has width {width}, its weight takes {:?}", head.width())));
                }
                head::on_feature(&mut self.emit(scope.region, path), head, x)?.unwrap_or(x)
            }
            Head::Final => {
                let (input, output) = (self.structure.tail_input(), self.structure.output);
                let (found, wanted) = (self.source.ty(at.output), self.source.ty(input));
                if found != wanted {
                    return Err(misfit(format!("the model's tail takes {wanted}, the exit's value has type {found}")));
                }
                let x = scope.get(self.source, at.output, path)?;
                let nodes = flow::between(self.source, input, output);
                self.tail(scope, x, &nodes, output, path)?
            }
            Head::Custom(graph) => {
                let x = scope.get(self.source, at.output, path)?;
                head::custom(&mut self.emit(scope.region, path), graph, x).map_err(misfit)?
            }
        };
        let (wanted, found) = (scope.ty(self.source.ty(self.structure.output)), self.target.ty(logits));
        if *found != wanted {
            return Err(misfit(format!("expected logits of type {wanted}, found {found}")));
        }
        Ok(logits)
    }
}

/// The nodes that number the rows of a batch for the indices of a `GatherND`: those between a
/// `Range` over the batch and the indices. A region that gets some of the rows must count its own.
pub(crate) fn row_numbering(graph: &Graph, batch: &Symbol, node: NodeId) -> Vec<NodeId> {
    let n = graph.node(node);
    let (Op::GatherND { batch_dims: 0 }, Some(indices)) = (&n.op, n.inputs.get(1)) else {
        return Vec::new();
    };
    let root = &graph.region(Graph::ROOT).nodes;
    let counts = |id: &&NodeId| matches!(&graph.node(**id).op, Op::Range { limit, .. } if limit.mentions(batch));
    let seeds: Vec<ValueId> = root.iter().filter(counts).flat_map(|id| graph.node(*id).outputs.clone()).collect();
    let (from_count, before) = (flow::dependents(graph, &seeds), flow::ancestors(graph, &[*indices]));
    let on_way = |id: &NodeId| graph.node(*id).outputs.iter().any(|v| from_count[v.index()] && before[v.index()]);
    root.iter().copied().filter(on_way).collect()
}
