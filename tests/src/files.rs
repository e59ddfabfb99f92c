//! The case files.

use std::path::{Path, PathBuf};

use eec::testing;

/// The folder with the cases.
pub fn cases_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("cases")
}

/// Every case under `area` (all of them for ""), in the order of their names.
///
/// # Panics
/// A folder cannot be read, or there is no case: a suite without cases must not pass.
pub fn cases(area: &str) -> Vec<PathBuf> {
    testing::case_files(&cases_folder().join(area))
}

/// The text of a file.
///
/// # Panics
/// It cannot be read.
pub fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// Runs `check` on every case and reports all failures, each with the case's name.
///
/// # Panics
/// A case failed.
pub fn for_each(cases: &[PathBuf], check: impl Fn(&Path) -> Result<(), String>) {
    testing::for_each(&cases_folder(), cases, check);
}
