//! A pass of one's own, in one file against eec's public API: samples leave where their hidden state has
//! saturated. At every exit the pooled hidden state is compared with that at the exit before; a sample
//! whose states were alike (cosine of at least a threshold) several exits in a row leaves, and the
//! model's own classifier answers from there.
//!
//! The measure is the hidden-state saturation of CALM (Schuster et al., arXiv 2207.07061), the patience
//! over several exits that of PABEE (Zhou et al., arXiv 2006.04152). Nothing has to be fitted.
//!
//! This program is the whole `eec` command with the pass beside eec's own:
//!
//! ```text
//! cargo run --release -p eec-saturation -- opt --list-passes
//! cargo run --release -p eec-saturation -- explain examples/easy-vqa/model.onnx --pass saturation
//! cargo run --release -p eec-saturation -- compile examples/easy-vqa/model.onnx -o saturation.eec \
//!     --passes 'saturation{at=[0, 1, 2, 3, 4, 5, 6], threshold=0.97, patience=2}'
//! cargo run --release -p eec-saturation -- eval saturation.eec --data examples/easy-vqa/eval.npz
//! ```

#![forbid(unsafe_code)]

use std::process::ExitCode;

use eec_ir::{Graph, Op, Tensor, ValueId};
use eec_passes::emit::Emit;
use eec_passes::exit_heads::{self, AtExit, Decision, Exit, ExitHeads, ExitRule, Head, Rule};
use eec_passes::explain;
use eec_passes::insert::InsertError;
use eec_passes::pass::{Changed, Context, Pass, PassError};
use eec_passes::registry::{self, Entry, RegisterError, Registry};
use eec_passes::structure::analyse;

/// The name in pipelines, recipes and provenance.
const NAME: &str = "saturation";

/// Keeps the cosine of a zero vector at 0.
const TINY: f32 = 1e-12;

fn main() -> ExitCode {
    match passes() {
        Ok(registry) => eec::cli::main_with(&registry),
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// eec's passes and this one.
fn passes() -> Result<Registry, RegisterError> {
    let make = |options: &mut registry::Options<'_>| {
        let patience = options.take("patience", |t| registry::number(t).filter(|n| *n > 0))?;
        let rule = SaturationRule {
            threshold: options.required("threshold", |t| t.parse().ok())?,
            patience: patience.unwrap_or(1),
        };
        let pass = Saturation { at: options.required("at", registry::places)?, rule };
        Ok(Box::new(pass) as Box<dyn Pass>)
    };
    let entry = Entry::new(NAME, "samples leave where their hidden state has stopped changing", make)
        .option("at", "blocks, in order of depth: [1, 3]")
        .option("threshold", "the least cosine of hidden states that are alike; above 1 means never")
        .option("patience", "exits in a row, 1 if left out")
        .explained(|graph, cx| explain::exits(NAME, graph, cx));
    Registry::builtin().with(entry)
}

/// The pass.
struct Saturation {
    /// The blocks after which samples may leave.
    at: Vec<usize>,
    rule: SaturationRule,
}

impl Pass for Saturation {
    fn name(&self) -> &'static str {
        NAME
    }

    fn run(&self, graph: &mut Graph, cx: &mut Context) -> Result<Changed, PassError> {
        let structure = analyse(graph).map_err(|e| PassError::new(NAME, e))?;
        let exits = self.at.iter().map(|block| Exit { block: *block, head: Head::Final }).collect();
        let options = ExitHeads { exits, rule: Rule::custom(self.rule) };
        *graph = exit_heads::apply_to(graph, &structure, &options).map_err(|e| PassError::new(NAME, e))?;
        self.at.iter().for_each(|block| cx.applies(NAME, format!("block {block}"), "an exit stands after it"));
        Ok(Changed::Yes)
    }
}

/// When a sample leaves.
#[derive(Clone, Copy, Debug)]
struct SaturationRule {
    /// The least cosine of hidden states that are alike.
    threshold: f32,
    /// Exits in a row at which the state must be like that of the exit before.
    patience: usize,
}

