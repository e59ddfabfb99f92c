//! eec-ir
