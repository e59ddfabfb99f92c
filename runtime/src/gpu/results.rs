//! What a run gave, from the bytes that were read back: outputs, counters, and times where they were measured.

use std::collections::HashMap;
use std::ops::Range;

use eec_ir::gpu::{Fault, GpuProgram, Repeat, State};
use eec_ir::program::Program;
use eec_ir::{Dim, KernelId, Symbol, Tensor};

use super::encode::Readback;
use super::host::{HostStep, host_span};
use super::loops;
use super::plan::{Plan, kernels};
use super::profile::{self, Clock, Stamps, Timed};
use super::running::Done;
use super::words;
use crate::call;
use crate::error::{Error, ErrorKind};
use crate::run::{Counters, GpuCounters, Measure, Run};
use crate::traffic::{On, traffic};

/// What is known of a run that has ended.
pub(super) struct Ended<'a> {
    pub(super) program: &'a Program,
    pub(super) form: &'a GpuProgram,
    pub(super) layout: State,
    pub(super) plan: &'a Plan,
    pub(super) stamps: Option<&'a Stamps>,
    pub(super) steps: &'a HashMap<usize, HostStep>,
    pub(super) inputs: &'a [Tensor],
    pub(super) step_limit: u64,
}

impl Ended<'_> {
    /// What the run gave.
    ///
    /// Fails if a kernel met an index out of range or an integer division by zero, and if loops take too many steps.
    pub(super) fn run(&self, done: &Done, mut clock: Clock) -> Result<Run, Error> {
        let parts = Readback::of(&self.layout, self.form, self.plan, done.stamp_words);
        let back = &done.back;
        let numbers = |range: Range<usize>| -> Vec<i32> {
            back[4 * range.start..4 * range.end].as_chunks().0.iter().map(|w| i32::from_le_bytes(*w)).collect()
        };
        let mut counted = numbers(parts.counters..parts.state);
        let (ran, rest) = counted.split_at_mut(self.form.dispatches.len());
        let (failed, sums) = rest.split_at(1);
        if let Some(failed) = failed.first().filter(|f| **f != 0) {
            return Err(fault(self.program, self.form, self.inputs, self.step_limit, *failed as u32));
        }
        // No shader counts what the host did.
        self.steps.keys().for_each(|at| ran[*at] = 1);
        let work = Work { form: self.form, ran, sums, given: &self.plan.state };
        let mut outputs = Vec::with_capacity(self.plan.outputs.len());
        for (port, (dims, words)) in self.program.outputs.iter().zip(&self.plan.outputs) {
            let bytes = &back[4 * (parts.outputs + words.start)..4 * (parts.outputs + words.end)];
            let tensor = words::decode(port.dtype, dims, bytes);
            let tensor = tensor.map_err(|why| {
                call::error(self.program, ErrorKind::Program, format!("output {:?}: {why}", port.name))
            })?;
            outputs.push((port.name.clone(), tensor));
        }
        let mut counters = self.counters(&work, &numbers(parts.state..parts.stamps));
        counters.gpu = GpuCounters {
            submits: done.submits,
            dispatches: done.dispatches,
            host_steps: self.steps.len() as u64,
            waits: done.waits,
            readback_bytes: 4 * (parts.words + done.words) as u64,
        };
        clock.lap("read");
        let Some(stamps) = self.stamps else { return Ok(Run { outputs, counters, timeline: Vec::new() }) };
        let times = stamps.timed(&done.stamped, self.form.dispatches.len());
        counters.measures = self.measures(&work, &times);
        self.measure_host(&mut counters.measures, &clock);
        let spans = profile::spans(self.program, &self.form.dispatches, &times, clock.submitted());
        Ok(Run { outputs, counters, timeline: clock.spans.into_iter().chain(spans).collect() })
    }

    /// Per kernel what its runs took; kernels of one dispatch share its time by their work.
    fn measures(&self, work: &Work<'_>, times: &[Timed]) -> Vec<Measure> {
        let mut took = vec![0u64; self.form.dispatches.len()];
        times.iter().for_each(|timed| took[timed.dispatch] += timed.end - timed.begin);
        let mut measures = vec![Measure::default(); self.program.kernels.len()];
        for ((at, dispatch), ns) in self.form.dispatches.iter().enumerate().zip(took) {
            let together: Vec<KernelId> = kernels(&dispatch.role, &dispatch.with).collect();
            let macs: Vec<u64> = together.iter().map(|k| work.sum(at, &self.program.kernel(*k).macs)).collect();
            let all: u64 = macs.iter().sum();
            for (kernel, macs) in together.iter().zip(&macs) {
                let share = if all > 0 { *macs as f64 / all as f64 } else { 1.0 / together.len() as f64 };
                let measure = &mut measures[kernel.index()];
                measure.ns += (ns as f64 * share) as u64;
                measure.macs += macs;
                measure.bytes += work.sum(at, &traffic(self.program, &self.program.kernel(*kernel).form, On::Gpu));
            }
        }
        measures
    }

    /// Counts kernels and their work; `rows` are those of every decision.
    fn counters(&self, work: &Work<'_>, rows: &[i32]) -> Counters {
        let mut per_kernel = vec![0u64; self.program.kernels.len()];
        let mut macs = 0u64;
        for (at, dispatch) in self.form.dispatches.iter().enumerate() {
            for kernel in kernels(&dispatch.role, &dispatch.with) {
                per_kernel[kernel.index()] += work.runs(at) as u64;
                macs = macs.saturating_add(work.sum(at, &self.program.kernel(kernel).macs));
            }
        }
        let (exits, gates) = rows.split_at(self.program.exits.len());
        let counts = |words: &[i32]| words.iter().map(|n| (*n).max(0) as u64).collect();
        Counters {
            kernels: per_kernel.iter().sum(),
            macs,
            per_kernel,
            exit_rows: counts(exits),
            gate_rows: counts(gates),
            measures: Vec::new(),
            gpu: GpuCounters::default(),
        }
    }

    /// Sets the time of what the host computed, by its own clock.
    fn measure_host(&self, measures: &mut [Measure], clock: &Clock) {
        for step in self.steps.values() {
            let name = host_span(self.program, step.kernel);
            let span = clock.spans.iter().find(|span| span.name == name);
            if let (Some(measure), Some(span)) = (measures.get_mut(step.kernel.index()), span) {
                measure.ns = span.end_ns - span.start_ns;
            }
        }
    }
}

