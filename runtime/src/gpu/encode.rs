//! Records submissions: what the host wrote is copied to its places, the dispatches follow in one compute pass, and
//! what the host reads is copied together, at the end of a run and where it needs something before.

use eec_ir::gpu::{GpuProgram, Role, State};

use super::bindings::{Buffers, Groups};
use super::guard::Guard;
use super::host::HostPlan;
use super::pipelines::Pipelines;
use super::plan::Plan;
use super::profile::Stamps;

/// What recording needs of a session.
pub(super) struct Recorder<'a> {
    pub(super) device: &'a wgpu::Device,
    pub(super) form: &'a GpuProgram,
    pub(super) layout: State,
    pub(super) plan: &'a Plan,
    pub(super) pipelines: &'a Pipelines,
    pub(super) groups: &'a Groups,
    pub(super) buffers: &'a Buffers,
    pub(super) guard: Guard,
    /// Words between the parameters of two dispatches.
    pub(super) stride: usize,
    /// Where dispatches note their times, if they are measured.
    pub(super) stamps: Option<&'a Stamps>,
    /// The places of the inputs in the arena, and their words.
    pub(super) inputs: &'a [(usize, usize)],
}

/// What the host does after a submission.
#[derive(Clone, Copy)]
pub(super) enum Then<'a> {
    /// It makes the next one.
    More,
    /// It computes a step of its own.
    Host(&'a HostPlan),
    /// It asks which blocks are live.
    Ask,
    /// It reads the results.
    End,
}

/// Where the parts of what is read back at the end begin, in words.
pub(super) struct Readback {
    pub(super) outputs: usize,
    pub(super) counters: usize,
    pub(super) state: usize,
    pub(super) stamps: usize,
    pub(super) words: usize,
}

impl Readback {
    /// With so many words of timestamps.
    pub(super) fn of(layout: &State, form: &GpuProgram, plan: &Plan, stamp_words: usize) -> Readback {
        let counters = plan.output_words;
        let state = counters + form.dispatches.len() + 1 + form.sums.len();
        let end = state + layout.planned() - layout.rows();
        Readback { outputs: 0, counters, state, stamps: end, words: end + stamp_words }
    }
}

/// Words that the host reads when it asks: a live word per block, and timestamps.
pub(super) fn asked_words(layout: &State, stamp_words: usize) -> usize {
    layout.offsets() - layout.live() + stamp_words
}

/// Bytes of so many words.
fn bytes(words: usize) -> u64 {
    4 * words as u64
}

