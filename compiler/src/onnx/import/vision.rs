//! Operators of detection that read images at computed places: `DeformConv` and `RoiAlign`.

use eec_ir::{Op, ValueId};

use super::super::error::refuse;
use super::node::{Cx, Results};
use super::pool::{Window, weight_kernel, window};

/// `DeformConv` over images; without a bias it is one of zeros.
pub(super) fn deform_conv(cx: &mut Cx) -> Results {
    let (x, weight, offset) = (cx.input(0)?, cx.input(1)?, cx.input(2)?);
    let (group, offset_group) = (cx.int("group")?.unwrap_or(1), cx.int("offset_group")?.unwrap_or(1));
    let kernel = weight_kernel(cx, weight)?;
    let window = window(cx, x, kernel)?;
    let x = window.operand(cx, x, 0.0)?;
    let Window { strides, dilations, pads, .. } = window;
    let bias = match cx.optional(3) {
        Some(bias) => bias,
        None => {
            let (zero, filters) = (cx.number(x, 0.0)?, cx.dims(weight)[0].clone());
            cx.expanded(zero, vec![filters])?
        }
    };
    let inputs: Vec<ValueId> = [x, weight, offset, bias].into_iter().chain(cx.optional(4)).collect();
    Ok(vec![cx.emit(Op::DeformConv { group, offset_group, strides, dilations, pads }, &inputs)?])
}

/// `RoiAlign`.
pub(super) fn roi_align(cx: &mut Cx) -> Results {
    let max = match cx.word("mode")?.as_deref() {
        None | Some("avg") => false,
        Some("max") => true,
        Some(other) => return refuse(format!("`mode` = `{other}` is not known")),
    };
    let half_pixel = match cx.word("coordinate_transformation_mode")?.as_deref() {
        None => cx.opset >= 16,
        Some("half_pixel") => true,
        Some("output_half_pixel") => false,
        Some(other) => return refuse(format!("`coordinate_transformation_mode` = `{other}` is not known")),
    };
    let [height, width, sampling_ratio] = ["output_height", "output_width", "sampling_ratio"].map(|name| cx.int(name));
    let (output_height, output_width) = (height?.unwrap_or(1), width?.unwrap_or(1));
    let (sampling_ratio, spatial_scale) = (sampling_ratio?.unwrap_or(0), cx.float("spatial_scale")?.unwrap_or(1.0));
    let op = Op::RoiAlign { output_height, output_width, sampling_ratio, spatial_scale, max, half_pixel };
    let inputs = cx.all_inputs()?;
    Ok(vec![cx.emit(op, &inputs)?])
}
