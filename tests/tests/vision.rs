//! The operators of detection against ONNX Runtime, a small model for each form of them.

use eec_tests::written::check_written;

#[test]
fn operators_of_detection_compute_what_onnx_runtime_computes() {
    check_written("vision_models.py", 1e-5);
}
