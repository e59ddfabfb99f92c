//! Builds small Programs by hand.

use std::collections::HashMap;

use eec_ir::program::{
    Block, BlockId, Buffer, Constant, Exit, Expr, ExprId, Form, Kernel, Loop, Per, Port, Program, Reduction,
    ReductionFn, Source, Step, Store, View,
};
use eec_ir::{BufferId, ContentHash, DType, Dim, KernelId, Symbol, Tensor};
use eec_runtime::{Control, Error, Options, Run, Session};

/// A program under construction, with its constants.
#[derive(Clone, Default)]
pub(crate) struct Builder {
    pub(crate) program: Program,
    pub(crate) constants: HashMap<ContentHash, Tensor>,
}

pub(crate) fn d(name: &str) -> Dim {
    Dim::symbol(name)
}

pub(crate) fn n(value: i64) -> Dim {
    value.into()
}

/// Row-major strides.
pub(crate) fn dense(dims: &[Dim]) -> Vec<Dim> {
    (0..dims.len()).map(|i| Dim::product(&dims[i + 1..])).collect()
}

pub(crate) fn view(buffer: BufferId, strides: Vec<Dim>) -> View {
    View { buffer, offset: n(0), strides }
}

impl Builder {
    pub(crate) fn new(name: &str) -> Builder {
        let mut builder = Builder::default();
        builder.program.name = name.into();
        builder.program.blocks.push(Block::default());
        builder
    }

    pub(crate) fn buffer(&mut self, dtype: DType, len: Dim, source: Source) -> BufferId {
        self.program.buffers.push(Buffer { dtype, len, source });
        BufferId::new(self.program.buffers.len() - 1)
    }

    pub(crate) fn temp(&mut self, dtype: DType, len: Dim) -> BufferId {
        self.buffer(dtype, len, Source::Temp)
    }

    pub(crate) fn input(&mut self, name: &str, dtype: DType, dims: &[Dim]) -> BufferId {
        let index = self.program.inputs.len() as u32;
        let buffer = self.buffer(dtype, Dim::product(dims), Source::Input(index));
        self.program.inputs.push(Port { name: name.into(), dtype, dims: dims.to_vec(), buffer });
        buffer
    }

    pub(crate) fn output(&mut self, name: &str, buffer: BufferId, dims: &[Dim]) {
        let dtype = self.program.buffer(buffer).dtype;
        self.program.outputs.push(Port { name: name.into(), dtype, dims: dims.to_vec(), buffer });
    }

    pub(crate) fn constant(&mut self, tensor: Tensor) -> BufferId {
        let (hash, index) = (ContentHash::of(&tensor), self.program.constants.len() as u32);
        self.program.constants.push(Constant { hash, dtype: tensor.dtype(), dims: tensor.dims().to_vec() });
        let buffer = self.buffer(tensor.dtype(), n(tensor.len() as i64), Source::Constant(index));
        self.constants.insert(hash, tensor);
        buffer
    }

    pub(crate) fn block(&mut self, block: Block) -> BlockId {
        self.program.blocks.push(block);
        BlockId(self.program.blocks.len() as u32 - 1)
    }

    pub(crate) fn kernel(&mut self, name: &str, form: Form) -> Step {
        self.program.kernels.push(Kernel { name: name.into(), pass: String::new(), macs: n(1), form });
        Step::Run(KernelId::new(self.program.kernels.len() - 1))
    }

    pub(crate) fn push(&mut self, step: Step) {
        self.program.blocks[0].steps.push(step);
    }

    pub(crate) fn run_kernel(&mut self, name: &str, form: impl Into<Built>) {
        let step = self.kernel(name, form.into().0);
        self.push(step);
    }

    pub(crate) fn exit(&mut self, name: &str) -> u32 {
        self.program.exits.push(Exit { name: name.into() });
        self.program.exits.len() as u32 - 1
    }

    pub(crate) fn session(&self, threads: usize) -> Result<Session, Error> {
        let constants = self.constants.clone();
        let options = Options { threads, ..Options::default() };
        Session::new(self.program.clone(), &|hash| constants.get(&hash).cloned(), options)
    }

    pub(crate) fn run(&self, inputs: &[(&str, Tensor)]) -> Run {
        self.try_run(inputs, 2).expect("the program runs")
    }

    pub(crate) fn try_run(&self, inputs: &[(&str, Tensor)], threads: usize) -> Result<Run, Error> {
        self.session(threads)?.run(inputs, Control::Auto)
    }
}

/// A form.
pub(crate) struct Built(pub(crate) Form);

impl From<Loop> for Built {
    fn from(form: Loop) -> Built {
        Built(Form::Loop(form))
    }
}

impl From<Form> for Built {
    fn from(form: Form) -> Built {
        Built(form)
    }
}

/// A loop under construction.
pub(crate) struct LoopBuilder(pub(crate) Loop);

impl LoopBuilder {
    pub(crate) fn new(dims: &[Dim]) -> LoopBuilder {
        LoopBuilder::with_inner(dims, &[])
    }

    pub(crate) fn with_inner(dims: &[Dim], inner: &[Dim]) -> LoopBuilder {
        LoopBuilder(Loop {
            dims: dims.to_vec(),
            inner: inner.to_vec(),
            inputs: vec![],
            exprs: vec![],
            reductions: vec![],
            stores: vec![],
        })
    }

    pub(crate) fn input(&mut self, view: View) -> u32 {
        self.0.inputs.push(view);
        self.0.inputs.len() as u32 - 1
    }

    pub(crate) fn expr(&mut self, expr: Expr) -> ExprId {
        self.0.exprs.push(expr);
        ExprId(self.0.exprs.len() as u32 - 1)
    }

    pub(crate) fn load(&mut self, view: View) -> ExprId {
        let input = self.input(view);
        self.expr(Expr::Load(input))
    }

    pub(crate) fn reduce(&mut self, function: ReductionFn, value: ExprId) -> ExprId {
        self.0.reductions.push(Reduction { function, value });
        self.expr(Expr::Reduced(self.0.reductions.len() as u32 - 1))
    }

    pub(crate) fn store(&mut self, per: Per, view: View, value: ExprId) {
        self.0.stores.push(Store { per, view, value });
    }
}

/// Numbers that differ by position, around zero.
pub(crate) fn ramp(dims: &[usize], scale: f32) -> Tensor {
    let len: usize = dims.iter().product();
    let value = |i: usize| ((i * 37 + 11) % 101) as f32 * scale - 50.0 * scale;
    Tensor::new(dims, (0..len).map(value).collect::<Vec<f32>>()).expect("a tensor")
}

pub(crate) fn floats(tensor: &Tensor) -> Vec<f32> {
    tensor.elements::<f32>().expect("floats").into_owned()
}

pub(crate) fn symbol(name: &str) -> Symbol {
    Symbol::new(name)
}
