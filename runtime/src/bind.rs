//! Binds the dims of a run's inputs to the program's symbols.

use eec_ir::bind::bind_dims;
use eec_ir::program::{Port, Program};
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
    Ok(sizes.into_iter().map(|(symbol, size)| (symbol, Extent::point(size))).collect())
}

/// An input's or output's type as text.
pub(crate) fn describe(port: &Port) -> String {
    eec_ir::Type::new(port.dtype, port.dims.iter().cloned()).to_string()
}
