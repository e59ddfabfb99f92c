//! Constants and operators that only change dims. The target dims are read from what is known of
//! the elements of the operand that holds them.

use eec_ir::minifloat::Overflow;
use eec_ir::{DType, Dim, Op, Tensor, ValueId};

use super::super::error::{NodeResult, Refusal, refuse};
use super::largest::{largest, never_negative};
use super::node::{Cx, axis_index, axis_indices};

/// `Constant` in all its forms but text and sparse ones.
pub(super) fn constant(cx: &mut Cx) -> NodeResult<Vec<ValueId>> {
    let tensor = if let Some(tensor) = cx.tensor("value")? {
        tensor
    } else if let Some(v) = cx.float("value_float")? {
        Tensor::scalar(v)
    } else if let Some(v) = cx.int("value_int")? {
        Tensor::scalar(v)
    } else if let Some(v) = cx.floats("value_floats")? {
        Tensor::vector(v)
    } else if let Some(v) = cx.ints("value_ints")? {
        Tensor::vector(v)
    } else {
        return refuse("holds no value of a supported kind");
    };
    Ok(vec![cx.stored(tensor)])
}

/// `ConstantOfShape`: one element, broadcast.
pub(super) fn constant_of_shape(cx: &mut Cx) -> NodeResult<Vec<ValueId>> {
    let element = cx.tensor("value")?.unwrap_or_else(|| Tensor::vector(vec![0f32]));
    if element.len() != 1 {
        return refuse(format!("the value must have one element, found {element:?}"));
    }
    let scalar = cx.constant(element.reshaped(&[])?);
    let dims = late_target(cx, 0)?;
    check_sizes(&dims)?;
    Ok(vec![if dims.is_empty() { scalar } else { cx.emit(Op::Expand { dims }, &[scalar])? }])
}

/// A target shape, sizes that data decides among it.
fn late_target(cx: &mut Cx, i: usize) -> NodeResult<Vec<Dim>> {
    cx.late_sizes(i, "target shape", |_| None)?.ok_or_else(|| Refusal::new("the target shape is missing"))
}

/// The target shape of a `Reshape`. If data decides one size, it follows from the others: there are as many
/// elements as before.
fn reshape_target(cx: &mut Cx) -> NodeResult<Vec<Dim>> {
    let known = cx.sizes(1, "target shape");
    let (Some(value), Err(refusal)) = (cx.optional(1), &known) else {
        return known?.ok_or_else(|| Refusal::new("the target shape is missing"));
    };
    let undecided = || Refusal::undecided(value, refusal.reason.clone());
    let count = cx.few(value).ok_or_else(undecided)?;
    let mut target = Vec::new();
    let mut open = 0;
    for at in 0..count {
        let element = cx.element(value, at)?;
        let size = match cx.contents(element) {
            Some([size]) => size.clone(),
            _ => Dim::from(-1),
        };
        open += usize::from(size.as_const() == Some(-1));
        target.push(size);
    }
    if open > 1 { Err(undecided()) } else { Ok(target) }
}

fn check_sizes(dims: &[Dim]) -> NodeResult<()> {
    match dims.iter().find(|d| d.as_const().is_some_and(|c| !(0..Dim::LIMIT).contains(&c))) {
        Some(d) => refuse(format!("{d} in the target shape {dims:?} is no size")),
        None => Ok(()),
    }
}

/// `Reshape`: 0 keeps the dim (unless `allowzero`), -1 is what remains.
pub(super) fn reshape(cx: &mut Cx) -> NodeResult<Vec<ValueId>> {
    let x = cx.input(0)?;
    let allow_zero = cx.flag("allowzero", false)?;
    let dims = resolve_reshape(&cx.dims(x), &reshape_target(cx)?, allow_zero)?;
    Ok(vec![cx.emit(Op::Reshape { dims }, &[x])?])
}

fn resolve_reshape(from: &[Dim], target: &[Dim], allow_zero: bool) -> NodeResult<Vec<Dim>> {
    let mut dims = target.to_vec();
    let mut open = None;
    for (i, dim) in dims.iter_mut().enumerate() {
        match dim.as_const() {
            Some(0) if !allow_zero => {
                let kept = from
                    .get(i)
                    .ok_or_else(|| Refusal::new(format!("0 in the target shape {target:?} keeps no dim of {from:?}")));
                *dim = kept?.clone();
            }
            Some(-1) if open.is_some() => {
                return refuse(format!("the target shape {target:?} holds -1 twice"));
            }
            Some(-1) => open = Some(i),
            _ => {}
        }
    }
    if let Some(open) = open {
        let others = dims.iter().enumerate().filter(|(i, _)| *i != open).map(|(_, d)| d);
        let rest = Dim::product(from).floor_div(&Dim::product(others));
        dims[open] =
            rest.ok_or_else(|| Refusal::new(format!("-1 in the target shape {target:?} stands beside a 0")))?;
    }
    check_sizes(&dims)?;
    Ok(dims)
}

