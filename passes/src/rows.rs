//! Row alignment: where the batch lies in every value, and which operators keep samples apart.
//!
//! A value's elements in row-major order are `[outer, batch, inner]` for some `outer`; the batch
//! may share a dim with others (`[64*batch, 96]`). Operators that mix samples, or of which that
//! cannot be excluded, have a problem with a reason; values after them are placed by their form.

use eec_ir::{Dim, Graph, NodeId, Op, RegionId, Symbol, Type, ValueId, elementwise_broadcast, elementwise_unary};

/// How a value relates to the batch.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Track {
    /// Its type does not mention the batch: it is the same for all samples.
    Free,
    /// One slice per sample; the dim is the product of sizes before the batch.
    Rows(Dim),
}

/// The batch's place in the values of a graph's root region.
#[derive(Clone, Debug)]
pub struct Rows {
    tracks: Vec<Option<Track>>,
    problems: Vec<Option<String>>,
}

impl Rows {
    /// Analyses the root region of `graph`; `batch` is the size that counts samples.
    pub fn analyse(graph: &Graph, batch: &Symbol) -> Rows {
        Rows::of_region(graph, Graph::ROOT, batch)
    }

    fn of_region(graph: &Graph, region: RegionId, batch: &Symbol) -> Rows {
        let cx = Context { graph, batch: batch.clone().into() };
        let by_form = (0..graph.value_count()).map(|i| cx.by_form(graph.ty(ValueId::new(i)))).collect();
        let mut rows = Rows { tracks: by_form, problems: vec![None; graph.node_count()] };
        for id in &graph.region(region).nodes {
            let node = graph.node(*id);
            if let Op::Loop { .. } = node.op {
                // Its results are where their form says.
                if let Err(reason) = cx.repeated(*id, &rows.tracks) {
                    rows.problems[id.index()] = Some(format!("{}: {reason}", graph.describe(*id)));
                }
                continue;
            }
            match cx.node(*id, &rows.tracks) {
                Ok(track) => node.outputs.iter().for_each(|v| rows.tracks[v.index()] = Some(track.clone())),
                Err(reason) => rows.problems[id.index()] = Some(format!("{}: {reason}", graph.describe(*id))),
            }
        }
        rows
    }

    /// Where the batch lies in `value`; `None` if that is not known.
    pub fn track(&self, value: ValueId) -> Option<&Track> {
        self.tracks.get(value.index()).and_then(Option::as_ref)
    }

    /// Why `node` may mix samples; `None` if it keeps them apart.
    pub fn problem(&self, node: NodeId) -> Option<&str> {
        self.problems.get(node.index()).and_then(Option::as_deref)
    }
}

/// The axis that holds the batch, and the factors of that axis before it.
#[derive(Clone, PartialEq, Debug)]
struct Place {
    axis: usize,
    lead: Dim,
}

/// The axis of `ty` in which the batch lies when `outer` elements' worth of sizes precede it.
fn place(ty: &Type, outer: &Dim, batch: &Dim) -> Option<Place> {
    let mut before = Dim::from(1);
    for (axis, dim) in ty.dims.iter().enumerate() {
        let lead = outer.exact_div(&before)?;
        if dim.exact_div(&(&lead * batch)).is_some() {
            return Some(Place { axis, lead });
        }
        before = &before * dim;
    }
    None
}

/// The track of a value whose axis `axis` holds the batch after `lead`.
fn rows_at(ty: &Type, axis: usize, lead: &Dim) -> Track {
    Track::Rows(&Dim::product(&ty.dims[..axis.min(ty.rank())]) * lead)
}

/// An operand as the rules see it.
struct Operand<'a> {
    ty: &'a Type,
    /// `None` for values that are free of the batch.
    place: Option<Place>,
}

impl Operand<'_> {
    /// The batch's place, which must not be in one of the axes that `forbidden` accepts.
    fn outside(&self, forbidden: impl Fn(usize) -> bool, what: &str) -> Result<(), String> {
        match &self.place {
            Some(p) if forbidden(p.axis) => Err(format!("{what} runs along axis {}, which holds the batch", p.axis)),
            _ => Ok(()),
        }
    }
}

