//! Inputs and constants from seeds, so that a case needs no files.

use eec_ir::bind::Sizes;
use eec_ir::minifloat::Overflow;
use eec_ir::text::ConstRef;
use eec_ir::{DType, Graph, Tensor};

use super::CaseError;
use crate::fit::random::Random;

/// Seeded inputs of a graph at these sizes: floats between -1 and 1, integers from 0 to 3.
pub fn seeded_inputs(graph: &Graph, sizes: &Sizes) -> Result<Vec<Tensor>, CaseError> {
    let inputs = graph.inputs().iter().enumerate().map(|(i, value)| {
        let ty = graph.ty(*value);
        let size = |d: &eec_ir::Dim| d.eval(&|s| sizes.get(s).copied()).and_then(|n| usize::try_from(n).ok());
        let dims: Option<Vec<usize>> = ty.dims.iter().map(size).collect();
        let dims = dims.ok_or_else(|| CaseError::Header(format!("dims: the input type {ty} has no size")))?;
        Ok(seeded(ty.dtype, &dims, i as u64))
    });
    inputs.collect()
}

/// The constant that a case names by a hash: equal digits, type and dims give equal elements.
pub fn seeded_constant(constant: &ConstRef) -> Tensor {
    let seed = constant.hash.bytes().fold(0u64, |seed, b| seed.wrapping_mul(31).wrapping_add(u64::from(b)));
    seeded(constant.dtype, &constant.dims, seed)
}

/// A tensor with elements from a seed: floats of mean 0 whose products with others of their kind
/// keep their size, integers from 0 to 3.
fn seeded(dtype: DType, dims: &[usize], seed: u64) -> Tensor {
    let mut random = Random::new(seed);
    let len: usize = dims.iter().product();
    let fan_in = if dims.len() < 2 { 1 } else { len / dims.iter().max().copied().unwrap_or(1).max(1) };
    // Uniform with variance 1/fan-in; no function whose last bit differs between machines.
    let scale = (3.0 / fan_in.max(1) as f64).sqrt();
    let mut ints = || (0..len).map(|_| (random.bits() >> 62) as i64).collect::<Vec<_>>();
    let tensor = match dtype {
        DType::I64 => Tensor::new(dims, ints()),
        DType::I32 => Tensor::new(dims, ints().into_iter().map(|i| i as i32).collect()),
        DType::Bool => Tensor::new(dims, ints().into_iter().map(|i| u8::from(i > 1)).collect()),
        DType::F32 => Tensor::new(dims, (0..len).map(|_| ((2.0 * random.uniform() - 1.0) * scale) as f32).collect()),
        other if other.is_int() => {
            let (_, largest) = other.integer_range().unwrap_or_default();
            let data: Vec<i128> = ints().into_iter().map(|i| i128::from(i).min(largest)).collect();
            Tensor::from_integers(other, dims, &data)
        }
        other => {
            let data: Vec<f64> = (0..len).map(|_| (2.0 * random.uniform() - 1.0) * scale).collect();
            Tensor::from_f64s(other, dims, &data, Overflow::Saturate)
        }
    };
    // There are as many elements as the dims ask for.
    tensor.unwrap_or_else(|_| Tensor::vector(Vec::<f32>::new()))
}
