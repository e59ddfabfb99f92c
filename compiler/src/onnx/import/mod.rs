//! From an ONNX file to a graph: reading, scopes of names, and one node after the other.

mod activation;
mod attention;
mod build;
mod control;
mod einsum;
mod elementwise;
mod file;
mod interface;
mod loss;
mod node;
mod normalise;
mod pool;
mod quantise;
mod rearrange;
mod recurrent;
mod reduce;
mod resize;
mod rules;
mod sample;
mod shape;
mod signal;
mod slice;
#[cfg(test)]
mod tests;
mod transposed_conv;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::Path;

use eec_ir::graph::Def;
use eec_ir::ops::Facts;
use eec_ir::{Graph, Origin, RegionId, Type, ValueId};

use super::error::{ImportError, ImportErrorKind, NodeResult, Refusal, refuse};
use super::proto::{GraphProto, NodeProto, TensorProto};
use super::survey::{self, node_path};
use super::tensor::{ExternalFiles, decode};
use super::unsupported::Unsupported;
use crate::npz::Arrays;
pub use file::read_tensor_file;
use node::Cx;
pub(crate) use rules::is_supported;
pub use rules::{Cpu, Operator, operators};

/// The graph of the ONNX model in the file `path`; tensors outside the file are read from its folder.
///
/// The names of symbolic input dims become symbols; a dim without name or value gets the symbol
/// `input.axis`. Initializers are constants, also those that are listed as inputs.
///
/// # Errors
/// Whatever the file holds, an error names the file, the node and what was found. Operators, element
/// types and forms of operators that are not supported are reported all at once, except what comes
/// after one of them.
pub fn import(path: &Path) -> Result<Graph, ImportError> {
    let name = path.display().to_string();
    let bytes = std::fs::read(path).map_err(|e| ImportError::new(&name, None, ImportErrorKind::Read(e)))?;
    import_bytes(&bytes, &name, path.parent())
}

/// Like [`import`], for a model in memory. `name` stands for the file in errors; external data is
/// read from `folder`, and refused without one.
pub fn import_bytes(bytes: &[u8], name: &str, folder: Option<&Path>) -> Result<Graph, ImportError> {
    import_fixed(bytes, name, folder, &Arrays::new())
}

/// Like [`import_bytes`], with constants in place of the inputs that `fixed` names.
///
/// Shapes, axes and the like must be known before a run. Where a model takes them as inputs,
/// [`Unsupported::deciding_inputs`] names those.
pub fn import_fixed(bytes: &[u8], name: &str, folder: Option<&Path>, fixed: &Arrays) -> Result<Graph, ImportError> {
    let fail = |kind| ImportError::new(name, None, kind);
    let model = file::parse(bytes).map_err(fail)?;
    let opset = file::opset(&model).map_err(fail)?;
    let graph = model.graph.ok_or_else(|| fail(ImportErrorKind::NotOnnx("it holds no graph".into())))?;
    let unsupported = survey::unsupported(&graph);
    if !unsupported.types.is_empty() {
        return Err(fail(ImportErrorKind::Unsupported(unsupported)));
    }
    let importer = Importer {
        file: name,
        opset,
        graph: Graph::new(&graph.name),
        external: ExternalFiles::new(folder),
        fixed,
        scopes: Vec::new(),
        path: Vec::new(),
        unsupported,
    };
    importer.run(graph)
}

/// What a name stands for.
enum Binding {
    Value(ValueId),
    /// A tensor of the file that nothing has used yet.
    Stored(Box<TensorProto>),
    /// The result of a node that cannot be imported, or of one that depends on it.
    Unknown,
}

type Scope = HashMap<String, Binding>;

struct Importer<'f> {
    file: &'f str,
    opset: i64,
    graph: Graph,
    external: ExternalFiles,
    /// Tensors in place of inputs, by name.
    fixed: &'f Arrays,
    /// Names, outermost graph first.
    scopes: Vec<Scope>,
    /// The control nodes around the current one, for messages.
    path: Vec<String>,
    /// What could not be imported so far.
    unsupported: Unsupported,
}

