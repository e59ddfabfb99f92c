//! What a run gave, from the bytes that were read back: outputs, counters, and times where they were measured.

use std::collections::HashMap;
use std::ops::Range;

use eec_ir::gpu::{Dispatch, Fault, GpuProgram, State};
use eec_ir::program::Program;
use eec_ir::{Dim, KernelId, Symbol, Tensor};

use super::encode::Readback;
use super::host::{HostPlan, HostStep};
use super::plan::{Plan, kernels};
use super::profile::{self, Clock, Stamps};
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
}

impl Ended<'_> {
    /// What the run gave; `back` are the bytes that were read back.
    ///
    /// Fails if a kernel met an index out of range or an integer division by zero.
    pub(super) fn run(&self, back: &[u8], mut clock: Clock) -> Result<Run, Error> {
        let parts = Readback::of(&self.layout, self.form, self.plan, self.stamps);
        let numbers = |range: Range<usize>| -> Vec<i32> {
            back[4 * range.start..4 * range.end].as_chunks().0.iter().map(|w| i32::from_le_bytes(*w)).collect()
        };
        let mut counted = numbers(parts.counters..parts.state);
        let (ran, failed) = counted.split_at_mut(self.form.dispatches.len());
        if let Some(failed) = failed.first().filter(|f| **f != 0) {
            return Err(fault(self.program, self.form, self.inputs, *failed as u32));
        }
        // No shader counts what the host did.
        self.steps.keys().for_each(|at| ran[*at] = 1);
        let ran = &*ran;
        let mut outputs = Vec::with_capacity(self.plan.outputs.len());
        for (port, (dims, words)) in self.program.outputs.iter().zip(&self.plan.outputs) {
            let bytes = &back[4 * (parts.outputs + words.start)..4 * (parts.outputs + words.end)];
            let tensor = words::decode(port.dtype, dims, bytes);
            let tensor = tensor.map_err(|why| {
                call::error(self.program, ErrorKind::Program, format!("output {:?}: {why}", port.name))
            })?;
            outputs.push((port.name.clone(), tensor));
        }
        let end = numbers(parts.state..parts.stamps);
        let mut counters = self.counters(ran, &end, parts.words);
        clock.lap("read");
        let Some(stamps) = self.stamps else { return Ok(Run { outputs, counters, timeline: Vec::new() }) };
        let times = stamps.times(&back[4 * parts.stamps..4 * parts.words]);
        counters.measures = self.measures(ran, &end, &times);
        self.measure_host(&mut counters.measures, &clock);
        let spans = profile::spans(self.program, &self.form.dispatches, ran, &times, clock.submitted());
        Ok(Run { outputs, counters, timeline: clock.spans.into_iter().chain(spans).collect() })
    }

    /// The values that symbols had when a dispatch ran; `end` is the end of the state.
    fn symbols<'a>(&'a self, dispatch: &Dispatch, end: &'a [i32]) -> impl Fn(&Symbol) -> Option<i64> + 'a {
        let first = self.layout.logs() - self.layout.rows() + dispatch.instance as usize * self.form.symbols.len();
        move |symbol| {
            let at = self.form.symbols.iter().position(|s| s == symbol)?;
            end.get(first + at).map(|word| i64::from(*word))
        }
    }

    /// Per kernel what its runs took; kernels of one dispatch share its time by their work.
    fn measures(&self, ran: &[i32], end: &[i32], times: &[(u64, u64)]) -> Vec<Measure> {
        let mut measures = vec![Measure::default(); self.program.kernels.len()];
        for ((dispatch, ran), (begin, end_ns)) in self.form.dispatches.iter().zip(ran).zip(times) {
            let value = self.symbols(dispatch, end);
            let size = |dim: &Dim| dim.eval(&value).unwrap_or(0).max(0) as u64 * (*ran).max(0) as u64;
            let together: Vec<KernelId> = kernels(&dispatch.role, &dispatch.with).collect();
            let work: Vec<u64> = together.iter().map(|k| size(&self.program.kernel(*k).macs)).collect();
            let all: u64 = work.iter().sum();
            for (kernel, macs) in together.iter().zip(&work) {
                let share = if all > 0 { *macs as f64 / all as f64 } else { 1.0 / together.len() as f64 };
                let measure = &mut measures[kernel.index()];
                measure.ns += ((end_ns - begin) as f64 * share) as u64;
                measure.macs += macs;
                measure.bytes += size(&traffic(self.program, &self.program.kernel(*kernel).form, On::Gpu));
            }
        }
        measures
    }

    /// Counts kernels and their work; `end` is the end of the state: rows per decision, then the logs.
    fn counters(&self, ran: &[i32], end: &[i32], readback_words: usize) -> Counters {
        let mut per_kernel = vec![0u64; self.program.kernels.len()];
        let mut macs = 0u64;
        for (dispatch, ran) in self.form.dispatches.iter().zip(ran).filter(|(_, ran)| **ran > 0) {
            let value = self.symbols(dispatch, end);
            for kernel in kernels(&dispatch.role, &dispatch.with) {
                per_kernel[kernel.index()] += *ran as u64;
                let once = self.program.kernel(kernel).macs.eval(&value).unwrap_or(0);
                macs = macs.saturating_add((once.max(0) as u64).saturating_mul(*ran as u64));
            }
        }
        let host_words: usize = self.plan.host.values().map(HostPlan::words).sum();
        let rows = &end[..self.layout.logs() - self.layout.rows()];
        let (exits, gates) = rows.split_at(self.program.exits.len());
        let counts = |words: &[i32]| words.iter().map(|n| (*n).max(0) as u64).collect();
        Counters {
            kernels: per_kernel.iter().sum(),
            macs,
            per_kernel,
            exit_rows: counts(exits),
            gate_rows: counts(gates),
            measures: Vec::new(),
            gpu: GpuCounters {
                submits: self.plan.submissions().count() as u64,
                dispatches: (self.form.dispatches.len() - self.steps.len()) as u64,
                host_steps: self.steps.len() as u64,
                readback_bytes: 4 * (readback_words + host_words) as u64,
            },
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

/// What the timeline calls a kernel that the host computes.
pub(super) fn host_span(program: &Program, kernel: KernelId) -> String {
    format!("host: {kernel} {}", program.kernel(kernel).name)
}

/// The error of a run whose word after the counters is this.
pub(super) fn fault(program: &Program, form: &GpuProgram, inputs: &[Tensor], word: u32) -> Error {
    let ranges = || call::integer_ranges(&program.inputs, inputs);
    let (dispatch, fault) = (((word - 1) / 2) as usize, (word - 1) % 2);
    let why = match fault == Fault::Index as u32 {
        true => format!("an index is out of range{}", ranges()),
        false => format!("an integer is divided by zero{}", ranges()),
    };
    let error = call::error(program, ErrorKind::Kernel, why);
    let dispatch = form.dispatches.get(dispatch);
    match dispatch.and_then(|d| kernels(&d.role, &d.with).next()) {
        Some(kernel) => error.at_node(&program.kernel(kernel).name),
        None => error,
    }
}
