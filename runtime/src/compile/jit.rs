//! Code that is made when a program is loaded, for the CPU that it runs on.

use cranelift_jit::{JITBuilder, JITModule};
use cranelift_module::default_libcall_names;
use eec_ir::program::VerifiedProgram;

use super::{CompileError, Compiled, compile, flags};
use crate::code::EntryFn;

/// Compiled code and where it lives.
pub(crate) struct JitCode {
    module: Option<JITModule>,
    /// Valid as long as this value.
    pub(crate) entry: EntryFn,
}

impl JitCode {
    /// Compiles a program. With `profile` the code also measures every kernel.
    pub(crate) fn new(program: VerifiedProgram<'_>, profile: bool) -> Result<JitCode, CompileError> {
        let host = |e: &dyn std::fmt::Display| CompileError::Target("this CPU".into(), e.to_string());
        let isa = cranelift_native::builder().map_err(|e| host(&e))?;
        let isa = isa.finish(flags(false)?).map_err(|e| host(&e))?;
        let module = JITModule::new(JITBuilder::with_isa(isa, default_libcall_names()));
        let Compiled { mut module, entry } = compile(module, program, profile)?;
        module.finalize_definitions()?;
        let address = module.get_finalized_function(entry);
        // SAFETY: `entry` was just defined with this signature.
        let entry = unsafe { std::mem::transmute::<*const u8, EntryFn>(address) };
        Ok(JitCode { module: Some(module), entry })
    }
}

impl Drop for JitCode {
    fn drop(&mut self) {
        if let Some(module) = self.module.take() {
            // SAFETY: nothing runs this code any more, since running borrows `self`.
            unsafe { module.free_memory() };
        }
    }
}
