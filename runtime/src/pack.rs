//! Weights in the order in which the kernels read them, packed once when a program is loaded.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use eec_ir::program::{Block, Form, Kernel, MatMul, Program, Source, Step};
use eec_ir::{BufferId, DType, Dim, Precision};

use crate::artifact::{Held, Narrow};
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
pub(crate) fn pack(program: &Program, constants: &[Held], pool: &Pool) -> Option<Packed> {
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
fn pack_all(places: &[Place], constants: &[Held], pool: &Pool) -> Option<Weights> {
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
fn place(program: &Program, constants: &[Held], form: &MatMul) -> Option<Place> {
    let Source::Constant(constant) = program.buffer(form.b.buffer).source else { return None };
    let axes = form.batch.len();
    if form.b.strides[..axes].iter().any(|s| s.as_const() != Some(0)) {
        return None;
    }
    let (row, column) = (form.b.strides[axes].as_const()?, form.b.strides[axes + 1].as_const()?);
    let (offset, k, n) = (form.b.offset.as_const()?, form.k.as_const()?, form.n.as_const()?);
    let held = constants.get(constant as usize).filter(|t| t.dtype() == DType::F32)?;
    let len = held.dims().iter().product::<usize>();
    if k < 1 || n < 1 || offset < 0 {
        return None;
    }
    let reach = |steps: i64, stride: i64| (steps - 1).checked_mul(stride);
    let (rows, columns) = (reach(k, row)?, reach(n, column)?);
    let low = offset.checked_add(rows.min(0))?.checked_add(columns.min(0))?;
    let high = offset.checked_add(rows.max(0))?.checked_add(columns.max(0))?;
    let inside = low >= 0 && usize::try_from(high).is_ok_and(|h| h < len);
    // A matrix that repeats elements may be far larger than its constant: it stays as it is.
    let dense = usize::try_from(k.checked_mul(n)?).is_ok_and(|e| e <= len);
    (inside && dense).then_some((constant, offset, row, column, k, n, form.weights))
}

fn pack_one(place: &Place, constants: &[Held], packed: &mut [f32]) {
    let (constant, offset, row, column, k, n, precision) = *place;
    let (k, n) = (k as usize, n as usize);
    match &constants[constant as usize] {
        Held::Plain(tensor) => {
            let Some(source) = tensor.elements::<f32>() else { return };
            let ptr = source.as_ptr().wrapping_add(offset as usize);
            let source = Matrix::F32(Strided { ptr, row: row as isize, column: column as isize });
            // SAFETY: `place` checked that every element is inside the constant.
            unsafe { narrow::pack(&source, precision, k, n, packed) };
        }
        // SAFETY: no matrix of floats.
        Held::Narrow(narrow) => unsafe { narrow::pack(&stored(narrow), precision, k, n, packed) },
    }
}

/// A constant in a narrow form as a matrix of weights.
fn stored(narrow: &Narrow) -> Matrix<'_> {
    let columns = narrow.dims()[1];
    let (row, column) = if narrow.is_transposed() { (1, columns) } else { (columns, 1) };
    if narrow.precision() == Precision::Bf16 {
        return Matrix::Bf16 { bits: narrow.bits(), row, column };
    }
    let (integers, scales) = narrow.integers_and_scales();
    Matrix::Int8 { integers, row, column, scales }
}

/// Whether all that the program does with a constant in a narrow form is to multiply by the whole of it, as
/// weights of this form.
pub(crate) fn reads_packed(program: &Program, constant: u32, narrow: &Narrow) -> bool {
    let source = Source::Constant(constant);
    let is_read = |id: &BufferId| program.buffer(*id).source == source;
    let mut kernels = program.kernels.iter().filter(|k| k.form.reads().iter().any(is_read));
    let is_whole = |form: &MatMul| is_whole(form, narrow) && !is_read(&form.a.buffer);
    kernels.all(|k| matches!(&k.form, Form::MatMul(form) if is_whole(form)))
        && !passed_on(program).any(|id| is_read(&id))
}

/// The buffers that outputs, blocks and control steps name.
fn passed_on(program: &Program) -> impl Iterator<Item = BufferId> {
    let of_step = |step: &Step| match step {
        Step::Run(_) => Vec::new(),
        Step::If(step) => vec![step.condition],
        Step::Route(step) => step.operands.iter().map(|o| o.buffer).chain([step.mask]).collect(),
    };
    let of_block = move |block: &Block| -> Vec<BufferId> {
        block.yields.iter().copied().chain(block.steps.iter().flat_map(of_step)).collect()
    };
    program.outputs.iter().map(|port| port.buffer).chain(program.blocks.iter().flat_map(of_block))
}

/// A product whose weights are narrow but cannot be packed: its constant repeats elements or is too small.
pub(crate) fn unpacked<'p>(program: &'p Program, packed: &Packed) -> Option<&'p Kernel> {
    let is_narrow = |k: &Kernel| matches!(&k.form, Form::MatMul(form) if form.weights != Precision::F32);
    let kernels = program.kernels.iter().zip(&packed.of_kernel);
    kernels.into_iter().find(|(kernel, part)| is_narrow(kernel) && part.is_none()).map(|(kernel, _)| kernel)
}

/// Whether the second operand of a product is the whole of a matrix as it is stored.
fn is_whole(form: &MatMul, narrow: &Narrow) -> bool {
    let [rows, columns] = narrow.dims().map(|d| d as i64);
    let axes = form.batch.len();
    let (k, n, strides) = match narrow.is_transposed() {
        false => (rows, columns, [columns, 1]),
        true => (columns, rows, [1, columns]),
    };
    let is = |dim: &Dim, value: i64| dim.as_const() == Some(value);
    form.weights == narrow.precision()
        && (k > 0 && n > 0)
        && is(&form.k, k)
        && is(&form.n, n)
        && is(&form.b.offset, 0)
        && form.b.strides[..axes].iter().all(|s| is(s, 0))
        && form.b.strides[axes..].iter().zip(strides).all(|(s, stride)| is(s, stride))
        && form.bias.as_ref().is_none_or(|bias| bias.buffer != form.b.buffer)
}
