//! Weights in the order in which the kernels read them, packed once when a program is loaded.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use eec_ir::program::{Block, Conv, Form, Kernel, MatMul, Program, Source, Step};
use eec_ir::{BufferId, DType, Dim, Precision};

use crate::artifact::{Held, Narrow};
use crate::kernels::Strided;
use crate::kernels::conv::{self, Filters};
use crate::kernels::narrow::{self, Matrix, packed_len};
use crate::pages::Pages;
use crate::pool::Pool;

/// Elements of a cache line.
const LINE: usize = 16;

/// What is packed.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Place {
    /// A matrix in a constant.
    Matrix { constant: u32, offset: i64, row: i64, column: i64, k: i64, n: i64, precision: Precision },
    /// A constant that holds the weights of a convolution.
    Conv { constant: u32, filters: Filters },
}

impl Place {
    /// The constant that it is a part of.
    fn constant(&self) -> u32 {
        match self {
            Place::Matrix { constant, .. } | Place::Conv { constant, .. } => *constant,
        }
    }

    /// Elements of the packed form.
    fn packed_len(&self) -> Option<usize> {
        match self {
            Place::Matrix { k, n, precision, .. } => packed_len(*precision, *k as usize, *n as usize),
            Place::Conv { filters, .. } => conv::packed_len(filters),
        }
    }

    /// How it is packed: 16-bit floats are widened.
    fn precision(&self) -> Precision {
        match self {
            Place::Matrix { precision: Precision::F16, .. } => Precision::F32,
            Place::Matrix { precision, .. } => *precision,
            Place::Conv { .. } => Precision::F32,
        }
    }
}

/// Packed weights, and for every kernel which of them it uses.
pub(crate) struct Packed {
    weights: Weights,
    of_kernel: Vec<Option<usize>>,
}

/// Packed weights, one after the other.
struct Weights {
    memory: Pages,
    parts: Vec<(Range<usize>, Precision)>,
}

impl Packed {
    /// Those of a kernel, and how they are packed; `None` if its weights are read as they are.
    pub(crate) fn of_kernel(&self, kernel: i64) -> Option<(&[f32], Precision)> {
        let index = self.of_kernel.get(usize::try_from(kernel).ok()?).copied().flatten()?;
        let (part, precision) = self.weights.parts.get(index)?;
        Some((self.weights.memory.floats().get(part.clone())?, *precision))
    }
}

/// Packs every matrix that is a part of a constant and the same for the whole batch, and the constant
/// weights of convolutions; `packed` is told of every constant whose packed form is complete. `None` if
/// there is no memory for them.
pub(crate) fn pack(
    program: &Program,
    constants: &[Held],
    pool: &Pool,
    packed: &(dyn Fn(u32) + Sync),
) -> Option<Packed> {
    let mut known: HashMap<Place, usize> = HashMap::new();
    let mut places: Vec<Place> = Vec::new();
    let mut of_kernel = Vec::with_capacity(program.kernels.len());
    for kernel in &program.kernels {
        let place = match &kernel.form {
            Form::MatMul(form) => matrix(program, constants, form),
            Form::Conv(form) => conv_weights(program, constants, form),
            Form::Attention(_) | Form::Loop(_) | Form::Pool(_) | Form::Scan(_) | Form::Host(_) => None,
        };
        of_kernel.push(place.map(|place| {
            *known.entry(place).or_insert_with(|| {
                places.push(place);
                places.len() - 1
            })
        }));
    }
    Some(Packed { weights: pack_all(&places, constants, pool, packed)?, of_kernel })
}

/// Packs what is at `places` one after the other, each from a cache line on.
fn pack_all(places: &[Place], constants: &[Held], pool: &Pool, packed: &(dyn Fn(u32) + Sync)) -> Option<Weights> {
    let mut parts = Vec::with_capacity(places.len());
    let mut end = 0usize;
    for place in places {
        let start = end.checked_next_multiple_of(LINE)?;
        end = start.checked_add(place.packed_len()?)?;
        parts.push((start..end, place.precision()));
    }
    let mut memory = Pages::new(end.checked_mul(size_of::<f32>())?)?;
    let mut rest = memory.floats_mut();
    let mut slots = Vec::with_capacity(places.len());
    let mut at = 0;
    for (part, _) in &parts {
        let (slot, after) = rest.split_at_mut(part.end - at);
        slots.push(Mutex::new(&mut slot[part.start - at..]));
        (rest, at) = (after, part.end);
    }
    pool.run(places.len(), 1, &|range| {
        for i in range {
            pack_one(&places[i], constants, &mut slots[i].lock().unwrap_or_else(PoisonError::into_inner));
            packed(places[i].constant());
        }
    });
    Some(Weights { memory, parts })
}

