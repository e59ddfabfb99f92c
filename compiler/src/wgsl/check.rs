//! Validation of shader texts, when a program is compiled.

use std::borrow::Cow;

use eec_ir::gpu::over_bindings;
use naga::front::wgsl;
use naga::valid::{Capabilities, ValidationFlags, Validator};

/// Parses and validates a shader, with subgroup operations or without, over an arena of one binding and of several.
///
/// # Errors
///
/// What is wrong, with the place in the text: a bug in the writer.
pub(super) fn check(text: &str, subgroups: bool) -> Result<(), String> {
    check_one(text, subgroups)?;
    match over_bindings(text, 3, 64) {
        Cow::Borrowed(_) => Ok(()),
        Cow::Owned(text) => check_one(&text, subgroups),
    }
}

fn check_one(text: &str, subgroups: bool) -> Result<(), String> {
    let module = wgsl::parse_str(text).map_err(|e| e.emit_to_string(text))?;
    let capabilities = if subgroups { Capabilities::SUBGROUP } else { Capabilities::empty() };
    let mut validator = Validator::new(ValidationFlags::all(), capabilities);
    validator.validate(&module).map(drop).map_err(|e| e.emit_to_string(text))
}
