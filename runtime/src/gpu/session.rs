//! A compiled model that is ready to run on a GPU.

use std::borrow::Cow;
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
use super::pipelines::{self, Pipelines};
use super::plan::{Fixed, Plan, Planner};
use super::profile::{Clock, Stamps};
use super::results::Ended;
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
        bindings::check(gpu, &program, &form)?;
        pipelines::check(gpu, &form)?;
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
        let pipelines = Pipelines::new(gpu, &form, uniform_words, options.cache.as_deref())?;
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

    fn parts(&self, plan: &Plan) -> Readback {
        Readback::of(&self.layout, &self.form, plan, self.stamps.as_ref())
    }

    /// Makes room for a plan and writes its parameters, unless the last run had the same.
    fn prepare(&mut self, plan: &Arc<Plan>, upload_words: usize) -> Result<(), Error> {
        let readback = self.parts(plan).words;
        self.buffers.reserve(&self.gpu, plan, upload_words, readback)?;
        if self.buffers.stale {
            let words = uniform_words(&self.form);
            self.groups = Groups::new(&self.gpu, &self.form, &self.pipelines, &self.buffers, words)?;
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

    /// Submits the recorded run, waits for its end, and gives what was read back.
    fn execute(&self, plan: &Plan, commands: Vec<wgpu::CommandBuffer>, clock: &mut Clock) -> Result<Vec<u8>, Error> {
        let words = self.parts(plan).words;
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
        clock.lap("submit");
        if let Some(submission) = submission {
            self.gpu.wait(submission, plan.timeout)?;
        }
        clock.lap("wait");
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
        let mut clock = Clock::start();
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
            self.execute(&plan, commands, &mut clock)
        });
        // The buffers are then in no state to be used again.
        let back = back.inspect_err(|e| self.broken = Some(e.clone()))?;
        let ended = Ended {
            program: &self.program,
            form: &self.form,
            layout: self.layout,
            plan: &plan,
            stamps: self.stamps.as_ref(),
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
