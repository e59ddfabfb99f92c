//! The reference evaluator: runs a graph node by node, slow and obviously right.
//!
//! It judges passes and backends. Every result is checked against its declared type, so that it
//! judges inference too.

use crate::bind::{BindError, Sizes, bind_dims, check_assumptions};
use crate::dim::{Dim, Symbol};
use crate::entity::{NodeId, RegionId, ValueId};
use crate::graph::Graph;
use crate::op::Op;
use crate::ops;
use crate::ops::control::{self, MAX_STEPS};
use crate::tensor::Tensor;
use crate::types::Type;

/// Why a graph could not be evaluated.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EvalFailure {
    /// The inputs' dims do not fit.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// An input's element type does not fit.
    #[error("input `{input}`: expected {expected}, found {found}")]
    InputType {
        /// Name.
        input: String,
        /// Declared type.
        expected: Type,
        /// What was given.
        found: Type,
    },
    /// A node failed.
    #[error("{node}: {reason}")]
    Node {
        /// The node's path and operator.
        node: String,
        /// What went wrong.
        reason: String,
    },
    /// A node's result has not its declared type.
    #[error("{node}: expected a result of type {expected}, found {found}")]
    ResultType {
        /// The node's path and operator.
        node: String,
        /// Declared type.
        expected: Type,
        /// What came out.
        found: Type,
    },
    /// A value was read or asked for that did not come to be.
    #[error("{0} was not computed: its region did not run, or it does not stand before its use")]
    NotComputed(ValueId),
}

/// What a run computed.
#[derive(Debug)]
pub struct Evaluation {
    values: Vec<Option<Tensor>>,
    sizes: Sizes,
    /// Steps that loops made.
    steps: u64,
}

/// The graph's outputs for these inputs.
pub fn evaluate(graph: &Graph, inputs: &[Tensor]) -> Result<Vec<Tensor>, EvalFailure> {
    evaluate_values(graph, inputs, graph.outputs())
}

/// The values of `wanted` for these inputs; one whose region does not run is an error.
pub fn evaluate_values(graph: &Graph, inputs: &[Tensor], wanted: &[ValueId]) -> Result<Vec<Tensor>, EvalFailure> {
    let run = run(graph, inputs)?;
    wanted.iter().map(|v| run.get(*v).cloned()).collect()
}

/// Runs the graph and keeps everything that it computes.
pub fn run(graph: &Graph, inputs: &[Tensor]) -> Result<Evaluation, EvalFailure> {
    let sizes = bind(graph, inputs)?;
    let constants = (0..graph.value_count()).map(|i| graph.as_constant(ValueId::new(i)).cloned());
    let mut run = Evaluation { values: constants.collect(), sizes, steps: 0 };
    for (param, tensor) in graph.inputs().iter().zip(inputs) {
        run.set(*param, tensor.clone());
    }
    run.region(graph, Graph::ROOT)?;
    Ok(run)
}

fn bind(graph: &Graph, inputs: &[Tensor]) -> Result<Sizes, EvalFailure> {
    let name = |v: ValueId| graph.value(v).name.as_deref().unwrap_or_default();
    let params: Vec<(&str, &[Dim])> = graph.inputs().iter().map(|v| (name(*v), &*graph.ty(*v).dims)).collect();
    let actual: Vec<&[usize]> = inputs.iter().map(Tensor::dims).collect();
    let sizes = bind_dims(&params, &actual, graph.assumptions())?;
    for (param, found) in graph.inputs().iter().zip(inputs) {
        let expected = graph.ty(*param);
        if found.dtype() != expected.dtype {
            let (input, expected, found) = (name(*param).to_string(), expected.clone(), found.ty());
            return Err(EvalFailure::InputType { input, expected, found });
        }
    }
    Ok(sizes)
}

impl Evaluation {
    /// A value, if it was computed: a value of a region that did not run was not.
    pub fn value(&self, value: ValueId) -> Option<&Tensor> {
        self.values.get(value.index())?.as_ref()
    }

    /// A size in this run; the rows of a region count those that went there, those of a
    /// join in its last run.
    pub fn size(&self, dim: &Dim) -> Option<i64> {
        dim.eval(&|s| self.sizes.get(s).copied())
    }

    fn get(&self, value: ValueId) -> Result<&Tensor, EvalFailure> {
        self.value(value).ok_or(EvalFailure::NotComputed(value))
    }

    fn set(&mut self, value: ValueId, tensor: Tensor) {
        self.values[value.index()] = Some(tensor);
    }

