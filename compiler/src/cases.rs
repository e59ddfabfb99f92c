//! Cases in text: a header, then a graph. The command's `opt` and the test suite run them.
//!
//! The header is TOML in comments:
//!
//! ```text
//! ;! passes = "simplify, exit-heads{at=[1], rule=maxprob:0.9}"
//! ;! emit = "program"
//! graph @tiny(%x: f32[batch, 4]) -> (%y: f32[batch, 4]) { … }
//! ```

use std::collections::BTreeSet;

use eec_ir::bind::Sizes;
use eec_ir::minifloat::Overflow;
use eec_ir::text::{self, ConstRef, ParseErrors};
use eec_ir::verify::{Stage, VerifyErrors, verify};
use eec_ir::{DType, Graph, Symbol, Tensor, program};
use eec_passes::pass::{self, Context, Pass, PassError};
use eec_passes::registry::{self, PipelineError};
use eec_passes::simplify::Simplify;
use serde::Deserialize;

use crate::fit::random::Random;
use crate::lower::{LowerError, Names, lower};
use crate::wgsl::{self, Unsupported};

/// What a case asks for.
#[derive(Clone, PartialEq, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct Header {
    /// The passes to run, as in [`registry::pipeline`].
    pub passes: String,
    /// What to print.
    pub emit: Emit,
    /// Sizes of symbolic dims to compare values at: `batch=3, seq=5; batch=1, seq=2`.
    pub dims: Option<String>,
    /// How values after the passes compare with those before.
    pub compare: Compare,
    /// The case is refused, with a message that holds this.
    pub expect_error: Option<String>,
}

/// A form of the result.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Emit {
    /// The graph.
    #[default]
    Ir,
    /// The compiled program.
    Program,
    /// Its GPU form.
    Wgsl,
}

/// How values after the passes compare with those before.
#[derive(Clone, Copy, PartialEq, Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Compare {
    /// Equal to the last bit.
    #[default]
    Exact,
    /// Within this absolute and relative difference: the passes change the order of arithmetic.
    Within(f32),
    /// Not at all: the passes change what is computed.
    Differs,
}

