//! The places of symbols in the table of their values.

use std::collections::{BTreeSet, HashMap};

use eec_ir::dim::{Dim, Symbol};
use eec_ir::program::{Program, Step};

/// Gives every symbol a position: those of the inputs, of the blocks' rows, of the joins' lengths and of what
/// data decides.
pub(crate) fn numbered(program: &Program) -> HashMap<Symbol, usize> {
    let inputs = program.inputs.iter().flat_map(|p| &p.dims).filter_map(Dim::as_symbol);
    let rows = program.blocks.iter().filter_map(|b| b.rows.as_ref());
    let bound = program.blocks.iter().flat_map(|b| &b.steps).filter_map(|step| match step {
        Step::Route(route) => route.join.as_ref()?.length.as_ref().map(|length| &length.symbol),
        Step::Size(step) => Some(&step.symbol),
        Step::Run(_) | Step::If(_) | Step::Repeat(_) => None,
    });
    let all: BTreeSet<&Symbol> = inputs.chain(rows).chain(bound).collect();
    all.into_iter().enumerate().map(|(i, s)| (s.clone(), i)).collect()
}
