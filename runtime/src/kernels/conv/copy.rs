//! The left operand of a convolution: what the windows of some outputs meet, copied with its pads and its
//! channels last, where no tap needs a test of where it is.

use std::ops::Range;

use super::ConvArgs;
use crate::kernels::gemm::transpose_part;
use crate::kernels::image::{Image, Window};
use crate::kernels::simd::Isa;

/// How much larger than the image a padded copy of its rows may be.
const MAX_GROWTH: usize = 4;

/// How the windows of a group's channels lie: an output's window begins where [`Layout::starts`] says, and
/// from there [`Layout::runs`] are the beginnings of its parts, each of [`Layout::run`] neighbours.
#[derive(Clone, Copy)]
pub(super) enum Layout {
    /// In the image, which has no pads.
    InPlace { column: isize, row: isize },
    /// In a copy of the rows that the windows meet, pads included, `columns` wide.
    Rows { columns: usize },
    /// In a copy of the part of a signal, the only row there is, that the windows meet, pads included.
    Signal,
    /// Every window by itself, for windows that meet little of the rows and columns that they reach over.
    Patches,
}

impl Layout {
    /// The layout for a convolution.
    pub(super) fn new(args: &ConvArgs<'_>) -> Layout {
        let (window, x) = (&args.window, &args.x);
        let reach = |axis: usize| reach(window, axis, window.out_size[axis]);
        let inside = |axis: usize| window.pad[axis] == 0 && reach(axis).is_some_and(|r| r <= window.size[axis]);
        if x.channel == 1 && inside(0) && inside(1) {
            return Layout::InPlace { column: x.column, row: x.row };
        }
        match reach(1) {
            Some(_) if is_in_proportion(window) && is_signal(window) => Layout::Signal,
            Some(columns) if is_in_proportion(window) => Layout::Rows { columns },
            _ => Layout::Patches,
        }
    }

    /// Outputs that are copied together, and of which each copy has a whole number.
    pub(super) fn unit(&self, window: &Window) -> usize {
        match self {
            Layout::InPlace { .. } if is_signal(window) => 1,
            Layout::InPlace { .. } | Layout::Rows { .. } => window.out_size[1],
            Layout::Signal | Layout::Patches => 1,
        }
    }

    /// Elements of the copy for so many units.
    pub(super) fn copy_len(&self, args: &ConvArgs<'_>, units: usize) -> Option<usize> {
        let channels = args.filters.group_inputs();
        match self {
            Layout::InPlace { .. } => Some(0),
            Layout::Rows { columns } => reach(&args.window, 0, units)?.checked_mul(*columns)?.checked_mul(channels),
            Layout::Signal => reach(&args.window, 1, units)?.checked_mul(channels),
            Layout::Patches => args.filters.depth().checked_mul(units),
        }
    }

    /// Elements from one position to the next, and from one row to the next, where rows lie as in the image.
    fn steps(&self, channels: usize) -> [isize; 2] {
        match self {
            Layout::InPlace { column, row } => [*column, *row],
            Layout::Rows { columns } => [channels as isize, (columns * channels) as isize],
            Layout::Signal => [channels as isize, 0],
            Layout::Patches => [0, 0],
        }
    }

    /// Neighbours of a part of a window.
    pub(super) fn run(&self, args: &ConvArgs<'_>) -> usize {
        let channels = args.filters.group_inputs();
        match self {
            Layout::Patches => args.filters.depth(),
            Layout::InPlace { .. } | Layout::Rows { .. } | Layout::Signal if self.has_whole_rows(args) => {
                channels * args.window.kernel[1]
            }
            Layout::InPlace { .. } | Layout::Rows { .. } | Layout::Signal => channels,
        }
    }

    /// Whether a row of a window's taps has nothing between them.
    fn has_whole_rows(&self, args: &ConvArgs<'_>) -> bool {
        let channels = args.filters.group_inputs();
        args.window.dilation[1] == 1 && self.steps(channels)[0] == channels as isize
    }

    /// Parts of a window.
    pub(super) fn runs(&self, args: &ConvArgs<'_>) -> usize {
        args.filters.depth().checked_div(self.run(args)).unwrap_or(0)
    }

    /// Where part `index` of a window begins.
    pub(super) fn part(&self, args: &ConvArgs<'_>, index: usize) -> isize {
        let [column, row] = self.steps(args.filters.group_inputs());
        let Window { kernel, dilation, .. } = args.window;
        let (y, x) = if self.has_whole_rows(args) { (index, 0) } else { (index / kernel[1], index % kernel[1]) };
        (y * dilation[0]) as isize * row + (x * dilation[1]) as isize * column
    }

    /// Where the window of an output begins, counted from the first of its copy or of its image.
    pub(super) fn start(&self, args: &ConvArgs<'_>, output: usize) -> isize {
        let Window { out_size, stride, .. } = args.window;
        match self {
            Layout::Patches => (output * args.filters.depth()) as isize,
            Layout::InPlace { .. } | Layout::Rows { .. } | Layout::Signal => {
                let [column, row] = self.steps(args.filters.group_inputs());
                let (y, x) = (output / out_size[1], output % out_size[1]);
                (y * stride[0]) as isize * row + (x * stride[1]) as isize * column
            }
        }
    }

