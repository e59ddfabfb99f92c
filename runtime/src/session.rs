//! A compiled model that is ready to run.

use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::{AtomicPtr, AtomicU64};
use std::time::Instant;

use eec_ir::bind::{Sizes, check_assumptions};
use eec_ir::ops::control::no_size;
use eec_ir::program::{Program, SizeStep, Source, Step, verify};
use eec_ir::{ContentHash, DType, Symbol, Tensor};

use crate::artifact::{Artifact, Held};
use crate::call::{self, AUTO};
use crate::code::Code;
use crate::context::{CALLEES, Context, Fault, Host, MEASURES};
use crate::epilogue::epilogues;
use crate::error::{Error, ErrorKind};
use crate::host::Calls;
use crate::memory::Arena;
use crate::pack;
use crate::plan::{Plan, Planner};
use crate::pool::Pool;
use crate::run::{Control, Counters, GpuCounters, Measure, Options, PortInfo, Run};
use crate::runner::Runner;
use crate::symbols;

/// A compiled model with its weights, threads and memory.
///
/// ```no_run
/// use eec_runtime::{Control, Options, Session, Tensor};
///
/// let mut session = Session::load("model.eec".as_ref(), Options::default())?;
/// let x = Tensor::new(&[1, 4], vec![0.1f32, 0.2, 0.3, 0.4])?;
/// let run = session.run(&[("x", x)], Control::Auto)?;
/// println!("{:?} after {} multiply-accumulates", run.outputs, run.counters.macs);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Session {
    program: Program,
    /// Those that kernels read as they are.
    constants: Vec<Option<Tensor>>,
    weight_bytes: usize,
    code: Code,
    host: Host,
    planner: Planner,
    arena: Arena,
    step_limit: u64,
    buffers: Vec<AtomicPtr<u8>>,
    homes: Vec<AtomicPtr<u8>>,
    symbols: Vec<i64>,
    /// The position of every symbol among them.
    slots: HashMap<Symbol, usize>,
    controls: Vec<i64>,
    counters: Vec<u64>,
}

impl Session {
    /// Compiles `program`; `constants` gives the bytes of a constant.
    ///
    /// Fails if the program breaks its rules or a constant is missing or differs from its description.
    pub fn new(
        program: Program,
        constants: &dyn Fn(ContentHash) -> Option<Tensor>,
        options: Options,
    ) -> Result<Session, Error> {
        Session::with(program, &|hash| constants(hash).map(Held::Plain), &|_| {}, options)
    }

    /// Compiles a program of the artifact, from whose weights it is packed as they are stored.
    ///
    /// Fails as [`Session::new`] does.
    pub fn of_artifact(artifact: &Artifact, program: Program, options: Options) -> Result<Session, Error> {
        Session::with(program, &|hash| artifact.held(hash), &|hash| artifact.release(hash), options)
    }

    fn with(
        program: Program,
        constants: &dyn Fn(ContentHash) -> Option<Held>,
        release: &(dyn Fn(ContentHash) + Sync),
        options: Options,
    ) -> Result<Session, Error> {
        let named = |kind, why: &dyn std::fmt::Display| call::error(&program, kind, why);
        let verified = verify(&program).map_err(|e| named(ErrorKind::Program, &e))?;
        let code = Code::of(verified, &options)?;
        let constants = load_constants(&program, constants)?;
        let pool = Pool::new(threads(options.threads));
        let release = |constant: u32| release(program.constants[constant as usize].hash);
        let packed = pack::pack(&program, &constants, &pool, &release)
            .ok_or_else(|| named(ErrorKind::Memory, &"no memory for its weights in the order of the kernels"))?;
        if let Some(kernel) = pack::unpacked(&program, &packed) {
            let error = named(ErrorKind::Program, &"its narrow weights are not one dense matrix inside a constant");
            return Err(error.at_node(&kernel.name));
        }
        let slots = symbols::numbered(&program);
        let calls = Calls::of(&program, &slots);
        let per_kernel = if options.profile { 1 + MEASURES } else { 1 };
        Ok(Session {
            weight_bytes: constants.iter().map(Held::bytes).sum(),
            constants: tensors(constants),
            host: Host { pool, packed, epilogues: epilogues(&program), calls, start: Instant::now() },
            planner: Planner::new(&program, options.memory_limit),
            arena: Arena::default(),
            step_limit: options.step_limit,
            buffers: program.buffers.iter().map(|_| AtomicPtr::default()).collect(),
            homes: program.buffers.iter().map(|_| AtomicPtr::default()).collect(),
            symbols: vec![0; slots.len()],
            slots,
            controls: vec![AUTO; program.exits.len() + program.gates.len()],
            counters: vec![0; 1 + program.exits.len() + program.gates.len() + per_kernel * program.kernels.len()],
            code,
            program,
        })
    }

