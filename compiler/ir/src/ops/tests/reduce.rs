//! Reductions and normalisations.

use super::*;

fn sum(axes: &[i64], keepdims: bool) -> Op {
    Op::ReduceSum { axes: axes.to_vec(), keepdims }
}

#[test]
fn softmax_of_an_inner_axis() {
    let expected = [
        0.039113, 0.179734, 0.17529, 0.805512, 0.785597, 0.014753, 0.90876, 0.179734, 0.016645, 0.805512, 0.074596,
        0.014753,
    ];
    assert_close(&Op::Softmax { axis: 1 }, &[ramp(&[2, 3, 2])], &[2, 3, 2], &expected);
    let logs = [
        -3.52975, -0.02975, -3.52975, -0.02975, -0.126928, -2.126928, -0.126928, -2.126928, -3.52975, -0.02975,
        -0.126928, -2.126928,
    ];
    assert_close(&Op::LogSoftmax { axis: -1 }, &[ramp(&[2, 3, 2])], &[2, 3, 2], &logs);
    let large = tensor(&[1, 3], &[1e30f32, f32::NEG_INFINITY, 1e30]);
    assert_eq!(floats(&Op::Softmax { axis: -1 }, &[large]).1, [0.5, 0.0, 0.5]);
}

#[test]
fn layer_normalisation_over_two_dims() {
    let scale = tensor(&[3, 2], &[1.0f32, 2., 3., 4., 5., 6.]);
    let op = Op::LayerNormalization { axis: 1, epsilon: 1e-2 };
    let expected = [
        -1.390576, 1.390576, -1.489903, 6.356919, 1.986537, -4.767689, 1.359481, 0.302107, -3.172123, 4.229498,
        -0.755268, -8.156889,
    ];
    assert_close(&op, &[ramp(&[2, 3, 2]), scale.clone()], &[2, 3, 2], &expected);
    let shifted: Vec<f32> = expected.iter().zip([0.5, -0.5].iter().cycle()).map(|(x, b)| x + b).collect();
    assert_close(&op, &[ramp(&[2, 3, 2]), scale, tensor(&[2], &[0.5f32, -0.5])], &[2, 3, 2], &shifted);
    let refused = refusal(&op, &[float(&["2", "3", "2"]), float(&["3"])]);
    assert_eq!(refused, "dims [3] do not broadcast to [3, 2]");
}

#[test]
fn reductions_over_several_axes() {
    let x = tensor(&[2, 2, 3], &[1.0f32, 2., 3., 4., 5., 6., -1., 0., 1., 10., 20., 30.]);
    assert_eq!(floats(&sum(&[0, 2], false), std::slice::from_ref(&x)), (vec![2], vec![6.0, 75.0]));
    assert_eq!(floats(&sum(&[-1], true), std::slice::from_ref(&x)), (vec![2, 2, 1], vec![6., 15., 0., 60.]));
    let mean = Op::ReduceMean { axes: vec![1], keepdims: false };
    assert_eq!(floats(&mean, std::slice::from_ref(&x)), (vec![2, 3], vec![2.5, 3.5, 4.5, 4.5, 10., 15.5]));
    let max = Op::ReduceMax { axes: vec![0], keepdims: true };
    assert_eq!(floats(&max, std::slice::from_ref(&x)), (vec![1, 2, 3], vec![1., 2., 3., 10., 20., 30.]));
    let min = Op::ReduceMin { axes: vec![0, 1, 2], keepdims: false };
    assert_eq!(floats(&min, &[x]), (vec![], vec![-1.0]));
    assert_eq!(integers(&sum(&[0], false), &[tensor(&[2], &[i64::MAX, 1])]).1, [i64::MIN]);
    assert_eq!(integers(&min, &[tensor(&[1, 1, 0], &[0i32; 0])]).1, [i64::from(i32::MAX)]);
}

#[test]
fn arg_max_takes_the_first() {
    let op = |axis, keepdims| Op::ArgMax { axis, keepdims };
    assert_eq!(integers(&op(1, false), &[ramp(&[2, 3, 2])]), (vec![2, 2], vec![2, 1, 0, 1]));
    let ties = tensor(&[2, 3], &[1i64, 5, 5, 7, 7, 0]);
    assert_eq!(integers(&op(-1, true), &[ties]), (vec![2, 1], vec![1, 0]));
    assert_eq!(failure(&op(0, true), &[tensor::<f32>(&[0, 2], &[])]), "axis 0 of f32[0, 2] has no elements");
    assert_eq!(typed(&op(-1, true), &[float(&["batch", "10"])]).0, "i64[batch, 1]");
}

#[test]
fn running_sums() {
    let op = |axis, exclusive, reverse| Op::CumSum { axis, exclusive, reverse };
    let x = tensor(&[2, 3], &[1i64, 2, 3, 4, 5, 6]);
    let of = |op: Op| integers(&op, std::slice::from_ref(&x)).1;
    assert_eq!(of(op(1, false, false)), [1, 3, 6, 4, 9, 15]);
    assert_eq!(of(op(1, true, true)), [5, 3, 0, 11, 6, 0]);
    assert_eq!(of(op(-2, false, true)), [5, 7, 9, 4, 5, 6]);
    let floating = tensor(&[3, 1], &[0.5f32, 1.0, -2.0]);
    assert_eq!(floats(&op(0, true, false), &[floating]).1, [0.0, 0.5, 1.5]);
}

#[test]
fn axes_are_checked() {
    let x = [float(&["batch", "seq", "8"])];
    assert_eq!(typed(&sum(&[1, -1], true), &x).0, "f32[batch, 1, 1]");
    assert_eq!(typed(&sum(&[-2], false), &x).0, "f32[batch, 8]");
    assert_eq!(refusal(&sum(&[3], true), &x), "axis 3 is outside of 3 dims");
    assert_eq!(refusal(&sum(&[-4], true), &x), "axis -4 is outside of 3 dims");
    assert_eq!(refusal(&sum(&[1, -2], true), &x), "axes [1, -2] name one of 3 dims twice");
    assert_eq!(refusal(&sum(&[], true), &x), "`axes` must not be empty");
    assert_eq!(refusal(&Op::Softmax { axis: i64::MIN }, &x), format!("axis {} is outside of 3 dims", i64::MIN));
    let mean = Op::ReduceMean { axes: vec![0], keepdims: true };
    assert_eq!(refusal(&mean, &[value(DType::Bool, &["2"])]), "operand 0 must be a number, found bool[2]");
}
