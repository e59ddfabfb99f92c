//! Loops of a run: how many of their steps are recorded, and whether the host knows that all of them are made.

use std::ops::Range;

use eec_ir::gpu::{GpuProgram, Repeat};
use eec_ir::program::{BlockId, Program, RepeatStep, Step};

use crate::error::ErrorKind;
use crate::extent::{Extent, Extents};
use crate::sizes::PlanError;

/// A loop of the list of dispatches.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct LoopPlan {
    /// The dispatches of a step.
    pub(super) dispatches: Range<usize>,
    /// The block whose live word says whether it goes on.
    pub(super) body: usize,
    /// Steps at most.
    pub(super) most: u64,
    /// Whether it makes all of them, whatever is decided on the device.
    pub(super) certain: bool,
}

/// The loop that a part of the list repeats.
pub(super) fn step_of<'p>(program: &'p Program, repeat: &Repeat) -> Option<&'p RepeatStep> {
    program.blocks.iter().flat_map(|block| &block.steps).find_map(|step| match step {
        Step::Repeat(step) => (step.body == repeat.body).then_some(step),
        Step::Run(_) | Step::If(_) | Step::Route(_) | Step::Size(_) => None,
    })
}

/// The loops for symbols of these ranges, which make at most so many steps together.
pub(super) fn plan(
    program: &Program,
    form: &GpuProgram,
    ranges: &Extents,
    step_limit: u64,
) -> Result<Vec<LoopPlan>, PlanError> {
    let mut loops: Vec<LoopPlan> = Vec::with_capacity(form.repeats.len());
    for repeat in &form.repeats {
        let missing = || PlanError::new(ErrorKind::Program, "a loop has no usable number of steps");
        let step = step_of(program, repeat).ok_or_else(missing)?;
        let trips = step.trips.as_ref().map(|trips| Extent::of(trips, ranges).ok_or_else(missing)).transpose()?;
        let most = trips.map_or(u64::MAX, |t| u64::try_from(t.hi).unwrap_or(0));
        let dispatches = repeat.dispatches.start as usize..repeat.dispatches.end as usize;
        let owner = form.dispatches[dispatches.start - 1].block;
        let reached = owner == BlockId(0) || is_body_of_certain(&loops, owner, dispatches.start);
        let exact = step.condition.is_none() && trips.is_some_and(|t| t.lo == t.hi);
        let body = repeat.body.0 as usize;
        loops.push(LoopPlan { dispatches, body, most: most.min(step_limit), certain: exact && reached });
    }
    Ok(loops)
}

/// Whether a block is the body of a loop around dispatch `at` that makes all of its steps.
fn is_body_of_certain(loops: &[LoopPlan], block: BlockId, at: usize) -> bool {
    loops.iter().any(|l| l.certain && l.body == block.0 as usize && l.dispatches.contains(&at))
}
