//! FFN gates, token exits and early exits together, and each refused where it cannot stand, on the
//! model and a part of the data carried in `examples/easy-vqa`.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use eec::npz::{read_npz, write_npz};
use serde_json::Value;

type Result<T = ()> = std::result::Result<T, Box<dyn Error>>;

fn carried(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/easy-vqa").join(name)
}

/// A folder with the model and the first rows of the data.
fn folder() -> Result<tempfile::TempDir> {
    let folder = tempfile::tempdir()?;
    std::fs::copy(carried("model.onnx"), folder.path().join("model.onnx"))?;
    for (name, rows) in [("calib.npz", 320), ("eval.npz", 200)] {
        let arrays = read_npz(&carried(name))?;
        let part: Vec<_> = arrays.iter().map(|(n, t)| (n.as_str(), t.rows(0, rows))).collect();
        write_npz(&folder.path().join(name), part.iter().map(|(n, t)| (*n, t)))?;
    }
    Ok(folder)
}

fn output(args: &str, folder: &Path) -> Result<Output> {
    Ok(Command::new(env!("CARGO_BIN_EXE_eec")).args(args.split(' ')).current_dir(folder).output()?)
}

fn json(args: &str, folder: &Path) -> Result<Value> {
    let out = output(args, folder)?;
    if !out.status.success() {
        return Err(format!("eec {args}: {}", String::from_utf8_lossy(&out.stderr)).into());
    }
    Ok(serde_json::from_slice(&out.stdout)?)
}

fn number(value: &Value, path: &str) -> Result<f64> {
    value.pointer(path).and_then(Value::as_f64).ok_or_else(|| format!("no number {path} in {value}").into())
}

fn names(value: &Value, path: &str) -> Vec<String> {
    let list = value.pointer(path).and_then(Value::as_array);
    list.into_iter().flatten().filter_map(Value::as_str).map(String::from).collect()
}

/// Three stages share the allowed drop; the compiled model runs all that they chose.
#[test]
fn ffns_tokens_and_exits_compose() -> Result {
    let folder = folder()?;
    let folder = folder.path();
    let compiled = json(
        "compile model.onnx --data calib.npz --ffn-skip static:10% --token-exit learned --token-exits-at 0,4 --exits 3,6 \
         --max-drop 12% -o all.eec --json",
        folder,
    )?;
    assert_eq!(compiled.pointer("/reports").and_then(Value::as_array).map(Vec::len), Some(3));
    for stage in [1, 2] {
        let allowed = number(&compiled, &format!("/reports/{stage}/outcome/drop/max_drop"))?;
        assert!((allowed - 0.04).abs() < 1e-9, "stage {stage} is allowed {allowed}");
    }
    let value = json("eval all.eec --data eval.npz --json", folder)?;
    let (plain, dynamic) = (number(&value, "/plain/accuracy")?, number(&value, "/dynamic/accuracy")?);
    assert!(plain > 0.8 && plain - dynamic <= 0.12, "{plain} to {dynamic}");
    let ratio = number(&value, "/dynamic/macs_ratio")?;
    assert!(ratio > 0.1 && ratio < 0.7, "{ratio}");
    let histogram = value.pointer("/dynamic/token_exit_histogram").and_then(Value::as_array).ok_or("no histogram")?;
    let left: Vec<u64> = histogram.iter().filter_map(Value::as_u64).collect();
    assert_eq!(left.iter().sum::<u64>(), 200);
    let mean = number(&value, "/dynamic/mean_token_exit")?;
    assert!((0.0..7.0).contains(&mean) && left[..left.len() - 1].iter().any(|n| *n > 0), "{mean} of {left:?}");
    let run = json("run all.eec --inputs eval.npz --json", folder)?;
    let outputs: Vec<&str> = run
        .pointer("/outputs")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(|o| o["name"].as_str())
        .collect();
    assert_eq!(outputs, ["logits", "exit_index", "confidence", "token_exit"]);
    Ok(())
}

/// What is asked without data is an edit: nothing is decided, and the work falls at once.
#[test]
fn a_fixed_token_exit_needs_no_data() -> Result {
    let folder = folder()?;
    let folder = folder.path();
    json("compile model.onnx --token-exit fixed:3 --exits none -o fixed.eec --json", folder)?;
    let value = json("eval fixed.eec --data eval.npz --json", folder)?;
    let ratio = number(&value, "/dynamic/macs_ratio")?;
    assert!(ratio > 0.4 && ratio < 0.8, "{ratio}");
    assert!(names(&value, "/exits").is_empty());
    assert_eq!(number(&value, "/dynamic/mean_token_exit")?, 3.0);
    assert!(value.pointer("/verdict").is_some_and(Value::is_null), "nothing decides");
    // It is the one choice that there is, so its own rival.
    assert_eq!(value.pointer("/rivals/fixed_tokens/macs_ratio"), value.pointer("/dynamic/macs_ratio"));
    Ok(())
}

#[test]
fn what_cannot_be_done_is_refused_with_the_reason() -> Result {
    let folder = folder()?;
    for (args, code, reason) in [
        ("compile model.onnx --token-exit learned -o a.eec", 1, "--data"),
        ("compile model.onnx --ffn-skip static -o a.eec", 1, "--data"),
        ("compile model.onnx --token-exit fixed:99 --exits none -o a.eec", 1, "99"),
        ("compile model.onnx --data calib.npz --visual-tokens 0:9999 --token-exit learned -o a.eec", 1, "9999"),
        ("compile model.onnx --data calib.npz --ffn-skip sometimes -o a.eec", 2, "sometimes"),
        ("compile model.onnx --data calib.npz --ffn-skip static --ffn-skip-at 99 -o a.eec", 1, "99"),
    ] {
        let out = output(args, folder.path())?;
        let error = String::from_utf8_lossy(&out.stderr).into_owned();
        assert_eq!(out.status.code(), Some(code), "{args}: {error}");
        assert!(error.contains(reason), "{args}: {error}");
    }
    Ok(())
}
