//! Kernels that slide windows over images whose channels are last: depthwise convolution and poolings.

use super::{Add, Clip, Join, Lanes, Link, Max, Min, Pair};

/// Neighbouring outputs of all channels, as many as the kernel's instance says: output `i` is made of
/// `src[i·src_step + row·src_row + column·src_column + channel]` over rows, then columns of taps.
#[derive(Clone, Copy)]
pub(in crate::kernels) struct Stretch<'a> {
    pub(in crate::kernels) src: *const f32,
    pub(in crate::kernels) src_step: isize,
    pub(in crate::kernels) src_row: isize,
    pub(in crate::kernels) src_column: isize,
    /// Rows and columns of taps.
    pub(in crate::kernels) taps: [usize; 2],
    /// Of a convolution: `channels` for every tap, rows of taps `weights_row` apart.
    pub(in crate::kernels) weights: *const f32,
    pub(in crate::kernels) weights_row: usize,
    /// Dense.
    pub(in crate::kernels) dst: *mut f32,
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

    /// The outputs of the sums of output `i` for the channels from `channel` on.
    ///
    /// # Safety
    ///
    /// The instruction set of `V`; bias and links are readable for `len` channels.
    #[inline(always)]
    unsafe fn of<V: Lanes>(&self, mut sum: V, i: usize, channel: usize, len: usize) -> V {
        // SAFETY: the caller's promise.
        unsafe {
            if let Some(divisor) = self.divisor {
                sum = sum.div(V::splat(divisor));
            }
            if !self.bias.is_null() {
                sum = sum.add(V::load_part(self.bias.add(channel), len));
            }
            for link in self.links {
                let other = link.other.at(self.position + i, channel);
                let other = match other.column {
                    0 => V::splat(*other.ptr),
                    _ => V::load_part(other.ptr, len),
                };
                sum = match link.join {
                    Join::Add => Add::of(sum, other),
                    Join::Max => Max::of(sum, other),
                    Join::Min => Min::of(sum, other),
                };
            }
            match self.clip {
                Some(clip) => sum.clip(V::splat(clip.lo), V::splat(clip.hi)),
                None => sum,
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

/// Computes `N` neighbouring outputs, each a chain over the taps in order.
///
/// # Safety
///
/// The instruction set of `V`; every tap of every output is readable for all channels, and so are its weights,
/// the bias and the links; the outputs are writable.
#[inline(always)]
pub(super) unsafe fn stretch<V: Lanes, F: Fold, const N: usize>(s: &Stretch<'_>) {
    for channel in (0..s.channels).step_by(V::LEN) {
        // SAFETY: the caller's promise; the channels are those from `channel` on.
        unsafe {
            match s.channels - channel {
                len if len < V::LEN => channels::<V, F, N, false>(s, channel, len),
                _ => channels::<V, F, N, true>(s, channel, V::LEN),
            }
        }
    }
}

/// Computes `len` channels, at most a vector, and a whole one if `WHOLE`.
///
/// # Safety
///
/// As for [`stretch`], for these channels.
#[inline(always)]
unsafe fn channels<V: Lanes, F: Fold, const N: usize, const WHOLE: bool>(s: &Stretch<'_>, channel: usize, len: usize) {
    // SAFETY: the caller's promise covers every address formed here.
    unsafe {
        let load = |src: *const f32| if WHOLE { V::load(src) } else { V::load_part(src, len) };
        let mut acc = [V::splat(F::START); N];
        for row in 0..s.taps[0] {
            let mut src = s.src.wrapping_offset(row as isize * s.src_row).wrapping_add(channel);
            let mut weights = s.weights.wrapping_add(row * s.weights_row + channel);
            for _ in 0..s.taps[1] {
                let weight = if F::WEIGHTED { load(weights) } else { V::zero() };
                for (i, sum) in acc.iter_mut().enumerate() {
                    *sum = F::step(weight, load(src.wrapping_offset(i as isize * s.src_step)), *sum);
                }
                src = src.wrapping_offset(s.src_column);
                weights = weights.wrapping_add(s.channels);
            }
        }
        for (i, &sum) in acc.iter().enumerate() {
            s.end.of(sum, i, channel, len).store_part(s.dst.add(i * s.channels + channel), len);
        }
    }
}
