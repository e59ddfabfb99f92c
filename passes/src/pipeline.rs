//! Runs passes in order. Whatever the passes are, the graph is verified after each of them, every run is
//! timed, what it inserted can be told by its provenance, and the graph can be printed, dumped or taken
//! after any of them.

use std::fmt;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use eec_ir::verify::{Stage, VerifyErrors, verify};
use eec_ir::{Graph, NodeId, Origin};

use crate::pass::{Changed, Context, Pass, PassError};

/// What is done around the passes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Options {
    /// What the graph is before the first pass; the graph is verified at least as this between passes.
    pub stage: Stage,
    /// Stops after the first pass of this name.
    pub stop_after: Option<String>,
    /// The passes after which the graph is printed.
    pub print_after: Option<Which>,
    /// A folder that gets the graph after every pass, as `01-NAME.eir`.
    pub dump_dir: Option<PathBuf>,
}

impl Default for Options {
    fn default() -> Self {
        Options { stage: Stage::Imported, stop_after: None, print_after: None, dump_dir: None }
    }
}

/// Some of the passes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Which {
    /// All.
    All,
    /// Those of this name.
    Named(String),
}

impl Which {
    fn holds(&self, name: &str) -> bool {
        match self {
            Which::All => true,
            Which::Named(wanted) => wanted == name,
        }
    }
}

/// What the run of a pass did.
#[derive(Clone, Debug)]
pub struct Record {
    /// The pass.
    pub pass: &'static str,
    /// Whether it changed anything, as it says.
    pub changed: Changed,
    /// Wall time of the pass alone.
    pub time: Duration,
    /// Nodes before and after, those of all regions.
    pub nodes: [usize; 2],
    /// Nodes whose origin names the pass.
    pub inserted: usize,
}

/// Why a list of passes did not run to its end.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// An option names a pass that is not in the list.
    #[error("{option} {name}: no such pass among `{known}`")]
    NoSuchPass {
        /// The option, by its flag.
        option: &'static str,
        /// The name.
        name: String,
        /// The passes there are.
        known: String,
    },
    /// A pass failed.
    #[error(transparent)]
    Pass(#[from] PassError),
    /// A pass left a graph that breaks an invariant.
    #[error("after {pass}: {errors}")]
    Invalid {
        /// The pass.
        pass: &'static str,
        /// What is broken.
        errors: VerifyErrors,
    },
    /// A graph could not be written.
    #[error("{}: {source}", file.display())]
    Dump {
        /// The file.
        file: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Runs `passes` on `graph`; what is to be printed goes to `log`.
///
/// ```
/// use eec_ir::text;
/// use eec_passes::pass::Context;
/// use eec_passes::pipeline::{self, Options, Which};
/// use eec_passes::registry::Registry;
///
/// let source = "graph @g(%x: f32[n, 4]) -> (%y: f32[n, 4]) { %0 = Neg(%x) %y = Exp(%x) return %y }";
/// let mut graph = text::parse(source, &mut |_| None)?;
/// let passes = Registry::builtin().pipeline("simplify")?;
/// let options = Options { print_after: Some(Which::All), ..Options::default() };
/// let mut log = Vec::new();
/// let records = pipeline::run(&passes, &mut graph, &mut Context::default(), &options, &mut log)?;
/// assert_eq!(records[0].nodes, [2, 1]);
/// assert!(String::from_utf8(log)?.starts_with("// after simplify\ngraph @g"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
///
/// A pass fails or leaves an invalid graph, an option names no pass of the list, or a file cannot be
/// written. The graph is then as the last pass left it.
pub fn run(
    passes: &[Box<dyn Pass>],
    graph: &mut Graph,
    cx: &mut Context,
    options: &Options,
    log: &mut dyn Write,
) -> Result<Vec<Record>, RunError> {
    let passes = options.selected(passes)?;
    let mut stage = options.stage;
    let mut records = Vec::with_capacity(passes.len());
    for (i, pass) in passes.iter().enumerate() {
        let record = run_one(pass.as_ref(), graph, cx)?;
        stage = stage.max(pass.leads_to().unwrap_or(stage));
        verify(graph, stage).map_err(|errors| RunError::Invalid { pass: record.pass, errors })?;
        if options.print_after.as_ref().is_some_and(|which| which.holds(record.pass)) {
            let printed = writeln!(log, "// after {}\n{graph}", record.pass);
            printed.map_err(|source| RunError::Dump { file: "the log".into(), source })?;
        }
        if let Some(folder) = &options.dump_dir {
            dump(folder, i + 1, record.pass, graph)?;
        }
        records.push(record);
    }
    Ok(records)
}

impl Options {
    /// The passes up to the one to stop after.
    fn selected<'p>(&self, passes: &'p [Box<dyn Pass>]) -> Result<&'p [Box<dyn Pass>], RunError> {
        let position = |option, name: &str| {
            let names = || passes.iter().map(|p| p.name()).collect::<Vec<_>>().join(", ");
            let at = passes.iter().position(|p| p.name() == name);
            at.ok_or_else(|| RunError::NoSuchPass { option, name: name.to_string(), known: names() })
        };
        if let Some(Which::Named(name)) = &self.print_after {
            position("--print-ir-after", name)?;
        }
        match &self.stop_after {
            Some(name) => Ok(&passes[..=position("--stop-after", name)?]),
            None => Ok(passes),
        }
    }
}

