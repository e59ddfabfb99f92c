//! Token exits by the certainty of an answer; FFN gates, token exits and early exits together; each
//! refused where it cannot stand. On the model and a part of the data carried in `examples/easy-vqa`.

mod shared;

use eec::npz::{Arrays, read_npz};
use eec_ir::Tensor;
use eec_runtime::{Control, Options, Session};
use serde_json::Value;
use shared::place::{Place, Result, names, number, says};

/// A folder with the model and the first rows of the data.
fn place() -> Result<Place> {
    let place = Place::new()?;
    place.rows("calib.npz", 320, "calib.npz")?;
    place.rows("eval.npz", 200, "eval.npz")?;
    Ok(place)
}

/// Three stages share the allowed drop; the compiled model runs all that they chose.
#[test]
fn ffns_tokens_and_exits_compose() -> Result {
    let place = place()?;
    let compiled = place.json(
        "compile model.onnx --data calib.npz --ffn-skip static:10% --token-exit learned --token-exits-at 0,4 --exits 3,6 \
         --max-drop 12% -o all.eec",
    )?;
    assert_eq!(compiled.pointer("/reports").and_then(Value::as_array).map(Vec::len), Some(3));
    for stage in [1, 2] {
        let allowed = number(&compiled, &format!("/reports/{stage}/outcome/drop/max_drop"))?;
        assert!((allowed - 0.04).abs() < 1e-9, "stage {stage} is allowed {allowed}");
    }
    let value = place.json("eval all.eec --data eval.npz")?;
    let (plain, dynamic) = (number(&value, "/plain/accuracy")?, number(&value, "/dynamic/accuracy")?);
    assert!(plain > 0.8 && plain - dynamic <= 0.12, "{plain} to {dynamic}");
    let ratio = number(&value, "/dynamic/macs_ratio")?;
    assert!(ratio > 0.1 && ratio < 0.7, "{ratio}");
    let histogram = value.pointer("/dynamic/token_exit_histogram").and_then(Value::as_array).ok_or("no histogram")?;
    let left: Vec<u64> = histogram.iter().filter_map(Value::as_u64).collect();
    assert_eq!(left.iter().sum::<u64>(), 200);
    let mean = number(&value, "/dynamic/mean_token_exit")?;
    assert!((0.0..7.0).contains(&mean) && left[..left.len() - 1].iter().any(|n| *n > 0), "{mean} of {left:?}");
    let run = place.json("run all.eec --inputs eval.npz")?;
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
fn logits(file: &str, control: Control, place: &Place) -> Result<Tensor> {
    let data = read_npz(&place.at("eval.npz"))?;
    let inputs = ["pixel_values", "input_ids"].map(|name| Ok((name, array(&data, name)?.clone())));
    let inputs = inputs.into_iter().collect::<Result<Vec<_>>>()?;
    let run = Session::load(&place.at(file), Options::default())?.run(&inputs, control)?;
    Ok(run.outputs.into_iter().next().ok_or("no output")?.1)
}

/// An answer head that is sure lets the tokens go: some samples' early, others' late.
#[test]
fn tokens_leave_by_the_entropy_of_an_answer() -> Result {
    let place = place()?;
    let compile = "--data calib.npz --token-exit entropy --token-exits-at 0,4 --exits none --max-drop 12% -o made.eec";
    let compiled = place.json(&format!("compile model.onnx {compile}"))?;
    assert_eq!(names(&compiled, "/gates"), ["tokens after block 0", "tokens after block 4"]);

    place.json("run made.eec --inputs eval.npz --save-outputs made.npz")?;
    let made = read_npz(&place.at("made.npz"))?;
    let taken = array(&made, "token_exit")?.to_i64s().ok_or("not integers")?;
    let never = logits("made.eec", Control::Never, &place)?;
    place.json("run made.eec --no-exit --inputs eval.npz --save-outputs plain.npz")?;
    assert_eq!(never, *array(&read_npz(&place.at("plain.npz"))?, "logits")?);
    let mut sides = Vec::new();
    for block in [0, 4] {
        place.json(&format!("compile model.onnx --token-exit fixed:{block} --exits none -o fixed.eec"))?;
        sides.push(logits("fixed.eec", Control::Auto, &place)?);
    }
    assert_eq!(logits("made.eec", Control::Gates, &place)?, sides[0]);
    sides.push(never);
    for (row, k) in taken.iter().enumerate() {
        let [have, want] = [array(&made, "logits")?, &sides[*k as usize]].map(|t| t.rows(row, row + 1));
        assert_eq!(have, want, "row {row}");
    }

    better_than_chance(&taken, array(&made, "logits")?, &sides, &place)?;
    counted_alike(&taken, &place)?;
    exported_alike(&made, &place)
}

/// What cosine gates know of every token goes past a token exit with the tokens that are left.
#[test]
fn tokens_leave_between_cosine_gates() -> Result {
    let place = place()?;
    let compile = "--data calib.npz --ffn-skip cosine:25% --token-exit learned --token-exits-at 0,4 --exits none \
                   --max-drop 20% -o made.eec";
    let compiled = place.json(&format!("compile model.onnx {compile}"))?;
    let gates = names(&compiled, "/gates");
    let is_token = |g: &&String| g.starts_with("tokens after");
    assert!(gates.iter().any(|g| is_token(&g)) && !gates.iter().all(|g| is_token(&g)), "{gates:?}");
    place.json("run made.eec --no-exit --inputs eval.npz --save-outputs never.npz")?;
    place.json("run model.onnx --inputs eval.npz --save-outputs plain.npz")?;
    let [never, plain] = ["never.npz", "plain.npz"].map(|f| read_npz(&place.at(f)));
    assert_eq!(array(&never?, "logits")?, array(&plain?, "logits")?);
    place.json("run made.eec --inputs eval.npz --save-outputs made.npz")?;
    let made = read_npz(&place.at("made.npz"))?;
    let taken = array(&made, "token_exit")?.to_i64s().ok_or("not integers")?;
    assert!(taken.iter().any(|k| *k != taken[0]), "no mixture: {taken:?}");
    let Some(theirs) = exported(&place)? else { return Ok(()) };
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
    let place = place()?;
    let compile = "compile model.onnx --data calib.npz --ffn-skip cosine --ffn-skip-at 0 --exits none -o a.eec";
    let compiled = place.json(compile)?;
    assert!(names(&compiled, "/gates").is_empty());
    let reasons = names(&compiled, "/reports/0/reasons");
    assert!(reasons.iter().any(|r| r.contains("the cosine rule needs at least 3 FFNs")), "{reasons:?}");
    Ok(())
}

/// More samples are right than if as many, chosen by chance, had gone each way.
fn better_than_chance(taken: &[i64], logits: &Tensor, sides: &[Tensor], place: &Place) -> Result {
    let [chosen, early, late] = [logits, &sides[0], &sides[1]].map(|logits| accuracy(logits, place));
    let share = taken.iter().filter(|k| **k == 0).count() as f64 / taken.len() as f64;
    let (chosen, chance) = (chosen?, share * early? + (1.0 - share) * late?);
    assert!((0.1..0.95).contains(&share) && chosen > chance + 0.02, "{chosen}, {chance} by chance, {share} early");
    Ok(())
}

/// The share of the data's rows that get the class of their label.
fn accuracy(logits: &Tensor, place: &Place) -> Result<f64> {
    let data = read_npz(&place.at("eval.npz"))?;
    let labels = array(&data, "labels")?.to_i64s().ok_or("not integers")?;
    let scores = logits.elements::<f32>().ok_or("not floats")?;
    let classes = scores.len() / labels.len();
    let best = |row: &[f32]| (0..classes).max_by(|a, b| row[*a].total_cmp(&row[*b]));
    let right = scores.chunks(classes).zip(&labels).filter(|(row, l)| best(row) == usize::try_from(**l).ok());
    Ok(right.count() as f64 / labels.len() as f64)
}

/// `eec eval` counts the same decisions, on a part of the rows.
fn counted_alike(taken: &[i64], place: &Place) -> Result {
    const FEW: usize = 36;
    place.rows("eval.npz", FEW, "few.npz")?;
    let value = place.json("eval made.eec --data few.npz")?;
    for gate in [0, 1] {
        let rows = taken[..FEW].iter().filter(|k| **k == gate).count() as f64;
        assert_eq!(number(&value, &format!("/dynamic/gates/{gate}/rows"))?, rows);
    }
    Ok(())
}

/// What ONNX Runtime gives for `made.eec`, exported; `None` without it.
fn exported(place: &Place) -> Result<Option<Arrays>> {
    place.stdout("export made.eec -o made.onnx")?;
    Ok(shared::onnx_runtime(&place.at("made.onnx"), &place.at("eval.npz"), &place.at("theirs.npz"))?)
}

/// Exported, `made.eec` gives in ONNX Runtime what it gave here.
fn exported_alike(made: &Arrays, place: &Place) -> Result {
    let Some(theirs) = exported(place)? else { return Ok(()) };
    made.iter().try_for_each(|(name, tensor)| Ok(shared::compare(name, array(&theirs, name)?, tensor)?))
}

/// What is asked without data is an edit: nothing is decided, and the work falls at once.
#[test]
fn a_fixed_token_exit_needs_no_data() -> Result {
    let place = place()?;
    place.json("compile model.onnx --token-exit fixed:3 --exits none -o fixed.eec")?;
    let value = place.json("eval fixed.eec --data eval.npz")?;
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
    let place = place()?;
    for (drop, pays) in [("90%", "pays"), ("0%", "does-not-pay")] {
        let args = "compile model.onnx --data calib.npz --token-exit fixed:0 --exits none -o fixed.eec";
        let made = place.json(&format!("{args} --max-drop {drop}"))?;
        let verdict = made.pointer("/reports/0/outcome/verdict").ok_or("no verdict")?;
        assert!(verdict.to_string().contains(pays), "{drop}: {verdict}");
        let outcome = |path: &str| number(&made, &format!("/reports/0/outcome/{path}"));
        assert!(outcome("dynamic/accuracy")? < outcome("plain/accuracy")?, "{drop}");
        assert!(outcome("dynamic/macs_ratio")? < 0.9 && outcome("drop/bound")? > 0.0, "{drop}");
        assert_eq!(made.pointer("/reports/0/outcome/rivals"), Some(&Value::Null));
        let value = place.json("eval fixed.eec --data calib.npz")?;
        assert_eq!(number(&value, "/dynamic/mean_token_exit")?, 0.0, "{drop}");
    }
    Ok(())
}

/// Checks that the command prints all `parts`, wherever its lines end.
fn prints(place: &Place, line: &str, parts: &[&str]) -> Result {
    let text = place.stdout(line)?;
    let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
    parts.iter().for_each(|part| assert!(words.contains(part), "`{part}` is not in: {text}"));
    Ok(())
}

/// What is the same for all inputs is named beside what decides, and chance is no rival at equal work.
#[test]
fn edits_are_named_and_not_mixed_with_chance() -> Result {
    let place = place()?;
    let exits = "--exits 5 --head final --rule maxprob:0.9 -o made.eec";
    place.json(&format!("compile model.onnx {exits}"))?;
    let random = "/rivals/random";
    let alone = place.json("eval made.eec --data eval.npz --limit 40")?;
    assert!(alone.pointer(random).is_some() && alone.pointer("/rivals/fixed_depth").is_some());

    let named = ["visual tokens leave after block 3", "one exit, after block 5"];
    prints(&place, &format!("compile model.onnx --token-exit fixed:3 {exits}"), &[&named.join("; ")])?;
    let both = place.json("eval made.eec --data eval.npz --limit 40")?;
    assert!(both.pointer(random).is_none() && both.pointer("/rivals/fixed_depth").is_some());
    prints(&place, "inspect made.eec", &named)?;
    assert_eq!(number(&place.json("inspect made.eec")?, "/edits/fixed_token_exit")?, 3.0);
    prints(&place, "compile model.onnx --token-exit fixed:3 --exits none -o made.eec", &named[..1])?;
    let text = place.stdout("inspect made.eec")?;
    assert!(text.contains(named[0]) && !text.contains("exits after"), "{text}");
    Ok(())
}

/// Stages after the first start from the model so far; a summary compares what came out with the plain one.
#[test]
fn several_stages_end_in_a_summary() -> Result {
    let place = place()?;
    let line = "compile model.onnx --data calib.npz --token-exit fixed:3 --exits 5 --head final --rule maxprob:0.9 \
                -o made.eec";
    prints(&place, line, &["model so far", "All together, on the 160 rows to verify", "compiled model"])?;
    assert!(std::fs::read_to_string(place.at("made.html"))?.contains("<h2>All together</h2>"));
    let made = place.json(line)?;
    let at = |path: &str| number(&made, path);
    assert_eq!(at("/summary/plain")?, at("/reports/0/outcome/plain/accuracy")?);
    assert_eq!(at("/summary/compiled")?, at("/reports/1/outcome/dynamic/accuracy")?);
    let (work, counted) = (at("/reports/1/outcome/dynamic/macs")?, at("/summary/compiled_macs")?);
    assert!((work / counted - 1.0).abs() < 0.01 && counted < 0.9 * at("/summary/plain_macs")?, "{work}, {counted}");
    let alone = place.json("compile model.onnx --data calib.npz --token-exit fixed:3 --exits none -o a.eec")?;
    assert_eq!(alone.pointer("/summary"), Some(&Value::Null));
    Ok(())
}

#[test]
fn what_cannot_be_done_is_refused_with_the_reason() -> Result {
    let place = place()?;
    for (args, code, reason) in [
        ("compile model.onnx --token-exit learned -o a.eec", 2, "--data"),
        ("compile model.onnx --ffn-skip static -o a.eec", 2, "--data"),
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
        says(&place.refusal(code, args)?, &[reason]);
    }
    Ok(())
}
