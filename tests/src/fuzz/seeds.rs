//! What mutations start from: the corpus, the text cases, and what is made of them.

use std::path::{Path, PathBuf};

use eec::cases::Case;
use eec::model::{Model, simplified};
use eec::npz::write_npz;
use eec::onnx::export_bytes;
use eec_ir::Tensor;

use super::Target;
use crate::files::{cases, read};

/// The kept inputs of a target, by file.
pub fn corpus(target: Target) -> Vec<(PathBuf, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target.name());
    let Ok(entries) = std::fs::read_dir(&folder) else { return Vec::new() };
    let mut files: Vec<PathBuf> = entries.filter_map(|e| Some(e.ok()?.path())).collect();
    files.sort();
    let bytes = |file: &PathBuf| std::fs::read(file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
    files.into_iter().map(|file| (file.clone(), bytes(&file))).collect()
}

/// What mutations of a target start from; never empty.
///
/// # Panics
/// A case or the corpus cannot be read.
pub fn seeds(target: Target) -> Vec<Vec<u8>> {
    let mut all: Vec<Vec<u8>> = corpus(target).into_iter().map(|(_, bytes)| bytes).collect();
    match target {
        Target::OnnxBytes => all.extend(small_cases().iter().filter_map(|path| exported(path))),
        Target::IrText => all.extend(small_cases().iter().map(|path| read(path).into_bytes())),
        Target::ArtifactBytes => all.extend(small_cases().iter().step_by(4).filter_map(|path| compiled(path))),
        Target::NpzBytes => all.push(arrays()),
        Target::Passes => {
            all.extend((0..8u8).map(|k| (0..120u8).map(|i| i.wrapping_mul(37 + 2 * k).wrapping_add(11 * k)).collect()))
        }
    }
    all
}

/// The cases of operators and joins, and of exits: the smallest ones.
fn small_cases() -> Vec<PathBuf> {
    let mut found = cases("ops");
    found.extend(cases("joins"));
    found.extend(cases("exits"));
    found
}

fn graph(path: &Path) -> Option<eec_ir::Graph> {
    Case::new(&read(path)).ok()?.graph().ok()
}

fn exported(path: &Path) -> Option<Vec<u8>> {
    export_bytes(&graph(path)?).ok().filter(|bytes| bytes.len() < 16 << 10)
}

/// The bytes of the case's artifact.
fn compiled(path: &Path) -> Option<Vec<u8>> {
    let model = Model::new(path, simplified(graph(path)?).ok()?);
    let folder = tempfile::tempdir().ok()?;
    let file = folder.path().join("seed.eec");
    model.save(&file).ok()?;
    std::fs::read(file).ok()
}

/// An `.npz` file with arrays of several types.
fn arrays() -> Vec<u8> {
    let file = tempfile::NamedTempFile::new().unwrap_or_else(|e| panic!("no file: {e}"));
    let arrays = [
        ("x", Tensor::vector(vec![1.0f32, -2.5, f32::NAN])),
        ("ids", Tensor::vector(vec![1i64 << 40, -1])),
        ("one", Tensor::scalar(7i32)),
        ("mask", Tensor::vector(vec![1u8, 0])),
    ];
    let written = write_npz(file.path(), arrays.iter().map(|(name, t)| (*name, t)));
    written.unwrap_or_else(|e| panic!("{e}"));
    std::fs::read(file.path()).unwrap_or_else(|e| panic!("{e}"))
}
