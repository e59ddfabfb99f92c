//! A model on disk, whether `.onnx` or `.eec`: its plain graph, its dynamic graph if it has exits,
//! and sessions that run them.

mod inserted;

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io::Read;
use std::path::{Path, PathBuf};

use eec_ir::gpu::GpuProgram;
use eec_ir::graph::Def;
use eec_ir::program::{self, Program};
use eec_ir::verify::{Stage, verify};
use eec_ir::{ContentHash, Graph, Op, Precision, Tensor, text};
use eec_passes::pass::{Context, Pass};
use eec_passes::select_early::SelectEarly;
use eec_passes::simplify::Simplify;
use eec_runtime::{Artifact, ArtifactWriter, MAGIC, Options, Runner, Session, check_runs};

use serde::{Deserialize, Serialize};

use crate::backend::Backend;
use crate::calibrate::{Costs, Policy};
use crate::lower::{Names, lower};
use crate::recipe::Recipe;
use crate::report::{Narrowing, Report, Summary};
use crate::{Error, fit, onnx, wgsl};

pub use inserted::{Inserted, TokenPlaces};

/// Sections of an artifact that the compiler reads back; the runtime carries them as bytes.
mod section {
    pub(super) const PLAIN_GRAPH: &str = "graph.plain";
    pub(super) const DYNAMIC_GRAPH: &str = "graph";
    pub(super) const RECIPE: &str = "recipe";
    pub(super) const REPORTS: &str = "reports";
    pub(super) const SUMMARY: &str = "summary";
    pub(super) const NARROWING: &str = "narrowing";
    pub(super) const POLICY: &str = "policy";
    pub(super) const INSERTED: &str = "inserted";
    pub(super) const CANDIDATES: &str = "candidates";
}

/// What makes a model dynamic.
#[derive(Clone, Debug)]
pub struct Dynamic {
    /// The graph with exits.
    pub graph: Graph,
    /// One name per exit, in order of depth.
    pub exits: Vec<String>,
    /// One name per gate, by number.
    pub gates: Vec<String>,
}

impl Dynamic {
    pub(crate) fn names(&self) -> Names<'_> {
        Names { exits: &self.exits, gates: &self.gates }
    }
}

/// A model.
pub struct Model {
    /// Its file.
    pub path: PathBuf,
    /// The plain model, simplified.
    pub plain: Graph,
    /// The model with exits, if it has any.
    pub dynamic: Option<Dynamic>,
    /// What it was compiled from.
    pub recipe: Recipe,
    /// The decisions of calibration, if there was one.
    pub policy: Option<Policy>,
    /// The fitted heads of all candidate exits, kept or not: what fixed depths are judged with.
    pub candidates: Option<Candidates>,
    /// What gates and token exits are judged with.
    pub inserted: Inserted,
    /// How calibration went, per mechanism.
    pub reports: Vec<Report>,
    /// What all mechanisms do together, if several were calibrated.
    pub summary: Option<Summary>,
    /// What storing weights in a narrow form changed, if that was measured.
    pub narrowing: Option<Narrowing>,
    /// The file, if it is compiled.
    artifact: Option<Artifact>,
}

/// All places where exits could stand, with their fitted heads.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Candidates {
    /// The blocks, in order of depth.
    pub blocks: Vec<usize>,
    /// One head per block.
    pub heads: Vec<fit::Head>,
    /// Multiply-accumulates per sample of the data they were fitted on.
    pub costs: Costs,
}

impl Candidates {
    /// Checks that there is a head and a cost per block, so that indexing needs no further care.
    fn checked(self) -> Result<Candidates, String> {
        let blocks = self.blocks.len();
        let costs = &self.costs;
        for (found, what) in [
            (self.heads.len(), "heads"),
            (costs.segment.len(), "costs of segments"),
            (costs.head.len(), "costs of heads"),
        ] {
            if found != blocks {
                return Err(format!("{blocks} blocks have {found} {what}"));
            }
        }
        if !self.blocks.is_sorted_by(|a, b| a < b) {
            return Err(format!("the blocks {:?} are not in order", self.blocks));
        }
        let plain = costs.segment.iter().try_fold(costs.tail, |sum, s| sum.checked_add(*s));
        if plain.is_none_or(|macs| macs == 0) {
            return Err("the plain model's cost is zero or too large".into());
        }
        Ok(self)
    }
}

