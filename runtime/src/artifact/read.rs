//! Reads artifacts: maps the file and checks every offset and size before it is used.

use std::collections::HashMap;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use eec_ir::gpu::GpuProgram;
use eec_ir::program::Program;
use eec_ir::tensor::Storage;
use eec_ir::{ContentHash, DType, Precision, Tensor};
use memmap2::Mmap;
#[cfg(unix)]
use memmap2::UncheckedAdvice;

use super::narrow::Narrow;
use super::{
    ALIGN, CONSTANTS, ENTRY, Entry, GPU, HEADER, MAGIC, NAME, PLAIN_GPU, PLAIN_PROGRAM, PROGRAM, VERSION, WEIGHTS,
};
use crate::error::{Error, ErrorKind};

/// An artifact in memory: a mapped file, or bytes of the program itself.
pub struct Artifact {
    file: String,
    bytes: Bytes,
    /// Offset and length of every section, in the file's order.
    sections: Vec<(String, usize, usize)>,
    constants: HashMap<ContentHash, Held>,
}

/// What stands for the file's name in messages about an artifact that is part of the program.
const EMBEDDED: &str = "the embedded artifact";

/// A constant as it is stored.
#[derive(Clone)]
pub(crate) enum Held {
    /// A tensor inside the file, or anywhere.
    Plain(Tensor),
    /// A matrix of floats in a narrow form.
    Narrow(Arc<Narrow>),
}

impl std::fmt::Debug for Artifact {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names: Vec<&str> = self.section_names().collect();
        f.debug_struct("Artifact").field("file", &self.file).field("sections", &names).finish_non_exhaustive()
    }
}

/// The bytes of an artifact.
#[derive(Clone)]
enum Bytes {
    Mapped(Arc<Mmap>),
    Embedded(&'static [u8]),
}

impl AsRef<[u8]> for Bytes {
    fn as_ref(&self) -> &[u8] {
        match self {
            Bytes::Mapped(map) => map,
            Bytes::Embedded(bytes) => bytes,
        }
    }
}

/// The next `N` bytes at `offset`.
fn bytes_at<const N: usize>(bytes: &[u8], offset: usize) -> Option<[u8; N]> {
    bytes.get(offset..offset.checked_add(N)?)?.try_into().ok()
}

fn number_at(bytes: &[u8], offset: usize) -> Option<usize> {
    usize::try_from(u64::from_le_bytes(bytes_at(bytes, offset)?)).ok()
}

impl Artifact {
    /// Maps the file at `path` and checks its structure.
    ///
    /// Fails if it cannot be read, is no artifact, was written by a newer version, or is damaged.
    pub fn open(path: &Path) -> Result<Artifact, Error> {
        let name = path.display().to_string();
        let io = |e: std::io::Error| Error::new(ErrorKind::Io, &name, format!("cannot be read: {e}"));
        let file = File::open(path).map_err(io)?;
        if !file.metadata().map_err(io)?.is_file() {
            return Err(Error::new(ErrorKind::Io, &name, "is not a file"));
        }
        // SAFETY: the map is read-only. Artifacts are replaced by renaming, never rewritten in place;
        // who truncates a mapped file gets a bus error, as in any program that maps files.
        let map = unsafe { Mmap::map(&file) }.map_err(io)?;
        Artifact::checked(name, Bytes::Mapped(Arc::new(map)))
    }

    /// An artifact that is part of the program, as [`include_artifact!`](crate::include_artifact) embeds it.
    ///
    /// Fails if the bytes are not aligned to 64 bytes, and as [`Artifact::open`] does.
    pub fn embedded(bytes: &'static [u8]) -> Result<Artifact, Error> {
        if !bytes.as_ptr().addr().is_multiple_of(ALIGN) {
            let why = format!("is not aligned to {ALIGN} bytes: embed it with include_artifact!");
            return Err(Error::new(ErrorKind::Artifact, EMBEDDED, why));
        }
        Artifact::checked(EMBEDDED.into(), Bytes::Embedded(bytes))
    }

    fn checked(file: String, bytes: Bytes) -> Result<Artifact, Error> {
        let mut artifact = Artifact { file, bytes, sections: Vec::new(), constants: HashMap::new() };
        artifact.sections = artifact.read_table().map_err(|why| artifact.damaged(why))?;
        artifact.constants = artifact.read_constants().map_err(|why| artifact.damaged(why))?;
        Ok(artifact)
    }

    fn damaged(&self, why: impl std::fmt::Display) -> Error {
        Error::new(ErrorKind::Artifact, &self.file, why)
    }

