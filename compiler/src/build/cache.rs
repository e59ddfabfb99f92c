//! Whether results are those of the same files, options and program.

use std::path::{Path, PathBuf};

use eec_runtime::object::Target;

use crate::Error;
use crate::recipe::Recipe;

/// What a result is made of, as one hash: the program that makes it (a build script holds the whole
/// compiler), the recipe, the system that machine code is for, if any, and the bytes of every file.
pub(super) fn key(files: &[PathBuf], recipe: &Recipe, embed: bool, native: Option<&Target>) -> Result<String, Error> {
    let program = std::env::current_exe().map_err(|e| Error::request(format!("this program's own file: {e}")))?;
    let mut hasher = blake3::Hasher::new();
    let mut add = |bytes: &[u8]| {
        hasher.update(&(bytes.len() as u64).to_le_bytes()).update(bytes);
    };
    add(env!("CARGO_PKG_VERSION").as_bytes());
    add(&[u8::from(embed)]);
    let target = native.map(|target| format!("{} {}", target.triple(), target.features().join(",")));
    add(target.unwrap_or_default().as_bytes());
    add(toml::to_string(recipe).map_err(Error::request)?.as_bytes());
    for file in std::iter::once(&program).chain(files) {
        add(&std::fs::read(file).map_err(|e| Error::io(file, e))?);
    }
    Ok(hasher.finalize().to_hex().to_string())
}

/// Whether the file holds this key.
pub(super) fn is_current(file: &Path, key: &str) -> bool {
    std::fs::read_to_string(file).is_ok_and(|found| found == key)
}
