//! Elementary functions against 64-bit ones, in vectors and one by one.

use eec_ir::program::{BinaryFn, Expr, Per, UnaryFn};
use eec_ir::{DType, Tensor};

use crate::build::{Builder, LoopBuilder, d, floats, n, view};

pub(crate) fn unary(function: UnaryFn) -> Builder {
    let mut b = Builder::new("function");
    let x = b.input("x", DType::F32, &[d("n")]);
    let y = b.temp(DType::F32, d("n"));
    let mut l = LoopBuilder::new(&[d("n")]);
    let x = l.load(view(x, vec![n(1)]));
    let value = l.expr(Expr::Unary(function, x));
    l.store(Per::Element, view(y, vec![n(1)]), value);
    b.run_kernel("f", l.0);
    b.output("y", y, &[d("n")]);
    b
}

/// erf by its series and its continued fraction.
fn erf(x: f64) -> f64 {
    let a = x.abs();
    if a > 6.0 {
        return 1f64.copysign(x);
    }
    if a < 2.5 {
        let (mut sum, mut term) = (x, x);
        for i in 1..200 {
            term *= -x * x / f64::from(i);
            sum += term / f64::from(2 * i + 1);
        }
        return sum * std::f64::consts::FRAC_2_SQRT_PI;
    }
    let fraction = (1..200).rev().fold(0.0, |f, i| f64::from(i) / 2.0 / (a + f));
    (1.0 - (-a * a).exp() / std::f64::consts::PI.sqrt() / (a + fraction)).copysign(x)
}

/// How far `found` is from the exact value, relative to it.
fn relative(found: f32, exact: f64) -> f64 {
    let nearest = exact as f32;
    if found == nearest || (found.is_nan() && nearest.is_nan()) {
        return 0.0;
    }
    if found.is_finite() && nearest.is_finite() { ((f64::from(found) - exact) / exact).abs() } else { f64::INFINITY }
}

const EDGES: [f32; 22] = [
    0.0,
    -0.0,
    1.0,
    -1.0,
    f32::INFINITY,
    f32::NEG_INFINITY,
    f32::NAN,
    f32::MAX,
    f32::MIN,
    f32::MIN_POSITIVE,
    -f32::MIN_POSITIVE,
    1e-45,
    -1e-45,
    88.722_84,
    88.8,
    -87.4,
    -103.0,
    -103.9,
    -104.5,
    1e-20,
    -1e-20,
    0.9,
];

/// Every edge, values spread evenly over `-limit..limit`, and values spread over all exponents.
fn arguments(limit: f32) -> Vec<f32> {
    let even = (0..40_000).map(|i| (i as f32 / 20_000.0 - 1.0) * limit);
    let bits = (0..60_000u32).map(|i| f32::from_bits(i.wrapping_mul(71_583)));
    EDGES.into_iter().chain(even).chain(bits).collect()
}

/// The largest relative error where the exact value is a normal number, on arguments up to `domain`.
fn worst(function: UnaryFn, limit: f32, domain: f32, exact: impl Fn(f64) -> f64) -> f64 {
    let b = unary(function);
    let xs = arguments(limit);
    let ys = floats(&b.run(&[("x", Tensor::vector(xs.clone()))]).outputs[0].1);
    let mut worst = (0.0, 0.0);
    for (x, y) in xs.iter().zip(&ys) {
        let expected = exact(f64::from(*x));
        if (x.abs() <= domain || !x.is_finite()) && !(expected != 0.0 && expected.abs() < f64::from(f32::MIN_POSITIVE))
        {
            let error = relative(*y, expected);
            if error > worst.0 {
                worst = (error, *x);
            }
        }
    }
    println!("{function:?}: {:.2e} at {:e}", worst.0, worst.1);
    // The same value one by one and at every position of a vector.
    for shift in 1..4 {
        let part = floats(&b.run(&[("x", Tensor::vector(xs[shift..shift + 33].to_vec()))]).outputs[0].1);
        let same = part.iter().zip(&ys[shift..]).all(|(a, b)| a.to_bits() == b.to_bits());
        assert!(same, "{function:?} depends on the position");
    }
    worst.0
}

#[test]
fn exponential_family() {
    assert!(worst(UnaryFn::Exp, 104.0, f32::MAX, f64::exp) < 1.2e-7);
    assert!(worst(UnaryFn::Log, 10.0, f32::MAX, f64::ln) < 1.2e-7);
    assert!(worst(UnaryFn::Tanh, 10.0, f32::MAX, f64::tanh) < 2e-7);
    assert!(worst(UnaryFn::Sigmoid, 80.0, f32::MAX, |x| 1.0 / (1.0 + (-x).exp())) < 2e-7);
    assert!(worst(UnaryFn::Erf, 4.5, f32::MAX, erf) < 2e-7);
}

