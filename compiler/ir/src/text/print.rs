//! Printing: a whole graph, a region, or the line of one node.

use std::collections::{HashMap, HashSet};
use std::fmt::{self, Write};

use super::{MAX_INLINE, is_plain_name};
use crate::entity::{NodeId, RegionId, ValueId};
use crate::graph::{Def, Graph};
use crate::op::Op;
use crate::tensor::Tensor;
use crate::types::DType;

/// A graph with the names its values and regions print under. Unnamed values are numbered in order
/// of appearance, so an edit renumbers nothing before it.
pub struct Printer<'g> {
    graph: &'g Graph,
    values: Vec<Option<String>>,
    regions: HashMap<RegionId, usize>,
}

impl fmt::Display for Graph {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Printer::new(self).graph(f)
    }
}

/// The line of one node, without the regions it owns. For many nodes make one [`Printer`].
pub fn node_line(graph: &Graph, node: NodeId) -> String {
    Printer::new(graph).node_line(node)
}

/// A region as it stands in the graph's text, braces included.
pub fn region_text(graph: &Graph, region: RegionId) -> String {
    let mut out = String::new();
    // Writing into a string cannot fail.
    let _ = Printer::new(graph).region(&mut out, region, 0);
    out
}

/// Hands out names in order of appearance and keeps them different from each other.
struct Naming<'g> {
    graph: &'g Graph,
    outputs: HashMap<ValueId, &'g str>,
    values: Vec<Option<String>>,
    regions: HashMap<RegionId, usize>,
    taken: HashSet<String>,
    next: usize,
}

impl Naming<'_> {
    fn value(&mut self, id: ValueId) {
        if self.values.get(id.index()).is_none_or(Option::is_some) {
            return;
        }
        let name = self.graph.value(id).name.as_deref().or(self.outputs.get(&id).copied());
        let text = match name {
            Some(name) => self.unique(name),
            None => {
                self.next += 1;
                format!("%{}", self.next - 1)
            }
        };
        self.values[id.index()] = Some(text);
    }

    fn unique(&mut self, name: &str) -> String {
        let mut name = name.to_string();
        while !self.taken.insert(name.clone()) {
            name.push_str(".1");
        }
        quote('%', &name)
    }

    fn region(&mut self, id: RegionId) {
        if self.regions.contains_key(&id) {
            return;
        }
        self.regions.insert(id, self.regions.len());
        let region = self.graph.region(id);
        region.params.iter().for_each(|v| self.value(*v));
        for node in region.nodes.iter().map(|n| self.graph.node(*n)) {
            node.outputs.iter().for_each(|v| self.value(*v));
            node.regions.iter().for_each(|r| self.region(*r));
        }
    }
}

fn quote(sigil: char, name: &str) -> String {
    if is_plain_name(name) { format!("{sigil}{name}") } else { format!("{sigil}{name:?}") }
}

/// A pass's name: letters, digits and `-` need no quotes.
fn pass_name(name: &str) -> String {
    let plain = name.split('-').all(|part| !part.is_empty() && part.chars().all(|c| c.is_ascii_alphanumeric()));
    let letter = name.starts_with(|c: char| c.is_ascii_alphabetic());
    if plain && letter { name.to_string() } else { format!("{name:?}") }
}

impl<'g> Printer<'g> {
    /// Names everything in `graph`.
    pub fn new(graph: &'g Graph) -> Self {
        let mut naming = Naming {
            graph,
            outputs: HashMap::new(),
            values: vec![None; graph.value_count()],
            regions: HashMap::new(),
            taken: HashSet::new(),
            next: 0,
        };
        for (value, name) in graph.outputs().iter().zip(graph.output_names()) {
            naming.outputs.entry(*value).or_insert(name);
        }
        naming.region(Graph::ROOT);
        Printer { graph, values: naming.values, regions: naming.regions }
    }

    /// A value as it prints where it is used; a constant prints as itself.
    pub fn value(&self, id: ValueId) -> String {
        let Some(name) = self.values.get(id.index()) else {
            return format!("%?{}", id.index());
        };
        match (name, self.graph.value(id).def) {
            (Some(name), _) => name.clone(),
            (None, Def::Const(c)) => constant(self.graph.constants().tensor(c), &self.graph.constants().hash(c)),
            (None, Def::Node(..) | Def::Param(..)) => format!("%?{}", id.index()),
        }
    }

    /// A region's label.
    pub fn region_label(&self, id: RegionId) -> String {
        self.regions.get(&id).map_or_else(|| format!("^?{}", id.index()), |n| format!("^{n}"))
    }

    fn values(&self, ids: &[ValueId]) -> String {
        ids.iter().map(|v| self.value(*v)).collect::<Vec<_>>().join(", ")
    }

    fn typed(&self, ids: &[ValueId]) -> String {
        let typed = |v: &ValueId| match self.values.get(v.index()) {
            Some(_) => format!("{}: {}", self.value(*v), self.graph.ty(*v)),
            None => self.value(*v),
        };
        ids.iter().map(typed).collect::<Vec<_>>().join(", ")
    }

