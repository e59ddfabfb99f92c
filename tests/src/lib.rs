//! What the test suites of the workspace share beside the compiler's own test support: cases from files,
//! layouts of inputs, and the folder with real models. The suites are under `tests/`, the cases under `cases/`.

#![forbid(unsafe_code)]

pub mod files;
pub mod fuzz;
pub mod shared;
pub mod variants;
pub mod written;

pub use eec::cases::{backend, values};
use eec_ir::program::{Program, Step};

/// Whether a program has a GPU form: its elements have words there, and no size is decided by data.
pub fn has_gpu_form(program: &Program) -> bool {
    let by_data = |step: &Step| matches!(step, Step::Size(_));
    program.buffers.iter().all(|b| b.dtype.is_compiled()) && !program.blocks.iter().flat_map(|b| &b.steps).any(by_data)
}
