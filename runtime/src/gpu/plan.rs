//! What a run on the GPU needs to know about its sizes: the words of the state and of the parameters, how many
//! workgroups are started, where everything lies, and how many steps loops make.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use eec_ir::gpu::{GpuProgram, Param, Role, State};
use eec_ir::program::Program;
use eec_ir::{Dim, KernelId, Tensor};

use super::host::{HostPlan, HostStep};
use super::loops::{self, LoopPlan};
use super::memory::{Arena, Lives};
use crate::bounds::Repeats;
use crate::error::ErrorKind;
use crate::extent::{Extent, Extents};
use crate::sizes::{Kept, PlanError, Sizes};

/// What is known once the input dims are.
pub(super) struct Plan {
    /// The state when a run starts, but for the control words.
    pub(super) state: Vec<i32>,
    /// The parameters of every dispatch, at multiples of [`Fixed::stride`] words.
    pub(super) params: Vec<i32>,
    /// Workgroups of every dispatch.
    pub(super) groups: Vec<u32>,
    /// Multiply-accumulates of every dispatch.
    pub(super) macs: Vec<u64>,
    /// The loops, as [`GpuProgram::repeats`] lists them.
    pub(super) loops: Vec<LoopPlan>,
    /// The first word of every input in the arena; `None` if nothing reads it.
    pub(super) inputs: Vec<Option<usize>>,
    /// Per output its dims and its words in what is read back.
    pub(super) outputs: Vec<(Vec<usize>, Range<usize>)>,
    /// Words of all outputs.
    pub(super) output_words: usize,
    /// The place in the arena from where they are read back, behind all else.
    pub(super) output_place: usize,
    /// Words of the arena.
    pub(super) arena_words: usize,
    /// Where steps of the host find their operands.
    pub(super) host: HashMap<usize, HostPlan>,
    /// Words that steps of the host read at most.
    pub(super) host_words: usize,
}

/// The kernels that a dispatch computes.
pub(super) fn kernels(role: &Role, with: &[KernelId]) -> impl Iterator<Item = KernelId> {
    let own = match role {
        Role::Kernel(kernel) | Role::Host(kernel) => Some(*kernel),
        Role::Control | Role::Rows | Role::Output(_) => None,
    };
    own.into_iter().chain(with.to_vec())
}

/// What all plans of a session share.
#[derive(Clone, Copy)]
pub(super) struct Fixed {
    /// Words between the parameters of two dispatches.
    pub(super) stride: usize,
    /// Words that constants take at the beginning of the arena.
    pub(super) resident_words: usize,
    /// The most workgroups of a dispatch.
    pub(super) max_groups: u32,
    /// The most steps of all loops of a run.
    pub(super) step_limit: u64,
    /// The most bytes of temporary buffers.
    pub(super) memory_limit: usize,
}

/// Lanes of a workgroup at most.
const MAX_LANES: i64 = 256;

/// The largest number that a shader computes with.
const MOST: i64 = i32::MAX as i64;

/// Makes plans for one program and keeps them.
pub(super) struct Planner {
    repeats: Repeats,
    lives: Lives,
    fixed: Fixed,
    plans: Kept<Plan>,
}

impl Planner {
    pub(super) fn new(program: &Program, form: &GpuProgram, fixed: Fixed) -> Planner {
        Planner { repeats: Repeats::of(program), lives: Lives::of(program, form), fixed, plans: Kept::new() }
    }

    /// The plan for the dims of `inputs`.
    pub(super) fn plan(
        &mut self,
        program: &Program,
        form: &GpuProgram,
        resident: &[usize],
        steps: &HashMap<usize, HostStep>,
        inputs: &[Tensor],
    ) -> Result<Arc<Plan>, PlanError> {
        if let Some(found) = self.plans.find(program, inputs) {
            return Ok(found);
        }
        let sizes = Sizes::of(program, &self.repeats, inputs)?;
        let loops = loops::plan(program, form, &sizes.ranges, self.fixed.step_limit)?;
        check_sizes(program, form, &loops, &sizes.ranges, self.fixed.max_groups)?;
        let arena = Arena::new(program, form, &self.lives, &sizes, self.fixed.resident_words, resident)?;
        let plan = Plan::new(program, form, &self.fixed, (&sizes, loops), &arena, steps)?;
        if plan.arena_words.saturating_mul(4) > self.fixed.memory_limit {
            let limit = self.fixed.memory_limit;
            let why = format!("the temporary buffers need more than the limit of {limit} bytes");
            return Err(PlanError::new(ErrorKind::Memory, why));
        }
        Ok(self.plans.keep(inputs, plan))
    }
}

impl Plan {
    fn new(
        program: &Program,
        form: &GpuProgram,
        fixed: &Fixed,
        (sizes, loops): (&Sizes, Vec<LoopPlan>),
        arena: &Arena,
        steps: &HashMap<usize, HostStep>,
    ) -> Result<Plan, PlanError> {
        let hi = |dim: &Dim| Extent::of(dim, &sizes.ranges).map_or(0, |e| e.hi.max(0));
        let groups: Vec<u32> =
            form.dispatches.iter().map(|d| hi(&d.groups).clamp(1, i64::from(fixed.max_groups)) as u32).collect();
        let (mut outputs, mut output_words) = (Vec::new(), 0usize);
        for dims in &sizes.outputs {
            let first = output_words;
            output_words =
                dims.iter().try_fold(1usize, |n, d| n.checked_mul(*d)).map_or(usize::MAX, |n| first.saturating_add(n));
            outputs.push((dims.clone(), first..output_words));
        }
        let arena_words = arena.words.saturating_add(output_words);
        if i32::try_from(arena_words).is_err() {
            let why = "the temporary buffers and outputs are more than 2^31 elements";
            return Err(PlanError::new(ErrorKind::Memory, why));
        }
        let macs: Vec<u64> = form
            .dispatches
            .iter()
            .map(|d| kernels(&d.role, &d.with).map(|k| hi(&program.kernel(k).macs) as u64).sum())
            .collect();
        let host = steps.iter().map(|(at, step)| Ok((*at, step.plan(&form.dispatches[*at], &sizes.bound, arena)?)));
        let host = host.collect::<Result<HashMap<usize, HostPlan>, PlanError>>()?;
        Ok(Plan {
            state: state_words(program, form, fixed, sizes, arena, &groups)?,
            params: param_words(program, form, fixed.stride, &outputs, arena.words)?,
            macs,
            loops,
            inputs: program.inputs.iter().map(|port| arena.home(port.buffer)).collect(),
            outputs,
            output_words,
            output_place: arena.words,
            arena_words,
            host_words: host.values().map(HostPlan::words).max().unwrap_or(0),
            host,
            groups,
        })
    }
}

