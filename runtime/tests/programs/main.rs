//! Hand-built Programs against straightforward loops.
#![cfg(feature = "jit")]

mod artifacts;
mod build;
mod control;
mod epilogues;
mod forms;
mod functions;
mod host;
mod joins;
mod late;
mod loops;
#[cfg(all(target_os = "linux", feature = "object"))]
mod native;
mod plans;
mod repeats;
mod strips;
