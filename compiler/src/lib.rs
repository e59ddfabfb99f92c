//! eec

pub mod calibrate;
pub mod fit;
pub mod lower;
pub mod npz;
pub mod onnx;
