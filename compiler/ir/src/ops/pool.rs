//! 2-D pooling.
//!
//! Specification: <https://onnx.ai/onnx/operators/onnx__MaxPool.html>,
//! <https://onnx.ai/onnx/operators/onnx__AveragePool.html>. In `ceil_mode` a window that would begin
//! behind the input is left out, and what a window covers beyond the padding is not counted.

use super::Facts;
use super::elementwise::larger;
use super::eval_context::{Eval, Evaluated};
use super::infer_context::{Infer, Inferred};
use super::window::{Line, Windows};
use crate::types::{DType, Type};

/// `MaxPool` and `AveragePool` (whose dilations are 1).
pub(super) fn infer(cx: &mut Infer, windows: Windows) -> Inferred {
    cx.expect_dtype(0, &[DType::F32])?;
    cx.expect_rank(0, 4)?;
    let x = cx.ty(0);
    let spatial = windows.infer(cx, &x.dims[2..])?;
    let (pads, kernel) = (windows.pads, windows.kernel);
    let smaller = pads.iter().zip(kernel.iter().cycle()).all(|(pad, size)| pad < size);
    cx.require(smaller, || format!("pads {pads:?} must be smaller than the kernel {kernel:?}"))?;
    Ok(Facts::of(Type::new(DType::F32, x.dims[..2].iter().cloned().chain(spatial))))
}

/// `MaxPool`: NaN if any element is NaN.
pub(super) fn eval_max(cx: &Eval, windows: Windows) -> Evaluated {
    pool(cx, windows, |elements, _| elements.iter().copied().fold(f32::NEG_INFINITY, larger))
}

/// `AveragePool`.
pub(super) fn eval_average(cx: &Eval, windows: Windows, count_include_pad: bool) -> Evaluated {
    pool(cx, windows, |elements, padded| {
        let count = if count_include_pad { padded } else { elements.len() };
        (elements.iter().map(|x| f64::from(*x)).sum::<f64>() / count as f64) as f32
    })
}

/// `f` of every window: its elements inside the input, and its size inside input and padding.
fn pool(cx: &Eval, windows: Windows, f: impl Fn(&[f32], usize) -> f32) -> Evaluated {
    let x = cx.elements::<f32>(0)?;
    let [rows, columns] = windows.lines(cx.from(0), cx.to());
    let ends = [windows.pads[2] as usize, windows.pads[3] as usize];
    let plane = rows.size * columns.size;
    let mut out = Vec::with_capacity(cx.len());
    for image in (0..cx.from(0)[0] * cx.from(0)[1]).map(|i| &x[i * plane..(i + 1) * plane]) {
        for i in 0..rows.result {
            let (row_positions, row_count) = window(rows, ends[0], i);
            for j in 0..columns.result {
                let (column_positions, column_count) = window(columns, ends[1], j);
                let pairs = row_positions.iter().flat_map(|r| column_positions.iter().map(move |c| (r, c)));
                let elements: Vec<f32> = pairs.map(|(r, c)| image[r * columns.size + c]).collect();
                out.push(f(&elements, row_count * column_count));
            }
        }
    }
    cx.finish(out)
}

/// The positions of window `index` inside the input, and how many it has inside input and padding.
fn window(line: Line, after: usize, index: usize) -> (Vec<usize>, usize) {
    let positions = (0..line.kernel).filter_map(|tap| line.at(index, tap)).collect();
    let end = line.before + line.size + after;
    let counted = (0..line.kernel).filter(|tap| index * line.stride + tap * line.dilation < end).count();
    (positions, counted)
}
