//! Binding symbolic dims to the sizes of actual inputs, and checking what inference assumed.

use std::collections::HashMap;

use crate::dim::{Dim, Symbol};

/// The values of symbols.
pub type Sizes = HashMap<Symbol, i64>;

/// Why actual inputs do not fit the declared dims.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BindError {
    /// Too few or too many inputs.
    #[error("expected {expected} inputs, found {found}")]
    Count {
        /// Declared.
        expected: usize,
        /// Given.
        found: usize,
    },
    /// An input has another number of dims.
    #[error("input `{input}`: expected {} dims {expected:?}, found {} dims {found:?}", expected.len(), found.len())]
    Rank {
        /// Name.
        input: String,
        /// Declared.
        expected: Vec<Dim>,
        /// Given.
        found: Vec<usize>,
    },
    /// An input has another size in one dim.
    #[error("input `{input}`: expected dims {expected:?}{}, found {found:?}: dim {axis} must be {size}", known(bound))]
    Size {
        /// Name.
        input: String,
        /// Declared.
        expected: Vec<Dim>,
        /// The symbols of the dim and the sizes that other dims gave them.
        bound: Vec<(Symbol, i64)>,
        /// Given.
        found: Vec<usize>,
        /// The dim that differs.
        axis: usize,
        /// What it must be.
        size: i64,
    },
    /// No input has a dim that is just this symbol, or an expression of symbols overflows.
    #[error("input `{input}`: the size {dim} does not follow from the inputs")]
    Unknown {
        /// Name.
        input: String,
        /// Declared.
        dim: Dim,
    },
    /// Sizes that the model takes to be equal are not.
    #[error("the model needs {left} = {right}, but the inputs make them {left_value} and {right_value}")]
    Assumption {
        /// One.
        left: Dim,
        /// The other.
        right: Dim,
        /// Value of the first.
        left_value: i64,
        /// Value of the second.
        right_value: i64,
    },
}

fn known(bound: &[(Symbol, i64)]) -> String {
    if bound.is_empty() {
        return String::new();
    }
    let pairs: Vec<String> = bound.iter().map(|(s, v)| format!("{s} = {v}")).collect();
    format!(" where {}", pairs.join(", "))
}

/// The symbols' values for inputs of the `actual` dims, in the order of `params` (name and declared
/// dims).
///
/// A declared dim that is a symbol takes its first actual size; every dim is then checked, and so
/// are those `assumptions` whose symbols are all bound.
pub fn bind_dims(
    params: &[(&str, &[Dim])],
    actual: &[&[usize]],
    assumptions: &[(Dim, Dim)],
) -> Result<Sizes, BindError> {
    if params.len() != actual.len() {
        return Err(BindError::Count { expected: params.len(), found: actual.len() });
    }
    let mut sizes = Sizes::new();
    for ((name, dims), found) in params.iter().zip(actual) {
        if dims.len() != found.len() {
            let (input, expected) = (name.to_string(), dims.to_vec());
            return Err(BindError::Rank { input, expected, found: found.to_vec() });
        }
        for (dim, size) in dims.iter().zip(*found) {
            if let Some(symbol) = dim.as_symbol() {
                sizes.entry(symbol.clone()).or_insert(as_size(*size));
            }
        }
    }
    for ((name, dims), found) in params.iter().zip(actual) {
        check_dims(name, dims, found, &sizes)?;
    }
    check_assumptions(assumptions, &sizes)?;
    Ok(sizes)
}

fn as_size(size: usize) -> i64 {
    i64::try_from(size).unwrap_or(i64::MAX)
}

fn check_dims(name: &str, dims: &[Dim], found: &[usize], sizes: &Sizes) -> Result<(), BindError> {
    for (axis, (dim, actual)) in dims.iter().zip(found).enumerate() {
        let Some(size) = dim.eval(&|s| sizes.get(s).copied()) else {
            return Err(BindError::Unknown { input: name.to_string(), dim: dim.clone() });
        };
        if size != as_size(*actual) {
            let bound = symbols(dim).filter_map(|s| sizes.get(&s).map(|v| (s.clone(), *v))).collect();
            let (input, expected, found) = (name.to_string(), dims.to_vec(), found.to_vec());
            return Err(BindError::Size { input, expected, bound, found, axis, size });
        }
    }
    Ok(())
}

