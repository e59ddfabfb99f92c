//! 2-D convolution over NCHW, with 1-D as height 1: an implicit matmul of weights and patches of the
//! image, in one of four forms chosen by its sizes.

mod cut;
mod direct;
mod panels;
mod patches;
mod turned;

use std::ops::Range;

use super::depthwise;
use super::epilogue::{Block, Finish};
use super::scratch::with_scores;
use super::simd::Isa;
use crate::pool::Pool;

/// A convolution.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ConvArgs<'a> {
    /// `[images, in_channels, size]`.
    pub(crate) x: *const f32,
    /// `[out_channels, in_channels / groups, kernel]`.
    pub(crate) w: *const f32,
    /// The same as [`pack_weights`] wrote it for this shape, or null.
    pub(crate) packed: *const f32,
    /// One value per output channel, or null.
    pub(crate) bias: *const f32,
    /// `[images, out_channels, out_size]`.
    pub(crate) y: *mut f32,
    pub(crate) images: usize,
    pub(crate) shape: ConvShape,
    /// What follows: its matrices are the planes of an image, one row per channel, and its last batch axis
    /// the images.
    pub(crate) epilogue: Option<Finish<'a>>,
}

/// The sizes of a convolution of one image.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct ConvShape {
    pub(crate) in_channels: usize,
    pub(crate) out_channels: usize,
    /// Divides both channel counts; at least one.
    pub(crate) groups: usize,
    pub(crate) window: Window,
    /// Whether the sizes of the image are those of every run; weights are packed without them otherwise.
    pub(crate) fixed: bool,
}

impl ConvArgs<'_> {
    /// Applies the epilogue to finished sums: columns of channels of an image, the first of which is at `c`.
    ///
    /// # Safety
    ///
    /// The block is inside the output, and nobody else touches it.
    pub(super) unsafe fn finish(&self, isa: &Isa, image: usize, [rows, columns]: [Range<usize>; 2], c: *mut f32) {
        let Some(epilogue) = &self.epilogue else { return };
        let block = Block { batch: [0, 0, image], rows, columns, c, c_row: self.shape.window.out_plane() as isize };
        // SAFETY: the caller's promise.
        unsafe { epilogue.apply_all(isa, &block) }
    }
}

impl ConvShape {
    fn group_inputs(&self) -> usize {
        self.in_channels / self.groups
    }

    fn group_outputs(&self) -> usize {
        self.out_channels / self.groups
    }

    /// The length of a sum: elements of a patch.
    fn depth(&self) -> usize {
        self.group_inputs() * self.window.taps()
    }

    /// Elements of the weights, if the shape is one: channels in whole groups, and a number that fits.
    pub(crate) fn weights(&self) -> Option<usize> {
        let [height, width] = self.window.kernel;
        let whole = |channels: usize| channels.is_multiple_of(self.groups);
        let inputs = (self.groups > 0 && whole(self.in_channels) && whole(self.out_channels))
            .then(|| self.in_channels / self.groups)?;
        self.out_channels.checked_mul(inputs)?.checked_mul(height)?.checked_mul(width)
    }

    /// The form that computes it on this instruction set.
    fn form(&self, isa: &Isa) -> Form {
        if self.in_channels == self.groups
            && self.out_channels <= self.groups.saturating_mul(depthwise::MAX_MULTIPLE)
            && let Some(padded) = depthwise::Padded::new(self.window, isa.lanes)
        {
            return Form::Depthwise(padded);
        }
        if self.fixed && turned::pays(isa, self) {
            return Form::Turned;
        }
        direct::Layout::new(isa, self).map_or(Form::Panels, Form::Direct)
    }
}

/// How a convolution is computed; it decides speed and the order of packed weights, never a result.
enum Form {
    /// Plane by plane.
    Depthwise(depthwise::Padded),
    /// Weights times vectors of patches, read from a padded copy of the image.
    Direct(direct::Layout),
    /// Weights times vectors of packed patches.
    Panels,
    /// Patches times vectors of weights.
    Turned,
}

/// How a window moves over an image. Pairs are (height, width); sizes of the output are the caller's,
/// so only the pads before the image count, and those after it may differ.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Window {
    pub(crate) size: [usize; 2],
    pub(crate) out_size: [usize; 2],
    pub(crate) kernel: [usize; 2],
    /// At least one.
    pub(crate) stride: [usize; 2],
    /// At least one.
    pub(crate) dilation: [usize; 2],
    /// Rows and columns before the image.
    pub(crate) pad: [usize; 2],
}

impl Window {
    /// Elements of an input plane.
    pub(super) fn plane(&self) -> usize {
        self.size[0] * self.size[1]
    }

