//! Import and export of real models: values against ONNX Runtime's, and files read back.

mod shared;

use std::path::{Path, PathBuf};

use eec::npz::{Arrays, read_npz};
use eec::onnx::{ImportErrorKind, export_bytes, import, import_bytes};
use eec_ir::{Graph, Tensor};

use shared::{compare, shared_folder};

/// Folder and stem of every model whose values are checked.
const MODELS: &[(&str, &str)] = &[
    ("cifar-vit", "model"),
    ("resnet56", "model"),
    ("resnet56", "model_dynamo"),
    ("resnet20", "model"),
    ("resnet20", "model_dynamo"),
    ("bert-sst2", "model"),
    ("bert-trec", "model"),
    ("bert-trec", "model_dynamo"),
    ("easy-vqa", "model"),
    ("shakespeare-llama", "model"),
    ("llama-stories260k", "model"),
    ("llama-stories260k", "model_dynamo"),
    ("llama-stories260k", "model_with_past"),
    ("llama-stories260k", "model_with_past_dynamo"),
    ("mnist-cntk", "model"),
    ("magika", "model"),
    ("hf-albert", "model"),
    ("hf-albert", "model_dynamo"),
    ("hf-bert", "model"),
    ("hf-bert", "model_dynamo"),
    ("hf-clip", "model"),
    ("hf-clip", "model_dynamo"),
    ("hf-gpt2", "model"),
    ("hf-gpt2", "model_dynamo"),
    ("hf-swin", "model"),
    ("hf-vit", "model"),
    ("hf-vit", "model_dynamo"),
    ("hf-whisper_encoder", "model"),
    ("hf-whisper_encoder", "model_dynamo"),
];

struct Model {
    name: String,
    path: PathBuf,
}

/// The models, or those whose name contains `EEC_MODEL`; none on a machine without them.
fn models() -> Vec<Model> {
    let Some(folder) = shared_folder() else {
        return Vec::new();
    };
    let wanted = std::env::var("EEC_MODEL").unwrap_or_default();
    let model = |(dir, stem): &(&str, &str)| Model {
        name: format!("{dir}/{stem}"),
        path: folder.join("models").join(dir).join(format!("{stem}.onnx")),
    };
    MODELS.iter().map(model).filter(|m| m.name.contains(&wanted)).collect()
}

fn evaluate(graph: &Graph, model: &Path) -> Result<Vec<Tensor>, String> {
    let given = read_npz(&model.with_extension("inputs.npz")).map_err(|e| e.to_string())?;
    let mut inputs = Vec::new();
    for value in graph.inputs() {
        let name = graph.value(*value).name.as_deref().unwrap_or_default();
        inputs.push(given.get(name).ok_or_else(|| format!("no input `{name}`"))?.clone());
    }
    eec_ir::eval::evaluate(graph, &inputs).map_err(|e| e.to_string())
}

/// The outputs that ONNX Runtime computes otherwise.
fn differences(graph: &Graph, outputs: &[Tensor], expected: &Arrays) -> Vec<String> {
    let named = graph.output_names().iter().zip(outputs);
    named
        .filter_map(|(name, have)| match expected.get(&**name) {
            Some(want) => compare(name, have, want).err(),
            None => Some(format!("{name} is not expected")),
        })
        .collect()
}

/// Runs `check` on every model and fails with all that it says.
fn for_all_models(check: impl Fn(&Model) -> Result<Vec<String>, String>) {
    let mut failures = Vec::new();
    for model in models() {
        let found = check(&model).unwrap_or_else(|e| vec![e]);
        failures.extend(found.into_iter().map(|f| format!("{}: {f}", model.name)));
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn models_give_the_values_of_onnx_runtime() {
    for_all_models(|model| {
        let graph = import(&model.path).map_err(|e| e.to_string())?;
        let expected = read_npz(&model.path.with_extension("expected.npz")).map_err(|e| e.to_string())?;
        if expected.len() != graph.outputs().len() {
            return Err(format!("{} outputs, expected {}", graph.outputs().len(), expected.len()));
        }
        Ok(differences(&graph, &evaluate(&graph, &model.path)?, &expected))
    });
}

#[test]
fn exports_read_back_give_the_same_values() {
    for_all_models(|model| {
        let graph = import(&model.path).map_err(|e| e.to_string())?;
        let bytes = export_bytes(&graph).map_err(|e| e.to_string())?;
        if bytes != export_bytes(&graph).map_err(|e| e.to_string())? {
            return Err("two exports differ".into());
        }
        let again = import_bytes(&bytes, "export", None).map_err(|e| e.to_string())?;
        same_interface(&graph, &again)?;
        let same = evaluate(&graph, &model.path)? == evaluate(&again, &model.path)?;
        Ok(if same { vec![] } else { vec!["the values differ".into()] })
    });
}

fn same_interface(a: &Graph, b: &Graph) -> Result<(), String> {
    let describe = |g: &Graph| -> Vec<String> {
        let inputs = g.inputs().iter().map(|v| format!("{:?}: {}", g.value(*v).name, g.ty(*v)));
        let outputs = g.outputs().iter().zip(g.output_names()).map(|(v, n)| format!("{n}: {}", g.ty(*v)));
        inputs.chain(outputs).collect()
    };
    let (before, after) = (describe(a), describe(b));
    if before == after { Ok(()) } else { Err(format!("{before:?} became {after:?}")) }
}

#[test]
fn a_model_whose_weights_are_missing_names_their_file() {
    let Some(folder) = shared_folder() else {
        return;
    };
    for name in ["bert-base", "mobilenetv2", "resnet50", "smollm-135m", "vit-base"] {
        let error = import(&folder.join(format!("models/bench/{name}.onnx"))).err().map(|e| e.to_string());
        let error = error.unwrap_or_default();
        assert!(error.contains("its data file") && error.contains("cannot be read"), "{name}: {error}");
    }
}

#[test]
fn unsupported_operators_are_listed_with_domain_and_count() {
    let Some(folder) = shared_folder() else {
        return;
    };
    let Some(error) = import(&folder.join("models/superres-unsupported/model.onnx")).err() else {
        panic!("the model was imported");
    };
    let ImportErrorKind::Unsupported(list) = error.kind() else {
        panic!("{error}");
    };
    let count =
        |domain: &str, name: &str| list.ops.iter().find(|o| o.domain == domain && o.name == name).map(|o| o.count);
    assert_eq!(count("com.microsoft.extensions", "DecodeImage"), Some(1));
    assert_eq!(count("com.microsoft.extensions", "EncodeImage"), Some(1));
    assert_eq!(count("", "Resize"), None);
    assert_eq!(list.types, []);
    assert!(error.to_string().contains("com.microsoft.extensions.DecodeImage (×1)"), "{error}");
}
