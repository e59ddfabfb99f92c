//! Weights in the order in which the kernels read them, packed once when a program is loaded.

use std::collections::HashMap;

use eec_ir::program::{Form, MatMul, Program, Source};
use eec_ir::{DType, Tensor};

use crate::kernels::Strided;
use crate::kernels::matmul::{pack_b, packed_len};
use crate::pool::Pool;

/// Where a matrix lies in a constant: constant, offset, strides, k and n.
type Place = (u32, i64, i64, i64, i64, i64);

/// Packed weights, and for every kernel which of them it uses.
pub(crate) struct Packed {
    pub(crate) weights: Vec<Vec<f32>>,
    pub(crate) of_kernel: Vec<Option<usize>>,
}

/// Packs every matrix that is a part of a constant and the same for the whole batch.
pub(crate) fn pack(program: &Program, constants: &[Tensor], pool: &Pool) -> Packed {
    let mut known: HashMap<Place, usize> = HashMap::new();
    let mut places: Vec<Place> = Vec::new();
    let mut of_kernel = Vec::with_capacity(program.kernels.len());
    for kernel in &program.kernels {
        let place = match &kernel.form {
            Form::MatMul(form) => place(program, constants, form),
            Form::Attention(_) | Form::Loop(_) | Form::Conv(_) | Form::Pool(_) | Form::Scan(_) | Form::Host(_) => None,
        };
        of_kernel.push(place.map(|place| {
            *known.entry(place).or_insert_with(|| {
                places.push(place);
                places.len() - 1
            })
        }));
    }
    let slots: Vec<std::sync::Mutex<Vec<f32>>> = places.iter().map(|_| Default::default()).collect();
    pool.run(places.len(), 1, &|range| {
        for i in range {
            let packed = pack_one(&places[i], constants);
            *slots[i].lock().unwrap_or_else(std::sync::PoisonError::into_inner) = packed;
        }
    });
    let weights =
        slots.into_iter().map(|s| s.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner)).collect();
    Packed { weights, of_kernel }
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
    (inside && dense).then_some((constant, offset, row, column, k, n))
}

fn pack_one(place: &Place, constants: &[Tensor]) -> Vec<f32> {
    let (constant, offset, row, column, k, n) = *place;
    let (k, n) = (k as usize, n as usize);
    let Some(source) = constants[constant as usize].elements::<f32>() else { return Vec::new() };
    let Some(len) = packed_len(k, n) else { return Vec::new() };
    let mut packed = vec![0.0; len];
    let ptr = source.as_ptr().wrapping_add(offset as usize);
    let source = Strided { ptr, row: row as isize, column: column as isize };
    // SAFETY: `place` checked that every element is inside the constant, and the length is `packed_len`.
    unsafe { pack_b(source, k, n, &mut packed) };
    packed
}
