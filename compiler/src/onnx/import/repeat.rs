//! Loops whose steps are counted while the model runs: the IR's `Loop`.

use std::collections::HashMap;

use eec_ir::ops::control::{MAX_STEPS, is_always};
use eec_ir::{DType, Dim, Graph, Op, Origin, RegionId, Tensor, Type, ValueId};

use super::super::error::{Failure, NodeResult, Refusal, refuse};
use super::super::proto::NodeProto;
use super::Importer;
use super::control::Body;
use super::growing::{Growth, changes};
use super::node::Cx;
use super::unroll::{ROWS_OF_DATA, Scan, Source, Trips, Turn, stacked};

/// The region of a loop that is being made: what a step is given.
pub(super) struct Round {
    pub(super) region: RegionId,
    /// The number of the step, a scalar.
    pub(super) number: ValueId,
    pub(super) carried: Vec<ValueId>,
}

impl Round {
    /// A round that is given values of the types of `carried`.
    pub(super) fn open(graph: &mut Graph, carried: &[ValueId]) -> Round {
        let types: Vec<Type> = carried.iter().map(|v| graph.ty(*v).clone()).collect();
        Round::of(graph, &types)
    }

    /// A round that is given values of these types.
    pub(super) fn of(graph: &mut Graph, types: &[Type]) -> Round {
        let region = graph.new_region(None);
        let number = graph.add_param(region, Type::new(DType::I64, []));
        Round { region, number, carried: types.iter().map(|ty| graph.add_param(region, ty.clone())).collect() }
    }

    /// Ends the round, and puts the loop of such rounds into `region`.
    pub(super) fn close(
        self,
        graph: &mut Graph,
        region: RegionId,
        made: Made,
        origin: Origin,
    ) -> NodeResult<Vec<ValueId>> {
        let [first, next] = made.condition;
        for (i, (param, given)) in self.carried.iter().zip(&made.next).enumerate() {
            let (before, after) = (graph.ty(*param), graph.ty(*given));
            if before != after {
                return refuse(format!(
                    "a step makes {after} of the {before} that is carried at position {i}; where data or a symbolic \
                     size decides how often it runs, it must stay as it is"
                ));
            }
        }
        let always = is_always(graph, first) && is_always(graph, next);
        let unbounded = made.trips.as_const() == Some(-1);
        if always && unbounded {
            return refuse("nothing ends it");
        }
        if !made.rows.is_empty() && unbounded {
            let undecided = if is_always(graph, first) { next } else { first };
            return Err(Refusal::undecided(undecided, ROWS_OF_DATA));
        }
        let inside = graph.late_symbols_in(self.region);
        let of_a_step = |dim: &Dim| inside.iter().any(|symbol| dim.mentions(symbol));
        if let Some(row) = made.rows.iter().find(|row| graph.ty(**row).dims.iter().any(of_a_step)) {
            return refuse(format!("a step gives a row of {}, whose size data decides in every step", graph.ty(*row)));
        }
        if let Some(steps) = made.trips.as_const().filter(|steps| always && *steps > MAX_STEPS as i64) {
            return refuse(format!("takes {steps} steps, more than {MAX_STEPS}"));
        }
        graph.set_yields(self.region, std::iter::once(next).chain(made.next).chain(made.rows).collect());
        let inputs: Vec<ValueId> = std::iter::once(first).chain(made.carried).collect();
        let op = Op::Loop { trips: made.trips };
        let node = graph.append_control(region, op, &inputs, vec![self.region], origin)?;
        Ok(graph.node(node).outputs.clone())
    }
}

/// What a round gives, and what it starts from.
pub(super) struct Made {
    /// As in [`Op::Loop`].
    pub(super) trips: Dim,
    /// Whether there is a first step, and whether there is another.
    pub(super) condition: [ValueId; 2],
    pub(super) carried: Vec<ValueId>,
    pub(super) next: Vec<ValueId>,
    pub(super) rows: Vec<ValueId>,
}

