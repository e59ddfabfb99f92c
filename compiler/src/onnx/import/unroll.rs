//! `Loop` and `Scan`: their steps one after the other, as many as are known before a run. Where they are not,
//! or are many, `repeat` goes on.
//!
//! Specification: <https://onnx.ai/onnx/operators/onnx__Loop.html>,
//! <https://onnx.ai/onnx/operators/onnx__Scan.html>.

use std::collections::HashMap;

use eec_ir::ops::control::MAX_STEPS;
use eec_ir::{DType, Dim, Op, RegionId, Tensor, ValueId};

use super::super::error::{Failure, NodeResult, Refusal, refuse};
use super::super::proto::NodeProto;
use super::Importer;
use super::control::{Body, check_count};
use super::interface::{Declared, declared_types};
use super::node::{Cx, axis_index};

/// A `Loop` between two steps.
pub(super) struct Turn {
    /// Whether there is another step.
    pub(super) condition: ValueId,
    pub(super) carried: Vec<ValueId>,
    /// What the steps so far gave, per scan output.
    pub(super) rows: Vec<Vec<ValueId>>,
}

/// How often a `Loop` runs at most.
pub(super) enum Trips {
    Known(usize),
    /// So often as the size of some dim says.
    Size(Dim),
    /// So often as this value says.
    Data(ValueId),
    Unbounded,
}

/// Why a loop cannot stack up what its steps give.
pub(super) const ROWS_OF_DATA: &str =
    "how often it runs depends on data, so do the sizes of its results, and nothing tells how often at most";

/// So many steps at most are made ready where data decides how many run; a longer loop counts them while it
/// runs.
const GUARDED_STEPS: usize = 16;

/// A `Scan`'s last states, and what the steps gave, per scan output.
type Scanned = (Vec<ValueId>, Vec<Vec<ValueId>>);

/// What a `Scan` reads.
pub(super) struct Source {
    pub(super) value: ValueId,
    pub(super) axis: usize,
    pub(super) backwards: bool,
}

