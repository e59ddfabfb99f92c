//! Convolution whose taps are moved by an operand and read between elements, accumulated in f64.
//!
//! Specification: <https://onnx.ai/onnx/operators/onnx__DeformConv.html>. Outside of the image are zeros.

use super::conv;
use super::eval_context::{Eval, Evaluated};
use super::infer_context::{Infer, Inferred};

/// The attributes of `DeformConv`.
pub(super) struct Attributes<'a> {
    pub(super) conv: conv::Attributes<'a>,
    pub(super) offset_group: i64,
}

/// `DeformConv` over images: x `[n, c, h, w]`, weight `[m, c/group, kh, kw]`, offset
/// `[n, 2·offset_group·kh·kw, oh, ow]`, bias `[m]`, mask `[n, offset_group·kh·kw, oh, ow]`.
pub(super) fn infer(cx: &mut Infer, of: &Attributes) -> Inferred {
    cx.expect_rank(0, 4)?;
    let result = conv::infer_with_bias(cx, of.conv, 3)?;
    let (group, weight) = (of.offset_group, cx.ty(1).const_dims().unwrap_or_default());
    let channels = weight[1].saturating_mul(of.conv.group);
    cx.require(group > 0 && channels % group == 0, || {
        format!("{channels} channels are not {group} groups of offsets")
    })?;
    let taps = weight[2].saturating_mul(weight[3]).saturating_mul(group);
    for (operand, planes) in [(2, taps.saturating_mul(2)), (4, taps)] {
        let Some(found) = cx.optional(operand) else { continue };
        cx.expect_same_dtype(0, operand)?;
        cx.expect_rank(operand, 4)?;
        let dims = &result.ty.dims;
        let wanted = [dims[0].clone(), planes.into(), dims[2].clone(), dims[3].clone()];
        for (i, dim) in wanted.iter().enumerate() {
            cx.unify(&found.dims[i], dim, || format!("dim {i} of operand {operand}, {found}"))?;
        }
    }
    Ok(result)
}

/// `DeformConv`.
pub(super) fn eval(cx: &Eval, of: &Attributes) -> Evaluated {
    let (x, weights, offset) = (cx.floats(0), cx.floats(1), cx.floats(2));
    let mask = cx.optional(4).map(|mask| mask.to_f64s());
    let ([_, channels, height, width], [filters, per_group, kernel_height, kernel_width], [samples, _, rows, columns]) =
        (dims(cx.from(0)), dims(cx.from(1)), dims(cx.to()));
    let (taps, area) = (kernel_height * kernel_width, rows * columns);
    let plane = x.len() / (samples * channels).max(1);
    let filters_per_group = filters / of.conv.group as usize;
    let (offset_groups, per_offset_group) = (of.offset_group as usize, channels / of.offset_group as usize);
    let start = |axis: usize, index: usize, tap: usize| {
        let moved = index as i64 * of.conv.strides[axis] + tap as i64 * of.conv.dilations[axis];
        (moved - of.conv.pads[axis]) as f64
    };
    let biases = cx.floats(3);
    let mut out: Vec<f64> = (0..cx.len()).map(|i| biases[i / area % filters]).collect();
    for sample in 0..samples {
        for channel in 0..channels {
            let image = &x[(sample * channels + channel) * plane..][..plane];
            let group = channel / per_group;
            let first = sample * offset_groups + channel / per_offset_group;
            for tap in 0..taps {
                let offsets = &offset[(first * taps + tap) * 2 * area..];
                for at in 0..area {
                    let y = start(0, at / columns, tap / kernel_width) + offsets[at];
                    let x = start(1, at % columns, tap % kernel_width) + offsets[area + at];
                    let scale = mask.as_ref().map_or(1.0, |mask| mask[(first * taps + tap) * area + at]);
                    let value = scale * bilinear(image, [height, width], [y, x]);
                    for filter in group * filters_per_group..(group + 1) * filters_per_group {
                        let weight = weights[(filter * per_group + channel % per_group) * taps + tap];
                        out[(sample * filters + filter) * area + at] += weight * value;
                    }
                }
            }
        }
    }
    cx.finish_floats(out)
}

fn dims(found: &[usize]) -> [usize; 4] {
    <[usize; 4]>::try_from(found).unwrap_or_default()
}

/// The image between the elements around a position; 0 where that is none.
fn bilinear(image: &[f64], [height, width]: [usize; 2], [y, x]: [f64; 2]) -> f64 {
    let inside = y > -1.0 && y < height as f64 && x > -1.0 && x < width as f64;
    if !inside {
        return 0.0;
    }
    let (top, left) = (y.floor(), x.floor());
    let (down, right) = (y - top, x - left);
    let element = |row: f64, column: f64| {
        let within = row >= 0.0 && row < height as f64 && column >= 0.0 && column < width as f64;
        if within { image[row as usize * width + column as usize] } else { 0.0 }
    };
    let upper = (1.0 - right) * element(top, left) + right * element(top, left + 1.0);
    let lower = (1.0 - right) * element(top + 1.0, left) + right * element(top + 1.0, left + 1.0);
    (1.0 - down) * upper + down * lower
}
