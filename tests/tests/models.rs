//! Real models, through import, simplification, verification, lowering and the CPU runtime, against
//! what ONNX Runtime computes; and the structure that is found in them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use eec::cases::{run_passes, seeded_inputs};
use eec::model::simplified;
use eec::npz::{read_npz, write_npz};
use eec::onnx::{FixedInput, ImportOptions, import, import_with};
use eec_ir::verify::{Stage, verify};
use eec_ir::{Graph, Op, Symbol, Tensor};
use eec_passes::exit_heads::CONFIDENCE;
use eec_passes::ffn_gates::candidates;
use eec_passes::pass::Context;
use eec_passes::structure::analyse;
use eec_runtime::gpu::{GpuOptions, Guard};
use eec_runtime::{Control, Run, Runner};
use eec_tests::backend::{check_alone, cpu, gpu, on_gpu, on_gpu_with, run};
use eec_tests::shared::{python, shared_folder};
use eec_tests::values::{check, row};

/// Absolute and relative; ONNX Runtime sums in another order.
const TOLERANCE: f32 = 1e-4;

/// Models with inputs and expected outputs, and how many blocks they have. CLIP's two towers share no
/// data path, a plain chain of convolutions has no one right number, and Swin's patch merging is one.
const MODELS: &[(&str, Option<usize>)] = &[
    ("cifar-vit/model", Some(10)),
    ("resnet56/model", Some(27)),
    ("resnet56/model_dynamo", Some(27)),
    ("resnet20/model", Some(9)),
    ("resnet20/model_dynamo", Some(9)),
    ("bert-sst2/model", Some(6)),
    ("easy-vqa/model", Some(8)),
    ("shakespeare-llama/model", Some(8)),
    ("llama-stories260k/model", Some(5)),
    ("llama-stories260k/model_dynamo", Some(5)),
    ("llama-stories260k/model_with_past", Some(5)),
    ("llama-stories260k/model_with_past_dynamo", Some(5)),
    ("hf-bert/model", Some(4)),
    ("hf-bert/model_dynamo", Some(4)),
    ("hf-vit/model", Some(4)),
    ("hf-vit/model_dynamo", Some(4)),
    ("hf-gpt2/model", Some(4)),
    ("hf-gpt2/model_dynamo", Some(4)),
    ("hf-whisper_encoder/model", Some(4)),
    ("hf-whisper_encoder/model_dynamo", Some(4)),
    ("hf-albert/model", Some(4)),
    ("hf-albert/model_dynamo", Some(4)),
    ("hf-clip/model", None),
    ("hf-clip/model_dynamo", None),
    ("hf-swin/model", Some(5)),
    ("bert-trec/model", Some(6)),
    ("bert-trec/model_dynamo", Some(6)),
    ("mnist-cntk/model", None),
    ("magika/model", None),
    ("superres/model", None),
];

/// A model, sizes of its dims and values of its inputs.
type Fixed = (&'static str, &'static [(&'static str, i64)], &'static [(&'static str, &'static str)]);

/// Models whose cells run over a dim that must be fixed. In the second, a run's sample rate decides between two
/// halves of the model; in the first, the other half does not fit inputs of this length.
const FIXED: &[Fixed] = &[
    ("silero-vad/model", &[("input.0", 1), ("input.1", 576)], &[("sr", "16000")]),
    ("silero-vad-op18/model", &[("batch", 1), ("sequence", 576)], &[]),
];

/// Models without weights, which a script makes; their blocks, FFNs that can have a gate, and sizes that keep them quick.
/// MobileNetV2's blocks are only partly residual, so their number is a matter of definition.
const BENCH: &[Bench] = &[
    Bench { name: "bert-base", blocks: Some(12), ffns: 12, sizes: &[("batch", 2), ("sequence", 7)] },
    Bench { name: "vit-base", blocks: Some(12), ffns: 12, sizes: &[("batch", 1)] },
    Bench { name: "resnet50", blocks: Some(16), ffns: 0, sizes: &[("batch", 1)] },
    Bench { name: "mobilenetv2", blocks: None, ffns: 0, sizes: &[("batch", 1)] },
    Bench {
        name: "smollm-135m",
        blocks: Some(30),
        ffns: 30,
        sizes: &[("batch", 1), ("seq", 3), ("total", 5), ("past", 2)],
    },
];

/// A model without weights.
struct Bench {
    name: &'static str,
    blocks: Option<usize>,
    ffns: usize,
    sizes: &'static [(&'static str, i64)],
}

