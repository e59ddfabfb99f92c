//! Epilogues: a chain of elementwise steps over a block of C that is still in cache. Each step is one
//! precompiled pass over a few rows, whose values wait in scratch memory for the steps that need them.
//!
//! A step makes the same operation of an element as the code of a loop does, so that a value does not
//! depend on where it is computed.

mod link;
mod pass;

use std::ops::Range;

pub(super) use self::link::{Clip, Link, Links};
pub(crate) use self::link::{Join, MAX_LINKS};
pub(crate) use self::pass::Operation;
pub(super) use self::pass::{Add, Max, Min, Pair, Pass, pass};
use super::Strided;
use super::math::Function;
use super::scratch::with_values;
use super::simd::Isa;

/// Elements that go through all steps before the next ones do: they and the values of some steps stay in
/// the nearest cache.
const CHUNK: usize = 1024;

/// Where a step finds an operand.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) enum Place {
    /// The finished elements, in C.
    Sum,
    /// An operand of the epilogue.
    Operand(usize),
    /// What an earlier step left in scratch memory.
    Slot(usize),
    Const(f32),
}

/// What makes a step's result of its operands.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Make {
    Pass(Operation),
    /// Of the first operand.
    Call(Function),
}

/// One step over all elements.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Step {
    pub(crate) make: Make,
    pub(crate) operands: [Place; 2],
    /// The slot of the result; `None` for the last step, which writes to C.
    pub(crate) to: Option<usize>,
}

/// The steps of an epilogue, in order.
#[derive(Clone, Debug)]
pub(crate) struct Steps {
    pub(crate) steps: Vec<Step>,
    /// More than the largest slot.
    pub(crate) slots: usize,
    /// Operands of the epilogue.
    pub(crate) operands: usize,
    /// The same as a chain of values that join the sums, [`MAX_LINKS`] at most, if it is one.
    pub(crate) links: Option<Vec<(Join, Place)>>,
}

/// An operand of an epilogue, element by element over the result: where product (0, 0, 0) of a batch finds
/// it, and the elements from one product to the next. Its column stride is 0 or 1.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Operand {
    pub(crate) matrix: Strided,
    pub(crate) batch: [isize; 3],
}

impl Operand {
    /// The matrix of a product.
    fn of(&self, batch: [usize; 3]) -> Strided {
        let product: isize = batch.iter().zip(self.batch).map(|(&i, stride)| i as isize * stride).sum();
        Strided { ptr: self.matrix.ptr.wrapping_offset(product), ..self.matrix }
    }
}

/// The epilogue of a call.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Finish<'a> {
    pub(crate) steps: &'a Steps,
    /// As many as the steps say.
    pub(crate) operands: &'a [Operand],
}

/// A block of finished elements.
pub(super) struct Block {
    /// The product of the batch.
    pub(super) batch: [usize; 3],
    pub(super) rows: Range<usize>,
    pub(super) columns: Range<usize>,
    /// The block's first element.
    pub(super) c: *mut f32,
    pub(super) c_row: isize,
}

