//! Comparing tensors within tolerances.

use eec_ir::Tensor;

/// `|have - want| ≤ atol + rtol·|want|`.
#[derive(Clone, Copy, Debug)]
pub struct Tolerance {
    /// Absolute.
    pub atol: f32,
    /// Relative to the expected value.
    pub rtol: f32,
}

/// How two tensors differ.
#[derive(Clone, PartialEq, Debug)]
pub struct Difference {
    /// Whether every element is within the tolerance; integers and booleans must be equal.
    pub within: bool,
    /// The largest absolute difference.
    pub max_abs: f64,
    /// For people.
    pub detail: String,
}

/// Compares `have` with `want`. Equal infinities and NaNs at the same place are equal.
pub fn compare(have: &Tensor, want: &Tensor, tolerance: Tolerance) -> Difference {
    if have.ty() != want.ty() {
        let detail = format!("expected {}, found {}", want.ty(), have.ty());
        return Difference { within: false, max_abs: f64::INFINITY, detail };
    }
    let (a, b) = (have.to_f64s(), want.to_f64s());
    let exact = !have.dtype().is_float();
    let (mut max_abs, mut outside, mut first) = (0f64, 0usize, None);
    for (i, (x, y)) in a.iter().zip(&b).enumerate() {
        if x == y || (x.is_nan() && y.is_nan()) {
            continue;
        }
        let difference = (x - y).abs();
        let limit = if exact { 0.0 } else { f64::from(tolerance.atol) + f64::from(tolerance.rtol) * y.abs() };
        max_abs = if difference.is_nan() { f64::INFINITY } else { max_abs.max(difference) };
        // An infinity is within no tolerance of anything else; its limit is infinite or NaN.
        let within = limit.is_finite() && difference <= limit;
        if !within {
            outside += 1;
            first = first.or(Some((i, *x, *y)));
        }
    }
    let detail = match first {
        None => format!("largest difference {max_abs:.2e}"),
        Some((i, x, y)) => format!("{outside} of {} outside, first at {i}: expected {y}, found {x}", a.len()),
    };
    Difference { within: outside == 0, max_abs, detail }
}

#[cfg(test)]
mod tests {
    use super::*;

    const T: Tolerance = Tolerance { atol: 0.1, rtol: 0.0 };

    #[test]
    fn floats_within_tolerance_are_equal_and_nan_only_to_nan() {
        let want = Tensor::vector(vec![1.0f32, f32::NAN, f32::INFINITY]);
        assert!(compare(&Tensor::vector(vec![1.05f32, f32::NAN, f32::INFINITY]), &want, T).within);
        assert!(!compare(&Tensor::vector(vec![1.2f32, f32::NAN, f32::INFINITY]), &want, T).within);
        assert!(!compare(&Tensor::vector(vec![1.0f32, 0.0, f32::INFINITY]), &want, T).within);
        assert!(!compare(&Tensor::vector(vec![1.0f32, f32::NAN, 1e30]), &want, T).within);
    }

    #[test]
    fn integers_and_types_must_be_equal() {
        let want = Tensor::vector(vec![1i64, 2]);
        assert!(compare(&Tensor::vector(vec![1i64, 2]), &want, T).within);
        assert!(!compare(&Tensor::vector(vec![1i64, 3]), &want, T).within);
        assert!(!compare(&Tensor::vector(vec![1i32, 2]), &want, T).within);
        assert!(!compare(&Tensor::vector(vec![1i64]), &want, T).within);
    }
}
