//! Sizes that a model computes in floats, as exporters write `floor(size · factor)`: products and quotients of sizes with
//! constants, rounded and converted back to integers, are sizes again.

use eec_ir::{Dim, Op, Tensor, ValueId};

use super::node::Cx;
use super::resize::ratio;

/// Floats are followed through so many operators.
const MAX_DEPTH: usize = 16;

/// A float: a size divided by a positive integer.
#[derive(Clone)]
struct Share {
    size: Dim,
    over: i64,
}

impl Share {
    fn of(size: Dim) -> Share {
        Share { size, over: 1 }
    }

    /// Times `by / over`, both positive.
    fn times(&self, (by, over): (i64, i64)) -> Option<Share> {
        let over = self.over.checked_mul(over).filter(|over| *over < Dim::LIMIT)?;
        Some(Share { size: &self.size * &by.into(), over })
    }

    /// Rounded down.
    fn floor(&self) -> Option<Dim> {
        self.size.floor_div(&self.over.into())
    }
}

/// The elements of a float value rounded towards zero, where they are made of sizes that are not negative.
pub(super) fn truncated(cx: &Cx, value: ValueId) -> Option<Vec<Dim>> {
    cx.few(value).filter(|count| *count > 0)?;
    let shares = shares(cx, value, MAX_DEPTH)?;
    // Of constants alone, float arithmetic is exact enough as it is.
    let open = shares.iter().any(|share| share.size.as_const().is_none());
    let whole = |share: &Share| share.floor().filter(|_| share.size.is_at_least(0));
    if open { shares.iter().map(whole).collect() } else { None }
}

fn shares(cx: &Cx, value: ValueId, depth: usize) -> Option<Vec<Share>> {
    if let Some(sizes) = cx.contents(value) {
        return Some(sizes.iter().cloned().map(Share::of).collect());
    }
    if let Some(tensor) = cx.constant_of(value) {
        return factors(tensor)?.into_iter().map(|factor| Share::of(1.into()).times(factor)).collect();
    }
    let node = cx.graph().node(cx.graph().def_node(value)?);
    let depth = depth.checked_sub(1)?;
    let operand = |i: usize| shares(cx, node.inputs[i], depth);
    let constant = |i: usize| factors(cx.constant_of(node.inputs[i])?);
    let from_integers = || cx.ty(node.inputs[0]).dtype.is_int();
    if let Op::Cast { to } = node.op {
        return if to.is_float() || from_integers() { operand(0) } else { None };
    }
    if let Op::Reshape { .. } = node.op {
        return operand(0);
    }
    if let Op::Concat { .. } = node.op {
        let parts = node.inputs.iter().filter(|part| cx.few(**part) != Some(0));
        let parts = parts.map(|part| shares(cx, *part, depth)).collect::<Option<Vec<_>>>()?;
        return (cx.rank(value) == 1).then(|| parts.concat());
    }
    if node.op == (Op::Mul {}) {
        return match constant(1) {
            Some(factors) => scaled(operand(0)?, factors),
            None => scaled(operand(1)?, constant(0)?),
        };
    }
    if node.op == (Op::Div {}) {
        return scaled(operand(0)?, constant(1)?.into_iter().map(|(by, over)| (over, by)).collect());
    }
    if node.op == (Op::Floor {}) {
        return operand(0)?.iter().map(|share| share.floor().map(Share::of)).collect();
    }
    if node.op == (Op::Ceil {}) {
        return operand(0)?.iter().map(|share| share.size.ceil_div(share.over).map(Share::of)).collect();
    }
    None
}

/// A constant's elements as fractions, if they are positive.
fn factors(tensor: &Tensor) -> Option<Vec<(i64, i64)>> {
    tensor.elements::<f32>()?.iter().map(|x| ratio(*x)).collect()
}

/// Products, of which either all have one factor or one size has all.
fn scaled(shares: Vec<Share>, factors: Vec<(i64, i64)>) -> Option<Vec<Share>> {
    match (shares.as_slice(), factors.as_slice()) {
        (all, [one]) => all.iter().map(|share| share.times(*one)).collect(),
        ([one], all) => all.iter().map(|factor| one.times(*factor)).collect(),
        (all, each) if all.len() == each.len() => all.iter().zip(each).map(|(s, f)| s.times(*f)).collect(),
        _ => None,
    }
}
