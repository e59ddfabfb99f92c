//! What is known of an adapter from earlier processes: its pipelines as its driver compiled them, and the guard
//! that serves it best. A cache that cannot be read or written costs time and nothing else.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Write;
use std::path::{Path, PathBuf};

use super::device::Gpu;
use super::pipelines::Made;
use crate::file::replace_file;

/// The user's folder for what can be made again, where the system has one.
pub(super) fn folder() -> Option<PathBuf> {
    let variable = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    let home = || variable("HOME");
    let base = if cfg!(windows) {
        variable("LOCALAPPDATA")
    } else if cfg!(target_os = "macos") {
        home().map(|h| h.join("Library/Caches"))
    } else {
        variable("XDG_CACHE_HOME").or_else(|| home().map(|h| h.join(".cache")))
    };
    base.map(|base| base.join("eec"))
}

/// A file of the cache, by adapter, driver and whatever else `more` says.
fn file(gpu: &Gpu, folder: &Path, kind: &str, more: &dyn Fn(&mut DefaultHasher)) -> PathBuf {
    let adapter = gpu.adapter();
    let mut hasher = DefaultHasher::new();
    (&adapter.name, &adapter.interface, &adapter.driver, env!("CARGO_PKG_VERSION")).hash(&mut hasher);
    more(&mut hasher);
    folder.join(format!("{kind}-{:016x}", hasher.finish()))
}

fn write(path: &Path, bytes: &[u8]) {
    let folder = path.parent().unwrap_or(Path::new("."));
    // See the module: without a cache, the next process compiles and measures again.
    let _ = std::fs::create_dir_all(folder).and_then(|()| replace_file(path, |out| out.write_all(bytes)));
}

/// The pipelines of one program.
pub(super) struct PipelineCache {
    pub(super) cache: wgpu::PipelineCache,
    path: PathBuf,
    /// What the file held.
    known: Vec<u8>,
}

impl PipelineCache {
    /// The cache for these shaders; `None` if the adapter has none, or there is no folder for it.
    pub(super) fn open(gpu: &Gpu, of: &Made<'_>, folder: Option<&Path>) -> Option<PipelineCache> {
        if !gpu.device().features().contains(wgpu::Features::PIPELINE_CACHE) {
            return None;
        }
        let path = file(gpu, folder?, "pipelines", &|hasher| {
            of.form.shaders.iter().for_each(|shader| of.text(shader).hash(hasher));
        });
        let known = std::fs::read(&path).ok().and_then(|file| Some(whole(&file)?.to_vec())).unwrap_or_default();
        let data = (!known.is_empty()).then_some(known.as_slice());
        let descriptor = wgpu::PipelineCacheDescriptor { label: None, data, fallback: true };
        let open = || {
            // SAFETY: the file is one that `save` wrote with what this driver gave, in a folder of the user's own,
            // and its hash says that it is whole; the library compares its header with the driver.
            unsafe { gpu.device().create_pipeline_cache(&descriptor) }
        };
        let cache = gpu.scoped("the pipeline cache", open).ok()?;
        Some(PipelineCache { cache, path, known })
    }

    /// Writes what the driver compiled, if it is new.
    pub(super) fn save(&self) {
        if let Some(data) = self.cache.get_data().filter(|data| *data != self.known) {
            write(&self.path, &[blake3::hash(&data).as_bytes(), data.as_slice()].concat());
        }
    }
}

/// What `save` wrote to a file, if that is still what the hash before it says.
fn whole(file: &[u8]) -> Option<&[u8]> {
    let (hash, data) = file.split_first_chunk::<{ blake3::OUT_LEN }>()?;
    (blake3::hash(data).as_bytes() == hash).then_some(data)
}

/// What an earlier process noted about the adapter under this word.
pub(super) fn noted(gpu: &Gpu, what: &str) -> Option<String> {
    std::fs::read_to_string(file(gpu, &folder()?, what, &|_| {})).ok()
}

/// Notes something about the adapter for later processes.
pub(super) fn note(gpu: &Gpu, what: &str, text: &str) {
    if let Some(folder) = folder() {
        write(&file(gpu, &folder, what, &|_| {}), text.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_damaged_file_is_dropped() {
        let file = [blake3::hash(b"pipelines").as_bytes(), b"pipelines".as_slice()].concat();
        assert_eq!(whole(&file), Some(b"pipelines".as_slice()));
        let mut damaged = file.clone();
        damaged[40] ^= 1;
        assert_eq!((whole(&damaged), whole(&file[..39]), whole(b"")), (None, None, None));
    }
}