impl Importer<'_> {
    /// Imports a `Loop`. Where data decides which of a few steps run, each becomes an `If` that passes the
    /// carried values on where the loop has ended.
    pub(super) fn import_loop(
        &mut self,
        region: RegionId,
        mut node: NodeProto,
    ) -> Result<Option<Vec<ValueId>>, Failure> {
        let body = Body::take(&mut node, "body", "body")?;
        let operands = self.operands(&node.input)?;
        let carried = operands.iter().skip(2).enumerate();
        let carried = carried.map(|(i, v)| v.ok_or_else(|| Refusal::new(format!("operand {} is missing", i + 2))));
        let carried = carried.collect::<NodeResult<Vec<_>>>()?;
        check_count("inputs", body.inputs.len(), carried.len() + 2)?;
        let scans = body.outputs.len().checked_sub(carried.len() + 1);
        let scans = scans.ok_or_else(|| Refusal::new("the body gives fewer results than the loop carries"))?;
        let trips = operands.first().copied().flatten().map_or(Trips::Unbounded, |count| self.trips(count));
        let condition = operands.get(1).copied().flatten();
        let condition = condition.unwrap_or_else(|| self.graph.constant(Tensor::scalar(1u8)));
        let declared = declared_types(&body.graph);
        let turn = Turn { condition, carried, rows: vec![Vec::new(); scans] };
        let names: Vec<String> = body.outputs[body.outputs.len() - scans..].to_vec();
        self.with_body(body, |importer, body| {
            if importer.is_long(&trips) && importer.known_truth(turn.condition) != Some(false) {
                let Some(round) = importer.import_round(&node, body, (&trips, 0), &turn.carried)? else {
                    return Ok(None);
                };
                let by_number = matches!(trips, Trips::Known(_)) && !round.counts_rows(&importer.graph);
                // Rows until a condition that the step's number decides can only be told by making the steps.
                if !by_number {
                    return importer.close_loop(region, &node, body, (&trips, 0), turn, round);
                }
            }
            let none = matches!(trips, Trips::Known(0)) || importer.known_truth(turn.condition) == Some(false);
            let told = |name: &String| declared.get(name).is_some_and(Declared::is_constant);
            if none && !names.iter().all(told) {
                // Only the body tells the dims of a row.
                let condition = importer.graph.constant(Tensor::scalar(1u8));
                let (turn, at) = (Turn { condition, ..turn }, (&Trips::Known(0), 0));
                let Some(round) = importer.import_round(&node, body, at, &turn.carried)? else { return Ok(None) };
                return importer.close_loop(region, &node, body, at, turn, round);
            }
            let turn = match importer.loop_steps(region, &node, body, &trips, turn)? {
                Some(Steps::All(turn)) => turn,
                Some(Steps::Until(step, turn)) => {
                    let Some(round) = importer.import_round(&node, body, (&trips, step), &turn.carried)? else {
                        return Ok(None);
                    };
                    return importer.close_loop(region, &node, body, (&trips, step), turn, round);
                }
                None => return Ok(None),
            };
            let mut results = turn.carried;
            for (rows, name) in turn.rows.iter().zip(&names) {
                let mut cx = importer.context(region, node.clone(), Vec::new());
                results.push(stacked(&mut cx, rows, 0, declared.get(name))?);
            }
            Ok(Some(results))
        })
    }

    /// The number that the operand `value` holds.
    fn trips(&self, value: ValueId) -> Trips {
        let stored = || self.graph.as_constant(value).and_then(Tensor::to_i64s)?.first().copied();
        match self.graph.value(value).contents.as_ref().and_then(|c| c.first()) {
            None => stored().map_or(Trips::Data(value), |n| Trips::Known(usize::try_from(n).unwrap_or(0))),
            Some(size) => match size.as_const() {
                Some(trips) => Trips::Known(usize::try_from(trips).unwrap_or(0)),
                None => Trips::Size(size.clone()),
            },
        }
    }

    /// Whether the steps of a loop are not made ready one by one, whatever its condition turns out to be.
    fn is_long(&self, trips: &Trips) -> bool {
        match trips {
            Trips::Size(_) | Trips::Data(_) => true,
            Trips::Known(count) => *count > self.options.limits.steps && *count as u64 <= MAX_STEPS,
            Trips::Unbounded => false,
        }
    }

    fn loop_steps(
        &mut self,
        region: RegionId,
        node: &NodeProto,
        body: &Body,
        trips: &Trips,
        mut turn: Turn,
    ) -> Result<Option<Steps>, Failure> {
        let count = match trips {
            Trips::Known(count) => *count,
            Trips::Size(_) | Trips::Data(_) | Trips::Unbounded => usize::MAX,
        };
        for step in 0..count {
            let known = self.known_truth(turn.condition);
            if known == Some(false) {
                break;
            }
            self.check_step(step)?;
            if known.is_none() && (count - step > GUARDED_STEPS || !turn.rows.is_empty()) {
                return Ok(Some(Steps::Until(step, turn)));
            }
            let index = self.graph.constant(Tensor::scalar(step as i64));
            let holds = self.graph.constant(Tensor::scalar(1u8));
            let given: Vec<ValueId> = [index, holds].into_iter().chain(turn.carried.iter().copied()).collect();
            let inner = if known.is_none() { self.graph.new_region(None) } else { region };
            let Some(mut results) = self.import_body(inner, body, body.graph.node.clone(), &given, &HashMap::new())?
            else {
                return Ok(None);
            };
            if known.is_none() {
                results = self.guarded(region, node, inner, results, &turn)?;
            }
            let rows = results.split_off(1 + turn.carried.len());
            turn.rows.iter_mut().zip(rows).for_each(|(all, row)| all.push(row));
            turn.carried = results.split_off(1);
            turn.condition = results[0];
        }
        Ok(Some(Steps::All(turn)))
    }

    fn check_step(&self, step: usize) -> NodeResult<()> {
        let limit = self.options.limits.steps;
        if step < limit { Ok(()) } else { refuse(format!("takes more steps than the limit `steps`, {limit}")) }
    }

    /// The results of a step in the region `inner` that runs only if the loop goes on.
    fn guarded(
        &mut self,
        region: RegionId,
        node: &NodeProto,
        inner: RegionId,
        results: Vec<ValueId>,
        turn: &Turn,
    ) -> Result<Vec<ValueId>, Failure> {
        let condition = self.graph.ty(results[0]).clone();
        let dims: Option<Vec<usize>> = condition.dims.iter().map(|d| d.as_const()?.try_into().ok()).collect();
        let dims = dims.filter(|d| condition.dtype == DType::Bool && d.iter().product::<usize>() == 1);
        let dims = dims.ok_or_else(|| Refusal::new(format!("the condition is {condition}, not one truth value")))?;
        let ended = self.graph.constant(Tensor::new(&dims, vec![0u8]).map_err(Refusal::from)?);
        self.graph.set_yields(inner, results);
        let other = self.graph.new_region(None);
        self.graph.set_yields(other, std::iter::once(ended).chain(turn.carried.iter().copied()).collect());
        self.append_if(region, turn.condition, vec![inner, other], node)
    }

    /// Imports a `Scan`. Before opset 9 it ran over every element of a batch by itself.
    pub(super) fn import_scan(
        &mut self,
        region: RegionId,
        mut node: NodeProto,
    ) -> Result<Option<Vec<ValueId>>, Failure> {
        let body = Body::take(&mut node, "body", "body")?;
        let declared = declared_types(&body.graph);
        let operands = self.operands(&node.input)?;
        let batched = self.opset < 9;
        if batched && operands.first().is_some_and(Option::is_some) {
            return Err(Refusal::new("sequences of different lengths are not supported").into());
        }
        let limit = self.options.limits.steps;
        let mut cx =
            self.context(region, node.clone(), operands.get(usize::from(batched)..).unwrap_or_default().to_vec());
        let scan = Scan::read(&mut cx, &body, batched)?;
        if !batched && let Some(length) = long(&mut cx, &scan.sources, limit)? {
            return self.with_body(body, |importer, body| importer.scan_repeated(region, &node, body, &scan, length));
        }
        let elements = if batched { scan.of_batch(&mut cx, limit)? } else { vec![(scan.states.clone(), scan.sources)] };
        let count = scan.states.len();
        let mut all: Vec<Vec<ValueId>> = vec![Vec::new(); body.outputs.len()];
        let names = body.outputs.clone();
        let outputs = &scan.outputs;
        let done = self.with_body(body, |importer, body| {
            for (states, sources) in elements {
                let Some((states, rows)) = importer.scan_steps(region, &node, body, states, &sources)? else {
                    return Ok(None);
                };
                let mut cx = importer.context(region, node.clone(), Vec::new());
                all.iter_mut().zip(states).for_each(|(all, state)| all.push(state));
                for (i, mut rows) in rows.into_iter().enumerate() {
                    let (axis, backwards) = outputs[i];
                    if backwards {
                        rows.reverse();
                    }
                    all[count + i].push(stacked(&mut cx, &rows, axis, declared.get(&names[count + i]))?);
                }
            }
            Ok(Some(all))
        })?;
        let Some(all) = done else { return Ok(None) };
        let mut cx = self.context(region, node, Vec::new());
        let mut result =
            |values: Vec<ValueId>| if batched { stacked(&mut cx, &values, 0, None) } else { Ok(values[0]) };
        Ok(Some(all.into_iter().map(&mut result).collect::<NodeResult<Vec<_>>>()?))
    }

    /// The last states, and per scan output what the steps gave.
    fn scan_steps(
        &mut self,
        region: RegionId,
        node: &NodeProto,
        body: &Body,
        mut states: Vec<ValueId>,
        sources: &[Source],
    ) -> Result<Option<Scanned>, Failure> {
        let mut rows = vec![Vec::new(); body.outputs.len() - states.len()];
        let steps = {
            let cx = self.context(region, node.clone(), Vec::new());
            length(&cx, sources)?
        };
        for step in 0..steps {
            self.check_step(step as usize)?;
            let mut cx = self.context(region, node.clone(), Vec::new());
            let mut given = states.clone();
            for source in sources {
                let at = if source.backwards { steps - 1 - step } else { step };
                given.push(element(&mut cx, source.value, source.axis, at)?);
            }
            let results = self.import_body(region, body, body.graph.node.clone(), &given, &HashMap::new())?;
            let Some(mut results) = results else { return Ok(None) };
            let new = results.split_off(states.len());
            rows.iter_mut().zip(new).for_each(|(all, row): (&mut Vec<ValueId>, ValueId)| all.push(row));
            states = results;
        }
        Ok(Some((states, rows)))
    }
}

