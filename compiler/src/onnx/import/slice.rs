//! `Slice` and `Split`: bounds become sizes inside the operand's dims.

use eec_ir::{DType, Dim, Op, Tensor, ValueId};

use super::super::error::{NodeResult, Refusal, refuse};
use super::largest::{largest, never_negative};
use super::late::Late;
use super::node::{Cx, axis_index, axis_indices};

/// Bounds at or beyond this mean "to the end": exporters write 10⁹ or the largest integer of 32 or 64
/// bits, and no dim is as large.
const FAR: i64 = 1_000_000_000;

/// `Slice`: attributes up to opset 9, operands since.
pub(super) fn slice(cx: &mut Cx) -> NodeResult<Vec<ValueId>> {
    let mut x = cx.input(0)?;
    let from = cx.dims(x);
    let known = |v: Vec<i64>| v.into_iter().map(|i| Bound::Known(i.into())).collect::<Vec<_>>();
    let (starts, ends, axes, steps) = if cx.opset < 10 {
        (cx.ints("starts")?.map(known), cx.ints("ends")?.map(known), cx.ints("axes")?, None)
    } else {
        let (axes, steps) = (cx.const_ints(3, "list of axes")?, cx.const_ints(4, "step")?);
        (bounds(cx, 1, "start")?, bounds(cx, 2, "end")?, axes, steps)
    };
    let (Some(starts), Some(ends)) = (starts, ends) else {
        return refuse("starts and ends must be given");
    };
    let axes = axes.unwrap_or_else(|| (0..starts.len() as i64).collect());
    let steps = steps.unwrap_or_else(|| vec![1; starts.len()]);
    if [ends.len(), axes.len(), steps.len()] != [starts.len(); 3] {
        let found = (starts.len(), ends.len(), axes.len(), steps.len());
        return refuse(format!("starts, ends, axes and steps have {found:?} elements"));
    }
    let axes = axis_indices(&axes, from.len())?;
    let (mut fixed, mut clamped) = ((Vec::new(), Vec::new()), (Vec::new(), Vec::new()));
    let mut pieces = Vec::new();
    for (((start, mut end), axis), step) in starts.into_iter().zip(ends).zip(axes).zip(steps) {
        let dim = &from[axis];
        if let (Bound::Known(start), Bound::Data(count), 1) = (&start, &end, step)
            && start.as_const() == Some(0)
            && let Some(count) = count_inside(cx, *count, dim)?
        {
            end = Bound::Known(count);
        }
        if let (Bound::Known(start), Bound::Known(end)) = (&start, &end) {
            let late = cx.late();
            let decided = late.decides(start) || late.decides(end);
            let length = (end - start).as_const().filter(|length| (0..Dim::LIMIT).contains(length));
            if let (Some(length), true, 1) = (length, decided, step) {
                pieces.push((axis, Piece::Whole(start.clone(), length)));
                continue;
            }
            let from_known_sides = !decided || (has_side(start) && has_side(end));
            let (start, end) = clamp(start, end, step, dim, late)?;
            let at_front = start.as_const() == Some(0) && step > 0;
            if from_known_sides && (at_front || !(decided || late.decides(dim))) {
                fixed.0.push(axis as i64);
                fixed.1.push(step);
                clamped.0.push(start);
                clamped.1.push(end);
                continue;
            }
            let count = &end - &start;
            if from_known_sides && step == 1 && count.is_at_least(0) {
                pieces.push((axis, Piece::Inside(start, count)));
                continue;
            }
        }
        pieces.push((axis, Piece::Between([start, end], step)));
    }
    if pieces.is_empty() || !fixed.0.is_empty() {
        x = cx.emit(Op::Slice { axes: fixed.0, starts: clamped.0, ends: clamped.1, steps: fixed.1 }, &[x])?;
    }
    for (axis, piece) in pieces {
        x = match piece {
            Piece::Whole(start, length) => {
                let start = cx.number_of(&start)?;
                stretch(cx, x, axis, start, length)?
            }
            Piece::Inside(start, count) => {
                let start = cx.number_of(&start)?;
                cx.picked(x, axis, start, 1, &count)?
            }
            Piece::Between(bounds, step) => late_slice(cx, x, axis, &bounds, step)?,
        };
    }
    Ok(vec![x])
}

