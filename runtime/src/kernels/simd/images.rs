//! Kernels that slide windows over images whose channels are last: depthwise convolution and poolings.

use std::ops::Range;

use super::{Add, Clip, Join, Lanes, Link, Max, Min, Pair};

/// What neighbouring outputs are made of: output `i` of
/// `ptr[i·step + row·self.row + column·self.column + channel]` over rows, then columns of taps.
#[derive(Clone, Copy)]
pub(in crate::kernels) struct Reach {
    pub(in crate::kernels) ptr: *const f32,
    pub(in crate::kernels) step: isize,
    pub(in crate::kernels) row: isize,
    pub(in crate::kernels) column: isize,
    /// Rows and columns of taps.
    pub(in crate::kernels) taps: [usize; 2],
}

impl Reach {
    /// Where a row of the window of output `first` begins.
    #[inline(always)]
    fn row(&self, first: usize, row: usize, channel: usize) -> *const f32 {
        let start = first as isize * self.step + row as isize * self.row;
        self.ptr.wrapping_offset(start).wrapping_add(channel)
    }
}

/// Neighbouring outputs of all channels.
#[derive(Clone, Copy)]
pub(in crate::kernels) struct Stretch<'a> {
    pub(in crate::kernels) src: Reach,
    /// Of a convolution: `channels` for every tap, rows of taps `weights_row` apart.
    pub(in crate::kernels) weights: *const f32,
    pub(in crate::kernels) weights_row: usize,
    /// Dense.
    pub(in crate::kernels) dst: *mut f32,
    pub(in crate::kernels) outputs: usize,
    pub(in crate::kernels) channels: usize,
    pub(in crate::kernels) end: End<'a>,
}

/// What follows the sums.
#[derive(Clone, Copy)]
pub(in crate::kernels) struct End<'a> {
    /// One per channel, or null.
    pub(in crate::kernels) bias: *const f32,
    /// What the sums are divided by.
    pub(in crate::kernels) divisor: Option<f32>,
    /// A row for each position, a column for each channel.
    pub(in crate::kernels) links: &'a [Link],
    /// The position of the first output.
    pub(in crate::kernels) position: usize,
    pub(in crate::kernels) clip: Option<Clip>,
}

impl End<'_> {
    /// Nothing follows.
    pub(in crate::kernels) const NONE: End<'static> =
        End { bias: std::ptr::null(), divisor: None, links: &[], position: 0, clip: None };

    /// Makes outputs of the sums of the channels from `channel` on, the first of which is output `first`.
    ///
    /// # Safety
    ///
    /// The instruction set of `V`; bias and links are readable for `len` channels.
    #[inline(always)]
    unsafe fn apply<V: Lanes, const N: usize>(&self, sums: &mut [V; N], first: usize, channel: usize, len: usize) {
        // SAFETY: the caller's promise.
        unsafe {
            if let Some(divisor) = self.divisor {
                let divisor = V::splat(divisor);
                sums.iter_mut().for_each(|sum| *sum = sum.div(divisor));
            }
            if !self.bias.is_null() {
                let bias = V::load_part(self.bias.add(channel), len);
                sums.iter_mut().for_each(|sum| *sum = sum.add(bias));
            }
            for link in self.links {
                for (i, sum) in sums.iter_mut().enumerate() {
                    let other = link.other.at(self.position + first + i, channel);
                    let other = match other.column {
                        0 => V::splat(*other.ptr),
                        _ => V::load_part(other.ptr, len),
                    };
                    *sum = match link.join {
                        Join::Add => Add::of(*sum, other),
                        Join::Max => Max::of(*sum, other),
                        Join::Min => Min::of(*sum, other),
                    };
                }
            }
            if let Some(clip) = self.clip {
                let (lo, hi) = (V::splat(clip.lo), V::splat(clip.hi));
                sums.iter_mut().for_each(|sum| *sum = sum.clip(lo, hi));
            }
        }
    }
}

