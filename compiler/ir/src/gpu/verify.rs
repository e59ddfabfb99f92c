//! The rules of a GPU form: what it names exists.

use std::collections::HashSet;

use super::{Dispatch, GpuProgram, Param, Role, State};
use crate::entity::{BufferId, KernelId};
use crate::program::{BlockId, Buffer, Form, Program, Source, Step};
use crate::types::DType;

/// What is wrong with the GPU form of a verified program: numbers of things that do not exist, one line each.
/// The shaders themselves are checked by who compiles them.
pub fn verify(program: &Program, gpu: &GpuProgram) -> Vec<String> {
    let state = State::of(program, gpu);
    let mut problems = Vec::new();
    for id in &gpu.resident {
        let is_constant = |b: &Buffer| matches!(b.source, Source::Constant(_));
        if !program.buffers.get(id.index()).is_some_and(is_constant) {
            problems.push(format!("resident buffer {id} is no constant"));
        }
    }
    // What there is must be in proportion to the file that says so.
    if gpu.resident.iter().collect::<HashSet<_>>().len() < gpu.resident.len() {
        problems.push("a resident buffer is named twice".into());
    }
    if gpu.scratch.len() > gpu.dispatches.len() {
        problems.push(format!("{} scratches for {} dispatches", gpu.scratch.len(), gpu.dispatches.len()));
    }
    for constant in
        gpu.halves.iter().filter(|c| program.constants.get(**c as usize).is_none_or(|c| c.dtype != DType::F32))
    {
        problems.push(format!("constant {constant} is none of floats, and cannot be halves"));
    }
    if gpu.piece == 0 {
        problems.push("bindings show no word".into());
    }
    for symbol in gpu.sums.iter().filter(|symbol| **symbol as usize >= gpu.symbols.len()) {
        problems.push(format!("a sum is of symbol {symbol}, which does not exist"));
    }
    problems.extend(verify_repeats(program, gpu));
    for (i, dispatch) in gpu.dispatches.iter().enumerate() {
        let mut wrong = |what: String| problems.push(format!("dispatch {i}: {what}"));
        if gpu.sums.get(dispatch.sums.start as usize..dispatch.sums.end as usize).is_none() {
            wrong(format!("there are no sums {:?}", dispatch.sums));
        }
        if dispatch.shader as usize >= gpu.shaders.len() && !matches!(dispatch.role, Role::Host(_)) {
            wrong(format!("there is no shader {}", dispatch.shader));
        }
        if dispatch.block.0 as usize >= program.blocks.len() {
            wrong(format!("there is no block {}", dispatch.block.0));
        }
        for kernel in dispatch.with.iter().filter(|k| k.index() >= program.kernels.len()) {
            wrong(format!("there is no kernel {kernel}"));
        }
        match dispatch.role {
            Role::Kernel(k) if k.index() >= program.kernels.len() => wrong(format!("there is no kernel {k}")),
            Role::Output(o) if o as usize >= program.outputs.len() => wrong(format!("there is no output {o}")),
            Role::Host(k) => verify_host(program, dispatch, k).into_iter().for_each(&mut wrong),
            Role::Kernel(_) | Role::Output(_) | Role::Control | Role::Rows => {}
        }
        for constant in dispatch.constants.iter().filter(|c| **c as usize >= program.constants.len()) {
            wrong(format!("there is no constant {constant}"));
        }
        for param in dispatch.params.iter().filter(|p| !exists(program, gpu, &state, p)) {
            wrong(format!("{param:?} does not exist"));
        }
    }
    problems
}

/// Loops stand at most so deep inside each other, as blocks do.
const MAX_DEPTH: usize = 256;

/// What is wrong with loops: each repeats the body of one, and stands beside the others or inside them.
fn verify_repeats(program: &Program, gpu: &GpuProgram) -> Vec<String> {
    let bodies: HashSet<BlockId> = program.blocks.iter().flat_map(|block| &block.steps).filter_map(body).collect();
    let mut problems = Vec::new();
    // The ends of those around the next one, the innermost last.
    let mut around: Vec<u32> = Vec::new();
    let mut before = 0;
    for (i, repeat) in gpu.repeats.iter().enumerate() {
        let (start, end) = (repeat.dispatches.start, repeat.dispatches.end);
        if !bodies.contains(&repeat.body) {
            problems.push(format!("loop {i}: block {} is the body of none", repeat.body.0));
        }
        if start <= before || start >= end || end as usize > gpu.dispatches.len() {
            problems.push(format!("loop {i}: it cannot repeat the dispatches {start} to {end}"));
        }
        let host = |d: &Dispatch| matches!(d.role, Role::Host(_));
        if gpu.dispatches.get(start as usize..end as usize).is_some_and(|inside| inside.iter().any(host)) {
            problems.push(format!("loop {i}: a step of the host stands in it"));
        }
        before = start;
        while around.last().is_some_and(|last| *last <= start) {
            around.pop();
        }
        if around.last().is_some_and(|last| *last < end) || around.len() >= MAX_DEPTH {
            problems.push(format!("loop {i}: it is not inside of the one around it, or too deep in others"));
        }
        around.push(end);
    }
    problems
}

fn body(step: &Step) -> Option<BlockId> {
    match step {
        Step::Repeat(step) => Some(step.body),
        Step::Run(_) | Step::If(_) | Step::Route(_) | Step::Size(_) => None,
    }
}

/// What is wrong with a step of the host.
fn verify_host(program: &Program, dispatch: &Dispatch, kernel: KernelId) -> Option<String> {
    let Some(Form::Host(host)) = program.kernels.get(kernel.index()).map(|k| &k.form) else {
        return Some(format!("{kernel} is no kernel of the host"));
    };
    if dispatch.block.0 != 0 || !dispatch.with.is_empty() {
        return Some("the host's step does not stand alone in the body".into());
    }
    let is_constant = |b: BufferId| matches!(program.buffer(b).source, Source::Constant(_));
    let operands = host.inputs.iter().filter(|t| !is_constant(t.buffer)).map(|_| None);
    let wanted: Vec<Option<BufferId>> = operands.chain(host.outputs.iter().map(|t| Some(t.buffer))).collect();
    let named = |(param, wanted): (&Param, &Option<BufferId>)| match (param, wanted) {
        (Param::Scratch(_), None) => true,
        (Param::Home(home), Some(result)) => home == result,
        _ => false,
    };
    let params = dispatch.params.get(2..).unwrap_or_default();
    let fits = params.len() >= wanted.len() && params.iter().zip(&wanted).all(named);
    (!fits).then(|| "the host's step does not say where its operands and results are".into())
}

fn exists(program: &Program, gpu: &GpuProgram, state: &State, param: &Param) -> bool {
    let below = |i: u32, len: usize| (i as usize) < len;
    match param {
        Param::Number(_) | Param::Planned | Param::Counter | Param::Fault | Param::StepsLeft => true,
        Param::Symbol(i) => below(*i, gpu.symbols.len()),
        Param::Offset(b) | Param::Home(b) => {
            let in_arena = |buffer: &Buffer| !matches!(buffer.source, Source::Constant(_)) || gpu.resident.contains(b);
            program.buffers.get(b.index()).is_some_and(in_arena)
        }
        Param::Scratch(i) => below(*i, gpu.scratch.len()),
        Param::Live(b) => below(b.0, program.blocks.len()),
        Param::Control(i) | Param::Rows(i) => below(*i, state.decisions),
        Param::Step(i) => below(*i, gpu.repeats.len()),
        Param::Sum(i) => below(*i, gpu.sums.len()),
        Param::Output(i) => below(*i, program.outputs.len()),
    }
}
