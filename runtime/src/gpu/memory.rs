//! Where buffers lie in the arena of a GPU: when each is needed, over the order of the dispatches, and words
//! that no other needs at that time.

use eec_ir::BufferId;
use eec_ir::gpu::{GpuProgram, Param, Repeat};
use eec_ir::program::{Program, Source};

use super::loops;
use crate::error::ErrorKind;
use crate::extent::Extent;
use crate::placing::{Life, extend_aliased, place};
use crate::sizes::{PlanError, Sizes};

/// Buffers start at multiples of this many words.
const ALIGN: usize = 16;

/// When the things in the arena are needed, in dispatches; it does not depend on sizes.
pub(super) struct Lives {
    buffers: Vec<Option<Life>>,
    scratch: Vec<Option<Life>>,
}

impl Lives {
    pub(super) fn of(program: &Program, form: &GpuProgram) -> Lives {
        let mut lives = Lives { buffers: vec![None; program.buffers.len()], scratch: vec![None; form.scratch.len()] };
        for (now, dispatch) in form.dispatches.iter().enumerate() {
            for param in &dispatch.params {
                let life = match param {
                    Param::Offset(buffer) | Param::Home(buffer) => lives.buffers.get_mut(buffer.index()),
                    Param::Scratch(i) => lives.scratch.get_mut(*i as usize),
                    _ => None,
                };
                if let Some(life) = life {
                    life.get_or_insert((now as u32, now as u32)).1 = now as u32;
                }
            }
        }
        // Inputs are written before anything runs.
        let inputs = program.inputs.iter().map(|port| port.buffer);
        inputs.for_each(|b| lives.buffers[b.index()].iter_mut().for_each(|life| life.0 = 0));
        form.repeats.iter().for_each(|repeat| lives.keep(program, repeat));
        extend_aliased(&mut lives.buffers, program);
        lives
    }

    /// Keeps what every step of a loop needs: what was made before it, and the rows that the steps before wrote.
    fn keep(&mut self, program: &Program, repeat: &Repeat) {
        let (first, last) = (repeat.dispatches.start, repeat.dispatches.end - 1);
        for row in loops::step_of(program, repeat).into_iter().flat_map(|step| &step.rows) {
            let life = self.buffers[row.buffer.index()].get_or_insert((first, last));
            *life = (life.0.min(first), life.1.max(last));
        }
        for (made, until) in self.buffers.iter_mut().chain(&mut self.scratch).flatten() {
            if *made < first && *until >= first {
                *until = last.max(*until);
            }
        }
    }
}

/// Offsets in words of everything in the arena.
pub(super) struct Arena {
    /// Per buffer; `None` if it is bound by itself or nothing needs it.
    pub(super) homes: Vec<Option<usize>>,
    /// Per scratch.
    pub(super) scratch: Vec<usize>,
    /// Words in all.
    pub(super) words: usize,
}

impl Arena {
    /// Places what lives; the constants of [`GpuProgram::resident`] stand at `resident`, in the first
    /// `resident_words` words.
    pub(super) fn new(
        program: &Program,
        form: &GpuProgram,
        lives: &Lives,
        sizes: &Sizes,
        resident_words: usize,
        resident: &[usize],
    ) -> Result<Arena, PlanError> {
        let constant = |i: usize| matches!(program.buffers[i].source, Source::Constant(_));
        let placed: Vec<(usize, Life)> =
            (0..program.buffers.len()).filter(|i| !constant(*i)).filter_map(|i| Some((i, lives.buffers[i]?))).collect();
        let mut things: Vec<(usize, Life)> =
            placed.iter().map(|(i, life)| (sizes.capacity[*i] as usize, *life)).collect();
        for (dim, life) in form.scratch.iter().zip(&lives.scratch) {
            let words = Extent::of(dim, &sizes.ranges).and_then(|e| usize::try_from(e.hi).ok());
            let words = words
                .ok_or_else(|| PlanError::new(ErrorKind::Program, format!("scratch has no usable size: `{dim}`")))?;
            things.push((words, life.unwrap_or_default()));
        }
        let too_large = || PlanError::new(ErrorKind::Memory, "the temporary buffers are too large to be placed");
        let first = resident_words.next_multiple_of(ALIGN);
        let (offsets, words) = place(&things, ALIGN).ok_or_else(too_large)?;
        let mut offsets = offsets.into_iter().map(|offset| first + offset);
        let mut homes = vec![None; program.buffers.len()];
        placed.iter().zip(&mut offsets).for_each(|((i, _), offset)| homes[*i] = Some(offset));
        form.resident.iter().zip(resident).for_each(|(buffer, offset)| homes[buffer.index()] = Some(*offset));
        let words = first.checked_add(words).filter(|w| i32::try_from(*w).is_ok()).ok_or_else(too_large)?;
        Ok(Arena { homes, scratch: offsets.collect(), words })
    }

    /// The first word of a buffer.
    pub(super) fn home(&self, buffer: BufferId) -> Option<usize> {
        self.homes[buffer.index()]
    }
}
