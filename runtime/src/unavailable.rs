//! Stands in for sessions where the crate is built without its code generator.

use std::convert::Infallible;
use std::path::Path;

use eec_ir::program::Program;
use eec_ir::{ContentHash, Tensor};

use crate::artifact::Artifact;
use crate::error::{Error, ErrorKind};
use crate::run::{Control, Options, PortInfo, Run};
use crate::runner::Runner;

/// A compiled model; without the feature `jit` none can be made.
pub struct Session(Infallible);

fn missing(subject: String) -> Error {
    Error::new(ErrorKind::Feature, subject, "models cannot be run: eec-runtime is built without the feature `jit`")
}

impl Session {
    /// Fails: the feature `jit` is missing.
    pub fn new(
        program: Program,
        _constants: &dyn Fn(ContentHash) -> Option<Tensor>,
        _options: Options,
    ) -> Result<Session, Error> {
        Err(missing(format!("model {:?}", program.name)))
    }

    /// Fails: the feature `jit` is missing.
    pub fn of_artifact(_artifact: &Artifact, program: Program, _options: Options) -> Result<Session, Error> {
        Err(missing(format!("model {:?}", program.name)))
    }

    /// Fails: the feature `jit` is missing.
    pub fn load(path: &Path, _options: Options) -> Result<Session, Error> {
        Err(missing(path.display().to_string()))
    }

    /// Fails: the feature `jit` is missing.
    pub fn embedded(_artifact: &'static [u8], _options: Options) -> Result<Session, Error> {
        Err(missing("the embedded artifact".into()))
    }

    /// The program.
    pub fn program(&self) -> &Program {
        match self.0 {}
    }

    /// The inputs.
    pub fn inputs(&self) -> Vec<PortInfo> {
        match self.0 {}
    }

    /// The outputs.
    pub fn outputs(&self) -> Vec<PortInfo> {
        match self.0 {}
    }

    /// The names of the early exits.
    pub fn exits(&self) -> Vec<&str> {
        match self.0 {}
    }

    /// The names of the gates.
    pub fn gates(&self) -> Vec<&str> {
        match self.0 {}
    }

    /// Threads that compute.
    pub fn threads(&self) -> usize {
        match self.0 {}
    }

    /// Bytes of the weights as they are stored.
    pub fn weight_bytes(&self) -> usize {
        match self.0 {}
    }

    /// Bytes of the arena so far.
    pub fn arena_bytes(&self) -> usize {
        match self.0 {}
    }

    /// Runs the model.
    pub fn run(&mut self, _inputs: &[(&str, Tensor)], _control: Control) -> Result<Run, Error> {
        match self.0 {}
    }
}

impl Runner for Session {
    fn program(&self) -> &Program {
        match self.0 {}
    }

    fn run(&mut self, _inputs: &[(&str, Tensor)], _control: Control) -> Result<Run, Error> {
        match self.0 {}
    }

    fn device(&self) -> String {
        match self.0 {}
    }

    fn weight_bytes(&self) -> usize {
        match self.0 {}
    }

    fn arena_bytes(&self) -> usize {
        match self.0 {}
    }
}