/// What a window's elements become.
pub(super) trait Fold {
    /// Whether each tap has a weight.
    const WEIGHTED: bool;
    /// What an empty window gives.
    const START: f32;

    /// # Safety
    ///
    /// The instruction set of `V`.
    unsafe fn step<V: Lanes>(weight: V, value: V, acc: V) -> V;
}

/// The sum of the products with the weights.
pub(super) struct Weighted;
/// The sum.
pub(super) struct Sum;
/// The greatest element that is a number.
pub(super) struct Greatest;

impl Fold for Weighted {
    const WEIGHTED: bool = true;
    const START: f32 = 0.0;

    #[inline(always)]
    unsafe fn step<V: Lanes>(weight: V, value: V, acc: V) -> V {
        // SAFETY: the caller's promise.
        unsafe { weight.fma(value, acc) }
    }
}

impl Fold for Sum {
    const WEIGHTED: bool = false;
    const START: f32 = 0.0;

    #[inline(always)]
    unsafe fn step<V: Lanes>(_: V, value: V, acc: V) -> V {
        // SAFETY: the caller's promise.
        unsafe { acc.add(value) }
    }
}

impl Fold for Greatest {
    const WEIGHTED: bool = false;
    const START: f32 = f32::NEG_INFINITY;

    #[inline(always)]
    unsafe fn step<V: Lanes>(_: V, value: V, acc: V) -> V {
        // SAFETY: the caller's promise.
        unsafe { value.max(acc) }
    }
}

/// The most outputs whose sums are in registers together.
const BLOCK: usize = 8;

/// Computes the outputs, each a chain over the taps in order.
///
/// # Safety
///
/// The instruction set of `V`; every tap of every output is readable for all channels, and so are its weights,
/// the bias and the links; the outputs are writable.
#[inline(always)]
pub(super) unsafe fn stretch<V: Lanes, F: Fold>(s: &Stretch<'_>) {
    let mut first = 0;
    while first < s.outputs {
        let left = s.outputs - first;
        let block = left.div_ceil(left.div_ceil(BLOCK));
        // SAFETY: the caller's promise; the block's outputs are among those of the stretch.
        unsafe {
            match block {
                1 => outputs::<V, F, 1>(s, first),
                2 => outputs::<V, F, 2>(s, first),
                3 => outputs::<V, F, 3>(s, first),
                4 => outputs::<V, F, 4>(s, first),
                5 => outputs::<V, F, 5>(s, first),
                6 => outputs::<V, F, 6>(s, first),
                7 => outputs::<V, F, 7>(s, first),
                _ => outputs::<V, F, BLOCK>(s, first),
            }
        }
        first += block;
    }
}

/// Computes `N` outputs from `first` on.
///
/// # Safety
///
/// As for [`stretch`], for these outputs.
#[inline(always)]
unsafe fn outputs<V: Lanes, F: Fold, const N: usize>(s: &Stretch<'_>, first: usize) {
    let whole = s.channels / V::LEN * V::LEN;
    let steps = if F::WEIGHTED && s.src.taps[1] == 3 { s.src.step.checked_div(s.src.column) } else { None };
    // SAFETY: the caller's promise; the channels are those from `channel` on.
    unsafe {
        match steps {
            Some(1) if s.src.step == s.src.column => {
                for_each::<V>(0..whole, |channel| {
                    finish(s, [first, channel], V::LEN, shared::<V, N, 1>(s, first, channel))
                });
            }
            Some(2) if s.src.step == 2 * s.src.column => {
                for_each::<V>(0..whole, |channel| {
                    finish(s, [first, channel], V::LEN, shared::<V, N, 2>(s, first, channel))
                });
            }
            _ => for_each::<V>(0..whole, |channel| {
                let sums = sums::<V, F, N>(s, first, channel, |src| V::load(src));
                finish(s, [first, channel], V::LEN, sums);
            }),
        }
        if whole < s.channels {
            let len = s.channels - whole;
            let sums = sums::<V, F, N>(s, first, whole, |src| V::load_part(src, len));
            finish(s, [first, whole], len, sums);
        }
    }
}

