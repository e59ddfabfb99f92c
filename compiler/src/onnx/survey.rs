//! A walk over a whole model that lists everything in it that eec does not support.

use std::collections::{BTreeMap, HashSet};
use std::rc::Rc;

use super::import::{Functions, is_supported, refusal};
use super::proto::{FunctionProto, GraphProto, NodeProto, ValueInfoProto};
use super::tensor::{dtype, type_name};
use super::unsupported::{Unsupported, UnsupportedOp, UnsupportedType};

/// The operators and element types in `graph`, the graphs inside it and the functions it calls that eec does
/// not support. Each function counts once.
pub(crate) fn unsupported(graph: &GraphProto, functions: &Functions) -> Unsupported {
    let mut survey =
        Survey { functions, called: HashSet::new(), waiting: Vec::new(), ops: BTreeMap::new(), types: BTreeMap::new() };
    for input in &graph.input {
        survey.visit_input(input);
    }
    survey.visit_graph(graph);
    // One after the other: a chain of calls may be longer than a stack is deep.
    while let Some(function) = survey.waiting.pop() {
        function.node.iter().for_each(|n| survey.visit_node(n));
    }
    survey.finish()
}

struct Survey<'f> {
    functions: &'f Functions,
    /// Functions that were called.
    called: HashSet<*const FunctionProto>,
    /// Those of them whose nodes are yet to be visited.
    waiting: Vec<Rc<FunctionProto>>,
    ops: BTreeMap<(String, String), usize>,
    types: BTreeMap<String, (String, usize)>,
}

impl Survey<'_> {
    fn visit_input(&mut self, input: &ValueInfoProto) {
        let place = format!("input `{}`", input.name);
        match input.r#type.as_ref().and_then(|t| t.tensor_type.as_ref()) {
            Some(tensor) => self.visit_type(tensor.elem_type, &place),
            None => self.count_type("not a tensor".into(), &place),
        }
    }

    fn visit_graph(&mut self, graph: &GraphProto) {
        for tensor in &graph.initializer {
            self.visit_type(tensor.data_type, &format!("initializer `{}`", tensor.name));
        }
        for sparse in &graph.sparse_initializer {
            let name = sparse.values.as_ref().map_or("", |v| v.name.as_str());
            self.count_type("sparse tensor".into(), &format!("initializer `{name}`"));
        }
        graph.node.iter().for_each(|n| self.visit_node(n));
    }

    fn visit_node(&mut self, node: &NodeProto) {
        if let Some(function) = self.functions.called(node) {
            if self.called.insert(Rc::as_ptr(function)) {
                self.waiting.push(Rc::clone(function));
            }
        } else if !has_rule(node) {
            let domain = standard_domain(&node.domain);
            *self.ops.entry((domain.to_string(), node.op_type.clone())).or_default() += 1;
        }
        for attribute in &node.attribute {
            if let Some(tensor) = &attribute.t {
                self.visit_type(tensor.data_type, &node_path(node));
            }
            if node.op_type == "Cast" && attribute.name == "to" {
                self.visit_type(attribute.i.map_or(0, |i| i32::try_from(i).unwrap_or(-1)), &node_path(node));
            }
            if let Some(graph) = &attribute.g {
                self.visit_graph(graph);
            }
        }
    }

    fn visit_type(&mut self, onnx: i32, place: &str) {
        if dtype(onnx).is_none() {
            self.count_type(type_name(onnx), place);
        }
    }

    fn count_type(&mut self, name: String, place: &str) {
        self.types.entry(name).or_insert_with(|| (place.to_string(), 0)).1 += 1;
    }

    fn finish(self) -> Unsupported {
        let op = |((domain, name), count): ((String, String), usize)| {
            let reason = refusal(&domain, &name);
            UnsupportedOp { domain, name, count, reason }
        };
        let ty = |(name, (place, count))| UnsupportedType { name, place, count };
        let (ops, types) = (self.ops.into_iter().map(op).collect(), self.types.into_iter().map(ty).collect());
        Unsupported { ops, types, forms: Vec::new() }
    }
}

/// Whether the node's operator can be imported.
pub(crate) fn has_rule(node: &NodeProto) -> bool {
    is_supported(standard_domain(&node.domain), &node.op_type)
}

/// The domain, with the long name of ONNX's own made short.
pub(crate) fn standard_domain(domain: &str) -> &str {
    if domain == "ai.onnx" { "" } else { domain }
}

/// How messages name a node: its name, or its operator and first result if it has none.
pub(crate) fn node_path(node: &NodeProto) -> String {
    if !node.name.is_empty() {
        return format!("node `{}` ({})", node.name, node.op_type);
    }
    let output = node.output.first().map_or("", String::as_str);
    format!("{} node that gives `{output}`", node.op_type)
}
