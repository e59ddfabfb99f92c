//! Epilogues of products and convolutions: bit for bit what a map after them gives.

use eec_ir::program::{BinaryFn, Conv, Epilogue, Expr, ExprId, Form, Loop, MatMul, Per, Scalar, Store, UnaryFn, View};
use eec_ir::{BufferId, DType, Dim, Precision, Tensor};
use eec_runtime::{Control, ErrorKind};

use crate::build::{Builder, d, dense, n, ramp, view};

/// What computes sums: its result's index space with the plane of a convolution's positions as one axis, and the form
/// that writes them to a buffer.
struct Sums {
    name: &'static str,
    space: Vec<Dim>,
    form: Form,
}

/// A form with its result and epilogue.
fn to(form: &Form, result: BufferId, epilogue: Option<Epilogue>) -> Form {
    match form.clone() {
        Form::MatMul(f) => Form::MatMul(MatMul { c: View { buffer: result, ..f.c.clone() }, epilogue, ..f }),
        Form::Conv(f) => Form::Conv(Conv { y: result, epilogue, ..f }),
        other => other,
    }
}

/// Products with and without packed weights, flat and in batches, over several slices of k and strips of
/// columns.
fn products(b: &mut Builder) -> Vec<Sums> {
    let (rows, k, columns) = (d("rows"), n(300), n(150));
    let x = b.input("x", DType::F32, &[n(2), rows.clone(), k.clone()]);
    let (w, bias) = (b.constant(ramp(&[300, 150], 0.01)), b.constant(ramp(&[150], 0.5)));
    let other = b.input("other", DType::F32, &[n(2), k.clone(), columns.clone()]);
    let none = BufferId(0);
    let flat = MatMul {
        batch: vec![],
        m: &n(2) * &rows,
        n: columns.clone(),
        k: k.clone(),
        a: view(x, vec![k.clone(), n(1)]),
        b: view(w, vec![columns.clone(), n(1)]),
        c: view(none, vec![columns.clone(), n(1)]),
        scale: 1.0,
        bias: Some(view(bias, vec![n(1)])),
        epilogue: None,
        weights: Precision::F32,
    };
    let axes = [n(1), n(2), n(1), n(1)];
    let space = |a: &Dim, b: &Dim| axes.iter().chain([a, b]).cloned().collect::<Vec<Dim>>();
    let batched = MatMul {
        batch: axes.to_vec(),
        m: rows.clone(),
        a: view(x, dense(&space(&rows, &k))),
        b: view(w, vec![n(0), n(0), n(0), n(0), columns.clone(), n(1)]),
        c: view(none, dense(&space(&rows, &columns))),
        scale: 0.125,
        bias: None,
        ..flat.clone()
    };
    let unpacked = MatMul { b: view(other, dense(&space(&k, &columns))), ..batched.clone() };
    vec![
        Sums { name: "flat", space: vec![&n(2) * &rows, columns.clone()], form: Form::MatMul(flat) },
        Sums { name: "batched", space: space(&rows, &columns), form: Form::MatMul(batched) },
        Sums { name: "unpacked", space: space(&rows, &columns), form: Form::MatMul(unpacked) },
    ]
}

fn convolutions(b: &mut Builder) -> Vec<Sums> {
    let images = d("rows");
    let x = b.input("image", DType::F32, &[images.clone(), n(6), n(9), n(11)]);
    let bias = b.constant(ramp(&[6], 0.5));
    let mut conv = |name, depth: i64, bias: Option<BufferId>| {
        let w = b.constant(ramp(&[6, depth as usize, 3, 3], 0.05));
        let form = Conv {
            x_dims: [images.clone(), n(6), n(9), n(11)],
            w_dims: [n(6), n(depth), n(3), n(3)],
            y_size: [n(9), n(11)],
            group: 6 / depth,
            strides: [1, 1],
            dilations: [1, 1],
            pads: [1, 1],
            x: view(x, dense(&[images.clone(), n(6), n(9), n(11)])),
            w,
            bias,
            y: BufferId(0),
            epilogue: None,
        };
        Sums { name, space: vec![images.clone(), n(99), n(6)], form: Form::Conv(form) }
    };
    vec![conv("convolution", 6, Some(bias)), conv("groups", 3, None), conv("depthwise", 1, Some(bias))]
}

