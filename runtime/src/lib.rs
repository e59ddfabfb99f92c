//! Loads compiled models and runs them on the CPU: machine code for the branches and loops of a
//! [`Program`](eec_ir::program::Program), SIMD kernels for its products, one arena for its buffers.
//!
//! A program that embeds a compiled model needs this crate alone: [`Session::load`], or
//! [`Session::embedded`] with [`include_artifact!`], then [`Session::run`]. It knows neither ONNX nor passes. `unsafe` stands in the files that map a file,
//! hold SIMD kernels or tables of addresses, or call generated code.

#[cfg(target_endian = "big")]
compile_error!("artifacts and generated code are little-endian");

mod array;
mod artifact;
#[cfg(feature = "jit")]
mod bind;
#[cfg(feature = "jit")]
mod bounds;
#[cfg(feature = "jit")]
mod compile;
#[cfg(feature = "jit")]
mod context;
mod embed;
#[cfg(feature = "jit")]
mod epilogue;
mod error;
#[cfg(feature = "jit")]
mod extent;
mod file;
#[cfg(feature = "jit")]
mod host;
#[cfg(feature = "jit")]
mod jobs;
#[cfg(feature = "jit")]
mod kernels;
#[cfg(feature = "jit")]
mod limits;
#[cfg(feature = "jit")]
mod memory;
#[cfg(feature = "jit")]
mod pack;
#[cfg(feature = "jit")]
mod pages;
#[cfg(feature = "jit")]
mod plan;
#[cfg(feature = "jit")]
mod pool;
#[cfg(feature = "jit")]
mod products;
mod run;
#[cfg(feature = "jit")]
mod seat;
#[cfg(feature = "jit")]
mod session;
#[cfg(not(feature = "jit"))]
mod unavailable;

pub use array::Array;
pub use artifact::{Artifact, ArtifactWriter, MAGIC, PLAIN_PROGRAM, PROGRAM};
pub use eec_ir::tensor::{Element, TensorError};
pub use eec_ir::{DType, Tensor};
pub use error::{Error, ErrorKind};
pub use file::replace_file;
#[cfg(feature = "jit")]
pub use limits::Limits;
pub use run::{Control, Counters, Measure, Options, PortInfo, Run};
#[cfg(feature = "jit")]
pub use session::Session;
#[cfg(not(feature = "jit"))]
pub use unavailable::Session;
