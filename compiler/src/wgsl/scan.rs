//! Running sums: a lane per chain, in the order of its elements.

use eec_ir::program::Scan;

use super::Body;
use super::dims::groups;
use super::text::{Reason, Writer, word};

/// Lanes of a workgroup.
const LANES: u32 = 64;

/// Writes a running sum.
pub(super) fn write(w: &mut Writer, form: &Scan) -> Result<Body, Reason> {
    let (x, y) = (w.place(form.x)?, w.place(form.y)?);
    let chains = &form.outer * &form.inner;
    let (all, length, inner) = (w.dim(&chains)?, w.dim(&form.len)?, w.divisor(&form.inner)?);
    let zero = if word(form.dtype)? == "f32" { "0.0" } else { "0" };
    w.line(format!("let total = {all};\nlet length = {length};"));
    w.line(format!("for (var chain = group * {LANES} + lane; chain < total; chain += groups * {LANES}) {{"));
    w.line(format!("let first = chain / {inner} * length * {inner} + chain % {inner};"));
    w.line(format!("var sum = {zero};"));
    w.line("for (var j = 0; j < length; j += 1) {");
    let step = if form.reverse { "length - 1 - j" } else { "j" };
    w.line(format!("let at = first + ({step}) * {inner};"));
    w.line(format!("let before = sum;\nsum += {};", x.load("at")));
    w.line(y.store("at", if form.exclusive { "before" } else { "sum" }));
    w.line("}\n}");
    Ok(Body { lanes: LANES, groups: groups(&chains, LANES.into())? })
}