/// Checks that a policy keeps one candidate per exit of the model.
fn checked_policy(policy: Policy, exits: usize, candidates: Option<&Candidates>) -> Result<Policy, String> {
    let kept = policy.kept();
    if kept.len() != exits {
        return Err(format!("it keeps {} exits, the model has {exits}", kept.len()));
    }
    let known = candidates.map_or(usize::MAX, |c| c.blocks.len());
    match kept.iter().find(|k| **k >= known) {
        Some(k) => Err(format!("it keeps candidate {k} of {known}")),
        None => Ok(policy),
    }
}

/// Which form of a model.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Form {
    /// Without exits.
    Plain,
    /// With exits, if it has any.
    Dynamic,
}

impl Model {
    /// Opens an `.onnx` or `.eec` file; the content decides which, not the name.
    pub fn open(path: &Path) -> Result<Model, Error> {
        Model::open_with(path, &onnx::ImportOptions::default())
    }

    /// Like [`Model::open`]. An `.eec` file is imported already, so there `options` may ask for nothing.
    pub fn open_with(path: &Path, options: &onnx::ImportOptions) -> Result<Model, Error> {
        if !is_artifact(path)? {
            return Ok(Model::new(path, simplified(onnx::import_with(path, options)?)?));
        }
        if *options != onnx::ImportOptions::default() {
            let why = "is compiled: inputs, dims and limits are set when the .onnx is imported";
            return Err(Error::usage(format!("{} {why}", path.display())));
        }
        Model::from_artifact(path, Artifact::open(path)?)
    }

    /// A plain model in memory.
    pub fn new(path: &Path, plain: Graph) -> Model {
        Model {
            path: path.to_path_buf(),
            plain,
            dynamic: None,
            recipe: Recipe::default(),
            policy: None,
            candidates: None,
            inserted: Inserted::default(),
            reports: Vec::new(),
            summary: None,
            narrowing: None,
            artifact: None,
        }
    }

    fn from_artifact(path: &Path, artifact: Artifact) -> Result<Model, Error> {
        let section = |name: &str| {
            let bytes = artifact.section(name);
            bytes.map(|b| std::str::from_utf8(b).map_err(|e| Error::content(path, format!("section {name}: {e}"))))
        };
        let required =
            |name: &str| section(name).unwrap_or_else(|| Err(Error::content(path, format!("has no section {name}"))));
        // Both graphs share the floats of their constants.
        let mut read: HashMap<ContentHash, Tensor> = HashMap::new();
        let mut graph = |source: &str| {
            let mut resolve = |c: &text::ConstRef| {
                let hash = c.content_hash()?;
                match read.entry(hash) {
                    Entry::Occupied(found) => Some(found.get().clone()),
                    Entry::Vacant(missing) => Some(missing.insert(artifact.constant(hash)?).clone()),
                }
            };
            text::parse(source, &mut resolve).map_err(|e| Error::content(path, e))
        };
        let recipe = Recipe::from_toml(required(section::RECIPE)?).map_err(|e| Error::content(path, e))?;
        let plain = graph(required(section::PLAIN_GRAPH)?)?;
        let dynamic = section(section::DYNAMIC_GRAPH).transpose()?.map(graph).transpose()?;
        let graphs: Vec<&Graph> = std::iter::once(&plain).chain(&dynamic).collect();
        check_constants(&artifact, &graphs, &read).map_err(|why| Error::content(path, why))?;
        let program = artifact.program()?;
        let exits: Vec<String> = program.exits.iter().map(|e| e.name.clone()).collect();
        let gates: Vec<String> = program.gates.iter().map(|g| g.name.clone()).collect();
        let reports =
            section(section::REPORTS).transpose()?.map(|t| from_json(path, t)).transpose()?.unwrap_or_default();
        let summary = section(section::SUMMARY).transpose()?.map(|t| from_json(path, t)).transpose()?;
        let narrowing = section(section::NARROWING).transpose()?.map(|t| from_json(path, t)).transpose()?;
        let wrong = |name: &'static str| move |why: String| Error::content(path, format!("section {name}: {why}"));
        let inserted: Option<Inserted> =
            section(section::INSERTED).transpose()?.map(|t| from_json(path, t)).transpose()?;
        let inserted = inserted.unwrap_or_default();
        inserted.check(exits.len(), gates.len()).map_err(wrong(section::INSERTED))?;
        let candidates: Option<Candidates> =
            section(section::CANDIDATES).transpose()?.map(|t| from_json(path, t)).transpose()?;
        let candidates = candidates.map(Candidates::checked).transpose().map_err(wrong(section::CANDIDATES))?;
        let policy: Option<Policy> = section(section::POLICY).transpose()?.map(|t| from_json(path, t)).transpose()?;
        let policy = policy.map(|p| checked_policy(p, exits.len(), candidates.as_ref())).transpose();
        let policy = policy.map_err(wrong(section::POLICY))?;
        let dynamic = dynamic.map(|graph| Dynamic { graph, exits, gates });
        Ok(Model {
            path: path.to_path_buf(),
            plain,
            dynamic,
            recipe,
            policy,
            candidates,
            inserted,
            reports,
            summary,
            narrowing,
            artifact: Some(artifact),
        })
    }

