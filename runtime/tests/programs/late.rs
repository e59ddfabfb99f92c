//! Sizes that data decides: what a run makes of them, and of numbers that are none.

use eec_ir::program::{Form, Loop, Per, Pool, PoolKind, SizeStep, Step};
use eec_ir::{BufferId, DType, Dim, Tensor};
use eec_runtime::{Control, Error, ErrorKind, Run, check_runs};

use crate::build::{Builder, LoopBuilder, d, dense, floats, n, symbol, view};

fn size(value: BufferId, name: &str, most: Dim) -> SizeStep {
    SizeStep { name: format!("the {name}"), value, symbol: symbol(name), most, equal: Vec::new() }
}

/// `len` elements from one buffer to another.
fn copy(len: &Dim, from: BufferId, to: BufferId) -> Loop {
    let len = std::slice::from_ref(len);
    let mut body = LoopBuilder::new(len);
    let loaded = body.load(view(from, dense(len)));
    body.store(Per::Element, view(to, dense(len)), loaded);
    body.0
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
    b.run_kernel("copy", copy(&d("kk"), x, y));
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
        assert!(error.to_string().contains(&format!("data makes it a size of {k}")), "{error}");
    }
    let error = run(&b, 2, 3).expect_err("they differ");
    assert_eq!(error.node_path(), Some("the ll"));
    assert!(["kk", "ll", "2", "3"].iter().all(|part| error.to_string().contains(part)), "{error}");
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
    refuse(&|b| step(b).most = &n(0) - &d("n"), "kernel \"the kk\": `-n` is not a usable size here: it is -4");
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

/// The greatest of each three neighbours of the first columns of `x`, two channels each: of `more` than `k` says.
fn windows(more: i64) -> Builder {
    let mut b = Builder::new("windows");
    let x = b.input("x", DType::F32, &[d("n"), n(2)]);
    let k = b.input("k", DType::I64, &[]);
    b.push(Step::Size(size(k, "kk", (&d("n") - &n(more)).larger(&n(0)))));
    let width = &d("kk") + &n(more);
    let outputs = &width - &n(2);
    let y = b.temp(DType::F32, &outputs * &n(2));
    let form = Pool {
        kind: PoolKind::Max,
        x_dims: [n(1), n(2), n(1), width],
        y_size: [n(1), outputs.clone()],
        kernel: [1, 3],
        strides: [1, 1],
        dilations: [1, 1],
        pads: [0; 4],
        x: view(x, vec![n(0), n(1), n(0), n(2)]),
        y,
    };
    b.run_kernel("pool", Form::Pool(form));
    b.output("y", y, &[outputs, n(2)]);
    b
}

#[test]
fn windows_over_what_data_counts() {
    let b = windows(2);
    check_runs(&b.program).expect("it can run");
    let x = Tensor::new(&[6, 2], (0..12).map(|i| i as f32).collect()).expect("12 elements");
    let mut session = b.session(2).expect("it loads");
    for k in [2, 4, 0, 3, 1] {
        let inputs = [("x", x.clone()), ("k", Tensor::scalar(k as i64))];
        let done = session.run(&inputs, Control::Auto).expect("windows that fit");
        let expected: Vec<f32> = (4..4 + 2 * k).map(|i| i as f32).collect();
        assert_eq!((done.outputs[0].1.dims(), floats(&done.outputs[0].1)), (&[k, 2][..], expected));
    }
}

#[test]
fn what_no_run_can_prove_is_found_before_there_are_inputs() {
    let refused = |b: &Builder, kernel: &str, why: &str| {
        let error = check_runs(&b.program).expect_err(why);
        assert_eq!(error.node_path(), Some(kernel), "{error}");
        assert!(error.to_string().contains(why), "expected {why}, found {error}");
    };
    check_runs(&first().program).expect("it can run");
    // Fewer than three columns have no window.
    refused(&windows(0), "pool", "`kk-2` is not a usable size here: it may be -2");
    let divided = |by: Dim| {
        let mut b = first();
        let Form::Loop(copy) = &mut b.program.kernels[0].form else { panic!("a loop copies") };
        copy.dims[0] = d("n").floor_div(&by).expect("a divisor");
        b
    };
    refused(&divided(d("kk")), "copy", "it divides by `kk`, which may be 0");
    // Too many for some inputs or for all is said when they are there.
    check_runs(&divided(&d("n") + &n(1)).program).expect("it can run");
    // Without sizes of data nothing is known before.
    let mut b = Builder::new("all but many");
    let (x, len) = (b.input("x", DType::F32, &[d("n")]), &d("n") - &n(2000));
    let y = b.temp(DType::F32, len.clone());
    b.run_kernel("copy", copy(&len, x, y));
    check_runs(&b.program).expect("there may be as many");
}
