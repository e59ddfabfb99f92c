//! `ConvTranspose`, `LpPool`, `Col2Im` and convolutions with a state, in terms of `Conv`.

use eec_ir::attr::Combine;
use eec_ir::{Dim, Op, Tensor, ValueId};

use super::super::error::{NodeResult, Refusal, refuse};
use super::node::{Cx, Results};
use super::pool::{Window, convolved, halves, kernel_shape, not_empty, window};

/// The convolution of the operand, with zeros between its elements, with the weight turned round.
pub(super) fn conv_transpose(cx: &mut Cx) -> Results {
    let (mut x, weight) = (cx.input(0)?, cx.input(1)?);
    let rank = cx.rank(x);
    if rank < 3 || cx.rank(weight) != rank {
        return refuse(format!("a weight of {} does not fit {}", cx.ty(weight), cx.ty(x)));
    }
    let kernel = (2..rank).map(|a| cx.fixed_dim(weight, a)).collect::<NodeResult<Vec<i64>>>()?;
    cx.ints("kernel_shape")?;
    let n = kernel.len();
    let extra = cx.ints("output_padding")?.unwrap_or_else(|| vec![0; n]);
    let wanted = cx.ints("output_shape")?;
    let same = match cx.word("auto_pad")?.as_deref() {
        None | Some("NOTSET" | "" | "VALID") => None,
        Some("SAME_UPPER") => Some(false),
        Some("SAME_LOWER") => Some(true),
        Some(other) => return refuse(format!("`auto_pad` = `{other}` is not known")),
    };
    let group = cx.int("group")?.unwrap_or(1);
    let Window { strides, dilations, pads, .. } = window(cx, x, kernel.clone())?;
    if extra.len() != n || wanted.as_ref().is_some_and(|w| w.len() != n) {
        return refuse("`output_padding` or `output_shape` does not fit the operand");
    }
    let mut margins = vec![Dim::from(0); 2 * rank];
    for i in 0..n {
        let (stride, extra) = (Dim::from(strides[i]), Dim::from(extra[i]));
        let reach = Dim::from(dilations[i] * (kernel[i] - 1));
        let (mut before, mut after) = (Dim::from(pads[i]), Dim::from(pads[i + n]));
        let spread = &cx.dims(x)[2 + i] * &stride;
        let size = match (&wanted, same) {
            (Some(wanted), _) => Some(wanted[i].into()),
            (None, Some(_)) => Some(spread.clone()),
            (None, None) => None,
        };
        if let Some(size) = size {
            let whole = &(&(&spread - &stride) + &reach) + &(&extra + &1.into());
            let total = &whole - &size;
            let shared = total.larger(&Dim::default());
            let [small, large] = halves(&shared);
            // Without automatic padding the larger half stands before, as for `SAME_LOWER`.
            before = if same == Some(false) { small } else { large };
            after = &total - &before;
        }
        x = spaced(cx, x, 2 + i, strides[i])?;
        margins[2 + i] = &reach - &before;
        margins[2 + i + rank] = &(&reach + &extra) - &after;
    }
    if margins.iter().any(|margin| *margin != Dim::default()) {
        x = cx.unary(Op::Pad { pads: margins }, x)?;
    }
    let weight = turned(cx, weight, group)?;
    let window = Window::dense(kernel, dilations);
    let bias = cx.optional(2);
    Ok(vec![convolved(cx, group, window, [x, weight], bias.as_slice())?])
}

/// `stride - 1` zeros between the elements along an axis.
fn spaced(cx: &mut Cx, x: ValueId, axis: usize, stride: i64) -> NodeResult<ValueId> {
    if stride == 1 {
        return Ok(x);
    }
    let dims = cx.dims(x);
    let mut split = dims.clone();
    split.insert(axis + 1, 1.into());
    let rank = split.len();
    let x = cx.reshape(x, split)?;
    let mut pads = vec![Dim::from(0); 2 * rank];
    pads[axis + 1 + rank] = (stride - 1).into();
    let x = cx.unary(Op::Pad { pads }, x)?;
    let mut merged = dims;
    merged[axis] = &merged[axis] * &stride.into();
    let end = &merged[axis] - &(stride - 1).into();
    let x = cx.reshape(x, merged)?;
    cx.part(x, axis, [0.into(), end], 1)
}

