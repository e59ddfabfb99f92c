//! The attentions of the domain `com.microsoft` in terms of products, softmax and comparisons of positions.
//!
//! Specification: <https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md>.

use eec_ir::{DType, Dim, Op, ValueId};

use super::super::error::{NodeResult, Refusal, refuse};
use super::attention::{by_heads, capped, merged_heads, turned};
use super::contrib::{biased, columns};
use super::node::{Cx, Results};

/// Queries, keys and values by heads.
pub(super) type Qkv = [ValueId; 3];

/// What is done to scores before their softmax.
pub(super) struct Scores {
    /// 1/√size if it is not given.
    pub(super) scale: Option<f32>,
    pub(super) softcap: f32,
    /// Added, in this order.
    pub(super) biases: Vec<ValueId>,
}

/// What stands at hidden positions unless a node says otherwise.
const FILTER: f32 = -10_000.0;

/// Softmax of the scores times the values, by heads.
pub(super) fn attended(cx: &mut Cx, [q, k, v]: Qkv, scores: &Scores) -> NodeResult<ValueId> {
    let ((q, _), (k, _), (v, own)) = (cx.widened(q)?, cx.widened(k)?, cx.widened(v)?);
    let size = cx.fixed_dim(q, 3)?;
    let scale = scores.scale.filter(|s| *s != 0.0).map_or_else(|| 1.0 / (size as f64).sqrt(), f64::from);
    let keys = cx.transposed(k, &[0, 1, 3, 2])?;
    let product = cx.emit(Op::MATMUL, &[q, keys])?;
    let scaled = cx.times(product, scale)?;
    let mut x = capped(cx, scaled, scores.softcap)?;
    let mut biases = scores.biases.iter();
    if let Some(first) = biases.next() {
        let mut bias = cx.widened(*first)?.0;
        for other in biases {
            let other = cx.widened(*other)?.0;
            bias = cx.add(bias, other)?;
        }
        x = cx.add(x, bias)?;
    }
    let weights = cx.unary(Op::Softmax { axis: -1 }, x)?;
    let y = cx.emit(Op::MATMUL, &[weights, v])?;
    cx.cast(y, own)
}

/// 0 where `seen` holds, `hidden` elsewhere, as f32.
pub(super) fn bias(cx: &mut Cx, seen: ValueId, hidden: f32) -> NodeResult<ValueId> {
    let (zero, hidden) = (cx.scalar(DType::F32, 0.0)?, cx.scalar(DType::F32, hidden.into())?);
    cx.choose(seen, zero, hidden)
}

/// Which keys a mask of padding shows, `[batch, 1, 1 or queries, keys]`: ends, or ends and starts, of
/// every row's keys, or a flag per key, or per query and key.
fn shown(cx: &mut Cx, mask: ValueId, batch: &Dim, keys: &Dim) -> NodeResult<ValueId> {
    let dims = cx.dims(mask);
    let one = Dim::from(1);
    let flags = |cx: &mut Cx, dims: Vec<Dim>| {
        let flags = cx.cast(mask, DType::Bool)?;
        cx.reshape(flags, dims)
    };
    match dims.as_slice() {
        [b, t] => flags(cx, vec![b.clone(), one.clone(), one, t.clone()]),
        [b, s, t] => flags(cx, vec![b.clone(), one, s.clone(), t.clone()]),
        [ends] => {
            let positions = cx.indices(keys, 3, 4)?;
            let bounds = cx.cast(mask, DType::I64)?;
            if ends == batch {
                let ends = cx.along(bounds, 0, 4)?;
                return cx.emit(Op::Less {}, &[positions, ends]);
            }
            if *ends != batch + batch {
                return refuse(format!("a mask of type {} is not supported", cx.ty(mask)));
            }
            let [until, from] = [[0.into(), batch.clone()], [batch.clone(), ends.clone()]].map(|bounds_of| {
                let half = cx.part(bounds, 0, bounds_of, 1)?;
                cx.along(half, 0, 4)
            });
            let (before, after) = (until?, from?);
            let (before, after) =
                (cx.emit(Op::Less {}, &[positions, before])?, cx.emit(Op::GreaterOrEqual {}, &[positions, after])?);
            cx.emit(Op::And {}, &[before, after])
        }
        _ => refuse(format!("a mask of type {} is not supported", cx.ty(mask))),
    }
}

/// Where queries after `past` keys see no later ones, `[1, 1, queries, keys]`.
fn earlier(cx: &mut Cx, queries: &Dim, past: &Dim) -> NodeResult<ValueId> {
    let rows = cx.emit(Op::Range { start: past.clone(), limit: past + queries, delta: 1 }, &[])?;
    let rows = cx.along(rows, 2, 4)?;
    let keys = cx.indices(&(past + queries), 3, 4)?;
    cx.emit(Op::LessOrEqual {}, &[keys, rows])
}