    /// Elements of an output plane.
    pub(super) fn out_plane(&self) -> usize {
        self.out_size[0] * self.out_size[1]
    }

    /// Elements of the kernel.
    pub(super) fn taps(&self) -> usize {
        self.kernel[0] * self.kernel[1]
    }

    /// The input coordinate on `axis` that output `out` meets at `tap`; negative in the pad.
    pub(super) fn input(&self, axis: usize, out: usize, tap: usize) -> isize {
        (out * self.stride[axis] + tap * self.dilation[axis]) as isize - self.pad[axis] as isize
    }

    /// Which of `count` steps of `step` from `first` land inside the image on `axis`.
    pub(super) fn inside(&self, axis: usize, first: isize, step: usize, count: usize) -> Range<usize> {
        // A division takes longer than all the rest.
        let rounded = |distance: usize| if step == 1 { distance } else { distance.div_ceil(step) };
        let steps = |distance: isize| rounded(distance.max(0) as usize).min(count);
        let (lo, hi) = (steps(-first), steps(self.size[axis] as isize - first));
        lo.min(hi)..hi
    }

    /// Whether each output meets just the input of the same coordinates.
    fn is_pointwise(&self) -> bool {
        self.kernel == [1, 1] && self.stride == [1, 1] && self.pad == [0, 0] && self.size == self.out_size
    }
}

/// Elements of the packed weights of a convolution, or `None` if it uses them as they are.
pub(crate) fn packed_len(shape: &ConvShape) -> Option<usize> {
    packed_len_for(Isa::get(), shape)
}

fn packed_len_for(isa: &Isa, shape: &ConvShape) -> Option<usize> {
    match shape.form(isa) {
        Form::Depthwise(_) => None,
        Form::Direct(_) | Form::Panels => shape.out_channels.checked_mul(shape.depth()),
        Form::Turned => turned::packed_len(isa, shape),
    }
}

/// Packs the weights of a convolution into `dst`, all of which is written.
///
/// # Safety
///
/// `w` is readable for the weights of `shape`, and `dst` is [`packed_len`] long.
pub(crate) unsafe fn pack_weights(shape: &ConvShape, w: *const f32, dst: &mut [f32]) {
    // SAFETY: the caller's promise.
    unsafe { pack_weights_for(Isa::get(), shape, w, dst) }
}

/// [`pack_weights`] for one instruction set.
///
/// # Safety
///
/// As for [`pack_weights`].
unsafe fn pack_weights_for(isa: &Isa, shape: &ConvShape, w: *const f32, dst: &mut [f32]) {
    // SAFETY: the caller's promise.
    unsafe {
        match shape.form(isa) {
            Form::Depthwise(_) => {}
            Form::Direct(_) | Form::Panels => panels::pack(isa, shape, w, dst),
            Form::Turned => turned::pack(isa, shape, w, dst),
        }
    }
}

/// Computes a convolution.
///
/// # Safety
///
/// The pointers are valid for the shapes in [`ConvArgs`], its stated bounds hold, and the output
/// overlaps nothing that is read.
pub(crate) unsafe fn conv(pool: &Pool, args: &ConvArgs<'_>) {
    // SAFETY: the caller's promise.
    unsafe { conv_for(Isa::get(), pool, args) }
}

/// [`conv`] on one instruction set.
///
/// # Safety
///
/// As for [`conv`].
unsafe fn conv_for(isa: &Isa, pool: &Pool, args: &ConvArgs<'_>) {
    if args.packed.is_null()
        && let Some(len) = packed_len_for(isa, &args.shape)
    {
        return with_scores(len, |packed| {
            // SAFETY: the caller's promise; the scratch is as long as the packed weights.
            unsafe {
                pack_weights_for(isa, &args.shape, args.w, packed);
                run(isa, pool, &ConvArgs { packed: packed.as_ptr(), ..*args });
            }
        });
    }
    // SAFETY: the caller's promise.
    unsafe { run(isa, pool, args) }
}

/// [`conv_for`] with weights in the order of the convolution's form.
///
/// # Safety
///
/// As for [`conv`].
unsafe fn run(isa: &Isa, pool: &Pool, args: &ConvArgs<'_>) {
    // SAFETY: the caller's promise; each group of a depthwise convolution has one input channel.
    unsafe {
        match args.shape.form(isa) {
            Form::Depthwise(padded) => depthwise::run(pool, isa, args, padded),
            Form::Direct(layout) => direct::run(pool, isa, args, layout),
            Form::Panels => panels::run(pool, isa, args),
            Form::Turned => turned::run(pool, isa, args),
        }
    }
}

#[cfg(test)]
mod tests;
