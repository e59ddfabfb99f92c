//! An opened adapter. Whatever goes wrong on it becomes an error that names it: refused work, missing memory,
//! a lost device, a wait that takes too long.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use super::adapter::Adapter;
use super::probe;
use crate::error::{Error, ErrorKind};

/// Optional features that are used where an adapter has them.
const WANTED: wgpu::Features =
    wgpu::Features::SUBGROUP.union(wgpu::Features::TIMESTAMP_QUERY).union(wgpu::Features::PIPELINE_CACHE);

/// An opened adapter, which sessions share.
#[derive(Clone)]
pub struct Gpu(Arc<Shared>);

struct Shared {
    adapter: Adapter,
    device: wgpu::Device,
    queue: wgpu::Queue,
    /// Why the device can be used no more, or the first error that no scope caught.
    failure: Arc<Mutex<Option<String>>>,
    /// Objects made: buffers, groups of bindings, pipelines.
    made: AtomicU64,
    subgroups: OnceLock<bool>,
}

impl std::fmt::Debug for Gpu {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Gpu").field(&self.0.adapter).finish()
    }
}

fn note(failure: &Mutex<Option<String>>, why: String) {
    failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(why);
}

impl Gpu {
    /// Opens the adapter that [`Adapter::find`] finds.
    pub fn open(name: Option<&str>) -> Result<Gpu, Error> {
        Gpu::of(Adapter::find(name)?)
    }

    /// Opens an adapter, with what [`Adapter::limits`] says of it: limits that were lowered are those of the device.
    pub fn of(adapter: Adapter) -> Result<Gpu, Error> {
        let has = adapter.adapter.limits();
        let wanted = adapter.limits;
        let limits = wgpu::Limits {
            max_storage_buffer_binding_size: wanted.binding_bytes.min(has.max_storage_buffer_binding_size),
            max_buffer_size: wanted.buffer_bytes.min(has.max_buffer_size),
            max_compute_workgroup_storage_size: wanted.workgroup_bytes.min(has.max_compute_workgroup_storage_size),
            max_storage_buffers_per_shader_stage: wanted.storage_buffers.min(has.max_storage_buffers_per_shader_stage),
            ..has
        };
        let descriptor = wgpu::DeviceDescriptor {
            label: Some("eec"),
            required_features: adapter.adapter.features().intersection(WANTED),
            required_limits: limits,
            ..wgpu::DeviceDescriptor::default()
        };
        let opened = pollster::block_on(adapter.adapter.request_device(&descriptor));
        let (device, queue) = opened.map_err(|e| adapter.error(ErrorKind::Device, format!("cannot be opened: {e}")))?;
        let failure = Arc::new(Mutex::new(None));
        let lost = Arc::clone(&failure);
        device.set_device_lost_callback(move |_, why| note(&lost, format!("was lost: {}", why.trim())));
        let uncaught = Arc::clone(&failure);
        device.on_uncaptured_error(Arc::new(move |e: wgpu::Error| note(&uncaught, format!("failed: {e}"))));
        Ok(Gpu(Arc::new(Shared {
            adapter,
            device,
            queue,
            failure,
            made: AtomicU64::new(0),
            subgroups: OnceLock::new(),
        })))
    }

    /// The adapter.
    pub fn adapter(&self) -> &Adapter {
        &self.0.adapter
    }

    /// How many buffers, groups of bindings and pipelines were made so far. A warm run makes none.
    pub fn objects_made(&self) -> u64 {
        self.0.made.load(Ordering::Relaxed)
    }

    /// Whether subgroup operations of shaders work, tried once with a small kernel whose results are checked.
    ///
    /// Fails if the device does.
    pub fn subgroups(&self) -> Result<bool, Error> {
        if let Some(works) = self.0.subgroups.get() {
            return Ok(*works);
        }
        let works = probe::subgroups(self)?;
        Ok(*self.0.subgroups.get_or_init(|| works))
    }

    /// Gives the device up, with all memory that sessions hold on it: their runs fail from then on.
    pub fn give_up(&self) {
        note(&self.0.failure, "was given up".to_string());
        self.device().destroy();
    }

    pub(super) fn device(&self) -> &wgpu::Device {
        &self.0.device
    }

    pub(super) fn queue(&self) -> &wgpu::Queue {
        &self.0.queue
    }

    /// Counts an object that was made.
    pub(super) fn made(&self) {
        self.0.made.fetch_add(1, Ordering::Relaxed);
    }

    /// An error about the adapter.
    pub(super) fn error(&self, kind: ErrorKind, why: impl std::fmt::Display) -> Error {
        self.0.adapter.error(kind, why)
    }

    /// Fails if the device was lost or reported an error that nothing caught.
    pub(super) fn check(&self) -> Result<(), Error> {
        let failure = self.0.failure.lock().unwrap_or_else(PoisonError::into_inner);
        failure.as_ref().map_or(Ok(()), |why| Err(self.error(ErrorKind::Device, why)))
    }

    /// Does `work`, which asks the device for something; what it reports becomes an error about `what`.
    pub(super) fn scoped<T>(&self, what: &str, work: impl FnOnce() -> T) -> Result<T, Error> {
        let filters = [wgpu::ErrorFilter::OutOfMemory, wgpu::ErrorFilter::Internal, wgpu::ErrorFilter::Validation];
        let scopes = filters.map(|filter| self.device().push_error_scope(filter));
        // The library panics where a driver breaks its promises or is lost at the wrong moment.
        let done = catch_unwind(AssertUnwindSafe(work));
        let reported = scopes.into_iter().rev().map(|scope| pollster::block_on(scope.pop()));
        let reported = reported.collect::<Vec<_>>().into_iter().flatten().next();
        self.check()?;
        match (done, reported) {
            (_, Some(wgpu::Error::OutOfMemory { .. })) => {
                Err(self.error(ErrorKind::Memory, format!("{what}: there is no memory for it")))
            }
            (_, Some(e)) => Err(self.error(ErrorKind::Internal, format!("{what}: {e}"))),
            (Err(why), None) => Err(self.error(ErrorKind::Internal, format!("{what}: {}", panic_text(&*why)))),
            (Ok(done), None) => Ok(done),
        }
    }