fn check_truth(graph: &Graph, condition: ValueId) -> NodeResult<()> {
    let ty = graph.ty(condition);
    match ty.dtype == DType::Bool && ty.elements().as_const() == Some(1) {
        true => Ok(()),
        false => refuse(format!("the condition is {ty}, not one truth value")),
    }
}

/// A step of a `Loop` whose body was imported.
pub(super) struct Step {
    /// The number of the step as the body sees it.
    number: ValueId,
    /// Whether there is another step.
    condition: ValueId,
    /// What is carried on, as the body gives it.
    pub(super) next: Vec<ValueId>,
    rows: Vec<ValueId>,
}

/// A round of a `Loop` whose body was imported.
pub(super) struct Imported {
    round: Round,
    step: Step,
    /// How many assumptions the graph had before.
    assumptions: usize,
}

impl Imported {
    /// Whether a loop of such rounds tells how many rows it gives, if it gives any.
    pub(super) fn counts_rows(&self, graph: &Graph) -> bool {
        self.step.rows.is_empty() || is_always(graph, self.step.condition)
    }
}

impl Importer<'_> {
    /// The body of a `Loop` once, for the steps from number `from` on; `None` if a node cannot be imported.
    pub(super) fn import_round(
        &mut self,
        node: &NodeProto,
        body: &Body,
        at: (&Trips, usize),
        carried: &[ValueId],
    ) -> Result<Option<Imported>, Failure> {
        let assumptions = self.graph.assumptions().len();
        let round = Round::open(&mut self.graph, carried);
        let given = round.carried.clone();
        let step = self.step_of(node, body, at, &round, given)?;
        Ok(step.map(|step| Imported { round, step, assumptions }))
    }

    /// What the body makes of `given` in a round; `None` if a node cannot be imported.
    pub(super) fn step_of(
        &mut self,
        node: &NodeProto,
        body: &Body,
        (trips, from): (&Trips, usize),
        round: &Round,
        given: Vec<ValueId>,
    ) -> Result<Option<Step>, Failure> {
        if let Trips::Data(count) = trips {
            self.counts.insert(round.region, *count);
        }
        let mut inside = self.context(round.region, node.clone(), Vec::new());
        let number = if from > 0 { inside.plus(round.number, from as f64)? } else { round.number };
        let holds = self.graph.constant(Tensor::scalar(1u8));
        let carried = given.len();
        let given: Vec<ValueId> = [number, holds].into_iter().chain(given).collect();
        let results = self.import_body(round.region, body, body.graph.node.clone(), &given, &HashMap::new())?;
        let Some(mut next) = results else { return Ok(None) };
        let rows = next.split_off(1 + carried);
        let condition = next.remove(0);
        Ok(Some(Step { number, condition, next, rows }))
    }

    /// The results of a `Loop` that goes on from `turn`, at step `from`, with rounds like `first`: its carried values,
    /// then the rows of all steps. Where steps change sizes, or data says how many rows there are, the body is
    /// imported anew, with what the loop must carry beside; `None` if that cannot be.
    pub(super) fn close_loop(
        &mut self,
        region: RegionId,
        node: &NodeProto,
        body: &Body,
        at: (&Trips, usize),
        turn: Turn,
        first: Imported,
    ) -> Result<Option<Vec<ValueId>>, Failure> {
        let types = |values: &[ValueId]| values.iter().map(|v| self.graph.ty(*v).clone()).collect::<Vec<_>>();
        let changed = changes(&types(&turn.carried), &types(&first.step.next))?;
        let ends = !is_always(&self.graph, turn.condition) || matches!(at.0, Trips::Data(_));
        let counts = !first.counts_rows(&self.graph) || (ends && !first.step.rows.is_empty());
        if changed.is_empty() && !counts {
            let made = (first.round, first.step, Growth::default());
            return self.close_round(region, node, at, turn, made).map(Some);
        }
        self.graph.forget_assumptions(first.assumptions);
        let Some(mut growth) = self.growth(node, body, at, &turn, changed)? else { return Ok(None) };
        growth.counts = counts;
        let zero = self.graph.constant(Tensor::scalar(0i64));
        let mut outside = self.context(region, node.clone(), Vec::new());
        let carried = growth.packed(&mut outside, &turn.carried, zero)?;
        let round = Round::open(&mut self.graph, &carried);
        let mut inside = self.context(round.region, node.clone(), Vec::new());
        let (given, steps) = growth.unpacked(&mut inside, round.carried.clone())?;
        let Some(mut step) = self.step_of(node, body, at, &round, given)? else { return Ok(None) };
        let mut inside = self.context(round.region, node.clone(), Vec::new());
        let steps = steps.map_or(Ok(zero), |steps| inside.plus(steps, 1.0))?;
        step.next = growth.packed(&mut inside, &step.next, steps)?;
        let turn = Turn { carried, ..turn };
        self.close_round(region, node, at, turn, (round, step, growth)).map(Some)
    }

    fn close_round(
        &mut self,
        region: RegionId,
        node: &NodeProto,
        (trips, from): (&Trips, usize),
        turn: Turn,
        (round, step, growth): (Round, Step, Growth),
    ) -> Result<Vec<ValueId>, Failure> {
        let Step { number, condition, next, rows } = step;
        let mut condition = [turn.condition, condition];
        condition.iter().try_for_each(|c| check_truth(&self.graph, *c))?;
        let most = if growth.counts { self.most_steps(trips, from) } else { None };
        let left = |all: Dim| &all - &Dim::from(from as i64);
        let bound = match trips {
            Trips::Known(count) if (*count as i64) < Dim::LIMIT => left((*count as i64).into()),
            Trips::Known(_) | Trips::Unbounded => Dim::from(-1),
            Trips::Size(size) => left(size.clone()),
            Trips::Data(count) => {
                condition = self.below(region, node, condition, *count, (&round, number, from))?;
                Dim::from(-1)
            }
        };
        if growth.counts && most.is_none() {
            let undecided = match trips {
                Trips::Data(count) => *count,
                Trips::Known(_) | Trips::Size(_) | Trips::Unbounded => condition[1],
            };
            return Err(Refusal::undecided(undecided, ROWS_OF_DATA).into());
        }
        let trips = most.clone().unwrap_or(bound);
        let carried = turn.carried.len();
        let made = Made { trips, condition, carried: turn.carried, next, rows };
        let mut all = round.close(&mut self.graph, region, made, super::origin(node))?;
        let mut rows = all.split_off(carried);
        let mut outside = self.context(region, node.clone(), Vec::new());
        let (mut results, steps) = growth.unpacked(&mut outside, all)?;
        if let (Some(steps), Some(most)) = (steps, most) {
            let count = outside.late_size(steps, most)?;
            for row in &mut rows {
                *row = outside.first(*row, 0, &count)?;
            }
        }
        for (row, before) in rows.iter_mut().zip(&turn.rows).filter(|(_, before)| !before.is_empty()) {
            let before = stacked(&mut outside, before, 0, None)?;
            *row = outside.emit(Op::Concat { axis: 0 }, &[before, *row])?;
        }
        results.extend(rows);
        Ok(results)
    }

    /// The conditions of a loop, made to hold only for numbers below `count`.
    fn below(
        &mut self,
        region: RegionId,
        node: &NodeProto,
        [first, next]: [ValueId; 2],
        count: ValueId,
        (round, number, from): (&Round, ValueId, usize),
    ) -> NodeResult<[ValueId; 2]> {
        let mut outside = self.context(region, node.clone(), Vec::new());
        let count = outside.cast(count, DType::I64)?;
        let count = outside.reshape(count, Vec::new())?;
        let start = outside.number(count, from as f64)?;
        let some = outside.emit(Op::Less {}, &[start, count])?;
        let first = outside.emit(Op::And {}, &[first, some])?;
        let mut inside = self.context(round.region, node.clone(), Vec::new());
        let after = inside.plus(number, 1.0)?;
        let more = inside.emit(Op::Less {}, &[after, count])?;
        Ok([first, inside.emit(Op::And {}, &[next, more])?])
    }

    /// The last states of a `Scan` over so many elements, and its scan outputs.
    pub(super) fn scan_repeated(
        &mut self,
        region: RegionId,
        node: &NodeProto,
        body: &Body,
        scan: &Scan,
        length: Dim,
    ) -> Result<Option<Vec<ValueId>>, Failure> {
        let round = Round::open(&mut self.graph, &scan.states);
        let mut given = round.carried.clone();
        let mut inside = self.context(round.region, node.clone(), Vec::new());
        for source in &scan.sources {
            given.push(element(&mut inside, source, round.number, &length)?);
        }
        let results = self.import_body(round.region, body, body.graph.node.clone(), &given, &HashMap::new())?;
        let Some(mut next) = results else { return Ok(None) };
        let rows = next.split_off(scan.states.len());
        let holds = self.graph.constant(Tensor::scalar(1u8));
        let made = Made { trips: length, condition: [holds; 2], carried: scan.states.clone(), next, rows };
        let mut results = round.close(&mut self.graph, region, made, super::origin(node))?;
        let mut outside = self.context(region, node.clone(), Vec::new());
        for (rows, (axis, backwards)) in results[scan.states.len()..].iter_mut().zip(&scan.outputs) {
            if *backwards {
                *rows = outside.reversed(*rows, 0)?;
            }
            *rows = moved_first_axis(&mut outside, *rows, *axis)?;
        }
        Ok(Some(results))
    }
}

