//! Sizes that data decides, against ONNX Runtime: selections, branches and loops of different sizes.

use eec_tests::written::check_written;

#[test]
fn sizes_of_data_are_what_onnx_runtime_makes_them() {
    check_written("late_models.py", 1e-5);
}
