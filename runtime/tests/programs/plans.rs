//! What a session keeps from run to run, and what it measures.

use eec_ir::program::{Expr, Form, Per, UnaryFn};
use eec_ir::{BufferId, DType, Dim};
use eec_runtime::{Control, ErrorKind, Options, Session};

use crate::build::{Builder, LoopBuilder, d, floats, n, ramp, view};
use crate::control::nested;

/// `to = -from` over `len` elements.
fn negate(b: &mut Builder, len: &Dim, from: BufferId, to: BufferId) {
    let mut l = LoopBuilder::new(std::slice::from_ref(len));
    let x = l.load(view(from, vec![n(1)]));
    let y = l.expr(Expr::Unary(UnaryFn::Neg, x));
    l.store(Per::Element, view(to, vec![n(1)]), y);
    b.run_kernel("negate", l.0);
}

/// Three negations of `[len]`, so that buffers have to share memory.
fn chain() -> Builder {
    let mut b = Builder::new("chain");
    let len = d("len");
    let x = b.input("x", DType::F32, std::slice::from_ref(&len));
    let buffers: Vec<BufferId> = (0..3).map(|_| b.temp(DType::F32, len.clone())).collect();
    let mut from = x;
    for to in &buffers {
        negate(&mut b, &len, from, *to);
        from = *to;
    }
    b.output("y", from, &[len]);
    b
}

/// As the caches of a language model grow: more sizes than plans are kept, and then back.
#[test]
fn sizes_may_grow_from_run_to_run() {
    let b = chain();
    let mut session = b.session(1).unwrap();
    let mut arenas = Vec::new();
    for len in (1..60).map(|i| 500 * i).chain([7, 500, 29_500]) {
        let x = ramp(&[len], 0.1);
        let run = session.run(&[("x", x.clone())], Control::Auto).unwrap();
        let expected: Vec<f32> = floats(&x).into_iter().map(|x| -x).collect();
        assert_eq!(floats(&run.outputs[0].1), expected, "{len} elements");
        arenas.push(session.arena_bytes());
    }
    let grown = arenas.windows(2).filter(|w| w[0] != w[1]).count();
    assert!((2..40).contains(&grown), "the arena grew {grown} times");
}

#[test]
fn room_to_grow_is_left_out_where_the_limit_is_near() {
    let b = chain();
    let constants = b.constants.clone();
    let options = Options { threads: 1, memory_limit: 2 * 4 * 1050, ..Options::default() };
    let mut session = Session::new(b.program, &|hash| constants.get(&hash).cloned(), options).unwrap();
    for (len, fits) in [(1000, true), (1024, true), (1100, false), (1000, true)] {
        let run = session.run(&[("x", ramp(&[len], 1.0))], Control::Auto);
        match run {
            Ok(_) => assert!(fits, "{len} elements"),
            Err(e) => assert!(!fits && e.kind() == ErrorKind::Memory, "{len} elements: {e}"),
        }
    }
}

/// Two kernels of one form, of which the second has a shorter buffer to write to.
#[test]
fn equal_forms_over_other_lengths_are_checked_each() {
    let mut b = Builder::new("short");
    let len = d("len");
    let x = b.input("x", DType::F32, std::slice::from_ref(&len));
    let (y, z) = (b.temp(DType::F32, len.clone()), b.temp(DType::F32, &len - &n(1)));
    negate(&mut b, &len, x, y);
    b.output("y", y, std::slice::from_ref(&len));
    let x_values = || ramp(&[8], 1.0);
    assert!(b.try_run(&[("x", x_values())], 1).is_ok());
    negate(&mut b, &len, x, z);
    let error = b.try_run(&[("x", x_values())], 1).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Program);
    assert!(error.to_string().contains("leaves its 7 elements"), "{error}");
}

#[test]
fn a_profile_has_every_kernel_that_ran() {
    let b = nested();
    let constants = b.constants.clone();
    let options = Options { threads: 1, profile: true, ..Options::default() };
    let mut session = Session::new(b.program.clone(), &|hash| constants.get(&hash).cloned(), options).unwrap();
    for control in [Control::Auto, Control::Never, Control::Force(0)] {
        let counters = session.run(&[("x", ramp(&[5, 6], 0.1))], control).unwrap().counters;
        assert_eq!(counters.measures.len(), b.program.kernels.len());
        assert_eq!(counters.measures.iter().map(|m| m.macs).sum::<u64>(), counters.macs);
        for (kernel, (measure, runs)) in counters.measures.iter().zip(&counters.per_kernel).enumerate() {
            assert_eq!(measure.bytes > 0, *runs > 0, "kernel {kernel}");
            let form = &b.program.kernels[kernel].form;
            assert!(matches!(form, Form::Loop(_)) && (*runs > 0 || measure.ns == 0), "kernel {kernel}");
        }
    }
    assert!(b.run(&[("x", ramp(&[5, 6], 0.1))]).counters.measures.is_empty());
}
