//! What several test programs of this crate need.
#![allow(dead_code, reason = "each test program uses a part")]

pub(crate) mod place;

use std::path::{Path, PathBuf};
use std::process::Command;

use eec::npz::{Arrays, read_npz};
use eec_ir::{DType, Tensor};

/// The folder with the shared models, if this machine has it.
///
/// # Panics
/// `EEC_REQUIRE_SHARED` is set and the folder is missing.
pub(crate) fn shared_folder() -> Option<PathBuf> {
    let folder = std::env::var_os("EEC_SHARED").map(PathBuf::from).filter(|p| p.is_dir());
    if folder.is_none() {
        assert!(std::env::var_os("EEC_REQUIRE_SHARED").is_none(), "EEC_SHARED names no folder");
        println!("skipped: EEC_SHARED names no folder");
    }
    folder
}

/// Checks an exported model with ONNX's checker and gives ONNX Runtime's outputs for `inputs`;
/// `None` on a machine where `EEC_PYTHON` names no Python that has both.
pub(crate) fn onnx_runtime(model: &Path, inputs: &Path, outputs: &Path) -> Result<Option<Arrays>, String> {
    let Some(python) = std::env::var_os("EEC_PYTHON") else {
        println!("skipped: EEC_PYTHON is not set");
        return Ok(None);
    };
    let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/python");
    let check = "import sys, onnx; onnx.checker.check_model(sys.argv[1], full_check=True)";
    run(Command::new(&python).args(["-c", check]).arg(model))?;
    run(Command::new(&python).arg(scripts.join("ort_outputs.py")).args([model, inputs, outputs]))?;
    read_npz(outputs).map(Some).map_err(|e| e.to_string())
}

fn run(command: &mut Command) -> Result<(), String> {
    let done = command.output().map_err(|e| format!("{command:?}: {e}"))?;
    if done.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&done.stderr).into_owned()) }
}

/// Checks `have` against `want` within 1e-4 absolute and relative; integers must be equal.
pub(crate) fn compare(name: &str, have: &Tensor, want: &Tensor) -> Result<(), String> {
    if have.ty() != want.ty() {
        return Err(format!("{name}: {have:?}, expected {want:?}"));
    }
    if have.dtype() != DType::F32 {
        return if have == want { Ok(()) } else { Err(format!("{name}: {} values differ", have.dtype())) };
    }
    let pairs = have.elements::<f32>().into_iter().flat_map(|h| h.into_owned());
    let wanted = want.elements::<f32>().into_iter().flat_map(|w| w.into_owned());
    let far = |(h, w): (f32, f32)| !((h - w).abs() <= 1e-4 + 1e-4 * w.abs() || (h.is_nan() && w.is_nan()) || h == w);
    let bad = pairs.zip(wanted).enumerate().find(|(_, pair)| far(*pair));
    bad.map_or(Ok(()), |(i, (h, w))| Err(format!("{name}[{i}] is {h}, expected {w}")))
}
