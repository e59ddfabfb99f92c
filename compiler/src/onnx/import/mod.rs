//! From an ONNX file to a graph: reading, scopes of names, and one node after the other.

mod activation;
mod attention;
mod branches;
mod build;
mod contrib;
mod contrib_attention;
mod contrib_grouped;
mod control;
mod deciding;
mod einsum;
mod elementwise;
mod file;
mod flex_attention;
mod float_sizes;
mod functions;
mod growing;
mod interface;
mod largest;
mod late;
mod loss;
mod node;
mod normalise;
mod options;
mod pad;
mod pool;
mod pool_positions;
mod quantise;
mod rearrange;
mod recurrent;
mod recurrent_function;
mod reduce;
mod repeat;
mod resize;
mod resize_computed;
mod resize_listed;
mod rules;
mod sample;
mod selected;
mod shape;
mod signal;
mod slice;
#[cfg(test)]
mod tests;
mod transposed_conv;
mod unroll;
mod vectorise;
mod vision;
mod weight_only;

use std::collections::{HashMap, HashSet};
use std::path::Path;

use eec_ir::verify::{Stage, verify};
use eec_ir::{Graph, Origin, RegionId, Type, ValueId};

use super::error::{Failure, ImportError, ImportErrorKind, NodeResult, Refusal, refuse};
use super::proto::{GraphProto, NodeProto, TensorProto};
use super::survey::{self, node_path};
use super::tensor::{ExternalFiles, decode};
use super::unsupported::Unsupported;
pub use file::read_tensor_file;
pub(crate) use functions::Functions;
use late::Late;
use node::{Cx, Tools};
use options::Budget;
pub use options::{FixedInput, ImportOptions, Limits};
pub use rules::{Cpu, OPSETS, Operator, operators};
pub(crate) use rules::{is_supported, refusal};

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
    import_with(path, &ImportOptions::default())
}

/// Like [`import`], with options.
pub fn import_with(path: &Path, options: &ImportOptions) -> Result<Graph, ImportError> {
    let name = path.display().to_string();
    let bytes = std::fs::read(path).map_err(|e| ImportError::new(&name, None, ImportErrorKind::Read(e)))?;
    import_bytes_with(&bytes, &name, path.parent(), options)
}

/// Like [`import`], for a model in memory. `name` stands for the file in errors; external data is
/// read from `folder`, and refused without one.
pub fn import_bytes(bytes: &[u8], name: &str, folder: Option<&Path>) -> Result<Graph, ImportError> {
    import_bytes_with(bytes, name, folder, &ImportOptions::default())
}

/// Like [`import_bytes`], with options.
pub fn import_bytes_with(
    bytes: &[u8],
    name: &str,
    folder: Option<&Path>,
    options: &ImportOptions,
) -> Result<Graph, ImportError> {
    let fail = |kind| ImportError::new(name, None, kind);
    let model = file::parse(bytes).map_err(fail)?;
    let opset = file::opset(&model).map_err(fail)?;
    let functions = Functions::new(model.functions).map_err(|e| fail(ImportErrorKind::Interface(e)))?;
    let graph = model.graph.ok_or_else(|| fail(ImportErrorKind::NotOnnx("it holds no graph".into())))?;
    let unsupported = survey::unsupported(&graph, &functions);
    if !unsupported.types.is_empty() {
        return Err(fail(ImportErrorKind::Unsupported(unsupported)));
    }
    let importer = Importer {
        file: name,
        opset,
        graph: Graph::new(&graph.name),
        external: ExternalFiles::new(folder),
        options,
        functions,
        budget: Budget::new(options.limits),
        late: Late::default(),
        scopes: Vec::new(),
        path: Vec::new(),
        unsupported,
        conditions: Vec::new(),
        counts: HashMap::new(),
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
    /// A parameter of a function that its call leaves out.
    Absent,
}

type Scope = HashMap<String, Binding>;

struct Importer<'f> {
    file: &'f str,
    opset: i64,
    graph: Graph,
    external: ExternalFiles,
    options: &'f ImportOptions,
    functions: Functions,
    budget: Budget,
    late: Late,
    /// Names, outermost graph first; inside a function only its own.
    scopes: Vec<Scope>,
    /// The control nodes around the current one, for messages.
    path: Vec<String>,
    /// Of the control nodes around the current one the conditions that are known only in a run.
    conditions: Vec<ValueId>,
    /// What could not be imported so far.
    unsupported: Unsupported,
    /// What tells how often the loops of these regions run.
    counts: HashMap<RegionId, ValueId>,
}