impl Finish<'_> {
    /// What joins the sums of a product in registers.
    pub(super) fn links(&self, batch: [usize; 3]) -> Links {
        let link = |(join, place): &(Join, Place)| {
            let other = match place {
                Place::Const(x) => Strided { ptr: x, row: 0, column: 0 },
                Place::Operand(index) => self.operands[*index].of(batch),
                Place::Sum | Place::Slot(_) => return None,
            };
            Some(Link { join: *join, other })
        };
        let (joins, clip) = Clip::split(self.steps.links.as_deref().unwrap_or_default());
        Links::of(joins.iter().filter_map(link), clip)
    }

    /// Replaces the elements of a block, unless links did.
    ///
    /// # Safety
    ///
    /// The block is inside C, and nobody else touches it; the operands are readable where it is.
    pub(super) unsafe fn apply(&self, isa: &Isa, block: &Block) {
        if self.steps.links.is_none() {
            // SAFETY: the caller's promise.
            unsafe { self.apply_all(isa, block) };
        }
    }

    /// Replaces the elements of a block to which no links were applied.
    ///
    /// # Safety
    ///
    /// As for [`Finish::apply`].
    pub(super) unsafe fn apply_all(&self, isa: &Isa, block: &Block) {
        let (mut rows, mut columns) = (block.rows.len(), block.columns.len());
        if self.is_one_run(block) {
            (rows, columns) = (1, rows * columns);
        }
        let width = columns.min(CHUNK);
        let height = (CHUNK / width.max(1)).min(rows);
        let slot = width * height;
        with_values(self.steps.slots * slot, |slots| {
            for row in (0..rows).step_by(height.max(1)) {
                for column in (0..columns).step_by(width.max(1)) {
                    let (height, width) = (height.min(rows - row), width.min(columns - column));
                    let part =
                        Part { finish: self, block, row, column, height, width, slots: slots.as_mut_ptr(), slot };
                    // SAFETY: the part is inside the block, and the slots are as large as it.
                    self.steps.steps.iter().for_each(|step| unsafe { part.step(isa, step) });
                }
            }
        });
    }

    /// Whether the rows of a block follow each other without gaps, in C and in all operands.
    fn is_one_run(&self, block: &Block) -> bool {
        let columns = block.columns.len() as isize;
        let run = |o: &Operand| o.matrix.row == columns * o.matrix.column;
        block.c_row == columns && self.operands.iter().all(run)
    }
}

/// A part of a block, counted from the block's first element.
struct Part<'a> {
    finish: &'a Finish<'a>,
    block: &'a Block,
    row: usize,
    column: usize,
    height: usize,
    width: usize,
    slots: *mut f32,
    /// Elements from one slot to the next.
    slot: usize,
}

impl Part<'_> {
    /// # Safety
    ///
    /// As for [`Finish::apply`]; the slots hold what the steps before left.
    unsafe fn step(&self, isa: &Isa, step: &Step) {
        let (to, to_row) = match step.to {
            Some(slot) => (self.slots.wrapping_add(slot * self.slot), self.width as isize),
            None => (self.c(), self.block.c_row),
        };
        let [a, b] = [self.place(&step.operands[0]), self.place(&step.operands[1])];
        let (rows, columns) = (self.height, self.width);
        // SAFETY: the part's elements are valid in C, in the operands and in the slots.
        unsafe {
            match step.make {
                Make::Pass(operation) => (isa.pass)(&Pass { operation, rows, columns, a, b, to, to_row }),
                Make::Call(function) => {
                    if a.ptr != to {
                        (isa.pass)(&Pass { operation: Operation::Copy, rows, columns, a, b: a, to, to_row });
                    }
                    for_each_run(to, to_row, rows, columns, |values| (isa.apply)(function, values));
                }
            }
        }
    }

    /// The part's first element of C.
    fn c(&self) -> *mut f32 {
        self.block.c.wrapping_offset(self.row as isize * self.block.c_row + self.column as isize)
    }

    fn place(&self, place: &Place) -> Strided {
        match place {
            Place::Sum => Strided { ptr: self.c(), row: self.block.c_row, column: 1 },
            Place::Slot(slot) => {
                let ptr = self.slots.wrapping_add(slot * self.slot);
                Strided { ptr, row: self.width as isize, column: 1 }
            }
            Place::Const(x) => Strided { ptr: x, row: 0, column: 0 },
            Place::Operand(index) => {
                let matrix = self.finish.operands[*index].of(self.block.batch);
                matrix.at(self.block.rows.start, self.block.columns.start).at(self.row, self.column)
            }
        }
    }
}

/// Calls `f` with the elements of rows, all at once if nothing lies between them.
///
/// # Safety
///
/// `rows` rows of `columns` elements are writable at `first`, `stride` apart.
unsafe fn for_each_run(first: *mut f32, stride: isize, rows: usize, columns: usize, mut f: impl FnMut(&mut [f32])) {
    let dense = stride == columns as isize;
    let (rows, columns) = if dense { (1, rows * columns) } else { (rows, columns) };
    for row in 0..rows {
        // SAFETY: the row is one of the caller's.
        f(unsafe { std::slice::from_raw_parts_mut(first.offset(row as isize * stride), columns) });
    }
}

#[cfg(test)]
pub(super) mod tests;