    /// What the compiled form does otherwise than the plain model, for a reader; empty if nothing.
    pub fn changes(&self) -> Vec<String> {
        let mut changes = self.inserted.edits();
        if self.recipe.precision != Precision::F32 {
            changes.insert(0, format!("{} weights", self.recipe.precision));
        }
        let Some(dynamic) = &self.dynamic else { return changes };
        if !dynamic.gates.is_empty() {
            changes.push(format!("gates: {}", dynamic.gates.join(", ")));
        }
        match dynamic.exits.as_slice() {
            [] => {}
            [exit] => changes.push(format!("one exit, after {exit}")),
            exits => changes.push(format!("{} exits, after {}", exits.len(), exits.join(", "))),
        }
        changes
    }

    /// The graph of a form.
    pub fn graph(&self, form: Form) -> &Graph {
        match (&self.dynamic, form) {
            (Some(dynamic), Form::Dynamic) => &dynamic.graph,
            (None, Form::Dynamic) | (_, Form::Plain) => &self.plain,
        }
    }

    /// The compiled form: from the artifact, or lowered now.
    pub fn program(&self, form: Form) -> Result<Program, Error> {
        match (&self.artifact, form) {
            (Some(artifact), Form::Dynamic) => Ok(artifact.program()?),
            (Some(artifact), Form::Plain) => match artifact.plain_program()? {
                Some(plain) => Ok(plain),
                None if self.dynamic.is_some() => {
                    Err(Error::content(&self.path, "has no plain program beside its exits"))
                }
                None => Ok(artifact.program()?),
            },
            (None, Form::Plain) => lowered(&self.plain, Names::default()),
            (None, Form::Dynamic) => match &self.dynamic {
                Some(dynamic) => lowered(&dynamic.graph, dynamic.names()),
                None => lowered(&self.plain, Names::default()),
            },
        }
    }

    /// The GPU form of a form.
    ///
    /// # Errors
    ///
    /// Everything in it that has no shader.
    pub fn gpu_program(&self, form: Form) -> Result<GpuProgram, Error> {
        gpu_form(&self.program(form)?)?.map_err(|why| Error::content(&self.path, why))
    }

    /// Whether a form runs on a GPU: the kernels that only the host can compute there, with their operators, or what
    /// stands in the way.
    ///
    /// # Errors
    ///
    /// The form has no program.
    pub fn gpu_verdict(&self, form: Form) -> Result<Result<Vec<String>, String>, Error> {
        let program = self.program(form)?;
        let title = |id| program.kernel(id).title();
        Ok(gpu_form(&program)?.map(|gpu| gpu.host_kernels().map(title).collect()))
    }

    /// A session that runs a form.
    pub fn session(&self, form: Form, options: Options) -> Result<Session, Error> {
        let program = self.program(form)?;
        Ok(match &self.artifact {
            Some(artifact) => Session::of_artifact(artifact, program, options)?,
            None => session_of(program, self.graph(form), options)?,
        })
    }

