//! Which backend a verb runs on.

use crate::Error;
use crate::backend::{Backend, GuardChoice};

/// The backends.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub(super) enum Name {
    Cpu,
    Gpu,
}

/// What runs the model.
#[derive(clap::Args)]
pub(super) struct BackendArgs {
    /// What runs the model
    #[arg(long, env = "EEC_BACKEND", value_enum, default_value_t = Name::Cpu)]
    backend: Name,
    #[command(flatten)]
    adapter: AdapterArgs,
    /// With --backend gpu: how work behind a decision is kept from running
    #[arg(long, env = "EEC_GPU_GUARD", value_enum, default_value_t = GuardChoice::Auto)]
    gpu_guard: GuardChoice,
}

/// Which GPU.
#[derive(clap::Args)]
pub(super) struct AdapterArgs {
    /// The GPU whose name contains NAME, of those that `eec adapters` lists [default: the first]
    #[arg(long, env = "EEC_ADAPTER", value_name = "NAME")]
    pub(super) adapter: Option<String>,
}

impl BackendArgs {
    /// The backend, opened.
    pub(super) fn open(&self, threads: Option<usize>) -> Result<Backend, Error> {
        match self.backend {
            Name::Cpu => Ok(Backend::Cpu { threads }),
            Name::Gpu => Backend::gpu(self.adapter.adapter.as_deref(), self.gpu_guard),
        }
    }
}
