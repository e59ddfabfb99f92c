//! The two ways to keep work behind a decision from running, and which of them serves an adapter best.

use std::time::{Duration, Instant};

use super::cache;
use super::device::Gpu;
use super::pipelines::{bind, small_pipeline};
use crate::error::Error;

/// How work behind a decision is kept from running.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Guard {
    /// Its dispatches start as always, and return at once.
    #[default]
    Direct,
    /// Its dispatches start no workgroup: decisions write how many.
    Indirect,
}

impl Guard {
    /// Its name in settings.
    pub fn name(self) -> &'static str {
        match self {
            Guard::Direct => "direct",
            Guard::Indirect => "indirect",
        }
    }

    /// The better one for an adapter, as measured by this or an earlier process.
    ///
    /// Fails if the device does.
    pub fn best(gpu: &Gpu) -> Result<Guard, Error> {
        let known = cache::noted(gpu, "guard");
        let known = [Guard::Direct, Guard::Indirect].into_iter().find(|g| known.as_deref() == Some(g.name()));
        match known {
            Some(guard) => Ok(guard),
            None => Ok(GuardTimes::measure(gpu)?.best),
        }
    }
}

/// What a dispatch costs behind each guard, recording and submitting included.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct GuardTimes {
    /// Direct dispatches.
    pub direct: GuardTime,
    /// Indirect dispatches.
    pub indirect: GuardTime,
    /// The guard for which one dispatch that runs and one that does not cost less; the default where that is not
    /// clear.
    pub best: Guard,
    /// Whether all rounds of the measurement found the same guard better.
    pub clear: bool,
}

/// What one guard's dispatches cost.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct GuardTime {
    /// One that runs.
    pub ran: Spread,
    /// One that does not.
    pub skipped: Spread,
}

/// A time that was measured in several rounds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Spread {
    /// The least.
    pub least: Duration,
    /// The one in the middle.
    pub median: Duration,
    /// The longest.
    pub most: Duration,
}

impl Spread {
    fn of(mut times: [Duration; ROUNDS]) -> Spread {
        times.sort_unstable();
        Spread { least: times[0], median: times[ROUNDS / 2], most: times[ROUNDS - 1] }
    }
}

/// Workgroups of a measured dispatch: those of a middling matrix product.
const GROUPS: u32 = 128;

/// Numbers of dispatches whose times are compared.
const FEW: usize = 32;
const MANY: usize = 288;

/// Rounds of the measurement, which must agree.
const ROUNDS: usize = 5;

/// Runs of a round of which the fastest counts.
const RUNS: usize = 3;

/// How long one run may take.
const TIMEOUT: Duration = Duration::from_secs(60);

const SHADER: &str = "
@group(0) @binding(0) var<storage, read> live: array<u32>;
@group(0) @binding(1) var<storage, read_write> out: array<u32>;
@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    if (live[0] == 0u) { return; }
    out[id.x % arrayLength(&out)] = id.x;
}
";

impl GuardTimes {
    /// Measures an adapter, and notes for later processes which guard is better.
    ///
    /// Fails if the device does.
    pub fn measure(gpu: &Gpu) -> Result<GuardTimes, Error> {
        let bench = Bench::new(gpu)?;
        let mut rounds = [[Duration::ZERO; 4]; ROUNDS];
        for round in &mut rounds {
            for (time, (indirect, live)) in
                round.iter_mut().zip([(false, true), (false, false), (true, true), (true, false)])
            {
                *time = bench.per_dispatch(indirect, live)?;
            }
        }
        let (best, clear) = better(&rounds);
        let [direct_ran, direct_skipped, indirect_ran, indirect_skipped] =
            [0, 1, 2, 3].map(|which| Spread::of(rounds.map(|round| round[which])));
        cache::note(gpu, "guard", best.name());
        Ok(GuardTimes {
            direct: GuardTime { ran: direct_ran, skipped: direct_skipped },
            indirect: GuardTime { ran: indirect_ran, skipped: indirect_skipped },
            best,
            clear,
        })
    }
}

