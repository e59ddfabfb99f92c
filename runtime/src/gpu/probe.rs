//! Tries subgroup operations with a small kernel: a driver may claim what it does not do.

use std::time::Duration;

use super::device::Gpu;
use super::pipelines::{bind, small_pipeline};
use crate::error::Error;

/// Invocations of a probe: the fewest that shaders with subgroup operations have.
const LANES: usize = 64;

/// How long a probe may take.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Every lane writes the sum of the numbers of all lanes, which subgroups made as shaders do.
const SUBGROUPS: &str = "
@group(0) @binding(0) var<storage, read_write> out: array<f32>;
var<workgroup> parts: array<f32, 64>;
@compute @workgroup_size(64)
fn main(
    @builtin(local_invocation_index) lane: u32,
    @builtin(subgroup_id) number: u32,
    @builtin(num_subgroups) count: u32,
    @builtin(subgroup_invocation_id) within: u32,
    @builtin(subgroup_size) size: u32,
) {
    var part = f32(lane) + out[lane];
    for (var reach = 1u; reach < size; reach *= 2u) {
        part += subgroupShuffleXor(part, reach);
    }
    if within == 0u { parts[number] = part; }
    workgroupBarrier();
    var sum = 0.0;
    for (var i = 0u; i < count; i++) { sum += parts[i]; }
    out[lane] = sum;
}
";

/// Whether subgroup operations work, in subgroups that fill workgroups.
pub(super) fn subgroups(gpu: &Gpu) -> Result<bool, Error> {
    // A kernel that does not compile or does not end speaks against the feature, not against the device.
    let worked = || run(gpu, SUBGROUPS).is_ok_and(|out| whole_sums(&out));
    let works = gpu.device().features().contains(wgpu::Features::SUBGROUP) && worked();
    gpu.check()?;
    Ok(works)
}

/// Whether every lane has the sum of all numbers of lanes.
fn whole_sums(out: &[f32]) -> bool {
    out.iter().all(|sum| *sum == (LANES * (LANES - 1) / 2) as f32)
}

/// What the kernel makes of zeros.
fn run(gpu: &Gpu, text: &str) -> Result<Vec<f32>, Error> {
    let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC;
    let out = gpu.buffer("a probe", LANES, usage)?;
    let back = gpu.buffer("a probe", LANES, wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST)?;
    let device = gpu.device();
    let submission = gpu.scoped("a probe", || {
        let pipeline = small_pipeline(device, text);
        let group = bind(device, &pipeline.get_bind_group_layout(0), [&out]);
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
