//! Operators that move elements, or say where they lie, in terms of reshapes, transposes, gathers and
//! comparisons of positions.

use eec_ir::attr::Combine;
use eec_ir::{DType, Dim, Op, Tensor, ValueId};

use super::super::error::{NodeResult, Refusal, refuse};
use super::super::tensor::{dtype, type_name};
use super::node::{Cx, Results, axis_index, axis_indices};

/// Repeats along every axis: each is split off as an axis of its own, and broadcast.
pub(super) fn tile(cx: &mut Cx) -> Results {
    let x = cx.input(0)?;
    let repeats = cx.late_sizes(1, "number of repeats", |_| None)?.unwrap_or_default();
    let from = cx.dims(x);
    if repeats.len() != from.len() {
        return refuse(format!("{} repeats do not fit {}", repeats.len(), cx.ty(x)));
    }
    let split: Vec<Dim> = from.iter().flat_map(|d| [Dim::from(1), d.clone()]).collect();
    let spread: Vec<Dim> = from.iter().zip(&repeats).flat_map(|(d, r)| [r.clone(), d.clone()]).collect();
    let to = from.iter().zip(&repeats).map(|(d, r)| d * r).collect();
    let x = cx.reshape(x, split)?;
    let x = cx.expanded(x, spread)?;
    Ok(vec![cx.reshape(x, to)?])
}

/// The batch, channels, height and width of an image, and the block size.
fn blocks(cx: &mut Cx) -> NodeResult<(ValueId, [Dim; 4], Dim)> {
    let x = cx.input(0)?;
    let size = cx.int("blocksize")?.filter(|b| (1..=1 << 16).contains(b));
    let size = size.ok_or_else(|| Refusal::new("attribute `blocksize` is missing or out of range"))?;
    match <[Dim; 4]>::try_from(cx.dims(x)) {
        Ok(dims) => Ok((x, dims, size.into())),
        Err(_) => refuse(format!("needs an image [n, c, h, w], found {}", cx.ty(x))),
    }
}

fn divided(dim: &Dim, by: &Dim) -> NodeResult<Dim> {
    dim.exact_div(by).ok_or_else(|| Refusal::new(format!("{dim} is no multiple of {by}")))
}

pub(super) fn depth_to_space(cx: &mut Cx) -> Results {
    let (x, [n, c, h, w], b) = blocks(cx)?;
    let depth = divided(&c, &(&b * &b))?;
    let (dims, perm) = match cx.word("mode")?.as_deref() {
        None | Some("DCR") => ([&n, &b, &b, &depth, &h, &w], [0, 3, 4, 1, 5, 2]),
        Some("CRD") => ([&n, &depth, &b, &b, &h, &w], [0, 1, 4, 2, 5, 3]),
        Some(other) => return refuse(format!("mode `{other}` is not known")),
    };
    let x = cx.reshape(x, dims.into_iter().cloned().collect())?;
    let x = cx.transposed(x, &perm)?;
    Ok(vec![cx.reshape(x, vec![n, depth, &h * &b, &w * &b])?])
}

pub(super) fn space_to_depth(cx: &mut Cx) -> Results {
    let (x, [n, c, h, w], b) = blocks(cx)?;
    let (rows, columns) = (divided(&h, &b)?, divided(&w, &b)?);
    let dims = [&n, &c, &rows, &b, &columns, &b].into_iter().cloned().collect();
    let perm = match cx.word("mode")?.as_deref() {
        None | Some("DCR") => [0, 3, 5, 1, 2, 4],
        Some("CRD") => [0, 1, 3, 5, 2, 4],
        Some(other) => return refuse(format!("mode `{other}` is not known")),
    };
    let x = cx.reshape(x, dims)?;
    let x = cx.transposed(x, &perm)?;
    Ok(vec![cx.reshape(x, vec![n, &(&c * &b) * &b, rows, columns])?])
}

