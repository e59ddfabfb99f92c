//! A compiled model that is ready to run on a GPU.

use std::borrow::Cow;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use eec_ir::gpu::{self, GpuProgram, State};
use eec_ir::program::{Program, verify};
use eec_ir::{ContentHash, Tensor};

use super::bindings::{self, Buffers, Groups, Needed, Resident};
use super::cache;
use super::device::Gpu;
use super::encode::{Readback, Recorder};
use super::guard::Guard;
use super::host::{self, HostStep};
use super::pipelines::{self, Made, Pipelines};
use super::plan::{Fixed, Part, Plan, Planner};
use super::profile::{Clock, Stamps};
use super::results::{Ended, fault, host_span};
use super::words;
use crate::artifact::Artifact;
use crate::call;
use crate::error::{Error, ErrorKind};
use crate::run::{Control, Run};
use crate::runner::Runner;

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
    /// How long a run may take, besides a generous time for its work, before the device is given up.
    pub patience: Duration,
    /// Whether every dispatch is measured.
    pub profile: bool,
    /// Whether kernels without a shader may run on the host: the run waits there, and what they read is read back.
    pub host_ops: bool,
    /// Whether reductions use subgroup operations, where the adapter's are found to work.
    pub subgroups: bool,
    /// Where compiled pipelines are kept for later processes; nowhere if absent.
    pub cache: Option<PathBuf>,
}

impl GpuOptions {
    /// The defaults for an adapter: submissions that take it a fraction of a second, without a limit where it is
    /// software, which nothing stops, but which compiles shaders when they first run.
    pub fn of(gpu: &Gpu) -> GpuOptions {
        let (submission_macs, seconds) = match gpu.adapter().kind {
            "discrete" => (1 << 38, 60),
            "software" => (u64::MAX, 1800),
            _ => (1 << 34, 60),
        };
        GpuOptions {
            guard: Guard::default(),
            memory_limit: 16 << 30,
            submission_macs,
            patience: Duration::from_secs(seconds),
            profile: false,
            host_ops: false,
            subgroups: true,
            cache: cache::folder(),
        }
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
    /// Whether shaders use subgroup operations.
    subgroups: bool,
    /// What the host computes, by dispatch.
    steps: HashMap<usize, HostStep>,
    resident: Resident,
    planner: Planner,
    pipelines: Pipelines,
    buffers: Buffers,
    groups: Groups,
    stamps: Option<Stamps>,
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
    /// description, if the adapter lacks memory or a limit that the model needs, and if the host must compute a kernel
    /// though [`GpuOptions::host_ops`] is not set.
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
        if !options.host_ops {
            host::refuse(&program, &form)?;
        }
        bindings::check(gpu, &program, &form)?;
        pipelines::check(gpu, &program, &form)?;
        let has_texts = form.shaders.iter().any(|shader| shader.with_subgroups.is_some());
        let subgroups = options.subgroups && has_texts && gpu.subgroups()?;
        let stamps = options.profile.then(|| Stamps::new(gpu, form.dispatches.len())).transpose()?;
        let limits = gpu.device().limits();
        let uniform_words = uniform_words(&form);
        let stride = uniform_words.next_multiple_of((limits.min_uniform_buffer_offset_alignment as usize / 4).max(1));
        let resident = Resident::of(&program, &form);
        let fixed = Fixed {
            stride,
            resident_words: resident.words,
            max_groups: limits.max_compute_workgroups_per_dimension,
            submission_macs: options.submission_macs,
            patience: options.patience,
            memory_limit: options.memory_limit,
        };
        let param_words = stride * form.dispatches.len().max(1);
        let needed = Needed { program: &program, form: &form, resident: &resident, param_words, constants };
        let made = Made { program: &program, form: &form, param_words: uniform_words, subgroups };
        let pipelines = Pipelines::new(gpu, &made, options.cache.as_deref())?;
        let buffers = Buffers::new(gpu, &needed)?;
        let groups = Groups::new(gpu, &made, &pipelines, &buffers)?;
        let steps = host::steps(&program, &form, &|constant| bindings::load(&needed, constant))?;
        Ok(GpuSession {
            layout: State::of(&program, &form),
            planner: Planner::new(&program, &form, fixed),
            gpu: gpu.clone(),
            program,
            form,
            options,
            fixed,
            subgroups,
            steps,
            resident,
            pipelines,
            buffers,
            groups,
            stamps,
            written: None,
            broken: None,
        })
    }

