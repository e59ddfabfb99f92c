//! The product turned around, for images smaller than a few vectors: vectors lie along the output
//! channels, rows are the image's positions, so no lane computes for nothing. Its result is transposed.

use std::ops::Range;

use super::patches::Patches;
use super::{ConvArgs, ConvShape};
use crate::kernels::gemm::transpose_part;
use crate::kernels::matmul::{self, MatMulArgs};
use crate::kernels::scratch::with_scores;
use crate::kernels::simd::Isa;
use crate::kernels::{Bias, Strided};
use crate::pool::Pool;

/// The shortest sums for which turning the result costs less than the lanes that it saves.
const MIN_DEPTH: usize = 128;

/// Rows of patches that are packed at a time, so that they stay in the first-level cache meanwhile.
const NEAR: usize = 72;

/// Elements below which moving them is not worth another thread.
const GRAIN: usize = 1 << 14;

/// Steps of a sum, in idle lanes, that turning an element of the result and its epilogue back takes.
const TURN: usize = 20;

/// Whether this form is the faster one: because of the lanes along the image that would be idle, at least an
/// eighth of them if patches have to be packed.
pub(super) fn pays(isa: &Isa, shape: &ConvShape) -> bool {
    let (plane, depth) = (shape.window.out_plane(), shape.depth());
    let idle = plane.wrapping_neg() % isa.lanes;
    let saves = match shape.window.is_pointwise() {
        true => idle.saturating_mul(depth) >= plane.saturating_mul(TURN),
        false => idle * 8 >= plane,
    };
    plane > 0 && saves && depth >= MIN_DEPTH && shape.group_outputs() >= isa.nr()
}

/// Elements of a group's packed weights.
fn group_len(isa: &Isa, shape: &ConvShape) -> Option<usize> {
    shape.group_outputs().checked_next_multiple_of(isa.nr())?.checked_mul(shape.depth())
}

/// Elements of the packed weights.
pub(super) fn packed_len(isa: &Isa, shape: &ConvShape) -> Option<usize> {
    group_len(isa, shape)?.checked_mul(shape.groups)
}

/// Packs the weights as one matrix per group, a column per output channel.
///
/// # Safety
///
/// `w` is readable for the weights of `shape`, and `dst` is [`packed_len`] long.
pub(super) unsafe fn pack(isa: &Isa, shape: &ConvShape, w: *const f32, dst: &mut [f32]) {
    let (depth, outputs) = (shape.depth(), shape.group_outputs());
    for (group, part) in dst.chunks_exact_mut(dst.len() / shape.groups).enumerate() {
        let ptr = w.wrapping_add(group * outputs * depth);
        let src = Strided { ptr, row: 1, column: depth as isize };
        // SAFETY: the group's weights are depth × outputs.
        unsafe { matmul::pack_b_for(isa, src, depth, outputs, part) };
    }
}

/// Computes a convolution with packed weights, one image of one group after another.
///
/// # Safety
///
/// As for [`super::conv`], with `packed` not null.
pub(super) unsafe fn run(pool: &Pool, isa: &Isa, args: &ConvArgs<'_>) {
    let shape = &args.shape;
    let (depth, outputs, plane) = (shape.depth(), shape.group_outputs(), shape.window.out_plane());
    let row = plane.next_multiple_of(isa.lanes);
    let group_len = group_len(isa, shape).unwrap_or(0);
    with_scores(depth * row + plane * outputs, |scratch| {
        let (rows, result) = scratch.split_at_mut(depth * row);
        for product in 0..shape.groups * args.images {
            let (group, image) = (product / args.images, product % args.images);
            let channel = group * outputs;
            let patches = Patches::new(isa, args, image, group);
            let turn = Turn { isa, patches, rows: rows.as_mut_ptr(), row, plane, result: result.as_mut_ptr(), outputs };
            let product = MatMulArgs {
                // SAFETY: the scratch holds the patches.
                a: unsafe { turn.positions(pool, depth) },
                b: args.packed.wrapping_add(group * group_len),
                c: turn.result,
                c_row: outputs as isize,
                m: plane,
                k: depth,
                n: outputs,
                scale: 1.0,
                bias: if args.bias.is_null() { Bias::None } else { Bias::PerColumn(args.bias) }.at(0, channel),
                epilogue: None,
            };
            let y = args.y.wrapping_add((image * shape.out_channels + channel) * plane);
            // SAFETY: the operands are valid by the caller's promise and as the scratch was cut.
            unsafe {
                matmul::matmul_for(isa, pool, &product);
                turn.back(pool, y);
                args.finish(isa, image, [channel..channel + outputs, 0..plane], y);
            }
        }
    });
}

