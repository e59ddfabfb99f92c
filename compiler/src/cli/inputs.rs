//! Inputs of a run from the command line: files by name, or seeded random ones.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use eec_ir::{DType, Graph, Symbol, Tensor, Type};

use super::output::warning;
use crate::Error;
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
    #[arg(long, help_heading = HEADING, value_name = "NAME=@FILE")]
    pub(super) input: Vec<String>,
    /// A symbolic dim of random inputs: NAME=N; may be repeated [default: 1]
    #[arg(long, help_heading = HEADING, value_name = "NAME=N")]
    pub(super) dim: Vec<String>,
    /// The shape of a random input: NAME:1x3x224x224; may be repeated
    #[arg(long, help_heading = HEADING, value_name = "NAME:SHAPE")]
    pub(super) shape: Vec<String>,
    /// Seed of random inputs
    #[arg(long, help_heading = HEADING, default_value_t = 0, value_name = "N")]
    pub(super) seed: u64,
}

impl InputArgs {
    /// One tensor per graph input, by name.
    pub(super) fn resolve(&self, graph: &Graph) -> Result<Vec<(String, Tensor)>, Error> {
        let given = self.given(graph)?;
        let (mut dims, mut shapes) = (parse_dims(&self.dim, graph)?, parse_shapes(&self.shape, graph)?);
        bind_shapes(graph, |name| given.get(name).map(Tensor::dims), &mut dims);
        bind_shapes(graph, |name| shapes.get(name).map(Vec::as_slice), &mut dims);
        let mut random = Random::new(self.seed);
        let mut out = Vec::new();
        for value in graph.inputs() {
            let (name, ty) = (graph.value(*value).name.as_deref().unwrap_or_default(), graph.ty(*value));
            let tensor = match given.get(name) {
                Some(tensor) => tensor.clone(),
                None => {
                    let shape = shapes.remove(name).map_or_else(|| default_shape(name, ty, &mut dims), Ok)?;
                    random_tensor(name, ty.dtype, &shape, &mut random)?
                }
            };
            out.push((name.to_string(), tensor));
        }
        Ok(out)
    }

    fn given(&self, graph: &Graph) -> Result<BTreeMap<String, Tensor>, Error> {
        let mut given = BTreeMap::new();
        if let Some(path) = &self.inputs {
            given.extend(named_tensors(path, &input_names(graph), "input")?);
        }
        for text in &self.input {
            let (name, tensor) = parse_input(text)?;
            given.insert(name, tensor);
        }
        let names = input_names(graph);
        if let Some(unknown) = given.keys().find(|n| !names.contains(&n.as_str()) && *n != crate::dataset::LABELS) {
            return Err(Error::request(format!("`{unknown}` is no input of the model (inputs: {})", names.join(", "))));
        }
        Ok(given)
    }
}

fn input_names(graph: &Graph) -> Vec<&str> {
    graph.inputs().iter().filter_map(|v| graph.value(*v).name.as_deref()).collect()
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
    let mut out = Arrays::new();
    for (i, name) in names.iter().enumerate() {
        let file = path.join(format!("{kind}_{i}.pb"));
        if file.exists() {
            out.insert((*name).to_string(), onnx::read_tensor_file(&file)?.1);
        }
    }
    if out.is_empty() {
        let reason = format!("expected a folder with {kind}_0.pb, {kind}_1.pb, …; found none of them");
        return Err(Error::content(path, reason));
    }
    Ok(out)
}

/// The tensor of a file named `.npy` or `.pb`.
fn single_tensor(path: &Path) -> Result<Option<Tensor>, Error> {
    Ok(match path.extension().and_then(|e| e.to_str()) {
        Some("npy") => Some(npz::read_npy(path)?),
        Some("pb") => Some(onnx::read_tensor_file(path)?.1),
        Some(_) | None => None,
    })
}

/// `NAME=@FILE`; of an `.npz` file the array of that name, or its only one.
fn parse_input(text: &str) -> Result<(String, Tensor), Error> {
    let Some((name, file)) = text.split_once("=@") else {
        return Err(Error::request(format!("--input {text}: expected NAME=@FILE")));
    };
    let path = Path::new(file);
    if let Some(tensor) = single_tensor(path)? {
        return Ok((name.to_string(), tensor));
    }
    if path.extension().is_none_or(|e| e != "npz") {
        return Err(Error::content(path, "expected a file named .npy, .npz or .pb"));
    }
    let mut arrays = npz::read_npz(path)?;
    let only = (arrays.len() == 1).then(|| arrays.pop_first()).flatten().map(|(_, t)| t);
    let found = arrays.remove(name).or(only);
    let tensor = found.ok_or_else(|| Error::content(path, format!("holds no array `{name}`")))?;
    Ok((name.to_string(), tensor))
}

