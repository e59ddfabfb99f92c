//! The code that a session runs: made when it is loaded, or ahead of time and linked into the program.

use std::ffi::c_void;

use eec_ir::program::VerifiedProgram;

use crate::call;
#[cfg(feature = "jit")]
use crate::compile::jit::JitCode;
use crate::context::Context;
use crate::error::{Error, ErrorKind};
use crate::run::Options;

/// A program's entry function. Its argument is a [`Context`].
pub(crate) type EntryFn = unsafe extern "C" fn(*mut c_void);

/// Code that is ready to run.
pub(crate) struct Code {
    entry: EntryFn,
    /// Where the code lives, unless it is linked into the program.
    #[cfg(feature = "jit")]
    _made: Option<JitCode>,
}

impl Code {
    /// The code that `options` ask for: what they name, if it is for this program, else code that is made now.
    pub(crate) fn of(verified: VerifiedProgram<'_>, options: &Options) -> Result<Code, Error> {
        let program = verified.program();
        let Some(native) = options.native else { return Code::made(verified, options.profile) };
        if options.profile {
            let why = "code that was made ahead of time measures no kernels: Options::profile needs the feature `jit` and no \
                       Options::native";
            return Err(call::error(program, ErrorKind::Feature, why));
        }
        Ok(Code {
            entry: native.entry(program)?,
            #[cfg(feature = "jit")]
            _made: None,
        })
    }

    #[cfg(feature = "jit")]
    fn made(verified: VerifiedProgram<'_>, profile: bool) -> Result<Code, Error> {
        let program = verified.program();
        let made = JitCode::new(verified, profile).map_err(|e| call::error(program, ErrorKind::Internal, e))?;
        Ok(Code { entry: made.entry, _made: Some(made) })
    }

    #[cfg(not(feature = "jit"))]
    fn made(verified: VerifiedProgram<'_>, _profile: bool) -> Result<Code, Error> {
        let why = "there is no code for it: eec-runtime is built without the feature `jit`, and Options::native \
                   names no code that was made ahead of time";
        Err(call::error(verified.program(), ErrorKind::Feature, why))
    }

    /// Runs the program.
    ///
    /// # Safety
    ///
    /// The tables of `context` are complete for the program that this code was made for, and its bounds were
    /// checked for the symbols' values.
    pub(crate) unsafe fn run(&self, context: &mut Context) {
        // SAFETY: the caller's promise; the code lives as long as `self`.
        unsafe { (self.entry)(std::ptr::from_mut(context).cast()) }
    }
}
