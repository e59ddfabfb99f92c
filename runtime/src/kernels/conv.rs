//! 2-D convolution, with 1-D as height 1. The result has its channels last, so that vectors lie along them:
//! no lane is idle at the end of a row, and an epilogue meets contiguous elements.

mod copy;
mod cut;
mod depthwise;
mod planar;
mod pointwise;
mod windows;

use std::ops::Range;

use super::epilogue::{Block, Finish};
use super::gemm::{MAX_LANES, transpose_part};
use super::image::{Image, Window};
use super::scratch::with_scores;
use super::simd::Isa;
use crate::pool::Pool;

/// A convolution.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ConvArgs<'a> {
    /// `[images, in_channels, size]`, with any strides.
    pub(crate) x: Image,
    /// `[out_channels, in_channels / groups, kernel]`, dense.
    pub(crate) w: *const f32,
    /// The weights as [`pack_weights`] wrote them, or null.
    pub(crate) packed: *const f32,
    /// `[out_channels]`, or null.
    pub(crate) bias: *const f32,
    /// `[images, out_size, out_channels]`, dense.
    pub(crate) y: *mut f32,
    pub(crate) images: usize,
    pub(crate) filters: Filters,
    pub(crate) window: Window,
    /// What follows: its matrices are those of an image, one row per position, a column per channel; its last
    /// batch axis counts images.
    pub(crate) epilogue: Option<Finish<'a>>,
}

/// The sizes of a convolution's weights.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Filters {
    pub(crate) in_channels: usize,
    pub(crate) out_channels: usize,
    pub(crate) groups: usize,
    pub(crate) kernel: [usize; 2],
}

/// How weights are packed.
enum Packing {
    /// Of one filter for each channel: a row of channels for each tap.
    Channels,
    /// As a matrix for each group, in panels of output channels.
    Panels,
}

impl Filters {
    fn group_inputs(&self) -> usize {
        self.in_channels / self.groups
    }

    fn group_outputs(&self) -> usize {
        self.out_channels / self.groups
    }

    fn taps(&self) -> usize {
        self.kernel[0] * self.kernel[1]
    }

    /// The length of an output's sum.
    fn depth(&self) -> usize {
        self.group_inputs() * self.taps()
    }

    /// Elements of the weights; `None` if the groups do not divide the channels, or if there are too many.
    pub(crate) fn len(&self) -> Option<usize> {
        let whole = |channels: usize| channels.is_multiple_of(self.groups);
        let inputs = (self.groups > 0 && whole(self.in_channels) && whole(self.out_channels))
            .then(|| self.in_channels / self.groups)?;
        self.out_channels.checked_mul(inputs)?.checked_mul(self.kernel[0])?.checked_mul(self.kernel[1])
    }

    fn packing(&self) -> Packing {
        match self.groups > 1 && self.in_channels == self.groups && self.out_channels == self.groups {
            true => Packing::Channels,
            false => Packing::Panels,
        }
    }

    /// Elements of the packed weights of a group.
    fn group_len(&self, isa: &Isa) -> Option<usize> {
        self.group_outputs().checked_next_multiple_of(isa.lanes)?.checked_mul(self.depth())
    }

    /// Columns of a panel of packed weights: whole vectors, in the last one as many as there are outputs left.
    fn panel(&self, isa: &Isa, index: usize) -> usize {
        (self.group_outputs() - index * isa.nr()).next_multiple_of(isa.lanes).min(isa.nr())
    }
}

/// Elements of the packed weights, or `None` if there are too many.
pub(crate) fn packed_len(filters: &Filters) -> Option<usize> {
    packed_len_for(Isa::get(), filters)
}

/// [`packed_len`] for one instruction set.
fn packed_len_for(isa: &Isa, filters: &Filters) -> Option<usize> {
    match filters.packing() {
        Packing::Channels => filters.len(),
        Packing::Panels => filters.group_len(isa)?.checked_mul(filters.groups),
    }
}

/// Packs weights in the order in which this CPU's kernels read them: one row for each tap of the kernel and
/// each input channel, in panels of output channels.
///
/// # Safety
///
/// `w` is readable for the weights of `filters`.
///
/// # Panics
///
/// If `dst` is not exactly [`packed_len`] long.
pub(crate) unsafe fn pack_weights(filters: &Filters, w: *const f32, dst: &mut [f32]) {
    // SAFETY: the caller's promise.
    unsafe { pack_weights_for(Isa::get(), filters, w, dst) }
}

/// [`pack_weights`] for one instruction set.
///
/// # Safety
///
/// As for [`pack_weights`].
unsafe fn pack_weights_for(isa: &Isa, filters: &Filters, w: *const f32, dst: &mut [f32]) {
    assert_eq!(Some(dst.len()), packed_len_for(isa, filters));
    if dst.is_empty() {
        return;
    }
    match filters.packing() {
        // SAFETY: the weights are channels × taps.
        Packing::Channels => unsafe { pack_panel(isa, filters, w, filters.out_channels, filters.out_channels, dst) },
        Packing::Panels => {
            let (depth, outputs, nr) = (filters.depth(), filters.group_outputs(), isa.nr());
            for (group, part) in dst.chunks_exact_mut(filters.group_len(isa).unwrap_or(0)).enumerate() {
                for (panel, dst) in part.chunks_mut(depth * nr).enumerate() {
                    let first = w.wrapping_add((group * outputs + panel * nr) * depth);
                    let (columns, width) = ((outputs - panel * nr).min(nr), filters.panel(isa, panel));
                    // SAFETY: the panel's weights are those of `columns` outputs.
                    unsafe { pack_panel(isa, filters, first, columns, width, dst) };
                }
            }
        }
    }
}

