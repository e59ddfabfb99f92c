//! What a run on the GPU needs to know about its sizes: the words of the state and of the parameters, how many
//! workgroups are started, where everything lies, and where a long run is cut.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use eec_ir::gpu::{GpuProgram, Param, Role, State};
use eec_ir::program::{Form, Program};
use eec_ir::{Dim, KernelId, Tensor};

use super::memory::{Arena, Lives};
use crate::bounds::Repeats;
use crate::error::ErrorKind;
use crate::extent::{Extent, Extents};
use crate::sizes::{Kept, PlanError, Sizes};

/// A run whose kernels need more is waited for longer: the slowest adapter that is expected.
const MACS_PER_SECOND: u64 = 100_000_000;

/// What is known once the input dims are.
pub(super) struct Plan {
    /// The state when a run starts, but for the control words.
    pub(super) state: Vec<i32>,
    /// The parameters of every dispatch, at multiples of [`Fixed::stride`] words.
    pub(super) params: Vec<i32>,
    /// Workgroups of every dispatch.
    pub(super) groups: Vec<u32>,
    /// The dispatches of every submission.
    pub(super) submissions: Vec<Range<usize>>,
    /// The first word of every input in the arena; `None` if nothing reads it.
    pub(super) inputs: Vec<Option<usize>>,
    /// Per output its dims and its words in what is read back.
    pub(super) outputs: Vec<(Vec<usize>, Range<usize>)>,
    /// Words of all outputs.
    pub(super) output_words: usize,
    /// Words of the arena.
    pub(super) arena_words: usize,
    /// How long the run may take.
    pub(super) timeout: Duration,
}

/// The kernels that a dispatch computes.
pub(super) fn kernels(role: &Role, with: &[KernelId]) -> impl Iterator<Item = KernelId> {
    let own = match role {
        Role::Kernel(kernel) => Some(*kernel),
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
    /// The most multiply-accumulates of a submission.
    pub(super) submission_macs: u64,
    /// How long every run may take, besides its work.
    pub(super) patience: Duration,
    /// The most bytes of temporary buffers.
    pub(super) memory_limit: usize,
}

/// Lanes of a workgroup at most.
const MAX_LANES: i64 = 256;

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
        inputs: &[Tensor],
    ) -> Result<Arc<Plan>, PlanError> {
        if let Some(found) = self.plans.find(program, inputs) {
            return Ok(found);
        }
        let sizes = Sizes::of(program, &self.repeats, inputs)?;
        check_spaces(program, &sizes.ranges, self.fixed.max_groups)?;
        let arena = Arena::new(program, form, &self.lives, &sizes, self.fixed.resident_words, resident)?;
        if arena.words.saturating_mul(4) > self.fixed.memory_limit {
            let limit = self.fixed.memory_limit;
            let why = format!("the temporary buffers need more than the limit of {limit} bytes");
            return Err(PlanError::new(ErrorKind::Memory, why));
        }
        let plan = Plan::new(program, form, &self.fixed, &sizes, &arena)?;
        Ok(self.plans.keep(inputs, plan))
    }
}

impl Plan {
    fn new(
        program: &Program,
        form: &GpuProgram,
        fixed: &Fixed,
        sizes: &Sizes,
        arena: &Arena,
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
        if i32::try_from(output_words).is_err() {
            return Err(PlanError::new(ErrorKind::Memory, "the outputs are more than 2^31 elements"));
        }
        let macs: Vec<u64> = form
            .dispatches
            .iter()
            .map(|d| kernels(&d.role, &d.with).map(|k| hi(&program.kernel(k).macs) as u64).sum())
            .collect();
        let total: u64 = macs.iter().fold(0, |sum, m| sum.saturating_add(*m));
        Ok(Plan {
            state: state_words(program, form, sizes, arena, &groups)?,
            params: param_words(program, form, fixed.stride, &outputs)?,
            submissions: cut(&macs, fixed.submission_macs),
            inputs: program.inputs.iter().map(|port| arena.home(port.buffer)).collect(),
            outputs,
            output_words,
            arena_words: arena.words,
            timeout: fixed.patience + Duration::from_secs(total / MACS_PER_SECOND),
            groups,
        })
    }
}

/// Shaders count the indices of a loop in 32 bits, and step over them by all lanes of a grid.
fn check_spaces(program: &Program, ranges: &Extents, max_groups: u32) -> Result<(), PlanError> {
    let most = i64::from(i32::MAX) - i64::from(max_groups) * MAX_LANES;
    for kernel in &program.kernels {
        let Form::Loop(form) = &kernel.form else { continue };
        let mut sizes = form.dims.iter().chain(&form.inner).map(|d| Extent::of(d, ranges).map_or(0, |e| e.hi.max(0)));
        let space = sizes.try_fold(1i64, |n, size| n.checked_mul(size));
        if space.is_none_or(|n| n > most) {
            let why = format!("the index space has more than {most} elements");
            return Err(PlanError { kind: ErrorKind::Memory, kernel: Some(kernel.name.clone()), why });
        }
    }
    Ok(())
}

/// The words of the state when a run starts; control words are 0.
fn state_words(
    program: &Program,
    form: &GpuProgram,
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
    if !symbols.is_empty() {
        let logs = &mut words[layout.logs()..layout.planned()];
        logs.chunks_exact_mut(symbols.len()).for_each(|log| log.copy_from_slice(&symbols));
    }
    words[layout.planned()..].iter_mut().zip(groups).for_each(|(word, n)| *word = *n as i32);
    Ok(words)
}

/// The parameters of all dispatches.
fn param_words(
    program: &Program,
    form: &GpuProgram,
    stride: usize,
    outputs: &[(Vec<usize>, Range<usize>)],
) -> Result<Vec<i32>, PlanError> {
    let layout = State::of(program, form);
    let first: Vec<usize> = outputs.iter().map(|(_, words)| words.start).collect();
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

/// Cuts dispatches with so much work into submissions of at most `limit`, or of one dispatch.
fn cut(macs: &[u64], limit: u64) -> Vec<Range<usize>> {
    let (mut cuts, mut start, mut sum) = (Vec::new(), 0, 0u64);
    for (i, n) in macs.iter().enumerate() {
        sum = sum.saturating_add(*n);
        if sum > limit && i > start {
            cuts.push(start..i);
            (start, sum) = (i, *n);
        }
    }
    cuts.push(start..macs.len());
    cuts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_runs_are_cut_and_short_ones_are_not() {
        let cuts = |macs: &[u64], limit| cut(macs, limit).into_iter().map(|r| (r.start, r.end)).collect::<Vec<_>>();
        assert_eq!(cuts(&[5, 5, 5], 100), [(0, 3)]);
        assert_eq!(cuts(&[5, 0, 6, 5, 20, 1], 11), [(0, 3), (3, 4), (4, 5), (5, 6)]);
        assert_eq!(cuts(&[], 1), [(0, 0)]);
    }
}
