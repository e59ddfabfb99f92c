//! Functions that a model defines: a call is replaced by the function's nodes.
//!
//! Specification: <https://onnx.ai/onnx/repo-docs/IR.html#functions>.

use std::collections::HashMap;
use std::rc::Rc;

use eec_ir::{RegionId, ValueId};

use super::super::error::{Failure, Refusal, refuse};
use super::super::proto::{AttributeProto, FunctionProto, NodeProto};
use super::super::survey::standard_domain;
use super::{Binding, Importer, Scope, file};

/// A model's own functions, by domain, name and overload.
#[derive(Default)]
pub(crate) struct Functions(HashMap<(String, String, String), Rc<FunctionProto>>);

impl Functions {
    /// The functions; an error names one that is defined twice.
    pub(super) fn new(list: Vec<FunctionProto>) -> Result<Self, String> {
        let mut functions = HashMap::with_capacity(list.len());
        for function in list {
            let key = key(&function.domain, &function.name, &function.overload);
            let name = function.name.clone();
            if functions.insert(key, Rc::new(function)).is_some() {
                return Err(format!("the function `{name}` is defined twice"));
            }
        }
        Ok(Functions(functions))
    }

    /// The function that `node` calls, if it calls one.
    pub(crate) fn called(&self, node: &NodeProto) -> Option<&Rc<FunctionProto>> {
        // Most models have none, and the key is made of three texts.
        if self.0.is_empty() { None } else { self.0.get(&key(&node.domain, &node.op_type, &node.overload)) }
    }
}

fn key(domain: &str, name: &str, overload: &str) -> (String, String, String) {
    (standard_domain(domain).to_string(), name.to_string(), overload.to_string())
}

impl Importer<'_> {
    /// Appends the nodes of `function` for a call of it. Names of the caller are not seen inside.
    pub(super) fn import_call(
        &mut self,
        region: RegionId,
        node: NodeProto,
        function: &FunctionProto,
    ) -> Result<Option<Vec<ValueId>>, Failure> {
        let nodes = body(function, node.attribute)?;
        let opset = file::opset_of(&function.opset_import, &function.node);
        let opset = opset.map_err(|reason| Refusal::new(format!("the function {reason}")))?;
        let scope = self.parameters(function, &node.input)?;
        self.budget.enter()?;
        let scopes = std::mem::replace(&mut self.scopes, vec![scope]);
        let caller = std::mem::replace(&mut self.opset, opset);
        let asked = node.output.len().min(function.output.len());
        let results = self.import_function(region, nodes, &function.output[..asked]);
        self.scopes = scopes;
        self.opset = caller;
        self.budget.leave();
        results
    }

    /// The function's parameters, bound to the operands; those left out are absent inside.
    fn parameters(&mut self, function: &FunctionProto, operands: &[String]) -> Result<Scope, Refusal> {
        if operands.len() > function.input.len() {
            return refuse(format!("{} operands for {} parameters", operands.len(), function.input.len()));
        }
        let given = self.operands(operands)?;
        let mut scope = Scope::with_capacity(function.input.len());
        for (i, name) in function.input.iter().enumerate() {
            let binding = given.get(i).copied().flatten().map_or(Binding::Absent, Binding::Value);
            if scope.insert(name.clone(), binding).is_some() {
                return refuse(format!("the function's parameter `{name}` occurs twice"));
            }
        }
        Ok(scope)
    }

    fn import_function(
        &mut self,
        region: RegionId,
        nodes: Vec<NodeProto>,
        results: &[String],
    ) -> Result<Option<Vec<ValueId>>, Failure> {
        self.import_nodes(region, nodes, &HashMap::new())?;
        if results.iter().any(|name| self.is_unknown(name)) {
            return Ok(None);
        }
        let results = results.iter().map(|name| self.lookup(name)).collect::<Result<Vec<_>, _>>()?;
        Ok(Some(results))
    }
}

/// The function's nodes with the attributes of a call.
fn body(function: &FunctionProto, given: Vec<AttributeProto>) -> Result<Vec<NodeProto>, Refusal> {
    let known = |name: &str| {
        function.attribute.iter().any(|a| a == name) || function.attribute_proto.iter().any(|a| a.name == name)
    };
    if let Some(other) = given.iter().find(|a| !known(&a.name)) {
        return refuse(format!("the function has no attribute `{}`", other.name));
    }
    let defaults = function.attribute_proto.iter().map(|a| (a.name.as_str(), a));
    let values: HashMap<&str, &AttributeProto> = defaults.chain(given.iter().map(|a| (a.name.as_str(), a))).collect();
    let mut nodes = function.node.clone();
    resolve(&mut nodes, &values);
    Ok(nodes)
}

/// Puts the values of the function's attributes in the place of references to them, also in the graphs
/// inside. A reference to an attribute that the call leaves out goes: the node's own default holds then.
fn resolve(nodes: &mut [NodeProto], values: &HashMap<&str, &AttributeProto>) {
    for attributes in nodes.iter_mut().map(|n| &mut n.attribute) {
        attributes.retain(|a| a.ref_attr_name.is_empty() || values.contains_key(a.ref_attr_name.as_str()));
        for attribute in attributes {
            let referred = Some(attribute.ref_attr_name.as_str()).filter(|name| !name.is_empty());
            if let Some(value) = referred.and_then(|name| values.get(name)) {
                let name = std::mem::take(&mut attribute.name);
                *attribute = AttributeProto { name, ..(*value).clone() };
            } else if let Some(graph) = &mut attribute.g {
                resolve(&mut graph.node, values);
            }
        }
    }
}