struct Context<'a> {
    graph: &'a Graph,
    batch: Dim,
}

impl Context<'_> {
    /// The track of a type on its own: free, or the one dim that is the batch.
    fn by_form(&self, ty: &Type) -> Option<Track> {
        let symbol = self.batch.as_symbol()?;
        let mut mentions = ty.dims.iter().enumerate().filter(|(_, d)| d.mentions(symbol));
        match (mentions.next(), mentions.next()) {
            (None, _) => Some(Track::Free),
            (Some((axis, dim)), None) if *dim == self.batch => Some(rows_at(ty, axis, &Dim::from(1))),
            _ => None,
        }
    }

    fn node(&self, id: NodeId, tracks: &[Option<Track>]) -> Result<Track, String> {
        let node = self.graph.node(id);
        let out = node.outputs.first().map(|v| self.graph.ty(*v)).ok_or("it has no results")?;
        let operands: Vec<Operand> =
            node.inputs.iter().map(|v| self.operand(*v, &tracks[v.index()])).collect::<Result<_, _>>()?;
        if operands.iter().all(|o| o.place.is_none()) && !node.op.is_control() {
            return self.by_form(out).ok_or_else(|| format!("the batch's place in {out} is not known"));
        }
        if let Op::Route { .. } = node.op {
            return self.route(id, &operands, out);
        }
        self.rule(&node.op, &node.inputs, &operands, out)
    }

    /// Rows that are samples or parts of them, as tokens are: they stay apart if the regions keep
    /// their own rows apart.
    fn route(&self, id: NodeId, operands: &[Operand], out: &Type) -> Result<Track, String> {
        let mask = operands.first().and_then(|o| o.place.clone()).filter(|p| p.axis == 0);
        let at = mask.ok_or("its mask is the same for all samples")?;
        if operands.iter().any(|o| o.place.as_ref() != Some(&at)) {
            return Err("its operands hold the batch in different places".into());
        }
        for region in &self.graph.node(id).regions {
            self.keeps_rows(*region)?;
        }
        Ok(rows_at(out, 0, &at.lead))
    }

    /// An error if a region of a `Route` may mix its rows.
    fn keeps_rows(&self, region: RegionId) -> Result<(), String> {
        let inner = self.graph.region(region);
        let symbol = inner.rows.as_ref().ok_or("its region has no rows")?;
        let rows = Rows::of_region(self.graph, region, symbol);
        if let Some(reason) = inner.nodes.iter().find_map(|n| rows.problem(*n)) {
            return Err(reason.to_string());
        }
        let first = Track::Rows(Dim::from(1));
        let moved = inner.yields.iter().find(|v| rows.track(**v) != Some(&first));
        moved.map_or(Ok(()), |v| Err(format!("its region yields {v} in another order of rows")))
    }

    /// The steps of a `Loop` keep rows apart if its body does, and if what is carried has the batch where
    /// its form says, before the first step and after each. Its condition is one for all rows: how it comes
    /// about is judged where it does.
    fn repeated(&self, id: NodeId, tracks: &[Option<Track>]) -> Result<(), String> {
        let (node, batch) = (self.graph.node(id), self.batch.as_symbol().ok_or("the batch is no symbol")?);
        if matches!(&node.op, Op::Loop { trips } if trips.mentions(batch)) {
            return Err("it takes a step for every sample".into());
        }
        let body = self.graph.region(*node.regions.first().ok_or("it has no region")?);
        let rows = Rows::of_region(self.graph, node.regions[0], batch);
        if let Some(reason) = body.nodes.iter().find_map(|n| rows.problem(*n)) {
            return Err(reason.to_string());
        }
        let usual = |value: ValueId| self.by_form(self.graph.ty(value));
        let known = |value: ValueId, track: Option<&Track>| match usual(value) {
            Some(form) if track == Some(&form) => Ok(()),
            _ => Err(format!("the batch's place in {value} of type {} is not known", self.graph.ty(value))),
        };
        node.inputs.iter().try_for_each(|v| known(*v, tracks[v.index()].as_ref()))?;
        body.yields.iter().try_for_each(|v| known(*v, rows.track(*v)))?;
        node.outputs.iter().try_for_each(|v| known(*v, usual(*v).as_ref()))
    }

    fn operand(&self, value: ValueId, track: &Option<Track>) -> Result<Operand<'_>, String> {
        let ty = self.graph.ty(value);
        let place = match track {
            Some(Track::Free) => None,
            Some(Track::Rows(outer)) => Some(
                place(ty, outer, &self.batch).ok_or_else(|| format!("the batch shares a dim of {ty} with others"))?,
            ),
            None => {
                return Err(format!("the batch's place in operand {value} of type {ty} is not known"));
            }
        };
        Ok(Operand { ty, place })
    }

    fn rule(&self, op: &Op, inputs: &[ValueId], operands: &[Operand], out: &Type) -> Result<Track, String> {
        let (first, rest) = operands.split_first().ok_or("it has no operands")?;
        let rank = first.ty.rank();
        match op {
            elementwise_unary!() | elementwise_broadcast!() | Op::Expand { .. } => broadcast(operands, out),
            Op::MatMul { .. } => matmul(operands, out),
            Op::Gemm { trans_a, trans_b, .. } => gemm(operands, out, *trans_a, *trans_b),
            Op::Conv { .. } | Op::MaxPool { .. } | Op::AveragePool { .. } => {
                rest.iter().try_for_each(|o| o.outside(|_| true, "its weight"))?;
                first.outside(|axis| axis != 0, "its window or channel sum")?;
                same_axis(first, out)
            }
            Op::Softmax { axis }
            | Op::LogSoftmax { axis }
            | Op::CumSum { axis, .. }
            | Op::CumProd { axis, .. }
            | Op::TopK { axis, .. } => {
                let axis = normal(*axis, rank)?;
                first.outside(|a| a == axis, "it")?;
                same_axis(first, out)
            }
            Op::LayerNormalization { axis, .. } => {
                let axis = normal(*axis, rank)?;
                rest.iter().try_for_each(|o| o.outside(|_| true, "its scale or bias"))?;
                first.outside(|a| a >= axis, "it")?;
                same_axis(first, out)
            }
            Op::ReduceSum { axes, keepdims }
            | Op::ReduceMean { axes, keepdims }
            | Op::ReduceProd { axes, keepdims }
            | Op::ReduceMax { axes, keepdims }
            | Op::ReduceMin { axes, keepdims } => reduce(first, axes, *keepdims, out),
            Op::ArgMax { axis, keepdims } => reduce(first, &[*axis], *keepdims, out),
            Op::Reshape { .. } => reshape(first, out, &self.batch),
            Op::Transpose { perm } => transpose(first, perm, out),
            Op::Concat { axis } => concat(operands, normal(*axis, out.rank())?, out),
            Op::Slice { axes, starts, ends, steps } => {
                let cuts = sliced_axes(first.ty, axes, starts, ends, steps)?;
                first.outside(|a| cuts.contains(&a), "the slice")?;
                same_axis(first, out)
            }
            Op::Pad { pads } => {
                rest.iter().try_for_each(|o| o.outside(|_| true, "the padding value"))?;
                let padded = |a: usize| [a, a + rank].iter().any(|i| pads.get(*i) != Some(&Dim::default()));
                first.outside(padded, "the padding")?;
                same_axis(first, out)
            }
            Op::Gather { axis } => gather(operands, normal(*axis, rank)?, out),
            Op::GatherElements { axis } => {
                let axis = normal(*axis, rank)?;
                operands.iter().try_for_each(|o| o.outside(|a| a == axis, "the indexing"))?;
                together(operands, out)
            }
            Op::DeformConv { .. } => deform_conv(operands, out),
            Op::Det {} => reduce(first, &[-2, -1], false, out),
            Op::ScatterElements { .. } | Op::ScatterND { .. } | Op::RoiAlign { .. } => {
                Err("rows are not followed through it".into())
            }
            Op::NonZero {} | Op::Unique { .. } | Op::NonMaxSuppression { .. } | Op::LateSize { .. } => {
                Err("how many it gives depends on all rows".into())
            }
            Op::GatherND { batch_dims } => self.gather_nd(inputs, operands, *batch_dims, out),
            Op::Shape { .. } | Op::Sizes { .. } | Op::Range { .. } => Err("its value depends on the batch size".into()),
            Op::If { .. } | Op::Route { .. } | Op::Loop { .. } => Err("it holds regions that were not analysed".into()),
        }
    }

    /// Rows stay apart if the batch is among the batch dims, or if the first index is the row's own
    /// number.
    fn gather_nd(
        &self,
        inputs: &[ValueId],
        operands: &[Operand],
        batch_dims: i64,
        out: &Type,
    ) -> Result<Track, String> {
        let [data, indices] = operands else {
            return Err(format!("expected 2 operands, found {}", operands.len()));
        };
        let at_front = |o: &Operand| o.place == Some(Place { axis: 0, lead: Dim::from(1) });
        if !at_front(data) || !at_front(indices) || data.ty.dims[0] != self.batch || indices.ty.dims[0] != self.batch {
            return Err("the indexing does not keep the batch as first dim of data and indices".into());
        }
        let by_number = batch_dims == 0 && inputs.get(1).is_some_and(|v| numbers_rows(self.graph, *v, &self.batch));
        if batch_dims > 0 || by_number {
            Ok(rows_at(out, 0, &Dim::from(1)))
        } else {
            Err("its first index is not the row's own number".into())
        }
    }
}

