//! A model's inputs, and the types it declares for other values.

use std::collections::{BTreeSet, HashMap, HashSet};

use eec_ir::{DType, Dim, Type};

use super::super::error::{ImportError, ImportErrorKind};
use super::super::proto::{DimValue, DimensionProto, GraphProto, TensorTypeProto, ValueInfoProto};
use super::super::tensor::{dtype, type_name};
use super::{Binding, Importer, agrees};

/// A type as a file declares it: dims that are names or missing are not known, because exporters
/// write expressions and stale names there.
#[derive(Debug, Clone)]
pub(super) struct Declared {
    pub(super) dtype: DType,
    pub(super) dims: Option<Vec<Option<i64>>>,
}

impl Declared {
    /// Whether all dims are known.
    pub(super) fn is_constant(&self) -> bool {
        self.dims.as_ref().is_some_and(|dims| dims.iter().all(Option::is_some))
    }
}

impl std::fmt::Display for Declared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let show = |d: &Option<i64>| d.map_or_else(|| "?".to_string(), |d| d.to_string());
        let dims = self.dims.as_ref().map(|dims| dims.iter().map(show).collect::<Vec<_>>().join(", "));
        write!(f, "{}[{}]", self.dtype, dims.as_deref().unwrap_or("…"))
    }
}

/// The types that `graph` declares for results of its nodes. What is malformed is left out.
pub(super) fn declared_types(graph: &GraphProto) -> HashMap<String, Declared> {
    let all = graph.value_info.iter().chain(&graph.output);
    all.filter_map(|info| Some((info.name.clone(), declared(tensor_type(info)?)?))).collect()
}

fn declared(ty: &TensorTypeProto) -> Option<Declared> {
    let constant = |d: &DimensionProto| match d.value {
        Some(DimValue::Value(v)) if v > 0 => Some(v),
        Some(DimValue::Value(_) | DimValue::Param(_)) | None => None,
    };
    let dims = ty.shape.as_ref().map(|s| s.dim.iter().map(constant).collect());
    Some(Declared { dtype: dtype(ty.elem_type)?, dims })
}

fn tensor_type(info: &ValueInfoProto) -> Option<&TensorTypeProto> {
    info.r#type.as_ref()?.tensor_type.as_ref()
}

/// Names for a message.
fn listed(names: impl IntoIterator<Item = String>) -> String {
    let names: Vec<String> = names.into_iter().collect();
    if names.is_empty() { "none".into() } else { names.join(", ") }
}

