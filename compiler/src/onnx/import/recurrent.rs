//! `RNN`, `GRU`, `LSTM` and `LinearAttention`: the steps over a short sequence of constant length one by one, over
//! any other as a loop.
//!
//! Specification: <https://onnx.ai/onnx/operators/onnx__LSTM.html> and its neighbours.

use eec_ir::{DType, Dim, Op, ValueId};

use super::super::error::{NodeResult, Refusal, refuse};
use super::node::{Cx, Results};
use super::rearrange::reversed_sequences;
use super::recurrent_function::Function;

/// Over a longer sequence the steps are a loop, as the graph would be large.
const LONGEST: i64 = 256;

/// Which cell.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Cell {
    Rnn,
    Gru,
    Lstm,
}

impl Cell {
    fn gates(self) -> i64 {
        match self {
            Cell::Rnn => 1,
            Cell::Gru => 3,
            Cell::Lstm => 4,
        }
    }

    fn activations(self) -> &'static [&'static str] {
        match self {
            Cell::Rnn => &["Tanh"],
            Cell::Gru => &["Sigmoid", "Tanh"],
            Cell::Lstm => &["Sigmoid", "Tanh", "Tanh"],
        }
    }
}

/// What is the same for all directions and steps.
struct Layer {
    cell: Cell,
    hidden: i64,
    steps: Dim,
    clip: Option<f64>,
    linear_before_reset: bool,
    input_forget: bool,
    /// The number of elements of every sequence, along the batch.
    lengths: Option<ValueId>,
}

/// The weights of one direction, and its functions.
struct Direction {
    /// `[steps, batch, gates·hidden]`: what the inputs give, bias included.
    inputs: ValueId,
    /// `[hidden, gates·hidden]`.
    recurrent: ValueId,
    /// The recurrent bias of a GRU's last gate, which stands inside the reset.
    inner_bias: Option<ValueId>,
    /// `[3, hidden]`: how an LSTM's gates see its cell.
    peepholes: Option<ValueId>,
    functions: Vec<Function>,
    backwards: bool,
}

/// One direction's states.
#[derive(Clone, Copy)]
struct State {
    hidden: ValueId,
    cell: Option<ValueId>,
}

pub(super) fn recurrent(cx: &mut Cx, cell: Cell) -> Results {
    let batch_first = cx.flag("layout", false)?;
    let mut x = cx.input(0)?;
    if batch_first {
        x = cx.transposed(x, &[1, 0, 2])?;
    }
    if cx.rank(x) != 3 {
        return refuse(format!("needs a sequence [steps, batch, width], found {}", cx.ty(x)));
    }
    let hidden = cx.int("hidden_size")?.map_or_else(|| cx.fixed_dim(cx.input(2)?, 2), Ok)?;
    let steps = cx.dims(x)[0].clone();
    let layer = Layer {
        cell,
        hidden,
        steps,
        clip: cx.float("clip")?.map(f64::from),
        linear_before_reset: cx.flag("linear_before_reset", false)?,
        input_forget: cx.flag("input_forget", false)?,
        lengths: cx.optional(4),
    };
    let directions: &[bool] = match cx.word("direction")?.as_deref() {
        None | Some("forward") => &[false],
        Some("reverse") => &[true],
        Some("bidirectional") => &[false, true],
        Some(other) => return refuse(format!("direction `{other}` is not known")),
    };
    let functions = functions(cx, cell, directions.len())?;
    let mut all = [Vec::new(), Vec::new(), Vec::new()];
    for (d, backwards) in directions.iter().enumerate() {
        // Sequences of different lengths are turned round, each by itself, and then read forwards.
        let turned = layer.lengths.filter(|_| *backwards);
        let given = turned.map_or(Ok(x), |lengths| reversed_sequences(cx, x, lengths, 0, 1))?;
        let backwards = *backwards && turned.is_none();
        let direction = direction(cx, &layer, given, d, functions[d].clone(), backwards)?;
        let (mut outputs, last) = run(cx, &layer, &direction, d, batch_first)?;
        if let Some(lengths) = turned {
            outputs = reversed_sequences(cx, outputs, lengths, 0, 2)?;
        }
        let results = [Some(outputs), Some(last.hidden), last.cell];
        all.iter_mut().zip(results).for_each(|(all, result)| all.extend(result));
    }
    let [outputs, hidden, cells] = all;
    let y = cx.emit(Op::Concat { axis: 1 }, &outputs)?;
    let mut results = vec![if batch_first { cx.transposed(y, &[2, 0, 1, 3])? } else { y }];
    for states in [hidden, cells].into_iter().filter(|s| !s.is_empty()) {
        let joined = cx.emit(Op::Concat { axis: 0 }, &states)?;
        results.push(if batch_first { cx.transposed(joined, &[1, 0, 2])? } else { joined });
    }
    Ok(results)
}