    fn read_table(&self) -> Result<Vec<(String, usize, usize)>, String> {
        let all = self.bytes.as_ref();
        let found = &all[..all.len().min(MAGIC.len())];
        if found != MAGIC {
            return Err(format!("is not an .eec file: it starts with \"{}\"", found.escape_ascii()));
        }
        let truncated = || format!("is truncated: it has only {} bytes", all.len());
        let version = u32::from_le_bytes(bytes_at(all, 8).ok_or_else(truncated)?);
        if version != VERSION {
            return Err(format!("has format version {version}, expected {VERSION}"));
        }
        let count = u32::from_le_bytes(bytes_at(all, 12).ok_or_else(truncated)?) as usize;
        let length = number_at(all, 16).ok_or_else(truncated)?;
        if length != all.len() {
            return Err(format!("is damaged: its header says {length} bytes, found {}", all.len()));
        }
        let end = count.checked_mul(ENTRY).and_then(|n| n.checked_add(HEADER)).filter(|end| *end <= length);
        let end = end.ok_or_else(|| format!("is damaged: {count} sections do not fit"))?;
        let entries = all[HEADER..end].chunks_exact(ENTRY);
        let sections = entries.map(|e| read_entry(e, length)).collect::<Result<Vec<_>, String>>()?;
        check_overlaps(&sections, end)?;
        Ok(sections)
    }

    fn read_constants(&self) -> Result<HashMap<ContentHash, Held>, String> {
        let mut constants = HashMap::new();
        let Some(table) = self.section(CONSTANTS) else { return Ok(constants) };
        let entries: Vec<Entry> =
            postcard::from_bytes(table).map_err(|e| format!("is damaged: its list of constants: {e}"))?;
        let weights = self.sections.iter().find(|s| s.0 == WEIGHTS);
        let (start, length) = weights.map_or((0, 0), |s| (s.1, s.2));
        let storage: Storage = Arc::new(self.bytes.clone());
        for entry in entries {
            let bad = |why: &dyn std::fmt::Display| format!("is damaged: constant {}: {why}", entry.hash);
            let dims =
                entry.dims.iter().map(|d| usize::try_from(*d)).collect::<Result<Vec<_>, _>>().map_err(|e| bad(&e))?;
            let offset = usize::try_from(entry.offset).map_err(|e| bad(&e))?;
            let at = start
                .checked_add(offset)
                .filter(|_| offset <= length)
                .ok_or_else(|| bad(&"it lies outside the weights"))?;
            let held = held(&entry, &dims, &storage, at).map_err(|e| bad(&e))?;
            if held.bytes() > length - offset || !offset.is_multiple_of(ALIGN) {
                return Err(bad(&"it lies outside the weights or is not aligned"));
            }
            constants.insert(entry.hash, held);
        }
        Ok(constants)
    }

    /// The bytes of the section `name`.
    pub fn section(&self, name: &str) -> Option<&[u8]> {
        let (_, offset, length) = self.sections.iter().find(|s| s.0 == name)?;
        self.bytes.as_ref().get(*offset..*offset + *length)
    }

    /// The names of all sections.
    pub fn section_names(&self) -> impl Iterator<Item = &str> {
        self.sections.iter().map(|s| s.0.as_str())
    }

    /// The constant with this hash; its bytes stay in the mapped file, unless they are in a narrow form:
    /// then every call makes its floats anew.
    pub fn constant(&self, hash: ContentHash) -> Option<Tensor> {
        match self.constants.get(&hash)? {
            Held::Plain(tensor) => Some(tensor.clone()),
            Held::Narrow(narrow) => narrow.widened(),
        }
    }

    /// The constant as it is stored.
    pub(crate) fn held(&self, hash: ContentHash) -> Option<Held> {
        self.constants.get(&hash).cloned()
    }

    /// Takes the constant's pages out of this process's memory, where it is in a mapped file and the system can;
    /// when it is read again, they come from the file.
    pub(crate) fn release(&self, hash: ContentHash) {
        let Some(held) = self.constants.get(&hash) else { return };
        #[cfg(not(unix))]
        let _ = held;
        #[cfg(unix)]
        if let Bytes::Mapped(map) = &self.bytes {
            let offset = held.address() - map.as_ptr().addr();
            // SAFETY: the map is of a file and nothing writes to it, so that dropped pages lose nothing.
            // A system that refuses keeps them in memory.
            let _ = unsafe { map.unchecked_advise_range(UncheckedAdvice::DontNeed, offset, held.bytes()) };
        }
    }

    /// The hashes of all constants, in no particular order.
    pub fn constants(&self) -> impl Iterator<Item = ContentHash> {
        self.constants.keys().copied()
    }

    /// The program that runs.
    pub fn program(&self) -> Result<Program, Error> {
        self.decode(PROGRAM)?.ok_or_else(|| self.damaged("holds no program"))
    }

    /// The plain model's program, if it stands beside a dynamic one.
    pub fn plain_program(&self) -> Result<Option<Program>, Error> {
        self.decode(PLAIN_PROGRAM)
    }

