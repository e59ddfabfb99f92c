//! The rules of a [`Program`], checked before any code generator sees one.
//!
//! 1. Ids exist: buffers, kernels, blocks, constants, inputs, exits, gates.
//! 2. A block's number is larger than its owner's, and no block has two owners; block 0 is the body.
//! 3. Symbols are bound where they are used: by an input dim that is a plain symbol, or as the rows or
//!    the length of an enclosing block (for buffers and assumptions, of any block), or by a step before the use in
//!    the same block or one around it. None is bound twice.
//! 4. Inputs and constants hold what their buffers say; parameters are `Param`, results `Result`.
//! 5. Kernels write `Temp` buffers only and never one that they read.
//! 6. Views have a stride per axis; expressions are well typed, operands first; reductions use only
//!    earlier ones, and what is stored per row does not depend on the inner index. Epilogues compute in f32.
//! 7. What the host runs steers nothing, and fits its operands and results.
//! 8. Dims have coefficients below [`Dim::LIMIT`]; axes, arguments, expressions and tables are of bounded
//!    number.
//! 9. A parameter is defined by one block, a result by one step, a `Temp` by the kernels of one block,
//!    all before it is read, and it is read only in that block and those inside it.
//! 10. A loop ends: it has a number of steps or a condition. Rows need the number.
//!
//! That views stay inside their buffers depends on the bound sizes: the runtime checks it before a run.

mod control;

use std::collections::{BTreeSet, HashSet};
use std::fmt;

use super::{
    Attention, Block, BlockId, Dense, Epilogue, Form, Host, Kernel, Loop, MatMul, Per, Port, Program, Source, Step,
    View, definitions,
};
use crate::dim::{Dim, Symbol};
use crate::entity::{BufferId, KernelId};
use crate::ops::{self, Facts};
use crate::precision::Precision;
use crate::types::{DType, Type};

/// The proof that a program keeps the rules of this module.
#[derive(Clone, Copy, Debug)]
pub struct VerifiedProgram<'a>(&'a Program);

impl<'a> VerifiedProgram<'a> {
    /// The program.
    pub fn program(&self) -> &'a Program {
        self.0
    }
}

/// Everything that is wrong with a program, one line per problem.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct VerifyErrors {
    /// The program's name.
    pub program: String,
    /// The problems in the order they were found, each with its place.
    pub problems: Vec<String>,
}

impl fmt::Display for VerifyErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "program {:?} breaks {} rule(s)", self.program, self.problems.len())?;
        self.problems.iter().try_for_each(|p| write!(f, "\n  {p}"))
    }
}

impl std::error::Error for VerifyErrors {}

/// Checks `program` against the rules of this module and reports everything that breaks one.
pub fn verify(program: &Program) -> Result<VerifiedProgram<'_>, VerifyErrors> {
    let mut verifier = Verifier {
        program,
        problems: Vec::new(),
        scope: BTreeSet::new(),
        bound: BTreeSet::new(),
        owned: HashSet::new(),
    };
    verifier.counts();
    verifier.ports();
    verifier.buffers();
    verifier.blocks();
    verifier.lengths();
    verifier.at_most("program", MAX_ARGUMENTS, verifier.bound.len(), "symbols");
    if verifier.problems.is_empty() {
        verifier.problems = definitions::check(program);
    }
    if verifier.problems.is_empty() {
        return Ok(VerifiedProgram(program));
    }
    Err(VerifyErrors { program: program.name.clone(), problems: verifier.problems })
}

/// Index spaces may not have more axes: code generators recurse over them.
const MAX_AXES: usize = 64;

/// A loop may not have more views, nor a program more symbols: a call passes them on the stack.
const MAX_ARGUMENTS: usize = 1 << 14;

/// Expressions of a loop, whose code must stay of a size that a stack bears.
const MAX_EXPRS: usize = 1 << 12;

/// Operands of an epilogue, whose places in a block are all at hand at once.
const MAX_OPERANDS: usize = 64;

/// A program may not have more buffers, kernels or exits: code generators address tables with 32-bit offsets.
const MAX_ITEMS: usize = 1 << 24;

/// Blocks may not nest deeper than this: checks and code generators recurse over them.
const MAX_DEPTH: usize = 256;

