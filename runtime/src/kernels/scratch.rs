//! Scratch memory of a thread: it grows to the largest need and is kept, so that kernels do not
//! allocate from run to run.

use std::cell::Cell;

/// The unit of scratch memory: one cache line, so that vectors never straddle two.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([f32; LINE]);

const LINE: usize = 16;

thread_local! {
    static FLOATS: Cell<Vec<Line>> = const { Cell::new(Vec::new()) };
    static OFFSETS: Cell<Vec<isize>> = const { Cell::new(Vec::new()) };
}

/// Calls `f` with `len` aligned floats of unspecified content.
///
/// A nested call gets memory of its own.
pub(super) fn with_floats<R>(len: usize, f: impl FnOnce(&mut [f32]) -> R) -> R {
    let mut lines = FLOATS.take();
    let need = len.div_ceil(LINE);
    if lines.len() < need {
        lines.resize(need, Line([0.0; LINE]));
    }
    let floats: *mut f32 = lines.as_mut_ptr().cast();
    // SAFETY: `need` lines are `need * LINE >= len` initialised floats, borrowed only by `f`.
    let result = f(unsafe { std::slice::from_raw_parts_mut(floats, len) });
    FLOATS.set(lines);
    result
}

/// Calls `f` with the elements of `offsets` in memory.
pub(super) fn with_offsets<R>(offsets: impl Iterator<Item = isize>, f: impl FnOnce(&[isize]) -> R) -> R {
    let mut list = OFFSETS.take();
    list.clear();
    list.extend(offsets);
    let result = f(&list);
    OFFSETS.set(list);
    result
}
