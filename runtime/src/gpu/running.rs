//! One run: its dispatches are recorded, with loops step by step, submitted, and waited for.
//!
//! A run is one submission, but where a system's watchdog could stop a longer one, where a submission would hold very
//! many dispatches, and where the host needs to know something: what a step of its own reads, and whether a loop goes
//! on whose steps it cannot count, or which may make many more than it does.

use std::collections::{HashMap, VecDeque};
use std::ops::Range;
use std::time::Duration;

use eec_ir::Tensor;
use eec_ir::program::Program;

use super::device::Gpu;
use super::encode::{Readback, Recorder, Then, asked_words};
use super::host::{HostStep, host_span};
use super::profile::{Clock, Stamped, Stamps};
use super::results::fault;
use crate::call;
use crate::error::{Error, ErrorKind};

/// A run whose kernels need more is waited for longer: the slowest adapter that is expected.
const MACS_PER_SECOND: u64 = 100_000_000;

/// Dispatches of a submission at most.
const DISPATCHES: usize = 1 << 14;

/// Submissions that are not waited for at most, since each takes the host's memory.
const IN_FLIGHT: usize = 4;

/// Steps of a loop that are recorded before the host asks for the first time whether it goes on; then it is twice as
/// many every time.
const FIRST_STEPS: u64 = 16;

/// How a run is cut and waited for.
#[derive(Clone, Copy)]
pub(super) struct Cuts {
    /// The most multiply-accumulates of a submission.
    pub(super) submission_macs: u64,
    /// The most steps of all loops.
    pub(super) step_limit: u64,
    /// The most steps of loops that are recorded without knowing whether they are made.
    pub(super) steps_ahead: u64,
    /// How long every wait may take, besides the work.
    pub(super) patience: Duration,
}

/// Why a run ends early.
enum Stop {
    /// The device failed.
    Device(Error),
    /// A step of the host failed; the device waits for the next run.
    Host(Error),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Stop {
        Stop::Device(error)
    }
}

/// What a run did, beside what was read back.
#[derive(Default)]
pub(super) struct Done {
    /// What was read back at the end.
    pub(super) back: Vec<u8>,
    pub(super) submits: u64,
    pub(super) dispatches: u64,
    /// How often the host waited for the device.
    pub(super) waits: u64,
    /// Words that were read before the end.
    pub(super) words: usize,
    /// What the timestamps say, if dispatches are measured.
    pub(super) stamped: Vec<Stamped>,
    /// Words of timestamps among those read at the end.
    pub(super) stamp_words: usize,
}

/// A run that is under way.
pub(super) struct Running<'a> {
    pub(super) gpu: &'a Gpu,
    pub(super) program: &'a Program,
    pub(super) recorder: Recorder<'a>,
    /// What the host computes, by dispatch.
    pub(super) steps: &'a HashMap<usize, HostStep>,
    pub(super) inputs: &'a [Tensor],
    pub(super) cuts: Cuts,
    pub(super) clock: &'a mut Clock,
    pub(super) progress: Progress,
}

/// How far a run is.
#[derive(Default)]
pub(super) struct Progress {
    done: Done,
    /// Dispatches of the next submission, and their work.
    pending: Vec<usize>,
    macs: u64,
    /// Dispatches whose timestamps were not read yet, but for those pending.
    unread: Vec<usize>,
    in_flight: VecDeque<wgpu::SubmissionIndex>,
    /// Work since the host waited last.
    unfinished: u64,
    /// Steps since the host asked last that may not be made.
    unsure: u64,
    /// Per block whether it was not live when the host asked last.
    dead: Vec<bool>,
}

