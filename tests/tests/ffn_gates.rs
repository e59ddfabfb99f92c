//! FFN gates on real models: which FFNs can have one, both extremes and mixed decisions on the CPU
//! runtime, and what ONNX Runtime makes of an export.

use std::path::{Path, PathBuf};
use std::process::Command;

use eec::cases::run_passes;
use eec::model::simplified;
use eec::npz::{read_npz, write_npz};
use eec::onnx::{export, import};
use eec_ir::verify::{Stage, verify};
use eec_ir::{Graph, Tensor, ValueId};
use eec_passes::ffn_gates::candidates;
use eec_passes::pass::Context;
use eec_passes::structure::analyse;
use eec_runtime::{Control, Run};
use eec_tests::backend::{check_alone, cpu, run};
use eec_tests::shared::{python, shared_folder};
use eec_tests::values::check;

/// Models, and in how many of their blocks an FFN can have a gate; then why it cannot in others.
/// Swin's patch merging is a block without an FFN, and CLIP's two towers have no block in common.
const MODELS: &[(&str, usize, &str)] = &[
    ("cifar-vit/model", 10, ""),
    ("bert-sst2/model", 6, ""),
    ("bert-trec/model", 6, ""),
    ("bert-trec/model_dynamo", 6, ""),
    ("easy-vqa/model", 8, ""),
    ("shakespeare-llama/model", 8, ""),
    ("llama-stories260k/model", 5, ""),
    ("llama-stories260k/model_dynamo", 5, ""),
    ("llama-stories260k/model_with_past", 5, ""),
    ("llama-stories260k/model_with_past_dynamo", 5, ""),
    ("hf-bert/model", 4, ""),
    ("hf-bert/model_dynamo", 4, ""),
    ("hf-vit/model", 4, ""),
    ("hf-vit/model_dynamo", 4, ""),
    ("hf-gpt2/model", 4, ""),
    ("hf-gpt2/model_dynamo", 4, ""),
    ("hf-albert/model", 4, ""),
    ("hf-albert/model_dynamo", 4, ""),
    ("hf-whisper_encoder/model", 4, ""),
    ("hf-whisper_encoder/model_dynamo", 4, ""),
    ("hf-swin/model", 4, "no FFN sub-block, only a single layer"),
    ("hf-clip/model", 0, ""),
    ("resnet20/model", 0, "no FFN sub-block, only convolutions"),
];

fn path(name: &str) -> Option<PathBuf> {
    shared_folder().map(|folder| folder.join("models").join(name).with_extension("onnx"))
}

fn plain(path: &Path) -> Result<Graph, String> {
    simplified(import(path).map_err(|e| e.to_string())?).map_err(|e| e.to_string())
}

/// The model after gates with these options at these blocks, and what follows.
fn gated(plain: &Graph, passes: &str) -> Result<Graph, String> {
    let mut graph = plain.clone();
    run_passes(&mut graph, &format!("{passes}, simplify"), &mut Context::default()).map_err(|e| e.to_string())?;
    verify(&graph, Stage::Lowerable).map_err(|e| e.to_string())?;
    Ok(graph)
}

fn name(graph: &Graph, value: ValueId) -> &str {
    graph.value(value).name.as_deref().unwrap_or_default()
}

fn inputs(graph: &Graph, model: &Path) -> Result<Vec<Tensor>, String> {
    let arrays = read_npz(&model.with_extension("inputs.npz")).map_err(|e| e.to_string())?;
    let find =
        |v: &ValueId| arrays.get(name(graph, *v)).cloned().ok_or_else(|| format!("no input {}", name(graph, *v)));
    graph.inputs().iter().map(find).collect()
}

fn ran(graph: &Graph, threads: usize, inputs: &[Tensor]) -> Result<Run, String> {
    run(&mut cpu(graph, threads)?, graph, inputs, Control::Auto)
}

/// Equal bits in all outputs.
fn same(have: &Run, want: &Run) -> Result<(), String> {
    assert_eq!(have.outputs.len(), want.outputs.len());
    have.outputs.iter().zip(&want.outputs).try_for_each(|((name, h), (_, w))| check(name, h, w, 0.0))
}

