//! Sizes that data decides: what a run makes of them, and of numbers that are none.

use eec_ir::program::{SizeStep, Step};
use eec_ir::{BufferId, DType, Dim, Tensor};
use eec_runtime::{Error, ErrorKind, Run};

use crate::build::{Builder, LoopBuilder, d, dense, floats, n, symbol, view};

fn size(value: BufferId, name: &str, most: Dim) -> SizeStep {
    SizeStep { name: format!("the {name}"), value, symbol: symbol(name), most, equal: Vec::new() }
}

/// The first `k` elements of `x`, where `k` is an input and must be what `l` is.
fn first() -> Builder {
    let mut b = Builder::new("first");
    let x = b.input("x", DType::F32, &[d("n")]);
    let (k, l) = (b.input("k", DType::I64, &[]), b.input("l", DType::I64, &[]));
    b.push(Step::Size(size(k, "kk", d("n"))));
    let mut equal = size(l, "ll", d("n"));
    equal.equal = vec![(d("kk"), d("ll"))];
    b.push(Step::Size(equal));
    let y = b.temp(DType::F32, d("kk"));
    let mut body = LoopBuilder::new(&[d("kk")]);
    let loaded = body.load(view(x, dense(&[d("kk")])));
    body.store(eec_ir::program::Per::Element, view(y, dense(&[d("kk")])), loaded);
    b.run_kernel("copy", body.0);
    b.output("y", y, &[d("kk")]);
    b
}

fn run(b: &Builder, k: i64, l: i64) -> Result<Run, Error> {
    let x = Tensor::vector(vec![1f32, 2.0, 3.0, 4.0]);
    b.try_run(&[("x", x), ("k", Tensor::scalar(k)), ("l", Tensor::scalar(l))], 1)
}

#[test]
fn outputs_are_as_long_as_data_says() {
    let b = first();
    for k in 0..=4usize {
        let done = run(&b, k as i64, k as i64).expect("a size");
        assert_eq!(
            (done.outputs[0].1.dims(), floats(&done.outputs[0].1)),
            (&[k][..], vec![1.0, 2.0, 3.0, 4.0][..k].to_vec())
        );
    }
}

#[test]
fn a_number_that_is_no_size_ends_the_run() {
    let b = first();
    for k in [-1, 5, i64::MIN, i64::MAX] {
        let error = run(&b, k, k).expect_err("no size");
        assert_eq!((error.kind(), error.node_path()), (ErrorKind::Kernel, Some("the kk")), "{k}");
        assert!(error.to_string().contains("data gives a number that is no size"), "{error}");
    }
    let error = run(&b, 2, 3).expect_err("they differ");
    assert_eq!(error.node_path(), Some("the ll"));
    assert!(error.to_string().contains("must be equal and are not"), "{error}");
}

#[test]
fn sizes_that_break_a_rule_are_refused() {
    let refuse = |change: &dyn Fn(&mut Builder), expected: &str| {
        let mut b = first();
        change(&mut b);
        let error = run(&b, 1, 1).map(|_| ()).expect_err(expected).to_string();
        assert!(error.contains(expected), "expected {expected}, found {error}");
    };
    fn step(b: &mut Builder) -> &mut SizeStep {
        match &mut b.program.blocks[0].steps[0] {
            Step::Size(step) => step,
            _ => panic!("the first step makes a size"),
        }
    }
    refuse(&|b| step(b).symbol = symbol("n"), "symbol n is bound twice");
    refuse(&|b| step(b).value = BufferId::new(0), "must be i64");
    refuse(&|b| step(b).most = d("m"), "symbol m of `m` is not bound here");
    refuse(&|b| step(b).most = d("ll"), "symbol ll of `ll` is not bound here");
    refuse(&|b| step(b).most = &d("n") + &n(1), "leaves its");
    refuse(&|b| step(b).most = &n(0) - &d("n"), "is not a usable size here");
    refuse(
        &|b| {
            b.program.blocks[0].steps.swap(0, 2);
        },
        "symbol kk of `kk` is not bound here",
    );
    refuse(
        &|b| {
            b.program.blocks[0].steps.remove(0);
        },
        "symbol kk of `kk` is not bound here",
    );
}