    fn region(&mut self, graph: &Graph, region: RegionId) -> Result<(), EvalFailure> {
        graph.region(region).nodes.iter().try_for_each(|node| self.node(graph, *node))
    }

    fn node(&mut self, graph: &Graph, id: NodeId) -> Result<(), EvalFailure> {
        let node = graph.node(id);
        let inputs = node.inputs.iter().map(|v| self.get(*v).cloned()).collect::<Result<Vec<_>, _>>()?;
        let results = if let Op::If { .. } = node.op {
            self.branch(graph, id, &inputs)?
        } else if let Op::Route { .. } = node.op {
            self.route(graph, id, &inputs)?
        } else if let Op::Loop { trips } = &node.op {
            self.repeat(graph, id, trips, inputs)?
        } else if let Op::LateSize { size, most } = &node.op {
            self.late_size(graph, id, [size, most], &inputs)?;
            inputs
        } else {
            let env = |s: &Symbol| self.sizes.get(s).copied();
            ops::eval(&node.op, &inputs, &env).map_err(|e| failure(graph, id, e.reason))?
        };
        for (value, tensor) in node.outputs.iter().zip(results) {
            self.check(graph, id, graph.ty(*value), &tensor)?;
            self.set(*value, tensor);
        }
        Ok(())
    }

    /// Gives the symbol of a `LateSize` its value, and checks what was assumed of it.
    fn late_size(
        &mut self,
        graph: &Graph,
        id: NodeId,
        [size, most]: [&Dim; 2],
        inputs: &[Tensor],
    ) -> Result<(), EvalFailure> {
        let fail = |reason: String| failure(graph, id, reason);
        let value = inputs.first().and_then(Tensor::to_i64s).and_then(|v| v.first().copied());
        let symbol = size.as_symbol().ok_or_else(|| fail("`size` is no symbol".into()))?;
        let most = self.size(most).ok_or_else(|| fail("its largest value is not known".into()))?;
        let value = value.ok_or_else(|| fail("needs one integer".into()))?;
        if !(0..=most).contains(&value) {
            return Err(fail(control::no_size(value, most)));
        }
        self.sizes.insert(symbol.clone(), value);
        let about = |dim: &Dim| dim.mentions(symbol);
        let assumptions = graph.assumptions().iter().filter(|(a, b)| about(a) || about(b));
        check_assumptions(assumptions, &self.sizes).map_err(|e| fail(e.to_string()))
    }

    /// The dims of `ty` in this run.
    fn dims(&self, ty: &Type) -> Option<Vec<usize>> {
        ty.dims.iter().map(|d| self.size(d).and_then(|n| usize::try_from(n).ok())).collect()
    }

    fn check(&self, graph: &Graph, node: NodeId, ty: &Type, found: &Tensor) -> Result<(), EvalFailure> {
        if found.dtype() == ty.dtype && self.dims(ty).as_deref() == Some(found.dims()) {
            return Ok(());
        }
        let (expected, found) = (ty.clone(), found.ty());
        Err(EvalFailure::ResultType { node: graph.describe(node), expected, found })
    }

    fn branch(&mut self, graph: &Graph, id: NodeId, inputs: &[Tensor]) -> Result<Vec<Tensor>, EvalFailure> {
        let (condition, [then, other], _) = control_parts(graph, id, inputs)?;
        let region = if condition.first() == Some(&1) { then } else { other };
        self.region(graph, region)?;
        graph.region(region).yields.iter().map(|v| self.get(*v).cloned()).collect()
    }

    fn route(&mut self, graph: &Graph, id: NodeId, inputs: &[Tensor]) -> Result<Vec<Tensor>, EvalFailure> {
        let (mask, sides, join) = control_parts(graph, id, inputs)?;
        let outputs = &graph.node(id).outputs;
        let mut merged = Vec::with_capacity(outputs.len());
        for value in outputs {
            let ty = graph.ty(*value);
            let sized = self.dims(ty).and_then(|dims| Some((ops::element_count(&dims)?, dims)));
            let Some((count, dims)) = sized else {
                return Err(failure(graph, id, format!("a result of type {ty} has no size, or is too large")));
            };
            merged.push((dims, vec![0; count * ty.dtype.size()]));
        }
        for (side, region) in sides.into_iter().enumerate() {
            let rows: Vec<usize> = (0..mask.len()).filter(|i| mask[*i] == u8::from(side == 0)).collect();
            let mut yielded = self.route_side(graph, id, region, &inputs[1..], &rows)?;
            if let Some(join) = join.filter(|_| !rows.is_empty()) {
                let lengths = ops::join::lengths(graph, sides, join).map_err(|reason| failure(graph, id, reason))?;
                let length = lengths.and_then(|l| self.size(&l[side]));
                self.open(graph, id, join, rows.len(), length)?;
                yielded = self.call(graph, id, join, yielded)?;
            }
            for (tensor, (dims, bytes)) in yielded.iter().zip(&mut merged) {
                scatter(tensor, &rows, dims, bytes).map_err(|reason| failure(graph, id, reason))?;
            }
        }
        let typed = outputs.iter().zip(merged).map(|(value, (dims, bytes))| {
            let tensor = Tensor::from_bytes(graph.ty(*value).dtype, &dims, bytes);
            tensor.map_err(|e| failure(graph, id, e.to_string()))
        });
        typed.collect()
    }

