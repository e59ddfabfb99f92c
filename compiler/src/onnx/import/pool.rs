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
    /// Automatic padding that depends on symbolic sizes: a `Pad` in front of the window, whose `pads` are 0 then.
    margins: Option<Vec<Dim>>,
}

impl Window {
    /// Whether the padding depends on symbolic sizes.
    pub(super) fn has_margins(&self) -> bool {
        self.margins.is_some()
    }

    /// The padding: all begins, then all ends.
    pub(super) fn amounts(&self) -> Vec<Dim> {
        let constant = || self.pads.iter().map(|pad| Dim::from(*pad)).collect();
        self.margins.clone().unwrap_or_else(constant)
    }

    /// Replaces the padding.
    pub(super) fn pad_by(&mut self, amounts: Vec<Dim>) {
        let constant = amounts.iter().map(Dim::as_const).collect();
        (self.pads, self.margins) = match constant {
            Some(pads) => (pads, None),
            None => (vec![0; amounts.len()], Some(amounts)),
        };
    }

    /// A window that takes one step at a time and has no padding.
    pub(super) fn dense(kernel: Vec<i64>, dilations: Vec<i64>) -> Window {
        let n = kernel.len();
        Window { kernel, strides: vec![1; n], dilations, pads: vec![0; 2 * n], margins: None }
    }

    /// The operand, padded by the margins, if there are any, with `value`. Where data decides dims into which the window
    /// may not fit, the run ends if it does not.
    pub(super) fn operand(&self, cx: &mut Cx, x: ValueId, value: f64) -> NodeResult<ValueId> {
        let x = self.margined(cx, x, value)?;
        let n = self.kernel.len();
        let reach = |i: usize| (self.kernel[i] - 1) * self.dilations[i] + 1;
        at_least(cx, x, (0..n).map(|i| reach(i) - self.pads[i] - self.pads[i + n]))
    }

    /// The operand, padded by the margins, if there are any, with `value`.
    fn margined(&self, cx: &mut Cx, x: ValueId, value: f64) -> NodeResult<ValueId> {
        let Some(margins) = &self.margins else { return Ok(x) };
        let (begins, ends) = margins.split_at(self.kernel.len());
        let none = [Dim::default(), Dim::default()];
        let pads = none.iter().chain(begins).chain(&none).chain(ends).cloned().collect();
        let value = cx.number(x, value)?;
        cx.emit(Op::Pad { pads }, &[x, value])
    }

    /// The padding with which the result has `ceil(dim / stride)` elements per dim: half of it on either side, and
    /// what is left over first or last.
    fn same_pads(&self, spatial: &[Dim], extra_first: bool) -> NodeResult<Vec<Dim>> {
        let mut pads = vec![Dim::default(); 2 * spatial.len()];
        for (i, dim) in spatial.iter().enumerate() {
            let (stride, reach) = (self.strides[i], (self.kernel[i] - 1) * self.dilations[i] + 1);
            let windows = dim.ceil_div(stride).ok_or_else(|| Refusal::new("a stride is 0"))?;
            let covered = &(&(&windows - &1.into()) * &stride.into()) + &reach.into();
            let total = (&covered - dim).larger(&Dim::default());
            let [small, large] = halves(&total);
            (pads[i], pads[spatial.len() + i]) = if extra_first { (large, small) } else { (small, large) };
        }
        Ok(pads)
    }
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
    let kernel = weight_kernel(cx, weight)?;
    let window = window(cx, x, kernel)?;
    convolved(cx, group, window, [x, weight], bias)
}

/// The dims of a weight after its channels, as `kernel_shape` must list them too.
pub(super) fn weight_kernel(cx: &mut Cx, weight: ValueId) -> NodeResult<Vec<i64>> {
    let kernel = cx.dims(weight).iter().skip(2).map(Dim::as_const).collect::<Option<Vec<_>>>();
    let kernel = kernel.ok_or_else(|| Refusal::new(format!("the weight's dims {} are not constant", cx.ty(weight))))?;
    match cx.ints("kernel_shape")?.filter(|k| *k != kernel) {
        Some(listed) => refuse(format!("`kernel_shape` is {listed:?}, but the weight is {}", cx.ty(weight))),
        None => Ok(kernel),
    }
}

