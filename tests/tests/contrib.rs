//! The operators of `com.microsoft` against ONNX Runtime, a small model for each and each form of it.

use eec_tests::written::check_written;

#[test]
fn contrib_operators_compute_what_onnx_runtime_computes() {
    check_written("contrib_models.py", 1e-4);
}
