//! Makes a failing case small: fewer passes, fewer outputs, fewer nodes, while it fails in the same way.
//!
//! Every attempt is a whole case in text, so that what is left fails for whoever reads it.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use eec_ir::text::{self, ConstRef};
use eec_ir::{ContentHash, Graph, NodeId, ValueId};
use eec_passes::clone::{Changes, ValueMap, clone_nodes, counterpart};
use eec_passes::pipeline::RunError;
use eec_passes::registry::{self, Registry};

use crate::cases::{Case, CaseError, seeded_constant};

/// A case that fails, and how.
#[derive(Clone, Debug)]
pub struct Failing {
    /// The case's text.
    pub text: String,
    /// What fails, without what changes from case to case; see [`failure`].
    pub kind: String,
    /// The whole message.
    pub message: String,
    /// Its passes.
    pub passes: usize,
    /// Its nodes.
    pub nodes: usize,
}

/// How a case fails; `None` if it holds. The kind says which step failed, and for which pass or backend.
pub fn failure(source: &str, registry: &Registry) -> Option<(String, String)> {
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        let case = Case::new(source)?;
        let outcome = case.run(registry)?;
        Ok((case, outcome))
    }));
    let error = match outcome {
        Err(_) => return Some(("a panic".into(), "a panic while the passes ran".into())),
        Ok(Err(error)) => error,
        Ok(Ok((case, outcome))) => match catch_unwind(AssertUnwindSafe(|| case.judge(&outcome))) {
            Err(_) => return Some(("a panic".into(), "a panic while the result ran".into())),
            Ok(Ok(())) => return None,
            Ok(Err(message)) => {
                // Of a difference only who differs is kept: `Cpu(1) at {…}: y: …`.
                let who = message.split_once(" at {").map(|(who, _)| format!("values of {who}"));
                return Some((who.unwrap_or_else(|| "the result".into()), message));
            }
        },
    };
    let kind = match &error {
        CaseError::Run(RunError::Pass(e)) => format!("the pass {}", e.pass),
        CaseError::Run(RunError::Invalid { pass, .. }) => format!("an invalid graph after {pass}"),
        CaseError::Run(RunError::NoSuchPass { .. } | RunError::Dump { .. }) => "the passes".into(),
        CaseError::Lower(_) => "lowering".into(),
        CaseError::Wgsl(_) => "lowering to shaders".into(),
        CaseError::Program(_) => "an invalid program".into(),
        CaseError::Header(_) | CaseError::Parse(_) | CaseError::Pipeline(_) | CaseError::Invalid(_) => {
            "the case".into()
        }
    };
    Some((kind, error.to_string()))
}

/// A smaller case that fails as `source` does.
///
/// # Errors
///
/// `source` does not fail, or is no case: its header, its text, its own graph or the names of its passes.
pub fn reduce(source: &str, registry: &Registry) -> Result<Failing, String> {
    let (kind, message) = failure(source, registry).ok_or("the case does not fail")?;
    if kind == "the case" {
        return Err(message);
    }
    let case = Case::new(source).map_err(|e| e.to_string())?;
    let mut refs = HashMap::new();
    let mut resolve = |constant: &ConstRef| {
        let tensor = seeded_constant(constant);
        refs.insert(ContentHash::of(&tensor), constant.hash.to_string());
        Some(tensor)
    };
    let graph = text::parse(source, &mut resolve).map_err(|e| e.to_string())?;
    let passes = registry::parts(&case.header.passes).into_iter().map(String::from).collect();
    let header = source.lines().filter(|l| l.starts_with(";!")).map(String::from).collect();
    let mut reducer = Reducer { registry, kind, message, header, refs, passes, graph };
    if !reducer.fails(&reducer.passes.clone(), &reducer.graph.clone()) {
        return Err("printed and read again, the case does not fail".into());
    }
    while reducer.fewer_passes() | reducer.earlier_outputs() | reducer.fewer_nodes() {}
    Ok(reducer.result())
}

struct Reducer<'r> {
    registry: &'r Registry,
    kind: String,
    message: String,
    /// The lines of the header.
    header: Vec<String>,
    /// What the case calls constants, by what they hold.
    refs: HashMap<ContentHash, String>,
    passes: Vec<String>,
    graph: Graph,
}

