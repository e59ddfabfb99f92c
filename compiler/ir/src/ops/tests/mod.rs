//! Tests of inference and evaluation, one file per family. Expected numbers are worked out by hand
//! or with ONNX Runtime.

mod chains;
mod elementwise;
mod hostile;
mod linear;
mod movement;
mod reduce;
mod vision;
mod window;

use super::{Facts, Inference, eval, infer};
use crate::dim::Dim;
use crate::op::Op;
use crate::tensor::Tensor;
use crate::types::{DType, Type};

pub(super) fn tensor<T: crate::tensor::Element>(dims: &[usize], data: &[T]) -> Tensor {
    Tensor::new(dims, data.to_vec()).unwrap()
}

/// Index-dependent floats without symmetry: multiples of a half between -2.5 and 2.5.
pub(super) fn ramp(dims: &[usize]) -> Tensor {
    let value = |i: usize| ((i * 7 % 11) as f32 - 5.0) * 0.5;
    tensor(dims, &(0..dims.iter().product()).map(value).collect::<Vec<f32>>())
}

/// 0, 1, 2, …
pub(super) fn count(dims: &[usize]) -> Tensor {
    tensor(dims, &(0..dims.iter().product::<usize>() as i64).collect::<Vec<i64>>())
}

pub(super) fn run(op: &Op, inputs: &[Tensor]) -> Tensor {
    let mut results = eval(op, inputs, &|_| None).unwrap();
    assert_eq!(results.len(), 1);
    results.remove(0)
}

pub(super) fn floats(op: &Op, inputs: &[Tensor]) -> (Vec<usize>, Vec<f32>) {
    let result = run(op, inputs);
    (result.dims().to_vec(), result.elements::<f32>().unwrap().into_owned())
}

pub(super) fn integers(op: &Op, inputs: &[Tensor]) -> (Vec<usize>, Vec<i64>) {
    let result = run(op, inputs);
    (result.dims().to_vec(), result.to_i64s().unwrap())
}

/// Requires floats within 2e-6 of what is expected, which is given with six decimals.
#[track_caller]
pub(super) fn assert_close(op: &Op, inputs: &[Tensor], dims: &[usize], expected: &[f32]) {
    let (found_dims, found) = floats(op, inputs);
    assert_eq!(found_dims, dims);
    let close = found.iter().zip(expected).all(|(a, b)| (a - b).abs() <= 2e-6);
    assert!(close && found.len() == expected.len(), "expected {expected:?}, found {found:?}");
}

/// Why evaluation fails.
pub(super) fn failure(op: &Op, inputs: &[Tensor]) -> String {
    eval(op, inputs, &|_| None).unwrap_err().reason
}

/// A size written as a number or a name.
pub(super) fn dim(text: &str) -> Dim {
    text.parse::<i64>().map_or_else(|_| Dim::symbol(text), Dim::from)
}

/// A value of this type; dims are numbers or names.
pub(super) fn value(dtype: DType, dims: &[&str]) -> Facts {
    Facts::of(Type::new(dtype, dims.iter().map(|d| dim(d))))
}

pub(super) fn float(dims: &[&str]) -> Facts {
    value(DType::F32, dims)
}

/// A constant vector.
pub(super) fn vector(values: &[i64]) -> Facts {
    super::constant_facts(&Tensor::vector(values.to_vec()))
}

/// A constant scalar.
pub(super) fn scalar(value: i64) -> Facts {
    super::constant_facts(&Tensor::scalar(value))
}

pub(super) fn inferred(op: &Op, inputs: &[Facts]) -> Facts {
    let Inference { mut outputs, .. } = infer(op, inputs).unwrap();
    assert_eq!(outputs.len(), 1);
    outputs.remove(0)
}

/// The inferred type and the assumptions, as text.
pub(super) fn typed(op: &Op, inputs: &[Facts]) -> (String, Vec<String>) {
    let inference = infer(op, inputs).unwrap();
    let assumptions = inference.assumptions.iter().map(|(a, b)| format!("{a} = {b}")).collect();
    (inference.outputs[0].ty.to_string(), assumptions)
}

/// The inferred contents, as text.
pub(super) fn known(op: &Op, inputs: &[Facts]) -> Option<String> {
    inferred(op, inputs).contents.map(|c| format!("{c:?}"))
}

/// Why inference refuses.
pub(super) fn refusal(op: &Op, inputs: &[Facts]) -> String {
    infer(op, inputs).unwrap_err().reason
}