#[test]
fn every_ffn_of_real_models_can_have_a_gate() {
    for (model, expected, why) in MODELS {
        let Some(path) = path(model) else { return };
        let graph = plain(&path).unwrap_or_else(|e| panic!("{model}: {e}"));
        let structure = analyse(&graph).unwrap_or_else(|e| panic!("{model}: {e}"));
        let (yes, no): (Vec<_>, Vec<_>) = candidates(&graph, &structure).into_iter().partition(|c| c.verdict.is_ok());
        assert_eq!(yes.len(), *expected, "{model}: {no:?}");
        let reasons = no.iter().filter_map(|c| c.verdict.as_ref().err());
        reasons.for_each(|reason| assert!(!why.is_empty() && reason.contains(why), "{model}: {reason}"));
    }
}

/// Pre-norm with fixed tokens, post-norm, a cache with SwiGLU by both exporters, flattened tokens.
const COMPUTED: &[&str] = &[
    "cifar-vit/model",
    "bert-sst2/model",
    "llama-stories260k/model_with_past",
    "llama-stories260k/model_with_past_dynamo",
    "hf-gpt2/model_dynamo",
];

#[test]
fn never_is_the_plain_model_and_always_the_static_edit() {
    for model in COMPUTED {
        let Some(path) = path(model) else { return };
        extremes(&path).unwrap_or_else(|e| panic!("{model}: {e}"));
    }
}

fn extremes(path: &Path) -> Result<(), String> {
    let plain = plain(path)?;
    let inputs = inputs(&plain, path)?;
    let gates = |options: &str| gated(&plain, &format!("ffn-gates{{at=[1, 2, 3], {options}}}"));
    let (full, edited) = (ran(&plain, 2, &inputs)?, ran(&gates("rule=static")?, 2, &inputs)?);
    if edited.counters.macs >= full.counters.macs || same(&edited, &full).is_ok() {
        return Err("a static edit changes nothing".into());
    }
    for granularity in ["row", "all"] {
        let by = |rule: &str| ran(&gates(&format!("rule={rule}, granularity={granularity}"))?, 2, &inputs);
        for never in ["learned:inf", "cosine:2/1/0", "cosine:-2/3/1000000"] {
            let have = by(never)?;
            same(&have, &full).map_err(|e| format!("{granularity}, {never}: {e}"))?;
            if have.counters.macs < full.counters.macs {
                return Err(format!("{granularity}, {never}: something was skipped"));
            }
        }
        let always = by("learned:-inf")?;
        same(&always, &edited).map_err(|e| format!("{granularity}, always: {e}"))?;
        if always.counters.macs != edited.counters.macs {
            return Err(format!("{granularity}, always: {:?}, expected {:?}", always.counters, edited.counters));
        }
    }
    let first = ran(&gated(&plain, "ffn-gates{at=[2, 3], rule=static}")?, 2, &inputs)?;
    same(&ran(&gates("rule=cosine:-2/2/0")?, 2, &inputs)?, &first).map_err(|e| format!("the first runs: {e}"))
}

/// Gates between the extremes.
struct Mixed {
    model: &'static str,
    at: &'static str,
    options: &'static str,
    /// Passes that follow.
    then: &'static str,
}

impl Mixed {
    /// The model with other options, or its own.
    fn graph(&self, plain: &Graph, options: &str) -> Result<Graph, String> {
        gated(plain, &format!("ffn-gates{{at=[{}], {options}}}{}", self.at, self.then))
    }
}

const MIXED: &[Mixed] = &[
    Mixed { model: "cifar-vit/model", at: "2, 3, 4", options: "rule=learned:0", then: "" },
    Mixed {
        model: "cifar-vit/model",
        at: "2, 3, 4",
        options: "rule=learned:0, replace=4",
        then: ", exit-heads{at=[2, 5], rule=maxprob:0.2}",
    },
    Mixed { model: "bert-sst2/model", at: "0, 2, 3", options: "rule=learned:0", then: "" },
    Mixed {
        model: "bert-sst2/model",
        at: "1, 2, 3",
        options: "rule=cosine:0.9/1/2",
        then: ", exit-heads{at=[1], rule=maxprob:0.6}",
    },
    Mixed { model: "easy-vqa/model", at: "1, 2", options: "rule=cosine:0.9/1/4", then: "" },
];

