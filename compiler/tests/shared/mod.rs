//! What several test programs of this crate need.

use std::path::PathBuf;

use eec_ir::{DType, Tensor};

/// The folder with the shared models, if this machine has it.
///
/// # Panics
/// `EEC_REQUIRE_SHARED` is set and the folder is missing.
pub fn shared_folder() -> Option<PathBuf> {
    let folder = std::env::var_os("EEC_SHARED").map(PathBuf::from).filter(|p| p.is_dir());
    if folder.is_none() {
        assert!(std::env::var_os("EEC_REQUIRE_SHARED").is_none(), "EEC_SHARED names no folder");
        println!("skipped: EEC_SHARED names no folder");
    }
    folder
}

/// Checks `have` against `want` within 1e-4 absolute and relative; integers must be equal.
pub fn compare(name: &str, have: &Tensor, want: &Tensor) -> Result<(), String> {
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
