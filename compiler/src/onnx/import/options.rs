//! What an import is told beside the file: values of inputs, sizes of dims, and limits.

use std::collections::BTreeMap;

use eec_ir::minifloat::Overflow;
use eec_ir::types::Class;
use eec_ir::{Dim, Tensor, Type};

use super::super::error::{NodeResult, refuse};
use crate::dataset::fitted;

/// How a model is imported.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct ImportOptions {
    /// Constants in place of inputs, by the input's name.
    ///
    /// Shapes, axes and the like must be known before a run. Where a model takes them as inputs,
    /// [`super::super::Unsupported::deciding_inputs`] names those.
    pub inputs: BTreeMap<String, FixedInput>,
    /// Sizes of the inputs' symbolic dims, by name.
    pub dims: BTreeMap<String, i64>,
    /// What the import may make out of the file.
    pub limits: Limits,
}

/// A constant in place of an input.
#[derive(Clone, PartialEq, Debug)]
pub enum FixedInput {
    /// The tensor itself; integers become the input's integer type if all of them fit.
    Tensor(Tensor),
    /// Its elements as text, separated by commas: numbers, or `true` and `false`.
    Text(String),
}

impl FixedInput {
    /// The constant in place of an input of type `ty`.
    pub(super) fn tensor(&self, ty: &Type) -> Result<Tensor, String> {
        let tensor = match self {
            FixedInput::Tensor(tensor) => fitted(tensor.clone(), ty.dtype),
            FixedInput::Text(text) => parsed(text, ty)?,
        };
        let same = |(declared, found): (&Dim, &usize)| declared.as_const().is_none_or(|d| d == *found as i64);
        let dims = tensor.dims();
        match tensor.dtype() == ty.dtype && dims.len() == ty.rank() && ty.dims.iter().zip(dims).all(same) {
            true => Ok(tensor),
            false => Err(format!("is {ty}; {tensor:?} does not fit it")),
        }
    }
}

/// The elements in `text` as a tensor of type `ty`; of one unknown dim the number of elements tells the size.
fn parsed(text: &str, ty: &Type) -> Result<Tensor, String> {
    let items: Vec<&str> = text.split(',').map(str::trim).collect();
    let wrong = |item: &str| format!("is {ty}; `{item}` is not one of its elements");
    let unknown = ty.dims.iter().filter(|d| d.as_const().is_none()).count();
    let known = ty.dims.iter().filter_map(Dim::as_const).try_fold(1i64, i64::checked_mul).unwrap_or(0).max(1);
    let dims: Vec<usize> = match unknown {
        0 | 1 => ty.dims.iter().map(|d| d.as_const().unwrap_or(items.len() as i64 / known) as usize).collect(),
        _ => return Err(format!("is {ty}, whose dims numbers alone do not tell; give it as a file")),
    };
    let tensor = match ty.dtype.class() {
        Class::Float => {
            let data = items.iter().map(|i| i.parse::<f64>().map_err(|_| wrong(i))).collect::<Result<Vec<_>, _>>()?;
            Tensor::from_f64s(ty.dtype, &dims, &data, Overflow::Special)
        }
        Class::Bool | Class::Signed | Class::Unsigned => {
            let number = |i: &&str| match *i {
                "true" => Ok(1),
                "false" => Ok(0),
                other => other.parse::<i128>().map_err(|_| wrong(other)),
            };
            let data = items.iter().map(number).collect::<Result<Vec<i128>, _>>()?;
            let (least, largest) = ty.dtype.integer_range().unwrap_or_default();
            if let Some(at) = data.iter().position(|v| !(least..=largest).contains(v)) {
                return Err(wrong(items[at]));
            }
            Tensor::from_integers(ty.dtype, &dims, &data)
        }
    };
    tensor.map_err(|_| format!("is {ty}; {} elements do not fit it", items.len()))
}

/// What an import may make out of a file, so that a small file cannot ask for all memory or time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Dims of a stored tensor or of an input.
    pub rank: usize,
    /// Nodes of the graph; every step of a loop and every call of a function counts its own.
    pub nodes: usize,
    /// Control nodes and calls of functions inside each other.
    pub depth: usize,
    /// Steps of one loop, or sequences of one `Scan`, that become nodes of their own; a loop of more is one that
    /// counts them while it runs, if it can be.
    pub steps: usize,
    /// Bytes of the tensors that the import computes, beyond those that the file holds.
    pub constant_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { rank: 32, nodes: 1 << 18, depth: 24, steps: 1024, constant_bytes: 1 << 30 }
    }
}

