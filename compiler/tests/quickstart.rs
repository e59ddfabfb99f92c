//! The quick start of the README, verb by verb, on the model and a part of the data carried in
//! `examples/easy-vqa`.

mod shared;

use std::sync::OnceLock;

use eec::npz::read_npz;
use eec_ir::Tensor;
use serde_json::Value;
use shared::place::{Place, Result, number};

/// A folder with `model.onnx`, a part of the data, and `easy-vqa.eec` compiled from them once.
fn compiled() -> Result<&'static Place> {
    static PLACE: OnceLock<std::result::Result<Place, String>> = OnceLock::new();
    PLACE.get_or_init(|| make().map_err(|e| e.to_string())).as_ref().map_err(|e| e.as_str().into())
}

fn make() -> Result<Place> {
    let place = Place::new()?;
    place.rows("calib.npz", 1000, "calib.npz")?;
    place.rows("eval.npz", 400, "eval.npz")?;
    place.rows("eval.npz", 9, "nine.npz")?;
    let text = place.stdout(&format!("{COMPILE} easy-vqa.eec"))?;
    if !text.contains("wrote easy-vqa.eec (") || text.contains("the plain model)") {
        return Err(format!("expected a report and a model with exits, found: {text}").into());
    }
    Ok(place)
}

/// Without the name of the result.
const COMPILE: &str = "compile model.onnx --data calib.npz --max-drop 2% -o";

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
    let place = compiled()?;
    let run = |extra: &str| place.stdout(&format!("run model.onnx --inputs nine.npz {extra}"));
    run("--save-outputs forms.npz")?;
    let logits = read_npz(&place.at("forms.npz"))?.remove("logits").ok_or("no logits")?;
    std::fs::create_dir_all(place.at("forms"))?;
    std::fs::write(place.at("forms/output_0.pb"), tensor_proto(&logits))?;
    for expected in ["forms.npz", "forms", "forms/output_0.pb"] {
        assert!(run(&format!("--expect {expected}"))?.contains("logits: as expected"), "{expected}");
    }
    let other = Tensor::new(logits.dims(), vec![0f32; logits.len()])?;
    std::fs::write(place.at("forms/output_0.pb"), tensor_proto(&other))?;
    assert!(run("--expect forms").is_err());
    std::fs::remove_file(place.at("forms/output_0.pb"))?;
    assert!(run("--expect forms").is_err_and(|e| e.to_string().contains("output_0.pb")));
    Ok(())
}

/// The bound that the report promises, on the rows that it was verified on.
#[test]
fn the_verified_drop_keeps_the_bound() -> Result {
    let value = compiled()?.json(&format!("{COMPILE} verified.eec"))?;
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

#[test]
fn evaluation_judges_the_compiled_model_and_its_rivals() -> Result {
    let value = compiled()?.json("eval easy-vqa.eec --data eval.npz")?;
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
    let place = compiled()?;
    place.stdout(&format!("{COMPILE} again.eec"))?;
    assert!(std::fs::read(place.at("easy-vqa.eec"))? == std::fs::read(place.at("again.eec"))?);
    place.stdout(&format!("{COMPILE} other.eec --seed 1"))?;
    assert!(std::fs::read(place.at("easy-vqa.eec"))? != std::fs::read(place.at("other.eec"))?);
    Ok(())
}

#[test]
fn without_exits_the_outputs_are_the_models_bit_for_bit() -> Result {
    let place = compiled()?;
    place.stdout("run model.onnx --inputs nine.npz --save-outputs plain.npz")?;
    place.stdout("run easy-vqa.eec --no-exit --inputs nine.npz --save-outputs none.npz")?;
    assert_eq!(read_npz(&place.at("plain.npz"))?, read_npz(&place.at("none.npz"))?);
    Ok(())
}

#[test]
fn a_forced_exit_takes_every_sample_and_skips_the_rest() -> Result {
    let place = compiled()?;
    let run = |extra: &str| place.json(&format!("run easy-vqa.eec --inputs nine.npz {extra}"));
    let forced = run("--force-exit 0 --save-outputs forced.npz")?;
    let plain = run("--no-exit")?;
    let (few, all) = (number(&forced, "/counters/macs")?, number(&plain, "/counters/macs")?);
    assert!(few > 0.0 && few < 0.9 * all, "{few} of {all}");
    assert!(number(&forced, "/counters/kernels")? < number(&plain, "/counters/kernels")?);
    let saved = read_npz(&place.at("forced.npz"))?;
    assert_eq!(saved.keys().collect::<Vec<_>>(), ["confidence", "exit_index", "logits"]);
    assert_eq!(saved["exit_index"].to_i64s(), Some(vec![0; 9]));
    Ok(())
}

#[test]
fn inspect_bench_and_export_read_the_artifact() -> Result {
    let place = compiled()?;
    let inspected = place.json("inspect easy-vqa.eec")?;
    assert!(number(&inspected, "/parameters")? > 1e6 && number(&inspected, "/macs")? > 8e7);
    let blocks = inspected["blocks"].as_array().ok_or("no blocks")?;
    assert_eq!(blocks.len(), 8);
    assert!(blocks.iter().all(|b| b["attention"] == true && b["ffn"] == true));
    assert_eq!(blocks.iter().filter(|b| b["exit_candidate"] == true).count(), 7);
    let bytes: f64 = blocks.iter().filter_map(|b| b["bytes"].as_f64()).sum();
    let parameters = number(&inspected, "/parameters")?;
    assert!(bytes > 0.5 * 4.0 * parameters && bytes < 4.0 * parameters, "{bytes} bytes of {parameters} parameters");
    let bench = place.json("bench easy-vqa.eec --iters 3")?;
    for key in ["/median_ms", "/p90_ms", "/min_ms", "/load_ms", "/threads"] {
        assert!(number(&bench, key)? > 0.0, "{key}");
    }
    assert_eq!(bench["backend"], "cpu");
    assert_eq!(bench["per_exit"].as_array().map(Vec::len), inspected["exits"].as_array().map(Vec::len));
    place.stdout("export easy-vqa.eec --plain -o out.onnx")?;
    place.stdout("run model.onnx --inputs nine.npz --save-outputs expected.npz")?;
    place.stdout("run out.onnx --inputs nine.npz --expect expected.npz")?;
    Ok(())
}
