//! tract, optimised for the shapes of the inputs.

use std::error::Error;
use std::path::Path;
use std::sync::Arc;

use eec_ir::{DType, Tensor};
use tract_linalg::multithread::{Executor, multithread_tract_scope};
use tract_onnx::prelude::*;

use super::Engine;

/// A model with its inputs.
pub struct Tract {
    model: Arc<TypedRunnableModel>,
    inputs: TVec<TValue>,
    executor: Executor,
}

impl Tract {
    /// Loads an ONNX file.
    pub fn load(path: &Path, inputs: &[(String, Tensor)], threads: usize) -> Result<Tract, Box<dyn Error>> {
        let mut model = tract_onnx::onnx().model_for_path(path)?;
        let mut given = TVec::new();
        for (i, outlet) in model.input_outlets()?.to_vec().into_iter().enumerate() {
            let name = &model.node(outlet.node).name;
            let found = inputs.iter().find(|(n, _)| n == name).ok_or_else(|| format!("no input {name}"))?;
            let value = value(&found.1)?;
            let fact = InferenceFact::dt_shape(value.datum_type(), value.shape());
            model.set_input_fact(i, fact)?;
            given.push(value.into_tvalue());
        }
        let executor = if threads == 1 { Executor::SingleThread } else { Executor::multithread(threads) };
        Ok(Tract { model: model.into_optimized()?.into_runnable()?, inputs: given, executor })
    }
}

impl Engine for Tract {
    fn run(&mut self, names: &[String]) -> Result<Vec<(String, Tensor)>, Box<dyn Error>> {
        let (model, inputs) = (&self.model, self.inputs.clone());
        let results = multithread_tract_scope(self.executor.clone(), || model.run(inputs))?;
        names.iter().zip(&results).map(|(name, value)| Ok((name.clone(), tensor(value)?))).collect()
    }
}

type Native = tract_onnx::prelude::Tensor;

fn value(tensor: &Tensor) -> Result<Native, Box<dyn Error>> {
    let (dims, missing) = (tensor.dims(), "a tensor has no elements of its type");
    Ok(match tensor.dtype() {
        DType::F32 => Native::from_shape(dims, &tensor.elements::<f32>().ok_or(missing)?)?,
        DType::I64 => Native::from_shape(dims, &tensor.elements::<i64>().ok_or(missing)?)?,
        DType::I32 => Native::from_shape(dims, &tensor.elements::<i32>().ok_or(missing)?)?,
        DType::Bool => {
            let bytes = tensor.elements::<u8>().ok_or(missing)?;
            Native::from_shape(dims, &bytes.iter().map(|b| *b != 0).collect::<Vec<bool>>())?
        }
        other => return Err(format!("inputs of {other} are not timed").into()),
    })
}

fn tensor(value: &Native) -> Result<Tensor, Box<dyn Error>> {
    let floats = value.cast_to::<f32>()?;
    let view = floats.to_plain_array_view::<f32>()?;
    Ok(Tensor::new(value.shape(), view.iter().copied().collect::<Vec<f32>>())?)
}
