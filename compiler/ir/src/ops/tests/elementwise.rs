//! Elementwise operators.

use super::*;

#[test]
fn operands_broadcast() {
    let (column, row) = (tensor(&[2, 1], &[10.0f32, 20.0]), tensor(&[3], &[1.0f32, 2.0, 3.0]));
    assert_eq!(floats(&Op::Sub {}, &[column.clone(), row.clone()]), (vec![2, 3], vec![9., 8., 7., 19., 18., 17.]));
    assert_eq!(floats(&Op::Sub {}, &[row, column]), (vec![2, 3], vec![-9., -8., -7., -19., -18., -17.]));
    let empty = tensor::<f32>(&[0, 1], &[]);
    assert_eq!(floats(&Op::Add {}, &[empty, ramp(&[3])]), (vec![0, 3], vec![]));
}

#[test]
fn symbolic_dims_broadcast_under_assumptions() {
    let (a, b) = (float(&["batch", "1", "seq"]), float(&["heads", "1"]));
    assert_eq!(typed(&Op::Add {}, &[a, b]), ("f32[batch, heads, seq]".into(), vec![]));
    let assumed = typed(&Op::Add {}, &[float(&["batch", "seq"]), float(&["rows", "64"])]);
    assert_eq!(assumed, ("f32[batch, 64]".into(), vec!["batch = rows".into(), "64 = seq".into()]));
    let longer = Facts::of(Type::new(DType::F32, [&dim("seq") + &1.into()]));
    assert_eq!(refusal(&Op::Add {}, &[float(&["seq"]), longer]), "dims [seq] and [seq+1] do not broadcast");
    let refused = refusal(&Op::Mul {}, &[float(&["batch", "3"]), float(&["4"])]);
    assert_eq!(refused, "dims [batch, 3] and [4] do not broadcast");
}

#[test]
fn element_types_are_checked() {
    let (f, i, b) = (float(&["2"]), value(DType::I64, &["2"]), value(DType::Bool, &["2"]));
    let mixed = refusal(&Op::Add {}, &[f.clone(), i.clone()]);
    assert_eq!(mixed, "operands 0 and 1 have different element types: f32[2] and i64[2]");
    assert_eq!(refusal(&Op::Add {}, &[b.clone(), b.clone()]), "operand 0 must be a number, found bool[2]");
    assert_eq!(refusal(&Op::Exp {}, std::slice::from_ref(&i)), "operand 0 must be a float, found i64[2]");
    assert_eq!(refusal(&Op::Where {}, &[i.clone(), f.clone(), f.clone()]), "operand 0 must be bool, found i64[2]");
    assert_eq!(refusal(&Op::Exp {}, &[f.clone(), f.clone()]), "takes 1 operands, found 2");
    assert_eq!(typed(&Op::Pow {}, &[f.clone(), i.clone()]).0, "f32[2]");
    assert_eq!(typed(&Op::Less {}, &[f.clone(), f]).0, "bool[2]");
    assert_eq!(typed(&Op::Equal {}, &[b.clone(), b]).0, "bool[2]");
    let nan = Op::Clip { min: f32::NAN, max: 1.0 };
    assert_eq!(refusal(&nan, &[float(&["2"])]), "the bounds must be numbers, found NaN and 1");
}

#[test]
fn float_functions() {
    let x = tensor(&[5], &[-3.0f32, -0.5, 0.0, 1.0, 2.5]);
    let of = |op: Op, expected: [f32; 5]| assert_close(&op, std::slice::from_ref(&x), &[5], &expected);
    of(Op::Gelu { tanh: false }, [-0.00405, -0.154269, 0.0, 0.841345, 2.484476]);
    of(Op::Gelu { tanh: true }, [-0.003638, -0.154286, 0.0, 0.841192, 2.484916]);
    of(Op::Erf {}, [-0.999978, -0.5205, 0.0, 0.842701, 0.999593]);
    of(Op::Sigmoid {}, [0.047426, 0.377541, 0.5, 0.731059, 0.924142]);
    of(Op::Tanh {}, [-0.995055, -0.462117, 0.0, 0.761594, 0.986614]);
    of(Op::Exp {}, [0.049787, 0.606531, 1.0, std::f32::consts::E, 12.182494]);
    of(Op::Sin {}, [-0.14112, -0.479426, 0.0, 0.841471, 0.598472]);
    of(Op::Cos {}, [-0.989992, 0.877583, 1.0, 0.540302, -0.801144]);
    of(Op::Relu {}, [0.0, 0.0, 0.0, 1.0, 2.5]);
    of(Op::Neg {}, [3.0, 0.5, 0.0, -1.0, -2.5]);
    of(Op::Abs {}, [3.0, 0.5, 0.0, 1.0, 2.5]);
    of(Op::Clip { min: -1.0, max: 2.0 }, [-1.0, -0.5, 0.0, 1.0, 2.0]);
    let y = tensor(&[2], &[0.25f32, 4.0]);
    let of = |op: Op, expected: [f32; 2]| assert_close(&op, std::slice::from_ref(&y), &[2], &expected);
    of(Op::Sqrt {}, [0.5, 2.0]);
    of(Op::Reciprocal {}, [4.0, 0.25]);
    of(Op::Log {}, [-1.386294, 1.386294]);
}

