//! Which backend a verb runs on.

use clap::ValueEnum;

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
    /// With --backend gpu: how work behind a decision is kept from running [default: EEC_GPU_GUARD, or auto]
    #[arg(long, value_enum)]
    gpu_guard: Option<GuardChoice>,
    /// With --backend gpu: lets the host compute operators that have no shader
    ///
    /// The run is cut there: the GPU waits while the operator's evaluator runs, and what it reads is read back.
    /// `eec inspect` names such operators.
    #[arg(long)]
    host_ops: bool,
}

/// Which GPU.
#[derive(clap::Args)]
pub(super) struct AdapterArgs {
    /// With a GPU: the one whose name contains NAME, of those that `eec adapters` lists [default: EEC_ADAPTER, or the
    /// first]
    // Not clap's `env`: the variable says which GPU where one is used, and asks for none.
    #[arg(long, value_name = "NAME")]
    adapter: Option<String>,
}

impl AdapterArgs {
    /// The name that was given, or that the environment gives.
    pub(super) fn name(&self) -> Option<String> {
        self.adapter.clone().or_else(|| variable("EEC_ADAPTER"))
    }

    /// Fails if a GPU is named although none is used.
    pub(super) fn expect_none(&self) -> Result<(), Error> {
        refuse("--adapter", self.adapter.is_some())
    }
}

impl BackendArgs {
    /// Fails if a flag means nothing on the backend.
    pub(super) fn check(&self) -> Result<(), Error> {
        match self.backend {
            Name::Cpu => {
                self.adapter.expect_none()?;
                refuse("--gpu-guard", self.gpu_guard.is_some())?;
                refuse("--host-ops", self.host_ops)
            }
            Name::Gpu => self.guard().map(drop),
        }
    }

    /// The backend, opened.
    pub(super) fn open(&self, threads: Option<usize>) -> Result<Backend, Error> {
        self.check()?;
        match self.backend {
            Name::Cpu => Ok(Backend::Cpu { threads }),
            Name::Gpu => Backend::gpu(self.adapter.name().as_deref(), self.guard()?, self.host_ops),
        }
    }

    fn guard(&self) -> Result<GuardChoice, Error> {
        let from_variable = |text: String| {
            GuardChoice::from_str(&text, true).map_err(|e| Error::usage(format!("EEC_GPU_GUARD: {text:?}: {e}")))
        };
        match self.gpu_guard {
            Some(guard) => Ok(guard),
            None => variable("EEC_GPU_GUARD").map(from_variable).transpose().map(Option::unwrap_or_default),
        }
    }
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// Fails if a flag that means something on a GPU alone is given where there is none.
fn refuse(flag: &str, given: bool) -> Result<(), Error> {
    if given { Err(Error::usage(format!("{flag} needs --backend gpu"))) } else { Ok(()) }
}
