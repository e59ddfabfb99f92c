//! eec-passes
pub mod clone;
pub mod exit_heads;
pub mod pass;
pub mod rows;
pub mod simplify;
pub mod structure;
pub mod truncate;