/// The place of a product's second operand, if it is a matrix inside a constant.
fn matrix(program: &Program, constants: &[Held], form: &MatMul) -> Option<Place> {
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
    (inside && dense).then_some(Place::Matrix { constant, offset, row, column, k, n, precision: form.weights })
}

/// The place of a convolution's weights, if they are a constant that is used in packed form.
fn conv_weights(program: &Program, constants: &[Held], form: &Conv) -> Option<Place> {
    let Source::Constant(constant) = program.buffer(form.w).source else { return None };
    let filters = Filters {
        in_channels: constant_size(&form.x_dims[1])?,
        out_channels: constant_size(&form.w_dims[0])?,
        groups: form.group as usize,
        kernel: [constant_size(&form.w_dims[2])?, constant_size(&form.w_dims[3])?],
    };
    let Held::Plain(tensor) = constants.get(constant as usize)? else { return None };
    let whole = tensor.dtype() == DType::F32 && tensor.len() == filters.len()? && !tensor.is_empty();
    (whole && conv::packed_len(&filters).is_some()).then_some(Place::Conv { constant, filters })
}

fn constant_size(dim: &Dim) -> Option<usize> {
    dim.as_const().and_then(|size| usize::try_from(size).ok())
}

fn pack_one(place: &Place, constants: &[Held], packed: &mut [f32]) {
    match *place {
        Place::Matrix { constant, offset, row, column, k, n, precision } => {
            let (k, n) = (k as usize, n as usize);
            match &constants[constant as usize] {
                Held::Plain(tensor) => {
                    let Some(source) = tensor.elements::<f32>() else { return };
                    let ptr = source.as_ptr().wrapping_add(offset as usize);
                    let source = Matrix::F32(Strided { ptr, row: row as isize, column: column as isize });
                    // SAFETY: `matrix` checked that every element is inside the constant.
                    unsafe { narrow::pack(&source, precision, k, n, packed) };
                }
                // SAFETY: no matrix of floats.
                Held::Narrow(narrow) => unsafe { narrow::pack(&stored(narrow), precision, k, n, packed) },
            }
        }
        Place::Conv { constant, filters } => {
            let Held::Plain(tensor) = &constants[constant as usize] else { return };
            let Some(source) = tensor.elements::<f32>() else { return };
            // SAFETY: `conv_weights` checked that the constant is the weights, and the length is `packed_len`.
            unsafe { conv::pack_weights(&filters, source.as_ptr(), packed) };
        }
    }
}

/// A constant in a narrow form as a matrix of weights.
fn stored(narrow: &Narrow) -> Matrix<'_> {
    let columns = narrow.dims()[1];
    let (row, column) = if narrow.is_transposed() { (1, columns) } else { (columns, 1) };
    match narrow.precision() {
        Precision::F16 => Matrix::F16 { bits: narrow.bits(), row, column },
        Precision::Bf16 => Matrix::Bf16 { bits: narrow.bits(), row, column },
        // Floats are stored as they are.
        Precision::Int8 | Precision::F32 => {
            let (integers, scales) = narrow.integers_and_scales();
            Matrix::Int8 { integers, row, column, scales }
        }
    }
}

/// Whether all that the program does with a constant in a narrow form is to multiply by the whole of it, as
/// weights of this form.
pub(crate) fn reads_packed(program: &Program, constant: u32, narrow: &Narrow) -> bool {
    let source = Source::Constant(constant);
    let is_read = |id: &BufferId| program.buffer(*id).source == source;
    let mut kernels = program.kernels.iter().filter(|k| k.form.reads().iter().any(is_read));
    let is_whole = |form: &MatMul| {
        let others = [&form.a].into_iter().chain(&form.bias);
        is_whole(form, narrow) && !others.map(|view| view.buffer).any(|id| is_read(&id))
    };
    kernels.all(|k| matches!(&k.form, Form::MatMul(form) if is_whole(form)))
        && !passed_on(program).any(|id| is_read(&id))
}

/// The buffers that outputs, blocks and control steps name.
fn passed_on(program: &Program) -> impl Iterator<Item = BufferId> {
    let of_step = |step: &Step| match step {
        Step::Run(_) => Vec::new(),
        Step::If(step) => vec![step.condition],
        Step::Route(step) => step.operands.iter().map(|o| o.buffer).chain([step.mask]).collect(),
        Step::Size(step) => vec![step.value],
        Step::Repeat(step) => step.carried.iter().copied().chain(step.condition).collect(),
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
}
