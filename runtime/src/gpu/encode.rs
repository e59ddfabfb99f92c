//! Records a run: what the host wrote is copied to its places, the dispatches follow in one compute pass per
//! submission, and what the host reads is copied together.

use eec_ir::gpu::{GpuProgram, Role, State};

use super::bindings::{Buffers, Groups};
use super::guard::Guard;
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
}

/// Where the parts of what is read back begin, in words.
pub(super) struct Readback {
    pub(super) outputs: usize,
    pub(super) counters: usize,
    pub(super) state: usize,
    pub(super) stamps: usize,
    pub(super) words: usize,
}

impl Readback {
    pub(super) fn of(layout: &State, form: &GpuProgram, plan: &Plan, stamps: Option<&Stamps>) -> Readback {
        let counters = plan.output_words;
        let state = counters + form.dispatches.len() + 1;
        let end = state + layout.planned() - layout.rows();
        Readback { outputs: 0, counters, state, stamps: end, words: end + stamps.map_or(0, Stamps::words) }
    }
}

/// Bytes of so many words.
fn bytes(words: usize) -> u64 {
    4 * words as u64
}

impl Recorder<'_> {
    /// The commands of every submission.
    pub(super) fn record(&self, inputs: &[(usize, usize)]) -> Vec<wgpu::CommandBuffer> {
        let last = self.plan.submissions.len() - 1;
        let submission = |(i, range): (usize, &std::ops::Range<usize>)| {
            let mut encoder = self.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
            if i == 0 {
                self.before(&mut encoder, inputs);
            }
            match self.stamps {
                None => {
                    let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
                    range.clone().for_each(|dispatch| self.dispatch(&mut pass, dispatch));
                }
                // A pass notes when it begins and ends.
                Some(stamps) => range.clone().for_each(|dispatch| {
                    let timestamp_writes = Some(stamps.of(dispatch));
                    let descriptor = wgpu::ComputePassDescriptor { label: None, timestamp_writes };
                    self.dispatch(&mut encoder.begin_compute_pass(&descriptor), dispatch);
                }),
            }
            if i == last {
                self.after(&mut encoder);
            }
            encoder.finish()
        };
        self.plan.submissions.iter().enumerate().map(submission).collect()
    }

    /// The state and the inputs go to their places; `inputs` are places in the arena and words.
    fn before(&self, encoder: &mut wgpu::CommandEncoder, inputs: &[(usize, usize)]) {
        let Buffers { upload, state, counters, arena, .. } = self.buffers;
        encoder.clear_buffer(counters, 0, None);
        encoder.copy_buffer_to_buffer(upload, 0, state, 0, Some(bytes(self.layout.len())));
        let mut from = self.layout.len();
        for (place, words) in inputs.iter().filter(|(_, words)| *words > 0) {
            encoder.copy_buffer_to_buffer(upload, bytes(from), arena, bytes(*place), Some(bytes(*words)));
            from += words;
        }
    }

    fn dispatch(&self, pass: &mut wgpu::ComputePass<'_>, i: usize) {
        pass.set_pipeline(self.pipelines.of(i));
        pass.set_bind_group(0, self.groups.of(i), &[bytes(i * self.stride) as u32]);
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
    fn after(&self, encoder: &mut wgpu::CommandEncoder) {
        let Buffers { outputs, counters, state, readback, .. } = self.buffers;
        let parts = Readback::of(&self.layout, self.form, self.plan, self.stamps);
        let mut copy = |from: &wgpu::Buffer, first: usize, to: usize, words: usize| {
            if words > 0 {
                encoder.copy_buffer_to_buffer(from, bytes(first), readback, bytes(to), Some(bytes(words)));
            }
        };
        copy(outputs, 0, parts.outputs, self.plan.output_words);
        copy(counters, 0, parts.counters, parts.state - parts.counters);
        copy(state, self.layout.rows(), parts.state, parts.stamps - parts.state);
        if let Some(stamps) = self.stamps {
            stamps.read(encoder, readback, parts.stamps);
        }
    }
}
