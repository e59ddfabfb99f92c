//! `Attention` and `RotaryEmbedding` in terms of products, softmax and comparisons of positions.
//!
//! Specification: <https://onnx.ai/onnx/operators/onnx__Attention.html>,
//! <https://onnx.ai/onnx/operators/onnx__RotaryEmbedding.html>.

use eec_ir::{DType, Dim, Op, ValueId};

use super::super::error::{NodeResult, Refusal, refuse};
use super::node::{Cx, Results};
use super::rearrange::known_type;

/// The attributes of an attention.
struct Options {
    causal: bool,
    scale: Option<f32>,
    softcap: f32,
    heads: [Option<i64>; 2],
    /// Which scores are the fourth result: raw, capped, masked, or the probabilities.
    scores: i64,
    /// The type in which the softmax is computed.
    precision: Option<DType>,
    /// Keys before and after a query's position that it sees; -1 is no limit.
    window: [i64; 2],
}

impl Options {
    fn read(cx: &mut Cx) -> NodeResult<Options> {
        Ok(Options {
            causal: cx.flag("is_causal", false)?,
            scale: cx.float("scale")?,
            softcap: cx.float("softcap")?.unwrap_or(0.0),
            heads: [cx.int("q_num_heads")?, cx.int("kv_num_heads")?],
            scores: cx.int("qk_matmul_output_mode")?.unwrap_or(0),
            precision: cx.int("softmax_precision")?.map(known_type).transpose()?,
            window: [cx.int("left_window_size")?.unwrap_or(-1), cx.int("right_window_size")?.unwrap_or(-1)],
        })
    }
}

/// `[batch, sequence, heads·size]` as `[batch, heads, sequence, size]`; what has four dims stays.
pub(super) fn by_heads(cx: &mut Cx, x: ValueId, heads: Option<i64>) -> NodeResult<ValueId> {
    let dims = cx.dims(x);
    let (batch, sequence, width) = match dims.as_slice() {
        [_, _, _, _] => return Ok(x),
        [batch, sequence, width] => (batch.clone(), sequence.clone(), width.clone()),
        _ => return refuse(format!("needs 3 or 4 dims, found {}", cx.ty(x))),
    };
    let heads = Dim::from(heads.ok_or_else(|| Refusal::new("the number of heads is missing"))?);
    let size = width.exact_div(&heads).ok_or_else(|| Refusal::new(format!("{width} is not {heads} heads")))?;
    let split = cx.reshape(x, vec![batch, sequence, heads, size])?;
    cx.transposed(split, &[0, 2, 1, 3])
}

/// The inverse of [`by_heads`] for three dims.
pub(super) fn merged_heads(cx: &mut Cx, x: ValueId) -> NodeResult<ValueId> {
    let x = cx.transposed(x, &[0, 2, 1, 3])?;
    let dims = cx.dims(x);
    cx.reshape(x, vec![dims[0].clone(), dims[1].clone(), &dims[2] * &dims[3]])
}

/// Every head `count` times, one after the other.
pub(super) fn repeated_heads(cx: &mut Cx, x: ValueId, count: &Dim) -> NodeResult<ValueId> {
    if *count == Dim::from(1) {
        return Ok(x);
    }
    let dims = cx.dims(x);
    let [batch, heads, sequence, size] = dims.as_slice() else { return refuse("heads need four dims") };
    let split = |n: &Dim| vec![batch.clone(), heads.clone(), n.clone(), sequence.clone(), size.clone()];
    let x = cx.reshape(x, split(&Dim::from(1)))?;
    let x = cx.expanded(x, split(count))?;
    cx.reshape(x, vec![batch.clone(), heads * count, sequence.clone(), size.clone()])
}