/// `Flatten`: the dims before `axis` become one, those from it on another.
pub(super) fn flatten(cx: &mut Cx) -> NodeResult<Vec<ValueId>> {
    let x = cx.input(0)?;
    let from = cx.dims(x);
    let axis = cx.int("axis")?.unwrap_or(1);
    let at = if axis == from.len() as i64 { from.len() } else { axis_index(axis, from.len())? };
    let dims = vec![Dim::product(&from[..at]), Dim::product(&from[at..])];
    Ok(vec![cx.emit(Op::Reshape { dims }, &[x])?])
}

/// `Squeeze`: leaves the listed dims out, or all that are 1.
pub(super) fn squeeze(cx: &mut Cx) -> NodeResult<Vec<ValueId>> {
    let x = cx.input(0)?;
    let from = cx.dims(x);
    let gone = match cx.axes(1)? {
        Some(axes) => axis_indices(&axes, from.len())?,
        None => (0..from.len()).filter(|i| from[*i].as_const() == Some(1)).collect(),
    };
    if let Some(i) = gone.iter().find(|i| from[**i].as_const().is_some_and(|c| c != 1)) {
        return refuse(format!("dim {i} is {}, not 1", from[*i]));
    }
    let dims = from.into_iter().enumerate().filter(|(i, _)| !gone.contains(i)).map(|(_, d)| d).collect();
    Ok(vec![cx.reshape(x, dims)?])
}

/// `Unsqueeze`: inserts dims of 1 at the listed positions of the result.
pub(super) fn unsqueeze(cx: &mut Cx) -> NodeResult<Vec<ValueId>> {
    let x = cx.input(0)?;
    let axes = cx.axes(1)?.ok_or_else(|| Refusal::new("the list of axes is missing"))?;
    let mut rest = cx.dims(x).into_iter();
    let rank = rest.len() + axes.len();
    let new = axis_indices(&axes, rank)?;
    let dims = (0..rank).filter_map(|i| if new.contains(&i) { Some(1.into()) } else { rest.next() }).collect();
    Ok(vec![cx.reshape(x, dims)?])
}

/// `Expand`: the operand's dims broadcast with the target's.
pub(super) fn expand(cx: &mut Cx) -> NodeResult<Vec<ValueId>> {
    let x = cx.input(0)?;
    let (from, target) = (cx.dims(x), late_target(cx, 1)?);
    check_sizes(&target)?;
    let dims = broadcast(&from, &target);
    Ok(vec![if dims == from { x } else { cx.emit(Op::Expand { dims }, &[x])? }])
}

/// The dims of `from` broadcast with `to`. Where neither is 1, `to` decides, and inference checks.
fn broadcast(from: &[Dim], to: &[Dim]) -> Vec<Dim> {
    let rank = from.len().max(to.len());
    let one = Dim::from(1);
    let at = |dims: &[Dim], i: usize| (i + dims.len()).checked_sub(rank).map_or(one.clone(), |j| dims[j].clone());
    (0..rank).map(|i| (at(from, i), at(to, i))).map(|(f, t)| if t == one { f } else { t }).collect()
}

/// `Range` over integers whose bounds are sizes, or over constants.
pub(super) fn range(cx: &mut Cx) -> NodeResult<Vec<ValueId>> {
    let dtype = {
        let start = cx.input(0)?;
        cx.ty(start).dtype
    };
    if dtype.is_float() {
        return float_range(cx, dtype);
    }
    let bound = |i: usize| match cx.sizes(i, "bound of the range")?.as_deref() {
        Some([one]) => Ok(one.clone()),
        Some(other) => refuse(format!("operand {i} must have one element, found {}", other.len())),
        None => refuse(format!("operand {i} is missing")),
    };
    let delta = bound(2)?;
    let delta = delta.as_const().ok_or_else(|| Refusal::new(format!("the step {delta} is not constant")))?;
    if delta == 0 {
        return refuse("the step is 0");
    }
    let (start, limit) = match (bound(0), bound(1)) {
        (Ok(start), Ok(limit)) if !cx.late().decides(&(&limit - &start)) || start.as_const() == Some(0) => {
            (start, limit)
        }
        _ => return late_range(cx, dtype, delta),
    };
    if delta == 1 && start.as_const() == Some(0) {
        let range = cx.numbers(&limit)?;
        return Ok(vec![cx.cast(range, dtype)?]);
    }
    let range = cx.emit(Op::Range { start, limit, delta }, &[])?;
    Ok(vec![cx.cast(range, dtype)?])
}

