//! Sizes that a model computes in floats, as exporters write `floor(size · factor)`: products and quotients of sizes with
//! constants, rounded and converted back to integers, are sizes again, where float32 makes the same of them as fractions.

use eec_ir::{DType, Dim, Op, Tensor, ValueId};

use super::node::Cx;

/// Floats are followed through so many operators.
const MAX_DEPTH: usize = 16;

/// Sizes up to this are tried before fractions stand for float32.
const TRIED: i64 = 1 << 16;

/// What float32 does to a number that is not negative; factors are not, and are finite.
#[derive(Clone, Copy, Debug)]
pub(super) enum Step {
    Times(f32),
    Over(f32),
    Floor,
    Ceil,
}

impl Step {
    fn of(self, number: f32) -> f32 {
        match self {
            Step::Times(factor) => number * factor,
            Step::Over(divisor) => number / divisor,
            Step::Floor => number.floor(),
            Step::Ceil => number.ceil(),
        }
    }
}

/// A size after these steps, rounded down, as float32 has it; `None` if that is no exact size.
pub(super) fn after(size: &Dim, steps: &[Step]) -> Option<Dim> {
    if let Some(known) = size.as_const() {
        return in_float32(known, steps).map(Dim::from);
    }
    let each = Dim::symbol("n");
    let of_each = in_fractions(&each, steps)?;
    let same = |n: i64| of_each.eval(&|_| Some(n)).is_some_and(|found| in_float32(n, steps) == Some(found));
    if (0..=TRIED).all(same) { in_fractions(size, steps) } else { None }
}

fn in_float32(size: i64, steps: &[Step]) -> Option<i64> {
    let result = steps.iter().fold(size as f32, |number, step| step.of(number));
    (0.0..Dim::LIMIT as f32).contains(&result).then_some(result as i64)
}

/// The same, if the factors were the fractions that they are written for.
fn in_fractions(size: &Dim, steps: &[Step]) -> Option<Dim> {
    let (mut size, mut over) = (size.clone(), 1i64);
    for step in steps {
        let (by, under) = match *step {
            Step::Times(factor) => ratio(factor)?,
            Step::Over(divisor) => ratio(divisor).map(|(by, over)| (over, by))?,
            Step::Floor => {
                (size, over) = (size.floor_div(&over.into())?, 1);
                continue;
            }
            Step::Ceil => {
                (size, over) = (size.ceil_div(over)?, 1);
                continue;
            }
        };
        size = &size * &by.into();
        over = over.checked_mul(under).filter(|over| *over < Dim::LIMIT)?;
    }
    size.floor_div(&over.into())
}

/// The first convergent of its continued fraction that a positive number is in float32.
pub(super) fn ratio(number: f32) -> Option<(i64, i64)> {
    let (mut rest, mut last, mut this) = (f64::from(number), (0, 1), (1, 0));
    for _ in 0..32 {
        let whole = rest.floor();
        if !(0.0..=LARGEST_RATIO as f64).contains(&whole) {
            return None;
        }
        let whole = whole as i64;
        let next = (whole * this.0 + last.0, whole * this.1 + last.1);
        if next.0.max(next.1) > LARGEST_RATIO {
            return None;
        }
        if next.0 > 0 && (next.0 as f64 / next.1 as f64) as f32 == number {
            return Some(next);
        }
        (last, this, rest) = (this, next, 1.0 / (rest - whole as f64));
    }
    None
}

/// Numerators and denominators beyond this stand for no factor.
const LARGEST_RATIO: i64 = 1 << 24;

/// A float: a size after some steps.
#[derive(Clone)]
struct Share {
    size: Dim,
    steps: Vec<Step>,
}

impl Share {
    fn of(size: Dim) -> Share {
        Share { size, steps: Vec::new() }
    }

    fn then(mut self, step: Step) -> Share {
        self.steps.push(step);
        self
    }
}

/// The elements of a float value rounded towards zero, where they are made of sizes that are not negative.
pub(super) fn truncated(cx: &Cx, value: ValueId) -> Option<Vec<Dim>> {
    cx.few(value).filter(|count| *count > 0)?;
    let shares = shares(cx, value, MAX_DEPTH)?;
    // Of constants alone, the model's own arithmetic is what it is.
    let open = shares.iter().any(|share| share.size.as_const().is_none());
    let whole = |share: &Share| after(&share.size, &share.steps).filter(|_| share.size.is_at_least(0));
    if open { shares.iter().map(whole).collect() } else { None }
}

