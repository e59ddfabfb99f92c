//! What inference of one node works with: the operands' facts, the rules that make two dims one,
//! and the propagation of known contents.

use super::{Facts, InferError, index};
use crate::dim::Dim;
use crate::op::Op;
use crate::types::{DType, Type};

/// The outcome of one operator's inference: all of them have one result.
pub(super) type Inferred = Result<Facts, InferError>;

/// A node under inference.
pub(super) struct Infer<'a> {
    op: &'a Op,
    inputs: &'a [Facts],
    assumptions: Vec<(Dim, Dim)>,
}

impl<'a> Infer<'a> {
    /// An operator on operands whose number fits it.
    pub(super) fn new(op: &'a Op, inputs: &'a [Facts]) -> Result<Self, InferError> {
        let (arity, found) = (op.arity(), inputs.len());
        if arity.contains(&found) {
            return Ok(Infer { op, inputs, assumptions: Vec::new() });
        }
        let (low, high) = (arity.start(), arity.end());
        let expected = if low == high { low.to_string() } else { format!("{low} to {high}") };
        Err(InferError::new(op, format!("takes {expected} operands, found {found}")))
    }

    /// What was assumed.
    pub(super) fn into_assumptions(self) -> Vec<(Dim, Dim)> {
        self.assumptions
    }

    /// An error of this operator.
    pub(super) fn refuse(&self, reason: impl Into<String>) -> InferError {
        InferError::new(self.op, reason)
    }

    /// Fails with `reason` unless `holds`.
    pub(super) fn require(&self, holds: bool, reason: impl FnOnce() -> String) -> Result<(), InferError> {
        if holds { Ok(()) } else { Err(self.refuse(reason())) }
    }

