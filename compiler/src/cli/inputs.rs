//! Inputs of a run from the command line: files by name, or seeded random ones.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use eec_ir::minifloat::Overflow;
use eec_ir::{DType, Dim, Graph, Tensor, Type, ValueId};

use super::dims::{self, Dims};
use super::import::once;
use super::output::warning;
use crate::Error;
use crate::dataset::fitted;
use crate::fit::random::Random;
use crate::npz::{self, Arrays};
use crate::onnx;

/// Where the help lists these.
const HEADING: &str = "Inputs";

/// Where inputs come from.
#[derive(clap::Args)]
pub(super) struct InputArgs {
    /// All inputs by name: an .npz file, a folder of ONNX test data (input_0.pb, …), or a .npy or .pb
    /// file for the first input
    #[arg(long, help_heading = HEADING, value_name = "FILE|DIR")]
    pub(super) inputs: Option<PathBuf>,
    /// One input: NAME=@FILE (.npy, .npz or .pb); may be repeated
    #[arg(long, help_heading = HEADING, value_name = "NAME=@FILE", value_parser = input_arg)]
    pub(super) input: Vec<(String, PathBuf)>,
    /// A symbolic dim of random inputs: NAME=N; may be repeated [default: 1; for the length of a mask
    /// beside caches, what the caches grow to]
    #[arg(long, help_heading = HEADING, value_name = "NAME=N", value_parser = dims::dim_arg)]
    pub(super) dim: Vec<(String, i64)>,
    /// The shape of a random input: NAME:1x3x224x224; may be repeated
    #[arg(long, help_heading = HEADING, value_name = "NAME:SHAPE", value_parser = dims::shape_arg)]
    pub(super) shape: Vec<(String, Vec<usize>)>,
    /// Seed of random inputs
    #[arg(long, help_heading = HEADING, default_value_t = 0, value_name = "N")]
    pub(super) seed: u64,
}

impl InputArgs {
    /// One tensor per graph input, by name.
    pub(super) fn resolve(&self, graph: &Graph) -> Result<Vec<(String, Tensor)>, Error> {
        let given = self.given(graph)?;
        once("--input", &self.input)?;
        once("--shape", &self.shape)?;
        let (mut dims, shapes) = (dims::given_dims(&self.dim, graph)?, self.shapes(graph)?);
        dims::bind_shapes(graph, |name| given.get(name).map(Tensor::dims), &mut dims);
        dims::bind_shapes(graph, |name| shapes.get(name).copied(), &mut dims);
        let absent: Vec<ValueId> =
            graph.inputs().iter().copied().filter(|v| !given.contains_key(name_of(graph, *v))).collect();
        warn_of_random(graph, &absent);
        let shapeless = absent.iter().copied().filter(|v| !shapes.contains_key(name_of(graph, *v)));
        dims::fill(graph, &shapeless.collect::<Vec<_>>(), &mut dims);
        let mut random = Random::new(self.seed);
        let mut tensor = |value: ValueId| {
            let (name, ty) = (name_of(graph, value), graph.ty(value));
            if let Some(tensor) = given.get(name) {
                return Ok((name.to_string(), tensor.clone()));
            }
            let shape = shapes.get(name).map_or_else(|| sized(name, ty, &dims), |s| Ok(s.to_vec()))?;
            Ok((name.to_string(), random_tensor(name, ty.dtype, &shape, &mut random)?))
        };
        graph.inputs().iter().map(|v| tensor(*v)).collect()
    }

    fn shapes(&self, graph: &Graph) -> Result<BTreeMap<&str, &[usize]>, Error> {
        let names = input_names(graph);
        match self.shape.iter().find(|(name, _)| !names.contains(&name.as_str())) {
            Some((unknown, _)) => Err(Error::usage(no_input(unknown, &names))),
            None => Ok(self.shape.iter().map(|(name, dims)| (name.as_str(), dims.as_slice())).collect()),
        }
    }

