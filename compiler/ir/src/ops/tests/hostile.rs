//! Attributes and operands made to break things: errors, never panics or endless work.

use super::*;

#[test]
fn huge_results_are_refused() {
    let huge = 1i64 << 40;
    let expand = Op::Expand { dims: vec![huge.into(), huge.into()] };
    assert!(failure(&expand, &[Tensor::scalar(1.0f32)]).contains("too large"));
    let range = Op::Range { start: 0.into(), limit: huge.into(), delta: 1 };
    assert!(failure(&range, &[]).contains("too large"));
    let pad = Op::Pad { pads: vec![huge.into(), huge.into()] };
    assert!(failure(&pad, &[Tensor::vector(vec![1.0f32])]).contains("too large"));
}

#[test]
fn sizes_that_turn_out_negative_are_refused() {
    let op = Op::Reshape { dims: vec![Dim::symbol("n"), &Dim::symbol("n") - &4.into()] };
    let refused = eval(&op, &[ramp(&[6])], &|_| Some(-2)).unwrap_err();
    assert_eq!(refused.to_string(), "Reshape: `dims` must not be negative, found [-2, -6]");
}

#[test]
fn expressions_do_not_grow_without_end() {
    let shape = |name: &str| inferred(&Op::Shape { start: 0, end: i64::MAX }, &[float(&[name])]);
    let mut x = inferred(&Op::Add {}, &[shape("a"), shape("b")]);
    for _ in 0..64 {
        x = inferred(&Op::Mul {}, &[x.clone(), inferred(&Op::Max {}, &[x, shape("c")])]);
    }
    assert_eq!(x.contents, None);
    let wide = (0..80).fold(Dim::default(), |sum, i| &sum + &Dim::symbol(&format!("d{i}")));
    let op = Op::Reshape { dims: vec![wide; 8] };
    assert!(refusal(&op, &[float(&["n"])]).contains("too large"));
}

#[test]
fn huge_dims_without_elements_cost_nothing() {
    let empty = tensor::<f32>(&[0, 1 << 40], &[]);
    for op in [Op::Softmax { axis: 0 }, Op::CumSum { axis: 0, exclusive: false, reverse: true }, Op::Neg {}] {
        assert_eq!(floats(&op, std::slice::from_ref(&empty)), (vec![0, 1 << 40], vec![]));
    }
    let (a, b) = (tensor::<f32>(&[1 << 40, 0, 2], &[]), ramp(&[2, 3]));
    assert_eq!(floats(&Op::MATMUL, &[a, b]).0, [1 << 40, 0, 3]);
    let sum = Op::ReduceSum { axes: vec![0], keepdims: false };
    assert!(failure(&sum, &[empty]).contains("too large"));
}

#[test]
fn extreme_pads_do_not_overflow() {
    let op = Op::Pad { pads: vec![i64::MIN.into(), i64::MAX.into()] };
    assert_eq!(integers(&op, &[count(&[3])]), (vec![2], vec![0, 0]));
}

#[test]
fn extreme_windows_do_not_overflow() {
    let x = float(&["1", "1", "8", "8"]);
    let conv =
        |dilation: i64| Op::Conv { group: 1, strides: vec![1, 1], dilations: vec![dilation; 2], pads: vec![0; 4] };
    assert!(refusal(&conv(i64::MAX), &[x.clone(), float(&["1", "1", "3", "3"])]).contains("`dilations`"));
    assert!(refusal(&conv(1 << 31), &[x.clone(), float(&["1", "1", "3", "3"])]).contains("does not fit"));
    let group = Op::Conv { group: i64::MIN, strides: vec![1, 1], dilations: vec![1, 1], pads: vec![0; 4] };
    assert!(refusal(&group, &[x, float(&["1", "1", "3", "3"])]).contains("groups"));
}

#[test]
fn every_operator_refuses_wrong_operands_without_a_panic() {
    let shapes: [&[&str]; 6] = [&[], &["0"], &["n"], &["2", "n"], &["2", "0", "n"], &["1", "2", "3", "4"]];
    let operands: Vec<Facts> =
        DType::ALL.iter().copied().flat_map(|t| shapes.iter().map(move |s| value(t, s))).collect();
    for op in every_operator() {
        let _ = infer(&op, &[]);
        for a in &operands {
            let _ = infer(&op, std::slice::from_ref(a));
            for b in &operands {
                let _ = infer(&op, &[a.clone(), b.clone()]);
                let _ = infer(&op, &[a.clone(), b.clone(), a.clone()]);
            }
        }
    }
}

#[test]
fn evaluation_gives_what_inference_promises_or_an_error() {
    let shapes: [&[usize]; 6] = [&[], &[0], &[2], &[2, 3], &[2, 0, 3], &[1, 2, 3, 4]];
    let of = |s: &[usize]| [ramp(s), count(s), run(&Op::Cast { to: DType::Bool }, &[ramp(s)])];
    let operands: Vec<Tensor> = shapes.iter().flat_map(|s| of(s)).collect();
    let mut evaluated = 0;
    let mut check = |op: &Op, inputs: &[Tensor]| {
        let Ok(results) = eval(op, inputs, &|_| Some(2)) else { return };
        let facts: Vec<Facts> = inputs.iter().map(|t| Facts::of(t.ty())).collect();
        let promised = infer(op, &facts).unwrap().outputs.remove(0).ty;
        let dims: Vec<usize> = promised.dims.iter().map(|d| d.eval(&|_| Some(2)).unwrap() as usize).collect();
        assert_eq!((results[0].dtype(), results[0].dims()), (promised.dtype, &dims[..]), "{op}");
        evaluated += 1;
    };
    for op in every_operator() {
        check(&op, &[]);
        for a in &operands {
            check(&op, std::slice::from_ref(a));
            operands.iter().for_each(|b| check(&op, &[a.clone(), b.clone()]));
        }
    }
    assert!(evaluated > 500, "{evaluated}");
}

/// Every operator by name, with attributes that suit few operands.
fn every_operator() -> Vec<Op> {
    use crate::attr::AttrValue::{DType as Kind, Dims, Float, Int, Ints};
    let values = [
        Int(-1),
        Int(i64::MAX),
        Ints(vec![1, -1]),
        Ints(vec![]),
        Dims(vec![Dim::symbol("n")]),
        Float(0.5),
        Kind(DType::I32),
    ];
    let mut all = Vec::new();
    for name in Op::NAMES {
        let mut attributes = Vec::new();
        for _ in 0..8 {
            match Op::from_attributes(name, &attributes) {
                Ok(op) => {
                    all.push(op);
                    break;
                }
                Err(crate::op::OpError::MissingAttribute { attr, .. }) => {
                    let with =
                        |v: &crate::attr::AttrValue| [&attributes[..], &[(attr.to_string(), v.clone())]].concat();
                    let fits = |a: &Vec<(String, _)>| {
                        !matches!(Op::from_attributes(name, a), Err(crate::op::OpError::WrongAttribute { .. }))
                    };
                    attributes = values.iter().map(with).find(fits).unwrap();
                }
                Err(e) => panic!("{e}"),
            }
        }
    }
    assert_eq!(all.len(), Op::NAMES.len());
    all
}
