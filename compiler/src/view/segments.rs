//! Which segment of a model a node belongs to, by what it stands for: also in a graph that passes made.

use std::collections::HashMap;

use eec_ir::{Graph, NodeId};
use eec_passes::structure::{self, Kind, Part};

/// What lies off the path that all data takes: masks, positions, sizes.
const BESIDE: &str = "beside the blocks";

/// The segments of a plain graph, by the names of its nodes.
pub(super) struct Segments {
    of_node: HashMap<String, String>,
    what: HashMap<String, String>,
}

impl Segments {
    /// Stem, blocks and tail; only one segment for a graph without structure.
    pub(super) fn of(plain: &Graph) -> Segments {
        let mut segments = Segments { of_node: HashMap::new(), what: HashMap::new() };
        let Ok(found) = structure::analyse(plain) else { return segments };
        let mut add = |name: String, what: String, part: &Part| {
            let nodes = part.nodes.iter().map(|n| (node_name(plain, *n), name.clone()));
            segments.of_node.extend(nodes);
            segments.what.insert(name, what);
        };
        add("stem".into(), String::new(), &found.stem);
        for block in &found.blocks {
            let kinds: Vec<&str> = block.sub_blocks.iter().map(|s| kind(s.kind)).collect();
            add(format!("block {}", block.index), kinds.join(" + "), &block.part);
        }
        add("tail".into(), String::new(), &found.tail);
        segments
    }

    /// The segment of a node of the plain graph, of a copy of it, or of what a pass inserted.
    pub(super) fn name(&self, graph: &Graph, id: NodeId) -> String {
        let origin = &graph.node(id).origin;
        if let Some(pass) = &origin.pass {
            let place = origin.source.as_deref().and_then(|s| s.split('/').next()).filter(|s| !s.is_empty());
            return place.map_or_else(|| pass.to_string(), |place| format!("{place} ({pass})"));
        }
        let found = self.of_node.get(&node_name(graph, id));
        found.cloned().unwrap_or_else(|| if self.of_node.is_empty() { "nodes".into() } else { BESIDE.into() })
    }

    /// What a segment is, in a few words.
    pub(super) fn what(&self, name: &str) -> String {
        self.what.get(name).cloned().unwrap_or_default()
    }
}

fn kind(kind: Kind) -> &'static str {
    match kind {
        Kind::Attention => "attention",
        Kind::Ffn => "FFN",
        Kind::Conv => "convolutions",
        Kind::Dense => "a single layer",
    }
}

/// A node as its kernel is called.
pub(super) fn node_name(graph: &Graph, id: NodeId) -> String {
    let origin = &graph.node(id).origin;
    let source = origin.source.as_deref().filter(|s| !s.is_empty());
    let name = source.map_or_else(|| graph.describe(id), str::to_string);
    kernel_name(&name, origin.pass.as_deref().unwrap_or_default())
}

/// A kernel by what it stands for and the pass that inserted it.
pub(super) fn kernel_name(name: &str, pass: &str) -> String {
    format!("{pass}:{name}")
}
