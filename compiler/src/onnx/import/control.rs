//! `If`, and what it shares with loops: a graph inside a node sees the values around it.

use std::collections::HashMap;

use eec_ir::{RegionId, ValueId};

use super::super::error::{Failure, NodeResult, Refusal, refuse};
use super::super::proto::{GraphProto, NodeProto};
use super::{Binding, Importer, Scope, interface};

/// A graph inside a node, ready to be appended any number of times.
pub(super) struct Body {
    /// Its name in messages.
    pub(super) name: &'static str,
    pub(super) inputs: Vec<String>,
    pub(super) outputs: Vec<String>,
    pub(super) graph: GraphProto,
}

impl Body {
    /// The graph in the attribute `attribute` of `node`, which is taken out.
    pub(super) fn take(node: &mut NodeProto, attribute: &str, name: &'static str) -> NodeResult<Body> {
        let found = node.attribute.iter().position(|a| a.name == attribute);
        let graph = found.and_then(|at| node.attribute.swap_remove(at).g);
        let graph = graph.ok_or_else(|| Refusal::new(format!("attribute `{attribute}` holds no graph")))?;
        let names = |list: &[super::super::proto::ValueInfoProto]| list.iter().map(|v| v.name.clone()).collect();
        Ok(Body { name, inputs: names(&graph.input), outputs: names(&graph.output), graph })
    }
}

impl Importer<'_> {
    /// Imports an `If`. Where the condition is known, only the branch that runs, in its place:
    /// exporters write such tests of ranks and sizes, and the other branch need not even type-check.
    /// `None` if a result depends on a node that cannot be imported.
    pub(super) fn import_if(&mut self, region: RegionId, mut node: NodeProto) -> Result<Option<Vec<ValueId>>, Failure> {
        let then = Body::take(&mut node, "then_branch", "then branch")?;
        let other = Body::take(&mut node, "else_branch", "else branch")?;
        let condition = match node.input.as_slice() {
            [condition] => self.lookup(condition)?,
            other => return Err(Refusal::new(format!("takes one condition, found {} operands", other.len())).into()),
        };
        if let Some(known) = self.known_truth(condition) {
            return self.import_branch(region, if known { then } else { other }, &node);
        }
        let mut regions = Vec::with_capacity(2);
        for branch in [then, other] {
            let inner = self.graph.new_region(None);
            self.conditions.push(condition);
            let yields = self.import_branch(inner, branch, &node)?;
            self.conditions.pop();
            if let Some(yields) = yields {
                self.graph.set_yields(inner, yields);
                regions.push(inner);
            }
        }
        if regions.len() < 2 {
            return Ok(None);
        }
        let undecided = |failure| match failure {
            Failure::Node(refusal) => {
                Failure::Node(Refusal { undecided: refusal.undecided.or(Some(condition)), ..refusal })
            }
            Failure::Import(error) => Failure::Import(error),
        };
        self.append_if(region, condition, regions, &node).map(Some).map_err(undecided)
    }

    /// The one truth value that `value` holds, if it is known before a run.
    pub(super) fn known_truth(&self, value: ValueId) -> Option<bool> {
        let contents = self.graph.value(value).contents.as_ref()?;
        contents.first()?.as_const().map(|truth| truth != 0)
    }

    fn import_branch(
        &mut self,
        region: RegionId,
        mut branch: Body,
        node: &NodeProto,
    ) -> Result<Option<Vec<ValueId>>, Failure> {
        if branch.outputs.len() != node.output.len() {
            let (found, wanted) = (branch.outputs.len(), node.output.len());
            return Err(Refusal::new(format!("the {} has {found} results, the node {wanted}", branch.name)).into());
        }
        let declared = interface::declared_types(&branch.graph);
        let nodes = std::mem::take(&mut branch.graph.node);
        self.with_body(branch, |importer, body| importer.import_body(region, body, nodes, &[], &declared))
    }

    /// Opens the scope of a body's initializers for `work`, which may append the body many times.
    pub(super) fn with_body<T>(
        &mut self,
        mut body: Body,
        work: impl FnOnce(&mut Self, &Body) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        self.path.push(body.name.to_string());
        self.budget.enter()?;
        self.open_scope(std::mem::take(&mut body.graph.initializer))?;
        let result = work(self, &body)?;
        self.scopes.pop();
        self.budget.leave();
        self.path.pop();
        Ok(result)
    }

    /// Appends `nodes`, those of a body, to `region` with these values for its inputs and returns its results;
    /// `None` if one depends on a node that cannot be imported.
    pub(super) fn import_body(
        &mut self,
        region: RegionId,
        body: &Body,
        nodes: Vec<NodeProto>,
        given: &[ValueId],
        declared: &HashMap<String, interface::Declared>,
    ) -> Result<Option<Vec<ValueId>>, Failure> {
        let mut scope = Scope::with_capacity(given.len());
        for (name, value) in body.inputs.iter().zip(given) {
            if scope.insert(name.clone(), Binding::Value(*value)).is_some() {
                return Err(Refusal::new(format!("the input `{name}` of the {} occurs twice", body.name)).into());
            }
        }
        self.scopes.push(scope);
        self.import_nodes(region, nodes, declared)?;
        let known = body.outputs.iter().all(|name| !self.is_unknown(name));
        let results = body.outputs.iter().filter(|_| known).map(|name| self.lookup(name));
        let results = results.collect::<NodeResult<Vec<_>>>()?;
        self.scopes.pop();
        Ok(known.then_some(results))
    }
}

/// Refuses a node whose operands and body differ in number.
pub(super) fn check_count(what: &str, found: usize, wanted: usize) -> NodeResult<()> {
    if found == wanted { Ok(()) } else { refuse(format!("the body has {found} {what}, the node asks for {wanted}")) }
}
