//! What a run needs to know about its sizes: symbols, checked bounds, and where buffers lie. Plans are
//! kept, and a layout serves all sizes that fit it, so that inputs that alternate or grow from run to
//! run, like the caches of a language model, cost little.

use std::collections::HashMap;
use std::sync::Arc;

use eec_ir::program::{Port, Program};
use eec_ir::{Dim, Symbol, Tensor};

use crate::bind::bind;
use crate::bounds::{self, Repeats};
use crate::error::ErrorKind;
use crate::extent::Extent;
use crate::memory::{Layout, Lifetimes};

/// What is known once the input dims are.
pub(crate) struct Plan {
    /// Dims of all inputs, one after the other.
    dims: Vec<usize>,
    /// Values of the symbols, in the order of the code's table.
    pub(crate) symbols: Vec<i64>,
    pub(crate) layout: Arc<Layout>,
    /// Dims and bytes of the outputs.
    pub(crate) outputs: Vec<(Vec<usize>, usize)>,
}

/// Why there is no plan: the kind, the kernel if one is meant, and the reason.
pub(crate) struct PlanError {
    pub(crate) kind: ErrorKind,
    pub(crate) kernel: Option<String>,
    pub(crate) why: String,
}

fn error(kind: ErrorKind, why: impl Into<String>) -> PlanError {
    PlanError { kind, kernel: None, why: why.into() }
}

/// Plans that are kept.
const PLANS: usize = 16;

/// Makes plans for one program and keeps them.
pub(crate) struct Planner {
    lifetimes: Lifetimes,
    repeats: Repeats,
    memory_limit: usize,
    plans: Vec<Arc<Plan>>,
}

impl Planner {
    pub(crate) fn new(program: &Program, memory_limit: usize) -> Planner {
        let (lifetimes, repeats) = (Lifetimes::of(program), Repeats::of(program));
        Planner { lifetimes, repeats, memory_limit, plans: Vec::new() }
    }

    /// The plan for the dims of `inputs`; `slots` gives the position of every symbol.
    pub(crate) fn plan(
        &mut self,
        program: &Program,
        slots: &HashMap<Symbol, usize>,
        inputs: &[Tensor],
    ) -> Result<Arc<Plan>, PlanError> {
        let same = |plan: &&Arc<Plan>| plan.dims.iter().eq(inputs.iter().flat_map(|t| t.dims()));
        let types =
            program.inputs.iter().zip(inputs).all(|(p, t)| p.dtype == t.dtype() && p.dims.len() == t.dims().len());
        if let Some(found) = self.plans.iter().find(same).filter(|_| types) {
            return Ok(Arc::clone(found));
        }
        let plan = Arc::new(self.new_plan(program, slots, inputs)?);
        if self.plans.len() == PLANS {
            self.plans.remove(0);
        }
        self.plans.push(Arc::clone(&plan));
        Ok(plan)
    }

    fn new_plan(
        &self,
        program: &Program,
        slots: &HashMap<Symbol, usize>,
        inputs: &[Tensor],
    ) -> Result<Plan, PlanError> {
        let mut extents = bind(program, inputs).map_err(|why| error(ErrorKind::Input, why))?;
        let mut symbols = vec![0; slots.len()];
        for (symbol, slot) in slots {
            symbols[*slot] = extents.get(symbol).map_or(0, |e| e.lo);
        }
        let value = |dim: &Dim| Extent::of(dim, &extents).and_then(|e| usize::try_from(e.lo).ok());
        let dims = |port: &Port| port.dims.iter().map(value).collect::<Option<Vec<usize>>>();
        let outputs: Option<Vec<Vec<usize>>> = program.outputs.iter().map(dims).collect();
        let outputs =
            outputs.ok_or_else(|| error(ErrorKind::Input, "an output has no usable dims for these inputs"))?;
        let capacity = bounds::check(program, &self.repeats, &mut extents).map_err(|e| PlanError {
            kind: ErrorKind::Program,
            kernel: e.kernel,
            why: e.message,
        })?;
        let sizes: Vec<usize> =
            capacity.iter().zip(&program.buffers).map(|(n, b)| *n as usize * b.dtype.size()).collect();
        let outputs = outputs.into_iter().zip(&program.outputs).map(|(d, port)| (d, sizes[port.buffer.index()]));
        let outputs = outputs.collect();
        let layout = self.layout(program, &sizes)?;
        let dims = inputs.iter().flat_map(|t| t.dims().iter().copied()).collect();
        Ok(Plan { dims, symbols, layout, outputs })
    }

    /// A layout with room for these sizes. The first is exact; where sizes have changed, the next has
    /// an eighth more room than is needed.
    fn layout(&self, program: &Program, sizes: &[usize]) -> Result<Arc<Layout>, PlanError> {
        if let Some(plan) = self.plans.iter().rev().find(|p| p.layout.fits(sizes)) {
            return Ok(Arc::clone(&plan.layout));
        }
        let limited = |sizes: &[usize]| {
            Layout::new(program, &self.lifetimes, sizes).filter(|l| l.total <= self.memory_limit).map(Arc::new)
        };
        let larger: Vec<usize> = sizes.iter().map(|size| size + size / 8).collect();
        let roomy = if self.plans.is_empty() { None } else { limited(&larger) };
        roomy.or_else(|| limited(sizes)).ok_or_else(|| {
            let limit = self.memory_limit;
            error(ErrorKind::Memory, format!("the temporary buffers need more than the limit of {limit} bytes"))
        })
    }
}
