//! Operators that select as many as data decides. Their results have room for all there can be; the last result
//! is the number of those there are, and what is beyond holds zeros.
//!
//! Specification: <https://onnx.ai/onnx/operators/onnx__NonZero.html>,
//! <https://onnx.ai/onnx/operators/onnx__Unique.html>,
//! <https://onnx.ai/onnx/operators/onnx__NonMaxSuppression.html>.

use std::collections::BTreeMap;

use super::eval_context::{Eval, Evaluated};
use super::infer_context::Infer;
use super::{Facts, InferError};
use crate::dim::Dim;
use crate::types::{DType, Type};

fn integers(dims: impl IntoIterator<Item = Dim>) -> Facts {
    Facts::of(Type::new(DType::I64, dims))
}

/// The result that begins with what was found.
fn filled(cx: &Eval, mut found: Vec<i64>) -> Evaluated {
    if found.len() > cx.len() {
        return Err(cx.fail("it selects more than there is room for"));
    }
    found.resize(cx.len(), 0);
    cx.finish(found)
}

/// `NonZero`.
pub(super) fn infer_non_zero(cx: &Infer) -> Vec<Facts> {
    let x = cx.ty(0);
    vec![integers([Dim::from(x.rank() as i64), x.elements()]), integers([])]
}

/// `NonZero`.
pub(super) fn eval_non_zero(cx: &Eval) -> Evaluated {
    let elements = cx.floats(0);
    let found: Vec<usize> = (0..elements.len()).filter(|i| elements[*i] != 0.0).collect();
    if cx.output() == 1 {
        return cx.finish(vec![found.len() as i64]);
    }
    let mut positions = Vec::with_capacity(cx.len());
    let mut stride = elements.len();
    for dim in cx.from(0) {
        stride /= (*dim).max(1);
        positions.extend(found.iter().map(|i| (i / stride.max(1) % dim) as i64));
        positions.resize(positions.len() + elements.len() - found.len(), 0);
    }
    cx.finish(positions)
}

/// `Unique`.
pub(super) fn infer_unique(cx: &Infer, axis: i64) -> Result<Vec<Facts>, InferError> {
    let x = cx.ty(0);
    let length = &x.dims[cx.axis(axis, x.rank())?];
    let vector = || integers([length.clone()]);
    Ok(vec![vector(), vector(), vector(), integers([])])
}

/// `Unique`.
pub(super) fn eval_unique(cx: &Eval, axis: i64, sorted: bool) -> Evaluated {
    let (axis, dims) = (cx.axis(axis)?, cx.from(0));
    let (outer, inner): (usize, usize) = (dims[..axis].iter().product(), dims[axis + 1..].iter().product());
    let length = dims[axis];
    let keys: Vec<i128> = match cx.input(0).to_i128s() {
        Some(integers) => integers,
        None => cx.floats(0).into_iter().map(ordered).collect(),
    };
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
    match cx.output() {
        0 => filled(cx, members.iter().map(|of| of[0] as i64).collect()),
        1 => {
            let mut inverse = vec![0; length];
            for (class, of) in members.iter().enumerate() {
                of.iter().for_each(|i| inverse[*i] = class as i64);
            }
            cx.finish(inverse)
        }
        2 => filled(cx, members.iter().map(|of| of.len() as i64).collect()),
        _ => cx.finish(vec![members.len() as i64]),
    }
}

/// An integer that orders as the float does; zeros are one, and so are NaNs, which come last.
fn ordered(x: f64) -> i128 {
    let x = if x.is_nan() { f64::NAN.abs() } else { x + 0.0 };
    let bits = x.to_bits() as i64;
    i128::from(if bits < 0 { i64::MIN - bits } else { bits })
}

/// The attributes of `NonMaxSuppression`.
pub(super) struct Boxes {
    pub(super) most: i64,
    pub(super) overlap: f32,
    pub(super) above: f32,
    pub(super) centred: bool,
}

/// `NonMaxSuppression`.
pub(super) fn infer_boxes(cx: &mut Infer, most: i64) -> Result<Vec<Facts>, InferError> {
    cx.expect_float(0)?;
    cx.expect_float(1)?;
    cx.expect_rank(0, 3)?;
    cx.expect_rank(1, 3)?;
    let (boxes, scores) = (cx.ty(0), cx.ty(1));
    cx.unify(&boxes.dims[2], &Dim::from(4), || "the numbers of a box".into())?;
    let batch = cx.unify(&boxes.dims[0], &scores.dims[0], || "the batches of boxes and scores".into())?;
    let count = cx.unify(&boxes.dims[1], &scores.dims[2], || "the numbers of boxes and scores".into())?;
    let per_class = count.smaller(&Dim::from(most.clamp(0, Dim::LIMIT - 1)));
    Ok(vec![integers([Dim::product([&batch, &scores.dims[1], &per_class]), 3.into()]), integers([])])
}

/// `NonMaxSuppression`.
pub(super) fn eval_boxes(cx: &Eval, of: Boxes) -> Evaluated {
    let (classes, count) = (cx.from(1)[1], cx.from(1)[2]);
    let (corners, scores) = (cx.floats(0), cx.floats(1));
    let area_of: Vec<Area> = corners.chunks_exact(4).map(|c| Area::new(c, of.centred)).collect();
    let mut found = Vec::new();
    for (row, own) in scores.chunks_exact(count.max(1)).enumerate() {
        let areas = &area_of[row / classes * count..][..count];
        let counts = |i: &usize| of.above == f32::NEG_INFINITY || own[*i] > f64::from(of.above);
        let mut order: Vec<usize> = (0..count).filter(counts).collect();
        order.sort_by(|a, b| own[*b].total_cmp(&own[*a]));
        let mut kept: Vec<usize> = Vec::new();
        for candidate in order {
            if kept.len() as i64 >= of.most {
                break;
            }
            if kept.iter().all(|other| areas[candidate].overlap(&areas[*other]) <= f64::from(of.overlap)) {
                kept.push(candidate);
            }
        }
        found.extend(kept.into_iter().flat_map(|i| [row / classes, row % classes, i]).map(|n| n as i64));
    }
    if cx.output() == 1 { cx.finish(vec![found.len() as i64 / 3]) } else { filled(cx, found) }
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
