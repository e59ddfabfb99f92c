//! Lowering: [`Program`](eec_ir::program::Program) to [`GpuProgram`], its kernels as WGSL.
//!
//! `flatten` puts the steps of all blocks into one list of dispatches; `control` and, for loops, `repeat` write the
//! shaders that decide which of them run, `rows` those that copy rows and outputs. Kernels have one file per form: `loops` (with `merge` and
//! `reduce`), `matmul`, `attention`, `conv`, `pool`, `scan`; `tile` is what products and convolutions share, `thin`
//! serves products of very few rows. `text` is the writer of one shader, which `assemble` puts together, with `place` (elements of buffers), `dims` (sizes), `exprs` (scalar
//! functions), `epilogue` and `helpers` (functions in WGSL). `check` validates every text.

mod assemble;
mod attention;
mod check;
mod constants;
mod control;
mod conv;
mod dims;
mod epilogue;
mod exprs;
mod flatten;
mod helpers;
mod loops;
mod matmul;
mod merge;
mod place;
mod pool;
mod reduce;
mod repeat;
mod rows;
mod scan;
mod text;
mod thin;
mod tile;

use std::fmt;
use std::path::Path;

use eec_ir::Dim;
use eec_ir::gpu::{GpuProgram, PIECE};
use eec_ir::program::{Form, VerifiedProgram};

use crate::Error;
use text::{Reason, Writer};

/// Why a program has no GPU form: all kernels and ports that stand in the way.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Unsupported {
    /// The program's name.
    pub program: String,
    /// What has no shader, and why; in the order of the program, each once.
    pub problems: Vec<Problem>,
}

/// One thing that has no GPU form.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Problem {
    /// The kernel's name, or that of a port or step.
    pub place: String,
    /// Why.
    pub reason: String,
}

impl fmt::Display for Unsupported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "program {:?} has no GPU form:", self.program)?;
        self.problems.iter().try_for_each(|p| write!(f, "\n  {}: {}", p.place, p.reason))
    }
}

impl std::error::Error for Unsupported {}

/// Why lowering gave no GPU form.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum LowerError {
    /// The program can have none.
    #[error(transparent)]
    Unsupported(#[from] Unsupported),
    /// A bug: a shader was written that is not valid.
    #[error("internal error: the shader of {place} is not valid: {why}")]
    Invalid {
        /// The kernel, or the port or step.
        place: String,
        /// What is wrong, with the place in the text.
        why: String,
    },
}

/// The GPU form of a program. Operators without a shader are steps of the host in it, where it can take them.
///
/// # Errors
///
/// All kernels that can run neither as a shader nor on the host, with the reasons: element types without a 32-bit
/// word, operators of the host behind a decision. A text that does not validate is an internal error that names its
/// kernel.
pub fn lower(program: &VerifiedProgram<'_>) -> Result<GpuProgram, LowerError> {
    lower_in_pieces(program, PIECE)
}

/// [`lower`] for adapters that show so many words of a constant in one binding; [`lower`] takes what all have.
///
/// # Errors
///
/// Those of [`lower`].
pub fn lower_in_pieces(program: &VerifiedProgram<'_>, words: u32) -> Result<GpuProgram, LowerError> {
    flatten::flatten(program.program(), words.max(1))
}

/// Writes the shaders of a GPU form and the list of its dispatches into a folder.
///
/// # Errors
///
/// The folder or a file of it cannot be written.
pub fn dump(gpu: &GpuProgram, folder: &Path) -> Result<(), Error> {
    let write = |name: String, text: &str| {
        let path = folder.join(name);
        std::fs::write(&path, text).map_err(|e| Error::io(&path, e))
    };
    std::fs::create_dir_all(folder).map_err(|e| Error::io(folder, e))?;
    write("dispatches.txt".into(), &gpu.dispatches_text())?;
    gpu.shaders.iter().enumerate().try_for_each(|(i, shader)| {
        write(format!("{i:03}.wgsl"), &shader.text)?;
        shader.with_subgroups.iter().try_for_each(|text| write(format!("{i:03}.subgroups.wgsl"), text))
    })
}

/// How a shader's work is divided.
struct Body {
    /// Lanes of a workgroup.
    lanes: u32,
    /// Workgroups that do all the work at once.
    groups: Dim,
}

/// Writes a kernel.
fn kernel(w: &mut Writer, form: &Form) -> Result<Body, Reason> {
    match form {
        Form::Loop(form) => loops::write(w, form),
        Form::MatMul(form) => matmul::write(w, &[form]),
        Form::Attention(form) => attention::write(w, form),
        Form::Conv(form) => conv::write(w, form),
        Form::Pool(form) => pool::write(w, form),
        Form::Scan(form) => scan::write(w, form),
        // It is a step of its own.
        Form::Host(form) => Err(format!("{} has no shader", form.op)),
    }
}
