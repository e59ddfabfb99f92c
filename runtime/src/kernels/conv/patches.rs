//! The patches of an image as the rows of a matrix, packed a slice at a time.

use std::ops::Range;

use super::{ConvArgs, Window};
use crate::kernels::Strided;
use crate::kernels::gemm::pack;
use crate::kernels::simd::{Isa, Segment};

/// Rows that are copied at a time where they lie apart, so that lines that two vectors share stay near.
const NEAR: usize = 32;

/// The matrix of one group of one image: row `channel * taps + tap`, column `y * out_width + x` holds
/// what output (y, x) meets of that channel at that tap.
pub(super) struct Patches<'a> {
    isa: &'a Isa,
    window: &'a Window,
    /// The group's first input plane.
    planes: *const f32,
}

impl<'a> Patches<'a> {
    pub(super) fn new(isa: &'a Isa, args: &'a ConvArgs<'a>, image: usize, group: usize) -> Patches<'a> {
        let plane = image * args.shape.in_channels + group * args.shape.group_inputs();
        let window = &args.shape.window;
        Patches { isa, window, planes: args.x.wrapping_add(plane * window.plane()) }
    }

    /// The matrix where it lies, if the rows of patches are the planes themselves.
    pub(super) fn in_place(&self) -> Option<Strided> {
        let row = self.window.plane() as isize;
        self.window.is_pointwise().then_some(Strided { ptr: self.planes, row, column: 1 })
    }

    /// Packs rows `ks` of `columns` into rows of `width`, a whole number of vectors; elements beyond
    /// the columns are left as they are or become zero.
    ///
    /// # Safety
    ///
    /// The slice is inside the matrix, the image is valid, and `dst` holds the rows.
    pub(super) unsafe fn pack(&self, ks: Range<usize>, columns: Range<usize>, dst: &mut [f32], width: usize) {
        debug_assert!(dst.len() >= ks.len() * width && columns.len() <= width);
        if let Some(planes) = self.in_place() {
            for row in (0..ks.len()).step_by(NEAR) {
                let (src, rows) = (planes.at(ks.start + row, columns.start), NEAR.min(ks.len() - row));
                let dst = dst[row * width..].as_mut_ptr();
                // SAFETY: the caller's promise, for some of the rows.
                unsafe { pack(self.isa, src, rows, columns.len(), dst, width, width) };
            }
            return;
        }
        let out_width = self.window.out_size[1];
        let mut column = columns.start;
        while column < columns.end {
            let (y, x) = (column / out_width, column % out_width);
            let len = self.isa.lanes.min(out_width - x).min(columns.end - column);
            let run = Run { y, x, len, column: column - columns.start };
            // SAFETY: the run is a part of the slice.
            unsafe { self.pack_run(&ks, run, dst, width) };
            column += len;
        }
    }

    /// Packs all rows of one run.
    ///
    /// # Safety
    ///
    /// As for [`Patches::pack`]; the run is inside the slice.
    unsafe fn pack_run(&self, ks: &Range<usize>, run: Run, dst: &mut [f32], width: usize) {
        let window = self.window;
        let [kernel_height, kernel_width] = window.kernel;
        let taps = window.taps();
        if taps == 0 {
            return;
        }
        // The channel of a row at a tap, rounded up: divisions here, not in the loops.
        let channel_from = |k: usize| {
            let (channel, rest) = (k / taps, k % taps);
            move |tap: usize| channel + usize::from(tap < rest)
        };
        let (first, end) = (channel_from(ks.start), channel_from(ks.end));
        for tap_x in 0..kernel_width {
            let x = window.input(1, run.x, tap_x);
            let inside = window.inside(1, x, window.stride[1], run.len);
            for tap_y in 0..kernel_height {
                let tap = tap_y * kernel_width + tap_x;
                let (first, end) = (first(tap), end(tap));
                if first >= end {
                    continue;
                }
                let y = window.input(0, run.y, tap_y);
                let inside = if (0..window.size[0] as isize).contains(&y) { inside.clone() } else { 0..0 };
                let src = y * window.size[1] as isize + x + (first * window.plane()) as isize;
                let segment = Segment {
                    src: self.planes.wrapping_offset(src),
                    src_row: window.plane() as isize,
                    step: window.stride[1],
                    dst: dst[(first * taps + tap - ks.start) * width + run.column..].as_mut_ptr(),
                    dst_row: (taps * width) as isize,
                    count: end - first,
                    len: run.len,
                    lo: inside.start,
                    hi: inside.end,
                };
                // SAFETY: only lanes inside the image are read; each row ends inside its row of `dst`.
                unsafe { (self.isa.copy)(&segment) };
            }
        }
    }
}

/// At most a vector of neighbouring outputs of one row.
#[derive(Clone, Copy)]
struct Run {
    y: usize,
    x: usize,
    len: usize,
    /// Its first column in the slice.
    column: usize,
}
