//! Routes with a join by hand: what a run gives, and programs whose joins do not fit.

use eec_ir::program::{
    Block, BlockId, Decision, Expr, Form, Gate, Join, Length, Loop, Per, ReductionFn, RouteStep, RowBuffer, Source,
    Step,
};
use eec_ir::{BufferId, DType, Dim, Tensor};
use eec_runtime::{Control, ErrorKind};

use crate::build::{Builder, LoopBuilder, d, dense, floats, n, ramp, symbol, view};

const WIDTH: i64 = 6;
const SHORT: i64 = 2;

/// Buffers of [`summed`].
const WIDE: BufferId = BufferId(2);
const CUT: BufferId = BufferId(3);

/// The sum of each row: of its first two elements where the mask holds, else of all six.
pub(crate) fn summed() -> Builder {
    let mut b = Builder::new("summed");
    let rows = d("batch");
    let x = b.input("x", DType::F32, &[rows.clone(), n(WIDTH)]);
    let mask = b.input("mask", DType::Bool, std::slice::from_ref(&rows));
    let [r0, r1, r2, t] = ["r0", "r1", "r2", "t"].map(d);
    let wide = b.buffer(DType::F32, &r0 * &n(WIDTH), Source::Param);
    let cut = b.temp(DType::F32, &r0 * &n(WIDTH));
    assert_eq!((wide, cut), (WIDE, CUT));
    let dims = [r0, n(SHORT)];
    let mut copy = LoopBuilder::new(&dims);
    let element = copy.load(view(wide, vec![n(WIDTH), n(1)]));
    copy.store(Per::Element, view(cut, dense(&dims)), element);
    let copy = b.kernel("cut", Form::Loop(copy.0));
    let whole = b.buffer(DType::F32, &r1 * &n(WIDTH), Source::Param);
    let given = b.buffer(DType::F32, &r2 * &t, Source::Param);
    let sums = b.temp(DType::F32, r2.clone());
    let mut sum = LoopBuilder::with_inner(std::slice::from_ref(&r2), std::slice::from_ref(&t));
    let element = sum.load(view(given, vec![t.clone(), n(1)]));
    let total = sum.reduce(ReductionFn::Sum, element);
    sum.store(Per::Row, view(sums, vec![n(1)]), total);
    let sum = b.kernel("sum", Form::Loop(sum.0));
    let result = b.buffer(DType::F32, rows.clone(), Source::Result);

    let block = |rows: &str, param, steps, yields| Block {
        rows: Some(symbol(rows)),
        params: vec![Some(param)],
        steps,
        yields: vec![yields],
    };
    let then = b.block(block("r0", wide, vec![copy], cut));
    let other = b.block(block("r1", whole, vec![], whole));
    let join = b.block(block("r2", given, vec![sum], sums));
    b.program.gates.push(Gate { name: "cut".into() });
    b.push(Step::Route(RouteStep {
        decision: Decision::Gate(0),
        rows: rows.clone(),
        mask,
        operands: vec![RowBuffer { buffer: x, row: n(WIDTH) }],
        then,
        other,
        join: Some(Join { block: join, length: Some(Length { symbol: symbol("t"), then: n(SHORT), other: n(WIDTH) }) }),
        results: vec![RowBuffer { buffer: result, row: n(1) }],
    }));
    b.output("y", result, &[rows]);
    b
}

pub(crate) fn inputs(mask: &[u8]) -> [(&'static str, Tensor); 2] {
    let mask = Tensor::new(&[mask.len()], mask.to_vec()).unwrap();
    [("x", ramp(&[mask.len(), WIDTH as usize], 0.25)), ("mask", mask)]
}

#[test]
fn both_sides_go_through_the_join() {
    let b = summed();
    let masks: [&[u8]; 8] =
        [&[], &[0], &[1], &[1, 1, 1], &[0, 0], &[1, 0], &[0, 1, 1, 0, 0, 1], &[1, 1, 0, 0, 1, 0, 1, 0, 0]];
    let mut session = b.session(2).unwrap();
    for mask in masks {
        for control in [Control::Auto, Control::Never, Control::Gates] {
            let inputs = inputs(mask);
            let side = |own: u8| match control {
                Control::Never => 0,
                Control::Gates => 1,
                Control::Auto | Control::Force(_) => own,
            };
            let x = floats(&inputs[0].1);
            let row = |(row, own): (&[f32], &u8)| {
                let length = if side(*own) == 1 { SHORT } else { WIDTH };
                row[..length as usize].iter().sum::<f32>()
            };
            let expected: Vec<f32> = x.chunks(WIDTH as usize).zip(mask).map(row).collect();
            let run = session.run(&inputs, control).unwrap();
            assert_eq!(floats(&run.outputs[0].1), expected, "{mask:?} {control:?}");
            let taken = mask.iter().filter(|m| side(**m) == 1).count();
            let groups = u64::from(taken > 0) + u64::from(taken < mask.len());
            assert_eq!(run.counters.gate_rows, [taken as u64], "{mask:?} {control:?}");
            assert_eq!(run.counters.per_kernel, [u64::from(taken > 0), groups], "{mask:?} {control:?}");
        }
    }
}

fn refuse(change: impl Fn(&mut Builder), part: &str) {
    let mut b = summed();
    change(&mut b);
    let error = b.try_run(&inputs(&[1, 0, 1]), 1).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Program, "{error}");
    assert!(error.to_string().contains(part), "{error} does not say {part:?}");
}

