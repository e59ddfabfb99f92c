//! eec-passes
pub mod clone;
pub mod pass;
pub mod rows;
pub mod simplify;
pub mod structure;
