//! Builds the gated graph: the model's nodes in order, and a gate where a gated FFN stood.

use std::collections::HashMap;

use eec_ir::{DType, Dim, Graph, NodeId, Op, RegionId, Tensor, Type, ValueId};

use super::candidate::Ffn;
use super::check::check;
use super::copy::{Tokens, copy};
use super::{FfnGateError, FfnGates, Granularity, LearnedGate, NAME, Rule, decide, mask_input, warm_up};
use crate::clone::{self, Changes, CloneError, ValueMap};
use crate::emit::Emit;
use crate::structure::Structure;

type Result<T> = std::result::Result<T, FfnGateError>;

/// The graph with gates.
pub(super) fn build(graph: &Graph, structure: &Structure, options: &FfnGates) -> Result<Graph> {
    let ffns = check(graph, structure, options)?;
    let gate_of: HashMap<NodeId, usize> =
        ffns.iter().enumerate().flat_map(|(g, f)| f.nodes.iter().map(move |n| (*n, g))).collect();
    let (mut target, map) = clone::with_inputs(graph);
    let mut builder =
        Builder { source: graph, structure, options, ffns: &ffns, target: &mut target, map, carried: None };
    for id in &graph.region(Graph::ROOT).nodes {
        match gate_of.get(id) {
            None => builder.keep(*id)?,
            Some(g) if graph.node(*id).outputs.contains(&ffns[*g].output) => builder.gate(*g)?,
            Some(_) => {}
        }
    }
    let outputs = builder.outputs()?;
    target.set_outputs(outputs);
    target.remove_dead();
    Ok(target)
}

/// What the cosine rule carries from gate to gate.
#[derive(Clone, Copy)]
struct Carried {
    /// How many gated FFNs a row still skips, i64 `[rows]`.
    left: ValueId,
    /// Whether its warm-up is over, bool `[rows]`; `None` without a warm-up.
    warm: Option<ValueId>,
}

/// The cosine rule inside a gate that another one follows.
#[derive(Clone, Copy)]
struct Countdown {
    /// As in [`Carried`].
    left: ValueId,
    threshold: f32,
    skip_next: usize,
}

/// The gated graph under construction.
struct Builder<'a> {
    source: &'a Graph,
    structure: &'a Structure,
    options: &'a FfnGates,
    ffns: &'a [Ffn],
    target: &'a mut Graph,
    /// Values of the source at the target's root; a gated FFN's result is what the gate gives.
    map: ValueMap,
    carried: Option<Carried>,
}