/// The functions of every direction.
fn functions(cx: &mut Cx, cell: Cell, directions: usize) -> NodeResult<Vec<Vec<Function>>> {
    let usual = cell.activations();
    let all = Function::listed(cx, usual.repeat(directions).into_iter().map(str::to_string).collect())?;
    if all.len() != usual.len() * directions {
        return refuse(format!("{} activations do not fit {directions} directions", all.len()));
    }
    Ok(all.chunks(usual.len()).map(<[Function]>::to_vec).collect())
}

/// Part `d` of axis 0 of an operand, without that axis.
fn of_direction(cx: &mut Cx, i: usize, d: usize) -> NodeResult<Option<ValueId>> {
    let Some(value) = cx.optional(i) else { return Ok(None) };
    let part = cx.part(value, 0, [(d as i64).into(), (d as i64 + 1).into()], 1)?;
    let dims = cx.dims(part)[1..].to_vec();
    cx.reshape(part, dims).map(Some)
}

fn direction(
    cx: &mut Cx,
    layer: &Layer,
    x: ValueId,
    d: usize,
    functions: Vec<Function>,
    backwards: bool,
) -> NodeResult<Direction> {
    let missing = || Refusal::new("a weight is missing");
    let weight = of_direction(cx, 1, d)?.ok_or_else(missing)?;
    let recurrent = of_direction(cx, 2, d)?.ok_or_else(missing)?;
    let (weight, recurrent) = (cx.transposed(weight, &[1, 0])?, cx.transposed(recurrent, &[1, 0])?);
    let mut inputs = cx.emit(Op::MATMUL, &[x, weight])?;
    let (gates, h) = (layer.cell.gates(), layer.hidden);
    let mut inner_bias = None;
    if let Some(bias) = of_direction(cx, 3, d)? {
        let own = cx.part(bias, 0, [0.into(), (gates * h).into()], 1)?;
        inputs = cx.add(inputs, own)?;
        let mut other = cx.part(bias, 0, [(gates * h).into(), (2 * gates * h).into()], 1)?;
        if layer.cell == Cell::Gru && layer.linear_before_reset {
            inner_bias = Some(cx.part(other, 0, [(2 * h).into(), (3 * h).into()], 1)?);
            let outer = cx.part(other, 0, [0.into(), (2 * h).into()], 1)?;
            other = cx.unary(Op::Pad { pads: vec![0.into(), h.into()] }, outer)?;
        }
        inputs = cx.add(inputs, other)?;
    }
    let peepholes = match layer.cell {
        Cell::Lstm => of_direction(cx, 7, d)?,
        Cell::Rnn | Cell::Gru => None,
    };
    let peepholes = peepholes.map(|p| cx.reshape(p, vec![3.into(), h.into()])).transpose()?;
    Ok(Direction { inputs, recurrent, inner_bias, peepholes, functions, backwards })
}

/// The outputs of all steps, `[steps, 1, batch, hidden]`, and the last states, `[1, batch, hidden]`.
fn run(cx: &mut Cx, layer: &Layer, direction: &Direction, d: usize, batch_first: bool) -> NodeResult<(ValueId, State)> {
    let batch = cx.dims(direction.inputs)[1].clone();
    let dims = vec![batch.clone(), layer.hidden.into()];
    let start = |cx: &mut Cx, i: usize| -> NodeResult<ValueId> {
        match cx.optional(i) {
            Some(given) => {
                let given = if batch_first { cx.transposed(given, &[1, 0, 2])? } else { given };
                let part = cx.part(given, 0, [(d as i64).into(), (d as i64 + 1).into()], 1)?;
                cx.reshape(part, dims.clone())
            }
            None => {
                let zero = cx.number(direction.inputs, 0.0)?;
                cx.expanded(zero, dims.clone())
            }
        }
    };
    let cell = if layer.cell == Cell::Lstm { Some(start(cx, 6)?) } else { None };
    let state = State { hidden: start(cx, 5)?, cell };
    let (outputs, state) = match layer.steps.as_const() {
        Some(steps @ 1..=LONGEST) => one_by_one(cx, layer, direction, state, steps)?,
        _ => in_a_loop(cx, layer, direction, state)?,
    };
    let lead: Vec<Dim> = vec![1.into(), batch, layer.hidden.into()];
    let outputs = cx.reshape(outputs, std::iter::once(layer.steps.clone()).chain(lead.iter().cloned()).collect())?;
    let hidden = cx.reshape(state.hidden, lead.clone())?;
    let cell = state.cell.map(|c| cx.reshape(c, lead)).transpose()?;
    Ok((outputs, State { hidden, cell }))
}

