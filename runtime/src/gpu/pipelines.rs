//! Shaders as pipelines, each compiled once, and what they see.

use std::borrow::Cow;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::path::Path;

use eec_ir::gpu::{Dispatch, GpuProgram, Role, Shader, over_bindings};
use eec_ir::program::Program;

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
}

impl Sight {
    pub(super) fn of(role: Role) -> Sight {
        match role {
            Role::Kernel(_) | Role::Rows | Role::Output(_) | Role::Host(_) => Sight::Kernel,
            Role::Control => Sight::Control,
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
    /// By sight and bindings of constants.
    layouts: HashMap<(Sight, usize), wgpu::BindGroupLayout>,
    /// Of the arena's bindings after the first, if there are more.
    arena: Option<wgpu::BindGroupLayout>,
    /// Bindings of the arena.
    arena_bindings: usize,
    pipelines: Vec<wgpu::ComputePipeline>,
    /// The pipeline of every dispatch; `None` for steps of the host.
    of_dispatch: Vec<Option<usize>>,
}

/// What pipelines are made of.
pub(super) struct Made<'a> {
    pub(super) program: &'a Program,
    pub(super) form: &'a GpuProgram,
    /// Words of parameters that every dispatch sees.
    pub(super) param_words: usize,
    /// Whether shaders use subgroup operations where they have a text with them.
    pub(super) subgroups: bool,
    /// Bindings of the arena, and the words of each but the last.
    pub(super) arena: (usize, usize),
}

impl Made<'_> {
    /// The text of a shader.
    pub(super) fn text<'s>(&self, shader: &'s Shader) -> Cow<'s, str> {
        let text = match &shader.with_subgroups {
            Some(text) if self.subgroups => text,
            _ => &shader.text,
        };
        over_bindings(text, self.arena.0, self.arena.1)
    }
}

impl Pipelines {
    /// Compiles what the dispatches need.
    ///
    /// Fails if a shader is wrong.
    pub(super) fn new(gpu: &Gpu, of: &Made<'_>, folder: Option<&Path>) -> Result<Pipelines, Error> {
        let Made { program, form, param_words, .. } = *of;
        let cache = PipelineCache::open(gpu, of, folder);
        let arena_bindings = of.arena.0;
        let more = arena_bindings.checked_sub(1).filter(|more| *more > 0);
        let arena = more.map(|more| gpu.scoped("what shaders see", || arena_layout(gpu, more))).transpose()?;
        let (layouts, pipelines, of_dispatch) = (HashMap::new(), Vec::new(), Vec::new());
        let mut made = Pipelines { layouts, arena, arena_bindings, pipelines, of_dispatch };
        let mut modules: HashMap<u32, wgpu::ShaderModule> = HashMap::new();
        let mut known: HashMap<(u32, Sight, usize), usize> = HashMap::new();
        for dispatch in &form.dispatches {
            if let Role::Host(_) = dispatch.role {
                made.of_dispatch.push(None);
                continue;
            }
            let (sight, constants) = (Sight::of(dispatch.role), form.bindings(program, dispatch));
            let key = (dispatch.shader, sight, constants);
            if let Some(found) = known.get(&key) {
                made.of_dispatch.push(Some(*found));
                continue;
            }
            if let Entry::Vacant(missing) = made.layouts.entry((sight, constants)) {
                missing.insert(gpu.scoped("what shaders see", || layout(gpu, sight, constants, param_words))?);
            }
            if let Entry::Vacant(missing) = modules.entry(dispatch.shader) {
                missing.insert(module(gpu, of, dispatch)?);
            }
            let pipeline = pipeline(
                gpu,
                dispatch,
                &modules[&dispatch.shader],
                &[Some(&made.layouts[&(sight, constants)]), made.arena.as_ref()],
                cache.as_ref(),
            )?;
            known.insert(key, made.pipelines.len());
            made.of_dispatch.push(Some(made.pipelines.len()));
            made.pipelines.push(pipeline);
        }
        if let Some(cache) = cache {
            cache.save();
        }
        Ok(made)
    }

    /// The pipeline of a dispatch; steps of the host have none.
    pub(super) fn of(&self, dispatch: usize) -> Option<&wgpu::ComputePipeline> {
        self.pipelines.get(self.of_dispatch[dispatch]?)
    }

    /// The layout of what a dispatch with so many bindings of constants sees.
    pub(super) fn layout(&self, sight: Sight, bindings: usize) -> &wgpu::BindGroupLayout {
        &self.layouts[&(sight, bindings)]
    }

