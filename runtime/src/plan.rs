//! What a run on the CPU needs to know about its sizes: symbols, and where buffers lie. A layout serves all
//! sizes that fit it, so that inputs that grow from run to run, like the caches of a language model, cost little.

use std::collections::HashMap;
use std::sync::Arc;

use eec_ir::program::Program;
use eec_ir::{Symbol, Tensor};

use crate::bounds::Repeats;
use crate::error::ErrorKind;
use crate::memory::{Layout, Lifetimes};
use crate::sizes::{Kept, PlanError, Sizes};

/// What is known once the input dims are.
pub(crate) struct Plan {
    /// Values of the symbols, in the order of the code's table.
    pub(crate) symbols: Vec<i64>,
    pub(crate) layout: Arc<Layout>,
}

/// Makes plans for one program and keeps them.
pub(crate) struct Planner {
    lifetimes: Lifetimes,
    repeats: Repeats,
    memory_limit: usize,
    plans: Kept<Plan>,
}

impl Planner {
    pub(crate) fn new(program: &Program, memory_limit: usize) -> Planner {
        let (lifetimes, repeats) = (Lifetimes::of(program), Repeats::of(program));
        Planner { lifetimes, repeats, memory_limit, plans: Kept::new() }
    }

    /// The plan for the dims of `inputs`; `slots` gives the position of every symbol.
    pub(crate) fn plan(
        &mut self,
        program: &Program,
        slots: &HashMap<Symbol, usize>,
        inputs: &[Tensor],
    ) -> Result<Arc<Plan>, PlanError> {
        if let Some(found) = self.plans.find(program, inputs) {
            return Ok(found);
        }
        let sizes = Sizes::of(program, &self.repeats, inputs)?;
        let mut symbols = vec![0; slots.len()];
        for (symbol, slot) in slots {
            symbols[*slot] = sizes.bound.get(symbol).map_or(0, |e| e.lo);
        }
        let bytes: Vec<usize> =
            sizes.capacity.iter().zip(&program.buffers).map(|(n, b)| *n as usize * b.dtype.size()).collect();
        let layout = self.layout(program, &bytes)?;
        Ok(self.plans.keep(inputs, Plan { symbols, layout }))
    }

    /// A layout with room for these sizes. The first is exact; where sizes have changed, the next has
    /// an eighth more room than is needed.
    fn layout(&self, program: &Program, sizes: &[usize]) -> Result<Arc<Layout>, PlanError> {
        if let Some(plan) = self.plans.plans().rev().find(|p| p.layout.fits(sizes)) {
            return Ok(Arc::clone(&plan.layout));
        }
        let limited = |sizes: &[usize]| {
            Layout::new(program, &self.lifetimes, sizes).filter(|l| l.total <= self.memory_limit).map(Arc::new)
        };
        let larger: Vec<usize> = sizes.iter().map(|size| size + size / 8).collect();
        let roomy = if self.plans.plans().next().is_none() { None } else { limited(&larger) };
        roomy.or_else(|| limited(sizes)).ok_or_else(|| {
            let limit = self.memory_limit;
            let why = format!("the temporary buffers need more than the limit of {limit} bytes");
            PlanError::new(ErrorKind::Memory, why)
        })
    }
}
