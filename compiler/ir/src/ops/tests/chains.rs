//! Shape arithmetic as exporters write it, followed through inference.

use super::*;

const WHOLE: Op = Op::Shape { start: 0, end: i64::MAX };

fn gather(data: &Facts, index: i64) -> Facts {
    inferred(&Op::Gather { axis: 0 }, &[data.clone(), scalar(index)])
}

fn unsqueeze(scalar: &Facts) -> Facts {
    inferred(&Op::Reshape { dims: vec![1.into()] }, std::slice::from_ref(scalar))
}

fn contents(facts: &Facts) -> String {
    facts.contents.as_ref().map_or("unknown".into(), |c| format!("{c:?}"))
}

fn slice(x: &Facts, start: i64, end: i64, step: i64) -> Facts {
    let (starts, ends) = (vec![start.into()], vec![end.into()]);
    inferred(&Op::Slice { axes: vec![0], starts, ends, steps: vec![step] }, std::slice::from_ref(x))
}

#[test]
fn heads_are_split_off_by_shape_gather_concat() {
    let hidden = float(&["batch", "seq", "64"]);
    let shape = inferred(&WHOLE, &[hidden]);
    let parts = [unsqueeze(&gather(&shape, 0)), unsqueeze(&gather(&shape, -2)), vector(&[4]), vector(&[16])];
    assert_eq!(contents(&inferred(&Op::Concat { axis: 0 }, &parts)), "[batch, seq, 4, 16]");
}

#[test]
fn flattening_multiplies_and_divides() {
    let shape = inferred(&WHOLE, &[float(&["batch", "seq", "12", "16"])]);
    let tail = slice(&shape, 2, 4, 1);
    let width = inferred(&Op::Mul {}, &[gather(&tail, 0), gather(&tail, 1)]);
    assert_eq!(contents(&width), "[192]");
    let rows = inferred(&Op::Mul {}, &[gather(&shape, 0), gather(&shape, 1)]);
    let all = inferred(&Op::Mul {}, &[rows.clone(), width]);
    assert_eq!(contents(&inferred(&Op::Div {}, &[all, rows])), "[192]");
}

#[test]
fn expand_targets_replace_minus_one() {
    let shape = inferred(&WHOLE, &[float(&["batch", "1", "seq"])]);
    let ones = inferred(&Op::Expand { dims: vec![3.into()] }, &[vector(&[1])]);
    assert_eq!(contents(&ones), "[1, 1, 1]");
    let wanted = inferred(&Op::Concat { axis: 0 }, &[slice(&shape, 0, 1, 1), vector(&[-1, 5])]);
    let keeps = inferred(&Op::Equal {}, &[wanted.clone(), vector(&[-1])]);
    assert_eq!(contents(&keeps), "[0, 1, 0]");
    assert_eq!(contents(&inferred(&Op::Where {}, &[keeps, ones, wanted])), "[batch, 1, 5]");
}

#[test]
fn pads_are_built_by_reshaping_and_reversing() {
    // A pad list in PyTorch's order, last dim first, turned into ONNX's: all begins, then all ends.
    let zeros = inferred(&Op::Expand { dims: vec![2.into()] }, &[vector(&[0])]);
    let list = inferred(&Op::Concat { axis: 0 }, &[vector(&[0, 0, 0, 0, 8, 9]), zeros]);
    let pairs = inferred(&Op::Reshape { dims: vec![4.into(), 2.into()] }, &[list]);
    let reversed = slice(&pairs, 3, -1, -1);
    let columns = inferred(&Op::Transpose { perm: vec![1, 0] }, &[reversed]);
    let flat = inferred(&Op::Reshape { dims: vec![8.into()] }, &[columns]);
    let pads = inferred(&Op::Cast { to: DType::I64 }, &[flat]);
    assert_eq!(contents(&pads), "[0, 8, 0, 0, 0, 9, 0, 0]");
    let op = Op::Pad { pads: pads.contents.unwrap() };
    assert_eq!(typed(&op, &[float(&["batch", "16", "16", "16"])]).0, "f32[batch, 33, 16, 16]");
}

#[test]
fn padding_and_casts_carry_sizes() {
    let shape = inferred(&WHOLE, &[float(&["batch", "seq"])]);
    let padded = inferred(&Op::Pad { pads: vec![1.into(), 0.into()] }, &[shape.clone(), scalar(7)]);
    assert_eq!(contents(&padded), "[7, batch, seq]");
    let zeros = inferred(&Op::Pad { pads: vec![(-1).into(), 1.into()] }, std::slice::from_ref(&shape));
    assert_eq!(contents(&zeros), "[seq, 0]");
    let narrow = inferred(&Op::Cast { to: DType::I32 }, std::slice::from_ref(&shape));
    assert_eq!((narrow.ty.dtype, contents(&narrow)), (DType::I32, "[batch, seq]".into()));
    let float = inferred(&Op::Cast { to: DType::F32 }, &[shape]);
    assert_eq!(float.contents, None);
}

#[test]
fn cache_lengths_add_up() {
    let (past, now) = (float(&["batch", "4", "past", "16"]), float(&["batch", "4", "seq", "16"]));
    let all = inferred(&Op::Concat { axis: 2 }, &[past, now]);
    let shape = inferred(&WHOLE, std::slice::from_ref(&all));
    assert_eq!(contents(&shape), "[batch, 4, past+seq, 16]");
    let total = gather(&shape, 2);
    let back = inferred(&Op::Sub {}, &[total, gather(&inferred(&WHOLE, &[float(&["past", "1"])]), 0)]);
    assert_eq!(contents(&back), "[seq]");
}

#[test]
fn unknown_indices_and_large_tensors_are_data() {
    let shape = inferred(&WHOLE, &[float(&["batch", "seq"])]);
    let unknown = value(DType::I64, &[]);
    assert_eq!(inferred(&Op::Gather { axis: 0 }, &[shape.clone(), unknown]).contents, None);
    assert_eq!(inferred(&Op::Gather { axis: 0 }, &[shape.clone(), scalar(2)]).contents, None);
    let limit = Facts::MAX_CONTENTS as i64;
    let spread = |n: i64| inferred(&Op::Expand { dims: vec![n.into()] }, &[vector(&[3])]).contents;
    assert_eq!((spread(limit).is_some(), spread(limit + 1).is_some()), (true, false));
}

#[test]
fn arithmetic_that_leaves_the_range_of_sizes_is_data() {
    let shape = inferred(&WHOLE, &[float(&["batch"])]);
    assert_eq!(inferred(&Op::Mul {}, &[shape, vector(&[1 << 50])]).contents, None);
    let wide = super::super::constant_facts(&Tensor::scalar(i32::MAX));
    assert_eq!(inferred(&Op::Add {}, &[wide.clone(), wide]).contents, None);
}
