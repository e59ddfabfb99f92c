//! Branches and routes: what runs, on which rows, and in which order results come back.

use eec_ir::program::{
    BinaryFn, Block, BlockId, Decision, Expr, Gate, IfStep, Per, ReductionFn, RouteStep, RowBuffer, Scalar, Source,
    Step,
};
use eec_ir::{BufferId, DType, Dim, Tensor};
use eec_runtime::{Control, Counters, ErrorKind, Run};

use crate::build::{Builder, LoopBuilder, d, dense, floats, n, ramp, symbol, view};

pub(crate) const WIDTH: i64 = 6;

/// `to = from * factor + addend` over `[rows, WIDTH]`.
pub(crate) fn scale(
    b: &mut Builder,
    name: &str,
    rows: &Dim,
    from: BufferId,
    to: BufferId,
    factor: f32,
    addend: f32,
) -> Step {
    let dims = [rows.clone(), n(WIDTH)];
    let mut l = LoopBuilder::new(&dims);
    let x = l.load(view(from, dense(&dims)));
    let factor = l.expr(Expr::Const(Scalar::F32(factor)));
    let addend = l.expr(Expr::Const(Scalar::F32(addend)));
    let product = l.expr(Expr::Binary(BinaryFn::Mul, x, factor));
    let sum = l.expr(Expr::Binary(BinaryFn::Add, product, addend));
    l.store(Per::Element, view(to, dense(&dims)), sum);
    b.kernel(name, eec_ir::program::Form::Loop(l.0))
}

/// `mask[row] = limit < max(x[row])`.
fn mask(b: &mut Builder, name: &str, rows: &Dim, x: BufferId, to: BufferId, limit: f32) -> Step {
    let mut l = LoopBuilder::with_inner(std::slice::from_ref(rows), &[n(WIDTH)]);
    let x = l.load(view(x, vec![n(WIDTH), n(1)]));
    let max = l.reduce(ReductionFn::Max, x);
    let limit = l.expr(Expr::Const(Scalar::F32(limit)));
    let over = l.expr(Expr::Binary(BinaryFn::Less, limit, max));
    l.store(Per::Row, view(to, vec![n(1)]), over);
    b.kernel(name, eec_ir::program::Form::Loop(l.0))
}

fn row(buffer: BufferId) -> RowBuffer {
    RowBuffer { buffer, row: n(WIDTH) }
}

/// Two exits, one inside the other:
///
/// x → a = 2x + 1 → rows with max > 10 leave with a·10; the others: c = a·3 → rows with max > 0 leave
/// with c; the others: c·-1 + 0.5, after which `last` runs.
pub(crate) fn nested() -> Builder {
    let mut b = Builder::new("nested");
    let rows = d("batch");
    let x = b.input("x", DType::F32, &[rows.clone(), n(WIDTH)]);
    let (a, first_mask) = (b.temp(DType::F32, &rows * &n(WIDTH)), b.temp(DType::Bool, rows.clone()));
    let (exit_0, exit_1) = (b.exit("block 0"), b.exit("block 1"));
    for name in ["stem", "first mask"] {
        let step = if name == "stem" {
            scale(&mut b, name, &rows, x, a, 2.0, 1.0)
        } else {
            mask(&mut b, name, &rows, a, first_mask, 10.0)
        };
        b.push(step);
    }
    let [r0, r1, r2, r3] = ["r0", "r1", "r2", "r3"].map(d);
    let block = |rows: &str, params, steps, yields| Block { rows: Some(symbol(rows)), params, steps, yields };
    let sized = |b: &mut Builder, rows: &Dim, source| b.buffer(DType::F32, rows * &n(WIDTH), source);

    let p0 = sized(&mut b, &r0, Source::Param);
    let head = sized(&mut b, &r0, Source::Temp);
    let head_step = scale(&mut b, "head", &r0, p0, head, 10.0, 0.0);
    let p1 = sized(&mut b, &r1, Source::Param);
    let c = sized(&mut b, &r1, Source::Temp);
    let second_mask = b.temp(DType::Bool, r1.clone());
    let body_step = scale(&mut b, "body", &r1, p1, c, 3.0, 0.0);
    let mask_step = mask(&mut b, "second mask", &r1, c, second_mask, 0.0);

    let p2 = sized(&mut b, &r2, Source::Param);
    let p3 = sized(&mut b, &r3, Source::Param);
    let last = sized(&mut b, &r3, Source::Temp);
    let last_step = scale(&mut b, "last", &r3, p3, last, -1.0, 0.5);
    let inner = sized(&mut b, &r1, Source::Result);
    let result = sized(&mut b, &rows, Source::Result);

    let outer_then = b.block(block("r0", vec![Some(p0)], vec![head_step], vec![head]));
    let outer_other = b.block(Block::default());
    let inner_then = b.block(block("r2", vec![Some(p2)], vec![], vec![p2]));
    let inner_other = b.block(block("r3", vec![Some(p3)], vec![last_step], vec![last]));
    let inner_route = RouteStep {
        decision: Decision::Exit(exit_1),
        rows: r1,
        mask: second_mask,
        operands: vec![row(c)],
        then: inner_then,
        other: inner_other,
        join: None,
        results: vec![row(inner)],
    };
    b.program.blocks[outer_other.0 as usize] =
        block("r1", vec![Some(p1)], vec![body_step, mask_step, Step::Route(inner_route)], vec![inner]);
    let route = RouteStep {
        decision: Decision::Exit(exit_0),
        rows: rows.clone(),
        mask: first_mask,
        operands: vec![row(a)],
        then: outer_then,
        other: outer_other,
        join: None,
        results: vec![row(result)],
    };
    b.push(Step::Route(route));
    b.output("y", result, &[rows, n(WIDTH)]);
    b
}

