//! The quick start of the README, verb by verb, on the model and a part of the data carried in
//! `examples/easy-vqa`.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use eec::npz::{read_npz, write_npz};
use eec_ir::Tensor;
use serde_json::Value;

type Result<T = ()> = std::result::Result<T, Box<dyn Error>>;

fn carried(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/easy-vqa").join(name)
}

/// The first rows of a data file, as a file.
fn first_rows(name: &str, rows: usize, to: &Path) -> Result {
    let arrays = read_npz(&carried(name))?;
    let part: Vec<_> = arrays.iter().map(|(n, t)| (n.as_str(), t.rows(0, rows))).collect();
    Ok(write_npz(to, part.iter().map(|(n, t)| (*n, t)))?)
}

/// Runs the command; its standard output if it succeeds.
fn eec(args: &[&str], folder: &Path) -> Result<String> {
    let out = Command::new(env!("CARGO_BIN_EXE_eec")).args(args).current_dir(folder).output()?;
    if !out.status.success() {
        return Err(format!("eec {args:?}: {}", String::from_utf8_lossy(&out.stderr)).into());
    }
    Ok(String::from_utf8(out.stdout)?)
}

/// A folder with `model.onnx`, a part of the data, and `easy-vqa.eec` compiled from them once.
fn compiled() -> Result<&'static Path> {
    static FOLDER: OnceLock<std::result::Result<tempfile::TempDir, String>> = OnceLock::new();
    let made = FOLDER.get_or_init(|| make().map_err(|e| e.to_string()));
    made.as_ref().map(|f| f.path()).map_err(|e| e.as_str().into())
}

fn make() -> Result<tempfile::TempDir> {
    let folder = tempfile::tempdir()?;
    let at = |name: &str| folder.path().join(name);
    std::fs::copy(carried("model.onnx"), at("model.onnx"))?;
    first_rows("calib.npz", 1000, &at("calib.npz"))?;
    first_rows("eval.npz", 400, &at("eval.npz"))?;
    first_rows("eval.npz", 9, &at("nine.npz"))?;
    let text = eec(&COMPILE, folder.path())?;
    if !text.contains("wrote easy-vqa.eec (") || text.contains("the plain model)") {
        return Err(format!("expected a report and a model with exits, found: {text}").into());
    }
    Ok(folder)
}

const COMPILE: [&str; 8] = ["compile", "model.onnx", "--data", "calib.npz", "--max-drop", "2%", "-o", "easy-vqa.eec"];

/// An f32 tensor in ONNX's form: dims (field 1), element type (2), raw data (9).
fn tensor_proto(tensor: &Tensor) -> Vec<u8> {
    let varint = |mut n: usize| {
        let mut bytes = Vec::new();
        while n >= 128 {
            bytes.push(n as u8 | 128);
            n >>= 7;
        }
        bytes.push(n as u8);
        bytes
    };
    let dims = tensor.dims().iter().flat_map(|d| [vec![1 << 3], varint(*d)].concat());
    let mut out: Vec<u8> = dims.collect();
    out.extend([2 << 3, 1, 9 << 3 | 2]);
    out.extend(varint(tensor.bytes().len()));
    out.extend(tensor.bytes());
    out
}

#[test]
fn outputs_are_expected_in_the_forms_of_inputs() -> Result {
    let folder = compiled()?;
    let run = |extra: &[&str]| eec(&[&["run", "model.onnx", "--inputs", "nine.npz"], extra].concat(), folder);
    run(&["--save-outputs", "forms.npz"])?;
    let logits = read_npz(&folder.join("forms.npz"))?.remove("logits").ok_or("no logits")?;
    std::fs::create_dir_all(folder.join("forms"))?;
    std::fs::write(folder.join("forms/output_0.pb"), tensor_proto(&logits))?;
    for expected in ["forms.npz", "forms", "forms/output_0.pb"] {
        assert!(run(&["--expect", expected])?.contains("logits: as expected"), "{expected}");
    }
    let other = Tensor::new(logits.dims(), vec![0f32; logits.len()])?;
    std::fs::write(folder.join("forms/output_0.pb"), tensor_proto(&other))?;
    assert!(run(&["--expect", "forms"]).is_err());
    std::fs::remove_file(folder.join("forms/output_0.pb"))?;
    assert!(run(&["--expect", "forms"]).is_err_and(|e| e.to_string().contains("output_0.pb")));
    Ok(())
}

