//! Real models and data that stand beside the repository.

use std::path::PathBuf;

/// The folder with the shared models, if this machine has it.
///
/// # Panics
/// `EEC_REQUIRE_SHARED` is set and the folder is missing.
pub fn shared_folder() -> Option<PathBuf> {
    from_variable("EEC_SHARED").filter(|p| p.is_dir()).or_else(|| {
        assert!(std::env::var_os("EEC_REQUIRE_SHARED").is_none(), "EEC_SHARED names no folder");
        println!("skipped: EEC_SHARED names no folder");
        None
    })
}

/// The Python that has numpy, onnx and onnxruntime, if it is named.
pub fn python() -> Option<PathBuf> {
    let found = from_variable("EEC_PYTHON");
    if found.is_none() {
        assert!(std::env::var_os("EEC_REQUIRE_SHARED").is_none(), "EEC_PYTHON is not set");
        println!("skipped: EEC_PYTHON is not set");
    }
    found
}

fn from_variable(name: &str) -> Option<PathBuf> {
    std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from)
}
