//! What runs a model: the CPU, or a GPU.

use crate::Error;

/// What runs a model.
#[derive(Clone, Debug)]
pub enum Backend {
    /// The CPU.
    Cpu {
        /// Threads; all cores if absent.
        threads: Option<usize>,
    },
    /// A GPU.
    #[cfg(feature = "gpu")]
    Gpu(gpu::OnGpu),
}

/// How work behind a decision is kept from running on a GPU.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, clap::ValueEnum)]
pub enum GuardChoice {
    /// Its dispatches start as always and return at once
    Direct,
    /// Its dispatches start no workgroup
    Indirect,
    /// Whichever costs the adapter less, as `eec hwbench` measures
    #[default]
    Auto,
}

impl Default for Backend {
    fn default() -> Self {
        Backend::Cpu { threads: None }
    }
}

impl Backend {
    /// The GPU whose name contains `adapter`, or the best one; with `host_ops` the host computes what has no shader.
    ///
    /// # Errors
    ///
    /// There is none, and what to install; or this build has no GPU support.
    pub fn gpu(adapter: Option<&str>, guard: GuardChoice, host_ops: bool) -> Result<Backend, Error> {
        #[cfg(feature = "gpu")]
        return Ok(Backend::Gpu(gpu::OnGpu { gpu: eec_runtime::gpu::Gpu::open(adapter)?, guard, host_ops }));
        #[cfg(not(feature = "gpu"))]
        {
            let _ = (adapter, guard, host_ops);
            Err(without_gpu())
        }
    }

    /// `cpu` or `gpu`.
    pub fn name(&self) -> &'static str {
        match self {
            Backend::Cpu { .. } => "cpu",
            #[cfg(feature = "gpu")]
            Backend::Gpu(_) => "gpu",
        }
    }
}

/// What a build without GPU support says.
#[cfg(not(feature = "gpu"))]
pub(crate) fn without_gpu() -> Error {
    Error::request("models cannot run on a GPU: eec is built without the feature `gpu`")
}

#[cfg(feature = "gpu")]
pub use gpu::OnGpu;

#[cfg(feature = "gpu")]
mod gpu {
    use eec_ir::gpu::GpuProgram;
    use eec_ir::program::Program;
    use eec_ir::{ContentHash, Tensor};
    use eec_runtime::gpu::{Gpu, GpuOptions, GpuSession, Guard};

    use super::GuardChoice;
    use crate::Error;

    /// An opened adapter and how it runs models.
    #[derive(Clone, Debug)]
    pub struct OnGpu {
        /// The adapter.
        pub gpu: Gpu,
        /// How work behind a decision is kept from running.
        pub guard: GuardChoice,
        /// Whether the host computes what has no shader.
        pub host_ops: bool,
    }

    impl OnGpu {
        /// A session that runs `program` by its GPU form.
        ///
        /// # Errors
        ///
        /// What the adapter lacks, and what fails on it.
        pub fn session(
            &self,
            program: Program,
            form: GpuProgram,
            constants: &dyn Fn(ContentHash) -> Option<Tensor>,
            profile: bool,
        ) -> Result<GpuSession, Error> {
            let decides = program.blocks.len() > 1;
            let guard = match self.guard {
                GuardChoice::Direct => Guard::Direct,
                GuardChoice::Indirect => Guard::Indirect,
                GuardChoice::Auto if decides => Guard::best(&self.gpu)?,
                GuardChoice::Auto => Guard::default(),
            };
            let options = GpuOptions { guard, profile, host_ops: self.host_ops, ..GpuOptions::of(&self.gpu) };
            Ok(GpuSession::new(&self.gpu, program, form, constants, options)?)
        }
    }
}
