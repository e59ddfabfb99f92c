//! The graph IR of eec and everything that needs nothing but it.

#![forbid(unsafe_code)]

pub mod attr;
pub mod bind;
pub mod constant;
pub mod cost;
pub mod dim;
pub mod entity;
pub mod eval;
pub mod graph;
pub mod op;
pub mod ops;
pub mod program;
pub mod tensor;
pub mod text;
pub mod types;
pub mod verify;

pub use constant::{ConstPool, ContentHash};
pub use dim::{Dim, Symbol};
pub use entity::{BufferId, ConstId, KernelId, NodeId, RegionId, ValueId};
pub use graph::{Graph, Origin};
pub use op::Op;
pub use tensor::Tensor;
pub use types::{DType, Type};
