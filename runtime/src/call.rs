//! What a session of any backend does around a run: inputs by name, control words, and errors that name
//! the model.

use std::collections::HashMap;

use eec_ir::Tensor;
use eec_ir::program::{Port, Program};

use crate::bind::describe;
use crate::error::{Error, ErrorKind};
use crate::run::Control;

/// The exit or gate decides by its mask.
pub(crate) const AUTO: i64 = 0;
/// No row takes it.
pub(crate) const NEVER: i64 = 1;
/// All rows take it.
pub(crate) const ALWAYS: i64 = 2;

/// What errors call a program.
pub(crate) fn model(program: &Program) -> String {
    format!("model {:?}", program.name)
}

/// An error about a program.
pub(crate) fn error(program: &Program, kind: ErrorKind, why: impl std::fmt::Display) -> Error {
    Error::new(kind, model(program), why)
}

/// The inputs in the program's order; all wrong names in one error.
pub(crate) fn in_order(program: &Program, inputs: &[(&str, Tensor)]) -> Result<Vec<Tensor>, Error> {
    let mut given: HashMap<&str, &Tensor> = HashMap::new();
    let mut problems = Vec::new();
    for (name, tensor) in inputs {
        if given.insert(name, tensor).is_some() {
            problems.push(format!("input {name:?} is given twice"));
        }
    }
    let ordered: Vec<Tensor> = program.inputs.iter().filter_map(|p| given.remove(p.name.as_str()).cloned()).collect();
    let missing = program.inputs.iter().filter(|p| !inputs.iter().any(|(name, _)| *name == p.name));
    problems.extend(missing.map(|p| format!("input {:?} ({}) is missing", p.name, describe(p))));
    let mut unknown: Vec<&str> = given.into_keys().collect();
    unknown.sort_unstable();
    if !unknown.is_empty() {
        let names: Vec<&str> = program.inputs.iter().map(|p| p.name.as_str()).collect();
        problems.push(format!("the model has no input {unknown:?}; its inputs are {names:?}"));
    }
    if problems.is_empty() { Ok(ordered) } else { Err(error(program, ErrorKind::Input, problems.join("\n"))) }
}

/// Per exit, then per gate: [`AUTO`], [`NEVER`] or [`ALWAYS`].
pub(crate) fn control_words(program: &Program, control: Control) -> Result<Vec<i64>, Error> {
    let exits = program.exits.len();
    if let Control::Force(exit) = control
        && exit > exits
    {
        let why =
            format!("exit {exit} cannot be forced: the model has {exits} exits (0 to {exits}, the last for the end)");
        return Err(error(program, ErrorKind::Input, why));
    }
    let of_exit = |i: usize| match control {
        Control::Never => NEVER,
        Control::Force(exit) if i < exit => NEVER,
        Control::Force(exit) if i == exit => ALWAYS,
        Control::Auto | Control::Gates | Control::Force(_) => AUTO,
    };
    let of_gate = match control {
        Control::Never => NEVER,
        Control::Gates => ALWAYS,
        Control::Auto | Control::Force(_) => AUTO,
    };
    Ok((0..exits).map(of_exit).chain(program.gates.iter().map(|_| of_gate)).collect())
}

/// For an error that wrong data may have caused: what the integer inputs hold.
pub(crate) fn integer_ranges(ports: &[Port], inputs: &[Tensor]) -> String {
    let integers = ports.iter().zip(inputs).filter(|(p, _)| p.dtype.is_int());
    let range = |(port, tensor): (&Port, &Tensor)| {
        let values = tensor.to_i64s()?;
        Some(format!("{:?} holds values from {} to {}", port.name, values.iter().min()?, values.iter().max()?))
    };
    let ranges: Vec<String> = integers.filter_map(range).collect();
    if ranges.is_empty() { String::new() } else { format!("; the input {}", ranges.join(", the input ")) }
}
