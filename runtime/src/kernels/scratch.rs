//! Scratch memory of a thread: it grows to the largest need and is kept, so that kernels do not
//! allocate from run to run.

use std::cell::Cell;
use std::panic::resume_unwind;

/// The unit of scratch memory: one cache line, so that vectors never straddle two.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([f32; LINE]);

const LINE: usize = 16;

thread_local! {
    static SCORES: Cell<Vec<Line>> = const { Cell::new(Vec::new()) };
    static FLOATS: Cell<Vec<Line>> = const { Cell::new(Vec::new()) };
    static VALUES: Cell<Vec<Line>> = const { Cell::new(Vec::new()) };
    static OFFSETS: Cell<Vec<isize>> = const { Cell::new(Vec::new()) };
}

/// What a kernel unwinds with when the system has no memory for its scratch.
///
/// A kernel's caller turns it into an error; an allocation that fails in `Vec` would end the process.
pub(crate) struct NoMemory;

/// Makes room for `more` elements.
fn reserve<T>(list: &mut Vec<T>, more: usize) {
    if list.try_reserve(more).is_err() {
        resume_unwind(Box::new(NoMemory));
    }
}

/// Calls `f` with `len` aligned floats of unspecified content.
///
/// A nested call gets memory of its own. Without memory it unwinds with [`NoMemory`].
pub(super) fn with_floats<R>(len: usize, f: impl FnOnce(&mut [f32]) -> R) -> R {
    FLOATS.with(|kept| lent(kept, len, f))
}

/// [`with_floats`] for a kernel inside which others run that need scratch themselves.
pub(super) fn with_scores<R>(len: usize, f: impl FnOnce(&mut [f32]) -> R) -> R {
    SCORES.with(|kept| lent(kept, len, f))
}

/// [`with_floats`] for what runs inside a kernel that has scratch of its own and runs inside none.
pub(super) fn with_values<R>(len: usize, f: impl FnOnce(&mut [f32]) -> R) -> R {
    VALUES.with(|kept| lent(kept, len, f))
}

fn lent<R>(kept: &Cell<Vec<Line>>, len: usize, f: impl FnOnce(&mut [f32]) -> R) -> R {
    let mut lines = kept.take();
    let need = len.div_ceil(LINE);
    if lines.len() < need {
        let more = need - lines.len();
        reserve(&mut lines, more);
        lines.resize(need, Line([0.0; LINE]));
    }
    let floats: *mut f32 = lines.as_mut_ptr().cast();
    // SAFETY: `need` lines are `need * LINE >= len` initialised floats, borrowed only by `f`.
    let result = f(unsafe { std::slice::from_raw_parts_mut(floats, len) });
    kept.set(lines);
    result
}

/// Calls `f` with the elements of `offsets` in memory; unwinds as [`with_floats`] does.
pub(super) fn with_offsets<R>(offsets: impl ExactSizeIterator<Item = isize>, f: impl FnOnce(&[isize]) -> R) -> R {
    let mut list = OFFSETS.take();
    list.clear();
    reserve(&mut list, offsets.len());
    list.extend(offsets);
    let result = f(&list);
    OFFSETS.set(list);
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_memory_the_caller_learns_of_it() {
        let refused = std::panic::catch_unwind(|| with_floats(usize::MAX / 8, |floats| floats.len()));
        assert!(refused.is_err_and(|why| why.is::<NoMemory>()));
        assert_eq!(with_floats(3, |floats| floats.len()), 3);
    }
}
