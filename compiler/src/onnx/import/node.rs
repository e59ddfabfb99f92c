//! One node while its rule runs: operands, attributes, and the graph that it is appended to.

use eec_ir::attr::AttrValue;
use eec_ir::ops::{self, Facts};
use eec_ir::{DType, Dim, Graph, Op, Origin, RegionId, Tensor, Type, ValueId};

use super::super::error::{NodeResult, Refusal, refuse};
use super::super::proto::{AttributeProto, NodeProto, TensorProto, attribute_type};
use super::super::tensor::{ExternalFiles, decode};
use super::late::Late;
use super::options::Budget;

/// What a rule gives: the values that stand for the node's results.
pub(super) type Results = NodeResult<Vec<ValueId>>;

/// What a rule works with. Attributes are taken out as they are read, so that what a rule leaves
/// behind can be refused instead of ignored.
pub(super) struct Cx<'a> {
    graph: &'a mut Graph,
    tools: Tools<'a>,
    region: RegionId,
    /// The version of the operators.
    pub(super) opset: i64,
    attributes: Vec<AttributeProto>,
    inputs: Vec<Option<ValueId>>,
    outputs: Vec<String>,
    op_type: String,
    origin: Origin,
}

/// What all nodes of an import share, beside the graph.
pub(super) struct Tools<'a> {
    pub(super) external: &'a mut ExternalFiles,
    pub(super) budget: &'a mut Budget,
    pub(super) late: &'a mut Late,
}

impl<'a> Cx<'a> {
    pub(super) fn new(
        graph: &'a mut Graph,
        tools: Tools<'a>,
        region: RegionId,
        opset: i64,
        node: NodeProto,
        inputs: Vec<Option<ValueId>>,
    ) -> Self {
        let origin = super::origin(&node);
        let NodeProto { attribute: attributes, output: outputs, op_type, .. } = node;
        Cx { graph, tools, region, opset, attributes, inputs, outputs, op_type, origin }
    }

    // Operands.

    /// Puts sizes in the place of operands that hold what was made sizes before.
    pub(super) fn know_sizes(&mut self) -> NodeResult<()> {
        for i in 0..self.inputs.len() {
            self.inputs[i] = self.inputs[i].map(|value| self.with_sizes(value)).transpose()?;
        }
        Ok(())
    }

    /// The operands that are given; a gap among them is refused.
    pub(super) fn all_inputs(&self) -> NodeResult<Vec<ValueId>> {
        (0..self.inputs.len()).map(|i| self.input(i)).collect()
    }

    /// Operand `i`, which must be given.
    pub(super) fn input(&self, i: usize) -> NodeResult<ValueId> {
        self.optional(i).ok_or_else(|| Refusal::new(format!("operand {i} is missing")))
    }

    /// Operand `i`, if it is given.
    pub(super) fn optional(&self, i: usize) -> Option<ValueId> {
        self.inputs.get(i).copied().flatten()
    }

    /// The operator's ONNX name.
    pub(super) fn op_type(&self) -> &str {
        &self.op_type
    }

    /// How many results are listed.
    pub(super) fn output_count(&self) -> usize {
        self.outputs.len()
    }

    /// Whether something may read result `i`.
    pub(super) fn asks_for(&self, i: usize) -> bool {
        self.outputs.get(i).is_some_and(|name| !name.is_empty())
    }

    /// A value's type.
    pub(super) fn ty(&self, value: ValueId) -> &Type {
        self.graph.ty(value)
    }

    /// A value's dims.
    pub(super) fn dims(&self, value: ValueId) -> Vec<Dim> {
        self.ty(value).dims.clone()
    }

    /// A value's number of dims.
    pub(super) fn rank(&self, value: ValueId) -> usize {
        self.ty(value).rank()
    }

    /// The tensor of a constant.
    pub(super) fn constant_of(&self, value: ValueId) -> Option<&Tensor> {
        self.graph.as_constant(value)
    }

