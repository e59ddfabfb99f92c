//! Token exits on a real vision-language model: both extremes, mixed batches and early exits on top
//! on the CPU runtime, and what ONNX Runtime makes of an export.

use std::path::{Path, PathBuf};
use std::process::Command;

use eec::cases::run_passes;
use eec::model::simplified;
use eec::npz::{read_npz, write_npz};
use eec::onnx::{export, import};
use eec_ir::verify::{Stage, verify};
use eec_ir::{Graph, Tensor, ValueId};
use eec_passes::exit_heads::{Exit, ExitHeads, Head, Rule, Signal, feature};
use eec_passes::insert::{self, Decisions};
use eec_passes::pass::Context;
use eec_passes::structure::{Structure, analyse};
use eec_passes::token_exits::{Decision, Span, TOKEN_EXIT, TokenExit, TokenExits, text_feature_width, with_taps};
use eec_passes::truncate::truncate;
use eec_runtime::{Control, Run};
use eec_tests::backend::{check_alone, cpu, run};
use eec_tests::shared::{python, shared_folder};
use eec_tests::values::check;

type Result<T = ()> = std::result::Result<T, Box<dyn std::error::Error>>;

const ROWS: usize = 8;

struct Model {
    plain: Graph,
    structure: Structure,
    inputs: Vec<Tensor>,
}

fn name(graph: &Graph, value: ValueId) -> &str {
    graph.value(value).name.as_deref().unwrap_or_default()
}

fn model() -> Result<Option<Model>> {
    let Some(folder) = shared_folder() else { return Ok(None) };
    let plain = simplified(import(&folder.join("models/easy-vqa/model.onnx"))?)?;
    let data = read_npz(&folder.join("data/easy-vqa-eval.npz"))?;
    let find = |v: &ValueId| data.get(name(&plain, *v)).map(|t| t.rows(0, ROWS)).ok_or("an input is missing");
    let inputs = plain.inputs().iter().map(find).collect::<std::result::Result<_, _>>()?;
    Ok(Some(Model { structure: analyse(&plain)?, plain, inputs }))
}

/// Weights of both signs that depend on the seed.
fn weight(seed: usize, dims: &[usize]) -> Result<Tensor> {
    let count: usize = dims.iter().product();
    let element = |i: usize| ((i * 37 + seed * 11) % 101) as f32 / 50.0 - 1.0;
    Ok(Tensor::new::<f32>(dims, (0..count).map(element).collect())?)
}

fn head(seed: usize, width: usize, classes: usize) -> Result<Head> {
    Ok(Head::Linear { weight: weight(seed, &[width, classes])?, bias: Tensor::vector(vec![0.0f32; classes]) })
}

impl Model {
    fn tokens(&self, blocks: &[usize], thresholds: &[f32]) -> Result<TokenExits> {
        let span = Span::find(&self.plain, &self.structure).first().cloned().ok_or("no visual tokens")?;
        let exit = |(block, threshold): (&usize, &f32)| {
            let decision = Decision::Learned { head: self.gate(&span, *block)?, threshold: *threshold };
            Ok(TokenExit { block: *block, decision })
        };
        let exits = blocks.iter().zip(thresholds).map(exit).collect::<Result<_>>()?;
        Ok(TokenExits { span, exits })
    }

    fn exits(&self, blocks: &[usize], thresholds: &[f32]) -> Result<ExitHeads> {
        let exit = |block: &usize| {
            let width = feature(&self.plain, &self.structure, *block)?.width;
            Ok(Exit { block: *block, head: head(7, width, 13)? })
        };
        let exits = blocks.iter().map(exit).collect::<Result<_>>()?;
        Ok(ExitHeads { exits, rule: Rule::Threshold { signal: Signal::MaxProb, thresholds: thresholds.to_vec() } })
    }

