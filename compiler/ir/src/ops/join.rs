//! What the shared continuation of a `Route` asks of the two regions before it.

use crate::dim::{Dim, Symbol};
use crate::entity::RegionId;
use crate::graph::Graph;
use crate::types::Type;

/// The sizes that the length symbol of `join` stands for after `then` and after `else`; `None` if it
/// has no length symbol.
///
/// A parameter has the type of what both regions yield in its place, up to two symbols of the join:
/// its rows as first dim, where both yield their own rows, and its length, where they yield different
/// sizes. Values without rows pass through. There is one length: wherever its symbol stands, the same
/// two sizes are yielded. Sizes of one region are unknown in another.
///
/// # Errors
///
/// What does not fit.
pub fn lengths(graph: &Graph, sides: [RegionId; 2], join: RegionId) -> Result<Option<[Dim; 2]>, String> {
    let [then, other, next] = [sides[0], sides[1], join].map(|r| graph.region(r));
    let (Some(a), Some(b), Some(rows)) = (&then.rows, &other.rows, &next.rows) else {
        return Err(format!("{join} or a region before it has no row symbol"));
    };
    let (given, taken) = ([then.yields.len(), other.yields.len()], next.params.len());
    if given != [taken; 2] {
        return Err(format!("{join} takes {taken} parameters, but {} and {} values are yielded", given[0], given[1]));
    }
    let mut fit = Fit { rows: [a, b, rows], length: next.length.as_ref(), found: None };
    for ((a, b), param) in then.yields.iter().zip(&other.yields).zip(&next.params) {
        let [a, b, ty] = [a, b, param].map(|v| graph.ty(*v));
        let wrong = |why| format!("parameter {param} of {join} has type {ty}, but {a} and {b} are yielded: {why}");
        fit.value([a, b], ty).map_err(wrong)?;
    }
    match (fit.length, &fit.found) {
        (Some(length), None) => Err(format!("no parameter of {join} has its length symbol {length} as a dim")),
        (Some(_), Some(_)) | (None, _) => Ok(fit.found),
    }
}

/// How the sizes of a join's parameters relate to those before it.
struct Fit<'g> {
    /// The row symbols of `then`, `else` and the join.
    rows: [&'g Symbol; 3],
    length: Option<&'g Symbol>,
    found: Option<[Dim; 2]>,
}

impl Fit<'_> {
    fn value(&mut self, given: [&Type; 2], param: &Type) -> Result<(), String> {
        if given.iter().any(|g| g.dtype != param.dtype || g.rank() != param.rank()) {
            return Err("element types and numbers of dims must be equal".into());
        }
        for (axis, dim) in param.dims.iter().enumerate() {
            let given = given.map(|g| &g.dims[axis]);
            if axis > 0 || !self.is_rows(given, dim) {
                self.size(given, dim)?;
            }
        }
        Ok(())
    }

    fn is_rows(&self, given: [&Dim; 2], param: &Dim) -> bool {
        let dims = given.into_iter().chain([param]).map(Dim::as_symbol);
        dims.eq(self.rows.map(Some))
    }

    /// A size that is no row count.
    fn size(&mut self, given: [&Dim; 2], param: &Dim) -> Result<(), String> {
        let own = |d: &&Dim| self.rows.iter().copied().chain(self.length).any(|s| d.mentions(s));
        if let Some(dim) = given.into_iter().find(own) {
            return Err(format!("the size {dim} is unknown outside of its region"));
        }
        if self.length.is_none() || param.as_symbol() != self.length {
            let same = given.iter().all(|g| *g == param);
            return if same { Ok(()) } else { Err(format!("{param} must be {} and {}", given[0], given[1])) };
        }
        let [a, b] = self.found.get_or_insert_with(|| given.map(Dim::clone));
        if [&*a, &*b] == given {
            return Ok(());
        }
        Err(format!("{param} stands for {a} and {b} elsewhere, here for {} and {}", given[0], given[1]))
    }
}