#[test]
fn nan_stays_and_compares_false() {
    let (nan, one) = (Tensor::scalar(f32::NAN), Tensor::scalar(1.0f32));
    for op in [Op::Max {}, Op::Min {}] {
        assert!(floats(&op, &[nan.clone(), one.clone()]).1[0].is_nan());
        assert!(floats(&op, &[one.clone(), nan.clone()]).1[0].is_nan());
    }
    for op in [Op::Relu {}, Op::Clip { min: 0.0, max: 1.0 }] {
        assert!(floats(&op, std::slice::from_ref(&nan)).1[0].is_nan());
    }
    for op in [Op::Equal {}, Op::Less {}, Op::LessOrEqual {}, Op::Greater {}, Op::GreaterOrEqual {}] {
        assert_eq!(integers(&op, &[nan.clone(), one.clone()]).1, [0]);
    }
    assert_eq!(integers(&Op::IsNaN {}, &[tensor(&[2], &[1.0, f32::NAN])]).1, [0, 1]);
}

#[test]
fn integers_truncate_and_wrap() {
    let (a, b) = (tensor(&[3], &[7i64, -7, i64::MIN]), tensor(&[3], &[2i64, 2, -1]));
    assert_eq!(integers(&Op::Div {}, &[a.clone(), b.clone()]).1, [3, -3, i64::MIN]);
    assert_eq!(integers(&Op::Sub {}, &[a, tensor(&[1], &[1i64])]).1, [6, -8, i64::MAX]);
    let narrow = tensor(&[2], &[i32::MIN, i32::MAX]);
    assert_eq!(integers(&Op::Div {}, &[narrow.clone(), tensor(&[1], &[-1i32])]).1, [i64::from(i32::MIN), -2147483647]);
    assert_eq!(integers(&Op::Mul {}, &[narrow.clone(), tensor(&[1], &[2i32])]).1, [0, -2]);
    assert_eq!(integers(&Op::Neg {}, &[narrow]).1, [i64::from(i32::MIN), -2147483647]);
    let zero = [tensor(&[2], &[1i64, 2]), tensor(&[2], &[1i64, 0])];
    assert_eq!(failure(&Op::Div {}, &zero), "integer division by zero");
}

#[test]
fn powers() {
    let exponents = tensor(&[3], &[3i64, -1, 2]);
    assert_close(&Op::Pow {}, &[tensor(&[3], &[2.0f32, 3.0, -2.0]), exponents], &[3], &[8.0, 0.333333, 4.0]);
    let power =
        |base: i64, exponent: i64| integers(&Op::Pow {}, &[Tensor::scalar(base), Tensor::scalar(exponent)]).1[0];
    assert_eq!((power(-2, 3), power(5, 0), power(3, 41)), (-8, 1, 3i64.wrapping_pow(41)));
    assert_eq!((power(2, -1), power(-1, -3), power(1, -9)), (0, -1, 1));
    let zero = [Tensor::scalar(0i64), Tensor::scalar(-1i64)];
    assert_eq!(failure(&Op::Pow {}, &zero), "a negative power of integer zero");
}