/// Four different rows made of the first: each is shifted by one element.
fn repeated(tensor: &Tensor) -> Result<Tensor, String> {
    let (first, size) = (tensor.rows(0, 1), tensor.dtype().size());
    let shifted = (0..4).flat_map(|r| [&first.bytes()[r * size..], &first.bytes()[..r * size]].concat());
    let dims: Vec<usize> = [4].iter().chain(&tensor.dims()[1..]).copied().collect();
    Tensor::from_bytes(tensor.dtype(), &dims, shifted.collect()).map_err(|e| e.to_string())
}

#[test]
fn with_gates_samples_fare_alone_as_in_a_batch() {
    for mixed in MIXED {
        let Some(path) = path(mixed.model) else { return };
        alone_as_in_a_batch(&path, mixed).unwrap_or_else(|e| panic!("{}, {}: {e}", mixed.model, mixed.options));
    }
}

fn alone_as_in_a_batch(path: &Path, mixed: &Mixed) -> Result<(), String> {
    let plain = plain(path)?;
    let graph = mixed.graph(&plain, mixed.options)?;
    let inputs: Vec<Tensor> = inputs(&plain, path)?.iter().map(repeated).collect::<Result<_, _>>()?;
    let mut session = cpu(&graph, 2)?;
    let batch = run(&mut session, &graph, &inputs, Control::Auto)?;
    same(&ran(&graph, 1, &inputs)?, &batch)?;
    let work = |options| Ok::<_, String>(ran(&mixed.graph(&plain, options)?, 1, &inputs)?.counters.macs);
    let (least, most) = (work("rule=static")?, work("rule=learned:inf")?);
    if !(least + 1..most).contains(&batch.counters.macs) {
        return Err(format!("no mixture: {} MACs of {least} to {most}", batch.counters.macs));
    }
    check_alone(&mut session, &graph, &inputs, &batch)
}

#[test]
fn onnx_runtime_skips_alike() {
    const MORE: &[Mixed] = &[
        Mixed { model: "cifar-vit/model", at: "1, 2", options: "rule=cosine:0.5/1/0, granularity=all", then: "" },
        Mixed {
            model: "llama-stories260k/model_with_past",
            at: "1, 2, 3",
            options: "rule=cosine:0.9/1/6, replace=4",
            then: "",
        },
    ];
    for mixed in MIXED.iter().chain(MORE) {
        let (Some(path), Some(python)) = (path(mixed.model), python()) else { return };
        exported(&path, &python, mixed).unwrap_or_else(|e| panic!("{}, {}: {e}", mixed.model, mixed.options));
    }
}

fn exported(path: &Path, python: &Path, mixed: &Mixed) -> Result<(), String> {
    let temp = tempfile::tempdir().map_err(|e| e.to_string())?;
    let at = |name: &str| temp.path().join(name);
    let plain = plain(path)?;
    let (graph, inputs) = (mixed.graph(&plain, mixed.options)?, inputs(&plain, path)?);
    export(&plain, &at("plain.onnx")).map_err(|e| e.to_string())?;
    export(&graph, &at("gated.onnx")).map_err(|e| e.to_string())?;
    let named = graph.inputs().iter().map(|v| name(&graph, *v)).zip(&inputs);
    write_npz(&at("inputs.npz"), named).map_err(|e| e.to_string())?;
    let run = ran(&graph, 2, &inputs)?;
    write_npz(&at("outputs.npz"), run.outputs.iter().map(|(n, t)| (n.as_str(), t))).map_err(|e| e.to_string())?;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("python/check_export.py");
    let files = ["plain.onnx", "gated.onnx", "inputs.npz", "outputs.npz"];
    let judged = Command::new(python).arg(script).args(files).current_dir(temp.path()).output();
    let judged = judged.map_err(|e| e.to_string())?;
    let report = [judged.stdout, judged.stderr].concat();
    if judged.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&report).into_owned()) }
}
