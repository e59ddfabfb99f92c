//! Control: regions become blocks, `If`, `Route`, `Loop` and `LateSize` become steps.

use std::collections::BTreeSet;

use eec_ir::ops::control::{bound, is_always};
use eec_ir::program::{Block, BlockId, Decision, IfStep, RepeatStep, RouteStep, RowBuffer, SizeStep, Source, Step};
use eec_ir::{BufferId, Dim, NodeId, RegionId, ValueId};

use super::join::After;
use super::order::Border;
use super::view::Shown;
use super::{LowerError, Lowering};

impl Lowering<'_> {
    /// The steps of a region and the whole buffers of what it yields. Places found inside do not
    /// outlive it: a copy made in one branch does not exist in the other.
    pub(super) fn region(
        &mut self,
        region: RegionId,
        border: Border,
    ) -> Result<(Vec<Step>, Vec<BufferId>), LowerError> {
        let (outer_steps, outer_places) = (std::mem::take(&mut self.steps), self.places.clone());
        let graph = self.graph;
        let outer_known = self.known.clone();
        self.known.extend(graph.region(region).rows.iter().chain(&graph.region(region).length).cloned());
        for id in &graph.region(region).nodes {
            self.node(*id)?;
        }
        let mut yields = Vec::new();
        for v in &graph.region(region).yields {
            yields.push(self.at_border(*v, border)?);
        }
        self.places = outer_places;
        self.known = outer_known;
        Ok((std::mem::replace(&mut self.steps, outer_steps), yields))
    }

    pub(super) fn block(
        &mut self,
        region: RegionId,
        border: Border,
        after: Option<&After>,
    ) -> Result<BlockId, LowerError> {
        let id = BlockId(self.program.blocks.len() as u32);
        self.program.blocks.push(Block::default());
        let (graph, first) = (self.graph, self.program.buffers.len());
        let mut params = Vec::new();
        for p in &graph.region(region).params {
            let used = !self.uses[p.index()].is_empty() || self.yielded.contains(p);
            params.push(used.then(|| self.place_at_border(*p, border, Source::Param)));
        }
        let (mut steps, mut yields) = self.region(region, border)?;
        if let Some(after) = after {
            std::mem::swap(&mut self.steps, &mut steps);
            self.make_room(region, after, first, &mut yields);
            std::mem::swap(&mut self.steps, &mut steps);
        }
        self.program.blocks[id.0 as usize] = Block { rows: graph.region(region).rows.clone(), params, steps, yields };
        Ok(id)
    }

    fn results(&mut self, id: NodeId, border: Border) -> Vec<BufferId> {
        let outputs = self.graph.node(id).outputs.clone();
        outputs.into_iter().map(|v| self.place_at_border(v, border, Source::Result)).collect()
    }

    /// A number becomes a size, and what was assumed of it is checked as soon as all of it is known.
    pub(super) fn late_size(&mut self, id: NodeId, size: &Dim, most: &Dim) -> Result<(), LowerError> {
        let value = self.dense(self.input(id, 0))?;
        let symbol = size.as_symbol().cloned().ok_or_else(|| LowerError::internal(format!("{size} is no symbol")))?;
        self.known.insert(symbol.clone());
        let about = |(a, b): &(Dim, Dim)| {
            let mut symbols = BTreeSet::new();
            a.collect_symbols(&mut symbols);
            b.collect_symbols(&mut symbols);
            symbols.contains(&symbol) && symbols.is_subset(&self.known)
        };
        let (equal, rest) = std::mem::take(&mut self.unchecked).into_iter().partition(about);
        self.unchecked = rest;
        self.current = Some(id);
        let (name, most) = (self.name(), most.clone());
        self.steps.push(Step::Size(SizeStep { name, value, symbol, most, equal }));
        self.places.insert(self.result(id), Shown::dense(value, &self.graph.ty(self.result(id)).dims));
        Ok(())
    }

    pub(super) fn if_node(&mut self, id: NodeId) -> Result<(), LowerError> {
        let condition = self.dense(self.input(id, 0))?;
        let [then, other] = self.branches(id, &[None, None])?;
        let results = self.results(id, Border::InOrder);
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
            let buffer = self.at_border(*v, Border::InOrder)?;
            operands.push(RowBuffer { buffer, row: self.row(*v) });
        }
        let after = self.after(id)?;
        let [then, other] = self.branches(id, &after)?;
        let join = self.join(id, &after)?;
        let outputs = self.graph.node(id).outputs.clone();
        let results = self.results(id, Border::InOrder).into_iter().zip(outputs);
        let results = results.map(|(buffer, v)| RowBuffer { buffer, row: self.row(v) }).collect();
        let decision = self.decision(id);
        self.steps.push(Step::Route(RouteStep { decision, rows, mask, operands, then, other, join, results }));
        Ok(())
    }

    pub(super) fn loop_node(&mut self, id: NodeId, trips: &Dim) -> Result<(), LowerError> {
        let graph = self.graph;
        let node = graph.node(id);
        let ([first, given @ ..], &[region]) = (&node.inputs[..], &node.regions[..]) else {
            return Err(LowerError::internal("a loop without a condition or a region"));
        };
        let next = graph.region(region).yields.first();
        let always = is_always(graph, *first) && next.is_some_and(|next| is_always(graph, *next));
        let condition = if always { None } else { Some(self.dense(*first)?) };
        let carried = given.iter().map(|v| self.dense(*v)).collect::<Result<Vec<_>, _>>()?;
        let body = self.block(region, Border::RowMajor, None)?;
        self.current = Some(id);
        if always {
            self.program.blocks[body.0 as usize].yields.remove(0);
        }
        let mut results = self.results(id, Border::RowMajor);
        let rows = results.split_off(carried.len()).into_iter().zip(&node.outputs[carried.len()..]);
        let rows = rows.map(|(buffer, v)| RowBuffer { buffer, row: self.row(*v) }).collect();
        let (name, trips) = (self.name(), bound(trips));
        self.steps.push(Step::Repeat(RepeatStep { name, trips, condition, body, carried, results, rows }));
        Ok(())
    }

    fn decision(&self, id: NodeId) -> Decision {
        let op = &self.graph.node(id).op;
        let number = |n: Option<i64>| n.and_then(|n| u32::try_from(n).ok());
        match (number(op.exit()), number(op.gate())) {
            (Some(exit), _) => Decision::Exit(exit),
            (None, Some(gate)) => Decision::Gate(gate),
            (None, None) => Decision::None,
        }
    }

    /// Elements per row.
    fn row(&self, value: ValueId) -> Dim {
        Dim::product(self.graph.ty(value).dims.iter().skip(1))
    }

    fn branches(&mut self, id: NodeId, after: &[Option<After>; 2]) -> Result<[BlockId; 2], LowerError> {
        let [then, other, ..] = self.graph.node(id).regions[..] else {
            return Err(LowerError::internal("a control node without two regions"));
        };
        let then = self.block(then, Border::InOrder, after[0].as_ref())?;
        let other = self.block(other, Border::InOrder, after[1].as_ref())?;
        self.current = Some(id);
        Ok([then, other])
    }
}
