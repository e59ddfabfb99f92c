//! Sizes from the command line: symbolic dims, shapes, and defaults for what is not given.

use std::collections::{BTreeMap, BTreeSet};

use eec_ir::{Dim, Graph, Symbol, Type, ValueId};
use eec_passes::structure;

use super::import::once;
use super::output::warning;
use crate::Error;

/// A size per symbolic dim.
pub(super) type Dims = BTreeMap<Symbol, i64>;

/// `NAME=N` of `--dim`.
pub(super) fn dim_arg(text: &str) -> Result<(String, i64), String> {
    let parsed = text.split_once('=').and_then(|(name, n)| Some((name.to_string(), n.parse().ok()?)));
    parsed.filter(|(_, n)| *n >= 0).ok_or_else(|| "expected NAME=N with a number N of 0 or more".into())
}

/// `NAME:SHAPE` of `--shape`.
pub(super) fn shape_arg(text: &str) -> Result<(String, Vec<usize>), String> {
    let parsed = text.rsplit_once(':').and_then(|(name, shape)| {
        let dims: Option<Vec<usize>> = shape.split('x').map(|d| d.parse().ok()).collect();
        Some((name.to_string(), dims?))
    });
    parsed.ok_or_else(|| "expected NAME:SHAPE such as pixel_values:1x3x224x224".into())
}

/// The sizes that `--dim` gives, each of a dim that the model's inputs have.
pub(super) fn given_dims(args: &[(String, i64)], graph: &Graph) -> Result<Dims, Error> {
    once("--dim", args)?;
    let mut known = BTreeSet::new();
    graph.inputs().iter().for_each(|v| collect_symbols(graph.ty(*v), &mut known));
    let size = |(name, n): &(String, i64)| {
        let symbol = Symbol::new(name);
        if known.contains(&symbol) {
            return Ok((symbol, *n));
        }
        let known: Vec<String> = known.iter().map(Symbol::to_string).collect();
        Err(Error::usage(format!("the model has no dim `{name}` (dims: {})", known.join(", "))))
    };
    args.iter().map(size).collect()
}

/// Takes dims from the inputs whose shape is known, so that random ones fit them.
pub(super) fn bind_shapes<'a>(graph: &Graph, shape: impl Fn(&str) -> Option<&'a [usize]>, dims: &mut Dims) {
    for value in graph.inputs() {
        let Some(shape) = graph.value(*value).name.as_deref().and_then(&shape) else { continue };
        for (dim, size) in graph.ty(*value).dims.iter().zip(shape) {
            if let (Some(symbol), Ok(size)) = (dim.as_symbol(), i64::try_from(*size)) {
                dims.entry(symbol.clone()).or_insert(size);
            }
        }
    }
}

/// Gives every symbol of the inputs `random` a size, with a warning: what a mask spans is as long as
/// the model's caches become, all else is 1.
pub(super) fn fill(graph: &Graph, random: &[ValueId], dims: &mut Dims) {
    let mut missing = BTreeSet::new();
    random.iter().for_each(|v| collect_symbols(graph.ty(*v), &mut missing));
    missing.retain(|s| !dims.contains_key(s));
    let spans: Vec<(Symbol, Dim)> =
        mask_spans(graph).into_iter().filter(|(s, length)| missing.contains(s) && !length.mentions(s)).collect();
    spans.iter().for_each(|(_, length)| length.collect_symbols(&mut missing));
    for symbol in missing.into_iter().filter(|s| spans.iter().all(|(span, _)| span != s)) {
        dims.entry(symbol).or_insert_with_key(|symbol| {
            warning(&format!("dim `{symbol}` is not given; taking 1 (set it with --dim {symbol}=N)"));
            1
        });
    }
    for (symbol, length) in spans {
        let n = length.eval(&|s| dims.get(s).copied()).unwrap_or(1);
        warning(&format!("dim `{symbol}` is not given; taking {length} = {n} (set it with --dim {symbol}=N)"));
        dims.insert(symbol, n);
    }
}

/// The last dims of masks that no other input has, each with the length that the caches grow to.
fn mask_spans(graph: &Graph) -> Vec<(Symbol, Dim)> {
    let Some(length) = cache_length(graph) else { return Vec::new() };
    let is_mask = |v: &ValueId| graph.value(*v).name.as_deref().is_some_and(is_mask_name) && graph.ty(*v).rank() == 2;
    let masks = graph.inputs().iter().copied().filter(is_mask);
    let span = |mask: ValueId| {
        let symbol = graph.ty(mask).dims.last().and_then(Dim::as_symbol)?;
        let elsewhere = |v: &&ValueId| !is_mask(v) && graph.ty(**v).dims.iter().any(|d| d.mentions(symbol));
        graph.inputs().iter().find(elsewhere).is_none().then(|| (symbol.clone(), length.clone()))
    };
    masks.filter_map(span).collect()
}