    /// What runs a form on a backend.
    pub fn runner(&self, form: Form, backend: &Backend) -> Result<Box<dyn Runner>, Error> {
        self.measured_runner(form, backend, false)
    }

    /// [`Model::runner`], which measures every kernel if `profile` is set.
    pub fn measured_runner(&self, form: Form, backend: &Backend, profile: bool) -> Result<Box<dyn Runner>, Error> {
        match backend {
            Backend::Cpu { threads } => Ok(Box::new(self.session(form, Options { profile, ..run_options(*threads) })?)),
            #[cfg(feature = "gpu")]
            Backend::Gpu(gpu) => {
                let graph = self.graph(form).constants();
                let constant = |hash| match &self.artifact {
                    Some(artifact) => artifact.constant(hash),
                    None => graph.find(hash).map(|id| -> Tensor { graph.tensor(id).clone() }),
                };
                let (program, shaders) = match (&self.artifact, form) {
                    (Some(artifact), Form::Dynamic) => artifact.gpu()?,
                    (Some(artifact), Form::Plain) => artifact.plain_gpu()?,
                    (None, _) => (self.program(form)?, self.gpu_program(form)?),
                };
                Ok(Box::new(gpu.session(program, shaders, &constant, profile)?))
            }
        }
    }

    /// Writes the artifact; a failure or an interruption leaves no file behind.
    pub fn save(&self, path: &Path) -> Result<(), Error> {
        let mut writer = ArtifactWriter::new();
        let dynamic = self.program(Form::Dynamic)?;
        check_runs(&dynamic)?;
        writer.program(&dynamic)?;
        writer.gpu(&gpu_form(&dynamic)?)?;
        if self.dynamic.is_some() {
            let plain = self.program(Form::Plain)?;
            writer.plain_program(&plain)?;
            writer.plain_gpu(&gpu_form(&plain)?)?;
        }
        writer.section(section::PLAIN_GRAPH, self.plain.to_string().into_bytes())?;
        if let Some(dynamic) = &self.dynamic {
            writer.section(section::DYNAMIC_GRAPH, dynamic.graph.to_string().into_bytes())?;
        }
        let recipe = toml::to_string(&self.recipe).map_err(Error::request)?;
        writer.section(section::RECIPE, recipe.into_bytes())?;
        if self.inserted != Inserted::default() {
            writer.section(section::INSERTED, to_json(&self.inserted)?)?;
        }
        if !self.reports.is_empty() {
            writer.section(section::REPORTS, to_json(&self.reports)?)?;
        }
        if let Some(summary) = &self.summary {
            writer.section(section::SUMMARY, to_json(summary)?)?;
        }
        if let Some(narrowing) = &self.narrowing {
            writer.section(section::NARROWING, to_json(narrowing)?)?;
        }
        if let Some(candidates) = &self.candidates {
            writer.section(section::CANDIDATES, to_json(candidates)?)?;
        }
        if let Some(policy) = &self.policy {
            writer.section(section::POLICY, to_json(policy)?)?;
        }
        for graph in std::iter::once(&self.plain).chain(self.dynamic.iter().map(|d| &d.graph)) {
            for (tensor, precision, transposed) in narrow_weights(graph) {
                writer.weights(tensor, precision, transposed);
            }
            live_constants(graph).for_each(|tensor| {
                writer.constant(tensor);
            });
        }
        Ok(writer.write_to(path)?)
    }
}

/// Whether the file begins as an artifact does.
fn is_artifact(path: &Path) -> Result<bool, Error> {
    let mut head = Vec::new();
    let file = std::fs::File::open(path).map_err(|e| Error::io(path, e))?;
    file.take(MAGIC.len() as u64).read_to_end(&mut head).map_err(|e| Error::io(path, e))?;
    Ok(head == MAGIC)
}

/// Compares the constants of an artifact with their hashes. Those that a graph `read` were hashed when
/// they entered its pool; the others are small ones, which the graph's text holds itself.
fn check_constants(artifact: &Artifact, graphs: &[&Graph], read: &HashMap<ContentHash, Tensor>) -> Result<(), String> {
    let good = |hash: &ContentHash| match read.contains_key(hash) {
        true => graphs.iter().any(|g| g.constants().find(*hash).is_some()),
        false => artifact.constant(*hash).is_some_and(|tensor| ContentHash::of(&tensor) == *hash),
    };
    match artifact.constants().filter(|hash| !good(hash)).min() {
        Some(hash) => Err(format!("is damaged: the constant {hash} holds bytes of another hash")),
        None => Ok(()),
    }
}