/// Whether the index tuples `indices` begin with the number of their own row.
fn numbers_rows(graph: &Graph, indices: ValueId, batch: &Dim) -> bool {
    let Some(node) = graph.def_node(indices).map(|n| graph.node(n)) else {
        return false;
    };
    let last = graph.ty(indices).rank() as i64 - 1;
    match (&node.op, node.inputs.first()) {
        (Op::Concat { axis }, Some(first)) if *axis == -1 || *axis == last => {
            let one_index = graph.ty(*first).dims.last().and_then(Dim::as_const) == Some(1);
            one_index && is_row_number(graph, *first, batch)
        }
        _ => false,
    }
}

/// Whether a value, moved and broadcast only, holds the row's number: `Range(0, batch)`.
fn is_row_number(graph: &Graph, value: ValueId, batch: &Dim) -> bool {
    let Some(node) = graph.def_node(value).map(|n| graph.node(n)) else {
        return false;
    };
    let first_is_batch = graph.ty(value).dims.first() == Some(batch);
    match (&node.op, node.inputs.first()) {
        (Op::Range { start, limit, delta: 1 }, _) => *start == Dim::default() && limit == batch,
        (Op::Reshape { .. } | Op::Expand { .. } | Op::Cast { .. }, Some(from)) => {
            first_is_batch && is_row_number(graph, *from, batch)
        }
        _ => false,
    }
}

