//! Steps of the host: operators without a shader, which the reference evaluator computes between two submissions.

use std::collections::HashMap;

use eec_ir::gpu::{Dispatch, GpuProgram, Param, Role};
use eec_ir::program::{Dense, Form, Program, Source};
use eec_ir::{KernelId, Symbol, Tensor};

use super::memory::Arena;
use super::words;
use crate::call;
use crate::error::{Error, ErrorKind};
use crate::extent::Extents;
use crate::host::Call;
use crate::sizes::PlanError;

/// An operator, with what it needs that does not depend on sizes.
pub(super) struct HostStep {
    pub(super) kernel: KernelId,
    call: Call,
    /// Of every operand the tensor, if it is a constant.
    constants: Vec<Option<Tensor>>,
}

/// Where a step finds its operands, and where its results go.
pub(super) struct HostPlan {
    /// Of operands that are no constants: dims, the first word in the arena, and words.
    inputs: Vec<(Vec<usize>, usize, usize)>,
    /// Of results: the first word in the arena.
    outputs: Vec<usize>,
    symbols: Extents,
}

impl HostPlan {
    /// Words that the step reads: whether the run has failed, and its operands.
    pub(super) fn words(&self) -> usize {
        1 + self.inputs.iter().map(|(_, _, words)| words).sum::<usize>()
    }

    /// First words in the arena, and words, in the order in which the host reads them.
    pub(super) fn copies(&self) -> impl Iterator<Item = (usize, usize)> {
        self.inputs.iter().map(|(_, first, words)| (*first, *words))
    }
}

/// The steps of a program, by dispatch; `load` gives the tensor of a constant.
pub(super) fn steps(
    program: &Program,
    form: &GpuProgram,
    load: &dyn Fn(u32) -> Result<Tensor, Error>,
) -> Result<HashMap<usize, HostStep>, Error> {
    let constant = |tensor: &Dense| match program.buffer(tensor.buffer).source {
        Source::Constant(constant) => load(constant).map(Some),
        Source::Input(_) | Source::Temp | Source::Param | Source::Result => Ok(None),
    };
    let mut steps = HashMap::new();
    for (at, dispatch) in form.dispatches.iter().enumerate() {
        let Role::Host(kernel) = dispatch.role else { continue };
        let Form::Host(host) = &program.kernel(kernel).form else { continue };
        let constants = host.inputs.iter().map(constant).collect::<Result<_, Error>>()?;
        steps.insert(at, HostStep { kernel, call: Call::of(program, host), constants });
    }
    Ok(steps)
}

/// Fails, with the names of all, if the host must compute kernels.
pub(super) fn refuse(program: &Program, form: &GpuProgram) -> Result<(), Error> {
    let names: Vec<String> = form.host_kernels().map(|id| program.kernel(id).title()).collect();
    if names.is_empty() {
        return Ok(());
    }
    let why = "there is no shader for these kernels, which only the host can compute, if it is told to (--host-ops)";
    Err(call::error(program, ErrorKind::Device, format!("{why}: {}", names.join(", "))))
}

/// What the timeline calls a kernel that the host computes.
pub(super) fn host_span(program: &Program, kernel: KernelId) -> String {
    format!("host: {kernel} {}", program.kernel(kernel).name)
}

impl HostStep {
    /// Where the step's operands and results are.
    pub(super) fn plan(&self, dispatch: &Dispatch, symbols: &Extents, arena: &Arena) -> Result<HostPlan, PlanError> {
        let missing = || PlanError::new(ErrorKind::Program, "a step of the host has no place for an operand");
        let value = |symbol: &Symbol| symbols.get(symbol).map(|e| e.lo);
        let mut places = dispatch.params.iter().skip(2).map(|param| match param {
            Param::Scratch(number) => arena.scratch.get(*number as usize).copied(),
            Param::Home(buffer) => arena.home(*buffer),
            _ => None,
        });
        let mut place = || places.next().flatten().ok_or_else(missing);
        let (mut inputs, mut outputs) = (Vec::new(), Vec::new());
        for (operand, _) in self.call.inputs.iter().zip(&self.constants).filter(|(_, constant)| constant.is_none()) {
            let dims = operand.sizes(&value).ok_or_else(missing)?;
            let words = dims.iter().try_fold(1usize, |n, d| n.checked_mul(*d)).ok_or_else(missing)?;
            let first = place()?;
            if first.checked_add(words).is_none_or(|end| end > arena.words) {
                return Err(missing());
            }
            inputs.push((dims, first, words));
        }
        for operand in &self.call.outputs {
            operand.sizes(&value).ok_or_else(missing)?;
            outputs.push(place()?);
        }
        Ok(HostPlan { inputs, outputs, symbols: symbols.clone() })
    }

    /// The words of the results, with their places in the arena, from the words of the operands.
    pub(super) fn run(&self, plan: &HostPlan, mut read: &[u8]) -> Result<Vec<(usize, Vec<u8>)>, String> {
        let mut places = plan.inputs.iter();
        let mut inputs = Vec::with_capacity(self.constants.len());
        for (operand, constant) in self.call.inputs.iter().zip(&self.constants) {
            if let Some(constant) = constant {
                inputs.push(constant.clone());
                continue;
            }
            let (dims, _, words) = places.next().ok_or("an operand has no place")?;
            let (own, rest) = read.split_at_checked(4 * words).ok_or("an operand was not read")?;
            inputs.push(words::decode(operand.dtype, dims, own)?);
            read = rest;
        }
        let results = self.call.results(&inputs, &|symbol| plan.symbols.get(symbol).map(|e| e.lo))?;
        plan.outputs.iter().zip(&results).map(|(first, r)| Ok((*first, words::encode(r)?.into_owned()))).collect()
    }
}
