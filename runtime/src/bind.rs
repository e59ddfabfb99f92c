//! Binds the dims of a run's inputs to the program's symbols.

use eec_ir::Tensor;
use eec_ir::program::{Port, Program};

use crate::extent::{Extent, Extents};

/// The sizes of the symbols for these inputs, or everything that does not fit.
pub(crate) fn bind(program: &Program, inputs: &[Tensor]) -> Result<Extents, Vec<String>> {
    let mut extents = Extents::new();
    let mut problems = Vec::new();
    for (port, tensor) in program.inputs.iter().zip(inputs) {
        let expected = describe(port);
        if tensor.dtype() != port.dtype || tensor.dims().len() != port.dims.len() {
            problems.push(format!("input {:?} must be {expected}, found {tensor:?}", port.name));
            continue;
        }
        for (axis, (dim, size)) in port.dims.iter().zip(tensor.dims()).enumerate() {
            let size = *size as i64;
            let Some(symbol) = dim.as_symbol() else { continue };
            let bound = *extents.entry(symbol.clone()).or_insert(Extent::point(size));
            if bound.lo != size {
                let found = format!("{symbol} is {} elsewhere and {size} here", bound.lo);
                problems.push(format!(
                    "input {:?} must be {expected}, found {tensor:?}: at axis {axis} {found}",
                    port.name
                ));
            }
        }
    }
    if problems.is_empty() {
        check_derived(program, inputs, &extents, &mut problems);
    }
    if problems.is_empty() { Ok(extents) } else { Err(problems) }
}

/// Dims that are no plain symbols, and the program's assumptions.
fn check_derived(program: &Program, inputs: &[Tensor], extents: &Extents, problems: &mut Vec<String>) {
    let value = |dim| Extent::of(dim, extents).map(|e| e.lo);
    for (port, tensor) in program.inputs.iter().zip(inputs) {
        for (dim, size) in port.dims.iter().zip(tensor.dims()) {
            if value(dim) != Some(*size as i64) {
                let expected = describe(port);
                problems
                    .push(format!("input {:?} must be {expected}, found {tensor:?}: `{dim}` is not {size}", port.name));
            }
        }
    }
    for (a, b) in &program.assumptions {
        match (value(a), value(b)) {
            (Some(x), Some(y)) if x == y => {}
            (x, y) => problems.push(format!("the model needs `{a}` = `{b}`, found {} and {}", shown(x), shown(y))),
        }
    }
}

fn shown(value: Option<i64>) -> String {
    value.map_or("no value".into(), |v| v.to_string())
}

/// An input's or output's type as text.
pub(crate) fn describe(port: &Port) -> String {
    eec_ir::Type::new(port.dtype, port.dims.iter().cloned()).to_string()
}