/// A weight `[channels, filters/group, …]` as `[filters, channels/group, …]`, backwards along its window.
fn turned(cx: &mut Cx, weight: ValueId, group: i64) -> NodeResult<ValueId> {
    let dims = cx.dims(weight);
    let rank = dims.len();
    let mut x = weight;
    for axis in 2..rank {
        x = cx.reversed(x, axis)?;
    }
    let per_group = dims[0].exact_div(&group.into());
    let per_group = per_group.ok_or_else(|| Refusal::new(format!("{} channels are not {group} groups", dims[0])))?;
    let window = || dims[2..].iter().cloned();
    let split = [group.into(), per_group.clone(), dims[1].clone()].into_iter().chain(window()).collect();
    let x = cx.reshape(x, split)?;
    let perm: Vec<usize> = [0, 2, 1].into_iter().chain(3..rank + 1).collect();
    let x = cx.transposed(x, &perm)?;
    cx.reshape(x, [&dims[1] * &group.into(), per_group].into_iter().chain(window()).collect())
}

/// Sums over windows of every plane.
fn window_sums(cx: &mut Cx, x: ValueId, window: &Window) -> NodeResult<ValueId> {
    let dims = cx.dims(x);
    let planes = [Dim::product(&dims[..2]), 1.into()].into_iter().chain(dims[2..].iter().cloned()).collect();
    let x = cx.reshape(x, planes)?;
    let one = cx.number(x, 1.0)?;
    let ones = [1, 1].into_iter().chain(window.kernel.iter().copied()).map(Dim::from).collect();
    let ones = cx.expanded(one, ones)?;
    let sums = convolved(cx, 1, window.clone(), [x, ones], &[])?;
    let spatial = cx.dims(sums).into_iter().skip(2);
    cx.reshape(sums, dims[..2].iter().cloned().chain(spatial).collect())
}

/// The window of a pooling, and its padding; with `ceil_mode` the last, incomplete ones are made whole by more of it.
fn pool_window(cx: &mut Cx, x: ValueId) -> NodeResult<(Window, Vec<Dim>)> {
    let ceil = cx.flag("ceil_mode", false)?;
    let kernel = kernel_shape(cx)?;
    let mut window = window(cx, x, kernel)?;
    let listed = window.amounts();
    let mut amounts = listed.clone();
    let n = window.kernel.len();
    for i in 0..n {
        // At single steps all windows are complete.
        if !ceil || window.strides[i] == 1 {
            continue;
        }
        if cx.late().decides(&cx.dims(x)[2 + i]) {
            return refuse(format!("`ceil_mode` at strides above 1 over sizes that data decides: {}", cx.ty(x)));
        }
        let reach = (window.kernel[i] - 1) * window.dilations[i] + 1;
        let (stride, size) = (Dim::from(window.strides[i]), cx.dims(x)[2 + i].clone());
        let room = &(&(&size + &listed[i]) + &listed[i + n]) - &reach.into();
        // A window that would begin behind the operand is left out.
        let last = (&(&size + &listed[i]) - &1.into()).floor_div(&stride);
        let (steps, last) = room.ceil_div(window.strides[i]).zip(last).ok_or_else(|| Refusal::new("a stride is 0"))?;
        let missing = &(&steps.smaller(&last) * &stride) - &room;
        amounts[i + n] = &amounts[i + n] + &missing.larger(&Dim::default());
    }
    window.pad_by(amounts);
    Ok((window, listed))
}

/// `(Σ |x|^p)^(1/p)` over windows.
pub(super) fn lp_pool(cx: &mut Cx) -> Results {
    let x = cx.input(0)?;
    let p = cx.int("p")?.unwrap_or(2) as f64;
    let (window, _) = pool_window(cx, x)?;
    let size = cx.unary(Op::Abs {}, x)?;
    let power = cx.number(x, p)?;
    let terms = cx.emit(Op::Pow {}, &[size, power])?;
    let sums = window_sums(cx, terms, &window)?;
    let root = cx.number(x, 1.0 / p)?;
    Ok(vec![cx.emit(Op::Pow {}, &[sums, root])?])
}

/// The same over all dims after the channels.
pub(super) fn global_lp_pool(cx: &mut Cx) -> Results {
    let x = cx.input(0)?;
    let x = not_empty(cx, x)?;
    let p = cx.int("p")?.unwrap_or(2) as f64;
    let size = cx.unary(Op::Abs {}, x)?;
    let (power, root) = (cx.number(x, p)?, cx.number(x, 1.0 / p)?);
    let terms = cx.emit(Op::Pow {}, &[size, power])?;
    let axes = (2..cx.rank(x) as i64).collect();
    let sum = cx.sum(terms, axes, true)?;
    Ok(vec![cx.emit(Op::Pow {}, &[sum, root])?])
}

