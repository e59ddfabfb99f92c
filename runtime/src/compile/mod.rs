//! Machine code for a Program: an entry function for its steps and a function per distinct loop.

mod control;
mod entry;
mod exprs;
mod lanes;
mod loops;
mod math;
mod plan;
mod profile;
mod reductions;
mod size;
mod strips;

use std::collections::{BTreeSet, HashMap};

use cranelift::codegen::ir::{FuncRef, UserFuncName};
use cranelift::codegen::{CodegenError, Context as Codegen};
use cranelift::prelude::types::{F32, I64};
use cranelift::prelude::*;
use cranelift_jit::{JITBuilder, JITModule};
use cranelift_module::{FuncId, Linkage, Module, ModuleError, default_libcall_names};
use eec_ir::dim::{Dim, Symbol};
use eec_ir::program::{BinaryFn, Expr, Form, Loop, Program, Step, VerifiedProgram};
use eec_ir::{BufferId, DType};

use self::entry::{Entry, Helpers, Tables};
pub(crate) use self::exprs::operands;
use self::loops::{ARG_BUFFERS, Imports};
use self::plan::{LoopCode, Plan};
pub(crate) use self::profile::MEASURES;
use crate::context::{self, ATTENTION_WORDS, CONV_WORDS, Context};
use crate::jobs::MAX_PRODUCTS;
use crate::products::{self, MATMUL_WORDS};

/// Why code could not be generated.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CompileError {
    /// This CPU is not one that code can be generated for.
    #[error("no code can be generated for this CPU: {0}")]
    Host(String),
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

/// Compiled code and where it lives.
pub(crate) struct Code {
    module: Option<JITModule>,
    entry: unsafe extern "C" fn(*mut Context),
    /// The position of every symbol in the symbol table.
    pub(crate) symbols: HashMap<Symbol, usize>,
}

impl Code {
    /// Runs the program.
    ///
    /// # Safety
    ///
    /// The tables of `context` are complete for the program that this code was compiled from, and its
    /// bounds were checked for the symbols' values.
    pub(crate) unsafe fn run(&self, context: &mut Context) {
        // SAFETY: the caller's promise; the code lives as long as `self`.
        unsafe { (self.entry)(context) }
    }
}

impl Drop for Code {
    fn drop(&mut self) {
        if let Some(module) = self.module.take() {
            // SAFETY: nothing runs this code any more, since running borrows `self`.
            unsafe { module.free_memory() };
        }
    }
}

/// Compiles a program; `packed` gives the packed weights of every kernel. With `profile` the code also
/// measures every kernel.
pub(crate) fn compile(
    program: VerifiedProgram<'_>,
    packed: &[Option<usize>],
    profile: bool,
) -> Result<Code, CompileError> {
    let mut compiler = Compiler::new()?;
    let program = program.program();
    let sites = compiler.loops(program)?;
    let symbols = number_symbols(program);
    let entry = compiler.entry(program, &sites, packed, &symbols, profile)?;
    compiler.module.finalize_definitions()?;
    let address = compiler.module.get_finalized_function(entry);
    // SAFETY: `entry` was just defined with this signature.
    let entry = unsafe { std::mem::transmute::<*const u8, unsafe extern "C" fn(*mut Context)>(address) };
    Ok(Code { module: Some(compiler.module), entry, symbols })
}

/// Gives every symbol a position: those of the inputs, of the blocks' rows and of the joins' lengths.
fn number_symbols(program: &Program) -> HashMap<Symbol, usize> {
    let inputs = program.inputs.iter().flat_map(|p| &p.dims).filter_map(Dim::as_symbol);
    let rows = program.blocks.iter().filter_map(|b| b.rows.as_ref());
    let lengths = program.blocks.iter().flat_map(|b| &b.steps).filter_map(|step| match step {
        Step::Route(route) => route.join.as_ref()?.length.as_ref(),
        Step::Run(_) | Step::If(_) | Step::Repeat(_) => None,
    });
    let all: BTreeSet<&Symbol> = inputs.chain(rows).chain(lengths.map(|l| &l.symbol)).collect();
    all.into_iter().enumerate().map(|(i, s)| (s.clone(), i)).collect()
}

struct Compiler {
    module: JITModule,
    codegen: Codegen,
    builder: FunctionBuilderContext,
    fused: bool,
    /// The distinct loops.
    loops: Vec<FuncId>,
    known: HashMap<Vec<u8>, usize>,
}

