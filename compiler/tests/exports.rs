//! Real models with exits by each rule, exported: ONNX's checker accepts the file, and ONNX Runtime
//! lets every sample leave at the same exit with the same logits as eec.

mod shared;

use std::error::Error;
use std::path::Path;
use std::process::Command;

use eec::npz::{read_npz, write_npz};
use serde_json::Value;

type Result<T = ()> = std::result::Result<T, Box<dyn Error>>;

fn run(command: &mut Command) -> Result<String> {
    let out = command.output()?;
    if out.status.success() {
        return Ok(String::from_utf8(out.stdout)?);
    }
    let (stdout, stderr) = (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    Err(format!("{command:?}: {stdout}{stderr}").into())
}

fn first_rows(from: &Path, rows: usize, labels: bool, to: &Path) -> Result {
    let arrays = read_npz(from)?;
    let part = arrays.iter().filter(|(n, _)| labels || *n != "labels").map(|(n, t)| (n.as_str(), t.rows(0, rows)));
    let part: Vec<_> = part.collect();
    Ok(write_npz(to, part.iter().map(|(n, t)| (*n, t)))?)
}

/// Compiles with exits after `blocks` by a rule that some samples meet and some do not, exports, and
/// compares on 96 samples. Those at a threshold, up to rounding, may differ.
fn check(model: &str, data: &str, [blocks, head, rule]: [&str; 3]) -> Result {
    let (Some(folder), Some(python)) = (shared::shared_folder(), std::env::var_os("EEC_PYTHON")) else {
        println!("skipped: needs EEC_SHARED and EEC_PYTHON");
        return Ok(());
    };
    let temp = tempfile::tempdir()?;
    let at = |name: &str| temp.path().join(name);
    let eec = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_eec"));
        command.current_dir(temp.path());
        command
    };
    let source = folder.join("models").join(model);
    first_rows(&folder.join(format!("data/{data}-calib.npz")), 400, true, &at("calib.npz"))?;
    first_rows(&folder.join(format!("data/{data}-eval.npz")), 96, false, &at("inputs.npz"))?;
    let compile = ["--data", "calib.npz", "--exits", blocks, "--head", head, "--rule", rule, "-o", "m.eec"];
    run(eec().arg("compile").arg(&source).args(compile))?;
    run(eec().args(["export", "m.eec", "-o", "dynamic.onnx"]))?;
    run(eec().args(["export", "m.eec", "--plain", "-o", "plain.onnx"]))?;
    run(eec().args(["run", "m.eec", "--inputs", "inputs.npz", "--save-outputs", "outputs.npz"]))?;
    let left = read_npz(&at("outputs.npz"))?.get("exit_index").and_then(|t| t.to_i64s()).unwrap_or_default();
    assert!(left.iter().any(|k| *k != left[0]), "{model}: all samples left at one place");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/python/check_export.py");
    let files = ["plain.onnx", "dynamic.onnx", "inputs.npz", "outputs.npz"];
    // Patience compares classes, not a confidence.
    let threshold = rule.split_once(':').filter(|(name, _)| *name != "patience").map(|(_, t)| ["--thresholds", t]);
    let threshold = threshold.iter().flatten();
    let report = run(Command::new(python).arg(script).args(files).args(threshold).current_dir(temp.path()))?;
    let report: Value = serde_json::from_str(&report)?;
    assert_eq!(report["ok"], Value::Bool(true), "{model}: {report}");
    assert!(report["near_threshold"].as_array().is_some_and(|near| near.len() < 3), "{model}: {report}");
    println!("{model}: {report}");
    Ok(())
}

#[test]
fn a_vision_transformer_leaves_alike() -> Result {
    check("cifar-vit/model.onnx", "cifar", ["2,5", "linear", "maxprob:0.8"])
}

#[test]
fn a_vision_transformer_with_its_own_classifier_leaves_alike() -> Result {
    check("cifar-vit/model.onnx", "cifar", ["6,8", "final", "entropy:0.8"])
}

#[test]
fn a_residual_network_leaves_alike() -> Result {
    check("resnet56/model_dynamo.onnx", "cifar", ["10,22", "mlp:16", "maxprob:0.8"])
}

#[test]
fn a_masked_text_classifier_leaves_alike() -> Result {
    check("bert-sst2/model.onnx", "sst2", ["0,2", "linear", "margin:0.6"])
}

#[test]
fn a_vision_language_model_leaves_alike() -> Result {
    check("easy-vqa/model.onnx", "easy-vqa", ["1,2,4", "linear", "patience:2"])
}