/// The steps of a `Loop` that were imported one by one.
enum Steps {
    All(Turn),
    /// Those before this one, about which data decides.
    Until(usize, Turn),
}

/// A `Scan`'s operands and attributes.
pub(super) struct Scan {
    pub(super) states: Vec<ValueId>,
    pub(super) sources: Vec<Source>,
    /// Axis and direction of every scan output.
    pub(super) outputs: Vec<(i64, bool)>,
}

impl Scan {
    fn read(cx: &mut Cx, body: &Body, batched: bool) -> NodeResult<Scan> {
        let operands = cx.all_inputs()?;
        let scans = cx.int("num_scan_inputs")?.and_then(|n| usize::try_from(n).ok());
        let states = scans.filter(|n| *n > 0).and_then(|n| operands.len().checked_sub(n));
        let states = states.ok_or_else(|| Refusal::new("`num_scan_inputs` does not fit the operands"))?;
        check_count("inputs", body.inputs.len(), operands.len())?;
        let results = body.outputs.len().checked_sub(states);
        let results = results.ok_or_else(|| Refusal::new("the body gives fewer results than there are states"))?;
        let directions = if batched { "directions" } else { "scan_input_directions" };
        let (axes, backwards) =
            (per(cx, "scan_input_axes", operands.len() - states)?, per(cx, directions, operands.len() - states)?);
        let (to, turned) = (per(cx, "scan_output_axes", results)?, per(cx, "scan_output_directions", results)?);
        let source = |(i, value): (usize, &ValueId)| {
            // In a batch, the batch comes first.
            let axis = axis_index(axes[i], cx.rank(*value).saturating_sub(usize::from(batched)))?;
            Ok(Source { value: *value, axis, backwards: backwards[i] != 0 })
        };
        let sources = operands[states..].iter().enumerate().map(source).collect::<NodeResult<Vec<_>>>()?;
        cx.nothing_left()?;
        let outputs = to.into_iter().zip(turned.into_iter().map(|t| t != 0)).collect();
        Ok(Scan { states: operands[..states].to_vec(), sources, outputs })
    }