    /// All operands.
    pub(super) fn inputs(&self) -> &'a [Facts] {
        self.inputs
    }

    /// The type of an operand that the operator must have.
    pub(super) fn ty(&self, operand: usize) -> &'a Type {
        &self.inputs[operand].ty
    }

    /// The type of an operand that may be left out.
    pub(super) fn optional(&self, operand: usize) -> Option<&'a Type> {
        self.inputs.get(operand).map(|f| &f.ty)
    }

    /// Requires an operand's element type to be one of `allowed`.
    pub(super) fn expect_dtype(&self, operand: usize, allowed: &[DType]) -> Result<(), InferError> {
        let ty = self.ty(operand);
        self.require(allowed.contains(&ty.dtype), || {
            let names: Vec<&str> = allowed.iter().map(|d| d.name()).collect();
            format!("operand {operand} must be {}, found {ty}", names.join(" or "))
        })
    }

    /// Requires an operand to hold floats.
    pub(super) fn expect_float(&self, operand: usize) -> Result<(), InferError> {
        let ty = self.ty(operand);
        self.require(ty.dtype.is_float(), || format!("operand {operand} must be a float, found {ty}"))
    }

    /// Requires an operand to hold integers.
    pub(super) fn expect_int(&self, operand: usize) -> Result<(), InferError> {
        let ty = self.ty(operand);
        self.require(ty.dtype.is_int(), || format!("operand {operand} must be an integer, found {ty}"))
    }

    /// Requires an operand to hold numbers.
    pub(super) fn expect_number(&self, operand: usize) -> Result<(), InferError> {
        let ty = self.ty(operand);
        self.require(ty.dtype != DType::Bool, || format!("operand {operand} must be a number, found {ty}"))
    }

    /// Requires two operands to have the same element type.
    pub(super) fn expect_same_dtype(&self, a: usize, b: usize) -> Result<(), InferError> {
        let (x, y) = (self.ty(a), self.ty(b));
        self.require(x.dtype == y.dtype, || format!("operands {a} and {b} have different element types: {x} and {y}"))
    }

    /// Requires an operand to have `rank` dims.
    pub(super) fn expect_rank(&self, operand: usize, rank: usize) -> Result<(), InferError> {
        let ty = self.ty(operand);
        self.require(ty.rank() == rank, || format!("operand {operand} must have {rank} dims, found {ty}"))
    }

    /// The axis that an attribute names, counted from the front.
    pub(super) fn axis(&self, axis: i64, rank: usize) -> Result<usize, InferError> {
        index::axis(axis, rank).ok_or_else(|| self.refuse(format!("axis {axis} is outside of {rank} dims")))
    }

    /// The axes that an attribute names, counted from the front; refuses one named twice.
    pub(super) fn axes(&self, axes: &[i64], rank: usize) -> Result<Vec<usize>, InferError> {
        let found = axes.iter().map(|a| self.axis(*a, rank)).collect::<Result<Vec<_>, _>>()?;
        let twice = found.iter().enumerate().any(|(i, a)| found[..i].contains(a));
        self.require(!twice, || format!("axes {axes:?} name one of {rank} dims twice"))?;
        Ok(found)
    }

    /// The dim that `a` and `b` both are: their expression if it is the same, else the simpler one
    /// under the assumption that they are equal. `None` if they never are.
    fn equal(&mut self, a: &Dim, b: &Dim) -> Option<Dim> {
        if a == b {
            return Some(a.clone());
        }
        if (a - b).as_const().is_some() {
            return None;
        }
        self.assume(a, b);
        Some(if complexity(b) < complexity(a) { b.clone() } else { a.clone() })
    }

    /// Notes that two sizes must be equal, the simpler one first.
    fn assume(&mut self, a: &Dim, b: &Dim) {
        let swapped = (complexity(b), b) < (complexity(a), a);
        let (first, second) = if swapped { (b, a) } else { (a, b) };
        self.assumptions.push((first.clone(), second.clone()));
    }

    /// Like [`Infer::equal`]; a pair that never is equal is refused as `what`.
    pub(super) fn unify(&mut self, a: &Dim, b: &Dim, what: impl FnOnce() -> String) -> Result<Dim, InferError> {
        self.equal(a, b).ok_or_else(|| self.refuse(format!("{}: {a} is not {b}", what())))
    }

    /// Takes `a` to be at most `b`; refuses it as `what` if it never is.
    pub(super) fn at_most(&mut self, a: &Dim, b: &Dim, what: impl FnOnce() -> String) -> Result<(), InferError> {
        let smaller = a.smaller(b);
        if &smaller != a {
            let never = (a - b).is_at_least(1);
            self.require(!never, || format!("{}: {a} is more than {b}", what()))?;
            self.assume(a, &smaller);
        }
        Ok(())
    }

    /// The dims that two operands broadcast to: aligned at the end, equal or one of them 1.
    pub(super) fn broadcast(&mut self, a: &[Dim], b: &[Dim]) -> Result<Vec<Dim>, InferError> {
        let rank = a.len().max(b.len());
        let (a_dims, b_dims) = (padded(a, rank), padded(b, rank));
        let pairs = a_dims.iter().zip(&b_dims);
        let dims = pairs.map(|(x, y)| self.broadcast_dim(x, y)).collect::<Option<Vec<_>>>();
        dims.ok_or_else(|| self.refuse(format!("dims {a:?} and {b:?} do not broadcast")))
    }

    fn broadcast_dim(&mut self, a: &Dim, b: &Dim) -> Option<Dim> {
        match (a.as_const(), b.as_const()) {
            (Some(1), _) => Some(b.clone()),
            (_, Some(1)) => Some(a.clone()),
            _ => self.equal(a, b),
        }
    }

    /// Requires `from` to broadcast to exactly `to`.
    pub(super) fn broadcast_to(&mut self, from: &[Dim], to: &[Dim]) -> Result<(), InferError> {
        let fits = from.len() <= to.len() && {
            let pairs = padded(from, to.len()).into_iter().zip(to);
            pairs.into_iter().all(|(f, t)| f.as_const() == Some(1) || self.equal(&f, t).is_some())
        };
        self.require(fits, || format!("dims {from:?} do not broadcast to {to:?}"))
    }

    /// Known contents of an operand with constant dims.
    pub(super) fn contents(&self, operand: usize) -> Option<(Vec<usize>, &'a [Dim])> {
        let facts = self.inputs.get(operand)?;
        let contents = facts.contents.as_deref()?;
        let dims = small_dims(&facts.ty)?;
        (dims.iter().product::<usize>() == contents.len()).then_some((dims, contents))
    }

    /// A result that takes its elements from those of `operands` (one after the other, then a
    /// zero): `map` gives for each the position it comes from, from the operands' and the result's
    /// dims.
    pub(super) fn moved(
        &self,
        ty: Type,
        operands: &[usize],
        map: impl FnOnce(&[Vec<usize>], &[usize]) -> Option<Vec<usize>>,
    ) -> Facts {
        let contents = self.move_contents(&ty, operands, map);
        Facts { ty, contents }
    }

    fn move_contents(
        &self,
        ty: &Type,
        operands: &[usize],
        map: impl FnOnce(&[Vec<usize>], &[usize]) -> Option<Vec<usize>>,
    ) -> Option<Vec<Dim>> {
        let to = small_dims(ty)?;
        let known = operands.iter().map(|o| self.contents(*o)).collect::<Option<Vec<_>>>()?;
        let mut pool: Vec<Dim> = known.iter().flat_map(|(_, contents)| contents.iter().cloned()).collect();
        pool.push(Dim::default());
        let from: Vec<Vec<usize>> = known.into_iter().map(|(dims, _)| dims).collect();
        map(&from, &to)?.into_iter().map(|at| pool.get(at).cloned()).collect()
    }

    /// A result whose elements are a function of the operands' elements, which broadcast.
    pub(super) fn mapped(&self, ty: Type, f: impl Fn(&[&Dim]) -> Option<Dim>) -> Facts {
        let contents = self.map_contents(&ty, f);
        Facts { ty, contents }
    }

    fn map_contents(&self, ty: &Type, f: impl Fn(&[&Dim]) -> Option<Dim>) -> Option<Vec<Dim>> {
        let to = small_dims(ty)?;
        let known = (0..self.inputs.len()).map(|i| self.contents(i)).collect::<Option<Vec<_>>>()?;
        let offsets: Vec<Vec<usize>> = known.iter().map(|(dims, _)| index::broadcast(dims, &to)).collect();
        let element = |i: usize| {
            let operands: Option<Vec<&Dim>> = known.iter().zip(&offsets).map(|((_, c), o)| c.get(*o.get(i)?)).collect();
            f(&operands?).filter(|d| is_kept(d, ty.dtype))
        };
        (0..to.iter().product()).map(element).collect()
    }
}