fn shares(cx: &Cx, value: ValueId, depth: usize) -> Option<Vec<Share>> {
    if let Some(sizes) = cx.contents(value) {
        return Some(sizes.iter().cloned().map(Share::of).collect());
    }
    if let Some(tensor) = cx.constant_of(value) {
        return Some(
            factors(tensor)?.into_iter().map(|factor| Share::of(1.into()).then(Step::Times(factor))).collect(),
        );
    }
    let node = cx.graph().node(cx.graph().def_node(value)?);
    let depth = depth.checked_sub(1)?;
    let operand = |i: usize| shares(cx, node.inputs[i], depth);
    let constant = |i: usize| factors(cx.constant_of(node.inputs[i])?);
    let count = cx.few(value)?;
    if let Op::Cast { to } = node.op {
        return if keeps(cx.ty(node.inputs[0]).dtype, to) { operand(0) } else { None };
    }
    if let Op::Reshape { .. } = node.op {
        return operand(0);
    }
    if let Op::Concat { .. } = node.op {
        let parts = node.inputs.iter().filter(|part| cx.few(**part) != Some(0));
        let parts = parts.map(|part| shares(cx, *part, depth)).collect::<Option<Vec<_>>>()?;
        return (cx.rank(value) == 1).then(|| parts.concat());
    }
    if node.op == (Op::Mul {}) {
        return match constant(1) {
            Some(factors) => each(operand(0)?, factors, Step::Times, count),
            None => each(operand(1)?, constant(0)?, Step::Times, count),
        };
    }
    if node.op == (Op::Div {}) {
        return each(operand(0)?, constant(1)?, Step::Over, count);
    }
    let step = match node.op {
        Op::Floor {} => Step::Floor,
        Op::Ceil {} => Step::Ceil,
        _ => return None,
    };
    Some(operand(0)?.into_iter().map(|share| share.then(step)).collect())
}

/// Whether a conversion changes neither sizes nor what float32 makes of them: with factors of float32 alone, all numbers
/// of f64 are numbers of float32.
fn keeps(from: DType, to: DType) -> bool {
    let whole = |dtype| matches!(dtype, DType::I32 | DType::I64);
    let float = |dtype| matches!(dtype, DType::F32 | DType::F64);
    whole(from) && (whole(to) || float(to)) || float(from) && float(to)
}

/// A constant's elements, if they are factors.
fn factors(tensor: &Tensor) -> Option<Vec<f32>> {
    let all = tensor.elements::<f32>()?.into_owned();
    all.iter().all(|factor| factor.is_finite() && *factor >= 0.0).then_some(all)
}

/// `count` results, of which either all have one factor or one share has all, or each its own.
fn each(shares: Vec<Share>, factors: Vec<f32>, step: fn(f32) -> Step, count: usize) -> Option<Vec<Share>> {
    let made: Vec<Share> = match (shares.as_slice(), factors.as_slice()) {
        (all, [one]) => all.iter().map(|share| share.clone().then(step(*one))).collect(),
        ([one], all) => all.iter().map(|factor| one.clone().then(step(*factor))).collect(),
        (all, each) => all.iter().zip(each).map(|(share, factor)| share.clone().then(step(*factor))).collect(),
    };
    // Of `[2] · [2, 1]` there are more.
    (made.len() == count && count == shares.len().max(factors.len())).then_some(made)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The scales 0.01 to 4.00.
    fn scales() -> impl Iterator<Item = f32> {
        (1..=400).map(|percent| (f64::from(percent) / 100.0) as f32)
    }

    /// How many of the sizes that these scales make are exact, after a check of each.
    fn exact(
        scales: impl Iterator<Item = f32>,
        steps: impl Fn(f32) -> Vec<Step>,
        expected: impl Fn(f32, f32) -> f32,
    ) -> usize {
        let size = Dim::symbol("h");
        let check = |scale: f32| {
            let Some(found) = after(&size, &steps(scale)) else { return 0 };
            for n in 0..2048 {
                assert_eq!(found.eval(&|_| Some(n)), Some(expected(n as f32, scale) as i64), "{n} by {scale}");
            }
            1
        };
        scales.map(check).sum()
    }

    #[test]
    fn factors_become_the_fractions_that_they_are_written_for() {
        assert_eq!(ratio(2.0), Some((2, 1)));
        assert_eq!(ratio(0.7), Some((7, 10)));
        assert_eq!(ratio(1.0 / 3.0), Some((1, 3)));
        assert_eq!(ratio(1.333), Some((1333, 1000)));
        assert_eq!(ratio(0.0), None);
        assert_eq!(ratio(f32::NAN), None);
        assert_eq!(ratio(1e20), None);
    }

    #[test]
    fn exact_sizes_are_what_float32_makes_of_every_size() {
        let some = || scales().step_by(7);
        let times = exact(scales(), |s| vec![Step::Times(s)], |n, s| (n * s).floor());
        let above = exact(some(), |s| vec![Step::Times(s), Step::Ceil], |n, s| (n * s).ceil());
        let over = exact(some(), |s| vec![Step::Over(s), Step::Floor], |n, s| (n / s).floor());
        let twice = exact(some(), |s| vec![Step::Times(s), Step::Times(10.0)], |n, s| n * s * 10.0);
        assert!(times > 300 && above > 40 && over > 40 && twice > 15, "{:?}", [times, above, over, twice]);
    }

    #[test]
    fn what_float32_rounds_across_a_whole_number_is_no_exact_size() {
        let h = Dim::symbol("h");
        assert_eq!(after(&h, &[Step::Times(2.1)]), None);
        assert_eq!(after(&h, &[Step::Times(3.12)]), None);
        assert_eq!(after(&h, &[Step::Times(0.6), Step::Ceil]), None);
        assert_eq!(after(&h, &[Step::Over(0.3), Step::Floor]), None);
        assert_eq!(after(&h, &[Step::Times(0.9), Step::Times(10.0)]), None);
        assert_eq!(after(&30.into(), &[Step::Times(2.1)]), Some(62.into()));
        assert_eq!(after(&h, &[Step::Times(1.5)]), (&h * &3.into()).floor_div(&2.into()));
    }
}