    /// States and sources of every element of a batch of at most `limit`.
    fn of_batch(&self, cx: &mut Cx, limit: usize) -> NodeResult<Vec<(Vec<ValueId>, Vec<Source>)>> {
        let Some(first) = self.sources.first() else { return refuse("a batch without sequences is not supported") };
        let batch = cx.fixed_dim(first.value, 0)?;
        if usize::try_from(batch).is_ok_and(|n| n > limit) {
            return refuse(format!("a batch of {batch} takes more steps than the limit `steps`, {limit}"));
        }
        let of = |cx: &mut Cx, b: i64| {
            let states = self.states.iter().map(|v| element(cx, *v, 0, b)).collect::<NodeResult<Vec<_>>>()?;
            let source = |s: &Source, value| Source { value, axis: s.axis, backwards: s.backwards };
            let sources = self.sources.iter().map(|s| Ok(source(s, element(cx, s.value, 0, b)?)));
            Ok((states, sources.collect::<NodeResult<Vec<_>>>()?))
        };
        (0..batch).map(|b| of(cx, b)).collect()
    }
}

/// A list attribute with one number per item, 0 by default.
fn per(cx: &mut Cx, name: &str, count: usize) -> NodeResult<Vec<i64>> {
    let list = cx.ints(name)?.unwrap_or_else(|| vec![0; count]);
    if list.len() == count { Ok(list) } else { refuse(format!("`{name}` has {} numbers for {count}", list.len())) }
}

