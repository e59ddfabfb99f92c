//! Token exits by the certainty of an answer; FFN gates, token exits and early exits together; each
//! refused where it cannot stand. On the model and a part of the data carried in `examples/easy-vqa`.

mod shared;

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use eec::npz::{Arrays, read_npz, write_npz};
use eec_ir::Tensor;
use eec_runtime::{Control, Options, Session};
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

fn array<'a>(arrays: &'a Arrays, name: &str) -> Result<&'a Tensor> {
    Ok(arrays.get(name).ok_or_else(|| format!("no array {name}"))?)
}

/// What `file` gives for the data.
fn logits(file: &str, control: Control, folder: &Path) -> Result<Tensor> {
    let data = read_npz(&folder.join("eval.npz"))?;
    let inputs = ["pixel_values", "input_ids"].map(|name| Ok((name, array(&data, name)?.clone())));
    let inputs = inputs.into_iter().collect::<Result<Vec<_>>>()?;
    let run = Session::load(&folder.join(file), Options::default())?.run(&inputs, control)?;
    Ok(run.outputs.into_iter().next().ok_or("no output")?.1)
}

/// An answer head that is sure lets the tokens go: some samples' early, others' late.
#[test]
fn tokens_leave_by_the_entropy_of_an_answer() -> Result {
    let folder = folder()?;
    let folder = folder.path();
    let compile = "--data calib.npz --token-exit entropy --token-exits-at 0,4 --exits none --max-drop 12% -o made.eec";
    let compiled = json(&format!("compile model.onnx {compile} --json"), folder)?;
    assert_eq!(names(&compiled, "/gates"), ["tokens after block 0", "tokens after block 4"]);

    json("run made.eec --inputs eval.npz --save-outputs made.npz --json", folder)?;
    let made = read_npz(&folder.join("made.npz"))?;
    let taken = array(&made, "token_exit")?.to_i64s().ok_or("not integers")?;
    let never = logits("made.eec", Control::Never, folder)?;
    json("run made.eec --no-exit --inputs eval.npz --save-outputs plain.npz --json", folder)?;
    assert_eq!(never, *array(&read_npz(&folder.join("plain.npz"))?, "logits")?);
    let mut sides = Vec::new();
    for block in [0, 4] {
        json(&format!("compile model.onnx --token-exit fixed:{block} --exits none -o fixed.eec --json"), folder)?;
        sides.push(logits("fixed.eec", Control::Auto, folder)?);
    }
    assert_eq!(logits("made.eec", Control::Gates, folder)?, sides[0]);
    sides.push(never);
    for (row, k) in taken.iter().enumerate() {
        let [have, want] = [array(&made, "logits")?, &sides[*k as usize]].map(|t| t.rows(row, row + 1));
        assert_eq!(have, want, "row {row}");
    }

    better_than_chance(&taken, array(&made, "logits")?, &sides, folder)?;
    counted_alike(&taken, folder)?;
    exported_alike(&made, folder)
}

/// What cosine gates know of every token goes past a token exit with the tokens that are left.
#[test]
fn tokens_leave_between_cosine_gates() -> Result {
    let folder = folder()?;
    let folder = folder.path();
    let compile = "--data calib.npz --ffn-skip cosine:25% --token-exit learned --token-exits-at 0,4 --exits none \
                   --max-drop 20% -o made.eec";
    let compiled = json(&format!("compile model.onnx {compile} --json"), folder)?;
    let gates = names(&compiled, "/gates");
    let is_token = |g: &&String| g.starts_with("tokens after");
    assert!(gates.iter().any(|g| is_token(&g)) && !gates.iter().all(|g| is_token(&g)), "{gates:?}");
    json("run made.eec --no-exit --inputs eval.npz --save-outputs never.npz --json", folder)?;
    json("run model.onnx --inputs eval.npz --save-outputs plain.npz --json", folder)?;
    let [never, plain] = ["never.npz", "plain.npz"].map(|f| read_npz(&folder.join(f)));
    assert_eq!(array(&never?, "logits")?, array(&plain?, "logits")?);
    json("run made.eec --inputs eval.npz --save-outputs made.npz --json", folder)?;
    let made = read_npz(&folder.join("made.npz"))?;
    let taken = array(&made, "token_exit")?.to_i64s().ok_or("not integers")?;
    assert!(taken.iter().any(|k| *k != taken[0]), "no mixture: {taken:?}");
    let Some(theirs) = exported(folder)? else { return Ok(()) };
    shared::compare("token_exit", array(&theirs, "token_exit")?, array(&made, "token_exit")?)?;
    let [theirs, ours] = [array(&theirs, "logits")?, array(&made, "logits")?];
    let alike = |row: &usize| {
        let [theirs, ours] = [theirs, ours].map(|t| t.rows(*row, row + 1));
        shared::compare("logits", &theirs, &ours).is_ok()
    };
    // The cosine of a token may lie as near to the threshold as rounding goes.
    let alike = (0..taken.len()).filter(alike).count();
    assert!(alike + 2 >= taken.len(), "{alike} rows of {} are alike", taken.len());
    Ok(())
}

