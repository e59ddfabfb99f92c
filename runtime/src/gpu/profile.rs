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

/// The timestamps of a session: two per dispatch that is recorded until the host reads them.
pub(super) struct Stamps {
    sets: Vec<wgpu::QuerySet>,
    /// All of them as numbers of 64 bits.
    resolved: wgpu::Buffer,
    /// How often the dispatch had run after each time that it was recorded.
    marks: wgpu::Buffer,
    /// Dispatches that have room.
    room: usize,
    /// Nanoseconds between two values of the clock.
    period: f64,
}

/// Words of a dispatch: two timestamps, and how often it had run.
const STAMP: usize = 5;

/// A dispatch as its timestamps say: beginning and end by the clock, and how often it had run by then.
pub(super) struct Stamped {
    dispatch: usize,
    ticks: [u64; 2],
    runs: u32,
}

/// A dispatch of a run: beginning and end in nanoseconds since the first began, and whether it did its work.
pub(super) struct Timed {
    pub(super) dispatch: usize,
    pub(super) begin: u64,
    pub(super) end: u64,
    pub(super) ran: bool,
}

impl Stamps {
    /// Room for the timestamps of so many dispatches.
    ///
    /// Fails if the adapter has none.
    pub(super) fn new(gpu: &Gpu, room: usize) -> Result<Stamps, Error> {
        if !gpu.device().features().contains(wgpu::Features::TIMESTAMP_QUERY) {
            return Err(gpu.error(ErrorKind::Device, "it has no timestamps, so that kernels cannot be measured"));
        }
        let count = 2 * room;
        let sets = (0..count).step_by(SET).map(|first| {
            let descriptor = wgpu::QuerySetDescriptor {
                label: None,
                ty: wgpu::QueryType::Timestamp,
                count: SET.min(count - first) as u32,
            };
            gpu.scoped("the timestamps", || gpu.device().create_query_set(&descriptor))
        });
        let read = wgpu::BufferUsages::COPY_SRC;
        Ok(Stamps {
            sets: sets.collect::<Result<Vec<_>, _>>()?,
            resolved: gpu.buffer("the timestamps", 2 * count, wgpu::BufferUsages::QUERY_RESOLVE | read)?,
            marks: gpu.buffer("the timestamps", room, wgpu::BufferUsages::COPY_DST | read)?,
            room,
            period: f64::from(gpu.queue().get_timestamp_period()),
        })
    }

    /// Dispatches that have room.
    pub(super) fn room(&self) -> usize {
        self.room
    }

    /// Words that the host reads for so many dispatches.
    pub(super) fn words(stamped: usize) -> usize {
        STAMP * stamped
    }

    /// Where the `at`-th dispatch's own pass writes its timestamps.
    pub(super) fn of(&self, at: usize) -> wgpu::ComputePassTimestampWrites<'_> {
        let first = 2 * at;
        wgpu::ComputePassTimestampWrites {
            query_set: &self.sets[first / SET],
            beginning_of_pass_write_index: Some((first % SET) as u32),
            end_of_pass_write_index: Some((first % SET) as u32 + 1),
        }
    }

    /// Notes how often a dispatch, which is the `at`-th, has run.
    pub(super) fn mark(&self, encoder: &mut wgpu::CommandEncoder, counters: &wgpu::Buffer, dispatch: usize, at: usize) {
        encoder.copy_buffer_to_buffer(counters, 4 * dispatch as u64, &self.marks, 4 * at as u64, Some(4));
    }

    /// Copies what is known of the first `stamped` dispatches to `to`, from this word on.
    pub(super) fn read(&self, encoder: &mut wgpu::CommandEncoder, stamped: usize, to: &wgpu::Buffer, word: usize) {
        if stamped == 0 {
            return;
        }
        for (set, first) in self.sets.iter().zip((0..2 * stamped).step_by(SET)) {
            let count = SET.min(2 * stamped - first) as u32;
            encoder.resolve_query_set(set, 0..count, &self.resolved, 8 * first as u64);
        }
        let (at, ticks, marks) = (4 * word as u64, 16 * stamped as u64, 4 * stamped as u64);
        encoder.copy_buffer_to_buffer(&self.resolved, 0, to, at, Some(ticks));
        encoder.copy_buffer_to_buffer(&self.marks, 0, to, at + ticks, Some(marks));
    }

    /// What the host has read of these dispatches.
    pub(super) fn stamped(dispatches: &[usize], bytes: &[u8]) -> Vec<Stamped> {
        let (ticks, marks) = bytes.split_at_checked(16 * dispatches.len()).unwrap_or_default();
        let ticks = ticks.as_chunks().0.iter().map(|t| u64::from_le_bytes(*t)).collect::<Vec<_>>();
        let marks = marks.as_chunks().0.iter().map(|m| u32::from_le_bytes(*m));
        let all = dispatches.iter().zip(ticks.chunks_exact(2)).zip(marks);
        all.map(|((dispatch, t), runs)| Stamped { dispatch: *dispatch, ticks: [t[0], t[1]], runs }).collect()
    }

    /// All dispatches of a run in its own time.
    pub(super) fn timed(&self, stamped: &[Stamped], dispatches: usize) -> Vec<Timed> {
        let first = stamped.first().map_or(0, |s| s.ticks[0]);
        let ns = |tick: u64| (tick.saturating_sub(first) as f64 * self.period) as u64;
        let mut before = vec![0; dispatches];
        let timed = |s: &Stamped| {
            let ran = std::mem::replace(&mut before[s.dispatch], s.runs) < s.runs;
            Timed { dispatch: s.dispatch, begin: ns(s.ticks[0]), end: ns(s.ticks[1].max(s.ticks[0])), ran }
        };
        stamped.iter().map(timed).collect()
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
pub(super) fn spans(program: &Program, dispatches: &[Dispatch], times: &[Timed], start: Duration) -> Vec<Span> {
    let start = start.as_nanos() as u64;
    let span = |timed: &Timed| Span {
        name: name(program, &dispatches[timed.dispatch]),
        kind: kind(program, &dispatches[timed.dispatch]),
        start_ns: start + timed.begin,
        end_ns: start + timed.end,
        ran: timed.ran,
    };
    times.iter().map(span).collect()
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