    /// Loads the artifact at `path`.
    ///
    /// Fails as [`GpuSession::new`] does, and if the artifact has no GPU form.
    pub fn load(gpu: &Gpu, path: &Path, options: GpuOptions) -> Result<GpuSession, Error> {
        let artifact = Artifact::open(path)?;
        let (program, form) = artifact.gpu()?;
        GpuSession::new(gpu, program, form, &|hash| artifact.constant(hash), options)
    }

    /// The device that runs it.
    pub fn gpu(&self) -> &Gpu {
        &self.gpu
    }

    /// How work behind a decision is kept from running.
    pub fn guard(&self) -> Guard {
        self.options.guard
    }

    /// Whether reductions use subgroup operations.
    pub fn uses_subgroups(&self) -> bool {
        self.subgroups
    }

    fn parts(&self, plan: &Plan) -> Readback {
        Readback::of(&self.layout, &self.form, plan, self.stamps.as_ref())
    }

    /// Makes room for a plan and writes its parameters, unless the last run had the same.
    fn prepare(&mut self, plan: &Arc<Plan>, upload_words: usize) -> Result<(), Error> {
        let readback = self.parts(plan).words;
        self.buffers.reserve(&self.gpu, plan, upload_words, readback)?;
        if self.buffers.stale {
            let made = Made {
                program: &self.program,
                form: &self.form,
                param_words: uniform_words(&self.form),
                subgroups: self.subgroups,
            };
            self.groups = Groups::new(&self.gpu, &made, &self.pipelines, &self.buffers)?;
            self.buffers.stale = false;
        }
        if !self.written.as_ref().is_some_and(|written| Arc::ptr_eq(written, plan)) {
            let bytes: &[u8] = bytemuck::cast_slice(&plan.params);
            self.gpu.scoped("the parameters", || self.gpu.queue().write_buffer(&self.buffers.params, 0, bytes))?;
            self.written = Some(Arc::clone(plan));
        }
        Ok(())
    }

