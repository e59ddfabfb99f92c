//! What an adapter can do at most, measured: matrix products, copies, and the time to submit and to read back.

use std::time::{Duration, Instant};

use super::device::Gpu;
use super::pipelines::{bind, small_pipeline};
use crate::error::Error;

/// Limits of an adapter.
#[derive(Clone, PartialEq, Debug)]
pub struct GpuLimits {
    /// Multiply-accumulates per second of float32 matrix products, by the number of rows, columns and summands.
    pub products: Vec<(usize, f64)>,
    /// Bytes per second that a copy inside the device's memory reads and writes together.
    pub copied_bytes_per_second: f64,
    /// From a submission without work until its end is known.
    pub submit: Duration,
    /// The same with a few bytes read back.
    pub readback: Duration,
}

/// The sizes of products, as long as they take no longer than [`LONG`].
const SIZES: [usize; 5] = [256, 512, 1024, 2048, 4096];

/// A product that takes this long ends the measurement.
const LONG: Duration = Duration::from_millis(250);

/// Words that are copied.
const COPIED: usize = 16 << 20;

/// Runs of which the fastest counts.
const RUNS: usize = 3;

/// How long one run may take.
const TIMEOUT: Duration = Duration::from_secs(120);

/// Rows and columns of a workgroup's tile.
const TILE: usize = 64;

/// A tile of 64 by 64 per workgroup, 4 by 4 per invocation, 16 summands at a time through workgroup memory.
const PRODUCT: &str = "
@group(0) @binding(0) var<storage, read> a: array<f32>;
@group(0) @binding(1) var<storage, read> b: array<f32>;
@group(0) @binding(2) var<storage, read_write> c: array<f32>;
@group(0) @binding(3) var<uniform> size: vec4<u32>;
var<workgroup> left: array<array<f32, 64>, 16>;
var<workgroup> right: array<array<f32, 64>, 16>;

@compute @workgroup_size(16, 16)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_id) local: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let n = size.x;
    let row = group.y * 64u;
    let column = group.x * 64u;
    var sums: array<vec4<f32>, 4>;
    for (var first = 0u; first < n; first += 16u) {
        for (var i = 0u; i < 4u; i++) {
            let at = lane + i * 256u;
            left[at % 16u][at / 16u] = a[(row + at / 16u) * n + first + at % 16u];
            right[at / 64u][at % 64u] = b[(first + at / 64u) * n + column + at % 64u];
        }
        workgroupBarrier();
        for (var k = 0u; k < 16u; k++) {
            let x = local.x * 4u;
            let y = local.y * 4u;
            let columns = vec4<f32>(right[k][x], right[k][x + 1u], right[k][x + 2u], right[k][x + 3u]);
            for (var i = 0u; i < 4u; i++) {
                sums[i] = fma(vec4<f32>(left[k][y + i]), columns, sums[i]);
            }
        }
        workgroupBarrier();
    }
    for (var i = 0u; i < 4u; i++) {
        let at = (row + local.y * 4u + i) * n + column + local.x * 4u;
        c[at] = sums[i].x;
        c[at + 1u] = sums[i].y;
        c[at + 2u] = sums[i].z;
        c[at + 3u] = sums[i].w;
    }
}
";

impl GpuLimits {
    /// Measures an adapter.
    ///
    /// Fails if the device does.
    pub fn measure(gpu: &Gpu) -> Result<GpuLimits, Error> {
        let mut products = Vec::new();
        let pipeline = gpu.scoped("a measurement", || small_pipeline(gpu.device(), PRODUCT))?;
        for size in SIZES {
            if gpu.fits("a measurement", 4 * (size * size) as u64, true).is_err() {
                break;
            }
            let time = product(gpu, &pipeline, size)?;
            products.push((size, (size * size * size) as f64 / time.as_secs_f64().max(1e-9)));
            if time > LONG {
                break;
            }
        }
        let copied = copy(gpu)?;
        Ok(GpuLimits {
            products,
            copied_bytes_per_second: 8.0 * COPIED as f64 / copied.as_secs_f64().max(1e-9),
            submit: fastest(gpu, &|_| {})?,
            readback: readback(gpu)?,
        })
    }

    /// The best rate of a product.
    pub fn macs_per_second(&self) -> f64 {
        self.products.iter().map(|(_, rate)| *rate).fold(0.0, f64::max)
    }
}

/// The least time of a few submissions of what `record` records.
fn fastest(gpu: &Gpu, record: &dyn Fn(&mut wgpu::CommandEncoder)) -> Result<Duration, Error> {
    let mut best = Duration::MAX;
    for _ in 0..=RUNS {
        let start = Instant::now();
        let submission = gpu.scoped("a measurement", || {
            let mut encoder = gpu.device().create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
            record(&mut encoder);
            gpu.queue().submit([encoder.finish()])
        })?;
        gpu.wait(submission, TIMEOUT)?;
        best = best.min(start.elapsed());
    }
    Ok(best)
}

/// The time of one square product.
fn product(gpu: &Gpu, pipeline: &wgpu::ComputePipeline, size: usize) -> Result<Duration, Error> {
    let matrix = || gpu.buffer("a measurement", size * size, wgpu::BufferUsages::STORAGE);
    let (a, b, c) = (matrix()?, matrix()?, matrix()?);
    let sizes = [size as u32, 0, 0, 0];
    let sizes = gpu.filled("a measurement", bytemuck::cast_slice(&sizes), wgpu::BufferUsages::UNIFORM)?;
    let layout = pipeline.get_bind_group_layout(0);
    let group = gpu.scoped("a measurement", || bind(gpu.device(), &layout, [&a, &b, &c, &sizes]))?;
    let tiles = (size / TILE) as u32;
    // The difference of several products and one is free of what a submission costs.
    let times = |count: usize| {
        fastest(gpu, &|encoder| {
            let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
            pass.set_pipeline(pipeline);
            pass.set_bind_group(0, &group, &[]);
            (0..count).for_each(|_| pass.dispatch_workgroups(tiles, tiles, 1));
        })
    };
    let one = times(1)?;
    if one > LONG { Ok(one) } else { Ok((times(5)?.saturating_sub(one) / 4).min(one)) }
}

/// The time of one copy.
fn copy(gpu: &Gpu) -> Result<Duration, Error> {
    let from = gpu.buffer("a measurement", COPIED, wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST)?;
    let to = gpu.buffer("a measurement", COPIED, wgpu::BufferUsages::COPY_DST)?;
    let copies = |count: usize| {
        fastest(gpu, &|encoder| (0..count).for_each(|_| encoder.copy_buffer_to_buffer(&from, 0, &to, 0, None)))
    };
    let one = copies(1)?;
    Ok((copies(5)?.saturating_sub(one) / 4).clamp(Duration::from_nanos(1), one))
}

/// The time of a submission whose result is read.
fn readback(gpu: &Gpu) -> Result<Duration, Error> {
    let from = gpu.buffer("a measurement", 64, wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST)?;
    let to = gpu.buffer("a measurement", 64, wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST)?;
    let mut best = Duration::MAX;
    for _ in 0..=RUNS {
        let start = Instant::now();
        let submission = gpu.scoped("a measurement", || {
            let mut encoder = gpu.device().create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
            encoder.copy_buffer_to_buffer(&from, 0, &to, 0, None);
            let submission = gpu.queue().submit([encoder.finish()]);
            to.slice(..).map_async(wgpu::MapMode::Read, |_| {});
            submission
        })?;
        gpu.wait(submission, TIMEOUT)?;
        best = best.min(start.elapsed());
        to.unmap();
    }
    Ok(best)
}
