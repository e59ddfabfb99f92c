//! A `Route` with a join as ONNX's `Loop` of two rounds: one for the rows of `else`, one for those of
//! `then`.
//!
//! A round takes the side's rows, runs the side's region in an `If`, then the join, and scatters the
//! results into those of the round before. What the join holds so stands in the file once. A round
//! without rows hands the results on.

use eec_ir::graph::Node;
use eec_ir::{DType, RegionId, Tensor, Type};

use super::super::error::ExportError;
use super::super::proto::{AttributeProto, GraphProto, ValueInfoProto};
use super::super::tensor::{encode, onnx_type, value_info};
use super::Exporter;
use super::control::zero;
use super::nodes::{int, subgraph, tensor};
use super::scope::Scope;

/// The values of one round.
struct Round {
    /// Whether it is that of `then`.
    then: String,
    /// The numbers of its rows.
    rows: String,
    /// The results so far.
    results: Vec<String>,
}

impl Exporter<'_> {
    /// Writes a `Route` whose third region is `join`.
    pub(super) fn export_joined(&mut self, node: &Node, join: RegionId) -> Result<(), ExportError> {
        let here = self.current.clone();
        let types: Vec<Type> = node.outputs.iter().map(|v| self.graph.ty(*v).clone()).collect();
        let mask = self.value_name(node.inputs[0]);
        let (rounds, on) = (self.tensor_name(&Tensor::scalar(2i64)), self.tensor_name(&Tensor::scalar(1u8)));
        let mut inputs = vec![rounds, on];
        for ty in &types {
            let shape = self.sizes(&ty.dims)?;
            inputs.push(self.zeros(&shape, ty.dtype));
        }
        self.current = format!("{here}/join");
        let body = self.export_round(node, join, &mask, &types)?;
        self.current = here;
        self.write_node("Loop", inputs, vec![subgraph("body", body)], &node.origin, &node.outputs);
        Ok(())
    }

    /// A tensor of zeros.
    pub(super) fn zeros(&mut self, shape: &str, dtype: DType) -> String {
        let element = encode(&zero(dtype), "");
        self.helper("ConstantOfShape", &[shape], vec![tensor("value", element)])
    }

    /// The body of the `Loop`.
    fn export_round(
        &mut self,
        node: &Node,
        join: RegionId,
        mask: &str,
        types: &[Type],
    ) -> Result<GraphProto, ExportError> {
        self.scopes.push(Scope::default());
        let name = |this: &mut Self, part: &str| this.used_values.unique(&format!("{}/{part}", this.current));
        let (number, on) = (name(self, "round"), name(self, "on"));
        let results: Vec<String> = types.iter().map(|_| name(self, "results")).collect();

        let then = self.helper("Cast", &[&number], vec![int("to", i64::from(onnx_type(DType::Bool)))]);
        let taken = self.helper("Equal", &[mask, &then], Vec::new());
        let rows = self.row_numbers(&taken);
        let any = self.has_rows(&rows);
        let round = Round { then, rows, results };
        let branches = vec![
            subgraph("then_branch", self.export_rows(node, join, &round, types)?),
            subgraph("else_branch", self.hand_on(&round, types)),
        ];
        let after: Vec<String> = types.iter().map(|_| name(self, "results")).collect();
        self.write_if(&any, branches, node, after.clone());
        let still_on = self.helper("Identity", &[&on], Vec::new());

        let flag = Type::new(DType::Bool, []);
        let infos = |flag_name: &str, names: &[String]| {
            let rest = names.iter().zip(types).map(|(n, ty)| value_info(n, ty));
            std::iter::once(value_info(flag_name, &flag)).chain(rest).collect::<Vec<ValueInfoProto>>()
        };
        let mut body = self.pop_graph(infos(&still_on, &after));
        body.input = vec![value_info(&number, &Type::new(DType::I64, []))];
        body.input.extend(infos(&on, &round.results));
        Ok(body)
    }

    /// Runs a side's region and the join on the rows of a round.
    fn export_rows(
        &mut self,
        node: &Node,
        join: RegionId,
        round: &Round,
        types: &[Type],
    ) -> Result<GraphProto, ExportError> {
        let (here, graph) = (self.current.clone(), self.graph);
        self.scopes.push(Scope::of_rows(graph.region(join).rows.clone(), &round.rows));
        let mut sides = Vec::with_capacity(2);
        for (name, region) in ["then", "else"].into_iter().zip(&node.regions) {
            self.current = format!("{here}/{name}");
            sides.push(self.export_region(node, *region, name, &round.rows)?);
        }
        self.current = here.clone();
        let params = &graph.region(join).params;
        let given: Vec<String> = params.iter().map(|_| self.used_values.unique(&format!("{here}/given"))).collect();
        self.write_if(&round.then, sides, node, given.clone());
        params.iter().zip(given).for_each(|(param, name)| self.note_value(*param, name));
        self.export_nodes(join)?;

        self.current = format!("{here}/rows");
        let column = self.ints(vec![-1, 1]);
        let rows = self.helper("Reshape", &[&round.rows, &column], Vec::new());
        let mut output = Vec::with_capacity(types.len());
        for ((value, results), ty) in graph.region(join).yields.iter().zip(&round.results).zip(types) {
            let value = self.value_name(*value);
            let written = self.helper("ScatterND", &[results, &rows, &value], Vec::new());
            output.push(value_info(&written, ty));
        }
        let branch = self.pop_graph(output);
        self.current = here;
        Ok(branch)
    }

    /// A branch that runs a side's region.
    fn export_region(
        &mut self,
        node: &Node,
        region: RegionId,
        name: &str,
        rows: &str,
    ) -> Result<AttributeProto, ExportError> {
        let here = self.current.clone();
        self.scopes.push(Scope::of_rows(self.graph.region(region).rows.clone(), rows));
        self.gather_params(node, region, rows);
        self.export_nodes(region)?;
        self.current = here;
        Ok(subgraph(&format!("{name}_branch"), self.close_branch(region)?))
    }

    /// The branch of a round without rows.
    fn hand_on(&mut self, round: &Round, types: &[Type]) -> GraphProto {
        self.scopes.push(Scope::default());
        let mut output = Vec::with_capacity(types.len());
        for (results, ty) in round.results.iter().zip(types) {
            let same = self.helper("Identity", &[results], Vec::new());
            output.push(value_info(&same, ty));
        }
        self.pop_graph(output)
    }
}
