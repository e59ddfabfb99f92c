//! A compiled model that is ready to run on a GPU.

use std::borrow::Cow;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use eec_ir::gpu::{self, GpuProgram, State};
use eec_ir::program::{MAX_STEPS, Program, verify};
use eec_ir::{ContentHash, Tensor};

use super::bindings::{self, Buffers, Groups, Needed, Resident, Words};
use super::cache;
use super::device::Gpu;
use super::encode::{Readback, Recorder, asked_words};
use super::guard::Guard;
use super::host::{self, HostStep};
use super::pipelines::{self, Made, Pipelines};
use super::plan::{Fixed, Plan, Planner};
use super::profile::{Clock, Stamps};
use super::results::Ended;
use super::running::{Cuts, Progress, Running};
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
    /// The most steps that the loops of a run may make together.
    pub step_limit: u64,
    /// The most steps of loops that are recorded without knowing whether they are made. Of a loop that may make more,
    /// or whose steps only data limits, fewer are recorded at first, and the host asks in between whether it goes on.
    pub steps_ahead: u64,
    /// How long the host waits for a run, besides a generous time for its work, before the device is given up.
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
            step_limit: MAX_STEPS,
            steps_ahead: 1024,
            patience: Duration::from_secs(seconds),
            profile: false,
            host_ops: false,
            subgroups: true,
            cache: cache::folder(),
        }
    }
}

/// Dispatches with loops of which timestamps are kept until the host reads them.
const STAMPED: usize = 1 << 12;

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
        pipelines::check(gpu, &program, &form, 1)?;
        let has_texts = form.shaders.iter().any(|shader| shader.with_subgroups.is_some());
        let subgroups = options.subgroups && has_texts && gpu.subgroups()?;
        // A loop's dispatches take room again and again.
        let measured = form.dispatches.len().max(if form.repeats.is_empty() { 0 } else { STAMPED });
        let stamps = options.profile.then(|| Stamps::new(gpu, measured)).transpose()?;
        let limits = gpu.device().limits();
        let uniform_words = uniform_words(&form);
        let stride = uniform_words.next_multiple_of((limits.min_uniform_buffer_offset_alignment as usize / 4).max(1));
        let resident = Resident::of(&program, &form);
        let fixed = Fixed {
            stride,
            resident_words: resident.words,
            max_groups: limits.max_compute_workgroups_per_dimension,
            step_limit: options.step_limit,
            memory_limit: options.memory_limit,
        };
        let param_words = stride * form.dispatches.len().max(1);
        let needed = Needed { program: &program, form: &form, resident: &resident, param_words, constants };
        let buffers = Buffers::new(gpu, &needed)?;
        let arena = (1, buffers.arena.most());
        let made = Made { program: &program, form: &form, param_words: uniform_words, subgroups, arena };
        let pipelines = Pipelines::new(gpu, &made, options.cache.as_deref())?;
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

    /// Makes room for a plan and writes its parameters, unless the last run had the same.
    fn prepare(&mut self, plan: &Arc<Plan>, upload_words: usize) -> Result<(), Error> {
        let stamp_words = self.stamps.as_ref().map_or(0, |stamps| Stamps::words(stamps.room()));
        let asked = if plan.loops.is_empty() { 0 } else { asked_words(&self.layout, stamp_words) };
        let words = Words {
            upload: upload_words,
            readback: Readback::of(&self.layout, &self.form, plan, stamp_words).words,
            host: plan.host_words.max(asked),
        };
        pipelines::check(&self.gpu, &self.program, &self.form, self.buffers.arena.of(plan.arena_words))?;
        self.buffers.reserve(&self.gpu, plan, &words)?;
        if self.buffers.stale {
            let arena = (self.buffers.arena.buffers().len(), self.buffers.arena.most());
            let made = Made {
                program: &self.program,
                form: &self.form,
                param_words: uniform_words(&self.form),
                subgroups: self.subgroups,
                arena,
            };
            if self.pipelines.arena_bindings() != arena.0 {
                self.pipelines = Pipelines::new(&self.gpu, &made, self.options.cache.as_deref())?;
            }
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
        let done = self.upload(&state, &words).and_then(|()| {
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
                inputs: &places,
            };
            let cuts = Cuts {
                submission_macs: self.options.submission_macs,
                step_limit: self.options.step_limit,
                steps_ahead: self.options.steps_ahead,
                patience: self.options.patience,
            };
            let running = Running {
                gpu: &self.gpu,
                program: &self.program,
                recorder,
                steps: &self.steps,
                inputs,
                cuts,
                clock: &mut clock,
                progress: Progress::default(),
            };
            running.run()
        });
        // The buffers are then in no state to be used again.
        let done = done.inspect_err(|e| self.broken = Some(e.clone()))??;
        let ended = Ended {
            program: &self.program,
            form: &self.form,
            layout: self.layout,
            plan: &plan,
            stamps: self.stamps.as_ref(),
            steps: &self.steps,
            inputs,
            step_limit: self.options.step_limit,
        };
        ended.run(&done, clock)
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
        4 * self.buffers.arena.words()
    }
}