/// The outputs of all steps along axis 0, and the last state.
fn one_by_one(
    cx: &mut Cx,
    layer: &Layer,
    direction: &Direction,
    mut state: State,
    steps: i64,
) -> NodeResult<(ValueId, State)> {
    let mut outputs = Vec::new();
    let dims = cx.dims(direction.inputs);
    let line: Vec<Dim> = vec![1.into(), dims[1].clone(), layer.hidden.into()];
    for i in 0..steps {
        let t = if direction.backwards { steps - 1 - i } else { i };
        let x = cx.part(direction.inputs, 0, [t.into(), (t + 1).into()], 1)?;
        let x = cx.reshape(x, dims[1..].to_vec())?;
        let next = step(cx, layer, direction, x, state)?;
        let position = cx.scalar(DType::I64, t as f64)?;
        let (next, shown) = within_length(cx, layer, position, next, state)?;
        outputs.push(cx.reshape(shown, line.clone())?);
        state = next;
    }
    if direction.backwards {
        outputs.reverse();
    }
    Ok((cx.emit(Op::Concat { axis: 0 }, &outputs)?, state))
}

/// The same, of any number of steps.
fn in_a_loop(cx: &mut Cx, layer: &Layer, direction: &Direction, state: State) -> NodeResult<(ValueId, State)> {
    let carried: Vec<ValueId> = std::iter::once(state.hidden).chain(state.cell).collect();
    let results = cx.repeated(&layer.steps, &carried, |cx, number, carried| {
        let state = State { hidden: carried[0], cell: carried.get(1).copied() };
        let position = if direction.backwards { cx.counted_from_end(number, &layer.steps)? } else { number };
        let x = cx.emit(Op::Gather { axis: 0 }, &[direction.inputs, position])?;
        let next = step(cx, layer, direction, x, state)?;
        let (next, shown) = within_length(cx, layer, position, next, state)?;
        Ok((std::iter::once(next.hidden).chain(next.cell).collect(), vec![shown]))
    })?;
    let mut outputs = results[carried.len()];
    if direction.backwards {
        outputs = cx.reversed(outputs, 0)?;
    }
    Ok((outputs, State { hidden: results[0], cell: state.cell.map(|_| results[1]) }))
}

/// Beyond a sequence's end its state stays as it is, and its output is 0.
fn within_length(
    cx: &mut Cx,
    layer: &Layer,
    position: ValueId,
    next: State,
    before: State,
) -> NodeResult<(State, ValueId)> {
    let Some(lengths) = layer.lengths else { return Ok((next, next.hidden)) };
    let lengths = cx.along(lengths, 0, 2)?;
    let position = cx.cast(position, cx.ty(lengths).dtype)?;
    let inside = cx.emit(Op::Less {}, &[position, lengths])?;
    let hidden = cx.choose(inside, next.hidden, before.hidden)?;
    let cell = match (next.cell, before.cell) {
        (Some(next), Some(before)) => Some(cx.choose(inside, next, before)?),
        _ => None,
    };
    let zero = cx.number(hidden, 0.0)?;
    Ok((State { hidden, cell }, cx.choose(inside, next.hidden, zero)?))
}

fn step(cx: &mut Cx, layer: &Layer, direction: &Direction, x: ValueId, state: State) -> NodeResult<State> {
    match layer.cell {
        Cell::Rnn => {
            let sum = with_state(cx, x, state.hidden, direction.recurrent)?;
            Ok(State { hidden: activated(cx, layer, direction.functions[0], sum)?, cell: None })
        }
        Cell::Gru => gru_step(cx, layer, direction, x, state),
        Cell::Lstm => lstm_step(cx, layer, direction, x, state),
    }
}

/// `x + h·R`.
fn with_state(cx: &mut Cx, x: ValueId, hidden: ValueId, recurrent: ValueId) -> NodeResult<ValueId> {
    let product = cx.emit(Op::MATMUL, &[hidden, recurrent])?;
    cx.add(x, product)
}

