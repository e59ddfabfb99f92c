//! From a graph to an ONNX model of opset 20.

mod control;
mod join;
mod loops;
mod names;
mod nodes;
mod scope;
mod selected;
mod sizes;

use std::collections::HashMap;
use std::io::Write;
use std::path::Path;

use eec_ir::graph::{Def, Origin};
use eec_ir::{ContentHash, Graph, RegionId, Tensor, ValueId};
use eec_runtime::replace_file;
use prost::Message;

use super::error::ExportError;
use super::proto::{GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto, ValueInfoProto};
use super::tensor::{encode, value_info};
use names::Names;
use scope::Scope;

/// The name under which models are written.
const PRODUCER: &str = "eec";

/// The opset that is written.
const OPSET: i64 = 20;

/// The first version of the format in which nodes carry metadata.
const IR_VERSION: i64 = 10;

/// Writes `graph` as an ONNX model to `path`; a file that is there is replaced in one step.
///
/// Constants are stored once, in the main graph. Nodes that a pass inserted carry its name under
/// `eec.pass` in their metadata, and nodes that only ONNX's form needs carry `eec-export` there.
///
/// # Errors
/// See [`export_bytes`]; and the file cannot be written.
pub fn export(graph: &Graph, path: &Path) -> Result<(), ExportError> {
    let bytes = export_bytes(graph)?;
    let file = || path.display().to_string();
    replace_file(path, |out| out.write_all(&bytes)).map_err(|source| ExportError::Write { file: file(), source })
}

/// `graph` as an ONNX model in memory. Equal graphs give equal bytes.
///
/// # Errors
/// A size is needed that no visible value has as a dim, or the model is larger than the format
/// allows.
pub fn export_bytes(graph: &Graph) -> Result<Vec<u8>, ExportError> {
    let model = ModelProto {
        ir_version: IR_VERSION,
        producer_name: PRODUCER.into(),
        producer_version: env!("CARGO_PKG_VERSION").into(),
        graph: Some(Exporter::new(graph).run()?),
        opset_import: vec![OperatorSetIdProto { domain: String::new(), version: OPSET }],
        functions: Vec::new(),
    };
    match model.encoded_len() {
        length if i32::try_from(length).is_err() => Err(ExportError::TooLarge(length)),
        _ => Ok(model.encode_to_vec()),
    }
}

struct Exporter<'g> {
    graph: &'g Graph,
    value_names: HashMap<ValueId, String>,
    used_values: Names,
    used_nodes: Names,
    initializers: Vec<TensorProto>,
    initializer_names: HashMap<ContentHash, String>,
    /// The graphs being written, outermost first.
    scopes: Vec<Scope>,
    /// What is being written, for the names of helper nodes and for messages.
    current: String,
}

impl<'g> Exporter<'g> {
    fn new(graph: &'g Graph) -> Self {
        Exporter {
            graph,
            value_names: HashMap::new(),
            used_values: Names::default(),
            used_nodes: Names::default(),
            initializers: Vec::new(),
            initializer_names: HashMap::new(),
            scopes: vec![Scope::default()],
            current: String::new(),
        }
    }

    fn run(mut self) -> Result<GraphProto, ExportError> {
        let graph = self.graph;
        let inputs = self.name_interface();
        self.export_nodes(Graph::ROOT)?;
        let mut output = Vec::with_capacity(graph.outputs().len());
        for (name, value) in graph.output_names().iter().zip(graph.outputs()) {
            let have = self.value_name(*value);
            if have != **name {
                self.current = format!("output {name}");
                self.helper_as("Identity", &[&have], Vec::new(), name);
            }
            output.push(value_info(name, graph.ty(*value)));
        }
        let node = self.scopes.pop().map(|s| s.nodes).unwrap_or_default();
        let name = if graph.name.is_empty() { "graph".to_string() } else { graph.name.clone() };
        Ok(GraphProto { node, name, initializer: self.initializers, input: inputs, output, ..GraphProto::default() })
    }

