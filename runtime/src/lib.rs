//! Loads compiled models and runs them. On the CPU: machine code for the branches and loops of a
//! [`Program`](eec_ir::program::Program), SIMD kernels for its products, one arena for its buffers. With the
//! feature `gpu` on a GPU as well: shaders in one submission, whose decisions stay on the device.
//!
//! A program that embeds a compiled model needs this crate alone: [`Session::load`], or
//! [`Session::embedded`] with [`include_artifact!`], then [`Session::run`]. It knows neither ONNX nor passes.
//!
//! Machine code is made when a model is loaded, which takes the feature `jit`, or ahead of time, with the feature
//! `object`, and is then linked into the program: [`Options::native`] hands it to the session.
//!
//! `unsafe` stands in the files that map a file, hold SIMD kernels or tables of addresses, call generated code,
//! or give a driver its own cached code.

#[cfg(target_endian = "big")]
compile_error!("artifacts and generated code are little-endian");

mod array;
mod artifact;
mod bind;
mod bounds;
mod call;
mod code;
#[cfg(feature = "codegen")]
mod compile;
mod context;
mod cpu;
mod embed;
mod epilogue;
mod error;
mod expr;
mod extent;
mod file;
#[cfg(feature = "gpu")]
pub mod gpu;
mod host;
mod jobs;
mod kernels;
mod limits;
mod memory;
mod native;
#[cfg(feature = "object")]
pub mod object;
mod pack;
mod pages;
mod placing;
mod plan;
mod pool;
mod products;
mod refusal;
mod run;
mod runner;
mod seat;
mod session;
mod sizes;
mod symbols;
#[cfg(any(feature = "codegen", feature = "gpu"))]
mod traffic;

pub use array::Array;
pub use artifact::{Artifact, ArtifactWriter, MAGIC, PLAIN_PROGRAM, PROGRAM};
pub use eec_ir::tensor::{Element, TensorError};
pub use eec_ir::{DType, Tensor};
pub use error::{Error, ErrorKind};
pub use file::replace_file;
pub use limits::Limits;
pub use native::NativeCode;
pub use refusal::check_runs;
pub use run::{Control, Counters, GpuCounters, Measure, Options, PortInfo, Run, Span, SpanKind};
pub use runner::Runner;
pub use session::Session;
