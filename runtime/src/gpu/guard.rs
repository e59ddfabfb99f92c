//! The two ways to keep work behind a decision from running, and which of them serves an adapter best.

use std::time::{Duration, Instant};

use super::cache;
use super::device::Gpu;
use crate::error::Error;

/// How work behind a decision is kept from running.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Guard {
    /// Its dispatches start as always, and return at once.
    #[default]
    Direct,
    /// Its dispatches start no workgroup: decisions write how many.
    Indirect,
}

impl Guard {
    /// Its name in settings.
    pub fn name(self) -> &'static str {
        match self {
            Guard::Direct => "direct",
            Guard::Indirect => "indirect",
        }
    }

    /// The better one for an adapter, as measured by this or an earlier process.
    ///
    /// Fails if the device does.
    pub fn best(gpu: &Gpu) -> Result<Guard, Error> {
        let known = cache::noted(gpu, "guard");
        let known = [Guard::Direct, Guard::Indirect].into_iter().find(|g| known.as_deref() == Some(g.name()));
        match known {
            Some(guard) => Ok(guard),
            None => Ok(GuardTimes::measure(gpu)?.best),
        }
    }
}

/// What a dispatch costs behind each guard, recording and submitting included.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct GuardTimes {
    /// Of a direct dispatch that runs.
    pub direct_ran: Duration,
    /// Of a direct dispatch that returns at once.
    pub direct_skipped: Duration,
    /// Of an indirect dispatch that runs.
    pub indirect_ran: Duration,
    /// Of an indirect dispatch without workgroups.
    pub indirect_skipped: Duration,
    /// The guard for which one of each costs less.
    pub best: Guard,
}

/// Workgroups of a measured dispatch: those of a middling matrix product.
const GROUPS: u32 = 128;

/// Numbers of dispatches whose times are compared.
const FEW: usize = 32;
const MANY: usize = 288;

/// Runs of which the fastest counts.
const RUNS: usize = 5;

/// How long one run may take.
const TIMEOUT: Duration = Duration::from_secs(60);

const SHADER: &str = "
@group(0) @binding(0) var<storage, read> live: array<u32>;
@group(0) @binding(1) var<storage, read_write> out: array<u32>;
@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    if (live[0] == 0u) { return; }
    out[id.x % arrayLength(&out)] = id.x;
}
";

impl GuardTimes {
    /// Measures an adapter, and notes for later processes which guard is better.
    ///
    /// Fails if the device does.
    pub fn measure(gpu: &Gpu) -> Result<GuardTimes, Error> {
        let bench = Bench::new(gpu)?;
        let time = |indirect: bool, live: bool| bench.per_dispatch(indirect, live);
        let (direct_ran, direct_skipped) = (time(false, true)?, time(false, false)?);
        let (indirect_ran, indirect_skipped) = (time(true, true)?, time(true, false)?);
        let better = direct_ran + direct_skipped <= indirect_ran + indirect_skipped;
        let best = if better { Guard::Direct } else { Guard::Indirect };
        cache::note(gpu, "guard", best.name());
        Ok(GuardTimes { direct_ran, direct_skipped, indirect_ran, indirect_skipped, best })
    }
}

/// A small kernel that runs or does not.
struct Bench<'g> {
    gpu: &'g Gpu,
    pipeline: wgpu::ComputePipeline,
    /// Of kernels that run, and of those that do not.
    groups: [wgpu::BindGroup; 2],
    /// The same as arguments.
    arguments: [wgpu::Buffer; 2],
}

impl Bench<'_> {
    fn new(gpu: &Gpu) -> Result<Bench<'_>, Error> {
        let device = gpu.device();
        let words = |values: &[u32], usage| gpu.filled("a measurement", bytemuck::cast_slice(values), usage);
        let storage = wgpu::BufferUsages::STORAGE;
        let out = gpu.buffer("a measurement", 1 << 14, storage)?;
        let live = [words(&[1], storage)?, words(&[0], storage)?];
        let indirect = wgpu::BufferUsages::INDIRECT | storage;
        let arguments = [words(&[GROUPS, 1, 1], indirect)?, words(&[0, 1, 1], indirect)?];
        gpu.scoped("a measurement", || {
            let module = device.create_shader_module(wgpu::ShaderModuleDescriptor {
                label: None,
                source: wgpu::ShaderSource::Wgsl(SHADER.into()),
            });
            let pipeline = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
                label: None,
                layout: None,
                module: &module,
                entry_point: Some("main"),
                compilation_options: wgpu::PipelineCompilationOptions::default(),
                cache: None,
            });
            let layout = pipeline.get_bind_group_layout(0);
            let group = |live: &wgpu::Buffer| {
                device.create_bind_group(&wgpu::BindGroupDescriptor {
                    label: None,
                    layout: &layout,
                    entries: &[
                        wgpu::BindGroupEntry { binding: 0, resource: live.as_entire_binding() },
                        wgpu::BindGroupEntry { binding: 1, resource: out.as_entire_binding() },
                    ],
                })
            };
            let groups = live.each_ref().map(group);
            Bench { gpu, pipeline, groups, arguments }
        })
    }

    /// The time of one more dispatch.
    fn per_dispatch(&self, indirect: bool, live: bool) -> Result<Duration, Error> {
        let fastest = |dispatches: usize| {
            let mut best = Duration::MAX;
            for _ in 0..RUNS {
                best = best.min(self.run(dispatches, indirect, live)?);
            }
            Ok::<Duration, Error>(best)
        };
        let (few, many) = (fastest(FEW)?, fastest(MANY)?);
        Ok(many.saturating_sub(few) / (MANY - FEW) as u32)
    }

    fn run(&self, dispatches: usize, indirect: bool, live: bool) -> Result<Duration, Error> {
        let which = usize::from(!live);
        let start = Instant::now();
        let submission = self.gpu.scoped("a measurement", || {
            let device = self.gpu.device();
            let mut encoder = device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
            let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
            for _ in 0..dispatches {
                pass.set_pipeline(&self.pipeline);
                pass.set_bind_group(0, &self.groups[which], &[]);
                match indirect {
                    true => pass.dispatch_workgroups_indirect(&self.arguments[which], 0),
                    false => pass.dispatch_workgroups(GROUPS, 1, 1),
                }
            }
            drop(pass);
            self.gpu.queue().submit([encoder.finish()])
        })?;
        self.gpu.wait(submission, TIMEOUT)?;
        Ok(start.elapsed())
    }
}