    /// The inputs that files give, integers as the model's integer type.
    fn given(&self, graph: &Graph) -> Result<BTreeMap<String, Tensor>, Error> {
        let mut given = BTreeMap::new();
        if let Some(path) = &self.inputs {
            given.extend(named_tensors(path, &input_names(graph), "input")?);
        }
        for (name, file) in &self.input {
            given.insert(name.clone(), read_input(name, file)?);
        }
        let names = input_names(graph);
        if let Some(unknown) = given.keys().find(|n| !names.contains(&n.as_str()) && *n != crate::dataset::LABELS) {
            let why = no_input(unknown, &names);
            return Err(Error::request(format!("{why}; an input that --fix makes a constant is given no array")));
        }
        for value in graph.inputs() {
            if let Some((name, tensor)) = given.remove_entry(name_of(graph, *value)) {
                given.insert(name, fitted(tensor, graph.ty(*value).dtype));
            }
        }
        Ok(given)
    }
}

/// Random inputs at the given sizes.
pub(super) fn random(graph: &Graph, dim: &[(String, i64)]) -> Result<Vec<(String, Tensor)>, Error> {
    let args = InputArgs { inputs: None, input: Vec::new(), dim: dim.to_vec(), shape: Vec::new(), seed: 0 };
    args.resolve(graph)
}

fn name_of(graph: &Graph, value: ValueId) -> &str {
    graph.value(value).name.as_deref().unwrap_or_default()
}

fn input_names(graph: &Graph) -> Vec<&str> {
    graph.inputs().iter().map(|v| name_of(graph, *v)).collect()
}

fn no_input(name: &str, known: &[&str]) -> String {
    format!("`{name}` is no input of the model (inputs: {})", known.join(", "))
}

/// Names the inputs that are random beside others that are given.
fn warn_of_random(graph: &Graph, absent: &[ValueId]) {
    if absent.is_empty() || absent.len() == graph.inputs().len() {
        return;
    }
    let names: Vec<&str> = absent.iter().map(|v| name_of(graph, *v)).collect();
    let are = if names.len() == 1 { "input {} is" } else { "inputs {} are" };
    warning(&format!("{} not given; taking random values", are.replace("{}", &names.join(", "))));
}

/// `NAME=@FILE` of `--input`.
fn input_arg(text: &str) -> Result<(String, PathBuf), String> {
    let parsed = text.split_once("=@").filter(|(name, file)| !name.is_empty() && !file.is_empty());
    parsed.map(|(name, file)| (name.to_string(), file.into())).ok_or_else(|| "expected NAME=@FILE".into())
}

/// Arrays by name: those of an `.npz` file, of a folder with ONNX test data (`input_0.pb`, … where
/// `kind` is `input`) in the order of `names`, or a single `.npy` or `.pb` file for the first name.
pub(super) fn named_tensors(path: &Path, names: &[&str], kind: &str) -> Result<Arrays, Error> {
    if let (Some(tensor), Some(first)) = (single_tensor(path)?, names.first()) {
        return Ok(Arrays::from([((*first).to_string(), tensor)]));
    }
    if !path.is_dir() {
        return Ok(npz::read_npz(path)?);
    }
    let files = test_files(path, kind)?;
    if let Some(extra) = files.get(names.len()) {
        return Err(Error::content(extra, format!("the model has only the {kind}s {}", names.join(", "))));
    }
    let tensor = |(name, file): (&&str, &PathBuf)| Ok(((*name).to_string(), onnx::read_tensor_file(file)?.1));
    names.iter().zip(&files).map(tensor).collect()
}