impl Limits {
    /// The limits' names, for [`Limits::set`].
    pub const NAMES: [&str; 5] = ["rank", "nodes", "depth", "steps", "constant-bytes"];

    /// Sets the limit of this name; whether there is one.
    pub fn set(&mut self, name: &str, value: usize) -> bool {
        let limit = match name {
            "rank" => &mut self.rank,
            "nodes" => &mut self.nodes,
            "depth" => &mut self.depth,
            "steps" => &mut self.steps,
            "constant-bytes" => &mut self.constant_bytes,
            _ => return false,
        };
        *limit = value;
        true
    }
}

/// What an import has made so far, against its limits.
#[derive(Debug)]
pub(super) struct Budget {
    pub(super) limits: Limits,
    depth: usize,
    /// Nodes of the file that were imported, every call of a function and every step of a loop anew.
    visited: usize,
    constant_bytes: usize,
}

impl Budget {
    pub(super) fn new(limits: Limits) -> Self {
        Budget { limits, depth: 0, visited: 0, constant_bytes: 0 }
    }

    /// Enters a control node or a function.
    pub(super) fn enter(&mut self) -> NodeResult<()> {
        let limit = self.limits.depth;
        if self.depth >= limit {
            return refuse(format!("control nodes and functions are nested deeper than the limit `depth`, {limit}"));
        }
        self.depth += 1;
        Ok(())
    }

    /// Leaves it.
    pub(super) fn leave(&mut self) {
        self.depth -= 1;
    }

    /// How many of them are open.
    pub(super) fn depth(&self) -> usize {
        self.depth
    }

    /// Leaves all but the outermost `depth`.
    pub(super) fn return_to(&mut self, depth: usize) {
        self.depth = depth;
    }

    /// Counts a node of the file, which may become none of the graph.
    pub(super) fn visit(&mut self) -> NodeResult<()> {
        self.visited += 1;
        match self.limits.nodes {
            limit if self.visited > limit => {
                refuse(format!("with every call and step there are more nodes than the limit `nodes`, {limit}"))
            }
            _ => Ok(()),
        }
    }

    /// Checks that the graph, of `nodes` nodes, may have another.
    pub(super) fn check_nodes(&self, nodes: usize) -> NodeResult<()> {
        match self.limits.nodes {
            limit if nodes >= limit => refuse(format!("the graph has more nodes than the limit `nodes`, {limit}")),
            _ => Ok(()),
        }
    }

    /// Counts a tensor of `bytes` that the import computes.
    pub(super) fn count_constant(&mut self, bytes: usize) {
        self.constant_bytes = self.constant_bytes.saturating_add(bytes);
    }

    /// Checks that a tensor of another `bytes` may be computed.
    pub(super) fn check_constants(&self, bytes: usize) -> NodeResult<()> {
        let limit = self.limits.constant_bytes;
        match self.constant_bytes.saturating_add(bytes) > limit {
            true => refuse(format!("computed tensors need more bytes than the limit `constant-bytes`, {limit}")),
            false => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use eec_ir::DType;

    #[test]
    fn text_becomes_the_inputs_type_or_says_why_not() {
        let ty = |dtype, dims: &[i64]| Type::new(dtype, dims.iter().map(|d| Dim::from(*d)));
        let tensor = |text: &str, ty: &Type| FixedInput::Text(text.into()).tensor(ty);
        assert_eq!(tensor("7", &ty(DType::I64, &[])), Ok(Tensor::scalar(7i64)));
        assert_eq!(tensor("1.5, -2", &ty(DType::F32, &[2])), Ok(Tensor::vector(vec![1.5f32, -2.0])));
        assert_eq!(tensor("true", &ty(DType::Bool, &[1])).map(|t| t.bytes().to_vec()), Ok(vec![1]));
        let open = Type::new(DType::I64, [Dim::symbol("n")]);
        assert_eq!(tensor("3,1,2", &open), Ok(Tensor::vector(vec![3i64, 1, 2])));
        assert_eq!(tensor("x", &open), Err("is i64[n]; `x` is not one of its elements".into()));
        assert_eq!(tensor("300", &ty(DType::U8, &[])), Err("is u8[]; `300` is not one of its elements".into()));
        assert_eq!(tensor("1,2", &ty(DType::I64, &[3])), Err("is i64[3]; 2 elements do not fit it".into()));
    }
}
