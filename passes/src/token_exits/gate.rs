//! What the learned gate reads: the mean of the text tokens, then the last token.
//!
//! Text is what follows the visual tokens, or precedes them if nothing follows. The mean takes in
//! the last token too, so that it exists for a text of one token.

use eec_ir::{Dim, Graph, Op, ValueId};

use super::Span;
use crate::insert::{Emit, InsertError};
use crate::structure::Structure;

/// The width of the text feature after `block`: twice that of its value; `None` if that is not known.
pub fn text_feature_width(graph: &Graph, structure: &Structure, block: usize) -> Option<usize> {
    let width = graph.ty(structure.blocks.get(block)?.output).dims.last()?.as_const()?;
    usize::try_from(width).ok().map(|w| 2 * w)
}

/// The text feature `[rows, 2*width]` of `x` `[rows, length, width]`.
pub(crate) fn text_feature(emit: &mut Emit, span: &Span, length: &Dim, x: ValueId) -> Result<ValueId, InsertError> {
    let (start, end) = match span.after() == Dim::default() {
        true => (Dim::default(), span.start.clone()),
        false => (length - &span.after(), length.clone()),
    };
    let part =
        |start: &Dim| Op::Slice { axes: vec![1], starts: vec![start.clone()], ends: vec![end.clone()], steps: vec![1] };
    let text = emit.op("text", part(&start), &[x])?;
    let mean = emit.op("mean", Op::ReduceMean { axes: vec![1], keepdims: false }, &[text])?;
    let last = emit.op("last", part(&(&end - &Dim::from(1))), &[x])?;
    let dims = emit.ty(mean).dims.clone();
    let last = emit.op("last-row", Op::Reshape { dims }, &[last])?;
    Ok(emit.op("feature", Op::Concat { axis: 1 }, &[mean, last])?)
}

/// The plain model with the text features after `blocks` as further outputs `feature.K` (f32
/// `[batch, 2*width]`). Other outputs of the model than the main one are dropped.
pub fn with_taps(graph: &Graph, structure: &Structure, span: &Span, blocks: &[usize]) -> Result<Graph, InsertError> {
    let mut target = graph.clone();
    let name = graph.output_names().get(structure.main_output).map(|n| n.to_string()).unwrap_or_default();
    let mut outputs = vec![(name, structure.output)];
    for block in blocks {
        let count = structure.blocks.len();
        let at = structure.blocks.get(*block).ok_or(InsertError::NoBlock { block: *block, count })?;
        let name = format!("feature.{block}");
        let mut emit = Emit::new(&mut target, Graph::ROOT, "token-exits", name.clone());
        outputs.push((name, text_feature(&mut emit, span, &span.sequence, at.output)?));
    }
    target.set_outputs(outputs);
    target.remove_dead();
    Ok(target)
}
