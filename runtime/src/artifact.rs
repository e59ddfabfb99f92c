//! The `.eec` file: named sections, weights included, in one file that is mapped when loaded.
//!
//! Layout, all numbers little-endian: a header of 64 bytes (magic, version, number of sections, length
//! of the file), then one entry of 64 bytes per section (name padded with zeros, offset, length), then
//! the sections at multiples of 64. The section `constants` lists the tensors, whose bytes stand in
//! `weights`, each at a multiple of 64 and some in a narrow form; `program` and `program.plain` are encoded Programs, `gpu` and
//! `gpu.plain` their GPU forms, or why they have none. All other
//! sections are bytes that this crate does not look into.

mod narrow;
mod read;
mod write;

pub(crate) use narrow::Narrow;
pub use read::Artifact;
pub(crate) use read::Held;
pub use write::ArtifactWriter;

use eec_ir::{ContentHash, DType};

use narrow::Layout;

/// The first bytes of every artifact.
pub const MAGIC: [u8; 8] = *b"\x89eec\r\n\x1a\n";
/// The version that this crate writes, and the newest that it reads.
const VERSION: u32 = 9;
const ALIGN: usize = 64;
const HEADER: usize = 64;
const ENTRY: usize = 64;
const NAME: usize = 48;

/// The dynamic model's program if there is one, else the plain model's.
pub const PROGRAM: &str = "program";
/// The plain model's program, beside a dynamic one.
pub const PLAIN_PROGRAM: &str = "program.plain";
const GPU: &str = "gpu";
const PLAIN_GPU: &str = "gpu.plain";
const CONSTANTS: &str = "constants";
const WEIGHTS: &str = "weights";

/// A tensor inside the section `weights`.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
struct Entry {
    hash: ContentHash,
    dtype: DType,
    dims: Vec<u64>,
    offset: u64,
    layout: Layout,
}

fn align(offset: usize) -> usize {
    offset.next_multiple_of(ALIGN)
}
