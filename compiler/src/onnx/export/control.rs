//! `If` and `Route` as ONNX's `If`; for a `Route` with a join see `join`.
//!
//! A `Route` gathers the rows of each side inside the branch that runs only if there are any, joins
//! the two sides, and restores the order of the rows by the inverse of the joined row numbers.

use std::collections::HashSet;

use eec_ir::graph::Node;
use eec_ir::{DType, Dim, Graph, RegionId, Tensor, Type, ValueId};

use super::super::error::ExportError;
use super::super::proto::{GraphProto, ValueInfoProto};
use super::super::tensor::value_info;
use super::Exporter;
use super::nodes::{int, subgraph};
use super::scope::Scope;

impl Exporter<'_> {
    /// Writes an `If`.
    pub(super) fn export_if(&mut self, node: &Node) -> Result<(), ExportError> {
        let here = self.current.clone();
        let mut branches = Vec::with_capacity(2);
        for (name, region) in ["then", "else"].into_iter().zip(&node.regions) {
            self.scopes.push(Scope::default());
            let body = self.export_nodes(*region).and_then(|()| {
                self.current = format!("{here}/{name}");
                self.close_branch(*region)
            })?;
            branches.push(subgraph(&format!("{name}_branch"), body));
        }
        self.current = here;
        let condition = self.value_name(node.inputs[0]);
        self.write_node("If", vec![condition], branches, &node.origin, &node.outputs);
        Ok(())
    }

    /// Ends the innermost graph, whose results are what `region` yields.
    pub(super) fn close_branch(&mut self, region: RegionId) -> Result<GraphProto, ExportError> {
        let graph = self.graph;
        let yields = &graph.region(region).yields;
        let names: Vec<String> = yields.iter().map(|v| self.value_name(*v)).collect();
        let written: HashSet<String> =
            self.scopes.last().into_iter().flat_map(|s| &s.nodes).flat_map(|n| n.output.clone()).collect();
        let mut seen = HashSet::new();
        let mut output = Vec::with_capacity(names.len());
        for (name, value) in names.into_iter().zip(yields) {
            // A branch's result must be written in it, and once.
            let own = written.contains(&name) && seen.insert(name.clone());
            let name = if own { name } else { self.helper("Identity", &[&name], Vec::new()) };
            output.push(value_info(&name, graph.ty(*value)));
        }
        Ok(self.pop_graph(output))
    }

    pub(super) fn pop_graph(&mut self, output: Vec<ValueInfoProto>) -> GraphProto {
        let node = self.scopes.pop().map(|s| s.nodes).unwrap_or_default();
        GraphProto { node, name: self.current.clone(), output, ..GraphProto::default() }
    }

    /// Writes a `Route`.
    pub(super) fn export_route(&mut self, node: &Node) -> Result<(), ExportError> {
        if let Some(join) = node.regions.get(2) {
            return self.export_joined(node, *join);
        }
        let here = self.current.clone();
        let mask = self.value_name(node.inputs[0]);
        let inverted = self.helper("Not", &[&mask], Vec::new());
        let rows = [self.row_numbers(&mask), self.row_numbers(&inverted)];
        let mut sides = Vec::with_capacity(2);
        for ((name, region), rows) in ["then", "else"].into_iter().zip(&node.regions).zip(&rows) {
            self.current = format!("{here}/{name}");
            sides.push(self.export_side(node, *region, rows)?);
        }
        self.current = here;
        let order = self.helper("Concat", &[&rows[0], &rows[1]], vec![int("axis", 0)]);
        let inverse = self.inverse(&order);
        for (i, result) in node.outputs.iter().enumerate() {
            let joined = self.helper("Concat", &[&sides[0][i], &sides[1][i]], vec![int("axis", 0)]);
            self.write_node("Gather", vec![joined, inverse.clone()], vec![int("axis", 0)], &node.origin, &[*result]);
        }
        Ok(())
    }

    /// The numbers of the rows for which `mask` is true, as a vector.
    pub(super) fn row_numbers(&mut self, mask: &str) -> String {
        let found = self.helper("NonZero", &[mask], Vec::new());
        let flat = self.ints(vec![-1]);
        self.helper("Reshape", &[&found, &flat], Vec::new())
    }

    /// Whether there are any of these rows.
    pub(super) fn has_rows(&mut self, rows: &str) -> String {
        let zero = self.tensor_name(&Tensor::scalar(0i64));
        let count = self.helper("Size", &[rows], Vec::new());
        self.helper("Greater", &[&count, &zero], Vec::new())
    }

    /// The permutation that undoes the permutation `order`.
    fn inverse(&mut self, order: &str) -> String {
        let (zero, one) = (self.tensor_name(&Tensor::scalar(0i64)), self.tensor_name(&Tensor::scalar(1i64)));
        let count = self.helper("Size", &[order], Vec::new());
        let positions = self.helper("Range", &[&zero, &count, &one], Vec::new());
        self.helper("ScatterElements", &[order, order, &positions], vec![int("axis", 0)])
    }

    /// Writes one side of a `Route`: an `If` that runs `region` on its rows if there are any.
    /// Returns the names of its results.
    fn export_side(&mut self, node: &Node, region: RegionId, rows: &str) -> Result<Vec<String>, ExportError> {
        let here = self.current.clone();
        let any = self.has_rows(rows);
        self.scopes.push(Scope::of_rows(self.graph.region(region).rows.clone(), rows));
        self.gather_params(node, region, rows);
        self.export_nodes(region)?;
        self.current = format!("{here}/rows");
        let body = self.close_branch(region)?;

        self.current = format!("{here}/empty");
        let types: Vec<Type> = node.outputs.iter().map(|v| self.graph.ty(*v).clone()).collect();
        let empty = self.empty_branch(&types)?;
        self.current = here;
        let branches = vec![subgraph("then_branch", body), subgraph("else_branch", empty)];
        let results = node.outputs.iter().map(|_| self.used_values.unique(&self.current)).collect::<Vec<_>>();
        self.write_if(&any, branches, node, results.clone());
        Ok(results)
    }

    /// Gathers the operands' rows for the parameters that the region uses.
    pub(super) fn gather_params(&mut self, node: &Node, region: RegionId, rows: &str) {
        let graph = self.graph;
        let used = used_values(graph, region);
        for (param, operand) in graph.region(region).params.iter().zip(&node.inputs[1..]) {
            if used.contains(param) {
                let operand = self.value_name(*operand);
                let name = self.helper("Gather", &[&operand, rows], vec![int("axis", 0)]);
                self.note_value(*param, name);
            }
        }
    }

    /// A graph that gives tensors of these types without rows.
    fn empty_branch(&mut self, types: &[Type]) -> Result<GraphProto, ExportError> {
        self.scopes.push(Scope::default());
        let mut output = Vec::with_capacity(types.len());
        for ty in types {
            let inner = ty.dims.iter().skip(1).cloned();
            let dims: Vec<Dim> = std::iter::once(Dim::from(0)).chain(inner).collect();
            let shape = self.sizes(&dims)?;
            let name = self.zeros(&shape, ty.dtype);
            output.push(value_info(&name, &Type::new(ty.dtype, dims)));
        }
        Ok(self.pop_graph(output))
    }
}

/// One zero of an element type.
pub(super) fn zero(dtype: DType) -> Tensor {
    // All bits zero are the zero of every type but f8e8m0, which has none.
    Tensor::from_bytes(dtype, &[1], vec![0; dtype.size()]).unwrap_or_else(|_| Tensor::vector(vec![0f32]))
}

/// The values that a region and the regions inside it use or yield.
fn used_values(graph: &Graph, region: RegionId) -> HashSet<ValueId> {
    let mut used: HashSet<ValueId> = graph.region(region).yields.iter().copied().collect();
    graph.visit(region, &mut |n| {
        let node = graph.node(n);
        used.extend(&node.inputs);
        used.extend(node.regions.iter().flat_map(|r| &graph.region(*r).yields));
    });
    used
}