/// What [`nested`] gives for one row, and at which exit it leaves.
fn one_row(x: &[f32], control: Control) -> (Vec<f32>, usize) {
    let map = |v: &[f32], f: f32, a: f32| v.iter().map(|x| x * f + a).collect::<Vec<f32>>();
    let max = |v: &[f32]| v.iter().copied().fold(f32::MIN, f32::max);
    let leaves = |exit: usize, own: bool| match control {
        Control::Auto => own,
        Control::Never => false,
        Control::Force(k) => k == exit,
        Control::Gates => own,
    };
    let a = map(x, 2.0, 1.0);
    if leaves(0, max(&a) > 10.0) {
        return (map(&a, 10.0, 0.0), 0);
    }
    let c = map(&a, 3.0, 0.0);
    if leaves(1, max(&c) > 0.0) {
        return (c, 1);
    }
    (map(&c, -1.0, 0.5), 2)
}

fn kernels(run: &Run, b: &Builder) -> Vec<String> {
    let ran = run.counters.per_kernel.iter().zip(&b.program.kernels).filter(|(runs, _)| **runs > 0);
    ran.map(|(_, k)| k.name.clone()).collect()
}

/// Rows of the given kinds: 0 leaves first, 1 second, 2 runs to the end.
pub(crate) fn rows(kinds: &[usize]) -> Vec<f32> {
    let row = |(i, kind): (usize, &usize)| {
        let first = [20.0, 1.0, -9.0][*kind] + i as f32 * 0.01;
        (0..WIDTH).map(move |j| first - j as f32 * 0.25)
    };
    kinds.iter().enumerate().flat_map(row).collect()
}

fn run(b: &Builder, x: &[f32], control: Control) -> Run {
    let x = Tensor::new(&[x.len() / WIDTH as usize, WIDTH as usize], x.to_vec()).unwrap();
    b.session(2).unwrap().run(&[("x", x)], control).unwrap()
}

