//! Movement, indexing and sizes.

use super::*;

fn dims(sizes: &[&str]) -> Vec<Dim> {
    sizes.iter().map(|d| dim(d)).collect()
}

fn slice(axes: &[i64], starts: &[&str], ends: &[&str], steps: &[i64]) -> Op {
    Op::Slice { axes: axes.to_vec(), starts: dims(starts), ends: dims(ends), steps: steps.to_vec() }
}

#[test]
fn reshape_keeps_the_elements() {
    let op = |sizes: &[&str]| Op::Reshape { dims: dims(sizes) };
    assert_eq!(integers(&op(&["3", "2"]), &[count(&[2, 3])]), (vec![3, 2], vec![0, 1, 2, 3, 4, 5]));
    let x = [float(&["batch", "seq", "64"])];
    let heads = op(&["batch", "seq", "4", "16"]);
    assert_eq!(typed(&heads, &x), ("f32[batch, seq, 4, 16]".into(), vec![]));
    let assumed = typed(&op(&["rows", "64"]), &x);
    assert_eq!(assumed, ("f32[rows, 64]".into(), vec!["64*batch*seq = 64*rows".into()]));
    let refused = refusal(&op(&["2", "4"]), &[float(&["2", "3"])]);
    assert_eq!(refused, "f32[2, 3] has not as many elements as f32[2, 4]: 6 is not 8");
    assert_eq!(refusal(&op(&["-2", "-3"]), &[float(&["6"])]), "`dims` must not be negative, found [-2, -3]");
    let known = super::super::eval(&op(&["batch", "3"]), &[count(&[6])], &|_| Some(2)).unwrap();
    assert_eq!(known[0].dims(), [2, 3]);
    assert_eq!(failure(&op(&["batch", "3"]), &[count(&[6])]), "the size batch has no value");
}

#[test]
fn transpose_permutes() {
    let op = |perm: &[i64]| Op::Transpose { perm: perm.to_vec() };
    let moved = integers(&op(&[2, 0, 1]), &[count(&[2, 3, 2])]);
    assert_eq!(moved, (vec![2, 2, 3], vec![0, 2, 4, 6, 8, 10, 1, 3, 5, 7, 9, 11]));
    let x = [float(&["batch", "seq", "8"])];
    assert_eq!(typed(&op(&[0, 2, 1]), &x).0, "f32[batch, 8, seq]");
    assert_eq!(refusal(&op(&[0, 2, 2]), &x), "axes [0, 2, 2] name one of 3 dims twice");
    for wrong in [&[0, 1][..], &[0, 1, -1]] {
        assert!(refusal(&op(wrong), &x).starts_with("`perm` must permute the dims of f32[batch, seq, 8]"));
    }
    assert_eq!(refusal(&op(&[0, 1, 3]), &x), "axis 3 is outside of 3 dims");
}

#[test]
fn expand_broadcasts_both_ways() {
    let op = |sizes: &[&str]| Op::Expand { dims: dims(sizes) };
    let spread = integers(&op(&["2", "1", "3"]), &[count(&[2, 1])]);
    assert_eq!(spread, (vec![2, 2, 3], vec![0, 0, 0, 1, 1, 1, 0, 0, 0, 1, 1, 1]));
    assert_eq!(typed(&op(&["batch", "1", "64"]), &[float(&["1", "seq", "1"])]).0, "f32[batch, seq, 64]");
    assert!(refusal(&op(&["3"]), &[float(&["2"])]).contains("do not broadcast"));
}

#[test]
fn concat_joins_along_its_axis() {
    let (a, b) = (count(&[2, 1, 2]), tensor(&[2, 2, 2], &[10i64, 11, 12, 13, 14, 15, 16, 17]));
    let joined = integers(&Op::Concat { axis: -2 }, &[a, b]);
    assert_eq!(joined, (vec![2, 3, 2], vec![0, 1, 10, 11, 12, 13, 2, 3, 14, 15, 16, 17]));
    let op = Op::Concat { axis: 1 };
    let cache = typed(&op, &[float(&["batch", "past", "8"]), float(&["rows", "seq", "8"])]);
    assert_eq!(cache, ("f32[batch, past+seq, 8]".into(), vec!["batch = rows".into()]));
    let refused = refusal(&op, &[float(&["2", "3"]), float(&["4", "3"])]);
    assert_eq!(refused, "f32[2, 3] and f32[4, 3] differ in dim 0: 2 is not 4");
    assert_eq!(refusal(&op, &[float(&["2", "3"]), float(&["2"])]), "operand 1 must have 2 dims, found f32[2]");
    let mixed = refusal(&op, &[float(&["2", "3"]), value(DType::I32, &["2", "3"])]);
    assert!(mixed.contains("f32[2, 3] and i32[2, 3]"));
}

