//! Code for the steps: one function whose branches are the program's branches. Those are in `control`.

use std::collections::HashMap;

use cranelift::codegen::ir::{FuncRef, StackSlot};
use cranelift::prelude::types::I64;
use cranelift::prelude::*;
use eec_ir::dim::{Dim, Symbol};
use eec_ir::program::{Attention, BlockId, Conv, Form, Host, MatMul, Pool, PoolKind, Program, Scan, Step, View};
use eec_ir::{BufferId, DType, KernelId};

use super::callee::Callee;
use super::lanes::memory;
use super::{LoopSite, size};
use crate::context::{ATTENTION_WORDS, CONV_WORDS, POOL_WORDS, SCAN_WORDS, field};
use crate::jobs::jobs;
use crate::products::MATMUL_WORDS;

/// The runtime's functions that the entry function calls.
#[derive(Clone, Copy)]
pub(super) struct Helpers {
    pub(super) run_loop: Callee,
    pub(super) run_matmul: Callee,
    pub(super) run_matmuls: Callee,
    pub(super) run_attention: Callee,
    pub(super) run_conv: Callee,
    pub(super) run_pool: Callee,
    pub(super) run_scan: Callee,
    pub(super) run_host: Callee,
    pub(super) count_rows: Callee,
    pub(super) gather_rows: Callee,
    pub(super) scatter_rows: Callee,
    pub(super) copy_bytes: Callee,
    pub(super) zero_bytes: Callee,
    pub(super) clock: Callee,
}

/// The state of emitting the entry function.
pub(super) struct Entry<'a, 'b> {
    pub(super) b: &'a mut FunctionBuilder<'b>,
    pub(super) program: &'a Program,
    pub(super) helpers: Helpers,
    /// Per kernel: how its loop is called.
    pub(super) sites: &'a [Option<LoopSite>],
    /// The compiled loops.
    pub(super) loops: &'a [FuncRef],
    pub(super) symbols: &'a HashMap<Symbol, usize>,
    pub(super) tables: Tables,
    /// Whether every kernel is measured.
    pub(super) profile: bool,
}

/// Addresses that stay the same during a run.
#[derive(Clone, Copy)]
pub(super) struct Tables {
    pub(super) context: Value,
    pub(super) buffers: Value,
    pub(super) homes: Value,
    pub(super) symbols: Value,
    pub(super) controls: Value,
    pub(super) counters: Value,
    pub(super) callees: Value,
    /// Where the words of calls are written.
    pub(super) words: StackSlot,
    /// Where a failed run ends.
    pub(super) leave: Block,
}

impl Tables {
    /// Loads the tables of the context that is the function's one argument; `bytes` is the size of the
    /// words of the largest call.
    pub(super) fn load(b: &mut FunctionBuilder<'_>, bytes: u32) -> Tables {
        let entry = b.create_block();
        b.append_block_params_for_function_params(entry);
        b.switch_to_block(entry);
        let context = b.block_params(entry)[0];
        let mut table = |offset| b.ins().load(I64, memory(), context, offset);
        let (buffers, homes, symbols) = (table(field::BUFFERS), table(field::HOMES), table(field::SYMBOLS));
        let (controls, counters, callees) = (table(field::CONTROLS), table(field::COUNTERS), table(field::CALLEES));
        let slot = StackSlotData::new(StackSlotKind::ExplicitSlot, bytes, 3);
        let words = b.create_sized_stack_slot(slot);
        Tables { context, buffers, homes, symbols, controls, counters, callees, words, leave: b.create_block() }
    }
}