    /// Writes the state and the inputs where the device takes them from.
    fn upload(&self, state: &[i32], inputs: &[Cow<'_, [u8]>]) -> Result<(), Error> {
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

    /// Submits the recorded run, computes what the host computes, waits for the end, and gives what was read back.
    ///
    /// Fails if the device does. The inner result fails if a step of the host does; the device then waits for the next
    /// run.
    fn execute(
        &self,
        plan: &Plan,
        commands: Vec<wgpu::CommandBuffer>,
        inputs: &[Tensor],
        clock: &mut Clock,
    ) -> Result<Result<Vec<u8>, Error>, Error> {
        let words = self.parts(plan).words;
        let (mut commands, mut last, mut stopped) = (commands.into_iter(), None, None);
        for part in &plan.parts {
            match part {
                Part::Submission(_) => {
                    let next = commands.next();
                    last = Some(self.gpu.scoped("a run", || self.gpu.queue().submit(next))?);
                }
                Part::Host(at) => {
                    clock.lap("submit");
                    let step = &self.steps[at];
                    stopped = self.host_step(plan, *at, last.take(), inputs)?.err();
                    clock.lap(&host_span(&self.program, step.kernel));
                    if stopped.is_some() {
                        break;
                    }
                }
            }
        }
        let mut mapped = vec![(&self.buffers.upload, wgpu::MapMode::Write, self.buffers.upload.size())];
        if stopped.is_none() {
            mapped.push((&self.buffers.readback, wgpu::MapMode::Read, 4 * words as u64));
        }
        clock.lap("submit");
        self.map(&mapped, last, plan.timeout)?;
        clock.lap("wait");
        match stopped {
            Some(error) => Ok(Err(error)),
            None => self.read(&self.buffers.readback, words).map(Ok),
        }
    }

    /// Computes a step of the host between the submission before it and the next one.
    fn host_step(
        &self,
        plan: &Plan,
        at: usize,
        before: Option<wgpu::SubmissionIndex>,
        inputs: &[Tensor],
    ) -> Result<Result<(), Error>, Error> {
        let (step, place) = (&self.steps[&at], &plan.host[&at]);
        self.map(&[(&self.buffers.host, wgpu::MapMode::Read, 4 * place.words() as u64)], before, plan.timeout)?;
        let bytes = self.read(&self.buffers.host, place.words())?;
        let (failed, operands) =
            bytes.split_first_chunk().map_or((0, &[][..]), |(w, rest)| (u32::from_le_bytes(*w), rest));
        if failed != 0 {
            return Ok(Err(fault(&self.program, &self.form, inputs, failed)));
        }
        let results = match step.run(place, operands) {
            Ok(results) => results,
            Err(why) => {
                let error = call::error(&self.program, ErrorKind::Kernel, why);
                return Ok(Err(error.at_node(&self.program.kernel(step.kernel).name)));
            }
        };
        self.gpu.scoped("a result of the host", || {
            for (first, bytes) in results.iter().filter(|(_, bytes)| !bytes.is_empty()) {
                self.gpu.queue().write_buffer(&self.buffers.arena, 4 * *first as u64, bytes);
            }
        })?;
        Ok(Ok(()))
    }

    /// Waits until a submission is done and so many bytes of these buffers can be seen.
    fn map(
        &self,
        buffers: &[(&wgpu::Buffer, wgpu::MapMode, u64)],
        submission: Option<wgpu::SubmissionIndex>,
        timeout: Duration,
    ) -> Result<(), Error> {
        let failure: Arc<Mutex<Option<String>>> = Arc::default();
        self.gpu.scoped("a run", || {
            for (buffer, mode, bytes) in buffers {
                let failure = Arc::clone(&failure);
                buffer.slice(..*bytes).map_async(*mode, move |mapped| {
                    if let Err(e) = mapped {
                        *failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(e.to_string());
                    }
                });
            }
        })?;
        self.gpu.wait(submission, timeout)?;
        match failure.lock().unwrap_or_else(PoisonError::into_inner).take() {
            Some(why) => Err(self.gpu.error(ErrorKind::Device, format!("its results cannot be read: {why}"))),
            None => Ok(()),
        }
    }

    /// The first words of a mapped buffer, which is then unmapped.
    fn read(&self, buffer: &wgpu::Buffer, words: usize) -> Result<Vec<u8>, Error> {
        let read = || {
            let view = buffer.slice(..4 * words as u64).get_mapped_range().map_err(|e| e.to_string())?;
            let bytes = view.to_vec();
            drop(view);
            buffer.unmap();
            Ok(bytes)
        };
        let read: Result<Vec<u8>, String> = self.gpu.scoped("the results", read)?;
        read.map_err(|why| self.gpu.error(ErrorKind::Internal, format!("the results: {why}")))
    }

    /// Runs with inputs in order; a failure of the device is returned by all later runs as well.
    fn run_in_order(&mut self, inputs: &[Tensor], controls: &[i64]) -> Result<Run, Error> {
        let mut clock = Clock::start();
        let plan = self.planner.plan(&self.program, &self.form, &self.resident.offsets, &self.steps, inputs);
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
            clock.lap("upload");
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
                stamps: self.stamps.as_ref(),
            };
            let commands = self.gpu.scoped("a run", || recorder.record(&places))?;
            clock.lap("record");
            self.execute(&plan, commands, inputs, &mut clock)
        });
        // The buffers are then in no state to be used again.
        let back = back.inspect_err(|e| self.broken = Some(e.clone()))??;
        let ended = Ended {
            program: &self.program,
            form: &self.form,
            layout: self.layout,
            plan: &plan,
            stamps: self.stamps.as_ref(),
            steps: &self.steps,
            inputs,
        };
        ended.run(&back, clock)
    }
}

/// Words of parameters that every dispatch sees: as many as the one with most.
fn uniform_words(form: &GpuProgram) -> usize {
    form.dispatches.iter().map(|d| d.params.len().max(1).next_multiple_of(4)).max().unwrap_or(4)
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