/// A range of integers between numbers that data decides.
fn late_range(cx: &mut Cx, dtype: DType, delta: i64) -> NodeResult<Vec<ValueId>> {
    let [start, limit] = [cx.input(0)?, cx.input(1)?];
    for bound in [start, limit] {
        if cx.ty(bound).elements().as_const() != Some(1) {
            return refuse(format!("a bound must have one element, found {}", cx.ty(bound)));
        }
    }
    let (low, high) = if delta > 0 { (start, limit) } else { (limit, start) };
    let undecided = |of: ValueId| {
        Refusal::undecided(of, "the bound of the range depends on data, and nothing tells how long the range can be")
    };
    let least = match cx.contents(low) {
        Some([least]) => least.clone(),
        _ if never_negative(cx.graph(), low) => Dim::default(),
        _ => return Err(undecided(low)),
    };
    let most = largest(cx.graph(), high).ok_or_else(|| undecided(high))?;
    let most = (&most - &least).larger(&Dim::default()).ceil_div(delta.abs());
    let most = most.ok_or_else(|| Refusal::new("the step is 0"))?;
    let mut scalar = |of: ValueId| cx.cast(of, DType::I64).and_then(|of| cx.reshape(of, Vec::new()));
    let (start, low, high) = (scalar(start)?, scalar(low)?, scalar(high)?);
    let span = if least.as_const() == Some(0) && cx.contents(low).is_some() { high } else { cx.sub(high, low)? };
    let count = cx.steps(span, delta)?;
    let count = cx.late_size(count, most)?;
    let mut range = cx.indices(&count, 0, 1)?;
    if delta != 1 {
        range = cx.times(range, delta as f64)?;
    }
    let range = cx.add(range, start)?;
    Ok(vec![cx.cast(range, dtype)?])
}

/// A range of floats between constants.
fn float_range(cx: &mut Cx, dtype: DType) -> NodeResult<Vec<ValueId>> {
    let bound = |i: usize| {
        cx.const_number(i, "bound of the range")?.ok_or_else(|| Refusal::new(format!("operand {i} is missing")))
    };
    let (start, limit, delta) = (bound(0)?, bound(1)?, bound(2)?);
    let count = ((limit - start) / delta).ceil();
    if count.is_nan() || count > 1e7 {
        return refuse(format!("a range from {start} to {limit} by {delta} is too long"));
    }
    cx.may_compute(count as i64)?;
    let data: Vec<f64> = (0..count.max(0.0) as i64).map(|i| start + i as f64 * delta).collect();
    let tensor = Tensor::from_f64s(dtype, &[data.len()], &data, Overflow::Special)?;
    Ok(vec![cx.constant(tensor)])
}

/// `Size`: the number of elements, as a scalar.
pub(super) fn size(cx: &mut Cx) -> NodeResult<Vec<ValueId>> {
    let x = cx.input(0)?;
    let elements = cx.ty(x).elements();
    let vector = cx.emit(Op::Sizes { values: vec![elements] }, &[])?;
    Ok(vec![cx.reshape(vector, Vec::new())?])
}

/// `Transpose`, which reverses the axes if it is given no order.
pub(super) fn transpose(cx: &mut Cx) -> NodeResult<Vec<ValueId>> {
    let x = cx.input(0)?;
    let rank = cx.rank(x);
    let perm = cx.ints("perm")?.unwrap_or_else(|| (0..rank as i64).rev().collect());
    Ok(vec![cx.emit(Op::Transpose { perm }, &[x])?])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dims(items: &[&str]) -> Vec<Dim> {
        items.iter().map(|s| s.parse::<i64>().map_or_else(|_| Dim::symbol(s), Dim::from)).collect()
    }

    #[test]
    fn reshape_resolves_kept_and_remaining_dims() {
        let from = dims(&["batch", "seq", "96"]);
        let heads = resolve_reshape(&from, &dims(&["0", "-1", "6", "16"]), false);
        assert_eq!(heads.ok(), Some(dims(&["batch", "seq", "6", "16"])));
        let zero = resolve_reshape(&dims(&["0", "3"]), &dims(&["0", "5"]), true);
        assert_eq!(zero.ok(), Some(dims(&["0", "5"])));
        assert!(resolve_reshape(&from, &dims(&["-1", "-1"]), false).is_err_and(|e| e.reason.contains("twice")));
        assert!(
            resolve_reshape(&from, &dims(&["1", "1", "1", "0"]), false)
                .is_err_and(|e| e.reason.contains("keeps no dim"))
        );
        assert!(resolve_reshape(&from, &dims(&["-1", "0"]), true).is_err_and(|e| e.reason.contains("beside a 0")));
        assert!(resolve_reshape(&from, &dims(&["-2", "3"]), false).is_err_and(|e| e.reason.contains("is no size")));
    }

    #[test]
    fn expand_broadcasts_in_both_directions() {
        assert_eq!(broadcast(&dims(&["5", "1"]), &dims(&["batch", "1", "7"])), dims(&["batch", "5", "7"]));
        assert_eq!(broadcast(&dims(&["batch", "5"]), &dims(&["1"])), dims(&["batch", "5"]));
    }
}
