//! Strided views with the dims they show: how reshapes, transposes, slices and broadcasts become
//! addressing instead of copies.

use std::ops::Range;

use eec_ir::program::View;
use eec_ir::{BufferId, Dim};

/// A strided view of a buffer together with its dims.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Shown {
    /// What is shown.
    pub(super) view: View,
    /// Its dims; one stride each.
    pub(super) dims: Vec<Dim>,
}

/// Row-major strides.
pub(super) fn dense_strides(dims: &[Dim]) -> Vec<Dim> {
    let mut strides = vec![Dim::from(1); dims.len()];
    for i in (0..dims.len().saturating_sub(1)).rev() {
        strides[i] = &strides[i + 1] * &dims[i + 1];
    }
    strides
}

fn is_one(d: &Dim) -> bool {
    d.as_const() == Some(1)
}

impl Shown {
    /// A whole buffer in row-major order.
    pub(super) fn dense(buffer: BufferId, dims: &[Dim]) -> Self {
        Shown { view: View { buffer, offset: Dim::from(0), strides: dense_strides(dims) }, dims: dims.to_vec() }
    }

    /// A whole buffer in the order of `axes`, from the outermost to the innermost.
    pub(super) fn along(buffer: BufferId, dims: &[Dim], axes: &[usize]) -> Self {
        let ordered: Vec<Dim> = axes.iter().map(|a| dims[*a].clone()).collect();
        let mut place = Shown::dense(buffer, dims);
        for (axis, stride) in axes.iter().zip(dense_strides(&ordered)) {
            place.view.strides[*axis] = stride;
        }
        place
    }

    /// Whether the elements lie in row-major order without gaps.
    fn is_packed(&self) -> bool {
        self.has_strides(&dense_strides(&self.dims))
    }

    /// Whether neighbours are so far from each other, along axes that have any.
    fn has_strides(&self, strides: &[Dim]) -> bool {
        self.dims.iter().zip(self.view.strides.iter().zip(strides)).all(|(d, (have, want))| is_one(d) || have == want)
    }

    /// Whether both views, of the same dims, show the same elements of the same buffer.
    pub(super) fn is_same(&self, other: &Shown) -> bool {
        let begins = self.view.buffer == other.view.buffer && self.view.offset == other.view.offset;
        begins && self.has_strides(&other.view.strides)
    }

    /// Whether the view is row-major from the buffer's first element on.
    pub(super) fn is_dense(&self) -> bool {
        self.view.offset.as_const() == Some(0) && self.is_packed()
    }

    /// The strides with which the elements are read over `dims`, to which the view broadcasts.
    pub(super) fn strides_over(&self, dims: &[Dim]) -> Vec<Dim> {
        let skipped = dims.len() - self.dims.len();
        let own = self.dims.iter().zip(&self.view.strides).zip(&dims[skipped..]);
        let repeat = |((have, stride), want): ((&Dim, &Dim), &Dim)| {
            if is_one(have) && !is_one(want) { Dim::from(0) } else { stride.clone() }
        };
        std::iter::repeat_n(Dim::from(0), skipped).chain(own.map(repeat)).collect()
    }

    /// The view broadcast to `dims`.
    pub(super) fn expanded(&self, dims: &[Dim]) -> Self {
        let strides = self.strides_over(dims);
        Shown { view: View { strides, ..self.view.clone() }, dims: dims.to_vec() }
    }

    /// The view with axes permuted.
    pub(super) fn transposed(&self, perm: &[usize]) -> Self {
        let strides = perm.iter().map(|p| self.view.strides[*p].clone()).collect();
        Shown {
            view: View { strides, ..self.view.clone() },
            dims: perm.iter().map(|p| self.dims[*p].clone()).collect(),
        }
    }

    /// The part of `axis` that starts at `start` and takes every `step`-th element.
    pub(super) fn sliced(&self, axis: usize, start: &Dim, step: i64, len: Dim) -> Self {
        let mut out = self.clone();
        out.view.offset = &out.view.offset + &(start * &out.view.strides[axis]);
        out.view.strides[axis] = &out.view.strides[axis] * &step.into();
        out.dims[axis] = len;
        out
    }

    /// The view without `axis`, at position `at` of it.
    pub(super) fn selected(&self, axis: usize, at: &Dim) -> Self {
        let mut out = self.sliced(axis, at, 1, Dim::from(1));
        out.view.strides.remove(axis);
        out.dims.remove(axis);
        out
    }