fn symbols(dim: &Dim) -> impl Iterator<Item = Symbol> {
    let mut all = std::collections::BTreeSet::new();
    dim.collect_symbols(&mut all);
    all.into_iter()
}

/// Checks the assumptions whose symbols are all in `sizes`. Those about the rows of a region are to
/// be checked again when the region is reached.
pub fn check_assumptions<'a>(
    assumptions: impl IntoIterator<Item = &'a (Dim, Dim)>,
    sizes: &Sizes,
) -> Result<(), BindError> {
    let value = |dim: &Dim| dim.eval(&|s| sizes.get(s).copied());
    for (left, right) in assumptions {
        let (Some(left_value), Some(right_value)) = (value(left), value(right)) else { continue };
        if left_value != right_value {
            let (left, right) = (left.clone(), right.clone());
            return Err(BindError::Assumption { left, right, left_value, right_value });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn d(name: &str) -> Dim {
        Dim::symbol(name)
    }

    #[test]
    fn symbols_bind_wherever_they_stand_alone() {
        let total = &d("past") + &d("seq");
        let (mask, ids, cache) = ([d("batch"), total], [d("batch"), d("seq")], [d("past"), 4.into()]);
        let params: [(&str, &[Dim]); 3] = [("mask", &mask), ("ids", &ids), ("cache", &cache)];
        let sizes = bind_dims(&params, &[&[2, 10], &[2, 3], &[7, 4]], &[]);
        let value = |name: &str| sizes.as_ref().ok().and_then(|s| s.get(&Symbol::new(name)).copied());
        assert_eq!((value("batch"), value("seq"), value("past")), (Some(2), Some(3), Some(7)));
        let error = bind_dims(&params, &[&[2, 11], &[2, 3], &[7, 4]], &[]).map_err(|e| e.to_string());
        let expected =
            "input `mask`: expected dims [batch, past+seq] where past = 7, seq = 3, found [2, 11]: dim 1 must be 10";
        assert_eq!(error, Err(expected.to_string()));
    }

    #[test]
    fn inputs_that_do_not_fit_are_named() {
        let dims = [d("batch"), 4.into()];
        let params: [(&str, &[Dim]); 2] = [("x", &dims), ("y", &dims)];
        let fail = |actual: &[&[usize]]| bind_dims(&params, actual, &[]).map_err(|e| e.to_string());
        assert_eq!(fail(&[&[2, 4]]), Err("expected 2 inputs, found 1".into()));
        let rank = "input `y`: expected 2 dims [batch, 4], found 1 dims [2]";
        assert_eq!(fail(&[&[2, 4], &[2]]), Err(rank.into()));
        let constant = "input `x`: expected dims [batch, 4], found [2, 5]: dim 1 must be 4";
        assert_eq!(fail(&[&[2, 5], &[2, 4]]), Err(constant.into()));
        let symbol = "input `y`: expected dims [batch, 4] where batch = 2, found [3, 4]: dim 0 must be 2";
        assert_eq!(fail(&[&[2, 4], &[3, 4]]), Err(symbol.into()));
    }

    #[test]
    fn a_size_that_no_input_shows_is_unknown() {
        let dims = [&d("half") * &2.into()];
        let error = bind_dims(&[("x", &dims)], &[&[6]], &[]);
        assert_eq!(error, Err(BindError::Unknown { input: "x".into(), dim: dims[0].clone() }));
    }

    #[test]
    fn assumptions_are_checked_once_their_symbols_are_bound() {
        let dims = [d("a"), d("b")];
        let assumptions = [(d("a"), d("b")), (d("rows"), 3.into())];
        assert!(bind_dims(&[("x", &dims)], &[&[5, 5]], &assumptions).is_ok());
        let error = bind_dims(&[("x", &dims)], &[&[5, 6]], &assumptions).map_err(|e| e.to_string());
        assert_eq!(error, Err("the model needs a = b, but the inputs make them 5 and 6".into()));
    }
}