    /// A threshold for an exit that half of the rows reach, behind these token exits.
    fn middle(&self, block: usize, tokens: &TokenExits) -> Result<f32> {
        let all = self.run(&self.dynamic(Some(&self.exits(&[block], &[-1.0])?), tokens)?, Control::Auto)?;
        let confidence = all.outputs.iter().find(|(n, _)| n == "confidence").ok_or("no confidence")?;
        let mut sorted = floats(&confidence.1)?;
        sorted.sort_by(f32::total_cmp);
        Ok((sorted[ROWS / 2 - 1] + sorted[ROWS / 2]) / 2.0)
    }

    fn dynamic(&self, exits: Option<&ExitHeads>, tokens: &TokenExits) -> Result<Graph> {
        let decisions = Decisions { exits, tokens: Some(tokens), ..Decisions::default() };
        finished(insert::apply(&self.plain, &self.structure, decisions)?)
    }

    fn learned(&self, blocks: &[usize], thresholds: &[f32]) -> Result<Graph> {
        self.dynamic(None, &self.tokens(blocks, thresholds)?)
    }

    fn fixed(&self, block: usize) -> Result<Graph> {
        self.dynamic(None, &self.fixed_tokens(block)?)
    }

    fn fixed_tokens(&self, block: usize) -> Result<TokenExits> {
        let mut tokens = self.tokens(&[block], &[0.0])?;
        tokens.exits[0].decision = Decision::Always;
        Ok(tokens)
    }

    /// The static model whose tokens leave after one block and whose rows leave at an exit, each if asked.
    fn edited(&self, tokens: Option<usize>, exit: Option<&Exit>) -> Result<Graph> {
        let graph = tokens.map_or_else(|| Ok(self.plain.clone()), |block| self.fixed(block))?;
        match exit {
            Some(exit) => finished(truncate(&graph, &analyse(&graph)?, exit.block, &exit.head)?),
            None => Ok(graph),
        }
    }

    fn run(&self, graph: &Graph, control: Control) -> Result<Run> {
        Ok(run(&mut cpu(graph, 2)?, graph, &self.inputs, control)?)
    }

    /// Row by row as in the batch, to the last bit, with as much work in all.
    fn alone_as_in_a_batch(&self, graph: &Graph, batch: &Run) -> Result {
        Ok(check_alone(&mut cpu(graph, 1)?, graph, &self.inputs, batch)?)
    }

    /// A gate that half of the rows score above 0.5: its bias lies between the middle two.
    fn gate(&self, span: &Span, block: usize) -> Result<Head> {
        let width = text_feature_width(&self.plain, &self.structure, block).ok_or("no width")?;
        let weight = weight(block, &[width, 2])?;
        let tapped = with_taps(&self.plain, &self.structure, span, &[block])?;
        let features = floats(&self.run(&finished(tapped)?, Control::Auto)?.outputs[1].1)?;
        let weights = floats(&weight)?;
        let score = |x: &[f32]| x.iter().zip(weights.chunks(2)).map(|(x, w)| x * (w[1] - w[0])).sum::<f32>();
        let mut scores: Vec<f32> = features.chunks(width).map(score).collect();
        scores.sort_by(f32::total_cmp);
        let middle = (scores[ROWS / 2 - 1] + scores[ROWS / 2]) / 2.0;
        Ok(Head::Linear { weight, bias: Tensor::vector(vec![middle, 0.0]) })
    }
}

fn floats(tensor: &Tensor) -> Result<Vec<f32>> {
    Ok(tensor.elements::<f32>().ok_or("not floats")?.into_owned())
}

fn finished(mut graph: Graph) -> Result<Graph> {
    run_passes(&mut graph, "simplify", &mut Context::default())?;
    verify(&graph, Stage::Lowerable)?;
    Ok(graph)
}

fn numbers(run: &Run, name: &str) -> Result<Vec<i64>> {
    let found = run.outputs.iter().find(|(n, _)| n == name).and_then(|(_, t)| t.to_i64s());
    Ok(found.ok_or_else(|| format!("no output {name}"))?)
}

