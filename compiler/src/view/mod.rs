//! A model's graph for people: its nodes by segments (stem, blocks, tail, heads) and by the regions of its
//! decisions, with what each costs. [`dot`] and [`html`] write it.

mod dot;
mod html;
mod segments;

use std::collections::HashMap;

use eec_ir::{Dim, Graph, NodeId, RegionId, Symbol, Tensor, cost, text};
use eec_runtime::{Control, Options};

use crate::Error;
use crate::model::{Form, Model, run_options};
use segments::{Segments, kernel_name};

pub use dot::dot;
pub use html::html;

/// Runs whose fastest counts for every kernel, after as many that warm up.
const RUNS: usize = 10;

/// The graph of a model by segments and regions.
pub struct View<'m> {
    model: &'m Model,
    graph: &'m Graph,
    /// What stands in the root region.
    items: Vec<Item>,
    /// How it was measured, if it was.
    measured: Option<Measured>,
}

/// What was measured.
struct Measured {
    /// Microseconds of all kernels.
    total_us: f64,
    /// Microseconds of kernels that no segment owns.
    other_us: f64,
    threads: usize,
    /// The sizes of the inputs.
    inputs: Vec<String>,
}

/// A segment, or a decision with its regions.
enum Item {
    Segment(Segment),
    Decision(Decision),
}

/// Nodes that belong together, in execution order; no decision comes between them.
struct Segment {
    name: String,
    /// What it is, in a few words.
    what: String,
    nodes: Vec<NodeId>,
    /// Multiply-accumulates of one run, a formula where sizes are not given.
    macs: Dim,
    weight_bytes: u64,
    /// Measured microseconds, if it has kernels.
    us: Option<f64>,
}

/// A node that owns regions.
struct Decision {
    node: NodeId,
    kind: Kind,
    branches: Vec<Branch>,
    /// Measured microseconds of its own kernels, if it has any.
    us: Option<f64>,
}

/// What a decision decides.
enum Kind {
    /// Whether samples leave, at the exit of this number.
    Exit(i64),
    /// Whether the gate of this number takes effect.
    Gate(i64),
    /// Something of the model's own.
    Own,
}

/// A region of a decision.
struct Branch {
    /// `then`, `else` or `join`, as the text form has it.
    role: &'static str,
    items: Vec<Item>,
}

impl<'m> View<'m> {
    /// The view of a model's dynamic form, or of its plain one if it has no other. `sizes` gives symbolic
    /// dims a value in costs.
    pub fn new(model: &'m Model, sizes: &dyn Fn(&Symbol) -> Option<i64>) -> View<'m> {
        let graph = model.graph(Form::Dynamic);
        let segments = Segments::of(&model.plain);
        let mut builder = Builder { graph, segments: &segments, sizes, rows: HashMap::new() };
        View { model, graph, items: builder.items(Graph::ROOT), measured: None }
    }

    /// Measures what every segment takes in a run in which no sample leaves and no gate takes effect:
    /// every decision is made, and all of the model runs.
    ///
    /// # Errors
    ///
    /// The model cannot be compiled, or does not run on these inputs.
    pub fn measure(&mut self, inputs: &[(String, Tensor)], threads: Option<usize>) -> Result<(), Error> {
        let named: Vec<(&str, Tensor)> = inputs.iter().map(|(n, t)| (n.as_str(), t.clone())).collect();
        let mut session = self.model.session(Form::Dynamic, Options { profile: true, ..run_options(threads) })?;
        let mut least = vec![u64::MAX; session.program().kernels.len()];
        for run in 0..2 * RUNS {
            let counters = session.run(&named, Control::Never)?.counters;
            if run >= RUNS {
                least.iter_mut().zip(&counters.measures).for_each(|(ns, m)| *ns = m.ns.min(*ns));
            }
        }
        let mut us: HashMap<String, f64> = HashMap::new();
        for (kernel, ns) in session.program().kernels.iter().zip(least) {
            *us.entry(kernel_name(&kernel.name, &kernel.pass)).or_default() += ns as f64 / 1e3;
        }
        let total_us = us.values().sum();
        attribute(self.graph, &mut self.items, &mut us);
        let shape = |(name, t): &(String, Tensor)| format!("{name}: {}", t.ty());
        let inputs = inputs.iter().map(shape).collect();
        let other_us = us.values().sum();
        self.measured = Some(Measured { total_us, other_us, threads: session.threads(), inputs });
        Ok(())
    }
}

/// Gives every segment the time of its kernels and takes it out of `us`.
fn attribute(graph: &Graph, items: &mut [Item], us: &mut HashMap<String, f64>) {
    for item in items {
        match item {
            Item::Segment(segment) => {
                let names = segment.nodes.iter().map(|n| segments::node_name(graph, *n));
                segment.us = names.filter_map(|name| us.remove(&name)).reduce(|sum, us| sum + us);
            }
            Item::Decision(decision) => {
                decision.us = us.remove(&segments::node_name(graph, decision.node));
                decision.branches.iter_mut().for_each(|b| attribute(graph, &mut b.items, us));
            }
        }
    }
}

struct Builder<'a> {
    graph: &'a Graph,
    segments: &'a Segments,
    sizes: &'a dyn Fn(&Symbol) -> Option<i64>,
    /// For the rows of regions the most that they can be: all rows that are split.
    rows: HashMap<Symbol, Dim>,
}

