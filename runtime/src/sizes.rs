//! What the dims of a run's inputs determine on every backend: symbols, checked bounds, sizes of buffers and
//! outputs. What was planned for them is kept, so that inputs that alternate cost little.

use std::sync::Arc;

use eec_ir::program::{Port, Program};
use eec_ir::{Dim, Tensor};

use crate::bind::bind;
use crate::bounds::{self, Repeats};
use crate::call;
use crate::error::{Error, ErrorKind};
use crate::extent::Extents;

/// Why there is no plan: the kernel if one is meant, and the reason.
pub(crate) struct PlanError {
    pub(crate) kind: ErrorKind,
    pub(crate) kernel: Option<String>,
    pub(crate) why: String,
}

impl PlanError {
    pub(crate) fn new(kind: ErrorKind, why: impl Into<String>) -> PlanError {
        PlanError { kind, kernel: None, why: why.into() }
    }

    /// The error of a run of `program`.
    pub(crate) fn of(self, program: &Program) -> Error {
        let error = call::error(program, self.kind, self.why);
        match &self.kernel {
            Some(kernel) => error.at_node(kernel),
            None => error,
        }
    }
}

/// What follows from the inputs' dims.
pub(crate) struct Sizes {
    /// The symbols that the inputs bind.
    pub(crate) bound: Extents,
    /// These, and the ranges of those that a run sets.
    #[cfg(feature = "gpu")]
    pub(crate) ranges: Extents,
    /// The most elements of every buffer.
    pub(crate) capacity: Vec<i64>,
    /// Dims of the outputs; where data decides one, the largest that it may be.
    #[cfg(feature = "gpu")]
    pub(crate) outputs: Vec<Vec<usize>>,
}

impl Sizes {
    /// Binds the dims of `inputs` and checks every access of the program for them.
    pub(crate) fn of(program: &Program, repeats: &Repeats, inputs: &[Tensor]) -> Result<Sizes, PlanError> {
        let bound = bind(program, inputs).map_err(|why| PlanError::new(ErrorKind::Input, why))?;
        let ranges = bounds::ranges(program, &bound);
        Sizes::within(program, repeats, bound, ranges)
    }

    /// What follows where `ranges` are those of all symbols, and `bound` those of the inputs.
    pub(crate) fn within(
        program: &Program,
        repeats: &Repeats,
        bound: Extents,
        ranges: Extents,
    ) -> Result<Sizes, PlanError> {
        let value = |port: &Port, dim: &Dim| {
            let size = bounds::size(program, dim, &ranges).and_then(|e| usize::try_from(e.hi).ok());
            size.ok_or_else(|| PlanError {
                kind: ErrorKind::Input,
                kernel: bounds::writer(program, port.buffer),
                why: format!("output {:?}: {}", port.name, bounds::no_size(dim, &ranges)),
            })
        };
        let dims = program.outputs.iter().map(|port| port.dims.iter().map(|dim| value(port, dim)).collect());
        let outputs = dims.collect::<Result<Vec<Vec<usize>>, PlanError>>()?;
        #[cfg(not(feature = "gpu"))]
        drop(outputs);
        let capacity = bounds::check(program, repeats, &ranges).map_err(|e| PlanError {
            kind: ErrorKind::Program,
            kernel: e.kernel,
            why: e.message,
        })?;
        Ok(Sizes {
            bound,
            #[cfg(feature = "gpu")]
            ranges,
            capacity,
            #[cfg(feature = "gpu")]
            outputs,
        })
    }
}

/// Plans that are kept.
const PLANS: usize = 16;

/// Plans with the dims of all inputs, one after the other.
pub(crate) struct Kept<P>(Vec<(Vec<usize>, Arc<P>)>);

impl<P> Kept<P> {
    pub(crate) fn new() -> Kept<P> {
        Kept(Vec::new())
    }

    /// The plan for inputs of these dims.
    pub(crate) fn find(&self, program: &Program, inputs: &[Tensor]) -> Option<Arc<P>> {
        let types =
            program.inputs.iter().zip(inputs).all(|(p, t)| p.dtype == t.dtype() && p.dims.len() == t.dims().len());
        let same = |dims: &Vec<usize>| dims.iter().eq(inputs.iter().flat_map(|t| t.dims()));
        self.0.iter().find(|(dims, _)| types && same(dims)).map(|(_, plan)| Arc::clone(plan))
    }

    /// Keeps a plan, in the place of the oldest one if there are many.
    pub(crate) fn keep(&mut self, inputs: &[Tensor], plan: P) -> Arc<P> {
        if self.0.len() == PLANS {
            self.0.remove(0);
        }
        let plan = Arc::new(plan);
        self.0.push((inputs.iter().flat_map(|t| t.dims().iter().copied()).collect(), Arc::clone(&plan)));
        plan
    }

    /// The plans, the oldest first.
    pub(crate) fn plans(&self) -> impl DoubleEndedIterator<Item = &P> {
        self.0.iter().map(|(_, plan)| &**plan)
    }
}