/// Shaders compute sizes in 32 bits, and step over their work by all lanes of a grid.
fn check_sizes(
    program: &Program,
    form: &GpuProgram,
    loops: &[LoopPlan],
    ranges: &Extents,
    max_groups: u32,
) -> Result<(), PlanError> {
    let most = MOST - i64::from(max_groups) * MAX_LANES;
    // Without steps the sizes inside are not used.
    let runs = |at: usize| !loops.iter().any(|l| l.most == 0 && l.dispatches.contains(&at));
    for (_, dispatch) in form.dispatches.iter().enumerate().filter(|(at, _)| runs(*at)) {
        let groups = Extent::of(&dispatch.groups, ranges).and_then(|e| e.hi.checked_mul(MAX_LANES));
        let too_large = dispatch.sizes.iter().find(|dim| Extent::within(dim, ranges, MOST).is_none());
        let why = match (too_large, groups.filter(|lanes| *lanes <= most)) {
            (None, Some(_)) => continue,
            (Some(dim), _) => format!("`{dim}` does not fit into the 32 bits of a GPU's sizes"),
            (None, None) => {
                format!("`{}` workgroups are more than the 32 bits of a GPU's sizes count", dispatch.groups)
            }
        };
        let kernel = kernels(&dispatch.role, &dispatch.with).next().map(|k| program.kernel(k).name.clone());
        return Err(PlanError { kind: ErrorKind::Memory, kernel, why });
    }
    Ok(())
}

/// The words of the state when a run starts; control words are 0.
fn state_words(
    program: &Program,
    form: &GpuProgram,
    fixed: &Fixed,
    sizes: &Sizes,
    arena: &Arena,
    groups: &[u32],
) -> Result<Vec<i32>, PlanError> {
    let layout = State::of(program, form);
    let mut words = vec![0i32; layout.len()];
    let fits = |n: i64, what: &dyn std::fmt::Display| {
        i32::try_from(n)
            .map_err(|_| PlanError::new(ErrorKind::Memory, format!("{what} is {n}, more than 32 bits hold")))
    };
    let symbols = form.symbols.iter().map(|s| fits(sizes.bound.get(s).map_or(0, |e| e.lo), s));
    let symbols = symbols.collect::<Result<Vec<i32>, _>>()?;
    words[layout.symbols()..][..symbols.len()].copy_from_slice(&symbols);
    // The body runs always; the other blocks wait for a decision.
    words[layout.live()] = 1;
    for (i, home) in arena.homes.iter().enumerate() {
        let home = fits(home.unwrap_or(0) as i64, &"the offset of a buffer")?;
        words[layout.offsets() + i] = home;
        words[layout.homes() + i] = home;
    }
    for (i, home) in arena.scratch.iter().enumerate() {
        words[layout.scratch() + i] = fits(*home as i64, &"the offset of a buffer")?;
    }
    words[layout.steps_left()] = i32::try_from(fixed.step_limit).unwrap_or(i32::MAX);
    words[layout.planned()..].iter_mut().zip(groups).for_each(|(word, n)| *word = *n as i32);
    Ok(words)
}

/// The parameters of all dispatches.
fn param_words(
    program: &Program,
    form: &GpuProgram,
    stride: usize,
    outputs: &[(Vec<usize>, Range<usize>)],
    output_place: usize,
) -> Result<Vec<i32>, PlanError> {
    let layout = State::of(program, form);
    let first: Vec<usize> = outputs.iter().map(|(_, words)| output_place + words.start).collect();
    let mut all = vec![0; stride * form.dispatches.len().max(1)];
    for (i, (dispatch, words)) in form.dispatches.iter().zip(all.chunks_exact_mut(stride)).enumerate() {
        for (param, word) in dispatch.params.iter().zip(words) {
            *word = layout.resolve(i, param, &first).ok_or_else(|| unresolved(i, param))?;
        }
    }
    Ok(all)
}

fn unresolved(dispatch: usize, param: &Param) -> PlanError {
    PlanError::new(ErrorKind::Program, format!("dispatch {dispatch}: {param:?} has no value"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_beyond_32_bits_are_refused() {
        let (n, range) = (Dim::symbol("n"), Extent::point(1 << 20));
        let ranges: Extents = [(eec_ir::Symbol::new("n"), range)].into_iter().collect();
        let within = |dim: &Dim| Extent::within(dim, &ranges, MOST).is_some();
        assert!(within(&(&n * &Dim::from(2047))));
        assert!(!within(&(&n * &Dim::from(2048))));
        // What overflows on the way does not fit, whatever it ends as.
        let square = &n * &n;
        assert!(!within(&(&square + &(&square * &Dim::from(-1)).larger(&Dim::from(0)))));
    }
}