    /// The elements of operand `i` as sizes, if the operand is given. `what` names it in the error
    /// for elements that are not known before a run.
    pub(super) fn sizes(&self, i: usize, what: &str) -> NodeResult<Option<Vec<Dim>>> {
        let Some(value) = self.optional(i) else {
            return Ok(None);
        };
        if let Some(contents) = &self.graph.value(value).contents {
            return Ok(Some(contents.clone()));
        }
        let stored = self.constant_of(value).and_then(Tensor::to_i64s);
        match stored {
            Some(elements) => Ok(Some(elements.into_iter().map(Dim::from).collect())),
            None => Err(Refusal::undecided(value, format!("the {what} depends on data"))),
        }
    }

    /// The elements of operand `i` as constants, if the operand is given.
    pub(super) fn const_ints(&self, i: usize, what: &str) -> NodeResult<Option<Vec<i64>>> {
        let Some(sizes) = self.sizes(i, what)? else {
            return Ok(None);
        };
        let constants = sizes.iter().map(Dim::as_const).collect::<Option<Vec<_>>>();
        constants.map(Some).ok_or_else(|| {
            Refusal::new(format!("the {what} depends on symbolic sizes: {sizes:?}; `--fix-dim` makes them constants"))
        })
    }

    /// A list of axes: the attribute `axes`, or operand `i` in newer opsets.
    pub(super) fn axes(&mut self, i: usize) -> NodeResult<Option<Vec<i64>>> {
        match self.ints("axes")? {
            Some(axes) => Ok(Some(axes)),
            None => self.const_ints(i, "list of axes"),
        }
    }

    // Attributes.

