//! `GroupQueryAttention`: heads of queries that share keys and values, over a cache of rows of several lengths.
//!
//! Specification: <https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md>.

use eec_ir::{DType, Dim, Op, ValueId};

use super::super::error::{NodeResult, Refusal, refuse};
use super::attention::{by_heads, merged_heads, repeated_heads};
use super::contrib::columns;
use super::contrib_attention::{Qkv, Scores, attended, bias, cached, heads, rotated_at, without};
use super::node::{Cx, Results};

/// The attributes of a grouped attention.
struct Grouped {
    heads: i64,
    kv_heads: i64,
    rotary: bool,
    interleaved: bool,
    /// Keys up to a query's own that it sees; none for all of them.
    window: Option<i64>,
    scores: Scores,
}

impl Grouped {
    fn read(cx: &mut Cx) -> NodeResult<Grouped> {
        let plain = cx.flag("smooth_softmax", false)? || cx.int("qk_output")?.is_some_and(|mode| mode != 0);
        let quantised = [cx.word("k_quant_type")?, cx.word("v_quant_type")?];
        let quantised = quantised.into_iter().flatten().any(|kind| kind != "NONE")
            || cx.int("kv_cache_bit_width")?.is_some_and(|b| b != 0);
        if plain || quantised {
            return refuse("a smooth softmax, a result of scores, and quantised caches are not supported");
        }
        without(cx, 11, "a sink")?;
        Ok(Grouped {
            heads: heads(cx, "num_heads")?,
            kv_heads: heads(cx, "kv_num_heads")?,
            rotary: cx.flag("do_rotary", false)?,
            interleaved: cx.flag("rotary_interleaved", false)?,
            window: cx.int("local_window_size")?.filter(|w| *w > 0),
            scores: Scores {
                scale: cx.float("scale")?,
                softcap: cx.float("softcap")?.unwrap_or(0.0),
                biases: cx.optional(10).into_iter().collect(),
            },
        })
    }
}

/// Causal attention in which several heads of queries share one of keys and values, over a cache whose
/// rows may be of different lengths.
///
/// The cache must grow: its new length is that of the old one and the sequence together.
pub(super) fn group_query_attention(cx: &mut Cx) -> Results {
    let mut options = Grouped::read(cx)?;
    let [mut q, mut k, v] = grouped(cx, &options)?;
    let (batch, queries) = (cx.dims(q)[0].clone(), cx.dims(q)[2].clone());
    let past = cx.optional(3).map_or(Dim::from(0), |past| cx.dims(past).get(2).cloned().unwrap_or_default());
    let total = &past + &queries;
    match cx.sizes(6, "length of the cache")?.as_deref() {
        Some([one]) => cx.assume_equal(one, &total)?,
        _ => return refuse("the total length must be one number"),
    }
    let first = first_position(cx, &batch, &past, &queries)?;
    if options.rotary {
        let positions = match cx.optional(9) {
            Some(positions) => positions,
            None => {
                let all = cx.indices(&queries, 1, 2)?;
                let first = cx.along(first, 0, 2)?;
                cx.add(all, first)?
            }
        };
        q = rotated_at(cx, q, [7, 8], positions, options.interleaved)?;
        k = rotated_at(cx, k, [7, 8], positions, options.interleaved)?;
    }
    let ragged = past != Dim::from(0) && batch != Dim::from(1);
    let mut caches = [k, v];
    for (i, cache) in caches.iter_mut().enumerate() {
        let new = *cache;
        *cache = cached(cx, new, 3 + i)?;
        if ragged {
            *cache = closed_up(cx, *cache, first, &past, &queries)?;
        }
    }
    let seen = seen(cx, &options, first, &queries, &total)?;
    options.scores.biases.insert(0, bias(cx, seen, f32::NEG_INFINITY)?);
    let group = Dim::from(options.heads).exact_div(&options.kv_heads.into());
    let group = group.ok_or_else(|| Refusal::new("the heads of queries are no multiple of those of keys"))?;
    let [k, v] = caches;
    let (k_all, v_all) = (repeated_heads(cx, k, &group)?, repeated_heads(cx, v, &group)?);
    let y = attended(cx, [q, k_all, v_all], &options.scores)?;
    Ok(vec![merged_heads(cx, y)?, k, v])
}

