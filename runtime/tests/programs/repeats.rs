//! Loops: how often they run, what they carry, and what is wrong with some.

use eec_ir::program::{Block, Decision, IfStep, RepeatStep, RowBuffer, Source, Step};
use eec_ir::{BufferId, DType, Tensor};
use eec_runtime::{Control, Error, ErrorKind, Options, Run, Session};

use crate::build::{Builder, d, floats, n};
use crate::control::{WIDTH, scale};

/// Two values that change places at every step, one of them doubled: `(p, q) → (q, 2p + 1)`, `n` times; the
/// rows are `p` of every step. With `inner` every step begins with a loop of two steps that carries `p`.
pub(crate) fn swapping(inner: bool) -> Builder {
    let mut b = Builder::new("swapping");
    let dims = [d("rows"), n(WIDTH)];
    let len = &d("rows") * &n(WIDTH);
    let (x, z) = (b.input("x", DType::F32, &dims), b.input("z", DType::F32, &dims));
    b.input("steps", DType::F32, &[d("n")]);
    let buffers =
        |b: &mut Builder, source| -> [BufferId; 2] { [0; 2].map(|_| b.buffer(DType::F32, len.clone(), source)) };
    let number = b.buffer(DType::I64, n(1), Source::Param);
    let ([p, q], [y, v]) = (buffers(&mut b, Source::Param), buffers(&mut b, Source::Result));
    let all = b.buffer(DType::F32, &len * &d("n"), Source::Result);
    let (body, mut steps, mut from) = (b.block(Block::default()), Vec::new(), p);
    if inner {
        let ([h, _], [result, _]) = (buffers(&mut b, Source::Param), buffers(&mut b, Source::Result));
        let halved = b.temp(DType::F32, len.clone());
        let half = scale(&mut b, "half", &d("rows"), h, halved, 0.5, 0.0);
        let block = b.block(Block { params: vec![None, Some(h)], steps: vec![half], yields: vec![halved], rows: None });
        let (carried, results) = (vec![p], vec![result]);
        steps.push(Step::Repeat(RepeatStep {
            name: "inner".into(),
            trips: Some(n(2)),
            condition: None,
            body: block,
            carried,
            results,
            rows: vec![],
        }));
        from = result;
    }
    let doubled = b.temp(DType::F32, len.clone());
    steps.push(scale(&mut b, "double", &d("rows"), from, doubled, 2.0, 1.0));
    let params = vec![Some(number), Some(p), Some(q)];
    b.program.blocks[body.0 as usize] = Block { params, steps, yields: vec![q, doubled, p], rows: None };
    let rows = vec![RowBuffer { buffer: all, row: len.clone() }];
    let (carried, results) = (vec![x, z], vec![y, v]);
    let name = "swap".into();
    b.push(Step::Repeat(RepeatStep { name, trips: Some(d("n")), condition: None, body, carried, results, rows }));
    b.output("y", y, &dims);
    b.output("v", v, &dims);
    b.output("all", all, &[d("n"), d("rows"), n(WIDTH)]);
    b
}