/// The bound that the report promises, on the rows that it was verified on.
#[test]
fn the_verified_drop_keeps_the_bound() -> Result {
    let text = eec(&[&COMPILE[..7], &["verified.eec", "--json"]].concat(), compiled()?)?;
    let value: Value = serde_json::from_str(&text)?;
    let (estimate, bound) =
        (number(&value, "/reports/0/outcome/drop/estimate")?, number(&value, "/reports/0/outcome/drop/bound")?);
    let allowed = number(&value, "/reports/0/outcome/drop/max_drop")?;
    assert!((allowed - 0.02).abs() < 1e-9 && estimate <= bound && bound <= allowed, "{estimate}, {bound} of {allowed}");
    assert_eq!(value.pointer("/reports/0/outcome/drop/passed"), Some(&Value::Bool(true)));
    let rows = number(&value, "/reports/0/data/verify_rows")?;
    assert_eq!((rows, number(&value, "/reports/0/outcome/drop/counts/rows")?), (500.0, 500.0));
    let [plain, dynamic] = ["plain", "dynamic"].map(|m| number(&value, &format!("/reports/0/outcome/{m}/accuracy")));
    assert!((plain? - dynamic? - estimate).abs() < 1e-9);
    Ok(())
}

fn number(value: &Value, path: &str) -> Result<f64> {
    value.pointer(path).and_then(Value::as_f64).ok_or_else(|| format!("no number {path} in {value}").into())
}

#[test]
fn evaluation_judges_the_compiled_model_and_its_rivals() -> Result {
    let text = eec(&["eval", "easy-vqa.eec", "--data", "eval.npz", "--json"], compiled()?)?;
    let value: Value = serde_json::from_str(&text)?;
    let (plain, dynamic) = (number(&value, "/plain/accuracy")?, number(&value, "/dynamic/accuracy")?);
    assert!(plain > 0.8 && plain - dynamic <= 0.03, "{plain} to {dynamic}");
    let ratio = number(&value, "/dynamic/macs_ratio")?;
    assert!(ratio > 0.2 && ratio < 0.95, "{ratio}");
    assert!(number(&value, "/dynamic/time_ratio")? > 0.0);
    for rival in ["/rivals/fixed_depth/accuracy", "/rivals/random/accuracy"] {
        let accuracy = number(&value, rival)?;
        assert!(accuracy > 0.3 && accuracy < 1.0, "{rival}: {accuracy}");
    }
    let (fixed, random) = (number(&value, "/rivals/fixed_depth/accuracy")?, number(&value, "/rivals/random/accuracy")?);
    assert!(fixed >= random, "{random} is a mixture of depths as well, {fixed} the best one");
    let parts = value.pointer("/rivals/fixed_depth/parts").and_then(Value::as_array).ok_or("no parts")?;
    let sum = |of: &dyn Fn(&Value) -> Result<f64>| parts.iter().map(of).sum::<Result<f64>>();
    assert!((sum(&|p| number(p, "/share"))? - 1.0).abs() < 1e-9);
    let work = sum(&|p| Ok(number(p, "/share")? * number(p, "/macs_ratio")?))?;
    assert!(work <= ratio + 1e-9 && (parts.len() == 1 || (work - ratio).abs() < 1e-9), "{work}, {ratio}");
    let pays = value.pointer("/verdict/verdict").and_then(Value::as_str) == Some("pays");
    assert_eq!(pays, dynamic > fixed, "{dynamic}, {fixed}");
    let histogram = value.pointer("/dynamic/exit_histogram").and_then(Value::as_array).ok_or("no histogram")?;
    let left: Vec<u64> = histogram.iter().filter_map(Value::as_u64).collect();
    assert_eq!(left.iter().sum::<u64>(), 400);
    assert!(left.len() > 1 && left[..left.len() - 1].iter().sum::<u64>() > 40, "{left:?}");
    let mean = number(&value, "/dynamic/mean_exit")?;
    let names = value.pointer("/dynamic/exits").and_then(Value::as_array).ok_or("no exits")?;
    let block = |name: &Value| name.as_str().and_then(|n| n.strip_prefix("block ")?.parse::<f64>().ok());
    let blocks = names.iter().filter_map(block).chain([number(&value, "/blocks")? - 1.0]);
    let expected = blocks.zip(&left).map(|(block, n)| block * *n as f64 / 400.0).sum::<f64>();
    assert!((mean - expected).abs() < 1e-9, "{mean}, {expected}");
    Ok(())
}