    /// The same elements in row-major order under other dims, if that needs no copy.
    pub(super) fn reshaped(&self, dims: &[Dim]) -> Option<Self> {
        if self.is_packed() {
            return Some(Shown {
                view: View { strides: dense_strides(dims), ..self.view.clone() },
                dims: dims.to_vec(),
            });
        }
        let (mut i, mut j, mut strides) = (0, 0, Vec::with_capacity(dims.len()));
        while i < self.dims.len() || j < dims.len() {
            let (old_end, new_end) = next_group(&self.dims, i, dims, j)?;
            let inner = self.merged_stride(i, old_end)?;
            strides.extend(dense_strides(&dims[j..new_end]).iter().map(|s| s * &inner));
            (i, j) = (old_end, new_end);
        }
        Some(Shown { view: View { strides, ..self.view.clone() }, dims: dims.to_vec() })
    }

    /// The same axes where one of their dims is called something else; there are as many elements.
    pub(super) fn renamed(&self, dims: &[Dim]) -> Option<Self> {
        is_renamed(&self.dims, dims).then(|| Shown { dims: dims.to_vec(), ..self.clone() })
    }

    /// The stride of axes `from..to` as one axis, if they are one run.
    fn merged_stride(&self, from: usize, to: usize) -> Option<Dim> {
        let axes: Vec<usize> = (from..to).filter(|a| !is_one(&self.dims[*a])).collect();
        let run = |w: &[usize]| self.view.strides[w[0]] == &self.view.strides[w[1]] * &self.dims[w[1]];
        if !axes.windows(2).all(run) {
            return None;
        }
        Some(axes.last().map_or(Dim::from(1), |a| self.view.strides[*a].clone()))
    }

    /// The view with these axes as one, if they are one run.
    pub(super) fn with_merged(&self, axes: Range<usize>) -> Option<Self> {
        let with = |all: &[Dim], merged: Dim| {
            all[..axes.start].iter().cloned().chain([merged]).chain(all[axes.end..].iter().cloned()).collect()
        };
        let stride = self.merged_stride(axes.start, axes.end)?;
        Some(Shown {
            dims: with(&self.dims, Dim::product(&self.dims[axes.clone()])),
            view: View { strides: with(&self.view.strides, stride), ..self.view.clone() },
        })
    }
}

/// Whether dims of as many elements are those of the same axes: all but one are equal, and so is that one.
pub(super) fn is_renamed(from: &[Dim], to: &[Dim]) -> bool {
    from.len() == to.len() && from.iter().zip(to).filter(|(a, b)| a != b).count() <= 1
}

/// The ends of the shortest groups of old and new dims from `i` and `j` on with equal products.
fn next_group(old: &[Dim], i: usize, new: &[Dim], j: usize) -> Option<(usize, usize)> {
    let (mut p, mut q, mut a, mut b) = (Dim::from(1), Dim::from(1), i, j);
    loop {
        if p == q && (a > i || b > j) {
            return Some((a, b));
        }
        let take_old = a < old.len() && (p == q || q.exact_div(&p).is_some() || b == new.len());
        if take_old {
            p = &p * &old[a];
            a += 1;
        } else if b < new.len() {
            q = &q * &new[b];
            b += 1;
        } else {
            return None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dims(text: &[&str]) -> Vec<Dim> {
        text.iter().map(|t| t.parse::<i64>().map_or_else(|_| Dim::symbol(t), Dim::from)).collect()
    }

    #[test]
    fn a_transposed_view_reshapes_where_runs_stay_whole() {
        let x = Shown::dense(BufferId(0), &dims(&["batch", "seq", "4", "32"]));
        let t = x.transposed(&[0, 2, 1, 3]);
        assert!(!t.is_dense());
        assert!(t.reshaped(&dims(&["batch", "4", "seq", "2", "16"])).is_some());
        assert!(t.reshaped(&[Dim::symbol("batch"), &Dim::symbol("seq") * &4.into(), 32.into()]).is_none());
        assert_eq!(t.transposed(&[0, 2, 1, 3]), x);
    }

    #[test]
    fn a_dim_of_another_name_keeps_its_axis() {
        let x = Shown::dense(BufferId(0), &dims(&["2", "8", "h"])).transposed(&[0, 2, 1]);
        let renamed = dims(&["2", "k", "8"]);
        assert_eq!(x.reshaped(&renamed), None);
        assert_eq!(x.renamed(&renamed).map(|r| r.view), Some(x.view.clone()));
        assert_eq!(x.renamed(&dims(&["2", "k", "l"])), None);
    }

    #[test]
    fn broadcasting_repeats_with_stride_zero() {
        let x = Shown::dense(BufferId(0), &dims(&["4", "1"]));
        let strides = x.strides_over(&dims(&["batch", "4", "7"]));
        assert_eq!(strides, vec![Dim::from(0), Dim::from(1), Dim::from(0)]);
    }

    #[test]
    fn slices_move_the_offset() {
        let x = Shown::dense(BufferId(0), &dims(&["3", "batch", "8"]));
        let s = x.selected(0, &2.into());
        assert_eq!(s.view.offset, &Dim::symbol("batch") * &16.into());
        assert!(s.is_packed() && !s.is_dense());
    }
}
