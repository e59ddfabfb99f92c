//! The command as people who write passes use it: text through pipes, why passes apply or not, small
//! cases out of large ones, and the graph drawn.

mod shared;

use std::io::Write;
use std::process::Stdio;

use serde_json::Value;
use shared::place::{Place, Result, says};

const CASE: &str = "\
;! passes = \"simplify, store-weights{as=bf16}, simplify\"
;! dims = \"n=3\"
graph @g(%x: f32[n, 6]) -> (%y: f32[n, 5], %z: f32[n, 6]) {
  %0 = Relu(%x)  @\"first\"
  %1 = MatMul(%0, const f32[6, 8] #01)  @\"up\"
  %2 = Tanh(%1)  @\"bend\"
  %3 = MatMul(%2, const f32[8, 5] #02)  @\"down\"
  %y = Sigmoid(%3)  @\"last\"
  %z = Neg(%x)
  return %y, %z
}
";

/// Standard output and error of a command that gets `input`.
fn piped(place: &Place, line: &str, input: &[u8]) -> Result<(String, String)> {
    let mut command = place.command(line);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    child.stdin.take().ok_or("no stdin")?.write_all(input)?;
    let out = child.wait_with_output()?;
    let (text, error) = (String::from_utf8(out.stdout)?, String::from_utf8(out.stderr)?);
    if out.status.success() { Ok((text, error)) } else { Err(error.into()) }
}

#[test]
fn opt_is_a_filter_of_text_and_takes_onnx() -> Result {
    let place = Place::new()?;
    let (text, timing) = piped(&place, "opt --passes simplify --timing", CASE.as_bytes())?;
    says(&text, &["graph @g", "@\"up\""]);
    says(&timing, &["pass", "inserted", "simplify"]);
    assert_eq!(piped(&place, "opt -", text.as_bytes())?.0.lines().count(), text.lines().count());
    let onnx = std::fs::read(place.at("model.onnx"))?;
    assert_eq!(piped(&place, "opt -", &onnx)?.0, place.stdout("opt model.onnx")?);
    let error = piped(&place, "opt", b"graph @g(").err().map(|e| e.to_string()).unwrap_or_default();
    says(&error, &["-: 1:"]);
    let refused = |line: &str, input: &[u8]| piped(&place, line, input).err().map(|e| e.to_string());
    place.stdout("compile model.onnx -o model.eec")?;
    let compiled = std::fs::read(place.at("model.eec"))?;
    for line in ["opt -", "explain -"] {
        says(&refused(line, &compiled).unwrap_or_default(), &["-: holds a compiled model", "text IR or ONNX"]);
    }
    says(&refused("reduce -", &compiled).unwrap_or_default(), &["-: is no text", "a file named .onnx or .eec"]);
    says(&refused("opt - --fix x=1", CASE.as_bytes()).unwrap_or_default(), &["is no ONNX model", "--fix"]);
    for verb in ["opt", "explain"] {
        says(&place.refusal(2, &format!("{verb} model.onnx --passes ,"))?, &["names no pass", "--list-passes"]);
    }
    Ok(())
}

#[test]
fn opt_lists_the_passes_with_their_options() -> Result {
    let list = Place::new()?.stdout("opt --list-passes")?;
    says(&list, &["simplify: ", "exit-heads: ", "    at=", "token-exits: ", "    span="]);
    Ok(())
}

#[test]
fn explain_has_a_verdict_for_every_pass_and_block() -> Result {
    let place = Place::new()?;
    let value = place.json("explain model.onnx")?;
    let passes = value.pointer("/passes").and_then(Value::as_array).ok_or("no passes")?;
    for pass in passes {
        let places = pass["places"].as_array().ok_or("no places")?;
        assert!(!places.is_empty(), "{pass}");
        let is_told = |p: &Value| p["applies"] == true || p["reason"].as_str().is_some_and(|r| !r.is_empty());
        assert!(places.iter().all(is_told), "{pass}");
    }
    let text = place.stdout("explain model.onnx --pass exit-heads")?;
    says(&text, &["block 0  yes", "block 7  no: it is the last block"]);
    let ran = place.stdout("explain model.onnx --passes exit-heads{at=[2],rule=maxprob:0.9},simplify")?;
    says(&ran, &["exit-heads\n  changed the graph", " inserted\n", "simplify\n"]);
    says(&place.refusal(2, "explain model.onnx --pass nonsense")?, &["--pass nonsense", "token-exits"]);
    Ok(())
}

#[test]
fn reduce_leaves_what_fails() -> Result {
    let place = Place::new()?;
    let (text, error) = piped(&place, "reduce -", CASE.as_bytes())?;
    says(&error, &["fails by values of the evaluator with 1 passes on 1 nodes"]);
    says(&text, &[";! passes = \"store-weights{as=bf16}\"", ";! dims = \"n=3\"", "MatMul", "#0"]);
    // What is left fails for whoever reads it, and cannot be made smaller.
    assert_eq!(piped(&place, "reduce -", text.as_bytes())?.0, text);
    let holds = CASE.replace(", store-weights{as=bf16}", "");
    let refused = piped(&place, "reduce -", holds.as_bytes()).err().map(|e| e.to_string()).unwrap_or_default();
    says(&refused, &["the case does not fail"]);
    let unknown = CASE.replace("store-weights", "nonsense");
    let refused = piped(&place, "reduce -", unknown.as_bytes()).err().map(|e| e.to_string()).unwrap_or_default();
    says(&refused, &["found `nonsense`"]);
    Ok(())
}

#[test]
fn drawings_hold_every_segment_and_exit_with_its_cost() -> Result {
    let place = Place::new()?;
    place.stdout("compile model.onnx -o one.eec --exits 2,5 --head final --rule maxprob:0.5")?;
    place.stdout("inspect one.eec --html one.html --dot one.dot --threads 1")?;
    let html = std::fs::read_to_string(place.at("one.html"))?;
    for block in 0..8 {
        assert_eq!(html.matches(&format!("<b>block {block}</b>")).count(), 1, "block {block}");
    }
    says(
        &html,
        &["exit 0, after block 2", "exit 1, after block 5", "exit.0 (exit-heads)", "<b>stem</b>", "<b>tail</b>"],
    );
    assert_eq!(html.matches("class=\"exit\"").count(), 2);
    assert!(!html.contains("http"), "nothing is loaded");
    let shares = html.split("· ").filter_map(|part| part.split_once(" %</output>")).map(|(n, _)| n.parse::<f64>());
    let total: f64 = shares.collect::<std::result::Result<Vec<_>, _>>()?.iter().sum();
    assert!((90.0..101.0).contains(&total), "segments have {total} % of the time");
    let dot = std::fs::read_to_string(place.at("one.dot"))?;
    let plain = place.json("inspect one.eec")?;
    says(&html, &[&format!("<li>{} nodes</li>", plain["nodes"]), "with what was inserted"]);
    let shown = place.stdout("inspect one.eec --dot - --threads 1")?;
    assert!(shown.starts_with("digraph ") && shown.ends_with("}\n"), "{shown}");
    says(&place.refusal(2, "inspect one.eec --dot - --json")?, &["stdout takes one of"]);
    says(&dot, &["digraph", "exit 1, after block 5, else", "block 7: "]);
    assert_eq!(dot.matches('{').count(), dot.matches('}').count());
    Ok(())
}

#[test]
fn passes_of_a_recipe_run_last() -> Result {
    let place = Place::new()?;
    std::fs::write(place.at("r.toml"), "passes = 'exit-heads{at=[4], head=final, rule=maxprob:0.5}'")?;
    let compiled = place.json("compile model.onnx -o one.eec --recipe r.toml")?;
    assert_eq!(compiled["exits"], Value::from(vec!["block 4"]));
    let run = place.json("run one.eec --force-exit 0")?;
    assert!(run.pointer("/counters/macs").and_then(Value::as_u64) > Some(0));
    says(&place.refusal(1, "compile model.onnx -o x.eec --passes nonsense")?, &["passes: in `nonsense`"]);
    Ok(())
}
