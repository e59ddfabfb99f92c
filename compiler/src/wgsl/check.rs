//! Validation of shader texts, when a program is compiled.

use naga::front::wgsl;
use naga::valid::{Capabilities, ValidationFlags, Validator};

use super::text::Reason;

/// Parses and validates a shader.
///
/// # Errors
///
/// What is wrong, with the place in the text: a bug in the writer.
pub(super) fn check(text: &str) -> Result<(), Reason> {
    let internal = |why: String| format!("internal error: its shader is not valid: {why}");
    let module = wgsl::parse_str(text).map_err(|e| internal(e.emit_to_string(text)))?;
    let mut validator = Validator::new(ValidationFlags::all(), Capabilities::empty());
    validator.validate(&module).map(drop).map_err(|e| internal(e.emit_to_string(text)))
}