impl Builder<'_> {
    /// Copies a node as it is.
    fn keep(&mut self, node: NodeId) -> Result<()> {
        Ok(clone::clone_nodes(self.source, &[node], self.target, Graph::ROOT, &mut self.map, Changes::default())?)
    }

    fn outputs(&mut self) -> Result<Vec<(String, ValueId)>> {
        let named = self.source.output_names().iter().zip(self.source.outputs());
        named.map(|(name, v)| Ok((name.to_string(), self.value(*v, name)?))).collect()
    }

    /// The counterpart of a source value at the root.
    fn value(&mut self, value: ValueId, wanted_by: &str) -> Result<ValueId> {
        let found = clone::counterpart(self.source, self.target, &mut self.map, value);
        Ok(found.ok_or_else(|| CloneError::Unmapped { node: wanted_by.to_string(), value })?)
    }

    fn emit(&mut self, g: usize, region: RegionId) -> Emit<'_> {
        Emit::new(self.target, region, NAME, format!("ffn.{}", self.options.gates[g].block))
    }

    /// Puts gate `g` in the place of its FFN.
    fn gate(&mut self, g: usize) -> Result<()> {
        let (ffns, options) = (self.ffns, self.options);
        let x = self.value(ffns[g].input, "a gate")?;
        let y = match &options.rule {
            Rule::Static => self.instead(g, Graph::ROOT, x)?,
            Rule::Given => {
                let flat = self.flat(g, Graph::ROOT, x)?;
                let mask = self.given(g)?;
                self.skip_or_run(g, mask, x, flat, None)?
            }
            Rule::Learned { gates } => {
                let flat = self.flat(g, Graph::ROOT, x)?;
                let mask = self.learned(g, &gates[g], flat)?;
                self.skip_or_run(g, mask, x, flat, None)?
            }
            Rule::Cosine { threshold, skip_next, warm_up } => {
                let flat = self.flat(g, Graph::ROOT, x)?;
                let (mask, left) = self.counted(g, *warm_up)?;
                // Nobody reads what the last gate would carry on.
                let goes_on = g + 1 < ffns.len();
                let countdown = goes_on.then_some(Countdown { left, threshold: *threshold, skip_next: *skip_next });
                self.skip_or_run(g, mask, x, flat, countdown)?
            }
        };
        self.map.insert(ffns[g].output, y);
        Ok(())
    }

    /// What stands for the FFN of gate `g` on `x`.
    fn instead(&mut self, g: usize, region: RegionId, x: ValueId) -> Result<ValueId> {
        let options = self.options;
        Ok(decide::instead(&mut self.emit(g, region), options.gates[g].replacement.as_ref(), x)?)
    }

    /// A value of the residual stream at gate `g` as rows `[rows, width]`.
    fn flat(&mut self, g: usize, region: RegionId, value: ValueId) -> Result<ValueId> {
        let ffn = &self.ffns[g];
        let dims = vec![Dim::product(&ffn.tokens), Dim::from(ffn.width as i64)];
        Ok(self.emit(g, region).op("rows", Op::Reshape { dims }, &[value])?)
    }

    /// Which rows skip by an input of the graph, bool `[rows]`.
    fn given(&mut self, g: usize) -> Result<ValueId> {
        let tokens = &self.ffns[g].tokens;
        let (rows, rest) = (tokens.first().cloned().unwrap_or_else(|| 1.into()), Dim::product(tokens.iter().skip(1)));
        let name = mask_input(self.options.gates[g].block);
        let mask = self.target.add_input(&name, Type::new(DType::Bool, [rows, rest]));
        let dims = vec![Dim::product(tokens)];
        Ok(self.emit(g, Graph::ROOT).op("skip", Op::Reshape { dims }, &[mask])?)
    }

    /// Which rows skip by a classifier, bool `[rows]`.
    fn learned(&mut self, g: usize, gate: &LearnedGate, flat: ValueId) -> Result<ValueId> {
        let ffns = self.ffns;
        let mut emit = self.emit(g, Graph::ROOT);
        if gate.threshold == f32::NEG_INFINITY {
            let always = emit.constant(Tensor::scalar(1u8));
            return Ok(warm_up::spread(&mut emit, "skip", always, &ffns[g].tokens)?);
        }
        let score = decide::score(&mut emit, gate, flat)?;
        Ok(decide::exceeds(&mut emit, score, gate.threshold)?)
    }

    /// Which rows skip by the countdown, bool `[rows]`, and the countdown.
    fn counted(&mut self, g: usize, warm_up: usize) -> Result<(ValueId, ValueId)> {
        let (ffns, source, structure, carried) = (self.ffns, self.source, self.structure, self.carried);
        let mut emit = self.emit(g, Graph::ROOT);
        let Carried { left, warm } = match carried {
            Some(carried) => carried,
            None => {
                let none = emit.constant(Tensor::scalar(0i64));
                let left = warm_up::spread(&mut emit, "left/start", none, &ffns[g].tokens)?;
                let over = |emit: &mut Emit| warm_up::is_over(emit, source, structure, &ffns[g], warm_up);
                let warm = if warm_up == 0 { None } else { Some(over(&mut emit)?) };
                Carried { left, warm }
            }
        };
        let mut mask = decide::pending(&mut emit, left)?;
        if let Some(warm) = warm {
            mask = emit.op("skip/warm", Op::And {}, &[mask, warm])?;
        }
        self.carried = Some(Carried { left, warm });
        Ok((mask, left))
    }

    /// The residual stream after gate `g`: `x`, of which `flat` are the rows, or what the FFN makes
    /// of it.
    fn skip_or_run(
        &mut self,
        g: usize,
        mask: ValueId,
        x: ValueId,
        flat: ValueId,
        countdown: Option<Countdown>,
    ) -> Result<ValueId> {
        let one_row = self.target.ty(mask).elements().as_const() == Some(1);
        let by_row = self.options.granularity == Granularity::Row && !one_row;
        let results = match by_row {
            true => self.route(g, mask, flat, countdown)?,
            false => self.branch(g, mask, x, flat, countdown)?,
        };
        if let (Some(left), Some(carried)) = (results.get(1), &mut self.carried) {
            carried.left = *left;
        }
        if !by_row {
            return Ok(results[0]);
        }
        let dims = self.target.ty(x).dims.clone();
        Ok(self.emit(g, Graph::ROOT).op("residual", Op::Reshape { dims }, &[results[0]])?)
    }

    /// Every row for itself; results are `[rows, width]` and the countdown.
    fn route(&mut self, g: usize, mask: ValueId, flat: ValueId, countdown: Option<Countdown>) -> Result<Vec<ValueId>> {
        let operands: Vec<ValueId> = [flat].into_iter().chain(countdown.map(|c| c.left)).collect();
        let (then, params, _) = self.region(&operands);
        let y = self.instead(g, then, params[0])?;
        let left = params.get(1).map(|left| decide::tick(&mut self.emit(g, then), *left)).transpose()?;
        self.target.set_yields(then, [y].into_iter().chain(left).collect());

        let (other, params, rows) = self.region(&operands);
        let ffn = &self.ffns[g];
        // The rows stand along the last token axis, so that products see one matrix of them.
        let mut to = vec![Dim::from(1); ffn.tokens.len()];
        to.iter_mut().last().into_iter().for_each(|last| *last = rows.clone());
        let dims = to.iter().cloned().chain([Dim::from(ffn.width as i64)]).collect();
        let x = self.emit(g, other).op("tokens", Op::Reshape { dims }, &[params[0]])?;
        let y = self.run(g, other, x, to)?;
        let dims = self.target.ty(params[0]).dims.clone();
        let y = self.emit(g, other).op("rows", Op::Reshape { dims }, &[y])?;
        let inner = countdown.zip(params.get(1)).map(|(c, left)| Countdown { left: *left, ..c });
        let left = self.restart(g, other, params[0], y, inner)?;
        self.target.set_yields(other, [y].into_iter().chain(left).collect());
        let operands = [vec![mask], operands].concat();
        Ok(self.emit(g, Graph::ROOT).control(
            "skip-or-run",
            Op::Route { exit: -1, gate: g as i64 },
            &operands,
            vec![then, other],
        )?)
    }

    /// All rows together; results are of the type of `x` and the countdown.
    fn branch(
        &mut self,
        g: usize,
        mask: ValueId,
        x: ValueId,
        flat: ValueId,
        countdown: Option<Countdown>,
    ) -> Result<Vec<ValueId>> {
        let condition = decide::all(&mut self.emit(g, Graph::ROOT), mask)?;
        let then = self.target.new_region(None);
        let y = self.instead(g, then, x)?;
        let left = countdown.map(|c| decide::tick(&mut self.emit(g, then), c.left)).transpose()?;
        self.target.set_yields(then, [y].into_iter().chain(left).collect());

        let other = self.target.new_region(None);
        let y = self.run(g, other, x, self.ffns[g].tokens.clone())?;
        let left = match countdown {
            None => None,
            Some(_) => {
                let after = self.flat(g, other, y)?;
                self.restart(g, other, flat, after, countdown)?
            }
        };
        self.target.set_yields(other, [y].into_iter().chain(left).collect());
        Ok(self.emit(g, Graph::ROOT).control(
            "skip-or-run",
            Op::If { exit: -1, gate: g as i64 },
            &[condition],
            vec![then, other],
        )?)
    }

    /// The FFN of gate `g` on `x`, whose tokens are `to`.
    fn run(&mut self, g: usize, region: RegionId, x: ValueId, to: Vec<Dim>) -> Result<ValueId> {
        let ffn = &self.ffns[g];
        let tokens = Tokens { from: ffn.tokens.clone(), to };
        let outer = ffn.outer.iter().filter_map(|v| Some((*v, *self.map.get(v)?)));
        let mut map: ValueMap = outer.chain([(ffn.input, x)]).collect();
        let misfit = |reason| FfnGateError::NotACandidate { block: self.options.gates[g].block, reason };
        copy(self.source, &ffn.nodes, self.target, region, &mut map, &tokens).map_err(misfit)?;
        let missing = || CloneError::Unmapped { node: "a gate".into(), value: ffn.output };
        Ok(map.get(&ffn.output).copied().ok_or_else(missing)?)
    }

    /// The countdown after an FFN that turned rows `x` into rows `y`.
    fn restart(
        &mut self,
        g: usize,
        region: RegionId,
        x: ValueId,
        y: ValueId,
        countdown: Option<Countdown>,
    ) -> Result<Option<ValueId>> {
        let Some(Countdown { left, threshold, skip_next }) = countdown else {
            return Ok(None);
        };
        let left = decide::restart(&mut self.emit(g, region), [x, y, left], threshold, skip_next)?;
        Ok(Some(left))
    }

    /// A region with a parameter for every operand, over fresh rows.
    fn region(&mut self, operands: &[ValueId]) -> (RegionId, Vec<ValueId>, Dim) {
        let rows = clone::fresh_rows(self.source, self.target);
        let region = self.target.new_region(Some(rows.clone()));
        let rows = Dim::from(rows);
        let params = operands.iter().map(|v| {
            let ty = self.target.ty(*v);
            let ty = Type::new(ty.dtype, [rows.clone()].into_iter().chain(ty.dims.iter().skip(1).cloned()));
            self.target.add_param(region, ty)
        });
        (region, params.collect(), rows)
    }
}
