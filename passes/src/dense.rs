//! Dense layers that passes insert: of heads at exits, gates and replacements of FFNs.

use eec_ir::{Op, Tensor, ValueId};

use crate::emit::{Emit, EmitError};

/// The function between two dense layers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Activation {
    /// `max(x, 0)`.
    Relu,
    /// The tanh form of GELU.
    GeluTanh,
}

/// `x · weight + bias` for `x` `[rows, from]`, `weight` `[from, to]` and `bias` `[to]`.
pub(crate) fn dense(
    emit: &mut Emit,
    name: &str,
    x: ValueId,
    weight: &Tensor,
    bias: &Tensor,
) -> Result<ValueId, EmitError> {
    let (w, b) = (emit.constant(weight.clone()), emit.constant(bias.clone()));
    let product = emit.op(&format!("{name}/product"), Op::MATMUL, &[x, w])?;
    emit.op(name, Op::Add {}, &[product, b])
}

/// The function applied to every element.
pub(crate) fn activate(emit: &mut Emit, activation: Activation, x: ValueId) -> Result<ValueId, EmitError> {
    let op = match activation {
        Activation::Relu => Op::Relu {},
        Activation::GeluTanh => Op::Gelu { tanh: true },
    };
    emit.op("activation", op, &[x])
}