/// The weights of products in a narrow form, and whether they are transposed.
fn narrow_weights(graph: &Graph) -> impl Iterator<Item = (&Tensor, Precision, bool)> {
    let products = graph.nodes_in_order().into_iter().map(|n| graph.node(n));
    products.filter(|n| n.op.weights() != Precision::F32).filter_map(|node| {
        let transposed = matches!(node.op, Op::Gemm { trans_b: true, .. });
        Some((graph.as_constant(*node.inputs.get(1)?)?, node.op.weights(), transposed))
    })
}

/// The constants that nodes or yields read.
fn live_constants(graph: &Graph) -> impl Iterator<Item = &Tensor> {
    let nodes = graph.nodes_in_order().into_iter().map(|n| graph.node(n));
    let read =
        nodes.flat_map(move |n| n.inputs.iter().chain(n.regions.iter().flat_map(move |r| &graph.region(*r).yields)));
    let read = read.chain(graph.outputs());
    read.filter_map(|v| match graph.value(*v).def {
        Def::Const(id) => Some(graph.constants().tensor(id)),
        Def::Node(..) | Def::Param(..) => None,
    })
}

fn from_json<T: serde::de::DeserializeOwned>(path: &Path, text: &str) -> Result<T, Error> {
    serde_json::from_str(text).map_err(|e| Error::content(path, e))
}

fn to_json<T: serde::Serialize>(value: &T) -> Result<Vec<u8>, Error> {
    serde_json::to_vec(value).map_err(Error::request)
}

/// The GPU form of a program, or why it has none.
fn gpu_form(program: &Program) -> Result<Result<GpuProgram, String>, Error> {
    verdict(wgsl::lower(&program::verify(program).map_err(Error::request)?))
}

/// A shader that is not valid is a bug, and no reason why there is no GPU form.
fn verdict(lowered: Result<GpuProgram, wgsl::LowerError>) -> Result<Result<GpuProgram, String>, Error> {
    match lowered {
        Ok(form) => Ok(Ok(form)),
        Err(wgsl::LowerError::Unsupported(why)) => Ok(Err(why.to_string())),
        Err(bug @ wgsl::LowerError::Invalid { .. }) => Err(bug.into()),
    }
}

/// How a session runs: on `threads` threads, or all cores.
pub fn run_options(threads: Option<usize>) -> Options {
    Options { threads: threads.unwrap_or(0), ..Options::default() }
}

/// The compiled form of a graph, which is verified first, without the rows that nobody reads.
pub fn lowered(graph: &Graph, names: Names<'_>) -> Result<Program, Error> {
    verify(graph, Stage::Lowerable).map_err(Error::request)?;
    let mut graph = graph.clone();
    SelectEarly.run(&mut graph, &mut Context::default())?;
    let verified = verify(&graph, Stage::Lowerable).map_err(Error::request)?;
    Ok(lower(verified, names)?)
}

/// The graph after `simplify`.
pub fn simplified(mut graph: Graph) -> Result<Graph, Error> {
    Simplify.run(&mut graph, &mut Context::default())?;
    Ok(graph)
}

/// A session over a graph's own constants.
pub fn session_of(program: Program, graph: &Graph, options: Options) -> Result<Session, Error> {
    let constants = graph.constants();
    let find = |hash| constants.find(hash).map(|id| -> Tensor { constants.tensor(id).clone() });
    Ok(Session::new(program, &find, options)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_shader_is_an_error_and_no_reason() {
        let (program, place, why) = ("m".into(), "k0".into(), "a brace is missing".into());
        let none = wgsl::Unsupported { program, problems: Vec::new() };
        assert!(matches!(verdict(Err(none.into())), Ok(Err(why)) if why.contains("no GPU form")));
        let bug = wgsl::LowerError::Invalid { place, why };
        assert!(matches!(verdict(Err(bug)), Err(Error::Gpu(why)) if why.to_string().contains("internal error")));
    }
}