impl ExitRule for SaturationRule {
    fn pass(&self) -> &'static str {
        NAME
    }

    fn reads_feature(&self) -> bool {
        true
    }

    /// Carries the hidden state `[rows, width]` and the length of the run `[rows]` to the next exit. The
    /// confidence is that length; at the model's end it is the last exit's.
    fn decide(&self, emit: &mut Emit<'_>, at: &AtExit<'_>) -> Result<Decision, InsertError> {
        let Some(state) = at.feature else {
            let &[_, run] = at.carry else { return Err(InsertError::NoExits) };
            return Ok(Decision { mask: None, confidence: run, carry: Vec::new() });
        };
        let rows = emit.rows(state);
        let zero = emit.fill("zero", Tensor::scalar(0f32), &rows)?;
        let run = match at.carry {
            &[before, run] => {
                let cosine = cosine(emit, before, state)?;
                let threshold = emit.constant(Tensor::scalar(self.threshold));
                let alike = emit.op("alike", Op::GreaterOrEqual {}, &[cosine, threshold])?;
                let one = emit.constant(Tensor::scalar(1f32));
                let longer = emit.op("longer", Op::Add {}, &[run, one])?;
                emit.op("run", Op::Where {}, &[alike, longer, zero])?
            }
            _ => zero,
        };
        let patience = emit.constant(Tensor::scalar(self.patience as f32));
        let leave = emit.op("leave", Op::GreaterOrEqual {}, &[run, patience])?;
        Ok(Decision { mask: Some(leave), confidence: run, carry: vec![state, run] })
    }
}

/// The cosine `[rows]` of the rows of `a` and `b`, both `[rows, width]`.
fn cosine(emit: &mut Emit<'_>, a: ValueId, b: ValueId) -> Result<ValueId, InsertError> {
    let mut dot = |name: &str, x, y| {
        let products = emit.op(&format!("{name}/products"), Op::Mul {}, &[x, y])?;
        emit.op(name, Op::ReduceSum { axes: vec![1], keepdims: false }, &[products])
    };
    let (ab, aa, bb) = (dot("dot", a, b)?, dot("square-before", a, a)?, dot("square-now", b, b)?);
    let squares = emit.op("squares", Op::Mul {}, &[aa, bb])?;
    let norms = emit.op("norms", Op::Sqrt {}, &[squares])?;
    let tiny = emit.constant(Tensor::scalar(TINY));
    let norms = emit.op("norms/above-zero", Op::Max {}, &[norms, tiny])?;
    Ok(emit.op("cosine", Op::Div {}, &[ab, norms])?)
}

#[cfg(test)]
mod tests {
    use eec::cases::{Case, seeded_inputs};
    use eec_ir::eval::evaluate;

    const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/cases");

    #[test]
    fn cases_hold() {
        eec::testing::run_cases(FOLDER.as_ref(), &super::passes().expect("the name is free"));
    }

    /// With a patience of 2 all rows leave at the third exit, with the answer of the model cut there.
    #[test]
    fn always_is_the_model_cut_at_the_exit() {
        let source = std::fs::read_to_string(format!("{FOLDER}/always.eir")).expect("a case");
        let outputs = |passes: &str| {
            let mut case = Case::new(&source).expect("a case");
            case.header.passes = passes.into();
            let outcome = case.run(&super::passes().expect("the name is free")).expect("passes that run");
            let sizes = case.sizes(&outcome.before).expect("sizes").swap_remove(0);
            evaluate(&outcome.after, &seeded_inputs(&outcome.before, &sizes).expect("inputs")).expect("values")
        };
        let always = outputs("saturation{at=[0, 1, 2], threshold=-2, patience=2}");
        let cut = outputs("truncate{at=2, head=final}");
        assert_eq!(always[0], cut[0]);
        assert!(always[1].to_i64s().is_some_and(|exits| exits.iter().all(|k| *k == 2)));
    }
}