#[test]
pub(crate) fn nested_routes_merge_in_order_and_skip_empty_groups() {
    let b = nested();
    let cases: [&[usize]; 9] =
        [&[0], &[1], &[2], &[0, 0, 0], &[1, 1], &[2, 2, 2], &[2, 0, 1, 1, 0, 2, 2], &[1, 2, 1, 2], &[0, 2, 0]];
    for kinds in cases {
        let x = rows(kinds);
        let run = run(&b, &x, Control::Auto);
        let expected: Vec<(Vec<f32>, usize)> =
            x.chunks(WIDTH as usize).map(|row| one_row(row, Control::Auto)).collect();
        assert_eq!(expected.iter().map(|e| e.1).collect::<Vec<_>>(), kinds, "the rows are of the wanted kinds");
        assert_eq!(floats(&run.outputs[0].1), expected.into_iter().flat_map(|e| e.0).collect::<Vec<_>>(), "{kinds:?}");
        let count = |kind| kinds.iter().filter(|k| **k == kind).count() as u64;
        assert_eq!(run.counters.exit_rows, [count(0), count(1)]);
        let mut ran = vec!["stem", "first mask"];
        ran.extend((count(0) > 0).then_some("head"));
        ran.extend((count(1) + count(2) > 0).then_some(["body", "second mask"]).into_iter().flatten());
        ran.extend((count(2) > 0).then_some("last"));
        assert_eq!(kernels(&run, &b), ran, "{kinds:?}");
        assert_eq!(run.counters.kernels, ran.len() as u64);
        assert_eq!(run.counters.macs, ran.len() as u64);
    }
}

#[test]
fn controls_force_and_forbid_exits() {
    let b = nested();
    let x = rows(&[2, 0, 1, 1, 0]);
    let expected: [(Control, &[&str]); 5] = [
        (Control::Never, &["stem", "first mask", "body", "second mask", "last"]),
        (Control::Force(2), &["stem", "first mask", "body", "second mask", "last"]),
        (Control::Force(1), &["stem", "first mask", "body", "second mask"]),
        (Control::Force(0), &["stem", "first mask", "head"]),
        (Control::Auto, &["stem", "first mask", "head", "body", "second mask", "last"]),
    ];
    let mut session = b.session(1).unwrap();
    for (control, names) in expected {
        let tensor = Tensor::new(&[5, WIDTH as usize], x.clone()).unwrap();
        let run = session.run(&[("x", tensor)], control).unwrap();
        let rows: Vec<f32> = x.chunks(WIDTH as usize).flat_map(|row| one_row(row, control).0).collect();
        assert_eq!(floats(&run.outputs[0].1), rows, "{control:?}");
        assert_eq!(kernels(&run, &b), names, "{control:?}");
    }
    let error = session.run(&[("x", ramp(&[1, 6], 1.0))], Control::Force(3)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Input);
}

/// [`nested`] with a gate in place of its inner exit.
pub(crate) fn gated() -> Builder {
    let mut b = nested();
    b.program.exits.truncate(1);
    b.program.gates.push(Gate { name: "shortcut".into() });
    if let Some(Step::Route(inner)) = b.program.blocks[2].steps.last_mut() {
        inner.decision = Decision::Gate(0);
    }
    b
}

#[test]
fn controls_act_on_gates_and_exits_apart() {
    let b = gated();
    let x = rows(&[2, 0, 1, 1, 0]);
    // Per control: rows that leave, and rows for which the gate takes effect.
    let expected = [
        (Control::Auto, [2, 2]),
        (Control::Never, [0, 0]),
        (Control::Gates, [2, 3]),
        (Control::Force(0), [5, 0]),
        (Control::Force(1), [0, 4]),
    ];
    let mut session = b.session(1).unwrap();
    assert_eq!((session.exits(), session.gates()), (vec!["block 0"], vec!["shortcut"]));
    for (control, [left, gated]) in expected {
        let tensor = Tensor::new(&[5, WIDTH as usize], x.clone()).unwrap();
        let run = session.run(&[("x", tensor)], control).unwrap();
        assert_eq!((run.counters.exit_rows, run.counters.gate_rows), (vec![left], vec![gated]), "{control:?}");
    }
    assert!(session.run(&[("x", ramp(&[1, 6], 1.0))], Control::Force(2)).is_err());
}

#[test]
fn a_row_is_the_same_alone_and_in_any_batch() {
    let b = nested();
    let kinds = [2, 0, 1, 1, 0, 2, 2, 1, 0];
    let all = floats(&run(&b, &rows(&kinds), Control::Auto).outputs[0].1);
    for (i, row) in rows(&kinds).chunks(WIDTH as usize).enumerate() {
        let alone = floats(&run(&b, row, Control::Auto).outputs[0].1);
        assert_eq!(alone, all[i * WIDTH as usize..][..WIDTH as usize]);
    }
}

