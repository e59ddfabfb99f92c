//! Shaders as pipelines, each compiled once, and what they see.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::path::Path;

use eec_ir::gpu::{Dispatch, GpuProgram, Needs, Role};

use super::cache::PipelineCache;
use super::device::Gpu;
use crate::error::{Error, ErrorKind};

/// What a dispatch sees beside parameters, counters and arena.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum Sight {
    /// The state, to read.
    Kernel,
    /// The state, to write, and the arguments of indirect dispatches.
    Control,
    /// The state, to read, and what is read back.
    Output,
}

impl Sight {
    pub(super) fn of(role: Role) -> Sight {
        match role {
            Role::Kernel(_) | Role::Rows => Sight::Kernel,
            Role::Control => Sight::Control,
            Role::Output(_) => Sight::Output,
        }
    }

    /// Storage buffers that are no constants.
    fn storage(self) -> usize {
        if self == Sight::Kernel { 3 } else { 4 }
    }
}

/// The bindings of a layout before the constants.
pub(super) const BEFORE_CONSTANTS: u32 = 5;

/// Pipelines and the layouts of what they see.
pub(super) struct Pipelines {
    /// By sight and number of constants.
    layouts: HashMap<(Sight, usize), wgpu::BindGroupLayout>,
    pipelines: Vec<wgpu::ComputePipeline>,
    /// The pipeline of every dispatch.
    of_dispatch: Vec<usize>,
}

impl Pipelines {
    /// Compiles what the dispatches need.
    ///
    /// Fails if a shader is wrong.
    pub(super) fn new(
        gpu: &Gpu,
        form: &GpuProgram,
        param_words: usize,
        folder: Option<&Path>,
    ) -> Result<Pipelines, Error> {
        let cache = PipelineCache::open(gpu, form, folder);
        let mut made = Pipelines { layouts: HashMap::new(), pipelines: Vec::new(), of_dispatch: Vec::new() };
        let mut modules: HashMap<u32, wgpu::ShaderModule> = HashMap::new();
        let mut known: HashMap<(u32, Sight, usize), usize> = HashMap::new();
        for dispatch in &form.dispatches {
            let (sight, constants) = (Sight::of(dispatch.role), dispatch.constants.len());
            let key = (dispatch.shader, sight, constants);
            if let Some(found) = known.get(&key) {
                made.of_dispatch.push(*found);
                continue;
            }
            if let Entry::Vacant(missing) = made.layouts.entry((sight, constants)) {
                missing.insert(gpu.scoped("what shaders see", || layout(gpu, sight, constants, param_words))?);
            }
            if let Entry::Vacant(missing) = modules.entry(dispatch.shader) {
                missing.insert(module(gpu, form, dispatch)?);
            }
            let pipeline = pipeline(
                gpu,
                dispatch,
                &modules[&dispatch.shader],
                &made.layouts[&(sight, constants)],
                cache.as_ref(),
            )?;
            known.insert(key, made.pipelines.len());
            made.of_dispatch.push(made.pipelines.len());
            made.pipelines.push(pipeline);
        }
        if let Some(cache) = cache {
            cache.save();
        }
        Ok(made)
    }

    /// The pipeline of a dispatch.
    pub(super) fn of(&self, dispatch: usize) -> &wgpu::ComputePipeline {
        &self.pipelines[self.of_dispatch[dispatch]]
    }

    /// The layout of what a dispatch sees.
    pub(super) fn layout(&self, dispatch: &Dispatch) -> &wgpu::BindGroupLayout {
        &self.layouts[&(Sight::of(dispatch.role), dispatch.constants.len())]
    }
}

/// Fails if the adapter lacks a feature or a limit that a shader needs.
pub(super) fn check(gpu: &Gpu, form: &GpuProgram) -> Result<(), Error> {
    let limit = gpu.adapter().limits.storage_buffers as usize;
    let most = form.dispatches.iter().map(|d| Sight::of(d.role).storage() + d.constants.len()).max();
    if let Some(most) = most.filter(|most| *most > limit) {
        let why = format!("a shader needs {most} storage buffers, and it has {limit}");
        return Err(gpu.error(ErrorKind::Device, why));
    }
    let needs = form.shaders.iter().fold(Needs::default(), |sum, shader| Needs {
        f16: sum.f16 || shader.needs.f16,
        subgroups: sum.subgroups || shader.needs.subgroups,
    });
    if needs == Needs::default() {
        return Ok(());
    }
    let has = gpu.features()?;
    let missing: Vec<&str> = [(needs.f16 && !has.f16, "f16"), (needs.subgroups && !has.subgroups, "subgroups")]
        .into_iter()
        .filter_map(|(missing, name)| missing.then_some(name))
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    Err(gpu.error(ErrorKind::Device, format!("the model's shaders need {}, which it lacks", missing.join(" and "))))
}

fn module(gpu: &Gpu, form: &GpuProgram, dispatch: &Dispatch) -> Result<wgpu::ShaderModule, Error> {
    let what = format!("shader {}", dispatch.shader);
    let text = form.shaders[dispatch.shader as usize].text.as_str();
    gpu.scoped(&what, || {
        gpu.device().create_shader_module(wgpu::ShaderModuleDescriptor {
            label: Some(&what),
            source: wgpu::ShaderSource::Wgsl(text.into()),
        })
    })
}

fn pipeline(
    gpu: &Gpu,
    dispatch: &Dispatch,
    module: &wgpu::ShaderModule,
    layout: &wgpu::BindGroupLayout,
    cache: Option<&PipelineCache>,
) -> Result<wgpu::ComputePipeline, Error> {
    let what = format!("shader {}", dispatch.shader);
    let device = gpu.device();
    gpu.made();
    gpu.scoped(&what, || {
        let layout = device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
            label: None,
            bind_group_layouts: &[Some(layout)],
            immediate_size: 0,
        });
        device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label: Some(&what),
            layout: Some(&layout),
            module,
            entry_point: Some("main"),
            compilation_options: wgpu::PipelineCompilationOptions::default(),
            cache: cache.map(|c| &c.cache),
        })
    })
}

fn layout(gpu: &Gpu, sight: Sight, constants: usize, param_words: usize) -> wgpu::BindGroupLayout {
    let entry = |binding, ty, has_dynamic_offset, words: usize| wgpu::BindGroupLayoutEntry {
        binding,
        visibility: wgpu::ShaderStages::COMPUTE,
        ty: wgpu::BindingType::Buffer {
            ty,
            has_dynamic_offset,
            min_binding_size: wgpu::BufferSize::new(4 * words as u64),
        },
        count: None,
    };
    let read = wgpu::BufferBindingType::Storage { read_only: true };
    let write = wgpu::BufferBindingType::Storage { read_only: false };
    let state = if sight == Sight::Control { write } else { read };
    let mut entries = vec![
        entry(0, wgpu::BufferBindingType::Uniform, true, param_words),
        entry(1, state, false, 0),
        entry(2, write, false, 0),
        entry(3, write, false, 0),
    ];
    if sight != Sight::Kernel {
        entries.push(entry(4, write, false, 0));
    }
    entries.extend((0..constants as u32).map(|i| entry(BEFORE_CONSTANTS + i, read, false, 0)));
    gpu.device().create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor { label: None, entries: &entries })
}