fn route(b: &mut Builder) -> &mut RouteStep {
    match b.program.blocks[0].steps.last_mut() {
        Some(Step::Route(route)) => route,
        _ => panic!("the last step is a route"),
    }
}

fn join(b: &mut Builder) -> &mut Join {
    route(b).join.as_mut().expect("it has a join")
}

fn length(b: &mut Builder) -> &mut Length {
    join(b).length.as_mut().expect("it has a length")
}

fn kernel(b: &mut Builder, kernel: usize) -> &mut Loop {
    match &mut b.program.kernels[kernel].form {
        Form::Loop(form) => form,
        _ => panic!("kernel {kernel} is a loop"),
    }
}

#[test]
fn what_a_side_yields_holds_what_the_join_may_read() {
    refuse(|b| b.program.buffers[CUT.index()].len = &d("r0") * &n(SHORT), "buffer @3 must hold 18 elements, found 6");
    refuse(|b| length(b).then = n(WIDTH + 1), "must hold 21 elements, found 18");
    refuse(|b| length(b).other = d("batch").larger(&n(7)), "must hold 21 elements, found 18");
    refuse(|b| kernel(b, 1).inner[0] = &d("t") + &n(1), "leaves its");
    refuse(|b| kernel(b, 1).inputs[0].strides[0] = n(WIDTH + 1), "leaves its");
    refuse(|b| b.program.buffers[5].len = d("r2"), "leaves its");
    refuse(|b| route(b).results[0].row = n(2), "must hold");
    refuse(|b| b.program.buffers[6].len = n(2), "must hold 3 elements, found 2");
}

#[test]
fn lengths_are_sizes_that_are_known_before() {
    refuse(|b| length(b).then = n(-1), "is not a usable size");
    refuse(|b| length(b).other = &n(2) - &d("batch"), "is not a usable size");
    refuse(|b| length(b).then = d("r0"), "symbol r0 of `r0` is not bound here");
    refuse(|b| length(b).other = d("t"), "symbol t of `t` is not bound here");
    refuse(|b| length(b).then = d("elsewhere"), "is not bound here");
    refuse(|b| length(b).then = n(Dim::LIMIT), "has a coefficient beyond");
    refuse(|b| length(b).symbol = symbol("batch"), "symbol batch is bound twice");
    refuse(|b| length(b).symbol = symbol("r1"), "symbol r1 is bound twice");
    refuse(|b| join(b).length = None, "symbol t of `t` is not bound here");
    refuse(|b| b.program.blocks[3].rows = Some(symbol("t")), "symbol t is bound twice");
    refuse(|b| b.program.blocks[3].rows = None, "has no symbol for its rows");
    refuse(|b| kernel(b, 0).exprs.push(Expr::Size(d("t"))), "symbol t of `t` is not bound here");
}

#[test]
fn the_blocks_of_a_join_fit_together() {
    refuse(|b| join(b).block = BlockId(1), "block 1 has two owners");
    refuse(|b| join(b).block = BlockId(0), "block 0 is not after its owner 0");
    refuse(|b| join(b).block = BlockId(9), "block 9 of 4 does not exist");
    refuse(|b| b.program.blocks[3].params.clear(), "block 3 takes 0 parameters, expected 1");
    refuse(|b| b.program.blocks[1].yields.clear(), "block 3 takes 1 parameters, expected 0");
    refuse(|b| b.program.blocks[3].params[0] = Some(BufferId(6)), "buffer @6 must be Param");
    refuse(|b| b.program.blocks[3].yields.clear(), "block 3 yields 0 buffers, expected 1");
    refuse(|b| b.program.blocks[1].yields[0] = BufferId(1), "buffer @5 must be bool, found f32");
    refuse(|b| b.program.blocks[2].yields[0] = BufferId(99), "buffer @99 of 8 does not exist");
}
