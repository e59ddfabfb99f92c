//! Test support for crates that bring passes of their own: one function runs a folder of cases.
//!
//! ```no_run
//! use eec_passes::registry::{Entry, Registry};
//! # fn entry() -> Entry { Entry::new("prune", "removes nothing", |_| unimplemented!()) }
//!
//! #[test]
//! # fn hidden() {}
//! fn cases_hold() {
//!     let registry = Registry::builtin().with(entry()).unwrap();
//!     eec::testing::run_cases("tests/cases".as_ref(), &registry);
//! }
//! ```

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use eec_passes::registry::Registry;

use crate::cases::{Case, CaseError, Outcome};

/// Runs every case (`.eir`) in `folder` and the folders in it: parses it, runs its passes with the
/// verifier between them, compares values before and after on the evaluator, runs the result on every
/// backend, and compares the text with the [insta](https://insta.rs) snapshot of the same name beside the
/// case.
///
/// # Panics
///
/// Cases fail; the message lists all of them. Or there are none, or a file cannot be read: a suite
/// without cases must not pass.
pub fn run_cases(folder: &Path, registry: &Registry) {
    for_each(folder, &case_files(folder), |path| {
        let source = std::fs::read_to_string(path).map_err(|e| e.to_string())?;
        snapshot(path, &text_of(&source, registry)?)
    });
}

/// Every case under `folder`, in the order of their names.
///
/// # Panics
///
/// A folder cannot be read, or there is no case.
pub fn case_files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    collect(folder, &mut found);
    found.sort();
    assert!(!found.is_empty(), "no case under {}", folder.display());
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

/// Runs `check` on every case and reports all failures, each with the case's path in `folder`.
///
/// # Panics
///
/// A case failed.
pub fn for_each(folder: &Path, cases: &[PathBuf], check: impl Fn(&Path) -> Result<(), String>) {
    let name = |path: &Path| path.strip_prefix(folder).unwrap_or(path).display().to_string();
    let failures: Vec<String> =
        cases.iter().filter_map(|path| check(path).err().map(|e| format!("{}: {e}", name(path)))).collect();
    assert!(failures.is_empty(), "{} of {} cases failed\n{}", failures.len(), cases.len(), failures.join("\n"));
}

/// The text to compare with the snapshot: what the case gives, or the error that it expects.
fn text_of(source: &str, registry: &Registry) -> Result<String, String> {
    // Read by itself: the header as a whole may be what is refused.
    let expected = source.lines().find_map(|l| l.strip_prefix(";! expect-error = "));
    let expected = expected.map(|e| e.trim_matches('"').to_string());
    match (run(source, registry), expected) {
        (Ok((case, outcome)), None) => case.judge(&outcome).map(|()| outcome.text),
        (Err(e), Some(part)) if e.to_string().contains(&part) => Ok(e.to_string()),
        (Err(e), Some(part)) => Err(format!("expected an error with `{part}`, found: {e}")),
        (Ok(_), Some(part)) => Err(format!("expected an error with `{part}`, found none")),
        (Err(e), None) => Err(e.to_string()),
    }
}

fn run(source: &str, registry: &Registry) -> Result<(Case, Outcome), CaseError> {
    let case = Case::new(source)?;
    let outcome = case.run(registry)?;
    Ok((case, outcome))
}

fn snapshot(path: &Path, text: &str) -> Result<(), String> {
    let folder = path.parent().unwrap_or(path);
    let folder = folder.canonicalize().map_err(|e| format!("{}: {e}", folder.display()))?;
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path(folder);
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    let name = path.file_stem().map(|s| s.to_string_lossy().into_owned()).unwrap_or_default();
    let check = || settings.bind(|| insta::assert_snapshot!(name, text));
    catch_unwind(AssertUnwindSafe(check)).map_err(|_| "the text differs from the snapshot; see above".to_string())
}