    /// Loads and compiles the artifact at `path`.
    pub fn load(path: &Path, options: Options) -> Result<Session, Error> {
        let artifact = Artifact::open(path)?;
        Session::of_artifact(&artifact, artifact.program()?, options)
    }

    /// Loads and compiles an artifact that is part of the program; see
    /// [`include_artifact!`](crate::include_artifact).
    pub fn embedded(artifact: &'static [u8], options: Options) -> Result<Session, Error> {
        let artifact = Artifact::embedded(artifact)?;
        Session::of_artifact(&artifact, artifact.program()?, options)
    }

    /// The program.
    pub fn program(&self) -> &Program {
        &self.program
    }

    /// The inputs.
    pub fn inputs(&self) -> Vec<PortInfo> {
        self.program.inputs.iter().map(PortInfo::of).collect()
    }

    /// The outputs.
    pub fn outputs(&self) -> Vec<PortInfo> {
        self.program.outputs.iter().map(PortInfo::of).collect()
    }

    /// The names of the early exits.
    pub fn exits(&self) -> Vec<&str> {
        self.program.exits.iter().map(|e| e.name.as_str()).collect()
    }

    /// The names of the gates.
    pub fn gates(&self) -> Vec<&str> {
        self.program.gates.iter().map(|g| g.name.as_str()).collect()
    }

    /// Threads that compute.
    pub fn threads(&self) -> usize {
        self.host.pool.threads()
    }

    /// Bytes of the weights as they are stored.
    pub fn weight_bytes(&self) -> usize {
        self.weight_bytes
    }

    /// Bytes of the arena so far.
    pub fn arena_bytes(&self) -> usize {
        self.arena.len()
    }

    /// Runs the model on inputs by name.
    ///
    /// Fails if names, types or dims are not the model's (all such problems in one error), if the
    /// memory limit is too low, and if a kernel meets an index out of range or an integer division by zero.
    pub fn run(&mut self, inputs: &[(&str, Tensor)], control: Control) -> Result<Run, Error> {
        let inputs = call::in_order(&self.program, inputs)?;
        self.controls = call::control_words(&self.program, control)?;
        let inputs: Vec<Tensor> = inputs.into_iter().map(aligned).collect();
        let plan = self.planner.plan(&self.program, &self.slots, &inputs);
        let plan = plan.map_err(|e| e.of(&self.program))?;
        self.fill_tables(&plan, &inputs)?;
        let mut context = Context {
            buffers: self.buffers.as_mut_ptr().cast(),
            homes: self.homes.as_ptr().cast(),
            symbols: self.symbols.as_mut_ptr(),
            controls: self.controls.as_ptr(),
            counters: self.counters.as_mut_ptr(),
            error: AtomicU64::new(0),
            callees: &CALLEES,
            steps: self.step_limit,
            host: &self.host,
        };
        let awake = self.host.pool.keep_awake();
        // SAFETY: the tables have an entry per buffer, symbol, exit, gate and kernel of the compiled program;
        // the plan checked all its accesses for these symbols, and inputs, constants and arena live on.
        unsafe { self.code.run(&mut context) };
        drop(awake);
        let error = context.error.into_inner();
        if error != 0 {
            return Err(self.fault(error, &inputs));
        }
        Ok(Run { outputs: self.outputs_of()?, counters: self.read_counters(), timeline: Vec::new() })
    }

    fn error(&self, kind: ErrorKind, why: impl std::fmt::Display) -> Error {
        call::error(&self.program, kind, why)
    }

    fn fill_tables(&mut self, plan: &Plan, inputs: &[Tensor]) -> Result<(), Error> {
        let Some(base) = self.arena.reserve(plan.layout.total) else {
            let why = format!("no memory for {} bytes of temporary buffers", plan.layout.total);
            return Err(self.error(ErrorKind::Memory, why));
        };
        for (i, buffer) in self.program.buffers.iter().enumerate() {
            let address = match buffer.source {
                Source::Input(input) => inputs[input as usize].bytes().as_ptr().cast_mut(),
                Source::Constant(constant) => {
                    let constant = self.constants[constant as usize].as_ref();
                    constant.map_or(std::ptr::null_mut(), |c| c.bytes().as_ptr().cast_mut())
                }
                Source::Temp | Source::Param | Source::Result => base.wrapping_add(plan.layout.offsets[i].unwrap_or(0)),
            };
            *self.buffers[i].get_mut() = address;
            *self.homes[i].get_mut() = address;
        }
        self.symbols.copy_from_slice(&plan.symbols);
        self.counters.fill(0);
        Ok(())
    }

