//! Why a model could not be imported or exported: the file, the node, and what was found.

use std::fmt;
use std::io;

use eec_ir::ValueId;
use eec_ir::ops::InferError;
use eec_ir::verify::VerifyErrors;

use super::unsupported::{Deciding, Unsupported};

/// An import that failed.
#[derive(Debug)]
pub struct ImportError(Box<Inner>);

#[derive(Debug)]
struct Inner {
    file: String,
    node: Option<String>,
    kind: ImportErrorKind,
}

/// What went wrong in an import.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImportErrorKind {
    /// The file could not be read.
    #[error("cannot be read: {0}")]
    Read(#[source] io::Error),
    /// The file does not hold an ONNX model; what it seems to hold instead.
    #[error("is not an ONNX model: {0}")]
    NotOnnx(String),
    /// The model needs a version of the format or of the operators that is not supported.
    #[error("{0}")]
    Version(String),
    /// The model uses operators, element types or forms of operators that are not supported: all of
    /// them, as far as the values they take can be told.
    #[error("{0}")]
    Unsupported(Unsupported),
    /// A tensor stored in the model or beside it is broken.
    #[error("tensor `{name}`: {reason}")]
    Tensor {
        /// Its name.
        name: String,
        /// Expected and found.
        reason: String,
    },
    /// An input or output is declared in a way that cannot be used.
    #[error("{0}")]
    Interface(String),
    /// An option names an input or a dim that the model does not have.
    #[error("{0}")]
    Option(String),
    /// A node breaks the rules of names and branches.
    #[error("{0}")]
    Node(String),
    /// The graph breaks invariants of the IR.
    #[error("{0}")]
    Invalid(VerifyErrors),
    /// A value's declared type contradicts the inferred one.
    #[error("value `{value}` is declared as {declared}, but the model computes {inferred}{}", choosing.chosen())]
    Contradiction {
        /// The value's name.
        value: String,
        /// The type in the file.
        declared: String,
        /// The type that follows from the inputs.
        inferred: String,
        /// What chooses the branch in which it stands.
        choosing: Deciding,
    },
}

impl ImportError {
    pub(crate) fn new(file: &str, node: Option<String>, kind: ImportErrorKind) -> Self {
        ImportError(Box::new(Inner { file: file.to_string(), node, kind }))
    }

    /// The file, as it was named by the caller.
    pub fn file(&self) -> &str {
        &self.0.file
    }

    /// The node, from the outermost graph down; `None` if the error concerns no single node.
    pub fn node_path(&self) -> Option<&str> {
        self.0.node.as_deref()
    }

    /// What went wrong.
    pub fn kind(&self) -> &ImportErrorKind {
        &self.0.kind
    }
}

impl fmt::Display for ImportError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.0.file)?;
        if let Some(node) = &self.0.node {
            write!(f, "{node}: ")?;
        }
        write!(f, "{}", self.0.kind)
    }
}

impl std::error::Error for ImportError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.0.kind {
            ImportErrorKind::Read(e) => Some(e),
            _ => None,
        }
    }
}

/// Why one node could not be imported; the importer adds the file and the node's path.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) reason: String,
    /// The value whose elements would have to be known before a run, if that is why.
    pub(crate) undecided: Option<ValueId>,
}

impl Refusal {
    pub(crate) fn new(reason: impl Into<String>) -> Self {
        Refusal { reason: reason.into(), undecided: None }
    }

    /// A refusal that would not be one if the elements of `value` were known.
    pub(crate) fn undecided(value: ValueId, reason: impl Into<String>) -> Self {
        Refusal { undecided: Some(value), ..Refusal::new(reason) }
    }
}

pub(crate) type NodeResult<T> = Result<T, Refusal>;

/// A refusal for `reason`.
pub(crate) fn refuse<T>(reason: impl Into<String>) -> NodeResult<T> {
    Err(Refusal::new(reason))
}

impl From<InferError> for Refusal {
    fn from(error: InferError) -> Self {
        Refusal::new(error.to_string())
    }
}

impl From<eec_ir::tensor::TensorError> for Refusal {
    fn from(error: eec_ir::tensor::TensorError) -> Self {
        Refusal::new(error.to_string())
    }
}

/// Why a node with graphs of its own could not be imported.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The whole model cannot be.
    Import(ImportError),
    /// This node cannot be; others are still judged.
    Node(Refusal),
}

impl From<ImportError> for Failure {
    fn from(error: ImportError) -> Self {
        Failure::Import(error)
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Failure::Node(refusal)
    }
}

impl From<InferError> for Failure {
    fn from(error: InferError) -> Self {
        Failure::Node(error.into())
    }
}

/// An export that failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExportError {
    /// The file could not be written.
    #[error("{file}: cannot be written: {source}")]
    Write {
        /// The file.
        file: String,
        /// Why.
        source: io::Error,
    },
    /// A size is not the dim of any value that the exported graph could read it from.
    #[error("{node}: no visible value has `{symbol}` as a dim, so its size cannot be computed in the file")]
    UnknownSymbol {
        /// The node that needs it.
        node: String,
        /// The symbol.
        symbol: String,
    },
    /// ONNX cannot express the node.
    #[error("{node}: {reason}")]
    Node {
        /// The node.
        node: String,
        /// Why.
        reason: String,
    },
    /// The format allows no file over 2 GiB.
    #[error("the model has {0} bytes, more than the 2147483647 that one ONNX file can hold")]
    TooLarge(usize),
}
