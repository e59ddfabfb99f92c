//! Timestamps around every dispatch of a run, and what they say of its kernels.

use std::time::{Duration, Instant};

use eec_ir::gpu::{Dispatch, Param, Role};
use eec_ir::program::Program;

use super::device::Gpu;
use super::plan::kernels;
use crate::error::{Error, ErrorKind};
use crate::run::{Span, SpanKind};

/// Queries of a set, at most.
const SET: usize = wgpu::QUERY_SET_MAX_QUERIES as usize;

/// The timestamps of a session: two per dispatch.
pub(super) struct Stamps {
    sets: Vec<wgpu::QuerySet>,
    /// All of them as numbers of 64 bits.
    resolved: wgpu::Buffer,
    count: usize,
    /// Nanoseconds between two values of the clock.
    period: f64,
}

impl Stamps {
    /// Room for the timestamps of so many dispatches.
    ///
    /// Fails if the adapter has none.
    pub(super) fn new(gpu: &Gpu, dispatches: usize) -> Result<Stamps, Error> {
        if !gpu.device().features().contains(wgpu::Features::TIMESTAMP_QUERY) {
            return Err(gpu.error(ErrorKind::Device, "it has no timestamps, so that kernels cannot be measured"));
        }
        let count = 2 * dispatches;
        let sets = (0..count).step_by(SET).map(|first| {
            let descriptor = wgpu::QuerySetDescriptor {
                label: None,
                ty: wgpu::QueryType::Timestamp,
                count: SET.min(count - first) as u32,
            };
            gpu.scoped("the timestamps", || gpu.device().create_query_set(&descriptor))
        });
        let usage = wgpu::BufferUsages::QUERY_RESOLVE | wgpu::BufferUsages::COPY_SRC;
        Ok(Stamps {
            sets: sets.collect::<Result<Vec<_>, _>>()?,
            resolved: gpu.buffer("the timestamps", 2 * count, usage)?,
            count,
            period: f64::from(gpu.queue().get_timestamp_period()),
        })
    }

    /// Words of all timestamps.
    pub(super) fn words(&self) -> usize {
        2 * self.count
    }

    /// Where a dispatch's own pass writes its timestamps.
    pub(super) fn of(&self, dispatch: usize) -> wgpu::ComputePassTimestampWrites<'_> {
        let first = 2 * dispatch;
        wgpu::ComputePassTimestampWrites {
            query_set: &self.sets[first / SET],
            beginning_of_pass_write_index: Some((first % SET) as u32),
            end_of_pass_write_index: Some((first % SET) as u32 + 1),
        }
    }

    /// Copies the timestamps to `to`, from this word on.
    pub(super) fn read(&self, encoder: &mut wgpu::CommandEncoder, to: &wgpu::Buffer, word: usize) {
        for (set, first) in self.sets.iter().zip((0..).step_by(SET)) {
            encoder.resolve_query_set(set, 0..set.count(), &self.resolved, 8 * first as u64);
        }
        encoder.copy_buffer_to_buffer(&self.resolved, 0, to, 4 * word as u64, Some(4 * self.words() as u64));
    }

    /// Beginning and end of every dispatch, in nanoseconds since the first began.
    pub(super) fn times(&self, bytes: &[u8]) -> Vec<(u64, u64)> {
        let ticks: Vec<u64> = bytes.as_chunks().0.iter().map(|t| u64::from_le_bytes(*t)).collect();
        let first = ticks.first().copied().unwrap_or(0);
        let ns = |tick: u64| (tick.saturating_sub(first) as f64 * self.period) as u64;
        ticks.chunks_exact(2).map(|pair| (ns(pair[0]), ns(pair[1].max(pair[0])))).collect()
    }
}

/// What the host does in a run, and when.
pub(super) struct Clock {
    start: Instant,
    pub(super) spans: Vec<Span>,
}

impl Clock {
    pub(super) fn start() -> Clock {
        Clock { start: Instant::now(), spans: Vec::new() }
    }

    /// Ends what the host did since the last lap.
    pub(super) fn lap(&mut self, name: &str) {
        let start_ns = self.spans.last().map_or(0, |span| span.end_ns);
        let end_ns = self.start.elapsed().as_nanos() as u64;
        self.spans.push(Span { name: name.into(), kind: SpanKind::Host, start_ns, end_ns, ran: true });
    }

    /// When the last submission was made.
    pub(super) fn submitted(&self) -> Duration {
        let submit = self.spans.iter().find(|span| span.name == "submit");
        Duration::from_nanos(submit.map_or(0, |span| span.end_ns))
    }
}

/// The dispatches of a run as spans that begin `start` after the run did.
pub(super) fn spans(
    program: &Program,
    dispatches: &[Dispatch],
    ran: &[i32],
    times: &[(u64, u64)],
    start: Duration,
) -> Vec<Span> {
    let start = start.as_nanos() as u64;
    let span = |((dispatch, ran), (begin, end)): ((&Dispatch, &i32), &(u64, u64))| Span {
        name: name(program, dispatch),
        kind: kind(program, dispatch),
        start_ns: start + begin,
        end_ns: start + end,
        ran: *ran > 0,
    };
    // What the host does is among its own spans.
    let on_device = |dispatch: &Dispatch| !matches!(dispatch.role, Role::Host(_));
    dispatches.iter().zip(ran).zip(times).filter(|((d, _), _)| on_device(d)).map(span).collect()
}

fn name(program: &Program, dispatch: &Dispatch) -> String {
    let names: Vec<&str> = kernels(&dispatch.role, &dispatch.with).map(|k| program.kernel(k).name.as_str()).collect();
    match dispatch.role {
        Role::Kernel(_) | Role::Host(_) => names.join(" + "),
        Role::Control => decision(program, dispatch).unwrap_or_else(|| "decision".to_string()),
        Role::Rows => "rows".to_string(),
        Role::Output(i) => format!("output {}", program.outputs[i as usize].name),
    }
}

fn kind(program: &Program, dispatch: &Dispatch) -> SpanKind {
    let exit = decides(dispatch).filter(|at| *at < program.exits.len());
    match (dispatch.role, exit) {
        (Role::Kernel(_), _) => SpanKind::Kernel,
        (Role::Control, Some(exit)) => SpanKind::Exit(exit),
        (Role::Control | Role::Rows | Role::Output(_) | Role::Host(_), _) => SpanKind::Flow,
    }
}

/// The number of the exit or, after all exits, gate that a control dispatch decides.
fn decides(dispatch: &Dispatch) -> Option<usize> {
    dispatch.params.iter().find_map(|param| match param {
        Param::Control(i) => Some(*i as usize),
        _ => None,
    })
}

fn exit<'p>(program: &'p Program, dispatch: &Dispatch) -> Option<&'p str> {
    program.exits.get(decides(dispatch)?).map(|exit| exit.name.as_str())
}

fn decision(program: &Program, dispatch: &Dispatch) -> Option<String> {
    let gate = || {
        let at = decides(dispatch)?.checked_sub(program.exits.len())?;
        Some(format!("gate {}", program.gates.get(at)?.name))
    };
    exit(program, dispatch).map(|name| format!("exit after {name}")).or_else(gate)
}
