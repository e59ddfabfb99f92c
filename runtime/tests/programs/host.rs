//! Operators that the host runs by their evaluators.

use eec_ir::attr::Combine;
use eec_ir::program::{Dense, Form, Host};
use eec_ir::{BufferId, DType, Dim, Op, Tensor};
use eec_runtime::ErrorKind;

use crate::build::{Builder, d, n};

fn dense(buffer: BufferId, dims: &[Dim]) -> Dense {
    Dense { buffer, dims: dims.to_vec() }
}

/// The `k` largest of each row, with a result buffer of `room` elements.
pub(crate) fn largest(room: Dim) -> Builder {
    let mut b = Builder::new("largest");
    let (rows, k) = (d("rows"), d("k"));
    let x = b.input("x", DType::F16, &[rows.clone(), n(4)]);
    b.input("sized", DType::Bool, std::slice::from_ref(&k));
    let (values, positions) = (b.temp(DType::F16, room.clone()), b.temp(DType::I64, room));
    let result = [rows.clone(), k.clone()];
    let op = Op::TopK { axis: -1, k, largest: true };
    let outputs = vec![dense(values, &result), dense(positions, &result)];
    b.run_kernel("top", Form::Host(Host { op, inputs: vec![dense(x, &[rows, n(4)])], outputs }));
    b.output("values", values, &result);
    b.output("positions", positions, &result);
    b
}

fn halves(dims: &[usize], values: &[u16]) -> Tensor {
    Tensor::from_bytes(DType::F16, dims, values.iter().flat_map(|v| v.to_le_bytes()).collect()).unwrap()
}

/// Two rows, and how many of each are wanted.
pub(crate) fn inputs(k: usize) -> Vec<(&'static str, Tensor)> {
    let x = halves(&[2, 4], &[0x3c00, 0x4400, 0xbc00, 0x4200, 0, 0x8000, 0x3800, 0x7e00]);
    vec![("x", x), ("sized", Tensor::new(&[k], vec![1u8; k]).unwrap())]
}

#[test]
fn all_results_of_an_operator_are_written_for_the_sizes_of_the_run() {
    let b = largest(&d("rows") * &d("k"));
    for k in 1..=3usize {
        let run = b.run(&inputs(k));
        let values = [[4.0, 3.0, 1.0], [f64::NAN, 0.5, 0.0]];
        let positions = [[1, 3, 0], [3, 2, 0]];
        let found = run.outputs[0].1.to_f64s();
        let expected: Vec<f64> = values.iter().flat_map(|row| row[..k].to_vec()).collect();
        assert!(found.iter().zip(&expected).all(|(a, b)| a == b || (a.is_nan() && b.is_nan())), "{found:?}");
        let expected: Vec<i64> = positions.iter().flat_map(|row| row[..k].to_vec()).collect();
        assert_eq!(run.outputs[1].1.to_i64s(), Some(expected));
    }
}

#[test]
fn what_an_evaluator_refuses_is_an_error_of_its_kernel() {
    let mut b = Builder::new("scatter");
    let x = b.input("x", DType::F32, &[n(3)]);
    let at = b.input("at", DType::I64, &[n(1)]);
    let update = b.input("update", DType::F32, &[n(1)]);
    let y = b.temp(DType::F32, n(3));
    let op = Op::ScatterElements { axis: 0, reduction: Combine::Add };
    let inputs = vec![dense(x, &[n(3)]), dense(at, &[n(1)]), dense(update, &[n(1)])];
    b.run_kernel("the scatter", Form::Host(Host { op, inputs, outputs: vec![dense(y, &[n(3)])] }));
    b.output("y", y, &[n(3)]);
    let run = |at: i64| {
        let inputs = [("x", Tensor::vector(vec![1f32, 2.0, 3.0])), ("at", Tensor::vector(vec![at]))];
        b.try_run(&[inputs[0].clone(), inputs[1].clone(), ("update", Tensor::vector(vec![0.5f32]))], 1)
    };
    let right = run(-1).unwrap().outputs[0].1.to_f64s();
    assert_eq!(right, [1.0, 2.0, 3.5]);
    let error = run(3).unwrap_err();
    assert_eq!((error.kind(), error.node_path()), (ErrorKind::Kernel, Some("the scatter")));
    assert!(error.to_string().contains("index 3 is outside of a dim of size 3"), "{error}");
}

#[test]
fn a_buffer_that_is_too_small_is_found_before_the_run() {
    let b = largest(d("rows"));
    let sized = |k: usize| Tensor::new(&[k], vec![1u8; k]).unwrap();
    let x = || halves(&[1, 4], &[0; 4]);
    let error = b.try_run(&[("x", x()), ("sized", sized(2))], 1).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Program, "{error}");
}

#[test]
fn an_operator_that_does_not_fit_is_refused_when_the_program_is_loaded() {
    let mut b = Builder::new("wrong");
    let x = b.input("x", DType::F32, &[n(3)]);
    let y = b.temp(DType::F32, n(3));
    for op in [Op::BitwiseNot {}, Op::If { exit: -1, gate: -1 }, Op::Cast { to: DType::I64 }] {
        let mut b = b.clone();
        let form = Host { op, inputs: vec![dense(x, &[n(3)])], outputs: vec![dense(y, &[n(3)])] };
        b.run_kernel("wrong", Form::Host(form));
        b.output("y", y, &[n(3)]);
        let error = b.session(1).err().map(|e| e.kind());
        assert_eq!(error, Some(ErrorKind::Program));
    }
}
