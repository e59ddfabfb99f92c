//! Convolution over any number of spatial dims, accumulated in f64.
//!
//! Specification: <https://onnx.ai/onnx/operators/onnx__Conv.html>. `auto_pad` is explicit pads here.

use super::Facts;
use super::eval_context::{Eval, Evaluated};
use super::infer_context::{Infer, Inferred};
use super::window::Windows;
use crate::dim::Dim;
use crate::types::Type;

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

/// `Conv`.
pub(super) fn infer(cx: &mut Infer, attributes: Attributes) -> Inferred {
    infer_with_bias(cx, attributes, 2)
}

/// A convolution of operand 0 by operand 1, whose dims must be constant; `bias` is the operand that may be one.
pub(super) fn infer_with_bias(cx: &mut Infer, attributes: Attributes, bias: usize) -> Inferred {
    cx.expect_float(0)?;
    cx.expect_same_dtype(0, 1)?;
    let (x, w) = (cx.ty(0), cx.ty(1));
    cx.require(x.rank() >= 3, || format!("operand 0 must have at least 3 dims, found {x}"))?;
    cx.expect_rank(1, x.rank())?;
    let group = attributes.group;
    let weight = w.const_dims().unwrap_or_default();
    let [out_channels, per_group, kernel @ ..] = weight.as_slice() else {
        return Err(cx.refuse(format!("the weight's dims must be constant, found {w}")));
    };
    cx.require(group > 0 && out_channels % group == 0, || format!("{out_channels} channels are not {group} groups"))?;
    let channels = Dim::from(per_group.saturating_mul(group));
    cx.unify(&x.dims[1], &channels, || format!("{x} does not fit a weight of {w} in {group} groups"))?;
    if let Some(found) = cx.optional(bias) {
        cx.expect_same_dtype(0, bias)?;
        cx.expect_rank(bias, 1)?;
        cx.unify(&found.dims[0], &w.dims[0], || format!("a bias of {found} does not fit a weight of {w}"))?;
    }
    let spatial = attributes.windows(kernel).infer(cx, &x.dims[2..])?;
    let dims = [x.dims[0].clone(), w.dims[0].clone()].into_iter().chain(spatial);
    Ok(Facts::of(Type::new(x.dtype, dims)))
}

/// `Conv`.
pub(super) fn eval(cx: &Eval, attributes: Attributes) -> Evaluated {
    let (x, w) = (cx.floats(0), cx.floats(1));
    let kernel: Vec<i64> = cx.from(1)[2..].iter().map(|k| *k as i64).collect();
    let windows = attributes.windows(&kernel);
    let positions = windows.positions(&cx.from(0)[2..], &cx.to()[2..]);
    let (channels, out_channels, per_group) = (cx.from(0)[1], cx.from(1)[0], cx.from(1)[1]);
    let out_per_group = (out_channels / (attributes.group as usize).max(1)).max(1);
    let (plane, taps) = (cx.from(0)[2..].iter().product::<usize>(), cx.from(1)[2..].iter().product::<usize>());
    let bias = cx.optional(2).map_or_else(|| vec![0.0; out_channels], |bias| bias.to_f64s());
    let mut out = Vec::with_capacity(cx.len());
    for sample in 0..cx.from(0)[0] {
        for (channel, bias) in bias.iter().enumerate() {
            let first = sample * channels + channel / out_per_group * per_group;
            for window in &positions {
                let product = |c: usize| {
                    let (image, weights) = (&x[(first + c) * plane..], &w[(channel * per_group + c) * taps..]);
                    window.iter().map(|(tap, at)| weights[*tap] * image[*at]).sum::<f64>()
                };
                out.push(bias + (0..per_group).map(product).sum::<f64>());
            }
        }
    }
    cx.finish_floats(out)
}