impl Importer<'_> {
    fn run(mut self, model: GraphProto) -> Result<Graph, ImportError> {
        let imported = self.import_graph(model);
        if self.unsupported.is_empty() {
            imported?;
            // What no rule noticed, such as sizes beyond all bounds.
            let verified = verify(&self.graph, Stage::Imported).map(drop);
            let invalid = |e| ImportError::new(self.file, None, ImportErrorKind::Invalid(e));
            return verified.map_err(invalid).map(|()| self.graph);
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
        let mut outputs: Vec<(String, ValueId)> = Vec::with_capacity(model.output.len());
        let mut names = HashSet::with_capacity(model.output.len());
        for output in &model.output {
            if !names.insert(output.name.as_str()) {
                let reason = format!("output `{}` is declared twice", output.name);
                return Err(self.fail(ImportErrorKind::Interface(reason)));
            }
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
        ImportError::new(self.file, (!self.path.is_empty()).then(|| self.place()), kind)
    }

    /// The way to the current node, from the outermost graph down; a function inside itself stands once.
    fn place(&self) -> String {
        let steps = self.path.chunk_by(|a, b| a == b).map(|same| match same {
            [one] => one.clone(),
            [one, ..] => format!("{one} (×{})", same.len()),
            [] => String::new(),
        });
        steps.collect::<Vec<_>>().join(" / ")
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
            Binding::Absent => refuse(format!("`{name}` is a parameter that the call leaves out")),
            Binding::Unknown => refuse(format!("`{name}` depends on a node that cannot be imported")),
            Binding::Stored(proto) => {
                let limit = self.options.limits.rank;
                if proto.dims.len() > limit {
                    return refuse(format!("tensor `{name}` has more dims than the limit `rank`, {limit}"));
                }
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

    fn binding(&self, name: &str) -> Option<&Binding> {
        self.scopes.iter().rev().find_map(|s| s.get(name))
    }

    /// Whether `name` stands for a value that cannot be imported.
    fn is_unknown(&self, name: &str) -> bool {
        matches!(self.binding(name), Some(Binding::Unknown))
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
            self.budget.visit().map_err(|e| self.refusal(e))?;
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
        let supported = self.functions.called(&node).is_some() || survey::has_rule(&node);
        if !supported || node.input.iter().any(|name| self.is_unknown(name)) {
            return Ok(None);
        }
        let op = node.op_type.clone();
        let (path, scopes, depth) = (self.path.len(), self.scopes.len(), self.budget.depth());
        let conditions = self.conditions.len();
        match self.imported(region, node) {
            Ok(results) => Ok(results),
            Err(Failure::Import(error)) => Err(error),
            Err(Failure::Node(refusal)) => {
                let decides = [self.deciding(refusal.undecided), self.choosing()];
                self.unsupported.count_form(&op, refusal.reason, self.place(), decides);
                self.path.truncate(path);
                self.conditions.truncate(conditions);
                self.scopes.truncate(scopes);
                self.budget.return_to(depth);
                Ok(None)
            }
        }
    }

    fn imported(&mut self, region: RegionId, node: NodeProto) -> Result<Option<Vec<ValueId>>, Failure> {
        if let Some(attribute) = node.attribute.iter().find(|a| !a.ref_attr_name.is_empty()) {
            let reason = format!("attribute `{}` refers to one of a function, but stands in none", attribute.name);
            return Err(Refusal::new(reason).into());
        }
        let asked = node.output.iter().rposition(|n| !n.is_empty()).map_or(0, |i| i + 1);
        let results = match self.functions.called(&node).cloned() {
            Some(function) => self.import_call(region, node, &function)?,
            None => match node.op_type.as_str() {
                "If" => self.import_if(region, node)?,
                "Loop" => self.import_loop(region, node)?,
                "Scan" => self.import_scan(region, node)?,
                "FlexAttention" => self.import_flex_attention(region, node)?,
                _ => Some(self.apply_rule(region, node)?),
            },
        };
        match results {
            Some(found) if found.len() < asked => {
                let found = found.len();
                Err(Refusal::new(format!("result {asked} is used, but only {found} of its results are supported"))
                    .into())
            }
            results => Ok(results),
        }
    }

    fn refusal(&self, refusal: Refusal) -> ImportError {
        self.fail(ImportErrorKind::Node(refusal.reason))
    }

    fn apply_rule(&mut self, region: RegionId, node: NodeProto) -> NodeResult<Vec<ValueId>> {
        let inputs = self.operands(&node.input)?;
        let (domain, op_type) = (node.domain.clone(), node.op_type.clone());
        let mut cx = self.context(region, node, inputs);
        cx.know_sizes()?;
        rules::apply(survey::standard_domain(&domain), &op_type, &mut cx)
    }

    /// What a rule works with for `node`.
    fn context(&mut self, region: RegionId, node: NodeProto, inputs: Vec<Option<ValueId>>) -> Cx<'_> {
        let tools = Tools { external: &mut self.external, budget: &mut self.budget, late: &mut self.late };
        Cx::new(&mut self.graph, tools, region, self.opset, node, inputs)
    }

    /// The values of operands; none for those that are left out.
    fn operands(&mut self, names: &[String]) -> NodeResult<Vec<Option<ValueId>>> {
        let absent =
            |importer: &Self, name: &str| name.is_empty() || matches!(importer.binding(name), Some(Binding::Absent));
        let used = names.iter().rposition(|n| !absent(self, n)).map_or(0, |i| i + 1);
        names[..used].iter().map(|n| if absent(self, n) { Ok(None) } else { self.lookup(n).map(Some) }).collect()
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