/// One FFN alone has none before it that says whether it is skipped.
#[test]
fn cosine_gates_at_too_few_ffns_are_left_out_with_the_reason() -> Result {
    let folder = folder()?;
    let compile = "compile model.onnx --data calib.npz --ffn-skip cosine --ffn-skip-at 0 --exits none -o a.eec --json";
    let compiled = json(compile, folder.path())?;
    assert!(names(&compiled, "/gates").is_empty());
    let reasons = names(&compiled, "/reports/0/reasons");
    assert!(reasons.iter().any(|r| r.contains("the cosine rule needs at least 3 FFNs")), "{reasons:?}");
    Ok(())
}

/// More samples are right than if as many, chosen by chance, had gone each way.
fn better_than_chance(taken: &[i64], logits: &Tensor, sides: &[Tensor], folder: &Path) -> Result {
    let [chosen, early, late] = [logits, &sides[0], &sides[1]].map(|logits| accuracy(logits, folder));
    let share = taken.iter().filter(|k| **k == 0).count() as f64 / taken.len() as f64;
    let (chosen, chance) = (chosen?, share * early? + (1.0 - share) * late?);
    assert!((0.1..0.95).contains(&share) && chosen > chance + 0.02, "{chosen}, {chance} by chance, {share} early");
    Ok(())
}

/// The share of the data's rows that get the class of their label.
fn accuracy(logits: &Tensor, folder: &Path) -> Result<f64> {
    let data = read_npz(&folder.join("eval.npz"))?;
    let labels = array(&data, "labels")?.to_i64s().ok_or("not integers")?;
    let scores = logits.elements::<f32>().ok_or("not floats")?;
    let classes = scores.len() / labels.len();
    let best = |row: &[f32]| (0..classes).max_by(|a, b| row[*a].total_cmp(&row[*b]));
    let right = scores.chunks(classes).zip(&labels).filter(|(row, l)| best(row) == usize::try_from(**l).ok());
    Ok(right.count() as f64 / labels.len() as f64)
}

/// `eec eval` counts the same decisions, on a part of the rows.
fn counted_alike(taken: &[i64], folder: &Path) -> Result {
    const FEW: usize = 36;
    let arrays = read_npz(&folder.join("eval.npz"))?;
    let part: Vec<_> = arrays.iter().map(|(n, t)| (n.as_str(), t.rows(0, FEW))).collect();
    write_npz(&folder.join("few.npz"), part.iter().map(|(n, t)| (*n, t)))?;
    let value = json("eval made.eec --data few.npz --json", folder)?;
    for gate in [0, 1] {
        let rows = taken[..FEW].iter().filter(|k| **k == gate).count() as f64;
        assert_eq!(number(&value, &format!("/dynamic/gates/{gate}/rows"))?, rows);
    }
    Ok(())
}

/// What ONNX Runtime gives for `made.eec`, exported; `None` without it.
fn exported(folder: &Path) -> Result<Option<Arrays>> {
    assert!(output("export made.eec -o made.onnx", folder)?.status.success());
    let at = |name: &str| folder.join(name);
    Ok(shared::onnx_runtime(&at("made.onnx"), &at("eval.npz"), &at("theirs.npz"))?)
}