    /// The layout of the arena's bindings after the first, if there are more.
    pub(super) fn arena_layout(&self) -> Option<&wgpu::BindGroupLayout> {
        self.arena.as_ref()
    }

    /// Bindings of the arena.
    pub(super) fn arena_bindings(&self) -> usize {
        self.arena_bindings
    }
}

/// Fails if the adapter shows shaders fewer buffers than one needs over an arena of so many bindings.
pub(super) fn check(gpu: &Gpu, program: &Program, form: &GpuProgram, arena: usize) -> Result<(), Error> {
    let limit = gpu.adapter().limits.storage_buffers as usize;
    let needed = |d: &Dispatch| form.bindings(program, d).saturating_add(Sight::of(d.role).storage() + arena - 1);
    match form.dispatches.iter().map(needed).max().filter(|most| *most > limit) {
        Some(most) if arena > 1 => {
            let why = format!(
                "the temporary buffers take {arena} bindings: a shader then needs {most} storage buffers, and it has {limit}"
            );
            Err(gpu.error(ErrorKind::Memory, why))
        }
        Some(most) => {
            let why = format!("a shader needs {most} storage buffers, and it has {limit}");
            Err(gpu.error(ErrorKind::Device, why))
        }
        None => Ok(()),
    }
}

/// A pipeline of its own for a shader that is no part of a model; to be called where errors are caught.
pub(super) fn small_pipeline(device: &wgpu::Device, text: &str) -> wgpu::ComputePipeline {
    let source = wgpu::ShaderSource::Wgsl(text.into());
    let module = device.create_shader_module(wgpu::ShaderModuleDescriptor { label: None, source });
    device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
        label: None,
        layout: None,
        module: &module,
        entry_point: Some("main"),
        compilation_options: wgpu::PipelineCompilationOptions::default(),
        cache: None,
    })
}

/// The group of these buffers, bound from 0 on; to be called where errors are caught.
pub(super) fn bind<'b>(
    device: &wgpu::Device,
    layout: &wgpu::BindGroupLayout,
    buffers: impl IntoIterator<Item = &'b wgpu::Buffer>,
) -> wgpu::BindGroup {
    let bound = buffers.into_iter().map(|buffer| buffer.as_entire_binding()).zip(0..);
    let entries: Vec<wgpu::BindGroupEntry<'_>> =
        bound.map(|(resource, binding)| wgpu::BindGroupEntry { binding, resource }).collect();
    device.create_bind_group(&wgpu::BindGroupDescriptor { label: None, layout, entries: &entries })
}

fn module(gpu: &Gpu, of: &Made<'_>, dispatch: &Dispatch) -> Result<wgpu::ShaderModule, Error> {
    let what = format!("shader {}", dispatch.shader);
    let text = of.text(&of.form.shaders[dispatch.shader as usize]);
    gpu.scoped(&what, || {
        gpu.device().create_shader_module(wgpu::ShaderModuleDescriptor {
            label: Some(&what),
            source: wgpu::ShaderSource::Wgsl(text),
        })
    })
}

fn pipeline(
    gpu: &Gpu,
    dispatch: &Dispatch,
    module: &wgpu::ShaderModule,
    layouts: &[Option<&wgpu::BindGroupLayout>; 2],
    cache: Option<&PipelineCache>,
) -> Result<wgpu::ComputePipeline, Error> {
    let what = format!("shader {}", dispatch.shader);
    let device = gpu.device();
    gpu.made();
    gpu.scoped(&what, || {
        let layout = device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
            label: None,
            bind_group_layouts: if layouts[1].is_some() { layouts } else { &layouts[..1] },
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

fn entry(
    binding: u32,
    ty: wgpu::BufferBindingType,
    has_dynamic_offset: bool,
    words: usize,
) -> wgpu::BindGroupLayoutEntry {
    let min_binding_size = wgpu::BufferSize::new(4 * words as u64);
    wgpu::BindGroupLayoutEntry {
        binding,
        visibility: wgpu::ShaderStages::COMPUTE,
        ty: wgpu::BindingType::Buffer { ty, has_dynamic_offset, min_binding_size },
        count: None,
    }
}

/// The layout of the arena's bindings after the first.
fn arena_layout(gpu: &Gpu, bindings: usize) -> wgpu::BindGroupLayout {
    let write = wgpu::BufferBindingType::Storage { read_only: false };
    let entries: Vec<wgpu::BindGroupLayoutEntry> = (0..bindings as u32).map(|i| entry(i, write, false, 0)).collect();
    gpu.device().create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor { label: None, entries: &entries })
}

fn layout(gpu: &Gpu, sight: Sight, constants: usize, param_words: usize) -> wgpu::BindGroupLayout {
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