/// Expressions under construction, over the sum and the operands `each` (per element), `row` and `column`.
#[derive(Default)]
struct Exprs(Vec<Expr>);

impl Exprs {
    fn push(&mut self, e: Expr) -> ExprId {
        self.0.push(e);
        ExprId(self.0.len() as u32 - 1)
    }

    fn sum(&mut self) -> ExprId {
        self.push(Expr::Reduced(0))
    }

    fn constant(&mut self, x: f32) -> ExprId {
        self.push(Expr::Const(Scalar::F32(x)))
    }

    fn load(&mut self, operand: u32) -> ExprId {
        self.push(Expr::Load(operand))
    }

    fn unary(&mut self, f: UnaryFn, a: ExprId) -> ExprId {
        self.push(Expr::Unary(f, a))
    }

    fn binary(&mut self, f: BinaryFn, a: ExprId, b: ExprId) -> ExprId {
        self.push(Expr::Binary(f, a, b))
    }
}

const EACH: u32 = 0;
const ROW: u32 = 1;
const COLUMN: u32 = 2;

type Make = fn(&mut Exprs) -> ExprId;

/// Chains that stay in registers, those that do not, and degenerate ones.
const EPILOGUES: [(&str, Make); 9] = [
    ("residual and limits", |e| {
        let (each, sum) = (e.load(EACH), e.sum());
        let added = e.binary(BinaryFn::Add, each, sum);
        let (low, high) = (e.constant(-3.0), e.constant(6.5));
        let larger = e.binary(BinaryFn::Max, added, low);
        e.binary(BinaryFn::Min, larger, high)
    }),
    ("a value per row, and per column", |e| {
        let (row, column, sum) = (e.load(ROW), e.load(COLUMN), e.sum());
        let added = e.binary(BinaryFn::Add, sum, row);
        e.binary(BinaryFn::Max, added, column)
    }),
    ("limits in the other order", |e| {
        let (low, sum) = (e.constant(0.25), e.sum());
        e.binary(BinaryFn::Max, low, sum)
    }),
    ("four links", |e| {
        let (mut sum, row) = (e.sum(), e.load(ROW));
        for _ in 0..4 {
            sum = e.binary(BinaryFn::Add, sum, row);
        }
        sum
    }),
    ("gelu of the sum times an operand", |e| {
        let (sum, half, one, root) = (e.sum(), e.constant(0.5), e.constant(1.0), e.constant(0.707));
        let inner = e.binary(BinaryFn::Mul, sum, root);
        let erf = e.unary(UnaryFn::Erf, inner);
        let (sum, more) = (e.binary(BinaryFn::Mul, half, sum), e.binary(BinaryFn::Add, one, erf));
        let (gelu, each) = (e.binary(BinaryFn::Mul, sum, more), e.load(EACH));
        e.binary(BinaryFn::Mul, gelu, each)
    }),
    ("every exact function", |e| {
        let (sum, each, row) = (e.sum(), e.load(EACH), e.load(ROW));
        let (size, minus) = (e.unary(UnaryFn::Abs, sum), e.unary(UnaryFn::Neg, row));
        let root = e.unary(UnaryFn::Sqrt, size);
        let ratio = e.binary(BinaryFn::Div, root, each);
        let inverse = e.unary(UnaryFn::Reciprocal, ratio);
        let difference = e.binary(BinaryFn::Sub, inverse, minus);
        e.binary(BinaryFn::Min, root, difference)
    }),
    ("a function at the end", |e| {
        let unused = e.constant(7.0);
        e.unary(UnaryFn::Exp, unused);
        let (sum, column) = (e.sum(), e.load(COLUMN));
        let scaled = e.binary(BinaryFn::Mul, sum, column);
        e.unary(UnaryFn::Tanh, scaled)
    }),
    ("the sum alone", |e| e.sum()),
    ("an operand alone", |e| {
        e.sum();
        e.load(ROW)
    }),
];

