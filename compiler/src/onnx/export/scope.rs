//! One graph that is being written: its nodes, and where sizes can be read in it.

use std::collections::{BTreeSet, HashMap};

use eec_ir::{Dim, Symbol};

use super::super::proto::NodeProto;

/// The main graph or a branch.
#[derive(Default)]
pub(super) struct Scope {
    /// What has been written, in execution order.
    pub(super) nodes: Vec<NodeProto>,
    /// Names of vectors of one element that hold a size.
    pub(super) sizes: HashMap<Dim, String>,
    /// Names of scalars that hold a size.
    pub(super) scalars: HashMap<Dim, String>,
    /// For a symbol, a value defined here and the axis at which it has that size.
    sources: HashMap<Symbol, (String, usize)>,
    /// The symbol of its row count, in a branch of a `Route`.
    pub(super) rows: Option<Symbol>,
}

impl Scope {
    /// A branch of a `Route` whose rows have the numbers in the vector `numbers`.
    pub(super) fn of_rows(rows: Option<Symbol>, numbers: &str) -> Self {
        let mut scope = Scope { rows: rows.clone(), ..Scope::default() };
        if let Some(rows) = rows {
            scope.add_sources(&[rows.into()], numbers);
        }
        scope
    }

    /// Notes that the value `name` has these dims.
    pub(super) fn add_sources(&mut self, dims: &[Dim], name: &str) {
        for (axis, dim) in dims.iter().enumerate() {
            if let Some(symbol) = dim.as_symbol() {
                self.sources.entry(symbol.clone()).or_insert_with(|| (name.to_string(), axis));
            }
        }
    }

    /// Whether a value of this graph tells the size.
    fn knows(&self, symbol: &Symbol) -> bool {
        self.sources.contains_key(symbol) || self.sizes.contains_key(&Dim::from(symbol.clone()))
    }

    /// A value of this graph that has `symbol` as a dim, and at which axis.
    pub(super) fn source(&self, symbol: &Symbol) -> Option<&(String, usize)> {
        self.sources.get(symbol)
    }
}

/// The outermost graph in which `dim` can be computed, as an index into `scopes`; or the symbol
/// that none of them can give.
pub(super) fn level(scopes: &[Scope], dim: &Dim) -> Result<usize, Symbol> {
    let mut symbols = BTreeSet::new();
    dim.collect_symbols(&mut symbols);
    symbols.into_iter().try_fold(0, |deepest, symbol| {
        let found = scopes.iter().position(|s| s.knows(&symbol));
        found.map(|level| level.max(deepest)).ok_or(symbol)
    })
}
