//! Loops whose steps change the sizes of what they carry, or give rows until data ends them: everything gets room
//! for the largest that it can be, and how much of it holds something is carried beside it.

use std::collections::BTreeSet;

use eec_ir::ops::control::MAX_STEPS;
use eec_ir::{Dim, Op, RegionId, Symbol, Type, ValueId};

use super::super::error::{Failure, NodeResult, Refusal, refuse};
use super::super::proto::NodeProto;
use super::Importer;
use super::control::Body;
use super::largest::largest;
use super::node::Cx;
use super::repeat::Round;
use super::unroll::{Trips, Turn};

/// A size that steps change: of which carried value, along which axis, and what it is at most.
struct Growing {
    value: usize,
    axis: usize,
    most: Dim,
}

/// What a loop carries beside its own values.
#[derive(Default)]
pub(super) struct Growth {
    sizes: Vec<Growing>,
    /// Whether it counts its steps.
    pub(super) counts: bool,
}

/// A value of the body and one of its axes.
type Place = (usize, usize);

impl Growth {
    /// What the loop carries in place of its own values, after `steps` steps.
    pub(super) fn packed(&self, cx: &mut Cx, own: &[ValueId], steps: ValueId) -> NodeResult<Vec<ValueId>> {
        let mut all = own.to_vec();
        let mut sizes = Vec::with_capacity(self.sizes.len());
        for Growing { value, axis, most } in &self.sizes {
            let size = cx.dims(own[*value])[*axis].clone();
            if !(most - &size).is_at_least(0) {
                // Beyond its room the run ends.
                cx.checked(&size, most.clone())?;
            }
            all[*value] = cx.filled(all[*value], *axis, most)?;
            sizes.push(size);
        }
        if !sizes.is_empty() {
            all.push(cx.emit(Op::Sizes { values: sizes }, &[])?);
        }
        all.extend(self.counts.then_some(steps));
        Ok(all)
    }

    /// The loop's own values among what it carries, as large as they are, and the number of steps if it is counted.
    pub(super) fn unpacked(&self, cx: &mut Cx, mut all: Vec<ValueId>) -> NodeResult<(Vec<ValueId>, Option<ValueId>)> {
        let steps = if self.counts { all.pop() } else { None };
        let sizes = if self.sizes.is_empty() { None } else { all.pop() };
        for (at, Growing { value, axis, most }) in self.sizes.iter().enumerate() {
            let Some(sizes) = sizes else { break };
            let size = cx.element(sizes, at)?;
            let size = cx.late_size(size, most.clone())?;
            all[*value] = cx.first(all[*value], *axis, &size)?;
        }
        Ok((all, steps))
    }
}

/// The places where a step changes a size. Element types and numbers of dims must stay.
pub(super) fn changes(before: &[Type], after: &[Type]) -> NodeResult<BTreeSet<Place>> {
    let mut changed = BTreeSet::new();
    for (value, (before, after)) in before.iter().zip(after).enumerate() {
        if before.dtype != after.dtype || before.rank() != after.rank() {
            return refuse(format!(
                "a step makes {after} of the {before} that is carried at position {value}; where data or a symbolic \
                 size decides how often it runs, element type and number of dims must stay as they are"
            ));
        }
        let axes = before.dims.iter().zip(&after.dims).enumerate().filter(|(_, (a, b))| a != b);
        changed.extend(axes.map(|(axis, _)| (value, axis)));
    }
    Ok(changed)
}

impl Importer<'_> {
    /// How often a `Loop` runs at most from step `from` on, if something tells.
    pub(super) fn most_steps(&self, trips: &Trips, from: usize) -> Option<Dim> {
        let all = match trips {
            Trips::Known(count) if *count as u64 <= MAX_STEPS => Dim::from(*count as i64),
            Trips::Known(_) | Trips::Unbounded => return None,
            Trips::Size(size) => size.clone(),
            Trips::Data(count) => largest(&self.graph, *count)?,
        };
        Some((&all - &Dim::from(from as i64)).larger(&Dim::default()))
    }

    /// How large what a loop carries can become, found by a step on values whose sizes are symbols; `None` if a node
    /// cannot be imported. What it appends is not kept.
    pub(super) fn growth(
        &mut self,
        node: &NodeProto,
        body: &Body,
        (trips, from): (&Trips, usize),
        turn: &Turn,
        mut changed: BTreeSet<Place>,
    ) -> Result<Option<Growth>, Failure> {
        let given: Vec<Type> = turn.carried.iter().map(|v| self.graph.ty(*v).clone()).collect();
        let steps = self.most_steps(trips, from);
        while !changed.is_empty() {
            let mut types = given.clone();
            let mut symbols = Vec::with_capacity(changed.len());
            for (value, axis) in &changed {
                let symbol = self.graph.fresh_symbol("step");
                types[*value].dims[*axis] = symbol.clone().into();
                symbols.push(symbol);
            }
            let known = self.graph.assumptions().len();
            let round = Round::of(&mut self.graph, &types);
            let region = round.region;
            let Some(made) = self.step_of(node, body, (trips, from), &round, round.carried.clone())? else {
                return Ok(None);
            };
            self.graph.forget_assumptions(known);
            let after: Vec<Type> = made.next.iter().map(|v| self.graph.ty(*v).clone()).collect();
            let more: BTreeSet<Place> = changes(&types, &after)?.difference(&changed).copied().collect();
            if !more.is_empty() {
                changed.extend(more);
                continue;
            }
            let mut sizes = Vec::with_capacity(changed.len());
            for ((value, axis), symbol) in changed.iter().zip(&symbols) {
                let (before, next) = (&given[*value].dims[*axis], &after[*value].dims[*axis]);
                let most = self.grown(region, &symbols, [before, &symbol.clone().into(), next], steps.as_ref());
                let most = most.ok_or_else(|| {
                    let (from, to) = (&types[*value], &after[*value]);
                    Refusal::new(format!(
                        "a step makes {to} of the {from} that is carried at position {value}, and nothing tells how \
                         large that becomes"
                    ))
                })?;
                sizes.push(Growing { value: *value, axis: *axis, most });
            }
            return Ok(Some(Growth { sizes, counts: false }));
        }
        Ok(Some(Growth::default()))
    }

    /// What a size that begins with `before` can become, if each of at most `steps` steps makes `next` of `own`.
    fn grown(
        &self,
        region: RegionId,
        symbols: &[Symbol],
        [before, own, next]: [&Dim; 3],
        steps: Option<&Dim>,
    ) -> Option<Dim> {
        let inside = self.graph.late_symbols_in(region);
        let next = self.late.most(next, &|symbol| inside.contains(symbol))?;
        let depends = |dim: &Dim| symbols.iter().any(|symbol| dim.mentions(symbol));
        if !depends(&next) {
            return Some(before.larger(&next));
        }
        if (own - &next).is_at_least(0) {
            return Some(before.clone());
        }
        let more = &next - own;
        (!depends(&more)).then(|| Some(before + &(&more.larger(&Dim::default()) * steps?)))?
    }
}
