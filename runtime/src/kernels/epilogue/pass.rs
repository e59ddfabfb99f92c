//! One operation over rows of elements, written once as scalars in blocks that the compiler turns into
//! the vectors of each instruction set.

use crate::kernels::Strided;
use crate::kernels::math::BLOCK;

/// A function of two elements, or of the first alone.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Operation {
    Copy,
    Neg,
    Abs,
    Sqrt,
    Reciprocal,
    Add,
    Sub,
    Mul,
    Div,
    /// The larger; NaN if either is NaN.
    Max,
    /// The smaller; NaN if either is NaN.
    Min,
}

/// One operation over `rows` × `columns` elements. The operands' column strides are 0 or 1; each may lie
/// where the result does.
#[derive(Clone, Copy)]
pub(crate) struct Pass {
    pub(super) operation: Operation,
    pub(super) rows: usize,
    pub(super) columns: usize,
    pub(super) a: Strided,
    pub(super) b: Strided,
    pub(super) to: *mut f32,
    pub(super) to_row: isize,
}

/// What is done to a pair of elements: a trait, since a closure would not be compiled for the instruction
/// set of its caller.
trait Pair {
    fn of(a: f32, b: f32) -> f32;
}

macro_rules! pairs {
    ($($name:ident: |$a:ident, $b:ident| $of:expr;)*) => {
        $(
            struct $name;

            impl Pair for $name {
                #[inline(always)]
                fn of($a: f32, $b: f32) -> f32 {
                    $of
                }
            }
        )*

        /// Makes a pass.
        ///
        /// # Safety
        ///
        /// The rows are readable at the operands and writable at the result.
        #[inline(always)]
        pub(crate) unsafe fn pass(p: &Pass) {
            // SAFETY: the caller's promise.
            unsafe {
                match p.operation {
                    $(Operation::$name => rows::<$name>(p),)*
                }
            }
        }
    };
}

pairs! {
    Copy: |a, _b| a;
    Neg: |a, _b| -a;
    Abs: |a, _b| a.abs();
    Sqrt: |a, _b| a.sqrt();
    Reciprocal: |a, _b| 1.0 / a;
    Add: |a, b| a + b;
    Sub: |a, b| a - b;
    Mul: |a, b| a * b;
    Div: |a, b| a / b;
    Max: |a, b| if a > b || a.is_nan() { a } else { b };
    Min: |a, b| if a < b || a.is_nan() { a } else { b };
}

/// # Safety
///
/// As for [`pass`].
#[inline(always)]
unsafe fn rows<F: Pair>(p: &Pass) {
    for row in 0..p.rows as isize {
        let (a, b) = (p.a.ptr.wrapping_offset(row * p.a.row), p.b.ptr.wrapping_offset(row * p.b.row));
        let to = p.to.wrapping_offset(row * p.to_row);
        // SAFETY: the row is one of the caller's.
        unsafe {
            match (p.a.column != 0, p.b.column != 0) {
                (true, true) => elements::<F, true, true>(a, b, to, p.columns),
                (true, false) => elements::<F, true, false>(a, b, to, p.columns),
                (false, true) => elements::<F, false, true>(a, b, to, p.columns),
                (false, false) => elements::<F, false, false>(a, b, to, p.columns),
            }
        }
    }
}

/// One row; `A` and `B` say which operands have an element per element, and not one for all.
///
/// # Safety
///
/// `len` elements are readable at the operands, or one, and writable at `to`.
#[inline(always)]
unsafe fn elements<F: Pair, const A: bool, const B: bool>(a: *const f32, b: *const f32, to: *mut f32, len: usize) {
    let whole = len - len % BLOCK;
    // SAFETY: the caller's promise; a block is read before it is written, since it may lie at the same place.
    unsafe {
        for i in (0..whole).step_by(BLOCK) {
            let x: [f32; BLOCK] = if A { a.add(i).cast::<[f32; BLOCK]>().read_unaligned() } else { [*a; BLOCK] };
            let y: [f32; BLOCK] = if B { b.add(i).cast::<[f32; BLOCK]>().read_unaligned() } else { [*b; BLOCK] };
            let z: [f32; BLOCK] = std::array::from_fn(|j| F::of(x[j], y[j]));
            to.add(i).cast::<[f32; BLOCK]>().write_unaligned(z);
        }
        for i in whole..len {
            *to.add(i) = F::of(*a.add(if A { i } else { 0 }), *b.add(if B { i } else { 0 }));
        }
    }
}