impl Reducer<'_> {
    fn text(&self, passes: &[String], graph: &Graph) -> String {
        let is_passes = |line: &&String| {
            line.strip_prefix(";!").is_some_and(|l| l.split('=').next().is_some_and(|key| key.trim() == "passes"))
        };
        let others = self.header.iter().filter(|line| !is_passes(line));
        let mut text: String = others.map(|line| format!("{line}\n")).collect();
        text.push_str(&format!(";! passes = \"{}\"\n", passes.join(", ")));
        // Constants keep the names by which they are seeded.
        let printed = self
            .refs
            .iter()
            .fold(graph.to_string(), |printed, (hash, name)| printed.replace(&hash.to_string(), &format!("#{name}")));
        text + &printed
    }

    /// Whether this fails as the case did; keeps the message if so.
    fn fails(&mut self, passes: &[String], graph: &Graph) -> bool {
        match failure(&self.text(passes, graph), self.registry) {
            Some((kind, message)) if kind == self.kind => {
                self.message = message;
                true
            }
            Some(_) | None => false,
        }
    }

    fn accept(&mut self, passes: Vec<String>, graph: Graph) -> bool {
        let fails = self.fails(&passes, &graph);
        if fails {
            (self.passes, self.graph) = (passes, graph);
        }
        fails
    }

    /// Leaves out passes, one after the other.
    fn fewer_passes(&mut self) -> bool {
        let mut changed = false;
        for at in (0..self.passes.len()).rev() {
            let mut fewer = self.passes.clone();
            fewer.remove(at);
            changed |= self.accept(fewer, self.graph.clone());
        }
        changed
    }

    /// Ends the graph at one value, the earliest that will do.
    fn earlier_outputs(&mut self) -> bool {
        let nodes = self.graph.region(Graph::ROOT).nodes.clone();
        let values = nodes.iter().flat_map(|n| self.graph.node(*n).outputs.clone());
        let values: Vec<ValueId> = values.filter(|v| self.graph.outputs() != [*v]).collect();
        let attempt = |v: &ValueId| rebuilt(&self.graph, &HashMap::new(), &[("y".into(), *v)]);
        let attempts: Vec<Graph> = values.iter().filter_map(attempt).collect();
        let fewer = |g: &Graph| g.nodes_in_order().len() < self.graph.nodes_in_order().len();
        let smaller: Vec<Graph> = attempts.into_iter().filter(fewer).collect();
        smaller.into_iter().any(|g| self.accept(self.passes.clone(), g))
    }

    /// Replaces the results of nodes by operands of the same type, or by inputs.
    fn fewer_nodes(&mut self) -> bool {
        let mut changed = false;
        let mut at = self.graph.region(Graph::ROOT).nodes.len();
        while at > 0 {
            at = (at - 1).min(self.graph.region(Graph::ROOT).nodes.len().saturating_sub(1));
            let Some(node) = self.graph.region(Graph::ROOT).nodes.get(at).copied() else { break };
            let attempts = self.without(node);
            changed |= attempts.into_iter().any(|g| self.accept(self.passes.clone(), g));
        }
        changed
    }

    /// The graph without a node, in the ways there are.
    fn without(&self, node: NodeId) -> Vec<Graph> {
        let graph = &self.graph;
        let [result] = graph.node(node).outputs[..] else { return Vec::new() };
        let same = |v: &&ValueId| graph.ty(**v) == graph.ty(result);
        let operand = graph.node(node).inputs.iter().find(same).map(|v| Substitute::Value(*v));
        let outputs: Vec<(String, ValueId)> =
            graph.output_names().iter().map(ToString::to_string).zip(graph.outputs().iter().copied()).collect();
        let attempt = |substitute| rebuilt(graph, &HashMap::from([(result, substitute)]), &outputs);
        operand.into_iter().chain([Substitute::Input]).filter_map(attempt).collect()
    }

    fn result(self) -> Failing {
        Failing {
            text: self.text(&self.passes, &self.graph),
            passes: self.passes.len(),
            nodes: self.graph.nodes_in_order().len(),
            kind: self.kind,
            message: self.message,
        }
    }
}

/// What stands for a value.
#[derive(Clone, Copy)]
enum Substitute {
    /// Another value, from before it.
    Value(ValueId),
    /// An input of its type.
    Input,
}

/// The nodes that the outputs need, after substitution, with the inputs that they read; `None` if that is
/// no graph, or the same one.
fn rebuilt(graph: &Graph, instead: &HashMap<ValueId, Substitute>, outputs: &[(String, ValueId)]) -> Option<Graph> {
    let mut edited = graph.clone();
    let mut cut = Vec::new();
    for (value, substitute) in instead {
        let new = match substitute {
            Substitute::Value(v) => *v,
            Substitute::Input => {
                let input = edited.add_input(&format!("cut.{}", value.index()), graph.ty(*value).clone());
                cut.push(input);
                input
            }
        };
        edited.replace_uses(*value, new).ok()?;
    }
    let replaced = |v: ValueId| match instead.get(&v) {
        Some(Substitute::Value(new)) => *new,
        Some(Substitute::Input) => cut.first().copied().unwrap_or(v),
        None => v,
    };
    edited.set_outputs(outputs.iter().map(|(name, v)| (name.clone(), replaced(*v))).collect());
    edited.remove_dead();
    with_read_inputs(&edited)
}

/// A copy without the inputs that nothing reads.
fn with_read_inputs(graph: &Graph) -> Option<Graph> {
    let nodes = graph.nodes_in_order();
    let yields = nodes.iter().flat_map(|n| &graph.node(*n).regions).flat_map(|r| &graph.region(*r).yields);
    let reads = nodes.iter().flat_map(|n| &graph.node(*n).inputs).chain(yields).chain(graph.outputs());
    let mut is_read = vec![false; graph.value_count()];
    reads.for_each(|v| is_read[v.index()] = true);
    let mut target = Graph::new(&graph.name);
    let mut map = ValueMap::new();
    for input in graph.inputs().iter().filter(|v| is_read[v.index()]) {
        let name = graph.value(*input).name.as_deref().unwrap_or_default();
        map.insert(*input, target.add_input(name, graph.ty(*input).clone()));
    }
    let root = &graph.region(Graph::ROOT).nodes;
    clone_nodes(graph, root, &mut target, Graph::ROOT, &mut map, Changes::default()).ok()?;
    let mut outputs = Vec::new();
    for (name, value) in graph.output_names().iter().zip(graph.outputs()) {
        outputs.push((name.to_string(), counterpart(graph, &mut target, &mut map, *value)?));
    }
    target.set_outputs(outputs);
    Some(target)
}