/// The convolution of an operand, into which its window fits, with a weight and perhaps a bias.
pub(super) fn convolved(
    cx: &mut Cx,
    group: i64,
    window: Window,
    [x, weight]: [ValueId; 2],
    bias: &[ValueId],
) -> NodeResult<ValueId> {
    let x = window.operand(cx, x, 0.0)?;
    let Window { strides, dilations, pads, .. } = window;
    cx.emit(Op::Conv { group, strides, dilations, pads }, &[&[x, weight], bias].concat())
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
    let least = cx.ty(x).dtype.integer_range().map_or(f64::NEG_INFINITY, |(least, _)| least as f64);
    let operand = window.operand(cx, x, least)?;
    let Window { kernel, strides, dilations, pads, .. } = window.clone();
    let y = cx.emit(Op::MaxPool { kernel, strides, dilations, pads, ceil_mode }, &[operand])?;
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
    let operand = window.operand(cx, x, 0.0)?;
    let mean = |cx: &mut Cx, x: ValueId| {
        let Window { kernel, strides, pads, .. } = window.clone();
        cx.emit(Op::AveragePool { kernel, strides, pads, ceil_mode, count_include_pad }, &[x])
    };
    let y = mean(cx, operand)?;
    if count_include_pad || !window.has_margins() {
        return Ok(vec![y]);
    }
    // The zeros of the margins were counted; this is the share of elements that were not.
    let one = cx.number(x, 1.0)?;
    let [mut plane, mut padded] = [cx.dims(x), cx.dims(operand)];
    [&mut plane, &mut padded].into_iter().for_each(|dims| dims[..2].fill(1.into()));
    let ones = cx.expanded(one, plane)?;
    let ones = window.margined(cx, ones, 0.0)?;
    let ones = cx.reshape(ones, padded)?;
    let share = mean(cx, ones)?;
    Ok(vec![cx.div(y, share)?])
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
    let mut window = Window { kernel, strides, dilations, pads: vec![0; 2 * n], margins: None };
    match cx.word("auto_pad")?.as_deref() {
        None | Some("NOTSET" | "") => window.pads = listed.unwrap_or(window.pads),
        Some("VALID") => {}
        Some("SAME_UPPER") => window.pad_by(window.same_pads(&spatial, false)?),
        Some("SAME_LOWER") => window.pad_by(window.same_pads(&spatial, true)?),
        Some(other) => return refuse(format!("`auto_pad` = `{other}` is not known")),
    }
    if window.has_margins() && spatial.iter().any(|dim| cx.late().decides(dim)) {
        return refuse(format!("automatic padding at strides above 1 over sizes that data decides: {}", cx.ty(x)));
    }
    if window.pads.len() != 2 * n || window.pads.iter().any(|p| !(0..=FARTHEST).contains(p)) {
        return refuse(format!("pads {:?} do not fit {n} dims", window.pads));
    }
    Ok(window)
}

/// No real window is larger; sums and products of smaller numbers cannot overflow.
const FARTHEST: i64 = 1 << 24;

/// Half of a size, rounded down, and the rest.
pub(super) fn halves(size: &Dim) -> [Dim; 2] {
    let half = size.floor_div(&2.into()).unwrap_or_default();
    let rest = size - &half;
    [half, rest]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn same_padding_follows_the_side_and_the_stride() {
        let window = |kernel: Vec<i64>, strides: Vec<i64>, dilations: Vec<i64>| Window {
            kernel,
            strides,
            dilations,
            pads: vec![],
            margins: None,
        };
        let wide = |strides: Vec<i64>| window(vec![4, 3], strides, vec![1, 2]);
        let pads = |window: &Window, dims: &[Dim], extra_first| {
            let pads = window.same_pads(dims, extra_first).ok()?;
            Some(pads.iter().map(Dim::to_string).collect::<Vec<_>>())
        };
        let texts = |all: &[&str]| Some(all.iter().map(|t| t.to_string()).collect::<Vec<_>>());
        let dims = [Dim::from(7), Dim::from(9)];
        assert_eq!(pads(&wide(vec![1, 1]), &dims, false), texts(&["1", "2", "2", "2"]));
        assert_eq!(pads(&wide(vec![1, 1]), &dims, true), texts(&["2", "2", "1", "2"]));
        assert_eq!(pads(&wide(vec![2, 4]), &dims, false), texts(&["1", "2", "2", "2"]));
        let symbolic = [Dim::symbol("h"), Dim::from(9)];
        assert_eq!(pads(&wide(vec![1, 4]), &symbolic, false), texts(&["1", "2", "2", "2"]));
        // A window as small as its step covers nothing beyond the operand.
        let points = window(vec![1, 1], vec![2, 2], vec![1, 1]);
        assert_eq!(pads(&points, &symbolic, false), texts(&["0", "0", "0", "0"]));
    }

    #[test]
    fn same_padding_of_a_symbolic_size_is_that_of_every_size() {
        let h = Dim::symbol("h");
        for (kernel, stride) in [(3, 2), (5, 3), (2, 4), (7, 2), (1, 3)] {
            let window =
                Window { kernel: vec![kernel], strides: vec![stride], dilations: vec![1], pads: vec![], margins: None };
            for extra_first in [false, true] {
                let symbolic = window.same_pads(std::slice::from_ref(&h), extra_first).unwrap_or_default();
                for size in 1..20 {
                    let pads: Option<Vec<i64>> = symbolic.iter().map(|d| d.eval(&|_| Some(size))).collect();
                    let total = ((size - 1) / stride * stride + kernel - size).max(0);
                    let (half, rest) = (total / 2, total - total / 2);
                    assert_eq!(pads, Some(if extra_first { vec![rest, half] } else { vec![half, rest] }));
                }
            }
        }
    }
}
