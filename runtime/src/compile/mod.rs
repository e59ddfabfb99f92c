//! Machine code for a Program: an entry function for its steps and a function per distinct loop.

mod callee;
mod control;
mod entry;
mod exprs;
#[cfg(feature = "jit")]
pub(crate) mod jit;
mod lanes;
mod loops;
mod math;
mod plan;
mod profile;
mod reductions;
mod size;
mod strips;

use std::collections::HashMap;
use std::mem::offset_of;

use cranelift::codegen::ir::{FuncRef, UserFuncName};
use cranelift::codegen::settings::SetError;
use cranelift::codegen::{CodegenError, Context as Codegen};
use cranelift::prelude::types::{F32, I64};
use cranelift::prelude::*;
use cranelift_module::{FuncId, Module, ModuleError};
use eec_ir::dim::{Dim, Symbol};
use eec_ir::program::{BinaryFn, Expr, Form, Loop, Program, VerifiedProgram};
use eec_ir::{BufferId, DType};

use self::callee::Callee;
use self::entry::{Entry, Helpers, Tables};
use self::loops::{ARG_BUFFERS, Imports};
use self::plan::{LoopCode, Plan};
use crate::context::{ATTENTION_WORDS, CONV_WORDS, Callees};
use crate::jobs::MAX_PRODUCTS;
use crate::products::MATMUL_WORDS;
use crate::symbols;

/// Why code could not be generated.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CompileError {
    /// It cannot be generated for this CPU or system.
    #[error("no code can be generated for {0}: {1}")]
    Target(String, String),
    /// A loop cannot be walked.
    #[error("kernel {0}: {1}")]
    Loop(String, String),
    /// The code generator refused.
    #[error("the code generator failed: {0}")]
    Codegen(String),
}

impl From<ModuleError> for CompileError {
    fn from(error: ModuleError) -> Self {
        CompileError::Codegen(error.to_string())
    }
}

impl From<SetError> for CompileError {
    fn from(error: SetError) -> Self {
        CompileError::Codegen(error.to_string())
    }
}

impl From<CodegenError> for CompileError {
    fn from(error: CodegenError) -> Self {
        CompileError::Codegen(error.to_string())
    }
}

/// How a kernel calls its loop.
struct LoopSite {
    /// Which of the compiled loops.
    code: usize,
    /// Inputs, then stores.
    buffers: Vec<BufferId>,
    /// The loop's numbered symbols.
    symbols: Vec<Symbol>,
    /// Operations per outer index.
    work: Dim,
    /// Whether it may report a fault.
    can_fail: bool,
}

/// Code for a program in a module: its entry function, and what it is called with is [`Context`](crate::context::Context).
pub(crate) struct Compiled<M> {
    pub(crate) module: M,
    pub(crate) entry: FuncId,
}

/// Compiles a program into `module`. With `profile` the code also measures every kernel.
pub(crate) fn compile<M: Module>(
    module: M,
    program: VerifiedProgram<'_>,
    profile: bool,
) -> Result<Compiled<M>, CompileError> {
    let mut compiler = Compiler::new(module);
    let program = program.program();
    let sites = compiler.loops(program)?;
    let entry = compiler.entry(program, &sites, &symbols::numbered(program), profile)?;
    Ok(Compiled { module: compiler.module, entry })
}

/// The settings of code; `is_pic` for code that is linked, else for code that stays where it is made.
pub(crate) fn flags(is_pic: bool) -> Result<settings::Flags, SetError> {
    let mut flags = settings::builder();
    for (name, value) in [
        ("opt_level", "speed"),
        ("is_pic", if is_pic { "true" } else { "false" }),
        ("use_colocated_libcalls", "false"),
        ("enable_verifier", VERIFIER),
        // A frame larger than a guard page must not step over it.
        ("enable_probestack", "true"),
        ("probestack_strategy", "inline"),
    ] {
        flags.set(name, value)?;
    }
    Ok(settings::Flags::new(flags))
}

struct Compiler<M> {
    module: M,
    codegen: Codegen,
    builder: FunctionBuilderContext,
    /// Whether the CPU has fused multiply-adds.
    fused: bool,
    /// The distinct loops.
    loops: Vec<FuncId>,
    known: HashMap<Vec<u8>, usize>,
}