struct Model {
    name: String,
    path: PathBuf,
    blocks: Option<usize>,
}

fn models() -> Vec<Model> {
    let Some(folder) = shared_folder() else { return Vec::new() };
    let path = |name: &str| folder.join("models").join(name).with_extension("onnx");
    MODELS.iter().map(|(name, blocks)| Model { name: name.to_string(), path: path(name), blocks: *blocks }).collect()
}

/// Checks every model and reports all failures.
fn for_each(models: &[Model], check: impl Fn(&Model) -> Result<(), String>) {
    let failures: Vec<String> =
        models.iter().filter_map(|m| check(m).err().map(|e| format!("{}: {e}", m.name))).collect();
    assert!(failures.is_empty(), "{} of {} models failed\n{}", failures.len(), models.len(), failures.join("\n"));
}

fn plain(path: &Path) -> Result<Graph, String> {
    let graph = simplified(import(path).map_err(|e| e.to_string())?).map_err(|e| e.to_string())?;
    verify(&graph, Stage::Lowerable).map_err(|e| e.to_string())?;
    Ok(graph)
}

type Arrays = BTreeMap<String, Tensor>;

fn arrays(path: &Path) -> Result<Arrays, String> {
    Ok(read_npz(path).map_err(|e| e.to_string())?.into_iter().collect())
}

/// The arrays that are inputs of the graph, in its order.
fn ordered(graph: &Graph, arrays: &Arrays) -> Result<Vec<Tensor>, String> {
    let name = |v: &eec_ir::ValueId| graph.value(*v).name.as_deref().unwrap_or_default();
    let find = |n: &str| arrays.get(n).cloned().ok_or_else(|| format!("no array for the input `{n}`"));
    graph.inputs().iter().map(|v| find(name(v))).collect()
}

/// Runs the graph and compares all outputs with those expected.
fn compare(session: &mut dyn Runner, graph: &Graph, inputs: &[Tensor], expected: &Arrays) -> Result<(), String> {
    compare_within(session, graph, inputs, expected, TOLERANCE)
}

fn compare_within(
    session: &mut dyn Runner,
    graph: &Graph,
    inputs: &[Tensor],
    expected: &Arrays,
    tolerance: f32,
) -> Result<(), String> {
    let have = run(session, graph, inputs, Control::Auto)?;
    if have.outputs.len() != expected.len() {
        return Err(format!("{} outputs, expected {}", have.outputs.len(), expected.len()));
    }
    let wanted = have.outputs.iter().map(|(n, t)| (n, t, expected.get(n)));
    let bad: Vec<String> = wanted
        .filter_map(|(n, t, want)| match want {
            Some(want) => check(n, t, want, tolerance).err(),
            None => Some(format!("{n}: not expected")),
        })
        .collect();
    if bad.is_empty() { Ok(()) } else { Err(bad.join("; ")) }
}

#[test]
fn models_compute_what_onnx_runtime_computes() {
    for_each(&models(), |model| {
        let graph = plain(&model.path)?;
        let inputs = ordered(&graph, &arrays(&model.path.with_extension("inputs.npz"))?)?;
        let expected = arrays(&model.path.with_extension("expected.npz"))?;
        compare(&mut cpu(&graph, 2)?, &graph, &inputs, &expected)
    });
}