#[test]
fn slices_step_both_ways() {
    let x = [count(&[3, 5])];
    let forward = slice(&[1, 0], &["1", "1"], &["5", "3"], &[3, 1]);
    assert_eq!(integers(&forward, &x), (vec![2, 2], vec![6, 9, 11, 14]));
    let backward = slice(&[-1], &["4"], &["-1"], &[-2]);
    assert_eq!(integers(&backward, &x), (vec![3, 3], vec![4, 2, 0, 9, 7, 5, 14, 12, 10]));
    assert_eq!(integers(&slice(&[0], &["2"], &["1"], &[1]), &x), (vec![0, 5], vec![]));
    assert_eq!(integers(&slice(&[0], &["3"], &["3"], &[1]), &x), (vec![0, 5], vec![]));
    assert_eq!(integers(&slice(&[0], &["-1"], &["-1"], &[-1]), &[count(&[0, 2])]), (vec![0, 2], vec![]));
}

#[test]
fn slices_stay_inside() {
    let x = [float(&["batch", "seq"])];
    assert_eq!(typed(&slice(&[1], &["0"], &["seq"], &[1]), &x), ("f32[batch, seq]".into(), vec![]));
    let half = typed(&slice(&[1], &["0"], &["seq"], &[2]), &x);
    assert_eq!(half, ("f32[batch, floordiv(seq+1, 2)]".into(), vec![]));
    let table = typed(&slice(&[0], &["past"], &["64"], &[1]), &[float(&["64"])]);
    assert_eq!(table, ("f32[max(0, -past+64)]".into(), vec!["past = min(64, past)".into()]));
    let outside = refusal(&slice(&[0], &["0"], &["65"], &[1]), &[float(&["64"])]);
    assert_eq!(outside, "the bounds 0 and 65 of a step 1 are outside of a dim of size 64: 65 is more than 64");
    assert!(refusal(&slice(&[0], &["-1"], &["3"], &[1]), &[float(&["64"])]).ends_with("0 is more than -1"));
    assert!(refusal(&slice(&[0], &["64"], &["0"], &[-1]), &[float(&["64"])]).ends_with("64 is more than 63"));
    assert!(refusal(&slice(&[0], &["0"], &["3"], &[0]), &[float(&["64"])]).contains("neither 0"));
    assert!(refusal(&slice(&[0], &["0"], &[], &[1]), &[float(&["64"])]).contains("as many starts, ends and steps"));
}

#[test]
fn pads_add_and_cut_off() {
    let op = |pads: &[i64]| Op::Pad { pads: pads.iter().map(|p| (*p).into()).collect() };
    let padded = integers(&op(&[1, -1, 0, 2]), &[count(&[2, 3]), Tensor::scalar(9i64)]);
    assert_eq!(padded, (vec![3, 4], vec![9, 9, 9, 9, 1, 2, 9, 9, 4, 5, 9, 9]));
    assert_eq!(floats(&op(&[1, 2]), &[tensor(&[1], &[5.0f32])]), (vec![4], vec![0.0, 5.0, 0.0, 0.0]));
    assert_eq!(typed(&op(&[0, 1, 0, 1]), &[float(&["batch", "seq"])]).0, "f32[batch, seq+2]");
    assert!(refusal(&op(&[-2, -2]), &[float(&["3"])]).contains("must not be negative, found [-1]"));
    assert_eq!(refusal(&op(&[1]), &[float(&["3"])]), "f32[3] needs 2 pads, found [1]");
    let two = refusal(&op(&[0, 0]), &[float(&["3"]), float(&["2"])]);
    assert_eq!(two, "the padding must be one element, found f32[2]");
}