pub(super) fn attention(cx: &mut Cx) -> Results {
    let options = Options::read(cx)?;
    let (q_given, k_given, v_given) = (cx.input(0)?, cx.input(1)?, cx.input(2)?);
    let flat = cx.rank(q_given) == 3;
    let [q_heads, kv_heads] = options.heads;
    let q = by_heads(cx, q_given, q_heads)?;
    let key = cached(cx, k_given, kv_heads, 4)?;
    let value = cached(cx, v_given, kv_heads, 5)?;
    let (q, own) = cx.widened(q)?;
    let ((k, _), (v, v_own)) = (cx.widened(key)?, cx.widened(value)?);
    let group = cx.dims(q)[1].exact_div(&cx.dims(k)[1]);
    let group = group.ok_or_else(|| Refusal::new("the heads of queries are no multiple of those of keys"))?;
    let (k, v) = (repeated_heads(cx, k, &group)?, repeated_heads(cx, v, &group)?);
    let (probabilities, scores) = weights(cx, &options, q, k)?;
    let y = cx.emit(Op::MATMUL, &[probabilities, v])?;
    let y = cx.cast(y, v_own)?;
    let y = if flat { merged_heads(cx, y)? } else { y };
    Ok(vec![y, key, value, cx.cast(scores, own)?])
}

/// Keys or values by heads, after those of operand `past`, if it is given.
fn cached(cx: &mut Cx, x: ValueId, heads: Option<i64>, past: usize) -> NodeResult<ValueId> {
    let x = by_heads(cx, x, heads)?;
    match cx.optional(past) {
        Some(past) => cx.emit(Op::Concat { axis: 2 }, &[past, x]),
        None => Ok(x),
    }
}

/// The probabilities, and the scores that the attributes ask for.
fn weights(cx: &mut Cx, options: &Options, q: ValueId, k: ValueId) -> NodeResult<(ValueId, ValueId)> {
    let size = cx.fixed_dim(q, 3)?;
    let scale = options.scale.filter(|s| *s != 0.0).map_or_else(|| 1.0 / (size as f64).sqrt(), f64::from);
    let turned = cx.transposed(k, &[0, 1, 3, 2])?;
    let product = cx.emit(Op::MATMUL, &[q, turned])?;
    let scores = cx.times(product, scale)?;
    let scores = capped(cx, scores, options.softcap)?;
    let bias = bias(cx, options, q, k)?;
    let masked = match bias {
        Some(bias) => cx.add(scores, bias)?,
        None => scores,
    };
    let own = cx.ty(masked).dtype;
    let precise = cx.cast(masked, options.precision.filter(|p| p.bits() > own.bits()).unwrap_or(own))?;
    let soft = cx.unary(Op::Softmax { axis: -1 }, precise)?;
    let soft = cx.cast(soft, own)?;
    let probabilities = if bias.is_some() { zero_for_nan(cx, soft)? } else { soft };
    let shown = match options.scores {
        0 | 1 => scores,
        2 => masked,
        3 => probabilities,
        other => return refuse(format!("`qk_matmul_output_mode` {other} is not known")),
    };
    Ok((probabilities, shown))
}

/// `cap·tanh(x/cap)`; `x` itself if the cap is 0.
pub(super) fn capped(cx: &mut Cx, x: ValueId, cap: f32) -> NodeResult<ValueId> {
    if cap <= 0.0 {
        return Ok(x);
    }
    let cap = f64::from(cap);
    let small = cx.times(x, 1.0 / cap)?;
    let bounded = cx.unary(Op::Tanh {}, small)?;
    cx.times(bounded, cap)
}

/// A query that sees no key at all has scores of `-inf` alone, whose softmax is NaN; its weights are 0.
fn zero_for_nan(cx: &mut Cx, x: ValueId) -> NodeResult<ValueId> {
    let nan = cx.unary(Op::IsNaN {}, x)?;
    let zero = cx.number(x, 0.0)?;
    cx.choose(nan, zero, x)
}