/// An average over windows with gaps: their sum, divided by how many elements they count.
pub(super) fn dilated_average_pool(cx: &mut Cx, count_include_pad: bool) -> Results {
    let x = cx.input(0)?;
    let (window, listed) = pool_window(cx, x)?;
    let sums = window_sums(cx, x, &window)?;
    let (one, n) = (cx.number(x, 1.0)?, window.kernel.len());
    let mut plane: Vec<Dim> = cx.dims(x);
    (plane[0], plane[1]) = (1.into(), 1.into());
    let mut window = window;
    if count_include_pad {
        let mut rest = window.amounts();
        for i in 0..n {
            plane[2 + i] = &(&plane[2 + i] + &listed[i]) + &listed[i + n];
            (rest[i], rest[i + n]) = (Dim::default(), &rest[i + n] - &listed[i + n]);
        }
        window.pad_by(rest);
    }
    let ones = cx.expanded(one, plane)?;
    let counts = window_sums(cx, ones, &window)?;
    let spatial = cx.dims(sums).into_iter().skip(2);
    let counts = cx.reshape(counts, [1.into(), 1.into()].into_iter().chain(spatial).collect())?;
    // The sum of nothing is 0, and so is its average.
    let counts = cx.at_least(counts, 1.0)?;
    Ok(vec![cx.div(sums, counts)?])
}

/// A depthwise convolution over the elements of a state and then the operand's; the last ones are the
/// new state.
pub(super) fn causal_conv(cx: &mut Cx) -> Results {
    let (x, weight) = (cx.input(0)?, cx.input(1)?);
    if cx.rank(x) != 3 || cx.rank(weight) != 3 {
        return refuse(format!("a weight of {} does not fit {}", cx.ty(weight), cx.ty(x)));
    }
    let (channels, kept) = (cx.fixed_dim(x, 1)?, cx.fixed_dim(weight, 2)? - 1);
    let whole = match cx.optional(3) {
        Some(state) => cx.emit(Op::Concat { axis: 2 }, &[state, x])?,
        None => {
            let mut pads = vec![Dim::from(0); 6];
            pads[2] = kept.into();
            cx.unary(Op::Pad { pads }, x)?
        }
    };
    let window = Window::dense(vec![kept + 1], vec![1]);
    let bias = cx.optional(2);
    let mut y = convolved(cx, channels, window, [whole, weight], bias.as_slice())?;
    match cx.word("activation")?.as_deref() {
        None | Some("none" | "") => {}
        Some("silu" | "swish") => {
            let (wide, own) = cx.widened(y)?;
            let gate = cx.unary(Op::Sigmoid {}, wide)?;
            let product = cx.mul(wide, gate)?;
            y = cx.cast(product, own)?;
        }
        Some(other) => return refuse(format!("activation `{other}` is not known")),
    }
    let length = cx.dims(whole)[2].clone();
    let state = cx.part(whole, 2, [&length - &kept.into(), length], 1)?;
    Ok(vec![y, state])
}

/// Columns of windows added up to an image.
pub(super) fn col2im(cx: &mut Cx) -> Results {
    let x = cx.input(0)?;
    let image = cx.const_ints(1, "image shape")?.unwrap_or_default();
    let kernel = cx.const_ints(2, "block shape")?.unwrap_or_default();
    let n = image.len();
    let list = |cx: &mut Cx, name: &str, default: i64, count| -> NodeResult<Vec<i64>> {
        Ok(cx.ints(name)?.unwrap_or_else(|| vec![default; count]))
    };
    let (strides, dilations) = (list(cx, "strides", 1, n)?, list(cx, "dilations", 1, n)?);
    let pads = list(cx, "pads", 0, 2 * n)?;
    let small = |v: &i64| (0..1 << 16).contains(v);
    let all = || image.iter().chain(&kernel).chain(&strides).chain(&dilations);
    if [kernel.len(), strides.len(), dilations.len()] != [n; 3] || pads.len() != 2 * n {
        return refuse("the shapes and attributes differ in length");
    }
    if !all().all(|v| small(v) && *v > 0) || !pads.iter().all(small) {
        return refuse("the shapes or attributes are out of range");
    }
    let padded: Vec<i64> = (0..n).map(|i| image[i] + pads[i] + pads[i + n]).collect();
    let windows: Vec<i64> = (0..n).map(|i| (padded[i] - dilations[i] * (kernel[i] - 1) - 1) / strides[i] + 1).collect();
    let targets = targets(&padded, &kernel, &windows, &strides, &dilations)?;
    let dims = cx.dims(x);
    let product = |sizes: &[i64]| Dim::product(&sizes.iter().map(|s| Dim::from(*s)).collect::<Vec<_>>());
    let block = product(&kernel);
    let channels = dims[1].exact_div(&block).ok_or_else(|| Refusal::new(format!("{} is no block", dims[1])))?;
    let count = Dim::from(targets.len() as i64);
    let columns = cx.reshape(x, vec![dims[0].clone(), channels.clone(), count.clone()])?;
    let at = cx.integers(targets);
    let at = cx.along(at, 2, 3)?;
    let at = cx.expanded(at, vec![dims[0].clone(), channels.clone(), count])?;
    let zero = cx.number(x, 0.0)?;
    let plane = product(&padded);
    let empty = cx.expanded(zero, vec![dims[0].clone(), channels.clone(), plane])?;
    let sums = cx.emit(Op::ScatterElements { axis: 2, reduction: Combine::Add }, &[empty, at, columns])?;
    let whole = [dims[0].clone(), channels].into_iter().chain(padded.iter().map(|d| Dim::from(*d))).collect();
    let mut y = cx.reshape(sums, whole)?;
    for i in 0..n {
        y = cx.part(y, 2 + i, [pads[i].into(), (pads[i] + image[i]).into()], 1)?;
    }
    Ok(vec![y])
}