impl<'a> Entry<'a, '_> {
    /// Emits the body and the function's end.
    pub(super) fn emit(&mut self) {
        self.block(BlockId(0));
        self.b.ins().jump(self.tables.leave, &[]);
        self.b.switch_to_block(self.tables.leave);
        self.b.ins().return_(&[]);
        self.b.seal_all_blocks();
    }

    pub(super) fn block(&mut self, id: BlockId) {
        let program = self.program;
        for job in jobs(program, &program.block(id).steps) {
            match self.products(job) {
                Some(products) => self.matmuls(&products),
                None => job.iter().for_each(|step| self.step(step)),
            }
        }
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Run(kernel) => self.run(*kernel),
            Step::If(step) => self.branch(step),
            Step::Route(step) => self.route(step),
            Step::Repeat(step) => self.repeat(step),
            Step::Size(step) => self.late(step),
        }
    }

    /// The products of a job of several. A profile measures each by itself.
    fn products(&self, job: &[Step]) -> Option<Vec<(KernelId, &'a MatMul)>> {
        if job.len() < 2 || self.profile {
            return None;
        }
        let product = |step: &Step| {
            let Step::Run(id) = step else { return None };
            let Form::MatMul(form) = &self.program.kernel(*id).form else { return None };
            Some((*id, form))
        };
        job.iter().map(product).collect()
    }

    fn matmuls(&mut self, products: &[(KernelId, &MatMul)]) {
        let mut words = Vec::with_capacity(products.len() * MATMUL_WORDS);
        for (id, form) in products {
            self.count_run(*id);
            words.extend(self.matmul_words(*id, form));
        }
        let (words, count) = (self.words(&words), self.number(products.len() as i64));
        self.call(self.helpers.run_matmuls, &[self.tables.context, words, count]);
    }

    pub(super) fn call(&mut self, callee: Callee, args: &[Value]) {
        callee.call(self.b, self.tables.callees, args);
    }

    /// Calls a function that gives a value.
    pub(super) fn call_for(&mut self, callee: Callee, args: &[Value]) -> Value {
        let call = callee.call(self.b, self.tables.callees, args);
        self.b.inst_results(call)[0]
    }

    pub(super) fn size(&mut self, dim: &Dim) -> Value {
        let (table, slots) = (self.tables.symbols, self.symbols);
        size::emit(self.b, dim, &mut |b, symbol| match slots.get(symbol) {
            Some(slot) => b.ins().load(I64, memory(), table, (*slot * 8) as i32),
            None => b.ins().iconst(I64, 0),
        })
    }

    pub(super) fn number(&mut self, value: i64) -> Value {
        self.b.ins().iconst(I64, value)
    }

    /// The first byte of a buffer.
    pub(super) fn pointer(&mut self, id: BufferId) -> Value {
        self.b.ins().load(I64, memory(), self.tables.buffers, (id.index() * 8) as i32)
    }

    pub(super) fn set_pointer(&mut self, id: BufferId, value: Value) {
        self.b.ins().store(memory(), value, self.tables.buffers, (id.index() * 8) as i32);
    }

    pub(super) fn count(&mut self, counter: usize, value: Value) {
        let (table, offset) = (self.tables.counters, (counter * 8) as i32);
        let old = self.b.ins().load(I64, memory(), table, offset);
        let new = self.b.ins().iadd(old, value);
        self.b.ins().store(memory(), new, table, offset);
    }

    /// Counts one run of a kernel and its work.
    fn count_run(&mut self, id: KernelId) {
        let program = self.program;
        let one = self.number(1);
        self.count(1 + program.exits.len() + program.gates.len() + id.index(), one);
        let macs = &program.kernel(id).macs;
        if *macs != Dim::default() {
            let macs = self.size(macs);
            self.count(0, macs);
        }
    }

    fn run(&mut self, id: KernelId) {
        let kernel = self.program.kernel(id);
        self.count_run(id);
        let start = self.profile.then(|| self.clock());
        match &kernel.form {
            Form::Loop(form) => self.run_loop(id, &Dim::product(&form.dims)),
            Form::MatMul(form) => self.matmul(id, form),
            Form::Attention(form) => self.attention(id, form),
            Form::Conv(form) => self.conv(id, form),
            Form::Pool(form) => self.pool(id, form),
            Form::Scan(form) => self.scan(id, form),
            Form::Host(form) => self.host(id, form),
        }
        if let Some(start) = start {
            self.measure(id, kernel, start);
        }
    }

    /// Writes the words of a call and gives their address.
    fn words(&mut self, words: &[Value]) -> Value {
        for (i, word) in words.iter().enumerate() {
            self.b.ins().stack_store(I64, *word, self.tables.words, (i * 8) as i32);
        }
        self.b.ins().stack_addr(I64, self.tables.words, 0)
    }

    fn run_loop(&mut self, id: KernelId, total: &Dim) {
        let Some(site) = &self.sites[id.index()] else { return };
        let mut words = vec![self.tables.context, self.number(id.index() as i64)];
        for buffer in &site.buffers {
            words.push(self.pointer(*buffer));
        }
        for symbol in &site.symbols {
            words.push(self.size(&symbol.clone().into()));
        }
        let args = self.words(&words);
        let code = self.b.ins().func_addr(I64, self.loops[site.code]);
        let (total, work) = (self.size(total), self.size(&site.work));
        self.call(self.helpers.run_loop, &[self.tables.context, code, args, total, work]);
        if site.can_fail {
            self.leave_on_error();
        }
    }

    fn leave_on_error(&mut self) {
        let error = self.b.ins().load(I64, memory(), self.tables.context, field::ERROR);
        let next = self.b.create_block();
        self.b.ins().brif(error, self.tables.leave, &[], next, &[]);
        self.b.switch_to_block(next);
    }

    /// The address of a view's first element.
    fn view(&mut self, view: &View) -> Value {
        let (base, offset) = (self.pointer(view.buffer), self.size(&view.offset));
        let bytes = self.b.ins().imul_imm_s(offset, self.program.buffer(view.buffer).dtype.size() as i64);
        self.b.ins().iadd(base, bytes)
    }

    fn matmul(&mut self, id: KernelId, form: &MatMul) {
        let words = self.matmul_words(id, form);
        let words = self.words(&words);
        self.call(self.helpers.run_matmul, &[self.tables.context, words]);
    }

    fn matmul_words(&mut self, id: KernelId, form: &MatMul) -> Vec<Value> {
        let axes = form.batch.len();
        let mut words = vec![self.number(id.index() as i64), self.number(axes as i64)];
        for dim in [&form.m, &form.n, &form.k] {
            words.push(self.size(dim));
        }
        for view in [&form.a, &form.b, &form.c] {
            words.push(self.view(view));
            words.push(self.size(&view.strides[axes]));
            words.push(self.size(&view.strides[axes + 1]));
        }
        words.pop();
        match &form.bias {
            Some(bias) => words.extend([self.view(bias), self.size(&bias.strides[0])]),
            None => words.extend([self.number(0), self.number(1)]),
        }
        words.push(self.number(i64::from(form.scale.to_bits())));
        debug_assert_eq!(words.len(), MATMUL_WORDS);
        let operands = form.epilogue.as_ref().map_or(&[][..], |e| &e.operands);
        for view in operands {
            words.push(self.view(view));
            words.extend([axes, axes + 1].map(|axis| self.size(&view.strides[axis])));
        }
        for axis in 0..axes {
            words.push(self.size(&form.batch[axis]));
            let views = [&form.a, &form.b, &form.c].into_iter().chain(operands);
            words.extend(views.map(|view| self.size(&view.strides[axis])));
        }
        words
    }

    fn attention(&mut self, id: KernelId, form: &Attention) {
        let axes = form.batch.len();
        let mut words = vec![self.number(id.index() as i64)];
        for dim in [&form.m, &form.n, &form.d, &form.width] {
            words.push(self.size(dim));
        }
        let views = [Some(&form.q), Some(&form.k), Some(&form.v), form.mask.as_ref(), Some(&form.c)];
        for view in views {
            let Some(view) = view else {
                words.extend([0; 3].map(|zero| self.number(zero)));
                continue;
            };
            words.push(self.view(view));
            words.extend([axes, axes + 1].map(|axis| self.size(&view.strides[axis])));
        }
        words.push(self.number(i64::from(form.scale.to_bits())));
        words.push(self.number(i64::from(form.instead_of_nan.is_some())));
        words.push(self.number(i64::from(form.instead_of_nan.unwrap_or_default().to_bits())));
        // Axes that are missing have one index.
        let (one, none) = (Dim::from(1), Dim::default());
        for axis in (0..Attention::MAX_BATCH).map(|a| (a + axes).checked_sub(Attention::MAX_BATCH)) {
            let size = axis.map_or(&one, |a| &form.batch[a]);
            words.push(self.size(size));
            for view in views {
                let stride = axis.zip(view).map_or(&none, |(a, view)| &view.strides[a]);
                words.push(self.size(stride));
            }
        }
        debug_assert_eq!(words.len(), ATTENTION_WORDS);
        let words = self.words(&words);
        self.call(self.helpers.run_attention, &[self.tables.context, words]);
    }

    /// The words of images: their address and their strides.
    fn image(&mut self, view: &View) -> Vec<Value> {
        let mut words = vec![self.view(view)];
        words.extend(view.strides.iter().map(|stride| self.size(stride)));
        words
    }

    fn conv(&mut self, id: KernelId, form: &Conv) {
        let mut words = vec![self.number(id.index() as i64)];
        for dim in form.x_dims.iter().chain(&form.w_dims).chain(&form.y_size) {
            words.push(self.size(dim));
        }
        for value in [form.group].iter().chain(&form.strides).chain(&form.dilations).chain(&form.pads) {
            words.push(self.number(*value));
        }
        words.extend(self.image(&form.x));
        words.push(self.pointer(form.w));
        words.push(match form.bias {
            Some(bias) => self.pointer(bias),
            None => self.number(0),
        });
        words.push(self.pointer(form.y));
        debug_assert_eq!(words.len(), CONV_WORDS);
        for view in form.epilogue.iter().flat_map(|e| &e.operands) {
            words.push(self.view(view));
            words.extend([1, 2, 0].map(|axis| self.size(&view.strides[axis])));
        }
        let words = self.words(&words);
        self.call(self.helpers.run_conv, &[self.tables.context, words]);
    }

    fn pool(&mut self, id: KernelId, form: &Pool) {
        let mut words = vec![self.number(id.index() as i64)];
        for dim in form.x_dims.iter().chain(&form.y_size) {
            words.push(self.size(dim));
        }
        for value in form.kernel.iter().chain(&form.strides).chain(&form.dilations).chain(&form.pads) {
            words.push(self.number(*value));
        }
        words.push(self.number(match form.kind {
            PoolKind::Max => 0,
            PoolKind::Average => 1,
            PoolKind::AverageWithPads => 2,
        }));
        words.extend(self.image(&form.x));
        words.push(self.pointer(form.y));
        debug_assert_eq!(words.len(), POOL_WORDS);
        let words = self.words(&words);
        self.call(self.helpers.run_pool, &[self.tables.context, words]);
    }

    fn host(&mut self, id: KernelId, form: &Host) {
        let mut words = vec![self.number(id.index() as i64)];
        words.extend(form.inputs.iter().chain(&form.outputs).map(|t| self.pointer(t.buffer)));
        let words = self.words(&words);
        self.call(self.helpers.run_host, &[self.tables.context, words]);
        self.leave_on_error();
    }

    fn scan(&mut self, id: KernelId, form: &Scan) {
        let dtype = match form.dtype {
            DType::F32 => 0,
            DType::I64 => 1,
            // The verifier refuses the others.
            _ => 2,
        };
        let mut words = vec![self.number(id.index() as i64), self.number(dtype)];
        for dim in [&form.outer, &form.len, &form.inner] {
            words.push(self.size(dim));
        }
        words.extend([self.number(i64::from(form.exclusive)), self.number(i64::from(form.reverse))]);
        words.extend([self.pointer(form.x), self.pointer(form.y)]);
        debug_assert_eq!(words.len(), SCAN_WORDS);
        let words = self.words(&words);
        self.call(self.helpers.run_scan, &[self.tables.context, words]);
    }
}
