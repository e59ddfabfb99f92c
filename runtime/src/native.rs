//! Code that was made ahead of time, as it lies in the program that it is linked into.

use std::fmt;

use eec_ir::program::Program;

use crate::call;
use crate::code::EntryFn;
use crate::cpu;
use crate::error::{Error, ErrorKind};

/// Machine code for one program, made ahead of time by [`object::compile`](crate::object::compile). The modules that
/// `eec`'s build scripts write declare it and hand it to the session, as [`Options::native`](crate::Options::native).
#[repr(C)]
pub struct NativeCode {
    /// [`LAYOUT`] of the crate that made it.
    pub(crate) layout: u64,
    /// [`identity`] of the program that it was made of.
    pub(crate) program: [u8; 32],
    /// The CPU features that it uses, as bits of [`cpu::table`].
    pub(crate) features: u64,
    pub(crate) entry: EntryFn,
}

impl NativeCode {
    /// The entry function, if this is code for the program that this crate and this CPU can run.
    pub(crate) fn entry(&self, program: &Program) -> Result<EntryFn, Error> {
        let fail =
            |kind, why: &str| Err(call::error(program, kind, format!("the code that was made ahead of time {why}")));
        if self.layout != LAYOUT {
            return fail(ErrorKind::Artifact, "is for another version of eec-runtime: build the program anew");
        }
        if self.program != identity(program)? {
            return fail(ErrorKind::Artifact, "is for another program: artifact and code are not of one build");
        }
        let missing = cpu::names(std::env::consts::ARCH, self.features & !cpu::detected());
        if !missing.is_empty() {
            return fail(ErrorKind::Device, &format!("needs what this CPU does not have: {}", missing.join(", ")));
        }
        Ok(self.entry)
    }
}

impl fmt::Debug for NativeCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NativeCode").finish_non_exhaustive()
    }
}

/// What tells programs apart: a hash of all that they are. Their constants are named by hashes of their own.
pub(crate) fn identity(program: &Program) -> Result<[u8; 32], Error> {
    let bytes = postcard::to_stdvec(program)
        .map_err(|e| call::error(program, ErrorKind::Program, format!("cannot be encoded: {e}")))?;
    Ok(*blake3::hash(&bytes).as_bytes())
}

/// What code and runtime must agree on, as one number: a hash of the crate's version and of all sources that say
/// what code calls, and with what. Code that was made by others of one version would call the wrong functions.
pub(crate) const LAYOUT: u64 = {
    let mut hash = fold(0xcbf2_9ce4_8422_2325, env!("CARGO_PKG_VERSION").as_bytes());
    let mut i = 0;
    while i < SOURCES.len() {
        hash = fold(hash, SOURCES[i]);
        i += 1;
    }
    hash
};

const SOURCES: [&[u8]; 8] = [
    include_bytes!("call.rs"),
    include_bytes!("compile/entry.rs"),
    include_bytes!("compile/mod.rs"),
    include_bytes!("context.rs"),
    include_bytes!("kernels/math.rs"),
    include_bytes!("native.rs"),
    include_bytes!("products.rs"),
    include_bytes!("symbols.rs"),
];

/// FNV-1a.
const fn fold(mut hash: u64, bytes: &[u8]) -> u64 {
    let mut i = 0;
    while i < bytes.len() {
        hash = (hash ^ bytes[i] as u64).wrapping_mul(0x0100_0000_01b3);
        i += 1;
    }
    hash
}

#[cfg(test)]
mod tests {
    use super::*;

    unsafe extern "C" fn nothing(_: *mut std::ffi::c_void) {}

    #[test]
    fn code_for_something_else_is_refused() {
        let program = Program { name: "m".into(), ..Program::default() };
        let code = || NativeCode { layout: LAYOUT, program: identity(&program).unwrap(), features: 0, entry: nothing };
        assert!(code().entry(&program).is_ok());
        let refused = |code: NativeCode, kind, part: &str| {
            let error = code.entry(&program).unwrap_err();
            assert!(error.kind() == kind && error.to_string().contains(part), "{error}");
            assert!(error.to_string().starts_with("model \"m\": the code that was made ahead of time "), "{error}");
        };
        refused(NativeCode { layout: LAYOUT + 1, ..code() }, ErrorKind::Artifact, "another version of eec-runtime");
        refused(NativeCode { program: [7; 32], ..code() }, ErrorKind::Artifact, "another program");
        let all = !cpu::detected();
        let missing = cpu::names(std::env::consts::ARCH, all);
        if let Some(name) = missing.first() {
            refused(NativeCode { features: all, ..code() }, ErrorKind::Device, name);
        }
    }
}