/// How often dispatches ran, and what their symbols were.
struct Work<'a> {
    form: &'a GpuProgram,
    /// Runs of every dispatch.
    ran: &'a [i32],
    /// [`GpuProgram::sums`].
    sums: &'a [i32],
    /// The values of the symbols that inputs give, and of others 0.
    given: &'a [i32],
}

impl Work<'_> {
    fn runs(&self, dispatch: usize) -> i64 {
        i64::from(self.ran[dispatch].max(0))
    }

    /// The sum of a size over all runs of a dispatch. What is set on the device are rows, in which sizes are linear, but
    /// for the length of a join: with it the sum of several runs, all in a loop, is an estimate.
    fn sum(&self, dispatch: usize, size: &Dim) -> u64 {
        let own = self.form.dispatches[dispatch].sums.start as usize..self.form.dispatches[dispatch].sums.end as usize;
        let value = |symbol: &Symbol, sums: &[i32]| {
            let number = self.form.symbols.iter().position(|s| s == symbol)?;
            let sum = self.form.sums[own.clone()].iter().zip(sums).find(|(s, _)| **s as usize == number);
            Some(sum.map_or(i64::from(self.given[number]), |(_, sum)| i64::from(*sum)))
        };
        let of = |sums: &[i32]| size.eval(&|symbol: &Symbol| value(symbol, sums)).unwrap_or(0).max(0) as u64;
        match self.runs(dispatch) {
            0 => 0,
            1 => of(&self.sums[own.clone()]),
            runs => {
                let without = of(&vec![0; own.len()]);
                without.saturating_mul(runs as u64 - 1).saturating_add(of(&self.sums[own.clone()]))
            }
        }
    }
}

/// The error of a run whose word after the counters is this.
pub(super) fn fault(program: &Program, form: &GpuProgram, inputs: &[Tensor], step_limit: u64, word: u32) -> Error {
    let (at, fault) = (((word - 1) / Fault::KINDS) as usize, Fault::of(word - 1));
    let why = match fault {
        Fault::Index => "an index is out of range".to_string(),
        Fault::Division => "an integer is divided by zero".to_string(),
        Fault::Steps => format!("loops take more than {step_limit} steps"),
    };
    let error = call::error(program, ErrorKind::Kernel, why + &call::integer_ranges(&program.inputs, inputs));
    let kernel = form.dispatches.get(at).and_then(|d| kernels(&d.role, &d.with).next());
    let decides = |r: &&Repeat| [r.dispatches.start, r.dispatches.end].contains(&(at as u32 + 1));
    let repeat = form.repeats.iter().find(decides).and_then(|repeat| loops::step_of(program, repeat));
    match (kernel, repeat) {
        (Some(kernel), _) => error.at_node(&program.kernel(kernel).name),
        (None, Some(step)) => error.at_node(&step.name),
        (None, None) => error,
    }
}