    /// The outputs of a run that went well, which gave all symbols of the body their values.
    fn outputs_of(&mut self) -> Result<Vec<(String, Tensor)>, Error> {
        let mut outputs = Vec::with_capacity(self.program.outputs.len());
        for port in &self.program.outputs {
            let fail = |why: &dyn std::fmt::Display| {
                call::error(&self.program, ErrorKind::Program, format!("output {:?}: {why}", port.name))
            };
            let value = |symbol: &Symbol| self.slots.get(symbol).map(|slot| self.symbols[*slot]);
            let dims = port.dims.iter().map(|d| usize::try_from(d.eval(&value)?).ok()).collect::<Option<Vec<usize>>>();
            let dims = dims.ok_or_else(|| fail(&"its dims have no values"))?;
            let size = dims.iter().product::<usize>() * port.dtype.size();
            let first = *self.buffers[port.buffer.index()].get_mut();
            // SAFETY: the buffer, or what it stands for, has room for all sizes that its dims may have, as was
            // checked before the run.
            let bytes = unsafe { std::slice::from_raw_parts(first, size) }.to_vec();
            let tensor = Tensor::from_bytes(port.dtype, &dims, bytes).map_err(|e| fail(&e))?;
            outputs.push((port.name.clone(), tensor));
        }
        Ok(outputs)
    }

    fn read_counters(&self) -> Counters {
        let (exits, rest) = self.counters[1..].split_at(self.program.exits.len());
        let (gates, rest) = rest.split_at(self.program.gates.len());
        let (kernels, measures) = rest.split_at(self.program.kernels.len());
        let measure = |m: &[u64; MEASURES]| Measure { ns: m[0], macs: m[1], bytes: m[2] };
        Counters {
            kernels: kernels.iter().sum(),
            macs: self.counters[0],
            per_kernel: kernels.to_vec(),
            exit_rows: exits.to_vec(),
            gate_rows: gates.to_vec(),
            measures: measures.as_chunks().0.iter().map(measure).collect(),
            gpu: GpuCounters::default(),
        }
    }

    fn fault(&self, code: u64, inputs: &[Tensor]) -> Error {
        let (fault, number) = Fault::decode(code);
        let ranges = || call::integer_ranges(&self.program.inputs, inputs);
        let (kind, why) = match fault {
            Fault::Index => (ErrorKind::Kernel, format!("an index is out of range{}", ranges())),
            Fault::Division => (ErrorKind::Kernel, format!("an integer is divided by zero{}", ranges())),
            Fault::Memory => (ErrorKind::Memory, "there is no memory for the kernel's scratch".into()),
            Fault::Host => (ErrorKind::Kernel, self.host.calls.take_failure().unwrap_or_default()),
            Fault::Steps => (ErrorKind::Kernel, format!("loops take more than {} steps{}", self.step_limit, ranges())),
            Fault::Internal => (ErrorKind::Internal, "the kernel failed".into()),
            Fault::Size | Fault::Unequal => (ErrorKind::Kernel, format!("{}{}", self.wrong_size(number), ranges())),
        };
        let mut steps = self.program.blocks.iter().flat_map(|b| &b.steps);
        let error = self.error(kind, why);
        let name = match fault {
            Fault::Steps => steps.find_map(|step| match step {
                Step::Repeat(step) if step.body.0 as usize == number => Some(&step.name),
                Step::Repeat(_) | Step::Run(_) | Step::If(_) | Step::Route(_) | Step::Size(_) => None,
            }),
            Fault::Size | Fault::Unequal => self.size_step(number).map(|step| &step.name),
            Fault::Index | Fault::Division | Fault::Memory | Fault::Host | Fault::Internal => {
                self.program.kernels.get(number).map(|kernel| &kernel.name)
            }
        };
        match name {
            Some(name) => error.at_node(name),
            None => error,
        }
    }

