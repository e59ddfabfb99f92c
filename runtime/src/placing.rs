//! Offsets in one block of memory for things that live at different times.

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
