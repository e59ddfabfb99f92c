//! Copies parts of the model to where an exit needs them: rest segments, pooled features, heads.

use eec_ir::{Graph, NodeId, Op, Origin, RegionId, Symbol, Type, ValueId};

use super::feature::{self, Pooling};
use super::head::{self, Head};
use super::{ExitError, feature::feature};
use crate::clone::{self, CloneError, Substitution, ValueMap};
use crate::emit::Emit;
use crate::structure::{Batch, Structure, flow};

/// A place in the target: a region, what its values are called in the source, and its rows.
#[derive(Clone)]
pub(crate) struct Scope {
    pub(crate) region: RegionId,
    pub(crate) map: ValueMap,
    /// What stands for the batch here; `None` for the batch itself.
    pub(crate) rows: Option<Substitution>,
}

impl Scope {
    /// The counterpart of a source value that must be here.
    pub(crate) fn get(&self, source: &Graph, value: ValueId, wanted_by: &str) -> Result<ValueId, ExitError> {
        let missing = || CloneError::Unmapped { node: format!("{wanted_by} of {}", source.name), value };
        Ok(self.map.get(&value).copied().ok_or_else(missing)?)
    }

    /// A type of the source in this scope.
    pub(crate) fn ty(&self, ty: &Type) -> Type {
        Type::new(ty.dtype, ty.dims.iter().map(|d| Substitution::apply(self.rows.as_ref(), d)))
    }
}

/// A source model and the graph that gets copies of its parts.
pub(crate) struct Attach<'a> {
    pub(crate) source: &'a Graph,
    pub(crate) structure: &'a Structure,
    pub(crate) target: &'a mut Graph,
    pub(crate) pass: &'static str,
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
    ) -> Result<(), ExitError> {
        for node in nodes {
            let numbering = self.numbering(*node, scope);
            let mut map = if numbering.is_empty() { std::mem::take(&mut scope.map) } else { scope.map.clone() };
            let both: Vec<NodeId> = numbering.iter().chain([node]).copied().collect();
            let rows = scope.rows.as_ref();
            clone::clone_nodes(self.source, &both, self.target, scope.region, &mut map, rows, origin)?;
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
    pub(crate) fn feature(&mut self, scope: &Scope, block: usize, path: &str) -> Result<(ValueId, usize), ExitError> {
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
    ) -> Result<ValueId, ExitError> {
        let mut inner = scope.clone();
        inner.map.insert(self.structure.tail_input(), x);
        let origin = self.emit(scope.region, path).origin("tail");
        self.clone_into(nodes, &mut inner, Some(&origin))?;
        inner.get(self.source, value, path)
    }

    /// The logits of `head` at the exit after `block`.
    pub(crate) fn logits(
        &mut self,
        scope: &Scope,
        block: usize,
        head: &Head,
        path: &str,
    ) -> Result<ValueId, ExitError> {
        let misfit = |reason| ExitError::Head { head: head.name(), block, reason };
        let count = self.structure.blocks.len();
        let at = self.structure.blocks.get(block).ok_or(ExitError::NoBlock { block, count })?;
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