/// The files `{kind}_0.pb`, `{kind}_1.pb`, … of a folder; one after a gap is refused.
fn test_files(folder: &Path, kind: &str) -> Result<Vec<PathBuf>, Error> {
    let number = |name: &str| name.strip_prefix(kind)?.strip_prefix('_')?.strip_suffix(".pb")?.parse::<usize>().ok();
    let mut numbers = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(|e| Error::io(folder, e))? {
        let name = entry.map_err(|e| Error::io(folder, e))?.file_name();
        numbers.extend(name.to_str().and_then(number));
    }
    numbers.sort_unstable();
    let file = |i: usize| folder.join(format!("{kind}_{i}.pb"));
    match numbers.iter().enumerate().find(|(i, n)| i != *n) {
        Some((i, n)) => Err(Error::content(&file(*n), format!("there is no {kind}_{i}.pb before it"))),
        None if numbers.is_empty() => Err(Error::content(
            folder,
            format!("expected a folder with {kind}_0.pb, {kind}_1.pb, …; found none of them"),
        )),
        None => Ok(numbers.into_iter().map(file).collect()),
    }
}

/// The tensor of a file named `.npy` or `.pb`.
fn single_tensor(path: &Path) -> Result<Option<Tensor>, Error> {
    Ok(match path.extension().and_then(|e| e.to_str()) {
        Some("npy") => Some(npz::read_npy(path)?),
        Some("pb") => Some(onnx::read_tensor_file(path)?.1),
        Some(_) | None => None,
    })
}

/// The tensor in a file; of an `.npz` file the array of that name, or its only one.
pub(super) fn read_input(name: &str, path: &Path) -> Result<Tensor, Error> {
    if let Some(tensor) = single_tensor(path)? {
        return Ok(tensor);
    }
    if path.extension().is_none_or(|e| e != "npz") {
        return Err(Error::content(path, "expected a file named .npy, .npz or .pb"));
    }
    let mut arrays = npz::read_npz(path)?;
    let only = (arrays.len() == 1).then(|| arrays.pop_first()).flatten().map(|(_, t)| t);
    let found = arrays.remove(name).or(only);
    found.ok_or_else(|| Error::content(path, format!("holds no array `{name}`")))
}

/// The input's dims where every symbol has a size.
fn sized(name: &str, ty: &Type, dims: &Dims) -> Result<Vec<usize>, Error> {
    let size = |d: &Dim| d.eval(&|s| dims.get(s).copied()).and_then(|n| usize::try_from(n).ok());
    let shape: Option<Vec<usize>> = ty.dims.iter().map(size).collect();
    shape.ok_or_else(|| Error::request(format!("input `{name}` of type {ty} has no valid shape under these dims")))
}

/// Standard normal floats; integers below 10, masks all ones, as other tools do.
fn random_tensor(name: &str, dtype: DType, shape: &[usize], random: &mut Random) -> Result<Tensor, Error> {
    let len = shape.iter().try_fold(1usize, |a, d| a.checked_mul(*d)).filter(|n| *n <= 1 << 32);
    let len = len.ok_or_else(|| Error::request(format!("input `{name}` of shape {shape:?} is too large")))?;
    let mask = dims::is_mask_name(name);
    let mut int = || if mask { 1 } else { (random.uniform() * 10.0) as i64 };
    let tensor = match dtype {
        DType::I64 => Tensor::new(shape, (0..len).map(|_| int()).collect()),
        DType::I32 => Tensor::new(shape, (0..len).map(|_| int() as i32).collect()),
        DType::Bool => Tensor::new(shape, (0..len).map(|_| u8::from(mask || int() >= 5)).collect()),
        DType::F32 if mask => Tensor::new(shape, vec![1f32; len]),
        DType::F32 => Tensor::new(shape, (0..len).map(|_| random.normal() as f32).collect()),
        other if other.is_int() => {
            Tensor::from_integers(other, shape, &(0..len).map(|_| int().into()).collect::<Vec<_>>())
        }
        other => {
            let data: Vec<f64> = (0..len).map(|_| if mask { 1.0 } else { random.normal() }).collect();
            Tensor::from_f64s(other, shape, &data, Overflow::Saturate)
        }
    };
    tensor.map_err(|e| Error::request(format!("input `{name}`: {e}")))
}
