//! What the test suites of the workspace share: cases from files, backends, comparing values, and
//! the folder with real models. The suites are under `tests/`, the cases under `cases/`.

#![forbid(unsafe_code)]

pub mod backend;
pub mod files;
pub mod fuzz;
pub mod shared;
pub mod values;
pub mod variants;
pub mod written;