    /// The GPU form of the program that runs, with the program.
    ///
    /// Fails if it has none, with the reasons, or if it names what the program does not have.
    pub fn gpu(&self) -> Result<(Program, GpuProgram), Error> {
        self.checked_gpu(self.program()?, GPU)
    }

    /// The same of the plain model's program, which is the one that runs if there is no other.
    pub fn plain_gpu(&self) -> Result<(Program, GpuProgram), Error> {
        match self.plain_program()? {
            Some(program) => self.checked_gpu(program, PLAIN_GPU),
            None => self.gpu(),
        }
    }

    fn checked_gpu(&self, program: Program, name: &str) -> Result<(Program, GpuProgram), Error> {
        let form: Option<Result<GpuProgram, String>> = self.decode(name)?;
        let gpu = form.ok_or_else(|| self.damaged("holds no GPU form"))?;
        let gpu = gpu.map_err(|why| Error::new(ErrorKind::Artifact, &self.file, why))?;
        match eec_ir::gpu::verify(&program, &gpu).first() {
            None => Ok((program, gpu)),
            Some(problem) => Err(self.damaged(format!("is damaged: section {name:?}: {problem}"))),
        }
    }

    fn decode<T: serde::de::DeserializeOwned>(&self, name: &str) -> Result<Option<T>, Error> {
        let decode =
            |bytes| postcard::from_bytes(bytes).map_err(|e| self.damaged(format!("is damaged: section {name:?}: {e}")));
        self.section(name).map(decode).transpose()
    }
}

impl Held {
    /// The type of its elements.
    pub(crate) fn dtype(&self) -> DType {
        match self {
            Held::Plain(tensor) => tensor.dtype(),
            Held::Narrow(_) => DType::F32,
        }
    }

    /// Its dims.
    pub(crate) fn dims(&self) -> Vec<usize> {
        match self {
            Held::Plain(tensor) => tensor.dims().to_vec(),
            Held::Narrow(narrow) => narrow.dims().to_vec(),
        }
    }

    /// Where its first byte is.
    #[cfg(unix)]
    fn address(&self) -> usize {
        match self {
            Held::Plain(tensor) => tensor.bytes().as_ptr().addr(),
            Held::Narrow(narrow) => narrow.address(),
        }
    }

    /// Bytes that it is stored in.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Held::Plain(tensor) => tensor.bytes().len(),
            Held::Narrow(narrow) => narrow.stored_bytes(),
        }
    }
}

/// The constant of an entry, whose bytes start at `at`.
fn held(entry: &Entry, dims: &[usize], storage: &Storage, at: usize) -> Result<Held, String> {
    if entry.layout.precision == Precision::F32 {
        let tensor = Tensor::from_storage(entry.dtype, dims, Arc::clone(storage), at);
        return tensor.map(Held::Plain).map_err(|e| e.to_string());
    }
    let ([rows, columns], DType::F32) = (dims, entry.dtype) else {
        return Err(format!("a narrow form of {}{dims:?}", entry.dtype));
    };
    let narrow = Narrow::new(entry.layout, [*rows, *columns], Arc::clone(storage), at);
    narrow.map(|n| Held::Narrow(Arc::new(n))).ok_or_else(|| "its narrow form is truncated".into())
}

fn read_entry(entry: &[u8], length: usize) -> Result<(String, usize, usize), String> {
    let name = entry[..NAME].split(|b| *b == 0).next().unwrap_or_default();
    let name = std::str::from_utf8(name).map_err(|e| format!("is damaged: the name of a section: {e}"))?;
    let (offset, size) = (number_at(entry, NAME), number_at(entry, NAME + 8));
    let inside = |(offset, size): (usize, usize)| {
        offset.checked_add(size).is_some_and(|end| end <= length) && offset.is_multiple_of(ALIGN)
    };
    let found = offset.zip(size).filter(|place| inside(*place));
    let (offset, size) = found
        .ok_or_else(|| format!("is damaged: section {name:?} lies outside its {length} bytes or is not aligned"))?;
    Ok((name.to_string(), offset, size))
}

fn check_overlaps(sections: &[(String, usize, usize)], start: usize) -> Result<(), String> {
    let mut sorted: Vec<&(String, usize, usize)> = sections.iter().filter(|s| s.2 > 0).collect();
    sorted.sort_by_key(|s| s.1);
    let mut end = start;
    for (name, offset, size) in sorted {
        if *offset < end {
            return Err(format!("is damaged: section {name:?} overlaps what stands before it"));
        }
        end = offset + size;
    }
    let mut names: Vec<&str> = sections.iter().map(|s| s.0.as_str()).collect();
    names.sort_unstable();
    match names.windows(2).find(|w| w[0] == w[1]) {
        Some(twice) => Err(format!("is damaged: section {:?} occurs twice", twice[0])),
        None => Ok(()),
    }
}