#[test]
fn casts() {
    let x = tensor(&[5], &[-1.9f32, 2.9, f32::NAN, 3e9, 0.0]);
    let cast = |x: &Tensor, to: DType| integers(&Op::Cast { to }, std::slice::from_ref(x)).1;
    assert_eq!(cast(&x, DType::I64), [-1, 2, 0, 3_000_000_000, 0]);
    assert_eq!(cast(&x, DType::I32), [-1, 2, 0, i64::from(i32::MAX), 0]);
    assert_eq!(cast(&x, DType::Bool), [1, 1, 1, 1, 0]);
    assert_eq!(cast(&tensor(&[2], &[(1i64 << 32) + 5, -1]), DType::I32), [5, -1]);
    assert_eq!(floats(&Op::Cast { to: DType::F32 }, &[tensor(&[2], &[0u8, 1])]).1, [0.0, 1.0]);
}

#[test]
fn logic_comparison_and_choice() {
    let (a, b) = (tensor(&[4], &[0u8, 0, 1, 1]), tensor(&[4], &[0u8, 1, 0, 1]));
    assert_eq!(integers(&Op::And {}, &[a.clone(), b.clone()]).1, [0, 0, 0, 1]);
    assert_eq!(integers(&Op::Or {}, &[a.clone(), b.clone()]).1, [0, 1, 1, 1]);
    assert_eq!(integers(&Op::Equal {}, &[a.clone(), b]).1, [1, 0, 0, 1]);
    assert_eq!(integers(&Op::Not {}, &[a]).1, [1, 1, 0, 0]);
    let (x, y) = (tensor(&[3], &[1i64, 2, 3]), tensor(&[1], &[2i64]));
    let compare = |op: Op| integers(&op, &[x.clone(), y.clone()]).1;
    assert_eq!((compare(Op::Less {}), compare(Op::LessOrEqual {})), (vec![1, 0, 0], vec![1, 1, 0]));
    assert_eq!((compare(Op::Greater {}), compare(Op::GreaterOrEqual {})), (vec![0, 0, 1], vec![0, 1, 1]));
    let mask = tensor(&[2, 1], &[1u8, 0]);
    let chosen = integers(&Op::Where {}, &[mask, count(&[3]), tensor(&[2, 1], &[-1i64, -2])]);
    assert_eq!(chosen, (vec![2, 3], vec![0, 1, 2, -2, -2, -2]));
}

#[test]
fn comparisons_of_sizes_are_decided_where_they_can_be() {
    let sizes = inferred(&Op::Shape { start: 0, end: i64::MAX }, &[float(&["batch", "seq", "4"])]);
    let known = |op: Op, b: &[i64]| known(&op, &[sizes.clone(), vector(b)]);
    assert_eq!(known(Op::Equal {}, &[-1]).as_deref(), Some("[0, 0, 0]"));
    assert_eq!(known(Op::Equal {}, &[-1, -1, 4]).as_deref(), Some("[0, 0, 1]"));
    assert_eq!(known(Op::Equal {}, &[0]), None);
    assert_eq!(known(Op::Less {}, &[0]).as_deref(), Some("[0, 0, 0]"));
    assert_eq!(known(Op::GreaterOrEqual {}, &[0]).as_deref(), Some("[1, 1, 1]"));
    assert_eq!(known(Op::Greater {}, &[0]), None);
    assert_eq!(known(Op::LessOrEqual {}, &[-1]).as_deref(), Some("[0, 0, 0]"));
}

#[test]
fn sizes_divide_and_truncate() {
    let sizes = inferred(&Op::Shape { start: 0, end: i64::MAX }, &[float(&["seq"])]);
    assert_eq!(known(&Op::Div {}, &[sizes.clone(), vector(&[2])]).as_deref(), Some("[floordiv(seq, 2)]"));
    assert_eq!(known(&Op::Div {}, &[vector(&[-7]), vector(&[2])]).as_deref(), Some("[-3]"));
    let negative = inferred(&Op::Sub {}, &[vector(&[3]), sizes.clone()]);
    let either = "[floordiv(max(0, -seq+3), 2)-floordiv(max(0, seq-3), 2)]";
    assert_eq!(known(&Op::Div {}, &[negative, vector(&[2])]).as_deref(), Some(either));
    let even = inferred(&Op::Mul {}, &[sizes.clone(), vector(&[-6])]);
    assert_eq!(known(&Op::Div {}, &[even, vector(&[2])]).as_deref(), Some("[-3*seq]"));
    assert_eq!(known(&Op::Div {}, &[sizes, vector(&[0])]), None);
}