    /// The step that binds the symbol of this number.
    fn size_step(&self, number: usize) -> Option<&SizeStep> {
        self.program.blocks.iter().flat_map(|b| &b.steps).find_map(|step| match step {
            Step::Size(step) => (self.slots.get(&step.symbol) == Some(&number)).then_some(step),
            Step::Repeat(_) | Step::Run(_) | Step::If(_) | Step::Route(_) => None,
        })
    }

    /// What is wrong with the size whose symbol has this number, after the run that found it.
    fn wrong_size(&self, number: usize) -> String {
        let values: Sizes = self.slots.iter().map(|(symbol, slot)| (symbol.clone(), self.symbols[*slot])).collect();
        let step = self.size_step(number);
        let most = step.and_then(|step| step.most.eval(&|symbol| values.get(symbol).copied()));
        let unequal = step.and_then(|step| check_assumptions(&step.equal, &values).err());
        match (self.symbols.get(number), most, unequal) {
            (Some(value), Some(most), _) if !(0..=most).contains(value) => no_size(*value, most),
            (_, _, Some(unequal)) => unequal.to_string(),
            (_, _, None) => "data gives a number that is no size here".into(),
        }
    }
}

impl Runner for Session {
    fn program(&self) -> &Program {
        self.program()
    }

    fn run(&mut self, inputs: &[(&str, Tensor)], control: Control) -> Result<Run, Error> {
        self.run(inputs, control)
    }

    fn device(&self) -> String {
        match self.threads() {
            1 => "cpu, 1 thread".into(),
            threads => format!("cpu, {threads} threads"),
        }
    }

    fn threads(&self) -> Option<usize> {
        Some(self.threads())
    }

    fn weight_bytes(&self) -> usize {
        self.weight_bytes()
    }

    fn arena_bytes(&self) -> usize {
        self.arena_bytes()
    }
}

/// The number of threads that is wanted; 0 stands for one per core.
pub(crate) fn threads(wanted: usize) -> usize {
    if wanted > 0 { wanted } else { std::thread::available_parallelism().map_or(1, |n| n.get()) }
}

/// The tensor, copied if its elements are not aligned.
fn aligned(tensor: Tensor) -> Tensor {
    let align = tensor.dtype().size();
    if tensor.bytes().as_ptr().addr().is_multiple_of(align) {
        return tensor;
    }
    let copy = match tensor.dtype() {
        DType::F32 => tensor.elements::<f32>().and_then(|e| Tensor::new(tensor.dims(), e.into_owned()).ok()),
        DType::I64 => tensor.elements::<i64>().and_then(|e| Tensor::new(tensor.dims(), e.into_owned()).ok()),
        DType::I32 => tensor.elements::<i32>().and_then(|e| Tensor::new(tensor.dims(), e.into_owned()).ok()),
        // Compiled code does not compute with the others, and loads them from any address.
        _ => None,
    };
    copy.unwrap_or(tensor)
}

/// The constants as they are stored. A narrow one is widened if anything but products by its packed weights
/// reads it.
fn load_constants(program: &Program, constants: &dyn Fn(ContentHash) -> Option<Held>) -> Result<Vec<Held>, Error> {
    let mut found = Vec::with_capacity(program.constants.len());
    for (index, constant) in program.constants.iter().enumerate() {
        let fail =
            |why: String| call::error(program, ErrorKind::Constant, format!("constant {}: {why}", constant.hash));
        let held = constants(constant.hash).ok_or_else(|| fail("its bytes are missing".into()))?;
        if held.dtype() != constant.dtype || held.dims() != constant.dims {
            let (dtype, dims) = (held.dtype(), held.dims());
            return Err(fail(format!("expected {}{:?}, found {dtype}{dims:?}", constant.dtype, constant.dims)));
        }
        found.push(match held {
            Held::Narrow(narrow) if pack::reads_packed(program, index as u32, &narrow) => Held::Narrow(narrow),
            Held::Narrow(narrow) => Held::Plain(narrow.widened().ok_or_else(|| fail("it is no tensor".into()))?),
            Held::Plain(tensor) => Held::Plain(aligned(tensor)),
        });
    }
    Ok(found)
}

/// The tensors of the constants that are not narrow.
fn tensors(constants: Vec<Held>) -> Vec<Option<Tensor>> {
    let tensor = |held| match held {
        Held::Plain(tensor) => Some(tensor),
        Held::Narrow(_) => None,
    };
    constants.into_iter().map(tensor).collect()
}