pub(super) fn parse_dims(args: &[String], graph: &Graph) -> Result<BTreeMap<Symbol, i64>, Error> {
    let mut known = std::collections::BTreeSet::new();
    graph.inputs().iter().flat_map(|v| &graph.ty(*v).dims).for_each(|d| d.collect_symbols(&mut known));
    let mut out = BTreeMap::new();
    for text in args {
        let parsed = text.split_once('=').and_then(|(n, v)| Some((Symbol::new(n), v.parse::<i64>().ok()?)));
        match parsed {
            Some((symbol, n)) if n >= 0 && known.contains(&symbol) => {
                out.insert(symbol, n);
            }
            Some((symbol, n)) if n >= 0 => {
                let known: Vec<String> = known.iter().map(Symbol::to_string).collect();
                return Err(Error::request(format!("the model has no dim `{symbol}` (dims: {})", known.join(", "))));
            }
            Some(_) | None => {
                return Err(Error::request(format!("--dim {text}: expected NAME=N with a number N of 0 or more")));
            }
        }
    }
    Ok(out)
}

fn parse_shapes(args: &[String], graph: &Graph) -> Result<BTreeMap<String, Vec<usize>>, Error> {
    let names = input_names(graph);
    let mut out = BTreeMap::new();
    for text in args {
        let parsed = text.rsplit_once(':').and_then(|(name, shape)| {
            let dims: Option<Vec<usize>> = shape.split('x').map(|d| d.parse().ok()).collect();
            Some((name.to_string(), dims?))
        });
        let Some((name, dims)) = parsed else {
            return Err(Error::request(format!(
                "--shape {text}: expected NAME:SHAPE such as pixel_values:1x3x224x224"
            )));
        };
        if !names.contains(&name.as_str()) {
            return Err(Error::request(format!("`{name}` is no input of the model (inputs: {})", names.join(", "))));
        }
        out.insert(name, dims);
    }
    Ok(out)
}

/// Takes dims from the inputs whose shape is known, so that random ones fit them.
fn bind_shapes<'a>(graph: &Graph, shape: impl Fn(&str) -> Option<&'a [usize]>, dims: &mut BTreeMap<Symbol, i64>) {
    for value in graph.inputs() {
        let Some(shape) = graph.value(*value).name.as_deref().and_then(&shape) else { continue };
        for (dim, size) in graph.ty(*value).dims.iter().zip(shape) {
            if let (Some(symbol), Ok(size)) = (dim.as_symbol(), i64::try_from(*size)) {
                dims.entry(symbol.clone()).or_insert(size);
            }
        }
    }
}

/// The input's dims with `--dim` applied; a symbol not given is 1, with a warning.
fn default_shape(name: &str, ty: &Type, dims: &mut BTreeMap<Symbol, i64>) -> Result<Vec<usize>, Error> {
    let mut symbols = std::collections::BTreeSet::new();
    ty.dims.iter().for_each(|d| d.collect_symbols(&mut symbols));
    for symbol in symbols {
        dims.entry(symbol).or_insert_with_key(|symbol| {
            warning(&format!("dim `{symbol}` is not given; taking 1 (set it with --dim {symbol}=N)"));
            1
        });
    }
    let size = |d: &eec_ir::Dim| d.eval(&|s| dims.get(s).copied()).and_then(|n| usize::try_from(n).ok());
    let shape: Option<Vec<usize>> = ty.dims.iter().map(size).collect();
    shape.ok_or_else(|| Error::request(format!("input `{name}` of type {ty} has no valid shape under these dims")))
}

/// Standard normal floats; integers below 10, masks all ones, as other tools do.
fn random_tensor(name: &str, dtype: DType, shape: &[usize], random: &mut Random) -> Result<Tensor, Error> {
    let len = shape.iter().try_fold(1usize, |a, d| a.checked_mul(*d)).filter(|n| *n <= 1 << 32);
    let len = len.ok_or_else(|| Error::request(format!("input `{name}` of shape {shape:?} is too large")))?;
    let mask = name.contains("mask");
    let mut int = || if mask { 1 } else { (random.uniform() * 10.0) as i64 };
    let tensor = match dtype {
        DType::I64 => Tensor::new(shape, (0..len).map(|_| int()).collect()),
        DType::I32 => Tensor::new(shape, (0..len).map(|_| int() as i32).collect()),
        DType::Bool => Tensor::new(shape, (0..len).map(|_| u8::from(mask || int() >= 5)).collect()),
        DType::F32 if mask => Tensor::new(shape, vec![1f32; len]),
        DType::F32 => Tensor::new(shape, (0..len).map(|_| random.normal() as f32).collect()),
    };
    tensor.map_err(|e| Error::request(format!("input `{name}`: {e}")))
}