    fn take(&mut self, name: &str, kind: i32) -> NodeResult<Option<AttributeProto>> {
        let Some(at) = self.attributes.iter().position(|a| a.name == name) else {
            return Ok(None);
        };
        let attribute = self.attributes.swap_remove(at);
        if attribute.r#type != kind && attribute.r#type != 0 {
            return refuse(format!("attribute `{name}` has type {}, expected {kind}", attribute.r#type));
        }
        Ok(Some(attribute))
    }

    /// An integer attribute.
    pub(super) fn int(&mut self, name: &str) -> NodeResult<Option<i64>> {
        Ok(self.take(name, attribute_type::INT)?.map(|a| a.i.unwrap_or(0)))
    }

    /// An integer attribute that is a truth value.
    pub(super) fn flag(&mut self, name: &str, default: bool) -> NodeResult<bool> {
        Ok(self.int(name)?.map_or(default, |i| i != 0))
    }

    /// A float attribute.
    pub(super) fn float(&mut self, name: &str) -> NodeResult<Option<f32>> {
        Ok(self.take(name, attribute_type::FLOAT)?.map(|a| a.f.unwrap_or(0.0)))
    }

    /// An attribute that is a list of integers.
    pub(super) fn ints(&mut self, name: &str) -> NodeResult<Option<Vec<i64>>> {
        Ok(self.take(name, attribute_type::INTS)?.map(|a| a.ints))
    }

    /// Whether there is a list of integers under this name, not all of them `value`.
    pub(super) fn has_other_than(&self, name: &str, value: i64) -> bool {
        self.attributes.iter().any(|a| a.name == name && a.ints.iter().any(|i| *i != value))
    }

    /// An attribute that is a list of floats.
    pub(super) fn floats(&mut self, name: &str) -> NodeResult<Option<Vec<f32>>> {
        Ok(self.take(name, attribute_type::FLOATS)?.map(|a| a.floats))
    }

    /// A text attribute.
    pub(super) fn word(&mut self, name: &str) -> NodeResult<Option<String>> {
        let text = self.take(name, attribute_type::STRING)?.map(|a| a.s.unwrap_or_default());
        Ok(text.map(|s| String::from_utf8_lossy(&s).into_owned()))
    }

    /// An attribute that is a list of texts.
    pub(super) fn words(&mut self, name: &str) -> NodeResult<Option<Vec<String>>> {
        let texts = self.take(name, attribute_type::STRINGS)?.map(|a| a.strings);
        Ok(texts.map(|list| list.iter().map(|s| String::from_utf8_lossy(s).into_owned()).collect()))
    }

    /// A tensor attribute.
    pub(super) fn tensor(&mut self, name: &str) -> NodeResult<Option<Tensor>> {
        let proto: Option<TensorProto> = self.take(name, attribute_type::TENSOR)?.and_then(|a| a.t);
        let decoded = proto.map(|t| decode(t, self.tools.external)).transpose();
        decoded.map_err(|e| Refusal::new(format!("attribute `{name}`: {e}")))
    }

    /// All attributes that are left, in the form that operators are made from.
    pub(super) fn generic_attributes(&mut self) -> NodeResult<Vec<(String, AttrValue)>> {
        std::mem::take(&mut self.attributes).into_iter().map(generic_attribute).collect()
    }

    /// Refuses attributes that the rule did not read, and constants beyond what may be computed.
    pub(super) fn nothing_left(&self) -> NodeResult<()> {
        self.tools.budget.check_constants(0)?;
        match self.attributes.first() {
            Some(a) => refuse(format!("attribute `{}` is not supported", a.name)),
            None => Ok(()),
        }
    }

    // Building.

    /// The graph.
    pub(super) fn graph(&self) -> &Graph {
        self.graph
    }

    /// The sizes that data decides, so far.
    pub(super) fn late(&self) -> &Late {
        self.tools.late
    }

    /// The sizes that data decides, to be added to.
    pub(super) fn late_mut(&mut self) -> &mut Late {
        self.tools.late
    }

    /// The graph, to be changed.
    pub(super) fn graph_mut(&mut self) -> &mut Graph {
        self.graph
    }

    /// The region that nodes are appended to, and where they come from.
    pub(super) fn place(&self) -> (RegionId, Origin) {
        (self.region, self.origin.clone())
    }

    /// What `work` does with nodes appended to `region`.
    pub(super) fn inside<T>(
        &mut self,
        region: RegionId,
        work: impl FnOnce(&mut Self) -> NodeResult<T>,
    ) -> NodeResult<T> {
        let outside = std::mem::replace(&mut self.region, region);
        let result = work(self);
        self.region = outside;
        result
    }

    /// Appends a node for the source node; returns its result.
    pub(super) fn emit(&mut self, op: Op, inputs: &[ValueId]) -> NodeResult<ValueId> {
        if !op.arity().contains(&inputs.len()) {
            let (min, max) = (op.arity().start().to_owned(), op.arity().end().to_owned());
            return refuse(format!("takes {min} to {max} operands, found {}", inputs.len()));
        }
        if let Some(tensor) = self.folded(&op, inputs) {
            return Ok(self.constant(tensor));
        }
        self.tools.budget.check_nodes(self.graph.node_count())?;
        Ok(self.graph.append1(self.region, op, inputs, self.origin.clone())?)
    }

    /// The result of an operator on a few constants: what later rules ask for may be computed from it.
    fn folded(&self, op: &Op, inputs: &[ValueId]) -> Option<Tensor> {
        let small = |t: &Tensor| t.len() <= Facts::MAX_CONTENTS;
        let operand = |v: &ValueId| self.constant_of(*v).filter(|t| small(t)).cloned();
        let operands = inputs.iter().map(operand).collect::<Option<Vec<_>>>().filter(|o| !o.is_empty())?;
        // What is too large to be kept is not computed either.
        let facts: Vec<Facts> = operands.iter().map(|t| Facts::of(t.ty())).collect();
        let result = ops::infer(op, &facts).ok()?.outputs.pop()?;
        result.ty.elements().as_const().filter(|n| *n <= Facts::MAX_CONTENTS as i64)?;
        let mut results = ops::eval(op, &operands, &|_| None).ok()?;
        results.pop().filter(|t| results.is_empty() && small(t))
    }

    /// Like [`Cx::emit`], for an operator with several results.
    pub(super) fn emit_all(&mut self, op: Op, inputs: &[ValueId]) -> NodeResult<Vec<ValueId>> {
        self.tools.budget.check_nodes(self.graph.node_count())?;
        let node = self.graph.append(self.region, op, inputs, self.origin.clone())?;
        Ok(self.graph.node(node).outputs.clone())
    }

    /// A constant.
    pub(super) fn constant(&mut self, tensor: Tensor) -> ValueId {
        self.tools.budget.count_constant(tensor.bytes().len());
        self.graph.constant(tensor)
    }

    /// A constant that the file holds.
    pub(super) fn stored(&mut self, tensor: Tensor) -> ValueId {
        self.graph.constant(tensor)
    }

    /// Checks, before it is computed, that a constant of so many elements of 8 bytes or less may be.
    pub(super) fn may_compute(&self, elements: i64) -> NodeResult<()> {
        let bytes = usize::try_from(elements).unwrap_or(usize::MAX).saturating_mul(8);
        self.tools.budget.check_constants(bytes)
    }

    /// Notes that two sizes are equal whenever the model is run as it is meant; checked at every run.
    pub(super) fn assume_equal(&mut self, a: &Dim, b: &Dim) -> NodeResult<()> {
        if let (Some(a), Some(b)) = (a.as_const(), b.as_const())
            && a != b
        {
            return refuse(format!("the sizes {a} and {b} must be equal"));
        }
        self.graph.assume_equal(a.clone(), b.clone());
        Ok(())
    }

    /// `value` converted to `to`, or itself if it has that type.
    pub(super) fn cast(&mut self, value: ValueId, to: DType) -> NodeResult<ValueId> {
        if self.ty(value).dtype == to { Ok(value) } else { self.emit(Op::Cast { to }, &[value]) }
    }

    /// `value` under other dims, or itself if it has them.
    pub(super) fn reshape(&mut self, value: ValueId, dims: Vec<Dim>) -> NodeResult<ValueId> {
        if self.ty(value).dims == dims { Ok(value) } else { self.emit(Op::Reshape { dims }, &[value]) }
    }
}

fn generic_attribute(a: AttributeProto) -> NodeResult<(String, AttrValue)> {
    let value = match a.r#type {
        attribute_type::INT => AttrValue::Int(a.i.unwrap_or(0)),
        attribute_type::FLOAT => AttrValue::Float(a.f.unwrap_or(0.0)),
        attribute_type::INTS => AttrValue::Ints(a.ints),
        other => {
            return refuse(format!("attribute `{}` of type {other} is not supported", a.name));
        }
    };
    Ok((a.name, value))
}

/// `axis` of a tensor with `rank` dims, counted from the front.
pub(super) fn axis_index(axis: i64, rank: usize) -> NodeResult<usize> {
    let from_front = if axis < 0 { axis.checked_add(rank as i64) } else { Some(axis) };
    let index = from_front.and_then(|a| usize::try_from(a).ok()).filter(|a| *a < rank);
    index.ok_or_else(|| Refusal::new(format!("axis {axis} does not exist in a tensor with {rank} dims")))
}

/// `axes` of a tensor with `rank` dims, counted from the front; one that occurs twice is refused.
pub(super) fn axis_indices(axes: &[i64], rank: usize) -> NodeResult<Vec<usize>> {
    let mut seen = Vec::with_capacity(axes.len().min(rank));
    for axis in axes {
        let index = axis_index(*axis, rank)?;
        if seen.contains(&index) {
            return refuse(format!("axis {axis} is listed twice in {axes:?}"));
        }
        seen.push(index);
    }
    Ok(seen)
}
