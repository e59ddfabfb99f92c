//! Selections whose number data decides, and the sizes that come of it. ONNX gives them as long as they are; here
//! they fill the room that the IR plans for them.

use eec_ir::graph::Node;
use eec_ir::{Dim, Op, Tensor, ValueId};

use super::super::error::ExportError;
use super::super::proto::AttributeProto;
use super::Exporter;
use super::nodes::int;

impl Exporter<'_> {
    /// Writes a `LateSize`: what needs the size reads it from the operand. Numbers that do not count a selection are
    /// held between 0 and `most`, so that who reads the file knows where they lie; beyond, a run here fails.
    pub(super) fn export_late_size(&mut self, node: &Node, size: &Dim, most: &Dim) -> Result<(), ExportError> {
        let (value, result) = (node.inputs[0], node.outputs[0]);
        let mut name = self.value_name(value);
        let is_scalar = self.graph.ty(value).rank() == 0;
        if is_scalar {
            let shape = self.ints(vec![1]);
            name = self.helper("Reshape", &[&name, &shape], Vec::new());
        }
        let counted = self.graph.def_node(value).map(|n| &self.graph.node(n).op);
        if !matches!(counted, Some(Op::NonZero {} | Op::Unique { .. } | Op::NonMaxSuppression { .. })) {
            let (least, most) = (self.ints(vec![0]), self.sizes(std::slice::from_ref(most))?);
            name = self.helper("Max", &[&name, &least], Vec::new());
            name = self.helper("Min", &[&name, &most], Vec::new());
        }
        if let Some(scope) = self.scopes.last_mut() {
            scope.sizes.insert(size.clone(), name.clone());
        }
        match is_scalar {
            true => {
                let shape = self.ints(Vec::new());
                self.named("Reshape", &[&name, &shape], Vec::new(), result);
            }
            false => self.alias(result, &name),
        }
        Ok(())
    }

    /// Writes a `NonZero`.
    pub(super) fn export_non_zero(&mut self, node: &Node) -> Result<(), ExportError> {
        let x = self.value_name(node.inputs[0]);
        let found = self.helper("NonZero", &[&x], Vec::new());
        self.fill(&found, 1, node.outputs[0])?;
        self.count(&found, 1, node.outputs[1]);
        Ok(())
    }

    /// Writes a `Unique`.
    pub(super) fn export_unique(&mut self, node: &Node, axis: i64, sorted: bool) -> Result<(), ExportError> {
        let x = self.value_name(node.inputs[0]);
        let attributes = vec![int("axis", axis), int("sorted", i64::from(sorted))];
        let [_, first, inverse, counts] = self.helper_with_results("Unique", &[&x], attributes);
        self.fill(&first, 0, node.outputs[0])?;
        self.alias(node.outputs[1], &inverse);
        self.fill(&counts, 0, node.outputs[2])?;
        self.count(&first, 0, node.outputs[3]);
        Ok(())
    }

    /// Writes a `NonMaxSuppression`.
    pub(super) fn export_boxes(&mut self, node: &Node) -> Result<(), ExportError> {
        let Op::NonMaxSuppression { most, overlap, above, centred } = node.op else { return Ok(()) };
        let mut inputs: Vec<String> = node.inputs.iter().map(|v| self.value_name(*v)).collect();
        inputs.push(self.tensor_name(&Tensor::vector(vec![most])));
        inputs.push(self.tensor_name(&Tensor::vector(vec![overlap])));
        if above != f32::NEG_INFINITY {
            inputs.push(self.tensor_name(&Tensor::vector(vec![above])));
        }
        let inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
        let found = self.helper("NonMaxSuppression", &inputs, vec![int("center_point_box", i64::from(centred))]);
        self.fill(&found, 0, node.outputs[0])?;
        self.count(&found, 0, node.outputs[1]);
        Ok(())
    }

    /// `found`, with zeros behind it along `axis` up to the dims of `result`, which it becomes.
    pub(super) fn fill(&mut self, found: &str, axis: usize, result: ValueId) -> Result<(), ExportError> {
        let dims = self.graph.ty(result).dims.clone();
        let count = self.length(found, axis);
        let room = self.sizes(std::slice::from_ref(dims.get(axis).unwrap_or(&Dim::default())))?;
        let missing = self.helper("Sub", &[&room, &count], Vec::new());
        let (before, after) = (dims.len() + axis, dims.len() - 1 - axis);
        let mut parts = vec![self.ints(vec![0; before]), missing];
        if after > 0 {
            parts.push(self.ints(vec![0; after]));
        }
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        let pads = self.helper("Concat", &parts, vec![int("axis", 0)]);
        self.named("Pad", &[found, &pads], Vec::new(), result);
        Ok(())
    }

    /// Makes the length of `found` along `axis` the scalar `result`.
    fn count(&mut self, found: &str, axis: usize, result: ValueId) {
        let (count, shape) = (self.length(found, axis), self.ints(Vec::new()));
        self.named("Reshape", &[&count, &shape], Vec::new(), result);
    }

    fn length(&mut self, found: &str, axis: usize) -> String {
        self.helper("Shape", &[found], vec![int("start", axis as i64), int("end", axis as i64 + 1)])
    }

    /// A node whose one result is that of a node of the graph.
    fn named(&mut self, op: &str, inputs: &[&str], attributes: Vec<AttributeProto>, result: ValueId) {
        let name = self.value_name(result);
        self.note_value(result, name.clone());
        self.helper_as(op, inputs, attributes, &name);
    }
}
