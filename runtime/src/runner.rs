//! What sessions of all backends have in common.

use eec_ir::Tensor;
use eec_ir::program::Program;

use crate::error::Error;
use crate::run::{Control, PortInfo, Run};

/// A compiled model that is ready to run, whatever runs it.
pub trait Runner {
    /// The program.
    fn program(&self) -> &Program;

    /// Runs the model on inputs by name.
    ///
    /// Fails if names, types or dims are not the model's (all such problems in one error), if memory does not
    /// suffice, if a kernel meets an index out of range or an integer division by zero, and if the device fails.
    fn run(&mut self, inputs: &[(&str, Tensor)], control: Control) -> Result<Run, Error>;

    /// What runs it, for people: `cpu, 2 threads`.
    fn device(&self) -> String;

    /// Threads that compute, on the CPU.
    fn threads(&self) -> Option<usize> {
        None
    }

    /// Bytes of the weights: as they are stored, or as a device holds them.
    fn weight_bytes(&self) -> usize;

    /// Bytes of the memory for temporary buffers so far.
    fn arena_bytes(&self) -> usize;

    /// The inputs.
    fn inputs(&self) -> Vec<PortInfo> {
        self.program().inputs.iter().map(PortInfo::of).collect()
    }

    /// The outputs.
    fn outputs(&self) -> Vec<PortInfo> {
        self.program().outputs.iter().map(PortInfo::of).collect()
    }

    /// The names of the early exits.
    fn exits(&self) -> Vec<&str> {
        self.program().exits.iter().map(|e| e.name.as_str()).collect()
    }

    /// The names of the gates.
    fn gates(&self) -> Vec<&str> {
        self.program().gates.iter().map(|g| g.name.as_str()).collect()
    }
}