impl Builder<'_> {
    /// What stands in a region: its decisions, and between them the segments, each once.
    fn items(&mut self, region: RegionId) -> Vec<Item> {
        let mut items = Vec::new();
        let mut run: Vec<Segment> = Vec::new();
        for id in &self.graph.region(region).nodes {
            if self.graph.node(*id).regions.is_empty() {
                self.add(*id, &mut run);
            } else {
                items.extend(run.drain(..).map(|s| self.closed(s)));
                items.push(Item::Decision(self.decision(*id)));
            }
        }
        items.extend(run.into_iter().map(|s| self.closed(s)));
        items
    }

    /// Adds a node to its segment.
    fn add(&self, id: NodeId, run: &mut Vec<Segment>) {
        let name = self.segments.name(self.graph, id);
        let at = run.iter().position(|s| s.name == name).unwrap_or_else(|| {
            let what = self.segments.what(&name);
            run.push(Segment { name, what, nodes: Vec::new(), macs: Dim::default(), weight_bytes: 0, us: None });
            run.len() - 1
        });
        let segment = &mut run[at];
        segment.nodes.push(id);
        segment.macs = &segment.macs + &self.sized(&cost::macs(self.graph, id));
    }

    /// A segment with all its nodes.
    fn closed(&self, segment: Segment) -> Item {
        Item::Segment(Segment { weight_bytes: cost::weight_bytes(self.graph, &segment.nodes), ..segment })
    }

    /// A size with what is known of its symbols.
    fn sized(&self, dim: &Dim) -> Dim {
        let whole = dim.substitute(&|s| self.rows.get(s).cloned());
        whole.substitute(&|s| (self.sizes)(s).map(Dim::from))
    }

    fn decision(&mut self, id: NodeId) -> Decision {
        let node = self.graph.node(id);
        let all = node.inputs.first().and_then(|mask| self.graph.ty(*mask).dims.first()).map(|rows| self.sized(rows));
        let regions = node.regions.iter().map(|r| self.graph.region(*r));
        let symbols: Vec<Symbol> = regions.filter_map(|r| r.rows.clone()).collect();
        self.rows.extend(symbols.into_iter().zip(all.into_iter().cycle()));
        let kind = match (node.op.exit(), node.op.gate()) {
            (Some(k), _) => Kind::Exit(k),
            (None, Some(k)) => Kind::Gate(k),
            (None, None) => Kind::Own,
        };
        let roles = text::region_keywords(&node.op);
        let branches =
            node.regions.iter().zip(roles.iter().copied()).map(|(r, role)| Branch { role, items: self.items(*r) });
        Decision { node: id, kind, branches: branches.collect(), us: None }
    }
}

/// What a decision is called: the name of its exit or gate.
fn title(view: &View<'_>, decision: &Decision) -> String {
    let names = view.model.dynamic.as_ref();
    let (number, name, between) = match decision.kind {
        Kind::Exit(k) => (format!("exit {k}"), names.and_then(|d| d.exits.get(usize::try_from(k).ok()?)), ", after "),
        Kind::Gate(k) => (format!("gate {k}"), names.and_then(|d| d.gates.get(usize::try_from(k).ok()?)), ", "),
        Kind::Own => return view.graph.describe(decision.node),
    };
    // What a pass inserted may have no other name than its number.
    let name = name.filter(|name| **name != number).map(|name| format!("{between}{name}"));
    number + &name.unwrap_or_default()
}