struct Verifier<'a> {
    program: &'a Program,
    problems: Vec<String>,
    /// Symbols that are bound here.
    scope: BTreeSet<Symbol>,
    /// Symbols that are bound anywhere.
    bound: BTreeSet<Symbol>,
    owned: HashSet<u32>,
}

impl Verifier<'_> {
    fn report(&mut self, place: &str, problem: impl fmt::Display) {
        self.problems.push(format!("{place}: {problem}"));
    }

    fn buffer(&mut self, place: &str, id: BufferId) -> Option<&super::Buffer> {
        let program = self.program;
        let found = program.buffers.get(id.index());
        if found.is_none() {
            self.report(place, format_args!("buffer {id} of {} does not exist", program.buffers.len()));
        }
        found
    }

    fn expect_dtype(&mut self, place: &str, id: BufferId, expected: DType) {
        let found = self.buffer(place, id).map(|b| b.dtype);
        if let Some(found) = found.filter(|f| *f != expected) {
            self.report(place, format_args!("buffer {id} must be {expected}, found {found}"));
        }
    }

    fn expect_source(&mut self, place: &str, id: BufferId, expected: Source) {
        let found = self.buffer(place, id).map(|b| b.source);
        if let Some(found) = found.filter(|f| *f != expected) {
            self.report(place, format_args!("buffer {id} must be {expected:?}, found {found:?}"));
        }
    }

    /// Checks a dim that is used under the current scope.
    fn dim(&mut self, place: &str, dim: &Dim) {
        let mut used = BTreeSet::new();
        dim.collect_symbols(&mut used);
        for symbol in used {
            if !self.scope.contains(&symbol) {
                self.report(place, format_args!("symbol {symbol} of `{dim}` is not bound here"));
            }
        }
        if !is_small(dim) {
            self.report(place, format_args!("`{dim}` has a coefficient beyond {}", Dim::LIMIT));
        }
    }

    fn dims<'d>(&mut self, place: &str, dims: impl IntoIterator<Item = &'d Dim>) {
        dims.into_iter().for_each(|d| self.dim(place, d));
    }

    fn counts(&mut self) {
        let program = self.program;
        for (count, what) in
            [(program.buffers.len(), "buffers"), (program.kernels.len(), "kernels"), (program.exits.len(), "exits")]
        {
            self.at_most("program", MAX_ITEMS, count, what);
        }
    }

    fn at_most(&mut self, place: &str, most: usize, found: usize, what: &str) {
        if found > most {
            self.report(place, format_args!("it has {found} {what}, more than {most}"));
        }
    }

    fn ports(&mut self) {
        let program = self.program;
        for (i, port) in program.inputs.iter().enumerate() {
            let place = format!("input {:?}", port.name);
            self.expect_source(&place, port.buffer, Source::Input(i as u32));
            self.scope.extend(port.dims.iter().filter_map(Dim::as_symbol).cloned());
        }
        self.bound = self.scope.clone();
        self.unique_names("input", &program.inputs);
        self.unique_names("output", &program.outputs);
        program.inputs.iter().for_each(|port| self.port(port));
    }

    /// Outputs may mention what steps of the body bind.
    fn outputs(&mut self) {
        let program = self.program;
        program.outputs.iter().for_each(|port| self.port(port));
    }

    fn port(&mut self, port: &Port) {
        let place = format!("port {:?}", port.name);
        self.expect_dtype(&place, port.buffer, port.dtype);
        self.dims(&place, &port.dims);
        let elements = Dim::product(&port.dims);
        let len = self.buffer(&place, port.buffer).map(|b| b.len.clone());
        if let Some(len) = len.filter(|len| *len != elements) {
            self.report(&place, format_args!("its dims hold `{elements}` elements, its buffer `{len}`"));
        }
    }

    fn unique_names(&mut self, kind: &str, ports: &[Port]) {
        let mut seen = HashSet::new();
        for port in ports.iter().filter(|p| !seen.insert(p.name.as_str())) {
            self.report(kind, format_args!("the name {:?} occurs twice", port.name));
        }
    }

    fn buffers(&mut self) {
        let program = self.program;
        for (i, buffer) in program.buffers.iter().enumerate() {
            let place = format!("buffer {}", BufferId::new(i));
            match buffer.source {
                Source::Input(input) => {
                    let port = program.inputs.get(input as usize);
                    if port.is_none_or(|p| p.buffer.index() != i) {
                        self.report(&place, format_args!("input {input} does not refer to it"));
                    }
                }
                Source::Constant(constant) => self.constant(&place, constant, buffer),
                Source::Temp | Source::Param | Source::Result => {}
            }
        }
    }

    fn constant(&mut self, place: &str, index: u32, buffer: &super::Buffer) {
        let Some(constant) = self.program.constants.get(index as usize) else {
            return self
                .report(place, format_args!("constant {index} of {} does not exist", self.program.constants.len()));
        };
        if constant.dtype != buffer.dtype {
            self.report(place, format_args!("it is {}, its constant {}", buffer.dtype, constant.dtype));
        }
        let elements = constant.dims.iter().try_fold(1i64, |n, d| n.checked_mul(i64::try_from(*d).ok()?));
        if elements.is_none() || buffer.len.as_const() != elements {
            self.report(place, format_args!("it has `{}` elements, its constant {:?}", buffer.len, constant.dims));
        }
    }

    /// Lengths and assumptions may mention any symbol that is bound somewhere.
    fn lengths(&mut self) {
        self.scope = self.bound.clone();
        for (a, b) in &self.program.assumptions {
            self.dims("assumption", [a, b]);
        }
        for (i, buffer) in self.program.buffers.iter().enumerate() {
            self.dim(&format!("buffer {}", BufferId::new(i)), &buffer.len);
        }
    }

    fn blocks(&mut self) {
        let Some(body) = self.program.blocks.first() else {
            return self.report("program", "it has no body");
        };
        if !body.params.is_empty() || body.rows.is_some() {
            self.report("block 0", "the body takes no parameters and no rows");
        }
        self.block(BlockId(0), body, 0);
    }

    fn block(&mut self, id: BlockId, block: &Block, depth: usize) {
        let place = format!("block {}", id.0);
        if depth > MAX_DEPTH {
            return self.report(&place, format_args!("blocks nest deeper than {MAX_DEPTH}"));
        }
        for param in block.params.iter().flatten() {
            self.expect_source(&place, *param, Source::Param);
        }
        for (i, step) in block.steps.iter().enumerate() {
            let place = format!("{place}, step {i}");
            match step {
                Step::Run(kernel) => self.run(&place, *kernel),
                Step::If(step) => self.branch(&place, id, step, depth),
                Step::Route(step) => self.route(&place, id, step, depth),
                Step::Repeat(step) => self.repeat(&place, id, step, depth),
                Step::Size(step) => self.late(&place, step),
            }
        }
        if id.0 == 0 {
            self.outputs();
        }
        for id in &block.yields {
            self.buffer(&place, *id);
        }
    }

    fn run(&mut self, place: &str, id: KernelId) {
        let program = self.program;
        let Some(kernel) = program.kernels.get(id.index()) else {
            return self.report(place, format_args!("kernel {id} of {} does not exist", program.kernels.len()));
        };
        self.kernel(&format!("{place}, kernel {id} ({})", kernel.name), kernel);
    }

    fn kernel(&mut self, place: &str, kernel: &Kernel) {
        self.dim(place, &kernel.macs);
        let (reads, writes) = (kernel.form.reads(), kernel.form.writes());
        for id in &writes {
            self.expect_source(place, *id, Source::Temp);
            if reads.contains(id) {
                self.report(place, format_args!("it reads buffer {id}, which it writes"));
            }
        }
        match &kernel.form {
            Form::Loop(form) => self.row_loop(place, form),
            Form::MatMul(form) => self.matmul(place, form),
            Form::Attention(form) => self.attention(place, form),
            Form::Conv(form) => {
                self.dims(place, form.x_dims.iter().chain(&form.w_dims).chain(&form.y_size));
                self.all_f32(place, &kernel.form);
                self.view(place, &form.x, 4);
                let geometry = form.strides.iter().chain(&form.dilations).chain([&form.group]);
                self.geometry(place, geometry, &form.pads);
                form.epilogue.iter().for_each(|epilogue| self.epilogue(place, epilogue, 3));
            }
            Form::Pool(form) => {
                self.dims(place, form.x_dims.iter().chain(&form.y_size));
                self.all_f32(place, &kernel.form);
                self.view(place, &form.x, 4);
                if form.x.strides.get(1).is_none_or(|s| s.as_const() != Some(1)) {
                    self.report(place, "the channels that it pools are not neighbours");
                }
                let geometry = form.strides.iter().chain(&form.dilations).chain(&form.kernel);
                self.geometry(place, geometry, &form.pads);
            }
            Form::Scan(form) => {
                self.dims(place, [&form.outer, &form.len, &form.inner]);
                self.expect_dtype(place, form.x, form.dtype);
                self.expect_dtype(place, form.y, form.dtype);
                if form.dtype == DType::Bool || !form.dtype.is_compiled() {
                    self.report(place, format_args!("{} values have no running sum", form.dtype));
                }
            }
            Form::Host(form) => self.host(place, form),
        }
    }

    /// The operator fits its operands, and its results are what it gives, sizes aside.
    fn host(&mut self, place: &str, form: &Host) {
        let tensors = form.inputs.iter().chain(&form.outputs);
        self.at_most(place, MAX_ARGUMENTS, tensors.clone().count(), "operands and results");
        tensors.for_each(|t| self.dims(place, &t.dims));
        if form.op.late_symbol().is_some() {
            self.report(place, "the host makes no sizes");
        }
        form.op.clone().map_dims(&mut |dim| {
            self.dim(place, dim);
            dim.clone()
        });
        let Some(types) = form.inputs.iter().map(|t| self.tensor_type(place, t)).collect::<Option<Vec<_>>>() else {
            return;
        };
        let facts: Vec<Facts> = types.into_iter().map(Facts::of).collect();
        let found = match ops::infer(&form.op, &facts) {
            Ok(inference) => inference.outputs,
            Err(error) => return self.report(place, error),
        };
        let given: Vec<Type> = form.outputs.iter().filter_map(|t| self.tensor_type(place, t)).collect();
        let alike = |(a, b): (&Facts, &Type)| a.ty.dtype == b.dtype && a.ty.rank() == b.rank();
        if found.len() != given.len() || !found.iter().zip(&given).all(alike) {
            self.report(place, format_args!("{} does not give {given:?}", form.op));
        }
    }

    fn tensor_type(&mut self, place: &str, tensor: &Dense) -> Option<Type> {
        let dtype = self.buffer(place, tensor.buffer)?.dtype;
        Some(Type::new(dtype, tensor.dims.iter().cloned()))
    }

    fn all_f32(&mut self, place: &str, form: &Form) {
        for id in form.reads().into_iter().chain(form.writes()) {
            self.expect_dtype(place, id, DType::F32);
        }
    }

    fn geometry<'g>(&mut self, place: &str, positive: impl Iterator<Item = &'g i64>, pads: &[i64]) {
        const LIMIT: i64 = 1 << 31;
        let mut positive = positive.filter(|v| !(1..LIMIT).contains(*v));
        let mut pads = pads.iter().filter(|v| !(0..LIMIT).contains(*v));
        if let Some(bad) = positive.next().or(pads.next()) {
            self.report(place, format_args!("{bad} is not a usable stride, dilation, window, group or pad"));
        }
    }

    fn view(&mut self, place: &str, view: &View, axes: usize) {
        self.dim(place, &view.offset);
        self.dims(place, &view.strides);
        if view.strides.len() != axes {
            self.report(
                place,
                format_args!("a view of {} has {} strides, expected {axes}", view.buffer, view.strides.len()),
            );
        }
    }

    fn matmul(&mut self, place: &str, form: &MatMul) {
        self.at_most(place, MAX_AXES, form.batch.len() + 2, "axes");
        self.dims(place, form.batch.iter().chain([&form.m, &form.n, &form.k]));
        for view in [&form.a, &form.b, &form.c] {
            self.view(place, view, form.batch.len() + 2);
        }
        if let Some(bias) = &form.bias {
            self.view(place, bias, 1);
        }
        for id in [Some(form.a.buffer), Some(form.b.buffer), Some(form.c.buffer), form.bias.as_ref().map(|b| b.buffer)]
        {
            id.into_iter().for_each(|id| self.expect_dtype(place, id, DType::F32));
        }
        if form.c.strides.last().and_then(Dim::as_const) != Some(1) {
            self.report(place, "the last stride of a product must be 1");
        }
        form.epilogue.iter().for_each(|epilogue| self.epilogue(place, epilogue, form.batch.len() + 2));
        if form.weights != Precision::F32 && !self.is_one_constant(form) {
            self.report(place, format_args!("{} weights must be one matrix of a constant", form.weights));
        }
    }

    /// Whether b is the same constant matrix for the whole batch.
    fn is_one_constant(&self, form: &MatMul) -> bool {
        let buffer = self.program.buffers.get(form.b.buffer.index());
        let is_constant = buffer.is_some_and(|b| matches!(b.source, Source::Constant(_)));
        let (batch, matrix) = form.b.strides.split_at(form.batch.len().min(form.b.strides.len()));
        let fixed = [&form.b.offset, &form.k, &form.n].into_iter().chain(matrix).all(|d| d.as_const().is_some());
        is_constant && fixed && batch.iter().all(|s| s.as_const() == Some(0))
    }

    /// The epilogue of a result with so many axes.
    fn epilogue(&mut self, place: &str, epilogue: &Epilogue, axes: usize) {
        let place = format!("{place}, epilogue");
        self.at_most(&place, MAX_OPERANDS, epilogue.operands.len(), "operands");
        for view in &epilogue.operands {
            self.view(&place, view, axes);
            self.expect_dtype(&place, view.buffer, DType::F32);
            if !matches!(view.strides.last().and_then(Dim::as_const), Some(0 | 1)) {
                self.report(&place, "the last stride of an operand must be 0 or 1");
            }
        }
        if let Err(problem) = epilogue.check() {
            self.report(&place, problem);
        }
    }

    fn attention(&mut self, place: &str, form: &Attention) {
        self.at_most(place, Attention::MAX_BATCH, form.batch.len(), "batch axes");
        self.dims(place, form.batch.iter().chain([&form.m, &form.n, &form.d, &form.width]));
        for view in [&form.q, &form.k, &form.v, &form.c].into_iter().chain(&form.mask) {
            self.view(place, view, form.batch.len() + 2);
            self.expect_dtype(place, view.buffer, DType::F32);
        }
        if form.c.strides.last().and_then(Dim::as_const) != Some(1) {
            self.report(place, "the last stride of a product must be 1");
        }
    }

    fn row_loop(&mut self, place: &str, form: &Loop) {
        self.dims(place, form.dims.iter().chain(&form.inner));
        let before = self.problems.len();
        let axes = form.dims.len() + form.inner.len();
        self.at_most(place, MAX_AXES, axes, "axes");
        self.at_most(place, MAX_ARGUMENTS, form.inputs.len() + form.stores.len(), "inputs and stores");
        self.at_most(place, MAX_EXPRS, form.exprs.len() + form.reductions.len(), "expressions and reductions");
        for view in &form.inputs {
            self.view(place, view, axes);
            self.buffer(place, view.buffer);
        }
        for store in &form.stores {
            self.view(place, &store.view, if store.per == Per::Row { form.dims.len() } else { axes });
            self.buffer(place, store.view.buffer);
        }
        self.expr_dims(place, form);
        if form.reductions.is_empty() && !form.inner.is_empty() {
            self.report(place, "a loop without reductions has no inner dims");
        }
        if self.problems.len() == before {
            self.exprs(place, form);
        }
    }

    fn expr_dims(&mut self, place: &str, form: &Loop) {
        for expr in &form.exprs {
            match expr {
                super::Expr::Size(dim) => self.dim(place, dim),
                super::Expr::LoadAt { at, .. } => at.iter().for_each(|c| self.dims(place, [&c.extent, &c.stride])),
                super::Expr::Load(_) | super::Expr::Index(_) | super::Expr::Const(_) | super::Expr::Unary(..) => {}
                super::Expr::Binary(..) | super::Expr::Select(..) | super::Expr::Cast(..) | super::Expr::Reduced(_) => {
                }
            }
        }
    }

    fn exprs(&mut self, place: &str, form: &Loop) {
        let program = self.program;
        let dtype = |input: usize| Some(program.buffer(form.inputs.get(input)?.buffer).dtype);
        let facts = match form.facts(&dtype) {
            Ok(facts) => facts,
            Err(problem) => return self.report(place, problem),
        };
        for (i, reduction) in form.reductions.iter().enumerate() {
            match facts.get(reduction.value.0 as usize) {
                None => {
                    self.report(place, format_args!("reduction {i}: expression {} does not exist", reduction.value.0))
                }
                Some(fact) if fact.reductions as usize > i => {
                    self.report(place, format_args!("reduction {i} needs reduction {}", fact.reductions - 1));
                }
                Some(fact) if fact.dtype == DType::Bool => {
                    self.report(place, format_args!("reduction {i}: bool values do not reduce"))
                }
                Some(_) => {}
            }
        }
        for (i, store) in form.stores.iter().enumerate() {
            let Some(fact) = facts.get(store.value.0 as usize) else {
                self.report(place, format_args!("store {i}: expression {} does not exist", store.value.0));
                continue;
            };
            self.expect_dtype(place, store.view.buffer, fact.dtype);
            if store.per == Per::Row && fact.inner {
                self.report(place, format_args!("store {i} is made per row, but its value differs inside the row"));
            }
        }
    }
}

