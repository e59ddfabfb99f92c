//! What a sample costs that leaves at each candidate, in multiply-accumulates.

use eec_ir::{Dim, Graph, Symbol, cost};
use eec_passes::exit_heads::Head;
use eec_passes::pass::{Context, Pass};
use eec_passes::select_early::SelectEarly;
use eec_passes::truncate::truncate;

use super::work::{Base, pass_error};
use crate::Error;
use crate::calibrate::Costs;
use crate::dataset::Dataset;

/// Early exits: the model up to each candidate, with and without its head, as it would run: a row that may go
/// on needs the whole of a block, the model and its fixed depths only what they read at their ends. Regions of
/// decisions are not counted, so with some before an exit only `head` holds.
pub(super) fn of_exits(base: &Base, blocks: &[usize], heads: &[Head], data: &Dataset) -> Result<Costs, Error> {
    let macs = |dim: &Dim| per_sample(base, dim, data);
    let mut backbone = macs(&base.structure.stem.macs)?;
    let mut before = 0;
    let (mut segment, mut head, mut alone) = (Vec::new(), Vec::new(), Vec::new());
    let read = |mut graph: Graph| {
        SelectEarly.run(&mut graph, &mut Context::default()).map_err(pass_error(SelectEarly::NAME))?;
        macs(&cost::graph_macs(&graph))
    };
    let mut exits = blocks.iter().zip(heads).peekable();
    for block in &base.structure.blocks {
        backbone += macs(&block.part.macs)?;
        if let Some((_, h)) = exits.next_if(|(b, _)| **b == block.index) {
            segment.push(backbone - before);
            before = backbone;
            let cut = truncate(base.graph, base.structure, block.index, h).map_err(pass_error("truncate"))?;
            head.push(macs(&cost::graph_macs(&cut))?.saturating_sub(backbone));
            alone.push(read(cut)?);
        }
    }
    let tail = read(base.graph.clone())?.saturating_sub(before);
    Ok(Costs { segment, head, tail, alone })
}

/// A size for one sample, other dims as in the data.
fn per_sample(base: &Base, dim: &Dim, data: &Dataset) -> Result<u64, Error> {
    let batch = base.structure.batch.dim();
    let find = |s: &Symbol| {
        if batch.as_symbol() == Some(s) {
            return Some(1);
        }
        let places = base.graph.inputs().iter().zip(&data.inputs);
        let mut sizes = places.flat_map(|(v, (_, t))| base.graph.ty(*v).dims.iter().zip(t.dims()));
        sizes.find(|(d, _)| d.as_symbol() == Some(s)).map(|(_, n)| *n as i64)
    };
    let value = dim.eval(&find).and_then(|n| u64::try_from(n).ok());
    value.ok_or_else(|| Error::request(format!("the cost {dim} cannot be evaluated for this data")))
}
