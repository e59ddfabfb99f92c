//! Offsets in one block of memory for things that live at different times, and which buffers of a program may stand
//! for others, which then live as long.

use eec_ir::BufferId;
use eec_ir::program::{BlockId, Program, RowBuffer, Step};

/// When something is touched first and last.
pub(crate) type Life = (u32, u32);

/// Places things of these sizes and lives at multiples of `align`, large ones first, where no living one is.
/// Gives their offsets and the end of the last one; `None` on overflow.
pub(crate) fn place(things: &[(usize, Life)], align: usize) -> Option<(Vec<usize>, usize)> {
    let mut order: Vec<usize> = (0..things.len()).collect();
    order.sort_by_key(|i| (std::cmp::Reverse(things[*i].0), *i));
    let mut offsets = vec![0; things.len()];
    let mut placed: Vec<(usize, usize, Life)> = Vec::new();
    let mut total = 0;
    for i in order {
        let (size, life) = things[i];
        let size = size.max(1).checked_next_multiple_of(align)?;
        let offset = first_gap(&placed, size, life);
        let end = offset.checked_add(size)?;
        offsets[i] = offset;
        total = total.max(end);
        let at = placed.partition_point(|p| p.0 < offset);
        placed.insert(at, (offset, end, life));
    }
    Some((offsets, total))
}

/// The lowest offset where `size` units are free during `life`; `placed` is sorted by offset.
fn first_gap(placed: &[(usize, usize, Life)], size: usize, life: Life) -> usize {
    let mut offset = 0usize;
    for (start, end, other) in placed {
        let together = life.0 <= other.1 && other.0 <= life.1;
        if !together {
            continue;
        }
        if offset.saturating_add(size) <= *start {
            break;
        }
        offset = offset.max(*end);
    }
    offset
}

/// What a name may stand for lives as long as the name.
pub(crate) fn extend_aliased(lives: &mut [Option<Life>], program: &Program) {
    let aliases = aliases(program);
    let mut changed = true;
    while changed {
        changed = false;
        // Names of what comes later stand later in the list.
        for (name, target) in aliases.iter().rev() {
            let Some((_, until)) = lives[name.index()] else { continue };
            if let Some(life) = &mut lives[target.index()]
                && life.1 < until
            {
                life.1 = until;
                changed = true;
            }
        }
    }
}

/// Buffers that may stand for another one: (name, target).
fn aliases(program: &Program) -> Vec<(BufferId, BufferId)> {
    let mut aliases = Vec::new();
    let yields = |id: &BlockId| &program.block(*id).yields;
    let given = |names: &[Option<BufferId>], targets: &[BufferId]| -> Vec<(BufferId, BufferId)> {
        names.iter().zip(targets).filter_map(|(name, target)| Some(((*name)?, *target))).collect()
    };
    for step in program.blocks.iter().flat_map(|block| &block.steps) {
        match step {
            Step::Run(_) | Step::Size(_) => {}
            Step::If(step) => {
                for id in [step.then, step.other] {
                    aliases.extend(step.results.iter().copied().zip(yields(&id).iter().copied()));
                }
            }
            Step::Route(step) => {
                let buffers = |rows: &[RowBuffer]| rows.iter().map(|r| r.buffer).collect::<Vec<_>>();
                let (operands, results) = (buffers(&step.operands), buffers(&step.results));
                let sides = [step.then, step.other];
                let mut ends = sides.to_vec();
                for id in sides {
                    aliases.extend(given(&program.block(id).params, &operands));
                }
                if let Some(join) = &step.join {
                    for id in sides {
                        aliases.extend(given(&program.block(join.block).params, yields(&id)));
                    }
                    ends = vec![join.block];
                }
                for id in ends {
                    aliases.extend(results.iter().copied().zip(yields(&id).iter().copied()));
                }
            }
            // What is carried goes in turn to the memory of the parameter and of the result.
            Step::Repeat(step) => {
                let params = program.block(step.body).params.iter().skip(1);
                for ((result, first), param) in step.results.iter().zip(&step.carried).zip(params) {
                    aliases.push((*result, *first));
                    if let Some(param) = *param {
                        aliases.extend([(param, *first), (param, *result), (*result, param)]);
                    }
                }
            }
        }
    }
    aliases
}
