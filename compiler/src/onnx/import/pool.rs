//! Convolution and pooling: defaults and automatic padding become explicit.

use eec_ir::{Dim, Op, ValueId};

use super::super::error::{NodeResult, Refusal, refuse};
use super::node::Cx;
use super::{pool_positions, transposed_conv};

/// The window of a convolution or pooling over the dims after batch and channels.
#[derive(Clone)]
pub(super) struct Window {
    pub(super) kernel: Vec<i64>,
    pub(super) strides: Vec<i64>,
    pub(super) dilations: Vec<i64>,
    pub(super) pads: Vec<i64>,
}

/// `Conv`.
pub(super) fn conv(cx: &mut Cx) -> NodeResult<Vec<ValueId>> {
    let inputs = cx.all_inputs()?;
    Ok(vec![convolution(cx, &inputs)?])
}

/// The convolution of these operands under the node's attributes.
pub(super) fn convolution(cx: &mut Cx, inputs: &[ValueId]) -> NodeResult<ValueId> {
    let [x, weight, ref bias @ ..] = *inputs else { return refuse("needs an operand and a weight") };
    let group = cx.int("group")?.unwrap_or(1);
    let kernel = cx.dims(weight).iter().skip(2).map(Dim::as_const).collect::<Option<Vec<_>>>();
    let kernel = kernel.ok_or_else(|| Refusal::new(format!("the weight's dims {} are not constant", cx.ty(weight))))?;
    if let Some(listed) = cx.ints("kernel_shape")?.filter(|k| *k != kernel) {
        return refuse(format!("`kernel_shape` is {listed:?}, but the weight is {}", cx.ty(weight)));
    }
    let window = window(cx, x, kernel)?;
    convolved(cx, group, window, [x, weight], bias)
}

/// The convolution of an operand, which its window fits into, with a weight and perhaps a bias.
pub(super) fn convolved(
    cx: &mut Cx,
    group: i64,
    window: Window,
    [x, weight]: [ValueId; 2],
    bias: &[ValueId],
) -> NodeResult<ValueId> {
    let x = fitted(cx, x, &window)?;
    let Window { strides, dilations, pads, .. } = window;
    cx.emit(Op::Conv { group, strides, dilations, pads }, &[&[x, weight], bias].concat())
}

/// The operand of a window, which fits into it: where data decides its dims, the run ends if it does not.
pub(super) fn fitted(cx: &mut Cx, x: ValueId, window: &Window) -> NodeResult<ValueId> {
    let n = window.kernel.len();
    let reach = |i: usize| (window.kernel[i] - 1) * window.dilations[i] + 1;
    at_least(cx, x, (0..n).map(|i| reach(i) - window.pads[i] - window.pads[i + n]))
}

/// The operand of a pooling over all of an image: where data decides its dims, the run ends if there is nothing.
pub(super) fn not_empty(cx: &mut Cx, x: ValueId) -> NodeResult<ValueId> {
    at_least(cx, x, std::iter::repeat(1))
}

/// `x` with so much in its dims after the channels, which runs check where data decides them.
fn at_least(cx: &mut Cx, x: ValueId, least: impl Iterator<Item = i64>) -> NodeResult<ValueId> {
    let mut dims = cx.dims(x);
    for (dim, least) in dims.iter_mut().skip(2).zip(least) {
        *dim = cx.checked_at_least(dim, least)?;
    }
    cx.reshape(x, dims)
}

/// `MaxPool`; its second result is where in the whole operand each largest element stands.
pub(super) fn max_pool(cx: &mut Cx) -> NodeResult<Vec<ValueId>> {
    let column_major = cx.flag("storage_order", false)?;
    let x = cx.input(0)?;
    let ceil_mode = cx.flag("ceil_mode", false)?;
    let kernel = kernel_shape(cx)?;
    let window = window(cx, x, kernel)?;
    let x = fitted(cx, x, &window)?;
    let Window { kernel, strides, dilations, pads } = window.clone();
    let y = cx.emit(Op::MaxPool { kernel, strides, dilations, pads, ceil_mode }, &[x])?;
    if !cx.asks_for(1) {
        return Ok(vec![y]);
    }
    let at = pool_positions::largest(cx, x, y, &window, column_major)?;
    Ok(vec![y, at])
}