    /// Waits until a submission, or without one the last, is done and its buffers are mapped.
    pub(super) fn wait(
        &self,
        submission: impl Into<Option<wgpu::SubmissionIndex>>,
        timeout: Duration,
    ) -> Result<(), Error> {
        let wait = wgpu::PollType::Wait { submission_index: submission.into(), timeout: Some(timeout) };
        // A lost device makes the wait panic.
        let waited = catch_unwind(AssertUnwindSafe(|| self.device().poll(wait)));
        self.check()?;
        match waited {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(e)) => {
                note(&self.0.failure, format!("did not finish within {} s: {e}", timeout.as_secs()));
                self.device().destroy();
                self.check()
            }
            Err(why) => {
                note(&self.0.failure, format!("was lost: {}", panic_text(&*why)));
                self.check()
            }
        }
    }

    /// Waits until a submission is done and so many bytes of these buffers can be seen.
    pub(super) fn map(
        &self,
        buffers: &[(&wgpu::Buffer, wgpu::MapMode, u64)],
        submission: Option<wgpu::SubmissionIndex>,
        timeout: Duration,
    ) -> Result<(), Error> {
        let failure: Arc<Mutex<Option<String>>> = Arc::default();
        self.scoped("a run", || {
            for (buffer, mode, bytes) in buffers {
                let failure = Arc::clone(&failure);
                buffer.slice(..*bytes).map_async(*mode, move |mapped| {
                    if let Err(e) = mapped {
                        *failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(e.to_string());
                    }
                });
            }
        })?;
        self.wait(submission, timeout)?;
        match failure.lock().unwrap_or_else(PoisonError::into_inner).take() {
            Some(why) => Err(self.error(ErrorKind::Device, format!("its results cannot be read: {why}"))),
            None => Ok(()),
        }
    }

    /// The first words of a mapped buffer, which is then unmapped.
    pub(super) fn read(&self, buffer: &wgpu::Buffer, words: usize) -> Result<Vec<u8>, Error> {
        let read = || {
            let view = buffer.slice(..4 * words as u64).get_mapped_range().map_err(|e| e.to_string())?;
            let bytes = view.to_vec();
            drop(view);
            buffer.unmap();
            Ok(bytes)
        };
        let read: Result<Vec<u8>, String> = self.scoped("the results", read)?;
        read.map_err(|why| self.error(ErrorKind::Internal, format!("the results: {why}")))
    }

    /// A buffer of so many words, which may be 0.
    ///
    /// Fails if it is larger than the adapter allows.
    pub(super) fn buffer(&self, what: &str, words: usize, usage: wgpu::BufferUsages) -> Result<wgpu::Buffer, Error> {
        self.new_buffer(what, words, usage, false)
    }

    /// A buffer with these words, given as bytes.
    pub(super) fn filled(&self, what: &str, bytes: &[u8], usage: wgpu::BufferUsages) -> Result<wgpu::Buffer, Error> {
        let buffer = self.mapped(what, bytes.len() / 4, usage)?;
        let write = || {
            if let Ok(mut view) = buffer.slice(..bytes.len() as u64).get_mapped_range_mut() {
                view.copy_from_slice(bytes);
            }
            buffer.unmap();
        };
        if bytes.is_empty() {
            buffer.unmap();
        } else {
            self.scoped(what, write)?;
        }
        Ok(buffer)
    }

    /// A buffer of so many words that the host can write at once.
    pub(super) fn mapped(&self, what: &str, words: usize, usage: wgpu::BufferUsages) -> Result<wgpu::Buffer, Error> {
        self.new_buffer(what, words, usage, true)
    }

    fn new_buffer(
        &self,
        what: &str,
        words: usize,
        usage: wgpu::BufferUsages,
        mapped_at_creation: bool,
    ) -> Result<wgpu::Buffer, Error> {
        let size = (words.max(1) as u64).saturating_mul(4);
        self.fits(what, size, usage.contains(wgpu::BufferUsages::STORAGE))?;
        self.made();
        let descriptor = wgpu::BufferDescriptor { label: Some(what), size, usage, mapped_at_creation };
        self.scoped(what, || self.device().create_buffer(&descriptor))
    }

    /// Fails if a buffer of `bytes` is more than the adapter allows; `bound`: as one that shaders see.
    pub(super) fn fits(&self, what: &str, bytes: u64, bound: bool) -> Result<(), Error> {
        let limits = &self.adapter().limits;
        let (limit, of) = match bound && limits.binding_bytes < limits.buffer_bytes {
            true => (limits.binding_bytes, "that a shader can see"),
            false => (limits.buffer_bytes, "of one block of memory"),
        };
        if bytes <= limit {
            return Ok(());
        }
        let why = format!("{what}: {bytes} bytes are more than its limit of {limit} bytes {of}");
        Err(self.error(ErrorKind::Memory, why))
    }
}

/// What a panic said.
fn panic_text(why: &(dyn std::any::Any + Send)) -> String {
    let text = why.downcast_ref::<String>().map(String::as_str).or_else(|| why.downcast_ref::<&str>().copied());
    text.unwrap_or("the GPU library failed").trim().to_string()
}