/// Expressions of more parts are no shape arithmetic; they are dropped, lest they grow without end.
const MAX_PARTS: usize = 64;

/// Whether an element is a size that arithmetic did not carry out of range.
fn is_kept(element: &Dim, dtype: DType) -> bool {
    let Some((least, largest)) = dtype.integer_range() else { return false };
    match element.as_const() {
        Some(value) => (least..=largest).contains(&value.into()),
        None => {
            let in_range = element.terms().iter().all(|t| t.coef.unsigned_abs() < Dim::LIMIT as u64);
            in_range && element.parts() <= MAX_PARTS
        }
    }
}

/// The dims of an integer or boolean type of few elements, if they are constant.
pub(super) fn small_dims(ty: &Type) -> Option<Vec<usize>> {
    let dims: Vec<usize> = ty.const_dims()?.into_iter().map(usize::try_from).collect::<Result<_, _>>().ok()?;
    let size = index::size(&dims)?;
    (!ty.dtype.is_float() && size <= Facts::MAX_CONTENTS).then_some(dims)
}

/// `dims` with 1 in front up to `rank`.
fn padded(dims: &[Dim], rank: usize) -> Vec<Dim> {
    let ones = std::iter::repeat_n(Dim::from(1), rank - dims.len());
    ones.chain(dims.iter().cloned()).collect()
}

/// What decides which of two equal expressions is kept: constants, then symbols, then few terms.
fn complexity(dim: &Dim) -> usize {
    match (dim.as_const(), dim.as_symbol()) {
        (Some(_), _) => 0,
        (None, Some(_)) => 1,
        (None, None) => 1 + dim.terms().len(),
    }
}
