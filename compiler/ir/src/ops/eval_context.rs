//! What the evaluation of one node works with: operands and result dims that inference has checked.

use std::borrow::Cow;

use super::{DimEnv, EvalError, Facts, index};
use crate::dim::Dim;
use crate::minifloat::Overflow;
use crate::op::Op;
use crate::tensor::{Element, Tensor};
use crate::types::DType;

/// The outcome of evaluating one result of an operator.
pub(super) type Evaluated = Result<Tensor, EvalError>;

/// Results with more elements are refused: what an attribute asks for is not to exhaust the memory.
const MAX_ELEMENTS: usize = 1 << 28;

/// The number of elements of a tensor of `dims`, unless it is more than the evaluator takes on.
pub(crate) fn element_count(dims: &[usize]) -> Option<usize> {
    index::size(dims).filter(|n| *n <= MAX_ELEMENTS)
}

/// A node under evaluation. Operands and attributes fit each other.
pub(super) struct Eval<'a> {
    op: &'a Op,
    inputs: &'a [Tensor],
    output: usize,
    dims: Vec<usize>,
    dtype: DType,
}

/// `op` with the sizes in its attributes computed.
pub(super) fn resolve(op: &Op, env: &DimEnv) -> Result<Op, EvalError> {
    let mut resolved = op.clone();
    let mut unknown = None;
    resolved.map_dims(&mut |dim: &Dim| match dim.eval(env) {
        Some(value) => value.into(),
        None => {
            unknown = Some(dim.clone());
            dim.clone()
        }
    });
    match unknown {
        None => Ok(resolved),
        Some(dim) => Err(EvalError { op: op.name(), reason: format!("the size {dim} has no value") }),
    }
}

impl<'a> Eval<'a> {
    /// Result `output` of an operator on operands for which inference gave `result`.
    pub(super) fn new(op: &'a Op, inputs: &'a [Tensor], output: usize, result: &Facts) -> Result<Self, EvalError> {
        let dims = result.ty.const_dims().unwrap_or_default();
        let dims: Option<Vec<usize>> = dims.into_iter().map(|d| usize::try_from(d).ok()).collect();
        let fits = dims.filter(|d| element_count(d).is_some());
        let Some(dims) = fits else {
            let reason = format!("a result of type {} is too large or has a negative dim", result.ty);
            return Err(EvalError { op: op.name(), reason });
        };
        Ok(Eval { op, inputs, output, dims, dtype: result.ty.dtype })
    }

    /// An error of this operator.
    pub(super) fn fail(&self, reason: impl Into<String>) -> EvalError {
        EvalError { op: self.op.name(), reason: reason.into() }
    }

