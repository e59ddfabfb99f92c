//! What each operator means: type inference and reference evaluation, one file per family.

pub mod control;

use crate::dim::{Dim, Symbol};
use crate::graph::Value;
use crate::op::Op;
use crate::tensor::Tensor;
use crate::types::Type;

/// What inference knows of a value: its type and, for small integer tensors, its elements.
#[derive(Clone, PartialEq, Debug)]
pub struct Facts {
    /// Type.
    pub ty: Type,
    /// The elements in row-major order as sizes (`Bool`: 0 or 1), if known; at most
    /// [`Facts::MAX_CONTENTS`] of them.
    pub contents: Option<Vec<Dim>>,
}

impl Facts {
    /// Tensors with more elements are data, not shape arithmetic.
    pub const MAX_CONTENTS: usize = 64;

    /// A type of which nothing more is known.
    pub fn of(ty: Type) -> Self {
        Facts { ty, contents: None }
    }

    /// What is known of a value.
    pub fn from_value(value: &Value) -> Self {
        Facts { ty: value.ty.clone(), contents: value.contents.clone() }
    }
}

/// The outcome of inference.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Inference {
    /// One per result.
    pub outputs: Vec<Facts>,
    /// Pairs of sizes that must be equal at run time, which their expressions do not show.
    pub assumptions: Vec<(Dim, Dim)>,
}

/// Why operands do not fit an operator: what was expected and what was found.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{op}: {reason}")]
pub struct InferError {
    /// Operator.
    pub op: &'static str,
    /// Expected and found.
    pub reason: String,
}

impl InferError {
    /// An error of `op`.
    pub fn new(op: &Op, reason: impl Into<String>) -> Self {
        InferError { op: op.name(), reason: reason.into() }
    }
}

/// Why an operator could not be evaluated on given tensors.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{op}: {reason}")]
pub struct EvalError {
    /// Operator.
    pub op: &'static str,
    /// What went wrong.
    pub reason: String,
}

/// Values of symbols during an evaluation.
pub type DimEnv<'a> = dyn Fn(&Symbol) -> Option<i64> + 'a;

/// The result types of a non-control operator.
pub fn infer(op: &Op, inputs: &[Facts]) -> Result<Inference, InferError> {
    let _ = inputs;
    Err(InferError::new(op, "not implemented yet"))
}

/// The results of a non-control operator on tensors, straight from its definition.
pub fn eval(op: &Op, inputs: &[Tensor], env: &DimEnv) -> Result<Vec<Tensor>, EvalError> {
    let _ = (inputs, env);
    Err(EvalError { op: op.name(), reason: "not implemented yet".into() })
}

/// What is known of a constant.
pub fn constant_facts(tensor: &Tensor) -> Facts {
    let small = tensor.len() <= Facts::MAX_CONTENTS;
    let contents = tensor.to_i64s().filter(|_| small).map(|v| v.into_iter().map(Dim::from).collect());
    Facts { ty: tensor.ty(), contents }
}
