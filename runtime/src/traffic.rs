//! How much memory a kernel must touch, whatever runs it.

use eec_ir::program::{Dense, Form, MatMul, Per, Program, View};
use eec_ir::{BufferId, Dim, Precision};

/// Who holds what is touched.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(not(all(feature = "codegen", feature = "gpu")), allow(dead_code))]
pub(crate) enum On {
    /// Elements as they are, 16-bit floats among the weights widened.
    Cpu,
    /// A word per element, but for weights of 16-bit floats; other weights are widened.
    Gpu,
}

/// The bytes of a product's narrow weights.
fn narrow_bytes(form: &MatMul, weights: Precision) -> Dim {
    let elements = Dim::product([&form.k, &form.n]).as_const().unwrap_or_default();
    Dim::from(weights.bytes(elements.unsigned_abs()) as i64)
}

/// Bytes that a kernel must read and write: of every view the elements that differ, once.
pub(crate) fn traffic(program: &Program, form: &Form, on: On) -> Dim {
    let size = |id: BufferId| match on {
        On::Cpu => Dim::from(program.buffer(id).dtype.size() as i64),
        On::Gpu => Dim::from(4),
    };
    let dense = |id: BufferId, dims: &[&Dim]| &size(id) * &Dim::product(dims.iter().copied());
    let strided = |view: &View, dims: &[&Dim]| {
        let moved = dims.iter().zip(&view.strides).filter(|(_, s)| s.as_const() != Some(0)).map(|(d, _)| *d);
        &size(view.buffer) * &Dim::product(moved)
    };
    match form {
        Form::Loop(form) => {
            let all: Vec<&Dim> = form.dims.iter().chain(&form.inner).collect();
            let rows: Vec<&Dim> = form.dims.iter().collect();
            let loads = form.inputs.iter().map(|view| strided(view, &all));
            let stores = form.stores.iter().map(|s| strided(&s.view, if s.per == Per::Row { &rows } else { &all }));
            loads.chain(stores).fold(Dim::default(), |sum, bytes| &sum + &bytes)
        }
        Form::MatMul(form) => {
            let space = |a, b| form.batch.iter().chain([a, b]).collect::<Vec<_>>();
            let a = strided(&form.a, &space(&form.m, &form.k));
            let b = match (form.weights, on) {
                (Precision::F32, _) | (Precision::F16, On::Cpu) => strided(&form.b, &space(&form.k, &form.n)),
                (Precision::F16, On::Gpu) | (Precision::Bf16 | Precision::Int8, On::Cpu) => {
                    narrow_bytes(form, form.weights)
                }
                (Precision::Bf16 | Precision::Int8, On::Gpu) => strided(&form.b, &space(&form.k, &form.n)),
            };
            let result = space(&form.m, &form.n);
            let operands = form.epilogue.iter().flat_map(|e| &e.operands).map(|view| strided(view, &result));
            operands.chain([a, b, strided(&form.c, &result)]).fold(Dim::default(), |sum, bytes| &sum + &bytes)
        }
        Form::Attention(form) => {
            let space = |a, b| form.batch.iter().chain([a, b]).collect::<Vec<_>>();
            let (q, k) = (strided(&form.q, &space(&form.m, &form.d)), strided(&form.k, &space(&form.d, &form.n)));
            let mask = form.mask.iter().map(|mask| strided(mask, &space(&form.m, &form.n)));
            let (v, c) =
                (strided(&form.v, &space(&form.n, &form.width)), strided(&form.c, &space(&form.m, &form.width)));
            mask.chain([q, k, v, c]).fold(Dim::default(), |sum, bytes| &sum + &bytes)
        }
        Form::Conv(form) => {
            let y = [&form.x_dims[0], &form.w_dims[0], &form.y_size[0], &form.y_size[1]];
            let (x, w) = (strided(&form.x, &form.x_dims.each_ref()), dense(form.w, &form.w_dims.each_ref()));
            let plane = &form.y_size[0] * &form.y_size[1];
            let result = [&form.x_dims[0], &plane, &form.w_dims[0]];
            let operands = form.epilogue.iter().flat_map(|e| &e.operands).map(|view| strided(view, &result));
            operands.chain([x, w, dense(form.y, &y)]).fold(Dim::default(), |sum, bytes| &sum + &bytes)
        }
        Form::Pool(form) => {
            let [images, channels, ..] = &form.x_dims;
            let y = [images, &form.y_size[0], &form.y_size[1], channels];
            &strided(&form.x, &form.x_dims.each_ref()) + &dense(form.y, &y)
        }
        Form::Host(form) => {
            let whole = |t: &Dense| dense(t.buffer, &t.dims.iter().collect::<Vec<_>>());
            form.inputs.iter().chain(&form.outputs).map(whole).fold(Dim::default(), |sum, bytes| &sum + &bytes)
        }
        Form::Scan(form) => {
            let dims = [&form.outer, &form.len, &form.inner];
            &dense(form.x, &dims) + &dense(form.y, &dims)
        }
    }
}
