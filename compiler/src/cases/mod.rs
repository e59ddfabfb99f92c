//! Cases in text: a header, then a graph. The test suites run them (`eec::testing` for those of other
//! crates), `eec opt` prints what they give, and `eec reduce` makes failing ones small.
//!
//! The header is TOML in comments:
//!
//! ```text
//! ;! passes = "simplify, exit-heads{at=[1], rule=maxprob:0.9}"
//! ;! emit = "program"
//! graph @tiny(%x: f32[batch, 4]) -> (%y: f32[batch, 4]) { … }
//! ```

pub mod backend;
mod judge;
mod seeded;
pub mod values;

use std::collections::BTreeSet;

use eec_ir::bind::Sizes;
use eec_ir::text::{self, ParseErrors};
use eec_ir::verify::{Stage, VerifyErrors, verify};
use eec_ir::{Graph, Symbol, program};
use eec_passes::pass::Context;
use eec_passes::pipeline::{self, RunError};
use eec_passes::registry::{PipelineError, Registry};
use serde::Deserialize;

pub use seeded::{seeded_constant, seeded_inputs};

use crate::lower::{LowerError, Names, lower};
use crate::wgsl;

/// What a case asks for.
#[derive(Clone, PartialEq, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct Header {
    /// The passes to run, as in [`Registry::pipeline`].
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
    /// A pass failed, or left a graph that is not valid.
    #[error(transparent)]
    Run(#[from] RunError),
    /// The graph cannot be lowered.
    #[error(transparent)]
    Lower(#[from] LowerError),
    /// What lowering made is not valid.
    #[error("the program is not valid: {0}")]
    Program(program::VerifyErrors),
    /// The program has no GPU form.
    #[error(transparent)]
    Wgsl(#[from] wgsl::LowerError),
}

/// A case.
///
/// ```
/// use eec::cases::Case;
/// use eec_passes::registry::Registry;
///
/// let case = Case::new(
///     ";! passes = \"simplify\"
///      graph @g(%x: f32[n, 4]) -> (%y: f32[n, 4]) {
///        %0 = Transpose{perm=[1, 0]}(%x)
///        %1 = Transpose{perm=[1, 0]}(%0)
///        %y = Relu(%1)
///        return %y
///      }",
/// )?;
/// let outcome = case.run(&Registry::builtin())?;
/// assert!(!outcome.text.contains("Transpose"));
/// case.judge(&outcome)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Case {
    /// What it asks for.
    pub header: Header,
    source: String,
}

/// What a case gives.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Its graph.
    pub before: Graph,
    /// The graph after the passes.
    pub after: Graph,
    /// The form that the header asks for.
    pub text: String,
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

    /// Runs its passes, which are those of `registry`, and makes the text of its snapshot.
    pub fn run(&self, registry: &Registry) -> Result<Outcome, CaseError> {
        let before = self.graph()?;
        let passes = registry.pipeline(&self.header.passes)?;
        let mut after = before.clone();
        let options = pipeline::Options::default();
        pipeline::run(&passes, &mut after, &mut Context::default(), &options, &mut std::io::sink())?;
        let text = emit(&after, self.header.emit)?;
        Ok(Outcome { before, after, text })
    }

    /// Judges the values that the graphs of an outcome compute: those after the passes compare with those
    /// before as the header says, on the evaluator; every backend gives what the evaluator does; and
    /// the text form of the result loses nothing.
    ///
    /// # Errors
    ///
    /// The first difference: backend, sizes, output, and the elements that differ.
    pub fn judge(&self, outcome: &Outcome) -> Result<(), String> {
        judge::judge(self, outcome)
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

/// Runs those of eec's passes that `passes` lists, with the verifier after each of them.
pub fn run_passes(graph: &mut Graph, passes: &str, cx: &mut Context) -> Result<(), CaseError> {
    let passes = Registry::builtin().pipeline(passes)?;
    pipeline::run(&passes, graph, cx, &pipeline::Options::default(), &mut std::io::sink())?;
    Ok(())
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
