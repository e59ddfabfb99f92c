//! One operation over rows of elements, written once for the vectors of all instruction sets.

use crate::kernels::Strided;
use crate::kernels::gemm::MAX_LANES;
use crate::kernels::simd::Lanes;

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
    pub(in crate::kernels) operation: Operation,
    pub(in crate::kernels) rows: usize,
    pub(in crate::kernels) columns: usize,
    pub(in crate::kernels) a: Strided,
    pub(in crate::kernels) b: Strided,
    pub(in crate::kernels) to: *mut f32,
    pub(in crate::kernels) to_row: isize,
}

/// What is done to a pair of vectors: a trait, since a closure would not be compiled for the instruction
/// set of its caller.
pub(crate) trait Pair {
    /// # Safety
    ///
    /// The instruction set of `V`.
    unsafe fn of<V: Lanes>(a: V, b: V) -> V;
}

macro_rules! pairs {
    ($($name:ident: |$a:ident, $b:ident| $of:expr;)*) => {
        $(
            pub(crate) struct $name;

            impl Pair for $name {
                #[inline(always)]
                #[allow(unused_unsafe, reason = "a copy calls nothing")]
                unsafe fn of<V: Lanes>($a: V, $b: V) -> V {
                    // SAFETY: the caller has the instruction set.
                    unsafe { $of }
                }
            }
        )*

        /// Makes a pass.
        ///
        /// # Safety
        ///
        /// The instruction set of `V`; the rows are readable at the operands and writable at the result.
        #[inline(always)]
        pub(crate) unsafe fn pass<V: Lanes>(p: &Pass) {
            // SAFETY: the caller's promise.
            unsafe {
                match p.operation {
                    $(Operation::$name => rows::<V, $name>(p),)*
                }
            }
        }
    };
}

pairs! {
    Copy: |a, _b| a;
    Neg: |a, _b| each(a, |x| -x);
    Abs: |a, _b| each(a, f32::abs);
    Sqrt: |a, _b| each(a, f32::sqrt);
    Reciprocal: |a, _b| V::splat(1.0).div(a);
    Add: |a, b| a.add(b);
    Sub: |a, b| a.sub(b);
    Mul: |a, b| a.mul(b);
    Div: |a, b| a.div(b);
    Max: |a, b| a.larger(b);
    Min: |a, b| a.smaller(b);
}

/// A function of every lane, for what is too rare to have an instruction of its own.
///
/// # Safety
///
/// The instruction set of `V`.
#[inline(always)]
unsafe fn each<V: Lanes>(x: V, f: impl Fn(f32) -> f32) -> V {
    let mut lanes = [0.0; MAX_LANES];
    // SAFETY: the array holds a whole vector.
    unsafe {
        x.store(lanes.as_mut_ptr());
        lanes.iter_mut().for_each(|lane| *lane = f(*lane));
        V::load(lanes.as_ptr())
    }
}

/// # Safety
///
/// As for [`pass`].
#[inline(always)]
unsafe fn rows<V: Lanes, F: Pair>(p: &Pass) {
    // SAFETY: the caller's promise.
    unsafe {
        match (p.a.column != 0, p.b.column != 0) {
            (true, true) => elements::<V, F, true, true>(p),
            (true, false) => elements::<V, F, true, false>(p),
            (false, true) => elements::<V, F, false, true>(p),
            (false, false) => elements::<V, F, false, false>(p),
        }
    }
}

/// `A` and `B` say which operands have an element per element, and not one per row.
///
/// # Safety
///
/// As for [`pass`].
#[inline(always)]
unsafe fn elements<V: Lanes, F: Pair, const A: bool, const B: bool>(p: &Pass) {
    let whole = p.columns - p.columns % V::LEN;
    for row in 0..p.rows as isize {
        let (a, b) = (p.a.ptr.wrapping_offset(row * p.a.row), p.b.ptr.wrapping_offset(row * p.b.row));
        let to = p.to.wrapping_offset(row * p.to_row);
        // SAFETY: the row is one of the caller's; the last part of it is shorter than a vector.
        unsafe {
            let (x, y) = (one::<V, A>(a), one::<V, B>(b));
            for i in (0..whole).step_by(V::LEN) {
                let x = if A { V::load(a.add(i)) } else { x };
                let y = if B { V::load(b.add(i)) } else { y };
                F::of(x, y).store(to.add(i));
            }
            let rest = p.columns - whole;
            if rest > 0 {
                let x = if A { V::load_part(a.add(whole), rest) } else { x };
                let y = if B { V::load_part(b.add(whole), rest) } else { y };
                F::of(x, y).store_part(to.add(whole), rest);
            }
        }
    }
}

/// The row's one element in all lanes, if it has but one.
///
/// # Safety
///
/// The instruction set of `V`; the element is readable.
#[inline(always)]
unsafe fn one<V: Lanes, const MOVES: bool>(row: *const f32) -> V {
    // SAFETY: the caller's promise.
    unsafe { if MOVES { V::zero() } else { V::splat(*row) } }
}
