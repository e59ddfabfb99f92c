//! Branches of an `If` whose results differ in size: each result gets room for the larger one, and the branch that
//! runs says how much of it holds something.

use std::collections::BTreeSet;

use eec_ir::{Dim, Op, RegionId, ValueId};

use super::super::error::{Failure, NodeResult, Refusal, refuse};
use super::super::proto::NodeProto;
use super::{Importer, origin};

/// A size in which the branches differ.
struct Split {
    /// Which result, and which of its axes.
    result: usize,
    axis: usize,
    /// Room for either.
    most: Dim,
    /// Whether the size is `most` whichever branch runs.
    exact: bool,
}

impl Importer<'_> {
    /// Appends an `If` that owns `regions`, which may yield other sizes than each other; its results.
    pub(super) fn append_if(
        &mut self,
        region: RegionId,
        condition: ValueId,
        regions: Vec<RegionId>,
        node: &NodeProto,
    ) -> Result<Vec<ValueId>, Failure> {
        let splits = match regions[..] {
            [then, other] => self.splits(condition, [then, other])?,
            _ => Vec::new(),
        };
        let results = self.graph.region(regions[0]).yields.len();
        for branch in &regions {
            self.make_alike(*branch, &splits, node)?;
        }
        let op = Op::If { exit: -1, gate: -1 };
        let appended = self.graph.append_control(region, op, &[condition], regions, origin(node))?;
        let mut given = self.graph.node(appended).outputs.clone();
        let sizes = given.split_off(results);
        let mut cx = self.context(region, node.clone(), Vec::new());
        for (split, at) in splits.iter().filter(|s| !s.exact).zip(0..) {
            let size = cx.element(sizes[0], at)?;
            let size = cx.late_size(size, split.most.clone())?;
            given[split.result] = cx.first(given[split.result], split.axis, &size)?;
        }
        Ok(given)
    }

    /// Where the branches yield different sizes. What is no tensor of one rank and element type is refused.
    fn splits(&self, condition: ValueId, regions: [RegionId; 2]) -> NodeResult<Vec<Split>> {
        let graph = &self.graph;
        let [then, other] = regions.map(|r| &graph.region(r).yields);
        if then.len() != other.len() {
            return refuse(format!("one branch has {} results, the other {}", then.len(), other.len()));
        }
        let mut splits = Vec::new();
        for (result, (a, b)) in then.iter().zip(other).enumerate() {
            let (a, b) = (graph.ty(*a), graph.ty(*b));
            if a.dtype != b.dtype || a.rank() != b.rank() {
                return refuse(format!(
                    "result {result} is {a} in one branch and {b} in the other; where a run decides, both must have \
                     one element type and number of dims"
                ));
            }
            for (axis, (a, b)) in a.dims.iter().zip(&b.dims).enumerate().filter(|(_, (a, b))| a != b) {
                let exact = b.as_const() == Some(0) && self.holds_above_zero(condition, a);
                let most = if exact { Some(a.clone()) } else { self.room(regions, a, b) };
                let most = most.ok_or_else(|| {
                    Refusal::new(format!("nothing tells how large result {result} can be: {a} and {b} in its branches"))
                })?;
                splits.push(Split { result, axis, most, exact });
            }
        }
        Ok(splits)
    }

    /// Whether `condition` is `size > 0`, so that without it the size is 0 too.
    fn holds_above_zero(&self, condition: ValueId, size: &Dim) -> bool {
        let graph = &self.graph;
        let Some(node) = graph.def_node(condition).map(|n| graph.node(n)) else { return false };
        let is =
            |i: usize, dim: &Dim| graph.value(node.inputs[i]).contents.as_deref() == Some(std::slice::from_ref(dim));
        let zero = Dim::default();
        (node.op == Op::Greater {} && is(0, size) && is(1, &zero))
            || (node.op == Op::Less {} && is(0, &zero) && is(1, size))
            || (matches!(node.op, Op::Reshape { .. }) && self.holds_above_zero(node.inputs[0], size))
    }

    /// A size outside the branches that neither of two sizes inside them exceeds.
    fn room(&self, regions: [RegionId; 2], a: &Dim, b: &Dim) -> Option<Dim> {
        let inside: BTreeSet<_> = regions.iter().flat_map(|r| self.graph.late_symbols_in(*r)).collect();
        let most = |dim: &Dim| self.late.most(dim, &|symbol| inside.contains(symbol));
        Some(most(a)?.larger(&most(b)?))
    }

    /// Gives what a branch yields the sizes of `splits`, and adds its own sizes to it.
    fn make_alike(&mut self, branch: RegionId, splits: &[Split], node: &NodeProto) -> NodeResult<()> {
        if splits.is_empty() {
            return Ok(());
        }
        let mut yields = self.graph.region(branch).yields.clone();
        let mut cx = self.context(branch, node.clone(), Vec::new());
        let mut own = Vec::new();
        for split in splits {
            let dims = cx.dims(yields[split.result]);
            if !split.exact {
                own.push(dims[split.axis].clone());
            }
            yields[split.result] = cx.filled(yields[split.result], split.axis, &split.most)?;
        }
        if !own.is_empty() {
            yields.push(cx.emit(Op::Sizes { values: own }, &[])?);
        }
        self.graph.set_yields(branch, yields);
        Ok(())
    }
}