#[test]
fn the_same_seed_gives_the_same_bytes() -> Result {
    let folder = compiled()?;
    let mut again = COMPILE;
    again[7] = "again.eec";
    eec(&again, folder)?;
    assert!(std::fs::read(folder.join("easy-vqa.eec"))? == std::fs::read(folder.join("again.eec"))?);
    again[7] = "other.eec";
    eec(&[&again[..], &["--seed", "1"]].concat(), folder)?;
    assert!(std::fs::read(folder.join("easy-vqa.eec"))? != std::fs::read(folder.join("other.eec"))?);
    Ok(())
}

#[test]
fn without_exits_the_outputs_are_the_models_bit_for_bit() -> Result {
    let folder = compiled()?;
    eec(&["run", "model.onnx", "--inputs", "nine.npz", "--save-outputs", "plain.npz"], folder)?;
    eec(&["run", "easy-vqa.eec", "--no-exit", "--inputs", "nine.npz", "--save-outputs", "none.npz"], folder)?;
    assert_eq!(read_npz(&folder.join("plain.npz"))?, read_npz(&folder.join("none.npz"))?);
    Ok(())
}

#[test]
fn a_forced_exit_takes_every_sample_and_skips_the_rest() -> Result {
    let folder = compiled()?;
    let run = |extra: &[&str]| -> Result<Value> {
        let base = ["run", "easy-vqa.eec", "--inputs", "nine.npz", "--json"];
        Ok(serde_json::from_str(&eec(&[&base[..], extra].concat(), folder)?)?)
    };
    let forced = run(&["--force-exit", "0", "--save-outputs", "forced.npz"])?;
    let plain = run(&["--no-exit"])?;
    let (few, all) = (number(&forced, "/counters/macs")?, number(&plain, "/counters/macs")?);
    assert!(few > 0.0 && few < 0.9 * all, "{few} of {all}");
    assert!(number(&forced, "/counters/kernels")? < number(&plain, "/counters/kernels")?);
    let saved = read_npz(&folder.join("forced.npz"))?;
    assert_eq!(saved.keys().collect::<Vec<_>>(), ["confidence", "exit_index", "logits"]);
    assert_eq!(saved["exit_index"].to_i64s(), Some(vec![0; 9]));
    Ok(())
}

#[test]
fn inspect_bench_and_export_read_the_artifact() -> Result {
    let folder = compiled()?;
    let inspected: Value = serde_json::from_str(&eec(&["inspect", "easy-vqa.eec", "--json"], folder)?)?;
    assert!(number(&inspected, "/parameters")? > 1e6 && number(&inspected, "/macs")? > 8e7);
    let blocks = inspected["blocks"].as_array().ok_or("no blocks")?;
    assert_eq!(blocks.len(), 8);
    assert!(blocks.iter().all(|b| b["attention"] == true && b["ffn"] == true));
    assert_eq!(blocks.iter().filter(|b| b["exit_candidate"] == true).count(), 7);
    let bytes: f64 = blocks.iter().filter_map(|b| b["bytes"].as_f64()).sum();
    let parameters = number(&inspected, "/parameters")?;
    assert!(bytes > 0.5 * 4.0 * parameters && bytes < 4.0 * parameters, "{bytes} bytes of {parameters} parameters");
    let bench: Value = serde_json::from_str(&eec(&["bench", "easy-vqa.eec", "--iters", "3", "--json"], folder)?)?;
    for key in ["/median_ms", "/p90_ms", "/min_ms", "/load_ms", "/threads"] {
        assert!(number(&bench, key)? > 0.0, "{key}");
    }
    assert_eq!(bench["backend"], "cpu");
    assert_eq!(bench["per_exit"].as_array().map(Vec::len), inspected["exits"].as_array().map(Vec::len));
    eec(&["export", "easy-vqa.eec", "--plain", "-o", "out.onnx"], folder)?;
    eec(&["run", "model.onnx", "--inputs", "nine.npz", "--save-outputs", "expected.npz"], folder)?;
    eec(&["run", "out.onnx", "--inputs", "nine.npz", "--expect", "expected.npz"], folder)?;
    Ok(())
}