    /// What a region of a `Route` yields for `rows` of the operands; nothing if there are none.
    fn route_side(
        &mut self,
        graph: &Graph,
        id: NodeId,
        region: RegionId,
        operands: &[Tensor],
        rows: &[usize],
    ) -> Result<Vec<Tensor>, EvalFailure> {
        if rows.is_empty() {
            self.sizes.extend(graph.region(region).rows.clone().map(|symbol| (symbol, 0)));
            return Ok(Vec::new());
        }
        self.open(graph, id, region, rows.len(), None)?;
        let gathered = operands.iter().map(|o| gather(o, rows).map_err(|reason| failure(graph, id, reason)));
        let gathered = gathered.collect::<Result<Vec<_>, _>>()?;
        self.call(graph, id, region, gathered)
    }

    /// Gives the symbols of a region of a `Route` their sizes, and checks what was assumed of them.
    fn open(
        &mut self,
        graph: &Graph,
        id: NodeId,
        region: RegionId,
        rows: usize,
        length: Option<i64>,
    ) -> Result<(), EvalFailure> {
        self.forget_sizes(graph, region);
        let inner = graph.region(region);
        let rows = inner.rows.clone().map(|symbol| (symbol, rows as i64));
        self.sizes.extend(rows.into_iter().chain(inner.length.clone().zip(length)));
        let about = |dim: &Dim| region_symbols(graph, region).any(|s| dim.mentions(s));
        let assumptions = graph.assumptions().iter().filter(|(a, b)| about(a) || about(b));
        check_assumptions(assumptions, &self.sizes).map_err(|e| failure(graph, id, e.to_string()))
    }

    /// Forgets the sizes of the regions inside one that runs again: they are not those of the time before.
    fn forget_sizes(&mut self, graph: &Graph, region: RegionId) {
        graph.visit(region, &mut |n| {
            let node = graph.node(n);
            let late = node.op.late_symbol();
            for symbol in node.regions.iter().flat_map(|r| region_symbols(graph, *r)).chain(late) {
                self.sizes.remove(symbol);
            }
        });
    }

    fn repeat(
        &mut self,
        graph: &Graph,
        id: NodeId,
        trips: &Dim,
        inputs: Vec<Tensor>,
    ) -> Result<Vec<Tensor>, EvalFailure> {
        let fail = |reason: &str| failure(graph, id, reason);
        let truth = |t: Option<&Tensor>| t.and_then(|t| t.elements::<u8>()).and_then(|t| t.first().copied());
        let &[body] = &graph.node(id).regions[..] else { return Err(fail("needs one region")) };
        let bound = control::bound(trips);
        let limit = match &bound {
            Some(bound) => self.size(bound).ok_or_else(|| fail("its number of steps has no value"))?,
            None => i64::MAX,
        };
        let mut goes_on = truth(inputs.first()).ok_or_else(|| fail("needs a condition"))? != 0;
        let mut carried = inputs[1..].to_vec();
        let results = &graph.node(id).outputs;
        let mut rows: Vec<Vec<u8>> = vec![Vec::new(); results.len().saturating_sub(carried.len())];
        let mut step = 0;
        while goes_on && step < limit {
            self.steps += 1;
            if self.steps > MAX_STEPS {
                return Err(failure(graph, id, format!("all loops together take more than {MAX_STEPS} steps")));
            }
            self.forget_sizes(graph, body);
            let params = std::iter::once(Tensor::scalar(step)).chain(carried).collect();
            let mut yielded = self.call(graph, id, body, params)?;
            goes_on = truth(yielded.first()).ok_or_else(|| fail("yields no condition"))? != 0;
            let given = yielded.split_off((1 + results.len() - rows.len()).min(yielded.len()));
            rows.iter_mut().zip(given).for_each(|(all, row)| all.extend_from_slice(row.bytes()));
            carried = yielded.split_off(1);
            step += 1;
        }
        for (value, mut bytes) in results[carried.len()..].iter().zip(rows) {
            let ty = graph.ty(*value);
            let sized = self.dims(ty).and_then(|dims| Some((ops::element_count(&dims)?, dims)));
            let Some((count, dims)) = sized else {
                return Err(failure(graph, id, format!("a result of type {ty} has no size, or is too large")));
            };
            // Rows of steps that were not made.
            bytes.resize(bytes.len().max(count * ty.dtype.size()), 0);
            let stacked = Tensor::from_bytes(ty.dtype, &dims, bytes);
            carried.push(stacked.map_err(|e| failure(graph, id, e.to_string()))?);
        }
        Ok(carried)
    }