/// Packs the weights of `columns` outputs into rows of `width`, a row for each tap and of each tap one for
/// each input channel, zeros in the columns beyond.
///
/// # Safety
///
/// `w` is readable for the weights of `columns` outputs.
unsafe fn pack_panel(isa: &Isa, filters: &Filters, w: *const f32, columns: usize, width: usize, dst: &mut [f32]) {
    let (depth, taps, inputs, lanes) = (filters.depth(), filters.taps(), filters.group_inputs(), isa.lanes);
    let mut block = [0.0; MAX_LANES * MAX_LANES];
    for column in (0..width).step_by(lanes) {
        let (filled, room) = (columns.saturating_sub(column).min(lanes), (width - column).min(lanes));
        for k in (0..depth).step_by(lanes) {
            let ks = (depth - k).min(lanes);
            let src = w.wrapping_add(column * depth + k);
            // SAFETY: `filled` outputs have weights from `k` on, and the block is `lanes` × `lanes`.
            unsafe {
                let to = block.as_mut_ptr();
                transpose_part(isa, src, depth as isize, [filled, ks], to, lanes as isize, lanes);
            }
            for (k, row) in (k..k + ks).zip(block.chunks_exact(lanes)) {
                let row_of_tap = k % taps * inputs + k / taps;
                dst[row_of_tap * width + column..][..room].copy_from_slice(&row[..room]);
            }
        }
    }
}

/// Computes a convolution.
///
/// # Safety
///
/// The pointers are valid for the sizes in [`ConvArgs`], `groups` divides both channel counts, the bounds of
/// [`Window`] hold, the epilogue's operands are readable wherever the output is, and the output overlaps
/// nothing that is read.
pub(crate) unsafe fn conv(pool: &Pool, args: &ConvArgs<'_>) {
    // SAFETY: the caller's promise.
    unsafe { conv_for(Isa::get(), pool, args) }
}

/// [`conv`] on one instruction set.
///
/// # Safety
///
/// As for [`conv`], with weights that are packed for this set if at all.
unsafe fn conv_for(isa: &Isa, pool: &Pool, args: &ConvArgs<'_>) {
    if args.packed.is_null()
        && let Some(len) = packed_len_for(isa, &args.filters)
    {
        return with_scores(len, |packed| {
            // SAFETY: the caller's promise; the scratch is as long as the packed weights.
            unsafe {
                pack_weights_for(isa, &args.filters, args.w, packed);
                run(isa, pool, &ConvArgs { packed: packed.as_ptr(), ..*args });
            }
        });
    }
    // SAFETY: the caller's promise.
    unsafe { run(isa, pool, args) }
}

/// Computes a convolution in the form that is the fastest for its sizes.
///
/// # Safety
///
/// As for [`conv`], with packed weights.
unsafe fn run(isa: &Isa, pool: &Pool, args: &ConvArgs<'_>) {
    if args.images == 0 || args.window.out_plane() == 0 || args.filters.out_channels == 0 {
        return;
    }
    // SAFETY: the caller's promise.
    unsafe {
        match args.filters.packing() {
            Packing::Channels => depthwise::run(pool, isa, args),
            Packing::Panels => match planar::Planes::new(isa, args) {
                Some(planes) => planar::run(pool, isa, args, planes),
                None if args.positions().is_some() => pointwise::run(pool, isa, args),
                None => windows::run(pool, isa, args),
            },
        }
    }
}

impl ConvArgs<'_> {
    /// Elements from one position of the image to the next, if the windows are the positions of the input.
    fn positions(&self) -> Option<isize> {
        let uniform = self.window.size[0] == 1 || self.x.row == self.window.size[1] as isize * self.x.column;
        (self.window.is_pointwise() && uniform).then_some(self.x.column)
    }

    /// Where the output has a position of an image.
    fn output(&self, image: usize, position: usize) -> *mut f32 {
        self.y.wrapping_add((image * self.window.out_plane() + position) * self.filters.out_channels)
    }

    /// The channels `columns` of the positions `rows` of the output.
    fn block(&self, image: usize, [rows, columns]: [Range<usize>; 2]) -> Block {
        let c = self.output(image, rows.start).wrapping_add(columns.start);
        Block { batch: [0, 0, image], rows, columns, c, c_row: self.filters.out_channels as isize }
    }

    /// Applies the epilogue to the channels `columns` of the positions `rows`, unless links did.
    ///
    /// # Safety
    ///
    /// They are inside the output, and nobody else touches them.
    unsafe fn finish(&self, isa: &Isa, image: usize, part: [Range<usize>; 2]) {
        if let Some(epilogue) = &self.epilogue {
            // SAFETY: the caller's promise.
            unsafe { epilogue.apply(isa, &self.block(image, part)) }
        }
    }

    /// [`ConvArgs::finish`] where no links were applied.
    ///
    /// # Safety
    ///
    /// As for [`ConvArgs::finish`].
    unsafe fn finish_all(&self, isa: &Isa, image: usize, part: [Range<usize>; 2]) {
        if let Some(epilogue) = &self.epilogue {
            // SAFETY: the caller's promise.
            unsafe { epilogue.apply_all(isa, &self.block(image, part)) }
        }
    }
}

#[cfg(test)]
mod tests;