#[test]
fn never_is_the_plain_model_and_always_the_fixed_token_exit() -> Result {
    let Some(model) = model()? else { return Ok(()) };
    let (plain, fixed) = (model.run(&model.plain, Control::Auto)?, model.run(&model.fixed(2)?, Control::Auto)?);
    assert!(fixed.counters.macs < plain.counters.macs);
    let [never, always] = [1.0, -1.0].map(|t| model.learned(&[2], &[t]));
    let (never, always) = (never?, always?);
    let gate = model.run(&never, Control::Auto)?.counters.macs - plain.counters.macs;
    for (graph, control, want) in [
        (&never, Control::Auto, &plain),
        (&always, Control::Never, &plain),
        (&always, Control::Auto, &fixed),
        (&never, Control::Gates, &fixed),
    ] {
        let have = model.run(graph, control)?;
        check("logits", &have.outputs[0].1, &want.outputs[0].1, 0.0)?;
        let leave = want.counters.macs == fixed.counters.macs;
        assert_eq!(numbers(&have, TOKEN_EXIT)?, [i64::from(!leave); ROWS]);
        assert_eq!(have.counters.macs, want.counters.macs + gate, "{control:?}");
        assert_eq!(have.counters.gate_rows, [if leave { ROWS as u64 } else { 0 }]);
    }
    Ok(())
}

#[test]
fn mixed_samples_fare_alone_as_in_a_batch() -> Result {
    let Some(model) = model()? else { return Ok(()) };
    let blocks = [1, 3];
    let graph = model.learned(&blocks, &[0.5; 2])?;
    let batch = model.run(&graph, Control::Auto)?;
    let taken = numbers(&batch, TOKEN_EXIT)?;
    assert!(taken.contains(&0) && taken.iter().any(|k| *k > 0), "no mixture: {taken:?}");
    let by_gate = [0, 1].map(|k| taken.iter().filter(|t| **t == k).count() as u64);
    assert_eq!(batch.counters.gate_rows, by_gate);
    model.alone_as_in_a_batch(&graph, &batch)
}

#[test]
fn with_early_exits_samples_fare_alone_as_in_a_batch() -> Result {
    let Some(model) = model()? else { return Ok(()) };
    let (graph, batch) = combined(&model)?;
    model.alone_as_in_a_batch(&graph, &batch)
}

#[test]
fn a_forced_gate_takes_the_first_token_exit_alone() -> Result {
    let Some(model) = model()? else { return Ok(()) };
    let graph = model.learned(&[1, 3], &[1.0; 2])?;
    let have = model.run(&graph, Control::Gates)?;
    let want = model.run(&model.fixed(1)?, Control::Auto)?;
    check("logits", &have.outputs[0].1, &want.outputs[0].1, 0.0)?;
    assert_eq!(numbers(&have, TOKEN_EXIT)?, [0; ROWS]);
    assert_eq!(have.counters.gate_rows, [ROWS as u64, 0]);
    let plain = model.run(&model.plain, Control::Auto)?.counters.macs;
    let gates = model.run(&graph, Control::Never)?.counters.macs - plain;
    assert_eq!(have.counters.macs, want.counters.macs + gates);
    Ok(())
}

/// Token exits after blocks 1 and 3, early exits after 2 and 4, where samples without tokens part.
fn interleaved(model: &Model) -> Result<(ExitHeads, Graph)> {
    let threshold = model.middle(2, &model.fixed_tokens(1)?)?;
    let heads = model.exits(&[2, 4], &[threshold; 2])?;
    let graph = model.dynamic(Some(&heads), &model.tokens(&[1, 3], &[0.5; 2])?)?;
    Ok((heads, graph))
}

