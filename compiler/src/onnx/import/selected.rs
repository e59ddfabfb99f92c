//! Operators whose results are as long as data decides: what they find has room for all there can be, of which as
//! many are taken as there are.
//!
//! Specification: <https://onnx.ai/onnx/operators/onnx__NonMaxSuppression.html> and its neighbours.

use eec_ir::{Dim, Op, Tensor, ValueId, ops};

use super::super::error::{NodeResult, Refusal, refuse};
use super::late::Found;
use super::node::{Cx, Results, axis_index};

impl Cx<'_> {
    /// The results of an operator that selects: computed now, of constants.
    fn selected(&mut self, op: Op, inputs: &[ValueId]) -> Results {
        let constants: Option<Vec<Tensor>> = inputs.iter().map(|v| self.constant_of(*v).cloned()).collect();
        let Some(constants) = constants else { return self.emit_all(op, inputs) };
        // Keys take 16 bytes, as elements and in their slices.
        let elements: usize = constants.iter().map(|t| t.len() * (t.dims().len() + 4)).sum();
        self.may_compute(elements as i64)?;
        let results = ops::eval(&op, &constants, &|_| None).map_err(|e| Refusal::new(e.to_string()))?;
        Ok(results.into_iter().map(|tensor| self.constant(tensor)).collect())
    }

    /// How many there are, at most so many.
    fn how_many(&mut self, count: ValueId, most: &Dim) -> NodeResult<Dim> {
        match self.constant_of(count).and_then(Tensor::to_i64s).as_deref() {
            Some([known]) => Ok((*known).into()),
            _ => self.late_size(count, most.clone()),
        }
    }

    /// The first `count` along `axis`.
    pub(super) fn first(&mut self, x: ValueId, axis: usize, count: &Dim) -> NodeResult<ValueId> {
        if self.dims(x).get(axis) == Some(count) {
            return Ok(x);
        }
        if self.late().counts.contains(count) {
            let positions = self.numbers(count)?;
            return self.emit(Op::Gather { axis: axis as i64 }, &[x, positions]);
        }
        let op = |axes| Op::Slice { axes, starts: vec![0.into()], ends: vec![count.clone()], steps: vec![1] };
        let op = op(vec![axis as i64]);
        match self.constant_of(x).cloned().filter(|_| count.as_const().is_some()) {
            Some(tensor) => {
                let part = ops::eval(&op, &[tensor], &|_| None).map_err(|e| Refusal::new(e.to_string()))?;
                part.into_iter().next().map(|t| self.constant(t)).ok_or_else(|| Refusal::new("a slice gives nothing"))
            }
            None => self.emit(op, &[x]),
        }
    }

    /// The elements that are not 0.
    pub(super) fn found(&mut self, x: ValueId) -> NodeResult<Found> {
        let (region, _) = self.place();
        if let Some(found) = self.late().found.get(&(region, x)) {
            return Ok(found.clone());
        }
        let elements = self.ty(x).elements();
        let results = self.selected(Op::NonZero {}, &[x])?;
        // Those of a negated mask are all the others.
        let inverted = self.graph().def_node(x).map(|n| self.graph().node(n)).filter(|n| n.op == Op::Not {});
        let others = inverted.map(|n| n.inputs[0]).and_then(|m| self.late().found.get(&(region, m)).cloned());
        let count = match others {
            Some(others) => {
                let rest = &elements - &others.count;
                self.late_mut().counts.insert(rest.clone());
                rest
            }
            None => self.how_many(results[1], &elements)?,
        };
        let found = Found { positions: self.first(results[0], 1, &count)?, count };
        self.late_mut().found.insert((region, x), found.clone());
        Ok(found)
    }
}

/// The positions of the elements that are not 0, one per column.
pub(super) fn non_zero(cx: &mut Cx) -> Results {
    let x = cx.input(0)?;
    Ok(vec![cx.found(x)?.positions])
}

/// The elements along an axis, or of all, where a condition holds.
pub(super) fn compress(cx: &mut Cx) -> Results {
    let (mut x, condition) = (cx.input(0)?, cx.input(1)?);
    let axis = match cx.int("axis")? {
        Some(axis) => axis_index(axis, cx.rank(x))?,
        None => {
            let elements = cx.ty(x).elements();
            x = cx.reshape(x, vec![elements])?;
            0
        }
    };
    if cx.rank(condition) != 1 {
        return refuse(format!("the condition must be a vector, found {}", cx.ty(condition)));
    }
    let Found { positions, count } = cx.found(condition)?;
    let positions = cx.reshape(positions, vec![count])?;
    Ok(vec![cx.emit(Op::Gather { axis: axis as i64 }, &[x, positions])?])
}

/// The different slices along an axis, or the different elements: themselves, where each stands first, which
/// one each slice is, and how often each occurs.
pub(super) fn unique(cx: &mut Cx) -> Results {
    let x = cx.input(0)?;
    let sorted = cx.flag("sorted", true)?;
    let axis = cx.int("axis")?.map(|axis| axis_index(axis, cx.rank(x))).transpose()?;
    let (x, axis) = match axis {
        Some(axis) => (x, axis),
        None => {
            let elements = cx.ty(x).elements();
            (cx.reshape(x, vec![elements])?, 0)
        }
    };
    let length = cx.dims(x)[axis].clone();
    if cx.ty(x).elements().as_const() == Some(0) {
        return refuse("an operand without elements is not supported");
    }
    let results = cx.selected(Op::Unique { axis: axis as i64, sorted }, &[x])?;
    let count = cx.how_many(results[3], &length)?;
    let first = cx.first(results[0], 0, &count)?;
    let counts = cx.first(results[2], 0, &count)?;
    let y = cx.emit(Op::Gather { axis: axis as i64 }, &[x, first])?;
    Ok(vec![y, first, results[1], counts])
}

/// Boxes of high scores that overlap none of a higher one too much: batch, class and box of each.
pub(super) fn non_max_suppression(cx: &mut Cx) -> Results {
    let centred = cx.flag("center_point_box", false)?;
    let (boxes, scores) = (cx.input(0)?, cx.input(1)?);
    let most = cx.const_int(2, "number of boxes")?.unwrap_or(0);
    let overlap = cx.const_number(3, "overlap")?.unwrap_or(0.0) as f32;
    let above = cx.const_number(4, "least score")?.map_or(f32::NEG_INFINITY, |least| least as f32);
    let results = cx.selected(Op::NonMaxSuppression { most, overlap, above, centred }, &[boxes, scores])?;
    let room = cx.dims(results[0])[0].clone();
    let count = cx.how_many(results[1], &room)?;
    Ok(vec![cx.first(results[0], 0, &count)?])
}