/// Models that exporters of both kinds made are one model to a GPU.
fn on_a_gpu() -> Vec<Model> {
    let found = if gpu().is_some() { models() } else { Vec::new() };
    found.into_iter().filter(|model| !model.name.ends_with("_dynamo")).collect()
}

#[test]
fn models_on_a_gpu_compute_what_onnx_runtime_computes() {
    for_each(&on_a_gpu(), |model| {
        let graph = plain(&model.path)?;
        let inputs = ordered(&graph, &arrays(&model.path.with_extension("inputs.npz"))?)?;
        let expected = arrays(&model.path.with_extension("expected.npz"))?;
        compare(&mut on_gpu(&graph, Guard::Direct)?, &graph, &inputs, &expected)
    });
}

/// Absolute and relative, of the outputs of whole models, for weights of 16 bits, which err by 2⁻¹² of themselves.
const F16_TOLERANCE: f32 = 0.02;

#[test]
fn weights_of_16_bits_keep_models_close_and_both_backends_together() {
    let wanted = ["cifar-vit/model", "bert-sst2/model", "easy-vqa/model", "shakespeare-llama/model"];
    let models: Vec<Model> = on_a_gpu().into_iter().filter(|m| wanted.contains(&m.name.as_str())).collect();
    for_each(&models, |model| {
        let mut graph = plain(&model.path)?;
        run_passes(&mut graph, "store-weights{as=f16}", &mut Context::default()).map_err(|e| e.to_string())?;
        let inputs = ordered(&graph, &arrays(&model.path.with_extension("inputs.npz"))?)?;
        let expected = arrays(&model.path.with_extension("expected.npz"))?;
        let shared = gpu().ok_or("there is no adapter")?;
        let mut session = on_gpu_with(shared, &graph, GpuOptions::of(shared))?;
        compare_within(&mut session, &graph, &inputs, &expected, F16_TOLERANCE)?;
        let on_cpu = run(&mut cpu(&graph, 2)?, &graph, &inputs, Control::Auto)?.outputs.into_iter().collect();
        compare(&mut session, &graph, &inputs, &on_cpu)
    });
}