/// An axis that may count from the end, from the front.
pub(crate) fn normal(axis: i64, rank: usize) -> Result<usize, String> {
    let from_front = if axis < 0 { axis + rank as i64 } else { axis };
    usize::try_from(from_front).ok().filter(|a| *a < rank).ok_or_else(|| format!("axis {axis} is outside rank {rank}"))
}

/// The axes of which a slice does not keep everything in order.
fn sliced_axes(ty: &Type, axes: &[i64], starts: &[Dim], ends: &[Dim], steps: &[i64]) -> Result<Vec<usize>, String> {
    let mut cuts = Vec::new();
    for (i, axis) in axes.iter().enumerate() {
        let axis = normal(*axis, ty.rank())?;
        let from_start = starts.get(i) == Some(&Dim::default()) && steps.get(i) == Some(&1);
        if !from_start || ends.get(i) != ty.dims.get(axis) {
            cuts.push(axis);
        }
    }
    Ok(cuts)
}

/// The result keeps the batch in the axis it had.
fn same_axis(operand: &Operand, out: &Type) -> Result<Track, String> {
    Ok(operand.place.as_ref().map_or(Track::Free, |p| rows_at(out, p.axis, &p.lead)))
}

/// Operands aligned at their last axes; sizes of 1 repeat.
fn broadcast(operands: &[Operand], out: &Type) -> Result<Track, String> {
    let mut found: Option<Place> = None;
    for (operand, p) in operands.iter().filter_map(|o| Some((o, o.place.as_ref()?))) {
        let axis = (p.axis + out.rank()).checked_sub(operand.ty.rank()).ok_or("its result has fewer dims")?;
        if out.dims.get(axis) != operand.ty.dims.get(p.axis) {
            return Err(format!("the batch's dim of {} is broadcast in {out}", operand.ty));
        }
        let here = Place { axis, lead: p.lead.clone() };
        if found.as_ref().is_some_and(|f| *f != here) {
            return Err("its operands hold the batch in different places".into());
        }
        found = Some(here);
    }
    let Some(p) = found else {
        return Ok(Track::Free);
    };
    for operand in operands.iter().filter(|o| o.place.is_none()) {
        let at = (p.axis + operand.ty.rank()).checked_sub(out.rank());
        if let Some(size) = at.and_then(|a| operand.ty.dims.get(a)).filter(|d| d.as_const() != Some(1)) {
            return Err(format!("the batch meets size {size} of {}", operand.ty));
        }
    }
    Ok(rows_at(out, p.axis, &p.lead))
}