/// The upper or lower triangle of the last two dims, from the `k`-th diagonal on.
pub(super) fn trilu(cx: &mut Cx) -> Results {
    let x = cx.input(0)?;
    let upper = cx.flag("upper", true)?;
    let k = cx.const_int(1, "diagonal")?.unwrap_or(0);
    let dims = cx.dims(x);
    let [.., rows, columns] = dims.as_slice() else {
        return refuse(format!("needs a matrix, found {}", cx.ty(x)));
    };
    let (row, column) = (cx.indices(rows, 0, 2)?, cx.indices(columns, 1, 2)?);
    let diagonal = cx.scalar(DType::I64, k.clamp(-Dim::LIMIT, Dim::LIMIT) as f64)?;
    let diagonal = cx.add(row, diagonal)?;
    let op = if upper { Op::GreaterOrEqual {} } else { Op::LessOrEqual {} };
    let kept = cx.emit(op, &[column, diagonal])?;
    let zero = cx.number(x, 0.0)?;
    Ok(vec![cx.choose(kept, x, zero)?])
}

/// Ones on the `k`-th diagonal of a matrix of the operand's dims.
pub(super) fn eye_like(cx: &mut Cx) -> Results {
    let x = cx.input(0)?;
    let k = cx.int("k")?.unwrap_or(0).clamp(-Dim::LIMIT, Dim::LIMIT);
    let to = match cx.int("dtype")? {
        Some(number) => known_type(number)?,
        None => cx.ty(x).dtype,
    };
    let dims = cx.dims(x);
    let [rows, columns] = dims.as_slice() else { return refuse(format!("needs a matrix, found {}", cx.ty(x))) };
    let (row, column) = (cx.indices(rows, 0, 2)?, cx.indices(columns, 1, 2)?);
    let diagonal = cx.plus(row, k as f64)?;
    let hit = cx.emit(Op::Equal {}, &[column, diagonal])?;
    Ok(vec![cx.cast(hit, to)?])
}

/// The element type with this ONNX number.
pub(super) fn known_type(number: i64) -> NodeResult<DType> {
    let number = i32::try_from(number).unwrap_or(-1);
    dtype(number).ok_or_else(|| Refusal::new(format!("type {} is not supported", type_name(number))))
}

/// `on` at every index along a new axis of `depth`, `off` elsewhere.
pub(super) fn one_hot(cx: &mut Cx) -> Results {
    let (indices, values) = (cx.input(0)?, cx.input(2)?);
    let depth = match cx.const_numbers(1, "depth")?.as_deref() {
        Some([depth]) => Dim::from(*depth as i64),
        _ => return refuse("the depth must be one number"),
    };
    let mut dims = cx.dims(indices);
    let rank = dims.len() + 1;
    let axis = axis_index(cx.int("axis")?.unwrap_or(-1), rank)?;
    dims.insert(axis, 1.into());
    let indices = cx.cast(indices, DType::I64)?;
    let indices = cx.reshape(indices, dims)?;
    // A negative index counts from the end.
    let (zero, size) = (cx.number(indices, 0.0)?, cx.emit(Op::Sizes { values: vec![depth.clone()] }, &[])?);
    let negative = cx.emit(Op::Less {}, &[indices, zero])?;
    let wrapped = cx.add(indices, size)?;
    let indices = cx.choose(negative, wrapped, indices)?;
    let positions = cx.indices(&depth, axis, rank)?;
    let hit = cx.emit(Op::Equal {}, &[indices, positions])?;
    let [off, on] = [0i64, 1].map(|i| cx.constant(Tensor::scalar(i)));
    let [off, on] = [off, on].map(|i| cx.emit(Op::Gather { axis: 0 }, &[values, i]));
    let (off, on) = (off?, on?);
    Ok(vec![cx.choose(hit, on, off)?])
}

