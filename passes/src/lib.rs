//! eec-passes
pub mod clone;
mod dense;
mod emit;
pub mod exit_heads;
pub mod ffn_gates;
#[cfg(test)]
mod fixtures;
pub mod insert;
pub mod pass;
pub mod registry;
pub mod rows;
mod seeded;
pub mod simplify;
pub mod structure;
pub mod token_exits;
pub mod truncate;