impl Importer<'_> {
    fn run(mut self, model: GraphProto) -> Result<Graph, ImportError> {
        let imported = self.import_graph(model);
        if self.unsupported.is_empty() {
            return imported.map(|()| self.graph);
        }
        let place = self.unsupported.only_form().map(|form| form.place.clone());
        Err(ImportError::new(self.file, place, ImportErrorKind::Unsupported(self.unsupported)))
    }

    fn import_graph(&mut self, mut model: GraphProto) -> Result<(), ImportError> {
        self.open_scope(std::mem::take(&mut model.initializer))?;
        self.add_inputs(&model.input)?;
        let declared = interface::declared_types(&model);
        self.import_nodes(Graph::ROOT, model.node, &declared)?;
        if !self.unsupported.is_empty() {
            return Ok(());
        }
        let mut outputs = Vec::with_capacity(model.output.len());
        for output in &model.output {
            let value = self.lookup(&output.name).map_err(|e| {
                self.fail(ImportErrorKind::Interface(format!("output `{}`: {}", output.name, e.reason)))
            })?;
            if self.graph.value(value).name.is_none() {
                self.graph.set_name(value, &output.name);
            }
            outputs.push((output.name.clone(), value));
        }
        self.graph.set_outputs(outputs);
        self.graph.remove_dead();
        Ok(())
    }

    fn fail(&self, kind: ImportErrorKind) -> ImportError {
        ImportError::new(self.file, (!self.path.is_empty()).then(|| self.path.join(" / ")), kind)
    }

    fn open_scope(&mut self, initializers: Vec<TensorProto>) -> Result<(), ImportError> {
        let mut scope = Scope::with_capacity(initializers.len());
        for tensor in initializers {
            let name = tensor.name.clone();
            if scope.insert(name.clone(), Binding::Stored(Box::new(tensor))).is_some() {
                let reason = "is stored twice".into();
                return Err(self.fail(ImportErrorKind::Tensor { name, reason }));
            }
        }
        self.scopes.push(scope);
        Ok(())
    }

    /// The value that `name` stands for here.
    fn lookup(&mut self, name: &str) -> NodeResult<ValueId> {
        let Some(binding) = self.scopes.iter_mut().rev().find_map(|s| s.get_mut(name)) else {
            return refuse(format!("`{name}` is used before it is defined"));
        };
        match binding {
            Binding::Value(v) => Ok(*v),
            Binding::Unknown => refuse(format!("`{name}` depends on a node that cannot be imported")),
            Binding::Stored(proto) => {
                let tensor = decode(*std::mem::take(proto), &mut self.external);
                let tensor = tensor.map_err(|e| Refusal::new(format!("tensor `{name}`: {e}")))?;
                let value = self.graph.constant(tensor);
                if self.graph.value(value).name.is_none() {
                    self.graph.set_name(value, name);
                }
                *binding = Binding::Value(value);
                Ok(value)
            }
        }
    }

    /// Whether `name` stands for a value that cannot be imported.
    fn is_unknown(&self, name: &str) -> bool {
        matches!(self.scopes.iter().rev().find_map(|s| s.get(name)), Some(Binding::Unknown))
    }

    fn bind(&mut self, name: &str, binding: Binding) -> NodeResult<()> {
        let Some(scope) = self.scopes.last_mut() else {
            return Ok(());
        };
        match scope.insert(name.to_string(), binding) {
            Some(_) => refuse(format!("`{name}` is defined twice")),
            None => Ok(()),
        }
    }

    fn import_nodes(
        &mut self,
        region: RegionId,
        nodes: Vec<NodeProto>,
        declared: &HashMap<String, interface::Declared>,
    ) -> Result<(), ImportError> {
        for node in nodes {
            self.path.push(node_path(&node));
            let names = node.output.clone();
            self.import_node(region, node)?;
            for name in names.iter().filter(|n| !n.is_empty() && !self.is_unknown(n)).collect::<Vec<_>>() {
                self.check_declared(name, declared.get(name))?;
            }
            self.path.pop();
        }
        Ok(())
    }

    fn import_node(&mut self, region: RegionId, node: NodeProto) -> Result<(), ImportError> {
        let names = node.output.clone();
        let results = self.results(region, node)?;
        let bindings: Vec<Binding> = match results {
            Some(values) => values.into_iter().map(Binding::Value).collect(),
            None => names.iter().map(|_| Binding::Unknown).collect(),
        };
        let bound = names.iter().zip(bindings).filter(|(n, _)| !n.is_empty());
        bound.into_iter().try_for_each(|(n, b)| self.bind(n, b)).map_err(|e| self.refusal(e))
    }

    /// The results of a node; `None`, and a place in the list of what is unsupported, if it cannot be
    /// imported.
    fn results(&mut self, region: RegionId, node: NodeProto) -> Result<Option<Vec<ValueId>>, ImportError> {
        if !survey::has_rule(&node) || node.input.iter().any(|name| self.is_unknown(name)) {
            return Ok(None);
        }
        if node.op_type == "If" {
            return self.import_if(region, node);
        }
        let op = node.op_type.clone();
        match self.apply_rule(region, node) {
            Ok(results) => Ok(Some(results)),
            Err(refusal) => {
                let deciding = refusal.undecided.map(|v| self.deciding_inputs(v)).unwrap_or_default();
                self.unsupported.count_form(&op, refusal.reason, self.path.join(" / "), deciding);
                Ok(None)
            }
        }
    }

    /// The small inputs that `value` is computed from.
    fn deciding_inputs(&self, value: ValueId) -> BTreeSet<String> {
        let graph = &self.graph;
        let (mut found, mut seen, mut next) = (BTreeSet::new(), HashSet::new(), vec![value]);
        while let Some(value) = next.pop() {
            let small = || graph.ty(value).elements().as_const().is_some_and(|n| n <= Facts::MAX_CONTENTS as i64);
            match graph.value(value).def {
                Def::Param(Graph::ROOT, _) if small() => {
                    found.extend(graph.value(value).name.as_deref().map(str::to_string))
                }
                Def::Node(node, _) if seen.insert(node) => next.extend(&graph.node(node).inputs),
                Def::Param(..) | Def::Const(_) | Def::Node(..) => {}
            }
        }
        found
    }

    fn refusal(&self, refusal: Refusal) -> ImportError {
        self.fail(ImportErrorKind::Node(refusal.reason))
    }

    fn apply_rule(&mut self, region: RegionId, node: NodeProto) -> NodeResult<Vec<ValueId>> {
        let inputs = self.operands(&node.input)?;
        let asked = node.output.iter().rposition(|n| !n.is_empty()).map_or(0, |i| i + 1);
        let op_type = node.op_type.clone();
        let mut cx = Cx::new(&mut self.graph, &mut self.external, region, self.opset, node, inputs);
        let results = rules::apply(&op_type, &mut cx)?;
        if results.len() < asked {
            return refuse(format!("result {asked} is used, but only {} of its results are supported", results.len()));
        }
        Ok(results)
    }

    fn operands(&mut self, names: &[String]) -> NodeResult<Vec<Option<ValueId>>> {
        let used = names.iter().rposition(|n| !n.is_empty()).map_or(0, |i| i + 1);
        names[..used].iter().map(|n| if n.is_empty() { Ok(None) } else { self.lookup(n).map(Some) }).collect()
    }
}

/// The source name of a node: its own, or its first result's if it has none.
fn origin(node: &NodeProto) -> Origin {
    let name = if node.name.is_empty() { node.output.first() } else { Some(&node.name) };
    Origin::source(name.map_or("", String::as_str))
}

/// Whether a declared type can be the type `inferred`.
fn agrees(declared: &interface::Declared, inferred: &Type) -> bool {
    let same_dim = |(d, i): (&Option<i64>, &eec_ir::Dim)| d.is_none() || i.as_const().is_none() || i.as_const() == *d;
    declared.dtype == inferred.dtype
        && declared
            .dims
            .as_ref()
            .is_none_or(|dims| dims.len() == inferred.rank() && dims.iter().zip(&inferred.dims).all(same_dim))
}
