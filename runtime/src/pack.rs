//! Weights in the order in which the kernels read them, packed once when a program is loaded.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use eec_ir::program::{Conv, Form, MatMul, Program, Source};
use eec_ir::{DType, Dim, Tensor};

use crate::kernels::Strided;
use crate::kernels::conv::{self, ConvShape, Window};
use crate::kernels::matmul::{pack_b, packed_len};
use crate::pages::Pages;
use crate::pool::Pool;

/// Elements of a cache line.
const LINE: usize = 16;

/// What is packed.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Place {
    /// A matrix in a constant.
    Matrix { constant: u32, offset: i64, row: i64, column: i64, k: i64, n: i64 },
    /// A constant that holds the weights of a convolution of this shape.
    Conv { constant: u32, shape: ConvShape },
}

impl Place {
    /// Elements of the packed form.
    fn packed_len(&self) -> Option<usize> {
        match self {
            Place::Matrix { k, n, .. } => packed_len(*k as usize, *n as usize),
            Place::Conv { shape, .. } => conv::packed_len(shape),
        }
    }
}

/// Packed weights, and for every kernel which of them it uses.
pub(crate) struct Packed {
    pub(crate) weights: Weights,
    pub(crate) of_kernel: Vec<Option<usize>>,
}

/// Packed weights, one after the other.
pub(crate) struct Weights {
    memory: Pages,
    parts: Vec<Range<usize>>,
}

impl Weights {
    /// Those with this number.
    pub(crate) fn get(&self, index: usize) -> Option<&[f32]> {
        self.memory.floats().get(self.parts.get(index)?.clone())
    }
}

/// Packs every matrix that is a part of a constant and the same for the whole batch, and the constant
/// weights of convolutions whose sizes are known but for the batch; `None` if there is no memory for them.
pub(crate) fn pack(program: &Program, constants: &[Tensor], pool: &Pool) -> Option<Packed> {
    let mut known: HashMap<Place, usize> = HashMap::new();
    let mut places: Vec<Place> = Vec::new();
    let mut of_kernel = Vec::with_capacity(program.kernels.len());
    for kernel in &program.kernels {
        let place = match &kernel.form {
            Form::MatMul(form) => matrix(program, constants, form),
            Form::Conv(form) => conv_weights(program, constants, form),
            Form::Attention(_) | Form::Loop(_) | Form::Pool(_) | Form::Scan(_) => None,
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

/// Packs what is at `places` one after the other, each from a cache line on.
fn pack_all(places: &[Place], constants: &[Tensor], pool: &Pool) -> Option<Weights> {
    let mut parts = Vec::with_capacity(places.len());
    let mut end = 0usize;
    for place in places {
        let start = end.checked_next_multiple_of(LINE)?;
        end = start.checked_add(place.packed_len()?)?;
        parts.push(start..end);
    }
    let mut memory = Pages::new(end.checked_mul(size_of::<f32>())?)?;
    let mut rest = memory.floats_mut();
    let mut slots = Vec::with_capacity(places.len());
    let mut at = 0;
    for part in &parts {
        let (slot, after) = rest.split_at_mut(part.end - at);
        slots.push(Mutex::new(&mut slot[part.start - at..]));
        (rest, at) = (after, part.end);
    }
    pool.run(places.len(), 1, &|range| {
        for i in range {
            pack_one(&places[i], constants, &mut slots[i].lock().unwrap_or_else(PoisonError::into_inner));
        }
    });
    Some(Weights { memory, parts })
}

/// The place of a product's second operand, if it is a matrix inside a constant.
fn matrix(program: &Program, constants: &[Tensor], form: &MatMul) -> Option<Place> {
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
    (inside && dense).then_some(Place::Matrix { constant, offset, row, column, k, n })
}

/// The place of a convolution's weights, if they are a constant that is used in packed form.
fn conv_weights(program: &Program, constants: &[Tensor], form: &Conv) -> Option<Place> {
    let Source::Constant(constant) = program.buffer(form.w).source else { return None };
    let pair = |dims: &[Dim]| Some([constant_size(&dims[0])?, constant_size(&dims[1])?]);
    let window = Window {
        size: pair(&form.x_dims[2..])?,
        out_size: pair(&form.y_size)?,
        kernel: pair(&form.w_dims[2..])?,
        stride: form.strides.map(|s| s as usize),
        dilation: form.dilations.map(|d| d as usize),
        pad: form.pads.map(|p| p as usize),
    };
    let (in_channels, out_channels) = (constant_size(&form.x_dims[1])?, constant_size(&form.w_dims[0])?);
    let shape = ConvShape { in_channels, out_channels, groups: form.group as usize, window };
    let tensor = constants.get(constant as usize).filter(|t| t.dtype() == DType::F32)?;
    let whole = tensor.len() == shape.weights()? && !tensor.is_empty();
    (whole && conv::packed_len(&shape).is_some()).then_some(Place::Conv { constant, shape })
}

fn constant_size(dim: &Dim) -> Option<usize> {
    dim.as_const().and_then(|size| usize::try_from(size).ok())
}

fn pack_one(place: &Place, constants: &[Tensor], packed: &mut [f32]) {
    match *place {
        Place::Matrix { constant, offset, row, column, k, n } => {
            let Some(source) = constants[constant as usize].elements::<f32>() else { return };
            let ptr = source.as_ptr().wrapping_add(offset as usize);
            let source = Strided { ptr, row: row as isize, column: column as isize };
            // SAFETY: `matrix` checked that every element is inside the constant; the length is `packed_len`.
            unsafe { pack_b(source, k as usize, n as usize, packed) };
        }
        Place::Conv { constant, shape } => {
            let Some(source) = constants[constant as usize].elements::<f32>() else { return };
            // SAFETY: `conv_weights` checked that the constant is the weights of the shape, and the length
            // is `packed_len`.
            unsafe { conv::pack_weights(&shape, source.as_ptr(), packed) };
        }
    }
}
