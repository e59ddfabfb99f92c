//! Control: regions become blocks, `If` and `Route` become steps.

use eec_ir::program::{Block, BlockId, Decision, IfStep, Join, JoinLength, RouteStep, RowBuffer, Source, Step};
use eec_ir::{BufferId, Dim, NodeId, RegionId, ValueId};

use super::fuse::LoopBuilder;
use super::view::Shown;
use super::{LowerError, Lowering};

impl Lowering<'_> {
    /// The steps of a region and the dense buffers of what it yields. Places found inside do not
    /// outlive it: a copy made in one branch does not exist in the other.
    pub(super) fn region(&mut self, region: RegionId) -> Result<(Vec<Step>, Vec<BufferId>), LowerError> {
        let (outer_steps, outer_places) = (std::mem::take(&mut self.steps), self.places.clone());
        let graph = self.graph;
        for id in &graph.region(region).nodes {
            self.node(*id)?;
        }
        let mut yields = Vec::new();
        for v in &graph.region(region).yields {
            yields.push(self.dense(*v)?);
        }
        self.places = outer_places;
        Ok((std::mem::replace(&mut self.steps, outer_steps), yields))
    }

    fn block(&mut self, region: RegionId) -> Result<BlockId, LowerError> {
        let id = BlockId(self.program.blocks.len() as u32);
        self.program.blocks.push(Block::default());
        let graph = self.graph;
        let mut params = Vec::new();
        for p in &graph.region(region).params {
            let used = !self.uses[p.index()].is_empty() || self.yielded.contains(p);
            params.push(used.then(|| self.buffer_for(*p, Source::Param)));
        }
        let (steps, yields) = self.region(region)?;
        self.program.blocks[id.0 as usize] = Block { rows: graph.region(region).rows.clone(), params, steps, yields };
        Ok(id)
    }

    fn results(&mut self, id: NodeId) -> Vec<BufferId> {
        let outputs = self.graph.node(id).outputs.clone();
        outputs.into_iter().map(|v| self.buffer_for(v, Source::Result)).collect()
    }

    /// What a control node decides.
    fn decision(&self, id: NodeId) -> Decision {
        let op = &self.graph.node(id).op;
        let number = |n: Option<i64>| n.and_then(|n| u32::try_from(n).ok());
        match (number(op.exit()), number(op.gate())) {
            (Some(exit), _) => Decision::Exit(exit),
            (None, Some(gate)) => Decision::Gate(gate),
            (None, None) => Decision::None,
        }
    }

    pub(super) fn if_node(&mut self, id: NodeId) -> Result<(), LowerError> {
        let condition = self.dense(self.input(id, 0))?;
        let (then, other, _) = self.branches(id)?;
        let results = self.results(id);
        let decision = self.decision(id);
        self.steps.push(Step::If(IfStep { decision, condition, then, other, results }));
        Ok(())
    }

    pub(super) fn route_node(&mut self, id: NodeId) -> Result<(), LowerError> {
        let mask = self.dense(self.input(id, 0))?;
        let rows = self.graph.ty(self.input(id, 0)).elements();
        let mut operands = Vec::new();
        let graph = self.graph;
        for v in &graph.node(id).inputs[1..] {
            let buffer = self.dense(*v)?;
            operands.push(RowBuffer { buffer, row: self.row(*v) });
        }
        let (then, other, join) = self.branches(id)?;
        let outputs = self.graph.node(id).outputs.clone();
        let results = self.results(id).into_iter().zip(outputs);
        let results = results.map(|(buffer, v)| RowBuffer { buffer, row: self.row(v) }).collect();
        let decision = self.decision(id);
        self.steps.push(Step::Route(RouteStep { decision, rows, mask, operands, then, other, join, results }));
        Ok(())
    }

    /// Elements per row.
    fn row(&self, value: ValueId) -> Dim {
        Dim::product(self.graph.ty(value).dims.iter().skip(1))
    }

    /// A join's parameter stands for memory that is large enough for the longer of its two runs, which a
    /// constant of the shorter run is not: it is copied.
    fn own_shorter_yields(&mut self, regions: [RegionId; 2], sides: [BlockId; 2]) {
        let graph = self.graph;
        for (i, other) in [(0, 1), (1, 0)] {
            let pairs = graph.region(regions[i]).yields.iter().zip(&graph.region(regions[other]).yields);
            for (at, (value, counterpart)) in pairs.enumerate() {
                let excess = &graph.ty(*value).elements() - &graph.ty(*counterpart).elements();
                let given = self.program.block(sides[i]).yields[at];
                let is_fixed = matches!(self.program.buffer(given).source, Source::Constant(_) | Source::Input(_));
                if is_fixed && !excess.is_at_least(0) {
                    let outer = std::mem::take(&mut self.steps);
                    let copy = self.copy_of(*value, given);
                    let steps = std::mem::replace(&mut self.steps, outer);
                    let block = &mut self.program.blocks[sides[i].0 as usize];
                    block.steps.extend(steps);
                    block.yields[at] = copy;
                }
            }
        }
    }

    /// A copy of a dense buffer that holds `value`.
    fn copy_of(&mut self, value: ValueId, from: BufferId) -> BufferId {
        let ty = self.graph.ty(value).clone();
        let to = self.buffer(ty.dtype, ty.elements(), Source::Temp);
        let mut b = LoopBuilder::map(&ty.dims);
        let x = b.load(&Shown::dense(from, &ty.dims));
        b.store(&Shown::dense(to, &ty.dims), x);
        self.emit(b.finish(), Dim::from(0));
        to
    }

    /// The blocks of a control node's regions, and its join.
    fn branches(&mut self, id: NodeId) -> Result<(BlockId, BlockId, Option<Join>), LowerError> {
        let graph = self.graph;
        let (then, other, join) = match graph.node(id).regions[..] {
            [then, other] => (then, other, None),
            [then, other, join] => (then, other, Some(join)),
            _ => return Err(LowerError::internal("a control node without two or three regions")),
        };
        let lengths = join.map(|join| eec_ir::ops::control::join_lengths(graph, [then, other], join)).transpose();
        let lengths = lengths.map_err(LowerError::internal)?.flatten();
        let sides = [self.block(then)?, self.block(other)?];
        let join = match join {
            Some(region) => {
                self.own_shorter_yields([then, other], sides);
                let symbol = graph.region(region).length.clone();
                let length = symbol.zip(lengths).map(|(symbol, [then, other])| JoinLength { symbol, then, other });
                Some(Join { block: self.block(region)?, length })
            }
            None => None,
        };
        let [then, other] = sides;
        self.current = Some(id);
        Ok((then, other, join))
    }
}
