//! The element types of a loop's expressions, and on which axes they depend.

use super::kernel::{BinaryFn, Expr, ExprId, Loop, ReductionFn, Scalar, UnaryFn};
use crate::types::DType;

/// What is known about one expression.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ExprFacts {
    /// Element type.
    pub dtype: DType,
    /// Whether it differs between inner indices, reductions aside.
    pub inner: bool,
    /// One more than the last reduction that it needs.
    pub reductions: u32,
}

impl Loop {
    /// The facts of every expression, or what is wrong with the first ill-formed one.
    ///
    /// `dtype` gives the element type of an input by its position in [`Loop::inputs`].
    pub fn facts(&self, dtype: &dyn Fn(usize) -> Option<DType>) -> Result<Vec<ExprFacts>, String> {
        let mut facts = Vec::with_capacity(self.exprs.len());
        for (i, expr) in self.exprs.iter().enumerate() {
            let fact = Typing { body: self, dtype, facts: &facts }.expr(expr);
            facts.push(fact.map_err(|why| format!("expression {i}: {why}"))?);
        }
        Ok(facts)
    }

    /// Whether a view with these strides over `dims ++ inner` differs between inner indices.
    fn moves_inside(&self, input: usize) -> bool {
        let strides = self.inputs[input].strides.get(self.dims.len()..).unwrap_or_default();
        strides.iter().any(|s| s.as_const() != Some(0))
    }
}

struct Typing<'a> {
    body: &'a Loop,
    dtype: &'a dyn Fn(usize) -> Option<DType>,
    facts: &'a [ExprFacts],
}

impl Typing<'_> {
    fn of(&self, id: ExprId) -> Result<ExprFacts, String> {
        self.facts.get(id.0 as usize).copied().ok_or_else(|| format!("operand {} does not come before it", id.0))
    }

    fn input(&self, input: u32) -> Result<ExprFacts, String> {
        let index = input as usize;
        let missing = || format!("input {input} of {} does not exist", self.body.inputs.len());
        self.body.inputs.get(index).ok_or_else(missing)?;
        let dtype = (self.dtype)(index).ok_or_else(missing)?;
        Ok(ExprFacts { dtype, inner: self.body.moves_inside(index), reductions: 0 })
    }

    fn expr(&self, expr: &Expr) -> Result<ExprFacts, String> {
        let leaf = |dtype, inner| ExprFacts { dtype, inner, reductions: 0 };
        match expr {
            Expr::Load(input) => self.input(*input),
            Expr::LoadAt { input, at } => {
                let mut fact = self.input(*input)?;
                for coordinate in at {
                    let index = self.of(coordinate.index)?;
                    if !matches!(index.dtype, DType::I64 | DType::I32) {
                        return Err(format!("a coordinate must be an integer, found {}", index.dtype));
                    }
                    fact = join(fact, index);
                }
                Ok(fact)
            }
            Expr::Index(axis) => {
                let (outer, all) = (self.body.dims.len(), self.body.dims.len() + self.body.inner.len());
                if *axis as usize >= all {
                    return Err(format!("axis {axis} of {all} does not exist"));
                }
                Ok(leaf(DType::I64, *axis as usize >= outer))
            }
            Expr::Size(_) => Ok(leaf(DType::I64, false)),
            Expr::Const(Scalar::F32(_)) => Ok(leaf(DType::F32, false)),
            Expr::Const(Scalar::I64(_)) => Ok(leaf(DType::I64, false)),
            Expr::Const(Scalar::I32(_)) => Ok(leaf(DType::I32, false)),
            Expr::Const(Scalar::Bool(_)) => Ok(leaf(DType::Bool, false)),
            Expr::Unary(function, a) => unary(*function, self.of(*a)?),
            Expr::Binary(function, a, b) => binary(*function, self.of(*a)?, self.of(*b)?),
            Expr::Select(condition, a, b) => self.select(*condition, *a, *b),
            Expr::Cast(dtype, a) => self.cast(*dtype, *a),
            Expr::Reduced(index) => self.reduced(*index),
        }
    }

    fn select(&self, condition: ExprId, a: ExprId, b: ExprId) -> Result<ExprFacts, String> {
        let (condition, a, b) = (self.of(condition)?, self.of(a)?, self.of(b)?);
        if condition.dtype != DType::Bool {
            return Err(format!("a condition must be bool, found {}", condition.dtype));
        }
        same(a, b)?;
        Ok(join(join(a, b), condition))
    }

    fn cast(&self, to: DType, a: ExprId) -> Result<ExprFacts, String> {
        let a = self.of(a)?;
        match [a.dtype, to].into_iter().find(|d| !d.is_compiled()) {
            None => Ok(ExprFacts { dtype: to, ..a }),
            Some(rare) => Err(format!("loops do not convert {rare}")),
        }
    }

    fn reduced(&self, index: u32) -> Result<ExprFacts, String> {
        let all = self.body.reductions.len();
        let reduction = self.body.reductions.get(index as usize);
        let reduction = reduction.ok_or_else(|| format!("reduction {index} of {all} does not exist"))?;
        let value = self.of(reduction.value)?;
        let dtype = match reduction.function {
            ReductionFn::ArgMax => DType::I64,
            ReductionFn::Sum | ReductionFn::Max | ReductionFn::Min => value.dtype,
        };
        if value.dtype == DType::Bool || !value.dtype.is_compiled() {
            return Err(format!("{} values do not reduce", value.dtype));
        }
        Ok(ExprFacts { dtype, inner: false, reductions: index + 1 })
    }
}

