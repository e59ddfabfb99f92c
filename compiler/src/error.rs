//! The library's error: what failed, in which file, and why.

use std::path::Path;

use eec_ir::ops::EvalError;

use crate::calibrate::CalibrateError;
use crate::dataset::DatasetError;
use crate::fit::FitError;
use crate::lower::LowerError;
use crate::onnx::{ExportError, ImportError};

/// Why something that eec was asked for could not be done.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file could not be read or written.
    #[error("{file}: {source}")]
    Io {
        /// The file.
        file: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A model could not be imported.
    #[error(transparent)]
    Import(#[from] ImportError),
    /// A model could not be exported.
    #[error(transparent)]
    Export(#[from] ExportError),
    /// An array file could not be read or written.
    #[error(transparent)]
    Npz(#[from] crate::npz::NpzError),
    /// A data file does not fit the model.
    #[error(transparent)]
    Dataset(#[from] DatasetError),
    /// A pass failed.
    #[error(transparent)]
    Pass(#[from] eec_passes::pass::PassError),
    /// A list of passes did not run to its end.
    #[error(transparent)]
    Passes(#[from] eec_passes::pipeline::RunError),
    /// A graph could not be lowered.
    #[error(transparent)]
    Lower(#[from] LowerError),
    /// A program has no GPU form, or a shader of it is wrong.
    #[error(transparent)]
    Gpu(#[from] crate::wgsl::LowerError),
    /// A program could not be loaded or run.
    #[error(transparent)]
    Runtime(#[from] eec_runtime::Error),
    /// A head could not be fitted.
    #[error("fit: {0}")]
    Fit(#[from] FitError),
    /// Thresholds could not be calibrated.
    #[error("calibrate: {0}")]
    Calibrate(#[from] CalibrateError),
    /// An operator could not be evaluated.
    #[error(transparent)]
    Eval(#[from] EvalError),
    /// A file's content is not what it should be.
    #[error("{file}: {reason}")]
    Content {
        /// The file.
        file: String,
        /// Expected and found.
        reason: String,
    },
    /// What was asked for cannot be done for this model or these options.
    #[error("{0}")]
    Request(String),
    /// A flag says what it cannot say, as judged with the model or the other flags at hand.
    #[error("{0}")]
    Usage(String),
}

impl Error {
    /// An input or output error of `file`.
    pub fn io(file: &Path, source: std::io::Error) -> Self {
        Error::Io { file: file.display().to_string(), source }
    }

    /// A complaint about what `file` holds.
    pub fn content(file: &Path, reason: impl std::fmt::Display) -> Self {
        Error::Content { file: file.display().to_string(), reason: reason.to_string() }
    }

    /// The same error, opened by what it is about unless it names a file already.
    #[must_use]
    pub fn about(self, subject: impl std::fmt::Display) -> Self {
        use eec_runtime::ErrorKind;
        match self {
            Error::Io { .. } | Error::Content { .. } => self,
            Error::Import(_) | Error::Export(_) | Error::Npz(_) | Error::Dataset(_) | Error::Usage(_) => self,
            Error::Runtime(e) if matches!(e.kind(), ErrorKind::Io | ErrorKind::Artifact) => Error::Runtime(e),
            Error::Pass(_)
            | Error::Passes(_)
            | Error::Lower(_)
            | Error::Gpu(_)
            | Error::Runtime(_)
            | Error::Fit(_)
            | Error::Calibrate(_)
            | Error::Eval(_)
            | Error::Request(_) => Error::Content { file: subject.to_string(), reason: self.to_string() },
        }
    }

    /// A request that cannot be met.
    pub fn request(reason: impl std::fmt::Display) -> Self {
        Error::Request(reason.to_string())
    }

    /// Wrong usage of a flag.
    pub fn usage(reason: impl std::fmt::Display) -> Self {
        Error::Usage(reason.to_string())
    }
}