/// Calls `f` with the first channel of every vector.
#[inline(always)]
fn for_each<V: Lanes>(channels: Range<usize>, mut f: impl FnMut(usize)) {
    let mut channel = channels.start;
    while channel < channels.end {
        f(channel);
        channel += V::LEN;
    }
}

/// The sums of `N` outputs for the channels that `load` loads.
///
/// # Safety
///
/// As for [`outputs`], for these channels.
#[inline(always)]
unsafe fn sums<V: Lanes, F: Fold, const N: usize>(
    s: &Stretch<'_>,
    first: usize,
    channel: usize,
    load: impl Fn(*const f32) -> V,
) -> [V; N] {
    // SAFETY: the caller's promise covers every address formed here.
    unsafe {
        let mut acc = [V::splat(F::START); N];
        for row in 0..s.src.taps[0] {
            let src = s.src.row(first, row, channel);
            // Three of three outputs each are a base and an offset that all bases share. Opaque, or the
            // compiler makes each address from the one before: a chain as long as the step.
            let bases: [*const f32; 3] =
                std::array::from_fn(|i| std::hint::black_box(src.wrapping_offset(3 * i as isize * s.src.step)));
            let mut offsets: [isize; 3] = std::array::from_fn(|i| i as isize * s.src.step);
            let mut weights = s.weights.wrapping_add(row * s.weights_row + channel);
            for _ in 0..s.src.taps[1] {
                let weight = if F::WEIGHTED { load(weights) } else { V::zero() };
                for (i, sum) in acc.iter_mut().enumerate() {
                    *sum = F::step(weight, load(bases[i / 3].wrapping_offset(offsets[i % 3])), *sum);
                }
                offsets.iter_mut().for_each(|offset| *offset += s.src.column);
                weights = weights.wrapping_add(s.channels);
            }
        }
        acc
    }
}

/// The weighted sums of `N` outputs whose windows are three columns wide and `STEP` columns apart, for a vector
/// of channels: what neighbouring windows share is loaded once.
///
/// # Safety
///
/// As for [`outputs`], for these channels.
#[inline(always)]
unsafe fn shared<V: Lanes, const N: usize, const STEP: usize>(s: &Stretch<'_>, first: usize, channel: usize) -> [V; N] {
    // SAFETY: the caller's promise covers every address formed here.
    unsafe {
        let mut acc = [V::zero(); N];
        for row in 0..s.src.taps[0] {
            let mut src = s.src.row(first, row, channel);
            let weights = s.weights.wrapping_add(row * s.weights_row + channel);
            let weights: [V; 3] = std::array::from_fn(|tap| V::load(weights.wrapping_add(tap * s.channels)));
            for column in 0..(N - 1) * STEP + 3 {
                let value = V::load(src);
                for (i, sum) in acc.iter_mut().enumerate() {
                    if let Some(weight) = column.checked_sub(i * STEP).and_then(|tap| weights.get(tap)) {
                        *sum = weight.fma(value, *sum);
                    }
                }
                src = src.wrapping_offset(s.src.column);
            }
        }
        acc
    }
}

/// Stores what the sums of `len` channels become.
///
/// # Safety
///
/// As for [`outputs`], for these channels.
#[inline(always)]
unsafe fn finish<V: Lanes, const N: usize>(
    s: &Stretch<'_>,
    [first, channel]: [usize; 2],
    len: usize,
    mut sums: [V; N],
) {
    // SAFETY: the caller's promise.
    unsafe {
        s.end.apply(&mut sums, first, channel, len);
        for (i, sum) in sums.into_iter().enumerate() {
            sum.store_part(s.dst.add((first + i) * s.channels + channel), len);
        }
    }
}