/// What is added to the scores: 0 where a query sees a key, `-inf` where it does not, and the mask.
fn bias(cx: &mut Cx, options: &Options, q: ValueId, k: ValueId) -> NodeResult<Option<ValueId>> {
    let (queries, keys) = (cx.dims(q)[2].clone(), cx.dims(k)[2].clone());
    let mut seen = seen_by_position(cx, options, &queries, &keys)?;
    if let Some(lengths) = cx.optional(6) {
        let positions = cx.indices(&keys, 3, 4)?;
        let lengths = cx.cast(lengths, DType::I64)?;
        let lengths = cx.along(lengths, 0, 4)?;
        seen.push(cx.emit(Op::Less {}, &[positions, lengths])?);
    }
    let mut added = None;
    if let Some(mask) = cx.optional(3) {
        let mask = full_mask(cx, mask, &keys)?;
        if cx.ty(mask).dtype == DType::Bool {
            seen.push(mask);
        } else {
            let dtype = cx.ty(q).dtype;
            added = Some(cx.cast(mask, dtype)?);
        }
    }
    let Some(first) = seen.first().copied() else { return Ok(added) };
    let mut all = first;
    for other in &seen[1..] {
        all = cx.emit(Op::And {}, &[all, *other])?;
    }
    let (zero, hidden) = (cx.number(q, 0.0)?, cx.number(q, f64::NEG_INFINITY)?);
    let hiding = cx.choose(all, zero, hidden)?;
    match added {
        Some(mask) => cx.add(mask, hiding).map(Some),
        None => Ok(Some(hiding)),
    }
}

/// Where a causal or windowed query sees a key. The first query stands after the cached keys, or, where
/// only the number of valid keys is known, so that the last query stands at the last of them.
fn seen_by_position(cx: &mut Cx, options: &Options, queries: &Dim, keys: &Dim) -> NodeResult<Vec<ValueId>> {
    let [left, right] = options.window;
    if !options.causal && left < 0 && right < 0 {
        return Ok(Vec::new());
    }
    let (row, column) = (cx.indices(queries, 2, 4)?, cx.indices(keys, 3, 4)?);
    let first = match (cx.optional(4), cx.optional(6)) {
        (Some(past), _) => {
            let cached = cx.dims(past)[2].clone();
            let size = cx.emit(Op::Sizes { values: vec![cached] }, &[])?;
            Some(cx.along(size, 0, 4)?)
        }
        (None, Some(lengths)) => {
            let size = cx.emit(Op::Sizes { values: vec![queries.clone()] }, &[])?;
            let lengths = cx.cast(lengths, DType::I64)?;
            let before = cx.sub(lengths, size)?;
            Some(cx.along(before, 0, 4)?)
        }
        (None, None) => None,
    };
    let row = first.map_or(Ok(row), |first| cx.add(row, first))?;
    let ahead = cx.sub(column, row)?;
    let mut seen = Vec::new();
    for (limit, op) in [
        (options.causal.then_some(0), Op::LessOrEqual {}),
        ((right >= 0).then_some(right), Op::LessOrEqual {}),
        ((left >= 0).then_some(-left), Op::GreaterOrEqual {}),
    ] {
        let Some(limit) = limit else { continue };
        let limit = cx.scalar(DType::I64, limit as f64)?;
        seen.push(cx.emit(op, &[ahead, limit])?);
    }
    Ok(seen)
}

/// The mask, lengthened to all keys by ones that hide them.
fn full_mask(cx: &mut Cx, mask: ValueId, keys: &Dim) -> NodeResult<ValueId> {
    let dims = cx.dims(mask);
    let Some(last) = dims.last() else { return Ok(mask) };
    let missing = keys - last;
    if missing == Dim::from(0) || last.as_const() == Some(1) || !missing.is_at_least(0) {
        return Ok(mask);
    }
    let mut pads = vec![Dim::from(0); 2 * dims.len()];
    pads[2 * dims.len() - 1] = missing;
    if cx.ty(mask).dtype == DType::Bool {
        return cx.unary(Op::Pad { pads }, mask);
    }
    let hidden = cx.number(mask, f64::NEG_INFINITY)?;
    cx.emit(Op::Pad { pads }, &[mask, hidden])
}

