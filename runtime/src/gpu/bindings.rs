//! The buffers of a session, and the groups of them that dispatches see.

use std::collections::HashMap;

use eec_ir::gpu::{Dispatch, GpuProgram, Role, State};
use eec_ir::program::{Program, Source};
use eec_ir::{ContentHash, DType, Tensor};

use super::device::Gpu;
use super::pipelines::{BEFORE_CONSTANTS, Made, Pipelines, Sight, bind};
use super::plan::{Plan, kernels};
use super::segments::Segments;
use super::{weights, words};
use crate::call;
use crate::error::{Error, ErrorKind};

/// Buffers of one session. Those whose sizes depend on the inputs only grow.
pub(super) struct Buffers {
    pub(super) params: wgpu::Buffer,
    pub(super) state: wgpu::Buffer,
    pub(super) counters: wgpu::Buffer,
    pub(super) arguments: wgpu::Buffer,
    pub(super) arena: Segments,
    /// What the host writes; mapped between runs.
    pub(super) upload: wgpu::Buffer,
    /// What the host reads.
    pub(super) readback: wgpu::Buffer,
    /// The words that stand at the beginning of the arena, and how many.
    resident: wgpu::Buffer,
    resident_words: usize,
    /// Those that are bound by themselves, in their pieces.
    constants: HashMap<u32, Vec<wgpu::Buffer>>,
    /// What steps of the host read.
    pub(super) host: wgpu::Buffer,
    weight_bytes: usize,
    /// Whether a buffer was replaced since groups of bindings were made.
    pub(super) stale: bool,
}

/// Where constants that stand in the arena begin.
pub(super) struct Resident {
    pub(super) offsets: Vec<usize>,
    pub(super) words: usize,
}

/// Constants in the arena start at multiples of this many words.
const ALIGN: usize = 16;

impl Resident {
    /// The places of [`GpuProgram::resident`], one after the other.
    pub(super) fn of(program: &Program, form: &GpuProgram) -> Resident {
        let mut words = 0;
        let place = |buffer: &eec_ir::BufferId| {
            let start = words;
            words += elements(program, constant_of(program, *buffer)).next_multiple_of(ALIGN);
            start
        };
        let offsets = form.resident.iter().map(place).collect();
        Resident { offsets, words }
    }
}

/// The constant that a buffer holds.
fn constant_of(program: &Program, buffer: eec_ir::BufferId) -> Option<u32> {
    match program.buffer(buffer).source {
        Source::Constant(constant) => Some(constant),
        Source::Input(_) | Source::Temp | Source::Param | Source::Result => None,
    }
}

fn elements(program: &Program, constant: Option<u32>) -> usize {
    constant.map_or(0, |c| program.constants[c as usize].dims.iter().product())
}

const STORAGE: wgpu::BufferUsages = wgpu::BufferUsages::STORAGE;
const COPY_SRC: wgpu::BufferUsages = wgpu::BufferUsages::COPY_SRC;
const COPY_DST: wgpu::BufferUsages = wgpu::BufferUsages::COPY_DST;

/// What a run exchanges with the host, in words.
pub(super) struct Words {
    /// What the host writes.
    pub(super) upload: usize,
    /// What the host reads at the end.
    pub(super) readback: usize,
    /// What the host reads at once before, at most.
    pub(super) host: usize,
}

/// What the buffers of a session must hold.
pub(super) struct Needed<'a> {
    pub(super) program: &'a Program,
    pub(super) form: &'a GpuProgram,
    pub(super) resident: &'a Resident,
    /// Words of the parameters of all dispatches.
    pub(super) param_words: usize,
    /// The tensor of a constant.
    pub(super) constants: &'a dyn Fn(ContentHash) -> Option<Tensor>,
}

