//! Dims as integer code over symbol values.

use cranelift::prelude::types::I64;
use cranelift::prelude::*;
use eec_ir::dim::{Atom, Dim, Symbol};

/// Emits the value of `dim`, with symbols given by `symbol`.
///
/// Sums and products wrap. The checks before a run make sure that neither the result nor the operand
/// of a division leaves 64 bits, and that no divisor is zero.
pub(super) fn emit(
    b: &mut FunctionBuilder<'_>,
    dim: &Dim,
    symbol: &mut dyn FnMut(&mut FunctionBuilder<'_>, &Symbol) -> Value,
) -> Value {
    if let Some(value) = dim.as_const() {
        return b.ins().iconst(I64, value);
    }
    let mut sum: Option<Value> = None;
    for term in dim.terms() {
        let mut product: Option<Value> = None;
        for factor in &term.factors {
            let value = atom(b, factor, symbol);
            product = Some(product.map_or(value, |p| b.ins().imul(p, value)));
        }
        let value = match product {
            None => b.ins().iconst(I64, term.coef),
            Some(p) if term.coef == 1 => p,
            Some(p) => b.ins().imul_imm_s(p, term.coef),
        };
        sum = Some(sum.map_or(value, |s| b.ins().iadd(s, value)));
    }
    sum.unwrap_or_else(|| b.ins().iconst(I64, 0))
}

fn atom(
    b: &mut FunctionBuilder<'_>,
    atom: &Atom,
    symbol: &mut dyn FnMut(&mut FunctionBuilder<'_>, &Symbol) -> Value,
) -> Value {
    match atom {
        Atom::Symbol(s) => symbol(b, s),
        Atom::FloorDiv(x, y) => {
            let (x, y) = (emit(b, x, symbol), emit(b, y, symbol));
            floor_div(b, x, y)
        }
        Atom::Max(x, y) => {
            let (x, y) = (emit(b, x, symbol), emit(b, y, symbol));
            b.ins().smax(x, y)
        }
        Atom::Min(x, y) => {
            let (x, y) = (emit(b, x, symbol), emit(b, y, symbol));
            b.ins().smin(x, y)
        }
    }
}

/// Division rounded towards negative infinity; zero and -1 as divisors do not trap.
fn floor_div(b: &mut FunctionBuilder<'_>, x: Value, y: Value) -> Value {
    let next = b.ins().iadd_imm_s(y, 1);
    let special = b.ins().icmp_imm_s(IntCC::UnsignedLessThanOrEqual, next, 1);
    let one = b.ins().iconst(I64, 1);
    let divisor = b.ins().select(special, one, y);
    let quotient = b.ins().sdiv(x, divisor);
    let product = b.ins().imul(quotient, divisor);
    let rest = b.ins().isub(x, product);
    let signs = b.ins().bxor(rest, divisor);
    let inexact = b.ins().icmp_imm_s(IntCC::NotEqual, rest, 0);
    let opposite = b.ins().icmp_imm_s(IntCC::SignedLessThan, signs, 0);
    let down = b.ins().band(inexact, opposite);
    let down = b.ins().uextend(I64, down);
    let floor = b.ins().isub(quotient, down);
    let negated = b.ins().ineg(x);
    b.ins().select(special, negated, floor)
}