impl<M: Module> Compiler<M> {
    fn new(module: M) -> Compiler<M> {
        let has_no_fma = |f: &settings::Value| f.name == "has_fma" && f.as_bool() == Some(false);
        let fused = !module.isa().isa_flags().iter().any(has_no_fma);
        let (codegen, builder) = (module.make_context(), FunctionBuilderContext::new());
        Compiler { module, codegen, builder, fused, loops: Vec::new(), known: HashMap::new() }
    }

    /// Compiles every distinct loop once; gives the site of every kernel that is one.
    fn loops(&mut self, program: &Program) -> Result<Vec<Option<LoopSite>>, CompileError> {
        let mut sites = Vec::with_capacity(program.kernels.len());
        for kernel in &program.kernels {
            let Form::Loop(body) = &kernel.form else {
                sites.push(None);
                continue;
            };
            let loop_error = |why| CompileError::Loop(kernel.name.clone(), why);
            let (code, buffers, symbols) = canonical(program, body);
            let plan = Plan::new(&code).map_err(loop_error)?;
            let key = postcard::to_stdvec(&code).map_err(|e| loop_error(e.to_string()))?;
            let index = match self.known.get(&key) {
                Some(index) => *index,
                None => {
                    let numbers: Vec<Symbol> = (0..symbols.len()).map(numbered).collect();
                    self.define_loop(&code, &plan, &numbers)?;
                    self.known.insert(key, self.loops.len() - 1);
                    self.loops.len() - 1
                }
            };
            let work = &Dim::from(plan.cost(&code)) * &Dim::product(&body.inner);
            sites.push(Some(LoopSite { code: index, buffers, symbols, work, can_fail: can_fail(&code) }));
        }
        Ok(sites)
    }

    fn define_loop(&mut self, code: &LoopCode, plan: &Plan, symbols: &[Symbol]) -> Result<(), CompileError> {
        let signature = self.signature(&[I64; 3], None);
        let id = self.module.declare_anonymous_function(&signature)?;
        self.codegen.func.signature = signature;
        self.codegen.func.name = UserFuncName::user(0, id.as_u32());
        let imports = Imports {
            sin: self.callee(offset_of!(Callees, sin), &[F32], Some(F32)),
            cos: self.callee(offset_of!(Callees, cos), &[F32], Some(F32)),
            pow: self.callee(offset_of!(Callees, pow), &[F32; 2], Some(F32)),
            apply: self.callee(offset_of!(Callees, apply), &[I64; 3], None),
        };
        let mut b = FunctionBuilder::new(&mut self.codegen.func, &mut self.builder);
        loops::emit(&mut b, code, plan, imports, self.fused, symbols);
        b.finalize(self.module.target_config());
        self.define(id)?;
        self.loops.push(id);
        Ok(())
    }

    fn define(&mut self, id: FuncId) -> Result<(), CompileError> {
        let defined = self.module.define_function(id, &mut self.codegen);
        self.module.clear_context(&mut self.codegen);
        Ok(defined?)
    }

    fn signature(&self, params: &[Type], result: Option<Type>) -> Signature {
        let mut signature = self.module.make_signature();
        signature.params.extend(params.iter().map(|t| AbiParam::new(*t)));
        signature.returns.extend(result.map(AbiParam::new));
        signature
    }

    /// The function of the runtime at this offset of the table, for the function being built.
    fn callee(&mut self, offset: usize, params: &[Type], result: Option<Type>) -> Callee {
        let signature = self.signature(params, result);
        Callee { signature: self.codegen.func.import_signature(signature), offset }
    }

