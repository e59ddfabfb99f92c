//! Code that measures a kernel: its time, work and traffic, added to the run's counters.

use cranelift::prelude::*;
use eec_ir::KernelId;
use eec_ir::program::Kernel;

use super::entry::Entry;
use crate::context::MEASURES;
use crate::traffic::{On, traffic};

impl Entry<'_, '_> {
    /// The time.
    pub(super) fn clock(&mut self) -> Value {
        self.call_for(self.helpers.clock, &[self.tables.context])
    }

    /// Adds what one run of a kernel, begun at `start`, took.
    pub(super) fn measure(&mut self, id: KernelId, kernel: &Kernel, start: Value) {
        let end = self.clock();
        let program = self.program;
        let took = self.b.ins().isub(end, start);
        let measured = [took, self.size(&kernel.macs), self.size(&traffic(program, &kernel.form, On::Cpu))];
        let first = 1 + program.exits.len() + program.gates.len() + program.kernels.len() + MEASURES * id.index();
        measured.into_iter().enumerate().for_each(|(i, value)| self.count(first + i, value));
    }
}