/// Operands over `space`: dense, one per row, one per column.
fn operands(buffers: [BufferId; 3], space: &[Dim]) -> Vec<View> {
    let (axes, strides) = (space.len(), dense(space));
    let one = |at: usize| (0..axes).map(|axis| n(i64::from(axis == at))).collect::<Vec<Dim>>();
    let [each, row, column] = buffers;
    vec![view(each, strides), view(row, one(axes - 2)), view(column, one(axes - 1))]
}

/// The map that an epilogue stands for, from the sums to `result`.
fn map(epilogue: &Epilogue, sums: BufferId, result: BufferId, space: &[Dim]) -> Loop {
    let load = Expr::Load(epilogue.operands.len() as u32);
    let exprs = epilogue.exprs.iter().map(|e| if *e == Expr::Reduced(0) { load.clone() } else { e.clone() });
    Loop {
        dims: space.to_vec(),
        inner: vec![],
        inputs: epilogue.operands.iter().cloned().chain([view(sums, dense(space))]).collect(),
        exprs: exprs.collect(),
        reductions: vec![],
        stores: vec![Store { per: Per::Row, view: view(result, dense(space)), value: epilogue.value }],
    }
}

/// Runs every epilogue fused and as a map; `rows` is the size of the symbol.
fn compare(sums: fn(&mut Builder) -> Vec<Sums>, inputs: &[(&str, Tensor)], len: usize) {
    let mut b = Builder::new("epilogues");
    let sums = sums(&mut b);
    let buffers = [len, 2048, 2048].map(|len| b.constant(special(len)));
    for Sums { name, space, form } in &sums {
        for (what, make) in EPILOGUES {
            let mut exprs = Exprs::default();
            let value = make(&mut exprs);
            let epilogue = Epilogue { operands: operands(buffers, space), exprs: exprs.0, value };
            let [fused, plain, mapped] = [0; 3].map(|_| b.temp(DType::F32, Dim::product(space)));
            b.run_kernel(name, to(form, plain, None));
            b.run_kernel(what, map(&epilogue, plain, mapped, space));
            b.run_kernel(name, to(form, fused, Some(epilogue)));
            for (kind, buffer) in [("fused", fused), ("map", mapped)] {
                b.output(&format!("{name}, {what}: {kind}"), buffer, space);
            }
        }
    }
    for threads in [1, 3] {
        let run = b.session(threads).unwrap().run(inputs, Control::Auto).unwrap();
        for pair in run.outputs.chunks_exact(2) {
            assert!(pair[0].1.bytes() == pair[1].1.bytes(), "{} on {threads} threads", pair[0].0);
        }
    }
}

/// Numbers of both signs among which are zeros, a NaN and an infinity.
fn special(len: usize) -> Tensor {
    let value = |i: usize| match i % 101 {
        3 => -0.0,
        17 => f32::NAN,
        29 => f32::INFINITY,
        r => r as f32 * 0.13 - 6.0,
    };
    Tensor::new(&[len], (0..len).map(value).collect::<Vec<f32>>()).unwrap()
}

#[test]
fn an_epilogue_of_a_product_is_the_map_after_it() {
    for rows in [1, 5, 90] {
        let inputs = [("x", ramp(&[2, rows, 300], 0.02)), ("other", ramp(&[2, 300, 150], 0.01))];
        compare(products, &inputs, 2 * rows * 150);
    }
}

#[test]
fn an_epilogue_of_a_convolution_is_the_map_after_it() {
    compare(convolutions, &[("image", ramp(&[3, 6, 9, 11], 0.1))], 3 * 6 * 99);
}

