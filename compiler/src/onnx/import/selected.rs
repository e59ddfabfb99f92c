//! Operators whose results are as long as data decides, of operands that are known when the model is read.
//!
//! Specification: <https://onnx.ai/onnx/operators/onnx__NonMaxSuppression.html> and its neighbours.

use std::collections::BTreeMap;

use eec_ir::{Op, Tensor, ValueId};

use super::super::error::{NodeResult, Refusal, refuse};
use super::node::{Cx, Results, axis_index};

/// The tensor of operand `i`, which must be a constant.
fn known(cx: &Cx, i: usize) -> NodeResult<(ValueId, Tensor)> {
    let value = cx.input(i)?;
    let undecided = || Refusal::undecided(value, "the size of the result depends on data");
    cx.constant_of(value).cloned().map(|tensor| (value, tensor)).ok_or_else(undecided)
}

/// A constant i64 tensor.
fn table(cx: &mut Cx, dims: [usize; 2], data: Vec<i64>) -> NodeResult<ValueId> {
    let tensor = Tensor::new(&dims, data)?;
    Ok(cx.constant(tensor))
}

/// The positions of the elements that are not 0, one per column.
pub(super) fn non_zero(cx: &mut Cx) -> Results {
    let (_, x) = known(cx, 0)?;
    cx.may_compute(x.len() as i64 * (x.dims().len() as i64 + 1))?;
    let found: Vec<usize> = x.to_f64s().iter().enumerate().filter(|(_, v)| **v != 0.0).map(|(i, _)| i).collect();
    let mut data = Vec::with_capacity(x.dims().len() * found.len());
    let mut stride = x.len();
    for dim in x.dims() {
        stride /= (*dim).max(1);
        data.extend(found.iter().map(|i| (i / stride.max(1) % dim) as i64));
    }
    Ok(vec![table(cx, [x.dims().len(), found.len()], data)?])
}

/// The different slices along an axis, or the different elements: themselves, where each stands first, which
/// one each slice is, and how often each occurs.
pub(super) fn unique(cx: &mut Cx) -> Results {
    let (value, x) = known(cx, 0)?;
    if x.is_empty() {
        return refuse("an operand without elements is not supported");
    }
    // Keys take 16 bytes, as elements and in their slices.
    cx.may_compute(4 * x.len() as i64)?;
    let sorted = cx.flag("sorted", true)?;
    let axis = cx.int("axis")?.map(|axis| axis_index(axis, x.dims().len())).transpose()?;
    let (operand, axis, dims) = match axis {
        Some(axis) => (value, axis, x.dims().to_vec()),
        None => (cx.reshape(value, vec![(x.len() as i64).into()])?, 0, vec![x.len()]),
    };
    let (outer, inner): (usize, usize) = (dims[..axis].iter().product(), dims[axis + 1..].iter().product());
    let keys: Vec<i128> = match x.to_i128s() {
        Some(integers) => integers,
        None => x.to_f64s().into_iter().map(ordered).collect(),
    };
    let length = dims[axis];
    let slice = |i: usize| -> Vec<i128> {
        (0..outer).flat_map(|o| (0..inner).map(move |j| (o * length + i) * inner + j)).map(|at| keys[at]).collect()
    };
    let mut classes: BTreeMap<Vec<i128>, Vec<usize>> = BTreeMap::new();
    for i in 0..length {
        classes.entry(slice(i)).or_default().push(i);
    }
    let mut members: Vec<Vec<usize>> = classes.into_values().collect();
    if !sorted {
        members.sort_by_key(|of| of[0]);
    }
    let mut inverse = vec![0; length];
    for (class, of) in members.iter().enumerate() {
        of.iter().for_each(|i| inverse[*i] = class as i64);
    }
    let first = cx.integers(members.iter().map(|of| of[0] as i64).collect());
    let counts = cx.integers(members.iter().map(|of| of.len() as i64).collect());
    let inverse = cx.integers(inverse);
    let y = cx.emit(Op::Gather { axis: axis as i64 }, &[operand, first])?;
    Ok(vec![y, first, inverse, counts])
}

/// An integer that orders as the float does; zeros are one, and so are NaNs, which come last.
fn ordered(x: f64) -> i128 {
    let x = if x.is_nan() { f64::NAN.abs() } else { x + 0.0 };
    let bits = x.to_bits() as i64;
    i128::from(if bits < 0 { i64::MIN - bits } else { bits })
}

/// Boxes of high scores that overlap none of a higher one too much: batch, class and box of each.
pub(super) fn non_max_suppression(cx: &mut Cx) -> Results {
    let centred = cx.flag("center_point_box", false)?;
    let ((_, boxes), (_, scores)) = (known(cx, 0)?, known(cx, 1)?);
    let most = cx.const_int(2, "number of boxes")?.unwrap_or(0);
    let overlap = cx.const_number(3, "overlap")?.unwrap_or(0.0);
    let least = cx.const_number(4, "least score")?;
    let ([batch, count, 4], [of_batch, classes, per_class]) = (boxes.dims(), scores.dims()) else {
        return refuse(format!("boxes {boxes:?} and scores {scores:?} do not fit"));
    };
    if (batch, count) != (of_batch, per_class) {
        return refuse(format!("boxes {boxes:?} and scores {scores:?} do not fit"));
    }
    // Without boxes, there may be any number of batches and classes.
    let rows = if *count == 0 { 0 } else { batch * classes };
    let (corners, all) = (boxes.to_f64s(), scores.to_f64s());
    let area_of: Vec<Area> = corners.chunks_exact(4).map(|c| Area::new(c, centred)).collect();
    let mut found = Vec::new();
    for row in 0..rows {
        let own = &all[row * count..(row + 1) * count];
        let areas = &area_of[row / classes * count..][..*count];
        let mut order: Vec<usize> = (0..*count).filter(|i| least.is_none_or(|least| own[*i] > least)).collect();
        order.sort_by(|a, b| own[*b].total_cmp(&own[*a]));
        let mut kept: Vec<usize> = Vec::new();
        for candidate in order {
            if kept.len() as i64 >= most {
                break;
            }
            if kept.iter().all(|other| areas[candidate].overlap(&areas[*other]) <= overlap) {
                kept.push(candidate);
            }
        }
        found.extend(kept.into_iter().flat_map(|i| [row / classes, row % classes, i]).map(|n| n as i64));
    }
    Ok(vec![table(cx, [found.len() / 3, 3], found)?])
}

/// A box by its corners.
struct Area {
    low: [f64; 2],
    high: [f64; 2],
}

impl Area {
    /// From two opposite corners, or from a centre and sizes.
    fn new(numbers: &[f64], centred: bool) -> Area {
        let [a, b, c, d] = [numbers[0], numbers[1], numbers[2], numbers[3]];
        if centred {
            return Area { low: [a - c / 2.0, b - d / 2.0], high: [a + c / 2.0, b + d / 2.0] };
        }
        Area { low: [a.min(c), b.min(d)], high: [a.max(c), b.max(d)] }
    }

    fn size(&self) -> f64 {
        (self.high[0] - self.low[0]) * (self.high[1] - self.low[1])
    }

    /// The share of both together that both cover.
    fn overlap(&self, other: &Area) -> f64 {
        let along = |i: usize| (self.high[i].min(other.high[i]) - self.low[i].max(other.low[i])).max(0.0);
        let common = along(0) * along(1);
        let whole = self.size() + other.size() - common;
        if common > 0.0 && whole > 0.0 { common / whole } else { 0.0 }
    }
}
