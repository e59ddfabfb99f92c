//! Graph passes: simplification, a model's structure, and the insertion of early exits.
//!
//! A [`pass::Pass`] changes a [`Graph`](eec_ir::Graph) in place and says whether it did; it keeps no
//! state between runs, and its options are its fields. [`pipeline::run`] runs a list of them, verified,
//! timed and dumped, and a [`registry::Registry`] reads one from text.
//!
//! The road of a model through this crate: [`simplify`] turns what exporters write into what it means;
//! [`rows`] says where the batch lies in every value, and from that [`structure`] finds stem, blocks and
//! tail by the graph's form, and where an exit may stand; [`exit_heads`] inserts the exits;
//! [`truncate`] cuts a model after one block, the static rival of the dynamic model. Right before a graph is
//! lowered, [`select_early`] leaves out rows that nobody reads.
//!
//! The crate knows neither ONNX nor any backend. A graph that was verified before a pass can be verified
//! after it.

#![forbid(unsafe_code)]

pub mod clone;
mod dense;
pub mod emit;
pub mod exit_heads;
pub mod explain;
pub mod ffn_gates;
#[cfg(test)]
mod fixtures;
pub mod insert;
pub mod pass;
pub mod pipeline;
pub mod registry;
pub mod rows;
mod seeded;
pub mod select_early;
pub mod simplify;
pub mod store_weights;
pub mod structure;
pub mod token_exits;
pub mod truncate;