/// Exported, `made.eec` gives in ONNX Runtime what it gave here.
fn exported_alike(made: &Arrays, folder: &Path) -> Result {
    let Some(theirs) = exported(folder)? else { return Ok(()) };
    made.iter().try_for_each(|(name, tensor)| Ok(shared::compare(name, array(&theirs, name)?, tensor)?))
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

/// With data a fixed token exit is judged by what is allowed, built either way, and the report says which.
#[test]
fn a_fixed_token_exit_is_measured_on_data() -> Result {
    let folder = folder()?;
    let folder = folder.path();
    for (drop, pays) in [("90%", "pays"), ("0%", "does-not-pay")] {
        let args = "compile model.onnx --data calib.npz --token-exit fixed:0 --exits none -o fixed.eec";
        let made = json(&format!("{args} --max-drop {drop} --json"), folder)?;
        let verdict = made.pointer("/reports/0/outcome/verdict").ok_or("no verdict")?;
        assert!(verdict.to_string().contains(pays), "{drop}: {verdict}");
        let outcome = |path: &str| number(&made, &format!("/reports/0/outcome/{path}"));
        assert!(outcome("dynamic/accuracy")? < outcome("plain/accuracy")?, "{drop}");
        assert!(outcome("dynamic/macs_ratio")? < 0.9 && outcome("drop/bound")? > 0.0, "{drop}");
        assert_eq!(made.pointer("/reports/0/outcome/rivals"), Some(&Value::Null));
        let value = json("eval fixed.eec --data calib.npz --json", folder)?;
        assert_eq!(number(&value, "/dynamic/mean_token_exit")?, 0.0, "{drop}");
    }
    Ok(())
}

fn says(args: &str, folder: &Path, parts: &[&str]) -> Result {
    let text = String::from_utf8(output(args, folder)?.stdout)?;
    let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
    parts.iter().for_each(|part| assert!(words.contains(part), "`{part}` is not in: {text}"));
    Ok(())
}

/// What is the same for all inputs is named beside what decides, and chance is no rival at equal work.
#[test]
fn edits_are_named_and_not_mixed_with_chance() -> Result {
    let folder = folder()?;
    let folder = folder.path();
    let exits = "--exits 5 --head final --rule maxprob:0.9 -o made.eec";
    json(&format!("compile model.onnx {exits} --json"), folder)?;
    let random = "/rivals/random";
    let alone = json("eval made.eec --data eval.npz --limit 40 --json", folder)?;
    assert!(alone.pointer(random).is_some() && alone.pointer("/rivals/fixed_depth").is_some());

    let named = ["visual tokens leave after block 3", "one exit, after block 5"];
    says(&format!("compile model.onnx --token-exit fixed:3 {exits}"), folder, &[&named.join("; ")])?;
    let both = json("eval made.eec --data eval.npz --limit 40 --json", folder)?;
    assert!(both.pointer(random).is_none() && both.pointer("/rivals/fixed_depth").is_some());
    says("inspect made.eec", folder, &named)?;
    assert_eq!(number(&json("inspect made.eec --json", folder)?, "/edits/fixed_token_exit")?, 3.0);
    says("compile model.onnx --token-exit fixed:3 --exits none -o made.eec", folder, &named[..1])?;
    let text = String::from_utf8(output("inspect made.eec", folder)?.stdout)?;
    assert!(text.contains(named[0]) && !text.contains("exits after"), "{text}");
    Ok(())
}

/// Stages after the first start from the model so far; a summary compares what came out with the plain one.
#[test]
fn several_stages_end_in_a_summary() -> Result {
    let folder = folder()?;
    let folder = folder.path();
    let line = "compile model.onnx --data calib.npz --token-exit fixed:3 --exits 5 --head final --rule maxprob:0.9 \
                -o made.eec";
    says(line, folder, &["model so far", "All together, on the 160 rows to verify", "compiled model"])?;
    assert!(std::fs::read_to_string(folder.join("made.html"))?.contains("<h2>All together</h2>"));
    let made = json(&format!("{line} --json"), folder)?;
    let at = |path: &str| number(&made, path);
    assert_eq!(at("/summary/plain")?, at("/reports/0/outcome/plain/accuracy")?);
    assert_eq!(at("/summary/compiled")?, at("/reports/1/outcome/dynamic/accuracy")?);
    let (work, counted) = (at("/reports/1/outcome/dynamic/macs")?, at("/summary/compiled_macs")?);
    assert!((work / counted - 1.0).abs() < 0.01 && counted < 0.9 * at("/summary/plain_macs")?, "{work}, {counted}");
    let alone = json("compile model.onnx --data calib.npz --token-exit fixed:3 --exits none -o a.eec --json", folder)?;
    assert_eq!(alone.pointer("/summary"), Some(&Value::Null));
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
        ("compile model.onnx --ffn-skip-at 2 -o a.eec", 2, "--ffn-skip RULE"),
        ("compile model.onnx --ffn-granularity all -o a.eec", 2, "--ffn-skip RULE"),
        ("compile model.onnx --ffn-replace mlp:4 -o a.eec", 2, "--ffn-skip RULE"),
        ("compile model.onnx --token-exits-at 2 -o a.eec", 2, "--token-exit RULE"),
        ("compile model.onnx --visual-tokens 0:4 -o a.eec", 2, "--token-exit RULE"),
    ] {
        let out = output(args, folder.path())?;
        let error = String::from_utf8_lossy(&out.stderr).into_owned();
        assert_eq!(out.status.code(), Some(code), "{args}: {error}");
        assert!(error.contains(reason), "{args}: {error}");
    }
    Ok(())
}
