//! ONNX in and out: standard model files to and from the IR.
//!
//! [`import`] reads opsets 6 to 28. Target shapes, slice bounds and axes, which ONNX passes as
//! tensors, become attributes: they are read from what inference knows of the tensor's elements, and
//! where it knows nothing the import fails with the node's name. [`export`] writes opset 20; the
//! sizes become tensors again, and `Route` becomes `NonZero`, `Gather`, `If` and a gather that
//! restores the order.

mod error;
mod export;
mod external;
mod import;
mod proto;
mod survey;
mod tensor;
mod unsupported;

pub use error::{ExportError, ImportError, ImportErrorKind};
pub use export::{export, export_bytes};
pub use external::external_files;
pub use import::{
    Cpu, FixedInput, ImportOptions, Limits, OPSETS, Operator, import, import_bytes, import_bytes_with, import_with,
    operators, read_tensor_file,
};
pub use unsupported::{Deciding, Unsupported, UnsupportedForm, UnsupportedOp, UnsupportedType};