/// The batch may be among the broadcast dims of both operands, among the rows of the first or the
/// columns of the second, never in the sum.
fn matmul(operands: &[Operand], out: &Type) -> Result<Track, String> {
    let [a, b] = operands else {
        return Err(format!("expected 2 operands, found {}", operands.len()));
    };
    let (ra, rb) = (a.ty.rank(), b.ty.rank());
    if ra < 2 || rb < 2 {
        return Err(format!("a product of {} and {} is not followed", a.ty, b.ty));
    }
    a.outside(|axis| axis == ra - 1, "the sum")?;
    b.outside(|axis| axis == rb - 2, "the sum")?;
    let in_matrix = |o: &Operand| o.place.as_ref().is_some_and(|p| p.axis + 2 >= o.ty.rank());
    let cut = |ty: &Type| Type::new(ty.dtype, ty.dims[..ty.rank() - 2].iter().cloned());
    match (&a.place, &b.place) {
        (Some(p), None) if in_matrix(a) => Ok(rows_at(out, out.rank() - 2, &p.lead)),
        (None, Some(p)) if in_matrix(b) => Ok(rows_at(out, out.rank() - 1, &p.lead)),
        _ if in_matrix(a) || in_matrix(b) => Err("every row of one sample meets those of the others".into()),
        _ => {
            let (ta, tb, to) = (cut(a.ty), cut(b.ty), cut(out));
            let outer = [Operand { ty: &ta, place: a.place.clone() }, Operand { ty: &tb, place: b.place.clone() }];
            let track = broadcast(&outer, &to)?;
            Ok(track)
        }
    }
}

fn gemm(operands: &[Operand], out: &Type, trans_a: bool, trans_b: bool) -> Result<Track, String> {
    let (Some(a), Some(b)) = (operands.first(), operands.get(1)) else {
        return Err(format!("expected 2 or 3 operands, found {}", operands.len()));
    };
    let (row, column) = (usize::from(trans_a), usize::from(!trans_b));
    a.outside(|axis| axis != row, "the sum")?;
    b.outside(|axis| axis != column, "the sum")?;
    let here = match (&a.place, &b.place) {
        (Some(p), None) => Place { axis: 0, lead: p.lead.clone() },
        (None, Some(p)) => Place { axis: 1, lead: p.lead.clone() },
        _ => return Err("every row of one sample meets those of the others".into()),
    };
    let product = Operand { ty: out, place: Some(here) };
    let addend = operands.get(2).map(|c| Operand { ty: c.ty, place: c.place.clone() });
    broadcast(&std::iter::once(product).chain(addend).collect::<Vec<_>>(), out)
}

