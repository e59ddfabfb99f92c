//! Comparing outputs, and the rows of outputs.

use eec_ir::{Graph, Tensor};

use crate::compare::{Tolerance, compare};

/// Checks that `have` is `want` within this absolute and relative difference; 0 asks for equal bits.
pub fn check(name: &str, have: &Tensor, want: &Tensor, tolerance: f32) -> Result<(), String> {
    if tolerance == 0.0 && have == want {
        return Ok(());
    }
    let difference = compare(have, want, Tolerance { atol: tolerance, rtol: tolerance });
    match difference.within && (tolerance > 0.0 || same_values(have, want)) {
        true => Ok(()),
        false => Err(format!("{name}: {}", difference.detail)),
    }
}

/// Equal bits, but for the sign and payload of NaN, which IEEE 754 leaves open.
fn same_values(a: &Tensor, b: &Tensor) -> bool {
    let (Some(x), Some(y)) = (a.elements::<f32>(), b.elements::<f32>()) else { return a == b };
    a.dims() == b.dims()
        && x.iter().zip(y.iter()).all(|(x, y)| x.to_bits() == y.to_bits() || (x.is_nan() && y.is_nan()))
}

/// Checks all outputs of a graph.
pub fn check_all(graph: &Graph, have: &[Tensor], want: &[Tensor], tolerance: f32) -> Result<(), String> {
    if have.len() != want.len() {
        return Err(format!("{} outputs, expected {}", have.len(), want.len()));
    }
    let named = graph.output_names().iter().zip(have).zip(want);
    let bad: Vec<String> = named.filter_map(|((n, h), w)| check(n, h, w, tolerance).err()).collect();
    if bad.is_empty() { Ok(()) } else { Err(bad.join("; ")) }
}

/// An output by its name.
pub fn output<'t>(graph: &Graph, outputs: &'t [Tensor], name: &str) -> Option<&'t Tensor> {
    graph.output_names().iter().position(|n| &**n == name).and_then(|at| outputs.get(at))
}

/// Row `r` of axis 0, as a batch of one.
pub fn row(tensor: &Tensor, r: usize) -> Tensor {
    tensor.rows(r, r + 1)
}
