//! Sliding windows over images, shared by convolution and pooling: checks, result sizes, positions.

use super::InferError;
use super::infer_context::Infer;
use crate::dim::Dim;

/// Attributes beyond this are refused, so that products of two of them do not overflow.
const MAX_ATTRIBUTE: i64 = 1 << 31;

/// The window attributes of an operator, one per spatial axis (`pads`: all begins, then all ends).
#[derive(Clone, Copy)]
pub(super) struct Windows<'a> {
    pub(super) kernel: &'a [i64],
    pub(super) strides: &'a [i64],
    pub(super) dilations: &'a [i64],
    pub(super) pads: &'a [i64],
    pub(super) ceil_mode: bool,
}

impl Windows<'_> {
    /// The result's spatial dims for an input's; refuses attributes that are no windows.
    pub(super) fn infer(&self, cx: &Infer, spatial: &[Dim]) -> Result<Vec<Dim>, InferError> {
        let axes = spatial.len();
        expect_list(cx, "kernel", self.kernel, axes, 1)?;
        expect_list(cx, "strides", self.strides, axes, 1)?;
        expect_list(cx, "dilations", self.dilations, axes, 1)?;
        expect_list(cx, "pads", self.pads, 2 * axes, 0)?;
        (0..axes).map(|i| self.result_size(cx, i, &spatial[i])).collect()
    }

    fn result_size(&self, cx: &Infer, axis: usize, size: &Dim) -> Result<Dim, InferError> {
        let (before, after) = (self.pads[axis], self.pads[axis + self.kernel.len()]);
        let reach = self.dilations[axis] * (self.kernel[axis] - 1) + 1;
        let stride = Dim::from(self.strides[axis]);
        let quotient = |d: Dim| d.floor_div(&stride).ok_or_else(|| cx.refuse("strides must not be 0"));
        let room = size + &Dim::from(before + after - reach);
        let result = if self.ceil_mode {
            // A window that would begin behind the input is left out.
            let steps = quotient(&room + &Dim::from(self.strides[axis] - 1))?;
            steps.smaller(&quotient(size + &Dim::from(before - 1))?)
        } else {
            quotient(room.clone())?
        };
        let fits = room.as_const().is_none_or(|r| r >= 0);
        cx.require(fits, || format!("a window of {reach} does not fit into {size} with pads {before} and {after}"))?;
        Ok(&result + &Dim::from(1))
    }
}

fn expect_list(cx: &Infer, name: &str, list: &[i64], length: usize, least: i64) -> Result<(), InferError> {
    let good = list.len() == length && list.iter().all(|v| (least..=MAX_ATTRIBUTE).contains(v));
    cx.require(good, || format!("`{name}` must be {length} numbers of at least {least}, found {list:?}"))
}

/// The elements under one window: tap and position in the plane, both in row-major order.
pub(super) type Window = Vec<(usize, usize)>;

impl Windows<'_> {
    /// For every window over a plane of dims `from`, in the order of the result's dims `to`, the elements
    /// under it that lie inside the plane.
    pub(super) fn positions(&self, from: &[usize], to: &[usize]) -> Vec<Window> {
        let mut all = vec![vec![(0, 0)]];
        for (axis, (size, results)) in from.iter().zip(to).enumerate() {
            let lines: Vec<Window> = (0..*results).map(|i| self.line(axis, *size, i)).collect();
            let kernel = self.kernel[axis] as usize;
            let within = |outer: &Window, line: &Window| -> Window {
                let pairs = outer.iter().flat_map(|o| line.iter().map(move |l| (o, l)));
                pairs.map(|(o, l)| (o.0 * kernel + l.0, o.1 * size + l.1)).collect()
            };
            all = all.iter().flat_map(|outer| lines.iter().map(move |line| within(outer, line))).collect();
        }
        all
    }

    /// The taps of window `index` along one axis that lie inside `size` elements, and where.
    fn line(&self, axis: usize, size: usize, index: usize) -> Window {
        let first = index * self.strides[axis] as usize;
        let at = |tap: usize| (first + tap * self.dilations[axis] as usize).checked_sub(self.pads[axis] as usize);
        (0..self.kernel[axis] as usize).filter_map(|tap| Some((tap, at(tap).filter(|i| *i < size)?))).collect()
    }

    /// For every window, how many of its taps lie inside the plane and its padding.
    pub(super) fn padded_counts(&self, from: &[usize], to: &[usize]) -> Vec<usize> {
        let axes = self.kernel.len();
        let whole: Vec<usize> = (0..axes).map(|i| from[i] + (self.pads[i] + self.pads[i + axes]) as usize).collect();
        let unpadded = vec![0; 2 * axes];
        Windows { pads: &unpadded, ..*self }.positions(&whole, to).iter().map(Vec::len).collect()
    }
}
