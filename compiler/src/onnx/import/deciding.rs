//! What of a model's inputs decides a value, or which branch runs.

use std::collections::{BTreeSet, HashSet};

use eec_ir::graph::Def;
use eec_ir::ops::Facts;
use eec_ir::{DType, Graph, ValueId};

use super::super::unsupported::Deciding;
use super::Importer;

impl Importer<'_> {
    /// What the value of a refusal is computed from, if there is one: small inputs, and of a truth value symbolic sizes.
    pub(super) fn deciding(&self, value: Option<ValueId>) -> Deciding {
        let mut deciding = Deciding::default();
        value.into_iter().for_each(|value| self.add_deciding(value, &mut deciding));
        deciding
    }

    /// What chooses the branches around the current node.
    pub(super) fn choosing(&self) -> Deciding {
        let mut choosing = Deciding::default();
        self.conditions.iter().for_each(|condition| self.add_deciding(*condition, &mut choosing));
        choosing
    }

    fn add_deciding(&self, root: ValueId, deciding: &mut Deciding) {
        let graph = &self.graph;
        let is_condition = graph.ty(root).dtype == DType::Bool;
        let mut of_inputs = BTreeSet::new();
        let dims = graph.inputs().iter().flat_map(|input| &graph.ty(*input).dims);
        dims.for_each(|dim| dim.collect_symbols(&mut of_inputs));
        let (mut seen, mut next) = (HashSet::new(), vec![root]);
        while let Some(value) = next.pop() {
            if let Some(contents) = graph.value(value).contents.as_ref().filter(|_| is_condition) {
                let mut symbols = BTreeSet::new();
                contents.iter().for_each(|dim| dim.collect_symbols(&mut symbols));
                deciding.sizes.extend(symbols.intersection(&of_inputs).map(|symbol| symbol.as_str().to_string()));
            }
            let small = || graph.ty(value).elements().as_const().is_some_and(|n| n <= Facts::MAX_CONTENTS as i64);
            match graph.value(value).def {
                Def::Param(Graph::ROOT, _) if small() => {
                    deciding.inputs.extend(graph.value(value).name.as_deref().map(str::to_string));
                }
                Def::Node(node, _) if seen.insert(node) => next.extend(&graph.node(node).inputs),
                // Were the number of steps known, so would be the number of every step.
                Def::Param(region, _) if self.counts.contains_key(&region) => next.extend(self.counts.get(&region)),
                Def::Param(..) | Def::Const(_) | Def::Node(..) => {}
            }
        }
    }
}
