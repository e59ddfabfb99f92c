//! This repository's runtime.

use std::error::Error;
use std::path::Path;

use eec_ir::Tensor;
use eec_runtime::{Options, Session};

use super::{Control, Engine};

/// A session with its inputs.
pub struct Eec {
    session: Session,
    inputs: Vec<(String, Tensor)>,
    control: eec_runtime::Control,
}

impl Eec {
    /// Loads an artifact.
    pub fn load(
        artifact: &Path,
        inputs: &[(String, Tensor)],
        threads: usize,
        control: Control,
    ) -> Result<Eec, Box<dyn Error>> {
        let session = Session::load(artifact, Options { threads, ..Options::default() })?;
        let control = match control {
            Control::Auto => eec_runtime::Control::Auto,
            Control::Never => eec_runtime::Control::Never,
        };
        Ok(Eec { session, inputs: inputs.to_vec(), control })
    }
}

impl Engine for Eec {
    fn run(&mut self, _names: &[String]) -> Result<Vec<(String, Tensor)>, Box<dyn Error>> {
        let named: Vec<(&str, Tensor)> = self.inputs.iter().map(|(n, t)| (n.as_str(), t.clone())).collect();
        Ok(self.session.run(&named, self.control)?.outputs)
    }
}
