//! Wall time per token when a language model decodes: one token a run, keys and values carried from run
//! to run.

use std::collections::HashMap;
use std::time::Instant;

use eec_ir::{DType, Dim, Graph, Tensor};
use eec_passes::structure::{StatePair, Structure};
use eec_runtime::{Control, Runner};

use super::times::spread;
use crate::Error;
use crate::dataset::Dataset;

/// Sequences decoded.
const SEQUENCES: usize = 4;
/// Tokens per sequence, if the data has as many.
const TOKENS: usize = 96;

/// How an input changes from token to token.
enum Feed {
    /// One token of the data.
    Token,
    /// All tokens up to the current one, as an attention mask.
    Prefix,
    /// What the run before gave as this output.
    State(String),
}

/// How a model is fed token by token.
pub(super) struct Decoder {
    feeds: Vec<(String, Feed)>,
    tokens: usize,
}

impl Decoder {
    /// The way to decode with a model; `None` if it carries no state or its inputs cannot be told
    /// apart.
    pub(super) fn of(graph: &Graph, structure: &Structure, data: &Dataset) -> Option<Decoder> {
        if structure.states.is_empty() {
            return None;
        }
        let sequence = graph.ty(structure.output).dims.get(1)?.clone();
        let feed = |v: &eec_ir::ValueId| -> Option<(String, Feed)> {
            let name = graph.value(*v).name.as_deref()?.to_string();
            let state = structure.states.iter().find(|s: &&StatePair| s.input == *v);
            if let Some(state) = state {
                return Some((name, Feed::State(graph.output_names().get(state.output)?.to_string())));
            }
            let ty = graph.ty(*v);
            let second: &Dim = ty.dims.get(1).filter(|_| ty.rank() == 2 && ty.dtype != DType::F32)?;
            Some((name, if *second == sequence { Feed::Token } else { Feed::Prefix }))
        };
        let feeds: Option<Vec<_>> = graph.inputs().iter().map(feed).collect();
        let fed = data.inputs.iter().filter(|(_, t)| t.dims().len() == 2).map(|(_, t)| t.dims()[1]).min()?;
        Some(Decoder { feeds: feeds?, tokens: fed.min(TOKENS) })
    }

    /// Mean milliseconds per token of every session, interleaved token by token, over the second half of
    /// each sequence.
    pub(super) fn time(&self, sessions: &mut [&mut dyn Runner], data: &Dataset) -> Result<Vec<f64>, Error> {
        let mut sums = vec![0.0; sessions.len()];
        let mut count = 0;
        for row in spread(data.rows, SEQUENCES, 1) {
            let first: HashMap<String, Tensor> =
                data.batch(row, row + 1).into_iter().map(|(n, t)| (n.to_string(), t)).collect();
            let mut states = vec![self.empty_states(&first); sessions.len()];
            for token in 0..self.tokens {
                for (k, session) in sessions.iter_mut().enumerate() {
                    let took = self.step(&mut **session, &first, &mut states[k], token)?;
                    if token >= self.tokens / 2 {
                        sums[k] += took;
                    }
                }
                count += usize::from(token >= self.tokens / 2);
            }
        }
        Ok(sums.into_iter().map(|s| s / count.max(1) as f64).collect())
    }

    /// The states that the data begins with.
    fn empty_states(&self, row: &HashMap<String, Tensor>) -> HashMap<String, Tensor> {
        let states = self.feeds.iter().filter(|(_, feed)| matches!(feed, Feed::State(_)));
        states.filter_map(|(name, _)| Some((name.clone(), row.get(name)?.clone()))).collect()
    }

    /// Feeds one token; the run's milliseconds.
    fn step(
        &self,
        session: &mut dyn Runner,
        row: &HashMap<String, Tensor>,
        states: &mut HashMap<String, Tensor>,
        token: usize,
    ) -> Result<f64, Error> {
        let mut inputs: Vec<(&str, Tensor)> = Vec::with_capacity(self.feeds.len());
        for (name, feed) in &self.feeds {
            let tensor = match feed {
                Feed::Token => row.get(name).and_then(|t| columns(t, token, token + 1)),
                Feed::Prefix => row.get(name).and_then(|t| columns(t, 0, token + 1)),
                Feed::State(_) => states.get(name).cloned(),
            };
            inputs.push((name, tensor.ok_or_else(|| Error::request(format!("no data for `{name}`")))?));
        }
        let clock = Instant::now();
        let run = session.run(&inputs, Control::Auto)?;
        let took = clock.elapsed().as_secs_f64() * 1e3;
        for (name, feed) in &self.feeds {
            if let Feed::State(output) = feed
                && let Some((_, tensor)) = run.outputs.iter().find(|(n, _)| n == output)
            {
                states.insert(name.clone(), tensor.clone());
            }
        }
        Ok(took)
    }
}

/// Columns `from..to` of a tensor `[1, columns]`.
fn columns(tensor: &Tensor, from: usize, to: usize) -> Option<Tensor> {
    let flat = tensor.reshaped(&[*tensor.dims().get(1)?]).ok()?;
    let part = flat.rows(from, to);
    part.reshaped(&[1, part.len()]).ok()
}