impl Importer<'_> {
    /// Adds the graph's inputs, without those that are constants with a default value.
    pub(super) fn add_inputs(&mut self, inputs: &[ValueInfoProto]) -> Result<(), ImportError> {
        let mut named: HashSet<String> = HashSet::new();
        for dim in inputs.iter().filter_map(tensor_type).filter_map(|t| t.shape.as_ref()).flat_map(|s| &s.dim) {
            if let Some(DimValue::Param(name)) = &dim.value {
                named.insert(name.clone());
            }
        }
        let options = self.options;
        let mut unused: BTreeSet<&str> = options.inputs.keys().map(String::as_str).collect();
        let mut unused_dims: BTreeSet<&str> = options.dims.keys().map(String::as_str).collect();
        let mut known_dims: BTreeSet<String> = BTreeSet::new();
        for input in inputs {
            if self.scopes.last().is_some_and(|s| s.contains_key(&input.name)) {
                let stored = self.scopes.last().and_then(|s| s.get(&input.name));
                if matches!(stored, Some(Binding::Stored(_))) {
                    continue;
                }
                return Err(self.fail(ImportErrorKind::Interface(format!("input `{}` is declared twice", input.name))));
            }
            let mut ty = input_type(input, &named).map_err(|e| self.fail(ImportErrorKind::Interface(e)))?;
            known_dims.extend(ty.dims.iter().filter_map(|d| d.as_symbol().map(ToString::to_string)));
            self.fix_dims(&mut ty, &mut unused_dims);
            if ty.rank() > self.options.limits.rank {
                let (name, limit) = (&input.name, self.options.limits.rank);
                let reason = format!("input `{name}` has more dims than the limit `rank`, {limit}");
                return Err(self.fail(ImportErrorKind::Interface(reason)));
            }
            let value = match self.options.inputs.get(&input.name) {
                Some(fixed) => {
                    unused.remove(input.name.as_str());
                    let tensor = fixed.tensor(&ty);
                    let tensor = tensor
                        .map_err(|why| self.fail(ImportErrorKind::Option(format!("input `{}` {why}", input.name))))?;
                    self.graph.constant(tensor)
                }
                None => self.graph.add_input(&input.name, ty),
            };
            self.bind(&input.name, Binding::Value(value)).map_err(|e| self.refusal(e))?;
        }
        let known_inputs = inputs.iter().map(|input| input.name.clone());
        let unknown = (unused.first())
            .map(|name| format!("`{name}` is no input of the model (inputs: {})", listed(known_inputs)))
            .or_else(|| {
                let name = unused_dims.first()?;
                Some(format!("no input of the model has a dim `{name}` (dims: {})", listed(known_dims)))
            });
        match unknown {
            Some(reason) => Err(self.fail(ImportErrorKind::Option(reason))),
            None => Ok(()),
        }
    }

    /// Puts the sizes that are fixed into `ty` and takes their names out of `unused`.
    fn fix_dims(&self, ty: &mut Type, unused: &mut BTreeSet<&str>) {
        for dim in &mut ty.dims {
            let Some((name, size)) = dim.as_symbol().and_then(|s| self.options.dims.get_key_value(s.as_str())) else {
                continue;
            };
            unused.remove(name.as_str());
            *dim = (*size).into();
        }
    }

    /// Refuses a value whose declared type contradicts the inferred one.
    pub(super) fn check_declared(&mut self, name: &str, declared: Option<&Declared>) -> Result<(), ImportError> {
        let Some(declared) = declared else {
            return Ok(());
        };
        let value = self.lookup(name).map_err(|e| self.refusal(e))?;
        let inferred = self.graph.ty(value);
        if agrees(declared, inferred) {
            return Ok(());
        }
        let (declared, inferred) = (declared.to_string(), inferred.to_string());
        let (value, choosing) = (name.to_string(), self.choosing());
        Err(self.fail(ImportErrorKind::Contradiction { value, declared, inferred, choosing }))
    }
}

fn input_type(input: &ValueInfoProto, named: &HashSet<String>) -> Result<Type, String> {
    let name = &input.name;
    let ty = tensor_type(input).ok_or_else(|| format!("input `{name}` has no tensor type"))?;
    let dtype = dtype(ty.elem_type)
        .ok_or_else(|| format!("input `{name}` has elements of type {}", type_name(ty.elem_type)))?;
    let shape = ty.shape.as_ref().ok_or_else(|| format!("input `{name}` is declared without dims"))?;
    let dims = shape.dim.iter().enumerate().map(|(axis, d)| input_dim(name, axis, d, named));
    Ok(Type::new(dtype, dims.collect::<Result<Vec<_>, _>>()?))
}

fn input_dim(input: &str, axis: usize, dim: &DimensionProto, named: &HashSet<String>) -> Result<Dim, String> {
    match &dim.value {
        Some(DimValue::Value(v)) if *v >= Dim::LIMIT => Err(format!("input `{input}`: dim {axis} is {v}")),
        Some(DimValue::Value(v)) if *v >= 0 => Ok((*v).into()),
        Some(DimValue::Param(p)) if !p.is_empty() => Ok(Dim::symbol(p)),
        Some(DimValue::Value(_) | DimValue::Param(_)) | None => {
            let mut symbol = format!("{input}.{axis}");
            while named.contains(&symbol) {
                symbol.push('_');
            }
            Ok(Dim::symbol(&symbol))
        }
    }
}
