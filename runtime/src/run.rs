//! What goes into a run and what comes out of it.

use eec_ir::program::{MAX_STEPS, Port};
use eec_ir::tensor::Element;
use eec_ir::{DType, Tensor};

use crate::array::Array;
use crate::error::{Error, ErrorKind};
use crate::native::NativeCode;

/// How a session runs.
#[derive(Clone, Debug)]
pub struct Options {
    /// Threads that compute, the caller included, at most 1024; 0 stands for one per core.
    pub threads: usize,
    /// The most bytes that a run's temporary buffers may take.
    pub memory_limit: usize,
    /// The most steps that the loops of a run may make together.
    pub step_limit: u64,
    /// Whether every kernel is measured, which costs some 50 ns each.
    pub profile: bool,
    /// Code that was made ahead of time for the program. Without, it is made when the model is loaded, which takes
    /// the feature `jit`.
    pub native: Option<&'static NativeCode>,
}

impl Default for Options {
    fn default() -> Self {
        Options { threads: 0, memory_limit: 16 << 30, step_limit: MAX_STEPS, profile: false, native: None }
    }
}

/// What decides at the early exits and gates.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Control {
    /// Their own rules.
    #[default]
    Auto,
    /// No exit is taken and no gate takes effect: the plain model.
    Never,
    /// All rows leave at this exit; with the number of exits they run to the end. Gates decide by themselves.
    Force(usize),
    /// Every gate takes effect for all rows that it is asked for; exits decide by themselves. A token
    /// exit is asked for rows whose tokens are still there.
    Gates,
}

/// An input or output as people see it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PortInfo {
    /// Name.
    pub name: String,
    /// Element type.
    pub dtype: DType,
    /// Dims: numbers, symbols or formulas over symbols.
    pub dims: Vec<String>,
}

impl PortInfo {
    pub(crate) fn of(port: &Port) -> PortInfo {
        PortInfo { name: port.name.clone(), dtype: port.dtype, dims: port.dims.iter().map(|d| d.to_string()).collect() }
    }
}

/// What a run executed.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Counters {
    /// Kernels that ran.
    pub kernels: u64,
    /// Multiply-accumulates.
    pub macs: u64,
    /// Runs per kernel of the program.
    pub per_kernel: Vec<u64>,
    /// Rows that took each exit; for an exit that decides for the whole batch, whether it was taken.
    pub exit_rows: Vec<u64>,
    /// Rows for which each gate took effect; for a gate that decides for the whole batch, whether it did.
    pub gate_rows: Vec<u64>,
    /// Per kernel of the program what its runs took, if [`Options::profile`] is set; else empty.
    pub measures: Vec<Measure>,
    /// What a GPU was given; zeros on the CPU.
    pub gpu: GpuCounters,
}

/// What a run gave a GPU to do, and took from it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct GpuCounters {
    /// Submissions; more than one only where a watchdog could stop a longer one, where loops make very many steps, and
    /// where the host reads something before the end.
    pub submits: u64,
    /// Dispatches that were recorded, those included that return at once.
    pub dispatches: u64,
    /// Kernels that the host computed in its stead.
    pub host_steps: u64,
    /// How often the host waited for what it reads: once at the end, before every step of its own, and where it asked
    /// whether a loop goes on that it cannot count.
    pub waits: u64,
    /// Bytes read back, all at the end of the run but for those of the other times that it waited.
    pub readback_bytes: u64,
}

/// What the runs of a kernel took.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Measure {
    /// Wall time in nanoseconds.
    pub ns: u64,
    /// Multiply-accumulates.
    pub macs: u64,
    /// Bytes that it must read and write at least.
    pub bytes: u64,
}

/// The result of a run.
#[derive(Clone, Debug, Default)]
pub struct Run {
    /// Outputs in the model's order.
    pub outputs: Vec<(String, Tensor)>,
    /// What was executed.
    pub counters: Counters,
    /// What a measured run on a GPU did, in order; else empty.
    pub timeline: Vec<Span>,
}

/// One thing that took time.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Span {
    /// The kernel, the decision, or what the host did.
    pub name: String,
    /// What it is.
    pub kind: SpanKind,
    /// When it began, in nanoseconds since the run did.
    pub start_ns: u64,
    /// When it ended.
    pub end_ns: u64,
    /// Whether it did its work; what stands behind a decision may have been skipped.
    pub ran: bool,
}

/// What a [`Span`] is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SpanKind {
    /// The host prepares or waits.
    Host,
    /// A kernel of the model.
    Kernel,
    /// Copies of rows and outputs, and decisions that are no exits.
    Flow,
    /// The early exit of this number decides.
    Exit(usize),
}

impl Run {
    /// The output `name`.
    ///
    /// Fails if there is none.
    pub fn tensor(&self, name: &str) -> Result<&Tensor, Error> {
        let found = self.outputs.iter().find(|(n, _)| n == name);
        found.map(|(_, tensor)| tensor).ok_or_else(|| {
            let names: Vec<&str> = self.outputs.iter().map(|(n, _)| n.as_str()).collect();
            Error::new(ErrorKind::Output, format!("output {name:?}"), format!("is not among the outputs {names:?}"))
        })
    }

    /// The output `name` as an array.
    ///
    /// Fails if there is none, or if it has another element type or rank.
    pub fn output<T: Element, const RANK: usize>(&self, name: &str) -> Result<Array<T, RANK>, Error> {
        let array = Array::try_from(self.tensor(name)?.clone());
        array.map_err(|e| Error::new(ErrorKind::Output, format!("output {name:?}"), e))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outputs_are_taken_by_name_type_and_rank() {
        let scores = Tensor::new(&[2, 2], vec![1.0f32, 2.0, 3.0, 4.0]).unwrap();
        let run = Run { outputs: vec![("scores".into(), scores)], ..Run::default() };
        let taken: Array<f32, 2> = run.output("scores").unwrap();
        assert_eq!((taken.dims(), &*taken.elements()), ([2, 2], &[1.0, 2.0, 3.0, 4.0][..]));
        let error = run.output::<i64, 2>("scores").unwrap_err().to_string();
        assert!(error.contains("expected i64 of rank 2, found f32[2, 2]"), "{error}");
        assert!(run.output::<f32, 1>("scores").is_err());
        let error = run.output::<f32, 2>("score").unwrap_err().to_string();
        assert!(error.contains("\"score\"") && error.contains("[\"scores\"]"), "{error}");
    }
}