#[test]
fn an_empty_batch_runs() {
    let run = run(&nested(), &[], Control::Auto);
    assert_eq!(run.outputs[0].1.dims(), [0, WIDTH as usize]);
    assert_eq!(run.counters.exit_rows, [0, 0]);
}

#[test]
fn alternating_batches_reuse_the_session() {
    let b = nested();
    let mut session = b.session(2).unwrap();
    let mut bytes = Vec::new();
    for round in 0..3 {
        for kinds in [&[2usize, 0, 1, 2][..], &[1], &[0, 0], &[2, 2, 2, 2, 1]] {
            let x = Tensor::new(&[kinds.len(), WIDTH as usize], rows(kinds)).unwrap();
            let run = session.run(&[("x", x)], Control::Auto).unwrap();
            let expected: Vec<f32> =
                rows(kinds).chunks(WIDTH as usize).flat_map(|r| one_row(r, Control::Auto).0).collect();
            assert_eq!(floats(&run.outputs[0].1), expected, "round {round}");
        }
        bytes.push(session.arena_bytes());
    }
    assert_eq!(bytes[1], bytes[2], "a warm session needs no more memory");
}

/// `if any(x > 0) { y = 2x } else { y = x (the input itself) }`.
pub(crate) fn branch() -> Builder {
    let mut b = Builder::new("branch");
    let rows = d("batch");
    let len = &rows * &n(WIDTH);
    let x = b.input("x", DType::F32, &[rows.clone(), n(WIDTH)]);
    let condition = b.temp(DType::Bool, n(1));
    let mut l = LoopBuilder::with_inner(&[], std::slice::from_ref(&len));
    let v = l.load(view(x, vec![n(1)]));
    let max = l.reduce(ReductionFn::Max, v);
    let zero = l.expr(Expr::Const(Scalar::F32(0.0)));
    let over = l.expr(Expr::Binary(BinaryFn::Less, zero, max));
    l.store(Per::Row, view(condition, vec![]), over);
    b.run_kernel("any", l.0);
    let exit = b.exit("whole batch");
    let doubled = b.temp(DType::F32, len.clone());
    let step = scale(&mut b, "double", &rows, x, doubled, 2.0, 0.0);
    let result = b.buffer(DType::F32, len, Source::Result);
    let then = b.block(Block { steps: vec![step], yields: vec![doubled], ..Block::default() });
    let other = b.block(Block { yields: vec![x], ..Block::default() });
    b.push(Step::If(IfStep { decision: Decision::Exit(exit), condition, then, other, results: vec![result] }));
    b.output("y", result, &[rows, n(WIDTH)]);
    b
}

#[test]
fn if_runs_one_side() {
    let b = branch();
    let counters = |run: &Run| -> Counters { run.counters.clone() };
    for (kinds, control, doubled) in [
        (&[2usize, 2][..], Control::Auto, false),
        (&[2, 0], Control::Auto, true),
        (&[2, 0], Control::Never, false),
        (&[2, 2], Control::Force(0), true),
    ] {
        let x = rows(kinds);
        let run = run(&b, &x, control);
        let expected: Vec<f32> = x.iter().map(|v| if doubled { v * 2.0 } else { *v }).collect();
        assert_eq!(floats(&run.outputs[0].1), expected);
        assert_eq!(
            (counters(&run).kernels, counters(&run).exit_rows),
            (1 + u64::from(doubled), vec![u64::from(doubled)])
        );
    }
}

