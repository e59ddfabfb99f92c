//! Binds the dims of a run's inputs to the program's symbols.

use std::collections::BTreeSet;

use eec_ir::bind::{Sizes, bind_dims, check_assumptions};
use eec_ir::program::{Length, Port, Program, Step};
use eec_ir::{Dim, Tensor};

use crate::extent::{Extent, Extents};

/// The sizes of the symbols for these inputs, or what does not fit: every wrong type at once, else
/// the first wrong size.
pub(crate) fn bind(program: &Program, inputs: &[Tensor]) -> Result<Extents, String> {
    let wrong =
        |(port, tensor): &(&Port, &Tensor)| tensor.dtype() != port.dtype || tensor.dims().len() != port.dims.len();
    let wrong: Vec<String> = program
        .inputs
        .iter()
        .zip(inputs)
        .filter(wrong)
        .map(|(port, tensor)| format!("input {:?} must be {}, found {tensor:?}", port.name, describe(port)))
        .collect();
    if !wrong.is_empty() {
        return Err(wrong.join("\n"));
    }
    let params: Vec<(&str, &[Dim])> = program.inputs.iter().map(|p| (p.name.as_str(), p.dims.as_slice())).collect();
    let actual: Vec<&[usize]> = inputs.iter().map(Tensor::dims).collect();
    let sizes = bind_dims(&params, &actual, &program.assumptions).map_err(|e| e.to_string())?;
    check_lengths(program, &sizes)?;
    Ok(sizes.into_iter().map(|(symbol, size)| (symbol, Extent::point(size))).collect())
}

/// An assumption about lengths of joins may not stand for more pairs of sizes than this.
const MAX_PAIRS: usize = 1 << 10;

/// Checks what is assumed of the lengths of joins, for the sizes that they have after either side.
fn check_lengths(program: &Program, sizes: &Sizes) -> Result<(), String> {
    // Inner blocks have larger numbers, and an inner length may be that of the join around it.
    let lengths: Vec<&Length> = program.blocks.iter().rev().flat_map(|b| &b.steps).filter_map(length).collect();
    let about = |dim: &Dim| lengths.iter().any(|l| dim.mentions(&l.symbol));
    for (a, b) in program.assumptions.iter().filter(|(a, b)| about(a) || about(b)) {
        let mut pairs = BTreeSet::from([(a.clone(), b.clone())]);
        for length in &lengths {
            pairs = pairs.into_iter().flat_map(|pair| either(pair, length)).collect();
            if pairs.len() > MAX_PAIRS {
                return Err(format!("the assumption {a} == {b} depends on too many lengths"));
            }
        }
        check_assumptions(&pairs, sizes).map_err(|e| e.to_string())?;
    }
    Ok(())
}

fn length(step: &Step) -> Option<&Length> {
    match step {
        Step::Route(route) => route.join.as_ref()?.length.as_ref(),
        Step::Run(_) | Step::If(_) | Step::Repeat(_) | Step::Size(_) => None,
    }
}

/// The pair with both values of `length` for its symbol; itself if it does not mention it.
fn either((a, b): (Dim, Dim), length: &Length) -> Vec<(Dim, Dim)> {
    if !(a.mentions(&length.symbol) || b.mentions(&length.symbol)) {
        return vec![(a, b)];
    }
    let with = |value: &Dim| {
        let set = |dim: &Dim| dim.substitute(&|s| (*s == length.symbol).then(|| value.clone()));
        (set(&a), set(&b))
    };
    vec![with(&length.then), with(&length.other)]
}

/// An input's or output's type as text.
pub(crate) fn describe(port: &Port) -> String {
    eec_ir::Type::new(port.dtype, port.dims.iter().cloned()).to_string()
}