/// What is taken along an axis where data decides.
enum Piece {
    /// So many elements from a start on, which must exist.
    Whole(Dim, i64),
    /// So many from a start on, as are known to exist.
    Inside(Dim, Dim),
    /// What lies between bounds that the run clamps, by steps of this size.
    Between([Bound; 2], i64),
}

/// Whether it is known whether a bound counts from the front or from the end.
fn has_side(bound: &Dim) -> bool {
    bound.is_at_least(0) || (&Dim::default() - bound).is_at_least(1)
}

/// Where a slice begins or ends.
enum Bound {
    Known(Dim),
    /// Where this number says.
    Data(ValueId),
}

/// The bounds in operand `i`, if it is given.
fn bounds(cx: &mut Cx, i: usize, what: &str) -> NodeResult<Option<Vec<Bound>>> {
    let known = cx.sizes(i, what);
    let (Some(value), Err(refusal)) = (cx.optional(i), &known) else {
        return Ok(known?.map(|sizes| sizes.into_iter().map(Bound::Known).collect()));
    };
    let count = cx.few(value).ok_or_else(|| Refusal::undecided(value, refusal.reason.clone()))?;
    let mut bounds = Vec::with_capacity(count);
    for at in 0..count {
        let element = cx.element(value, at)?;
        bounds.push(match cx.contents(element) {
            Some([size]) => Bound::Known(size.clone()),
            _ => Bound::Data(cx.cast(element, DType::I64)?),
        });
    }
    Ok(Some(bounds))
}

/// The number `count` as a size, if it is known to be neither negative nor more than `dim`.
fn count_inside(cx: &mut Cx, count: ValueId, dim: &Dim) -> NodeResult<Option<Dim>> {
    let most = largest(cx.graph(), count).filter(|_| never_negative(cx.graph(), count));
    let most = most.filter(|most| cx.late().is_at_most(most, dim));
    most.map(|most| cx.late_size(count, most)).transpose()
}

/// A slice along one axis where data decides: the elements are picked one by one.
fn late_slice(cx: &mut Cx, x: ValueId, axis: usize, [start, end]: &[Bound; 2], step: i64) -> NodeResult<ValueId> {
    if step == 0 || step.unsigned_abs() > Dim::LIMIT as u64 {
        return refuse(format!("a step is {step}"));
    }
    if let (Bound::Data(start), Bound::Data(end), 1) = (start, end, step)
        && let Some(count) = distance(cx, *start, *end)
    {
        return stretch(cx, x, axis, *start, count);
    }
    let dim = cx.dims(x)[axis].clone();
    let size = cx.number_of(&dim)?;
    let last = cx.plus(size, -1.0)?;
    let none = cx.scalar(DType::I64, -1.0)?;
    let zero = cx.scalar(DType::I64, 0.0)?;
    let mut inside = |bound: &Bound, low: ValueId, high: ValueId| {
        let bound = match bound {
            Bound::Known(dim) => cx.number_of(dim)?,
            Bound::Data(value) => *value,
        };
        let negative = cx.emit(Op::Less {}, &[bound, zero])?;
        let wrapped = cx.add(bound, size)?;
        let bound = cx.choose(negative, wrapped, bound)?;
        let bound = cx.emit(Op::Max {}, &[bound, low])?;
        cx.emit(Op::Min {}, &[bound, high])
    };
    let (start, end) = match step > 0 {
        true => (inside(start, zero, size)?, inside(end, zero, size)?),
        false => (inside(start, zero, last)?, inside(end, none, last)?),
    };
    let span = if step > 0 { cx.sub(end, start)? } else { cx.sub(start, end)? };
    let count = cx.steps(span, step)?;
    let most = dim.ceil_div(step.abs()).ok_or_else(|| Refusal::new("a step is 0"))?;
    let count = cx.late_size(count, most)?;
    cx.picked(x, axis, start, step, &count)
}

