//! Values of expressions: one, or four neighbours along the vector axis.

use cranelift::codegen::ir::Endianness;
use cranelift::prelude::types::{F32, F32X4, I8, I8X16, I16, I16X8, I32, I32X4, I64};
use cranelift::prelude::*;
use eec_ir::DType;

/// The value of an expression. Four floats are an `F32X4`, four bools an `I32X4` mask, and four
/// integers four scalars.
#[derive(Clone, Copy, Debug)]
pub(super) enum Lanes {
    /// A scalar; a bool is an `I8` that is 0 or 1.
    One(Value),
    /// A vector.
    Wide(Value),
    /// Four scalars.
    Many([Value; 4]),
}

/// The cranelift type of one element in memory and, bools included, as a scalar.
pub(super) fn scalar_type(dtype: DType) -> Type {
    match dtype {
        DType::F32 => F32,
        DType::I64 => I64,
        DType::I32 => I32,
        DType::Bool => I8,
        // What is only moved is moved as bits.
        other => match other.size() {
            8 => I64,
            4 => I32,
            2 => I16,
            _ => I8,
        },
    }
}

/// Whether four elements are four scalars, not a vector.
pub(super) fn is_scalar(dtype: DType) -> bool {
    !matches!(dtype, DType::F32 | DType::Bool)
}

/// Every address is checked before a run, so that loads and stores never trap.
pub(super) fn memory() -> MemFlagsData {
    MemFlagsData::new().with_notrap()
}

fn reinterpret() -> MemFlagsData {
    MemFlagsData::new().with_endianness(Endianness::Little)
}

/// Four scalars as a vector.
pub(super) fn join(b: &mut FunctionBuilder<'_>, ty: Type, parts: [Value; 4]) -> Value {
    let mut vector = b.ins().scalar_to_vector(ty, parts[0]);
    for (lane, part) in parts.iter().enumerate().skip(1) {
        vector = b.ins().insertlane(vector, *part, lane as u8);
    }
    vector
}

/// The lanes of a vector.
pub(super) fn split(b: &mut FunctionBuilder<'_>, vector: Value) -> [Value; 4] {
    [0, 1, 2, 3].map(|lane| b.ins().extractlane(vector, lane))
}

/// A bool as a lane of a mask.
fn mask_lane(b: &mut FunctionBuilder<'_>, x: Value) -> Value {
    let wide = b.ins().uextend(I32, x);
    b.ins().ineg(wide)
}

/// Four bools as a mask.
pub(super) fn join_mask(b: &mut FunctionBuilder<'_>, parts: [Value; 4]) -> Value {
    let parts = parts.map(|p| mask_lane(b, p));
    join(b, I32X4, parts)
}

/// A mask as four bools.
pub(super) fn split_mask(b: &mut FunctionBuilder<'_>, mask: Value) -> [Value; 4] {
    split(b, mask).map(|lane| {
        let low = b.ins().ireduce(I8, lane);
        b.ins().band_imm_s(low, 1)
    })
}

/// Floats or a mask: a scalar is repeated.
pub(super) fn widen(b: &mut FunctionBuilder<'_>, dtype: DType, value: Lanes) -> Value {
    match (value, dtype) {
        (Lanes::Wide(v), _) => v,
        (Lanes::One(v), DType::Bool) => {
            let lane = mask_lane(b, v);
            b.ins().splat(I32X4, lane)
        }
        (Lanes::One(v), _) => b.ins().splat(F32X4, v),
        (Lanes::Many(parts), DType::Bool) => join_mask(b, parts),
        (Lanes::Many(parts), _) => join(b, F32X4, parts),
    }
}

/// Four scalars of any value.
pub(super) fn scalars(b: &mut FunctionBuilder<'_>, dtype: DType, value: Lanes) -> [Value; 4] {
    match (value, dtype) {
        (Lanes::One(v), _) => [v; 4],
        (Lanes::Many(parts), _) => parts,
        (Lanes::Wide(v), DType::Bool) => split_mask(b, v),
        (Lanes::Wide(v), _) => split(b, v),
    }
}

/// A bool loaded as a scalar.
pub(super) fn load_bool(b: &mut FunctionBuilder<'_>, address: Value) -> Value {
    let byte = b.ins().load(I8, memory(), address, 0);
    b.ins().icmp_imm_s(IntCC::NotEqual, byte, 0)
}

/// Four neighbouring bools as a mask.
pub(super) fn load_mask(b: &mut FunctionBuilder<'_>, address: Value) -> Value {
    let word = b.ins().load(I32, memory(), address, 0);
    let vector = b.ins().scalar_to_vector(I32X4, word);
    let bytes = b.ins().bitcast(I8X16, reinterpret(), vector);
    let halves = b.ins().swiden_low(bytes);
    let words = b.ins().swiden_low(halves);
    let zero = b.ins().iconst(I32, 0);
    let zeros = b.ins().splat(I32X4, zero);
    b.ins().icmp(IntCC::NotEqual, words, zeros)
}

/// Stores a mask as four neighbouring bools.
pub(super) fn store_mask(b: &mut FunctionBuilder<'_>, mask: Value, address: Value) {
    let one = b.ins().iconst(I32, 1);
    let ones = b.ins().splat(I32X4, one);
    let words = b.ins().band(mask, ones);
    let halves = b.ins().snarrow(words, words);
    let halves = b.ins().bitcast(I16X8, reinterpret(), halves);
    let bytes = b.ins().snarrow(halves, halves);
    let vector = b.ins().bitcast(I32X4, reinterpret(), bytes);
    let word = b.ins().extractlane(vector, 0);
    b.ins().store(memory(), word, address, 0);
}
