//! A kernel of one tap: the product of an image's positions by the weights.

use std::ops::Range;

use super::ConvArgs;
use crate::kernels::epilogue::Links;
use crate::kernels::gemm::{self, Operands, Problem, Shape, Slice};
use crate::kernels::simd::Isa;
use crate::kernels::{Bias, Strided};
use crate::pool::Pool;

/// Computes a convolution whose windows are the positions of its input.
///
/// # Safety
///
/// As for [`super::conv`], with packed weights.
pub(super) unsafe fn run(pool: &Pool, isa: &Isa, args: &ConvArgs<'_>) {
    let filters = &args.filters;
    let (Some(position), Some(group_len)) = (args.positions(), filters.group_len(isa)) else { return };
    let shape = Shape {
        batches: args.images * filters.groups,
        m: args.window.out_plane(),
        k: filters.group_inputs(),
        n: filters.group_outputs(),
    };
    // SAFETY: the caller's promise.
    unsafe { gemm::run(pool, isa, shape, &Pointwise { args, position, group_len }) }
}

/// One product for each image and group.
struct Pointwise<'a> {
    args: &'a ConvArgs<'a>,
    /// Elements from one position to the next.
    position: isize,
    /// Elements of a group's packed weights.
    group_len: usize,
}

// SAFETY: threads write disjoint parts of the output and only read the rest, which is valid meanwhile.
unsafe impl Sync for Pointwise<'_> {}

impl Pointwise<'_> {
    /// The image and group of a product, and the group's first output channel.
    fn of(&self, batch: usize) -> [usize; 3] {
        let filters = &self.args.filters;
        let (image, group) = (batch / filters.groups, batch % filters.groups);
        [image, group, group * filters.group_outputs()]
    }
}

impl Problem for Pointwise<'_> {
    const PACKS: bool = false;

    fn operands(&self, batch: usize) -> Operands {
        let (args, [image, group, channel]) = (self.args, self.of(batch));
        let ptr = args.x.at(image, group * args.filters.group_inputs(), 0, 0);
        Operands {
            a: Strided { ptr, row: self.position, column: args.x.channel },
            c: args.output(image, 0).wrapping_add(channel),
            c_row: args.filters.out_channels as isize,
            scale: 1.0,
            bias: Bias::per_column(args.bias).at(channel),
            links: args.epilogue.map_or(Links::NONE, |e| e.links([0, 0, image]).at(0, channel)),
        }
    }

    unsafe fn slice(&self, isa: &Isa, slice: &Slice, _scratch: &mut [f32]) -> (*const f32, isize) {
        let (nr, [_, group, _]) = (isa.nr(), self.of(slice.batch));
        let (panel, column) = (slice.columns.start / nr, slice.columns.start % nr);
        let filters = &self.args.filters;
        let width = filters.panel(isa, panel);
        let offset = panel * filters.group_inputs() * nr + slice.ks.start * width + column;
        (self.args.packed.wrapping_add(group * self.group_len + offset), width as isize)
    }

    unsafe fn finish(&self, isa: &Isa, batch: usize, [rows, columns]: [Range<usize>; 2], _c: *mut f32) {
        let [image, _, channel] = self.of(batch);
        // SAFETY: the caller's promise.
        unsafe { self.args.finish(isa, image, [rows, channel + columns.start..channel + columns.end]) }
    }
}