impl Buffers {
    /// Uploads the constants and makes the buffers whose sizes are known.
    ///
    /// Fails if a constant is missing or holds what no word can, and if memory does not suffice.
    pub(super) fn new(gpu: &Gpu, needed: &Needed<'_>) -> Result<Buffers, Error> {
        let Needed { program, form, .. } = needed;
        let state = State::of(program, form);
        let mut constants = HashMap::new();
        let mut weight_bytes = 0;
        for constant in bound(form) {
            if constants.contains_key(&constant) {
                continue;
            }
            let tensor = load(needed, constant)?;
            let bytes = encode(needed, constant, &tensor)?;
            weight_bytes += bytes.len();
            let mut pieces = bytes.chunks(4 * form.piece.max(1) as usize).map(|b| gpu.filled("a constant", b, STORAGE));
            let first = pieces.next().unwrap_or_else(|| gpu.filled("a constant", &[], STORAGE));
            constants.insert(constant, std::iter::once(first).chain(pieces).collect::<Result<Vec<_>, Error>>()?);
        }
        let mut words = vec![0u8; 4 * needed.resident.words];
        for (buffer, offset) in form.resident.iter().zip(&needed.resident.offsets) {
            let Some(constant) = constant_of(program, *buffer) else { continue };
            let tensor = load(needed, constant)?;
            let bytes = encode(needed, constant, &tensor)?;
            words[4 * offset..][..bytes.len()].copy_from_slice(&bytes);
        }
        weight_bytes += words.len();
        let dispatches = form.dispatches.len();
        // Decisions write the first of three numbers of workgroups in every run.
        let arguments: Vec<u32> = [0, 1, 1].repeat(dispatches.max(1));
        Ok(Buffers {
            params: gpu.buffer("the parameters", needed.param_words, wgpu::BufferUsages::UNIFORM | COPY_DST)?,
            state: gpu.buffer("the state", state.len(), STORAGE | COPY_SRC | COPY_DST)?,
            counters: gpu.buffer("the counters", dispatches + 1 + form.sums.len(), STORAGE | COPY_SRC | COPY_DST)?,
            arguments: gpu.filled(
                "the arguments",
                bytemuck::cast_slice(&arguments),
                STORAGE | wgpu::BufferUsages::INDIRECT,
            )?,
            arena: Segments::new(gpu)?,
            upload: upload(gpu, 0)?,
            readback: gpu.buffer("the read-back", 0, wgpu::BufferUsages::MAP_READ | COPY_DST)?,
            resident: gpu.filled("the small constants", &words, COPY_SRC)?,
            resident_words: words.len() / 4,
            constants,
            host: gpu.buffer("what the host reads", 0, wgpu::BufferUsages::MAP_READ | COPY_DST)?,
            weight_bytes,
            stale: false,
        })
    }

    /// Bytes of the constants.
    pub(super) fn weight_bytes(&self) -> usize {
        self.weight_bytes
    }

    /// Makes room for a run; from then on [`Buffers::stale`] says whether what dispatches see has changed.
    ///
    /// Fails if a buffer is larger than the adapter allows; a smaller run is possible after that.
    pub(super) fn reserve(&mut self, gpu: &Gpu, plan: &Plan, words: &Words) -> Result<(), Error> {
        let Words { upload: upload_words, readback: readback_words, host: host_words } = *words;
        let more = |held: usize, words: usize| (words > held).then(|| if held > 1 { words + words / 8 } else { words });
        let grown = |buffer: &wgpu::Buffer, words: usize| more((buffer.size() / 4) as usize, words);
        gpu.fits("the inputs", 4 * upload_words as u64, false)?;
        gpu.fits("the read-back", 4 * readback_words as u64, false)?;
        gpu.fits("what the host reads", 4 * host_words as u64, false)?;
        let limit = |bytes: u64| (bytes / 4) as usize;
        let limits = &gpu.adapter().limits;
        let block = limit(limits.buffer_bytes);
        if let Some(words) = more(self.arena.words(), plan.arena_words) {
            self.stale = true;
            // Room to grow is not worth another binding.
            let room = self.arena.of(plan.arena_words) * self.arena.most();
            self.arena.resize(gpu, words.min(room))?;
            self.write_resident(gpu)?;
        }
        if let Some(words) = grown(&self.upload, upload_words) {
            self.upload = upload(gpu, words.min(block))?;
        }
        if let Some(words) = grown(&self.readback, readback_words) {
            let usage = wgpu::BufferUsages::MAP_READ | COPY_DST;
            self.readback = gpu.buffer("the read-back", words.min(block), usage)?;
        }
        if let Some(words) = grown(&self.host, host_words) {
            let usage = wgpu::BufferUsages::MAP_READ | COPY_DST;
            self.host = gpu.buffer("what the host reads", words.min(block), usage)?;
        }
        Ok(())
    }