    /// The first element of the window of output `outputs.start`, after copying what all of `outputs` need
    /// of a group's channels to `copy`.
    ///
    /// # Safety
    ///
    /// The image is valid, `outputs` are whole units, and `copy` is as long as they need.
    pub(super) unsafe fn windows(
        &self,
        isa: &Isa,
        args: &ConvArgs<'_>,
        [image, group]: [usize; 2],
        outputs: Range<usize>,
        copy: &mut [f32],
    ) -> *const f32 {
        let (window, channels) = (&args.window, args.filters.group_inputs());
        let first = group * channels;
        match self {
            Layout::InPlace { .. } => {
                let [y, x] = [outputs.start / window.out_size[1], outputs.start % window.out_size[1]];
                return args.x.at(image, first, (y * window.stride[0]) as isize, (x * window.stride[1]) as isize);
            }
            Layout::Rows { .. } | Layout::Signal => {
                let [y, x] = [outputs.start / window.out_size[1], outputs.start % window.out_size[1]];
                let (top, left) = (window.input(0, y, 0), window.input(1, x, 0));
                let columns = match self {
                    Layout::Rows { columns } => *columns,
                    _ => reach(window, 1, outputs.len()).unwrap_or(0),
                };
                let inside = window.inside(1, left, 1, columns);
                let (before, after) = (inside.start * channels, inside.end * channels);
                for (y, row) in (top..).zip(copy.chunks_exact_mut((columns * channels).max(1))) {
                    if !(0..window.size[0] as isize).contains(&y) || inside.is_empty() {
                        row.fill(0.0);
                        continue;
                    }
                    row[..before].fill(0.0);
                    row[after..].fill(0.0);
                    let src = args.x.at(image, first, y, left + inside.start as isize);
                    // SAFETY: these positions are inside the image.
                    unsafe { copy_positions(isa, &args.x, src, inside.len(), channels, &mut row[before..after]) };
                }
            }
            Layout::Patches => {
                for (output, patch) in outputs.zip(copy.chunks_exact_mut(args.filters.depth().max(1))) {
                    patch.fill(0.0);
                    let at = [output / window.out_size[1], output % window.out_size[1]];
                    let [rows, columns] = [0, 1].map(|axis| window.taps_inside(axis, at[axis]));
                    for (tap_y, tap_x) in rows.flat_map(|y| columns.clone().map(move |x| (y, x))) {
                        let [y, x] = [window.input(0, at[0], tap_y), window.input(1, at[1], tap_x)];
                        let to = &mut patch[(tap_y * window.kernel[1] + tap_x) * channels..][..channels];
                        // SAFETY: the tap is inside the image.
                        unsafe { copy_positions(isa, &args.x, args.x.at(image, first, y, x), 1, channels, to) };
                    }
                }
            }
        }
        copy.as_ptr()
    }
}

/// Whether the output has one row, for which the kernel meets one: bands of it are cut along its length.
fn is_signal(window: &Window) -> bool {
    window.out_size[0] == 1 && window.kernel[0] == 1
}

/// Whether rows with their pads are not out of proportion to the image.
pub(super) fn is_in_proportion(window: &Window) -> bool {
    let most = |axis: usize| window.size[axis].saturating_add(window.out_size[axis]).saturating_mul(MAX_GROWTH);
    let fits = |axis, outputs| reach(window, axis, outputs).is_some_and(|reach| reach <= most(axis));
    fits(0, 1) && fits(1, window.out_size[1])
}

/// Coordinates on `axis` that the windows of `outputs` neighbours reach over.
pub(super) fn reach(window: &Window, axis: usize, outputs: usize) -> Option<usize> {
    let last = window.kernel[axis].checked_sub(1)?.checked_mul(window.dilation[axis])?;
    outputs.checked_sub(1)?.checked_mul(window.stride[axis])?.checked_add(last)?.checked_add(1)
}

/// Copies `channels` of `count` neighbouring positions of an image, the first of which is at `src`, channels
/// last and dense.
///
/// # Safety
///
/// They are readable, and `dst` is as long as they are.
pub(super) unsafe fn copy_positions(
    isa: &Isa,
    x: &Image,
    src: *const f32,
    count: usize,
    channels: usize,
    dst: &mut [f32],
) {
    let lanes = isa.lanes;
    // SAFETY: the caller's promise covers every element read.
    unsafe {
        if x.channel == 1 && (x.column == channels as isize || count == 1) {
            std::ptr::copy_nonoverlapping(src, dst.as_mut_ptr(), count * channels);
        } else if x.channel == 1 {
            for (column, position) in dst.chunks_exact_mut(channels.max(1)).enumerate() {
                let src = src.offset(column as isize * x.column);
                std::ptr::copy_nonoverlapping(src, position.as_mut_ptr(), channels);
            }
        } else if x.column == 1 && channels >= lanes {
            for column in (0..count).step_by(lanes) {
                for channel in (0..channels).step_by(lanes) {
                    let block = [(channels - channel).min(lanes), (count - column).min(lanes)];
                    let src = src.offset(channel as isize * x.channel + column as isize);
                    let to = dst[column * channels + channel..].as_mut_ptr();
                    transpose_part(isa, src, x.channel, block, to, channels as isize, block[0]);
                }
            }
        } else {
            for channel in 0..channels {
                let src = src.offset(channel as isize * x.channel);
                for (column, position) in dst.chunks_exact_mut(channels).enumerate() {
                    position[channel] = *src.offset(column as isize * x.column);
                }
            }
        }
    }
}