/// The guard that all rounds found better, or else the default; whether they did. A round has a direct dispatch that
/// runs and one that does not, and then the same of indirect ones.
fn better(rounds: &[[Duration; 4]; ROUNDS]) -> (Guard, bool) {
    let wins = rounds.iter().filter(|[ran, skipped, i_ran, i_skipped]| *ran + *skipped <= *i_ran + *i_skipped).count();
    match wins {
        ROUNDS => (Guard::Direct, true),
        0 => (Guard::Indirect, true),
        _ => (Guard::default(), false),
    }
}

/// A small kernel that runs or does not.
struct Bench<'g> {
    gpu: &'g Gpu,
    pipeline: wgpu::ComputePipeline,
    /// Of kernels that run, and of those that do not.
    groups: [wgpu::BindGroup; 2],
    /// The same as arguments.
    arguments: [wgpu::Buffer; 2],
}

impl Bench<'_> {
    fn new(gpu: &Gpu) -> Result<Bench<'_>, Error> {
        let device = gpu.device();
        let words = |values: &[u32], usage| gpu.filled("a measurement", bytemuck::cast_slice(values), usage);
        let storage = wgpu::BufferUsages::STORAGE;
        let out = gpu.buffer("a measurement", 1 << 14, storage)?;
        let live = [words(&[1], storage)?, words(&[0], storage)?];
        let indirect = wgpu::BufferUsages::INDIRECT | storage;
        let arguments = [words(&[GROUPS, 1, 1], indirect)?, words(&[0, 1, 1], indirect)?];
        gpu.scoped("a measurement", || {
            let pipeline = small_pipeline(device, SHADER);
            let layout = pipeline.get_bind_group_layout(0);
            let groups = live.each_ref().map(|live| bind(device, &layout, [live, &out]));
            Bench { gpu, pipeline, groups, arguments }
        })
    }

    /// The time of one more dispatch.
    fn per_dispatch(&self, indirect: bool, live: bool) -> Result<Duration, Error> {
        let fastest = |dispatches: usize| {
            let mut best = Duration::MAX;
            for _ in 0..RUNS {
                best = best.min(self.run(dispatches, indirect, live)?);
            }
            Ok::<Duration, Error>(best)
        };
        let (few, many) = (fastest(FEW)?, fastest(MANY)?);
        Ok(many.saturating_sub(few) / (MANY - FEW) as u32)
    }

    fn run(&self, dispatches: usize, indirect: bool, live: bool) -> Result<Duration, Error> {
        let which = usize::from(!live);
        let start = Instant::now();
        let submission = self.gpu.scoped("a measurement", || {
            let device = self.gpu.device();
            let mut encoder = device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
            let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
            for _ in 0..dispatches {
                pass.set_pipeline(&self.pipeline);
                pass.set_bind_group(0, &self.groups[which], &[]);
                match indirect {
                    true => pass.dispatch_workgroups_indirect(&self.arguments[which], 0),
                    false => pass.dispatch_workgroups(GROUPS, 1, 1),
                }
            }
            drop(pass);
            self.gpu.queue().submit([encoder.finish()])
        })?;
        self.gpu.wait(submission, TIMEOUT)?;
        Ok(start.elapsed())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guard_is_better_only_if_all_rounds_say_so() {
        let round = |times: [u64; 4]| times.map(Duration::from_nanos);
        let (direct, indirect) = (round([2, 1, 3, 1]), round([2, 3, 3, 1]));
        assert_eq!(better(&[direct; ROUNDS]), (Guard::Direct, true));
        assert_eq!(better(&[indirect; ROUNDS]), (Guard::Indirect, true));
        let mut mixed = [indirect; ROUNDS];
        mixed[2] = direct;
        assert_eq!(better(&mixed), (Guard::Direct, false));
    }
}
