//! Code that measures a kernel: its time, work and traffic, added to the run's counters.

use cranelift::prelude::*;
use eec_ir::program::{Dense, Form, Kernel, MatMul, Per, Program, View};
use eec_ir::{BufferId, Dim, KernelId, Precision};

use super::entry::Entry;

/// Counters per measured kernel: nanoseconds, multiply-accumulates, bytes.
pub(crate) const MEASURES: usize = 3;

impl Entry<'_, '_> {
    /// The time.
    pub(super) fn clock(&mut self) -> Value {
        let call = self.b.ins().call(self.helpers.clock, &[self.tables.context]);
        self.b.inst_results(call)[0]
    }

    /// Adds what one run of a kernel, begun at `start`, took.
    pub(super) fn measure(&mut self, id: KernelId, kernel: &Kernel, start: Value) {
        let end = self.clock();
        let program = self.program;
        let took = self.b.ins().isub(end, start);
        let measured = [took, self.size(&kernel.macs), self.size(&traffic(program, &kernel.form))];
        let first = 1 + program.exits.len() + program.gates.len() + program.kernels.len() + MEASURES * id.index();
        measured.into_iter().enumerate().for_each(|(i, value)| self.count(first + i, value));
    }
}

/// The bytes of a product's narrow weights.
fn narrow_bytes(form: &MatMul, weights: Precision) -> Dim {
    let elements = Dim::product([&form.k, &form.n]).as_const().unwrap_or_default();
    Dim::from(weights.bytes(elements.unsigned_abs()) as i64)
}

/// Bytes that a kernel must read and write: of every view the elements that differ, once.
fn traffic(program: &Program, form: &Form) -> Dim {
    let size = |id: BufferId| Dim::from(program.buffer(id).dtype.size() as i64);
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
            let b = match form.weights {
                Precision::F32 => strided(&form.b, &space(&form.k, &form.n)),
                narrow => narrow_bytes(form, narrow),
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
            let (x, w) = (dense(form.x, &form.x_dims.each_ref()), dense(form.w, &form.w_dims.each_ref()));
            let plane = &form.y_size[0] * &form.y_size[1];
            let planes = [&form.x_dims[0], &form.w_dims[0], &plane];
            let operands = form.epilogue.iter().flat_map(|e| &e.operands).map(|view| strided(view, &planes));
            operands.chain([x, w, dense(form.y, &y)]).fold(Dim::default(), |sum, bytes| &sum + &bytes)
        }
        Form::Pool(form) => {
            let [x, y] = [&form.x_size, &form.y_size].map(|size| [&form.planes, &size[0], &size[1]]);
            &dense(form.x, &x) + &dense(form.y, &y)
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
