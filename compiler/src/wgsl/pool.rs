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
    let (x, y) = (w.place(form.x)?, w.place(form.y)?);
    let total = Dim::product([&form.planes, &form.y_size[0], &form.y_size[1]]);
    let all = w.dim(&total)?;
    let (out_height, out_width) = (w.divisor(&form.y_size[0])?, w.divisor(&form.y_size[1])?);
    let (height, width) = (w.dim(&form.x_size[0])?, w.dim(&form.x_size[1])?);
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
    w.line(format!("let line = i / {out_width};\nlet plane = line / {out_height};"));
    w.line(format!("let top = (line - plane * {out_height}) * {down} - {above};"));
    w.line(format!("let side = (i - line * {out_width}) * {right} - {before};"));
    w.line(format!("var value = {start};\nvar count = 0;"));
    w.line(format!("for (var tap_y = 0; tap_y < {kernel_height}; tap_y += 1) {{"));
    w.line(format!("for (var tap_x = 0; tap_x < {kernel_width}; tap_x += 1) {{"));
    w.line(format!("let y = top + tap_y * {dilate_down};\nlet x = side + tap_x * {dilate_right};"));
    let inside = format!("y >= 0 && y < {height} && x >= 0 && x < {width}");
    if form.kind == PoolKind::AverageWithPads {
        w.line(format!("if y < {height} + {below} && x < {width} + {after} {{ count += 1; }}"));
    }
    w.line(format!("if {inside} {{"));
    let element = x.load(&format!("(plane * {height} + y) * {width} + x"));
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