impl Running<'_> {
    /// Runs it to its end.
    ///
    /// Fails if the device does. The inner result fails if a step of the host does; the device then waits for the next
    /// run.
    pub(super) fn run(mut self) -> Result<Result<Done, Error>, Error> {
        self.progress.dead = vec![false; self.program.blocks.len()];
        let all = 0..self.recorder.form.dispatches.len();
        let walked = self.walk(all, None).and_then(|()| Ok(self.submit(Then::End)?));
        let failed = match walked {
            Ok(()) => None,
            Err(Stop::Device(error)) => return Err(error),
            Err(Stop::Host(error)) => Some(error),
        };
        let buffers = self.recorder.buffers;
        let stamp_words = Stamps::words(self.progress.unread.len());
        let words = Readback::of(&self.recorder.layout, self.recorder.form, self.recorder.plan, stamp_words).words;
        let mut mapped = vec![(&buffers.upload, wgpu::MapMode::Write, buffers.upload.size())];
        if failed.is_none() {
            mapped.push((&buffers.readback, wgpu::MapMode::Read, 4 * words as u64));
        }
        self.wait(&mapped)?;
        self.clock.lap("wait");
        if let Some(error) = failed {
            return Ok(Err(error));
        }
        let back = self.gpu.read(&buffers.readback, words)?;
        self.read_stamps(&back[4 * (words - stamp_words)..]);
        Ok(Ok(Done { back, stamp_words, ..self.progress.done }))
    }

    /// Records dispatches; `within` is the loop whose step they are.
    fn walk(&mut self, range: Range<usize>, within: Option<usize>) -> Result<(), Stop> {
        let plan = self.recorder.plan;
        let mut at = range.start;
        while at < range.end {
            let inner = plan.loops.binary_search_by_key(&at, |l| l.dispatches.start).ok();
            match inner.filter(|inner| Some(*inner) != within) {
                Some(inner) => {
                    self.repeat(inner)?;
                    at = plan.loops[inner].dispatches.end;
                }
                None => {
                    self.dispatch(at)?;
                    at += 1;
                }
            }
        }
        Ok(())
    }

    /// Records the steps of a loop, as many as it may make, or until the host knows that it has ended.
    fn repeat(&mut self, number: usize) -> Result<(), Stop> {
        let found = &self.recorder.plan.loops[number];
        // What was known of it is of the time before.
        self.progress.dead[found.body] = false;
        let ahead = self.cuts.steps_ahead.max(1);
        let few = found.certain || found.most <= ahead;
        let (mut until, mut more) = (if few { found.most } else { FIRST_STEPS.min(ahead) }, FIRST_STEPS);
        for step in 0..found.most {
            if step == until || (!found.certain && self.progress.unsure >= ahead) {
                self.ask()?;
                more = (more * 2).min(ahead);
                until = if few { found.most } else { step + more };
            }
            if self.progress.dead[found.body] {
                break;
            }
            self.progress.unsure += u64::from(!found.certain);
            self.walk(found.dispatches.clone(), Some(number))?;
        }
        Ok(())
    }

    fn dispatch(&mut self, at: usize) -> Result<(), Stop> {
        if let Some(step) = self.steps.get(&at) {
            return self.host_step(at, step);
        }
        let stamps_full =
            |p: &Progress| self.recorder.stamps.is_some_and(|stamps| p.unread.len() + p.pending.len() >= stamps.room());
        if stamps_full(&self.progress) {
            self.ask()?;
        }
        let macs = self.recorder.plan.macs[at];
        let too_long = self.progress.macs.saturating_add(macs) > self.cuts.submission_macs;
        if !self.progress.pending.is_empty() && (too_long || self.progress.pending.len() >= DISPATCHES) {
            self.submit(Then::More)?;
        }
        self.progress.pending.push(at);
        self.progress.macs = self.progress.macs.saturating_add(macs);
        Ok(())
    }

    /// Submits what is pending.
    fn submit(&mut self, then: Then<'_>) -> Result<(), Error> {
        let progress = &mut self.progress;
        let before = (progress.done.submits > 0).then_some(progress.unread.len());
        let commands = self.gpu.scoped("a run", || self.recorder.record(&progress.pending, before, then))?;
        self.clock.lap("record");
        let submission = self.gpu.scoped("a run", || self.gpu.queue().submit([commands]))?;
        self.clock.lap("submit");
        progress.done.submits += 1;
        progress.done.dispatches += progress.pending.len() as u64;
        progress.unfinished = progress.unfinished.saturating_add(std::mem::take(&mut progress.macs));
        if self.recorder.stamps.is_some() {
            progress.unread.extend(&progress.pending);
        }
        progress.pending.clear();
        progress.in_flight.push_back(submission);
        let oldest = if progress.in_flight.len() > IN_FLIGHT { progress.in_flight.pop_front() } else { None };
        oldest.map_or(Ok(()), |oldest| self.gpu.wait(oldest, self.timeout()))
    }

    /// How long the host waits for the work that it does not know to be done.
    fn timeout(&self) -> Duration {
        self.cuts.patience + Duration::from_secs(self.progress.unfinished / MACS_PER_SECOND)
    }

    /// Waits until all submissions are done, and these buffers can be seen.
    fn wait(&mut self, buffers: &[(&wgpu::Buffer, wgpu::MapMode, u64)]) -> Result<(), Error> {
        let last = self.progress.in_flight.pop_back();
        self.gpu.map(buffers, last, self.timeout())?;
        self.progress.in_flight.clear();
        self.progress.unfinished = 0;
        self.progress.done.waits += 1;
        Ok(())
    }

    /// Submits what is pending, and reads what was asked for: so many words.
    fn read_early(&mut self, then: Then<'_>, words: usize) -> Result<Vec<u8>, Error> {
        self.submit(then)?;
        let host = &self.recorder.buffers.host;
        self.wait(&[(host, wgpu::MapMode::Read, 4 * words as u64)])?;
        self.progress.done.words += words;
        self.gpu.read(host, words)
    }

    /// Asks which blocks are live.
    fn ask(&mut self) -> Result<(), Error> {
        let stamped = self.recorder.stamps.map_or(0, |_| self.progress.unread.len() + self.progress.pending.len());
        let live = asked_words(&self.recorder.layout, 0);
        let bytes = self.read_early(Then::Ask, asked_words(&self.recorder.layout, Stamps::words(stamped)))?;
        self.clock.lap("loops");
        let (words, stamps) = bytes.split_at_checked(4 * live).unwrap_or_default();
        let live = words.as_chunks::<4>().0.iter().map(|word| *word != [0; 4]);
        self.progress.dead.iter_mut().zip(live).for_each(|(dead, live)| *dead = !live);
        self.progress.unsure = 0;
        self.read_stamps(stamps);
        Ok(())
    }

    /// Notes what timestamps say of the dispatches of which none were read.
    fn read_stamps(&mut self, bytes: &[u8]) {
        let Progress { done, unread, .. } = &mut self.progress;
        done.stamped.extend(Stamps::stamped(unread, bytes));
        unread.clear();
    }

    /// Computes a step of the host between the submission before it and the next one.
    fn host_step(&mut self, at: usize, step: &HostStep) -> Result<(), Stop> {
        let place = &self.recorder.plan.host[&at];
        let bytes = self.read_early(Then::Host(place), place.words())?;
        let (failed, operands) =
            bytes.split_first_chunk().map_or((0, &[][..]), |(w, rest)| (u32::from_le_bytes(*w), rest));
        if failed != 0 {
            return Err(Stop::Host(fault(self.program, self.recorder.form, self.inputs, self.cuts.step_limit, failed)));
        }
        let results = step.run(place, operands).map_err(|why| {
            let error = call::error(self.program, ErrorKind::Kernel, why);
            Stop::Host(error.at_node(&self.program.kernel(step.kernel).name))
        })?;
        self.gpu.scoped("a result of the host", || {
            for (first, bytes) in &results {
                let mut rest = bytes.as_slice();
                for (buffer, first, words) in self.recorder.buffers.arena.parts(*first, bytes.len() / 4) {
                    let (part, after) = rest.split_at(4 * words);
                    self.gpu.queue().write_buffer(buffer, 4 * first as u64, part);
                    rest = after;
                }
            }
        })?;
        self.clock.lap(&host_span(self.program, step.kernel));
        Ok(())
    }
}