#[test]
fn wrong_inputs_are_refused_together() {
    let mut b = branch();
    b.input("second", DType::I64, &[d("batch"), n(2)]);
    let mut session = b.session(1).unwrap();
    let mut refuse = |inputs: &[(&str, Tensor)], parts: &[&str]| {
        let error = session.run(inputs, Control::Auto).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Input);
        parts.iter().for_each(|p| assert!(error.to_string().contains(p), "{error} does not say {p:?}"));
    };
    let second = Tensor::new(&[2, 2], vec![1i64; 4]).unwrap();
    refuse(
        &[("y", ramp(&[2, 6], 1.0)), ("z", ramp(&[1], 1.0))],
        &["\"x\" (f32[batch, 6]) is missing", "\"second\"", "[\"y\", \"z\"]"],
    );
    refuse(&[("x", ramp(&[2, 5], 1.0)), ("second", second.clone())], &["[batch, 6]", "found [2, 5]: dim 1 must be 6"]);
    refuse(
        &[("x", ramp(&[3, 6], 1.0)), ("second", second.clone())],
        &["expected dims [batch, 2] where batch = 3, found [2, 2]"],
    );
    refuse(&[("x", ramp(&[6], 1.0)), ("second", second.clone())], &["f32[batch, 6]", "f32[6]"]);
    refuse(&[("x", second.clone()), ("second", ramp(&[2, 2], 1.0))], &["\"x\" must be f32", "\"second\" must be i64"]);
    refuse(&[("x", ramp(&[2, 6], 1.0)), ("x", ramp(&[2, 6], 1.0)), ("second", second)], &["\"x\" is given twice"]);
    assert_eq!(session.inputs()[0].dims, ["batch", "6"]);
    assert_eq!(session.outputs()[0].name, "y");
    assert_eq!(session.exits(), ["whole batch"]);
}

/// The nested program after `change` is refused with a reason that holds `part`.
fn refuse(change: &dyn Fn(&mut Builder), part: &str) {
    let mut b = nested();
    change(&mut b);
    let error = b.try_run(&[("x", ramp(&[2, 6], 1.0))], 1).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Program, "{error}");
    assert!(error.to_string().contains(part), "{error} does not say {part:?}");
}

#[test]
fn broken_programs_are_refused() {
    let loop_of = |b: &mut Builder, kernel: usize, f: &dyn Fn(&mut eec_ir::program::Loop)| match &mut b.program.kernels
        [kernel]
        .form
    {
        eec_ir::program::Form::Loop(l) => f(l),
        _ => panic!("kernel {kernel} is a loop"),
    };
    refuse(&|b| b.program.buffers[1].len = n(3), "leaves its 3 elements");
    refuse(&|b| loop_of(b, 0, &|l| l.inputs[0].offset = n(-1)), "leaves its");
    refuse(&|b| loop_of(b, 0, &|l| l.inputs[0].offset = n(1)), "leaves its");
    refuse(
        &|b| loop_of(b, 0, &|l| l.stores[0].view.strides[0] = d("batch").floor_div(&n(7)).unwrap().larger(&n(9))),
        "leaves its",
    );
    refuse(&|b| loop_of(b, 2, &|l| l.dims[0] = &d("r0") + &n(1)), "leaves its");
    refuse(&|b| loop_of(b, 0, &|l| l.dims[0] = d("r0")), "not bound here");
    refuse(&|b| loop_of(b, 0, &|l| l.inputs[0].buffer = BufferId(99)), "does not exist");
    refuse(&|b| loop_of(b, 0, &|l| l.inputs[0].strides.truncate(1)), "1 strides, expected 2");
    refuse(&|b| loop_of(b, 0, &|l| l.exprs.swap(0, 3)), "does not come before");
    refuse(&|b| loop_of(b, 0, &|l| l.stores[0].view.buffer = l.inputs[0].buffer), "which it writes");
    refuse(&|b| b.program.blocks[1].yields.clear(), "yields 0 buffers");
    refuse(&|b| b.program.blocks[1].params = vec![Some(BufferId(0))], "must be Param");
    refuse(&|b| b.program.blocks[3].rows = Some(symbol("r0")), "bound twice");
    refuse(&|b| b.program.exits.truncate(1), "exit 1 of 1 does not exist");
    refuse(
        &|b| {
            if let Some(Step::Route(route)) = b.program.blocks[0].steps.last_mut() {
                route.decision = Decision::Gate(0);
            }
        },
        "gate 0 of 0 does not exist",
    );
    refuse(
        &|b| {
            if let Some(Step::Route(route)) = b.program.blocks[0].steps.last_mut() {
                route.other = BlockId(0);
            }
        },
        "not after its owner",
    );
    refuse(
        &|b| {
            if let Some(Step::Route(route)) = b.program.blocks[0].steps.last_mut() {
                route.operands[0].row = n(WIDTH + 1);
            }
        },
        "must hold",
    );
}