fn join(a: ExprFacts, b: ExprFacts) -> ExprFacts {
    ExprFacts { dtype: a.dtype, inner: a.inner || b.inner, reductions: a.reductions.max(b.reductions) }
}

fn same(a: ExprFacts, b: ExprFacts) -> Result<(), String> {
    if a.dtype == b.dtype { Ok(()) } else { Err(format!("operands are {} and {}", a.dtype, b.dtype)) }
}

fn refuse<T>(function: impl std::fmt::Debug, dtype: DType) -> Result<T, String> {
    Err(format!("{function:?} is not defined for {dtype}"))
}

fn unary(function: UnaryFn, a: ExprFacts) -> Result<ExprFacts, String> {
    let ok = a.dtype.is_compiled()
        && match function {
            UnaryFn::Neg | UnaryFn::Abs => a.dtype != DType::Bool,
            UnaryFn::Not => a.dtype == DType::Bool,
            UnaryFn::Sqrt | UnaryFn::Reciprocal | UnaryFn::Exp | UnaryFn::Log | UnaryFn::Sin | UnaryFn::Cos => {
                a.dtype == DType::F32
            }
            UnaryFn::Tanh | UnaryFn::Erf | UnaryFn::Sigmoid | UnaryFn::IsNaN => a.dtype == DType::F32,
            UnaryFn::Floor | UnaryFn::Ceil | UnaryFn::Round => a.dtype == DType::F32,
        };
    let dtype = if function == UnaryFn::IsNaN { DType::Bool } else { a.dtype };
    if ok { Ok(ExprFacts { dtype, ..a }) } else { refuse(function, a.dtype) }
}

fn binary(function: BinaryFn, a: ExprFacts, b: ExprFacts) -> Result<ExprFacts, String> {
    same(a, b)?;
    if !a.dtype.is_compiled() {
        return refuse(function, a.dtype);
    }
    let (ok, dtype) = match function {
        BinaryFn::Add | BinaryFn::Sub | BinaryFn::Mul | BinaryFn::Div => (a.dtype != DType::Bool, a.dtype),
        BinaryFn::Max | BinaryFn::Min => (a.dtype != DType::Bool, a.dtype),
        BinaryFn::Pow => (a.dtype == DType::F32, a.dtype),
        BinaryFn::And | BinaryFn::Or => (a.dtype == DType::Bool, a.dtype),
        BinaryFn::Equal => (true, DType::Bool),
        BinaryFn::Less | BinaryFn::LessOrEqual => (a.dtype != DType::Bool, DType::Bool),
    };
    if ok { Ok(ExprFacts { dtype, ..join(a, b) }) } else { refuse(function, a.dtype) }
}
