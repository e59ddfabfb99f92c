//! Where the largest element of each window of a `MaxPool` stands, by a table of all windows' elements.

use eec_ir::{Dim, Op, Tensor, ValueId};

use super::super::error::{NodeResult, Refusal};
use super::node::Cx;
use super::pool::Window;

/// Every window's elements, in the order of the window.
struct Table {
    /// How many elements a window has.
    taps: usize,
    /// The element among the spatial ones, or none outside of them; window after window.
    elements: Vec<Option<i64>>,
}

impl Table {
    fn new(cx: &Cx, from: &[i64], to: &[i64], window: &Window) -> NodeResult<Table> {
        let product = |sizes: &[i64]| sizes.iter().try_fold(1i64, |n, s| n.checked_mul(*s));
        let count = product(&window.kernel).zip(product(to)).and_then(|(taps, windows)| taps.checked_mul(windows));
        // Positions count the whole image.
        cx.may_compute(count.filter(|_| product(from).is_some()).unwrap_or(i64::MAX))?;
        let (mut taps, mut elements) = (vec![Vec::new()], vec![Vec::new()]);
        let all = |lines: Vec<Vec<i64>>, size: i64| -> Vec<Vec<i64>> {
            lines.iter().flat_map(|line| (0..size).map(move |i| line.iter().copied().chain([i]).collect())).collect()
        };
        for (kernel, size) in window.kernel.iter().zip(to) {
            (taps, elements) = (all(taps, *kernel), all(elements, *size));
        }
        let element = |start: &[i64], tap: &[i64]| {
            (0..from.len()).try_fold(0, |flat, i| {
                let at = start[i] * window.strides[i] - window.pads[i] + tap[i] * window.dilations[i];
                (0..from[i]).contains(&at).then(|| flat * from[i] + at)
            })
        };
        let elements = elements.iter().flat_map(|start| taps.iter().map(|tap| element(start, tap)).collect::<Vec<_>>());
        Ok(Table { taps: taps.len(), elements: elements.collect() })
    }
}

/// The spatial element `flat` of row-major order in column-major order.
fn turned(flat: i64, dims: &[i64]) -> i64 {
    let (mut rest, mut place) = (flat, 0);
    let mut index = vec![0; dims.len()];
    for (i, dim) in dims.iter().enumerate().rev() {
        (index[i], rest) = (rest % dim, rest / dim);
    }
    for (i, dim) in index.iter().zip(dims).rev() {
        place = place * dim + i;
    }
    place
}

/// The flat position in `x` of every element of `y`, which is its `MaxPool`.
pub(super) fn largest(cx: &mut Cx, x: ValueId, y: ValueId, window: &Window, column_major: bool) -> NodeResult<ValueId> {
    let sizes = |dims: &[Dim]| dims.iter().skip(2).map(Dim::as_const).collect::<Option<Vec<i64>>>();
    let (dims, result) = (cx.dims(x), cx.dims(y));
    let known = sizes(&dims).zip(sizes(&result)).filter(|_| !window.has_margins());
    let (from, to) = known.ok_or_else(|| {
        let reason = format!("positions of the largest need images of constant sizes, found {}", cx.ty(x));
        Refusal::new(format!("{reason}; `--fix-dim` makes them constants"))
    })?;
    let table = Table::new(cx, &from, &to, window)?;
    let shape = [table.elements.len() / table.taps.max(1), table.taps];
    let plane = Dim::product(&dims[2..]);
    let rows = cx.reshape(x, vec![dims[0].clone(), dims[1].clone(), plane.clone()])?;
    let inside: Vec<i64> = table.elements.iter().map(|e| e.unwrap_or(0)).collect();
    let outside = Tensor::new(&shape, table.elements.iter().map(|e| u8::from(e.is_none())).collect())?;
    let (elements, outside) = (cx.constant(Tensor::new(&shape, inside.clone())?), cx.constant(outside));
    let gathered = cx.emit(Op::Gather { axis: 2 }, &[rows, elements])?;
    let least = cx.ty(x).dtype.integer_range().map_or(f64::NEG_INFINITY, |(least, _)| least as f64);
    let least = cx.number(x, least)?;
    let seen = cx.choose(outside, least, gathered)?;
    let best = cx.unary(Op::ArgMax { axis: 3, keepdims: false }, seen)?;
    let starts = cx.integers((0..shape[0]).map(|w| (w * shape[1]) as i64).collect());
    let best = cx.add(best, starts)?;
    let places = if column_major { inside.iter().map(|e| turned(*e, &from)).collect() } else { inside };
    let places = cx.integers(places);
    let places = cx.emit(Op::Gather { axis: 0 }, &[places, best])?;
    let planes = cx.indices(&(&dims[0] * &dims[1]), 0, 1)?;
    let planes = cx.reshape(planes, vec![dims[0].clone(), dims[1].clone(), 1.into()])?;
    let size = cx.emit(Op::Sizes { values: vec![plane] }, &[])?;
    let planes = cx.mul(planes, size)?;
    let flat = cx.add(places, planes)?;
    cx.reshape(flat, result)
}