    /// What an opened region yields for these parameters.
    fn call(
        &mut self,
        graph: &Graph,
        id: NodeId,
        region: RegionId,
        params: Vec<Tensor>,
    ) -> Result<Vec<Tensor>, EvalFailure> {
        for (param, tensor) in graph.region(region).params.iter().zip(params) {
            self.check(graph, id, graph.ty(*param), &tensor)?;
            self.set(*param, tensor);
        }
        self.region(graph, region)?;
        graph.region(region).yields.iter().map(|v| self.get(*v).cloned()).collect()
    }
}

/// The symbols of a region's rows and length.
fn region_symbols(graph: &Graph, region: RegionId) -> impl Iterator<Item = &Symbol> {
    graph.region(region).rows.iter().chain(&graph.region(region).length)
}

fn failure(graph: &Graph, node: NodeId, reason: impl Into<String>) -> EvalFailure {
    EvalFailure::Node { node: graph.describe(node), reason: reason.into() }
}

/// Booleans, two regions and perhaps a join.
type Parts = (Vec<u8>, [RegionId; 2], Option<RegionId>);

/// The first operand's booleans, the two regions of a control node, and its join if it has one.
fn control_parts(graph: &Graph, id: NodeId, inputs: &[Tensor]) -> Result<Parts, EvalFailure> {
    let mask = inputs.first().and_then(|t| t.elements::<u8>()).map(|m| m.into_owned());
    let parts = match (mask, &graph.node(id).regions[..]) {
        (Some(mask), &[then, other]) => Some((mask, [then, other], None)),
        (Some(mask), &[then, other, join]) => Some((mask, [then, other], Some(join))),
        _ => None,
    };
    parts.ok_or_else(|| failure(graph, id, "needs a boolean operand and two regions"))
}

/// The bytes of one row (one index of axis 0).
fn row_size(dims: &[usize], element: usize) -> usize {
    dims.iter().skip(1).product::<usize>() * element
}

/// The chosen rows.
fn gather(tensor: &Tensor, rows: &[usize]) -> Result<Tensor, String> {
    let size = row_size(tensor.dims(), tensor.dtype().size());
    let line = |row: &usize| tensor.bytes().get(row * size..(row + 1) * size);
    let lines: Option<Vec<&[u8]>> = rows.iter().map(line).collect();
    let lines = lines.ok_or_else(|| format!("an operand of type {tensor:?} has fewer rows than the mask"))?;
    let mut dims = tensor.dims().to_vec();
    if let Some(first) = dims.first_mut() {
        *first = rows.len();
    }
    Tensor::from_bytes(tensor.dtype(), &dims, lines.concat()).map_err(|e| e.to_string())
}

/// Puts the rows of `tensor` at `rows` of a tensor of `dims` with these `bytes`.
fn scatter(tensor: &Tensor, rows: &[usize], dims: &[usize], bytes: &mut [u8]) -> Result<(), String> {
    let size = row_size(dims, tensor.dtype().size());
    if tensor.dims().first() != Some(&rows.len()) || tensor.dims().get(1..) != dims.get(1..) {
        return Err(format!("a region yields {tensor:?} for {} rows of {dims:?}", rows.len()));
    }
    for (i, row) in rows.iter().enumerate() {
        let Some(line) = bytes.get_mut(row * size..(row + 1) * size) else {
            return Err(format!("row {row} is outside of {dims:?}"));
        };
        line.copy_from_slice(&tensor.bytes()[i * size..(i + 1) * size]);
    }
    Ok(())
}
