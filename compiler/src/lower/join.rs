//! Joins: the block that goes on after either block of a `Route`, and room for the longer of what
//! they yield.
//!
//! A join's parameter stands for what one block or the other yielded, so each must be as large as the
//! larger one can be. A block's own buffer is declared that large; anything else is copied into one,
//! unless it is known to be the larger.

use std::collections::BTreeSet;

use eec_ir::program::{Join, Length, Source};
use eec_ir::{BufferId, Dim, Graph, NodeId, RegionId, Symbol, Type, ops};

use super::fuse::LoopBuilder;
use super::order::Border;
use super::view::Shown;
use super::{LowerError, Lowering};

/// What follows a block of a `Route`, where there is a length symbol.
pub(super) struct After {
    join: RegionId,
    /// What the length symbol stands for after this block, and after the other.
    lengths: [Dim; 2],
}

/// How many substitutions may be tried to compare two lengths. Joins inside each other take one each
/// where one side has a constant length.
const MAX_SUBSTITUTIONS: usize = 256;

impl Lowering<'_> {
    /// What follows the `then` and the `else` of a `Route`.
    pub(super) fn after(&self, id: NodeId) -> Result<[Option<After>; 2], LowerError> {
        let &[then, other, join] = &self.graph.node(id).regions[..] else { return Ok([None, None]) };
        let lengths = ops::join::lengths(self.graph, [then, other], join).map_err(LowerError::internal)?;
        let Some([a, b]) = lengths else { return Ok([None, None]) };
        let after = |lengths| Some(After { join, lengths });
        Ok([after([a.clone(), b.clone()]), after([b, a])])
    }

    /// The join of a `Route`, if it has one.
    pub(super) fn join(&mut self, id: NodeId, after: &[Option<After>; 2]) -> Result<Option<Join>, LowerError> {
        let graph = self.graph;
        let Some(region) = graph.node(id).regions.get(2) else { return Ok(None) };
        let lengths = after[0].as_ref().map(|a| a.lengths.clone());
        let length = graph.region(*region).length.clone().zip(lengths).map(|(symbol, [then, other])| {
            self.lengths.insert(symbol.clone(), [then.clone(), other.clone()]);
            Length { symbol, then, other }
        });
        let block = self.block(*region, Border::InOrder, None)?;
        self.current = Some(id);
        Ok(Some(Join { block, length }))
    }

    /// Makes what `region` yields as large as the join's parameters can be. Buffers from `first` on are
    /// its block's own.
    pub(super) fn make_room(&mut self, region: RegionId, after: &After, first: usize, yields: &mut [BufferId]) {
        let graph = self.graph;
        let [own, other] = &after.lengths;
        let join = graph.region(after.join);
        let Some((symbol, [rows, outer])) = join.length.as_ref().zip(rows_of(graph, region, after.join)) else {
            return;
        };
        let mut tries = MAX_SUBSTITUTIONS;
        if self.never_negative(&(own - other), &mut tries) {
            return;
        }
        let larger = own.larger(other);
        for ((buffer, value), param) in yields.iter_mut().zip(&graph.region(region).yields).zip(&join.params) {
            let ty = graph.ty(*param);
            if !ty.dims.iter().any(|d| d.mentions(symbol)) {
                continue;
            }
            let len = ty.elements().substitute(&|s| match s {
                s if s == symbol => Some(larger.clone()),
                s if s == rows => Some(outer.clone().into()),
                _ => None,
            });
            *buffer = self.enlarged(*buffer, graph.ty(*value), first, len);
        }
    }

    /// The buffer with room for `len` elements, or a copy of it with such room.
    fn enlarged(&mut self, id: BufferId, ty: &Type, first: usize, len: Dim) -> BufferId {
        let buffer = &mut self.program.buffers[id.index()];
        if id.index() >= first && buffer.source == Source::Temp {
            // Yielded twice, it may be enlarged already.
            buffer.len = if buffer.len == ty.elements() { len } else { buffer.len.larger(&len) };
            return id;
        }
        let mut b = LoopBuilder::map(&ty.dims);
        let x = b.load(&Shown::dense(id, &ty.dims));
        let copy = self.buffer(ty.dtype, len, Source::Temp);
        b.store(&Shown::dense(copy, &ty.dims), x);
        self.emit(b.finish(), Dim::from(0));
        copy
    }

    /// Whether a size is at least zero whichever lengths the joins around have; false if that is not
    /// seen within `tries` substitutions.
    fn never_negative(&self, dim: &Dim, tries: &mut usize) -> bool {
        if dim.is_at_least(0) {
            return true;
        }
        let mut symbols = BTreeSet::new();
        dim.collect_symbols(&mut symbols);
        let Some((symbol, values)) = symbols.iter().find_map(|s| Some((s, self.lengths.get(s)?))) else { return false };
        values.iter().all(|value| {
            *tries = tries.saturating_sub(1);
            let substituted = dim.substitute(&|s| (s == symbol).then(|| value.clone()));
            *tries > 0 && self.never_negative(&substituted, tries)
        })
    }
}

/// The row symbols of a join and of the region before it.
fn rows_of(graph: &Graph, before: RegionId, join: RegionId) -> Option<[&Symbol; 2]> {
    Some([graph.region(join).rows.as_ref()?, graph.region(before).rows.as_ref()?])
}
