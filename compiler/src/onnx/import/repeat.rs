//! Loops whose steps are counted while the model runs: the IR's `Loop`.

use std::collections::HashMap;

use eec_ir::ops::control::{MAX_STEPS, is_always};
use eec_ir::{DType, Dim, Graph, Op, Origin, RegionId, Tensor, Type, ValueId};

use super::super::error::{Failure, NodeResult, Refusal, refuse};
use super::super::proto::NodeProto;
use super::Importer;
use super::control::Body;
use super::node::Cx;
use super::unroll::{ROWS_OF_DATA, Scan, Source, Trips, Turn};

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
        let region = graph.new_region(None);
        let number = graph.add_param(region, Type::new(DType::I64, []));
        let types: Vec<Type> = carried.iter().map(|v| graph.ty(*v).clone()).collect();
        Round { region, number, carried: types.into_iter().map(|ty| graph.add_param(region, ty)).collect() }
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
        if !made.rows.is_empty() && (!always || unbounded) {
            let undecided = if is_always(graph, first) { next } else { first };
            return Err(Refusal::undecided(undecided, ROWS_OF_DATA));
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

/// A round of a `Loop` whose body was imported.
pub(super) struct Imported {
    round: Round,
    /// The number of the step as the body sees it.
    number: ValueId,
    /// Whether there is another step.
    condition: ValueId,
    next: Vec<ValueId>,
    rows: Vec<ValueId>,
}

impl Imported {
    /// Whether a loop of such rounds tells how many rows it gives, if it gives any.
    pub(super) fn counts_rows(&self, graph: &Graph) -> bool {
        self.rows.is_empty() || is_always(graph, self.condition)
    }
}

impl Importer<'_> {
    /// The body of a `Loop` once, for the steps from number `from` on; `None` if a node cannot be imported.
    pub(super) fn import_round(
        &mut self,
        node: &NodeProto,
        body: &Body,
        (trips, from): (&Trips, usize),
        carried: &[ValueId],
    ) -> Result<Option<Imported>, Failure> {
        let round = Round::open(&mut self.graph, carried);
        if let Trips::Data(count) = trips {
            self.counts.insert(round.region, *count);
        }
        let mut inside = self.context(round.region, node.clone(), Vec::new());
        let number = if from > 0 { inside.plus(round.number, from as f64)? } else { round.number };
        let holds = self.graph.constant(Tensor::scalar(1u8));
        let given: Vec<ValueId> = [number, holds].into_iter().chain(round.carried.iter().copied()).collect();
        let results = self.import_body(round.region, body, body.graph.node.clone(), &given, &HashMap::new())?;
        let Some(mut next) = results else { return Ok(None) };
        let rows = next.split_off(1 + carried.len());
        let condition = next.remove(0);
        Ok(Some(Imported { round, number, condition, next, rows }))
    }

    /// The results of a `Loop` that goes on from `turn`, at step `from`, with such rounds.
    pub(super) fn close_round(
        &mut self,
        region: RegionId,
        node: &NodeProto,
        (trips, from): (&Trips, usize),
        turn: Turn,
        imported: Imported,
    ) -> Result<Vec<ValueId>, Failure> {
        let Imported { round, number, condition, next, rows } = imported;
        let mut condition = [turn.condition, condition];
        condition.iter().try_for_each(|c| check_truth(&self.graph, *c))?;
        let left = |all: Dim| &all - &Dim::from(from as i64);
        let trips = match trips {
            Trips::Known(count) if (*count as i64) < Dim::LIMIT => left((*count as i64).into()),
            Trips::Known(_) | Trips::Unbounded => Dim::from(-1),
            Trips::Size(size) => left(size.clone()),
            Trips::Data(count) => {
                condition = self.below(region, node, condition, *count, (&round, number, from))?;
                Dim::from(-1)
            }
        };
        let made = Made { trips, condition, carried: turn.carried, next, rows };
        Ok(round.close(&mut self.graph, region, made, super::origin(node))?)
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
