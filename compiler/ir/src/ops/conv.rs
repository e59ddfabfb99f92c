//! 1-D and 2-D convolution, accumulated in f64.
//!
//! Specification: <https://onnx.ai/onnx/operators/onnx__Conv.html>. `auto_pad` is explicit pads here.

use super::eval_context::{Eval, Evaluated};
use super::infer_context::{Infer, Inferred};
use super::window::{Line, Windows};
use super::{EvalError, Facts};
use crate::dim::Dim;
use crate::types::{DType, Type};

/// The attributes of a convolution.
#[derive(Clone, Copy)]
pub(super) struct Attributes<'a> {
    pub(super) group: i64,
    pub(super) strides: &'a [i64],
    pub(super) dilations: &'a [i64],
    pub(super) pads: &'a [i64],
}

impl<'a> Attributes<'a> {
    fn windows(&self, kernel: &'a [i64]) -> Windows<'a> {
        let Attributes { strides, dilations, pads, .. } = *self;
        Windows { kernel, strides, dilations, pads, ceil_mode: false }
    }
}

/// `Conv`. The weight's dims must be constant.
pub(super) fn infer(cx: &mut Infer, attributes: Attributes) -> Inferred {
    cx.expect_dtype(0, &[DType::F32])?;
    cx.expect_same_dtype(0, 1)?;
    let (x, w) = (cx.ty(0), cx.ty(1));
    cx.require((3..=4).contains(&x.rank()), || format!("operand 0 must have 3 or 4 dims, found {x}"))?;
    cx.expect_rank(1, x.rank())?;
    let group = attributes.group;
    let weight = w.const_dims().unwrap_or_default();
    let [out_channels, per_group, kernel @ ..] = weight.as_slice() else {
        return Err(cx.refuse(format!("the weight's dims must be constant, found {w}")));
    };
    cx.require(group > 0 && out_channels % group == 0, || format!("{out_channels} channels are not {group} groups"))?;
    let channels = Dim::from(per_group.saturating_mul(group));
    cx.unify(&x.dims[1], &channels, || format!("{x} does not fit a weight of {w} in {group} groups"))?;
    if let Some(bias) = cx.optional(2) {
        cx.expect_same_dtype(0, 2)?;
        cx.expect_rank(2, 1)?;
        cx.unify(&bias.dims[0], &w.dims[0], || format!("a bias of {bias} does not fit a weight of {w}"))?;
    }
    let spatial = attributes.windows(kernel).infer(cx, &x.dims[2..])?;
    let dims = [x.dims[0].clone(), w.dims[0].clone()].into_iter().chain(spatial);
    Ok(Facts::of(Type::new(DType::F32, dims)))
}

/// `Conv`.
pub(super) fn eval(cx: &Eval, attributes: Attributes) -> Evaluated {
    let (x, w) = (cx.elements::<f32>(0)?, cx.elements::<f32>(1)?);
    let kernel: Vec<i64> = cx.from(1)[2..].iter().map(|k| *k as i64).collect();
    let [rows, columns] = attributes.windows(&kernel).lines(cx.from(0), cx.to());
    let (channels, out_channels, per_group) = (cx.from(0)[1], cx.from(1)[0], cx.from(1)[1]);
    let out_per_group = (out_channels / (attributes.group as usize).max(1)).max(1);
    let bias = bias(cx, out_channels)?;
    let (plane, taps) = (rows.size * columns.size, rows.kernel * columns.kernel);
    let mut out = Vec::with_capacity(cx.len());
    for sample in 0..cx.from(0)[0] {
        for (channel, bias) in bias.iter().enumerate() {
            let mut sums = vec![*bias; rows.result * columns.result];
            let first = sample * channels + channel / out_per_group * per_group;
            for c in 0..per_group {
                let image = &x[(first + c) * plane..(first + c + 1) * plane];
                let weights = &w[(channel * per_group + c) * taps..(channel * per_group + c + 1) * taps];
                accumulate(&mut sums, image, weights, rows, columns);
            }
            out.extend(sums.into_iter().map(|s| s as f32));
        }
    }
    cx.finish(out)
}

fn bias(cx: &Eval, out_channels: usize) -> Result<Vec<f64>, EvalError> {
    if cx.optional(2).is_none() {
        return Ok(vec![0.0; out_channels]);
    }
    Ok(cx.elements::<f32>(2)?.iter().map(|b| f64::from(*b)).collect())
}

/// Adds one input plane's contribution to one result plane.
fn accumulate(sums: &mut [f64], image: &[f32], weights: &[f32], rows: Line, columns: Line) {
    for (tap, weight) in weights.iter().enumerate() {
        let (row_tap, column_tap) = (tap / columns.kernel, tap % columns.kernel);
        let weight = f64::from(*weight);
        for i in 0..rows.result {
            let Some(row) = rows.at(i, row_tap) else { continue };
            let line = &image[row * columns.size..(row + 1) * columns.size];
            for (j, sum) in sums[i * columns.result..(i + 1) * columns.result].iter_mut().enumerate() {
                if let Some(column) = columns.at(j, column_tap) {
                    *sum += weight * f64::from(line[column]);
                }
            }
        }
    }
}
