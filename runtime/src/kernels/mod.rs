//! Precompiled f32 kernels: matmul, convolution and pooling over raw strided memory, called by
//! generated code. They know nothing of the Program; sizes and pointers are the caller's promise.
//!
//! Every output element is one chain of multiply-adds in a fixed order that depends only on its
//! position: not on the other rows of the batch, the number of threads or the tile that holds it.
//! The chain starts at zero; a scale, a bias, then an epilogue are applied at its end. Each step is a fused multiply-add, but
//! for CPUs that have none (see the portable set).

pub(crate) mod attention;
pub(crate) mod conv;
pub(crate) mod epilogue;
mod gemm;
pub(crate) mod image;
pub(crate) mod math;
pub(crate) mod matmul;
pub(crate) mod narrow;
pub(crate) mod pool2d;
pub(crate) mod scratch;
pub(crate) mod simd;

/// What is added to the finished sums.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Bias {
    /// Nothing.
    None,
    /// One value per column of C.
    PerColumn(*const f32),
}

impl Bias {
    /// One value per column, or nothing where there is no address.
    fn per_column(bias: *const f32) -> Bias {
        if bias.is_null() { Bias::None } else { Bias::PerColumn(bias) }
    }

    /// The bias of the part of C that starts at `column`.
    fn at(self, column: usize) -> Bias {
        match self {
            Bias::None => Bias::None,
            Bias::PerColumn(bias) => Bias::PerColumn(bias.wrapping_add(column)),
        }
    }
}

/// A matrix in memory: the element at (r, c) is `ptr[r * row + c * column]`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Strided {
    /// The element at (0, 0).
    pub(crate) ptr: *const f32,
    /// Elements from one row to the next.
    pub(crate) row: isize,
    /// Elements from one column to the next.
    pub(crate) column: isize,
}

impl Strided {
    /// The part that starts at `row` and `column`.
    fn at(self, row: usize, column: usize) -> Strided {
        let offset = row as isize * self.row + column as isize * self.column;
        Strided { ptr: self.ptr.wrapping_offset(offset), ..self }
    }
}

/// Which of several products an item of a job belongs to, and its number there; `counts` are the products'
/// items.
fn locate(mut item: usize, counts: impl IntoIterator<Item = usize>) -> Option<(usize, usize)> {
    counts.into_iter().enumerate().find_map(|(product, count)| {
        let found = item < count;
        if !found {
            item -= count;
        }
        found.then_some((product, item))
    })
}

/// The best time of many runs of `f`, for the measurements among the tests.
#[cfg(test)]
fn best_seconds(mut f: impl FnMut()) -> f64 {
    let begin = std::time::Instant::now();
    let mut best = f64::INFINITY;
    while begin.elapsed().as_secs_f64() < 0.15 {
        let start = std::time::Instant::now();
        f();
        best = best.min(start.elapsed().as_secs_f64());
    }
    best
}