    /// An operand that the operator must have.
    pub(super) fn input(&self, operand: usize) -> &'a Tensor {
        &self.inputs[operand]
    }

    /// An operand that may be left out.
    pub(super) fn optional(&self, operand: usize) -> Option<&'a Tensor> {
        self.inputs.get(operand)
    }

    /// An operand's dims.
    pub(super) fn from(&self, operand: usize) -> &'a [usize] {
        self.inputs[operand].dims()
    }

    /// Which of the operator's results is asked for.
    pub(super) fn output(&self) -> usize {
        self.output
    }

    /// The result's dims.
    pub(super) fn to(&self) -> &[usize] {
        &self.dims
    }

    /// The number of the result's elements.
    pub(super) fn len(&self) -> usize {
        self.dims.iter().product()
    }

    /// Whether the result has no elements, so that there is nothing to compute.
    pub(super) fn is_empty(&self) -> bool {
        self.dims.contains(&0)
    }

    /// The result's element type.
    pub(super) fn dtype(&self) -> DType {
        self.dtype
    }

    /// An operand's elements.
    pub(super) fn elements<T: Element>(&self, operand: usize) -> Result<Cow<'a, [T]>, EvalError> {
        let tensor = self.input(operand);
        tensor.elements().ok_or_else(|| self.fail(format!("operand {operand} is {tensor:?}, not {}", T::DTYPE)))
    }

    /// An operand's elements as numbers.
    pub(super) fn floats(&self, operand: usize) -> Vec<f64> {
        self.input(operand).to_f64s()
    }

    /// An operand's integer or boolean elements, of any width.
    pub(super) fn wide(&self, operand: usize) -> Result<Vec<i128>, EvalError> {
        let tensor = self.input(operand);
        tensor.to_i128s().ok_or_else(|| self.fail(format!("operand {operand} is {tensor:?}, not integers")))
    }

    /// Whether the result's elements are floats.
    pub(super) fn is_float(&self) -> bool {
        self.dtype.is_float()
    }

    /// An operand's integer or boolean elements as indices and sizes.
    pub(super) fn integers(&self, operand: usize) -> Result<Vec<i64>, EvalError> {
        let tensor = self.input(operand);
        tensor.to_i64s().ok_or_else(|| self.fail(format!("operand {operand} is {tensor:?}, not integers")))
    }

    /// The position in an operand of the element that broadcasting puts at each of the result's.
    pub(super) fn broadcast(&self, operand: usize) -> Vec<usize> {
        index::broadcast(self.from(operand), &self.dims)
    }

    /// The axis that a checked attribute names.
    pub(super) fn axis(&self, axis: i64) -> Result<usize, EvalError> {
        let rank = self.from(0).len();
        index::axis(axis, rank).ok_or_else(|| self.fail(format!("axis {axis} is outside of {rank} dims")))
    }

    /// The axes that a checked attribute names.
    pub(super) fn axes(&self, axes: &[i64]) -> Result<Vec<usize>, EvalError> {
        axes.iter().map(|a| self.axis(*a)).collect()
    }

    /// A size of an attribute, which is constant by now.
    pub(super) fn constant(&self, dim: &Dim) -> Result<i64, EvalError> {
        dim.as_const().ok_or_else(|| self.fail(format!("the size {dim} has no value")))
    }

    /// The result with these elements.
    pub(super) fn finish<T: Element>(&self, data: Vec<T>) -> Evaluated {
        Tensor::new(&self.dims, data).map_err(|e| self.fail(e.to_string()))
    }

    /// The result with the values of its own element type that are nearest to these.
    pub(super) fn finish_floats(&self, data: Vec<f64>) -> Evaluated {
        Tensor::from_f64s(self.dtype, &self.dims, &data, Overflow::Special).map_err(|e| self.fail(e.to_string()))
    }

    /// The result with these integers in its own element type: their low bits, or whether they are not 0.
    pub(super) fn finish_integers(&self, data: Vec<i128>) -> Evaluated {
        if self.is_float() {
            return self.finish_floats(data.into_iter().map(|x| x as f64).collect());
        }
        Tensor::from_integers(self.dtype, &self.dims, &data).map_err(|e| self.fail(e.to_string()))
    }

    /// Truth values as the result.
    pub(super) fn finish_truths(&self, data: impl Iterator<Item = bool>) -> Evaluated {
        self.finish(data.map(u8::from).collect())
    }

    /// The result whose elements stand at `positions` among those of `operands` (one after the
    /// other, then a zero).
    pub(super) fn moved(&self, operands: &[&Tensor], positions: &[usize]) -> Evaluated {
        let size = self.dtype.size();
        let pool: Vec<u8> = match operands {
            [one] => [one.bytes(), &vec![0; size]].concat(),
            many => many.iter().flat_map(|t| t.bytes()).copied().chain(std::iter::repeat_n(0, size)).collect(),
        };
        let mut bytes = Vec::with_capacity(positions.len() * size);
        for at in positions {
            let Some(element) = pool.get(at * size..(at + 1) * size) else {
                return Err(self.fail(format!("position {at} is outside of the operands")));
            };
            bytes.extend_from_slice(element);
        }
        Tensor::from_bytes(self.dtype, &self.dims, bytes).map_err(|e| self.fail(e.to_string()))
    }
}