/// The length of a cache after a run: the one dim in which a state's output differs from its input.
fn cache_length(graph: &Graph) -> Option<Dim> {
    let states = structure::analyse(graph).ok()?.states;
    states.iter().find_map(|state| {
        let (before, after) = (graph.ty(state.input), graph.ty(*graph.outputs().get(state.output)?));
        let mut grown = before.dims.iter().zip(&after.dims).filter(|(b, a)| b != a);
        let (_, length) = grown.next()?;
        (before.rank() == after.rank() && grown.next().is_none()).then(|| length.clone())
    })
}

/// Whether an input of this name is a mask, which as a random input is all ones.
pub(super) fn is_mask_name(name: &str) -> bool {
    name.contains("mask")
}

fn collect_symbols(ty: &Type, into: &mut BTreeSet<Symbol>) {
    ty.dims.iter().for_each(|d| d.collect_symbols(into));
}

#[cfg(test)]
mod tests {
    use super::*;
    use eec_ir::{DType, Op, Origin};

    /// A model with a cache of `past` rows that a run extends by `seq`, and a mask of this type.
    fn with_cache(mask: [&str; 2]) -> Result<Graph, Box<dyn std::error::Error>> {
        let mut g = Graph::new("m");
        let ty = |dtype, dims: &[&str]| Type::new(dtype, dims.iter().map(|d| Dim::symbol(d)));
        let x = g.add_input("x", ty(DType::F32, &["batch", "seq"]));
        let mask = g.add_input("attention_mask", ty(DType::I64, &mask));
        let past = g.add_input("past", ty(DType::F32, &["batch", "past"]));
        let y = g.append1(Graph::ROOT, Op::Neg {}, &[x], Origin::source("y"))?;
        let present = g.append1(Graph::ROOT, Op::Concat { axis: 1 }, &[past, y], Origin::source("present"))?;
        g.set_outputs(vec![("y".into(), y), ("present".into(), present), ("mask".into(), mask)]);
        Ok(g)
    }

    fn filled(graph: &Graph, given: &[(&str, i64)]) -> Vec<(String, i64)> {
        let mut dims: Dims = given.iter().map(|(name, n)| (Symbol::new(name), *n)).collect();
        fill(graph, graph.inputs(), &mut dims);
        dims.into_iter().map(|(symbol, n)| (symbol.to_string(), n)).collect()
    }

    fn sizes(list: &[(&str, i64)]) -> Vec<(String, i64)> {
        list.iter().map(|(name, n)| ((*name).to_string(), *n)).collect()
    }

    #[test]
    fn a_mask_beside_caches_spans_what_they_grow_to() -> Result<(), Box<dyn std::error::Error>> {
        let g = with_cache(["batch", "total"])?;
        assert_eq!(filled(&g, &[]), sizes(&[("batch", 1), ("past", 1), ("seq", 1), ("total", 2)]));
        let given = [("batch", 2), ("past", 7), ("seq", 3)];
        assert_eq!(filled(&g, &given), sizes(&[("batch", 2), ("past", 7), ("seq", 3), ("total", 10)]));
        let given = [("past", 7), ("total", 4)];
        assert_eq!(filled(&g, &given), sizes(&[("batch", 1), ("past", 7), ("seq", 1), ("total", 4)]));
        let shared = with_cache(["batch", "seq"])?;
        assert_eq!(filled(&shared, &[]), sizes(&[("batch", 1), ("past", 1), ("seq", 1)]));
        Ok(())
    }

    #[test]
    fn sizes_in_flags_are_numbers_of_zero_or_more() {
        assert_eq!(dim_arg("batch=3"), Ok(("batch".into(), 3)));
        assert!(["batch", "batch=x", "batch=-1", "batch="].iter().all(|text| dim_arg(text).is_err()));
        assert_eq!(shape_arg("a:b:2x3"), Ok(("a:b".into(), vec![2, 3])));
        assert!(["x", "x:", "x:axb", "x:2x"].iter().all(|text| shape_arg(text).is_err()));
    }
}