impl Recorder<'_> {
    /// The commands of a submission of these dispatches; `before` are the timestamps since the host read some, and
    /// `None` stands for the first submission of a run.
    pub(super) fn record(&self, dispatches: &[usize], before: Option<usize>, then: Then<'_>) -> wgpu::CommandBuffer {
        let mut encoder = self.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        if before.is_none() {
            self.before(&mut encoder);
        }
        match self.stamps {
            None => {
                let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
                dispatches.iter().for_each(|dispatch| self.dispatch(&mut pass, *dispatch));
            }
            // A pass notes when it begins and ends.
            Some(stamps) => dispatches.iter().zip(before.unwrap_or(0)..).for_each(|(dispatch, at)| {
                let timestamp_writes = Some(stamps.of(at));
                let descriptor = wgpu::ComputePassDescriptor { label: None, timestamp_writes };
                self.dispatch(&mut encoder.begin_compute_pass(&descriptor), *dispatch);
                stamps.mark(&mut encoder, &self.buffers.counters, *dispatch, at);
            }),
        }
        let stamped = before.unwrap_or(0) + dispatches.len();
        match then {
            Then::More => {}
            Then::Host(step) => self.before_host(&mut encoder, step),
            Then::Ask => self.before_asking(&mut encoder, stamped),
            Then::End => self.after(&mut encoder, stamped),
        }
        encoder.finish()
    }

    /// The live words, for the host.
    fn before_asking(&self, encoder: &mut wgpu::CommandEncoder, stamped: usize) {
        let Buffers { state, host, .. } = self.buffers;
        let (first, words) = (self.layout.live(), asked_words(&self.layout, 0));
        encoder.copy_buffer_to_buffer(state, bytes(first), host, 0, Some(bytes(words)));
        if let Some(stamps) = self.stamps {
            stamps.read(encoder, stamped, host, words);
        }
    }

    /// What the next step of the host reads: whether the run has failed, and its operands.
    fn before_host(&self, encoder: &mut wgpu::CommandEncoder, step: &HostPlan) {
        let Buffers { counters, arena, host, .. } = self.buffers;
        encoder.copy_buffer_to_buffer(counters, bytes(self.form.dispatches.len()), host, 0, Some(bytes(1)));
        let mut to = 1;
        for (first, words) in step.copies().filter(|(_, words)| *words > 0) {
            for (buffer, first, words) in arena.parts(first, words) {
                encoder.copy_buffer_to_buffer(buffer, bytes(first), host, bytes(to), Some(bytes(words)));
                to += words;
            }
        }
    }

    /// The state and the inputs go to their places.
    fn before(&self, encoder: &mut wgpu::CommandEncoder) {
        let Buffers { upload, state, counters, arena, .. } = self.buffers;
        encoder.clear_buffer(counters, 0, None);
        encoder.copy_buffer_to_buffer(upload, 0, state, 0, Some(bytes(self.layout.len())));
        let mut from = self.layout.len();
        for (place, words) in self.inputs.iter().filter(|(_, words)| *words > 0) {
            for (buffer, place, words) in arena.parts(*place, *words) {
                encoder.copy_buffer_to_buffer(upload, bytes(from), buffer, bytes(place), Some(bytes(words)));
                from += words;
            }
        }
    }

    fn dispatch(&self, pass: &mut wgpu::ComputePass<'_>, i: usize) {
        // A step of the host has neither.
        let (Some(pipeline), Some(group)) = (self.pipelines.of(i), self.groups.of(i)) else { return };
        pass.set_pipeline(pipeline);
        pass.set_bind_group(0, group, &[bytes(i * self.stride) as u32]);
        if let Some(arena) = self.groups.arena() {
            pass.set_bind_group(1, arena, &[]);
        }
        // The body always runs. A decision does so in one workgroup that looks for itself, and cannot write
        // arguments while one of them says how often it runs.
        let dispatch = &self.form.dispatches[i];
        let always = dispatch.block.0 == 0 || dispatch.role == Role::Control;
        match self.guard {
            Guard::Indirect if !always => pass.dispatch_workgroups_indirect(&self.buffers.arguments, bytes(3 * i)),
            Guard::Direct | Guard::Indirect => pass.dispatch_workgroups(self.plan.groups[i], 1, 1),
        }
    }

    /// Outputs, counters and the end of the state are put together for the host.
    fn after(&self, encoder: &mut wgpu::CommandEncoder, stamped: usize) {
        let Buffers { arena, counters, state, readback, .. } = self.buffers;
        let parts = Readback::of(&self.layout, self.form, self.plan, 0);
        let mut copy = |from: &wgpu::Buffer, first: usize, to: usize, words: usize| {
            if words > 0 {
                encoder.copy_buffer_to_buffer(from, bytes(first), readback, bytes(to), Some(bytes(words)));
            }
        };
        let mut to = parts.outputs;
        for (buffer, first, words) in arena.parts(self.plan.output_place, self.plan.output_words) {
            copy(buffer, first, to, words);
            to += words;
        }
        copy(counters, 0, parts.counters, parts.state - parts.counters);
        copy(state, self.layout.rows(), parts.state, parts.stamps - parts.state);
        if let Some(stamps) = self.stamps {
            stamps.read(encoder, stamped, readback, parts.stamps);
        }
    }
}
