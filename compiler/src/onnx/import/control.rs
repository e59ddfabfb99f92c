//! `If`: its branches become regions that see the values around them.

use eec_ir::{Op, RegionId, ValueId};

use super::super::error::{ImportError, NodeResult, Refusal, refuse};
use super::super::proto::{GraphProto, NodeProto};
use super::{Importer, interface, origin};

impl Importer<'_> {
    /// Imports an `If`. Where the condition is known, only the branch that runs, in its place:
    /// exporters write such tests of ranks and sizes, and the other branch need not even type-check.
    /// `None` if a result depends on a node that cannot be imported.
    pub(super) fn import_if(
        &mut self,
        region: RegionId,
        mut node: NodeProto,
    ) -> Result<Option<Vec<ValueId>>, ImportError> {
        let branches =
            take_branch(&mut node, "then_branch").and_then(|t| Ok((t, take_branch(&mut node, "else_branch")?)));
        let (then, other) = branches.map_err(|e| self.refusal(e))?;
        let condition = self.condition(&node).map_err(|e| self.refusal(e))?;
        let known = self.graph.value(condition).contents.as_ref().and_then(|c| c.first()?.as_const());
        if let Some(known) = known {
            let (name, branch) = if known != 0 { ("then", then) } else { ("else", other) };
            return self.import_branch(region, name, branch, node.output.len());
        }
        let mut regions = Vec::with_capacity(2);
        for (name, branch) in [("then", then), ("else", other)] {
            let inner = self.graph.new_region(None);
            if let Some(yields) = self.import_branch(inner, name, branch, node.output.len())? {
                self.graph.set_yields(inner, yields);
                regions.push(inner);
            }
        }
        if regions.len() < 2 {
            return Ok(None);
        }
        let result =
            self.graph.append_control(region, Op::If { exit: -1, gate: -1 }, &[condition], regions, origin(&node));
        let result = result.map_err(|e| self.refusal(e.into()))?;
        Ok(Some(self.graph.node(result).outputs.clone()))
    }

    fn condition(&mut self, node: &NodeProto) -> NodeResult<ValueId> {
        match node.input.as_slice() {
            [condition] => self.lookup(condition),
            other => refuse(format!("takes one condition, found {} operands", other.len())),
        }
    }

    /// Appends a branch to `region` and returns its results; `None` if one depends on a node that
    /// cannot be imported.
    fn import_branch(
        &mut self,
        region: RegionId,
        name: &str,
        mut branch: GraphProto,
        results: usize,
    ) -> Result<Option<Vec<ValueId>>, ImportError> {
        self.path.push(format!("{name} branch"));
        if branch.output.len() != results {
            let reason = format!("has {} results, the node {results}", branch.output.len());
            return Err(self.refusal(Refusal::new(reason)));
        }
        self.open_scope(std::mem::take(&mut branch.initializer))?;
        let declared = interface::declared_types(&branch);
        self.import_nodes(region, branch.node, &declared)?;
        let known = branch.output.iter().all(|o| !self.is_unknown(&o.name));
        let yields = branch.output.iter().filter(|_| known).map(|o| self.lookup(&o.name));
        let yields = yields.collect::<NodeResult<Vec<_>>>().map_err(|e| self.refusal(e))?;
        self.scopes.pop();
        self.path.pop();
        Ok(known.then_some(yields))
    }
}

fn take_branch(node: &mut NodeProto, name: &str) -> NodeResult<GraphProto> {
    let attribute = node.attribute.iter_mut().find(|a| a.name == name);
    attribute.and_then(|a| a.g.take()).ok_or_else(|| Refusal::new(format!("attribute `{name}` holds no graph")))
}
