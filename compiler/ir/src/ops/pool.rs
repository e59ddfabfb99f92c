//! Pooling over any number of spatial dims.
//!
//! Specification: <https://onnx.ai/onnx/operators/onnx__MaxPool.html>,
//! <https://onnx.ai/onnx/operators/onnx__AveragePool.html>. In `ceil_mode` a window that would begin
//! behind the input is left out, and what a window covers beyond the padding is not counted.

use super::Facts;
use super::elementwise::larger;
use super::eval_context::{Eval, Evaluated};
use super::infer_context::{Infer, Inferred};
use super::window::{Window, Windows};
use crate::types::Type;

/// `MaxPool` and `AveragePool` (whose dilations are 1).
pub(super) fn infer(cx: &mut Infer, windows: Windows) -> Inferred {
    cx.expect_number(0)?;
    let x = cx.ty(0);
    cx.require(x.rank() >= 3, || format!("operand 0 must have at least 3 dims, found {x}"))?;
    let spatial = windows.infer(cx, &x.dims[2..])?;
    let (pads, kernel) = (windows.pads, windows.kernel);
    let smaller = pads.iter().zip(kernel.iter().cycle()).all(|(pad, size)| pad < size);
    cx.require(smaller, || format!("pads {pads:?} must be smaller than the kernel {kernel:?}"))?;
    Ok(Facts::of(Type::new(x.dtype, x.dims[..2].iter().cloned().chain(spatial))))
}

/// `MaxPool`: NaN if any element is NaN.
pub(super) fn eval_max(cx: &Eval, windows: Windows) -> Evaluated {
    if cx.is_float() {
        let largest = |x: &[f64], _| x.iter().copied().fold(f64::NEG_INFINITY, larger);
        return cx.finish_floats(pool(cx, windows, &cx.floats(0), largest));
    }
    let least = cx.dtype().integer_range().map_or(0, |(least, _)| least);
    let largest = |x: &[i128], _| x.iter().copied().fold(least, i128::max);
    cx.finish_integers(pool(cx, windows, &cx.wide(0)?, largest))
}

/// `AveragePool`.
pub(super) fn eval_average(cx: &Eval, windows: Windows, count_include_pad: bool) -> Evaluated {
    cx.finish_floats(pool(cx, windows, &cx.floats(0), |x, padded| {
        let count = if count_include_pad { padded } else { x.len() };
        x.iter().sum::<f64>() / count as f64
    }))
}

/// `f` of every window: its elements inside the input, and its size inside input and padding.
fn pool<T: Copy>(cx: &Eval, windows: Windows, x: &[T], f: impl Fn(&[T], usize) -> T) -> Vec<T> {
    let (from, to) = (&cx.from(0)[2..], &cx.to()[2..]);
    let (positions, padded) = (windows.positions(from, to), windows.padded_counts(from, to));
    let plane: usize = from.iter().product();
    let image = |i: usize| &x[i * plane..(i + 1) * plane];
    let windows = |image: &[T]| -> Vec<T> {
        let elements = |window: &Window| window.iter().map(|(_, at)| image[*at]).collect::<Vec<T>>();
        positions.iter().zip(&padded).map(|(window, padded)| f(&elements(window), *padded)).collect()
    };
    (0..cx.from(0)[0] * cx.from(0)[1]).flat_map(|i| windows(image(i))).collect()
}