/// The outer route of [`nested`].
fn outer_route(b: &mut Builder) -> &mut RouteStep {
    match b.program.blocks[0].steps.last_mut() {
        Some(Step::Route(route)) => route,
        _ => panic!("the last step is a route"),
    }
}

/// A route over `x` whose blocks yield `constant` and `x`, with the result `result`.
fn route_to_constant(b: &mut Builder, mask: BufferId, x: BufferId, constant: BufferId, result: BufferId) {
    let rows = d("batch");
    let tag = b.program.blocks.len();
    let names = [format!("t{tag}"), format!("o{tag}")];
    let param = b.buffer(DType::F32, &d(&names[1]) * &n(WIDTH), Source::Param);
    let block = |rows: &str, params, yields| Block { rows: Some(symbol(rows)), params, steps: vec![], yields };
    let then = b.block(block(&names[0], vec![None], vec![constant]));
    let other = b.block(block(&names[1], vec![Some(param)], vec![param]));
    b.push(Step::Route(RouteStep {
        decision: Decision::None,
        join: None,
        rows,
        mask,
        operands: vec![row(x)],
        then,
        other,
        results: vec![row(result)],
    }));
}

/// The first route makes `result` stand for a constant where all rows leave; the second would then
/// merge rows into that constant.
#[test]
fn a_result_of_two_routes_is_refused() {
    let mut b = Builder::new("two routes, one result");
    let rows = d("batch");
    let x = b.input("x", DType::F32, &[rows.clone(), n(WIDTH)]);
    let constant = b.constant(ramp(&[64, WIDTH as usize], 1.0));
    let result = b.buffer(DType::F32, &rows * &n(WIDTH), Source::Result);
    for (name, limit) in [("all leave", f32::MIN), ("some leave", 10.0)] {
        let to = b.temp(DType::Bool, rows.clone());
        let step = mask(&mut b, name, &rows, x, to, limit);
        b.push(step);
        route_to_constant(&mut b, to, x, constant, result);
    }
    b.output("y", result, &[rows, n(WIDTH)]);
    let error = b.try_run(&[("x", ramp(&[2, 6], 1.0))], 1).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Program);
    assert!(error.to_string().contains("is defined twice"), "{error}");
}

#[test]
fn buffers_are_defined_once_and_before_they_are_read() {
    let blocks = |b: &Builder| -> [BufferId; 2] { [1, 2].map(|k| b.program.blocks[k].params[0].unwrap()) };
    refuse(&|b| b.program.blocks[0].steps.swap(0, 1), "is read before it is defined");
    refuse(&|b| b.program.blocks[0].steps.swap(1, 2), "is read before it is defined");
    refuse(&|b| b.program.blocks[2].params[0] = b.program.blocks[1].params[0], "is defined twice");
    refuse(&|b| outer_route(b).operands[0].buffer = blocks(b)[0], "is read before it is defined");
    refuse(&|b| b.program.blocks[2].yields[0] = b.program.blocks[1].yields[0], "is read outside the block");
    refuse(
        &|b| {
            let stem = b.program.blocks[0].steps[0].clone();
            b.push(stem);
        },
        "is written after it was read",
    );
    refuse(
        &|b| {
            let to = b.temp(DType::F32, n(1));
            let mut l = LoopBuilder::new(&[n(1)]);
            let one = l.expr(Expr::Const(Scalar::F32(1.0)));
            l.store(Per::Element, view(to, vec![n(1)]), one);
            let step = b.kernel("one", eec_ir::program::Form::Loop(l.0));
            [1, 2].into_iter().for_each(|k| b.program.blocks[k].steps.push(step.clone()));
        },
        "is written by several blocks",
    );
}