/// Queries, keys and values by heads: apart, or side by side in the first operand.
fn grouped(cx: &mut Cx, options: &Grouped) -> NodeResult<Qkv> {
    let (q, counts) = (cx.input(0)?, [options.heads, options.kv_heads, options.kv_heads]);
    let mut parts = [q; 3];
    match (cx.optional(1), cx.optional(2)) {
        (Some(k), Some(v)) => (parts[1], parts[2]) = (k, v),
        (None, None) => {
            let size = cx.fixed_dim(q, 2)? / counts.iter().sum::<i64>();
            let mut start = Dim::from(0);
            for (part, count) in parts.iter_mut().zip(counts) {
                let width = Dim::from(count * size);
                *part = columns(cx, q, &start, &width)?;
                start = &start + &width;
            }
        }
        _ => return refuse("keys and values must be given together"),
    }
    for (part, count) in parts.iter_mut().zip(counts) {
        *part = by_heads(cx, *part, Some(count))?;
    }
    Ok(parts)
}

/// The position of each row's first query, `[batch or 1]`: after the keys that its cache holds.
fn first_position(cx: &mut Cx, batch: &Dim, past: &Dim, queries: &Dim) -> NodeResult<ValueId> {
    if *past == Dim::from(0) || *batch == Dim::from(1) {
        return cx.emit(Op::Sizes { values: vec![past.clone()] }, &[]);
    }
    // Operand 5 is the position of each row's last key. In a first run rows may be shorter than the sequence.
    let last = cx.input(5)?;
    let last = cx.cast(last, DType::I64)?;
    let last = cx.along(last, 0, 1)?;
    let before = cx.emit(Op::Sizes { values: vec![queries - &1.into()] }, &[])?;
    let first = cx.sub(last, before)?;
    cx.at_least(first, 0.0)
}

/// The cache with new keys or values right after each row's own old ones.
fn closed_up(cx: &mut Cx, cache: ValueId, first: ValueId, past: &Dim, queries: &Dim) -> NodeResult<ValueId> {
    let dims = cx.dims(cache);
    let positions = cx.indices(&dims[2], 2, 4)?;
    let first = cx.along(first, 0, 4)?;
    let new = cx.sub(positions, first)?;
    let new = cx.at_least(new, 0.0)?;
    let last = cx.emit(Op::Sizes { values: vec![queries - &1.into()] }, &[])?;
    let new = cx.emit(Op::Min {}, &[new, last])?;
    let start = cx.emit(Op::Sizes { values: vec![past.clone()] }, &[])?;
    let moved = cx.add(new, start)?;
    let old = cx.emit(Op::Less {}, &[positions, first])?;
    let from = cx.choose(old, positions, moved)?;
    let from = cx.expanded(from, dims)?;
    cx.emit(Op::GatherElements { axis: 2 }, &[cache, from])
}

/// Where queries see keys: up to themselves, and not beyond the window.
fn seen(cx: &mut Cx, options: &Grouped, first: ValueId, queries: &Dim, keys: &Dim) -> NodeResult<ValueId> {
    let (rows, keys) = (cx.indices(queries, 2, 4)?, cx.indices(keys, 3, 4)?);
    let first = cx.along(first, 0, 4)?;
    let rows = cx.add(rows, first)?;
    let seen = cx.emit(Op::LessOrEqual {}, &[keys, rows])?;
    let Some(window) = options.window else { return Ok(seen) };
    let since = cx.plus(rows, -(window as f64))?;
    let near = cx.emit(Op::Greater {}, &[keys, since])?;
    cx.emit(Op::And {}, &[seen, near])
}
