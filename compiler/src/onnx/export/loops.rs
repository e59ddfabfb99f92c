//! The IR's `Loop` as ONNX's.

use eec_ir::graph::Node;
use eec_ir::ops::control::{bound, is_always};
use eec_ir::{DType, Dim, Type};

use super::super::error::ExportError;
use super::super::tensor::value_info;
use super::Exporter;
use super::nodes::subgraph;
use super::scope::Scope;

impl Exporter<'_> {
    /// Writes a `Loop`. What ONNX gives a step as its condition, which always holds there, is not read.
    pub(super) fn export_loop(&mut self, node: &Node, trips: &Dim) -> Result<(), ExportError> {
        let (here, graph) = (self.current.clone(), self.graph);
        let steps = bound(trips).map(|steps| self.scalar_size(&steps)).transpose()?.unwrap_or_default();
        let inputs = std::iter::once(steps).chain(node.inputs.iter().map(|v| self.value_name(*v))).collect();
        let region = node.regions[0];
        self.current = format!("{here}/do");
        self.scopes.push(Scope::default());
        let mut given = Vec::new();
        for param in &graph.region(region).params {
            let name = self.used_values.unique(&format!("{}/given", self.current));
            given.push(value_info(&name, graph.ty(*param)));
            self.note_value(*param, name);
        }
        let condition = self.used_values.unique(&format!("{}/condition", self.current));
        given.insert(1, value_info(&condition, &Type::new(DType::Bool, [])));
        self.export_nodes(region)?;
        self.current = format!("{here}/do");
        let mut body = self.close_branch(region)?;
        body.input = given;
        self.current = here;
        let carried = node.inputs.len() - 1;
        let next = graph.region(region).yields.first();
        let always = is_always(graph, node.inputs[0]) && next.is_some_and(|next| is_always(graph, *next));
        if always || node.outputs.len() == carried {
            self.write_node("Loop", inputs, vec![subgraph("body", body)], &node.origin, &node.outputs);
            return Ok(());
        }
        // There are as many rows as steps were made, and room for all.
        let (results, rows) = node.outputs.split_at(carried);
        let made: Vec<String> =
            rows.iter().map(|_| self.used_values.unique(&format!("{}/made", self.current))).collect();
        self.write_node_and("Loop", inputs, vec![subgraph("body", body)], &node.origin, results, &made);
        rows.iter().zip(&made).try_for_each(|(row, made)| self.fill(made, 0, *row))
    }
}
