//! Images and the windows that slide over them: what convolutions and poolings share.

use std::ops::Range;

use super::simd::Reach;

/// Images in memory: the element `[image, channel, y, x]` is at
/// `ptr[image·self.image + channel·self.channel + y·self.row + x·self.column]`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Image {
    pub(crate) ptr: *const f32,
    pub(crate) image: isize,
    pub(crate) channel: isize,
    pub(crate) row: isize,
    pub(crate) column: isize,
}

impl Image {
    /// Where an element is; it need not be inside the image.
    pub(super) fn at(&self, image: usize, channel: usize, y: isize, x: isize) -> *const f32 {
        let planes = image as isize * self.image + channel as isize * self.channel;
        self.ptr.wrapping_offset(planes + y * self.row + x * self.column)
    }
}

/// How a kernel's window slides over an image. Axis 0 is the height.
///
/// Every input coordinate that a tap reaches, pads included, fits an `isize`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Window {
    /// The input.
    pub(crate) size: [usize; 2],
    pub(crate) out_size: [usize; 2],
    pub(crate) kernel: [usize; 2],
    pub(crate) stride: [usize; 2],
    pub(crate) dilation: [usize; 2],
    /// Zeros before the input; what lies after follows from the sizes.
    pub(crate) pad: [usize; 2],
}

impl Window {
    /// Elements of an output plane.
    pub(super) fn out_plane(&self) -> usize {
        self.out_size[0] * self.out_size[1]
    }

    /// Elements of the kernel.
    pub(super) fn taps(&self) -> usize {
        self.kernel[0] * self.kernel[1]
    }

    /// The input coordinate of a tap for an output, which may lie in the pad.
    pub(super) fn input(&self, axis: usize, out: usize, tap: usize) -> isize {
        (out * self.stride[axis] + tap * self.dilation[axis]) as isize - self.pad[axis] as isize
    }

    /// Which of `count` coordinates, `step` apart from `first` on, are inside the input on `axis`.
    pub(super) fn inside(&self, axis: usize, first: isize, step: usize, count: usize) -> Range<usize> {
        // A division takes longer than all the rest.
        let rounded = |distance: usize| if step == 1 { distance } else { distance.div_ceil(step) };
        let steps = |distance: isize| rounded(distance.max(0) as usize).min(count);
        let (lo, hi) = (steps(-first), steps(self.size[axis] as isize - first));
        lo.min(hi)..hi
    }

    /// The taps on `axis` that are inside the input for an output.
    pub(super) fn taps_inside(&self, axis: usize, out: usize) -> Range<usize> {
        self.inside(axis, self.input(axis, out, 0), self.dilation[axis], self.kernel[axis])
    }

    /// The outputs on `axis` all of whose taps are inside the input.
    pub(super) fn whole(&self, axis: usize) -> Range<usize> {
        let outputs = self.out_size[axis];
        let Some(last) = self.kernel[axis].checked_sub(1) else { return 0..0 };
        let first = self.inside(axis, self.input(axis, 0, 0), self.stride[axis], outputs);
        let last = self.inside(axis, self.input(axis, 0, last), self.stride[axis], outputs);
        let start = first.start.max(last.start);
        start..first.end.min(last.end).max(start)
    }

    /// Whether the windows are the positions of the input.
    pub(super) fn is_pointwise(&self) -> bool {
        self.kernel == [1, 1] && self.stride == [1, 1] && self.pad == [0, 0] && self.size == self.out_size
    }

    /// The outputs of a row in stretches that meet the same taps on that axis: those whose windows reach over an
    /// edge one by one.
    pub(super) fn stretches(&self) -> impl Iterator<Item = Range<usize>> + use<> {
        let (whole, width) = (self.whole(1), self.out_size[1]);
        let single = |x: usize| x..x + 1;
        let (before, after) = ((0..whole.start).map(single), (whole.end..width).map(single));
        before.chain((!whole.is_empty()).then_some(whole)).chain(after)
    }

    /// What the windows of a stretch of row `y` meet of an image, from its channel 0 on, and the first tap that is
    /// inside it.
    pub(super) fn reach(&self, x: &Image, image: usize, y: usize, outputs: &Range<usize>) -> (Reach, [usize; 2]) {
        let (rows, columns) = (self.taps_inside(0, y), self.taps_inside(1, outputs.start));
        let (top, left) = (self.input(0, y, rows.start), self.input(1, outputs.start, columns.start));
        let reach = Reach {
            ptr: x.at(image, 0, top, left),
            step: self.stride[1] as isize * x.column,
            row: self.dilation[0] as isize * x.row,
            column: self.dilation[1] as isize * x.column,
            taps: [rows.len(), columns.len()],
        };
        (reach, [rows.start, columns.start])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Window =
        Window { size: [7, 9], out_size: [7, 9], kernel: [3, 3], stride: [1, 1], dilation: [1, 1], pad: [1, 1] };

    /// Every output once, in order, and in one stretch only if their taps are the same.
    #[test]
    fn stretches_cover_a_row() {
        for window in [
            PLAIN,
            Window { kernel: [3, 5], pad: [1, 2], ..PLAIN },
            Window { stride: [1, 2], out_size: [7, 5], ..PLAIN },
            Window { kernel: [1, 2], pad: [0, 5], out_size: [7, 15], ..PLAIN },
            Window { kernel: [1, 0], ..PLAIN },
            Window { size: [7, 0], ..PLAIN },
            Window { kernel: [1, 9], pad: [0, 4], size: [7, 3], out_size: [7, 3], ..PLAIN },
        ] {
            let stretches: Vec<_> = window.stretches().collect();
            let outputs: Vec<usize> = stretches.iter().cloned().flatten().collect();
            assert_eq!(outputs, (0..window.out_size[1]).collect::<Vec<_>>(), "{window:?}");
            for mut stretch in stretches {
                let taps = window.taps_inside(1, stretch.start);
                assert!(stretch.all(|x| window.taps_inside(1, x) == taps), "{window:?}");
            }
        }
    }
}
