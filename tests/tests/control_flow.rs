//! Branches, loops, scans and functions against ONNX Runtime: names from around them, and shapes that change.

use eec_tests::written::check_written;

#[test]
fn control_flow_computes_what_onnx_runtime_computes() {
    check_written("control_models.py", 1e-5);
}
