//! The case files.

use std::path::{Path, PathBuf};

/// The folder with the cases.
pub fn cases_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("cases")
}

/// Every case under `area` (all of them for ""), in the order of their names.
///
/// # Panics
/// A folder cannot be read, or there is no case: a suite without cases must not pass.
pub fn cases(area: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    collect(&cases_folder().join(area), &mut found);
    found.sort();
    assert!(!found.is_empty(), "no case under `{area}`");
    found
}

fn collect(folder: &Path, found: &mut Vec<PathBuf>) {
    let entries = std::fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    for path in entries.map(|e| e.unwrap_or_else(|e| panic!("{}: {e}", folder.display())).path()) {
        if path.is_dir() {
            collect(&path, found);
        } else if path.extension().is_some_and(|e| e == "eir") {
            found.push(path);
        }
    }
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
    let name = |path: &Path| path.strip_prefix(cases_folder()).unwrap_or(path).display().to_string();
    let failures: Vec<String> =
        cases.iter().filter_map(|path| check(path).err().map(|e| format!("{}: {e}", name(path)))).collect();
    assert!(failures.is_empty(), "{} of {} cases failed\n{}", failures.len(), cases.len(), failures.join("\n"));
}
