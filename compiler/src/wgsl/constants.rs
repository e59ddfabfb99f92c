//! Which constants stand in the arena, beside buffers, and how the others are bound.

use std::collections::BTreeSet;

use eec_ir::gpu::GpuProgram;
use eec_ir::program::{Form, MatMul, Program, Source, Step};
use eec_ir::{BufferId, Precision};

/// Constants of at most so many words stand in the arena: bindings are few.
const SMALL: i64 = 1 << 13;

/// Bindings that constants of a dispatch may take: 8 storage buffers, which every adapter has, without the state, the counters
/// and the arena.
pub(super) const BINDINGS: usize = 5;

/// The constants that must have an offset, because something may stand for them, and those that are small or too
/// many for their kernel's bindings.
pub(super) fn resident(program: &Program) -> BTreeSet<BufferId> {
    let mut found = BTreeSet::new();
    found.extend(program.outputs.iter().map(|port| port.buffer));
    for block in &program.blocks {
        found.extend(&block.yields);
        for step in &block.steps {
            match step {
                Step::Run(_) | Step::Size(_) => {}
                Step::Repeat(step) => found.extend(step.condition.iter().chain(&step.carried)),
                Step::If(step) => found.extend([step.condition]),
                Step::Route(step) => {
                    found.extend([step.mask]);
                    found.extend(step.operands.iter().map(|o| o.buffer));
                }
            }
        }
    }
    let small = |id: &BufferId| program.buffer(*id).len.as_const().is_some_and(|n| n <= SMALL);
    found.extend((0..program.buffers.len()).map(BufferId::new).filter(small));
    let is_constant = |id: &BufferId| matches!(program.buffer(*id).source, Source::Constant(_));
    for kernel in &program.kernels {
        if matches!(kernel.form, Form::Host(_)) {
            continue;
        }
        let bound: BTreeSet<BufferId> = kernel.form.reads().into_iter().filter(is_constant).collect();
        let mut bound: Vec<BufferId> = bound.into_iter().filter(|id| !small(id)).collect();
        bound.sort_by_key(|id| std::cmp::Reverse(program.buffer(*id).len.as_const()));
        found.extend(bound.into_iter().skip(BINDINGS));
    }
    found.into_iter().filter(is_constant).collect()
}

/// The constants that are bound as halves: all that is done with them is to multiply by them as weights of 16 bits.
pub(super) fn halves(program: &Program, resident: &BTreeSet<BufferId>) -> Vec<u32> {
    let constant = |id: &BufferId| match program.buffer(*id).source {
        Source::Constant(constant) => Some(constant),
        Source::Input(_) | Source::Temp | Source::Param | Source::Result => None,
    };
    let (mut found, mut others) = (BTreeSet::new(), BTreeSet::new());
    others.extend(resident.iter().filter_map(constant));
    for kernel in &program.kernels {
        let weights = match &kernel.form {
            Form::MatMul(MatMul { weights: Precision::F16, b, .. }) => Some(b.buffer),
            _ => None,
        };
        let mut read = kernel.form.reads();
        if let Some(at) = read.iter().position(|id| Some(*id) == weights) {
            found.extend(constant(&read.swap_remove(at)));
        }
        others.extend(read.iter().filter_map(constant));
    }
    found.difference(&others).copied().collect()
}

/// Bindings that these buffers take, those of constants that are bound.
pub(super) fn bindings(gpu: &GpuProgram, program: &Program, buffers: impl IntoIterator<Item = BufferId>) -> usize {
    let bound = |id: BufferId| match program.buffer(id).source {
        Source::Constant(constant) if !gpu.resident.contains(&id) => Some(constant),
        _ => None,
    };
    let constants: BTreeSet<u32> = buffers.into_iter().filter_map(bound).collect();
    constants.into_iter().map(|constant| gpu.pieces(program, constant)).sum()
}