    /// Reserves the names of inputs and outputs, and gives them to the values that have them.
    fn name_interface(&mut self) -> Vec<ValueInfoProto> {
        let graph = self.graph;
        let mut infos = Vec::with_capacity(graph.inputs().len());
        for (i, value) in graph.inputs().iter().enumerate() {
            let wanted = graph.value(*value).name.as_deref().map_or_else(|| format!("input_{i}"), str::to_string);
            let name = self.used_values.unique(&wanted);
            infos.push(value_info(&name, graph.ty(*value)));
            self.note_value(*value, name);
        }
        for (name, value) in graph.output_names().iter().zip(graph.outputs()) {
            let first = self.used_values.reserve(name);
            if first && matches!(graph.value(*value).def, Def::Node(..)) && !self.value_names.contains_key(value) {
                self.value_names.insert(*value, name.to_string());
            }
        }
        infos
    }

    fn export_nodes(&mut self, region: RegionId) -> Result<(), ExportError> {
        for node in &self.graph.region(region).nodes {
            self.export_node(*node)?;
        }
        Ok(())
    }

    /// Gives `value` a name that is already in the file, and notes which sizes can be read from it.
    fn note_value(&mut self, value: ValueId, name: String) {
        let dims = &self.graph.ty(value).dims;
        if let Some(scope) = self.scopes.last_mut() {
            scope.add_sources(dims, &name);
        }
        self.value_names.insert(value, name);
    }

    /// The name of a value that has been written, or of a constant, which is stored if it is not yet.
    fn value_name(&mut self, value: ValueId) -> String {
        if let Some(name) = self.value_names.get(&value) {
            return name.clone();
        }
        let name = match self.graph.value(value).def {
            Def::Const(id) => {
                let constants = self.graph.constants();
                let wanted = self.graph.value(value).name.clone();
                self.store(constants.hash(id), constants.tensor(id), wanted.as_deref())
            }
            Def::Node(..) | Def::Param(..) => self.used_values.unique(&self.wanted_name(value)),
        };
        self.value_names.insert(value, name.clone());
        name
    }

    fn wanted_name(&self, value: ValueId) -> String {
        let v = self.graph.value(value);
        let source = match v.def {
            Def::Node(node, _) => self.graph.node(node).origin.source.as_deref(),
            Def::Param(..) | Def::Const(_) => None,
        };
        match v.name.as_deref().or(source) {
            Some(name) if !name.is_empty() => name.to_string(),
            _ => format!("value_{}", value.0),
        }
    }

    /// The name of a tensor that the format needs as an operand.
    fn tensor_name(&mut self, tensor: &Tensor) -> String {
        self.store(ContentHash::of(tensor), tensor, None)
    }

    fn store(&mut self, hash: ContentHash, tensor: &Tensor, wanted: Option<&str>) -> String {
        if let Some(name) = self.initializer_names.get(&hash) {
            return name.clone();
        }
        let wanted = wanted.map_or_else(|| default_name(hash, tensor), str::to_string);
        let name = self.used_values.unique(&wanted);
        self.initializers.push(encode(tensor, &name));
        self.initializer_names.insert(hash, name.clone());
        name
    }

    fn push_node(&mut self, node: NodeProto) {
        if let Some(scope) = self.scopes.last_mut() {
            scope.nodes.push(node);
        }
    }

    /// How messages name the node that `origin` belongs to.
    fn enter(&mut self, op: &str, origin: &Origin) {
        self.current = match origin.source.as_deref() {
            Some(source) if !source.is_empty() => source.to_string(),
            _ => op.to_string(),
        };
    }
}

/// Small integer tensors are readable as names; others are named by their contents.
fn default_name(hash: ContentHash, tensor: &Tensor) -> String {
    match tensor.to_i64s().filter(|_| tensor.len() <= 6 && tensor.dims().len() <= 1) {
        Some(elements) => {
            let items: Vec<String> = elements.iter().map(i64::to_string).collect();
            format!("{}_{}", if tensor.dims().is_empty() { "scalar" } else { "ints" }, items.join("_"))
        }
        None => format!("const_{}", hash.to_string().trim_start_matches('#')),
    }
}