impl Compiler {
    fn new() -> Result<Compiler, CompileError> {
        let host = |e: &dyn std::fmt::Display| CompileError::Host(e.to_string());
        let mut flags = settings::builder();
        for (name, value) in [
            ("opt_level", "speed"),
            ("is_pic", "false"),
            ("use_colocated_libcalls", "false"),
            ("enable_verifier", VERIFIER),
            // A frame larger than a guard page must not step over it.
            ("enable_probestack", "true"),
            ("probestack_strategy", "inline"),
        ] {
            flags.set(name, value).map_err(|e| host(&e))?;
        }
        let isa = cranelift_native::builder().map_err(|e| host(&e))?;
        let isa = isa.finish(settings::Flags::new(flags)).map_err(|e| host(&e))?;
        let x86_without_fma = isa.isa_flags().iter().any(|f| f.name == "has_fma" && f.as_bool() == Some(false));
        let mut builder = JITBuilder::with_isa(isa, default_libcall_names());
        for (name, _, _, address) in imports() {
            builder.symbol(name, address);
        }
        let module = JITModule::new(builder);
        let codegen = module.make_context();
        let builder = FunctionBuilderContext::new();
        Ok(Compiler { module, codegen, builder, fused: !x86_without_fma, loops: Vec::new(), known: HashMap::new() })
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
            sin: self.import("sin")?,
            cos: self.import("cos")?,
            pow: self.import("pow")?,
            apply: self.import("apply")?,
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

    /// A reference to a precompiled function in the function being built.
    fn import(&mut self, name: &str) -> Result<FuncRef, CompileError> {
        let Some((_, params, result, _)) = imports().into_iter().find(|i| i.0 == name) else {
            return Err(CompileError::Codegen(format!("no function {name}")));
        };
        let signature = self.signature(params, result);
        let id = self.module.declare_function(name, Linkage::Import, &signature)?;
        Ok(self.module.declare_func_in_func(id, &mut self.codegen.func))
    }

    fn entry(
        &mut self,
        program: &Program,
        sites: &[Option<LoopSite>],
        packed: &[Option<usize>],
        symbols: &HashMap<Symbol, usize>,
        profile: bool,
    ) -> Result<FuncId, CompileError> {
        let signature = self.signature(&[I64], None);
        let id = self.module.declare_anonymous_function(&signature)?;
        self.codegen.func.signature = signature;
        self.codegen.func.name = UserFuncName::user(0, id.as_u32());
        let helpers = Helpers {
            run_loop: self.import("run_loop")?,
            run_matmul: self.import("run_matmul")?,
            run_matmuls: self.import("run_matmuls")?,
            run_attention: self.import("run_attention")?,
            run_conv: self.import("run_conv")?,
            run_pool: self.import("run_pool")?,
            run_scan: self.import("run_scan")?,
            run_host: self.import("run_host")?,
            count_rows: self.import("count_rows")?,
            gather_rows: self.import("gather_rows")?,
            scatter_rows: self.import("scatter_rows")?,
            copy_bytes: self.import("copy_bytes")?,
            clock: self.import("clock")?,
        };
        let ids = self.loops.clone();
        let loops: Vec<FuncRef> =
            ids.into_iter().map(|id| self.module.declare_func_in_func(id, &mut self.codegen.func)).collect();
        let bytes = words(program, sites).checked_mul(8).and_then(|n| u32::try_from(n).ok());
        let bytes = bytes.ok_or_else(|| CompileError::Codegen("a call has too many arguments".into()))?;
        let mut b = FunctionBuilder::new(&mut self.codegen.func, &mut self.builder);
        let tables = Tables::load(&mut b, bytes);
        Entry { b: &mut b, program, helpers, sites, loops: &loops, packed, symbols, tables, profile }.emit();
        b.finalize(self.module.target_config());
        self.define(id)?;
        Ok(id)
    }
}

/// Checks generated code in debug builds.
const VERIFIER: &str = if cfg!(debug_assertions) { "true" } else { "false" };

type Import = (&'static str, &'static [Type], Option<Type>, *const u8);

/// The functions that generated code may call.
fn imports() -> [Import; 17] {
    [
        ("run_loop", &[I64; 5], None, context::run_loop as *const u8),
        ("run_matmul", &[I64; 2], None, products::run_matmul as *const u8),
        ("run_matmuls", &[I64; 3], None, products::run_matmuls as *const u8),
        ("run_attention", &[I64; 2], None, context::run_attention as *const u8),
        ("run_conv", &[I64; 2], None, context::run_conv as *const u8),
        ("run_pool", &[I64; 2], None, context::run_pool as *const u8),
        ("run_scan", &[I64; 2], None, context::run_scan as *const u8),
        ("run_host", &[I64; 2], None, context::run_host as *const u8),
        ("count_rows", &[I64; 3], Some(I64), context::count_rows as *const u8),
        ("gather_rows", &[I64; 6], None, context::gather_rows as *const u8),
        ("scatter_rows", &[I64; 6], None, context::scatter_rows as *const u8),
        ("copy_bytes", &[I64; 3], None, context::copy_bytes as *const u8),
        ("clock", &[I64], Some(I64), context::clock as *const u8),
        ("apply", &[I64; 3], None, context::apply as *const u8),
        ("sin", &[F32], Some(F32), context::sin as *const u8),
        ("cos", &[F32], Some(F32), context::cos as *const u8),
        ("pow", &[F32; 2], Some(F32), context::pow as *const u8),
    ]
}

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
