//! What the test suites of the workspace share beside the compiler's own test support: cases from files,
//! layouts of inputs, and the folder with real models. The suites are under `tests/`, the cases under `cases/`.

#![forbid(unsafe_code)]

pub mod files;
pub mod fuzz;
pub mod shared;
pub mod variants;
pub mod written;

pub use eec::cases::{backend, values};