/// One image of one group: its patches, and where they and the result stand in scratch memory.
struct Turn<'a> {
    isa: &'a Isa,
    patches: Patches<'a>,
    /// The patches' matrix, in rows of `row`.
    rows: *mut f32,
    row: usize,
    /// Positions of the image.
    plane: usize,
    /// The product: one row of `outputs` channels for each position.
    result: *mut f32,
    outputs: usize,
}

// SAFETY: threads write disjoint rows of the patches or of the output, and only read the rest.
unsafe impl Sync for Turn<'_> {}

impl Turn<'_> {
    /// The patches with one row for each position, packed if they do not lie like that in the image.
    ///
    /// # Safety
    ///
    /// `rows` holds `depth` rows, and the image is valid.
    unsafe fn positions(&self, pool: &Pool, depth: usize) -> Strided {
        if let Some(planes) = self.patches.in_place() {
            return Strided { ptr: planes.ptr, row: 1, column: planes.row };
        }
        pool.run(depth, GRAIN.div_ceil(self.row), &|ks: Range<usize>| {
            for start in ks.clone().step_by(NEAR) {
                let ks = start..ks.end.min(start + NEAR);
                // SAFETY: these rows of the patches are this range's alone.
                unsafe {
                    let rows = self.rows.add(ks.start * self.row);
                    let rows = std::slice::from_raw_parts_mut(rows, ks.len() * self.row);
                    self.patches.pack(ks, 0..self.plane, rows, self.row);
                }
            }
        });
        Strided { ptr: self.rows, row: 1, column: self.row as isize }
    }

    /// Writes the transpose of the result to `y`, a plane for each channel.
    ///
    /// # Safety
    ///
    /// `y` is writable for all channels.
    unsafe fn back(&self, pool: &Pool, y: *mut f32) {
        let lanes = self.isa.lanes;
        let y = Output(y);
        let blocks = self.outputs.div_ceil(lanes);
        pool.run(blocks, GRAIN.div_ceil(lanes * self.plane), &|blocks| {
            for channel in blocks.map(|block| block * lanes) {
                for position in (0..self.plane).step_by(lanes) {
                    // SAFETY: the block starts inside the result, and its channels are this range's alone.
                    unsafe { self.block(channel, position, y.at(channel * self.plane + position)) };
                }
            }
        });
    }

    /// Transposes the block of at most `lanes` × `lanes` of the result at a channel and a position.
    ///
    /// # Safety
    ///
    /// Both are inside the result, and `dst` is writable for the block, channels a plane apart.
    unsafe fn block(&self, channel: usize, position: usize, dst: *mut f32) {
        let lanes = self.isa.lanes;
        let (channels, positions) = ((self.outputs - channel).min(lanes), (self.plane - position).min(lanes));
        // SAFETY: the block is inside the result and the output.
        unsafe {
            let src = self.result.add(position * self.outputs + channel).cast_const();
            let (row, plane) = (self.outputs as isize, self.plane as isize);
            transpose_part(self.isa, src, row, [positions, channels], dst, plane, positions);
        }
    }
}

/// The output, as the threads share it.
#[derive(Clone, Copy)]
struct Output(*mut f32);

// SAFETY: threads write disjoint channels.
unsafe impl Sync for Output {}

impl Output {
    fn at(&self, offset: usize) -> *mut f32 {
        self.0.wrapping_add(offset)
    }
}