/// The attributes that both attentions have.
fn scores(cx: &mut Cx, mask: usize, bias_at: usize, q: ValueId, k: ValueId, past: &Dim) -> NodeResult<Scores> {
    let filter = cx.float("mask_filter_value")?.unwrap_or(FILTER);
    let mut scores = Scores { scale: cx.float("scale")?, softcap: 0.0, biases: Vec::new() };
    let (batch, queries, keys) = (cx.dims(q)[0].clone(), cx.dims(q)[2].clone(), cx.dims(k)[2].clone());
    if let Some(mask) = cx.optional(mask) {
        let seen = shown(cx, mask, &batch, &keys)?;
        scores.biases.push(bias(cx, seen, filter)?);
    }
    if cx.flag("unidirectional", false)? {
        let seen = earlier(cx, &queries, past)?;
        scores.biases.push(bias(cx, seen, f32::MIN)?);
    }
    scores.biases.extend(cx.optional(bias_at));
    Ok(scores)
}

/// Refuses operands from `first` on, which `what` names.
pub(super) fn without(cx: &Cx, first: usize, what: &str) -> NodeResult<()> {
    match (first..first + 8).any(|i| cx.optional(i).is_some()) {
        true => refuse(format!("{what} is not supported")),
        false => Ok(()),
    }
}

/// The number of heads in the attribute `name`.
pub(super) fn heads(cx: &mut Cx, name: &str) -> NodeResult<i64> {
    let heads = cx.int(name)?.filter(|n| (1..=MAX_HEADS).contains(n));
    heads.ok_or_else(|| Refusal::new(format!("attribute `{name}` is missing, or not in 1 to {MAX_HEADS}")))
}

/// Heads at most: sums and products of their numbers with sizes stay far from overflow.
const MAX_HEADS: i64 = 1 << 16;

/// One projection to queries, keys and values, then attention, also to the keys and values of `past`.
pub(super) fn attention(cx: &mut Cx) -> Results {
    let count = heads(cx, "num_heads")?;
    if cx.flag("do_rotary", false)? || cx.flag("past_present_share_buffer", false)? {
        return refuse("rotated or shared caches are not supported");
    }
    cx.int("rotary_embedding_dim")?;
    without(cx, 6, "the length of a shared cache")?;
    let (x, weights) = (cx.input(0)?, cx.input(1)?);
    if cx.rank(x) != 3 {
        return refuse(format!("operand 1 has rank {}, not 3", cx.rank(x)));
    }
    let product = cx.emit(Op::MATMUL, &[x, weights])?;
    let product = biased(cx, product, 2)?;
    let width = cx.fixed_dim(product, cx.rank(product) - 1)?;
    let widths = cx.ints("qkv_hidden_sizes")?.unwrap_or_else(|| vec![width / 3; 3]);
    if widths.len() != 3
        || widths.iter().any(|w| *w < 0)
        || widths.iter().try_fold(0i64, |s, w| s.checked_add(*w)) != Some(width)
    {
        return refuse(format!("{width} columns are not {widths:?}"));
    }
    let mut start = 0;
    let mut qkv = [product; 3];
    for (part, width) in qkv.iter_mut().zip(widths) {
        let of_part = columns(cx, product, &start.into(), &width.into())?;
        *part = by_heads(cx, of_part, Some(count))?;
        start += width;
    }
    let mut past = Dim::from(0);
    if let Some(cache) = cx.optional(4) {
        past = cx.dims(cache).get(3).cloned().ok_or_else(|| Refusal::new("the cache needs five dims"))?;
        for (i, x) in qkv[1..].iter_mut().enumerate() {
            let half = cx.part(cache, 0, [i as i64, i as i64 + 1].map(Dim::from), 1)?;
            let dims = cx.dims(cache)[1..].to_vec();
            let half = cx.reshape(half, dims)?;
            *x = cx.emit(Op::Concat { axis: 2 }, &[half, *x])?;
        }
    }
    let [q, k, v] = qkv;
    let scores = scores(cx, 3, 5, q, k, &past)?;
    let y = attended(cx, qkv, &scores)?;
    let mut results = vec![merged_heads(cx, y)?];
    if cx.asks_for(1) {
        let row = |cx: &mut Cx, x| {
            let dims = std::iter::once(Dim::from(1)).chain(cx.dims(x)).collect();
            cx.reshape(x, dims)
        };
        let (k, v) = (row(cx, k)?, row(cx, v)?);
        results.push(cx.emit(Op::Concat { axis: 0 }, &[k, v])?);
    }
    Ok(results)
}

/// Attention between given queries, keys and values: apart, or packed into the first operands.
pub(super) fn multi_head_attention(cx: &mut Cx) -> Results {
    let count = heads(cx, "num_heads")?;
    without(cx, 8, "a shared cache")?;
    let [q, k, v] = given(cx, count)?;
    let (k, v) = (cached(cx, k, 6)?, cached(cx, v, 7)?);
    let past = cx.optional(6).map_or(Dim::from(0), |past| cx.dims(past)[2].clone());
    let scores = scores(cx, 4, 5, q, k, &past)?;
    let y = attended(cx, [q, k, v], &scores)?;
    Ok(vec![merged_heads(cx, y)?, k, v])
}

