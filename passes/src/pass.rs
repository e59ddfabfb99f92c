//! What a pass is. [`crate::pipeline`] runs a list of them.

use std::fmt;

use eec_ir::verify::Stage;
use eec_ir::{Graph, NodeId};

/// A transformation of a graph. Options are the fields of the type that implements it; it keeps no
/// state between runs.
pub trait Pass {
    /// The name in pipelines, recipes and provenance.
    fn name(&self) -> &'static str;

    /// Transforms the graph. Says in `cx` where it did not apply, and why.
    fn run(&self, graph: &mut Graph, cx: &mut Context) -> Result<Changed, PassError>;

    /// Whether the nodes that it adds stand for those of the source model, whose origin they take over, be it
    /// empty. Those of other passes that have no origin get the pass's name as theirs.
    fn keeps_origin(&self) -> bool {
        false
    }

    /// The stage that graphs have reached once it has run, if it leads to one.
    fn leads_to(&self) -> Option<Stage> {
        None
    }
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
    /// What was decided there.
    pub verdict: Verdict,
}

/// Whether a pass applies at a place.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// It does, or can; with what it makes of the place.
    Applies(String),
    /// It does not, for this reason.
    Refused(String),
}

/// What passes report besides the graph.
#[derive(Clone, Debug, Default)]
pub struct Context {
    /// Notes in the order they were made.
    pub notes: Vec<Note>,
}

impl Context {
    /// Notes that `pass` applies at `place`, and what it makes of it.
    pub fn applies(&mut self, pass: &'static str, place: impl Into<String>, what: impl Into<String>) {
        self.notes.push(Note { pass, place: place.into(), verdict: Verdict::Applies(what.into()) });
    }

    /// Notes that `pass` does not apply at `place`, and why.
    pub fn refused(&mut self, pass: &'static str, place: impl Into<String>, reason: impl Into<String>) {
        self.notes.push(Note { pass, place: place.into(), verdict: Verdict::Refused(reason.into()) });
    }
}
