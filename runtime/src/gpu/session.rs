//! A compiled model that is ready to run on a GPU.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use eec_ir::gpu::{self, Fault, GpuProgram, State};
use eec_ir::program::{Program, verify};
use eec_ir::{ContentHash, Symbol, Tensor};

use super::bindings::{Buffers, Groups, Needed, Resident, check_types};
use super::device::Gpu;
use super::encode::{Readback, Recorder};
use super::pipelines::Pipelines;
use super::plan::{Fixed, Plan, Planner, kernels};
use super::words;
use crate::call;
use crate::error::{Error, ErrorKind};
use crate::run::{Control, Counters, GpuCounters, Run};
use crate::runner::Runner;

/// How work behind a decision is kept from running.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Guard {
    /// Its dispatches start as always, and return at once.
    #[default]
    Direct,
    /// Its dispatches start no workgroup: decisions write how many.
    Indirect,
}

/// How a session runs on a GPU.
#[derive(Clone, Debug)]
pub struct GpuOptions {
    /// How work behind a decision is kept from running.
    pub guard: Guard,
    /// The most bytes that temporary buffers may take, beside the adapter's limits.
    pub memory_limit: usize,
    /// The most multiply-accumulates of one submission. Systems stop a GPU that does not answer for some seconds,
    /// so longer runs are cut, with nothing read back between the parts.
    pub submission_macs: u64,
}

impl GpuOptions {
    /// The defaults for an adapter: submissions that take it a fraction of a second, without a limit where it is
    /// software, which nothing stops.
    pub fn of(gpu: &Gpu) -> GpuOptions {
        let submission_macs = match gpu.adapter().kind {
            "discrete" => 1 << 38,
            "software" => u64::MAX,
            _ => 1 << 34,
        };
        GpuOptions { guard: Guard::default(), memory_limit: 16 << 30, submission_macs }
    }
}

/// A compiled model with its weights, pipelines and memory on a GPU.
pub struct GpuSession {
    gpu: Gpu,
    program: Program,
    form: GpuProgram,
    layout: State,
    options: GpuOptions,
    fixed: Fixed,
    resident: Resident,
    planner: Planner,
    pipelines: Pipelines,
    buffers: Buffers,
    groups: Groups,
    /// The plan whose parameters are on the device.
    written: Option<Arc<Plan>>,
    /// Why no run is possible any more.
    broken: Option<Error>,
}

impl GpuSession {
    /// Compiles the shaders of `form`, which was made of `program`, and uploads the weights; `constants` gives the
    /// bytes of a constant.
    ///
    /// Fails if the program or its form breaks its rules, if a constant is missing or differs from its
    /// description, and if the adapter lacks a feature, memory or a limit that the model needs.
    pub fn new(
        gpu: &Gpu,
        program: Program,
        form: GpuProgram,
        constants: &dyn Fn(ContentHash) -> Option<Tensor>,
        options: GpuOptions,
    ) -> Result<GpuSession, Error> {
        let named = |why: &dyn std::fmt::Display| call::error(&program, ErrorKind::Program, why);
        verify(&program).map_err(|e| named(&e))?;
        let problems = gpu::verify(&program, &form);
        if !problems.is_empty() {
            return Err(named(&problems.join("\n")));
        }
        check_types(&program)?;
        let limits = gpu.device().limits();
        let uniform_words =
            form.dispatches.iter().map(|d| d.params.len().max(1).next_multiple_of(4)).max().unwrap_or(4);
        let stride = uniform_words.next_multiple_of((limits.min_uniform_buffer_offset_alignment as usize / 4).max(1));
        let resident = Resident::of(&program, &form);
        let fixed = Fixed {
            stride,
            resident_words: resident.words,
            max_groups: limits.max_compute_workgroups_per_dimension,
            submission_macs: options.submission_macs,
            memory_limit: options.memory_limit,
        };
        let param_words = stride * form.dispatches.len().max(1);
        let needed = Needed { program: &program, form: &form, resident: &resident, param_words, constants };
        let pipelines = Pipelines::new(gpu, &form, uniform_words)?;
        let buffers = Buffers::new(gpu, &needed)?;
        let groups = Groups::new(gpu, &form, &pipelines, &buffers, uniform_words)?;
        Ok(GpuSession {
            layout: State::of(&program, &form),
            planner: Planner::new(&program, &form, fixed),
            gpu: gpu.clone(),
            program,
            form,
            options,
            fixed,
            resident,
            pipelines,
            buffers,
            groups,
            written: None,
            broken: None,
        })
    }

    /// The device that runs it.
    pub fn gpu(&self) -> &Gpu {
        &self.gpu
    }

    /// How work behind a decision is kept from running.
    pub fn guard(&self) -> Guard {
        self.options.guard
    }

    fn uniform_words(&self) -> usize {
        self.form.dispatches.iter().map(|d| d.params.len().max(1).next_multiple_of(4)).max().unwrap_or(4)
    }

