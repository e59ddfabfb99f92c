//! The crate's error.

use std::fmt;

/// What an [`Error`] is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A file could not be read or written.
    Io,
    /// A file is not an artifact, is damaged, was written by a newer version, or has no form for what should run it.
    Artifact,
    /// A program breaks its rules.
    Program,
    /// A constant is missing or is not what the program says.
    Constant,
    /// Inputs of a run have wrong names, types or dims.
    Input,
    /// An output is asked for that is not there, or is not of this type.
    Output,
    /// A run needs more memory than allowed.
    Memory,
    /// A kernel met an index out of range or a division by zero, or loops make more steps than allowed.
    Kernel,
    /// There is no GPU, it failed, or it or the CPU lacks something that is needed.
    Device,
    /// A feature of this crate is not built in.
    Feature,
    /// Code could not be generated, or a kernel has a bug.
    Internal,
}

/// Why loading or running a model failed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Error {
    kind: ErrorKind,
    subject: String,
    node: Option<String>,
    message: String,
}

impl Error {
    pub(crate) fn new(kind: ErrorKind, subject: impl Into<String>, message: impl fmt::Display) -> Error {
        Error { kind, subject: subject.into(), node: None, message: message.to_string() }
    }

    pub(crate) fn at_node(mut self, node: &str) -> Error {
        self.node = Some(node.to_string());
        self
    }

    /// What it is about.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The path of the source node of the kernel that failed, if one did.
    pub fn node_path(&self) -> Option<&str> {
        self.node.as_deref()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.subject)?;
        if let Some(node) = &self.node {
            write!(f, "kernel {node:?}: ")?;
        }
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}
