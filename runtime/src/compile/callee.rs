//! Calls of the runtime's functions, whose addresses a run's context holds: code refers to nothing outside itself,
//! so that it can be linked anywhere.

use cranelift::codegen::ir::{Inst, SigRef};
use cranelift::prelude::types::I64;
use cranelift::prelude::*;

/// A function of the runtime, as the function being built calls it.
#[derive(Clone, Copy)]
pub(super) struct Callee {
    pub(super) signature: SigRef,
    /// Where its address is in [`Callees`](crate::context::Callees).
    pub(super) offset: usize,
}

impl Callee {
    /// Calls it; `callees` is the address of the table.
    pub(super) fn call(self, b: &mut FunctionBuilder<'_>, callees: Value, args: &[Value]) -> Inst {
        let address = b.ins().load(I64, constant(), callees, self.offset as i32);
        b.ins().call_indirect(self.signature, address, args)
    }
}

/// What is the same during all of a run.
pub(super) fn constant() -> MemFlagsData {
    MemFlagsData::new().with_notrap().with_readonly().with_can_move()
}
