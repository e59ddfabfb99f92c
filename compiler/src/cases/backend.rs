//! Backends as values: every suite runs on each of them.

#[cfg(feature = "gpu")]
use std::sync::OnceLock;

use eec_ir::{Graph, Tensor, eval};
#[cfg(feature = "gpu")]
use eec_runtime::gpu::{Adapter, Gpu, GpuOptions, GpuSession, Guard};
use eec_runtime::{Control, Options, Run, Runner, Session};

use super::lowered;
use super::values::{check, row};
use crate::model::session_of;
#[cfg(feature = "gpu")]
use crate::wgsl;

/// Something that computes a graph.
#[derive(Clone, Copy, Debug)]
pub enum Backend {
    /// The reference evaluator.
    Evaluator,
    /// The CPU runtime with this many threads.
    Cpu(usize),
    /// The GPU runtime with this guard.
    #[cfg(feature = "gpu")]
    Gpu(Guard),
}

/// What runs on the CPU and is compared with the evaluator.
pub const COMPILED: &[Backend] = &[Backend::Cpu(1), Backend::Cpu(2)];

/// What runs on a GPU.
#[cfg(feature = "gpu")]
pub const ON_GPU: &[Backend] = &[Backend::Gpu(Guard::Direct), Backend::Gpu(Guard::Indirect)];

/// A graph that is ready to run on a backend.
pub struct Prepared<'g> {
    graph: &'g Graph,
    runner: Option<Box<dyn Runner>>,
}

impl Backend {
    /// Makes `graph` ready to run.
    pub fn prepare(self, graph: &Graph) -> Result<Prepared<'_>, String> {
        let runner: Option<Box<dyn Runner>> = match self {
            Backend::Evaluator => None,
            Backend::Cpu(threads) => Some(Box::new(cpu(graph, threads)?)),
            #[cfg(feature = "gpu")]
            Backend::Gpu(guard) => Some(Box::new(on_gpu(graph, guard)?)),
        };
        Ok(Prepared { graph, runner })
    }
}

impl Prepared<'_> {
    /// The graph's outputs for these inputs.
    pub fn run(&mut self, inputs: &[Tensor]) -> Result<Vec<Tensor>, String> {
        match &mut self.runner {
            None => eval::evaluate(self.graph, inputs).map_err(|e| e.to_string()),
            Some(runner) => {
                let run = run(&mut **runner, self.graph, inputs, Control::Auto)?;
                Ok(run.outputs.into_iter().map(|(_, t)| t).collect())
            }
        }
    }
}

/// A session of the CPU runtime.
pub fn cpu(graph: &Graph, threads: usize) -> Result<Session, String> {
    let program = lowered(graph).map_err(|e| e.to_string())?;
    session_of(program, graph, Options { threads, ..Options::default() }).map_err(|e| e.to_string())
}

/// The adapter that the tests share; `None`, and a word about it, where there is none.
///
/// # Panics
/// `EEC_REQUIRE_GPU` is set, and there is none.
#[cfg(feature = "gpu")]
pub fn gpu() -> Option<&'static Gpu> {
    static OPENED: OnceLock<Option<Gpu>> = OnceLock::new();
    let open = || match Gpu::open(std::env::var("EEC_ADAPTER").ok().as_deref()) {
        Ok(gpu) => Some(gpu),
        Err(e) => {
            assert!(std::env::var_os("EEC_REQUIRE_GPU").is_none(), "{e}");
            println!("skipped: {e}");
            None
        }
    };
    OPENED.get_or_init(open).as_ref()
}

/// The adapter, opened once more after a change of what is known of it: limits that are lowered are those of the device.
///
/// # Panics
/// There is none.
#[cfg(feature = "gpu")]
pub fn own_gpu(change: impl FnOnce(&mut Adapter)) -> Gpu {
    let found = Adapter::find(std::env::var("EEC_ADAPTER").ok().as_deref());
    let mut adapter = found.unwrap_or_else(|e| panic!("{e}"));
    change(&mut adapter);
    Gpu::of(adapter).unwrap_or_else(|e| panic!("{e}"))
}

/// A session of the GPU runtime, on the shared adapter.
#[cfg(feature = "gpu")]
pub fn on_gpu(graph: &Graph, guard: Guard) -> Result<GpuSession, String> {
    let gpu = gpu().ok_or("there is no adapter")?;
    on_gpu_with(gpu, graph, GpuOptions { guard, ..GpuOptions::of(gpu) })
}

/// A session of the GPU runtime; nothing is kept on disk.
#[cfg(feature = "gpu")]
pub fn on_gpu_with(gpu: &Gpu, graph: &Graph, options: GpuOptions) -> Result<GpuSession, String> {
    on_gpu_in_pieces(gpu, graph, options, eec_ir::gpu::PIECE)
}

/// [`on_gpu_with`], with constants bound in pieces of so many words.
#[cfg(feature = "gpu")]
pub fn on_gpu_in_pieces(gpu: &Gpu, graph: &Graph, options: GpuOptions, words: u32) -> Result<GpuSession, String> {
    let program = lowered(graph).map_err(|e| e.to_string())?;
    let verified = eec_ir::program::verify(&program).map_err(|e| e.to_string())?;
    let form = wgsl::lower_in_pieces(&verified, words);
    let form = form.map_err(|e| e.to_string())?;
    let constants = graph.constants();
    let find = |hash| constants.find(hash).map(|id| -> Tensor { constants.tensor(id).clone() });
    let options = GpuOptions { cache: None, ..options };
    GpuSession::new(gpu, program, form, &find, options).map_err(|e| e.to_string())
}

/// Runs a session on inputs in the graph's order.
pub fn run(runner: &mut dyn Runner, graph: &Graph, inputs: &[Tensor], control: Control) -> Result<Run, String> {
    let name = |v: &eec_ir::ValueId| graph.value(*v).name.as_deref().unwrap_or_default();
    let named: Vec<(&str, Tensor)> = graph.inputs().iter().map(name).zip(inputs.iter().cloned()).collect();
    runner.run(&named, control).map_err(|e| e.to_string())
}

/// Checks that the rows of `batch` are what each gives alone, to the last bit, with as much work in all.
pub fn check_alone(runner: &mut dyn Runner, graph: &Graph, inputs: &[Tensor], batch: &Run) -> Result<(), String> {
    let rows = inputs.first().and_then(|t| t.dims().first()).copied().unwrap_or(0);
    let mut macs = 0;
    for r in 0..rows {
        let sample: Vec<Tensor> = inputs.iter().map(|t| row(t, r)).collect();
        let alone = run(runner, graph, &sample, Control::Auto)?;
        macs += alone.counters.macs;
        for ((name, have), (_, want)) in alone.outputs.iter().zip(&batch.outputs) {
            check(&format!("{name}, row {r}"), have, &row(want, r), 0.0)?;
        }
    }
    if macs == batch.counters.macs {
        Ok(())
    } else {
        Err(format!("{macs} MACs alone, {} in a batch", batch.counters.macs))
    }
}