    /// Makes room for a plan and writes its parameters, unless the last run had the same.
    fn prepare(&mut self, plan: &Arc<Plan>, upload_words: usize) -> Result<(), Error> {
        let readback = Readback::of(&self.layout, &self.form, plan).words;
        if self.buffers.reserve(&self.gpu, plan, upload_words, readback)? {
            let uniform_words = self.uniform_words();
            self.groups = Groups::new(&self.gpu, &self.form, &self.pipelines, &self.buffers, uniform_words)?;
        }
        if !self.written.as_ref().is_some_and(|written| Arc::ptr_eq(written, plan)) {
            let bytes: &[u8] = bytemuck::cast_slice(&plan.params);
            self.gpu.scoped("the parameters", || self.gpu.queue().write_buffer(&self.buffers.params, 0, bytes))?;
            self.written = Some(Arc::clone(plan));
        }
        Ok(())
    }

    /// Writes the state and the inputs where the device takes them from.
    fn upload(&self, state: &[i32], inputs: &[std::borrow::Cow<'_, [u8]>]) -> Result<(), Error> {
        let write = || {
            let mut view = self.buffers.upload.slice(..).get_mapped_range_mut().map_err(|e| e.to_string())?;
            let mut at = 0;
            for bytes in std::iter::once(bytemuck::cast_slice(state)).chain(inputs.iter().map(|i| &**i)) {
                view.slice(at..at + bytes.len()).copy_from_slice(bytes);
                at += bytes.len();
            }
            drop(view);
            self.buffers.upload.unmap();
            Ok(())
        };
        let written: Result<(), String> = self.gpu.scoped("the inputs", write)?;
        written.map_err(|why| self.gpu.error(ErrorKind::Internal, format!("the inputs: {why}")))
    }

    /// Submits the recorded run, waits for its end, and gives what was read back.
    fn execute(&self, plan: &Plan, commands: Vec<wgpu::CommandBuffer>) -> Result<Vec<u8>, Error> {
        let words = Readback::of(&self.layout, &self.form, plan).words;
        let failure: Arc<Mutex<Option<String>>> = Arc::default();
        let map = |buffer: &wgpu::Buffer, mode, bytes: u64| {
            let failure = Arc::clone(&failure);
            buffer.slice(..bytes).map_async(mode, move |mapped| {
                if let Err(e) = mapped {
                    *failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(e.to_string());
                }
            });
        };
        let submission = self.gpu.scoped("a run", || {
            let mut last = None;
            for commands in commands {
                last = Some(self.gpu.queue().submit([commands]));
            }
            map(&self.buffers.readback, wgpu::MapMode::Read, 4 * words as u64);
            map(&self.buffers.upload, wgpu::MapMode::Write, self.buffers.upload.size());
            last
        })?;
        if let Some(submission) = submission {
            self.gpu.wait(submission, plan.timeout)?;
        }
        if let Some(why) = failure.lock().unwrap_or_else(PoisonError::into_inner).take() {
            return Err(self.gpu.error(ErrorKind::Device, format!("its results cannot be read: {why}")));
        }
        let read = || {
            let view = self.buffers.readback.slice(..4 * words as u64).get_mapped_range().map_err(|e| e.to_string())?;
            let bytes = view.to_vec();
            drop(view);
            self.buffers.readback.unmap();
            Ok(bytes)
        };
        let read: Result<Vec<u8>, String> = self.gpu.scoped("the results", read)?;
        read.map_err(|why| self.gpu.error(ErrorKind::Internal, format!("the results: {why}")))
    }

    /// Runs with inputs in order; a failure of the device is returned by all later runs as well.
    fn run_in_order(&mut self, inputs: &[Tensor], controls: &[i64]) -> Result<Run, Error> {
        let plan = self.planner.plan(&self.program, &self.form, &self.resident.offsets, inputs);
        let plan = plan.map_err(|e| e.of(&self.program))?;
        let mut words = Vec::with_capacity(inputs.len());
        let mut places = Vec::with_capacity(inputs.len());
        for ((tensor, place), port) in inputs.iter().zip(&plan.inputs).zip(&self.program.inputs) {
            let Some(place) = place else { continue };
            let encoded = words::encode(tensor);
            let encoded = encoded
                .map_err(|why| call::error(&self.program, ErrorKind::Input, format!("input {:?} {why}", port.name)))?;
            places.push((*place, encoded.len() / 4));
            words.push(encoded);
        }
        let mut state = plan.state.clone();
        let control_words = &mut state[self.layout.controls()..self.layout.rows()];
        control_words.iter_mut().zip(controls).for_each(|(word, control)| *word = *control as i32);
        let upload_words = self.layout.len() + places.iter().map(|(_, words)| words).sum::<usize>();
        self.prepare(&plan, upload_words)?;
        let back = self.upload(&state, &words).and_then(|()| {
            let recorder = Recorder {
                device: self.gpu.device(),
                form: &self.form,
                layout: self.layout,
                plan: &plan,
                pipelines: &self.pipelines,
                groups: &self.groups,
                buffers: &self.buffers,
                guard: self.options.guard,
                stride: self.fixed.stride,
            };
            let commands = self.gpu.scoped("a run", || recorder.record(&places))?;
            self.execute(&plan, commands)
        });
        // The buffers are then in no state to be used again.
        let back = back.inspect_err(|e| self.broken = Some(e.clone()))?;
        self.results(&plan, &back, inputs)
    }

    /// What a run gave.
    fn results(&self, plan: &Plan, back: &[u8], inputs: &[Tensor]) -> Result<Run, Error> {
        let parts = Readback::of(&self.layout, &self.form, plan);
        let numbers = |range: Range<usize>| -> Vec<i32> {
            back[4 * range.start..4 * range.end].as_chunks().0.iter().map(|w| i32::from_le_bytes(*w)).collect()
        };
        let counted = numbers(parts.counters..parts.state);
        let (ran, fault) = counted.split_at(self.form.dispatches.len());
        if let Some(fault) = fault.first().filter(|f| **f != 0) {
            return Err(self.fault(*fault as u32, inputs));
        }
        let mut outputs = Vec::with_capacity(plan.outputs.len());
        for (port, (dims, words)) in self.program.outputs.iter().zip(&plan.outputs) {
            let bytes = &back[4 * (parts.outputs + words.start)..4 * (parts.outputs + words.end)];
            let tensor = words::decode(port.dtype, dims, bytes);
            let tensor = tensor.map_err(|why| {
                call::error(&self.program, ErrorKind::Program, format!("output {:?}: {why}", port.name))
            })?;
            outputs.push((port.name.clone(), tensor));
        }
        let counters = self.counters(plan, ran, &numbers(parts.state..parts.words), parts.words);
        Ok(Run { outputs, counters })
    }

    /// Counts kernels and their work; `end` is the end of the state: rows per decision, then the logs.
    fn counters(&self, plan: &Plan, ran: &[i32], end: &[i32], readback_words: usize) -> Counters {
        let (rows, logs) = end.split_at(self.layout.logs() - self.layout.rows());
        let mut per_kernel = vec![0u64; self.program.kernels.len()];
        let mut macs = 0u64;
        for (dispatch, ran) in self.form.dispatches.iter().zip(ran).filter(|(_, ran)| **ran > 0) {
            let log = logs.get(dispatch.instance as usize * self.form.symbols.len()..).unwrap_or_default();
            let value = |symbol: &Symbol| {
                let at = self.form.symbols.iter().position(|s| s == symbol)?;
                log.get(at).map(|word| i64::from(*word))
            };
            for kernel in kernels(&dispatch.role, &dispatch.with) {
                per_kernel[kernel.index()] += *ran as u64;
                let once = self.program.kernel(kernel).macs.eval(&value).unwrap_or(0);
                macs = macs.saturating_add((once.max(0) as u64).saturating_mul(*ran as u64));
            }
        }
        let (exits, gates) = rows.split_at(self.program.exits.len());
        let counts = |words: &[i32]| words.iter().map(|n| (*n).max(0) as u64).collect();
        Counters {
            kernels: per_kernel.iter().sum(),
            macs,
            per_kernel,
            exit_rows: counts(exits),
            gate_rows: counts(gates),
            measures: Vec::new(),
            gpu: GpuCounters {
                submits: plan.submissions.len() as u64,
                dispatches: self.form.dispatches.len() as u64,
                readback_bytes: 4 * readback_words as u64,
            },
        }
    }

    fn fault(&self, word: u32, inputs: &[Tensor]) -> Error {
        let ranges = || call::integer_ranges(&self.program.inputs, inputs);
        let (dispatch, fault) = (((word - 1) / 2) as usize, (word - 1) % 2);
        let why = match fault == Fault::Index as u32 {
            true => format!("an index is out of range{}", ranges()),
            false => format!("an integer is divided by zero{}", ranges()),
        };
        let error = call::error(&self.program, ErrorKind::Kernel, why);
        let dispatch = self.form.dispatches.get(dispatch);
        match dispatch.and_then(|d| kernels(&d.role, &d.with).next()) {
            Some(kernel) => error.at_node(&self.program.kernel(kernel).name),
            None => error,
        }
    }
}

impl Runner for GpuSession {
    fn program(&self) -> &Program {
        &self.program
    }

    fn run(&mut self, inputs: &[(&str, Tensor)], control: Control) -> Result<Run, Error> {
        if let Some(broken) = &self.broken {
            return Err(broken.clone());
        }
        let inputs = call::in_order(&self.program, inputs)?;
        let controls = call::control_words(&self.program, control)?;
        self.run_in_order(&inputs, &controls)
    }

    fn device(&self) -> String {
        format!("gpu, {}", self.gpu.adapter().name)
    }

    fn weight_bytes(&self) -> usize {
        self.buffers.weight_bytes()
    }

    fn arena_bytes(&self) -> usize {
        self.buffers.arena.size() as usize
    }
}