/// A product of 4×3 and 3×5 with the epilogue `change`d from `sum + operand`, refused for what holds `part`.
fn refuse(change: &dyn Fn(&mut Epilogue), part: &str) {
    let mut b = Builder::new("hostile");
    let x = b.input("x", DType::F32, &[n(4), n(3)]);
    let (w, operand) = (b.constant(ramp(&[3, 5], 1.0)), b.constant(ramp(&[20], 1.0)));
    let c = b.temp(DType::F32, n(20));
    let mut exprs = Exprs::default();
    let (sum, load) = (exprs.sum(), exprs.load(0));
    let value = exprs.binary(BinaryFn::Add, sum, load);
    let mut epilogue = Epilogue { operands: vec![view(operand, vec![n(5), n(1)])], exprs: exprs.0, value };
    change(&mut epilogue);
    let form = MatMul {
        batch: vec![],
        m: n(4),
        n: n(5),
        k: n(3),
        a: view(x, vec![n(3), n(1)]),
        b: view(w, vec![n(5), n(1)]),
        c: view(c, vec![n(5), n(1)]),
        scale: 1.0,
        bias: None,
        epilogue: Some(epilogue),
        weights: Precision::F32,
    };
    b.run_kernel("product", Form::MatMul(form));
    b.output("c", c, &[n(20)]);
    let error = b.try_run(&[("x", ramp(&[4, 3], 1.0))], 1).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Program, "{error}");
    assert!(error.to_string().contains(part), "{error} does not say {part:?}");
}

#[test]
fn broken_epilogues_are_refused() {
    refuse(&|e| e.operands[0].offset = n(1), "leaves its 20 elements");
    refuse(&|e| e.operands[0].offset = n(-1), "leaves its 20 elements");
    refuse(&|e| e.operands[0].strides[0] = n(6), "leaves its 20 elements");
    refuse(&|e| e.operands[0].strides[1] = n(2), "must be 0 or 1");
    refuse(&|e| e.operands[0].strides.truncate(1), "1 strides, expected 2");
    refuse(&|e| e.operands[0].buffer = BufferId(3), "which it writes");
    refuse(&|e| e.operands[0].buffer = BufferId(99), "does not exist");
    refuse(&|e| e.operands.clear(), "operand 0 of 0 does not exist");
    refuse(&|e| e.value = ExprId(3), "expression 3 does not exist");
    refuse(&|e| e.exprs.swap(0, 2), "does not come before");
    for outside in [
        Expr::Reduced(1),
        Expr::Index(0),
        Expr::Size(n(1)),
        Expr::Const(Scalar::I64(1)),
        Expr::Cast(DType::I64, ExprId(0)),
        Expr::Unary(UnaryFn::Sin, ExprId(0)),
        Expr::Binary(BinaryFn::Less, ExprId(0), ExprId(0)),
        Expr::Select(ExprId(0), ExprId(0), ExprId(0)),
        Expr::LoadAt { input: 0, at: vec![] },
    ] {
        refuse(&|e| e.exprs[1] = outside.clone(), "has no place in an epilogue");
    }
    refuse(&|e| e.exprs = vec![Expr::Reduced(0); Epilogue::MAX_EXPRS + 1], "more than 1024");
    refuse(&|e| e.operands = vec![e.operands[0].clone(); 65], "65 operands, more than 64");
}

#[test]
fn an_operand_of_a_convolution_stays_inside_its_buffer() {
    for (len, fits) in [(3 * 6 * 99, true), (3 * 6 * 99 - 1, false)] {
        let mut b = Builder::new("operand");
        let sums = convolutions(&mut b).remove(0);
        let (operand, y) = (b.constant(ramp(&[len], 1.0)), b.temp(DType::F32, Dim::product(&sums.space)));
        let operands = vec![view(operand, dense(&sums.space))];
        let epilogue = Epilogue { operands, exprs: vec![Expr::Load(0)], value: ExprId(0) };
        b.run_kernel("conv", to(&sums.form, y, Some(epilogue)));
        b.output("y", y, &sums.space);
        assert_eq!(b.try_run(&[("image", ramp(&[3, 6, 9, 11], 1.0))], 1).is_ok(), fits);
    }
}