/// Queries, keys and values by heads, with their parts of the bias.
fn given(cx: &mut Cx, count: i64) -> NodeResult<Qkv> {
    let packed = |cx: &mut Cx, x: ValueId, at: i64| {
        // `[batch, sequence, heads, parts, size]`
        let part = cx.part(x, 3, [at.into(), (at + 1).into()], 1)?;
        let mut dims = cx.dims(part);
        dims.remove(3);
        let part = cx.reshape(part, dims)?;
        cx.transposed(part, &[0, 2, 1, 3])
    };
    let query = cx.input(0)?;
    let biased_heads = |cx: &mut Cx, x: ValueId, start: &Dim| {
        let mut x = x;
        if let Some(bias) = cx.optional(3) {
            let width = cx.dims(x).last().cloned().unwrap_or_default();
            let bias = columns(cx, bias, start, &width)?;
            x = cx.add(x, bias)?;
        }
        by_heads(cx, x, Some(count))
    };
    let width = |cx: &Cx, x: ValueId| cx.dims(x).last().cloned().unwrap_or_default();
    let Some(key) = cx.optional(1) else {
        if cx.rank(query) != 5 || cx.optional(3).is_some() {
            return refuse(format!("queries of type {} without keys are not supported", cx.ty(query)));
        }
        return Ok([packed(cx, query, 0)?, packed(cx, query, 1)?, packed(cx, query, 2)?]);
    };
    let q = biased_heads(cx, query, &0.into())?;
    match (cx.rank(key), cx.optional(2)) {
        (5, None) => Ok([q, packed(cx, key, 0)?, packed(cx, key, 1)?]),
        (4, Some(value)) if cx.rank(value) == 4 => Ok([q, key, value]),
        (3, Some(value)) => {
            let start = width(cx, query);
            let k = biased_heads(cx, key, &start)?;
            let start = &start + &width(cx, key);
            Ok([q, k, biased_heads(cx, value, &start)?])
        }
        _ => refuse(format!("keys of type {} are not supported", cx.ty(key))),
    }
}

/// Keys or values after those of operand `past`, if it is given.
pub(super) fn cached(cx: &mut Cx, x: ValueId, past: usize) -> NodeResult<ValueId> {
    let Some(past) = cx.optional(past) else { return Ok(x) };
    if cx.rank(past) != 4 {
        return refuse(format!("a cache of type {} is not supported", cx.ty(past)));
    }
    cx.emit(Op::Concat { axis: 2 }, &[past, x])
}

/// Pairs of elements turned by angles that depend on given positions, or on a first position.
pub(super) fn rotary_embedding(cx: &mut Cx) -> Results {
    let interleaved = cx.flag("interleaved", false)?;
    if cx.flag("is_packed_batching", false)? || cx.float_or("scale", 1.0)? != 1.0 {
        return refuse("packed batches and scales are not supported");
    }
    let (count, width) = (cx.int("num_heads")?.filter(|n| *n > 0), cx.int("rotary_embedding_dim")?.filter(|n| *n > 0));
    let (given, positions) = (cx.input(0)?, cx.input(1)?);
    if !(3..=4).contains(&cx.rank(given)) {
        return refuse(format!("operand 1 has rank {}, not 3 or 4", cx.rank(given)));
    }
    let pairs = cx.fixed_dim(cx.input(2)?, 1)?;
    let x = if cx.rank(given) == 3 {
        let size = 2 * pairs;
        let columns = cx.fixed_dim(given, 2)?;
        let count = if width.is_some() { count } else { Some(columns / size.max(1)) };
        by_heads(cx, given, count)?
    } else {
        given
    };
    let sequence = cx.dims(x)[2].clone();
    let positions = cx.cast(positions, DType::I64)?;
    let positions = if cx.rank(positions) == 1 {
        let all = cx.indices(&sequence, 1, 2)?;
        cx.add(all, positions)?
    } else {
        positions
    };
    let y = rotated_at(cx, x, [2, 3], positions, interleaved)?;
    Ok(vec![if cx.rank(given) == 3 { merged_heads(cx, y)? } else { y }])
}

/// `x`, by heads, turned by the angles of `positions` `[batch or 1, sequence]` in two tables of operands.
pub(super) fn rotated_at(
    cx: &mut Cx,
    x: ValueId,
    tables: [usize; 2],
    positions: ValueId,
    interleaved: bool,
) -> NodeResult<ValueId> {
    let mut angles = [x; 2];
    let width = 2 * cx.fixed_dim(cx.input(tables[0])?, 1)?;
    for (angle, table) in angles.iter_mut().zip(tables) {
        let table = cx.input(table)?;
        let rows = cx.emit(Op::Gather { axis: 0 }, &[table, positions])?;
        let dims = cx.dims(rows);
        let [batch, sequence, pairs] = dims.as_slice() else {
            return refuse(format!("positions of type {} are not supported", cx.ty(positions)));
        };
        *angle = cx.reshape(rows, vec![batch.clone(), 1.into(), sequence.clone(), pairs.clone()])?;
    }
    turned(cx, x, angles, width, interleaved)
}
