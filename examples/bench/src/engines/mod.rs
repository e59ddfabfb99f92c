//! The engines that run inside this program, each ready to run one model on one set of inputs.

mod eec;
mod rten;
mod tract;

use std::error::Error;
use std::path::Path;

use clap::ValueEnum;
use eec_ir::Tensor;

/// The engines that are compared.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
#[value(rename_all = "lower")]
pub enum Kind {
    /// This repository's compiler and runtime.
    Eec,
    /// Microsoft's, in a Python process.
    OnnxRuntime,
    /// Sonos' engine in Rust.
    Tract,
    /// Robert Knight's engine in Rust.
    Rten,
}

impl Kind {
    /// Its name in tables and on command lines.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Eec => "eec",
            Kind::OnnxRuntime => "onnxruntime",
            Kind::Tract => "tract",
            Kind::Rten => "rten",
        }
    }
}

/// Who decides at early exits, in engines that have them.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, ValueEnum)]
pub enum Control {
    /// Their rules.
    #[default]
    Auto,
    /// Nobody leaves.
    Never,
}

impl Control {
    /// Its name on command lines.
    pub fn name(self) -> &'static str {
        match self {
            Control::Auto => "auto",
            Control::Never => "never",
        }
    }
}

/// A loaded model with its inputs.
pub trait Engine {
    /// Runs once; the outputs, which `names` names in the model's order.
    fn run(&mut self, names: &[String]) -> Result<Vec<(String, Tensor)>, Box<dyn Error>>;
}

/// Loads `model`, for eec an artifact, for others an ONNX file.
pub fn load(
    kind: Kind,
    model: &Path,
    inputs: &[(String, Tensor)],
    threads: usize,
    control: Control,
) -> Result<Box<dyn Engine>, Box<dyn Error>> {
    Ok(match kind {
        Kind::Eec => Box::new(eec::Eec::load(model, inputs, threads, control)?),
        Kind::Tract => Box::new(tract::Tract::load(model, inputs, threads)?),
        Kind::Rten => Box::new(rten::Rten::load(model, inputs, threads)?),
        Kind::OnnxRuntime => return Err("ONNX Runtime runs in Python".into()),
    })
}
