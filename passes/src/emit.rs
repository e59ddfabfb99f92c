//! Appends the nodes that passes insert, with their provenance: every node carries the name of the pass
//! and the path of what it was inserted for.

use eec_ir::ops::InferError;
use eec_ir::{Dim, Graph, Op, Origin, RegionId, Tensor, Type, ValueId};

/// An inserted node does not type-check.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("at {at}: {error}")]
pub struct EmitError {
    /// Path of the inserted node.
    pub at: String,
    /// Reason.
    pub error: InferError,
}

/// Where new nodes go and what they are called.
#[derive(Debug)]
pub struct Emit<'g> {
    pub(crate) graph: &'g mut Graph,
    pub(crate) region: RegionId,
    pass: &'static str,
    path: String,
}

impl<'g> Emit<'g> {
    /// Nodes of `pass` at `path`, appended to `region`.
    pub fn new(graph: &'g mut Graph, region: RegionId, pass: &'static str, path: String) -> Self {
        Emit { graph, region, pass, path }
    }

    /// The provenance of a node called `name`.
    pub fn origin(&self, name: &str) -> Origin {
        Origin::pass(self.pass, &format!("{}/{name}", self.path))
    }

    /// Appends an operator with one result.
    pub fn op(&mut self, name: &str, op: Op, inputs: &[ValueId]) -> Result<ValueId, EmitError> {
        let origin = self.origin(name);
        let at = format!("{}/{name}", self.path);
        self.graph.append1(self.region, op, inputs, origin).map_err(|error| EmitError { at, error })
    }

    /// Appends a control operator that owns `regions`; returns its results.
    pub fn control(
        &mut self,
        name: &str,
        op: Op,
        inputs: &[ValueId],
        regions: Vec<RegionId>,
    ) -> Result<Vec<ValueId>, EmitError> {
        let origin = self.origin(name);
        let at = format!("{}/{name}", self.path);
        let node = self.graph.append_control(self.region, op, inputs, regions, origin);
        let node = node.map_err(|error| EmitError { at, error })?;
        Ok(self.graph.node(node).outputs.clone())
    }

    /// A constant.
    pub fn constant(&mut self, tensor: Tensor) -> ValueId {
        self.graph.constant(tensor)
    }

    /// `value` repeated for every row.
    pub fn fill(&mut self, name: &str, value: Tensor, rows: &Dim) -> Result<ValueId, EmitError> {
        let scalar = self.constant(value);
        self.op(name, Op::Expand { dims: vec![rows.clone()] }, &[scalar])
    }

    /// A value's type.
    pub fn ty(&self, value: ValueId) -> &Type {
        self.graph.ty(value)
    }

    /// The first dim of a value, 1 for a scalar.
    pub fn rows(&self, value: ValueId) -> Dim {
        self.ty(value).dims.first().cloned().unwrap_or_else(|| Dim::from(1))
    }
}
