//! What is timed: the list of cases and the seeded inputs of each.

use std::collections::BTreeMap;
use std::error::Error;
use std::path::Path;

use eec_ir::{DType, Graph, Symbol, Tensor};
use serde::Deserialize;

use crate::dynamic::Exits;

/// The list of cases.
#[derive(Deserialize)]
pub struct Cases {
    /// The cases in the order of the table.
    pub case: Vec<Case>,
}

/// One model at one size.
#[derive(Deserialize)]
pub struct Case {
    /// For people.
    pub name: String,
    /// Path below the folder of models.
    pub model: String,
    /// Sizes of the symbolic dims.
    pub dims: BTreeMap<String, i64>,
    /// Runs per round.
    #[serde(default = "one")]
    pub repeat: usize,
    /// Early exits that are inserted first.
    pub exits: Option<Exits>,
}

fn one() -> usize {
    1
}

/// Reads a list of cases.
pub fn read(path: &Path) -> Result<Vec<Case>, Box<dyn Error>> {
    let cases: Cases = toml::from_str(&std::fs::read_to_string(path)?)?;
    Ok(cases.case)
}

/// A tensor per input of `graph`: floats spread over [-1, 1), integers below 10, masks all ones.
pub fn inputs(graph: &Graph, dims: &BTreeMap<String, i64>) -> Result<Vec<(String, Tensor)>, Box<dyn Error>> {
    let sizes: BTreeMap<Symbol, i64> = dims.iter().map(|(name, n)| (Symbol::new(name), *n)).collect();
    let mut state = 1u32;
    let mut inputs = Vec::new();
    for value in graph.inputs() {
        let (name, ty) = (graph.value(*value).name.clone().unwrap_or_default(), graph.ty(*value));
        let size = |d: &eec_ir::Dim| d.eval(&|s| sizes.get(s).copied()).and_then(|n| usize::try_from(n).ok());
        let shape: Option<Vec<usize>> = ty.dims.iter().map(size).collect();
        let shape = shape.ok_or_else(|| format!("input {name}: the case does not give all of its dims"))?;
        inputs.push((name.to_string(), tensor(&name, ty.dtype, &shape, &mut state)?));
    }
    Ok(inputs)
}

fn tensor(name: &str, dtype: DType, shape: &[usize], state: &mut u32) -> Result<Tensor, Box<dyn Error>> {
    let (len, mask) = (shape.iter().product::<usize>(), name.contains("mask"));
    // Numerical Recipes' linear congruence: no quality is needed, only the same values for everyone.
    let mut next = || {
        *state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        *state >> 8
    };
    let mut int = || if mask { 1 } else { i64::from(next() % 10) };
    Ok(match dtype {
        DType::I64 => Tensor::new(shape, (0..len).map(|_| int()).collect::<Vec<i64>>())?,
        DType::I32 => Tensor::new(shape, (0..len).map(|_| int() as i32).collect::<Vec<i32>>())?,
        DType::Bool => Tensor::new(shape, vec![1u8; len])?,
        DType::F32 => Tensor::new(shape, (0..len).map(|_| next() as f32 / (1 << 23) as f32 - 1.0).collect())?,
        other => return Err(format!("inputs of {other} are not timed").into()),
    })
}