/// Cuts or pads axes to sizes, on both sides alike.
pub(super) fn center_crop_pad(cx: &mut Cx) -> Results {
    let mut x = cx.input(0)?;
    let rank = cx.rank(x);
    let sizes = cx.const_ints(1, "target shape")?.unwrap_or_default();
    let axes = match cx.ints("axes")? {
        Some(axes) => axis_indices(&axes, rank)?,
        None => (0..rank).collect(),
    };
    if axes.len() != sizes.len() {
        return refuse(format!("{} sizes do not fit {} axes", sizes.len(), axes.len()));
    }
    for (axis, size) in axes.into_iter().zip(sizes) {
        let dim = cx.fixed_dim(x, axis)?;
        let before = (dim - size).abs() / 2;
        if size < dim {
            x = cx.part(x, axis, [before.into(), (before + size).into()], 1)?;
        } else if size > dim {
            let mut pads = vec![Dim::from(0); 2 * rank];
            (pads[axis], pads[axis + rank]) = (before.into(), (size - dim - before).into());
            x = cx.unary(Op::Pad { pads }, x)?;
        }
    }
    Ok(vec![x])
}

pub(super) fn reverse_sequence(cx: &mut Cx) -> Results {
    let (x, lengths) = (cx.input(0)?, cx.input(1)?);
    let (time, batch) = (cx.int("time_axis")?.unwrap_or(0), cx.int("batch_axis")?.unwrap_or(1));
    let rank = cx.rank(x);
    let (time, batch) = (axis_index(time, rank)?, axis_index(batch, rank)?);
    Ok(vec![reversed_sequences(cx, x, lengths, time, batch)?])
}

/// The first elements of every sequence in reverse order, as many as the sequence is long.
pub(super) fn reversed_sequences(
    cx: &mut Cx,
    x: ValueId,
    lengths: ValueId,
    time: usize,
    batch: usize,
) -> NodeResult<ValueId> {
    let dims = cx.dims(x);
    let rank = dims.len();
    let positions = cx.indices(&dims[time], time, rank)?;
    let lengths = cx.cast(lengths, DType::I64)?;
    let lengths = cx.along(lengths, batch, rank)?;
    let last = cx.plus(lengths, -1.0)?;
    let mirrored = cx.sub(last, positions)?;
    let inside = cx.emit(Op::Less {}, &[positions, lengths])?;
    let source = cx.choose(inside, mirrored, positions)?;
    let source = cx.expanded(source, dims)?;
    cx.emit(Op::GatherElements { axis: time as i64 }, &[x, source])
}

/// How updates are combined.
fn combine(cx: &mut Cx) -> NodeResult<Combine> {
    let word = cx.word("reduction")?.unwrap_or_else(|| "none".into());
    Combine::from_word(&word).ok_or_else(|| Refusal::new(format!("reduction `{word}` is not known")))
}

pub(super) fn scatter_elements(cx: &mut Cx) -> Results {
    let inputs = cx.all_inputs()?;
    let (axis, reduction) = (cx.int("axis")?.unwrap_or(0), combine(cx)?);
    Ok(vec![cx.emit(Op::ScatterElements { axis, reduction }, &inputs)?])
}

pub(super) fn scatter_nd(cx: &mut Cx) -> Results {
    let inputs = cx.all_inputs()?;
    let reduction = combine(cx)?;
    Ok(vec![cx.emit(Op::ScatterND { reduction }, &inputs)?])
}

/// Writes an update into a cache along an axis, per sample from an index on, perhaps going round.
pub(super) fn tensor_scatter(cx: &mut Cx) -> Results {
    let (cache, update) = (cx.input(0)?, cx.input(1)?);
    let rank = cx.rank(cache);
    let axis = cx.axis(-2)?;
    let circular = match cx.word("mode")?.as_deref() {
        None | Some("linear") => false,
        Some("circular") => true,
        Some(other) => return refuse(format!("mode `{other}` is not known")),
    };
    let (length, dims) = (cx.dims(cache)[axis].clone(), cx.dims(update));
    let mut at = cx.indices(&dims[axis], axis, rank)?;
    if let Some(first) = cx.optional(2) {
        let first = cx.along(first, 0, rank)?;
        at = cx.add(at, first)?;
    }
    if circular {
        let length = cx.emit(Op::Sizes { values: vec![length] }, &[])?;
        at = cx.emit(Op::Mod { fmod: false }, &[at, length])?;
    }
    let at = cx.expanded(at, dims)?;
    let op = Op::ScatterElements { axis: axis as i64, reduction: Combine::None };
    Ok(vec![cx.emit(op, &[cache, at, update])?])
}
