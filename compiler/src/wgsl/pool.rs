//! Pooling: a lane per window.

use eec_ir::Dim;
use eec_ir::program::{Pool, PoolKind};

use super::Body;
use super::dims::{groups, number};
use super::helpers::Helper;
use super::text::{Reason, Writer};

/// Lanes of a workgroup.
const LANES: u32 = 128;

/// Writes a pooling.
pub(super) fn write(w: &mut Writer, form: &Pool) -> Result<Body, Reason> {
    let y = w.place(form.y)?;
    let [images, channels, height, width] = &form.x_dims;
    let total = Dim::product([images, &form.y_size[0], &form.y_size[1], channels]);
    let all = w.dim(&total)?;
    let (out_height, out_width) = (w.divisor(&form.y_size[0])?, w.divisor(&form.y_size[1])?);
    let (channels, height, width) = (w.divisor(channels)?, w.dim(height)?, w.dim(width)?);
    let numbers = |pair: [i64; 2]| -> Result<[String; 2], Reason> { Ok([number(pair[0])?, number(pair[1])?]) };
    let [down, right] = numbers(form.strides)?;
    let [dilate_down, dilate_right] = numbers(form.dilations)?;
    let [kernel_height, kernel_width] = numbers(form.kernel)?;
    let [above, before] = numbers([form.pads[0], form.pads[1]])?;
    let [below, after] = numbers([form.pads[2], form.pads[3]])?;
    let start = match form.kind {
        PoolKind::Max => w.float(f32::NEG_INFINITY),
        PoolKind::Average | PoolKind::AverageWithPads => "0.0".into(),
    };
    w.line(format!("let total = {all};"));
    w.line(format!("for (var i = group * {LANES} + lane; i < total; i += groups * {LANES}) {{"));
    w.line(format!("let position = i / {channels};\nlet channel = i - position * {channels};"));
    w.line(format!("let line = position / {out_width};\nlet image = line / {out_height};"));
    w.line(format!("let top = (line - image * {out_height}) * {down} - {above};"));
    w.line(format!("let side = (position - line * {out_width}) * {right} - {before};"));
    w.line(format!("var value = {start};\nvar count = 0;"));
    w.line(format!("for (var tap_y = 0; tap_y < {kernel_height}; tap_y += 1) {{"));
    w.line(format!("for (var tap_x = 0; tap_x < {kernel_width}; tap_x += 1) {{"));
    w.line(format!("let y = top + tap_y * {dilate_down};\nlet x_at = side + tap_x * {dilate_right};"));
    let inside = format!("y >= 0 && y < {height} && x_at >= 0 && x_at < {width}");
    if form.kind == PoolKind::AverageWithPads {
        w.line(format!("if y < {height} + {below} && x_at < {width} + {after} {{ count += 1; }}"));
    }
    w.line(format!("if {inside} {{"));
    let (x, at) = w.view(&form.x, &["image", "channel", "y", "x_at"].map(str::to_string))?;
    let element = x.load(&at);
    match form.kind {
        PoolKind::Max => {
            w.helper(Helper::Larger);
            w.line(format!("value = larger(value, {element});"));
        }
        PoolKind::Average => w.line(format!("value += {element};\ncount += 1;")),
        PoolKind::AverageWithPads => w.line(format!("value += {element};")),
    }
    w.line("}\n}\n}");
    let result = if form.kind == PoolKind::Max { "value" } else { "value / f32(max(count, 1))" };
    w.line(format!("let result = {result};"));
    w.line(y.store("i", "result"));
    w.line("}");
    Ok(Body { lanes: LANES, groups: groups(&total, LANES.into())? })
}