fn activated(cx: &mut Cx, layer: &Layer, function: Function, x: ValueId) -> NodeResult<ValueId> {
    let x = match layer.clip {
        Some(limit) => cx.clipped(x, -limit, limit)?,
        None => x,
    };
    function.of(cx, x)
}

/// Gates `from..to` of values along the last axis.
fn gates(cx: &mut Cx, layer: &Layer, x: ValueId, from: i64, to: i64) -> NodeResult<ValueId> {
    cx.part(x, 1, [(from * layer.hidden).into(), (to * layer.hidden).into()], 1)
}

fn gru_step(cx: &mut Cx, layer: &Layer, direction: &Direction, x: ValueId, state: State) -> NodeResult<State> {
    let (f, g) = (direction.functions[0], direction.functions[1]);
    let outer = gates(cx, layer, direction.recurrent, 0, 2)?;
    let inner = gates(cx, layer, direction.recurrent, 2, 3)?;
    let x_outer = gates(cx, layer, x, 0, 2)?;
    let sum = with_state(cx, x_outer, state.hidden, outer)?;
    let open = activated(cx, layer, f, sum)?;
    let (update, reset) = (gates(cx, layer, open, 0, 1)?, gates(cx, layer, open, 1, 2)?);
    let x_inner = gates(cx, layer, x, 2, 3)?;
    let sum = if layer.linear_before_reset {
        let mut product = cx.emit(Op::MATMUL, &[state.hidden, inner])?;
        if let Some(bias) = direction.inner_bias {
            product = cx.add(product, bias)?;
        }
        let product = cx.mul(reset, product)?;
        cx.add(x_inner, product)?
    } else {
        let kept = cx.mul(reset, state.hidden)?;
        with_state(cx, x_inner, kept, inner)?
    };
    let new = activated(cx, layer, g, sum)?;
    // (1 - z)·new + z·h
    let change = cx.sub(state.hidden, new)?;
    let change = cx.mul(update, change)?;
    Ok(State { hidden: cx.add(new, change)?, cell: None })
}

fn lstm_step(cx: &mut Cx, layer: &Layer, direction: &Direction, x: ValueId, state: State) -> NodeResult<State> {
    let before = state.cell.ok_or_else(|| Refusal::new("a cell without state"))?;
    let (f, g, h) = (direction.functions[0], direction.functions[1], direction.functions[2]);
    let sum = with_state(cx, x, state.hidden, direction.recurrent)?;
    let gate = |cx: &mut Cx, i: i64, peephole: i64, cell: ValueId| -> NodeResult<ValueId> {
        let mut x = gates(cx, layer, sum, i, i + 1)?;
        if let Some(peepholes) = direction.peepholes {
            let row = cx.part(peepholes, 0, [peephole.into(), (peephole + 1).into()], 1)?;
            let seen = cx.mul(row, cell)?;
            x = cx.add(x, seen)?;
        }
        activated(cx, layer, f, x)
    };
    let input = gate(cx, 0, 0, before)?;
    let forget = if layer.input_forget {
        let one = cx.number(input, 1.0)?;
        cx.sub(one, input)?
    } else {
        gate(cx, 2, 2, before)?
    };
    let candidate = gates(cx, layer, sum, 3, 4)?;
    let candidate = activated(cx, layer, g, candidate)?;
    let (kept, new) = (cx.mul(forget, before)?, cx.mul(input, candidate)?);
    let cell = cx.add(kept, new)?;
    let output = gate(cx, 1, 1, cell)?;
    let shown = h.of(cx, cell)?;
    Ok(State { hidden: cx.mul(output, shown)?, cell: Some(cell) })
}