    /// Copies the constants that stand in the arena to it.
    fn write_resident(&self, gpu: &Gpu) -> Result<(), Error> {
        let words = self.resident_words.min(self.arena.words());
        gpu.scoped("the small constants", || {
            let mut encoder = gpu.device().create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
            let mut from = 0;
            for (buffer, first, words) in self.arena.parts(0, words) {
                encoder.copy_buffer_to_buffer(&self.resident, from, buffer, 4 * first as u64, Some(4 * words as u64));
                from += 4 * words as u64;
            }
            gpu.queue().submit([encoder.finish()]);
        })
    }
}

/// A mapped buffer for what the host writes.
fn upload(gpu: &Gpu, words: usize) -> Result<wgpu::Buffer, Error> {
    gpu.mapped("what is uploaded", words, wgpu::BufferUsages::MAP_WRITE | COPY_SRC)
}

/// A constant as kernels compute with it.
pub(super) fn load(needed: &Needed<'_>, constant: u32) -> Result<Tensor, Error> {
    let described = &needed.program.constants[constant as usize];
    let fail =
        |why: String| call::error(needed.program, ErrorKind::Constant, format!("constant {}: {why}", described.hash));
    let tensor = (needed.constants)(described.hash).ok_or_else(|| fail("its bytes are missing".into()))?;
    if tensor.dtype() != described.dtype || tensor.dims() != described.dims {
        let (dtype, dims) = (tensor.dtype(), tensor.dims());
        return Err(fail(format!("expected {}{:?}, found {dtype}{dims:?}", described.dtype, described.dims)));
    }
    weights::rounded(needed.program, constant, tensor).map_err(fail)
}

fn encode<'t>(needed: &Needed<'_>, constant: u32, tensor: &'t Tensor) -> Result<std::borrow::Cow<'t, [u8]>, Error> {
    let hash = needed.program.constants[constant as usize].hash;
    let words = if needed.form.halves.contains(&constant) { words::halves(tensor) } else { words::encode(tensor) };
    words.map_err(|why| call::error(needed.program, ErrorKind::Constant, format!("constant {hash}: {why}")))
}

/// The constants that are bound by themselves; one may come several times.
fn bound(form: &GpuProgram) -> impl Iterator<Item = u32> {
    form.dispatches.iter().flat_map(|d| d.constants.iter().copied())
}

/// Fails if the program holds elements that have no form on a GPU, or a constant of which a piece is larger than the
/// adapter allows.
pub(super) fn check(gpu: &Gpu, program: &Program, form: &GpuProgram) -> Result<(), Error> {
    let without: Option<DType> = program.buffers.iter().map(|b| b.dtype).find(|d| !words::has_words(*d));
    if let Some(dtype) = without {
        let why = format!("elements of type {dtype} have no form on a GPU");
        return Err(call::error(program, ErrorKind::Program, why));
    }
    for constant in bound(form) {
        let reader = form.dispatches.iter().find(|d| d.constants.contains(&constant));
        let reader = reader.and_then(|d| kernels(&d.role, &d.with).next());
        let named = |e: Error| reader.map_or(e.clone(), |k| e.at_node(&program.kernel(k).name));
        let hash = program.constants[constant as usize].hash;
        let words = form.words(program, constant);
        gpu.fits(&format!("the constant {hash}"), 4 * words.min(form.piece as usize) as u64, true).map_err(named)?;
        if i32::try_from(elements(program, Some(constant))).is_err() {
            let why = format!("the constant {hash} has more elements than 32 bits count");
            return Err(named(call::error(program, ErrorKind::Memory, why)));
        }
    }
    Ok(())
}