/// Pairs of elements turned by angles that depend on the position.
pub(super) fn rotary_embedding(cx: &mut Cx) -> Results {
    let given = cx.input(0)?;
    let heads = cx.int("num_heads")?.filter(|n| *n != 0);
    let interleaved = cx.flag("interleaved", false)?;
    let width = cx.int("rotary_embedding_dim")?.filter(|d| *d != 0);
    let x = by_heads(cx, given, heads)?;
    let size = cx.fixed_dim(x, 3)?;
    let [cos, sin] = [angles(cx, 1)?, angles(cx, 2)?];
    let y = turned(cx, x, [cos, sin], width.unwrap_or(size), interleaved)?;
    Ok(vec![if cx.rank(given) == 3 { merged_heads(cx, y)? } else { y }])
}

/// `x`, by heads, with the first `width` elements turned in pairs by the angles with these cosines and sines.
pub(super) fn turned(
    cx: &mut Cx,
    x: ValueId,
    [cos, sin]: [ValueId; 2],
    width: i64,
    interleaved: bool,
) -> NodeResult<ValueId> {
    let size = cx.fixed_dim(x, 3)?;
    if !(0..=size).contains(&width) || width % 2 != 0 {
        return refuse(format!("{width} of {size} elements cannot be turned in pairs"));
    }
    let first = cx.part(x, 3, [0.into(), width.into()], 1)?;
    let (a, b) = pairs(cx, first, width, interleaved)?;
    let (real, imaginary) = rotated(cx, a, b, cos, sin)?;
    let first = if interleaved {
        let dims = cx.dims(real);
        let mut column = dims.clone();
        column.push(1.into());
        let (real, imaginary) = (cx.reshape(real, column.clone())?, cx.reshape(imaginary, column)?);
        let joined = cx.emit(Op::Concat { axis: 4 }, &[real, imaginary])?;
        let merged = dims[..3].iter().cloned().chain([width.into()]).collect();
        cx.reshape(joined, merged)?
    } else {
        cx.emit(Op::Concat { axis: 3 }, &[real, imaginary])?
    };
    if width == size {
        return Ok(first);
    }
    let rest = cx.part(x, 3, [width.into(), size.into()], 1)?;
    cx.emit(Op::Concat { axis: 3 }, &[first, rest])
}

/// The cosines or sines of operand `i` as `[batch, 1, sequence, pairs]`.
fn angles(cx: &mut Cx, i: usize) -> NodeResult<ValueId> {
    let mut table = cx.input(i)?;
    if let Some(positions) = cx.optional(3) {
        table = cx.emit(Op::Gather { axis: 0 }, &[table, positions])?;
    }
    let dims = cx.dims(table);
    let [batch, sequence, pairs] = dims.as_slice() else {
        return refuse(format!("operand {i} must have 3 dims here, found {}", cx.ty(table)));
    };
    cx.reshape(table, vec![batch.clone(), 1.into(), sequence.clone(), pairs.clone()])
}

/// The first and the second elements of all pairs.
fn pairs(cx: &mut Cx, x: ValueId, width: i64, interleaved: bool) -> NodeResult<(ValueId, ValueId)> {
    let half = width / 2;
    let bounds = if interleaved { [[0, width], [1, width]] } else { [[0, half], [half, width]] };
    let step = if interleaved { 2 } else { 1 };
    let [a, b] = bounds.map(|bounds| cx.part(x, 3, bounds.map(Dim::from), step));
    Ok((a?, b?))
}

fn rotated(cx: &mut Cx, a: ValueId, b: ValueId, cos: ValueId, sin: ValueId) -> NodeResult<(ValueId, ValueId)> {
    let (ac, bs, bc, as_) = (cx.mul(cos, a)?, cx.mul(sin, b)?, cx.mul(cos, b)?, cx.mul(sin, a)?);
    Ok((cx.sub(ac, bs)?, cx.add(as_, bc)?))
}
