//! Images and sequences whose sizes a run decides, against ONNX Runtime: resized, padded, cut into windows.

use eec_tests::written::check_written;

#[test]
fn open_sizes_are_computed_as_onnx_runtime_computes_them() {
    check_written("size_models.py", 1e-5);
}
