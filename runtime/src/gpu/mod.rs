//! Runs programs on a GPU: shaders made when the model was compiled, recorded as one submission whose
//! decisions are taken on the device ([`eec_ir::gpu`]), with one read-back at its end.

mod adapter;
mod bindings;
mod cache;
mod device;
mod encode;
mod guard;
mod host;
mod hwbench;
mod loops;
mod memory;
mod pipelines;
mod plan;
mod probe;
mod profile;
mod results;
mod running;
mod segments;
mod session;
mod weights;
mod words;

pub use adapter::{Adapter, AdapterLimits, adapters};
pub use device::Gpu;
pub use guard::{Guard, GuardTime, GuardTimes, Spread};
pub use hwbench::GpuLimits;
pub use session::{GpuOptions, GpuSession};
