//! Fuzzing without a toolchain of its own: inputs are mutated seeds, and the number of an input says all of it.
//!
//! A finding is a panic, a wrong result, or memory or time beyond what the target's limits allow. Inputs that once
//! were findings stand in `tests/corpus`, one folder per target, and are seeds like all others.

mod graphs;
mod mutate;
mod seeds;
mod targets;
mod wire;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use self::mutate::{Source, mutated};
pub use self::seeds::{corpus, seeds};

/// What is fed with inputs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Target {
    /// Bytes of an ONNX model: import, simplify, lower, run.
    OnnxBytes,
    /// Text of a graph: parse, print, simplify, lower.
    IrText,
    /// Bytes of an artifact: open, compile, run.
    ArtifactBytes,
    /// Bytes of an `.npz` file.
    NpzBytes,
    /// Bytes that steer a random graph: its values before passes and after.
    Passes,
}

impl Target {
    /// All of them.
    pub const ALL: [Target; 5] =
        [Target::OnnxBytes, Target::IrText, Target::ArtifactBytes, Target::NpzBytes, Target::Passes];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Target::OnnxBytes => "onnx_bytes",
            Target::IrText => "ir_text",
            Target::ArtifactBytes => "artifact_bytes",
            Target::NpzBytes => "npz_bytes",
            Target::Passes => "passes",
        }
    }

    /// The target of this name.
    pub fn from_name(name: &str) -> Option<Target> {
        Target::ALL.into_iter().find(|t| t.name() == name)
    }

    fn source(self) -> Source {
        match self {
            Target::OnnxBytes => Source::Wire,
            Target::IrText => Source::Text,
            Target::ArtifactBytes | Target::NpzBytes | Target::Passes => Source::Bytes,
        }
    }

    /// Input number `number` of the sequence `seed`: one of the seeds, mutated. The same for the same seeds.
    pub fn input(self, seeds: &[Vec<u8>], seed: u64, number: u64) -> Vec<u8> {
        mutated(self.source(), seeds, seed, number)
    }

    /// Feeds one input; what is wrong about what happened, if anything is.
    pub fn feed(self, input: &[u8]) -> Result<(), String> {
        reset_peak();
        let (before, clock) = (peak_bytes(), Instant::now());
        let outcome = catch_unwind(AssertUnwindSafe(|| targets::feed(self, input)));
        outcome.unwrap_or_else(|panic| Err(format!("it panics: {}", message(&*panic))))?;
        let (grown, taken) = (peak_bytes().saturating_sub(before), clock.elapsed());
        if grown > MOST_BYTES {
            return Err(format!("it takes {} MiB of memory", grown >> 20));
        }
        if taken > MOST_TIME { Err(format!("it takes {:.1} s", taken.as_secs_f64())) } else { Ok(()) }
    }
}

/// What one input may add to the peak of resident memory.
const MOST_BYTES: u64 = 1 << 30;

/// How long one input may take; far more than any does, on a slow machine too.
const MOST_TIME: Duration = Duration::from_secs(60);

fn message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(ToString::to_string);
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default()
}

/// Lets the peak of this process's resident memory start anew from what it is now; where the system cannot,
/// an input is only found out if it takes more than all before it.
fn reset_peak() {
    // What proc(5) says of this file: 5 resets the peak.
    let _ = std::fs::write("/proc/self/clear_refs", "5");
}

/// The peak of this process's resident memory; 0 where the system does not tell.
fn peak_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:")).unwrap_or_default();
    line.trim().strip_suffix("kB").and_then(|kb| kb.trim().parse::<u64>().ok()).unwrap_or(0) << 10
}