/// The element of a scanned operand that step `number` takes.
fn element(cx: &mut Cx, source: &Source, number: ValueId, length: &Dim) -> NodeResult<ValueId> {
    let position = if source.backwards { cx.counted_from_end(number, length)? } else { number };
    cx.emit(Op::Gather { axis: source.axis as i64 }, &[source.value, position])
}

/// The value with its axis 0 at `axis`.
fn moved_first_axis(cx: &mut Cx, x: ValueId, axis: i64) -> NodeResult<ValueId> {
    let axis = super::node::axis_index(axis, cx.rank(x))?;
    let mut perm: Vec<usize> = (1..cx.rank(x)).collect();
    perm.insert(axis, 0);
    cx.transposed(x, &perm)
}

impl Cx<'_> {
    /// `length - 1 - number`: the position of an element, counted from the end.
    pub(super) fn counted_from_end(&mut self, number: ValueId, length: &Dim) -> NodeResult<ValueId> {
        let last = self.emit(Op::Sizes { values: vec![length - &Dim::from(1)] }, &[])?;
        let last = self.reshape(last, Vec::new())?;
        self.sub(last, number)
    }

    /// A loop of `length` steps in place of the node. `step` is given the number of a step and what is
    /// carried; it gives what is carried on, and rows. The results are as of [`Op::Loop`].
    pub(super) fn repeated(
        &mut self,
        length: &Dim,
        carried: &[ValueId],
        step: impl FnOnce(&mut Self, ValueId, &[ValueId]) -> NodeResult<(Vec<ValueId>, Vec<ValueId>)>,
    ) -> NodeResult<Vec<ValueId>> {
        let round = Round::open(self.graph_mut(), carried);
        let (next, rows) = self.inside(round.region, |cx| step(cx, round.number, &round.carried))?;
        let holds = self.constant(Tensor::scalar(1u8));
        let made = Made { trips: length.clone(), condition: [holds; 2], carried: carried.to_vec(), next, rows };
        let (region, origin) = self.place();
        round.close(self.graph_mut(), region, made, origin)
    }
}