#[test]
fn sine_and_cosine() {
    for (function, exact) in [(UnaryFn::Sin, f64::sin as fn(f64) -> f64), (UnaryFn::Cos, f64::cos)] {
        let b = unary(function);
        let xs = arguments(5000.0);
        let ys = floats(&b.run(&[("x", Tensor::vector(xs.clone()))]).outputs[0].1);
        let error = |(x, y): (&f32, &f32)| {
            if x.is_finite() { (f64::from(*y) - exact(f64::from(*x))).abs() } else { f64::from(u8::from(!y.is_nan())) }
        };
        let worst = xs.iter().zip(&ys).map(error).fold(0.0, f64::max);
        println!("{function:?}: absolute {worst:.2e}");
        assert!(worst < 1.5e-7);
        assert_eq!(floats(&b.run(&[("x", Tensor::vector(vec![0.0f32]))]).outputs[0].1)[0], exact(0.0) as f32);
    }
}

#[test]
fn roots_and_reciprocals_are_exact() {
    let half = 2f64.powi(-24);
    assert!(worst(UnaryFn::Sqrt, 100.0, f32::MAX, f64::sqrt) <= half);
    assert!(worst(UnaryFn::Reciprocal, 100.0, f32::MAX, |x| 1.0 / x) <= half);
    assert_eq!(worst(UnaryFn::Abs, 100.0, f32::MAX, f64::abs), 0.0);
    assert_eq!(worst(UnaryFn::Neg, 100.0, f32::MAX, |x| -x), 0.0);
}

#[test]
fn small_results_round_to_subnormals() {
    let xs = vec![-88.0f32, -90.5, -100.0, -103.0, -104.0, f32::MIN, f32::NEG_INFINITY];
    let ys = floats(&unary(UnaryFn::Exp).run(&[("x", Tensor::vector(xs.clone()))]).outputs[0].1);
    for (x, y) in xs.iter().zip(ys) {
        let exact = f64::from(*x).exp();
        assert!((f64::from(y) - exact).abs() <= 1.5e-45, "exp({x}): expected {exact:e}, found {y:e}");
    }
}

/// A function of the elements of `x` and `y`.
pub(crate) fn pair(function: BinaryFn) -> Builder {
    let mut b = Builder::new("binary");
    let (bx, by) = (b.input("x", DType::F32, &[d("n")]), b.input("y", DType::F32, &[d("n")]));
    let out = b.temp(DType::F32, d("n"));
    let mut l = LoopBuilder::new(&[d("n")]);
    let (lx, ly) = (l.load(view(bx, vec![n(1)])), l.load(view(by, vec![n(1)])));
    let value = l.expr(Expr::Binary(function, lx, ly));
    l.store(Per::Element, view(out, vec![n(1)]), value);
    b.run_kernel("f", l.0);
    b.output("out", out, &[d("n")]);
    b
}

fn binary(function: BinaryFn, x: &[f32], y: &[f32]) -> Vec<f32> {
    let inputs = [("x", Tensor::vector(x.to_vec())), ("y", Tensor::vector(y.to_vec()))];
    floats(&pair(function).run(&inputs).outputs[0].1)
}

#[test]
fn powers_and_extremes() {
    let x = [2.0, -2.0, 0.0, 9.0, f32::NAN, 1.0, f32::NAN, 3.0, -1.5];
    let y = [10.0, 3.0, 0.0, 0.5, 0.0, f32::NAN, 1.0, f32::NAN, -2.0];
    let bits = |v: Vec<f32>| v.iter().map(|v| if v.is_nan() { None } else { Some(v.to_bits()) }).collect::<Vec<_>>();
    let powers = x.iter().zip(y).map(|(x, y)| x.powf(y)).collect();
    assert_eq!(bits(binary(BinaryFn::Pow, &x, &y)), bits(powers));
    let either = |f: fn(f32, f32) -> f32| {
        x.iter().zip(y).map(|(x, y)| if x.is_nan() || y.is_nan() { f32::NAN } else { f(*x, y) }).collect()
    };
    assert_eq!(bits(binary(BinaryFn::Max, &x, &y)), bits(either(f32::max)));
    assert_eq!(bits(binary(BinaryFn::Min, &x, &y)), bits(either(f32::min)));
}
