//! Tries optional features of shaders with small kernels: a driver may claim what it does not do.

use std::time::Duration;

use eec_ir::gpu::Needs;

use super::device::Gpu;
use crate::error::Error;

/// Invocations of a probe.
const LANES: usize = 32;

/// How long a probe may take.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Every lane writes how many lanes its subgroup has here.
const SUBGROUPS: &str = "
@group(0) @binding(0) var<storage, read_write> out: array<f32>;
@compute @workgroup_size(32)
fn main(@builtin(local_invocation_index) lane: u32) {
    out[lane] = subgroupAdd(1.0 + 0.0 * out[lane]);
}
";

/// Every lane rounds a number to half precision, and multiplies.
const F16: &str = "
enable f16;
@group(0) @binding(0) var<storage, read_write> out: array<f32>;
@compute @workgroup_size(32)
fn main(@builtin(local_invocation_index) lane: u32) {
    let x = f16(0.1 + out[lane]);
    out[lane] = f32(x) + f32(f16(f32(lane)) * f16(1.5));
}
";

/// The features that work.
pub(super) fn features(gpu: &Gpu) -> Result<Needs, Error> {
    let claimed = gpu.device().features();
    let works = |feature, text, right: &dyn Fn(&[f32]) -> bool| {
        // A kernel that does not compile or does not end speaks against the feature, not against the device.
        let worked = || run(gpu, text).is_ok_and(|out| right(&out));
        claimed.contains(feature) && worked()
    };
    let tried = Needs {
        subgroups: works(wgpu::Features::SUBGROUP, SUBGROUPS, &equal_parts),
        f16: works(wgpu::Features::SHADER_F16, F16, &half_precision),
    };
    gpu.check()?;
    Ok(tried)
}

/// Whether the lanes are in subgroups of one size that divides them.
fn equal_parts(out: &[f32]) -> bool {
    let size = out.first().copied().unwrap_or(0.0);
    out.iter().all(|n| *n == size) && size >= 1.0 && LANES.is_multiple_of(size as usize)
}

fn half_precision(out: &[f32]) -> bool {
    out.iter().enumerate().all(|(lane, x)| *x == 0.099_975_586 + 1.5 * lane as f32)
}

/// What the kernel makes of zeros.
fn run(gpu: &Gpu, text: &str) -> Result<Vec<f32>, Error> {
    let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC;
    let out = gpu.buffer("a probe", LANES, usage)?;
    let back = gpu.buffer("a probe", LANES, wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST)?;
    let device = gpu.device();
    let submission = gpu.scoped("a probe", || {
        let module = device.create_shader_module(wgpu::ShaderModuleDescriptor {
            label: None,
            source: wgpu::ShaderSource::Wgsl(text.into()),
        });
        let pipeline = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label: None,
            layout: None,
            module: &module,
            entry_point: Some("main"),
            compilation_options: wgpu::PipelineCompilationOptions::default(),
            cache: None,
        });
        let group = device.create_bind_group(&wgpu::BindGroupDescriptor {
            label: None,
            layout: &pipeline.get_bind_group_layout(0),
            entries: &[wgpu::BindGroupEntry { binding: 0, resource: out.as_entire_binding() }],
        });
        let mut encoder = device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
        pass.set_pipeline(&pipeline);
        pass.set_bind_group(0, &group, &[]);
        pass.dispatch_workgroups(1, 1, 1);
        drop(pass);
        encoder.copy_buffer_to_buffer(&out, 0, &back, 0, None);
        let submission = gpu.queue().submit([encoder.finish()]);
        back.slice(..).map_async(wgpu::MapMode::Read, |_| {});
        submission
    })?;
    gpu.wait(submission, TIMEOUT)?;
    gpu.scoped("a probe", || {
        let view = back.slice(..).get_mapped_range();
        view.map(|bytes| bytes.as_chunks().0.iter().map(|w| f32::from_le_bytes(*w)).collect()).unwrap_or_default()
    })
}