#[test]
fn gather_takes_slices() {
    let op = |axis| Op::Gather { axis };
    let taken = integers(&op(1), &[count(&[2, 3, 2]), tensor(&[2, 1], &[-1i32, 0])]);
    assert_eq!(taken, (vec![2, 2, 1, 2], vec![4, 5, 0, 1, 10, 11, 6, 7]));
    assert_eq!(integers(&op(0), &[count(&[3]), Tensor::scalar(-3i64)]), (vec![], vec![0]));
    for index in [3, -4, i64::MIN] {
        let reason = failure(&op(0), &[count(&[3]), Tensor::scalar(index)]);
        assert_eq!(reason, format!("index {index} is outside of a dim of size 3"));
    }
    let embedded = typed(&op(0), &[float(&["1000", "64"]), value(DType::I64, &["batch", "seq"])]);
    assert_eq!(embedded.0, "f32[batch, seq, 64]");
    assert_eq!(refusal(&op(0), &[float(&["3"]), float(&["2"])]), "operand 1 must be i64 or i32, found f32[2]");
    assert_eq!(refusal(&op(0), &[float(&[]), vector(&[0])]), "axis 0 is outside of 0 dims");
}

#[test]
fn gather_elements_takes_elements() {
    let op = Op::GatherElements { axis: 0 };
    let indices = tensor(&[2, 3], &[2i64, 0, -1, 1, 1, 0]);
    assert_eq!(integers(&op, &[count(&[3, 4]), indices]), (vec![2, 3], vec![8, 1, 10, 4, 5, 2]));
    let wide = refusal(&op, &[float(&["3", "4"]), value(DType::I64, &["2", "5"])]);
    assert!(wide.ends_with("5 is more than 4"), "{wide}");
    assert!(failure(&op, &[count(&[3, 1]), tensor(&[1, 1], &[3i64])]).contains("index 3"));
}

#[test]
fn gather_nd_takes_index_tuples() {
    let batched = Op::GatherND { batch_dims: 1 };
    let indices = tensor(&[2, 2, 1], &[0i64, 2, 1, -1]);
    let expected = vec![0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19, 20, 21, 22, 23];
    assert_eq!(integers(&batched, &[count(&[2, 3, 4]), indices]), (vec![2, 2, 4], expected));
    let plain = Op::GatherND { batch_dims: 0 };
    let rows = integers(&plain, &[count(&[2, 3, 4]), tensor(&[2, 2], &[1i64, 2, 0, -3])]);
    assert_eq!(rows, (vec![2, 4], vec![20, 21, 22, 23, 0, 1, 2, 3]));
    let deep = refusal(&plain, &[float(&["2", "3"]), value(DType::I64, &["5", "3"])]);
    assert_eq!(deep, "3 coordinates after 0 batch dims do not index f32[2, 3] by i64[5, 3]");
    let open = refusal(&plain, &[float(&["2", "3"]), value(DType::I64, &["5", "k"])]);
    assert!(open.contains("no constant size"));
    assert!(refusal(&Op::GatherND { batch_dims: -1 }, &[float(&["2"]), vector(&[0])]).contains("batch_dims -1"));
}

#[test]
fn shapes_and_ranges() {
    let shape = |start, end| Op::Shape { start, end };
    let x = [float(&["batch", "3", "seq"])];
    assert_eq!(known(&shape(0, i64::MAX), &x).as_deref(), Some("[batch, 3, seq]"));
    assert_eq!(known(&shape(-1, i64::MAX), &x).as_deref(), Some("[seq]"));
    assert_eq!(known(&shape(-9, -1), &x).as_deref(), Some("[batch, 3]"));
    assert_eq!(known(&shape(2, 1), &x).as_deref(), Some("[]"));
    assert_eq!(integers(&shape(1, 3), &[ramp(&[2, 3, 4])]), (vec![2], vec![3, 4]));
    let range = |start: &str, limit: &str, delta| Op::Range { start: dim(start), limit: dim(limit), delta };
    assert_eq!(integers(&range("1", "8", 3), &[]), (vec![3], vec![1, 4, 7]));
    assert_eq!(integers(&range("5", "0", -2), &[]), (vec![3], vec![5, 3, 1]));
    assert_eq!(integers(&range("5", "0", 2), &[]), (vec![0], vec![]));
    assert_eq!(typed(&range("0", "seq", 1), &[]).0, "i64[seq]");
    let after_past = Op::Range { start: dim("past"), limit: &dim("past") + &2.into(), delta: 1 };
    assert_eq!(known(&after_past, &[]).as_deref(), Some("[past, past+1]"));
    assert!(refusal(&range("0", "4", 0), &[]).contains("neither 0"));
}