/// The groups of bindings of a session, equal ones once.
pub(super) struct Groups {
    /// What all dispatches see of the arena beside its first binding.
    arena: Option<wgpu::BindGroup>,
    groups: Vec<wgpu::BindGroup>,
    /// The group of every dispatch; `None` for steps of the host.
    of_dispatch: Vec<Option<usize>>,
}

impl Groups {
    /// The groups over these buffers.
    pub(super) fn new(gpu: &Gpu, of: &Made<'_>, pipelines: &Pipelines, buffers: &Buffers) -> Result<Groups, Error> {
        let arena = pipelines.arena_layout().map(|layout| {
            gpu.made();
            gpu.scoped("what a dispatch sees", || bind(gpu.device(), layout, buffers.arena.buffers().iter().skip(1)))
        });
        let mut made = Groups { arena: arena.transpose()?, groups: Vec::new(), of_dispatch: Vec::new() };
        let mut known: HashMap<(Sight, &[u32]), usize> = HashMap::new();
        for dispatch in &of.form.dispatches {
            if let Role::Host(_) = dispatch.role {
                made.of_dispatch.push(None);
                continue;
            }
            let key = (Sight::of(dispatch.role), dispatch.constants.as_slice());
            if let Some(found) = known.get(&key) {
                made.of_dispatch.push(Some(*found));
                continue;
            }
            let entries = buffers.entries(dispatch, of.param_words);
            gpu.made();
            let group = gpu.scoped("what a dispatch sees", || {
                gpu.device().create_bind_group(&wgpu::BindGroupDescriptor {
                    label: None,
                    layout: pipelines.layout(key.0, of.form.bindings(of.program, dispatch)),
                    entries: &entries,
                })
            })?;
            known.insert(key, made.groups.len());
            made.of_dispatch.push(Some(made.groups.len()));
            made.groups.push(group);
        }
        Ok(made)
    }

    /// What a dispatch sees; steps of the host see nothing.
    pub(super) fn of(&self, dispatch: usize) -> Option<&wgpu::BindGroup> {
        self.groups.get(self.of_dispatch[dispatch]?)
    }

    /// What all dispatches see of the arena beside its first binding, if that is not all.
    pub(super) fn arena(&self) -> Option<&wgpu::BindGroup> {
        self.arena.as_ref()
    }
}

impl Buffers {
    fn entries(&self, dispatch: &Dispatch, uniform_words: usize) -> Vec<wgpu::BindGroupEntry<'_>> {
        let params = wgpu::BindingResource::Buffer(wgpu::BufferBinding {
            buffer: &self.params,
            offset: 0,
            size: wgpu::BufferSize::new(4 * uniform_words as u64),
        });
        let fourth = match Sight::of(dispatch.role) {
            Sight::Kernel => None,
            Sight::Control => Some(&self.arguments),
        };
        let own = [Some(&self.state), Some(&self.counters), self.arena.buffers().first(), fourth].into_iter().zip(1..);
        let pieces = dispatch.constants.iter().flat_map(|c| self.constants.get(c).into_iter().flatten());
        let constants = pieces.map(Some).zip(BEFORE_CONSTANTS..);
        let bound = own.chain(constants).filter_map(|(buffer, binding)| {
            Some(wgpu::BindGroupEntry { binding, resource: buffer?.as_entire_binding() })
        });
        std::iter::once(wgpu::BindGroupEntry { binding: 0, resource: params }).chain(bound).collect()
    }
}