    fn entry(
        &mut self,
        program: &Program,
        sites: &[Option<LoopSite>],
        symbols: &HashMap<Symbol, usize>,
        profile: bool,
    ) -> Result<FuncId, CompileError> {
        let signature = self.signature(&[I64], None);
        let id = self.module.declare_anonymous_function(&signature)?;
        self.codegen.func.signature = signature;
        self.codegen.func.name = UserFuncName::user(0, id.as_u32());
        let helpers = Helpers {
            run_loop: self.callee(offset_of!(Callees, run_loop), &[I64; 5], None),
            run_matmul: self.callee(offset_of!(Callees, run_matmul), &[I64; 2], None),
            run_matmuls: self.callee(offset_of!(Callees, run_matmuls), &[I64; 3], None),
            run_attention: self.callee(offset_of!(Callees, run_attention), &[I64; 2], None),
            run_conv: self.callee(offset_of!(Callees, run_conv), &[I64; 2], None),
            run_pool: self.callee(offset_of!(Callees, run_pool), &[I64; 2], None),
            run_scan: self.callee(offset_of!(Callees, run_scan), &[I64; 2], None),
            run_host: self.callee(offset_of!(Callees, run_host), &[I64; 2], None),
            count_rows: self.callee(offset_of!(Callees, count_rows), &[I64; 3], Some(I64)),
            gather_rows: self.callee(offset_of!(Callees, gather_rows), &[I64; 6], None),
            scatter_rows: self.callee(offset_of!(Callees, scatter_rows), &[I64; 6], None),
            copy_bytes: self.callee(offset_of!(Callees, copy_bytes), &[I64; 3], None),
            zero_bytes: self.callee(offset_of!(Callees, zero_bytes), &[I64; 2], None),
            clock: self.callee(offset_of!(Callees, clock), &[I64], Some(I64)),
        };
        let ids = self.loops.clone();
        let loops: Vec<FuncRef> =
            ids.into_iter().map(|id| self.module.declare_func_in_func(id, &mut self.codegen.func)).collect();
        let bytes = words(program, sites).checked_mul(8).and_then(|n| u32::try_from(n).ok());
        let bytes = bytes.ok_or_else(|| CompileError::Codegen("a call has too many arguments".into()))?;
        let mut b = FunctionBuilder::new(&mut self.codegen.func, &mut self.builder);
        let tables = Tables::load(&mut b, bytes);
        Entry { b: &mut b, program, helpers, sites, loops: &loops, symbols, tables, profile }.emit();
        b.finalize(self.module.target_config());
        self.define(id)?;
        Ok(id)
    }
}

/// Checks generated code in debug builds.
const VERIFIER: &str = if cfg!(debug_assertions) { "true" } else { "false" };

/// The most words that one call needs.
fn words(program: &Program, sites: &[Option<LoopSite>]) -> usize {
    let of_loops = sites.iter().flatten().map(|s| ARG_BUFFERS + s.buffers.len() + s.symbols.len());
    let of_products = program.kernels.iter().map(|k| match &k.form {
        Form::MatMul(form) => {
            let (axes, operands) = (form.batch.len(), form.epilogue.as_ref().map_or(0, |e| e.operands.len()));
            let one = MATMUL_WORDS + 3 * operands + axes * (4 + operands);
            one.max(MAX_PRODUCTS * MATMUL_WORDS)
        }
        Form::Attention(_) => ATTENTION_WORDS,
        Form::Conv(form) => CONV_WORDS + 4 * form.epilogue.as_ref().map_or(0, |e| e.operands.len()),
        Form::Host(form) => 1 + form.inputs.len() + form.outputs.len(),
        Form::Loop(_) | Form::Pool(_) | Form::Scan(_) => CONV_WORDS,
    });
    of_loops.chain(of_products).max().unwrap_or(1)
}

fn numbered(index: usize) -> Symbol {
    Symbol::new(&format!("s{index}"))
}

/// A loop without what distinguishes it from equal ones: its buffers and its symbols.
fn canonical(program: &Program, body: &Loop) -> (LoopCode, Vec<BufferId>, Vec<Symbol>) {
    let symbols = plan::symbols(body);
    let views = || body.inputs.iter().chain(body.stores.iter().map(|s| &s.view));
    let buffers: Vec<BufferId> = views().map(|v| v.buffer).collect();
    let dtype = |id: &BufferId| program.buffer(*id).dtype;
    let inputs: Vec<DType> = buffers[..body.inputs.len()].iter().map(dtype).collect();
    let stores: Vec<DType> = buffers[body.inputs.len()..].iter().map(dtype).collect();
    let mut body = body.clone();
    if !symbols.is_empty() {
        let number = |s: &Symbol| Some(numbered(symbols.binary_search(s).ok()?).into());
        plan::map_dims(&mut body, &|dim| dim.substitute(&number));
    }
    for view in body.inputs.iter_mut().chain(body.stores.iter_mut().map(|s| &mut s.view)) {
        view.buffer = BufferId(0);
    }
    (LoopCode { body, inputs, stores }, buffers, symbols)
}

fn can_fail(code: &LoopCode) -> bool {
    code.body.exprs.iter().any(|expr| match expr {
        Expr::LoadAt { .. } => true,
        Expr::Binary(BinaryFn::Div, a, _) => code
            .body
            .facts(&|i| code.inputs.get(i).copied())
            .is_ok_and(|facts| facts.get(a.0 as usize).is_some_and(|f| f.dtype.is_int())),
        _ => false,
    })
}