/// Images, offsets and masks hold the batch as their first axis.
fn deform_conv(operands: &[Operand], out: &Type) -> Result<Track, String> {
    let [x, weight, offset, bias, mask @ ..] = operands else {
        return Err(format!("expected 4 or 5 operands, found {}", operands.len()));
    };
    [weight, bias].into_iter().try_for_each(|o| o.outside(|_| true, "its weight"))?;
    x.outside(|axis| axis != 0, "its window or channel sum")?;
    if mask.iter().chain([offset]).any(|o| o.place != x.place) {
        return Err("its operands hold the batch in different places".into());
    }
    same_axis(x, out)
}

fn reduce(operand: &Operand, axes: &[i64], keepdims: bool, out: &Type) -> Result<Track, String> {
    let rank = operand.ty.rank();
    let axes = axes.iter().map(|a| normal(*a, rank)).collect::<Result<Vec<_>, _>>()?;
    operand.outside(|a| axes.is_empty() || axes.contains(&a), "the reduction")?;
    let Some(p) = &operand.place else {
        return Ok(Track::Free);
    };
    let dropped = if keepdims { 0 } else { axes.iter().filter(|a| **a < p.axis).count() };
    Ok(rows_at(out, p.axis - dropped, &p.lead))
}

fn reshape(operand: &Operand, out: &Type, batch: &Dim) -> Result<Track, String> {
    let Some(p) = &operand.place else {
        return Ok(Track::Free);
    };
    let outer = &Dim::product(&operand.ty.dims[..p.axis]) * &p.lead;
    match place(out, &outer, batch) {
        Some(_) => Ok(Track::Rows(outer)),
        None => Err(format!("reshaping {} to {out} spreads the batch over dims", operand.ty)),
    }
}

fn transpose(operand: &Operand, perm: &[i64], out: &Type) -> Result<Track, String> {
    let Some(p) = &operand.place else {
        return Ok(Track::Free);
    };
    let to = perm.iter().position(|a| *a == p.axis as i64).ok_or("its permutation leaves out the batch's axis")?;
    Ok(rows_at(out, to, &p.lead))
}

/// All operands hold the batch in the same place.
fn together(operands: &[Operand], out: &Type) -> Result<Track, String> {
    let first = operands.first().and_then(|o| o.place.clone()).ok_or("only some operands depend on the batch")?;
    if operands.iter().any(|o| o.place.as_ref() != Some(&first)) {
        return Err("its operands hold the batch in different places".into());
    }
    Ok(rows_at(out, first.axis, &first.lead))
}

fn concat(operands: &[Operand], axis: usize, out: &Type) -> Result<Track, String> {
    operands.iter().try_for_each(|o| o.outside(|a| a == axis, "the concatenation"))?;
    together(operands, out)
}

fn gather(operands: &[Operand], axis: usize, out: &Type) -> Result<Track, String> {
    let [data, indices] = operands else {
        return Err(format!("expected 2 operands, found {}", operands.len()));
    };
    match (&data.place, &indices.place) {
        (Some(p), None) if p.axis == axis => Err(format!("the indexing runs along axis {axis}, which holds the batch")),
        (Some(p), None) if p.axis < axis => Ok(rows_at(out, p.axis, &p.lead)),
        (Some(p), None) => Ok(rows_at(out, p.axis + indices.ty.rank() - 1, &p.lead)),
        (None, Some(p)) => Ok(rows_at(out, p.axis + axis, &p.lead)),
        _ => Err("data and indices both depend on the batch".into()),
    }
}
