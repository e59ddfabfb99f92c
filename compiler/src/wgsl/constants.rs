//! Which constants stand in the arena, beside buffers, instead of being bound.

use std::collections::BTreeSet;

use eec_ir::BufferId;
use eec_ir::program::{Program, Source, Step};

/// Constants of at most so many words stand in the arena: bindings are few.
const SMALL: i64 = 1 << 13;

/// Constants that a dispatch may bind: 8 storage buffers, which every adapter has, without the state, the counters
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
                Step::Run(_) | Step::Repeat(_) => {}
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
        let bound: BTreeSet<BufferId> = kernel.form.reads().into_iter().filter(is_constant).collect();
        found.extend(bound.into_iter().filter(|id| !small(id)).skip(BINDINGS));
    }
    found.into_iter().filter(is_constant).collect()
}