/// `AveragePool`.
pub(super) fn average_pool(cx: &mut Cx) -> NodeResult<Vec<ValueId>> {
    let x = cx.input(0)?;
    let count_include_pad = cx.flag("count_include_pad", false)?;
    if cx.has_other_than("dilations", 1) {
        return transposed_conv::dilated_average_pool(cx, count_include_pad);
    }
    let ceil_mode = cx.flag("ceil_mode", false)?;
    let kernel = kernel_shape(cx)?;
    let window = window(cx, x, kernel)?;
    let x = fitted(cx, x, &window)?;
    let Window { kernel, strides, pads, .. } = window;
    Ok(vec![cx.emit(Op::AveragePool { kernel, strides, pads, ceil_mode, count_include_pad }, &[x])?])
}

pub(super) fn kernel_shape(cx: &mut Cx) -> NodeResult<Vec<i64>> {
    cx.ints("kernel_shape")?.ok_or_else(|| Refusal::new("attribute `kernel_shape` is missing"))
}

pub(super) fn window(cx: &mut Cx, x: ValueId, kernel: Vec<i64>) -> NodeResult<Window> {
    let n = kernel.len();
    let spatial: Vec<Dim> = cx.dims(x).into_iter().skip(2).collect();
    if spatial.len() != n {
        return refuse(format!("the kernel has {n} dims, the operand is {}", cx.ty(x)));
    }
    let strides = cx.ints("strides")?.unwrap_or_else(|| vec![1; n]);
    let dilations = cx.ints("dilations")?.unwrap_or_else(|| vec![1; n]);
    let listed = cx.ints("pads")?;
    let all = kernel.iter().chain(&strides).chain(&dilations);
    if strides.len() != n || dilations.len() != n || all.into_iter().any(|v| !(1..=FARTHEST).contains(v)) {
        return refuse(format!("kernel {kernel:?}, strides {strides:?} and dilations {dilations:?} do not fit"));
    }
    let mut window = Window { kernel, strides, dilations, pads: vec![0; 2 * n] };
    match cx.word("auto_pad")?.as_deref() {
        None | Some("NOTSET" | "") => window.pads = listed.unwrap_or(window.pads),
        Some("VALID") => {}
        Some("SAME_UPPER") => window.pads = same_pads(&window, &spatial, false)?,
        Some("SAME_LOWER") => window.pads = same_pads(&window, &spatial, true)?,
        Some(other) => return refuse(format!("`auto_pad` = `{other}` is not known")),
    }
    if window.pads.len() != 2 * n || window.pads.iter().any(|p| !(0..=FARTHEST).contains(p)) {
        return refuse(format!("pads {:?} do not fit {n} dims", window.pads));
    }
    Ok(window)
}

/// No real window is larger; sums and products of smaller numbers cannot overflow.
const FARTHEST: i64 = 1 << 24;

/// The padding with which the result has `ceil(dim / stride)` elements per dim.
fn same_pads(window: &Window, spatial: &[Dim], extra_first: bool) -> NodeResult<Vec<i64>> {
    let n = spatial.len();
    let mut pads = vec![0; 2 * n];
    for (i, dim) in spatial.iter().enumerate() {
        let (stride, reach) = (window.strides[i], (window.kernel[i] - 1) * window.dilations[i] + 1);
        let total = match dim.as_const() {
            _ if stride == 1 => reach - 1,
            Some(d) => ((d + stride - 1) / stride - 1).saturating_mul(stride).saturating_add(reach - d).max(0),
            None => {
                return refuse(format!("automatic padding of the dim {dim} depends on its size"));
            }
        };
        let (small, large) = (total / 2, total - total / 2);
        (pads[i], pads[n + i]) = if extra_first { (large, small) } else { (small, large) };
    }
    Ok(pads)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn same_padding_follows_the_side_and_the_stride() {
        let window = |strides: Vec<i64>| Window { kernel: vec![4, 3], strides, dilations: vec![1, 2], pads: vec![] };
        let dims = [Dim::from(7), Dim::from(9)];
        assert_eq!(same_pads(&window(vec![1, 1]), &dims, false).ok(), Some(vec![1, 2, 2, 2]));
        assert_eq!(same_pads(&window(vec![1, 1]), &dims, true).ok(), Some(vec![2, 2, 1, 2]));
        assert_eq!(same_pads(&window(vec![2, 4]), &dims, false).ok(), Some(vec![1, 2, 2, 2]));
        let symbolic = [Dim::symbol("h"), Dim::from(9)];
        assert!(same_pads(&window(vec![1, 4]), &symbolic, false).is_ok());
        assert!(same_pads(&window(vec![2, 4]), &symbolic, false).is_err());
    }
}