/// How far `end` lies behind `start`, where it is made of it so.
fn distance(cx: &Cx, start: ValueId, end: ValueId) -> Option<i64> {
    let ((from, before), (to, after)) = (shifted(cx, start), shifted(cx, end));
    (from == to).then(|| after - before).filter(|count| (0..Dim::LIMIT).contains(count))
}

/// The number that `value` is made of by adding a constant, and that constant.
fn shifted(cx: &Cx, mut value: ValueId) -> (ValueId, i64) {
    let (graph, mut shift) = (cx.graph(), 0i64);
    while let Some(node) = graph.def_node(value).map(|n| graph.node(n)) {
        let constant = |i: usize| {
            let elements = cx.constant_of(*node.inputs.get(i)?).and_then(Tensor::to_i64s)?;
            elements.first().copied().filter(|_| elements.len() == 1)
        };
        let same = matches!(node.op, Op::Reshape { .. } | Op::Cast { to: DType::I64 });
        let (from, by) = match (constant(0), constant(1)) {
            _ if same => (0, 0),
            (_, Some(by)) if node.op == Op::Add {} => (0, by),
            (_, Some(by)) if node.op == Op::Sub {} => (0, by.saturating_neg()),
            (Some(by), None) if node.op == Op::Add {} => (1, by),
            _ => break,
        };
        (value, shift) = (node.inputs[from], shift.saturating_add(by));
    }
    (value, shift)
}

/// `count` elements along an axis from `start` on. Where the axis has fewer from there, the run fails: the result
/// would have another size.
fn stretch(cx: &mut Cx, x: ValueId, axis: usize, start: ValueId, count: i64) -> NodeResult<ValueId> {
    let dim = cx.dims(x)[axis].clone();
    let (zero, size) = (cx.scalar(DType::I64, 0.0)?, cx.number_of(&dim)?);
    let end = cx.plus(start, count as f64)?;
    let from_end = cx.emit(Op::Less {}, &[start, zero])?;
    let past_end = cx.emit(Op::GreaterOrEqual {}, &[end, zero])?;
    let wraps = cx.emit(Op::And {}, &[from_end, past_end])?;
    let start = cx.choose(wraps, size, start)?;
    cx.picked(x, axis, start, 1, &count.into())
}

/// A slice's bounds inside a dim of size `dim`.
fn clamp(start: &Dim, end: &Dim, step: i64, dim: &Dim, late: &Late) -> NodeResult<(Dim, Dim)> {
    let (zero, last) = (Dim::from(0), dim - &Dim::from(1));
    let within = |bound: &Dim, low: &Dim, high: &Dim| match late.is_at_most(bound, high) && bound.is_at_least(0) {
        true => bound.clone(),
        false => within(bound, dim, low, high),
    };
    match step {
        0 => refuse("a step is 0"),
        1.. => Ok((within(start, &zero, dim), within(end, &zero, dim))),
        _ => Ok((within(start, &zero, &last), within(end, &Dim::from(-1), &last))),
    }
}

/// `bound` in a dim of size `dim`, limited to `low..=high`. A negative bound counts from the end; a
/// symbolic one counts from there only if it is negative whatever its symbols are.
fn within(bound: &Dim, dim: &Dim, low: &Dim, high: &Dim) -> Dim {
    match bound.as_const() {
        Some(c) if c >= FAR => return high.clone(),
        Some(c) if c <= -FAR => return low.clone(),
        _ => {}
    }
    let negative = (&Dim::from(0) - bound).is_at_least(1);
    if negative { (dim + bound).larger(low) } else { bound.smaller(high) }
}