/// Why a case fails.
#[derive(Debug, thiserror::Error)]
pub enum CaseError {
    /// The header is not understood.
    #[error("header: {0}")]
    Header(String),
    /// The graph is not understood.
    #[error(transparent)]
    Parse(#[from] ParseErrors),
    /// No such passes.
    #[error(transparent)]
    Pipeline(#[from] PipelineError),
    /// The text describes no valid graph.
    #[error(transparent)]
    Invalid(#[from] VerifyErrors),
    /// A pass failed.
    #[error(transparent)]
    Pass(#[from] PassError),
    /// The graph cannot be lowered.
    #[error(transparent)]
    Lower(#[from] LowerError),
    /// What lowering made is not valid.
    #[error("the program is not valid: {0}")]
    Program(program::VerifyErrors),
    /// The program has no GPU form.
    #[error(transparent)]
    Unsupported(#[from] Unsupported),
}

/// A case.
#[derive(Clone, Debug)]
pub struct Case {
    /// What it asks for.
    pub header: Header,
    source: String,
}

impl Case {
    /// Reads the header of a case's text.
    pub fn new(source: &str) -> Result<Case, CaseError> {
        // Lines of the graph stay as empty lines, so that errors name the line of the file.
        let header: Vec<&str> = source.lines().map(|l| l.strip_prefix(";!").unwrap_or_default()).collect();
        let header = toml::from_str(&header.join("\n")).map_err(|e| CaseError::Header(e.to_string()))?;
        Ok(Case { header, source: source.to_string() })
    }

    /// Its graph, verified.
    pub fn graph(&self) -> Result<Graph, CaseError> {
        let graph = text::parse(&self.source, &mut |c| Some(seeded_constant(c)))?;
        verify(&graph, Stage::Imported)?;
        Ok(graph)
    }

    /// The sizes to compare values at; without `dims`, one set that gives every symbol another size
    /// and one that gives all of them 1.
    pub fn sizes(&self, graph: &Graph) -> Result<Vec<Sizes>, CaseError> {
        let Some(dims) = &self.header.dims else {
            let symbols = symbols(graph);
            let different = symbols.iter().cloned().zip(3..).collect();
            return Ok(vec![different, symbols.into_iter().zip(std::iter::repeat(1)).collect()]);
        };
        let bad = |text: &str| CaseError::Header(format!("dims: expected `name=size`, found `{text}`"));
        let one = |text: &str| {
            let pair = text.split_once('=').and_then(|(n, s)| Some((Symbol::new(n.trim()), s.trim().parse().ok()?)));
            pair.ok_or_else(|| bad(text))
        };
        dims.split(';').map(|set| set.split(',').map(one).collect()).collect()
    }
}

/// The symbols of the inputs' dims.
fn symbols(graph: &Graph) -> BTreeSet<Symbol> {
    let mut symbols = BTreeSet::new();
    let dims = graph.inputs().iter().flat_map(|v| &graph.ty(*v).dims);
    dims.for_each(|d| d.collect_symbols(&mut symbols));
    symbols
}

/// Runs the passes that `passes` lists, with the verifier after each of them.
pub fn run_passes(graph: &mut Graph, passes: &str, cx: &mut Context) -> Result<(), CaseError> {
    let passes = registry::pipeline(passes)?;
    let mut stage = Stage::Imported;
    let mut invalid = None;
    let outcome = pass::run(&passes, graph, cx, &mut |pass: &dyn Pass, graph: &Graph| {
        if pass.name() == Simplify::NAME {
            stage = Stage::Dynamic;
        }
        let Err(errors) = verify(graph, stage) else { return Ok(()) };
        let stop = PassError::new(pass.name(), &errors);
        invalid = Some(errors);
        Err(stop)
    });
    match invalid {
        Some(errors) => Err(errors.into()),
        None => Ok(outcome?),
    }
}

/// The graph in the form asked for.
pub fn emit(graph: &Graph, form: Emit) -> Result<String, CaseError> {
    match form {
        Emit::Ir => Ok(graph.to_string()),
        Emit::Program => Ok(lowered(graph)?.to_string()),
        Emit::Wgsl => {
            let program = lowered(graph)?;
            Ok(wgsl::lower(&program::verify(&program).map_err(CaseError::Program)?)?.to_string())
        }
    }
}

/// The program of a graph, verified.
pub fn lowered(graph: &Graph) -> Result<program::Program, CaseError> {
    let names: Vec<String> = (0..exit_count(graph)).map(|k| format!("exit {k}")).collect();
    let program = lower(verify(graph, Stage::Lowerable)?, Names { exits: &names, gates: &[] })?;
    program::verify(&program).map_err(CaseError::Program)?;
    Ok(program)
}

/// The number of early exits in a graph.
pub fn exit_count(graph: &Graph) -> usize {
    graph.nodes_in_order().into_iter().filter(|n| graph.node(*n).op.exit().is_some()).count()
}

/// Seeded inputs of a graph at these sizes: floats between -1 and 1, integers from 0 to 3.
pub fn seeded_inputs(graph: &Graph, sizes: &Sizes) -> Result<Vec<Tensor>, CaseError> {
    let inputs = graph.inputs().iter().enumerate().map(|(i, value)| {
        let ty = graph.ty(*value);
        let size = |d: &eec_ir::Dim| d.eval(&|s| sizes.get(s).copied()).and_then(|n| usize::try_from(n).ok());
        let dims: Option<Vec<usize>> = ty.dims.iter().map(size).collect();
        let dims = dims.ok_or_else(|| CaseError::Header(format!("dims: the input type {ty} has no size")))?;
        Ok(seeded(ty.dtype, &dims, i as u64))
    });
    inputs.collect()
}

/// The constant that a case names by a hash: equal digits, type and dims give equal elements.
pub fn seeded_constant(constant: &ConstRef) -> Tensor {
    let seed = constant.hash.bytes().fold(0u64, |seed, b| seed.wrapping_mul(31).wrapping_add(u64::from(b)));
    seeded(constant.dtype, &constant.dims, seed)
}

/// A tensor with elements from a seed: floats of mean 0 whose products with others of their kind
/// keep their size, integers from 0 to 3.
fn seeded(dtype: DType, dims: &[usize], seed: u64) -> Tensor {
    let mut random = Random::new(seed);
    let len: usize = dims.iter().product();
    let fan_in = if dims.len() < 2 { 1 } else { len / dims.iter().max().copied().unwrap_or(1).max(1) };
    // Uniform with variance 1/fan-in; no function whose last bit differs between machines.
    let scale = (3.0 / fan_in.max(1) as f64).sqrt();
    let mut ints = || (0..len).map(|_| (random.bits() >> 62) as i64).collect::<Vec<_>>();
    let tensor = match dtype {
        DType::I64 => Tensor::new(dims, ints()),
        DType::I32 => Tensor::new(dims, ints().into_iter().map(|i| i as i32).collect()),
        DType::Bool => Tensor::new(dims, ints().into_iter().map(|i| u8::from(i > 1)).collect()),
        DType::F32 => Tensor::new(dims, (0..len).map(|_| ((2.0 * random.uniform() - 1.0) * scale) as f32).collect()),
        other if other.is_int() => {
            let (_, largest) = other.integer_range().unwrap_or_default();
            let data: Vec<i128> = ints().into_iter().map(|i| i128::from(i).min(largest)).collect();
            Tensor::from_integers(other, dims, &data)
        }
        other => {
            let data: Vec<f64> = (0..len).map(|_| (2.0 * random.uniform() - 1.0) * scale).collect();
            Tensor::from_f64s(other, dims, &data, Overflow::Saturate)
        }
    };
    // There are as many elements as the dims ask for.
    tensor.unwrap_or_else(|_| Tensor::vector(Vec::<f32>::new()))
}
