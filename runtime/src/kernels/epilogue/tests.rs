//! Passes against scalars, and a chain that is computed in both ways.

use super::*;

/// A residual and two limits as links, and as steps.
pub(crate) fn chain() -> [Steps; 2] {
    forms(&[(Join::Add, Place::Operand(0)), (Join::Max, Place::Const(-0.25)), (Join::Min, Place::Operand(1))])
}

/// The same for a limit of each row or column, and then a range.
pub(crate) fn clipped([lo, hi]: [f32; 2]) -> [Steps; 2] {
    forms(&[(Join::Min, Place::Operand(1)), (Join::Max, Place::Const(lo)), (Join::Min, Place::Const(hi))])
}

/// Joins of two operands as links, and as steps.
pub(crate) fn forms(joins: &[(Join, Place)]) -> [Steps; 2] {
    let last = joins.len() - 1;
    let mut sum = Place::Sum;
    let mut steps = Vec::new();
    for (i, (join, other)) in joins.iter().enumerate() {
        let operation = match join {
            Join::Add => Operation::Add,
            Join::Max => Operation::Max,
            Join::Min => Operation::Min,
        };
        steps.push(Step { make: Make::Pass(operation), operands: [sum, *other], to: (i < last).then_some(i) });
        sum = Place::Slot(i);
    }
    let steps = Steps { steps, slots: last, operands: 2, links: None };
    [Steps { links: Some(joins.to_vec()), ..steps.clone() }, steps]
}

/// What an operation is.
fn scalar(operation: Operation, a: f32, b: f32) -> f32 {
    match operation {
        Operation::Copy => a,
        Operation::Neg => -a,
        Operation::Abs => a.abs(),
        Operation::Sqrt => a.sqrt(),
        Operation::Reciprocal => 1.0 / a,
        Operation::Add => a + b,
        Operation::Sub => a - b,
        Operation::Mul => a * b,
        Operation::Div => a / b,
        Operation::Max => {
            if a > b || a.is_nan() {
                a
            } else {
                b
            }
        }
        Operation::Min => {
            if a < b || a.is_nan() {
                a
            } else {
                b
            }
        }
    }
}

const ALL: [Operation; 11] = [
    Operation::Copy,
    Operation::Neg,
    Operation::Abs,
    Operation::Sqrt,
    Operation::Reciprocal,
    Operation::Add,
    Operation::Sub,
    Operation::Mul,
    Operation::Div,
    Operation::Max,
    Operation::Min,
];

/// Numbers of both signs among which are zeros, a NaN and an infinity.
fn values(len: usize, seed: usize) -> Vec<f32> {
    let special = [0.0, -0.0, f32::NAN, f32::INFINITY, 1.5];
    let value = |i: usize| match (i * 7 + seed) % 23 {
        r if r < special.len() => special[r],
        r => r as f32 * 0.3 - 4.0,
    };
    (0..len).map(value).collect()
}

#[test]
fn passes_are_scalars_at_every_place() {
    const ROWS: usize = 3;
    const ROW: usize = 70;
    let (x, y) = (values(ROWS * ROW, 1), values(ROWS * ROW, 5));
    for isa in Isa::available() {
        for operation in ALL {
            for (columns, [p, q]) in [(1, [1, 1]), (15, [1, 0]), (16, [0, 1]), (33, [0, 0]), (64, [1, 1]), (70, [1, 0])]
            {
                let matrix = |v: &[f32], column| Strided { ptr: v.as_ptr(), row: ROW as isize, column };
                let mut z = vec![7.0; ROWS * ROW];
                let (to, to_row) = (z.as_mut_ptr(), ROW as isize);
                let (a, b) = (matrix(&x, p), matrix(&y, q));
                // SAFETY: all rows are inside their vectors, and the set is one that this CPU has.
                unsafe { (isa.pass)(&Pass { operation, rows: ROWS, columns, a, b, to, to_row }) };
                for (i, found) in z.iter().enumerate() {
                    let (row, column) = (i / ROW * ROW, i % ROW);
                    let want = match column < columns {
                        true => scalar(operation, x[row + column * p as usize], y[row + column * q as usize]),
                        false => 7.0,
                    };
                    let same = found.to_bits() == want.to_bits() || (found.is_nan() && want.is_nan());
                    assert!(same, "{operation:?} with {}: element {i} is {found}, not {want}", isa.name);
                }
            }
        }
    }
}
