//! What a pass is, and running a list of them.

use std::fmt;

use eec_ir::{Graph, NodeId};

/// A transformation of a graph. Options are the fields of the type that implements it; it keeps no
/// state between runs.
pub trait Pass {
    /// The name in pipelines, recipes and provenance.
    fn name(&self) -> &'static str;

    /// Transforms the graph. Says in `cx` where it did not apply, and why.
    fn run(&self, graph: &mut Graph, cx: &mut Context) -> Result<Changed, PassError>;
}

/// Whether a pass changed anything.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Changed {
    /// The graph is different.
    Yes,
    /// The graph is as it was.
    No,
}

impl From<bool> for Changed {
    fn from(changed: bool) -> Self {
        if changed { Changed::Yes } else { Changed::No }
    }
}

/// Why a pass failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{pass}: {}{reason}", .node.as_deref().map(|n| format!("{n}: ")).unwrap_or_default())]
pub struct PassError {
    /// The pass.
    pub pass: &'static str,
    /// The node's path and operator, if one is to blame.
    pub node: Option<String>,
    /// What was expected and what was found.
    pub reason: String,
}

impl PassError {
    /// A failure of `pass`.
    pub fn new(pass: &'static str, reason: impl fmt::Display) -> Self {
        PassError { pass, node: None, reason: reason.to_string() }
    }

    /// A failure of `pass` at `node`.
    pub fn at(pass: &'static str, graph: &Graph, node: NodeId, reason: impl fmt::Display) -> Self {
        PassError { node: Some(graph.describe(node)), ..PassError::new(pass, reason) }
    }
}

/// A place where a pass did or did not apply, and why.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Note {
    /// The pass.
    pub pass: &'static str,
    /// The place, in the source model's words.
    pub place: String,
    /// The reason.
    pub reason: String,
}

/// What passes report besides the graph.
#[derive(Clone, Debug, Default)]
pub struct Context {
    /// Notes in the order they were made.
    pub notes: Vec<Note>,
}

impl Context {
    /// Adds a note.
    pub fn note(&mut self, pass: &'static str, place: impl Into<String>, reason: impl Into<String>) {
        self.notes.push(Note { pass, place: place.into(), reason: reason.into() });
    }
}

/// Runs passes in order; `after` sees the graph after each and may stop the run with an error.
pub fn run(
    passes: &[Box<dyn Pass>],
    graph: &mut Graph,
    cx: &mut Context,
    after: &mut dyn FnMut(&dyn Pass, &Graph) -> Result<(), PassError>,
) -> Result<(), PassError> {
    for pass in passes {
        pass.run(graph, cx)?;
        after(pass.as_ref(), graph)?;
    }
    Ok(())
}
