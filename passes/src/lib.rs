//! eec-passes
pub mod clone;
pub mod exit_heads;
#[cfg(test)]
mod fixtures;
pub mod insert;
pub mod pass;
pub mod registry;
pub mod rows;
pub mod simplify;
pub mod structure;
pub mod token_exits;
pub mod truncate;