fn is_small(dim: &Dim) -> bool {
    use crate::dim::Atom;
    let small_atom = |a: &Atom| match a {
        Atom::Symbol(_) => true,
        Atom::FloorDiv(a, b) | Atom::Max(a, b) | Atom::Min(a, b) => is_small(a) && is_small(b),
    };
    dim.terms().iter().all(|t| t.coef.unsigned_abs() < Dim::LIMIT as u64 && t.factors.iter().all(small_atom))
}

impl Form {
    /// The buffers that it reads.
    pub fn reads(&self) -> Vec<BufferId> {
        match self {
            Form::Loop(f) => f.inputs.iter().map(|v| v.buffer).collect(),
            Form::Attention(f) => [&f.q, &f.k, &f.v].into_iter().chain(&f.mask).map(|v| v.buffer).collect(),
            Form::MatMul(f) => {
                let views = [&f.a, &f.b].into_iter().chain(&f.bias);
                views.chain(f.epilogue.iter().flat_map(|e| &e.operands)).map(|v| v.buffer).collect()
            }
            Form::Conv(f) => {
                let operands = f.epilogue.iter().flat_map(|e| &e.operands).map(|v| v.buffer);
                [f.x.buffer, f.w].into_iter().chain(f.bias).chain(operands).collect()
            }
            Form::Pool(f) => vec![f.x.buffer],
            Form::Scan(f) => vec![f.x],
            Form::Host(f) => f.inputs.iter().map(|t| t.buffer).collect(),
        }
    }

