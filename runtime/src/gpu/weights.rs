//! Constants as kernels read them: weights are rounded on their way to the device.

use eec_ir::program::{Form, MatMul, Program, Source};
use eec_ir::{Precision, Tensor};

/// The constant of this number with its elements rounded, if products by 8-bit integers or 16-bit floats read it.
///
/// Fails if rounding changes it though something else reads it too, or if the products do not read it as one dense
/// matrix.
pub(super) fn rounded(program: &Program, constant: u32, tensor: Tensor) -> Result<Tensor, String> {
    let is_read = |id| program.buffer(id).source == Source::Constant(constant);
    let readers = program.kernels.iter().filter(|k| k.form.reads().into_iter().any(is_read));
    let narrow = |form: &Form| match form {
        Form::MatMul(m) if is_read(m.b.buffer) => Some(m.weights).filter(|w| rounds(*w)),
        _ => None,
    };
    let forms: Vec<&Form> = readers.map(|k| &k.form).collect();
    let Some(precision) = forms.iter().find_map(|form| narrow(form)) else { return Ok(tensor) };
    let layout = |form: &&Form| match form {
        Form::MatMul(product) if narrow(form) == Some(precision) => dense(product, tensor.len()),
        _ => None,
    };
    let layouts: Vec<Option<(usize, bool)>> = forms.iter().map(layout).collect();
    let (columns, transposed) = layouts
        .iter()
        .flatten()
        .next()
        .copied()
        .ok_or_else(|| format!("its {precision} weights are not read as one matrix"))?;
    let values = tensor.elements::<f32>().ok_or_else(|| format!("its {precision} weights are no floats"))?;
    let mut rounded = values.to_vec();
    precision.round(&mut rounded, columns, transposed);
    let alike = layouts.iter().all(|l| *l == Some((columns, transposed)));
    let changed = || rounded.iter().zip(values.iter()).any(|(a, b)| a.to_bits() != b.to_bits());
    if !alike && changed() {
        return Err(format!("its {precision} weights are read in several ways"));
    }
    Tensor::new(tensor.dims(), rounded).map_err(|e| e.to_string())
}

/// Whether weights are rounded here: products by bfloat16 round both of their operands.
fn rounds(weights: Precision) -> bool {
    match weights {
        Precision::Int8 | Precision::F16 => true,
        Precision::F32 | Precision::Bf16 => false,
    }
}

/// The columns of the stored matrix, and whether products sum over them.
fn dense(product: &MatMul, len: usize) -> Option<(usize, bool)> {
    let number = |d: &eec_ir::Dim| d.as_const().and_then(|n| usize::try_from(n).ok());
    let (k, n) = (number(&product.k)?, number(&product.n)?);
    let (batch, matrix) = product.b.strides.split_at_checked(product.batch.len())?;
    let whole = number(&product.b.offset) == Some(0) && batch.iter().all(|s| number(s) == Some(0));
    let [row, column] = matrix else { return None };
    match (number(row)?, number(column)?) {
        _ if !whole || k.checked_mul(n) != Some(len) => None,
        (row, 1) if row == n || k == 1 => Some((n, false)),
        (1, column) if column == k || n == 1 => Some((k, true)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use eec_ir::program::View;
    use eec_ir::{BufferId, Dim};

    use super::*;

    #[test]
    fn a_matrix_is_dense_as_it_is_and_transposed() {
        let product = |strides: [i64; 2]| MatMul {
            batch: vec![],
            m: Dim::symbol("m"),
            n: 3.into(),
            k: 2.into(),
            a: View { buffer: BufferId(0), offset: 0.into(), strides: vec![2.into(), 1.into()] },
            b: View { buffer: BufferId(1), offset: 0.into(), strides: strides.map(Dim::from).to_vec() },
            weights: Precision::Int8,
            c: View { buffer: BufferId(2), offset: 0.into(), strides: vec![3.into(), 1.into()] },
            scale: 1.0,
            bias: None,
            epilogue: None,
        };
        assert_eq!(dense(&product([3, 1]), 6), Some((3, false)));
        assert_eq!(dense(&product([1, 2]), 6), Some((2, true)));
        assert_eq!(dense(&product([4, 1]), 8), None);
        assert_eq!(dense(&product([3, 1]), 7), None);
    }
}
