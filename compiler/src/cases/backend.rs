//! Backends as values: every suite runs on each of them.

use eec_ir::{Graph, Tensor, eval};
use eec_runtime::{Control, Options, Run, Session};

use super::lowered;
use super::values::{check, row};
use crate::model::session_of;

/// Something that computes a graph.
#[derive(Clone, Copy, Debug)]
pub enum Backend {
    /// The reference evaluator.
    Evaluator,
    /// The CPU runtime with this many threads.
    Cpu(usize),
}

/// What is compared with the evaluator.
pub const COMPILED: &[Backend] = &[Backend::Cpu(1), Backend::Cpu(2)];

/// A graph that is ready to run on a backend.
pub struct Prepared<'g> {
    graph: &'g Graph,
    session: Option<Session>,
}

impl Backend {
    /// Makes `graph` ready to run.
    pub fn prepare(self, graph: &Graph) -> Result<Prepared<'_>, String> {
        let session = match self {
            Backend::Evaluator => None,
            Backend::Cpu(threads) => Some(cpu(graph, threads)?),
        };
        Ok(Prepared { graph, session })
    }
}

impl Prepared<'_> {
    /// The graph's outputs for these inputs.
    pub fn run(&mut self, inputs: &[Tensor]) -> Result<Vec<Tensor>, String> {
        match &mut self.session {
            None => eval::evaluate(self.graph, inputs).map_err(|e| e.to_string()),
            Some(session) => {
                let run = run(session, self.graph, inputs, Control::Auto)?;
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

/// Runs a session on inputs in the graph's order.
pub fn run(session: &mut Session, graph: &Graph, inputs: &[Tensor], control: Control) -> Result<Run, String> {
    let name = |v: &eec_ir::ValueId| graph.value(*v).name.as_deref().unwrap_or_default();
    let named: Vec<(&str, Tensor)> = graph.inputs().iter().map(name).zip(inputs.iter().cloned()).collect();
    session.run(&named, control).map_err(|e| e.to_string())
}

/// Checks that the rows of `batch` are what each gives alone, to the last bit, with as much work in all.
pub fn check_alone(session: &mut Session, graph: &Graph, inputs: &[Tensor], batch: &Run) -> Result<(), String> {
    let rows = inputs.first().and_then(|t| t.dims().first()).copied().unwrap_or(0);
    let mut macs = 0;
    for r in 0..rows {
        let sample: Vec<Tensor> = inputs.iter().map(|t| row(t, r)).collect();
        let alone = run(session, graph, &sample, Control::Auto)?;
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
