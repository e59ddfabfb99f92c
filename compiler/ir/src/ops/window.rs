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

/// Windows along one axis, for evaluation.
#[derive(Clone, Copy)]
pub(super) struct Line {
    pub(super) size: usize,
    pub(super) result: usize,
    pub(super) kernel: usize,
    pub(super) stride: usize,
    pub(super) dilation: usize,
    pub(super) before: usize,
}

impl Line {
    /// The input position under tap `tap` of window `window`, unless it lies in the padding.
    pub(super) fn at(&self, window: usize, tap: usize) -> Option<usize> {
        (window * self.stride + tap * self.dilation).checked_sub(self.before).filter(|i| *i < self.size)
    }
}

impl Windows<'_> {
    /// The last two spatial axes of a rank-3 or rank-4 tensor; the missing one of rank 3 is 1.
    pub(super) fn lines(&self, from: &[usize], to: &[usize]) -> [Line; 2] {
        let missing = 4usize.saturating_sub(from.len());
        [0, 1].map(|axis| match usize::checked_sub(axis, missing) {
            None => Line { size: 1, result: 1, kernel: 1, stride: 1, dilation: 1, before: 0 },
            Some(i) => Line {
                size: from[2 + i],
                result: to[2 + i],
                kernel: self.kernel[i] as usize,
                stride: self.strides[i] as usize,
                dilation: self.dilations[i] as usize,
                before: self.pads[i] as usize,
            },
        })
    }
}
