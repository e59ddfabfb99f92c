//! `TfIdfVectorizer` of integers: comparisons of shifted rows, summed.
//!
//! Specification: <https://onnx.ai/onnx/operators/onnx__TfIdfVectorizer.html>.

use std::collections::BTreeSet;

use eec_ir::{DType, Dim, Op, Tensor, ValueId};

use super::super::error::{NodeResult, Refusal, refuse};
use super::node::{Cx, Results};

/// How a vectoriser counts.
struct Grams {
    shortest: usize,
    longest: usize,
    /// Between the elements of a gram, up to so many others stand.
    skips: usize,
    /// Per entry of the pool: its elements and its place in the result.
    pool: Vec<(Vec<i64>, i64)>,
}

impl Grams {
    fn read(cx: &mut Cx) -> NodeResult<Grams> {
        let number = |cx: &mut Cx, name: &str| -> NodeResult<usize> {
            let found = cx.int(name)?.and_then(|n| usize::try_from(n).ok()).filter(|n| *n <= 64);
            found.ok_or_else(|| Refusal::new(format!("attribute `{name}` is missing or out of range")))
        };
        let (shortest, longest) = (number(cx, "min_gram_length")?, number(cx, "max_gram_length")?);
        let skips = number(cx, "max_skip_count")?;
        let starts = cx.ints("ngram_counts")?.unwrap_or_default();
        let places = cx.ints("ngram_indexes")?.unwrap_or_default();
        let elements = cx.ints("pool_int64s")?.ok_or_else(|| Refusal::new("only pools of integers are supported"))?;
        let mut pool = Vec::new();
        for (n, start) in (1..).zip(&starts) {
            let end = starts.get(n).map_or(elements.len() as i64, |end| *end);
            let part = usize::try_from(*start).ok().zip(usize::try_from(end).ok());
            let part = part.and_then(|(start, end)| elements.get(start..end));
            let part = part.ok_or_else(|| Refusal::new("`ngram_counts` does not fit the pool"))?;
            pool.extend(part.chunks_exact(n).map(<[i64]>::to_vec));
        }
        if pool.len() != places.len() || places.iter().any(|p| !(0..1 << 16).contains(p)) {
            return refuse("`ngram_indexes` does not fit the pool");
        }
        if places.iter().collect::<BTreeSet<_>>().len() < places.len() {
            return refuse("`ngram_indexes` names a column twice");
        }
        Ok(Grams { shortest, longest, skips, pool: pool.into_iter().zip(places).collect() })
    }
}

/// How often each of the pool's grams occurs in a row of integers, perhaps weighted.
pub(super) fn tf_idf_vectorizer(cx: &mut Cx) -> Results {
    let grams = Grams::read(cx)?;
    let mode = cx.word("mode")?.unwrap_or_default();
    let weights = cx.floats("weights")?;
    let x = cx.input(0)?;
    let dims = cx.dims(x);
    let flat = dims.len() == 1;
    let rows = if flat { cx.reshape(x, vec![1.into(), dims[0].clone()])? } else { x };
    let width = grams.pool.iter().map(|(_, place)| place + 1).max().unwrap_or(0);
    let mut columns: Vec<Option<ValueId>> = vec![None; width as usize];
    for (gram, place) in &grams.pool {
        if (grams.shortest..=grams.longest).contains(&gram.len()) {
            columns[*place as usize] = occurrences(cx, rows, gram, grams.skips)?;
        }
    }
    let zero = cx.scalar(DType::F32, 0.0)?;
    let none = cx.expanded(zero, vec![cx.dims(rows)[0].clone(), 1.into()])?;
    let columns: Vec<ValueId> = columns.into_iter().map(|c| c.unwrap_or(none)).collect();
    let counts = cx.emit(Op::Concat { axis: 1 }, &columns)?;
    let mut y = counts;
    if mode != "TF" {
        let one = cx.number(counts, 1.0)?;
        let seen = cx.emit(Op::Min {}, &[counts, one])?;
        y = if mode == "IDF" { seen } else { counts };
        if let Some(weights) = weights {
            let mut by_place = vec![1.0; columns.len()];
            for (weight, (_, place)) in weights.iter().zip(&grams.pool) {
                by_place[*place as usize] = *weight;
            }
            let weights = cx.constant(Tensor::vector(by_place));
            y = cx.mul(y, weights)?;
        }
    }
    Ok(vec![if flat { cx.reshape(y, vec![width.into()])? } else { y }])
}

/// How often `gram` occurs in each row, as a column; none if the rows are too short.
fn occurrences(cx: &mut Cx, rows: ValueId, gram: &[i64], skips: usize) -> NodeResult<Option<ValueId>> {
    let length = cx.fixed_dim(rows, 1)?;
    let dtype = cx.ty(rows).dtype;
    let mut sum = None;
    // One element has nothing between.
    for distance in 1..=(if gram.len() == 1 { 1 } else { skips as i64 + 1 }) {
        let places = length - distance * (gram.len() as i64 - 1);
        if places < 1 {
            break;
        }
        let mut hit = None;
        for (i, element) in (0..).zip(gram) {
            let start = i * distance;
            let part = cx.part(rows, 1, [start.into(), Dim::from(start + places)], 1)?;
            let element = Tensor::from_integers(dtype, &[], &[i128::from(*element)])?;
            let element = cx.constant(element);
            let same = cx.emit(Op::Equal {}, &[part, element])?;
            hit = Some(hit.map_or(Ok(same), |hit| cx.emit(Op::And {}, &[hit, same]))?);
        }
        let Some(hit) = hit else { return Ok(None) };
        let hit = cx.cast(hit, DType::F32)?;
        let count = cx.sum(hit, vec![1], true)?;
        sum = Some(sum.map_or(Ok(count), |sum| cx.add(sum, count))?);
    }
    Ok(sum)
}