fn run_one(pass: &dyn Pass, graph: &mut Graph, cx: &mut Context) -> Result<Record, RunError> {
    let before = graph.clone();
    let start = Instant::now();
    let changed = pass.run(graph, cx)?;
    let time = start.elapsed();
    if !pass.keeps_origin() {
        mark_additions(pass.name(), &before, graph);
    }
    let nodes = graph.nodes_in_order();
    let is_own = |n: &&NodeId| graph.node(**n).origin.pass.as_deref() == Some(pass.name());
    Ok(Record {
        pass: pass.name(),
        changed,
        time,
        nodes: [before.nodes_in_order().len(), nodes.len()],
        inserted: nodes.iter().filter(is_own).count(),
    })
}

/// Names the pass as the origin of nodes that it added in place without one. A graph that was built anew
/// has its nodes from [`crate::emit::Emit`] and [`crate::clone`], which know the origin.
fn mark_additions(pass: &'static str, before: &Graph, graph: &mut Graph) {
    let count = before.node_count();
    let is_same = |n: NodeId| before.node(n).op == graph.node(n).op && before.node(n).outputs == graph.node(n).outputs;
    if graph.node_count() < count || !(0..count).map(NodeId::new).all(is_same) {
        return;
    }
    for node in (count..graph.node_count()).map(NodeId::new) {
        if graph.node(node).origin == Origin::default() {
            graph.set_origin(node, Origin { source: None, pass: Some(pass.into()) });
        }
    }
}

fn dump(folder: &Path, number: usize, pass: &str, text: &dyn fmt::Display) -> Result<(), RunError> {
    let file = folder.join(format!("{number:02}-{pass}.eir"));
    let written = std::fs::create_dir_all(folder).and_then(|()| std::fs::write(&file, text.to_string()));
    written.map_err(|source| RunError::Dump { file, source })
}

#[cfg(test)]
mod tests {
    use eec_ir::{DType, Dim, Op, Type};

    use super::*;

    /// Adds a negation of the first output, with or without saying so in time.
    struct Negate(Option<&'static str>);

    impl Pass for Negate {
        fn name(&self) -> &'static str {
            "negate"
        }

        fn run(&self, graph: &mut Graph, _: &mut Context) -> Result<Changed, PassError> {
            let origin = self.0.map(Origin::source).unwrap_or_default();
            let y = graph.append1(Graph::ROOT, Op::Neg {}, &[graph.outputs()[0]], origin);
            let y = y.map_err(|e| PassError::new("negate", e))?;
            graph.set_outputs(vec![("y".into(), y)]);
            Ok(Changed::Yes)
        }
    }

    /// Leaves an output that no later node may read.
    struct Break;

    impl Pass for Break {
        fn name(&self) -> &'static str {
            "break"
        }

        fn run(&self, graph: &mut Graph, _: &mut Context) -> Result<Changed, PassError> {
            graph.set_outputs(Vec::new());
            graph.set_yields(Graph::ROOT, vec![graph.inputs()[0]]);
            Ok(Changed::Yes)
        }
    }

    fn graph() -> Graph {
        let mut graph = Graph::new("g");
        let x = graph.add_input("x", Type::new(DType::F32, [Dim::symbol("n")]));
        let y = graph.append1(Graph::ROOT, Op::Relu {}, &[x], Origin::source("relu")).unwrap();
        graph.set_outputs(vec![("y".into(), y)]);
        graph
    }

    fn run_all(passes: &[Box<dyn Pass>], options: &Options) -> (Graph, Result<Vec<Record>, RunError>, String) {
        let (mut graph, mut log) = (graph(), Vec::new());
        let records = run(passes, &mut graph, &mut Context::default(), options, &mut log);
        (graph, records, String::from_utf8(log).unwrap())
    }

    #[test]
    fn additions_carry_the_pass_unless_they_say_where_they_come_from() {
        let passes: Vec<Box<dyn Pass>> = vec![Box::new(Negate(None)), Box::new(Negate(Some("neg")))];
        let (graph, records, _) = run_all(&passes, &Options::default());
        let records = records.unwrap();
        assert_eq!(records.iter().map(|r| r.nodes).collect::<Vec<_>>(), [[1, 2], [2, 3]]);
        assert_eq!(records.iter().map(|r| r.inserted).collect::<Vec<_>>(), [1, 1]);
        let text = graph.to_string();
        assert_eq!((text.matches("by negate").count(), text.matches("@\"neg\"").count()), (1, 1), "{text}");
    }

    #[test]
    fn graphs_are_printed_dumped_and_taken_after_a_pass() {
        let passes: Vec<Box<dyn Pass>> = vec![Box::new(Negate(None)), Box::new(crate::simplify::Simplify)];
        let folder = std::env::temp_dir().join(format!("eec-pipeline-{}", std::process::id()));
        let options = Options {
            stop_after: Some("negate".into()),
            print_after: Some(Which::All),
            dump_dir: Some(folder.clone()),
            ..Options::default()
        };
        let (graph, records, log) = run_all(&passes, &options);
        assert_eq!(records.unwrap().len(), 1);
        assert_eq!(log, format!("// after negate\n{graph}\n"));
        assert_eq!(std::fs::read_to_string(folder.join("01-negate.eir")).unwrap(), graph.to_string());
        std::fs::remove_dir_all(folder).unwrap();
        for options in [
            Options { stop_after: Some("negat".into()), ..Options::default() },
            Options { print_after: Some(Which::Named("negat".into())), ..Options::default() },
        ] {
            let error = run_all(&passes, &options).1.unwrap_err().to_string();
            assert!(error.ends_with("after negat: no such pass among `negate, simplify`"), "{error}");
        }
    }

    #[test]
    fn a_pass_that_breaks_the_graph_is_named() {
        let passes: Vec<Box<dyn Pass>> = vec![Box::new(Negate(None)), Box::new(Break)];
        let error = run_all(&passes, &Options::default()).1.unwrap_err().to_string();
        assert!(error.starts_with("after break: "), "{error}");
    }
}