/// `Split`: one slice per result.
pub(super) fn split(cx: &mut Cx) -> NodeResult<Vec<ValueId>> {
    let x = cx.input(0)?;
    let axis = axis_index(cx.int("axis")?.unwrap_or(0), cx.rank(x))?;
    let dim = cx.dims(x)[axis].clone();
    let listed = match cx.ints("split")? {
        Some(sizes) => Some(sizes.into_iter().map(Dim::from).collect()),
        None => cx.late_sizes(1, "list of sizes", |_| Some(dim.clone()))?,
    };
    let parts = cx.int("num_outputs")?.map_or(Some(cx.output_count()), |n| usize::try_from(n).ok());
    if parts != Some(cx.output_count()) {
        return refuse(format!("`num_outputs` does not match its {} results", cx.output_count()));
    }
    let sizes = match listed {
        Some(sizes) => sizes,
        None => equal_parts(&dim, cx.output_count())?,
    };
    if sizes.len() != cx.output_count() {
        return refuse(format!("{} sizes are listed for {} results", sizes.len(), cx.output_count()));
    }
    let total = sizes.iter().fold(Dim::from(0), |sum, s| &sum + s);
    if total != dim && total.as_const().is_some() && dim.as_const().is_some() {
        return refuse(format!("the sizes {sizes:?} do not add up to {dim}"));
    }
    let decided = sizes.iter().any(|size| cx.late().decides(size));
    if decided {
        cx.assume_equal(&total, &dim)?;
    }
    let mut start = Dim::from(0);
    let mut results = Vec::with_capacity(sizes.len());
    for size in sizes {
        let end = &start + &size;
        if decided {
            let first = cx.number_of(&start)?;
            results.push(cx.picked(x, axis, first, 1, &size)?);
            start = end;
            continue;
        }
        let op = Op::Slice { axes: vec![axis as i64], starts: vec![start], ends: vec![end.clone()], steps: vec![1] };
        results.push(cx.emit(op, &[x])?);
        start = end;
    }
    Ok(results)
}

/// `dim` in `count` parts of equal size, the last one smaller where they do not divide it.
fn equal_parts(dim: &Dim, count: usize) -> NodeResult<Vec<Dim>> {
    let n = count as i64;
    if let Some(part) = dim.exact_div(&n.into()) {
        return Ok(vec![part; count]);
    }
    let Some(size) = dim.as_const() else {
        return refuse(format!("a dim of {dim} cannot be split into {count} equal parts"));
    };
    let part = size.div_euclid(n) + 1;
    let last = size - part * (n - 1);
    if last < 0 {
        return refuse(format!("a dim of {dim} cannot be split into {count} parts"));
    }
    let mut sizes = vec![Dim::from(part); count];
    sizes[count - 1] = last.into();
    Ok(sizes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clamped(start: i64, end: i64, step: i64, dim: &Dim) -> (String, String) {
        clamp(&start.into(), &end.into(), step, dim, &Late::default())
            .map(|(a, b)| (a.to_string(), b.to_string()))
            .unwrap_or_default()
    }

    #[test]
    fn constant_bounds_are_clamped_to_the_dim() {
        let pair = |a: &str, b: &str| (a.to_string(), b.to_string());
        let ten = Dim::from(10);
        assert_eq!(clamped(2, i64::MAX, 1, &ten), pair("2", "10"));
        assert_eq!(clamped(-3, -1, 1, &ten), pair("7", "9"));
        assert_eq!(clamped(-30, 12, 1, &ten), pair("0", "10"));
        assert_eq!(clamped(i64::MAX, i64::MIN, -1, &ten), pair("9", "-1"));
        assert_eq!(clamped(-2, 3, -2, &ten), pair("8", "3"));
    }

    #[test]
    fn symbolic_dims_keep_simple_bounds() {
        let seq = Dim::symbol("seq");
        let pair = |a: &str, b: &str| (a.to_string(), b.to_string());
        assert_eq!(clamped(0, i64::MAX, 1, &seq), pair("0", "seq"));
        assert_eq!(clamped(-1, i64::MAX, 1, &seq), pair("max(0, seq-1)", "seq"));
        let past = Dim::symbol("past");
        let total = &past + &seq;
        let tail = clamp(&past, &total, 1, &total, &Late::default()).ok();
        assert_eq!(tail, Some((past, total)));
    }

    #[test]
    fn unequal_parts_end_with_the_smaller_one() {
        let sizes = |d: i64, n| equal_parts(&d.into(), n).ok().map(|v| v.iter().filter_map(Dim::as_const).collect());
        assert_eq!(sizes(12, 3), Some(vec![4, 4, 4]));
        assert_eq!(sizes(7, 3), Some(vec![3, 3, 1]));
        assert!(equal_parts(&Dim::symbol("n"), 2).is_err());
        assert!(equal_parts(&2.into(), 5).is_err());
    }
}