#[test]
fn models_with_fixed_dims_compute_what_onnx_runtime_computes() {
    let Some(folder) = shared_folder() else { return };
    let outcome = |(name, dims, inputs): &Fixed| -> Result<(), String> {
        let path = folder.join("models").join(name).with_extension("onnx");
        let dims = dims.iter().map(|(dim, size)| ((*dim).to_string(), *size)).collect();
        let inputs = inputs.iter().map(|(input, text)| ((*input).to_string(), FixedInput::Text((*text).to_string())));
        let options = ImportOptions { dims, inputs: inputs.collect(), ..ImportOptions::default() };
        let graph = import_with(&path, &options);
        let graph = simplified(graph.map_err(|e| e.to_string())?).map_err(|e| e.to_string())?;
        let inputs = ordered(&graph, &arrays(&path.with_extension("inputs.npz"))?)?;
        compare(&mut cpu(&graph, 2)?, &graph, &inputs, &arrays(&path.with_extension("expected.npz"))?)
    };
    let failures: Vec<String> = FIXED.iter().filter_map(|m| Some(format!("{}: {}", m.0, outcome(m).err()?))).collect();
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn blocks_are_found_by_form() {
    for_each(&models(), |model| structure(&plain(&model.path)?, model.blocks));
}

/// Checks that sizes are folded and that there are so many blocks.
fn structure(graph: &Graph, expected: Option<usize>) -> Result<(), String> {
    let shapes = graph.nodes_in_order().into_iter().filter(|n| matches!(graph.node(*n).op, Op::Shape { .. })).count();
    if shapes > 0 {
        return Err(format!("{shapes} Shape nodes are left"));
    }
    let Some(expected) = expected else { return Ok(()) };
    let found = analyse(graph).map_err(|e| e.to_string())?.blocks.len();
    if found == expected { Ok(()) } else { Err(format!("{found} blocks, expected {expected}")) }
}

#[test]
fn one_session_takes_any_batch_and_rows_do_not_depend_on_it() {
    let wanted = ["cifar-vit/model", "resnet20/model_dynamo", "bert-sst2/model", "easy-vqa/model"];
    let models: Vec<Model> = models().into_iter().filter(|m| wanted.contains(&m.name.as_str())).collect();
    assert!(
        models.is_empty() || models.len() == wanted.len(),
        "some of {wanted:?} are missing among the shared models"
    );
    for_each(&models, |model| {
        let graph = plain(&model.path)?;
        let given = ordered(&graph, &arrays(&model.path.with_extension("inputs.npz"))?)?;
        let mut session = cpu(&graph, 2)?;
        let five: Vec<Tensor> = given.iter().map(|t| repeated(t, 5)).collect::<Result<_, _>>()?;
        let whole = run(&mut session, &graph, &five, Control::Auto)?;
        for (from, to) in [(0, 1), (1, 3), (3, 4), (0, 5)] {
            let part: Vec<Tensor> = five.iter().map(|t| t.rows(from, to)).collect();
            let have = run(&mut session, &graph, &part, Control::Auto)?;
            for ((name, whole), (_, have)) in whole.outputs.iter().zip(&have.outputs) {
                (from..to)
                    .try_for_each(|r| check(&format!("{name}, row {r}"), &row(have, r - from), &row(whole, r), 0.0))?;
            }
        }
        Ok(())
    });
}

/// `n` different rows made of those of `tensor`: each repetition is shifted by one element.
fn repeated(tensor: &Tensor, n: usize) -> Result<Tensor, String> {
    let (Some(rows), size) = (tensor.dims().first().copied().filter(|r| *r > 0), tensor.dtype().size()) else {
        return Err(format!("{tensor:?} has no rows"));
    };
    let mut bytes = Vec::new();
    for r in 0..n {
        let row = tensor.rows(r % rows, r % rows + 1);
        let shift = (r / rows * size) % row.bytes().len().max(1);
        bytes.extend_from_slice(&row.bytes()[shift..]);
        bytes.extend_from_slice(&row.bytes()[..shift]);
    }
    let dims: Vec<usize> = std::iter::once(n).chain(tensor.dims()[1..].iter().copied()).collect();
    Tensor::from_bytes(tensor.dtype(), &dims, bytes).map_err(|e| e.to_string())
}

/// Models, exits after which blocks, and their heads.
const WITH_EXITS: &[(&str, &str, &str)] = &[
    ("cifar-vit/model", "2, 6", "linear"),
    ("resnet20/model", "3, 5", "mlp:16"),
    ("bert-sst2/model", "1, 3", "final"),
    ("easy-vqa/model", "2, 5", "linear"),
];

#[test]
fn with_exits_samples_fare_alone_as_in_a_batch() {
    let found = models();
    for (name, at, head) in WITH_EXITS {
        let Some(model) = found.iter().find(|m| m.name == *name) else {
            assert!(found.is_empty(), "{name} is missing among the shared models");
            return;
        };
        alone_as_in_a_batch(&model.path, at, head).unwrap_or_else(|e| panic!("{name}: {e}"));
    }
}

fn alone_as_in_a_batch(path: &Path, at: &str, head: &str) -> Result<(), String> {
    const BATCH: usize = 6;
    let plain = plain(path)?;
    let given = ordered(&plain, &arrays(&path.with_extension("inputs.npz"))?)?;
    let inputs: Vec<Tensor> = given.iter().map(|t| repeated(t, BATCH)).collect::<Result<_, _>>()?;
    let with_rule = |rule: &str| {
        let mut graph = plain.clone();
        let passes = format!("exit-heads{{at=[{at}], head={head}, rule={rule}}}, simplify");
        run_passes(&mut graph, &passes, &mut Context::default()).map_err(|e| e.to_string())?;
        Ok::<Graph, String>(graph)
    };
    let dynamic = with_rule("maxprob:-1")?;
    let mut session = cpu(&dynamic, 2)?;
    let never = run(&mut session, &dynamic, &inputs, Control::Never)?;
    let whole = run(&mut cpu(&plain, 1)?, &plain, &inputs, Control::Auto)?;
    for (name, want) in &whole.outputs {
        let have = never.outputs.iter().find(|(n, _)| n == name).ok_or_else(|| format!("the output {name} is gone"))?;
        check(name, &have.1, want, 0.0)?;
    }
    let mut confidence = floats(&run(&mut session, &dynamic, &inputs, Control::Force(0))?, CONFIDENCE);
    confidence.sort_by(f32::total_cmp);
    let dynamic = with_rule(&format!("maxprob:{}", confidence[BATCH / 2]))?;
    let mut session = cpu(&dynamic, 2)?;
    let batch = run(&mut session, &dynamic, &inputs, Control::Auto)?;
    if !(1..BATCH as u64).contains(&batch.counters.exit_rows[0]) {
        return Err(format!("some samples should leave at the first exit, found {:?}", batch.counters.exit_rows));
    }
    check_alone(&mut session, &dynamic, &inputs, &batch)
}

fn floats(run: &Run, name: &str) -> Vec<f32> {
    let found = run.outputs.iter().find(|(n, _)| n == name).and_then(|(_, t)| t.elements::<f32>());
    found.map(|v| v.into_owned()).unwrap_or_default()
}

#[test]
fn large_models_compute_what_onnx_runtime_computes() {
    let (Some(shared), Some(python)) = (shared_folder(), python()) else { return };
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut failures = Vec::new();
    for bench in BENCH {
        let outcome = large(&shared, &python, folder.path(), bench);
        failures.extend(outcome.err().map(|e| format!("{}: {e}", bench.name)));
        // Hundreds of megabytes each.
        let _ = std::fs::remove_dir_all(folder.path().join(bench.name));
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

fn large(shared: &Path, python: &Path, folder: &Path, bench: &Bench) -> Result<(), String> {
    let Bench { name, blocks, ffns, sizes } = bench;
    let call = |args: &[&Path]| {
        let output = Command::new(python).args(args).output().map_err(|e| e.to_string())?;
        let message = String::from_utf8_lossy(&output.stderr).into_owned();
        if output.status.success() { Ok(()) } else { Err(message) }
    };
    call(&[&shared.join("tools/materialize.py"), &shared.join("models/bench"), folder, Path::new(name)])?;
    let path = folder.join(name).join("model.onnx");
    let graph = plain(&path)?;
    structure(&graph, *blocks)?;
    let gates = candidates(&graph, &analyse(&graph).map_err(|e| e.to_string())?);
    if gates.iter().filter(|c| c.verdict.is_ok()).count() != *ffns {
        return Err(format!("expected {ffns} FFNs that can have a gate, found {gates:?}"));
    }
    let sizes = sizes.iter().map(|(s, n)| (Symbol::new(s), *n)).collect();
    let inputs = seeded_inputs(&graph, &sizes).map_err(|e| e.to_string())?;
    let (given, wanted) = (folder.join(name).join("inputs.npz"), folder.join(name).join("expected.npz"));
    let input_name = |v: &eec_ir::ValueId| graph.value(*v).name.as_deref().unwrap_or_default();
    write_npz(&given, graph.inputs().iter().map(input_name).zip(&inputs)).map_err(|e| e.to_string())?;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("python/ort_outputs.py");
    call(&[&script, &path, &given, &wanted])?;
    compare(&mut cpu(&graph, 2)?, &graph, &inputs, &arrays(&wanted)?)
}
