//! rten, which computes integers and booleans of all widths as `i32`.

use std::error::Error;
use std::path::Path;
use std::sync::Arc;

use eec_ir::{DType, Tensor};
use rten::{Model, ModelOptions, NodeId, RunOptions, ThreadPool, Value};
use rten_tensor::prelude::*;

use super::Engine;

/// A model with its inputs.
pub struct Rten {
    model: Model,
    inputs: Vec<(NodeId, Value)>,
    options: RunOptions,
}

impl Rten {
    /// Loads an ONNX file, with weights packed for its kernels.
    pub fn load(path: &Path, inputs: &[(String, Tensor)], threads: usize) -> Result<Rten, Box<dyn Error>> {
        let model = ModelOptions::with_all_ops().prepack_weights(true).load_file(path)?;
        let known = |(name, _): &&(String, Tensor)| model.find_node(name).is_some();
        let given = inputs.iter().filter(known).map(|(name, t)| Ok((model.node_id(name)?, value(t)?)));
        let inputs = given.collect::<Result<_, Box<dyn Error>>>()?;
        let options = RunOptions::default().with_thread_pool(Some(Arc::new(ThreadPool::with_num_threads(threads))));
        Ok(Rten { model, inputs, options })
    }
}

impl Engine for Rten {
    fn run(&mut self, names: &[String]) -> Result<Vec<(String, Tensor)>, Box<dyn Error>> {
        let inputs = self.inputs.iter().map(|(id, v)| (*id, v.as_view().into())).collect();
        let results = self.model.run(inputs, self.model.output_ids(), Some(self.options.clone()))?;
        names.iter().zip(&results).map(|(name, value)| Ok((name.clone(), tensor(value)?))).collect()
    }
}

fn value(tensor: &Tensor) -> Result<Value, Box<dyn Error>> {
    let dims = tensor.dims();
    if tensor.dtype() == DType::F32 {
        let data = tensor.elements::<f32>().ok_or("a tensor of floats has none")?.into_owned();
        return Ok(rten_tensor::Tensor::from_data(dims, data).into());
    }
    let data = tensor.to_i64s().ok_or("inputs must be f32 or integers")?;
    let data = data.into_iter().map(i32::try_from).collect::<Result<Vec<i32>, _>>()?;
    Ok(rten_tensor::Tensor::from_data(dims, data).into())
}

fn tensor(value: &Value) -> Result<Tensor, Box<dyn Error>> {
    Ok(match value {
        Value::FloatTensor(t) => Tensor::new(t.shape(), t.to_vec())?,
        Value::Int32Tensor(t) => Tensor::new(t.shape(), t.to_vec())?,
        _ => return Err("outputs must be f32 or i32".into()),
    })
}
