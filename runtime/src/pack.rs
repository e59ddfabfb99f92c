//! Weights in the order in which the kernels read them, packed once when a program is loaded.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use eec_ir::program::{Form, MatMul, Program, Source};
use eec_ir::{DType, Precision, Tensor};

use crate::kernels::Strided;
use crate::kernels::narrow::{self, Matrix, packed_len};
use crate::pages::Pages;
use crate::pool::Pool;

/// Where a matrix lies in a constant: constant, offset, strides, k and n; and how it is packed.
type Place = (u32, i64, i64, i64, i64, i64, Precision);

/// Packed weights, and for every kernel which of them it uses.
pub(crate) struct Packed {
    pub(crate) weights: Weights,
    pub(crate) of_kernel: Vec<Option<usize>>,
}

/// Packed matrices, one after the other.
pub(crate) struct Weights {
    memory: Pages,
    parts: Vec<(Range<usize>, Precision)>,
}

impl Weights {
    /// The matrix with this number, and how it is packed.
    pub(crate) fn get(&self, index: usize) -> Option<(&[f32], Precision)> {
        let (part, precision) = self.parts.get(index)?;
        Some((self.memory.floats().get(part.clone())?, *precision))
    }
}

/// Packs every matrix that is a part of a constant and the same for the whole batch; `None` if there is
/// no memory for them.
pub(crate) fn pack(program: &Program, constants: &[Tensor], pool: &Pool) -> Option<Packed> {
    let mut known: HashMap<Place, usize> = HashMap::new();
    let mut places: Vec<Place> = Vec::new();
    let mut of_kernel = Vec::with_capacity(program.kernels.len());
    for kernel in &program.kernels {
        let place = match &kernel.form {
            Form::MatMul(form) => place(program, constants, form),
            Form::Attention(_) | Form::Loop(_) | Form::Conv(_) | Form::Pool(_) | Form::Scan(_) => None,
        };
        of_kernel.push(place.map(|place| {
            *known.entry(place).or_insert_with(|| {
                places.push(place);
                places.len() - 1
            })
        }));
    }
    Some(Packed { weights: pack_all(&places, constants, pool)?, of_kernel })
}

/// Packs the matrices at `places` one after the other.
fn pack_all(places: &[Place], constants: &[Tensor], pool: &Pool) -> Option<Weights> {
    let mut parts = Vec::with_capacity(places.len());
    let mut end = 0usize;
    for (.., k, n, precision) in places {
        let start = end;
        end = start.checked_add(packed_len(*precision, *k as usize, *n as usize)?)?;
        parts.push((start..end, *precision));
    }
    let mut memory = Pages::new(end.checked_mul(size_of::<f32>())?)?;
    let mut rest = memory.floats_mut();
    let mut slots = Vec::with_capacity(places.len());
    for (part, _) in &parts {
        let (slot, after) = rest.split_at_mut(part.len());
        slots.push(Mutex::new(slot));
        rest = after;
    }
    pool.run(places.len(), 1, &|range| {
        for i in range {
            pack_one(&places[i], constants, &mut slots[i].lock().unwrap_or_else(PoisonError::into_inner));
        }
    });
    Some(Weights { memory, parts })
}

/// The place of a product's second operand, if it is a matrix inside a constant.
fn place(program: &Program, constants: &[Tensor], form: &MatMul) -> Option<Place> {
    let Source::Constant(constant) = program.buffer(form.b.buffer).source else { return None };
    let axes = form.batch.len();
    if form.b.strides[..axes].iter().any(|s| s.as_const() != Some(0)) {
        return None;
    }
    let (row, column) = (form.b.strides[axes].as_const()?, form.b.strides[axes + 1].as_const()?);
    let (offset, k, n) = (form.b.offset.as_const()?, form.k.as_const()?, form.n.as_const()?);
    let tensor = constants.get(constant as usize).filter(|t| t.dtype() == DType::F32)?;
    if k < 1 || n < 1 || offset < 0 {
        return None;
    }
    let reach = |steps: i64, stride: i64| (steps - 1).checked_mul(stride);
    let (rows, columns) = (reach(k, row)?, reach(n, column)?);
    let low = offset.checked_add(rows.min(0))?.checked_add(columns.min(0))?;
    let high = offset.checked_add(rows.max(0))?.checked_add(columns.max(0))?;
    let inside = low >= 0 && usize::try_from(high).is_ok_and(|h| h < tensor.len());
    // A matrix that repeats elements may be far larger than its constant: it stays as it is.
    let dense = usize::try_from(k.checked_mul(n)?).is_ok_and(|e| e <= tensor.len());
    (inside && dense).then_some((constant, offset, row, column, k, n, form.weights))
}

fn pack_one(place: &Place, constants: &[Tensor], packed: &mut [f32]) {
    let (constant, offset, row, column, k, n, precision) = *place;
    let Some(source) = constants[constant as usize].elements::<f32>() else { return };
    let ptr = source.as_ptr().wrapping_add(offset as usize);
    let source = Matrix::F32(Strided { ptr, row: row as isize, column: column as isize });
    // SAFETY: `place` checked that every element is inside the constant, and the length is `packed_len`.
    unsafe { narrow::pack(&source, precision, k as usize, n as usize, packed) };
}