/// The number of elements that all sources have.
fn length(cx: &Cx, sources: &[Source]) -> NodeResult<i64> {
    let lengths = sources.iter().map(|s| cx.fixed_dim(s.value, s.axis)).collect::<NodeResult<Vec<_>>>()?;
    match lengths.iter().all(|n| *n == lengths[0]) {
        true => Ok(lengths[0]),
        false => refuse(format!("the scanned operands have {lengths:?} elements")),
    }
}

/// The number of elements that all sources have, if it is symbolic or more than `limit`.
fn long(cx: &mut Cx, sources: &[Source], limit: usize) -> NodeResult<Option<Dim>> {
    let lengths: Vec<Dim> = sources.iter().map(|s| cx.dims(s.value)[s.axis].clone()).collect();
    let is_short = |n: &Dim| n.as_const().is_some_and(|n| n <= limit as i64);
    if lengths.iter().all(is_short) {
        return Ok(None);
    }
    for length in &lengths[1..] {
        cx.assume_equal(&lengths[0], length)?;
    }
    let known = lengths.iter().find(|n| n.as_const().is_some()).unwrap_or(&lengths[0]);
    Ok(Some(known.clone()))
}

/// Element `at` along an axis, without the axis.
fn element(cx: &mut Cx, x: ValueId, axis: usize, at: i64) -> NodeResult<ValueId> {
    let part = cx.part(x, axis, [at.into(), (at + 1).into()], 1)?;
    let mut dims = cx.dims(part);
    dims.remove(axis);
    cx.reshape(part, dims)
}

/// The rows side by side along a new axis. Of no rows the type must be `declared`.
pub(super) fn stacked(cx: &mut Cx, rows: &[ValueId], axis: i64, declared: Option<&Declared>) -> NodeResult<ValueId> {
    let Some(first) = rows.first() else { return empty(cx, axis, declared) };
    let axis = axis_index(axis, cx.rank(*first) + 1)?;
    let mut columns = Vec::with_capacity(rows.len());
    for row in rows {
        let mut dims = cx.dims(*row);
        dims.insert(axis.min(dims.len()), 1.into());
        columns.push(cx.reshape(*row, dims)?);
    }
    cx.emit(Op::Concat { axis: axis as i64 }, &columns)
}

fn empty(cx: &mut Cx, axis: i64, declared: Option<&Declared>) -> NodeResult<ValueId> {
    let unknown = || Refusal::new("a result of a loop without steps has no declared dims that are numbers");
    let declared = declared.ok_or_else(unknown)?;
    let dims = declared.dims.as_ref().and_then(|dims| dims.iter().copied().collect::<Option<Vec<i64>>>());
    let mut dims: Vec<Dim> = dims.ok_or_else(unknown)?.into_iter().map(Dim::from).collect();
    dims.insert(axis_index(axis, dims.len() + 1)?, 0.into());
    let zero = cx.scalar(declared.dtype, 0.0)?;
    cx.expanded(zero, dims)
}
