//! eec: makes ONNX models leave early.
//!
//! The road of a model: [`onnx::import`] → [`model::simplified`] → [`compile::compile`] (find exits,
//! fit, calibrate, insert) → [`lower::lower`] → an artifact ([`model::Model::save`]) that
//! `eec-runtime` runs. [`evaluate`] judges the result, [`onnx::export`] writes it as standard ONNX.
//! The `eec` command is [`cli`], one file per verb; a build script does the same by [`build::Builder`].

#![forbid(unsafe_code)]

pub mod backend;
pub mod build;
pub mod calibrate;
pub mod capture;
pub mod cases;
pub mod cli;
pub mod compare;
pub mod compile;
pub mod dataset;
mod display;
mod error;
pub mod evaluate;
pub mod fit;
pub mod lower;
pub mod model;
pub mod npz;
pub mod onnx;
pub mod progress;
pub mod quality;
pub mod recipe;
pub mod reduce;
pub mod report;
#[cfg(feature = "testing")]
pub mod testing;
pub mod view;
pub mod wgsl;

pub use error::Error;