#[test]
fn controls_of_all_decisions_are_edits() -> Result {
    let Some(model) = model()? else { return Ok(()) };
    let (heads, graph) = interleaved(&model)?;
    let never = model.run(&graph, Control::Never)?;
    let plain = model.run(&model.plain, Control::Auto)?;
    check("logits", &never.outputs[0].1, &plain.outputs[0].1, 0.0)?;
    assert_eq!((numbers(&never, "exit_index")?, numbers(&never, TOKEN_EXIT)?), (vec![2; ROWS], vec![2; ROWS]));

    let gates = model.run(&graph, Control::Gates)?;
    let fixed = model.run(&model.dynamic(Some(&heads), &model.fixed_tokens(1)?)?, Control::Auto)?;
    assert_eq!(gates.outputs[..3], fixed.outputs);
    assert_eq!(numbers(&gates, TOKEN_EXIT)?, [0; ROWS]);
    let left = numbers(&gates, "exit_index")?;
    assert!(left.iter().any(|k| *k != left[0]), "no mixture: {left:?}");
    Ok(())
}

#[test]
fn a_forced_exit_is_an_edit_and_gates_before_it_decide() -> Result {
    let Some(model) = model()? else { return Ok(()) };
    let (heads, graph) = interleaved(&model)?;
    for k in 0..=heads.exits.len() {
        let forced = model.run(&graph, Control::Force(k))?;
        assert_eq!(numbers(&forced, "exit_index")?, [k as i64; ROWS]);
        let edited = |tokens| model.run(&model.edited(tokens, heads.exits.get(k))?, Control::Auto);
        let edits = [edited(Some(1))?, edited(Some(3))?, edited(None)?];
        let taken = numbers(&forced, TOKEN_EXIT)?;
        // The second token exit comes after the first exit.
        assert!(taken.contains(&0) && taken.contains(&1) == (k > 0), "no mixture: {taken:?}");
        for (row, token) in taken.into_iter().enumerate() {
            let [have, want] = [&forced, &edits[token as usize]].map(|run| run.outputs[0].1.rows(row, row + 1));
            check(&format!("exit {k}, row {row}"), &have, &want, 0.0)?;
        }
    }
    Ok(())
}

/// Token exits after two blocks with an early exit between them, where samples part at all.
fn combined(model: &Model) -> Result<(Graph, Run)> {
    let tokens = model.tokens(&[1, 4], &[0.5; 2])?;
    let exits = model.exits(&[3], &[model.middle(3, &tokens)?])?;
    let graph = model.dynamic(Some(&exits), &tokens)?;
    let batch = model.run(&graph, Control::Auto)?;
    let left = numbers(&batch, "exit_index")?;
    assert!(left.contains(&0) && left.contains(&1), "no mixture: {left:?}");
    Ok((graph, batch))
}

#[test]
fn onnx_runtime_drops_alike() -> Result {
    let (Some(model), Some(python)) = (model()?, python()) else { return Ok(()) };
    let blocks = [1, 3];
    let graph = model.learned(&blocks, &[0.5; 2])?;
    exported(&model, &python, &graph, &model.run(&graph, Control::Auto)?)?;
    let (graph, run) = combined(&model)?;
    exported(&model, &python, &graph, &run)
}

/// Integer outputs, `token_exit` among them, must be equal; logits within 1e-4.
fn exported(model: &Model, python: &Path, graph: &Graph, run: &Run) -> Result {
    let temp = tempfile::tempdir()?;
    let at = |name: &str| -> PathBuf { temp.path().join(name) };
    export(&model.plain, &at("plain.onnx"))?;
    export(graph, &at("dynamic.onnx"))?;
    let named = graph.inputs().iter().map(|v| name(graph, *v)).zip(&model.inputs);
    write_npz(&at("inputs.npz"), named)?;
    write_npz(&at("outputs.npz"), run.outputs.iter().map(|(n, t)| (n.as_str(), t)))?;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("python/check_export.py");
    let files = ["plain.onnx", "dynamic.onnx", "inputs.npz", "outputs.npz"];
    let judged = Command::new(python).arg(script).args(files).current_dir(temp.path()).output()?;
    let report = [judged.stdout, judged.stderr].concat();
    if judged.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&report).into_owned().into()) }
}
