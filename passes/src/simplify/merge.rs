//! Equal nodes of one region become one.

use std::collections::HashMap;

use eec_ir::{Graph, NodeId};

use super::replace;
use crate::pass::PassError;

pub(crate) fn apply(graph: &mut Graph) -> Result<bool, PassError> {
    let mut first: HashMap<String, NodeId> = HashMap::new();
    let mut changed = false;
    for id in graph.nodes_in_order() {
        let node = graph.node(id);
        if node.op.is_control() || node.outputs.len() != 1 {
            continue;
        }
        // Provenance is part of the key: an inserted node never stands in for one of the model's.
        let key = format!("{} {:?} {:?} {:?}", node.parent, node.op, node.inputs, node.origin.pass);
        match first.get(&key) {
            Some(kept) => {
                let value = graph.node(*kept).outputs[0];
                changed |= replace(graph, id, value);
            }
            None => {
                first.insert(key, id);
            }
        }
    }
    Ok(changed)
}
