//! Random graphs out of bytes, by the generator that tests the text form.

#[path = "../../../compiler/ir/tests/random_graph/mod.rs"]
mod random_graph;

use eec_ir::Graph;

/// The graph that these bytes steer.
pub(super) fn of_bytes(bytes: &[u8]) -> Graph {
    let number = |low: u8, high: u8| u16::from_le_bytes([low, high]);
    let steps: Vec<random_graph::Step> =
        bytes.chunks_exact(6).take(40).map(|c| (c[0], number(c[1], c[2]), number(c[3], c[4]), c[5])).collect();
    random_graph::build(&steps)
}