pub(crate) fn inputs(rows: usize, steps: usize) -> [(&'static str, Tensor); 3] {
    let tensor = |shift: f32| {
        let data = (0..rows * WIDTH as usize).map(|i| i as f32 / 8.0 + shift).collect();
        Tensor::new(&[rows, WIDTH as usize], data).expect("as many elements")
    };
    [("x", tensor(0.0)), ("z", tensor(-3.0)), ("steps", Tensor::vector(vec![0f32; steps]))]
}

fn output(run: &Run, name: &str) -> Vec<f32> {
    floats(run.tensor(name).expect("it is an output"))
}

#[test]
fn what_is_carried_changes_places_and_rows_stand_in_order() {
    for inner in [false, true] {
        let b = swapping(inner);
        for (rows, steps) in [(3, 0), (3, 1), (2, 5), (0, 3), (40, 4)] {
            let given = inputs(rows, steps);
            let (mut p, mut q) = (floats(&given[0].1), floats(&given[1].1));
            let mut all = Vec::new();
            for _ in 0..steps {
                all.extend(&p);
                let factor = if inner { 0.5 } else { 2.0 };
                (p, q) = (q, p.iter().map(|x| x * factor + 1.0).collect());
            }
            let run = b.run(&given);
            for (name, want) in [("y", p), ("v", q), ("all", all)] {
                assert_eq!(output(&run, name), want, "{name}, {rows} rows, {steps} steps, inner {inner}");
            }
            assert_eq!(run.counters.kernels, (steps * if inner { 3 } else { 1 }) as u64);
        }
    }
}

/// A loop whose condition is an input and then, after every step, the constant `again`.
pub(crate) fn conditional(again: bool, in_a_branch: bool) -> Builder {
    let mut b = Builder::new("conditional");
    let dims = [n(WIDTH)];
    let condition = b.input("go", DType::Bool, &[n(1)]);
    let x = b.input("x", DType::F32, &dims);
    let again = b.constant(Tensor::vector(vec![u8::from(again)]));
    let param = b.buffer(DType::F32, n(WIDTH), Source::Param);
    let (result, doubled) = (b.buffer(DType::F32, n(WIDTH), Source::Result), b.temp(DType::F32, n(WIDTH)));
    let around = in_a_branch.then(|| b.block(Block::default()));
    let double = scale(&mut b, "double", &n(1), param, doubled, 2.0, 0.0);
    let body = b.block(Block {
        params: vec![None, Some(param)],
        steps: vec![double],
        yields: vec![again, doubled],
        rows: None,
    });
    let (name, carried, results) = ("double".into(), vec![x], vec![result]);
    let first = Some(condition);
    let repeat = RepeatStep { name, trips: None, condition: first, body, carried, results, rows: vec![] };
    let repeat = Step::Repeat(repeat);
    let Some(then) = around else {
        b.push(repeat);
        b.output("y", result, &dims);
        return b;
    };
    b.program.blocks[then.0 as usize] = Block { steps: vec![repeat], yields: vec![result], ..Block::default() };
    let other = b.block(Block { yields: vec![x], ..Block::default() });
    let y = b.buffer(DType::F32, n(WIDTH), Source::Result);
    b.push(Step::If(IfStep { decision: Decision::None, condition, then, other, results: vec![y] }));
    b.output("y", y, &dims);
    b
}

fn run(b: &Builder, go: bool, step_limit: u64) -> Result<Run, Error> {
    let constants = b.constants.clone();
    let options = Options { threads: 1, step_limit, ..Options::default() };
    let mut session = Session::new(b.program.clone(), &|hash| constants.get(&hash).cloned(), options)?;
    let x = Tensor::vector((0..WIDTH).map(|i| i as f32).collect::<Vec<_>>());
    let inputs = [("go", Tensor::vector(vec![u8::from(go)])), ("x", x)];
    let first = session.run(&inputs, Control::Auto);
    // A session whose run failed runs again.
    assert_eq!(first.is_ok(), session.run(&inputs, Control::Auto).is_ok());
    first
}

#[test]
fn a_firstends_a_loop_and_one_without_end_fails() {
    for in_a_branch in [false, true] {
        let once = conditional(false, in_a_branch);
        let y = |go| output(&run(&once, go, 100).expect("the loop ends"), "y");
        assert_eq!((y(false)[3], y(true)[3]), (3.0, 6.0));
        let endless = conditional(true, in_a_branch);
        assert!(run(&endless, false, 100).is_ok());
        let error = run(&endless, true, 100).expect_err("the loop does not end");
        assert_eq!(error.kind(), ErrorKind::Kernel);
        assert!(error.to_string().contains("\"double\": loops take more than 100 steps"), "{error}");
    }
}

#[test]
fn loops_that_break_a_rule_are_refused() {
    let refuse = |change: &dyn Fn(&mut Builder), expected: &str| {
        let mut b = swapping(false);
        change(&mut b);
        let error = b.try_run(&inputs(2, 3), 1).map(|_| ()).expect_err(expected).to_string();
        assert!(error.contains(expected), "expected {expected}, found {error}");
    };
    fn repeat(b: &mut Builder) -> &mut RepeatStep {
        match b.program.blocks[0].steps.last_mut() {
            Some(Step::Repeat(step)) => step,
            _ => panic!("the last step is a loop"),
        }
    }
    refuse(&|b| repeat(b).trips = None, "nothing ends the loop");
    refuse(
        &|b| {
            let go = b.constant(Tensor::vector(vec![1u8]));
            (repeat(b).condition, repeat(b).trips) = (Some(go), None);
        },
        "nothing bounds the number of the loop's rows",
    );
    refuse(&|b| repeat(b).trips = Some(d("m")), "not bound here");
    refuse(&|b| repeat(b).trips = Some(&d("n") + &n(1)), "must hold");
    refuse(&|b| repeat(b).rows[0].row = n(999), "must hold");
    refuse(&|b| repeat(b).results.truncate(1), "1 results for 2 buffers");
    refuse(&|b| b.program.blocks[1].params.truncate(2), "takes 1 parameters, expected 2");
    refuse(&|b| b.program.blocks[1].params.clear(), "takes no number");
    refuse(&|b| b.program.blocks[1].yields.truncate(2), "yields 2 buffers, expected 3");
    refuse(
        &|b| {
            let result = repeat(b).results[0];
            b.program.buffers[result.index()].len = &(&d("rows") * &n(WIDTH)) + &n(1);
        },
        "its dims hold",
    );
    refuse(
        &|b| {
            let param = b.program.blocks[1].params[1].expect("it is read");
            b.program.buffers[param.index()].len = n(1);
        },
        "must hold",
    );
    refuse(&|b| b.program.blocks[1].rows = Some(eec_ir::Symbol::new("r9")), "of a loop has no rows");
}
