//! What symbolic sizes do not allow: the error names the node, the sizes, and the way out.

use super::super::super::proto::{AttributeProto, attribute_type};
use super::{attribute, int, ints, node, refusal};

fn word(name: &str, text: &str) -> AttributeProto {
    AttributeProto { s: Some(text.as_bytes().to_vec()), ..attribute(name, attribute_type::STRING) }
}

/// `Resize` of `x: f32[n, 3, 2]` to four rows.
fn resized(attributes: Vec<AttributeProto>) -> String {
    let to = node("Constant", &[], &["to"], vec![ints("value_ints", &[4, 3, 2])]);
    refusal(vec![to, node("Resize", &["x", "", "", "to"], &["y"], attributes)], 19)
}

#[test]
fn forms_of_resize_that_need_constant_sizes_say_so() {
    let mode = || word("mode", "linear");
    let smooth = resized(vec![mode(), int("antialias", 1)]);
    let way_out = "needs constant sizes, found n and 4; `--fix-dim` makes them constants";
    assert_eq!(smooth, format!("m: node `the Resize` (Resize): `antialias` {way_out}"));
    let cropped = resized(vec![mode(), word("coordinate_transformation_mode", "tf_crop_and_resize")]);
    assert_eq!(cropped, format!("m: node `the Resize` (Resize): `tf_crop_and_resize` {way_out}"));
    let kept = resized(vec![mode(), word("keep_aspect_ratio_policy", "not_larger")]);
    let sizes = "found [n, 3, 2] and [4, 3, 2]; `--fix-dim` makes them constants";
    assert!(
        kept.ends_with(&format!("`keep_aspect_ratio_policy` `not_larger` needs constant sizes, {sizes}")),
        "{kept}"
    );
    assert_eq!(resized(vec![mode()]), "");
}

#[test]
fn positions_of_the_largest_need_constant_sizes() {
    let turned = node("Transpose", &["x"], &["t"], vec![ints("perm", &[2, 1, 0])]);
    let pool = node("MaxPool", &["t"], &["y", "at"], vec![ints("kernel_shape", &[2])]);
    let message = refusal(vec![turned, pool], 12);
    let reason = "positions of the largest need images of constant sizes, found f32[2, 3, n]";
    assert_eq!(message, format!("m: node `the MaxPool` (MaxPool): {reason}; `--fix-dim` makes them constants"));
}

/// A pooling of a signal as long as data decides.
fn pooled(op: &str, attributes: Vec<AttributeProto>) -> String {
    let all = node("Constant", &[], &["all"], vec![ints("value_ints", &[-1])]);
    let flat = node("Reshape", &["x", "all"], &["flat"], vec![]);
    let mask = node("Cast", &["flat"], &["mask"], vec![int("to", 9)]);
    let rows = node("Compress", &["flat", "mask"], &["rows"], vec![]);
    let shape = node("Constant", &[], &["shape"], vec![ints("value_ints", &[1, 1, -1])]);
    let signal = node("Reshape", &["rows", "shape"], &["signal"], vec![]);
    let window = [vec![ints("kernel_shape", &[3])], attributes].concat();
    refusal(vec![all, flat, mask, rows, shape, signal, node(op, &["signal"], &["y"], window)], 19)
}

#[test]
fn automatic_padding_of_sizes_that_data_decides_is_for_stride_1() {
    let same = |stride: i64| vec![word("auto_pad", "SAME_UPPER"), ints("strides", &[stride])];
    assert_eq!(pooled("MaxPool", same(1)), "");
    let refused = pooled("MaxPool", same(2));
    assert!(refused.contains("node `the MaxPool` (MaxPool): automatic padding at strides above 1"), "{refused}");
}

#[test]
fn incomplete_windows_of_sizes_that_data_decides_are_for_stride_1_or_one_kernel() {
    let ceil = |stride: i64| vec![int("ceil_mode", 1), ints("strides", &[stride])];
    let gaps = |stride: i64| [ceil(stride), vec![ints("dilations", &[2])]].concat();
    let reason = "`ceil_mode` at strides above 1 over sizes that data decides: f32[1, 1, late0]";
    for (op, window) in [("LpPool", &ceil as &dyn Fn(i64) -> Vec<AttributeProto>), ("AveragePool", &gaps)] {
        assert_eq!(pooled(op, window(1)), "");
        assert_eq!(pooled(op, window(3)), format!("m: node `the {op}` ({op}): {reason}"));
    }
    assert_eq!(pooled("AveragePool", ceil(3)), "");
}