    /// The line of one node, without the regions it owns.
    pub fn node_line(&self, id: NodeId) -> String {
        let node = self.graph.node(id);
        let mut line = self.typed(&node.outputs);
        if !line.is_empty() {
            line.push_str(" = ");
        }
        line.push_str(node.op.name());
        line.push_str(&attributes(&node.op));
        line.push_str(&match (&node.op, node.inputs.split_first()) {
            (Op::Route { .. } | Op::Loop { .. }, Some((mask, rest))) if !rest.is_empty() => {
                format!("({}; {})", self.value(*mask), self.values(rest))
            }
            _ => format!("({})", self.values(&node.inputs)),
        });
        if let Some(source) = &node.origin.source {
            line.push_str(&format!("  @{source:?}"));
        }
        if let Some(pass) = &node.origin.pass {
            let gap = if node.origin.source.is_some() { "" } else { " " };
            line.push_str(&format!("{gap} by {}", pass_name(pass)));
        }
        line
    }

    fn graph(&self, f: &mut dyn Write) -> fmt::Result {
        let g = self.graph;
        let outputs = g.outputs().iter().zip(g.output_names());
        let outputs: Vec<_> = outputs.map(|(v, name)| format!("{}: {}", quote('%', name), g.ty(*v))).collect();
        let (inputs, outputs) = (self.typed(g.inputs()), outputs.join(", "));
        writeln!(f, "graph {}({inputs}) -> ({outputs}) {{", quote('@', &g.name))?;
        for (a, b) in g.assumptions() {
            writeln!(f, "  assume {a} == {b}")?;
        }
        self.body(f, Graph::ROOT, 1)?;
        f.write_str("}\n")
    }

    /// A region's nodes and its last line, `depth` levels in.
    fn body(&self, f: &mut dyn Write, region: RegionId, depth: usize) -> fmt::Result {
        let margin = "  ".repeat(depth);
        for node in &self.graph.region(region).nodes {
            writeln!(f, "{margin}{}", self.node_line(*node))?;
            let owner = self.graph.node(*node);
            for (inner, keyword) in owner.regions.iter().zip(region_keywords(&owner.op)) {
                write!(f, "{margin}  {keyword} ")?;
                self.region(f, *inner, depth + 1)?;
                f.write_str("\n")?;
            }
        }
        let keyword = if region == Graph::ROOT { "return" } else { "yield" };
        let line = format!("{margin}{keyword} {}", self.values(&self.graph.region(region).yields));
        writeln!(f, "{}", line.trim_end())
    }

    fn region(&self, f: &mut dyn Write, id: RegionId, depth: usize) -> fmt::Result {
        let region = self.graph.region(id);
        f.write_str(&self.region_label(id))?;
        let symbols: Vec<_> = region.rows.iter().chain(&region.length).map(|s| s.to_string()).collect();
        if !symbols.is_empty() {
            write!(f, "[{}]", symbols.join(", "))?;
        }
        writeln!(f, "({}) {{", self.typed(&region.params))?;
        self.body(f, id, depth + 1)?;
        write!(f, "{}}}", "  ".repeat(depth))
    }
}

/// What stands before the regions of a control operator.
pub fn region_keywords(op: &Op) -> &'static [&'static str] {
    match op {
        Op::Loop { .. } => &["do"],
        _ => &["then", "else", "join"],
    }
}

/// `{name=value, …}` without the attributes that have their default; empty if none is left.
fn attributes(op: &Op) -> String {
    let all: Vec<_> = op.attributes().into_iter().map(|(n, v)| (n.to_string(), v)).collect();
    let mut shown = Vec::new();
    for (i, (name, value)) in all.iter().enumerate() {
        let others: Vec<_> = all.iter().enumerate().filter(|(j, _)| *j != i).map(|(_, a)| a.clone()).collect();
        if Op::from_attributes(op.name(), &others).as_ref() != Ok(op) {
            shown.push(format!("{name}={value}"));
        }
    }
    if shown.is_empty() { String::new() } else { format!("{{{}}}", shown.join(", ")) }
}

fn constant(tensor: &Tensor, hash: &dyn fmt::Display) -> String {
    if tensor.len() > MAX_INLINE || !tensor.dtype().is_compiled() {
        return format!("const {} {hash}", tensor.ty());
    }
    let elements: Vec<String> = match tensor.dtype() {
        DType::F32 => tensor.elements::<f32>().unwrap_or_default().iter().map(|v| float(*v)).collect(),
        DType::Bool => tensor.to_i64s().unwrap_or_default().iter().map(|v| (*v != 0).to_string()).collect(),
        _ => tensor.to_i64s().unwrap_or_default().iter().map(i64::to_string).collect(),
    };
    match elements.as_slice() {
        [one] if tensor.dims().is_empty() && tensor.dtype() != DType::I32 => one.clone(),
        _ => format!("const {} {{{}}}", tensor.ty(), elements.join(", ")),
    }
}

/// A float that reads back as the same bits.
fn float(v: f32) -> String {
    match v.to_bits() {
        0x7fc0_0000 => "nan".into(),
        bits if v.is_nan() => format!("nan#{bits:08x}"),
        _ => format!("{v:?}"),
    }
}
