//! Writes artifacts.

use std::collections::HashSet;
use std::io::Write;
use std::path::Path;

use eec_ir::gpu::GpuProgram;
use eec_ir::program::Program;
use eec_ir::{ContentHash, Precision, Tensor};

use super::narrow::Layout;
use super::{
    ALIGN, CONSTANTS, ENTRY, Entry, GPU, HEADER, MAGIC, NAME, PLAIN_GPU, PLAIN_PROGRAM, PROGRAM, VERSION, WEIGHTS,
    align,
};
use crate::error::{Error, ErrorKind};
use crate::file::replace_file;

/// The bytes of a constant.
enum Stored {
    /// Those of the tensor.
    Plain(Tensor),
    /// Those of a narrow form.
    Narrow(Vec<u8>),
}

impl AsRef<[u8]> for Stored {
    fn as_ref(&self) -> &[u8] {
        match self {
            Stored::Plain(tensor) => tensor.bytes(),
            Stored::Narrow(bytes) => bytes,
        }
    }
}

/// Collects the parts of an artifact and writes it in one go.
#[derive(Default)]
pub struct ArtifactWriter {
    sections: Vec<(String, Vec<u8>)>,
    entries: Vec<Entry>,
    /// The bytes of every entry.
    stored: Vec<Stored>,
    known: HashSet<ContentHash>,
    weights: usize,
}

impl ArtifactWriter {
    /// An empty artifact.
    pub fn new() -> ArtifactWriter {
        ArtifactWriter::default()
    }

    /// Sets the section `name` (at most 48 bytes), replacing one of that name.
    ///
    /// Fails if the name is empty, too long, contains a zero byte, or is one that the writer fills itself.
    pub fn section(&mut self, name: &str, bytes: Vec<u8>) -> Result<(), Error> {
        if [CONSTANTS, WEIGHTS].contains(&name) || name.is_empty() || name.len() > NAME || name.contains('\0') {
            return Err(Error::new(ErrorKind::Artifact, "artifact", format!("{name:?} cannot name a section")));
        }
        self.sections.retain(|(n, _)| n != name);
        self.sections.push((name.to_string(), bytes));
        Ok(())
    }

    /// Sets the program that runs.
    pub fn program(&mut self, program: &Program) -> Result<(), Error> {
        self.section(PROGRAM, encode(program)?)
    }

    /// Sets the plain model's program, beside a dynamic one.
    pub fn plain_program(&mut self, program: &Program) -> Result<(), Error> {
        self.section(PLAIN_PROGRAM, encode(program)?)
    }

    /// Sets the GPU form of the program that runs, or why it has none.
    pub fn gpu(&mut self, gpu: &Result<GpuProgram, String>) -> Result<(), Error> {
        self.section(GPU, encode(gpu)?)
    }

    /// Sets the GPU form of the plain model's program, beside a dynamic one, or why it has none.
    pub fn plain_gpu(&mut self, gpu: &Result<GpuProgram, String>) -> Result<(), Error> {
        self.section(PLAIN_GPU, encode(gpu)?)
    }

    /// Adds a constant; equal ones are stored once.
    pub fn constant(&mut self, tensor: &Tensor) -> ContentHash {
        self.add(tensor, Layout::default())
    }

    /// [`ArtifactWriter::constant`] for the weights of a product, which take less room if they were rounded
    /// for `precision`, and all of it otherwise. `transposed`: the product sums over the matrix's columns.
    pub fn weights(&mut self, tensor: &Tensor, precision: Precision, transposed: bool) -> ContentHash {
        self.add(tensor, Layout { precision, transposed })
    }

    fn add(&mut self, tensor: &Tensor, layout: Layout) -> ContentHash {
        let hash = ContentHash::of(tensor);
        if self.known.insert(hash) {
            let (stored, layout) = match layout.encode(tensor) {
                Some(bytes) => (Stored::Narrow(bytes), layout),
                None => (Stored::Plain(tensor.clone()), Layout::default()),
            };
            let dims = tensor.dims().iter().map(|d| *d as u64).collect();
            self.entries.push(Entry { hash, dtype: tensor.dtype(), dims, offset: self.weights as u64, layout });
            self.weights = align(self.weights + stored.as_ref().len());
            self.stored.push(stored);
        }
        hash
    }

    /// Writes the artifact: to a temporary file beside `path`, which takes its name when complete, so
    /// that an interrupted write leaves nothing behind under that name.
    pub fn write_to(&self, path: &Path) -> Result<(), Error> {
        let fail = |e: &dyn std::fmt::Display| {
            Error::new(ErrorKind::Io, path.display().to_string(), format!("cannot be written: {e}"))
        };
        let constants = postcard::to_stdvec(&self.entries).map_err(|e| fail(&e))?;
        replace_file(path, |out| self.write(out, &constants)).map_err(|e| fail(&e))
    }

    fn write(&self, out: &mut impl Write, constants: &[u8]) -> std::io::Result<()> {
        let mut table: Vec<(&str, usize)> = self.sections.iter().map(|(n, b)| (n.as_str(), b.len())).collect();
        table.extend([(CONSTANTS, constants.len()), (WEIGHTS, self.weights)]);
        let start = align(HEADER + ENTRY * table.len());
        let length: usize = start + table.iter().map(|(_, len)| align(*len)).sum::<usize>();
        let mut head = Vec::with_capacity(start);
        head.extend(MAGIC);
        head.extend(VERSION.to_le_bytes());
        head.extend((table.len() as u32).to_le_bytes());
        head.extend((length as u64).to_le_bytes());
        head.resize(HEADER, 0);
        let mut offset = start;
        for (name, len) in &table {
            let end = head.len() + NAME;
            head.extend(name.as_bytes());
            head.resize(end, 0);
            head.extend((offset as u64).to_le_bytes());
            head.extend((*len as u64).to_le_bytes());
            offset += align(*len);
        }
        head.resize(start, 0);
        out.write_all(&head)?;
        for (_, bytes) in &self.sections {
            write_padded(out, bytes)?;
        }
        write_padded(out, constants)?;
        self.stored.iter().try_for_each(|bytes| write_padded(out, bytes.as_ref()))
    }
}

fn write_padded(out: &mut impl Write, bytes: &[u8]) -> std::io::Result<()> {
    out.write_all(bytes)?;
    out.write_all(&[0; ALIGN][..align(bytes.len()) - bytes.len()])
}

fn encode(program: &impl serde::Serialize) -> Result<Vec<u8>, Error> {
    postcard::to_stdvec(program)
        .map_err(|e| Error::new(ErrorKind::Artifact, "a program", format!("cannot be encoded: {e}")))
}