    /// The buffers that it writes.
    pub fn writes(&self) -> Vec<BufferId> {
        match self {
            Form::Loop(f) => f.stores.iter().map(|s| s.view.buffer).collect(),
            Form::MatMul(f) => vec![f.c.buffer],
            Form::Attention(f) => vec![f.c.buffer],
            Form::Conv(f) => vec![f.y],
            Form::Pool(f) => vec![f.y],
            Form::Scan(f) => vec![f.y],
            Form::Host(f) => f.outputs.iter().map(|t| t.buffer).collect(),
        }
    }

    /// Every place where it names a buffer.
    pub fn buffers_mut(&mut self) -> Vec<&mut BufferId> {
        match self {
            Form::Loop(f) => {
                let views = f.inputs.iter_mut().chain(f.stores.iter_mut().map(|s| &mut s.view));
                views.map(|v| &mut v.buffer).collect()
            }
            Form::Attention(f) => {
                let views = [&mut f.q, &mut f.k, &mut f.v, &mut f.c].into_iter().chain(&mut f.mask);
                views.map(|v| &mut v.buffer).collect()
            }
            Form::MatMul(f) => {
                let views = [&mut f.a, &mut f.b, &mut f.c].into_iter().chain(&mut f.bias);
                views.chain(f.epilogue.iter_mut().flat_map(|e| &mut e.operands)).map(|v| &mut v.buffer).collect()
            }
            Form::Conv(f) => {
                let operands = f.epilogue.iter_mut().flat_map(|e| &mut e.operands).map(|v| &mut v.buffer);
                [&mut f.x.buffer, &mut f.w, &mut f.y].into_iter().chain(&mut f.bias).chain(operands).collect()
            }
            Form::Pool(f) => vec![&mut f.x.buffer, &mut f.y],
            Form::Scan(f) => vec![&mut f.x, &mut f.y],
            Form::Host(f) => f.inputs.iter_mut().chain(&mut f.outputs).map(|t| &mut t.buffer).collect(),
        }
    }
}
