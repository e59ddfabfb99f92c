//! Copies the nodes of an FFN for other tokens: the dims that count tokens are replaced, and so are
//! the sizes in which exporters repeat them.

use eec_ir::{Dim, Graph, NodeId, Op, RegionId, Symbol, ValueId};

use crate::clone::{Changes, ValueMap, clone_nodes, counterpart};

/// What counts tokens in the source, and what stands for it in the copy: as many dims.
pub(super) struct Tokens {
    pub(super) from: Vec<Dim>,
    pub(super) to: Vec<Dim>,
}

impl Tokens {
    /// The shape `dims` for the copy's tokens, which must be its first dims, one by one or joined.
    fn shape(&self, dims: &[Dim]) -> Option<Vec<Dim>> {
        let (first, rest) = match dims.strip_prefix(self.from.as_slice()) {
            Some(rest) => (self.to.clone(), rest),
            None => {
                let (first, rest) = dims.split_first()?;
                (*first == Dim::product(&self.from)).then(|| (vec![Dim::product(&self.to)], rest))?
            }
        };
        let fixed = rest.iter().all(|d| d.as_const().is_some());
        fixed.then(|| first.into_iter().chain(rest.iter().cloned()).collect())
    }

    /// Whether a size depends on how many tokens there are.
    pub(super) fn count_in(&self, dim: &Dim) -> bool {
        mentions_any(dim, &self.from)
    }
}

/// Whether `dim` depends on a symbol of `others`.
fn mentions_any(dim: &Dim, others: &[Dim]) -> bool {
    let mut symbols = std::collections::BTreeSet::<Symbol>::new();
    others.iter().for_each(|d| d.collect_symbols(&mut symbols));
    symbols.iter().any(|s| dim.mentions(s))
}

/// Appends copies of `nodes`, none of them control, to `region` and maps their results; an error is the reason why one
/// cannot be copied.
pub(super) fn copy(
    source: &Graph,
    nodes: &[NodeId],
    target: &mut Graph,
    region: RegionId,
    map: &mut ValueMap,
    tokens: &Tokens,
) -> Result<(), String> {
    for id in nodes {
        let (op, at) = (&source.node(*id).op, |reason: &str| format!("{}: {reason}", source.describe(*id)));
        if let Op::Reshape { dims } = op {
            let dims = tokens.shape(dims).ok_or_else(|| at("its result does not begin with the tokens"))?;
            append(source, *id, Op::Reshape { dims }, target, region, map).map_err(|e| at(&e))?;
        } else if depends(op, tokens) {
            return Err(at("its attributes depend on the number of tokens"));
        } else {
            clone_nodes(source, &[*id], target, region, map, Changes::default()).map_err(|e| e.to_string())?;
        }
    }
    Ok(())
}

/// Whether an attribute of `op` depends on how many tokens there are.
fn depends(op: &Op, tokens: &Tokens) -> bool {
    let mut found = false;
    op.clone().map_dims(&mut |d| {
        found |= tokens.count_in(d);
        d.clone()
    });
    found
}

/// Appends `op` in the place of a node with one operand and one result.
fn append(
    source: &Graph,
    node: NodeId,
    op: Op,
    target: &mut Graph,
    region: RegionId,
    map: &mut ValueMap,
) -> Result<(), String> {
    let node = source.node(node);
    let operand = |target: &mut Graph, map: &mut ValueMap, v: &ValueId| {
        counterpart(source, target, map, *v).ok_or_else(|| "an operand is not available here".to_string())
    };
    let inputs = node.inputs.iter().map(|v| operand(target, map, v)).collect::<Result<Vec<_>, _>>()?;
    let new = target.append1(region, op, &inputs, node.origin.clone()).map_err(|e| e.to_string())?;
    map.extend(node.outputs.first().map(|v| (*v, new)));
    Ok(())
}