/// For every tap of the window and every window, the element of the padded image.
fn targets(
    padded: &[i64],
    kernel: &[i64],
    windows: &[i64],
    strides: &[i64],
    dilations: &[i64],
) -> NodeResult<Vec<i64>> {
    let size = kernel.iter().chain(windows).try_fold(1i64, |n, d| n.checked_mul(*d)).filter(|n| *n <= 1 << 24);
    if size.is_none() || windows.iter().any(|w| *w < 1) {
        return refuse("the image has no windows, or too many");
    }
    let spread = |lengths: &[i64], steps: &[i64]| {
        let mut all = vec![0];
        for ((length, step), dim) in lengths.iter().zip(steps).zip(padded) {
            let line = |base: i64| (0..*length).map(move |i| base * dim + i * step);
            all = all.into_iter().flat_map(line).collect::<Vec<i64>>();
        }
        all
    };
    let (taps, starts) = (spread(kernel, dilations), spread(windows, strides));
    Ok(taps.iter().flat_map(|tap| starts.iter().map(move |start| tap + start)).collect())
}

/// Elements put back where `MaxPool` took them from, zeros elsewhere.
pub(super) fn max_unpool(cx: &mut Cx) -> Results {
    let (x, at) = (cx.input(0)?, cx.input(1)?);
    let kernel = kernel_shape(cx)?;
    let Window { kernel, strides, pads, .. } = window(cx, x, kernel)?;
    let dims = cx.dims(x);
    let n = kernel.len();
    let size =
        |i: usize| &(&(&dims[2 + i] - &1.into()) * &strides[i].into()) + &(kernel[i] - pads[i] - pads[i + n]).into();
    let own: Vec<Dim> = dims[..2].iter().cloned().chain((0..n).map(size)).collect();
    let to = match cx.sizes(2, "output shape")? {
        Some(listed) => listed,
        None => own.clone(),
    };
    // Positions count in the unpooled shape without `output_shape`.
    let (zero, flat) = (cx.number(x, 0.0)?, vec![Dim::product(&dims)]);
    let (x, at) = (cx.reshape(x, flat.clone())?, cx.reshape(at, flat)?);
    let empty = cx.expanded(zero, vec![Dim::product(&to)])?;
    let placed = if to == own { at } else { moved(cx, at, &own, &to)? };
    let y = cx.emit(Op::ScatterElements { axis: 0, reduction: Combine::None }, &[empty, placed, x])?;
    Ok(vec![cx.reshape(y, to)?])
}

/// Flat positions in `from` as flat positions in `to`, by coordinates.
fn moved(cx: &mut Cx, at: ValueId, from: &[Dim], to: &[Dim]) -> NodeResult<ValueId> {
    let sizes = |dims: &[Dim]| dims.iter().map(Dim::as_const).collect::<Option<Vec<i64>>>();
    let (Some(from), Some(to)) = (sizes(from), sizes(to)) else { return refuse("the dims must be constant") };
    let elements = from.iter().try_fold(1i64, |n, d| n.checked_mul(*d)).filter(|n| *n <= 1 << 24);
    let elements = elements.ok_or_else(|| Refusal::new("the result is too large"))?;
    cx.may_compute(elements)?;
    let position = |flat: i64| {
        let (mut rest, mut stride, mut found) = (flat, 1, 0);
        for (from, to) in from.iter().zip(&to).rev() {
            found += rest % from * stride;
            (rest, stride) = (rest / from, stride * to);
        }
        found
    };
    let table = cx.constant(Tensor::vector((0..elements).map(position).collect::<Vec<i64>>()));
    cx.emit(Op::Gather { axis: 0 }, &[table, at])
}
