//! Positions in row-major tensors: the maps from a result's elements to the operands' elements that
//! inference (on sizes) and evaluation (on data) share.

/// The axis `axis` of `rank`, counted from the front; a negative one counts from the end.
pub(super) fn axis(axis: i64, rank: usize) -> Option<usize> {
    at(axis, rank)
}

/// The position `index` in `0..extent`; a negative one counts from the end.
pub(super) fn at(index: i64, extent: usize) -> Option<usize> {
    let found = if index < 0 { index.checked_add_unsigned(extent as u64)? } else { index };
    usize::try_from(found).ok().filter(|i| *i < extent)
}

/// The product of `dims`, unless it overflows.
pub(super) fn size(dims: &[usize]) -> Option<usize> {
    if dims.contains(&0) {
        return Some(0);
    }
    dims.iter().try_fold(1usize, |acc, d| acc.checked_mul(*d))
}

/// Elements between neighbours along each axis of a dense tensor.
pub(super) fn strides(dims: &[usize]) -> Vec<isize> {
    let mut strides = vec![1; dims.len()];
    for i in (1..dims.len()).rev() {
        strides[i - 1] = strides[i] * dims[i] as isize;
    }
    strides
}

/// `start + Σ index[i]·strides[i]` for every index of `dims`, in row-major order.
pub(super) fn offsets(dims: &[usize], strides: &[isize], start: usize) -> Vec<usize> {
    if dims.contains(&0) {
        return Vec::new();
    }
    let mut all = vec![start];
    for (dim, stride) in dims.iter().zip(strides) {
        let line = |base: usize| (0..*dim as isize).map(move |i| base.wrapping_add_signed(i * stride));
        all = all.into_iter().flat_map(line).collect();
    }
    all
}

/// For every element of `to`, the element of `from` that broadcasting puts there.
pub(super) fn broadcast(from: &[usize], to: &[usize]) -> Vec<usize> {
    let missing = to.len().saturating_sub(from.len());
    let dense = strides(from);
    let stride = |(i, to): (usize, &usize)| match i.checked_sub(missing) {
        Some(j) if from[j] == *to => dense[j],
        _ => 0,
    };
    let spread: Vec<isize> = to.iter().enumerate().map(stride).collect();
    offsets(to, &spread, 0)
}

/// For every element of the permuted tensor, its position before.
pub(super) fn transpose(from: &[usize], perm: &[usize]) -> Vec<usize> {
    let dense = strides(from);
    let (dims, moved): (Vec<usize>, Vec<isize>) = perm.iter().map(|p| (from[*p], dense[*p])).unzip();
    offsets(&dims, &moved, 0)
}

/// The elements of each row along `axes` (the last of them fastest), row after row, and a row's
/// length.
pub(super) fn rows(dims: &[usize], axes: &[usize]) -> (Vec<usize>, usize) {
    let kept = (0..dims.len()).filter(|i| !axes.contains(i));
    let perm: Vec<usize> = kept.chain(axes.iter().copied()).collect();
    (transpose(dims, &perm), axes.iter().map(|a| dims[*a]).product())
}

/// For every element of the part that begins at `starts` and goes by `steps`, its position before.
pub(super) fn slice(from: &[usize], to: &[usize], starts: &[usize], steps: &[isize]) -> Vec<usize> {
    let dense = strides(from);
    let start = starts.iter().zip(&dense).map(|(s, d)| s * *d as usize).sum();
    let stepped: Vec<isize> = steps.iter().zip(&dense).map(|(s, d)| s * d).collect();
    offsets(to, &stepped, start)
}

/// For every element of the concatenation along `axis`, its position among all parts' elements.
pub(super) fn concat(parts: &[Vec<usize>], axis: usize) -> Vec<usize> {
    let Some(first) = parts.first() else { return Vec::new() };
    let outer: usize = first[..axis].iter().product();
    let chunks: Vec<usize> = parts.iter().map(|p| p[axis..].iter().product()).collect();
    let mut all = Vec::new();
    for row in 0..outer {
        let mut base = 0;
        for chunk in &chunks {
            all.extend((0..*chunk).map(|i| base + row * chunk + i));
            base += outer * chunk;
        }
    }
    all
}

/// For every element of the tensor with `begins` elements (fewer than none: cut off) put before, its
/// position before; those put there have position `fill`.
pub(super) fn pad(from: &[usize], to: &[usize], begins: &[i64], fill: usize) -> Vec<usize> {
    if to.contains(&0) {
        return Vec::new();
    }
    let mut all = vec![Some(0)];
    for ((dim, size), begin) in from.iter().zip(to).zip(begins) {
        let inside =
            |i: usize| (i as i64).checked_sub(*begin).and_then(|x| usize::try_from(x).ok()).filter(|x| x < dim);
        let line = |base: Option<usize>| (0..*size).map(move |i| Some(base? * dim + inside(i)?));
        all = all.into_iter().flat_map(line).collect();
    }
    all.into_iter().map(|at| at.unwrap_or(fill)).collect()
}

/// An index that is outside of a tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct OutOfRange {
    pub(super) index: i64,
    pub(super) extent: usize,
}

impl std::fmt::Display for OutOfRange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "index {} is outside of a dim of size {}", self.index, self.extent)
    }
}

fn checked(index: i64, extent: usize) -> Result<usize, OutOfRange> {
    at(index, extent).ok_or(OutOfRange { index, extent })
}

/// For every element of `Gather` along `axis`, its position in the data.
pub(super) fn gather(data: &[usize], axis: usize, indices: &[i64]) -> Result<Vec<usize>, OutOfRange> {
    let chosen = indices.iter().map(|i| checked(*i, data[axis])).collect::<Result<Vec<_>, _>>()?;
    let outer: usize = data[..axis].iter().product();
    let inner: usize = data[axis + 1..].iter().product();
    let mut all = Vec::with_capacity(outer * chosen.len() * inner);
    for row in 0..outer {
        for i in &chosen {
            let base = (row * data[axis] + i) * inner;
            all.extend(base..base + inner);
        }
    }
    Ok(all)
}

/// For every element of `GatherElements` along `axis`, its position in the data. `indices` has dims
/// `to`.
pub(super) fn gather_elements(
    data: &[usize],
    axis: usize,
    to: &[usize],
    indices: &[i64],
) -> Result<Vec<usize>, OutOfRange> {
    let mut dense = strides(data);
    let stride = dense[axis] as usize;
    dense[axis] = 0;
    let bases = offsets(to, &dense, 0);
    bases.into_iter().zip(indices).map(|(base, i)| Ok(base + checked(*i, data[axis])? * stride)).collect()
}

/// For every element of `GatherND`, its position in the data. `tuples` holds index tuples of `depth`
/// coordinates, as many for every index of the first `batch_dims` dims.
pub(super) fn gather_nd(
    data: &[usize],
    batch_dims: usize,
    depth: usize,
    tuples: &[i64],
) -> Result<Vec<usize>, OutOfRange> {
    let batches: usize = data[..batch_dims].iter().product();
    let inner: usize = data[batch_dims + depth..].iter().product();
    let axes = &data[batch_dims..batch_dims + depth];
    let count = tuples.len() / depth.max(1);
    let mut all = Vec::with_capacity(count * inner);
    for (i, tuple) in tuples.chunks_exact(depth.max(1)).enumerate() {
        let mut base = i * batches / count;
        for (extent, index) in axes.iter().zip(tuple) {
            base = base * extent + checked(*index, *extent)?;
        }
        all.extend(base * inner..(base + 1) * inner);
    }
    Ok(all)
}