/// A state per head that keys and values are added to, and that queries read, step by step.
pub(super) fn linear_attention(cx: &mut Cx) -> Results {
    let [q_heads, kv_heads] = ["q_num_heads", "kv_num_heads"].map(|name| cx.int(name));
    let missing = || Refusal::new("the number of heads is missing");
    let (q_heads, kv_heads) = (q_heads?.ok_or_else(missing)?, kv_heads?.ok_or_else(missing)?);
    cx.int("chunk_size")?;
    let scale = cx.float("scale")?.filter(|s| *s != 0.0);
    let rule = cx.word("update_rule")?.unwrap_or_else(|| "gated_delta".into());
    let known = ["linear", "gated", "delta", "gated_delta"].contains(&rule.as_str());
    let (gated, delta) = (rule.starts_with("gated"), rule.ends_with("delta"));
    if !known || gated != cx.optional(4).is_some() || delta != cx.optional(5).is_some() {
        return refuse(format!("the update rule `{rule}` does not fit the operands"));
    }
    let given = cx.input(0)?;
    let (own, batch, steps) = (cx.ty(given).dtype, cx.dims(given)[0].clone(), cx.fixed_dim(given, 1)?);
    if !(1..=LONGEST).contains(&steps) || kv_heads < 1 || q_heads % kv_heads != 0 {
        return refuse(format!("{steps} steps, or {q_heads} heads over {kv_heads}, are not supported"));
    }
    let q = by_head(cx, 0, q_heads)?;
    let (k, v) = (by_head(cx, 1, kv_heads)?, by_head(cx, 2, kv_heads)?);
    let (key, value) = (cx.fixed_dim(k, 3)?, cx.fixed_dim(v, 3)?);
    let decay = if gated { Some(by_head(cx, 4, kv_heads)?) } else { None };
    let beta = if delta { Some(by_head(cx, 5, 0)?) } else { None };
    let (mut state, state_type) = match cx.optional(3) {
        Some(past) => (cx.cast(past, DType::F32)?, cx.ty(past).dtype),
        None => {
            let zero = cx.scalar(DType::F32, 0.0)?;
            (cx.expanded(zero, vec![batch, kv_heads.into(), key.into(), value.into()])?, own)
        }
    };
    let scale = scale.map_or_else(|| 1.0 / (key as f64).sqrt(), f64::from);
    let mut outputs = Vec::new();
    for t in 0..steps {
        let at = |cx: &mut Cx, x: ValueId| cx.part(x, 2, [t.into(), (t + 1).into()], 1);
        if let Some(decay) = decay {
            let line = at(cx, decay)?;
            let factor = cx.unary(Op::Exp {}, line)?;
            let column = cx.transposed(factor, &[0, 1, 3, 2])?;
            state = cx.mul(state, column)?;
        }
        let (row, mut new) = (at(cx, k)?, at(cx, v)?);
        if let Some(beta) = beta {
            let found = cx.emit(Op::MATMUL, &[row, state])?;
            let (rest, strength) = (cx.sub(new, found)?, at(cx, beta)?);
            new = cx.mul(strength, rest)?;
        }
        let column = cx.transposed(row, &[0, 1, 3, 2])?;
        let written = cx.mul(column, new)?;
        state = cx.add(state, written)?;
        let query = at(cx, q)?;
        outputs.push(read(cx, query, state, q_heads, kv_heads)?);
    }
    let y = cx.emit(Op::Concat { axis: 2 }, &outputs)?;
    let y = cx.times(y, scale)?;
    let y = cx.transposed(y, &[0, 2, 1, 3])?;
    let dims = cx.dims(y);
    let y = cx.reshape(y, vec![dims[0].clone(), dims[1].clone(), &dims[2] * &dims[3]])?;
    Ok(vec![cx.cast(y, own)?, cx.cast(state, state_type)?])
}

/// Operand `i` in f32 as `[batch, heads, steps, size]`; 0 heads: one number per head.
fn by_head(cx: &mut Cx, i: usize, heads: i64) -> NodeResult<ValueId> {
    let x = cx.input(i)?;
    let dims = cx.dims(x);
    let [batch, steps, width] = dims.as_slice() else {
        return refuse(format!("operand {i} must have 3 dims, found {}", cx.ty(x)));
    };
    let heads = if heads == 0 { width.clone() } else { heads.into() };
    let size = width.exact_div(&heads).ok_or_else(|| Refusal::new(format!("{width} is not {heads} heads")))?;
    let x = cx.cast(x, DType::F32)?;
    let x = cx.reshape(x, vec![batch.clone(), steps.clone(), heads, size])?;
    cx.transposed(x, &[0, 2, 1, 3])
}

/// The product of one query per head with the state of its group.
fn read(cx: &mut Cx, query: ValueId, state: ValueId, heads: i64, groups: i64) -> NodeResult<ValueId> {
    let (q, s) = (cx.dims(query), cx.dims(state));
    let grouped = vec![q[0].clone(), groups.into(), (heads / groups).into(), q[3].clone()];
    let query = cx.reshape(query, grouped)?;
    let product = cx.emit(Op::MATMUL, &[query, state])?;
    cx.reshape(product, vec![q[0].clone(), heads.into(), 1.into(), s[3].clone()])
}
